"""`ostiary task` and `ostiary token`: what an agent is about to do, and the token for it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter

from ostiary.agent import Agent
from ostiary.agent.identity import asked
from ostiary.authorization.catalogue import Catalogue, Kind
from ostiary.catalogue_advisor.draft import draft
from ostiary.cli.agents import words as split
from ostiary.cli.files import read_bytes, read_json, write_new
from ostiary.cli.paper import err, facts, moment, out, table, tree
from ostiary.cli.revoke import FINAL
from ostiary.cli.session import PAGE, Here, Session, Usage
from ostiary.keys import Credential, parse_credential
from ostiary.protocol import canonical
from ostiary.protocol.errors import Invalid, Refused

task = App(name="task", help="Declared tasks: purpose, bounds, an end. What was given under a task dies with it.")


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
    """Declare a task, or give a part of one to an agent.

    Args:
        agent: Name or id of the agent that works on it.
        purpose: What it is about, in words.
        scope: What it allows of the agent's scopes; without, all. May be given several times.
        parent: Id of the task of which it is a part: it only narrows that one, and ends with it.
        bounds: JSON file of authorization_details (RFC 9396, type `tool`) that narrow it further.
        data_class: Only tools that handle nothing but this class of data; may be given several times.
        budget: JSON file of limits, such as [{"kind": "calls", "limit": 100}]; docs/how-to/budgets.md has all kinds.
        words: What the person asked, in their own words; it never changes, and values in it count as theirs.
        own: What is the person's own, as NAME=VALUE (mail=ada@example.org); may be given several times.
        endorse: A document that they named, as TOOL:VALUE[:KIND,KIND] (files/read_file:bill.txt:account,amount): what
            this tool returns for this value counts as theirs for these kinds; without, for all but secret and text.
        draft: What `ostiary task draft --write` wrote, read and edited by whoever accepts it, in place of words, own,
            endorse, bounds and budget.
        on_behalf_of: Name of the person for whom the agent acts.
        ttl: Seconds until the task ends by itself.
        heartbeat: Seconds of silence of all who hold the task, after which it is lost.
        end_with_last: End it when the last who holds it lets go.
        ask_plan: Ask people once, at the start, what the task will probably do, where that saves questions.
    """
    body: dict[str, Any] = {"agent": agent, "purpose": purpose, "on_behalf_of": on_behalf_of, "ttl": ttl}
    body["parent"] = parent
    body["scopes"] = None if scope is None else split(scope)
    body["bounds"] = read_json(bounds) if bounds else []
    body["data_classes"] = None if data_class is None else split(data_class)
    body |= {"heartbeat": heartbeat, "end_with_last": end_with_last}
    body["budget"] = read_json(budget) if budget else []
    body["intent"] = asked(words, _own(own), [_document(text) for text in endorse])
    if draft is not None:
        if bounds or budget or body["intent"]:
            raise Usage("a draft says all of that", hint="edit the draft")
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
    """Draft the plan of a task from what the person asked, with a reason for each line; nothing starts.

    What is not planned is not denied: unless each of its values is the person's, a person is asked about it.

    Args:
        words: What the person asked, in their own words.
        agent: Name or id of the agent; a draft plans nothing beyond its scopes. Without, all that the catalogues
            offer; an agent that gets a task with it may do no more than its scopes all the same.
        catalogue: JSON of a resource's tools in our own form, in place of what the server has of it; may be repeated.
        own: What is the person's own, as NAME=VALUE; may be given several times.
        ask_payee: Let no document that the person named say who is paid or written to.
        write: Write it here, for `ostiary task start --draft`; an existing file is not touched.
    """
    there = {found.resource: found for found in map(_catalogue, catalogue)}
    if agent is None and not there:
        raise Usage("a draft needs to know what there is to allow", hint="--agent NAME, or --catalogue FILE")
    offers = sorted(scope for found in there.values() for scope in found.scopes)
    scopes = offers if agent is None else session.api("GET", f"/agents/{agent}")["scopes"]
    offered: list[tuple[str, Catalogue]] = []
    for name in sorted({scope.partition(":")[0] for scope in scopes} - {"ostiary"}):
        resource = session.api("GET", f"/resources/{name}")
        if (tools := there.pop(name, None)) is None and resource["catalogue"] is not None:
            tools = Catalogue.parse(canonical.encode(resource["catalogue"], floats=True))
        if tools is not None:
            offered.append((resource["uri"], tools))
    if there:
        raise Usage(f"`{agent}` has no scope of {', '.join(sorted(there))}", hint="ostiary agent allow --help")
    made = draft(words, offered, scopes=scopes, own=_own(own), whom=not ask_payee).render()
    if write is not None:
        write_new(write, json.dumps(made, indent=2) + "\n")
    session.show(made, _print_draft)


@task.command(name="list")
def list_tasks(*, agent: str | None = None, limit: int = PAGE, session: Here) -> None:
    """List declared tasks, newest first.

    Args:
        agent: Only those of this agent.
        limit: How many at most.
    """
    columns = {"task_id": "ID", "agent": "AGENT", "purpose": "PURPOSE", "state": "STATE", "expires_at": "UNTIL"}
    found = session.pages("/tasks", "tasks", limit=limit, query={"agent": agent})
    session.show(found, lambda rows: table(rows, columns, empty="no tasks: ostiary task start --help"))


@task.command(name="show")
def show(id: str, /, *, session: Here) -> None:
    """Show one task.

    Args:
        id: Id of the task.
    """
    session.show(session.api("GET", f"/tasks/{id}"), facts)


@task.command(name="tree")
def show_tree(id: str, /, *, session: Here) -> None:
    """Draw a task with all that is under it.

    Args:
        id: Id of the task.
    """
    whole = {"tasks": session.pages(f"/tasks/{id}/tree", "tasks")}
    session.show(whole, lambda found: tree(found["tasks"], _line, of="parent"))


@task.command(name="renew")
def renew(id: str, /, *, ttl: int = 3600, session: Here) -> None:
    """Move the end of a task that lives.

    Args:
        id: Id of the task.
        ttl: Seconds from now until its end.
    """
    session.show(session.api("POST", f"/tasks/{id}/renew", {"ttl": ttl}), facts)


@task.command(name="end")
def end(id: str, /, *, outcome: Literal["done", "failed", "cancelled"] = "done", session: Here) -> None:
    """End a task; every token that was given under it is dead the moment this returns.

    Args:
        id: Id of the task.
        outcome: How it went.
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
        agent: Id of the agent; its name, for who may look it up.
        key: File of its private key: a credential, or any private JWK.
        scope: Scopes to ask for; without, all that the task allows. May be given several times.
        resource: Resource identifier (RFC 8707) that the token is for.
        task: Id of the task that it serves; without, the standing task.
    """
    credential = _read_key(key)
    agent_id = _id_of(agent, session, known=credential.client_id)
    if credential.client_id not in ("", agent_id):
        raise Usage(f"the key in {key} is of the agent {credential.client_id}", hint="give that agent, or its own key")
    url = session.url if session.is_named or not credential.issuer else None  # a credential is enough
    with Agent(replace(credential, client_id=agent_id), url=url) as holder:
        session.show(holder.token(scope=" ".join(split(scope)) or None, resource=resource, task=task), facts)


def _accepted(path: Path) -> dict[str, Any]:
    """What counts of a draft. Raises Usage."""
    said = read_json(path)
    if not isinstance(said, dict) or not {"intent", "bounds"} <= said.keys():
        raise Usage(f"{path} is no draft", hint="ostiary task draft WORDS --agent NAME --write FILE")
    return {"intent": said["intent"], "bounds": said["bounds"], "budget": said.get("budget", [])}


def _catalogue(path: Path) -> Catalogue:
    """Raises Usage."""
    try:
        return Catalogue.parse(read_bytes(path))
    except Refused as refusal:
        hint = refusal.hint or "ostiary resource read makes one of what an MCP server lists"
        raise Usage(f"{path}: {refusal.message}", hint=hint) from None


def _print_draft(made: dict[str, Any]) -> None:
    columns = {"verdict": "", "what": "WHAT", "why": "WHY"}
    table(made["lines"], columns, empty="nothing")


def _own(given: tuple[str, ...]) -> dict[str, str]:
    """Raises Usage."""
    found: dict[str, str] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or name in found:
            raise Usage(f"--own {text!r} is not NAME=VALUE, or given twice", hint="such as mail=ada@example.org")
        found[name] = value
    return found


def _document(text: str) -> dict[str, Any]:
    """`TOOL:VALUE[:KINDS]`, where VALUE may have colons in it: what follows the last one is kinds if all of it is.

    Raises Usage.
    """
    tool, _, rest = text.partition(":")
    value, colon, last = rest.rpartition(":")
    kinds = last.split(",")
    if not colon or not set(kinds) <= set(Kind):
        value, kinds = rest, [kind for kind in Kind if kind not in (Kind.SECRET, Kind.TEXT)]
    if not tool or not value:
        raise Usage(f"--endorse {text!r} is not TOOL:VALUE[:KINDS]", hint="such as files/read_file:bill.txt:amount")
    return {"tool": tool, "value": value, "kinds": kinds}


def _line(task: dict[str, Any]) -> str:
    until = moment(task["ended_at"] or task["expires_at"] or 0)
    when = f"ended {until}Z" if task["ended_at"] else f"until {until}Z" if task["expires_at"] else "standing"
    return f"{task['agent']}  {task['purpose']}  ({task['state']}, {when})  {task['task_id']}"


def _read_key(path: Path) -> Credential:
    """A key that others can read is used all the same, since it may be somebody else's, but not in silence."""
    credential = parse_credential(read_bytes(path), of=path)
    if path.stat().st_mode & 0o077:
        err.print(f"warning: {path} can be read by others: chmod 600 {path}", style="yellow", markup=False)
    return credential


def _id_of(agent: str, session: Session, *, known: str) -> str:
    """The id behind a name; `known` is what the key file says. Raises Usage where nobody may look it up."""
    if agent.startswith("ag_"):
        return agent
    try:
        return str(session.api("GET", f"/agents/{agent}")["agent_id"])
    except Invalid as error:
        why = f"the name `{agent}` cannot be looked up without an administrator's credential: {error.message}"
        raise Usage(why, hint=f"give the agent's id: --agent {known or 'ag_..'}") from None
