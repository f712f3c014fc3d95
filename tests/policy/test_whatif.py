"""What-if: a candidate set replayed on the ledger in its own process; unknowns, permissions, the check at a put."""

from __future__ import annotations

import json
import os
import random
import signal
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from harness.clock import Clock
from harness.registry_fixtures import ADMIN, agent_caller, newest_entry, register_agent, run_act
from ostiary.authorization.catalogue import Catalogue
from ostiary.protocol import canonical
from ostiary.protocol.errors import Conflict, Forbidden, Invalid, Refused, Unavailable
from ostiaryd.app import build_app
from ostiaryd.ground.database import sql
from ostiaryd.ground.http.edge import Call
from ostiaryd.ground.world import World
from ostiaryd.ledger import store as ledger
from ostiaryd.ledger.model import Entry, encode_entry, reason
from ostiaryd.policy import flows, store, wire_admin, wire_whatif
from ostiaryd.policy.flows import Span
from ostiaryd.policy.flows.loading import load_set
from ostiaryd.policy.model import EvaluationRequest, Thing, Verb, decode_facts, load, own_files, starter_files
from ostiaryd.policy.model.frames import candidate_of
from ostiaryd.policy.model.replay import Replay, Unreplayable
from ostiaryd.policy.model.safeguards import extend
from ostiaryd.policy.model.whatif import MAX_GROUPS, By, Comparison, Recorded, verdicts
from ostiaryd.policy.wire_whatif import Asking, Child, replay
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Caller
from ostiaryd.registry.store import resources
from tests.policy.replay_fixtures import NAMES, SETS, ReplayFixture
from tests.support.role_fixtures import ask as ask_api
from tests.support.role_fixtures import person

URI = "https://bank.example.org/mcp"
TOOLS: list[dict[str, Any]] = [
    {
        "name": "pay",
        "effect": "pay",
        "kinds": {"pin": "secret"},
        "arguments": {"properties": {"amount": {"type": "number"}, "pin": {"type": "string"}}},
    },
    {"name": "see", "effect": "read"},
]
SCHEMA = "type Arguments = { amount?: decimal, pin?: String };"
PERMIT = """
@id("issue") permit (principal is Agent, action == Action::"issue_token", resource is Resource);
@id("call") permit (principal is Agent, action == Action::"call", resource is Tool);
"""
LITTLE = (
    PERMIT
    + """
@id("little") forbid (principal is Agent, action == Action::"call", resource == Tool::"bank/pay")
unless { context.arguments has amount && context.arguments.amount.lessThan(decimal("100.0")) };
"""
)
NO_PIN = (
    PERMIT + '@id("pin") forbid (principal, action == Action::"call", resource) when { context.arguments has pin && '
    'context.arguments.pin == "0000" };'
)


def a_set(cedar: str, **files: str) -> dict[str, str]:
    return {"a.cedar": cedar, "a.cedarschema": SCHEMA} | {name.replace("__", "."): text for name, text in files.items()}


@pytest.fixture
async def bank(world: World) -> World:
    """Two agents, and a resource that pays."""
    await run_act(world, lambda a: registry.create_resource(a, name="bank", uri=URI))
    catalogue = Catalogue.parse(canonical.encode({"resource": "bank", "tools": TOOLS}))
    await run_act(world, lambda a: registry.set_catalogue(a, id_or_name="bank", catalogue=catalogue))
    for name in ("ann", "bob"):
        await register_agent(world, name, owner=f"owner-of-{name}", scopes=["bank:read", "bank:write"])
    return world


async def pay(world: World, amount: float, *, by: str = "ann", **more: str) -> int:
    """Decide on a call of the tool `pay`, and return the index of the ledger entry."""
    arguments = {"amount": amount, **more}
    question = EvaluationRequest(Thing("agent", by), Verb("call"), Thing("tool", "bank/pay"), {"arguments": arguments})
    await run_act(world, lambda a: flows.decide_one(a, question, digest="d", by=None), "decide")
    return size(world) - 1


def size(world: World) -> int:
    return ledger.get_head(world.db.read())[0].size


async def ask(world: World, files: dict[str, str], *, caller: Caller = ADMIN, **more: Any) -> list[dict[str, Any]]:
    """Return the lines of the response; check its report against a comparison in one step. Raises refusals."""
    body = json.dumps({"files": files, "since": 0, **more}).encode()
    headers = [(b"content-type", b"application/json")]
    call = Call(world, "POST", "/api/v1/policies/whatif", {}, "", headers, body, "rq_test", caller)
    reply = await wire_whatif.ask(call)
    assert not isinstance(reply.body, bytes)
    lines = [json.loads(line) async for line in reply.body]
    if "report" in lines[-1]:
        assert lines[-1]["report"] == await compared(world, files, Span(*lines[-1]["entries"]), by=more.get("by", ""))
    return lines


async def compared(world: World, files: dict[str, str], span: Span, *, by: By) -> Any:
    """Return the report of a comparison without the what-if process and its pages."""
    reader, loaded = world.db.read(), await load_set(world, files)
    asking = Replay(loaded.policies, loaded.ir, catalogue=partial(resources.get_catalogue_by_hash, reader))
    comparing = Comparison(asking, policy=loaded.hash, by=by)
    assert list(comparing.compare(ledger.list_entries_with_facts(reader, *span))) == []
    return msgspec.to_builtins(comparing.report())


async def report(world: World, cedar: str, **more: Any) -> dict[str, Any]:
    found: dict[str, Any] = (await ask(world, a_set(cedar), **more))[-1]
    return {**found["report"], "ticket": found["ticket"], "entries": found["entries"]}


async def change(world: World, statement: str, **values: Any) -> None:
    """Change the database as a person with access to it could."""
    prepared = sql(statement)
    await world.writer.submit(lambda tx: tx.run(prepared, **values))


# --- what would change ----------------------------------------------------------------------------------------------


async def test_changed_verdicts_are_grouped_and_counted_with_an_example(bank: World) -> None:
    await pay(bank, 99.99)
    first = await pay(bank, 100.0)
    await pay(bank, 250.0, by="bob")
    await pay(bank, 250.0)
    found = await report(bank, LITTLE)
    [group] = found["changes"]
    assert (found["replayed"], found["changed"], found["to_deny"], found["to_allow"]) == (4, 3, 3, 0)
    assert (group["direction"], group["who"], group["what"]) == ("allow->deny", "agent", "bank/pay")
    assert (group["before"], group["after"], group["because"]) == (
        ["call-within-segment"],
        ["little"],
        "forbidden_by_policy",
    )
    assert (group["count"], group["agents"], group["example"]) == (3, 2, first)
    body = ledger.get_entry_body(bank.db.read(), group["example"])
    assert body is not None
    assert json.loads(body)["agent"] == group["agent"]


async def test_changed_verdicts_are_grouped_by_agent_or_owner_on_request(bank: World) -> None:
    for by, amount in (("ann", 100.0), ("bob", 100.0), ("bob", 200.0)):
        await pay(bank, amount, by=by)
    reader = bank.db.read()
    who = {name: registry.find_agent(reader, name) for name in ("ann", "bob")}
    by_agent = await report(bank, LITTLE, by="agent")
    assert [(one["who"], one["count"]) for one in by_agent["changes"]] == [
        (who["bob"].agent_id, 2),
        (who["ann"].agent_id, 1),
    ]
    by_owner = await report(bank, LITTLE, by="owner")
    assert [one["who"] for one in by_owner["changes"]] == [who["bob"].owner, who["ann"].owner]


async def test_a_denied_call_that_would_be_allowed_is_a_change(bank: World) -> None:
    loaded = load(a_set(LITTLE))
    await run_act(bank, lambda a: flows.put(a, loaded, by=None))
    await pay(bank, 100.0)
    found = await report(bank, PERMIT)
    assert (found["changed"], found["to_deny"], found["to_allow"]) == (1, 0, 1)
    assert (found["changes"][0]["before"], found["changes"][0]["because"]) == (["little"], "")


async def test_a_what_if_request_with_the_active_set_reports_no_change_and_activates_no_set(bank: World) -> None:
    await pay(bank, 100.0)
    await pay(bank, 5.0)
    lines = await ask(bank, own_files(starter_files().files))
    assert (lines[-1]["report"]["replayed"], lines[-1]["report"]["changed"]) == (2, 0)
    assert store.active_hash(bank.db.read()) == starter_files().hash


async def test_only_entries_of_the_requested_time_span_are_replayed(bank: World, clock: Clock) -> None:
    await pay(bank, 100.0)
    clock.advance(us=1)
    since = clock()
    second = await pay(bank, 100.0)
    clock.advance(us=1)
    until = clock()
    await pay(bank, 100.0)
    found = await report(bank, LITTLE, since=since, until=until)
    assert (found["replayed"], found["entries"]) == (1, [second, second + 1])
    assert (await report(bank, LITTLE, since=until))["replayed"] == 1
    assert (await report(bank, LITTLE, since=until + 1))["entries"][0] == size(bank) - 1
    with pytest.raises(Invalid, match="not after"):
        await ask(bank, a_set(LITTLE), since=until, until=until)


async def test_a_what_if_report_on_random_traffic_equals_a_replay_of_each_decision(world: World, clock: Clock) -> None:
    """The report of the what-if process equals that of a comparison without process and pages."""
    town = ReplayFixture(world, clock)
    await town.settle()
    dice = random.Random(7)
    for number in range(150):
        if number % 10 == 0:
            await town.happen("change", f"set {number // 10 % 2}")
        limit = dice.choice([0, 0, 2**62])
        arguments = {"path": dice.choice(["/srv/a", "/etc/b"]), "amount": dice.choice([1, 99.5, 250]), "limit": limit}
        call = (dice.choice(NAMES), dice.choice(["read", "pay"]), dict(dice.sample([*arguments.items()], 2)))
        user = Thing("user", "alice", {"role": dice.choice(["editor", "x"])})
        question = EvaluationRequest(user, Verb("edit"), Thing("record", "r"), dice.choice([None, {"why": "so"}]))
        await town.happen(
            *dice.choice([("guard", call), ("guard", call), ("ask", question), ("batch", [None, question])])
        )
        if dice.random() < 0.2:
            await town.happen("issue", (dice.choice(NAMES), True, dice.random() < 0.5))
        if dice.random() < 0.1:
            await town.happen("change", dice.choice(["tools 0", "tools 1", "owner"]))
    for files in SETS:
        expected = +_one_by_one(world, files)
        found = (await ask(world, files))[-1]["report"]
        assert expected["changed"] > 5, "the traffic is of no use"
        assert {"replayed": found["replayed"], "changed": found["changed"], **found["unknown"]} == expected
        assert sum(group["count"] for group in found["changes"]) == found["changed"]
        assert found["to_deny"] + found["to_allow"] == found["changed"]


def _one_by_one(world: World, files: dict[str, str]) -> Counter[str]:
    reader, loaded = world.db.read(), load(files)
    asking = Replay(loaded.policies, loaded.ir, catalogue=partial(resources.get_catalogue_by_hash, reader))
    counts: Counter[str] = Counter()
    for _, body, facts in ledger.list_entries_with_facts(reader, 0, 1 << 40):
        if facts is None:  # as of calls that were denied with arguments which have no digest
            counts["no facts of the decision were stored"] += '"policies":[' in bytes(body).decode()
            continue
        told = decode_facts(facts)
        was = verdicts(msgspec.json.decode(body, type=Recorded), len(told.posed))
        for asked, one in zip(told.posed, was, strict=True):
            if asked is None:
                continue
            try:
                now = asking.judge(asked, at=told.at)
            except Unreplayable as error:
                counts[error.message] += 1
                continue
            counts["replayed"] += 1
            counts["changed"] += one.allowed is not now.allowed
    return counts


# --- what is not known ----------------------------------------------------------------------------------------------


async def test_a_decision_is_not_replayed_if_a_policy_reads_an_argument_that_was_not_stored(bank: World) -> None:
    await pay(bank, 5.0, pin="1234")
    await pay(bank, 5.0)
    found = await report(bank, NO_PIN)
    assert (found["replayed"], found["unknown"]) == (1, {"a policy reads an argument that was not stored": 1})
    assert (await report(bank, LITTLE))["unknown"] == {}


async def test_deleted_facts_are_counted_and_altered_facts_are_listed(bank: World) -> None:
    gone, altered = await pay(bank, 100.0), await pay(bank, 100.0)
    await change(bank, "delete from fact where idx = :idx", idx=gone)
    [(_, _, facts)] = ledger.list_entries_with_facts(bank.db.read(), altered, altered + 1)
    assert facts is not None
    await change(
        bank,
        "update fact set body = :body where idx = :idx",
        idx=altered,
        body=bytes(facts).replace(b"100.0000", b"005.0000"),
    )
    found = await report(bank, LITTLE)
    assert (found["replayed"], found["altered"]) == (0, [altered])
    assert found["unknown"] == {"the facts were deleted": 1, "the facts were altered": 1}


async def test_decisions_without_stored_facts_are_counted_as_unknown(bank: World) -> None:
    object.__setattr__(bank, "config", msgspec.structs.replace(bank.config, replay_days=0))
    await pay(bank, 100.0)
    question = EvaluationRequest(Thing("agent", "ann"), Verb("call"), Thing("tool", "bank/see"))
    decide = partial(flows.decide_all, questions=[question], semantic="execute_all", digest="d", by=None)
    await run_act(bank, decide, "decide.batch")
    found = await report(bank, LITTLE)
    assert (found["replayed"], found["unknown"]) == (0, {"no facts of the decision were stored": 2})


async def test_calls_under_a_deleted_catalogue_are_counted_as_unknown(bank: World) -> None:
    await pay(bank, 100.0)
    await change(bank, "delete from catalogue")
    found = await report(bank, LITTLE)
    assert found["unknown"] == {"the catalogue of the resource was not stored": 1}


@pytest.mark.parametrize(
    ("cedar", "rego", "replayed", "changed"),
    [
        (PERMIT, "default permit := true", 0, 0),
        (PERMIT, 'mode := "watch"\ndefault permit := true', 1, 0),
        ("forbid (principal, action, resource);", "default permit := true", 1, 1),
    ],
)
async def test_a_decision_that_needs_rego_is_not_replayed(
    bank: World, cedar: str, rego: str, replayed: int, changed: int
) -> None:
    await pay(bank, 100.0)
    files = a_set(cedar, levels__rego=f"package ostiary.levels\nimport rego.v1\n{rego}\n")
    found = (await ask(bank, files))[-1]["report"]
    unknown = {} if replayed else {"an enforced policy is in Rego or OPA, and such policies are not replayed": 1}
    assert (found["replayed"], found["changed"], found["unknown"]) == (replayed, changed, unknown)


def test_a_truncated_entry_without_its_decision_is_counted_as_unknown() -> None:
    entry = Entry(at=1, action="decide", outcome="allow", policies=["p" * 100] * 1000, reasons=[reason("x")])
    facts = b'{"salt":"","at":1,"asked":[{"action":"a"}]}'
    entry.attach_facts(facts)
    body = encode_entry(entry)
    assert b'"cut"' in body
    loaded = load(a_set(PERMIT))
    comparing = Comparison(Replay(loaded.policies, loaded.ir, catalogue=lambda _: None), policy="p", by="")
    assert list(comparing.compare([(0, body, facts)])) == []
    assert comparing.report().unknown == {"the entry does not have the decisions": 1}


@pytest.mark.parametrize(("count", "ungrouped"), [(MAX_GROUPS - 1, 0), (MAX_GROUPS, 0), (MAX_GROUPS + 1, 1)])
def test_the_number_of_groups_in_a_report_is_limited_and_all_changes_are_counted(count: int, ungrouped: int) -> None:
    loaded = load(a_set("forbid (principal, action, resource);"))
    comparing = Comparison(Replay(loaded.policies, loaded.ir, catalogue=lambda _: None), policy="p", by="")
    for number in range(count):
        entry = Entry(at=1, action="token.issue", policies=["p"])
        posed = {"principal": ["agent", "a", "o", "s"], "action": "issue_token", "context": {}}
        asked = [posed | {"resource": ["resource", "", f"https://{number}.example.org"]}]
        entry.attach_facts(facts := json.dumps({"salt": "", "at": 1, "asked": asked}).encode())
        assert list(comparing.compare([(number, encode_entry(entry), facts)])) == []
    found = comparing.report()
    assert (found.changed, len(found.changes), found.ungrouped) == (count, min(count, MAX_GROUPS), ungrouped)


# --- who may ask, and what it leaves --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scopes", "may"),
    [
        (("ostiary:read",), False),
        (("ostiary:read", "ostiary:decide"), True),
        (("ostiary:read", "ostiary:admin"), True),
    ],
)
async def test_a_what_if_request_requires_the_decide_or_admin_scope_in_addition_to_read(
    bank: World, scopes: tuple[str, ...], may: bool
) -> None:
    who = agent_caller(registry.find_agent(bank.db.read(), "ann"), *scopes)
    if may:
        assert "report" in (await ask(bank, a_set(LITTLE), caller=who))[-1]
    else:
        with pytest.raises(Forbidden):
            await ask(bank, a_set(LITTLE), caller=who)
    entry = newest_entry(bank)
    assert (entry.action, entry.agent) == ("policy.whatif", who.id)
    assert entry.outcome == ("ok" if may else "refused")


async def test_the_role_of_a_person_decides_whether_the_person_may_use_what_if(bank: World) -> None:
    for role, may in (("auditor", True), ("operator", True), ("viewer", False)):
        who = await person(bank, f"{role}-1", role)
        body = {"files": a_set(LITTLE), "since": 0}
        answer = await ask_api(who, "POST", "/api/v1/policies/whatif", body)
        assert answer.status == (200 if may else 403), (role, answer.body)


@pytest.mark.parametrize(("scope", "may"), [("ostiary:decide", False), ("ostiary:admin", True)])
async def test_only_administrators_may_send_rego_policies_to_what_if(bank: World, scope: str, may: bool) -> None:
    """The engine is the one that live decisions wait for."""
    who = agent_caller(registry.find_agent(bank.db.read(), "ann"), "ostiary:read", scope)
    files = a_set(PERMIT, levels__rego="package ostiary.levels\nimport rego.v1\ndefault permit := true\n")
    if may:
        assert "report" in (await ask(bank, files, caller=who))[-1]
    else:
        with pytest.raises(Invalid, match="policies in Rego or OPA"):
            await ask(bank, files, caller=who)
    assert not bank.get_singleton(Asking).is_busy


async def test_a_what_if_request_leaves_an_entry_with_the_set_even_if_the_set_does_not_load(bank: World) -> None:
    files = a_set("permit (principal, action, resource) when { nonsense };")
    with pytest.raises(Refused):
        await ask(bank, files, since=5)
    entry = newest_entry(bank)
    assert (entry.action, entry.outcome, entry.detail) == ("policy.whatif", "ok", {"since": 5})
    assert entry.object == canonical.digest(dict(files))


@pytest.mark.parametrize("files", [{}, {"a.exe": "x"}, {"../a.cedar": "x"}])
async def test_a_what_if_request_with_invalid_files_is_refused(bank: World, files: dict[str, str]) -> None:
    with pytest.raises(Invalid):
        await ask(bank, files)
    assert newest_entry(bank).outcome == "refused"


@pytest.mark.parametrize("kept_children", [None])
async def test_a_second_what_if_request_is_refused_until_the_stream_of_the_first_is_closed(bank: World) -> None:
    before = _children()
    await pay(bank, 100.0)
    body = json.dumps({"files": a_set(LITTLE), "since": 0}).encode()
    headers = [(b"content-type", b"application/json")]
    first, second = [
        (await wire_whatif.ask(Call(bank, "POST", "/", {}, "", headers, body, "rq", ADMIN))).body for _ in range(2)
    ]
    assert not isinstance(first, bytes)
    assert not isinstance(second, bytes)
    assert "done" in json.loads(await anext(first))
    assert json.loads(await anext(second))["error"] == "busy"
    with pytest.raises(Unavailable, match="another what-if"):
        await ask(bank, a_set(LITTLE))
    await first.aclose()
    assert not bank.get_singleton(Asking).is_busy
    assert _children() == before
    assert (await report(bank, LITTLE))["changed"] == 1


def _children() -> set[str]:
    """Return the processes of what-if of this process; some may wait for the next test (`kept_children`)."""
    told = [task.joinpath("children").read_text("ascii") for task in Path("/proc/self/task").iterdir()]
    return {
        child for child in " ".join(told).split() if b"engines.whatif" in Path(f"/proc/{child}/cmdline").read_bytes()
    }


@pytest.mark.parametrize("kept_children", [None])
async def test_a_what_if_request_that_takes_too_long_is_ended(bank: World) -> None:
    before = _children()
    candidate = candidate_of(load(a_set(LITTLE)), "")
    with pytest.raises(Unavailable) as refused:
        async for _ in replay(bank, candidate, Span(0, size(bank)), within_s=0):
            pass
    assert refused.value.code == "too_long"
    assert _children() == before


async def test_a_killed_what_if_process_is_reported_as_an_error(bank: World) -> None:
    await pay(bank, 100.0)
    lines = (await wire_whatif.ask(_call(bank))).body
    assert not isinstance(lines, bytes)
    assert "done" in json.loads(await anext(lines))
    for child in _children():
        os.kill(int(child), signal.SIGKILL)
    rest = [json.loads(line) async for line in lines]
    assert [line["error"] for line in rest] == ["engine_failed"]


def _call(world: World) -> Call:
    body = json.dumps({"files": a_set(LITTLE), "since": 0}).encode()
    return Call(world, "POST", "/", {}, "", [(b"content-type", b"application/json")], body, "rq", ADMIN)


async def test_the_what_if_route_is_not_served_without_asgi(world: World) -> None:
    router = build_app(world).router
    assert router.find_target("POST", b"/api/v1/policies/whatif") is None
    assert router.find_target("POST", b"/api/v1/decide") is not None


async def test_the_what_if_process_runs_at_a_lower_priority() -> None:
    child, before = Child(), _children()
    try:
        await child.ask(candidate_of(load(a_set(LITTLE)), ""))
        [pid] = _children() - before
        assert os.getpriority(os.PRIO_PROCESS, int(pid)) == min(
            19, os.getpriority(os.PRIO_PROCESS, 0) + wire_whatif.NICE
        )
    finally:
        await child.close()


# --- pages ----------------------------------------------------------------------------------------------------------


async def test_a_page_of_entries_is_limited_in_count_and_bytes_and_has_at_least_one_entry(bank: World) -> None:
    for _ in range(3):
        await pay(bank, 5.0)
    reader, stop = bank.db.read(), size(bank)
    start = stop - 3
    sizes = [len(body) + len(facts or b"") for _, body, facts in ledger.list_entries_with_facts(reader, start, stop)]
    page = partial(ledger.find_page_end, reader, start, stop)
    assert [page(count=count, size=1 << 20) - start for count in (1, 2, 3, 4)] == [1, 2, 3, 3]
    together = sizes[0] + sizes[1]
    assert [page(count=9, size=limit) - start for limit in (0, together - 1, together, together + 1)] == [1, 1, 2, 2]
    assert ledger.find_page_end(reader, stop, stop, count=9, size=1) == stop


async def test_a_replay_in_pages_of_one_entry_gives_the_same_report(
    bank: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for amount in (5.0, 100.0, 250.0):
        await pay(bank, amount)
    span = Span(0, size(bank))
    whole = [one async for one in replay(bank, candidate_of(load(a_set(LITTLE)), ""), span)]
    monkeypatch.setattr(wire_whatif, "PAGE", 1)
    single = [one async for one in replay(bank, candidate_of(load(a_set(LITTLE)), ""), span)]
    assert single[:-1] == list(range(1, span.stop + 1))
    assert single[-1] == whole[-1]


async def test_progress_lines_are_sent_at_most_once_per_interval(bank: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire_whatif, "PAGE", 1)
    monkeypatch.setattr(wire_whatif, "TELL_S", 600.0)
    lines = await ask(bank, a_set(LITTLE))
    assert [list(line) for line in lines] == [["done", "of"], ["report", "entries", "ticket"]]


async def test_a_client_that_does_not_read_does_not_block_further_what_if_requests(bank: World) -> None:
    """The progress lines of the longest request fit into the buffer of a connection; the report follows them."""
    await pay(bank, 100.0)
    line = json.dumps({"done": 1 << 53, "of": 1 << 53})
    assert len(line) * wire_whatif.ALL_S / wire_whatif.TELL_S < 64 << 10
    lines = (await wire_whatif.ask(_call(bank))).body
    assert not isinstance(lines, bytes)
    told = [json.loads(await anext(lines)) for _ in range(2)]
    assert [*told[0], *told[1]][:3] == ["done", "of", "report"]
    assert not bank.get_singleton(Asking).is_busy
    await lines.aclose()


# --- the gate -------------------------------------------------------------------------------------------------------


async def put(world: World, cedar: str, *, query: str, by: Caller = ADMIN) -> int:
    """Put a policy set. Raises its refusal."""
    body = json.dumps({"files": a_set(cedar)}).encode()
    headers = [(b"content-type", b"application/json")]
    reply = await wire_admin.put_set(Call(world, "POST", "/api/v1/policies", {}, query, headers, body, "rq", by))
    return reply.status


@pytest.mark.parametrize(("more", "passes"), [(-1, False), (0, True), (1, True)])
async def test_a_set_is_put_only_if_at_most_the_permitted_number_of_verdicts_would_change(
    bank: World, more: int, passes: bool
) -> None:
    await pay(bank, 100.0)
    await pay(bank, 250.0, by="bob")
    ticket = (await report(bank, LITTLE))["ticket"]
    query = f"whatif={ticket}&max_changes={2 + more}"
    if passes:
        assert await put(bank, LITTLE, query=query) == 201
        assert store.active_hash(bank.db.read()) == load(extend(a_set(LITTLE), ())).hash
        return
    with pytest.raises(Conflict, match="2 recorded verdicts would change; at most 1 may"):
        await put(bank, LITTLE, query=query)
    entry = newest_entry(bank)
    assert (entry.action, entry.outcome, entry.reasons[0].code) == ("policy.put", "refused", "would_change")
    assert entry.detail is not None
    assert (entry.detail["changed"], store.active_hash(bank.db.read())) == (2, starter_files().hash)
    assert store.get(bank.db.read(), load(extend(a_set(LITTLE), ())).hash) is None


async def test_a_decision_that_could_not_be_replayed_counts_as_a_change_at_a_put(bank: World) -> None:
    await pay(bank, 5.0, pin="1234")
    ticket = (await report(bank, NO_PIN))["ticket"]
    with pytest.raises(Conflict, match="0 recorded verdicts would change, and 1 could not be replayed; at most 0 may"):
        await put(bank, NO_PIN, query=f"whatif={ticket}")
    assert await put(bank, NO_PIN, query=f"whatif={ticket}&max_changes=1") == 201


async def test_a_what_if_ticket_is_for_one_set_and_one_caller(bank: World) -> None:
    ticket = (await report(bank, LITTLE))["ticket"]
    with pytest.raises(Invalid, match="for another policy set"):
        await put(bank, PERMIT, query=f"whatif={ticket}")
    other = agent_caller(registry.find_agent(bank.db.read(), "ann"), "ostiary:admin")
    for query, by in (
        (f"whatif={ticket}", other),
        (f"whatif={ticket[:-1]}{'A' if ticket[-1] != 'A' else 'B'}", ADMIN),
        (f"whatif=A{ticket}", ADMIN),
        ("whatif=x", ADMIN),
        (f"whatif={'A' * 1025}", ADMIN),
    ):
        with pytest.raises(Invalid) as refused:
            await put(bank, LITTLE, query=query, by=by)
        assert refused.value.code == "foreign_ticket", query
    assert store.active_hash(bank.db.read()) == starter_files().hash


@pytest.mark.parametrize(("us", "passes"), [(-1, True), (0, False), (1, False)])
async def test_a_what_if_ticket_is_valid_for_ten_minutes(bank: World, clock: Clock, us: int, passes: bool) -> None:
    ticket = (await report(bank, LITTLE))["ticket"]
    clock.advance(us=600_000_000 + us)
    if passes:
        assert await put(bank, LITTLE, query=f"whatif={ticket}") == 201
    else:
        with pytest.raises(Invalid, match="ten minutes old"):
            await put(bank, LITTLE, query=f"whatif={ticket}")


async def test_max_changes_must_be_a_number_and_requires_a_ticket(bank: World) -> None:
    cases: list[str] = [
        "max_changes=1",
        "whatif=x&max_changes=-1",
        "whatif=x&max_changes=1e3",
        "whatif=x&max_changes=%C2%B2",
    ]
    for query in cases:
        with pytest.raises(Invalid, match="max_changes"):
            await put(bank, LITTLE, query=query)


async def test_a_set_is_put_without_a_what_if_ticket(bank: World) -> None:
    await pay(bank, 100.0)
    assert await put(bank, LITTLE, query="") == 201
