"""The unchanged client `hvac` against the server: login, key-value stores, tokens, and what is refused."""

from __future__ import annotations

import base64
from hashlib import sha256
from http.client import HTTPConnection
from urllib.parse import urlsplit

import httpx2
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hvac import Client, exceptions

from harness.live_server import ServerFixture
from harness.patience import PATIENCE_S
from tests.secrets.vault_fixtures import VaultStage


def test_a_client_logs_in_by_an_access_token_and_writes_and_reads_a_secret(vault: VaultStage) -> None:
    client = vault.login()
    kv = client.secrets.kv.v2
    path = f"{vault.folder}/db"
    written = kv.create_or_update_secret(path=path, secret={"password": "s3cr3t-canary"})
    assert written["data"]["version"] == 1
    read = kv.read_secret_version(path=path, raise_on_deleted_version=True)
    assert read["data"]["data"] == {"password": "s3cr3t-canary"}
    assert kv.list_secrets(path=vault.folder)["data"]["keys"] == ["db"]
    [entry] = vault.entries("vault.read")
    assert (entry.get("outcome", "ok"), entry["object"]) == ("ok", f"secret/{path}")
    assert entry["policies"] == ["use-own-secrets"]
    assert "s3cr3t" not in repr(vault.live_server.entries(limit=200))


def test_a_client_logs_in_by_a_client_secret(vault: VaultStage) -> None:
    made = vault.live_server.server.ostiary("agent", "create-secret", vault.name)
    client = Client(url=vault.url)
    client.auth.approle.login(role_id=made["client_id"], secret_id=made["client_secret"])
    client.secrets.kv.v1.create_or_update_secret(path=f"{vault.folder}/key", secret={"k": "v"}, mount_point="kv")
    assert client.secrets.kv.v1.read_secret(path=f"{vault.folder}/key", mount_point="kv")["data"] == {"k": "v"}


def test_an_agent_reads_no_secret_of_another(vault: VaultStage) -> None:
    other = VaultStage(vault.live_server)
    other.login().secrets.kv.v2.create_or_update_secret(path=f"{other.folder}/db", secret={"a": "b"})
    with pytest.raises(exceptions.Forbidden):
        vault.login().secrets.kv.v2.read_secret_version(path=f"{other.folder}/db", raise_on_deleted_version=True)
    assert vault.entries("vault.read")[0]["outcome"] == "refused"


@pytest.fixture(scope="module")
def keys(vault_server: ServerFixture) -> Client:
    """A client of an agent that may use every key; its token outlasts the tests of this module."""
    return VaultStage(vault_server).login()


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def test_transit_encrypts_rotates_and_refuses_old_versions(keys: Client) -> None:
    transit = keys.secrets.transit
    transit.create_key(name="orders")
    first = transit.encrypt_data(name="orders", plaintext=b64(b"one"))["data"]["ciphertext"]
    assert first.startswith("vault:v1:")
    transit.rotate_key(name="orders")
    second = transit.rewrap_data(name="orders", ciphertext=first)["data"]["ciphertext"]
    assert second.startswith("vault:v2:")
    for text in (first, second):
        assert transit.decrypt_data(name="orders", ciphertext=text)["data"]["plaintext"] == b64(b"one")
    transit.update_key_configuration(name="orders", min_decryption_version=2)
    assert transit.decrypt_data(name="orders", ciphertext=second)["data"]["plaintext"] == b64(b"one")
    with pytest.raises(exceptions.InvalidRequest, match="too old"):
        transit.decrypt_data(name="orders", ciphertext=first)
    with pytest.raises(exceptions.InvalidRequest, match="authentication failed"):
        transit.decrypt_data(name="orders", ciphertext="vault:v2:" + b64(bytes(40)))
    with pytest.raises(exceptions.InvalidRequest, match="higher than the latest"):
        transit.encrypt_data(name="orders", plaintext=b64(b"x"), key_version=3)
    assert transit.read_key(name="orders")["data"]["keys"].keys() == {"2"}
    with pytest.raises(exceptions.InvalidRequest, match="deletion is not allowed"):
        transit.delete_key(name="orders")
    transit.update_key_configuration(name="orders", deletion_allowed=True)
    transit.delete_key(name="orders")
    with pytest.raises(exceptions.InvalidPath):
        transit.read_key(name="orders")


def test_a_batch_result_keeps_its_order_and_states_the_failed_items(keys: Client) -> None:
    transit = keys.secrets.transit
    transit.create_key(name="batches")
    answer = transit.encrypt_data(name="batches", batch_input=[{"plaintext": b64(b"a")}, {"plaintext": b64(b"b")}])
    texts = [one["ciphertext"] for one in answer["data"]["batch_results"]]
    back = transit.decrypt_data(name="batches", batch_input=[{"ciphertext": text} for text in texts])
    assert [one["plaintext"] for one in back["data"]["batch_results"]] == [b64(b"a"), b64(b"b")]
    items = [{"ciphertext": texts[0]}, {"ciphertext": f"vault:v9:{b64(bytes(40))}", "reference": "r"}]
    headers = {"x-vault-token": keys.token}
    broken = httpx2.post(f"{keys.url}/v1/transit/decrypt/batches", json={"batch_input": items}, headers=headers)
    results = broken.json()["data"]["batch_results"]
    assert broken.status_code == 400
    assert results == [{"plaintext": b64(b"a")}, {"error": "invalid ciphertext: version is too new", "reference": "r"}]


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa-p256", "ecdsa-p384"])
def test_a_signature_verifies_for_its_input_alone(keys: Client, kind: str) -> None:
    transit = keys.secrets.transit
    transit.create_key(name=f"sign-{kind}", key_type=kind)
    signature = transit.sign_data(name=f"sign-{kind}", hash_input=b64(b"data"))["data"]["signature"]

    def is_valid(data: bytes) -> bool:
        answer = transit.verify_signed_data(name=f"sign-{kind}", hash_input=b64(data), signature=signature)
        return bool(answer["data"]["valid"])

    assert (is_valid(b"data"), is_valid(b"other")) == (True, False)
    public = transit.read_key(name=f"sign-{kind}")["data"]["keys"]["1"]["public_key"]
    if kind == "ed25519":
        key = Ed25519PublicKey.from_public_bytes(base64.b64decode(public))
        key.verify(base64.b64decode(signature.rpartition(":")[2]), b"data")
    else:
        assert "BEGIN PUBLIC KEY" in public
    with pytest.raises(exceptions.InvalidRequest, match="not supported for key type"):
        transit.encrypt_data(name=f"sign-{kind}", plaintext=b64(b"x"))


def test_transit_returns_hmacs_data_keys_random_bytes_and_hashes(keys: Client) -> None:
    transit = keys.secrets.transit
    transit.create_key(name="tools")
    made = transit.generate_hmac(name="tools", hash_input=b64(b"data"), algorithm="sha2-512")["data"]["hmac"]
    for data, is_valid in ((b"data", True), (b"datb", False)):
        answer = transit.verify_signed_data(
            name="tools",
            hash_input=b64(data),
            hmac=made,
            hash_algorithm="sha2-512",
            signature_algorithm=None,
            marshaling_algorithm=None,
        )
        assert answer["data"]["valid"] is is_valid
    data_key = transit.generate_data_key(name="tools", key_type="plaintext")["data"]
    assert (
        transit.decrypt_data(name="tools", ciphertext=data_key["ciphertext"])["data"]["plaintext"]
        == (data_key["plaintext"])
    )
    assert (
        len(bytes.fromhex(transit.generate_random_bytes(n_bytes=24, output_format="hex")["data"]["random_bytes"])) == 24
    )
    assert transit.hash_data(hash_input=b64(b"data"))["data"]["sum"] == sha256(b"data").hexdigest()


def test_a_key_is_exported_saved_restored_and_trimmed(keys: Client) -> None:
    transit = keys.secrets.transit
    transit.create_key(name="moved", exportable=True)
    sealed = transit.encrypt_data(name="moved", plaintext=b64(b"one"))["data"]["ciphertext"]
    [exported] = transit.export_key(name="moved", key_type="encryption-key")["data"]["keys"].values()
    content = base64.b64decode(sealed.rpartition(":")[2])
    assert AESGCM(base64.b64decode(exported)).decrypt(content[:12], content[12:], None) == b"one"
    with pytest.raises(exceptions.InternalServerError, match="plaintext backup is disallowed on the policy"):
        transit.backup_key(name="moved")
    transit.update_key_configuration(name="moved", allow_plaintext_backup=True)
    backup = transit.backup_key(name="moved")["data"]["backup"]
    with pytest.raises(exceptions.InternalServerError, match="already exists"):
        transit.restore_key(backup=backup)
    transit.restore_key(backup=backup, name="back", force=True)
    assert transit.decrypt_data(name="back", ciphertext=sealed)["data"]["plaintext"] == b64(b"one")
    for _ in range(2):
        transit.rotate_key(name="back")
    transit.update_key_configuration(name="back", min_decryption_version=2, min_encryption_version=3)
    transit.trim_key(name="back", min_version=2)
    with pytest.raises(exceptions.InvalidRequest, match="too old"):
        transit.decrypt_data(name="back", ciphertext=sealed)


def test_a_telemetry_path_under_v1_is_not_served_by_the_vault_api(vault: VaultStage) -> None:
    answer = httpx2.post(f"{vault.url}/v1/traces", json={}, headers={"x-vault-token": "hvs.none"})
    assert (answer.status_code, "errors" in answer.json()) == (401, False)


def test_the_client_reads_the_health_the_seal_status_and_the_mounts(vault: VaultStage) -> None:
    client = vault.login()
    assert client.sys.read_health_status().status_code == 200
    health = client.sys.read_health_status(method="GET")
    assert (health["initialized"], health["sealed"]) == (True, False)
    assert (client.sys.is_initialized(), client.sys.is_sealed(), client.is_authenticated()) == (True, False, True)
    assert set(client.sys.list_mounted_secrets_engines()["data"]) == {
        "aws/",
        "cubbyhole/",
        "database/",
        "kv/",
        "oauth/",
        "secret/",
        "transit/",
    }
    assert client.sys.get_capabilities(paths=[f"secret/data/{vault.folder}/x"])["data"]["capabilities"] == [
        "create",
        "delete",
        "patch",
        "read",
        "update",
    ]


@pytest.mark.filterwarnings("ignore:The raise_on_deleted_version parameter:DeprecationWarning")
def test_the_client_changes_versions_and_metadata(vault: VaultStage) -> None:
    kv, path = vault.login().secrets.kv.v2, f"{vault.folder}/db"
    kv.create_or_update_secret(path=path, secret={"a": "1"}, cas=0)
    with pytest.raises(exceptions.InvalidRequest, match="check-and-set"):
        kv.create_or_update_secret(path=path, secret={"a": "2"}, cas=0)
    assert kv.patch(path=path, secret={"b": "2"})["data"]["version"] == 2
    kv.delete_latest_version_of_secret(path=path)
    with pytest.raises(exceptions.InvalidPath):
        kv.read_secret_version(path=path, raise_on_deleted_version=True)
    kv.undelete_secret_versions(path=path, versions=[2])
    read = kv.read_secret_version(path=path, raise_on_deleted_version=True)
    assert read["data"]["data"] == {"a": "1", "b": "2"}
    kv.destroy_secret_versions(path=path, versions=[1])
    kv.update_metadata(path=path, max_versions=3, delete_version_after="1h", custom_metadata={"team": "x"})
    shown = kv.read_secret_metadata(path=path)["data"]
    assert (shown["max_versions"], shown["delete_version_after"]) == (3, "1h0m0s")
    assert (shown["custom_metadata"], shown["versions"]["1"]["destroyed"]) == ({"team": "x"}, True)
    kv.delete_metadata_and_all_versions(path=path)
    with pytest.raises(exceptions.InvalidPath):
        kv.list_secrets(path=vault.folder)


def test_a_token_is_renewed_and_revoked(vault: VaultStage) -> None:
    client = vault.login()
    token = client.auth.token
    assert token.lookup_self()["data"]["id"] == client.token
    assert token.renew_self(increment="5m")["auth"]["lease_duration"] <= 300
    token.revoke_self()
    with pytest.raises(exceptions.Forbidden):
        token.lookup_self()


ENCODED = (
    ("secret/data/agents/{}/../{}/db", 400),
    ("secret/data/agents/{}/%2e%2e/{}/db", 400),
    ("secret/data//agents/{}/db", 400),
    ("secret/data/agents/{}%2fdb", 200),
    ("secret/data/agents/{}/db%2e", 404),
    ("secret/data/agents/{}/%252e%252e", 400),
    ("secret/data/agents/{}/db%00", 400),
    ("secret%2fdata/agents/{}/db", 200),
    ("secret/data/agents/{}/db%E2%80%8B", 400),
    ("secret/data/agents/{}/db%ff", 400),
    ("secret/data/agents/{}/DB", 404),
)


def test_an_encoded_path_has_the_same_meaning_or_is_refused(vault: VaultStage) -> None:
    client = vault.login()
    client.secrets.kv.v2.create_or_update_secret(path=f"{vault.folder}/db", secret={"a": "b"})
    for path, status in ENCODED:
        connection = HTTPConnection(urlsplit(vault.url).netloc, timeout=PATIENCE_S)  # sends the path as it is
        connection.request("GET", f"/v1/{path.replace('{}', vault.name)}", headers={"x-vault-token": client.token})
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        assert (answer.status, b'{"a":"b"}' in body) == (status, status == 200), (path, body)


def test_the_sdk_reads_a_secret_whose_name_has_characters_that_a_url_escapes(vault: VaultStage) -> None:
    client = vault.login()
    with vault.agent() as agent:
        for name in ("a b", "ä", "a:b", "a+b@c", "(a),'b'"):
            client.secrets.kv.v2.create_or_update_secret(f"{vault.folder}/{name}", secret={"k": name})
            assert agent.secret(f"secret/{vault.folder}/{name}").data == {"k": name}


def test_the_link_method_is_not_accepted_as_list(vault: VaultStage) -> None:
    client = vault.login()
    client.secrets.kv.v2.create_or_update_secret(path=f"{vault.folder}/db", secret={"a": "b"})
    address = urlsplit(vault.url)
    assert address.hostname is not None
    connection = HTTPConnection(address.hostname, address.port)
    for method, status in (("LIST", 200), ("LINK", 405), ("LIST", 200), ("LINK", 405)):
        headers = {"x-vault-token": client.token}
        connection.request(method, f"/v1/secret/metadata/{vault.folder}", headers=headers)
        answer = connection.getresponse()
        answer.read()
        assert answer.status == status, method
    connection.close()
