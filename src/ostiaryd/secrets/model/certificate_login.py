"""Logins by client certificates: the roles of a cert method (HashiCorp Vault, "TLS certificate auth method (API)")."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from cryptography import x509
from cryptography.x509.oid import NameOID

from ostiary.protocol.certificate import load_pem_certificates
from ostiary.protocol.errors import Invalid, Malformed
from ostiaryd.secrets.model.request import matches_glob

MAX_ANCHORS = 8
"""Maximum number of certificates of a role."""
MAX_NAMES = 64
"""Maximum number of patterns in each list of a role."""
MAX_TEXT = 1024
LISTS = (
    "allowed_names",
    "allowed_common_names",
    "allowed_dns_sans",
    "allowed_email_sans",
    "allowed_uri_sans",
    "allowed_organizational_units",
)
"""The members of a role that are lists of patterns."""


class CertificateRole(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of a role of a cert login method that determine which client certificates it accepts. `certificate`:
    the certificates of the accepted authorities, or of the clients themselves, in PEM. Each list contains patterns, in
    which `*` stands for any text; an empty list accepts any name.
    """

    certificate: str = ""
    display_name: str = ""
    allowed_names: list[str] = []
    allowed_common_names: list[str] = []
    allowed_dns_sans: list[str] = []
    allowed_email_sans: list[str] = []
    allowed_uri_sans: list[str] = []
    allowed_organizational_units: list[str] = []

    @property
    def anchors(self) -> list[x509.Certificate]:
        """Return the trust anchors of the role: a client certificate must be issued below one of them, or be one of
        them. Raises Malformed if they cannot be read.
        """
        return load_pem_certificates(self.certificate)


def check_role(role: CertificateRole) -> None:
    """Check the settings of a role of a cert login method. Raises Invalid if its certificates cannot be read, or a list
    is too long.
    """
    try:
        count = len(role.anchors)
    except Malformed:
        count = 0
    if not 1 <= count <= MAX_ANCHORS:
        raise Invalid(
            "failed to parse certificate", hint=f"`certificate` must have 1 to {MAX_ANCHORS} certificates in PEM"
        )
    for name in LISTS:
        texts = getattr(role, name)
        if len(texts) > MAX_NAMES or any(len(one) > MAX_TEXT for one in texts):
            raise Invalid(f"`{name}` may have at most {MAX_NAMES} patterns, each of at most {MAX_TEXT} characters")


def admits(role: CertificateRole, certificate: x509.Certificate) -> bool:
    """Return whether a role accepts the names of a certificate: for each list of patterns that is not empty, a name of
    that kind in the certificate matches a pattern. The chain of the certificate is not checked here.
    """
    common = _attributes(certificate, NameOID.COMMON_NAME)
    dns = _alternatives(certificate, x509.DNSName)
    emails = _alternatives(certificate, x509.RFC822Name)
    uris = _alternatives(certificate, x509.UniformResourceIdentifier)
    units = _attributes(certificate, NameOID.ORGANIZATIONAL_UNIT_NAME)
    lists = (
        (role.allowed_names, [*common, *dns, *emails]),
        (role.allowed_common_names, common),
        (role.allowed_dns_sans, dns),
        (role.allowed_email_sans, emails),
        (role.allowed_uri_sans, uris),
        (role.allowed_organizational_units, units),
    )
    return all(not patterns or _any_matches(patterns, names) for patterns, names in lists)


def common_name(certificate: x509.Certificate) -> str:
    """Return the common name in the subject of a certificate; an empty text if there is none, or more than one."""
    names = _attributes(certificate, NameOID.COMMON_NAME)
    return names[0][:MAX_TEXT] if len(names) == 1 else ""


def describe(certificate: x509.Certificate) -> dict[str, str]:
    """Return the metadata that the token of a login by this certificate gets: its common name, serial number and key
    ids.
    """
    return {
        "common_name": common_name(certificate),
        "serial_number": str(certificate.serial_number),
        "subject_key_id": _key_id(certificate).hex(":"),
        "authority_key_id": _authority_key_id(certificate).hex(":"),
    }


def _attributes(certificate: x509.Certificate, kind: x509.ObjectIdentifier) -> list[str]:
    return [str(one.value) for one in certificate.subject.get_attributes_for_oid(kind)]


def _alternatives(
    certificate: x509.Certificate, kind: type[x509.DNSName | x509.RFC822Name | x509.UniformResourceIdentifier]
) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return names.get_values_for_type(kind)


def _any_matches(patterns: Iterable[str], names: list[str]) -> bool:
    return any(matches_glob(pattern, name) for pattern in patterns for name in names)


def _key_id(certificate: x509.Certificate) -> bytes:
    try:
        return certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    except x509.ExtensionNotFound:
        return b""


def _authority_key_id(certificate: x509.Certificate) -> bytes:
    try:
        identifier = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    except x509.ExtensionNotFound:
        return b""
    return identifier.key_identifier or b""
