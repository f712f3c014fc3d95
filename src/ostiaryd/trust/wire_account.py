"""The account page: the sessions of a person, which the person can end."""

from __future__ import annotations

from urllib.parse import urlencode

from ostiaryd.ground.http.edge import Call, Reply
from ostiaryd.ground.http.html import HTML_BODY, PAGES, page, see_other
from ostiaryd.ground.http.routes import FORM, Content, Route
from ostiaryd.registry import flows as registry
from ostiaryd.trust.flows.sessions import (
    ForgedForm,
    act_as_person,
    end_session,
    end_sessions,
    form_token,
    note_use,
    read_form,
    session_of,
    sessions_of,
)

LOGIN = "/login?" + urlencode({"return_to": "/account"})


async def show_account(call: Call) -> Reply:
    """Show the account of the person who is signed in."""
    session = session_of(call)
    if session is None:
        return see_other(call, LOGIN)
    await note_use(call, session)
    reader = call.world.db.read()
    person = registry.find_person(reader, session.person)
    return page(
        call,
        "trust/account.html",
        form_token=form_token(call, session),
        person=person.name,
        session=session,
        sessions=sessions_of(reader, session.person, now=call.world.now()),
    )


async def end_one_session(call: Call) -> Reply:
    """End one session of the person, or all but the present one."""
    session = session_of(call)
    if session is None:
        return see_other(call, LOGIN)
    form = read_form(call, session)
    if (id := form.get("session")) is not None:
        await act_as_person(
            call, session, "person.end_session", lambda act: end_session(act, id, person=session.person)
        )
    else:
        await act_as_person(
            call, session, "person.end_sessions", lambda act: end_sessions(act, session.person, keep=session.id)
        )
    return see_other(call, "/account")


ROUTES = (
    Route("GET", "/account", show_account, "", protocol=PAGES, answers={200: HTML_BODY, 303: None}),
    Route(
        "POST",
        "/account/sessions",
        end_one_session,
        "",
        protocol=PAGES,
        body=Content(dict[str, str], media_types=FORM),
        answers={303: None},
        errors=(ForgedForm("the form has expired"),),
    ),
)
