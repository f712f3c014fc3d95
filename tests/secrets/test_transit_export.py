"""Keys of the transit engine that leave the server or come back: export, backup, restore; the end of versions; and
automatic rotation.
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from harness.registry_fixtures import newest_entry
from ostiary.protocol.errors import Conflict
from ostiaryd.incidents.flows import exposure
from ostiaryd.ledger.flows import act
from ostiaryd.registry import flows as registry
from ostiaryd.secrets import wire_rotations
from ostiaryd.secrets.flows import transit
from ostiaryd.secrets.model import transit_keys as model
from tests.secrets.transit_fixtures import closed, done, opened, raw, refused
from tests.secrets.vault_fixtures import VaultAgent, permit_all, seal_all, unseal
from tests.support.certificate_fixtures import encode_slow_key, put_policies
from tests.support.incident_fixtures import entries_of

if TYPE_CHECKING:
    from harness.clock import Clock
    from ostiaryd.ground.world import World

DATA = base64.b64encode(b"data").decode()
OPEN = {"exportable": True, "allow_plaintext_backup": True}


@pytest.fixture
async def keeper(world: World, bot: VaultAgent) -> VaultAgent:
    """An agent that may do everything."""
    await permit_all(world)
    return bot


async def test_an_exported_key_decrypts_and_signs_like_the_server(world: World, keeper: VaultAgent) -> None:
    for kind in ("aes256-gcm96", "ed25519", "ecdsa-p256"):
        await done(keeper, "POST", f"transit/keys/{kind}", {"type": kind, "exportable": True})
    sealed = raw((await done(keeper, "POST", "transit/encrypt/aes256-gcm96", {"plaintext": DATA}))["ciphertext"])
    exported = await done(keeper, "GET", "transit/export/encryption-key/aes256-gcm96")
    assert (exported["name"], exported["type"], list(exported["keys"])) == ("aes256-gcm96", "aes256-gcm96", ["1"])
    assert AESGCM(base64.b64decode(exported["keys"]["1"])).decrypt(sealed[:12], sealed[12:], None) == b"data"
    entry = newest_entry(world)
    assert (entry.action, entry.object) == ("vault.export", "transit/aes256-gcm96")
    assert entry.detail == {"operation": "export", "use": "encryption-key", "versions": [1]}
    assert exported["keys"]["1"] not in repr(entry)

    key = (await done(keeper, "GET", "transit/export/hmac-key/aes256-gcm96/latest"))["keys"]["1"]
    made = raw((await done(keeper, "POST", "transit/hmac/aes256-gcm96", {"input": DATA}))["hmac"])
    assert hmac.digest(base64.b64decode(key), b"data", "sha256") == made

    signature = raw((await done(keeper, "POST", "transit/sign/ed25519", {"input": DATA}))["signature"])
    seed = base64.b64decode((await done(keeper, "GET", "transit/export/signing-key/ed25519/1"))["keys"]["1"])
    own = Ed25519PrivateKey.from_private_bytes(seed[:32])
    assert (own.sign(b"data"), own.public_key().public_bytes_raw()) == (signature, seed[32:])
    signature = raw((await done(keeper, "POST", "transit/sign/ecdsa-p256", {"input": DATA}))["signature"])
    text = (await done(keeper, "GET", "transit/export/signing-key/ecdsa-p256"))["keys"]["1"]
    curve = load_pem_private_key(text.encode(), None)
    assert isinstance(curve, ec.EllipticCurvePrivateKey)
    curve.public_key().verify(signature, b"data", ec.ECDSA(hashes.SHA256()))

    agent = registry.find_agent(world.db.read(), "bot").agent_id
    exposed = {one.path for one in exposure.find_exposed(world.db.read(), agent)}
    assert exposed == {"transit/aes256-gcm96", "transit/ed25519", "transit/ecdsa-p256"}, "an incident names them"


async def test_a_key_can_be_exported_or_backed_up_only_if_its_configuration_permits(
    world: World, keeper: VaultAgent
) -> None:
    await done(keeper, "POST", "transit/keys/k", {})
    export, backup = "transit/export/encryption-key/k", "transit/backup/k"
    assert "not exportable" in await refused(world, keeper, 400, "GET", export)
    await done(keeper, "POST", "transit/keys/k/config", {"allow_plaintext_backup": True})
    assert "exporting is disallowed" in await refused(world, keeper, 500, "GET", backup)
    await done(keeper, "POST", "transit/keys/k/config", {"exportable": True})
    shown = await done(keeper, "GET", "transit/keys/k")
    assert (shown["exportable"], shown["allow_plaintext_backup"]) == (True, True)
    await done(keeper, "GET", backup)
    for name in OPEN:
        assert "cannot be disabled" in await refused(world, keeper, 400, "POST", "transit/keys/k/config", {name: False})
    await done(keeper, "POST", "transit/keys/closed", {"exportable": True})
    await done(keeper, "POST", "transit/keys/closed/config", {"allow_plaintext_backup": False})
    assert "plaintext backup is disallowed" in await refused(world, keeper, 500, "GET", "transit/backup/closed")

    await done(keeper, "POST", "transit/keys/k/rotate")
    await done(keeper, "POST", "transit/keys/k/rotate")
    await done(keeper, "POST", "transit/keys/k/config", {"min_decryption_version": 2})
    assert list((await done(keeper, "GET", export))["keys"]) == ["2", "3"]
    assert list((await done(keeper, "GET", f"{export}/2"))["keys"]) == ["2"]
    assert list((await done(keeper, "GET", f"{export}/latest"))["keys"]) == ["3"]
    for version in ("1", "4", "0", "02", "x", "1/2"):
        assert "version" in await refused(world, keeper, 400, "GET", f"{export}/{version}")
    assert "invalid export type" in await refused(world, keeper, 400, "GET", "transit/export/x-key/k")
    assert "not supported" in await refused(world, keeper, 400, "GET", "transit/export/signing-key/k")
    await refused(world, keeper, 404, "GET", "transit/export/encryption-key/none")
    for method, path in (("POST", export), ("DELETE", backup), ("GET", "transit/restore")):
        await refused(world, keeper, 405, method, path)


async def test_each_export_backup_and_restoration_of_a_key_needs_its_own_action(
    world: World, keeper: VaultAgent
) -> None:
    await done(keeper, "POST", "transit/keys/k", OPEN)
    await done(keeper, "POST", "transit/keys/shut", {})
    backup = (await done(keeper, "GET", "transit/backup/k"))["backup"]
    everything = "permit (principal is Agent, action, resource is Secret);"
    await put_policies(
        world, everything + 'forbid (principal, action == Action::"export_secret_key", resource) unless { false };'
    )
    ways: tuple[tuple[str, str, Any], ...] = (
        ("GET", "export/encryption-key/k", None),
        ("GET", "export/hmac-key/k/1", None),
        ("GET", "backup/k", None),
        ("POST", "restore/new", {"backup": backup}),
        ("POST", "keys/new", {"exportable": True}),
        ("POST", "keys/new", {"allow_plaintext_backup": True}),
        ("POST", "keys/shut/config", {"exportable": True}),
        ("POST", "keys/shut/config", {"allow_plaintext_backup": True}),
    )
    for method, path, body in ways:
        await refused(world, keeper, 403, method, f"transit/{path}", body)
    assert (await done(keeper, "LIST", "transit/keys"))["keys"] == ["k", "shut"]
    shown = await done(keeper, "GET", "transit/keys/shut")
    assert (shown["exportable"], shown["allow_plaintext_backup"]) == (False, False)
    await done(keeper, "POST", "transit/keys/new", {"exportable": False})
    await put_policies(world, everything + 'forbid (principal, action == Action::"write_secret", resource);')
    await refused(world, keeper, 403, "POST", "transit/restore/other", {"backup": backup})
    await put_policies(world, everything + 'forbid (principal, action == Action::"delete_secret", resource);')
    await refused(world, keeper, 403, "POST", "transit/restore/other", {"backup": backup, "force": True})
    await done(keeper, "POST", "transit/restore/other", {"backup": backup, "force": False})


async def test_a_backup_restores_a_key_with_its_versions(world: World, keeper: VaultAgent) -> None:
    await done(keeper, "POST", "sys/mounts/other", {"type": "transit"})
    await done(keeper, "POST", "transit/keys/k", {"type": "chacha20-poly1305", **OPEN})
    old = (await done(keeper, "POST", "transit/encrypt/k", {"plaintext": DATA}))["ciphertext"]
    await done(keeper, "POST", "transit/keys/k/rotate")
    new = (await done(keeper, "POST", "transit/encrypt/k", {"plaintext": DATA}))["ciphertext"]
    await done(keeper, "POST", "transit/keys/k/config", {"min_decryption_version": 2})
    backup = (await done(keeper, "GET", "transit/backup/k"))["backup"]
    assert newest_entry(world).detail == {"operation": "backup", "versions": [1, 2]}
    await done(keeper, "POST", "other/restore", {"backup": backup})
    assert newest_entry(world).object == "other/k"
    assert (await done(keeper, "POST", "other/decrypt/k", {"ciphertext": new}))["plaintext"] == DATA
    await refused(world, keeper, 400, "POST", "other/decrypt/k", {"ciphertext": old})
    await done(keeper, "POST", "other/keys/k/config", {"min_decryption_version": 1})
    assert (await done(keeper, "POST", "other/decrypt/k", {"ciphertext": old}))["plaintext"] == DATA

    await done(keeper, "POST", "transit/keys/taken", {})
    kept = (await done(keeper, "POST", "transit/encrypt/taken", {"plaintext": DATA}))["ciphertext"]
    restore = "transit/restore/taken"
    assert "already exists" in await refused(world, keeper, 500, "POST", restore, {"backup": backup})
    forced = {"backup": backup, "force": True}
    assert "deletion is not allowed" in await refused(world, keeper, 400, "POST", restore, forced)
    assert (await done(keeper, "POST", "transit/decrypt/taken", {"ciphertext": kept}))["plaintext"] == DATA
    await done(keeper, "POST", "transit/keys/taken/config", {"deletion_allowed": True})
    await done(keeper, "POST", restore, forced)
    assert (await done(keeper, "POST", "transit/decrypt/taken", {"ciphertext": new}))["plaintext"] == DATA
    assert (await done(keeper, "GET", "transit/keys/taken"))["name"] == "taken"


Change = Callable[[dict[str, Any]], object]
WRONG: dict[str, Change] = {
    "format": lambda b: b.update(format="ostiary-transit-key-2"),
    "member": lambda b: b.update(more=1),
    "type": lambda b: b["key"].update(kind="rsa-4096"),
    "other type": lambda b: b["key"].update(kind="aes128-gcm96"),
    "curve": lambda b: b["key"].update(kind="ecdsa-p256"),
    "name": lambda b: b["key"].update(name="a/b"),
    "no versions": lambda b: b.update(versions=[]),
    "gap": lambda b: b["versions"].pop(1),
    "order": lambda b: b["versions"].reverse(),
    "twice": lambda b: b["versions"].append(b["versions"][-1]),
    "beyond": lambda b: b["key"].update(latest_version=4),
    "bomb": lambda b: b["key"].update(latest_version=10**18),
    "first": lambda b: b["key"].update(min_available_version=2),
    "negative": lambda b: b["key"].update(min_available_version=-1, min_decryption_version=0),
    "below zero": lambda b: b["key"].update(min_available_version=-1),
    "far below zero": lambda b: b["key"].update(min_available_version=-(10**30)),
    "decryption": lambda b: b["key"].update(min_decryption_version=4),
    "encryption": lambda b: b["key"].update(min_encryption_version=4),
    "below decryption": lambda b: b["key"].update(min_decryption_version=2, min_encryption_version=1),
    "time": lambda b: b["versions"][0].update(created_at=-1),
    "short": lambda b: b["versions"][0].update(material=base64.b64encode(bytes(31)).decode()),
    "long": lambda b: b["versions"][0].update(material=base64.b64encode(bytes(33)).decode()),
    "text": lambda b: b["versions"][0].update(material="c4n4ry"),
}


async def test_a_wrong_backup_is_refused_and_nothing_changes(world: World, keeper: VaultAgent) -> None:
    await done(keeper, "POST", "transit/keys/k", OPEN)
    for _ in range(2):
        await done(keeper, "POST", "transit/keys/k/rotate")
    backup = (await done(keeper, "GET", "transit/backup/k"))["backup"]
    texts = {name: opened(backup) for name in WRONG}
    for name, change in WRONG.items():
        change(texts[name])
        message = await refused(world, keeper, 400, "POST", "transit/restore/new", {"backup": closed(texts[name])})
        assert "c4n4ry" not in message, name
    for text in ("", "c4n4ry", closed([]), backup[:-4], closed({"format": 1}), "\u00e9", closed({"c4n4ry": 1})):
        message = await refused(world, keeper, 400, "POST", "transit/restore/new", {"backup": text})
        assert "c4n4ry" not in message
    for body in ({}, {"backup": 1}, {"backup": backup, "force": "x"}):
        await refused(world, keeper, 400, "POST", "transit/restore/new", body)
    await refused(world, keeper, 400, "POST", "transit/restore/a%20b", {"backup": backup})
    assert (await done(keeper, "LIST", "transit/keys"))["keys"] == ["k"]
    await done(keeper, "POST", "transit/restore/new", {"backup": closed(opened(backup))})


async def test_a_backup_of_an_elliptic_curve_key_in_another_encoding_is_refused(
    world: World, keeper: VaultAgent
) -> None:
    await done(keeper, "POST", "transit/keys/k", {"type": "ecdsa-p384", **OPEN})
    backup = opened((await done(keeper, "GET", "transit/backup/k"))["backup"])
    material = base64.b64decode(backup["versions"][0]["material"])
    for wrong in (material[:-1], material + b"\0", b"", base64.b64decode(DATA), encode_slow_key(Encoding.DER)):
        backup["versions"][0]["material"] = base64.b64encode(wrong).decode()
        body = {"backup": closed(backup)}
        assert "not a backup" in await refused(world, keeper, 400, "POST", "transit/restore/new", body)
        assert await keeper.status("POST", "transit/restore/new", body, token="") == 403, "it is read after the permit"
    backup["versions"][0]["material"] = base64.b64encode(material).decode()
    await done(keeper, "POST", "transit/restore/new", {"backup": closed(backup)})


async def test_a_trimmed_key_version_cannot_be_used_or_restored(world: World, keeper: VaultAgent) -> None:
    await done(keeper, "POST", "transit/keys/k", OPEN)
    first = (await done(keeper, "POST", "transit/encrypt/k", {"plaintext": DATA}))["ciphertext"]
    for _ in range(3):
        await done(keeper, "POST", "transit/keys/k/rotate")
    trim, config = "transit/keys/k/trim", "transit/keys/k/config"
    assert "not set" in await refused(world, keeper, 400, "POST", trim, {"min_available_version": 1})
    await done(keeper, "POST", config, {"min_decryption_version": 2, "min_encryption_version": 3})
    for body in ({"min_available_version": 0}, {"min_available_version": 3}, {}, {"min_available_version": "x"}):
        await refused(world, keeper, 400, "POST", trim, body)
    assert (await done(keeper, "GET", "transit/keys/k"))["min_available_version"] == 0
    assert (await done(keeper, "POST", trim, {"min_available_version": 2}))["min_available_version"] == 2
    assert newest_entry(world).action == "vault.delete"
    await refused(world, keeper, 400, "POST", trim, {"min_available_version": 1})
    await refused(world, keeper, 400, "POST", config, {"min_decryption_version": 1})
    await refused(world, keeper, 400, "POST", "transit/decrypt/k", {"ciphertext": first})
    backup = (await done(keeper, "GET", "transit/backup/k"))["backup"]
    assert [one["version"] for one in opened(backup)["versions"]] == [2, 3, 4]
    await done(keeper, "POST", "transit/restore/again", {"backup": backup})
    assert (await done(keeper, "GET", "transit/keys/again"))["min_available_version"] == 2
    await done(keeper, "POST", "transit/encrypt/again", {"plaintext": DATA})


def test_a_backup_with_more_versions_than_the_maximum_is_refused() -> None:
    def text(count: int) -> str:
        key = model.TransitKey(
            name="k",
            kind="aes256-gcm96",
            latest_version=count,
            min_decryption_version=1,
            min_encryption_version=0,
            deletion_allowed=False,
            created_at=0,
        )
        return model.render_backup(key, [model.VersionBackup(n, 0, bytes(32)) for n in range(1, count + 1)])

    most = transit.MAX_KEY_VERSIONS
    assert len(model.parse_backup(text(most), most=most).versions) == most
    with pytest.raises(Exception, match="not a backup"):
        model.parse_backup(text(most + 1), most=most)


async def test_a_key_rotates_automatically_at_its_period_and_not_before(
    world: World, bot: VaultAgent, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    await permit_all(world)
    for period in (3599, "59m59s", -1, "0.01d", 10**10):
        message = await refused(world, bot, 400, "POST", "transit/keys/k", {"auto_rotate_period": period})
        assert "auto" in message, period
    assert (await done(bot, "POST", "transit/keys/k", {"auto_rotate_period": "1h"}))["auto_rotate_period"] == 3600
    sealed = (await done(bot, "POST", "transit/encrypt/k", {"plaintext": DATA}))["ciphertext"]
    await done(bot, "POST", "transit/keys/never", {})
    clock.advance(3599)
    await wire_rotations.rotate_due_keys(world)
    with pytest.raises(Conflict, match="not due"):  # another server has rotated the key
        await act(world, "rotation.end", partial(transit.rotate_due_key, name="k"))
    await bot.login()
    assert (await done(bot, "GET", "transit/keys/k"))["latest_version"] == 1
    clock.advance(1)
    await seal_all(world)
    await wire_rotations.rotate_due_keys(world)
    await unseal(world)
    await bot.login()
    assert (await done(bot, "GET", "transit/keys/k"))["latest_version"] == 1, "sealed secrets rotate nothing"
    for _ in range(2):
        await wire_rotations.rotate_due_keys(world)
    [_, entry] = entries_of(world, "rotation.end")
    assert (entry.object, (entry.detail or {})["version"]) == ("transit/k", 2)
    assert (await done(bot, "GET", "transit/keys/k"))["latest_version"] == 2
    assert (await done(bot, "POST", "transit/decrypt/k", {"ciphertext": sealed}))["plaintext"] == DATA
    await done(bot, "POST", "transit/keys/k/rotate", {})
    clock.advance(3599)
    await wire_rotations.rotate_due_keys(world)
    await bot.login()
    assert (await done(bot, "GET", "transit/keys/k"))["latest_version"] == 3, "a new period began"
    monkeypatch.setattr(transit, "MAX_KEY_VERSIONS", 3)
    clock.advance(1)
    for _ in range(2):
        await wire_rotations.rotate_due_keys(world)
    [failure] = entries_of(world, "rotation.fail")
    assert "the key has 3 versions" in (failure.detail or {})["why"], "tried again after a day"
    await bot.login()
    await done(bot, "POST", "transit/keys/k/config", {"min_decryption_version": 3, "min_encryption_version": 3})
    await done(bot, "POST", "transit/keys/k/trim", {"min_available_version": 3})
    clock.advance(86_400)
    await wire_rotations.rotate_due_keys(world)
    await bot.login()
    assert (await done(bot, "GET", "transit/keys/k"))["latest_version"] == 4
    await done(bot, "POST", "transit/keys/k/config", {"auto_rotate_period": 0})
    await done(bot, "POST", "transit/keys/never/config", {"auto_rotate_period": "720h"})
    clock.advance(86_400)
    await wire_rotations.rotate_due_keys(world)
    await bot.login()
    assert (await done(bot, "GET", "transit/keys/k"))["latest_version"] == 4
    assert (await done(bot, "GET", "transit/keys/never"))["auto_rotate_period"] == 720 * 3600
