"""Agents that delegate to each other by token exchange, for tests."""

from __future__ import annotations

import itertools
from typing import Any

from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import Act, act
from ostiaryd.registry import flows as registry
from ostiaryd.registry.store import resources
from ostiaryd.tasks import flows as tasks
from ostiaryd.tasks.model import Task, TaskSpec
from tests.support.api_fixtures import ISSUER, Answer, Client, claims_of, oauth_app, register

EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS = "urn:ietf:params:oauth:token-type:access_token"
SCOPES = ("files:read", "files:write", "mail:send")
MAIL = "https://mail.example/mcp"


async def agents(world: World, *names: str, scopes: tuple[str, ...] = SCOPES) -> list[Client]:
    """Return a client for each agent name, and register the resources `files` and `mail`. Each client has received a
    nonce.
    """
    clients = []
    for name in names:
        agent, key = await register(world, name=name, scopes=scopes)
        clients.append(Client(oauth_app(world), world, agent.agent_id, key))
        await clients[-1].ask()

    def make(a: Act) -> None:
        if resources.get_resource(a.tx, "mail") is None:
            registry.create_resource(a, name="mail", uri=MAIL)

    await act(world, "test.mail", make)
    return clients


def uri(name: str) -> str:
    """Return the URI by which tokens name that agent."""
    return f"{ISSUER}/agents/{name}"


async def start(world: World, **said: Any) -> Task:
    return await act(world, "test.start", lambda a: tasks.start(a, TaskSpec(**({"purpose": "p"} | said))))


async def token_for(client: Client, name: str, **said: Any) -> str:
    """Return a token of the client that the named agent can exchange."""
    return str((await client.token(resource=uri(name), **said))["access_token"])


async def exchange(client: Client, subject: str | None, **said: Any) -> Answer:
    """Send a valid exchange with the given parameters replaced; a value of None leaves the parameter out. Return the
    answer.
    """
    asked = {"grant_type": EXCHANGE, "subject_token": subject, "subject_token_type": ACCESS, "scope": "files:read"}
    return await client.ask(**asked | said)


async def exchange_token(client: Client, subject: str, **said: Any) -> str:
    """Return the token of a successful exchange."""
    answer = await exchange(client, subject, **said)
    assert answer.status == 200, answer.body
    return str(answer.json["access_token"])


async def delegate_along(*clients: tuple[Client, str], scope: str = "files:read", **said: Any) -> str:
    """Delegate from each client to the next, and return the token of the last one."""
    (first, _), *rest = clients
    token = await token_for(first, rest[0][1], scope=scope, **said)
    for (client, _), (_, following) in itertools.pairwise(rest):
        token = await exchange_token(client, token, resource=uri(following), scope=scope)
    return token


def chain_links(token: str) -> list[list[Any]]:
    """Return agent, epoch and task of each link of the chain, without the attributes of the agents."""
    return [link[:3] for link in claims_of(token).get("chain", [])]
