"""The tests of others that this server does not pass, each with the reason that the page on conformance gives."""

from __future__ import annotations

_PKI = "there is no pki engine"
_JWT = "tokens of other issuers are trusted by the server, and there is no identity engine"
_EXPORT = "keys stay in the server"
HVAC: dict[str, str] = {
    "test_jwt::": _JWT,
    "test_lease::": _PKI,
    "test_pki::": _PKI,
    "test_transit::test_backup_key": _EXPORT,
    "test_transit::test_export_key": _EXPORT,
    "test_transit::test_restore_key": _EXPORT,
    "test_transit::test_trim_key": _EXPORT,
}
"""the beginning of `MODULE::TEST`, to the reason"""
