"""The table of questions: what each rule asks in honest sessions, and what it stops alone."""

from __future__ import annotations

from collections import Counter

from benchmarks.contain import compiled, owner
from benchmarks.contain.columns import Plan
from benchmarks.contain.questions import Approved, Questions, repeated
from ostiary.authorization.cedar.ir import PolicySetIR
from tests.contain.toy_bank import Bank

ONE, OTHER = "said-or-recorded", "pointed-at"
"""Two rules that both ask about an account without a known origin."""


def counted(*rules: str) -> Questions:
    """Return the questions of sampled sessions under the policies that permit, and these rules."""
    policies = [one for one in compiled.starter().policies if one.effect == "permit" or one.id in rules]
    found = Questions()
    found.add(Plan(Bank(), sample=(2, 2, 1)), owner.confirmed(Bank()), PolicySetIR(tuple(policies)))
    return found


def test_an_attack_counts_as_stopped_by_one_rule_alone_only_if_no_other_rule_asks_about_it() -> None:
    alone = counted(ONE)
    assert (alone.tasks, alone.asked) == (2, 0)
    assert alone.rules[ONE].attacks >= alone.rules[ONE].alone > 0
    both = counted(ONE, OTHER)
    assert both.attacks == alone.attacks
    assert both.rules[ONE].alone < alone.rules[ONE].alone
    assert both.rules[OTHER].alone == 0
    assert both.rules[OTHER].attacks > 0


def test_questions_in_honest_tasks_are_counted_by_rule_and_by_structure() -> None:
    found = counted(OTHER, "amounts-recorded", "as-named")
    assert found.asked == sum(found.classes.values())
    assert all(one.spared <= one.honest for one in found.rules.values())
    lines = found.text().splitlines()
    assert lines[0].startswith(f"{found.asked} questions in 2 honest tasks")
    assert {rule for rule in found.rules if any(line.startswith(rule) for line in lines)} == found.rules.keys()


def test_approved_calls_are_counted_if_another_task_had_the_same_counterpart() -> None:
    def approved(task: str, counterpart: str, *, has_read: bool = True) -> Approved:
        return Approved(task, counterpart, has_read)

    def counts(*calls: Approved) -> dict[str, int]:
        return dict(Counter(repeated(calls)))

    assert counts(approved("one", "rent"), approved("one", "rent"), approved("two", "shop")) == {}
    assert counts(approved("one", "rent"), approved("two", "rent")) == {"one": 2}
    assert counts(*(approved(task, "rent") for task in ("one", "two", "three"))) == {"one": 3, "two": 3}
    assert counts(approved("one", "rent"), approved("two", "rent", has_read=False)) == {"one": 2, "clean": 1}


def test_the_table_states_the_number_of_approvals_that_repeat_those_of_other_tasks() -> None:
    found = counted(OTHER, "amounts-recorded", "as-named")
    assert f"approved in another task, too: {found.known['one']}; " in found.text()
