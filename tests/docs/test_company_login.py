"""The tutorial about logins by a company account: its commands, with a real OpenID provider and a played browser."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import httpx2
import pytest

from harness.patience import PATIENCE_S
from harness.server import running
from ostiaryd.trust.model.providers import PRESETS
from tests.docs.page_script import is_in, run_script, script
from tests.support.node import serving_provider

PAGE = Path(__file__).resolve().parents[2] / "docs" / "tutorials" / "company-login.md"
SECRET = "a secret: with signs & + / of all kinds %"
ACCOUNTS = {
    "u-ann": {"claims": {"preferred_username": "ann", "groups": ["platform-ops"]}, "amr": ["pwd", "mfa"]},
    "u-max": {"claims": {"preferred_username": "max", "groups": []}},
}


@contextmanager
def provider(redirect_uri: str) -> Iterator[str]:
    """The issuer of npm's `oidc-provider` with one client and these accounts."""
    client = {
        "client_id": "ostiary",
        "client_secret": SECRET,
        "redirect_uris": [redirect_uri],
        "id_token_signed_response_alg": "ES256",
    }
    with serving_provider("login-provider.mjs", {"clients": [client], "accounts": ACCOUNTS}) as (port,):
        yield f"http://127.0.0.1:{port}"


def test_the_page_has_a_row_for_each_preset() -> None:
    assert set(re.findall(r"--preset ([a-z0-9_-]+)", PAGE.read_text("utf-8"))) == PRESETS.keys() - {""}


def log_in(url: str, account: str) -> str:
    """Follow the button of the login page as a browser does, with a cookie jar for each origin; the page at the end."""
    cookies: dict[str, dict[str, str]] = {}
    with httpx2.Client(timeout=PATIENCE_S) as browser:
        for _ in range(12):
            origin = urlsplit(url).netloc
            jar = cookies.setdefault(origin, {})
            header = "; ".join(f"{name}={value}" for name, value in jar.items())
            answer = browser.get(url, headers={"cookie": header} if header else {})
            for cookie in answer.headers.get_list("set-cookie"):
                name, _, value = cookie.partition(";")[0].partition("=")
                jar[name] = value
            if answer.status_code == 200 and "Sign in with Corp" in answer.text:
                (path,) = re.findall(r'href="(/login/with/corp[^"]*)"', answer.text)
                url = urljoin(url, f"{path}&login_hint={account}".replace("&amp;", "&"))
                continue
            if answer.status_code not in (302, 303):
                return answer.text
            url = urljoin(url, answer.headers["location"])
    raise AssertionError("the browser is sent around in circles")


@pytest.mark.slow
def test_the_commands_of_the_page_give_the_documented_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text, wanted = script([PAGE.read_text("utf-8")])
    blocks = re.split(r"^echo '=== \d+'\n", text, flags=re.MULTILINE)[1:]
    assert (len(blocks), len(wanted)) == (3, 3)
    monkeypatch.setenv("OSTIARY_PRIVATE_HOSTS", "127.0.0.1")
    (tmp_path / "client-secret").write_text(SECRET + "\n")
    with running(tmp_path / "data") as server:
        home = f"http://localhost:{urlsplit(server.url).port}"
        with provider(f"{home}/login/callback/corp") as issuer:

            def run(number: int) -> None:
                printed = run_script(
                    blocks[number - 1], tmp_path, OSTIARY_DATA_DIR=str(server.folder), COLUMNS="200", ISSUER=issuer
                )
                for at, lines in wanted:
                    assert at != number or is_in(lines, printed), f"wanted:\n{lines}\nsaid:\n{printed}"

            run(1)
            for account, name in (("u-ann", "ann"), ("u-max", "max")):
                assert name in log_in(f"{home}/account", account)
            run(2)
            run(3)
            log_in(f"{home}/account", "u-ann")
            sessions = server.ostiary("person", "sessions", "ann")
    assert {one["acr"] for one in sessions} == {"urn:ostiary:acr:person:single", "urn:ostiary:acr:person:mfa"}
