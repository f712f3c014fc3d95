"""Rego by OPA's own library, in a confined process: one request in, one answer out, both JSON.

    {"program": Program}                     compile the program and store it by its hash     -> {} or {"error": ..}
    {"hash": .., "question": {..}}           evaluate each policy of the program              -> [PolicyResult, ..]
                                             the program is not stored, or no longer          -> null

A built-in that fails is an error, not undefined (OPA's strict mode). A rule without a value, or with a value of the
wrong type, is an error of its policy.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from itertools import accumulate, takewhile
from typing import Any

import msgspec

from ostiary.protocol.decoding import json_decoder
from ostiaryd.policy.engines.opa import Opa, OpaError

KEPT = 4
MAX_MESSAGES, MAX_MESSAGE = 16, 500
REFUSED = frozenset(
    {
        "http.send",
        "net.lookup_ip_addr",
        "opa.runtime",
        "rand.intn",
        "time.now_ns",
        "uuid.rfc4122",
        "io.jwt.decode_verify",
        "io.jwt.encode_sign",
        "io.jwt.encode_sign_raw",
        "crypto.x509.parse_and_verify_certificates",
        "crypto.x509.parse_and_verify_certificates_with_options",
    }
)
"""Built-ins whose results depend on the network, the environment, the clock or randomness."""
_RULES = ("permit", "forbid")
_ANSWERS = ".answers"
"""Name of the module that the server adds. No file of a set can have this name: a second module of the same
name would replace the first.
"""
_HEADING = re.compile(r"^(\w+_error: )?(bundle activation failed: )?(\d+ errors? occurred:\s*)?")
_WHERE = re.compile(r"eval_error: ([\w./-]{1,200}:\d+: eval_\w+_error)(: [a-z0-9_.]+(?=:))?")


class _Program(msgspec.Struct):
    hash: str
    modules: dict[str, str]
    data: dict[str, str]
    policies: tuple[str, ...]
    watching: dict[str, bool]


class _Request(msgspec.Struct):
    program: _Program | None = None
    hash: str = ""
    question: msgspec.Raw = msgspec.Raw(b"null")


class _Invalid(Exception):
    """Raised if a program compiles, but this server does not accept it, for example because of a refused built-in."""


_programs: dict[str, tuple[dict[str, tuple[str, ...]], Opa]] = {}
_decode = json_decoder(_Request)
_decode_module = json_decoder(dict[str, Any])
_decode_values = json_decoder(dict[str, list[Any]])
_encode = msgspec.json.Encoder().encode
_reader = Opa()


def answer(body: bytes) -> bytes:
    """Return the answer of the confined process to one request of the server, both as JSON."""
    request = _decode(body)
    if request.program is not None:
        return _encode(_compile(request.program))
    if request.hash not in _programs:
        return _encode(None)
    policies, opa = _programs[request.hash]
    return _encode([_evaluate(opa, policy, rules, bytes(request.question)) for policy, rules in policies.items()])


def _compile(program: _Program) -> dict[str, str]:
    opa = Opa()
    try:
        for name, text in program.modules.items():
            opa.add_module(name, text)
        policies = _read_policies(program)
        opa.add_module(_ANSWERS, _answers(policies))
        opa.add_data(_encode({name: msgspec.Raw(text.encode()) for name, text in program.data.items()}))
        opa.query("data.ostiary_answers.compiled")
    except OpaError as error:
        opa.close()
        return {"error": _HEADING.sub("", str(error))[:MAX_MESSAGE]}
    except _Invalid as error:
        opa.close()
        return {"error": str(error)[:MAX_MESSAGE]}
    while program.hash in _programs or len(_programs) >= KEPT:
        replaced = program.hash if program.hash in _programs else next(iter(_programs))
        _programs.pop(replaced)[1].close()
    _programs[program.hash] = policies, opa
    return {}


def _read_policies(program: _Program) -> dict[str, tuple[str, ...]]:
    """Return the names of the rules of each policy, as OPA parses the modules. Raises OpaError for a module that is not
    Rego, _Invalid for a refused built-in or a package without `permit` and `forbid`.
    """
    rules: dict[str, set[str]] = defaultdict(set)
    modes: dict[str, list[object]] = defaultdict(list)
    for name, text in program.modules.items():
        module = parse_module(name, text)
        if refused := refused_builtins(module):
            raise _Invalid(
                f"{name}: `{min(refused)}` is refused: a policy may depend only on the question and the data"
            )
        _, *package = (term["value"] for term in module["package"]["path"])
        if not package[0].startswith("ostiary"):
            continue
        policy = ".".join(package).removeprefix("ostiary.")
        heads = [rule["head"] for rule in module.get("rules") or ()]
        rules[policy].update(head["ref"][0]["value"] for head in heads)
        modes[policy] += [head.get("value", {}).get("value") for head in heads if head["ref"][0]["value"] == "mode"]
    expected = {policy: program.watching[policy] for policy in program.policies}
    if expected != {policy: modes[policy] == ["watch"] for policy in rules}:
        raise _Invalid("OPA reads another `package` or `mode` than this server: write each on a line of its own")
    for policy, names in rules.items():
        if not names.intersection(_RULES):
            raise _Invalid(f"the package ostiary.{policy} defines neither `permit` nor `forbid`")
    return {policy: tuple(rule for rule in _RULES if rule in names) for policy, names in sorted(rules.items())}


def parse_module(name: str, text: str) -> dict[str, Any]:
    """Return OPA's syntax tree of a module. Raises OpaError for a module that is not Rego."""
    [result] = _reader.query("rego.parse_module(input.name, input.text)", _encode({"name": name, "text": text}))
    return _decode_module(result.expressions[0].value)


def refused_builtins(module: dict[str, Any]) -> frozenset[str]:
    """Return the built-in functions in a syntax tree that policies may not use (`REFUSED`), such as functions that read
    the time or the network.
    """
    return REFUSED.intersection(_names(module))


def _names(tree: object) -> Iterator[str]:
    """Yield each dotted name in a syntax tree, and each prefix of it."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, list):
            waiting += node
        elif isinstance(node, dict):
            waiting += node.values()
            if node.get("type") == "ref":
                named = takewhile(lambda term: term["type"] in ("var", "string"), node["value"])
                yield from accumulate((term["value"] for term in named), "{}.{}".format)


def _answers(policies: dict[str, tuple[str, ...]]) -> str:
    """Return the text of a module that lists the values of each policy's rules. The list of an undefined
    rule is empty.
    """
    members = {
        policy: ", ".join(f'"{rule}": [x | x := data.ostiary.{policy}.{rule}]' for rule in rules)
        for policy, rules in policies.items()
    }
    answers = [f"{policy} := {{{values}}}" for policy, values in members.items()]
    return "\n".join(["package ostiary_answers", "compiled := true", *answers])


def _evaluate(opa: Opa, policy: str, rules: tuple[str, ...], question: bytes) -> tuple[str, bool, Any, str]:
    """Evaluate a policy on a question. Return its name, true if it permits, the messages with which it forbids, and its
    error (empty without one).
    """
    try:
        [result] = opa.query(f"data.ostiary_answers.{policy}", question)
    except OpaError as error:
        return policy, False, (), _describe(error)
    values = _decode_values(result.expressions[0].value)
    for rule in rules:
        if len(values[rule]) != 1:
            return policy, False, (), f"`{rule}` is undefined; write `default {rule} := false`"
    permit, forbid = values.get("permit", [False])[0], values.get("forbid", [False])[0]
    if not isinstance(permit, bool):
        return policy, False, (), "`permit` is neither true nor false"
    if isinstance(forbid, bool):
        return policy, permit, ("",) if forbid else (), ""
    if not isinstance(forbid, list) or not all(isinstance(message, str) for message in forbid):
        return policy, False, (), "`forbid` is neither true nor false nor a set of messages"
    return policy, permit, [message[:MAX_MESSAGE] for message in forbid[:MAX_MESSAGES]], ""


def _describe(error: OpaError) -> str:
    """Return where an evaluation failed, and in which built-in, without OPA's own message, because that may contain a
    value.
    """
    match = _WHERE.match(str(error))
    return "evaluation fails" if match is None else f"evaluation fails: {match[1]}{match[2] or ''}"
