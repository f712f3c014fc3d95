"""OAuth clients that send people to the authorization endpoint: their records, their metadata, their redirect URIs.

Metadata are those of RFC 7591 section 2, OpenID Connect Registration 1.0 section 2, RP-Initiated Logout 1.0 section
3.1, Back-Channel Logout 1.0 section 2.2, RFC 9126 section 6 and RFC 9449 section 5.2. Other members are ignored (RFC
7591 section 2), except members that demand an answer which this server does not give, such as pairwise subjects.

A redirect URI must be in its canonical spelling (RFC 3986 section 6.2.2), because programs interpret other spellings
differently: no fragment, no user, and as host a name or an IP address in its usual form. Its scheme is `https`, `http`
on loopback, or, for a native client, a private-use scheme that contains a period (RFC 8252 section 7.1). Redirect URIs
are compared character by character; only the port of a loopback URI may differ (RFC 8252 section 7.3).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from ipaddress import ip_address
from typing import Any, Literal
from urllib.parse import parse_qsl, urlsplit

import msgspec

from ostiary.protocol import canonical, jose
from ostiary.protocol.decoding import convert, json_decoder
from ostiary.protocol.destination import is_address_like
from ostiary.protocol.errors import Invalid, Malformed
from ostiary.protocol.uri import MAX_URI, normalise_uri
from ostiaryd.registry.model import check_text
from ostiaryd.trust.model.certificates import (
    SELF_SIGNED,
    TLS_CLIENT_AUTH,
    InvalidCertificate,
    SubjectKind,
    check_subject,
    read_jwk_certificates,
)

MAX_REDIRECT_URIS = 20
MAX_CLIENT_NAME = 100
MAX_CLIENT_KEYS = 10
MAX_CLIENT_TEXT = 256
MAX_METADATA = 16 << 10
"""Maximum size of the metadata of one client, in bytes."""
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
AUTHORIZATION_CODE, REFRESH_TOKEN = "authorization_code", "refresh_token"
DEVICE_CODE = "urn:ietf:params:oauth:grant-type:device_code"
CLIENT_GRANTS = (AUTHORIZATION_CODE, REFRESH_TOKEN, DEVICE_CODE)
"""Grant types of clients that no administrator registered, and of agents that act for people."""
FIRST_GRANTS = (AUTHORIZATION_CODE, DEVICE_CODE)
"""Members of CLIENT_GRANTS that begin a grant. A client must have one or more of them."""
ID_TOKEN_ALGS = ("RS256", "ES256", "EdDSA")
"""Supported algorithms of ID tokens. The first is used for clients that request none (OpenID Connect Dynamic Client
Registration 1.0 section 2).
"""
ANSWER_PARAMETERS = frozenset({"code", "state", "iss", "error", "error_description", "error_uri", "response"})
"""Parameters that a response adds to a redirect URI. A registered redirect URI may not contain them, because the client
could then read the wrong value (RFC 9207).
"""
_PRIVATE_USE = re.compile(r"[a-z][a-z0-9+-]*(?:\.[a-z0-9+-]+)+:/[!#-;=?-\[\]_a-z~%]*")
_OF_EDITOR = re.compile(r"(?:cursor|vscode|vscode-insiders|windsurf)://[a-z0-9-]+\.[a-z0-9-]+/[!#-;=?-\[\]_a-z~%]*")
"""URIs by which an editor calls one of its extensions: `SCHEME://PUBLISHER.EXTENSION/PATH`. Their schemes have no dot;
RFC 8252 section 8.4 recommends to refuse such schemes, and ADR 196 accepts these.
"""
_LOOPBACK_URI = re.compile(r"(?P<host>http://(?:127\.0\.0\.1|localhost|\[::1\]))(?::[0-9]{1,5})?(?P<rest>[/?].*)?")
_REQUIREMENTS = (
    "dpop_bound_access_tokens",
    "require_pushed_authorization_requests",
    "require_signed_request_object",
    "tls_client_certificate_bound_access_tokens",
)
"""Members of client metadata that restrict the client."""
_HOST_NAME = re.compile(r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)*\.?")


class ClientProof(StrEnum):
    """Evidence of a client's identity in a token request: none, a signed assertion, a certificate or a secret."""

    NONE = "none"
    ASSERTION = "assertion"
    CERTIFICATE = "certificate"
    SECRET = "secret"


CLIENT_METHODS = {
    "none": ClientProof.NONE,
    "private_key_jwt": ClientProof.ASSERTION,
    TLS_CLIENT_AUTH: ClientProof.CERTIFICATE,
    SELF_SIGNED: ClientProof.CERTIFICATE,
    "client_secret_basic": ClientProof.SECRET,
    "client_secret_post": ClientProof.SECRET,
}
"""Authentication methods of clients at the token endpoint (`token_endpoint_auth_method`), each with its evidence. The
metadata of the server and the registration of clients take the methods from this table.
"""
DOCUMENT_METHODS = tuple(
    name for name, proof in CLIENT_METHODS.items() if proof is not ClientProof.SECRET and name != SELF_SIGNED
)
"""Methods of clients with a metadata document. A document is public, so it can contain no secret. TLS listeners must
know a self-signed certificate before the handshake, and the document is fetched after it.
"""


class ClientKind(StrEnum):
    """Class of registration of a client: an agent that an administrator registered, a client with a metadata document,
    or a client that registered at `/register`.
    """

    AGENT = "agent"
    DOCUMENT = "document"
    DYNAMIC = "dynamic"


BearerClass = Literal["document", "dynamic"]
"""Class of registration of a client that no administrator registered."""


class ClientState(StrEnum):
    """State of a client. `pending`: an administrator must approve the client. `active`: the client may act. `stopped`:
    an administrator stopped the client.
    """

    PENDING = "pending"
    ACTIVE = "active"
    STOPPED = "stopped"


class InvalidRedirectUri(Invalid):
    """A redirect URI of a client is not accepted (RFC 7591 section 3.2.2)."""

    code = "invalid_redirect_uri"


class InvalidClientMetadata(Invalid):
    """A member of the client metadata is not accepted (RFC 7591 section 3.2.2)."""

    code = "invalid_client_metadata"


class InvalidSoftwareStatement(Invalid):
    """The software statement of a registration is not valid (RFC 7591 section 3.2.2)."""

    code = "invalid_software_statement"


class UnapprovedSoftwareStatement(Invalid):
    """The issuer of the software statement is not trusted (RFC 7591 section 3.2.2)."""

    code = "unapproved_software_statement"


class ClientMetadata(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The metadata of a client that this server supports, under their registered names."""

    redirect_uris: tuple[str, ...] = ()
    client_name: str = ""
    application_type: str = ""
    grant_types: tuple[str, ...] = (AUTHORIZATION_CODE,)
    response_types: tuple[str, ...] = ("code",)
    token_endpoint_auth_method: str = "none"
    token_endpoint_auth_signing_alg: str = ""
    jwks: dict[str, Any] | None = None
    jwks_uri: str = ""
    scope: str = ""
    client_uri: str = ""
    logo_uri: str = ""
    policy_uri: str = ""
    tos_uri: str = ""
    contacts: tuple[str, ...] = ()
    software_id: str = ""
    software_version: str = ""
    software_statement: str = ""
    """Verified software statement with which the client registered; empty for none (RFC 7591 section 3.2.1)."""
    post_logout_redirect_uris: tuple[str, ...] = ()
    backchannel_logout_uri: str = ""
    backchannel_logout_session_required: bool = False
    initiate_login_uri: str = ""
    id_token_signed_response_alg: str = ""
    """Algorithm of ID tokens; empty means RS256 (OpenID Connect Dynamic Client Registration 1.0 section 2)."""
    dpop_bound_access_tokens: bool = False
    tls_client_certificate_bound_access_tokens: bool = False
    tls_client_auth_subject_dn: str = ""
    tls_client_auth_san_dns: str = ""
    tls_client_auth_san_uri: str = ""
    tls_client_auth_san_ip: str = ""
    tls_client_auth_san_email: str = ""
    require_pushed_authorization_requests: bool = False
    require_signed_request_object: bool = False
    request_object_signing_alg: str = ""
    default_max_age: int | None = None
    default_acr_values: tuple[str, ...] = ()

    def digest(self) -> str:
        """Return the digest of the metadata on which a consent relies: the name, the redirect URIs, and the
        authentication method with its keys or certificate subject.

        A consent is valid only while this digest is the same as at the time of the consent.
        """
        relied = (
            self.client_name,
            sorted(self.redirect_uris),
            self.token_endpoint_auth_method,
            self.jwks,
            self.jwks_uri,
            *filter(None, self.certificate_subject.values()),
        )
        return canonical.digest({"relied": list(relied)})

    def needs_approval(self, approved: ClientMetadata) -> bool:
        """Return whether these metadata need another approval than that of `approved`: a consent to the approved
        metadata does not cover these, or these metadata add a grant or a URI for the return after a logout, or drop a
        requirement.
        """
        return (
            self.digest() != approved.digest()
            or not {*self.grant_types} <= {*approved.grant_types}
            or not {*self.post_logout_redirect_uris} <= {*approved.post_logout_redirect_uris}
            or any(getattr(approved, name) and not getattr(self, name) for name in _REQUIREMENTS)
        )

    @property
    def certificate_subject(self) -> dict[str, str]:
        """Return the expected subject of the client's certificate: the members of RFC 8705 section 2.1.2."""
        return {kind: getattr(self, kind) for kind in SubjectKind}


class OAuthClient(msgspec.Struct, frozen=True, kw_only=True):
    """A client of the authorization endpoint; times are in microseconds.

    `client_id` is the id of an agent, the URL of a metadata document, or an id `cl_...` of a client that registered
    itself.
    """

    client_id: str
    handle: str
    """Id of the record, by which administrators name the client: `cl_...`, or the id of the agent."""
    kind: ClientKind
    state: ClientState
    metadata: ClientMetadata
    digest: str
    created_at: int
    changed_at: int
    fresh_until: int | None = None
    """Time after which the metadata document must be fetched again; None for clients without a document."""
    used_at: int | None = None
    """Time of the first consent, or of an administrator's decision about the client; None before both."""
    network: str = ""
    access_digest: str | None = None
    """Digest of the registration access token (RFC 7592); None if there is none."""

    @property
    def name(self) -> str:
        """Return the client name in the metadata; without a name, the client id."""
        return self.metadata.client_name or self.client_id

    @property
    def host(self) -> str:
        """Return the host of the client's metadata document, which vouches for the client; empty for a client without a
        document.
        """
        return (urlsplit(self.client_id).hostname or "") if self.kind is ClientKind.DOCUMENT else ""

    @property
    def registration(self) -> str:
        """Return the class of registration for bearer exemptions, `document` or `dynamic`; empty for an agent."""
        return "" if self.kind is ClientKind.AGENT else self.kind.value

    @property
    def is_unknown(self) -> bool:
        """Return whether neither an administrator has approved the client nor a person has consented to it."""
        return self.kind is not ClientKind.AGENT and self.used_at is None

    @property
    def proof(self) -> ClientProof:
        """Return the evidence with which the client registered to authenticate."""
        return CLIENT_METHODS[self.metadata.token_endpoint_auth_method]

    @property
    def is_public(self) -> bool:
        """Return whether the client is public: it does not authenticate (RFC 6749 section 2.1)."""
        return self.proof is ClientProof.NONE

    @property
    def has_secret(self) -> bool:
        """Return whether the client registered to authenticate with a secret."""
        return self.proof is ClientProof.SECRET

    def has_redirect_uri(self, unverified_uri: str) -> bool:
        """Return whether the client registered this redirect URI. For a loopback URI, the port may differ."""
        return is_registered_uri(unverified_uri, self.metadata.redirect_uris)

    def has_logout_uri(self, unverified_uri: str) -> bool:
        """Return whether the client registered this URI for the return after a logout (RP-Initiated Logout 1.0 section
        3).
        """
        return unverified_uri in self.metadata.post_logout_redirect_uris


def is_registered_uri(unverified_uri: str, registered: tuple[str, ...]) -> bool:
    """Return whether `registered` contains the URI, character by character. For a loopback URI, the port may differ."""
    if unverified_uri in registered:
        return True
    if (portless := _without_port(unverified_uri)) is None:
        return False
    return any(portless == _without_port(uri) for uri in registered)


def _without_port(uri: str) -> str | None:
    """Return a loopback URI without its port. Return None for any other URI, and if the port is not a valid number."""
    match = _LOOPBACK_URI.fullmatch(uri)
    if match is None or not _is_port(uri.removeprefix(match["host"])):
        return None
    return f"{match['host']}{match['rest'] or ''}"


def _is_port(rest: str) -> bool:
    digits = re.match(r":([0-9]+)", rest)
    return digits is None or 0 < int(digits[1]) <= 65_535


def parse_metadata(unverified: Mapping[str, Any]) -> ClientMetadata:
    """Return the validated metadata of a client. The caller must still check the URLs that the server will fetch. Grant
    types and response types that this server does not support are left out (RFC 7591 section 3.2.1). Raises
    InvalidRedirectUri for an unacceptable redirect URI, InvalidClientMetadata for any other unacceptable member.
    """
    _check_promises(unverified)
    members = {name: value for name, value in unverified.items() if name in _MEMBERS and value is not None}
    try:
        metadata = convert(members, ClientMetadata)
    except msgspec.ValidationError as error:
        raise InvalidClientMetadata(f"client metadata: {error}") from None
    if len(msgspec.json.encode(metadata)) > MAX_METADATA:
        raise InvalidClientMetadata(f"the client metadata are longer than {MAX_METADATA} bytes")
    _check_redirect_uris(metadata)
    _check_grants(metadata)
    _check_words(metadata)
    _check_keys(metadata)
    grants = tuple(grant for grant in dict.fromkeys(metadata.grant_types) if grant in CLIENT_GRANTS)
    kind = metadata.application_type or ("native" if _is_native(metadata.redirect_uris) else "web")
    return msgspec.structs.replace(metadata, application_type=kind, grant_types=grants, response_types=("code",))


def _check_promises(unverified: Mapping[str, Any]) -> None:
    """Check that a client demands no protection that this server does not give, such as encrypted ID tokens. Raises
    InvalidClientMetadata if it does.
    """
    for name, accepted in _PROMISES.items():
        if (value := unverified.get(name)) is not None and value not in accepted:
            hint = f"leave `{name}` out" + "".join(f", or send `{one}`" for one in accepted)
            raise InvalidClientMetadata(f"`{name}`: this server does not support {str(value)[:50]!a}", hint=hint)


_PROMISES: Mapping[str, tuple[str, ...]] = {
    "subject_type": ("public",),
    "sector_identifier_uri": (),
    "id_token_encrypted_response_alg": (),
    "userinfo_signed_response_alg": (),
    "userinfo_encrypted_response_alg": (),
    "authorization_signed_response_alg": (),
    "authorization_encrypted_response_alg": (),
    "introspection_signed_response_alg": (),
    "introspection_encrypted_response_alg": (),
    "backchannel_token_delivery_mode": ("poll",),
}
"""Members by which a client demands how the server answers, each with the supported values. A client that demands
pairwise subjects, a signature or encryption would treat an answer without them as protected.
"""
_MEMBERS = frozenset(ClientMetadata.__struct_fields__) - {"software_statement"}
"""Names of the members that become a part of the metadata of a client."""
UNDERSTOOD = _MEMBERS | _PROMISES.keys()
"""Names of the members that `parse_metadata` reads from unverified metadata."""
decode_metadata = json_decoder(ClientMetadata)


def _is_native(uris: tuple[str, ...]) -> bool:
    return bool(uris) and not any(uri.startswith("https:") for uri in uris)


def _check_redirect_uris(metadata: ClientMetadata) -> None:
    uris = metadata.redirect_uris
    if metadata.application_type not in ("", "web", "native"):
        raise InvalidClientMetadata("`application_type` must be `web` or `native`")
    if not uris and AUTHORIZATION_CODE in metadata.grant_types:
        raise InvalidRedirectUri("`redirect_uris` is missing", hint="send the URLs to which people return")
    for name in ("redirect_uris", "post_logout_redirect_uris"):
        if len(getattr(metadata, name)) > MAX_REDIRECT_URIS:
            raise InvalidRedirectUri(f"`{name}` must have at most {MAX_REDIRECT_URIS} URIs")
    for uri in (*uris, *metadata.post_logout_redirect_uris):
        check_redirect_uri(uri, is_native=metadata.application_type != "web")


def check_redirect_uri(unverified_uri: str, *, is_native: bool = True) -> str:
    """Return a redirect URI after checking that it is accepted and in its canonical spelling. `is_native` permits the
    private-use schemes of native applications; those of editors are always permitted. Raises InvalidRedirectUri for any
    other URI.
    """
    uri = unverified_uri
    if len(uri) > MAX_URI:
        raise InvalidRedirectUri(f"a redirect URI must have at most {MAX_URI} characters")
    shown = f"the redirect URI {uri[:200]!a}"
    if "#" in uri:
        raise InvalidRedirectUri(
            f"{shown} has a fragment", hint="leave out the `#` and the text after it (RFC 6749 section 3.1.2)"
        )
    base, question, query = uri.partition("?")
    if clash := ANSWER_PARAMETERS & {name for name, _ in parse_qsl(query, keep_blank_values=True)}:
        raise InvalidRedirectUri(
            f"{shown} has the parameter `{min(clash)}`", hint="the server adds that parameter to each response"
        )
    if not re.match(r"https?:", uri, re.IGNORECASE):
        if _OF_EDITOR.fullmatch(uri) or (is_native and _PRIVATE_USE.fullmatch(uri)):
            return uri
        hint = "use https, http on 127.0.0.1, or for a native client a scheme such as com.example.app:/callback"
        raise InvalidRedirectUri(f"{shown} has a scheme that is not accepted", hint=hint)
    try:
        normal = normalise_uri(uri)
    except Malformed as error:
        hint = "write https://HOST[:PORT]/PATH"
        if not uri.isascii():
            hint = "write the host in ASCII (`xn--...`), and other characters of the path as percent-encoded UTF-8"
        raise InvalidRedirectUri(f"{shown}: {error.message}", hint=hint) from None
    if "*" in base.split("/", 3)[2]:
        raise InvalidRedirectUri(f"{shown} has a wildcard in its host", hint="register each URI in full")
    if base not in (normal, normal.removesuffix("/")):
        raise InvalidRedirectUri(f"{shown} is not in its canonical spelling", hint=f"write `{normal}{question}{query}`")
    host = urlsplit(uri).hostname or ""
    if not _is_usual(host):
        raise InvalidRedirectUri(
            f"{shown} has a host that is neither a DNS name nor an IP address in its usual spelling"
        )
    if uri.startswith("http:") and host not in LOOPBACK:
        raise InvalidRedirectUri(f"{shown} must begin with https://", hint="http:// is for 127.0.0.1, [::1], localhost")
    return uri


def _is_usual(host: str) -> bool:
    """Return whether a host is a name of letters, digits, `-` and `_`, or an IP address in its canonical spelling.

    RFC 3986 also allows `;` and `,` in a host. In the content security policy of a page, these characters would end a
    directive.
    """
    try:
        return str(ip_address(host)) == host if is_address_like(host) else _HOST_NAME.fullmatch(host) is not None
    except ValueError:
        return False


def _check_grants(metadata: ClientMetadata) -> None:
    most = len(CLIENT_GRANTS) + 4
    if not 1 <= len(metadata.grant_types) <= most:
        raise InvalidClientMetadata(f"`grant_types` must have 1 to {most} values")
    if not set(metadata.grant_types) & set(FIRST_GRANTS):
        hint = f"{', '.join(metadata.grant_types)[:200]}: none of these grant types can begin a grant"
        raise InvalidClientMetadata(f"`grant_types` must have {' or '.join(FIRST_GRANTS)}", hint=hint)
    if AUTHORIZATION_CODE in metadata.grant_types and "code" not in metadata.response_types:
        raise InvalidClientMetadata(
            "`response_types` must have `code`",
            hint="register `code`: tokens are never sent in URLs (RFC 9700 section 2.1.2)",
        )


def _check_words(metadata: ClientMetadata) -> None:
    try:
        if metadata.client_name:
            check_text(metadata.client_name, of="`client_name`", limit=MAX_CLIENT_NAME)
        for name, words in (
            ("contacts", metadata.contacts),
            ("software_id", (metadata.software_id,)),
            ("software_version", (metadata.software_version,)),
        ):
            for word in filter(None, words):
                check_text(word, of=f"`{name}`", limit=MAX_CLIENT_TEXT)
    except Invalid as error:
        raise InvalidClientMetadata(error.message, hint=error.hint) from None
    for name in ("contacts", "default_acr_values"):
        if len(getattr(metadata, name)) > MAX_REDIRECT_URIS:
            raise InvalidClientMetadata(f"`{name}` must have at most {MAX_REDIRECT_URIS} values")
    if metadata.default_max_age is not None and metadata.default_max_age < 0:
        raise InvalidClientMetadata("`default_max_age` must not be negative")
    for name in ("client_uri", "logo_uri", "policy_uri", "tos_uri", "initiate_login_uri"):
        check_web_page(getattr(metadata, name), name=name)


def check_web_page(uri: str, *, name: str) -> None:
    """Check the URL of a page for people, which the server never fetches; empty is accepted. `name` is the member in
    errors. Raises InvalidClientMetadata for a malformed URL, and for http on another host than this machine.
    """
    if not uri:
        return
    try:
        normalise_uri(uri.partition("#")[0])
    except Malformed as error:
        raise InvalidClientMetadata(f"`{name}`: {error.message}") from None
    if not (uri.startswith("https://") or urlsplit(uri).hostname in LOOPBACK):
        raise InvalidClientMetadata(f"`{name}` must begin with https://")


def _check_keys(metadata: ClientMetadata) -> None:
    """Check the authentication method of a client, and that the client has the keys, the certificates or the subject
    that the method needs. Raises InvalidClientMetadata otherwise.
    """
    method = metadata.token_endpoint_auth_method
    if method not in CLIENT_METHODS:
        hint = f"use one of: {', '.join(CLIENT_METHODS)}"
        raise InvalidClientMetadata(f"`token_endpoint_auth_method` {method[:64]!a} is not supported", hint=hint)
    if metadata.jwks is not None and metadata.jwks_uri:
        raise InvalidClientMetadata("`jwks` and `jwks_uri` cannot be used together (RFC 7591 section 2)")
    if CLIENT_METHODS[method] is ClientProof.ASSERTION and metadata.jwks is None and not metadata.jwks_uri:
        raise InvalidClientMetadata(f"`{method}` needs `jwks` or `jwks_uri`")
    try:
        if method == TLS_CLIENT_AUTH:
            check_subject(metadata.certificate_subject)
        elif any(metadata.certificate_subject.values()):
            raise InvalidClientMetadata(f"a certificate subject can only be used with `{TLS_CLIENT_AUTH}`")
        if method == SELF_SIGNED:
            read_jwk_certificates(metadata.jwks)
    except InvalidCertificate as refusal:
        raise InvalidClientMetadata(refusal.message, hint=refusal.hint) from None
    if metadata.id_token_signed_response_alg not in ("", *ID_TOKEN_ALGS):
        raise InvalidClientMetadata("`id_token_signed_response_alg` is not supported", hint=", ".join(ID_TOKEN_ALGS))
    for name in ("token_endpoint_auth_signing_alg", "request_object_signing_alg"):
        if getattr(metadata, name) not in ("", *jose.ALGS):
            raise InvalidClientMetadata(f"`{name}` is not supported", hint=", ".join(sorted(jose.ALGS)))
    if metadata.require_signed_request_object and metadata.jwks is None and not metadata.jwks_uri:
        raise InvalidClientMetadata("`require_signed_request_object` needs `jwks` or `jwks_uri`")
    if metadata.jwks is not None:
        _check_asymmetric(metadata.jwks)
        parse_client_keys(metadata.jwks)


def _check_asymmetric(jwks: Mapping[str, Any]) -> None:
    """Check that a JWK Set has no symmetric key, which would be a secret in the metadata. Raises InvalidClientMetadata
    otherwise.
    """
    keys = jwks.get("keys")
    if isinstance(keys, list) and any(isinstance(key, dict) and key.get("kty") == "oct" for key in keys):
        raise InvalidClientMetadata(
            "`jwks` has a symmetric key (`kty` is `oct`)",
            hint="send public keys only; a client with a secret uses `client_secret_basic` or `client_secret_post`",
        )


def parse_client_keys(jwks: object) -> tuple[jose.PublicKey, ...]:
    """Return those keys of a JWK Set with which this server can verify signatures. Keys of other types, curves or uses
    are ignored (RFC 7517 section 5). Raises InvalidClientMetadata, also for a private key.
    """
    keys = jwks.get("keys") if isinstance(jwks, dict) else None
    if not isinstance(keys, list) or not 1 <= len(keys) <= MAX_CLIENT_KEYS:
        raise InvalidClientMetadata(f"the key set of a client must have 1 to {MAX_CLIENT_KEYS} keys")
    try:
        parsed = jose.JwkSet.parse(jwks).keys
        if not parsed:
            jose.parse_public_jwk(keys[0])  # raises the reason
    except jose.InvalidKey as error:
        raise InvalidClientMetadata(f"the keys of the client: {error.message}", hint=error.hint) from None
    if len({key.kid for key in parsed}) < len(parsed):
        raise InvalidClientMetadata("two keys of the client have the same `kid`")
    return parsed


MAX_DOCUMENT = 5 << 10
"""Maximum size of a metadata document in bytes, as the draft recommends."""
MAX_DOCUMENT_ID = 1000
_MAX_AGE = re.compile(r'max-age\s*=\s*"?([0-9]{1,10})"?')
SHORTEST_FRESH_S, USUAL_FRESH_S, LONGEST_FRESH_S = 300, 3600, 86_400


def is_document_id(client_id: str) -> bool:
    """Return whether a client id is the URL of a metadata document. No id that this server generates is such a URL."""
    return client_id.startswith("https://")


def check_document_id(unverified_id: str) -> str:
    """Return a client id after checking that it is an acceptable URL of a metadata document
    (draft-ietf-oauth-client-id-metadata-document section 3).

    The URL has a path, no dot segment, no fragment and no user, and is in its canonical spelling. Client ids are
    compared character by character, so a second spelling would be a second client with the same name. Raises
    InvalidClientMetadata for any other URL.
    """
    url = unverified_id
    shown = "the client id"  # without the text itself, because it may be a secret in the wrong field
    if not is_document_id(url) or len(url) > MAX_DOCUMENT_ID or "#" in url:
        hint = f"use https://HOST[:PORT]/PATH of at most {MAX_DOCUMENT_ID} characters, without a fragment"
        raise InvalidClientMetadata(f"{shown} is not the URL of a metadata document", hint=hint)
    base, question, query = url.partition("?")
    try:
        normal = normalise_uri(base)
    except Malformed as error:
        raise InvalidClientMetadata(f"{shown}: {error.message}") from None
    if not _is_usual(urlsplit(normal).hostname or ""):
        raise InvalidClientMetadata(
            f"{shown} has a host that is neither a DNS name nor an IP address in its usual spelling"
        )
    if urlsplit(normal).path == "/":
        raise InvalidClientMetadata(f"{shown} has no path", hint="use a URL such as https://app.example/client.json")
    if base != normal:
        raise InvalidClientMetadata(
            f"{shown} is not in its canonical spelling", hint=f"send `{normal}{question}{query}`"
        )
    return url


def parse_document(body: bytes, *, media_type: str, client_id: str) -> ClientMetadata:
    """Return the validated metadata in the metadata document of a client (draft-ietf-oauth-client-id-metadata-document
    section 4.1). Raises InvalidRedirectUri for an unacceptable redirect URI, InvalidClientMetadata for any other
    defect.

    The method must be one of `DOCUMENT_METHODS`. If the document has keys but names no method, the method is
    `private_key_jwt`.
    """
    if media_type != "application/json" and not re.fullmatch(r"application/[!-~]+\+json", media_type):
        raise InvalidClientMetadata(
            f"the metadata document has the type {media_type[:64]!a}", hint="serve the document as application/json"
        )
    try:
        unverified = canonical.parse(body, max_bytes=MAX_DOCUMENT)
    except Malformed as error:
        raise InvalidClientMetadata(f"the metadata document: {error.message}") from None
    if not isinstance(unverified, dict):
        raise InvalidClientMetadata("the metadata document is not a JSON object")
    if unverified.get("client_id") != client_id:
        raise InvalidClientMetadata("`client_id` of the metadata document is not the URL of the document")
    if "client_secret" in unverified or "client_secret_expires_at" in unverified:
        raise InvalidClientMetadata("a metadata document must not have a client secret")
    has_keys = unverified.get("jwks") is not None or unverified.get("jwks_uri") is not None
    unverified = {"token_endpoint_auth_method": "private_key_jwt" if has_keys else "none"} | unverified
    metadata = parse_metadata(unverified)
    if (method := metadata.token_endpoint_auth_method) not in DOCUMENT_METHODS:
        hint = f"use one of {', '.join(DOCUMENT_METHODS)}, or register the client at /register"
        raise InvalidClientMetadata(f"a client with a metadata document cannot use `{method}`", hint=hint)
    return metadata


def fresh_s(cache_control: str) -> int:
    """Return for how many seconds a document with this Cache-Control header is fresh (RFC 9111 section 5.2.2): between
    five minutes and a day.
    """
    words = cache_control.lower()
    if "no-store" in words or "no-cache" in words:
        return SHORTEST_FRESH_S
    match = _MAX_AGE.search(words)
    seconds = USUAL_FRESH_S if match is None else int(match[1])
    return min(max(seconds, SHORTEST_FRESH_S), LONGEST_FRESH_S)
