"""MAC keys of external account bindings, for administrators. With one key, an ACME client creates one account for an
agent or a person (RFC 8555 section 7.3.4).
"""

from __future__ import annotations

from typing import TypedDict

import msgspec

from ostiaryd.certs import store
from ostiaryd.certs.flows import acme
from ostiaryd.certs.flows.holders import name_of_holder
from ostiaryd.certs.model.acme import SECOND, AcmeKey
from ostiaryd.ground.database import Reader
from ostiaryd.ground.http.edge import NO_STORE, Call, Reply, reply
from ostiaryd.ground.http.pages import reply_page
from ostiaryd.ground.http.routes import PAGE, PageBody, Route
from ostiaryd.registry.flows import act_as
from ostiaryd.registry.model import ADMIN, READ


class NewAcmeKeyRequest(msgspec.Struct, forbid_unknown_fields=True):
    """A request for a MAC key, for an agent or for a person.

    `profile`: the profile of the account's certificates. `names`: patterns of the names that the account may order,
    such as `dns:*.example.com`. `days`: the number of days within which the key can create its account.
    """

    agent: str | None = None
    person: str | None = None
    profile: str = acme.DEFAULT_PROFILE
    names: list[str] = []
    days: int = acme.DEFAULT_KEY_DAYS


class AcmeKeyBody(TypedDict):
    """A MAC key without its secret."""

    kid: str
    holder: str
    name: str
    profile: str
    names: list[str]
    created_at: int
    expires_at: int
    account: str | None
    revoked_at: int | None


class IssuedAcmeKey(AcmeKeyBody):
    """A new MAC key with its secret in base64url. Only this response contains the secret."""

    hmac_key: str
    directory: str


async def create_key(call: Call) -> Reply:
    """Create a MAC key, with which an ACME client creates its account.

    Only this response contains the secret.
    """
    new = call.json(NewAcmeKeyRequest)
    made = await act_as(
        call,
        "acme.create_key",
        lambda act: acme.create_key(
            act,
            agent=new.agent,
            person=new.person,
            profile=new.profile,
            names=new.names,
            days=new.days,
            config=call.world.config,
        ),
    )
    shown = _show(call.world.db.read(), made.key)
    body: IssuedAcmeKey = {
        **shown,
        "hmac_key": made.mac_key,
        "directory": f"{call.world.config.public_url}/acme/directory",
    }
    return reply(body, status=201, headers=[NO_STORE])


async def list_keys(call: Call) -> Reply:
    """List the MAC keys with their accounts, including used and revoked keys."""
    return await reply_page(
        call,
        "keys",
        lambda reader, page: store.acme.list_keys(reader, after=page.after, limit=page.limit),
        _show,
        cursor=lambda key: key.kid,
    )


async def revoke_key(call: Call) -> Reply:
    """Revoke a MAC key, and deactivate the account that the key created.

    The account's certificates stay valid until they expire, they are revoked, or their holder ends.
    """
    key = await act_as(call, "acme.revoke_key", lambda act: acme.revoke_key(act, call.params["kid"]))
    return reply(_show(call.world.db.read(), key))


def _show(reader: Reader, key: AcmeKey) -> AcmeKeyBody:
    return {
        "kid": key.kid,
        "holder": key.holder,
        "name": name_of_holder(reader, key.holder),
        "profile": key.profile,
        "names": list(key.names),
        "created_at": key.created_at // SECOND,
        "expires_at": key.expires_at // SECOND,
        "account": key.account,
        "revoked_at": None if key.revoked_at is None else key.revoked_at // SECOND,
    }


ROUTES = (
    Route("POST", "/api/v1/acme/keys", create_key, ADMIN, body=NewAcmeKeyRequest, answers={201: IssuedAcmeKey}),
    Route("GET", "/api/v1/acme/keys", list_keys, READ, answers={200: PageBody("keys", AcmeKeyBody)}, query=PAGE),
    Route("POST", "/api/v1/acme/keys/{kid}/revoke", revoke_key, ADMIN, stops=True, answers={200: AcmeKeyBody}),
)
