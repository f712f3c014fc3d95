"""`ostiary search`: permissions by subject, resource or action; each candidate is evaluated as by `ostiary decide`.

Subjects and resources are written TYPE:ID (`agent:billing-bot`, `tool:files/read_file`, `user:alice`).
"""

from __future__ import annotations

from typing import Any

from cyclopts import App

from ostiary.cli.files import read_json
from ostiary.cli.output import err, out, spell_out
from ostiary.cli.session import PAGE, Here, Session, Source, decoded
from ostiary.cli.usage import Usage
from ostiary.protocol.errors import NotFound

search = App(name="search", help="Search permissions by subject, resource or action.")


@search.command(name="subject")
def subject(
    type: str, action: str, resource: str, /, *, context: Source | None = None, limit: int = PAGE, session: Here
) -> None:
    """List the subjects that may perform an action on a resource.

    Args:
        type: The type of the subjects: `agent`, or a type of the policy set.
        action: The action, such as `call`.
        resource: The resource, TYPE:ID.
        context: A JSON file with the context, a tool's arguments under `arguments`; `-` reads standard input.
        limit: The largest number of results.
    """
    question = {"subject": {"type": type}, "action": {"name": action}, "resource": _entity(resource)}
    _show(session, _search(session, "subject", question, context, limit), limit)


@search.command(name="resource")
def resource(
    subject: str, action: str, type: str, /, *, context: Source | None = None, limit: int = PAGE, session: Here
) -> None:
    """List the resources on which a subject may perform an action.

    Args:
        subject: The subject, TYPE:ID.
        action: The action, such as `call`.
        type: The type of the resources: `tool`, `Resource`, or a type of the policy set.
        context: A JSON file with the context, a tool's arguments under `arguments`; `-` reads standard input.
        limit: The largest number of results.
    """
    question = {"subject": _entity(subject), "action": {"name": action}, "resource": {"type": type}}
    _show(session, _search(session, "resource", question, context, limit), limit)


@search.command(name="action")
def action(subject: str, resource: str, /, *, context: Source | None = None, limit: int = PAGE, session: Here) -> None:
    """List the actions that a subject may perform on a resource.

    Args:
        subject: The subject, TYPE:ID.
        resource: The resource, TYPE:ID.
        context: A JSON file with the context, a tool's arguments under `arguments`; `-` reads standard input.
        limit: The largest number of results.
    """
    question = {"subject": _entity(subject), "resource": _entity(resource)}
    _show(session, _search(session, "action", question, context, limit), limit)


def _entity(text: str) -> dict[str, str]:
    type, colon, id = text.partition(":")
    if not (type and colon and id):
        raise Usage(f"{text!r} is not TYPE:ID", hint="agent:billing-bot, tool:files/read_file")
    return {"type": type, "id": id}


def _search(
    session: Session, kind: str, question: dict[str, Any], context: Source | None, limit: int
) -> dict[str, Any]:
    """Return the first `limit` results; `more` is true if there may be other results. Raises NotFound if the server
    does not know the subject or resource, Usage for a limit below 1.
    """
    if limit < 1:
        raise Usage("`--limit` must be 1 or more", hint=f"leave `--limit` out for {PAGE}")
    if context is not None:
        question["context"] = read_json(context)
    results: list[dict[str, Any]] = []
    page: dict[str, Any] = {"limit": min(limit, PAGE)}
    examined = 0
    while True:
        answer = decoded(session.request("POST", f"/access/v1/search/{kind}", {**question, "page": page}))
        results += answer["results"]
        examined += answer["page"]["properties"]["examined"]
        if (unknown := answer["context"].get("reason_admin", {}).get("404")) is not None:
            raise NotFound(unknown)
        token = answer["page"]["next_token"]
        if not token or len(results) >= limit:
            break
        page = {"token": token}
    more = bool(token) or len(results) > limit
    return {"results": results[:limit], "examined": examined, "more": more}


def _show(session: Session, answer: dict[str, Any], limit: int) -> None:
    def render(answer: dict[str, Any]) -> None:
        for one in answer["results"]:
            name = one["name"] if "name" in one else f"{one['type']}:{one['id']}"
            out.print(spell_out(name + _condition(one.get("context", {}).get("depends_on", []))), markup=False)
        if not answer["results"]:
            out.print(f"no matches ({answer['examined']} checked)", style="dim", markup=False)

    session.show(answer, render)
    if answer["more"]:
        session.remark(f"the first {limit} results; --limit shows more")
    elif answer["results"] and err.is_terminal and not session.as_json:
        session.remark(f"{len(answer['results'])} results ({answer['examined']} checked)")


def _condition(inputs: list[str]) -> str:
    """Return in words the arguments on which a result depends."""
    names = ", ".join(f"`{name.removeprefix('arguments.')}`" for name in inputs)
    return f" (may, depending on {names})" if names else ""
