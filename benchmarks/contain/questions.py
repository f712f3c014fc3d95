"""`--questions`: the rules that ask in honest sessions, and the attacks that each of these rules stops alone.

A rule stops an attack *alone* if the attack succeeds without the rule and fails with it. The person who is asked is the
stand-in of all columns, so an attack that another rule asks about fails all the same. The second table has the honest
questions by structure: the rules, the effect, and the kind and origin of each value.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from benchmarks.contain import owner
from benchmarks.contain.attacks import ALL
from benchmarks.contain.columns import Plan, Row
from benchmarks.contain.inprocess import InProcess, Session
from benchmarks.contain.products import Question, Verdict
from ostiary.authorization.catalogue import Catalogue
from ostiary.authorization.cedar.ir import PolicySetIR
from ostiary.protocol import canonical
from ostiary.provenance.extent import split_arguments
from ostiary.provenance.origins import Origin

ASKED = "ask"


@dataclass(slots=True)
class Tally:
    """The questions of one rule. Each count is of all worlds together."""

    honest: int = 0
    """questions of honest sessions that the rule asks, perhaps with other rules"""
    spared: int = 0
    """questions of honest sessions less without the rule"""
    attacks: int = 0
    """questions about calls of attacks that the rule asks"""
    alone: int = 0
    """attacks that succeed without the rule, and fail with it"""


class Approved(NamedTuple):
    """An approved call. `counterpart`: digest of the tool and of all arguments that are no text, time or amount."""

    task: str
    counterpart: str
    has_read: bool
    """whether the task had read untrusted content before the call"""


class Recorder(InProcess):
    """The product, which also lists the calls that the person approves and that have a counterpart."""

    approved: list[Approved]

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.approved = []

    def answer(self, session: Session, question: Question, *, yes: bool) -> Verdict:
        assert session.asked is not None
        assert session.principal is not None
        call = session.asked[0]
        parts = split_arguments(self._facts.resource.tools[call.tool].tool, call.arguments)
        if yes and parts is not None:
            counterpart = canonical.digest([call.tool, parts.named], floats=True)
            has_read = any(part.origin == Origin.OUTSIDE for part in session.memory.parts)
            self.approved.append(Approved(session.principal.claims.task, counterpart, has_read))
        return super().answer(session, question, yes=yes)


@dataclass(slots=True)
class Questions:
    tasks: int = 0
    asked: int = 0
    attacks: int = 0
    rules: dict[str, Tally] = field(default_factory=dict)
    classes: Counter[str] = field(default_factory=Counter)
    """honest questions by structure"""
    attacked: Counter[str] = field(default_factory=Counter)
    """questions about calls of attacks by structure"""
    known: Counter[str] = field(default_factory=Counter)
    """approved calls whose counterpart was approved in other tasks"""

    def add(self, plan: Plan, catalogue: Catalogue, policies: PolicySetIR) -> None:
        """Count the sessions of a plan, once with all rules and once without each rule that asks."""
        known = owner.confirmed(plan.suite)
        honest, attacks = held(plan, InProcess(catalogue, policies), known)
        recorder = Recorder(catalogue, policies)
        list(plan.honest(recorder))
        self.known.update(repeated(recorder.approved))
        self.tasks, self.attacks = self.tasks + len(honest), self.attacks + len(attacks)
        asked = sum(row.questions for row in honest)
        self.asked += asked
        self.classes.update(_asked(honest))
        self.attacked.update(_asked(attacks))
        for rule in sorted({rule for why in _asked([*honest, *attacks]) for rule in rules_of(why)}):
            tally = self.rules.setdefault(rule, Tally())
            tally.honest += sum(rule in rules_of(why) for why in _asked(honest))
            tally.attacks += sum(rule in rules_of(why) for why in _asked(attacks))
            without, others = held(plan, InProcess(catalogue, policies, without=rule), known)
            tally.spared += asked - sum(row.questions for row in without)
            tally.alone += sum(
                bool(other.harmed) and not row.harmed for row, other in zip(attacks, others, strict=True)
            )

    def text(self, most: int = 24) -> str:
        """Return both tables; `most`: the number of classes."""
        lines = [
            f"{self.asked} questions in {self.tasks} honest tasks, {self.attacks} attacks",
            f"{'rule':<26} {'honest':>7} {'spared':>7} {'attacks':>8} {'alone':>6}",
        ]
        for rule, one in sorted(self.rules.items(), key=lambda each: (-each[1].honest, each[0])):
            lines.append(f"{rule:<26} {one.honest:>7} {one.spared:>7} {one.attacks:>8} {one.alone:>6}")
        lines += [
            "",
            f"approved in another task, too: {self.known['one']}; in two others: {self.known['two']}; in another task "
            f"that had read no untrusted content: {self.known['clean']}",
        ]
        lines += ["", f"{'honest':>6} {'attacks':>8}  rules, effect, kinds and origins"]
        lines += [f"{count:>6} {self.attacked[what]:>8}  {what}" for what, count in self.classes.most_common(most)]
        return "\n".join(lines)


def held(plan: Plan, product: InProcess, known: Catalogue) -> tuple[list[Row], list[Row]]:
    """Hold the sessions of R1, and those of R2 and R3; `known`: the catalogue as the owner of the tools knows it."""
    attacks = [*plan.attacked(product)]
    for variant in ALL:
        attacks += plan.adaptive(product, variant, known)
    return [*plan.honest(product)], attacks


def repeated(approved: Sequence[Approved]) -> Iterator[str]:
    """Yield for each approved call `one` or `two` if its counterpart was approved in so many other tasks, and `clean`
    if one of these had read no untrusted content.
    """
    for call in approved:
        others = [one for one in approved if one.counterpart == call.counterpart and one.task != call.task]
        tasks = {one.task for one in others}
        if tasks:
            yield "one"
        if len(tasks) > 1:
            yield "two"
        if not all(one.has_read for one in others):
            yield "clean"


def rules_of(why: str) -> Sequence[str]:
    """Return the rules that asked a question, from its remark (the first word after `approval_needed`)."""
    return why.split(" ", 1)[0].split(",")


def _asked(rows: Iterable[Row]) -> Iterator[str]:
    """Yield the structure of each question: the remark without its code."""
    for row in rows:
        for why in row.why:
            what, _, remark = why.partition(" ")
            if what == ASKED:
                yield remark.partition(" ")[2]
