"""Consents for administrators, and the page on which a person sees and withdraws their own consents."""

from __future__ import annotations

from typing import Any, TypedDict

from ostiary.authorization.bounds import render_details
from ostiaryd.ground.database import Reader
from ostiaryd.ground.http.edge import Call, Reply, reply
from ostiaryd.ground.http.html import HTML_BODY, HTML_FORM, PAGES, page, redirect, see_other
from ostiaryd.ground.http.pages import reply_page
from ostiaryd.ground.http.routes import NOT_FOUND, PAGE, PageBody, Query, Route
from ostiaryd.registry import flows as registry
from ostiaryd.registry.flows import act_as
from ostiaryd.registry.model import ADMIN, READ
from ostiaryd.tokens import flows
from ostiaryd.tokens.model import SECOND
from ostiaryd.tokens.model.consent import Consent
from ostiaryd.tokens.model.wording import word_consent
from ostiaryd.trust.flows import sessions
from ostiaryd.trust.flows.sessions import ForgedForm


class ConsentBody(TypedDict):
    """A consent; times in seconds since the epoch. `resource` is a URI, or empty if the consent covers only scopes of
    OpenID Connect.
    """

    consent_id: str
    client_id: str
    client_name: str
    person: str
    agent: str
    resource: str
    scopes: list[str]
    authorization_details: list[dict[str, Any]]
    granted_at: int
    expires_at: int
    ended_at: int | None
    ended_why: str


async def list_consents(call: Call) -> Reply:
    """List the consents that were not withdrawn, of one person if requested."""
    person = call.query_one("person")
    id = None if person is None else registry.find_person(call.world.db.read(), person).person_id
    return await reply_page(
        call,
        "consents",
        lambda reader, page: flows.page_consents(reader, page, person=id),
        _show,
        cursor=lambda consent: consent.consent_id,
    )


async def show_consent(call: Call) -> Reply:
    """Show a consent."""
    reader = call.world.db.read()
    return reply(_show(reader, flows.find_consent(reader, call.params["consent"])))


async def withdraw_consent(call: Call) -> Reply:
    """Withdraw a consent: its tokens, refresh tokens and tasks end at once."""
    await act_as(call, "consent.withdraw", lambda act: flows.withdraw(act, call.params["consent"]))
    return await show_consent(call)


async def show_mine(call: Call) -> Reply:
    """Show the consents of the person who is signed in. Without a session, redirect to the login page."""
    if (url := sessions.find_page_host(call)) is not None:
        return redirect(url)
    session = await sessions.session_of(call)
    if session is None:
        return see_other(call, "/login?return_to=/consents")
    reader = call.world.db.read()
    consents = flows.list_consents(reader, session.person)
    return page(
        call,
        "tokens/consents.html",
        consents=consents,
        names={agent.agent_id: agent.name for agent in _agents(reader, consents)},
        words={consent.consent_id: word_consent(consent) for consent in consents},
        now=call.world.now(),
        form_token=sessions.form_token(call, session),
        here="consents",
        person=registry.find_person(reader, session.person).name,
    )


async def withdraw_mine(call: Call) -> Reply:
    """Withdraw a consent of the person who is signed in."""
    session = await sessions.session_of(call)
    form = sessions.read_form(call, session)
    assert session is not None, "a form without a session is refused"
    await sessions.act_as_person(
        call,
        session,
        "consent.withdraw",
        lambda act: flows.withdraw(act, form.get("consent", ""), person=session.person),
    )
    return see_other(call, "/consents")


def _agents(reader: Reader, consents: list[Consent]) -> list[Any]:
    return [registry.find_agent(reader, id) for id in {consent.agent for consent in consents}]


def _show(reader: Reader, consent: Consent) -> ConsentBody:
    return {
        "consent_id": consent.consent_id,
        "client_id": consent.client_id,
        "client_name": consent.client_name,
        "person": registry.find_person(reader, consent.person).name,
        "agent": registry.find_agent(reader, consent.agent).name,
        "resource": consent.resource,
        "scopes": sorted(consent.scopes),
        "authorization_details": render_details(consent.details),
        "granted_at": consent.granted_at // SECOND,
        "expires_at": consent.expires_at // SECOND,
        "ended_at": None if consent.ended_at is None else consent.ended_at // SECOND,
        "ended_why": consent.ended_why,
    }


ROUTES = (
    Route(
        "GET",
        "/api/v1/consents",
        list_consents,
        READ,
        query=(*PAGE, Query("person", "Name or id of the person whose consents are listed.")),
        errors=(NOT_FOUND,),
        answers={200: PageBody("consents", ConsentBody)},
    ),
    Route("GET", "/api/v1/consents/{consent}", show_consent, READ, answers={200: ConsentBody}),
    Route(
        "POST",
        "/api/v1/consents/{consent}/revoke",
        withdraw_consent,
        ADMIN,
        stops=True,
        answers={200: ConsentBody},
    ),
    Route("GET", "/consents", show_mine, "", protocol=PAGES, answers={200: HTML_BODY, 303: None}),
    Route(
        "POST",
        "/consents",
        withdraw_mine,
        "",
        protocol=PAGES,
        body=HTML_FORM,
        errors=(ForgedForm("the form has expired"), NOT_FOUND),
        answers={303: None},
    ),
)
