"""Issue: the content of certificates, their ends, the permitted names, and the refusals that leave no certificate."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import ClientVerifier, PolicyBuilder, Store, VerificationError

from harness.clock import START, Clock
from harness.registry_fixtures import (
    ADMIN,
    SECOND,
    agent_caller,
    create_person,
    newest_entry,
    register_agent,
)
from ostiary.decision.access.stops import What
from ostiary.protocol.errors import Forbidden, Refused
from ostiary.protocol.jose import render_public_jwk
from ostiaryd.certs import flows, wire_admin
from ostiaryd.certs.model import RevocationReason, holding_id
from ostiaryd.certs.model.keys import check_public_key, encode_public_key
from ostiaryd.certs.store import certificates
from ostiaryd.ground.http.edge import Call
from ostiaryd.ground.http.pages import Page
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import act
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Caller, Root, Verb
from ostiaryd.registry.store import keys
from ostiaryd.tasks import flows as tasks
from ostiaryd.tasks.model import TaskSpec
from tests.support.certificate_fixtures import issue, new_key, put_policies, read, revoke
from tests.support.recorded_statements import record_statements

HOUR = 3600


def verifier(world: World, *, at: int | None = None) -> ClientVerifier:
    """A client that trusts the bundle of the server and nothing else."""
    roots = [read(der) for der in flows.trust_bundle(world.db.read())]
    time = datetime.fromtimestamp((at or world.now()) / SECOND, UTC)
    return PolicyBuilder().store(Store(roots)).time(time).build_client_verifier()


async def test_a_certificate_verifies_against_the_bundle_and_has_the_fields_of_its_profile(world: World) -> None:
    agent = await register_agent(world)
    issued = await issue(world, agent="bot")
    leaf = read(issued.certificate.der)
    verified = verifier(world).verify(leaf, [read(der) for der in issued.chain])
    spiffe_id = f"spiffe://{world.config.trust_domain}/agent/bot"
    assert verified.subjects == [x509.UniformResourceIdentifier(spiffe_id)]
    assert leaf.subject.rfc4514_string() == f"CN={agent.agent_id}"
    assert leaf.not_valid_before_utc == datetime.fromtimestamp(START // SECOND, UTC) - timedelta(seconds=60)
    assert leaf.not_valid_after_utc == datetime.fromtimestamp(START // SECOND, UTC) + timedelta(seconds=HOUR - 1)
    usages = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert set(usages) == {ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH}
    key_usage = leaf.extensions.get_extension_for_class(x509.KeyUsage)
    assert (key_usage.critical, key_usage.value.digital_signature, key_usage.value.key_cert_sign) == (True, True, False)
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert f"{leaf.serial_number:032x}" == issued.certificate.serial


async def test_root_and_intermediate_are_made_once_and_sign_no_data(world: World) -> None:
    await register_agent(world)
    first, second = await issue(world, agent="bot"), await issue(world, agent="bot")
    assert first.chain == second.chain
    assert (len(first.chain), len(flows.trust_bundle(world.db.read()))) == (1, 1)
    for der in (*first.chain, *flows.trust_bundle(world.db.read())):
        authority = read(der)
        usage = authority.extensions.get_extension_for_class(x509.KeyUsage).value
        assert (usage.key_cert_sign, usage.crl_sign, usage.digital_signature) == (True, True, False)
        [name] = authority.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert name.value == f"spiffe://{world.config.trust_domain}"


async def test_the_entry_of_an_issued_certificate_names_certificate_agent_and_policy(world: World) -> None:
    agent = await register_agent(world)
    issued = await issue(world, agent="bot")
    entry = newest_entry(world)
    assert (entry.action, entry.outcome, entry.object) == ("cert.issue", "ok", issued.certificate.serial)
    assert (entry.agent, entry.owner, entry.policies) == (agent.agent_id, agent.owner, ["issue-own-certificate"])
    assert entry.detail is not None
    assert entry.detail["thumbprint"] == issued.certificate.thumbprint
    assert entry.detail["names"] == f"uri:spiffe://{world.config.trust_domain}/agent/bot"


@pytest.mark.parametrize(
    ("lifetime", "is_issued"), [(59, False), (60, True), (HOUR, True), (HOUR + 1, False), (0, False), (-1, False)]
)
async def test_a_lifetime_outside_of_the_profile_is_refused(world: World, lifetime: int, is_issued: bool) -> None:
    await register_agent(world)
    if is_issued:
        issued = await issue(world, agent="bot", lifetime_s=lifetime)
        assert issued.certificate.not_after == START // SECOND * SECOND + lifetime * SECOND
        return
    with pytest.raises(Refused, match="lifetime must be 60 to 3600"):
        await issue(world, agent="bot", lifetime_s=lifetime)
    assert newest_entry(world).outcome == "refused"


async def test_a_certificate_does_not_outlive_its_task_or_its_agent(world: World) -> None:
    agent = await register_agent(world, expires_at=START + 1800 * SECOND)
    task = await act(world, "task.start", lambda a: tasks.start(a, TaskSpec(agent="bot", purpose="serves", ttl_s=600)))
    assert (await issue(world, agent="bot")).certificate.not_after == agent.expires_at
    assert (await issue(world, agent="bot", task=task.task_id)).certificate.not_after == task.expires_at


async def suspend(world: World) -> None:
    await act(world, "agent.suspend", lambda a: registry.set_agent_state(a, "bot", Verb.SUSPEND))


@pytest.mark.parametrize("root", ["task", "agent", "owner"])
async def test_a_certificate_ends_with_its_task_its_agent_and_its_owner(world: World, root: str) -> None:
    await register_agent(world)
    await register_agent(world, "other", owner="carol")
    task = await act(world, "task.start", lambda a: tasks.start(a, TaskSpec(agent="bot", purpose="serves")))
    issued, other = await issue(world, agent="bot", task=task.task_id), await issue(world, agent="other")
    match root:
        case "task":
            await act(world, "task.end", lambda a: tasks.end(a, task.task_id))
        case "agent":
            await suspend(world)
        case "owner":
            await act(world, "owner.revoke", lambda a: registry.revoke_owner(a, "alice"))
    reader = world.db.read()
    ended = flows.find_certificate(reader, issued.certificate.serial, now=world.now())
    assert not flows.is_live(reader, ended, now=world.now())
    assert ended.revoked_at == START
    assert flows.is_live(reader, other.certificate, now=world.now())


async def test_a_certificate_ends_with_its_own_key_and_with_the_key_that_obtained_it(world: World) -> None:
    agent = await register_agent(world)
    [client_key] = keys.of_agent(world.db.read(), agent.agent_id)
    certified = new_key()
    by_client, of_key = (
        await issue(world, agent="bot", client_jkt=client_key.jkt),
        await issue(world, agent="bot", key=certified),
    )
    await act(world, "key.revoke", lambda a: registry.revoke_key(a, client_key.jkt))
    ended, stays = (
        flows.find_certificate(world.db.read(), one.certificate.serial, now=world.now()) for one in (by_client, of_key)
    )
    assert (ended.revoked_at, ended.reason, stays.revoked_at) == (START, "revoked", None)
    jkt = check_public_key(encode_public_key(certified.public_key())).jkt
    await act(world, "test", lambda a: registry.end_holdings(a, Root.KEY, jkt, why="test"))
    assert flows.find_certificate(world.db.read(), of_key.certificate.serial, now=world.now()).reason == "test"


async def test_names_of_other_agents_and_of_hosts_are_refused_by_the_profile(world: World) -> None:
    await register_agent(world)
    domain = world.config.trust_domain
    for name in (
        f"uri:spiffe://{domain}/agent/other",
        f"uri:spiffe://{domain}/agent/bot/x",
        f"uri:spiffe://{domain}/agent/BOT",
        f"uri:spiffe://other.{domain}/agent/bot",
        "dns:api.example.com",
        "ip:10.0.0.1",
    ):
        with pytest.raises(Refused, match="does not allow") as refused:
            await issue(world, agent="bot", names=[f"uri:spiffe://{domain}/agent/bot", name])
        assert refused.value.code == "foreign_name"
        entry = newest_entry(world)
        assert (entry.outcome, entry.reasons[0].code) == ("refused", "foreign_name")
    assert await _count(world) == 0


async def _count(world: World) -> int:
    return len(certificates.page(world.db.read(), Page(10, "")))


async def test_policies_decide_about_names_key_type_and_lifetime(world: World) -> None:
    await register_agent(world)
    with pytest.raises(Refused, match="no policy") as refused:
        await issue(world, agent="bot", profile="server", names=["dns:api.example.com"])
    assert refused.value.code == "access_denied"
    await put_policies(
        world,
        """@id("api") permit (principal is Agent, action == Action::"issue_certificate", resource is Agent)
        when { context.profile == "server" && ["dns:api.example.com", "ip:10.0.0.1"].containsAll(context.names)
            && context.key_type == "P-256" && context.lifetime <= 7200 };""",
    )
    issued = await issue(world, agent="bot", profile="server", names=["dns:api.example.com"], lifetime_s=7200)
    assert newest_entry(world).policies == ["api"]
    assert [str(name) for name in issued.certificate.names] == ["dns:api.example.com"]
    both = ["dns:api.example.com", "dns:other.example.com"]
    for names, lifetime in ((both[1:], 7200), (both, 7200), (both[:1], 7201)):
        with pytest.raises(Refused) as refused:
            await issue(world, agent="bot", profile="server", names=names, lifetime_s=lifetime)
        assert refused.value.code == "access_denied"


async def test_the_kill_switch_stops_the_certificates_of_a_person(world: World) -> None:
    person = await create_person(world, "dora")
    await act(world, "role.grant", lambda a: registry.grant_role(a, "dora", "administrator"))
    issued = await issue(world, person="dora", profile="server", names=["dns:dora.example.com"])
    assert flows.is_live(world.db.read(), issued.certificate, now=world.now())
    await act(world, "kill.start", lambda a: registry.stop(a, "owner", person, why="a test", by=None))
    assert not flows.is_live(world.db.read(), issued.certificate, now=world.now())
    with pytest.raises(Refused) as refused:
        await issue(world, person="dora", profile="server", names=["dns:dora.example.com"])
    assert refused.value.code == "stopped"


async def test_a_person_gets_a_certificate_only_if_a_role_permits_the_certificate(world: World) -> None:
    await create_person(world, "dora")
    with pytest.raises(Refused, match="no role of `dora`"):
        await issue(world, person="dora", profile="server", names=["dns:dora.example.com"])
    await act(world, "role.grant", lambda a: registry.grant_role(a, "dora", "administrator"))
    issued = await issue(world, person="dora", profile="server", names=["dns:dora.example.com"])
    assert flows.is_live(world.db.read(), issued.certificate, now=world.now())
    await create_person(world, "eve")
    await act(world, "role.grant", lambda a: registry.grant_role(a, "eve", "administrator"))
    await act(world, "person.leave", lambda a: registry.revoke_owner(a, "dora"))
    ended = flows.find_certificate(world.db.read(), issued.certificate.serial, now=world.now())
    assert ended.revoked_at == START


@pytest.mark.parametrize("kind", ["owner", "everything"])
async def test_a_stop_suspends_the_certificates_of_a_person_until_the_stop_is_lifted(world: World, kind: What) -> None:
    person = await create_person(world, "dora")
    await act(world, "role.grant", lambda a: registry.grant_role(a, "dora", "administrator"))
    issued = await issue(world, person="dora", profile="server", names=["dns:dora.example.com"])
    value = person if kind == "owner" else ""
    await act(world, "kill.start", lambda a: registry.stop(a, kind, value, why="a test", by=None))
    assert not flows.is_live(world.db.read(), issued.certificate, now=world.now())
    with pytest.raises(Forbidden, match="kill switch"):
        await issue(world, person="dora", profile="server", names=["dns:dora.example.com"])
    await act(world, "kill.end", lambda a: registry.lift_stop(a, kind, value))
    assert flows.is_live(world.db.read(), issued.certificate, now=world.now())


async def test_a_holder_that_is_not_active_gets_no_certificate(world: World) -> None:
    await register_agent(world)
    await suspend(world)
    with pytest.raises(Refused) as refused:
        await issue(world, agent="bot")
    assert refused.value.code == "agent_suspended"
    assert await _count(world) == 0


async def test_a_key_belongs_to_one_identity(world: World) -> None:
    await register_agent(world)
    await register_agent(world, "other")
    key = new_key()
    await issue(world, agent="bot", key=key)
    await issue(world, agent="bot", key=key)
    with pytest.raises(Refused) as refused:
        await issue(world, agent="other", key=key)
    assert refused.value.code == "key_taken"


async def test_a_key_belongs_to_one_identity_among_acts_of_one_commit(world: World) -> None:
    await register_agent(world)
    await register_agent(world, "other")
    key, fresh = new_key(), new_key()
    orders = [("bot", key), ("other", key), ("other", fresh), ("bot", key), ("bot", fresh)]
    results = await asyncio.gather(
        *(issue(world, agent=agent, key=one) for agent, one in orders), return_exceptions=True
    )
    refused = [one.code if isinstance(one, Refused) else "" for one in results]
    assert refused == ["", "key_taken", "", "", "key_taken"]
    assert len(certificates.page(world.db.read(), Page(10, ""))) == 3


async def test_a_registered_key_is_certified_only_for_its_owner(world: World) -> None:
    await register_agent(world)
    await register_agent(world, "other")
    await put_policies(world)
    key, own, guards = new_key(), new_key(), new_key()
    first, second, third = (render_public_jwk(one.public_key()) for one in (key, own, guards))
    await create_person(world, "ann")
    await act(world, "key.add", lambda a: registry.add_key(a, "bot", first))
    await act(world, "person.add_key", lambda a: registry.add_person_key(a, "ann", second))
    await act(world, "test", lambda a: registry.create_resource(a, name="f", uri="https://f.example", jwk=third))
    for agent, one, is_own in (("bot", key, True), ("other", key, False), ("bot", own, False), ("bot", guards, False)):
        if is_own:
            await issue(world, agent=agent, key=one)
            continue
        with pytest.raises(Refused) as refused:
            await issue(world, agent=agent, key=one)
        assert refused.value.code == "key_taken"


async def test_certificates_of_one_commit_are_written_together(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await register_agent(world)
    await issue(world, agent="bot")
    statements = record_statements(world, monkeypatch, writer_only=True)
    await asyncio.gather(*(issue(world, agent="bot") for _ in range(20)))
    commits = (statements.count("insert") + 4) // 5
    assert statements.count("insert") == 5 * commits, "certificates, holdings, entries, facts, the head of the ledger"
    assert commits < 10
    assert statements.count("select") - 20 <= 2 * commits, "the use of the key, with its registered owner"
    assert set(statements) == {"select", "insert"}


async def test_a_compromised_key_is_never_certified_again(world: World) -> None:
    await register_agent(world)
    key = new_key()
    issued = await issue(world, agent="bot", key=key)
    await revoke(world, issued.certificate.serial, RevocationReason.SUPERSEDED)
    again = await issue(world, agent="bot", key=key)
    await revoke(world, again.certificate.serial, RevocationReason.KEY_COMPROMISE)
    with pytest.raises(Refused, match="blocked"):
        await issue(world, agent="bot", key=key)
    with pytest.raises(Refused) as refused:
        await revoke(world, again.certificate.serial)
    assert refused.value.code == "already_revoked"


async def test_a_certificate_is_a_holding_with_the_expiry_of_the_certificate(world: World) -> None:
    await register_agent(world)
    issued = await issue(world, agent="bot")
    held = registry.get_holding(world.db.read(), holding_id(issued.certificate.serial))
    assert held is not None
    assert (held.kind, held.expires_at) == ("certificate", issued.certificate.not_after)
    counts = await act(world, "test", lambda a: registry.end_holdings(a, Root.HOLDING, held.id, why="test"))
    assert counts == {"certificate": 1}


async def test_a_presented_certificate_is_found_and_live_until_its_expiry(world: World, clock: Clock) -> None:
    await register_agent(world)
    issued = await issue(world, agent="bot")
    reader = world.db.read()
    found = flows.find_presented(reader, issued.certificate.der, now=world.now())
    assert found is not None
    assert found.serial == issued.certificate.serial
    assert flows.find_presented(reader, issued.chain[0], now=world.now()) is None
    assert flows.find_presented(reader, b"\x30\x00", now=world.now()) is None
    clock.advance(HOUR - 1)
    assert flows.is_live(world.db.read(), found, now=world.now())
    clock.advance(1)
    assert not flows.is_live(world.db.read(), found, now=world.now())
    with pytest.raises(VerificationError):
        verifier(world).verify(read(found.der), [read(der) for der in issued.chain])


async def test_a_certificate_of_a_stopped_owner_is_not_live_until_the_stop_is_lifted(world: World) -> None:
    """A stop is lifted again, so it ends nothing; until then the certificate does not count."""
    agent = await register_agent(world)
    issued = await issue(world, agent="bot")

    def is_live() -> bool:
        return flows.is_live(world.db.read(), issued.certificate, now=world.now())

    await act(world, "kill.start", lambda a: registry.stop(a, "owner", agent.owner, why="a test", by=None))
    assert not is_live()
    await act(world, "kill.end", lambda a: registry.lift_stop(a, "owner", agent.owner))
    assert is_live()


async def test_certificates_are_listed_for_their_holder_its_owner_and_callers_that_may_read(world: World) -> None:
    bot, other = await register_agent(world), await register_agent(world, name="other", owner="eve")
    made = [await issue(world, agent=name) for name in ("bot", "other")]
    query = f"holder={other.name}"
    owner = Caller(kind="person", id=other.owner, name="eve", owner=None, scopes=frozenset())
    for by, may in ((agent_caller(bot), False), (agent_caller(other), True), (owner, True), (ADMIN, True)):
        call = Call(world, "GET", "/api/v1/certificates", {}, query, [], b"", "rq_1", by)
        if not may:
            with pytest.raises(Forbidden, match="the certificates belong to another holder"):
                await wire_admin.list_certificates(call)
            continue
        body = (await wire_admin.list_certificates(call)).body
        assert isinstance(body, bytes)
        assert [one["serial"] for one in json.loads(body)["certificates"]] == [made[1].certificate.serial]
