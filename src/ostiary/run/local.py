"""Local proxies of `ostiary run`: one in front of each remote MCP server and HTTP API of an agent, in one thread.

A proxy listens on a free port of the loopback interface. Its URL has a random path that only the agent receives.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import threading
from collections.abc import Callable, Collection
from concurrent.futures import Future
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from ostiary import ambient
from ostiary.protocol.errors import Refused
from ostiary.protocol.jose import b64u
from ostiary.proxy import Entrance, Listen, Upstream, serve
from ostiary.proxy.egress import Dialer, EgressProxy, RunAuthority, SecretSource, serve_egress
from ostiary.proxy.egress.masking import Masks
from ostiary.proxy.egress.strictness import Authority
from ostiary.proxy.guarded import GuardedUpstream, SseUpstream
from ostiary.proxy.guarded_http import GuardedHttpUpstream, table_of
from ostiary.run.configs import Server, expand
from ostiary.run.gate import Gate, stored_mode
from ostiary.run.plan import Plan

log = logging.getLogger("ostiary.run")
START_S = 10.0


class LocalServers:
    """The local proxies of one run of an agent, in front of its MCP servers and APIs. The end of the `with` block stops
    the proxies, and sends the remaining records of their guards to the server.
    """

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="ostiary-http", daemon=True)
        self._proxies = list[Future[None]]()
        self._upstreams = list[Upstream]()
        self._gates = list[Gate]()
        self._guarded = list[Authority]()
        self._masks = Masks()

    def __enter__(self) -> LocalServers:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for proxy in self._proxies:
            proxy.cancel()
        for upstream in self._upstreams:
            asyncio.run_coroutine_threadsafe(upstream.close(), self._loop).result(START_S)
        for gate in self._gates:
            gate.close()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(START_S)
        self._loop.close()

    def open(self, server: Server, plan: Plan, *, alarm: Callable[[str], None]) -> str:
        """Start the proxy of a server, and return its URL. Raises Refused if the guard cannot be created.

        If the guard cannot be created in mode `watch`, return the server's own URL, and report with `alarm` that the
        server has no guard.
        """
        url = expand(server.url or "", ambient.environment())
        try:
            gate = Gate(plan)
        except Refused as refusal:
            if stored_mode(Path(plan.mode)) != "watch":
                raise
            alarm(f"no guard for `{server.name}`: {refusal.message}; mode `watch`: nothing is recorded")
            return url
        gate.secrets = self._masks
        capability = b64u(ambient.random(18))
        upstream = _upstream(server, url, gate, capability)
        gate.start()
        self._gates.append(gate)
        self._upstreams.append(upstream)
        ready = Future[str]()
        entrance = Entrance(Listen("127.0.0.1", 0), capability)
        self._proxies.append(
            asyncio.run_coroutine_threadsafe(
                serve(entrance, upstream, ready=lambda at: ready.set_result(at.base)), self._loop
            )
        )
        base = ready.result(START_S)
        port = urlsplit(base).port
        assert port is not None
        self._guarded.append(Authority("127.0.0.1", port))
        return base

    def open_egress(
        self, plan: Plan, *, tls: ssl.SSLContext, private: Collection[str], alarm: Callable[[str], None]
    ) -> EgressAddress:
        """Start the egress proxy, and return its address. Call this after the last `open`: requests to local proxies
        that were opened before are forwarded without a decision. Raises Refused if the guard cannot be created.
        """
        gate = Gate(plan)
        capability, ready = b64u(ambient.random(18)), Future[Listen]()
        authority = RunAuthority()
        proxy = EgressProxy(
            gate, SecretSource(gate, self._masks), Dialer(tls, private), authority, capability=capability, alarm=alarm
        )
        proxy.open_origins = frozenset(self._guarded)
        gate.start()
        self._gates.append(gate)
        listen = Listen("127.0.0.1", 0)
        self._proxies.append(
            asyncio.run_coroutine_threadsafe(serve_egress(proxy, listen, ready=ready.set_result), self._loop)
        )
        at = ready.result(START_S)
        return EgressAddress(f"http://ostiary:{capability}@{at.host}:{at.port}", authority.pem)


class EgressAddress(NamedTuple):
    """The URL of an egress proxy with its password, and the certificate of its certificate authority."""

    url: str
    ca_pem: bytes

    def __repr__(self) -> str:
        """Return a text about the address without the password."""
        return "EgressAddress(..)"


def _upstream(server: Server, url: str, gate: Gate, capability: str) -> Upstream:
    """Return the connection of the proxy to its server. Raises Invalid if `url` is not an http or https URL."""
    if server.is_api:
        return GuardedHttpUpstream(url, gate, table_of(server.document))
    if server.is_sse(url):
        return SseUpstream(url, gate, prefix=f"/{capability}")
    return GuardedUpstream(url, gate)
