"""Enforcement: accepted tokens, allowed calls, their records, and denial in every doubtful case."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from harness.clock import Clock, SeededRandom
from harness.feeder import AGENT, ISSUER, RESOURCE_ID, TASK, TOOLS, URI, Feeder
from ostiary.authorization.cedar import ir
from ostiary.authorization.claims import Confirmation
from ostiary.decision.feed import AgentFact, Fact, KeyFact, KeysFact, PolicyFact, ResourceFact, TaskFact, TokenFact
from ostiary.guard import Denied, FeedStale, Guard, KeyUnheard, NonceNeeded, SpoolFailed, Verified
from ostiary.guard.spool import RESERVE
from ostiary.keys import Credential
from ostiary.protocol import jose
from ostiary.protocol.dpop import InvalidProof
from ostiary.protocol.errors import Invalid, Refused, Unauthenticated, Unavailable
from ostiary.protocol.jose import InvalidToken
from tests.support.guard_fixtures import authenticate_at, records

# Who is let in


def test_a_token_with_a_proof_of_its_key_is_accepted(guard: Guard, feeder: Feeder) -> None:
    assert authenticate_at(guard, feeder).principal.claims.client_id == AGENT


def test_a_request_without_credentials_is_unauthenticated(guard: Guard, feeder: Feeder) -> None:
    for authorization in (None, "", "Basic eA==", "DPoP ", "DPoP"):
        with pytest.raises(Unauthenticated) as refused:
            guard.verify(authorization=authorization, proof=None, method="POST", uri=URI)
        assert refused.value.code == "no_credentials"


def test_a_bound_token_is_refused_under_the_bearer_scheme(guard: Guard, feeder: Feeder) -> None:
    token = feeder.token()
    proof = feeder.proof(token, nonce=guard._proofs.nonce())
    with pytest.raises(InvalidToken, match="bound"):
        guard.verify(authorization=f"Bearer {token}", proof=proof, method="POST", uri=URI)


def test_a_token_without_a_proof_is_refused_with_a_nonce(guard: Guard, feeder: Feeder) -> None:
    with pytest.raises(NonceNeeded):
        guard.verify(authorization=f"DPoP {feeder.token()}", proof=None, method="POST", uri=URI)


def test_a_token_that_is_not_bound_is_refused(guard: Guard, feeder: Feeder) -> None:
    with pytest.raises(InvalidToken, match="not bound"):
        authenticate_at(guard, feeder, feeder.token(cnf=None))


@pytest.mark.parametrize(
    "changed",
    [
        {"key": jose.generate("ES256")},
        {"method": "GET"},
        {"uri": URI + "/other"},
        {"now": 1_000_000},
    ],
)
def test_a_proof_with_another_method_uri_time_or_key_is_refused(
    guard: Guard, feeder: Feeder, changed: dict[str, Any]
) -> None:
    with pytest.raises(InvalidProof):
        authenticate_at(guard, feeder, **changed)


def test_a_proof_for_another_token_is_refused(guard: Guard, feeder: Feeder) -> None:
    proof = feeder.proof("another token", nonce=guard._proofs.nonce())
    with pytest.raises(InvalidProof, match="another access token"):
        guard.verify(authorization=f"DPoP {feeder.token()}", proof=proof, method="POST", uri=URI)


@pytest.mark.parametrize(
    "changed",
    [
        {"aud": "https://elsewhere.example.org"},
        {"iss": "https://elsewhere.example.org"},
        {"exp": 1},
        {"sub": ""},
    ],
)
def test_a_token_with_a_wrong_audience_issuer_expiry_or_subject_is_refused(
    guard: Guard, feeder: Feeder, changed: dict[str, Any]
) -> None:
    with pytest.raises(InvalidToken):
        authenticate_at(guard, feeder, feeder.token(**changed))


def test_a_token_that_another_key_signed_is_refused(guard: Guard, feeder: Feeder) -> None:
    forger = jose.generate("ES256", kid=feeder.token_key.public.kid)
    with pytest.raises(InvalidToken):
        authenticate_at(guard, feeder, jose.sign_jwt(forger, typ="at+jwt", claims=feeder.claims()))


def test_a_token_signed_by_the_feed_key_is_refused(guard: Guard, feeder: Feeder, clock: Clock) -> None:
    token = jose.sign_jwt(feeder.feed_key, typ="at+jwt", claims=feeder.claims())
    clock.advance(1)
    feeder.say()
    with pytest.raises(InvalidToken):
        authenticate_at(guard, feeder, token)


def test_a_token_with_an_unknown_key_is_invalid_only_if_the_feed_is_newer_than_the_token(
    guard: Guard, feeder: Feeder, clock: Clock
) -> None:
    following = jose.generate("ES256")
    token = jose.sign_jwt(following, typ="at+jwt", claims=feeder.claims())
    for microseconds in (999_999, 1):
        with pytest.raises(KeyUnheard):
            authenticate_at(guard, feeder, token)
        clock.advance(us=microseconds)
        feeder.say()
    with pytest.raises(InvalidToken) as refusal:
        authenticate_at(guard, feeder, token)
    assert refusal.value.code == "unknown_kid"
    feeder.say(KeysFact([dict(following.public.jwk)], [dict(feeder.feed_key.public.jwk)]))
    authenticate_at(guard, feeder, token)


@pytest.mark.parametrize("changed", [{"iss": "https://elsewhere.example.org"}, {"iat": 0}, {"iat": 1 << 40}])
def test_a_token_that_no_key_announcement_can_make_valid_is_refused_at_once(
    guard: Guard, feeder: Feeder, changed: dict[str, Any]
) -> None:
    with pytest.raises(InvalidToken):
        authenticate_at(
            guard, feeder, jose.sign_jwt(jose.generate("ES256"), typ="at+jwt", claims=feeder.claims(**changed))
        )


@pytest.mark.parametrize(("left_us", "is_alive"), [(1, True), (0, False), (-1, False)])
def test_a_cached_token_is_refused_after_its_expiry(
    guard: Guard, feeder: Feeder, clock: Clock, left_us: int, is_alive: bool
) -> None:
    claims = feeder.claims(exp=clock() // 1_000_000 + 2)
    token = jose.sign_jwt(feeder.token_key, typ="at+jwt", claims=claims)
    authenticate_at(guard, feeder, token)
    clock.now = claims.exp * 1_000_000 - left_us
    if is_alive:
        authenticate_at(guard, feeder, token)
    else:
        with pytest.raises(InvalidToken, match="expired"):
            authenticate_at(guard, feeder, token)


def test_a_cached_token_is_verified_again_after_the_keys_change(guard: Guard, feeder: Feeder) -> None:
    token = feeder.token()
    authenticate_at(guard, feeder, token)
    following = jose.generate("ES256")
    feeder.say(KeysFact([dict(following.public.jwk)], [dict(feeder.feed_key.public.jwk)]))
    with pytest.raises(KeyUnheard):
        authenticate_at(guard, feeder, token)


def test_tokens_beyond_the_cache_limit_are_still_accepted(
    guard: Guard, feeder: Feeder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ostiary.guard.tokens.MAX_REMEMBERED", 2)
    tokens = [feeder.token(jti=f"tok_{i}") for i in range(4)]
    for token in tokens + tokens:
        authenticate_at(guard, feeder, token)
    assert len(guard._tokens) == 2


# What the feed has ended

ENDS: dict[str, tuple[Fact, str]] = {
    "agent": (AgentFact(AGENT, "suspended", 0, 1 << 52), "agent_not_active"),
    "epoch": (AgentFact(AGENT, "active", 1, 1 << 52), "token_revoked"),
    "task": (TaskFact(TASK, 1 << 52), "task_ended"),
    "token": (TokenFact("tok_1", 1 << 52), "token_revoked"),
    "key": (KeyFact(Feeder.agent_key.public.thumbprint, 1 << 52), "key_revoked"),
}


@pytest.mark.parametrize("what", ENDS)
def test_a_call_is_denied_at_once_after_the_feed_revokes_its_agent_task_token_or_key(
    guard: Guard, feeder: Feeder, what: str
) -> None:
    fact, code = ENDS[what]
    who = authenticate_at(guard, feeder)
    assert guard.decide(who, "read_file", {}).decision.allowed
    feeder.say(fact)
    assert guard.decide(who, "read_file", {}).decision.reasons[0].code == code
    with pytest.raises(InvalidToken):
        guard.check_alive(who)
    with pytest.raises(InvalidToken):
        authenticate_at(guard, feeder)


def test_a_token_of_the_new_epoch_is_accepted(guard: Guard, feeder: Feeder) -> None:
    feeder.say(AgentFact(AGENT, "active", 1, 1 << 52))
    who = authenticate_at(guard, feeder, feeder.token(epoch=1))
    assert guard.decide(who, "read_file", {}).decision.allowed


# Which calls happen


def test_an_allowed_call_is_recorded_before_the_call_runs(guard: Guard, feeder: Feeder) -> None:
    who = authenticate_at(guard, feeder)
    with guard.call(who, "read_file", {"path": "/a"}) as call:
        [record] = records(guard)
        call.result(bytes=10, records=1, data_class="internal")
    assert record["kind"] == "call"
    assert record["outcome"] == "allow"
    assert record["token"] == "tok_1"
    assert record["policies"] == ["all"]
    assert "arguments" not in record
    outcome = records(guard)[1]
    assert outcome == {
        "kind": "result",
        "at": feeder.clock(),
        "call": call.number,
        "status": "ok",
        "bytes": 10,
        "records": 1,
        "data_class": "internal",
    }


def test_a_call_that_fails_is_on_record_as_failed(guard: Guard, feeder: Feeder) -> None:
    with pytest.raises(ZeroDivisionError), guard.call(authenticate_at(guard, feeder), "read_file", {}):
        raise ZeroDivisionError
    assert records(guard)[1]["status"] == "error"


def test_a_denied_call_does_not_run_and_states_its_reason_and_a_hint(guard: Guard, feeder: Feeder) -> None:
    who = authenticate_at(guard, feeder)
    with pytest.raises(Denied) as denied, guard.call(who, "write_file", {}):
        raise AssertionError("the tool ran")
    assert denied.value.code == "outside_task"
    assert denied.value.missing_scope == "files:write"
    assert "ostiary" in denied.value.hint
    [record] = records(guard)
    assert record["outcome"] == record["verdict"] == "deny"
    assert record["reasons"][0]["code"] == "outside_task"


@pytest.mark.parametrize(
    ("tool", "arguments", "code"),
    [
        ("no_such_tool", {}, "unknown_tool"),
        ("read_file", {"path": 5}, "bad_arguments"),
    ],
)
def test_a_call_of_an_unlisted_tool_or_with_wrong_arguments_is_denied(
    guard: Guard, feeder: Feeder, tool: str, arguments: dict[str, Any], code: str
) -> None:
    assert guard.decide(authenticate_at(guard, feeder), tool, arguments).decision.reasons[0].code == code


def test_a_new_policy_set_takes_effect_with_its_message(guard: Guard, feeder: Feeder) -> None:
    who = authenticate_at(guard, feeder)
    feeder.say(PolicyFact("none", ir.render(ir.PolicySetIR(())).decode()))
    decision = guard.decide(who, "read_file", {}).decision
    assert decision.reasons[0].code == "no_permit"
    assert decision.policy_hash == "none"


def test_in_watch_mode_a_denial_is_on_record_and_the_call_happens(guard: Guard, feeder: Feeder) -> None:
    feeder.say(
        ResourceFact(resource_id=RESOURCE_ID, name="files", uri=URI, mode="watch", segment="default", catalogue=TOOLS)
    )
    with guard.call(authenticate_at(guard, feeder), "write_file", {}):
        pass
    record = records(guard)[0]
    assert (record["outcome"], record["verdict"]) == ("allow", "deny")


def test_arguments_are_recorded_shortened_with_a_digest_if_recording_is_enabled(
    tmp_path: Path, clock: Clock, dice: SeededRandom
) -> None:
    credential = Credential(Feeder.agent_key, RESOURCE_ID, ISSUER)
    guard = Guard(credential, spool_dir=tmp_path, now=clock, tick=clock, random=dice, record_arguments=True)
    feeder = Feeder(clock, feed=guard.feed)
    feeder.snapshot()
    guard.decide(authenticate_at(guard, feeder), "read_file", {"path": "x" * 200, "deep": {"a": 1}, "n": 1})
    [record] = records(guard)
    assert record["arguments"] == {"path": "x" * 100, "deep": "...", "n": 1}
    assert len(record["digest"]) == 43


@pytest.mark.parametrize(
    ("stated", "path", "n"),
    [
        ({"kinds": {"path": "object"}}, "/a", 1),
        ({"kinds": {"path": "secret"}}, "...", 1),
        ({"kinds": {"path.inner": "secret"}}, "...", 1),
        ({"kinds": {"n": "secret"}}, "/a", "..."),
        ({"data_classes": ["personal"]}, "/a", 1),
        ({"data_classes": ["secret"]}, "...", "..."),
    ],
)
def test_an_argument_marked_as_secret_is_not_recorded_even_if_recording_is_enabled(
    tmp_path: Path, clock: Clock, dice: SeededRandom, stated: dict[str, Any], path: object, n: object
) -> None:
    credential = Credential(Feeder.agent_key, RESOURCE_ID, ISSUER)
    guard = Guard(credential, spool_dir=tmp_path, now=clock, tick=clock, random=dice, record_arguments=True)
    feeder = Feeder(clock, feed=guard.feed)
    feeder.snapshot()
    catalogue = json.loads(TOOLS)
    catalogue["tools"] = [tool | stated if tool["name"] == "read_file" else tool for tool in catalogue["tools"]]
    fact = ResourceFact(resource_id=RESOURCE_ID, name="files", uri=URI, mode="enforce", segment="default")
    feeder.say(replace(fact, catalogue=json.dumps(catalogue)))
    guard.decide(authenticate_at(guard, feeder), "read_file", {"path": "/a", "n": 1})
    assert records(guard)[0]["arguments"] == {"path": path, "n": n}


# Every doubt is a no


def closed(guard: Guard, who: Verified) -> Refused:
    """Return the refusal of a call at a guard that refuses calls."""
    with pytest.raises(Unavailable) as refused, guard.call(who, "read_file", {}):
        raise AssertionError("the tool ran")
    return refused.value


@pytest.mark.parametrize(("age_us", "is_open"), [(4_999_999, True), (5_000_000, True), (5_000_001, False)])
def test_calls_run_up_to_the_maximum_age_of_the_feed(
    guard: Guard, feeder: Feeder, clock: Clock, age_us: int, is_open: bool
) -> None:
    who = authenticate_at(guard, feeder)
    clock.advance(us=age_us)
    if is_open:
        with guard.call(who, "read_file", {}):
            pass
    else:
        assert closed(guard, who).code == "feed_stale"
        with pytest.raises(FeedStale):
            authenticate_at(guard, feeder)
        feeder.say()
        authenticate_at(guard, feeder)


def test_a_broken_feed_refuses_every_call(guard: Guard, feeder: Feeder) -> None:
    who = authenticate_at(guard, feeder)
    with pytest.raises(Refused):
        feeder.feed.accept(b"garbage")
    closed(guard, who)
    assert records(guard) == []


@pytest.mark.parametrize("off_us", [-2_000_001, 2_000_001])
def test_a_guard_with_a_wrong_clock_refuses_calls(guard: Guard, feeder: Feeder, off_us: int) -> None:
    who = authenticate_at(guard, feeder)
    feeder.say(at=feeder.clock() + off_us)
    assert "clock" in closed(guard, who).message


def test_a_spool_that_is_full_refuses_every_call(tmp_path: Path, clock: Clock, dice: SeededRandom) -> None:
    credential = Credential(Feeder.agent_key, RESOURCE_ID, ISSUER)
    guard = Guard(credential, spool_dir=tmp_path, now=clock, tick=clock, random=dice, spool_limit=RESERVE + 2000)
    feeder = Feeder(clock, feed=guard.feed)
    feeder.snapshot()
    who = authenticate_at(guard, feeder)
    with guard.call(who, "read_file", {}):
        pass
    with pytest.raises(SpoolFailed, match="the spool is full"):
        [guard.decide(who, "read_file", {}) for _ in range(10)]


def test_a_spool_that_cannot_be_written_refuses_every_call(
    guard: Guard, feeder: Feeder, monkeypatch: pytest.MonkeyPatch
) -> None:
    who = authenticate_at(guard, feeder)

    def fail(file: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.write", fail)
    assert closed(guard, who).code == "spool_failed"
    monkeypatch.undo()
    with guard.call(who, "read_file", {}):
        pass


def test_an_internal_error_of_the_guard_refuses_the_call(
    guard: Guard, feeder: Feeder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    who = authenticate_at(guard, feeder)
    monkeypatch.setattr("ostiary.decision.access.decide", lambda *_, **__: 1 / 0)
    assert closed(guard, who).code == "guard_failed"
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize("value", [10**5000, "\ud800"], ids=["endless", "surrogate"])
def test_a_call_with_arguments_that_the_ledger_cannot_represent_is_denied(
    guard: Guard, feeder: Feeder, value: object
) -> None:
    with pytest.raises(Denied), guard.call(authenticate_at(guard, feeder), "read_file", {"n": value}):
        raise AssertionError("the tool ran")
    assert [record["outcome"] for record in records(guard)] == ["deny"]


def test_a_closed_guard_refuses_every_call(guard: Guard, feeder: Feeder) -> None:
    who = authenticate_at(guard, feeder)
    guard.feed.distrust("the guard is closed")
    assert "closed" in closed(guard, who).message


def test_a_guard_accepts_only_the_credential_of_a_resource(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="the credential of a resource, and `.*` is not a resource"):
        Guard(Credential(Feeder.agent_key, AGENT, ISSUER), spool_dir=tmp_path)


def test_a_proof_by_a_key_other_than_the_confirmed_thumbprint_is_refused(guard: Guard, feeder: Feeder) -> None:
    token = feeder.token(cnf=Confirmation(jkt=jose.generate("ES256").public.thumbprint))
    with pytest.raises(InvalidProof):
        authenticate_at(guard, feeder, token)
