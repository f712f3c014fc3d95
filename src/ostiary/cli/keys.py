"""`ostiary key`, the keys of agents, and `ostiary keys`, the signing keys of the server."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import httpx2
from cyclopts import App

from ostiary.cli.files import NewKey, PublicKey, key_of
from ostiary.cli.output import facts, table
from ostiary.cli.session import Here, Session, Word, decoded

key = App(name="key", help="List, add, rotate and revoke the keys of an agent.")
keys = App(name="keys", help="List and rotate the signing keys of the server.")


@key.command(name="list")
def list_keys(agent: str, /, *, session: Here) -> None:
    """List the keys of an agent, revoked keys included.

    Args:
        agent: Name or id.
    """
    columns = {"kid": "KID", "alg": "ALG", "added_at": "ADDED", "not_after": "UNTIL", "revoked_at": "REVOKED"}
    rows = session.pages(f"/agents/{agent}/keys", "keys")
    session.show(rows, lambda rows: table(rows, columns, empty=f"no key: ostiary key add {agent} --help"))


@key.command(name="add")
def add(
    agent: str,
    /,
    *,
    generate_key: Path | None = None,
    jwk: Path | None = None,
    expires_in: int | None = None,
    session: Here,
) -> None:
    """Add a key; the other keys stay valid. A pending agent becomes active. Give one of --generate-key and --jwk.

    Args:
        agent: Name or id.
        generate_key: Generate the key and write the private key to this file (0600).
        jwk: Register the public key in this JWK file instead.
        expires_in: Seconds until the key expires; without it, the key does not expire.
    """
    made = key_of(generate=generate_key, jwk=jwk)
    _register(session, f"/agents/{agent}/keys", made, {"expires_in": expires_in})


@key.command(name="rotate")
def rotate(
    agent: str,
    /,
    *,
    generate_key: Path | None = None,
    jwk: Path | None = None,
    overlap: int = 3600,
    session: Here,
) -> None:
    """Rotate the key of an agent: add a new key; its other keys end after the overlap, or earlier if they expire.

    Give one of --generate-key and --jwk.

    Args:
        agent: Name or id.
        generate_key: Generate the key and write the private key to this file (0600).
        jwk: Register the public key in this JWK file instead.
        overlap: Seconds for which the old keys stay valid, at most 30 days; 0 revokes them now.
    """
    made = key_of(generate=generate_key, jwk=jwk)
    _register(session, f"/agents/{agent}/keys/rotate", made, {"overlap_s": overlap})


@key.command(name="revoke")
def revoke(agent: str, kid: Word, /, *, session: Here) -> None:
    """Revoke a key, and everything that was obtained with it.

    `ostiary revoke key KID` does the same, and also prints when each guard denied the key.

    Args:
        agent: Name or id.
        kid: Thumbprint of the key, from `ostiary key list`.
    """
    session.show(session.api("DELETE", f"/agents/{agent}/keys/{kid}"), facts)


@keys.command(name="list")
def list_server_keys(*, session: Here) -> None:
    """List the public keys that verify tokens, the feed and the ledger."""
    with httpx2.Client(base_url=session.url) as http:
        rows = [
            {"use": use, "alg": jwk["alg"], "kid": jwk["kid"]}
            for use, path in (("token", "/jwks"), ("feed", "/feed/v1/jwks"))
            for jwk in decoded(http.get(path))["keys"]
        ]
        rows.append({"use": "ledger", "alg": "EdDSA", "kid": http.get("/ledger/v1/key").text.strip()})
    session.show(rows, lambda rows: table(rows, {"use": "USE", "alg": "ALG", "kid": "KID"}, empty="no key"))


@keys.command(name="rotate")
def rotate_server_key(*, use: Literal["token", "feed"] = "token", alg: str | None = None, session: Here) -> None:
    """Replace one signing key of the server. The server has a key for each use and algorithm; the other keys stay. The
    old key stays published until everything that it signed has expired.

    Args:
        use: Use of the key.
        alg: Algorithm of the key to replace: ES256 (the default), RS256 or EdDSA for tokens, EdDSA for the feed.
    """
    body = {"use": use, "alg": alg or {"token": "ES256", "feed": "EdDSA"}[use]}
    session.show(session.api("POST", "/keys/rotate", body), facts)


def _register(session: Session, path: str, made: NewKey | PublicKey, more: dict[str, Any]) -> None:
    added = session.api("POST", path, {"jwk": made.public, **more})
    made.save(added["agent_id"], issuer=session.agent.issuer)
    session.show(added, lambda value: facts({**value, "jwk": None}))
