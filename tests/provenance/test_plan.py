"""Plans: a plan comes from the person's words, is kept in the memory of the task, and adds no trust to values."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from msgspec.structs import replace

from benchmarks.decide import URI, principal
from benchmarks.origins import NOW
from ostiary.authorization.catalogue import Catalogue, Effect, Tool
from ostiary.authorization.cedar.values import Record
from ostiary.decision.access import DecisionInputs, Facts, Principal, Protected, decide, resolve
from ostiary.decision.access.decide import Decision
from ostiary.protocol.errors import Forbidden
from ostiary.provenance.intent import Intent, InvalidIntent, Planned, parse_intent
from ostiary.provenance.origins import (
    ALL_KINDS,
    Memory,
    Origin,
    Part,
    add_parts,
    judge_origins,
    judge_plan,
    observe_output,
    pack,
    remember,
    unpack,
)
from ostiary.provenance.origins.judging import is_settled
from ostiary.provenance.origins.memory import Document
from ostiaryd.policy.model import starter_files

KEY = bytes(range(32))
KINDS = {"to": "account", "amount": "amount"}
PAY = Tool(name="pay", effect=Effect.PAY, kinds=KINDS)
LOOK = Tool(name="look", effect=Effect.READ, kinds={"to": "account"})
WORDS = "Pay Ann 50"


def planned(*plan: Planned) -> Memory:
    return remember(KEY, Intent(words=WORDS, plan=plan))


def after(memory: Memory, origin: Origin, *values: str) -> Memory:
    words = b"".join(memory.hashed([value]) for value in values)
    return add_parts(memory, [Part(origin, ALL_KINDS, words)])


@pytest.mark.parametrize(
    ("plan", "more", "expected"),
    [
        ([{"tool": "bank/pay"}], {}, Planned("bank/pay")),
        ([{"tool": "bank/pay", "most": "50.25"}], {}, Planned("bank/pay", "50.25")),
        ([{"tool": "pay"}], {}, None),
        ([{"tool": "bank/pay", "most": "-1"}], {}, None),
        ([{"tool": "bank/pay", "most": "1e9"}], {}, None),
        ([{"tool": "bank/pay"}] * 2, {}, None),
        ([{"tool": f"bank/p{number}"} for number in range(256)], {}, Planned("bank/p0")),
        ([{"tool": f"bank/p{number}"} for number in range(257)], {}, None),
    ],
)
def test_a_plan_names_each_tool_once_with_at_most_one_cap(plan: Any, more: Any, expected: Planned | None) -> None:
    if expected is None:
        with pytest.raises(InvalidIntent):
            parse_intent({"words": WORDS, "plan": plan})
    else:
        found = parse_intent({"words": WORDS, "plan": plan}).plan
        assert found is not None
        assert found[0] == expected


WITHIN = [
    ((Planned("bank/pay"),), (Planned("bank/pay"),), True),
    ((Planned("bank/pay", "50"),), (Planned("bank/pay"),), True),
    ((Planned("bank/pay", "50"),), (Planned("bank/pay", "50.0"),), True),
    ((Planned("bank/pay", "49"),), (Planned("bank/pay", "50"),), True),
    ((), (Planned("bank/pay"),), True),
    ((Planned("bank/pay"),), None, True),
    (None, None, True),
    ((Planned("bank/pay", "50.01"),), (Planned("bank/pay", "50"),), False),
    ((Planned("bank/pay"),), (Planned("bank/pay", "50"),), False),
    ((Planned("bank/close"),), (Planned("bank/pay"),), False),
    (None, (Planned("bank/pay"),), False),
]


@pytest.mark.parametrize(("inner", "outer", "is_within"), WITHIN)
def test_the_plan_of_a_part_lies_within_the_plan_of_the_whole(
    inner: tuple[Planned, ...] | None, outer: tuple[Planned, ...] | None, is_within: bool
) -> None:
    above = Intent(words=WORDS, plan=outer)
    if is_within:
        Intent(words=WORDS, plan=inner).check_within(above)
    else:
        with pytest.raises(Forbidden):
            Intent(words=WORDS, plan=inner).check_within(above)


@pytest.mark.parametrize("plan", [None, (), (Planned("bank/pay", "50"), Planned("mail/send"))])
def test_a_memory_carries_the_plan(plan: tuple[Planned, ...] | None) -> None:
    memory = after(remember(KEY, Intent(words=WORDS, plan=plan)), Origin.OUTSIDE, "x")
    carried = unpack(pack(memory), key=KEY)
    assert carried.plan == memory.plan
    assert (carried.plan is None) is (plan is None)


def test_memories_with_and_without_a_plan_are_readable_by_either_version() -> None:
    class Before(msgspec.Struct, array_like=True):
        parts: tuple[Part, ...] = ()
        documents: tuple[Document, ...] = ()

    new = planned(Planned("bank/pay"))
    assert msgspec.msgpack.decode(pack(new), type=Before).parts == new.parts
    old = unpack(msgspec.msgpack.encode(Before(new.parts)), key=KEY)
    assert (old.parts, old.plan) == (new.parts, None)


@pytest.mark.parametrize("order", [20, 20.0, "20", "#20", [20], "20/", "20,", "20, 20", "TB-11;20", "TB-11\n20"])
def test_a_short_number_of_the_person_names_no_object_of_a_tool_outside_the_plan(order: object) -> None:
    memory = remember(KEY, Intent(words="Put the stock of cup TB-11 at 20", plan=(Planned("shop/stock"),)))
    delete = Tool(name="delete", effect=Effect.DESTROY, kinds={"order": "object"})
    assert judge_origins(memory, delete, {"order": order}, is_planned=True)["origin_worst"] == "person"
    assert judge_origins(memory, delete, {"order": order}, is_planned=False)["origin_worst"] == "known"
    assert judge_origins(memory, delete, {"order": "TB-11"}, is_planned=False)["origin_worst"] == "person"
    assert memory.may_plan("shop/stock")
    assert not memory.may_plan("shop/delete")
    assert remember(KEY, Intent(words=WORDS)).may_plan("shop/delete"), "without a plan each tool is in it"


NUMERALS = "0123456789٠١٢٣٤٥٦٧٨٩०१२३४५६७८९๐๑๒๓๔๕๖๗๘๙０１２３４５６７８９一二三四五六七八九十ⅩⅫ½²"


@given(
    st.lists(st.text(NUMERALS, min_size=1, max_size=6), min_size=1, max_size=4),
    st.sampled_from(["/", "-", ".", ":", "#", " ", ",", ";", "|", "_", "\\", "·", "／", "–", "، ", "\n", " / "]),
    st.sampled_from(["", "#", "/", "(", "№ "]),
    st.booleans(),
)
def test_short_numbers_with_any_separators_name_no_object_outside_the_plan(
    numbers: list[str], sign: str, before: str, is_list: bool
) -> None:
    memory = remember(KEY, Intent(words=f"Take {' , '.join(numbers)} of it", plan=(Planned("shop/stock"),)))
    delete = Tool(name="delete", effect=Effect.DESTROY, kinds={"order": "object"})
    order = before + sign.join(numbers)
    judged = judge_origins(memory, delete, {"order": [order] if is_list else order}, is_planned=False)
    assert judged["origin_worst"] in ("known", "outside", "nowhere")


@pytest.mark.parametrize("address", ["10.20.4.17", "555-0134", "2026-12-04", "2026/12/04", "192.0.2.1:8443"])
def test_a_long_word_of_numbers_that_the_person_wrote_names_its_object(address: str) -> None:
    memory = remember(KEY, Intent(words=f"Put {address} on the list", plan=(Planned("shop/stock"),)))
    delete = Tool(name="delete", effect=Effect.DESTROY, kinds={"order": "object"})
    assert judge_origins(memory, delete, {"order": address}, is_planned=False)["origin_worst"] == "person"


def test_short_numbers_as_parts_of_an_identifier_name_no_object_outside_the_plan() -> None:
    memory = remember(KEY, Intent(words="Raise the share to 11/20", plan=(Planned("shop/stock"),)))
    schema = {"properties": {"shop": {"type": "integer"}, "order": {"type": "integer"}}}
    delete = Tool(name="delete", effect=Effect.DESTROY, kinds={"shop": "object", "order": "object"}, arguments=schema)
    call = {"shop": 11, "order": 20}
    assert judge_origins(memory, delete, call, is_planned=True)["origin_worst"] == "person"
    assert judge_origins(memory, delete, call, is_planned=False)["origin_worst"] == "known"


def test_a_short_number_in_a_tool_outside_the_plan_requires_an_approval() -> None:
    tools = [
        {"name": "stock", "effect": "change", "scope": "read", "kinds": {"cup": "object", "count": "amount"}},
        {"name": "delete", "effect": "destroy", "scope": "read", "kinds": {"order": "object"}},
    ]
    catalogue = Catalogue.parse(json.dumps({"resource": "files", "tools": tools}))
    facts = Facts(Protected(name="files", uri=URI, segment="default", catalogue=catalogue), starter_files().policies)
    agent = Principal(replace(principal().claims, memory="tk_1"))

    def decided(*plan: Planned) -> Decision:
        memory = remember(KEY, Intent(words="Put the stock of the cup at 20", plan=plan))
        return decide(resolve(agent, "delete", {"order": 20}, facts, NOW), DecisionInputs(memory))

    assert decided(Planned("files/stock")).asks
    assert decided(Planned("files/stock"), Planned("files/delete")).allowed


def test_the_context_of_policies_has_the_plan() -> None:
    memory = planned(Planned("bank/pay", "50"), Planned("bank/look"))
    said = {"to": "Ann", "amount": 50}
    assert judge_plan(memory, "bank/pay", PAY, said) == {"planned": True, "over_plan": False, "read_outside": False}
    assert judge_plan(memory, "bank/refund", PAY, said)["planned"] is False
    assert judge_plan(remember(KEY, Intent(words=WORDS)), "bank/pay", PAY, said) == {}
    assert judge_plan(memory, "bank/look", LOOK, said) == {}
    assert judge_plan(after(memory, Origin.OUTSIDE, "x"), "bank/pay", PAY, said)["read_outside"] is True
    assert judge_plan(after(memory, Origin.KNOWN, "x"), "bank/pay", PAY, said)["read_outside"] is False


def test_a_mail_address_in_a_record_is_not_untrusted_content() -> None:
    memory = planned(Planned("bank/pay"))
    look = replace(LOOK, outside=False)
    memory = add_parts(memory, observe_output(memory, "bank/look", look, {}, [{"name": "Ann", "mail": "a@b.example"}]))
    assert memory.mails
    assert judge_plan(memory, "bank/refund", PAY, {"to": "Ann"})["read_outside"] is False
    memory = add_parts(memory, observe_output(memory, "bank/look", LOOK, {}, "a letter of a stranger"))
    assert judge_plan(memory, "bank/refund", PAY, {"to": "Ann"})["read_outside"] is True


@pytest.mark.parametrize(
    ("amount", "is_over"),
    [
        (50, False),
        (50.0, False),
        ("50.00", False),
        (0, False),
        (None, False),
        (50.01, True),
        (51, True),
        ("50.01", True),
        ("1,000", True),
        ("50,00", True),
        ("5e9", True),
        ([1, 51], True),
        ([1, 2], False),
        (True, True),
        ({"value": 60}, True),
        (10**400, True),
    ],
)
def test_an_amount_above_the_cap_or_an_unreadable_amount_is_over_the_plan(amount: object, is_over: bool) -> None:
    found = judge_plan(planned(Planned("bank/pay", "50")), "bank/pay", PAY, {"to": "Ann", "amount": amount})
    assert found["over_plan"] is is_over
    uncapped = judge_plan(planned(Planned("bank/pay")), "bank/pay", PAY, {"to": "Ann", "amount": amount})
    assert uncapped["over_plan"] is False


def test_a_known_value_that_untrusted_content_also_names_is_mentioned() -> None:
    known = after(planned(), Origin.KNOWN, "acc1", "acc2")
    both = after(known, Origin.OUTSIDE, "acc2", "ann")
    assert judge_origins(both, PAY, {"to": "acc1"})["mentioned"] is False
    assert judge_origins(both, PAY, {"to": "acc2"})["mentioned"] is True
    assert judge_origins(both, PAY, {"to": ["acc1", "acc2"]})["mentioned"] is True
    assert judge_origins(both, PAY, {"to": "Ann"})["mentioned"] is False, "the person said it"
    assert judge_origins(known, PAY, {"to": "acc2"})["mentioned"] is False
    amounts = after(after(known, Origin.KNOWN, "70", "80"), Origin.OUTSIDE, "80")
    assert judge_origins(amounts, PAY, {"to": "Ann", "amount": 70})["mentioned"] is False
    assert judge_origins(amounts, PAY, {"to": "Ann", "amount": 80})["mentioned"] is True


def test_a_destructive_call_without_an_object_has_no_origin_after_untrusted_content() -> None:
    properties = {"force": {"type": "boolean"}, "keep": {"type": "integer"}, "note": {}, "what": {}}
    clear = Tool(
        name="clear",
        effect=Effect.DESTROY,
        arguments={"type": "object", "properties": properties},
        kinds={"note": "text"},
    )
    begun = planned(Planned("bank/clear"))
    read = after(begun, Origin.OUTSIDE, "x")
    cases: list[dict[str, object]] = [{}, {"force": True}, {"keep": 3}, {"note": "they are old"}]
    for arguments in cases:
        assert "origin_worst" not in judge_origins(begun, clear, arguments), "no stranger can have asked for it"
        judged = judge_origins(read, clear, arguments)
        assert judged["origin_worst"] == judged["object_worst"] == "nowhere"
    assert judge_origins(read, clear, {"what": "Ann"})["origin_worst"] == "person"
    assert "origin_worst" not in judge_origins(read, replace(clear, effect=Effect.CHANGE), {})
    assert "origin_worst" not in judge_origins(read, PAY, {"amount": 50}), "the amount is judged by itself"


def test_a_call_without_a_value_of_the_person_has_no_origin_after_untrusted_content() -> None:
    mode = {"type": "string", "enum": ["soft", "all"]}
    properties = {"mode": mode, "count": {"type": "integer"}, "note": {"type": "string"}, "on": {"type": "boolean"}}
    stop = Tool(
        name="stop",
        effect=Effect.CHANGE,
        arguments={"type": "object", "properties": properties},
        kinds={"note": "text"},
        confirmed=True,
    )
    begun = remember(KEY, Intent(words="Stop 50 of them, in soft mode", plan=(Planned("robots/stop"),)))
    read = after(begun, Origin.OUTSIDE, "x")
    empty: list[dict[str, object]] = [{}, {"mode": "all"}, {"count": 7}, {"on": True}]
    blank: list[object] = ["", " \n", "\u200b", None, {}, [""]]
    empty += [{"note": value} for value in blank]
    for arguments in empty:
        assert "origin_worst" not in judge_origins(begun, stop, arguments), "no stranger can have asked for it"
        assert judge_origins(read, stop, arguments)["origin_worst"] == "nowhere", arguments
    said: list[dict[str, object]] = [{"mode": "soft"}, {"count": 50}, {"note": "as you like"}]
    for arguments in said:
        assert "origin_worst" not in judge_origins(read, stop, arguments), arguments
    assert "origin_worst" not in judge_origins(read, replace(stop, confirmed=False), {}), "it usually reads"


EMPTY = st.sampled_from(["", [], {}, " \n", "\u200b", [""], {"old": "\t"}])


@given(st.lists(st.sampled_from(["text", "tags", "more"]), min_size=1, unique=True), st.data())
def test_a_change_that_empties_an_object_has_no_origin_after_untrusted_content(
    names: list[str], data: st.DataObject
) -> None:
    empty = data.draw(EMPTY)
    arguments = {"page": "Ann"} | dict.fromkeys(names, empty)
    fields: dict[str, object] = {"properties": {"page": {}, "text": {}}}
    edit = Tool(
        name="edit",
        effect=Effect.CHANGE,
        arguments={"type": "object", "properties": {name: {} for name in ("page", *names)} | {"fields": fields}},
        kinds=dict.fromkeys((*names, "fields.text"), "text"),
    )
    begun = planned(Planned("wiki/edit"))
    read = after(begun, Origin.OUTSIDE, "x")
    assert judge_origins(begun, edit, arguments)["origin_worst"] == "person"
    judged = judge_origins(read, edit, arguments)
    assert judged["origin_worst"] == judged["object_worst"] == "nowhere"
    assert not is_settled(judge_origins(begun, edit, arguments), begun, edit, arguments)
    assert judge_origins(read, edit, arguments | {"note": "new"})["origin_worst"] != "person", "an unknown text"
    for nested in ({"fields": {"page": "Ann", "text": " "}}, {"page": "Ann", "fields": {"text": ""}}):
        assert judge_origins(begun, edit, nested)["origin_worst"] == "person"
        assert judge_origins(read, edit, nested)["origin_worst"] == "nowhere"
    written = replace(edit, kinds=dict(edit.kinds) | {"note": "text"})
    assert judge_origins(read, written, arguments | {"note": "new"})["origin_worst"] == "person", "it writes something"
    assert judge_origins(read, replace(edit, effect=Effect.SEND), arguments)["origin_worst"] == "person"


def test_an_empty_required_recipient_has_no_origin_after_untrusted_content() -> None:
    schema = {"type": "object", "properties": {"to": {}, "cc": {}, "amount": {}}, "required": ["to", "amount"]}
    pay = replace(PAY, arguments=schema, kinds=KINDS | {"cc": "address"})
    begun = planned(Planned("bank/pay"))
    read = after(begun, Origin.OUTSIDE, "x")
    assert judge_origins(read, pay, {"to": "", "amount": 50})["origin_worst"] == "nowhere"
    assert "origin_worst" not in judge_origins(begun, pay, {"to": "", "amount": 50})
    assert judge_origins(read, pay, {"to": "Ann", "cc": "", "amount": 50})["origin_worst"] == "person"


@pytest.mark.parametrize("call", [{}, {"where": "web"}, {"where": "both"}])
def test_another_choice_than_that_of_the_person_is_a_substitute_after_untrusted_content(call: Record) -> None:
    where = {"type": "string", "enum": ["web", "paper", "both"]}
    publish = Tool(
        name="publish",
        effect=Effect.SHARE,
        arguments={"type": "object", "properties": {"story": {"type": "string"}, "where": where, "form": where}},
        presentation=("form",),
    )
    begun = remember(KEY, Intent(words="Print story S-20 in the paper", plan=(Planned("desk/publish"),)))
    read = after(begun, Origin.OUTSIDE, "x")
    call = {"story": "S-20", **call}
    assert judge_origins(read, publish, call)["substituted"] is True
    before = judge_origins(begun, publish, call)
    assert "substituted" not in before
    assert not is_settled(before | {"planned": True}, begun, publish, call), "content that another guard read can ask"
    said = {"story": "S-20", "where": "paper"}
    assert "substituted" not in judge_origins(read, publish, said)
    change = judge_origins(read, replace(publish, effect=Effect.CHANGE), call)
    assert change.get("substituted", False) is ("where" in call), "a change may leave the value as it is"
    assert "substituted" not in judge_origins(read, replace(publish, effect=Effect.CHANGE), said)
    assert "substituted" not in judge_origins(read, replace(publish, kinds={"where": "none"}), call)
    branches = replace(publish, arguments={"type": "object", "anyOf": [publish.arguments]})
    assert judge_origins(read, branches, call)["substituted"] is True
    prints = {"type": "object", "properties": {"story": {"type": "string"}, "where": where | {"default": "paper"}}}
    assert "substituted" not in judge_origins(read, replace(publish, arguments=prints), {"story": "S-20"})


@given(st.integers(1, 999_999), st.integers(1, 999_999), st.booleans())
def test_another_quantity_than_that_of_the_person_is_a_substitute_after_untrusted_content(
    number: int, other: int, is_stated: bool
) -> None:
    assume(number != other and not 1900 <= number <= 2099)
    properties = {"zone": {"type": "string"}, "limit": {"type": "integer"}, "minutes": {"type": "integer"}}
    limit = Tool(
        name="limit", effect=Effect.CHANGE, arguments={"type": "object", "properties": properties}, confirmed=True
    )
    begun = remember(KEY, Intent(words=f"Set the limit of Koto to {number}", plan=(Planned("robots/limit"),)))
    read = after(begun, Origin.OUTSIDE, "x", *[str(other)] * is_stated)
    said, replaced = {"zone": "Koto", "limit": number}, {"zone": "Koto", "limit": other}
    assert "substituted" not in judge_origins(read, limit, said | {"minutes": other}), (
        "the number of the person is there"
    )
    assert judge_origins(read, limit, replaced)["substituted"] is True
    before = judge_origins(begun, limit, replaced) | {"planned": True}
    assert "substituted" not in before
    assert not is_settled(before, begun, limit, replaced), "another guard may have read untrusted content"
    assert is_settled(judge_origins(begun, limit, said) | {"planned": True}, begun, limit, said)
    recorded = after(read, Origin.RECORD, str(other))
    judged = judge_origins(recorded, limit, replaced)
    assert ("substituted" in judged) is is_stated, "a record has the quantity"
    assert is_settled(judged | {"planned": True}, recorded, limit, replaced) is is_stated, (
        "content that another guard has read may state it"
    )


def test_a_choice_of_the_schema_that_untrusted_content_states_is_mentioned() -> None:
    where = {"type": "string", "enum": ["web", "paper", "both"]}
    publish = Tool(
        name="publish",
        effect=Effect.SHARE,
        arguments={"type": "object", "properties": {"story": {"type": "string"}, "where": where}},
    )
    memory = remember(KEY, Intent(words="Print story S-20 in the paper", plan=(Planned("desk/publish"),)))
    read = after(memory, Origin.OUTSIDE, "both", "paper", "the")
    assert judge_origins(memory, publish, {"story": "S-20", "where": "both"})["mentioned"] is False
    assert judge_origins(read, publish, {"story": "S-20", "where": "web"})["mentioned"] is False
    assert judge_origins(read, publish, {"story": "S-20", "where": "paper"})["mentioned"] is False, "the person said it"
    assert judge_origins(read, publish, {"story": "S-20", "where": "both"})["mentioned"] is True
    assert judge_origins(read, publish, {"where": "both"})["mentioned"] is True
    changes = replace(publish, effect=Effect.CHANGE)
    assert judge_origins(read, changes, {"story": "S-20", "where": "both"})["mentioned"] is False


def test_a_call_outside_the_plan_is_settled_only_after_untrusted_content() -> None:
    settled = partial(is_settled, memory=planned(Planned("bank/pay")), tool=PAY, arguments={"to": "Ann"})
    said: Record = {"origin": {"to": "person"}, "origin_worst": "person", "planned": True, "read_outside": False}
    assert settled(said)
    assert not settled(said | {"planned": False}), "content that another guard read can ask for the call"
    assert settled(said | {"planned": False, "read_outside": True})
    assert not settled({"origin": {}, "planned": True, "read_outside": False}), "the call names nothing"
    assert settled({"origin": {"amount": "person"}, "amount_worst": "person"})


def test_another_choice_than_that_of_the_person_is_settled_after_content_states_the_choice() -> None:
    what = {"type": "string", "enum": ["rest", "all"]}
    discard = Tool(
        name="discard",
        effect=Effect.DESTROY,
        arguments={"type": "object", "properties": {"order": {"type": "string"}, "what": what}},
        kinds={"order": "object"},
    )
    begun = remember(KEY, Intent(words="Discard the rest of O-4117", plan=(Planned("shop/discard"),)))
    read = after(begun, Origin.OUTSIDE, "all")

    def settled(memory: Memory, choice: str) -> bool:
        arguments = {"order": "O-4117", "what": choice}
        context = judge_origins(memory, discard, arguments) | judge_plan(memory, "shop/discard", discard, arguments)
        return is_settled(context, memory, discard, arguments)

    assert settled(begun, "rest")
    assert not settled(begun, "all"), "another guard may have read it in untrusted content"
    assert settled(read, "all")
    unsaid = remember(KEY, Intent(words="Discard O-4117", plan=(Planned("shop/discard"),)))
    assert not settled(unsaid, "all")


TOOLS = ("bank/pay", "bank/look", "mail/send")
CALLS = st.fixed_dictionaries({"to": st.sampled_from(["Ann", "acc1", "eve", "x"]), "amount": st.integers(0, 100)})


@given(st.lists(st.sampled_from(TOOLS), unique=True), st.sampled_from(TOOLS), CALLS)
def test_a_plan_marks_only_its_tools_and_does_not_change_origins(
    plan: list[str], tool: str, arguments: dict[str, object]
) -> None:
    """A plan can save approval requests for its own tools only, and adds no trust to a value."""
    memory = after(after(planned(*map(Planned, plan)), Origin.KNOWN, "acc1"), Origin.OUTSIDE, "eve")
    bare = after(after(planned(), Origin.KNOWN, "acc1"), Origin.OUTSIDE, "eve")
    assert judge_plan(memory, tool, PAY, arguments)["planned"] is (tool in plan)
    assert judge_origins(memory, PAY, arguments) == judge_origins(bare, PAY, arguments)
