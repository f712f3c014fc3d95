"""Canary values in every field that holds a secret: nothing that the server wrote or said contains one, in any form."""

from __future__ import annotations

import json
import re
import resource
import sys
from base64 import b64decode, b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import httpx2
import hvac
import pytest
import requests
from botocore.client import Config
from botocore.exceptions import ClientError
from hvac.exceptions import VaultError

from harness.live_server import own_server, pid_of
from harness.server import COMMAND
from ostiary.protocol import jose
from tests.secrets.database_fixtures import CREATE, ROOT, DatabaseFixture, database_fixture
from tests.secrets.vault_fixtures import POLICIES, PRIVATE, VaultStage

MARK = "c4n4ry"
PERMIT_ALL = '@id("everything") permit (principal is Agent, action, resource is Secret);'
TO_BOTH = ("bash", "-c", 'exec "$1" "${@:3}" > >(tee "$2")', "bash")
"""Runs a command whose standard output goes to a file too."""


class Canaries:
    """Planted values, which all contain `MARK`, and the secrets that the server made."""

    def __init__(self) -> None:
        self.planted: list[str] = []
        self.made: list[str] = []

    def plant(self, place: str) -> str:
        self.planted.append(f"{MARK}-{place}-{len(self.planted)}")
        return self.planted[-1]

    def keep(self, secret: str) -> str:
        """Note a secret that the server made and gave to its holder."""
        assert len(secret) >= 16
        self.made.append(secret)
        return secret

    def texts(self) -> list[str]:
        return [MARK, *self.made]


def forms(text: str) -> set[bytes]:
    """The text as it is, in hexadecimal digits, and inside of base64 at each of the three places of a group."""
    raw = text.encode()
    found = {raw, raw.hex().encode(), raw.hex().upper().encode()}
    for before in range(3):
        encoded = b64encode(bytes(before) + raw)
        inner = encoded[-(-before * 8 // 6) : (before + len(raw)) * 8 // 6]
        found |= {inner, inner.replace(b"+", b"-").replace(b"/", b"_")}
    return found


def find(texts: list[str], content: bytes) -> list[bytes]:
    """The surroundings of the first place of each form that the content contains."""
    places = [content.find(form) for text in texts for form in forms(text)]
    return [content[max(place - 100, 0) : place + 60] for place in places if place >= 0]


def test_a_canary_is_found_in_each_form() -> None:
    text = MARK + "-x"
    for number in range(4):
        around = b"a" * number + text.encode() + b"z"
        for content in (around, b64encode(around), around.hex().encode(), around.hex().upper().encode()):
            assert find([MARK], content), content
    assert not find([MARK], b64encode(b"c4n4r") + b"c4n4r-y")


@pytest.fixture(scope="module")
def shop() -> Iterator[DatabaseFixture]:
    with database_fixture() as made:
        yield made


def refused(use: Any, *arguments: Any, **named: Any) -> None:
    with pytest.raises((VaultError, ClientError, requests.RequestException)) as refusal:
        use(*arguments, **named)
    assert not find([MARK], str(refusal.value).encode()), str(refusal.value)


def plant_everywhere(vault: VaultStage, shop: DatabaseFixture, canaries: Canaries, folder: Path) -> None:
    """Use each field of the interfaces that holds a secret, rightly and wrongly."""
    plant, keep, server = canaries.plant, canaries.keep, vault.live_server.server
    made = server.ostiary("agent", "create-secret", vault.name)
    client = hvac.Client(url=vault.url)
    keep(made["client_secret"])
    client.auth.approle.login(role_id=made["client_id"], secret_id=made["client_secret"])
    keep(client.token)
    refused(client.auth.approle.login, made["client_id"], plant("secret-id"), use_token=False)
    token = keep(vault.bearer())
    refused(hvac.Client(url=vault.url).auth.jwt.jwt_login, vault.name, token[:-9] + plant("jwt"))

    # stored values: both engines, in members and their names, by patches, by the administrator, by files of the command
    kv, path = client.secrets.kv, f"{vault.folder}/db"
    kv.v2.create_or_update_secret(path, {"password": plant("kv2"), plant("member"): 1, "deep": [{"a": plant("deep")}]})
    patch = {"Content-Type": "application/merge-patch+json", "X-Vault-Token": client.token}
    body = json.dumps({"data": {"other": plant("patch")}})
    assert requests.patch(f"{vault.url}/v1/secret/data/{path}", data=body, headers=patch).status_code == 200
    assert MARK in str(kv.v2.read_secret_version(path, raise_on_deleted_version=True))
    kv.v1.create_or_update_secret(path, {"password": plant("kv1")}, mount_point="kv")
    refused(client.adapter.post, f"/v1/secret/data/{path}", json={"data": plant("no-object")})
    refused(client.adapter.post, f"/v1/secret/data/{path}", json={"data": {"x": plant("cas")}, "options": {"cas": 99}})
    refused(client.adapter.post, f"/v1/secret/data/{path}", json={"data": {}, "options": plant("options")})
    refused(client.adapter.post, f"/v1/secret/data/{path}", data=f'{{"data": {{"x": "{plant("no-json")}"')
    refused(client.adapter.post, "/v1/secret/data/shared/%2525", json={"data": {"x": plant("path")}})
    file = folder / "value"
    file.write_text(plant("file"))
    server.ostiary("secret", "put", "secret/shared/shop", f"key=@{file}")
    file.unlink()
    assert MARK in server.ostiary("secret", "get", "secret/shared/shop")["data"]["key"]

    # keys that stay in the server
    transit = client.secrets.transit
    transit.create_key("key")
    sealed = transit.encrypt_data("key", b64encode(plant("plaintext").encode()).decode())["data"]["ciphertext"]
    assert MARK.encode() in jose.unb64u(
        transit.decrypt_data("key", sealed)["data"]["plaintext"].rstrip("=").replace("+", "-").replace("/", "_")
    )
    refused(transit.encrypt_data, "key", plant("not-base64"))
    refused(transit.decrypt_data, "key", f"vault:v1:{plant('ciphertext')}")
    transit.generate_hmac("key", b64encode(plant("hmac").encode()).decode())
    transit.hash_data(b64encode(plant("hash").encode()).decode())
    keep(transit.generate_data_key("key", "plaintext")["data"]["plaintext"])
    transit.create_key("moved", exportable=True, allow_plaintext_backup=True)
    for use in ("encryption-key", "hmac-key"):
        keep(transit.export_key("moved", use)["data"]["keys"]["1"])
    backup = keep(transit.backup_key("moved")["data"]["backup"])
    transit.restore_key(backup, name="back")
    refused(transit.restore_key, plant("no-backup"))
    wrong = {**json.loads(b64decode(backup)), plant("backup-member"): plant("backup")}
    refused(transit.restore_key, b64encode(json.dumps(wrong).encode()).decode())

    # passwords of databases
    password, database = plant("root"), client.secrets.database
    with shop.connect() as operator:
        operator.execute(f"alter role {ROOT} password '{password}'")
    connection = shop.connection | {"password": password}
    refused(database.configure, "shop", **connection | {"password": plant("wrong-root")})
    url = f"postgresql://eve:{plant('url')}@/shop?host={shop.folder}"
    refused(database.configure, "shop", **connection | {"connection_url": url})
    database.configure("shop", **connection)
    database.create_role("reader", "shop", creation_statements=CREATE, default_ttl="10m", max_ttl="30m")
    database.create_role(
        "broken", "shop", creation_statements=["""CREATE ROLE "{{name}}" PASSWORD '{{password}}' BAD"""]
    )
    account = database.generate_credentials("reader")
    keep(account["data"]["password"])
    refused(database.generate_credentials, "broken")
    database.create_static_role(
        "report", "shop", "reporting", ["alter role \"{{name}}\" password '{{password}}'"], "24h"
    )
    keep(database.get_static_credentials("report")["data"]["password"])

    # wrapped answers
    wrapped = client.write_data("sys/wrapping/wrap", data={"a": plant("wrapped")}, wrap_ttl="60s")
    keep(wrapped["wrap_info"]["token"])
    refused(client.sys.unwrap, plant("wrapping-token"))

    # the API of AWS
    key = server.ostiary("aws-key", "create", vault.name, "--network", "127.0.0.0/8")
    aws = boto3.client(
        "secretsmanager",
        endpoint_url=key["endpoint"],
        region_name="us-east-1",
        aws_access_key_id=key["access_key_id"],
        aws_secret_access_key=keep(key["secret_access_key"]),
        config=Config(retries={"max_attempts": 0}),
    )
    aws.create_secret(Name=f"{vault.folder}/aws", SecretString=plant("aws"))
    aws.put_secret_value(SecretId=f"{vault.folder}/aws", SecretBinary=plant("binary").encode())
    refused(aws.create_secret, Name=f"{vault.folder}/aws", SecretString=plant("aws-again"))
    refused(aws.put_secret_value, SecretId="agents/other/x", SecretString=plant("aws-denied"))

    # the unseal key, and headers and bodies that hold secrets in the wrong place
    url = f"{vault.url}/v1"
    answers = [
        requests.get(f"{url}/secret/data/{path}", headers={"X-Vault-Token": plant("token")}),
        requests.get(f"{url}/secret/data/{path}", headers={"X-Vault-Token": f"hvs.{plant('token')}"}),
        requests.get(f"{url}/secret/data/{path}", headers={"Authorization": f"Bearer {plant('bearer')}"}),
        requests.get(
            f"{url}/secret/data/{path}", headers={"Authorization": f"DPoP {plant('dpop')}", "DPoP": plant("p")}
        ),
        requests.get(
            f"{url}/secret/data/{path}", headers={"X-Vault-Wrap-TTL": plant("ttl"), "X-Vault-Token": client.token}
        ),
        requests.get(f"{url}/secret/data/{path}", headers={"Cookie": plant("cookie"), "X-Api-Key": plant("header")}),
        requests.post(f"{url}/auth/approle/login", json={"role_id": plant("role"), "secret_id": [plant("list")]}),
        requests.post(f"{vault.url}/token", data={"grant_type": plant("grant"), "client_secret": plant("form")}),
        requests.post(f"{vault.url}/api/v1/secrets/put", json={"path": 1, "data": {"x": plant("admin")}}),
        requests.post(
            f"{vault.url}/aws/", data=plant("aws-body"), headers={"X-Amz-Target": "secretsmanager.PutSecretValue"}
        ),
    ]
    for answer in answers:
        assert answer.status_code >= 400
        assert not find([MARK], answer.content), answer.text
    key_file = folder / "unseal.key"
    key_file.write_text(keep(jose.b64u(PRIVATE)))
    server.ostiary("secret", "seal", "--key-file", str(key_file))
    refused(client.sys.submit_unseal_key, plant("wrong-unseal"))
    assert requests.get(f"{url}/secret/data/{path}", headers={"X-Vault-Token": client.token}).status_code == 503
    server.ostiary("secret", "unseal", "--key-file", str(key_file))
    key_file.unlink()


def processes_of(pid: int) -> Iterator[int]:
    """A process and those below it."""
    yield pid
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        yield from processes_of(int(child))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the limits of another process")
def test_no_process_of_the_server_writes_its_memory_to_a_core_dump(vault: VaultStage) -> None:
    limits = [resource.prlimit(pid, resource.RLIMIT_CORE) for pid in processes_of(pid_of(vault.live_server.server))]
    assert limits
    assert set(limits) <= {(0, 0), (1, 1)}, "with 1, no program receives a dump either"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_files_responses_and_logs_of_the_server_contain_no_secret(
    shop: DatabaseFixture, tmp_path: Path, kind: str
) -> None:
    canaries, stdout = Canaries(), tmp_path / "stdout"
    settings = tmp_path / "ostiary.toml"
    settings.write_text(f'data_dir = "{tmp_path}/server"\nsecret_databases = "{shop.folder}"\n')
    options = ["--config", str(settings)]
    if kind == "postgresql":
        options += ["--database", shop.cluster.create("ostiary")]
    seen: dict[str, bytes] = {}
    with own_server(tmp_path, *options, command=(*TO_BOTH, COMMAND, stdout)) as live_server:
        live_server.api("POST", "/policies", {"files": {"secrets.cedar": POLICIES + PERMIT_ALL}})
        vault = VaultStage(live_server)
        plant_everywhere(vault, shop, canaries, tmp_path)
        seen["ledger"] = repr(live_server.entries(limit=1000)).encode()
        seen["openapi"] = httpx2.get(f"{vault.url}/openapi.json").content
        seen["metrics"] = repr(live_server.api("GET", "/doctor")).encode()
        for pid in processes_of(pid_of(live_server.server)):
            for name in ("cmdline", "environ"):
                seen[f"{name} of {pid}"] = Path(f"/proc/{pid}/{name}").read_bytes()
        files = [path for path in tmp_path.rglob("*") if path.is_file()]
        seen |= {f"{path} while it runs": path.read_bytes() for path in files if "ostiary.db" in path.name}
    folders = [tmp_path] if kind == "sqlite" else [tmp_path, shop.data]
    for path in (path for folder in folders for path in folder.rglob("*") if path.is_file()):
        seen[str(path)] = path.read_bytes()
    assert len(canaries.planted) >= 40
    database = b"".join(content for place, content in seen.items() if re.search(r"ostiary\.db|/base/|/pg_wal/", place))
    assert vault.folder.encode() in database, "the files of the database are among the searched ones"
    assert b"ready http" in seen[str(stdout)]
    found = {place: leaks for place, content in seen.items() if (leaks := find(canaries.texts(), content))}
    assert not found
