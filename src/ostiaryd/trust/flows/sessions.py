"""Sessions of people: begin, find and end sessions, and add proofs to them. Also checks that a form was sent by a page
of this server.

A session is a cookie of 256 random bits, of which the server stores the SHA-256. Every login makes a new cookie, so a
cookie from before a login is not valid after it (session fixation). A form is accepted only with a token that is
derived from the cookie of its browser, and only from this server's own origins (CSRF).
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from typing import NamedTuple, TypeVar
from urllib.parse import quote, urlsplit

import msgspec

from ostiary.protocol.decoding import json_decoder
from ostiary.protocol.errors import Forbidden, Malformed, NotFound, Unauthenticated
from ostiary.protocol.jose import b64u, unb64u
from ostiaryd.ground.config import Config
from ostiaryd.ground.crypto.keyring import Keyring
from ostiaryd.ground.database import Reader
from ostiaryd.ground.http.admission import queue_proven
from ostiaryd.ground.http.edge import Call, Headers
from ostiaryd.ground.http.html import page_url
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import Act, act
from ostiaryd.registry import flows as registry
from ostiaryd.trust import store
from ostiaryd.trust.model import SECOND
from ostiaryd.trust.model.sessions import (
    LOGIN_COOKIE,
    MAX_SESSIONS,
    SESSION_COOKIE,
    Proof,
    Session,
    describe_browser,
    parse_cookies,
)
from ostiaryd.trust.model.totp import STEP

T = TypeVar("T")
COOKIE_BYTES = 32
LOGIN_LIFETIME = 1800 * SECOND
"""Lifetime of the cookie of a browser that is not signed in, in microseconds."""
PROOF_LIFETIME_S = 600
"""Maximum time between the first and the second proof of a login, in seconds."""
USE_INTERVAL = 60 * SECOND
"""Minimum time between two recorded uses of a session, in microseconds."""


class ForgedForm(Forbidden):
    """The form was not sent by a page of this server in the browser for which the page was made."""

    code = "forged_form"


class SessionEnded(Unauthenticated):
    """The browser session has ended."""

    code = "session_ended"


class NewSession(NamedTuple):
    """A session with its cookie, which the server shows only once."""

    session: Session
    cookie: str


class Login(msgspec.Struct, frozen=True):
    """The content of the login cookie: a random value, the time of its creation in microseconds, the person, and the
    person's proofs so far.
    """

    nonce: str
    at: int
    person: str = ""
    proofs: tuple[Proof, ...] = ()


_encode = msgspec.json.Encoder().encode
_decode = json_decoder(Login)


def find_session(reader: Reader, cookie: str | None, now: int) -> Session | None:
    """Return the live session of a cookie; None if there is none, or if its person is suspended, has left or is stopped
    by the kill switch.
    """
    if not cookie or len(cookie) > 128:
        return None
    return store.people.find_session(reader, _digest(cookie), now=now)


async def session_of(call: Call) -> Session | None:
    """Return the session of the browser that sent this request, and restart its idle timeout; None
    without a session.
    """
    world = call.world
    session = find_session(world.db.read(), session_cookie(call), world.now())
    if session is not None:
        queue_proven(call, session.person, is_privileged=True, is_guard=False)
        await _note_use(world, session)
    return session


async def _note_use(world: World, session: Session) -> None:
    """Record a use of a session, at most once in `USE_INTERVAL`."""
    if world.now() - session.used_at >= USE_INTERVAL:
        idle = world.config.session_idle_s * SECOND
        await world.writer.submit(lambda tx: store.people.use_session(tx, session.id, idle_until=tx.now + idle))


def session_cookie(call: Call) -> str | None:
    """Return the session cookie of a request; None if there is none, or if there are several (an attacker may have set
    one of them).

    During a recovery of the server, return None: the session may have ended in the lost part of the history.
    """
    return None if call.world.pin.is_lost else one_cookie(call, SESSION_COOKIE)


def begin_session(
    act: Act,
    *,
    person: str,
    proofs: Sequence[Proof],
    config: Config,
    network: str,
    unverified_browser: str | None,
    replaces: Session | None = None,
) -> NewSession:
    """Begin a session of an active person, and return it with its cookie. `replaces` is the earlier session of the same
    browser. Above `MAX_SESSIONS`, the least recently used session of the person ends.

    If the earlier session belongs to the same person, it continues under its id with a new cookie and the new proofs,
    so that a step-up does not log the person out of clients. If it belongs to another person, it ends. Raises NotFound
    for an unknown person, Conflict for a person who has left or is suspended, Forbidden for a person whom the kill
    switch stops.
    """
    registry.active_person(act, person)
    registry.check_none_stopped(act.tx, "owner", [person])
    cookie = b64u(act.tx.random(COOKIE_BYTES))
    goes_on = replaces is not None and replaces.person == person and _is_unended(act, replaces)
    session = Session(
        id=replaces.id if goes_on and replaces is not None else act.new_id("se"),
        person=person,
        proofs=tuple(proofs),
        network=network,
        browser=describe_browser(unverified_browser),
        created_at=act.now,
        used_at=act.now,
        expires_at=act.now + config.session_lifetime_s * SECOND,
    )
    act.entry.person = person
    registry.fill_entry(act, object=session.id, acr=session.acr, amr=list(session.amr), provider=session.provider)
    idle_until = act.now + config.session_idle_s * SECOND
    if goes_on:
        store.people.renew_session(act.tx, session, _digest(cookie), idle_until=idle_until)
        return NewSession(session, cookie)
    if replaces is not None:
        store.people.end_session(act.tx, replaces.id)
    for oldest in store.people.sessions_of(act.tx, person, now=act.now)[MAX_SESSIONS - 1 :]:
        store.people.end_session(act.tx, oldest.id)
    store.people.add_session(act.tx, session, _digest(cookie), idle_until=idle_until)
    return NewSession(session, cookie)


def _is_unended(act: Act, session: Session) -> bool:
    return store.people.get_unended(act.tx, session.id, now=act.now) is not None


def end_session(act: Act, session_id: str, *, person: str | None = None) -> None:
    """End one session. If `person` is given, only a session of this person can be ended. Raises NotFound if there is no
    such session.
    """
    registry.fill_entry(act, object=session_id)
    unended = store.people.get_unended(act.tx, session_id, now=act.now)
    if unended is None or person not in (None, unended.person):
        raise NotFound("session not found", hint="the session may have ended already")
    store.people.end_session(act.tx, session_id)


def end_sessions(act: Act, person: str, *, keep: str | None = None) -> int:
    """End all sessions of a person, except the session with the id `keep`; return their number.

    Sessions of a person whom the kill switch stops end too, so that they do not resume when the stop is lifted.
    """
    ending = [one.id for one in store.people.unended_sessions(act.tx, now=act.now, person=person) if one.id != keep]
    for id in ending:
        store.people.end_session(act.tx, id)
    registry.fill_entry(act, object=person, sessions=len(ending))
    return len(ending)


def end_sessions_of_provider(act: Act, issuer: str, *, person: str | None = None) -> None:
    """End the sessions that began with a login by the provider `issuer`. If `person` is given, end only the sessions of
    that person.
    """
    for one in store.people.unended_sessions(act.tx, now=act.now, person=person):
        if one.provider == issuer:
            store.people.end_session(act.tx, one.id)


def end_all_logins(act: Act) -> int:
    """End every session, and delete every setup link and recovery code, of all persons; delete every unused join token
    and initial access token. Return the number of sessions.

    Called after a loss of history: in the lost part each of them may have been ended or used.
    """
    sessions = store.people.list_not_ended(act.tx)
    for id in sessions:
        store.people.end_session(act.tx, id)
    store.people.drop_single_use(act.tx, step=act.now // STEP)
    store.join_tokens.drop_all_join_tokens(act.tx)
    store.clients.drop_registration_tokens(act.tx)
    return len(sessions)


async def act_as_person(call: Call, session: Session, action: str, flow: Callable[[Act], T]) -> T:
    """Run an act in the name of the session's person, and return its result. Raises SessionEnded if the session has
    ended.
    """

    def run(act: Act) -> T:
        act.entry.person = session.person
        if store.people.get_session(act.tx, session.id, now=act.now) is None:
            raise SessionEnded("the session has ended", hint="sign in again")
        return flow(act)

    return await act(call.world, action, run, request=call.request_id, network=call.network)


def session_headers(new: NewSession) -> Headers:
    """Return the headers that set the session cookie and delete the login cookie."""
    return [set_cookie(SESSION_COOKIE, new.cookie), set_cookie(LOGIN_COOKIE, "", max_age_s=0)]


def end_headers() -> Headers:
    """Return the headers that delete the session cookie."""
    return [set_cookie(SESSION_COOKIE, "", max_age_s=0)]


# --- before the login


def read_login(call: Call) -> Login | None:
    """Return the content of the login cookie; None if this server did not make the cookie within the last half hour."""
    content = open_cookie(call.world.keys, "login cookie", one_cookie(call, LOGIN_COOKIE))
    if content is None:
        return None
    login = _decode(content)
    return login if 0 <= call.world.now() - login.at < LOGIN_LIFETIME else None


def new_login(call: Call, *, person: str = "", proofs: Sequence[Proof] = ()) -> Login:
    """Return the content of a new login cookie, with a new random value."""
    return Login(b64u(call.world.random(16)), call.world.now(), person, tuple(proofs))


def login_headers(call: Call, login: Login) -> Headers:
    """Return the headers that set the login cookie, which holds the state of a login that is not complete."""
    return [set_cookie(LOGIN_COOKIE, seal_cookie(call.world.keys, "login cookie", _encode(login)))]


# --- forms


def form_token(call: Call, holder: Session | Login) -> str:
    """Return the field `form_token` of a form for this browser, without which `read_form` refuses the form. The token
    is derived from the id of the session, or from the random value of the login cookie.
    """
    name = holder.id if isinstance(holder, Session) else holder.nonce
    return b64u(hmac.digest(call.world.keys.derive("form"), name.encode(), "sha256"))


def read_form(call: Call, holder: Session | Login | None) -> Mapping[str, str]:
    """Return the fields of a form that a page of this server sent from this browser. Raises ForgedForm for a form of
    another site or browser, Malformed for a field that was sent more than once.
    """
    if (origin := call.header(b"origin")) is not None and origin not in own_origins(call.world.config):
        raise ForgedForm("another site sent the form", hint="open the page of this server and try again")
    fields = call.form()
    if repeated := [name for name, values in fields.items() if len(values) > 1]:
        raise Malformed(f"the field `{repeated[0][:64]}` was sent more than once")
    form = {name: values[0] for name, values in fields.items()}
    token = form.pop("form_token", "")
    if holder is None or not hmac.compare_digest(form_token(call, holder).encode(), token.encode()):
        raise ForgedForm(
            "the form has expired, or was made for another browser", hint="go back to the page, reload it and try again"
        )
    return form


def own_origins(config: Config) -> frozenset[str]:
    """Return the origins of this server's own pages: that of the public URL, and, if the public URL is a loopback
    address, that with `localhost` as host, because passkeys need a host name.
    """
    return frozenset({_origin(config.public_url), _origin(page_url(config))})


def find_page_host(call: Call) -> str | None:
    """Return the URL of this request with the host name `localhost` if the browser used a loopback address of this
    machine; otherwise None.

    The browser must be redirected, because cookies of `localhost` and `127.0.0.1` differ and passkeys are bound to a
    host name. The header `Host` is only compared, never copied.
    """
    config = call.world.config
    url = page_url(config)
    if url == config.public_url or (call.header(b"host") or "") != urlsplit(config.public_url).netloc:
        return None
    return url + quote(call.path) + (f"?{call.query}" if call.query else "")


def _origin(url: str) -> str:
    parts = urlsplit(url)
    default = {"http": 80, "https": 443}[parts.scheme]
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{parts.scheme}://{host}" + ("" if parts.port in (None, default) else f":{parts.port}")


def one_cookie(call: Call, name: str) -> str | None:
    """Return the value of a cookie; None if there is none, or more than one (an attacker may have set the second)."""
    values = parse_cookies([value for key, value in call.headers if key == b"cookie"]).get(name, [])
    return values[0] if len(values) == 1 else None


def set_cookie(name: str, value: str, *, max_age_s: int | None = None) -> tuple[bytes, bytes]:
    """Return the header that sets a cookie. Without `max_age_s`, the cookie lasts until the browser closes."""
    end = "" if max_age_s is None else f"; Max-Age={max_age_s}"
    return b"set-cookie", f"{name}={value}; Path=/; Secure; HttpOnly; SameSite=Lax{end}".encode("ascii")


def seal_cookie(keys: Keyring, purpose: str, content: bytes) -> str:
    """Return a cookie value with this content, protected by a MAC: the browser can read but not change the content."""
    sealed = b64u(content)
    return f"{sealed}.{_tag(keys, purpose, sealed)}"


def open_cookie(keys: Keyring, purpose: str, unverified: str | None) -> bytes | None:
    """Return the content of a cookie that `seal_cookie` made for this purpose; None for any other value."""
    sealed, _, tag = (unverified or "").rpartition(".")
    if not sealed or not hmac.compare_digest(_tag(keys, purpose, sealed).encode(), tag.encode()):
        return None
    return unb64u(sealed)


def _tag(keys: Keyring, purpose: str, sealed: str) -> str:
    return b64u(hmac.digest(keys.derive(purpose), sealed.encode("latin-1"), "sha256"))


def _digest(cookie: str) -> bytes:
    return sha256(cookie.encode("latin-1")).digest()
