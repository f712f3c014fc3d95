"""The proxy between an agent and a stdio server: forwarded and denied messages, and the end of either process."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.live_server import ServerFixture
from harness.patience import PATIENCE_S, eventually
from harness.stdio_proxy import TOOLS, StdioProxy, call
from ostiary.agent import Agent
from ostiary.authorization.catalogue import definition_of
from ostiary.guard.mcp import DENIED
from tests.run.proxy_fixtures import ProxyFixture, live_server, proxy_fixture

__all__ = ["live_server"]


@pytest.fixture
def enforced(live_server: ServerFixture, tmp_path: Path) -> ProxyFixture:
    """The agent may read."""
    return proxy_fixture(live_server, tmp_path, "enforce", "read")


@pytest.fixture(scope="module")
def enforced_talk(live_server: ServerFixture, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StdioProxy]:
    with proxy_fixture(live_server, tmp_path_factory.mktemp("talk"), "enforce", "read").talk() as talk:
        yield talk


@pytest.fixture
def watched(live_server: ServerFixture, tmp_path: Path) -> ProxyFixture:
    """The agent may do nothing."""
    return proxy_fixture(live_server, tmp_path, "watch")


def test_a_message_that_is_not_a_call_passes_byte_for_byte_in_both_directions(enforced: ProxyFixture) -> None:
    lines = [
        b'{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"capabilities":{},  "x":"\\u00e9 \xc3\xa9"}}\n',
        b'  { "method" : "notifications/initialized", "jsonrpc" : "2.0" }\r\n',
        b"\n",
        b'{"id":"from-the-server","jsonrpc":"2.0","result":{"role":"assistant"}}\n',
    ]
    with enforced.talk() as talk:
        talk.write(b"".join(lines))
        assert talk.hear()["id"] == 0
        assert talk.has_heard() == b"".join(lines)
        talk.send(call(1, "ask"))
        assert talk.read() == (
            b'{"jsonrpc": "2.0", "id": "from-the-server", "method": "sampling/createMessage", "params": {}}\n'
        )
        assert talk.hear()["id"] == 1


def test_an_allowed_call_passes_unchanged_and_its_outcome_is_recorded(enforced: ProxyFixture) -> None:
    line = b'{"params":{"arguments":{"path":"/a"},  "name":"read_file"},"method":"tools/call","id":5,"jsonrpc":"2.0"}\n'
    with enforced.talk() as talk:
        talk.write(line)
        said = talk.read()
        assert json.loads(said)["result"]["content"][0]["text"] == '{"path": "/a"}'
        assert talk.has_heard() == line
    [entry] = enforced.entries()
    assert (entry["outcome"], entry["tool"]) == ("allow", f"{enforced.resource}/read_file")
    assert "arguments" not in entry
    assert enforced.outcome_of(entry) == {"status": "ok", "bytes": len(json.dumps(json.loads(said)["result"]))}


def test_a_denied_call_gets_an_mcp_error_and_does_not_reach_the_server(enforced: ProxyFixture) -> None:
    with enforced.talk() as talk:
        denied = talk.ask(call("a", "write_file", path="/a"))
        assert denied["id"] == "a"
        assert denied["error"]["code"] == DENIED
        assert denied["error"]["message"].startswith("denied: agent `")
        assert denied["error"]["data"]["reasons"][0]["code"] == "outside_task"
        assert "ostiary agent allow ag_" in denied["error"]["data"]["hint"]
        wrong = talk.ask(call("b", "read_file", path=5))
        assert wrong["error"]["data"]["error"] == "bad_arguments"
        unknown = talk.ask(call("c", "rm"))
        assert unknown["error"]["data"]["error"] == "unknown_tool"
        reading = talk.ask({"jsonrpc": "2.0", "id": "d", "method": "resources/read", "params": {"uri": "file:///a"}})
        assert reading["error"]["data"]["error"] == "unknown_tool"
        talk.send({"jsonrpc": "2.0", "method": "tools/call", "params": {"name": "write_file"}})
        assert talk.has_heard() == b""
    entries = enforced.entries(count=5)
    assert [entry["outcome"] for entry in entries] == ["deny"] * 5


def test_a_watched_call_passes_and_its_verdict_and_argument_summary_are_recorded(
    watched: ProxyFixture,
) -> None:
    sent = [call(1, "write_file", path="/a", text="x" * 300, password="hunter2"), call(2, "rm", all=True)]
    with watched.talk() as talk:
        for value in sent:
            assert "result" in talk.ask(value)
        assert talk.has_heard() == b"".join(json.dumps(value).encode() + b"\n" for value in sent)
    first, second = watched.entries(count=2)
    assert [(one["outcome"], one["detail"]["verdict"]) for one in (first, second)] == [("allow", "deny")] * 2
    assert first["arguments"] == {
        "path": "/a",
        "text": {"type": "string", "length": 300},
        "password": {"type": "string", "length": 7, "secret": True},
    }
    assert second["reasons"][0]["code"] == "unknown_tool"
    assert (watched.folder / "mode").read_text() == "watch"


def test_a_watched_call_with_arguments_that_are_not_an_object_is_recorded(watched: ProxyFixture) -> None:
    with watched.talk() as talk:
        talk.ask({"jsonrpc": "2.0", "id": 0, "method": "ping"})
        values: list[Any] = [0, False, "", []]
        for number, falsy in enumerate(values):
            talk.ask(
                {
                    "jsonrpc": "2.0",
                    "id": number,
                    "method": "tools/call",
                    "params": {"name": "write_file", "arguments": falsy},
                }
            )
        assert "Traceback" not in talk.log.read_text()
        assert len(watched.entries("tool.undecided", count=4)) == 4


SMUGGLED = f'{{"jsonrpc":"2.0","method":"notifications/x","params":{{"x":\r{json.dumps(call(9, "write_file"))}\r}}}}\n'


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"tools/call\n", -32700),
        (b'{"jsonrpc":"2.0","id":1,"method":"ping","method":"tools/call","params":{"name":"write_file"}}\n', -32600),
        (b'{"jsonrpc":"2.0","id":1,"Method":"tools/call","params":{"name":"write_file"}}\n', -32600),
        (SMUGGLED.encode(), -32600),
    ],
    ids=["no JSON", "twice", "case", "carriage return"],
)
def test_a_malformed_frame_is_denied_in_enforce_mode_and_passes_in_watch_mode(
    line: bytes, code: int, enforced: ProxyFixture, watched: ProxyFixture
) -> None:
    with enforced.talk() as talk:
        talk.write(line)
        denied = talk.hear()
        assert (denied["id"], denied["error"]["code"]) == (None, code)
        assert talk.has_heard() == b""
        assert [entry["outcome"] for entry in enforced.entries("tool.undecided")] == ["deny"]
    with watched.talk() as talk:
        talk.ask({"jsonrpc": "2.0", "id": 0, "method": "ping"})
        talk.write(line)
        eventually(lambda: line in talk.heard.read_bytes())
        [entry] = watched.entries("tool.undecided")
    assert entry["outcome"] == "allow"
    assert entry["detail"]["claimed_agent"].startswith("ag_")
    assert "agent" not in entry


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ({"method": "nope/nope"}, -32601),
        ({"method": "Tools/Call", "params": {"name": "read_file"}}, -32601),
        ({"method": "sampling/createMessage", "params": {}}, -32601),
        ({"method": "prompts/get", "params": {"name": "a"}}, DENIED),
        ({"method": "tools/call", "params": {"name": "nothing"}}, DENIED),
        ({"method": "tools/call", "params": {}}, -32602),
        ({"method": "tools/call", "params": {"name": "read_file", "arguments": [1]}}, -32602),
        ({"method": "tools/call", "params": {"name": "read_file", "arguments": 0}}, -32602),
        ({"method": "resources/read", "params": [1]}, -32602),
        (call(1, "read_file", path=json.loads("[" * 100 + "]" * 100)), DENIED),
    ],
)
def test_a_refused_request_gets_an_error_code_of_json_rpc(
    enforced_talk: StdioProxy, message: dict[str, Any], code: int
) -> None:
    answer = enforced_talk.ask(message | {"jsonrpc": "2.0", "id": "seven"})
    assert (answer["id"], answer["error"]["code"]) == ("seven", code)


def test_updates_of_a_subscription_are_withheld_after_the_agent_is_suspended(enforced: ProxyFixture) -> None:
    subscribed = {"name": "resources/subscribe", "effect": "read"}
    enforced.catalogue([*TOOLS, subscribed])
    with enforced.talk() as talk:
        subscribe = {"jsonrpc": "2.0", "id": 1, "method": "resources/subscribe", "params": {"uri": "file:///a"}}
        eventually(lambda: "result" in talk.ask(subscribe))
        update = {"jsonrpc": "2.0", "id": 2, "method": "ping", "params": {"updates": True}}
        talk.send(update)
        assert [talk.hear().get("method") for _ in range(2)] == ["notifications/resources/updated", None]
        enforced.live_server.api("POST", f"/agents/{enforced.agent}/suspend", {"why": "a test"})
        eventually(lambda: "error" in talk.ask(call(3, "read_file", path="/a")))
        talk.send(update)
        assert talk.hear()["id"] == 2, "the update is withheld"


def test_a_batch_passes_completely_or_not_at_all(enforced: ProxyFixture) -> None:
    both = [call(1, "read_file", path="/a"), call(2, "read_file", path="/b")]
    mixed = [call(3, "read_file", path="/a"), call(4, "write_file"), {"jsonrpc": "2.0", "id": 5, "method": "ping"}]
    with enforced.talk() as talk:
        talk.send(both)
        assert [talk.hear()["id"] for _ in both] == [1, 2]
        talk.send(mixed)
        answers = {answer["id"]: answer["error"] for answer in (talk.hear() for _ in mixed)}
        assert answers.keys() == {3, 4, 5}
        assert answers[4]["data"]["error"] == "outside_task"
        assert "another call of the same batch" in answers[3]["message"]
        assert talk.has_heard() == json.dumps(both).encode() + b"\n"
    entries = enforced.entries(count=4)
    assert [entry["outcome"] for entry in entries] == ["allow", "allow", "allow", "deny"]
    assert enforced.outcome_of(entries[2])["status"] == "error"


def test_failed_cancelled_and_unanswered_calls_are_recorded_with_the_outcome_error(enforced: ProxyFixture) -> None:
    with enforced.talk() as talk:
        assert talk.ask(call(1, "fail"))["result"]["isError"]
        assert "error" in talk.ask(call(2, "refuse"))
        talk.send(call(3, "silent"))
        talk.send({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 3}})
        talk.has_heard()
        talk.send(call(4, "silent"))
        talk.has_heard()
        reused = talk.ask(call(4, "read_file", path="/a"))
        assert "another request in flight has this `id`" in reused["error"]["message"]
        assert talk.ask(call(1, "read_file", path="/a"))["result"]  # which was answered
        talk.send(call(5, "silent"))
        talk.has_heard()
        assert talk.end() == 0
    entries = enforced.entries(count=6)
    statuses = [enforced.outcome_of(entry)["status"] for entry in entries]
    assert statuses == ["error", "error", "error", "error", "ok", "error"]


def test_a_large_result_and_a_large_argument_pass_completely(enforced: ProxyFixture) -> None:
    size = 20 << 20
    with enforced.talk() as talk:
        talk.send(call(1, "large", size=size))
        said = talk.read()
        assert len(json.loads(said)["result"]["content"][0]["text"]) == size
        echoed = talk.ask(call(2, "read_file", path="é" * 100_000))
        assert len(json.loads(echoed["result"]["content"][0]["text"])["path"]) == 100_000
    assert enforced.outcome_of(enforced.entries(count=2)[0])["bytes"] > size


def test_a_result_above_the_volume_per_call_does_not_reach_the_agent(enforced: ProxyFixture) -> None:
    volume = {"kind": "volume", "limit": 10_000, "data_class": "health", "per_call": 1000, "unit": "bytes"}
    enforced.live_server.api("PUT", f"/resources/{enforced.resource}/data-classes", {"data_classes": ["health"]})
    enforced.live_server.api("PUT", f"/agents/{enforced.agent}/budget", {"limits": [volume]})
    with enforced.talk() as talk:
        assert "result" in talk.ask(call(1, "large", size=100))
        refusal = talk.ask(call(2, "large", size=1000))["error"]
        assert (refusal["code"], refusal["data"]["error"]) == (DENIED, "volume_exceeded")
        assert "result" in talk.ask(call(3, "large", size=100))
    small, large, _ = enforced.entries(count=3)
    assert enforced.outcome_of(small)["status"] == "ok"
    assert enforced.outcome_of(large)["status"] == "error"
    assert enforced.outcome_of(large)["bytes"] > 1000


def test_many_calls_at_once_are_all_answered(enforced: ProxyFixture) -> None:
    count = 500
    with enforced.talk() as talk:
        talk.send(*[call(number, "read_file" if number % 2 else "write_file", path="/a") for number in range(count)])
        answers = [talk.hear() for _ in range(count)]
    assert sorted(answer["id"] for answer in answers) == list(range(count))
    assert {"result" in answer for answer in answers if answer["id"] % 2} == {True}
    assert {"error" in answer for answer in answers if not answer["id"] % 2} == {True}


@pytest.mark.parametrize(("tool", "code"), [("die", 7), ("kill", 128 + signal.SIGKILL)])
def test_a_server_that_exits_ends_the_proxy_with_its_exit_code(enforced: ProxyFixture, tool: str, code: int) -> None:
    with enforced.talk() as talk:
        talk.send(call(1, tool))
        assert talk.read() == b""
        assert talk.process.wait(PATIENCE_S) == code
    assert enforced.outcome_of(enforced.entries()[0])["status"] == "error"


def test_the_end_of_input_and_signals_are_forwarded_to_the_server(enforced: ProxyFixture) -> None:
    with enforced.talk() as talk:
        talk.has_heard()
        assert talk.end() == 0
        assert talk.heard.read_bytes().endswith(b"[end]")
    with enforced.talk() as talk:
        talk.has_heard()
        talk.process.send_signal(signal.SIGTERM)
        assert talk.process.wait(PATIENCE_S) == 128 + signal.SIGTERM


def test_a_line_without_an_end_ends_the_proxy(enforced: ProxyFixture) -> None:
    with enforced.talk() as talk:
        talk.send(call(1, "endless"))
        assert talk.read() == b""
        assert talk.process.wait(PATIENCE_S) == 1
        assert "a line has more than 64 MiB" in talk.log.read_text()


def test_a_revoked_token_is_replaced_and_a_revoked_agent_is_denied(watched: ProxyFixture) -> None:
    live_server = watched.live_server
    with watched.talk() as talk:
        assert "result" in talk.ask(call(1, "read_file", path="/a"))
        [first] = watched.entries()
        revoked = live_server.api("POST", "/revoke", {"kind": "token", "id": first["token"]})
        live_server.api("GET", "/feeds", seq=revoked["seq"], wait_ms=5000)
        assert "result" in talk.ask(call(2, "read_file", path="/a"))
        assert watched.entries(count=2)[1]["token"] != first["token"]
        revoked = live_server.api("POST", "/revoke", {"kind": "agent", "id": watched.agent})
        live_server.api("GET", "/feeds", seq=revoked["seq"], wait_ms=5000)
        denied = talk.ask(call(3, "read_file", path="/a"))
        assert denied["error"]["data"]["error"] == "agent_not_active"
    with watched.talk() as talk:  # nor does it get a token: the server itself says no
        denied = talk.ask(call(4, "read_file", path="/a"))
        assert "suspended" in denied["error"]["message"]
    assert [entry["outcome"] for entry in watched.entries("tool.undecided")] == ["deny"]


def test_a_switch_to_enforce_mode_takes_effect_in_a_running_proxy_and_is_stored(watched: ProxyFixture) -> None:
    with watched.talk() as talk:
        assert "result" in talk.ask(call(1, "write_file"))
        watched.live_server.api("PUT", f"/resources/{watched.resource}/mode", {"mode": "enforce"})
        eventually(lambda: "error" in talk.ask(call(2, "write_file")))
        assert talk.end() == 0
    assert (watched.folder / "mode").read_text() == "enforce"


def test_a_server_without_a_guard_is_not_started_in_enforce_mode(enforced: ProxyFixture, watched: ProxyFixture) -> None:
    Path(enforced.plan.guard).unlink()
    with enforced.talk() as talk:
        assert talk.read() == b""
        assert talk.process.wait(PATIENCE_S) == 2
        assert not talk.heard.exists()
        assert "no guard for `files`" in talk.log.read_text()
    Path(watched.plan.guard).unlink()
    (watched.folder / "mode").write_text("watch")
    with watched.talk() as talk:
        assert "result" in talk.ask(call(1, "write_file"))
        assert "runs without a guard" in talk.log.read_text()


def test_a_call_that_cannot_be_recorded_is_denied_in_enforce_mode(
    enforced: ProxyFixture, watched: ProxyFixture
) -> None:
    for stage, key in ((enforced, "error"), (watched, "result")):
        with stage.talk() as talk:
            assert "result" in talk.ask(call(1, "read_file", path="/a"))
            limit_files(talk.process.pid)
            assert key in talk.ask(call(2, "read_file", path="/a"))


def limit_files(pid: int) -> None:
    """From now on it cannot write to a file."""
    subprocess.run(["prlimit", f"--pid={pid}", "--fsize=1:1"], check=True)


def test_tools_that_are_missing_in_the_catalogue_are_reported(enforced: ProxyFixture) -> None:
    path = enforced.folder / "events"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as events:
        events.bind(str(path))
        events.settimeout(10)
        with enforced.talk(events=str(path)) as talk:
            talk.ask(call(1, "write_file", path="/a"))
            talk.ask({"jsonrpc": "2.0", "id": 2, "method": "tools/list"})
            denied, trouble = (json.loads(events.recv(4096)) for _ in range(2))
    assert (denied["event"], denied["verdict"], denied["passed"], denied["code"]) == (
        "called",
        "deny",
        False,
        "outside_task",
    )
    assert trouble == {"event": "trouble", "server": "files", "text": "1 tools are not in its catalogue: 'brand_new'"}


def test_a_tool_whose_definition_differs_from_the_approved_definition_is_denied(enforced: ProxyFixture) -> None:
    """The tool is denied until its owner accepts the change; the agent sees the change no earlier than the guard."""
    approved = [*TOOLS[1:], TOOLS[0] | {"definition": definition_of({"name": "read_file"})}]
    with enforced.talk() as talk:
        enforced.catalogue(approved)
        assert "result" in talk.ask({"jsonrpc": "2.0", "id": 1, "method": "tools/list"})
        eventually(lambda: "result" in talk.ask(call(2, "read_file", path="/a")) or None)
        enforced.catalogue([*TOOLS[1:], TOOLS[0] | {"definition": definition_of({"name": "read_file", "title": "x"})}])
        denied = eventually(lambda: talk.ask(call(3, "read_file", path="/a")).get("error"))
        assert denied["data"]["error"] == "tool_changed"
        assert "result" in talk.ask(call(4, "fail")), "the others are as they were"
        enforced.catalogue(approved)
        eventually(lambda: "result" in talk.ask(call(5, "read_file", path="/a")) or None)


@pytest.mark.parametrize(
    "arguments", [[], ["plan"], ["plan", "true"], ["plan", "--"], ["missing", "--", "true"]], ids=" ".join
)
def test_a_wrong_command_line_starts_no_server(arguments: list[str], tmp_path: Path) -> None:
    words = [os.sys.executable, "-m", "ostiary.run", *arguments]  # type: ignore[attr-defined]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=tmp_path, timeout=PATIENCE_S)
    assert (done.returncode, done.stdout) == (2, "")
    assert "ostiary: " in done.stderr


def test_a_missing_server_command_ends_the_proxy_with_127(enforced: ProxyFixture) -> None:
    with StdioProxy(enforced.folder, enforced.plan, command=["/nowhere/server"]) as talk:
        assert talk.process.wait(PATIENCE_S) == 127
        assert "cannot run /nowhere/server" in talk.log.read_text()


def test_a_token_for_a_server_has_only_the_scopes_of_the_server(enforced: ProxyFixture) -> None:
    with Agent.from_credential(enforced.plan.agent, url=enforced.live_server.server.url) as agent:
        folder = enforced.folder / "other"
        folder.mkdir()
        other = proxy_fixture(enforced.live_server, folder, "enforce", "read")
        assert agent.token(resource=enforced.plan.uri)["scope"] == f"{enforced.resource}:read"
    with other.talk() as talk:
        assert "result" in talk.ask(call(1, "read_file", path="/a"))
