"""Signature Version 4 of AWS: parsing of signed requests, verification of signatures, and signing."""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from hashlib import sha256

import msgspec

from ostiary.protocol.errors import Forbidden, Malformed

SERVICE = "secretsmanager"
WINDOW = 300_000_000
"""Maximum microseconds between the time in a request and the time of the server."""
ALGORITHM = "AWS4-HMAC-SHA256"
MAX_HEADERS = 32
REQUIRED = frozenset({"host", "x-amz-date", "x-amz-target"})
"""Headers that the signature must cover."""
_AUTHORIZATION = re.compile(
    rf"{ALGORITHM} Credential=([A-Z0-9]{{16,32}})/(\d{{8}})/([a-z0-9-]{{1,40}})/([a-z0-9-]{{1,40}})/aws4_request, ?"
    r"SignedHeaders=([a-z0-9;-]{1,1000}), ?Signature=([0-9a-f]{64})"
)
_DATE = re.compile(r"\d{8}T\d{6}Z")


class SignatureRefused(Forbidden):
    """The signature is missing, wrong or too old, was used before, or is for another region or service."""

    code = "signature_refused"


class SignedRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A signed request whose format, time and body hash are checked. Its signature is not verified yet
    (`has_signature_of`).
    """

    key_id: str
    day: str
    region: str
    to_sign: str
    unverified_signature: str
    signed_at: int

    def __repr__(self) -> str:
        """Return a text with only the id of the key, because the other members allow attacks on the secret key."""
        return f"SignedRequest({self.key_id})"

    def has_signature_of(self, secret: str) -> bool:
        """Return whether the signature was made with the secret key `secret`. The comparison takes constant time."""
        expected = _signature(secret, self.day, self.region, self.to_sign)
        return hmac.compare_digest(expected, self.unverified_signature)


def read_request(
    headers: Sequence[tuple[bytes, bytes]], body: bytes, *, path: str, query: str, host: str, region: str, now: int
) -> SignedRequest:
    """Check that a POST request has a well-formed signature for this host, region, service, body and time; return the
    request. Raises SignatureRefused, Malformed.
    """
    values = _single(headers)
    authorization = values.get("authorization")
    if authorization is None:
        raise SignatureRefused(
            "the request has no signature", hint=f"sign the request with {ALGORITHM}", code="no_signature"
        )
    match = _AUTHORIZATION.fullmatch(authorization)
    if match is None:
        raise SignatureRefused(
            f"the header `Authorization` is not {ALGORITHM} with `Credential`, `SignedHeaders` and `Signature`",
            hint=f"sign the request with {ALGORITHM}",
            code="incomplete_signature",
        )
    key_id, day, named_region, service, names, signature = match.groups()
    if (named_region, service) != (region, SERVICE):
        raise SignatureRefused(
            f"the credential must be scoped to {region}/{SERVICE}", hint=f"set the region of the client to {region}"
        )
    if query or "x-amz-security-token" in values:
        raise SignatureRefused("query parameters and session tokens are not supported")
    signed = names.split(";")
    if signed != sorted(set(signed)) or len(signed) > MAX_HEADERS or not set(values) >= set(signed) >= REQUIRED:
        raise SignatureRefused(f"the signature must cover the headers {', '.join(sorted(REQUIRED))}")
    if values["host"].lower() != host.lower():
        raise SignatureRefused(f"the request is signed for another host than {host}")
    date = values["x-amz-date"]
    signed_at = _parse_date(date)
    if not date.startswith(day) or abs(signed_at - now) > WINDOW:
        raise SignatureRefused(
            "the signature has expired, or is not valid yet", hint="check the clock of the client", code="skewed"
        )
    digest = sha256(body).hexdigest()
    if not hmac.compare_digest(values.get("x-amz-content-sha256", digest).encode(), digest.encode()):
        raise SignatureRefused("`x-amz-content-sha256` is not the hash of the body")
    scope = f"{day}/{region}/{SERVICE}/aws4_request"
    return SignedRequest(
        key_id=key_id,
        day=day,
        region=region,
        to_sign=_text_to_sign(values, signed, path=path, digest=digest, date=date, scope=scope),
        unverified_signature=signature,
        signed_at=signed_at,
    )


def sign_request(
    body: bytes,
    *,
    media_type: str,
    host: str,
    region: str,
    key_id: str,
    secret: str,
    now: int,
    target: str = "",
    service: str = SERVICE,
) -> dict[str, str]:
    """Return the headers of a signed POST request to the path `/`. `now`: microseconds since the epoch.

    `target`: the action of a JSON API. A Query API has the action in the body, so `target` is empty.
    """
    date = datetime.fromtimestamp(now // 1_000_000, UTC).strftime("%Y%m%dT%H%M%SZ")
    values = {"content-type": media_type, "host": host, "x-amz-date": date}
    if target:
        values["x-amz-target"] = target
    names = ";".join(values)
    scope = f"{date[:8]}/{region}/{service}/aws4_request"
    text = _text_to_sign(values, list(values), path="/", digest=sha256(body).hexdigest(), date=date, scope=scope)
    signature = _signature(secret, date[:8], region, text, service)
    credential = f"{key_id}/{scope}"
    authorization = f"{ALGORITHM} Credential={credential}, SignedHeaders={names}, Signature={signature}"
    return {**values, "authorization": authorization}


def _signature(secret: str, day: str, region: str, to_sign: str, service: str = SERVICE) -> str:
    key = f"AWS4{secret}".encode()
    for part in (day, region, service, "aws4_request"):
        key = hmac.digest(key, part.encode(), sha256)
    return hmac.digest(key, to_sign.encode(), sha256).hex()


def _single(headers: Sequence[tuple[bytes, bytes]]) -> dict[str, str]:
    values: dict[str, str] = {}
    for name, value in headers:
        text = name.decode("latin-1").lower()
        if text in values and (text in REQUIRED or text in ("authorization", "content-type")):
            raise Malformed(f"the header `{text}` was sent more than once")
        values[text] = " ".join(value.decode("latin-1").split())
    return values


def _parse_date(text: str) -> int:
    if not _DATE.fullmatch(text):
        raise SignatureRefused("`X-Amz-Date` is not a time such as 20261129T120000Z")
    try:
        at = datetime.strptime(text, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        raise SignatureRefused("`X-Amz-Date` is not a time such as 20261129T120000Z") from None
    return int(at.timestamp()) * 1_000_000


def _text_to_sign(
    values: Mapping[str, str], signed: Sequence[str], *, path: str, digest: str, date: str, scope: str
) -> str:
    canonical = "\n".join(
        ["POST", path, "", *(f"{name}:{values[name]}" for name in signed), "", ";".join(signed), digest]
    )
    hashed = sha256(canonical.encode("latin-1", "replace")).hexdigest()
    return "\n".join([ALGORITHM, date, scope, hashed])
