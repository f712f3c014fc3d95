"""`ostiary secret`: the stored values that agents use, and the seal around them."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cyclopts import App

from ostiary import ambient
from ostiary.agent import ServerRefused
from ostiary.cli.files import read_json, read_text
from ostiary.cli.output import facts, moment, out, table
from ostiary.cli.session import PAGE, Here, Source, Word
from ostiary.cli.usage import Usage
from ostiary.protocol.errors import Malformed
from ostiary.protocol.jose import b64u, unb64u

KEY_BYTES = 32
USES = {
    "path": "PATH",
    "version": "VERSION",
    "rotated_at": "ROTATED",
    "read_at": "READ",
    "read_by": "BY",
    "is_canary": "CANARY",
}

secret = App(name="secret", help="Store, read, copy, rotate and delete secrets; seal and unseal them.")


@secret.command(name="put")
def put(path: str, /, *members: Word, source: Source | None = None, cas: int | None = None, session: Here) -> None:
    """Store a value as a new version of a secret.

    A value is an object. NAME=VALUE sets a member, NAME=@FILE reads the member from a file, and NAME=- from standard
    input. Prefer the last two, because other users of the machine can see the words of a command.

        ostiary secret put secret/shared/shop api_key=@key.txt

    Args:
        path: Path with its mount, such as secret/app/db or kv/app/db.
        members: Members of the value, NAME=VALUE.
        source: JSON file with the whole value; - is standard input.
        cas: Number that the current version must have, otherwise nothing is stored; 0: the secret must be new.
    """
    if (source is None) == (not members):
        problem = "no value is given" if source is None else "`--source` and NAME=VALUE exclude each other"
        raise Usage(problem, hint="give NAME=VALUE .., or --source FILE")
    data = _parse_members(members) if source is None else read_json(source)
    if not isinstance(data, dict):
        raise Usage(f"{source} does not contain a JSON object", hint='write an object such as {"password": ".."}')
    session.show(session.api("POST", "/secrets/put", {"path": path, "data": data, "cas": cas}), facts)


@secret.command(name="get")
def get(path: str, /, *, version: int = 0, field: str | None = None, session: Here) -> None:
    """Print the value of a secret. The read is recorded in the ledger.

    Args:
        path: Path with its mount.
        version: Version to print; by default, the current version.
        field: Print only the value of this member, without quotes.
    """
    stored = session.api("POST", "/secrets/get", {"path": path, "version": version})
    if field is None:
        session.show(stored, lambda one: facts({**one["data"], "version": one["version"]}))
        return
    if field not in stored["data"]:
        raise Usage(
            f"the secret has no member {field!r}",
            hint=f"the secret has these members: {', '.join(sorted(stored['data']))}",
        )
    value = stored["data"][field]
    session.show(value, lambda value: print(value, file=sys.stdout, end="\n" if out.is_terminal else ""))


@secret.command(name="list")
def list_secrets(
    folder: str = "secret/",
    /,
    *,
    details: bool = False,
    never_read: bool = False,
    read_by: str | None = None,
    not_rotated_for: int | None = None,
    limit: int = PAGE,
    session: Here,
) -> None:
    """List the names in a folder; names of folders end with a slash.

    With --details or a filter, list the secrets below the folder that meet every filter, with their last reads and
    rotations.

    Args:
        folder: Folder that begins with its mount, such as secret/app/.
        details: List the secrets below the folder with their last reads and changes.
        never_read: List secrets whose value was never read.
        read_by: List secrets whose value this agent or person read last.
        not_rotated_for: List secrets whose value has not changed for at least this number of days.
        limit: Largest number of secrets with details; a list of names has no limit.
    """
    query = {"never_read": "true" if never_read else None, "read_by": read_by, "not_rotated_for": not_rotated_for}
    query = {name: value for name, value in query.items() if value is not None}
    if details or query:
        rows = session.pages("/secrets/uses", "secrets", limit=limit, query={"folder": folder, **query})
        session.show(rows, lambda rows: table(rows, USES, empty="no secret"))
        return
    try:
        names = session.api("GET", "/secrets", query={"folder": folder})["names"]
    except ServerRefused as refusal:
        if refusal.code != "nothing_stored":
            raise
        names = []
    empty = f"no secret in {folder}: ostiary secret put --help"
    session.show(names, lambda names: table([{"name": name} for name in names], {"name": "NAME"}, empty=empty))


@secret.command(name="delete")
def delete(path: str, /, *, all_versions: bool = False, session: Here) -> None:
    """Delete the current version of a secret, which can be restored; below kv/, delete the secret for good.

    Args:
        path: Path with its mount.
        all_versions: Delete the secret with all its versions, for good.
    """
    versions = "all" if all_versions else "current"
    session.api("POST", "/secrets/delete", {"path": path, "versions": versions})
    session.show({"path": path, "deleted": versions}, facts)


@secret.command(name="canary")
def canary(path: str, /, *, off: bool = False, session: Here) -> None:
    """Mark a secret that no honest agent reads: an agent that reads it is quarantined at once.

    Args:
        path: Path with its mount. The secret must not have been read.
        off: Make the secret an ordinary secret again.
    """
    session.api("POST", "/secrets/canary", {"path": path, "is_canary": not off})
    session.show({"path": path, "canary": not off}, facts)


@secret.command(name="status")
def status(*, session: Here) -> None:
    """Show whether the secrets are sealed, and their wrapping keys."""
    session.show(session.api("GET", "/secrets/seal"), facts)


@secret.command(name="seal")
def seal(*, key_file: Path | None = None, session: Here) -> None:
    """Seal the secrets: no value can be read or written until the unseal key is given.

    The server then has no key that opens a secret. Stopping, decisions and the ledger go on. If the unseal key is lost,
    the secrets are lost: keep its file in a safe place, away from the server.

    Args:
        key_file: File of the unseal key; if the file does not exist, a new key is written to it. By default, the
            secrets are sealed for the unseal key of the last seal.
    """
    public = None if key_file is None else b64u(_unseal_key(key_file).public_key().public_bytes_raw())
    session.show(session.api("POST", "/secrets/seal", {"unseal_public_key": public}), facts)


@secret.command(name="unseal")
def unseal(*, key_file: Path, session: Here) -> None:
    """Open the sealed secrets with the unseal key: values can be read and written again.

    Args:
        key_file: File of the unseal key.
    """
    key = _read_key(key_file)
    session.show(session.api("POST", "/secrets/unseal", {"unseal_key": b64u(key.private_bytes_raw())}), facts)


@secret.command(name="rotate-keys")
def rotate_keys(*, session: Here) -> None:
    """Create a new wrapping key. Each value is then encrypted again with a new data key, while requests run."""
    session.show(session.api("POST", "/secrets/rotate-keys"), facts)


@secret.command(name="sync")
def sync(source: str, target: str, /, *, dry_run: bool = False, session: Here) -> None:
    """Copy secrets from a back end to the server, or from the server to a back end.

    A path that ends with a slash names a folder, and stands for everything below. Nothing is deleted at the target.

        ostiary secret sync backend/legacy/app/ secret/app/ --dry-run

    Args:
        source: Path or folder to read.
        target: Path or folder to write.
        dry_run: Print what would change, and change nothing.
    """
    body = {"source": source, "target": target, "dry_run": dry_run}
    columns = {"path": "PATH", "change": "CHANGE", "error": "ERROR"}
    changes = session.api("POST", "/secrets/sync", body)["changes"]
    session.show(changes, lambda rows: table(rows, columns, empty="no secret"))


@secret.command(name="rotate")
def rotate(path: str, /, *, session: Here) -> None:
    """Rotate a secret now. If the service that uses the secret does not accept the new value, the old value stays.

    Args:
        path: Path of a secret with a rotation, such as secret/app/db.
    """
    session.show(session.api("POST", "/secrets/rotate", {"path": path}), lambda row: facts(_rotation_row(row)))


rotation = App(name="rotation", help="Set, list and remove the rotation of secrets.")
secret.command(rotation)


@rotation.command(name="put")
def put_rotation(
    path: str,
    /,
    *,
    member: str,
    url: str = "",
    command: str = "",
    registration: str = "",
    period: int,
    grace: int = 0,
    session: Here,
) -> None:
    """Set the rotation of a member of a secret; the key that signs the calls to the service is shown once.

    The server calls the service to set the new value (secret.rotate), and after the grace period to end the old value
    (secret.retire). Give one of --url, --command and --registration.

    Args:
        path: Path of the secret, such as secret/app/db.
        member: Member that gets new values.
        url: URL of the service that accepts new values.
        command: Command in the server's setting `rotation_commands` that sets new values at the service.
        registration: URL of the registration of an OAuth client; the provider there creates the new client secret
            (RFC 7592).
        period: Seconds between rotations, at least 60.
        grace: Seconds for which the old value stays valid beside the new value, less than the period.
    """
    service = {"url": url, "command": command, "registration": registration}
    body = {"path": path, "member": member, "period": period, "grace": grace, **service}
    session.show(session.api("POST", "/secrets/rotations", body), lambda row: facts(_rotation_row(row)))


@rotation.command(name="list")
def list_rotations(*, limit: int = PAGE, session: Here) -> None:
    """List the rotations of secrets with the last and the next time, and the last error.

    Args:
        limit: Largest number of rows.
    """
    columns = {"path": "PATH", "member": "MEMBER", "last_at": "LAST", "next_at": "NEXT", "error": "ERROR"}
    rows = session.pages("/secrets/rotations", "rotations", limit=limit)
    empty = "no rotations: ostiary secret rotation put --help"
    session.show(rows, lambda rows: table([_rotation_row(row) for row in rows], columns, empty=empty))


@rotation.command(name="remove")
def remove_rotation(path: str, /, *, session: Here) -> None:
    """Remove the rotation of a secret; the secret stays.

    Args:
        path: Path of the secret.
    """
    session.api("POST", "/secrets/rotations/delete", {"path": path})
    session.show({"rotation": path, "state": "removed"}, facts)


def _rotation_row(row: dict[str, Any]) -> dict[str, Any]:
    times = {name: f"{moment(row[name])}Z" if row[name] else "" for name in ("last_at", "next_at", "retire_at")}
    return row | times | ({} if row["next_at"] else {"next_at": "cancelled"})


backend = App(name="backend", help="Configure, list and remove back ends: existing stores of secrets.")
secret.command(backend)


@backend.command(name="put")
def put_backend(
    name: str,
    /,
    *,
    kind: str,
    address: str,
    mount: str = "",
    region: str = "",
    cache: int = 30,
    credentials: Source | None = None,
    session: Here,
) -> None:
    """Configure an existing store as a back end; agents read its secrets at backend/NAME/PATH.

        ostiary secret backend put legacy --kind vault-kv2 --address https://vault.example.com:8200 --mount secret \\
            --credentials vault.json

    Args:
        name: Name of the back end.
        kind: Kind: vault-kv2, vault-kv1, aws, kubernetes, files or environment.
        address: URL, absolute folder or env:PREFIX_; the server's setting `secret_backends` must allow it.
        mount: Mount at the Vault, such as secret.
        region: Region of AWS.
        cache: Seconds for which a value is kept in memory, 0 to 300.
        credentials: JSON file with token, or with access_key_id and secret_access_key; - is standard input.
    """
    body = {"name": name, "kind": kind, "address": address, "mount": mount, "region": region, "cache_s": cache}
    body["credentials"] = {} if credentials is None else read_json(credentials)
    session.show(session.api("POST", "/secrets/backends", body), facts)


@backend.command(name="list")
def list_backends(*, session: Here) -> None:
    """List the back ends."""
    columns = {"name": "NAME", "kind": "KIND", "address": "ADDRESS", "mount": "MOUNT", "cache_s": "CACHE S"}
    rows = session.api("GET", "/secrets/backends")["backends"]
    session.show(rows, lambda rows: table(rows, columns, empty="no back ends: ostiary secret backend put --help"))


@backend.command(name="remove")
def remove_backend(name: str, /, *, session: Here) -> None:
    """Remove a back end; the secrets in it stay unchanged.

    Args:
        name: Name of the back end.
    """
    session.api("DELETE", f"/secrets/backends/{name}")
    session.show({"backend": name, "state": "removed"}, facts)


def _parse_members(members: Sequence[str]) -> dict[str, Any]:
    """Return the object that the `NAME=VALUE` words describe. Raises Usage for a word of another form and for a
    repeated name; no message contains a value.
    """
    data: dict[str, Any] = {}
    for word in members:
        name, sign, value = word.partition("=")
        if not (name and sign):
            raise Usage("a member is not of the form NAME=VALUE", hint="write a member such as password=@FILE")
        if name in data:
            raise Usage(f"the member `{name[:64]}` is given twice", hint="give each member one value")
        is_file = value == "-" or value.startswith("@")
        data[name] = read_text(Path(value.removeprefix("@"))).rstrip("\n") if is_file else value
    return data


def _unseal_key(path: Path) -> X25519PrivateKey:
    """Return the unseal key in a file. If the file does not exist, create a key and write it durably to the file.
    Raises Usage if the file cannot be written or has no unseal key.
    """
    if path.exists():
        return _read_key(path)
    key = X25519PrivateKey.from_private_bytes(ambient.random(KEY_BYTES))
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(b64u(key.private_bytes_raw()).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise Usage(f"cannot write {path}: {error.strerror}", hint="name another file") from None
    return key


def _read_key(path: Path) -> X25519PrivateKey:
    """Return the unseal key in an existing file. Raises Usage for a file without an unseal key."""
    try:
        raw = unb64u(read_text(path).strip())
    except Malformed:
        raw = b""
    if len(raw) != KEY_BYTES:
        raise Usage(
            f"{path} does not contain an unseal key", hint="create an unseal key: ostiary secret seal --key-file FILE"
        )
    return X25519PrivateKey.from_private_bytes(raw)
