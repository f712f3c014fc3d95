"""Two servers of one PostgreSQL: the guards of both deny what one stops, and both notice a failover that lost acts."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial
from pathlib import Path

import httpx2
import pytest

from harness.live_server import URI, ServerFixture, authenticate, is_allowed, pid_of
from harness.patience import PATIENCE_S, eventually
from harness.postgres_cluster import Cluster, cluster
from harness.prepared import PreparedServer
from harness.server import Server
from harness.tcp_proxy import Proxy
from ostiary.agent import Agent
from ostiary.guard import FeedStale, Guard, Verified
from ostiary.protocol.errors import Refused, Unavailable
from tests.faults.tally import Tally

PUBLIC = ("--public-url", "https://id.example.org")


@pytest.fixture
def postgresql() -> Iterator[Cluster]:
    with cluster() as running_cluster:
        yield running_cluster


@contextmanager
def beside(server: Server, folder: Path, *options: str) -> Iterator[Server]:
    """Another server with the keys of that one."""
    shutil.copytree(server.folder, folder, ignore=shutil.ignore_patterns("server.*", "first-start.*", "*.lock"))
    with PreparedServer(folder, *options) as other:
        yield other


@contextmanager
def guarding(server: Server, credential: Path, spool: Path) -> Iterator[Guard]:
    guard = Guard(credential, url=server.url, spool_dir=spool).start(wait=PATIENCE_S)
    with closing(guard):
        yield guard


def is_applied_by_both(live_server: ServerFixture, resource: str, seq: int) -> bool:
    """Whether the guards of both servers have applied the message of that number, as one of the servers says."""
    feeds = live_server.api("GET", "/feeds", seq=seq, wait_ms=int(PATIENCE_S * 1000))
    return [feed["applied"] for feed in feeds["guards"] if feed["guard"] == resource] == [True, True]


def doctor(live_server: ServerFixture, line: str) -> str:
    """The state of one line of the doctor."""
    [found] = [each["state"] for each in live_server.api("GET", "/doctor")["lines"] if each["name"] == line]
    return str(found)


def refusal(server: Server, credential: Path) -> str:
    """Why an agent gets no token; nothing if it gets one."""
    with Agent.from_credential(credential, url=server.url) as agent:
        try:
            agent.token(resource=URI)
        except (Refused, Unavailable) as refused:
            return refused.message
    return ""


def are_recovering(one: Server, other: Server, credential: Path) -> bool:
    """Whether both servers refuse a token for their recovery. Both are asked each time."""
    said = [refusal(server, credential) for server in (one, other)]
    return all("recovery" in why for why in said)


@pytest.mark.slow
def test_the_guards_of_all_servers_deny_an_agent_that_one_server_has_stopped(
    postgresql: Cluster, tmp_path: Path, rounds: int, tally: Tally
) -> None:
    options = ("--database", postgresql.create("pair"), *PUBLIC)
    broken = tried = 0
    with ExitStack() as stack:
        a = stack.enter_context(PreparedServer(tmp_path / "a", *options))
        b = stack.enter_context(beside(a, tmp_path / "b", *options))
        live_server_a, live_server_b = ServerFixture(a, tmp_path), ServerFixture(b, tmp_path)
        stack.callback(live_server_a.admin.close)
        stack.callback(live_server_b.admin.close)
        resource, guard_key = live_server_a.resource(URI)
        guards = [stack.enter_context(guarding(server, guard_key, tmp_path / server.folder.name)) for server in (a, b)]
        for number in range(2 * rounds):
            stopping = (live_server_a, live_server_b)[number % 2]
            for act in (
                lambda live_server, name: live_server.api("POST", "/revoke", {"kind": "agent", "id": name}),
                lambda live_server, name: live_server.api(
                    "POST", "/kill", {"what": "agent", "name": name, "why": "a test"}
                ),
            ):
                name, key = live_server_a.agent(f"{resource}:read")
                who = [authenticate(guard, key) for guard in guards]
                assert [is_allowed(guard, each) for guard, each in zip(guards, who, strict=True)] == [True, True]
                stopped = act(stopping, name)
                everywhere = partial(is_applied_by_both, stopping, resource, stopped["seq"])
                eventually(everywhere)
                tried += 2
                broken += sum(is_allowed(guard, each) for guard, each in zip(guards, who, strict=True))
        tally("guards of every server deny what one server has stopped, once it says so", broken=broken, of=tried)
        assert [doctor(live_server, "guards") for live_server in (live_server_a, live_server_b)] == ["ok", "ok"]


@pytest.mark.slow
def test_both_servers_detect_a_failover_to_a_lagging_replica(postgresql: Cluster, tmp_path: Path, tally: Tally) -> None:
    """A real replica, promoted while both servers run; it never had the revocation that the guards have heard."""
    primary = postgresql.create("failover")
    stream, entrance = Proxy(primary), Proxy(primary)
    options = ("--database", entrance.url, *PUBLIC)
    with ExitStack() as stack:
        stack.callback(stream.close)
        stack.callback(entrance.close)
        a = stack.enter_context(PreparedServer(tmp_path / "a", *options))
        b = stack.enter_context(beside(a, tmp_path / "b", *options))
        live_server_a, live_server_b = ServerFixture(a, tmp_path), ServerFixture(b, tmp_path)
        stack.callback(live_server_a.admin.close)
        stack.callback(live_server_b.admin.close)
        resource, guard_key = live_server_a.resource(URI)
        agents = [live_server_a.agent(f"{resource}:read") for _ in range(2)]
        standby = stack.enter_context(postgresql.standby(stream.url))
        position = postgresql.position()
        eventually(lambda: standby.has_replayed(position))
        with guarding(a, guard_key, tmp_path / "spool") as guard:
            who = [authenticate(guard, key) for _, key in agents]
            stream.refuses = True
            stream.cut()
            revoked = live_server_b.api("POST", "/revoke", {"kind": "agent", "id": agents[0][0]})
            live_server_b.api("GET", "/feeds", seq=revoked["seq"], wait_ms=int(PATIENCE_S * 1000))
            eventually(lambda: [is_allowed(guard, each) for each in who] == [False, True])
            postgresql.kill()
            standby.promote()
            entrance.lead_to(standby.url.replace("/postgres?", "/failover?"))
            eventually(lambda: are_recovering(a, b, agents[1][1]))
            broken = int(is_allowed(guard, who[0]))
            eventually(lambda: not is_allowed(guard, who[1]))  # the guard has heard of the recovery
            checks = httpx2.get(f"{b.url}/readyz").json()["checks"]
            assert checks["history"] == "in recovery"
            eventually(lambda: any(stop["subject"] for stop in a.ostiary("recover", *options[:2])["replayed"]))
            state = b.ostiary("recover", *options[:2])
            assert agents[0][0] not in state["active"]
            b.ostiary("recover", *options[:2], "--confirm-all", str(len(state["active"])))
            for server in (a, b):
                eventually(lambda server=server: refusal(server, agents[1][1]) == "")  # type: ignore[misc]
                assert refusal(server, agents[0][1]) != ""
            eventually(lambda: guard.feed.seq is not None)
            broken += sum(is_allowed(guard, each) for each in who)
            tally("a stop that a promoted replica never had is never forgotten", broken=broken, of=1 + len(who))

            def accept_new_token() -> Verified | None:
                """None while the feed is broken: the guard reads it anew once its kept stops were delivered."""
                with suppress(FeedStale):
                    return authenticate(guard, agents[1][1])
                return None

            new = eventually(accept_new_token)
            eventually(lambda: is_allowed(guard, new))


@pytest.mark.slow
def test_the_guards_of_a_killed_server_deny_and_the_other_server_grants(
    postgresql: Cluster, tmp_path: Path, tally: Tally
) -> None:
    options = ("--database", postgresql.create("killed"), *PUBLIC)
    with ExitStack() as stack:
        b_stack = ExitStack()
        a = stack.enter_context(PreparedServer(tmp_path / "a", *options))
        b = b_stack.enter_context(beside(a, tmp_path / "b", *options))
        live_server = ServerFixture(a, tmp_path)
        stack.callback(live_server.admin.close)
        resource, guard_key = live_server.resource(URI)
        name, key = live_server.agent(f"{resource}:read")
        with guarding(b, guard_key, tmp_path / "spool") as guard:
            who = authenticate(guard, key)
            assert is_allowed(guard, who)
            eventually(lambda: doctor(live_server, "guards") == "ok")
            eventually(lambda: live_server.entries(action="tool.call"))  # only a guard that has reported is missed
            os.kill(pid_of(b), signal.SIGKILL)
            with pytest.raises(AssertionError, match="the server ended with -9"):
                b_stack.close()
            revoked = live_server.api("POST", "/revoke", {"kind": "agent", "id": name})
            eventually(lambda: not is_allowed(guard, who))
            [told] = live_server.api("GET", "/feeds", seq=revoked["seq"], wait_ms=0)["guards"] or [{"applied": False}]
            assert not told["applied"], "a guard that nobody reaches has applied nothing"
            eventually(lambda: doctor(live_server, "guards") != "ok")
            assert refusal(a, live_server.agent(f"{resource}:read")[1]) == ""
        tally("a guard whose server was killed denies, and is missed", broken=0, of=1)
