"""OpenID AuthZEN Authorization API 1.0: Subject, Resource and Action Search (section 8).

Every response has a `page`: `next_token` (empty at the end), `count`, and in `properties` the number of examined
candidates. A page has up to 100 results if no `limit` is given, and never more than 1,000. It examines at most 1,000
candidates: a page can be empty and have a `next_token`. With `limit` 0 the response has no results, and the token of
the first page.

Arguments of a tool that `context.arguments` does not give are unknown. A result that is permitted only for some of
their values has `context.depends_on`, the names of the inputs; `options.uncertain: "exclude"` leaves such results out.

A token continues the search that it was issued for: the same caller, entities, context, `page.properties` and policies.
`limit` may be left out beside a token, as in the example of the specification; another `limit` is refused.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Annotated, Any, Literal, TypedDict

import msgspec
from msgspec import Meta

from ostiary.decision.access import RemoteAnswers
from ostiary.protocol.errors import Refused
from ostiary.protocol.jose import b64u
from ostiaryd.ground.database import Reader
from ostiaryd.ground.http.edge import Call, Reply, reply
from ostiaryd.ground.http.routes import Route
from ostiaryd.ledger.flows import Act, act
from ostiaryd.policy import flows
from ostiaryd.policy.flows.external_pdp import ask_ahead_scanning
from ostiaryd.policy.flows.search import MAX_RESULTS, Kind, SearchPage
from ostiaryd.policy.model import (
    Place,
    Search,
    Sought,
    Thing,
    Verb,
    check_same,
    open_place,
    page_key,
    seal_place,
)
from ostiaryd.policy.wire_authzen import ACTION, AUTHZEN, RESOURCE, SUBJECT, read
from ostiaryd.registry.model import ADMIN, DECIDE, READ

DEFAULT_RESULTS = 100
_ACTIONS: dict[Kind, str] = {"subject": "search.subject", "resource": "search.resource", "action": "search.action"}
"""Action of the entry by the part that is searched."""
_encode = msgspec.json.Encoder(order="deterministic").encode


class PageAsked(msgspec.Struct, frozen=True, omit_defaults=True):
    token: str | None = None
    limit: Annotated[int, Meta(ge=0)] | None = None
    properties: dict[str, Any] | None = None


class SearchOptions(msgspec.Struct, frozen=True, omit_defaults=True):
    """`uncertain`: whether the results include entities and actions that are permitted only for some values of
    arguments that the search does not state.
    """

    uncertain: Literal["include", "exclude"] = "include"


class SubjectSearch(msgspec.Struct, frozen=True, omit_defaults=True):
    subject: Sought
    action: Verb
    resource: Thing
    context: dict[str, Any] | None = None
    page: PageAsked = PageAsked()
    options: SearchOptions = SearchOptions()


class ResourceSearch(msgspec.Struct, frozen=True, omit_defaults=True):
    subject: Thing
    action: Verb
    resource: Sought
    context: dict[str, Any] | None = None
    page: PageAsked = PageAsked()
    options: SearchOptions = SearchOptions()


class ActionSearch(msgspec.Struct, frozen=True, omit_defaults=True):
    subject: Thing
    resource: Thing
    context: dict[str, Any] | None = None
    page: PageAsked = PageAsked()
    options: SearchOptions = SearchOptions()


class SearchBody(TypedDict):
    """A page of results: ids of entities or names of actions. A result that is permitted only for some values names the
    inputs on which it depends.
    """

    page: dict[str, Any]
    context: dict[str, Any]
    results: list[dict[str, Any]]


async def subjects(call: Call) -> Reply:
    """List the subjects that may perform the action on the resource."""
    body = read(call, SubjectSearch)
    results, page = await _search(
        call, "subject", Search(body.subject, body.action, body.resource, body.context), body.page, body.options
    )
    return _answer(results, page, [{"type": body.subject.type, "id": id} for id in results.results])


async def resources(call: Call) -> Reply:
    """List the resources on which the subject may perform the action."""
    body = read(call, ResourceSearch)
    results, page = await _search(
        call, "resource", Search(body.subject, body.action, body.resource, body.context), body.page, body.options
    )
    return _answer(results, page, [{"type": body.resource.type, "id": id} for id in results.results])


async def actions(call: Call) -> Reply:
    """List the actions that the subject may perform on the resource."""
    body = read(call, ActionSearch)
    search = Search(body.subject, None, body.resource, body.context)
    results, page = await _search(call, "action", search, body.page, body.options)
    return _answer(results, page, [{"name": name} for name in results.results])


async def _search(
    call: Call, kind: Kind, sought: Search, page: PageAsked, options: SearchOptions
) -> tuple[SearchPage, str]:
    """Run a search, and return a page of results with the token of the next page (empty at the end). One ledger entry
    is written, also for a refused search.
    """
    world, by = call.world, call.caller
    key, caller = page_key(world.keys.secret("nonce")), "" if by is None else by.id
    same = b64u(sha256(_encode((kind, sought, page.properties, options))).digest())
    limit = DEFAULT_RESULTS if page.limit is None else min(page.limit, MAX_RESULTS)
    digest = b64u(sha256(call.body).digest())
    names_agents = by is not None and not by.scopes.isdisjoint((ADMIN, READ))

    def look(reader: Reader, remote: RemoteAnswers | None = None) -> SearchPage:
        ready = flows.active_set(reader)
        at = Place("", same, ready.policies.hash, limit, 0)
        if page.token is not None:
            at = open_place(page.token, key=key, caller=caller, now=world.now())
            check_same(at, search=same, policies=ready.policies.hash, limit=None if page.limit is None else limit)
        return flows.search(
            reader,
            ready,
            sought,
            after=at.after,
            limit=at.limit,
            now=world.now(),
            remote=remote,
            keys=world.keys,
            certain=options.uncertain == "exclude",
            names_agents=names_agents,
        )

    outcome: SearchPage | Refused
    try:
        remote = await ask_ahead_scanning(call, look)
        outcome = await world.db.scan(lambda reader: look(reader, remote))
    except Refused as refusal:
        outcome = refusal

    def note(act: Act) -> SearchPage:
        call.prove(act)
        return flows.note_search(act, kind, sought, outcome, digest=digest, by=by)

    noted = await act(world, _ACTIONS[kind], note, request=call.request_id)
    if noted.after is None:
        return noted, ""
    ended = Place(noted.after, same, noted.policies, noted.limit, world.now())
    return noted, seal_place(ended, key=key, caller=caller, nonce=world.random(12))


def _answer(results_page: SearchPage, next_token: str, results: list[dict[str, Any]]) -> Reply:
    for id, one in zip(results_page.results, results, strict=True):
        if id in results_page.depends:
            one["context"] = {"depends_on": results_page.depends[id]}
    page = {"next_token": next_token, "count": len(results), "properties": {"examined": results_page.examined}}
    context: dict[str, Any] = {"policy": results_page.policies}
    if results_page.why:
        context["reason_admin"] = {"404": results_page.why}
    return reply({"page": page, "context": context, "results": results})


ROUTES = (
    Route(
        "POST",
        SUBJECT,
        subjects,
        DECIDE,
        body=SubjectSearch,
        answers={200: SearchBody},
        allows_peps=True,
        is_large=True,
        protocol=AUTHZEN,
    ),
    Route(
        "POST",
        RESOURCE,
        resources,
        DECIDE,
        body=ResourceSearch,
        answers={200: SearchBody},
        allows_peps=True,
        is_large=True,
        protocol=AUTHZEN,
    ),
    Route(
        "POST",
        ACTION,
        actions,
        DECIDE,
        body=ActionSearch,
        answers={200: SearchBody},
        allows_peps=True,
        is_large=True,
        protocol=AUTHZEN,
    ),
)
