"""Histories: a history kept call by call agrees with a full count in any order, and states when it is full."""

from __future__ import annotations

import itertools
import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ostiary.authorization.catalogue import Catalogue, Effect, Tool
from ostiary.protocol.errors import Malformed
from ostiary.provenance import history
from ostiary.provenance.history import (
    EFFECTS,
    MAX_CREATED,
    MAX_RECIPIENTS,
    MAX_TOOLS,
    NOTHING,
    Done,
    History,
    PriorHistory,
    after,
    created_by,
    done_of,
    history_context,
    is_news,
    joined,
    list_created,
    plan_of,
)

KEY = b"k" * 32
READ, SEND, PAY = EFFECTS.index("read"), EFFECTS.index("send"), EFFECTS.index("pay")
values = st.binary(min_size=8, max_size=8)
names = st.sampled_from([f"class-{number}" for number in range(40)]) | st.sampled_from(["c" * 63, "d" * 63])
calls = st.builds(
    Done,
    st.sampled_from([f"files/tool_{number}" for number in range(80)]) | st.sampled_from(["t" * 250, "u" * 250]),
    st.integers(0, len(EFFECTS) - 1),
    st.lists(names, max_size=8, unique=True).map(lambda found: tuple(sorted(found))),
    st.booleans(),
    st.lists(values, max_size=40, unique=True).map(lambda found: tuple(sorted(found))),
    st.sampled_from([False, False, False, True]),
)


def anew(done: list[Done]) -> dict[str, Any]:
    """Return the history from a full count of all calls."""
    recipients = sorted({one for call in done for one in call.recipients})
    tools = sorted({call.tool for call in done})
    classes = sorted({name for call in done for name in call.classes})
    read = sorted({name for call in done if call.effect == READ for name in call.classes})
    return {
        "counts": tuple(sum(call.effect == place != READ for call in done) for place in range(len(EFFECTS))),
        "effects": sum(1 << place for place in {call.effect for call in done}),
        "outside": any(call.is_outside for call in done),
        "recipients": recipients[:MAX_RECIPIENTS],
        "full": any(call.is_more for call in done)
        or len(recipients) > MAX_RECIPIENTS
        or too_much(tools, MAX_TOOLS, history.MAX_TOOL_BYTES)
        or any(too_much(found, 32, history.MAX_CLASS_BYTES) for found in (classes, read)),
        "tools": tools,
        "classes": classes,
        "read": read,
    }


def too_much(found: list[str], most: int, size: int) -> bool:
    return len(found) > most or sum(map(len, found)) > size


def fold(done: list[Done]) -> History:
    made = NOTHING
    for call in done:
        made = after(made, call)
    return made


@given(st.lists(calls, max_size=60))
def test_a_history_kept_call_by_call_agrees_with_a_full_count(done: list[Done]) -> None:
    made, slow = fold(done), anew(done)
    assert made.counts == slow["counts"]
    assert (made.effects, made.has_seen_outside) == (slow["effects"], slow["outside"])
    assert list(made.recipients) == slow["recipients"]
    assert made.is_full is slow["full"]
    if not made.is_full:
        assert [list(made.tools), list(made.classes), list(made.read_classes)] == [
            slow["tools"],
            slow["classes"],
            slow["read"],
        ]


@given(st.lists(calls, max_size=30), st.randoms(use_true_random=False), st.integers(0, 30))
def test_a_history_does_not_depend_on_the_order_of_reports(done: list[Done], dice: random.Random, cut: int) -> None:
    other = list(done)
    dice.shuffle(other)
    assert fold(done) == fold(other)
    assert joined(fold(done[:cut]), fold(done[cut:])) == fold(done)


@given(st.lists(calls, max_size=30), calls)
def test_a_call_that_would_change_the_history_is_news(done: list[Done], call: Done) -> None:
    read, other = ("files/a", READ, ("x",), True), ("files/a", READ, ("x", "y"), True)
    made = fold(done)
    changes = after(made, call) != made
    assert is_news(made, call) is changes if not made.is_full else is_news(made, call) >= changes
    assert not is_news(after(NOTHING, Done(*read)), Done(*read))
    assert is_news(after(NOTHING, Done(*read)), Done(*other))
    assert is_news(after(NOTHING, Done(*read)), Done(*read, recipients=(bytes(8),)))
    assert is_news(after(NOTHING, Done(*read)), Done(*read, is_more=True))


@given(st.lists(calls, max_size=80))
def test_a_packed_history_is_within_the_size_limit_and_unpacks_to_the_same(done: list[Done]) -> None:
    made = fold(done)
    body = history.pack_history(made)
    assert len(body) <= 7 << 10 < history.MAX_HISTORY
    assert history.unpack_history(body) == made


@pytest.mark.parametrize("count", [MAX_TOOLS - 1, MAX_TOOLS, MAX_TOOLS + 1])
def test_a_history_is_full_beyond_its_maximum_number_of_tools(count: int) -> None:
    made = fold([Done(f"files/{number}", READ) for number in range(count)])
    assert (len(made.tools), made.is_full) == (min(count, MAX_TOOLS), count > MAX_TOOLS)


@pytest.mark.parametrize("count", [MAX_RECIPIENTS - 1, MAX_RECIPIENTS, MAX_RECIPIENTS + 1])
def test_a_history_is_full_beyond_its_maximum_number_of_recipients(count: int) -> None:
    every = [f"{number}@example.org" for number in range(count)]
    at_once = after(NOTHING, send(to=every))
    assert (len(at_once.recipients), at_once.is_full) == (min(count, MAX_RECIPIENTS), count > MAX_RECIPIENTS)
    one_by_one = fold([send(to=one) for one in every])
    assert (one_by_one.recipients, one_by_one.is_full) == (at_once.recipients, at_once.is_full)


@pytest.mark.parametrize(("size", "is_full"), [(1023, False), (1024, False), (1025, True)])
def test_a_history_is_full_beyond_its_maximum_bytes_of_classes(size: int, is_full: bool) -> None:
    classes = [chr(97 + number) * 60 for number in range(17)] + ["z" * (size - 17 * 60)]
    assert fold([Done("files/a", SEND, (one,)) for one in classes]).is_full is is_full


def test_objects_beyond_the_maximum_number_do_not_count_as_created() -> None:
    every = [bytes([0, 0, 0, 0, 0, 0, 0, number]) for number in range(MAX_CREATED + 1)]
    made = history.created(history.created(NOTHING, every[::-1]), every)
    assert (made.created, made.is_full) == (tuple(every[:MAX_CREATED]), False)


# --------------------------------------------------------------------------------------------- from calls and outputs

MAIL = Tool(
    name="send",
    effect=Effect.SEND,
    kinds={"to": "address", "cc": "recipient", "copies.to": "principal", "text": "text", "bill": "object"},
)
EVENT = Tool(name="create", effect=Effect.WRITE, creates={"event_id": "output.id", "path": "arguments.path"})


def send(tool: Tool = MAIL, **arguments: Any) -> Done:
    return done_of(KEY, plan_of(f"mail/{tool.name}", tool, {"internal"}), arguments)


@pytest.mark.parametrize(
    ("arguments", "count"),
    [
        ({}, 0),
        ({"to": ""}, 0),
        ({"to": None}, 0),
        ({"to": "ann@example.org"}, 1),
        ({"to": "ann@example.org", "cc": "ANN@example.org "}, 1),
        ({"to": ["ann@example.org", "bob@example.org"]}, 2),
        ({"to": "ann@example.org, bob@example.org;eve@example.org\nzoe@example.org"}, 4),
        ({"to": [{"mail": "ann@example.org"}], "cc": ["bob@example.org"]}, 2),
        ({"to": "ann@example.org bob@example.org\teve@example.org"}, 3),
        ({"to": "ann, bob@example.org eve@example.org"}, 3),
        ({"to": "Ann Lee <ann@example.org>"}, 1),
        ({"to": "Ann Lee"}, 1),
        ({"to": "é", "cc": "e\u0301"}, 1),
        ({"to": "é", "cc": "E\u0301"}, 1),
        ({"to": "a@straße.example", "cc": "A@STRAẞE.example"}, 1),
        ({"to": "a@straße.example", "cc": "a@strasse.example"}, 2),
        ({"to": "\ud800"}, 1),
        ({"copies": [{"to": "ann"}, {"to": ["bob", "eve"]}], "copies.to": "zoe"}, 4),
        ({"text": "ann@example.org", "bill": "x"}, 0),
    ],
)
def test_each_recipient_counts_once_in_any_notation(arguments: dict[str, Any], count: int) -> None:
    assert len(send(**arguments).recipients) == count


@pytest.mark.parametrize("effect", list(Effect))
def test_only_a_call_that_sends_shares_or_pays_has_recipients(effect: Effect) -> None:
    tool = Tool(name="x", effect=effect, kinds={"to": "address"})
    goes_out = effect in (Effect.SEND, Effect.SHARE, Effect.PAY)
    assert len(send(tool, to="ann").recipients) == int(goes_out)


def test_a_value_nested_too_deeply_counts_as_a_recipient() -> None:
    deep: Any = "eve@example.org"
    for _ in range(40):
        deep = [deep]
    assert len(send(to=deep).recipients) == 1


def test_the_marks_of_recipients_depend_on_the_key() -> None:
    other = done_of(b"o" * 32, plan_of("mail/send", MAIL, ()), {"to": "ann@example.org"})
    assert set(send(to="ann@example.org").recipients).isdisjoint(other.recipients)


def created(output: Any, uid: str = "calendar/create", tool: Tool = EVENT, **arguments: Any) -> History:
    return history.created(NOTHING, created_by(KEY, uid, tool, arguments, output))


@pytest.mark.parametrize(
    "output", [{"id": "24"}, {"id": 24, "title": "13"}, '{"id": "24"}', ['{"id": 24}'], {"id": ["24"]}]
)
def test_an_object_whose_name_the_tool_returned_counts_as_created(output: Any) -> None:
    made = created(output)
    assert list_created(made, KEY, "calendar/delete", {"event_id": "24"}) == {"event_id"}
    assert list_created(made, KEY, "calendar/delete", {"event_id": ["24", 24]}) == {"event_id"}
    others: list[dict[str, Any]] = [
        {"event_id": "13"},
        {"event_id": ["24", "13"]},
        {"contact_id": "24"},
        {"event_id": []},
        {},
    ]
    for other in others:
        assert not list_created(made, KEY, "calendar/delete", other), other
    assert not list_created(made, KEY, "files/delete", {"event_id": "24"})


@pytest.mark.parametrize(
    "output", ["24", {"ID": "24"}, {"event": {"id": "24"}}, None, ["24"], "{", '{"id": null}', 24, []]
)
def test_a_name_outside_of_the_declared_place_does_not_count_as_created(output: Any) -> None:
    assert created(output) == NOTHING


def test_a_name_in_the_arguments_counts_as_created_if_the_catalogue_declares_the_place() -> None:
    made = created(None, path="notes.txt")
    assert list_created(made, KEY, "calendar/delete", {"path": "notes.txt"}) == {"path"}
    assert created(None, tool=Tool(name="create", effect=Effect.WRITE), path="notes.txt") == NOTHING


@pytest.mark.parametrize(
    ("place", "good"),
    [
        ("output.id", True),
        ("arguments.path", True),
        ("output.a.b-c._d", True),
        ("output", False),
        ("id", False),
        ("result.id", False),
        ("output.", False),
        ("output.a b", False),
        ("output" + ".a" * 8, True),
        ("output" + ".a" * 9, False),
    ],
)
def test_a_catalogue_declares_the_place_of_created_names_in_output_or_arguments(place: str, good: bool) -> None:
    catalogue = {"resource": "calendar", "tools": [{"name": "create", "effect": "write", "creates": {"id": place}}]}
    text = json.dumps(catalogue)
    if good:
        assert Catalogue.parse(text).tools["create"].creates == {"id": place}
    else:
        with pytest.raises(Malformed):
            Catalogue.parse(text)


# ------------------------------------------------------------------------------------------------------- for policies


def test_the_context_of_policies_has_the_prior_history_and_new_recipients() -> None:
    made = fold(
        [
            Done("crm/read", READ, ("customer",), is_outside=True),
            send(to=["ann", "bob"]),
            send(to="bob"),
        ]
    )
    made = history.created(made, created_by(KEY, "mail/create", EVENT, {}, {"id": 24}))
    before = PriorHistory(KEY, made, after(NOTHING, Done("bank/pay", PAY)), 1, 0)
    seen: Any = before.context(send(to=["bob", "eve", "zoe"]), {"event_id": 24, "other": 24})
    assert seen["tools"] == {"crm/read", "mail/send"}
    assert seen["effects"] == {"read", "send"}
    assert (seen["classes"], seen["read_classes"]) == ({"customer", "internal"}, {"customer"})
    assert seen["counts"] == {**dict.fromkeys(EFFECTS, 0), "send": 2}
    assert (seen["recipients"], seen["new_recipients"]) == (2, 2)
    assert (seen["outside"], seen["created"]) == (True, {"event_id"})
    assert seen["recent"] == history_context(after(NOTHING, Done("bank/pay", PAY)))
    assert seen["recent"]["counts"]["pay"] == 1


@pytest.mark.parametrize("body", [b"", b"x", b"\xc0", history.pack_history(NOTHING)[:-1], b"\x91\x01"])
def test_a_malformed_history_is_refused(body: bytes) -> None:
    with pytest.raises(Malformed):
        history.unpack_history(body)


@pytest.mark.parametrize("effects", [0, len(EFFECTS) - 1, len(EFFECTS), len(EFFECTS) + 1])
def test_a_history_from_before_the_newest_effects_counts_zero_of_those_effects(effects: int) -> None:
    body = history.pack_history(History(tools=("files/read",), counts=(7,) * effects))
    if effects > len(EFFECTS):
        with pytest.raises(Malformed):
            history.unpack_history(body)
    else:
        counts = joined(history.unpack_history(body), NOTHING).counts
        assert counts == (7,) * effects + (0,) * (len(EFFECTS) - effects)


def test_calls_that_fill_a_history_give_the_same_result_in_each_order() -> None:
    some = [send(to=[f"{part}-{number}" for number in range(50)]) for part in range(4)]
    assert len({fold(list(order)) for order in itertools.permutations(some)}) == 1
