"""The facts of a guard: how the feed sets them, and every case in which the feed is closed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from harness.clock import Clock
from harness.feeder import ISSUER, RESOURCE_ID, SECOND, STREAM, URI, Feeder
from ostiary.authorization.cedar import ir
from ostiary.decision.access import Restriction
from ostiary.decision.feed import (
    AgentFact,
    KeyFact,
    KeysFact,
    Message,
    PolicyFact,
    ProfileFact,
    ResourceFact,
    RestrictionFact,
    RiskFact,
    StopFact,
    TaskFact,
    TokenFact,
    render_message,
)
from ostiary.guard import Feed, FeedBroken, FeedStale
from ostiary.protocol import jose
from ostiary.protocol.checkpoint import Checkpoint, sign_checkpoint
from ostiary.protocol.jose import b64u, unb64u
from ostiary.protocol.note import NoteKey
from ostiary.provenance.noticing import NEW, Event, learn, pack


@pytest.fixture
def feeder(clock: Clock) -> Feeder:
    """A guard that has heard a snapshot."""
    feeder = Feeder(clock)
    feeder.snapshot()
    return feeder


def is_closed(feeder: Feeder) -> bool:
    """Return whether the feed is closed, so that no fact is usable."""
    with pytest.raises(FeedStale):
        feeder.feed.current()
    return True


def test_a_feed_without_any_message_is_closed(clock: Clock) -> None:
    assert is_closed(Feeder(clock))


def test_a_stream_that_does_not_begin_with_a_snapshot_is_refused(clock: Clock) -> None:
    feeder = Feeder(clock)
    with pytest.raises(FeedBroken, match="that must come next"):
        feeder.say(*feeder.facts())
    assert is_closed(feeder)


def test_the_facts_of_a_snapshot_are_in_force(feeder: Feeder) -> None:
    present = feeder.feed.current()
    assert present.resource.uri == URI
    assert present.facts.policies.hash == "hash-of-the-set"
    assert set(present.facts.resource.tools) == {"read_file", "write_file"}
    assert present.keys.keys[0].thumbprint == feeder.token_key.public.thumbprint


def test_a_snapshot_replaces_earlier_facts(feeder: Feeder) -> None:
    feeder.say(TokenFact("tok_1", feeder.clock() + 1))
    assert "tok_1" in feeder.feed.current().facts.ended_tokens
    feeder.begin()
    feeder.snapshot()
    assert "tok_1" not in feeder.feed.current().facts.ended_tokens


def test_each_kind_of_fact_is_in_force_when_accept_returns(feeder: Feeder) -> None:
    until = feeder.clock() + 1
    feeder.say(
        AgentFact("ag_1", "suspended", 3, until),
        TaskFact("tk_1", until),
        TokenFact("tok_1", until),
        KeyFact("k", until),
        RiskFact("ag_1", 40_000, feeder.clock()),
    )
    facts = feeder.feed.current().facts
    assert facts.agents["ag_1"] == ("suspended", 3)
    assert "tk_1" in facts.ended_tasks
    assert "tok_1" in facts.ended_tokens
    assert "k" in facts.revoked_keys
    assert facts.risks["ag_1"].points(feeder.clock()) == 40
    feeder.say(
        PolicyFact("another", ir.render(ir.PolicySetIR(())).decode()),
        resource_fact(mode="watch"),
    )
    facts = feeder.feed.current().facts
    assert facts.policies.hash == "another"
    assert facts.resource.mode == "watch"
    assert facts.agents["ag_1"].epoch == 3, "what was known of others stays"


def test_a_new_resource_policy_set_or_key_is_in_force_when_accept_returns(feeder: Feeder) -> None:
    first = feeder.feed.current()
    feeder.say(TokenFact("tok_1", feeder.clock() + 1))
    assert feeder.feed.current() is first, "a stop leaves the caches for the resource and the policies valid"

    following = jose.generate("ES256")
    feeder.say(KeysFact([dict(following.public.jwk)], [dict(feeder.feed_key.public.jwk)]))
    assert [key.thumbprint for key in feeder.feed.current().keys.keys] == [following.public.thumbprint]
    feeder.say(PolicyFact("another", ir.render(ir.PolicySetIR(())).decode()))
    assert feeder.feed.current().facts.policies.hash == "another"
    feeder.say(resource_fact(mode="watch", exempt=["ag_1"]))
    present = feeder.feed.current()
    assert present.resource.mode == present.facts.resource.mode == "watch"
    assert present.exempt == {"ag_1"}
    assert "tok_1" in present.facts.ended_tokens


def test_the_newest_message_has_the_time_of_the_server_also_if_the_clock_of_the_guard_waits_for_the_server() -> None:
    wall, boot = Clock(), Clock(0)
    feed = Feed(resource_id=RESOURCE_ID, now=wall, tick=boot, max_age=5 * SECOND, max_skew=2 * SECOND)
    feeder = Feeder(wall, feed=feed)
    feeder.snapshot()
    wall.advance(-1)
    feeder.begin()
    feeder.snapshot()
    assert feed.clock() == wall() + SECOND, "the time of the guard never decreases"
    assert feed.heard_at == wall()
    feeder.say()
    assert feed.heard_at == wall()


def test_restrictions_of_an_agent_are_kept_by_kind_and_dropped_after_all_have_expired(feeder: Feeder) -> None:
    now = feeder.clock()
    feeder.say(
        RestrictionFact("ag_1", "throttle", 9, now, now + 1),
        RestrictionFact("ag_1", "narrow", 0, now, now + 100 * SECOND),
    )
    feeder.say(RestrictionFact("ag_1", "throttle", 5, now, now + SECOND))
    narrow = Restriction("narrow", 0, now, now + 100 * SECOND)
    assert feeder.feed.current().facts.restrictions["ag_1"] == (narrow, Restriction("throttle", 5, now, now + SECOND))
    feeder.clock.advance(160)
    feeder.say()
    assert narrow in feeder.feed.current().facts.restrictions["ag_1"]
    feeder.clock.advance(us=30 * SECOND)
    feeder.say()
    assert "ag_1" not in feeder.feed.current().facts.restrictions


def test_profiles_are_limited_in_number_and_an_unreadable_profile_counts_as_new(
    feeder: Feeder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ostiary.guard.knowledge.MAX_PROFILES", 2)
    learned = learn(NEW, Event(at=1, action="tool.call", outcome="allow", task="tk_1", tool="files/pay"))
    packed = b64u(pack(learned))
    feeder.say(ProfileFact("ag_1", packed), ProfileFact("ag_2", packed), ProfileFact("ag_1", packed))
    feeder.say(ProfileFact("ag_3", b64u(b"of tomorrow")))
    assert feeder.feed.current().facts.profiles == {"ag_1": learned, "ag_3": NEW}
    feeder.say(ProfileFact("ag_3", "no base64"))
    assert feeder.feed.current().facts.profiles["ag_3"] == NEW


def test_an_older_epoch_does_not_undo_a_newer_one(feeder: Feeder) -> None:
    feeder.say(AgentFact("ag_1", "suspended", 3, feeder.clock() + 1))
    feeder.say(AgentFact("ag_1", "active", 2, feeder.clock() + 1))
    assert feeder.feed.current().facts.agents["ag_1"] == ("suspended", 3)


@pytest.mark.parametrize(("late_us", "is_current"), [(4_999_999, True), (5_000_000, True), (5_000_001, False)])
def test_facts_are_usable_up_to_the_maximum_age(clock: Clock, late_us: int, is_current: bool) -> None:
    feeder = Feeder(clock, max_age=5.0)
    feeder.snapshot()
    clock.advance(us=late_us)
    assert (feeder.feed.age <= feeder.feed.max_age) is is_current
    if is_current:
        feeder.feed.current()
    else:
        assert is_closed(feeder)


def test_a_heartbeat_message_keeps_the_feed_current(feeder: Feeder) -> None:
    for _ in range(3):
        feeder.clock.advance(4)
        feeder.say()
    feeder.feed.current()
    feeder.clock.advance(5.1)
    assert is_closed(feeder)
    feeder.say()
    feeder.feed.current()


@pytest.mark.parametrize(
    ("off_us", "is_current"),
    [
        (-2_000_001, False),
        (-2_000_000, True),
        (-1_999_999, True),
        (1_999_999, True),
        (2_000_000, True),
        (2_000_001, False),
    ],
)
def test_the_guard_and_server_clocks_may_differ_by_at_most_the_maximum_skew(
    clock: Clock, off_us: int, is_current: bool
) -> None:
    feeder = Feeder(clock, max_skew=2.0)
    feeder.snapshot(at=clock() + off_us)
    if is_current:
        feeder.feed.current()
    else:
        with pytest.raises(FeedStale, match="clock"):
            feeder.feed.current()


def test_a_fact_is_stored_even_if_the_clocks_differ_too_much(feeder: Feeder) -> None:
    feeder.say(TokenFact("tok_1", feeder.clock() + 1), at=feeder.clock() - 9_000_000)
    assert is_closed(feeder)
    feeder.say()
    assert "tok_1" in feeder.feed.current().facts.ended_tokens


def test_the_age_of_a_late_message_counts_from_its_own_time(clock: Clock) -> None:
    feeder = Feeder(clock, max_age=5.0, max_skew=2.0)
    feeder.snapshot(at=clock() - 1_500_000)
    clock.advance(3.5)
    feeder.feed.current()
    clock.advance(us=1)
    assert is_closed(feeder)


WRONG: dict[str, Callable[[Feeder], bytes]] = {
    "forged signature": lambda f: render_message(jose.generate("EdDSA", kid=f.feed_key.public.kid), f.message()),
    "unknown key": lambda f: render_message(jose.generate("EdDSA"), f.message()),
    "the key of tokens": lambda f: render_message(f.token_key, f.message()),
    "a step left out": lambda f: f.line(f.message(prev=f.seq + 1, seq=f.seq + 2)),
    "a step again": lambda f: f.line(f.message(prev=f.seq - 1)),
    "a step back": lambda f: f.line(f.message(seq=f.seq - 1)),
    "a private message that no step announced": lambda f: f.line(f.message(aud=RESOURCE_ID)),
    "another guard's": lambda f: f.line(f.message(aud="rs_2")),
    "another issuer's": lambda f: f.line(f.message(iss="https://elsewhere.example.org")),
    "an opening": lambda f: f.line(f.message(aud=RESOURCE_ID, stream=STREAM)),
    "a snapshot in between": lambda f: f.line(f.message(*f.facts(), snapshot=True)),
    "an unknown kind": lambda f: signed(f, facts=[{"kind": "surprise"}]),
    "an unknown member": lambda f: signed(f, more=1),
    "a fact without a part": lambda f: signed(f, facts=[{"kind": "token", "jti": "tok_1"}]),
    "a time that is none": lambda f: signed(f, at=-1),
    "another type": lambda f: jose.sign_jwt(f.feed_key, typ="at+jwt", claims=f.message()).encode(),
    "no JSON": lambda f: b"{}",
    "an empty line": lambda f: b"",
    "not ASCII": lambda f: "ä".encode(),
    "policies that do not parse": lambda f: f.line(f.message(PolicyFact("h", "{"))),
    "a catalogue that does not parse": lambda f: f.line(f.message(resource_fact(catalogue="{"))),
    "another resource": lambda f: f.line(f.message(resource_fact(resource_id="rs_2"))),
    "no keys at all": lambda f: f.line(f.message(KeysFact([], []))),
}


def resource_fact(**changed: Any) -> ResourceFact:
    right = ResourceFact(resource_id=RESOURCE_ID, name="files", uri=URI, mode="enforce", segment="default")
    return msgspec.structs.replace(right, **changed)


def signed(feeder: Feeder, **changed: Any) -> bytes:
    claims = msgspec.to_builtins(feeder.message()) | changed
    return jose.sign_jwt(feeder.feed_key, typ="ostiary-feed+jwt", claims=claims).encode()


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_line_closes_the_feed_until_the_next_snapshot(feeder: Feeder, what: str) -> None:
    feeder.say(seq=7)
    with pytest.raises(FeedBroken):
        feeder.feed.accept(WRONG[what](feeder))
    assert is_closed(feeder)
    assert feeder.feed.seq is None, "the next stream must not resume"
    with pytest.raises(FeedBroken):
        feeder.say()
    feeder.begin()
    feeder.snapshot()
    feeder.feed.current()


@pytest.mark.parametrize("missing", ["resource", "policies", "keys"])
def test_a_snapshot_without_a_required_part_is_refused(clock: Clock, missing: str) -> None:
    feeder = Feeder(clock)
    kind = {"resource": ResourceFact, "policies": PolicyFact, "keys": KeysFact}[missing]
    with pytest.raises(FeedBroken, match="lacks"):
        feeder.say(*[fact for fact in feeder.facts() if not isinstance(fact, kind)], snapshot=True)
    assert is_closed(feeder)


def test_a_stream_can_resume_at_the_end_of_the_last_stream(feeder: Feeder) -> None:
    feeder.say(TokenFact("tok_1", feeder.clock() + 1), seq=7)
    assert feeder.feed.seq == 7
    feeder.begin()
    feeder.say(TokenFact("tok_2", feeder.clock() + 1), seq=9)
    facts = feeder.feed.current().facts
    assert "tok_1" in facts.ended_tokens
    assert "tok_2" in facts.ended_tokens


def test_a_stream_that_resumes_at_another_number_is_refused(feeder: Feeder) -> None:
    feeder.say(seq=7)
    feeder.begin()
    with pytest.raises(FeedBroken, match="prev"):
        feeder.say(prev=6, seq=8)


def test_a_replayed_stream_is_refused(feeder: Feeder) -> None:
    feeder.begin()
    recorded = feeder.line(feeder.message(*feeder.facts(), snapshot=True))
    feeder.feed.begin("another number", issuer=ISSUER, keys=feeder.feed.feed_keys)
    with pytest.raises(FeedBroken, match="stream"):
        feeder.feed.accept(recorded)


def test_a_replayed_message_does_not_renew_the_feed(feeder: Feeder) -> None:
    alive = feeder.line(feeder.message())
    feeder.clock.advance(1.5)
    feeder.feed.accept(alive)
    assert feeder.feed.age == 1_500_000
    feeder.clock.advance(1)
    feeder.feed.accept(alive)
    assert is_closed(feeder)


def test_an_announced_private_message_is_accepted_as_the_next_message(feeder: Feeder) -> None:
    feeder.say(TokenFact("tok_1", 1 << 52), seq=3, private=["rs_2", RESOURCE_ID])
    feeder.say(TokenFact("tok_2", 1 << 52), aud=RESOURCE_ID)
    feeder.say(seq=4)
    ended = feeder.feed.current().facts.ended_tokens
    assert "tok_1" in ended
    assert "tok_2" in ended


@pytest.mark.parametrize(
    "changed", [{}, {"aud": "rs_2"}, {"aud": RESOURCE_ID, "seq": 9}, {"aud": RESOURCE_ID, "prev": 2}]
)
def test_a_withheld_or_altered_private_message_breaks_the_feed(feeder: Feeder, changed: dict[str, Any]) -> None:
    feeder.say(seq=3, private=[RESOURCE_ID])
    with pytest.raises(FeedBroken):
        feeder.say(**changed)
    assert is_closed(feeder)


def test_a_private_message_to_another_resource_is_not_expected(feeder: Feeder) -> None:
    feeder.say(seq=3, private=["rs_2"])
    feeder.say(seq=4)
    assert feeder.feed.current().resource.resource_id == RESOURCE_ID


def test_the_feed_announces_its_next_signing_key(feeder: Feeder) -> None:
    following = jose.generate("EdDSA")
    feeder.say(KeysFact([dict(feeder.token_key.public.jwk)], [dict(following.public.jwk)]))
    feeder.feed.accept(render_message(following, feeder.message()))
    with pytest.raises(FeedBroken):
        feeder.say()


def test_facts_are_dropped_some_time_after_their_expiry(feeder: Feeder) -> None:
    until = feeder.clock() + 10_000_000
    feeder.say(
        AgentFact("ag_1", "suspended", 3, until), TaskFact("tk_1", until), TokenFact("t", until), KeyFact("k", until)
    )
    feeder.clock.advance(69)
    feeder.say()
    assert "t" in feeder.feed.current().facts.ended_tokens
    feeder.clock.advance(31)
    feeder.say()
    facts = feeder.feed.current().facts
    assert not facts.agents
    for table in (facts.ended_tasks, facts.ended_tokens, facts.revoked_keys):
        assert not list(table)  # type: ignore[call-overload]


def test_more_facts_than_the_maximum_close_the_feed(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ostiary.guard.knowledge.MAX_EXCEPTIONS", 3)
    feeder = Feeder(clock)
    feeder.snapshot(*[TokenFact(f"tok_{i}", clock() + 1) for i in range(3)])
    feeder.feed.current()
    with pytest.raises(FeedBroken, match="more than 3"):
        feeder.say(TokenFact("tok_3", clock() + 1))
    assert is_closed(feeder)


def test_a_message_reads_back_as_it_was_written(feeder: Feeder) -> None:
    message: Message = feeder.message(TokenFact("tok_1", 5))
    assert feeder.feed.accept(feeder.line(message)) == message


ONE, TWO = "11" * 16, "22" * 16


def head(size: int, history: str = ONE) -> str:
    """A signed checkpoint of that size."""
    key = NoteKey("example.org/ostiary", unb64u(Feeder.feed_key.public.jwk["x"]))
    checkpoint = Checkpoint(key.name, size, b"r" * 32, (f"history {history}",))
    return sign_checkpoint(checkpoint, key=key, sign=Feeder.feed_key.sign).decode()


@pytest.mark.parametrize(("size", "is_followed"), [(9, False), (10, True), (11, True)])
@pytest.mark.parametrize("snapshot", [True, False])
def test_a_server_whose_history_has_become_shorter_is_refused(
    feeder: Feeder, size: int, is_followed: bool, snapshot: bool
) -> None:
    feeder.begin()
    feeder.snapshot(head=head(10))
    if snapshot:
        feeder.begin()
    say = feeder.snapshot if snapshot else feeder.say
    if is_followed:
        say(head=head(size))
        return
    with pytest.raises(FeedBroken, match="has lost a part"):
        say(head=head(size))
    assert is_closed(feeder)


def test_a_stream_of_another_history_cannot_resume(feeder: Feeder) -> None:
    feeder.begin()
    feeder.snapshot(head=head(10))
    feeder.begin()
    with pytest.raises(FeedBroken, match="a history of its database that this guard does not know"):
        feeder.say(head=head(10, TWO))
    assert is_closed(feeder)


def test_a_stream_that_changes_its_history_is_refused(feeder: Feeder) -> None:
    feeder.begin()
    feeder.snapshot(head=head(10))
    with pytest.raises(FeedBroken, match="another history"):
        feeder.say(head=head(11, TWO))
    assert is_closed(feeder)


def test_a_snapshot_of_another_history_removes_no_stop(feeder: Feeder) -> None:
    until = feeder.clock() + 3600 * SECOND
    feeder.begin()
    feeder.snapshot(head=head(10))
    feeder.say(
        AgentFact("ag_1", "suspended", 1, until),
        TaskFact("tk_1", until),
        TokenFact("tok_1", until),
        KeyFact("jkt_1", until),
        StopFact("model", "m-1"),
        head=head(11),
    )
    feeder.begin()
    feeder.snapshot(AgentFact("ag_1", "active", 1_000_000, until), head=head(5, TWO))
    facts = feeder.feed.current().facts
    assert facts.agents["ag_1"].state == "suspended"
    assert facts.agents["ag_1"].epoch == 1_000_000
    assert "tk_1" in facts.ended_tasks
    assert "tok_1" in facts.ended_tokens
    assert "jkt_1" in facts.revoked_keys
    assert ("model", "m-1") in facts.stops
    feeder.feed.kept.settle(TWO)  # the server has taken them
    feeder.begin()
    feeder.snapshot(head=head(6, TWO))
    facts = feeder.feed.current().facts
    assert "ag_1" not in facts.agents
    assert facts.stops == set()
