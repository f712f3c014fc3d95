"""Metadata of the server: RFC 8414, OpenID Connect Discovery 1.0, RFC 9728, and its keys (RFC 7517)."""

from __future__ import annotations

from functools import partial
from typing import Any, TypedDict
from urllib.parse import urlsplit

from ostiary.authorization.assurance import LEVELS
from ostiary.authorization.claims import SCOPE_ALIASES
from ostiary.protocol.jose import ALGS
from ostiaryd.ground.config import Config
from ostiaryd.ground.http.edge import Call, Reply, reply
from ostiaryd.ground.http.routes import Route
from ostiaryd.ground.http.well_known import check_suffix, with_suffix
from ostiaryd.registry.model import API_SCOPES
from ostiaryd.tokens.model.authorization import CLAIMS, IDENTITY_SCOPES, PROMPTS, RESPONSE_MODES
from ostiaryd.tokens.wire_errors import OAUTH
from ostiaryd.tokens.wire_oauth import GRANT_TYPES
from ostiaryd.trust.model import USERINFO
from ostiaryd.trust.model.clients import CLIENT_METHODS, ID_TOKEN_ALGS, ClientProof

_BRIEFLY = [(b"cache-control", b"public, max-age=300")]
_ALGS = sorted(ALGS)
SCOPES = [*API_SCOPES, *sorted(SCOPE_ALIASES)]


def server_metadata(config: Config) -> dict[str, Any]:
    """Return the metadata of RFC 8414 section 2.

    No member is an empty list: section 3.2 forbids them. `scopes_supported` is absent, because MCP clients would
    request every listed scope; each resource publishes its own scopes.
    """
    issuer = config.issuer
    methods = [
        name for name, proof in CLIENT_METHODS.items() if proof is not ClientProof.CERTIFICATE or config.offers_mtls
    ]
    return {
        "issuer": issuer,
        "authorization_endpoint": f"{issuer}/authorize",
        "token_endpoint": f"{issuer}/token",
        "jwks_uri": f"{issuer}/jwks",
        "introspection_endpoint": f"{issuer}/introspect",
        "backchannel_authentication_endpoint": f"{issuer}/bc-authorize",
        "backchannel_token_delivery_modes_supported": ["poll"],
        "backchannel_user_code_parameter_supported": False,
        "revocation_endpoint": f"{issuer}/revoke",
        "pushed_authorization_request_endpoint": f"{issuer}/par",
        "device_authorization_endpoint": f"{issuer}/device_authorization",
        **_registration(config),
        "response_types_supported": ["code"],
        "response_modes_supported": list(RESPONSE_MODES),
        "authorization_response_iss_parameter_supported": True,
        "grant_types_supported": list(GRANT_TYPES),
        "token_endpoint_auth_methods_supported": methods,
        "token_endpoint_auth_signing_alg_values_supported": _ALGS,
        "introspection_endpoint_auth_methods_supported": [name for name in methods if name != "none"],
        "introspection_endpoint_auth_signing_alg_values_supported": _ALGS,
        "revocation_endpoint_auth_methods_supported": methods,
        "revocation_endpoint_auth_signing_alg_values_supported": _ALGS,
        **_mutual_tls(config),
        "code_challenge_methods_supported": ["S256"],
        "request_parameter_supported": True,
        "request_uri_parameter_supported": False,
        "request_object_signing_alg_values_supported": _ALGS,
        "authorization_details_types_supported": ["tool"],
        "acr_values_supported": list(LEVELS),
        "dpop_signing_alg_values_supported": _ALGS,
        "protected_resources": [config.api, config.issuer + USERINFO],
    }


def _mutual_tls(config: Config) -> dict[str, Any]:
    """Return the metadata about mutual TLS (RFC 8705 sections 3.3 and 5)."""
    if not config.offers_mtls:
        return {}
    aliases = {name: f"{config.mtls_base}{path}" for name, path in _ALIASES.items()} if config.mtls_base else {}
    return {"tls_client_certificate_bound_access_tokens": True} | (
        {"mtls_endpoint_aliases": aliases} if aliases else {}
    )


_ALIASES = {
    "token_endpoint": "/token",
    "introspection_endpoint": "/introspect",
    "revocation_endpoint": "/revoke",
    "pushed_authorization_request_endpoint": "/par",
    "device_authorization_endpoint": "/device_authorization",
    "backchannel_authentication_endpoint": "/bc-authorize",
    "userinfo_endpoint": "/userinfo",
}
"""Name in the metadata and path of each endpoint that accepts client certificates."""


def _registration(config: Config) -> dict[str, Any]:
    """Return the metadata about client registration without an administrator.

    If registration is closed, `registration_endpoint` is left out: clients with an initial access token know the
    endpoint already.
    """
    endpoint = {} if config.client_registration == "closed" else {"registration_endpoint": f"{config.issuer}/register"}
    return endpoint | {"client_id_metadata_document_supported": config.client_documents != "closed"}


def openid_metadata(config: Config) -> dict[str, Any]:
    """Return the metadata of OpenID Connect Discovery 1.0 section 3, RP-Initiated Logout 1.0 section 2.1, and
    Back-Channel Logout 1.0 section 2.1.
    """
    return server_metadata(config) | {
        "userinfo_endpoint": f"{config.issuer}/userinfo",
        "end_session_endpoint": f"{config.issuer}/logout",
        "scopes_supported": list(IDENTITY_SCOPES),
        "claims_supported": ["iss", "aud", "exp", "iat", "nonce", "sid", "at_hash", *CLAIMS],
        "claim_types_supported": ["normal"],
        "claims_parameter_supported": True,
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": list(ID_TOKEN_ALGS),
        "prompt_values_supported": list(PROMPTS),
        "backchannel_logout_supported": True,
        "backchannel_logout_session_supported": True,
    }


def resource_metadata(config: Config) -> dict[str, Any]:
    """Return the metadata of this server's API (RFC 9728 section 2)."""
    return {
        "resource": config.api,
        "resource_name": "Ostiary",
        "authorization_servers": [config.issuer],
        "scopes_supported": SCOPES,
        "bearer_methods_supported": ["header"],
        "dpop_signing_alg_values_supported": _ALGS,
        "dpop_bound_access_tokens_required": not config.offers_mtls,
        **({"tls_client_certificate_bound_access_tokens": True} if config.offers_mtls else {}),
    }


def userinfo_metadata(config: Config) -> dict[str, Any]:
    """Return the metadata of the userinfo endpoint, which its challenges name (RFC 9728 section 2)."""
    return {
        "resource": config.issuer + USERINFO,
        "resource_name": "Userinfo",
        "authorization_servers": [config.issuer],
        "scopes_supported": list(IDENTITY_SCOPES),
        "bearer_methods_supported": ["header", "body"],
        "dpop_signing_alg_values_supported": _ALGS,
    }


class KeySetBody(TypedDict):
    """A JWK Set (RFC 7517 section 5)."""

    keys: list[dict[str, Any]]


async def authorization_server(call: Call) -> Reply:
    """Return the metadata of the authorization server (RFC 8414)."""
    check_suffix(call, call.world.config.issuer, of="issuer")
    return reply(server_metadata(call.world.config), headers=_BRIEFLY)


async def openid_configuration(call: Call) -> Reply:
    """Return the metadata of the OpenID provider (OpenID Connect Discovery 1.0)."""
    check_suffix(call, call.world.config.issuer, of="issuer")
    return reply(openid_metadata(call.world.config), headers=_BRIEFLY)


async def protected_resource(call: Call) -> Reply:
    """Return the metadata of the administration API, or of userinfo, as a protected resource (RFC 9728)."""
    config = call.world.config
    if call.params.get("path", "") == urlsplit(config.issuer + USERINFO).path.removeprefix("/"):
        return reply(userinfo_metadata(config), headers=_BRIEFLY)
    check_suffix(call, config.api, of="resource")
    return reply(resource_metadata(config), headers=_BRIEFLY)


async def jwks(call: Call) -> Reply:
    """Return every public key whose tokens may still be valid (RFC 7517)."""
    keys = [key.jwk for key in call.world.keys.public("token").values()]
    return reply({"keys": keys}, headers=_BRIEFLY)


_document = partial(Route, "GET", scope="", protocol=OAUTH, answers={200: dict[str, Any]}, is_cross_origin=True)

ROUTES = (
    Route("GET", "/jwks", jwks, "", protocol=OAUTH, answers={200: KeySetBody}, is_cross_origin=True),
    *with_suffix(_document("/.well-known/oauth-authorization-server", authorization_server)),
    *with_suffix(_document("/.well-known/openid-configuration", openid_configuration)),
    *with_suffix(_document("/.well-known/oauth-protected-resource", protected_resource)),
)
