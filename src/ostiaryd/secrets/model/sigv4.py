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
_PARTS = {
    "Credential": re.compile(r"([A-Z0-9]{16,32})/(\d{8})/([a-z0-9-]{1,40})/([a-z0-9-]{1,40})/aws4_request", re.ASCII),
    "SignedHeaders": re.compile(r"([a-z0-9;_-]{1,1000})"),
    "Signature": re.compile(r"([0-9a-f]{64})"),
}
"""The parts of the header `Authorization`, which can have any order."""
_SPACES = re.compile(r"[ \t]+")
_DATE = re.compile(r"\d{8}T\d{6}Z")


class SignatureRefused(Forbidden):
    """The signature (AWS Signature Version 4) is missing, wrong, too old or too new, was used before, or is for another
    host, region or service.
    """

    code = "signature_refused"


class SignatureMissing(SignatureRefused):
    """The request has no signature in the header `Authorization`."""

    code = "no_signature"


class SignatureIncomplete(SignatureRefused):
    """The header `Authorization` does not have the parts of a signature."""

    code = "incomplete_signature"


class RequestRepeated(SignatureRefused):
    """A request that changes something was sent before. An SDK that signs the request again, a second later, succeeds;
    so the server answers with the AWS error `ThrottlingException`, after which SDKs try again.
    """

    code = "request_repeated"


class SignedRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A signed request whose format, time and body hash are checked. Its signature is not verified yet
    (`has_signature_of`). `signed_at`: microseconds since the epoch.
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
    request. The signature itself is not verified here (`has_signature_of`). Raises SignatureRefused if the signature is
    missing, malformed, too old or too new, or for another host, region, service or body, and for query parameters or a
    session token; Malformed if `Authorization`, `Content-Type` or one of `REQUIRED` was sent more than once.
    """
    values = _canonical(headers)
    authorization = values.get("authorization")
    if authorization is None:
        raise SignatureMissing(
            "the request has no header `Authorization` with a signature", hint=f"sign the request with {ALGORITHM}"
        )
    key_id, day, named_region, service, names, signature = _parse_authorization(authorization)
    if (named_region, service) != (region, SERVICE):
        raise SignatureRefused(
            f"the credential must be scoped to {region}/{SERVICE}", hint=f"set the region of the client to {region}"
        )
    if query:
        raise SignatureRefused("query parameters are not supported", hint="send a POST request to the path alone")
    if "x-amz-security-token" in values:
        raise SignatureRefused(
            "session tokens are not supported", hint="unset AWS_SESSION_TOKEN: an access key of the server has none"
        )
    signed = names.split(";")
    if signed != sorted(set(signed)) or len(signed) > MAX_HEADERS or not set(values) >= set(signed) >= REQUIRED:
        raise SignatureRefused(
            f"`SignedHeaders` must name at most {MAX_HEADERS} headers of the request, sorted, among them"
            f" {', '.join(sorted(REQUIRED))}"
        )
    if values["host"].lower() != host.lower():
        raise SignatureRefused(f"the request is signed for another host than {host}")
    date = values["x-amz-date"]
    signed_at = _parse_date(date)
    if not date.startswith(day):
        raise SignatureRefused(f"the credential is scoped to {day}, which is not the day of `X-Amz-Date`, {date}")
    if abs(signed_at - now) > WINDOW:
        is_old, minutes = signed_at < now, WINDOW // 60_000_000
        problem = "expired" if is_old else "not yet current"
        relation = "now earlier" if is_old else "still later"
        limit = render_date(now - WINDOW if is_old else now + WINDOW)
        raise SignatureRefused(
            f"Signature {problem}: {date} is {relation} than {limit} "
            f"({render_date(now)} {'-' if is_old else '+'} {minutes} min.).",
            hint="check the clock of the client",
            code="skewed",
        )
    digest = sha256(body).hexdigest()
    if not hmac.compare_digest(values.get("x-amz-content-sha256", digest).encode(), digest.encode()):
        raise SignatureRefused(
            "`x-amz-content-sha256` is not the hash of the body", hint="sign the body exactly as it is sent"
        )
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
    """Return the headers of a POST request to the path `/`, signed with AWS Signature Version 4. `now`: microseconds
    since the epoch.

    `target`: the action of a JSON API. A Query API has the action in the body, so `target` is empty.
    """
    date = render_date(now)
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


def render_date(at: int) -> str:
    """Return a time, in microseconds since the epoch, in the form of `X-Amz-Date`."""
    return datetime.fromtimestamp(at // 1_000_000, UTC).strftime("%Y%m%dT%H%M%SZ")


def _parse_authorization(authorization: str) -> list[str]:
    """Return the id of the key, the day, the region, the service, the names of the signed headers, and the signature.
    Raises SignatureIncomplete for other text.
    """
    algorithm, _, rest = authorization.partition(" ")
    parts = [part.strip().partition("=") for part in rest.split(",")]
    named = {name: value for name, _, value in parts}
    matches = [pattern.fullmatch(named.get(name, "")) for name, pattern in _PARTS.items()]
    if algorithm != ALGORITHM or len(parts) != len(_PARTS) or None in matches:
        raise SignatureIncomplete(
            f"the header `Authorization` is not {ALGORITHM} with `Credential`, `SignedHeaders` and `Signature`",
            hint=f"sign the request with {ALGORITHM}",
        )
    return [group for match in matches if match is not None for group in match.groups()]


def _signature(secret: str, day: str, region: str, to_sign: str, service: str = SERVICE) -> str:
    key = f"AWS4{secret}".encode()
    for part in (day, region, service, "aws4_request"):
        key = hmac.digest(key, part.encode(), sha256)
    return hmac.digest(key, to_sign.encode(), sha256).hex()


def _canonical(headers: Sequence[tuple[bytes, bytes]]) -> dict[str, str]:
    """Return the canonical values of headers: without spaces at both ends and in a row, and with commas between the
    values of a header that was sent more than once. Raises Malformed for a header that must be sent once.
    """
    values: dict[str, str] = {}
    for name, value in headers:
        text, canonical = name.decode("latin-1").lower(), _SPACES.sub(" ", value.decode("latin-1")).strip(" ")
        if text in values and (text in REQUIRED or text in ("authorization", "content-type")):
            raise Malformed(f"the header `{text}` was sent more than once")
        values[text] = f"{values[text]},{canonical}" if text in values else canonical
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
