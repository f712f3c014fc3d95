"""The rules that can be left out to measure the effect of each: policies of the active set, and the data on which the
policies depend.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from ostiary.authorization.cedar.ir import PolicySetIR

INTENT = "what the person asked"
ENDORSED = "endorsed documents"
ASKING = "asking"
PARTS = (INTENT, ENDORSED, ASKING)
"""the data on which policies depend. Without the intent no origins are known, without endorsed documents no document is
trusted, and without questions each question is a denial
"""
COPIES = "safeguards/"
"""Folder of the copies of safeguards among the files of a set."""
_STATEMENT = re.compile(r"^(?:@.*\n)*(permit|forbid)\b[^;]*;\n?", re.MULTILINE)
_ID = re.compile(r'@id\("([^"]+)"\)')


def forbidding(files: Mapping[str, str]) -> list[str]:
    """Return the names of the policies of a set that forbid."""
    return [
        name[1]
        for text in _cedar(files)
        for found in _STATEMENT.finditer(text)
        if found[1] == "forbid" and (name := _ID.search(found[0]))
    ]


def ablated(policies: PolicySetIR) -> list[str]:
    """Return the rules that can be left out of a set: the data for policies, and each policy that forbids."""
    return [*PARTS, *(policy.id for policy in policies.policies if policy.effect == "forbid")]


def without(files: Mapping[str, str], policy: str) -> dict[str, str]:
    """Return the set without that policy and without the tests that name the policy. A safeguard is left out by its
    name.
    """

    def kept(found: re.Match[str]) -> str:
        return "" if (name := _ID.search(found[0])) and name[1] == policy else found[0]

    left = {
        name: _STATEMENT.sub(kept, text) if name.endswith(".cedar") else text
        for name, text in files.items()
        if not name.endswith(".test.toml")
    }
    if f"{COPIES}{policy}.cedar" in files:
        left["without.safeguards.toml"] = f'[leave_out]\n{policy} = "to see what it is worth"\n'
    return left


def _cedar(files: Mapping[str, str]) -> list[str]:
    return [text for name, text in sorted(files.items()) if name.endswith(".cedar")]
