"""The configuration and the roles of kubernetes methods (HashiCorp Vault, "Kubernetes auth method (API)")."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import asdict

from ostiary.protocol.decoding import convert
from ostiaryd.ground.outbound.fetch import check_named
from ostiaryd.secrets.engines.login_methods import LoginMethod, refuse_members
from ostiaryd.secrets.model.kubernetes_login import KubernetesConfig, KubernetesRole, check_config, check_role
from ostiaryd.secrets.model.login_role import TOKEN_DEFAULTS, RoleBody
from ostiaryd.secrets.model.request import VaultRequest

_LISTS = ("bound_service_account_names", "bound_service_account_namespaces")
_UNSUPPORTED_CONFIG = {
    "token_reviewer_jwt": "each login sends its own token for the review; bind the service account to the cluster role "
    "system:auth-delegator, and leave out this member",
    "pem_keys": "the cluster verifies the tokens; use a jwt method to verify tokens with keys",
    "issuer": "the cluster verifies the tokens",
}


class _Config(Struct):
    kubernetes_host: str = ""
    kubernetes_ca_cert: str = ""
    disable_local_ca_jwt: bool = False


class _Role(RoleBody):
    bound_service_account_names: str | list[str] | UnsetType = UNSET
    bound_service_account_namespaces: str | list[str] | UnsetType = UNSET
    audience: str | UnsetType = UNSET
    alias_name_source: str | UnsetType = UNSET


def _parse_config(request: VaultRequest, private: Collection[str]) -> KubernetesConfig:
    refuse_members(request.body, _UNSUPPORTED_CONFIG)
    config = convert(asdict(request.read_body(_Config)), KubernetesConfig)
    check_config(config)
    check_named(config.kubernetes_host, of="`kubernetes_host`", private=private)
    return config


def _check(settings: Mapping[str, object]) -> None:
    check_role(convert(settings, KubernetesRole))


METHOD = LoginMethod(
    folder="role",
    body=_Role,
    check=_check,
    lists=_LISTS,
    parse_config=_parse_config,
    config_defaults={
        "disable_iss_validation": True,
        "issuer": "",
        "pem_keys": [],
        "token_reviewer_jwt_set": False,
    },
    role_defaults={
        **TOKEN_DEFAULTS,
        **{name: [] for name in _LISTS},
        "bound_service_account_namespace_selector": "",
        "audience": "",
        "alias_name_source": "serviceaccount_uid",
    },
    unsupported={"bound_service_account_namespace_selector": "list `bound_service_account_namespaces`"},
)
