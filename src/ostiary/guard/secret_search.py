"""Calls of agents for which a proxy has put secrets into requests: the server searches the arguments for the secrets.

    POST /feed/v1/find-secret    {"token": jti, "text": "..."}    200; or 403 `secret_sent`

The guard knows these agents from the feed. The guard has no secret and no hash of a secret, so a stolen guard reveals
no secret. Each such call waits for the server, and is refused if the server cannot be asked. Calls of other agents do
not wait.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

import httpx2
import msgspec

from ostiary.decision import access
from ostiary.guard.drivers import Wait, Waits
from ostiary.guard.server_rpc import ASK_S, RpcRefused, ServerRpc
from ostiary.protocol.destination import PROXY_URI
from ostiary.protocol.errors import Refused, Unavailable
from ostiary.protocol.secret_forms import SEARCH_REFUSALS, SecretSent, check_searchable, texts_in


class SecretsUnsearched(Unavailable):
    """Raised if the server, which would search the arguments of a call for secrets, cannot be asked. The call is
    refused.
    """

    code = "secret_search_unavailable"


@dataclass(frozen=True, slots=True)
class SecretSearch:
    """The need to search the arguments of a call for secrets of its agents. The answer is the reason for a denial, or
    None if no secret was found.
    """

    text: str


def may_have_secret(call: access.ResolvedCall) -> bool:
    """Return whether the arguments of a call must be searched: an egress proxy has used secrets for an agent in the
    chain of the call. Calls at an egress proxy are excluded, because the proxy searches them itself.
    """
    return have_used_secrets(call.facts, (agent for agent, _ in call.principal.agents), now=call.now)


def have_used_secrets(facts: access.Facts, agents: Iterable[str], *, now: int) -> bool:
    """Return whether calls of these agents must be searched for secrets (`may_have_secret`)."""
    if not (uses := facts.secret_uses) or facts.resource.uri.startswith(PROXY_URI):
        return False
    return any(now < uses.get(agent, 0) for agent in agents)


def search_of(call: access.ResolvedCall) -> SecretSearch:
    """Return the need that asks the server to search the arguments of a call for secrets."""
    return SecretSearch(texts_in(call.arguments))


def search_secrets(rpc: ServerRpc, need: SecretSearch, token: str) -> Waits[access.Reason | None]:
    """Let the server search the arguments in `need` for secrets. `token`: the `jti` of the call's token. Return the
    reason for a denial; None if the arguments contain no secret. Raises SecretsUnsearched if the server cannot search.
    """
    try:
        check_searchable(need.text)
        body = msgspec.json.encode({"token": token, "text": need.text})
        yield Wait(rpc.submit(partial(rpc.post, "find-secret", body), code=SecretsUnsearched.code), ASK_S)
    except SecretSent as refusal:
        return access.Reason(refusal.code, refusal.message, refusal.hint)
    except RpcRefused as refused:
        if (own := refused.own) is None or own.code not in SEARCH_REFUSALS:
            raise unsearched(refused.message) from None
        return access.Reason(own.code, own.message, own.hint)
    except (Refused, httpx2.HTTPError, OSError, TimeoutError) as error:
        raise unsearched(error.message if isinstance(error, Refused) else type(error).__name__) from None
    return None


def unsearched(why: str) -> SecretsUnsearched:
    """Return the refusal of a call whose arguments cannot be searched because of `why`."""
    message = f"the arguments cannot be searched for secrets that a proxy used for the agent: {why}"
    return SecretsUnsearched(message, hint="try again")
