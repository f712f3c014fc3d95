"""Findings of one guard: with the agent's own proof of the call they quarantine the agent, without it they do not."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from harness.clock import Clock
from harness.registry_fixtures import SECOND, create_holding, get_agent, new_jwk, register_agent, run_act
from ostiary.decision.report import CallRecord, Report
from ostiary.protocol import dpop, jose
from ostiaryd.feed.flows import take_report
from ostiaryd.ground.world import World
from ostiaryd.incidents import store as incidents
from ostiaryd.incidents.flows.respond import UNBACKED, responder
from ostiaryd.incidents.model.incidents import Outcome
from ostiaryd.ledger import store as ledger
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Agent, AgentState
from ostiaryd.registry.store import risks
from ostiaryd.watch import flows, store
from ostiaryd.watch.flows.evidence import EVIDENCE_US, FRESH_US, forget_evidence
from ostiaryd.watch.flows.findings import MAX_CLAIMED, UNPROVED
from ostiaryd.watch.model import Finding, Sighting

URI, OTHER = "https://files.example/mcp", "https://bank.example/mcp"
TOKEN = "header.claims.signature"


class Stage:
    """An agent with a token for two guarded resources, each of which reports."""

    def __init__(self, world: World, agent: Agent, key: jose.PrivateKey, guards: dict[str, str]) -> None:
        self.world, self.agent, self.key, self.guards = world, agent, key, guards
        self._next = dict.fromkeys(guards, 1)

    def proof(self, *, uri: str = URI, jti: str = "1", key: jose.PrivateKey | None = None, **said: Any) -> str:
        given: dict[str, Any] = {"method": "POST", "now": self.world.now(), "access_token": TOKEN} | said
        return dpop.make_proof(key or self.key, uri=uri, jti=jti, **given)

    async def report(self, proof: str, *, uri: str = URI) -> int:
        """A call at the guard of `uri`; the number of its entry."""
        record = CallRecord(
            at=self.world.now(),
            token=f"tok_{uri}",
            agent=self.agent.agent_id,
            tool="decoy",
            outcome="allow",
            verdict="allow",
            proof=proof,
        )
        report = Report(spool=f"{len(uri):032x}", first=self._next[uri], records=[record])
        self._next[uri] += 1
        await run_act(self.world, lambda a: take_report(a, report, resource_id=self.guards[uri]), "feed.report")
        return ledger.get_head(self.world.db.read())[0].size - 1

    async def find(self, number: int, *, uri: str = URI, points: int = 80, detector: str = "canary") -> Finding:
        """The findings of the detectors about that entry, and their consequences."""
        sighting = Sighting(
            number,
            self.world.now(),
            detector,
            self.agent.agent_id,
            "",
            uri,
            points,
            2.0,
            "it called a decoy",
            (number,),
        )
        found = await run_act(
            self.world, lambda a: flows.record_sighting(a, sighting, responder(self.world.config)), "watch.find"
        )
        assert found is not None
        return found

    @property
    def state(self) -> AgentState:
        return get_agent(self.world, self.agent.name).state

    @property
    def risk(self) -> int:
        return risks.get_risk(self.world.db.read(), self.agent.agent_id).points(self.world.now())


@pytest.fixture
async def stage(world: World) -> Stage:
    key = jose.generate("ES256")
    agent = await register_agent(world, has_key=False)
    await run_act(world, lambda a: registry.add_key(a, agent.agent_id, dict(key.public.jwk)))
    for number in range(20):  # of a fleet, so that one agent may be stopped
        await register_agent(world, f"other{number}")
    guards: dict[str, str] = {}
    for name, uri in (("files", URI), ("bank", OTHER)):
        create = partial(registry.create_resource, name=name, uri=uri, jwk=new_jwk())
        guards[uri] = (await run_act(world, create)).resource_id
        jkt, ath = key.public.thumbprint, dpop.hash_token(TOKEN)
        await create_holding(world, agent, f"tok_{uri}", seconds=7200, audience=uri, jkt=jkt, ath=ath)
    return Stage(world, get_agent(world, "bot"), key, guards)


@pytest.mark.parametrize("said", [{}, {"uri": URI + "/sessions"}, {"method": "GET"}])
async def test_a_canary_finding_with_a_proof_of_the_agent_quarantines_the_agent_at_once(
    stage: Stage, said: dict[str, Any]
) -> None:
    found = await stage.find(await stage.report(stage.proof(**said)))
    assert (found.is_proved, found.says) == (True, "it called a decoy")
    assert stage.state is AgentState.QUARANTINED
    kept = store.findings.get(stage.world.db.read(), found.finding_id)
    assert kept is not None
    assert kept.is_proved


def _bad(stage: Stage) -> dict[str, str]:
    other = jose.generate("ES256")
    good, now = stage.proof(), stage.world.now()
    return {
        "nothing": "",
        "no JWS": "x.y",
        "another key": stage.proof(key=other),
        "another guard": stage.proof(uri=OTHER),
        "a longer name": stage.proof(uri=URI + "x"),
        "the name within a host": stage.proof(uri="https://files.example.evil.example/mcp"),
        "another token": stage.proof(access_token=TOKEN + "x"),
        "no token": stage.proof(access_token=None),
        "too old": stage.proof(now=now - FRESH_US - SECOND),
        "of the future": stage.proof(now=now + dpop.SKEW + SECOND),
        "a signature that is cut": good[:-4],
        "a signature of something else": good.rpartition(".")[0] + "." + stage.proof(jti="2").rpartition(".")[2],
    }


@pytest.mark.parametrize(
    "what",
    [
        "nothing",
        "no JWS",
        "another key",
        "another guard",
        "a longer name",
        "the name within a host",
        "another token",
        "no token",
        "too old",
        "of the future",
        "a signature that is cut",
        "a signature of something else",
    ],
)
async def test_a_canary_finding_without_a_valid_proof_quarantines_no_agent(stage: Stage, what: str) -> None:
    found = await stage.find(await stage.report(_bad(stage)[what]))
    assert (found.is_proved, found.says) == (False, "it called a decoy" + UNPROVED)
    assert (stage.state, stage.risk) == (AgentState.ACTIVE, MAX_CLAIMED)
    waiting = incidents.find_open(stage.world.db.read(), stage.agent.agent_id)
    assert waiting is not None, "a person decides"
    acts = incidents.list_responses(stage.world.db.read(), waiting.incident_id)
    assert [(one.response, one.outcome, one.says) for one in acts] == [("quarantine", Outcome.LIMITED, UNBACKED)]


async def test_a_proof_of_the_maximum_age_is_accepted(stage: Stage) -> None:
    found = await stage.find(await stage.report(stage.proof(now=stage.world.now() - FRESH_US)))
    assert found.is_proved


async def test_a_proof_backs_one_call(stage: Stage) -> None:
    proof = stage.proof()
    first, second = await stage.report(proof), await stage.report(proof)
    assert (await stage.find(second, detector="flood", points=1)).is_proved
    assert (await stage.find(second, detector="rate_volume", points=1)).is_proved, "the same call, noticed twice"
    third = await stage.report(proof)
    assert not (await stage.find(third, points=1)).is_proved
    assert first < second < third


async def test_the_findings_of_one_guard_raise_the_risk_of_an_agent_at_most_to_a_cap(
    stage: Stage, clock: Clock
) -> None:
    for _ in range(20):
        await stage.find(await stage.report(""), detector="flood", points=50)
    assert (stage.risk, stage.state) == (MAX_CLAIMED, AgentState.ACTIVE)
    await stage.find(await stage.report("", uri=OTHER), uri=OTHER, detector="flood", points=50)
    assert MAX_CLAIMED < stage.risk <= 2 * MAX_CLAIMED, "a second guard has its own cap"


async def test_an_unproved_finding_of_a_second_guard_quarantines_the_agent(stage: Stage) -> None:
    await stage.find(await stage.report(""))
    assert stage.state == "active"
    await stage.find(await stage.report("", uri=OTHER), uri=OTHER)
    assert stage.state == "quarantined"


async def test_a_finding_about_an_entry_of_the_server_itself_needs_no_proof(stage: Stage) -> None:
    found = await stage.find(0)
    assert (found.is_proved, stage.state) == (True, AgentState.QUARANTINED)


async def test_proofs_are_kept_for_ten_minutes(stage: Stage, clock: Clock) -> None:
    number = await stage.report(stage.proof())
    reader = stage.world.db.read()
    clock.advance(us=EVIDENCE_US)
    await forget_evidence(stage.world)
    assert ledger.get_evidence(reader, number) is not None
    clock.advance(us=1)
    await run_act(stage.world, lambda a: None)
    await forget_evidence(stage.world)
    assert ledger.get_evidence(reader, number) is None
    assert not (await stage.find(number)).is_proved
