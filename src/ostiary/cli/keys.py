"""`ostiary key`, an agent's keys, and `ostiary keys`, those with which the server signs."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import httpx2
from cyclopts import App

from ostiary.cli.files import NewKey, PublicKey, key_of
from ostiary.cli.paper import facts, table
from ostiary.cli.session import Here, Session, Word, decoded

key = App(name="key", help="Keys of an agent: add, rotate, revoke.")
keys = App(name="keys", help="Keys with which the server signs: list, rotate.")


@key.command(name="list")
def list_keys(agent: str, /, *, session: Here) -> None:
    """List the keys of an agent, the revoked ones too.

    Args:
        agent: Name or id.
    """
    columns = {"kid": "KID", "alg": "ALG", "added_at": "ADDED", "not_after": "UNTIL", "revoked_at": "REVOKED"}
    found = session.pages(f"/agents/{agent}/keys", "keys")
    session.show(found, lambda rows: table(rows, columns, empty=f"no key: ostiary key add {agent} --help"))


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
    """Register one more key; the others go on working. A pending agent becomes active.

    Args:
        agent: Name or id.
        generate_key: Make the key and write the private one here (0600).
        jwk: Register the public key in this JWK file instead.
        expires_in: Seconds after which it ends by itself.
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
    """Register a new key, after which the others end.

    Args:
        agent: Name or id.
        generate_key: Make the key and write the private one here (0600).
        jwk: Register the public key in this JWK file instead.
        overlap: Seconds for which the old keys go on working; with 0 they are revoked now.
    """
    made = key_of(generate=generate_key, jwk=jwk)
    _register(session, f"/agents/{agent}/keys/rotate", made, {"overlap_s": overlap})


@key.command(name="revoke")
def revoke(agent: str, kid: Word, /, *, session: Here) -> None:
    """End a key with everything that was obtained with it; `ostiary revoke key KID` also waits for the guards.

    Args:
        agent: Name or id.
        kid: Thumbprint of the key, as `key list` shows it.
    """
    session.show(session.api("DELETE", f"/agents/{agent}/keys/{kid}"), facts)


@keys.command(name="list")
def list_server_keys(*, session: Here) -> None:
    """List the public keys: of tokens, of the guards' feed, of the ledger."""
    with httpx2.Client(base_url=session.url) as http:
        found = [
            {"use": use, "alg": jwk["alg"], "kid": jwk["kid"]}
            for use, path in (("token", "/jwks"), ("feed", "/feed/v1/jwks"))
            for jwk in decoded(http.get(path))["keys"]
        ]
        found.append({"use": "ledger", "alg": "EdDSA", "kid": http.get("/ledger/v1/key").text.strip()})
    session.show(found, lambda rows: table(rows, {"use": "USE", "alg": "ALG", "kid": "KID"}, empty="no key"))


@keys.command(name="rotate")
def rotate_server_key(*, use: Literal["token", "feed"] = "token", alg: str | None = None, session: Here) -> None:
    """Sign with a new key from now on; the old one verifies until nothing that it signed is alive.

    Args:
        use: What the key signs.
        alg: Its algorithm: ES256, RS256 or EdDSA for tokens, EdDSA for the feed.
    """
    body = {"use": use, "alg": alg or {"token": "ES256", "feed": "EdDSA"}[use]}
    session.show(session.api("POST", "/keys/rotate", body), facts)


def _register(session: Session, path: str, made: NewKey | PublicKey, more: dict[str, Any]) -> None:
    added = session.api("POST", path, {"jwk": made.public, **more})
    made.save(added["agent_id"], issuer=session.agent.issuer)
    session.show(added, lambda value: facts({**value, "jwk": None}))
