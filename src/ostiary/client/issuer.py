"""The facts about an issuer: metadata (RFC 8414, OpenID Connect Discovery), client authentication.

An Ostiary server takes `private_key_jwt` in the form of RFC 7523bis. The metadata of other authorization servers does
not state the form, so a client tries `FORMS` in order and keeps the first that is accepted. Each assertion names only
the server to which it is sent as its audience, so no other server accepts it.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Literal
from urllib.parse import quote_plus, urlsplit

import msgspec

from ostiary.keys import Credential
from ostiary.protocol import jose
from ostiary.protocol.errors import Invalid

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
ASSERTION_LIFETIME_S = 60
LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Metadata(msgspec.Struct, frozen=True):
    """The metadata of an authorization server (RFC 8414 section 2)."""

    issuer: str
    token_endpoint: str
    token_endpoint_auth_methods_supported: list[str] | None = None
    dpop_signing_alg_values_supported: list[str] | None = None
    protected_resources: list[str] | None = None
    mtls_endpoint_aliases: dict[str, str] | None = None
    """URLs of the endpoints for clients with certificates, by the name of the endpoint (RFC 8705 section 5)"""

    @property
    def is_ostiary(self) -> bool:
        """Return whether the issuer is an Ostiary server. The API of an Ostiary server accepts the tokens of the server
        itself.
        """
        return f"{self.issuer}/api/v1" in (self.protected_resources or ())

    @property
    def mtls_token_endpoint(self) -> str:
        """Return the URL of the token endpoint for clients with certificates (`mtls_endpoint_aliases`, RFC 8705 section
        5).
        """
        return (self.mtls_endpoint_aliases or {}).get("token_endpoint", self.token_endpoint)

    def api_base(self, url: str, *, has_certificate: bool) -> str:
        """Return the base URL for requests to the API of an Ostiary server that the client reaches at `url`.
        `has_certificate`: true if the client authenticates by a certificate, for which the server may have another
        address.
        """
        aliases = self.mtls_endpoint_aliases if has_certificate else None
        return self.mtls_token_endpoint.removesuffix("/token") if aliases else url

    @property
    def offers_dpop(self) -> bool:
        """Return whether the issuer's metadata list an algorithm for DPoP proofs."""
        return bool(self.dpop_signing_alg_values_supported)


@dataclass(frozen=True, slots=True)
class AssertionForm:
    """The form of a client assertion: its `typ`, and the URL of the issuer that is its audience."""

    typ: str
    audience: Literal["issuer", "token_endpoint"]


FORMS = (
    AssertionForm("client-authentication+jwt", "issuer"),
    AssertionForm("JWT", "token_endpoint"),
    AssertionForm("JWT", "issuer"),
)
"""The forms in the order of attempts: RFC 7523bis section 4; the usual form of RFC 7523 section 3 in libraries; the
form that OpenID Connect profiles demand.
"""


def well_known_urls(issuer: str) -> list[str]:
    """Return the URLs at which the metadata of an issuer may be: RFC 8414 sections 3 and 5, OpenID Connect Discovery
    section 4. Raises Invalid for a text that is not a URL.
    """
    try:
        parts = urlsplit(issuer)
        _ = parts.port
    except ValueError as error:
        raise Invalid(
            f"{issuer!a} is not the URL of a server: {error}",
            hint="check OSTIARY_URL and `issuer` in the credential file",
        ) from None
    origin, path = f"{parts.scheme}://{parts.netloc}", parts.path.rstrip("/")
    places = [
        f"{origin}/.well-known/oauth-authorization-server{path}",
        f"{origin}{path}/.well-known/openid-configuration",
        f"{origin}/.well-known/openid-configuration{path}",
    ]
    return list(dict.fromkeys(places))


def authenticate(
    credential: Credential, metadata: Metadata, form: AssertionForm, *, now_s: int, jti: str
) -> tuple[dict[str, str], dict[str, str]]:
    """Return the form members and the headers that authenticate the client. `now_s`: seconds since the epoch.

    A client with a certificate authenticates in the TLS handshake (RFC 8705). Any other credential authenticates by its
    secret, if it has one (RFC 6749 section 2.3.1), or by its key (RFC 7523). Raises Invalid if the issuer does not
    offer this method.
    """
    methods = metadata.token_endpoint_auth_methods_supported
    if credential.has_certificate:
        if methods is not None and not any("tls_client_auth" in name for name in methods):
            raise Invalid(f"{metadata.issuer} does not offer mutual TLS", hint="give a credential with a key")
        return {"client_id": credential.client_id}, {}
    if credential.secret is None:
        if methods is not None and "private_key_jwt" not in methods:
            hint = "give a credential with `client_secret`" if any("secret" in name for name in methods) else ""
            raise Invalid(f"{metadata.issuer} does not offer `private_key_jwt`", hint=hint)
        claims = {
            "iss": credential.client_id,
            "sub": credential.client_id,
            "aud": metadata.issuer if form.audience == "issuer" else metadata.token_endpoint,
            "iat": now_s,
            "exp": now_s + ASSERTION_LIFETIME_S,
            "jti": jti,
        }
        assertion = jose.sign_jwt(credential.key, typ=form.typ, claims=claims)
        named = {"client_assertion_type": ASSERTION_TYPE, "client_assertion": assertion}
        return {"client_id": credential.client_id, **named}, {}
    if not is_private(metadata.token_endpoint):
        raise Invalid(
            f"the client secret is not sent to {metadata.token_endpoint} in clear", hint="use https for the issuer"
        )
    if methods is None or "client_secret_basic" in methods:
        pair = f"{quote_plus(credential.client_id)}:{quote_plus(credential.secret)}"
        return {}, {"authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
    if "client_secret_post" in methods:
        return {"client_id": credential.client_id, "client_secret": credential.secret}, {}
    raise Invalid(f"{metadata.issuer} takes no client secret", hint="give a credential with a key")


def is_private(url: str) -> bool:
    """Return whether requests to the URL are encrypted (https), or stay on this machine."""
    parts = urlsplit(url)
    return parts.scheme == "https" or parts.hostname in LOOPBACK


def is_local(url: str) -> bool:
    """Return whether the URL leads to this machine."""
    return urlsplit(url).hostname in LOOPBACK
