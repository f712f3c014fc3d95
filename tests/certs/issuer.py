"""Issues certificates without pause until killed: `python -m tests.certs.issuer DATA_DIR DATABASE`.

Prints each certificate whose issue was acknowledged, in hexadecimal with `+`; with `-`, each revoked one.
"""

from __future__ import annotations

import asyncio
import os
import sys

from harness.registry_fixtures import register_agent
from ostiaryd.ground.config import load_config
from ostiaryd.ground.world import open_world
from ostiaryd.registry import flows as registry
from tests.support.certificate_fixtures import issue, new_key, revoke

CLIENTS = 8
REVOKED_OF = 3


async def main(data_dir: str, database: str) -> None:
    async with open_world(load_config(environ={}, data_dir=data_dir, database=database)) as world:
        if registry.get_agent(world.db.read(), "bot") is None:
            await register_agent(world)
        key = new_key()

        async def client(number: int) -> None:
            while True:
                certificate = (await issue(world, agent="bot", key=key)).certificate
                os.write(1, f"+{certificate.der.hex()}\n".encode())  # unbuffered: what was read was acknowledged
                if number % REVOKED_OF == 0:
                    await revoke(world, certificate.serial)
                    os.write(1, f"-{certificate.der.hex()}\n".encode())

        await asyncio.gather(*[client(number) for number in range(CLIENTS)])


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
