"""`--questions`: the rules that ask in honest sessions, and the attacks that each of these rules stops alone.

A rule stops an attack *alone* if the attack succeeds without the rule and fails with it. The person who is asked is the
stand-in of all columns, so an attack that another rule asks about fails all the same. The second table has the honest
questions by structure: the rules, the effect, and the kind and origin of each value.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from benchmarks.contain import owner
from benchmarks.contain.attacks import ALL
from benchmarks.contain.columns import Plan, Row
from benchmarks.contain.inprocess import InProcess
from ostiary.authorization.catalogue import Catalogue
from ostiary.authorization.cedar.ir import PolicySetIR

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

    def add(self, plan: Plan, catalogue: Catalogue, policies: PolicySetIR) -> None:
        """Count the sessions of a plan, once with all rules and once without each rule that asks."""
        known = owner.confirmed(plan.suite)
        honest, attacks = held(plan, InProcess(catalogue, policies), known)
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
        lines += ["", f"{'honest':>6} {'attacks':>8}  rules, effect, kinds and origins"]
        lines += [f"{count:>6} {self.attacked[what]:>8}  {what}" for what, count in self.classes.most_common(most)]
        return "\n".join(lines)


def held(plan: Plan, product: InProcess, known: Catalogue) -> tuple[list[Row], list[Row]]:
    """Hold the sessions of R1, and those of R2 and R3; `known`: the catalogue as the owner of the tools knows it."""
    attacks = [*plan.attacked(product)]
    for variant in ALL:
        attacks += plan.adaptive(product, variant, known)
    return [*plan.honest(product)], attacks


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
