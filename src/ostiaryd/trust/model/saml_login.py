"""Login by a SAML 2.0 identity provider as a service provider: the Web Browser SSO profile (SAML Profiles section 4.1).

This server sends the request by HTTP-Redirect, unsigned; the provider sends the response by HTTP-POST. The parser
(`trust/engines/saml.py`) returns only the content of the signed element.

Stricter than the profile: exactly one assertion, with an `InResponseTo` of this browser's attempt, an audience
restriction, a bearer confirmation, and one `AuthnStatement`. A response without a request is refused. Encrypted
assertions are not supported, because TLS encrypts the response.
"""

from __future__ import annotations

import base64
import hmac
import zlib
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any
from xml.sax.saxutils import quoteattr

import msgspec

from ostiary.protocol.decoding import msgpack_decoder
from ostiary.protocol.uri import add_query
from ostiaryd.trust.model import DIGEST_BYTES, SECOND, Spend
from ostiaryd.trust.model.oidc_login import ATTEMPT_LIFETIME, LEEWAY, Attempt
from ostiaryd.trust.model.providers import MAX_WORD, Identity, Provider, ProviderRefused, read_group_claim, suggest_name

BEARER = "urn:oasis:names:tc:SAML:2.0:cm:bearer"
SUCCESS = "urn:oasis:names:tc:SAML:2.0:status:Success"
TRANSIENT = "urn:oasis:names:tc:SAML:2.0:nameid-format:transient"
POST_BINDING = "urn:oasis:names:tc:SAML:2.0:bindings:HTTP-POST"
REDIRECT_BINDING = "urn:oasis:names:tc:SAML:2.0:bindings:HTTP-Redirect"
_NAMES = ("uid", "username", "displayName", "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/name")


class SubjectConfirmation(msgspec.Struct, frozen=True):
    """A `SubjectConfirmation` of an assertion; times are in microseconds, None if they are missing."""

    method: str
    recipient: str
    in_response_to: str
    not_before: int | None
    ends_at: int | None


class SamlAssertion(msgspec.Struct, frozen=True):
    """A signed assertion; times are in microseconds. `name_qualifier` names the provider that assigned `name_id`; empty
    for the issuer. `attributes` are values by attribute name. `audiences` is empty if the assertion does not restrict
    its audience. `authenticated_at` is 0 if it is not stated.
    """

    id: str
    issuer: str
    name_id: str
    name_format: str
    name_qualifier: str
    confirmations: tuple[SubjectConfirmation, ...]
    not_before: int | None
    ends_at: int | None
    audiences: tuple[tuple[str, ...], ...]
    authenticated_at: int
    session_ends_at: int | None
    context: str
    attributes: dict[str, tuple[str, ...]]


class SamlResponse(msgspec.Struct, frozen=True, tag="response"):
    """A SAML response. The members outside `assertion` may be unsigned, so they can only cause a refusal."""

    destination: str
    in_response_to: str
    issuer: str
    status: str
    assertion: SamlAssertion | None


class IdpMetadata(msgspec.Struct, frozen=True, tag="metadata"):
    """The metadata of an identity provider (SAML Metadata section 2.4.3). `certificates` are in PEM."""

    entity_id: str
    sso_url: str
    certificates: tuple[str, ...]


class ReadResponse(msgspec.Struct, frozen=True, tag="read_response"):
    """The order to the confined process (a child process without access to the system) to parse a response, and to
    verify its signature with one of the certificates.
    """

    xml: bytes
    certificates: tuple[str, ...]


class ReadMetadata(msgspec.Struct, frozen=True, tag="read_metadata"):
    """The order to the confined process (a child process without access to the system) to parse the metadata of an
    identity provider.
    """

    xml: bytes


encode = msgspec.msgpack.Encoder().encode
decode_order = msgpack_decoder(ReadResponse | ReadMetadata)
decode_answer = msgpack_decoder(SamlResponse | IdpMetadata)


def request_url(sso_url: str, attempt: Attempt, *, entity_id: str, acs: str, acr_values: Collection[str] = ()) -> str:
    """Return the URL to which the browser is redirected for a login: the provider's URL with an AuthnRequest (SAML
    Bindings section 3.4.4.1). `acr_values` are the classes of `AuthnContext` of which the provider must use one (SAML
    Core section 3.3.2.2.1); empty for any.
    """
    at = datetime.fromtimestamp(attempt.began_at // SECOND, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    attributes = {
        "ID": attempt.request,
        "Version": "2.0",
        "IssueInstant": at,
        "Destination": sso_url,
        "AssertionConsumerServiceURL": acs,
        "ProtocolBinding": POST_BINDING,
        **({"ForceAuthn": "true"} if attempt.asked_again else {}),
    }
    named = " ".join(f"{name}={quoteattr(value)}" for name, value in attributes.items())
    issuer = f'<saml:Issuer xmlns:saml="urn:oasis:names:tc:SAML:2.0:assertion">{_text(entity_id)}</saml:Issuer>'
    protocol = 'xmlns:samlp="urn:oasis:names:tc:SAML:2.0:protocol"'
    xml = f"<samlp:AuthnRequest {protocol} {named}>{issuer}{_demand(acr_values)}</samlp:AuthnRequest>"
    deflated = zlib.compress(xml.encode(), 9)[2:-4]  # raw DEFLATE: without the zlib header and checksum
    parameters = {"SAMLRequest": base64.b64encode(deflated).decode(), "RelayState": attempt.state}
    return add_query(sso_url, parameters)


def _demand(acr_values: Collection[str]) -> str:
    if not acr_values:
        return ""
    classes = "".join(f"<saml:AuthnContextClassRef>{_text(one)}</saml:AuthnContextClassRef>" for one in acr_values)
    assertion = 'xmlns:saml="urn:oasis:names:tc:SAML:2.0:assertion"'
    return f'<samlp:RequestedAuthnContext {assertion} Comparison="exact">{classes}</samlp:RequestedAuthnContext>'


def sp_metadata(*, entity_id: str, acs: str) -> str:
    """Return the metadata (XML) by which one identity provider knows this server as a service provider. `entity_id`:
    the id of this server at that provider. `acs`: the URL to which the provider sends its responses.
    """
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<md:EntityDescriptor xmlns:md="urn:oasis:names:tc:SAML:2.0:metadata" '
        f"entityID={quoteattr(entity_id)}>"
        '<md:SPSSODescriptor AuthnRequestsSigned="false" WantAssertionsSigned="true" '
        'protocolSupportEnumeration="urn:oasis:names:tc:SAML:2.0:protocol">'
        f"<md:AssertionConsumerService Binding={quoteattr(POST_BINDING)} Location={quoteattr(acs)} "
        'index="0" isDefault="true"/></md:SPSSODescriptor></md:EntityDescriptor>\n'
    )


def check_relay_state(unverified: str, attempt: Attempt) -> None:
    """Check that `RelayState` of a response equals the state of this browser's attempt. Raises ProviderRefused
    otherwise.
    """
    if not hmac.compare_digest(unverified.encode(), attempt.state.encode()):
        raise ProviderRefused(
            "the response belongs to another login", hint="start the login again, in one browser", code="wrong_state"
        )


def check_response(
    response: SamlResponse, provider: Provider, attempt: Attempt, *, entity_id: str, acs: str, now: int
) -> tuple[Identity, Spend]:
    """Check a response, and return the identity of the person and the assertion, which the caller must mark as used
    (SAML Profiles section 4.1.4.3). Raises ProviderRefused if one of these conditions does not hold.

    1. The response must answer this attempt. 2. Its assertion must be from this provider. 3. A bearer confirmation must
    name this server and this attempt. 4. The conditions must hold, with this server as audience. 5. The session at the
    provider must not have ended.
    """
    hint = "ask the administrator of the identity provider"
    if response.status != SUCCESS:
        raise ProviderRefused("the identity provider refused the login", hint=hint, code="provider_refused")
    if response.assertion is None:
        message = "the response of the identity provider has no assertion"
        raise ProviderRefused(message, hint=hint, code="provider_refused")
    assertion = response.assertion
    if response.in_response_to != attempt.request:
        raise _refused("`InResponseTo` of the response is not the request of this login", code="wrong_state")
    if response.destination not in ("", acs):
        raise _refused("`Destination` of the response names another server")
    if response.issuer not in ("", provider.issuer) or assertion.issuer != provider.issuer:
        raise _refused("another identity provider issued the assertion (`Issuer`)", code="mixed_up")
    if not any(_confirms(one, attempt, acs=acs, now=now) for one in assertion.confirmations):
        raise _refused("the assertion has no unexpired bearer confirmation for this login")
    if (assertion.not_before is not None and now + LEEWAY < assertion.not_before) or (
        assertion.ends_at is not None and now - LEEWAY >= assertion.ends_at
    ):
        raise _refused("the assertion is not valid now (`Conditions`)")
    if not assertion.audiences:
        raise _refused("the assertion has no audience restriction")
    if not all(entity_id in restriction for restriction in assertion.audiences):
        raise _refused("the assertion is for another audience than this server")
    if assertion.session_ends_at is not None and now - LEEWAY >= assertion.session_ends_at:
        raise _refused("the session at the identity provider has ended")
    if assertion.authenticated_at > now + LEEWAY:
        raise _refused("`AuthnInstant` of the assertion is in the future by the clock of this server")
    if assertion.name_format == TRANSIENT:
        raise _refused("`NameID` of the assertion is transient instead of persistent")
    if not 0 < len(assertion.name_id) <= MAX_WORD:
        raise _refused(f"`NameID` of the assertion must have 1 to {MAX_WORD} characters")
    if assertion.name_qualifier not in ("", provider.issuer):  # SAML Core sections 2.2.2, 8.3.7
        raise _refused("`NameQualifier` of the `NameID` is not the entity id of the identity provider")
    digest = sha256(f"{provider.issuer}|{assertion.id}".encode()).digest()[:DIGEST_BYTES]
    return _identify(assertion, provider), Spend(digest, attempt.began_at + ATTEMPT_LIFETIME + LEEWAY, attempt.began_at)


def _confirms(one: SubjectConfirmation, attempt: Attempt, *, acs: str, now: int) -> bool:
    return (
        one.method == BEARER
        and one.recipient == acs
        and one.in_response_to == attempt.request
        and one.not_before is None
        and one.ends_at is not None
        and now - LEEWAY < one.ends_at
    )


def claims_of(assertion: SamlAssertion) -> Mapping[str, Any]:
    """Return the attributes of an assertion as claims by name: a string, or a list of strings if there are several
    values.
    """
    return {name: values[0] if len(values) == 1 else list(values) for name, values in assertion.attributes.items()}


def _identify(assertion: SamlAssertion, provider: Provider) -> Identity:
    claims = claims_of(assertion)
    return Identity(
        issuer=provider.issuer,
        sub=assertion.name_id,
        name=suggest_name(*(claims.get(name) for name in _NAMES), assertion.name_id),
        email=None,  # None, because a SAML assertion does not state whether an address is verified
        groups=read_group_claim(claims, provider.group_claim),
        acr=assertion.context,
        amr=(),
        authenticated_at=assertion.authenticated_at,
    )


def _text(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _refused(message: str, *, code: str = "login_refused") -> ProviderRefused:
    hint = "start the login again; if that does not help, ask an administrator"
    return ProviderRefused(message, hint=hint, code=code)
