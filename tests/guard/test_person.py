"""A guard whose policies need approval: it accepts only the response to its own call, and otherwise denies soon."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest

from harness.feeder import RESOURCE_ID, TOOLS, URI, Feeder
from harness.live_server import free_socket, serving
from harness.patience import eventually
from ostiary.authorization.cedar import ir
from ostiary.decision import approval
from ostiary.decision.feed import PolicyFact, ResourceFact, TokenFact
from ostiary.guard import Guard, Verified, approvals, server_rpc
from ostiary.guard.call import Call, Denied
from ostiary.protocol import jose
from ostiary.protocol.errors import Malformed, Refused
from ostiary.protocol.signed import digest
from tests.guard.feed_server import Server, authenticate_with, connected_guard
from tests.support.guard_fixtures import records
from tests.support.patient_guards import patient_guards

__all__ = ["patient_guards"]
ALL = ir.PolicyIR(id="all", effect="permit")
ASKS = ir.PolicyIR(id="asks", effect="forbid", annotations={"ask": "person"})
READ = ("read_file", {"path": "/a"})
Reply = Callable[[bytes], tuple[int, bytes]]


class Desk(Server):
    """A server that is asked for approvals, and answers as a test wants."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.asks: list[bytes] = []
        self.reply: Reply = self.says("open")
        self.pause_s = 0.0
        self.meanwhile: Callable[[], None] = lambda: None

    def says(
        self,
        state: Any,
        *,
        key: jose.PrivateKey = Feeder.feed_key,
        typ: str = approval.ApprovalAnswer.TYP,
        **changed: str,
    ) -> Reply:
        def answering(body: bytes) -> tuple[int, bytes]:
            right = approval.ApprovalAnswer(
                iss=self.url, aud=RESOURCE_ID, question_digest=digest(body), approval="ap_1", state=state
            )
            return 200, jose.sign_jwt(key, typ=typ, claims=msgspec.structs.replace(right, **changed)).encode()

        return answering

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["path"] != "/feed/v1/approval" or scope["path"] in self.refuse:
            return await super().__call__(scope, receive, send)
        body = (await receive()).get("body", b"")
        self.asks.append(body)
        self.meanwhile()
        status, said = self.reply(body)
        await asyncio.sleep(self.pause_s)
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": said})


@pytest.fixture
def server() -> Iterator[Desk]:
    sock, port = free_socket()
    server = Desk(f"http://127.0.0.1:{port}")
    with serving(server, sock):
        yield server


@pytest.fixture
def guard(server: Desk, tmp_path: Path) -> Iterator[Guard]:
    with connected_guard(server, tmp_path) as guard:
        hear(guard, server, ALL, ASKS)
        yield guard


def render(*policies: ir.PolicyIR) -> str:
    return ir.render(ir.PolicySetIR(policies)).decode()


def hear(guard: Guard, server: Desk, *policies: ir.PolicyIR) -> None:
    text = render(*policies)
    server.say(PolicyFact(hash := f"set-{len(text)}", text))
    eventually(lambda: guard.feed.current().facts.policies.hash == hash)


def resource(**changed: Any) -> ResourceFact:
    right = ResourceFact(
        resource_id=RESOURCE_ID, name="files", uri=URI, mode="enforce", segment="default", catalogue=TOOLS
    )
    return msgspec.structs.replace(right, **changed)


@pytest.fixture
def who(guard: Guard, server: Desk) -> Verified:
    verified: Verified = authenticate_with(guard, server)
    return verified


def codes(call: Call) -> list[str]:
    assert not call.decision.allowed
    return [reason.code for reason in call.decision.reasons]


def test_a_call_that_waits_for_approval_is_denied_with_the_approval_id(
    guard: Guard, server: Desk, who: Verified
) -> None:
    call = guard.decide(who, *READ)
    assert (codes(call), call.decision.approval) == (["approval_needed"], "ap_1")
    with pytest.raises(Denied) as denied:
        call.check()
    assert (denied.value.code, denied.value.approval, denied.value.hint) == (
        "approval_needed",
        "ap_1",
        "a person is asked: ap_1",
    )
    [record] = records(guard)
    assert (record["outcome"], record["approval"], record["reasons"][0]["code"]) == ("deny", "ap_1", "approval_needed")


def test_a_call_that_spends_an_approval_is_allowed(guard: Guard, server: Desk, who: Verified) -> None:
    server.reply = server.says("spent")
    call = guard.decide(who, *READ)
    assert (call.decision.allowed, call.decision.policies, call.decision.approval) == (True, ("all",), "ap_1")
    [record] = records(guard)
    assert (record["outcome"], record["approval"], record["facts"]["approved"]) == ("allow", "ap_1", ["asks"])
    assert len(server.asks) == 1


async def test_an_asynchronous_call_waits_for_approval_and_spends_it(guard: Guard, server: Desk, who: Verified) -> None:
    assert codes(await guard.decide_async(who, *READ)) == ["approval_needed"]
    server.reply = server.says("spent")
    assert (await guard.decide_async(who, *READ)).decision.allowed


def test_each_call_draws_its_own_random_number(guard: Guard, server: Desk, who: Verified) -> None:
    guard.decide(who, *READ)
    guard.decide(who, *READ)
    first, second = (approval.parse_ask(body) for body in server.asks)
    assert (first.token, first.policies, first.tool, first.arguments) == (
        "tok_1",
        ["asks"],
        "read_file",
        {"path": "/a"},
    )
    assert first.call != second.call


def test_a_replayed_approval_response_allows_no_call(guard: Guard, server: Desk, who: Verified) -> None:
    """An intermediary replays a stored approval response."""
    server.reply = server.says("spent")
    assert guard.decide(who, *READ).decision.allowed
    kept = server.reply(server.asks[0])
    server.reply = lambda _: kept
    assert codes(guard.decide(who, *READ)) == ["approval_unavailable"]


WRONG: dict[str, Callable[[Desk], Reply]] = {
    "for another question": lambda s: s.says("spent", question_digest=digest(b"another")),
    "for another guard": lambda s: s.says("spent", aud="rs_2"),
    "of another server": lambda s: s.says("spent", iss="https://evil.example"),
    "signed by somebody": lambda s: s.says("spent", key=jose.generate("EdDSA")),
    "of another type": lambda s: s.says("spent", typ="ostiary-said+jwt"),
    "of no state": lambda s: s.says("denied"),
    "not signed": lambda _: lambda _: (200, b'{"state": "spent"}'),
    "nonsense": lambda _: lambda _: (200, b"\xff\x00"),
    "nothing": lambda _: lambda _: (200, b""),
    "endless": lambda _: lambda _: (200, b"x" * (2 << 20)),
    "a failure": lambda _: lambda _: (500, b'{"error": "spent", "message": "spent"}'),
    "a redirect": lambda _: lambda _: (302, b""),
    "a refusal that is none": lambda _: lambda _: (403, b"[]"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_malformed_approval_response_denies_the_call(guard: Guard, server: Desk, who: Verified, case: str) -> None:
    server.reply = WRONG[case](server)
    call = guard.decide(who, *READ)
    assert codes(call) == ["approval_unavailable"]
    assert [record["outcome"] for record in records(guard)] == ["deny"]


def test_the_refusal_of_the_server_is_the_reason_of_the_denial(guard: Guard, server: Desk, who: Verified) -> None:
    server.reply = lambda _: (403, b'{"error": "too_many_questions", "message": "60 in an hour", "hint": "later"}')
    [reason] = guard.decide(who, *READ).decision.reasons
    assert (reason.code, reason.message, reason.hint) == ("too_many_questions", "60 in an hour", "later")
    assert [record["reasons"][0]["code"] for record in records(guard)] == ["too_many_questions"]


def test_a_slow_or_unreachable_server_denies_a_call_that_needs_approval(
    guard: Guard, server: Desk, who: Verified, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_rpc, "PERSON_S", 0.2)
    server.reply, server.pause_s = server.says("spent"), 0.5
    assert codes(guard.decide(who, *READ)) == ["approval_unavailable"]
    server.refuse.add("/feed/v1/approval")
    assert codes(guard.decide(who, *READ)) == ["approval_unavailable"]


async def test_a_slow_server_denies_an_asynchronous_call_that_needs_approval(
    guard: Guard, server: Desk, who: Verified, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_rpc, "PERSON_S", 0.2)
    server.reply, server.pause_s = server.says("spent"), 0.5
    assert codes(await guard.decide_async(who, *READ)) == ["approval_unavailable"]


def spent_once(server: Desk) -> Reply:
    """Behave like the server: the first request number spends the approval; only that number can repeat it."""
    first: list[str] = []

    def answering(body: bytes) -> tuple[int, bytes]:
        first.append(approval.parse_ask(body).call)
        if first[-1] == first[0]:
            return server.says("spent")(body)
        return 403, b'{"error": "approval_spent", "message": "that yes was spent"}'

    return answering


def test_an_approval_whose_response_was_lost_allows_the_same_call_once(
    guard: Guard, server: Desk, who: Verified
) -> None:
    spent = spent_once(server)

    def lost(body: bytes) -> tuple[int, bytes]:
        spent(body)
        return 502, b""

    server.reply = lost
    assert codes(guard.decide(who, *READ)) == ["approval_unavailable"], "the approval is spent and its response is lost"
    server.reply = spent
    assert codes(guard.decide(who, "read_file", {"path": "/b"})) == ["approval_spent"], "another call"
    assert guard.decide(who, *READ).decision.allowed
    assert codes(guard.decide(who, *READ)) == ["approval_spent"], "once"
    asked = [approval.parse_ask(body).call for body in server.asks]
    assert asked[0] == asked[2]
    assert len(set(asked)) == 3


def test_an_approval_whose_response_came_late_is_not_lost(
    guard: Guard, server: Desk, who: Verified, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_rpc, "PERSON_S", 0.2)
    server.reply, server.pause_s = spent_once(server), 0.5
    assert codes(guard.decide(who, *READ)) == ["approval_unavailable"]
    monkeypatch.setattr(server_rpc, "PERSON_S", 20.0)
    server.pause_s = 0.0
    assert guard.decide(who, *READ).decision.allowed


@pytest.mark.parametrize(("status", "code"), [(401, "invalid_token"), (409, "other_policies"), (403, "foreign_token")])
def test_a_refusal_for_another_reason_in_between_loses_no_approval(
    guard: Guard, server: Desk, who: Verified, status: int, code: str
) -> None:
    """The refusal of a restarting server: the number is kept until the server states the state of the approval."""
    spent = spent_once(server)

    def lost(body: bytes) -> tuple[int, bytes]:
        spent(body)
        return 502, b""

    server.reply = lost
    assert codes(guard.decide(who, *READ)) == ["approval_unavailable"]
    server.reply = lambda _: (status, json.dumps({"error": code, "message": "no"}).encode())
    assert codes(guard.decide(who, *READ)) == [code]
    server.reply = spent
    assert guard.decide(who, *READ).decision.allowed
    assert codes(guard.decide(who, *READ)) == ["approval_spent"], "once"


def test_an_approval_whose_call_was_not_recorded_allows_the_same_call_once(
    guard: Guard, server: Desk, who: Verified, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer came, and the spool could not be written."""
    server.reply = spent_once(server)
    write = guard._spool._write

    def full(line: bytes) -> None:
        if b'"outcome":"allow"' in line:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(line)

    monkeypatch.setattr(guard._spool, "_write", full)
    with pytest.raises(Refused):
        guard.decide(who, *READ).check()
    monkeypatch.setattr(guard._spool, "_write", write)
    assert guard.decide(who, *READ).decision.allowed
    assert codes(guard.decide(who, *READ)) == ["approval_spent"], "once"


@pytest.mark.parametrize("is_recorded", [False, True])
def test_an_approved_call_is_allowed_once_in_all_if_its_guard_dies_after_the_response(
    guard: Guard, server: Desk, who: Verified, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_recorded: bool
) -> None:
    """The next guard allows the same call only if the first guard died before the call was recorded."""
    server.reply = spent_once(server)

    def dies(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    where, name = (guard._link.rpc.pending, "drop") if is_recorded else (guard._spool, "_write")
    monkeypatch.setattr(where, name, dies)
    with pytest.raises(KeyboardInterrupt):
        guard.decide(who, *READ)
    assert guard._spool.requested_approvals.exists()
    vanish(guard)
    other = again(guard, server, tmp_path)
    try:
        known = authenticate_with(other, server)
        assert other.decide(known, *READ).decision.allowed is not is_recorded
        assert codes(other.decide(known, *READ)) == ["approval_spent"]
    finally:
        other.close()


async def test_an_approval_is_not_lost_if_its_decision_is_cancelled(guard: Guard, server: Desk, who: Verified) -> None:
    server.reply, server.pause_s = spent_once(server), 0.5
    deciding = asyncio.ensure_future(guard.decide_async(who, *READ))
    await asyncio.to_thread(eventually, lambda: bool(server.asks))
    deciding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await deciding
    server.pause_s = 0.0
    assert (await guard.decide_async(who, *READ)).decision.allowed
    assert codes(await guard.decide_async(who, *READ)) == ["approval_spent"]


def again(guard: Guard, server: Desk, tmp_path: Path) -> Guard:
    """Start another guard in place of one that has ended."""
    count = len(server.streams)
    server.write(None)
    other = Guard(guard._link._credential, spool_dir=tmp_path, max_age=20)
    starting = threading.Thread(target=other.start)
    starting.start()
    server.snapshot(count + 1)
    starting.join()
    hear(other, server, ALL, ASKS)
    return other


def vanish(guard: Guard) -> None:
    """As when its process dies: nothing is written, the locks are free."""
    guard._link._closing.set()
    os.close(guard._spool._lock)
    guard._spool._is_closed = True


@pytest.mark.parametrize("how", ["it dies", "it is closed", "the machine dies"])
def test_an_approval_survives_the_end_of_a_guard_unless_its_machine_restarts(
    guard: Guard, server: Desk, who: Verified, tmp_path: Path, how: str
) -> None:
    """The next guard uses the stored number, except after a restart of the machine, when files may be outdated."""
    spent = spent_once(server)

    def lost(body: bytes) -> tuple[int, bytes]:
        spent(body)
        return 502, b""

    server.reply = lost
    assert codes(guard.decide(who, *READ)) == ["approval_unavailable"]
    server.reply = spent
    assert guard._spool.requested_approvals.stat().st_mode & 0o777 == 0o600
    if how == "the machine dies":
        os.pwrite(guard._spool._lock, b"another boot of it", 0)
    if how == "it is closed":
        server.refuse.clear()
        eventually(lambda: guard._spool.is_empty)  # then nothing else keeps its folder
        guard.close()
    else:
        vanish(guard)
    other = again(guard, server, tmp_path)
    try:
        known = authenticate_with(other, server)
        assert other.decide(known, *READ).decision.allowed is (how != "the machine dies")
        assert codes(other.decide(known, *READ)) == ["approval_spent"], "once"
        assert not other._spool.requested_approvals.exists()
        assert not guard._spool.requested_approvals.exists()
    finally:
        other.close()


def test_an_approval_request_is_stored_only_until_its_response_arrives(
    guard: Guard, server: Desk, who: Verified
) -> None:
    seen: list[bytes] = []
    server.reply = server.says("spent")
    server.meanwhile = lambda: seen.append(guard._spool.requested_approvals.read_bytes())
    assert guard.decide(who, *READ).decision.allowed
    asked = approval.parse_ask(server.asks[0]).call
    assert [number for _, number, _ in json.loads(seen[0])] == [asked]
    assert not guard._spool.requested_approvals.exists()


def test_an_approval_request_that_cannot_be_stored_is_not_sent(guard: Guard, server: Desk, who: Verified) -> None:
    server.reply = server.says("spent")
    guard._spool.requested_approvals.mkdir()
    (guard._spool.requested_approvals / "x").touch()
    assert codes(guard.decide(who, *READ)) == ["spool_failed"]
    assert server.asks == []
    (guard._spool.requested_approvals / "x").unlink()
    guard._spool.requested_approvals.rmdir()


def test_a_malformed_approvals_file_of_another_guard_is_ignored(
    guard: Guard, server: Desk, who: Verified, tmp_path: Path
) -> None:
    guard._spool.requested_approvals.write_bytes(b'[["x"]')
    vanish(guard)
    other = again(guard, server, tmp_path)
    try:
        server.reply = server.says("spent")
        assert other.decide(authenticate_with(other, server), *READ).decision.allowed
    finally:
        other.close()


def test_concurrent_equal_calls_do_not_share_a_request_number(guard: Guard, server: Desk, who: Verified) -> None:
    server.reply = lambda _: (500, b"")
    guard.decide(who, *READ)
    server.reply, server.pause_s = spent_once(server), 0.3
    with ThreadPoolExecutor(4) as pool:
        calls = list(pool.map(lambda _: guard.decide(who, *READ), range(4)))
    assert sum(call.decision.allowed for call in calls) == 1


def test_the_oldest_unanswered_request_numbers_are_dropped_beyond_the_maximum(
    guard: Guard, server: Desk, who: Verified, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(approvals, "MAX_PENDING", 2)
    server.reply = lambda _: (500, b"")
    for path in ("/a", "/b", "/c", "/c", "/b", "/a"):
        guard.decide(who, "read_file", {"path": path})
    first = [approval.parse_ask(body).call for body in server.asks]
    assert (first[2], first[1]) == (first[3], first[4])
    assert first[0] != first[5]


def test_a_call_is_denied_if_its_token_is_revoked_while_approval_is_requested(
    guard: Guard, server: Desk, who: Verified
) -> None:
    server.reply, server.pause_s = server.says("spent"), 0.3
    server.meanwhile = lambda: server.say(TokenFact("tok_1", 1 << 52))
    assert codes(guard.decide(who, *READ)) == ["token_revoked"]


def test_a_policy_added_while_an_approval_is_spent_needs_its_own_approval(
    guard: Guard, server: Desk, who: Verified
) -> None:
    """The policy set is replaced while the approval is spent, so the approval answers another request."""
    more = ir.PolicyIR(id="more", effect="forbid", annotations={"ask": "two"})
    server.reply, server.pause_s = server.says("spent"), 0.3
    server.meanwhile = lambda: server.say(PolicyFact("more", render(ALL, ASKS, more)))
    call = guard.decide(who, *READ)
    assert (codes(call), call.decision.policies) == (["approval_needed"], ("more",))


def test_a_call_that_is_denied_anyway_requests_no_approval(guard: Guard, server: Desk, who: Verified) -> None:
    hear(guard, server, ALL, ASKS, ir.PolicyIR(id="never", effect="forbid"))
    assert set(codes(guard.decide(who, *READ))) == {"forbidden_by_policy"}
    hear(guard, server, ASKS)
    assert codes(guard.decide(who, *READ)) == ["no_permit"]
    assert codes(guard.decide(who, "read_file", {"path": 5})) == ["bad_arguments"]
    assert server.asks == []


def test_a_resource_in_watch_mode_requests_no_approval(guard: Guard, server: Desk, who: Verified) -> None:
    server.say(resource(mode="watch"))
    eventually(lambda: guard.feed.current().facts.resource.mode == "watch")
    call = guard.decide(who, *READ)
    assert (call.decision.allowed, call.decision.verdict) == (True, False)
    assert server.asks == []
    assert records(guard)[0]["reasons"][0]["code"] == "approval_needed"


SECRET = (
    '{"resource":"files","tools":[{"name":"read_file","effect":"read","kinds":{"pin":"secret","deep.pin":"secret"}}]}'
)


def test_a_secret_does_not_leave_the_guard(guard: Guard, server: Desk, who: Verified) -> None:
    server.say(resource(catalogue=SECRET))
    eventually(lambda: guard.feed.current().facts.resource.tools["read_file"].secrets)
    guard.decide(who, "read_file", {"path": "/a", "pin": "pin 1", "deep": {"pin": "pin 2"}})
    guard.decide(who, "read_file", {"path": "/a", "pin": "pin 3", "deep": {"pin": "pin 2"}})
    first, second = (approval.parse_ask(body) for body in server.asks)
    assert b"pin " not in b"".join(server.asks)
    assert (first.arguments, sorted(first.secrets)) == ({"path": "/a"}, ["deep", "pin"])
    assert first.secrets["pin"] != second.secrets["pin"]
    assert first.secrets["deep"] == second.secrets["deep"]


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("x" * approval.MAX_ASKED, "too_long_to_ask"),
        ("\ud800", "malformed"),
    ],
)
def test_a_call_that_cannot_be_shown_for_approval_is_denied_and_recorded(
    guard: Guard, server: Desk, who: Verified, path: str, code: str
) -> None:
    assert codes(guard.decide(who, "read_file", {"path": path})) == [code]
    assert server.asks == []
    assert len(records(guard)) == 1


@pytest.mark.parametrize(("more", "is_asked"), [(0, True), (1, False)])
def test_an_approval_request_has_a_maximum_length(more: int, is_asked: bool) -> None:
    def ask(text: str) -> approval.ApprovalRequest:
        return approval.ApprovalRequest(
            call="c" * 22, token="tok_1", policy="p", policies=["asks"], tool="t", arguments={"text": text}
        )

    room = approval.MAX_ASKED - len(approval.render_ask(ask("")))
    if is_asked:
        assert len(approval.render_ask(ask("x" * (room + more)))) == approval.MAX_ASKED
    else:
        with pytest.raises(Malformed):
            approval.render_ask(ask("x" * (room + more)))


def test_the_arguments_of_an_approval_request_are_canonical(guard: Guard, server: Desk, who: Verified) -> None:
    guard.decide(who, "read_file", {"path": "\u00e4", "b": 1.0, "a": None})
    sent = json.loads(server.asks[0])
    assert sent["arguments"] == {"a": None, "b": 1, "path": "\u00e4"}
