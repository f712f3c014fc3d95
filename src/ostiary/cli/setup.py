"""`ostiary init` and `ostiary protect`: registration of the first objects.

Both commands compare the requested objects with the registered ones. They show each object, its changes and the command
that undoes them, and leave other objects unchanged. A change that gives an agent more access is shown and must be
confirmed.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ostiary.agent import ServerRefused
from ostiary.authorization.catalogue import Catalogue
from ostiary.catalogue_advisor.changes import accept, diff
from ostiary.catalogue_advisor.reading import propose_catalogue
from ostiary.cli.agents import split_words
from ostiary.cli.files import NewKey, write_new
from ostiary.cli.output import out, table
from ostiary.cli.session import Here, Session, ask
from ostiary.cli.tool_sources import read_listing
from ostiary.cli.usage import Usage
from ostiary.run.configs import to_word

Verdict = Literal["create", "change", "unchanged"]


@dataclass(frozen=True, slots=True)
class Form:
    """The pattern that an answer at the terminal must match, and the hint for another answer. The server checks the
    value again.
    """

    pattern: re.Pattern[str]
    hint: str


_NAME = Form(
    re.compile(r"[a-z0-9][a-z0-9._-]{0,62}"),
    ("A name has at most 63 characters: a-z, 0-9, `.`, `_` and `-`. The first character is a letter or a digit."),
)
_EMAIL = Form(re.compile(r"[^@\s]+@[^@\s]+"), "Write the address as name@example.org.")
_TEXT = Form(re.compile(r".+"), "Write a few words, such as: takes notes.")


@dataclass(frozen=True, slots=True)
class Step:
    """The registration or the change of one object, as `init` and `protect` show it before they carry it out. `widens`:
    the access that an agent gains by the step, in words; empty if no agent gains access.
    """

    kind: str
    name: str
    verdict: Verdict
    details: str
    undo: str = ""
    widens: str = ""
    key: Path | None = None
    """The file to which the new private key is written."""
    carry_out: Callable[[], None] | None = field(default=None, repr=False, compare=False)

    @property
    def facts(self) -> dict[str, str]:
        """Return the members that `--json` prints for this step."""
        return {
            "kind": self.kind,
            "name": self.name,
            "verdict": self.verdict,
            "what": self.details,
            "undo": self.undo,
            "widens": self.widens,
        }


def init(
    *,
    owner: str | None = None,
    email: str | None = None,
    resource: str | None = None,
    uri: str | None = None,
    tools: str | None = None,
    agent: str | None = None,
    purpose: str | None = None,
    scope: tuple[str, ...] = (),
    keys: Path = Path(),
    yes: bool = False,
    session: Here,
) -> None:
    """Register the first owner, resource and agent.

    On a terminal and without `--owner`, `--resource` and `--agent`, asks for the values. Otherwise registers the
    objects that the options name. If repeated, leaves objects unchanged that are as requested.

        ostiary init
        ostiary init --owner ada --email ada@example.org --agent writer --purpose "takes notes" --scope notes:read

    Args:
        owner: Name of the person who is responsible for the agent.
        email: Address of the owner.
        resource: Name of the resource, the server whose tools are protected.
        uri: Resource identifier (RFC 8707) of the resource: https, or http on this machine.
        tools: Source of the tools of the resource: module:application, a file of JSON, or the URL of an MCP server.
        agent: Name of the agent.
        purpose: Purpose of the agent, in words.
        scope: A scope of the agent, as RESOURCE:CLASS; may be given several times. Default: RESOURCE:read if
            the resource has tools.
        keys: Folder for the private keys.
        yes: Confirm all changes.
    """
    is_interactive = sys.stdin.isatty() and not session.as_json and owner is None and agent is None and resource is None
    if is_interactive:
        out.print("An owner is the person who is responsible for agents.", markup=False)
        owner = _ask("Name of the owner", "admin", _NAME)
        if not email and _fetch(session, f"/persons/{owner}") is None:
            email = _ask("Mail address of the owner", None, _EMAIL)
        out.print(
            "A resource is a server whose tools are protected. Leave the name empty to add one later.", markup=False
        )
        resource = _ask("Name of the resource", "", _NAME)
        if resource:
            uri = uri or _ask("Its URL", f"http://127.0.0.1:8701/{resource}")
            tools = tools or _ask("Its tools (module:application, file, URL; empty: none yet)", "")
        out.print("An agent calls tools. Leave the name empty to add one later.", markup=False)
        agent = _ask("Name of the agent", "", _NAME)
        if agent:
            purpose = purpose or _ask("Its purpose", None, _TEXT)
    if not (owner or resource or agent):
        raise Usage("nothing to register", hint="name --owner, --resource or --agent, or run it on a terminal")
    listing = read_listing(tools) if tools else None
    steps = [_owner(session, owner, email)] if owner else []
    if resource:
        steps.append(_resource(session, resource, uri, listing, key=keys / f"{resource}.json", mode="enforce"))
    if agent:
        scopes = split_words(scope) or ([f"{resource}:read"] if resource and listing else [])
        steps.append(_agent(session, agent, owner, purpose, scopes, key=keys / f"{agent}.json"))
    _carry_out(session, steps, yes=yes)


def protect(
    target: str,
    /,
    *,
    uri: str | None = None,
    name: str | None = None,
    mode: Literal["enforce", "watch"] = "enforce",
    key: Path | None = None,
    agent: str | None = None,
    owner: str | None = None,
    email: str | None = None,
    purpose: str | None = None,
    scope: tuple[str, ...] = (),
    yes: bool = False,
    session: Here,
) -> None:
    """Register a resource with its tools.

    Reads the tools from code, from an OpenAPI document or from an MCP server. Shows each object, and the command that
    undoes it. If repeated, leaves objects unchanged that are as requested. New or changed tools of a registered
    resource, and further scopes of a registered agent, must be confirmed with --yes or at the terminal.

        ostiary protect notes_server:server --uri http://127.0.0.1:8701/mcp
        ostiary protect shop:api --uri https://shop.example --agent buyer --owner ada --purpose "orders paper"
        ostiary protect https://search.example/mcp --name search

    Args:
        target: module:application (FastAPI, Starlette, an MCP server, a list of tools), a file of JSON (an OpenAPI
            document, the results of MCP list methods), or the URL of an MCP server.
        uri: Resource identifier (RFC 8707); needed unless the target is a URL or the resource is registered.
        name: Name of the resource; by default, a name derived from the target.
        mode: `watch` decides, records and allows every call; `enforce` denies.
        key: File to which the private key of the resource's guard is written; by default, NAME.json.
        agent: Name of an agent that is registered too and can call the resource.
        owner: Name of the person who is responsible for the agent.
        email: Mail address of the owner, if this command also registers the owner.
        purpose: Purpose of the agent, in words.
        scope: A scope of the agent, as RESOURCE:CLASS; may be given several times. Default: NAME:read.
        yes: Confirm all changes.
    """
    name = name or to_word(_stem(target), of="the target")
    listing = read_listing(target)
    is_url = target.startswith(("http://", "https://"))
    steps = [_owner(session, owner, email)] if owner and (email or not agent) else []
    wanted_uri = uri or (target if is_url else None)
    steps.append(_resource(session, name, wanted_uri, listing, key=key or Path(f"{name}.json"), mode=mode))
    if agent:
        scopes = split_words(scope) or [f"{name}:read"]
        steps.append(_agent(session, agent, owner, purpose, scopes, key=Path(f"{agent}.json")))
    _carry_out(session, steps, yes=yes)


def _stem(target: str) -> str:
    """Return a resource name derived from a target: `shop` for `shop:api`, `shop.json` and
    `https://shop.example/mcp`.
    """
    if "://" in target:
        return target.partition("://")[2].partition("/")[0].partition(":")[0].partition(".")[0]
    return Path(target).stem if target.endswith(".json") else target.partition(":")[0].rpartition(".")[2]


def _owner(session: Session, name: str, email: str | None) -> Step:
    registered = _fetch(session, f"/persons/{name}")
    if registered is not None:
        return Step("owner", name, "unchanged", str(registered.get("email") or ""))
    if not email:
        raise Usage(f"the owner `{name}` needs a mail address", hint="state the address: --email ADDRESS")
    body = {"name": name, "email": email}
    undo = f"ostiary kill owner {name} --reason undo"
    return Step("owner", name, "create", email, undo, carry_out=lambda: session.api("POST", "/persons", body))


def _resource(
    session: Session, name: str, uri: str | None, listing: dict[str, Any] | None, *, key: Path, mode: str
) -> Step:
    """Return the step that registers the resource or updates its catalogue. Raises Usage if a resource of this name is
    registered with another URI.
    """
    registered = _fetch(session, f"/resources/{name}")
    listed = None if listing is None else propose_catalogue(name, listing).catalogue
    if registered is None:
        return _new_resource(session, name, uri, listed, key=key, mode=mode)
    if uri is not None and registered["uri"] != uri:
        raise Usage(
            f"the resource `{name}` exists, with another URI: {registered['uri']}",
            hint="choose another name with --name",
        )
    text = registered["catalogue"]
    approved = None if text is None or listed is None else Catalogue.parse(json.dumps(text))
    if listed is None or (approved is not None and not diff(approved, listed)):
        return Step("resource", name, "unchanged", registered["uri"])
    return _other_tools(session, name, approved, listed, registered["catalogue_hash"], folder=key.parent)


def _new_resource(
    session: Session, name: str, uri: str | None, listed: Catalogue | None, *, key: Path, mode: str
) -> Step:
    if uri is None:
        raise Usage(
            f"the resource `{name}` needs a URI",
            hint="state the URI at which agents reach the resource: --uri https://...",
        )
    made = NewKey.generate(key)
    body = {"name": name, "uri": uri, "mode": mode, "jwk": made.public}
    if listed is not None:
        body["catalogue"] = listed.render()

    def create() -> None:
        created = session.api("POST", "/resources", body)
        made.save(created["resource_id"], issuer=session.agent.issuer)

    details = f"{uri}, {_tools_of(listed)}, mode {mode}; key of its guard: {key}"
    return Step(
        "resource", name, "create", details, f"ostiary kill resource {name} --reason undo", key=key, carry_out=create
    )


def _other_tools(
    session: Session, name: str, approved: Catalogue | None, listed: Catalogue, was: str | None, *, folder: Path
) -> Step:
    """Return the step for a resource whose tools differ from the approved definitions."""
    merged = listed if approved is None else accept(approved, listed)
    changes = [] if approved is None else diff(approved, listed)
    new = sorted({one.tool for one in changes if one.verdict == "new"} or (listed.tools if approved is None else ()))
    changed = sorted({one.tool for one in changes if one.verdict == "changed"})
    gone = sorted({one.tool for one in changes if one.verdict == "gone"})
    parts = [
        f"{verb}: {', '.join(tools)}" for verb, tools in (("new", new), ("changed", changed), ("gone", gone)) if tools
    ]
    if not new and not changed:
        return Step("resource", name, "unchanged", f"{'; '.join(parts)} (kept in the catalogue)")
    scopes = sorted({merged.scope(merged.tools[tool]) for tool in (*new, *changed)})
    widens = f"agents with the scope {' or '.join(scopes)} may call {', '.join((*new, *changed))}"
    before = folder / f"{name}.catalogue-{(was or 'none')[:8]}.json"

    def change() -> None:
        if approved is not None and not before.exists():
            write_new(before, json.dumps(approved.render(), indent=2) + "\n")
        session.api("PUT", f"/resources/{name}/catalogue", {"catalogue": merged.render(), "was": was})

    undo = f"ostiary resource catalogue {name} {before}" if approved is not None else ""
    return Step("resource", name, "change", "; ".join(parts), undo, widens, carry_out=change)


def _agent(
    session: Session, name: str, owner: str | None, purpose: str | None, scopes: Sequence[str], *, key: Path
) -> Step:
    """Return the step for an agent. Raises Usage for an agent of another owner."""
    registered = _fetch(session, f"/agents/{name}")
    if registered is not None:
        if owner is not None and registered["owner"] not in (owner, _id(session, owner)):
            raise Usage(f"the agent `{name}` exists, with another owner", hint="choose another name with --agent")
        missing = sorted(set(scopes) - set(registered["scopes"]))
        if not missing:
            return Step("agent", name, "unchanged", " ".join(registered["scopes"]))
        text = " ".join(missing)
        body = {"scopes": [*registered["scopes"], *missing], "undeclared": False}
        return Step(
            "agent",
            name,
            "change",
            f"scopes {text}",
            f"ostiary agent disallow {name} {text}",
            f"{name} may use {text}",
            carry_out=lambda: session.api("PATCH", f"/agents/{name}", body),
        )
    if owner is None:
        raise Usage(
            f"the agent `{name}` needs an owner",
            hint="name the owner: --owner NAME, and --email ADDRESS for a new owner",
        )
    if not purpose:
        raise Usage(f"the agent `{name}` needs a purpose", hint='--purpose "takes notes"')
    made = NewKey.generate(key)

    def create() -> None:
        body = {"name": name, "owner": owner, "purpose": purpose, "scopes": [*scopes], "jwk": made.public}
        created = session.api("POST", "/agents", body)
        made.save(created["agent_id"], issuer=session.agent.issuer)

    details = f"for {owner}, scopes {' '.join(scopes) or 'none'}; its key: {key}"
    widens = f"{name} may use {' '.join(scopes)}" if scopes else ""
    undo = f"ostiary agent decommission {name}"
    return Step("agent", name, "create", details, undo, widens, key=key, carry_out=create)


def _carry_out(session: Session, steps: Sequence[Step], *, yes: bool) -> None:
    """Show the steps, ask for confirmation of changes to existing objects, and perform the steps.

    Raises Usage, before any step, if two new keys have the same file.
    """
    files = [step.key.resolve() for step in steps if step.key is not None]
    if len(set(files)) < len(files):
        raise Usage(f"two new keys cannot both be written to {files[0]}", hint="choose another name, or use --key FILE")
    changes = [step for step in steps if step.verdict == "change"]
    if not session.as_json:
        rows = [step.facts for step in steps]
        table(rows, {"verdict": "", "kind": "KIND", "name": "NAME", "what": "WHAT"}, empty="nothing to do")
        for step in steps:
            if step.widens:
                out.print(f"access: {step.widens}", markup=False, soft_wrap=True)
    if changes and not yes:
        session.confirm("Change this?", change=f"{', '.join(step.name for step in changes)} would change")
    for step in steps:
        if step.carry_out is not None:
            step.carry_out()
    session.show([step.facts for step in steps], _print_undo)


def _print_undo(steps: Sequence[dict[str, str]]) -> None:
    for step in steps:
        if step["undo"] and step["verdict"] != "unchanged":
            out.print(f"undo: {step['undo']}", markup=False, soft_wrap=True)
    if all(step["verdict"] == "unchanged" for step in steps):
        out.print("nothing was changed", markup=False)


def _tools_of(catalogue: Catalogue | None) -> str:
    return "no tools yet" if catalogue is None else f"{len(catalogue.tools)} tools"


def _id(session: Session, owner: str) -> str:
    registered = _fetch(session, f"/persons/{owner}") or {}
    return str(registered.get("person_id") or "")


def _fetch(session: Session, path: str) -> dict[str, Any] | None:
    """Return the registered object at `path`; None if there is none."""
    try:
        registered: dict[str, Any] = session.api("GET", path)
    except ServerRefused as refusal:
        if refusal.code != "not_found":
            raise
        return None
    return registered


def _ask(question: str, default: str | None, form: Form | None = None) -> str:
    """Ask the person at the terminal, again while the answer does not have the form. Return the default for an empty
    answer; without a default, an answer is required.
    """
    while True:
        answer = ask(f"{question}{f' [{default}]' if default else ''}: ")
        if not answer and default is not None:
            return default
        if form is None or form.pattern.fullmatch(answer):
            return answer
        out.print(f"  {form.hint}", markup=False)
