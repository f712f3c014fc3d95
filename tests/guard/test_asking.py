"""Remote policies: the guard asks the server, accepts only the response to its own request, and denies soon
in every other case.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from harness.feeder import PERMIT_ALL, RESOURCE_ID, TASK, Feeder
from harness.live_server import free_socket, serving
from harness.patience import PATIENCE_S, eventually
from ostiary.authorization.cedar import ir
from ostiary.decision import asking
from ostiary.decision.access import PolicyResult
from ostiary.decision.feed import PolicyFact, ResourceFact, TaskFact, TokenFact
from ostiary.guard import Guard, Verified, server_rpc
from ostiary.guard.call import Call
from ostiary.guard.clock import FeedClock
from ostiary.guard.drivers import run
from ostiary.keys import Credential
from ostiary.protocol import jose
from ostiary.protocol.errors import Malformed, Unavailable
from ostiary.protocol.signed import digest, render_answer
from tests.guard.feed_server import Server, authenticate_with, connected_guard
from tests.support.guard_fixtures import records

YES, NO = (PolicyResult("rego", permits=True),), (PolicyResult("rego", forbids=("never on a Sunday",)),)
READ = ("read_file", {"path": "/a"})


class Asked(Server):
    """A server that is asked, and answers as a test wants."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.asks: list[bytes] = []
        self.reply: Callable[[bytes], tuple[int, bytes]] = self.says(YES)
        self.pause_s, self.parts = 0.0, 4
        self.finished = 0
        """answers that were given to their end"""
        self.meanwhile: Callable[[], None] = lambda: None

    def says(
        self, said: tuple[PolicyResult, ...], *, key: jose.PrivateKey = Feeder.feed_key, **changed: str
    ) -> Callable[[bytes], tuple[int, bytes]]:
        def answering(body: bytes) -> tuple[int, bytes]:
            right = asking.RemotePolicyAnswer(iss=self.url, aud=RESOURCE_ID, question_digest=digest(body), results=said)
            return 200, render_answer(key, msgspec.structs.replace(right, **changed))

        return answering

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["path"] != "/feed/v1/ask":
            return await super().__call__(scope, receive, send)
        body = (await receive()).get("body", b"")
        self.asks.append(body)
        self.meanwhile()
        status, said = self.reply(body)
        await send({"type": "http.response.start", "status": status, "headers": []})
        size = len(said) // self.parts + 1
        for start in range(0, len(said), size):
            await asyncio.sleep(self.pause_s)
            await send({"type": "http.response.body", "body": said[start : start + size], "more_body": True})
        await send({"type": "http.response.body", "body": b""})
        self.finished += 1

    def set(self, *, watches: bool = False, cedar: ir.PolicySetIR = PERMIT_ALL, hash: str = "with-rego") -> PolicyFact:
        return PolicyFact(hash, ir.render(cedar).decode(), "", {"rego": watches})


@pytest.fixture
def server() -> Iterator[Asked]:
    sock, port = free_socket()
    server = Asked(f"http://127.0.0.1:{port}")
    with serving(server, sock):
        yield server


@pytest.fixture
def guard(server: Asked, tmp_path: Path) -> Iterator[Guard]:
    """A guard whose policy set contains a remote policy."""
    with connected_guard(server, tmp_path) as guard:
        hear(guard, server, server.set())
        yield guard


def hear(guard: Guard, server: Asked, fact: PolicyFact) -> None:
    server.say(fact)
    eventually(lambda: guard.feed.current().facts.policies.hash == fact.hash)
    eventually(lambda: dict(guard.feed.current().facts.policies.remote) == fact.remote)


@pytest.fixture
def who(guard: Guard, server: Asked) -> Verified:
    verified: Verified = authenticate_with(guard, server)
    return verified


def why(call: Call) -> str:
    assert not call.decision.allowed
    [reason] = call.decision.reasons
    assert reason.code == "policy_error"
    return reason.message


def test_the_verdict_of_a_remote_policy_decides_the_call_and_is_recorded(
    guard: Guard, server: Asked, who: Verified
) -> None:
    call = guard.decide(who, *READ)
    assert (call.decision.allowed, call.decision.policies) == (True, ("all", "rego"))
    server.reply = server.says(NO)
    call = guard.decide(who, *READ)
    assert (call.decision.allowed, call.decision.policies) == (False, ("rego",))
    assert [(one.code, one.message) for one in call.decision.reasons] == [("forbidden_by_policy", "never on a Sunday")]
    questions = [asking.parse_ask(body)[0].question for body in server.asks]
    found = [record["elsewhere"] for record in records(guard)]
    assert found == [
        {"question": digest(question), "said": {"rego": word}}
        for question, word in zip(questions, ("permit", "forbid"), strict=True)
    ]


def test_a_remote_evaluation_request_names_the_policy_set_the_token_and_the_call(
    guard: Guard, server: Asked, who: Verified
) -> None:
    guard.decide(who, *READ)
    guard.decide(who, *READ)
    (first, question), (second, _) = (asking.parse_ask(body) for body in server.asks)
    assert (first.policy, first.token) == ("with-rego", "tok_1")
    assert first.call != second.call
    assert (question.subject.id, question.action.name, question.resource.id) == (
        who.principal.claims.client_id,
        "call",
        "files/read_file",
    )
    assert (question.context["task"], question.context["arguments"]) == (TASK, {"path": "/a"})
    assert abs(question.context["now"] // 1000 - server.feeder.clock.now) < 10_000_000


async def test_an_asynchronous_decision_asks_the_server_once_without_blocking_the_event_loop(
    guard: Guard, server: Asked, who: Verified
) -> None:
    server.pause_s = 0.05
    beats = 0

    async def beat() -> None:
        nonlocal beats
        while True:
            await asyncio.sleep(0.005)
            beats += 1

    beating = asyncio.ensure_future(beat())
    calls = await asyncio.gather(*(guard.decide_async(who, *READ) for _ in range(4)))
    beating.cancel()
    assert all(call.decision.allowed for call in calls)
    assert len(server.asks) == 4
    assert beats > 5, "the event loop was not blocked"


FORBIDS = ir.PolicySetIR((ir.PolicyIR(id="no", effect="forbid"),))


def test_a_call_that_the_guard_denies_itself_is_not_sent_to_remote_policies(
    guard: Guard, server: Asked, who: Verified
) -> None:
    assert not guard.decide(who, "write_file", {}).decision.allowed
    assert not guard.decide(who, "no_such_tool", {}).decision.allowed
    assert not guard.decide(who, "read_file", {"path": 5}).decision.allowed
    hear(guard, server, server.set(cedar=FORBIDS, hash="forbids"))
    assert guard.decide(who, *READ).decision.policies == ("no",)
    server.say(TokenFact("tok_1", 1 << 52))
    eventually(lambda: "tok_1" in guard.feed.current().facts.ended_tokens)
    assert guard.decide(who, *READ).decision.reasons[0].code == "token_revoked"
    assert server.asks == []
    assert [record.get("elsewhere") for record in records(guard)] == [None] * 5


WRONG: dict[str, tuple[Callable[[Asked], Callable[[bytes], tuple[int, bytes]]], str]] = {
    "for another question": (lambda s: s.says(YES, question_digest=digest(b"another")), "another request"),
    "for another guard": (lambda s: s.says(YES, aud="rs_2"), "another request"),
    "of another server": (lambda s: s.says(YES, iss="https://evil.example"), "another request"),
    "signed by somebody": (lambda s: s.says(YES, key=jose.generate("EdDSA")), "cannot be asked"),
    "not signed": (lambda s: lambda _: (200, b'{"said": [["rego", true]]}'), "cannot be asked"),
    "of another type": (
        lambda s: (
            lambda body: (
                200,
                jose.sign_jwt(
                    Feeder.feed_key,
                    typ="ostiary-feed+jwt",
                    claims=asking.RemotePolicyAnswer(
                        iss=s.url, aud=RESOURCE_ID, question_digest=digest(body), results=YES
                    ),
                ).encode(),
            )
        ),
        "cannot be asked",
    ),
    "nonsense": (lambda s: lambda _: (200, b"\xff\x00"), "not a valid ostiary-said+jwt"),
    "nothing": (lambda s: lambda _: (200, b""), "cannot be asked"),
    "endless": (lambda s: lambda _: (200, b"x" * (server_rpc.MAX_ANSWER + 5)), "more than 1048576 bytes"),
    "a failure": (lambda s: lambda _: (500, b"Internal Server Error"), "the server answers 500"),
    "a refusal": (lambda s: lambda _: (409, b'{"message": "another policy set is active"}'), "409: another policy"),
    "a redirect": (lambda s: lambda _: (302, b""), "the server answers 302"),
    "silence of the policy": (lambda s: s.says((PolicyResult("other", permits=True),)), "no answer"),
    "an error": (lambda s: s.says((PolicyResult("rego", error="it fails"),)), "it fails"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_malformed_or_foreign_response_denies_the_call(guard: Guard, server: Asked, who: Verified, case: str) -> None:
    made, words = WRONG[case]
    server.reply = made(server)
    assert words in why(guard.decide(who, *READ))
    assert records(guard)[-1]["outcome"] == "deny"
    server.reply = server.says(YES)
    assert guard.decide(who, *READ).decision.allowed, "the next one is answered"


def test_the_response_to_an_earlier_call_is_not_accepted_for_a_later_call(
    guard: Guard, server: Asked, who: Verified
) -> None:
    server.feeder.clock.now = guard._now()
    assert guard.decide(who, *READ).decision.allowed
    _, earlier = server.reply(server.asks[0])
    server.reply = lambda _: (200, earlier)
    assert "another request" in why(guard.decide(who, *READ))


@pytest.mark.parametrize("pause_s", [0.3, 0.9, 2.0], ids=["drips", "drips slowly", "stalls"])
def test_a_call_is_denied_before_a_slow_server_completes_its_response(
    guard: Guard, server: Asked, who: Verified, pause_s: float
) -> None:
    """Long before the answer is whole, however loaded the machine is."""
    assert guard.decide(who, *READ).decision.allowed
    server.pause_s, server.parts, server.finished = pause_s, 20, 0
    assert "too long" in why(guard.decide(who, *READ))
    assert server.finished == 0


async def test_asynchronous_calls_are_denied_before_a_slow_server_completes_its_responses(
    guard: Guard, server: Asked, who: Verified
) -> None:
    server.pause_s, server.parts = 0.9, 20
    calls = await asyncio.gather(*(guard.decide_async(who, *READ) for _ in range(20)))
    assert all("too long" in why(call) for call in calls)
    assert server.finished == 0, "those that had to wait for their turn too"


@pytest.mark.parametrize("way", ["blocking", "asynchronous"])
async def test_a_call_is_denied_if_no_connection_becomes_free_in_time(
    guard: Guard, server: Asked, who: Verified, way: str
) -> None:
    done = threading.Event()
    for _ in range(server_rpc.CONNECTIONS):
        guard._link.rpc.submit(lambda _: done.wait())
    deciding = guard.decide_async(who, *READ) if way == "asynchronous" else asyncio.to_thread(guard.decide, who, *READ)
    try:
        assert "too long" in why(await asyncio.wait_for(deciding, PATIENCE_S))
    finally:
        done.set()


async def test_a_call_is_denied_if_the_maximum_number_of_calls_is_waiting(
    guard: Guard, server: Asked, who: Verified, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard._link.rpc, "_room", threading.BoundedSemaphore(2))
    server.pause_s = 0.05
    calls = await asyncio.gather(*(guard.decide_async(who, *READ) for _ in range(3)))
    denied = [call for call in calls if not call.decision.allowed]
    assert len(denied) == 1
    assert f"{server_rpc.MAX_ASKING} calls wait" in why(denied[0])
    assert guard.decide(who, *READ).decision.allowed, "a completed call frees its place"


@pytest.mark.parametrize("ask", ["recall", "history"])
def test_a_full_request_queue_is_reported_as_memory_unavailable(
    guard: Guard, who: Verified, monkeypatch: pytest.MonkeyPatch, ask: str
) -> None:
    monkeypatch.setattr(guard._link.rpc, "_room", threading.BoundedSemaphore(1))
    assert guard._link.rpc._room.acquire(blocking=False)
    memories = guard._link.memories
    with pytest.raises(Unavailable, match="calls wait") as refused:
        run(memories.recall(who.principal) if ask == "recall" else memories.history(who.principal, "read_file"))
    assert refused.value.code == "memory_unavailable"


def test_a_closed_guard_opens_no_connection(guard: Guard, server: Asked) -> None:
    rpc = guard._link.rpc
    rpc.close()
    with pytest.raises(Unavailable, match="the guard is closed"):
        rpc.post("ask", b"{}", rpc._tick() + 60_000_000)
    assert not server.asks


def test_a_call_is_denied_if_the_server_is_unreachable_or_the_guard_is_closed(tmp_path: Path) -> None:
    sock, port = free_socket()
    server = Asked(f"http://127.0.0.1:{port}")
    guard = Guard(Credential(jose.generate("ES256"), RESOURCE_ID, server.url), spool_dir=tmp_path, max_age=20)
    with serving(server, sock):
        starting = threading.Thread(target=guard.start)
        starting.start()
        server.snapshot(1)
        starting.join()
        hear(guard, server, server.set())
        who = authenticate_with(guard, server)
        assert guard.decide(who, *READ).decision.allowed
        server.write(None)
    assert "the server cannot be asked: ConnectError" in why(guard.decide(who, *READ))
    guard._link.rpc.close()
    assert "the guard is closed" in why(guard.decide(who, *READ))
    guard.close()


def test_a_closed_connection_is_opened_again(guard: Guard, server: Asked, who: Verified) -> None:
    assert guard.decide(who, *READ).decision.allowed
    talk = guard._link.rpc._connection
    assert talk is not None
    for connection in talk[0]._transport._pool.connections:  # type: ignore[attr-defined]
        connection._connection._network_stream.get_extra_info("socket").shutdown(2)
    assert guard.decide(who, *READ).decision.allowed


def test_a_remote_policy_in_watch_mode_denies_no_call_and_its_verdict_is_recorded(
    guard: Guard, server: Asked, who: Verified
) -> None:
    hear(guard, server, server.set(watches=True, hash="watching"))
    server.reply = server.says(NO)
    call = guard.decide(who, *READ)
    assert (call.decision.allowed, call.decision.watched) == (True, ("rego",))
    server.reply = lambda _: (500, b"")
    call = guard.decide(who, *READ)
    assert call.decision.allowed
    assert call.decision.errors[0][0] == "rego"
    assert [record["elsewhere"]["said"] for record in records(guard)] == [{"rego": "forbid"}, {"rego": "error"}]


def test_a_call_is_denied_if_the_policy_set_changes_during_remote_evaluation(
    guard: Guard, server: Asked, who: Verified
) -> None:
    def swap() -> None:
        server.say(server.set(hash="swapped"))
        while guard.feed.current().facts.policies.hash != "swapped":
            time.sleep(0.01)

    def swap_beside() -> None:
        threading.Thread(target=swap).start()

    server.meanwhile, server.pause_s = swap_beside, 0.1
    call = guard.decide(who, *READ)
    assert "the policy set changed while remote policies were asked" in why(call)
    assert call.decision.policy_hash == "swapped"
    server.meanwhile = lambda: None
    assert guard.decide(who, *READ).decision.allowed


def test_a_call_is_denied_if_its_task_ends_during_remote_evaluation(guard: Guard, server: Asked, who: Verified) -> None:
    server.meanwhile, server.pause_s = lambda: server.say(TaskFact(TASK, 1 << 52)), 0.1
    call = guard.decide(who, *READ)
    assert [reason.code for reason in call.decision.reasons] == ["task_ended"]


def test_a_call_is_denied_if_its_token_expires_during_remote_evaluation(
    guard: Guard, server: Asked, who: Verified, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.meanwhile = lambda: monkeypatch.setattr(FeedClock, "__call__", lambda _: who.principal.expires_at)
    call = guard.decide(who, *READ)
    assert [reason.code for reason in call.decision.reasons] == ["token_expired"]


def test_a_resource_in_watch_mode_allows_a_call_whose_remote_evaluation_failed(
    guard: Guard, server: Asked, who: Verified
) -> None:
    fact = next(fact for fact in server.feeder.facts() if isinstance(fact, ResourceFact))
    server.say(msgspec.structs.replace(fact, mode="watch"))
    eventually(lambda: guard.feed.current().facts.resource.mode == "watch")
    server.reply = lambda _: (500, b"")
    decision = guard.decide(who, *READ).decision
    assert (decision.allowed, decision.verdict) == (True, False)


@pytest.mark.parametrize(
    "change",
    [{"call": "short"}, {"call": "x" * 23}, {"policy": ""}, {"token": ""}, {"more": 1}, {"question": {"subject": 1}}],
)
def test_a_malformed_remote_evaluation_request_is_refused(change: dict[str, Any]) -> None:
    thing = {"type": "Agent", "id": "ag_1"}
    question = {"subject": thing, "action": {"name": "call"}, "resource": thing, "context": {}}
    right = {"call": "x" * 22, "token": "tok_1", "policy": "hash", "question": question}
    assert asking.parse_ask(json.dumps(right).encode())[0].token == "tok_1"
    with pytest.raises(Malformed):
        asking.parse_ask(json.dumps(right | change).encode())


def test_a_response_is_not_used_if_the_evaluation_request_has_changed(
    guard: Guard, server: Asked, who: Verified
) -> None:
    """The catalogue entry of the tool changes meanwhile, so the evaluation request is a different one."""
    fact = next(fact for fact in server.feeder.facts() if isinstance(fact, ResourceFact))
    moved = msgspec.structs.replace(fact, segment="elsewhere")
    server.meanwhile, server.pause_s = lambda: server.say(moved), 0.1
    assert "no answer" in why(guard.decide(who, *READ))
