"""Mutual TLS for OAuth (RFC 8705) at the endpoints, with certificates that a proxy forwards (RFC 9440)."""

from __future__ import annotations

import json
import ssl
from base64 import b64encode
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from harness.client_certificates import (
    CLIENT,
    LOCAL,
    SERVER,
    Made,
    TestAuthority,
    der,
    new_key,
    of_unknown_version,
    self_signed,
)
from harness.clock import Clock
from harness.registry_fixtures import newest_entry
from ostiary.authorization.assurance import KEY, TWO_KEYS
from ostiary.protocol import jose
from ostiary.protocol.errors import Conflict, NotFound, Refused
from ostiaryd.ledger.flows import act
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Verb
from ostiaryd.trust import flows
from ostiaryd.trust.model.certificates import (
    MAX_ANCHORS,
    MAX_CERTIFICATES,
    SELF_SIGNED,
    TLS_CLIENT_AUTH,
    InvalidCertificate,
    check_subject,
    key_thumbprint,
)
from ostiaryd.trust.model.clients import InvalidClientMetadata, parse_document
from ostiaryd.trust.store import certificates as store
from tests.support.api_fixtures import (
    ASSERTION_TYPE,
    FILES,
    ISSUER,
    Answer,
    Client,
    claims_of,
    oauth_app,
    send,
)
from tests.support.certificate_fixtures import issue, read, revoke
from tests.support.tls_client import NAMES, SUBJECT, URI, TlsClient, proof, register_other
from tests.support.trust_fixtures import api_app

PROXY, STRANGER = "10.0.0.1", "192.0.2.1"
SECOND = 1_000_000


@pytest.fixture
async def tls(client: Client) -> TlsClient:
    made = TlsClient(client)
    await made.trust()
    return made


async def test_a_certificate_with_the_registered_subject_gets_a_token_that_is_bound_to_it(tls: TlsClient) -> None:
    await tls.register()
    made = tls.issue()
    answer = await tls.ask(made)
    assert (answer.status, answer.json["token_type"]) == (200, "Bearer"), answer.body
    claims = claims_of(answer.json["access_token"])
    assert claims["cnf"] == {"x5t#S256": made.shown.thumbprint}
    assert (claims["client_id"], claims["acr"], claims["aud"]) == (tls.client.id, KEY, FILES)
    entry = newest_entry(tls.world)
    assert (entry.action, entry.agent, entry.key) == ("token.issue", tls.client.id, made.shown.thumbprint)


@pytest.mark.parametrize(
    ("subject", "names", "registered"),
    [
        ("CN=reports,OU=b,O=Example", (), {"tls_client_auth_subject_dn": "cn=Reports, ou=B, o=EXAMPLE"}),
        ("CN=a", [x509.DNSName("a.example.org")], {"tls_client_auth_san_dns": "A.Example.ORG"}),
        ("CN=a", [LOCAL[1]], {"tls_client_auth_san_ip": "127.0.0.1"}),
        ("CN=a", [x509.RFC822Name("a@example.org")], {"tls_client_auth_san_email": "a@Example.org"}),
        ("CN=a", [LOCAL[0], *NAMES], SUBJECT),
    ],
)
async def test_a_certificate_with_each_kind_of_registered_subject_authenticates(
    tls: TlsClient, subject: str, names: list[x509.GeneralName], registered: dict[str, str]
) -> None:
    await tls.register(registered)
    assert (await tls.ask(tls.issue(subject, names=names))).status == 200


@pytest.mark.parametrize(
    ("subject", "names", "registered"),
    [
        ("CN=reports,O=Example", (), {"tls_client_auth_subject_dn": "CN=reports"}),
        ("CN=reports,O=Example", (), {"tls_client_auth_subject_dn": "O=Example,CN=reports"}),
        ("CN=report", (), {"tls_client_auth_subject_dn": "CN=reports"}),
        ("CN=a.example.org", (), {"tls_client_auth_san_dns": "a.example.org"}),
        ("CN=a", [x509.DNSName("*.example.org")], {"tls_client_auth_san_dns": "a.example.org"}),
        ("CN=a", [x509.DNSName("127.0.0.1")], {"tls_client_auth_san_ip": "127.0.0.1"}),
        ("CN=a", [x509.RFC822Name("A@example.org")], {"tls_client_auth_san_email": "a@example.org"}),
        ("CN=a", [x509.UniformResourceIdentifier(URI + "/x")], SUBJECT),
        ("CN=a", [x509.UniformResourceIdentifier(URI.upper())], SUBJECT),
        ("CN=a", [*NAMES, x509.UniformResourceIdentifier("spiffe://example.org/agent/other")], SUBJECT),
        ("CN=a", (), SUBJECT),
    ],
)
async def test_a_certificate_without_exactly_the_registered_subject_is_refused(
    tls: TlsClient, subject: str, names: list[x509.GeneralName], registered: dict[str, str]
) -> None:
    await tls.register(registered)
    words = "subject of the certificate" if "tls_client_auth_subject_dn" in registered else "alternative name"
    assert await tls.refuse(tls.issue(subject, names=names), words)


async def test_a_certificate_is_valid_from_its_first_second_to_its_last(tls: TlsClient) -> None:
    await tls.register()
    hour = timedelta(hours=1)
    assert await tls.refuse(tls.issue(begins=-hour, ends=timedelta(seconds=-1)), "has expired")
    assert (await tls.ask(tls.issue(begins=-hour, ends=timedelta(0)))).status == 200, "its last second"
    assert await tls.refuse(tls.issue(begins=timedelta(seconds=1), ends=hour), "not valid yet")
    assert (await tls.ask(tls.issue(begins=timedelta(0), ends=hour))).status == 200


async def test_a_certificate_of_another_authority_is_refused_also_with_the_same_names(tls: TlsClient) -> None:
    await tls.register()
    foreign = TestAuthority(at=tls.now)
    assert await tls.refuse(foreign.issue("CN=reader", names=NAMES, at=tls.now), "leads to no trust anchor")
    assert await tls.refuse(self_signed("CN=reader", names=NAMES, at=tls.now), "leads to no trust anchor")
    leaf = tls.issue()
    below = leaf.certificate, leaf.key
    forged = TestAuthority("CN=reader", at=tls.now)
    forged.key, forged.certificate = below[1], below[0]
    assert await tls.refuse(
        Made(forged.issue("CN=x", names=NAMES, at=tls.now).certificate, leaf.key, (leaf.certificate,)),
        "leads to no trust anchor",
    )


async def test_an_intermediate_authority_comes_with_the_certificate_or_is_an_anchor(tls: TlsClient) -> None:
    await tls.register()
    below = TestAuthority("CN=below", below=tls.authority, at=tls.now)
    made = below.issue("CN=reader", names=NAMES, at=tls.now)
    assert (await tls.ask(made)).status == 200
    alone = Made(made.certificate, made.key)
    assert await tls.refuse(alone, "leads to no trust anchor")
    await tls.trust(below, "below")
    assert (await tls.ask(alone)).status == 200
    await act(tls.world, "anchor.remove", lambda act: flows.remove_anchor(act, "company"))
    assert (await tls.ask(alone)).status == 200, "an anchor need not be a root"
    await act(tls.world, "anchor.remove", lambda act: flows.remove_anchor(act, "below"))
    assert await tls.refuse(made, "does not authenticate the client")


async def test_a_certificate_of_an_expired_authority_is_refused(tls: TlsClient) -> None:
    await tls.register()
    for ends, status in ((0, 200), (-1, 401)):
        below = TestAuthority("CN=below", below=tls.authority, at=tls.now, ends=timedelta(seconds=ends))
        assert (await tls.ask(below.issue("CN=reader", names=NAMES, at=tls.now))).status == status


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"usages": [SERVER]}, "does not allow client authentication"),
        ({"kind": "RSA-1024"}, "weak key"),
        ({"kind": "P-192"}, "weak key"),
    ],
)
async def test_a_certificate_with_a_weak_key_or_for_server_authentication_is_refused(
    tls: TlsClient, options: dict[str, Any], words: str
) -> None:
    await tls.register()
    assert await tls.refuse(tls.issue(**options), words)


@pytest.mark.parametrize("options", [{"usages": [SERVER, CLIENT]}, {"kind": "RSA-2048"}, {"kind": "Ed25519"}])
async def test_other_strong_certificates_authenticate(tls: TlsClient, options: dict[str, Any]) -> None:
    await tls.register()
    assert (await tls.ask(tls.issue(**options))).status == 200


async def test_authorities_with_ed25519_and_rsa_keys_are_trusted(tls: TlsClient) -> None:
    await tls.register()
    for kind in ("Ed25519", "RSA-2048"):
        authority = TestAuthority(f"CN={kind}", kind=kind, at=tls.now)
        await tls.trust(authority, kind.lower())
        assert (await tls.ask(authority.issue("CN=reader", names=NAMES, at=tls.now))).status == 200


async def test_a_self_signed_certificate_authenticates_if_it_is_registered(tls: TlsClient) -> None:
    made, other = self_signed(at=tls.now), self_signed(at=tls.now)
    await tls.register(None, made)
    answer = await tls.ask(made)
    assert claims_of(answer.json["access_token"])["cnf"] == {"x5t#S256": made.shown.thumbprint}
    assert await tls.refuse(other, "does not authenticate the client")
    assert await tls.refuse(tls.issue(), "does not authenticate the client")
    await tls.register(None, other)
    assert await tls.refuse(made, "does not authenticate the client")
    assert (await tls.ask(other)).status == 200


async def test_a_client_without_a_certificate_or_a_registration_is_not_authenticated(tls: TlsClient) -> None:
    assert await tls.refuse(tls.issue(), "unknown client, or this certificate does not authenticate the client")
    await tls.register()
    assert await tls.refuse(None, "did not authenticate")
    assert await tls.refuse(tls.issue(), "unknown client", client_id="ag_" + "0" * 32)
    assert await tls.refuse(tls.issue(), "did not authenticate", client_id="")
    assert await tls.refuse(tls.issue(), "unknown client", client_id="x" * 300)


@pytest.mark.parametrize("verb", [Verb.SUSPEND, Verb.QUARANTINE, Verb.DECOMMISSION])
async def test_the_certificate_of_an_agent_that_is_not_active_is_refused(tls: TlsClient, verb: Verb) -> None:
    await tls.register()
    made = tls.issue()
    assert (await tls.ask(made)).status == 200
    await act(tls.world, "agent.test", lambda act: registry.set_agent_state(act, "reader", verb))
    assert await tls.refuse(made, "the agent is")


async def test_a_certificate_with_a_revoked_key_of_the_client_is_refused(tls: TlsClient) -> None:
    await tls.register()
    made = tls.issue()
    jwk = jose.render_public_jwk(made.key.public_key())
    key = await act(tls.world, "key.add", lambda act: registry.add_key(act, "reader", jwk))
    assert key.jkt == key_thumbprint(made.certificate)
    assert (await tls.ask(made)).status == 200, "it is the client's own"
    await act(tls.world, "key.revoke", lambda act: registry.revoke_key(act, key.jkt))
    assert await tls.refuse(made, "was revoked")


async def test_a_certificate_with_an_expired_key_of_the_client_is_refused(tls: TlsClient, clock: Clock) -> None:
    await tls.register()
    made = tls.issue()
    jwk, ends = jose.render_public_jwk(made.key.public_key()), tls.world.now() + 60 * SECOND
    await act(tls.world, "key.add", lambda act: registry.add_key(act, "reader", jwk, not_after=ends))
    clock.advance(us=60 * SECOND - 1)
    assert (await tls.ask(made)).status == 200
    clock.advance(us=1)
    assert await tls.refuse(made, "the registered key of the certificate was revoked or has expired")


async def test_a_certificate_with_a_key_of_another_client_is_refused(tls: TlsClient) -> None:
    other, _ = await register_other(tls)
    await tls.register()
    made = tls.issue()
    assert (await tls.ask(made)).status == 200
    jwk = jose.render_public_jwk(made.key.public_key())
    await act(tls.world, "key.add", lambda act: registry.add_key(act, other, jwk))
    assert await tls.refuse(made, "belongs to another client")
    assert (await tls.ask(tls.issue())).status == 200, "a certificate with another key"


# --- the header


async def test_the_client_cert_header_counts_only_from_configured_proxies(tls: TlsClient) -> None:
    await tls.register()
    made = tls.issue()
    assert await tls.refuse(made, "did not authenticate", address=STRANGER)
    assert await tls.refuse(made, "did not authenticate", address="11.0.0.1")
    assert await tls.refuse(made, "did not authenticate", address="")
    for address in ("10.0.0.1", "10.255.255.255", "::ffff:10.0.0.1"):
        assert (await tls.ask(made, address=address)).status == 200
    forged = ("x-forwarded-for", PROXY)
    assert (await tls.ask(made, forged, address=STRANGER)).status == 401


@pytest.mark.parametrize("value", ["", "::", ":AAAA:", "x", ":" + "A" * 30_000 + ":"])
async def test_a_malformed_header_of_a_proxy_is_an_invalid_request(tls: TlsClient, value: str) -> None:
    await tls.register()
    answer = await tls.ask(None, ("client-cert", value))
    assert (answer.status, answer.error) == (400, "invalid_request"), answer.body
    assert "Client-Cert" in answer.json["error_description"]
    made = tls.issue()
    assert (await tls.ask(made, *made.fields)).status == 400, "twice"


async def test_each_request_of_a_proxy_is_authenticated_by_its_own_certificate_only(tls: TlsClient) -> None:
    name, other = await register_other(tls)
    uri = "spiffe://example.org/agent/other"
    await tls.register()
    await tls.register({"tls_client_auth_san_uri": uri}, agent=name)
    second = tls.issue("CN=other", names=[x509.UniformResourceIdentifier(uri)])
    certificates = {tls.client.id: tls.issue(), other: second}
    for client in (tls.client.id, other, tls.client.id):
        answer = await tls.ask(certificates[client], client_id=client)
        claims = claims_of(answer.json["access_token"])
        binding = {"x5t#S256": certificates[client].shown.thumbprint}
        assert (claims["client_id"], claims["cnf"]) == (client, binding)
    for client, shown in ((tls.client.id, other), (other, tls.client.id)):
        assert await tls.refuse(certificates[shown], "alternative name", client_id=client)


# --- tokens


async def use(tls: TlsClient, token: str, made: Made | None, *, scheme: str = "Bearer", **fields: str) -> Answer:
    headers = [("authorization", f"{scheme} {token}"), *(made.fields if made else ()), *fields.items()]
    return await send(api_app(tls.world), "GET", "/api/v1/whoami", headers=headers, address=PROXY)


async def api_token(tls: TlsClient, made: Made, *fields: tuple[str, str], **form: Any) -> str:
    answer = await tls.ask(made, *fields, resource=f"{ISSUER}/api/v1", **form)
    assert answer.status == 200, answer.body
    return str(answer.json["access_token"])


async def test_the_api_accepts_a_certificate_bound_token_only_with_its_certificate(tls: TlsClient) -> None:
    await tls.register()
    made, other = tls.issue(), tls.issue()
    token = await api_token(tls, made)
    answer = await use(tls, token, made)
    assert (answer.status, answer.json["id"]) == (200, tls.client.id), answer.body
    for shown, words in ((other, "another client certificate"), (None, "none was shown")):
        refused = await use(tls, token, shown)
        assert (refused.status, refused.error) == (401, "invalid_token")
        assert words in refused.json["message"]
        assert 'error="invalid_token"' in refused.headers["www-authenticate"]
    refused = await use(tls, token, made, scheme="DPoP")
    assert (refused.status, refused.json["hint"].partition(",")[0]) == (401, "send the token with the scheme Bearer")


async def test_a_token_is_bound_to_the_dpop_key_alone_unless_the_client_requires_both_bindings(tls: TlsClient) -> None:
    await tls.register()
    made, key = tls.issue(), jose.generate("ES256")
    answer = await tls.ask(made, proof(tls, key))
    claims = claims_of(answer.json["access_token"])
    assert (answer.json["token_type"], claims["cnf"]) == ("DPoP", {"jkt": key.public.thumbprint})
    await tls.register(bound=True)
    answer = await tls.ask(made, proof(tls, key))
    claims = claims_of(answer.json["access_token"])
    assert claims["cnf"] == {"jkt": key.public.thumbprint, "x5t#S256": made.shown.thumbprint}
    assert answer.json["token_type"] == "DPoP"
    assertion = {"client_assertion_type": ASSERTION_TYPE, "client_assertion": tls.client.assertion()}
    refused = await tls.ask(None, proof(tls, tls.client.key), **assertion)
    assert (refused.status, refused.error) == (400, "invalid_request")
    assert "bound to its certificate" in refused.json["error_description"]


def private_key_of(made: Made) -> jose.PrivateKey:
    """Return the P-256 key of a certificate as a key that makes DPoP proofs."""
    number = made.key.private_numbers().private_value
    return jose.parse_private_jwk(jose.render_public_jwk(made.key.public_key()) | {"d": jose.b64u(number.to_bytes(32))})


async def test_a_certificate_and_a_dpop_key_count_as_two_keys_if_they_differ_and_are_registered(tls: TlsClient) -> None:
    await tls.register()
    made = tls.issue()
    acr = [claims_of((await tls.ask(made, proof(tls, tls.client.key))).json["access_token"])["acr"]]
    acr.append(claims_of((await tls.ask(made, proof(tls, jose.generate("ES256")))).json["access_token"])["acr"])
    assert acr == [TWO_KEYS, KEY], "the second key is not registered"

    private = private_key_of(made)
    await act(tls.world, "key.add", lambda act: registry.add_key(act, "reader", dict(private.public.jwk)))
    same = await tls.ask(made, proof(tls, private))
    assert claims_of(same.json["access_token"])["acr"] == KEY, "one key is one proof"


async def test_an_assertion_and_a_certificate_count_as_two_keys_if_the_certificate_is_registered(
    tls: TlsClient,
) -> None:
    async def acr(made: Made) -> str:
        answer = await tls.ask(
            made,
            client_assertion_type=ASSERTION_TYPE,
            client_assertion=tls.client.assertion(),
        )
        claims = claims_of(answer.json["access_token"])
        assert claims["cnf"] == {"x5t#S256": made.shown.thumbprint}
        return str(claims["acr"])

    made = tls.issue()
    assert await acr(made) == KEY, "the certificate is not registered"
    await tls.register()
    assert await acr(made) == TWO_KEYS


async def test_a_token_is_not_bound_to_the_certificate_of_another_client(tls: TlsClient) -> None:
    made = self_signed(at=tls.now)
    other, _ = await register_other(tls)
    await tls.register(None, made, agent=other)
    answer = await tls.ask(
        made,
        client_assertion_type=ASSERTION_TYPE,
        client_assertion=tls.client.assertion(),
    )
    assert (answer.status, answer.error) == (401, "invalid_client")
    assert "another client" in answer.json["error_description"]


async def test_introspection_shows_the_binding_and_authenticates_by_certificate(tls: TlsClient) -> None:
    await tls.register()
    made = tls.issue()
    token = (await tls.ask(made)).json["access_token"]
    form = {"token": token, "client_id": tls.client.id}
    answer = await tls.post("/introspect", form, made=made)
    assert answer.json["active"] is True
    assert (answer.json["token_type"], answer.json["cnf"]) == ("Bearer", {"x5t#S256": made.shown.thumbprint})
    assert (await tls.post("/introspect", form)).status == 401
    assert (await tls.post("/revoke", form, made=made)).status == 200
    assert (await tls.post("/introspect", form, made=made)).json == {"active": False}


async def test_a_changed_or_removed_certificate_subject_revokes_the_tokens_of_the_client(tls: TlsClient) -> None:
    await tls.register()
    made = tls.issue()
    token = await api_token(tls, made)
    await tls.register({"tls_client_auth_subject_dn": "CN=reader"})
    assert (await use(tls, token, made)).status == 401
    token = await api_token(tls, made)
    await act(tls.world, "agent.mutual_tls", lambda act: flows.remove_certificate_client(act, "reader"))
    assert (await use(tls, token, made)).status == 401
    assert await tls.refuse(made, "does not authenticate the client")


async def test_a_revoked_key_ends_the_tokens_of_its_certificate(tls: TlsClient) -> None:
    await tls.register()
    made = tls.issue()
    jwk = jose.render_public_jwk(made.key.public_key())
    key = await act(tls.world, "key.add", lambda act: registry.add_key(act, "reader", jwk))
    token = await api_token(tls, made)
    assert (await use(tls, token, made)).status == 200
    await act(tls.world, "key.revoke", lambda act: registry.revoke_key(act, key.jkt))
    assert (await use(tls, token, made)).status == 401


async def issued_here(tls: TlsClient) -> Made:
    """Return a certificate of this server's own authority."""
    key = new_key()
    issued = await issue(tls.world, key=key, agent="reader")
    return Made(read(issued.certificate.der), key, tuple(map(read, issued.chain)))


def is_live(tls: TlsClient, id: str) -> bool:
    holding = registry.get_holding(tls.world.db.read(), id)
    return holding is not None and holding.is_live(tls.world.now())


async def test_a_revoked_certificate_ends_the_tokens_that_were_obtained_with_it(tls: TlsClient) -> None:
    made, kept = await issued_here(tls), await issued_here(tls)
    asserted = {"client_assertion_type": ASSERTION_TYPE, "client_assertion": tls.client.assertion()}
    answers = [
        await tls.ask(made),
        await tls.ask(made, proof(tls, jose.generate("ES256"))),
        await tls.ask(made, proof(tls, private_key_of(made))),
        await tls.ask(made, **asserted),
        await tls.ask(kept),
        await tls.ask(kept, proof(tls, jose.generate("ES256"))),
    ]
    assert [answer.status for answer in answers] == [200] * len(answers)
    await revoke(tls.world, f"{made.certificate.serial_number:032x}")
    tokens = [claims_of(answer.json["access_token"])["jti"] for answer in answers]
    live = [is_live(tls, id) for id in tokens]
    assert live == [False, False, False, False, True, True]
    form = {"client_id": tls.client.id}
    shown = [
        (await tls.post("/introspect", form | {"token": answer.json["access_token"]}, made=kept)).json["active"]
        for answer in answers
    ]
    assert shown == live


@pytest.mark.parametrize("is_demanded", [False, True])
async def test_no_token_is_bound_to_a_revoked_certificate_of_this_server(tls: TlsClient, is_demanded: bool) -> None:
    made = await issued_here(tls)
    await tls.register(bound=is_demanded)
    await revoke(tls.world, f"{made.certificate.serial_number:032x}")
    asserted = {"client_assertion_type": ASSERTION_TYPE, "client_assertion": tls.client.assertion()}
    proofs = [proof(tls, tls.client.key)] if is_demanded else []
    refused = await tls.ask(made, *proofs, **asserted)
    assert (refused.status, refused.error) == (401, "invalid_client"), refused.body
    assert "the certificate was revoked" in refused.json["error_description"]


# --- registration


@pytest.mark.parametrize(
    "members",
    [
        {},
        {"tls_client_auth_san_dns": ""},
        {"tls_client_auth_san_dns": "a.example", "tls_client_auth_san_uri": "spiffe://a/b"},
        {"tls_client_auth_san_dns": "a b"},
        {"tls_client_auth_san_dns": "a..b"},
        {"tls_client_auth_san_dns": "x" * 5000},
        {"tls_client_auth_san_ip": "127.0.0.1/8"},
        {"tls_client_auth_san_ip": "localhost"},
        {"tls_client_auth_san_email": "@example.org"},
        {"tls_client_auth_san_email": "a"},
        {"tls_client_auth_san_uri": "no uri"},
        {"tls_client_auth_subject_dn": "reports"},
        {"tls_client_auth_subject_dn": "CN=a,"},
    ],
)
def test_a_client_registration_without_exactly_one_valid_subject_is_refused(members: dict[str, str]) -> None:
    with pytest.raises(InvalidCertificate):
        check_subject(members)


async def test_a_registered_certificate_must_be_self_signed_valid_strong_and_of_one_client(tls: TlsClient) -> None:
    issued, expired = tls.issue(), self_signed(at=tls.now, begins=-timedelta(days=2), ends=-timedelta(days=1))
    named = self_signed("CN=Authority  of a TEST", at=tls.now)
    for made, words in (
        (issued, "not signed by its own key"),
        (expired, "expired"),
        (named, "same subject as a trust anchor"),
        (self_signed(kind="RSA-1024", at=tls.now), "weak key"),
    ):
        with pytest.raises(InvalidCertificate, match=words):
            await tls.register(None, made)
    with pytest.raises(InvalidCertificate, match="PEM"):
        await act(
            tls.world,
            "agent.mutual_tls",
            lambda act: flows.set_certificate_client(act, "reader", subject={}, certificates=["x"]),
        )
    several = [self_signed(f"CN={number}", at=tls.now) for number in range(MAX_CERTIFICATES + 1)]
    await tls.register(None, *several[1:])
    with pytest.raises(InvalidCertificate, match=f"at most {MAX_CERTIFICATES}"):
        await tls.register(None, *several)
    other, _ = await register_other(tls)
    with pytest.raises(Conflict, match="another client has registered"):
        await tls.register(None, several[1], agent=other)


async def test_a_trust_anchor_must_be_a_valid_certificate_of_an_authority_under_an_unused_name(tls: TlsClient) -> None:
    async def add(pem: str, name: str = "other") -> None:
        await act(tls.world, "anchor.add", lambda act: flows.add_anchor(act, name, pem))

    with pytest.raises(InvalidCertificate, match="not that of an authority"):
        await add(tls.issue().pem)
    with pytest.raises(InvalidCertificate, match="not contain exactly one"):
        await add(tls.authority.pem * 2)
    with pytest.raises(InvalidCertificate, match="not contain exactly one"):
        await add(ssl.DER_cert_to_PEM_cert(of_unknown_version(TestAuthority("CN=y", at=tls.now).certificate)))
    for name in ("other", "company"):
        with pytest.raises(Conflict, match="the authority is already the trust anchor `company`"):
            await add(tls.authority.pem, name)
    with pytest.raises(Conflict, match="has the name `company`"):
        await add(TestAuthority("CN=x", at=tls.now).pem, "company")
    with pytest.raises(InvalidCertificate, match="expired"):
        await add(TestAuthority("CN=x", at=tls.now - timedelta(days=40), ends=timedelta(days=1)).pem)
    with pytest.raises(NotFound, match="trust anchor not found"):
        await act(tls.world, "anchor.remove", lambda act: flows.remove_anchor(act, "other"))
    assert [one.name for one in flows.list_anchors(tls.world.db.read())] == ["company"]


async def test_a_server_has_a_limited_number_of_trust_anchors(tls: TlsClient, monkeypatch: pytest.MonkeyPatch) -> None:
    async def add(number: int) -> None:
        pem = TestAuthority(f"CN=x{number}", at=tls.now).pem
        await act(tls.world, "anchor.add", lambda act: flows.add_anchor(act, f"other{number}", pem))

    assert MAX_ANCHORS == 100
    monkeypatch.setattr("ostiaryd.trust.flows.certificates.MAX_ANCHORS", 2)
    await add(1)
    with pytest.raises(Conflict, match="there are 2 trust anchors, the maximum"):
        await add(2)
    assert [one.name for one in flows.list_anchors(tls.world.db.read())] == ["company", "other1"]
    await act(tls.world, "anchor.remove", lambda act: flows.remove_anchor(act, "other1"))
    await add(2)


# --- clients that register themselves


def pem_of(made: Made) -> str:
    return "".join(one.public_bytes(Encoding.PEM).decode() for one in (made.certificate, *made.chain))


async def test_the_test_of_a_trust_anchor_reports_the_result_of_an_authentication(tls: TlsClient) -> None:
    """The certificate is what a client would send; the handshake proves its key."""
    await tls.register()
    made, foreign = tls.issue(), TestAuthority(at=tls.now).issue("CN=reader", names=NAMES, at=tls.now)
    other = tls.issue("CN=other", names=())
    [anchor] = flows.list_anchors(tls.world.db.read())

    async def examine(pem: str = "", agent: str = "", name: str = anchor.name) -> Any:
        return await act(tls.world, "anchor.test", lambda a: flows.examine_anchor(a, name, pem, agent))

    tested = await examine()
    assert (tested.failed, tested.clients, tested.subject, tested.refused) == ("", 1, None, "")
    for sent, agent, words in (
        (made, "", ""),
        (made, "reader", ""),
        (other, "", ""),
        (other, "reader", "alternative name"),
        (foreign, "reader", "leads to no trust anchor"),
    ):
        tested = await examine(pem_of(sent), agent)
        assert (bool(tested.refused), words in tested.refused) == (bool(words), True), tested
        if agent:
            assert (await tls.ask(sent)).status == (401 if words else 200), "as the authentication itself"
    for pem, agent, name, error in (
        ("x", "", anchor.name, InvalidCertificate),
        ("", "reader", anchor.name, InvalidCertificate),
        (pem_of(made), "nobody", anchor.name, NotFound),
        (pem_of(made) * 10, "", anchor.name, InvalidCertificate),
        ("", "", "none", NotFound),
    ):
        with pytest.raises(error):
            await examine(pem, agent, name)
        assert (newest_entry(tls.world).action, newest_entry(tls.world).outcome) == ("anchor.test", "refused")
    await act(tls.world, "agent.suspend", lambda a: registry.set_agent_state(a, "reader", Verb.SUSPEND))
    assert await tls.refuse(made, "the agent is suspended")
    assert "the agent is suspended" in (await examine(pem_of(made), "reader")).refused
    assert not (await examine(pem_of(made))).refused, "the anchor accepts the certificate as before"
    assert flows.list_anchors(tls.world.db.read()) == [anchor]


async def register_dynamic(tls: TlsClient, **members: Any) -> Any:
    metadata = {"redirect_uris": ["https://app.example/callback"], **members}
    try:
        made = await act(
            tls.world,
            "client.register",
            lambda act: flows.register_client(
                act, metadata, unverified_token=None, network="192.0.2.0/24", config=tls.world.config
            ),
        )
    except Refused as refusal:
        return refusal
    return made.client


def x5c(made: Made) -> dict[str, Any]:
    jwk = jose.render_public_jwk(made.key.public_key())
    return {"keys": [jwk | {"x5c": [b64encode(made.shown.der).decode()]}]}


async def test_a_stored_certificate_that_cannot_be_read_does_not_stop_the_listener(tls: TlsClient) -> None:
    key, name = new_key(), x509.Name.from_rfc4514_string("CN=odd")
    odd = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, tls.now, tls.now + timedelta(days=1))
        .add_extension(x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.19"), b"?"), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = ssl.DER_cert_to_PEM_cert(der(odd))
    await act(tls.world, "agent.test", lambda act: store.set_certificates(act.tx, tls.client.id, {"odd": pem}))
    admitted = flows.list_admitted_certificates(tls.world.db.read())
    assert set(admitted) == {der(odd), der(tls.authority.certificate)}
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(cadata=b"".join(admitted))


async def test_a_dynamically_registered_client_authenticates_with_its_self_signed_certificate(tls: TlsClient) -> None:
    made = self_signed(at=tls.now)
    client = await register_dynamic(tls, token_endpoint_auth_method=SELF_SIGNED, jwks=x5c(made))
    assert made.shown.thumbprint in flows.list_admitted_digests(tls.world.db.read())
    answer = await tls.ask(
        made, client_id=client.client_id, grant_type="authorization_code", code="x", code_verifier="x" * 43
    )
    assert answer.error == "invalid_grant", "it is authenticated, and has no such code"
    for shown in (None, tls.issue(), self_signed(at=tls.now)):
        answer = await tls.ask(
            shown, client_id=client.client_id, grant_type="authorization_code", code="x", code_verifier="x" * 43
        )
        assert answer.error == "invalid_client"
    stored = flows.get_oauth_client(tls.world.db.read(), client.client_id)
    assert stored is not None
    await act(tls.world, "client.delete", lambda act: flows.delete_client(act, stored))
    assert made.shown.thumbprint not in flows.list_admitted_digests(tls.world.db.read())


def test_a_metadata_document_cannot_use_a_self_signed_certificate(tls: TlsClient) -> None:
    url = "https://app.example/client.json"
    document = {
        "client_id": url,
        "redirect_uris": ["https://app.example/callback"],
        "jwks": x5c(self_signed(at=tls.now)),
    }
    assert parse_document(json.dumps(document).encode(), media_type="application/json", client_id=url).jwks
    document |= {"token_endpoint_auth_method": SELF_SIGNED}
    with pytest.raises(InvalidClientMetadata, match=f"cannot use `{SELF_SIGNED}`"):
        parse_document(json.dumps(document).encode(), media_type="application/json", client_id=url)


async def test_a_dynamically_registered_client_authenticates_with_its_registered_subject(tls: TlsClient) -> None:
    client = await register_dynamic(tls, token_endpoint_auth_method=TLS_CLIENT_AUTH, **SUBJECT)
    form = {"client_id": client.client_id, "grant_type": "authorization_code", "code": "x", "code_verifier": "x" * 43}
    assert (await tls.ask(tls.issue(), **form)).error == "invalid_grant"
    assert (await tls.ask(tls.issue(names=()), **form)).error == "invalid_client"


async def test_an_incomplete_or_inconsistent_registration_for_mutual_tls_is_refused(tls: TlsClient) -> None:
    made, other = self_signed(at=tls.now), self_signed(at=tls.now)
    wrong = x5c(made)
    wrong["keys"][0]["x5c"] = x5c(other)["keys"][0]["x5c"]
    unreadable = x5c(made)
    unreadable["keys"][0]["x5c"] = [b64encode(of_unknown_version(made.certificate)).decode()]
    other_letters = x5c(made)
    other_letters["keys"][0]["x5c"] = ["n\u00f6t base64"]
    bare = {"keys": [jose.render_public_jwk(made.key.public_key())]}
    for members in (
        {"token_endpoint_auth_method": TLS_CLIENT_AUTH},
        {"token_endpoint_auth_method": TLS_CLIENT_AUTH, **SUBJECT, "tls_client_auth_san_dns": "a.example"},
        {"token_endpoint_auth_method": "none", **SUBJECT},
        {"token_endpoint_auth_method": SELF_SIGNED},
        {"token_endpoint_auth_method": SELF_SIGNED, "jwks_uri": "https://app.example/jwks"},
        {"token_endpoint_auth_method": SELF_SIGNED, "jwks": bare},
        {"token_endpoint_auth_method": SELF_SIGNED, "jwks": wrong},
        {"token_endpoint_auth_method": SELF_SIGNED, "jwks": unreadable},
        {"token_endpoint_auth_method": SELF_SIGNED, "jwks": other_letters},
        {"token_endpoint_auth_method": SELF_SIGNED, "jwks": x5c(tls.issue())},
    ):
        refusal = await register_dynamic(tls, **members)
        assert isinstance(refusal, Refused), members
        assert refusal.code == "invalid_client_metadata", members


async def test_the_metadata_offer_mutual_tls_only_where_it_is_configured(tls: TlsClient) -> None:
    answer = await send(tls.app, "GET", "/.well-known/oauth-authorization-server")
    offered = json.loads(answer.body)
    assert offered["tls_client_certificate_bound_access_tokens"] is True
    assert {TLS_CLIENT_AUTH, SELF_SIGNED} <= set(offered["token_endpoint_auth_methods_supported"])
    assert "mtls_endpoint_aliases" not in offered, "the endpoints take certificates themselves"
    without = await send(oauth_app(tls.client.world), "GET", "/.well-known/oauth-authorization-server")
    assert "tls" not in without.body.decode()
