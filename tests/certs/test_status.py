"""OCSP and revocation lists: the status at once after each change, and the errors for malformed requests."""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256
from urllib.parse import quote

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from starlette.types import ASGIApp

from harness.clock import START, Clock
from harness.registry_fixtures import SECOND, newest_entry, register_agent
from ostiary.protocol.errors import Malformed
from ostiaryd.app import build_app
from ostiaryd.certs import flows
from ostiaryd.certs.flows import status
from ostiaryd.certs.flows.rotation import rotate_authority
from ostiaryd.certs.model import AuthorityKind, IssuedCertificate, RevocationReason
from ostiaryd.certs.model.certificate import SHARDS, shard_of
from ostiaryd.certs.model.keys import generate_keys
from ostiaryd.certs.model.revocation import MAX_NONCE, MAX_OCSP_BYTES, parse_ocsp_request
from ostiaryd.ground.http.edge import SMALL_BODY
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import act
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Verb
from tests.support.api_fixtures import Answer, send
from tests.support.certificate_fixtures import issue, put_policies, read, revoke
from tests.support.status_client import GOOD, REVOKED, get_crl, list_revoked, post, question


@pytest.fixture
def app(world: World) -> ASGIApp:
    return build_app(world)


async def get(app: ASGIApp, body: bytes, *, safe: str = "") -> ocsp.OCSPResponse:
    answer = await send(app, "GET", f"/ocsp/{quote(b64encode(body).decode(), safe=safe)}")
    assert answer.status == 200
    return ocsp.load_der_ocsp_response(answer.body)


def check_signature(answer: ocsp.OCSPResponse, issued: IssuedCertificate) -> None:
    """Verify as a client does: the responder was delegated by the issuer, and signed the answer."""
    [responder] = answer.certificates
    responder.verify_directly_issued_by(read(issued.chain[0]))
    usages = responder.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usages) == [x509.oid.ExtendedKeyUsageOID.OCSP_SIGNING]
    assert responder.extensions.get_extension_for_class(x509.OCSPNoCheck)
    key = responder.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    key.verify(answer.signature, answer.tbs_response_bytes, ec.ECDSA(hashes.SHA256()))


@pytest.mark.parametrize("algorithm", [hashes.SHA1(), hashes.SHA256()], ids=["sha1", "sha256"])
async def test_an_ocsp_response_is_signed_by_the_delegated_responder(
    world: World, app: ASGIApp, algorithm: hashes.SHA1 | hashes.SHA256
) -> None:
    await register_agent(world)
    issued = await issue(world, agent="bot")
    for answer in (
        await post(app, question(issued, algorithm=algorithm)),
        await get(app, question(issued, algorithm=algorithm)),
        await get(app, question(issued, algorithm=algorithm), safe="/+="),
    ):
        check_signature(answer, issued)
        assert (answer.certificate_status, answer.serial_number) == (GOOD, int(issued.certificate.serial, 16))
        assert answer.this_update_utc.timestamp() == START // SECOND
        assert answer.next_update_utc is not None
        assert answer.next_update_utc.timestamp() == (START + status.OCSP_VALIDITY) // SECOND


async def test_a_revocation_is_in_the_next_ocsp_response_and_the_next_list(
    world: World, app: ASGIApp, clock: Clock
) -> None:
    await register_agent(world)
    issued, other = await issue(world, agent="bot"), await issue(world, agent="bot")
    assert (await post(app, question(issued))).certificate_status is GOOD
    assert await list_revoked(app, issued) == {}
    clock.advance(5)
    await revoke(world, issued.certificate.serial, RevocationReason.SUPERSEDED)
    answer = await post(app, question(issued))
    assert (answer.certificate_status, answer.revocation_reason) == (REVOKED, x509.ReasonFlags.superseded)
    assert answer.revocation_time_utc is not None
    assert answer.revocation_time_utc.timestamp() == START // SECOND + 5
    assert (await post(app, question(other))).certificate_status is GOOD
    assert await list_revoked(app, issued) == {issued.certificate.serial: x509.ReasonFlags.superseded}


async def test_a_revoked_agent_has_no_certificate_in_force(world: World, app: ASGIApp) -> None:
    """The registry ends the holdings in the act that stops the agent; the authority needs no further call."""
    await register_agent(world)
    issued = [await issue(world, agent="bot") for _ in range(20)]
    assert {(await post(app, question(one))).certificate_status for one in issued} == {GOOD}
    await act(world, "agent.revoke", lambda a: registry.set_agent_state(a, "bot", Verb.REVOKE))
    assert {(await post(app, question(one))).certificate_status for one in issued} == {REVOKED}
    assert len(await list_revoked(app, issued[0])) == 20


async def test_a_certificate_of_the_server_can_be_revoked(world: World, app: ASGIApp) -> None:
    issued = await issue(world, profile="server", names=["dns:ostiary.example.com"])
    assert (await post(app, question(issued))).certificate_status is GOOD
    await revoke(world, issued.certificate.serial)
    answer = await post(app, question(issued))
    assert (answer.certificate_status, answer.revocation_reason) == (REVOKED, None)
    assert list(await list_revoked(app, issued)) == [issued.certificate.serial]


async def test_each_certificate_is_in_the_partition_that_it_names(world: World, app: ASGIApp) -> None:
    await register_agent(world)
    issued = [await issue(world, agent="bot") for _ in range(24)]
    for one in issued:
        await revoke(world, one.certificate.serial)
    partitions = {}
    for number in range(SHARDS):
        crl = await get_crl(app, f"/ca/{issued[0].certificate.authority}/crl/{number}")
        point = crl.extensions.get_extension_for_class(x509.IssuingDistributionPoint)
        assert point.critical
        assert point.value.only_contains_user_certs
        assert point.value.full_name is not None
        partitions[point.value.full_name[0].value] = {f"{entry.serial_number:032x}" for entry in crl}
    assert sum(map(len, partitions.values())) == len(issued)
    for one in issued:
        points = read(one.certificate.der).extensions.get_extension_for_class(x509.CRLDistributionPoints).value
        assert points[0].full_name is not None
        assert one.certificate.serial in partitions[points[0].full_name[0].value]
    assert {shard_of(one.certificate.serial) for one in issued} <= set(range(SHARDS))
    complete = await get_crl(app, f"/ca/{issued[0].certificate.authority}/crl")
    assert not any(extension.critical for extension in complete.extensions), "NSS knows no critical extension of a list"
    assert {f"{entry.serial_number:032x}" for entry in complete} == {one.certificate.serial for one in issued}


async def test_the_number_of_a_revocation_list_rises_only_if_the_list_changes_or_is_due(
    world: World, app: ASGIApp, clock: Clock
) -> None:
    await register_agent(world)
    issued = await issue(world, agent="bot")
    url = f"/ca/{issued.certificate.authority}/crl"

    async def number() -> int:
        return (await get_crl(app, url)).extensions.get_extension_for_class(x509.CRLNumber).value.crl_number

    first = await number()
    clock.advance(60)
    assert await number() == first
    await revoke(world, issued.certificate.serial)
    second = await number()
    assert second > first
    clock.advance(1799)
    assert await number() == second
    clock.advance(1)
    assert await number() > second


async def test_an_ocsp_response_without_a_nonce_is_cached_for_half_of_its_validity(
    world: World, app: ASGIApp, clock: Clock
) -> None:
    await register_agent(world)
    issued = await issue(world, agent="bot")
    first = await post(app, question(issued))
    clock.advance(299)
    assert (await post(app, question(issued))).signature == first.signature
    clock.advance(1)
    assert (await post(app, question(issued))).signature != first.signature


async def test_an_ocsp_nonce_is_answered_within_a_limited_rate(
    world: World, app: ASGIApp, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status.OcspResponder, "live_per_s", 3)
    await register_agent(world)
    issued = await issue(world, agent="bot")

    async def nonce_of(nonce: bytes) -> bytes | None:
        answer = await post(app, question(issued, nonce=nonce))
        check_signature(answer, issued)
        try:
            return answer.extensions.get_extension_for_class(x509.OCSPNonce).value.nonce
        except x509.ExtensionNotFound:
            return None

    asked = [b"a", b"b" * MAX_NONCE, b"c", b"d"]
    assert [await nonce_of(nonce) for nonce in asked] == [*asked[:3], None]
    clock.advance(1)
    assert await nonce_of(b"e") == b"e"


async def test_a_malformed_ocsp_request_gets_the_error_of_the_protocol(world: World, app: ASGIApp) -> None:
    await register_agent(world)
    issued = await issue(world, agent="bot")
    der = question(issued)
    malformed = ocsp.OCSPResponseStatus.MALFORMED_REQUEST
    for wrong in (
        b"",
        b"\x30\x00",
        der[:-1],
        der + bytes(MAX_OCSP_BYTES),
        bytes(SMALL_BODY + 1),
        question(issued, nonce=b"n" * (MAX_NONCE + 1)),
        _many(issued, 2),
        _many(issued, 500),
        _many(issued, 5000),
    ):
        assert (await post(app, wrong)).response_status is malformed
        entry = newest_entry(world)
        assert (entry.action, entry.outcome) == ("cert.status", "refused")
    assert (await get(app, b"")).response_status is malformed
    assert (await send(app, "GET", "/ocsp/not-base-64!")).status == 200
    refused = await send(app, "POST", "/ocsp", headers=[("content-type", "text/plain")], body=der)
    assert refused.status == 415


async def test_an_ocsp_path_in_the_form_of_old_clients_and_proxies_is_read(world: World, app: ASGIApp) -> None:
    await register_agent(world)
    issued = await issue(world, agent="bot")
    der = _request_with(issued, b"+", b"//", b"=")
    path = b64encode(der).decode()
    for sent in (path, f"/{path}", path.replace("+", " "), path.rstrip("="), quote(path)):
        answer = await send(app, "GET", f"/ocsp/{sent}")
        assert ocsp.load_der_ocsp_response(answer.body).certificate_status is GOOD, sent


def _request_with(issued: IssuedCertificate, *texts: bytes) -> bytes:
    """Return a request whose Base64 contains each of the texts."""
    requests = (question(issued, nonce=sha256(b"%d" % number).digest()) for number in range(10_000))
    return next(one for one in requests if all(text in b64encode(one) for text in texts))


async def test_an_ocsp_request_has_at_most_1024_bytes(world: World, app: ASGIApp) -> None:
    issued = await issue(world, profile="server", names=["dns:ostiary.example.com"])
    at_limit, over = (_of_size(issued, size) for size in (MAX_OCSP_BYTES, MAX_OCSP_BYTES + 1))
    assert (await post(app, at_limit)).certificate_status is GOOD
    assert (await post(app, over)).response_status is ocsp.OCSPResponseStatus.MALFORMED_REQUEST
    assert newest_entry(world).action == "cert.status"


def _of_size(issued: IssuedCertificate, size: int) -> bytes:
    """A request of that many bytes; an extension that is not critical fills it up."""
    asked = ocsp.load_der_ocsp_request(question(issued))
    builder = ocsp.OCSPRequestBuilder().add_certificate_by_hash(
        asked.issuer_name_hash, asked.issuer_key_hash, asked.serial_number, hashes.SHA256()
    )

    def filled(count: int) -> bytes:
        extension = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), bytes(count))
        return builder.add_extension(extension, critical=False).build().public_bytes(Encoding.DER)

    return filled(size // 2 + size - len(filled(size // 2)))


def _many(issued: IssuedCertificate, count: int) -> bytes:
    """A request about several certificates, which no builder makes: the list of a request about one is repeated."""
    one = question(issued)
    assert len(one) < 128, "each length has one byte"
    return _sequence(_sequence(_sequence(one[6:] * count)))


async def test_a_malformed_request_is_refused_with_its_fault(world: World) -> None:
    await register_agent(world)
    issued = await issue(world, agent="bot")
    one = question(issued)
    parse_ocsp_request(one)
    serial = bytes.fromhex("0210" + issued.certificate.serial)
    assert one.count(serial) == one.count(SHA256_OID) == 1
    for der, message in (
        (_many(issued, 0), "is not about exactly one certificate"),
        (_many(issued, 2), "is not about exactly one certificate"),
        (one[:-1], "cannot be read"),
        (one.replace(SHA256_OID, SHA384_OID), "uses the hash sha384 instead of one of sha1, sha256"),
        (one.replace(serial, b"\x02\x10\x80" + serial[3:]), "is negative, or has more than 20 bytes"),
    ):
        with pytest.raises(Malformed, match=message):
            parse_ocsp_request(der)


SHA256_OID, SHA384_OID = bytes.fromhex("608648016503040201"), bytes.fromhex("608648016503040202")


def _sequence(content: bytes) -> bytes:
    size = len(content)
    length = size.to_bytes(max(1, (size.bit_length() + 7) // 8))
    return b"\x30" + (length if size < 128 else bytes([0x80 | len(length)]) + length) + content


async def test_an_unknown_certificate_is_never_good(world: World, app: ASGIApp) -> None:
    await register_agent(world)
    issued = await issue(world, agent="bot")
    unknown = ocsp.OCSPRequestBuilder().add_certificate_by_hash(
        ocsp.load_der_ocsp_request(question(issued)).issuer_name_hash,
        ocsp.load_der_ocsp_request(question(issued)).issuer_key_hash,
        12345,
        hashes.SHA256(),
    )
    answer = await post(app, unknown.build().public_bytes(Encoding.DER))
    assert answer.response_status is ocsp.OCSPResponseStatus.UNAUTHORIZED
    foreign = ocsp.OCSPRequestBuilder().add_certificate_by_hash(
        bytes(32), bytes(32), int(issued.certificate.serial, 16), hashes.SHA256()
    )
    answer = await post(app, foreign.build().public_bytes(Encoding.DER))
    assert answer.response_status is ocsp.OCSPResponseStatus.UNAUTHORIZED


async def test_a_missing_list_or_certificate_is_not_found(world: World, app: ASGIApp) -> None:
    async def status_of(path: str) -> int:
        return (await send(app, "GET", path)).status

    assert await status_of("/ca/bundle.pem") == 404
    await register_agent(world)
    issued = await issue(world, agent="bot")
    authority = issued.certificate.authority
    assert [await status_of(f"/ca/{authority}/crl/{shard}") for shard in ("0", "15", "16", "-1", "x", "٣")] == [
        200,
        200,
        404,
        404,
        404,
        404,
    ]
    assert await status_of("/ca/ca_none/crl") == 404
    assert await status_of("/ca/ca_none.crt") == 404
    bundle = await send(app, "GET", "/ca/bundle.pem")
    assert [read(der) for der in flows.trust_bundle(world.db.read())] == x509.load_pem_x509_certificates(bundle.body)
    certificate: Answer = await send(app, "GET", f"/ca/{authority}.crt")
    assert certificate.body == issued.chain[0]


async def test_ocsp_responses_and_lists_work_after_a_rotation_of_the_root(world: World, app: ASGIApp) -> None:
    await register_agent(world)
    await put_policies(world)
    before = await issue(world, agent="bot")
    root, keys = AuthorityKind.ROOT, generate_keys("P-256")
    await act(world, "authority.rotate", lambda a: rotate_authority(a, root, keys, overlap_s=0, config=world.config))
    after = await issue(world, agent="bot")
    for issued in (before, after):
        check_signature(await post(app, question(issued)), issued)
        await revoke(world, issued.certificate.serial)
        assert (await post(app, question(issued))).certificate_status is REVOKED
        assert list(await list_revoked(app, issued)) == [issued.certificate.serial]


async def test_an_agent_that_has_expired_has_no_good_certificate(world: World, app: ASGIApp, clock: Clock) -> None:
    """OCSP and lists refuse an agent from the second of its end on, a moment before its holdings end."""
    agent = await register_agent(world)
    await register_agent(world, "other")
    issued, other = await issue(world, agent="bot"), await issue(world, agent="other")
    end = clock() + 60 * SECOND
    await act(world, "agent.set_end", lambda a: registry.set_end(a, agent.agent_id, end))
    clock.advance(us=60 * SECOND - 1)
    assert (await post(app, question(issued))).certificate_status is GOOD
    assert await list_revoked(app, issued) == {}
    clock.advance(us=1)
    answer = await post(app, question(issued))
    assert (answer.certificate_status, answer.revocation_reason) == (REVOKED, x509.ReasonFlags.cessation_of_operation)
    assert answer.revocation_time_utc is not None
    assert answer.revocation_time_utc.timestamp() == end // SECOND
    ceased = {issued.certificate.serial: x509.ReasonFlags.cessation_of_operation}
    assert await list_revoked(app, issued) == ceased
    partition = await get_crl(app, f"/ca/{issued.certificate.authority}/crl/{shard_of(issued.certificate.serial)}")
    assert [one.serial_number for one in partition] == [int(issued.certificate.serial, 16)]
    assert not flows.is_live(world.db.read(), issued.certificate, now=world.now())
    assert (await post(app, question(other))).certificate_status is GOOD
    await registry.expire_due(world)
    assert await list_revoked(app, issued) == ceased, "it is once in the list"
