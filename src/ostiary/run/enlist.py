"""Registration of the missing objects of an existing agent: the agent, and a resource per server.

    KEYS/<agent>/agent.json              the agent's credential
    KEYS/<agent>/servers/<server>.json   the credential of the guard in front of that server
    KEYS/<agent>/servers/<server>.mode   the last mode that its guard received
    KEYS/<agent>/servers/<server>.cmd    the command that it was registered with
    KEYS/<agent>/spool/                  records that guards have not reported yet

KEYS is the folder `run/` beside the administrator's credential. Objects with an existing file are not registered again,
so an agent that was run once also starts without the Ostiary server. The name of a resource is `<agent>.<server>`, and
its identifier is `http://localhost/stdio/<agent>/<server>` (no program listens there). A new resource is in mode
`watch`, or in mode `enforce` if another server of the agent is enforced.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ostiary import ambient
from ostiary.agent import ServerRefused
from ostiary.authorization.catalogue import Catalogue
from ostiary.cli.files import NewKey, read_json
from ostiary.cli.session import PAGE, Session
from ostiary.cli.usage import Usage
from ostiary.protocol.errors import Refused
from ostiary.proxy.egress.tools import LISTING
from ostiary.proxy.guarded_http import table_of
from ostiary.run.configs import Server, expand, to_word
from ostiary.run.http_probe import probe_http
from ostiary.run.plan import Plan
from ostiary.run.probe import probe

MAX_RESOURCES = 100 * PAGE
MAX_PURPOSE = 200
INTERPRETERS = ("python", "node", "uv", "npx", "npm", "bun", "deno", "sh", "bash")
VERBS = {"run", "exec", "x"}
GENERIC = {"main", "agent", "app", "index", "run", "__main__"}
"""Names of scripts that many agents have, so that the agent is named after the folder."""
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


@dataclass(frozen=True, slots=True)
class Place:
    """The folder in which `ostiary run` keeps the files of one agent, such as its credential."""

    folder: Path
    agent: str

    @property
    def credential(self) -> Path:
        """Return the path of the file with the agent's credential."""
        return self.folder / "agent.json"

    def guard(self, server: Server) -> Path:
        """Return the path of the file with the credential of a server's guard."""
        return self.folder / "servers" / f"{server.word}.json"

    def mode(self, server: Server) -> Path:
        """Return the path of the file with the mode that a server's guard received last."""
        return self.folder / "servers" / f"{server.word}.mode"

    def command(self, server: Server) -> Path:
        """Return the path of the file with the command with which a server was registered."""
        return self.folder / "servers" / f"{server.word}.cmd"

    def resource(self, server: Server) -> str:
        """Return the name of the resource that represents a server of this agent: `<agent>.<server>`."""
        return f"{self.agent}.{server.word}"

    def uri(self, server: Server) -> str:
        """Return the resource identifier (URI) of a server of this agent, or of its egress proxy."""
        return egress_uri(self.agent) if server.is_egress else f"{stdio_uri(self.agent)}{server.word}"

    def is_known(self, servers: Sequence[Server]) -> bool:
        """Return whether the credential files of the agent and of the guards of all `servers` exist."""
        return self.credential.exists() and all(self.guard(server).exists() for server in servers)

    def plan(self, server: Server, *, url: str, task: str | None, events: Path) -> Plan:
        """Return the plan for the proxy of a server: the settings with which the proxy starts."""
        return Plan(
            server=server.name,
            agent=str(self.credential),
            guard=str(self.guard(server)),
            uri=self.uri(server),
            spool=str(self.folder / "spool"),
            mode=str(self.mode(server)),
            url=url,
            task=task,
            events=str(events),
        )


def stdio_uri(agent: str) -> str:
    """Return the prefix of the resource identifiers of the MCP servers of an agent, stdio or HTTP, that `ostiary run`
    guards: `http://localhost/stdio/AGENT/`. The name of the server follows.
    """
    return f"http://localhost/stdio/{agent}/"


def egress_uri(agent: str) -> str:
    """Return the resource identifier of an agent's egress proxy. The Ostiary server gives secrets only to the
    proxy with this identifier.
    """
    return f"http://localhost/egress/{agent}"


def is_own(uri: str, agent: str) -> bool:
    """Return whether a resource identifier belongs to a server of the agent, or to its egress proxy."""
    return uri.startswith(stdio_uri(agent)) or uri == egress_uri(agent)


def place_of(session: Session, agent: str) -> Place:
    """Return the Place of an agent: the folder `run/<agent>` beside the credential of the session. Creates missing
    folders with mode 0700. Raises Usage for a text that no agent can have as its name.
    """
    if not _NAME.fullmatch(agent):
        hint = "a name has at most 63 characters: a-z, 0-9, `.`, `_` and `-`; the first is a letter or a digit"
        raise Usage(f"{agent[:80]!a} is not the name of an agent", hint=hint)
    folder = session.credential.resolve().parent / "run" / agent
    for made in (folder.parent, folder, folder / "servers"):
        made.mkdir(mode=0o700, exist_ok=True)
    return Place(folder, agent)


def agent_name(command: Sequence[str], folder: Path) -> str:
    """Return the name for the agent: the name of the program, or of the script that an interpreter runs. For a generic
    name such as `main`, return the name of its folder. Raises Usage if the name has no ASCII letter or digit.
    """
    first, *rest = command
    words = [word for word in rest if not word.startswith("-") and word not in VERBS]
    is_interpreter = Path(first).name.startswith(INTERPRETERS) and words
    program = Path(folder, words[0] if is_interpreter else first)
    return to_word(program.parent.name if program.stem in GENERIC else program.stem, of="the command")


def list_changed_servers(place: Place, servers: Sequence[Server]) -> list[Server]:
    """Return the registered servers whose command differs from the stored command of the registration, or that have no
    stored command. A server whose guard has no credential file is not registered.
    """
    registered = [(server, place.command(server)) for server in servers if place.guard(server).exists()]
    return [server for server, file in registered if not file.exists() or read_json(file) != server.command]


def enlist(
    session: Session,
    place: Place,
    servers: Sequence[Server],
    *,
    owner: str | None,
    command: Sequence[str],
    say: Callable[[str], None],
) -> None:
    """Register the agent and the servers whose credential files are missing, report them with `say`, and store the
    present modes of the other servers. `owner`: owner of a new agent; None for the owner of the session's agent.

    Raises Usage if an agent of this name exists without its credential file, or if the resource of a known server is
    not registered; ServerRefused if the Ostiary server refuses a request, Unavailable if the Ostiary server does not
    answer.
    """
    if not place.credential.exists():
        _enlist_agent(session, place, owner or _owner(session), command)
        say(f"registered the agent `{place.agent}`; it has no scopes yet")
    fresh = [server for server in servers if not place.guard(server).exists()]
    for server in servers:
        if server not in fresh:
            _recall(session, place, server)
    if fresh:
        mode = _mode(session, place)
        for server in fresh:
            _enlist_server(session, place, server, mode=mode, say=say)


def refresh_catalogues(
    session: Session, place: Place, servers: Sequence[Server], *, say: Callable[[str], None]
) -> None:
    """List the tools of the servers again, and propose the new catalogues. A server that cannot be listed keeps its
    catalogue, and is reported with `say`. Raises Usage for a server that is not in mode `watch`, before any server is
    listed.
    """
    for server in servers:
        name = place.resource(server)
        if session.api("GET", f"/resources/{name}")["mode"] != "watch":
            raise Usage(
                f"`{name}` is enforced, and its listing would take effect at once",
                hint=f"set watch mode first: ostiary enforce {name} --off",
            )
    for server in servers:
        name = place.resource(server)
        if (catalogue := _catalogue(name, server, say)) is not None:
            proposal = {"catalogue": catalogue.render(), "proposed": True}
            session.api("PUT", f"/resources/{name}/catalogue", proposal)
            say(f"`{name}` has {len(catalogue.tools)} tools, from its own listing")
        place.command(server).write_text(json.dumps(server.command), "utf-8")


def _recall(session: Session, place: Place, server: Server) -> None:
    """Store the present mode of a server, which can have changed since the last start of its guard. Raises
    Usage for an unregistered resource.
    """
    try:
        mode = session.api("GET", f"/resources/{place.resource(server)}")["mode"]
    except ServerRefused as refusal:
        if refusal.code != "not_found":
            raise
        problem = f"`{place.resource(server)}` is not registered at {session.url}"
        hint = f"use the server for which {place.guard(server)} was made: --data-dir DIR or OSTIARY_URL"
        raise Usage(problem, hint=hint) from None
    place.mode(server).write_text(mode, "utf-8")


def _enlist_agent(session: Session, place: Place, owner: str, command: Sequence[str]) -> None:
    if _is_known(session, f"/agents/{place.agent}"):
        raise Usage(
            f"there is an agent `{place.agent}` already, and its key is not in {place.credential}",
            hint=f"run it under another name with --agent NAME, or: ostiary key add {place.agent} --generate-key "
            f"{place.credential}",
        )
    key = NewKey.generate(place.credential)
    body = {"name": place.agent, "owner": owner, "purpose": f"runs {shlex.join(command)}"[:MAX_PURPOSE]}
    created = session.api("POST", "/agents", body | {"jwk": key.public})
    key.save(created["agent_id"], issuer=session.agent.issuer)


def _owner(session: Session) -> str:
    """Return the owner of the agent whose credential the session uses."""
    return str(session.api("GET", f"/agents/{session.agent.client_id}")["owner"])


def _mode(session: Session, place: Place) -> str:
    """Return the mode for a new server: `enforce` if any server of the agent is in mode `enforce`, else `watch`."""
    resources = session.pages("/resources", "resources", limit=MAX_RESOURCES)
    is_enforced = any(is_own(one["uri"], place.agent) and one["mode"] == "enforce" for one in resources)
    return "enforce" if is_enforced else "watch"


def _enlist_server(session: Session, place: Place, server: Server, *, mode: str, say: Callable[[str], None]) -> None:
    name = place.resource(server)
    key = NewKey.generate(place.guard(server))
    body: dict[str, Any] = {"name": name, "uri": place.uri(server), "mode": mode, "jwk": key.public}
    catalogue = _catalogue(name, server, say)
    if catalogue is not None:
        body |= {"catalogue": catalogue.render(), "proposed": True}
    created = session.api("POST", "/resources", body)
    place.mode(server).write_text(mode, "utf-8")
    place.command(server).write_text(json.dumps(server.command), "utf-8")
    key.save(created["resource_id"], issuer=session.agent.issuer)
    tools = "no tools are known" if catalogue is None else f"{len(catalogue.tools)} tools, from its own listing"
    say(f"registered the server `{name}` in mode {mode}: {tools}")


def _catalogue(name: str, server: Server, say: Callable[[str], None]) -> Catalogue | None:
    """Return the catalogue from the listing of the server; None if the listing fails or is invalid. Without a
    catalogue, no tools are known.
    """
    try:
        return Catalogue.from_mcp(name, _listing(server))
    except Refused as refusal:
        say(f"no catalogue of `{server.name}`: {refusal.message}" + (f" ({refusal.hint})" if refusal.hint else ""))
        return None


def _listing(server: Server) -> dict[str, Any]:
    """Return the listing of the server. A stdio server is started as the agent starts it: variables are
    expanded, and the server's own environment replaces variables of this process.
    """
    ours = ambient.environment()
    if server.is_egress:
        return LISTING
    if server.is_api:
        return table_of(server.document).listing
    if server.url is not None:
        headers = {name: expand(value, ours) for name, value in server.headers.items()}
        url = expand(server.url, ours)
        return probe_http(url, headers=headers, is_sse=server.is_sse(url))
    own = {name: expand(value, ours) for name, value in server.env.items()}
    return probe([expand(word, ours) for word in server.command], env=ours | own, cwd=server.cwd)


def _is_known(session: Session, path: str) -> bool:
    try:
        session.api("GET", path)
    except ServerRefused as refusal:
        if refusal.code == "not_found":
            return False
        raise
    return True
