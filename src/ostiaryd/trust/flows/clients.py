"""Client authentication at the authorization server: private_key_jwt (RFC 7523 as rfc7523bis updates it), or a client
certificate (RFC 8705).
"""

from __future__ import annotations

import msgspec

from ostiary.decision import feed
from ostiary.protocol import jose
from ostiary.protocol.errors import Forbidden
from ostiaryd.ground.config import Config
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import (
    APPROVE,
    Agent,
    AgentState,
    Person,
    Resource,
    check_not_stopped,
    is_person_id,
    names_of_agent,
)
from ostiaryd.trust import store
from ostiaryd.trust.flows.certificates import ProvedCertificate, prove_certificate
from ostiaryd.trust.flows.proofs import spend
from ostiaryd.trust.model import (
    Credentials,
    InvalidClient,
    Spend,
    check_assertion,
    check_assertion_type,
    name_claimed,
    parse_assertion,
    public_key,
)


class Client(msgspec.Struct, frozen=True, kw_only=True):
    """A client that has authenticated: an agent, or, with `agent` None, the guard of a resource or a person.

    `jkt` is the thumbprint of the key that authenticated the client, None for a client secret; with mutual TLS it is
    the thumbprint of the key of `certificate`. `ends` is the time, in microseconds, at which the client or its
    credential expires, whichever is first. The caller must mark `assertion` as used.
    """

    id: str
    agent: Agent | None
    owner: str
    segment: str
    scopes: frozenset[str]
    epoch: int
    jkt: str | None
    ends: int | None
    assertion: Spend | None
    registration: str = ""
    """Class of registration (`document` or `dynamic`) of a client that no administrator registered; otherwise empty."""
    certificate: ProvedCertificate | None = None


def agent_client(
    agent: Agent,
    *,
    jkt: str | None,
    credential_ends: int | None,
    assertion: Spend | None = None,
    registration: str = "",
    certificate: ProvedCertificate | None = None,
) -> Client:
    """Return the client that is an agent. `credential_ends`: the time, in microseconds, at which the credential that
    authenticated the agent expires; None: never.
    """
    return Client(
        id=agent.agent_id,
        agent=agent,
        owner=agent.owner,
        segment=agent.segment,
        scopes=agent.scopes,
        epoch=agent.epoch,
        jkt=jkt,
        ends=earliest(credential_ends, agent.expires_at),
        assertion=assertion,
        registration=registration,
        certificate=certificate,
    )


def authenticate_client(act: Act, credentials: Credentials, *, config: Config) -> Client:
    """Authenticate the client that sent a form, return the client, and mark its assertion as used. Raises InvalidClient
    if the authentication fails.
    """
    client = check_client(act, credentials, config=config)
    spend(act, client.assertion)
    return client


def check_client(act: Act, credentials: Credentials, *, config: Config) -> Client:
    """Authenticate the client that sent a form, by its assertion or, without an assertion and a secret, by its
    certificate; return the client. The caller must mark the assertion as used with `spend`. Raises InvalidClient if one
    of these steps fails.

    1. Parse the assertion. 2. Check its claims. 3. Find the client and its key. 4. Verify the signature. 5. Check that
    the client is active. Only a holder of the client's key passes step 4, so no other caller learns whether the client
    is active.
    """
    if credentials.has_certificate_alone:
        return _check_certificate(act, credentials)
    unverified_jws, signatures = parse_assertion(credentials), act.tx.keys.signatures

    def is_compatible(client_id: str) -> bool:
        return config.client_assertions == "compatible" or bool(store.exemptions.exemptions_of(act.tx, client_id))

    assertion = check_assertion(
        unverified_jws,
        client_id=credentials.client_id,
        issuer=config.issuer,
        mtls_base=config.mtls_base,
        now=act.now,
        is_compatible=is_compatible,
    )
    act.entry.object = name_claimed(assertion.client_id)  # the ledger's field `agent` is set only after the proof
    person = registry.get_person(act.tx, assertion.client_id) if is_person_id(assertion.client_id) else None
    agent = registry.get_agent(act.tx, assertion.client_id) if assertion.client_id.startswith("ag_") else None
    guard = registry.get_resource(act.tx, assertion.client_id) if assertion.client_id.startswith("rs_") else None
    check_assertion_type(unverified_jws.header, is_compatible=lambda: is_compatible(assertion.client_id))
    key, key_ends = _choose_key(unverified_jws.header, _keys(act, agent, guard, person))
    try:
        signatures.check(key, unverified_jws.signature, unverified_jws.signing_input)
    except jose.InvalidToken as error:
        raise InvalidClient(f"the client assertion: {error.message}") from None
    signatures.learn(key)
    act.entry.object, act.entry.key = None, key.thumbprint
    if guard is not None:
        return _guard_client(act, guard, jkt=key.thumbprint, assertion=assertion.spend)
    if person is not None:
        return _person_client(act, person, jkt=key.thumbprint, assertion=assertion.spend)
    assert agent is not None  # it has a key
    act.entry.agent, act.entry.owner = agent.agent_id, agent.owner
    check_active(act, agent)
    return agent_client(agent, jkt=key.thumbprint, credential_ends=key_ends, assertion=assertion.spend)


def _guard_client(act: Act, guard: Resource, *, jkt: str, assertion: Spend | None) -> Client:
    """Return the client that is the guard of a resource, and note it in the act's ledger entry."""
    act.entry.reporter = guard.resource_id
    return Client(
        id=guard.resource_id,
        agent=None,
        owner="",
        segment=guard.segment,
        scopes=frozenset({feed.SCOPE}),
        epoch=0,
        jkt=jkt,
        ends=None,
        assertion=assertion,
    )


def _person_client(act: Act, person: Person, *, jkt: str, assertion: Spend | None) -> Client:
    """Return the client that is a person, and note it in the act's ledger entry. Raises InvalidClient for a person who
    is not active or is stopped.
    """
    act.entry.person = person.person_id
    if not person.is_active:
        raise InvalidClient(f"the person {person.absence}", hint="ask an administrator to make the person active again")
    _check_not_stopped(act, [("owner", person.person_id)])
    return Client(
        id=person.person_id,
        agent=None,
        owner="",
        segment="",
        scopes=frozenset({APPROVE}),
        epoch=0,
        jkt=jkt,
        ends=None,
        assertion=assertion,
    )


def _check_certificate(act: Act, credentials: Credentials) -> Client:
    """Return the agent that a client certificate authenticates (RFC 8705 section 2). Raises InvalidClient if there is
    none.
    """
    client_id = credentials.client_id or ""
    act.entry.object = name_claimed(client_id)
    agent = registry.get_agent(act.tx, client_id) if client_id.startswith("ag_") else None
    if agent is None or credentials.certificate is None:
        raise InvalidClient("mutual TLS: unknown client, or this certificate does not authenticate the client")
    method = store.certificates.get_certificate_client(act.tx, client_id)
    proved = prove_certificate(act, client_id, credentials.certificate, method)
    act.entry.object, act.entry.key = None, proved.thumbprint
    act.entry.agent, act.entry.owner = agent.agent_id, agent.owner
    check_active(act, agent)
    return agent_client(agent, jkt=proved.jkt, credential_ends=proved.ends, certificate=proved)


_Keys = list[tuple[jose.PublicKey, int | None]]


def _keys(act: Act, agent: Agent | None, guard: Resource | None, person: Person | None) -> _Keys:
    """Return the valid keys of the client, each with its expiry in microseconds (None for no expiry), by key id."""
    if agent is not None:
        return [(public_key(jwk), ends) for jwk, ends in store.clients.agent_keys(act.tx, agent.agent_id, now=act.now)]
    if person is not None:
        return [
            (jose.parse_public_jwk(key.jwk), None) for key in registry.list_active_person_keys(act.tx, person.person_id)
        ]
    return [] if guard is None or guard.jwk is None else [(jose.parse_public_jwk(guard.jwk), None)]


def _choose_key(header: jose.Header, keys: _Keys) -> tuple[jose.PublicKey, int | None]:
    """Return the key that the JWT header names in `kid`, with its expiry; without `kid`, the client's only key. Raises
    InvalidClient if there is no such key or the header has another algorithm than the key.
    """
    kid = header.get("kid")
    named = [client for client in keys if kid in (None, client[0].kid, client[0].thumbprint)]
    if not named:
        hint = "check that the key is registered and has not expired"
        raise InvalidClient("unknown client, or the client has no such key", hint=hint)
    if len(named) > 1:
        raise InvalidClient("several keys of the client fit the assertion", hint="name the key in `kid`")
    if not named[0][0].accepts(header["alg"]):
        raise InvalidClient(f"the key of the client is for {named[0][0].alg}, but `alg` of the assertion differs")
    return named[0]


def check_active(act: Act, agent: Agent) -> None:
    """Check that an agent may authenticate: its state is active, it has not expired, and the kill switch does not stop
    it. Raises InvalidClient otherwise.
    """
    if not agent.is_active(act.now):
        state = agent.state if agent.state is not AgentState.ACTIVE else "expired"
        raise InvalidClient(f"the agent is {state}", hint="ask the owner of the agent or an administrator")
    _check_not_stopped(act, names_of_agent(agent))


def _check_not_stopped(act: Act, names: list[tuple[str, str]]) -> None:
    """Check that no kill switch stops any of these subjects, given as (kind, id). Raises InvalidClient for the first
    stop.
    """
    try:
        check_not_stopped(registry.list_stops(act.tx), names)
    except Forbidden as refusal:
        raise InvalidClient(refusal.message, hint=refusal.hint) from None


def earliest(*ends: int | None) -> int | None:
    """Return the earliest of the times; None if all are None."""
    return min((end for end in ends if end is not None), default=None)
