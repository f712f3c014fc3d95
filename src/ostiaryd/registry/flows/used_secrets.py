"""Secrets that proxies put into requests of agents, and the search for these secrets in calls.

A secret is remembered for at least `KNOWN_US` after its last use. Only keyed hashes of it are stored
(`model.used_secret`).
"""

from __future__ import annotations

from collections.abc import Iterable

from ostiary.protocol.errors import Conflict
from ostiary.protocol.secret_forms import MAX_SEARCHED, SecretSent, check_searchable
from ostiaryd.ground.crypto.keyring import Keyring
from ostiaryd.ground.database import Reader
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import store
from ostiaryd.registry.flows.feed import queue_for_guards
from ostiaryd.registry.model import SecretUseDelta
from ostiaryd.registry.model.used_secret import digest_of, find_secret, make_prints

KNOWN_US = 3600 * 1_000_000
"""Minimum time for which a secret is remembered after its last use, in microseconds. The maximum is twice as long."""
MAX_USED = 256
"""Maximum number of secrets that are remembered for one agent."""


def is_secret_known(reader: Reader, agent: str, secret: str, *, keys: Keyring, now: int) -> bool:
    """Return whether `know_secret` has remembered a secret for an agent, and the server keeps it for at least
    `KNOWN_US` from now.
    """
    return store.used_secrets.get_until(reader, agent, digest_of(secret, _key(keys))) >= now + KNOWN_US


def know_secret(act: Act, agent: str, secret: str) -> None:
    """Remember a secret that is about to be put into a request of an agent, so that the agent's calls are searched for
    it. Raises Conflict if too many secrets are remembered.
    """
    key, until = _key(act.tx.keys), act.now + 2 * KNOWN_US
    digest = digest_of(secret, key)
    if (
        store.used_secrets.get_until(act.tx, agent, digest) <= act.now
        and store.used_secrets.count(act.tx, agent, now=act.now) >= MAX_USED
    ):
        raise Conflict(
            f"the agent has used {MAX_USED} secrets within the last two hours",
            hint="use fewer secrets, or wait until the oldest is forgotten",
            code="too_many_secrets",
        )
    store.used_secrets.put(act.tx, agent, digest, make_prints(secret, key), until=until)
    queue_for_guards(act, SecretUseDelta(agent, until))


def check_no_secret(
    reader: Reader, agents: Iterable[str], text: str, *, keys: Keyring, now: int, limit: int = MAX_SEARCHED
) -> int:
    """Check that a text contains none of the secrets that proxies put into requests of the agents (`know_secret`);
    return the number of bytes that were searched, 0 if no secret is remembered for them.

    Raises SecretSent if the text contains one. If any secret is remembered, SecretSent is also raised for a text of
    more than `limit` bytes.
    """
    prints = [one for agent in agents for one in store.used_secrets.list_prints(reader, agent, now=now)]
    if not prints:
        return 0
    data = check_searchable(text, limit=limit)
    if find_secret(data, prints, _key(keys)):
        raise SecretSent("an argument has a secret that a proxy put into a request of the agent")
    return len(data)


async def forget_used_secrets(world: World) -> int:
    """Delete hashes of secrets that are no longer remembered by any server of the database; return their number."""
    return await world.writer.submit(lambda tx: store.used_secrets.forget(tx, before=world.now.horizon))


def _key(keys: Keyring) -> bytes:
    return keys.derive("used secrets, folded")
