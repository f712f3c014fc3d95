"""`ostiary proxy`: a local address of a protected server, for clients without support for tokens and proofs."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from ostiary.agent import Agent
from ostiary.cli.agents import split_words
from ostiary.cli.names import Names
from ostiary.cli.output import out
from ostiary.cli.run import declared_task
from ostiary.cli.run_folder import run_folder
from ostiary.cli.session import Here, Session
from ostiary.cli.usage import Usage
from ostiary.keys import load_key
from ostiary.openapi import OpenApiTable
from ostiary.proxy import Entrance, Listen, Upstream, capability_of, serve
from ostiary.proxy.guarded import GuardedUpstream
from ostiary.proxy.guarded_http import GuardedHttpUpstream, MethodTable, table_of
from ostiary.proxy.upstream import check_url
from ostiary.run.apis import read_document
from ostiary.run.events import Listener
from ostiary.run.gate import Gate
from ostiary.run.output import RunOutput
from ostiary.run.plan import Plan


def proxy(
    *,
    to: str,
    as_: Path,
    listen: str = "127.0.0.1:8701",
    resource: str | None = None,
    scope: tuple[str, ...] = (),
    purpose: str | None = None,
    bounds: Path | None = None,
    guard: Path | None = None,
    http: bool = False,
    openapi: Path | None = None,
    open: bool = False,
    session: Here,
) -> None:
    """Add tokens and proofs to the requests of any HTTP or MCP client.

    Prints the URL that clients use instead of the server's URL. Each request goes on to the server with an access token
    of the agent, and with a proof of its key if the issuer binds tokens to keys. Runs until Ctrl-C.

        ostiary proxy --to https://files.example/mcp --as writer.json
        claude mcp add --transport http files http://127.0.0.1:8701/7c0X...

    Args:
        to: URL of the server; a path that clients append to the printed URL is appended to this URL.
        as_: Credential of the agent, or of a client at another authorization server.
        listen: HOST:PORT on which the proxy listens (for port 0, the system chooses a free port), or unix:PATH, a
            socket that only you can open.
        resource: Resource identifier (RFC 8707) of the tokens; by default, the URL of `--to`.
        scope: Scope to request; by default, all scopes of the task. May be given several times.
        purpose: Declare a task with this purpose, instead of the standing task.
        bounds: JSON file of authorization_details that bound the task, such as `ostiary suggest` writes.
        guard: Credential of the resource, for an MCP server without a guard of its own. This command then decides calls
            like `ostiary run`: in mode watch all calls pass, and a line shows the verdict on each.
        http: With --guard: the server is an HTTP API, not an MCP server; each method is a tool.
        openapi: With --guard: the OpenAPI document of the HTTP API, in JSON; each operation is a tool.
        open: Print a URL without a random path, so that every program on this machine can act as the agent.
    """
    if resource == "" or (scope and not split_words(scope)):
        raise Usage(
            "a token is requested for an empty `--resource` or `--scope`",
            hint="leave out the option, or give a value that is not empty",
        )
    logging.basicConfig(stream=sys.stderr, format="ostiary: %(message)s", level=logging.WARNING)
    check_url(to)
    credential = load_key(as_)
    url = session.url if session.is_named or not credential.issuer else None
    place = Listen.parse(listen)
    if not place.is_local:
        session.warn(f"other machines can reach {listen}, without encryption")
    if open and place.socket is None:
        session.warn("every program that reaches the proxy acts as the agent")
    capability = "" if open or place.socket is not None else capability_of(credential, to)

    def say(entrance: Entrance) -> None:
        if session.as_json:
            print(
                json.dumps({"url": entrance.base, "socket": place.socket and str(place.socket), "to": to}), flush=True
            )
        else:
            where = f" on {place.socket}" if place.socket is not None else ""
            out.print(f"ready {entrance.base}{where} -> {to}", markup=False, soft_wrap=True)

    with declared_task(credential, url, purpose=purpose, bounds=bounds) as task:
        entrance = Entrance(place, capability)
        if guard is not None:
            table = table_of(None if openapi is None else read_document(openapi)) if http or openapi else None
            _guarded(
                to,
                as_,
                guard,
                resource or to,
                table,
                task=task,
                session=session,
                run=lambda at: _run(entrance, at, say),
            )
            return
        with Agent(credential, url=url) as agent:
            scopes = " ".join(split_words(scope)) if scope else None
            auth = agent.auth(to if resource is None else resource, scopes, task=task)
            _run(entrance, Upstream(to, auth), say)


def _guarded(
    to: str,
    as_: Path,
    guard: Path,
    uri: str,
    table: OpenApiTable | MethodTable | None,
    *,
    task: str | None,
    session: Session,
    run: Callable[[Upstream], None],
) -> None:
    """Run a proxy with a guard that decides each call, and print the decisions."""
    with run_folder("ostiary-proxy-") as folder:
        events = folder / "events"
        listener = Listener(events)
        gate = Gate(
            Plan(
                server=urlsplit(to).hostname or to,
                agent=str(as_),
                guard=str(guard),
                uri=uri,
                task=task,
                spool=str(guard.with_suffix(".spool")),
                mode=str(guard.with_suffix(".mode")),
                url=session.url,
                events=str(events),
            ),
        )
        gate.start()
        try:
            with RunOutput(as_.stem, quiet=False).print_events(listener, Names(session), task=task):
                run(GuardedUpstream(to, gate) if table is None else GuardedHttpUpstream(to, gate, table))
        finally:
            gate.close()


def _run(entrance: Entrance, upstream: Upstream, say: Callable[[Entrance], None]) -> None:
    asyncio.run(_serve(entrance, upstream, say))


async def _serve(entrance: Entrance, upstream: Upstream, say: Callable[[Entrance], None]) -> None:
    """Serve until a signal ends it."""
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        with suppress(asyncio.CancelledError):
            await serve(entrance, upstream, ready=say)
    finally:
        await upstream.close()
