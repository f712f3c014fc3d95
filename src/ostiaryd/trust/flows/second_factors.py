"""Second factors after a password: codes of an authenticator app, and recovery codes.

The secret of an app is encrypted with a key that is derived from the server's own key. Each code is accepted once; a
recovery code is deleted when it is used. Wrong codes are throttled separately from wrong passwords, and only a caller
with the right password can cause them.
"""

from __future__ import annotations

import hmac
from base64 import b32encode

from ostiary.protocol.errors import Conflict, Invalid, Malformed
from ostiary.protocol.jose import b64u, unb64u
from ostiaryd.ground.crypto.keyring import Keyring
from ostiaryd.ground.database import Reader
from ostiaryd.ground.http.edge import Call
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows as registry
from ostiaryd.trust import store
from ostiaryd.trust.model.sessions import Proof, Session
from ostiaryd.trust.model.totp import SECRET_BYTES, match_code

_PURPOSE = "totp"
RECOVERY_CODES, RECOVERY_CHARS = 10, 12
"""Number of recovery codes of a person, and characters of each code: 60 bits in Base32."""


def has_totp(reader: Reader, person: str) -> bool:
    """Return whether a person has an authenticator app."""
    return store.people.totp(reader, person) is not None


def find_code(reader: Reader, keys: Keyring, person: str, unverified_code: str, *, now: int) -> Proof | None:
    """Return the proof of a person that a code gives, without marking the code as used; None for a wrong
    or used code.
    """
    if (stored := store.people.totp(reader, person)) is None:
        return None
    sealed, last_step = stored
    if match_code(_open(keys, person, sealed), unverified_code, now=now, last_step=last_step) is not None:
        return Proof(method="totp", at=now)
    if store.people.has_recovery_code(reader, _digest(keys, unverified_code), person=person):
        return Proof(method="recovery", at=now)
    return None


def use_code(act: Act, person: str, unverified_code: str) -> Proof | None:
    """Mark a code of the authenticator app, or a recovery code, as used, and return the proof that it gives; None for a
    wrong or used code.
    """
    proof = find_code(act.tx, act.tx.keys, person, unverified_code, now=act.now)
    if proof is None:
        return None
    if proof.method == "recovery":
        return (
            proof
            if store.people.use_recovery_code(act.tx, _digest(act.tx.keys, unverified_code), person=person)
            else None
        )
    sealed, last_step = store.people.totp(act.tx, person) or (b"", 0)
    step = match_code(_open(act.tx.keys, person, sealed), unverified_code, now=act.now, last_step=last_step)
    return proof if step is not None and store.people.use_totp(act.tx, person, step=step) else None


def new_secret(call: Call) -> bytes:
    """Return a random secret for a new authenticator app."""
    return call.world.random(SECRET_BYTES)


def seal_new_secret(call: Call, session: Session, secret: bytes) -> str:
    """Return a new secret of an authenticator app, encrypted for a hidden field of the setup form in this session."""
    world = call.world
    return b64u(world.keys.value_key(_PURPOSE).seal(secret, context=_context(f"new {session.id}"), random=world.random))


def open_new_secret(call: Call, session: Session, unverified: str) -> bytes:
    """Return the secret that `seal_new_secret` encrypted for this session. Raises Invalid for any other value."""
    try:
        return call.world.keys.value_key(_PURPOSE).open(unb64u(unverified), context=_context(f"new {session.id}"))
    except (Malformed, Conflict, ValueError):
        raise Invalid(
            "the form belongs to another session, or was changed", hint="open the account page and begin again"
        ) from None


def set_totp(act: Act, person: str, secret: bytes, unverified_code: str) -> Proof:
    """Register an authenticator app with this secret if the code is right, and return the proof of the person. Raises
    Invalid for a wrong code.
    """
    registry.fill_entry(act, object=person)
    step = match_code(secret, unverified_code, now=act.now, last_step=0)
    if step is None:
        raise Invalid("the code is wrong", hint="check the clock of the phone, and type the code that the app shows")
    store.people.set_totp(act.tx, person, _seal(act, person, secret), step=step)
    return Proof(method="totp", at=act.now)


def renew_recovery_codes(act: Act, person: str) -> list[str]:
    """Replace the recovery codes of a person who has an authenticator app; return the new codes. Raises Conflict
    without an app.
    """
    registry.fill_entry(act, object=person)
    if store.people.totp(act.tx, person) is None:
        raise Conflict("recovery codes need an authenticator app", hint="set up an authenticator app first")
    codes = [b32encode(act.tx.random(8)).decode()[:RECOVERY_CHARS].lower() for _ in range(RECOVERY_CODES)]
    store.people.set_recovery_codes(act.tx, person, [_digest(act.tx.keys, code) for code in codes])
    return [f"{code[:4]}-{code[4:8]}-{code[8:]}" for code in codes]


def _digest(keys: Keyring, code: str) -> bytes:
    normal = "".join(char for char in code.lower() if char.isalnum())
    return hmac.digest(keys.derive("recovery code"), normal.encode("utf-8", "surrogatepass"), "sha256")


def _seal(act: Act, person: str, secret: bytes) -> bytes:
    return act.tx.keys.value_key(_PURPOSE).seal(secret, context=_context(person), random=act.tx.random)


def _open(keys: Keyring, person: str, sealed: bytes) -> bytes:
    return keys.value_key(_PURPOSE).open(sealed, context=_context(person))


def _context(person: str) -> bytes:
    return f"totp secret|{person}".encode()
