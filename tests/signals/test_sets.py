"""Security event tokens without a server: the examples of the specifications, and each limit on their form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ostiary.protocol import jose
from ostiaryd.signals.model.issuers import EVENTS, Effect, effect_of
from ostiaryd.signals.model.sets import SecurityEvent, SetRefused, identifiers, parse_set, parse_subject
from ostiaryd.signals.model.streams import StreamId, jti, number_of

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "signals.json").read_text("utf-8"))
SECOND = 1_000_000
KEY = jose.generate("RS256")
DOES = {
    "session-revoked": Effect.END,
    "account-credential-change-required": Effect.END,
    "account-disabled": Effect.STOP,
    "credential-compromise": Effect.STOP,
}
"""Of the examples' events; their credential is created, their assurance rises, their risk is low."""


def parse(claims: dict[str, Any], *, key: jose.PrivateKey = KEY) -> SecurityEvent:
    audience = claims["aud"][0] if isinstance(claims["aud"], list) else claims["aud"]
    token = jose.sign_jwt(key, typ="secevent+jwt", claims=claims)
    return parse_set(
        token, issuer=claims["iss"], audience=audience, key_for=lambda _: key.public, now=claims["iat"] * SECOND
    )


@pytest.mark.parametrize(
    "vector", VECTORS, ids=lambda vector: f"{vector['from']} {next(iter(vector['claims']['events']))[-20:]}"
)
def test_the_examples_of_the_specifications_are_read_with_their_meaning(vector: dict[str, Any]) -> None:
    claims = vector["claims"]
    event = parse(claims)
    ((uri, said),) = claims["events"].items()
    assert (event.jti, event.event, event.claims, event.subject) == (claims["jti"], uri, said, claims["sub_id"])
    due = effect_of(event)
    expected = DOES.get(uri.rpartition("/")[2])
    if uri.endswith("device-compliance-change"):
        expected = Effect.RAISE_RISK
    assert (due and due[0]) == expected


@pytest.mark.parametrize("alg", sorted(jose.ALGS))
def test_each_type_of_published_key_may_sign(alg: str) -> None:
    assert parse(VECTORS[0]["claims"], key=jose.generate(alg)).jti == VECTORS[0]["claims"]["jti"]


def test_a_token_of_a_mebibyte_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(SetRefused, match="longer"):
        parse_set("a" * (1 << 20), issuer="", audience="", key_for=lambda _: KEY.public, now=0)


def test_a_complex_subject_identifies_its_member_user() -> None:
    user, session = {"format": "email", "email": "a@b.example"}, {"format": "opaque", "id": "1"}
    assert identifiers(parse_subject({"format": "complex", "user": user, "session": session})) == [user]
    aliases = {"format": "aliases", "identifiers": [user, session]}
    assert identifiers(parse_subject({"format": "complex", "user": aliases})) == [user, session]
    assert identifiers(parse_subject({"format": "complex", "session": session})) == []
    assert identifiers(parse_subject(session)) == [session]


def test_the_requested_event_types_are_those_with_an_effect() -> None:
    assert len(EVENTS) == len(set(EVENTS)) == 10
    assert all(uri.startswith("https://schemas.openid.net/secevent/") for uri in EVENTS)


def test_a_jti_identifies_one_signal_of_one_stream() -> None:
    one, two = StreamId("st_1"), StreamId("st_11")
    assert number_of(one, jti(one, 7)) == 7
    wrong = (jti(two, 7), "1.", "1.x", "1.-7", "1.7.7", ".7", "7", "", "1.\u0667", "1." + "9" * 19, "st_1.7")
    assert [number_of(one, id) for id in wrong] == [None] * len(wrong)
