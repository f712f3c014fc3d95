"""The ACME server against bad input: the exact problem, an entry, and nothing changed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import example, given
from hypothesis import strategies as st

from harness.client_certificates import of_unknown_version
from harness.patience import eventually_async
from harness.registry_fixtures import newest_entry, register_agent
from ostiary.protocol import jose
from ostiary.protocol.errors import Conflict, Invalid, Refused
from ostiary.protocol.jose import b64u
from ostiaryd.certs.flows.acme import MAX_PATTERNS, MAX_UNUSED_KEYS, revoke_key
from ostiaryd.certs.model import make_name
from ostiaryd.certs.model.acme import (
    MAX_IDENTIFIERS,
    MAX_KEY_AUTHORIZATION,
    MAX_PENDING,
    NONCE_LIFETIME,
    AcmeRefused,
    check_contacts,
    check_nonce,
    check_tls_answer,
    make_nonce,
    parse_certificate_id,
    parse_identifiers,
    parse_instant,
    parse_jws,
    render_certificate_id,
)
from ostiaryd.certs.model.names import CertificateName, NameKind
from ostiaryd.certs.store import acme as store
from ostiaryd.certs.store import certificates
from ostiaryd.certs.wire_acme_validation import MAX_REDIRECTS, OF_ACCOUNT, keep_validating, validate_due
from ostiaryd.ground.http.edge import SMALL_BODY
from ostiaryd.ground.http.pages import Page
from ostiaryd.ground.outbound.probe import visit
from ostiaryd.ledger.flows import act
from tests.certs.acme_fixtures import AcmeStage
from tests.support.acme_client import KINDS, MISSING, ROOT, AcmeClient, bind, dns_digest, encode, kind_of
from tests.support.alpn_server import alpn_certificate, digest
from tests.support.api_fixtures import Answer, send
from tests.support.certificate_fixtures import csr_builder, make_csr, new_key, put_policies

SECOND = 1_000_000


def count(stage: AcmeStage) -> tuple[int, ...]:
    """Return the number of accounts, orders and certificates."""
    from ostiaryd.ground.database import sql

    reader = stage.world.db.read()
    tables = ("acme_account", "acme_order", "certificate")
    return tuple(reader.one(sql(f"select count(*) from {table}"))[0] for table in tables)  # type: ignore[index]


# --- the form of a request


ONE_KEY = " must have exactly one of `kid` (a text that is not empty) and `jwk`"


@pytest.mark.parametrize(
    ("header", "more", "rule"),
    [
        ({"jwk": {}, "kid": "x"}, {}, ONE_KEY),
        ({}, {}, ONE_KEY),
        ({"kid": 5}, {}, ONE_KEY),
        ({"kid": None}, {}, ONE_KEY),
        ({"kid": ""}, {}, ONE_KEY),
        ({"jwk": {}, "kid": ""}, {}, ONE_KEY),
        ({"kid": "x", "crit": ["x"]}, {}, " has an unsupported extension (`crit`)"),
        ({"kid": "x"}, {"header": None}, " must not have the member `header` (RFC 8555 section 6.2)"),
        ({"kid": "x"}, {"signatures": []}, " must not have the member `signatures` (RFC 8555 section 6.2)"),
        ({"kid": 5, "alg": 5}, {}, " is not a flattened JWS with a valid protected header: "),
    ],
)
def test_a_malformed_jws_is_refused_with_its_name_and_its_fault(
    header: dict[str, Any], more: dict[str, Any], rule: str
) -> None:
    for of, nonce in (("the request", {"nonce": "x"}), ("the inner JWS", {})):
        protected = encode({"alg": "ES256", "url": ROOT, **nonce, **header})
        with pytest.raises(AcmeRefused) as refused:
            parse_jws({"protected": protected, "payload": "", "signature": "", **more}, of=of, has_nonce=bool(nonce))
        assert refused.value.message.startswith(of + rule)


@pytest.mark.parametrize(
    ("nonce", "has_nonce", "rule"),
    [
        ({}, True, " must have a `nonce` that is a string"),
        ({"nonce": None}, True, " must have a `nonce` that is a string"),
        ({"nonce": ""}, False, " must not have a `nonce`"),
    ],
)
def test_a_jws_has_a_nonce_only_where_a_nonce_is_required(nonce: dict[str, Any], has_nonce: bool, rule: str) -> None:
    protected = encode({"alg": "ES256", "url": ROOT, "kid": "x", **nonce})
    with pytest.raises(AcmeRefused) as refused:
        parse_jws({"protected": protected, "payload": "", "signature": ""}, of="the inner JWS", has_nonce=has_nonce)
    assert refused.value.message == f"the inner JWS{rule}"


async def test_a_malformed_request_is_refused_with_an_entry(stage: AcmeStage) -> None:
    client, other = await stage.client(), await stage.client()
    account, new_order = client.kid, f"{ROOT}new-order"
    body = {"identifiers": [{"type": "dns", "value": "www.example"}]}

    async def jws(**header: Any) -> dict[str, Any]:
        return dict(await client.jws(new_order, body, **header))

    async def changed(**parts: Any) -> dict[str, Any]:
        return {**await jws(), **parts}

    good = await jws()
    rsa_key = jose.generate("RS256")
    der_signature = new_key().sign(b"x", ec.ECDSA(hashes.SHA256()))
    unsigned_mac = {**good, "protected": encode({"alg": "HS256", "nonce": "x", "url": new_order, "kid": account})}
    rows: list[tuple[str, int, str, Any]] = [
        ("not JSON", 400, "malformed", b"{"),
        ("a list", 400, "malformed", []),
        ("a compact JWS", 400, "malformed", json.dumps("a.b.c").encode()),
        ("the general form", 400, "malformed", {**good, "signatures": []}),
        ("an unprotected header", 400, "malformed", {**good, "header": {"alg": "ES256"}}),
        ("a part that is missing", 400, "malformed", {"protected": good["protected"], "payload": good["payload"]}),
        ("padding", 400, "malformed", await changed(signature=good["signature"] + "==")),
        ("members twice", 400, "malformed", json.dumps(good)[:-1].encode() + b',"payload":"e30"}'),
        ("a header that is a list", 400, "malformed", await changed(protected=encode([]))),
        ("no algorithm", 400, "malformed", await jws(alg=MISSING)),
        ("the algorithm none", 400, "badSignatureAlgorithm", await changed(protected=unsigned_mac["protected"])),
        ("none", 400, "badSignatureAlgorithm", await jws(alg="none")),
        ("another algorithm than the key", 400, "badSignatureAlgorithm", await jws(alg="ES384")),
        ("an unknown algorithm", 400, "badSignatureAlgorithm", await jws(alg="ES512")),
        ("a critical extension", 400, "malformed", await jws(crit=["exp"], exp=1)),
        ("b64", 400, "malformed", await jws(b64=False)),
        ("no URL", 400, "malformed", await jws(url=MISSING)),
        ("another URL", 403, "unauthorized", await jws(url=f"{ROOT}key-change")),
        ("another host", 403, "unauthorized", await jws(url="https://evil.example/acme/new-order")),
        ("a query behind the URL", 403, "unauthorized", await jws(url=f"{new_order}?a=b")),
        ("no nonce", 400, "malformed", await jws(nonce=MISSING)),
        ("a nonce that is a number", 400, "malformed", await jws(nonce=1)),
        ("both kid and jwk", 400, "malformed", await jws(kid=account, jwk=client.key.public.bare_jwk)),
        ("neither", 400, "malformed", await jws(kid=MISSING)),
        ("the key itself", 400, "malformed", await jws(kid=MISSING, jwk=client.key.public.bare_jwk)),
        ("a kid that is a list", 400, "malformed", await jws(kid=[account])),
        ("an empty kid", 400, "malformed", await jws(kid="")),
        ("a kid of another server", 400, "accountDoesNotExist", await jws(kid="https://evil.example/acme/account/1")),
        ("a bare id", 400, "accountDoesNotExist", await jws(kid=account.rpartition("/")[2])),
        ("an unknown account", 400, "accountDoesNotExist", await jws(kid=f"{account}0")),
        ("the account of another", 400, "malformed", await jws(kid=other.kid)),
        ("another key", 400, "malformed", await jws(key=jose.generate("ES256"))),
        ("another payload", 400, "malformed", await changed(payload=encode({"identifiers": []}))),
        ("a signature that is cut", 400, "malformed", await changed(signature=good["signature"][:-4])),
        ("an empty signature", 400, "malformed", await changed(signature="")),
        ("a DER signature", 400, "malformed", await changed(signature=b64u(der_signature))),
        ("no payload", 400, "malformed", await client.jws(new_order, None)),
        ("a payload that is a list", 400, "malformed", await client.jws(new_order, [])),
        ("identifiers of a wrong type", 400, "malformed", await client.jws(new_order, {"identifiers": "x"})),
        ("RSA with another key", 400, "badSignatureAlgorithm", await jws(alg="RS256", key=rsa_key)),
    ]
    before = count(stage)
    wrong = []
    for what, status, kind, sent in rows:
        answer = await client.send(new_order, sent)
        if (answer.status, kind_of(answer)) != (status, kind) or "replay-nonce" not in answer.headers:
            wrong.append(f"{what}: due {status} {kind}, was {answer}")
        if kind == "badSignatureAlgorithm":
            assert answer.json["algorithms"] == ["ES256", "ES384", "EdDSA", "RS256", "PS256"]
        entry = newest_entry(stage.world)
        if (
            entry.outcome != "refused"
            or not entry.action.startswith("acme.")
            or entry.reasons[0].code not in (kind, "malformed")
        ):
            wrong.append(f"{what}: the entry is {entry}")
    assert not wrong, "\n".join(wrong)
    assert count(stage) == before
    typed = await client.send(new_order, good, content_type="application/json")
    assert (typed.status, kind_of(typed)) == (415, "malformed")
    assert (await client.send(new_order, await jws())).status == 201


async def test_a_request_of_more_than_64_kib_is_refused_and_recorded(stage: AcmeStage) -> None:
    client = await stage.client()
    good = await client.jws(ROOT + "new-order", {})
    rest = SMALL_BODY - len(json.dumps(good))
    for more, status, code in ((0, 400, "malformed"), (1, 413, "too_large")):  # its signature is wrong, too
        answer = await client.send(ROOT + "new-order", {**good, "payload": str(good["payload"]) + "A" * (rest + more)})
        assert (answer.status, kind_of(answer)) == (status, "malformed")
        entry = newest_entry(stage.world)
        assert (entry.action, [one.code for one in entry.reasons]) == ("acme.request", [code])


async def test_a_request_with_another_http_method_is_refused_with_a_problem_document(stage: AcmeStage) -> None:
    answer = await send(stage.app, "GET", "/acme/new-order")
    assert (answer.status, kind_of(answer), answer.headers["allow"]) == (405, "malformed", "POST")


async def test_a_post_as_get_request_with_a_payload_is_refused(stage: AcmeStage) -> None:
    client = await stage.client()
    order = await client.order("dns:www.example")
    answer = await client.post(order.headers["location"], {})
    assert (answer.status, kind_of(answer)) == (400, "malformed")


# --- nonces


async def test_a_nonce_is_used_up_even_by_a_refused_request(stage: AcmeStage) -> None:
    client = await stage.client()
    nonce = await client.nonce()
    assert (await client.order("dns:www.example")).status == 201
    client.nonces = [nonce]
    refused = await client.post("new-order", {"identifiers": [{"type": "mail", "value": "a@b.example"}]})
    assert kind_of(refused) == "unsupportedIdentifier"
    before, body = count(stage), {"identifiers": [{"type": "dns", "value": "a.example"}]}
    for url, payload in ((f"{ROOT}new-order", body), (client.kid, None)):
        answer = await client.post(url, payload, nonce=nonce)
        assert (answer.status, kind_of(answer)) == (400, "badNonce")
        assert newest_entry(stage.world).reasons[0].code == "badNonce"
    assert count(stage) == before
    replayed = await client.jws(f"{ROOT}new-order", body)
    assert (await client.send(f"{ROOT}new-order", replayed)).status == 201
    again = await client.send(f"{ROOT}new-order", replayed)
    assert (again.status, kind_of(again)) == (400, "badNonce")


async def test_a_foreign_or_expired_nonce_is_refused_without_an_entry(stage: AcmeStage) -> None:
    client = await stage.client()
    entry = newest_entry(stage.world)
    nonce = await client.nonce()
    for wrong in ("", "x", nonce[:-1], nonce[:-1] + ("A" if nonce[-1] != "A" else "B"), "A" * 43, "é"):
        answer = await client.post("new-order", {}, nonce=wrong)
        assert (answer.status, kind_of(answer)) == (400, "badNonce"), wrong
    assert newest_entry(stage.world) == entry
    stage.clock.advance(us=NONCE_LIFETIME - SECOND)
    assert (await client.post(client.kid, nonce=nonce)).status == 200
    client.nonces.clear()
    nonce = await client.nonce()
    stage.clock.advance(us=NONCE_LIFETIME)
    answer = await client.post(client.kid, nonce=nonce)
    assert (answer.status, kind_of(answer)) == (400, "badNonce")


def test_the_life_of_a_nonce_ends_at_its_limit() -> None:
    secret, at = b"s" * 32, 1_800_000_000 * SECOND
    nonce = make_nonce(secret, now=at, random=b"12345678")
    assert check_nonce(secret, nonce, now=at + NONCE_LIFETIME - 1) == at + NONCE_LIFETIME
    for key, now in ((secret, at + NONCE_LIFETIME), (b"t" * 32, at)):
        with pytest.raises(AcmeRefused):
            check_nonce(key, nonce, now=now)


# --- accounts


async def test_an_account_needs_a_valid_external_account_binding(stage: AcmeStage) -> None:
    made, spare = await stage.key(), await stage.key()
    url = f"{ROOT}new-account"

    async def create(binding: Any, **said: Any) -> Answer:
        return await AcmeClient(stage.app, key).post("new-account", {"externalAccountBinding": binding, **said})

    key = jose.generate("ES256")
    public, kid, secret = key.public, made.key.kid, made.mac_key
    header = {"jwk": public.bare_jwk}
    rows: list[tuple[str, int, str, Any]] = [
        ("none", 403, "externalAccountRequired", None),
        ("a list", 400, "malformed", []),
        ("an unknown key", 403, "unauthorized", bind(public, kid="ak_1", secret=secret)),
        ("another secret", 403, "unauthorized", bind(public, kid=kid, secret=spare.mac_key)),
        ("an empty MAC", 403, "unauthorized", bind(public, kid=kid, secret=secret, mac=b"")),
        ("a MAC that is cut", 403, "unauthorized", bind(public, kid=kid, secret=secret, mac=b"x" * 16)),
        ("another URL", 400, "malformed", bind(public, kid=kid, secret=secret, url=f"{ROOT}new-order")),
        ("another account key", 400, "malformed", bind(jose.generate("ES256").public, kid=kid, secret=secret)),
        ("a payload that is no key", 400, "malformed", bind(public, kid=kid, secret=secret, payload={"a": 1})),
        ("a nonce", 400, "malformed", bind(public, kid=kid, secret=secret, header={"nonce": "x"})),
        ("a signature", 400, "badSignatureAlgorithm", bind(public, kid=kid, secret=secret, alg="ES256")),
        ("none as algorithm", 400, "badSignatureAlgorithm", bind(public, kid=kid, secret=secret, alg="none")),
        ("a key beside the kid", 400, "malformed", bind(public, kid=kid, secret=secret, header=header)),
    ]
    before = count(stage)
    wrong = []
    for what, status, kind, binding in rows:
        answer = await create(binding)
        if (answer.status, kind_of(answer)) != (status, kind):
            wrong.append(f"{what}: due {status} {kind}, was {answer}")
        if kind == "badSignatureAlgorithm":
            assert answer.json["algorithms"] == ["HS256", "HS384", "HS512"]
    assert not wrong, "\n".join(wrong)
    assert count(stage) == before
    for contacts, kind in (
        (["tel:+1"], "unsupportedContact"),
        (["mailto:a"], "invalidContact"),
        (["mailto:a@b.example,c@d.example"], "invalidContact"),
        (["mailto:a@b.example?subject=x"], "invalidContact"),
        (["mailto:a@b.example"] * 11, "invalidContact"),
    ):
        assert kind_of(await create(bind(public, kid=kid, secret=secret), contact=contacts)) == kind
    assert count(stage) == before, "and the key is not used up"
    lookup = await AcmeClient(stage.app, key).post("new-account", {"onlyReturnExisting": True})
    assert (lookup.status, kind_of(lookup)) == (400, "accountDoesNotExist")
    for alg in ("HS256", "HS384", "HS512"):
        fresh, mac = AcmeClient(stage.app), await stage.key()
        binding = bind(fresh.key.public, kid=mac.key.kid, secret=mac.mac_key, alg=alg)
        assert (await fresh.post("new-account", {"externalAccountBinding": binding})).status == 201
    assert url in (await send(stage.app, "GET", "/acme/directory")).body.decode()


async def test_a_mac_key_creates_one_account_before_its_expiry(stage: AcmeStage) -> None:
    made = await stage.key(days=1)
    first = AcmeClient(stage.app)
    assert (await first.register(made.key.kid, made.mac_key)).status == 201
    answer = await AcmeClient(stage.app).register(made.key.kid, made.mac_key)
    assert (answer.status, kind_of(answer)) == (403, "unauthorized")
    assert "used" in answer.json["detail"]
    limit, late = await stage.key(days=1), await stage.key(days=1)
    stage.clock.advance(86_400, us=-1)
    assert (await AcmeClient(stage.app).register(limit.key.kid, limit.mac_key)).status == 201
    stage.clock.advance(us=1)
    answer = await AcmeClient(stage.app).register(late.key.kid, late.mac_key)
    assert (answer.status, kind_of(answer)) == (403, "unauthorized")
    for days in (0, 367):
        with pytest.raises(Refused):
            await stage.key(days=days)


async def test_a_weak_account_key_is_refused(stage: AcmeStage) -> None:
    cases: list[Any] = [
        {"kty": "oct", "k": "AAAA"},
        {"kty": "EC", "crv": "P-521", "x": "AA", "y": "AA"},
        {"kty": "EC", "crv": "P-256", "x": b64u(b"\1" * 32), "y": b64u(b"\1" * 32)},
        {"kty": "RSA", "n": b64u(b"\xff" * 128), "e": "AQAB"},
        {"kty": "RSA", "n": b64u(b"\xff" * 256), "e": "Aw"},
        {"kty": "OKP", "crv": "Ed25519", "x": b64u(b"\0" * 32)},
        ["kty"],
    ]
    for jwk in cases:
        answer = await AcmeClient(stage.app).post("new-account", {}, jwk=jwk)
        assert (answer.status, kind_of(answer)) == (400, "badPublicKey"), jwk


async def test_an_account_key_with_private_members_is_refused(stage: AcmeStage) -> None:
    client = AcmeClient(stage.app)
    answer = await client.post("new-account", {}, jwk=client.key.jwk())
    assert (answer.status, kind_of(answer)) == (400, "badPublicKey")
    assert client.key.jwk()["d"] not in answer.body.decode()


async def test_objects_of_another_account_are_not_shown_and_not_changed(stage: AcmeStage) -> None:
    owner, other = await stage.client(), await stage.client()
    order = await stage.issued(owner, "dns:www.example")
    location, authorization = order.headers["location"], order.json["authorizations"][0]
    challenge = (await owner.challenge(authorization, "http-01"))["url"]
    before = count(stage)
    for url, payload in (
        (owner.kid, None),
        (owner.kid, {"status": "deactivated"}),
        (owner.kid, {"contact": []}),
        (f"{owner.kid}/orders", None),
        (location, None),
        (f"{location}/finalize", {"csr": b64u(make_csr(names=["dns:www.example"]))}),
        (f"{location}/certificate", None),
        (authorization, None),
        (authorization, {"status": "deactivated"}),
        (challenge, None),
        (challenge, {}),
    ):
        answer = await other.post(url, payload)
        assert (answer.status, kind_of(answer)) == (403, "unauthorized"), (url, answer)
        assert newest_entry(stage.world).outcome == "refused"
    assert count(stage) == before
    assert (await owner.post(owner.kid)).json["status"] == "valid"
    assert (await owner.post(authorization)).json["status"] == "valid"
    for url, payload, detail in (
        (f"{ROOT}order/ao_1", None, "order not found"),
        (f"{ROOT}authorization/az_1", None, "authorization not found"),
        (f"{ROOT}authorization/az_1/http-01", None, "authorization not found"),
        (f"{authorization}/none-01", None, "challenge not found"),
        (f"{authorization}/none-01", {}, "challenge not found"),
    ):
        answer = await owner.post(url, payload)
        assert (answer.status, kind_of(answer), answer.json["detail"]) == (404, "malformed", detail)


async def test_a_holder_has_a_limited_number_of_mac_keys_and_a_key_a_limited_number_of_names(
    stage: AcmeStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert MAX_UNUSED_KEYS == 100
    monkeypatch.setattr("ostiaryd.certs.flows.acme.MAX_UNUSED_KEYS", 2)
    names = [f"dns:a{number}.example" for number in range(MAX_PATTERNS + 1)]
    with pytest.raises(Invalid, match="`names` has 21 patterns; at most 20 are allowed"):
        await stage.key(names=names)
    first, _ = await stage.key(names=names[:-1]), await stage.key()
    with pytest.raises(Conflict, match="has 2 unused keys, the maximum"):
        await stage.key()

    async def revoke() -> None:
        await act(stage.world, "acme.revoke_key", lambda act: revoke_key(act, first.key.kid))

    await revoke()
    with pytest.raises(Conflict, match="the MAC key is revoked already"):
        await revoke()
    await stage.key()


async def test_a_change_of_key_needs_both_keys(stage: AcmeStage) -> None:
    client, other, new = await stage.client(), await stage.client(), jose.generate("ES256")
    url, old = f"{ROOT}key-change", client.key.public.bare_jwk

    async def change(key: jose.PrivateKey, body: Any, to: str = url, **header: Any) -> Answer:
        said: dict[str, Any] = {"nonce": MISSING} | header
        inner = await AcmeClient(stage.app, key).jws(to, body, **said)
        return await client.post("key-change", inner)

    good = {"account": client.kid, "oldKey": old}
    rows: list[tuple[str, int, str, Answer]] = [
        ("another account", 400, "malformed", await change(new, good | {"account": other.kid})),
        ("another old key", 400, "malformed", await change(new, good | {"oldKey": new.public.bare_jwk})),
        ("another URL", 400, "malformed", await change(new, good, f"{ROOT}new-order")),
        ("a nonce inside", 400, "malformed", await change(new, good, nonce="x")),
        ("the kid inside", 400, "malformed", await change(new, good, jwk=MISSING, kid=client.kid)),
        ("another key inside", 400, "malformed", await change(new, good, jwk=jose.generate("ES256").public.bare_jwk)),
        ("the key of another account", 409, "malformed", taken := await change(other.key, good)),
        ("the same key", 409, "malformed", same := await change(client.key, good)),
        ("no JWS", 400, "malformed", await client.post("key-change", good)),
    ]
    wrong = [
        f"{what}: {answer}" for what, status, kind, answer in rows if (answer.status, kind_of(answer)) != (status, kind)
    ]
    assert not wrong, "\n".join(wrong)
    assert (taken.headers["location"], taken.json["detail"]) == (other.kid, "the new key is the key of another account")
    assert same.json["detail"] == "the new key is the present key of the account"
    assert (await client.post(client.kid)).status == 200, "the old key stays"


# --- orders


async def test_an_order_with_malformed_or_too_many_names_is_refused(stage: AcmeStage) -> None:
    client = await stage.client()
    good = [{"type": "dns", "value": "a.example"}]
    rows: list[tuple[Any, int, str]] = [
        ({"identifiers": []}, 400, "malformed"),
        ({"identifiers": [{"type": "mail", "value": "a@b.example"}]}, 400, "unsupportedIdentifier"),
        ({"identifiers": good, "notBefore": "2030-01-01T00:00:00Z"}, 400, "malformed"),
        ({"identifiers": good, "notAfter": "2020-01-01T00:00:00Z"}, 400, "malformed"),
        ({"identifiers": good, "notAfter": "2020-01-01"}, 400, "malformed"),
        ({"identifiers": good, "notAfter": "9999-W01-1T00:00:00Z"}, 400, "malformed"),
        ({"identifiers": good, "notAfter": "99991231T000000Z"}, 400, "malformed"),
        ({"identifiers": good, "notAfter": "9999-12-31T23:59:59Z"}, 403, "rejectedIdentifier"),
        ({"identifiers": good, "replaces": "AA.AA"}, 400, "malformed"),
        ({"identifiers": good, "replaces": "AQ.AQ"}, 404, "malformed"),
        ({"identifiers": [{"type": "dns", "value": f"a{n}.example"} for n in range(21)]}, 403, "rejectedIdentifier"),
    ]
    names = ["", ".", "a..example", "-a.example", "a.example.", "*", "a.*.example", "*.*.example", "a b.example"]
    names += [
        "ä.example",
        "xn--a.example",
        "1.2.3.4",
        "a" * 64 + ".example",
        "a." * 127 + "ab",
        "a.example:80",
        "a.example/b",
        "a\0.example",
    ]
    rows += [({"identifiers": [{"type": "dns", "value": name}]}, 400, "malformed") for name in names]
    addresses = [
        "",
        "1.2.3",
        "01.2.3.4",
        "1.2.3.4/32",
        "::ffff:1.2.3.4.5",
        "2001:DB8::1",
        "2001:db8:0::1",
        "fe80::1%eth0",
    ]
    rows += [({"identifiers": [{"type": "ip", "value": address}]}, 400, "malformed") for address in addresses]
    wrong = []
    before = count(stage)
    for body, status, kind in rows:
        answer = await client.post("new-order", body)
        if (answer.status, kind_of(answer)) != (status, kind):
            wrong.append(f"{body}: due {status} {kind}, was {answer}")
    assert not wrong, "\n".join(wrong)
    assert count(stage) == before
    several = await client.order("dns:a..example", "mail:x", "dns:good.example")
    assert kind_of(several) == "compound"
    assert [(one["type"], one["identifier"]["value"]) for one in several.json["subproblems"]] == [
        (f"{KINDS}malformed", "a..example"),
        (f"{KINDS}unsupportedIdentifier", "x"),
    ]
    assert (await client.order(*[f"dns:a{n}.example" for n in range(20)])).status == 201


async def test_names_that_no_policy_permits_are_refused_when_ordered_and_when_finalized(stage: AcmeStage) -> None:
    client = await stage.client()
    order = await stage.ready(client, "dns:www.example")
    await put_policies(
        stage.world,
        '@id("one") permit (principal is Agent, action == Action::"issue_certificate", resource is Agent)'
        ' when { context.names == ["dns:good.example"] && context.key_type == "RSA-2048" };',
    )
    refused = await client.order("dns:www.example")
    assert (refused.status, kind_of(refused)) == (403, "rejectedIdentifier")
    entry = newest_entry(stage.world)
    assert (entry.action, entry.outcome, entry.agent) == ("acme.order", "refused", stage.agent.agent_id)
    assert (await client.order("dns:good.example")).status == 201, "some type of key is permitted"
    refused = await client.finalize(order, make_csr(names=["dns:www.example"]))
    assert (refused.status, kind_of(refused)) == (403, "unauthorized")
    assert (await client.post(order.headers["location"])).json["status"] == "ready"


async def test_the_number_of_open_orders_of_an_account_is_limited(
    stage: AcmeStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ostiaryd.certs.flows.acme.MAX_PENDING", 2)
    client = await stage.client()
    assert [(await client.order(f"dns:a{n}.example")).status for n in range(2)] == [201, 201]
    answer = await client.order("dns:more.example")
    assert (answer.status, kind_of(answer), answer.headers["retry-after"]) == (429, "rateLimited", "3600")
    other = await stage.client()
    assert (await other.order("dns:more.example")).status == 201
    assert MAX_PENDING == 300


async def test_an_order_accepts_only_a_matching_csr_and_stays_ready_after_a_refusal(stage: AcmeStage) -> None:
    client, other = await stage.client(), await stage.client()
    pending = await client.order("dns:www.example")
    early = await client.finalize(pending, make_csr(names=["dns:www.example"]))
    assert (early.status, kind_of(early), early.json["detail"]) == (403, "orderNotReady", "the order is pending")
    none = await client.post(f"{pending.headers['location']}/certificate")
    assert (none.status, kind_of(none), none.json["detail"]) == (404, "malformed", "the order has no certificate")
    order = await stage.ready(client, "dns:www.example")
    key = new_key()
    tampered = bytearray(make_csr(key, ["dns:www.example"]))
    tampered[-1] ^= 1
    account_key = jose_to_ec(client.key)
    critical = csr_builder(["dns:www.example"]).add_extension(
        x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\5\0"), critical=True
    )
    authority = csr_builder(["dns:www.example"]).add_extension(x509.BasicConstraints(True, None), critical=True)
    taken = new_key()
    stranger = await register_agent(stage.world, "other")
    foreign = await stage.client(agent=stranger.agent_id)
    done = await foreign.finalize(
        await stage.ready(foreign, "dns:other.example"), make_csr(taken, ["dns:other.example"])
    )
    assert done.json["status"] == "valid"
    rows: list[tuple[str, str, bytes]] = [
        ("no CSR", "badCSR", b""),
        ("not DER", "badCSR", b"0" * 100),
        ("something behind it", "badCSR", make_csr(names=["dns:www.example"]) + b"\0"),
        ("a wrong self-signature", "badCSR", bytes(tampered)),
        ("no names", "badCSR", make_csr()),
        ("another name", "badCSR", make_csr(names=["dns:evil.example"])),
        ("one name more", "badCSR", make_csr(names=["dns:www.example", "dns:evil.example"])),
        ("one name more as common name", "badCSR", make_csr(names=["dns:www.example"], common_name="evil.example")),
        ("an address more", "badCSR", make_csr(names=["dns:www.example", "ip:127.0.0.1"])),
        ("a mail address more", "badCSR", make_csr(names=["dns:www.example", "email:a@www.example"])),
        ("a URI more", "badCSR", make_csr(names=["dns:www.example", "uri:spiffe://example.org/agent/admin"])),
        ("a wildcard instead", "badCSR", make_csr(names=["dns:*.example"])),
        ("an unknown critical extension", "badCSR", critical.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)),
        ("an authority", "badCSR", authority.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)),
        ("an RSA key of 1024 bits", "badPublicKey", weak_csr()),
        ("the key of the account", "badCSR", make_csr(account_key, ["dns:www.example"])),
        ("the key of another account", "badCSR", make_csr(jose_to_ec(other.key), ["dns:www.example"])),
        ("the key of another agent's certificate", "badCSR", make_csr(taken, ["dns:www.example"])),
    ]
    before = count(stage)
    wrong = []
    for what, kind, csr in rows:
        answer = await client.finalize(order, csr)
        if (answer.status, kind_of(answer)) != (400, kind):
            wrong.append(f"{what}: due {kind}, was {answer}")
        if newest_entry(stage.world).outcome != "refused":
            wrong.append(f"{what}: no entry")
    shapes: list[Any] = [{}, {"csr": 1}, {"csr": "=="}, [], None]
    for payload in shapes:
        answer = await client.post(order.json["finalize"], payload)
        if answer.status != 400:
            wrong.append(f"{payload}: {answer}")
    assert not wrong, "\n".join(wrong)
    assert count(stage) == before
    assert (await client.post(order.headers["location"])).json["status"] == "ready"
    done = await client.finalize(order, make_csr(key, ["dns:WWW.example"], common_name="www.example"))
    assert done.json["status"] == "valid", done
    again = await client.finalize(order, make_csr(names=["dns:www.example"]))
    assert (again.status, kind_of(again)) == (403, "orderNotReady")


async def test_an_order_that_is_finalized_four_times_at_once_has_one_certificate(stage: AcmeStage) -> None:
    client = await stage.client()
    order = await stage.ready(client, "dns:www.example")
    client.nonces.clear()  # each request fetches a nonce of its own
    requests = [make_csr(names=["dns:www.example"]) for _ in range(4)]
    answers = await asyncio.gather(*(client.finalize(order, csr) for csr in requests))
    assert sorted(map(kind_of, answers)) == ["", *["orderNotReady"] * 3]
    assert len(certificates.page(stage.world.db.read(), Page(10, ""))) == 1


async def test_a_ready_order_of_an_account_that_was_deactivated_gets_no_certificate(stage: AcmeStage) -> None:
    client = await stage.client()
    order = await stage.ready(client, "dns:www.example")
    assert (await client.post(client.kid, {"status": "deactivated"})).status == 200
    refused = await client.finalize(order, make_csr(names=["dns:www.example"]))
    assert (refused.status, kind_of(refused)) == (401, "unauthorized")
    assert certificates.page(stage.world.db.read(), Page(10, "")) == []


async def test_an_expired_order_cannot_be_finalized(stage: AcmeStage) -> None:
    client = await stage.client()
    orders = [await stage.ready(client, f"dns:a{n}.example") for n in range(2)]
    left = [await seconds_left(stage, one) for one in orders]
    stage.clock.advance(left[0] - 1)
    client.nonces.clear()
    assert (await client.finalize(orders[0], make_csr(names=["dns:a0.example"]))).json["status"] == "valid"
    stage.clock.advance(60)
    answer = await client.finalize(orders[1], make_csr(names=["dns:a1.example"]))
    assert (answer.status, kind_of(answer)) == (403, "orderNotReady")


# --- challenges


async def test_an_authorization_accepts_only_the_first_chosen_challenge(stage: AcmeStage) -> None:
    client = await stage.client()
    order = await client.order("dns:www.example")
    url = order.json["authorizations"][0]
    for type in ("dns-02", "http-02", "x"):
        assert (await client.post(f"{url}/{type}", {})).status == 404
    first = await client.post(f"{url}/http-01", {})
    assert (first.json["status"], first.headers["retry-after"]) == ("processing", "1")
    assert f'<{url}>;rel="up"' in first.headers["link"]
    again = await client.post(f"{url}/http-01", {})
    assert again.json["status"] == "processing"
    other = await client.post(f"{url}/dns-01", {})
    assert (other.status, kind_of(other)) == (400, "malformed")
    assert other.json["detail"] == "the client has chosen the challenge http-01 before"
    assert kind_of(await client.post(f"{url}/http-01", [])) == "malformed"
    assert (await client.post(url, {"status": "deactivated"})).status == 200
    for late in (f"{url}/dns-01", f"{url}/http-01"):
        assert (await client.post(late, {})).json["detail"] == "the authorization is deactivated, not pending"
    again = await client.post(url, {"status": "deactivated"})
    assert again.json["detail"] == "the authorization is deactivated, neither pending nor valid"
    wildcard = await client.order("dns:*.example.net")
    assert (await client.post(f"{wildcard.json['authorizations'][0]}/http-01", {})).status == 404


async def test_a_failed_challenge_makes_its_authorization_and_order_invalid(stage: AcmeStage) -> None:
    client, thief = await stage.client(), await stage.client()
    path = "/.well-known/acme-challenge/"

    def redirect(host: str, token: str, proof: str) -> None:
        stage.serve(host, token, proof)
        stage.site.answers[path + token] = 302, "http://10.0.0.1/secret", b""

    def metadata(host: str, token: str, proof: str) -> None:
        stage.serve(host, token, proof)
        stage.site.answers[path + token] = 302, "http://169.254.169.254/latest/meta-data/", b""

    def huge(host: str, token: str, proof: str) -> None:
        stage.serve(host, token, proof + "x" * 5000)

    def stolen(host: str, token: str, proof: str) -> None:
        stage.serve(host, token, thief.proof(token))

    def private(host: str, token: str, proof: str) -> None:
        stage.serve(host, token, proof)
        stage.zone.records[f"{host}.", "A"] = ["10.0.0.1"]

    def longer(host: str, token: str, proof: str) -> None:
        stage.serve(host, token, proof + ".x")

    def absent(host: str, token: str, proof: str) -> None:
        stage.serve(host, token, proof)
        del stage.site.answers[path + token]

    def unknown(host: str, token: str, proof: str) -> None:
        stage.zone.remove(host, "A")

    def text(host: str, token: str, proof: str) -> None:
        stage.zone.add(f"_acme-challenge.{host}", "TXT", proof, dns_digest(thief.proof(token)))

    def no_tls(host: str, token: str, proof: str) -> None:
        stage.serve(host, token, proof)

    rows: list[tuple[str, str, str, Callable[[str, str, str], None]]] = [
        ("a redirect into a private network", "http-01", "connection", redirect),
        ("a redirect to a metadata service", "http-01", "connection", metadata),
        ("a huge answer", "http-01", "connection", huge),
        ("the proof of another account", "http-01", "incorrectResponse", stolen),
        ("a private address", "http-01", "connection", private),
        ("something behind the proof", "http-01", "incorrectResponse", longer),
        ("404", "http-01", "unauthorized", absent),
        ("a name that does not exist", "http-01", "dns", unknown),
        ("wrong records", "dns-01", "incorrectResponse", text),
        ("no record", "dns-01", "dns", unknown),
        ("a server without TLS", "tls-alpn-01", "tls", no_tls),
    ]
    wrong = []
    for n, (what, type, kind, install) in enumerate(rows):
        order = await client.order(f"dns:a{n}.example")
        await client.prove(order, type, install)
        await stage.validate()
        failed = (await client.post(order.headers["location"])).json
        authorization = (await client.post(order.json["authorizations"][0])).json
        [challenge] = authorization["challenges"]
        seen = (failed["status"], failed["error"]["type"], authorization["status"], challenge["status"])
        if seen != ("invalid", KINDS + kind, "invalid", "invalid") or challenge["error"]["type"] != KINDS + kind:
            wrong.append(f"{what}: due {kind}, was {failed} {authorization}")
        late = await client.post(challenge["url"], {})
        if late.json["status"] != "invalid":
            wrong.append(f"{what}: again {late}")
    assert not wrong, "\n".join(wrong)
    assert count(stage)[2] == 0
    assert all("secret" not in path and "meta-data" not in path for _, path in stage.site.asked)


async def test_a_challenge_response_is_limited_in_size_and_redirects(stage: AcmeStage) -> None:
    client = await stage.client()

    def of_size(size: int) -> Callable[[str, str, str], None]:
        return lambda host, token, proof: stage.serve(host, token, proof.ljust(size))

    def behind(redirects: int) -> Callable[[str, str, str], None]:
        def install(host: str, token: str, proof: str) -> None:
            stage.serve(host, token, proof)
            path = f"/.well-known/acme-challenge/{token}"
            places = [path, *(f"/{number}/{token}" for number in range(redirects))]
            stage.site.answers[places[-1]] = stage.site.answers[path]
            stage.site.answers |= {here: (302, there, b"") for here, there in pairwise(places)}

        return install

    rows = [
        (of_size(MAX_KEY_AUTHORIZATION), "ready"),
        (of_size(MAX_KEY_AUTHORIZATION + 1), "invalid"),
        (behind(MAX_REDIRECTS), "ready"),
        (behind(MAX_REDIRECTS + 1), "invalid"),
    ]
    for number, (install, status) in enumerate(rows):
        order = await client.order(f"dns:limit{number}.example")
        await client.prove(order, "http-01", install)
        await stage.validate()
        entry = newest_entry(stage.world)
        assert (entry.action, (entry.detail or {}).get("problem")) == (
            "acme.validate",
            None if status == "ready" else "connection",
        )
        assert (await client.post(order.headers["location"])).json["status"] == status, number


async def test_a_validation_of_a_silent_host_fails_after_three_attempts(
    stage: AcmeStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts = []

    async def count(url: str, **more: Any) -> bytes:
        attempts.append(url)
        return await visit(url, **more)

    monkeypatch.setattr("ostiaryd.certs.wire_acme_validation.visit", count)
    monkeypatch.setattr("ostiaryd.certs.wire_acme_validation.WITHIN_S", 0.3)
    client = await stage.client()
    order = await client.order("dns:slow.example")
    await client.prove(order, "http-01", stage.serve)
    stage.site.silence.clear()
    await stage.validate()
    failed = (await client.post(order.headers["location"])).json
    assert (failed["status"], failed["error"]["type"]) == ("invalid", f"{KINDS}connection")
    assert len(attempts) == 3, "two repetitions"
    assert len(stage.site.asked) <= 3, "no attempt asks twice"


async def test_silent_hosts_of_an_account_do_not_delay_the_validations_of_another_account(
    stage: AcmeStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ostiaryd.certs.wire_acme_validation.WITHIN_S", 3600.0)
    monkeypatch.setattr("ostiaryd.certs.wire_acme_validation.AT_ONCE", OF_ACCOUNT + 1)
    slow, quick = await stage.client(), await stage.client()
    waiting = await slow.order(*[f"dns:{number}.example" for number in range(OF_ACCOUNT + 2)])
    stage.site.silence.clear()
    await slow.prove(waiting, "http-01", stage.serve)
    await validate_due(stage.world)
    await eventually_async(lambda: len(stage.site.asked) == OF_ACCOUNT)

    order = await quick.order("dns:quick.example")
    await quick.prove(
        order, "dns-01", lambda host, _, proof: stage.zone.add(f"_acme-challenge.{host}", "TXT", dns_digest(proof))
    )
    await validate_due(stage.world)
    id = order.headers["location"].rpartition("/")[2]
    await eventually_async(lambda: status_of(stage, id) == "ready")
    assert len(stage.site.asked) == OF_ACCOUNT, "the hosts of the first account are still silent"
    assert status_of(stage, waiting.headers["location"].rpartition("/")[2]) == "pending"
    stage.site.silence.set()
    await stage.validate()
    assert status_of(stage, waiting.headers["location"].rpartition("/")[2]) == "ready"


def status_of(stage: AcmeStage, order: str) -> str:
    stored = store.get_order(stage.world.db.read(), order)
    assert stored is not None
    return stored.status


async def test_a_validation_starts_at_once_or_when_another_validation_ends(
    stage: AcmeStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    for limit in ("LOOK_S", "WITHIN_S"):
        monkeypatch.setattr(f"ostiaryd.certs.wire_acme_validation.{limit}", 3600.0)

    async def validate() -> None:
        while True:
            await keep_validating(stage.world)

    client = await stage.client()
    running = asyncio.create_task(validate())
    order = await client.order(*[f"dns:{number}.example" for number in range(2 * OF_ACCOUNT + 1)])
    stage.site.silence.clear()
    await client.prove(order, "http-01", stage.serve)
    await eventually_async(lambda: len(stage.site.asked) == OF_ACCOUNT)
    stage.site.silence.set()
    id = order.headers["location"].rpartition("/")[2]
    await eventually_async(lambda: status_of(stage, id) == "ready")
    running.cancel()


async def test_a_validation_with_an_internal_error_ends_after_three_attempts(
    stage: AcmeStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts = []

    async def fail(url: str, **_: Any) -> bytes:
        attempts.append(url)
        raise KeyError(url)

    monkeypatch.setattr("ostiaryd.certs.wire_acme_validation.visit", fail)
    client = await stage.client()
    order = await client.order("dns:strange.example")
    await client.prove(order, "http-01", stage.serve)
    await stage.validate()
    failed = (await client.post(order.headers["location"])).json
    assert (failed["status"], failed["error"]["type"]) == ("invalid", f"{KINDS}serverInternal")
    assert len(attempts) == 3, "two repetitions"


async def test_a_validation_for_an_account_that_was_deactivated_meanwhile_fails(stage: AcmeStage) -> None:
    client = await stage.client()
    order = await client.order("dns:www.example")
    await client.prove(order, "http-01", stage.serve)
    assert (await client.post(client.kid, {"status": "deactivated"})).status == 200
    await stage.validate()
    stored = store.get_order(stage.world.db.read(), order.headers["location"].rpartition("/")[2])
    assert stored is not None
    assert stored.status == "invalid"


DNS = CertificateName(NameKind.DNS, "a.example")
NAME = x509.DNSName("a.example")
PROOF = "token.thumbprint"


@pytest.mark.parametrize(
    ("names", "proof", "more", "protocol"),
    [
        ([NAME], digest(PROOF), {}, None),
        ([NAME], digest(PROOF), {}, "h2"),
        ([NAME], digest(PROOF), {"critical": False}, "acme-tls/1"),
        ([NAME], digest("other"), {}, "acme-tls/1"),
        ([NAME], digest(PROOF)[2:], {}, "acme-tls/1"),
        ([NAME], digest(PROOF) + b"\0", {}, "acme-tls/1"),
        ([], digest(PROOF), {}, "acme-tls/1"),
        ([NAME, NAME], digest(PROOF), {}, "acme-tls/1"),
        ([NAME, x509.DNSName("b.example")], digest(PROOF), {}, "acme-tls/1"),
        ([x509.DNSName("b.example")], digest(PROOF), {}, "acme-tls/1"),
        ([x509.DNSName("*.example")], digest(PROOF), {}, "acme-tls/1"),
        ([x509.RFC822Name("a@a.example")], digest(PROOF), {}, "acme-tls/1"),
        ([NAME], digest(PROOF), {"oid": x509.ObjectIdentifier("1.3.6.1.5.5.7.1.30")}, "acme-tls/1"),
    ],
)
def test_a_tls_server_with_another_certificate_or_protocol_proves_no_name(
    names: list[x509.GeneralName], proof: bytes, more: dict[str, Any], protocol: str | None
) -> None:
    made, _ = alpn_certificate(names, proof, **more)
    with pytest.raises(AcmeRefused) as refused:
        check_tls_answer(made.public_bytes(Encoding.DER), protocol, DNS, PROOF)
    assert refused.value.code == "unauthorized"


def test_a_tls_server_proves_a_name_and_an_address() -> None:
    for name, shown in ((DNS, x509.DNSName("A.example")), (make_name(NameKind.IP, "127.0.0.1"), None)):
        from tests.support.alpn_server import general_name

        made, _ = alpn_certificate([shown or general_name(name.value)], digest(PROOF))
        check_tls_answer(made.public_bytes(Encoding.DER), "acme-tls/1", name, PROOF)
    for unreadable in (b"", of_unknown_version(alpn_certificate([x509.DNSName("a.example")], digest(PROOF))[0])):
        with pytest.raises(AcmeRefused, match="cannot be read"):
            check_tls_answer(unreadable, "acme-tls/1", DNS, PROOF)


# --- revocation and renewal


async def test_a_malformed_or_unauthorized_revocation_is_refused(stage: AcmeStage) -> None:
    client = await stage.client()
    order = await stage.issued(client, "dns:www.example")
    leaf = x509.load_pem_x509_certificates((await client.post(order.json["certificate"])).body)[0]
    der = leaf.public_bytes(Encoding.DER)
    changed = bytearray(der)
    changed[-1] ^= 1
    stranger = alpn_certificate([NAME], b"")[0].public_bytes(Encoding.DER)
    rows: list[tuple[Any, int, str]] = [
        ({"certificate": b64u(der), "reason": 2}, 400, "badRevocationReason"),
        ({"certificate": b64u(der), "reason": 6}, 400, "badRevocationReason"),
        ({"certificate": b64u(der), "reason": -1}, 400, "badRevocationReason"),
        ({"certificate": b64u(der), "reason": "1"}, 400, "malformed"),
        ({"certificate": b64u(bytes(changed))}, 404, "malformed"),
        ({"certificate": b64u(stranger)}, 404, "malformed"),
        ({"certificate": b64u(of_unknown_version(leaf))}, 404, "malformed"),
        ({"certificate": "=="}, 400, "malformed"),
        ({}, 400, "malformed"),
    ]
    for body, status, kind in rows:
        answer = await client.post("revoke-cert", body)
        assert (answer.status, kind_of(answer)) == (status, kind), (body, answer)
        assert newest_entry(stage.world).outcome == "refused"
    answer = await AcmeClient(stage.app).post("revoke-cert", {"certificate": b64u(der)})
    assert (answer.status, kind_of(answer)) == (403, "unauthorized"), "another key than that of the certificate"
    assert (await client.post("revoke-cert", {"certificate": b64u(der), "reason": 9})).status == 200


async def test_renewal_information_of_unknown_certificates_is_not_found(stage: AcmeStage) -> None:
    for id, status in (("x", 400), ("AQ.AQ", 404), ("AQ.", 400), (".AQ", 400), ("AQ.AQ.AQ", 400), ("AQ.AAAB", 400)):
        answer = await send(stage.app, "GET", f"/acme/renewal-info/{id}")
        assert (answer.status, kind_of(answer)) == (status, "malformed"), id


def test_the_renewal_identifier_of_a_certificate_is_that_of_rfc_9773() -> None:
    """RFC 9773 section 4.1."""
    key = bytes.fromhex("69885B6B87464041E1B37B847BA0AE2CDE01C8D4")
    text = "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE"
    assert render_certificate_id(key, 0x87654321) == text
    assert parse_certificate_id(text) == (key, 0x87654321)


# --- shapes


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=10,
)
MEMBERS = st.sampled_from(["alg", "nonce", "url", "kid", "jwk", "crit", "b64", "typ"])
HEADERS = st.dictionaries(MEMBERS, JSON | st.sampled_from(["ES256", "HS256", "none", ""]), max_size=8)

FITTING = st.fixed_dictionaries(
    {"alg": st.sampled_from(["ES256", "HS256"]), "url": st.just("https://acme.example/x")},
    optional={"nonce": st.just("AAAA"), "kid": st.sampled_from(["k", ""]), "jwk": st.just({"kty": "EC"})},
)
"""Headers of which about one in ten is accepted."""


PARTS = st.dictionaries(st.sampled_from(["protected", "payload", "signature", "header"]), JSON)


def code_of(parse: Callable[[], object]) -> str:
    """Return the type of problem that parsing raises; "" if it succeeds."""
    try:
        parse()
    except AcmeRefused as refusal:
        return refusal.code
    return ""


@given(header=HEADERS | FITTING | JSON, body=JSON, parts=PARTS)
@example(header={"alg": "ES256", "url": "", "nonce": "AAAA", "kid": "k"}, body={}, parts={})
def test_a_jws_of_any_shape_is_parsed_or_refused(header: Any, body: Any, parts: dict[str, Any]) -> None:
    good = {"protected": encode(header), "payload": encode(body), "signature": "AAAA"}
    for macs in (False, True):
        for value in (good, good | parts, body, parts):
            code = code_of(partial(parse_jws, value, macs=macs, has_nonce=not macs))
            assert code in ("", "malformed", "badSignatureAlgorithm")
            if not code:
                jws = parse_jws(value, macs=macs, has_nonce=not macs)
                assert (jws.jwk is None) or not jws.kid


VALUES = st.text(max_size=300) | st.sampled_from(["a.example", "*.B.example", "10.0.0.1", "2001:DB8::1"])


@given(st.lists(st.tuples(st.text(max_size=8) | st.sampled_from(["dns", "ip"]), VALUES), max_size=4))
@example([("dns", "a.example"), ("dns", "*.B.example"), ("ip", "10.0.0.1"), ("ip", "2001:DB8::1")])
def test_identifiers_of_any_text_are_parsed_or_refused(identifiers: list[tuple[str, str]]) -> None:
    code = code_of(partial(parse_identifiers, identifiers))
    assert code in ("", "malformed", "unsupportedIdentifier", "compound")
    names = () if code else parse_identifiers(identifiers)
    assert all(make_name(name.kind, name.value) == name for name in names)


@given(
    st.text(max_size=60)
    | st.sampled_from(["ann@example.org", "2026-01-01T00:00:00.5+01:00", "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE"])
)
def test_contacts_instants_nonces_and_identifiers_of_any_text_are_parsed_or_refused(text: str) -> None:
    assert code_of(partial(check_contacts, [f"mailto:{text}"])) in ("", "invalidContact")
    assert code_of(partial(parse_instant, text, name="notAfter")) in ("", "malformed")
    assert code_of(partial(check_nonce, b"s" * 32, text, now=1)) == "badNonce"
    assert code_of(partial(parse_certificate_id, text)) in ("", "malformed")


def test_the_number_of_identifiers_in_an_order_is_limited() -> None:
    names = [("dns", f"a{n}.example") for n in range(MAX_IDENTIFIERS + 1)]
    assert len(parse_identifiers(names[:-1])) == MAX_IDENTIFIERS
    with pytest.raises(AcmeRefused):
        parse_identifiers(names)


async def seconds_left(stage: AcmeStage, order: Answer) -> float:
    """Return the seconds until an order ends."""
    stored = store.get_order(stage.world.db.read(), order.headers["location"].rpartition("/")[2])
    assert stored is not None
    return (stored.expires_at - stage.world.now()) / SECOND


def jose_to_ec(key: jose.PrivateKey) -> ec.EllipticCurvePrivateKey:
    """Return an ES256 key as a key that signs certificate signing requests."""
    return ec.derive_private_key(int.from_bytes(jose.unb64u(key.jwk()["d"])), ec.SECP256R1())


def weak_csr() -> bytes:
    """Return a request for an RSA key of 1024 bits."""
    key = rsa.generate_private_key(65537, 1024)
    return csr_builder(["dns:www.example"]).sign(key, hashes.SHA256()).public_bytes(Encoding.DER)
