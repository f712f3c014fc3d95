"""SPIFFE IDs and names of trust domains (SPIFFE-ID sections 2.1 to 2.4).

This module is stricter than section 2.4: the scheme and the trust domain must be in lower case, so that each identity
has only one spelling.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from ostiary.protocol.errors import Invalid

SPIFFE = "spiffe://"
MAX_SPIFFE_ID = 2048
_TRUST_DOMAIN = re.compile(r"[a-z0-9._-]{1,255}")
_SEGMENT = re.compile(r"[A-Za-z0-9._-]+")


class SpiffeId(NamedTuple):
    """A SPIFFE ID: trust domain and path. If the path is empty, the SPIFFE ID identifies the trust domain itself."""

    trust_domain: str
    path: str

    def __str__(self) -> str:
        return f"spiffe://{self.trust_domain}{self.path}"


def check_trust_domain(name: str) -> str:
    """Return `name` if it is a valid name of a trust domain. Raises Invalid otherwise."""
    if not _TRUST_DOMAIN.fullmatch(name):
        raise Invalid(
            f"the trust domain {name[:64]!a} must have 1 to 255 characters of a-z, 0-9, `.`, `-` and `_`",
            hint="write a trust domain as example.org, without `spiffe://`",
        )
    return name


def parse_spiffe_id(text: str) -> SpiffeId:
    """Return a SPIFFE ID from its text. Raises Invalid for other text."""
    name, slash, path = text.removeprefix(SPIFFE).partition("/")
    if not text.startswith(SPIFFE) or len(text) > MAX_SPIFFE_ID:
        message = f"the SPIFFE ID {text[:64]!a} must begin with {SPIFFE} and have at most {MAX_SPIFFE_ID} bytes"
        raise Invalid(message, hint="write spiffe://DOMAIN/PATH")
    segments = path.split("/") if slash else []
    if any(not _SEGMENT.fullmatch(segment) or segment in (".", "..") for segment in segments):
        raise Invalid(
            f"the path of the SPIFFE ID {text[:64]!a} is malformed", hint="remove empty segments, `.` and `..`"
        )
    return SpiffeId(check_trust_domain(name), slash + path)
