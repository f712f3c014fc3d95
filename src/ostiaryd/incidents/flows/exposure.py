"""Exposed secrets: the secrets that an agent read and the leases that it has, with their rotation and revocation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ostiaryd.ground.database import Reader
from ostiaryd.incidents.flows.incidents import find_incident
from ostiaryd.incidents.flows.respond import note_incident
from ostiaryd.incidents.model.incidents import SECOND, Incident
from ostiaryd.ledger import flows as ledger
from ostiaryd.ledger.flows import Act
from ostiaryd.ledger.model import decode_entry
from ostiaryd.secrets import flows as secrets
from ostiaryd.secrets.flows import databases, leases, operators
from ostiaryd.secrets.model.backend import BACKEND_MOUNT
from ostiaryd.secrets.model.lease import Lease

BACKENDS = f"{BACKEND_MOUNT}/"
"""Prefix of the paths of secrets that a back end stores."""
STATIC_ROLES = "database/static-creds/"
"""Prefix of the paths of database accounts whose password the server rotates."""
MAX_READS = 1000
"""Number of the agent's newest reads of secrets that `find_exposed` examines."""


class ExposedSecret(NamedTuple):
    """A secret that the agent read. `is_renewed`: the secret has a new value, and the value that the agent read is no
    longer valid. `can_rotate`: the server itself can invalidate the value that the agent read.
    """

    path: str
    read_at: int
    is_canary: bool
    is_renewed: bool
    can_rotate: bool


def find_exposed(reader: Reader, agent: str) -> list[ExposedSecret]:
    """Return the secrets that an agent read in its last `MAX_READS` reads, the newest read first, then the transit keys
    that the agent exported.

    A secret that the server stores is listed while it exists. A secret of a back end is always listed, because the
    ledger does not show whether the back end returned a value or has a new value. An exported key is always listed,
    because a rotation keeps the earlier versions of the key.
    """
    reads: dict[str, int] = {}
    for _, body in ledger.search_entries(reader, {"agent": agent, "action": "vault.read"}, limit=MAX_READS):
        entry = decode_entry(body)
        path = entry.object or ""
        is_value = path.startswith((STATIC_ROLES, BACKENDS)) or "version" in (entry.detail or {})
        if entry.outcome == "ok" and is_value:
            reads.setdefault(path, entry.at)
    uses = {f"{one.mount}/{one.path}": one for one in operators.find_uses(reader, reads)}
    exposed: list[ExposedSecret] = []
    for path, at in reads.items():
        use = uses.get(path)
        is_static = path.startswith(STATIC_ROLES)
        rotated_at = databases.find_rotation_time(reader, path.removeprefix(STATIC_ROLES)) if is_static else None
        if use is not None:
            rotated_at = use.rotated_at
        if rotated_at is not None or path.startswith(BACKENDS):
            is_newer, rotation = (rotated_at or 0) > at, secrets.get_rotation(reader, path)
            in_grace = rotation is not None and rotation.retire_at is not None
            exposed.append(
                ExposedSecret(
                    path=path,
                    read_at=at,
                    is_canary=use is not None and use.is_canary,
                    is_renewed=is_newer and not in_grace,
                    can_rotate=is_static or (rotation is not None and (is_newer or not in_grace)),
                )
            )
    exports: dict[str, int] = {}
    for _, body in ledger.search_entries(reader, {"agent": agent, "action": "vault.export"}, limit=MAX_READS):
        entry = decode_entry(body)
        if entry.outcome == "ok":
            exports.setdefault(entry.object or "", entry.at)
    exposed += [ExposedSecret(path, at, False, False, False) for path, at in exports.items()]
    return exposed


def render(reader: Reader, agent: str, *, limit: int) -> dict[str, Any]:
    """Return, as JSON, the secrets that an agent read and the agent's leases, at most `limit` of each."""
    return {
        "read": [{**one._asdict(), "read_at": one.read_at // SECOND} for one in find_exposed(reader, agent)[:limit]],
        "leases": [
            {"lease_id": one.lease_id, "database": one.database, "expires_at": one.expires_at // SECOND}
            for one in secrets.list_leases_of_agent(reader, agent, limit=limit)
        ],
    }


class Rotation(NamedTuple):
    """The secrets of an incident that must get a new value. `rotating`: paths of secrets that the server rotates now.
    `to_replace`: paths of secrets that a person must replace.
    """

    rotating: list[str]
    to_replace: list[str]


def rotate_secrets(act: Act, id: str) -> Rotation:
    """Start the rotation of every secret that the agent of an incident read and that the server can rotate. Return the
    paths of these secrets, and the paths of secrets that a person must replace.

    If an earlier value that the agent read is still accepted (in its grace period), that period ends now. A canary
    secret is not rotated, since its value gives no access. Raises NotFound for an unknown incident.
    """
    incident: Incident = find_incident(act.tx, id)
    note_incident(act, incident)
    rotating, to_replace = [], []
    for one in find_exposed(act.tx, incident.agent):
        if one.is_renewed or one.is_canary:
            continue
        if one.can_rotate and _rotate(act, one.path):
            rotating.append(one.path)
        else:
            to_replace.append(one.path)
    note_incident(act, incident, rotating=rotating, to_replace=to_replace)
    return Rotation(rotating, to_replace)


def find_leases(reader: Reader, id: str, *, after: str) -> list[Lease]:
    """Return the leases of the agent of an incident with an id after `after`, at most as many as one act revokes.
    Raises NotFound for an unknown incident.
    """
    agent = find_incident(reader, id).agent
    return secrets.list_leases_of_agent(reader, agent, after=after, limit=leases.REVOKED_AT_ONCE)


def revoke_leases(act: Act, id: str, next_leases: Sequence[Lease]) -> None:
    """Revoke these leases of the agent of an incident. Raises NotFound for an unknown incident."""
    incident = find_incident(act.tx, id)
    leases.revoke_leases(act, next_leases, why=f"incident {incident.incident_id}")
    note_incident(act, incident, revoked=len(next_leases))


def _rotate(act: Act, path: str) -> bool:
    if path.startswith(STATIC_ROLES):
        return databases.rotate_now(act, path.removeprefix(STATIC_ROLES))
    return secrets.hasten_call(act.tx, path)
