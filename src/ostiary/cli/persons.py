"""`ostiary person`: people, who own agents and answer approvals; their deputies, keys, logins and sessions."""

from __future__ import annotations

from pathlib import Path

from cyclopts import App

from ostiary.agent import ServerRefused
from ostiary.cli.files import key_of
from ostiary.cli.output import facts, table
from ostiary.cli.session import PAGE, Here, Word

person = App(
    name="person",
    help="Register and list people, who own agents and answer approvals; manage their logins, keys and sessions.",
)


@person.command(name="create")
def create(
    name: str,
    /,
    *,
    email: str | None = None,
    deputy: str | None = None,
    generate_key: Path | None = None,
    jwk: Path | None = None,
    session: Here,
) -> None:
    """Register a person, who can then own agents.

    With a key, the person also answers approvals and incidents on the command line. `ostiary person invite` lets the
    person sign in to the web console.

    Args:
        name: Lower-case letters, digits, `.`, `_` and `-`; a name cannot be reused.
        email: Mail address of the person.
        deputy: Name of the person who becomes the owner of the agents when this person leaves.
        generate_key: Generate a key and write the private key to this file (0600).
        jwk: Register the public key in this JWK file instead.
    """
    made = None if generate_key is jwk is None else key_of(generate=generate_key, jwk=jwk)
    body = {"name": name, "email": email, "deputy": deputy, "jwk": made and made.public}
    try:
        added = session.api("POST", "/persons", body)
    except ServerRefused as refusal:
        if refusal.code == "name_taken" and made is not None:
            refusal.hint = (
                f"choose another name; if {name} is the person: ostiary person add-key {name} --generate-key FILE"
            )
        raise
    if made is not None:
        made.save(added["person_id"], issuer=session.agent.issuer)
    session.show(added, facts)


@person.command(name="list")
def list_persons(*, limit: int = PAGE, session: Here) -> None:
    """List people.

    Args:
        limit: Largest number of rows.
    """
    columns = {"name": "NAME", "email": "EMAIL", "state": "STATE", "deputy": "DEPUTY", "person_id": "ID"}
    rows = session.pages("/persons", "persons", limit=limit)
    session.show(rows, lambda rows: table(rows, columns, empty="no people: ostiary person create NAME --email E"))


@person.command(name="show")
def show(name: str, /, *, session: Here) -> None:
    """Show a person.

    Args:
        name: Name or id.
    """
    session.show(session.api("GET", f"/persons/{name}"), facts)


@person.command(name="deputy")
def set_deputy(name: str, deputy: str | None = None, /, *, session: Here) -> None:
    """Set the deputy, who becomes the owner of a person's agents when the person leaves.

    Args:
        name: Name or id of the person.
        deputy: Name of the deputy; without it, the deputy is removed.
    """
    session.show(session.api("PUT", f"/persons/{name}/deputy", {"deputy": deputy}), facts)


@person.command(name="return")
def return_person(name: str, /, *, session: Here) -> None:
    """Return a person who left (`ostiary revoke owner NAME`): the person can be accountable for agents again.

    Args:
        name: Name or id.
    """
    session.show(session.api("POST", f"/persons/{name}/return", {}), facts)


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
    """Revoke a key of a person, every token of the person, and every unused approval that was signed with the key.

    Args:
        name: Name or id.
        kid: Thumbprint of the key (RFC 7638), from `ostiary person keys`.
    """
    session.show(session.api("DELETE", f"/persons/{name}/keys/{kid}"), facts)


@person.command(name="invite")
def invite(name: str, /, *, hours: int = 24, session: Here) -> None:
    """Print a link with which a person sets up a passkey or a password.

    The link works once. Every earlier link of the person becomes invalid.

    Args:
        name: Name or id.
        hours: Hours for which the link can be used, 1 to 168.
    """
    made = session.api("POST", f"/persons/{name}/invite", {"hours": hours})
    session.show(made, lambda made: facts({"url": made["url"], "expires_at": made["expires_at"]}))


@person.command(name="suspend")
def suspend(name: str, /, *, reason: str = "", session: Here) -> None:
    """Suspend a person: sessions end, and consents with their tasks and tokens. Undo: `ostiary person resume`.

    The person keeps agents, teams, roles, keys and login, and cannot use them until `ostiary person resume`.

    Args:
        name: Name or id.
        reason: Reason; it is recorded in the ledger.
    """
    session.show(session.api("POST", f"/persons/{name}/suspend", {"why": reason}), facts)


@person.command(name="resume")
def resume(name: str, /, *, reason: str = "", session: Here) -> None:
    """Resume a suspended person. The person must sign in and consent again.

    Args:
        name: Name or id.
        reason: Reason; it is recorded in the ledger.
    """
    session.show(session.api("POST", f"/persons/{name}/resume", {"why": reason}), facts)


@person.command(name="sessions")
def list_sessions(name: str, /, *, session: Here) -> None:
    """List the sessions of a person: the browsers in which the person is signed in.

    Args:
        name: Name or id.
    """
    columns = {
        "session_id": "ID",
        "browser": "BROWSER",
        "network": "NETWORK",
        "acr": "ASSURANCE",
        "created_at": "SIGNED IN",
        "used_at": "USED",
        "expires_at": "EXPIRES",
    }
    rows = session.api("GET", f"/persons/{name}/sessions")["sessions"]
    session.show(rows, lambda rows: table(rows, columns, empty=f"`{name}` is not signed in anywhere"))


@person.command(name="end-sessions")
def end_sessions(name: str, id: str | None = None, /, *, session: Here) -> None:
    """End the sessions of a person: the person must sign in again.

    Args:
        name: Name or id.
        id: Id of one session, from `ostiary person sessions`; without it, all sessions end.
    """
    path = f"/persons/{name}/sessions" + ("" if id is None else f"/{id}")
    session.show(session.api("DELETE", path), facts)


@person.command(name="login")
def show_login(name: str, /, *, session: Here) -> None:
    """Show how a person signs in: password, authenticator app, passkeys.

    Args:
        name: Name or id.
    """
    session.show(session.api("GET", f"/persons/{name}/login"), facts)


@person.command(name="reset-login")
def reset_login(name: str, /, *, session: Here) -> None:
    """Remove every passkey, password, authenticator app and setup link of a person, and end every session.

    Use this after a loss of devices; then print a new link with `ostiary person invite`.

    Args:
        name: Name or id.
    """
    session.show(session.api("DELETE", f"/persons/{name}/login"), facts)
