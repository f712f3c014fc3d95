"""Issuance of certificates: the profile and the policies decide, and the certificate, its holding and the ledger entry
commit together.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from cryptography import x509
from cryptography.x509.oid import AuthorityInformationAccessOID

from ostiary.authorization.claims import Link
from ostiary.protocol.errors import Conflict, Forbidden, Invalid
from ostiaryd.certs import store
from ostiaryd.certs.flows.authorities import ready_issuer
from ostiaryd.certs.model.authority import BACKDATED_S, SECOND, is_permitted
from ostiaryd.certs.model.certificate import (
    HOLDING,
    Certificate,
    CertificateRequest,
    IssuedCertificate,
    build_certificate,
    encode_extension,
    encode_names,
    holding_id,
    make_serial,
    parse_serial,
    shard_of,
)
from ostiaryd.certs.model.keys import BadKey, CheckedKey, check_public_key
from ostiaryd.certs.model.names import CertificateName
from ostiaryd.certs.model.profiles import (
    ForeignName,
    HolderKind,
    Profile,
    choose_lifetime,
    choose_names,
    find_profile,
    parse_profiles,
)
from ostiaryd.ground.config import Config, read_certificate_profiles
from ostiaryd.ground.database import Reader
from ostiaryd.ledger.flows import Act
from ostiaryd.policy import flows as policy
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Agent, AgentId, Holding, HoldingId, Person
from ostiaryd.tasks import flows as tasks
from ostiaryd.tasks.model import standing_id

SERVER = "server"
"""name of the holder, and subject, of the certificates of the server itself"""


class Holder(NamedTuple):
    """The agent, person or server that a new certificate is for. `ends`: the times (microseconds) at which the agent
    and the task expire; the certificate ends no later than the earliest of these times.
    """

    kind: HolderKind
    id: str
    name: str
    agent: Agent | None = None
    task: str | None = None
    chain: tuple[Link, ...] = ()
    person: str | None = None
    """id of the person for whom the agent acts"""
    ends: tuple[int, ...] = ()
    person_record: Person | None = None


@lru_cache(maxsize=8)
def load_profiles(file: str) -> dict[str, Profile]:
    """Return the profiles by name: the built-in profiles, and the profiles in the file with the path `file`; empty: no
    file. Raises Invalid for an unreadable file or an invalid profile.
    """
    return parse_profiles(read_certificate_profiles(file))


def issue(act: Act, request: CertificateRequest, *, config: Config) -> IssuedCertificate:
    """Issue a certificate, and return it with its chain.

    1. Find the profile and the holder. The holder must be active, and the task live. 2. Check the key, the names and
    the lifetime against the profile. 3. Evaluate the policies for the agent or the person. 4. Sign the certificate, and
    store the certificate and its holding, the record that ends with the holder and the task. The certificate ends at
    the latest when its holder or its task ends, or when the key that authenticated the request is revoked.

    Raises NotFound for an unknown holder or profile, Invalid for a member that is not valid, BadKey for the key,
    ForeignName for a name, Conflict if the key is taken or a limit is reached, and Forbidden (`access_denied`, or the
    state of the holder).
    """
    act.check_granting()
    serial = make_serial(act.now, act.tx.random(10))
    registry.fill_entry(act, object=serial, profile=request.profile[:64], names=encode_names(request.names)[:500])
    profile = find_profile(load_profiles(config.certificate_profiles), request.profile)
    holder = _find_holder(act, agent=request.agent, person=request.person, task=request.task)
    key = _check_key(act.tx, request.public_key, profile, holder)
    registry.fill_entry(act, object=serial, key=key.digest, key_type=key.key_type)
    names, lifetime_s = _decide(act, profile, holder, request.names, key.key_type, request.lifetime_s, config=config)
    if names != request.names:
        registry.fill_entry(act, object=serial, names=encode_names(names)[:500])
    _check_replaced(act, request.replaces, holder)
    issuer = ready_issuer(act, config=config)
    for name in names:
        if not is_permitted(issuer.authority.permitted, name):
            raise ForeignName(
                f"the authority may not certify {str(name)[:200]!a}",
                hint=f"permitted DNS names, each with its subdomains: {' '.join(issuer.authority.permitted)[:300]}",
            )
    not_after = min(act.now + lifetime_s * SECOND, issuer.authority.not_after, *holder.ends) // SECOND * SECOND
    if not_after <= act.now:
        message = "the certificate would have no lifetime: its agent, its task or the issuing authority ends now"
        raise Forbidden(message, code="ending")
    not_before = max(act.now - BACKDATED_S * SECOND, issuer.authority.not_before) // SECOND * SECOND
    der = build_certificate(
        issuer=issuer.certificate,
        issuer_key=issuer.key,
        serial=serial,
        subject=(holder.id or SERVER) if request.has_subject else "",
        public_key=request.public_key,
        names=names,
        usages=profile.usages,
        not_before=not_before,
        not_after=not_after,
        locations=_encode_locations(config.status_base, issuer.authority.authority_id, shard_of(serial)),
    )
    certificate = Certificate(
        serial=serial,
        authority=issuer.authority.authority_id,
        profile=profile.name,
        holder=holder.id or None,
        task=holder.task,
        names=names,
        key_type=key.key_type,
        key_digest=key.digest,
        der=der,
        not_before=not_before,
        not_after=not_after,
        issued_at=act.now,
    )
    _store(act, certificate, jkt=key.jkt, request=request)
    registry.fill_entry(
        act, object=serial, thumbprint=certificate.thumbprint, not_after=not_after // SECOND, replaces=request.replaces
    )
    return IssuedCertificate(certificate, issuer.chain)


def check_issue(
    act: Act,
    *,
    profile: str,
    names: Sequence[CertificateName],
    agent: str | None = None,
    person: str | None = None,
    task: str | None = None,
    key_type: str = "P-256",
    lifetime_s: int | None = None,
    config: Config,
) -> tuple[CertificateName, ...]:
    """Check that a holder may get a certificate with these properties, and return the names of the certificate. Issues
    nothing.

    Raises the errors of `issue`, except the errors about the key.
    """
    ready_profile = find_profile(load_profiles(config.certificate_profiles), profile)
    holder = _find_holder(act, agent=agent, person=person, task=task)
    return _decide(act, ready_profile, holder, names, key_type, lifetime_s, config=config)[0]


def _decide(
    act: Act,
    profile: Profile,
    holder: Holder,
    requested: Sequence[CertificateName],
    key_type: str,
    requested_s: int | None,
    *,
    config: Config,
) -> tuple[tuple[CertificateName, ...], int]:
    """Check a request against the profile and the policies; return the names of the certificate and its lifetime in
    seconds.
    """
    if holder.kind not in profile.holders:
        raise Forbidden(
            f"the profile `{profile.name}` is not for holders of the kind {holder.kind}", code="wrong_profile"
        )
    names = choose_names(profile, tuple(requested), holder=holder.name, trust_domain=config.trust_domain)
    lifetime_s = choose_lifetime(profile, requested_s)
    if holder.agent is not None:
        policy.check_certificate(
            act,
            holder.agent,
            policy.TaskChain(holder.task or "", holder.chain, holder.person),
            profile=profile.name,
            names=frozenset(map(str, names)),
            key_type=key_type,
            lifetime_s=lifetime_s,
        )
    if holder.person_record is not None:
        policy.check_person_certificate(
            act.tx,
            holder.person_record,
            profile=profile.name,
            names=frozenset(map(str, names)),
            key_type=key_type,
            lifetime_s=lifetime_s,
            now=act.now,
        )
    return names, lifetime_s


def _store(act: Act, certificate: Certificate, *, jkt: str, request: CertificateRequest) -> None:
    """Store a certificate with its holding. This act has checked that the holder is active, and that the certificate
    ends in the future.
    """
    replaces = None if request.replaces is None else parse_serial(request.replaces)
    store.certificates.insert(act.tx, certificate, replaces=replaces)
    if certificate.holder is not None:
        holding = Holding(
            id=HoldingId(holding_id(certificate.serial)),
            kind=HOLDING,
            agent=AgentId(certificate.holder),
            task=certificate.task,
            jkt=jkt,
            client_jkt=request.client_jkt,
            ath=certificate.thumbprint,
            expires_at=certificate.not_after,
        )
        registry.insert_holding(act.tx, holding)


def _find_holder(act: Act, *, agent: str | None, person: str | None, task: str | None) -> Holder:
    """Return the holder of a new certificate: an agent, a person, or the server. Raises NotFound for an unknown agent
    or person, Forbidden for the task of another agent, Invalid if both are named.
    """
    if person is not None:
        if agent is not None:
            raise Invalid("a certificate belongs to an agent or to a person, not to both")
        if task is not None:
            raise Invalid("a certificate of a person has no task", hint="leave `task` out")
        record = registry.active_person(act, person)
        registry.check_person_not_stopped(act.tx, record.person_id)
        registry.fill_entry(act, object=act.entry.object or "", person=record.person_id)
        return Holder("person", record.person_id, record.name, person_record=record)
    if agent is None:
        return Holder("server", "", SERVER)
    holder = registry.active_agent(act.tx, agent, now=act.now)
    act.entry.agent, act.entry.owner = act.entry.agent or holder.agent_id, holder.owner
    registry.fill_entry(act, object=act.entry.object or "", agent=holder.agent_id)
    standing = standing_id(holder.agent_id)
    ends = () if holder.expires_at is None else (holder.expires_at,)
    if task is None or task == standing:
        registry.check_none_stopped(act.tx, "task", [standing])
        return Holder("agent", holder.agent_id, holder.name, holder, standing, ends=ends)
    live = tasks.live(act.tx, task, now=act.now)
    if live.agent != holder.agent_id:
        raise Forbidden("the task belongs to another agent", code="foreign_task")
    if live.expires_at is not None:
        ends = (*ends, live.expires_at)
    act.entry.task = live.task_id
    return Holder("agent", holder.agent_id, holder.name, holder, live.task_id, live.chain, live.person, ends)


def _check_replaced(act: Act, replaces: str | None, holder: Holder) -> None:
    """Check that the certificate to renew, `replaces`, belongs to the holder. If the certificate is already deleted,
    the check passes. Raises Invalid for a malformed serial number, Forbidden otherwise.
    """
    old = None if replaces is None else store.certificates.find_holder(act.tx, parse_serial(replaces), now=act.now)
    if old not in (None, holder.id):
        raise Forbidden("the certificate to renew belongs to another holder", code="foreign_certificate")


def _check_key(reader: Reader, public_key: bytes, profile: Profile, holder: Holder) -> CheckedKey:
    """Return the properties of a public key. Raises BadKey if the key is weak, blocked, or of a type that the profile
    does not allow; Conflict if the key belongs to another agent or person.
    """
    key = check_public_key(public_key)
    if key.key_type not in profile.key_types:
        raise BadKey(
            f"the profile `{profile.name}` does not allow keys of the type {key.key_type}",
            hint=f"use one of {', '.join(profile.key_types)}",
        )
    use = check_not_blocked(reader, key, holder=holder.id)
    if use.has_other_holder or use.owner not in (None, holder.id):
        raise Conflict("the key belongs to another identity", hint="generate a new key", code="key_taken")
    return key


def check_not_blocked(reader: Reader, key: CheckedKey, *, holder: str) -> store.certificates.KeyUse:
    """Check that a key is not blocked, and return its use by holders other than `holder`. Raises BadKey if the key was
    reported as compromised.
    """
    use = store.certificates.find_key_use(reader, key, holder=holder)
    if use.why_blocked is not None:
        raise BadKey(f"the key is blocked: {use.why_blocked}", hint="generate a new key")
    return use


@lru_cache(maxsize=256)
def _encode_locations(status_url: str, authority: str, shard: int) -> bytes:
    """Return, in DER, the extensions with the URLs of the issuer's certificate, of the OCSP responder and of the
    revocation list.
    """
    access = x509.AuthorityInformationAccess(
        [
            _access(AuthorityInformationAccessOID.OCSP, f"{status_url}/ocsp"),
            _access(AuthorityInformationAccessOID.CA_ISSUERS, f"{status_url}/ca/{authority}.crt"),
        ]
    )
    points = x509.CRLDistributionPoints([distribution_point([status_url], authority, shard)])
    return encode_extension(access) + encode_extension(points)


def distribution_point(status_urls: Sequence[str], authority: str, shard: int) -> x509.DistributionPoint:
    """Return the distribution point (URLs) of the partition `shard` of an authority's revocation list."""
    urls = [x509.UniformResourceIdentifier(f"{url}/ca/{authority}/crl/{shard}") for url in status_urls]
    return x509.DistributionPoint(full_name=urls, relative_name=None, reasons=None, crl_issuer=None)


def _access(method: x509.ObjectIdentifier, url: str) -> x509.AccessDescription:
    return x509.AccessDescription(method, x509.UniformResourceIdentifier(url))
