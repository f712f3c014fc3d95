"""Derived and convergent keys of the transit engine."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from ostiaryd.ground.world import World
from ostiaryd.secrets.model.transit_keys import convergent_nonce
from tests.secrets.transit_fixtures import done, raw, refused
from tests.secrets.vault_fixtures import VaultAgent, permit_all


def text(content: str) -> str:
    return base64.b64encode(content.encode()).decode()


async def encrypt(bot: VaultAgent, name: str, **members: Any) -> str:
    return str((await done(bot, "POST", f"transit/encrypt/{name}", members))["ciphertext"])


async def decrypt(bot: VaultAgent, name: str, ciphertext: str, **members: Any) -> str:
    return str((await done(bot, "POST", f"transit/decrypt/{name}", {"ciphertext": ciphertext, **members}))["plaintext"])


@pytest.mark.parametrize(
    ("kind", "size", "cipher"),
    [("aes256-gcm96", 32, AESGCM), ("aes128-gcm96", 16, AESGCM), ("chacha20-poly1305", 32, ChaCha20Poly1305)],
)
async def test_each_context_has_its_own_derived_key(
    world: World, bot: VaultAgent, kind: str, size: int, cipher: type[AESGCM] | type[ChaCha20Poly1305]
) -> None:
    """The key of a context is HKDF of the material with the context as `info`, which another program can compute."""
    await permit_all(world)
    made = await done(bot, "POST", "transit/keys/d", {"type": kind, "derived": True, "exportable": True})
    assert (made["derived"], made["kdf"], "convergent_encryption" in made) == (True, "hkdf_sha256", False)
    first, again = [await encrypt(bot, "d", plaintext=text("data"), context=text("tenant-1")) for _ in range(2)]
    assert first != again
    assert await decrypt(bot, "d", first, context=text("tenant-1")) == text("data")
    failed = await refused(
        world, bot, 400, "POST", "transit/decrypt/d", {"ciphertext": first, "context": text("tenant-2")}
    )
    assert failed == "cipher: message authentication failed"
    exported = await done(bot, "GET", "transit/export/encryption-key/d")
    material = base64.b64decode(exported["keys"]["1"])
    key = HKDF(hashes.SHA256(), size, salt=None, info=b"tenant-1").derive(material)
    assert cipher(key).decrypt(raw(first)[:12], raw(first)[12:], None) == b"data"
    await done(bot, "POST", "transit/keys/d/rotate")
    wrapped = await done(bot, "POST", "transit/rewrap/d", {"ciphertext": first, "context": text("tenant-1")})
    assert wrapped["ciphertext"].startswith("vault:v2:")
    assert await decrypt(bot, "d", wrapped["ciphertext"], context=text("tenant-1")) == text("data")
    made = await done(bot, "POST", "transit/datakey/plaintext/d", {"context": text("tenant-3")})
    assert await decrypt(bot, "d", made["ciphertext"], context=text("tenant-3")) == made["plaintext"]
    items = [{"plaintext": text("x"), "context": text(tenant)} for tenant in "ab"]
    batch = await done(bot, "POST", "transit/encrypt/d", {"batch_input": items})
    for tenant, one in zip("ab", batch["batch_results"], strict=True):
        assert await decrypt(bot, "d", one["ciphertext"], context=text(tenant)) == text("x")


async def test_a_convergent_key_encrypts_equal_texts_to_equal_ciphertexts(world: World, bot: VaultAgent) -> None:
    await permit_all(world)
    made = await done(bot, "POST", "transit/keys/c", {"derived": "true", "convergent_encryption": "true"})
    assert (made["derived"], made["convergent_encryption"]) == (True, True)
    one = {"plaintext": text("data"), "context": text("a")}
    differing = [
        {**one, "context": text("b")},
        {**one, "plaintext": text("date")},
        {**one, "associated_data": text("x")},
    ]
    first = await encrypt(bot, "c", **one)
    assert await encrypt(bot, "c", **one) == first
    others = [await encrypt(bot, "c", **other) for other in differing]
    assert len({raw(ciphertext)[:12] for ciphertext in (first, *others)}) == 4, "no nonce is used for two messages"
    assert await decrypt(bot, "c", first, context=text("a")) == text("data")
    assert await decrypt(bot, "c", others[2], context=text("a"), associated_data=text("x")) == text("data")
    await done(bot, "POST", "transit/keys/c/rotate")
    assert await encrypt(bot, "c", **one) != first
    assert await encrypt(bot, "c", **one, key_version=1) == first


async def test_a_context_is_required_for_a_derived_key_and_refused_for_others(world: World, bot: VaultAgent) -> None:
    await permit_all(world)
    await done(bot, "POST", "transit/keys/d", {"derived": True})
    await done(bot, "POST", "transit/keys/plain", {"derived": False})
    for kind in ("ed25519", "ecdsa-p256", "hmac"):
        await refused(world, bot, 400, "POST", "transit/keys/wrong", {"type": kind, "derived": True})
    await refused(world, bot, 400, "POST", "transit/keys/wrong", {"convergent_encryption": True})
    assert await bot.status("GET", "transit/keys/wrong") == 404
    sealed = await encrypt(bot, "d", plaintext=text("x"), context=text("a"))
    for path, body in (
        ("encrypt/d", {"plaintext": text("x")}),
        ("encrypt/d", {"plaintext": text("x"), "context": ""}),
        ("encrypt/d", {"plaintext": text("x"), "context": "!"}),
        ("decrypt/d", {"ciphertext": sealed}),
        ("encrypt/plain", {"plaintext": text("x"), "context": text("a")}),
        ("encrypt/d", {"plaintext": text("x"), "context": text("a"), "nonce": text("123456789012")}),
        ("encrypt/d", {"plaintext": text("x"), "context": text("a"), "convergent_encryption": True}),
        ("hmac/d", {"input": text("x"), "context": text("a")}),
        ("keys/plain", {"derived": True}),
        ("keys/d", {"derived": True, "convergent_encryption": True}),
        ("keys/d/config", {"derived": False, "convergent_encryption": True}),
    ):
        await refused(world, bot, 400, "POST", f"transit/{path}", body)
    message = await refused(world, bot, 400, "POST", "transit/encrypt/d", {"plaintext": text("x")})
    assert message.startswith("missing 'context' for key derivation")
    assert await bot.status("POST", "transit/hmac/d", {"input": text("x")}) == 200
    assert await bot.status("POST", "transit/keys/d", {}) == 200
    items = [{"plaintext": text("x"), "context": text("a")}, {"plaintext": text("x")}]
    answer = await bot.ask("POST", "transit/encrypt/d", {"batch_input": items})
    assert answer.status == 400
    assert ["error" in one for one in answer.json["data"]["batch_results"]] == [False, True]


async def test_a_backup_keeps_the_derivation_settings_of_a_key(world: World, bot: VaultAgent) -> None:
    await permit_all(world)
    options = {"derived": True, "convergent_encryption": True, "exportable": True, "allow_plaintext_backup": True}
    await done(bot, "POST", "transit/keys/c", options)
    one = {"plaintext": text("data"), "context": text("a")}
    first = await encrypt(bot, "c", **one)
    backup = (await done(bot, "GET", "transit/backup/c"))["backup"]
    await done(bot, "POST", "transit/restore/copy", {"backup": backup})
    assert await encrypt(bot, "copy", **one) == first


def test_the_length_of_associated_data_is_part_of_a_convergent_nonce() -> None:
    """Otherwise, two messages could have the same nonce: the end of one text as the beginning of the other."""
    assert convergent_nonce(b"k" * 32, b"cd", b"ab") != convergent_nonce(b"k" * 32, b"d", b"abc")
