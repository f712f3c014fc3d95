"""Login with a password: the proof of a local account, its throttling, and the session that follows.

The answer for an unknown name, a wrong password and an account without a password is the same, and so is the work. A
wait is in force for the account and for the network. Nothing is looked at during a wait, so a stranger can delay a
login by password alone, and no other login: a passkey is accepted at any time.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from typing import NamedTuple

from ostiary.protocol.errors import Forbidden, NotFound, Refused
from ostiaryd.ground.crypto.keyring import Keyring
from ostiaryd.ground.database import Reader, Tx
from ostiaryd.ground.http.edge import Call
from ostiaryd.ledger.flows import Act, act
from ostiaryd.registry import flows as registry
from ostiaryd.trust.flows.passwords import password_hashing
from ostiaryd.trust.flows.sessions import NewSession, begin_session
from ostiaryd.trust.model import SECOND
from ostiaryd.trust.model.sessions import Proof, Session
from ostiaryd.trust.model.throttle import FREE_OF_ACCOUNT, FREE_OF_NETWORK, SLOTS, count_failure, wait_until
from ostiaryd.trust.store import people

MAX_NAME = 64


class LoginRefused(Forbidden):
    """Name, password or code are not right. The message never says which."""

    code = "login_refused"


class LoginThrottled(Refused):
    """Too many failures for this account or from this network; `after_s` seconds are left."""

    code = "login_throttled"

    def __init__(self, after_s: int) -> None:
        super().__init__(
            f"too many failed attempts; the next one is accepted in {after_s} s", hint="a passkey is accepted at once"
        )
        self.after_s = after_s


class Slots(NamedTuple):
    """The slots in which failures of a login are counted."""

    account: str
    network: str


def slots_of(keys: Keyring, *, unverified_name: str, network: str) -> Slots:
    """Return the slots of a login: one for the name, known or not, and one for the network."""
    secret = keys.derive("throttle")

    def slot(kind: str, text: str) -> str:
        digest = hmac.digest(secret, f"{kind} {text}".encode(), "sha256")
        return f"{kind} {int.from_bytes(digest[:8]) % SLOTS}"

    return Slots(slot("account", unverified_name), slot("network", network))


def check_throttle(reader: Reader, slots: Slots, *, now: int) -> None:
    """Check that no wait is in force for the account or the network. Raises LoginThrottled."""
    until = max(
        wait_until(people.failures(reader, slots.account), free=FREE_OF_ACCOUNT),
        wait_until(people.failures(reader, slots.network), free=FREE_OF_NETWORK),
    )
    if until > now:
        raise LoginThrottled(-(-(until - now) // SECOND))


async def prove_password(call: Call, *, unverified_name: str, unverified_password: str) -> str:
    """Return the id of the person that this name and password belong to.

    Raises LoginRefused, LoginThrottled, TooManyLogins. A refusal leaves an entry, within the budget of strangers.
    """
    world = call.world
    name = unverified_name.strip().lower()[:MAX_NAME]
    slots = slots_of(world.keys, unverified_name=name, network=call.network)
    reader = world.db.read()
    person = _find_active(reader, name)
    try:
        check_throttle(reader, slots, now=world.now())
    except LoginThrottled as refusal:
        await _refuse(call, refusal, person)
    hash = None if person is None else people.password(reader, person)
    if not await password_hashing(call).verify(unverified_password, hash, network=call.network) or person is None:
        await world.writer.submit(lambda tx: _count_failure(tx, slots))
        await _refuse(call, LoginRefused("name or password is wrong"), person)
        raise AssertionError("the refusal was not raised")
    try:
        check_throttle(world.db.read(), slots, now=world.now())  # by failures that were counted meanwhile
    except LoginThrottled as refusal:
        await _refuse(call, refusal, person)
    return person


async def log_in(call: Call, person: str, proofs: Sequence[Proof], *, replaces: Session | None) -> NewSession:
    """Begin a session with these proofs. Raises NotFound, Conflict for a person who has left."""

    def run(act: Act) -> NewSession:
        return begin_session(
            act,
            person=person,
            proofs=proofs,
            config=call.world.config,
            network=call.network,
            unverified_browser=call.header(b"user-agent"),
            replaces=replaces,
        )

    return await act(call.world, "person.login", run, request=call.request_id, network=call.network)


def _find_active(reader: Reader, unverified_name: str) -> str | None:
    """Return the id of the active person of that name."""
    try:
        person = registry.find_person(reader, unverified_name)
    except NotFound:
        return None
    return person.person_id if person.is_active else None


def _count_failure(tx: Tx, slots: Slots) -> None:
    for slot in slots:
        people.set_failures(tx, slot, count_failure(people.failures(tx, slot), now=tx.now))


async def _refuse(call: Call, refusal: Refused, person: str | None) -> None:
    """Leave the entry of a refused login, and raise the refusal."""

    def refuse(act: Act) -> None:
        act.entry.object = person
        raise refusal

    await act(call.world, "person.login", refuse, request=call.request_id, network=call.network)
