"""mod_auth_openidc of Debian, a module of Apache, as a relying party of a running server: `make peers`.

The command installs the packages where it runs as root. Checked: discovery, the code flow with PKCE, a pushed request
and `private_key_jwt`, logout by the relying party, and back-channel logout.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp
from urllib.parse import parse_qs, urlsplit

import httpx2
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from harness.live_server import ServerFixture, free_socket
from harness.patience import eventually
from harness.person_browser import PersonBrowser
from harness.server import running
from ostiary.protocol import jose
from ostiary.protocol.jose import b64u

PACKAGES = ("apache2", "libapache2-mod-auth-openidc")
MODULES = Path("/usr/lib/apache2/modules")
APACHE = "/usr/sbin/apache2"
LOADED = ("mpm_event", "authn_core", "authz_core", "authz_user", "headers", "auth_openidc")


def main() -> int:
    if not _is_installed():
        print("mod_auth_openidc is not installed and this user may not install it: not compared with it.")
        return 0
    folder = Path(mkdtemp(prefix="relying-party"))
    try:
        _compare(folder)
    finally:
        shutil.rmtree(folder)
    return 0


def _is_installed() -> bool:
    """Install the packages where that is needed and possible; return whether they are there."""
    if not (MODULES / "mod_auth_openidc.so").exists() and os.getuid() == 0 and shutil.which("apt-get"):
        subprocess.run(["apt-get", "update", "-qq"], check=True)
        command = ["apt-get", "install", "-qq", "-y", "--no-install-recommends", *PACKAGES]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "RUNLEVEL": "1"})
    return (MODULES / "mod_auth_openidc.so").exists()


def _compare(folder: Path) -> None:
    sock, port = free_socket()
    sock.close()
    site = f"http://localhost:{port}"
    (folder / "ostiary.toml").write_text('private_hosts = "localhost"\n')
    key = generate_private_key(public_exponent=65537, key_size=2048)
    with (
        running(folder / "server", "--config", str(folder / "ostiary.toml")) as server,
        ServerFixture(server, folder) as live_server,
        PersonBrowser(server.url) as browser,
    ):
        person = live_server.owner()
        browser.set_up(live_server.api("POST", f"/persons/{person}/invite", {})["url"])
        version = subprocess.run(["dpkg-query", "--show", PACKAGES[1]], capture_output=True, text=True, check=False)
        print(f"mod_auth_openidc as a relying party ({' '.join(version.stdout.split())}):")
        client_id = _register(live_server, person, _public(key), site)
        with (
            _apache(folder, port, server.url, client_id, key),
            httpx2.Client(trust_env=False, timeout=60) as application,
        ):
            _sign_in(application, browser, site, person)
            print("  discovery, code flow with PKCE and a pushed request, private_key_jwt, userinfo: passed")
            browser.get(f"{server.url}/logout")
            browser.submit("/logout/confirm")
            eventually(lambda: application.get(f"{site}/private/index.html").status_code == 302)
            print("  back-channel logout: passed")
            browser.get(f"{server.url}/account")
            _sign_in(application, browser, site, person)
            left = application.get(f"{site}/private/callback", params={"logout": f"{site}/bye"}).headers["location"]
            assert left.startswith(f"{server.url}/logout?"), left
            browser.get(left)
            assert browser.left_to.startswith(f"{site}/bye"), browser.left_to or browser.text
            assert application.get(f"{site}/private/index.html").status_code == 302
            browser.get(f"{server.url}/account")
            assert 'name="password"' in browser.text, browser.text
            print("  logout by the relying party: passed")


def _register(live_server: ServerFixture, owner: str, jwk: dict[str, str], site: str) -> str:
    """Register the relying party as an agent; return its id."""
    name = live_server.name("apache")
    new = {"name": name, "owner": owner, "purpose": "signs people in", "scopes": [], "undeclared": True, "jwk": jwk}
    agent: str = live_server.api("POST", "/agents", new)["agent_id"]
    callback = f"{site}/private/callback"
    uris = {"redirect_uris": [callback], "post_logout_redirect_uris": [f"{site}/bye"]}
    back = {"backchannel_logout_uri": f"{callback}?logout=backchannel"}
    live_server.api("PUT", f"/agents/{name}/client", uris | back)
    return agent


def _public(key: RSAPrivateKey) -> dict[str, str]:
    """Return the public key as a JWK."""
    numbers = key.public_key().public_numbers()
    return {"kty": "RSA", "alg": "RS256", "n": _number(numbers.n), "e": _number(numbers.e)}


def _number(value: int) -> str:
    return b64u(value.to_bytes((value.bit_length() + 7) // 8, "big"))


@contextmanager
def _apache(folder: Path, port: int, issuer: str, client_id: str, key: RSAPrivateKey) -> Iterator[None]:
    """Run Apache with the module in front of a folder; the header `x-user` names the person."""
    kid = jose.parse_public_jwk(_public(key)).thumbprint
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    (folder / "key.pem").write_bytes(pem)
    for name in ("site/private", "cache"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "site" / "private" / "index.html").write_text("private")
    folder.chmod(0o755)
    (folder / "cache").chmod(0o777)
    lines = [
        f"ServerRoot {folder}",
        f"PidFile {folder}/apache.pid",
        f"Listen 127.0.0.1:{port}",
        f"ServerName localhost:{port}",
        f"ErrorLog {folder}/error.log",
        "LogLevel warn auth_openidc:info",
        *(f"LoadModule {name}_module {MODULES}/mod_{name}.so" for name in LOADED),
        *(["User www-data", "Group www-data"] if os.getuid() == 0 else []),
        f"DocumentRoot {folder}/site",
        f"OIDCProviderMetadataURL {issuer}/.well-known/openid-configuration",
        f"OIDCClientID {client_id}",
        f"OIDCPrivateKeyFiles {kid}#{folder}/key.pem",
        "OIDCProviderTokenEndpointAuth private_key_jwt",
        "OIDCProviderAuthRequestMethod PAR",
        f"OIDCRedirectURI http://localhost:{port}/private/callback",
        f"OIDCCryptoPassphrase {secrets.token_hex(16)}",
        'OIDCScope "openid profile email"',
        "OIDCPKCEMethod S256",
        "OIDCRemoteUserClaim preferred_username",
        "OIDCCacheType file",
        f"OIDCCacheDir {folder}/cache",
        "<Location /private>",
        "AuthType openid-connect",
        "Require valid-user",
        'Header always set x-user "expr=%{REMOTE_USER}"',
        "</Location>",
    ]
    (folder / "apache.conf").write_text("\n".join(lines) + "\n")
    command = [APACHE, "-f", str(folder / "apache.conf"), "-DFOREGROUND"]
    with (folder / "error.log").open("ab") as log, subprocess.Popen(command, stderr=log) as process:
        try:
            eventually(lambda: process.poll() is not None or _answers(port))
            yield
        except BaseException:
            print((folder / "error.log").read_text(), file=sys.stderr)
            raise
        finally:
            process.terminate()
            process.wait()


def _answers(port: int) -> bool:
    try:
        return httpx2.get(f"http://localhost:{port}/bye").status_code == 404
    except httpx2.TransportError:
        return False


def _sign_in(application: httpx2.Client, browser: PersonBrowser, site: str, person: str) -> None:
    """Sign the person in, and check that the module knows who they are."""
    asked = application.get(f"{site}/private/index.html")
    assert asked.status_code == 302, asked.text
    assert "request_uri" in parse_qs(urlsplit(asked.headers["location"]).query), "the request was pushed"
    browser.get(asked.headers["location"])
    if not browser.left_to and "/login" in browser.text:
        browser.submit("/login", name=person, password="four words are fine")
    if not browser.left_to:
        browser.submit("/consent", decision="allow")
    assert browser.left_to.startswith(f"{site}/private/callback?"), browser.left_to or browser.text
    answered = application.get(browser.left_to)
    assert answered.status_code == 302, answered.text
    page = application.get(answered.headers["location"])
    assert (page.status_code, page.headers["x-user"]) == (200, person), page.text


if __name__ == "__main__":
    sys.exit(main())
