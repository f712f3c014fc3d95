"""Credential files: readable only by their owner, never overwritten, and refused if malformed."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from ostiary.keys import MAX_FILE_BYTES, load_key, save_key
from ostiary.protocol import jose
from ostiary.protocol.errors import Conflict, Invalid

ISSUER = "https://ostiary.example.org"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A credential file."""
    path = tmp_path / "agent.json"
    save_key(path, jose.generate("ES256"), client_id="ag_1", issuer=ISSUER)
    return path


@pytest.mark.parametrize("alg", sorted(jose.ALGS))
def test_a_credential_reads_back_as_it_was_saved(tmp_path: Path, alg: str) -> None:
    key = jose.generate(alg)
    save_key(tmp_path / "key.json", key, client_id="ag_1", issuer=ISSUER)
    loaded = load_key(str(tmp_path / "key.json"))
    assert loaded.key.jwk() == key.jwk()
    assert (loaded.client_id, loaded.issuer) == ("ag_1", ISSUER)


def test_a_credential_file_is_readable_only_by_its_owner(path: Path) -> None:
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_credential_file_is_never_overwritten(path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(Conflict):
        save_key(path, jose.generate("ES256"), client_id="ag_2", issuer=ISSUER)
    assert path.read_bytes() == before


def test_a_full_disk_leaves_no_incomplete_credential_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save_key(tmp_path / "key.json", jose.generate("ES256"), client_id="ag_1", issuer=ISSUER)
    monkeypatch.undo()
    save_key(tmp_path / "key.json", jose.generate("ES256"), client_id="ag_1", issuer=ISSUER)
    assert load_key(tmp_path / "key.json").client_id == "ag_1"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o601])
def test_a_credential_file_that_other_users_can_read_is_refused(path: Path, mode: int) -> None:
    path.chmod(mode)
    with pytest.raises(Invalid, match="is open to other users"):
        load_key(path)


def test_a_missing_credential_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="cannot read"):
        load_key(tmp_path / "nothing.json")


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"no JSON",
        b"[]",
        b'{"kty":"EC"}',
        json.dumps(dict(jose.generate("ES256").public.jwk)).encode(),
        json.dumps({**jose.generate("ES256").jwk(), "client_id": 5}).encode(),
        json.dumps({**jose.generate("ES256").jwk(), "filler": "x" * MAX_FILE_BYTES}).encode(),
    ],
)
def test_a_malformed_credential_file_is_refused(path: Path, text: bytes) -> None:
    path.write_bytes(text)
    with pytest.raises(Invalid):
        load_key(path)


def test_the_refusal_of_a_broken_key_does_not_show_the_key(path: Path) -> None:
    jwk = json.loads(path.read_text())
    path.write_text(json.dumps(jwk | {"y": jwk["x"]}))
    with pytest.raises(Invalid) as refused:
        load_key(path)
    assert jwk["d"] not in str(refused.value)


def test_a_key_alone_is_a_credential_without_client_and_issuer(path: Path) -> None:
    path.write_text(json.dumps(jose.generate("ES256").jwk()))
    assert load_key(path).client_id == load_key(path).issuer == ""


@pytest.mark.parametrize("has_key", [True, False])
def test_a_credential_may_have_a_secret_with_or_without_a_key(tmp_path: Path, has_key: bool) -> None:
    key = jose.generate("ES256")
    path = tmp_path / "client.json"
    members = {"client_id": "writer", "issuer": "https://login.example", "client_secret": "hush"}
    path.write_text(json.dumps(members | (key.jwk() if has_key else {})))
    path.chmod(0o600)
    credential = load_key(path)
    assert (credential.client_id, credential.issuer, credential.secret) == ("writer", "https://login.example", "hush")
    assert (credential.key.public.thumbprint == key.public.thumbprint) is has_key
    assert "hush" not in repr(credential)


@pytest.mark.parametrize("secret", ["", 5, ["hush"]])
def test_an_invalid_client_secret_is_refused(tmp_path: Path, secret: object) -> None:
    path = tmp_path / "client.json"
    path.write_text(json.dumps({"client_id": "writer", "issuer": "https://login.example", "client_secret": secret}))
    path.chmod(0o600)
    with pytest.raises(Invalid, match="client_secret"):
        load_key(path)


def test_a_credential_in_an_open_descriptor_is_read_without_permission_on_its_file(path: Path) -> None:
    user = os.geteuid()
    with path.open() as file:
        path.chmod(0)
        os.seteuid(user or 65534)
        try:
            loaded = [load_key(f"/dev/fd/{file.fileno()}").client_id for _ in range(2)]
        finally:
            os.seteuid(user)
    assert loaded == ["ag_1", "ag_1"]
