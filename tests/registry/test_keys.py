"""Keys of agents: one key is one identity; adding, revoking, rotating with overlap."""

from __future__ import annotations

import pytest

from harness.clock import Clock
from harness.registry_fixtures import SECOND, create_holding, feed_messages, is_live, new_jwk, register_agent, run_act
from ostiary.protocol import jose
from ostiary.protocol.errors import Conflict, Invalid, NotFound
from ostiaryd.ground.world import World
from ostiaryd.registry import flows
from ostiaryd.registry.model import LONGEST_TOKEN, AgentId
from ostiaryd.registry.store import keys


def active(world: World, agent: AgentId) -> list[str]:
    return sorted(key.jkt for key in keys.list_active(world.db.read(), agent, now=world.now()))


@pytest.mark.parametrize("alg", sorted(jose.ALGS - {"Ed25519"}))
async def test_a_key_is_named_by_its_thumbprint(world: World, alg: str) -> None:
    agent = await register_agent(world, has_key=False)
    public = jose.generate(alg).public
    added = await run_act(world, lambda a: flows.add_key(a, "bot", dict(public.jwk)))
    assert added.jkt == public.thumbprint
    assert keys.get_key(world.db.read(), public.thumbprint) == added
    assert jose.parse_public_jwk(added.jwk).thumbprint == public.thumbprint
    assert active(world, agent.agent_id) == [public.thumbprint]


async def test_a_private_key_is_refused_and_not_repeated_in_the_error(world: World) -> None:
    await register_agent(world)
    private = jose.generate("ES256").jwk()
    with pytest.raises(Invalid) as refused:
        await run_act(world, lambda a: flows.add_key(a, "bot", private))
    assert private["d"] not in f"{refused.value.message} {refused.value.hint}"


async def test_a_key_that_is_or_was_registered_cannot_be_registered_again(world: World) -> None:
    first, second, guard = new_jwk(), new_jwk(), new_jwk()
    await register_agent(world, has_key=False)
    await register_agent(world, "other", has_key=False)
    await run_act(world, lambda a: flows.add_key(a, "bot", first))
    revoked = await run_act(world, lambda a: flows.add_key(a, "bot", second))
    await run_act(world, lambda a: flows.revoke_key(a, revoked.jkt))
    await run_act(world, lambda a: flows.create_resource(a, name="files", uri="https://files.example/", jwk=guard))
    for jwk in (first, second, guard):
        for name in ("bot", "other"):
            with pytest.raises(Conflict, match="already registered"):
                await run_act(world, lambda a, n=name, j=jwk: flows.add_key(a, n, j))  # type: ignore[misc]
    with pytest.raises(Conflict, match="already registered"):
        await run_act(world, lambda a: flows.create_resource(a, name="mail", uri="https://mail.example/", jwk=first))


async def test_an_agent_has_at_most_ten_active_keys(world: World) -> None:
    agent = await register_agent(world)
    for _ in range(9):
        await run_act(world, lambda a: flows.add_key(a, "bot", new_jwk()))
    with pytest.raises(Conflict, match="10 keys"):
        await run_act(world, lambda a: flows.add_key(a, "bot", new_jwk()))
    await run_act(world, lambda a: flows.revoke_key(a, active(world, agent.agent_id)[0]))
    assert await run_act(world, lambda a: flows.add_key(a, "bot", new_jwk()))


async def test_the_revocation_of_a_key_ends_the_tokens_bound_to_it_and_obtained_with_it(world: World) -> None:
    agent = await register_agent(world)
    [jkt] = active(world, agent.agent_id)
    await create_holding(world, agent, "tok_bound", jkt=jkt)
    await create_holding(world, agent, "tok_obtained", jkt="another", client_jkt=jkt)
    await create_holding(world, agent, "tok_unrelated", jkt="another", client_jkt="another")
    before = len(feed_messages(world))
    assert await run_act(world, lambda a: flows.revoke_key(a, jkt)) == {"token": 2}
    assert [is_live(world, f"tok_{id}") for id in ("bound", "obtained", "unrelated")] == [False, False, True]
    assert active(world, agent.agent_id) == []
    assert feed_messages(world)[before:] == [
        {"kind": "key", "jkt": jkt, "until": world.now() + LONGEST_TOKEN},
        {"kind": "token", "jti": "tok_obtained", "until": world.now() + 60 * SECOND},
    ]
    assert await run_act(world, lambda a: flows.revoke_key(a, jkt)) == {}


async def test_a_key_of_another_agent_is_not_found(world: World) -> None:
    agent, other = await register_agent(world), await register_agent(world, "other")
    [jkt] = active(world, agent.agent_id)
    with pytest.raises(NotFound, match="^the agent has no key"):
        await run_act(world, lambda a: flows.revoke_key(a, jkt, of=other.agent_id))
    with pytest.raises(NotFound, match="^no agent has a key"):
        await run_act(world, lambda a: flows.revoke_key(a, "unknown"))
    assert active(world, agent.agent_id) == [jkt]


async def test_a_rotated_key_stays_active_until_the_overlap_ends(world: World, clock: Clock) -> None:
    agent = await register_agent(world)
    [old] = active(world, agent.agent_id)
    new = (await run_act(world, lambda a: flows.rotate_key(a, "bot", new_jwk(), overlap_s=60))).jkt
    clock.advance(60, us=-1)
    assert active(world, agent.agent_id) == sorted([old, new])
    clock.advance(us=1)
    assert active(world, agent.agent_id) == [new]


async def test_a_rotation_does_not_extend_a_key_that_expires_sooner(world: World, clock: Clock) -> None:
    agent = await register_agent(world)
    soon = await run_act(world, lambda a: flows.add_key(a, "bot", new_jwk(), not_after=a.now + 10 * SECOND))
    await run_act(world, lambda a: flows.rotate_key(a, "bot", new_jwk(), overlap_s=60))
    clock.advance(10)
    assert soon.jkt not in active(world, agent.agent_id)
    assert len(active(world, agent.agent_id)) == 2


async def test_a_rotation_without_overlap_revokes_the_old_key_at_once(world: World) -> None:
    agent = await register_agent(world)
    [old] = active(world, agent.agent_id)
    await create_holding(world, agent, "tok_a", jkt=old)
    new = (await run_act(world, lambda a: flows.rotate_key(a, "bot", new_jwk(), overlap_s=0))).jkt
    assert active(world, agent.agent_id) == [new]
    assert not is_live(world, "tok_a")


@pytest.mark.parametrize("overlap", [-1, 0, 30 * 86_400, 30 * 86_400 + 1])
async def test_the_overlap_of_a_rotation_is_at_most_thirty_days(world: World, overlap: int) -> None:
    await register_agent(world)
    if 0 <= overlap <= 30 * 86_400:
        assert await run_act(world, lambda a: flows.rotate_key(a, "bot", new_jwk(), overlap_s=overlap))
    else:
        with pytest.raises(Invalid, match=f"the overlap must be 0 to {30 * 86_400} seconds"):
            await run_act(world, lambda a: flows.rotate_key(a, "bot", new_jwk(), overlap_s=overlap))
