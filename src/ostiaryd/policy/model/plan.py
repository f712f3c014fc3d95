"""The plan of a switch from the active policy set to another: the policies that are added, changed and removed, and the
safeguards that are lost.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple, TypeAlias

import msgspec

from ostiary.authorization.cedar import ir
from ostiaryd.policy.model.files import POLICIES
from ostiaryd.policy.model.safeguards import LAYER, ROLES_LAYER, is_safeguard, safeguard_rules, safeguards_in

Mode: TypeAlias = Literal["enforce", "watch"]


class Contents(NamedTuple):
    """The content of a policy set. `elsewhere`: the policies in Rego or OPA by name, each with true if it is in watch
    mode (recorded, not enforced).
    """

    hash: str
    files: Mapping[str, str]
    rules: ir.PolicySetIR
    elsewhere: Mapping[str, bool]


class Item(msgspec.Struct, frozen=True):
    """A policy of a set, before or after a switch of sets. `effect`: `other` for a policy in Rego or OPA."""

    id: str
    effect: Literal["permit", "forbid", "other"]
    mode: Mode
    safeguard: bool = False
    """true if the policy is a safeguard of the server"""


class Changed(msgspec.Struct, frozen=True):
    id: str
    before: Item
    after: Item


class Plan(msgspec.Struct, frozen=True):
    """The changes that the activation of another policy set makes. `files`: by name, the files that differ, except
    files of Cedar policies; Cedar policies are listed one by one.
    """

    against: str
    """hash of the set that was active when the plan was made"""
    added: list[Item]
    changed: list[Changed]
    removed: list[Item]
    files: dict[str, Literal["added", "changed", "removed"]]
    loses: list[str]
    """ids of the safeguards of the server that apply now and would not apply after the switch"""
    left_out: list[str]
    """ids of all safeguards of the server that would not apply after the switch"""


def plan_switch(before: Contents, after: Contents) -> Plan:
    """Return the changes from the set `before` to the set `after`. Policies with the same id are compared."""
    old, new = _items(before), _items(after)
    old_rules, new_rules = _by_id(before.rules), _by_id(after.rules)
    applied, kept = _safeguards_of(before), _safeguards_of(after)
    return Plan(
        against=before.hash,
        added=[item for id, item in new.items() if id not in old],
        changed=[
            Changed(id, old[id], item)
            for id, item in new.items()
            if id in old
            and ((old_rules.get(id) != new_rules.get(id)) or (old[id].effect, old[id].mode) != (item.effect, item.mode))
        ],
        removed=[item for id, item in old.items() if id not in new],
        files=_compare_files(before.files, after.files),
        loses=sorted(applied - kept),
        left_out=sorted(set(safeguard_rules()) - kept),
    )


def _items(contents: Contents) -> dict[str, Item]:
    ours = _safeguards_of(contents)
    cedar = [
        Item(id, rule.effect, "watch" if "mode" in rule.annotations else "enforce", id in ours)
        for id, rule in _by_id(contents.rules).items()
    ]
    other = [Item(id, "other", "watch" if watches else "enforce") for id, watches in contents.elsewhere.items()]
    return {item.id: item for item in sorted(cedar + other, key=lambda item: item.id)}


def _by_id(rules: ir.PolicySetIR) -> dict[str, ir.PolicyIR]:
    return {policy.id: policy for policy in rules.policies}


def _safeguards_of(contents: Contents) -> set[str]:
    """Return the ids of the safeguards that apply under a set: those of the server that are part of the set, and exact
    copies among its own policies.
    """
    copies = {policy.id for policy in contents.rules.policies if is_safeguard(policy)}
    return copies | set(safeguards_in(contents.files))


def _compare_files(
    before: Mapping[str, str], after: Mapping[str, str]
) -> dict[str, Literal["added", "changed", "removed"]]:
    changes: dict[str, Literal["added", "changed", "removed"]] = {}
    for name in sorted({*before, *after}):
        if name.endswith(POLICIES) or name.startswith((LAYER, ROLES_LAYER)) or before.get(name) == after.get(name):
            continue
        changes[name] = "added" if name not in before else "removed" if name not in after else "changed"
    return changes
