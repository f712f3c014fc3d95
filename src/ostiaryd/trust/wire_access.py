"""Authentication of requests to this server's own API: access tokens, proofs, sessions and PEP keys (RFC 6750
section 3, RFC 9449 section 7, RFC 9728).
"""

from __future__ import annotations

from ostiary.authorization.claims import AccessClaims, scopes
from ostiary.protocol.dpop import InvalidProof
from ostiary.protocol.errors import Refused, Unauthenticated
from ostiaryd.ground.database import Reader
from ostiaryd.ground.http.admission import queue_proven
from ostiaryd.ground.http.edge import NO_STORE, Call
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import ADMIN, APPROVE, READ, SELF, Caller, is_person_id, is_resource_id
from ostiaryd.trust import flows, store
from ostiaryd.trust.flows.sessions import ForgedForm, find_session, own_origins, session_cookie
from ostiaryd.trust.model import PEP_KEY_PREFIX, InsufficientScope, challenge
from ostiaryd.trust.model.sessions import Session


async def authenticate_access(call: Call, *, allows_pep: bool = False) -> Caller:
    """Authenticate the caller of a request to the admin API by an access token with a DPoP proof, or by a browser
    session. Return the caller.

    The proof is marked as used first, and the state of token and holder is read afterwards: the event loop does no
    other work between this check and the first read of the function that answers the request. With `allows_pep`, the
    API key of a static PEP is accepted too. Raises Unauthenticated without credentials, AccessRefused for an invalid
    token or key, InvalidProof or NonceNeeded for the DPoP proof, Malformed for malformed headers. The response to an
    error gets its `WWW-Authenticate`; any response gets a `DPoP-Nonce` if a new nonce is needed.
    """
    world = call.world
    if (person := _session_caller(call)) is not None:
        _queue_as(call, person)
        return person
    try:
        if allows_pep and (key := _pep_key(call)) is not None:
            pep, unnoted = _verify_pep(call, key, world.db.read())
            queue_proven(call, pep.id, is_privileged=False, is_guard=False)
            if unnoted is not None:
                await world.writer.submit(lambda tx: store.peps.use_pep_key(tx, unnoted))
                pep, _ = _verify_pep(call, key, world.db.read())
            return pep
        verified = _verify(call)
        _queue_as_named(call, verified.claims)
        if verified.possession.spend is not None:
            await flows.spend_at_once(world, verified.possession.spend, verified.claims)
        access = flows.find_access(world.db.read(), verified, now=world.now())
    except Refused as refusal:
        _challenge(call, refusal)
        raise
    return _welcome(call, access)


def check_access(call: Call, *, allows_pep: bool = False) -> Caller:
    """Authenticate the caller of a request to the admin API without marking the proof as used, and return the caller.
    The request is then queued under the caller's name. On PostgreSQL, the reads share one round trip, for 45 µs more
    processor time, because most of these requests stop something and the database may be far away.

    Raises the errors of `authenticate_access`.
    """
    world = call.world
    if (person := _session_caller(call)) is not None:
        _queue_as(call, person)
        return person
    try:
        if allows_pep and (key := _pep_key(call)) is not None:
            return _verify_pep(call, key, world.db.read())[0]
        verified, reader = _verify(call), world.db.read()
        with registry.reading_holder(reader, holding=verified.claims.jti, agent=verified.claims.client_id):
            access = flows.find_access(reader, verified, now=world.now())
    except Refused as refusal:
        _challenge(call, refusal)
        raise
    _queue_as(call, access.caller)
    return access.caller


def find_caller_again(call: Call, reader: Reader) -> Caller:
    """Return the caller of a request that was authenticated before, as `reader` shows the caller now: in an act, or in
    the course of a long response. Raises AccessRefused if the access has ended meanwhile, Unauthenticated if the
    browser session has ended.
    """
    caller, now = call.caller, call.world.now()
    if caller.token is None and caller.kind != "pep":
        session = find_session(reader, session_cookie(call), now)
        if session is None or session.person != caller.id:
            raise Unauthenticated("the session has ended", hint="sign in again")
        return _person_of(reader, session)
    try:
        if (key := _pep_key(call)) is not None:
            return _verify_pep(call, key, reader)[0]
        claims = flows.read_claims(call.header(b"authorization"), keys=call.world.keys)
        return flows.live_caller(reader, claims, now=now)
    except Refused as refusal:
        _challenge(call, refusal)
        raise


def verify_ahead(call: Call) -> flows.VerifiedCredentials | None:
    """Verify the credentials of a request to the admin API before its act, which then authenticates the caller with
    them (`authenticate_in_act`). Return None for a browser session.

    The request is then queued under the client that the token names. Raises the errors of `authenticate_access`.
    """
    if (person := _session_caller(call)) is not None:
        _queue_as(call, person)
        return None
    try:
        verified = _verify(call)
    except Refused as refusal:
        _challenge(call, refusal)
        raise
    _queue_as_named(call, verified.claims)
    return verified


def authenticate_in_act(
    call: Call, act: Act, *, allows_pep: bool = False, verified: flows.VerifiedCredentials | None = None
) -> Caller:
    """Authenticate the caller of a request inside its act, and return the caller. Authentication and work then share
    one transaction and one fsync. `verified`: the credentials, if `verify_ahead` has verified them.

    Raises the errors of `authenticate_access`.
    """
    config = call.world.config
    if (person := _session_caller(call, act)) is not None:
        return person
    try:
        if allows_pep and (key := _pep_key(call)) is not None:
            pep, unnoted = _verify_pep(call, key, act.tx)
            if unnoted is not None:
                store.peps.use_pep_key(act.tx, unnoted)
            return pep
        verified = verified or flows.verify_credentials(
            request_of(call), audience=config.api, reader=act.tx, now=act.now, keys=act.tx.keys, config=config
        )
        access = flows.find_access(act.tx, verified, now=act.now)
        if access.proof is not None:
            flows.spend_proof(act.tx, access.proof)
    except Refused as refusal:
        _challenge(call, refusal)
        raise
    return _welcome(call, access)


def _verify(call: Call) -> flows.VerifiedCredentials:
    """Verify the credentials of a request to the admin API before its act. Raises the errors of
    `flows.verify_credentials`.
    """
    world = call.world
    return flows.verify_credentials(
        request_of(call),
        audience=world.config.api,
        reader=world.db.read(),
        now=world.now(),
        keys=world.keys,
        config=world.config,
    )


def _session_caller(call: Call, act: Act | None = None) -> Caller | None:
    """Return the person of the browser session as caller, for a request without an Authorization header; None if there
    is no session or the header is set. The session is read in `act`, or before the act for None.

    The request must come from a page of this server (`Origin`, `Sec-Fetch-Site`); only a GET may omit `Origin`. Raises
    ForgedForm for a request from another site.
    """
    if b"authorization" in call.by_name:
        return None
    reader, now = (call.world.db.read(), call.world.now()) if act is None else (act.tx, act.now)
    session = find_session(reader, session_cookie(call), now)
    if session is None:
        return None
    origin = call.header(b"origin")
    is_own = call.is_read if origin is None else origin in own_origins(call.world.config)
    if not is_own or (call.header(b"sec-fetch-site") or "same-origin") != "same-origin":
        raise ForgedForm("another site sent the request", hint="use a page of this server, or an access token")
    return _person_of(reader, session)


def _person_of(reader: Reader, session: Session) -> Caller:
    """Return the person of a session as caller."""
    person = registry.find_person(reader, session.person)
    return Caller(
        kind="person", id=person.person_id, name=person.name, owner=None, scopes=frozenset({APPROVE}), acr=session.acr
    )


def _pep_key(call: Call) -> str | None:
    """Return the API key of a static PEP in the Authorization header; None if the header has another credential."""
    scheme, _, value = (call.header(b"authorization") or "").partition(" ")
    value = value.strip(" ")
    return value if scheme.lower() == "bearer" and value.startswith(PEP_KEY_PREFIX) else None


def _verify_pep(call: Call, key: str, reader: Reader) -> tuple[Caller, bytes | None]:
    return flows.verify_pep(reader, key, address=call.origin, now=call.world.now(), keys=call.world.keys)


def _queue_as_named(call: Call, claims: AccessClaims) -> None:
    """Queue the request under the client that its verified token names, before it is known that the token is live."""
    client = claims.client_id
    is_privileged = is_person_id(client) or not scopes(claims).isdisjoint((ADMIN, READ))
    queue_proven(call, client, is_privileged=is_privileged, is_guard=is_resource_id(client))


def _queue_as(call: Call, caller: Caller) -> None:
    is_privileged = caller.may_read or caller.kind == "person"
    queue_proven(call, caller.id, is_privileged=is_privileged, is_guard=caller.kind == "guard")


def _challenge(call: Call, refusal: Refused) -> None:
    """Add the challenge headers, which tell the client how to authenticate, to the response for a refusal."""
    call.answer_headers += challenge(refusal, resource=call.world.config.api)


def _welcome(call: Call, access: flows.Access) -> Caller:
    if access.next_nonce is not None:
        call.answer_headers += [(b"dpop-nonce", access.next_nonce.encode()), NO_STORE]
    return access.caller


def require_scope(call: Call, caller: Caller, scope: str) -> None:
    """Check that the caller has a scope; the empty scope and `SELF` need none. Raises InsufficientScope, with a
    challenge that names the scope.
    """
    if scope not in ("", SELF) and scope not in caller.scopes:
        refusal = InsufficientScope(
            f"the access token lacks the scope `{scope}`", hint="request a token with this scope"
        )
        call.answer_headers += challenge(refusal, resource=call.world.config.api, scope=scope)
        raise refusal


def request_of(call: Call) -> flows.Request:
    """Return the credentials of a request. Raises Malformed for a repeated header, InvalidProof for more than one proof
    (RFC 9449 section 4.3).
    """
    unverified_proof = call.header(b"dpop", twice=InvalidProof)
    return flows.Request(call.method, call.uri, call.header(b"authorization"), unverified_proof, call.certificate)
