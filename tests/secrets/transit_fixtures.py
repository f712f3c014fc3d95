"""Requests to the transit engine, the bytes in its answers, and the content of backups."""

from __future__ import annotations

import base64
import json
from typing import Any

from harness.registry_fixtures import newest_entry
from ostiaryd.ground.world import World
from tests.secrets.vault_fixtures import VaultAgent


async def done(bot: VaultAgent, method: str, path: str, body: Any = None) -> Any:
    """The data of a request that succeeds."""
    answer = await bot.ask(method, path, body)
    assert answer.status in (200, 204), (path, answer.body)
    return answer.json["data"] if answer.status == 200 else {}


async def refused(world: World, bot: VaultAgent, status: int, method: str, path: str, body: Any = None) -> str:
    """The message of a request that is refused with an entry."""
    answer = await bot.ask(method, path, body)
    assert answer.status == status, (path, answer.body)
    assert newest_entry(world).outcome == "refused"
    return " ".join(answer.json["errors"])


def raw(text: str) -> bytes:
    """The bytes of a ciphertext, a signature or an HMAC."""
    return base64.b64decode(text.rpartition(":")[2])


def opened(text: str) -> dict[str, Any]:
    """The value in the text of a backup."""
    value: dict[str, Any] = json.loads(base64.b64decode(text))
    return value


def closed(value: object) -> str:
    """The text of a backup with this value."""
    return base64.b64encode(json.dumps(value).encode()).decode()
