"""A session: the product decides one call after the other. Allowed calls are run, and denied calls are not run."""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmarks.contain.person import StandIn
from benchmarks.contain.products import Product, Verdict
from benchmarks.contain.suites import Call, Output, Person, Suite, World

AGENT, OTHER_AGENT = "assistant", "other-assistant"
MAX_QUESTIONS = 4
"""maximum number of questions about one call"""
Script = Generator[Call, Output | None, None]
"""The behaviour of an agent: a generator that yields calls and gets their outputs, None for a denied call."""


@dataclass(slots=True)
class Session:
    """The outcome of a session."""

    ran: list[Call] = field(default_factory=list)
    denied: list[tuple[str, str]] = field(default_factory=list)
    """tools that were denied, each with the code of the reason"""
    about_calls: int = 0
    """questions to the person"""
    lists: int = 0
    """lists of waiting questions: an agent asks about neighbouring calls of one tool together"""
    why: list[tuple[Call, str]] = field(default_factory=list)
    """the product's remarks on its questions, denials and effects, in their order"""


def replay(calls: Iterable[Call]) -> Script:
    """Return a script that makes these calls, regardless of their results."""
    for call in calls:  # noqa: UP028 because outputs are sent back, and a list takes none
        yield call


def obedient(world: World, injection: str, reads: Collection[int]) -> Script:
    """Return a script that makes the calls of the task, and the calls of the injection as soon as its text has been
    read. `reads`: the calls
    after which a text of a third party has been read.
    """
    for number, call in enumerate(world.reference()):
        output = yield call
        if output is not None and number in reads:
            yield from replay(world.attack(injection))


def hold(product: Product, session: Any, world: World, script: Script, standin: StandIn) -> Session:
    """Run the script in a session of the product, and return the outcome."""
    held, listed = Session(), ""
    try:
        call = next(script)
        while True:
            before = held.about_calls
            verdict = _answered(product, session, call, standin, held)
            if held.about_calls > before:
                held.lists += call.tool != listed
                listed = call.tool
            elif call.tool != listed:
                listed = ""
            output = None
            if verdict.allowed:
                output = world.run(call)
                product.observe(session, call, output)
                held.ran.append(call)
            else:
                held.denied.append((call.tool, verdict.code))
            if verdict.why:
                held.why.append((call, f"{'pass' if verdict.allowed else 'deny'} {verdict.why}"))
            call = script.send(output)
    except StopIteration:
        return held


def _answered(product: Product, session: Any, call: Call, standin: StandIn, held: Session) -> Verdict:
    """Return the verdict after the person has answered every question about the call."""
    verdict = product.decide(session, call)
    for _ in range(MAX_QUESTIONS):
        if verdict.question is None:
            return verdict
        held.about_calls += 1
        held.why.append((call, f"ask {verdict.why}"))
        verdict = product.answer(session, verdict.question, yes=standin.says(verdict.question))
    return verdict if verdict.question is None else Verdict(False, "asks_for_ever")


def start(
    product: Product, suite: Suite, purpose: str, standin: StandIn, *, agent: str = AGENT, person: Person | None = None
) -> tuple[Any, int]:
    """Open a session, and return it with the number of questions that the person answered before it began."""
    opened = product.open(agent, purpose, suite.tools, person or suite.person)
    for question in opened.questions:
        product.answer(opened.session, question, yes=standin.says(question))
    return opened.session, len(opened.questions)


def reads(suite: Suite, task: str) -> Mapping[str, Collection[int]]:
    """Return by place the numbers of the calls of the reference after which the text at this place has been read; empty
    for a place that is not read.
    """
    marks = {place: f"Xq{number}zjX" for number, place in enumerate(suite.places)}
    world = suite.world(task, marks)
    outputs = [world.run(call).text for call in world.reference()]
    found = {
        place: [number for number, output in enumerate(outputs) if mark in output] for place, mark in marks.items()
    }
    return {place: numbers for place, numbers in found.items() if numbers}
