"""Validation of ACME challenges: http-01 and dns-01 (RFC 8555 section 8), tls-alpn-01 (RFC 8737).

When a client responds to a challenge, the server stores the authorization with the status `processing`. A loop claims
the authorization, connects to the host outside of any act, and records the result in an act. A failed attempt is
retried twice. Each account has at most 4 validations at a time, so that slow hosts of one account do not delay the
validations of another account.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from contextlib import suppress
from functools import lru_cache, partial
from typing import assert_never

from ostiary.protocol.errors import Invalid, Refused
from ostiary.protocol.proxies import parse_networks
from ostiaryd.certs import store
from ostiaryd.certs.flows import acme
from ostiaryd.certs.model.acme import (
    ACME_TLS,
    DAY,
    MAX_KEY_AUTHORIZATION,
    RETRY_S,
    SECOND,
    AcmeRefused,
    Authorization,
    Unauthorized,
    check_dns_answer,
    check_http_answer,
    check_tls_answer,
    key_authorization,
    proven_host,
    server_name,
)
from ostiaryd.certs.model.caa import CaaRecord, check_caa, domains_above
from ostiaryd.certs.model.names import NameKind
from ostiaryd.ground.config import Config
from ostiaryd.ground.outbound.probe import ConnectionFailed, Denied, Reach, TlsFailed, peer_certificate, visit
from ostiaryd.ground.outbound.resolver import DnsFailed, Resolver
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import act

AT_ONCE, OF_ACCOUNT = 32, 4
"""Maximum number of validations at the same time: in total, and for one account."""
LOOKED_AT = 1000
LOOK_S = 1.0
"""Seconds between two searches for validations that are due, such as retries, and challenges to which a client has
responded at another server of the database.
"""
WITHIN_S = 10.0
"""Maximum seconds of one attempt, with all its redirects."""
CLAIM_S = 30
MAX_REDIRECTS = 10
FORGET_AFTER = DAY
"""Microseconds for which an order stays stored after its expiry."""
FORGOTTEN_AT_ONCE = 200
log = logging.getLogger("ostiary")


class Validations:
    """The running validations by authorization. Used only on the event loop."""

    def __init__(self, world: World) -> None:
        self.running: dict[str, tuple[str, asyncio.Task[None]]] = {}
        self.changed = asyncio.Event()
        """Set when a client has responded to a challenge, or a validation has ended: then another validation
        can start.
        """

    async def close(self) -> None:
        """Cancel all validations, and wait until they have ended. Their authorizations keep the status `processing`."""
        tasks = [task for _, task in self.running.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def keep_validating(world: World) -> None:
    """Wait until a client responds or a validation ends, at most `LOOK_S`. Then start the validations that are due."""
    changed = world.get_singleton(Validations).changed
    with suppress(TimeoutError):
        await asyncio.wait_for(changed.wait(), LOOK_S)
    changed.clear()
    await validate_due(world)


async def validate_due(world: World) -> None:
    """Start the validations that are due. Returns before the validations end.

    Raises the error of an earlier validation that failed because of a defect in this program; its authorization keeps
    the status `processing`.
    """
    validations = world.get_singleton(Validations)
    running = validations.running
    for id in [id for id, (_, task) in running.items() if task.done()]:
        running.pop(id)[1].result()
    busy = Counter(account for account, _ in running.values())
    for one in await world.db.scan(lambda reader: store.acme.list_due(reader, now=world.now(), limit=LOOKED_AT)):
        if len(running) >= AT_ONCE:
            return
        if one.authorization_id not in running and busy[one.account] < OF_ACCOUNT:
            busy[one.account] += 1
            task = asyncio.create_task(_validate(world, one))
            task.add_done_callback(lambda _: validations.changed.set())
            running[one.authorization_id] = one.account, task


async def _validate(world: World, authorization: Authorization) -> None:
    id = authorization.authorization_id
    until = world.now() + CLAIM_S * SECOND
    try:
        if not await world.writer.submit(lambda tx: store.acme.claim(tx, id, until=until)):
            return
        refusal = await _attempt(world, authorization)
        if refusal is not None and authorization.attempts < len(RETRY_S):
            due_at = world.now() + RETRY_S[authorization.attempts] * SECOND
            await world.writer.submit(lambda tx: store.acme.postpone(tx, id, due_at=due_at))
        else:
            await act(world, "acme.validate", partial(acme.settle, authorization=authorization, refusal=refusal))
    except Refused as refused:
        log.info("the validation of %s was not recorded: %s", id, refused.message)


async def _attempt(world: World, authorization: Authorization) -> AcmeRefused | None:
    """Connect to the host and check its response to the challenge. Return the refusal if the response does not prove
    control of the name; None if it does.
    """
    account = store.acme.get_account(world.db.read(), authorization.account)
    assert account is not None, "accounts are never deleted"
    expected = key_authorization(authorization.token, account.jkt)
    reach = reach_of(world.config)
    name = authorization.identifier
    host = proven_host(name)
    try:
        match authorization.challenge:
            case "http-01":
                authority = f"[{host}]" if ":" in host else host
                url = f"http://{authority}/.well-known/acme-challenge/{authorization.token}"
                body = await visit(
                    url, reach=reach, within_s=WITHIN_S, max_bytes=MAX_KEY_AUTHORIZATION, max_redirects=MAX_REDIRECTS
                )
                check_http_answer(body, expected)
            case "dns-01":
                check_dns_answer(await reach.resolver.texts(f"_acme-challenge.{host}"), expected)
            case "tls-alpn-01":
                shown = await peer_certificate(
                    host, server_name=server_name(name), protocol=ACME_TLS, reach=reach, within_s=WITHIN_S
                )
                check_tls_answer(shown.der, shown.protocol, name, expected)
            case "":
                raise AssertionError("no challenge was chosen")
            case _:
                assert_never(authorization.challenge)
        await _check_caa(world.config, authorization, reach.resolver)
    except AcmeRefused as refusal:
        return refusal
    except DnsFailed as error:
        return AcmeRefused("dns", error.message)
    except TlsFailed as error:
        return AcmeRefused("tls", error.message)
    except (ConnectionFailed, Denied) as error:
        return AcmeRefused("connection", error.message, hint=error.hint)
    except Invalid as error:
        return Unauthorized(error.message)
    except Exception:
        log.exception("the validation of %s failed", authorization.authorization_id)
        return AcmeRefused("serverInternal", "this server cannot read the response of the host")
    return None


async def _check_caa(config: Config, authorization: Authorization, resolver: Resolver) -> None:
    """Check the CAA records of a DNS name: the records of the closest domain, at or above the name, that has CAA
    records (RFC 8659 section 3). Raises AcmeRefused (`caa`) if the records do not permit this authority, and DnsFailed
    if they cannot be read.
    """
    name = authorization.identifier
    if not config.acme_caa_domains or name.kind is not NameKind.DNS:
        return
    for domain in domains_above(proven_host(name)):
        if records := [CaaRecord(*record) for record in await resolver.caa(domain)]:
            check_caa(
                records,
                is_wildcard=name.is_wildcard,
                domains=frozenset(config.acme_caa_domains.lower().split()),
                account_url=f"{config.public_url}/acme/account/{authorization.account}",
                method=authorization.challenge,
            )
            return


@lru_cache(maxsize=8)
def reach_of(config: Config) -> Reach:
    """Return the hosts to which validations may connect, with the DNS resolver to use."""
    return Reach(
        resolver=Resolver(config.acme_resolvers),
        networks=parse_networks(config.acme_networks),
        http_port=config.acme_http_port,
        tls_port=config.acme_tls_port,
    )


async def forget_orders(world: World) -> None:
    """Delete orders, with their authorizations, a day after the expiry of the order."""
    before, count = world.now.horizon - FORGET_AFTER, FORGOTTEN_AT_ONCE
    while count == FORGOTTEN_AT_ONCE:
        count = await world.writer.submit(lambda tx: store.acme.prune(tx, before=before, limit=FORGOTTEN_AT_ONCE))
