"""The keys that sign tokens and feeds: rotate keys, and delete a retired key when every token that it signed has
expired.
"""

from __future__ import annotations

from ostiaryd.ground.database import server_keys
from ostiaryd.ground.database.server_keys import load_keys
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import Act, act
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import LONGEST_TOKEN
from ostiaryd.tokens.model import KeysDelta


def rotate_key(act: Act, *, use: str, alg: str) -> str:
    """Create a signing key for `use` (such as `token`), retire the current key, and return the id of the new key. The
    retired key still verifies its tokens until the last of them has expired. Raises Invalid for an algorithm that the
    use does not allow.

    After the commit of the act, the caller must reload the keyring.
    """
    registry.fill_entry(act, object=use, alg=alg)
    kid = server_keys.rotate_key(act.tx, act.tx.keys.root, use=use, alg=alg)
    act.entry.key = kid
    registry.queue_for_guards(act, KeysDelta())
    return kid


async def forget_keys(world: World) -> int:
    """Delete signing keys that were retired longer ago than the longest lifetime of a token, and return their number.
    If there are none, no ledger entry is written.
    """
    if not server_keys.has_retired_keys(world.db.read(), before=world.now() - LONGEST_TOKEN):
        return 0
    dropped = await act(world, "keys.forget", _forget)
    load_keys(world.keys, world.db.read())
    return dropped


def _forget(act: Act) -> int:
    count = server_keys.forget_keys(act.tx, before=act.now - LONGEST_TOKEN)
    act.entry.detail = {"count": count}
    registry.queue_for_guards(act, KeysDelta())
    return count
