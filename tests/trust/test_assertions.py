"""Client assertions with arbitrary claims: each accepted assertion is for this server, current and limited in time."""

from __future__ import annotations

import json
from typing import Any

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
TYPES = ["JWT", "jwt", "at+jwt", "dpop+jwt", "client-authentication+jwt", "secevent+jwt", "", 1, None]


def check(claims: dict[str, Any], *, is_compatible: bool) -> Assertion | None:
    jws = jose.Jws({"alg": "ES256"}, json.dumps(claims).encode(), b"", b"")
    try:
        return check_assertion(
            jws, client_id=None, issuer=ISSUER, now=NOW * SECOND, is_compatible=lambda _: is_compatible
        )
    except InvalidClient:
        return None


@given(CLAIMS)
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
