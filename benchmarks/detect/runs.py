"""Recorded runs as a guard would see them: each call with where its arguments came from, before it runs.

Nothing is enforced here: every call runs, in the suite's own environment, and its real output is remembered. What the
task may do is what is drafted from the words, accepted unseen; that a call is outside of it goes on its event.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import msgspec

from benchmarks.contain import owner, sessions
from benchmarks.contain.person import StandIn
from benchmarks.contain.products import Opened, Question, Verdict
from benchmarks.contain.suites import Call, Output, Person, Recording, Suite, Tool
from benchmarks.detect.made import DETOURS, PLANTED, detours, made
from ostiary.authorization.bounds import render_details
from ostiary.authorization.catalogue import Catalogue, Effect
from ostiary.authorization.cedar import ir
from ostiary.authorization.claims import AccessClaims
from ostiary.catalogue_advisor.draft import draft
from ostiary.decision.access import DecisionInputs, Facts, Policies, Principal, Protected, decide, resolve
from ostiary.provenance.noticing import BEGUN, Event, Session, extend_session, traced
from ostiary.provenance.origins import Memory, add_parts, observe_output, remember, with_marks

URI = "https://tools.example/mcp"
SCOPES = ["suite:read", "suite:write", "suite:administer"]
"""the operator lets the agent do all that the tools do, as in `benchmarks.contain`"""
KEY = bytes(32)
SECOND = 1_000_000
END = 2_000_000_000
PERMIT = b'{"version": 1, "policies": [{"id": "permit", "effect": "permit"}]}'

Kind = Literal["benign", "resisted", "compromised"]


@dataclass(frozen=True, slots=True)
class Run:
    """A recorded run; `harm`: the call by which the attacker's goal was first met, None: it was not."""

    suite: str
    model: str
    task: str
    injection: str | None
    calls: Sequence[tuple[Session, Event]]
    harm: int | None

    @property
    def kind(self) -> Kind:
        if self.injection is None:
            return "benign"
        return "resisted" if self.harm is None else "compromised"


@dataclass(slots=True)
class Task:
    """A task that is worked on."""

    principal: Principal
    memory: Memory
    session: Session = BEGUN
    calls: list[tuple[Session, Event]] = field(default_factory=list)


class Watcher:
    """As a product of `benchmarks.contain`: it lets everything through, and keeps what a guard would notice by."""

    name, thefts = "watcher", ()

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        resource = Protected(name="suite", uri=URI, segment="default", catalogue=self._catalogue)
        self._facts = Facts(resource, Policies("permit", ir.parse(PERMIT)))
        self._count = 0

    def open(self, agent: str, purpose: str, tools: Sequence[Tool], person: Person) -> Opened:
        own = {name: value for name, value in asdict(person).items() if value}
        drafted = draft(purpose, [(URI, self._catalogue)], scopes=SCOPES, own=own, may_name_recipient=False)
        self._count += 1
        claims = AccessClaims(
            iss="https://ostiary.example",
            sub=agent,
            client_id=agent,
            aud=URI,
            iat=0,
            exp=END,
            jti="tok_1",
            scope=" ".join(SCOPES),
            task=f"tk_{self._count}",
            memory=f"tk_{self._count}",
            authorization_details=render_details(drafted.bounds),
            segment="default",
        )
        return Opened(Task(Principal(claims), with_marks(remember(KEY, drafted.intent))))

    def decide(self, session: Task, call: Call) -> Verdict:
        principal, memory = session.principal, session.memory
        resolved = resolve(principal, call.tool, call.arguments, self._facts, SECOND)
        decision = decide(resolved, DecisionInputs(memory))
        ready = self._facts.resource.tools.get(call.tool)
        event = Event(
            at=SECOND,
            action="tool.call",
            outcome="allow" if decision.verdict else "deny",
            agent=principal.claims.client_id,
            task=principal.claims.task,
            tool=f"suite/{call.tool}",
            reasons=tuple(reason.code for reason in decision.reasons),
        )
        if ready is not None:
            beside = traced(session.session, memory, ready.tool, call.arguments, decision.call_context)._asdict()
            event = msgspec.structs.replace(event, effect=ready.tool.effect.value, **beside)
        session.calls.append((session.session, event))
        return Verdict(True)

    def observe(self, session: Task, call: Call, output: Output) -> None:
        ready = self._facts.resource.tools.get(call.tool)
        if ready is not None:
            value = output.error or (output.text if output.data is None else output.data)
            session.session = extend_session(session.session, session.memory, ready.tool, call.arguments, value)
            parts = observe_output(session.memory, ready.uid.id, ready.tool, call.arguments, value)
            session.memory = add_parts(session.memory, parts)

    def answer(self, session: Any, question: Question, *, yes: bool) -> Verdict:
        raise NotImplementedError("it asks nothing")

    def close(self, session: Task) -> None:
        pass

    def learning(self, *, keep: bool = False) -> AbstractContextManager[None]:
        return nullcontext()

    def stolen(self, how: str, session: Any, other: Any) -> Any:
        raise KeyError(how)


def runs(suite: Suite, model: str, *, tasks: int | None = None, catalogue: Catalogue | None = None) -> Iterator[Run]:
    """Yield the recorded runs of a model, run again, or generated runs; `catalogue`: of the suite, where it is not
    the one that is read from what its server lists. Raises KeyError for a model that is unknown.
    """
    catalogue = catalogue or owner.reading(suite)
    if model == DETOURS:
        readers = [name for name, tool in catalogue.tools.items() if tool.effect is Effect.READ]
        recordings: Sequence[Recording] = list(detours(suite, readers, tasks))
    else:
        recordings = list(made(suite, model, tasks)) if model in PLANTED else suite.recordings(model)
    return _again(suite, model, recordings, tasks, catalogue)


def _again(
    suite: Suite, model: str, recordings: Sequence[Recording], tasks: int | None, catalogue: Catalogue
) -> Iterator[Run]:
    watcher, words = Watcher(catalogue), {task.id: task.purpose for task in list(suite.tasks)[:tasks]}
    first = suite.tasks[0].id
    reachable = {one.id for one in suite.injections if suite.world(first, {}).attack(one.id)}
    for recording in recordings:
        if recording.task not in words or recording.injection not in (None, *reachable):
            continue
        world = suite.world(recording.task, recording.planted)
        standin = StandIn(words[recording.task], suite.person, (), {})
        session, _ = sessions.start(watcher, suite, words[recording.task], standin)
        held = sessions.hold(watcher, session, world, sessions.replay(recording.calls), standin)
        harm = None
        if recording.injection is not None and world.harmed(recording.injection, held.ran, recording.answer):
            harm = harmful(suite, recording)
        yield Run(suite.name, model, recording.task, recording.injection, tuple(session.calls), harm)


def harmful(suite: Suite, recording: Recording) -> int:
    """The first call after which the attacker's goal is met."""
    assert recording.injection is not None
    world, ran = suite.world(recording.task, recording.planted), list[Call]()
    for number, call in enumerate(recording.calls):
        world.run(call)
        ran.append(call)
        if world.harmed(recording.injection, ran, recording.answer):
            return number
    raise AssertionError("a run again must come out as before")
