"""Keys of authorities in an HSM (SoftHSM): what it signs, that the keys stay there, and what happens without it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, padding
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.ocsp import OCSPResponseStatus
from msgspec.structs import replace

from harness.clock import Clock
from harness.patience import eventually
from harness.registry_fixtures import newest_entry, register_agent
from ostiary.protocol.errors import Conflict, Invalid, NotFound, Unavailable
from ostiaryd.app import build_app
from ostiaryd.certs.flows import authorities as flows
from ostiaryd.certs.flows import is_live
from ostiaryd.certs.flows.rotation import (
    init_authority,
    keep_authorities,
    revoke_authority,
    rotate_authority,
    start_import,
)
from ostiaryd.certs.model import Authority, AuthorityKind
from ostiaryd.certs.model.certificate import RevocationReason
from ostiaryd.certs.store import authorities as store
from ostiaryd.certs.store import certificates
from ostiaryd.doctor import _hsm
from ostiaryd.ground.config import Config, load_config
from ostiaryd.ground.crypto.hsm import ANSWER_S, LABEL, Hsm, HsmRsaKey, _generate
from ostiaryd.ground.world import World, open_world
from ostiaryd.ledger.flows import act
from tests.support.api_fixtures import send
from tests.support.certificate_fixtures import issue, read
from tests.support.role_fixtures import administrator, ask
from tests.support.soft_hsm import MODULE, PIN, SoftHsm, create_token
from tests.support.status_client import GOOD, get_crl, post, question

pytestmark = pytest.mark.skipif(MODULE is None, reason="SoftHSM is not installed: apt-get install softhsm2")


@pytest.fixture
def database() -> str:
    """The database does not matter to an HSM."""
    return "sqlite"


@pytest.fixture
def token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SoftHsm:
    monkeypatch.setenv("SOFTHSM2_CONF", str(tmp_path / "softhsm2.conf"))
    return create_token(tmp_path)


@pytest.fixture
async def world(config: Config, clock: Clock, token: SoftHsm) -> AsyncIterator[World]:
    async with open_world(replace(config, **token.settings), now=clock) as world:
        await register_agent(world)
        yield world


async def init(world: World, key_type: str = "P-256") -> None:
    async with flows.new_keys(world, key_type) as keys:
        await act(world, "authority.create", lambda a: init_authority(a, keys, config=world.config))


def count_keys(token: SoftHsm) -> int:
    """Return how many objects the token has: two for each key."""
    return len(list(token.session().get_objects()))


@pytest.mark.parametrize("key_type", ["P-256", "P-384", "Ed25519", "RSA-2048"])
async def test_authorities_sign_in_the_hsm_and_no_private_key_is_exported(world: World, key_type: str) -> None:
    await init(world, key_type)
    issued = await issue(world, agent="bot")
    app, chain = build_app(world), [read(der) for der in issued.chain]
    root = read(store.trust_bundle(world.db.read())[0])
    root.verify_directly_issued_by(root)
    chain[-1].verify_directly_issued_by(root)
    read(issued.certificate.der).verify_directly_issued_by(chain[0])
    assert (await post(app, question(issued))).certificate_status is GOOD
    crl = await get_crl(app, f"/ca/{issued.certificate.authority}/crl")
    assert crl.is_signature_valid(chain[0].public_key())  # type: ignore[arg-type]
    every = store.authorities(world.db.read())
    assert {one.kind for one in every} == set(AuthorityKind) - {AuthorityKind.EXTERNAL}
    for one in every:
        assert one.sealed is None
        key = flows.open_sealed(one, keys=world.keys)
        with pytest.raises(TypeError, match="in an HSM"):
            key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        if isinstance(key, HsmRsaKey):
            with pytest.raises(TypeError, match="only by PKCS #1 1.5"):
                key.sign(b"", padding.PSS(padding.MGF1(hashes.SHA256()), 32), hashes.SHA256())
    assert "signed with 3 keys" in await _hsm(world)


def is_there(hsm: Hsm) -> bool:
    with suppress(Unavailable):
        hsm.check()
        return True
    return False


async def test_a_missing_token_stops_issuance_until_the_token_is_back(world: World, token: SoftHsm) -> None:
    issued, app = await issue(world, agent="bot"), build_app(world)
    token.take_away()
    with pytest.raises(Unavailable, match="the HSM cannot be used") as refused:
        await issue(world, agent="bot")
    assert refused.value.hint == "connect the HSM, and check hsm_module, hsm_token and hsm_pin_file"
    assert refused.value.detail.startswith("the token `ostiary-test` of /")
    assert PIN not in refused.value.message_with_detail
    entry = newest_entry(world)
    assert (entry.action, entry.outcome, entry.reasons[0].code) == ("cert.issue", "refused", "unavailable")
    assert len(certificates.list_live(world.db.read(), entry.agent or "", now=world.now(), limit=9)) == 1
    assert (await post(app, question(issued))).response_status is OCSPResponseStatus.TRY_LATER
    answer = await send(app, "GET", f"/ca/{issued.certificate.authority}/crl")
    assert (answer.status, answer.json["message"]) == (503, "the HSM cannot be used")
    with pytest.raises(Unavailable):
        await _hsm(world)
    token.bring_back()

    assert world.keys.hsm is not None
    eventually(partial(is_there, world.keys.hsm))
    await issue(world, agent="bot")
    assert (await post(app, question(issued))).certificate_status is GOOD


def is_refused(hsm: Hsm) -> bool:
    with pytest.raises(Unavailable, match="cannot be used") as refused:
        hsm.check()
    assert "PinIncorrect" not in refused.value.detail
    return "the HSM refused the PIN in hsm_pin_file" in refused.value.detail


async def test_a_wrong_pin_is_sent_only_once_and_a_corrected_pin_is_accepted(
    world: World, token: SoftHsm, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pkcs11

    await init(world)
    monkeypatch.setattr("ostiaryd.ground.crypto.hsm.AGAIN_S", 0.0)
    open_library, sent = pkcs11.lib, list[str]()

    def record(module: str) -> Any:
        sent.append(token.pin_file.read_text())
        return open_library(module)

    monkeypatch.setattr(pkcs11, "lib", record)
    token.pin_file.write_text("wrong")
    assert world.keys.hsm is not None
    world.keys.hsm.close()
    with pytest.raises(Unavailable, match="PinIncorrect"):
        world.keys.hsm.check()
    for _ in range(3):
        eventually(partial(is_refused, world.keys.hsm))
    assert sent == ["wrong"]
    token.pin_file.write_text(PIN)
    eventually(partial(is_there, world.keys.hsm))
    assert sent == ["wrong", PIN]


UNKNOWN_CURVE = "1.3.132.0.31"
"""secp192k1, a curve that `cryptography` does not support"""
ED448 = "1.3.101.113"


def replace_key(token: SoftHsm, key_id: str, kind: str) -> None:
    """Replace a key of the token by a new key with the same id and label: on the curve `kind`, or of the type DSA."""
    from pkcs11 import Attribute, KeyType, Mechanism, MechanismFlag
    from pkcs11.util.ec import encode_named_curve_parameters

    session, id = token.session(), bytes.fromhex(key_id)
    for old in list(session.get_objects({Attribute.ID: id})):
        old.destroy()
    if kind == "DSA":
        numbers = dsa.generate_parameters(1024).parameter_numbers()
        domain = {Attribute.PRIME: numbers.p, Attribute.SUBPRIME: numbers.q, Attribute.BASE: numbers.g}
        attributes = {name: number.to_bytes((number.bit_length() + 7) // 8) for name, number in domain.items()}
        key_type, mechanism = KeyType.DSA, Mechanism.DSA_KEY_PAIR_GEN
    else:
        attributes = {Attribute.EC_PARAMS: encode_named_curve_parameters(kind)}
        key_type, mechanism = KeyType.EC, Mechanism.EC_KEY_PAIR_GEN
    if kind == ED448:
        key_type, mechanism = KeyType.EC_EDWARDS, Mechanism.EC_EDWARDS_KEY_PAIR_GEN
    parameters = session.create_domain_parameters(key_type, attributes, local=True)
    usage = MechanismFlag.SIGN | MechanismFlag.VERIFY
    parameters.generate_keypair(mechanism=mechanism, id=id, label=LABEL, store=True, capabilities=usage)


@pytest.mark.parametrize("kind", ["secp256r1", "secp521r1"])
async def test_a_key_that_was_replaced_in_the_hsm_signs_nothing_and_the_doctor_names_its_authority(
    world: World, token: SoftHsm, kind: str
) -> None:
    issued = await issue(world, agent="bot")
    active = store.active(world.db.read(), AuthorityKind.INTERMEDIATE)
    assert active is not None
    assert active.hsm_key is not None
    replace_key(token, active.hsm_key, kind)
    with pytest.raises(Unavailable, match="is not the key of the authority"):
        await _hsm(world)  # the public key of the earlier key is cached
    world.keys.hsm = token.open()  # a server that starts later
    for operation in (_hsm(world), issue(world, agent="bot")):
        with pytest.raises(Unavailable, match="is not the key of the authority") as refused:
            await operation
        assert active.subject in refused.value.message
    answer = await send(build_app(world), "GET", f"/ca/{issued.certificate.authority}/crl")
    assert answer.status == 503


async def request_certificate(world: World, key_type: str) -> Authority:
    """Return an authority with a new key in the HSM, and without a certificate."""
    async with flows.new_keys(world, key_type, 1) as keys:
        pending, _ = await act(world, "authority.request", lambda a: start_import(a, keys, config=world.config))
    return pending


@pytest.mark.parametrize("key_type", ["P-256", "Ed25519"])
@pytest.mark.parametrize("kind", ["secp384r1", "secp521r1", "secp256k1"])
async def test_a_key_of_another_type_does_not_sign_for_an_authority_without_a_certificate(
    world: World, token: SoftHsm, key_type: str, kind: str
) -> None:
    pending = await request_certificate(world, key_type)
    assert pending.hsm_key is not None
    assert "signed with 1 keys" in await _hsm(world)
    replace_key(token, pending.hsm_key, kind)
    world.keys.hsm = token.open()  # a server that starts later
    with pytest.raises(Unavailable) as refused:
        await _hsm(world)
    assert refused.value.message == f"the key in the HSM is not the key of the authority `{pending.subject}`"


@pytest.mark.parametrize("is_certified", [True, False])
@pytest.mark.parametrize("kind", [UNKNOWN_CURVE, ED448, "DSA"])
async def test_a_key_of_a_type_that_the_server_does_not_use_is_refused(
    world: World, token: SoftHsm, is_certified: bool, kind: str
) -> None:
    if is_certified:
        await init(world)
        authority = store.active(world.db.read(), AuthorityKind.INTERMEDIATE)
    else:
        authority = await request_certificate(world, "Ed25519")
    assert authority is not None
    assert authority.hsm_key is not None
    replace_key(token, authority.hsm_key, kind)
    world.keys.hsm = token.open()  # a server that starts later
    with pytest.raises(Unavailable) as refused:
        await _hsm(world)
    assert refused.value.message == f"the key `{authority.hsm_key}` in the HSM has a type that the server does not use"
    assert refused.value.hint == "restore the token of the HSM from its backup"


async def test_a_pin_file_that_other_users_can_read_is_refused(world: World, token: SoftHsm) -> None:
    token.pin_file.chmod(0o640)
    with pytest.raises(Conflict, match="is open to other users"):
        await issue(world, agent="bot")


async def test_a_key_that_no_authority_has_is_deleted_from_the_token(
    world: World, token: SoftHsm, clock: Clock
) -> None:
    await init(world)
    assert count_keys(token) == 2 * 3
    with pytest.raises(Conflict, match="already"):
        await init(world)
    assert count_keys(token) == 2 * 3
    async with flows.new_keys(world, "P-256") as keys:
        kind = AuthorityKind.INTERMEDIATE
        await act(world, "authority.rotate", lambda a: rotate_authority(a, kind, keys, config=world.config))
    assert count_keys(token) == 2 * 5
    await keep_authorities(world)
    assert count_keys(token) == 2 * 3
    assert "signed with 3 keys" in await _hsm(world)


async def test_an_act_that_completes_after_its_caller_was_cancelled_keeps_its_keys(
    world: World, token: SoftHsm
) -> None:
    waiter = asyncio.create_task(init(world))
    while not world.writer.waiting:  # noqa: ASYNC110 because the job waits for one turn of the loop alone
        await asyncio.sleep(0)
    waiter.cancel()
    await asyncio.wait([waiter])
    assert waiter.cancelled()
    await world.writer.submit(lambda tx: None)
    assert len(store.authorities(world.db.read())) == 3
    assert count_keys(token) == 2 * 3
    assert "signed with 3 keys" in await _hsm(world)


async def test_a_revocation_of_an_authority_is_in_force_while_the_hsm_hangs(
    world: World, token: SoftHsm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the revocation nor any other act waits for the HSM for more than one operation."""
    async with flows.new_keys(world, "P-256") as keys:
        permitted = ["dns:example.com"]
        await act(
            world, "authority.create", lambda a: init_authority(a, keys, permitted=permitted, config=world.config)
        )
    issued, app, chief = await issue(world, agent="bot"), build_app(world), await administrator(world)
    path = f"/api/v1/authorities/{issued.certificate.authority}/revoke"
    waits: list[float | None] = []
    wait = Future.result

    def result(answer: Future[Any], timeout: float | None = None) -> Any:
        waits.append(timeout)
        return wait(answer, timeout)

    with token.hanging(), monkeypatch.context() as patch:
        patch.setattr(Future, "result", result)
        revoked = await ask(chief, "POST", path, {"reason": "keyCompromise"})
        assert (revoked.status, revoked.json["state"], revoked.json["replaced_by"]) == (200, "revoked", None)
        assert not is_live(world.db.read(), issued.certificate, now=world.now())
        for _ in range(3):
            with pytest.raises(Unavailable, match="exceeded its time limit, and still runs"):
                await issue(world, agent="bot")
            assert (await post(app, question(issued))).response_status is OCSPResponseStatus.TRY_LATER
        assert [each for each in waits if each is not None] == [ANSWER_S]
    assert world.keys.hsm is not None
    eventually(partial(is_there, world.keys.hsm))
    await keep_authorities(world)
    made = store.active(world.db.read(), AuthorityKind.INTERMEDIATE)
    assert made is not None
    assert made.permitted == ("dns:example.com",)
    assert newest_entry(world).action == "authority.rotate"
    await issue(world, agent="bot")
    assert count_keys(token) == 2 * 5, "the key that came too late is deleted"


async def test_a_key_that_is_generated_as_its_caller_times_out_is_deleted(
    world: World, token: SoftHsm, monkeypatch: pytest.MonkeyPatch
) -> None:
    hsm, wait = world.keys.hsm, Future.result

    def give_up(answer: Future[Any], timeout: float | None = None) -> None:
        wait(answer, timeout)
        raise TimeoutError

    assert hsm is not None
    with monkeypatch.context() as patch:
        patch.setattr(Future, "result", give_up)
        with pytest.raises(Unavailable, match="has not answered within"):
            hsm.generate("P-256")
    hsm.check()
    assert count_keys(token) == 0


async def test_a_key_that_is_generated_before_the_session_fails_is_deleted(
    world: World, token: SoftHsm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second attempt, in a new session, leaves one key in the token, not two."""
    from pkcs11.exceptions import DeviceError

    failures = [DeviceError("lost")]

    def generate_and_fail(*arguments: Any) -> Any:
        public = _generate(*arguments)
        if failures:
            raise failures.pop()
        return public

    assert world.keys.hsm is not None
    world.keys.hsm.check()
    with monkeypatch.context() as patch:
        patch.setattr("ostiaryd.ground.crypto.hsm._generate", generate_and_fail)
        key = world.keys.hsm.generate("P-256")
    assert count_keys(token) == 2
    assert world.keys.hsm.find(key.key_id).public_key() == key.public_key()


async def test_keys_that_are_generated_before_another_fails_are_deleted(
    world: World, token: SoftHsm, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts, generate = [Unavailable("lost"), None, None], Hsm.generate

    def generate_or_fail(*arguments: Any, **options: Any) -> Any:
        if (failure := attempts.pop()) is not None:
            raise failure
        return generate(*arguments, **options)

    assert world.keys.hsm is not None
    with monkeypatch.context() as patch:
        patch.setattr(Hsm, "generate", generate_or_fail)
        with pytest.raises(Unavailable, match="lost"):
            flows.make_keys(world.keys, "P-256")
    assert count_keys(token) == 0


async def test_the_intermediate_after_a_revocation_has_the_same_name_limits(world: World, token: SoftHsm) -> None:
    async with flows.new_keys(world, "P-256") as keys:
        permitted = ["dns:example.com"]
        await act(
            world, "authority.create", lambda a: init_authority(a, keys, permitted=permitted, config=world.config)
        )
    issued = await issue(world, agent="bot")
    reason = RevocationReason.KEY_COMPROMISE
    await act(world, "authority.revoke", lambda a: revoke_authority(a, issued.certificate.authority, reason))
    after = await issue(world, agent="bot")
    assert after.certificate.authority != issued.certificate.authority
    assert flows.find_authority(world.db.read(), after.certificate.authority).permitted == ("dns:example.com",)
    assert count_keys(token) == 2 * 5, "each key in the HSM belongs to an authority"


async def test_a_database_with_keys_in_an_hsm_needs_the_hsm_to_issue(
    config: Config, clock: Clock, token: SoftHsm
) -> None:
    async with open_world(replace(config, **token.settings), now=clock) as world:
        await register_agent(world)
        await init(world)
    async with open_world(config, now=clock) as world:
        with pytest.raises(Unavailable, match="is in an HSM, and the configuration names no HSM"):
            await issue(world, agent="bot")
        assert "no HSM is configured" in await _hsm(world)
    async with open_world(replace(config, **token.settings), now=clock) as world:
        for one in token.session().get_objects():
            one.destroy()
        with pytest.raises(NotFound, match="does not contain the key"):
            await issue(world, agent="bot")


@pytest.mark.parametrize("left_out", ["hsm_module", "hsm_token", "hsm_pin_file"])
def test_incomplete_settings_of_an_hsm_are_refused(left_out: str, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"hsm_module": "/a.so", "hsm_token": "a", "hsm_pin_file": "/pin"}
    load_config(environ={}, data_dir=str(tmp_path), **settings)
    with pytest.raises(Invalid, match="all of hsm_module"):
        load_config(environ={}, data_dir=str(tmp_path), **{**settings, left_out: ""})
