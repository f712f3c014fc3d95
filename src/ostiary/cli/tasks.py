"""`ostiary task` and `ostiary token`: the declared tasks of agents, and access tokens for them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter

from ostiary.agent import Agent
from ostiary.agent.identity import intent_of
from ostiary.authorization.catalogue import Catalogue, Kind
from ostiary.catalogue_advisor.draft import draft
from ostiary.cli.agents import split_words
from ostiary.cli.files import read_bytes, read_json, write_new
from ostiary.cli.output import facts, moment, out, short_id, table, tree
from ostiary.cli.revoke import FINAL
from ostiary.cli.session import PAGE, Here, Session
from ostiary.cli.usage import Usage
from ostiary.keys import Credential, parse_credential
from ostiary.protocol import canonical
from ostiary.protocol.errors import Invalid, Refused

task = App(name="task", help="Start, draft, list and end tasks. All access under a task ends with it.")


@task.command(name="start")
def start(
    *,
    agent: str,
    purpose: str,
    scope: tuple[str, ...] | None = None,
    bounds: Path | None = None,
    data_class: tuple[str, ...] | None = None,
    budget: Path | None = None,
    words: str | None = None,
    own: tuple[str, ...] = (),
    endorse: tuple[str, ...] = (),
    draft: Path | None = None,
    on_behalf_of: str | None = None,
    parent: str | None = None,
    ttl: int = 3600,
    heartbeat: int | None = None,
    end_with_last: bool = False,
    ask_plan: bool = False,
    session: Here,
) -> None:
    """Start a task, or delegate a part of a task to an agent.

    Args:
        agent: Name or id of the agent.
        purpose: Purpose of the task, in words.
        scope: Scope of the agent that the task allows; by default, all scopes of the agent. May be given several times.
        parent: Id of the parent task; the new task only narrows it, and ends with it.
        bounds: JSON file of authorization_details (RFC 9396, type `tool`) that narrow the task further.
        data_class: Allow only tools that handle this data class; may be given several times.
        budget: JSON file of limits, such as [{"kind": "calls", "limit": 100}]; docs/how-to/budgets.md has all kinds.
        words: Request of the person, verbatim; it cannot be changed, and its values count as the person's.
        own: Value of the person's own record, as NAME=VALUE (mail=ada@example.org); may be given several times.
        endorse: Document that the person named, as TOOL:VALUE[:KIND,KIND] (files/read_file:bill.txt:account,amount).
            Results of the tool for this value count as the person's, for these kinds; by default, for all kinds but
            secret and text.
        draft: File from `ostiary task draft --write` that you have reviewed; excludes --words, --own, --endorse,
            --bounds and --budget.
        on_behalf_of: Name of the person for whom the agent acts.
        ttl: Seconds until the task expires.
        heartbeat: Seconds without a report of any instance (running copy of the agent) under the task after which the
            task counts as lost and ends.
        end_with_last: End the task when the last instance leaves the task.
        ask_plan: Ask people once, at the start, to approve the probable calls of the task.
    """
    body: dict[str, Any] = {"agent": agent, "purpose": purpose, "on_behalf_of": on_behalf_of, "ttl": ttl}
    body["parent"] = parent
    body["scopes"] = None if scope is None else split_words(scope)
    body["bounds"] = read_json(bounds) if bounds else []
    body["data_classes"] = None if data_class is None else split_words(data_class)
    body |= {"heartbeat": heartbeat, "end_with_last": end_with_last}
    body["budget"] = read_json(budget) if budget else []
    body["intent"] = intent_of(words, _own(own), [_document(text) for text in endorse])
    if draft is not None:
        if bounds or budget or body["intent"]:
            raise Usage(
                "`--draft` cannot be combined with `--bounds`, `--budget`, `--words`, `--own` or `--endorse`",
                hint="edit the draft instead",
            )
        body |= _accepted(draft)
    started = session.api("POST", "/tasks", body)
    if ask_plan:
        question = session.api("POST", f"/tasks/{started['task_id']}/plan-question")["question"]
        started |= {"plan_question": None if question is None else question["approval_id"]}
    session.show(started, facts)


@task.command(name="draft")
def draft_task(
    words: str,
    /,
    *,
    agent: str | None = None,
    catalogue: tuple[Path, ...] = (),
    own: tuple[str, ...] = (),
    ask_payee: Annotated[bool, Parameter(negative="--no-ask-payee")] = True,
    write: Path | None = None,
    session: Here,
) -> None:
    """Draft the plan of a task from the person's request, with a reason for each line. No task starts.

    A call outside the plan is not denied: a person is asked, unless all values of the call come from the person.

    Args:
        words: Request of the person, verbatim.
        agent: Name or id of the agent, whose scopes limit the draft; without it, the catalogues limit the draft.
        catalogue: JSON file with the catalogue of a resource, used instead of the catalogue at the server; may be given
            several times.
        own: Value of the person's own record, as NAME=VALUE; may be given several times.
        ask_payee: Never take a payee or a recipient from a document that the person named.
        write: New file for `ostiary task start --draft`.
    """
    catalogues = _catalogues(catalogue)
    if agent is None and not catalogues:
        raise Usage(
            "a draft needs a catalogue", hint="name the source of the catalogue: --agent NAME, or --catalogue FILE"
        )
    offers = sorted(scope for one in catalogues.values() for scope in one.scopes)
    scopes = offers if agent is None else session.api("GET", f"/agents/{agent}")["scopes"]
    offered: list[tuple[str, Catalogue]] = []
    for name in sorted({scope.partition(":")[0] for scope in scopes} - {"ostiary"}):
        resource = session.api("GET", f"/resources/{name}")
        if (tools := catalogues.pop(name, None)) is None and resource["catalogue"] is not None:
            tools = Catalogue.parse(canonical.encode(resource["catalogue"], floats=True))
        if tools is not None:
            offered.append((resource["uri"], tools))
    if catalogues:
        names = ", ".join(sorted(catalogues))
        if agent is None:
            raise Usage(f"the catalogue of {names} has no tools", hint="name another file: --catalogue FILE")
        raise Usage(f"`{agent}` has no scope of {names}", hint="give the agent a scope: ostiary agent allow --help")
    made = draft(words, offered, scopes=scopes, own=_own(own), may_name_recipient=not ask_payee).render()
    if write is not None:
        write_new(write, json.dumps(made, indent=2) + "\n")
    session.show(made, _print_draft)


@task.command(name="list")
def list_tasks(*, agent: str | None = None, limit: int = PAGE, session: Here) -> None:
    """List declared tasks, newest first.

    Args:
        agent: Name or id of an agent.
        limit: Largest number of rows.
    """
    columns = {"task_id": "ID", "agent": "AGENT", "purpose": "PURPOSE", "state": "STATE", "expires_at": "UNTIL"}
    rows = session.pages("/tasks", "tasks", limit=limit, query={"agent": agent})
    session.show(rows, lambda rows: table(rows, columns, empty="no tasks: ostiary task start --help"))


@task.command(name="show")
def show(id: str, /, *, session: Here) -> None:
    """Show a task.

    Args:
        id: Id of the task.
    """
    session.show(session.api("GET", f"/tasks/{id}"), facts)


@task.command(name="tree")
def show_tree(id: str, /, *, session: Here) -> None:
    """Show a task as a tree with its child tasks.

    Args:
        id: Id of the task.
    """
    whole = {"tasks": session.pages(f"/tasks/{id}/tree", "tasks")}
    session.show(whole, lambda value: tree(value["tasks"], _line, of="parent"))


@task.command(name="renew")
def renew(id: str, /, *, ttl: int = 3600, session: Here) -> None:
    """Renew a live task: set its end.

    Args:
        id: Id of the task.
        ttl: Seconds from now until the task expires.
    """
    session.show(session.api("POST", f"/tasks/{id}/renew", {"ttl": ttl}), facts)


@task.command(name="end")
def end(id: str, /, *, outcome: Literal["done", "failed", "cancelled"] = "done", session: Here) -> None:
    """End a task and its child tasks. All tokens of these tasks are revoked when this command returns.

    Args:
        id: Id of the task.
        outcome: Outcome of the task.
    """
    session.show(session.api("POST", f"/tasks/{id}/end", {"outcome": outcome}), facts)
    if not session.as_json:
        out.print(FINAL["task"], style="dim", markup=False)


def token(
    *,
    agent: str,
    key: Path,
    scope: tuple[str, ...] = (),
    resource: str | None = None,
    task: str | None = None,
    session: Here,
) -> None:
    """Get an access token as an agent, bound to the agent's key.

    Args:
        agent: Id of the agent, or its name if your own credential may read agents.
        key: File with the agent's private key: its credential, or a private JWK.
        scope: Scope to request; by default, all scopes of the task. May be given several times.
        resource: Resource identifier (RFC 8707) of the token.
        task: Id of the task; by default, the standing task.
    """
    credential = _read_key(key, session)
    agent_id = _id_of(agent, session, id_in_file=credential.client_id)
    if credential.client_id not in ("", agent_id):
        raise Usage(
            f"the key in {key} belongs to the agent {credential.client_id}",
            hint="give --agent with this id, or the key file of the other agent",
        )
    # without an option, the issuer in the credential file is the server
    url = session.url if session.is_named or not credential.issuer else None
    with Agent(replace(credential, client_id=agent_id), url=url) as holder:
        scopes = " ".join(split_words(scope)) if scope else None
        session.show(holder.token(scope=scopes, resource=resource, task=task), facts)


def _accepted(path: Path) -> dict[str, Any]:
    """Return the members of a draft that the request for a task accepts. Raises Usage if the file is not a draft."""
    draft = read_json(path)
    if not isinstance(draft, dict) or not {"intent", "bounds"} <= draft.keys():
        raise Usage(f"{path} is not a draft", hint="create a draft: ostiary task draft WORDS --agent NAME --write FILE")
    return {"intent": draft["intent"], "bounds": draft["bounds"], "budget": draft.get("budget", [])}


def _catalogues(paths: Sequence[Path]) -> dict[str, Catalogue]:
    """Return the catalogues in files, by the name of the resource. Raises Usage for two catalogues of one resource."""
    catalogues = dict[str, Catalogue]()
    for path in paths:
        one = _catalogue(path)
        if catalogues.setdefault(one.resource, one) is not one:
            raise Usage(f"{path} is another catalogue of `{one.resource}`", hint="name one file for each resource")
    return catalogues


def _catalogue(path: Path) -> Catalogue:
    """Return the catalogue in a file. Raises Usage if the file cannot be read, or is not a catalogue."""
    try:
        return Catalogue.parse(read_bytes(path))
    except Refused as refusal:
        hint = (
            refusal.hint or "ostiary resource read FILE --name NAME creates a catalogue from the lists of an MCP server"
        )
        raise Usage(f"{path}: {refusal.message}", hint=hint) from None


def _print_draft(made: dict[str, Any]) -> None:
    columns = {"verdict": "VERDICT", "what": "LINE", "why": "REASON"}
    table(made["lines"], columns, empty="the draft plans no call")


def _own(texts: tuple[str, ...]) -> dict[str, str]:
    """Return the person's own values by name. Raises Usage for text in another form, and for a repeated name."""
    own: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise Usage(f"--own {text!r} is not NAME=VALUE", hint="write, for example, --own mail=ada@example.org")
        if name in own:
            raise Usage(f"--own gives two values for `{name[:64]}`", hint="give each value another name")
        own[name] = value
    return own


def _document(text: str) -> dict[str, Any]:
    """Parse `TOOL:VALUE[:KINDS]`. VALUE may contain colons: the text after the last colon is KINDS if each of its words
    is a kind.

    Raises Usage for text in another form.
    """
    tool, _, rest = text.partition(":")
    value, colon, last = rest.rpartition(":")
    kinds = last.split(",")
    if not colon or not set(kinds) <= set(Kind):
        value, kinds = rest, [kind for kind in Kind if kind not in (Kind.SECRET, Kind.TEXT)]
    if not tool or not value:
        raise Usage(
            f"--endorse {text!r} is not TOOL:VALUE[:KINDS]",
            hint="write, for example, --endorse files/read_file:bill.txt:amount",
        )
    return {"tool": tool, "value": value, "kinds": kinds}


def _line(task: dict[str, Any]) -> str:
    until = moment(task["ended_at"] or task["expires_at"] or 0)
    when = f"ended {until}Z" if task["ended_at"] else f"until {until}Z" if task["expires_at"] else "standing"
    return f"{short_id(task['task_id'])}  {task['agent']}  ({task['state']}, {when})  {task['purpose']}"


def _read_key(path: Path, session: Session) -> Credential:
    """Return the credential in a file, with a warning if other users can read the file."""
    credential = parse_credential(read_bytes(path), of=path)
    if path.stat().st_mode & 0o077:
        session.warn(f"{path} is open to other users: chmod 600 {path}")
    return credential


def _id_of(agent: str, session: Session, *, id_in_file: str) -> str:
    """Return the id of an agent. If the name cannot be looked up, raises Usage with the id in the key file."""
    if agent.startswith("ag_"):
        return agent
    try:
        return str(session.api("GET", f"/agents/{agent}")["agent_id"])
    except Invalid as error:
        why = f"the name `{agent}` cannot be looked up without an administrator's credential: {error.message}"
        raise Usage(why, hint=f"give the agent's id: --agent {id_in_file or 'ag_..'}") from None
