"""Bearer tokens at a guard: accepted from agents that are exempt at this resource, and from no other."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from msgspec.structs import replace

from harness.feeder import AGENT, SECOND, URI, Feeder
from ostiary.asgi import WELL_KNOWN, GuardASGI
from ostiary.authorization.assurance import BEARER, KEY, PERSON
from ostiary.authorization.claims import MAX_BEARER_S, Confirmation
from ostiary.decision.feed import AgentFact, ResourceFact, TokenFact
from ostiary.guard import Guard, Verified
from ostiary.guard.networks import BearerNetworks
from ostiary.protocol.jose import InvalidToken

OTHER = "ag_00000000000000000000000000000002"
ORIGIN = "https://files.example.org"


def resource(feeder: Feeder, **changes: Any) -> ResourceFact:
    fact = feeder.facts()[0]
    assert isinstance(fact, ResourceFact)
    return replace(fact, **changes)


@pytest.fixture
def exempt(guard: Guard, feeder: Feeder) -> Guard:
    """A guard that heard of one exempt agent."""
    feeder.say(resource(feeder, exempt=[AGENT]))
    return guard


def bearer(feeder: Feeder, **changes: Any) -> str:
    return feeder.token(**({"cnf": None, "acr": BEARER} | changes))


def show(guard: Guard, token: str, *, scheme: str = "Bearer") -> Verified:
    return guard.verify(authorization=f"{scheme} {token}", proof=None, method="POST", uri=URI)


def test_a_bearer_token_of_an_exempt_agent_is_accepted(exempt: Guard, feeder: Feeder) -> None:
    who = show(exempt, bearer(feeder))
    assert (who.principal.claims.client_id, who.principal.jkt, who.proof) == (AGENT, None, "")
    assert (who.principal.context["acr"], who.principal.context["amr"]) == (BEARER, frozenset())
    with exempt.call(who, "read_file", {"path": "/a"}):
        pass
    assert show(exempt, bearer(feeder), scheme="bearer").principal.claims.client_id == AGENT


def test_a_registration_class_is_exempt_only_while_its_resource_lists_the_class(guard: Guard, feeder: Feeder) -> None:
    feeder.say(resource(feeder, exempt_classes=["document"]))
    assert show(guard, bearer(feeder, registration="document")).principal.claims.registration == "document"
    for registration in ("dynamic", "", "document "):
        with pytest.raises(InvalidToken, match="not accepted"):
            show(guard, bearer(feeder, registration=registration))
    with pytest.raises(InvalidToken, match="is valid for more than"):
        show(guard, bearer(feeder, registration="document", exp=feeder.clock() // SECOND + MAX_BEARER_S + 60))
    feeder.say(resource(feeder, exempt_classes=[]))
    with pytest.raises(InvalidToken, match="not accepted") as refused:
        show(guard, bearer(feeder, registration="document"))
    assert "ostiary resource allow-bearer" in refused.value.hint


def test_without_an_exemption_no_bearer_token_is_accepted(guard: Guard, feeder: Feeder) -> None:
    with pytest.raises(InvalidToken, match="not accepted") as refused:
        show(guard, bearer(feeder))
    assert "ostiary agent allow-bearer" in refused.value.hint


def test_the_exemption_of_one_agent_does_not_apply_to_another(exempt: Guard, feeder: Feeder) -> None:
    with pytest.raises(InvalidToken, match="not accepted"):
        show(exempt, bearer(feeder, client_id=OTHER, sub=OTHER))


def test_a_token_for_another_resource_is_refused(exempt: Guard, feeder: Feeder) -> None:
    with pytest.raises(InvalidToken, match="audience"):
        show(exempt, bearer(feeder, aud="https://mail.example.org/mcp"))


@pytest.mark.parametrize(
    "cnf", [Confirmation(jkt=Feeder.agent_key.public.thumbprint), Confirmation(certificate="a" * 43), Confirmation()]
)
def test_a_bound_token_of_an_exempt_agent_is_refused_as_a_bearer_token(
    exempt: Guard, feeder: Feeder, cnf: Confirmation
) -> None:
    with pytest.raises(InvalidToken, match="bound"):
        show(exempt, bearer(feeder, cnf=cnf))


def test_a_bearer_token_is_refused_under_the_dpop_scheme(exempt: Guard, feeder: Feeder) -> None:
    with pytest.raises(InvalidToken, match="not bound"):
        show(exempt, bearer(feeder), scheme="DPoP")


@pytest.mark.parametrize("acr", ["", KEY, PERSON])
def test_a_bearer_token_with_another_acr_is_refused(exempt: Guard, feeder: Feeder, acr: str) -> None:
    with pytest.raises(InvalidToken, match="not accepted"):
        show(exempt, bearer(feeder, acr=acr))


def test_a_bearer_token_is_valid_for_at_most_five_minutes(exempt: Guard, feeder: Feeder) -> None:
    now = feeder.clock() // SECOND
    show(exempt, bearer(feeder, iat=now, exp=now + MAX_BEARER_S))
    with pytest.raises(InvalidToken, match="more than 300 s"):
        show(exempt, bearer(feeder, iat=now, exp=now + MAX_BEARER_S + 1))


def test_a_withdrawn_exemption_takes_effect_at_once(exempt: Guard, feeder: Feeder) -> None:
    token = bearer(feeder)
    show(exempt, token)
    feeder.say(resource(feeder))
    with pytest.raises(InvalidToken, match="not accepted"):
        show(exempt, token)


def test_a_revoked_bearer_token_is_refused(exempt: Guard, feeder: Feeder) -> None:
    token = bearer(feeder)
    who = show(exempt, token)
    feeder.say(TokenFact("tok_1", feeder.clock() + 300 * SECOND))
    for check in (lambda: show(exempt, token), lambda: exempt.check_alive(who)):
        with pytest.raises(InvalidToken, match="revoked"):
            check()


def test_a_bearer_token_of_a_suspended_agent_is_refused(exempt: Guard, feeder: Feeder) -> None:
    feeder.say(AgentFact(AGENT, "suspended", 1, feeder.clock() + 300 * SECOND))
    with pytest.raises(InvalidToken, match="suspended"):
        show(exempt, bearer(feeder))


@pytest.fixture
def seen() -> list[Any]:
    """The view of the application for each request."""
    return []


@pytest.fixture
async def http(guard: Guard, seen: list[Any]) -> AsyncIterator[httpx2.AsyncClient]:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"text"})

    guarded: Any = GuardASGI(app, guard, tool={"GET /files/{path*}": "read_file", "PUT /files/{path*}": "write_file"})
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=guarded), base_url=ORIGIN) as client:
        yield client


def schemes(response: httpx2.Response) -> list[str]:
    return [challenge.partition(" ")[0] for challenge in response.headers.get_list("www-authenticate")]


async def test_the_bearer_challenge_comes_first_if_an_agent_is_exempt(
    exempt: Guard, feeder: Feeder, http: httpx2.AsyncClient
) -> None:
    response = await http.get("/files/a")
    assert schemes(response) == ["Bearer", "DPoP"]
    bearers, dpop = response.headers.get_list("www-authenticate")
    assert f'resource_metadata="{ORIGIN}{WELL_KNOWN}/mcp"' in bearers
    assert "error" not in bearers
    assert ("algs=" in bearers, "algs=" in dpop) == (False, True)
    metadata = (await http.get(f"{WELL_KNOWN}/mcp")).json()
    assert (metadata["bearer_methods_supported"], metadata["dpop_bound_access_tokens_required"]) == (["header"], False)
    feeder.say(resource(feeder))
    assert schemes(await http.get("/files/a")) == ["DPoP"]
    assert (await http.get(f"{WELL_KNOWN}/mcp")).json()["dpop_bound_access_tokens_required"] is True


async def test_the_bearer_challenge_states_why_the_token_was_refused(
    exempt: Guard, feeder: Feeder, http: httpx2.AsyncClient
) -> None:
    expired = await http.get("/files/a", headers={"authorization": f"Bearer {bearer(feeder, exp=1)}"})
    assert (expired.status_code, schemes(expired)) == (401, ["Bearer", "DPoP"])
    assert 'error="invalid_token"' in expired.headers.get_list("www-authenticate")[0]
    wide = await http.put("/files/a", headers={"authorization": f"Bearer {bearer(feeder)}"})
    assert (wide.status_code, schemes(wide)) == (403, ["Bearer", "DPoP"])
    assert 'scope="files:write"' in wide.headers.get_list("www-authenticate")[0]
    good = await http.get("/files/a", headers={"authorization": f"Bearer {bearer(feeder)}"})
    assert good.status_code == 200


async def test_a_client_that_sends_dpop_gets_only_the_dpop_challenge(
    exempt: Guard, feeder: Feeder, http: httpx2.AsyncClient
) -> None:
    response = await http.get("/files/a", headers={"authorization": f"DPoP {feeder.token()}"})
    assert schemes(response) == ["DPoP"]
    assert 'error="use_dpop_nonce"' in response.headers["www-authenticate"]


@pytest.mark.parametrize("scheme", ["Bearer", "DPoP"])
async def test_the_application_never_sees_the_token(
    exempt: Guard, feeder: Feeder, http: httpx2.AsyncClient, seen: list[Any], scheme: str
) -> None:
    token = bearer(feeder) if scheme == "Bearer" else feeder.token()
    proof = feeder.proof(token, nonce=exempt._proofs.nonce(), method="GET", uri=f"{ORIGIN}/files/a")
    response = await http.get("/files/a", headers={"authorization": f"{scheme} {token}", "dpop": proof, "x-more": "1"})
    assert response.status_code == 200
    names = {name for name, _ in seen[0]["headers"]}
    assert b"x-more" in names
    assert not names & {b"authorization", b"dpop"}


async def test_a_bearer_token_in_the_query_is_not_accepted(
    exempt: Guard, feeder: Feeder, http: httpx2.AsyncClient
) -> None:
    response = await http.get(f"/files/a?access_token={bearer(feeder)}")
    assert response.status_code == 401


def noticed(guard: Guard, who: Verified) -> list[str]:
    call = guard.decide(who, "read_file", {"path": "/a"})
    assert call.decision.allowed
    batch = guard._spool.batch(count=1000, size=1 << 20)
    assert batch is not None
    found: Any = batch.records[-1].get("noticed", [])
    return [one["detector"] for one in found]


def test_a_bearer_token_used_from_two_networks_is_reported_once(exempt: Guard, feeder: Feeder) -> None:
    who = show(exempt, bearer(feeder))
    home, cafe = (dataclasses.replace(who, network=network) for network in ("192.0.2.0/24", "198.51.100.0/24"))
    both, nowhere = (dataclasses.replace(who, network=network) for network in ("2001:db8::/48", ""))
    assert [noticed(exempt, one) for one in (home, both, nowhere, home)] == [[]] * 4
    assert noticed(exempt, cafe) == ["bearer_in_two_networks"]
    assert noticed(exempt, home) == []
    other = dataclasses.replace(show(exempt, bearer(feeder, jti="tok_2")), network=cafe.network)
    assert noticed(exempt, other) == []


def test_a_bound_token_used_from_two_networks_is_not_reported(exempt: Guard, feeder: Feeder) -> None:
    token = feeder.token()
    proof = feeder.proof(token, nonce=exempt._proofs.nonce())
    who = exempt.verify(authorization=f"DPoP {token}", proof=proof, method="POST", uri=URI)
    for network in ("192.0.2.0/24", "198.51.100.0/24"):
        assert noticed(exempt, dataclasses.replace(who, network=network)) == []


def test_the_networks_of_a_limited_number_of_tokens_are_remembered(exempt: Guard, feeder: Feeder) -> None:
    networks = BearerNetworks(limit=2)
    first, second, third = (
        dataclasses.replace(show(exempt, bearer(feeder, jti=f"tok_{n}")), network="192.0.2.0/24") for n in range(3)
    )
    for one in (first, second):
        networks.notice(one)
    assert networks.notice(dataclasses.replace(first, network="198.51.100.0/24"))
    networks.notice(third)
    assert not networks.notice(dataclasses.replace(first, network="198.51.100.0/24"))
