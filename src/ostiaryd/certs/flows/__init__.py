"""Operations on certificate authorities and on certificates."""

from ostiaryd.certs.flows.authorities import (
    Issuer,
    chain_of,
    check_hsm,
    find_authority,
    open_issuer,
    ready_issuer,
    sign_request,
)
from ostiaryd.certs.flows.issuing import check_issue, check_not_blocked, issue, load_profiles
from ostiaryd.certs.flows.own_tls import TlsFiles, renew_tls, renew_tls_at_start, tls_files, tls_password
from ostiaryd.certs.flows.revoking import (
    check_concerned,
    find_bar_of_holder,
    find_certificate,
    find_presented,
    forget,
    is_live,
    revoke,
)
from ostiaryd.certs.flows.rotation import end_below_revoked, keep_authorities
from ostiaryd.certs.store.authorities import trust_bundle
from ostiaryd.certs.store.certificates import count_certificates, list_live
from ostiaryd.certs.store.trust_domains import list_trust_domains

__all__ = [
    "Issuer",
    "TlsFiles",
    "chain_of",
    "check_concerned",
    "check_hsm",
    "check_issue",
    "check_not_blocked",
    "count_certificates",
    "end_below_revoked",
    "find_authority",
    "find_bar_of_holder",
    "find_certificate",
    "find_presented",
    "forget",
    "is_live",
    "issue",
    "keep_authorities",
    "list_live",
    "list_trust_domains",
    "load_profiles",
    "open_issuer",
    "ready_issuer",
    "renew_tls",
    "renew_tls_at_start",
    "revoke",
    "sign_request",
    "tls_files",
    "tls_password",
    "trust_bundle",
]
