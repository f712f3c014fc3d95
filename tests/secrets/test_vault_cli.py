"""The command line of Vault's protocol, its agent and its proxy: the real program `bao` of OpenBao, unchanged."""

from __future__ import annotations

import base64
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest

from harness.patience import PATIENCE_S, eventually
from tests.secrets.vault_fixtures import POLICIES, VaultStage

BAO = Path(sys.executable).with_name("bao")
EXPORTS = '@id("export") permit (principal is Agent, action == Action::"export_secret_key", resource is Secret);'
AUTH = """
vault {{ address = "{url}" }}
auto_auth {{
  method "approle" {{
    config = {{ role_id_file_path = "{folder}/role", secret_id_file_path = "{folder}/secret",
               remove_secret_id_file_after_reading = false }}
  }}
  sink "file" {{ config = {{ path = "{folder}/token" }} }}
}}
"""
TEMPLATE = """
exit_after_auth = true
template {{
  contents = "{{{{ with secret \\"secret/data/{path}\\" }}}}{{{{ .Data.data.password }}}}{{{{ end }}}}"
  destination = "{folder}/rendered"
}}
"""
PROXY = """
api_proxy {{ use_auto_auth_token = true }}
listener "unix" {{ address = "{folder}/socket", tls_disable = true }}
"""


class BaoStage:
    """An agent with a client secret, and the program with its files in a folder."""

    def __init__(self, vault: VaultStage, folder: Path) -> None:
        made = vault.live_server.server.ostiary("agent", "create-secret", vault.name)
        self.vault, self.folder, self.path = vault, folder, f"{vault.folder}/db"
        (folder / "role").write_text(made["client_id"])
        (folder / "secret").write_text(made["client_secret"])
        self.env = {**os.environ, "HOME": str(folder), "BAO_ADDR": vault.url, "VAULT_ADDR": vault.url}

    def run(self, *words: str, token: str = "", code: int = 0) -> Any:
        """The JSON that a command prints, if it prints JSON; the error of a command that fails."""
        done = subprocess.run(
            [str(BAO), *words], env={**self.env, "BAO_TOKEN": token}, capture_output=True, text=True, timeout=PATIENCE_S
        )
        assert done.returncode == code, (words, done.stdout, done.stderr)
        return done.stderr if code else json.loads(done.stdout) if "-format=json" in words else None

    def permit(self, rules: str) -> None:
        """Permit more than the policies of the server that the tests share."""
        self.vault.live_server.api("POST", "/policies", {"files": {"secrets.cedar": POLICIES + rules}})

    def configure(self, *parts: str) -> str:
        """The file of a configuration."""
        file = self.folder / "config.hcl"
        values = {"url": self.vault.url, "folder": self.folder, "path": self.path}
        file.write_text("".join(part.format(**values) for part in parts))
        return str(file)


@pytest.fixture
def bao(vault: VaultStage, tmp_path: Path) -> Iterator[BaoStage]:
    stage = BaoStage(vault, tmp_path)
    yield stage
    stage.permit("")


def test_the_command_line_logs_in_and_keeps_a_secret(bao: BaoStage) -> None:
    credentials = [f"role_id=@{bao.folder}/role", f"secret_id=@{bao.folder}/secret"]
    made = bao.run("write", "-format=json", "auth/approle/login", *credentials)
    token = made["auth"]["client_token"]
    status = bao.run("status", "-format=json")
    assert (status["initialized"], status["sealed"], status["ha_enabled"]) == (True, False, False)
    put = bao.run("kv", "put", "-format=json", "-mount=secret", bao.path, "password=s3cr3t-canary", token=token)
    assert put["data"]["version"] == 1
    shown = bao.run("kv", "get", "-format=json", f"secret/{bao.path}", token=token)
    assert shown["data"]["data"] == {"password": "s3cr3t-canary"}
    assert bao.run("kv", "list", "-format=json", f"secret/{bao.vault.folder}", token=token) == ["db"]
    conflict = bao.run("kv", "put", "-cas=5", "-mount=secret", bao.path, "password=x", token=token, code=2)
    assert "check-and-set parameter did not match" in conflict
    assert "permission denied" in bao.run("kv", "get", "secret/agents/other/db", token=token, code=2)
    bao.run("write", "-force", f"transit/keys/{bao.vault.name}", token=token)
    bao.run("write", "-force", f"transit/keys/{bao.vault.name}/rotate", token=token)
    key = bao.run("read", "-format=json", f"transit/keys/{bao.vault.name}", token=token)
    assert key["data"]["latest_version"] == 2
    wrapped = bao.run("kv", "get", "-format=json", "-wrap-ttl=60s", f"secret/{bao.path}", token=token)
    opened = bao.run("unwrap", "-format=json", wrapped["wrap_info"]["token"], token=token)
    assert opened["data"]["data"] == {"password": "s3cr3t-canary"}
    assert "wrapping token" in bao.run("unwrap", wrapped["wrap_info"]["token"], token=token, code=2)


def test_numbers_and_booleans_sent_as_text_by_the_vault_command_line_are_accepted(bao: BaoStage) -> None:
    token, name = bao.vault.login().token, bao.vault.name
    bao.run("write", f"transit/keys/{name}", "exportable=false", "derived=false", token=token)
    bao.run("write", f"transit/keys/{name}/config", "deletion_allowed=true", "min_decryption_version=1", token=token)
    key = bao.run("read", "-format=json", f"transit/keys/{name}", token=token)["data"]
    assert (key["deletion_allowed"], key["exportable"], key["min_decryption_version"]) == (True, False, 1)
    for wrong in ("deletion_allowed=maybe", "min_decryption_version=x", f"min_decryption_version={'9' * 20}"):
        bao.run("write", f"transit/keys/{name}/config", wrong, token=token, code=2)
    metadata = f"secret/metadata/{bao.path}"
    bao.run("write", metadata, "max_versions=4", "cas_required=true", token=token)
    shown = bao.run("read", "-format=json", metadata, token=token)["data"]
    assert (shown["max_versions"], shown["cas_required"]) == (4, True)
    bao.run("write", metadata, "cas_required=false", token=token)
    for value in ("1", "2", "3"):
        bao.run("kv", "put", "-mount=secret", bao.path, f"a={value}", token=token)
    bao.run("write", f"secret/destroy/{bao.path}", "versions=1,2", token=token)
    versions = bao.run("read", "-format=json", metadata, token=token)["data"]["versions"]
    assert [one["destroyed"] for one in versions.values()] == [True, True, False]
    bao.run("write", f"secret/destroy/{bao.path}", "versions=", token=token, code=2)


def test_the_command_line_changes_a_secret_and_its_metadata(bao: BaoStage) -> None:
    token, mount = bao.vault.login().token, "-mount=secret"

    def kv(*words: str, code: int = 0) -> Any:
        return bao.run("kv", *words, token=token, code=code)

    kv("put", mount, bao.path, "a=1", "b=2")
    for method in ("patch", "rw"):
        kv("patch", mount, f"-method={method}", bao.path, f"{method}=3")
    assert "did not match" in kv("patch", mount, "-method=patch", "-cas=9", bao.path, "c=3", code=2)
    kv("rollback", mount, "-version=1", bao.path)
    kv("delete", mount, bao.path)
    kv("undelete", mount, "-versions=4", bao.path)
    assert kv("get", "-format=json", mount, bao.path)["data"]["data"] == {"a": "1", "b": "2"}
    names = bao.run("read", "-format=json", f"secret/subkeys/{bao.path}", token=token)["data"]["subkeys"]
    assert names == {"a": None, "b": None}
    kv("destroy", mount, "-versions=1,2", bao.path)
    assert "destroyed" in json.dumps(kv("metadata", "get", "-format=json", mount, bao.path))
    settings = ("-max-versions=5", "-delete-version-after=3h25m19s", "-cas-required=true", "-custom-metadata=team=x")
    kv("metadata", "put", mount, *settings, bao.path)
    kv("metadata", "patch", mount, "-custom-metadata=floor=2", bao.path)
    kv("metadata", "patch", mount, "-remove-custom-metadata=team", bao.path)
    shown = kv("metadata", "get", "-format=json", mount, bao.path)["data"]
    assert (shown["max_versions"], shown["cas_required"], shown["custom_metadata"]) == (5, True, {"floor": "2"})
    assert shown["delete_version_after"] == "3h25m19s"
    assert "check-and-set parameter required" in kv("put", mount, bao.path, "a=1", code=2)
    for wrong in ("max_versions=-1", "delete_version_after=-10s"):
        bao.run("write", f"secret/metadata/{bao.path}", wrong, token=token, code=2)
    kv("metadata", "delete", mount, bao.path)
    kv("get", mount, bao.path, code=2)


def test_the_command_line_imports_a_key_and_keeps_private_values(bao: BaoStage) -> None:
    token, key = bao.vault.login().token, f"transit/keys/{bao.vault.name}"
    (bao.folder / "key").write_text(base64.b64encode(bytes(32)).decode())
    bao.permit(EXPORTS)
    bao.run("transit", "import", key, f"@{bao.folder}/key", "type=aes256-gcm96", token=token)
    bao.run("transit", "import-version", key, f"@{bao.folder}/key", token=token)
    assert "existing key" in bao.run("transit", "import", key, f"@{bao.folder}/key", token=token, code=3)
    shown = bao.run("read", "-format=json", key, token=token)["data"]
    assert (shown["imported_key"], shown["latest_version"]) == (True, 2)
    bao.run("write", "cubbyhole/note", "a=b", token=token)
    assert bao.run("read", "-format=json", "cubbyhole/note", token=token)["data"] == {"a": "b"}
    assert bao.run("list", "-format=json", "cubbyhole", token=token) == ["note"]
    bao.run("delete", "cubbyhole/note", token=token)
    assert bao.run("read", "cubbyhole/note", token=token, code=2).startswith("No value found")


def test_the_command_line_creates_and_revokes_tokens(bao: BaoStage) -> None:
    token = bao.vault.login().token
    bao.permit('@id("auth") permit (principal, action, resource is Secret) when { resource.mount == "auth" };')

    def create(*words: str) -> Any:
        return bao.run("token", "create", "-format=json", *words, token=token)["auth"]

    parent = create("-ttl=2m", "-policy=default", "-display-name=x", "-metadata=team=red")
    assert (parent["policies"], parent["metadata"]["team"], parent["lease_duration"]) == (["default"], "red", 120)
    shown = bao.run("token", "lookup", "-format=json", parent["client_token"], token=token)["data"]
    assert shown["display_name"] == "token-x"
    bao.run("token", "lookup", "-accessor", parent["accessor"], token=token)
    bao.run("token", "renew", "-increment=20m", parent["client_token"], token=token)
    bao.run("token", "capabilities", parent["client_token"], "cubbyhole/a", token=token)
    bao.run("write", "auth/token/roles/ci", "allowed_policies_glob=dev-*", "token_period=1h", token=token)
    assert create("-role=ci", "-policy=dev-a")["policies"] == ["default", "dev-a"]
    assert "not all allowed" in bao.run("token", "create", "-role=ci", "-policy=ops", token=token, code=2)
    assert "unknown role" in bao.run("token", "create", "-role=none", token=token, code=2)
    made = bao.run("token", "create", "-ttl=5m", "-format=json", token=token)["auth"]["client_token"]
    child = bao.run("token", "create", "-ttl=5m", "-format=json", token=made)["auth"]["client_token"]
    bao.run("token", "revoke", "-mode=orphan", made, token=token)
    bao.run("token", "lookup", made, token=token, code=2)
    bao.run("token", "lookup", child, token=token)
    for _ in range(2):  # a token that is gone is revoked
        bao.run("token", "revoke", child, token=token)
    bao.run("token", "revoke", "-accessor", parent["accessor"], token=token)
    bao.run("token", "lookup", child, token=token, code=2)
    bao.run("token", "revoke", "-self", token=token)
    assert "permission denied" in bao.run("token", "lookup", token=token, code=2)


def test_the_vault_command_line_issues_an_intermediate_authority(bao: BaoStage) -> None:
    token, root, below = bao.vault.login().token, f"{bao.vault.name}-root", f"{bao.vault.name}-below"
    bao.permit('@id("all") permit (principal is Agent, action, resource is Secret);')
    for mount in (root, below):
        bao.run("secrets", "enable", f"-path={mount}", "pki", token=token)
    bao.run("write", f"{root}/root/generate/internal", "common_name=Root", "ttl=100h", token=token)
    issue = ["pki", "issue", "-format=json", "-issuer_name=below", f"{root}/issuer/default", below]
    made = bao.run(*issue, "common_name=Below", token=token)["data"]
    assert (made["issuer_name"], len(made["ca_chain"])) == ("below", 2)
    verify = ["pki", "verify-sign", "-format=json", f"{root}/issuer/default", f"{below}/issuer/below"]
    assert set(bao.run(*verify, token=token).values()) == {True}
    bao.run("write", f"{root}/roles/web", "allowed_domains=example.com", "max_ttl=2h", token=token)
    bao.run("patch", f"{root}/roles/web", "allow_subdomains=true", token=token)
    shown = bao.run("read", "-format=json", f"{root}/roles/web", token=token)["data"]
    assert (shown["allowed_domains"], shown["max_ttl"], shown["allow_subdomains"]) == (["example.com"], 7200, True)
    assert "Code: 404" in bao.run("patch", f"{root}/roles/none", "allow_subdomains=true", token=token, code=2)


def test_the_vault_agent_renders_a_template_and_the_vault_proxy_adds_the_token(bao: BaoStage) -> None:
    bao.vault.login().secrets.kv.v2.create_or_update_secret(path=bao.path, secret={"password": "s3cr3t-canary"})
    bao.run("agent", f"-config={bao.configure(AUTH, TEMPLATE)}", "-log-level=error")
    assert (bao.folder / "rendered").read_text() == "s3cr3t-canary"
    assert (bao.folder / "token").read_text().startswith("hvs.")
    command = [str(BAO), "proxy", f"-config={bao.configure(AUTH, PROXY)}"]
    with (bao.folder / "log").open("wb") as log:
        proxy = subprocess.Popen(command, env=bao.env, stdout=log, stderr=log)
    transport = httpx2.HTTPTransport(uds=str(bao.folder / "socket"))
    try:
        eventually(lambda: _listens(bao.folder / "socket"))
        with httpx2.Client(transport=transport, base_url="http://proxy/v1/secret/data/") as client:
            eventually(lambda: client.get(bao.path).status_code == 200)  # the proxy may have no token yet
            assert client.get(bao.path).json()["data"]["data"] == {"password": "s3cr3t-canary"}
            assert client.get("agents/other/db").status_code == 403
    finally:
        proxy.terminate()
        proxy.wait(PATIENCE_S)


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as sock, suppress(OSError):
        sock.connect(str(path))
        return True
    return False
