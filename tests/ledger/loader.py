"""Acts without pause until killed: `python -m tests.ledger.loader DATA_DIR DATABASE`. Prints each acknowledged act."""

from __future__ import annotations

import asyncio
import itertools
import os
import sys

from ostiaryd.ground.config import load_config
from ostiaryd.ground.world import open_world
from ostiaryd.ledger.flows import act

CLIENTS = 16


async def main(data_dir: str, database: str) -> None:
    async with open_world(load_config(environ={}, data_dir=data_dir, database=database)) as world:
        numbers = itertools.count()

        async def client() -> None:
            for number in numbers:
                await act(world, f"load.{number}", lambda a: None)
                os.write(1, b"%d\n" % number)  # unbuffered: what was read was acknowledged

        await asyncio.gather(*[client() for _ in range(CLIENTS)])


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
