"""What-if: recorded decisions replayed under a candidate set, in a separate process, reported as JSON lines.

    {"done": entries, "of": entries}         progress
    {"report": {..}, "ticket": ".."}         the end; the caller can send the ticket when putting the set
    {"error": .., "message": .., "hint": ..} the end, if there is no report

The process gets policies and rows, and no access to the database, files or the network. It has a low priority.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta

from ostiary.protocol.errors import Refused, Unavailable
from ostiaryd.ground.database import Reader
from ostiaryd.ground.http.edge import NO_STORE, Call, Reply
from ostiaryd.ground.http.routes import Content, Route
from ostiaryd.ground.process.confined import Confined
from ostiaryd.ground.world import World
from ostiaryd.ledger import flows as ledger
from ostiaryd.policy import flows
from ostiaryd.policy.flows import Span
from ostiaryd.policy.flows.loading import load_set
from ostiaryd.policy.model import Loaded, Ticket, seal_ticket, ticket_key
from ostiaryd.policy.model.frames import (
    Answer,
    Candidate,
    CatalogueText,
    Ended,
    Request,
    Rows,
    candidate_of,
    decode_answer,
    encode_request,
)
from ostiaryd.policy.model.whatif import By, Report, Row
from ostiaryd.registry import flows as registry
from ostiaryd.registry.flows import act_as
from ostiaryd.registry.model import READ

PAGE, PAGE_BYTES = 1000, 4 << 20
"""maximum number of entries that one read returns, and the maximum of their bytes in all; a single entry may be
larger
"""
PAGE_S, ALL_S, TELL_S = 20.0, 600.0, 0.5
NICE = 10
_encode = msgspec.json.Encoder().encode


class NewQuestion(msgspec.Struct, forbid_unknown_fields=True):
    """A what-if to run: the files of the candidate policy set. `since`, `until`: the times in microseconds between
    which recorded decisions are replayed; without `until`, until now. `by`: the property of subjects by which changed
    verdicts are grouped.
    """

    files: dict[str, str]
    since: Annotated[int, Meta(ge=0, lt=1 << 62)]
    until: Annotated[int, Meta(ge=0, lt=1 << 62)] | None = None
    by: By = ""


class Asking:
    """The one place for a what-if in this server process, which runs at most one what-if at a time."""

    def __init__(self, _: World) -> None:
        self.is_busy = False

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Reserve the place for a what-if while the `async with` block runs. Raises Unavailable if another what-if runs
        in this process.
        """
        if self.is_busy:
            raise Unavailable("another what-if is in progress", hint="try again later", code="busy")
        self.is_busy = True
        try:
            yield
        finally:
            self.is_busy = False


async def ask(call: Call) -> Reply:
    """Replay recorded decisions under a candidate policy set and report the verdicts that change.

    Only administrators may send a set with Rego or OPA: live decisions use the same engines.
    """
    query = call.json(NewQuestion)
    span = await act_as(
        call,
        "policy.whatif",
        lambda act: flows.begin_whatif(act, query.files, since=query.since, until=query.until, by=call.caller),
    )
    async with call.world.get_singleton(Asking).place():
        loaded = await load_set(call.world, query.files, has_engine=call.caller.is_admin)
    lines = _report_lines(call.world, loaded, span, by=query.by, caller=call.caller.id)
    return Reply(200, lines, media_type="application/jsonl", headers=[NO_STORE, (b"x-accel-buffering", b"no")])


async def _report_lines(
    world: World, loaded: Loaded, span: Span, *, by: By, caller: str
) -> AsyncGenerator[bytes, None]:
    """Yield the lines of progress, and at the end the line with the report and its ticket, or with an error. A client
    that stops reading does not block other what-ifs, because the pending lines fit in the buffers of the connection.
    """
    loop = asyncio.get_running_loop()
    due, report = 0.0, None
    replaying = replay(world, candidate_of(loaded, by), span)
    try:
        async with world.get_singleton(Asking).place(), aclosing(replaying):
            async for step in replaying:
                if isinstance(step, Report):
                    report = step
                elif loop.time() >= due:
                    due = loop.time() + TELL_S
                    yield _line({"done": step, "of": span.stop - span.first})
        assert report is not None
        yield _report_line(world, loaded, span, report, caller=caller)
    except Refused as error:
        yield _line({"error": error.code, "message": error.message, "hint": error.hint})


def _report_line(world: World, loaded: Loaded, span: Span, report: Report, *, caller: str) -> bytes:
    """Return the line with the report and the ticket with which `caller` can put the set."""
    ticket = Ticket(loaded.hash, span.first, span.stop, report.changed, report.not_known, world.now())
    sealed = seal_ticket(ticket, key=ticket_key(world.keys.secret("nonce")), caller=caller)
    return _line({"report": report, "entries": [span.first, span.stop], "ticket": sealed})


async def replay(
    world: World, candidate: Candidate, span: Span, *, within_s: float = ALL_S
) -> AsyncGenerator[int | Report, None]:
    """Replay the ledger entries of `span` in a separate process. Yield the number of entries replayed so far after each
    page, and at the end the report. Raises Unavailable after `within_s` seconds, or if the process fails.
    """
    child = Child()
    until = asyncio.get_running_loop().time() + within_s
    try:
        await child.ask(candidate)
        at = span.first
        while at < span.stop:
            if asyncio.get_running_loop().time() >= until:
                raise Unavailable(
                    f"the what-if takes longer than {within_s:g} s", hint="choose a shorter period", code="too_long"
                )
            page = await world.db.scan(partial(_read, start=at, stop=span.stop))
            answer = await child.ask(Rows(page.rows))
            while answer.lacks:
                text = await world.db.scan(partial(registry.get_catalogue_by_hash, hash=answer.lacks))
                answer = await child.ask(CatalogueText(answer.lacks, text))
            at = page.end
            yield at - span.first
        report = (await child.ask(Ended())).report
        assert report is not None
        yield report
    finally:
        await child.close()


class Child:
    """The confined process that replays recorded decisions under the candidate set."""

    def __init__(self) -> None:
        self._confined = Confined("ostiaryd.policy.engines.whatif:answer", nice=NICE)

    async def ask(self, request: Request) -> Answer:
        """Send a message to the process, and return its response. Raises Unavailable if the process fails."""
        return await asyncio.to_thread(self._ask, request)

    def _ask(self, request: Request) -> Answer:
        return decode_answer(self._confined.ask(encode_request(request), within_s=PAGE_S))

    async def close(self) -> None:
        """End the process."""
        await asyncio.to_thread(self._confined.close)


class _Page(NamedTuple):
    rows: list[Row]
    end: int


def _read(reader: Reader, *, start: int, stop: int) -> _Page:
    end = ledger.find_page_end(reader, start, stop, count=PAGE, size=PAGE_BYTES)
    return _Page(ledger.list_entries_with_facts(reader, start, end), end)


def _line(value: dict[str, Any]) -> bytes:
    return _encode(value) + b"\n"


ROUTES = (
    Route(
        "POST",
        "/api/v1/policies/whatif",
        ask,
        READ,
        body=NewQuestion,
        is_large=True,
        streams=True,
        answers={200: Content(media_types=("application/jsonl",))},
    ),
)
