"""`ostiary egress`: destinations of secrets, and a proxy that puts secrets into the requests of an agent."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any

from cyclopts import App

from ostiary import ambient
from ostiary.cli.names import Names
from ostiary.cli.output import facts, moment, out, table
from ostiary.cli.run import declared_task
from ostiary.cli.run_folder import run_folder
from ostiary.cli.session import Here
from ostiary.cli.usage import Usage
from ostiary.keys import DESCRIPTOR, load_key
from ostiary.protocol.destination import PLAIN, parse_origin
from ostiary.protocol.jose import b64u
from ostiary.proxy import Listen
from ostiary.proxy.egress import Dialer, EgressProxy, RunAuthority, SecretSource, serve_egress
from ostiary.run.egress import NOT_HIDDEN, forbid_dumps, upstream_tls
from ostiary.run.enlist import egress_uri
from ostiary.run.events import Listener
from ostiary.run.gate import Gate
from ostiary.run.output import RunOutput
from ostiary.run.plan import Plan

egress = App(name="egress", help="Put secrets into the requests of agents that do not see the secrets.")


@egress.command(name="add")
def add_destination(
    name: str,
    /,
    *,
    origin: str,
    secret: str,
    header: str | None = None,
    query: str | None = None,
    body: str | None = None,
    scopes: str | None = None,
    private: bool = False,
    session: Here,
) -> None:
    """Create the destination of a secret: the server that owns the secret, and the place of the secret in requests.

    Give one of --header, --query and --body. Without them, the proxy replaces only the placeholder `OSTIARY:NAME`,
    which the agent writes into a request, by the secret.

        ostiary egress add github --origin https://api.github.com --secret secret/shared/github#token \\
            --header 'Authorization: Bearer {secret}'

    Args:
        name: Name of the destination, as in the placeholder `OSTIARY:NAME`.
        origin: Origin of the server that owns the secret: https://HOST[:PORT].
        secret: PATH or PATH#MEMBER of a stored secret or of a secret of a back end; or oauth/creds/PROVIDER: an access
            token of the account that the person of the task connected.
        header: `NAME: TEMPLATE`, a header that each request gets; `{secret}` in the template stands for the value of
            the secret, `{base64}` for the value in base64.
        query: `NAME=TEMPLATE`, a parameter of the query that each request gets.
        body: `NAME=TEMPLATE`, a member of the JSON object or of the form in the body of each request.
        scopes: Scopes of the access token of a connected account, separated by spaces; by default, all consented
            scopes.
        private: The server may have private addresses; otherwise the proxy does not connect to them.
    """
    texts = [
        (place, text) for place, text in (("header", header), ("query", query), ("body", body)) if text is not None
    ]
    if len(texts) > 1:
        raise Usage("more than one place is given for the secret", hint="give one of --header, --query and --body")
    if scopes is not None and not scopes.split():
        raise Usage("`--scopes` is empty", hint="name a scope, or leave out --scopes for all consented scopes")
    place, field, template = "placeholder", "", PLAIN
    if texts:
        [(place, text)] = texts
        example = "Authorization: Bearer {secret}" if place == "header" else "key={secret}"
        field, sign, template = (part.strip() for part in text.partition(":" if place == "header" else "="))
        if not (field and sign):
            raise Usage(f"--{place} is not NAME and TEMPLATE", hint=f"--{place} '{example}'")
    path, _, member = secret.partition("#")
    new: dict[str, Any] = {"name": name, "origin": parse_origin(origin), "private": private}
    new |= {"place": place, "field": field, "template": template or PLAIN, "secret": path, "member": member}
    new |= {"scopes": (scopes or "").split()}
    session.show(session.api("POST", "/secrets/destinations", new), lambda row: facts(_row(row)))


@egress.command(name="list")
def list_destinations(*, session: Here) -> None:
    """List the destinations of secrets."""
    columns = {"name": "NAME", "origin": "ORIGIN", "place": "PLACE", "field": "FIELD", "secret": "SECRET"}
    empty = "no destinations: ostiary egress add NAME --origin URL --secret PATH"
    rows = session.pages("/secrets/destinations", "destinations")
    session.show(rows, lambda rows: table(rows, columns, empty=empty))


@egress.command(name="remove")
def remove_destination(name: str, /, *, session: Here) -> None:
    """Remove a destination: its secret is put into no further request. The stored secret stays.

    Args:
        name: Name of the destination.
    """
    shown = {"destination": name, "state": "removed"}
    session.show(session.api("DELETE", f"/secrets/destinations/{name}"), lambda _: facts(shown))


@egress.command(name="serve")
def serve_proxy(
    *,
    as_: Path,
    guard: Path,
    ca_out: Path,
    listen: str = "127.0.0.1:8702",
    purpose: str | None = None,
    bounds: Path | None = None,
    on_behalf_of: str | None = None,
    allow_private: tuple[str, ...] = (),
    upstream_ca: Path | None = None,
    session: Here,
) -> None:
    """Run an egress proxy for an agent that is started elsewhere, such as in a container.

    Prints the URL for HTTPS_PROXY, and writes the certificate that the agent must trust. `ostiary run --egress` does
    all of this for a command. To hide the keys of the proxy and of the administrator from programs of the same user,
    give both in descriptors, which the proxy closes: OSTIARY_CREDENTIAL=/dev/fd/4 and --guard /dev/fd/3, with
    3< KEYFILE 4< ADMINFILE. Runs until Ctrl-C.

    Args:
        as_: Credential of the agent.
        guard: Credential of the proxy: the key of the resource http://localhost/egress/AGENT.
        ca_out: File to which the proxy writes the certificate of its authority (PEM), for SSL_CERT_FILE of the agent.
        listen: HOST:PORT on which the proxy listens; for port 0, the system chooses a free port.
        purpose: Declare a task with this purpose, instead of the standing task.
        bounds: JSON file of authorization_details that bound the task.
        on_behalf_of: Name of the person for whom the task is, whose connected accounts the agent then uses.
        allow_private: Host whose private addresses the agent may reach; may be given several times.
        upstream_ca: File of certificate authorities (PEM) that the proxy trusts for servers, besides the system's.
    """
    place, credential = Listen.parse(listen), load_key(as_)
    if place.socket is not None:
        raise Usage("programs use a proxy at HOST:PORT", hint="name host and port: --listen 127.0.0.1:8702")
    is_sealed = forbid_dumps()
    with (
        run_folder("ostiary-egress-") as folder,
        declared_task(credential, session.url, purpose=purpose, bounds=bounds, on_behalf_of=on_behalf_of) as task,
    ):
        name = session.api("GET", f"/agents/{credential.client_id}")["name"]
        events = folder / "events"
        listener = Listener(events)
        plan = Plan(
            server="egress",
            agent=str(as_),
            guard=str(guard),
            uri=egress_uri(name),
            spool=str(as_.with_suffix(".spool")),
            mode=str(as_.with_suffix(".egress-mode")),
            url=session.url,
            task=task,
            events=str(events),
        )
        gate, output = Gate(plan), RunOutput(name, quiet=False)
        _warn_of_readers(output, (guard, session.credential), is_sealed=is_sealed)
        capability, authority = b64u(ambient.random(18)), RunAuthority()
        ca_out.write_bytes(authority.pem)
        dialer = Dialer(upstream_tls(upstream_ca), allow_private)
        proxy = EgressProxy(gate, SecretSource(gate), dialer, authority, capability=capability, alarm=output.warn)
        say = partial(_print_address, capability=capability, ca=ca_out, as_json=session.as_json)
        gate.start()
        with closing(gate), output.print_events(listener, Names(session), task=task):
            asyncio.run(_serve(proxy, place, say))


def _warn_of_readers(output: RunOutput, keys: Iterable[Path], *, is_sealed: bool) -> None:
    """Close the descriptors among `keys`, and print a warning if the user of this process can read a key from a file or
    from the memory of this process. `is_sealed`: other processes cannot read the memory.
    """
    readable = [str(key) for key in keys if not _close_descriptor(key)]
    if readable or not is_sealed:
        place = " and ".join(readable) or "the memory of the proxy"
        output.warn(f"secrets are {NOT_HIDDEN} if the agent runs as this user, who can read {place}")


def _print_address(at: Listen, *, capability: str, ca: Path, as_json: bool) -> None:
    """Print the URL for HTTPS_PROXY."""
    url = f"http://ostiary:{capability}@{at.host}:{at.port}"
    if as_json:
        print(json.dumps({"url": url, "ca": str(ca)}), flush=True)
    else:
        out.print(f"ready {url}", markup=False, soft_wrap=True)


async def _serve(proxy: EgressProxy, listen: Listen, say: Callable[[Listen], None]) -> None:
    """Serve until a signal ends it."""
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    with suppress(asyncio.CancelledError):
        await serve_egress(proxy, listen, ready=say)


def _close_descriptor(path: Path) -> bool:
    """Close the file descriptor that a path such as /dev/fd/3 names; return whether the path names one."""
    match = DESCRIPTOR.fullmatch(str(path))
    if match is None:
        return False
    os.close(int(match[1]))
    return True


def _row(row: dict[str, Any]) -> dict[str, Any]:
    return row | {"scopes": " ".join(row["scopes"]), "created_at": f"{moment(row['created_at'])}Z"}
