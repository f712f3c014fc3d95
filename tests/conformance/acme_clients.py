"""Real ACME clients against a running server: certbot, dehydrated, uacme, lego, acme.sh and Caddy.

`make test` runs certbot, dehydrated and Caddy; `make peers` runs every installed client.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from cryptography import x509

from harness.live_server import ServerFixture, free_port, free_socket
from harness.patience import PATIENCE_S, eventually
from harness.server import running
from tests.support.dns_server import DnsServer, name_server

ROOT = Path(__file__).parents[2]
CERTBOT = ROOT / ".certbot" / "bin" / "certbot"
CADDY = ROOT / ".proxies" / "bin" / "caddy"
DEBIAN = ("dehydrated", "uacme", "lego", "acme.sh")
"""Clients that are packages of Debian."""
POLICIES = """@id("server-certificates")
permit (principal is Agent, action == Action::"issue_certificate", resource is Agent)
when { context.profile == "server" };
@id("api") permit (principal is Agent, action == Action::"issue_token", resource is Resource);
"""


class AcmeHouse:
    """A server, the name server of its validations, and an agent that may have certificates of web servers."""

    def __init__(self, server: ServerFixture, zone: DnsServer, port: int, folder: Path) -> None:
        self.server, self.zone, self.port, self.folder = server, zone, port, folder
        self.directory = f"{server.server.url}/acme/directory"
        policies = folder / "policies"
        policies.mkdir()
        (policies / "server.cedar").write_text(POLICIES)
        server.server.ostiary("policy", "put", str(policies))
        self.agent, _ = server.agent()

    def key(self) -> dict[str, Any]:
        """Return a new key of an external account binding."""
        made: dict[str, Any] = self.server.server.ostiary("acme", "key", "create", "--agent", self.agent)
        return made

    def hook(self, name: str, text: str) -> Path:
        """Write a shell script that clients run to answer a dns-01 challenge; return its path.

        `publish NAME TEXT` and `withdraw NAME` in it change the zone.
        """
        records = self.folder / "records"
        records.mkdir(exist_ok=True)
        self.zone.folder = records
        file = self.folder / name
        start = f'#!/bin/sh\npublish() {{ echo "$2" >> "{records}/$1"; }}\nwithdraw() {{ rm -f "{records}/$1"; }}\n'
        file.write_text(start + text)
        file.chmod(0o755)
        return file

    def run(self, *command: str | Path, **more: str) -> str:
        """Run a client; return its output. Fails with it."""
        environment = {**os.environ, "HOME": str(self.folder), **more}
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=PATIENCE_S, check=False, cwd=self.folder, env=environment
        )
        assert done.returncode == 0, f"{' '.join(map(str, command))}: {done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def entries(self, action: str) -> list[dict[str, Any]]:
        """Return the entries of an action about the agent that were not refused, the newest first."""
        return [one for one in self.server.entries(action=action) if one.get("outcome", "ok") == "ok"]


@contextmanager
def acme_house(folder: Path) -> Iterator[AcmeHouse]:
    """A server whose validations stay on this machine, until the block ends."""
    sock, port = free_socket()
    sock.close()
    with name_server() as zone:
        zone.default = ["127.0.0.1"]
        config = folder / "ostiary.toml"
        config.write_text(
            f'acme_networks = "127.0.0.0/8"\nacme_resolvers = "{zone.address}"\n'
            f"acme_http_port = {port}\nacme_tls_port = {port}\n"
        )
        with running(folder / "server", "--config", str(config)) as server, ServerFixture(server, folder) as made:
            yield AcmeHouse(made, zone, port, folder)


def read_chain(path: Path) -> list[x509.Certificate]:
    """Return the certificates of a file, each issued by the next one."""
    chain = x509.load_pem_x509_certificates(path.read_bytes())
    for below, above in pairwise(chain):
        below.verify_directly_issued_by(above)
    assert len(chain) > 1
    return chain


def names_of(certificate: x509.Certificate) -> list[str]:
    """Return the DNS names of a certificate."""
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return sorted(names.get_values_for_type(x509.DNSName))


def run_certbot(house: AcmeHouse) -> None:
    """Obtain by http-01, renew and revoke, with certbot."""
    key, folder = house.key(), house.folder / "certbot"
    common: list[str | Path] = [
        "--config-dir",
        folder / "config",
        "--work-dir",
        folder / "work",
        "--logs-dir",
        folder / "logs",
    ]
    account = ["--server", house.directory, "--eab-kid", key["kid"], "--eab-hmac-key", key["hmac_key"]]
    ports = ["--standalone", "--http-01-port", str(house.port), "--http-01-address", "127.0.0.1"]
    house.run(
        CERTBOT,
        "certonly",
        "--non-interactive",
        "--agree-tos",
        "--register-unsafely-without-email",
        *account,
        *ports,
        *common,
        "-d",
        "www.example.com",
        "-d",
        "api.example.com",
    )
    live = folder / "config" / "live" / "www.example.com"
    first = read_chain(live / "fullchain.pem")[0]
    assert names_of(first) == ["api.example.com", "www.example.com"]
    house.run(CERTBOT, "renew", "--non-interactive", "--force-renewal", "--no-random-sleep-on-renew", *common)
    second = read_chain(live / "fullchain.pem")[0]
    assert second.serial_number != first.serial_number
    assert names_of(second) == names_of(first)
    house.run(
        CERTBOT,
        "revoke",
        "--non-interactive",
        "--server",
        house.directory,
        *common,
        "--no-delete-after-revoke",
        "--cert-path",
        live / "cert.pem",
        "--reason",
        "superseded",
    )
    assert len(house.entries("cert.issue")) >= 2
    assert house.entries("cert.revoke")[0]["object"] == f"{second.serial_number:032x}"


def run_dehydrated(house: AcmeHouse) -> None:
    """Obtain by dns-01, renew and revoke, with dehydrated."""
    key, folder = house.key(), house.folder / "dehydrated"
    folder.mkdir()
    hook = house.hook(
        "dehydrated-hook",
        'case "$1" in\ndeploy_challenge) publish "_acme-challenge.$2" "$4";;\n'
        'clean_challenge) withdraw "_acme-challenge.$2";;\nesac\n',
    )
    config = folder / "config"
    config.write_text(
        f'CA="{house.directory}"\nBASEDIR="{folder}"\nEAB_KID="{key["kid"]}"\nEAB_HMAC_KEY="{key["hmac_key"]}"\n'
        f'CHALLENGETYPE="dns-01"\nHOOK="{hook}"\nKEY_ALGO=prime256v1\n'
    )
    command = ["dehydrated", "--config", str(config)]
    house.run(*command, "--register", "--accept-terms")
    names = ["--domain", "dehydrated.example.com *.dehydrated.example.com"]
    house.run(*command, "--cron", *names)
    file = folder / "certs" / "dehydrated.example.com" / "fullchain.pem"
    first = read_chain(file)[0]
    assert names_of(first) == ["*.dehydrated.example.com", "dehydrated.example.com"]
    house.run(*command, "--cron", "--force", *names)
    second = read_chain(file)[0]
    assert second.serial_number != first.serial_number
    house.run(*command, "--revoke", file.with_name("cert.pem"))
    assert house.entries("cert.revoke")[0]["object"] == f"{second.serial_number:032x}"


def run_uacme(house: AcmeHouse) -> None:
    """Obtain by dns-01 and revoke, with uacme."""
    key, folder = house.key(), house.folder / "uacme"
    hook = house.hook(
        "uacme-hook",
        '[ "$2" = dns-01 ] || exit 1\ncase "$1" in\nbegin) publish "_acme-challenge.$3" "$5";;\n'
        '*) withdraw "_acme-challenge.$3";;\nesac\n',
    )
    command = ["uacme", "--acme-url", house.directory, "--confdir", str(folder), "--yes"]
    house.run(*command, "--eab", f"{key['kid']}:{key['hmac_key']}", "new")
    house.run(*command, "--hook", str(hook), "issue", "uacme.example.com")
    file = folder / "uacme.example.com" / "cert.pem"
    first = read_chain(file)[0]
    assert names_of(first) == ["uacme.example.com"]
    house.run(*command, "revoke", file)
    assert house.entries("cert.revoke")[0]["object"] == f"{first.serial_number:032x}"


def run_lego(house: AcmeHouse) -> None:
    """Obtain by http-01, renew and revoke, with lego."""
    key, folder = house.key(), house.folder / "lego"
    command = [
        "lego",
        "--server",
        house.directory,
        "--path",
        str(folder),
        "--accept-tos",
        "--email",
        "web@example.com",
        "--http",
        "--http.port",
        f"127.0.0.1:{house.port}",
        "--domains",
        "lego.example.com",
        "--eab",
        "--kid",
        key["kid"],
        "--hmac",
        key["hmac_key"],
    ]
    house.run(*command, "run")
    file = folder / "certificates" / "lego.example.com.crt"
    first = read_chain(file)[0]
    house.run(*command, "renew", "--days", "30", "--no-random-sleep")
    second = read_chain(file)[0]
    assert second.serial_number != first.serial_number
    house.run(*command, "revoke")
    assert house.entries("cert.revoke")[0]["object"] == f"{second.serial_number:032x}"


def run_acme_sh(house: AcmeHouse) -> None:
    """Obtain by tls-alpn-01 and revoke, with acme.sh."""
    key, folder = house.key(), house.folder / "acme.sh"
    folder.mkdir()
    command = ["acme.sh", "--home", str(folder), "--server", house.directory]
    house.run(*command, "--register-account", "--eab-kid", key["kid"], "--eab-hmac-key", key["hmac_key"])
    house.run(
        *command,
        "--issue",
        "--alpn",
        "--tlsport",
        str(house.port),
        "-d",
        "acme-sh.example.com",
        "--keylength",
        "ec-256",
    )
    file = folder / "acme-sh.example.com_ecc" / "fullchain.cer"
    first = read_chain(file)[0]
    house.run(*command, "--revoke", "-d", "acme-sh.example.com", "--ecc")
    assert house.entries("cert.revoke")[0]["object"] == f"{first.serial_number:032x}"


def run_caddy(house: AcmeHouse) -> None:
    """Obtain by http-01 and by tls-alpn-01, with Caddy, which asks for a certificate when it starts."""
    other = free_port()
    for name, ports, unused in (
        ("http", (house.port, other), "disable_tlsalpn_challenge"),
        ("tls", (other, house.port), "disable_http_challenge"),
    ):
        key, folder, host = house.key(), house.folder / f"caddy-{name}", f"caddy-{name}.example.com"
        folder.mkdir()
        (folder / "Caddyfile").write_text(
            f"{{\nadmin off\nstorage file_system {folder}/store\nhttp_port {ports[0]}\nhttps_port {ports[1]}\n"
            f"default_bind 127.0.0.1\nauto_https disable_redirects\n}}\n{host} {{\ntls {{\nissuer acme {{\n"
            f"dir {house.directory}\neab {key['kid']} {key['hmac_key']}\n{unused}\n}}\n}}\nrespond ok\n}}\n"
        )
        with (folder / "log").open("wb") as log:
            command: list[str | Path] = [CADDY, "run", "--config", folder / "Caddyfile"]
            process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "HOME": str(folder)})
            try:
                eventually(lambda: list((folder / "store").rglob(f"{host}.crt")) or process.poll() is not None)  # noqa: B023
                files = list((folder / "store").rglob(f"{host}.crt"))
                assert files, (folder / "log").read_text()
            finally:
                process.terminate()
                process.wait()
        assert names_of(read_chain(files[0])[0]) == [host]


CLIENTS = {
    "certbot": run_certbot,
    "dehydrated": run_dehydrated,
    "uacme": run_uacme,
    "lego": run_lego,
    "acme.sh": run_acme_sh,
    "caddy": run_caddy,
}


def path_of(client: str) -> str | None:
    """Return where a client is installed; None if it is not."""
    installed = {"certbot": CERTBOT, "caddy": CADDY}.get(client)
    return str(installed) if installed is not None and installed.exists() else shutil.which(client)


def main() -> int:
    failed = []
    with TemporaryDirectory() as folder, acme_house(Path(folder)) as house:
        for name, run in CLIENTS.items():
            if path_of(name) is None:
                print(f"{name}: not installed (Debian: apt-get install {' '.join(DEBIAN)})")
                continue
            try:
                run(house)
            except AssertionError as error:
                failed.append(name)
                print(f"{name}: failed: {str(error)[-3000:]}")
            else:
                print(f"{name}: {run.__doc__}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
