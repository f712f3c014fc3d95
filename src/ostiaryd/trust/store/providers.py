"""Stored identity providers, and the accounts at them that are linked to persons."""

from __future__ import annotations

import msgspec

from ostiary.protocol.decoding import json_decoder
from ostiaryd.ground.database import Reader, Row, Tx, sql
from ostiaryd.ground.http.pages import Page
from ostiaryd.trust.model.providers import GroupRule, OidcSettings, Provider, SamlSettings

_SELECT = "select provider_id, name, issuer, settings, sealed, created_at from login_provider "
_BY_NAME = sql(_SELECT + "where name = :named or provider_id = :named", steady=True)
_BY_ISSUER = sql(_SELECT + "where issuer = :issuer")
_ALL = sql(_SELECT + "order by name")
_INSERT = sql(
    """insert into login_provider (provider_id, name, issuer, settings, sealed, created_at)
       values (:id, :name, :issuer, :settings, :sealed, :created_at)"""
)
_UPDATE = sql("update login_provider set settings = :settings, sealed = :sealed where provider_id = :id")
_DELETE = sql("delete from login_provider where provider_id = :id")
_LINKED = sql("select person from login_identity where issuer = :issuer and sub = :sub")
_LINK = sql("insert into login_identity (issuer, sub, person, linked_at) values (:issuer, :sub, :person, :now)")
_UNLINK = sql("delete from login_identity where issuer = :issuer and sub = :sub")
_LINKS = sql("select sub, person from login_identity where issuer = :issuer and sub > :after order by sub limit :limit")


class _Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The content of the column `settings` of a provider."""

    label: str
    preset: str
    settings: OidcSettings | SamlSettings
    accounts: str
    group_claim: str
    rules: tuple[GroupRule, ...]
    mfa: tuple[str, ...]
    phishing_resistant: tuple[str, ...]


_decode = json_decoder(_Settings)
_encode = msgspec.json.Encoder().encode


def find(reader: Reader, name_or_id: str) -> Provider | None:
    """Return a provider by name or id; None if there is none."""
    row = reader.one(_BY_NAME, named=name_or_id)
    return None if row is None else _provider(row)


def by_issuer(reader: Reader, issuer: str) -> Provider | None:
    """Return the login provider with this OpenID issuer or SAML entity id; None if there is none."""
    row = reader.one(_BY_ISSUER, issuer=issuer)
    return None if row is None else _provider(row)


def providers(reader: Reader) -> list[Provider]:
    """Return all providers by name."""
    return [_provider(row) for row in reader.all(_ALL)]


def insert(tx: Tx, provider: Provider) -> None:
    """Store a new provider."""
    tx.touch("login_provider", provider.provider_id)
    tx.send(
        _INSERT,
        id=provider.provider_id,
        name=provider.name,
        issuer=provider.issuer,
        settings=_render(provider),
        sealed=provider.sealed,
        created_at=provider.created_at,
    )


def update(tx: Tx, provider: Provider) -> None:
    """Replace the settings of a provider; its name and issuer do not change."""
    tx.touch("login_provider", provider.provider_id)
    tx.send(_UPDATE, id=provider.provider_id, settings=_render(provider), sealed=provider.sealed)


def delete(tx: Tx, provider_id: str) -> None:
    """Delete a provider. The account links of its issuer are kept."""
    tx.touch("login_provider", provider_id)
    tx.send(_DELETE, id=provider_id)


def linked(reader: Reader, issuer: str, sub: str) -> str | None:
    """Return the id of the person to whom an account (issuer and subject) is linked; None if there is none."""
    row = reader.one(_LINKED, issuer=issuer, sub=sub)
    return None if row is None else str(row[0])


def link(tx: Tx, issuer: str, sub: str, person: str) -> None:
    """Link an account at a provider to a person; an earlier link of the account is replaced."""
    tx.touch("login_identity", f"{issuer} {sub}")
    tx.send(_UNLINK, issuer=issuer, sub=sub)
    tx.send(_LINK, issuer=issuer, sub=sub, person=person, now=tx.now)


def unlink(tx: Tx, issuer: str, sub: str) -> int:
    """Delete the link of an account; return the number of deleted links, 0 or 1."""
    tx.touch("login_identity", f"{issuer} {sub}")
    return tx.run(_UNLINK, issuer=issuer, sub=sub)


def links(reader: Reader, issuer: str, page: Page) -> list[tuple[str, str]]:
    """Return a page of the linked accounts of an issuer, as (subject, person id)."""
    return [(sub, person) for sub, person in reader.all(_LINKS, issuer=issuer, after=page.after, limit=page.limit)]


def _render(provider: Provider) -> str:
    kept = _Settings(**{name: getattr(provider, name) for name in _Settings.__struct_fields__})
    return _encode(kept).decode()


def _provider(row: Row) -> Provider:
    provider_id, name, issuer, settings, sealed, created_at = row
    kept = _decode(settings)
    return Provider(
        provider_id=provider_id,
        name=name,
        issuer=issuer,
        sealed=None if sealed is None else bytes(sealed),
        created_at=created_at,
        **{field: getattr(kept, field) for field in _Settings.__struct_fields__},
    )
