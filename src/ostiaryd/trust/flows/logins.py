"""Login of people with local accounts: checks password, code or passkey, throttles failures, and begins a session.

For an unknown name, a wrong password and an account without a password, the response and the amount of work are the
same. After several failed logins, the account or the network has to wait. During the wait a password alone is refused
without a check. A passkey, a password together with a code, and a password in a known browser (`browsers.py`) are still
checked. Someone who guesses passwords therefore does not delay a person with a second factor or a known browser.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Sequence
from typing import NamedTuple, NoReturn

from ostiary.protocol.errors import Forbidden, NotFound, Refused
from ostiaryd.ground.crypto.keyring import Keyring
from ostiaryd.ground.database import Reader, Tx
from ostiaryd.ground.http.buckets import TooMuch
from ostiaryd.ground.http.edge import Call, Headers, retry_headers, status_of
from ostiaryd.ledger.flows import Act, act
from ostiaryd.registry import flows as registry
from ostiaryd.trust import store
from ostiaryd.trust.flows.browsers import name_browser
from ostiaryd.trust.flows.passwords import password_hashing
from ostiaryd.trust.flows.second_factors import find_code, use_code
from ostiaryd.trust.flows.sessions import NewSession, begin_session
from ostiaryd.trust.model import SECOND
from ostiaryd.trust.model.sessions import Proof, Session, add_proof
from ostiaryd.trust.model.throttle import ACCOUNT, BROWSER, CODE, NETWORK, SLOTS, Limit, count_failure, wait_until

MAX_NAME = 64
WRONG = "name, password or code is wrong"


class LoginRefused(Forbidden):
    """The name, password or code is wrong. The message does not say which of these."""

    code = "login_refused"


class LoginThrottled(TooMuch):
    """Too many logins failed for this account or from this network, or too many codes of a signed-in person or of a
    device were wrong (`is_code`).
    """

    code = "login_throttled"

    def __init__(self, after_s: int, *, is_code: bool = False) -> None:
        if is_code:
            message = f"too many codes were wrong; the next code is accepted in {after_s} s"
            hint = "read the code from the display again, and try it after the wait"
            super().__init__(message, after_s=after_s, hint=hint)
            return
        super().__init__(
            f"too many attempts failed; a password alone is accepted again in {after_s} s",
            after_s=after_s,
            hint="a passkey, or the password together with a code, is accepted at once",
        )


class Slot(NamedTuple):
    """A throttle slot: the name under which failed logins are counted, and the limit that applies."""

    name: str
    limit: Limit


class Proven(NamedTuple):
    """A person whose password was verified, with the proofs so far. `unverified_code`: a code that is right, and is not
    yet marked as used, so the caller gives it to `code_prover`; empty if the person gave none.
    """

    person: str
    proofs: tuple[Proof, ...]
    unverified_code: str = ""


def slot_of(keys: Keyring, limit: Limit, text: str) -> Slot:
    """Return the throttle slot in which failures under `limit` are counted for `text`: the typed name of an account
    (known or unknown), a network, a browser, or, for wrong codes, a person. Two texts can share a slot.
    """
    digest = hmac.digest(keys.derive("throttle"), f"{limit.name} {text}".encode("utf-8", "surrogatepass"), "sha256")
    return Slot(f"{limit.name} {int.from_bytes(digest[:8]) % SLOTS}", limit)


def check_throttle(reader: Reader, slots: Sequence[Slot], *, now: int) -> None:
    """Check that no wait is in force in any of the slots. Raises LoginThrottled during a wait."""
    until = max(wait_until(store.people.failures(reader, slot.name), slot.limit) for slot in slots)
    if until > now:
        raise LoginThrottled(-(-(until - now) // SECOND), is_code=any(slot.limit is CODE for slot in slots))


def render_status(refusal: Refused | None) -> tuple[int, Headers]:
    """Return the HTTP status of a page that shows this refusal (200 for None), and the header `Retry-After` while
    logins or codes have to wait.
    """
    return (200, []) if refusal is None else (status_of(refusal), retry_headers(refusal))


async def prove_password(
    call: Call, *, unverified_name: str, unverified_password: str, unverified_code: str = ""
) -> Proven:
    """Verify a name and password, and return the person. If a code is given, verify it too; the act of the login must
    still use the code. Raises LoginRefused for a wrong name, password or code, LoginThrottled during a wait,
    TooManyLogins if too many passwords wait to be checked. A refusal is recorded in the ledger, as far as the limit for
    unauthenticated callers allows.
    """
    world, reader = call.world, call.world.db.read()
    name = unverified_name.strip().lower()[:MAX_NAME]
    person = _find_active(reader, name)
    slots = [slot_of(world.keys, ACCOUNT, name), slot_of(world.keys, NETWORK, call.network)]
    if browser := name_browser(call, person):
        slots = [slot_of(world.keys, BROWSER, browser)]
    try:
        if not unverified_code:
            check_throttle(reader, slots, now=world.now())
        hash = None if person is None else store.people.password(reader, person)
        is_right = await password_hashing(call).verify(unverified_password, hash, network=call.network, browser=browser)
        if person is None or not is_right:
            await count_failures(call, slots)
            raise LoginRefused(WRONG)
        if unverified_code:
            await _check_code(call, person, unverified_code, slots=slots)
        else:
            # repeated: failures may have been counted while this request waited
            check_throttle(world.db.read(), slots, now=world.now())
    except (LoginRefused, LoginThrottled) as refusal:
        await refuse_login(call, refusal, person)
    if hash is not None:
        await _renew_hash(call, person, unverified_password, hash)
    return Proven(person, (Proof(method="password", at=world.now()),), unverified_code)


async def prove_code(call: Call, person: str, unverified_code: str) -> None:
    """Check the code of a person who has already proved the password, without marking the code as used; `code_prover`
    does this in the act of the login. Raises LoginRefused for a wrong code, LoginThrottled during a wait.
    """
    slot = slot_of(call.world.keys, CODE, person)
    try:
        check_throttle(call.world.db.read(), [slot], now=call.world.now())
        await _check_code(call, person, unverified_code, slots=[])
    except (LoginRefused, LoginThrottled) as refusal:
        await refuse_login(call, refusal, person)


async def log_in(
    call: Call,
    person: str,
    proofs: Sequence[Proof],
    *,
    replaces: Session | None,
    prove: Callable[[Act], Proof | None] | None = None,
) -> NewSession:
    """Begin a session of a person with the given proofs, and return it. `prove`, if given, runs in the act of the login
    and returns a further proof.

    `replaces` is the earlier session of the browser. Raises LoginRefused if `prove` returns None, NotFound for an
    unknown person, Conflict for a person who has left or is suspended, Forbidden for a person whom the kill switch
    stops.
    """
    world = call.world

    def run(act: Act) -> NewSession:
        all_proofs = tuple(proofs)
        if prove is not None:
            act.entry.object = person
            if (proof := prove(act)) is None:
                raise LoginRefused(WRONG)
            all_proofs = add_proof(all_proofs, proof)
        if any(proof.method == "password" and proof.at >= act.now - SECOND * 600 for proof in all_proofs):
            slot = slot_of(world.keys, ACCOUNT, registry.find_person(act.tx, person).name)
            # failures counted for the name and network stay; otherwise each login would give other people new guesses
            if browser := name_browser(call, person):
                slot = slot_of(world.keys, BROWSER, browser)
            store.people.drop_failures(act.tx, slot.name)
            store.people.drop_failures(act.tx, slot_of(world.keys, CODE, person).name)
        return begin_session(
            act,
            person=person,
            proofs=all_proofs,
            config=world.config,
            network=call.network,
            unverified_browser=call.header(b"user-agent"),
            replaces=replaces,
        )

    return await act(world, "person.login", run, request=call.request_id, network=call.network)


def code_prover(person: str, unverified_code: str) -> Callable[[Act], Proof | None] | None:
    """Return a function that verifies and uses a code in the act of a login, for `log_in`; None if the code is empty.

    Acts run one after the other, so wrong codes that were sent at the same time are counted before the right code is
    checked.
    """

    def prove(act: Act) -> Proof | None:
        slot = slot_of(act.tx.keys, CODE, person)
        is_waiting = wait_until(store.people.failures(act.tx, slot.name), slot.limit) > act.now
        return None if is_waiting else use_code(act, person, unverified_code)

    return prove if unverified_code else None


async def refuse_login(call: Call, refusal: Refused, person: str | None = None) -> NoReturn:
    """Record a refused login in the ledger, and raise the refusal."""

    def refuse(act: Act) -> None:
        act.entry.object = person
        raise refusal

    await act(call.world, "person.login", refuse, request=call.request_id, network=call.network)
    raise AssertionError("the act must raise its refusal")


async def _renew_hash(call: Call, person: str, password: str, hash: str) -> None:
    """Replace the stored `hash` of a right password by a hash with the present parameters, if they differ. A password
    that the person has set meanwhile stays.
    """
    new = await password_hashing(call).renew(password, hash, network=call.network)
    if new is None:
        return

    def replace(act: Act) -> None:
        act.entry.object = act.entry.person = person
        if store.people.password(act.tx, person) == hash:
            store.people.set_password(act.tx, person, new)

    await act(call.world, "person.renew_hash", replace, request=call.request_id, network=call.network)


async def _check_code(call: Call, person: str, unverified_code: str, *, slots: Sequence[Slot]) -> None:
    """Check a one-time code without using it. Raises LoginRefused, also during a wait for codes, so that the response
    does not reveal that the password was right.
    """
    world, reader = call.world, call.world.db.read()
    slot = slot_of(world.keys, CODE, person)
    is_waiting = wait_until(store.people.failures(reader, slot.name), slot.limit) > world.now()
    if is_waiting or find_code(reader, world.keys, person, unverified_code, now=world.now()) is None:
        await count_failures(call, [*slots, slot])
        raise LoginRefused(WRONG)


async def count_failures(call: Call, slots: Sequence[Slot]) -> None:
    """Count one more failed login in each of these throttle slots."""

    def count(tx: Tx) -> None:
        for slot in slots:
            store.people.set_failures(
                tx, slot.name, count_failure(store.people.failures(tx, slot.name), slot.limit, now=tx.now)
            )

    await call.world.writer.submit(count)


def _find_active(reader: Reader, unverified_name: str) -> str | None:
    """Return the id of the active person with this name; None if there is none."""
    try:
        person = registry.find_person(reader, unverified_name)
    except NotFound:
        return None
    return person.person_id if person.is_active else None
