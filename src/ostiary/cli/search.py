"""`ostiary search`: who may, on what, and what; each candidate is asked about as `ostiary decide` would.

Things are written TYPE:ID (`agent:billing-bot`, `tool:files/read_file`, `user:alice`).
"""

from __future__ import annotations

from typing import Any

from cyclopts import App

from ostiary.cli.files import read_json
from ostiary.cli.paper import out
from ostiary.cli.session import PAGE, Here, Session, Source, Usage, decoded

search = App(name="search", help="Who may do that, to what, or what may be done: searches of the decision point.")


@search.command(name="subject")
def subject(
    type: str, action: str, resource: str, /, *, context: Source | None = None, limit: int = PAGE, session: Here
) -> None:
    """Who may do that to it?

    Args:
        type: Of whom is sought: `agent`, or a type of the policy set.
        action: What is done, as `call`.
        resource: To what, TYPE:ID.
        context: A JSON file with the context; `-` reads standard input.
        limit: How many at most.
    """
    asked = {"subject": {"type": type}, "action": {"name": action}, "resource": _thing(resource)}
    _show(session, _found(session, "subject", asked, context, limit), limit)


@search.command(name="resource")
def resource(
    subject: str, action: str, type: str, /, *, context: Source | None = None, limit: int = PAGE, session: Here
) -> None:
    """To what may it do that?

    Args:
        subject: Who does it, TYPE:ID.
        action: What is done, as `call`.
        type: Of what is sought: `tool`, `Resource`, or a type of the policy set.
        context: A JSON file with the context; `-` reads standard input.
        limit: How many at most.
    """
    asked = {"subject": _thing(subject), "action": {"name": action}, "resource": {"type": type}}
    _show(session, _found(session, "resource", asked, context, limit), limit)


@search.command(name="action")
def action(subject: str, resource: str, /, *, context: Source | None = None, limit: int = PAGE, session: Here) -> None:
    """What may it do to that?

    Args:
        subject: Who does it, TYPE:ID.
        resource: To what, TYPE:ID.
        context: A JSON file with the context; `-` reads standard input.
        limit: How many at most.
    """
    asked = {"subject": _thing(subject), "resource": _thing(resource)}
    _show(session, _found(session, "action", asked, context, limit), limit)


def _thing(text: str) -> dict[str, str]:
    type, colon, id = text.partition(":")
    if not (type and colon and id):
        raise Usage(f"{text!r} is not TYPE:ID", hint="agent:billing-bot, tool:files/read_file")
    return {"type": type, "id": id}


def _found(session: Session, kind: str, asked: dict[str, Any], context: Source | None, limit: int) -> dict[str, Any]:
    """The first `limit` results, page by page; `more` where there may be others, `why` where nothing could be found."""
    if limit < 1:
        raise Usage("--limit is 1 or more")
    if context is not None:
        asked["context"] = read_json(context)
    results: list[dict[str, str]] = []
    page: dict[str, Any] = {"limit": min(limit, PAGE)}
    examined, why = 0, ""
    while True:
        said = decoded(session.request("POST", f"/access/v1/search/{kind}", {**asked, "page": page}))
        results += said["results"]
        examined += said["page"]["properties"]["examined"]
        why = said["context"].get("reason_admin", {}).get("404", why)
        token = said["page"]["next_token"]
        if not token or len(results) >= limit:
            break
        page = {"token": token}
    more = bool(token) or len(results) > limit
    return {"results": results[:limit], "examined": examined, "more": more, "why": why}


def _show(session: Session, found: dict[str, Any], limit: int) -> None:
    def render(found: dict[str, Any]) -> None:
        for one in found["results"]:
            out.print(one["name"] if "name" in one else f"{one['type']}:{one['id']}", markup=False)
        if found["more"]:
            out.print(f"the first {limit}; --limit shows more", style="dim")
        if not found["results"]:
            out.print(found["why"] or f"nothing, of {found['examined']} examined", style="dim", markup=False)

    session.show(found, render)
