"""Keys of RSA and of NIST curves in the transit engine: encryption, forms of signatures, and public keys."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateNumbers, RSAPublicNumbers
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from harness.clock import Clock
from harness.registry_fixtures import newest_entry
from ostiary.protocol.jose import unb64u
from ostiaryd.certs.model.keys import encode_private_key
from ostiaryd.ground.world import World
from ostiaryd.secrets import wire_rotations
from tests.secrets.transit_fixtures import closed, done, opened, raw, refused
from tests.secrets.vault_fixtures import VaultAgent, permit_all
from tests.support.certificate_fixtures import put_policies

DATA = base64.b64encode(b"data").decode()
OPEN = {"exportable": True, "allow_plaintext_backup": True}
OAEP = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)


def text(content: bytes) -> str:
    return base64.b64encode(content).decode()


async def public_key(bot: VaultAgent, name: str, version: int = 1) -> Any:
    keys = (await done(bot, "GET", f"transit/keys/{name}"))["keys"]
    return load_pem_public_key(keys[str(version)]["public_key"].encode())


async def sign(bot: VaultAgent, path: str, **members: Any) -> str:
    return str((await done(bot, "POST", f"transit/sign/{path}", {"input": DATA, **members}))["signature"])


async def verifies(bot: VaultAgent, path: str, signature: str, **members: Any) -> bool:
    body = {"input": DATA, "signature": signature, **members}
    return bool((await done(bot, "POST", f"transit/verify/{path}", body))["valid"])


@pytest.mark.parametrize("bits", [2048, 3072, 4096])
async def test_an_rsa_key_encrypts_and_signs_compatibly_with_another_library(
    world: World, bot: VaultAgent, bits: int
) -> None:
    await permit_all(world)
    made = await done(bot, "POST", "transit/keys/r", {"type": f"rsa-{bits}", "exportable": True})
    assert (made["supports_encryption"], made["supports_signing"], made["supports_derivation"]) == (True, True, False)
    assert made["keys"]["1"]["name"] == f"rsa-{bits}"
    public = await public_key(bot, "r")
    assert isinstance(public, rsa.RSAPublicKey)
    assert public.key_size == bits
    sealed = f"vault:v1:{text(public.encrypt(b'data', OAEP))}"
    assert (await done(bot, "POST", "transit/decrypt/r", {"ciphertext": sealed}))["plaintext"] == DATA
    exported = await done(bot, "GET", "transit/export/encryption-key/r")
    private = load_pem_private_key(exported["keys"]["1"].encode(), None)
    assert isinstance(private, rsa.RSAPrivateKey)
    own = (await done(bot, "POST", "transit/encrypt/r", {"plaintext": DATA}))["ciphertext"]
    assert private.decrypt(raw(own), OAEP) == b"data"
    assert (await done(bot, "GET", "transit/export/signing-key/r"))["keys"] == exported["keys"]
    signature = await sign(bot, "r/sha2-512")
    public.verify(
        raw(signature), b"data", padding.PSS(padding.MGF1(hashes.SHA512()), padding.PSS.AUTO), hashes.SHA512()
    )
    assert await verifies(bot, "r/sha2-512", signature)
    assert not await verifies(bot, "r/sha2-256", signature)


async def test_an_rsa_signature_has_the_padding_of_the_request(world: World, bot: VaultAgent) -> None:
    await permit_all(world)
    await done(bot, "POST", "transit/keys/r", {"type": "rsa-2048"})
    public = await public_key(bot, "r")
    for salt, length in (("hash", 32), ("-1", 32), ("20", 20), (20, 20), ("auto", 222), ("0", 222), ("222", 222)):
        signature = await sign(bot, "r", signature_algorithm="pss", salt_length=salt)
        public.verify(raw(signature), b"data", padding.PSS(padding.MGF1(hashes.SHA256()), length), hashes.SHA256())
        assert await verifies(bot, "r", signature, salt_length=salt), salt
        assert await verifies(bot, "r", signature), salt
        assert await verifies(bot, "r", signature, salt_length="21") is False, salt
    signature = await sign(bot, "r", signature_algorithm="pkcs1v15")
    public.verify(raw(signature), b"data", padding.PKCS1v15(), hashes.SHA256())
    assert await verifies(bot, "r", signature, signature_algorithm="pkcs1v15")
    assert not await verifies(bot, "r", signature)
    digest = text(hashlib.sha256(b"data").digest())
    again = await sign(bot, "r", signature_algorithm="pkcs1v15", input=digest, prehashed=True)
    assert again == signature, "the signature of a hash is the signature of the data"
    bare = {"signature_algorithm": "pkcs1v15", "hash_algorithm": "none", "prehashed": True}
    signature = await sign(bot, "r", **bare)
    assert public.recover_data_from_signature(raw(signature), padding.PKCS1v15(), None) == b"data"
    assert await verifies(bot, "r", signature, **bare)
    assert not await verifies(bot, "r", signature, **bare | {"input": text(b"date")})
    wrong: dict[str, Any]
    for wrong in (
        {"signature_algorithm": "x"},
        {"marshaling_algorithm": "x"},
        {"salt_length": "223"},
        {"salt_length": "-2"},
        {"salt_length": "long"},
        {"hash_algorithm": "md5"},
        {"hash_algorithm": "none", "prehashed": True},
        {"hash_algorithm": "none", "signature_algorithm": "pkcs1v15"},
        {"prehashed": True},
        {"context": DATA},
    ):
        assert await refused(world, bot, 400, "POST", "transit/sign/r", {"input": DATA, **wrong}), wrong


async def test_invalid_input_for_an_rsa_key_is_refused(world: World, bot: VaultAgent) -> None:
    await permit_all(world)
    await done(bot, "POST", "transit/keys/r", {"type": "rsa-2048"})
    longest = text(bytes(190))
    sealed = (await done(bot, "POST", "transit/encrypt/r", {"plaintext": longest}))["ciphertext"]
    assert (await done(bot, "POST", "transit/decrypt/r", {"ciphertext": sealed}))["plaintext"] == longest
    refusal = await refused(world, bot, 400, "POST", "transit/encrypt/r", {"plaintext": text(bytes(191))})
    assert refusal == "the plaintext has more than 190 bytes encrypt a data key instead"
    key = await done(bot, "POST", "transit/datakey/plaintext/r", {})
    assert (await done(bot, "POST", "transit/decrypt/r", {"ciphertext": key["ciphertext"]}))["plaintext"] == key[
        "plaintext"
    ]
    for body in ({"plaintext": DATA, "associated_data": DATA}, {"plaintext": DATA, "context": DATA}):
        await refused(world, bot, 400, "POST", "transit/encrypt/r", body)
    for ciphertext in (
        "vault:v1:AAAA",
        f"vault:v1:{text(bytes(256))}",
        f"vault:v1:{text(b'y' * 256)}",
        "vault:v2:AAAA",
    ):
        await refused(world, bot, 400, "POST", "transit/decrypt/r", {"ciphertext": ciphertext})
    for options in ({"derived": True}, {"type": "rsa-1024"}, {"type": "rsa-8192"}, {"key_size": 2048}):
        await refused(world, bot, 400, "POST", "transit/keys/other", {"type": "rsa-2048", **options})
    items = [{"plaintext": DATA}] * 5
    assert len((await done(bot, "POST", "transit/encrypt/r", {"batch_input": items}))["batch_results"]) == 5
    await refused(world, bot, 400, "POST", "transit/encrypt/r", {"batch_input": [*items, items[0]]})
    refusal = await refused(world, bot, 400, "POST", "transit/keys/r", {"type": "rsa-3072"})
    assert refusal == "a key of the type rsa-2048 has this name"


async def test_an_rsa_key_rotates_on_request_and_automatically(world: World, bot: VaultAgent, clock: Clock) -> None:
    await permit_all(world)
    await done(bot, "POST", "transit/keys/r", {"type": "rsa-2048", "auto_rotate_period": "1h"})
    sealed = (await done(bot, "POST", "transit/encrypt/r", {"plaintext": DATA}))["ciphertext"]
    assert (await done(bot, "POST", "transit/keys/r/rotate"))["latest_version"] == 2
    assert await public_key(bot, "r") != await public_key(bot, "r", 2)
    rewrapped = (await done(bot, "POST", "transit/rewrap/r", {"ciphertext": sealed}))["ciphertext"]
    assert rewrapped.startswith("vault:v2:")
    clock.advance(3600)
    await wire_rotations.rotate_due_keys(world)
    assert newest_entry(world).action == "rotation.end"
    await bot.login()
    assert (await done(bot, "GET", "transit/keys/r"))["latest_version"] == 3
    assert (await done(bot, "POST", "transit/decrypt/r", {"ciphertext": rewrapped}))["plaintext"] == DATA


async def test_an_rsa_key_backup_is_restored_and_an_invalid_backup_is_refused(world: World, bot: VaultAgent) -> None:
    await permit_all(world)
    for name in ("r", "s"):
        await done(bot, "POST", f"transit/keys/{name}", {"type": "rsa-2048", **OPEN})
    sealed = (await done(bot, "POST", "transit/encrypt/r", {"plaintext": DATA}))["ciphertext"]
    backup = (await done(bot, "GET", "transit/backup/r"))["backup"]
    other = opened((await done(bot, "GET", "transit/backup/s"))["backup"])
    await done(bot, "POST", "transit/restore/again", {"backup": backup})
    assert (await done(bot, "POST", "transit/decrypt/again", {"ciphertext": sealed}))["plaintext"] == DATA
    own = load_pem_private_key((await done(bot, "GET", "transit/export/signing-key/r"))["keys"]["1"].encode(), None)
    assert isinstance(own, rsa.RSAPrivateKey)
    numbers = own.private_numbers()
    q = numbers.q + 2
    wrong = RSAPrivateNumbers(
        numbers.p, q, numbers.d, numbers.dmp1, numbers.dmq1, numbers.iqmp, RSAPublicNumbers(65537, numbers.p * q)
    )
    material = encode_private_key(wrong.private_key(unsafe_skip_rsa_key_validation=True))
    good = base64.b64decode(other["versions"][0]["material"])
    for content in (material, good[:-1], good + b"\0", b""):
        other["versions"][0]["material"] = text(content)
        await refused(world, bot, 400, "POST", "transit/restore/new", {"backup": closed(other)})
    changed = opened(backup)
    changed["key"]["kind"] = "rsa-3072"
    await refused(world, bot, 400, "POST", "transit/restore/new", {"backup": closed(changed)})


@pytest.mark.parametrize(
    ("kind", "label", "size", "curve"),
    [
        ("ecdsa-p256", "P-256", 32, ec.SECP256R1),
        ("ecdsa-p384", "P-384", 48, ec.SECP384R1),
        ("ecdsa-p521", "P-521", 66, ec.SECP521R1),
    ],
)
async def test_an_ecdsa_signature_has_the_marshaling_of_the_request(
    world: World, bot: VaultAgent, kind: str, label: str, size: int, curve: type[ec.EllipticCurve]
) -> None:
    await permit_all(world)
    made = await done(bot, "POST", "transit/keys/c", {"type": kind, **OPEN})
    assert made["keys"]["1"]["name"] == label
    public = await public_key(bot, "c")
    assert isinstance(public.curve, curve)
    signature = await sign(bot, "c")
    public.verify(raw(signature), b"data", ec.ECDSA(hashes.SHA256()))
    compact = await sign(bot, "c", marshaling_algorithm="jws")
    content = unb64u(compact.rpartition(":")[2])
    numbers = int.from_bytes(content[:size]), int.from_bytes(content[size:])
    assert len(content) == 2 * size
    public.verify(encode_dss_signature(*numbers), b"data", ec.ECDSA(hashes.SHA256()))
    assert await verifies(bot, "c", compact, marshaling_algorithm="jws")
    assert not await verifies(bot, "c", compact, marshaling_algorithm="jws", input=text(b"date"))
    for wrong in (compact[:-4], compact + "AAAA", "vault:v1:", "vault:v1:*", signature):
        body = {"input": DATA, "signature": wrong, "marshaling_algorithm": "jws"}
        await refused(world, bot, 400, "POST", "transit/verify/c", body)
    backup = (await done(bot, "GET", "transit/backup/c"))["backup"]
    await done(bot, "POST", "transit/restore/d", {"backup": backup})
    assert await verifies(bot, "d", signature)


async def test_public_keys_are_read_without_the_permission_to_export(world: World, bot: VaultAgent) -> None:
    await permit_all(world)
    for kind in ("ed25519", "ecdsa-p256", "rsa-2048", "aes256-gcm96"):
        await done(bot, "POST", f"transit/keys/{kind}", {"type": kind})
    await done(bot, "POST", "transit/keys/ed25519/rotate")
    await put_policies(
        world,
        '@id("read") permit (principal is Agent, action == Action::"read_secret", resource is Secret) '
        'when { resource.mount == "transit" };',
    )
    for kind, count in (("ed25519", 2), ("ecdsa-p256", 1), ("rsa-2048", 1)):
        shown = (await done(bot, "GET", f"transit/keys/{kind}"))["keys"]
        exported = (await done(bot, "GET", f"transit/export/public-key/{kind}"))["keys"]
        assert exported == {number: one["public_key"] for number, one in shown.items()}
        assert len(exported) == count
    assert list((await done(bot, "GET", "transit/export/public-key/ed25519/2"))["keys"]) == ["2"]
    await refused(world, bot, 400, "GET", "transit/export/public-key/aes256-gcm96")
    await refused(world, bot, 403, "GET", "transit/export/signing-key/ed25519")
