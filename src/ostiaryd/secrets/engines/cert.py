"""The roles of cert methods, for logins by client certificates (HashiCorp Vault, "TLS certificate auth method
(API)").
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import UNSET, UnsetType

from ostiary.protocol.decoding import convert
from ostiaryd.secrets.engines.login_methods import LoginMethod
from ostiaryd.secrets.flows import login_roles as flows
from ostiaryd.secrets.flows.callers import VaultCaller
from ostiaryd.secrets.model.certificate_login import LISTS, CertificateRole, check_role
from ostiaryd.secrets.model.login_role import TOKEN_DEFAULTS, RoleBody
from ostiaryd.secrets.model.request import parse_texts


class _Role(RoleBody):
    certificate: str | UnsetType = UNSET
    display_name: str | UnsetType = UNSET
    allowed_names: str | list[str] | UnsetType = UNSET
    allowed_common_names: str | list[str] | UnsetType = UNSET
    allowed_dns_sans: str | list[str] | UnsetType = UNSET
    allowed_email_sans: str | list[str] | UnsetType = UNSET
    allowed_uri_sans: str | list[str] | UnsetType = UNSET
    allowed_organizational_units: str | list[str] | UnsetType = UNSET


def _change(caller: VaultCaller, changes: dict[str, Any], present: Mapping[str, object]) -> dict[str, object]:
    """Return the settings of a role: `present`, changed by the members in `changes`. Raises Invalid."""
    for name in LISTS:
        if name in changes:
            changes[name] = parse_texts(changes[name])
    settings = flows.change_settings(caller, changes, present)
    check_role(convert(settings, CertificateRole))
    return settings


_OCSP = "this server refuses its own revoked certificates at once, and accepts other certificates until they expire"
METHOD = LoginMethod(
    folder="certs",
    body=_Role,
    change=_change,
    role_defaults={
        **TOKEN_DEFAULTS,
        "certificate": "",
        "display_name": "",
        **{name: [] for name in LISTS},
        "required_extensions": [],
        "allowed_metadata_extensions": [],
        "ocsp_enabled": False,
    },
    unsupported={
        "required_extensions": "a role accepts certificates by their names only",
        "allowed_metadata_extensions": "the metadata of a token contain only names and identifiers of its certificate",
        **dict.fromkeys(("ocsp_enabled", "ocsp_servers_override"), _OCSP),
    },
)
