"""Rego by regopy, in a confined process: one request in, one answer out, both JSON.

    {"program": Program}                     compile it, and keep it under its hash   -> {} or {"error": ..}
    {"hash": .., "question": {..}}           what each of its policies says            -> [Said, ..]

Built-ins that fail are errors here, not undefined (OPA's strict mode). A rule that must have a value and has none, or
one of another type than it may have, is an error of its policy.
"""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec
from regopy import Bundle, Interpreter
from regopy.rego_shared import LogLevel, RegoError

from ostiary.core.decoding import json_decoder

KEPT = 4
MAX_MESSAGES, MAX_MESSAGE = 16, 500
_MESSAGES = re.compile(r"\(errormsg \d+:(.*?)\)\s*\(", re.DOTALL)


class _Program(msgspec.Struct):
    hash: str
    modules: dict[str, str]
    data: dict[str, Any]
    policies: dict[str, tuple[str, ...]]


class _Request(msgspec.Struct):
    program: _Program | None = None
    hash: str = ""
    question: msgspec.Raw = msgspec.Raw(b"null")


_programs: dict[str, tuple[_Program, Bundle, Interpreter]] = {}
_decode = json_decoder(_Request)
_encode = msgspec.json.Encoder().encode


def answer(body: bytes) -> bytes:
    """The answer to a request of ours."""
    request = _decode(body)
    if request.program is not None:
        return _encode(_compile(request.program))
    program, bundle, asking = _programs[request.hash]
    try:
        asking.set_input_term(bytes(request.question).decode())
    except RegoError as error:
        return _encode([(policy, False, (), _words(error)) for policy in program.policies])
    return _encode([_say(asking, bundle, policy, rules) for policy, rules in program.policies.items()])


def _compile(program: _Program) -> dict[str, str]:
    building = _interpreter()
    try:
        for name, text in program.modules.items():
            building.add_module(name, text)
        building.add_module("ostiary_answers.rego", _answers(program))
        building.add_data_json(json.dumps(program.data))
        bundle = building.build(None, [f"ostiary_answers/{policy}" for policy in program.policies])
    except (RegoError, ValueError) as error:
        return {"error": _words(error)}
    if not bundle.ok():
        return {"error": "it does not compile"}
    while len(_programs) >= KEPT:
        del _programs[next(iter(_programs))]
    _programs[program.hash] = program, bundle, _interpreter()
    return {}


def _answers(program: _Program) -> str:
    """A module with the values of each policy's rules: none of what is undefined, all of what it is."""
    rules = [
        f"{policy} := {{{', '.join(f'{_quote(rule)}: [x | x := data.ostiary.{policy}.{rule}]' for rule in found)}}}"
        for policy, found in program.policies.items()
    ]
    return "\n".join(["package ostiary_answers", *rules])


def _quote(word: str) -> str:
    return f'"{word}"'


def _say(asking: Interpreter, bundle: Bundle, policy: str, rules: tuple[str, ...]) -> tuple[str, bool, Any, str]:
    """What the policy says: its name, whether it permits, with what it forbids, or what went wrong."""
    try:
        output = asking.query_bundle_entrypoint(bundle, f"ostiary_answers/{policy}")
        if not output.ok():
            return policy, False, (), _words(str(output))
        values: dict[str, list[Any]] = output.results[0].expressions[0]
    except (RegoError, ValueError, IndexError, AttributeError) as error:
        return policy, False, (), _words(error)
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


def _interpreter() -> Interpreter:
    made = Interpreter()
    made.strict_built_in_errors = True
    made.log_level = LogLevel.NONE
    return made


def _words(error: object) -> str:
    """What regopy says is wrong with a module; of an evaluation it says nothing, so that no value is quoted."""
    found = _MESSAGES.findall(str(error))
    return ("; ".join(dict.fromkeys(found)) or "it fails")[:MAX_MESSAGE]
