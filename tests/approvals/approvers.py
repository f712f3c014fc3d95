"""Approvers with registered keys, and their revocation."""

from __future__ import annotations

import msgspec

from harness.registry_fixtures import new_jwk, run_act
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Caller
from tests.support.approval_fixtures import Bank


async def keyed(bank: Bank, name: str) -> Caller:
    """A person with a registered key."""
    who = await bank.person(name)
    key = await run_act(bank.world, lambda a: registry.add_person_key(a, who.id, new_jwk()))
    return msgspec.structs.replace(who, jkt=key.jkt)


async def revoke(bank: Bank, who: Caller) -> None:
    await run_act(bank.world, lambda a: registry.revoke_person_key(a, who.id, str(who.jkt)))


async def leave(bank: Bank, who: Caller) -> None:
    await run_act(bank.world, lambda a: registry.revoke_owner(a, who.id))
