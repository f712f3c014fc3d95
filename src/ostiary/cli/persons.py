"""`ostiary person`: persons with keys. The key of a person answers approvals and incidents, and nothing else."""

from __future__ import annotations

from pathlib import Path

from cyclopts import App

from ostiary.cli.files import key_of
from ostiary.cli.paper import facts, table
from ostiary.cli.session import Here, Word

person = App(name="person", help="Create persons with keys, who answer approvals.")


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
        name: Lower-case letters, digits, `.`, `_` and `-`; a name cannot be reused.
        generate_key: Generate the key and write the private key to this file (0600).
        jwk: Register the public key in this JWK file instead.
        email: Mail address of the person.
        deputy: Name of the person who takes over the agents when this person leaves.
    """
    made = key_of(generate=generate_key, jwk=jwk)
    body = {"name": name, "email": email, "deputy": deputy, "jwk": made.public}
    added = session.api("POST", "/persons", body)
    made.save(added["person_id"], issuer=session.agent.issuer)
    session.show(added, facts)


@person.command(name="keys")
def list_keys(name: str, /, *, session: Here) -> None:
    """List the keys of a person, revoked keys included.

    Args:
        name: Name or id.
    """
    columns = {"kid": "KID", "alg": "ALG", "added_at": "ADDED", "revoked_at": "REVOKED"}
    rows = session.pages(f"/persons/{name}/keys", "keys")
    session.show(rows, lambda rows: table(rows, columns, empty=f"no key: ostiary person add-key {name} --help"))


@person.command(name="add-key")
def add_key(name: str, /, *, generate_key: Path | None = None, jwk: Path | None = None, session: Here) -> None:
    """Add a key of a person.

    Args:
        name: Name or id.
        generate_key: Generate the key and write the private key to this file (0600).
        jwk: Register the public key in this JWK file instead.
    """
    made = key_of(generate=generate_key, jwk=jwk)
    added = session.api("POST", f"/persons/{name}/keys", {"jwk": made.public})
    made.save(added["person_id"], issuer=session.agent.issuer)
    session.show(added, lambda value: facts({**value, "jwk": None}))


@person.command(name="revoke-key")
def revoke_key(name: str, kid: Word, /, *, session: Here) -> None:
    """Revoke a key of a person, and every token of the person.

    Args:
        name: Name or id.
        kid: Thumbprint of the key (RFC 7638), from `ostiary person keys`.
    """
    session.show(session.api("DELETE", f"/persons/{name}/keys/{kid}"), facts)
