"""RFC 9449 sections 4.3, 5 and 8: DPoP proofs and nonces at the token endpoint."""

from __future__ import annotations

from typing import Any

from harness.clock import START, Clock
from ostiary.protocol import dpop, jose
from tests.conformance.table import check_table, row
from tests.support.api_fixtures import (
    ISSUER,
    SECOND,
    TOKEN,
    Answer,
    Client,
    claims_of,
    oauth_app,
    reconfigured,
    sign,
)

NOW = START // SECOND
WINDOW, SKEW = dpop.WINDOW // SECOND, dpop.SKEW // SECOND
BAD, NONCE = "invalid_dpop_proof", "use_dpop_nonce"

TABLE = [
    row("a good proof"),
    row("htu with a query and a fragment", htu=TOKEN + "?a=b#c"),
    row("htu in another spelling (RFC 3986 6.2.2)", htu="HTTPS://Ostiary.Example.org:443/%74oken"),
    row("htu the issuer", BAD, htu=ISSUER),
    row("htu with a slash after it", BAD, htu=TOKEN + "/"),
    row("htu of http", BAD, htu=TOKEN.replace("https", "http")),
    row("htu a path", BAD, htu="/token"),
    row("no htu", BAD, htu=None),
    row("htm in lower case", BAD, htm="post"),
    row("htm another", BAD, htm="GET"),
    row("no htm", BAD, htm=None),
    row("no jti", BAD, jti=None),
    row("jti empty", BAD, jti=""),
    row("jti as long as it may be", jti="j" * dpop.MAX_JTI),
    row("jti longer", BAD, jti="j" * (dpop.MAX_JTI + 1)),
    row("no iat", BAD, iat=None),
    row("iat a string", BAD, iat=str(NOW)),
    row("iat as old as it may be", iat=NOW - WINDOW),
    row("iat a second older", BAD, iat=NOW - WINDOW - 1),
    row("iat as far ahead as clocks may differ", iat=NOW + SKEW),
    row("iat a second further", BAD, iat=NOW + SKEW + 1),
    row("no nonce", NONCE, nonce=None),
    row("a nonce that we never made", NONCE, nonce="A" * 32),
    row("a nonce empty", NONCE, nonce=""),
    row("a nonce with something after it", NONCE, nonce="A" * 33),
    row("typ in full", header={"typ": "application/dpop+jwt"}),
    row("typ JWT", BAD, header={"typ": "JWT"}),
    row("no typ", BAD, header={"typ": None}),
    row("alg none", BAD, header={"alg": "none"}),
    row("alg another than the key's", BAD, header={"alg": "RS256"}),
    row("no jwk", BAD, header={"jwk": None}),
    row("jwk a string", BAD, header={"jwk": "key"}),
    row("crit", BAD, header={"crit": ["b64"], "b64": False}),
]


def proof(client: Client, *, header: dict[str, Any] | None = None, **said: Any) -> str:
    """A proof made by hand, so that it can be wrong in every part."""
    claims = {"jti": client.jti(), "htm": "POST", "htu": TOKEN, "iat": NOW, "nonce": client.nonce}
    head = {"typ": "dpop+jwt", "jwk": client.key.public.bare_jwk, "kid": None} | (header or {})
    return sign(client.key, head, claims | said)


async def test_each_rule_of_a_dpop_proof_holds(client: Client) -> None:
    async def ask(**said: Any) -> Answer:
        return await client.ask(proof=proof(client, **said))

    await check_table(TABLE, ask)


async def test_each_rule_of_the_key_in_a_dpop_proof_holds(client: Client) -> None:
    public = client.key.public.bare_jwk
    private = {name: client.key.jwk()[name] for name in ("crv", "kty", "x", "y", "d")}
    stranger = jose.generate("ES256").public.bare_jwk
    point = {**public, "y": public["x"]}

    async def ask(jwk: dict[str, str]) -> Answer:
        return await client.ask(proof=proof(client, header={"jwk": jwk}))

    await check_table(
        [
            row("the signer's", jwk=public),
            row("with its private member", BAD, jwk=private),
            row("of somebody else", BAD, jwk=stranger),
            row("a point off the curve", BAD, jwk=point),
            row("a secret", BAD, jwk={"kty": "oct", "k": "AAAA"}),
        ],
        ask,
    )


async def test_a_token_is_bound_to_the_key_of_its_proof_and_not_of_the_client(client: Client) -> None:
    for alg in sorted(jose.ALGS):
        other = jose.generate(alg)
        got = await client.token(proof=client.proof(key=other))
        assert got["token_type"] == "DPoP", alg
        assert claims_of(got["access_token"])["cnf"] == {"jkt": other.public.thumbprint}, alg


async def test_a_request_without_a_proof_or_with_two_proofs_is_refused(client: Client) -> None:
    assert (await client.ask(proof=None)).error == BAD
    twice = await client.post("/token", client.form(), dpop=client.proof(), DPoP=client.proof())
    assert (twice.status, twice.error) == (400, BAD)
    joined = await client.ask(proof=f"{client.proof()}, {client.proof()}")
    assert joined.error == BAD


async def test_a_proof_is_good_for_one_request(client: Client) -> None:
    used = client.proof()
    assert (await client.ask(proof=used)).status == 200
    again = await client.ask(proof=used)
    assert (again.status, again.error) == (400, BAD)


async def test_a_used_proof_is_remembered_until_it_expires(client: Client, clock: Clock) -> None:
    used = client.proof(jti="once", now=START)
    assert (await client.ask(proof=used)).status == 200
    clock.advance(WINDOW)
    assert "used before" in (await client.ask(proof=used)).json["error_description"]
    clock.advance(us=1)
    assert "is 60 s ago" in (await client.ask(proof=used)).json["error_description"]


async def test_a_nonce_is_valid_for_its_lifetime_and_renewed_in_the_second_half(client: Client, clock: Clock) -> None:
    lifetime = client.world.config.nonce_lifetime_s
    first = client.nonce
    clock.advance(lifetime / 2, us=-1)
    assert "dpop-nonce" not in (await client.ask()).headers
    clock.advance(us=1)
    aging = await client.ask()
    assert (aging.status, aging.headers["dpop-nonce"] != first) == (200, True)
    clock.advance(lifetime / 2, us=-1)
    assert (await client.ask(proof=client.proof(nonce=first))).status == 200
    clock.advance(us=1)
    late = await client.ask(proof=client.proof(nonce=first))
    assert (late.status, late.error) == (400, NONCE)
    assert late.headers["dpop-nonce"] == client.nonce
    assert (await client.ask()).status == 200


async def test_an_offered_nonce_is_optional_and_a_wrong_one_is_refused(client: Client) -> None:
    client.app = oauth_app(reconfigured(client.world, dpop_nonce="offered"))
    without = await client.ask(proof=client.proof(nonce=None))
    assert (without.status, len(without.headers["dpop-nonce"])) == (200, 32)
    assert (await client.ask(proof=client.proof(nonce="A" * 32))).error == NONCE
    assert (await client.ask()).status == 200


async def test_a_nonce_of_a_resource_is_refused_at_the_token_endpoint(client: Client) -> None:
    secret = client.world.keys.secret("nonce")
    for purpose, due in ((b"rs", NONCE), (b"as", "")):
        nonce = dpop.make_nonce(secret, purpose, START)  # type: ignore[arg-type]
        assert (await client.ask(proof=client.proof(nonce=nonce))).error == due


async def test_the_host_header_does_not_change_the_target_of_a_proof(client: Client) -> None:
    answer = await client.post("/token", client.form(), dpop=client.proof(), host="evil.example", x_forwarded_host="e")
    assert answer.status == 200
    elsewhere = client.proof(uri="https://evil.example/token")
    assert (await client.post("/token", client.form(), dpop=elsewhere, host="evil.example")).error == BAD
