"""An act is one transaction, one instant and one entry, the refused ones too."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from ostiary.protocol.checkpoint import open_checkpoint
from ostiary.protocol.dpop import UseNonce
from ostiary.protocol.errors import Forbidden
from ostiary.protocol.merkle import leaf_hash, tree_root, verify_inclusion
from ostiary.protocol.receipt import make_receipt
from ostiary.protocol.tiles import MAX_ENTRY_BYTES, hashes_from
from ostiaryd.ground.database import sql
from ostiaryd.ground.world import World
from ostiaryd.ledger import store
from ostiaryd.ledger.flows import Act, act
from ostiaryd.ledger.model import Entry, Reason, Result, decode_entry, encode_entry

PUT = sql("insert into setting (name, value) values (:name, 'x')")
COUNT = sql("select count(*) from setting where name = :name")


def newest(world: World, count: int = 1) -> list[Entry]:
    found = store.search_entries(world.db.read(), {}, limit=count)
    return [decode_entry(body) for _, body in found]


async def test_a_successful_act_commits_its_changes_and_its_entry(world: World) -> None:
    def flow(a: Act) -> str:
        a.tx.run(PUT, name="mark")
        a.entry.agent = "ag_1"
        return "done"

    assert await act(world, "test.do", flow, request="rq_1") == "done"
    [entry] = newest(world)
    assert (entry.action, entry.outcome, entry.agent, entry.request) == ("test.do", "ok", "ag_1", "rq_1")
    assert world.db.read().one(COUNT, name="mark") == (1,)


async def test_a_refused_act_changes_nothing_and_leaves_its_entry(world: World) -> None:
    def flow(a: Act) -> None:
        a.tx.run(PUT, name="mark")
        a.entry.agent = "ag_1"
        a.further_entries.append(Entry(at=a.now, action="test.told"))
        raise Forbidden("not you")

    with pytest.raises(Forbidden):
        await act(world, "test.do", flow)
    [entry] = newest(world)
    assert (entry.outcome, entry.agent, entry.reasons) == ("refused", "ag_1", [Reason("forbidden", "not you")])
    assert world.db.read().one(COUNT, name="mark") == (0,)


async def test_a_nonce_challenge_changes_nothing_and_writes_no_entry(world: World) -> None:
    def flow(a: Act) -> None:
        a.tx.run(PUT, name="mark")
        raise UseNonce("again, with this nonce")

    before = store.get_head(world.db.read())[0].size
    with pytest.raises(UseNonce):
        await act(world, "test.do", flow)
    assert store.get_head(world.db.read())[0].size == before
    assert world.db.read().one(COUNT, name="mark") == (0,)


@pytest.mark.parametrize("next_does", ["write", "read"])
async def test_an_act_whose_queued_statement_fails_later_is_not_acknowledged(world: World, next_does: str) -> None:
    def send_twice(a: Act) -> None:
        a.tx.send(PUT, name="mark")
        a.tx.send(PUT, name="mark")

    def go_on(a: Act) -> None:
        a.tx.one(COUNT, name="mark")
        if next_does == "write":
            a.tx.run(PUT, name="next")

    def end(a: Act) -> None:
        a.tx.run(PUT, name="end")

    acts = (act(world, "test.do", flow) for flow in (send_twice, go_on, end))
    failed, *_, last = await asyncio.gather(*acts, return_exceptions=True)
    assert isinstance(failed, Exception)
    assert world.db.read().one(COUNT, name="mark") == (0,)
    assert world.db.read().one(COUNT, name="end") == (int(last is None),)


async def test_an_act_is_committed_although_a_statement_of_the_next_act_fails_in_the_same_batch(world: World) -> None:
    def send(a: Act) -> None:
        a.tx.send(PUT, name="mark")

    def break_uniqueness(a: Act) -> None:
        a.tx.send(PUT, name="next")
        a.tx.run(PUT, name="next")

    done, broken = await asyncio.gather(
        act(world, "test.do", send), act(world, "test.break", break_uniqueness), return_exceptions=True
    )
    assert done is None
    assert isinstance(broken, Exception)
    assert [entry.outcome for entry in newest(world, 2)] == ["error", "ok"]
    assert world.db.read().one(COUNT, name="mark") == (1,)
    assert world.db.read().one(COUNT, name="next") == (0,)


async def test_an_act_with_an_internal_error_changes_nothing_and_its_entry_has_no_error_text(world: World) -> None:
    def flow(a: Act) -> None:
        a.tx.run(PUT, name="mark")
        a.further_entries.append(Entry(at=a.now, action="test.told"))
        raise ValueError("hunter2")

    with pytest.raises(ValueError, match="hunter2"):
        await act(world, "test.do", flow)
    [entry] = newest(world)
    assert (entry.outcome, entry.reasons) == ("error", [Reason("internal_error", "ValueError")])
    assert world.db.read().one(COUNT, name="mark") == (0,)


async def test_all_concurrent_acts_are_in_the_tree_and_the_head_is_signed(world: World) -> None:
    before = store.get_head(world.db.read())[0].size
    await asyncio.gather(*[act(world, f"test.{number}", lambda a: None) for number in range(600)])
    reader = world.db.read()
    frontier, note = store.get_head(reader)
    assert frontier.size == before + 600
    key = store.get_log_key(reader, world.keys)
    checkpoint = open_checkpoint(note.encode(), [key], origin=key.name)
    hash_at = hashes_from(store.get_hash_reader(reader))
    assert checkpoint.root == frontier.root() == tree_root(frontier.size, hash_at)
    for index in (0, before + 255, before + 256, frontier.size - 1):
        receipt = make_receipt(index, size=frontier.size, note=note.encode(), hash_at=hash_at)
        leaf = leaf_hash(store.get_entry_body(reader, index) or b"")
        verify_inclusion(leaf, index=index, size=frontier.size, proof=receipt.proof, root=checkpoint.root)


@pytest.mark.parametrize(
    ("size", "cut"), [(MAX_ENTRY_BYTES - 1, False), (MAX_ENTRY_BYTES, False), (MAX_ENTRY_BYTES + 1, True)]
)
def test_an_entry_is_shortened_only_above_the_maximum_entry_size(size: int, cut: bool) -> None:
    entry = Entry(at=1, action="x", detail={"text": ""})
    entry.detail = {"text": "a" * (size - len(encode_entry(entry)))}
    body = encode_entry(entry)
    assert len(body) <= MAX_ENTRY_BYTES
    assert ("cut" in (decode_entry(body).detail or {})) is cut


def test_an_entry_with_huge_members_is_shortened_to_the_maximum_size() -> None:
    huge = "\u2028" * 70_000
    entry = Entry(
        at=1, action=huge, agent=huge, reasons=[Reason(huge, huge)] * 100, policies=[huge], detail={huge: huge}
    )
    assert len(encode_entry(entry)) <= MAX_ENTRY_BYTES


async def test_a_search_by_data_class_finds_entries_that_handle_or_touched_the_class(world: World) -> None:
    said: list[tuple[list[str], str]] = [
        (["health", "internal"], ""),
        ([], "health"),
        (["health"], "health"),
        (["Health", "he\0alth"], "h\u0435alth"),
        (["internal"], "internal"),
    ]

    def flow(handled: list[str], touched: str) -> Callable[[Act], None]:
        def fill(a: Act) -> None:
            a.entry.data_classes, a.entry.agent = handled, "ag_1"
            a.entry.result = Result("ok", data_class=touched) if touched else None

        return fill

    for number, (handled, touched) in enumerate(said):
        await act(world, f"test.{number}", flow(handled, touched))

    def find(**filters: str | int) -> list[str]:
        found = store.search_entries(world.db.read(), filters, limit=2)
        return [decode_entry(body).action for _, body in found]

    assert find(data_class="health") == ["test.2", "test.1"]
    last = store.get_head(world.db.read())[0].size - 1
    assert find(data_class="health", before=last - 3) == ["test.0"]
    assert find(data_class="health", after=-1) == ["test.0", "test.1"]
    assert find(data_class="health", after=last - 3) == ["test.2"]
    assert find(data_class="internal", agent="ag_1", outcome="ok") == ["test.4", "test.0"]
    assert find(data_class="internal", agent="ag_2") == []
    assert find(data_class="healt") == find(data_class="Health") == find(data_class="h\u0435alth") == []


async def test_a_search_about_an_agent_finds_acts_of_other_callers_on_the_agent(world: World) -> None:
    acts: list[tuple[str | None, str | None]] = [
        (None, "ag_1"),
        ("ag_1", "ag_1"),
        ("ag_2", "ag_1"),
        ("ag_1", None),
        (None, "ag_1\0"),
        (None, "rs_1"),
        (None, "in_1"),
    ]

    def flow(agent: str | None, object: str | None) -> Callable[[Act], None]:
        def fill(a: Act) -> None:
            a.entry.agent, a.entry.object, a.entry.data_classes = agent, object, ["health"]
            a.entry.detail = {"about": "ag_3"} if object == "in_1" else {"about": 3}

        return fill

    for number, (agent, object) in enumerate(acts):
        await act(world, f"test.{number}", flow(agent, object))

    def find(**filters: str | int) -> list[str]:
        return [decode_entry(body).action for _, body in store.search_entries(world.db.read(), filters, limit=9)]

    assert find(about="ag_1") == ["test.2", "test.0"]
    assert find(about="ag_1", agent="ag_2") == find(about="ag_1", data_class="health", agent="ag_2") == ["test.2"]
    assert find(about="ag_1", after=-1) == ["test.0", "test.2"]
    assert find(about="ag_3") == ["test.6"]
    assert find(about="ag_2") == find(about="rs_1") == []


async def test_a_search_by_task_finds_acts_under_the_task_and_about_the_task(world: World) -> None:
    def about(task: str | None, object: str | None) -> Callable[[Act], None]:
        def fill(a: Act) -> None:
            a.entry.agent, a.entry.task, a.entry.object = "ag_1", task, object

        return fill

    await act(world, "start", about("tk_1", "tk_2"))  # under the standing task of `ag_1`
    await act(world, "work", about("tk_2", None))
    await act(world, "part", about("tk_2", "tk_3"))
    await act(world, "other", about("tk_1", "ag_2"))
    await act(world, "expire", about(None, "tk_2"))
    await act(world, "refuse", about("tk_1", "tk_1"))

    def find(limit: int = 10, **filters: str | int) -> list[str]:
        return [decode_entry(body).action for _, body in store.search_entries(world.db.read(), filters, limit=limit)]

    assert find(task="tk_2") == ["expire", "part", "work", "start"]
    assert find(task="tk_3") == []
    assert find(task="tk_1") == ["refuse", "other"], "the standing task: what was about it, and what was done under it"
    assert find(task="tk_1", after=0) == ["other", "refuse"]
    assert find(1, task="tk_1") == ["refuse"]


async def test_search_finds_by_each_field_newest_first(world: World) -> None:
    def flow(number: int) -> Callable[[Act], None]:
        def fill(a: Act) -> None:
            a.entry.agent = f"ag_{number % 2}"
            a.entry.task, a.entry.person, a.entry.resource = f"tk_{number}", f"pe_{number}", f"rs_{number}"
            a.entry.outcome = "deny" if number == 3 else "allow"

        return fill

    for number in range(4):
        await act(world, f"test.{number}", flow(number))

    def find(**filters: str | int) -> list[str]:
        found = store.search_entries(
            world.db.read(), {"after": -1, **filters} if "after" in filters else filters, limit=10
        )
        return [decode_entry(body).action for _, body in found]

    assert find(agent="ag_1") == ["test.3", "test.1"]
    assert find(task="tk_2") == find(person="pe_2") == find(resource="rs_2") == find(action="test.2") == ["test.2"]
    assert find(agent="ag_1", outcome="deny") == ["test.3"]
    assert find(agent="ag_1", outcome="refused") == []
    assert find(task="tk_1") == find(task="tk_1", agent="ag_1") == ["test.1"]  # the standing task of its agent
    assert find(task="tk_1", agent="ag_0") == find(task="tk_0", outcome="deny") == []
    last = store.get_head(world.db.read())[0].size - 1
    assert find(after=last - 2) == ["test.2", "test.3"]
    assert find(agent="ag_1", before=last) == ["test.1"]
    assert find(agent="ag_0", since=world.now() + 1) == []
    assert find(agent="ag_0", until=world.now()) == []
    assert len(find(agent="ag_0", since=world.now(), until=world.now() + 1)) == 2
