"""RFC 7523 as rfc7523bis updates it: JWT client authentication (sections 2.2 and 3), and our stricter rules.

`TABLE` holds for a strict server; `COMPATIBLE` has the rows that a compatible server answers otherwise, and more.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from harness.clock import START
from ostiary.protocol import jose
from ostiaryd.ground.world import World
from ostiaryd.trust.model import AHEAD, LONGEST_ASSERTION, MAX_JTI
from tests.conformance.table import Row, check_table, row
from tests.support.api_fixtures import (
    ISSUER,
    SECOND,
    TOKEN,
    Answer,
    Client,
    claims_of,
    oauth_app,
    reconfigured,
    register,
)

NOW = START // SECOND
LONGEST = LONGEST_ASSERTION // SECOND
LEEWAY = AHEAD // SECOND
NOBODY = "invalid_client"

TABLE = [
    row("a good assertion"),
    # aud: the issuer as the sole value (rfc7523bis section 4)
    row("aud a list of the issuer alone", aud=[ISSUER]),
    row("aud the token endpoint", NOBODY, aud=TOKEN),
    row("aud the issuer with a slash", NOBODY, aud=ISSUER + "/"),
    row("aud the issuer in capitals", NOBODY, aud=ISSUER.upper()),
    row("aud a list of two", NOBODY, aud=[ISSUER, TOKEN]),
    row("aud the issuer twice", NOBODY, aud=[ISSUER, ISSUER]),
    row("aud an empty list", NOBODY, aud=[]),
    row("aud an object", NOBODY, aud={ISSUER: 1}),
    row("no aud", NOBODY, aud=None),
    # iss and sub: both the client id (section 3, points 1 and 2)
    row("no iss", NOBODY, iss=None),
    row("no sub", NOBODY, sub=None),
    row("iss another than sub", NOBODY, iss="ag_00000000000070008000000000000000"),
    row("sub another than iss", NOBODY, sub="ag_00000000000070008000000000000000"),
    row("both another client", NOBODY, iss="ag_" + "0" * 32, sub="ag_" + "0" * 32),
    row("both the name of the agent instead of its id", NOBODY, iss="reader", sub="reader"),
    row("both empty", NOBODY, iss="", sub=""),
    row("both with something after the id", NOBODY, iss="ag_" + "0" * 32 + "\0", sub="ag_" + "0" * 32 + "\0"),
    row("both a number", NOBODY, iss=1, sub=1),
    # exp (point 4)
    row("no exp", NOBODY, exp=None),
    row("exp one second ahead", exp=NOW + 1),
    row("exp now", NOBODY, iat=NOW - 60, exp=NOW),
    row("exp a microsecond ahead", iat=NOW - 60, exp=NOW + 0.000001),
    row("exp a second ago", NOBODY, iat=NOW - 60, exp=NOW - 1),
    row("exp a string", NOBODY, exp=str(NOW + 60)),
    row("exp true", NOBODY, exp=True),
    row("exp negative", NOBODY, exp=-1),
    row("exp beyond all calendars", NOBODY, exp=1e300),
    # the longest life (our rule)
    row("lives as long as it may", iat=NOW, exp=NOW + LONGEST),
    row("lives a second longer", NOBODY, iat=NOW, exp=NOW + LONGEST + 1),
    row("lives a millisecond longer", NOBODY, iat=NOW, exp=NOW + LONGEST + 0.001),
    row("lives no time", NOBODY, iat=NOW + 1, exp=NOW + 1),
    row("ends before it begins", NOBODY, iat=NOW + 2, exp=NOW + 1),
    row("as old as it may be", iat=NOW - LONGEST + 1, exp=NOW + 1),
    # iat (point 6) and nbf (point 5)
    row("no iat", NOBODY, iat=None),
    row("iat as far ahead as clocks may differ", iat=NOW + LEEWAY, exp=NOW + 60),
    row("iat a second further", NOBODY, iat=NOW + LEEWAY + 1, exp=NOW + 60),
    row("iat a fraction", iat=NOW - 0.5),
    row("nbf now", nbf=NOW),
    row("nbf as far ahead as clocks may differ", nbf=NOW + LEEWAY),
    row("nbf a second further", NOBODY, nbf=NOW + LEEWAY + 1),
    row("nbf a string", NOBODY, nbf="now"),
    # jti (point 7)
    row("no jti", NOBODY, jti=None),
    row("jti empty", NOBODY, jti=""),
    row("jti a number", NOBODY, jti=7),
    row("jti as long as it may be", jti="j" * MAX_JTI),
    row("jti longer", NOBODY, jti="j" * (MAX_JTI + 1)),
    row("a claim that nobody knows", favourite_colour="green"),
    # typ (rfc7523bis section 4)
    row("typ in full", header={"typ": "application/client-authentication+jwt"}),
    row("typ in capitals", header={"typ": "Client-Authentication+JWT"}),
    row("no typ", header={"typ": None}),
    row("typ JWT", NOBODY, header={"typ": "JWT"}),
    row("typ of a DPoP proof", NOBODY, header={"typ": "dpop+jwt"}),
    row("typ of an access token", NOBODY, header={"typ": "at+jwt"}),
    row("typ empty", NOBODY, header={"typ": ""}),
    row("typ a number", NOBODY, header={"typ": 1}),
    # alg and kid
    row("no kid, with one key", header={"kid": None}),
    row("kid of no key", NOBODY, header={"kid": "other"}),
    row("kid a number", NOBODY, header={"kid": 1}),
    row("alg none", NOBODY, header={"alg": "none"}),
    row("alg of a secret", NOBODY, header={"alg": "HS256"}),
    row("alg another than the key's", NOBODY, header={"alg": "ES384"}),
    row("no alg", NOBODY, header={"alg": None}),
    row("crit", NOBODY, header={"crit": ["exp"], "exp": 1}),
    row("a key in the header is not looked at", header={"jwk": {"kty": "oct", "k": "AA"}}),
    row("a URL of keys in the header is not looked at", header={"jku": "https://keys.example/"}),
]


ENDPOINTS = [f"{ISSUER}{path}" for path in ("/token", "/introspect", "/revoke", "/bc-authorize")]
ELSEWHERE = "https://else.example/token"

COMPATIBLE = [
    # aud: names of this server, and of no other beside them (RFC 7523 section 3; OpenID Connect Core section 9)
    *(row(f"aud {aud}", aud=aud) for aud in ENDPOINTS),
    *(row(f"aud a list of {aud}", aud=[aud]) for aud in ENDPOINTS),
    row("aud the issuer with a slash, as URL libraries write it", aud=ISSUER + "/"),
    row("aud a list of two names of this server", aud=[ISSUER, TOKEN]),
    row("aud a list of all names of this server", aud=[ISSUER, *ENDPOINTS]),
    row("aud the issuer twice", aud=[ISSUER, ISSUER]),
    row("aud this server and another", NOBODY, aud=[TOKEN, ELSEWHERE]),
    row("aud another and this server", NOBODY, aud=[ELSEWHERE, ISSUER]),
    row("aud this server among many", NOBODY, aud=[ISSUER, TOKEN, ELSEWHERE, ISSUER]),
    row("aud this server and a number", NOBODY, aud=[TOKEN, 1]),
    row("aud this server and a list", NOBODY, aud=[TOKEN, [TOKEN]]),
    row("aud a list in a list", NOBODY, aud=[[TOKEN]]),
    row("aud an empty list", NOBODY, aud=[]),
    row("aud an object", NOBODY, aud={TOKEN: 1}),
    row("aud another server", NOBODY, aud=ELSEWHERE),
    row("aud the token endpoint of a longer host", NOBODY, aud=f"{ISSUER}.else.example/token"),
    row("aud the token endpoint with a slash", NOBODY, aud=TOKEN + "/"),
    row("aud the token endpoint with a query", NOBODY, aud=TOKEN + "?x"),
    row("aud the token endpoint in capitals", NOBODY, aud=TOKEN.upper()),
    row("aud the API", NOBODY, aud=ISSUER + "/api/v1"),
    row("aud the keys", NOBODY, aud=ISSUER + "/jwks"),
    row("aud two names in one string", NOBODY, aud=f"{ISSUER} {TOKEN}"),
    row("no aud", NOBODY, aud=None),
    # typ
    row("typ JWT", header={"typ": "JWT"}),
    row("typ jwt", header={"typ": "jwt"}),
    row("typ application/jwt", header={"typ": "application/jwt"}),
    # times
    row("lives an hour", exp=NOW + 3600),
    row("lives an hour and was made as long ago as it may be", iat=NOW - LONGEST + 1, exp=NOW + 3600),
    row("lives an hour and was made too long ago", NOBODY, iat=NOW - LONGEST, exp=NOW + 3600),
    row("exp beyond all calendars", NOBODY, exp=1e300),
    row("no iat", iat=None),
    row("no iat, exp as far ahead as may be", iat=None, exp=NOW + LONGEST + LEEWAY),
    row("no iat, exp a second further", NOBODY, iat=None, exp=NOW + LONGEST + LEEWAY + 1),
    row("no iat, exp now", NOBODY, iat=None, exp=NOW),
    row("no iat, nbf too far ahead", NOBODY, iat=None, nbf=NOW + LEEWAY + 1),
    row("iat null is no number", NOBODY, iat="null"),
]
"""The answers of a compatible server; the rest of `TABLE` holds for it too."""


async def enter_client(world: World) -> Client:
    agent, key = await register(world)
    client = Client(oauth_app(world), world, agent.agent_id, key)
    await client.token()
    return client


@pytest.fixture
async def client(world: World) -> Client:
    return await enter_client(reconfigured(world, client_assertions="strict"))


def compatible_table() -> list[Row]:
    """`COMPATIBLE` and the rows of `TABLE` that are not about what the setting changes."""
    changed = {one.what for one in COMPATIBLE} | {
        *("aud the token endpoint", "aud the issuer with a slash", "aud a list of two"),
        *("lives a second longer", "lives a millisecond longer"),
    }
    return [one for one in TABLE if one.what not in changed] + COMPATIBLE


async def test_each_rule_of_an_assertion_holds_on_a_strict_server(client: Client) -> None:
    async def ask(**said: Any) -> Answer:
        return await client.ask(client_assertion=client.assertion(**said))

    await check_table(TABLE, ask)


async def test_each_rule_of_an_assertion_holds_on_a_compatible_server(world: World) -> None:
    assert world.config.client_assertions == "compatible", "the default of a new server"
    client = await enter_client(world)

    async def ask(**said: Any) -> Answer:
        return await client.ask(client_assertion=client.assertion(**said))

    await check_table(compatible_table(), ask)


async def test_an_assertion_for_the_issuer_with_a_trailing_slash_is_refused(world: World) -> None:
    issuer = ISSUER + "/id"
    client = await enter_client_at(reconfigured(world, public_url=issuer), issuer)
    for aud, error in ((issuer, ""), (f"{issuer}/token", ""), (f"{issuer}/", NOBODY), (ISSUER, NOBODY)):
        proof = client.proof(uri=f"{issuer}/token")
        answer = await client.ask(proof=proof, client_assertion=client.assertion(aud=aud))
        assert answer.error == error, aud


async def test_an_assertion_for_the_mtls_endpoint_alias_is_accepted(world: World) -> None:
    """RFC 8705 section 5: such a client uses the aliases in the metadata in place of the endpoints."""
    alias, other = "https://mtls.example.org", "https://mtls.example.org.else.example"
    client = await enter_client_at(reconfigured(world, mtls_url=alias, client_assertions="compatible"), ISSUER)
    for aud, error in (
        (f"{alias}/token", ""),
        ([ISSUER, f"{alias}/par"], ""),
        (alias, NOBODY),
        (f"{other}/token", NOBODY),
        ([f"{alias}/token", f"{other}/token"], NOBODY),
    ):
        assert (await client.ask(client_assertion=client.assertion(aud=aud))).error == error, aud
    strict = replace(client, app=oauth_app(reconfigured(world, mtls_url=alias, client_assertions="strict")))
    assert (await strict.ask(client_assertion=client.assertion(aud=f"{alias}/token"))).error == NOBODY


async def enter_client_at(world: World, issuer: str) -> Client:
    """A client of a server at another URL, with the nonce of that server."""
    agent, key = await register(world)
    client = Client(oauth_app(world), world, agent.agent_id, key)
    proof = client.proof(uri=f"{issuer}/token")
    assert (await client.ask(proof=proof, client_assertion=client.assertion(aud=issuer))).error == "use_dpop_nonce"
    return client


async def test_the_error_for_a_long_assertion_without_iat_asks_for_iat(world: World) -> None:
    client = await enter_client(world)
    answer = await client.ask(client_assertion=client.assertion(iat=None, exp=NOW + 3600))
    assert "has no `iat` and expires in more than 300 seconds; add `iat`" in answer.json["error_description"]


@pytest.mark.parametrize("setting", ["compatible", "strict"])
async def test_an_assertion_is_accepted_once_over_all_endpoints(world: World, setting: str) -> None:
    client = await enter_client(reconfigured(world, client_assertions=setting))
    assertion = client.assertion()
    assert (await client.ask(client_assertion=assertion)).status == 200
    assert (await client.post("/introspect", client.form(client_assertion=assertion, token="t"))).error == NOBODY


@pytest.mark.parametrize(("setting", "status"), [("compatible", 200), ("strict", 401)])
async def test_an_injected_assertion_gives_a_token_for_the_key_of_the_attacker_unless_strict(
    world: World, setting: str, status: int
) -> None:
    """A limit of the threat model: another authorization server that gets an assertion for this token endpoint can send
    it with a proof of its own key, because an agent may bind its tokens to a key that is not registered.
    """
    client = await enter_client(reconfigured(world, client_assertions=setting))
    attacker = jose.generate("ES256")
    answer = await client.ask(client_assertion=client.assertion(aud=TOKEN), proof=client.proof(key=attacker))
    assert answer.status == status
    if status == 200:
        assert claims_of(answer.json["access_token"])["cnf"] == {"jkt": attacker.public.thumbprint}


async def test_the_error_for_a_wrong_clock_states_the_difference(client: Client) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"iat": NOW - 100, "exp": NOW - 42}, "expired 42 s ago"),
        ({"iat": NOW + 23, "exp": NOW + 60}, "becomes valid in 23 s; the server accepts at most 10 s"),
        ({"nbf": NOW + 70}, "becomes valid in 70 s; the server accepts at most 10 s"),
    ]
    for claims, words in cases:
        answer = await client.ask(client_assertion=client.assertion(**claims))
        assert words in answer.json["error_description"]
        assert "`Date` header" in answer.json["error_description"]
    answer = await client.ask(proof=client.proof(now=client.world.now() - 400 * SECOND))
    assert "is 400 s ago; accepted are 60 s ago to 10 s ahead" in answer.json["error_description"]


async def test_each_rule_of_the_form_with_an_assertion_holds(client: Client) -> None:
    other = "urn:ietf:params:oauth:client-assertion-type:saml2-bearer"
    await check_table(
        [
            row("client_id that is the subject", client_id=client.id),
            row("client_id of another", NOBODY, client_id="ag_" + "0" * 32),
            row("client_id empty is client_id absent", client_id=""),
            row("no assertion", NOBODY, client_assertion=None),
            row("an empty assertion", NOBODY, client_assertion=""),
            row("no assertion type", NOBODY, client_assertion_type=None),
            row("another assertion type", NOBODY, client_assertion_type=other),
            row("not a token", NOBODY, client_assertion="a.b"),
            row("four parts", NOBODY, client_assertion=client.assertion() + ".e30"),
            row("white space after it", NOBODY, client_assertion=client.assertion() + "\n"),
            row("padding", NOBODY, client_assertion=client.assertion() + "="),
            row("a password", NOBODY, client_assertion=None, client_assertion_type=None, client_secret="secret"),
            row("a password too", "invalid_request", client_secret="secret"),
        ],
        client.ask,
    )


async def test_an_assertion_is_good_for_one_request(client: Client) -> None:
    assertion = client.assertion()
    assert (await client.ask(client_assertion=assertion)).status == 200
    assert (await client.ask(client_assertion=assertion)).error == NOBODY
    same_id = client.assertion(jti="once")
    assert (await client.ask(client_assertion=same_id)).status == 200
    assert (await client.ask(client_assertion=client.assertion(jti="once", exp=NOW + 59))).error == NOBODY


async def test_a_retry_with_a_nonce_may_use_the_same_assertion(client: Client) -> None:
    assertion, client.nonce = client.assertion(), None
    assert (await client.ask(client_assertion=assertion)).error == "use_dpop_nonce"
    assert (await client.ask(client_assertion=assertion)).status == 200


async def test_the_signature_of_an_assertion_must_be_by_the_registered_key(client: Client) -> None:
    stranger = jose.generate("ES256", kid=client.key.public.kid)
    assert (await client.ask(client_assertion=client.assertion(key=stranger))).error == NOBODY
    head, _, _ = client.assertion().rpartition(".")
    assert (await client.ask(client_assertion=head + ".")).error == NOBODY
    for position in (0, 40, 85):
        head, _, signature = client.assertion().rpartition(".")
        flipped = "B" if signature[position] == "A" else "A"
        changed = f"{head}.{signature[:position]}{flipped}{signature[position + 1 :]}"
        assert (await client.ask(client_assertion=changed)).error == NOBODY
