"""The gate of our own API: RFC 6750 sections 2 and 3, RFC 9449 sections 4.3, 7 and 9, RFC 9728 section 5."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from msgspec.structs import replace as with_

from harness.clock import Clock
from ostiary.authorization.claims import ACCESS_TYP
from ostiary.protocol import dpop, jose
from ostiaryd.ground.world import open_world
from ostiaryd.ledger.flows import act
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Root, Verb
from ostiaryd.tasks import flows as tasks
from ostiaryd.tasks.model import TaskSpec
from ostiaryd.trust.flows import allow_bearer, live_caller, verify_token
from ostiaryd.trust.model import AccessRefused
from tests.support.api_fixtures import FILES, ISSUER, SECOND, Answer, Client, claims_of, guard, register, send, sign
from tests.support.trust_fixtures import API, api_app, call, nonce_of, proof_of

HERE = "/api/v1/whoami"


async def api_token(client: Client, **said: Any) -> str:
    return str((await client.token(resource=API, **said))["access_token"])


def said(answer: Answer) -> tuple[int, str]:
    """Status, and the error that the challenge names."""
    challenge = answer.headers.get("www-authenticate", "")
    return answer.status, challenge.partition('error="')[2].partition('"')[0]


async def test_an_access_token_with_a_proof_of_its_key_identifies_the_caller(client: Client) -> None:
    token = await api_token(client)
    answer = await call(client, token)
    agent = registry.find_agent(client.world.db.read(), client.id)
    assert answer.status == 200
    assert answer.json == {
        "kind": "agent",
        "id": client.id,
        "name": "reader",
        "owner": agent.owner,
        "jkt": client.key.public.thumbprint,
        "task": claims_of(token)["task"],
        "token": claims_of(token)["jti"],
    }


async def test_a_guard_with_a_token_is_a_caller_of_the_kind_guard(client: Client) -> None:
    id, key = await guard(client.world)
    files = replace(client, id=id, key=key)
    answer = await call(files, await api_token(files))
    assert (answer.json["kind"], answer.json["id"], answer.json["name"]) == ("guard", id, "files")


async def test_a_challenge_to_a_request_without_a_token_links_the_metadata_and_has_no_error_code(
    client: Client,
) -> None:
    answer = await send(api_app(client.world), "GET", HERE)
    challenge = answer.headers["www-authenticate"]
    assert (answer.status, "error" in challenge) == (401, False)
    assert challenge.startswith("DPoP algs=")
    assert f'resource_metadata="{ISSUER}/.well-known/oauth-protected-resource/api/v1"' in challenge


async def test_an_authorization_header_without_an_access_token_gets_a_dpop_challenge(client: Client) -> None:
    cases: list[str] = ["Basic YTpi", "DPoP", "Digest x", "dpop", ""]
    for value in cases:
        answer = await send(api_app(client.world), "GET", HERE, headers=[("authorization", value)])
        assert answer.status == 401, value
        assert answer.headers["www-authenticate"].startswith("DPoP "), value


async def test_a_request_with_two_authorization_headers_is_an_invalid_request(client: Client) -> None:
    token = await api_token(client)
    headers = [("authorization", f"DPoP {token}"), ("authorization", f"Bearer {token}")]
    headers.append(("dpop", proof_of(client, token, HERE)))
    answer = await send(api_app(client.world), "GET", HERE, headers=headers)
    assert (answer.status, answer.error) == (400, "malformed")
    assert answer.headers["www-authenticate"].startswith('DPoP error="invalid_request"')


async def test_a_request_with_two_dpop_proofs_is_refused(client: Client) -> None:
    token = await api_token(client)
    proofs = [("dpop", proof_of(client, token, HERE)), ("dpop", proof_of(client, token, HERE))]
    answer = await send(api_app(client.world), "GET", HERE, headers=[("authorization", f"DPoP {token}"), *proofs])
    assert (answer.status, answer.error) == (401, "invalid_dpop_proof")
    assert answer.headers["www-authenticate"].startswith('DPoP error="invalid_dpop_proof"')


async def test_the_authorization_scheme_is_case_insensitive(client: Client) -> None:
    token = await api_token(client)
    headers = [("authorization", f"dPoP {token}"), ("dpop", proof_of(client, token, HERE))]
    assert (await send(api_app(client.world), "GET", HERE, headers=headers)).status == 200


async def test_the_host_header_does_not_change_the_target_of_a_proof(client: Client) -> None:
    token = await api_token(client)
    for uri, status in ((ISSUER + HERE, 200), (f"https://evil.example{HERE}", 401)):
        headers = [("authorization", f"DPoP {token}"), ("dpop", proof_of(client, token, HERE, uri=uri))]
        answer = await send(api_app(client.world), "GET", HERE, headers=[*headers, ("host", "evil.example")])
        assert answer.status == status


@pytest.mark.parametrize("resource", [FILES, API + "/"])
async def test_a_token_for_another_audience_is_refused(client: Client, resource: str) -> None:
    token = (await client.token(resource=resource))["access_token"]
    assert said(await call(client, token)) == (401, "invalid_token")


@pytest.mark.parametrize("resource", [API.upper(), API + "#part"])
async def test_no_token_is_issued_for_a_malformed_spelling_of_the_api(client: Client, resource: str) -> None:
    assert (await client.ask(resource=resource)).error == "invalid_target"


async def test_a_token_that_this_server_did_not_issue_as_an_access_token_is_refused(client: Client) -> None:
    token = await api_token(client)
    claims, signer = claims_of(token), client.world.keys.signer("token", "ES256")
    head, _, signature = token.rpartition(".")
    flipped = "B" if signature[9] == "A" else "A"
    forged = {
        "garbage": "garbage",
        "a letter of the signature": f"{head}.{signature[:9]}{flipped}{signature[10:]}",
        "no signature": f"{head}.",
        "by the client itself": sign(client.key, {"typ": ACCESS_TYP, "kid": signer.public.kid}, claims),
        "alg none": sign(signer, {"typ": ACCESS_TYP, "alg": "none"}, claims),
        "alg of another key": sign(signer, {"typ": ACCESS_TYP, "alg": "RS256"}, claims),
        "no kid": sign(signer, {"typ": ACCESS_TYP, "kid": None}, claims),
        "another kid": sign(signer, {"typ": ACCESS_TYP, "kid": "other"}, claims),
        "another type": jose.sign_jwt(signer, typ="JWT", claims=claims),
        "no type": jose.sign_jwt(signer, typ=None, claims=claims),
        "another issuer": jose.sign_jwt(signer, typ=ACCESS_TYP, claims=claims | {"iss": "https://other.example"}),
        "two audiences": jose.sign_jwt(signer, typ=ACCESS_TYP, claims=claims | {"aud": [API, FILES]}),
        "an unknown holding": jose.sign_jwt(signer, typ=ACCESS_TYP, claims=claims | {"jti": "tok_" + "0" * 32}),
        "the feed's key": jose.sign_jwt(client.world.keys.signer("feed"), typ=ACCESS_TYP, claims=claims),
    }
    answered = {what: said(await call(client, value)) for what, value in forged.items()}
    assert answered == dict.fromkeys(forged, (401, "invalid_token"))
    assert (await call(client, token)).status == 200


async def test_a_token_of_a_deleted_signing_key_is_refused_although_its_signature_is_cached(client: Client) -> None:
    token = await api_token(client)
    keys = client.world.keys
    assert keys.verified.get(token) is not None
    verify_token(token, keys=keys)
    del keys.public("token")[keys.signer("token", "ES256").public.kid]
    with pytest.raises(AccessRefused):
        verify_token(token, keys=keys)


async def test_a_token_is_valid_until_the_instant_of_its_expiry(client: Client, clock: Clock) -> None:
    token = await api_token(client)
    clock.now = claims_of(token)["exp"] * SECOND - 1
    assert (await call(client, token)).status == 200
    clock.advance(us=1)
    assert said(await call(client, token)) == (401, "invalid_token")


async def test_a_dpop_bound_token_is_refused_as_a_bearer_token(client: Client) -> None:
    token = await api_token(client)
    for more in ([], [("dpop", proof_of(client, token, HERE))]):
        answer = await send(api_app(client.world), "GET", HERE, headers=[("authorization", f"Bearer {token}"), *more])
        assert said(answer) == (401, "invalid_token")


async def test_a_dpop_bound_token_without_a_proof_is_refused(client: Client) -> None:
    token = await api_token(client)
    answer = await send(api_app(client.world), "GET", HERE, headers=[("authorization", f"DPoP {token}")])
    assert said(answer) == (401, "invalid_dpop_proof")


async def test_a_proof_for_another_request_token_key_or_time_is_refused(client: Client) -> None:
    token, other = await api_token(client), await api_token(client)
    wrong: dict[str, dict[str, Any]] = {
        "another method": {"method": "POST"},
        "another path": {"uri": ISSUER + "/api/v1/secret"},
        "another host": {"uri": "https://evil.example" + HERE},
        "another token": {"access_token": other},
        "no token": {"access_token": None},
        "another key": {"key": jose.generate("ES256")},
        "too old": {"now": client.world.now() - dpop.WINDOW - SECOND},
        "too new": {"now": client.world.now() + dpop.SKEW + SECOND},
    }
    headers = {what: proof_of(client, token, HERE, **differs) for what, differs in wrong.items()}
    app = api_app(client.world)
    for what, proof in headers.items():
        answer = await send(app, "GET", HERE, headers=[("authorization", f"DPoP {token}"), ("dpop", proof)])
        assert said(answer) == (401, "invalid_dpop_proof"), what
    assert (await call(client, token, now=client.world.now() - dpop.WINDOW)).status == 200


async def test_the_query_is_not_part_of_the_target_of_a_proof(client: Client) -> None:
    token = await api_token(client)
    headers = [("authorization", f"DPoP {token}"), ("dpop", proof_of(client, token, HERE))]
    assert (await send(api_app(client.world), "GET", HERE + "?limit=3", headers=headers)).status == 200


async def test_a_proof_is_accepted_once_for_a_get_and_for_a_post(client: Client) -> None:
    token = await api_token(client)
    for method in ("GET", "POST"):
        used = [("authorization", f"DPoP {token}"), ("dpop", proof_of(client, token, HERE, method=method))]
        first = await send(api_app(client.world), method, HERE, headers=used)
        again = await send(api_app(client.world), method, HERE, headers=used)
        assert (first.status, said(again)) == (200, (401, "invalid_dpop_proof"))


async def test_a_replayed_proof_does_not_affect_concurrent_requests(client: Client) -> None:
    token = await api_token(client)
    used = [("authorization", f"DPoP {token}"), ("dpop", proof_of(client, token, HERE))]
    app = api_app(client.world)
    replays = [send(app, "GET", HERE, headers=used) for _ in range(5)]
    others = [call(client, token) for _ in range(5)]
    answers = await asyncio.gather(*[one for pair in zip(replays, others, strict=True) for one in pair])
    assert [answer.status for answer in answers[1::2]] == [200] * 5
    assert sorted(answer.status for answer in answers[0::2]) == [200] + [401] * 4


async def test_proofs_of_two_keys_may_have_the_same_jti(client: Client) -> None:
    agent, key = await register(client.world, name="other")
    other = replace(client, id=agent.agent_id, key=key)
    tokens = [await api_token(client), await api_token(other)]
    answers = [await call(who, token, jti="1") for who, token in zip((client, other), tokens, strict=True)]
    assert [answer.status for answer in answers] == [200, 200]


async def test_a_used_proof_is_refused_by_a_server_that_opens_the_same_database_later(
    client: Client, clock: Clock
) -> None:
    token = await api_token(client)
    used = [("authorization", f"DPoP {token}"), ("dpop", proof_of(client, token, HERE))]
    assert (await send(api_app(client.world), "GET", HERE, headers=used)).status == 200
    async with open_world(client.world.config, now=clock) as again:
        assert said(await send(api_app(again), "GET", HERE, headers=used)) == (401, "invalid_dpop_proof")


async def test_a_nonce_is_required_and_a_new_nonce_is_sent_after_half_of_its_lifetime(
    client: Client, clock: Clock
) -> None:
    token = await api_token(client)
    lifetime = client.world.config.nonce_lifetime_s
    for wrong in (None, "A" * 32, dpop.make_nonce(client.world.keys.secret("nonce"), b"as", clock())):
        answer = await call(client, token, nonce=wrong)
        assert said(answer) == (401, "use_dpop_nonce")
        assert (await call(client, token, nonce=answer.headers["dpop-nonce"])).status == 200
    nonce = nonce_of(client)
    clock.advance(lifetime / 2, us=-1)
    assert "dpop-nonce" not in (await call(client, token, nonce=nonce)).headers
    clock.advance(us=1)
    aging = await call(client, token, nonce=nonce)
    assert (aging.status, aging.headers["cache-control"]) == (200, "no-store")
    token = await api_token(client)
    clock.advance(lifetime / 2, us=-1)
    assert (await call(client, token, nonce=nonce)).status == 200
    clock.advance(us=1)
    assert said(await call(client, token, nonce=nonce)) == (401, "use_dpop_nonce")
    assert (await call(client, token, nonce=aging.headers["dpop-nonce"])).status == 200


async def test_a_scope_that_is_missing_is_named_in_the_challenge(client: Client) -> None:
    token = await api_token(client)
    answer = await call(client, token, "/api/v1/secret")
    assert said(answer) == (403, "insufficient_scope")
    assert 'scope="ostiary:admin"' in answer.headers["www-authenticate"]
    agent, key = await register(client.world, name="chief", scopes=("ostiary:admin",))
    chief = replace(client, id=agent.agent_id, key=key)
    assert (await call(chief, await api_token(chief), "/api/v1/secret")).status == 200


@pytest.mark.parametrize("end", ["suspend", "resume", "revoke key", "revoke token", "scopes", "task", "expired"])
async def test_an_access_token_ends_when_its_agent_key_task_or_scopes_are_revoked(
    client: Client, clock: Clock, end: str
) -> None:
    task = await act(
        client.world, "task.start", lambda act: tasks.start(act, TaskSpec(agent=client.id, purpose="is tried"))
    )
    token = await api_token(client, task=task.task_id)
    assert (await call(client, token)).status == 200
    jti = claims_of(token)["jti"]
    flows = {
        "suspend": lambda act: registry.set_agent_state(act, client.id, Verb.SUSPEND),
        "resume": lambda act: [registry.set_agent_state(act, client.id, verb) for verb in (Verb.SUSPEND, Verb.RESUME)],
        "revoke key": lambda act: registry.revoke_key(act, client.key.public.thumbprint),
        "revoke token": lambda act: registry.end_holdings(act, Root.HOLDING, jti, why="test"),
        "task": lambda act: tasks.end(act, task.task_id),
        "scopes": lambda act: registry.set_scopes(act, client.id, []),
        "expired": lambda act: registry.set_end(act, client.id, clock() + SECOND),
    }
    await act(client.world, f"test.{end}", flows[end])
    clock.advance(1)
    assert said(await call(client, token)) == (401, "invalid_token")


async def test_a_token_of_an_earlier_epoch_of_its_agent_is_refused(client: Client) -> None:
    claims = verify_token(await api_token(client), keys=client.world.keys)
    reader, now = client.world.db.read(), client.world.now()
    assert live_caller(reader, claims, now=now).id == client.id
    with pytest.raises(AccessRefused):
        live_caller(reader, with_(claims, epoch=claims.epoch - 1), now=now)


async def test_a_certificate_bound_token_of_an_exempt_agent_is_refused_without_the_certificate(client: Client) -> None:
    await act(client.world, "bearer.allow", lambda act: allow_bearer(act, client.id, "ostiary"))
    claims = claims_of(await api_token(client)) | {"cnf": {"x5t#S256": "a" * 43}}
    token = jose.sign_jwt(client.world.keys.signer("token", "ES256"), typ=ACCESS_TYP, claims=claims)
    for scheme in ("Bearer", "DPoP"):
        headers = [("authorization", f"{scheme} {token}"), ("dpop", proof_of(client, token, HERE))]
        assert said(await send(api_app(client.world), "GET", HERE, headers=headers)) == (401, "invalid_token")


async def test_a_token_of_a_guard_is_refused_after_the_key_of_the_guard_was_replaced(client: Client) -> None:
    id, key = await guard(client.world)
    files = replace(client, id=id, key=key)
    token = await api_token(files)
    await guard(client.world)
    assert said(await call(files, token)) == (401, "invalid_token")
