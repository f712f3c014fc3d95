"""Operations on the credentials of local accounts: password, authenticator app, passkeys, recovery codes.

The last way to sign in cannot be removed. Each change of a credential ends all other sessions of the person.
"""

from __future__ import annotations

from typing import NamedTuple

from ostiary.authorization.assurance import PERSON_MFA, meets
from ostiary.protocol.errors import Conflict, NotFound
from ostiaryd.ground.database import Reader
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows as registry
from ostiaryd.trust import store
from ostiaryd.trust.flows.sessions import end_sessions
from ostiaryd.trust.model.passkeys import MAX_PASSKEY_NAME, Passkey
from ostiaryd.trust.model.sessions import Method, Proof, assess


class LocalLogin(NamedTuple):
    """The credentials with which a person can sign in to a local account, without their secret values."""

    has_password: bool
    has_totp: bool
    passkeys: list[Passkey]
    recovery_codes: int

    @property
    def methods(self) -> frozenset[Method]:
        """Return the login methods that the person has set up. Recovery codes only replace the authenticator app."""
        is_set: dict[Method, bool] = {
            "password": self.has_password,
            "totp": self.has_totp,
            "passkey": bool(self.passkeys),
        }
        return frozenset(method for method, has_method in is_set.items() if has_method)


def describe(reader: Reader, person: str) -> LocalLogin:
    """Return the credentials (password, authenticator app, passkeys, number of unused recovery codes) with which a
    person can sign in to a local account.
    """
    return LocalLogin(
        store.people.password(reader, person) is not None,
        store.people.totp(reader, person) is not None,
        store.people.passkeys_of(reader, person),
        store.people.count_recovery_codes(reader, person),
    )


def has_two_factors(reader: Reader, person: str) -> bool:
    """Return whether the credentials of a person together reach the level of two factors, such as a passkey, or a
    password with an authenticator app.
    """
    proofs = [Proof(method=method, at=0) for method in describe(reader, person).methods]
    return bool(proofs) and meets(assess(proofs).acr, (PERSON_MFA,))


def set_password(act: Act, person: str, hash: str, *, session: str) -> None:
    """Store the hash of a new password of a person, and end all sessions of the person except the session with the id
    `session`.
    """
    registry.fill_entry(act, object=person)
    store.people.set_password(act.tx, person, hash)
    end_sessions(act, person, keep=session)


def remove_password(act: Act, person: str, *, session: str) -> None:
    """Remove the password, the authenticator app and the recovery codes of a person, and end all sessions except
    `session`. Raises Conflict if the person has no password, or has no passkey to sign in with instead.
    """
    registry.fill_entry(act, object=person)
    login = describe(act.tx, person)
    if not login.has_password:
        raise Conflict("the account has no password", hint="reload the page of your account")
    _check_not_last(bool(login.passkeys))
    store.people.drop_password(act.tx, person)
    store.people.drop_totp(act.tx, person)
    store.people.set_recovery_codes(act.tx, person, ())
    end_sessions(act, person, keep=session)


def remove_totp(act: Act, person: str, *, session: str) -> None:
    """Remove the authenticator app of a person and its recovery codes, and end all sessions except `session`. Raises
    Conflict without an authenticator app.
    """
    registry.fill_entry(act, object=person)
    if store.people.totp(act.tx, person) is None:
        raise Conflict("the account has no authenticator app", hint="reload the page of your account")
    store.people.drop_totp(act.tx, person)
    store.people.set_recovery_codes(act.tx, person, ())
    end_sessions(act, person, keep=session)


def remove_passkey(act: Act, person: str, id: str, *, session: str) -> None:
    """Remove a passkey of a person, and end all sessions except `session`. Raises NotFound for an unknown passkey,
    Conflict if the person has neither a password nor another passkey.
    """
    registry.fill_entry(act, object=person, passkey=id[:MAX_PASSKEY_NAME])
    login = describe(act.tx, person)
    if id not in {one.id for one in login.passkeys}:
        raise NotFound("passkey not found", hint="reload the page of your account")
    _check_not_last(login.has_password or len(login.passkeys) > 1)
    store.people.drop_passkey(act.tx, id, person=person)
    end_sessions(act, person, keep=session)


def reset(act: Act, id_or_name: str) -> int:
    """Remove every credential of a person (id or name) and end every session; return the number of ended sessions.
    Raises NotFound for an unknown person.
    """
    person = registry.find_person(act.tx, id_or_name).person_id
    store.people.drop_credentials(act.tx, person)
    return end_sessions(act, person)


def _check_not_last(has_other: bool) -> None:
    if not has_other:
        raise Conflict(
            "this is the only way to sign in", hint="add another way to sign in first", code="last_credential"
        )
