"""CAA records (RFC 8659): the check that the owner of a domain permits this authority, with the parameters of
RFC 8657.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from ostiaryd.certs.model.acme import AcmeRefused

CRITICAL = 128
"""flag of a CAA record: an authority that does not know the record's tag must not issue"""
_KNOWN = frozenset({"issue", "issuewild", "iodef", "issuemail", "issuevmc", "contactemail", "contactphone"})
_LABEL = "[a-z0-9](?:[a-z0-9-]*[a-z0-9])?"
_DOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_PARAMETER = re.compile(r"([a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)[ \t]*=[ \t]*([\x21-\x3a\x3c-\x7e]*)")


class CaaRecord(NamedTuple):
    """A CAA record (RFC 8659 section 4.1)."""

    flags: int
    tag: str
    value: str


class IssuerValue(NamedTuple):
    """The value of an `issue` or `issuewild` property: the domain name of an authority, and the parameters."""

    domain: str
    parameters: dict[str, str]


def domains_above(host: str) -> list[str]:
    """Return a host and each domain above it, in the order in which CAA records are looked up (RFC 8659 section 3)."""
    labels = host.split(".")
    return [".".join(labels[start:]) for start in range(len(labels))]


def check_caa(
    records: Sequence[CaaRecord], *, is_wildcard: bool, domains: frozenset[str], account_url: str, method: str
) -> None:
    """Check that the CAA records permit this authority to certify a name. Raises AcmeRefused (`caa`) otherwise.

    `records` are the records of the closest domain that has any. `domains` are the domain names by which CAA records
    name this authority; `account_url` is the URL of the ACME account, and `method` the type of the challenge, which a
    record can demand (RFC 8657).
    """
    tags = [(record, record.tag.lower()) for record in records]
    for record, tag in tags:
        if record.flags & CRITICAL and tag not in _KNOWN:
            raise AcmeRefused("caa", f"a critical CAA record has the unknown tag {tag[:32]!a}", status=403)
    named = [record for record, tag in tags if tag == "issuewild"] if is_wildcard else []
    named = named or [record for record, tag in tags if tag == "issue"]
    if named and not any(_permits(parse_issuer(record.value), domains, account_url, method) for record in named):
        hint = f'add a CAA record such as 0 issue "{min(domains, default="")}"'
        raise AcmeRefused("caa", "the CAA records of the name do not permit this authority", status=403, hint=hint)


def parse_issuer(value: str) -> IssuerValue | None:
    """Return the parts of the value of an `issue` property (RFC 8659 section 4.2); None for a malformed value, which
    permits no authority.
    """
    domain, *rest = (part.strip(" \t") for part in value.split(";"))
    if domain and not _DOMAIN.fullmatch(domain.lower()):
        return None
    parameters = dict[str, str]()
    for part in rest:
        match = _PARAMETER.fullmatch(part)
        if match is None and part:
            return None
        if match is not None:
            tag = match[1].lower()
            if tag in parameters:
                return None
            parameters[tag] = match[2]
    return IssuerValue(domain.lower(), parameters)


def _permits(issuer: IssuerValue | None, domains: frozenset[str], account_url: str, method: str) -> bool:
    """Return whether a property permits this authority, with this account and this validation method (RFC 8657)."""
    if issuer is None or issuer.domain not in domains:
        return False
    if issuer.parameters.get("accounturi", account_url) != account_url:
        return False
    return method in issuer.parameters.get("validationmethods", method).split(",")
