"""Certificate signing requests (PKCS #10, RFC 2986): parsing, and all checks that need no database."""

from __future__ import annotations

import re
from binascii import a2b_base64
from collections.abc import Callable
from functools import partial
from hashlib import sha256, sha384, sha512
from typing import TypeVar

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.x509.oid import ExtensionOID, NameOID, PublicKeyAlgorithmOID, SignatureAlgorithmOID

from ostiary.protocol.errors import Invalid, Malformed
from ostiaryd.certs.model.keys import (
    EC_CURVES,
    BadKey,
    CheckedKey,
    check_public_key,
    curve_of,
    encode_public_key,
)
from ostiaryd.certs.model.names import CertificateName, NameKind, check_count, lower_ascii, make_name, read_names

T = TypeVar("T")
MAX_CSR_BYTES = 16 << 10
MAX_PEM = 32 << 10
"""Maximum number of characters of a certificate signing request in PEM."""
_PEM = re.compile("-----BEGIN ((?:NEW )?CERTIFICATE REQUEST)-----([^-]*)-----END \\1-----")
_HASHES = ("sha256", "sha384", "sha512")
_WRONG_SIGNATURE = "the signature of the request does not match its public key"
_UNDERSTOOD = frozenset(
    {
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.SUBJECT_KEY_IDENTIFIER,
    }
)
_EXTENSION_LISTS = frozenset({"1.2.840.113549.1.9.14", "1.3.6.1.4.1.311.2.1.14"})
"""The attributes of a request that contain its extensions: extensionRequest (RFC 2985 section 5.4.2), and that of
Microsoft.
"""


class BadRequest(Invalid):
    """The certificate signing request is malformed, or requests a property that this server never certifies."""

    code = "bad_csr"


class CertificateSigningRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A certificate signing request that passed the checks: the public key (SubjectPublicKeyInfo in DER), whose private
    key signed the request, the names, and the subject of the request.
    """

    public_key: bytes
    key_type: str
    names: tuple[CertificateName, ...]
    subject: x509.Name


def read_csr(text: str) -> bytes:
    """Return the content of the only block of a PEM text (RFC 7468 section 7), which `parse_csr` reads. Raises
    Malformed for other text.
    """
    if len(text) > MAX_PEM:
        raise Malformed(f"`csr` is over {MAX_PEM} characters")
    if (blocks := text.count("-----BEGIN ")) > 1:
        raise Malformed(f"`csr` has {blocks} blocks of PEM", hint="send the certificate request alone, never a key")
    refusal = Malformed("`csr` is not a certificate request in PEM", hint="make a request with `openssl req -new`")
    if (block := _PEM.search(text)) is None:
        raise refusal
    try:
        return a2b_base64("".join(block[2].split()), strict_mode=True)
    except ValueError:
        raise refusal from None


def parse_csr(der: bytes, *, may_be_authority: bool = False) -> CertificateSigningRequest:
    """Return the checked content of a certificate signing request (DER). The signature proves that the sender has the
    private key.

    Refused are: a wrong signature, a signature with an obsolete hash, a weak or bad key, a request for a CA
    certificate, an unknown critical extension, a second list of extensions, and names of unsupported kinds. If the
    common name in the subject is a host name, it counts as a name. The rest of the subject and the requested usages are
    ignored, since the profile states the usages.

    `may_be_authority`: accept a request for a CA certificate, whose common name does not count as a name. Raises
    BadRequest for a malformed request or an unsupported extension, BadKey for a key that is weak, known to be bad, or
    of a type that is not certified.
    """
    if len(der) > MAX_CSR_BYTES:
        raise BadRequest(f"the request is over {MAX_CSR_BYTES} bytes")
    csr = _read("the request is not a PKCS #10 request in DER", lambda: x509.load_der_x509_csr(der))
    content = csr.tbs_certrequest_bytes
    unverified_key, rest = _divide(content)
    public_key = unverified_key if curve_of(unverified_key) is not None else _read_key(csr)
    checked = check_public_key(public_key)
    _check_signature(csr, checked)
    key_type = checked.key_type
    if rest == _BARE:
        return CertificateSigningRequest(public_key=public_key, key_type=key_type, names=(), subject=_NO_SUBJECT)
    extensions = _read("the extensions of the request cannot be read", lambda: csr.extensions)
    attributes = _read("the attributes of the request cannot be read", lambda: csr.attributes)
    if sum(attribute.oid.dotted_string in _EXTENSION_LISTS for attribute in attributes) > 1:
        raise BadRequest("the request has more than one list of extensions, and programs differ on which list counts")
    for extension in extensions:
        if extension.critical and extension.oid not in _UNDERSTOOD:
            raise BadRequest(f"the critical extension {extension.oid.dotted_string} is not understood")
        if isinstance(extension.value, x509.BasicConstraints) and extension.value.ca and not may_be_authority:
            raise BadRequest("the request is for the certificate of an authority, which this route does not issue")
    subject = _read(
        "the subject of the request cannot be read",
        lambda: csr.subject,
        hint="encode the subject in UTF-8 (`string_mask = utf8only` in a configuration of OpenSSL)",
    )
    try:
        names = () if may_be_authority else _names(subject, extensions)
        return CertificateSigningRequest(public_key=public_key, key_type=key_type, names=names, subject=subject)
    except BadKey:
        raise
    except Invalid as error:
        raise BadRequest(error.message, hint=error.hint) from None


_NO_SUBJECT = x509.Name([])
_BARE = bytes.fromhex("0201003000a000")
"""The version, the subject and the attributes of a request that states neither names nor extensions."""


def _divide(content: bytes) -> tuple[bytes, bytes]:
    """Return the public key (SubjectPublicKeyInfo), and all other members, of the CertificationRequestInfo in
    `content`, which the parser of the library has accepted: version, subject, key and attributes (RFC 2986 section 4).
    """
    version = 2 + max(content[1] - 0x80, 0)
    key = _end_of(content, _end_of(content, version))
    end = _end_of(content, key)
    return content[key:end], content[version:key] + content[end:]


def _end_of(der: bytes, begin: int) -> int:
    """Return the end of the element of DER that begins at `begin`."""
    length, content = der[begin + 1], begin + 2
    if length < 0x80:
        return content + length
    more = content + length - 0x80
    return more + int.from_bytes(der[content:more])


def _read_key(csr: x509.CertificateSigningRequest) -> bytes:
    key = _read("the public key of the request cannot be read", csr.public_key)
    # a certificate of the key would not limit the key to PSS
    if csr.public_key_algorithm_oid == PublicKeyAlgorithmOID.RSASSA_PSS:  # type: ignore[attr-defined]
        raise BadKey("keys for RSASSA-PSS alone are not certified", hint="make an RSA key without this limit")
    return _read("the public key cannot be read", lambda: encode_public_key(key))  # type: ignore[arg-type]


_ECDSA = {
    SignatureAlgorithmOID.ECDSA_WITH_SHA256: (sha256, ec.ECDSA(Prehashed(hashes.SHA256()))),
    SignatureAlgorithmOID.ECDSA_WITH_SHA384: (sha384, ec.ECDSA(Prehashed(hashes.SHA384()))),
    SignatureAlgorithmOID.ECDSA_WITH_SHA512: (sha512, ec.ECDSA(Prehashed(hashes.SHA512()))),
}


def _check_signature(csr: x509.CertificateSigningRequest, key: CheckedKey) -> None:
    """Check that `key`, the public key of the request, made its signature. Raises BadRequest otherwise.

    An ECDSA signature is verified with the parsed key: `is_signature_valid` would parse the key again and search for
    its kind, which takes a quarter of the time of the verification.
    """
    if key.key_type in EC_CURVES and (scheme := _ECDSA.get(csr.signature_algorithm_oid)) is not None:
        digest, ecdsa = scheme
        try:
            key.parsed.verify(csr.signature, digest(csr.tbs_certrequest_bytes).digest(), ecdsa)  # type: ignore[call-arg, arg-type]
        except InvalidSignature:
            raise BadRequest(_WRONG_SIGNATURE) from None
        return

    def is_valid() -> bool:
        algorithm = csr.signature_hash_algorithm
        if algorithm is not None and algorithm.name not in _HASHES:
            raise BadRequest(f"the signature uses {algorithm.name}", hint="use SHA-256 or a longer hash")
        return csr.is_signature_valid

    if not _read("the algorithm of the signature is not supported", is_valid):
        raise BadRequest(_WRONG_SIGNATURE)


def _names(subject: x509.Name, extensions: x509.Extensions) -> tuple[CertificateName, ...]:
    names: tuple[CertificateName, ...] = ()
    for extension in extensions:
        if isinstance(extension.value, x509.SubjectAlternativeName):
            names = _read("the names of the request cannot be read", partial(read_names, extension.value))
    for attribute in subject.get_attributes_for_oid(NameOID.COMMON_NAME):
        text = lower_ascii(str(attribute.value))
        if "." in text and " " not in text and all(name.value != text for name in names):
            last = text.rpartition(".")[2]
            names = (*names, make_name(NameKind.IP if last.isdigit() else NameKind.DNS, text))
    return check_count(names)


def _read(message: str, read: Callable[[], T], *, hint: str = "") -> T:
    """Return the result of `read`. Raises BadRequest with `message` if the X.509 parser rejects the input."""
    try:
        return read()
    except Invalid:
        raise
    except Exception:  # noqa: BLE001 because the errors of the library have no class in common
        raise BadRequest(message, hint=hint) from None
