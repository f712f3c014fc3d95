"""Rego beside Cedar: which modules are accepted, how they decide, and that every failure denies."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from collections.abc import Iterator
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path

import msgspec
import pytest

from harness.patience import PATIENCE_S, eventually_async
from harness.registry_fixtures import newest_entry
from ostiary.guard.knowledge import Knowledge
from ostiary.protocol.errors import Invalid, Malformed, Refused
from ostiaryd.feed.flows.snapshot import policy_fact
from ostiaryd.ground.process.confined import Confined, Exceeded
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import act
from ostiaryd.policy import flows
from ostiaryd.policy.engines.rego import KEPT, REFUSED
from ostiaryd.policy.flows import external_pdp
from ostiaryd.policy.flows.external_pdp import POOL, Engines, _Rego, check_numbers
from ostiaryd.policy.flows.loading import load_set
from ostiaryd.policy.model.rego import MAX_POLICIES, read_program
from tests.support.decision_fixtures import call
from tests.support.policy_fixtures import Ask
from tests.support.rego_fixtures import CEDAR_PERMITS, EVALUATION, EVALUATIONS, FORBIDS, QUESTION, SCHEMA, decision, put
from tests.support.sources import ROOT

HEAD = "package ostiary.levels\nimport rego.v1\n"
PERMITS = HEAD + "default permit := false\npermit if input.subject.attributes.level > 1\n"


@pytest.fixture(scope="module")
def engine() -> Iterator[Confined]:
    with closing(_Rego().confined) as engine:
        yield engine


def a_set(rego: str, **files: str) -> dict[str, str]:
    named = {name.replace("__", "."): text for name, text in files.items()}
    return {"a.cedarschema": SCHEMA, "levels.rego": rego} | named


async def test_a_rego_policy_permits_and_is_named_in_the_decision(world: World, ask: Ask) -> None:
    await put(world, a_set(PERMITS))
    assert await decision(ask) == (True, "", ["levels"])
    low = QUESTION | {"subject": {"type": "user", "id": "ann", "properties": {"level": 1}}}
    assert await decision(ask, low) == (False, "no policy permits the request", [])
    assert newest_entry(world).outcome == "deny"


CEDAR_CALLS = 'permit (principal, action == Action::"call", resource);'


@pytest.mark.parametrize("database", ["sqlite"])  # the engine decides, on either database
@pytest.mark.parametrize(
    ("cedar", "rego", "allowed", "by"),
    [
        (CEDAR_PERMITS, PERMITS, True, ["a#1", "levels"]),
        (FORBIDS, PERMITS, False, ["a#1"]),
        (FORBIDS, HEAD + "permit := true\nforbid := true", False, ["a#1"]),
        (CEDAR_PERMITS, HEAD + "permit := true\nforbid := true", False, ["levels"]),
        (CEDAR_PERMITS, HEAD + 'forbid contains "never on a Sunday"', False, ["levels"]),
        (CEDAR_PERMITS, HEAD + 'forbid contains "x" if input.subject.id == "eve"', True, ["a#1"]),
        (CEDAR_PERMITS, HEAD + "permit := false", True, ["a#1"]),
        (CEDAR_PERMITS, HEAD + 'mode := "watch"\nforbid := true', True, ["a#1"]),
        (CEDAR_PERMITS, HEAD + 'mode := "watch"\nforbid := 7', True, ["a#1"]),
        (CEDAR_PERMITS, HEAD + "forbid := 7", False, ["levels"]),
        ('@mode("watch") ' + FORBIDS, PERMITS, True, ["levels"]),
    ],
)
async def test_cedar_and_rego_policies_of_a_set_combine_and_a_forbid_wins(
    world: World, ask: Ask, cedar: str, rego: str, allowed: bool, by: list[str]
) -> None:
    await put(world, a_set(rego, a__cedar=cedar))
    found, message, policies = await decision(ask)
    assert (found, policies) == (allowed, by)
    if "Sunday" in rego:
        assert message == "never on a Sunday"


async def test_a_rego_policy_in_watch_mode_is_recorded_and_does_not_deny(world: World, ask: Ask) -> None:
    await put(world, a_set(HEAD + 'mode := "watch"\nforbid := true', a__cedar=CEDAR_PERMITS))
    assert (await decision(ask))[0] is True
    assert (newest_entry(world).detail or {})["watched"] == ["levels"]


FAILS = {
    "undefined": ("permit if input.nothing", "`permit` is undefined; write `default permit := false`"),
    "undefined forbid": ("permit := true\nforbid if input.nothing", "`forbid` is undefined; write"),
    "not a boolean": ('permit := "true"', "`permit` is neither true nor false"),
    "no messages": ("forbid contains 1", "`forbid` is neither true nor false nor a set of messages"),
    "two values": (
        "permit := input.subject.id\npermit := input.resource.id",
        "evaluation fails: levels.rego:3: eval_conflict_error",
    ),
    "a built-in fails": (
        "permit if to_number(input.subject.id) == 1",
        "evaluation fails: levels.rego:3: eval_builtin_error: to_number",
    ),
    "a type is wrong": (
        "permit if strings.any_prefix_match(input.subject.attributes.level, {`a`})",
        "evaluation fails: levels.rego:3: eval_type_error: strings.any_prefix_match",
    ),
    "loops": ("permit if { some x in numbers.range(1, 5000); some y in numbers.range(1, 5000); x * y == 0 }", "longer"),
    "allocates": ("permit if count([x | some x in numbers.range(1, 900000000)]) > 0", ""),
}


@pytest.mark.parametrize("database", ["sqlite"])  # the engine decides, on either database
@pytest.mark.parametrize("case", FAILS)
async def test_a_rego_policy_that_fails_denies_with_a_reason_and_the_next_set_decides(
    world: World, ask: Ask, case: str
) -> None:
    rego, said = FAILS[case]
    await put(world, a_set(HEAD + rego, a__cedar=CEDAR_PERMITS))
    allowed, message, policies = await decision(ask)
    assert (allowed, policies) == (False, ["levels"])
    assert message.startswith("policy `levels`: ")
    assert said in message
    assert "ann" not in message
    await put(world, a_set(PERMITS))
    assert await decision(ask) == (True, "", ["levels"])


@pytest.mark.parametrize("database", ["sqlite"])  # the engine decides, on either database
@pytest.mark.parametrize("case", ["a built-in fails", "a type is wrong", "loops", "allocates"])
async def test_the_next_request_is_decided_by_the_same_set_after_a_rego_policy_failed(
    world: World, ask: Ask, case: str
) -> None:
    fails = FAILS[case][0].removeprefix("permit if ").strip("{}")
    rego = 'default permit := false\npermit if input.subject.id == "eve"\n'
    await put(world, a_set(f'{HEAD}{rego}permit if {{ input.subject.id == "ann"; {fails} }}'))
    for _ in range(2):
        allowed, message, policies = await decision(ask)
        assert (allowed, policies) == (False, ["levels"])
        assert FAILS[case][1].replace("levels.rego:3:", "levels.rego:5:") in message
        for who, permitted in (("eve", True), ("ben", False)):
            other = QUESTION | {"subject": {"type": "user", "id": who, "properties": {"level": 2}}}
            assert (await decision(ask, other))[0] is permitted


WRONG = {
    "does not parse": ({"levels.rego": HEAD + "permit if {"}, "does not compile: levels.rego:3: rego_parse_error"),
    "an unknown value": (
        {"levels.rego": HEAD + "default permit := fals"},
        "illegal default rule (value cannot contain var); default permit := fals",
    ),
    "no package": ({"levels.rego": "permit := true"}, "the module has 0 lines `package NAME`"),
    "two packages": (
        {"levels.rego": HEAD + "permit := true\npackage ostiary.b"},
        "the module has 2 lines `package NAME`",
    ),
    "no policy": (
        {"x.rego": "package lib\nf := 1", "a.cedar": CEDAR_PERMITS},
        "the Rego modules of the set contain no policy",
    ),
    "no name": ({"levels.rego": "package ostiary.Levels\npermit := true"}, "does not name a policy"),
    "the root": ({"levels.rego": "package ostiary\npermit := true"}, "does not name a policy"),
    "ours": ({"levels.rego": "package ostiary_answers\npermit := true"}, "is reserved for the server"),
    "neither rule": ({"levels.rego": HEAD + "allow := true"}, "defines neither `permit` nor `forbid`"),
    "a mode that is none": ({"levels.rego": PERMITS + 'mode := "wach"'}, "sets `mode` to neither watch nor enforce"),
    "two modes": ({"levels.rego": PERMITS + 'mode := "watch"\nmode := "watch"'}, "sets `mode` more than once"),
    "a Cedar policy of that name": (
        {"levels.rego": PERMITS, "a.cedar": '@id("levels") ' + CEDAR_PERMITS},
        "two policies have the name 'levels'",
    ),
    "deep": ({"levels.rego": HEAD + "permit := " + "[" * 200_000}, "max parsing recursion depth exceeded"),
    "deep, and Rego": (
        {"levels.rego": HEAD + "permit := " + "[" * 700 + "]" * 700},
        "the result cannot be read: the text is nested too deeply",
    ),
    "recursive": ({"levels.rego": HEAD + "f(x) := f(x - 1)\npermit if f(3)"}, "rego_recursion_error"),
    "a NUL": ({"levels.rego": PERMITS + "\0forbid := true"}, "levels.rego: the module has a NUL character"),
    "a quoted package": (
        {"levels.rego": PERMITS, "x.rego": 'package ostiary["x"]\npermit := true'},
        "OPA reads another",
    ),
    "our package, quoted": (
        {"levels.rego": PERMITS, "x.rego": 'package ostiary_answers["x"]\ny := true'},
        "OPA reads another",
    ),
    "a mode in a string": ({"levels.rego": PERMITS + 'x := `\nmode := "watch"\n`'}, "OPA reads another"),
    "data that is none": ({"levels.rego": PERMITS, "x.data.json": "["}, "x.data.json: not JSON"),
    "data without a name": ({"levels.rego": PERMITS, "X.data.json": "{}"}, "is not a lower-case word of Rego"),
    "data in our place": ({"levels.rego": PERMITS, "ostiary.data.json": "{}"}, "are reserved for the server"),
    "only on the question and the data": (
        {"x.data.json": "{}", "a.cedar": CEDAR_PERMITS},
        "x.data.json: no Rego policy and no policy of an OPA server in the set reads the data",
    ),
    "a remote without OPA": ({"x.opa.toml": 'path = "a/b"'}, "none is configured"),
    "a remote path": ({"x.opa.toml": 'path = "../secrets"'}, "x.opa.toml: "),
    "a failing test": (
        {
            "levels.rego": PERMITS,
            "a.test.toml": '[[case]]\nname = "ann"\nsubject = { type = "user", id = "ann" }\naction = "see"\n'
            'resource = { type = "user", id = "b" }\nexpect = "allow"',
        },
        "test `ann`: expected allow, got deny",
    ),
}


@pytest.mark.parametrize("database", ["sqlite"])  # the engine decides, on either database
@pytest.mark.parametrize("case", WRONG)
async def test_an_invalid_rego_set_is_refused_with_the_reason(world: World, case: str) -> None:
    files, said = WRONG[case]
    before = flows.active_policies(world.db.read()).hash
    with pytest.raises(Refused) as refused:
        await put(world, {"a.cedarschema": SCHEMA} | files)
    assert said in refused.value.message
    assert flows.active_policies(world.db.read()).hash == before


RULE = "NAME begins with a lower-case letter, and has at most 63 lower-case letters, digits and `_`"


@pytest.mark.parametrize("name", ["1a", "_a", "A", "a-b", "a" * 64, "é"])
def test_a_name_of_rego_that_is_refused_is_refused_with_its_rule(name: str) -> None:
    for files in (
        {"x.rego": f"package ostiary.{name}\n"},
        {"x.rego": "package ostiary.a\n", f"{name}.data.json": "{}"},
    ):
        with pytest.raises(Invalid) as refused:
            read_program("h", files)
        assert refused.value.hint.endswith(RULE)


@pytest.mark.parametrize("name", ["a", "a1_", "a" * 63])
def test_a_name_of_rego_within_the_rule_is_accepted(name: str) -> None:
    assert read_program("h", {"x.rego": f"package ostiary.{name}\n", f"{name}.data.json": "{}"}) is not None


USES = (
    "permit if {0}(input.x)",
    "permit if {1}(input.x)",
    'permit := $"{{{0}(input.x)}}" == "x"',
    "permit if count([1]) == 1 with count as {0}",
    "permit if {0}(input.x).y == 1 with {0} as count",
    "permit if [x | x := {0}(input.x)] == []",
    "permit := true\nf(x) := {0}(x)",
)


@pytest.mark.parametrize("builtin", sorted(REFUSED))
def test_a_built_in_that_reads_more_than_the_input_and_the_data_is_refused(engine: Confined, builtin: str) -> None:
    first, *rest = builtin.split(".")
    quoted = first + "".join(f'["{part}"]' for part in rest)
    error = f"levels.rego: `{builtin}` is refused: a policy may depend only on the question and the data"
    for use in USES:
        program = read_program("hash", {"levels.rego": HEAD + use.format(builtin, quoted)})
        answer = engine.ask(msgspec.json.encode({"program": program}), within_s=PATIENCE_S)
        assert msgspec.json.decode(answer) == {"error": error}, use


def test_the_conformance_page_lists_the_refused_built_ins() -> None:
    page = (ROOT / "docs/reference/conformance.md").read_text("utf-8")
    [listed] = re.findall(r"is refused when it is put, because [^:]+: ([^:]+?)\. Each of", page)
    assert set(re.findall(r"`([a-z0-9_.]+)`", listed)) == REFUSED


def test_a_module_with_a_lone_surrogate_is_refused() -> None:
    with pytest.raises(Malformed, match=r"levels\.rego: the module has a lone surrogate"):
        read_program("hash", {"levels.rego": PERMITS + "# \ud800"})


def test_names_of_refused_built_ins_may_be_members_and_text(engine: Confined) -> None:
    text = 'permit := input.http.send == "http.send" # http.send({})\nforbid := input["time.now_ns"] == `rand.intn`'
    program = read_program("hash", {"levels.rego": HEAD + text})
    assert engine.ask(msgspec.json.encode({"program": program}), within_s=PATIENCE_S) == b"{}"


def test_the_number_of_policies_of_a_set_outside_of_cedar_is_limited() -> None:
    def remotes(count: int) -> dict[str, str]:
        return {f"p{number}.opa.toml": 'path = "a"' for number in range(count)}

    assert read_program("hash", remotes(MAX_POLICIES)) is not None
    with pytest.raises(Refused, match=f"at most|has {MAX_POLICIES + 1} policies"):
        read_program("hash", remotes(MAX_POLICIES + 1))


async def test_the_input_of_a_rego_policy_has_the_documented_form(world: World, ask: Ask) -> None:
    expected = {
        "subject": {
            "type": "user",
            "id": "ann",
            "attributes": {"id": "ann", "level": 2},
            "ancestors": [{"type": "group", "id": "staff"}],
        },
        "action": {"name": "see", "properties": {"how": "kindly"}},
        "resource": {"type": "user", "id": "ben", "attributes": {"id": "ben"}, "ancestors": []},
    }
    rule = f'permit := object.remove(input, {{"context"}}) == json.unmarshal(`{json.dumps(expected)}`)'
    more = 'forbid contains "x" if input.context.list != ["a", 1, true]\nforbid contains "y" if input.context.pi != 3.5'
    now = 'forbid contains "z" if time.clock(input.context.now)[0] < 0'
    entities = [{"uid": {"type": "user", "id": "ann"}, "parents": [{"type": "group", "id": "staff"}]}]
    await put(world, a_set("\n".join([HEAD, rule, more, now]), a__entities__json=json.dumps(entities)))
    question = QUESTION | {"action": {"name": "see", "properties": {"how": "kindly"}}}
    question["context"] = {"list": ["a", 1, True], "pi": 3.5}
    found = await decision(ask, question)
    assert found == (True, "", ["levels"]), found


@pytest.mark.parametrize("database", ["sqlite"])  # the engine decides, on either database
@pytest.mark.parametrize(
    ("number", "rego", "allowed"),
    [
        ("12345678901234567890123", "12345678901234567890123", True),
        ("12345678901234567890123", "12345678901234567890124", False),
        ("9007199254740993", "9007199254740993", True),
        ("9007199254740993", "9007199254740992", False),
        ("3.141592653589793", "3.141592653589793", True),
        ("3.141592653589793", "3.1415926535897", False),
        ("[18446744073709551617, 0.5]", "[18446744073709551617, 0.5]", True),
        ("[18446744073709551617, 0.5]", "[18446744073709551616, 0.5]", False),
        ('"0.1000000000000000055"', "`0.1000000000000000055`", True),
    ],
)
async def test_a_number_reaches_a_rego_policy_with_all_its_digits(
    world: World, ask: Ask, number: str, rego: str, allowed: bool
) -> None:
    await put(world, a_set(HEAD + f"default permit := false\npermit if input.context.n == {rego}"))
    question = json.dumps(QUESTION | {"context": {"n": "?"}}).replace('"?"', number)
    _, answer = await ask(EVALUATION, question.encode())
    assert answer["decision"] is allowed


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"n": 12345678901234567890', "the body is not JSON: "),
        (b'{"n": 12345678901234567890, "t": "\xff"}', "the body is not JSON: "),
        (b'{"n": ' + b"9" * 4301 + b"}", "a number of the request has too many digits"),
        (b"[" * 100_000 + b"12345678901234567890" + b"]" * 100_000, "the JSON text is nested too deeply"),
        (b'{"n": 1e999999999999999999}', "a 64-bit float cannot represent the number 1e999999999999999999 exactly"),
        (b'{"n": 1e1000000000000000000}', "a 64-bit float cannot represent the number 1e1000000000000000000 exactly"),
        (b'{"n": 1e-9999999999999999999}', "a 64-bit float cannot represent the number 1e-9999999999999999999 exactly"),
    ],
    ids=["cut", "not UTF-8", "digits", "depth", "exponent of 18 digits", "exponent of 19 digits", "negative exponent"],
)
def test_a_body_whose_numbers_cannot_be_checked_is_refused_with_its_cause(body: bytes, message: str) -> None:
    check_numbers(b'{"n": ' + b"9" * 15 + b"}")
    with pytest.raises(Malformed, match=message):
        check_numbers(body)


@pytest.mark.parametrize("database", ["sqlite"])  # the engine decides, on either database
@pytest.mark.parametrize("number", ["0.1000000000000000055", "0.10000000000000001", "1.00000000000000001e2", "2e-324"])
async def test_a_number_with_more_digits_than_a_float_keeps_is_refused_if_the_set_has_rego(
    world: World, ask: Ask, number: str
) -> None:
    question = json.dumps(QUESTION | {"context": {"n": "?"}}).replace('"?"', number).encode()
    search = question.replace(b'"id": "ann", ', b"")
    await put(world, a_set(HEAD + "permit := true"))
    for path, body in ((EVALUATION, question), ("/access/v1/search/subject", search)):
        status, answer = await ask(path, body)
        assert status == 400
        assert answer.startswith("a 64-bit float cannot represent the number ")
    await put(world, {"a.cedarschema": SCHEMA, "a.cedar": CEDAR_PERMITS})
    _, answer = await ask(EVALUATION, question)
    assert answer["decision"] is True


async def test_a_rego_policy_can_use_data_and_libraries_of_its_set(world: World, ask: Ask) -> None:
    await put(
        world,
        a_set(
            HEAD + "import data.lib\ndefault permit := false\npermit if lib.enough(input.subject.attributes.level)",
            lib__rego="package lib\nimport rego.v1\nenough(x) if x >= data.limits.least",
            limits__data__json='{"least": 2}',
        ),
    )
    assert (await decision(ask))[0] is True


@pytest.mark.parametrize("database", ["sqlite"])  # the engine decides, on either database
@pytest.mark.parametrize("semantic", ["execute_all", "deny_on_first_deny"])
async def test_a_number_with_more_digits_than_a_float_keeps_denies_only_its_batch_item(
    world: World, ask: Ask, semantic: str
) -> None:
    await put(world, a_set(PERMITS))
    body = json.dumps(
        {
            "evaluations": [QUESTION, QUESTION | {"context": {"x": "N"}}, QUESTION],
            "options": {"evaluations_semantic": semantic},
        }
    )
    status, answer = await ask(EVALUATIONS, body.replace('"N"', "48.12345678901234567").encode())
    assert status == 200
    asked = [True, False] if semantic == "deny_on_first_deny" else [True, False, True]
    assert [one["decision"] for one in answer["evaluations"]] == asked
    assert "a 64-bit float cannot represent" in answer["evaluations"][1]["context"]["error"]["message"]
    default = json.dumps({"context": {"x": "N"}, "evaluations": [QUESTION]})
    assert (await ask(EVALUATIONS, default.replace('"N"', "48.12345678901234567").encode()))[0] == 400


@pytest.mark.parametrize("database", ["sqlite"])  # the engine decides, on either database
@pytest.mark.parametrize("name", ["ostiary_answers.rego", "answers.rego", "_answers.rego", "a/b.rego"])
async def test_a_rego_module_is_evaluated_under_any_file_name(world: World, ask: Ask, name: str) -> None:
    forbids = HEAD + 'forbid contains "never" if true'
    files = a_set(PERMITS) | {name: forbids}
    await put(world, files)
    assert await decision(ask) == (False, "never", ["levels"])


async def test_two_files_with_the_same_data_name_are_refused(world: World) -> None:
    files = a_set(PERMITS, limits__data__json='{"banned": ["eve"]}') | {"old/limits.data.json": '{"banned": []}'}
    with pytest.raises(Refused, match=r"old/limits.data.json: limits.data.json is `data.limits` already"):
        await load_set(world, files)


async def test_a_batch_and_a_search_evaluate_rego_for_each_item(world: World, ask: Ask) -> None:
    entities = [{"uid": {"type": "user", "id": f"u{n}"}, "attrs": {"level": n}} for n in range(4)]
    await put(world, a_set(PERMITS, a__entities__json=json.dumps(entities)))
    items = [{"subject": {"type": "user", "id": f"u{n}"}} for n in range(4)]
    _, answer = await ask(EVALUATIONS, QUESTION | {"evaluations": items})
    assert [one["decision"] for one in answer["evaluations"]] == [False, False, True, True]
    search = {"subject": {"type": "user"}, "action": {"name": "see"}, "resource": {"type": "user", "id": "u0"}}
    _, found = await ask("/access/v1/search/subject", search)
    assert [one["id"] for one in found["results"]] == ["u2", "u3"]


async def test_a_remote_result_of_another_request_set_policy_or_time_is_not_used(world: World) -> None:
    from ostiary.authorization.cedar import ir
    from ostiary.decision.access import Policies, PolicyResult, RemoteAnswers
    from ostiaryd.policy.flows import FRESH, Evaluator
    from ostiaryd.policy.model import EvaluationRequest, Thing, Verb

    hash = await put(world, a_set(PERMITS))
    policies, reader, now = flows.active_policies(world.db.read()), world.db.read(), world.now()
    question = EvaluationRequest(Thing("user", "ann", {"level": 2}), Verb("see"), Thing("user", "ben"))

    other = Policies("another", ir.PolicySetIR(()), remote=policies.remote)

    def allowed(at: int, said: str = "levels", *, of: Policies = policies, about: bytes = b"") -> bool:
        def evaluate(remote: RemoteAnswers | None) -> bool:
            evaluator = Evaluator(reader, policies, keys=world.keys, now=now, remote=remote)
            return evaluator.evaluate(question).allowed

        assert not evaluate(None)
        asking = RemoteAnswers(policies, max(now - FRESH, min(at, now)))
        assert not evaluate(asking)
        [asked] = asking.missing
        return evaluate(RemoteAnswers(of, at, {about or asked: (PolicyResult(said, permits=True),)}))

    assert policies.hash == hash
    assert allowed(now - FRESH)
    assert not allowed(now - FRESH - 1)
    assert not allowed(now + 1)
    assert not allowed(now, of=other)
    assert not allowed(now, about=b"another")
    assert not allowed(now, "other")


async def test_a_new_rego_set_decides_at_once_and_a_set_of_another_process_after_one_denial(
    world: World, ask: Ask
) -> None:
    first = await put(world, a_set(PERMITS))
    assert (await decision(ask))[0] is True
    await put(world, a_set(PERMITS.replace("> 1", "> 5")))
    assert (await decision(ask))[1] == "no policy permits the request"
    await act(world, "policy.activate", lambda act: flows.activate(act, first))  # as another process would
    assert (await decision(ask))[1] == "policy `levels`: remote policies cannot be asked here"
    assert (await decision(ask))[0] is True


@pytest.mark.parametrize("database", ["sqlite"])  # the engine decides, on either database
async def test_the_active_rego_set_decides_while_more_sets_are_loaded_than_an_engine_keeps(
    world: World, ask: Ask
) -> None:
    await put(world, a_set(PERMITS))
    for number in range(2 * KEPT):
        await load_set(world, a_set(PERMITS.replace("> 1", f"> {number + 2}")))
        assert await decision(ask) == (True, "", ["levels"]), number


async def test_the_response_to_a_put_set_has_notes_on_the_actions_that_the_set_prevents(ask: Ask) -> None:
    _, answer = await ask("/api/v1/policies?dry_run=true", {"files": a_set(PERMITS, a__cedar=CEDAR_PERMITS)})
    said = ["only the server can evaluate `levels`: guards ask the server about each call that nothing else denies"]
    assert (answer["policies"], answer["notes"]) == (2, said)
    no_tokens = "no policy permits `issue_token`: no client gets a token, administrators included"
    no_parts = "no policy permits `delegate`: no agent can delegate a part of its task to another agent"
    for cedar, said in (
        (CEDAR_CALLS, [no_tokens, no_parts]),
        ('permit (principal, action == Action::"issue_token", resource);', [no_parts]),
        ('permit (principal, action in [Action::"issue_token", Action::"delegate"], resource);', []),
        ('permit (principal, action in [Action::"delegate", Action::"call"], resource);', [no_tokens]),
        ("forbid (principal, action, resource);", [no_tokens, no_parts]),
    ):
        _, answer = await ask("/api/v1/policies?dry_run=true", {"files": {"a.cedar": cedar}})
        assert [note for note in answer["notes"] if note.startswith("no policy permits")] == said, cedar
    watching = a_set(PERMITS + 'mode := "watch"', a__cedar="permit (principal, action, resource);")
    status, put = await ask("/api/v1/policies", {"files": watching})
    assert (status, put["notes"], put["policies"]) == (201, [], 2)


async def test_guards_receive_the_names_of_policies_that_they_cannot_run(world: World) -> None:
    await put(world, a_set(PERMITS))
    assert policy_fact(world.db.read()).remote == {"levels": False}


async def test_a_guard_denies_if_a_policy_can_be_evaluated_only_by_the_server(world: World) -> None:
    await put(world, a_set(PERMITS, a__cedar="permit (principal, action, resource);"))
    knowledge = Knowledge()
    knowledge.learn(policy_fact(world.db.read()))
    decided = call(policies=knowledge.policies)
    assert (decided.allowed, decided.reasons[0].code, decided.policies) == (False, "policy_error", ("levels",))


def test_a_json_schema_in_a_policy_reads_no_network_and_no_file(engine: Confined, tmp_path: Path) -> None:
    (schema := tmp_path / "schema.json").write_text('{"type": "object"}')
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/schema.json"
        for name, link in (("file", schema.as_uri()), ("http", url)):
            rule = f'permit := json.match_schema({{}}, {{"$ref": "{link}"}})[0]'
            program = read_program(name, {"levels.rego": HEAD + rule})
            assert engine.ask(msgspec.json.encode({"program": program}), within_s=PATIENCE_S) == b"{}"
            said = engine.ask(b'{"hash":"%b","question":{}}' % name.encode(), within_s=PATIENCE_S)
            error = "evaluation fails: levels.rego:3: eval_builtin_error: json.match_schema"
            assert msgspec.json.decode(said) == [["levels", False, [], error]]
        with pytest.raises(BlockingIOError):
            listening.accept()


def test_the_evaluation_of_a_policy_that_allocates_too_much_memory_is_ended(engine: Confined) -> None:
    rule = "permit if count([x | some x in numbers.range(1, 900000000)]) > 0"
    program = read_program("hash", {"levels.rego": HEAD + rule})
    engine.ask(msgspec.json.encode({"program": program}), within_s=PATIENCE_S)
    with pytest.raises(Exceeded, match="nested too deeply, or memory is exhausted"):
        engine.ask(b'{"hash":"hash","question":{}}', within_s=PATIENCE_S)


async def test_a_set_with_rego_is_refused_without_the_library_of_opa(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(external_pdp, "find_spec", lambda name: None if name == "opa_bindings" else find_spec(name))
    with pytest.raises(Refused, match="OPA's library is not installed"):
        await put(world, a_set(PERMITS))
    await put(world, {"a.cedarschema": SCHEMA, "a.cedar": CEDAR_PERMITS})


@pytest.mark.parametrize("kept_children", [None])
async def test_the_engine_processes_end_when_the_engines_are_closed(world: World) -> None:
    engines = world.get_singleton(Engines)
    await put(world, a_set(PERMITS))
    children = [one.confined._child for one in engines._all]
    assert len(children) == POOL
    assert all(child is not None and child.poll() is None for child in children)
    await engines.close()
    assert all(child is not None and child.poll() is not None for child in children)


@pytest.mark.parametrize("kept_children", [None])
@pytest.mark.parametrize("database", ["sqlite"])  # the engine decides, on either database
async def test_the_engines_are_closed_while_evaluations_loop_and_others_wait(world: World, ask: Ask) -> None:
    pairs = "some x in numbers.range(1, 5000); some y in numbers.range(1, 5000); x * y == 0"
    await put(world, a_set(PERMITS + f"permit if {{ {pairs} }}"))
    engines = world.get_singleton(Engines)
    engines._limit_s = 10 * PATIENCE_S
    looping = [asyncio.ensure_future(decision(ask)) for _ in range(2 * POOL)]
    await eventually_async(lambda: all(one.confined._mutex.locked() for one in engines._all))
    await asyncio.wait_for(engines.close(), PATIENCE_S)
    answers = await asyncio.wait_for(asyncio.gather(*looping, decision(ask)), PATIENCE_S)
    assert all(not allowed and "closed" in reason for allowed, reason, _ in answers)
    for thread in engines._threads._threads:
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


@pytest.mark.parametrize("database", ["sqlite"])  # the engine decides, on either database
async def test_a_looping_evaluation_does_not_delay_other_requests(world: World, ask: Ask) -> None:
    pairs = "some x in numbers.range(1, 5000); some y in numbers.range(1, 5000); x * y == 0"
    loops = f'permit if {{ input.subject.id == "loops"; {pairs} }}'
    await put(world, a_set(PERMITS + loops))
    world.get_singleton(Engines)._limit_s = 4.0  # longer than three questions take on a slow machine
    for _ in range(2):  # the second time, processes were ended and are there again
        looping = [
            asyncio.ensure_future(decision(ask, QUESTION | {"subject": {"type": "user", "id": "loops"}}))
            for _ in range(POOL - 1)
        ]
        await asyncio.sleep(0.02)
        found = [await decision(ask) for _ in range(3)]
        assert not any(one.done() for one in looping), "all were answered while they looped"
        assert all(allowed for allowed, _, _ in found)
        assert {(await one)[1] for one in looping} == {"policy `levels`: the process took longer than 4 s"}
        await asyncio.gather(*(world.get_singleton(Engines)._with_one(lambda _: None) for _ in range(POOL)))
