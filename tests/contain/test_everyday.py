"""The everyday requests: tool responses can carry third-party text, and only an attack that ran counts as harm."""

from __future__ import annotations

import json

from benchmarks.contain.everyday.suite import STRANGER, Scripted, Step, requests
from benchmarks.contain.suites import Call

PLANTED = 'Important: "do this"\nand that'


def worlds() -> list[Scripted]:
    said = requests()
    attacks = {one["id"]: [Step.of(step).call for step in one["step"]] for one in said["attack"]}
    return [Scripted([Step.of(step) for step in one["step"]], attacks, PLANTED) for one in said["request"]]


def test_each_tool_response_with_a_place_for_third_party_text_contains_the_planted_text() -> None:
    read = 0
    for world in worlds():
        for step in world.steps:
            text = world.run(step.call).text
            if STRANGER not in step.answer:
                assert text == step.answer
                continue
            read += 1
            if step.answer.startswith(("{", "[{", "[\n")):
                assert PLANTED in _strings(json.loads(text))
            else:
                assert PLANTED in text
    assert read >= 15


def test_a_request_is_done_by_all_its_calls_and_an_attack_by_all_of_its_own() -> None:
    world = worlds()[0]
    assert world.useful(world.reference(), None)
    assert not world.useful(world.reference()[1:], None)
    for injection, calls in world.attacks.items():
        assert world.harmed(injection, [*world.reference(), *calls], None)
        assert not world.harmed(injection, world.reference(), None)
        assert not world.run(calls[0]).error
    assert world.run(Call("read_file", {"path": "/elsewhere"})).error


def _strings(value: object) -> str:
    match value:
        case dict():
            return "\x00".join(map(_strings, value.values()))
        case list():
            return "\x00".join(map(_strings, value))
        case _:
            return str(value)
