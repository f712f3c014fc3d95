"""RFC 9068 sections 2 and 4: what is in an access token, and what another reader of the specification makes of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from joserfc import jwk, jwt

from ostiary.protocol import jose
from ostiaryd.ground.crypto.keyring import USES
from ostiaryd.ledger.flows import act
from ostiaryd.policy.flows import active_policies
from ostiaryd.registry import flows as registry
from ostiaryd.tasks import flows as tasks
from ostiaryd.tasks.model import TaskSpec
from tests.support.api_fixtures import FILES, ISSUER, SECOND, Client, claims_of, oauth_app, reconfigured, send


def header_of(token: str) -> dict[str, Any]:
    header: dict[str, Any] = json.loads(jose.unb64u(token.split(".")[0]))
    return header


async def test_an_access_token_has_the_required_claims_and_the_claims_of_ostiary(client: Client) -> None:
    token = (await client.token(scope="files:read"))["access_token"]
    now = client.world.now() // SECOND
    agent = registry.find_agent(client.world.db.read(), client.id)
    signer = client.world.keys.signer("token", "ES256").public
    assert header_of(token) == {"typ": "at+jwt", "alg": "ES256", "kid": signer.kid}
    claims = claims_of(token)
    assert claims.pop("jti").startswith("tok_")
    assert claims == {
        "iss": ISSUER,
        "sub": client.id,
        "client_id": client.id,
        "aud": FILES,
        "iat": now,
        "exp": now + client.world.config.token_lifetime_s,
        "scope": "files:read",
        "task": "tk_" + client.id.removeprefix("ag_"),
        "acr": "urn:ostiary:acr:key",
        "amr": ["pop", "swk"],
        "auth_time": now,
        "cnf": {"jkt": client.key.public.thumbprint},
        "policy": active_policies(client.world.db.read()).hash,
        "owner": agent.owner,
        "segment": "default",
        "risk_tier": "medium",
    }


async def test_a_token_on_behalf_of_a_person_has_the_person_as_subject_and_the_agent_as_actor(client: Client) -> None:
    task = await act(
        client.world,
        "task.start",
        lambda act: tasks.start(act, TaskSpec(agent=client.id, purpose="reads for ann", on_behalf_of="ann")),
    )
    claims = claims_of((await client.token(task=task.task_id))["access_token"])
    person = registry.find_person(client.world.db.read(), "ann")
    assert (claims["sub"], claims["act"], claims["client_id"]) == (person.person_id, {"sub": client.id}, client.id)
    assert claims["task"] == task.task_id


@pytest.mark.filterwarnings("ignore:EdDSA is deprecated via RFC 9864")
@pytest.mark.parametrize("alg", USES["token"])
async def test_a_third_party_library_verifies_an_access_token_with_the_published_keys(client: Client, alg: Any) -> None:
    client.app = oauth_app(reconfigured(client.world, token_alg=alg))
    token = (await client.token())["access_token"]
    keys = jwk.KeySet.import_key_set((await send(client.app, "GET", "/jwks")).json)
    decoded = jwt.decode(token, keys, algorithms=[alg])
    assert (decoded.header["alg"], decoded.header["typ"]) == (alg, "at+jwt")
    assert decoded.claims == claims_of(token)


async def test_no_two_tokens_have_the_same_id(client: Client) -> None:
    ids = {claims_of((await client.token())["access_token"])["jti"] for _ in range(20)}
    assert len(ids) == 20
