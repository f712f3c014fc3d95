"""Access tokens of RFC 9068: their shape on the wire, and every limit of `check_access` on both sides."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ostiary.authorization import claims
from ostiary.authorization.budget import MAX_BUDGETS
from ostiary.authorization.claims import AccessClaims, Actor, Confirmation, InvalidScope
from ostiary.protocol import jose
from ostiary.protocol.jose import InvalidToken

SECOND = 1_000_000
NOW = 1_700_000_000 * SECOND
KEY = jose.generate("ES256")
WIRE: dict[str, object] = {
    "iss": "https://as.example",
    "sub": "pe_1",
    "client_id": "ag_1",
    "aud": "https://rs.example",
    "exp": 1_700_000_300,
    "iat": 1_700_000_000,
    "jti": "tok_1",
}
FULL: dict[str, object] = {
    **WIRE,
    "nbf": 1_700_000_000,
    "scope": "files:read files:write",
    "task": "tk_1",
    "acr": "2",
    "amr": ["hwk", "attested"],
    "cnf": {"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I", "x5t#S256": "digest"},
    "authorization_details": [{"type": "tool", "locations": ["https://rs.example"]}],
    "act": {"sub": "ag_1", "act": {"sub": "ag_2"}},
    "policy": "hash",
    "owner": "pe_2",
    "segment": "finance",
    "epoch": 3,
}


def parse(**changes: object) -> AccessClaims:
    return claims.parse_access({**WIRE, **changes})


def check(token: AccessClaims, **options: Any) -> None:
    options = {"issuer": "https://as.example", "audience": "https://rs.example", "now": NOW, **options}
    claims.check_access(token, **options)


def test_a_token_with_the_claims_that_rfc_9068_requires_is_accepted() -> None:
    token = claims.parse_access(WIRE)
    check(token)
    assert json.loads(jose.parse_jws(jose.sign_jwt(KEY, typ="at+jwt", claims=token)).payload) == WIRE
    assert (token.scope, token.cnf, token.act, token.epoch) == ("", None, None, 0)


def test_a_token_with_all_claims_is_the_same_after_signing_and_verifying() -> None:
    token = claims.parse_access(FULL)
    signed = jose.sign_jwt(KEY, typ=claims.ACCESS_TYP, claims=token)
    verified = jose.verify_jwt(signed, key_for=lambda header: KEY.public, typ={"at+jwt"}, now=NOW)
    assert verified == FULL
    assert claims.parse_access(verified) == token
    assert token.cnf == Confirmation(jkt="0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I", certificate="digest")
    assert claims.actors(token) == ("ag_1", "ag_2")
    assert claims.scopes(token) == {"files:read", "files:write"}
    check(token)


def test_a_token_with_more_than_the_maximum_number_of_budgets_is_refused() -> None:
    budgets = [{"id": f"bu_{n}", "limit": {"kind": "calls", "limit": 1}} for n in range(MAX_BUDGETS + 1)]
    for taken in (MAX_BUDGETS - 1, MAX_BUDGETS):
        assert len(parse(budgets=budgets[:taken]).budgets) == taken
    with pytest.raises(InvalidToken, match=f"length <= {MAX_BUDGETS}"):
        parse(budgets=budgets)


def test_unknown_claims_are_ignored() -> None:
    assert parse(roles=["x"], cnf={"jkt": "t", "other": 1}, act={"sub": "a", "iss": "b"}) == parse(
        cnf={"jkt": "t"}, act={"sub": "a"}
    )


def test_an_audience_may_be_a_list_of_one() -> None:
    assert parse(aud=["https://rs.example"]) == parse()


@pytest.mark.parametrize("name", sorted(WIRE))
def test_a_token_without_a_claim_that_rfc_9068_requires_is_refused(name: str) -> None:
    with pytest.raises(InvalidToken, match=name):
        claims.parse_access({other: value for other, value in WIRE.items() if other != name})


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": []},
        {"aud": ["https://rs.example", "https://other.example"]},
        {"aud": [1]},
        {"aud": None},
        {"exp": True},
        {"exp": "1700000300"},
        {"exp": 1700000300.5},
        {"exp": None},
        {"iat": False},
        {"nbf": "1"},
        {"epoch": True},
        {"epoch": 1.5},
        {"scope": ["files:read"]},
        {"scope": None},
        {"amr": "hwk"},
        {"amr": [1]},
        {"cnf": "thumbprint"},
        {"cnf": {"jkt": 1}},
        {"act": "ag_1"},
        {"act": {}},
        {"act": {"sub": 1}},
        {"act": {"sub": "a", "act": {}}},
        {"authorization_details": {}},
        {"authorization_details": ["tool"]},
        {"jti": 1},
    ],
)
def test_a_claim_of_another_type_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(InvalidToken, match=next(iter(changes))):
        parse(**changes)


@pytest.mark.parametrize(
    ("changes", "options", "why"),
    [
        ({}, {"issuer": "https://as.example/"}, "iss"),
        ({"iss": "https://AS.example"}, {}, "iss"),
        ({"aud": "https://rs.example/"}, {}, "aud"),
        ({}, {"audience": ""}, "aud"),
        ({"sub": ""}, {}, "sub"),
        ({"client_id": ""}, {}, "client_id"),
        ({"jti": ""}, {}, "jti"),
        ({"exp": 1_700_000_001}, {}, None),
        ({"exp": 1_700_000_000}, {}, "expired"),
        ({"exp": 1_699_999_996}, {"leeway": 5 * SECOND}, None),
        ({"exp": 1_699_999_995}, {"leeway": 5 * SECOND}, "expired"),
        ({"exp": 0}, {}, "expired"),
        ({"exp": -1}, {}, "`exp` is not"),
        ({"exp": 253402300799}, {}, None),
        ({"exp": 253402300800}, {}, "`exp` is not"),
        ({"exp": 10**30}, {}, "exp"),
        ({"iat": 1_700_000_000}, {}, None),
        ({"iat": 1_700_000_001}, {}, "iat"),
        ({"iat": 1_700_000_005}, {"leeway": 5 * SECOND}, None),
        ({"iat": 1_700_000_006}, {"leeway": 5 * SECOND}, "iat"),
        ({"iat": -1}, {}, "`iat` is not"),
        ({"iat": 0}, {}, None),
        ({"nbf": 1_700_000_000}, {}, None),
        ({"nbf": 1_700_000_001}, {}, "nbf"),
        ({"nbf": 1_700_000_005}, {"leeway": 5 * SECOND}, None),
        ({"nbf": 1_700_000_006}, {"leeway": 5 * SECOND}, "nbf"),
        ({"nbf": 0}, {}, None),
        ({"nbf": -1}, {}, "`nbf` is not"),
        ({"epoch": 0}, {}, None),
        ({"epoch": -1}, {}, "epoch"),
    ],
)
def test_each_claim_is_checked_against_its_limits(
    changes: dict[str, object], options: dict[str, Any], why: str | None
) -> None:
    if why is None:
        check(parse(**changes), **options)
    else:
        with pytest.raises(InvalidToken, match=why):
            check(parse(**changes), **options)


def test_a_token_is_expired_from_the_microsecond_of_exp_on() -> None:
    end = 1_700_000_300 * SECOND
    check(parse(), now=end - 1)
    with pytest.raises(InvalidToken, match="expired"):
        check(parse(), now=end)


def chain(length: int) -> Actor | None:
    actor = None
    for number in range(length):
        actor = Actor(sub=f"ag_{number}", act=actor)
    return actor


def test_an_actor_chain_beyond_the_maximum_length_is_refused() -> None:
    for length in (0, claims.MAX_ACTORS - 1, claims.MAX_ACTORS):
        check(AccessClaims(**WIRE, act=chain(length)))  # type: ignore[arg-type]
    with pytest.raises(InvalidToken, match="actors"):
        check(AccessClaims(**WIRE, act=chain(claims.MAX_ACTORS + 1)))  # type: ignore[arg-type]


def test_an_actor_chain_of_100000_actors_is_refused() -> None:
    act: dict[str, object] = {"sub": "x"}
    for _ in range(100_000):
        act = {"sub": "x", "act": act}
    with pytest.raises(InvalidToken, match="deep"):
        parse(act=act)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [("", set()), ("a", {"a"}), ("b a", {"a", "b"}), ("a a", {"a"}), ("files:read!#[]~", {"files:read!#[]~"})],
)
def test_a_scope_is_a_list_of_tokens_separated_by_spaces(text: str, tokens: set[str]) -> None:
    assert claims.parse_scope(text) == tokens
    assert claims.parse_scope(claims.render_scope(frozenset(tokens))) == tokens


@pytest.mark.parametrize(
    "text", [" ", " a", "a ", "a  b", "a\tb", "a\nb", 'a"b', "a\\b", "é", "a\x7f", "a\0", "x" * 257]
)
def test_a_malformed_scope_is_refused(text: str) -> None:
    with pytest.raises(InvalidScope) as refusal:
        claims.parse_scope(text)
    assert refusal.value.code == "invalid_scope"
    assert ("more than 256 characters" in refusal.value.message) is (len(text) > 256)
    with pytest.raises(InvalidScope):
        claims.scopes(parse(scope=text))


def test_a_scope_with_more_than_the_maximum_number_of_tokens_is_refused() -> None:
    many = [f"s{number}" for number in range(claims.MAX_SCOPES)]
    assert len(claims.parse_scope(" ".join(many))) == claims.MAX_SCOPES
    assert claims.parse_scope("x" * 256) == {"x" * 256}
    with pytest.raises(InvalidScope, match="more than"):
        claims.parse_scope(" ".join([*many, "one-more"]))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["sub", "act", "jkt"]), inner),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from(sorted(FULL)), json_values))
def test_parsing_and_checking_any_claims_raises_nothing_but_invalid_token(changes: dict[str, object]) -> None:
    try:
        check(parse(**changes))
    except InvalidToken:
        return
    assert changes.get("iss", WIRE["iss"]) == WIRE["iss"]
