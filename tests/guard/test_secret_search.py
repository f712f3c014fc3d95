"""Calls of agents whose proxies use secrets: the server searches the arguments before a call is let through."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from harness.feeder import AGENT, RESOURCE_ID, TOOLS, URI
from harness.live_server import free_socket, serving
from harness.patience import eventually
from ostiary import ambient
from ostiary.authorization.cedar import ir
from ostiary.authorization.claims import Actor, Link
from ostiary.decision.feed import PolicyFact, ResourceFact, SecretUseFact
from ostiary.guard import Guard
from ostiary.guard.secret_search import SecretsUnsearched
from ostiary.keys import save_key
from ostiary.protocol import jose
from ostiary.protocol.destination import PROXY_URI
from ostiary.protocol.secret_forms import MAX_SEARCHED
from ostiary.run.gate import Gate
from ostiary.run.plan import Plan
from tests.guard.feed_server import Server, answer, connected_guard
from tests.support.guard_fixtures import authenticate_at, records

GIVER = "ag_00000000000000000000000000000002"
VALUE = "sk-c4n4ry/+Zz=4711"
MINUTE = 60_000_000


class Searching(Server):
    """A server that finds one value, and remembers what it searched."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.status, self.error = 403, {"error": "secret_sent", "message": "no", "hint": "send the placeholder"}
        self.searched: list[dict[str, str]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["path"] != "/feed/v1/find-secret":
            return await super().__call__(scope, receive, send)
        body, has_more = b"", True
        while has_more:
            part = await receive()
            body, has_more = body + part["body"], part.get("more_body", False)
        self.searched.append(said := json.loads(body))
        is_found = VALUE in said["text"]
        return await answer(send, self.status if is_found else 200, self.error if is_found else {})


@pytest.fixture
def server() -> Iterator[Searching]:
    sock, port = free_socket()
    server = Searching(f"http://127.0.0.1:{port}")
    with serving(server, sock):
        yield server


@pytest.fixture
def guard(server: Searching, tmp_path: Path) -> Iterator[Guard]:
    with connected_guard(server, tmp_path, record_arguments=True) as guard:
        yield guard


@pytest.fixture
def use(guard: Guard, server: Searching) -> Callable[..., None]:
    """Tell the guard that a proxy uses a secret for the agent."""

    def say(agent: str = AGENT, *, minutes: int = 60) -> None:
        until = ambient.now() + minutes * MINUTE
        server.say(SecretUseFact(agent, until))
        eventually(lambda: guard.feed.current().facts.secret_uses.get(agent) == until)

    return say


def code(guard: Guard, server: Searching, text: str, *, tool: str = "read_file", **claims: Any) -> str:
    """The reason for a denial of a call with that text."""
    server.feeder.clock.now = ambient.now()
    token = server.feeder.token(iss=server.url, **claims)
    decision = guard.decide(authenticate_at(guard, server.feeder, token), tool, {"path": text}).decision
    return decision.reasons[0].code if decision.reasons else ""


def test_a_call_that_sends_a_used_secret_is_denied_and_recorded_without_arguments(
    guard: Guard, server: Searching, use: Callable[..., None]
) -> None:
    assert code(guard, server, VALUE) == ""
    assert server.searched == [], "no proxy has used a secret for this agent"
    use()
    assert [code(guard, server, text) for text in ("/x", VALUE)] == ["", "secret_sent"]
    assert [one["text"].split("\n")[0] for one in server.searched] == ["/x", VALUE]
    assert [(one["outcome"], one.get("arguments")) for one in records(guard)[1:]] == [
        ("allow", {"path": "/x"}),
        ("deny", None),
    ]
    assert code(guard, server, VALUE, tool="write_file") == "outside_task"
    assert "arguments" not in records(guard)[-1], "and neither has that of a call which was not searched"
    assert len(server.searched) == 2


def test_calls_delegated_by_an_agent_with_a_secret_are_searched_and_others_are_not(
    guard: Guard, server: Searching, use: Callable[..., None]
) -> None:
    use(GIVER)
    assert code(guard, server, VALUE) == ""
    through: dict[str, Any] = {"act": Actor(AGENT), "sub": GIVER, "chain": [Link(GIVER, 0, "tk_9")], "jti": "tok_2"}
    assert code(guard, server, VALUE, **through) == "secret_sent"
    assert [one["token"] for one in server.searched] == ["tok_2"]


def test_calls_are_not_searched_after_the_secret_is_forgotten(
    guard: Guard, server: Searching, use: Callable[..., None]
) -> None:
    use(minutes=0)
    assert (code(guard, server, VALUE), server.searched) == ("", [])


def test_the_secret_search_is_enforced_in_watch_mode(guard: Guard, server: Searching, use: Callable[..., None]) -> None:
    server.say(
        ResourceFact(resource_id=RESOURCE_ID, name="files", uri=URI, mode="watch", segment="default", catalogue=TOOLS),
        PolicyFact("nothing is permitted", ir.render(ir.PolicySetIR(())).decode()),
    )
    use()
    assert [code(guard, server, text) for text in ("/x", VALUE)] == ["no_permit", "secret_sent"]
    assert [one["outcome"] for one in records(guard)] == ["allow", "deny"]


def test_a_text_that_is_too_long_to_search_is_denied_without_a_search(
    guard: Guard, server: Searching, use: Callable[..., None]
) -> None:
    use()
    room = MAX_SEARCHED - len("\npath")
    assert [code(guard, server, "x" * size) for size in (room, room + 1)] == ["", "too_long_to_search"]
    assert len(server.searched) == 1


@pytest.mark.parametrize(
    ("status", "error"),
    [(503, {}), (403, {"error": "foreign_token", "message": "no"}), (429, {}), (400, {"error": "secret_sent"})],
)
def test_a_call_that_cannot_be_searched_is_refused(
    guard: Guard, server: Searching, use: Callable[..., None], status: int, error: dict[str, str]
) -> None:
    use()
    server.status, server.error = status, error
    with pytest.raises(SecretsUnsearched):
        code(guard, server, VALUE)


def test_a_guard_of_a_secrets_proxy_requests_no_search(
    guard: Guard, server: Searching, use: Callable[..., None]
) -> None:
    uri = f"{PROXY_URI}bot"
    server.say(
        ResourceFact(resource_id=RESOURCE_ID, name="files", uri=uri, mode="enforce", segment="default", catalogue=TOOLS)
    )
    use()
    assert (code(guard, server, VALUE, aud=uri), server.searched) == ("", [])


def test_an_undecided_call_of_an_agent_with_a_used_secret_is_denied_in_watch_mode_too(
    server: Searching, tmp_path: Path
) -> None:
    """Without a token that the guard accepts, nobody can search the call; other agents' calls pass."""
    files = {AGENT: tmp_path / "agent.json", RESOURCE_ID: tmp_path / "guard.json"}
    for id, file in files.items():
        save_key(file, jose.generate("ES256"), client_id=id, issuer=server.url)
    plan = Plan(
        server="files",
        agent=str(files[AGENT]),
        guard=str(files[RESOURCE_ID]),
        uri=URI,
        spool=str(tmp_path / "spool"),
        mode=str(tmp_path / "mode"),
        url=server.url,
    )
    gate = Gate(plan)
    gate.start()
    try:
        server.snapshot(1)
        server.refuse.add("/feed/v1/report")
        fact = ResourceFact(resource_id=RESOURCE_ID, name="files", uri=URI, mode="watch", segment="default")
        server.say(msgspec.structs.replace(fact, catalogue=TOOLS))
        eventually(lambda: gate._guard.feed.mode == "watch")
        server.say(SecretUseFact(GIVER, ambient.now() + 60 * MINUTE))
        passed = gate.decide("read_file", {"path": VALUE})
        server.say(SecretUseFact(AGENT, ambient.now() + 60 * MINUTE))
        eventually(lambda: AGENT in gate._guard.feed.current().facts.secret_uses)
        denied = gate.decide("read_file", {"path": VALUE})
        assert (passed.passes, denied.passes) == (True, False)
        assert isinstance(denied.why, SecretsUnsearched)
        assert [one.get("arguments") for one in records(gate._guard)] == [{"path": VALUE}, None]
    finally:
        server.refuse.clear()
        server.write(None)
        gate.close()
