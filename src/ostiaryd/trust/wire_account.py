"""The account page: the person's sessions, passkeys, password, authenticator app and recovery codes.

For a change, the person must have authenticated in the last ten minutes, with two factors if the account has
credentials for two. If not, the person is redirected to `/login`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import segno
from markupsafe import Markup

from ostiary.authorization.assurance import PERSON_MFA
from ostiary.protocol.errors import Conflict, Invalid, NotFound, Refused
from ostiaryd.ground.http.edge import Call, Headers, Reply, status_of
from ostiaryd.ground.http.html import HTML_BODY, HTML_FORM, PAGES, page, redirect, see_other
from ostiaryd.ground.http.routes import Route
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Person
from ostiaryd.trust import store
from ostiaryd.trust.flows import credentials
from ostiaryd.trust.flows.passkeys import add_passkey, creation_options, verify_creation
from ostiaryd.trust.flows.passwords import LONGEST, SHORTEST, TooManyLogins, check_password, password_hashing
from ostiaryd.trust.flows.second_factors import (
    new_secret,
    open_new_secret,
    renew_recovery_codes,
    seal_new_secret,
    set_totp,
)
from ostiaryd.trust.flows.sessions import (
    ForgedForm,
    NewSession,
    act_as_person,
    begin_session,
    end_headers,
    end_session,
    end_sessions,
    find_page_host,
    form_token,
    read_form,
    session_headers,
    session_of,
)
from ostiaryd.trust.model.passkeys import MAX_PASSKEY_NAME, PasskeyRefused
from ostiaryd.trust.model.sessions import Demand, Proof, Session, add_proof
from ostiaryd.trust.model.totp import render_secret, render_uri

RECENT_S = 600
"""Maximum age, in seconds, of the proofs with which a person may change their credentials."""
FORGED = ForgedForm("the form has expired")
Signed = Callable[[Call, Session], Awaitable[Reply]]


def _signed_in(wire: Signed) -> Callable[[Call], Awaitable[Reply]]:
    """Return a wire function that runs `wire` with the session, and redirects a browser without a session to the login
    page.
    """

    async def run(call: Call) -> Reply:
        if call.is_read and (url := find_page_host(call)) is not None:
            return redirect(url)
        session = await session_of(call)
        if session is None:
            return see_other(call, Demand(return_to="/account").login_path)
        return await wire(call, session)

    run.__doc__ = wire.__doc__
    return run


def _recently(wire: Signed) -> Callable[[Call], Awaitable[Reply]]:
    """Return a wire function that runs `wire` if the person authenticated in the last ten minutes, and otherwise
    redirects to `/login`. If the account has credentials for two factors, both must have been used.
    """

    async def run(call: Call, session: Session) -> Reply:
        values = (PERSON_MFA,) if credentials.has_two_factors(call.world.db.read(), session.person) else ()
        if session.meet(now=call.world.now(), acr_values=values, max_age=RECENT_S) is None:
            return see_other(call, Demand(return_to="/account", acr_values=values, max_age=RECENT_S).login_path)
        return await wire(call, session)

    run.__doc__ = wire.__doc__
    return _signed_in(run)


async def _show_account(call: Call, session: Session) -> Reply:
    """Show the account of the person who is signed in."""
    return _account_page(call, session)


async def _end_sessions(call: Call, session: Session) -> Reply:
    """End one session of the person, or all sessions except the current one."""
    id = read_form(call, session).get("session")

    def run(act: Act) -> None:
        if id is None:
            end_sessions(act, session.person, keep=session.id)
        else:
            end_session(act, id, person=session.person)

    await act_as_person(call, session, "person.end_sessions" if id is None else "person.end_session", run)
    return see_other(call, "/account")


async def _log_out(call: Call, session: Session) -> Reply:
    """End the session of the browser."""
    read_form(call, session)
    await act_as_person(call, session, "person.logout", lambda act: end_session(act, session.id))
    return see_other(call, "/login", headers=end_headers())


async def _set_password(call: Call, session: Session) -> Reply:
    """Set or change the password, and end all other sessions."""
    form = read_form(call, session)
    try:
        check_password(form.get("password", ""), form.get("repeated", ""), name=_person(call, session).name)
        hash = await password_hashing(call).hash(form.get("password", ""), network=call.network)
    except (Invalid, TooManyLogins) as refusal:
        return _account_page(call, session, refusal=refusal)
    return await _change(
        call,
        session,
        "person.set_password",
        lambda act: credentials.set_password(act, session.person, hash, session=session.id),
    )


async def _remove_password(call: Call, session: Session) -> Reply:
    """Remove the password, and the authenticator app with it."""
    read_form(call, session)
    return await _change(
        call,
        session,
        "person.remove_password",
        lambda act: credentials.remove_password(act, session.person, session=session.id),
    )


async def _show_new_passkey(call: Call, session: Session) -> Reply:
    """Show the page that registers a passkey."""
    return _passkey_page(call, session)


async def _add_passkey(call: Call, session: Session) -> Reply:
    """Register a passkey, and add its proof to the session."""
    form = read_form(call, session)
    try:
        new = verify_creation(call, form.get("credential", ""), session)

        def run(act: Act) -> NewSession:
            return _gain(act, call, session, add_passkey(act, session.person, new, name=form.get("label", "")))

        gained = await act_as_person(call, session, "person.add_passkey", run)
    except (PasskeyRefused, Conflict) as refusal:
        return _passkey_page(call, session, refusal=refusal)
    return see_other(call, "/account", headers=session_headers(gained))


async def _remove_passkey(call: Call, session: Session) -> Reply:
    """Remove a passkey."""
    id = read_form(call, session).get("passkey", "")
    return await _change(
        call,
        session,
        "person.remove_passkey",
        lambda act: credentials.remove_passkey(act, session.person, id, session=session.id),
    )


async def _show_new_totp(call: Call, session: Session) -> Reply:
    """Show the secret for a new authenticator app, as text and as a QR code."""
    return _totp_page(call, session, new_secret(call))


async def _set_totp(call: Call, session: Session) -> Reply:
    """Register an authenticator app with its first code, and show new recovery codes."""
    form = read_form(call, session)
    secret = open_new_secret(call, session, form.get("sealed", ""))

    def run(act: Act) -> tuple[list[str], NewSession]:
        proof = set_totp(act, session.person, secret, form.get("code", ""))
        return renew_recovery_codes(act, session.person), _gain(act, call, session, proof)

    try:
        codes, gained = await act_as_person(call, session, "person.set_totp", run)
    except (Invalid, Conflict) as refusal:
        return _totp_page(call, session, secret, refusal=refusal)
    return _codes_page(call, gained.session, codes, headers=session_headers(gained))


async def _remove_totp(call: Call, session: Session) -> Reply:
    """Remove the authenticator app and its recovery codes."""
    read_form(call, session)
    return await _change(
        call,
        session,
        "person.remove_totp",
        lambda act: credentials.remove_totp(act, session.person, session=session.id),
    )


async def _renew_codes(call: Call, session: Session) -> Reply:
    """Replace the recovery codes, and show the new codes once."""
    read_form(call, session)
    try:
        codes = await act_as_person(
            call, session, "person.renew_recovery_codes", lambda act: renew_recovery_codes(act, session.person)
        )
    except Conflict as refusal:
        return _account_page(call, session, refusal=refusal)
    return _codes_page(call, session, codes)


def _gain(act: Act, call: Call, session: Session, proof: Proof) -> NewSession:
    """Add a proof to a session, which continues under a new cookie; return the session with the cookie."""
    return begin_session(
        act,
        person=session.person,
        proofs=add_proof(session.proofs, proof),
        config=call.world.config,
        network=call.network,
        unverified_browser=call.header(b"user-agent"),
        replaces=session,
    )


async def _change(call: Call, session: Session, action: str, flow: Callable[[Act], Any]) -> Reply:
    """Run a change of the account in an act, then show the account page."""
    try:
        await act_as_person(call, session, action, flow)
    except (Conflict, NotFound) as refusal:
        return _account_page(call, session, refusal=refusal)
    return see_other(call, "/account")


def _person(call: Call, session: Session) -> Person:
    return registry.find_person(call.world.db.read(), session.person)


def _page(
    call: Call,
    session: Session,
    template: str,
    *,
    refusal: Refused | None = None,
    headers: Headers | None = None,
    **values: Any,
) -> Reply:
    return page(
        call,
        template,
        status=200 if refusal is None else status_of(refusal),
        headers=headers,
        form_token=form_token(call, session),
        person=_person(call, session).name,
        refusal=refusal,
        **values,
    )


def _account_page(call: Call, session: Session, *, refusal: Refused | None = None) -> Reply:
    reader = call.world.db.read()
    return _page(
        call,
        session,
        "trust/account.html",
        refusal=refusal,
        here="account",
        present=session.id,
        sessions=store.people.sessions_of(reader, session.person, now=call.world.now()),
        login=credentials.describe(reader, session.person),
        min_password=SHORTEST,
        max_password=LONGEST,
    )


def _passkey_page(call: Call, session: Session, *, refusal: Refused | None = None) -> Reply:
    options = creation_options(call, _person(call, session), session)
    return _page(
        call,
        session,
        "trust/passkey.html",
        refusal=refusal,
        script=options is not None,
        passkey=options,
        max_passkey_name=MAX_PASSKEY_NAME,
    )


def _totp_page(call: Call, session: Session, secret: bytes, *, refusal: Refused | None = None) -> Reply:
    name = _person(call, session).name
    uri = render_uri(secret, issuer=f"Ostiary {call.world.config.trust_domain}", name=name)
    return _page(
        call,
        session,
        "trust/totp.html",
        refusal=refusal,
        secret=render_secret(secret),
        sealed=seal_new_secret(call, session, secret),
        uri=uri,
        qr=Markup(segno.make(uri, error="m").svg_inline(scale=4, border=0, omitsize=True)),
    )


def _codes_page(call: Call, session: Session, codes: list[str], *, headers: Headers | None = None) -> Reply:
    return _page(call, session, "trust/recovery.html", headers=headers, codes=codes)


show_account = _signed_in(_show_account)
end_browser_sessions = _signed_in(_end_sessions)
log_out = _signed_in(_log_out)
set_password = _recently(_set_password)
remove_password = _recently(_remove_password)
show_new_passkey = _recently(_show_new_passkey)
register_passkey = _recently(_add_passkey)
remove_passkey = _recently(_remove_passkey)
show_new_totp = _recently(_show_new_totp)
register_totp = _recently(_set_totp)
remove_totp = _recently(_remove_totp)
renew_codes = _recently(_renew_codes)


def _form_route(path: str, wire: Callable[[Call], Awaitable[Reply]], *errors: Refused, shows: bool = False) -> Route:
    answers = {303: None, 200: HTML_BODY} if shows else {303: None}
    return Route("POST", path, wire, "", protocol=PAGES, body=HTML_FORM, answers=answers, errors=(FORGED, *errors))


LAST = Conflict("this is the only way to sign in")
MISSING = NotFound("not found")
ROUTES = (
    Route("GET", "/account", show_account, "", protocol=PAGES, answers={200: HTML_BODY, 303: None}),
    _form_route("/account/logout", log_out, MISSING),
    _form_route("/account/sessions", end_browser_sessions, MISSING),
    _form_route("/account/password", set_password),
    _form_route("/account/password/remove", remove_password, LAST),
    Route("GET", "/account/passkeys", show_new_passkey, "", protocol=PAGES, answers={200: HTML_BODY, 303: None}),
    _form_route("/account/passkeys", register_passkey, LAST),
    _form_route("/account/passkeys/remove", remove_passkey, LAST, MISSING),
    Route("GET", "/account/totp", show_new_totp, "", protocol=PAGES, answers={200: HTML_BODY, 303: None}),
    _form_route("/account/totp", register_totp, LAST, shows=True),
    _form_route("/account/totp/remove", remove_totp, LAST),
    _form_route("/account/recovery", renew_codes, LAST, shows=True),
)
