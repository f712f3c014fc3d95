"""Input of unauthenticated callers: any input is parsed or refused, without an internal error."""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from ostiary.protocol.errors import Refused
from ostiary.protocol.jose import b64u
from ostiaryd.app import build_app
from ostiaryd.ground.world import World
from ostiaryd.signals.model import sets
from ostiaryd.watch.engines.lists import parse_list
from ostiaryd.watch.model.otlp import parse_export
from tests.support.api_fixtures import send

NOW = 10**15
WORDS = ("email", "complex", "aliases", "iss_sub", "a@b", "x", "opaque", "uri", "user", "\x00", "é", "\u212a@b")
MEMBERS = ("format", "email", "iss", "sub", "identifiers", "user", "id", "tenant", "uri")
CLAIMS = ("iss", "aud", "iat", "jti", "sub_id", "events", "sub", "exp", "txn")
LINES = (
    b"evil.example",
    b"http://",
    b"https://a b/",
    b"[::1]",
    b"::",
    b"/",
    b"45.83.64.0/22",
    b"1" * 400,
    b"0x7f",
    b"@",
    b"\xff",
    b"\xc3\xa9",
    b"#",
    b"\x00",
    b"..",
    b"-",
    b"xn--",
    b"xn--zzzz99",
    b"*.",
    b"/33",
    b"/-1",
    b"%",
    b":99999",
    b"?",
    b"\t",
    b" ",
    b"\n",
    b"fe80::1%eth0",
    b"2a0e:b107::/" + b"9" * 20,
    b"'",
    b"\xe2\x80\x8b",
    b"a" * 64,
)
PARTS = (
    "[",
    "]",
    "domain-name:value",
    "=",
    "'evil.example'",
    "OR",
    "IN",
    "(",
    ")",
    ",",
    "ISSUBSET",
    "ipv4-addr:value",
    "'1.2.3.0/24'",
    "\\",
    "'",
    " ",
    "url:value",
    "'http://x/'",
    "file:hashes.'MD5'",
)
TIMES = ("2016-01-01T00:00:00Z", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", None)


def value(dice: Random, depth: int = 0) -> Any:
    """Some JSON, with words that mean something here."""
    kind = dice.random()
    if kind < 0.15:
        return dice.choice([None, True, 1, -1, 1.5, "", 10**30])
    if kind < 0.5 or depth > 4:
        return dice.choice(WORDS)
    if kind < 0.75:
        return [value(dice, depth + 1) for _ in range(dice.randrange(4))]
    return {dice.choice(MEMBERS): value(dice, depth + 1) for _ in range(dice.randrange(5))}


def event(dice: Random) -> None:
    good = {"iss": "x", "aud": "y", "iat": 10**9, "jti": "j", "events": {"e": {}}}
    good["sub_id"] = {"format": "email", "email": "a@b"}
    changed = good | {dice.choice(CLAIMS): value(dice)}
    said = sets._parse_claims(json.dumps(changed).encode(), issuer="x", audience="y", now=NOW)
    sets.identifiers(said.subject)


def subject(dice: Random) -> None:
    sets.identifiers(sets.parse_subject(value(dice)))


def lines(dice: Random) -> None:
    parse_list("plain", b"".join(dice.choices(LINES, k=dice.randrange(1, 7))), now=NOW, spared=frozenset({"o.example"}))


def patterns(dice: Random) -> None:
    pattern = dice.choice(["[domain-name:value = 'evil.example']", *dice.choices(PARTS, k=dice.randrange(12))])
    pattern += "".join(dice.choices(PARTS, k=dice.randrange(4)))
    made = {"type": "indicator", "pattern_type": "stix", "pattern": pattern, "valid_from": dice.choice(TIMES)}
    bundle = {"type": "bundle", "objects": [made | {"valid_until": dice.choice(TIMES)}]}
    parse_list("stix", json.dumps(bundle).encode(), now=NOW, spared=frozenset())


def telemetry(dice: Random) -> None:
    if dice.random() < 0.5:
        parse_export("traces", "protobuf", dice.randbytes(dice.randrange(60)))
    else:
        parse_export("logs", "json", json.dumps(value(dice)).encode())


@pytest.mark.parametrize("read", [event, subject, lines, patterns, telemetry])
def test_random_input_is_parsed_or_refused(read: Callable[[Random], None]) -> None:
    dice, refused = Random(read.__name__), 0
    for _ in range(3000):
        try:
            read(dice)
        except Refused:
            refused += 1
    assert 0 < refused < 3000


@pytest.mark.parametrize(
    "body",
    [
        b'{"jti":"\\ud800","iss":"x"}',
        b'{"iss":"\\udfff"}',
        b"[]",
        b'{"iat":1e999}',
        b'{"iat":true}',
        b'{"iat":' + b"9" * 400 + b"}",
        b'{"a":' * 2000 + b"1" + b"}" * 2000,
        b"\xff",
        b"",
    ],
)
def test_malformed_claims_of_a_signal_are_refused(body: bytes) -> None:
    with pytest.raises(Refused):
        sets._parse_claims(body, issuer="x", audience="y", now=NOW)


@pytest.mark.parametrize("claims", [b'{"x":%s}', b'{"sub":%s}', b'{"client_id":"ag_1","x":%s}'])
async def test_claims_that_are_nested_too_deeply_are_refused_as_any_other_token(world: World, claims: bytes) -> None:
    refused = []
    for levels in (1, 2_500):
        token = f"e30.{b64u(claims % (b'[' * levels + b']' * levels))}.x"
        answer = await send(build_app(world), "GET", "/api/v1/agents", headers=[("authorization", f"DPoP {token}")])
        refused.append((answer.status, answer.error))
        form = f"grant_type=client_credentials&client_assertion={token}".encode()
        headers = [("content-type", "application/x-www-form-urlencoded")]
        answer = await send(build_app(world), "POST", "/token", headers=headers, body=form)
        refused.append((answer.status, answer.error))
    assert refused[:2] == refused[2:]
    assert {status for status, _ in refused} <= {400, 401}
