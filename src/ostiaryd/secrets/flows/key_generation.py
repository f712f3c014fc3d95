"""The generation of private keys that takes too long for a transaction: the server generates the key before it."""

from __future__ import annotations

import asyncio
from weakref import WeakValueDictionary

from ostiary.protocol.errors import Refused
from ostiaryd.certs.model.keys import PrivateKey, generate_key, key_type_of
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import Act


class KeyNeeded(Refused):
    """A transaction (act) needs a new RSA key, whose generation takes long. The server generates the key outside of the
    transaction, and runs the transaction again with the key.
    """

    code = "key_needed"
    is_challenge = True

    def __init__(self, key_type: str, agent: str) -> None:
        super().__init__("the server must generate a private key before the transaction")
        self.key_type, self.agent = key_type, agent


class KeyGenerator:
    """The generator of RSA keys, whose generation takes long. The generator makes one key at a time, in a thread;
    agents take turns.
    """

    def __init__(self, world: World) -> None:
        self._turn = asyncio.Lock()
        self._turn_of_agent = WeakValueDictionary[str, asyncio.Lock]()

    async def generate(self, key_type: str, agent: str) -> PrivateKey:
        """Return a new private key. The request waits until the earlier requests of the same agent, and at most one
        request of each other agent, are done.
        """
        async with self._turn_of_agent.setdefault(agent, asyncio.Lock()), self._turn:
            return await asyncio.to_thread(generate_key, key_type)


def take_key(act: Act, key_type: str, generated: PrivateKey | None) -> PrivateKey:
    """Return a new private key of the type `key_type`: for RSA, the key `generated` that the server generated before
    the transaction, because the generation takes long; for other types, a key that is generated now. Raises KeyNeeded
    for RSA if `generated` is None or has another type.
    """
    if not key_type.startswith("RSA"):
        return generate_key(key_type)
    if generated is None or key_type_of(generated.public_key()) != key_type:
        raise KeyNeeded(key_type, act.entry.agent or "")
    return generated
