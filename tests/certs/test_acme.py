"""The ACME server for a client that behaves: accounts, orders, the three challenges, certificates, renewal."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from harness.call_counts import count_calls
from harness.registry_fixtures import create_person, newest_entry
from ostiary.protocol import jose
from ostiary.protocol.errors import Forbidden
from ostiary.protocol.jose import b64u
from ostiaryd.certs.flows import acme as flows
from ostiaryd.certs.flows.revoking import find_certificate
from ostiaryd.certs.flows.rotation import revoke_authority
from ostiaryd.certs.model.acme import certificate_id_of
from ostiaryd.certs.model.certificate import RevocationReason, serial_text
from ostiaryd.certs.store import certificates
from ostiaryd.certs.store.acme import get_account
from ostiaryd.certs.wire_acme_validation import forget_orders
from ostiaryd.ledger.flows import Act, act
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import HoldingId, Verb
from tests.certs.acme_fixtures import AcmeStage
from tests.support.acme_client import KINDS, MISSING, ROOT, AcmeClient, dns_digest, kind_of
from tests.support.alpn_server import alpn_server
from tests.support.api_fixtures import Answer, reconfigured, send
from tests.support.certificate_fixtures import make_csr, new_key, put_policies
from tests.support.recorded_statements import record_statements


async def test_the_directory_names_every_resource(stage: AcmeStage) -> None:
    answer = await send(stage.app, "GET", "/acme/directory")
    names = ("newNonce", "newAccount", "newOrder", "revokeCert", "keyChange", "renewalInfo")
    assert all(answer.json[name].startswith(ROOT) for name in names)
    assert answer.json["meta"]["externalAccountRequired"] is True
    assert "newAuthz" not in answer.json, "authorizations are created with orders"


async def test_a_nonce_is_returned_by_head_with_200_and_by_get_with_204(stage: AcmeStage) -> None:
    for method, status in (("HEAD", 200), ("GET", 204)):
        answer = await send(stage.app, method, "/acme/new-nonce")
        assert (answer.status, answer.headers["cache-control"]) == (status, "no-store")
        assert answer.headers["link"] == f'<{ROOT}directory>;rel="index"'
        assert len(answer.headers["replay-nonce"]) == 43


async def test_an_account_is_created_once_and_belongs_to_the_agent(stage: AcmeStage) -> None:
    made, client = await stage.key(), AcmeClient(stage.app)
    answer = await client.register(made.key.kid, made.mac_key, contact=["mailto:ann@example.org"], unknown=1)
    assert answer.status == 201
    assert answer.json == {"status": "valid", "contact": ["mailto:ann@example.org"], "orders": f"{client.kid}/orders"}
    entry = newest_entry(stage.world)
    assert (entry.action, entry.agent, entry.owner) == ("acme.create_account", stage.agent.agent_id, stage.agent.owner)
    assert made.mac_key not in json.dumps(entry.detail)
    again = AcmeClient(stage.app, client.key)
    found = await again.post("new-account", {"onlyReturnExisting": True})
    assert (found.status, found.headers["location"], found.json) == (200, client.kid, answer.json)
    assert (await client.post(client.kid)).json == answer.json


async def test_an_account_can_change_its_contacts_and_be_deactivated(stage: AcmeStage) -> None:
    client = await stage.client()
    assert (await client.post(client.kid, {"contact": ["mailto:bob@example.org"]})).json["contact"] == [
        "mailto:bob@example.org"
    ]
    assert (await client.post(client.kid, {"status": "deactivated"})).json["status"] == "deactivated"
    for url, payload in ((client.kid, None), (f"{ROOT}new-order", {"identifiers": []})):
        answer = await client.post(url, payload)
        assert (answer.status, kind_of(answer)) == (401, "unauthorized")
    again = await AcmeClient(stage.app, client.key).post("new-account", {"onlyReturnExisting": True})
    assert (again.status, kind_of(again)) == (401, "unauthorized")


@pytest.mark.parametrize("alg", ["ES256", "ES384", "EdDSA", "RS256", "PS256"])
async def test_an_account_key_of_each_algorithm_works(stage: AcmeStage, alg: str) -> None:
    made, client = await stage.key(), AcmeClient(stage.app, jose.generate(alg))
    assert (await client.register(made.key.kid, made.mac_key)).status == 201
    assert (await client.post(client.kid)).status == 200


async def test_the_key_of_an_account_is_replaced(stage: AcmeStage) -> None:
    client, new = await stage.client(), jose.generate("ES256")
    inner = {"account": client.kid, "oldKey": client.key.public.bare_jwk}
    payload = await AcmeClient(stage.app, new).jws(f"{ROOT}key-change", inner, nonce=MISSING)
    assert (await client.post("key-change", payload)).status == 200
    refused = await client.post(client.kid)
    assert refused.status == 400, "the old key signs nothing more"
    client.key = new
    assert (await client.post(client.kid)).status == 200


async def test_a_certificate_proved_by_http_is_issued_and_is_a_holding_of_the_agent(stage: AcmeStage) -> None:
    client = await stage.client()
    order = await client.order("dns:www.example", "dns:api.example")
    assert order.status == 201
    assert order.json["status"] == "pending"
    assert order.json["identifiers"] == [
        {"type": "dns", "value": "www.example"},
        {"type": "dns", "value": "api.example"},
    ]
    authorization = await client.post(order.json["authorizations"][0])
    types = [one["type"] for one in authorization.json["challenges"]]
    assert (authorization.json["status"], types) == ("pending", ["http-01", "dns-01", "tls-alpn-01"])
    await client.prove(order, "http-01", stage.serve)
    waiting = await client.post(order.json["authorizations"][0])
    assert (waiting.json["status"], waiting.headers["retry-after"]) == ("pending", "1")
    assert {one["status"] for one in waiting.json["challenges"]} == {"pending", "processing"}
    await stage.validate()
    valid = await client.post(order.json["authorizations"][0])
    assert [(one["type"], one["status"]) for one in valid.json["challenges"]] == [("http-01", "valid")]
    assert valid.json["challenges"][0]["validated"]
    key = new_key()
    done = await client.finalize(order, make_csr(key, ["dns:api.example", "dns:www.example"]))
    assert (done.status, done.json["status"]) == (200, "valid")
    entry = newest_entry(stage.world)
    assert (entry.action, entry.agent) == ("cert.issue", stage.agent.agent_id)
    pem = await client.post(done.json["certificate"])
    assert pem.headers["content-type"] == "application/pem-certificate-chain"
    leaf, *above = x509.load_pem_x509_certificates(pem.body)
    leaf.verify_directly_issued_by(above[0])
    assert leaf.public_key() == key.public_key()
    assert list(leaf.subject) == [], "certbot orders a common name as well when it renews"
    assert leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).critical
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(x509.DNSName)
    assert sorted(names) == ["api.example", "www.example"]
    held = registry.get_holding(stage.world.db.read(), HoldingId(f"ct_{leaf.serial_number:032x}"))
    assert held is not None
    assert (held.agent, held.is_live(stage.world.now())) == (stage.agent.agent_id, True)
    assert (await client.post(f"{client.kid}/orders")).json["orders"] == [order.headers["location"]]


async def test_an_order_takes_a_fixed_number_of_signatures_and_writes(
    stage: AcmeStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await stage.client()
    await stage.issued(client, "dns:first.example")  # makes the authorities, and fills the caches
    statements = record_statements(stage.world, monkeypatch)
    with count_calls() as calls:
        done = await stage.issued(client, "dns:second.example")
        assert (await client.post(done.json["certificate"])).status == 200
    assert calls["UnverifiedJws.verify"] == 6, "one signature for each request"
    assert calls["ECPublicKey.verify"] == 6 + calls["_check_signature"], "and that of the signing request"
    counts = Counter(statements)
    assert (counts["insert"], counts["update"], set(counts)) == (20, 5, {"select", "insert", "update"})
    assert counts["select"] <= 44


async def test_a_repeated_name_is_ordered_once(stage: AcmeStage) -> None:
    client = await stage.client()
    order = await client.order("dns:a.example", "dns:A.EXAMPLE", "dns:b.example", "dns:a.example")
    assert order.status == 201
    assert [one["value"] for one in order.json["identifiers"]] == ["a.example", "b.example"]
    assert len(order.json["authorizations"]) == 2
    await client.prove(order, "http-01", stage.serve)
    await stage.validate()
    done = await client.finalize(
        await client.post(order.headers["location"]), make_csr(names=["dns:A.example", "dns:b.example"])
    )
    assert done.json["status"] == "valid"


async def test_a_wildcard_is_proved_by_dns(stage: AcmeStage) -> None:
    client = await stage.client()
    order = await client.order("dns:*.example.net", "dns:example.net")
    shown = [(await client.post(url)).json for url in order.json["authorizations"]]
    assert [(one["identifier"]["value"], one.get("wildcard", False)) for one in shown] == [
        ("example.net", True),
        ("example.net", False),
    ]
    assert [one["type"] for one in shown[0]["challenges"]] == ["dns-01"]
    await client.prove(
        order, "dns-01", lambda host, _, proof: stage.zone.add(f"_acme-challenge.{host}", "TXT", dns_digest(proof))
    )
    await stage.validate()
    done = await client.finalize(order, make_csr(names=["dns:example.net", "dns:*.example.net"]))
    assert done.json["status"] == "valid", done


async def test_a_name_and_an_address_are_proved_by_tls(stage: AcmeStage, tmp_path: Path) -> None:
    client = await stage.client()
    stage.zone.add("tls.example", "A", "127.0.0.1")
    order = await client.order("dns:tls.example", "ip:127.0.0.1")
    proofs: dict[str, str] = {}
    with alpn_server(tmp_path, proofs) as port:
        stage.world = reconfigured(stage.world, acme_tls_port=port)
        await client.prove(order, "tls-alpn-01", lambda host, _, proof: proofs.update({host: proof}))
        await stage.validate()
    done = await client.finalize(order, make_csr(names=["dns:tls.example", "ip:127.0.0.1"]))
    assert done.json["status"] == "valid", done


async def test_an_order_may_request_an_earlier_end_than_its_profile(stage: AcmeStage) -> None:
    client = await stage.client()
    at = stage.world.now() // 10**6 + 3600
    text = datetime.fromtimestamp(at, UTC).isoformat()
    order = await client.order("dns:www.example", notAfter=text)
    assert order.json["notAfter"] == datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    await client.prove(order, "http-01", stage.serve)
    await stage.validate()
    done = await client.finalize(order, make_csr(names=["dns:www.example"]))
    leaf = x509.load_pem_x509_certificates((await client.post(done.json["certificate"])).body)[0]
    assert 0 <= at - leaf.not_valid_after_utc.timestamp() < 60


async def test_a_certificate_can_be_revoked_by_its_account_its_key_or_a_prover_of_its_names(
    stage: AcmeStage,
) -> None:
    owner, other = await stage.client(), await stage.client()
    for by in ("account", "key", "other"):
        key = new_key()
        order = await stage.ready(owner, "dns:www.example")
        done = await owner.finalize(order, make_csr(key, ["dns:www.example"]))
        leaf = await leaf_of(owner, done)
        body = {"certificate": b64u(leaf.public_bytes(Encoding.DER)), "reason": 4}
        if by == "key":
            signer = AcmeClient(stage.app, private_key(key))
        elif by == "account":
            signer = owner
        else:
            refused = await other.post("revoke-cert", body)
            assert (refused.status, kind_of(refused)) == (403, "unauthorized")
            await stage.ready(other, "dns:www.example")
            signer = other
            blocking = await other.post("revoke-cert", {**body, "reason": 1})
            assert (blocking.status, kind_of(blocking)) == (400, "badRevocationReason"), "the key is not its own"
        answer = await signer.post("revoke-cert", body)
        assert (answer.status, answer.body) == (200, b""), answer
        held = registry.get_holding(stage.world.db.read(), HoldingId(f"ct_{leaf.serial_number:032x}"))
        assert held is not None
        assert not held.is_live(stage.world.now())
        again = await owner.post("revoke-cert", body)
        assert (again.status, kind_of(again)) == (400, "alreadyRevoked")


async def test_renewal_information_has_a_window_and_a_certificate_is_replaced_once(stage: AcmeStage) -> None:
    client, other = await stage.client(), await stage.client()
    leaf = await leaf_of(client, await stage.issued(client, "dns:www.example"))
    issuer = leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    size = leaf.serial_number.bit_length() // 8 + 1
    id = f"{b64u(issuer or b'')}.{b64u(leaf.serial_number.to_bytes(size))}"
    answer = await send(stage.app, "GET", f"/acme/renewal-info/{id}")
    window = {name: datetime.fromisoformat(at) for name, at in answer.json["suggestedWindow"].items()}
    life = leaf.not_valid_after_utc - leaf.not_valid_before_utc
    assert window["start"] < window["end"] < leaf.not_valid_after_utc
    assert abs((window["start"] - leaf.not_valid_before_utc) / life - 2 / 3) < 0.01
    assert answer.headers["retry-after"] == "3602"
    for who, names, due in (
        (other, ["dns:www.example"], "unauthorized"),
        (client, ["dns:other.example"], "malformed"),
    ):
        refused = await who.order(*names, replaces=id)
        assert kind_of(refused) == due, refused
    order = await client.order("dns:www.example", "dns:new.example", replaces=id)
    assert (order.status, order.json["replaces"]) == (201, id)
    twice = await client.order("dns:www.example", replaces=id)
    assert (twice.status, kind_of(twice)) == (409, "alreadyReplaced")
    await client.post("revoke-cert", {"certificate": b64u(leaf.public_bytes(Encoding.DER))})
    answer = await send(stage.app, "GET", f"/acme/renewal-info/{id}")
    assert datetime.fromisoformat(answer.json["suggestedWindow"]["end"]).timestamp() < stage.world.now() / 10**6


@pytest.mark.parametrize("why", ["authority revoked", "agent suspended", "agent expired", "stop"])
async def test_renewal_is_due_at_once_for_a_certificate_that_is_not_accepted(stage: AcmeStage, why: str) -> None:
    """A client of a stopped agent is refused until the stop is lifted, and asks again."""
    client, agent = await stage.client(), stage.agent.agent_id
    leaf = await leaf_of(client, await stage.issued(client, "dns:www.example"))
    serial = serial_text(leaf.serial_number)
    authority = find_certificate(stage.world.db.read(), serial, now=stage.world.now()).authority

    async def ends() -> float:
        answer = await send(
            stage.app, "GET", f"/acme/renewal-info/{certificate_id_of(leaf.public_bytes(Encoding.DER))}"
        )
        return datetime.fromisoformat(answer.json["suggestedWindow"]["end"]).timestamp() - stage.world.now() / 10**6

    def happen(act: Act) -> None:
        match why:
            case "authority revoked":
                revoke_authority(act, authority, RevocationReason.KEY_COMPROMISE)
            case "agent suspended":
                registry.set_agent_state(act, agent, Verb.SUSPEND)
            case "agent expired":
                registry.set_end(act, agent, act.now + 60 * 10**6)
            case "stop":
                registry.stop(act, "everything", "", why="a test", by=None)

    assert await ends() > 0
    await act(stage.world, "test", happen)
    stage.clock.advance(61)
    assert await ends() < 0


async def test_a_certificate_whose_renewal_order_failed_can_be_replaced_again(stage: AcmeStage) -> None:
    client = await stage.client()
    leaf = await leaf_of(client, await stage.issued(client, "dns:www.example"))
    id = certificate_id_of(leaf.public_bytes(Encoding.DER))
    order = await client.order("dns:www.example", replaces=id)
    assert (await client.post(order.json["authorizations"][0], {"status": "deactivated"})).json[
        "status"
    ] == "deactivated"
    failed = await client.post(order.headers["location"])
    assert (failed.json["status"], failed.json["error"]["type"]) == ("invalid", f"{KINDS}unauthorized")
    assert (await client.order("dns:www.example", replaces=id)).status == 201


async def test_failed_renewal_orders_are_counted(stage: AcmeStage) -> None:
    client = await stage.client()
    leaf = await leaf_of(client, await stage.issued(client, "dns:www.example"))
    id = certificate_id_of(leaf.public_bytes(Encoding.DER))

    def failures() -> list[tuple[str, int]]:
        reader, now = stage.world.db.read(), stage.world.now()
        found = certificates.neglected(reader, now=now, until=now, long=1, failures=1, limit=9)
        return [(certificate.serial, count) for certificate, count in found]

    order = await client.order("dns:www.example", replaces=id)
    assert kind_of(await client.finalize(order, make_csr(names=["dns:www.example"]))) == "orderNotReady"
    assert failures() == [], "the client was too early"
    await client.prove(order, "http-01", lambda *_: None)
    await stage.validate()
    assert (await client.post(order.headers["location"])).json["status"] == "invalid"
    assert failures() == [(f"{leaf.serial_number:032x}", 1)]
    order = await client.order("dns:www.example", replaces=id)
    await client.prove(order, "http-01", stage.serve)
    await stage.validate()
    assert kind_of(await client.finalize(order, make_csr(names=["dns:foreign.example"]))) == "badCSR"
    assert failures() == [(f"{leaf.serial_number:032x}", 2)]


async def test_refused_renewal_orders_are_counted(stage: AcmeStage) -> None:
    client, other = await stage.client(), await stage.client()
    leaf = await leaf_of(client, await stage.issued(client, "dns:www.example"))
    id, serial = certificate_id_of(leaf.public_bytes(Encoding.DER)), f"{leaf.serial_number:032x}"

    async def failures_after(who: AcmeClient, problem: str, *names: str, **said: str) -> int:
        assert kind_of(await who.order(*names, **said)) == problem
        reader, now = stage.world.db.read(), stage.world.now()
        found = certificates.neglected(reader, now=now, until=now, long=1, failures=1, limit=9)
        return {certificate.serial: count for certificate, count in found}.get(serial, 0)

    used = client.nonces[-1]
    assert await failures_after(client, "malformed", "dns:other.example", replaces=id) == 1
    late = {"notBefore": "2030-01-01T00:00:00Z"}
    assert await failures_after(client, "malformed", "dns:www.example", **late) == 1, "it replaces nothing"
    await put_policies(stage.world, "forbid (principal, action, resource);")
    assert await failures_after(client, "rejectedIdentifier", "dns:www.example", replaces=id) == 2
    await put_policies(stage.world)
    assert await failures_after(other, "unauthorized", "dns:www.example", replaces=id) == 2
    assert await failures_after(client, "malformed", "dns:www.example", replaces="AA.AA") == 2
    client.nonces.append(used)
    assert await failures_after(client, "badNonce", "dns:other.example", replaces=id) == 2
    await client.order("dns:www.example", replaces=id)
    assert await failures_after(client, "alreadyReplaced", "dns:www.example", replaces=id) == 2


async def test_the_account_of_a_person_orders_only_names_of_its_pattern_and_roles(stage: AcmeStage) -> None:
    roles = files("ostiaryd.policy") / "roles" / "role-certificates.cedar"
    await put_policies(stage.world, roles.read_text("utf-8"))
    person = await create_person(stage.world, "ann")
    with pytest.raises(Forbidden):
        await stage.key(agent=None, person="ann", profile="agent")
    client = await stage.client(agent=None, person="ann", names=["dns:*.ann.example"])
    for name in ("dns:www.example", "dns:www.ann.example"):  # outside of the pattern; without a role
        refused = await client.order(name)
        assert (refused.status, kind_of(refused)) == (403, "rejectedIdentifier")
    await act(stage.world, "role.grant", lambda act: registry.grant_role(act, "ann", "administrator"))
    leaf = await leaf_of(client, await stage.issued(client, "dns:www.ann.example"))
    held = registry.get_holding(stage.world.db.read(), HoldingId(f"ct_{leaf.serial_number:032x}"))
    assert held is not None
    assert held.agent == person
    await act(stage.world, "person.suspend", lambda act: registry.suspend_person(act, person))
    assert "is suspended" in (await client.order("dns:www.ann.example")).json["detail"]
    await act(stage.world, "person.resume", lambda act: registry.resume_person(act, person))
    await act(stage.world, "person.leave", lambda act: registry.revoke_owner(act, person))
    answer = await client.post(client.kid)
    assert (answer.status, kind_of(answer)) == (403, "unauthorized")


@pytest.mark.parametrize("stop", ["suspend", "key", "kill"])
async def test_an_account_ends_with_its_agent_and_with_its_mac_key(stage: AcmeStage, stop: str) -> None:
    client = await stage.client()
    order = await stage.ready(client, "dns:www.example")
    leaf = await leaf_of(client, await stage.issued(client, "dns:www.example"))
    if stop == "suspend":
        await act(
            stage.world,
            "agent.suspend",
            lambda act: registry.set_agent_state(act, stage.agent.agent_id, Verb.SUSPEND, by=None),
        )
    elif stop == "kill":
        await act(
            stage.world, "kill.start", lambda act: registry.stop(act, "owner", stage.agent.owner, by=None, why="x")
        )
    else:
        account = get_account(stage.world.db.read(), client.kid.rpartition("/")[2])
        assert account is not None
        kid = account.kid
        await act(stage.world, "acme.revoke_key", lambda act: flows.revoke_key(act, kid))
    for answer in (await client.post(client.kid), await client.finalize(order, make_csr(names=["dns:www.example"]))):
        assert kind_of(answer) == "unauthorized", answer
    held = registry.get_holding(stage.world.db.read(), HoldingId(f"ct_{leaf.serial_number:032x}"))
    assert held is not None
    if stop == "suspend":
        assert not held.is_live(stage.world.now())


async def test_orders_and_authorizations_are_deleted_a_day_after_their_end(stage: AcmeStage) -> None:
    client = await stage.client()
    order = await client.order("dns:www.example")
    stage.clock.advance(2 * 86_400 - 1)
    client.nonces.clear()
    await forget_orders(stage.world)
    assert (await client.post(order.headers["location"])).json["status"] == "invalid"
    stage.clock.advance(600)
    await forget_orders(stage.world)
    gone = await client.post(order.headers["location"])
    assert (gone.status, kind_of(gone)) == (404, "malformed")
    assert (await client.post(order.json["authorizations"][0])).status == 404


async def leaf_of(client: AcmeClient, order: Answer) -> x509.Certificate:
    """Return the certificate of an order."""
    return x509.load_pem_x509_certificates((await client.post(order.json["certificate"])).body)[0]


def private_key(key: ec.EllipticCurvePrivateKey) -> jose.PrivateKey:
    """Return the key as a JWK that signs."""
    numbers = key.private_numbers()
    x, y = numbers.public_numbers.x, numbers.public_numbers.y
    members = {name: b64u(value.to_bytes(32)) for name, value in {"x": x, "y": y, "d": numbers.private_value}.items()}
    return jose.parse_private_jwk({"kty": "EC", "crv": "P-256", **members})
