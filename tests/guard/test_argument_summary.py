"""Recorded arguments in mode `watch`: as much as a bound needs, and no secret in a common notation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from harness.clock import Clock, SeededRandom
from harness.feeder import ISSUER, RESOURCE_ID, TOOLS, URI, Feeder
from ostiary.decision.feed import ResourceFact
from ostiary.guard import Guard, Verified
from ostiary.guard.argument_summary import MAX_ARGUMENTS, MAX_DEPTH, MAX_TEXT, summarize_arguments
from ostiary.keys import Credential
from ostiary.protocol.errors import Unavailable


def test_short_scalar_arguments_are_recorded_unchanged_under_dotted_paths() -> None:
    arguments = {"path": "/srv/a.txt", "limit": 5, "deep": True, "ratio": 0.5, "none": None, "at": {"x": {"y": "z"}}}
    assert summarize_arguments(arguments, {}) == {
        "path": "/srv/a.txt",
        "limit": 5,
        "deep": True,
        "ratio": 0.5,
        "none": None,
        "at.x.y": "z",
    }


@pytest.mark.parametrize(("length", "whole"), [(MAX_TEXT - 1, True), (MAX_TEXT, True), (MAX_TEXT + 1, False)])
def test_a_long_text_is_recorded_as_its_length(length: int, whole: bool) -> None:
    text = "é " * (length // 2) + "é" * (length % 2)
    assert summarize_arguments({"text": text}, {}) == {"text": text if whole else {"type": "string", "length": length}}


def test_arrays_empty_objects_and_inexact_numbers_are_recorded_as_type_and_length() -> None:
    arguments = {"tags": ["a", "b"], "none": {}, "far": 2**60, "huge": 1e300}
    assert summarize_arguments(arguments, {}) == {
        "tags": {"type": "array", "length": 2},
        "none": {"type": "object", "length": 0},
        "far": {"type": "number"},
        "huge": {"type": "number"},
    }


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("password", "a"),
        ("db_password", "a"),
        ("apiKey", "a"),
        ("api-key", "a"),
        ("client_secret", "a"),
        ("token", "a"),
        ("Authorization", "a"),
        ("cookie", "a"),
        ("otp", 123456),
        ("key", "a"),
        ("passphrase", "a"),
        ("text", "sk-proj-abcdefgh12345678"),
        ("text", "my ghp_abcdefgh12345678 is here"),
        ("text", "AKIAABCDEFGHIJKLMNOP"),
        ("text", "eyJhbGciOiJIUzI1NiJ9.e30.abc"),
        ("text", "-----BEGIN PRIVATE KEY-----"),
        ("text", "Bearer abcdefghijk"),
        ("url", "https://ada:hunter2@db.example/x"),
        ("url", "https://api.example/x?token=abc"),
        ("text", "q8Zr3Lm0Xv7Tn2Bk5Wd9Yc4Hs6Jf1Gp"),
    ],
)
def test_an_argument_that_looks_like_a_secret_is_not_recorded(name: str, value: Any) -> None:
    recorded = summarize_arguments({name: value}, {})[name]
    assert recorded["secret"] is True
    assert str(value) not in json.dumps(recorded)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_tokens", 100),
        ("monkey", "a"),
        ("author", "ada"),
        ("id", "3f2b8c1e-7d4a-4b6e-9f10-2a3b4c5d6e7f"),
        ("path", "/srv/reports/2026/quarterly/report-of-the-third-quarter-7.txt"),
        ("url", "https://files.example/a/b"),
        ("text", "a sentence of some length without anything that ought to be hidden 42"),
    ],
)
def test_an_identifier_is_recorded_unchanged(name: str, value: Any) -> None:
    assert summarize_arguments({name: value}, {}) == {name: value}


def test_an_argument_that_the_catalogue_marks_as_secret_is_recorded_without_its_value() -> None:
    kinds = {"note": "secret", "in": "secret", "is_pin": "secret"}
    arguments = {"pat": "a", "note": "b", "in": {"x": 1}, "is_pin": True}
    hidden = {
        "pat": {"type": "string", "length": 1, "secret": True},
        "note": {"type": "string", "length": 1, "secret": True},
        "in": {"type": "object", "length": 1, "secret": True},
        "is_pin": {"type": "boolean", "secret": True},
    }
    assert summarize_arguments(arguments, kinds) == summarize_arguments(arguments, {}, are_secret=True) == hidden


def test_the_number_depth_and_names_of_recorded_arguments_are_limited() -> None:
    assert summarize_arguments({"a.b": 1, "": 2, "x" * 257: 3, "a": {"b": 4}}, {}) == {"a.b": 4}
    assert len(summarize_arguments({str(number): number for number in range(1000)}, {})) == MAX_ARGUMENTS
    deep: Any = "end"
    for _ in range(MAX_DEPTH + 3):
        deep = {"d": deep}
    assert summarize_arguments(deep, {}) == {".".join("d" * MAX_DEPTH): {"type": "object", "length": 1}}


@pytest.fixture
def learning(tmp_path: Path, clock: Clock, dice: SeededRandom) -> Guard:
    credential = Credential(Feeder.agent_key, RESOURCE_ID, ISSUER)
    return Guard(credential, spool_dir=tmp_path / "spool", now=clock, tick=clock, random=dice, learn=True)


def records(guard: Guard) -> list[dict[str, Any]]:
    batch = guard._spool.batch(count=100, size=1 << 20)
    return [] if batch is None else batch.records


def shown(guard: Guard, feeder: Feeder) -> Verified:
    token = feeder.token()
    proof = feeder.proof(token, nonce=guard._proofs.nonce())
    return guard.verify(authorization=f"DPoP {token}", proof=proof, method="POST", uri=URI)


@pytest.mark.parametrize("mode", ["watch", "enforce"])
def test_arguments_are_recorded_only_in_watch_mode(learning: Guard, clock: Clock, mode: Any) -> None:
    feeder = Feeder(clock, feed=learning.feed)
    feeder.snapshot()
    feeder.say(
        ResourceFact(resource_id=RESOURCE_ID, name="files", uri=URI, mode=mode, segment="default", catalogue=TOOLS)
    )
    assert learning.feed.mode == mode
    learning.decide(shown(learning, feeder), "read_file", {"path": "/a"})
    [record] = records(learning)
    assert record.get("arguments") == ({"path": "/a"} if mode == "watch" else None)
    learning._spool.close()


@pytest.mark.parametrize("classes", [[], ["secret"]])
def test_the_arguments_of_a_tool_with_the_data_class_secret_are_recorded_without_their_values(
    learning: Guard, clock: Clock, classes: list[str]
) -> None:
    feeder = Feeder(clock, feed=learning.feed)
    feeder.snapshot()
    catalogue = json.loads(TOOLS)
    stated = {"data_classes": classes}
    catalogue["tools"] = [tool | stated if tool["name"] == "read_file" else tool for tool in catalogue["tools"]]
    fact = ResourceFact(resource_id=RESOURCE_ID, name="files", uri=URI, mode="watch", segment="default")
    feeder.say(msgspec.structs.replace(fact, catalogue=json.dumps(catalogue)))
    learning.decide(shown(learning, feeder), "read_file", {"path": "/a", "n": 1})
    clock.advance(60)
    learning.undecided(None, "ag_1", "read_file", {"path": "/a", "n": 1}, Unavailable("no answer"), passes=True)
    hidden = {"path": {"type": "string", "length": 2, "secret": True}, "n": {"type": "number", "secret": True}}
    recorded = [record["arguments"] for record in records(learning)]
    assert recorded == [hidden if classes else {"path": "/a", "n": 1}] * 2
    learning._spool.close()


def test_the_arguments_of_an_undecided_call_are_not_recorded_without_a_catalogue(learning: Guard) -> None:
    """The guard cannot know which of them are secrets."""
    learning.undecided(None, "ag_1", "read_file", {"path": "/a"}, Unavailable("no answer"), passes=True)
    [record] = records(learning)
    assert "arguments" not in record
    learning._spool.close()


def test_an_undecided_call_is_recorded_with_its_outcome_and_reason(learning: Guard, clock: Clock) -> None:
    feeder = Feeder(clock, feed=learning.feed)
    feeder.snapshot()
    who = shown(learning, feeder)
    why = Unavailable("nobody is there", hint="wait")
    passed = learning.undecided(None, "ag_1", "read_file", {"path": "/a"}, why, passes=True)
    denied = learning.undecided(who, "ag_1", "read_file", {"n": float("nan")}, why, passes=False)
    assert (passed.decision.allowed, passed.decision.verdict, denied.decision.allowed) == (True, False, False)
    first, second = records(learning)
    assert (first["kind"], first["outcome"], first["agent"], first.get("token")) == (
        "undecided",
        "allow",
        "ag_1",
        None,
    )
    assert first["arguments"] == {"path": "/a"}
    assert (second["outcome"], second["token"], second.get("digest"), second.get("arguments")) == (
        "deny",
        "tok_1",
        None,
        None,
    )
    assert first["reasons"] == [{"code": "unavailable", "message": "nobody is there"}]
    assert msgspec.json.encode(first)
    learning._spool.close()
