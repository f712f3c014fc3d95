"""The roles of cert methods, for logins by client certificates (HashiCorp Vault, "TLS certificate auth method
(API)").
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import UNSET, UnsetType

from ostiary.protocol.decoding import convert
from ostiaryd.secrets.engines.login_methods import LoginMethod
from ostiaryd.secrets.model.certificate_login import LISTS, CertificateRole, check_role
from ostiaryd.secrets.model.login_role import TOKEN_DEFAULTS, RoleBody


class _Role(RoleBody):
    certificate: str | UnsetType = UNSET
    display_name: str | UnsetType = UNSET
    allowed_names: str | list[str] | UnsetType = UNSET
    allowed_common_names: str | list[str] | UnsetType = UNSET
    allowed_dns_sans: str | list[str] | UnsetType = UNSET
    allowed_email_sans: str | list[str] | UnsetType = UNSET
    allowed_uri_sans: str | list[str] | UnsetType = UNSET
    allowed_organizational_units: str | list[str] | UnsetType = UNSET


def _check(settings: Mapping[str, object]) -> None:
    check_role(convert(settings, CertificateRole))


_OCSP = "this server refuses its own revoked certificates at once, and accepts other certificates until they expire"
METHOD = LoginMethod(
    folder="certs",
    body=_Role,
    check=_check,
    lists=LISTS,
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
