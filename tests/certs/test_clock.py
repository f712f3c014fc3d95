"""Certificates while the wall clock of the server is wrong: none is issued, and no revoked one counts again."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from cryptography import x509

from harness.clock import START, MachineClock
from harness.registry_fixtures import SECOND, newest_entry, register_agent
from ostiaryd.app import build_app
from ostiaryd.ground.config import Config
from ostiaryd.ground.process.clock import LIMIT, ClockJumped
from ostiaryd.ground.world import World
from ostiaryd.trust import flows as trust
from tests.support.certificate_fixtures import issue, put_policies, revoke
from tests.support.clock_world import open_at_machine
from tests.support.status_client import GOOD, REVOKED, get_crl, post, question

BEGIN = START + 60 * SECOND
YEAR_S = 365 * 86_400


@pytest.fixture
def machine() -> MachineClock:
    return MachineClock(BEGIN)


@pytest.fixture
async def world(config: Config, machine: MachineClock) -> AsyncIterator[World]:
    async with open_at_machine(config, machine) as world:
        yield world


@pytest.mark.parametrize("over", [0, 1])
async def test_a_certificate_is_not_issued_after_a_clock_jump_of_more_than_five_minutes(
    world: World, machine: MachineClock, over: int
) -> None:
    await put_policies(world)
    await register_agent(world)
    machine.step(us=LIMIT + over)
    if not over:
        await issue(world, agent="bot")
        return
    with pytest.raises(ClockJumped):
        await issue(world, agent="bot")
    assert (newest_entry(world).action, newest_entry(world).outcome) == ("cert.issue", "refused")


async def test_a_clock_jump_in_either_direction_changes_no_certificate_status(
    world: World, machine: MachineClock
) -> None:
    await put_policies(world)
    await register_agent(world)
    held, ended = await issue(world, agent="bot"), await issue(world, agent="bot")
    await revoke(world, ended.certificate.serial)
    app, numbers = build_app(world), []
    for step in (YEAR_S, -2 * YEAR_S, YEAR_S):
        machine.step(step)
        machine.advance(1)
        await trust.watch_clock(world)
        good, revoked = [await post(app, question(one)) for one in (held, ended)]
        assert (good.certificate_status, revoked.certificate_status) == (GOOD, REVOKED)
        crl = await get_crl(app, f"/ca/{held.certificate.authority}/crl")
        numbers.append(crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number)
        assert crl.get_revoked_certificate_by_serial_number(int(ended.certificate.serial, 16)) is not None
        assert BEGIN <= crl.last_update_utc.timestamp() * SECOND + 600 * SECOND < BEGIN + 1200 * SECOND
    assert numbers == sorted(numbers)
    again = await issue(world, agent="bot")
    assert held.certificate.not_before <= again.certificate.not_before < BEGIN + 60 * SECOND
