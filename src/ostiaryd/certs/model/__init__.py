"""The data types and rules of certificates: names, keys, requests, profiles, authorities, and X.509 encodings."""

from ostiaryd.certs.model.authority import (
    SECOND,
    Authority,
    AuthorityId,
    AuthorityKind,
    AuthorityState,
    instant,
    microseconds,
)
from ostiaryd.certs.model.certificate import (
    HOLDING,
    Certificate,
    CertificateRequest,
    IssuedCertificate,
    RevocationReason,
    holding_id,
    parse_serial,
    serial_text,
    thumbprint,
)
from ostiaryd.certs.model.keys import (
    KEY_TYPES,
    BadKey,
    check_key,
    encode_public_key,
    generate_key,
    key_digest,
    parse_public_key,
)
from ostiaryd.certs.model.names import CertificateName, NameKind, make_name, parse_name
from ostiaryd.certs.model.profiles import ForeignName, Profile
from ostiaryd.certs.model.requests import BadRequest, CertificateSigningRequest, parse_csr, read_csr

__all__ = [
    "HOLDING",
    "KEY_TYPES",
    "SECOND",
    "Authority",
    "AuthorityId",
    "AuthorityKind",
    "AuthorityState",
    "BadKey",
    "BadRequest",
    "Certificate",
    "CertificateName",
    "CertificateRequest",
    "CertificateSigningRequest",
    "ForeignName",
    "IssuedCertificate",
    "NameKind",
    "Profile",
    "RevocationReason",
    "check_key",
    "encode_public_key",
    "generate_key",
    "holding_id",
    "instant",
    "key_digest",
    "make_name",
    "microseconds",
    "parse_csr",
    "parse_name",
    "parse_public_key",
    "parse_serial",
    "read_csr",
    "serial_text",
    "thumbprint",
]
