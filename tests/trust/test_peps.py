"""Static PEPs: an API key is accepted only at the AuthZEN endpoints, from its networks, until its expiry."""

from __future__ import annotations

import json
import re
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import ASGIApp

from harness.clock import Clock
from harness.registry_fixtures import newest_entry
from ostiary.guard.argument_summary import summarize_arguments
from ostiary.protocol.errors import Conflict, Invalid, NotFound
from ostiaryd.app import ROUTES, build_app
from ostiaryd.ground.database import sql
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import act
from ostiaryd.ledger.model.sampling import FULL_OF_NETWORK
from ostiaryd.ledger.store import get_head
from ostiaryd.registry.store import stops
from ostiaryd.trust import flows, store
from ostiaryd.trust.flows.peps import DAY, ENDS_SOON, HOUR, UNUSED, NewPepKey
from ostiaryd.trust.model import PEP_USE_INTERVAL, check_networks, is_pep_key, render_pep_key
from tests.support.api_fixtures import Answer, Client, reconfigured, register, send
from tests.support.database_changes import change_database, complete_state_check
from tests.support.trust_fixtures import nonce_of

ONE, MANY = "/access/v1/evaluation", "/access/v1/evaluations"
SEARCH = "/access/v1/search/"
HERE, ELSEWHERE = "10.1.2.3", "10.1.3.3"
USER, READ, RECORD = {"type": "user", "id": "u"}, {"name": "read"}, {"type": "record", "id": "r"}
QUESTION = {"subject": USER, "action": READ, "resource": RECORD}
BODIES = {
    ONE: QUESTION,
    MANY: {**QUESTION, "evaluations": [{}, {}]},
    SEARCH + "subject": {**QUESTION, "subject": {"type": "user"}},
    SEARCH + "resource": {**QUESTION, "resource": {"type": "record"}},
    SEARCH + "action": {"subject": USER, "resource": RECORD},
}


async def create(
    world: World, name: str = "gateway", *, networks: tuple[str, ...] = ("10.1.2.0/24",), days: int = 90
) -> NewPepKey:
    def run(act: Any) -> NewPepKey:
        return flows.create_pep(act, name=name, networks=networks, days=days)

    return await act(world, "pep.create", run)


async def rotate(world: World, **said: Any) -> NewPepKey:
    return await act(world, "pep.rotate", lambda act: flows.rotate_pep(act, "gateway", **said))


async def ask(
    app: ASGIApp, key: str, path: str = ONE, *, address: str = HERE, scheme: str = "Bearer", **headers: str
) -> Answer:
    body = json.dumps(BODIES.get(path, {})).encode()
    sent = [("authorization", f"{scheme} {key}"), ("content-type", "application/json"), *headers.items()]
    named = [(name.replace("_", "-"), value) for name, value in sent]
    return await send(app, "POST", path, headers=named, body=body, address=address)


@pytest.fixture
def app(world: World) -> ASGIApp:
    return build_app(world)


@pytest.mark.parametrize("path", sorted(BODIES))
async def test_a_pep_key_is_accepted_at_the_authzen_endpoints_and_the_entry_names_its_pep(
    world: World, app: ASGIApp, path: str
) -> None:
    made = await create(world)
    answer = await ask(app, made.key, path)
    assert answer.status == 200, answer.body
    entry = newest_entry(world)
    assert entry.reporter == made.pep.pep_id
    assert entry.agent is None
    assert made.key not in str(entry)


async def test_a_pep_key_is_refused_at_all_other_routes(world: World, app: ASGIApp) -> None:
    made = await create(world)
    assert set(BODIES) == {route.path for route in ROUTES if route.allows_peps}
    guarded = [(route.method, route.path) for route in ROUTES if route.scope and not route.allows_peps]
    assert len(guarded) > 100
    header = [("authorization", f"Bearer {made.key}"), ("content-type", "application/json")]
    for method, pattern in guarded:
        path = re.sub(r"\{[^}]*\}", "x", pattern)
        answer = await send(app, method, path, headers=header, body=b"{}", address=HERE)
        assert answer.status == 401, (method, path)
        assert b"AuthZEN endpoints" in answer.body, (method, path)
    for path in ("/introspect", "/revoke", "/token", "/bc-authorize"):
        answer = await send(
            app,
            "POST",
            path,
            address=HERE,
            body=b"token=x&grant_type=client_credentials",
            headers=[("authorization", f"Bearer {made.key}"), ("content-type", "application/x-www-form-urlencoded")],
        )
        assert answer.status == 401, path


async def test_a_pep_key_is_accepted_only_from_its_networks(world: World) -> None:
    cases: list[tuple[tuple[str, ...], str, str, str, bool]] = [
        (("10.1.2.0/24",), "10.1.2.0", "", "", True),
        (("10.1.2.0/24",), "10.1.2.255", "", "", True),
        (("10.1.2.0/24",), "10.1.3.0", "", "", False),
        (("10.1.2.0/24",), "10.1.1.255", "", "", False),
        (("10.1.2.3",), "10.1.2.3", "", "", True),
        (("10.1.2.3",), "10.1.2.4", "", "", False),
        (("10.9.9.9", "10.1.2.3"), "10.1.2.3", "", "", True),
        (("10.1.2.0/24",), "::ffff:10.1.2.3", "", "", True),
        (("10.1.2.0/24",), "::ffff:10.1.3.3", "", "", False),
        (("2001:db8::/32",), "2001:db8::7", "", "", True),
        (("2001:db8::/32",), "2001:db9::7", "", "", False),
        (("::/0",), "10.1.2.3", "", "", False),
        (("10.1.2.0/24",), "", "", "", False),
        (("10.1.2.0/24",), "unix", "", "", False),
        (("10.1.2.0/24",), "10.1.3.3", "10.1.2.3", "", False),  # not a configured proxy
        (("10.1.2.0/24",), "192.0.2.1", "10.1.2.3", "192.0.2.0/24", True),
        (("10.1.2.0/24",), "192.0.2.1", "10.1.2.3, 10.1.3.3", "192.0.2.0/24", False),  # the last is what the proxy saw
        (("192.0.2.0/24",), "192.0.2.1", "10.1.2.3", "192.0.2.0/24", False),  # the proxy is not the gateway
        (("10.1.2.0/24",), "192.0.2.1", "x", "192.0.2.0/24", False),
    ]
    for number, (networks, address, forwarded, proxies, taken) in enumerate(cases):
        made = await create(world, f"gateway-{number}", networks=networks)
        app = build_app(reconfigured(world, proxies=proxies))
        headers = {"x_forwarded_for": forwarded} if forwarded else {}
        answer = await ask(app, made.key, address=address, **headers)
        assert answer.status == (200 if taken else 401), cases[number]


async def test_a_pep_key_is_valid_until_the_instant_of_its_expiry(world: World, app: ASGIApp, clock: Clock) -> None:
    made = await create(world, days=1)
    clock.advance(us=DAY - 1)
    assert (await ask(app, made.key)).status == 200
    clock.advance(us=1)
    for path in BODIES:
        assert (await ask(app, made.key, path)).status == 401, path
    assert "has expired" in newest_entry(world).reasons[0].message


async def test_a_rotation_leaves_the_older_key_until_the_overlap_ends(world: World, app: ASGIApp, clock: Clock) -> None:
    first = await create(world)
    second = await rotate(world, overlap_h=2)
    assert first.key != second.key
    clock.advance(us=2 * HOUR - 1)
    assert [(await ask(app, made.key)).status for made in (first, second)] == [200, 200]
    with pytest.raises(Conflict, match="2 live keys"):
        await rotate(world, overlap_h=1)
    clock.advance(us=1)
    assert [(await ask(app, made.key)).status for made in (first, second)] == [401, 200]
    third = await rotate(world, overlap_h=1)
    fourth = await rotate(world, overlap_h=0)  # after a leak
    assert [(await ask(app, made.key)).status for made in (second, third, fourth)] == [401, 401, 200]
    assert len(store.peps.pep_keys(world.db.read(), first.pep.pep_id)) == 1, "ended keys are deleted"


async def test_an_overlap_never_prolongs_a_key(world: World, app: ASGIApp, clock: Clock) -> None:
    first = await create(world, days=1)
    clock.advance(us=DAY - HOUR)
    await rotate(world, overlap_h=168)
    clock.advance(us=HOUR - 1)
    assert (await ask(app, first.key)).status == 200
    clock.advance(us=1)
    assert (await ask(app, first.key)).status == 401


async def test_the_revocation_of_a_pep_takes_effect_at_once_for_every_key_and_server(
    world: World, app: ASGIApp
) -> None:
    first, other = await create(world), await create(world, "other")
    second = await rotate(world)
    assert (await ask(app, first.key)).status == 200
    await act(world, "pep.revoke", lambda act: flows.revoke_pep(act, "gateway"))
    for server in (app, build_app(world)):
        assert [(await ask(server, made.key)).status for made in (first, second, other)] == [401, 401, 200]
    for again in (flows.revoke_pep, flows.rotate_pep):
        with pytest.raises(Conflict, match="is revoked"):
            await act(world, "pep.again", lambda act, again=again: again(act, "gateway"))  # type: ignore[misc]
    with pytest.raises(Conflict, match="is taken"):
        await create(world)


def tampered(key: str) -> dict[str, tuple[str, str]]:
    secret = bytes.fromhex(key.removeprefix("ostiary_pep_")[:64])
    other = render_pep_key(bytes(31) + b"\1")
    return {
        "unknown": (other, "Bearer"),
        "a wrong checksum": (key[:-1] + ("0" if key[-1] != "0" else "1"), "Bearer"),
        "a wrong digit": (key[:20] + ("0" if key[20] != "0" else "1") + key[21:], "Bearer"),
        "in capitals": (key.upper(), "Bearer"),
        "digits in capitals": ("ostiary_pep_" + key.removeprefix("ostiary_pep_").upper(), "Bearer"),
        "without its checksum": (key[:-8], "Bearer"),
        "without its prefix": (key.removeprefix("ostiary_pep_"), "Bearer"),
        "more behind it": (key + "0", "Bearer"),
        "another form of the secret": (f"ostiary_pep_{secret!r}", "Bearer"),
        "nothing": ("", "Bearer"),
        "the prefix": ("ostiary_pep_", "Bearer"),
        "another scheme": (key, "DPoP"),
        "as a password": (key, "Basic"),
        "no scheme": (key, ""),
        "two": (f"{other} {key}", "Bearer"),
    }


async def test_an_unknown_or_malformed_pep_key_is_refused_without_details(world: World, app: ASGIApp) -> None:
    made = await create(world)
    cases = tampered(made.key)
    answers = {what: await ask(app, text, scheme=scheme) for what, (text, scheme) in cases.items()}
    assert {what: answer.status for what, answer in answers.items()} == dict.fromkeys(cases, 401)
    assert len({answers[what].body for what in ("unknown", "a wrong checksum", "a wrong digit", "the prefix")}) == 1
    assert (await send(app, "POST", f"{ONE}?access_token={made.key}", address=HERE, body=b"{}")).status == 401
    assert newest_entry(world).reporter is None


async def test_refusals_of_unknown_pep_keys_are_recorded_up_to_the_limit_of_a_network(
    world: World, app: ASGIApp
) -> None:
    await create(world)
    before = get_head(world.db.read())[0].size
    for number in range(FULL_OF_NETWORK + 5):
        assert (await ask(app, render_pep_key(bytes(30) + number.to_bytes(2)))).status == 401
    assert get_head(world.db.read())[0].size - before == FULL_OF_NETWORK


async def test_the_last_use_of_a_pep_key_is_written_at_most_once_an_hour(
    world: World, app: ASGIApp, clock: Clock
) -> None:
    made = await create(world)

    def used() -> int | None:
        return store.peps.pep_keys(world.db.read(), made.pep.pep_id)[0].used_at

    assert used() is None
    began = clock.now
    for path in (ONE, SEARCH + "subject"):
        assert (await ask(app, made.key, path)).status == 200
        assert used() == began
        clock.advance(us=PEP_USE_INTERVAL - 1 - (clock.now - began))
    assert (await ask(app, made.key)).status == 200
    assert used() == began
    clock.advance(us=1)
    assert (await ask(app, made.key, SEARCH + "action")).status == 200
    assert used() == began + PEP_USE_INTERVAL
    await ask(app, made.key, address=ELSEWHERE)
    assert used() == began + PEP_USE_INTERVAL, "a refused use is none"


async def test_the_database_contains_neither_a_pep_key_nor_its_plain_digest(world: World) -> None:
    made = await create(world)
    rows = world.db.read().all(sql("select digest from pep_key"))
    assert len(rows) == 1
    secret = bytes.fromhex(made.key.removeprefix("ostiary_pep_")[:64])
    assert bytes(rows[0][0]) not in (secret, sha256(secret).digest(), sha256(made.key.encode()).digest())
    assert made.key not in repr(made)


BY_HAND = {
    "networks widened": "update pep set networks = '0.0.0.0/0'",
    "an end moved": "update pep_key set expires_at = expires_at + 1",
    "another secret": "update pep_key set digest = :digest",
    "a key deleted": "delete from pep_key",
    "a key inserted": """insert into pep_key (id, pep, digest, created_at, expires_at)
        select 'pk_forged', id, :digest, 0, 9000000000000000 from pep""",
}


@pytest.mark.parametrize("what", BY_HAND)
async def test_a_pep_row_changed_outside_the_server_activates_the_stop_of_everything(world: World, what: str) -> None:
    await create(world)
    await complete_state_check(world)
    assert not stops.list_stops(world.db.read())
    change_database(world, BY_HAND[what], **({"digest": b"forged"} if ":digest" in BY_HAND[what] else {}))
    await complete_state_check(world)
    assert [(one.target_kind, one.value) for one in stops.list_stops(world.db.read())] == [("everything", "")]


async def test_a_regular_change_of_a_pep_is_not_reported_as_a_difference(
    world: World, app: ASGIApp, clock: Clock
) -> None:
    made = await create(world, days=1)
    await complete_state_check(world)
    assert (await ask(app, made.key)).status == 200
    await rotate(world, overlap_h=1)
    clock.advance(us=DAY)
    await rotate(world, overlap_h=0)
    await act(world, "pep.revoke", lambda act: flows.revoke_pep(act, "gateway"))
    await complete_state_check(world)
    assert not stops.list_stops(world.db.read())


async def test_the_name_networks_and_lifetime_of_a_pep_are_within_limits(world: World) -> None:
    cases: list[tuple[dict[str, Any], bool]] = [
        ({"days": 0}, False),
        ({"days": 1}, True),
        ({"days": 366}, True),
        ({"days": 367}, False),
        ({"networks": ()}, False),
        ({"networks": ("10.0.0.1",) * 32}, True),
        ({"networks": ("10.0.0.1",) * 33}, False),
        ({"networks": ("10.0.0.1/24",)}, False),
        ({"networks": ("gateway",)}, False),
        ({"networks": ("",)}, False),
        ({"networks": ("10.0.0.0/33",)}, False),
        ({"networks": ("0.0.0.0/0", "::/0")}, True),
        ({"name": ""}, False),
        ({"name": "pp_1"}, False),
        ({"name": "Gateway"}, False),
        ({"name": "a" * 63}, True),
        ({"name": "a" * 64}, False),
    ]
    for number, (said, good) in enumerate(cases):
        said = {"name": f"gateway-{number}"} | said
        if good:
            await create(world, **said)
        else:
            with pytest.raises(Invalid):
                await create(world, **said)


@pytest.mark.parametrize(("overlap_h", "good"), [(-1, False), (0, True), (168, True), (169, False)])
async def test_the_overlap_of_two_pep_keys_is_at_most_168_hours(world: World, overlap_h: int, good: bool) -> None:
    await create(world)
    if good:
        await rotate(world, overlap_h=overlap_h)
    else:
        with pytest.raises(Invalid, match="0 to 168 hours"):
            await rotate(world, overlap_h=overlap_h)
    with pytest.raises(NotFound):
        flows.find_pep(world.db.read(), "nobody")


async def test_the_number_of_unrevoked_peps_is_limited(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ostiaryd.trust.flows.peps.MAX_PEPS", 2)
    await create(world, "a")
    await create(world, "b")
    with pytest.raises(Conflict, match="there are 2 PEPs"):
        await create(world, "c")
    await act(world, "pep.revoke", lambda act: flows.revoke_pep(act, "a"))
    await create(world, "c")


async def test_the_examination_of_peps_lists_keys_that_expire_soon_or_are_unused(
    world: World, app: ASGIApp, clock: Clock
) -> None:
    def examine() -> tuple[list[str], list[str], int]:
        return flows.examine_peps(world.db.read(), now=world.now())

    assert examine() == ([], [], 0)
    made = await create(world, days=90)
    assert examine() == ([], [], 1)
    clock.advance(us=UNUSED - 1)
    assert examine() == ([], [], 1)
    clock.advance(us=1)
    assert examine() == ([], ["gateway"], 1)
    assert (await ask(app, made.key)).status == 200
    assert examine() == ([], [], 1)
    clock.advance(us=90 * DAY - ENDS_SOON - UNUSED - 1)
    assert examine() == ([], [], 1)
    clock.advance(us=1)
    assert examine() == (["gateway"], [], 1)
    await rotate(world)
    assert examine() == ([], [], 1)
    await act(world, "pep.revoke", lambda act: flows.revoke_pep(act, "gateway"))
    assert examine() == ([], [], 0)


async def test_only_administrators_create_rotate_and_revoke_peps(world: World, app: ASGIApp) -> None:
    def client_of(agent: Any, key: Any) -> Client:
        return Client(app, world, agent.agent_id, key)

    chief = client_of(*await register(world, name="chief", scopes=("ostiary:admin", "ostiary:read")))
    reader = client_of(*await register(world, name="reader", scopes=("ostiary:read", "ostiary:decide")))

    async def call(client: Client, method: str, path: str, body: Any = None) -> Answer:
        await client.ask()
        token = (await client.token(resource=world.config.api))["access_token"]
        proof = client.proof(
            method=method, uri=world.config.public_url + path, access_token=token, nonce=nonce_of(client)
        )
        headers = [("authorization", f"DPoP {token}"), ("dpop", proof), ("content-type", "application/json")]
        return await send(app, method, path, headers=headers, body=b"" if body is None else json.dumps(body).encode())

    new = {"name": "gateway", "networks": ["10.1.2.3", "10.1.2.3/32"]}
    for path in ("/api/v1/peps", "/api/v1/peps/gateway/rotate", "/api/v1/peps/gateway/revoke"):
        assert (await call(reader, "POST", path, new)).status == 403, path
    made = await call(chief, "POST", "/api/v1/peps", new)
    assert (made.status, made.headers["cache-control"]) == (201, "no-store")
    assert is_pep_key(made.json["key"])
    assert made.json["networks"] == ["10.1.2.3/32"]
    entry = newest_entry(world)
    assert (entry.action, entry.agent, entry.object) == ("pep.create", chief.id, made.json["pep_id"])
    rotated = await call(chief, "POST", "/api/v1/peps/gateway/rotate", {"overlap_h": 1})
    assert rotated.status == 201
    for path in ("/api/v1/peps", "/api/v1/peps/gateway", f"/api/v1/peps/{made.json['pep_id']}"):
        shown = await call(reader, "GET", path)
        assert shown.status == 200
        assert b"ostiary_pep_" not in shown.body
    assert len(shown.json["keys"]) == 2
    assert (await call(chief, "POST", "/api/v1/peps/gateway/revoke")).json["revoked_at"] is not None
    assert newest_entry(world).action == "pep.revoke"


@given(st.binary(min_size=32, max_size=32), st.integers(12, 83), st.sampled_from("0123456789abcdef"))
def test_a_pep_key_has_a_fixed_form_and_its_checksum_detects_one_wrong_digit(
    secret: bytes, at: int, digit: str
) -> None:
    key = render_pep_key(secret)
    assert re.fullmatch("ostiary_pep_[0-9a-f]{72}", key)
    assert is_pep_key(key)
    changed = key[:at] + digit + key[at + 1 :]
    assert is_pep_key(changed) is (changed == key)
    assert key not in str(summarize_arguments({"text": f"use {key} for it"}, {}))


def test_networks_are_stored_in_a_canonical_form_without_duplicates() -> None:
    assert check_networks(["10.1.2.3", "10.1.2.3/32", "2001:DB8::/32"]) == "10.1.2.3/32 2001:db8::/32"
