"""Secrets that proxies used: stored as keyed hashes for a time, and found in the calls of their agents."""

from __future__ import annotations

import base64
import time

import pytest

from harness.clock import Clock
from harness.registry_fixtures import feed_messages, register_agent, run_act
from ostiary.protocol.errors import Conflict
from ostiary.protocol.secret_forms import MAX_SEARCHED, SecretSent, forms_of
from ostiaryd.ground.process.clock import MARGIN
from ostiaryd.ground.world import World
from ostiaryd.registry import flows
from ostiaryd.registry.flows.used_secrets import KNOWN_US, MAX_USED
from ostiaryd.registry.model import Agent
from ostiaryd.registry.model.used_secret import STRIDE, WINDOW, find_secret, make_prints
from ostiaryd.registry.store import used_secrets

VALUE, KEY = "sk-c4n4ry/+Zz=4711", b"k" * 32


@pytest.fixture
async def bot(world: World) -> Agent:
    return await register_agent(world)


async def know(world: World, agent: Agent, secret: str = VALUE) -> None:
    await run_act(world, lambda a: flows.know_secret(a, agent.agent_id, secret))


def is_sent(world: World, *agents: Agent, text: str = VALUE) -> bool:
    ids = [agent.agent_id for agent in agents]
    try:
        flows.check_no_secret(world.db.read(), ids, text, keys=world.keys, now=world.now())
    except SecretSent:
        return True
    return False


@pytest.mark.parametrize(
    "length", [WINDOW, WINDOW + 1, WINDOW + STRIDE - 2, WINDOW + STRIDE - 1, WINDOW + STRIDE, 4096]
)
def test_each_form_of_a_secret_is_found_at_each_position_and_a_part_is_not_found(length: int) -> None:
    secret = base64.b85encode(bytes(range(256)) * 16).decode()[:length]
    prints = [make_prints("another-s3cret", KEY), make_prints(secret, KEY)]
    forms = sorted(forms_of(secret)) if length < 100 else [secret.encode()]
    for form in forms:
        for place in range(STRIDE + 1):
            assert find_secret(b"'" * place + form + b"'", prints, KEY)
    assert not find_secret(secret[:-1].encode() + b"\0" + secret[:-1].encode(), prints, KEY)
    assert not find_secret(secret.encode(), prints, b"l" * 32)
    assert not find_secret(secret.encode(), prints[:1], KEY)
    assert not find_secret(secret.encode(), [], KEY)


def test_a_search_for_many_secrets_takes_less_than_six_times_a_search_for_one_secret() -> None:
    def search(prints: list[bytes]) -> float:
        begun = time.process_time()
        assert not find_secret(text, prints, KEY)
        return time.process_time() - begun

    text = b"abcdefgh" * 2048
    many = [make_prints(f"{number:08}", KEY) for number in range(MAX_USED)]
    assert find_secret(b"00000200", many, KEY)
    cost_of_one, cost_of_many = (min(search(prints) for _ in range(5)) for prints in (many[:1], many))
    assert cost_of_many < 6 * cost_of_one, "without a common set of hashes, 16 times"


async def test_a_secret_is_found_only_for_its_agent_and_no_form_of_it_is_in_the_database(
    world: World, bot: Agent
) -> None:
    helper = await register_agent(world, "helper")
    assert not is_sent(world, bot)
    await know(world, bot)
    assert is_sent(world, bot)
    assert is_sent(world, helper, bot)
    assert not is_sent(world, helper)
    assert not is_sent(world, bot, text=VALUE[:-1])
    assert is_sent(world, bot, text="x" * (MAX_SEARCHED + 1))
    assert not is_sent(world, bot, text="x" * MAX_SEARCHED)
    assert not is_sent(world, helper, text="x" * (MAX_SEARCHED + 1))
    [prints] = used_secrets.list_prints(world.db.read(), bot.agent_id, now=world.now())
    assert not any(form in prints for form in forms_of(VALUE))


async def test_guards_are_notified_of_an_agent_until_the_secret_that_it_used_is_forgotten(
    world: World, clock: Clock, bot: Agent
) -> None:
    def is_known() -> bool:
        return flows.is_secret_known(world.db.read(), bot.agent_id, VALUE, keys=world.keys, now=world.now())

    await know(world, bot)
    until = clock() + 2 * KNOWN_US
    assert feed_messages(world)[-1] == {"kind": "secret_use", "agent": bot.agent_id, "until": until}
    assert flows.list_secret_users(world.db.read(), now=clock()) == [(bot.agent_id, until)]
    clock.advance(us=KNOWN_US)
    assert is_known()
    clock.advance(us=1)
    assert not is_known()
    clock.advance(us=KNOWN_US - 2)
    assert is_sent(world, bot)
    clock.advance(us=1)
    assert not is_sent(world, bot)
    assert flows.list_secret_users(world.db.read(), now=clock()) == []
    await know(world, bot)
    assert is_sent(world, bot)
    clock.advance(us=2 * KNOWN_US + MARGIN - 1)
    assert await flows.forget_used_secrets(world) == 0
    clock.advance(us=1)
    assert await flows.forget_used_secrets(world) == 1


async def test_an_agent_uses_at_most_the_maximum_number_of_secrets(world: World, bot: Agent, clock: Clock) -> None:
    for number in range(MAX_USED):
        await know(world, bot, f"{number:08}")
    with pytest.raises(Conflict, match="256 secrets"):
        await know(world, bot)
    assert not is_sent(world, bot)
    await know(world, bot, "00000000")
    await know(world, await register_agent(world, "helper"))
    clock.advance(us=2 * KNOWN_US)
    await know(world, bot)
    assert is_sent(world, bot)
