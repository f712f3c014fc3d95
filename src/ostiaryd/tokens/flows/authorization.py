"""The authorization endpoint: store a request, determine its next step, record the person's consent, and issue the
authorization code.
"""

from __future__ import annotations

from enum import Enum
from hashlib import sha256

from msgspec.structs import replace

from ostiary.authorization.bounds import ToolDetail, render_details
from ostiary.authorization.claims import InvalidScope, render_scope
from ostiary.protocol.errors import Refused, Unavailable
from ostiary.protocol.jose import b64u
from ostiaryd.ground.config import Config
from ostiaryd.ground.database import Reader, Tx
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import ADMIN
from ostiaryd.tokens import store
from ostiaryd.tokens.flows.consents import agent_of, check_person, remember
from ostiaryd.tokens.flows.target import find_target
from ostiaryd.tokens.model import SECOND, InvalidRequest, InvalidTarget, Unmet, narrow_details
from ostiaryd.tokens.model.authorization import (
    REQUEST_URI,
    AuthorizationRequest,
    ConsentRequired,
    LoginRequired,
)
from ostiaryd.tokens.model.consent import Choice, Consent, Offer
from ostiaryd.tokens.model.device import DEVICE_S
from ostiaryd.tokens.model.wording import (
    ConsentView,
    warn_about,
    word_details,
    word_identity,
    word_scopes,
    word_target,
)
from ostiaryd.tokens.store.authorization import Code, StoredRequest
from ostiaryd.trust import flows as trust
from ostiaryd.trust.model.clients import ClientKind, OAuthClient
from ostiaryd.trust.model.sessions import Assurance, Session

REQUEST_S = 600
"""Lifetime of a stored authorization request, in seconds."""
CODE_S = 60
"""Lifetime of an authorization code, in seconds."""
TIME_DIGITS = 12
"""Length of the time at the beginning of an authorization code or request reference, in hexadecimal digits. The
database key of a code contains this time and a digest, never the secret part.
"""
LOGIN_GRACE = 300 * SECOND
"""Time for which a login after a request counts as made for the request, in microseconds."""
MAX_REQUESTS = 200
"""Maximum number of unanswered stored requests per client network. Requests that browsers send, and requests of clients
that no administrator registered, count.
"""
PRODUCT = "Ostiary"
DEVICE = "device:"
"""Prefix of a `request_uri` that holds the user code of a device instead of the reference to a stored request."""
DAY = 86_400 * SECOND


class PersonNeeded(Refused):
    """Raised if the server cannot issue an authorization code before the person signs in or consents."""

    is_challenge = True

    def __init__(self) -> None:
        super().__init__(
            "the person has to sign in or to consent", hint="send the person to the login page or to the consent page"
        )


class Step(Enum):
    """The next step of an authorization request: the person signs in (login), the person consents (consent), or the
    server issues the code (code).
    """

    LOGIN = "login"
    CONSENT = "consent"
    CODE = "code"


def store_request(tx: Tx, request: AuthorizationRequest, *, network: str = "") -> str:
    """Store an authorization request, and return its `request_uri` (RFC 9126 section 2.2).

    `network` is the network of the caller if no administrator registered the caller, otherwise empty. Raises
    Unavailable if `MAX_REQUESTS` requests of the network are unanswered.
    """
    if network and store.authorization.count_requests(tx, network=network, now=tx.now) >= MAX_REQUESTS:
        raise Unavailable(f"{MAX_REQUESTS} authorization requests of your network are waiting", hint="try again later")
    reference = _make_secret(tx)
    store.authorization.put_request(
        tx, key_of(reference), request, network=network, expires_at=tx.now + REQUEST_S * SECOND
    )
    return REQUEST_URI + reference


def find_request(reader: Reader, request_uri: str, client: OAuthClient, *, now: int) -> StoredRequest:
    """Return the stored authorization request that `request_uri` names, if `client` sent it, and it is neither answered
    nor expired. Otherwise raises InvalidRequest. Do not send this error to the redirect URI of the request: the client
    may have removed the URI from its registration.
    """
    stored = store.authorization.get_request(reader, key_of(request_uri.removeprefix(REQUEST_URI)))
    is_live = stored is not None and now < stored.expires_at and stored.used_at is None
    hint = "go back to the application and begin again"
    if stored is None or not is_live or stored.request.client_id != client.client_id:
        raise InvalidRequest(
            "the authorization request has expired, was answered, or was sent by another client", hint=hint
        )
    if not client.has_redirect_uri(stored.request.redirect_uri):
        raise InvalidRequest("`redirect_uri` is not registered for this client any more", hint=hint)
    return stored


async def forget(world: World) -> None:
    """Delete expired authorization requests and grants, and the recorded clients of expired login sessions. Delete
    codes, device requests and consents that expired, and consents that were withdrawn, more than a day ago.
    """
    await world.writer.submit(_forget)


def _forget(tx: Tx) -> None:
    store.authorization.prune(tx, before=tx.now, codes_before=tx.now - DAY)
    store.logout.prune_clients(tx, before=tx.now)
    store.consents.prune(tx, before=tx.now - DAY)
    store.devices.prune(tx, before=tx.now - DAY)


def make_offer(
    reader: Reader, request: AuthorizationRequest, client: OAuthClient, *, now: int, config: Config
) -> Offer:
    """Return the scopes and bounds (`authorization_details`, RFC 9396) at one resource that the consent page offers for
    a request.

    An agent that an administrator registered can get the scopes that the administrator gave it. Any other client can
    get the scopes that the resource declares; the person decides about them. For a sign-in without a resource, the
    offer is empty. Raises InvalidScope if the client can get none of the scopes, InvalidTarget for this server's API or
    an unregistered resource, to which a person cannot consent, InvalidDetails for bounds at another resource.
    """
    bounds = request.bounds(classes=config.classes)
    if not (request.resource or request.scopes or bounds):
        if not request.identity:
            raise InvalidScope(
                "the client requested neither a `resource` nor a `scope`",
                hint="update the MCP client, or set scopes of the resource in the client; a sign-in needs `openid`",
            )
        return Offer(resource="", scopes=frozenset(), details=())
    is_agent = client.kind is ClientKind.AGENT
    own = registry.active_agent(reader, client.client_id, now=now).scopes if is_agent else request.scopes
    target = find_target(reader, request.resource, requested=request.scopes, available=own, now=now, config=config)
    if target.resource is None or target.uri == config.api:
        raise InvalidTarget(
            "a person can consent only to a registered resource that is not this server's API",
            hint="send `resource` with the URI of another registered resource",
        )
    declared = None if is_agent else registry.declared_scopes(reader, target.resource)
    available = frozenset(filter(target.owns, own if declared is None else declared)) - {ADMIN}
    if not (scopes := request.scopes & available if request.scopes else available):
        name = target.resource.name
        if not request.scopes:
            raise InvalidScope(
                f"the client can get no scope of `{name}`", hint="ask an administrator for a scope of this resource"
            )
        raise InvalidScope(
            f"the client can get none of these scopes of `{name}`: {render_scope(request.scopes)}",
            hint="request other scopes, or ask an administrator for them",
        )
    return Offer(resource=target.uri, scopes=scopes, details=narrow_details(bounds, task=(), target=target))


def choose_step(
    reader: Reader,
    request: AuthorizationRequest,
    offer: Offer,
    client: OAuthClient,
    session: Session | None,
    *,
    requested_at: int,
    now: int,
) -> tuple[Step, Assurance | None]:
    """Return the next step of a request, and the assurance of the person's login (None if the person has to sign in
    first).

    A login after `requested_at` (microseconds) satisfies a demand for a new login, so the person is not asked to sign
    in twice for one request. Raises LoginRequired and ConsentRequired if `prompt=none` forbids the step, Forbidden
    (`role_required`) if the roles of the person do not permit the client. For a new login that does not satisfy the
    request, raises LoginRequired if the request names another person, otherwise Unmet.
    """
    is_silent = "none" in request.prompt
    assurance = None if session is None else _meet(request, session, requested_at=requested_at, now=now)
    if session is None or assurance is None:
        if is_silent:
            raise LoginRequired("the person has to sign in", hint="repeat the request without `prompt=none`")
        if session is not None and session.meet(now=now, since=max(requested_at, now - LOGIN_GRACE)) is not None:
            _refuse_login(request, session)
        return Step.LOGIN, None
    check_person(reader, client, person=session.person, uri=offer.resource, scopes=offer.scopes, now=now)
    if "consent" in request.prompt or _find_consent(reader, request, offer, client, session, now=now) is None:
        if is_silent:
            raise ConsentRequired("the person has to consent", hint="repeat the request without `prompt=none`")
        return Step.CONSENT, assurance
    return Step.CODE, assurance


def has_consented(reader: Reader, client: OAuthClient, session: Session) -> bool:
    """Return whether the person of a session has given the client a consent at any resource that was not withdrawn."""
    return store.consents.has_any(reader, person=session.person, client_id=client.client_id)


def may_follow(reader: Reader, client: OAuthClient, session: Session | None) -> bool:
    """Return whether the server may redirect the browser of a session to a client at once, without a page that names
    the target: an administrator has registered the client, or the person of the session has consented to it.
    """
    return client.kind is ClientKind.AGENT or (session is not None and has_consented(reader, client, session))


def _find_consent(
    reader: Reader, request: AuthorizationRequest, offer: Offer, client: OAuthClient, session: Session, *, now: int
) -> Consent | None:
    """Return the person's existing consent if it covers the request; otherwise None."""
    consent = store.consents.live(reader, person=session.person, client_id=client.client_id, resource=offer.resource)
    requested = offer.scopes | request.identity
    if consent is None or not consent.covers(requested, offer.details, digest=client.digest, now=now):
        return None
    return consent


def _meet(request: AuthorizationRequest, session: Session, *, requested_at: int, now: int) -> Assurance | None:
    """Return the assurance of the session if its login satisfies the request; None if the person has to
    sign in again.

    A login after the request satisfies `prompt=login` and every `max_age` for `LOGIN_GRACE`: otherwise a person who
    reads the consent page would have to sign in again and again.
    """
    made_for_request = max(requested_at, now - LOGIN_GRACE)
    since = 0 if request.max_age is None else min(now - request.max_age * SECOND, made_for_request)
    if {"login", "select_account"} & set(request.prompt):
        since = made_for_request
    if request.subject not in ("", session.person):
        return None
    return session.meet(now=now, acr_values=request.acr_values, since=since)


def _refuse_login(request: AuthorizationRequest, session: Session) -> None:
    """Raise the refusal of a request that the login of the session does not satisfy: LoginRequired if the request names
    another person, otherwise Unmet.
    """
    if request.subject not in ("", session.person):
        raise LoginRequired(
            "another person is signed in than the person whom the request names",
            hint="sign out, and sign in as that person",
        )
    raise Unmet(
        f"the person signed in at the level {session.acr}",
        hint=f"sign in with one of the levels {' or '.join(request.acr_values)}",
    )


def view_consent(
    reader: Reader, client: OAuthClient, request: AuthorizationRequest, offer: Offer, session: Session
) -> ConsentView:
    """Return the content of the consent page of a request."""
    resource = registry.get_resource_by_uri(reader, offer.resource) if offer.resource else None
    catalogue = None if resource is None else registry.catalogue_of(reader, resource)
    before = store.consents.live(reader, person=session.person, client_id=client.client_id, resource=offer.resource)
    is_agent = client.kind is ClientKind.AGENT
    agent = registry.find_agent(reader, client.client_id) if is_agent else None
    return ConsentView(
        person=registry.find_person(reader, session.person).name,
        client=client.name,
        client_id=client.client_id,
        owner="" if agent is None else registry.find_owner(reader, agent.owner).name,
        purpose="" if agent is None else agent.purpose,
        resource="" if resource is None else resource.name,
        uri=offer.resource,
        target=word_target(request.redirect_uri) if request.redirect_uri else "",
        identity=word_identity(request.identity),
        scopes=word_scopes(offer.scopes, catalogue),
        details=word_details(offer.details),
        warnings=warn_about(
            name=client.name,
            host=client.host,
            redirect_uri=request.redirect_uri,
            others=[] if is_agent else _known_names(reader, client, session.person),
            has_changed=before is not None and before.digest != client.digest,
            is_known=is_agent,
        ),
    )


def _known_names(reader: Reader, client: OAuthClient, person: str) -> list[str]:
    """Return the names with which the name of a client must not be confused: all agents, the other clients that the
    person consented to, and this server.
    """
    consented = store.consents.client_names(reader, person=person, without=client.client_id)
    return [*consented, *trust.list_agent_names(reader), PRODUCT]


def issue_code(
    act: Act,
    request: AuthorizationRequest,
    client: OAuthClient,
    session: Session,
    *,
    requested_at: int,
    request_uri: str,
    config: Config,
) -> str:
    """Issue an authorization code on an existing consent, and return the code.

    `requested_at`: the time of the request in microseconds. Raises PersonNeeded if the person has to sign in or to
    consent, InvalidRequest, InvalidClient, and the errors of `make_offer` and `choose_step`.
    """
    act.entry.person = session.person
    _check_unchanged(act, client, digest=client.digest)
    offer = make_offer(act.tx, request, client, now=act.now, config=config)
    step, assurance = choose_step(act.tx, request, offer, client, session, requested_at=requested_at, now=act.now)
    consent = _find_consent(act.tx, request, offer, client, session, now=act.now)
    if step is not Step.CODE or assurance is None or consent is None:
        raise PersonNeeded
    scopes = offer.scopes | request.identity
    return _put_code(act, request, consent, scopes, offer.details, session, assurance, request_uri=request_uri)


def agree(
    act: Act,
    request: AuthorizationRequest,
    offer: Offer,
    choice: Choice,
    client: OAuthClient,
    session: Session,
    assurance: Assurance,
    *,
    request_uri: str = "",
) -> str:
    """Record the consent of a person to the scopes and bounds in `choice`, and return an authorization code for them.

    1. The client has not changed since the page was shown. 2. The choice lies within the offer. 3. The agent is that of
    the client and this person. 4. The consent is stored. 5. The request is marked as answered. Raises InvalidClient or
    InvalidRequest if the client has changed or was stopped, if the request was answered before, or for a choice beyond
    the offer; Forbidden, NotFound, Invalid or Conflict if role policies do not permit the consent, or the agent may not
    act or cannot be created.
    """
    act.entry.person = session.person
    _check_unchanged(act, client, digest=choice.digest)
    check_person(act.tx, client, person=session.person, uri=offer.resource, scopes=choice.scopes, now=act.now)
    if not choice.scopes <= offer.scopes | request.identity or not choice.details <= set(range(len(offer.details))):
        raise InvalidRequest("the form has a scope or a bound that this page did not offer", hint="reload the page")
    details = tuple(detail for place, detail in enumerate(offer.details) if place in choice.details)
    if offer.details and not details:
        raise InvalidRequest("no bound is ticked", hint="leave a bound ticked, or deny the request")
    if offer.scopes and not details and not choice.scopes & offer.scopes:
        raise InvalidRequest("no scope is ticked", hint="leave a scope ticked, or deny the request")
    agent = agent_of(act, client, session.person, scopes=choice.scopes & offer.scopes)
    consent = remember(
        act,
        client,
        agent=agent,
        person=session.person,
        offer=offer,
        offered=offer.scopes | request.identity,
        scopes=choice.scopes,
        details=details,
        seconds=choice.seconds,
    )
    return _put_code(act, request, consent, choice.scopes, details, session, assurance, request_uri=request_uri)


def _check_unchanged(act: Act, client: OAuthClient, *, digest: str) -> None:
    """Check that the client is active, and that its stored metadata and `client` still have the digest `digest`. Raises
    InvalidClient for an unknown or stopped client, InvalidRequest for changed metadata.
    """
    if {trust.find_oauth_client(act.tx, client.client_id).digest, client.digest} != {digest}:
        raise InvalidRequest(
            "the client's registration changed during this request", hint="go back to the application and begin again"
        )


def _put_code(
    act: Act,
    request: AuthorizationRequest,
    consent: Consent,
    scopes: frozenset[str],
    details: tuple[ToolDetail, ...],
    session: Session,
    assurance: Assurance,
    *,
    request_uri: str,
) -> str:
    """Store and return an authorization code for exactly these scopes and bounds, and mark the request as answered.
    Raises InvalidRequest if the request was answered before.
    """
    act.entry.agent = consent.agent
    registry.fill_entry(act, object=consent.consent_id, client=consent.client_id, scopes=sorted(scopes))
    granted = replace(
        request, scope=render_scope(scopes), resource=consent.resource or None, details=render_details(details)
    )
    code = _make_secret(act.tx)
    made = Code(
        consent=consent.consent_id,
        session=session.id,
        request=granted,
        acr=assurance.acr,
        amr=assurance.amr,
        authenticated_at=assurance.authenticated_at,
        expires_at=act.now + (DEVICE_S if request_uri.startswith(DEVICE) else CODE_S) * SECOND,
    )
    key = key_of(code)
    store.authorization.put_code(act.tx, key, made)
    _answer_request(act, request_uri, code=key)
    return code


def _answer_request(act: Act, request_uri: str, *, code: str | None) -> None:
    """Mark the request that `request_uri` names as answered. For a device request (`device:USER_CODE`), store `code`,
    the database key of the authorization code, or None if the person denied.

    With an empty `request_uri`, do nothing. Raises InvalidRequest if the request was answered before.
    """
    if not request_uri:
        return
    if request_uri.startswith(DEVICE):
        is_first = store.devices.answer(act.tx, request_uri.removeprefix(DEVICE), code=code)
    else:
        is_first = store.authorization.use_request(act.tx, key_of(request_uri.removeprefix(REQUEST_URI)))
    if not is_first:
        raise InvalidRequest("the authorization request was answered before", hint="begin again in the application")


def deny(act: Act, request: AuthorizationRequest, session: Session, *, request_uri: str) -> None:
    """Record that the person denied an authorization request. Raises InvalidRequest after an earlier answer."""
    act.entry.person = session.person
    registry.fill_entry(act, object=request.client_id, resource=request.resource or "", scopes=sorted(request.scopes))
    _answer_request(act, request_uri, code=None)


def _make_secret(tx: Tx) -> str:
    """Return a new secret for a code or request reference: the time in milliseconds (12 hexadecimal digits), then 256
    random bits in base64url.
    """
    return f"{tx.now // 1000:0{TIME_DIGITS}x}{b64u(tx.random(32))}"


def key_of(secret: str) -> str:
    """Return the database key of a code or request reference: the time at its beginning, then the digest of the secret.

    Rows of the same time have neighbouring keys, so that a commit writes few database pages.
    """
    return secret[:TIME_DIGITS] + digest_of(secret)


def digest_of(secret: str) -> str:
    """Return the SHA-256 digest of a secret, such as an authorization code. The database stores the digest, and never
    the secret.
    """
    return b64u(sha256(secret.encode()).digest())
