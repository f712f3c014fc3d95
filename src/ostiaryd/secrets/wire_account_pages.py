"""The pages on which a person connects accounts at other providers, and ends the connections.

    GET  /accounts                      the connected accounts
    GET  /accounts/{provider}           the page that asks for consent
    POST /accounts/{provider}           consent: redirect to the provider, with the attempt in a cookie
    GET  /accounts/{provider}/callback  the response of the provider
    POST /accounts/{provider}/end       end the connection

An attempt to connect an account belongs to the session of the person. Each provider has a redirect URI of its own (RFC
9700 section 4.4.2).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from urllib.parse import urlsplit

from ostiary.protocol import jose
from ostiary.protocol.errors import Conflict, NotFound, Refused
from ostiaryd.ground.http.edge import Call, Headers, Reply
from ostiaryd.ground.http.forms import parse_form
from ostiaryd.ground.http.html import HTML_BODY, HTML_FORM, PAGES, continue_page, page, redirect, see_other
from ostiaryd.ground.http.routes import NOT_FOUND, Query, Route
from ostiaryd.ledger.flows import record_refusal
from ostiaryd.registry import flows as registry
from ostiaryd.secrets import store
from ostiaryd.secrets.flows import connected_accounts
from ostiaryd.secrets.flows.seal import Sealed
from ostiaryd.secrets.model.connected_account import (
    ATTEMPT_LIFETIME,
    AccountRefused,
    ConnectAttempt,
    ProviderDown,
    authorization_url,
    check_response,
    open_attempt,
    seal_attempt,
)
from ostiaryd.secrets.model.request import SECOND
from ostiaryd.secrets.wire_account_tokens import callback_uri, redeem_code, revoke_unused
from ostiaryd.trust.flows import sessions
from ostiaryd.trust.flows.sessions import ForgedForm
from ostiaryd.trust.model.sessions import Session

COOKIE = "__Host-ostiary-account"
Signed = Callable[[Call, Session], Awaitable[Reply]]


def _signed_in(wire: Signed) -> Callable[[Call], Awaitable[Reply]]:
    """Return a page function that calls `wire` for a person who is signed in, and redirects other browsers to the login
    page.
    """

    async def run(call: Call) -> Reply:
        if call.is_read and (url := sessions.find_page_host(call)) is not None:
            return redirect(url)
        session = await sessions.session_of(call)
        if session is None:
            return see_other(call, "/login?return_to=/accounts")
        return await wire(call, session)

    run.__doc__ = wire.__doc__
    return run


async def _show_accounts(call: Call, session: Session) -> Reply:
    """Show the connected accounts of the person, and the providers at which the person can connect an account."""
    reader = call.world.db.read()
    accounts = {account.provider: account for account in store.connected_accounts.of_person(reader, session.person)}
    labels = {
        name: provider.label
        for name in accounts
        if (provider := store.connected_accounts.provider(reader, name)) is not None
    }
    free = [
        provider
        for provider in connected_accounts.list_providers(reader)
        if provider.name not in accounts and connected_accounts.may_connect(reader, provider, session.person)
    ]
    return page(
        call,
        "secrets/accounts.html",
        accounts=list(accounts.values()),
        agents={name: connected_accounts.list_using_agents(reader, account) for name, account in accounts.items()},
        labels=labels,
        free=free,
        form_token=sessions.form_token(call, session),
        here="accounts",
        person=registry.find_person(reader, session.person).name,
    )


async def _show_question(call: Call, session: Session) -> Reply:
    """Ask the person for consent to connect an account at a provider, and for the scopes."""
    reader = call.world.db.read()
    provider = connected_accounts.find_provider(reader, call.params["provider"])
    connected_accounts.check_may_connect(reader, provider, session.person)
    return page(
        call,
        "secrets/connect.html",
        provider=provider,
        place=urlsplit(provider.authorization_endpoint).netloc,
        form_token=sessions.form_token(call, session),
        here="accounts",
        person=registry.find_person(reader, session.person).name,
    )


async def _begin(call: Call, session: Session) -> Reply:
    """Redirect the person to the provider, with the scopes that the person chose."""
    form, world = sessions.read_form(call, session), call.world
    scopes = frozenset(value for name, value in form.items() if name.startswith("scope-"))
    begin = partial(
        connected_accounts.begin_connection, name=call.params["provider"], person=session.person, scopes=scopes
    )
    provider = await sessions.act_as_person(call, session, "account.begin", begin)
    attempt = ConnectAttempt(
        provider=provider.name,
        token_endpoint=provider.token_endpoint,
        person=session.person,
        session=session.id,
        scopes=tuple(sorted(scopes)),
        state=jose.b64u(world.random(32)),
        verifier=jose.b64u(world.random(32)),
        began_at=world.now(),
    )
    url = authorization_url(provider, attempt, redirect_uri=callback_uri(world, provider))
    answer = continue_page(call, url, title=f"On to {provider.label}")
    cookie = seal_attempt(attempt, secret=world.keys.derive("account attempt"), nonce=world.random(12))
    return _with_headers(answer, [sessions.set_cookie(COOKIE, cookie, max_age_s=ATTEMPT_LIFETIME // SECOND)])


async def _finish(call: Call, session: Session) -> Reply:
    """Accept the response of the provider, and connect the account.

    1. Check that the response belongs to the attempt of this session. 2. Exchange the code for tokens at the provider.
    3. Check the tokens; revoke them if they are not acceptable. 4. Store the refresh token.
    """
    world = call.world
    provider = connected_accounts.find_provider(world.db.read(), call.params["provider"])
    try:
        attempt = open_attempt(
            sessions.one_cookie(call, COOKIE),
            provider,
            person=session.person,
            session=session.id,
            secret=world.keys.derive("account attempt"),
            now=world.now(),
        )
        code = check_response(_parameters(call), attempt, provider)
        connected_accounts.check_free(world.db.read(), provider, session.person)
        answer = await redeem_code(world, provider, attempt, code)
    except AccountRefused as refusal:
        await record_refusal(
            world, "account.connect", refusal, object=provider.name, request=call.request_id, network=call.network
        )
        raise
    connect = partial(
        connected_accounts.connect_account,
        provider=provider,
        person=session.person,
        answer=answer,
        requested=frozenset(attempt.scopes),
    )
    try:
        await sessions.act_as_person(call, session, "account.connect", connect)
    except Refused:
        await revoke_unused(world, provider, answer)
        raise
    return see_other(call, "/accounts", headers=[sessions.set_cookie(COOKIE, "", max_age_s=0)])


async def _end(call: Call, session: Session) -> Reply:
    """End the connection of the person at a provider."""
    sessions.read_form(call, session)
    end = partial(connected_accounts.end_own_account, name=call.params["provider"], person=session.person)
    await sessions.act_as_person(call, session, "account.end", end)
    return see_other(call, "/accounts")


def _parameters(call: Call) -> dict[str, str]:
    """Return the parameters of the provider's response, each at most once (RFC 6749 section 3.1). Raises AccountRefused
    for a repeated parameter.
    """
    values = parse_form(call.query.encode("latin-1"))
    if any(len(sent) > 1 for sent in values.values()):
        raise AccountRefused("a parameter of the response was sent more than once", hint="connect the account again")
    return {name: sent[0] for name, sent in values.items()}


def _with_headers(answer: Reply, headers: Headers) -> Reply:
    return Reply(answer.status, answer.body, answer.media_type, [*answer.headers, *headers])


FORGED = ForgedForm("the form has expired")
_REFUSED = AccountRefused("the response belongs to another attempt")
_SEALED = Sealed("the secrets are sealed")
_SHOWN = {200: HTML_BODY, 303: None}
ROUTES = (
    Route("GET", "/accounts", _signed_in(_show_accounts), "", protocol=PAGES, answers=_SHOWN),
    Route(
        "GET",
        "/accounts/{provider}",
        _signed_in(_show_question),
        "",
        protocol=PAGES,
        answers=_SHOWN,
        errors=(NOT_FOUND, _REFUSED),
    ),
    Route(
        "POST",
        "/accounts/{provider}",
        _signed_in(_begin),
        "",
        protocol=PAGES,
        body=HTML_FORM,
        answers=_SHOWN,
        errors=(FORGED, NOT_FOUND, _REFUSED, Conflict("an account is connected already"), _SEALED),
    ),
    Route(
        "GET",
        "/accounts/{provider}/callback",
        _signed_in(_finish),
        "",
        protocol=PAGES,
        query=(
            Query("code", "The authorization code of the provider."),
            Query("state", "The `state` of the attempt."),
            Query("iss", "The issuer of the provider (RFC 9207)."),
            Query("error", "The error code with which the provider refused the connection."),
        ),
        answers={303: None},
        errors=(NOT_FOUND, _REFUSED, ProviderDown("the provider answers 500"), Conflict("connected already"), _SEALED),
    ),
    Route(
        "POST",
        "/accounts/{provider}/end",
        _signed_in(_end),
        "",
        protocol=PAGES,
        body=HTML_FORM,
        answers={303: None},
        errors=(FORGED, NotFound("connected account not found")),
    ),
)
