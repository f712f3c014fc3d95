"""`ostiary person`: persons with keys. With such a key a person answers what agents ask, and does nothing else."""

from __future__ import annotations

from pathlib import Path

from cyclopts import App

from ostiary.cli.files import key_of
from ostiary.cli.paper import facts, table
from ostiary.cli.session import Here, Word

person = App(name="person", help="Persons with keys, who answer what agents ask.")


@person.command(name="create")
def create(
    name: str,
    /,
    *,
    generate_key: Path | None = None,
    jwk: Path | None = None,
    email: str | None = None,
    deputy: str | None = None,
    session: Here,
) -> None:
    """Register a person with a key.

    Args:
        name: Lower-case letters, digits, `.`, `_` and `-`; never given to another.
        generate_key: Make the key and write the private one here (0600).
        jwk: Register the public key in this JWK file instead.
        email: Where the person is reached.
        deputy: Name of the person who takes over the agents when this one leaves.
    """
    made = key_of(generate=generate_key, jwk=jwk)
    body = {"name": name, "email": email, "deputy": deputy, "jwk": made.public}
    added = session.api("POST", "/persons", body)
    made.save(added["person_id"], issuer=session.agent.issuer)
    session.show(added, facts)


@person.command(name="keys")
def list_keys(name: str, /, *, session: Here) -> None:
    """List the keys of a person, the revoked ones too.

    Args:
        name: Name or id.
    """
    columns = {"kid": "KID", "alg": "ALG", "added_at": "ADDED", "revoked_at": "REVOKED"}
    found = session.pages(f"/persons/{name}/keys", "keys")
    session.show(found, lambda rows: table(rows, columns, empty=f"no key: ostiary person add-key {name} --help"))


@person.command(name="add-key")
def add_key(name: str, /, *, generate_key: Path | None = None, jwk: Path | None = None, session: Here) -> None:
    """Register one more key of a person, or the first.

    Args:
        name: Name or id.
        generate_key: Make the key and write the private one here (0600).
        jwk: Register the public key in this JWK file instead.
    """
    made = key_of(generate=generate_key, jwk=jwk)
    added = session.api("POST", f"/persons/{name}/keys", {"jwk": made.public})
    made.save(added["person_id"], issuer=session.agent.issuer)
    session.show(added, lambda value: facts({**value, "jwk": None}))


@person.command(name="revoke-key")
def revoke_key(name: str, kid: Word, /, *, session: Here) -> None:
    """End a key of a person, and every token that the person has.

    Args:
        name: Name or id.
        kid: The key's RFC 7638 thumbprint.
    """
    session.show(session.api("DELETE", f"/persons/{name}/keys/{kid}"), facts)
