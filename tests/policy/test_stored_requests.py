"""Stored AuthZEN requests: secrets and long texts are not stored, the size is bounded, and a replay says what is
missing.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
import pytest

from harness.registry_fixtures import run_act
from ostiary.authorization.catalogue import Catalogue
from ostiary.decision.access.recorded import (
    MAX_LEVELS,
    MAX_NAMES,
    MAX_TEXT,
    MAX_TOGETHER,
    MemberSizes,
    _is_secret_name,
    members_to_record,
)
from ostiary.protocol import canonical
from ostiaryd.ground.world import World
from ostiaryd.ledger import store as ledger
from ostiaryd.policy import flows
from ostiaryd.policy.model import EvaluationRequest, Posed, Thing, Verb, decode_facts, load, question_to_store
from ostiaryd.policy.model.replay import Replay, Unreplayable
from ostiaryd.registry import flows as registry

USER, READ, FILE = Thing("user", "alice"), Verb("read"), Thing("file", "a")
KEY = "sk-live_0123456789"
PERMIT = '@id("all") permit (principal, action, resource);\n'


def nested(levels: int) -> object:
    """Return an array that makes a member `levels` deep."""
    value: object = 1
    for _ in range(levels - 1):
        value = [value]
    return value


def stored(context: dict[str, Any], *, secrets: frozenset[str] | None = frozenset()) -> Posed:
    question = EvaluationRequest(USER, READ, FILE, context)
    return to_store(question, secrets=secrets)


def to_store(question: EvaluationRequest, *, secrets: frozenset[str] | None = frozenset()) -> Posed:
    return question_to_store(Posed(question=question), secrets=secrets, sizes=MemberSizes())


def text_of_size(size: int) -> str:
    """Return a text that takes `size` bytes of JSON as a member with a name of one letter."""
    return "x" * (size - len('"n":"",'))


@pytest.mark.parametrize(
    ("member", "is_stored"),
    [
        ({"why": "x" * MAX_TEXT}, True),
        ({"why": "x" * (MAX_TEXT + 1)}, False),
        ({"why": {"deep": ["x" * MAX_TEXT]}}, True),
        ({"why": {"deep": ["x" * (MAX_TEXT + 1)]}}, False),
        ({"number": 7, "flag": True, "nothing": None, "many": [1.5, {}]}, True),
        ({"password": "x"}, False),
        ({"headers": {"Authorization": "x"}}, False),
        ({"headers": [{"name": {"set-cookie": 1}}]}, False),
        ({"author": "x", "tokens": 5, "keyboard": "x"}, True),
        ({"why": KEY}, False),
        ({"why": f"the key is {KEY}"}, False),
        ({"url": "https://a.example/x?y=1"}, True),
        ({"url": "https://ann:pass@a.example/x"}, False),
        ({"url": "://" + ":" * (MAX_TEXT - 4) + "@"}, False),
        ({"sessions": {KEY: 1}}, False),
        ({"many": [{KEY: 1}]}, False),
        ({"many": {"deep": {str(number): 1 for number in range(MAX_NAMES)}}}, True),
        ({"many": {"deep": {str(number): 1 for number in range(MAX_NAMES + 1)}}}, False),
        ({"deep": nested(MAX_LEVELS)}, True),
        ({"deep": nested(MAX_LEVELS + 1)}, False),
        ({"deep": nested(5000)}, False),
        ({"id": "0198c0de-1234-7abc-8def-0123456789ab", "task": "tk_0198c0de12347abc8def0123456789ab"}, True),
    ],
)
def test_a_member_with_a_secret_or_a_long_text_is_not_stored(member: dict[str, Any], is_stored: bool) -> None:
    posed = stored({"ip": "192.0.2.1", **member})
    assert posed.question is not None
    assert posed.question.context == {"ip": "192.0.2.1", **(member if is_stored else {})}
    assert posed.hidden == (() if is_stored else tuple(member))


def test_all_members_of_a_request_together_are_bounded() -> None:
    text = {"a": text_of_size(MAX_TEXT)}
    parts = MAX_TOGETHER // MAX_TEXT
    most = {str(number): text_of_size(MAX_TEXT) for number in range(parts)}
    assert stored(most).hidden == ()
    assert stored(most | {"one": 1}).hidden == ("one",)
    question = EvaluationRequest(Thing("user", "alice", text), Verb("read", text), Thing("file", "a", text), most)
    posed = to_store(question)
    assert len(posed.hidden) == 3
    assert len(msgspec.json.encode(posed)) < 2 * MAX_TOGETHER


@pytest.mark.parametrize(("count", "is_stored"), [(MAX_NAMES, True), (MAX_NAMES + 1, False)])
def test_the_number_of_stored_members_is_limited(count: int, is_stored: bool) -> None:
    posed = stored({f"m{number}": 1 for number in range(count)})
    assert posed.question is not None
    assert len(posed.question.context or ()) == (count if is_stored else 0)
    assert posed.hidden == (() if is_stored else ("*",))


@pytest.mark.parametrize(("length", "searched"), [(MAX_TOGETHER - 11, 2), (MAX_TOGETHER - 10, 0)])
def test_a_name_that_is_too_long_to_be_stored_is_not_kept_in_the_cache_of_names(length: int, searched: int) -> None:
    _is_secret_name.cache_clear()
    members_to_record({"a": {"n" * length: 1}}, MAX_TOGETHER, MemberSizes())  # the rest of the JSON has 11 bytes
    assert _is_secret_name.cache_info().currsize == searched


@pytest.mark.parametrize("name", [KEY, f"the key {KEY}"])
def test_a_name_with_the_form_of_a_secret_is_not_stored(name: str) -> None:
    posed = stored({name: 1, "ip": "192.0.2.1"})
    assert posed.question is not None
    assert posed.question.context == {"ip": "192.0.2.1"}
    assert posed.hidden == ("*",)


@pytest.mark.parametrize(
    "value", [10**4299, -(10**4299), [1e-300] * 99, "\x01" * 1000, "\u20ac" * 1000, [[]] * 4000, {"\x01" * 500: None}]
)
def test_the_size_of_a_stored_request_is_bounded_for_each_kind_of_value(value: object) -> None:
    many = {str(number): value for number in range(MAX_NAMES)}
    question = EvaluationRequest(
        Thing("user", "alice", dict(many)), Verb("read", dict(many)), Thing("file", "a", dict(many)), many
    )
    posed = to_store(question)
    assert posed.hidden
    assert len(msgspec.json.encode(posed)) < MAX_TOGETHER + 4 * MAX_TEXT


@pytest.mark.parametrize(
    ("members", "searched"),
    [
        ({str(number): {"n": text_of_size(1000)} for number in range(64)}, 2 * 8),
        ({str(number): {"n": text_of_size(1000), "token": 1} for number in range(64)}, 3 * 8),
        ({str(number): {"n": ["x" * 900] * 100} for number in range(64)}, 0),
    ],
)
def test_at_most_the_stored_size_of_an_object_is_searched(members: dict[str, Any], searched: int) -> None:
    assert searches_in(lambda: stored(members)) == searched


def searches_in(run: Callable[[], object]) -> int:
    """Return the number of names that `run` searches for secrets."""
    _is_secret_name.cache_clear()
    run()
    return sum(_is_secret_name.cache_info()[:2])


@pytest.mark.parametrize("part", ["subject", "action", "resource"])
@pytest.mark.parametrize(("length", "is_stored"), [(MAX_TEXT, True), (MAX_TEXT + 1, False)])
def test_a_long_id_or_name_is_cut(part: str, length: int, is_stored: bool) -> None:
    long = "x" * length
    parts: dict[str, Any] = {"subject": USER, "action": READ, "resource": FILE}
    parts[part] = Verb(long) if part == "action" else Thing("t", long)
    posed = to_store(EvaluationRequest(**parts))
    assert posed.hidden == (() if is_stored else ("*",))
    assert posed.question is not None
    found = getattr(posed.question, part)
    assert (found.name if part == "action" else found.id) == "x" * MAX_TEXT


@pytest.mark.parametrize(
    ("secrets", "is_stored"), [(set(), True), ({"code"}, True), ({"number", "code"}, False), (None, False)]
)
def test_secret_arguments_of_a_tool_are_not_stored_in_a_request_about_the_tool(
    secrets: set[str] | None, is_stored: bool
) -> None:
    posed = stored({"arguments": {"number": 5}}, secrets=None if secrets is None else frozenset(secrets))
    assert posed.hidden == (() if is_stored else ("arguments",))


@pytest.mark.parametrize("arguments", [[5], ["pin"], "5", 5])
@pytest.mark.parametrize("secrets", [(), ("pin",)])
def test_arguments_that_are_no_object_are_stored_only_for_a_tool_without_secrets(
    arguments: object, secrets: tuple[str, ...]
) -> None:
    posed = stored({"arguments": arguments}, secrets=frozenset(secrets))
    assert posed.hidden == (("arguments",) if secrets else ())


@pytest.mark.parametrize(
    ("policies", "is_replayed"),
    [
        (PERMIT, True),
        ('permit (principal, action, resource) when { context has ip && context.ip == "192.0.2.1" };', True),
        ("permit (principal, action, resource) when { resource has owner };", True),
        ("permit (principal, action, resource) when { context has token };", False),
        ('permit (principal, action, resource) when { context has h && context.h.token == "x" };', False),
        ("permit (principal, action, resource) when { context == context };", False),
        ("permit (principal, action, resource) when { principal has token };", False),
    ],
)
def test_a_request_is_replayed_if_no_policy_reads_what_was_not_stored(policies: str, is_replayed: bool) -> None:
    loaded = load({"a.cedar": policies if "@id" in policies else f'@id("all") {policies}'})
    replay = Replay(loaded.policies, loaded.ir, catalogue=lambda _: None)
    posed = stored({"ip": "192.0.2.1", "token": "x"})
    if is_replayed:
        assert replay.judge(posed, at=0).policies in ((), ("all",))
    else:
        with pytest.raises(Unreplayable, match="a part of the request that was not stored"):
            replay.judge(posed, at=0)
    assert replay.judge(stored({"ip": "192.0.2.1"}), at=0).policies in ((), ("all",))


def facts_of_newest(world: World) -> bytes:
    reader = world.db.read()
    size = ledger.get_head(reader)[0].size
    [(_, _, facts)] = list(ledger.list_entries_with_facts(reader, size - 1, size))
    assert facts is not None
    return facts


async def test_no_secret_of_a_request_is_in_the_stored_facts_or_in_the_ledger(world: World) -> None:
    await run_act(world, lambda a: registry.create_resource(a, name="bank", uri="https://bank.example.org/mcp"))
    tools = [{"name": "pay", "effect": "pay", "kinds": {"pin": "secret"}}]
    catalogue = Catalogue.parse(canonical.encode({"resource": "bank", "tools": tools}))
    await run_act(world, lambda a: registry.set_catalogue(a, id_or_name="bank", catalogue=catalogue))
    secret = {"authorization": f"Bearer {KEY}"}
    questions = [
        EvaluationRequest(Thing("user", "alice", secret), Verb("read", secret), Thing("file", "a", secret), secret),
        EvaluationRequest(Thing("user", "alice"), Verb("call"), Thing("tool", "bank/pay"), {"arguments": {"pin": KEY}}),
        EvaluationRequest(USER, READ, FILE, {"arguments": {"pin": KEY}}),
    ]
    for question in questions:
        await run_act(world, lambda a, q=question: flows.decide_one(a, q, digest="d", by=None), "decide")  # type: ignore[misc]
        facts = facts_of_newest(world)
        assert KEY.encode() not in facts
        assert any(posed and posed.hidden for posed in decode_facts(facts).posed)
    for _, body, _ in ledger.list_entries_with_facts(world.db.read(), 0, 1 << 40):
        assert KEY.encode() not in body


async def test_a_large_default_of_a_batch_is_not_stored_for_each_item(world: World) -> None:
    large = {"why": ["x" * 1000] * 500}
    questions = [EvaluationRequest(USER, READ, Thing("file", "x" * 300_000, large), large)] * 200
    await run_act(
        world,
        lambda a: flows.decide_all(a, questions, semantic="execute_all", digest="d", by=None),
        "decide.batch",
    )
    assert len(facts_of_newest(world)) < 200 * 2 * MAX_TEXT


def batch_of(count: int, *, secrets: dict[str, Any]) -> list[EvaluationRequest | None]:
    """Return the requests of a batch whose items share the properties of the subject and the context."""
    subject = Thing("user", "alice", secrets)
    return [EvaluationRequest(subject, READ, Thing("file", str(number)), secrets) for number in range(count)]


@pytest.mark.parametrize(
    ("replay_days", "watches", "searched"), [(30, False, 3 * 16), (0, False, 0), (0, True, 3 * 16)]
)
async def test_each_object_of_a_batch_is_searched_once_and_only_if_facts_are_used(
    world: World, replay_days: int, watches: bool, searched: int
) -> None:
    object.__setattr__(world, "config", msgspec.structs.replace(world.config, replay_days=replay_days))
    if watches:
        await run_act(world, lambda a: flows.watch(a, load({"a.cedar": PERMIT}), by=None))
    _is_secret_name.cache_clear()
    large = {str(number): {"n": text_of_size(490), "token": 1} for number in range(64)}
    decide = partial(flows.decide_all, semantic="execute_all", digest="d", by=None)
    await run_act(world, partial(decide, questions=batch_of(200, secrets=large)), "decide.batch")
    assert sum(_is_secret_name.cache_info()[:2]) == searched


async def test_an_evaluation_without_an_act_searches_no_request(world: World) -> None:
    evaluator = flows.Evaluator(world.db.read(), flows.active_policies(world.db.read()), now=world.now())
    [question] = batch_of(1, secrets={"token": 1})
    assert question is not None
    assert searches_in(lambda: (evaluator.evaluate(question), evaluator.foresee(question))) == 0
