"""HTTP route for administrators that rotates a signing key of the server."""

from __future__ import annotations

from typing import Literal, TypedDict

import msgspec

from ostiaryd.ground.database.server_keys import load_keys
from ostiaryd.ground.http.edge import Call, Reply, reply
from ostiaryd.ground.http.routes import Route
from ostiaryd.registry.flows import act_as
from ostiaryd.registry.model import ADMIN
from ostiaryd.tokens import flows


class SigningKeyRotation(msgspec.Struct, forbid_unknown_fields=True):
    use: Literal["token", "feed"] = "token"
    alg: str = "ES256"


class SigningKeyBody(TypedDict):
    """The use, the algorithm and the key id of the new signing key."""

    use: str
    alg: str
    kid: str


async def rotate_key(call: Call) -> Reply:
    """Replace a signing key with a new key.

    `/jwks` lists an old key for tokens until the last token that it signed expires.
    """
    rotation = call.json(SigningKeyRotation)
    kid = await act_as(call, "keys.rotate", lambda act: flows.rotate_key(act, use=rotation.use, alg=rotation.alg))
    load_keys(call.world.keys, call.world.db.read())
    return reply({"use": rotation.use, "alg": rotation.alg, "kid": kid}, status=201)


ROUTES = (
    Route("POST", "/api/v1/keys/rotate", rotate_key, ADMIN, body=SigningKeyRotation, answers={201: SigningKeyBody}),
)
