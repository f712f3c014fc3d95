"""Resources: protected servers, their guards' keys and catalogues."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from ostiary.protocol import canonical
from ostiaryd.ground.database import Reader, Row, Tx, sql
from ostiaryd.ground.http.pages import Page
from ostiaryd.registry.model import Mode, Resource, ResourceId

_SELECT = """select resource_id, name, uri, mode, segment, jkt, jwk, catalogue_hash, catalogue_version,
    created_at, proposed from resource """
_BY_ID = sql(_SELECT + "where resource_id = :key", steady=True)
_BY_NAME = sql(_SELECT + "where name = :key", steady=True)
_BY_URI = sql(_SELECT + "where uri = :key", steady=True)
_AT_ORIGIN = sql(_SELECT + "where uri >= :first and uri < :end order by uri limit 2")
_LIST = sql(_SELECT + "where resource_id > :after order by resource_id limit :limit")
_INSERT = sql(
    """insert into resource (resource_id, name, uri, mode, segment, jkt, jwk, catalogue_version, created_at)
       values (:id, :name, :uri, :mode, :segment, :jkt, :jwk, 0, :created_at)"""
)
_CATALOGUE = sql("select catalogue from resource where resource_id = :id")
_SET_MODE = sql("update resource set mode = :mode where resource_id = :id")
_SET_KEY = sql("update resource set jkt = :jkt, jwk = :jwk where resource_id = :id")
_SET_CATALOGUE = sql(
    """update resource set catalogue = :catalogue, catalogue_hash = :hash, catalogue_version = catalogue_version + 1
       where resource_id = :id"""
)
_SET_PROPOSED = sql("update resource set proposed = :proposed where resource_id = :id")
_KEEP_CATALOGUE = sql("insert into catalogue (hash, body) values (:hash, :catalogue) on conflict (hash) do nothing")
_KEPT_CATALOGUE = sql("select body from catalogue where hash = :hash")
_API = sql("select value from setting where name = 'public_url'")
_TRUST_DOMAIN = sql("select value from setting where name = 'trust_domain'")


def insert(tx: Tx, resource: Resource) -> None:
    """Insert a resource."""
    tx.touch("resource", resource.resource_id)
    tx.send(
        _INSERT,
        id=resource.resource_id,
        name=resource.name,
        uri=resource.uri,
        mode=resource.mode.value,
        segment=resource.segment,
        jkt=resource.jkt,
        jwk=_encode(resource.jwk),
        created_at=resource.created_at,
    )


def get_resource(reader: Reader, id_or_name: str) -> Resource | None:
    """Return a resource by id or name; None if there is none."""
    return reader.one_as(_BY_ID if id_or_name.startswith("rs_") else _BY_NAME, _resource, key=id_or_name)


def get_resource_by_uri(reader: Reader, uri: str) -> Resource | None:
    """Return the resource with this identifier (URI), compared character by character (RFC 8707, RFC 3986 6.2.1); None
    if there is none.
    """
    return reader.one_as(_BY_URI, _resource, key=uri)


def find_resource_by_origin(reader: Reader, origin: str) -> Resource | None:
    """Return the resource whose URI has this origin (scheme, host and port, without a path); None if there is none, or
    more than one.
    """
    base = origin.removesuffix("/")
    rows = reader.all(_AT_ORIGIN, first=f"{base}/", end=f"{base}0")  # `0` follows `/`
    return _resource(rows[0]) if len(rows) == 1 else None


def list_resources(reader: Reader, page: Page) -> list[Resource]:
    """Return a page of resources, in the order of their ids."""
    return [_resource(row) for row in reader.all(_LIST, after=page.after, limit=page.limit)]


def get_catalogue(reader: Reader, id: ResourceId) -> str | None:
    """Return the catalogue of a resource as canonical JSON; None if it has none."""
    row = reader.one(_CATALOGUE, id=id)
    return None if row is None else row[0]


def set_mode(tx: Tx, id: ResourceId, mode: Mode) -> None:
    """Set the mode (`watch`, `enforce`) of a resource."""
    tx.touch("resource", id)
    tx.send(_SET_MODE, id=id, mode=mode.value)


def set_key(tx: Tx, id: ResourceId, *, jkt: str, jwk: dict[str, Any]) -> None:
    """Set the key of the resource's guard."""
    tx.touch("resource", id)
    tx.send(_SET_KEY, id=id, jkt=jkt, jwk=_encode(jwk))


def set_catalogue(tx: Tx, id: ResourceId, *, catalogue: str, hash: str) -> None:
    """Set the catalogue and its hash."""
    tx.touch("resource", id)
    tx.send(_SET_CATALOGUE, id=id, catalogue=catalogue, hash=hash)
    tx.send(_KEEP_CATALOGUE, catalogue=catalogue, hash=hash)


def get_catalogue_by_hash(reader: Reader, hash: str) -> str | None:
    """Return a catalogue that any resource has or had, by its hash; None if there is none."""
    row = reader.one(_KEPT_CATALOGUE, hash=hash)
    return None if row is None else row[0]


def set_proposed(tx: Tx, id: ResourceId, *, is_proposed: bool) -> None:
    """Set whether the catalogue of a resource is a proposal that no person has confirmed."""
    tx.touch("resource", id)
    tx.send(_SET_PROPOSED, id=id, proposed=int(is_proposed))


def get_trust_domain(reader: Reader) -> str:
    """Return the name of the trust domain of this server."""
    row = reader.one(_TRUST_DOMAIN)
    assert row is not None  # set at the first start
    return str(row[0])


def get_public_url(reader: Reader) -> str:
    """Return the public URL of this server, which the first start fixed."""
    row = reader.one(_API)
    assert row is not None
    return str(row[0])


def _encode(jwk: dict[str, Any] | None) -> str | None:
    return None if jwk is None else canonical.encode(jwk).decode()


@lru_cache(maxsize=1024)
def _resource(row: Row) -> Resource:
    id, name, uri, mode, segment, jkt, jwk, catalogue_hash, catalogue_version, created_at, proposed = row
    parsed = None if jwk is None else canonical.parse(jwk)
    assert parsed is None or isinstance(parsed, dict)
    return Resource(
        resource_id=id,
        name=name,
        uri=uri,
        mode=Mode(mode),
        segment=segment,
        jkt=jkt,
        jwk=parsed,
        catalogue_hash=catalogue_hash,
        catalogue_version=catalogue_version,
        created_at=created_at,
        is_proposed=bool(proposed),
    )
