"""Stops of the kill switch: certificates of stopped holders are on hold, and good again when the stop is lifted."""

from __future__ import annotations

import pytest
from cryptography import x509
from starlette.types import ASGIApp

from harness.clock import START, Clock
from harness.registry_fixtures import ADMIN, SECOND, create_person, newest_entry, register_agent
from ostiary.decision.access.stops import What
from ostiary.protocol.errors import Refused
from ostiaryd.app import build_app
from ostiaryd.certs import flows, wire_admin
from ostiaryd.certs.model import Certificate
from ostiaryd.ground.world import World
from ostiaryd.incidents.flows import kills
from ostiaryd.ledger.flows import act
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Verb
from ostiaryd.tasks import flows as tasks
from ostiaryd.tasks.model import TaskSpec
from tests.support.certificate_fixtures import issue, put_policies
from tests.support.status_client import GOOD, REVOKED, get_crl, list_revoked, post, question

HOLD, CEASED = x509.ReasonFlags.certificate_hold, x509.ReasonFlags.cessation_of_operation


@pytest.fixture
def app(world: World) -> ASGIApp:
    return build_app(world)


async def kill(world: World, target: What, value: str) -> None:
    await act(world, "kill.start", lambda a: registry.stop(a, target, value, why="a test", by=None))


async def lift(world: World, target: What, value: str) -> None:
    await act(world, "kill.end", lambda a: registry.lift_stop(a, target, value))


def state_of(world: World, certificate: Certificate) -> tuple[str, str]:
    """The state and the reason of a certificate as the API shows them."""
    reader, now = world.db.read(), world.now()
    shown = wire_admin._render(reader, flows.find_certificate(reader, certificate.serial, now=now), now=now)
    return shown["state"], shown["reason"]


@pytest.mark.parametrize("target", ["owner", "segment", "model", "everything", "task"])
async def test_a_stop_puts_on_hold_only_the_certificates_of_its_agents(
    world: World, app: ASGIApp, clock: Clock, target: What
) -> None:
    agent = await register_agent(world, segment="inner", model="m-1")
    other = await register_agent(world, "other", owner="carol", segment="outer", model="m-2")
    held, free = await issue(world, agent="bot"), await issue(world, agent=other.name)
    value = {
        "owner": agent.owner,
        "segment": "inner",
        "model": "m-1",
        "everything": "",
        "task": held.certificate.task or "",
    }[target]
    before = await post(app, question(held))
    assert (before.certificate_status, await list_revoked(app, held)) == (GOOD, {})
    clock.advance(7)
    await kill(world, target, value)
    answer = await post(app, question(held))
    assert (answer.certificate_status, answer.revocation_reason) == (REVOKED, HOLD)
    assert answer.revocation_time_utc is not None
    assert answer.revocation_time_utc.timestamp() == START // SECOND + 7
    assert (await post(app, question(held, nonce=b"now"))).certificate_status is REVOKED
    assert state_of(world, held.certificate) == ("on_hold", "certificateHold")
    listed = {held.certificate.serial: HOLD}
    if target == "everything":
        listed[free.certificate.serial] = HOLD
    assert await list_revoked(app, held) == listed
    assert (await post(app, question(free))).certificate_status is (REVOKED if target == "everything" else GOOD)
    assert not flows.is_live(world.db.read(), held.certificate, now=world.now())
    await lift(world, target, value)
    assert [(await post(app, question(one))).certificate_status for one in (held, free)] == [GOOD, GOOD]
    assert await list_revoked(app, held) == {}
    assert state_of(world, held.certificate) == ("live", "")
    assert flows.is_live(world.db.read(), held.certificate, now=world.now())


async def test_a_stop_of_an_agent_or_task_above_a_delegated_task_holds_its_certificate(
    world: World, app: ASGIApp
) -> None:
    """A token of that task is refused by the names in its chain, so its certificate is refused by the same names."""
    boss = await register_agent(world, "boss", model="m-1")
    await register_agent(world)
    spec = TaskSpec(agent="boss", purpose="to lead")
    top = await act(world, "task.start", lambda a: tasks.start(a, spec))
    part = TaskSpec(agent="bot", purpose="to follow", parent=top.task_id)
    task = await act(world, "task.start", lambda a: tasks.start(a, part))
    await put_policies(world)
    issued, own = await issue(world, agent="bot", task=task.task_id), await issue(world, agent="bot")
    stops: list[tuple[What, str]] = [("task", top.task_id), ("task", task.task_id), ("model", "m-1")]
    for target, value in stops:
        await kill(world, target, value)
        assert (await post(app, question(issued))).revocation_reason is HOLD, (target, value)
        assert (await post(app, question(own))).certificate_status is GOOD
        await lift(world, target, value)
        assert (await post(app, question(issued))).certificate_status is GOOD
    await act(world, "agent.suspend", lambda a: registry.set_agent_state(a, boss.agent_id, Verb.SUSPEND))
    assert (await post(app, question(issued))).revocation_reason is CEASED


async def test_certificates_of_an_administrator_and_of_the_server_are_not_on_hold(world: World, app: ASGIApp) -> None:
    """A stop of everything must leave somebody who can lift it, and the TLS certificate to reach the server."""
    await register_agent(world, scopes=["ostiary:admin"])
    admin, server = (
        await issue(world, agent="bot"),
        await issue(world, profile="server", names=["dns:ostiary.example.com"]),
    )
    await kill(world, "everything", "")
    assert [(await post(app, question(one))).certificate_status for one in (admin, server)] == [GOOD, GOOD]
    assert await list_revoked(app, admin) == {}


async def test_the_certificates_of_a_stopped_person_are_on_hold(world: World, app: ASGIApp) -> None:
    person = await create_person(world, "dora")
    await act(world, "role.grant", lambda a: registry.grant_role(a, "dora", "administrator"))
    issued = await issue(world, person="dora", profile="server", names=["dns:dora.example.com"])
    await kill(world, "owner", person)
    assert (await post(app, question(issued))).revocation_reason is HOLD
    await lift(world, "owner", person)
    assert (await post(app, question(issued))).certificate_status is GOOD
    await act(world, "person.suspend", lambda a: registry.suspend_person(a, "dora"))
    assert (await post(app, question(issued))).revocation_reason is CEASED


async def test_a_certificate_that_is_revoked_during_a_hold_stays_revoked(world: World, app: ASGIApp) -> None:
    agent = await register_agent(world)
    issued = await issue(world, agent="bot")
    await kill(world, "owner", agent.owner)
    await act(world, "agent.suspend", lambda a: registry.set_agent_state(a, "bot", Verb.SUSPEND))
    assert await list_revoked(app, issued) == {issued.certificate.serial: CEASED}
    await lift(world, "owner", agent.owner)
    assert (await post(app, question(issued))).revocation_reason is CEASED
    assert state_of(world, issued.certificate)[0] == "revoked"


async def test_a_quarantine_revokes_certificates_and_a_release_restores_none(world: World, app: ASGIApp) -> None:
    await register_agent(world)
    issued = await issue(world, agent="bot")
    incident = await act(world, "kill.start", lambda a: kills.kill(a, "agent", "bot", why="odd", by=ADMIN))
    assert incident is not None
    assert (await post(app, question(issued))).revocation_reason is CEASED
    assert await list_revoked(app, issued) == {issued.certificate.serial: CEASED}
    with pytest.raises(Refused) as refused:
        await issue(world, agent="bot")
    assert (refused.value.code, newest_entry(world).outcome) == ("agent_quarantined", "refused")
    await act(world, "agent.release", lambda a: registry.set_agent_state(a, "bot", Verb.RELEASE))
    assert (await post(app, question(issued))).revocation_reason is CEASED
    again = await issue(world, agent="bot")
    assert (await post(app, question(again))).certificate_status is GOOD


async def test_the_number_of_a_revocation_list_rises_with_each_hold_and_lift(
    world: World, app: ASGIApp, clock: Clock
) -> None:
    agent = await register_agent(world)
    issued = await issue(world, agent="bot")
    numbers = []
    for change in (None, kill, lift):
        clock.advance(1)
        if change is not None:
            await change(world, "owner", agent.owner)
        numbers.append(await _number(app, issued.certificate.authority))
        assert await _number(app, issued.certificate.authority) == numbers[-1]
    assert numbers == sorted(set(numbers))


async def _number(app: ASGIApp, authority: str) -> int:
    crl = await get_crl(app, f"/ca/{authority}/crl")
    return crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
