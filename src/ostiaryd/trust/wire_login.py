"""Pages for people: login, step-up and the setup link.

A person authenticates on `/login`, by a passkey or by name and password. If the person has an authenticator app,
`/login/code` asks for its code. If the browser has a session that does not meet the requirements, `/login` asks only
for the missing proof. Every login begins a new session, or continues the person's session under a new cookie.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import wraps
from urllib.parse import urlencode

import msgspec

from ostiary.authorization.assurance import PERSON_MFA, meets
from ostiary.protocol.errors import Conflict, Invalid, Refused
from ostiaryd.ground.http.edge import Call, Headers, Reply, status_of
from ostiaryd.ground.http.html import HTML_BODY, HTML_FORM, PAGES, base_path, continue_page, page, redirect, see_other
from ostiaryd.ground.http.routes import NOT_FOUND, Query, Route
from ostiaryd.ledger import flows as ledger
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Person
from ostiaryd.trust import store
from ostiaryd.trust.flows import credentials
from ostiaryd.trust.flows.browsers import browser_headers
from ostiaryd.trust.flows.logins import (
    MAX_NAME,
    LoginRefused,
    LoginThrottled,
    code_prover,
    log_in,
    prove_code,
    prove_password,
    refuse_login,
    render_status,
)
from ostiaryd.trust.flows.passkeys import (
    add_passkey,
    creation_options,
    names_person,
    request_options,
    use_passkey,
    verify_creation,
    verify_request,
)
from ostiaryd.trust.flows.passwords import LONGEST, SHORTEST, TooManyLogins, check_password, password_hashing
from ostiaryd.trust.flows.second_factors import has_totp
from ostiaryd.trust.flows.sessions import (
    PROOF_LIFETIME_S,
    ForgedForm,
    Login,
    NewSession,
    begin_session,
    end_sessions,
    find_page_host,
    form_token,
    login_headers,
    new_login,
    read_form,
    read_login,
    session_headers,
    session_of,
)
from ostiaryd.trust.flows.setup import find_setup_link, use_setup_link
from ostiaryd.trust.model.passkeys import MAX_PASSKEY_NAME, PasskeyRefused
from ostiaryd.trust.model.sessions import (
    METHODS,
    Demand,
    Method,
    Proof,
    Session,
    add_proof,
    assess,
    fresh_proofs,
    parse_demand,
    parse_return,
    ways_to_meet,
)

FORGED = ForgedForm("the form has expired")


async def show_login(call: Call) -> Reply:
    """Show the login page, or redirect to `return_to` if the session of the browser meets the requirements."""
    if (url := find_page_host(call)) is not None:
        return redirect(url)
    demand, session = parse_demand(call.query_one), await session_of(call)
    if _is_met(call, demand, session):
        return see_other(call, demand.return_to)
    return _login_page(call, demand, session)


def _is_met(call: Call, demand: Demand, session: Session | None) -> bool:
    """Return whether the session of the browser meets the requirements of a login."""
    if session is None or demand.is_new:
        return False
    return session.meet(now=call.world.now(), acr_values=demand.acr_values, max_age=demand.max_age) is not None


def _goes_on_after_expiry(login: Callable[[Call], Awaitable[Reply]]) -> Callable[[Call], Awaitable[Reply]]:
    """Return a wire function that runs `login`, and that also answers an expired login form. If the session of the
    browser meets the requirements of the form, because the person used another tab for the login, redirect as after a
    login. Otherwise show the login page with the refusal and the requirements of the form.
    """

    @wraps(login)
    async def wire(call: Call) -> Reply:
        try:
            return await login(call)
        except ForgedForm as refusal:
            unverified, session = call.form(), await session_of(call)
            form = {name: values[0] for name, values in unverified.items()}
            demand, name = parse_demand(form.get), form.get("name", "").strip()
            if session is not None and _is_for_another(call, session, form, name=name):
                demand = msgspec.structs.replace(demand, is_new=True)
            if _is_met(call, demand, session):
                return see_other(call, _next_path(demand.return_to))
            return _login_page(call, demand, session, refusal=refusal, name=name)

    return wire


def _is_for_another(call: Call, session: Session, form: Mapping[str, str], *, name: str) -> bool:
    """Return whether a login form names another person than the session: by name, id or passkey. Each may be empty."""
    own = registry.find_person(call.world.db.read(), session.person).name
    if name.lower() not in ("", own) or form.get("person", "") not in ("", session.person):
        return True
    credential = form.get("credential", "")
    return credential != "" and not names_person(call, credential, session.person)


@_goes_on_after_expiry
async def log_in_with_password(call: Call) -> Reply:
    """Log in with name and password. Redirect to the page for the code of the authenticator app, or to `return_to`."""
    session, form = await session_of(call), read_form(call, read_login(call))
    demand = parse_demand(form.get)
    try:
        proven = await prove_password(
            call,
            unverified_name=form.get("name", ""),
            unverified_password=form.get("password", ""),
            unverified_code=form.get("code", ""),
        )
    except (LoginRefused, LoginThrottled, TooManyLogins) as refusal:
        return _login_page(call, demand, session, refusal=refusal, name=form.get("name", ""))
    base = _base(session, proven.person, demand)
    proofs = add_proof(base, proven.proofs[0])
    if not proven.unverified_code and _needs_code(call, proven.person, base, proofs, demand):
        login = new_login(call, person=proven.person, proofs=proofs)
        return see_other(call, f"/login/code?{urlencode(demand.fields())}", headers=login_headers(call, login))
    prove = code_prover(proven.person, proven.unverified_code)
    return lead_on(call, demand.return_to, await log_in(call, proven.person, proofs, replaces=session, prove=prove))


async def show_code(call: Call) -> Reply:
    """Show the page that asks for the code of the authenticator app, after the password."""
    demand, login = parse_demand(call.query_one), read_login(call)
    if login is None or not _pending(call, login):
        return see_other(call, demand.login_path)
    return _code_page(call, login, login.person, demand)


@_goes_on_after_expiry
async def log_in_with_code(call: Call) -> Reply:
    """Log in with the code of the authenticator app or a recovery code, as a second or additional proof."""
    login, session = read_login(call), await session_of(call)
    form = read_form(call, login)
    demand, person, code = parse_demand(form.get), form.get("person", ""), form.get("code", "")
    base: Sequence[Proof] = ()
    if login is not None and login.person == person:
        base = _pending(call, login)
    base = base or _base(session, person, demand)
    if not base or login is None:
        return see_other(call, demand.login_path)
    try:
        await prove_code(call, person, code)
        new = await log_in(call, person, base, replaces=session, prove=code_prover(person, code))
    except (LoginRefused, LoginThrottled) as refusal:
        return _code_page(call, login, person, demand, refusal=refusal)
    return lead_on(call, demand.return_to, new)


@_goes_on_after_expiry
async def log_in_with_passkey(call: Call) -> Reply:
    """Log in with a passkey. The passkey identifies the person."""
    login, session = read_login(call), await session_of(call)
    form = read_form(call, login)
    assert login is not None, "a form without a login cookie is refused"
    demand = parse_demand(form.get)
    try:
        try:
            used = verify_request(call, form.get("credential", ""), login)
        except PasskeyRefused as refusal:
            await refuse_login(call, refusal)
        person = used.passkey.person
        base = _base(session, person, demand)
        new = await log_in(call, person, base, replaces=session, prove=lambda act: use_passkey(act, used))
    except PasskeyRefused as refusal:
        return _login_page(call, demand, session, refusal=refusal)
    return lead_on(call, demand.return_to, new)


async def show_done(call: Call) -> Reply:
    """Show a page that leads to the target of a login by a link.

    The content security policy of a form forbids a redirect to another origin.
    """
    url = base_path(call.world.config) + parse_demand(call.query_one).return_to
    return continue_page(call, url, title="You are signed in")


async def show_setup(call: Call) -> Reply:
    """Show the page of a setup link, on which a person registers a passkey or chooses a password."""
    if (url := find_page_host(call)) is not None:
        return redirect(url)
    code = call.query_one("code") or ""
    return_to = parse_return(call.query_one("return_to"))
    return _setup_page(call, code, _find_invited(call, code), return_to=return_to)


async def set_up_password(call: Call) -> Reply:
    """Set a password with a setup link, and log in."""
    form = read_form(call, read_login(call))
    code, password, return_to = form.get("code", ""), form.get("password", ""), parse_return(form.get("return_to"))
    person = _find_invited(call, code)
    try:
        check_password(password, form.get("repeated", ""), name=person.name)
        hash = await password_hashing(call).hash(password, network=call.network)
    except (Invalid, TooManyLogins) as refusal:
        return _setup_page(call, code, person, return_to=return_to, refusal=refusal)

    def prove(act: Act) -> Proof:
        store.people.set_password(act.tx, person.person_id, hash)
        return Proof(method="password", at=act.now)

    return await _set_up(call, code, prove, return_to=return_to)


async def set_up_passkey(call: Call) -> Reply:
    """Register a passkey with a setup link, and log in."""
    login = read_login(call)
    form = read_form(call, login)
    assert login is not None, "a form without a login cookie is refused"
    code, return_to = form.get("code", ""), parse_return(form.get("return_to"))
    person = _find_invited(call, code)
    try:
        new = verify_creation(call, form.get("credential", ""), login)
        return await _set_up(
            call,
            code,
            lambda act: add_passkey(act, person.person_id, new, name=form.get("label", "")),
            return_to=return_to,
        )
    except (PasskeyRefused, Conflict) as refusal:
        return _setup_page(call, code, person, return_to=return_to, refusal=refusal)


async def _set_up(call: Call, code: str, prove: Callable[[Act], Proof], *, return_to: str) -> Reply:
    """Use a setup link, and store the first credential with `prove`, in one act. Then end all earlier sessions of the
    person, log in, and redirect to `return_to`.
    """
    previous = await session_of(call)

    def run(act: Act) -> NewSession:
        person = use_setup_link(act, code)
        end_sessions(act, person)
        return begin_session(
            act,
            person=person,
            proofs=[prove(act)],
            config=call.world.config,
            network=call.network,
            unverified_browser=call.header(b"user-agent"),
            replaces=previous,
        )

    new = await ledger.act(call.world, "person.set_up", run, request=call.request_id, network=call.network)
    headers = [*session_headers(new), *browser_headers(call, new.session.person)]
    return see_other(call, return_to, headers=headers)


def _find_invited(call: Call, unverified_code: str) -> Person:
    """Return the person to whom a setup link belongs. Raises NotFound for a used or expired link."""
    reader = call.world.db.read()
    return registry.find_person(reader, find_setup_link(reader, unverified_code, now=call.world.now()))


def _base(session: Session | None, person: str, demand: Demand) -> tuple[Proof, ...]:
    """Return the proofs to which a login adds further proofs: those of the person's session in this browser; none if
    the person must authenticate again.
    """
    return () if session is None or session.person != person or demand.is_new else session.proofs


def _pending(call: Call, login: Login) -> tuple[Proof, ...]:
    """Return the proofs that the person gave before the code, if the newest is at most `PROOF_LIFETIME_S` old;
    otherwise none.
    """
    fresh = fresh_proofs(login.proofs, now=call.world.now(), max_age=PROOF_LIFETIME_S)
    return login.proofs if fresh else ()


def _needs_code(call: Call, person: str, base: Sequence[Proof], proofs: Sequence[Proof], demand: Demand) -> bool:
    """Return whether a code must follow the password of a person with an authenticator app. If the person has proved
    possession before, a code is needed only if the requirements are not met without a code.
    """
    if not has_totp(call.world.db.read(), person):
        return False
    if not any("possession" in METHODS[proof.method].factors for proof in base):
        return True
    fresh = fresh_proofs(proofs, now=call.world.now(), max_age=demand.max_age)
    return not meets(assess(fresh).acr, demand.acr_values)


def _login_page(
    call: Call, demand: Demand, session: Session | None, *, refusal: Refused | None = None, name: str = ""
) -> Reply:
    """Return the login page. For a browser with a session, the page asks only for the missing proofs."""
    login, headers = _kept(call)
    confirmed = None if demand.is_new else session
    ways: frozenset[Method] = frozenset({"password", "passkey"})
    person = None
    if confirmed is not None:
        reader, now = call.world.db.read(), call.world.now()
        person = registry.find_person(reader, confirmed.person).name
        fresh = fresh_proofs(confirmed.proofs, now=now, max_age=demand.max_age)
        ways = ways_to_meet(credentials.describe(reader, confirmed.person).methods, fresh, demand.acr_values, now=now)
    is_local = confirmed is not None and not confirmed.provider
    providers = [] if is_local else store.providers.providers(call.world.db.read())
    passkey = None
    if "passkey" in ways:
        passkey = request_options(call, login, person=None if confirmed is None else confirmed.person)
    status, wait = render_status(refusal)
    return page(
        call,
        "trust/login.html",
        status=status,
        headers=[*headers, *wait],
        script=passkey is not None,
        form_token=form_token(call, login),
        fields=demand.fields(),
        providers=[(one.login_path, one.label) for one in providers],
        query=urlencode(demand.fields()),
        others=urlencode({**demand.fields(), "prompt": "login", "login_hint": ""}),
        name=person or name or demand.login_hint,
        max_name=MAX_NAME,
        max_password=LONGEST,
        id=None if confirmed is None else confirmed.person,
        person=person,
        ways=ways,
        app_suffices=meets(PERSON_MFA, demand.acr_values),
        passkey=passkey,
        asks_code=isinstance(refusal, LoginThrottled),
        refusal=refusal,
    )


def _code_page(call: Call, login: Login, id: str, demand: Demand, *, refusal: Refused | None = None) -> Reply:
    status, wait = render_status(refusal)
    return page(
        call,
        "trust/code.html",
        status=status,
        headers=wait,
        form_token=form_token(call, login),
        fields=demand.fields(),
        again=urlencode(demand.fields()),
        id=id,
        refusal=refusal,
    )


def _setup_page(call: Call, code: str, person: Person, *, return_to: str, refusal: Refused | None = None) -> Reply:
    login, headers = _kept(call)
    passkey = creation_options(call, person, login)
    return page(
        call,
        "trust/setup.html",
        status=200 if refusal is None else status_of(refusal),
        headers=headers,
        script=passkey is not None,
        form_token=form_token(call, login),
        code=code,
        return_to=return_to,
        name=person.name,
        passkey=passkey,
        max_passkey_name=MAX_PASSKEY_NAME,
        min_password=SHORTEST,
        max_password=LONGEST,
        refusal=refusal,
    )


def _kept(call: Call) -> tuple[Login, Headers]:
    """Return the login of the browser's login cookie; if there is none, a new login with the headers that set the
    cookie.
    """
    if (login := read_login(call)) is not None:
        return login, []
    made = new_login(call)
    return made, login_headers(call, made)


def lead_on(
    call: Call, return_to: str, new: NewSession, *, headers: Headers | None = None, has_cookies: bool = True
) -> Reply:
    """Redirect to `return_to` after a login, and set the session cookie. Without `has_cookies`, the browser sent no
    cookies, so the browser cookie, which names other persons too, is not replaced.
    """
    browser = browser_headers(call, new.session.person) if has_cookies else []
    return see_other(call, _next_path(return_to), headers=[*session_headers(new), *browser, *(headers or [])])


def _next_path(return_to: str) -> str:
    """Return the path to which the form of a login leads. The path `/authorize` is reached through `/login/done`,
    because it may redirect to another origin, which the content security policy of a form forbids.
    """
    return f"/login/done?{urlencode({'return_to': return_to})}" if return_to.startswith("/authorize") else return_to


DEMAND = (
    Query("return_to", "Path of this server to which the login leads."),
    Query("acr_values", "Levels of assurance, separated by spaces; a session that reaches none needs another login."),
    Query("max_age", "Maximum age, in seconds, of the proofs by which the person signed in."),
    Query("prompt", "`login`: authenticate again, even if there is a session."),
    Query("login_hint", "Name of the person who should sign in."),
)
REFUSED = {403: HTML_BODY, 429: HTML_BODY}
ROUTES = (
    Route("GET", "/login", show_login, "", protocol=PAGES, query=DEMAND, answers={200: HTML_BODY, 303: None}),
    Route("POST", "/login", log_in_with_password, "", protocol=PAGES, body=HTML_FORM, answers={303: None, **REFUSED}),
    Route("GET", "/login/code", show_code, "", protocol=PAGES, query=DEMAND, answers={200: HTML_BODY, 303: None}),
    Route("POST", "/login/code", log_in_with_code, "", protocol=PAGES, body=HTML_FORM, answers={303: None, **REFUSED}),
    Route(
        "POST",
        "/login/passkey",
        log_in_with_passkey,
        "",
        protocol=PAGES,
        body=HTML_FORM,
        answers={303: None, 403: HTML_BODY},
    ),
    Route("GET", "/login/done", show_done, "", protocol=PAGES, query=DEMAND[:1], answers={200: HTML_BODY}),
    Route(
        "GET",
        "/setup",
        show_setup,
        "",
        protocol=PAGES,
        query=(
            Query("code", "Code of the setup link."),
            Query("return_to", "Path of this server to which the setup leads."),
        ),
        answers={200: HTML_BODY, 303: None},
        errors=(NOT_FOUND,),
    ),
    Route(
        "POST",
        "/setup",
        set_up_password,
        "",
        protocol=PAGES,
        body=HTML_FORM,
        answers={303: None},
        errors=(NOT_FOUND, FORGED),
    ),
    Route(
        "POST",
        "/setup/passkey",
        set_up_passkey,
        "",
        protocol=PAGES,
        body=HTML_FORM,
        answers={303: None},
        errors=(NOT_FOUND, FORGED, Conflict("this passkey is registered already")),
    ),
)
