"""A receiver of signals, which manages its streams, and verifies tokens with a library of another project."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from joserfc import jwt
from joserfc.jwk import KeySet

from harness.registry_fixtures import agent_caller, register_agent
from ostiary.protocol.errors import Refused
from ostiaryd.ground.http.edge import Call
from ostiaryd.ground.world import World
from ostiaryd.registry.model import SSF_MANAGE, SSF_READ, Agent, Caller
from ostiaryd.signals import wire_ssf, wire_ssf_poll
from ostiaryd.signals.flows import signals
from ostiaryd.tokens.wire_metadata import jwks

ROUTES = (*wire_ssf.ROUTES, *wire_ssf_poll.ROUTES)
SESSION = "https://schemas.openid.net/secevent/caep/event-type/session-revoked"
CREDENTIAL = "https://schemas.openid.net/secevent/caep/event-type/credential-change"
RISK = "https://schemas.openid.net/secevent/caep/event-type/risk-level-change"


@dataclass
class SignalReceiver:
    world: World
    agent: Agent
    by: Caller

    async def ask(self, method: str, target: str, body: Any = None) -> tuple[int, Any]:
        """Send a request as the receiver, and return status and JSON."""
        path, _, query = target.partition("?")
        wire, params = _route(method, path)
        sent = b"" if body is None else json.dumps(body).encode()
        call = Call(
            self.world, method, path, params, query, [(b"content-type", b"application/json")], sent, "rq_1", self.by
        )
        try:
            answer = await wire(call)
        except Refused as refusal:
            answer = wire_ssf.render(refusal)
        assert isinstance(answer.body, bytes)
        return answer.status, json.loads(answer.body) if answer.body else None

    async def stream(self, **wanted: Any) -> dict[str, Any]:
        status, made = await self.ask("POST", "/api/v1/ssf/streams", wanted)
        assert status == 201, made
        return dict(made)

    async def poll(self, stream: dict[str, Any], **said: Any) -> dict[str, Any]:
        """Poll a stream, and return the verified claims of the waiting signals by `jti`."""
        await signals.make_signals(self.world)
        path = stream["delivery"]["endpoint_url"].removeprefix(self.world.config.public_url)
        status, answer = await self.ask("POST", path, {"returnImmediately": True} | said)
        assert status == 200, answer
        claims = {
            id: await read(self.world, token, audience=self.agent.agent_id) for id, token in answer["sets"].items()
        }
        assert all(id == one["jti"] for id, one in claims.items())
        return claims


async def signal_receiver(world: World, name: str = "siem", **more: Any) -> SignalReceiver:
    agent = await register_agent(world, name, **({"owner": "carol", "scopes": [SSF_READ, SSF_MANAGE]} | more))
    return SignalReceiver(world, agent, agent_caller(agent, SSF_READ, SSF_MANAGE))


async def read(world: World, token: str, *, audience: str) -> dict[str, Any]:
    """The claims of a token that joserfc verifies with what our JWKS publishes, checked as SSF 1.0 section 4 says."""
    published = await jwks(Call(world, "GET", "/jwks", {}, "", [], b"", "rq_1"))
    assert isinstance(published.body, bytes)
    seen = jwt.decode(token, KeySet.import_key_set(json.loads(published.body)), algorithms=["RS256"])
    claims: dict[str, Any] = seen.claims
    assert (seen.header["typ"], seen.header["alg"]) == ("secevent+jwt", "RS256")
    assert (claims["iss"], claims["aud"]) == (world.config.issuer, audience)
    assert not {"sub", "exp"} & set(claims)
    assert len(claims["events"]) == 1
    return claims


def events(claims: dict[str, Any]) -> list[str]:
    """Return the last part of each event type, in order."""
    return [next(iter(one["events"])).rpartition("/")[2] for one in claims.values()]


def _route(method: str, path: str) -> tuple[Any, dict[str, str]]:
    for route in ROUTES:
        pattern = re.sub(r"{(\w+)}", r"(?P<\1>[^/]+)", route.path.replace("{path:path}", "{path}"))
        match = re.fullmatch(pattern, path)
        if route.method == method and match is not None:
            return route.wire, match.groupdict()
    raise LookupError(f"no route {method} {path}")
