"""Signing keys for administrators."""

from __future__ import annotations

from typing import Literal

import msgspec

from ostiaryd.ground.database.server_keys import load_keys
from ostiaryd.ground.http.edge import Call, Reply, reply
from ostiaryd.ground.http.routes import Route
from ostiaryd.registry.flows import act_as
from ostiaryd.registry.model import ADMIN
from ostiaryd.tokens import flows


class Rotation(msgspec.Struct, forbid_unknown_fields=True):
    use: Literal["token", "feed"] = "token"
    alg: str = "ES256"


async def rotate_key(call: Call) -> Reply:
    """Sign with a new key from now on; `/jwks` shows the old one until nothing that it signed is alive."""
    asked = call.json(Rotation)
    kid = await act_as(call, "keys.rotate", lambda act: flows.rotate_key(act, use=asked.use, alg=asked.alg))
    load_keys(call.world.keys, call.world.db.read())
    return reply({"use": asked.use, "alg": asked.alg, "kid": kid}, status=201)


ROUTES = (Route("POST", "/api/v1/keys/rotate", rotate_key, ADMIN, body=Rotation),)
