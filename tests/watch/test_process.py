"""From an entry to a finding through the detectors' own process, which may die at any time: none lost, none twice."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from harness.clock import Clock, SeededRandom
from harness.patience import eventually_async
from harness.registry_fixtures import create_holding, register_agent, run_act
from ostiary.decision.report import CallRecord, Report, ResultRecord, UndecidedRecord
from ostiary.protocol.errors import Conflict
from ostiary.provenance.noticing import Noticed
from ostiaryd.feed import flows as feed
from ostiaryd.ground.config import Config
from ostiaryd.ground.world import World, open_world
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows as registry
from ostiaryd.registry.store import risks
from ostiaryd.watch import flows, store
from ostiaryd.watch.flows import Watch
from ostiaryd.watch.flows.child import PAUSE_S, pause_s
from ostiaryd.watch.flows.findings import UNPROVED
from ostiaryd.watch.flows.process import MAX_UNSAVED_S
from ostiaryd.watch.model import Finding
from ostiaryd.watch.model.detector import detectors
from tests.support.watch_fixtures import calls, found, looked_at, size, watching

URI = "https://files.example/mcp"


async def test_a_burst_of_denials_becomes_one_finding_that_names_its_entries(world: World, clock: Clock) -> None:
    bot = await register_agent(world)
    answered: list[Finding] = []
    async with watching(world, lambda act, finding: answered.append(finding)) as watch:
        last = await calls(world, bot.agent_id, 12, outcome="deny")
        [one] = await eventually_async(lambda: found(world))
        assert (one.detector, one.agent, one.task, one.owner) == (
            "denied_burst",
            bot.agent_id,
            f"tk_{bot.agent_id[3:]}",
            bot.owner,
        )
        assert one.entries == tuple(range(last - 4, last + 1))
        assert one.score == 1.0
        assert answered == [one]
        for subject in (bot.agent_id, one.task):
            assert risks.get_risk(world.db.read(), subject).points(clock()) == one.points
        await calls(world, bot.agent_id, 5, outcome="deny")
        await looked_at(world, watch)
        assert found(world) == [one], "it is told once"


async def test_a_killed_detector_process_resumes_without_a_lost_or_repeated_finding(world: World) -> None:
    bot, other = await register_agent(world), await register_agent(world, "other")
    async with watching(world) as watch:
        watch.snapshot_s = 0.0
        await calls(world, bot.agent_id, 8, outcome="deny")
        await looked_at(world, watch)
        await kill(watch)
        await calls(world, bot.agent_id, 4, outcome="deny")
        [one] = await eventually_async(lambda: found(world))
        await calls(world, other.agent_id, 3, outcome="deny")
        await looked_at(world, watch)
        await kill(watch)
        await calls(world, other.agent_id, 9, outcome="deny")
        await eventually_async(lambda: len(found(world)) == 2)
        assert {finding.agent for finding in found(world)} == {one.agent, other.agent_id}
        assert watch.state.starts == 3


async def kill(watch: Watch) -> None:
    starts = watch.state.starts
    os.kill(watch.state.pid, signal.SIGKILL)
    await eventually_async(lambda: watch.state.starts > starts and watch.state.phase == "working")


async def test_the_doctor_reports_a_detector_process_that_hangs_or_has_ended(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ostiaryd.watch.flows.process.MAX_BEHIND_S", 0.3)
    bot = await register_agent(world)
    watch = world.get_singleton(Watch)
    await calls(world, bot.agent_id, 1)
    with pytest.raises(Conflict, match="never started"):
        await watch.examine()
    async with watching(world):
        await looked_at(world, watch)
        assert (
            await watch.examine()
            == f"{len(detectors())} detectors have examined entry {size(world) - 1}, and know 1 agents"
        )
        for number in (signal.SIGINT, signal.SIGTERM):  # Ctrl-C reaches it as well
            os.kill(watch.state.pid, number)
        os.kill(watch.state.pid, signal.SIGSTOP)
        await calls(world, bot.agent_id, 20)
        with pytest.raises(Conflict, match="20 entries behind, their process is working"):
            await watch.examine()
        os.kill(watch.state.pid, signal.SIGCONT)
        await looked_at(world, watch)
        assert "have examined" in await watch.examine()
        assert watch.state.starts == 1
    await calls(world, bot.agent_id, 1)
    with pytest.raises(Conflict, match="their process is ended"):
        await watch.examine()


async def test_a_hanging_detector_process_delays_no_commit_and_fills_no_buffer(world: World) -> None:
    bot = await register_agent(world)
    async with watching(world) as watch:
        os.kill(watch.state.pid, signal.SIGSTOP)
        for _ in range(100_000):
            watch._order(b"w")
        await calls(world, bot.agent_id, 3)
        assert watch._child is not None
        assert watch._child.stdin is not None
        assert watch._child.stdin.transport.get_write_buffer_size() <= 1, "what it does not take is left out"
        os.kill(watch.state.pid, signal.SIGCONT)
        await looked_at(world, watch)


async def test_a_failed_response_loses_no_finding_and_is_reported_by_the_doctor(world: World) -> None:
    bot = await register_agent(world)

    def fail(act: Act, finding: Finding) -> None:
        raise ValueError("no")

    async with watching(world, fail) as watch:
        await calls(world, bot.agent_id, 12, outcome="deny")
        await eventually_async(lambda: found(world))
        assert risks.get_risk(world.db.read(), bot.agent_id).points(world.now()) > 0
        await looked_at(world, watch)
        with pytest.raises(Conflict, match="the response to a finding failed: entry .*ValueError: no"):
            await watch.examine()


async def test_one_of_two_servers_runs_the_detectors_and_the_other_takes_over(
    world: World, config: Config, clock: Clock
) -> None:
    bot = await register_agent(world)
    async with open_world(config, now=clock, random=SeededRandom("other")) as other:
        async with watching(world) as first:
            second = other.get_singleton(Watch)
            task = asyncio.create_task(flows.watch(other, then=flows.no_response))
            await eventually_async(lambda: second.state.phase == "standby")
            assert await second.examine() == "the detectors run at another server of this database"
            clock.advance(MAX_UNSAVED_S + 1)
            with pytest.raises(Conflict, match="another server's process runs the detectors"):
                await second.examine()
            await calls(world, bot.agent_id, 11, outcome="deny")
            await looked_at(world, first)
            assert second.state.phase == "standby"
        await eventually_async(lambda: second.state.phase == "working")
        await calls(world, bot.agent_id, 1, outcome="deny")
        assert len(await eventually_async(lambda: found(world))) == 1
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_entries_from_before_the_detectors_are_learned_and_raise_no_finding(world: World) -> None:
    bot = await register_agent(world)
    await calls(world, bot.agent_id, 20, outcome="deny")
    async with watching(world) as watch:
        await looked_at(world, watch)
        assert found(world) == []
        assert watch.state.agents == 1


async def test_the_detectors_do_not_examine_the_entries_of_their_own_findings(world: World) -> None:
    bot = await register_agent(world)
    async with watching(world) as watch:
        await calls(world, bot.agent_id, 12, outcome="deny")
        await eventually_async(lambda: found(world))
        await looked_at(world, watch)
        assert store.snapshots.progress(world.db.read()).stored < size(world) - 1
        assert len(found(world)) == 1


async def test_a_guard_report_raises_findings_only_about_calls_with_tokens_for_its_resource(world: World) -> None:
    resource = await run_act(world, lambda a: registry.create_resource(a, name="files", uri=URI))
    mine, foreign = await register_agent(world), await register_agent(world, "foreign")
    await create_holding(world, mine, "tok_1", audience=URI, task="tk_1")
    await create_holding(world, foreign, "tok_2", audience="https://elsewhere.example", task="tk_2")
    seen = [
        Noticed(detector="origin_drift", points=30, says="odd"),
        Noticed(detector="instructed", points=40, says="told"),
    ]

    def call(agent: str, token: str) -> CallRecord:
        return CallRecord(
            at=5, token=token, agent=agent, tool="read", outcome="allow", verdict="allow", digest="d", noticed=seen
        )

    records: list[CallRecord | UndecidedRecord | ResultRecord] = [
        call(mine.agent_id, "tok_1"),
        call(foreign.agent_id, "tok_2"),
        call(foreign.agent_id, "tok_1"),
    ]
    async with watching(world) as watch:
        report = Report(spool="0" * 32, first=1, records=records)
        await run_act(world, lambda a: feed.take_report(a, report, resource_id=resource.resource_id), "feed.report")
        [one] = await eventually_async(lambda: found(world))
        assert (one.detector, one.points, one.says) == ("instructed", 58, "told; odd" + UNPROVED)
        assert (one.agent, one.task, one.resource, one.score) == (mine.agent_id, "tk_1", URI, 0.0)
        await looked_at(world, watch)
        assert found(world) == [one], "of others' agents a guard has nothing to say"
        assert risks.get_risk(world.db.read(), foreign.agent_id).points(world.now()) == 0


@pytest.mark.parametrize(
    ("since_read", "expected"),
    [(0, PAUSE_S), (4_000, 0.006), (9_999, 1e-6), (10_000, 0.0), (10_001, 0.0), (10**12, 0.0)],
)
def test_the_first_entry_after_a_quiet_moment_is_read_at_once(since_read: int, expected: float) -> None:
    assert pause_s(since_read) == pytest.approx(expected)
