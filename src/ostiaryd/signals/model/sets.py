"""Security event tokens: RFC 8417 as OpenID SSF 1.0 section 4 restricts it, with the subjects of RFC 9493.

This module is stricter than RFC 8417: a token has exactly one event (CAEP interoperability profile 1.0, 2.6.1), an
`iat` within a limited age, and an asymmetric signature. Unknown members of an event are ignored, as SSF section 4.2.3
requires.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Any, NamedTuple

import msgspec

from ostiary.protocol import jose
from ostiary.protocol.errors import Refused
from ostiary.protocol.jose.jws import parse_claims

TYP = "secevent+jwt"
MEDIA_TYPE = f"application/{TYP}"
SSF = "https://schemas.openid.net/secevent/ssf/event-type/"
CAEP = "https://schemas.openid.net/secevent/caep/event-type/"
RISC = "https://schemas.openid.net/secevent/risc/event-type/"
VERIFICATION = f"{SSF}verification"
STREAM_UPDATED = f"{SSF}stream-updated"
SESSION_REVOKED = f"{CAEP}session-revoked"
CREDENTIAL_CHANGE = f"{CAEP}credential-change"
RISK_LEVEL_CHANGE = f"{CAEP}risk-level-change"
PUSH, POLL = "urn:ietf:rfc:8935", "urn:ietf:rfc:8936"
SECOND = 1_000_000
MAX_SET_BYTES = 16 << 10
MAX_WORD = 1000
MAX_JTI = 256
MAX_ALIASES = 20
OLDEST = 7 * 86_400 * SECOND
"""Maximum age of a token in microseconds; the server remembers received tokens for this time."""
AHEAD = 300 * SECOND
"""Microseconds by which a transmitter's clock may be ahead of this server's clock."""

Subject = dict[str, Any]
_MEMBERS = {
    "account": ("uri",),
    "did": ("url",),
    "email": ("email",),
    "iss_sub": ("iss", "sub"),
    "jwt_id": ("iss", "jti"),
    "opaque": ("id",),
    "phone_number": ("phone_number",),
    "saml_assertion_id": ("issuer", "assertion_id"),
    "uri": ("uri",),
}
"""The members that a subject of each format must have (RFC 9493 section 3.2, SSF section 3.4)."""


class SetRefused(Refused):
    """A security event token was refused. `code` is an error code of RFC 8935 section 2.4, and is sent to the
    transmitter.
    """

    code = "invalid_request"


class SecurityEvent(NamedTuple):
    """The content of a verified token. `at` is its time of issue in microseconds; `event` is the event type, and
    `claims` are the members of the event.
    """

    jti: str
    at: int
    subject: Subject
    event: str
    claims: Mapping[str, Any]


class Signal(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An event to send. `stream`: the id of the only stream that gets the event; empty for all streams. `txn`: the
    index of the ledger entry of the act behind the event.
    """

    event: str
    subject: Subject
    claims: dict[str, Any] = {}
    txn: str = ""
    stream: str = ""


def parse_set(
    unverified_set: str, *, issuer: str, audience: str, key_for: Callable[[jose.Header], jose.PublicKey], now: int
) -> SecurityEvent:
    """Verify a token from `issuer` to `audience` at `now` (microseconds), and return its event. `key_for` returns the
    issuer's key for a header, or raises InvalidToken. Raises SetRefused if one of these checks fails.

    1. The token has the explicit type (SSF 4.1.1). 2. A key of the issuer signed it. 3. Issuer and audience match. 4.
    The token is not of another kind (SSF 4.1.3: no `sub`, no `exp`), and `iat` is in the permitted range. 5. The token
    has one event with one subject.
    """
    try:
        unverified_jws = jose.parse_jws(unverified_set, max_bytes=MAX_SET_BYTES)
    except jose.InvalidToken as error:
        raise SetRefused(error.message) from None
    if jose.media_type(unverified_jws.header) != TYP:
        raise SetRefused(f"the token is not of type {TYP}")
    try:
        key = key_for(unverified_jws.header)
    except jose.InvalidToken as error:
        raise SetRefused(error.message, code="invalid_key") from None
    if not key.accepts(unverified_jws.header["alg"]):
        raise SetRefused(f"the key is for {key.alg}, and the token has another `alg`", code="invalid_key")
    try:
        key.verify(unverified_jws.signature, unverified_jws.signing_input)
    except jose.InvalidToken as error:
        raise SetRefused(error.message, code="authentication_failed") from None
    return _parse_claims(unverified_jws.payload, issuer=issuer, audience=audience, now=now)


def _parse_claims(payload: bytes, *, issuer: str, audience: str, now: int) -> SecurityEvent:
    try:
        claims = parse_claims(payload)
        if claims.get("iss") != issuer:
            raise SetRefused("the token is from another issuer (`iss`)", code="invalid_issuer")
        named = claims.get("aud")
        if audience not in (named if isinstance(named, list) else [named]):
            raise SetRefused("the token is for another audience (`aud`)", code="invalid_audience")
        at = jose.numeric_date(claims, "iat")
    except jose.InvalidToken as error:
        raise SetRefused(error.message) from None
    for name in ("sub", "exp"):
        if name in claims:
            raise SetRefused(f"a security event token must not have the claim `{name}`")
    if at > now + AHEAD:
        raise SetRefused("the token was issued in the future (`iat`)")
    if at <= now - OLDEST:
        raise SetRefused("the token is too old (`iat`)")
    jti, events = claims.get("jti"), claims.get("events")
    if not isinstance(jti, str) or not 0 < len(jti) <= MAX_JTI:
        raise SetRefused(f"`jti` is not a string of 1 to {MAX_JTI} characters")
    if not isinstance(events, dict) or len(events) != 1:
        raise SetRefused("`events` does not have exactly one event")
    ((event, members),) = events.items()
    if len(event) > MAX_WORD:
        raise SetRefused(f"the type of the event has more than {MAX_WORD} characters")
    if not isinstance(members, dict):
        raise SetRefused("the event is not a JSON object")
    return SecurityEvent(jti, at, parse_subject(claims.get("sub_id")), event, members)


def parse_subject(value: object) -> Subject:
    """Return a simple or complex subject (SSF section 3). Raises SetRefused if the subject lacks a member that its
    format requires.

    A subject of an unknown format is returned unchanged; the caller decides whether to use it.
    """
    subject = _parse_simple(value)
    if subject["format"] == "complex":
        members = {name: _parse_simple(member) for name, member in subject.items() if name != "format"}
        if not members:
            raise SetRefused("a complex subject must have at least one member")
        if any(member["format"] == "complex" for member in members.values()):
            raise SetRefused("a member of a complex subject must be a simple subject")
    return subject


def _parse_simple(value: object) -> Subject:
    if not isinstance(value, dict) or not isinstance(value.get("format"), str):
        raise SetRefused("a subject is not a JSON object with a `format`")
    for name in _MEMBERS.get(value["format"], ()):
        word = value.get(name)
        if not isinstance(word, str) or not 0 < len(word) <= MAX_WORD:
            raise SetRefused(
                f"`{name}` of a subject of the format {value['format']} is not a string of 1 to {MAX_WORD} characters"
            )
    if value["format"] == "aliases":
        identifiers = value.get("identifiers")
        if not isinstance(identifiers, list) or not 0 < len(identifiers) <= MAX_ALIASES:
            raise SetRefused(f"a subject of the format aliases must have 1 to {MAX_ALIASES} `identifiers`")
        if any(_parse_simple(one)["format"] in ("aliases", "complex") for one in identifiers):
            raise SetRefused("an alias is not a simple subject")  # RFC 9493 3.2.8: no aliases in aliases
    return value


def identifiers(subject: Subject) -> list[Subject]:
    """Return the simple subjects in `subject`: each alias of the format `aliases`; for a complex subject, those of its
    member `user`, none without this member.
    """
    match subject["format"]:
        case "complex":
            return identifiers(subject["user"]) if "user" in subject else []
        case "aliases":
            aliases: list[Subject] = subject["identifiers"]
            return aliases
    return [subject]


def iss_sub(issuer: str, id: str) -> Subject:
    """Return the subject of an agent or a person as access tokens name it: issuer and `sub` (RFC 9493 section
    3.2.3).
    """
    return {"format": "iss_sub", "iss": issuer, "sub": id}


def render_set(signal: Signal, *, issuer: str, audience: str, jti: str, at: int, key: jose.PrivateKey) -> str:
    """Return the signed security event token of a signal, issued at `at` (microseconds since the epoch)."""
    claims: dict[str, Any] = {"iss": issuer, "jti": jti, "iat": at // SECOND, "aud": audience}
    claims |= {"txn": signal.txn} if signal.txn else {}
    claims |= {"sub_id": signal.subject, "events": {signal.event: signal.claims}}
    return jose.sign_jwt(key, typ=TYP, claims=claims)


def digest(issuer: str, jti: str) -> bytes:
    """Return the digest by which the server remembers a received token."""
    return sha256(f"{issuer}|{jti}".encode()).digest()[:16]
