"""Operations on the certificates that issuers of a mount sign: roles, issue, intermediates, revocation, and leases.

A certificate is a holding of the agent that requested the certificate: it ends with the agent, the task and the key of
the request. A certificate with a lease also ends with the token of the request.
"""

from __future__ import annotations

from collections.abc import Sequence

from cryptography import x509
from cryptography.x509.oid import AuthorityInformationAccessOID

from ostiary.protocol.certificate import load_pem_certificates
from ostiary.protocol.errors import Forbidden, Invalid
from ostiaryd.certs.model.authority import (
    build_authority_certificate,
    check_constraints,
    instant,
    is_permitted,
    read_begin,
    read_end,
    read_permitted,
)
from ostiaryd.certs.model.certificate import build_certificate, encode_extension
from ostiaryd.certs.model.keys import (
    parse_public_key,
)
from ostiaryd.certs.model.names import CertificateName, check_uris
from ostiaryd.certs.model.requests import CertificateSigningRequest
from ostiaryd.ground.database import Reader, Tx
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import AgentId, Holding, HoldingId
from ostiaryd.secrets import store
from ostiaryd.secrets.flows.pki_issuers import (
    SignedCertificate,
    Signer,
    chain_of,
    check_authority,
    check_key,
    check_path_length,
    choose_start,
    end_certificate,
    find_max_ttl,
    holding_of,
    make_new_serial,
    open_signer,
    parse_domains,
    public_key_of,
    read_mount,
    subject_of,
)
from ostiaryd.secrets.model.mount import DEFAULT_TTL_S
from ostiaryd.secrets.model.pki import (
    HOLDING,
    MAX_ROLES,
    AuthorityOrder,
    PkiCertificate,
    PkiRole,
    PkiSettings,
    is_issued_by,
    parse_key_usage,
    parse_usages,
    rebuild_subject,
    render_serial,
)
from ostiaryd.secrets.model.request import SECOND
from ostiaryd.secrets.model.token import TOKEN_KIND
from ostiaryd.tasks import flows as tasks

MAX_LISTED = 10_000
MAX_ENDED = 1_000
"""Maximum number of certificates in force that one act ends: with their mount, or by one request."""
FORGOTTEN_AT_ONCE = 1_000


def sign_intermediate(
    act: Act, mount: str, order: AuthorityOrder, csr: CertificateSigningRequest, *, ref: str
) -> SignedCertificate:
    """Sign the certificate of an authority below the issuer `ref` (an id, a name or `default`), from its certificate
    request; return the certificate with its chain. Raises Invalid for a member of `order` or `csr` that is not valid;
    IssuerNotFound for an unknown issuer; Forbidden if the certificate could not end later than now, because the agent
    or the task of the caller ends.
    """
    act.check_granting()
    signer = open_signer(act, mount, ref)
    subject = rebuild_subject(csr.subject) if order.use_csr_values else subject_of(order)
    if not list(subject):
        raise Invalid("the subject of the authority is empty")
    longest = find_max_ttl(act, mount)
    return _sign_authority(
        act,
        signer,
        subject=subject,
        public_key=csr.public_key,
        not_before=choose_start(act.now),
        not_after=_choose_end(act, signer, min(order.ttl or longest, longest), is_authority=True),
        path_length=check_path_length(check_authority(signer.certificate).path_length, order.max_path_length),
        permitted=parse_domains(order),
    )


def sign_self_issued(act: Act, mount: str, text: str, *, ref: str) -> SignedCertificate:
    """Sign, by the issuer `ref`, a certificate for the key and the name of another root, whose self-issued certificate
    is `text` (PEM); return the new certificate with its chain. The new certificate ends at the latest with the
    self-issued one and with the certificate of the issuer. Raises Malformed if `text` is not PEM, Invalid if it is not
    exactly one self-issued certificate of an authority, or the issuer may not certify it; IssuerNotFound for an unknown
    issuer.
    """
    act.check_granting()
    certificate, *others = load_pem_certificates(text)
    if others or certificate.issuer != certificate.subject or not is_issued_by(certificate, certificate):
        raise Invalid("`certificate` must be exactly one self-issued certificate")
    basic = check_authority(certificate)
    check_constraints(certificate)
    signer = open_signer(act, mount, ref)
    above = check_authority(signer.certificate).path_length
    not_before, not_after = read_begin(certificate), min(read_end(certificate), read_end(signer.certificate))
    if not_before >= not_after:
        raise Invalid(
            "`certificate` begins after its own end, or after the end of the issuer", hint="choose another issuer"
        )
    return _sign_authority(
        act,
        signer,
        subject=certificate.subject,
        public_key=public_key_of(certificate),
        not_before=not_before,
        not_after=not_after,
        path_length=check_path_length(above, -1 if basic.path_length is None else basic.path_length),
        permitted=read_permitted(certificate),
    )


def _sign_authority(
    act: Act,
    signer: Signer,
    *,
    subject: x509.Name,
    public_key: bytes,
    not_before: int,
    not_after: int,
    path_length: int | None,
    permitted: Sequence[str],
) -> SignedCertificate:
    checked, serial = check_key(act, public_key), make_new_serial(act)
    if checked.digest == signer.issuer.key_digest:
        raise Invalid("the key to certify is the issuer's own key")
    key_id = signer.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    try:
        der = build_authority_certificate(
            subject=subject,
            key=parse_public_key(public_key),
            issuer=signer.certificate.subject,
            issuer_key=signer.key,
            issuer_key_id=key_id,
            serial=int(serial, 16),
            not_before=not_before,
            not_after=not_after,
            path_length=path_length,
            permitted=permitted,
            locations=read_locations(store.pki.settings(act.tx, signer.issuer.mount)),
        )
    except ValueError:  # the subject of another root may have any encoding
        raise Invalid("the subject cannot be encoded") from None
    return _keep(act, signer, serial=serial, der=der, not_after=not_after, lease=None)


def find_role(act: Act, mount: str, name: str) -> PkiRole:
    """Return the role `name` of a PKI mount. Raises Invalid, as Vault does, for an unknown role."""
    if (role := store.pki.role(act.tx, mount, name)) is None:
        raise Invalid(f"unknown role: {name[:128]}", code="no_role")
    return role


def put_role(act: Act, mount: str, name: str, role: PkiRole) -> None:
    """Store a role of a PKI mount. Raises Invalid for a new role if the mount has the maximum number of roles."""
    if (
        store.pki.role(act.tx, mount, name) is None
        and len(store.pki.roles(act.tx, mount, limit=MAX_ROLES)) >= MAX_ROLES
    ):
        raise Invalid(f"the mount has {MAX_ROLES} roles, which is the limit", hint="delete a role of the mount")
    store.pki.put_role(act.tx, mount, name, role)


def sign_certificate(
    act: Act,
    mount: str,
    role: PkiRole,
    *,
    ref: str,
    subject: x509.Name,
    names: tuple[CertificateName, ...],
    public_key: bytes,
    ttl: int,
    lease: str = "",
) -> SignedCertificate:
    """Sign a certificate of an agent by the issuer `ref` (an id, a name or `default`); return it with its chain. The
    caller of this function must have checked that `role` allows the names.

    `ttl`: seconds; 0: the lifetime of the role or of the mount. `lease`: the path with which the id of the
    certificate's lease begins; empty: no lease. Raises Invalid for a name or a key that the issuer may not certify, for
    no name at all, and for an end after that of the issuer; IssuerNotFound for an unknown issuer; Forbidden if the
    certificate could not end later than now, because the agent, the task or (with a lease) the Vault token of the
    caller ends.
    """
    act.check_granting()
    signer = open_signer(act, mount, ref)
    check_key(act, public_key)
    serial, permitted = make_new_serial(act), read_permitted(signer.certificate)
    for name in names:
        if not is_permitted(permitted, name):
            raise Invalid(f"the issuer may only certify names in {' '.join(permitted)}", code="foreign_name")
    check_uris(names)
    if not names and not list(subject):
        raise Invalid(
            "the request has no name; a certificate needs at least one", hint="state `common_name` or `alt_names`"
        )
    longest = min(role.max_ttl or find_max_ttl(act, mount), find_max_ttl(act, mount))
    seconds = ttl or role.ttl or read_mount(act, mount).default_ttl or DEFAULT_TTL_S
    not_after = _choose_end(act, signer, min(seconds, longest), has_lease=bool(lease))
    registry.fill_entry(act, object=act.entry.object or mount, names=[str(name)[:200] for name in names[:20]])
    der = build_certificate(
        issuer=signer.certificate,
        issuer_key=signer.key,
        serial=serial,
        subject=subject,
        public_key=public_key,
        names=names,
        usages=parse_usages(role, role.ext_key_usage),
        not_before=max(choose_start(act.now, role.not_before_duration), read_begin(signer.certificate)),
        not_after=not_after,
        locations=b"".join(map(encode_extension, read_locations(store.pki.settings(act.tx, mount)))),
        key_usage=parse_key_usage(role.key_usage),
    )
    lease_id = f"{lease}/{act.tx.random(16).hex()}" if lease else None
    return _keep(act, signer, serial=serial, der=der, not_after=not_after, lease=lease_id)


def _keep(act: Act, signer: Signer, *, serial: str, der: bytes, not_after: int, lease: str | None) -> SignedCertificate:
    """Store a signed certificate and its holding; return the certificate with its chain. A certificate that has expired
    already is not stored.
    """
    agent, task, login = _find_login(act)
    certificate = PkiCertificate(
        serial=serial,
        mount=signer.issuer.mount,
        issuer=signer.issuer.issuer_id,
        lease=lease,
        agent=agent,
        task=task,
        der=der,
        not_after=not_after,
        issued_at=act.now,
    )
    if not_after > act.now:
        store.pki.insert(act.tx, certificate)
        holding = Holding(
            id=HoldingId(holding_of(serial)),
            kind=HOLDING,
            agent=agent,
            task=task,
            parent=login.id if lease and login.kind == TOKEN_KIND else None,
            client_jkt=login.client_jkt or login.jkt,
            expires_at=not_after,
        )
        registry.add_holding(act, holding)
    registry.fill_entry(act, object=act.entry.object or "", serial=serial, issuer=signer.issuer.issuer_id)
    return SignedCertificate(certificate, signer.issuer, chain_of(act.tx, signer.issuer))


def _find_login(act: Act) -> tuple[AgentId, str, Holding]:
    """Return the agent, the task and the token of the caller that the act's ledger entry names."""
    entry = act.entry
    assert entry.agent is not None
    assert entry.task is not None
    login = registry.get_holding(act.tx, entry.token or "")
    assert login is not None
    return AgentId(entry.agent), entry.task, login


def _choose_end(act: Act, signer: Signer, seconds: int, *, has_lease: bool = False, is_authority: bool = False) -> int:
    """Return the end (microseconds) of a new certificate: after `seconds`, but at the latest with its agent, its task
    and, if it has a lease, the caller's Vault token.

    The certificate of an authority ends at the latest with its issuer; any other certificate that would end after its
    issuer raises Invalid.
    """
    agent, task, login = _find_login(act)
    end, last = act.now + seconds * SECOND, read_end(signer.certificate)
    if end > last and not is_authority:
        raise Invalid(f"cannot satisfy request, as TTL would result in notAfter beyond that of the CA, {instant(last)}")
    declared = tasks.get_task(act.tx, task)
    roots = [registry.find_agent(act.tx, agent).expires_at, None if declared is None else declared.expires_at]
    if has_lease and login.kind == TOKEN_KIND:
        roots.append(login.expires_at)
    end = min([end, last, *(one for one in roots if one is not None)]) // SECOND * SECOND
    if end <= act.now:
        raise Forbidden("the certificate would end at once, because its agent, task or token ends", code="ending")
    return end


def read_locations(settings: PkiSettings) -> list[x509.ExtensionType]:
    """Return the extensions with the URLs of a mount's issuers, responders and revocation lists."""
    access = [
        x509.AccessDescription(method, x509.UniformResourceIdentifier(url))
        for method, urls in (
            (AuthorityInformationAccessOID.OCSP, settings.ocsp_servers),
            (AuthorityInformationAccessOID.CA_ISSUERS, settings.issuing_certificates),
        )
        for url in urls
    ]
    points = [
        x509.DistributionPoint([x509.UniformResourceIdentifier(url)], None, None, None)
        for url in settings.crl_distribution_points
    ]
    extensions: list[x509.ExtensionType] = [x509.AuthorityInformationAccess(access)] if access else []
    return [*extensions, x509.CRLDistributionPoints(points)] if points else extensions


def revoke_certificate(act: Act, mount: str, serial: str) -> PkiCertificate:
    """Revoke a certificate of an agent, and return it. A certificate that is revoked already is returned unchanged.
    Raises Invalid for an unknown serial number, and for the certificate of an issuer of this mount (see
    `revoke_issuer`).
    """
    certificate = store.pki.get(act.tx, mount, serial)
    if certificate is None:
        raise Invalid(f"certificate with serial {render_serial(serial)} not found.")
    if certificate.agent is None:
        raise Invalid(
            "adding an issuer to its own revocation list is not allowed",
            hint="to revoke the issuer, write issuer/REF/revoke",
        )
    registry.fill_entry(act, object=f"{mount}/cert/{serial}", serial=serial, agent=certificate.agent)
    return end_certificate(act, certificate)


def find_own_lease(act: Act, lease: str) -> PkiCertificate:
    """Return the certificate in force whose lease id is `lease`, if it belongs to the caller's agent. Raises Invalid if
    there is none.
    """
    certificate = store.pki.get_by_lease(act.tx, lease)
    is_own = certificate is not None and certificate.agent == act.entry.agent
    if certificate is None or not is_own or certificate.revoked_at is not None or certificate.not_after <= act.now:
        raise Invalid("invalid lease", hint="the lease is unknown, has ended, or belongs to another agent")
    return certificate


def list_leases(reader: Reader, prefix: str, *, now: int) -> list[PkiCertificate]:
    """Return the certificates in force whose lease ids are below the path `prefix`, at most `MAX_ENDED` + 1; or, if
    `prefix` is a whole lease id, its certificate if in force. `now`: microseconds.
    """
    own = store.pki.get_by_lease(reader, prefix)
    if own is not None:
        return [own] if own.revoked_at is None and now < own.not_after else []
    return store.pki.below_lease(reader, prefix, now=now, limit=MAX_ENDED + 1)


def revoke_leases(act: Act, prefix: str) -> None:
    """Revoke the certificates whose lease ids are below the path `prefix`; or, if `prefix` is a whole lease id, its
    certificate. Raises Invalid if there are more than `MAX_ENDED`.
    """
    leases = list_leases(act.tx, prefix, now=act.now)
    if len(leases) > MAX_ENDED:
        raise Invalid(
            f"more than {MAX_ENDED} leases have this prefix", hint="revoke the leases in parts, by a longer prefix"
        )
    for one in leases:
        end_certificate(act, one)
    registry.fill_entry(act, object=act.entry.object or prefix, revoked=len(leases))


def clear_mount(act: Act, mount: str) -> None:
    """Delete all issuers, roles, settings and certificates of a PKI mount; the agents' certificates in force are
    revoked first. Raises Invalid if more than `MAX_ENDED` are in force.
    """
    live = store.pki.live_of_mount(act.tx, mount, now=act.now, limit=MAX_ENDED + 1)
    if len(live) > MAX_ENDED:
        raise Invalid(
            f"more than {MAX_ENDED} certificates of the mount are in force",
            hint="revoke some of the certificates first",
        )
    for one in live:
        end_certificate(act, one)
    store.pki.clear(act.tx, mount)


async def forget_certificates(world: World) -> None:
    """Delete certificates that expired more than a day ago, in small batches."""

    def prune(tx: Tx) -> int:
        return store.pki.prune(tx, limit=FORGOTTEN_AT_ONCE)

    while await world.writer.submit(prune) == FORGOTTEN_AT_ONCE:
        pass
