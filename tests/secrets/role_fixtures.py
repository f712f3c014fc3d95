"""Roles at login methods, and child tokens of an agent at a server without a socket."""

from __future__ import annotations

from typing import Any

from tests.secrets.vault_fixtures import VaultAgent


async def done(bot: VaultAgent, method: str, path: str, body: Any = None, **more: Any) -> Any:
    """The answer of a request that succeeds."""
    answer = await bot.ask(method, path, body, **more)
    assert answer.status in (200, 204), (path, answer.body)
    return answer.json if answer.status == 200 else {}


async def role_of(bot: VaultAgent, **settings: Any) -> dict[str, str]:
    """The credentials of a new role at `auth/workers`."""
    await bot.ask("POST", "sys/auth/workers", {"type": "approle"})
    await done(bot, "POST", "auth/workers/role/r", settings)
    role_id = (await done(bot, "GET", "auth/workers/role/r/role-id"))["data"]["role_id"]
    made = (await done(bot, "POST", "auth/workers/role/r/secret-id", {}))["data"]
    return {"role_id": role_id, "secret_id": made["secret_id"], "accessor": made["secret_id_accessor"]}


async def enter(bot: VaultAgent, credentials: dict[str, str], **more: Any) -> VaultAgent:
    """The agent with a token of a role."""
    login = {"role_id": credentials["role_id"], "secret_id": credentials["secret_id"]}
    worker = VaultAgent(bot.client, bot.name)
    worker.token = (await done(worker, "POST", "auth/workers/login", login, **more))["auth"]["client_token"]
    return worker


async def child_of(bot: VaultAgent, **options: Any) -> VaultAgent:
    """An agent with a child token of its token."""
    child = VaultAgent(bot.client, bot.name)
    child.token = (await done(bot, "POST", "auth/token/create", options))["auth"]["client_token"]
    return child
