"""`ostiary task` and `ostiary token`: what an agent is about to do, and the token for it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from ostiary.agent import Agent
from ostiary.cli.registry import Hidden, _read_json
from ostiary.cli.session import facts, table

task = App(name="task", help="Declared tasks: purpose, bounds, an end. What was given under a task dies with it.")


def add_to(app: App) -> None:
    app.command(task)
    app.command(token)


@task.command
def start(
    *,
    agent: str,
    purpose: str,
    bounds: Path | None = None,
    on_behalf_of: str | None = None,
    ttl: int = 3600,
    session: Hidden,
) -> None:
    """Declare a task.

    Parameters
    ----------
    agent: Name of the agent that will work on it.
    purpose: What it is about, in words.
    bounds: JSON file of authorization_details (RFC 9396, type `tool`).
    on_behalf_of: Name of the person for whom the agent acts.
    ttl: Seconds until the task ends by itself.
    """
    body: dict[str, Any] = {"agent": agent, "purpose": purpose, "ttl": ttl}
    body |= {"bounds": _read_json(bounds)} if bounds else {}
    body |= {"on_behalf_of": on_behalf_of} if on_behalf_of else {}
    session.show(session.api("POST", "/tasks", body), facts)


@task.command(name="list")
def list_(*, agent: str | None = None, session: Hidden) -> None:
    """List declared tasks, newest first."""
    columns = {"task_id": "ID", "agent": "AGENT", "purpose": "PURPOSE", "state": "STATE"}
    found = session.api("GET", "/tasks", query={"agent": agent})["tasks"]
    session.show(found, lambda rows: table(rows, columns, empty="no tasks: ostiary task start --help"))


@task.command
def show(id: str, *, session: Hidden) -> None:
    """Show one task."""
    session.show(session.api("GET", f"/tasks/{id}"), facts)


@task.command
def renew(id: str, *, ttl: int = 3600, session: Hidden) -> None:
    """Move the end of a task that lives.

    Parameters
    ----------
    ttl: Seconds from now.
    """
    session.show(session.api("POST", f"/tasks/{id}/renew", {"ttl": ttl}), facts)


@task.command
def end(id: str, *, outcome: str = "done", session: Hidden) -> None:
    """End a task; every token minted under it is dead the moment this returns.

    Parameters
    ----------
    outcome: done, failed or cancelled.
    """
    session.show(session.api("POST", f"/tasks/{id}/end", {"outcome": outcome}), facts)


def token(
    *,
    agent: str,
    key: Path,
    scope: Annotated[list[str], Parameter(negative="")] = [],  # noqa: B006 because cyclopts reads it as the default
    resource: str | None = None,
    task: str | None = None,
    session: Hidden,
) -> None:
    """Get an access token as an agent, bound to its key.

    Parameters
    ----------
    agent: Name or id of the agent.
    key: Its private key file, as `agent create --generate-key` wrote it.
    scope: Scopes to ask for; without, all that the task allows at the resource.
    resource: Resource identifier that the token is for.
    task: Task that the token serves; without, the standing task.
    """
    client_id = agent if agent.startswith("ag_") else session.api("GET", f"/agents/{agent}")["agent_id"]
    with Agent.from_credential(key, url=session.url, client_id=client_id) as holder:
        session.show(holder.token(scope=" ".join(scope) or None, resource=resource, task=task))
