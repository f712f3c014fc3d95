"""The server's keys: sealed at rest, rotated with overlap, moved to another root key, useless without it."""

from __future__ import annotations

import base64
import hmac
from pathlib import Path

import pytest

from harness.clock import Clock, SeededRandom
from ostiary.authorization.claims import AccessClaims
from ostiary.protocol.errors import Conflict, Invalid, NotFound
from ostiary.protocol.jose import InvalidToken
from ostiaryd.ground.config import Config
from ostiaryd.ground.crypto.keyed_hash import KeyedHash
from ostiaryd.ground.crypto.keyring import (
    SECRET_ALG,
    USES,
    Keyring,
    RootKey,
    Verified,
    load_root_key,
    seal_context,
)
from ostiaryd.ground.database import Tx, sql
from ostiaryd.ground.database.server_keys import forget_keys, load_keys, rotate_key
from ostiaryd.ground.world import World, open_world

SEALED = sql("select kid, sealed from server_key order by kid")
SWAP = sql("update server_key set sealed = :sealed where kid = :kid")
OTHER = base64.b64encode(b"n" * 32).decode()


def sealed(world: World) -> dict[str, bytes]:
    return {kid: bytes(blob) for kid, blob in world.db.read().all(SEALED)}


async def test_private_keys_are_sealed_in_the_database(world: World) -> None:
    private = world.keys.signer("token", "ES256").jwk()
    assert len(sealed(world)) == sum(map(len, USES.values())) + 1, "each key, and the secret"
    assert all(private["d"].encode() not in blob for blob in sealed(world).values())


def test_the_cache_of_verified_tokens_keeps_the_most_recent_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Verified, "MOST", 3)
    verified = Verified()
    claims = AccessClaims(iss="i", sub="s", client_id="c", aud="a", exp=1, iat=0, jti="j")

    def known(*tokens: str) -> list[bool]:
        return [verified.get(token) == ("kid", claims) for token in tokens]

    for token in "abcdef":
        verified.add(token, "kid", claims)
    assert known(*"defa") == [True] * 4, "twice as many at most"
    for token in "ghi":  # `a` is the fourth of those after `def`
        verified.add(token, "kid", claims)
    assert known(*"ghi", "a") == [True] * 4
    assert known(*"bcdef") == [False] * 5
    assert verified.get("\N{LATIN SMALL LETTER E WITH ACUTE}\ud800") is None


async def test_a_rotated_key_signs_at_once_and_the_old_key_verifies_earlier_signatures(
    world: World, clock: Clock
) -> None:
    old = world.keys.signer("token", "ES256")
    earlier = old.sign(b"text")
    new = await world.writer.submit(lambda tx: rotate_key(tx, world.keys.root, use="token", alg="ES256"))
    load_keys(world.keys, world.db.read())
    signer = world.keys.signer("token", "ES256")
    assert signer.public.kid == new != old.public.kid
    assert {old.public.kid, new} <= set(world.keys.public("token"))
    world.keys.find("token", old.public.kid).verify(earlier, b"text")
    world.keys.find("token", new).verify(signer.sign(b"text"), b"text")
    with pytest.raises(InvalidToken):
        world.keys.find("token", new).verify(earlier, b"text")


async def test_a_rotation_replaces_only_the_key_of_its_use_and_algorithm(world: World) -> None:
    def signers() -> dict[tuple[str, str], str]:
        return {(use, alg): world.keys.signer(use, alg).public.kid for use, algs in USES.items() for alg in algs}

    before = signers()
    await world.writer.submit(lambda tx: rotate_key(tx, world.keys.root, use="token", alg="EdDSA"))
    load_keys(world.keys, world.db.read())
    assert {which for which, kid in signers().items() if kid != before[which]} == {("token", "EdDSA")}


@pytest.mark.parametrize(("after_us", "forgotten"), [(0, 0), (1, 1)])
async def test_a_retired_key_is_removed_just_after_its_time(
    world: World, clock: Clock, after_us: int, forgotten: int
) -> None:
    old = world.keys.signer("token", "ES256").public.kid
    await world.writer.submit(lambda tx: rotate_key(tx, world.keys.root, use="token", alg="ES256"))
    retired = clock.now
    assert await world.writer.submit(lambda tx: forget_keys(tx, before=retired + after_us)) == forgotten
    load_keys(world.keys, world.db.read())
    assert (old in world.keys.public("token")) is not bool(forgotten)


@pytest.mark.parametrize(("use", "alg"), [("token", "ES512"), ("nonce", "ES256"), ("ledger", "EdDSA")])
async def test_the_rotation_of_an_unknown_or_fixed_key_is_refused(world: World, use: str, alg: str) -> None:
    before = sealed(world)

    def rotate(tx: Tx) -> None:
        with pytest.raises(Invalid):
            rotate_key(tx, world.keys.root, use=use, alg=alg)

    await world.writer.submit(rotate)
    assert sealed(world) == before


async def test_a_sealed_key_does_not_open_in_another_row(world: World) -> None:
    (first, _), (_, other), *_ = sealed(world).items()
    await world.writer.submit(lambda tx: tx.run(SWAP, kid=first, sealed=other))
    with pytest.raises(Conflict, match="root key"):
        load_keys(Keyring(world.keys.root), world.db.read())


@pytest.mark.parametrize("column", ["kid", "use_", "alg"])
async def test_a_sealed_key_does_not_open_under_another_id_use_or_algorithm(world: World, column: str) -> None:
    change = sql(f"update server_key set {column} = 'feed' where use_ = 'ledger'")
    assert await world.writer.submit(lambda tx: tx.run(change)) == 1
    with pytest.raises(Conflict, match="root key"):
        load_keys(Keyring(world.keys.root), world.db.read())


async def test_each_key_is_sealed_with_its_own_nonce(world: World) -> None:
    nonces = {blob[:12] for blob in sealed(world).values()}
    assert len(nonces) == len(sealed(world))


async def test_the_lookup_of_an_unknown_kid_is_refused(world: World) -> None:
    with pytest.raises(NotFound):
        world.keys.find("token", "nobody")


@pytest.mark.parametrize("database", ["sqlite"])
async def test_a_server_does_not_start_with_another_root_key(
    config: Config, monkeypatch: pytest.MonkeyPatch, database: str
) -> None:
    monkeypatch.setenv("OSTIARY_ROOT_KEY", OTHER)
    with pytest.raises(Conflict, match="root key"):
        async with open_world(config):
            pass


@pytest.mark.parametrize("database", ["sqlite"])
async def test_the_old_root_key_does_not_open_the_server_keys_after_a_move(
    config: Config, monkeypatch: pytest.MonkeyPatch, database: str
) -> None:
    old = (config.folder / "root.key").read_text()
    async with open_world(config) as world:
        kid = world.keys.signer("ledger").public.kid
    monkeypatch.setenv("OSTIARY_ROOT_KEY", OTHER)
    monkeypatch.setenv("OSTIARY_ROOT_KEY_OLD", old)
    for _ in range(2):  # a start that was interrupted is repeated
        async with open_world(config) as world:
            assert world.keys.signer("ledger").public.kid == kid
            assert world.keys.root.source == "environment"
    monkeypatch.delenv("OSTIARY_ROOT_KEY_OLD")
    async with open_world(config) as world:
        assert world.keys.signer("ledger").public.kid == kid
    monkeypatch.delenv("OSTIARY_ROOT_KEY")
    with pytest.raises(Conflict, match="root key"):
        async with open_world(config):
            pass


@pytest.mark.parametrize("database", ["sqlite"])
async def test_a_value_sealed_for_a_purpose_stays_readable_when_the_root_key_moves(
    config: Config, monkeypatch: pytest.MonkeyPatch, database: str
) -> None:
    old = (config.folder / "root.key").read_text()
    async with open_world(config) as world:
        value = world.keys.value_key("p").seal(b"v", context=b"c", random=world.random)
        earlier = world.keys.root.seal(b"v", context=b"c", random=world.random)
        assert world.keys.open_value(value, purpose="p", context=b"c") == b"v"
        assert world.keys.open_value(earlier, purpose="p", context=b"c") == b"v"
        for purpose, context in (("q", b"c"), ("p", b"d")):
            with pytest.raises(Conflict):
                world.keys.open_value(value, purpose=purpose, context=context)
    monkeypatch.setenv("OSTIARY_ROOT_KEY", OTHER)
    monkeypatch.setenv("OSTIARY_ROOT_KEY_OLD", old)
    async with open_world(config) as world:
        assert world.keys.open_value(value, purpose="p", context=b"c") == b"v"
        with pytest.raises(Conflict):
            world.keys.open_value(earlier, purpose="p", context=b"c")


def test_a_root_key_file_that_other_users_can_read_is_refused(tmp_path: Path, dice: SeededRandom) -> None:
    load_root_key(tmp_path, random=dice, create=True)
    file = tmp_path / "root.key"
    assert file.stat().st_mode & 0o777 == 0o600
    assert load_root_key(tmp_path, random=dice, create=False).source == "file"
    file.chmod(0o640)
    with pytest.raises(Conflict, match="open to other users"):
        load_root_key(tmp_path, random=dice, create=True)


@pytest.mark.parametrize(("size", "good"), [(31, False), (32, True), (33, False)])
def test_a_root_key_has_32_bytes(size: int, good: bool) -> None:
    if good:
        RootKey(b"k" * size, source="test")
    else:
        with pytest.raises(Invalid, match="bytes instead of 32"):
            RootKey(b"k" * size, source="test")


@pytest.mark.parametrize(
    ("text", "good"),
    [(OTHER, True), (f" {OTHER}\n", True), (OTHER[:-1], False), (f"{OTHER[:9]}*{OTHER[9:]}", False), ("", False)],
)
def test_a_root_key_that_is_not_32_bytes_in_base64_is_refused(
    tmp_path: Path, dice: SeededRandom, monkeypatch: pytest.MonkeyPatch, text: str, good: bool
) -> None:
    monkeypatch.setenv("OSTIARY_ROOT_KEY", text)
    if good:
        assert load_root_key(tmp_path, random=dice, create=False).source == "environment"
    else:
        with pytest.raises(Invalid, match="root key"):
            load_root_key(tmp_path, random=dice, create=True)


def test_the_root_key_of_the_environment_overrides_the_file(
    tmp_path: Path, dice: SeededRandom, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_root_key(tmp_path, random=dice, create=True)
    monkeypatch.setenv("OSTIARY_ROOT_KEY", OTHER)
    assert load_root_key(tmp_path, random=dice, create=False).source == "environment"


def test_a_keyed_hash_is_the_hmac_of_rfc_2104() -> None:
    for size in (0, 1, 32, 63, 64):
        for text in (b"", b"text", bytes(300)):
            assert KeyedHash(bytes(range(size))).digest(text) == hmac.digest(bytes(range(size)), text, "sha256")
    with pytest.raises(ValueError, match="more than 64 bytes"):
        KeyedHash(bytes(65))


async def test_a_keyed_hash_changes_with_the_secret_of_the_server(world: World) -> None:
    keys, digests = Keyring(world.keys.root), []
    for secret in (bytes(32), b"s" * 32):
        sealed = keys.root.seal(secret, context=seal_context("k", "nonce", SECRET_ALG), random=world.random)
        keys.open([("k", "nonce", SECRET_ALG, "active", sealed)])
        digests += [keys.keyed_hash(purpose).digest(b"text") for purpose in ("one", "two")]
        assert digests[-2:] == [hmac.digest(keys.derive(one), b"text", "sha256") for one in ("one", "two")]
    assert len(set(digests)) == 4
