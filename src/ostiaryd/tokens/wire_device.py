"""POST /device_authorization, and the page /device on which a person types the code of a device (RFC 8628)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict
from urllib.parse import urlencode

from ostiary.protocol.errors import NotFound, Refused, Unavailable
from ostiaryd.ground.http.buckets import Buckets
from ostiaryd.ground.http.edge import NO_STORE, Call, Reply, reply
from ostiaryd.ground.http.html import HTML_BODY, HTML_FORM, PAGES, page, redirect, see_other
from ostiaryd.ground.http.routes import FORM, Content, Query, Route
from ostiaryd.ledger.flows import Act, act
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import is_agent_id
from ostiaryd.tokens import flows
from ostiaryd.tokens.flows import authorization
from ostiaryd.tokens.flows.authorization import DEVICE, Step
from ostiaryd.tokens.model import read_form
from ostiaryd.tokens.model.authorization import AuthorizationRequest
from ostiaryd.tokens.model.consent import read_choice
from ostiaryd.tokens.model.device import DEVICE_INTERVAL_S, DEVICE_S, Device, render_user_code
from ostiaryd.tokens.wire_errors import OAUTH, challenges_clients
from ostiaryd.tokens.wire_oauth import CLIENT_ERRORS, ClientForm, read_sender
from ostiaryd.trust import flows as trust
from ostiaryd.trust.flows import logins, sessions
from ostiaryd.trust.flows.sessions import ForgedForm
from ostiaryd.trust.model.sessions import Demand, Session
from ostiaryd.trust.model.throttle import CODE, NETWORK

COST = 3


class DeviceBuckets(Buckets):
    """Limit of requests from a network by clients that no administrator registered: 60 at once, then one in 3
    seconds.
    """

    burst, per_second = 60 * COST, 1


class DeviceForm(ClientForm, total=False):
    """A device authorization request (RFC 8628 section 3.1)."""

    scope: str
    resource: str
    authorization_details: str
    acr_values: str
    max_age: str


class DeviceBody(TypedDict):
    """The response to a device authorization request (RFC 8628 section 3.2)."""

    device_code: str
    user_code: str
    verification_uri: str
    verification_uri_complete: str
    expires_in: int
    interval: int


@challenges_clients
async def device_authorization(call: Call) -> Reply:
    """Start a device authorization; return the codes for the device and for the person (RFC 8628 section 3.1)."""
    form = read_form(call.form())
    sender = await read_sender(call, form)
    if not is_agent_id(sender.client_id):
        _take_room(call)
    config = call.world.config

    def run(act: Act) -> flows.NewDevice:
        return flows.request_device(act, form, sender, config=config)

    made = await act(call.world, "device.request", run, request=call.request_id, network=call.network)
    code, uri = render_user_code(made.user_code), f"{config.public_url}/device"
    body = {
        "device_code": made.device_code,
        "user_code": code,
        "verification_uri": uri,
        "verification_uri_complete": f"{uri}?{urlencode({'user_code': code})}",
        "expires_in": DEVICE_S,
        "interval": DEVICE_INTERVAL_S,
    }
    return reply(body, headers=[NO_STORE])


def _take_room(call: Call) -> None:
    """Count a request of a caller that no administrator registered, against the limit of the caller's network. Raises
    Unavailable above the limit.
    """
    bucket = call.world.get_singleton(DeviceBuckets).of(call.network)
    if not bucket.has(COST):
        raise Unavailable("too many device requests from this network", hint=f"try again in {bucket.after_s(COST)} s")
    bucket.take(COST)


async def show_device(call: Call) -> Reply:
    """Show the page on which a person types the code of a device. Without a session, redirect to the login page."""
    if (url := sessions.find_page_host(call)) is not None:
        return redirect(url)
    code = call.query_one("user_code") or ""
    session = await sessions.session_of(call)
    if session is None:
        return _to_login(call, code)
    return _code_page(call, session, code=code)


async def enter_code(call: Call) -> Reply:
    """Receive the code of a device, and show the requested access."""
    session = await sessions.session_of(call)
    form = sessions.read_form(call, session)
    assert session is not None, "a form without a session is refused"
    code = form.get("user_code", "")
    try:
        device = await _find_device(call, session, code)
    except (NotFound, logins.LoginThrottled) as refusal:
        return _code_page(call, session, code=code, refusal=refusal)
    return await _ask(call, session, device)


async def _find_device(call: Call, session: Session, unverified_code: str) -> Device:
    """Return the device request with a user code. A wrong code counts against the attempts of the session (RFC 8628
    section 5.1). Raises NotFound if there is none, LoginThrottled after too many attempts.
    """
    slots = [
        logins.slot_of(call.world.keys, CODE, f"device {session.person}"),
        logins.slot_of(call.world.keys, NETWORK, call.network),
    ]
    logins.check_throttle(call.world.db.read(), slots, now=call.world.now())
    try:
        return flows.find_device(call.world.db.read(), unverified_code, now=call.world.now())
    except NotFound:
        await logins.count_failures(call, slots)
        raise


async def _ask(call: Call, session: Session, device: Device) -> Reply:
    """Show the consent page of a device request. If the request demands a new login, redirect to the login
    page first.
    """
    reader, now, client = (
        call.world.db.read(),
        call.world.now(),
        await trust.resolve_client(call.world, device.client_id, network=call.network),
    )
    offer = authorization.make_offer(reader, device.request, client, now=now, config=call.world.config)
    step, _ = authorization.choose_step(
        reader, device.request, offer, client, session, requested_at=device.created_at, now=now
    )
    if step is Step.LOGIN:
        return _to_login(call, render_user_code(device.user_code), request=device.request)
    view = authorization.view_consent(reader, client, device.request, offer, session)
    fields = {
        "form_token": sessions.form_token(call, session),
        "client_digest": client.digest,
        "user_code": device.user_code,
    }
    return page(
        call,
        "tokens/consent.html",
        view=view,
        fields=fields,
        action="/device/consent",
        code=render_user_code(device.user_code),
        person=view.person,
    )


async def decide(call: Call) -> Reply:
    """Receive the answer of a person to the request of a device."""
    session = await sessions.session_of(call)
    form = sessions.read_form(call, session)
    assert session is not None, "a form without a session is refused"
    try:
        device = await _find_device(call, session, form.get("user_code", ""))
    except (NotFound, logins.LoginThrottled) as refusal:
        return _code_page(call, session, code="", refusal=refusal)
    allowed = await _answer(call, session, device, form)
    return page(call, "tokens/device_done.html", allowed=allowed, person=_name(call, session))


async def _answer(call: Call, session: Session, device: Device, form: Mapping[str, str]) -> bool:
    request, reference = device.request, DEVICE + device.user_code
    if form.get("decision") != "allow":
        await sessions.act_as_person(
            call,
            session,
            "authorization.deny",
            lambda act: authorization.deny(act, request, session, request_uri=reference),
        )
        return False
    reader, now, client = (
        call.world.db.read(),
        call.world.now(),
        await trust.resolve_client(call.world, device.client_id, network=call.network),
    )
    offer = authorization.make_offer(reader, request, client, now=now, config=call.world.config)
    _, assurance = authorization.choose_step(
        reader, request, offer, client, session, requested_at=device.created_at, now=now
    )
    if assurance is None:
        raise ForgedForm(
            "the login of this session no longer satisfies the request", hint="open /device again and sign in"
        )
    choice = read_choice(form)

    def run(act: Act) -> str:
        return authorization.agree(act, request, offer, choice, client, session, assurance, request_uri=reference)

    await sessions.act_as_person(call, session, "authorization.consent", run)
    return True


def _to_login(call: Call, code: str, *, request: AuthorizationRequest | None = None) -> Reply:
    back = f"/device?{urlencode({'user_code': code})}" if code else "/device"
    demand = Demand(return_to=back)
    if request is not None:
        demand = Demand(return_to=back, acr_values=request.acr_values, max_age=request.max_age)
    return see_other(call, demand.login_path)


def _code_page(call: Call, session: Session, *, code: str, refusal: Refused | None = None) -> Reply:
    status, headers = logins.render_status(refusal)
    return page(
        call,
        "tokens/device.html",
        status=status,
        headers=headers,
        form_token=sessions.form_token(call, session),
        code=code[:32],
        refusal=refusal,
        person=_name(call, session),
    )


def _name(call: Call, session: Session) -> str:
    return registry.find_person(call.world.db.read(), session.person).name


FORGED = ForgedForm("the form has expired")
ROUTES = (
    Route(
        "POST",
        "/device_authorization",
        device_authorization,
        "",
        protocol=OAUTH,
        body=Content(DeviceForm, FORM),
        errors=CLIENT_ERRORS,
        answers={200: DeviceBody},
        is_cross_origin=True,
    ),
    Route(
        "GET",
        "/device",
        show_device,
        "",
        protocol=PAGES,
        query=(Query("user_code", "The code that the device shows."),),
        answers={200: HTML_BODY, 303: None},
    ),
    Route(
        "POST",
        "/device",
        enter_code,
        "",
        protocol=PAGES,
        body=HTML_FORM,
        errors=(FORGED,),
        answers={200: HTML_BODY, 303: None, 404: HTML_BODY, 429: HTML_BODY},
    ),
    Route(
        "POST",
        "/device/consent",
        decide,
        "",
        protocol=PAGES,
        body=HTML_FORM,
        errors=(FORGED,),
        answers={200: HTML_BODY, 404: HTML_BODY, 429: HTML_BODY},
    ),
)
