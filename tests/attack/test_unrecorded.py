"""A hijacked agent that would like its calls to leave no trace, or to keep everybody's from the ledger."""

from __future__ import annotations

import contextlib
import json
import math
from pathlib import Path
from typing import Any

import msgspec
import pytest

from harness.clock import Clock, SeededRandom
from harness.feeder import ISSUER, PERMIT_ALL, RESOURCE_ID, URI, Feeder
from ostiary.authorization.catalogue import Catalogue
from ostiary.authorization.cedar import ir
from ostiary.decision import access
from ostiary.decision.access import Facts, Policies, Principal, Protected
from ostiary.decision.feed import PolicyFact, ResourceFact
from ostiary.decision.report import Report
from ostiary.guard import Denied, Guard
from ostiary.keys import Credential
from ostiary.protocol import canonical
from tests.support.guard_fixtures import authenticate_at, records

STEP = {
    "type": "object",
    "properties": {"amount": {"type": "number", "multipleOf": 0.25}, "count": {"type": "integer", "multipleOf": 0.5}},
}
HUGE = 10**400


def catalogue(**arguments: Any) -> str:
    return json.dumps({"resource": "files", "tools": [{"name": "pay", "effect": "read", "arguments": arguments}]})


def read(guard: Guard) -> Report:
    """The guard's report, as the server reads it."""
    body = msgspec.json.encode({"spool": "0" * 32, "first": 1, "records": records(guard)})
    return msgspec.convert(canonical.parse(body), Report)


@pytest.mark.parametrize(
    "value",
    [HUGE, -HUGE, float("inf"), float("nan"), 1e308, 2**64],
    ids=lambda v: f"{v:.0e}" if abs(v) < HUGE else "huge",
)
@pytest.mark.parametrize("name", ["amount", "count"])
def test_a_call_with_any_number_gets_a_decision(name: str, value: Any, feeder: Feeder) -> None:
    protected = Protected(name="files", uri=URI, segment="default", catalogue=Catalogue.parse(catalogue(**STEP)))
    read = ir.Binary("eq", ir.Get(ir.Get(ir.Var("context"), "arguments"), name), ir.Lit(1))
    reading = ir.PolicySetIR((ir.PolicyIR("reading", "permit", conditions=(read,)),))
    is_json = isinstance(value, int) or math.isfinite(value)
    for policies, due in ((PERMIT_ALL, ""), (reading, "policy_error")):
        facts = Facts(protected, Policies("hash", policies))
        decision = access.decide(
            access.resolve(Principal(feeder.claims()), "pay", {name: value}, facts, feeder.clock())
        )
        assert [reason.code for reason in decision.reasons] == ([due] if due else []) if is_json else ["bad_arguments"]
        assert decision.allowed is (is_json and not due)


@pytest.mark.parametrize(("amount", "outcome"), [(HUGE, "allow"), (10**4300, "deny")], ids=["huge", "endless"])
def test_a_call_with_an_extreme_number_is_recorded(guard: Guard, feeder: Feeder, amount: Any, outcome: str) -> None:
    feeder.say(
        ResourceFact(
            resource_id=RESOURCE_ID,
            name="files",
            uri=URI,
            mode="enforce",
            segment="default",
            catalogue=catalogue(**STEP),
        )
    )
    with contextlib.suppress(Denied):
        guard.decide(authenticate_at(guard, feeder), "pay", {"amount": amount})
    assert [record["outcome"] for record in records(guard)] == [outcome]


@pytest.mark.parametrize("count", [64, 65, 300])
@pytest.mark.parametrize("effect", ["permit", "forbid"])
def test_a_report_of_a_call_that_many_policies_decided_is_readable(
    guard: Guard, feeder: Feeder, effect: Any, count: int
) -> None:
    policies = ir.PolicySetIR(tuple(ir.PolicyIR(id=f"p{n}" + "x" * 190, effect=effect) for n in range(count)))
    feeder.say(PolicyFact("hash", ir.render(policies).decode()))
    guard.decide(authenticate_at(guard, feeder), "read_file", {"path": "/a"})
    assert len(read(guard).records) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        {f"{n:064}": "\x01" * 100 for n in range(64)},
        {f"{n:064}": "\U0001f600" * 100 for n in range(64)},
        {f"{n:064}": 10**4000 for n in range(64)},
        {"deep": [[[[{}]]]]},
    ],
)
def test_a_denial_is_recorded_with_any_arguments(
    tmp_path: Path, clock: Clock, dice: SeededRandom, arguments: dict[str, Any]
) -> None:
    credential = Credential(Feeder.agent_key, RESOURCE_ID, ISSUER)
    guard = Guard(credential, spool_dir=tmp_path, now=clock, tick=clock, random=dice, record_arguments=True)
    feeder = Feeder(clock, feed=guard.feed)
    feeder.snapshot()
    assert not guard.decide(authenticate_at(guard, feeder), "write_file", arguments).decision.allowed
    assert len(read(guard).records) == 1
    guard._spool.close()
