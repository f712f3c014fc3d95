"""Signals from other systems (RFC 8935, RFC 8936): which issuers are believed about which subjects, the effects, and
hostile issuers.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import msgspec
import pytest
from joserfc.jwk import OctKey, RSAKey

from harness.clock import Clock
from harness.registry_fixtures import (
    SECOND,
    create_holding,
    get_agent,
    is_live,
    newest_entry,
    register_agent,
    run_act,
)
from ostiary.protocol.errors import Refused
from ostiaryd.ground.crypto.keyring import RootKey
from ostiaryd.ground.outbound import outbox
from ostiaryd.ground.world import World
from ostiaryd.ledger import store as log
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import AgentId, AgentState, Holding, HoldingId, Verb
from ostiaryd.registry.store import holdings, risks
from ostiaryd.signals import wire_signals, wire_signals_poll
from ostiaryd.signals.flows import issuers, reception, signals
from ostiaryd.signals.model.issuers import EFFECTS_TOPIC, MAX_ISSUERS, IssuerId
from ostiaryd.signals.model.sets import AHEAD, MAX_JTI, MAX_SET_BYTES, OLDEST, Signal, render_set
from ostiaryd.signals.model.streams import KEPT
from ostiaryd.signals.wire_signals import COST, IssuerBuckets
from ostiaryd.tasks import flows as tasks
from ostiaryd.tasks.model import TaskSpec, TaskState
from ostiaryd.trust.flows.access import verify_token
from ostiaryd.trust.model import AccessRefused
from tests.support.identity_provider import AUDIENCE, CAEP, RISC, SSF, Idp, providing
from tests.support.lost_history import lose
from tests.support.signal_fixtures import ask, idp, push, trust, world

__all__ = ["idp", "world"]

EMAIL = {"format": "email", "email": "Alice@example.org"}
SESSION = f"{CAEP}session-revoked"
DISABLED = f"{RISC}account-disabled"
COMPROMISE = f"{RISC}credential-compromise"


def epochs(world: World) -> dict[str, int]:
    return {name: get_agent(world, name).epoch for name in ("writer", "reader", "other")}


def stopped(world: World) -> list[tuple[str, str]]:
    return [(stop.target_kind, stop.value) for stop in registry.list_stops(world.db.read())]


async def start(world: World, agent: str, behalf: str | None) -> str:
    """Start a task of the agent on behalf of a person, and return its id."""
    task = await run_act(world, lambda a: tasks.start(a, TaskSpec(agent=agent, purpose="to work", on_behalf_of=behalf)))
    return task.task_id


async def size(world: World) -> int:
    return log.get_head(world.db.read())[0].size


# ---------------------------------------------------------------------------------------------------- Effects of events


@pytest.mark.parametrize(
    ("event", "claims", "ends", "stops"),
    [
        (SESSION, {}, True, False),
        (f"{RISC}sessions-revoked", {}, True, False),
        (f"{RISC}account-credential-change-required", {}, True, False),
        (f"{CAEP}credential-change", {"credential_type": "password", "change_type": "revoke"}, True, False),
        (f"{CAEP}credential-change", {"credential_type": "app", "change_type": "delete"}, True, False),
        (f"{CAEP}credential-change", {"credential_type": "pin", "change_type": "create"}, False, False),
        (f"{CAEP}credential-change", {"credential_type": "pin", "change_type": "update"}, False, False),
        (DISABLED, {"reason": "hijacking"}, True, True),
        (f"{RISC}account-purged", {}, True, True),
        (COMPROMISE, {"credential_type": "password"}, True, True),
        (f"{RISC}account-enabled", {}, False, False),
        (f"{CAEP}session-established", {}, False, False),
        ("urn:example:unknown", {"change_type": "revoke"}, False, False),
        (f"{CAEP}credential-change", {"change_type": ["revoke"]}, False, False),
    ],
)
async def test_an_event_about_a_person_affects_the_agents_of_the_person(
    world: World, idp: Idp, event: str, claims: dict[str, Any], ends: bool, stops: bool
) -> None:
    made = await trust(world, idp)
    alice = registry.find_person(world.db.read(), "alice").person_id
    await create_holding(world, get_agent(world, "writer"), "tok_hers")
    await create_holding(world, get_agent(world, "other"), "tok_his")
    started = [
        await start(world, name, behalf) for name, behalf in (("writer", None), ("other", "alice"), ("other", "bob"))
    ]
    assert await push(world, made, idp.token(event, EMAIL, claims)) == (202, "")
    assert (is_live(world, "tok_hers"), is_live(world, "tok_his")) == (not ends, True)
    assert epochs(world) == {"writer": int(ends), "reader": int(ends), "other": 0}, "hers, and nobody else's"
    reader = world.db.read()
    live = [tasks.find_task(reader, id).state.value for id in started]
    assert live == (["cancelled", "cancelled", "live"] if ends else ["live"] * 3), "what others do for her ends too"
    assert stopped(world) == ([("owner", alice)] if stops else [])
    assert get_agent(world, "writer").state is AgentState.ACTIVE
    [(_, body)] = log.search_entries(reader, {"action": "signal.receive"}, limit=1)
    entry = json.loads(body)
    assert (entry["person"], entry["detail"]["issuer"]) == (alice, idp.issuer)
    assert entry["detail"].get("effect") == ("stop" if stops else "end" if ends else None)


async def test_a_stop_names_the_issuer_and_a_person_lifts_the_stop(world: World, idp: Idp) -> None:
    made = await trust(world, idp)
    await push(world, made, idp.token(DISABLED, EMAIL))
    await push(world, made, idp.token(DISABLED, EMAIL))
    (stop,) = registry.list_stops(world.db.read())
    assert stop.why == f"account-disabled, according to {idp.issuer}"
    await push(world, made, idp.token(f"{RISC}account-enabled", EMAIL))
    assert len(stopped(world)) == 1, "it is not for the issuer to let go"


@pytest.mark.parametrize(
    ("event", "claims", "points"),
    [
        ("risk-level-change", {"principal": "USER", "current_level": "HIGH"}, 60),
        ("risk-level-change", {"principal": "USER", "current_level": "MEDIUM"}, 30),
        ("risk-level-change", {"principal": "USER", "current_level": "LOW"}, 0),
        ("assurance-level-change", {"change_direction": "decrease", "current_level": "nist-aal1"}, 30),
        ("assurance-level-change", {"change_direction": "increase", "current_level": "nist-aal2"}, 0),
        ("device-compliance-change", {"current_status": "not-compliant"}, 30),
        ("device-compliance-change", {"current_status": "compliant"}, 0),
    ],
)
async def test_an_event_that_lowers_trust_in_a_person_raises_the_risk_of_the_agents(
    world: World, idp: Idp, event: str, claims: dict[str, Any], points: int
) -> None:
    made = await trust(world, idp)
    alice = registry.find_person(world.db.read(), "alice").person_id
    held = Holding(id=HoldingId("tok_p"), kind="token", agent=AgentId(alice), expires_at=world.now() + SECOND)
    await run_act(world, lambda a: holdings.insert_holding(a.tx, held))
    task = await start(world, "other", "alice")
    assert await push(world, made, idp.token(f"{CAEP}{event}", EMAIL, claims)) == (202, "")
    assert is_live(world, "tok_p")
    now, reader = world.now(), world.db.read()
    assert tasks.find_task(reader, task).state.value == "live"
    risk = {name: risks.get_risk(reader, get_agent(world, name).agent_id).points(now) for name in epochs(world)}
    assert risk == {"writer": points, "reader": points, "other": 0}
    assert epochs(world) == {"writer": 0, "reader": 0, "other": 0}


async def test_a_persons_own_tokens_end_with_the_event(world: World, idp: Idp) -> None:
    made = await trust(world, idp)
    alice = registry.find_person(world.db.read(), "alice").person_id
    held = Holding(id=HoldingId("tok_p"), kind="token", agent=AgentId(alice), expires_at=world.now() + SECOND)
    await run_act(world, lambda a: holdings.insert_holding(a.tx, held))
    await push(world, made, idp.token(SESSION, EMAIL))
    assert not is_live(world, "tok_p")


async def test_a_team_without_another_active_member_is_stopped_with_the_person(world: World, idp: Idp) -> None:
    made = await trust(world, idp)
    for name, members in (("alone", ["alice"]), ("both", ["alice", "bob"])):
        await run_act(world, lambda a, n=name, m=members: registry.create_team(a, name=n, members=m))  # type: ignore[misc]
    for name, owner in (("hers", "alone"), ("theirs", "both")):
        await register_agent(world, name, owner=owner)
    await push(world, made, idp.token(COMPROMISE, EMAIL, {"credential_type": "password"}))
    assert (get_agent(world, "hers").epoch, get_agent(world, "theirs").epoch) == (1, 0)
    assert {what for what, _ in stopped(world)} == {"owner"}
    assert len(stopped(world)) == 2


@pytest.mark.parametrize(
    ("event", "claims", "effect"),
    [
        (SESSION, {}, "end"),
        (DISABLED, {}, "stop"),
        (f"{CAEP}risk-level-change", {"principal": "USER", "current_level": "HIGH"}, "raise_risk"),
    ],
)
@pytest.mark.parametrize("most", [1, 2, 3, 4, 5])
async def test_an_event_affects_all_agents_of_a_person_in_acts_of_a_bounded_number(
    world: World, idp: Idp, monkeypatch: pytest.MonkeyPatch, event: str, claims: dict[str, Any], effect: str, most: int
) -> None:
    monkeypatch.setattr(reception, "MAX_AGENTS", most)
    made = await trust(world, idp)
    suspended = await register_agent(world, "suspended")
    await run_act(world, lambda a: registry.set_agent_state(a, suspended.agent_id, Verb.SUSPEND, why="a test"))
    await register_agent(world, "last")
    active = ["writer", "reader", "last"]
    started = {name: await start(world, name, None) for name in active}
    bucket = world.get_singleton(IssuerBuckets).of(made["issuer_id"])
    left = bucket.left

    def is_affected(name: str) -> bool:
        if effect == "raise_risk":
            return registry.get_risk(world.db.read(), get_agent(world, name).agent_id).millis > 0
        task = tasks.get_task(world.db.read(), started[name])
        return task is not None and task.state is TaskState.CANCELLED

    assert await push(world, made, idp.token(event, EMAIL, claims)) == (202, "")
    ids = {name: get_agent(world, name).agent_id for name in (*active, "suspended")}
    first = sorted(ids.values())[:most]
    assert [is_affected(name) for name in active] == [ids[name] in first for name in active]
    assert bool(stopped(world)) is (effect == "stop")
    assert left - bucket.left == (COST + 3) * SECOND
    await reception.continue_effects(world)
    assert all(map(is_affected, active))
    found = log.search_entries(world.db.read(), {"action": "signal.continue"}, limit=9)
    entries = [json.loads(body) for _, body in found]
    assert len(entries) == -(-4 // most) - 1
    assert {(one["object"], one["detail"]["effect"]) for one in entries} <= {(made["issuer_id"], effect)}
    size_before = await size(world)
    await reception.continue_effects(world)
    assert await size(world) == size_before
    raised = 0 if effect == "raise_risk" else 1
    assert [get_agent(world, name).epoch for name in active] == [raised] * 3, "once"
    assert get_agent(world, "suspended").epoch == 1
    assert get_agent(world, "other").epoch == 0


async def test_a_server_in_recovery_continues_the_effect_of_a_signal(
    world: World, idp: Idp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reception, "MAX_AGENTS", 1)
    made = await trust(world, idp)
    await lose(world)
    assert await push(world, made, idp.token(SESSION, EMAIL)) == (202, "")
    await reception.continue_effects(world)
    assert epochs(world) == {"writer": 1, "reader": 1, "other": 0}


async def test_an_issuer_with_too_many_unfinished_effects_is_refused_until_one_is_finished(
    world: World, idp: Idp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reception, "MAX_AGENTS", 1)
    monkeypatch.setattr(reception, "MAX_UNFINISHED", 2)
    made = await trust(world, idp)
    tokens = [idp.token(SESSION, EMAIL) for _ in range(3)]
    assert [(await push(world, made, token))[0] for token in tokens] == [202, 202, 429]
    bob = {"format": "email", "email": "bob@example.org"}
    assert await push(world, made, idp.token(SESSION, bob)) == (202, ""), "nothing is left for a later act"
    await reception.continue_effects(world)
    assert epochs(world) == {"writer": 2, "reader": 2, "other": 1}
    assert await push(world, made, tokens[2]) == (202, "")
    await reception.continue_effects(world)
    assert epochs(world) == {"writer": 3, "reader": 3, "other": 1}


async def test_an_effect_is_deleted_only_after_a_later_act_has_continued_it(
    world: World, idp: Idp, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reception, "MAX_AGENTS", 1)
    made = await trust(world, idp)
    await push(world, made, idp.token(SESSION, EMAIL))
    clock.advance(us=KEPT + 1)
    await register_agent(world, "third")
    await signals.delete_old_signals(world)
    assert sum(epochs(world).values()) == 1
    await reception.continue_effects(world)
    assert epochs(world) == {"writer": 1, "reader": 1, "other": 0}
    clock.advance(us=KEPT + 1)
    await signals.delete_old_signals(world)
    assert outbox.messages_after(world.db.read(), EFFECTS_TOPIC, 0) == []


async def test_an_agent_that_an_event_names_beside_its_owner_is_affected_once(world: World, idp: Idp) -> None:
    made = await trust(world, idp, agents=True)
    writer = get_agent(world, "writer").agent_id
    ours = {"format": "iss_sub", "iss": world.config.issuer, "sub": writer}
    subject = {"format": "aliases", "identifiers": [EMAIL, ours]}
    claims = {"principal": "USER", "current_level": "HIGH"}
    await push(world, made, idp.token(f"{CAEP}risk-level-change", subject, claims))
    reader = get_agent(world, "reader").agent_id
    points = [registry.get_risk(world.db.read(), agent).millis for agent in (writer, reader)]
    assert points[0] == points[1] > 0


async def test_if_the_server_may_add_no_other_stop_all_agents_of_the_person_are_quarantined_instead(
    world: World, idp: Idp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ostiaryd.registry.model.stop.MAX_OURS", 1)
    monkeypatch.setattr(reception, "MAX_AGENTS", 1)
    await run_act(world, lambda a: registry.stop(a, "segment", "inner", why="a test", by=None))
    made = await trust(world, idp)
    assert await push(world, made, idp.token(DISABLED, EMAIL)) == (202, "")
    assert stopped(world) == [("segment", "inner")]
    await reception.continue_effects(world)
    states = {name: get_agent(world, name).state for name in ("writer", "reader", "other")}
    assert states == {"writer": AgentState.QUARANTINED, "reader": AgentState.QUARANTINED, "other": AgentState.ACTIVE}


# ---------------------------------------------------------------------------------------------------- Of whom it speaks


@pytest.mark.parametrize(
    ("subject", "is_hers"),
    [
        (EMAIL, True),
        ({"format": "complex", "user": EMAIL, "session": {"format": "opaque", "id": "x"}}, True),
        ({"format": "aliases", "identifiers": [{"format": "opaque", "id": "x"}, EMAIL]}, True),
        ({"format": "complex", "session": EMAIL}, False),
        ({"format": "complex", "device": {"format": "opaque", "id": "x"}}, False),
        ({"format": "email", "email": "alice@other.example"}, False),
        ({"format": "email", "email": "alice@example.org.evil.example"}, False),
        ({"format": "email", "email": "alice@evil.example@example.org"}, False),
        ({"format": "account", "uri": "acct:alice@example.org"}, False),
        ({"format": "opaque", "id": "alice@example.org"}, False),
        ({"format": "of.ours", "email": "alice@example.org"}, False),
    ],
)
async def test_an_issuer_may_speak_for_mail_addresses_in_its_domains(
    world: World, idp: Idp, subject: dict[str, Any], is_hers: bool
) -> None:
    made = await trust(world, idp)
    assert await push(world, made, idp.token(SESSION, subject)) == (202, "")
    assert epochs(world)["writer"] == int(is_hers)


async def test_an_issuer_without_a_domain_may_speak_for_no_mail_address(world: World, idp: Idp) -> None:
    made = await trust(world, idp, domains=[])
    await push(world, made, idp.token(SESSION, EMAIL))
    assert epochs(world)["writer"] == 0


async def test_a_sub_identifies_the_person_that_an_administrator_linked(world: World, idp: Idp) -> None:
    made = await trust(world, idp, domains=[])
    id = made["issuer_id"]
    subject = {"format": "iss_sub", "iss": idp.issuer, "sub": "0042|x"}
    await push(world, made, idp.token(SESSION, subject))
    assert epochs(world)["writer"] == 0
    status, said = await ask(world, "POST", f"/issuers/{id}/links", {"sub": "0042|x", "person": "alice"})
    assert (status, said["sub"]) == (200, "0042|x")
    status, said = await ask(world, "GET", f"/issuers/{id}/links?limit=1")
    assert (said["links"][0]["sub"], said["next"]) == ("0042|x", "0042|x")
    await push(world, made, idp.token(SESSION, subject | {"iss": "https://another.example"}))
    assert epochs(world)["writer"] == 0, "it speaks of its own alone"
    await push(world, made, idp.token(SESSION, subject))
    assert epochs(world)["writer"] == 1
    assert (await ask(world, "POST", f"/issuers/{id}/unlink", {"sub": "0042|x"}))[0] == 200
    assert (await ask(world, "POST", f"/issuers/{id}/unlink", {"sub": "0042|x"}))[0] == 404
    await push(world, made, idp.token(SESSION, subject))
    assert epochs(world)["writer"] == 1
    for wrong in ("", "x" * 1001, "a\nb"):
        assert (await ask(world, "POST", f"/issuers/{id}/links", {"sub": wrong, "person": "alice"}))[0] == 422
    assert (await ask(world, "POST", f"/issuers/{id}/links", {"sub": "x" * 1000, "person": "alice"}))[0] == 200
    assert (await ask(world, "POST", f"/issuers/{id}/links", {"sub": "x", "person": "nobody"}))[0] == 404


@pytest.mark.parametrize("may", [True, False])
async def test_only_a_permitted_issuer_affects_agents_and_a_quarantined_agent_waits_for_a_person(
    world: World, idp: Idp, may: bool
) -> None:
    made = await trust(world, idp, agents=may)
    ours = {"format": "iss_sub", "iss": world.config.issuer, "sub": get_agent(world, "other").agent_id}
    await push(world, made, idp.token(SESSION, ours))
    assert (get_agent(world, "other").epoch, get_agent(world, "other").state) == (int(may), AgentState.ACTIVE)
    await push(world, made, idp.token(COMPROMISE, ours, {"credential_type": "app"}))
    assert get_agent(world, "other").state is (AgentState.QUARANTINED if may else AgentState.ACTIVE)
    assert get_agent(world, "writer").epoch == 0


async def test_a_subject_with_an_unknown_critical_member_is_discarded(world: World, idp: Idp) -> None:
    idp.changed = {"critical_subject_members": ["tenant", "user"]}
    made = await trust(world, idp)
    tenant = {"format": "opaque", "id": "1"}
    await push(world, made, idp.token(SESSION, {"format": "complex", "user": EMAIL, "tenant": tenant}))
    assert epochs(world)["writer"] == 0
    await push(world, made, idp.token(SESSION, {"format": "complex", "user": EMAIL, "group": tenant}))
    assert epochs(world)["writer"] == 1


# -------------------------------------------------------------------------------------------------------------- Hostile


async def test_a_push_without_the_secret_of_the_stream_is_refused(world: World, idp: Idp) -> None:
    made = await trust(world, idp)
    token = idp.token(SESSION, EMAIL)
    for shows in ("", "Bearer", "Bearer x", made["authorization_header"] + " ", made["authorization_header"].lower()):
        assert await push(world, made, token, shows=shows) == (400, "authentication_failed")
        assert newest_entry(world).outcome == "refused"
    assert (await push(world, made, token, id="is_" + "0" * 32))[0] == 404
    assert epochs(world)["writer"] == 0
    assert await push(world, made, token) == (202, "")


WRONG: list[tuple[str, dict[str, Any]]] = [
    ("invalid_request", {"header": {"typ": "JWT"}}),
    ("invalid_request", {"header": {"typ": None}}),
    ("invalid_request", {"header": {"typ": "at+jwt"}}),
    ("invalid_issuer", {"iss": "https://another.example"}),
    ("invalid_issuer", {"iss": None}),
    ("invalid_audience", {"aud": "https://another.example"}),
    ("invalid_audience", {"aud": ["https://another.example"]}),
    ("invalid_audience", {"aud": None}),
    ("invalid_request", {"sub": "alice"}),
    ("invalid_request", {"exp": 1_900_000_000}),
    ("invalid_request", {"iat": None}),
    ("invalid_request", {"iat": "now"}),
    ("invalid_request", {"iat": 1_800_000_000_000}),
    ("invalid_request", {"iat": 1_800_000_000 + AHEAD // SECOND + 1}),
    ("invalid_request", {"iat": 1_800_000_000 - OLDEST // SECOND}),
    ("invalid_request", {"jti": None}),
    ("invalid_request", {"jti": ""}),
    ("invalid_request", {"jti": "x" * (MAX_JTI + 1)}),
    ("invalid_request", {"jti": 7}),
    ("invalid_request", {"events": None}),
    ("invalid_request", {"events": {}}),
    ("invalid_request", {"events": {SESSION: {}, DISABLED: {}}}),
    ("invalid_request", {"events": {SESSION: "now"}}),
    ("invalid_request", {"events": [SESSION]}),
    ("invalid_request", {"sub_id": None}),
    ("invalid_request", {"sub_id": "alice"}),
    ("invalid_request", {"sub_id": {"email": "alice@example.org"}}),
    ("invalid_request", {"sub_id": {"format": "email"}}),
    ("invalid_request", {"sub_id": {"format": "email", "email": ["alice@example.org"]}}),
    ("invalid_request", {"sub_id": {"format": "email", "email": "x" * 1001}}),
    ("invalid_request", {"sub_id": {"format": "complex"}}),
    ("invalid_request", {"sub_id": {"format": "complex", "user": "alice"}}),
    ("invalid_request", {"sub_id": {"format": "complex", "user": {"format": "complex", "user": EMAIL}}}),
    ("invalid_request", {"sub_id": {"format": "aliases", "identifiers": []}}),
    ("invalid_request", {"sub_id": {"format": "aliases", "identifiers": [EMAIL] * 21}}),
    (
        "invalid_request",
        {"sub_id": {"format": "aliases", "identifiers": [{"format": "aliases", "identifiers": [EMAIL]}]}},
    ),
    ("invalid_request", {"pad": "x" * MAX_SET_BYTES}),
    ("authentication_failed", {"key": RSAKey.generate_key(2048, {"kid": "key-0"})}),
    ("invalid_key", {"key": RSAKey.generate_key(2048, {"kid": "key-9"})}),
    ("invalid_key", {"key": OctKey.generate_key(256, {"kid": "key-0"}), "header": {"alg": "HS256"}}),
]
RIGHT: list[dict[str, Any]] = [
    {"header": {"typ": "application/SecEvent+JWT"}},
    {"header": {"kid": None}},
    {"aud": [AUDIENCE, "https://another.example"]},
    {"iat": 1_800_000_000 + AHEAD // SECOND},
    {"iat": 1_800_000_000 - OLDEST // SECOND + 1},
    {"jti": "x" * MAX_JTI},
    {"txn": None},
    {"more": {"that": "we do not know"}},
    {"sub_id": {"format": "aliases", "identifiers": [EMAIL] * 20}},
]


async def test_each_defect_of_a_token_has_its_code_and_no_effect(
    world: World, idp: Idp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ostiaryd.ledger.model.sampling.FULL_OF_NETWORK", 1000)
    monkeypatch.setattr("ostiaryd.ledger.model.sampling.FULL_OF_STRANGERS", 1000)
    made = await trust(world, idp)
    for code, changed in WRONG:
        before = await size(world)
        assert await push(world, made, idp.token(SESSION, EMAIL, **dict(changed))) == (400, code), changed
        assert (newest_entry(world).outcome, await size(world)) == ("refused", before + 1), "and is on record"
    for body in (b"", b"x", b"a.b.c", b"\xff" * 9, b"{}", idp.token(SESSION, EMAIL).encode()[:-4]):
        assert (await push(world, made, body))[0] == 400, body
    assert await push(world, made, idp.token(SESSION, EMAIL), kind="application/json") == (400, "invalid_request")
    assert epochs(world) == {"writer": 0, "reader": 0, "other": 0}
    for number, changed in enumerate(RIGHT, 1):
        assert await push(world, made, idp.token(SESSION, EMAIL, **dict(changed))) == (202, ""), changed
        assert epochs(world)["writer"] == number


async def test_an_access_token_is_not_accepted_as_a_signal_nor_a_signal_as_an_access_token(
    world: World, idp: Idp
) -> None:
    """Both are signed by keys of one JWKS."""
    key = world.keys.signer("token", "RS256")
    ours = render_set(
        Signal(event=SESSION, subject=EMAIL),
        issuer=world.config.issuer,
        audience=world.config.api,
        jti="1",
        at=world.now(),
        key=key,
    )
    with pytest.raises(AccessRefused):
        verify_token(ours, keys=world.keys)


async def test_a_repeated_token_is_accepted_without_effect(world: World, idp: Idp) -> None:
    made = await trust(world, idp)
    token = idp.token(SESSION, EMAIL)
    assert await push(world, made, token) == (202, "")
    before = await size(world)
    assert await push(world, made, token) == (202, "")
    assert (epochs(world)["writer"], await size(world)) == (1, before)


async def test_two_equal_tokens_at_once_have_one_effect(world: World, idp: Idp) -> None:
    made = await trust(world, idp)
    token = idp.token(SESSION, EMAIL)
    assert await asyncio.gather(*(push(world, made, token) for _ in range(5))) == [(202, "")] * 5
    assert epochs(world)["writer"] == 1


async def test_a_token_is_remembered_for_as_long_as_it_would_be_accepted(world: World, idp: Idp, clock: Clock) -> None:
    made = await trust(world, idp)
    token = idp.token(SESSION, EMAIL)
    await push(world, made, token)
    clock.advance(us=OLDEST - 1)
    await reception.forget_received(world)
    assert await push(world, made, token) == (202, "")
    assert epochs(world)["writer"] == 1
    clock.advance(us=1)
    assert await push(world, made, token) == (400, "invalid_request")
    clock.advance(us=AHEAD)
    await reception.forget_received(world)
    assert await push(world, made, token) == (400, "invalid_request")


async def test_two_issuers_may_use_the_same_jti(world: World, idp: Idp) -> None:
    with providing() as other:
        one, two = await trust(world, idp), await trust(world, other)
        for made, at in ((one, idp), (two, other)):
            assert await push(world, made, at.token(SESSION, EMAIL, jti="same")) == (202, "")
        assert epochs(world)["writer"] == 2
        assert await push(world, two, idp.token(SESSION, EMAIL)) == (400, "invalid_issuer")


# ----------------------------------------------------------------------------------------------------------------- Keys


async def test_a_new_key_is_fetched_at_its_first_use_and_at_most_once_a_minute(
    world: World, idp: Idp, clock: Clock
) -> None:
    made = await trust(world, idp)
    old, new = idp.published[0], RSAKey.generate_key(2048, {"kid": "new", "use": "sig", "alg": "RS256"})
    assert await push(world, made, idp.token(SESSION, EMAIL, key=new)) == (400, "invalid_key")
    fetched = idp.paths("/keys")
    idp.published = [old, new]
    clock.advance(60, us=-1)
    for _ in range(3):
        assert await push(world, made, idp.token(SESSION, EMAIL, key=new)) == (400, "invalid_key")
    assert idp.paths("/keys") == fetched, "who throws `kid`s has us fetch nothing"
    clock.advance(us=1)
    assert await push(world, made, idp.token(SESSION, EMAIL, key=new)) == (202, "")
    assert idp.paths("/keys") == fetched + 1


async def test_a_withdrawn_key_is_accepted_for_at_most_an_hour(world: World, idp: Idp, clock: Clock) -> None:
    made = await trust(world, idp)
    old, new = idp.published[0], RSAKey.generate_key(2048, {"kid": "new", "use": "sig", "alg": "RS256"})
    assert await push(world, made, idp.token(SESSION, EMAIL)) == (202, "")
    idp.published = [new]
    clock.advance(3600, us=-1)
    assert await push(world, made, idp.token(SESSION, EMAIL, key=old)) == (202, "")
    clock.advance(us=1)
    assert await push(world, made, idp.token(SESSION, EMAIL, key=old)) == (400, "invalid_key")


async def test_an_issuer_that_is_trusted_again_has_its_present_keys(world: World, idp: Idp) -> None:
    made = await trust(world, idp)
    old = idp.published[0]
    assert await push(world, made, idp.token(SESSION, EMAIL)) == (202, "")
    assert (await ask(world, "DELETE", f"/issuers/{made['issuer_id']}"))[0] == 200
    idp.published = [RSAKey.generate_key(2048, {"kid": str(old.kid), "use": "sig", "alg": "RS256"})]
    made = await trust(world, idp)
    assert await push(world, made, idp.token(SESSION, EMAIL, key=old)) == (400, "authentication_failed")
    assert await push(world, made, idp.token(SESSION, EMAIL, key=idp.published[0])) == (202, "")


async def test_a_token_whose_key_cannot_be_fetched_is_to_be_sent_again(world: World, idp: Idp, clock: Clock) -> None:
    made = await trust(world, idp)
    idp.status = 500
    assert (await push(world, made, idp.token(SESSION, EMAIL)))[0] == 503
    assert epochs(world)["writer"] == 0
    idp.status = 200
    assert await push(world, made, idp.token(SESSION, EMAIL)) == (202, "")


# ------------------------------------------------------------------------------------------------------ Trust, distrust


@pytest.mark.parametrize(("method", "end"), [("push", "omit `authorization`"), ("poll", "set `endpoint`")])
async def test_the_hint_for_an_issuer_without_metadata_says_how_to_make_the_stream(
    world: World, method: str, end: str
) -> None:
    body = {"issuer": "https://a.example", "jwks_uri": "https://a.example/keys", "authorization": "Bearer x"}
    status, refused = await ask(world, "POST", "/issuers", body | {"method": method})
    hint = f"omit `jwks_uri`; or create the stream at the issuer, and {end}"
    assert (status, refused["hint"]) == (422, hint)


async def test_the_metadata_and_the_settings_of_an_issuer_are_checked(world: World, idp: Idp) -> None:
    for changed, code in (
        ({"issuer": "https://another.example"}, 422),
        ({"jwks_uri": None}, 422),
        ({"jwks_uri": 7}, 422),
        ({"jwks_uri": "http://localhost/keys"}, 422),
        ({"jwks_uri": "https://localhost:1/keys"}, 503),
        ({"jwks_uri": f"{idp.issuer}/nothing"}, 503),
        ({"configuration_endpoint": "ftp://x"}, 422),
    ):
        idp.changed = changed
        assert (await ask(world, "POST", "/issuers", {"issuer": idp.issuer}))[0] == code, changed
    idp.changed = {}
    for wrong in (
        {"issuer": "http://idp.example"},
        {"issuer": f"{idp.issuer}?x=1"},
        {"domains": ["exa mple.org"]},
        {"domains": ["org"]},
        {"domains": [f"d{n}.example" for n in range(33)]},
        {"audience": "x" * 1001},
        {"authorization": "Bearer ü"},
        {"method": "poll"},
        {"method": "poll", "endpoint": "http://localhost/poll"},
    ):
        assert (await ask(world, "POST", "/issuers", {"issuer": idp.issuer} | wrong))[0] == 422, wrong
    assert (await ask(world, "POST", "/issuers", {"issuer": "https://localhost:1"}))[0] == 503
    idp.status = 500
    assert (await ask(world, "POST", "/issuers", {"issuer": idp.issuer}))[0] == 503
    assert (await ask(world, "GET", "/issuers"))[1] == {"issuers": [], "next": None}
    idp.status = 404
    status, _ = await ask(world, "POST", "/issuers", {"issuer": idp.issuer, "jwks_uri": f"{idp.issuer}/keys"})
    assert status == 503, "its keys have to be there"


async def test_a_member_of_the_metadata_or_the_request_is_refused_with_its_fault(world: World, idp: Idp) -> None:
    cases: list[tuple[dict[str, object], dict[str, str], str]] = [
        ({"issuer": None}, {}, "the metadata of the issuer (ssf-configuration) lack a text `issuer`"),
        ({"issuer": 7}, {}, "the metadata of the issuer (ssf-configuration) lack a text `issuer`"),
        (
            {"issuer": "https://a.example"},
            {},
            "the metadata (ssf-configuration) name the issuer 'https://a.example', not",
        ),
        ({"jwks_uri": None}, {}, "`jwks_uri` is missing in the request and in the metadata of the issuer"),
        ({"jwks_uri": 7}, {}, "`jwks_uri` of the issuer is not a text"),
        ({"jwks_uri": ""}, {}, "`jwks_uri` must be http(s)://"),
        ({"verification_endpoint": 7}, {}, "`verification_endpoint` of the issuer is not a text"),
        ({"configuration_endpoint": None}, {"authorization": "Bearer x"}, "`configuration_endpoint` is missing in the"),
        (
            {},
            {"authorization": "Bearer x", "jwks_uri": "https://a.example/keys"},
            "with `jwks_uri`, this server cannot",
        ),
        ({}, {"authorization": "Bearer x\n"}, "`authorization` must have at most"),
    ]
    for changed, more, message in cases:
        idp.changed = changed
        status, refused = await ask(world, "POST", "/issuers", {"issuer": idp.issuer} | more)
        assert (status, refused["message"][: len(message)]) == (422, message), changed


@pytest.mark.parametrize(
    ("named", "message"),
    [
        (None, "the stream that the issuer created lacks a text `iss`"),
        (7, "the stream that the issuer created lacks a text `iss`"),
        ("https://a.example", "the stream that the issuer created names the issuer 'https://a.example' (`iss`)"),
    ],
)
async def test_a_stream_without_the_issuer_is_refused_with_its_fault(
    world: World, idp: Idp, named: object, message: str
) -> None:
    idp.made = {"iss": named}
    _, refused = await ask(world, "POST", "/issuers", {"issuer": idp.issuer, "authorization": "Bearer x"})
    assert refused["message"] == message


async def test_an_issuer_without_metadata_is_trusted_by_its_keys(world: World, idp: Idp) -> None:
    made = await trust(world, idp, jwks_uri=f"{idp.issuer}/keys")
    assert idp.paths("/.well-known/ssf-configuration") == 0
    assert made["endpoint_url"] == f"{world.config.api}/signals/{made['issuer_id']}"
    assert await push(world, made, idp.token(SESSION, EMAIL)) == (202, "")


async def test_with_an_authorization_the_server_creates_the_stream(
    world: World, idp: Idp, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await trust(world, idp, authorization="Bearer swordfish")
    ((_, _, headers, body),) = [asked for asked in idp.asked if asked[:2] == ("POST", "/streams")]
    assert headers["authorization"] == "Bearer swordfish"
    assert body["delivery"] == {
        "method": "urn:ietf:rfc:8935",
        "endpoint_url": made["endpoint_url"],
        "authorization_header": made["authorization_header"],
    }
    assert SESSION in body["events_requested"]
    assert COMPROMISE in body["events_requested"]
    kept = issuers.find(world.db.read(), idp.issuer)
    assert b"swordfish" not in (kept.sealed or b"")
    monkeypatch.setattr(world.keys, "root", RootKey(b"n" * 32, source="test"))
    assert issuers.open_authorization(kept, world.keys) == "Bearer swordfish", "also after the root key was replaced"
    assert made["authorization_header"].encode() not in (kept.secret_digest or b"")
    assert "swordfish" not in str(newest_entry(world))
    assert "swordfish" not in str(await ask(world, "GET", "/issuers"))


@pytest.mark.parametrize(
    ("there", "said", "audience"),
    [
        (AUDIENCE, "", AUDIENCE),
        (["a", "b"], "b", "b"),
        (["a", "b"], "", None),
        (["a", "b"], "c", None),
        ("a", "c", None),
        (None, "c", "c"),
        (None, "", AUDIENCE),
    ],
)
async def test_the_audience_is_chosen_from_the_audiences_of_the_stream(
    world: World, idp: Idp, there: Any, said: str, audience: str | None
) -> None:
    idp.made = {"aud": there}
    body = {"issuer": idp.issuer, "authorization": "Bearer x", "audience": said}
    status, made = await ask(world, "POST", "/issuers", body)
    assert (status, made.get("audience")) == ((201, audience) if audience else (422, None))


async def test_the_number_of_issuers_is_limited_and_each_is_trusted_once(world: World, idp: Idp) -> None:
    made = await trust(world, idp)
    assert (await ask(world, "POST", "/issuers", {"issuer": idp.issuer}))[1]["error"] == "issuer_exists"
    known = issuers.find(world.db.read(), made["issuer_id"])

    def fill(act: Any) -> None:
        for number in range(MAX_ISSUERS - 2):
            id, url = f"is_{number}", f"https://{number}.example"
            issuers.trust(act, msgspec.structs.replace(known, issuer_id=IssuerId(id), issuer=url), "")

    await run_act(world, fill)
    with providing() as last, providing() as more:
        await trust(world, last)
        assert (await ask(world, "POST", "/issuers", {"issuer": more.issuer}))[1]["error"] == "too_many_issuers"


async def test_a_distrusted_issuer_is_not_believed_and_its_stream_is_ended(world: World, idp: Idp) -> None:
    made = await trust(world, idp, authorization="Bearer x")
    await ask(world, "POST", f"/issuers/{made['issuer_id']}/links", {"sub": "x", "person": "alice"})
    assert await ask(world, "DELETE", f"/issuers/{made['issuer_id']}") == (200, {"stream_ended": True})
    assert idp.asked[-1][:2] == ("DELETE", "/streams")
    assert (await push(world, made, idp.token(SESSION, EMAIL)))[0] == 404
    assert epochs(world)["writer"] == 0
    again = await trust(world, idp)
    assert (await ask(world, "GET", f"/issuers/{again['issuer_id']}/links"))[1]["links"] == []
    assert await ask(world, "DELETE", f"/issuers/{again['issuer_id']}") == (200, {"stream_ended": False})
    assert (await ask(world, "DELETE", f"/issuers/{again['issuer_id']}"))[0] == 404


async def test_a_token_in_flight_when_its_issuer_is_distrusted_has_no_effect(world: World, idp: Idp) -> None:
    made = await trust(world, idp)
    known = issuers.find(world.db.read(), made["issuer_id"])
    event = await wire_signals.verify_token(world, known, idp.token(SESSION, EMAIL))
    await ask(world, "DELETE", f"/issuers/{made['issuer_id']}")
    with pytest.raises(Refused) as refused:
        await run_act(world, lambda a: reception.apply_event(a, known.issuer_id, event, config=world.config))
    assert refused.value.code == "invalid_issuer"
    assert epochs(world)["writer"] == 0


# ------------------------------------------------------------------------------------------- Events about the stream


async def test_a_requested_verification_is_recognised_by_its_state(world: World, idp: Idp) -> None:
    made = await trust(world, idp, authorization="Bearer x")
    assert (await ask(world, "POST", f"/issuers/{made['issuer_id']}/verify", {}))[0] == 200
    (asked,) = [body for _, path, _, body in idp.asked if path == "/verify"]
    assert asked["stream_id"] == "s-1"
    subject, event = {"format": "opaque", "id": "s-1"}, f"{SSF}verification"
    wrong = idp.token(event, subject, {"state": "x" * 32})
    assert await push(world, made, wrong) == (400, "invalid_state")
    other = idp.token(event, subject | {"id": "s-2"}, {"state": asked["state"]})
    assert await push(world, made, other) == (400, "invalid_request")
    assert issuers.find(world.db.read(), idp.issuer).verified_at is None
    assert await push(world, made, idp.token(event, subject, {"state": asked["state"]})) == (202, "")
    assert issuers.find(world.db.read(), idp.issuer).verified_at == world.now()
    again = idp.token(event, subject, {"state": asked["state"]})
    assert await push(world, made, again) == (400, "invalid_state"), "it was for once"
    assert await push(world, made, idp.token(event, subject)) == (202, ""), "one that nobody asked for has no state"


async def test_an_issuer_without_an_authorization_is_not_asked_to_verify(world: World, idp: Idp) -> None:
    made = await trust(world, idp)
    assert (await ask(world, "POST", f"/issuers/{made['issuer_id']}/verify", {}))[0] == 409


async def test_a_stream_that_its_transmitter_stopped_is_reported(world: World, idp: Idp) -> None:
    made = await trust(world, idp)
    subject, event = {"format": "opaque", "id": "s-1"}, f"{SSF}stream-updated"
    assert issuers.describe_problems(world.db.read()) == []
    assert await push(world, made, idp.token(event, subject, {"status": "paused"})) == (202, "")
    assert issuers.describe_problems(world.db.read()) == [f"{idp.issuer}: the stream is paused"]
    assert await push(world, made, idp.token(event, subject, {"status": "enabled"})) == (202, "")
    assert issuers.describe_problems(world.db.read()) == []


# ----------------------------------------------------------------------------------------------------- Delivery by poll


async def poll(world: World) -> None:
    """Run one round of polls, and wait until all of them have ended."""
    await wire_signals_poll.poll_due(world)
    await asyncio.gather(*world.get_singleton(wire_signals_poll.Pollers).running.values())


async def test_waiting_signals_are_fetched_and_acknowledged_and_wrong_signals_are_reported(
    world: World, idp: Idp
) -> None:
    await trust(world, idp, method="poll", authorization="Bearer swordfish")
    right, wrong = idp.token(SESSION, EMAIL), idp.token(SESSION, EMAIL, aud="https://another.example")
    idp.waiting = {"event-1": right, "event-2": wrong}
    await poll(world)
    assert epochs(world)["writer"] == 1
    assert idp.waiting == {}
    asked = [(headers, body) for _, path, headers, body in idp.asked if path == "/poll"]
    assert [body["ack"] for _, body in asked] == [[], ["event-1"]]
    assert asked[1][1]["setErrs"]["event-2"]["err"] == "invalid_audience"
    assert {headers["authorization"] for headers, _ in asked} == {"Bearer swordfish"}
    assert {headers["content-language"] for headers, _ in asked} == {"en"}
    assert asked[0][1]["returnImmediately"] is False


async def test_an_applied_signal_without_acknowledgement_arrives_again_and_has_one_effect(
    world: World, idp: Idp
) -> None:
    await trust(world, idp, method="poll", authorization="Bearer x")
    token = idp.token(SESSION, EMAIL)
    idp.waiting = {"event-1": token}
    await poll(world)
    world.get_singleton(wire_signals_poll.Pollers).owed.clear()
    idp.waiting = {"event-1": token}
    await poll(world)
    await poll(world)
    assert (epochs(world)["writer"], idp.waiting) == (1, {})


async def test_a_poll_ends_when_an_issuer_repeats_itself_or_never_stops(world: World, idp: Idp) -> None:
    await trust(world, idp, method="poll", authorization="Bearer x")
    idp.answer = {"sets": {"event-1": idp.token(SESSION, EMAIL)}}
    await poll(world)
    assert idp.paths("/poll") == 2, "the second time there is no news"
    idp.answer = {"sets": {"bad": "x"}}
    await poll(world)
    assert idp.paths("/poll") == 3
    idp.talks = True
    await poll(world)
    assert idp.paths("/poll") == 3 + wire_signals_poll.ROUNDS


@pytest.mark.parametrize(
    "answer",
    [
        [],
        {},
        {"sets": []},
        {"sets": {"1": 2}},
        {"sets": {str(number): "x" for number in range(51)}},
        {"sets": {"1": "x" * wire_signals_poll.MAX_ANSWER}},
    ],
)
async def test_a_malformed_poll_response_has_no_effect_and_is_reported(
    world: World, idp: Idp, clock: Clock, answer: Any
) -> None:
    await trust(world, idp, method="poll", authorization="Bearer x")
    idp.answer = answer
    await poll(world)
    known = issuers.find(world.db.read(), idp.issuer)
    assert (known.attempts, known.due_at) == (1, world.now() + SECOND)
    assert len(issuers.describe_problems(world.db.read())) == 1
    before = idp.paths("/poll")
    await poll(world)
    assert idp.paths("/poll") == before, "it is not due"
    idp.answer = None
    clock.advance(1)
    await poll(world)
    assert issuers.describe_problems(world.db.read()) == []


async def test_a_signal_that_cannot_be_verified_now_is_not_acknowledged(world: World, idp: Idp, clock: Clock) -> None:
    await trust(world, idp, method="poll", authorization="Bearer x")
    idp.waiting = {"event-1": idp.token(SESSION, EMAIL)}
    idp.status = 500
    await poll(world)
    assert len(idp.waiting) == 1
    idp.status = 200
    clock.advance(1)
    await poll(world)
    assert (epochs(world)["writer"], idp.waiting) == (1, {})


async def test_two_servers_on_one_database_do_not_poll_at_once(world: World, idp: Idp) -> None:
    await trust(world, idp, method="poll", authorization="Bearer x")
    known = issuers.find(world.db.read(), idp.issuer)
    await asyncio.gather(*(wire_signals_poll.poll_once(world, known) for _ in range(2)))
    assert idp.paths("/poll") == 1


async def test_a_poll_endpoint_can_be_stated_by_an_administrator(world: World, idp: Idp) -> None:
    await trust(world, idp, method="poll", endpoint=f"{idp.issuer}/poll", authorization="Bearer x")
    assert idp.paths("/streams") == 0
    idp.waiting = {"event-1": idp.token(SESSION, EMAIL)}
    await poll(world)
    assert epochs(world)["writer"] == 1


async def test_a_polled_issuer_cannot_push(world: World, idp: Idp) -> None:
    made = await trust(world, idp, method="poll", authorization="Bearer x")
    assert (await push(world, made | {"authorization_header": ""}, idp.token(SESSION, EMAIL)))[0] == 404
