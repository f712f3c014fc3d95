"""Certificates that are not renewed, and renewals that fail: a finding, an entry, metrics, and a line of the doctor."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from harness.clock import START, Clock
from harness.registry_fixtures import ADMIN, SECOND, create_person, register_agent
from ostiary.protocol.errors import Conflict
from ostiaryd import doctor
from ostiaryd.certs import flows as certs
from ostiaryd.certs.flows import renewals
from ostiaryd.certs.flows.renewals import OwnCertificate
from ostiaryd.certs.model import IssuedCertificate
from ostiaryd.certs.store import certificates as store
from ostiaryd.ground.http.edge import Call
from ostiaryd.ground.world import World
from ostiaryd.ledger import flows as ledger
from ostiaryd.ledger.flows import act
from ostiaryd.ledger.model import Entry, decode_entry
from ostiaryd.metrics import show_metrics
from ostiaryd.registry import flows as registry
from ostiaryd.tasks import flows as tasks
from ostiaryd.tasks.model import TaskSpec
from ostiaryd.watch import store as findings
from ostiaryd.watch.flows.certificates import warn_of_certificates
from ostiaryd.watch.model import NEGLECTED_CERTIFICATE
from tests.support.api_fixtures import reconfigured
from tests.support.certificate_fixtures import issue, put_policies, revoke

HOUR_S, DAY_S = 3600, 86_400


def warnings(world: World) -> list[Entry]:
    rows = ledger.search_entries(world.db.read(), {"action": "cert.warn", "outcome": "ok"}, limit=100)
    return [decode_entry(body) for _, body in rows]


def found(world: World, agent: str) -> list[str]:
    every = findings.findings.list_findings_of_agent(world.db.read(), agent, since=0)
    return [one.says for one in every if one.detector == NEGLECTED_CERTIFICATE]


async def metric(world: World, name: str) -> dict[str, int]:
    """The samples of a metric, by their labels."""
    answer = await show_metrics(Call(world, "GET", "/api/v1/metrics", {}, "", [], b"", "rq_1", ADMIN))
    assert isinstance(answer.body, bytes)
    text = answer.body.decode()
    assert text.endswith("# EOF\n")
    lines = re.findall(rf"^{name}(?:{{(.*)}})? (\d+)$", text, re.MULTILINE)
    return {labels: int(value) for labels, value in lines}


async def renewed(world: World, old: IssuedCertificate, **more: object) -> IssuedCertificate:
    return await issue(world, agent="bot", replaces=old.certificate.serial, **more)  # type: ignore[arg-type]


async def test_a_long_certificate_that_is_not_renewed_raises_one_finding(world: World, clock: Clock) -> None:
    agent = await register_agent(world)
    await put_policies(world)
    issued = await issue(world, agent="bot", profile="server", names=["dns:a.example.com"])
    life = issued.certificate.not_after - issued.certificate.not_before
    clock.advance(DAY_S - life // SECOND // store.LAST_PART)
    await warn_of_certificates(world)
    assert (found(world, agent.agent_id), await metric(world, "ostiary_certificates_neglected")) == ([], {"": 0})
    clock.advance(1)
    for _ in range(2):
        await warn_of_certificates(world)
    ends = datetime.fromtimestamp(START // SECOND + DAY_S, UTC).strftime("%Y-%m-%d %H:%M UTC")
    assert found(world, agent.agent_id) == [f"the certificate of dns:a.example.com ends {ends} and is not renewed"]
    [entry] = warnings(world)
    assert (entry.agent, entry.owner) == (agent.agent_id, agent.owner)
    assert await metric(world, "ostiary_certificates_neglected") == {"": 1}
    assert await metric(world, "ostiary_certificates") == {'profile="server"': 1}
    with pytest.raises(doctor.Unprotected, match="certificates that end soon or cannot be renewed: 1"):
        doctor._certificates(world, world.db.read())


async def test_a_renewed_certificate_raises_no_finding(world: World, clock: Clock) -> None:
    agent = await register_agent(world)
    await put_policies(world)
    names = ["dns:a.example.com"]
    old = await issue(world, agent="bot", profile="server", names=names)
    clock.advance(DAY_S * 5 // 6)
    await issue(world, agent="bot", profile="server", names=["dns:other.example.com"])
    new = await renewed(world, old, profile="server", names=names)
    clock.advance(1)
    await warn_of_certificates(world)
    assert found(world, agent.agent_id) == []
    assert doctor._certificates(world, world.db.read()) == "certificates in force: 3, none neglected"
    await revoke(world, new.certificate.serial)
    await warn_of_certificates(world)
    assert len(found(world, agent.agent_id)) == 1, "the renewed one was revoked, so the old one is the last"


async def test_a_short_certificate_that_is_not_renewed_raises_a_finding_only_after_a_renewal(
    world: World, clock: Clock
) -> None:
    """A program that runs for minutes takes a certificate and never renews it; a helper renews again and again."""
    agent = await register_agent(world)
    first = await issue(world, agent="bot")
    clock.advance(HOUR_S * 5 // 6 + 1)
    await warn_of_certificates(world)
    assert found(world, agent.agent_id) == []
    await renewed(world, first)
    clock.advance(HOUR_S * 5 // 6 + 1)
    await warn_of_certificates(world)
    assert len(found(world, agent.agent_id)) == 1


async def test_a_certificate_that_ends_with_its_task_raises_no_finding(world: World, clock: Clock) -> None:
    agent = await register_agent(world)
    await put_policies(world)
    task = await act(world, "task.start", lambda a: tasks.start(a, TaskSpec(agent="bot", purpose="x", ttl_s=DAY_S)))
    await issue(world, agent="bot", task=task.task_id, profile="server", names=["dns:a.example.com"])
    clock.advance(DAY_S - 1)
    await warn_of_certificates(world)
    assert found(world, agent.agent_id) == []


@pytest.mark.parametrize(("days", "is_warned"), [(0, False), (1, True)])
async def test_the_warning_setting_states_the_days_before_the_end_of_a_certificate(
    world: World, clock: Clock, days: int, is_warned: bool
) -> None:
    agent = await register_agent(world)
    configured = reconfigured(world, certificate_warning_days=days)
    await put_policies(world)
    await issue(world, agent="bot", profile="server", names=["dns:a.example.com"])
    clock.advance(DAY_S - 1)
    await warn_of_certificates(configured)
    assert bool(found(world, agent.agent_id)) is is_warned


async def test_an_expiring_certificate_of_a_person_leaves_one_warning_entry(world: World, clock: Clock) -> None:
    person = await create_person(world, "dora")
    await act(world, "role.grant", lambda a: registry.grant_role(a, "dora", "administrator"))
    await issue(world, person="dora", profile="server", names=["dns:a.example.com"])
    clock.advance(DAY_S - 1)
    for _ in range(2):
        await warn_of_certificates(world)
    assert [entry.person for entry in warnings(world)] == [person]


async def test_the_third_failed_renewal_is_a_finding(world: World, clock: Clock) -> None:
    agent = await register_agent(world)
    other = await register_agent(world, "other", owner="carol")
    old = await issue(world, agent="bot")

    async def fail(by: str) -> None:
        await world.writer.submit(lambda tx: store.count_failed_renewal(tx, old.certificate.serial, holder=by))

    for _ in range(renewals.MAX_FAILED):
        await fail(other.agent_id)
    for _ in range(renewals.MAX_FAILED - 1):
        await fail(agent.agent_id)
    await warn_of_certificates(world)
    assert (found(world, agent.agent_id), await metric(world, "ostiary_certificates_failing")) == ([], {"": 1})
    await fail(agent.agent_id)
    for _ in range(2):
        await warn_of_certificates(world)
    [says] = found(world, agent.agent_id)
    assert says.startswith("3 renewals of the certificate of uri:spiffe://")
    assert await metric(world, "ostiary_certificates_neglected") == {"": 1}
    clock.advance(1)
    await renewed(world, old)
    assert await metric(world, "ostiary_certificates_neglected") == {"": 0}


@pytest.mark.parametrize(
    ("left_s", "days", "is_soon"), [(DAY_S, 1, False), (DAY_S - 1, 1, True), (DAY_S - 1, 0, False)]
)
def test_a_certificate_of_the_server_ends_soon_in_its_last_days(left_s: int, days: int, is_soon: bool) -> None:
    own = OwnCertificate("it", "1", START, START + 90 * DAY_S * SECOND)
    assert own.ends_soon(now=own.not_after - left_s * SECOND, days=days) is is_soon


def test_a_certificate_of_the_server_ends_soon_in_the_last_sixth_of_its_life() -> None:
    own = OwnCertificate("it", "1", START, START + DAY_S * SECOND)
    due = own.not_after - DAY_S * SECOND // store.LAST_PART
    assert [own.ends_soon(now=now, days=14) for now in (due, due + 1)] == [False, True]


async def test_the_expiry_of_the_servers_own_certificate_is_warned_of_and_a_defect(
    world: World, clock: Clock, tmp_path: Path
) -> None:
    """The operator of the server is warned in time, both for a certificate of the own authority and for a file."""
    configured = reconfigured(world, tls="auto", data_dir=str(tmp_path))
    assert await certs.renew_tls(configured)
    clock.advance(DAY_S - (DAY_S + 60) // store.LAST_PART)
    await warn_of_certificates(configured)
    assert warnings(world) == []
    clock.advance(1)
    for _ in range(2):
        await warn_of_certificates(configured)
    [entry] = warnings(world)
    assert entry.detail is not None
    assert "the TLS certificate of this server ends" in entry.detail["says"]
    with pytest.raises(doctor.Unprotected, match="expires soon: the TLS certificate"):
        doctor._certificates(configured, world.db.read())
    shown = await metric(configured, "ostiary_server_certificate_expiry_timestamp_seconds")
    assert min(shown.values()) == START // SECOND + DAY_S
    assert len(shown) == 3, "the listener, the root and the intermediate"
    clock.advance(DAY_S)
    with pytest.raises(Conflict, match="expired: the TLS certificate"):
        doctor._certificates(configured, world.db.read())
    assert await certs.renew_tls(configured)
    assert "none neglected" in doctor._certificates(configured, world.db.read())
