"""The page about connected accounts: its commands, with a real authorization server and a played browser."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import httpx2
import pytest

from harness.patience import PATIENCE_S, eventually
from harness.person_browser import PersonBrowser
from harness.server import running
from ostiaryd.secrets.model.connected_account import PRESETS
from tests.docs.page_script import is_in, run_script, script
from tests.support.node import serving_provider
from tests.support.token_provider import BASIC, CLIENT, SECRET

PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "connected-accounts.md"


def test_the_page_has_a_row_for_each_preset_and_names_the_providers_with_one_shared_token() -> None:
    page = PAGE.read_text("utf-8")
    assert set(re.findall(r"--preset ([a-z0-9_-]+)", page)) == PRESETS.keys() - {""}
    (named,) = re.findall(r"^(.+) end the present access token of an account", page, re.MULTILINE)
    assert named.split(" and ") == [one.label for one in PRESETS.values() if one.shares_tokens]


@contextmanager
def provider(redirect_uri: str) -> Iterator[str]:
    """The issuer of npm's `oidc-provider` with one client."""
    client = {"client_id": CLIENT, "client_secret": SECRET, "redirect_uris": [redirect_uri]}
    with serving_provider("account-provider.mjs", {"clients": [client], "accounts": ["u-ann"]}) as (port,):
        yield f"http://127.0.0.1:{port}"


def confirm(url: str, home: str) -> str:
    """Follow the provider's redirects as a browser does; the URL that leads back."""
    jar: dict[str, str] = {}
    with httpx2.Client(timeout=PATIENCE_S) as browser:
        for _ in range(8):
            if url.startswith(home):
                return url
            header = "; ".join(f"{name}={value}" for name, value in jar.items())
            answer = browser.get(url, headers={"cookie": header} if header else {})
            for cookie in answer.headers.get_list("set-cookie"):
                name, _, value = cookie.partition(";")[0].partition("=")
                jar[name] = value
            assert answer.status_code in (302, 303), answer.text
            url = urljoin(url, answer.headers["location"])
    raise AssertionError("the browser is sent around in circles")


@contextmanager
def notes_api(issuer: str) -> Iterator[str]:
    """An API that asks the provider about the token of each request."""

    class Api(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = scope_of(issuer, self.headers.get("authorization", "").removeprefix("Bearer ")) == "notes:read"
            self.send_response(200 if known else 401)
            self.end_headers()
            self.wfile.write(b"two notes\n" if known else b"who are you?\n")

    with ThreadingHTTPServer(("127.0.0.1", 0), Api) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def is_live(issuer: str, token: str) -> bool:
    """Return whether the provider accepts an access token."""
    return bool(scope_of(issuer, token))


def scope_of(issuer: str, token: str) -> str:
    """Return the scope of an access token that the provider accepts, with spaces between; empty for another one."""
    answer = httpx2.post(f"{issuer}/token/introspection", data={"token": token}, headers={"authorization": BASIC})
    assert answer.status_code == 200, answer.text
    said = answer.json()
    return str(said["scope"]) if said["active"] else ""


@pytest.mark.slow
def test_the_commands_of_the_page_give_the_documented_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text, wanted = script([PAGE.read_text("utf-8").replace("```cedar", "```")])
    blocks = re.split(r"^echo '=== \d+'\n", text, flags=re.MULTILINE)[1:]
    assert (len(blocks), len(wanted)) == (6, 5)
    monkeypatch.setenv("OSTIARY_PRIVATE_HOSTS", "127.0.0.1")
    (tmp_path / "client-secret").write_text(SECRET + "\n")
    with running(tmp_path / "data") as server:
        home = f"http://localhost:{urlsplit(server.url).port}"
        with (
            provider(f"{home}/accounts/notes/callback") as issuer,
            notes_api(issuer) as api,
            PersonBrowser(server.url) as browser,
        ):
            settings = {
                "OSTIARY_DATA_DIR": str(server.folder),
                "COLUMNS": "200",
                "ISSUER": issuer,
                "NOTES_API": api,
            }

            def run(number: int) -> None:
                printed = run_script(blocks[number - 1], tmp_path, **settings)
                for at, lines in wanted:
                    assert at != number or is_in(lines, printed), f"wanted:\n{lines}\nsaid:\n{printed}"

            server.ostiary("person", "create", "ann", "--email", "ann@example.org")
            browser.set_up(server.ostiary("person", "invite", "ann")["url"])
            run(1)
            browser.get("/accounts/notes")
            browser.submit("/accounts/notes")
            browser.get(confirm(browser.left_to, home))
            run(2)
            run(3)
            run(4)
            token = (tmp_path / "token.txt").read_text()
            assert is_live(issuer, token)
            run(5)
            run(6)
            run(4)  # the refresh token was rotated, and is in force
            browser.get("/accounts")
            browser.submit("/accounts/notes/end")
            eventually(lambda: not server.ostiary("connected-account", "list"), pause_s=0.2)
            assert not is_live(issuer, token)
    files = b"".join(one.read_bytes() for one in (tmp_path / "data").rglob("*") if one.is_file())
    assert [word.encode() in files for word in (token, SECRET)] == [False, False]
