"""A remote OPA as decision point: over HTTP, limited in size and time; every failure denies."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import msgspec
import pytest

from harness.clock import Clock, SeededRandom
from ostiary.protocol.errors import Invalid
from ostiaryd.ground.config import Config, load_config
from ostiaryd.ground.outbound.fetch import MAX_ANSWER
from ostiaryd.ground.world import World, open_world
from ostiaryd.ledger.flows import act
from ostiaryd.policy import flows
from ostiaryd.policy.flows.external_pdp import Engines, note_latest
from ostiaryd.policy.flows.loading import load_set
from tests.policy.opa import Opa, opa
from tests.support.policy_fixtures import Ask
from tests.support.rego_fixtures import CEDAR_PERMITS, FORBIDS, SCHEMA, decision

ANN = {
    "subject": {"type": "user", "id": "ann"},
    "action": {"name": "see"},
    "resource": {"type": "user", "id": "ben"},
}


def somebody(id: str) -> dict[str, Any]:
    return ANN | {"subject": {"type": "user", "id": id}}


@pytest.fixture
def served() -> Iterator[Opa]:
    with opa() as served:
        yield served


@pytest.fixture
async def world(config: Config, clock: Clock, dice: SeededRandom, served: Opa) -> AsyncIterator[World]:
    asking = msgspec.structs.replace(config, opa_url=served.url, rego_ms=5000)
    async with open_world(asking, now=clock, random=dice) as world:
        yield world


async def put(world: World, toml: str, cedar: str = "") -> None:
    files = {"a.cedarschema": SCHEMA, "pay.opa.toml": toml} | ({"a.cedar": cedar} if cedar else {})
    loaded = await load_set(world, files)
    made = await act(world, "policy.put", lambda act: flows.put(act, loaded, by=None))
    note_latest(world, made.hash)


async def test_a_document_of_a_remote_opa_is_a_policy(world: World, ask: Ask, served: Opa) -> None:
    await put(world, 'path = "payments/decision"')
    assert await decision(ask, ANN) == (True, "", ["pay"])
    assert await decision(ask, somebody("ben")) == (False, "no policy permits the request", [])
    assert await decision(ask, somebody("eve")) == (False, "not eve", ["pay"])
    path, body = served.asked[0]
    assert path == "/v1/data/payments/decision"
    assert body["input"]["subject"] == {"type": "user", "id": "ann", "attributes": {"id": "ann"}, "ancestors": []}


async def test_a_document_may_be_true_or_false(world: World, ask: Ask) -> None:
    await put(world, 'path = "payments/plain"')
    assert await decision(ask, ANN) == (True, "", ["pay"])
    assert await decision(ask, somebody("ben")) == (False, "no policy permits the request", [])


async def test_a_request_that_cedar_forbids_is_not_sent_to_opa(world: World, ask: Ask, served: Opa) -> None:
    await put(world, 'path = "payments/decision"', FORBIDS)
    assert (await decision(ask, ANN))[2] == ["a#1"]
    assert served.asked == []


@pytest.mark.parametrize("database", ["sqlite"])  # what OPA answers decides, on either database
@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("payments/nothing", "the document is undefined"),
        ("payments/empty", "neither `permit` nor `forbid`"),
        ("payments/strange", "is not a decision"),
        ("payments/number", "is not a decision"),
    ],
)
async def test_a_document_that_is_not_a_decision_denies(world: World, ask: Ask, path: str, said: str) -> None:
    await put(world, f'path = "{path}"', CEDAR_PERMITS)
    allowed, message, policies = await decision(ask, ANN)
    assert (allowed, policies) == (False, ["pay"])
    assert said in message
    await put(world, f'path = "{path}"\nmode = "watch"', CEDAR_PERMITS)
    assert (await decision(ask, ANN))[0] is True


@pytest.mark.parametrize("database", ["sqlite"])  # what OPA answers decides, on either database
@pytest.mark.parametrize(
    ("misbehave", "said"),
    [
        ("slow", "longer than 0.2 s"),
        ("redirect", "the remote server answers 302"),
        ("broken", "the remote server answers 500"),
        ("text", "of the type 'text/html'"),
        ("no JSON", "not a decision"),
        ("huge", f"more than {MAX_ANSWER} bytes"),
        ("deep", "not a decision"),
    ],
)
async def test_an_invalid_or_slow_response_of_opa_denies(
    world: World, ask: Ask, served: Opa, misbehave: str, said: str
) -> None:
    await put(world, 'path = "payments/decision"', CEDAR_PERMITS)
    served.misbehave = misbehave
    engines = world.get_singleton(Engines)
    patient, engines._limit_s = engines._limit_s, 0.2 if misbehave == "slow" else engines._limit_s
    allowed, message, policies = await decision(ask, ANN)
    engines._limit_s = patient
    assert (allowed, policies) == (False, ["pay"])
    assert said in message
    assert len(served.asked) == 1
    served.misbehave = ""
    assert (await decision(ask, ANN))[0] is True


async def test_an_unreachable_opa_is_reported_as_an_error(config: Config, clock: Clock, dice: SeededRandom) -> None:
    with opa() as gone:
        pass
    async with open_world(msgspec.structs.replace(config, opa_url=gone.url), now=clock, random=dice) as world:
        loaded = await load_set(world, {"pay.opa.toml": 'path = "a"'})
        assert loaded.ready.program is not None
        [said] = (await world.get_singleton(Engines).ask(loaded.ready.program, [b"{}"]))[b"{}"]
        assert said.error == "the remote server cannot be reached: ConnectError"


@pytest.mark.parametrize(
    "url",
    [
        "ftp://opa.example",
        "http://opa.example",
        "https://",
        "https://u:p@opa.example",
        "https://opa.example/?x",
        "https://opa.example/#x",
        "https://opa.example/",
        "opa.example",
        "http://127.0.0.1.example",
    ],
)
def test_an_invalid_or_insecure_opa_url_is_refused(url: str) -> None:
    with pytest.raises(Invalid, match="opa_url"):
        load_config(environ={}, data_dir="x", opa_url=url)


@pytest.mark.parametrize("url", ["https://opa.example", "http://127.0.0.1:8181", "https://opa.example/prefix"])
def test_an_https_or_loopback_opa_url_is_accepted(url: str) -> None:
    assert load_config(environ={}, data_dir="x", opa_url=url).opa_url == url
