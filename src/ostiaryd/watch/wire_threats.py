"""Threat lists for administrators, as JSON under /api/v1, and the loop that fetches them again.

A list is fetched by GET, once an hour, from the URL that an administrator set. The URL must lead to a public address,
unless the configuration lists its host in `private_hosts`. If a fetch or the parser fails, the list does not change.
"""

from __future__ import annotations

import asyncio
from contextlib import closing
from typing import TypedDict

import msgspec
from msgspec.structs import asdict

from ostiary.protocol.errors import Invalid, Refused, Unavailable
from ostiaryd.ground.http.edge import NO_STORE, Call, Reply, reply
from ostiaryd.ground.http.pages import reply_short_list
from ostiaryd.ground.http.routes import PAGE, EmptyBody, PageBody, Route
from ostiaryd.ground.outbound.fetch import check_named, send_request
from ostiaryd.ground.process.confined import Confined
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import Act, act
from ostiaryd.registry.flows import act_as
from ostiaryd.registry.model import ADMIN, READ
from ostiaryd.watch import store
from ostiaryd.watch.engines import lists
from ostiaryd.watch.engines.lists import MAX_LIST_BYTES, Listed
from ostiaryd.watch.flows import threats
from ostiaryd.watch.model.threats import Form, ThreatSource

FETCH_S = 30
READER = "ostiaryd.watch.engines.lists:answer"
PARSE_S = 20.0
NICE = 5
DEFAULT_POINTS = 60


class NewList(msgspec.Struct, forbid_unknown_fields=True):
    """A new list, with either `url` or `text`."""

    name: str
    form: Form
    url: str = ""
    text: str = ""
    points: int = DEFAULT_POINTS


class ThreatListBody(TypedDict):
    """A threat list and the state of its last fetch."""

    name: str
    form: str
    url: str
    points: int
    count: int
    skipped: int
    refreshed_at: int | None
    failed: str | None


class ThreatListTest(TypedDict):
    """The change that a fetch of the list would make now: the number of values in the fetched list (`count`), only in
    the fetched list (`new`) and only in the stored list (`gone`), and of items that the server cannot check
    (`skipped`). If the server would not accept the content, `failed` is the reason, and the numbers are null.
    """

    name: str
    count: int | None
    new: int | None
    gone: int | None
    skipped: int | None
    failed: str | None


async def add_list(call: Call) -> Reply:
    """Add a threat list by URL or as text; guards check calls against the values of the list."""
    new, world = call.json(NewList), call.world
    if bool(new.url) == bool(new.text):
        raise Invalid("a threat list needs either a URL or a text", hint="ostiary threats add NAME URL, or --file FILE")
    if new.url:
        check_named(new.url, of="the URL of a threat list", private=_private(world))
    listed = None if new.url else await _parse(world, new.form, new.text.encode())

    def run(act: Act) -> ThreatSource:
        made = threats.add(act, name=new.name, url=new.url, form=new.form, points=new.points)
        if listed is not None:
            threats.accept_list(act, made, listed)
        return made

    made = await act_as(call, "threats.add", run)
    if new.url:
        await fetch(world, made)
    return reply(_render(threats.find(world.db.read(), made.name)), status=201)


async def list_lists(call: Call) -> Reply:
    """List the threat lists, their sizes, and the state of their last fetch."""
    return await reply_short_list(
        call,
        "lists",
        store.threats.sources,
        lambda _, one: _render(one),
        cursor=lambda one: one.name,
    )


async def remove_list(call: Call) -> Reply:
    """Remove a threat list; guards no longer check its values."""
    await act_as(call, "threats.remove", lambda act: threats.remove(act, call.params["name"]))
    return reply({})


async def try_list(call: Call) -> Reply:
    """Fetch and parse a threat list now, and show the change that it would make.

    The stored list stays as it is; the ledger records the trial.
    """
    world, name = call.world, call.params["name"]
    source = store.threats.by_name(world.db.read(), name)
    listed: Listed | Refused | None = None
    if source is not None and source.url:
        try:
            listed = await _fetch_listed(world, source)
        except Refused as refusal:
            listed = refusal
    change = await act_as(call, "threats.test", lambda act: threats.examine_list(act, name, listed))
    body: ThreatListTest = {"name": name, **asdict(change)}  # type: ignore[typeddict-item]
    return reply(body, headers=[NO_STORE])


async def refresh_due(world: World) -> None:
    """Fetch all threat lists that are due, concurrently."""
    due = await world.db.scan(lambda reader: store.threats.due(reader, now=world.now()))
    await asyncio.gather(*(fetch(world, source) for source in due))


async def fetch(world: World, source: ThreatSource) -> None:
    """Fetch a threat list, and store its values or the reason of the failure. Do nothing if another process has
    reserved the fetch.
    """
    if not await world.writer.submit(lambda tx: threats.claim_fetch(tx, source)):
        return
    try:
        listed = await _fetch_listed(world, source)
        if threats.is_other(world.db.read(), source, listed):
            await act(world, "threats.refresh", lambda act: threats.accept_list(act, source, listed))
        else:
            await world.writer.submit(lambda tx: threats.store_list(tx, source, listed))
    except Refused as refusal:
        why = refusal.message
        await world.writer.submit(lambda tx: threats.record_failed_fetch(tx, source, why))


async def _fetch_listed(world: World, source: ThreatSource) -> Listed:
    """Fetch and parse a threat list; return its content. Raises Unavailable if the server of the list cannot be reached
    or answers with an error, Invalid for a list that cannot be read.
    """
    answer = await send_request(
        "GET", source.url, headers={}, within_s=FETCH_S, max_bytes=MAX_LIST_BYTES, private=_private(world)
    )
    if answer.status != 200:
        raise Unavailable(f"the remote server answers {answer.status}")
    return await _parse(world, source.form, answer.body)


async def _parse(world: World, form: Form, body: bytes) -> Listed:
    """Parse a threat list in a confined process. Raises Invalid for a list that cannot be read, and Unavailable if the
    process exceeds its time or memory.
    """
    unread = lists.Unread(form, body, world.now(), threats.own_hosts(world.config))
    with closing(Confined(READER, nice=NICE)) as reader:
        return lists.parse_answer(await asyncio.to_thread(reader.ask, lists.ask(unread), within_s=PARSE_S))


def _private(world: World) -> tuple[str, ...]:
    return tuple(world.config.private_hosts.split())


def _render(source: ThreatSource) -> ThreatListBody:
    return {
        "name": source.name,
        "form": source.form,
        "url": source.url,
        "points": source.points,
        "count": source.count,
        "skipped": source.skipped,
        "refreshed_at": source.refreshed_at and source.refreshed_at // threats.SECOND,
        "failed": source.failed,
    }


ROUTES = (
    Route("POST", "/api/v1/threat-lists", add_list, ADMIN, body=NewList, is_large=True, answers={201: ThreatListBody}),
    Route(
        "GET", "/api/v1/threat-lists", list_lists, READ, answers={200: PageBody("lists", ThreatListBody)}, query=PAGE
    ),
    Route("POST", "/api/v1/threat-lists/{name}/test", try_list, ADMIN, answers={200: ThreatListTest}),
    Route("DELETE", "/api/v1/threat-lists/{name}", remove_list, ADMIN, answers={200: EmptyBody}),
)
