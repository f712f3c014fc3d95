"""Somebody on the same machine: what they can read of ours, and what they can make us write."""

from __future__ import annotations

import base64
import os
import sqlite3
from pathlib import Path

import pytest

from harness.live_server import ServerFixture
from harness.server import running
from ostiary.audit import render_files, write_folder
from ostiary.protocol import jose


def export(folder: Path) -> None:
    write_folder(folder, checkpoint=b"checkpoint", key="key", files=render_files([b"entry"]))


def test_an_export_is_accessible_to_its_owner_alone(tmp_path: Path) -> None:
    was = os.umask(0o022)
    try:
        export(tmp_path / "new" / "export")
    finally:
        os.umask(was)
    assert (tmp_path / "new" / "export").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("name", ["checkpoint.partial", "key.partial", "tile/0/000.p/1.partial"])
def test_an_export_does_not_write_through_a_symbolic_link(tmp_path: Path, name: str) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    link = tmp_path / "export" / name
    link.parent.mkdir(parents=True)
    link.symlink_to(precious)
    export(tmp_path / "export")
    assert precious.read_text() == "mine"


def test_the_data_folder_and_the_log_contain_no_plain_secret(tmp_path: Path) -> None:
    with running(tmp_path / "server") as server, ServerFixture(server, tmp_path) as live_server:
        owner = live_server.owner()
        live_server.api("POST", "/agents", {"name": "pending", "owner": owner, "purpose": "p"})
        secret = live_server.api("POST", "/agents/pending/join-token", {})["join_token"]
        token = live_server.admin.token(resource=f"{live_server.admin.issuer}/api/v1")["access_token"]
        enrolment = {"join_token": secret, "jwk": dict(jose.generate("ES256").public.jwk), "proof": token}
        live_server.admin.post(f"{server.url}/enrol", json=enrolment)
        root = (server.folder / "root.key").read_bytes().strip()
        private = sqlite3.connect(server.folder / "ostiary.db").execute("select public_jwk, sealed from server_key")
        assert all('"d"' not in public and b'"d"' not in sealed for public, sealed in private.fetchall())
        files = [path for path in server.folder.rglob("*") if path.is_file()]
        assert {path.name for path in files} >= {"ostiary.db", "ostiary.db-wal", "root.key", "admin.json", "server.log"}
        for path in files:
            content = path.read_bytes()
            assert path.name == "server.log" or path.stat().st_mode & 0o077 == 0, path
            assert secret.encode() not in content, path
            assert token.encode() not in content, path
            assert path.name == "root.key" or (root not in content and base64.b64decode(root) not in content), path
