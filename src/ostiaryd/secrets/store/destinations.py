"""The table of destinations, each with the path and the member of its secret. A destination for access tokens of a
connected account has scopes in place of a member.
"""

from __future__ import annotations

from typing import NamedTuple

from ostiary.protocol.destination import Destination, Place
from ostiaryd.ground.database import Reader, Row, Tx, sql
from ostiaryd.ground.http.pages import Page
from ostiaryd.secrets.model.connected_account import OAUTH_MOUNT

_COLUMNS = "name, origin, secret, member, place, field, template, is_private, created_at"
_GET = sql(f"select {_COLUMNS} from egress_destination where name = :name", steady=True)
_LIST = sql(f"select {_COLUMNS} from egress_destination where name > :after order by name limit :limit")
_COUNT = sql("select count(*) from egress_destination")
_SAME_FIELD = sql(
    """select name from egress_destination where origin = :origin and place = :place and lower(field) = :field
        and place <> 'placeholder' limit 1"""
)
_INSERT = sql(
    f"""insert into egress_destination ({_COLUMNS})
        values (:name, :origin, :secret, :member, :place, :field, :template, :is_private, :created_at)"""
)
_DELETE = sql("delete from egress_destination where name = :name")


class StoredDestination(NamedTuple):
    """A destination with its secret: the path with the mount, the member (empty: the only member), the scopes of an
    access token (none: all scopes), and the time of its creation in microseconds.
    """

    destination: Destination
    secret: str
    member: str
    scopes: frozenset[str]
    created_at: int


def get(reader: Reader, name: str) -> StoredDestination | None:
    """Return the destination `name`; None if there is none."""
    return reader.one_as(_GET, _stored, name=name)


def list_destinations(reader: Reader, page: Page) -> list[StoredDestination]:
    """Return a page of destinations, sorted by name."""
    return [_stored(row) for row in reader.all(_LIST, after=page.after, limit=page.limit)]


def count(reader: Reader) -> int:
    """Return the number of destinations."""
    row = reader.one(_COUNT)
    assert row is not None
    return int(row[0])


def find_same_field(reader: Reader, destination: Destination) -> str | None:
    """Return the name of a destination that sets the same field in requests to the same origin; None if there is none.
    Destinations with the place `placeholder` do not count, because each has a placeholder of its own.
    """
    row = reader.one(
        _SAME_FIELD, origin=destination.origin, place=destination.place.value, field=destination.field.lower()
    )
    return None if row is None else str(row[0])


def insert(tx: Tx, stored: StoredDestination) -> None:
    """Insert a destination with a new name."""
    one = stored.destination
    tx.run(
        _INSERT,
        name=one.name,
        origin=one.origin,
        secret=stored.secret,
        member=stored.member or " ".join(sorted(stored.scopes)),
        place=one.place.value,
        field=one.field,
        template=one.template,
        is_private=int(one.private),
        created_at=stored.created_at,
    )


def delete(tx: Tx, name: str) -> None:
    """Delete a destination."""
    tx.run(_DELETE, name=name)


def _stored(row: Row) -> StoredDestination:
    name, origin, secret, member, place, field, template, is_private, created_at = row
    destination = Destination(
        name=name, origin=origin, place=Place(place), field=field, template=template, private=bool(is_private)
    )
    is_account = secret.startswith(f"{OAUTH_MOUNT}/")
    scopes = frozenset(member.split() if is_account else ())
    return StoredDestination(destination, secret, "" if is_account else member, scopes, created_at)
