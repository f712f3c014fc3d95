"""Trusted issuers: trust an issuer, distrust it, and link its `sub`s to persons."""

from __future__ import annotations

from msgspec.structs import replace

from ostiary.protocol.errors import Conflict, Invalid, NotFound
from ostiaryd.ground.crypto.keyring import Keyring
from ostiaryd.ground.database import Reader, Tx
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows as registry
from ostiaryd.signals import store
from ostiaryd.signals.flows import delivery
from ostiaryd.signals.model.issuers import MAX_ISSUERS, Issuer, after_failed_poll
from ostiaryd.signals.model.sets import MAX_WORD, SECOND

_PURPOSE = "authorization at issuers of signals"
POLL_S = 40
"""Maximum seconds of a poll; the transmitter may delay its answer for most of this time."""


def trust(act: Act, issuer: Issuer, authorization: str) -> Issuer:
    """Trust the signals that an issuer signs; return the issuer. `authorization`: the Authorization header that this
    server sends to the issuer, empty if this server sends no requests.

    Raises Conflict if the issuer is trusted already (`issuer_exists`) or the limit is reached (`too_many_issuers`).
    """
    registry.fill_entry(
        act,
        object=issuer.issuer_id,
        issuer=issuer.issuer,
        audience=issuer.audience,
        method=issuer.method,
        domains=list(issuer.domains),
        agents="yes" if issuer.names_agents else "",
    )
    if store.issuers.get(act.tx, issuer.issuer) is not None:
        raise Conflict(
            "this issuer is trusted already",
            hint="list the issuers with `ostiary signal issuers`",
            code="issuer_exists",
        )
    if len(store.issuers.issuers(act.tx)) >= MAX_ISSUERS:
        hint = "remove an issuer: ostiary signal distrust ISSUER_ID"
        raise Conflict(f"{MAX_ISSUERS} issuers are trusted, which is the limit", hint=hint, code="too_many_issuers")
    if authorization:
        key, plain = act.tx.keys.value_key(_PURPOSE), authorization.encode()
        issuer = replace(issuer, sealed=key.seal(plain, context=_context(issuer), random=act.tx.random))
    store.issuers.insert(act.tx, issuer)
    return issuer


def distrust(act: Act, id_or_url: str) -> Issuer:
    """Stop trusting an issuer, and return the issuer. The effects of its earlier signals stay. Raises NotFound for an
    unknown issuer.
    """
    issuer = find(act.tx, id_or_url)
    registry.fill_entry(act, object=issuer.issuer_id, issuer=issuer.issuer)
    store.issuers.delete(act.tx, issuer.issuer_id)
    return issuer


def link(act: Act, id_or_url: str, sub: str, person: str) -> str:
    """Link a `sub` of the issuer to a person, so that signals about this `sub` concern the person; return the person's
    id. An earlier link of the `sub` is replaced. Raises NotFound for an unknown issuer or person, Invalid for an empty,
    too long or unprintable `sub`.
    """
    issuer, linked = find(act.tx, id_or_url), registry.find_person(act.tx, person)
    registry.fill_entry(act, object=linked.person_id, issuer=issuer.issuer, sub=sub[:MAX_WORD])
    if not 0 < len(sub) <= MAX_WORD or not sub.isprintable():
        raise Invalid(f"`sub` must have 1 to {MAX_WORD} printable characters")
    store.issuers.link(act.tx, issuer.issuer_id, sub, linked.person_id)
    return linked.person_id


def unlink(act: Act, id_or_url: str, sub: str) -> None:
    """Remove the link between a person and the `sub` of an issuer. Raises NotFound for an unknown issuer, or a `sub`
    without a link.
    """
    issuer = find(act.tx, id_or_url)
    registry.fill_entry(act, object=issuer.issuer_id, issuer=issuer.issuer, sub=sub[:MAX_WORD])
    if not store.issuers.unlink(act.tx, issuer.issuer_id, sub):
        raise NotFound(
            "no person is linked to this `sub`", hint=f"list the links: ostiary signal links {issuer.issuer_id}"
        )


def ask_verification(act: Act, id_or_url: str, state: str) -> Issuer:
    """Prepare the request for a verification event, which the caller sends: store `state`, which the event must
    contain, and return the issuer.

    Raises NotFound for an unknown issuer; Conflict if this server cannot send requests to the issuer.
    """
    issuer = find(act.tx, id_or_url)
    registry.fill_entry(act, object=issuer.issuer_id, issuer=issuer.issuer)
    if not issuer.verification_endpoint:
        raise Conflict(
            "no verification endpoint of the issuer is known",
            hint="if the issuer's metadata name an endpoint, distrust the issuer, and trust it without --jwks-uri",
        )
    if issuer.sealed is None:
        raise Conflict(
            "this server has no authorization for requests to the issuer",
            hint="distrust the issuer, and trust it again with OSTIARY_SIGNAL_AUTHORIZATION set",
        )
    store.issuers.update(act.tx, replace(issuer, state=state))
    return issuer


def find(reader: Reader, id_or_url: str) -> Issuer:
    """Return an issuer by id or URL. Raises NotFound if there is none."""
    if (issuer := store.issuers.get(reader, id_or_url)) is None:
        raise NotFound("issuer not found", hint="list the issuers with `ostiary signal issuers`")
    return issuer


def examine(reader: Reader, *, now: int) -> str:
    """Return a sentence about the streams to receivers and the trusted issuers. Raises Conflict with the first three
    problems if a stream or an issuer has a problem.
    """
    if wrong := [*delivery.describe_problems(reader, now=now), *describe_problems(reader)]:
        raise Conflict("; ".join(wrong[:3]), hint="see `ostiary signal streams` and `ostiary signal issuers`")
    streams, trusted = store.streams.count(reader), len(store.issuers.issuers(reader))
    if not streams and not trusted:
        return "no receivers and no trusted issuers; see `ostiary signal --help`"
    return f"{streams} streams are up to date, {trusted} issuers are trusted"


def describe_problems(reader: Reader) -> list[str]:
    """Return a sentence for each trusted issuer that has a problem."""
    return [f"{one.issuer}: {one.trouble}" for one in store.issuers.issuers(reader) if one.trouble]


def open_authorization(issuer: Issuer, keys: Keyring) -> str:
    """Return the decrypted Authorization header for requests to the issuer, whose `sealed` must not be None. Raises
    Conflict if another root key encrypted the header.
    """
    assert issuer.sealed is not None
    return keys.open_value(issuer.sealed, purpose=_PURPOSE, context=_context(issuer)).decode()


def _context(issuer: Issuer) -> bytes:
    return f"issuer of signals|{issuer.issuer_id}".encode()


def begin_poll(tx: Tx, issuer: Issuer) -> Issuer | None:
    """Claim the next poll of the issuer for this process, and return the issuer; None if another process has the claim,
    or the poll is not due.
    """
    if not store.issuers.claim(tx, issuer.issuer_id, until=tx.now + (POLL_S + 5) * SECOND):
        return None
    return store.issuers.get(tx, issuer.issuer_id)


def end_poll(tx: Tx, claimed: Issuer, *, why: str = "") -> None:
    """End the claimed poll and schedule the next poll. `why`: the error of a failed poll, after which the next poll
    waits (`POLL_DELAYS_S`); empty if the poll succeeded, and the next poll is due at once.
    """
    issuer = store.issuers.get(tx, claimed.issuer_id)
    if issuer is None or issuer.busy_until != claimed.busy_until:
        return
    after = (
        after_failed_poll(issuer, why=why, now=tx.now) if why else replace(issuer, attempts=0, busy_until=0, due_at=0)
    )
    store.issuers.update(tx, replace(after, trouble=why) if why or issuer.attempts else after)
