"""GET and POST /logout: OpenID Connect RP-Initiated Logout 1.0.

A person has to confirm first, unless `id_token_hint` shows that the request is about the session of this browser. If
another site sends the form, browsers leave out the session cookie (`SameSite=Lax`) but send it with a following GET.
The server therefore redirects such a POST to GET.

Anyone can register a client with a `post_logout_redirect_uri`. A request with that URI is therefore refused without a
valid hint or a person who has consented to the client. The browser continues to the URI automatically only for an
agent, with a hint of the person of the session, or if this person has consented to the client (section 3). Otherwise
the person sees a link with the host (no open redirect).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple
from urllib.parse import urlencode

from ostiary.protocol.jose import InvalidToken
from ostiary.protocol.uri import add_query
from ostiaryd.ground.http.edge import Call, Reply
from ostiaryd.ground.http.forms import parse_form
from ostiaryd.ground.http.html import HTML_BODY, HTML_FORM, PAGES, continue_page, page, redirect, see_other
from ostiaryd.ground.http.routes import Query, Route
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows as registry
from ostiaryd.tokens.flows.authorization import may_follow
from ostiaryd.tokens.model import InvalidRequest, read_form
from ostiaryd.tokens.model.id_tokens import read_id_token_hint
from ostiaryd.tokens.model.wording import word_target
from ostiaryd.trust import flows as trust
from ostiaryd.trust.flows import sessions
from ostiaryd.trust.flows.sessions import ForgedForm
from ostiaryd.trust.model import InvalidClient
from ostiaryd.trust.model.clients import OAuthClient
from ostiaryd.trust.model.sessions import Session


class LogoutRequest(NamedTuple):
    """A logout request. `url` is the URI to which the person returns (empty for none), `session` and `person` come from
    `id_token_hint`, and `fields` are the parameters that the confirmation form repeats.
    """

    url: str = ""
    client: OAuthClient | None = None
    session: str = ""
    person: str = ""
    fields: Mapping[str, str] = MappingProxyType({})


async def log_out(call: Call) -> Reply:
    """Log a person out at the request of an application (RP-Initiated Logout 1.0 section 2)."""
    if call.is_read and (url := sessions.find_page_host(call)) is not None:
        return redirect(url)
    parameters = parse_form(call.query.encode("latin-1")) if call.is_read else call.form()
    form = read_form(parameters)
    request = await _parse(call, form)
    session = await sessions.session_of(call)
    if session is None:
        if not call.is_read and sessions.session_cookie(call) is None:
            return see_other(call, f"/logout?{urlencode(form)}")
        return _done(call, request, None)
    if request.session == session.id and request.person == session.person:
        return await _end(call, session, request)
    return page(
        call,
        "tokens/logout.html",
        fields={"form_token": sessions.form_token(call, session), **request.fields},
        client="" if request.client is None else request.client.name,
        person=registry.find_person(call.world.db.read(), session.person).name,
    )


async def confirm(call: Call) -> Reply:
    """End the session of the browser after the person has confirmed."""
    session = await sessions.session_of(call)
    form = sessions.read_form(call, session)
    assert session is not None, "a form without a session is refused"
    return await _end(call, session, await _parse(call, form))


async def _end(call: Call, session: Session, request: LogoutRequest) -> Reply:
    def run(act: Act) -> None:
        sessions.end_session(act, session.id)

    reply = _done(call, request, session)
    await sessions.act_as_person(call, session, "person.logout", run)
    reply.headers += sessions.end_headers()
    return reply


def _done(call: Call, request: LogoutRequest, session: Session | None) -> Reply:
    """Return the page after the logout from `session` (None without a session). If the target may be trusted, the
    browser continues to the target; otherwise the page has a link.
    """
    if request.url and request.client is not None:
        is_own = session is not None and request.person == session.person
        if is_own or may_follow(call.world.db.read(), request.client, session):
            return continue_page(call, request.url, title="You are signed out")
        return page(call, "tokens/signed_out.html", url=request.url, target=word_target(request.url))
    return page(call, "tokens/signed_out.html", url="")


async def _parse(call: Call, form: Mapping[str, str]) -> LogoutRequest:
    """Return a valid logout request. Raises InvalidRequest for a wrong hint, client or URI. Do not send this error to
    the URI of the request, which is not trusted.

    A session can be older than the keys of this server. A hint whose key is unknown is therefore ignored: the person
    confirms the logout, which leads to the URI only if `client_id` names the client.
    """
    claims: dict[str, object] = {}
    if hint := form.get("id_token_hint"):
        try:
            claims = read_id_token_hint(hint, keys=call.world.keys.public("token").get, issuer=call.world.config.issuer)
        except InvalidToken as error:
            if error.code != "unknown_kid":
                raise InvalidRequest(f"`id_token_hint`: {error.message}") from None
            if "client_id" not in form:
                return LogoutRequest()
    client_id = str(claims.get("aud", form.get("client_id", "")))
    if form.get("client_id", client_id) != client_id:
        raise InvalidRequest("`id_token_hint` was issued to another client than `client_id`")
    uri = form.get("post_logout_redirect_uri", "")
    if not client_id:
        if uri:
            raise InvalidRequest("`post_logout_redirect_uri` needs `id_token_hint` or `client_id`")
        return LogoutRequest()
    client = await trust.resolve_client(call.world, client_id, network=call.network)
    if uri and not client.has_logout_uri(uri):
        raise InvalidRequest("`post_logout_redirect_uri` is not registered for this client")
    if uri and not claims and client.is_unknown:
        raise InvalidRequest(
            "`id_token_hint` is missing; a client without a consent needs it for `post_logout_redirect_uri`"
        )
    fields = {name: form[name] for name in ("post_logout_redirect_uri", "state") if name in form}
    if uri and "state" in form:
        uri = add_query(uri, {"state": form["state"]})
    session, person = (str(claims.get(name, "")) for name in ("sid", "sub"))
    return LogoutRequest(uri, client, session, person, {"client_id": client_id, **fields})


QUERY = (
    Query("id_token_hint", "ID token of the person who logs out."),
    Query("client_id", "The client."),
    Query("post_logout_redirect_uri", "URI to which the person returns afterwards, registered for the client."),
    Query("state", "Value that the server adds to `post_logout_redirect_uri`."),
)
_ERRORS = (
    InvalidRequest("`post_logout_redirect_uri` is not registered for this client"),
    InvalidClient("the client is not known"),
)
ROUTES = (
    Route(
        "GET", "/logout", log_out, "", protocol=PAGES, query=QUERY, errors=_ERRORS, answers={200: HTML_BODY, 303: None}
    ),
    Route(
        "POST",
        "/logout",
        log_out,
        "",
        protocol=PAGES,
        body=HTML_FORM,
        errors=_ERRORS,
        answers={200: HTML_BODY, 303: None},
    ),
    Route(
        "POST",
        "/logout/confirm",
        confirm,
        "",
        protocol=PAGES,
        body=HTML_FORM,
        errors=(*_ERRORS, ForgedForm("the form has expired")),
        answers={200: HTML_BODY},
    ),
)
