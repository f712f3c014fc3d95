"""SVIDs of agents: X509-SVIDs with a key that this server generates, JWT-SVIDs, and the validation of JWT-SVIDs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ostiary.protocol.errors import Conflict, Forbidden, Invalid, Refused
from ostiary.protocol.jose import InvalidToken
from ostiaryd.certs.flows.bundles import own_bundle, svid_signer
from ostiaryd.certs.flows.issuing import check_issue, issue, load_profiles
from ostiaryd.certs.flows.trust_domains import trusted_bundles
from ostiaryd.certs.model import Certificate, CertificateRequest, encode_public_key, generate_key, parse_name
from ostiaryd.certs.model.bundle import TrustBundle
from ostiaryd.certs.model.jwt_svid import LIFETIME_S, check_audiences, sign_jwt_svid, verify_jwt_svid
from ostiaryd.certs.model.keys import encode_private_key
from ostiaryd.certs.model.profiles import SHORTEST_S, find_profile
from ostiaryd.certs.model.spiffe_id import SpiffeId
from ostiaryd.certs.model.workload import Workload
from ostiaryd.certs.model.workload_api import X509Svid
from ostiaryd.ground.config import Config
from ostiaryd.ground.database import Reader
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Agent, spiffe_id

PROFILE = "agent"
"""Certificate profile of X509-SVIDs and JWT-SVIDs."""
KEY_TYPE = "P-256"
LONGEST_S = 3600
"""Maximum lifetime of an X509-SVID in seconds, if the profile allows more."""
SVID_USAGES = {"client", "server"}
"""Required extended key usages of an X509-SVID (X509-SVID section 4.4)."""


class KeptSvid(NamedTuple):
    """An X509-SVID of an agent with its private key, for all workloads of the agent."""

    svid: X509Svid
    certificate: Certificate


def issue_x509_svid(act: Act, workload: Workload, *, config: Config) -> KeptSvid:
    """Issue an X509-SVID to the agent of a workload; return the X509-SVID with its key. Raises Forbidden if the agent
    is not active, Conflict if the profile `agent` lacks a usage of X509-SVIDs, and the errors of `issue`.
    """
    agent = _active_agent(act, workload)
    profile = find_profile(load_profiles(config.certificate_profiles), PROFILE)
    if not set(profile.usages) >= SVID_USAGES:
        raise Conflict(
            f"certificates of the profile `{PROFILE}` are not X509-SVIDs",
            hint="give the profile the usages `client` and `server` (X509-SVID section 4.4)",
            code="wrong_profile",
        )
    key, name = generate_key(KEY_TYPE), spiffe_id(config.trust_domain, agent.name)
    request = CertificateRequest(
        profile=PROFILE,
        public_key=encode_public_key(key.public_key()),
        names=(parse_name(f"uri:{name}"),),
        agent=agent.agent_id,
        lifetime_s=min(profile.lifetime_s, LONGEST_S),
    )
    issued = issue(act, request, config=config)
    registry.fill_entry(act, object=issued.certificate.serial, workload=workload.workload_id)
    chain = tuple(dict.fromkeys((issued.certificate.der, *issued.chain)))
    return KeptSvid(X509Svid(name, chain, encode_private_key(key)), issued.certificate)


def issue_jwt_svid(act: Act, workload: Workload, audiences: Sequence[str], *, config: Config) -> tuple[str, str]:
    """Issue a JWT-SVID to the agent of a workload; return the SPIFFE ID of the agent, and the token. Raises Invalid for
    malformed audiences, Forbidden if the agent is not active or the policies do not permit the JWT-SVID.
    """
    act.check_granting()
    agent = _active_agent(act, workload)
    registry.fill_entry(
        act, object=agent.agent_id, workload=workload.workload_id, audiences=[one[:128] for one in audiences[:8]]
    )
    check_audiences(audiences)
    name = spiffe_id(config.trust_domain, agent.name)
    profile = find_profile(load_profiles(config.certificate_profiles), PROFILE)
    lifetime_s = min(profile.lifetime_s, LIFETIME_S)
    check_issue(
        act,
        profile=PROFILE,
        names=(parse_name(f"uri:{name}"),),
        agent=agent.agent_id,
        lifetime_s=max(lifetime_s, SHORTEST_S),
        config=config,
    )
    key = svid_signer(act)
    token, expires_at = sign_jwt_svid(key, name, audiences, now=act.now, lifetime_s=lifetime_s)
    registry.fill_entry(act, object=agent.agent_id, kid=key.public.kid, until=expires_at // 1_000_000)
    return name, token


def validate_jwt_svid(
    reader: Reader, agents: Sequence[str], unverified_token: str, audience: str, *, config: Config, now: int
) -> tuple[str, Mapping[str, Any]]:
    """Verify a JWT-SVID for `audience`; return its SPIFFE ID and its claims.

    The token's trust domain must be this server's own, or a federated trust domain that at least one of `agents`
    trusts. A JWT-SVID of an agent of this server is valid only while that agent is active. Raises Invalid for a
    JWT-SVID that is not valid, Unavailable if this server has published no bundle yet.
    """
    if not audience or not unverified_token:
        raise Invalid("`audience` and `svid` are required")

    def bundle_of(subject: SpiffeId) -> TrustBundle:
        if subject.trust_domain == config.trust_domain:
            return own_bundle(reader, config)
        bundle = trusted_bundles(reader, agents).get(subject.trust_domain)
        if bundle is None:
            raise InvalidToken("the trust domain of the JWT-SVID is not trusted", code="foreign_trust_domain")
        return bundle

    try:
        subject, claims = verify_jwt_svid(unverified_token, audience=audience, bundle_of=bundle_of, now=now)
    except InvalidToken as error:
        raise Invalid(error.message, code=error.code) from None
    if subject.trust_domain == config.trust_domain:
        _check_own_subject(reader, subject, now=now)
    return str(subject), claims


def _check_own_subject(reader: Reader, subject: SpiffeId, *, now: int) -> None:
    """Check that the subject of a JWT-SVID is an active agent of this server. Raises Invalid otherwise."""
    try:
        registry.active_agent(reader, subject.path.removeprefix("/agent/"), now=now)
    except Refused as refusal:
        message = f"the subject of the JWT-SVID is not an active agent: {refusal.message}"
        raise Invalid(message, code=refusal.code) from None


def _active_agent(act: Act, workload: Workload) -> Agent:
    """Return the active agent of a workload, and write the agent into the act's ledger entry. Raises Forbidden if the
    agent is not active.
    """
    agent = registry.active_agent(act.tx, workload.agent, now=act.now)
    act.entry.agent, act.entry.owner = agent.agent_id, agent.owner
    registry.fill_entry(act, object=agent.agent_id, workload=workload.workload_id)
    return agent


def first_refusal(refusals: Sequence[Refused]) -> Refused:
    """Return the refusal for a process without an identity: the first of `refusals`, or, if there are none, the refusal
    that the process matches no workload.
    """
    if refusals:
        return refusals[0]
    return Forbidden(
        "no agent has a workload that matches this process",
        hint="register a workload: ostiary agent workload add NAME --uid UID",
        code="no_identity",
    )
