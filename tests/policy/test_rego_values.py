"""Strings and numbers on their way to OPA and back, compared with Python: what needs escaping in JSON, above all."""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from harness.patience import PATIENCE_S
from ostiary.authorization.cedar.extensions import Decimal
from ostiary.authorization.cedar.values import Record, Uid
from ostiary.decision.access.remote_policies import question
from ostiary.protocol.errors import Malformed
from ostiaryd.ground.process.confined import Confined
from ostiaryd.policy.flows.external_pdp import GO, RESERVED, _Rego
from ostiaryd.policy.model.rego import read_program

AWKWARD = '"\\/\n\r\t\b\f\0\x01\x1f\x7f\x80\u2028\ufeff\ufffd\uffff\U0001f600\U0010ffffnrtu0x{}%a b'
TEXT = st.text(st.sampled_from(AWKWARD) | st.characters(exclude_categories=["Cs"]), max_size=12)
EXAMPLES = settings(max_examples=120, deadline=None)


@pytest.fixture(scope="module")
def case() -> Iterator[Confined]:
    with closing(Confined("tests.conformance.rego_case:answer", reserved=RESERVED, environ=GO)) as confined:
        yield confined


@pytest.fixture(scope="module")
def rego() -> Iterator[_Rego]:
    rego = _Rego()
    with closing(rego.confined):
        yield rego


def evaluate(case: Confined, value: str, input: object, *, data: object = None) -> bytes:
    """The JSON of a term of Rego."""
    body = {"modules": [f"package p\nv := {value}\n"], "query": "data.p.v = v", "input": input, "data": data or {}}
    answer = msgspec.json.decode(case.ask(msgspec.json.encode(body), within_s=PATIENCE_S), type=_Answer)
    assert answer.error == ""
    return bytes(answer.results[0]["v"])


class _Answer(msgspec.Struct):
    error: str = ""
    results: list[dict[str, msgspec.Raw]] = []


TERMS = {
    "same": "input.a",
    "equal": "input.a == input.b",
    "contains": "contains(input.a, input.b)",
    "startswith": "startswith(input.a, input.b)",
    "endswith": "endswith(input.a, input.b)",
    "count": "count(input.a)",
    "indexof": "indexof(input.a, input.c)",
    "split": "split(input.a, input.c)",
    "replace": "replace(input.a, input.c, input.b)",
    "concat": "concat(input.b, [input.a, input.c])",
    "slice": "substring(input.a, 1, 2)",
    "format": 'sprintf("%s|%v", [input.a, input.b])',
    "template": '$"{input.a}|{input.b}"',
    "hmac": "crypto.hmac.sha256(input.a, input.b)",
    "base64": "base64.encode(input.a)",
    "member": "object.get({input.a: 1}, input.b, 0)",
    "members": "{name | some name, _ in {input.a: 1, input.b: 2}}",
    "set": "input.a in {input.b, input.c}",
    "regex": "regex.match(input.pattern, input.b)",
    "lines": "regex.match(`^[^\\n]*$`, input.a)",
    "quotes": 'regex.match(`^[^"]*$`, input.a)',
    "round": "json.unmarshal(json.marshal(input.a))",
}


def expected(a: str, b: str, c: str) -> dict[str, Any]:
    return {
        "same": a,
        "equal": a == b,
        "contains": b in a,
        "startswith": a.startswith(b),
        "endswith": a.endswith(b),
        "count": len(a),
        "indexof": a.find(c),
        "split": a.split(c),
        "replace": a.replace(c, b),
        "concat": b.join([a, c]),
        "slice": a[1:3],
        "format": f"{a}|{b}",
        "template": f"{a}|{b}",
        "hmac": hmac.digest(b.encode(), a.encode(), "sha256").hex(),
        "base64": base64.b64encode(a.encode()).decode(),
        "member": int(a == b),
        "members": sorted({a, b}, key=str.encode),
        "set": a in (b, c),
        "regex": a == b,
        "lines": "\n" not in a,
        "quotes": '"' not in a,
        "round": a,
    }


@given(TEXT, TEXT, TEXT.filter(bool))
@example("ls\nrm", "\n", "n")
@example("C:\\new", "\n", "\\n")
@example('a"b', '"', '"b')
@example("a\0b", "a", "\0")
@example("\U0001f600x", "x", "x")
@EXAMPLES
def test_string_functions_of_rego_agree_with_python(case: Confined, a: str, b: str, c: str) -> None:
    terms = ", ".join(f'"{name}": {term}' for name, term in TERMS.items())
    pattern = "".join(f"\\x{{{ord(character):x}}}" for character in a)
    found = json.loads(evaluate(case, f"{{{terms}}}", {"a": a, "b": b, "c": c, "pattern": f"^(?:{pattern})$"}))
    assert found == expected(a, b, c)


@given(TEXT, TEXT)
@EXAMPLES
def test_strings_in_data_and_modules_equal_the_strings_of_the_input(case: Confined, a: str, b: str) -> None:
    literals = f"input.a == {json.dumps(a)}, input.a == {json.dumps(a, ensure_ascii=False)}"
    term = f"[input.a == data.x.a, input.b == data.x.a, data.x.o[input.a], {literals}]"
    data = {"x": {"a": a, "o": {a: True}}}
    assert json.loads(evaluate(case, term, {"a": a, "b": b}, data=data)) == [True, a == b, True, True, True]


NUMBERS = st.one_of(
    st.integers(-(10**40), 10**40).map(str),
    st.decimals(allow_nan=False, allow_infinity=False, places=20, min_value=-(10**20), max_value=10**20).map(
        lambda number: f"{number:f}"
    ),
)


@given(NUMBERS)
@example("0.1000000000000000055")
@example("9007199254740993")
@example("12345678901234567890123")
@EXAMPLES
def test_numbers_reach_opa_digit_for_digit(case: Confined, number: str) -> None:
    raw = msgspec.Raw(number.encode())
    assert evaluate(case, "input", raw) == number.encode()
    assert evaluate(case, "data.x", None, data={"x": raw}) == number.encode()


@given(TEXT, TEXT, st.integers(-(2**63), 2**63 - 1))
@EXAMPLES
def test_the_input_reaches_a_rego_policy_unchanged_and_its_messages_are_returned(
    rego: _Rego, a: str, b: str, units: int
) -> None:
    rules = """
    default permit := false
    permit if input.context[input.subject.id] == input.resource.id
    forbid contains $"m:{input.context.message}"
    forbid contains $"l:{json.marshal(input.context.long)}"
    forbid contains $"d:{json.marshal(input.context.decimal)}"
    """
    program = read_program("hash", {"p.rego": f"package ostiary.p\n{rules}"})
    assert program is not None
    fixed: Record = {"message": a + b, "long": units, "decimal": Decimal(units)}
    body = question(Uid("U", a), Uid("Action", "see"), Uid("U", b), {a: b, **fixed}, {})
    said = rego.ask(program, b'{"hash":"hash","question":%b}' % body, within_s=PATIENCE_S)
    [[policy, permits, forbids, error]] = msgspec.json.decode(said)
    assert (policy, permits, error) == ("p", a not in fixed, "")
    whole, rest = divmod(abs(units), 10_000)
    assert set(forbids) == {f"m:{a + b}", f"l:{units}", f"d:{'-' if units < 0 else ''}{whole}.{rest:04}"}


def test_data_of_a_set_keeps_its_digits(rego: _Rego) -> None:
    rule = 'permit := json.marshal(data.x) == "{\\"big\\":12345678901234567890123,\\"small\\":0.1000000000000000055}"'
    data = '{"big": 12345678901234567890123, "small": 0.1000000000000000055}'
    program = read_program("data", {"p.rego": f"package ostiary.p\n{rule}", "x.data.json": data})
    assert program is not None
    assert rego.ask(program, b'{"hash":"data","question":{}}', within_s=PATIENCE_S) == b'[["p",true,[],""]]'


def test_a_lone_surrogate_is_refused_in_the_input_and_in_data() -> None:
    with pytest.raises(ValueError, match="surrogates"):
        question(Uid("U", "\ud800"), Uid("Action", "see"), Uid("U", "b"), {}, {})
    for text in ('"\\ud800"', '"\ud800"'):
        with pytest.raises(Malformed):
            read_program("hash", {"p.rego": "package ostiary.p\npermit := true", "x.data.json": text})
