"""Profiles: the usual behaviour of each agent at each resource, learned from the reports of the resource's guards, and
sent only to these guards.

Guards get a changed profile after `TELL_EVERY` microseconds at the earliest. A profile only removes findings about
usual calls, so an old profile hides nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import reduce

from ostiary.decision.feed import ProfileFact
from ostiary.protocol.errors import Malformed
from ostiary.protocol.jose import b64u
from ostiary.provenance.noticing import NEW, Event, Profile, learn, pack, unpack
from ostiaryd.feed import store
from ostiaryd.ground.database import Reader
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import Act
from ostiaryd.registry.flows import queue_for_guards
from ostiaryd.registry.model import ProfileDelta

TELL_EVERY = 600_000_000
KEPT = 90 * 86_400_000_000
"""Microseconds for which the profile of an inactive agent is stored."""
MAX_TOLD = 10_000
"""Maximum number of profiles in a snapshot; the profiles that were learned last are included."""


def learn_calls(act: Act, resource_id: str, calls: Mapping[str, Iterable[Event]]) -> None:
    """Update the profiles (the usual behaviour) of agents from their calls at the resource. `calls` maps an agent to
    its calls; denied calls change nothing.
    """
    for agent, events in calls.items():
        packed, told_at = store.profile(act.tx, agent, resource_id) or (b"", None)
        profile = unpack_profile(packed)
        learned = reduce(learn, events, profile)
        if learned is profile:
            continue
        is_told = told_at is None or act.now - told_at >= TELL_EVERY
        if is_told or told_at is None:
            told_at = act.now
            queue_for_guards(act, ProfileDelta(agent, resource_id))
        store.put_profile(act.tx, agent, resource_id, pack(learned), told_at=told_at)


def profile_facts(reader: Reader, resource_id: str) -> list[ProfileFact]:
    """Return the profiles (the usual behaviour of agents) that a guard of the resource gets when the guard starts, at
    most `MAX_TOLD`.
    """
    rows = store.profiles(reader, resource_id, limit=MAX_TOLD)
    return [ProfileFact(agent, b64u(packed)) for agent, packed in rows]


def profile_fact(reader: Reader, agent: str, resource_id: str) -> list[ProfileFact]:
    """Return a list with the profile of an agent at a resource; an empty list if there is no profile."""
    row = store.profile(reader, agent, resource_id)
    return [] if row is None else [ProfileFact(agent, b64u(row[0]))]


async def forget_profiles(world: World) -> int:
    """Delete the profiles of agents that have been inactive for `KEPT`; return the number of deleted profiles."""
    return await world.writer.submit(lambda tx: store.forget_profiles(tx, before=tx.now - KEPT))


def unpack_profile(packed: bytes) -> Profile:
    """Return the profile (the usual behaviour of an agent) in `packed`; a new profile if the bytes are empty or of
    another version of Ostiary.
    """
    try:
        return unpack(packed) if packed else NEW
    except Malformed:
        return NEW
