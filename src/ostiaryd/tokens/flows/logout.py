"""Logout: end the grants of a closed login session, and send logout tokens to the session's clients (Back-Channel
Logout 1.0).
"""

from __future__ import annotations

import asyncio
from functools import partial

from ostiary.protocol.errors import Invalid, Unavailable
from ostiary.protocol.jose import sign_jwt
from ostiaryd.ground.database import Tx
from ostiaryd.ground.outbound.fetch import deliver
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import Act, act
from ostiaryd.registry import flows as registry
from ostiaryd.tokens import store
from ostiaryd.tokens.flows.consents import end_grant
from ostiaryd.tokens.model import SECOND
from ostiaryd.tokens.model.id_tokens import LOGOUT_EVENT, LOGOUT_TOKEN_S, LOGOUT_TYP, LogoutToken, alg_of
from ostiaryd.tokens.store.logout import Waiting
from ostiaryd.trust import flows as trust

DELIVERY_S = 5.0
AT_ONCE = 20
SHARE = 4
"""Maximum number of logout tokens that are delivered to one client at once."""
RETRY_S = (5, 30, 120, 600)
"""Time between two attempts to deliver a logout token, in seconds: first entry after the first attempt. After the last
attempt the token is dropped.
"""
LIFETIME = 3600 * SECOND


def close_session(act: Act, session: str, person: str) -> None:
    """End the grants of a login session that has ended; offline grants continue. For each client of the session that
    registered a back-channel logout URI, queue a logout token.
    """
    registry.fill_entry(act, object=session)
    act.entry.person = person
    for grant in store.authorization.grants_of_session(act.tx, session):
        if not grant.is_offline:
            end_grant(act, grant.grant_id, grant.task, why="session ended")
    for client_id in store.logout.take_clients(act.tx, session):
        client = trust.get_oauth_client(act.tx, client_id)
        if client is not None and (uri := client.metadata.backchannel_logout_uri):
            store.logout.put(act.tx, Waiting(act.new_id("lo"), client_id, uri, person, session, 0, act.now + LIFETIME))
    trust.close_session(act.tx, session)


async def follow_sessions(world: World) -> None:
    """Run `close_session`, each time in a separate act, for sessions that have ended and are not closed yet."""
    ended = await world.db.scan(lambda reader: trust.list_ended_sessions(reader, limit=AT_ONCE))
    for session, person in ended:
        await act(world, "session.close", partial(close_session, session=session, person=person))


async def deliver_logouts(world: World) -> None:
    """Deliver the logout tokens that are due. A token is dropped after delivery, after status 400, or after the last
    attempt.

    If the service of a client fails or does not answer, all tokens for the client wait `RETRY_S[0]`. Such a client
    delays tokens for other clients by at most `DELIVERY_S`.
    """
    due = await world.db.scan(lambda reader: store.logout.due(reader, now=world.now(), limit=AT_ONCE, share=SHARE))
    await asyncio.gather(*(_deliver(world, waiting) for waiting in due))


async def _deliver(world: World, waiting: Waiting) -> None:
    body = b"logout_token=" + make_logout_token(world, waiting).encode()
    headers = {"content-type": "application/x-www-form-urlencoded"}
    client = trust.get_oauth_client(world.db.read(), waiting.client_id)
    private = trust.private_hosts_of(client, config=world.config)
    try:
        status, _ = await deliver(
            waiting.uri,
            body,
            headers=headers,
            within_s=DELIVERY_S,
            private=private,
            ca_file=world.config.ca_file,
        )
    except (Invalid, Unavailable):
        status = 0
    now, is_last = world.now(), waiting.attempts >= len(RETRY_S)
    if status in (200, 204):
        await world.writer.submit(lambda tx: store.logout.delete(tx, waiting.id))
    elif status == 400 or is_last or now >= waiting.expires_at:

        def give_up(act: Act) -> None:
            registry.fill_entry(act, object=waiting.client_id, session=waiting.session, status=status)
            store.logout.delete(act.tx, waiting.id)

        await act(world, "logout.give_up", give_up)
    else:
        next_at, soonest = (now + wait_s * SECOND for wait_s in (RETRY_S[waiting.attempts], RETRY_S[0]))

        def retry(tx: Tx) -> None:
            store.logout.postpone(tx, waiting.client_id, until=soonest)
            store.logout.record_failure(tx, waiting.id, next_at=next_at)

        await world.writer.submit(retry)


def make_logout_token(world: World, waiting: Waiting) -> str:
    """Return the signed logout token that tells a client of the end of a session (section 2.4)."""
    client = trust.get_oauth_client(world.db.read(), waiting.client_id)
    now = world.now() // SECOND
    claims = LogoutToken(
        iss=world.config.issuer,
        sub=waiting.person,
        aud=waiting.client_id,
        iat=now,
        exp=now + LOGOUT_TOKEN_S,
        jti=waiting.id,
        sid=waiting.session,
        events={LOGOUT_EVENT: {}},
    )
    return sign_jwt(world.keys.signer("token", alg_of(client)), typ=LOGOUT_TYP, claims=claims)
