"""The budget for refusals: unauthenticated clients add a limited number of small entries, and all are counted."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.clock import Clock
from ostiary.protocol.errors import Refused, Unauthenticated
from ostiaryd.ground.world import World
from ostiaryd.ledger import store
from ostiaryd.ledger.flows import Act, Refusals, act, summarise_refusals
from ostiaryd.ledger.model import Entry, decode_entry, encode_entry, reason
from ostiaryd.ledger.model.entry import CLAIMED
from ostiaryd.ledger.model.sampling import (
    FULL_OF_CALLER,
    FULL_OF_NETWORK,
    FULL_OF_STRANGERS,
    KINDS,
    MAX_ENTRIES_A_DAY,
    MAX_TEXT,
    MINUTE,
    NETWORKS,
    OTHERS,
    SUMMARY,
    RefusalSampler,
)
from ostiaryd.secrets.model.token import TOKEN_PREFIX as VAULT_TOKEN
from ostiaryd.trust.model import PEP_KEY_PREFIX
from ostiaryd.trust.model import SECRET_PREFIX as CLIENT_SECRET


async def refuse(world: World, *, network: str = "203.0.113.0/24", agent: str | None = None, code: str = "no") -> None:
    def flow(act: Act) -> None:
        act.entry.agent = agent
        raise Unauthenticated("no", code=code)

    with pytest.raises(Refused):
        await act(world, "api.call", flow, request="rq_1", network=network)


def entries(world: World) -> list[Entry]:
    size = store.get_head(world.db.read())[0].size
    return [decode_entry(body) for body in store.list_entry_bodies(world.db.read(), 0, size)]


async def test_the_first_refusals_of_a_network_in_a_minute_are_recorded_and_the_rest_are_summarized(
    world: World, clock: Clock
) -> None:
    before = len(entries(world))
    for _ in range(FULL_OF_NETWORK + 3):
        await refuse(world)
    await refuse(world, code="other")
    kept = entries(world)[before:]
    assert [entry.action for entry in kept] == ["api.call"] * FULL_OF_NETWORK
    await summarise_refusals(world)
    assert len(entries(world)) == before + FULL_OF_NETWORK, "the minute goes on"
    clock.advance(60)
    await summarise_refusals(world)
    last = entries(world)[-1]
    assert (last.action, last.outcome, last.network) == (SUMMARY, "refused", "203.0.113.0/24")
    assert last.detail is not None
    assert last.detail["refused"] == 4
    assert last.detail["kinds"] == {"api.call no": 3, "api.call other": 1}
    assert last.detail["since"] % MINUTE == 0
    await summarise_refusals(world)
    assert len(entries(world)) == before + FULL_OF_NETWORK + 1, "a summary is written once"
    await refuse(world)
    assert entries(world)[-1].action == "api.call", "a new minute has a new budget"


async def test_a_flood_from_one_network_leaves_room_for_refusals_of_another_network(world: World) -> None:
    for _ in range(FULL_OF_NETWORK + 5):
        await refuse(world)
    await refuse(world, network="198.51.100.0/24")
    assert entries(world)[-1].network == "198.51.100.0/24"


async def test_all_networks_together_have_a_budget_of_recorded_refusals(world: World, clock: Clock) -> None:
    before = len(entries(world))
    for number in range(FULL_OF_STRANGERS + 7):
        await refuse(world, network=f"10.0.{number}.0/24")
    assert len(entries(world)) == before + FULL_OF_NETWORK + NETWORKS, "those after the first share one budget"
    clock.advance(60)
    await summarise_refusals(world)
    (others,) = [entry for entry in entries(world) if entry.action == SUMMARY]
    assert (others.network, others.detail and others.detail["refused"]) == (
        OTHERS,
        FULL_OF_STRANGERS + 7 - NETWORKS - FULL_OF_NETWORK,
    )


async def test_an_authenticated_agent_has_its_own_budget_of_recorded_refusals(world: World, clock: Clock) -> None:
    before = len(entries(world))
    for _ in range(FULL_OF_NETWORK + 1):
        await refuse(world, agent="ag_1")
    assert len(entries(world)) == before + FULL_OF_NETWORK + 1
    sampler = world.get_singleton(Refusals).sampler
    sampler._callers["ag_1"].full = FULL_OF_CALLER - 1
    await refuse(world, agent="ag_1")
    await refuse(world, agent="ag_1")
    assert len(entries(world)) == before + FULL_OF_NETWORK + 2
    await refuse(world, agent="ag_2")
    assert entries(world)[-1].agent == "ag_2"
    clock.advance(60)
    await refuse(world, agent="ag_1")
    summary, own = entries(world)[-2:]
    assert (summary.action, summary.object, summary.detail and summary.detail["refused"]) == (SUMMARY, "ag_1", 1)
    assert own.agent == "ag_1"


async def test_a_refusal_of_an_act_of_the_server_itself_is_always_recorded(world: World) -> None:
    def flow(act: Act) -> None:
        raise Refused("no")

    before = len(entries(world))
    for _ in range(FULL_OF_NETWORK + 2):
        with pytest.raises(Refused):
            await act(world, "task.expire", flow)
    assert len(entries(world)) == before + FULL_OF_NETWORK + 2


async def test_a_server_writes_its_summary_of_refusals_when_it_stops(world: World) -> None:
    for _ in range(FULL_OF_NETWORK + 2):
        await refuse(world)
    await world.close_singletons()
    last = entries(world)[-1]
    assert (last.action, last.detail and last.detail["refused"]) == (SUMMARY, 2)


def refusal(network: str, *, code: str = "no", text: str = "x") -> Entry:
    return Entry(
        at=0,
        action="token.issue",
        outcome="refused",
        network=network,
        object=text,
        request=text[:128],
        reasons=[reason(code, text)],
        detail={"task": text[:64]},
    )


REFUSALS = st.lists(st.tuples(st.integers(0, 3 * MINUTE), st.integers(0, 400), st.integers(0, 40)), max_size=400)


@given(REFUSALS)
def test_entries_of_unauthenticated_clients_are_limited_and_all_their_refusals_are_counted(
    sent: list[tuple[int, int, int]],
) -> None:
    sampler, now, kept = RefusalSampler(), 0, 0
    minutes, summaries = set[int](), list[Entry]()
    for step, network, code in sent:
        now += step // 50
        minutes.add(now // MINUTE)
        made = sampler.take_summaries(now)
        assert len(made) <= NETWORKS + 1
        summaries += made
        kept += sampler.is_kept(refusal(f"10.{network}.0.0/24", code=str(code)))
    summaries += sampler.take_summaries(now, at_end=True)
    details = [entry.detail for entry in summaries if entry.detail is not None]
    assert kept + sum(detail["refused"] for detail in details) == len(sent)
    assert kept <= FULL_OF_STRANGERS * len(minutes)
    assert all(len(detail["kinds"]) <= KINDS + 1 for detail in details)


def test_many_networks_share_the_limited_entries_and_summaries_of_a_minute() -> None:
    sampler = RefusalSampler()
    sampler.take_summaries(MINUTE)
    kept = [sampler.is_kept(refusal(f"10.0.{number % 100}.0/24")) for number in range(100 * FULL_OF_NETWORK)]
    assert sum(kept) == FULL_OF_STRANGERS
    summaries = sampler.take_summaries(2 * MINUTE)
    assert len(summaries) == NETWORKS + 1
    assert sum(entry.detail["refused"] for entry in summaries if entry.detail) == len(kept) - FULL_OF_STRANGERS


def test_a_clock_that_goes_back_does_not_renew_the_budget_of_a_network() -> None:
    sampler = RefusalSampler()
    sampler.take_summaries(10 * MINUTE)
    kept = [sampler.is_kept(refusal("a")) for _ in range(FULL_OF_NETWORK + 1)]
    assert kept == [True] * FULL_OF_NETWORK + [False]
    assert sampler.take_summaries(3 * MINUTE) == []
    assert not sampler.is_kept(refusal("a"))
    assert len(sampler.take_summaries(11 * MINUTE)) == 1


@pytest.mark.parametrize("text", ["x", "\x00", "\u2028", "\ud7ff", "\U0001f600", '"', "\x7f"])
def test_an_entry_of_an_unauthenticated_client_has_a_maximum_size(text: str) -> None:
    entry = refusal("2001:db8:1::/48", text=text * 65_000)
    assert RefusalSampler().is_kept(entry)
    assert len(entry.object or "") == MAX_TEXT
    assert len(encode_entry(entry)) <= 6 * 1024


def test_the_maximum_number_of_entries_a_day_is_the_documented_one() -> None:
    assert MAX_ENTRIES_A_DAY == 82_080


@pytest.mark.parametrize("prefix", [VAULT_TOKEN, CLIENT_SECRET, PEP_KEY_PREFIX, "eyJ"])
def test_a_credential_of_this_server_is_redacted_in_a_refused_entry(prefix: str) -> None:
    credential = prefix + "abcDEF012_-." * 4
    detail = {"path": credential, "count": 1, "names": ["x", {credential: f"of {credential}"}]}
    entry = Entry(
        at=1, action="test", object=f"auth/{credential}/x", agent=credential, request=credential, detail=detail
    )
    entry.redact_credentials()
    cut = f"{prefix}..."
    assert (entry.object, entry.agent, entry.request) == (f"auth/{cut}/x", cut, cut)
    assert entry.detail == {"path": cut, "count": 1, "names": ["x", {cut: f"of {cut}"}]}


BY_SERVER = {"action", "outcome", "owner", "person", "key", "network", "policy", "reporter", "facts", "evidence"}
"""Texts of an entry that the server fills from verified facts; `digest` is cut with the arguments."""


def test_each_text_of_an_entry_that_a_client_can_choose_is_cut_to_the_maximum_length() -> None:
    """A new text member of an entry must be added to one of the two lists."""
    texts = {name for name in Entry.__struct_fields__ if Entry.__annotations__[name] in ("str", "str | None")}
    assert texts == BY_SERVER | {"digest", *CLAIMED}
    long = Entry(at=1, action="api.call", outcome="refused", **dict.fromkeys(CLAIMED, "x" * (MAX_TEXT + 1)))  # type: ignore[arg-type]
    long.agent = None  # an entry with an agent is that of an authenticated caller
    assert RefusalSampler().is_kept(long)
    assert {len(getattr(long, name)) for name in CLAIMED if name != "agent"} == {MAX_TEXT}
