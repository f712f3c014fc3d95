"""Existing stores as back ends: OpenBao, AWS, folders and the environment, read by unchanged clients of agents."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import boto3
import hvac
import pytest
from hvac import exceptions

from harness.live_server import ServerFixture, own_server
from ostiary import Agent
from ostiary.protocol import jose
from tests.secrets.backend_fixtures import KEY, KEY_ID, REGION, aws_client, moto, openbao
from tests.secrets.vault_fixtures import POLICIES, VaultStage

READERS = """
@id("backends") permit (principal is Agent, action, resource is Secret)
when { resource.mount == "backend" && !(resource.path like "*/private/*") };
"""
METHODS = """
@id("methods") permit (principal is Agent, action, resource is Secret)
when { resource.path like "auth/bao*" || resource.path like "bao/*" };
"""


class Stores(NamedTuple):
    """The existing stores, and a server that may read them."""

    live_server: ServerFixture
    bao: hvac.Client
    aws: Any
    aws_url: str
    folder: Path

    def configure(self, name: str, **config: Any) -> None:
        self.live_server.api("POST", "/secrets/backends", {"name": name, **config})


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stores]:
    """OpenBao, moto, two folders, and the environment of the server."""
    folder = tmp_path_factory.mktemp("backends")
    for name in ("bao", "aws", "mounted", "files"):
        (folder / name).mkdir()
    with ExitStack() as stack:
        bao = stack.enter_context(openbao(folder / "bao"))
        aws_url = stack.enter_context(moto(folder / "aws"))
        stack.enter_context(pytest.MonkeyPatch.context()).setenv("SHOP_API_KEY", "from-environment")
        addresses = f"{bao.url} {aws_url} {folder}/mounted {folder}/files env:SHOP_ {folder}"
        settings = folder / "ostiary.toml"
        settings.write_text(
            f'data_dir = "{folder}/server"\nsecret_backends = "{addresses}"\nprivate_hosts = "127.0.0.1"\n'
        )
        live_server = stack.enter_context(own_server(folder, "--config", str(settings)))
        live_server.api("POST", "/policies", {"files": {"secrets.cedar": POLICIES + READERS}})
        made = Stores(live_server, bao, aws_client("secretsmanager", aws_url), aws_url, folder)
        vault = {"address": bao.url, "credentials": {"token": "root"}}
        made.configure("bao", kind="vault-kv2", mount="secret", cache_s=0, **vault)
        made.configure("old", kind="vault-kv1", mount="old", cache_s=300, **vault)
        keys = {"access_key_id": KEY_ID, "secret_access_key": KEY}
        made.configure("aws", kind="aws", address=aws_url, region=REGION, cache_s=0, credentials=keys)
        made.configure("pods", kind="kubernetes", address=f"{folder}/mounted", cache_s=0)
        made.configure("files", kind="files", address=f"{folder}/files", cache_s=0)
        made.configure("env", kind="environment", address="env:SHOP_")
        yield made


@pytest.fixture
def vault(stores: Stores) -> VaultStage:
    """A new agent."""
    return VaultStage(stores.live_server)


def read(client: hvac.Client, backend: str, path: str) -> Any:
    answer = client.secrets.kv.v2.read_secret_version(
        path, mount_point=f"backend/{backend}", raise_on_deleted_version=True
    )
    return answer["data"]["data"]


def test_agents_read_openbao_by_their_unchanged_clients(stores: Stores, vault: VaultStage) -> None:
    stores.bao.secrets.kv.v2.create_or_update_secret("shop/db", secret={"password": "sky blue"})
    stores.bao.secrets.kv.v1.create_or_update_secret("shop/old", secret={"n": 7}, mount_point="old")
    client = vault.login()
    assert read(client, "bao", "shop/db") == {"password": "sky blue"}
    assert read(client, "old", "shop/old") == {"n": 7}
    names = client.secrets.kv.v2.list_secrets("shop", mount_point="backend/bao")["data"]["keys"]
    assert names == ["db"]
    assert client.sys.list_mounted_secrets_engines()["data"]["backend/bao/"]["options"] == {"version": "2"}
    with Agent.from_credential(vault.credential) as agent, agent.task("read") as task:
        assert agent.secret("backend/bao/shop/db", task=task.id).data == {"password": "sky blue"}
    with pytest.raises(exceptions.InvalidPath):
        read(client, "bao", "shop/none")
    stores.bao.secrets.kv.v2.delete_latest_version_of_secret("shop/db")
    with pytest.raises(exceptions.InvalidPath):
        read(client, "bao", "shop/db")
    assert "backend/bao/shop/db" in [one["object"] for one in vault.entries("vault.read")]
    assert [one["object"] for one in stores.live_server.entries(action="backend.fetch", limit=9)][1:] == [
        "backend/bao/shop/none"
    ]
    assert "sky blue" not in json.dumps(stores.live_server.entries(limit=300))


def test_agents_read_aws_by_boto3_and_hvac(stores: Stores, vault: VaultStage) -> None:
    stores.aws.create_secret(Name="prod/db", SecretString='{"password":"green"}')
    stores.aws.create_secret(Name="prod/raw", SecretBinary=b"\x00\xff")
    client = vault.login()
    assert read(client, "aws", "prod/db") == {"password": "green"}
    names = client.secrets.kv.v2.list_secrets("prod", mount_point="backend/aws")["data"]["keys"]
    assert names == ["db", "raw"]
    made = vault.live_server.server.ostiary("aws-key", "create", vault.name, "--network", "127.0.0.1")
    ours = boto3.client(
        "secretsmanager",
        endpoint_url=f"{vault.url}/aws",
        region_name=made["region"],
        aws_access_key_id=made["access_key_id"],
        aws_secret_access_key=made["secret_access_key"],
    )
    first = ours.get_secret_value(SecretId="backend/aws/prod/db")
    assert json.loads(first["SecretString"]) == {"password": "green"}
    assert ours.get_secret_value(SecretId="backend/aws/prod/raw")["SecretBinary"] == b"\x00\xff"
    stores.aws.put_secret_value(SecretId="prod/db", SecretString="plain")
    second = ours.get_secret_value(SecretId=first["ARN"])
    assert second["SecretString"] == "plain"
    assert second["VersionId"] != first["VersionId"]
    with pytest.raises(ours.exceptions.ResourceNotFoundException):
        ours.get_secret_value(SecretId="backend/aws/prod/none")
    with pytest.raises(ours.exceptions.InvalidParameterException):
        ours.put_secret_value(SecretId="backend/aws/prod/db", SecretString="x")
    stores.aws.delete_secret(SecretId="prod/db", RecoveryWindowInDays=7)
    with pytest.raises(exceptions.InvalidPath):
        read(client, "aws", "prod/db")


def test_mounted_secrets_are_read_consistently_after_the_kubelet_replaces_them(
    stores: Stores, vault: VaultStage
) -> None:
    secret = stores.folder / "mounted/shop"

    def mount(version: str) -> None:
        """Replace the secret as the kubelet does."""
        data = secret / f"..{version}"
        data.mkdir(parents=True)
        (data / "user").write_text(f"user {version}")
        (data / "password").write_text(f"password {version}")
        link = secret / "..data_tmp"
        link.symlink_to(data.name)
        link.rename(secret / "..data")
        for name in ("user", "password"):
            if not (secret / name).is_symlink():
                (secret / name).symlink_to(f"..data/{name}")

    client = vault.login()
    for version in ("1", "2"):
        mount(version)
        assert read(client, "pods", "shop") == {"user": f"user {version}", "password": f"password {version}"}
    assert client.secrets.kv.v2.list_secrets("", mount_point="backend/pods")["data"]["keys"] == ["shop"]
    (stores.folder / "mounted/outside").symlink_to(stores.folder / "files")
    for path in ("shop/..data", "shop/password", "shop/..1", "outside", "none"):
        with pytest.raises(exceptions.InvalidPath):
            read(client, "pods", path)


def test_only_files_and_variables_within_the_configured_place_are_read(stores: Stores, vault: VaultStage) -> None:
    files = stores.folder / "files"
    (files / "team").mkdir()
    (files / "team/api").write_text("key\n")
    (files / "team/db.json").write_text('{"password": "red"}')
    (files / "large").write_bytes(b"x" * (64 << 10))
    (files / "fitting").write_bytes(b"x" * 65_000)
    (files / "binary").write_bytes(b"\xff")
    (files / "link").symlink_to(stores.folder / "ostiary.toml")
    os.mkfifo(files / "pipe")
    client = vault.login()
    assert read(client, "files", "team/api") == {"value": "key\n"}
    assert read(client, "files", "team/db.json") == {"password": "red"}
    assert len(read(client, "files", "fitting")["value"]) == 65_000
    assert client.secrets.kv.v2.list_secrets("team", mount_point="backend/files")["data"]["keys"] == ["api", "db.json"]
    for path in ("link", "pipe", "team", "none", "team/api/x"):
        with pytest.raises(exceptions.InvalidPath):
            read(client, "files", path)
    for path, why in (("large", "more than"), ("binary", "UTF-8")):
        with pytest.raises(exceptions.BadGateway, match=why):
            read(client, "files", path)
    assert read(client, "env", "API_KEY") == {"value": "from-environment"}
    with pytest.raises(exceptions.InvalidPath):
        read(client, "env", "PATH")


def test_each_read_of_a_back_end_is_decided_and_writes_are_refused(stores: Stores, vault: VaultStage) -> None:
    stores.bao.secrets.kv.v2.create_or_update_secret("private/db", secret={"password": "blue"})
    client = vault.login()
    with pytest.raises(exceptions.Forbidden):
        read(client, "bao", "private/db")
    assert not vault.entries("backend.fetch"), "a denied request does not reach the back end"
    for refused in (
        lambda: client.secrets.kv.v2.create_or_update_secret("x", secret={"a": "b"}, mount_point="backend/bao"),
        lambda: client.secrets.kv.v2.delete_metadata_and_all_versions("x", mount_point="backend/bao"),
        lambda: client.secrets.kv.v2.read_secret_version(
            "x", version=2, mount_point="backend/bao", raise_on_deleted_version=True
        ),
    ):
        with pytest.raises(exceptions.VaultError, match="back end"):
            refused()
    with pytest.raises(exceptions.InvalidPath):
        read(client, "nosuch", "x")


def test_a_back_end_value_is_cached_and_dropped_when_the_secrets_are_sealed(stores: Stores, vault: VaultStage) -> None:
    key = stores.folder / "unseal.key"
    stores.bao.secrets.kv.v1.create_or_update_secret("kept", secret={"n": 1}, mount_point="old")
    client = vault.login()
    assert read(client, "old", "kept") == {"n": 1}
    stores.bao.secrets.kv.v1.create_or_update_secret("kept", secret={"n": 2}, mount_point="old")
    assert read(client, "old", "kept") == {"n": 1}
    ostiary = stores.live_server.server.ostiary
    ostiary("secret", "seal", "--key-file", str(key))
    with pytest.raises(exceptions.VaultDown):
        read(client, "old", "kept")
    ostiary("secret", "unseal", "--key-file", str(key))
    assert read(client, "old", "kept") == {"n": 2}
    ostiary("agent", "suspend", vault.name)
    with pytest.raises(exceptions.Forbidden):
        read(client, "old", "kept")


def test_secrets_are_copied_in_both_directions_and_a_dry_run_copies_nothing(stores: Stores) -> None:
    api = stores.live_server.api
    bao = stores.bao.secrets.kv.v2
    for path, value in {"app/db": {"password": "blue"}, "app/deep/er": {"n": 1.5}}.items():
        bao.create_or_update_secret(f"sync/{path}", secret=value)

    def sync(source: str, target: str, *, dry_run: bool = False) -> dict[str, str]:
        body = {"source": source, "target": target, "dry_run": dry_run}
        return {one["path"]: one["change"] for one in api("POST", "/secrets/sync", body)["changes"]}

    def put(password: str) -> None:
        api("POST", "/secrets/put", {"path": "secret/copied/db", "data": {"password": password}})

    pull = ("backend/bao/sync/app/", "secret/copied/")
    created = {"secret/copied/db": "create", "secret/copied/deep/er": "create"}
    printed = stores.live_server.server.ostiary("secret", "sync", *pull, "--dry-run")
    assert {one["path"]: one["change"] for one in printed} == created
    with pytest.raises(AssertionError, match="no value"):
        api("POST", "/secrets/get", {"path": "secret/copied/db"})
    assert sync(*pull) == created
    assert api("POST", "/secrets/get", {"path": "secret/copied/deep/er"})["data"] == {"n": 1.5}
    assert set(sync(*pull).values()) == {"same"}
    bao.create_or_update_secret("sync/app/db", secret={"password": "red"})
    assert sync(*pull) == {"secret/copied/db": "update", "secret/copied/deep/er": "same"}
    assert api("POST", "/secrets/get", {"path": "secret/copied/db"})["version"] == 2

    put("my own")
    push = ("secret/copied/", "backend/bao/sync/back/")
    back = {"backend/bao/sync/back/db": "create", "backend/bao/sync/back/deep/er": "create"}
    assert sync(*push, dry_run=True) == back
    with pytest.raises(exceptions.InvalidPath):
        bao.read_secret_version("sync/back/db", raise_on_deleted_version=True)
    assert sync(*push) == back
    assert set(sync(*push).values()) == {"same"}
    read_back = bao.read_secret_version("sync/back/db", raise_on_deleted_version=True)
    assert read_back["data"]["data"] == {"password": "my own"}
    assert sync("secret/copied/db", "backend/aws/sync/db") == {"backend/aws/sync/db": "create"}
    assert json.loads(stores.aws.get_secret_value(SecretId="sync/db")["SecretString"]) == {"password": "my own"}
    put("later")
    assert sync("secret/copied/db", "backend/aws/sync/db") == {"backend/aws/sync/db": "update"}
    for source, target, why in (
        ("secret/copied/", "backend/files/x/", "read-only"),
        ("secret/copied/", "secret/x/", "one of"),
        ("secret/copied/", "backend/bao/x", "both be folders"),
        ("backend/bao/nosuch/", "secret/x/", "empty"),
        ("transit/x", "backend/bao/x", "must begin with"),
    ):
        with pytest.raises(AssertionError, match=why):
            sync(source, target)
    assert "my own" not in json.dumps(stores.live_server.entries(limit=300))


def test_a_dry_run_predicts_the_changes_at_deleted_values(stores: Stores) -> None:
    api, bao = stores.live_server.api, stores.bao.secrets.kv.v2

    def sync(source: str, target: str) -> dict[str, str]:
        """Synchronise; return the change or the error at each path, which the dry run has predicted."""
        order = {"source": source, "target": target}
        planned, made = (api("POST", "/secrets/sync", order | {"dry_run": is_dry}) for is_dry in (True, False))
        assert planned == made
        return {one["path"]: one["error"] or one["change"] for one in made["changes"]}

    for name in ("deleted", "destroyed", "new"):
        api("POST", "/secrets/put", {"path": f"secret/gone/{name}", "data": {"v": name}})
    for name in ("deleted", "destroyed"):
        bao.create_or_update_secret(f"gone/{name}", secret={"v": "old"})
        stores.aws.create_secret(Name=f"gone/{name}", SecretString="old")
    bao.delete_latest_version_of_secret("gone/deleted")
    bao.destroy_secret_versions("gone/destroyed", versions=[1])
    stores.aws.delete_secret(SecretId="gone/deleted", RecoveryWindowInDays=7)

    pull = ("backend/bao/gone/", "secret/pulled/")
    with pytest.raises(AssertionError, match="empty"):
        api("POST", "/secrets/sync", {"source": pull[0], "target": pull[1]})
    bao.create_or_update_secret("gone/present", secret={"v": "old"})
    assert sync(*pull) == {"secret/pulled/present": "create"}
    push = "backend/bao/gone/"
    names = ("deleted", "destroyed", "new")
    assert sync("secret/gone/", push) == {f"{push}{name}": "create" for name in names}
    shown = [bao.read_secret_version(f"gone/{name}", raise_on_deleted_version=True)["data"] for name in names]
    assert [(one["data"]["v"], one["metadata"]["version"]) for one in shown] == [*zip(names, (2, 2, 1), strict=True)]
    assert sync("secret/gone/", "backend/aws/gone/") == {
        "backend/aws/gone/deleted": "the secret is scheduled for deletion at the back end",
        "backend/aws/gone/destroyed": "update",
        "backend/aws/gone/new": "create",
    }


def test_a_copy_replaces_a_secret_that_requires_check_and_set(stores: Stores, vault: VaultStage) -> None:
    stores.bao.secrets.kv.v2.create_or_update_secret("cas/db", secret={"password": "blue"})
    own, path = vault.login().secrets.kv.v2, f"{vault.folder}/db"
    own.update_metadata(path, cas_required=True)
    order = {"source": "backend/bao/cas/db", "target": f"secret/{path}"}
    for value in ("blue", "red"):
        stores.bao.secrets.kv.v2.create_or_update_secret("cas/db", secret={"password": value})
        planned, made = (
            stores.live_server.api("POST", "/secrets/sync", {**order, "dry_run": is_dry}) for is_dry in (True, False)
        )
        assert planned == made
        shown = own.read_secret_version(path, raise_on_deleted_version=True)["data"]["data"]
        assert shown == {"password": value}


def test_an_identity_token_of_openbao_logs_in_at_a_method_that_an_agent_enabled(stores: Stores) -> None:
    bao, issuer = stores.bao, f"{stores.bao.url}/v1/identity/oidc"
    bao.sys.enable_auth_method("userpass")
    bao.sys.create_or_update_policy("reader", 'path "identity/*" { capabilities = ["read", "update"] }')
    bao.auth.userpass.create_or_update_user("ann", password="canary-password", policies=["reader"])
    bao.secrets.identity.configure_tokens_backend(issuer=bao.url)
    bao.secrets.identity.create_named_key(name="key", allowed_client_ids=["*"])
    bao.secrets.identity.create_or_update_role(name="ci", key="key", ttl="5m")
    ann = hvac.Client(url=bao.url)
    ann.auth.userpass.login(username="ann", password="canary-password")
    signed = ann.secrets.identity.generate_signed_id_token(name="ci")["data"]
    vault = VaultStage(stores.live_server)
    stores.live_server.api("POST", "/policies", {"files": {"secrets.cedar": POLICIES + READERS + METHODS}})
    owner = vault.login()
    owner.sys.enable_auth_method("jwt", path="bao")
    jwt = owner.auth.jwt
    for source in ({"oidc_discovery_url": issuer}, {"jwks_url": f"{issuer}/.well-known/keys"}):
        jwt.configure(path="bao", **source)
        role = {"user_claim": "sub", "allowed_redirect_uris": [], "bound_audiences": [signed["client_id"]]}
        jwt.create_role(name="deploy", path="bao", **role)
        worker = hvac.Client(url=vault.url)
        worker.auth.jwt.jwt_login(role="deploy", jwt=signed["token"], path="bao")
        assert worker.lookup_token()["data"]["meta"]["role"] == "deploy"
    with pytest.raises(exceptions.InvalidRequest, match="keys fit the token's"):
        jwt.jwt_login(role="deploy", jwt=_resigned(signed["token"]), path="bao")
    jwt.configure(path="bao", jwks_url=f"{bao.url}/v1/sys/health")
    jwt.create_role(name="deploy", path="bao", **role)
    with pytest.raises(exceptions.BadGateway, match="JWK Set"):
        jwt.jwt_login(role="deploy", jwt=signed["token"], path="bao")


def _resigned(token: str) -> str:
    """The token with a key id that its issuer does not publish."""
    header, payload, signature = token.split(".")
    return ".".join((jose.b64u(jose.unb64u(header).replace(b'"kid":"', b'"kid":"x')), payload, signature))
