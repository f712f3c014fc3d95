"""Parses XML of SAML identity providers in a confined process, and verifies its signatures with lxml and signxml (ADR
78).

Only the content of a signed element is read, so elements around the signed element or beside it have no effect. The
signed element is the response at the root, or its assertion; there is exactly one assertion. Documents with a DTD,
comments or processing instructions are refused: no identity provider needs them, and a comment inside a name can make a
parser read only a part of the name.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import chain

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from lxml import etree
from signxml.algorithms import DigestAlgorithm, SignatureMethod
from signxml.exceptions import SignXMLException
from signxml.verifier import SignatureConfiguration, XMLVerifier

from ostiary.protocol.certificate import load_certificate
from ostiary.protocol.errors import Invalid, Malformed
from ostiaryd.ground.process.confined import parser
from ostiaryd.trust.model.saml_login import (
    REDIRECT_BINDING,
    IdpMetadata,
    ReadMetadata,
    SamlAssertion,
    SamlResponse,
    SubjectConfirmation,
    decode_order,
    encode,
)

MAX_VALUES = 2000
MAX_ELEMENTS = 20_000
XML_WHITESPACE = " \t\r\n"
SAML = "{urn:oasis:names:tc:SAML:2.0:assertion}"
SAMLP = "{urn:oasis:names:tc:SAML:2.0:protocol}"
MD = "{urn:oasis:names:tc:SAML:2.0:metadata}"
DS = "{http://www.w3.org/2000/09/xmldsig#}"
SIGNATURES = frozenset(
    {
        SignatureMethod.RSA_SHA256,
        SignatureMethod.RSA_SHA384,
        SignatureMethod.RSA_SHA512,
        SignatureMethod.ECDSA_SHA256,
        SignatureMethod.ECDSA_SHA384,
        SignatureMethod.ECDSA_SHA512,
    }
)
DIGESTS = frozenset({DigestAlgorithm.SHA256, DigestAlgorithm.SHA384, DigestAlgorithm.SHA512})
XMLVerifier.schemas()  # type: ignore[no-untyped-call]  # while files may still be opened


@parser
def answer(body: bytes) -> bytes:
    """Carry out one order of the server (`ReadResponse` or `ReadMetadata`) inside the confined process, and return the
    encoded result. Raises the errors of `read_response` and `read_metadata`.
    """
    order = decode_order(body)
    if isinstance(order, ReadMetadata):
        return encode(read_metadata(order.xml))
    return encode(read_response(order.xml, order.certificates))


def read_response(xml: bytes, certificates: tuple[str, ...]) -> SamlResponse:
    """Return a response with its assertion, after verifying that the key of one of the given certificates signed the
    assertion or the response. A response without an assertion, as after a failed login, is returned unverified, with
    `assertion` None. Raises Malformed for other XML, Invalid if the signature or the assertion is not acceptable.
    """
    root = parse(xml)
    if root.tag != f"{SAMLP}Response" or root.get("Version") != "2.0":
        raise Malformed("the document is not a SAML 2.0 response")
    assertions = list(root.iter(f"{SAML}Assertion", f"{SAML}EncryptedAssertion"))
    status = _status(root)
    if not assertions:
        return _render(root, status, None)
    if len(assertions) > 1 or assertions[0].getparent() is not root or assertions[0].tag != f"{SAML}Assertion":
        raise Invalid("the response must contain exactly one assertion, unencrypted, as its direct child")
    signed = _signed(xml, root, assertions[0], certificates)
    if signed.tag == f"{SAMLP}Response":
        (assertion,) = signed.findall(f"{SAML}Assertion")
        return _render(signed, _status(signed), _assertion(assertion))
    return _render(root, status, _assertion(signed))


def parse(xml: bytes) -> etree._Element:
    """Return the root element of an XML document. Raises Malformed, also if the document has a DTD, a comment, a
    processing instruction, or more than `MAX_ELEMENTS` elements.
    """
    try:
        xml.decode("utf-8")
        root = etree.fromstring(
            xml, etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False)
        )
    except (etree.XMLSyntaxError, ValueError):
        raise Malformed("the document is not well-formed XML in UTF-8") from None
    info = root.getroottree().docinfo
    if info.internalDTD is not None or info.externalDTD is not None or info.doctype:
        raise Malformed("the document has a DTD")
    for count, node in enumerate(root.getroottree().iter(), 1):
        if not isinstance(node.tag, str):
            raise Malformed("the document has a comment or a processing instruction")
        if count > MAX_ELEMENTS:
            raise Malformed(f"the document has more than {MAX_ELEMENTS} elements")
    if root.getprevious() is not None or root.getnext() is not None:
        raise Malformed("the document has a comment or a processing instruction beside its root")
    return root


def _signed(
    xml: bytes, root: etree._Element, assertion: etree._Element, certificates: tuple[str, ...]
) -> etree._Element:
    """Return the signed element, with a verified signature: the response, or its assertion. Raises Invalid if neither
    has an acceptable signature.

    A signature counts only if its reference names the element whose child the signature is. No two elements may have
    the same id.
    """
    ids = [value for node in root.iter() if (value := node.get("ID")) is not None]
    if len(ids) != len(set(ids)):
        raise Invalid("two elements of the document have the same `ID`")
    signatures = list(root.iter(f"{DS}Signature"))
    for element, location in ((root, "./"), (assertion, f"./{SAML}Assertion/")):
        mine = [one for one in signatures if one.getparent() is element]
        if not mine:
            continue
        references = mine[0].findall(f"{DS}SignedInfo/{DS}Reference")
        if len(mine) > 1:
            raise Invalid("an element of the document has more than one signature")
        if len(references) != 1 or references[0].get("URI") != f"#{element.get('ID')}":
            raise Invalid("a signature does not sign the element that contains it")
        return _verified(xml, location, element.tag, certificates)
    raise Invalid("neither the response nor its assertion is signed")


def _verified(xml: bytes, location: str, tag: object, certificates: tuple[str, ...]) -> etree._Element:
    for pem in certificates:
        certificate = x509.load_pem_x509_certificate(pem.encode())
        config = SignatureConfiguration(
            location=location,
            expect_references=1,
            signature_methods=SIGNATURES,
            digest_algorithms=DIGESTS,
            # the key is trusted because it is registered; the dates of its certificate do not matter
            verification_time=certificate.not_valid_before_utc,
        )
        try:
            result = XMLVerifier().verify(xml, x509_cert=certificate, id_attribute="ID", expect_config=config)
        except (SignXMLException, ValueError, etree.LxmlError):
            continue
        signed = None if isinstance(result, list) else result.signed_xml
        if signed is not None and signed.tag == tag:
            return signed
    raise Invalid("no certificate of the identity provider verifies the signature")


def _render(response: etree._Element, status: str, assertion: SamlAssertion | None) -> SamlResponse:
    return SamlResponse(
        destination=response.get("Destination", ""),
        in_response_to=response.get("InResponseTo", ""),
        issuer=_text(response.find(f"{SAML}Issuer")),
        status=status,
        assertion=assertion,
    )


def _status(response: etree._Element) -> str:
    code = response.find(f"{SAMLP}Status/{SAMLP}StatusCode")
    return "" if code is None else code.get("Value", "")


def _assertion(element: etree._Element) -> SamlAssertion:
    subject, conditions = _one(element, "Subject"), _one(element, "Conditions")
    statement = _one(element, "AuthnStatement")
    name = _one(subject, "NameID")
    if element.get("Version") != "2.0":
        raise Invalid("the version of the assertion is not 2.0")
    if (name.text or "") != _text(name):  # `alice` and `alice ` can be two persons
        raise Invalid("`NameID` begins or ends with whitespace")
    understood = {f"{SAML}{one}" for one in ("AudienceRestriction", "OneTimeUse", "ProxyRestriction")}
    if unsupported := [child for child in conditions if child.tag not in understood]:
        name = etree.QName(unsupported[0]).localname
        raise Invalid(f"the assertion has the condition {name[:64]!a}, which this server does not support")
    return SamlAssertion(
        id=element.get("ID", ""),
        issuer=_text(_one(element, "Issuer")),
        name_id=_text(name),
        name_format=name.get("Format", ""),
        name_qualifier=name.get("NameQualifier", ""),
        confirmations=tuple(map(_confirmation, subject.findall(f"{SAML}SubjectConfirmation"))),
        not_before=_time(conditions.get("NotBefore")),
        ends_at=_time(conditions.get("NotOnOrAfter")),
        audiences=tuple(
            tuple(_text(one) for one in restriction.findall(f"{SAML}Audience"))
            for restriction in conditions.findall(f"{SAML}AudienceRestriction")
        ),
        authenticated_at=_time(statement.get("AuthnInstant")) or 0,
        session_ends_at=_time(statement.get("SessionNotOnOrAfter")),
        context=_text(statement.find(f"{SAML}AuthnContext/{SAML}AuthnContextClassRef")),
        attributes=_attributes(element),
    )


def _attributes(element: etree._Element) -> dict[str, tuple[str, ...]]:
    attributes: dict[str, tuple[str, ...]] = {}
    for attribute in element.findall(f"{SAML}AttributeStatement/{SAML}Attribute"):
        values = tuple(_text(value) for value in attribute.findall(f"{SAML}AttributeValue"))
        attributes[attribute.get("Name", "")] = (*attributes.get(attribute.get("Name", ""), ()), *values)
        if sum(map(len, attributes.values())) > MAX_VALUES:
            raise Invalid(f"the assertion has more than {MAX_VALUES} values of attributes")
    return attributes


def _confirmation(element: etree._Element) -> SubjectConfirmation:
    data = element.find(f"{SAML}SubjectConfirmationData")
    stated = {} if data is None else data.attrib
    return SubjectConfirmation(
        method=element.get("Method", ""),
        recipient=stated.get("Recipient", ""),
        in_response_to=stated.get("InResponseTo", ""),
        not_before=_time(stated.get("NotBefore")),
        ends_at=_time(stated.get("NotOnOrAfter")),
    )


def _one(parent: etree._Element, name: str) -> etree._Element:
    children = parent.findall(f"{SAML}{name}")
    if len(children) != 1:
        raise Invalid(f"the assertion does not have exactly one `{name}`")
    return children[0]


def _text(element: etree._Element | None) -> str:
    """Return the text of an element without the whitespace of XML around it; empty for None. Raises Invalid if the
    element has child elements.
    """
    if element is None:
        return ""
    if len(element):
        raise Invalid(f"`{etree.QName(element).localname}` has child elements instead of text")
    return (element.text or "").strip(XML_WHITESPACE)


def _time(text: str | None) -> int | None:
    """Return an `xs:dateTime` in UTC as microseconds since the epoch; None for None. Raises Invalid for other text."""
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise Invalid(f"{text[:64]!a} in the assertion is not a time in the form of `xs:dateTime`") from None
    if moment.tzinfo is None or moment.utcoffset():
        raise Invalid(f"the time {text[:64]!a} in the assertion is not in UTC")  # SAML Core 1.3.3
    return int(moment.astimezone(UTC).timestamp() * 1_000_000)


def read_metadata(xml: bytes) -> IdpMetadata:
    """Return the identity provider that a metadata document describes. Raises Malformed for other XML, Invalid unless
    the document describes exactly one provider that this server can use.
    """
    root = parse(xml)
    described = [root] if root.tag == f"{MD}EntityDescriptor" else list(root.iter(f"{MD}EntityDescriptor"))
    idps = [one for one in described if one.find(f"{MD}IDPSSODescriptor") is not None]
    if len(idps) != 1:
        raise Invalid(f"the metadata describe {len(idps)} identity providers instead of one")
    descriptor = idps[0].find(f"{MD}IDPSSODescriptor")
    assert descriptor is not None
    services = [
        one.get("Location", "")
        for one in descriptor.findall(f"{MD}SingleSignOnService")
        if one.get("Binding") == REDIRECT_BINDING
    ]
    if not services:
        raise Invalid("the metadata name no single sign-on service of the identity provider by HTTP-Redirect")
    return IdpMetadata(idps[0].get("entityID", ""), services[0], tuple(_certificates(descriptor)))


def _certificates(descriptor: etree._Element) -> Iterator[str]:
    signing_keys = (key for key in descriptor.findall(f"{MD}KeyDescriptor") if key.get("use", "signing") == "signing")
    for element in chain.from_iterable(key.iter(f"{DS}X509Certificate") for key in signing_keys):
        text = "".join((element.text or "").split())
        try:
            yield load_certificate(b64decode(text, validate=True)).public_bytes(Encoding.PEM).decode()
        except (ValueError, Malformed):
            raise Invalid("a certificate of the metadata cannot be read") from None
