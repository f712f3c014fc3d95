"""Keys of other systems that are imported into the transit engine."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.keywrap import aes_key_wrap_with_padding
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_public_key,
)

from harness.registry_fixtures import newest_entry
from ostiaryd.ground.world import World
from tests.secrets.transit_fixtures import done, raw, refused
from tests.secrets.vault_fixtures import VaultAgent, permit_all
from tests.support.certificate_fixtures import encode_slow_key, put_policies

DATA = base64.b64encode(b"data").decode()
EPHEMERAL = bytes(range(32))
Wrap = Callable[..., str]


@pytest.fixture
async def wrap(world: World, bot: VaultAgent) -> Wrap:
    """A function that wraps material for the mount `transit`."""
    await permit_all(world)
    shown = await done(bot, "GET", "transit/wrapping_key")
    assert await done(bot, "GET", "transit/wrapping_key") == shown, "the key is made once"
    public = load_pem_public_key(shown["public_key"].encode())
    assert isinstance(public, rsa.RSAPublicKey)
    assert public.key_size == 4096

    def wrap_material(
        material: bytes, *, method: hashes.HashAlgorithm | None = None, ephemeral: bytes = EPHEMERAL
    ) -> str:
        method = method or hashes.SHA256()
        key = public.encrypt(ephemeral, padding.OAEP(padding.MGF1(method), method, None))
        return base64.b64encode(key + aes_key_wrap_with_padding(EPHEMERAL[: len(ephemeral)], material)).decode()

    return wrap_material


def pkcs8(key: Any) -> bytes:
    return bytes(key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()))


def even_rsa_key() -> bytes:
    """Return an RSA key of 2048 bits with the factor 8, with which every signature fails."""
    p, q, e = 8, 2**2045 - 1, 65537
    d, public = pow(e, -1, math.lcm(p - 1, q - 1)), rsa.RSAPublicNumbers(e, p * q)
    numbers = rsa.RSAPrivateNumbers(p, q, d, d % (p - 1), d % (q - 1), pow(q, -1, p), public)
    return pkcs8(numbers.private_key(unsafe_skip_rsa_key_validation=True))


async def test_an_imported_key_encrypts_and_signs_like_the_original_key(
    world: World, bot: VaultAgent, wrap: Wrap
) -> None:
    material = AESGCM.generate_key(256)
    await done(bot, "POST", "transit/keys/k/import", {"ciphertext": wrap(material)})
    entry = newest_entry(world)
    assert (entry.action, entry.object) == ("vault.write", "transit/k")
    assert base64.b64encode(material).decode() not in repr(entry)
    shown = await done(bot, "GET", "transit/keys/k")
    assert (shown["type"], shown["imported_key"], shown["imported_key_allow_rotation"]) == ("aes256-gcm96", True, False)
    sealed = raw((await done(bot, "POST", "transit/encrypt/k", {"plaintext": DATA}))["ciphertext"])
    assert AESGCM(material).decrypt(sealed[:12], sealed[12:], None) == b"data"
    assert (await done(bot, "LIST", "transit/keys"))["keys"] == ["k"], "the wrapping key is no key of the mount"

    edwards, curve, long = (
        Ed25519PrivateKey.generate(),
        ec.generate_private_key(ec.SECP384R1()),
        rsa.generate_private_key(65537, 2048),
    )
    for kind, key in (("ed25519", edwards), ("ecdsa-p384", curve), ("rsa-2048", long)):
        body = {"ciphertext": wrap(pkcs8(key)), "type": kind}
        await done(bot, "POST", f"transit/keys/{kind}/import", body)
        text = (await done(bot, "GET", f"transit/export/public-key/{kind}"))["keys"]["1"]
        public = key.public_key()
        if kind == "ed25519":
            assert base64.b64decode(text) == edwards.public_key().public_bytes_raw()
        else:
            assert text == public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    for name, method in (("SHA1", hashes.SHA1()), ("SHA512", hashes.SHA512())):
        body = {"ciphertext": wrap(material, method=method), "hash_function": name}
        await done(bot, "POST", f"transit/keys/{name}/import", body)
    body = {"ciphertext": wrap(material, ephemeral=EPHEMERAL[:16])}
    await done(bot, "POST", "transit/keys/short-wrapping/import", body)


async def test_versions_of_an_imported_key_are_imported(world: World, bot: VaultAgent, wrap: Wrap) -> None:
    first, second = AESGCM.generate_key(256), AESGCM.generate_key(256)
    await done(bot, "POST", "transit/keys/k/import", {"ciphertext": wrap(first)})
    assert "does not allow rotation" in await refused(world, bot, 400, "POST", "transit/keys/k/rotate")
    await done(bot, "POST", "transit/keys/k/import_version", {"ciphertext": wrap(second)})
    sealed = (await done(bot, "POST", "transit/encrypt/k", {"plaintext": DATA}))["ciphertext"]
    assert sealed.startswith("vault:v2:")
    assert AESGCM(second).decrypt(raw(sealed)[:12], raw(sealed)[12:], None) == b"data"
    refusal = await refused(world, bot, 400, "POST", "transit/keys/k/import", {"ciphertext": wrap(second)})
    assert refusal.startswith("the import path cannot be used with an existing key")
    rotating = {"ciphertext": wrap(first), "allow_rotation": True, "auto_rotate_period": "1h"}
    await done(bot, "POST", "transit/keys/rotating/import", rotating)
    assert (await done(bot, "POST", "transit/keys/rotating/rotate"))["latest_version"] == 2
    await refused(world, bot, 400, "POST", "transit/keys/x/import", {**rotating, "allow_rotation": False})
    await done(bot, "POST", "transit/keys/own", {})
    for name in ("own", "none"):
        await refused(world, bot, 400, "POST", f"transit/keys/{name}/import_version", {"ciphertext": wrap(first)})


async def test_a_malformed_or_mismatched_key_is_not_imported(world: World, bot: VaultAgent, wrap: Wrap) -> None:
    material, path = AESGCM.generate_key(256), "transit/keys/k/import"
    good = base64.b64decode(wrap(material))
    wrong: tuple[dict[str, Any], ...] = (
        {},
        {"public_key": "x"},
        {"ciphertext": "%"},
        {"ciphertext": DATA},
        {"ciphertext": base64.b64encode(good[:-1]).decode()},
        {"ciphertext": base64.b64encode(good[:527]).decode()},
        {"ciphertext": base64.b64encode(bytes(528)).decode()},
        {"ciphertext": base64.b64encode(good + bytes(3000)).decode()},
        {"ciphertext": base64.b64encode(bytes([good[0] ^ 1]) + good[1:]).decode()},
        {"ciphertext": wrap(material), "hash_function": "md5"},
        {"ciphertext": wrap(material), "hash_function": "SHA512"},
        {"ciphertext": wrap(material), "type": "aes512"},
        {"ciphertext": wrap(material), "type": "rsa-2048"},
        {"ciphertext": wrap(material), "type": "ed25519"},
        {"ciphertext": wrap(material[:31])},
        {"ciphertext": wrap(material[:16])},
        {"ciphertext": wrap(material + b"\0")},
        {"ciphertext": wrap(encode_slow_key(Encoding.DER)), "type": "rsa-2048"},
        {"ciphertext": wrap(pkcs8(rsa.generate_private_key(65537, 2048))), "type": "rsa-3072"},
        {"ciphertext": wrap(pkcs8(rsa.generate_private_key(3, 2048))), "type": "rsa-2048"},
        {"ciphertext": wrap(even_rsa_key()), "type": "rsa-2048"},
        {"ciphertext": wrap(pkcs8(ec.generate_private_key(ec.SECP256R1()))), "type": "ecdsa-p384"},
        {"ciphertext": wrap(material), "convergent_encryption": True},
        {"ciphertext": wrap(material), "auto_rotate_period": "1m", "allow_rotation": True},
    )
    for body in wrong:
        assert await refused(world, bot, 400, "POST", path, body), body
    assert await bot.status("LIST", "transit/keys") == 404
    await done(bot, "POST", path, {"ciphertext": wrap(material)})


async def test_an_imported_key_must_be_wrapped_with_the_wrapping_key_of_its_mount(
    world: World, bot: VaultAgent, wrap: Wrap
) -> None:
    body = {"ciphertext": wrap(AESGCM.generate_key(256))}
    await done(bot, "POST", "sys/mounts/keys", {"type": "transit"})
    refusal = await refused(world, bot, 400, "POST", "keys/keys/k/import", body)
    assert refusal.startswith("the mount has no wrapping key")
    own = (await done(bot, "GET", "keys/wrapping_key"))["public_key"]
    assert own != (await done(bot, "GET", "transit/wrapping_key"))["public_key"]
    assert "could not be unwrapped" in await refused(world, bot, 400, "POST", "keys/keys/k/import", body)
    for name in ("%25", "%", "import", "%2Fimport"):
        assert await bot.status("GET", f"transit/keys/{name}") in (400, 404), name
    await done(bot, "DELETE", "sys/mounts/keys")
    await done(bot, "POST", "sys/mounts/keys", {"type": "transit"})
    assert (await done(bot, "GET", "keys/wrapping_key"))["public_key"] != own


async def test_an_import_needs_the_same_permissions_as_a_restoration(world: World, bot: VaultAgent, wrap: Wrap) -> None:
    """Whoever imports a key knows it, so the action of exports is decided too."""
    writing = '@id("w") permit (principal is Agent, action == Action::"write_secret", resource is Secret);'
    exporting = '@id("e") permit (principal is Agent, action == Action::"export_secret_key", resource is Secret);'
    body = {"ciphertext": wrap(AESGCM.generate_key(256))}
    for rules, status in ((writing, 403), (exporting, 403), (writing + exporting, 204)):
        await put_policies(world, rules)
        assert await bot.status("POST", "transit/keys/k/import", body) == status
    path = "transit/keys/k/import"
    for rules, names in ((writing, ["deny"]), (writing + exporting, ["update"])):
        await put_policies(world, rules)
        assert (await done(bot, "POST", "sys/capabilities-self", {"paths": [path]}))[path] == names
    await put_policies(world, writing)
    assert await bot.status("GET", "transit/wrapping_key") == 403
