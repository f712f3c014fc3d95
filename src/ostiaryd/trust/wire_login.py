"""Pages for people: login, logout and the setup link.

A wrong name, a wrong password and an account without a password get the same answer.
"""

from __future__ import annotations

from urllib.parse import urlencode

from ostiary.protocol.errors import Invalid, Refused
from ostiaryd.ground.http.edge import Call, Headers, Reply, status_of
from ostiaryd.ground.http.html import HTML_BODY, PAGES, base_path, continue_page, page, see_other
from ostiaryd.ground.http.routes import FORM, NOT_FOUND, Content, Query, Route
from ostiaryd.ledger.flows import Act
from ostiaryd.ledger.flows import act as run_act
from ostiaryd.registry import flows as registry
from ostiaryd.trust.flows.logins import LoginRefused, LoginThrottled, log_in, prove_password
from ostiaryd.trust.flows.passwords import TooManyLogins, check_password, password_hashing
from ostiaryd.trust.flows.providers import list_providers
from ostiaryd.trust.flows.sessions import (
    ForgedForm,
    Login,
    NewSession,
    begin_session,
    end_headers,
    end_session,
    form_token,
    login_headers,
    new_login,
    note_use,
    read_form,
    read_login,
    session_headers,
    session_of,
)
from ostiaryd.trust.flows.setup import find_setup_link, use_setup_link
from ostiaryd.trust.model.sessions import Demand, Proof, parse_demand
from ostiaryd.trust.store import people


async def show_login(call: Call) -> Reply:
    """Show the login page, or go on to `return_to` if the session of the browser meets the demand."""
    demand = parse_demand(call.query_one)
    session = session_of(call)
    if session is not None and not demand.is_new:
        now = call.world.now()
        if session.meet(now=now, acr_values=demand.acr_values, max_age=demand.max_age) is not None:
            await note_use(call, session)
            return see_other(call, demand.return_to)
    return _login_page(call, read_login(call), demand)


async def log_in_with_password(call: Call) -> Reply:
    """Log in with name and password; goes on to `return_to`."""
    login = read_login(call)
    try:
        form = read_form(call, login)
        demand = parse_demand(form.get)
        person = await prove_password(
            call, unverified_name=form.get("name", ""), unverified_password=form.get("password", "")
        )
    except ForgedForm as refusal:
        return _login_page(call, login, parse_demand(call.query_one), refusal=refusal)
    except (LoginRefused, LoginThrottled, TooManyLogins) as refusal:
        return _login_page(call, login, demand, refusal=refusal, name=form.get("name", ""))
    proof = Proof(method="password", at=call.world.now())
    return _signed_in(call, demand, await log_in(call, person, [proof], replaces=session_of(call)))


async def show_done(call: Call) -> Reply:
    """Lead on to `return_to` after a login, by a navigation that no longer belongs to the form."""
    url = base_path(call.world.config) + parse_demand(call.query_one).return_to
    return continue_page(call, url, title="You are signed in")


async def log_out(call: Call) -> Reply:
    """End the session of the browser."""
    session = session_of(call)
    read_form(call, session)
    assert session is not None, "a form without a session is refused"

    def run(act: Act) -> None:
        act.entry.person = session.person
        end_session(act, session.id)

    await run_act(call.world, "person.logout", run, request=call.request_id, network=call.network)
    return see_other(call, "/login", headers=end_headers())


async def show_setup(call: Call) -> Reply:
    """Show the page of a setup link, on which a person chooses a password."""
    code = call.query_one("code") or ""
    person = find_setup_link(call.world.db.read(), code, now=call.world.now())
    return _setup_page(call, code, person)


async def set_up(call: Call) -> Reply:
    """Set the first password with a setup link, and log in."""
    login = read_login(call)
    form = read_form(call, login)
    code, password = form.get("code", ""), form.get("password", "")
    id = find_setup_link(call.world.db.read(), code, now=call.world.now())
    person = registry.find_person(call.world.db.read(), id)
    try:
        check_password(password, name=person.name)
        if password != form.get("repeated", ""):
            raise Invalid("the two passwords differ", hint="type the same password twice")
        hash = await password_hashing(call).hash(password, network=call.network)
    except (Invalid, TooManyLogins) as refusal:
        return _setup_page(call, code, id, refusal=refusal)

    def run(act: Act) -> NewSession:
        use_setup_link(act, code)
        people.set_password(act.tx, id, hash)
        return begin_session(
            act,
            person=id,
            proofs=[Proof(method="password", at=act.now)],
            config=call.world.config,
            network=call.network,
            unverified_browser=call.header(b"user-agent"),
        )

    new = await run_act(call.world, "person.set_up", run, request=call.request_id, network=call.network)
    return see_other(call, "/account", headers=session_headers(new))


def _login_page(
    call: Call, login: Login | None, demand: Demand, *, refusal: Refused | None = None, name: str = ""
) -> Reply:
    kept, headers = _kept(call, login)
    status = 200 if refusal is None else status_of(refusal)
    if isinstance(refusal, LoginThrottled):
        status = 429
        headers = [*headers, (b"retry-after", b"%d" % refusal.after_s)]
    return page(
        call,
        "trust/login.html",
        status=status,
        headers=headers,
        form_token=form_token(call, kept),
        fields=demand.fields(),
        name=name or demand.login_hint,
        providers=[(one.login_path, one.label) for one in list_providers(call.world.db.read())],
        query=urlencode(demand.fields()),
        refusal=refusal,
    )


def _setup_page(call: Call, code: str, id: str, *, refusal: Refused | None = None) -> Reply:
    kept, headers = _kept(call, read_login(call))
    return page(
        call,
        "trust/setup.html",
        status=200 if refusal is None else status_of(refusal),
        headers=headers,
        form_token=form_token(call, kept),
        code=code,
        name=registry.find_person(call.world.db.read(), id).name,
        refusal=refusal,
    )


def _kept(call: Call, login: Login | None) -> tuple[Login, Headers]:
    """Return the login cookie of the browser, or a new one with the header that sets it."""
    if login is not None:
        return login, []
    made = new_login(call)
    return made, login_headers(call, made)


def _signed_in(call: Call, demand: Demand, new: NewSession) -> Reply:
    """Lead on after a login. `/authorize` may lead to another origin, which the policy of the form does not allow."""
    path = demand.return_to
    if path.startswith("/authorize"):
        path = f"/login/done?{urlencode({'return_to': path})}"
    return see_other(call, path, headers=session_headers(new))


DEMAND = (
    Query("return_to", "Path of this server where the login leads to."),
    Query("acr_values", "Levels of assurance that are enough, with spaces between."),
    Query("max_age", "How old a proof may be, in seconds."),
    Query("prompt", "`login`: prove again, whatever session there is."),
    Query("login_hint", "Name of the person."),
)
FORGED = ForgedForm("the form has expired")
PAGE_FORM = Content(dict[str, str], media_types=FORM)
ROUTES = (
    Route("GET", "/login", show_login, "", protocol=PAGES, query=DEMAND, answers={200: HTML_BODY, 303: None}),
    Route(
        "POST",
        "/login",
        log_in_with_password,
        "",
        protocol=PAGES,
        body=PAGE_FORM,
        answers={200: HTML_BODY, 303: None, 403: HTML_BODY, 429: HTML_BODY},
    ),
    Route("GET", "/login/done", show_done, "", protocol=PAGES, query=DEMAND[:1], answers={200: HTML_BODY}),
    Route(
        "POST",
        "/account/logout",
        log_out,
        "",
        protocol=PAGES,
        body=PAGE_FORM,
        answers={303: None},
        errors=(FORGED,),
    ),
    Route(
        "GET",
        "/setup",
        show_setup,
        "",
        protocol=PAGES,
        query=(Query("code", "Code of the setup link."),),
        answers={200: HTML_BODY},
        errors=(NOT_FOUND,),
    ),
    Route(
        "POST",
        "/setup",
        set_up,
        "",
        protocol=PAGES,
        body=PAGE_FORM,
        answers={303: None},
        errors=(NOT_FOUND, FORGED),
    ),
)
