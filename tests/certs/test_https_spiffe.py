"""Bundle endpoints that prove a SPIFFE ID (SPIFFE Federation, 5.2.2): the accepted and the refused endpoints."""

from __future__ import annotations

import datetime
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from harness.clock import Clock
from harness.registry_fixtures import newest_entry, run_act
from ostiary.protocol.errors import Invalid, Refused
from ostiaryd.certs import flows, wire_trust_domains
from ostiaryd.certs.flows import trust_domains
from ostiaryd.certs.model.bundle import parse_bundle
from ostiaryd.certs.model.spiffe_id import parse_spiffe_id
from ostiaryd.certs.model.trust_domain import TrustDomain
from ostiaryd.certs.model.x509_svid import check_x509_svid
from ostiaryd.ground.world import World
from tests.certs.svid_fixtures import document, root, x509_jwk
from tests.support.role_fixtures import administrator, ask

OTHER = "other.example"
ENDPOINT = f"spiffe://{OTHER}/bundles"


class ForeignAuthority:
    """The authority of another trust domain."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = self._sign(self.key, [], is_authority=True)
        self.der = self.certificate.public_bytes(Encoding.DER)

    def context(self, folder: Path, names: list[str], *, is_authority: bool = False) -> ssl.SSLContext:
        """Return the TLS of a server whose certificate has these URIs, and the name `localhost`."""
        key = ec.generate_private_key(ec.SECP256R1())
        leaf = self._sign(key, names, is_authority=is_authority)
        file = folder / "endpoint.pem"
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        file.write_bytes(leaf.public_bytes(Encoding.PEM) + private)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        return context

    def _sign(
        self, key: ec.EllipticCurvePrivateKey, names: list[str], *, is_authority: bool, signs: bool = True
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        usage = dict.fromkeys(("content_commitment", "key_encipherment", "data_encipherment", "key_agreement"), False)
        usage |= {"encipher_only": False, "decipher_only": False, "digital_signature": signs}
        alternatives = [x509.DNSName("localhost"), *map(x509.UniformResourceIdentifier, names)]
        builder = x509.CertificateBuilder(
            subject_name=x509.Name(
                [x509.NameAttribute(x509.NameOID.COMMON_NAME, "root" if key is self.key else "leaf")]
            ),
            issuer_name=x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "root")]),
            public_key=key.public_key(),
            serial_number=x509.random_serial_number(),
            not_valid_before=now - datetime.timedelta(days=1),
            not_valid_after=now + datetime.timedelta(days=1),
        )
        builder = (
            builder.add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
            .add_extension(x509.KeyUsage(key_cert_sign=is_authority, crl_sign=is_authority, **usage), critical=True)
            .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        )
        return builder.sign(self.key, hashes.SHA256())


class Endpoint:
    """A bundle endpoint on this machine, with the certificate that a test gives it."""

    def __init__(self, url: str) -> None:
        self.url, self.body, self.context = url, b"", ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)


@pytest.fixture
def database() -> str:
    return "sqlite"


@pytest.fixture
def endpoint(world: World) -> Iterator[Endpoint]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(made.body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    class TlsServer(ThreadingHTTPServer):
        def get_request(self) -> tuple[ssl.SSLSocket, object]:
            socket, address = super().get_request()
            return made.context.wrap_socket(socket, server_side=True), address

        def handle_error(self, request: object, client_address: object) -> None:
            pass

    server = TlsServer(("127.0.0.1", 0), Handler)
    made = Endpoint(f"https://localhost:{server.server_port}/bundle")
    object.__setattr__(world, "config", msgspec.structs.replace(world.config, private_hosts="localhost"))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield made
    server.shutdown()
    server.server_close()
    thread.join()


async def federate(
    world: World, url: str = "https://other.example/b", *, endpoint: str = ENDPOINT, first: bytes | None = None
) -> TrustDomain:
    bundle = None if first is None else parse_bundle(first)
    return await run_act(
        world,
        lambda a: trust_domains.add_trust_domain(
            a, OTHER, url, endpoint_spiffe_id=endpoint, bundle=bundle, config=world.config
        ),
        "federation.add",
    )


async def refreshed(world: World, clock: Clock) -> TrustDomain:
    """Fetch the bundle when it is due."""
    clock.advance(300)
    await wire_trust_domains.refresh_due(world)
    return trust_domains.find_trust_domain(world.db.read(), OTHER)


async def test_the_latest_bundle_authenticates_the_endpoint(
    world: World, endpoint: Endpoint, clock: Clock, tmp_path: Path
) -> None:
    before, after = ForeignAuthority(), ForeignAuthority()
    endpoint.context = before.context(tmp_path, [ENDPOINT])
    endpoint.body = document(x509_jwk(before.der), spiffe_sequence=2)
    await federate(world, endpoint.url, first=document(x509_jwk(before.der), spiffe_sequence=1))
    fetched = await refreshed(world, clock)
    assert (fetched.sequence, fetched.failed) == (2, "")
    endpoint.body = document(x509_jwk(after.der), spiffe_sequence=3)
    assert (await refreshed(world, clock)).sequence == 3
    endpoint.body = document(spiffe_sequence=4)
    assert "cannot be reached" in (await refreshed(world, clock)).failed, "only the first bundle has its authority"
    endpoint.context = after.context(tmp_path, [ENDPOINT])
    revoked = await refreshed(world, clock)
    assert (revoked.sequence, revoked.failed, revoked.bundle.x509) == (4, "", ())
    assert "authorities of the remote server are missing" in (await refreshed(world, clock)).failed


@pytest.mark.parametrize(
    ("names", "is_authority", "words"),
    [
        ([f"{ENDPOINT}/more"], False, "does not present the SPIFFE ID"),
        ([f"spiffe://{OTHER}"], False, "does not present the SPIFFE ID"),
        (["spiffe://third.example/bundles"], False, "does not present the SPIFFE ID"),
        ([ENDPOINT, f"spiffe://{OTHER}/second"], False, "does not present the SPIFFE ID"),
        ([], False, "does not present the SPIFFE ID"),
        ([ENDPOINT], True, "of an authority"),
    ],
)
async def test_another_endpoint_certificate_of_the_trust_domain_is_refused(
    world: World, endpoint: Endpoint, clock: Clock, tmp_path: Path, names: list[str], is_authority: bool, words: str
) -> None:
    authority = ForeignAuthority()
    endpoint.context = authority.context(tmp_path, names, is_authority=is_authority)
    endpoint.body = document(x509_jwk(root()), spiffe_sequence=2)
    await federate(world, endpoint.url, first=document(x509_jwk(authority.der), spiffe_sequence=1))
    refused = await refreshed(world, clock)
    assert words in refused.failed
    assert (refused.sequence, refused.refreshed_at, refused.bundle.x509) == (1, None, (authority.der,))


def test_a_certificate_whose_key_may_not_sign_is_no_x509_svid() -> None:
    authority, key, spiffe_id = ForeignAuthority(), ec.generate_private_key(ec.SECP256R1()), parse_spiffe_id(ENDPOINT)
    signing, other = (
        authority._sign(key, [ENDPOINT], is_authority=False, signs=signs).public_bytes(Encoding.DER)
        for signs in (True, False)
    )
    check_x509_svid(signing, spiffe_id)
    with pytest.raises(Invalid, match="its key usage lacks `digitalSignature`"):
        check_x509_svid(other, spiffe_id)


async def test_an_endpoint_certificate_of_another_authority_is_refused(
    world: World, endpoint: Endpoint, clock: Clock, tmp_path: Path
) -> None:
    endpoint.context = ForeignAuthority().context(tmp_path, [ENDPOINT])
    endpoint.body = document(spiffe_sequence=2)
    await federate(world, endpoint.url, first=document(x509_jwk(ForeignAuthority().der), spiffe_sequence=1))
    refused = await refreshed(world, clock)
    assert ("cannot be reached" in refused.failed, refused.sequence) == (True, 1)


@pytest.mark.parametrize(
    ("endpoint_id", "first", "words"),
    [
        (ENDPOINT, None, "`bundle` is required"),
        (ENDPOINT, document(spiffe_sequence=1), "no X.509 authority"),
        ("", document(x509_jwk(root())), "for an endpoint with a SPIFFE ID"),
        (f"spiffe://{OTHER}", document(x509_jwk(root())), "not a server"),
        ("spiffe://example.org/server", document(x509_jwk(root())), "`bundle` is refused"),
        ("https://other.example/bundles", document(x509_jwk(root())), "must begin with spiffe://"),
        ("spiffe://third.example/server", None, "trust domain .* not found"),
    ],
)
async def test_an_invalid_endpoint_or_first_bundle_is_refused_with_an_entry(
    world: World, endpoint_id: str, first: bytes | None, words: str
) -> None:
    with pytest.raises(Refused, match=words):
        await federate(world, endpoint=endpoint_id, first=first)
    assert (newest_entry(world).action, newest_entry(world).outcome) == ("federation.add", "refused")
    assert flows.list_trust_domains(world.db.read()) == []


async def test_a_first_bundle_accepts_large_sequence_numbers_and_unknown_members(
    world: World, endpoint: Endpoint
) -> None:
    admin = await administrator(world)
    first = {"keys": [x509_jwk(root())], "spiffe_sequence": 2**60, "of_another_program": 0.5}
    new = {"name": OTHER, "bundle_url": endpoint.url, "endpoint_spiffe_id": ENDPOINT, "bundle": first}
    added = await ask(admin, "POST", "/api/v1/trust-domains", new)
    assert (added.status, added.json["sequence"], added.json["authorities"]) == (201, str(2**60), 1)
