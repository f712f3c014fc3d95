"""Searches of permissions: each candidate is evaluated as a single evaluation would be, so that both agree.

Candidates are the entities that the policy set states and, for registered types, the registered entities. A page
examines a limited number of candidates in a fixed order, and its page token continues there.

Arguments of a tool that the search does not give are unknown: a candidate is a result if some values of the arguments
are permitted, and the result names the inputs on which it depends. An unknown name of a registered type is an error.
Other unknown names have no results, as the certification of AuthZEN requires, and the answer says why.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from ostiary.decision.access import RemoteAnswers
from ostiary.protocol.errors import NotFound, Refused
from ostiary.protocol.nearest import MAX_COMPARED, nearest_hint
from ostiaryd.ground.crypto.keyring import Keyring
from ostiaryd.ground.database import Reader
from ostiaryd.ground.http.pages import Page
from ostiaryd.ledger.flows import Act
from ostiaryd.policy.flows.decide import note_asker, shorten
from ostiaryd.policy.flows.evaluator import Evaluator
from ostiaryd.policy.flows.resource_cache import prepared_resource
from ostiaryd.policy.model import REGISTERED, Ready, Search, Sought, Thing
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Caller

MAX_RESULTS = 1000
MAX_EXAMINED = 1000
"""Maximum number of candidates that one page examines, with any `limit`."""
MAX_EXAMINED_REMOTE = 100
"""Maximum number of candidates that one page examines if the set has remote policies."""
NOTED = 100
"""Maximum number of results of a page that the entry lists."""
_CHUNK = 100

Kind = Literal["subject", "resource", "action"]
Candidate = tuple[str, str]
"""A candidate of a search: its position in the order of the search, and its id or name."""


@dataclass(slots=True)
class SearchPage:
    """A page of results of a search. `after`: the place of the last examined candidate, from which the next page
    continues; None on the last page. `why`: the reason why the search cannot have results; empty if it can.

    `depends`: the results that are permitted only for some values of unknown arguments, each with the names of the
    inputs on which the verdict depends.
    """

    policies: str
    limit: int
    results: list[str] = field(default_factory=list)
    depends: dict[str, list[str]] = field(default_factory=dict)
    examined: int = 0
    after: str | None = None
    why: str = ""


def search(
    reader: Reader,
    ready: Ready,
    sought: Search,
    *,
    after: str,
    limit: int,
    now: int,
    remote: RemoteAnswers | None = None,
    keys: Keyring | None = None,
    certain: bool = False,
    names_agents: bool = False,
) -> SearchPage:
    """Return a page of up to `limit` permitted results of the search. A page examines at most MAX_EXAMINED candidates
    that follow the place `after`; for a set with Rego or OPA policies, at most MAX_EXAMINED_REMOTE. Slow: call this
    function in a thread.

    `certain` leaves out results whose verdict depends on unknown arguments. `names_agents`: an error may suggest the
    name of an agent to the caller. Raises NotFound for an unknown agent, resource or tool, and for an unknown action in
    a search for or about one of these; `why` of the page states any other unknown name.
    """
    _check_names(reader, ready, sought, names_agents=names_agents)
    page = SearchPage(ready.policies.hash, limit)
    page.why = _unknown(ready, sought)
    if page.why:
        return page
    if limit == 0:
        page.after = after
        return page
    evaluator = Evaluator(reader, ready.policies, now=now, remote=remote, keys=keys)
    most = MAX_EXAMINED if ready.program is None else MAX_EXAMINED_REMOTE
    for place, id in _candidates(reader, ready, sought, after):
        if len(page.results) == limit or page.examined == most:
            page.after = after
            break
        after = place
        page.examined += 1
        foreseen = evaluator.foresee(sought.question_about(id))
        if foreseen.must or (foreseen.may and not certain):
            page.results.append(id)
            if not foreseen.must:
                page.depends[id] = sorted(foreseen.inputs)
    return page


def note_search(
    act: Act, kind: Kind, query: Search, page: SearchPage | Refused, *, digest: str, by: Caller | None
) -> SearchPage:
    """Record a page of a search in the ledger entry: the caller, the query, and the results. If `page` is a refusal,
    record the query and raise the refusal.
    """
    note_asker(act.entry, by)
    act.entry.digest = digest
    subject, action, resource = query.subject, query.action, query.resource
    words = [subject.type, _id(subject), action.name if action else "", resource.type, _id(resource)]
    detail: dict[str, Any] = {"asked": [shorten(one) for one in words], "sought": kind}
    act.entry.detail = detail
    if isinstance(page, Refused):
        raise page
    act.entry.policy = page.policies
    detail |= {
        "found": [shorten(id) for id in page.results[:NOTED]],
        "count": len(page.results),
        "examined": page.examined,
        "more": page.after is not None,
    }
    if page.depends:
        detail["depending"] = len(page.depends)
    return page


def _id(thing: Thing | Sought) -> str:
    return thing.id if isinstance(thing, Thing) else ""


def _check_names(reader: Reader, ready: Ready, query: Search, *, names_agents: bool) -> None:
    """Raise NotFound, with the nearest name, for an agent, a resource, a tool or an action that does not exist."""
    for thing in (query.subject, query.resource):
        kind = REGISTERED.get(thing.type)
        if kind is None or isinstance(thing, Sought):
            continue
        if kind == "Agent" and registry.get_agent(reader, thing.id) is None:
            candidates = (
                [one.name for one in registry.list_agents(reader, Page(MAX_COMPARED, ""))] if names_agents else []
            )
            raise NotFound(_with_hint(f"there is no agent {thing.id[:100]!a}", thing.id, candidates))
        name, _, tool = thing.id.partition("/")
        if kind != "Agent" and (registered := registry.get_resource(reader, name)) is None:
            candidates = [one.name for one in registry.list_resources(reader, Page(MAX_COMPARED, ""))]
            raise NotFound(_with_hint(f"there is no resource {name[:100]!a}", name, candidates))
        if (
            kind == "Tool"
            and registered is not None
            and tool not in (tools := prepared_resource(reader, registered).tools)
        ):
            raise NotFound(_with_hint(f"the catalogue of `{name}` has no tool {tool[:100]!a}", tool, tools))
    is_registered = query.subject.type in REGISTERED or query.resource.type in REGISTERED
    if is_registered and (unknown := _unknown_action(ready, query)):
        raise NotFound(unknown)


def _unknown_action(ready: Ready, query: Search) -> str:
    name, actions = "" if query.action is None else query.action.name, ready.vocabulary.actions
    if query.action is None or name in actions:
        return ""
    return _with_hint(f"the policies know no action {name[:100]!a}", name, actions)


def _unknown(ready: Ready, query: Search) -> str:
    """Return which name of the search the policies do not have, with the nearest name; empty if they have all names."""
    if unknown := _unknown_action(ready, query):
        return unknown
    for thing in (query.subject, query.resource):
        if thing.type in REGISTERED:
            continue
        if thing.type not in ready.vocabulary.types:
            return _with_hint(f"the policies know no type {thing.type[:100]!a}", thing.type, ready.vocabulary.types)
        ids = ready.ids.get(thing.type, ())
        if isinstance(thing, Sought) and not ids:
            return f"the policy set states no entity of the type {thing.type[:100]!a}"
        if isinstance(thing, Thing) and ids and not ready.policies.states(thing.type, thing.id):
            return _with_hint(f"the policy set states no {thing.type[:100]} {thing.id[:100]!a}", thing.id, ids)
    return ""


def _with_hint(problem: str, name: str, candidates: Iterable[str]) -> str:
    hint = nearest_hint(name, candidates)
    return f"{problem}; {hint}" if hint else problem


def _candidates(reader: Reader, ready: Ready, query: Search, after: str) -> Iterator[Candidate]:
    """Yield the candidates of a search behind `after`."""
    if query.action is None:
        subject, resource = (REGISTERED.get(thing.type, thing.type) for thing in (query.subject, query.resource))
        return _stated(ready.vocabulary.actions_of(subject, resource), after)
    sought = query.subject if isinstance(query.subject, Sought) else query.resource
    match REGISTERED.get(sought.type):
        case "Agent":
            return _agents(reader, after)
        case "Tool":
            return _tools(reader, after)
        case "Resource":
            return _resources(reader, after)
        case _:
            return _stated(ready.ids[sought.type], after)


def _stated(ids: tuple[str, ...] | list[str], after: str) -> Iterator[Candidate]:
    """Yield the ids behind `after`, in the order of the set. A position is an index: a page token is bound to
    the set.
    """
    first = int(after) + 1 if after else 0
    return ((str(index), ids[index]) for index in range(first, len(ids)))


def _agents(reader: Reader, after: str) -> Iterator[Candidate]:
    while chunk := registry.list_agents(reader, Page(_CHUNK, after)):
        for agent in chunk:
            yield agent.agent_id, agent.agent_id
        after = chunk[-1].agent_id


def _resources(reader: Reader, after: str) -> Iterator[Candidate]:
    while chunk := registry.list_resources(reader, Page(_CHUNK, after)):
        for resource in chunk:
            yield resource.resource_id, resource.name
        after = chunk[-1].resource_id


def _tools(reader: Reader, after: str) -> Iterator[Candidate]:
    """Yield the tools behind `after`, ordered by resource. A position is the id of the resource and the name of
    the tool.
    """
    at, _, last = after.partition("/")
    if at and (within := registry.get_resource(reader, at)) is not None:
        names = (name for name in sorted(prepared_resource(reader, within).tools) if name > last)
        yield from ((f"{at}/{name}", f"{within.name}/{name}") for name in names)
    while chunk := registry.list_resources(reader, Page(_CHUNK, at)):
        for resource in chunk:
            at = resource.resource_id
            yield from (
                (f"{at}/{name}", f"{resource.name}/{name}")
                for name in sorted(prepared_resource(reader, resource).tools)
            )
