"""The search index of the ledger is correct: each indexed value is compared with its entry."""

from __future__ import annotations

import pytest

from harness.registry_fixtures import ADMIN
from ostiary.protocol.errors import Conflict
from ostiaryd.doctor import examine
from ostiaryd.ground.database import sql
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import Act, act, check_indexes, fill_indexes, indexes
from ostiaryd.ledger.model import Result
from tests.support.database_changes import change_database


async def write(world: World, action: str, **members: object) -> None:
    def flow(a: Act) -> None:
        for name, value in members.items():
            setattr(a.entry, name, value)

    await act(world, action, flow)


@pytest.fixture
async def written(world: World) -> World:
    """Three entries: of a call that touched health data, of a stop, and one that is so long that it is cut."""
    await write(
        world,
        "tool.call",
        agent="ag_1",
        task="tk_2",
        person="pe_1",
        resource="https://files.example",
        data_classes=["internal"],
        result=Result("ok", data_class="health"),
    )
    await write(world, "agent.suspend", agent="ag_admin", object="ag_1")
    await write(world, "tool.call", agent="ag_1", object="ag_" + "3" * 60, detail={"about": "ag_9", "x": "y" * 70_000})
    return world


async def found(world: World) -> str:
    with pytest.raises(Conflict) as refused:
        await check_indexes(world)
    return refused.value.message


async def test_each_entry_that_the_server_writes_is_found_by_its_own_values(written: World) -> None:
    size = written.pin.head.size if written.pin.head else 0
    assert await check_indexes(written) == f"searches find each of {size} entries by its own values"


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("agent", "'ag_2'"),
        ("task", "null"),
        ("person", "'pe_2'"),
        ("resource", "'https://other.example'"),
        ("action", "'tool.other'"),
        ("outcome", "'deny'"),
        ("at", "at + 1"),
    ],
)
async def test_a_changed_column_of_the_search_index_is_reported(written: World, column: str, value: str) -> None:
    number = written.db.read().one(sql("select idx from entry where agent = 'ag_1' and task = 'tk_2'"))
    assert number is not None
    change_database(written, f"update entry set {column} = {value} where idx = :number", number=number[0])
    assert f"the search has other values than entry {number[0]}: {column}" in await found(written)


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("delete from entry_class where data_class = 'health'", "is not found by its data class `health`"),
        ("delete from entry_about where subject = 'ag_1'", "is not found by its subject `ag_1`"),
        ("update entry_about set subject = 'ag_2' where subject = 'ag_1'", "lacks the subject `ag_2` that finds it"),
        ("insert into entry_class (data_class, idx) values ('health', 1)", "entry 1 lacks the data class `health`"),
        ("insert into entry_about (subject, idx) values ('ag_1', 4000)", "entry 4000 lacks the subject `ag_1`"),
    ],
)
async def test_a_changed_row_of_the_search_index_is_reported(written: World, statement: str, says: str) -> None:
    change_database(written, statement)
    assert says in await found(written)


async def test_only_the_deep_doctor_reports_a_changed_search_index(written: World) -> None:
    change_database(written, "update entry set agent = 'ag_2' where agent = 'ag_1' and task = 'tk_2'")
    [usual] = [line for line in await examine(written, caller=ADMIN) if line.name == "ledger"]
    [deep] = [line for line in await examine(written, caller=ADMIN, is_deep=True) if line.name == "ledger"]
    assert (usual.state, deep.state) == ("ok", "fail")
    assert "the search has other values than entry" in deep.saw


async def test_entries_are_compared_across_pages(written: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexes, "ENTRIES", 1)
    await check_indexes(written)
    change_database(written, "delete from entry_about where subject = 'ag_1'")
    assert "is not found by its subject `ag_1`" in await found(written)


async def test_entries_missing_in_the_search_index_are_reported_and_then_added(written: World) -> None:
    """Also after the mark was raised by hand, to hide entries from searches."""
    head = written.pin.head
    assert head is not None
    for mark in (head.size, 1 << 60):
        change_database(written, f"update log_head set searched_from = {mark}")
        change_database(written, "delete from entry_about")
        change_database(written, "delete from entry_class")
        change_database(written, "update entry set task = 'tk_9'")  # also of the entry that was cut
        assert f"do not find all of the first {head.size} entries" in await found(written)
        await fill_indexes(written)
        assert await check_indexes(written) == f"searches find each of {head.size} entries by its own values"
        assert written.db.read().all(sql("select idx from entry_about where subject = 'ag_1'"))
