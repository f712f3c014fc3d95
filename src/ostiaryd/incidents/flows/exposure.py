"""Exposed secrets: the secrets that an agent read or holds, and their rotation in one act."""

from __future__ import annotations

from typing import Any, NamedTuple

from ostiaryd.ground.database import Reader
from ostiaryd.incidents.flows.incidents import find_incident
from ostiaryd.incidents.flows.respond import note
from ostiaryd.incidents.model.incidents import SECOND, Incident
from ostiaryd.ledger import flows as ledger
from ostiaryd.ledger.flows import Act
from ostiaryd.ledger.model import decode_entry
from ostiaryd.secrets.flows import databases, leases, operators, rotations
from ostiaryd.secrets.model.lease import Lease

STATIC_ROLES = "database/static-creds/"
"""Begins the paths of accounts whose password the server rotates."""
MAX_READS = 1000
"""Reads of the agent, the newest, in which secrets are searched."""
MAX_LEASES = 10_000


class ExposedSecret(NamedTuple):
    """A secret that the agent read. `is_renewed`: its value has changed since, and the grace of the value that was read
    is over. `can_rotate`: the server ends that value.
    """

    path: str
    read_at: int
    is_canary: bool
    is_renewed: bool
    can_rotate: bool


class Exposure(NamedTuple):
    """The secrets that an agent read, the newest read first, and the leases of the accounts that it holds."""

    secrets: list[ExposedSecret]
    leases: list[Lease]


def find_exposed(reader: Reader, agent: str) -> Exposure:
    """Return the secrets that exist and that an agent read in its last `MAX_READS` reads, and its leases."""
    reads: dict[str, int] = {}
    for _, body in ledger.search_entries(reader, {"agent": agent, "action": "vault.read"}, limit=MAX_READS):
        entry = decode_entry(body)
        path = entry.object or ""
        is_value = path.startswith(STATIC_ROLES) or "version" in (entry.detail or {})
        if entry.outcome == "ok" and is_value:
            reads.setdefault(path, entry.at)
    uses = {f"{one.mount}/{one.path}": one for one in operators.find_uses(reader, reads)}
    secrets: list[ExposedSecret] = []
    for path, at in reads.items():
        use = uses.get(path)
        is_static = path.startswith(STATIC_ROLES)
        rotated_at = databases.find_rotation(reader, path.removeprefix(STATIC_ROLES)) if is_static else None
        if use is not None:
            rotated_at = use.rotated_at
        if rotated_at is not None:
            is_newer, rotation = rotated_at > at, rotations.get_rotation(reader, path)
            in_grace = rotation is not None and rotation.retire_at is not None
            secrets.append(
                ExposedSecret(
                    path=path,
                    read_at=at,
                    is_canary=use is not None and use.is_canary,
                    is_renewed=is_newer and not in_grace,
                    can_rotate=is_static or (rotation is not None and (is_newer or not in_grace)),
                )
            )
    return Exposure(secrets, leases.list_of_agent(reader, agent, limit=MAX_LEASES))


def render(exposed: Exposure, *, limit: int) -> dict[str, Any]:
    """Return the JSON of exposed secrets, each list cut."""
    return {
        "read": [{**one._asdict(), "read_at": one.read_at // SECOND} for one in exposed.secrets[:limit]],
        "leases": [
            {"lease_id": one.lease_id, "database": one.database, "expires_at": one.expires_at // SECOND}
            for one in exposed.leases[:limit]
        ],
    }


class Rotation(NamedTuple):
    """The paths that rotate now, the number of leases that were revoked, and the paths that a person has to replace."""

    rotating: list[str]
    revoked: int
    to_replace: list[str]


def rotate_secrets(act: Act, id: str) -> Rotation:
    """Rotate every secret that the agent of an incident read, revoke its leases, and return the other paths.

    A grace in which the value that the agent read still works ends now. A canary stays: its value opens nothing.
    Raises NotFound.
    """
    incident: Incident = find_incident(act.tx, id)
    note(act, incident)
    exposed = find_exposed(act.tx, incident.agent)
    rotating, to_replace = [], []
    for one in exposed.secrets:
        if one.is_renewed or one.is_canary:
            continue
        if one.can_rotate and _rotate(act, one.path):
            rotating.append(one.path)
        else:
            to_replace.append(one.path)
    leases.revoke_leases(act, exposed.leases, why=f"incident {incident.incident_id}")
    revoked = len(exposed.leases)
    note(act, incident, rotating=rotating, revoked=revoked, to_replace=to_replace)
    return Rotation(rotating, revoked, to_replace)


def _rotate(act: Act, path: str) -> bool:
    if path.startswith(STATIC_ROLES):
        return databases.rotate_now(act, path.removeprefix(STATIC_ROLES))
    return rotations.hasten_call(act, path)
