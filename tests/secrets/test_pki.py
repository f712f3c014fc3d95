"""Certificate authorities of mounts: chains that verifiers accept, limits of roles, and what ends a certificate."""

from __future__ import annotations

import asyncio
import datetime
from base64 import b64decode, b64encode
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
    load_pem_private_key,
)
from cryptography.x509 import ocsp, verification
from msgspec.structs import replace

from harness.registry_fixtures import newest_entry
from ostiaryd.certs.model.authority import build_authority_certificate, subject_of
from ostiaryd.certs.model.certificate import build_certificate
from ostiaryd.certs.model.keys import encode_public_key
from ostiaryd.certs.model.names import CertificateName, NameKind
from ostiaryd.ground.database import sql
from ostiaryd.incidents.flows import incidents
from ostiaryd.incidents.flows.blast import blast
from ostiaryd.ledger.flows import act
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import AgentId, Verb
from ostiaryd.secrets import flows
from ostiaryd.secrets.flows import seal
from ostiaryd.secrets.flows.key_generation import KeyGenerator
from ostiaryd.secrets.model.pki import MAX_ISSUERS, find_chain
from ostiaryd.secrets.model.request import SECOND, matches_glob
from ostiaryd.secrets.store import pki as store
from ostiaryd.tasks.model import standing_id
from tests.secrets.vault_fixtures import VaultAgent, enter_agent, permit_all, seal_all
from tests.support.certificate_fixtures import csr_builder, encode_slow_key, make_csr, new_key, put_policies

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from harness.clock import Clock
    from ostiaryd.ground.world import World

DAY_S = 86_400
YEAR = 365 * DAY_S
_SHA256 = hashes.SHA256()
_GOOD = ocsp.OCSPCertStatus.GOOD
_ENTRIES = sql("select body from entry")


async def done(bot: VaultAgent, method: str, path: str, body: Any = None, **more: Any) -> Any:
    """The data of a request that succeeds."""
    answer = await bot.ask(method, path, body, **more)
    assert answer.status in (200, 204), (path, answer.body)
    return answer.json["data"] if answer.status == 200 else {}


async def refuse(bot: VaultAgent, path: str, body: Any, *, status: int = 400, method: str = "POST") -> str:
    """The message of a request that is refused and recorded."""
    answer = await bot.ask(method, path, body)
    assert answer.status == status, (path, body, answer.body)
    assert newest_entry(bot.client.world).outcome == "refused"
    return " ".join(answer.json["errors"])


@pytest.fixture
async def ca(world: World, bot: VaultAgent) -> VaultAgent:
    """An agent with a mount `ca`, whose root lives a year, and a role `any` that allows each name."""
    await permit_all(world)
    await done(bot, "POST", "sys/mounts/ca", {"type": "pki", "config": {"max_lease_ttl": "8760h"}})
    await done(bot, "POST", "ca/root/generate/internal", {"common_name": "A root", "ttl": "8760h"})
    await done(bot, "POST", "ca/roles/any", {"allow_any_name": True, "max_ttl": "72h"})
    return bot


def pem(csr: bytes) -> str:
    return x509.load_der_x509_csr(csr).public_bytes(Encoding.PEM).decode()


def load(text: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(text.encode())


def pem_key(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def self_issued(begin: int, *, permitted: tuple[str, ...] = ()) -> str:
    """A root that lives a year."""
    key, subject = new_key(), subject_of("Elsewhere")
    der = build_authority_certificate(
        subject=subject,
        key=key.public_key(),
        issuer=subject,
        issuer_key=key,
        issuer_key_id=None,
        serial=1,
        not_before=begin * SECOND,
        not_after=(begin + YEAR) * SECOND,
        path_length=None,
        permitted=permitted,
    )
    return x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM).decode()


async def raw(bot: VaultAgent, path: str) -> bytes:
    """A public resource, without a token."""
    answer = await bot.ask("GET", path, token="")
    assert answer.status == 200, (path, answer.body)
    return answer.body


async def revoked(bot: VaultAgent, path: str = "ca/crl") -> set[int]:
    """The serial numbers of a revocation list, whose signature is checked."""
    crl = x509.load_der_x509_crl(await raw(bot, path))
    issuer = x509.load_der_x509_certificate(await raw(bot, path.replace("/crl", "/der" if "issuer" in path else "/ca")))
    assert crl.is_signature_valid(issuer.public_key())  # type: ignore[arg-type]
    return {one.serial_number for one in crl}


async def test_a_caller_can_follow_the_hint_on_an_issuer_that_cannot_sign(ca: VaultAgent) -> None:
    await done(ca, "POST", "ca/roles/any", {"allow_any_name": True})
    await done(ca, "POST", "ca/issuer/default/revoke")
    answer = await ca.ask("POST", "ca/issue/any", {"common_name": "a.example.com"})
    assert answer.json["errors"] == [
        "the issuer is revoked",
        "use another issuer, or generate one; to make an issuer the default: POST config/issuers",
    ]
    other = await done(ca, "POST", "ca/root/generate/internal", {"common_name": "Other"})
    await done(ca, "POST", "ca/config/issuers", {"default": other["issuer_id"]})
    await done(ca, "POST", "ca/issue/any", {"common_name": "a.example.com"})


@pytest.mark.parametrize(("begin_s", "end_s", "message"), [(60, 3600, "not valid yet"), (-3600, -60, "has expired")])
async def test_an_issuer_outside_its_validity_cannot_sign(
    world: World, ca: VaultAgent, begin_s: int, end_s: int, message: str
) -> None:
    await done(ca, "POST", "sys/mounts/own", {"type": "pki"})
    await done(ca, "POST", "own/roles/any", {"allow_any_name": True})
    key, now = (
        ec.generate_private_key(ec.SECP256R1()),
        datetime.datetime.fromtimestamp(world.now() / SECOND, datetime.UTC),
    )
    name, begin, end = (
        subject_of("Own"),
        now + datetime.timedelta(seconds=begin_s),
        now + datetime.timedelta(seconds=end_s),
    )
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, begin, end)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    parts = (
        builder.sign(key, _SHA256).public_bytes(Encoding.PEM),
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    )
    await done(ca, "POST", "own/config/ca", {"pem_bundle": b"".join(parts).decode()})
    assert message in await refuse(ca, "own/issue/any", {"common_name": "a.example.com"})


def number(serial: str) -> int:
    return int(serial.replace(":", ""), 16)


async def test_a_chain_across_two_mounts_is_accepted_and_revocation_lists_name_revoked_certificates(
    world: World, ca: VaultAgent, clock: Clock
) -> None:
    await done(ca, "POST", "sys/mounts/web", {"type": "pki", "config": {"max_lease_ttl": "4380h"}})
    request = await done(ca, "POST", "web/intermediate/generate/internal", {"common_name": "Web", "ou": "a,b"})
    assert request.keys() == {"csr", "key_id"}
    assert await ca.status("GET", "web/ca", token="") == 404, "the issuer waits for its certificate"
    order = {"csr": request["csr"], "use_csr_values": True, "ttl": "4000h", "max_path_length": 0}
    signed = await done(ca, "POST", "ca/root/sign-intermediate", {**order, "permitted_dns_domains": "example.com"})
    mapping = await done(
        ca, "POST", "web/intermediate/set-signed", {"certificate": signed["certificate"] + signed["issuing_ca"]}
    )
    assert (len(mapping["imported_issuers"]), len(mapping["imported_keys"])) == (2, 1)
    below, [_, root_id] = {"csr": pem(make_csr(common_name="below")), "common_name": "b"}, mapping["imported_issuers"]
    assert "no private key" in await refuse(ca, f"web/issuer/{root_id}/sign-intermediate", below)
    waiting = (await done(ca, "POST", "web/intermediate/generate/internal", {"common_name": "Later"}))["key_id"]
    assert "no certificate yet" in await refuse(ca, f"web/issuer/{waiting}/sign-intermediate", below)
    urls = {
        "issuing_certificates": "https://v.example/web/ca",
        "crl_distribution_points": ["https://v.example/web/crl"],
    }
    await done(ca, "POST", "web/config/urls", urls)
    role = {"allowed_domains": "example.com", "allow_subdomains": True, "organization": "Shop", "max_ttl": "72h"}
    await done(ca, "POST", "web/roles/shop", role)
    names = {"common_name": "a.example.com", "alt_names": "b.example.com", "ip_sans": "192.0.2.1", "ttl": "1h"}
    made = await done(ca, "POST", "web/issue/shop", names)
    leaf = load(made["certificate"])
    san = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert san.get_values_for_type(x509.DNSName) == ["a.example.com", "b.example.com"]
    assert leaf.subject.rfc4514_string() == "CN=a.example.com,O=Shop"
    assert load_pem_private_key(made["private_key"].encode(), None).public_key() == leaf.public_key()
    assert number(made["serial_number"]) == leaf.serial_number
    assert leaf.not_valid_after_utc - leaf.not_valid_before_utc == datetime.timedelta(seconds=3600 + 30 - 1)
    root = load(signed["issuing_ca"])
    builder = verification.PolicyBuilder().store(verification.Store([root]))
    builder = builder.time(datetime.datetime.fromtimestamp(clock.now // 1_000_000, datetime.UTC).replace(tzinfo=None))
    chain = [load(one) for one in made["ca_chain"]]
    assert [one.subject for one in chain] == [leaf.issuer, root.subject]
    verified = builder.build_server_verifier(x509.DNSName("b.example.com")).verify(leaf, chain[:1])
    assert len(verified) == 3
    entry = newest_entry(world)
    assert (entry.action, entry.object, (entry.detail or {})["operation"]) == ("vault.use", "web/issue/shop", "issue")
    assert "dns:a.example.com" in repr(entry.detail)
    assert made["private_key"].splitlines()[1] not in repr(entry)
    assert await revoked(ca, "web/crl") == set()
    again = [await done(ca, "POST", "web/revoke", {"serial_number": made["serial_number"]}) for _ in range(2)]
    assert again[0] == again[1]
    assert await revoked(ca, "web/crl") == {leaf.serial_number}
    shown = await done(ca, "GET", f"web/cert/{made['serial_number']}")
    assert (shown["revocation_time"], shown["certificate"]) == (again[0]["revocation_time"], made["certificate"])
    await done(ca, "POST", "ca/revoke", {"certificate": signed["certificate"]})
    assert await revoked(ca) == {load(signed["certificate"]).serial_number}
    assert "X509 CRL" in (await raw(ca, "ca/crl/pem")).decode()
    assert (await raw(ca, "web/ca_chain")).count(b"BEGIN CERTIFICATE") == 2
    await refuse(ca, "web/issue/shop", {"common_name": "other.example"}, status=403)
    await refuse(ca, "web/root/sign-intermediate", {**order, "csr": request["csr"]})


WEB = {"allowed_domains": ["example.com", "w*b.example.org"], "allow_localhost": False}
NAMES: list[tuple[dict[str, Any], dict[str, Any], int]] = [
    ({}, {"common_name": "localhost"}, 200),
    ({"allow_localhost": False}, {"common_name": "localhost"}, 403),
    (WEB, {"common_name": "example.com"}, 403),
    ({**WEB, "allow_bare_domains": True}, {"common_name": "example.com"}, 200),
    ({**WEB, "allow_bare_domains": True}, {"common_name": "a.example.com"}, 403),
    ({**WEB, "allow_subdomains": True}, {"common_name": "a.b.example.com"}, 200),
    ({**WEB, "allow_subdomains": True}, {"common_name": "badexample.com"}, 403),
    ({**WEB, "allow_subdomains": True}, {"common_name": "*.example.com"}, 200),
    ({**WEB, "allow_subdomains": True}, {"common_name": "*.com"}, 403),
    (
        {**WEB, "allow_subdomains": True, "allow_wildcard_certificates": False},
        {"common_name": "*.example.com"},
        403,
    ),
    ({**WEB, "allow_subdomains": True}, {"common_name": "a.example.com", "alt_names": "evil.org"}, 403),
    ({**WEB, "allow_subdomains": True}, {"common_name": "root@a.example.com"}, 200),
    ({**WEB, "allow_subdomains": True}, {"common_name": "root@evil.org"}, 403),
    (WEB, {"common_name": "web.example.org"}, 403),
    ({**WEB, "allow_glob_domains": True}, {"common_name": "w1b.example.org"}, 200),
    ({**WEB, "allow_glob_domains": True}, {"common_name": "web.example.org.evil.org"}, 403),
    ({"allow_any_name": True}, {"common_name": "not a host"}, 400),
    ({"allow_any_name": True, "enforce_hostnames": False}, {"common_name": "not a host"}, 200),
    ({"enforce_hostnames": False}, {"common_name": "not a host"}, 400),
    ({}, {"common_name": "localhost", "ip_sans": "192.0.2.1"}, 200),
    ({"allow_ip_sans": False}, {"common_name": "localhost", "ip_sans": "192.0.2.1"}, 403),
    ({}, {"common_name": "localhost", "ip_sans": "192.0.2.256"}, 400),
    ({}, {"common_name": "localhost", "uri_sans": "spiffe://a/b"}, 403),
    ({"allowed_uri_sans": "spiffe://a/*"}, {"common_name": "localhost", "uri_sans": "spiffe://a/b"}, 200),
    ({"allowed_uri_sans": "spiffe://a/*"}, {"common_name": "localhost", "uri_sans": "spiffe://b/a"}, 403),
    ({"allowed_uri_sans": "spiffe://a/*"}, {"common_name": "localhost", "uri_sans": "spiffe://a/../b"}, 400),
    ({}, {}, 400),
    ({"require_cn": False}, {}, 400),
    ({"require_cn": False, "allow_any_name": True}, {"alt_names": "a.example.com"}, 200),
    ({}, {"common_name": "localhost", "other_sans": "1.2.3;UTF8:x"}, 400),
    ({}, {"common_name": "localhost", "format": "xml"}, 400),
    ({}, {"common_name": "localhost", "alt_names": 1}, 400),
    ({"allow_any_name": "true"}, {"common_name": "x" * 64}, 400),
    ({"allow_any_name": "true"}, {"common_name": f"{'x' * 60}.org"}, 200),
    ({"allow_any_name": "true"}, {"common_name": f"{'x' * 61}.org"}, 400),
]


async def test_a_role_limits_names(ca: VaultAgent) -> None:
    for role, request, status in NAMES:
        await done(ca, "POST", "ca/roles/r", role)
        for path, body in (
            ("ca/issue/r", request),
            ("ca/sign/r", {**request, "csr": pem(make_csr())}),
        ):
            answer = await ca.ask("POST", path, body)
            if path == "ca/sign/r" and any("sans" in name or "alt" in name for name in request):
                continue  # the names come from the request of the key alone
            assert answer.status == status, (role, request, answer.body)
    await done(ca, "POST", "ca/roles/r", {**WEB, "allow_subdomains": True})
    for names, status in ((["dns:a.example.com"], 200), (["dns:a.example.com", "dns:evil.org"], 403)):
        body = {"csr": pem(make_csr(names=names)), "common_name": "a.example.com"}
        assert await ca.status("POST", "ca/sign/r", body) == status
    csr = pem(make_csr(common_name="evil.org"))
    assert await ca.status("POST", "ca/sign/r", {"csr": csr, "common_name": "a.example.com"}) == 403


async def test_a_certificate_with_a_spiffe_id_has_no_other_uri(ca: VaultAgent) -> None:
    await done(ca, "POST", "ca/roles/uris", {"require_cn": False, "allowed_uri_sans": "*"})
    spiffe_id, url, other = "spiffe://td/agent/a", "https://a.example", "https://b.example"
    for uris, is_allowed in (
        ([spiffe_id], True),
        ([spiffe_id, spiffe_id], True),
        ([url, other], True),
        ([spiffe_id, url], False),
        ([url, "spiffe://td/agent/b", spiffe_id], False),
    ):
        csr = {"csr": pem(make_csr(names=[f"uri:{uri}" for uri in dict.fromkeys(uris)]))}
        for path, body in (("ca/issue/uris", {"uri_sans": uris}), ("ca/sign/uris", csr), ("ca/sign-verbatim", csr)):
            if is_allowed:
                signed = load((await done(ca, "POST", path, body))["certificate"])
                names = signed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
                assert names.get_values_for_type(x509.UniformResourceIdentifier) == list(dict.fromkeys(uris))
            else:
                assert "must not have another URI" in await refuse(ca, path, body)


async def test_an_incident_lists_a_certificate_whose_names_are_refused_in_new_requests(
    world: World, ca: VaultAgent
) -> None:
    await done(ca, "POST", "ca/issue/any", {"common_name": "a.example.com"})
    [stored] = flows.list_certificates(world.db.read(), ca.client.id, now=world.now(), limit=9)
    key, old = new_key(), ["uri:spiffe://td", "uri:file:///x", "email:a.@b.example", "dns:xn--a.example", "ip:10.0.0.1"]
    names = [CertificateName(NameKind(kind), value) for kind, _, value in (name.partition(":") for name in old)]
    der = build_certificate(
        issuer=x509.load_der_x509_certificate(await raw(ca, "ca/ca")),
        issuer_key=key,
        serial="1",
        subject="bot",
        public_key=encode_public_key(key.public_key()),
        names=tuple(names),
        usages=("client",),
        not_before=world.now(),
        not_after=stored.not_after,
    )
    await act(world, "vault.write", lambda a: store.insert(a.tx, replace(stored, serial="1", der=der)))
    incident = await act(world, "kill.agent", lambda a: incidents.isolate(a, ca.name, says="a test", source="a test"))
    shown = {one["serial"]: one["names"] for one in blast(world.db.read(), incident, now=world.now())["certificates"]}
    assert shown["1"] == old


async def test_a_role_limits_times_and_keys(ca: VaultAgent, clock: Clock) -> None:
    async def lifetime(role: dict[str, Any], **request: Any) -> int:
        await done(ca, "POST", "ca/roles/r", role)
        made = await done(ca, "POST", "ca/issue/r", {"common_name": "localhost", **request})
        return int(made["expiration"]) - clock.now // 1_000_000

    assert await lifetime({"ttl": "6h", "max_ttl": "12h"}) == 6 * 3600
    assert await lifetime({"ttl": "6h", "max_ttl": "12h"}, ttl="12h") == 12 * 3600
    assert await lifetime({"ttl": "6h", "max_ttl": "12h"}, ttl=12 * 3600 + 1) == 12 * 3600
    assert await lifetime({"max_ttl": "9000h"}, ttl="8700h") == 8700 * 3600
    clock.advance(3600)
    await ca.login()
    message = await refuse(ca, "ca/issue/r", {"common_name": "localhost", "ttl": "8760h"})
    assert "beyond that of the CA" in message
    await refuse(ca, "ca/roles/r", {"ttl": "2h", "max_ttl": "1h"})
    for kind, bits, key_type in (
        ("ec", 0, ec.EllipticCurvePrivateKey),
        ("ec", 384, ec.EllipticCurvePrivateKey),
        ("ed25519", 0, ed25519.Ed25519PrivateKey),
        ("rsa", 2048, rsa.RSAPrivateKey),
    ):
        await done(ca, "POST", "ca/roles/r", {"key_type": kind, "key_bits": bits})
        for form, load_key in (("pem", load_pem_private_key), ("der", load_der_private_key)):
            made = await done(ca, "POST", "ca/issue/r", {"common_name": "localhost", "format": form})
            text = made["private_key"]
            key = load_key(text.encode() if form == "pem" else b64decode(text), None)
            assert isinstance(key, key_type), kind
            assert made["private_key_type"] == kind
        is_own = kind == "ec" and bits == 0
        assert await ca.status("POST", "ca/sign/r", csr_of(new_key(), "localhost")) == (200 if is_own else 400), kind
    bundle = (await done(ca, "POST", "ca/issue/r", {"common_name": "localhost", "format": "pem_bundle"}))["certificate"]
    assert (bundle.count("BEGIN CERTIFICATE"), bundle.count("PRIVATE KEY")) == (2, 2)
    for wrong in ({"key_type": "ec", "key_bits": 521}, {"key_type": "rsa", "key_bits": 1024}, {"key_type": "dsa"}):
        await refuse(ca, "ca/roles/r", wrong)
    weak = rsa.generate_private_key(65537, 1024)
    assert "not certified" in await refuse(ca, "ca/sign/any", csr_of(weak, "localhost"))
    forged = bytearray(make_csr(common_name="a.example.com"))
    forged[-1] ^= 1
    assert "signature" in await refuse(ca, "ca/sign/any", {"csr": pem(bytes(forged))})
    await refuse(ca, "ca/sign/any", {"csr": "no request"})


def csr_of(key: Any, name: str) -> dict[str, str]:
    csr = csr_builder(common_name=name).sign(key, None if isinstance(key, ed25519.Ed25519PrivateKey) else _SHA256)
    return {"csr": csr.public_bytes(Encoding.PEM).decode(), "common_name": name}


async def test_a_certificate_has_the_usages_of_its_role_and_a_verbatim_request_keeps_its_names(ca: VaultAgent) -> None:
    await done(ca, "POST", "ca/roles/r", {"client_flag": False, "key_usage": "", "ext_key_usage": "CodeSigning"})
    leaf = load((await done(ca, "POST", "ca/issue/r", {"common_name": "localhost"}))["certificate"])
    usages = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert {one.dotted_string for one in usages} == {"1.3.6.1.5.5.7.3.1", "1.3.6.1.5.5.7.3.3"}
    assert leaf.extensions.get_extension_for_class(x509.KeyUsage).value.key_encipherment is False
    csr = pem(make_csr(names=["dns:a.example.com", "email:root@example.com"], common_name="anything at all"))
    signed = load(
        (await done(ca, "POST", "ca/sign-verbatim", {"csr": csr, "key_usage": ["KeyEncipherment"]}))["certificate"]
    )
    assert signed.subject.rfc4514_string() == "CN=anything at all"
    assert signed.extensions.get_extension_for_class(x509.KeyUsage).value.key_encipherment is True
    with pytest.raises(x509.ExtensionNotFound):
        signed.extensions.get_extension_for_class(x509.ExtendedKeyUsage)
    assert not signed.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    await refuse(ca, "ca/sign-verbatim", {"csr": csr, "key_usage": ["CertSign"]})
    await refuse(ca, "ca/roles/r", {"key_usage": "CRLSign"})
    await refuse(ca, "ca/roles/r", {"ext_key_usage": "OCSPSigning"})
    for country in ("Germany", "é", "%s", "D"):
        await refuse(ca, "ca/roles/r", {"country": country})
        await refuse(ca, "ca/root/generate/internal", {"common_name": "x", "country": country})
    for length, status in ((-2, 400), (-1, 200), (100, 200), (101, 400), (1 << 70, 400)):
        body = {"common_name": "x", "max_path_length": length}
        assert await ca.status("POST", "ca/root/generate/internal", body) == status
    await refuse(ca, "ca/roles/r", {"no_store": True})
    await refuse(ca, "ca/issue/any", {"common_name": "a.example.com", "serial_number": "12"})
    builder = csr_builder(common_name="a.example.com").add_extension(
        x509.BasicConstraints(ca=True, path_length=None), True
    )
    asks = builder.sign(new_key(), _SHA256).public_bytes(Encoding.PEM).decode()
    for path in ("ca/sign/any", "ca/sign-verbatim"):
        assert "authority" in await refuse(ca, path, {"csr": asks})


async def test_certificates_are_revoked_with_the_agent_and_leased_certificates_with_the_token(
    world: World, app: ASGIApp, ca: VaultAgent, clock: Clock
) -> None:
    await done(ca, "POST", "ca/roles/leased", {"allow_any_name": True, "generate_lease": True})
    other = await (await enter_agent(world, app, "other")).login()
    plain = await done(other, "POST", "ca/issue/any", {"common_name": "a.example.com"})
    leased = await other.ask("POST", "ca/issue/leased", {"common_name": "b.example.com", "ttl": "72h"})
    lease, data = leased.json["lease_id"], leased.json["data"]
    assert lease.startswith("ca/issue/leased/")
    listed = flows.list_certificates(world.db.read(), other.client.id, now=clock.now, limit=9)
    assert {str(name) for one in listed for name in one.names} == {"dns:a.example.com", "dns:b.example.com"}
    login = await other.ask("GET", "auth/token/lookup-self")
    assert leased.json["lease_duration"] <= login.json["data"]["ttl"]
    assert (await done(other, "POST", "sys/leases/lookup", {"lease_id": lease}))["id"] == lease
    await refuse(ca, "sys/leases/lookup", {"lease_id": lease})
    assert "not renewable" in await refuse(other, "sys/leases/renew", {"lease_id": lease})
    assert (await done(ca, "LIST", "sys/leases/lookup/ca"))["keys"] == ["issue/"]
    assert (await done(ca, "LIST", "sys/leases/lookup/ca/issue/leased"))["keys"] == [lease.rpartition("/")[2]]
    assert await revoked(ca) == set()
    await done(other, "POST", "auth/token/revoke-self")
    assert await revoked(ca) == {number(data["serial_number"])}
    assert await ca.status("LIST", "sys/leases/lookup/ca") == 404
    await other.login()
    for kind in ("revoke", "revoke-prefix/{}", "revoke-force/ca/issue"):
        made = await other.ask("POST", "ca/issue/leased", {"common_name": "c.example.com"})
        await done(other, "POST", f"sys/leases/{kind.format('ca/issue/leased')}", {"lease_id": made.json["lease_id"]})
        assert number(made.json["data"]["serial_number"]) in await revoked(ca), kind
    standing = standing_id(AgentId(other.client.id))
    await act(world, "kill.start", lambda a: registry.stop(a, "task", standing, why="a test", by=None))
    held = x509.load_der_x509_crl(await raw(ca, "ca/crl")).get_revoked_certificate_by_serial_number(
        number(plain["serial_number"])
    )
    assert held is not None
    assert held.extensions.get_extension_for_class(x509.CRLReason).value.reason is x509.ReasonFlags.certificate_hold
    await act(world, "kill.end", lambda a: registry.lift_stop(a, "task", standing))
    assert number(plain["serial_number"]) not in await revoked(ca)
    await act(world, "agent.decommission", lambda a: registry.set_agent_state(a, "other", Verb.DECOMMISSION))
    assert number(plain["serial_number"]) in await revoked(ca)
    clock.advance(80 * DAY_S)
    await ca.login()
    assert await revoked(ca) == set(), "lists name no certificate that expired long ago"
    await done(ca, "POST", "ca/tidy", {})
    assert len((await done(ca, "LIST", "ca/certs"))["keys"]) == 1, "the root"


async def test_a_cached_revocation_list_is_rebuilt_after_its_counted_certificates_expire(
    world: World, ca: VaultAgent, clock: Clock
) -> None:
    first = await done(ca, "POST", "ca/issue/any", {"common_name": "a.example.com", "ttl": "1h"})
    await done(ca, "POST", "ca/revoke", {"serial_number": first["serial_number"]})
    assert number(first["serial_number"]) in await revoked(ca)
    clock.advance(26 * 3600)
    await registry.expire_due(world)
    await ca.login()
    second = await done(ca, "POST", "ca/issue/any", {"common_name": "b.example.com", "ttl": "1h"})
    await done(ca, "POST", "ca/revoke", {"serial_number": second["serial_number"]})
    assert number(second["serial_number"]) in await revoked(ca)


async def asked(bot: VaultAgent, mount: str, der: bytes, *, by_path: bool = False) -> ocsp.OCSPResponse:
    """The OCSP response of a mount, without a token."""
    headers = [] if by_path else [("content-type", "application/ocsp-request")]
    path = f"{mount}/ocsp/{quote(b64encode(der).decode(), safe='')}" if by_path else f"{mount}/ocsp"
    answer = await bot.ask("GET" if by_path else "POST", path, None if by_path else der, token="", headers=headers)
    assert answer.status == 200, answer.body
    return ocsp.load_der_ocsp_response(answer.body)


async def test_ocsp_states_the_revocation_status_of_the_certificates_of_its_mount(world: World, ca: VaultAgent) -> None:
    await done(ca, "POST", "sys/mounts/rsa", {"type": "pki"})
    await done(ca, "POST", "rsa/root/generate/internal", {"common_name": "R", "ttl": "1h", "key_type": "rsa"})
    await done(ca, "POST", "rsa/roles/any", {"allow_any_name": True})
    issued = {
        mount: await done(ca, "POST", f"{mount}/issue/any", {"common_name": "x", "ttl": "9m"})
        for mount in ("ca", "rsa")
    }

    def about(mount: str) -> ocsp.OCSPRequestBuilder:
        leaf, root = load(issued[mount]["certificate"]), load(issued[mount]["issuing_ca"])
        return ocsp.OCSPRequestBuilder().add_certificate(leaf, root, hashes.SHA1())

    def der_of(builder: ocsp.OCSPRequestBuilder) -> bytes:
        return builder.build().public_bytes(Encoding.DER)

    for mount in issued:
        nonce = x509.OCSPNonce(b"0123456789")
        answer = await asked(ca, mount, der_of(about(mount).add_extension(nonce, critical=False)))
        serial = load(issued[mount]["certificate"]).serial_number
        assert (answer.certificate_status, answer.serial_number) == (_GOOD, serial)
        assert answer.extensions.get_extension_for_class(x509.OCSPNonce).value == nonce
        root, signed = load(issued[mount]["issuing_ca"]), answer.tbs_response_bytes
        if mount == "ca":
            root.public_key().verify(answer.signature, signed, ec.ECDSA(hashes.SHA256()))  # type: ignore[union-attr, call-arg, arg-type]
        else:
            root.public_key().verify(answer.signature, signed, PKCS1v15(), hashes.SHA256())  # type: ignore[union-attr, call-arg, arg-type]
        assert (await asked(ca, mount, der_of(about(mount)), by_path=True)).certificate_status is _GOOD
    foreign = await asked(ca, "rsa", der_of(about("ca")))
    assert foreign.response_status is ocsp.OCSPResponseStatus.UNAUTHORIZED
    leaf, root = load(issued["ca"]["certificate"]), load(issued["rsa"]["issuing_ca"])
    mixed = ocsp.OCSPRequestBuilder().add_certificate(leaf, root, hashes.SHA256())
    assert (await asked(ca, "ca", der_of(mixed))).response_status is ocsp.OCSPResponseStatus.UNAUTHORIZED
    for by_path in (False, True):
        answer = await asked(ca, "ca", b"x", by_path=by_path)
        assert answer.response_status is ocsp.OCSPResponseStatus.MALFORMED_REQUEST
        assert newest_entry(world).action == "cert.status"
    assert await ca.status("POST", "ca/ocsp", {}, token="") == 400, "the type of the content is JSON"
    assert await ca.status("GET", "ca/ocsp", token="") == 405
    assert await ca.status("GET", "secret/ocsp/x", token="") == 403
    await done(ca, "POST", "ca/revoke", {"serial_number": issued["ca"]["serial_number"]})
    assert (await asked(ca, "ca", der_of(about("ca")))).certificate_status is ocsp.OCSPCertStatus.REVOKED
    await act(world, "agent.suspend", lambda a: registry.set_agent_state(a, ca.name, Verb.SUSPEND))
    assert (await asked(ca, "rsa", der_of(about("rsa")))).certificate_status is ocsp.OCSPCertStatus.REVOKED
    await seal_all(world)
    assert (await asked(ca, "ca", der_of(about("ca")))).response_status is ocsp.OCSPResponseStatus.TRY_LATER


async def test_a_mount_can_have_several_issuers_and_a_revoked_issuer_cannot_sign(ca: VaultAgent, clock: Clock) -> None:
    clock.advance(1)
    first = (await done(ca, "LIST", "ca/issuers"))["keys"][0]
    second = await done(ca, "POST", "ca/root/generate/exported", {"common_name": "Next", "issuer_name": "next"})
    assert "PRIVATE KEY" in second["private_key"]
    assert (await done(ca, "GET", "ca/config/issuers"))["default"] == first
    for wrong in ("next", "default", "a b", "x" * 65):
        await refuse(ca, "ca/root/generate/internal", {"common_name": "x", "issuer_name": wrong})
    await done(ca, "POST", "ca/config/issuers", {"default": "next"})
    made = await done(ca, "POST", "ca/issue/any", {"common_name": "a.example.com"})
    assert load(made["certificate"]).issuer.rfc4514_string() == "CN=Next"
    made = await done(ca, "POST", f"ca/issuer/{first}/issue/any", {"common_name": "a.example.com"})
    assert load(made["certificate"]).issuer.rfc4514_string() == "CN=A root"
    assert await revoked(ca, "ca/issuer/next/crl") == set()
    shown = await done(ca, "POST", "ca/issuer/next", {"issuer_name": "old"})
    assert (shown["issuer_name"], shown["revoked"]) == ("old", False)
    assert (await done(ca, "POST", f"ca/issuer/{first}/revoke"))["revoked"] is True
    assert number(made["serial_number"]) in await revoked(ca, f"ca/issuer/{first}/crl"), "and all below a revoked one"
    await refuse(ca, f"ca/issuer/{first}/issue/any", {"common_name": "a.example.com"})
    await refuse(ca, "ca/issuer/next/issue/any", {"common_name": "a.example.com"}, status=500)
    await done(ca, "DELETE", "ca/issuer/old")
    assert await ca.status("GET", "ca/issuer/old") == 500
    assert await ca.status("GET", "ca/issuer/old/pem", token="") == 404
    public, shown = await done(ca, "GET", "ca/issuer/default/json"), await done(ca, "GET", "ca/issuer/default")
    assert public == {name: shown[name] for name in ("issuer_id", "issuer_name", "certificate", "ca_chain")}
    assert await ca.status("GET", "ca/issuer/default/json", token="") == 200
    for _ in range(MAX_ISSUERS - 1):
        await done(ca, "POST", "ca/root/generate/internal", {"common_name": "more"})
    await refuse(ca, "ca/root/generate/internal", {"common_name": "more"})
    await done(ca, "DELETE", "ca/root")
    assert await ca.status("LIST", "ca/issuers") == 404
    assert await ca.status("GET", "ca/crl", token="") == 404


async def test_an_external_authority_is_imported_with_its_key(ca: VaultAgent, clock: Clock) -> None:
    clock.advance(1)  # the first issuer of the mount is its default
    made = await done(ca, "POST", "ca/root/generate/exported", {"common_name": "Elsewhere", "max_path_length": 0})
    await done(ca, "POST", "sys/mounts/other", {"type": "pki"})
    key, stranger = made["private_key"], pem_key(new_key())
    for wrong in (
        "",
        "no PEM",
        key,
        made["certificate"] + stranger,
        made["certificate"] + key + key,
        made["certificate"] * 9,
        made["certificate"] + encode_slow_key(Encoding.PEM).decode(),
        (await done(ca, "POST", "ca/issue/any", {"common_name": "a.example.com"}))["certificate"],
    ):
        await refuse(ca, "other/config/ca", {"pem_bundle": wrong})
    locked = load_pem_private_key(key.encode(), None)
    with_password = locked.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"word")).decode()
    for broken, message in (
        (with_password, "the private key of the bundle has a password"),
        (key.replace("\n", "\nAAAA", 1), "the private key of the bundle is damaged"),
    ):
        assert message in await refuse(ca, "other/config/ca", {"pem_bundle": made["certificate"] + broken})
    assert await ca.status("LIST", "other/issuers") == 404, "nothing of a refused bundle is stored"
    for permitted in ("corp.example.", "a b.example"):
        wrong = {"pem_bundle": self_issued(clock.now // SECOND, permitted=(f"dns:{permitted}",))}
        assert f"permit '{permitted}', which is not a DNS name" in await refuse(ca, "other/config/ca", wrong)
        wrong = {"certificate": wrong["pem_bundle"]}
        assert "which is not a DNS name" in await refuse(ca, "ca/root/sign-self-issued", wrong)
    assert "no certificate is for" in await refuse(
        ca, "other/intermediate/set-signed", {"certificate": made["certificate"]}
    )
    await done(ca, "POST", "other/config/ca", {"pem_bundle": key + made["certificate"]})
    without = {"pem_bundle": key + self_issued(clock.now // SECOND)}
    assert "belongs to no certificate in the bundle" in await refuse(ca, "other/config/ca", without)
    assert key.splitlines()[1] not in repr(ca.client.world.db.read().all(_ENTRIES))
    await done(ca, "POST", "other/roles/any", {"allow_any_name": True})
    leaf = load((await done(ca, "POST", "other/issue/any", {"common_name": "a.example.com"}))["certificate"])
    leaf.verify_directly_issued_by(load(made["certificate"]))
    below = pem(make_csr(common_name="below"))
    assert "0 authorities below" in await refuse(ca, "other/root/sign-intermediate", {"csr": below, "common_name": "b"})
    crossed = await done(ca, "POST", "ca/root/sign-self-issued", {"certificate": made["certificate"]})
    load(crossed["certificate"]).verify_directly_issued_by(x509.load_der_x509_certificate(await raw(ca, "ca/ca")))
    await refuse(ca, "ca/root/sign-self-issued", {"certificate": crossed["certificate"]})
    below = await done(ca, "POST", "ca/root/sign-intermediate", {"csr": below, "common_name": "b", "ttl": "9000h"})
    root = load(below["issuing_ca"])
    assert load(below["certificate"]).not_valid_after_utc == root.not_valid_after_utc, "it ends with its issuer"
    for begin, status in (
        (-3 * YEAR, 200),
        (3 * YEAR, 400),
    ):  # one that has ended, and one that begins after the issuer
        answer = await ca.ask(
            "POST", "ca/root/sign-self-issued", {"certificate": self_issued(clock.now // SECOND + begin)}
        )
        assert answer.status == status, answer.body


async def test_an_imported_key_is_added_to_the_issuers_with_its_certificates(ca: VaultAgent) -> None:
    for mount in ("elsewhere", "other"):
        await done(ca, "POST", f"sys/mounts/{mount}", {"type": "pki"})
    made = await done(ca, "POST", "elsewhere/root/generate/exported", {"common_name": "Elsewhere"})
    crossed = await done(ca, "POST", "ca/root/sign-self-issued", {"certificate": made["certificate"]})
    order = {"csr": pem(make_csr(common_name="a.example.com"))}
    both = {"pem_bundle": made["certificate"] + crossed["certificate"]}
    imported = await done(ca, "POST", "other/config/ca", both)
    assert imported["imported_keys"] == []
    [root, cross] = imported["imported_issuers"]
    await done(ca, "POST", f"other/issuer/{root}", {"issuer_name": "elsewhere"})
    await done(ca, "POST", "other/config/issuers", {"default": root})
    await done(ca, "POST", "other/issuer/elsewhere/revoke")
    await refuse(ca, f"other/issuer/{cross}/sign-verbatim", order)
    again = await done(ca, "POST", "other/config/ca", {"pem_bundle": made["certificate"] + made["private_key"]})
    assert (again["imported_issuers"], again["mapping"]) == ([root], {root: root})
    shown = await done(ca, "GET", "other/issuer/elsewhere")
    assert (shown["issuer_id"], shown["revoked"], shown["key_id"]) == (root, True, root)
    assert (await done(ca, "GET", "other/config/issuers"))["default"] == root
    assert "revoked" in await refuse(ca, "other/issuer/elsewhere/sign-verbatim", order)
    signed = await done(ca, "POST", f"other/issuer/{cross}/sign-verbatim", order)
    load(signed["certificate"]).verify_directly_issued_by(load(crossed["certificate"]))


async def test_a_certificate_chain_is_cached_until_the_issuers_change(ca: VaultAgent, clock: Clock) -> None:
    crossed = await done(ca, "POST", "ca/root/sign-self-issued", {"certificate": self_issued(clock.now // SECOND)})
    [id] = (await done(ca, "POST", "ca/config/ca", {"pem_bundle": crossed["certificate"]}))["imported_issuers"]
    root = await raw(ca, "ca/ca/pem")
    await done(ca, "POST", "ca/config/issuers", {"default": id})
    assert await raw(ca, "ca/ca_chain") == crossed["certificate"].encode() + root
    before = find_chain.cache_info()
    assert await raw(ca, "ca/ca_chain") == crossed["certificate"].encode() + root
    assert find_chain.cache_info() == before._replace(hits=before.hits + 1)
    [root_id] = {one.issuer_id for one in store.issuers(ca.client.world.db.read(), "ca")} - {id}
    await done(ca, "DELETE", f"ca/issuer/{root_id}")
    assert await raw(ca, "ca/ca_chain") == crossed["certificate"].encode()


async def test_agents_take_turns_at_the_generator_of_keys(world: World) -> None:
    generator, order = KeyGenerator(world), list[str]()

    async def generate(agent: str) -> None:
        await generator.generate("RSA-2048", agent)
        order.append(agent)

    await asyncio.gather(*(generate(agent) for agent in ("greedy",) * 6 + ("calm", "other")))
    assert order[:4] == ["greedy", "calm", "other", "greedy"]


async def test_keys_of_issuers_are_sealed_and_rotate_with_all_secrets(world: World, ca: VaultAgent) -> None:
    [issuer] = store.issuers(world.db.read(), "ca")
    before = store.key_of(world.db.read(), issuer.issuer_id)
    await act(world, "vault.rotate", seal.rotate_keys)
    assert await seal.renew_envelopes(world) == 1
    assert store.key_of(world.db.read(), issuer.issuer_id) != before
    await done(ca, "POST", "ca/issue/any", {"common_name": "a.example.com"})
    await seal_all(world)
    assert await ca.status("POST", "ca/issue/any", {"common_name": "a.example.com"}) == 503
    assert await ca.status("GET", "ca/crl", token="") == 503
    assert await ca.status("GET", "ca/ca/pem", token="") == 200


async def test_each_pki_operation_needs_its_permission_and_a_disabled_mount_revokes_its_certificates(
    world: World, app: ASGIApp, ca: VaultAgent
) -> None:
    made = await done(ca, "POST", "ca/issue/any", {"common_name": "a.example.com"})
    only = """@id("use") permit (principal is Agent, action == Action::"use_secret_key", resource is Secret)
        when { resource.mount == "ca" && resource.path == "issue/any" };"""
    await put_policies(world, only + '@id("t") permit (principal is Agent, action == Action::"issue_token", resource);')
    await done(ca, "POST", "ca/issue/any", {"common_name": "a.example.com"})
    for method, path in (
        ("POST", "ca/sign/any"),
        ("POST", "ca/sign-verbatim"),
        ("POST", "ca/root/generate/exported"),
        ("POST", "ca/roles/any"),
        ("POST", "ca/revoke"),
        ("POST", "ca/config/ca"),
        ("POST", "ca/issuer/default/issue/any"),
        ("DELETE", "ca/root"),
        ("GET", "ca/roles/any"),
        ("LIST", "ca/certs"),
    ):
        answer = await ca.ask(method, path, {"common_name": "x"} if method == "POST" else None)
        assert answer.status == 403, (path, answer.body)
    for path, status in (("ca/nothing", 403), ("ca/issuer/default/nothing", 403), ("ca/root", 405), ("ca/certs", 405)):
        assert await ca.status("POST", path, {}) == status, path
    await permit_all(world)
    for path in ("ca/nothing", "ca/issuer/default/nothing"):
        assert await ca.status("POST", path, {}) == 404, path
    assert await ca.status("POST", "sys/remount", {"from": "ca", "to": "moved"}) == 400
    await done(ca, "DELETE", "sys/mounts/ca")
    assert await ca.status("GET", "ca/crl", token="") == 403
    holding = registry.get_holding(world.db.read(), f"mc_{number(made['serial_number']):032x}")
    assert holding is not None
    assert holding.ended_why is not None
    await done(ca, "POST", "sys/mounts/ca", {"type": "pki"})
    assert await ca.status("LIST", "ca/certs") == 404
    assert await ca.status("LIST", "ca/roles") == 404


@pytest.mark.parametrize(
    ("pattern", "text", "is_match"),
    [
        ("a*c", "abc", True),
        ("a*c", "ac", True),
        ("aba*aba", "aba", False),
        ("*", "", True),
        ("a", "a", True),
        ("a", "ab", False),
        ("*b*d*", "abcd", True),
        ("*d*b*", "abcd", False),
        ("*" * 500 + "x", "y" * 500, False),
    ],
)
def test_a_pattern_matches_in_linear_time(pattern: str, text: str, is_match: bool) -> None:
    assert matches_glob(pattern, text) is is_match
