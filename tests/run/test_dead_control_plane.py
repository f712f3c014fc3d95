"""The Ostiary server dies, before or while an agent works: what is enforced is denied, what is watched goes on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from harness.live_server import ServerFixture, free_port
from harness.patience import eventually
from harness.prepared import PreparedServer
from harness.stdio_proxy import StdioProxy, call
from tests.run.proxy_fixtures import ProxyFixture, proxy_fixture

WRITE = call(1, "write_file", path="/a")


@contextmanager
def control_plane(folder: Path, port: int) -> Iterator[ServerFixture]:
    with PreparedServer(folder, port=port) as server, ServerFixture(server, folder) as live_server:
        yield live_server


def dies(talk: StdioProxy, stage: ProxyFixture, answer: str) -> None:
    """Wait until the feed of the guard is stale and a call gets this kind of response."""
    eventually(lambda: answer in talk.ask(WRITE) and "undecided" in spooled(stage))


def spooled(stage: ProxyFixture) -> str:
    return "".join(file.read_text() for file in Path(stage.plan.spool).rglob("*.log"))


@pytest.mark.slow
def test_without_the_ostiary_server_watched_calls_pass_and_enforced_calls_are_denied(tmp_path: Path) -> None:
    folder, port = tmp_path / "data", free_port()
    for name in ("watch", "enforce"):
        (tmp_path / name).mkdir()
    with control_plane(folder, port) as live_server:
        watched = proxy_fixture(live_server, tmp_path / "watch", "watch", "read")
        enforced = proxy_fixture(live_server, tmp_path / "enforce", "enforce", "read", "write")
        with watched.talk() as one, enforced.talk() as other:
            assert "result" in one.ask(WRITE)
            assert "result" in other.ask(WRITE)
    with watched.talk(is_patient=False) as one, enforced.talk(is_patient=False) as other:
        assert "result" in one.ask(WRITE)
        assert "no token" in one.log.read_text()
        denied = other.ask(WRITE)
        assert denied["error"]["data"]["error"] == "unavailable"
        assert other.has_heard().count(b"write_file") == 1, "only what was sent while it was decided"
    assert spooled(watched).count('"kind":"undecided"') == spooled(enforced).count('"kind":"undecided"') == 1
    (tmp_path / "watch" / "mode").unlink()  # nobody has ever said that it is only watched
    with watched.talk(is_patient=False) as one:
        assert "error" in one.ask(WRITE)
    with control_plane(folder, port) as live_server:
        for stage, outcomes in ((watched, ["allow", "deny"]), (enforced, ["deny"])):
            with stage.talk() as talk:
                assert "result" in talk.ask(WRITE)
            entries = ProxyFixture(
                live_server, *[getattr(stage, name) for name in ("folder", "agent", "resource", "plan")]
            ).entries("tool.undecided", count=len(outcomes))
            assert sorted(entry["outcome"] for entry in entries) == outcomes


@pytest.mark.slow
def test_enforced_calls_are_denied_while_the_ostiary_server_is_down_and_allowed_afterwards(tmp_path: Path) -> None:
    folder, port = tmp_path / "data", free_port()
    for name in ("watch", "enforce"):
        (tmp_path / name).mkdir()
    with ExitStack() as talks:
        with control_plane(folder, port) as live_server:
            watched = proxy_fixture(live_server, tmp_path / "watch", "watch")
            enforced = proxy_fixture(live_server, tmp_path / "enforce", "enforce", "write")
            one, other = (talks.enter_context(stage.talk()) for stage in (watched, enforced))
            assert "result" in one.ask(WRITE)
            assert "result" in other.ask(WRITE)
        dies(one, watched, "result")
        dies(other, enforced, "error")
        with control_plane(folder, port):
            eventually(lambda: "result" in other.ask(WRITE))
            assert "result" in one.ask(WRITE)
