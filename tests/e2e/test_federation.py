"""Two servers that federate by `https_spiffe` in both directions, and go-spiffe as a client of the bundle endpoint."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx2
import pytest

from harness.client_certificates import context_of
from harness.live_server import ServerFixture
from harness.prepared import PreparedServer
from tests.support.workload_clients import EXECUTABLE, build_go, needs_go

GO_CLIENT = Path(__file__).with_name("federation_client.go")
NAMES = ONE, TWO = "one.example", "two.example"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("federation")


@pytest.fixture(scope="module")
def servers(folder: Path) -> Iterator[dict[str, ServerFixture]]:
    """Servers of two trust domains. Neither trusts the certificate of the other. Files have the bundle of each."""
    with ExitStack() as stack, pytest.MonkeyPatch.context() as environment:
        environment.setenv("OSTIARY_PRIVATE_HOSTS", "localhost")
        started = [stack.enter_context(PreparedServer(folder / n, "--tls", "auto", "--trust-domain", n)) for n in NAMES]
        authorities = folder / "authorities.pem"
        authorities.write_bytes(b"".join((server.folder / "ca.pem").read_bytes() for server in started))
        environment.setenv("SSL_CERT_FILE", str(authorities))
        made = {n: stack.enter_context(ServerFixture(one, folder)) for n, one in zip(NAMES, started, strict=True)}
        for name, live in made.items():
            agent, _ = live.agent()
            live.server.ostiary("agent", "workload", "add", agent, "--uid", str(os.getuid()), "--path", EXECUTABLE)
            answer = httpx2.get(f"{live.server.url}/spiffe/bundle", verify=context_of(authorities))
            (folder / f"{name}.json").write_bytes(answer.content)
        yield made


def url_of(live: ServerFixture) -> str:
    """The URL of the bundle endpoint, by a name that is not public and that the servers are opened for."""
    return f"{live.server.url}/spiffe/bundle".replace("127.0.0.1", "localhost")


def test_each_server_fetches_the_bundle_of_the_other_by_its_spiffe_id(
    servers: dict[str, ServerFixture], folder: Path
) -> None:
    for name, other in ((ONE, TWO), (TWO, ONE)):
        live, url = servers[name], url_of(servers[other])
        by_host = live.api("POST", "/trust-domains", {"name": other, "bundle_url": url})
        assert (by_host["sequence"], by_host["failed"]) == (None, "the remote server cannot be reached: ConnectError")
        live.server.ostiary("trust-domain", "remove", other)
        first = ("--bundle", str(folder / f"{other}.json"))
        wrong = ("--endpoint-spiffe-id", f"spiffe://{other}/agent/mallory")
        refused = live.server.ostiary("trust-domain", "add", other, "--bundle-url", url, *wrong, *first)
        assert "does not present the SPIFFE ID" in refused["failed"]
        assert refused["refreshed_at"] is None
        live.server.ostiary("trust-domain", "remove", other)
        endpoint = ("--endpoint-spiffe-id", f"spiffe://{other}/server")
        added = live.server.ostiary("trust-domain", "add", other, "--bundle-url", url, *endpoint, *first)
        assert (added["failed"], added["authorities"], added["jwt_keys"]) == ("", 1, 1)
        assert added["refreshed_at"] is not None


@needs_go
def test_go_spiffe_fetches_the_bundle_by_the_spiffe_id(servers: dict[str, ServerFixture], folder: Path) -> None:
    fetch = build_go(GO_CLIENT, folder / "fetch")
    url, first = url_of(servers[ONE]), str(folder / f"{ONE}.json")
    assert fetch(ONE, url, f"spiffe://{ONE}/server", first) == "1 1 5m0s\n"
    assert fetch(ONE, url, f"spiffe://{ONE}/agent/mallory", first) == "refused\n"
    assert fetch(TWO, url, f"spiffe://{TWO}/server", str(folder / f"{TWO}.json")) == "refused\n"
