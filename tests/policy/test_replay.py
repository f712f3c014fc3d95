"""Replay: the policy set that made a decision gives the same decision again for the stored facts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from harness.clock import Clock, SeededRandom
from ostiaryd.ground.config import Config
from ostiaryd.ground.world import open_world
from ostiaryd.policy.model import EvaluationRequest, Thing, Verb
from tests.policy.replay_fixtures import NAMES, ReplayFixture
from tests.support.world import Kind, Template

# --- traffic --------------------------------------------------------------------------------------------------------

WORDS = st.sampled_from(["/srv/a", "/etc/b", "a", "b", "x" * 1024, "x" * 1025, "nul\0", "é", ""])
NO_TEXT = st.just("\ud800")
"""which no JSON text can hold, so that it comes to guards alone"""
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.sampled_from([0.5, 99.5, 100.25, 1e-9]) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["deep", "__entity", "n"]), inner),
    max_leaves=4,
)
ARGUMENTS = st.fixed_dictionaries(
    {},
    optional={
        "path": WORDS,
        "amount": st.sampled_from([1, 99.5, 99.5001, 250, "no number"]),
        "limit": st.sampled_from([0, 1, 7, 2**62]),
        "tags": st.lists(WORDS, max_size=3),
        "options": st.fixed_dictionaries({}, optional={"deep": st.booleans(), "other": ANYTHING}),
        "pin": WORDS,
        "other": ANYTHING,
    },
)
CALLS = st.tuples(st.sampled_from(NAMES), st.sampled_from(["read", "pay", "vault", "gone"]), ARGUMENTS)
PROPERTIES = st.fixed_dictionaries(
    {}, optional={"role": st.sampled_from(["editor", "x"]), "level": st.sampled_from([0, 2, "high"])}
)
USERS = st.builds(Thing, st.just("user"), st.sampled_from(["alice", "é"]), PROPERTIES)
RECORDS = st.builds(Thing, st.just("record"), WORDS, PROPERTIES)
REGISTERED = st.sampled_from([Thing("tool", "files/read"), Thing("Resource", "files"), Thing("tool", "files/gone")])
VERBS = st.builds(Verb, st.sampled_from(["edit", "look", "call"]), PROPERTIES | st.none())
CONTEXTS = st.none() | st.fixed_dictionaries({}, optional={"why": WORDS, "now": st.just("never")})
QUESTIONS = st.builds(
    EvaluationRequest,
    USERS | st.sampled_from([Thing("agent", "ann"), Thing("nothing::", "x")]),
    VERBS,
    RECORDS | REGISTERED,
    CONTEXTS,
)
CALL_QUESTIONS = st.builds(
    lambda call, standing: EvaluationRequest(
        Thing("agent", call[0]),
        Verb("call"),
        Thing("tool", f"files/{call[1]}"),
        {"arguments": call[2]} | ({} if standing else {"task": "the task"}),
    ),
    CALLS,
    st.booleans(),
)
EVENTS = st.one_of(
    st.tuples(
        st.just("guard"), CALLS | st.tuples(st.just("ann"), st.just("pay"), st.fixed_dictionaries({"path": NO_TEXT}))
    ),
    st.tuples(st.just("ask"), QUESTIONS | CALL_QUESTIONS),
    st.tuples(st.just("batch"), st.lists(st.none() | QUESTIONS | CALL_QUESTIONS, min_size=1, max_size=6)),
    st.tuples(st.just("issue"), st.tuples(st.sampled_from(NAMES), st.booleans(), st.booleans())),
    st.tuples(
        st.just("change"),
        st.sampled_from(["owner", "stop", "task", "mode", "set 0", "set 1", "tools 0", "tools 1", "tools 2"]),
    ),
)


@settings(max_examples=25, phases=[Phase.generate], suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(events=st.lists(EVENTS, min_size=10, max_size=60))
def test_a_replay_under_the_set_that_decided_gives_the_recorded_decision(
    database: Kind, template: Callable[[Kind], Template], tmp_path_factory: pytest.TempPathFactory, events: list[Any]
) -> None:
    async def run(config: Config) -> list[bool]:
        clock = Clock()
        async with open_world(config, now=clock, random=SeededRandom("replay")) as world:
            town = ReplayFixture(world, clock)
            await town.settle()
            for kind, what in events:
                await town.happen(kind, what)
            for change in ("owner", "stop", "task", "mode", "tools 2", "set 1"):
                await town.change(change)
            return list(town.replayed())

    with template(database).copy(tmp_path_factory.mktemp("replay") / "data") as config:
        assert all(asyncio.run(run(config)))
