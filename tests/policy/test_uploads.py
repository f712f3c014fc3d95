"""Uploads are parsed in a confined process: a hostile upload is refused there and delays no other request."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from time import thread_time
from typing import Any

import pytest

from ostiaryd.ground.process import confined
from ostiaryd.ground.world import World
from ostiaryd.policy import store
from ostiaryd.policy.model import starter_files
from tests.support.policy_fixtures import Ask

pytestmark = pytest.mark.parametrize("database", ["sqlite"], indirect=True)  # no row depends on what is refused
GROWTH = 64 << 20
"""bytes that the server itself may take for an upload of a megabyte"""
LONGEST_TURN = 2.0
"""seconds of processor time that one turn of the event loop may take"""
PERMIT = {"a.cedar": "permit (principal, action, resource);"}
CASE = """[[case]]
name = "x"
subject = {type = "Agent", id = "a"}
action = "call"
resource = {type = "Tool", id = "f/x"}
expect = "allow"
"""
DEEP = 450_000


def peak() -> int:
    """The most memory that this process has had since `reset_peak`, in bytes."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) << 10


def reset_peak() -> int:
    Path("/proc/self/clear_refs").write_text("5")
    return peak()


@pytest.mark.parametrize(
    "files",
    [
        {"t.test.toml": ".".join(["a"] * (DEEP // 2)) + " = 1"},
        {"t.test.toml": "x = " + "[" * DEEP},
        {"t.test.toml": "".join(f"[{'a.' * 400}b{number}]\n" for number in range(1000))},
        {"t.opa.toml": "path = 1\n" + ".".join(["a"] * (DEEP // 2)) + " = 1"},
        {"e.entities.json": "[" * DEEP},
        {"a.cedar": "permit (principal, action, resource) when { " + "(" * 100_000},
        {"a.cedarschema": "type A = " + "{a: " * 100_000},
    ],
    ids=["toml keys", "toml arrays", "toml tables", "opa keys", "json arrays", "cedar", "schema"],
)
async def test_a_very_large_or_deep_upload_is_refused_while_other_requests_are_answered(
    world: World, ask: Ask, files: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(confined, "PARSE_CPU_S", 2)  # two of the bombs use as much as they may
    await ask("/api/v1/policies?dry_run=true", {"files": PERMIT})  # all modules are loaded
    before = reset_peak()
    upload = asyncio.ensure_future(ask("/api/v1/policies", {"files": PERMIT | files}))
    other, turns = asyncio.ensure_future(ask("/api/v1/policies", method="GET")), 0
    longest = 0.0
    while not upload.done():
        began = thread_time()
        await asyncio.sleep(0 if turns < 1000 else 0.001)
        longest, turns = max(longest, thread_time() - began), turns + 1
    assert longest < LONGEST_TURN, "the event loop stood still"
    assert (await other)[0] == 200
    status, refusal = await upload
    assert status in (400, 422), refusal
    assert refusal["error"] in ("malformed", "invalid", "too_costly")
    assert 0 < len(refusal["message"]) < 1000
    assert peak() - before < GROWTH
    assert store.active_hash(world.db.read()) == starter_files().hash
    status, _ = await ask("/api/v1/policies?dry_run=true", {"files": PERMIT})
    assert status == 200, "the next upload is parsed"


UNUSUAL = {
    "now = 0001-01-01T00:00:00": (422, "policy_test_failed", "test `x`: a number or a time is out of range"),
    "now = 9999-12-31T23:59:59-14:00": (200, None, ""),
    "now = 2026-02-30T00:00:00": (400, "malformed", "Invalid date or datetime"),
    "x = " + "9" * 5000: (400, "malformed", "Exceeds the limit (4300 digits)"),
    "context = {a = 0x" + "f" * 9999 + "}": (200, None, ""),
    "context = {a = 1e308}": (200, None, ""),
    "context = {a = 1e999}": (422, "policy_test_failed", "test `x`: the arguments: an argument is not a finite number"),
    "context = {a = 12:00:00}": (422, "policy_test_failed", "test `x`: the arguments: an argument is a time, which"),
}


async def test_a_value_of_a_test_file_is_accepted_or_refused_with_the_name_of_the_file(ask: Ask) -> None:
    for line in UNUSUAL:
        expected, error, words = UNUSUAL[line]
        files = PERMIT | {"t.test.toml": CASE.replace("expect", f"{line}\nexpect")}
        status, answer = await ask("/api/v1/policies?dry_run=true", {"files": files})
        assert (status, answer.get("error")) == (expected, error), line
        assert answer.get("message", "t.test.toml: ").startswith(f"t.test.toml: {words}"), line


async def test_the_test_cases_of_a_set_evaluate_its_rego_policies(ask: Ask) -> None:
    rego = """package ostiary.levels
import rego.v1
default permit := false
permit if input.subject.id == "ann"
"""
    case = CASE.replace('type = "Agent", id = "a"', 'type = "user", id = "%s"').replace(
        '{type = "Tool", id = "f/x"}', '{type = "record", id = "r"}'
    )
    schema = "entity user = {}; entity record = {}; action call2;"
    files: dict[str, Any] = {"levels.rego": rego, "a.cedarschema": schema.replace("action call2;", "")}
    for who, expect, status in (("ann", "allow", 200), ("ann", "deny", 422), ("eve", "deny", 200)):
        test = (case % who).replace('action = "call"', 'action = "see"').replace('"allow"', json.dumps(expect))
        answered, answer = await ask("/api/v1/policies?dry_run=true", {"files": files | {"t.test.toml": test}})
        assert answered == status, answer
