"""Certificate authorities of a mount: their issuers, the roles that limit certificates, and the members of requests."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any, TypeVar

import msgspec
from cryptography import x509
from cryptography.x509.oid import NameOID
from msgspec import Struct

from ostiary.protocol.errors import Forbidden, Invalid, Malformed
from ostiaryd.certs.model.authority import SIGNING_USAGE
from ostiaryd.certs.model.names import CertificateName, NameKind, check_count, decode_general_name, make_name
from ostiaryd.certs.model.profiles import Usage
from ostiaryd.secrets.model.request import SECOND, convert_members, is_set, matches_glob, parse_duration, parse_texts

T = TypeVar("T", bound=msgspec.Struct)
PKI_TYPE = "pki"
HOLDING = "mount_certificate"
"""Kind under which certificates of PKI mounts are stored as holdings."""
DEFAULT_REF = "default"
MAX_ISSUERS = 50
MAX_CHAIN = 8
MAX_PATH_LENGTH = 100
MAX_ROLES = 1_000
MAX_TEXTS = 100
MAX_TEXT = 512
MAX_COMMON_NAME = 64
CRL_EXPIRY_S = 72 * 3600
DIRECTORY = {
    "country": NameOID.COUNTRY_NAME,
    "province": NameOID.STATE_OR_PROVINCE_NAME,
    "locality": NameOID.LOCALITY_NAME,
    "street_address": NameOID.STREET_ADDRESS,
    "postal_code": NameOID.POSTAL_CODE,
    "organization": NameOID.ORGANIZATION_NAME,
    "ou": NameOID.ORGANIZATIONAL_UNIT_NAME,
}
"""Members of a request that are attributes of the subject, in the order of the subject."""
_PRINTABLE = re.compile(r"[A-Za-z0-9 '()+,./:=?-]+")
_PRINTABLE_OIDS = frozenset(
    {NameOID.COUNTRY_NAME, NameOID.DN_QUALIFIER, NameOID.JURISDICTION_COUNTRY_NAME, NameOID.SERIAL_NUMBER}
)
_ASCII_OIDS = frozenset({NameOID.DOMAIN_COMPONENT, NameOID.EMAIL_ADDRESS})
_KEY_USAGES = {
    "digitalsignature": "digital_signature",
    "contentcommitment": "content_commitment",
    "keyencipherment": "key_encipherment",
    "dataencipherment": "data_encipherment",
    "keyagreement": "key_agreement",
}
_USAGES: dict[str, Usage] = {
    "serverauth": "server",
    "clientauth": "client",
    "codesigning": "code",
    "emailprotection": "email",
}
_DURATIONS = frozenset({"ttl", "max_ttl", "not_before_duration", "expiry"})
_UNSUPPORTED = (
    "allowed_domains_template",
    "allowed_other_sans",
    "allowed_serial_numbers",
    "allowed_uri_sans_template",
    "allowed_user_ids",
    "basic_constraints_valid_for_non_ca",
    "excluded_dns_domains",
    "excluded_email_addresses",
    "excluded_ip_ranges",
    "excluded_uri_domains",
    "ext_key_usage_oids",
    "key_ref",
    "managed_key_id",
    "managed_key_name",
    "no_store",
    "not_after",
    "other_sans",
    "permitted_email_addresses",
    "permitted_ip_ranges",
    "permitted_uri_domains",
    "policy_identifiers",
    "require_matching_certificate_algorithms",
    "serial_number",
    "signature_bits",
    "skid",
    "use_pss",
    "user_ids",
)
"""Members of a request that are refused, because they would change a certificate in a way that this server does not
support.
"""


class Directory(Struct, frozen=True, kw_only=True):
    """The attributes of a certificate's subject, except the common name."""

    country: tuple[str, ...] = ()
    province: tuple[str, ...] = ()
    locality: tuple[str, ...] = ()
    street_address: tuple[str, ...] = ()
    postal_code: tuple[str, ...] = ()
    organization: tuple[str, ...] = ()
    ou: tuple[str, ...] = ()


class PkiRole(Directory, frozen=True, kw_only=True):
    """A role of a PKI mount: the names, keys, usages and lifetime of the certificates that requests by this role may
    get. Times in seconds; 0 stands for the value of the mount.

    Members and defaults are those of Vault, except `key_type`: if the server generates the key, `any` is a P-256 key.
    """

    issuer_ref: str = DEFAULT_REF
    ttl: int = 0
    max_ttl: int = 0
    not_before_duration: int = 30
    allow_localhost: bool = True
    allowed_domains: tuple[str, ...] = ()
    allow_bare_domains: bool = False
    allow_subdomains: bool = False
    allow_glob_domains: bool = False
    allow_wildcard_certificates: bool = True
    allow_any_name: bool = False
    enforce_hostnames: bool = True
    allow_ip_sans: bool = True
    allowed_uri_sans: tuple[str, ...] = ()
    server_flag: bool = True
    client_flag: bool = True
    code_signing_flag: bool = False
    email_protection_flag: bool = False
    key_type: str = "any"
    key_bits: int = 0
    key_usage: tuple[str, ...] = ("DigitalSignature", "KeyAgreement", "KeyEncipherment")
    ext_key_usage: tuple[str, ...] = ()
    use_csr_common_name: bool = True
    use_csr_sans: bool = True
    require_cn: bool = True
    generate_lease: bool = False


class CertificateOrder(Struct, frozen=True, kw_only=True):
    """The members of a request for a certificate: by a role, or by a certificate request that is signed unchanged.
    `ttl`: seconds; 0: the default.
    """

    csr: str = ""
    common_name: str = ""
    alt_names: tuple[str, ...] = ()
    ip_sans: tuple[str, ...] = ()
    uri_sans: tuple[str, ...] = ()
    exclude_cn_from_sans: bool = False
    ttl: int = 0
    format: str = "pem"
    private_key_format: str = "der"
    key_usage: tuple[str, ...] | None = None
    ext_key_usage: tuple[str, ...] | None = None


class AuthorityOrder(Directory, frozen=True, kw_only=True):
    """The members of a request for the certificate of an authority, or for its certificate request. `ttl`: seconds; 0:
    the maximum of the mount.
    """

    csr: str = ""
    use_csr_values: bool = False
    common_name: str = ""
    ttl: int = 0
    format: str = "pem"
    private_key_format: str = "der"
    key_type: str = "any"
    key_bits: int = 0
    issuer_name: str = ""
    max_path_length: int = -1
    permitted_dns_domains: tuple[str, ...] = ()
    certificate: str = ""
    pem_bundle: str = ""


class PkiSettings(Struct, frozen=True, kw_only=True):
    """The settings of a PKI mount: the URLs that certificates contain, the lifetime of revocation lists in seconds
    (`expiry`), and the default issuer.
    """

    issuing_certificates: tuple[str, ...] = ()
    crl_distribution_points: tuple[str, ...] = ()
    ocsp_servers: tuple[str, ...] = ()
    expiry: int = CRL_EXPIRY_S
    default_issuer: str = ""


class PkiIssuer(Struct, frozen=True, kw_only=True):
    """An issuer (certificate authority) of a PKI mount. `certificate` is empty while the issuer waits for its
    certificate. An issuer without a key signs nothing, and only completes the chains of other issuers. Times are
    microseconds since the epoch.
    """

    issuer_id: str
    mount: str
    name: str
    key_type: str
    key_digest: str
    certificate: bytes
    has_key: bool
    created_at: int
    revoked_at: int | None = None

    @property
    def x509(self) -> x509.Certificate:
        """Return the certificate of the issuer as a parsed object."""
        return x509.load_der_x509_certificate(self.certificate)


class PkiCertificate(Struct, frozen=True, kw_only=True):
    """A certificate that an issuer of a PKI mount has signed. `agent`: None for the issuer's own certificate.
    `not_after`: the first time at which the certificate is not valid any more. Times are microseconds since the epoch.
    """

    serial: str
    mount: str
    issuer: str
    lease: str | None
    agent: str | None
    task: str | None
    der: bytes
    not_after: int
    issued_at: int
    revoked_at: int | None = None
    why: str = ""

    @property
    def names(self) -> tuple[CertificateName, ...]:
        """Return the alternative names of the certificate."""
        extensions = x509.load_der_x509_certificate(self.der).extensions
        with suppress(x509.ExtensionNotFound):
            return tuple(
                map(decode_general_name, extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
            )
        return ()


def read_members(body: Mapping[str, Any], kind: type[T]) -> T:
    """Return the members of a body as a value of the type `kind`. A list may be a text with commas, and a number or a
    truth value may be a text, as the Vault command line sends them. Raises Invalid for a member that this server does
    not support and for a wrong duration or number of texts, Malformed for members of wrong types.
    """
    for name in _UNSUPPORTED:
        if is_set(body.get(name)):
            raise Invalid(f"`{name}` is not supported", hint=f"leave `{name}` out")
    values: dict[str, Any] = {}
    for field in msgspec.structs.fields(kind):
        value = body.get(field.name)
        if value is None:
            continue
        if field.name in _DURATIONS:
            value = parse_duration(value or 0, field=field.name) // SECOND
        elif isinstance(field.default, tuple) or field.name in ("key_usage", "ext_key_usage"):
            value = _read_texts(value, field=field.name)
        values[field.name] = value
    return convert_members(values, kind)


def _read_texts(value: object, *, field: str) -> list[str]:
    if not isinstance(value, str) and not (isinstance(value, list) and all(isinstance(one, str) for one in value)):
        raise Malformed(f"`{field}` must be a list of texts, or one text with commas between the values")
    texts = parse_texts(value, field=field)
    if len(texts) > MAX_TEXTS or any(len(one) > MAX_TEXT for one in texts):
        raise Invalid(f"`{field}` may have at most {MAX_TEXTS} texts of at most {MAX_TEXT} characters")
    return texts


def choose_key_type(kind: str, bits: int) -> str:
    """Return the type of the key to generate, from the members `key_type` (`kind`) and `key_bits` (`bits`). Raises
    Invalid if there is no such type.
    """
    if kind in ("any", "ec") and bits in (0, 256, 384):
        return f"P-{bits or 256}"
    if kind == "rsa" and bits in (0, 2048, 3072, 4096):
        return f"RSA-{bits or 2048}"
    if kind == "ed25519" and not bits:
        return "Ed25519"
    raise Invalid(
        f"there is no key of the type {kind[:32]!a} with {bits} bits",
        hint="use ec with 256 or 384, rsa with 2048, 3072 or 4096, or ed25519",
    )


def check_key_type(role: PkiRole, key_type: str) -> None:
    """Check that a role allows certificates for keys of the type `key_type` (such as `RSA-2048`), and of at least the
    role's number of bits. Raises Invalid otherwise.
    """
    kind, _, bits = key_type.partition("-")
    kind = {"P": "ec", "RSA": "rsa", "Ed25519": "ed25519"}[kind]
    if role.key_type not in ("any", kind) or (role.key_bits and bits and int(bits) < role.key_bits):
        required = f"{role.key_type} with {f'at least {role.key_bits}' if role.key_bits else 'any number of'} bits"
        raise Invalid(f"role requires keys of type {required}; the key is {key_type}")


def parse_key_usage(names: Iterable[str]) -> x509.KeyUsage:
    """Return the key usage extension for names of Vault such as `DigitalSignature`; without names, the usage for
    signatures. Raises Invalid for an unknown name, or a usage that only authorities have.
    """
    chosen: set[str] = set()
    for name in names:
        usage = _KEY_USAGES.get(name.lower().removeprefix("keyusage"))
        if usage is None:
            raise Invalid(f"the key usage {name[:64]!a} is unknown, or is only for authorities")
        chosen.add(usage)
    if not chosen:
        return SIGNING_USAGE
    rest = dict.fromkeys(("key_cert_sign", "crl_sign", "encipher_only", "decipher_only"), False)
    return x509.KeyUsage(**{usage: usage in chosen for usage in _KEY_USAGES.values()}, **rest)


def parse_usages(role: PkiRole, names: Iterable[str]) -> tuple[Usage, ...]:
    """Return the extended key usages of a certificate: the usages that the flags of the role state, and `names`. Raises
    Invalid for an unsupported name.
    """
    chosen: dict[Usage, None] = {}
    for flag, usage in (("server", "server"), ("client", "client"), ("code_signing", "code")):
        if getattr(role, f"{flag}_flag"):
            chosen[usage] = None  # type: ignore[index]
    if role.email_protection_flag:
        chosen["email"] = None
    for name in names:
        extended = _USAGES.get(name.lower().removeprefix("extkeyusage"))
        if extended is None:
            raise Invalid(f"the extended key usage {name[:64]!a} is not supported")
        chosen[extended] = None
    return tuple(chosen)


def check_role(role: PkiRole) -> PkiRole:
    """Return the role if its members are valid and fit together. Raises Invalid otherwise."""
    if role.key_type != "any":
        choose_key_type(role.key_type, role.key_bits)
    parse_key_usage(role.key_usage)
    parse_usages(role, role.ext_key_usage)
    build_subject("", role)
    if role.max_ttl and role.ttl > role.max_ttl:
        raise Invalid('"ttl" must not be greater than "max_ttl"')
    if role.not_before_duration > 3600:
        raise Invalid("`not_before_duration` must be at most an hour")
    return role


def build_subject(common_name: str, directory: Directory) -> x509.Name:
    """Return the distinguished name with this common name and these attributes. Raises Invalid for a malformed
    attribute.
    """
    attributes = [(oid, text) for name, oid in DIRECTORY.items() for text in getattr(directory, name)]
    return _build_name([*attributes, (NameOID.COMMON_NAME, common_name)] if common_name else attributes)


def rebuild_subject(subject: x509.Name) -> x509.Name:
    """Return the subject of a certificate request, with its attributes encoded in their default forms. Raises Invalid
    for a malformed attribute.
    """
    return _build_name([(one.oid, one.value if isinstance(one.value, str) else "") for one in subject])


def _build_name(attributes: Sequence[tuple[x509.ObjectIdentifier, str]]) -> x509.Name:
    for oid, text in attributes:
        check_text(text)
        if (oid in _PRINTABLE_OIDS and not _PRINTABLE.fullmatch(text)) or (oid in _ASCII_OIDS and not text.isascii()):
            raise Invalid(f"{text!a} has a character that is not allowed in this attribute of the subject")
    try:
        return x509.Name([x509.NameAttribute(oid, text) for oid, text in attributes])
    except ValueError:
        raise Invalid("an attribute of the subject has a wrong length", hint="write a country with 2 letters") from None


def check_text(text: str) -> str:
    """Return `text` if it can be an attribute of a subject: 1 to `MAX_COMMON_NAME` printable characters. Raises Invalid
    otherwise.
    """
    if not 0 < len(text) <= MAX_COMMON_NAME or not text.isprintable():
        raise Invalid(
            f"an attribute of the subject must have 1 to {MAX_COMMON_NAME} printable characters, not {text[:80]!a}"
        )
    return text


def read_common_name(subject: x509.Name) -> str:
    """Return the first common name of a subject; empty text if there is none."""
    return next((str(one.value) for one in subject.get_attributes_for_oid(NameOID.COMMON_NAME)), "")


def read_names(order: CertificateOrder, common_name: str) -> tuple[CertificateName, ...]:
    """Return the alternative names that a request states for its certificate, and, unless `exclude_cn_from_sans`, the
    common name if it is a host or a mailbox. Raises Invalid for a malformed name, or too many names.
    """
    names = [*map(parse_host, order.alt_names)]
    names += [make_name(NameKind.IP, one) for one in order.ip_sans]
    names += [make_name(NameKind.URI, one) for one in order.uri_sans]
    if common_name and not order.exclude_cn_from_sans:
        with suppress(Invalid):  # a common name that is not a host appears only in the subject
            names.insert(0, parse_host(common_name))
    return check_count(tuple(dict.fromkeys(names)))


def parse_host(text: str) -> CertificateName:
    """Return the name in a text: a host, or a mailbox. Raises Invalid for other text."""
    return make_name(NameKind.EMAIL if "@" in text else NameKind.DNS, text)


def check_common_name(role: PkiRole, common_name: str) -> None:
    """Check that a role allows a common name. Raises Invalid for a missing name if the role requires one, and for a
    name that is no host or mailbox, unless the role allows any name without `enforce_hostnames`; Forbidden for a name
    that the role does not allow.
    """
    if not common_name:
        if role.require_cn:
            raise Invalid(
                'the common_name field is required, or must be provided in a CSR with "use_csr_common_name" set to true'
            )
        return
    check_text(common_name)
    try:
        name = parse_host(common_name)
    except Invalid:
        if role.enforce_hostnames or not role.allow_any_name:
            raise
        return
    check_names(role, [name])


def check_names(role: PkiRole, names: Sequence[CertificateName]) -> None:
    """Check that a role of a PKI mount allows all these names. Raises Forbidden otherwise."""
    for name in names:
        match name.kind:
            case NameKind.IP:
                is_allowed = role.allow_ip_sans
            case NameKind.URI:
                is_allowed = any(matches_glob(pattern, name.value) for pattern in role.allowed_uri_sans)
            case NameKind.DNS | NameKind.EMAIL:
                is_allowed = _is_host_allowed(role, name)
        if not is_allowed:
            raise Forbidden(f"{str(name)[:300]} is not allowed by this role", code="foreign_name")


def _is_host_allowed(role: PkiRole, name: CertificateName) -> bool:
    host = name.value.rpartition("@")[2]
    if name.is_wildcard and not role.allow_wildcard_certificates:
        return False
    if role.allow_any_name:
        return True
    own = [domain.lower() for domain in role.allowed_domains]
    below = own + (["localhost", "localdomain"] if role.allow_localhost else [])
    if role.allow_localhost and host in ("localhost", "localdomain"):
        return True
    return (
        (role.allow_bare_domains and (host in own or name.value in own))
        or (role.allow_subdomains and any(host.endswith(f".{domain}") for domain in below))
        or (role.allow_glob_domains and any("*" in one and matches_glob(one, host) for one in own))
    )


def render_serial(serial: str) -> str:
    """Return a serial number as Vault shows it: pairs of hexadecimal digits with colons between them."""
    digits = serial.lstrip("0") or "0"
    digits = digits.zfill(len(digits) + len(digits) % 2)
    return ":".join(digits[place : place + 2] for place in range(0, len(digits), 2))


@lru_cache(maxsize=64)
def find_chain(certificate: bytes, every: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """Return a certificate, followed by the certificates of the authorities above it that `every` contains.

    The result is cached, because clients without a token can request chains, and each chain takes up to `MAX_CHAIN *
    MAX_ISSUERS` verifications.
    """
    parsed = {der: x509.load_der_x509_certificate(der) for der in (certificate, *every)}
    chain = [certificate]
    while len(chain) < MAX_CHAIN:
        others = (der for der in every if der not in chain)
        above = next((der for der in others if is_issued_by(parsed[chain[-1]], parsed[der])), None)
        if above is None:
            break
        chain.append(above)
    return tuple(chain)


def is_issued_by(certificate: x509.Certificate, parent: x509.Certificate) -> bool:
    """Return whether the parent has issued the certificate: its issuer is the parent's subject, and the parent's key
    verifies its signature.
    """
    try:
        certificate.verify_directly_issued_by(parent)
    except Exception:  # noqa: BLE001 because the errors of the library have no class in common
        return False
    return True
