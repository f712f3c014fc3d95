"""A table of a specification: each row is a request that differs from a good one in what it says, and the answer due.

A table is one test: its rows share a server, and all rows that are answered otherwise are named together.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, NamedTuple

from tests.support.api_fixtures import Answer

ACCEPTED = ""


class Row(NamedTuple):
    """`due` is the error code, or ACCEPTED, and `why` is a part of its description. `said` is what differs, as the
    runner of the table understands it.
    """

    what: str
    due: str
    said: dict[str, Any]
    why: str = ""


def row(what: str, due: str = ACCEPTED, why: str = "", **said: Any) -> Row:
    return Row(what, due, said, why)


async def check_table(rows: Iterable[Row], run: Callable[..., Awaitable[Answer]]) -> None:
    """Every row is answered as is due, and every refusal has its right status, type and cache rule."""
    wrong = []
    for what, due, said, why in rows:
        answer = await run(**said)
        if answer.error != due or (due and not (_is_well_refused(answer) and why in answer.json["error_description"])):
            wrong.append(f"{what}: due {due or 'accepted'} {why}, was {answer.status} {answer.body[:300]!r}")
    assert not wrong, "\n".join(wrong)


def _is_well_refused(answer: Answer) -> bool:
    """RFC 6749 section 5.2: 400, or 401 for a client that did not prove itself; JSON that nobody keeps."""
    status = {"invalid_client": 401, "invalid_token": 401}.get(answer.error, 400)
    kept = answer.headers.get("cache-control", "")
    return answer.status == status and answer.headers["content-type"] == "application/json" and kept == "no-store"
