"""The configuration and the roles of JWT methods (HashiCorp Vault, "JWT/OIDC auth method (API)")."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import asdict

from ostiary.protocol.decoding import convert
from ostiary.protocol.errors import Invalid
from ostiaryd.ground.outbound.fetch import check_named
from ostiaryd.secrets.engines.login_methods import LoginMethod, refuse_members
from ostiaryd.secrets.model.jwt_login import JwtConfig, JwtRole, check_config, check_role
from ostiaryd.secrets.model.login_role import TOKEN_DEFAULTS, RoleBody
from ostiaryd.secrets.model.request import VaultRequest, parse_texts

_LEEWAYS = ("clock_skew_leeway", "expiration_leeway", "not_before_leeway")
_BROWSER = "agents log in without a browser"
_OIDC_CONFIG = (
    "oidc_client_id",
    "oidc_client_secret",
    "oidc_response_mode",
    "oidc_response_types",
    "provider_config",
    "jwks_pairs",
)
_OIDC_ROLE = ("oidc_scopes", "max_age")


class _Config(Struct):
    oidc_discovery_url: str = ""
    oidc_discovery_ca_pem: str = ""
    jwks_url: str = ""
    jwks_ca_pem: str = ""
    jwt_validation_pubkeys: str | list[str] = []
    jwt_supported_algs: str | list[str] = []
    bound_issuer: str = ""
    default_role: str = ""


class _Role(RoleBody):
    role_type: str | UnsetType = UNSET
    user_claim: str | UnsetType = UNSET
    user_claim_json_pointer: bool | UnsetType = UNSET
    groups_claim: str | UnsetType = UNSET
    bound_audiences: str | list[str] | UnsetType = UNSET
    bound_subject: str | UnsetType = UNSET
    bound_claims: dict[str, Any] | UnsetType = UNSET
    bound_claims_type: str | UnsetType = UNSET
    claim_mappings: dict[str, str] | str | list[str] | UnsetType = UNSET
    clock_skew_leeway: int | str | UnsetType = UNSET
    expiration_leeway: int | str | UnsetType = UNSET
    not_before_leeway: int | str | UnsetType = UNSET
    allowed_redirect_uris: str | list[str] | UnsetType = UNSET
    verbose_oidc_logging: bool | UnsetType = UNSET


def _parse_config(request: VaultRequest, private: Collection[str]) -> JwtConfig:
    refuse_members(request.body, dict.fromkeys(_OIDC_CONFIG, _BROWSER))
    members = asdict(request.read_body(_Config))
    for name in ("jwt_validation_pubkeys", "jwt_supported_algs"):
        members[name] = parse_texts(members[name], field=name)
    config = convert(members, JwtConfig)
    check_config(config)
    if config.url:
        check_named(config.url, of="the URL of the keys", private=private)
    return config


def _check(settings: Mapping[str, object]) -> None:
    match settings.get("role_type", "oidc"):
        case "jwt":
            check_role(convert(settings, JwtRole))
        case "oidc":
            raise Invalid("`role_type` oidc, which is the default of Vault, is not supported", hint="set role_type=jwt")
        case other:
            raise Invalid(f"invalid 'role_type': {str(other)[:64]}", hint="set role_type=jwt")


METHOD = LoginMethod(
    folder="role",
    body=_Role,
    check=_check,
    lists=("allowed_redirect_uris", "bound_audiences"),
    pairs=("claim_mappings",),
    leeways=_LEEWAYS,
    parse_config=_parse_config,
    config_defaults={
        "oidc_client_id": "",
        "oidc_response_mode": "",
        "oidc_response_types": [],
        "provider_config": {},
    },
    role_defaults={
        **TOKEN_DEFAULTS,
        "allowed_redirect_uris": [],
        "bound_audiences": [],
        "bound_claims": {},
        "bound_claims_type": "string",
        "bound_subject": "",
        "claim_mappings": {},
        "clock_skew_leeway": 0,
        "expiration_leeway": 0,
        "groups_claim": "",
        "not_before_leeway": 0,
        "role_type": "jwt",
        "user_claim": "",
        "user_claim_json_pointer": False,
        "verbose_oidc_logging": False,
    },
    unsupported=dict.fromkeys(_OIDC_ROLE, _BROWSER),
)
