"""Client assertions with arbitrary claims: each accepted assertion is for this server, current and limited in time."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ostiary.protocol import jose
from ostiaryd.trust.model import (
    AHEAD,
    LONGEST_ASSERTION,
    SECOND,
    Assertion,
    InvalidClient,
    check_assertion,
    check_assertion_type,
)

ISSUER = "https://id.example"
CLIENT = "ag_" + "0" * 32
NOW = 1_800_000_000
OURS = [ISSUER, ISSUER + "/", *(ISSUER + path for path in ("/token", "/introspect", "/revoke", "/bc-authorize"))]
NAMES = st.sampled_from([*OURS, "https://else.example", ISSUER + ".else.example/token", ISSUER + "/jwks", "", "https:"])
AUDIENCES = st.one_of(
    NAMES, st.lists(NAMES, max_size=4), st.lists(st.one_of(NAMES, st.integers(), st.none()), max_size=3)
)
TIMES = st.one_of(
    st.integers(NOW - 400, NOW + 400),
    st.floats(NOW - 400, NOW + 400),
    st.sampled_from([NOW, NOW + 10, NOW + 11, NOW + 300, NOW + 310, NOW + 311, NOW + 3600, 0, -1, 1e300]),
)
CLAIMS = st.fixed_dictionaries(
    {"iss": st.just(CLIENT), "sub": st.just(CLIENT), "aud": AUDIENCES, "exp": TIMES, "jti": st.just("j")},
    optional={"iat": TIMES, "nbf": TIMES},
)
CURRENT = st.builds(
    lambda claims, audience, issued, lifetime: claims | {"aud": audience, "iat": issued, "exp": issued + lifetime},
    CLAIMS,
    st.sampled_from([ISSUER, [ISSUER]]),
    st.integers(NOW - 302, NOW + 12),
    st.sampled_from([1, 60, 299, 300, 301]),
)
"""Claims that strict rules accept unless a time is wrong."""
TYPES = ["JWT", "jwt", "at+jwt", "dpop+jwt", "client-authentication+jwt", "secevent+jwt", "", 1, None]


def check(claims: dict[str, Any], *, is_compatible: bool) -> Assertion | None:
    jws = jose.Jws({"alg": "ES256"}, json.dumps(claims).encode(), b"", b"")
    try:
        return check_assertion(
            jws, client_id=None, issuer=ISSUER, now=NOW * SECOND, is_compatible=lambda _: is_compatible
        )
    except InvalidClient:
        return None


@given(CLAIMS | CURRENT)
def test_an_accepted_assertion_is_for_this_server_only_and_within_its_time_limits(claims: dict[str, Any]) -> None:
    strict, compatible = check(claims, is_compatible=False), check(claims, is_compatible=True)
    assert strict is None or strict == compatible, "compatible accepts whatever strict does"
    if compatible is not None:
        audience = claims["aud"] if isinstance(claims["aud"], list) else [claims["aud"]]
        assert audience
        assert all(one in OURS for one in audience)
        assert NOW * SECOND < compatible.spend.until <= NOW * SECOND + AHEAD + LONGEST_ASSERTION
        assert compatible.spend.until <= claims["exp"] * SECOND
        assert max(claims.get("iat", 0), claims.get("nbf", 0)) * SECOND < (NOW + 1) * SECOND + AHEAD
    if strict is not None:
        assert claims["aud"] in (ISSUER, [ISSUER])
        assert claims["exp"] - claims["iat"] <= 300


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"sub": "ag_x", "iss": "ag_x"}, "`sub` of the client assertion is not a client id"),
        ({"sub": 7, "iss": 7}, "`sub` of the client assertion is not a client id"),
        ({"iss": "ag_" + "1" * 32}, "`iss` of the client assertion differs from `sub`"),
        ({"iss": None}, "`iss` of the client assertion differs from `sub`"),
        ({"jti": ""}, "`jti` of the client assertion is not a string of 1 to "),
    ],
)
def test_a_claim_of_an_assertion_is_refused_with_its_fault(changed: dict[str, object], message: str) -> None:
    claims = {"iss": CLIENT, "sub": CLIENT, "aud": ISSUER, "iat": NOW, "exp": NOW + 60, "jti": "j"}
    assert check(claims, is_compatible=False) is not None
    jws = jose.Jws({"alg": "ES256"}, json.dumps(claims | changed).encode(), b"", b"")
    with pytest.raises(InvalidClient, match=message):
        check_assertion(jws, client_id=None, issuer=ISSUER, now=NOW * SECOND, is_compatible=lambda _: False)


@given(st.sampled_from(TYPES), st.booleans(), st.booleans())
def test_a_token_of_another_type_is_not_accepted_as_a_client_assertion(
    typ: object, says: bool, is_compatible: bool
) -> None:
    header: dict[str, Any] = {"alg": "ES256", **({"typ": typ} if says else {})}
    good = not says or typ == "client-authentication+jwt" or (is_compatible and typ in ("JWT", "jwt"))
    try:
        check_assertion_type(header, is_compatible=lambda: is_compatible)
    except InvalidClient:
        assert not good
    else:
        assert good
