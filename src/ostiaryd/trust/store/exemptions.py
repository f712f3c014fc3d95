"""Stored exemptions that allow bearer tokens, and the holdings that depend on them."""

from __future__ import annotations

from ostiaryd.ground.database import Reader, Tx, sql
from ostiaryd.trust.model.clients import BearerClass

_EXEMPTION = sql("select since from bearer_exemption where agent = :agent and resource = :resource", steady=True)
_EXEMPT_AT = sql("select agent from bearer_exemption where resource = :resource order by agent")
_EXEMPTIONS_OF = sql("select resource, since from bearer_exemption where agent = :agent order by resource")
_EXEMPT_CLASSES = sql(
    "select registration from bearer_class where resource = :resource order by registration", steady=True
)
_ADD_CLASS = sql(
    """insert into bearer_class (resource, registration, since) values (:resource, :registration, :since)
       on conflict (resource, registration) do nothing"""
)
_DROP_CLASS = sql("delete from bearer_class where resource = :resource and registration = :registration")
_UNBOUND_AT = sql(
    """select id, agent from holding where audience = :uri and kind in ('token', 'vault_token', 'vault_secret_id')
        and jkt is null
        and ended_at is null"""
)
_EXEMPT = sql("select distinct agent from bearer_exemption")
_UNBOUND = sql(
    """select id, audience from holding where agent = :agent and kind in ('token', 'vault_token', 'vault_secret_id')
        and jkt is null
        and ended_at is null"""
)
_OF_SECRETS = sql(
    """select id from holding where agent = :agent and kind in ('token', 'vault_token', 'vault_secret_id')
        and (jkt is null or (kind = 'token' and client_jkt is null))
        and ended_at is null"""
)
_ADD_EXEMPTION = sql(
    """insert into bearer_exemption (agent, resource, since) values (:agent, :resource, :since)
       on conflict (agent, resource) do nothing"""
)
_DROP_EXEMPTION = sql("delete from bearer_exemption where agent = :agent and resource = :resource")


def is_exempt(reader: Reader, agent: str, resource: str) -> bool:
    """Return whether an agent (id) has a bearer exemption at a resource (id)."""
    return reader.one(_EXEMPTION, agent=agent, resource=resource) is not None


def list_exempt_agents(reader: Reader, resource: str) -> list[str]:
    """Return the ids of the agents that have a bearer exemption at a resource."""
    return [agent for (agent,) in reader.all(_EXEMPT_AT, resource=resource)]


def exemptions_of(reader: Reader, agent: str) -> list[tuple[str, int]]:
    """Return the bearer exemptions of an agent, as (id of the resource, time of the exemption in microseconds)."""
    return [(resource, since) for resource, since in reader.all(_EXEMPTIONS_OF, agent=agent)]


def list_exempt_classes(reader: Reader, resource: str) -> list[BearerClass]:
    """Return the classes of registration, `document` and `dynamic`, that have a bearer exemption at a resource."""
    return [registration for (registration,) in reader.all(_EXEMPT_CLASSES, resource=resource)]


def set_exempt_class(tx: Tx, resource: str, registration: str, allowed: bool) -> None:
    """Add (if `allowed`) or remove the bearer exemption of a class of registration at a resource."""
    tx.touch("bearer_class", f"{resource} {registration}")
    if allowed:
        tx.send(_ADD_CLASS, resource=resource, registration=registration, since=tx.now)
    else:
        tx.send(_DROP_CLASS, resource=resource, registration=registration)


def unbound_at(reader: Reader, uri: str) -> list[tuple[str, str]]:
    """Return the bearer tokens for the audience `uri` that have not ended, as (id of the token, id of the agent)."""
    return [(id, agent) for id, agent in reader.all(_UNBOUND_AT, uri=uri)]


def list_all_exempt(reader: Reader) -> list[str]:
    """Return the ids of all agents that have a bearer exemption at any resource."""
    return [agent for (agent,) in reader.all(_EXEMPT)]


def unbound(reader: Reader, agent: str, uri: str) -> list[str]:
    """Return the ids of an agent's bearer tokens that have not ended, for the audience `uri`."""
    return [id for id, audience in reader.all(_UNBOUND, agent=agent) if audience == uri]


def tokens_of_secrets(reader: Reader, agent: str) -> list[str]:
    """Return the ids of the unended tokens of an agent that a client secret can have got: its bearer tokens, among them
    tokens and secret IDs of Vault's API, and the tokens that are bound to a key but were issued without a key of the
    agent.
    """
    return [id for (id,) in reader.all(_OF_SECRETS, agent=agent)]


def set_exempt(tx: Tx, agent: str, resource: str, allowed: bool) -> None:
    """Add (if `allowed`) or remove the bearer exemption of an agent at a resource."""
    tx.touch("exemption", f"{agent} {resource}")
    if allowed:
        tx.send(_ADD_EXEMPTION, agent=agent, resource=resource, since=tx.now)
    else:
        tx.send(_DROP_EXEMPTION, agent=agent, resource=resource)
