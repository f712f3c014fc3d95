"""The search for secrets in the arguments of a call. A guard sends the arguments to the server, because a guard does
not have the secrets that egress proxies use.
"""

from __future__ import annotations

from typing import NoReturn

from ostiary.protocol.secret_forms import SecretSent
from ostiaryd.approvals import flows as approvals
from ostiaryd.ground.crypto.keyring import Keyring
from ostiaryd.ground.database import Reader
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows as registry


def search_text(reader: Reader, *, token: str, text: str, resource_id: str, keys: Keyring, now: int) -> None:
    """Check that `text` contains no secret that an egress proxy used for an agent in the chain of the token.

    Raises SecretSent if the text contains such a secret; Forbidden if the token is not live or not for this resource.
    """
    task = approvals.task_of_token(reader, token, registry.find_resource(reader, resource_id), now=now)
    agents = dict.fromkeys((task.agent, *(link.agent for link in task.chain)))
    registry.check_no_secret(reader, agents, text, keys=keys, now=now)


def refuse_secret(act: Act, *, token: str, refusal: SecretSent, resource_id: str) -> NoReturn:
    """Record that a searched text was refused, with the agent and the task of the token. Always raises `refusal`."""
    resource, holding = registry.find_resource(act.tx, resource_id), registry.get_holding(act.tx, token)
    act.entry.resource, act.entry.token = resource.uri, token
    if holding is not None:
        agent = registry.find_agent(act.tx, holding.agent)
        act.entry.agent, act.entry.owner, act.entry.task = agent.agent_id, agent.owner, holding.task
    raise refusal
