"""Stored agents. A row is never deleted, so that a name is never used again."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from ostiaryd.ground.database import Read, Reader, Row, Sql, Tx, sql
from ostiaryd.ground.http.pages import Page
from ostiaryd.ledger.model import USES
from ostiaryd.registry.model import Agent, AgentId, AgentState, Kind, OwnerId, PersonId, RiskTier

_COLUMNS = """agent_id, name, owner, deputy, purpose, kind, provider, model, risk_tier, segment, scopes, state, epoch,
    created_at, expires_at, max_depth, speaks, held_until, keyless"""
_SELECT = f"select {_COLUMNS} from agent "
_BY_ID = sql(_SELECT + "where agent_id = :key", steady=True)
_OF_MODEL = sql(_SELECT + "where model = :model and model <> '' order by agent_id limit :limit")
_BY_NAME = sql(_SELECT + "where name = :key", steady=True)
_USED_SINCE = (
    f"exists (select 1 from entry where entry.agent = agent_id and entry.idx >= :used_from and action in {USES})"
)
"""SQL condition: the agent itself has acted in an entry with the index `used_from` or a higher one."""
_EXACT = ("owner", "state", "kind", "risk_tier", "segment")
"""Members of `AgentFilter` that select agents by the value of the column of that name."""
FILTERS = {
    **{name: f"{name} = :{name}" for name in _EXACT},
    "text": "(lower(name) like lower(:text) escape '!' or lower(purpose) like lower(:text) escape '!')",
    "used_from": f"state <> 'decommissioned' and created_at < :created_before and not {_USED_SINCE}",
}
"""The condition of each filter of a list of agents."""
_OWNED_ALIVE = sql(
    _SELECT
    + """where owner = :owner and state <> 'decommissioned' and agent_id > :after order by agent_id limit :limit"""
)
_COUNT_ACTIVE = sql("select count(*) from agent where owner = :owner and state = 'active'")
_INSERT = sql(
    """insert into agent (agent_id, name, owner, deputy, purpose, kind, provider, model, risk_tier, segment, scopes,
           state, epoch, changed_at, created_at, expires_at, max_depth, keyless)
       values (:id, :name, :owner, :deputy, :purpose, :kind, :provider, :model, :risk_tier, :segment, :scopes,
           :state, :epoch, :created_at, :created_at, :expires_at, :max_depth, :keyless)"""
)
_SET_STATE = sql("update agent set state = :state, epoch = :epoch, changed_at = :now where agent_id = :id")
_RAISE_EPOCHS = sql("update agent set epoch = epoch + :step returning agent_id")
_ACTIVE = sql("select agent_id, name from agent where state = 'active' order by name")
_SET_OWNER = sql("update agent set owner = :owner, deputy = :deputy where agent_id = :id")
_SET_SCOPES = sql("update agent set scopes = :scopes where agent_id = :id")
_SET_DEPTH = sql("update agent set max_depth = :max_depth where agent_id = :id")
_SET_SPEAKS = sql("update agent set speaks = :speaks where agent_id = :id")
_SPEAKERS = sql("select name from agent where speaks = 1 and state <> 'decommissioned' order by name")
_SET_SEGMENT = sql("update agent set segment = :segment where agent_id = :id")
_SET_KEYLESS = sql("update agent set keyless = :keyless where agent_id = :id")
_SET_END = sql("update agent set expires_at = :expires_at where agent_id = :id")
_DUE = sql(
    """select agent_id from agent where expires_at <= :now and state in ('pending', 'active')
       order by expires_at limit :limit"""
)
_EXCEPTIONS = sql(
    """select agent_id, state, epoch from agent where epoch > 0 and changed_at > :since
       order by changed_at, agent_id"""
)


def insert(tx: Tx, agent: Agent) -> None:
    """Insert a row for a new agent."""
    tx.touch("agent", agent.agent_id)
    tx.send(
        _INSERT,
        id=agent.agent_id,
        name=agent.name,
        owner=agent.owner,
        deputy=agent.deputy,
        purpose=agent.purpose,
        kind=agent.kind.value,
        provider=agent.provider,
        model=agent.model,
        risk_tier=agent.risk_tier.value,
        segment=agent.segment,
        scopes=_join(agent.scopes),
        state=agent.state.value,
        epoch=agent.epoch,
        created_at=agent.created_at,
        expires_at=agent.expires_at,
        max_depth=agent.max_depth,
        keyless=int(agent.is_keyless),
    )


def read_of(id_or_name: str) -> Read:
    """Return the read that `get_agent` makes."""
    return Read(_BY_ID if id_or_name.startswith("ag_") else _BY_NAME, {"key": id_or_name}, _agent)


def get_agent(reader: Reader, id_or_name: str) -> Agent | None:
    """Return an agent by id or name, in any state; None if there is none."""
    return reader.one_as(_BY_ID if id_or_name.startswith("ag_") else _BY_NAME, _agent, key=id_or_name)


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentFilter:
    """Filter of a list of agents. A member that is None, or an empty `text`, does not filter."""

    owner: str | None = None
    state: AgentState | None = None
    kind: Kind | None = None
    risk_tier: RiskTier | None = None
    segment: str | None = None
    text: str = ""
    """Text that the name or the purpose must contain; ASCII letters are compared without case."""
    created_before: int | None = None
    """Time before which the agent was registered, in microseconds; only together with `used_from`."""
    used_from: int | None = None
    """Index of an entry: selects agents that have not acted since that entry and are not decommissioned."""

    def parameters(self) -> dict[str, str | int]:
        """Return the parameters of the conditions that apply, by name."""
        chosen: dict[str, str | int] = {
            name: str(value) for name in _EXACT if (value := getattr(self, name)) is not None
        }
        if self.text:
            escaped = re.sub(r"([!%_])", r"!\1", self.text)
            chosen["text"] = f"%{escaped}%"
        if self.used_from is not None and self.created_before is not None:
            chosen |= {"used_from": self.used_from, "created_before": self.created_before}
        return chosen


def list_agents(reader: Reader, page: Page, chosen: AgentFilter = AgentFilter()) -> list[Agent]:
    """Return a page of agents, in the order of their ids."""
    parameters = chosen.parameters()
    statement = _list_statement(tuple(sorted(parameters)))
    return [_agent(row) for row in reader.all(statement, after=page.after, limit=page.limit, **parameters)]


def count(reader: Reader, chosen: AgentFilter) -> int:
    """Return the number of agents that a filter selects. The query reads all of them."""
    parameters = chosen.parameters()
    row = reader.one(_count_statement(tuple(sorted(parameters))), **parameters)
    assert row is not None
    return int(row[0])


def count_active_agents(reader: Reader, owner: OwnerId) -> int:
    """Return the number of active agents of an owner."""
    row = reader.one(_COUNT_ACTIVE, owner=owner)
    assert row is not None
    return int(row[0])


@lru_cache(maxsize=1 << len(FILTERS))
def _list_statement(names: tuple[str, ...]) -> Sql:
    return sql(f"{_SELECT} where agent_id > :after and {_conditions(names)} order by agent_id limit :limit")


@lru_cache(maxsize=1 << len(FILTERS))
def _count_statement(names: tuple[str, ...]) -> Sql:
    return sql(f"select count(*) from agent where {_conditions(names)}")


def _conditions(names: tuple[str, ...]) -> str:
    return " and ".join(FILTERS[name] for name in names if name in FILTERS) or "1 = 1"


def list_agents_of_owner(reader: Reader, owner: OwnerId, *, after: str = "", limit: int = 1 << 62) -> list[Agent]:
    """Return at most `limit` agents of an owner that are not decommissioned and whose ids are above `after`, the oldest
    first.
    """
    return [_agent(row) for row in reader.all(_OWNED_ALIVE, owner=owner, after=after, limit=limit)]


def list_agents_of_model(reader: Reader, model: str, *, limit: int) -> list[Agent]:
    """Return at most `limit` agents whose registered model is `model`."""
    return [_agent(row) for row in reader.all(_OF_MODEL, model=model, limit=limit)] if model else []


def set_state(tx: Tx, id: AgentId, state: AgentState, *, epoch: int) -> None:
    """Set the state and the epoch of an agent."""
    tx.touch("agent", id)
    tx.send(_SET_STATE, id=id, state=state.value, epoch=epoch, now=tx.now)


def raise_epochs(tx: Tx, *, step: int) -> None:
    """Raise the epoch of every agent by `step`. Guards are not notified of each agent."""
    for (id,) in tx.all(_RAISE_EPOCHS, step=step):
        tx.touch("agent", id)


def list_active_agents(reader: Reader) -> list[tuple[AgentId, str]]:
    """Return the id and the name of every agent in the state active, by name."""
    return [(id, name) for id, name in reader.all(_ACTIVE)]


def set_owner(tx: Tx, id: AgentId, owner: OwnerId, deputy: PersonId | None) -> None:
    """Set the owner and the deputy of an agent."""
    tx.touch("agent", id)
    tx.send(_SET_OWNER, id=id, owner=owner, deputy=deputy)


def set_scopes(tx: Tx, id: AgentId, scopes: frozenset[str]) -> None:
    """Set the scopes of an agent."""
    tx.touch("agent", id)
    tx.send(_SET_SCOPES, id=id, scopes=_join(scopes))


def set_depth(tx: Tx, id: AgentId, max_depth: int) -> None:
    """Set how many agents may follow an agent in a delegation chain."""
    tx.touch("agent", id)
    tx.send(_SET_DEPTH, id=id, max_depth=max_depth)


def set_speaks(tx: Tx, id: AgentId, speaks: bool) -> None:
    """Set whether an agent may state the words of its person."""
    tx.touch("agent", id)
    tx.send(_SET_SPEAKS, id=id, speaks=int(speaks))


def list_speakers(reader: Reader) -> list[str]:
    """Return the names of the agents that may state the words of their persons."""
    return [row[0] for row in reader.all(_SPEAKERS)]


def set_segment(tx: Tx, id: AgentId, segment: str) -> None:
    """Set the segment of an agent."""
    tx.touch("agent", id)
    tx.send(_SET_SEGMENT, id=id, segment=segment)


def set_keyless(tx: Tx, id: AgentId, is_keyless: bool) -> None:
    """Set whether an agent is active without a registered key."""
    tx.touch("agent", id)
    tx.send(_SET_KEYLESS, id=id, keyless=int(is_keyless))


def set_end(tx: Tx, id: AgentId, expires_at: int | None) -> None:
    """Set the end of an agent's registration in microseconds; None for no end."""
    tx.touch("agent", id)
    tx.send(_SET_END, id=id, expires_at=expires_at)


def list_due(reader: Reader, *, now: int, limit: int) -> list[AgentId]:
    """Return the ids of at most `limit` agents whose registration has ended and whose state is still active or pending,
    the agent with the earliest end first.
    """
    return [row[0] for row in reader.all(_DUE, now=now, limit=limit)]


def list_agent_exceptions(reader: Reader, *, since: int) -> list[tuple[AgentId, AgentState, int]]:
    """Return the id, the state and the epoch of each agent that `set_state` changed after `since` (microseconds) and
    whose epoch is above 0, so that earlier tokens are invalid. For a snapshot of a guard.

    If `since` is as long ago as the longest lifetime of a token, the guard needs no earlier changes: all tokens from
    before have expired, because only active agents get tokens.
    """
    return [(id, AgentState(state), epoch) for id, state, epoch in reader.all(_EXCEPTIONS, since=since)]


def _join(scopes: frozenset[str]) -> str:
    return " ".join(sorted(scopes))


@lru_cache(maxsize=4096)
def _agent(row: Row) -> Agent:
    (
        id,
        name,
        owner,
        deputy,
        purpose,
        kind,
        provider,
        model,
        risk_tier,
        segment,
        scopes,
        state,
        epoch,
        created_at,
        expires_at,
        max_depth,
        speaks,
        restricted_until,
        is_keyless,
    ) = row
    return Agent(
        agent_id=id,
        name=name,
        owner=owner,
        deputy=deputy,
        purpose=purpose,
        kind=Kind(kind),
        provider=provider,
        model=model,
        risk_tier=RiskTier(risk_tier),
        segment=segment,
        scopes=frozenset(scopes.split()),
        state=AgentState(state),
        epoch=epoch,
        created_at=created_at,
        expires_at=expires_at,
        max_depth=max_depth,
        speaks=bool(speaks),
        is_keyless=bool(is_keyless),
        restricted_until=restricted_until,
    )
