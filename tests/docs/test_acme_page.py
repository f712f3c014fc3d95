"""docs/how-to/acme.md: its commands obtain, renew and revoke a certificate with certbot."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harness.live_server import free_socket
from harness.patience import PATIENCE_S
from harness.prepared import PreparedServer
from ostiaryd.ground.config import Config
from tests.conformance.acme_clients import CERTBOT
from tests.docs.page_script import JQ, is_in, script
from tests.support.dns_server import name_server

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "acme.md").read_text("utf-8")


@pytest.mark.slow
def test_the_commands_of_the_page_obtain_and_revoke_a_certificate_with_certbot(tmp_path: Path) -> None:
    if not CERTBOT.exists():
        pytest.skip("certbot is not installed: `make setup`")
    sock, port = free_socket()
    sock.close()
    text, wanted = script([PAGE])
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "jq").write_text(JQ.format(python=sys.executable))
    folders = " ".join(f"--{name}-dir {tmp_path}/certbot/{name}" for name in ("config", "work", "logs"))
    ports = f"--http-01-port {port} --http-01-address 127.0.0.1"
    (tools / "certbot").write_text(
        f'#!/bin/sh\n[ "$1" = certonly ] && set -- "$@" {ports}\nexec {CERTBOT} "$@" {folders}\n'
    )
    for tool in tools.iterdir():
        tool.chmod(0o755)
    config = tmp_path / "ostiary.toml"
    with name_server() as zone:
        zone.default = ["127.0.0.1"]
        config.write_text(
            f'acme_networks = "127.0.0.0/8"\nacme_resolvers = "{zone.address}"\nacme_http_port = {port}\n'
        )
        with PreparedServer(tmp_path / "server", "--config", str(config)) as server:
            path = os.pathsep.join([str(tools), str(Path(sys.executable).parent), os.environ["PATH"]])
            environment = {**os.environ, "PATH": path, "OSTIARY_DATA_DIR": str(server.folder)}
            run = subprocess.run(
                ["bash", "-eu", "-c", text],
                capture_output=True,
                text=True,
                timeout=PATIENCE_S,
                check=False,
                cwd=tmp_path,
                env=environment,
            )
            assert run.returncode == 0, f"{run.stdout}{run.stderr}"
            revoked = [one for one in server.ostiary("cert", "list") if one["revoked_at"] is not None]
    said = dict(enumerate(run.stdout.split("=== ")[1:], 1))
    assert [text for block, text in wanted if not is_in(text, said[block])] == [], run.stdout
    assert len(revoked) == 1
    assert shutil.which("certbot", path=path) == str(tools / "certbot")


def test_the_settings_on_the_page_exist_and_have_the_documented_defaults() -> None:
    defaults = Config(data_dir="x")
    for name in ("acme_networks", "acme_resolvers", "acme_caa_domains", "acme_http_port", "acme_tls_port"):
        assert f"`{name}`" in PAGE
        assert hasattr(defaults, name)
    assert (defaults.acme_http_port, defaults.acme_tls_port) == (80, 443)
