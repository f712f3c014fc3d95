"""SAML identity providers: one of another project (samlify), and responses that a test can make wrong, signed by
signxml.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from lxml import etree
from signxml.algorithms import SignatureMethod
from signxml.signer import XMLSigner

from harness.patience import PATIENCE_S
from tests.support.node import NODE

IDP, SSO = "https://idp.example/saml", "https://idp.example/sso?tenant=corp"
SAML = "{urn:oasis:names:tc:SAML:2.0:assertion}"
PROTOCOL = "{urn:oasis:names:tc:SAML:2.0:protocol}"
XMLNS = 'xmlns:samlp="urn:oasis:names:tc:SAML:2.0:protocol" xmlns:saml="urn:oasis:names:tc:SAML:2.0:assertion"'


@cache
def key_pair(number: int) -> tuple[str, str]:
    """Private key and certificate in PEM. The certificate has expired: the key is pinned, not the dates."""
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"idp {number}")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(number + 1)
        .not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2021, 1, 1, tzinfo=UTC))
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    return pem, certificate.public_bytes(Encoding.PEM).decode()


def instant(seconds: float) -> str:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def unsigned(*, at: int, acs: str, audience: str, request: str, **changed: Any) -> etree._Element:
    """Return a response with a valid assertion, with the given parts replaced."""
    good: dict[str, Any] = {
        "issuer": IDP,
        "sub": "u-1",
        "format": "urn:oasis:names:tc:SAML:2.0:nameid-format:persistent",
        "recipient": acs,
        "in_response_to": request,
        "audience": audience,
        "not_before": at,
        "ends": at + 300,
        "confirmed_until": at + 300,
        "authenticated_at": at,
        "groups": ("ops",),
        "destination": acs,
        "id": "_assertion",
        "response_to": request,
        "status": "urn:oasis:names:tc:SAML:2.0:status:Success",
        "condition": "",
        "method": "urn:oasis:names:tc:SAML:2.0:cm:bearer",
        "context": "urn:idp:password",
        "session_ends": at + 3600,
        "qualifier": "",
        "version": "2.0",
    }
    v = good | changed
    groups = "".join(f"<saml:AttributeValue>{group}</saml:AttributeValue>" for group in v["groups"])
    audiences = v["audience"] and (
        f"<saml:AudienceRestriction><saml:Audience>{v['audience']}</saml:Audience></saml:AudienceRestriction>"
    )
    qualifier = v["qualifier"] and f' NameQualifier="{v["qualifier"]}"'
    text = f"""<samlp:Response {XMLNS} ID="_response" Version="2.0" IssueInstant="{instant(at)}"
 Destination="{v["destination"]}" InResponseTo="{v["response_to"]}"><saml:Issuer>{v["issuer"]}</saml:Issuer>
<samlp:Status><samlp:StatusCode Value="{v["status"]}"/></samlp:Status>
<saml:Assertion ID="{v["id"]}" Version="{v["version"]}" IssueInstant="{instant(at)}"
><saml:Issuer>{v["issuer"]}</saml:Issuer>
<saml:Subject><saml:NameID Format="{v["format"]}"{qualifier}>{v["sub"]}</saml:NameID>
<saml:SubjectConfirmation Method="{v["method"]}"><saml:SubjectConfirmationData InResponseTo="{v["in_response_to"]}"
 Recipient="{v["recipient"]}" NotOnOrAfter="{instant(v["confirmed_until"])}"/></saml:SubjectConfirmation></saml:Subject>
<saml:Conditions NotBefore="{instant(v["not_before"])}" NotOnOrAfter="{instant(v["ends"])}">{audiences}{v["condition"]}
</saml:Conditions><saml:AuthnStatement AuthnInstant="{instant(v["authenticated_at"])}"
 SessionNotOnOrAfter="{instant(v["session_ends"])}"><saml:AuthnContext>
<saml:AuthnContextClassRef>{v["context"]}</saml:AuthnContextClassRef></saml:AuthnContext></saml:AuthnStatement>
<saml:AttributeStatement><saml:Attribute Name="groups">{groups}</saml:Attribute></saml:AttributeStatement>
</saml:Assertion></samlp:Response>"""
    return etree.fromstring(text)


def sign(
    element: etree._Element, *, number: int = 0, method: SignatureMethod = SignatureMethod.RSA_SHA256
) -> etree._Element:
    """Return the element, signed with the key `number`. The signature follows the issuer of the element, as the schema
    requires.
    """
    key, certificate = key_pair(number)
    copy = etree.fromstring(etree.tostring(element))
    issuer = copy.find(f"{SAML}Issuer")
    assert issuer is not None
    ds = "http://www.w3.org/2000/09/xmldsig#"
    placeholder = etree.Element(f"{{{ds}}}Signature", {"Id": "placeholder"}, nsmap={"ds": ds})
    issuer.addnext(placeholder)
    signer = XMLSigner(signature_algorithm=method, c14n_algorithm="http://www.w3.org/2001/10/xml-exc-c14n#")
    return signer.sign(copy, key=key, cert=certificate, reference_uri=f"#{copy.get('ID')}", id_attribute="ID")


def signed_assertion(response: etree._Element, **how: Any) -> etree._Element:
    """Return the response with its assertion signed."""
    assertion = response.find(f"{SAML}Assertion")
    assert assertion is not None
    tail, signed = assertion.tail, sign(assertion, **how)
    signed.tail = tail
    response.replace(assertion, signed)
    return response


def encode(response: etree._Element | bytes) -> str:
    return base64.b64encode(response if isinstance(response, bytes) else etree.tostring(response)).decode()


@contextmanager
def samlify(sp_metadata: str, *, user: dict[str, str]) -> Iterator[SamlifyProvider]:
    """Run an identity provider of npm's samlify, which has the metadata of this service provider."""
    configuration = json.dumps({"entityId": IDP, "ssoUrl": SSO, "spMetadata": sp_metadata, "user": user})
    key, certificate = key_pair(0)
    process = subprocess.Popen(
        ["node", NODE / "saml-idp.mjs", configuration],
        env={"PATH": os.environ["PATH"], "SIGNING_KEY": key, "SIGNING_CERTIFICATE": certificate},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        yield SamlifyProvider(process)
    finally:
        process.communicate(timeout=PATIENCE_S)


class SamlifyProvider:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def answer(self, url: str) -> dict[str, str]:
        """Return the form that the browser posts after it has opened `url`."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(url + "\n")
        self._process.stdin.flush()
        form: dict[str, str] = json.loads(self._process.stdout.readline())
        return form


def idp_metadata(number: int = 0, *, certificates: int = 1) -> str:
    """Return the metadata of the identity provider."""
    keys = "".join(
        '<md:KeyDescriptor use="signing"><ds:KeyInfo xmlns:ds="http://www.w3.org/2000/09/xmldsig#"><ds:X509Data>'
        f"<ds:X509Certificate>{''.join(key_pair(number + n)[1].splitlines()[1:-1])}</ds:X509Certificate>"
        "</ds:X509Data></ds:KeyInfo></md:KeyDescriptor>"
        for n in range(certificates)
    )
    return (
        f'<md:EntityDescriptor xmlns:md="urn:oasis:names:tc:SAML:2.0:metadata" entityID="{IDP}"><md:IDPSSODescriptor '
        f'protocolSupportEnumeration="urn:oasis:names:tc:SAML:2.0:protocol">{keys}'
        '<md:SingleSignOnService Binding="urn:oasis:names:tc:SAML:2.0:bindings:HTTP-Redirect" '
        f'Location="{SSO}"/></md:IDPSSODescriptor></md:EntityDescriptor>'
    )
