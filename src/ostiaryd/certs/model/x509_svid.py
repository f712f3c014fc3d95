"""Check of a server's X509-SVID (X509-SVID sections 4.3 and 5.2). The TLS handshake has already validated the chain."""

from __future__ import annotations

from cryptography import x509

from ostiary.protocol.certificate import load_certificate
from ostiary.protocol.errors import Invalid, Malformed
from ostiaryd.certs.model.spiffe_id import SpiffeId


def check_x509_svid(unverified_der: bytes, spiffe_id: SpiffeId) -> None:
    """Check that a certificate is an end-entity X509-SVID with the expected SPIFFE ID. Raises Invalid otherwise."""
    try:
        extensions = load_certificate(unverified_der).extensions
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        usage = extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        raise Invalid("the certificate is not an X509-SVID: alternative names or key usage are missing") from None
    except (Malformed, ValueError):
        raise Invalid("the certificate cannot be read") from None
    try:
        is_authority = extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        is_authority = False
    if is_authority or usage.key_cert_sign or usage.crl_sign:
        raise Invalid("the server presents the certificate of an authority, not an X509-SVID")
    if not usage.digital_signature:
        raise Invalid("the certificate is not an X509-SVID: its key usage lacks `digitalSignature`")
    if names.get_values_for_type(x509.UniformResourceIdentifier) != [str(spiffe_id)]:
        raise Invalid(f"the server does not present the SPIFFE ID {spiffe_id}", code="foreign_spiffe_id")
