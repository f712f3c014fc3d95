"""RFC 8414 sections 2 and 3, OpenID Connect Discovery 1.0 sections 3 and 4, RFC 9728 sections 2 and 3, RFC 7517."""

from __future__ import annotations

import json
from typing import Any

import pytest
from authlib.oauth2.rfc8414 import AuthorizationServerMetadata as Authlib
from cryptojwt.jwk.jwk import key_from_jwk_dict
from idpyoidc.client import client_auth
from idpyoidc.message.oauth2 import ASConfigurationResponse
from idpyoidc.message.oidc import ProviderConfigurationResponse
from mcp.shared.auth import OAuthMetadata
from starlette.routing import Route

from harness.clock import Clock
from ostiary.protocol import jose
from ostiaryd.app import build_app
from ostiaryd.ground.crypto.keyring import USES
from ostiaryd.ground.world import World
from ostiaryd.tokens.wire_metadata import openid_metadata, resource_metadata, server_metadata
from ostiaryd.tokens.wire_oauth import GRANT_TYPES
from tests.support.api_fixtures import ISSUER, SECOND, Client, oauth_app, reconfigured, register, send

AS, OPENID, RS = (
    f"/.well-known/{name}"
    for name in ("oauth-authorization-server", "openid-configuration", "oauth-protected-resource")
)

WELL_KNOWN = [
    *("oauth-authorization-server", "openid-configuration", "oauth-protected-resource"),
    *("authzen-configuration", "ssf-configuration"),
]


async def test_the_issuer_of_the_metadata_equals_the_issuer_url(world: World) -> None:
    for path in (AS, OPENID):
        answer = await send(oauth_app(world), "GET", path)
        assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
        assert answer.json["issuer"] == ISSUER


async def test_the_metadata_lists_grants_methods_and_algorithms(world: World) -> None:
    said = (await send(oauth_app(world), "GET", AS)).json
    assert said["token_endpoint"] == ISSUER + "/token"
    assert said["grant_types_supported"] == list(GRANT_TYPES)
    assert said["code_challenge_methods_supported"] == ["S256"]
    assert said["authorization_details_types_supported"] == ["tool"]
    assert said["dpop_signing_alg_values_supported"] == sorted(jose.ALGS)
    for endpoint in ("token", "introspection", "revocation"):
        public = [] if endpoint == "introspection" else ["none"]
        secrets = ["client_secret_basic", "client_secret_post"]
        assert said[f"{endpoint}_endpoint_auth_methods_supported"] == [*public, "private_key_jwt", *secrets]
        algs = said[f"{endpoint}_endpoint_auth_signing_alg_values_supported"]
        assert algs == sorted(jose.ALGS)
        assert not {"none", "HS256"} & set(algs)
    assert "scopes_supported" not in said, "clients that know no better ask for all of them"
    assert said["response_types_supported"] == ["code"]
    assert said["authorization_response_iss_parameter_supported"] is True


def empty(document: Any, at: str = "") -> list[str]:
    """The paths of all empty members of a document, which RFC 8414 section 3.2 forbids."""
    if document in ([], "", {}, None):
        return [at]
    if isinstance(document, dict):
        return [path for name, value in document.items() for path in empty(value, f"{at}/{name}")]
    return [path for value in document for path in empty(value, f"{at}/*")] if isinstance(document, list) else []


async def test_no_metadata_document_has_an_empty_member(world: World) -> None:
    app = build_app(world)
    for name in WELL_KNOWN:
        answer = await send(app, "GET", f"/.well-known/{name}")
        assert answer.status == 200, name
        assert len(answer.json) > 3, name
        assert empty(answer.json) == [], name


def test_every_metadata_document_is_covered_by_the_tests(world: World) -> None:
    routes = {route.path for route in build_app(world).routes if isinstance(route, Route)}
    documents = {path.removeprefix("/.well-known/") for path in routes if path.startswith("/.well-known/")}
    assert {name for name in documents if not name.endswith("/{path:path}")} == set(WELL_KNOWN)


@pytest.mark.parametrize("name", ["oauth-authorization-server", "openid-configuration"])
async def test_third_party_libraries_accept_the_metadata(world: World, name: str) -> None:
    """Each refuses a document with an empty list, or without `response_types_supported`, or without endpoints."""
    document = (await send(oauth_app(world), "GET", f"/.well-known/{name}")).json
    assert str(OAuthMetadata.model_validate(document).issuer).rstrip("/") == ISSUER
    Authlib(document).validate()
    kind = ProviderConfigurationResponse if name == "openid-configuration" else ASConfigurationResponse
    read = kind().deserialize(json.dumps(document), "json")
    assert read.verify()
    assert read["response_types_supported"] == ["code"]


async def test_the_openid_metadata_lists_the_features_of_the_provider(world: World) -> None:
    document = (await send(oauth_app(world), "GET", OPENID)).json
    assert "RS256" in document["id_token_signing_alg_values_supported"]
    assert document["userinfo_endpoint"] == ISSUER + "/userinfo"
    assert document["end_session_endpoint"] == ISSUER + "/logout"
    assert document["backchannel_logout_session_supported"] is True
    assert document["request_parameter_supported"] is True
    assert "none" not in document["request_object_signing_alg_values_supported"]


async def test_idpyoidc_makes_assertions_for_this_server_from_its_metadata(
    world: World, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its defaults: the token endpoint as audience, no `typ`, a life of 600 seconds."""
    monkeypatch.setattr(client_auth, "utc_time_sans_frac", lambda: clock.now // SECOND)
    agent, key = await register(world)
    client = Client(oauth_app(world), world, agent.agent_id, key)
    document = (await send(client.app, "GET", OPENID)).json
    read = ProviderConfigurationResponse().deserialize(json.dumps(document), "json")
    jwk = json.loads(json.dumps(key.jwk()))
    await client.ask()
    assertion = client_auth.assertion_jwt(agent.agent_id, [key_from_jwk_dict(jwk)], read["token_endpoint"], "ES256")
    assert (await client.ask(client_assertion=assertion)).status == 200


async def test_every_endpoint_of_the_metadata_exists(world: World) -> None:
    app = build_app(world)
    said = (await send(app, "GET", OPENID)).json
    for name, url in said.items():
        if name.endswith("_endpoint"):
            assert (await send(app, "POST", url.removeprefix(ISSUER))).status in (400, 401, 415), name
    assert (await send(app, "GET", said["jwks_uri"].removeprefix(ISSUER))).status == 200


async def test_the_metadata_of_the_api_is_at_the_well_known_path_of_the_api(world: World) -> None:
    app = oauth_app(world)
    answer = await send(app, "GET", RS + "/api/v1")
    assert answer.json == (await send(app, "GET", RS)).json == resource_metadata(world.config)
    assert answer.json["resource"] == ISSUER + "/api/v1"
    assert answer.json["authorization_servers"] == [ISSUER]
    assert answer.json["dpop_bound_access_tokens_required"] is True
    assert answer.json["resource"] in server_metadata(world.config)["protected_resources"]


async def test_the_metadata_of_another_issuer_or_resource_is_not_found(world: World) -> None:
    cases: list[str] = [AS + "/other", OPENID + "/other", RS + "/api", RS + "/api/v1/", RS + "/api/v2"]
    for path in cases:
        assert (await send(oauth_app(world), "GET", path)).status == 404, path


async def test_the_path_of_an_issuer_follows_the_well_known_path(world: World) -> None:
    elsewhere = reconfigured(world, public_url=ISSUER + "/id")
    app, config = oauth_app(elsewhere), elsewhere.config
    assert (await send(app, "GET", AS + "/id")).json == server_metadata(config)
    assert (await send(app, "GET", OPENID + "/id")).json == openid_metadata(config)
    assert (await send(app, "GET", RS + "/id/api/v1")).json["resource"] == ISSUER + "/id/api/v1"


async def test_published_keys_have_one_algorithm_each_and_verify_a_token(world: World) -> None:
    agent, key = await register(world)
    app = oauth_app(world)
    keys = jose.JwkSet.parse((await send(app, "GET", "/jwks")).json)
    assert sorted(key.alg for key in keys.keys) == sorted(USES["token"])
    token = (await Client(app, world, agent.agent_id, key).token())["access_token"]
    claims = jose.verify_jwt(token, key_for=keys.key_for, typ={"at+jwt"}, now=world.now(), issuer=ISSUER)
    assert claims["client_id"] == agent.agent_id


MEMBERS = {
    "oauth-authorization-server": {
        # RFC 8414 section 2
        *("issuer", "authorization_endpoint", "token_endpoint", "jwks_uri", "introspection_endpoint"),
        *("revocation_endpoint", "registration_endpoint", "response_types_supported", "response_modes_supported"),
        *("grant_types_supported", "code_challenge_methods_supported"),
        *(
            f"{endpoint}_endpoint_auth_{what}_supported"
            for endpoint in ("token", "introspection", "revocation")
            for what in ("methods", "signing_alg_values")
        ),
        # RFC 9207, RFC 9126, RFC 8628, RFC 9101, RFC 9396, RFC 9470, RFC 9449, RFC 9728, RFC 8705
        *("authorization_response_iss_parameter_supported", "pushed_authorization_request_endpoint"),
        *("device_authorization_endpoint", "request_parameter_supported", "request_uri_parameter_supported"),
        *("request_object_signing_alg_values_supported", "authorization_details_types_supported"),
        *("acr_values_supported", "dpop_signing_alg_values_supported", "protected_resources"),
        *("tls_client_certificate_bound_access_tokens", "mtls_endpoint_aliases"),
        # Client ID metadata documents, and CIBA section 4
        "client_id_metadata_document_supported",
        *("backchannel_authentication_endpoint", "backchannel_token_delivery_modes_supported"),
        "backchannel_user_code_parameter_supported",
    },
    "oauth-protected-resource": {
        # RFC 9728 section 2
        *("resource", "resource_name", "authorization_servers", "scopes_supported", "bearer_methods_supported"),
        *("dpop_signing_alg_values_supported", "dpop_bound_access_tokens_required"),
        "tls_client_certificate_bound_access_tokens",
    },
    "ssf-configuration": {
        # Shared Signals Framework section 7.1
        *("spec_version", "issuer", "jwks_uri", "delivery_methods_supported", "configuration_endpoint"),
        *("status_endpoint", "add_subject_endpoint", "remove_subject_endpoint", "verification_endpoint"),
        *("authorization_schemes", "default_subjects"),
    },
}
MEMBERS["openid-configuration"] = MEMBERS["oauth-authorization-server"] | {
    # OpenID Connect Discovery section 3, RP-Initiated Logout section 2.1, Back-Channel Logout section 2.1
    *("userinfo_endpoint", "end_session_endpoint", "scopes_supported", "claims_supported", "claim_types_supported"),
    *("claims_parameter_supported", "subject_types_supported", "id_token_signing_alg_values_supported"),
    *("prompt_values_supported", "backchannel_logout_supported", "backchannel_logout_session_supported"),
}


async def test_a_metadata_document_has_the_members_of_its_specifications(world: World) -> None:
    app = build_app(reconfigured(world, client_registration="open", mtls_listen="127.0.0.1:8743"))
    for name in MEMBERS:
        assert set((await send(app, "GET", f"/.well-known/{name}")).json) == MEMBERS[name], name
