"""The seal and the wrapping keys: sealed secrets open by the unseal key alone; keys rotate while requests run."""

from __future__ import annotations

import asyncio
import re
from base64 import b64encode
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from starlette.types import ASGIApp

from harness.clock import Clock
from harness.registry_fixtures import newest_entry
from ostiary.protocol.errors import Conflict, Forbidden, Invalid
from ostiary.protocol.jose import b64u
from ostiaryd.ground.database import Tx, migrate, sql
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import Act, act
from ostiaryd.secrets import flows
from ostiaryd.secrets.flows import databases as flow_databases
from ostiaryd.secrets.flows import seal, transit
from ostiaryd.secrets.model.database import StaticRole
from ostiaryd.secrets.model.request import SECOND
from ostiaryd.secrets.model.sealing import PURPOSE, Envelope, _associated_data, _encrypt, open_key
from ostiaryd.secrets.store import databases
from ostiaryd.secrets.store import seal as store
from tests.secrets.vault_fixtures import POLICIES, PRIVATE, PUBLIC, VaultAgent, enter_agent, seal_all, unseal
from tests.support.certificate_fixtures import put_policies
from tests.support.role_fixtures import ask, person

PATH = "secret/data/agents/bot/db"
ALL = sql(
    "select wrapped_key, sealed from secret_version union all select wrapped_key, sealed from transit_key_version"
)
SET = sql("update secret_version set wrapped_key = :wrapped_key, sealed = :sealed")
NO_KEYS = sql("delete from secret_wrapping_key")


async def test_sealed_secrets_open_only_with_the_unseal_key(world: World, bot: VaultAgent) -> None:
    assert await bot.status("POST", PATH, {"data": {"password": "p"}}) == 200
    assert await bot.status("POST", "transit/keys/k", {}) == 200
    assert (await bot.ask("GET", "sys/seal-status", token="")).json["sealed"] is False
    status = await seal_all(world)
    assert (status.is_sealed, len(status.keys)) == (True, 1)
    for method, path, body in (
        ("GET", PATH, None),
        ("POST", PATH, {"data": {}}),
        ("DELETE", PATH, None),
        ("GET", "sys/mounts", None),
        ("GET", "secret/metadata/agents/bot/db", None),
        ("LIST", "secret/metadata/agents/bot", None),
        ("POST", "transit/encrypt/k", {"plaintext": ""}),
        ("POST", "transit/random", {}),
        ("POST", "auth/jwt/login", {"jwt": "x"}),
        ("POST", "auth/approle/login", {"role_id": "x", "secret_id": "x"}),
        ("GET", "auth/token/lookup-self", None),
        ("POST", "auth/token/renew-self", {}),
    ):
        answer = await bot.ask(method, path, body)
        assert (answer.status, answer.json["errors"][0]) == (503, "the secrets are sealed"), (method, path)
    health = await bot.ask("GET", "sys/health", token="")
    assert (health.status, health.json["sealed"]) == (503, True)
    assert (await bot.ask("GET", "sys/seal-status", token="")).json["sealed"] is True
    for key in store.keys(world.db.read()):  # nothing that the server has opens a wrapping key
        for secret in (world.keys.derive(PURPOSE), world.keys.secret("nonce")):
            with pytest.raises(Conflict):
                open_key(key.number, key.sealed, under=secret)
    for wrong in (bytes(32), PUBLIC, b"", PRIVATE + b"x", PRIVATE[:31]):
        with pytest.raises(Forbidden) as refusal:
            await unseal(world, wrong)
        assert (refusal.value.code, newest_entry(world).outcome) == ("wrong_unseal_key", "refused")
    assert (await bot.ask("POST", "sys/unseal", {"key": "?"}, token="")).status == 400
    assert (await bot.ask("POST", "sys/unseal", {}, token="")).status == 400
    for reset in ({"reset": True}, {"key": b64u(PRIVATE), "reset": True}):
        assert (await bot.ask("PUT", "sys/unseal", reset, token="")).json["sealed"] is True
    assert (await bot.ask("POST", "sys/unseal", {"key": b64u(bytes(32))}, token="")).status == 403
    assert await bot.status("GET", PATH) == 503
    answer = await bot.ask("PUT", "sys/unseal", {"key": b64u(PRIVATE)}, token="")
    assert (answer.status, answer.json["sealed"]) == (200, False)
    assert await bot.read("agents/bot/db") == {"password": "p"}
    assert await bot.status("POST", "transit/encrypt/k", {"plaintext": ""}) == 200
    assert (await bot.ask("PUT", "sys/unseal", {"key": "anything"}, token="")).json["sealed"] is False
    with pytest.raises(Conflict, match="not sealed"):
        await unseal(world)


async def test_a_token_can_be_revoked_while_the_secrets_are_sealed(world: World, app: ASGIApp, bot: VaultAgent) -> None:
    other = await (await enter_agent(world, app, "other")).login()
    await seal_all(world)
    assert await other.status("POST", "auth/token/revoke-self") == 204
    await unseal(world)
    assert await other.status("GET", "auth/token/lookup-self") == 403
    assert await bot.status("GET", "auth/token/lookup-self") == 200


async def test_a_seal_needs_a_valid_unseal_key_and_keeps_that_key(world: World, bot: VaultAgent) -> None:
    with pytest.raises(Invalid, match="no unseal key"):
        await seal_all(world, None)
    for wrong in (b"", PUBLIC[:31], PUBLIC + b"x", bytes(32), b"\x01" + bytes(31)):  # the last two are of low order
        with pytest.raises(Invalid):
            await seal_all(world, wrong)
    assert await bot.status("PUT", "sys/seal") == 403
    await put_policies(world, POLICIES + '@id("seal") permit (principal, action == Action::"seal_secrets", resource);')
    assert await bot.status("PUT", "sys/seal") == 400
    assert await bot.status("GET", PATH) == 404
    await seal_all(world)
    with pytest.raises(Conflict, match="another unseal key"):
        await seal_all(world, bytes(31) + b"\x01")
    assert (await seal_all(world)).is_sealed
    await unseal(world)
    assert await bot.status("PUT", "sys/seal") == 204  # for the key of the last time
    assert await bot.status("GET", PATH) == 503
    assert await bot.status("PUT", "sys/seal") == 204
    await unseal(world)
    assert await bot.status("GET", PATH) == 404


async def test_a_key_rotation_re_encrypts_all_values_while_requests_run(
    world: World, bot: VaultAgent, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seal, "RENEWED_AT_ONCE", 2)
    for number in range(7):
        assert await bot.status("POST", f"secret/data/agents/bot/{number}", {"data": {"n": number}}) == 200
    for name in ("a", "b"):
        assert await bot.status("POST", f"transit/keys/{name}", {}) == 200
    sealed = await bot.ask("POST", "transit/encrypt/a", {"plaintext": b64encode(b"x").decode()})
    before = [tuple(map(bytes, row)) for row in world.db.read().all(ALL)]

    async def use() -> None:
        for number in range(7):
            assert await bot.read(f"agents/bot/{number}") == {"n": number}
            assert await bot.status("POST", "secret/data/agents/bot/new", {"data": {"n": number}}) == 200

    await act(world, "vault.rotate", flows.rotate_keys)
    _, renewed = await asyncio.gather(use(), flows.renew_envelopes(world))
    assert renewed >= 9
    keys = flows.read_status(world.db.read()).keys
    assert [(key.number, key.is_active) for key in keys] == [(2, True)]
    after = [tuple(map(bytes, row)) for row in world.db.read().all(ALL)]
    assert not {part for row in before for part in row} & {part for row in after for part in row}
    assert {Envelope(*row).key_number for row in after} == {2}
    opened = await bot.ask("POST", "transit/decrypt/a", {"ciphertext": sealed.json["data"]["ciphertext"]})
    assert opened.json["data"]["plaintext"] == b64encode(b"x").decode()
    assert await flows.renew_envelopes(world) == 0


async def test_a_password_that_takes_effect_during_re_encryption_is_not_lost(
    world: World, bot: VaultAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pending password of a static role becomes the present one between any two tables of a renewal."""
    role = StaticRole(database="shop", username="reporting", period=3600 * SECOND)
    renew = seal._renew_batch
    for last in range(len(store.ENVELOPE_TABLES)):
        await world.writer.submit(lambda tx: databases.put_static(tx, "reports", role, due_at=tx.now))
        await act(world, "lease.begin_rotation", lambda act: flow_databases.begin_rotation(act, "reports"))
        await act(world, "vault.rotate", flows.rotate_keys)

        def renew_and_rotate(tx: Tx, *, table: store.EnvelopeTable, after: Any, last: int = last) -> Any:
            batch = renew(tx, table=table, after=after)
            if table is store.ENVELOPE_TABLES[last]:
                databases.keep_static_pending(tx, "reports", due_at=tx.now)
            return batch

        monkeypatch.setattr(seal, "_renew_batch", renew_and_rotate)
        assert await flows.renew_envelopes(world) >= 1
        kept = databases.static(world.db.read(), "reports")
        assert kept is not None
        assert kept.password is not None
        place = ("database", "static-roles/reports", 1)
        assert flows.open_value(world.db.read(), kept.password, place, keys=world.keys), last


async def test_a_wrapping_key_is_kept_while_a_value_cannot_be_decrypted(world: World, bot: VaultAgent) -> None:
    assert await bot.status("POST", PATH, {"data": {"n": 1}}) == 200
    [(wrapped, value)] = [tuple(map(bytes, row)) for row in world.db.read().all(ALL)]
    await world.writer.submit(lambda tx: tx.run(SET, wrapped_key=wrapped, sealed=value[:-1]))
    await act(world, "vault.rotate", flows.rotate_keys)
    assert await flows.renew_envelopes(world) == 0
    assert [key.number for key in flows.read_status(world.db.read()).keys] == [1, 2]
    await world.writer.submit(lambda tx: tx.run(SET, wrapped_key=wrapped, sealed=value))
    assert await flows.renew_envelopes(world) == 1
    assert [key.number for key in flows.read_status(world.db.read()).keys] == [2]
    assert await bot.read("agents/bot/db") == {"n": 1}


async def test_key_rotation_is_refused_while_the_secrets_are_sealed(
    world: World, bot: VaultAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seal, "MAX_KEYS", 2)
    assert await bot.status("POST", PATH, {"data": {"n": 1}}) == 200
    await act(world, "vault.rotate", flows.rotate_keys)
    with pytest.raises(Conflict, match="not renewed"):
        await act(world, "vault.rotate", flows.rotate_keys)
    await seal_all(world)
    with pytest.raises(flows.Sealed):
        await act(world, "vault.rotate", flows.rotate_keys)
    assert await flows.renew_envelopes(world) == 0
    assert len(flows.read_status(world.db.read()).keys) == 2
    await unseal(world)
    assert await flows.renew_envelopes(world) == 1
    assert await bot.read("agents/bot/db") == {"n": 1}


async def test_a_value_without_a_wrapping_key_number_opens_and_is_re_encrypted(world: World, bot: VaultAgent) -> None:
    assert await bot.status("POST", PATH, {"data": {}}) == 200
    bound, random = _associated_data(("secret", "agents/bot/db", 1)), world.random
    data_key = random(32)
    wrapped = _encrypt(world.keys.derive(PURPOSE), data_key, bound, random)
    value = _encrypt(data_key, b'{"old":1}', bound, random)

    def go_back(tx: Any) -> None:
        tx.run(SET, wrapped_key=wrapped, sealed=value)
        tx.run(NO_KEYS)

    await world.writer.submit(go_back)
    assert await bot.read("agents/bot/db") == {"old": 1}
    assert await bot.status("POST", "secret/data/agents/bot/other", {"data": {}}) == 200
    assert [key.number for key in flows.read_status(world.db.read()).keys] == [0, 1]
    assert await flows.renew_envelopes(world) == 1
    assert [key.number for key in flows.read_status(world.db.read()).keys] == [1]
    assert await bot.read("agents/bot/db") == {"old": 1}


def test_each_database_column_with_wrapped_keys_is_re_encrypted() -> None:
    columns: dict[str, int] = {}
    for file in (Path(migrate.__file__).parent / "migrations").glob("*.sql"):
        for table, body in re.findall(r"create table (\w+) \((.*?)\n\) ", file.read_text("utf-8"), re.S):
            columns[table] = len(re.findall(r"^\s+(?:wrapped_key|pending_key|token_key) bytea", body, re.M))
    renewed = Counter(table for one in store.ENVELOPE_TABLES for table in one.page.tables)
    assert renewed == {table: count for table, count in columns.items() if count}


async def test_only_an_administrator_can_set_the_unseal_key(world: World) -> None:
    operator, admin = await person(world, "oper", "operator"), await person(world, "ada", "administrator")
    own, path = {"unseal_public_key": b64u(bytes(range(32)))}, "/api/v1/secrets/seal"
    assert (await ask(operator, "POST", path, own)).error == "role_required", "the first key is an administrator's"
    first = await ask(admin, "POST", path, {"unseal_public_key": b64u(PUBLIC)})
    assert first.json["sealed"] is True
    unseal_order = {"unseal_key": b64u(PRIVATE)}
    assert (await ask(admin, "POST", "/api/v1/secrets/unseal", unseal_order)).json["sealed"] is False
    assert (await ask(operator, "POST", path, own)).error == "role_required"
    assert (newest_entry(world).action, newest_entry(world).outcome) == ("vault.seal", "refused")
    assert (await ask(operator, "POST", path, {})).json["sealed"] is True
    assert (await ask(operator, "POST", path, {"unseal_public_key": b64u(PUBLIC)})).status == 200
    assert (await ask(operator, "POST", "/api/v1/secrets/unseal", unseal_order)).error == "role_required"
    assert (await ask(admin, "POST", "/api/v1/secrets/unseal", unseal_order)).json["sealed"] is False


async def test_decrypted_values_are_dropped_at_the_end_of_their_transaction(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seal, "MAX_OPENED", 3)
    transactions: list[Tx] = []

    def use(tx: Tx) -> None:
        transactions.append(tx)
        for number in range(5):
            place = ("secret", "agents/bot/db", number)
            plain = b"x" * seal.MAX_OPENED_BYTES + bytes(number == 0)  # the first value is too large to be kept
            assert flows.open_value(tx, flows.seal_value(tx, plain, place), place, keys=tx.keys) == plain
        assert len(tx.opened) == 3, "the wrapping key and two values"

    def fail(tx: Tx) -> None:
        use(tx)
        raise RuntimeError("the batch fails")

    await world.writer.submit(use)
    with pytest.raises(RuntimeError):
        await world.writer.submit(fail)
    assert [tx.opened for tx in transactions] == [{}, {}]


async def test_a_seal_drops_the_values_decrypted_in_its_transaction(world: World) -> None:
    place = ("secret", "agents/bot/db", 1)

    def use_then_seal(act: Act) -> None:
        envelope = flows.seal_value(act.tx, b"value", place)
        assert flows.open_value(act.tx, envelope, place, keys=act.tx.keys) == b"value"
        assert act.tx.opened
        flows.seal_secrets(act, PUBLIC)
        assert act.tx.opened == {}
        with pytest.raises(flows.Sealed):
            flows.open_value(act.tx, envelope, place, keys=act.tx.keys)

    await act(world, "vault.seal", use_then_seal)


async def test_a_cached_decrypted_value_is_returned_only_for_its_own_row(world: World) -> None:
    place = ("transit", "k", 1)

    def use(tx: Tx) -> None:
        first, second = flows.seal_value(tx, b"first", place), flows.seal_value(tx, b"second", place)
        for envelope, plain in ((first, b"first"), (second, b"second"), (first, b"first")):
            assert flows.open_value(tx, envelope, place, keys=tx.keys) == plain
        for changed, elsewhere in (
            (first, ("transit", "k", 2)),
            (first, ("transit", "l", 1)),
            (Envelope(first.wrapped_key, second.sealed), place),
            (Envelope(first.wrapped_key, first.sealed[:-1] + bytes((first.sealed[-1] ^ 1,))), place),
        ):
            with pytest.raises(Conflict):
                flows.open_value(tx, changed, elsewhere, keys=tx.keys)

    await world.writer.submit(use)


async def test_a_key_deleted_in_its_own_transaction_can_no_longer_be_opened(world: World, bot: VaultAgent) -> None:
    assert await bot.status("POST", "transit/keys/k", {}) == 200
    await act(world, "vault.write", lambda act: transit.rotate_key(act, "k"))

    def use(act: Act) -> None:
        key = transit.find_key(act, "k")
        materials = [transit.open_material(act, key, version) for version in (1, 2)]
        assert [transit.open_material(act, key, version) for version in (1, 2)] == materials
        rotated = transit.rotate_key(act, "k")
        assert transit.open_material(act, rotated, rotated.latest_version) not in materials
        transit.configure_key(act, "k", min_decryption=3, min_encryption=3, deletion_allowed=True)
        transit.trim_key(act, "k", 2)
        with pytest.raises(Invalid, match="does not exist"):
            transit.open_material(act, key, 1)
        transit.delete_key(act, "k")
        with pytest.raises(Invalid, match="not found"):
            transit.find_key(act, "k")
        with pytest.raises(Invalid, match="does not exist"):
            transit.open_material(act, key, 2)

    await act(world, "vault.write", use)
