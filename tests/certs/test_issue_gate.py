"""A request for a certificate takes one job of the writer, which also uses up the proof of the caller."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from harness.call_counts import count_calls
from harness.registry_fixtures import newest_entry
from ostiaryd.app import build_app
from ostiaryd.certs.model.authority import hash_for
from ostiaryd.certs.store import certificates
from ostiaryd.ground.config import load_config
from ostiaryd.ground.http.pages import Page
from ostiaryd.ground.world import World, open_world
from ostiaryd.ledger.flows import act
from ostiaryd.policy.flows.external_pdp import Engines
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Root
from tests.policy.authzen_api import API
from tests.support.api_fixtures import ISSUER, Answer, Client, claims_of, register, send
from tests.support.certificate_fixtures import csr_builder, new_key, put_policies
from tests.support.page_client import signed_in
from tests.support.recorded_statements import record_statements
from tests.support.rego_fixtures import put
from tests.support.trust_fixtures import nonce_of

MEASURED, STEADY = 32, 10
"""Certificates, and statements whose rows a server may read anew at any time."""
EACH = {
    "load_pem_x509_csr": 0,
    "load_der_x509_csr": 1,
    "EllipticCurvePublicKey.from_encoded_point": 1,
    "load_der_public_key": 0,
    "load_der_x509_certificate": 0,
    "SubjectKeyIdentifier.from_public_key": 0,
    "render_public_jwk": 0,
    "load_pem_x509_certificate": 0,
    "CertificateSigningRequest.public_key": 0,
    "_check_signature": 1,
    "ECPublicKey.verify": 2,
    "ECPrivateKey.sign": 1,
    "active_agent": 1,
    "check_requester": 0,
    "choose_names": 0,
    "_encode_first_extensions": 0,
}
"""Calls for each certificate. The two verifications are those of the proof and of the request. The results of the last
two functions are cached, since they are equal for equal requests.
"""
MOST_CALLS, MOST_CALLS_OF_A_COMMIT = 850, 1100
"""Calls of functions for each certificate at most, with those of the test's client, and for each commit."""
ONE, MANY = "/api/v1/certificates", "/api/v1/certificates/batch"


@pytest.fixture
async def client(world: World) -> Client:
    return await make_client(world)


@pytest.fixture
async def sqlite_client(tmp_path: Path) -> AsyncIterator[Client]:
    """A client of a server whose acts run in the thread of its event loop, as they do on SQLite alone."""
    async with open_world(load_config(environ={}, data_dir=str(tmp_path), public_url=ISSUER)) as world:
        yield await make_client(world)


async def make_client(world: World) -> Client:
    await put_policies(world)
    agent, key = await register(world)
    return Client(build_app(world), world, agent.agent_id, key)


def body_of(path: str, csr: str) -> dict[str, Any]:
    return {"csr": csr} if path == ONE else {"requests": [{"csr": csr}]}


def make_csr() -> str:
    key = new_key()
    return csr_builder().sign(key, hash_for(key)).public_bytes(Encoding.PEM).decode()


async def ask(client: Client, path: str, body: dict[str, Any], *, access_token: str, proof: str) -> Answer:
    content = json.dumps(body).encode()
    headers = [
        ("authorization", f"DPoP {access_token}"),
        ("dpop", proof),
        ("content-type", "application/json"),
        ("content-length", str(len(content))),
    ]
    return await send(client.app, "POST", path, headers=headers, body=content)


def entry(world: World) -> tuple[str, str, list[str]]:
    last = newest_entry(world)
    return last.action, last.outcome, [reason.code for reason in last.reasons]


@pytest.mark.parametrize("path", [ONE, MANY])
async def test_a_certificate_request_takes_one_writer_job_and_its_proof_is_accepted_once(
    client: Client, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = client.world
    access_token = str((await client.token(resource=API))["access_token"])
    proof = client.proof(method="POST", uri=ISSUER + path, access_token=access_token, nonce=nonce_of(client))
    jobs, submit = 0, type(world.writer).submit

    def count(writer: Any, job: Any) -> Any:
        nonlocal jobs
        jobs += 1
        return submit(writer, job)

    monkeypatch.setattr(type(world.writer), "submit", count)
    first = await ask(client, path, body_of(path, make_csr()), access_token=access_token, proof=proof)
    assert first.status in (200, 201), first.body
    assert jobs == 1
    again = await ask(client, path, body_of(path, make_csr()), access_token=access_token, proof=proof)
    assert again.status == 401
    assert 'error="invalid_dpop_proof"' in again.headers["www-authenticate"]
    assert entry(world)[1:] == ("refused", ["invalid_dpop_proof"])
    assert newest_entry(world).action.startswith("cert.issue")
    assert len(certificates.page(world.db.read(), Page(10, ""))) == 1


async def test_each_certificate_takes_a_limited_number_of_calls_and_statements(
    sqlite_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By name: the functions that parse, verify or sign, with those of the library, and the statements."""
    client = sqlite_client
    access_token, nonce = str((await client.token(resource=API))["access_token"]), nonce_of(client)

    async def issue(count: int) -> Counter[str]:
        proofs = [
            client.proof(method="POST", uri=ISSUER + ONE, access_token=access_token, nonce=nonce) for _ in range(count)
        ]
        requests = [body_of(ONE, make_csr()) for _ in range(count)]
        asked = [
            ask(client, ONE, body, access_token=access_token, proof=proof)
            for body, proof in zip(requests, proofs, strict=True)
        ]
        with count_calls() as calls:
            answers = await asyncio.gather(*asked)
        assert {answer.status for answer in answers} == {201}
        return calls

    await issue(1)  # makes the authorities, and fills the caches
    statements = record_statements(client.world, monkeypatch)
    for _ in range(5):  # a busy machine needs more rounds of the event loop for the same work
        statements.clear()
        calls = await issue(MEASURED)
        commits = calls["Ed25519PrivateKey.sign"]
        if calls.total() <= MOST_CALLS * MEASURED + MOST_CALLS_OF_A_COMMIT * commits:
            break
    assert {name: calls[name] for name in EACH} == {name: times * MEASURED for name, times in EACH.items()}
    assert calls.total() <= MOST_CALLS * MEASURED + MOST_CALLS_OF_A_COMMIT * commits
    assert 1 <= commits <= MEASURED, "a commit signs the head of the ledger once; a slow machine makes more of them"
    assert statements.count("insert") == 6 * commits, "certificates, holdings, entries, facts, used proofs, the head"
    assert statements.count("select") - MEASURED <= 3 * commits + STEADY, "the use of the key, with its owner"
    assert set(statements) <= {"select", "insert"}


@pytest.mark.parametrize("path", [ONE, MANY])
async def test_the_act_refuses_a_token_that_was_revoked_after_the_gate(client: Client, path: str) -> None:
    """The revocation and the certificate share a batch, so the gate cannot know of the revocation."""
    world = client.world
    access_token = str((await client.token(resource=API))["access_token"])
    token = claims_of(access_token)["jti"]
    proof = client.proof(method="POST", uri=ISSUER + path, access_token=access_token, nonce=nonce_of(client))
    _, refused = await asyncio.gather(
        act(world, "test", lambda act: registry.end_holdings(act, Root.HOLDING, token, why="test")),
        ask(client, path, body_of(path, make_csr()), access_token=access_token, proof=proof),
    )
    assert refused.status == 401, refused.body
    assert 'error="invalid_token"' in refused.headers["www-authenticate"]
    assert newest_entry(world).outcome == "refused"
    assert certificates.page(world.db.read(), Page(10, "")) == []


@pytest.mark.parametrize("path", [ONE, MANY])
async def test_an_act_that_waited_for_remote_policies_refuses_a_token_revoked_meanwhile(
    client: Client, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = client.world
    await put(world, {"a.rego": "package ostiary.all\nimport rego.v1\npermit := true\n"})
    access_token = str((await client.token(resource=API))["access_token"])
    proof = client.proof(method="POST", uri=ISSUER + path, access_token=access_token, nonce=nonce_of(client))
    engines = world.get_singleton(Engines)
    answer = engines.ask

    async def revoke_meanwhile(*asked: Any) -> Any:
        token = claims_of(access_token)["jti"]
        await act(world, "test", lambda act: registry.end_holdings(act, Root.HOLDING, token, why="test"))
        return await answer(*asked)

    monkeypatch.setattr(engines, "ask", revoke_meanwhile)
    refused = await ask(client, path, body_of(path, make_csr()), access_token=access_token, proof=proof)
    assert refused.status == 401, refused.body
    assert 'error="invalid_token"' in refused.headers["www-authenticate"]
    assert certificates.page(world.db.read(), Page(10, "")) == []


async def test_a_person_gets_a_certificate_by_a_browser_session_from_the_same_origin(client: Client) -> None:
    world = client.world
    hold = 'permit (principal, action == Ostiary::Action::"hold_certificate", resource);'
    await put_policies(world, hold)
    browser = await signed_in(world, client.app)
    cookies = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
    body = json.dumps({"csr": make_csr(), "profile": "server", "names": ["dns:a.example"]}).encode()
    sent = [("cookie", cookies), ("content-type", "application/json"), ("content-length", str(len(body)))]
    for wrong in ([], [("origin", "https://other.example")], [("origin", ISSUER), ("sec-fetch-site", "cross-site")]):
        refused = await send(client.app, "POST", ONE, headers=[*sent, *wrong], body=body)
        assert refused.status == 403, refused.body
    assert certificates.page(world.db.read(), Page(10, "")) == []
    own = [*sent, ("origin", ISSUER)]
    refused = await send(client.app, "POST", ONE, headers=own, body=body)
    assert (refused.status, refused.json["error"]) == (403, "role_required")
    await put_policies(world, f'permit (principal, action == Ostiary::Action::"use_api", resource); {hold}')
    issued = await send(client.app, "POST", ONE, headers=own, body=body)
    assert issued.status == 201, issued.body
    assert issued.json["holder"] == "ann"
    await browser.get("/account")
    await browser.submit("/account/logout")
    ended = await send(client.app, "POST", ONE, headers=own, body=body)
    assert ended.status == 401, ended.body


@pytest.mark.parametrize(("body", "action"), [({"csr": "no request"}, "cert.issue"), ({"cs": "no member"}, "api.call")])
async def test_a_refused_request_uses_up_its_proof_and_leaves_an_entry(
    client: Client, body: dict[str, Any], action: str
) -> None:
    access_token = str((await client.token(resource=API))["access_token"])
    proof = client.proof(method="POST", uri=ISSUER + ONE, access_token=access_token, nonce=nonce_of(client))
    refused = await ask(client, ONE, body, access_token=access_token, proof=proof)
    assert refused.status == 400
    assert entry(client.world) == (action, "refused", ["malformed"])
    assert newest_entry(client.world).agent == client.id
    again = await ask(client, ONE, {"csr": make_csr()}, access_token=access_token, proof=proof)
    assert again.status == 401
    assert certificates.page(client.world.db.read(), Page(10, "")) == []
