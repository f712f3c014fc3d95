"""The history, as guards ask and tell: the next call is accepted from a guard that has the whole history before it."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from harness.clock import Clock
from harness.registry_fixtures import create_holding, register_agent, run_act
from ostiary.authorization.catalogue import Catalogue, Effect, Tool
from ostiary.decision.recall import MAX_RECALL, HistoryVersion, Next, Recall, Recalled, parse_recall, render_recall
from ostiary.protocol.errors import Refused
from ostiary.provenance.history import MAX_CREATED, MAX_RECIPIENTS, PriorHistory, created_by, list_created
from ostiaryd.ground.world import World
from ostiaryd.ledger import store as ledger
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Agent, Resource, Verb
from ostiaryd.tasks import flows as tasks
from ostiaryd.tasks.model import Task, TaskSpec
from tests.feed.memory_client import URI, At
from tests.support.policy_fixtures import put

TOOLS = [
    {"name": "send", "effect": "send", "data_classes": ["internal"], "kinds": {"to": "address"}},
    {"name": "create", "effect": "write", "open_world": False, "creates": {"id": "output.id"}},
]
ANN, BOB = b"ann     ", b"bob     "


@pytest.fixture
async def files(world: World) -> Resource:
    made = await run_act(world, lambda a: registry.create_resource(a, name="files", uri=URI))
    catalogue = Catalogue.parse(msgspec.json.encode({"resource": "files", "tools": TOOLS}))
    await run_act(world, lambda a: registry.set_catalogue(a, "files", catalogue))
    return made


@pytest.fixture
async def bot(world: World, files: Resource) -> Agent:
    return await register_agent(world, scopes=["files:read", "files:write"])


@pytest.fixture
async def task(world: World, bot: Agent) -> Task:
    """A task that nobody said the purpose of, with the token `tok_1`."""
    task = await run_act(world, lambda a: tasks.start(a, TaskSpec(agent="bot", purpose="p")))
    await create_holding(world, bot, "tok_1", audience=URI, task=task.task_id)
    return task


async def tell(at: At, known: PriorHistory | None = None, tool: str = "send", **said: Any) -> tuple[PriorHistory, bool]:
    past = HistoryVersion() if known is None else HistoryVersion(known.seq, known.day)
    answer = await at.ask(tool=tool, past=past, **said)
    assert answer.past is not None
    return answer.read_history(), answer.past.is_accepted


async def test_the_next_call_is_accepted_from_a_guard_with_the_whole_history(
    world: World, files: Resource, task: Task
) -> None:
    one, other = At(world, files), At(world, files)
    start, _ = await tell(one)
    before = ledger.get_head(world.db.read())[0].size
    known, is_taken = await tell(one, start, next=Next((ANN,)))
    assert is_taken
    assert (known.task.tools, known.task.classes, known.task.recipients) == (("files/send",), ("internal",), (ANN,))
    assert (known.recent.counts, known.recent.recipients) == (known.task.counts, ())
    stale, is_taken = await tell(other, start, next=Next((BOB,)))
    assert (stale, is_taken) == (known, False)
    after, is_taken = await tell(other, stale, next=Next((BOB,)))
    assert (after.task.recipients, is_taken) == ((ANN, BOB), True)
    assert ledger.get_head(world.db.read())[0].size == before, "the record of the call is the entry"


LOOKS = """permit (principal, action, resource);
forbid (principal is Agent, action == Action::"call", resource is Tool)
when { context.history.counterparts.uses > 9 };"""


async def test_the_recipient_of_a_refused_call_is_not_a_known_counterpart(
    world: World, files: Resource, task: Task
) -> None:
    at = At(world, files)
    start, _ = await tell(at)
    assert start.met is None, "nobody looks"
    await put(world, {"a.cedar": LOOKS})
    known, is_taken = await tell(at, start, next=Next((ANN,), False, (ANN,)))
    assert is_taken
    assert known.met is not None
    assert [one.value for one in known.met.counterparts.entries] == [ANN]
    after, is_taken = await tell(at, start, next=Next((BOB,), False, (BOB,)))
    assert (after.met, is_taken) == (known.met, False)
    answer = await at.ask(tool="send", past=HistoryVersion(known.seq, known.day, known.met.counterparts.seq))
    assert answer.past is not None
    assert answer.past.met is not None
    assert answer.past.met.body is None, "who knows them hears no more of them"
    assert answer.read_history(known).met == known.met

    other = await register_agent(world, "other", owner="zoe", scopes=["files:write"])
    theirs = await run_act(world, lambda a: tasks.start(a, TaskSpec(agent="other", purpose="p")))
    await create_holding(world, other, "tok_2", audience=URI, task=theirs.task_id)
    foreign, _ = await tell(At(world, files, token="tok_2"))
    assert foreign.met is not None
    assert foreign.met.counterparts.entries == ()
    assert foreign.met.key != known.met.key


@pytest.mark.parametrize(("seq", "day"), [(-1, 0), (1, 0), (0, -1), (0, 1)])
async def test_a_call_based_on_another_state_of_the_history_is_not_accepted(
    world: World, files: Resource, task: Task, seq: int, day: int
) -> None:
    at = At(world, files)
    known, _ = await tell(at, (await tell(at))[0], next=Next((ANN,)))
    past = HistoryVersion(known.seq + seq, known.day + day)
    answer = await at.ask(tool="send", past=past, next=Next((BOB,)))
    assert answer.past is not None
    assert not answer.past.is_accepted
    assert (await tell(at, known, next=Next((BOB,))))[1]


async def test_one_of_several_concurrent_calls_is_accepted_as_the_next(
    world: World, files: Resource, task: Task
) -> None:
    guards = [At(world, files) for _ in range(8)]
    start, _ = await tell(guards[0])
    told = await asyncio.gather(*(tell(guard, start, next=Next((bytes([n]) * 8,))) for n, guard in enumerate(guards)))
    assert [is_taken for _, is_taken in told].count(True) == 1
    assert len((await tell(guards[0]))[0].task.recipients) == 1


async def test_calls_of_another_task_of_the_agent_are_its_recent_history(
    world: World, files: Resource, bot: Agent, task: Task
) -> None:
    """Calls of another task in between are not overlooked either."""
    other = await run_act(world, lambda a: tasks.start(a, TaskSpec(agent="bot", purpose="q")))
    await create_holding(world, bot, "tok_2", audience=URI, task=other.task_id)
    one, two = At(world, files), At(world, files, token="tok_2")
    start, _ = await tell(one)
    await tell(two, (await tell(two))[0], next=Next((ANN,)))
    known, is_taken = await tell(one, start, next=Next((BOB,)))
    assert (is_taken, known.task.recipients, known.recent.tools) == (False, (), ("files/send",))


async def test_the_effect_of_a_call_comes_from_the_catalogue_and_not_from_the_guard(
    world: World, files: Resource, task: Task
) -> None:
    at = At(world, files)
    known, _ = await tell(at, (await tell(at))[0], tool="create", next=Next((), True))
    assert (known.task.tools, known.task.effects, known.task.is_full) == (("files/create",), 2, True)
    with pytest.raises(Refused) as refused:
        await tell(at, known, tool="gone", next=Next())
    assert refused.value.code == "unknown_tool"


async def test_an_object_that_a_call_created_is_known_in_its_task(world: World, files: Resource, task: Task) -> None:
    at = At(world, files)
    start, _ = await tell(at)
    tool = Tool(name="create", effect=Effect.WRITE, creates={"id": "output.id"})
    made = created_by(start.key, "files/create", tool, {}, {"id": "24"})
    known, _ = await tell(at, tool="create", made=made)
    assert list_created(known.task, known.key, "files/delete", {"id": "24"}) == {"id"}
    assert known.seq > start.seq
    with pytest.raises(Refused) as refused:
        await tell(at, tool="send", made=made)
    assert refused.value.code == "creates_nothing"


@pytest.mark.parametrize("what", ["no token", "another resource", "expired", "suspended", "task over"])
async def test_the_history_needs_a_live_token_for_the_resource_of_the_guard(
    world: World, files: Resource, bot: Agent, task: Task, clock: Clock, what: str
) -> None:
    token = "tok_2"
    if what == "another resource":
        await create_holding(world, bot, token, audience="https://other.example/", task=task.task_id)
    elif what == "expired":
        await create_holding(world, bot, token, audience=URI, task=task.task_id, seconds=1)
        clock.advance(1)
    elif what != "no token":
        await create_holding(world, bot, token, audience=URI, task=task.task_id)
        if what == "suspended":
            await run_act(world, lambda a: registry.set_agent_state(a, "bot", Verb.SUSPEND))
        else:
            await run_act(world, lambda a: tasks.end(a, task.task_id))
    at = At(world, files, token=token)
    for said in ({}, {"next": Next((ANN,))}, {"made": (ANN,), "tool": "create"}):
        with pytest.raises(Refused):
            await tell(at, **said)


@pytest.mark.parametrize(
    ("said", "good"),
    [
        ({"next": [[]]}, True),
        ({"next": [[msgspec.to_builtins(ANN)] * MAX_RECIPIENTS]}, True),
        ({"next": [[msgspec.to_builtins(ANN)] * (MAX_RECIPIENTS + 1)]}, False),
        ({"next": [["AAAA"]]}, False),
        ({"next": [[1]]}, False),
        ({"next": {}}, False),
        ({"made": [msgspec.to_builtins(ANN)] * MAX_CREATED}, True),
        ({"made": [msgspec.to_builtins(ANN)] * (MAX_CREATED + 1)}, False),
        ({"past": [-1, 0]}, False),
        ({"past": [0, 1 << 60]}, False),
        ({"past": ["0", 0]}, False),
    ],
)
def test_the_history_in_a_request_is_limited(said: dict[str, Any], good: bool) -> None:
    body = msgspec.json.decode(render_recall(Recall(call="c" * 22, token="tok_1", past=HistoryVersion())))
    sent = msgspec.json.encode(body | said)
    assert len(sent) < MAX_RECALL
    if good:
        parse_recall(sent)
    else:
        with pytest.raises(Refused):
            parse_recall(sent)


def test_an_answer_about_origins_contains_no_history() -> None:
    with pytest.raises(Refused):
        Recalled(iss="i", aud="a", question_digest="x", seq=1, key=b"k" * 32).read_history()


async def test_an_exchanged_token_has_the_history_of_its_task_and_of_its_holder(
    world: World, files: Resource, bot: Agent, task: Task
) -> None:
    """Calls with a token of another task count in the history of the task and in the recent history of the holder."""
    other = await register_agent(world, "other", scopes=["files:read", "files:write"])
    await create_holding(world, other, "tok_2", audience=URI, task=task.task_id)
    theirs, mine = At(world, files, token="tok_2"), At(world, files)
    known, is_taken = await tell(theirs, (await tell(theirs))[0], next=Next((ANN,)))
    assert (is_taken, known.task.recipients, known.recent.tools) == (True, (ANN,), ("files/send",))
    own, _ = await tell(mine)
    assert (own.task, own.recent.tools) == (known.task, ())
    assert own.key == known.key
