"""`ostiary serve`: one process, from the socket to the database.

Prints `ready http://HOST:PORT` (or `https`) when the server answers, then the version, the place of the administrator's
credential, and the next command. The first start creates the keys and `admin.json` (0600).
"""

from __future__ import annotations

import asyncio
import errno
import gc
import json
import logging
import os
import re
import signal
import socket
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from email.utils import formatdate
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import msgspec
import uvicorn
from cyclopts import Parameter

from ostiary.protocol import canonical, jose
from ostiary.protocol.errors import Conflict, Invalid, Malformed, NotFound, Refused, Unavailable
from ostiary.protocol.network import network_of
from ostiaryd.app import LOOPS, STATUS_ROUTES, Application, build_app
from ostiaryd.certs import flows as certs
from ostiaryd.ground.config import Config, load_config
from ostiaryd.ground.database.folder import lock_folder
from ostiaryd.ground.http.acceptor import Acceptor
from ostiaryd.ground.http.connections import Connections
from ostiaryd.ground.http.protocol import Protocol
from ostiaryd.ground.http.tls import Admitted, Certificate
from ostiaryd.ground.process import descriptors
from ostiaryd.ground.process.clock import wall_clock
from ostiaryd.ground.process.ids import new_id
from ostiaryd.ground.process.limits import check_addresses, forbid_dumps
from ostiaryd.ground.process.log import Format, log_to
from ostiaryd.ground.world import World, open_world
from ostiaryd.incidents.flows import pages, state
from ostiaryd.ledger import flows as ledger
from ostiaryd.ledger.flows import act
from ostiaryd.policy import flows as policy
from ostiaryd.policy.flows.external_pdp import check_at_start
from ostiaryd.registry import flows as registry
from ostiaryd.trust import flows as trust
from ostiaryd.trust.flows.setup import DEFAULT_HOURS, create_setup_link

if TYPE_CHECKING:
    from ostiaryd.ground.http.grpc import GrpcServer

log = logging.getLogger("ostiary")

MAX_CREDENTIAL_BYTES = 64 << 10


def serve(
    *,
    listen: str | None = None,
    database: str | None = None,
    config: Path | None = None,
    trust_domain: str | None = None,
    public_url: str | None = None,
    tls: Literal["auto"] | None = None,
    tls_cert: Path | None = None,
    tls_key: Path | None = None,
    mtls_listen: str | None = None,
    workload_socket: Path | None = None,
    starter_policies: Annotated[bool, Parameter(negative=())] = False,
    log_format: Format = "text",
    session: Annotated[Any, Parameter(parse=False)],
) -> None:
    """Run the server.

    Args:
        listen: HOST:PORT; port 0 takes a free port, and the same port again at the next start.
        database: sqlite:///PATH or postgresql://USER@HOST/NAME; by default, a file in the data folder.
        config: TOML file; docs/reference/configuration.md lists the keys.
        trust_domain: Name of the trust domain; fixed at the first start.
        public_url: URL that clients use, and the issuer; fixed at the first start.
        tls: `auto` takes the certificate from the server's own authority; clients trust `ca.pem` in the data folder.
        tls_cert: PEM file of the certificate and its chain, for TLS 1.2 and 1.3. Read again when it changes.
        tls_key: PEM file of the private key of the certificate.
        mtls_listen: HOST:PORT of a second listener, which asks clients for certificates (mutual TLS, RFC 8705).
        workload_socket: Unix socket of the SPIFFE Workload API, which gives processes of this machine their SVIDs.
        starter_policies: Activate the starter policies first; for a server whose active policies let no administrator
            in.
        log_format: Form of the lines on standard error: readable `text`, or `json`.
    """
    log_to(sys.stderr, log_format)
    forbid_dumps()
    check_addresses()
    loaded = load_config(
        config,
        data_dir=str(session.data_dir) if session.data_dir is not None else None,
        listen=listen,
        database=database,
        trust_domain=trust_domain,
        public_url=public_url,
        tls=tls,
        tls_cert=str(tls_cert) if tls_cert is not None else None,
        tls_key=str(tls_key) if tls_key is not None else None,
        mtls_listen=mtls_listen,
        workload_socket=str(workload_socket.absolute()) if workload_socket is not None else None,
    )
    if loaded.tls_cert:  # a wrong one is refused before anything is created
        Certificate(Path(loaded.tls_cert), Path(loaded.tls_key))
    os.umask(0o077)  # only this user may read the files of the data folder
    with ExitStack() as stack:
        stack.enter_context(lock_folder(loaded.folder, now=wall_clock()))
        sockets = [stack.enter_context(_bind(loaded, loaded.listen, listener="url"))]
        addresses = {"listen": _address(sockets[0])}
        for name, listener in (("mtls_listen", "mtls_url"), ("status_listen", "status_url")):
            if address := getattr(loaded, name):
                sockets.append(stack.enter_context(_bind(loaded, address, listener=listener)))
                addresses[name] = _address(sockets[-1])
        if not any((loaded.folder / name).exists() for name in ("server.json", FIRST_START)):
            _write_json(loaded.folder / FIRST_START, _list_urls(msgspec.structs.replace(loaded, **addresses)))
        uvicorn_loop = uvicorn.Config(app=lambda: None, loop="auto").get_loop_factory()
        runner = stack.enter_context(asyncio.Runner(loop_factory=uvicorn_loop))
        serving = msgspec.structs.replace(loaded, **addresses)
        runner.run(_run(serving, sockets, starter_policies=starter_policies))


FIRST_START = "first-start.json"
"""File of a first start that has not said `ready` yet: the URLs of its listeners, so that a repeated start takes the
same ports, and `invites` once an administrator may be registered whose setup link was not shown.
"""
_PORT = re.compile(r"[0-9]{1,5}")


def _list_urls(config: Config) -> dict[str, Any]:
    """Return the URLs of the listeners, as `server.json` has them."""
    urls = {"url": config.own_url}
    if config.mtls_listen:
        urls["mtls_url"] = f"https://{config.mtls_listen}"
    if config.status_listen:
        urls["status_url"] = f"http://{config.status_listen}"
    return urls


def _write_json(path: Path, value: dict[str, Any]) -> None:
    """Write a JSON file whole or not at all, even if the process is killed or the power fails."""
    partial = path.with_suffix(".partial")
    with partial.open("w") as file:
        json.dump(value, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def _address(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _bind(config: Config, address: str, *, listener: str) -> socket.socket:
    """Return a listening socket for an address. `listener` is the member of `server.json` with the URL at the last
    start.
    """
    host, _, port_text = address.rpartition(":")
    if not host or not _PORT.fullmatch(port_text) or int(port_text) > 65535:
        raise Invalid(f"`{address}` is not HOST:PORT", hint="write an address such as 127.0.0.1:8700", code="usage")
    port = int(port_text) or _port_of_last_start(config, listener)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host.strip("[]"), port))
    except OSError as error:
        sock.close()
        is_taken = error.errno == errno.EADDRINUSE
        hint = f"stop the program that listens on {host}:{port}" if is_taken else "use another address"
        raise Unavailable(f"cannot listen on {host}:{port}: {error.strerror}", hint=hint) from None
    return sock


MAX_REFUSALS = 16
"""Maximum number of refused handshakes that wait to be recorded. Further refusals are not recorded."""
GARBAGE = 2_000_000
"""Number of new objects from which garbage is collected even under load. A collection takes 0.3 to 1 µs per object. A
flood at the limit of connections makes 500,000.
"""


def _port_of_last_start(config: Config, listener: str) -> int:
    """Return the port of a listener at the last start, because the issuer contains it; 0 at the first start."""
    for name in ("server.json", FIRST_START):
        if (last := _read_json(config.folder / name)) is not None:
            port = str(last.get(listener, ":0")).rpartition(":")[2]
            if not _PORT.fullmatch(port) or int(port) > 65535:
                raise _damaged(config.folder / name)
            return int(port)
    return 0


def _read_json(path: Path) -> dict[str, Any] | None:
    """Return the object in a JSON file of an earlier start; None without the file. Raises Invalid if the file is
    damaged.
    """
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise _damaged(path)
    return value


def _damaged(path: Path) -> Invalid:
    return Invalid(
        f"{path} is damaged: it must have the URLs of an earlier start",
        hint="delete the file, and start with the port that clients use: --listen HOST:PORT",
    )


async def _run(config: Config, sockets: list[socket.socket], *, starter_policies: bool) -> None:
    async with open_world(config) as world:
        await ledger.check_history(world)
        world.db.check_after_loss(partial(ledger.check_after_loss, world))
        setup = await _bootstrap(world)
        await world.writer.rebuild()
        if starter_policies:
            await act(world, "policy.activate", policy.activate_starter)
        await check_at_start(world)
        await pages.check_pages_at_start(world)
        await state.check_at_start(world)
        workload_api = _open_workload_api(world)
        await certs.renew_tls_at_start(world)
        server = _Server(world, setup)
        gc.collect()
        gc.freeze()  # objects of the start are kept forever; searching them again would delay requests
        gc.set_threshold(GARBAGE)
        loops = [asyncio.create_task(loop(world)) for loop in LOOPS]
        try:
            await server.serve(sockets=sockets)
        finally:
            if workload_api is not None:
                await workload_api.close()
            for task in loops:
                task.cancel()
            await asyncio.gather(*loops, return_exceptions=True)
        if world.db.loss is not None:  # the last error of the process is the reason why no request was answered
            raise world.db.loss


def _open_workload_api(world: World) -> GrpcServer | None:
    """Serve the Workload API if the configuration names its socket; return the server, or None. Raises Invalid if a
    Python module is missing or the path of the socket cannot be used, Unavailable if the server cannot listen there.
    """
    if not world.config.workload_socket:
        return None
    try:
        from ostiaryd.certs.wire_workload_api import open_workload_api  # h2 is an extra
    except ModuleNotFoundError as error:
        raise Invalid(
            f"the Workload API needs the module `{error.name}`", hint='pip install "ostiary[server,workload]"'
        ) from None
    return open_workload_api(world, Path(world.config.workload_socket))


class _ServerState(uvicorn.server.ServerState):
    """The state of uvicorn, with the server's time in the `Date` of each response.

    uvicorn sets `Date` once per second by the wall clock. A client that is refused just after the time was confirmed
    would then adjust its clock by a wrong time.
    """

    def __init__(self, now: Callable[[], int]) -> None:
        self._now = now
        self._second = 0
        self._headers: list[tuple[bytes, bytes]] = []
        super().__init__()

    @property
    def default_headers(self) -> list[tuple[bytes, bytes]]:
        second = self._now() // 1_000_000
        if second != self._second:
            self._second = second
            self._headers = [(b"date", formatdate(second, usegmt=True).encode())]
        return self._headers

    @default_headers.setter
    def default_headers(self, headers: list[tuple[bytes, bytes]]) -> None:
        """Ignore the headers that uvicorn sets: `Date` is the only common header of responses."""


class _Server(uvicorn.Server):
    """The uvicorn server. It prints `ready` when it accepts requests."""

    def __init__(self, world: World, setup: str | None) -> None:
        self._setup = setup
        config = world.config
        self._descriptors = descriptors.raise_limit()
        connections = Connections(
            of_address=config.anonymous_connections,
            in_all=descriptors.most_anonymous(self._descriptors),
            proxies=config.proxy_networks,
        )
        self._turns = connections.turns
        world.writer.has_arrival = connections.turns.arrivals.has_new
        self._refusals = set[asyncio.Task[None]]()
        super().__init__(_configure(build_app(world), connections))
        self._status_config = _configure(build_app(world, STATUS_ROUTES), connections)
        self._status_config.load()
        self.server_state = _ServerState(world.now)
        self._world = world
        self._most_connections = descriptors.most_connections(self._descriptors)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """End with exit code 0 on SIGINT and SIGTERM. Without this, uvicorn would end the process by the signal."""
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, self.handle_exit, number, None)
        yield

    async def on_tick(self, counter: int) -> bool:
        """Close idle connections if more than three quarters of the descriptors are in use, and close connections of
        clients that send too slowly.
        """
        opened = cast(Iterable[Protocol], self.server_state.connections)
        for one in descriptors.select_idle(opened, most=self._most_connections):
            one.close_idle()
        if counter % 10 == 0:
            now = asyncio.get_running_loop().time()
            for connection in list(self.server_state.connections):
                cast(Protocol, connection).close_if_slow(now)
        return await super().on_tick(counter)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup([])  # uvicorn itself listens on none of the sockets
        config, db = self._world.config, self._world.db
        certificates = [self._open_certificate(None)]
        if config.mtls_listen:
            admitted = Admitted(
                lambda: trust.list_admitted_digests(db.read()), lambda: trust.list_admitted_certificates(db.read())
            )
            certificates.append(self._open_certificate(admitted))
        makers = [partial(self._make_protocol, self.config)] * len(certificates)
        if config.status_listen:
            certificates.append(None)
            makers.append(partial(self._make_protocol, self._status_config))
        most_unopened = descriptors.most_unopened(self._descriptors, listeners=len(certificates))
        self._acceptors = [
            Acceptor(
                sock,
                make,
                certificate,
                turns=self._turns,
                most_unopened=most_unopened,
                note_refusal=self._note_refused_certificate,
            )
            for sock, make, certificate in zip(sockets or (), makers, certificates, strict=True)
        ]
        url = config.own_url
        described = _list_urls(config) | {"issuer": config.issuer, "pid": os.getpid()}
        _write_json(config.folder / "server.json", described)
        print("\n".join([f"ready {url}", *_describe(config, url, self._setup)]), flush=True)
        (config.folder / FIRST_START).unlink(missing_ok=True)

    def _open_certificate(self, admitted: Admitted | None) -> Certificate | None:
        """Return the TLS certificate of a listener; None without TLS. Raises Invalid for unreadable files."""
        config = self._world.config
        if config.tls == "auto":
            files = certs.tls_files(config)
            password = partial(certs.tls_password, self._world.keys)
            return Certificate(files.certificate, files.key, admitted=admitted, password=password)
        if config.tls_cert:
            return Certificate(Path(config.tls_cert), Path(config.tls_key), admitted=admitted)
        return None

    def _note_refused_certificate(self, address: str, why: str) -> None:
        """Record the entry of a refused handshake, unless `MAX_REFUSALS` entries wait to be written."""
        if len(self._refusals) < MAX_REFUSALS:
            task = asyncio.get_running_loop().create_task(self._leave_refusal(address, why))
            self._refusals.add(task)
            task.add_done_callback(self._refusals.discard)

    async def _leave_refusal(self, address: str, why: str) -> None:
        with suppress(Refused):  # the entry is what the act is for
            refuse = partial(trust.refuse_handshake, why=why)
            await act(self._world, "client.handshake", refuse, network=network_of(address))

    def _make_protocol(self, config: uvicorn.Config, is_expected: bool) -> asyncio.Protocol:
        return config.http_protocol_class(  # type: ignore[call-arg]
            config=config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
            is_expected=is_expected,
        )

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for acceptor in self._acceptors:
            acceptor.close()
        for connection in list(self.server_state.connections):
            cast(Protocol, connection).close_if_streaming()
        await super().shutdown(sockets)


def _configure(app: Application, connections: Connections) -> uvicorn.Config:
    """Return the configuration of uvicorn for the application of a listener."""
    return uvicorn.Config(
        app,
        http=partial(Protocol, app.router.find_target, connections),  # type: ignore[arg-type]  # it is only called
        ws="none",
        lifespan="off",
        log_config=None,  # uvicorn logs to the same stream
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=2,
    )


def _describe(config: Config, url: str, setup: str | None) -> list[str]:
    """Return the lines for the operator: version, address, credential, setup link (first start), and a command."""
    return [
        f"  version     {version('ostiary')}",
        f"  address     {url}" + (f", public {config.issuer}" if config.issuer != url else ""),
        *([f"  mutual TLS  {config.mtls_base}"] if config.mtls_listen else []),
        *([f"  status      {config.status_base}"] if config.status_listen else []),
        *([f"  workloads   unix://{config.workload_socket}"] if config.workload_socket else []),
        *([f"  authority   {certs.tls_files(config).roots} (clients trust it: SSL_CERT_FILE)"] if config.tls else []),
        f"  credential  {config.folder / 'admin.json'} (administrator)",
        *([] if setup is None else [f"  sign in     {setup} (once, within {DEFAULT_HOURS} hours)"]),
        f"  next        ostiary doctor --data-dir {config.folder}",
    ]


async def _bootstrap(world: World) -> str | None:
    """Register the administrator at the first start; return the setup link of the person `admin`. A start after a
    first start that was killed before it showed a link returns a new one.

    The credential is on disk before the key is registered. Raises Invalid for a damaged `admin.json`.
    """
    first = world.config.folder / FIRST_START
    if registry.has_agents(world.db.read()):
        if "invites" in (_read_json(first) or {}):
            with suppress(NotFound, Conflict):  # another server of the database has removed the person
                return await _invite_admin(world)
        return None
    path = world.config.folder / "admin.json"
    if not path.exists():
        partial = path.with_suffix(".partial")
        partial.unlink(missing_ok=True)  # of a start that was killed
        agent_id = new_id("ag", now=world.now(), random=world.random)
        credential = {**jose.generate("ES256").jwk(), "client_id": agent_id, "issuer": world.config.issuer}
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(canonical.encode(credential))
            file.flush()
            os.fsync(file.fileno())
        partial.rename(path)
    try:
        stored: Any = canonical.parse(path.read_bytes(), max_bytes=MAX_CREDENTIAL_BYTES)
        public, agent_id = jose.parse_private_jwk(stored).public.jwk, str(stored.get("client_id", ""))
    except (Malformed, Invalid) as error:
        raise Invalid(
            f"{path} is not the credential of an administrator: {error.message}",
            hint="no administrator is registered yet: delete the file, and start again",
        ) from None
    _write_json(first, _list_urls(world.config) | {"invites": True})
    await act(world, "server.bootstrap", lambda a: registry.bootstrap_admin(a, agent_id=agent_id, public_jwk=public))
    return await _invite_admin(world)


async def _invite_admin(world: World) -> str:
    """Return a new setup link of the person `admin`, which replaces an earlier one. Raises NotFound if that person does
    not exist, Conflict if the person may not sign in.
    """
    link = await act(world, "person.invite", lambda a: create_setup_link(a, "admin", config=world.config))
    return link.url
