"""Authorities: rotation with overlap, import under an external root, limits, and what is deleted."""

from __future__ import annotations

import asyncio
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.verification import PolicyBuilder, Store
from msgspec.structs import replace

from harness.clock import Clock
from harness.registry_fixtures import SECOND, create_holding, is_live, newest_entry, register_agent
from ostiary.protocol.errors import Refused
from ostiaryd.app import build_app
from ostiaryd.certs import flows
from ostiaryd.certs.flows import rotation
from ostiaryd.certs.flows.authorities import encode_pem
from ostiaryd.certs.flows.rotation import (
    finish_import,
    init_authority,
    keep_authorities,
    revoke_authority,
    rotate_authority,
    start_import,
)
from ostiaryd.certs.model import (
    KEY_TYPES,
    Authority,
    AuthorityKind,
    AuthorityState,
    IssuedCertificate,
    RevocationReason,
    holding_id,
)
from ostiaryd.certs.model.authority import read_end, read_permitted, subject_of
from ostiaryd.certs.model.keys import generate_keys
from ostiaryd.certs.model.profiles import ForeignName
from ostiaryd.certs.store import authorities
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import act
from ostiaryd.registry.model import HoldingId
from tests.support.api_fixtures import send
from tests.support.certificate_fixtures import issue, new_key, put_policies, read
from tests.support.database_changes import change_database, complete_state_check
from tests.support.status_client import GOOD, list_revoked, post, question

ROOT, INTERMEDIATE = AuthorityKind.ROOT, AuthorityKind.INTERMEDIATE
DAY_S = 86_400


def verify(world: World, issued: IssuedCertificate, bundle: tuple[bytes, ...]) -> None:
    """Verify as a client does that has this bundle. Raises VerificationError."""
    time = datetime.fromtimestamp(world.now() / SECOND, UTC)
    verifier = PolicyBuilder().store(Store([read(der) for der in bundle])).time(time).build_client_verifier()
    verifier.verify(read(issued.certificate.der), [read(der) for der in issued.chain])


async def rotate(world: World, kind: AuthorityKind, **more: int) -> None:
    keys = generate_keys("P-256")
    await act(world, "authority.rotate", lambda a: rotate_authority(a, kind, keys, config=world.config, **more))


def states(world: World, kind: AuthorityKind) -> list[AuthorityState]:
    return sorted(one.state for one in authorities.authorities(world.db.read()) if one.kind is kind)


@pytest.mark.parametrize("key_type", KEY_TYPES)
async def test_an_authority_signs_with_each_key_type(world: World, key_type: str) -> None:
    keys = generate_keys(key_type)
    await act(world, "authority.create", lambda a: init_authority(a, keys, config=world.config))
    await register_agent(world)
    issued = await issue(world, agent="bot")
    [root] = flows.trust_bundle(world.db.read())
    if key_type == "Ed25519":  # which the path validation of the library does not take
        read(issued.certificate.der).verify_directly_issued_by(read(issued.chain[0]))
        read(issued.chain[0]).verify_directly_issued_by(read(root))
    else:
        verify(world, issued, (root,))


async def test_private_keys_are_sealed(world: World) -> None:
    await register_agent(world)
    await issue(world, agent="bot")
    sealed = authorities.authorities(world.db.read())
    assert {one.kind for one in sealed} == set(AuthorityKind) - {AuthorityKind.EXTERNAL}
    for one in sealed:
        assert one.sealed is not None
        assert b"\x06\x07\x2a\x86\x48\xce\x3d\x02\x01" not in one.sealed  # id-ecPublicKey, as PKCS #8 would have it
        assert len(one.sealed) > 100


async def test_a_second_authority_cannot_be_created(world: World) -> None:
    async def create() -> None:
        keys = generate_keys("P-256")
        await act(world, "authority.create", lambda a: init_authority(a, keys, config=world.config))

    await create()
    with pytest.raises(Refused) as refused:
        await create()
    assert refused.value.code == "authority_exists"


async def test_an_authority_without_an_active_intermediate_is_created_anew_and_not_rotated(world: World) -> None:
    keys = generate_keys("P-256")
    made = await act(world, "authority.create", lambda a: init_authority(a, keys, config=world.config))
    await act(world, "authority.revoke", lambda a: revoke_authority(a, made.authority_id, RevocationReason.SUPERSEDED))
    with pytest.raises(Refused, match="no active root with an active intermediate") as refused:
        await rotate(world, AuthorityKind.INTERMEDIATE)
    assert refused.value.code == "no_authority"
    keys = generate_keys("P-256")
    await act(world, "authority.create", lambda a: init_authority(a, keys, config=world.config))
    assert states(world, AuthorityKind.INTERMEDIATE) == [AuthorityState.ACTIVE, AuthorityState.REVOKED]
    assert states(world, AuthorityKind.ROOT) == [AuthorityState.ACTIVE]


async def test_an_authority_certifies_only_the_names_that_it_is_limited_to(world: World) -> None:
    keys = generate_keys("P-256")
    await act(
        world,
        "authority.create",
        lambda a: init_authority(a, keys, permitted=["dns:example.com"], config=world.config),
    )
    await register_agent(world)
    await put_policies(world)
    for name in ("dns:example.com", "dns:a.b.example.com", "ip:10.0.0.1"):
        await issue(world, agent="bot", profile="server", names=[name])
    for name in ("dns:example.org", "dns:badexample.com"):
        with pytest.raises(Refused, match=f"may not certify '{name}'") as refused:
            await issue(world, agent="bot", profile="server", names=[name])
        assert refused.value.code == "foreign_name"


async def test_a_name_limit_is_stored_in_normal_form_and_a_malformed_limit_is_refused(world: World) -> None:
    async def create(permitted: str) -> Authority:
        keys = generate_keys("P-256")
        return await act(
            world, "authority.create", lambda a: init_authority(a, keys, permitted=[permitted], config=world.config)
        )

    for wrong in ("dns:example.com.", "dns:*.example.com", "ip:10.0.0.1", "example.com"):
        with pytest.raises(Refused):
            await create(wrong)
    assert (await create("dns:Example.COM")).permitted == ("dns:example.com",)


async def test_an_intermediate_with_a_limit_that_new_rules_refuse_can_be_rotated(world: World) -> None:
    before = await act(
        world,
        "authority.create",
        lambda a: init_authority(a, generate_keys("P-256"), permitted=["dns:example.com"], config=world.config),
    )
    old = replace(before, permitted=("dns:xn--a.example",))
    await act(world, "authority.create", lambda a: authorities.certify(a.tx, old))
    await rotate(world, INTERMEDIATE)
    [made] = [
        one
        for one in authorities.authorities(world.db.read())
        if one.kind is INTERMEDIATE and one.authority_id != old.authority_id
    ]
    assert (made.permitted, read_permitted(read(made.certificate))) == (old.permitted, old.permitted)


async def test_a_new_intermediate_signs_and_the_old_certificates_stay_valid(world: World) -> None:
    await register_agent(world)
    before = await issue(world, agent="bot")
    await rotate(world, INTERMEDIATE)
    after = await issue(world, agent="bot")
    assert before.chain != after.chain
    bundle = flows.trust_bundle(world.db.read())
    assert len(bundle) == 1
    verify(world, before, bundle)
    verify(world, after, bundle)
    assert states(world, INTERMEDIATE) == [AuthorityState.ACTIVE, AuthorityState.RETIRED]


async def test_a_new_root_is_published_first_and_trusted_by_old_and_new_clients(world: World, clock: Clock) -> None:
    await register_agent(world)
    before = await issue(world, agent="bot")
    old_bundle = flows.trust_bundle(world.db.read())
    await rotate(world, ROOT, overlap_s=600)
    during = await issue(world, agent="bot")
    assert during.chain == before.chain, "the old root signs until the overlap is over"
    bundle = flows.trust_bundle(world.db.read())
    assert (len(bundle), bundle[0]) == (2, old_bundle[0])
    with pytest.raises(Refused) as refused:
        await rotate(world, ROOT, overlap_s=600)
    assert refused.value.code == "rotating"
    clock.advance(599)
    await keep_authorities(world)
    assert states(world, ROOT) == [AuthorityState.ACTIVE, AuthorityState.PENDING]
    clock.advance(1)
    await keep_authorities(world)
    assert states(world, ROOT) == [AuthorityState.ACTIVE, AuthorityState.RETIRED]
    after = await issue(world, agent="bot")
    new_bundle = flows.trust_bundle(world.db.read())
    assert set(new_bundle) == set(bundle)
    for issued in (before, during, after):
        verify(world, issued, new_bundle)
        verify(world, issued, old_bundle)
    verify(world, after, (new_bundle[0],))


@pytest.mark.parametrize(("overlap", "is_taken"), [(-1, False), (0, True), (30 * DAY_S, True), (30 * DAY_S + 1, False)])
async def test_an_overlap_is_at_most_30_days(world: World, overlap: int, is_taken: bool) -> None:
    await register_agent(world)
    await issue(world, agent="bot")
    if is_taken:
        await rotate(world, ROOT, overlap_s=overlap)
    else:
        with pytest.raises(Refused, match="overlap"):
            await rotate(world, ROOT, overlap_s=overlap)
    assert len(states(world, ROOT)) == 1 + is_taken


async def test_retired_authorities_are_deleted_when_their_last_certificate_is_gone(world: World, clock: Clock) -> None:
    await register_agent(world)
    await issue(world, agent="bot")
    await rotate(world, ROOT, overlap_s=0)
    clock.advance(3600 + DAY_S - 1)
    for _ in range(4):
        await keep_authorities(world)
    assert len(states(world, ROOT)) == 2
    clock.advance(1)
    await flows.forget(world)
    for _ in range(4):
        await keep_authorities(world)
    assert (states(world, ROOT), states(world, INTERMEDIATE)) == ([AuthorityState.ACTIVE], [AuthorityState.ACTIVE])
    assert states(world, AuthorityKind.RESPONDER) == [AuthorityState.ACTIVE]
    after = await issue(world, agent="bot")
    assert len(after.chain) == 1, "the certificate by the deleted root is gone with it"
    verify(world, after, flows.trust_bundle(world.db.read()))


async def test_an_intermediate_is_replaced_after_two_thirds_of_its_life(world: World, clock: Clock) -> None:
    await register_agent(world)
    await issue(world, agent="bot")
    clock.advance(365 * DAY_S * 2 / 3 - 3600)
    await keep_authorities(world)
    assert len(states(world, INTERMEDIATE)) == 1
    clock.advance(3600)
    await keep_authorities(world)
    assert states(world, INTERMEDIATE) == [AuthorityState.ACTIVE, AuthorityState.RETIRED]
    assert newest_entry(world).action == "authority.rotate"


async def revoke(world: World, id: str, reason: RevocationReason = RevocationReason.UNSPECIFIED) -> None:
    await act(world, "authority.revoke", lambda a: revoke_authority(a, id, reason))


@pytest.mark.parametrize(
    ("reason", "listed"),
    [
        (RevocationReason.KEY_COMPROMISE, x509.ReasonFlags.ca_compromise),
        (RevocationReason.SUPERSEDED, x509.ReasonFlags.superseded),
    ],
)
async def test_a_revoked_intermediate_is_listed_by_its_root_and_its_certificates_are_revoked(
    world: World, reason: RevocationReason, listed: x509.ReasonFlags
) -> None:
    await register_agent(world)
    app = build_app(world)
    issued = await issue(world, agent="bot")
    server = await issue(world, profile="server", names=["dns:ostiary.example.com"])
    intermediate, [root] = read(issued.chain[0]), map(read, flows.trust_bundle(world.db.read()))
    [point] = intermediate.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
    assert point.full_name is not None
    path = point.full_name[0].value.removeprefix(world.config.public_url)

    async def list_of_root() -> dict[int, x509.ReasonFlags]:
        crl = x509.load_der_x509_crl((await send(app, "GET", path)).body)
        assert crl.is_signature_valid(root.public_key())  # type: ignore[arg-type]
        return {one.serial_number: one.extensions.get_extension_for_class(x509.CRLReason).value.reason for one in crl}

    assert await list_of_root() == {}
    await revoke(world, issued.certificate.authority, reason)
    assert newest_entry(world).action == "authority.revoke"
    assert await list_of_root() == {intermediate.serial_number: listed}
    await keep_authorities(world)
    assert newest_entry(world).action == "authority.rotate"
    assert states(world, INTERMEDIATE) == [AuthorityState.ACTIVE, AuthorityState.REVOKED]
    for _ in range(2):
        for one in (issued, server):
            assert not flows.is_live(world.db.read(), one.certificate, now=world.now())
            assert (await post(app, question(one))).revocation_reason is listed
        assert await list_revoked(app, issued) == {one.certificate.serial: listed for one in (issued, server)}
        await flows.end_below_revoked(world)
    after = await issue(world, agent="bot")
    verify(world, after, flows.trust_bundle(world.db.read()))
    assert after.certificate.authority != issued.certificate.authority
    assert (await post(app, question(after))).certificate_status is GOOD


async def test_the_certificates_and_holdings_below_a_revoked_intermediate_end_in_batches(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rotation, "ENDED_AT_ONCE", 2)
    agent = await register_agent(world)
    issued = [await issue(world, agent="bot") for _ in range(5)]
    parent = holding_id(issued[0].certificate.serial)
    await create_holding(world, agent, "tok_1", seconds=60, parent=HoldingId(parent))
    await rotate(world, INTERMEDIATE)
    kept = await issue(world, agent="bot")
    await revoke(world, issued[0].certificate.authority, RevocationReason.KEY_COMPROMISE)
    assert states(world, INTERMEDIATE) == [AuthorityState.ACTIVE, AuthorityState.REVOKED], "the active one stays"
    await flows.end_below_revoked(world)
    assert not any(is_live(world, id) for id in (*(holding_id(one.certificate.serial) for one in issued), "tok_1"))
    assert flows.is_live(world.db.read(), kept.certificate, now=world.now())
    size = newest_entry(world)
    await flows.end_below_revoked(world)
    assert newest_entry(world) == size, "nothing is left to do"


async def test_a_root_responder_pending_or_revoked_authority_cannot_be_revoked(world: World) -> None:
    await register_agent(world)
    await issue(world, agent="bot")
    await request_import(world)
    by_kind = {(one.kind, one.state): one.authority_id for one in authorities.authorities(world.db.read())}
    active = by_kind.pop((INTERMEDIATE, AuthorityState.ACTIVE))
    assert len(by_kind) == 3, "a root, a responder, and a pending intermediate"
    for id in (*by_kind.values(), "ca_unknown"):
        with pytest.raises(Refused, match="only an intermediate|is pending|authority not found"):
            await revoke(world, id)
        assert newest_entry(world).outcome == "refused"
    await revoke(world, active)
    with pytest.raises(Refused) as refused:
        await revoke(world, active)
    assert refused.value.code == "already_revoked"


async def test_a_revoked_intermediate_is_kept_until_a_day_after_its_end(world: World, clock: Clock) -> None:
    await register_agent(world)
    issued = await issue(world, agent="bot")
    await revoke(world, issued.certificate.authority)
    clock.advance(366 * DAY_S - 1)
    await flows.end_below_revoked(world)
    await flows.forget(world)
    for _ in range(5):
        await keep_authorities(world)
    assert AuthorityState.REVOKED in states(world, INTERMEDIATE)
    clock.advance(1)
    for _ in range(5):
        await keep_authorities(world)
    assert AuthorityState.REVOKED not in states(world, INTERMEDIATE)


async def test_a_revoked_intermediate_under_an_external_root_is_not_replaced(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await register_agent(world)
    company, csr = Company(world.now()), await request_import(world)
    key = csr.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    await import_chain(world, company.certify(key, csr.subject), company.root)
    issued = await issue(world, agent="bot")
    await revoke(world, issued.certificate.authority)
    assert not flows.is_live(world.db.read(), issued.certificate, now=world.now())
    made: list[str] = []
    monkeypatch.setattr("ostiaryd.certs.flows.authorities.make_keys", lambda *_, **__: made.append("keys"))
    with pytest.raises(Refused) as refused:
        await issue(world, agent="bot")
    assert (refused.value.code, made) == ("external_root", []), "each request would leave its keys in an HSM"


async def test_the_recorded_end_of_an_authority_is_one_second_after_its_certificate(world: World) -> None:
    """Records are exclusive, X.509 is inclusive (RFC 5280 section 4.1.2.5)."""
    await register_agent(world)
    await issue(world, agent="bot")
    company, csr = Company(world.now()), await request_import(world)
    key = csr.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    await import_chain(world, company.certify(key, csr.subject), company.root)
    for one in authorities.authorities(world.db.read()):
        last = read(one.certificate).not_valid_after_utc.timestamp()
        assert one.not_after // SECOND == last + 1


class Company:
    """A company with a root of its own, which certifies intermediates of others."""

    def __init__(self, now: int, **limits: Any) -> None:
        self.key, self.now = new_key(), datetime.fromtimestamp(now // SECOND, UTC)
        self.name = subject_of("Company Root")
        self.root = self.certify(self.key.public_key(), self.name, **limits)

    def certify(
        self,
        key: ec.EllipticCurvePublicKey,
        subject: x509.Name,
        *,
        days: tuple[int, int] = (-1, 300),
        is_authority: bool = True,
        permitted: str | None = None,
        path_length: int | None = None,
        signs_lists: bool = True,
        has_key_id: bool = True,
        more: tuple[x509.ExtensionType, ...] = (),
    ) -> x509.Certificate:
        usage = x509.KeyUsage(False, False, False, False, False, is_authority, signs_lists, False, False)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(self.now + timedelta(days=days[0]))
            .not_valid_after(self.now + timedelta(days=days[1]))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=path_length), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
        )
        if has_key_id:
            builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        if permitted is not None:
            builder = builder.add_extension(x509.NameConstraints([x509.DNSName(permitted)], None), critical=True)
        for extension in more:
            is_unknown = isinstance(extension, x509.UnrecognizedExtension)
            builder = builder.add_extension(extension, critical=is_unknown)
        return builder.sign(self.key, hashes.SHA256())

    def certify_company(self, **limits: Any) -> Company:
        """Return an authority of the company, between its root and the intermediates."""
        below = Company(int(self.now.timestamp()) * SECOND)
        below.name = subject_of("Company Authority")
        below.root = self.certify(below.key.public_key(), below.name, **limits)
        return below


async def request_import(world: World) -> x509.CertificateSigningRequest:
    _, pem = await act(
        world, "authority.request", lambda a: start_import(a, generate_keys("P-256", 1), config=world.config)
    )
    return x509.load_pem_x509_csr(pem)


async def import_chain(world: World, *chain: x509.Certificate) -> None:
    await act(
        world, "authority.import", lambda a: finish_import(a, chain, generate_keys("P-256", 1), config=world.config)
    )


async def test_an_intermediate_of_the_companys_root_replaces_the_own_intermediate(world: World) -> None:
    await register_agent(world)
    await put_policies(world)
    before = await issue(world, agent="bot")
    company, csr = Company(world.now()), await request_import(world)
    assert csr.is_signature_valid
    key = csr.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert states(world, INTERMEDIATE) == [AuthorityState.ACTIVE, AuthorityState.PENDING]
    await import_chain(world, company.certify(key, csr.subject, permitted="example.com"), company.root)
    after = await issue(world, agent="bot")
    verify(world, after, (company.root.public_bytes(Encoding.DER),))
    bundle = flows.trust_bundle(world.db.read())
    assert bundle[0] == company.root.public_bytes(Encoding.DER)
    verify(world, before, bundle)
    with pytest.raises(Refused, match="may not certify 'dns:example.org'"):
        await issue(world, agent="bot", profile="server", names=["dns:example.org"])
    with pytest.raises(Refused) as refused:
        await rotate(world, INTERMEDIATE)
    assert refused.value.code == "external_root"


async def test_an_invalid_chain_is_refused_and_changes_nothing(world: World) -> None:
    await register_agent(world)
    await issue(world, agent="bot")
    company, other = Company(world.now()), Company(world.now())
    with pytest.raises(Refused) as refused:
        await import_chain(world, company.root, company.root)
    assert refused.value.code == "not_pending"
    csr = await request_import(world)
    key = csr.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    good = company.certify(key, csr.subject)
    wrong: list[tuple[list[x509.Certificate], str]] = [
        ([good], "2 to 5 certificates"),
        ([good, *[company.root] * 5], "2 to 5 certificates"),
        ([company.certify(new_key().public_key(), csr.subject), company.root], "another key"),
        ([good, other.root], "not signed by the next"),
        ([good, good], "not signed by the next"),
        ([company.certify(key, csr.subject, is_authority=False), company.root], "not of an authority"),
        ([company.certify(key, csr.subject, days=(-9, -1)), company.root], "not valid now"),
        ([company.certify(key, csr.subject, days=(1, 9)), company.root], "not valid now"),
    ]
    for chain, message in wrong:
        with pytest.raises(Refused, match=message):
            await import_chain(world, *chain)
        assert newest_entry(world).outcome == "refused"
    assert (states(world, ROOT), len(flows.trust_bundle(world.db.read()))) == ([AuthorityState.ACTIVE], 1)
    await import_chain(world, good, company.root)


EKU = x509.oid.ExtendedKeyUsageOID
TLS = x509.ExtendedKeyUsage([EKU.CLIENT_AUTH, EKU.SERVER_AUTH])
UNKNOWN = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")


@pytest.mark.parametrize(
    ("root", "above", "leaf", "message"),
    [
        ({}, None, {}, ""),
        ({"path_length": 1}, None, {"path_length": 0}, ""),
        ({"path_length": 0}, None, {}, "allows 0 authorities below it .* the chain has 1"),
        ({"path_length": 2}, {"path_length": 1}, {}, ""),
        ({"path_length": 1}, {}, {}, "Company Root` allows 1 authorities below it .* the chain has 2"),
        ({"path_length": 2}, {"path_length": 0}, {}, "Company Authority` allows 0 authorities"),
        ({}, None, {"more": (TLS,)}, ""),
        ({}, None, {"more": (x509.ExtendedKeyUsage([EKU.ANY_EXTENDED_KEY_USAGE]),)}, ""),
        ({}, None, {"more": (x509.ExtendedKeyUsage([EKU.SERVER_AUTH]),)}, "does not allow TLS clients"),
        ({}, {"more": (x509.ExtendedKeyUsage([EKU.CODE_SIGNING]),)}, {}, "Company Authority` does not allow TLS"),
        ({}, None, {"more": (UNKNOWN,)}, "unknown critical extension 1.2.3.4"),
        ({"more": (UNKNOWN,)}, None, {}, "Company Root` has the unknown critical extension"),
        ({"signs_lists": False}, None, {}, ""),
        ({}, None, {"signs_lists": False}, "does not allow revocation lists"),
        ({"has_key_id": False}, None, {}, ""),
        ({}, None, {"has_key_id": False}, "has no subjectKeyIdentifier"),
        ({"permitted": "a.example"}, None, {"permitted": "b.example"}, "no name in common"),
        ({"permitted": "a.example"}, {"permitted": "b.example"}, {}, "no name in common"),
        ({}, None, {"permitted": "corp.example."}, "permit 'corp.example.', which is not a DNS name"),
        ({"permitted": "example"}, None, {"permitted": "corp.example."}, "permit 'corp.example.', which is not a DNS"),
        ({"permitted": "corp.example."}, None, {"permitted": "example"}, "permit 'corp.example.', which is not a DNS"),
        ({}, None, {"permitted": "a b.example"}, "permit 'a b.example', which is not a DNS name"),
    ],
)
async def test_a_chain_that_clients_refuse_is_not_installed(
    world: World, root: dict[str, Any], above: dict[str, Any] | None, leaf: dict[str, Any], message: str
) -> None:
    await register_agent(world)
    await issue(world, agent="bot")
    company, csr = Company(world.now(), **root), await request_import(world)
    issuer = company if above is None else company.certify_company(**above)
    key = csr.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    chain = dict.fromkeys([issuer.certify(key, csr.subject, **leaf), issuer.root, company.root])
    if message:
        with pytest.raises(Refused, match=message) as refused:
            await import_chain(world, *chain)
        assert refused.value.hint == "ask the owner of the root for another certificate"
        assert (newest_entry(world).outcome, states(world, ROOT)) == ("refused", [AuthorityState.ACTIVE])
    else:
        await import_chain(world, *chain)
        verify(world, await issue(world, agent="bot"), (company.root.public_bytes(Encoding.DER),))


@pytest.mark.parametrize(
    ("root", "above", "leaf", "permitted", "inside", "outside"),
    [
        (None, None, "Corp.Example", ("dns:corp.example",), "corp.example", "xcorp.example"),
        ("corp.example", None, None, ("dns:corp.example",), "corp.example", "xcorp.example"),
        ("example", "corp.example", "a.corp.example", ("dns:a.corp.example",), "a.corp.example", "corp.example"),
        ("a.corp.example", "corp.example", "example", ("dns:a.corp.example",), "a.corp.example", "corp.example"),
        (None, None, "", (), "corp.example", None),
        (None, None, ".Corp.Example", ("dns:.corp.example",), "a.corp.example", "corp.example"),
        ("corp.example", ".corp.example", None, ("dns:.corp.example",), "a.corp.example", "corp.example"),
        (".corp.example", "a.corp.example", None, ("dns:a.corp.example",), "a.corp.example", "b.corp.example"),
    ],
)
async def test_a_name_outside_the_narrowest_limit_of_an_imported_chain_is_not_certified(
    world: World,
    root: str | None,
    above: str | None,
    leaf: str | None,
    permitted: tuple[str, ...],
    inside: str,
    outside: str | None,
) -> None:
    await register_agent(world)
    await put_policies(world)
    company, csr = Company(world.now(), permitted=root), await request_import(world)
    issuer = company.certify_company(permitted=above)
    key = csr.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    await import_chain(world, issuer.certify(key, csr.subject, permitted=leaf), issuer.root, company.root)
    [installed] = [one for one in authorities.authorities(world.db.read()) if one.kind is INTERMEDIATE]
    assert installed.permitted == permitted
    issued = await issue(world, agent="bot", profile="server", names=[f"dns:{inside}"])
    assert issued.certificate.authority == installed.authority_id
    if outside is not None:
        with pytest.raises(ForeignName):
            await issue(world, agent="bot", profile="server", names=[f"dns:{outside}"])


async def test_a_limit_that_begins_with_a_dot_permits_only_the_names_below(world: World, tmp_path: Path) -> None:
    """OpenSSL and Go agree on this meaning, which RFC 5280 does not define for DNS names."""
    await register_agent(world)
    await put_policies(world)
    company, csr = Company(world.now()), await request_import(world)
    key = csr.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    await import_chain(world, company.certify(key, csr.subject, permitted=".corp.example"), company.root)
    for name in ("dns:corp.example", "dns:xcorp.example"):
        with pytest.raises(ForeignName):
            await issue(world, agent="bot", profile="server", names=[name])
    for name in ("dns:a.corp.example", "dns:*.corp.example"):
        issued = await issue(world, agent="bot", profile="server", names=[name])
        (tmp_path / "root.pem").write_bytes(company.root.public_bytes(Encoding.PEM))
        (tmp_path / "chain.pem").write_bytes(encode_pem(issued.chain))
        (tmp_path / "leaf.pem").write_bytes(encode_pem((issued.certificate.der,)))
        time = str(world.now() // SECOND)
        command = ["openssl", "verify", "-attime", time, "-CAfile", "root.pem", "-untrusted", "chain.pem", "leaf.pem"]
        await asyncio.to_thread(subprocess.run, command, cwd=tmp_path, check=True)


async def test_an_imported_intermediate_ends_with_the_first_expiry_in_its_chain(world: World) -> None:
    await register_agent(world)
    company, csr = Company(world.now(), days=(-1, 20)), await request_import(world)
    key = csr.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    await import_chain(world, company.certify(key, csr.subject, days=(-1, 300)), company.root)
    [installed] = [one for one in authorities.authorities(world.db.read()) if one.kind is INTERMEDIATE]
    assert installed.not_after == read_end(company.root)


async def test_an_authority_row_changed_outside_the_server_is_reported_as_a_difference(world: World) -> None:
    await register_agent(world)
    await issue(world, agent="bot")
    [root] = [one.authority_id for one in authorities.authorities(world.db.read()) if one.kind is ROOT]
    assert not (await complete_state_check(world)).differences
    change_database(world, "update authority set state = 'retired' where kind = 'root'")
    assert set((await complete_state_check(world)).differences) == {f"authority {root}"}
