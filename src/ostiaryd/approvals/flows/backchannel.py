"""Backchannel authentication (CIBA section 7): a client requests the approval of a named person, and only this person
can give it.
"""

from __future__ import annotations

import msgspec

from ostiary.authorization.bounds import ToolDetail, render_details
from ostiary.authorization.claims import parse_scope, render_scope
from ostiary.protocol import canonical
from ostiary.protocol.errors import Forbidden
from ostiaryd.approvals.flows.ask import ask
from ostiaryd.approvals.model import About
from ostiaryd.ground.config import Config
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Person
from ostiaryd.tasks.model import SECOND, check_size, standing_task
from ostiaryd.tokens import flows as tokens
from ostiaryd.tokens.flows.target import choose_target
from ostiaryd.tokens.model import (
    BackchannelDenied,
    InvalidBindingMessage,
    InvalidRequest,
    UnauthorizedClient,
    UnknownUser,
    Wish,
    check_scopes,
    narrow_details,
    scopes_at,
)
from ostiaryd.trust import flows as trust
from ostiaryd.trust.model import Credentials

BACKCHANNEL = "backchannel"
OPENID = "openid"
MAX_MESSAGE = 200


class Backchannel(msgspec.Struct, frozen=True, kw_only=True):
    """The parsed parameters of a CIBA authentication request. Nothing in the request has been verified."""

    credentials: Credentials
    login_hint: str
    scope: str = ""
    resource: str | None = None
    details: tuple[ToolDetail, ...] = ()
    message: str = ""
    expiry_s: int | None = None


def begin_backchannel(act: Act, request: Backchannel, *, config: Config) -> tuple[str, int]:
    """Begin a backchannel authentication (CIBA): create an approval request for the person in `login_hint`, or use the
    request with the same content that is open, or approved and not spent. Return the `auth_req_id`, and its remaining
    lifetime in seconds.

    Raises InvalidClient or UnauthorizedClient for the client; UnknownUser for `login_hint`; InvalidRequest,
    InvalidScope, InvalidTarget, InvalidDetails, TaskTooLarge or InvalidBindingMessage for a parameter;
    BackchannelDenied if `ask` refuses: the person denied the same request, its approval was used, or the agent has too
    many approval requests.
    """
    client = trust.authenticate_client(act, request.credentials, config=config)
    if (agent := client.agent) is None:
        raise UnauthorizedClient("only agents can send a backchannel request")
    person = _person(act, request.login_hint)
    act.entry.person = person.person_id
    if len(request.message) > MAX_MESSAGE or not request.message.isprintable():
        raise InvalidBindingMessage(
            f"`binding_message` must have at most {MAX_MESSAGE} characters, and no control characters (no line breaks)"
        )
    requested = parse_scope(request.scope)
    if not (scopes := requested - {OPENID}):
        raise InvalidRequest(
            "`scope` contains no scope that a person could approve", hint="request a scope such as `files:read`"
        )
    check_scopes(scopes, agent=agent.scopes, task=agent.scopes)
    target = choose_target(act, request.resource, requested=scopes, available=agent.scopes, config=config)
    scopes_at(target, scopes, available=agent.scopes)
    narrowed = narrow_details(request.details, task=(), target=target)
    check_size(purpose=request.message, bounds=narrowed)
    details = render_details(narrowed)
    wish = Wish(scope=render_scope(scopes), resource=target.uri, details=details, message=request.message)
    shown = msgspec.to_builtins(wish)
    digest = act.entry.digest = canonical.digest(
        {BACKCHANNEL: shown, "agent": agent.agent_id, "person": person.person_id}, floats=True
    )
    about = About(
        resource=BACKCHANNEL,
        tool=f"act for {person.name}",
        arguments=shown,
        person=person.person_id,
        sole=person.person_id,
    )
    try:
        question = ask(
            act, kind=BACKCHANNEL, task=standing_task(agent), digest=digest, needs="person", about=about, config=config
        )
    except Forbidden as error:
        raise BackchannelDenied(error.message, hint=error.hint) from None
    ends = question.ends_at if question.until is None else question.until
    if request.expiry_s is not None:
        ends = min(ends, act.now + request.expiry_s * SECOND)
    id = tokens.store_backchannel_request(
        act,
        approval=question.approval_id,
        client=agent.agent_id,
        person=person.person_id,
        wish=msgspec.structs.replace(wish, is_openid=OPENID in requested),
        digest=digest,
        expires_at=ends,
    )
    registry.fill_entry(act, object=question.approval_id, scope=wish.scope, until=ends)
    return id, max(0, (ends - act.now) // SECOND)


def _person(act: Act, hint: str) -> Person:
    """Return the active person with this name or id. Raises UnknownUser, with the same message for an unknown person
    and for a person without a way to answer.
    """
    person = registry.get_person(act.tx, hint[:256])
    if person is None or not person.is_active:
        raise UnknownUser("`login_hint` does not name an active person", hint="send the name or the id of a person")
    return person
