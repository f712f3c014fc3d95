"""GET and POST /authorize, POST /par, and the consent page: RFC 6749 section 4.1, RFC 9126, RFC 9207, and OpenID
Connect Core 1.0 section 3.1.2.

Until the server has checked that the redirect URI is registered for the client, a refusal is shown to the person;
afterwards it is sent to the redirect URI.
"""

from __future__ import annotations

from collections.abc import Awaitable, Collection, Mapping
from contextlib import suppress
from typing import NoReturn, TypedDict
from urllib.parse import urlencode, urlsplit

from msgspec.structs import replace

from ostiary.protocol.errors import Forbidden, Refused
from ostiary.protocol.jose import InvalidToken
from ostiaryd.ground.http.edge import NO_STORE, Call, Reply, reply, status_of
from ostiaryd.ground.http.forms import parse_form
from ostiaryd.ground.http.html import HTML_BODY, HTML_FORM, PAGES, continue_page, page, redirect, see_other
from ostiaryd.ground.http.routes import FORM, Content, Query, Route
from ostiaryd.ledger.flows import Act, act, record_refusal
from ostiaryd.registry import flows as registry
from ostiaryd.tokens.flows import authorization
from ostiaryd.tokens.flows.authorization import REQUEST_S, Step
from ostiaryd.tokens.flows.mint import identify
from ostiaryd.tokens.model import InvalidRequest, read_form
from ostiaryd.tokens.model.authorization import (
    REQUEST_URI,
    AuthorizationRequest,
    ReturnAddress,
    parse_request,
    parse_return_address,
    render_answer,
    render_redirect,
)
from ostiaryd.tokens.model.consent import Offer, read_choice
from ostiaryd.tokens.model.id_tokens import read_id_token_hint
from ostiaryd.tokens.model.wording import word_target
from ostiaryd.tokens.store.authorization import StoredRequest
from ostiaryd.tokens.wire_errors import OAUTH, challenges_clients, describe_error
from ostiaryd.tokens.wire_oauth import CLIENT_ERRORS, ClientForm, read_sender
from ostiaryd.tokens.wire_request_objects import Parameters, open_request, read_one
from ostiaryd.trust import flows as trust
from ostiaryd.trust.flows import sessions
from ostiaryd.trust.flows.sessions import ForgedForm, SessionEnded
from ostiaryd.trust.model import InvalidClient, name_claimed
from ostiaryd.trust.model.clients import AUTHORIZATION_CODE, LOOPBACK, ClientKind, OAuthClient
from ostiaryd.trust.model.sessions import Demand, Session


class PushedForm(ClientForm, total=False):
    """A pushed authorization request (RFC 9126 section 2.1)."""

    response_type: str
    request: str
    redirect_uri: str
    scope: str
    state: str
    code_challenge: str
    code_challenge_method: str
    resource: str
    authorization_details: str
    nonce: str
    prompt: str
    max_age: str
    acr_values: str
    claims: str
    login_hint: str
    id_token_hint: str
    response_mode: str
    dpop_jkt: str


class PushedBody(TypedDict):
    """The response to a pushed authorization request (RFC 9126 section 2.2)."""

    request_uri: str
    expires_in: int


async def authorize(call: Call) -> Reply:
    """Begin an authorization: ask the person to sign in and to consent, or answer at the redirect URI."""
    if call.is_read and (url := sessions.find_page_host(call)) is not None:
        return redirect(url)
    parameters = parse_form(call.query.encode("latin-1")) if call.is_read else call.form()
    try:
        return await _authorize(call, parameters)
    except Refused as refusal:
        await _refuse(call, read_one(parameters, "client_id"), refusal)


async def _authorize(call: Call, parameters: Parameters) -> Reply:
    client = await _client_of(call, parameters)
    if read_one(parameters, "request_uri").startswith(REQUEST_URI):
        request_uri = read_one(parameters, "request_uri")
        stored = authorization.find_request(call.world.db.read(), request_uri, client, now=call.world.now())
        work = _proceed(call, client, stored.request, request_uri, stored.created_at)
        return await _answering(call, client, stored.request.return_address, work, prompt=stored.request.prompt)
    try:
        opened = await open_request(call, client, parameters)
    except Refused as refusal:
        address, prompt = parse_return_address(parameters, client), read_one(parameters, "prompt").split()
        return await _answering(call, client, address, _raise(refusal), prompt=prompt)
    address = parse_return_address(opened, client)
    work = _begin(call, client, opened, address)
    return await _answering(call, client, address, work, prompt=read_one(opened, "prompt").split())


async def _raise(refusal: Refused) -> Reply:
    raise refusal


async def _refuse(call: Call, client_id: str, refusal: Refused) -> NoReturn:
    """Record the refusal of a request to the authorization endpoint, then raise it."""
    await record_refusal(
        call.world,
        "authorization.request",
        refusal,
        object=name_claimed(client_id) or "",
        request=call.request_id,
        network=call.network,
    )


async def _begin(call: Call, client: OAuthClient, parameters: Parameters, address: ReturnAddress) -> Reply:
    if client.metadata.require_pushed_authorization_requests:
        raise InvalidRequest(
            "this client must push its authorization requests (RFC 9126)", hint="send the parameters to `/par` by POST"
        )
    request = _parse(call, client, parameters, address)
    # requested in the future: no earlier login counts as made for this request
    return await _proceed(call, client, request, "", call.world.now() + 1)


@challenges_clients
async def push(call: Call) -> Reply:
    """Store an authorization request of an authenticated client, and return its reference (RFC 9126)."""
    form: Parameters = call.form()
    values = read_form({name: list(value) for name, value in form.items() if name != "resource"})
    if "request_uri" in values:
        raise InvalidRequest(
            "`request_uri` cannot be a parameter of a pushed request",
            hint="leave `request_uri` out (RFC 9126 section 2.1)",
        )
    sender, config = await read_sender(call, values), call.world.config
    if "request" in values:
        try:
            client = await trust.resolve_client(call.world, sender.client_id, network=call.network)
            form = await open_request(call, client, form)
        except Refused as refusal:
            await _refuse(call, sender.client_id, refusal)

    def run(act: Act) -> str:
        proofs = identify(act, sender, config=config, path="/par")
        client = proofs.client
        registry.fill_entry(act, object=client.client_id)
        if client.metadata.require_signed_request_object and "request" not in values:
            raise InvalidRequest("this client must sign its authorization requests", hint="send `request` (RFC 9101)")
        request = _parse(call, client, form, parse_return_address(form, client))
        jkt = proofs.possession.jkt or request.jkt
        if request.jkt not in ("", jkt):
            raise InvalidRequest("`dpop_jkt` is not the key of the DPoP proof")
        authorization.make_offer(act.tx, request, client, now=act.now, config=config)
        network = "" if client.kind is ClientKind.AGENT else call.network or "?"
        return authorization.store_request(act.tx, replace(request, jkt=jkt), network=network)

    request_uri = await act(call.world, "authorization.push", run, request=call.request_id, network=call.network)
    return reply({"request_uri": request_uri, "expires_in": REQUEST_S}, status=201, headers=[NO_STORE])


async def _proceed(
    call: Call, client: OAuthClient, request: AuthorizationRequest, request_uri: str, since: int
) -> Reply:
    """Respond to a valid authorization request: with a code if the person need not sign in or consent, otherwise with
    the login page or the consent page.

    `since` is the time of the request in microseconds: if the request demands a new login, the login must be later. The
    code is issued in one act, which repeats all checks.
    """
    world = call.world
    session = await sessions.session_of(call)
    if session is not None and authorization.has_consented(world.db.read(), client, session):

        def run(act: Act) -> str:
            return authorization.issue_code(
                act, request, client, session, requested_at=since, request_uri=request_uri, config=world.config
            )

        with suppress(authorization.PersonNeeded):
            code = await sessions.act_as_person(call, session, "authorization.grant", run)
            return _answer(call, request.return_address, {"code": code})
    now = world.now()
    offer = authorization.make_offer(world.db.read(), request, client, now=now, config=world.config)
    step, assurance = authorization.choose_step(
        world.db.read(), request, offer, client, session, requested_at=since, now=now
    )
    if not request_uri:
        network = call.network
        request_uri = await world.writer.submit(
            lambda tx: authorization.store_request(tx, request, network=network or "?")
        )
    # the browser may have left out the cookie (`SameSite=Lax`) because another site sent this form
    if session is None and not call.is_read:
        return see_other(call, _path_of(request, request_uri))
    if session is None or assurance is None:
        return _to_login(call, request, request_uri)
    if step is Step.CODE:  # the person consented in another window a moment ago
        return see_other(call, _path_of(request, request_uri))
    return _consent_page(call, client, request, offer, session, request_uri)


def _to_login(call: Call, request: AuthorizationRequest, request_uri: str) -> Reply:
    demand = Demand(
        return_to=_path_of(request, request_uri),
        acr_values=request.acr_values,
        max_age=request.max_age,
        is_new=bool({"login", "select_account"} & set(request.prompt) or request.subject),
        login_hint=request.login_hint,
    )
    return see_other(call, demand.login_path)


def _path_of(request: AuthorizationRequest, request_uri: str) -> str:
    """Return the path at which a stored request continues."""
    return f"/authorize?{urlencode({'client_id': request.client_id, 'request_uri': request_uri})}"


async def decide(call: Call) -> Reply:
    """Receive the person's answer on a consent page, and respond at the redirect URI."""
    session = await sessions.session_of(call)
    form = sessions.read_form(call, session)
    assert session is not None, "a form without a session is refused"
    try:
        client = await trust.resolve_client(call.world, form.get("client_id", ""), network=call.network)
        stored = authorization.find_request(
            call.world.db.read(), form.get("request_uri", ""), client, now=call.world.now()
        )
    except Refused as refusal:
        await _refuse(call, form.get("client_id", ""), refusal)
    address = stored.request.return_address
    return await _answering(call, client, address, _decide(call, client, stored, session, form), is_form=True)


async def _decide(
    call: Call, client: OAuthClient, stored: StoredRequest, session: Session, form: Mapping[str, str]
) -> Reply:
    """Record the person's answer on a consent page, and return the response. If the login of the session no longer
    satisfies the request, redirect to the login page.
    """
    request, request_uri, reader, now = (
        stored.request,
        form.get("request_uri", ""),
        call.world.db.read(),
        call.world.now(),
    )
    if form.get("decision") != "allow":
        await sessions.act_as_person(
            call,
            session,
            "authorization.deny",
            lambda act: authorization.deny(act, request, session, request_uri=request_uri),
        )
        denied = Forbidden("the person denied the request", code="access_denied")
        denied.is_recorded = True  # recorded above by the act `authorization.deny`
        raise denied
    offer = authorization.make_offer(reader, request, client, now=now, config=call.world.config)
    step, assurance = authorization.choose_step(
        reader, request, offer, client, session, requested_at=stored.created_at, now=now
    )
    if step is Step.LOGIN or assurance is None:
        return _to_login(call, request, request_uri)
    choice = read_choice(form)

    def run(act: Act) -> str:
        return authorization.agree(act, request, offer, choice, client, session, assurance, request_uri=request_uri)

    code = await sessions.act_as_person(call, session, "authorization.consent", run)
    return _answer(call, request.return_address, {"code": code}, is_form=True)


def _consent_page(
    call: Call, client: OAuthClient, request: AuthorizationRequest, offer: Offer, session: Session, request_uri: str
) -> Reply:
    view = authorization.view_consent(call.world.db.read(), client, request, offer, session)
    fields = {
        "form_token": sessions.form_token(call, session),
        "client_id": client.client_id,
        "client_digest": client.digest,
        "request_uri": request_uri,
    }
    return page(call, "tokens/consent.html", view=view, fields=fields, action="/consent", person=view.person)


async def _client_of(call: Call, parameters: Parameters) -> OAuthClient:
    """Return the client of an authorization request. Raises InvalidRequest unless exactly one `client_id` was sent,
    InvalidClient for an unknown client.
    """
    if not (client_id := read_one(parameters, "client_id")):
        is_repeated = len(parameters.get("client_id", ())) > 1
        raise InvalidRequest("`client_id` was sent more than once" if is_repeated else "`client_id` is missing")
    client = await trust.resolve_client(call.world, client_id, network=call.network, request_id=call.request_id)
    if AUTHORIZATION_CODE not in client.metadata.grant_types:
        raise InvalidRequest("the client is not registered for the grant type `authorization_code`")
    return client


def _parse(call: Call, client: OAuthClient, parameters: Parameters, address: ReturnAddress) -> AuthorizationRequest:
    subject = ""
    if hint := read_one(parameters, "id_token_hint"):
        keys, issuer = call.world.keys.public("token"), call.world.config.issuer
        try:
            claims = read_id_token_hint(hint, keys=keys.get, issuer=issuer)
        except InvalidToken as error:
            raise InvalidRequest(f"`id_token_hint`: {error.message}") from None
        if claims["aud"] != client.client_id:
            raise InvalidRequest("`id_token_hint` was issued to another client")
        subject = str(claims["sub"])
    return parse_request(parameters, client, address=address, classes=call.world.config.classes, subject=subject)


async def _answering(
    call: Call,
    client: OAuthClient,
    address: ReturnAddress,
    work: Awaitable[Reply],
    *,
    prompt: Collection[str] = (),
    is_form: bool = False,
) -> Reply:
    """Await the response to an authorization request. If `work` raises a refusal, record it and send it to the redirect
    URI (RFC 6749 section 4.1.2.1).

    In two cases the person first sees a page with a link to the redirect URI: if the person can remedy the refusal, and
    if a client that no administrator registered is new to the person. Without that page, anyone could register a client
    and redirect people through this server to any site (RFC 9700 section 4.11.2). The page is not needed for a loopback
    redirect URI, after a form, and for `prompt=none` without a session if any person has consented to the client.
    """
    try:
        try:
            return await work
        except Refused as refusal:
            await _refuse(call, client.client_id, refusal)
    except (ForgedForm, SessionEnded, InvalidClient):  # an error about the client itself is not sent to the client
        raise
    except Refused as refusal:
        error, description = describe_error(refusal)
        answer = {"error": error, "error_description": description}
        is_site = urlsplit(address.redirect_uri).hostname not in LOOPBACK
        session = await sessions.session_of(call)
        is_silent = session is None and "none" in prompt and not client.is_unknown
        may_follow = (
            is_form or is_silent or not is_site or authorization.may_follow(call.world.db.read(), client, session)
        )
        if not may_follow or (refusal.code == "role_required" and "none" not in prompt):
            return _refusal_page(call, client, address, refusal, answer)
        return _answer(call, address, answer, is_form=is_form)


def _refusal_page(
    call: Call, client: OAuthClient, address: ReturnAddress, refusal: Refused, parameters: Mapping[str, str]
) -> Reply:
    """Return a page with the error and the next step, and with a link back to the client."""
    answer = render_answer(address, parameters, issuer=call.world.config.issuer)
    is_form_post = address.response_mode == "form_post"
    return page(
        call,
        "tokens/refused.html",
        status=status_of(refusal),
        form_action=[_origin(address)] if is_form_post else (),
        client=client.name,
        refusal=refusal,
        target=word_target(address.redirect_uri),
        url=address.redirect_uri if is_form_post else render_redirect(address, answer),
        fields=answer if is_form_post else {},
    )


def _origin(address: ReturnAddress) -> str:
    """Return the origin of the redirect URI for the content security policy; for a custom scheme of an
    application, the scheme.
    """
    target = urlsplit(address.redirect_uri)
    return f"{target.scheme}://{target.netloc}" if target.scheme in ("http", "https") else f"{target.scheme}:"


def _answer(call: Call, address: ReturnAddress, parameters: Mapping[str, str], *, is_form: bool = False) -> Reply:
    """Return the response to an authorization request, with `state` and `iss` (RFC 9207), as redirect or as form that
    posts itself.
    """
    answer = render_answer(address, parameters, issuer=call.world.config.issuer)
    if address.response_mode == "form_post":
        action, origins = address.redirect_uri, [_origin(address)]
        target = word_target(action)
        return page(call, "tokens/form_post.html", action=action, fields=answer, form_action=origins, target=target)
    url = render_redirect(address, answer)
    if is_form:
        return continue_page(call, url, title="Back to the application")
    headers = [(b"location", url.encode("ascii")), NO_STORE, (b"referrer-policy", b"no-referrer")]
    return Reply(303, b"", "text/html; charset=utf-8", headers)


PARAMETERS = (
    Query("client_id", "The client.", is_required=True),
    Query("response_type", "`code`."),
    Query(
        "redirect_uri", "URI that receives the response: a registered URI; the port of a loopback address may differ."
    ),
    Query(
        "request_uri", "Reference to a pushed request (RFC 9126); all other parameters except `client_id` are ignored."
    ),
    Query("request", "Request object: the parameters, signed with a registered key of the client (RFC 9101)."),
    Query("scope", "Scopes of one resource, and `openid`, `profile`, `email`, `offline_access`."),
    Query("state", "Value that the response repeats."),
    Query("code_challenge", "SHA-256 of the code verifier in base64url (RFC 7636)."),
    Query("code_challenge_method", "`S256`."),
    Query("resource", "URI of the resource for which the access token is requested (RFC 8707)."),
    Query("authorization_details", "Requested bounds (RFC 9396)."),
    Query("nonce", "Value that the ID token repeats."),
    Query("prompt", "`none`, or a list of `login`, `consent`, `select_account`."),
    Query("max_age", "Maximum age of the login, in seconds."),
    Query("acr_values", "Acceptable levels of assurance (RFC 9470)."),
    Query("claims", "Requested individual claims (OpenID Connect Core 1.0 section 5.5)."),
    Query("login_hint", "Name of the person who should sign in."),
    Query("id_token_hint", "Earlier ID token of the person who should sign in."),
    Query("response_mode", "`query` or `form_post`."),
    Query("dpop_jkt", "Thumbprint of the DPoP key with which the client must redeem the code (RFC 9449 section 10)."),
)
PAGE_ERRORS: tuple[Refused, ...] = (
    InvalidRequest("`redirect_uri` is not registered for this client"),
    InvalidClient("the client is not known"),
    Forbidden("none of your roles permits this client to act for you", code="role_required"),
)
ROUTES = (
    Route(
        "GET",
        "/authorize",
        authorize,
        "",
        protocol=PAGES,
        query=PARAMETERS,
        errors=PAGE_ERRORS,
        answers={200: HTML_BODY, 303: None},
    ),
    Route(
        "POST",
        "/authorize",
        authorize,
        "",
        protocol=PAGES,
        body=HTML_FORM,
        errors=PAGE_ERRORS,
        answers={200: HTML_BODY, 303: None},
    ),
    Route(
        "POST",
        "/consent",
        decide,
        "",
        protocol=PAGES,
        body=HTML_FORM,
        errors=(*PAGE_ERRORS, ForgedForm("the form has expired")),
        answers={200: HTML_BODY, 303: None},
    ),
    Route(
        "POST",
        "/par",
        push,
        "",
        protocol=OAUTH,
        body=Content(PushedForm, FORM),
        errors=CLIENT_ERRORS,
        answers={201: PushedBody},
        is_cross_origin=True,
    ),
)
