"""A denial for which access can be requested (AuthZEN Access Request and Approval Profile, draft 1), and its binding.

`binding_token` is a JWS of type `ostiary-denial+jwt` with the claims of the section "Denial Binding Claims" in their
hashed form: `binding_hash` over subject, resource, action, and the part of the context that belongs to the call. Only
this server reads the token: it proves that the server recently denied exactly this request. The approval request itself
is decided anew.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

from ostiary.protocol import canonical
from ostiary.protocol.decoding import json_decoder
from ostiary.protocol.errors import Invalid, Malformed
from ostiary.protocol.jose import InvalidToken, JwkSet, PrivateKey, sign_jwt, verify_jws
from ostiaryd.policy.model.questions import EvaluationRequest

TYP = "ostiary-denial+jwt"
LIFETIME_S = 600
MEMBERS = ["arguments", "task"]
"""Members of the context that belong to the call itself."""
MAX_TOKEN = 4096
SECOND = 1_000_000


class Denial(msgspec.Struct, frozen=True, kw_only=True):
    iss: str
    aud: str
    iat: int
    exp: int
    jti: str
    evaluation_id: str
    denial_expires_at: str
    binding_context_members: list[str]
    binding_hash: str


class BadBinding(Invalid):
    """The `denial` in an access request is not a denial of the same request by this server."""

    code = "invalid_denial_binding"


class ExpiredDenial(Invalid):
    """The denial in an access request has expired, so that no approval can be requested for it."""

    code = "expired_denial"


_decode = json_decoder(Denial)


def denial(question: EvaluationRequest, *, id: str, issuer: str, now: int) -> Denial:
    """Return the content of a denial token. `seal_denial` makes the token from it; with the token, the denied caller
    can request an approval. `id`: the id of the evaluation; `now`: microseconds. Raises Malformed for arguments without
    a canonical JSON form.
    """
    ends = now // SECOND + LIFETIME_S
    return Denial(
        iss=issuer,
        aud=issuer,
        iat=now // SECOND,
        exp=ends,
        jti=id,
        evaluation_id=id,
        denial_expires_at=rfc3339(ends),
        binding_context_members=MEMBERS,
        binding_hash=binding_hash(question),
    )


def seal_denial(key: PrivateKey, denied: Denial) -> str:
    """Sign a denial with `key`, and return it as a token: the `binding_token` that the caller sends to request an
    approval.
    """
    return sign_jwt(key, typ=TYP, claims=denied)


def open_denial(unverified_token: str, *, keys: JwkSet, issuer: str, question: EvaluationRequest, now: int) -> Denial:
    """Verify the `binding_token` of a denial of `question`; return the denial. Raises BadBinding for a token that is
    not from this server or is for another request, ExpiredDenial for an expired token.
    """
    try:
        payload = verify_jws(unverified_token, key_for=keys.key_for, typ=(TYP,), max_bytes=MAX_TOKEN).payload
        denied = _decode(payload)
        is_it = (denied.iss, denied.aud, denied.binding_hash) == (issuer, issuer, binding_hash(question))
    except (InvalidToken, Malformed, msgspec.DecodeError):
        is_it = False
    if not is_it:
        raise BadBinding(
            "`denial.binding_token` is not of a denial of this request by this server",
            hint="send the token of the denial, with the request unchanged",
        )
    if now >= denied.exp * SECOND:
        raise ExpiredDenial("the denial has expired", hint="evaluate the request again, and use the new denial")
    return denied


def binding_hash(question: EvaluationRequest) -> str:
    """Return the hash that binds a denial to its request: base64url(SHA-256(JCS(..))) of the members that the AuthZEN
    Access Request and Approval Profile names. Raises Malformed for arguments without a canonical JSON form.
    """
    subject = msgspec.to_builtins(question.subject)
    if (properties := subject.get("properties")) is not None:
        subject["properties"] = {name: value for name, value in properties.items() if name != "act"}
    context = question.context or {}
    value: dict[str, Any] = {
        "subject": subject,
        "resource": msgspec.to_builtins(question.resource),
        "action": msgspec.to_builtins(question.action),
        "context": {name: context[name] for name in MEMBERS if name in context},
    }
    return canonical.digest(value, floats=True, max_depth=canonical.MAX_ARGUMENTS_DEPTH)


def rfc3339(seconds: int) -> str:
    """Return seconds since the epoch as RFC 3339."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
