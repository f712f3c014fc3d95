"""The plan of a switch from one policy set to another: added, changed and removed policies, and removed safeguards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple, TypeAlias

import msgspec

from ostiary.authorization.cedar import ir
from ostiaryd.policy.model.files import POLICIES
from ostiaryd.policy.model.safeguards import LAYER, ROLES_LAYER, is_safeguard, layer, safeguard_rules

Mode: TypeAlias = Literal["enforce", "watch"]


class Contents(NamedTuple):
    """The content of a set. `elsewhere`: the policies that are not Cedar, each with true if it only watches."""

    hash: str
    files: Mapping[str, str]
    rules: ir.PolicySetIR
    elsewhere: Mapping[str, bool]


class Item(msgspec.Struct, frozen=True):
    """A policy. `effect` is `other` for a policy that is not Cedar."""

    id: str
    effect: Literal["permit", "forbid", "other"]
    mode: Mode
    safeguard: bool = False
    """true for a safeguard of the server"""


class Changed(msgspec.Struct, frozen=True):
    id: str
    before: Item
    after: Item


class Plan(msgspec.Struct, frozen=True):
    """The changes by a switch of sets. `files` are the files other than Cedar policies, compared by name, each
    with its change.
    """

    against: str
    """the hash of the set that is active at the time of the plan"""
    added: list[Item]
    changed: list[Changed]
    removed: list[Item]
    files: dict[str, Literal["added", "changed", "removed"]]
    loses: list[str]
    """safeguards of the server that apply now and would no longer apply"""
    left_out: list[str]
    """safeguards of the server that would not apply"""


def plan_switch(before: Contents, after: Contents) -> Plan:
    """Compare two sets by the ids of their policies."""
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
    """Return the safeguards that apply under the set: the safeguards that it extends, and its own exact copies."""
    copies = {policy.id for policy in contents.rules.policies if is_safeguard(policy)}
    return copies | set(layer(contents.files))


def _compare_files(
    before: Mapping[str, str], after: Mapping[str, str]
) -> dict[str, Literal["added", "changed", "removed"]]:
    changes: dict[str, Literal["added", "changed", "removed"]] = {}
    for name in sorted({*before, *after}):
        if name.endswith(POLICIES) or name.startswith((LAYER, ROLES_LAYER)) or before.get(name) == after.get(name):
            continue
        changes[name] = "added" if name not in before else "removed" if name not in after else "changed"
    return changes
