"""Exceptions in policies for calls that people always approved: the policies then stop asking people about these calls.

A policy that asks people is a Cedar `forbid`, so an additional `permit` would change nothing. Instead, each policy that
asked gets an `unless` clause for exactly the agent, the tool and the counterpart. A safeguard of the server cannot be
edited: the set leaves the safeguard out and contains a copy with the clause.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

FILE, LEFT_OUT = "agreed.cedar", "agreed.safeguards.toml"
_ID = re.compile(r'@id\s*\(\s*("(?:[^"\\]|\\.)*")\s*\)')
_PIECE = re.compile(r'//[^\n]*|"(?:[^"\\]|\\.)*"|;', re.DOTALL)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_RESERVED = frozenset({"true", "false", "if", "then", "else", "in", "is", "like", "has", "__cedar"})


@dataclass(frozen=True, slots=True)
class Exempted:
    """The exceptions for proposals. `files`: new and changed files of the policy set, by name. `left_out`: proposals
    for which no exception is possible, each with the reason.
    """

    files: dict[str, str]
    left_out: list[tuple[Mapping[str, Any], str]]


def exempt(proposals: Sequence[Mapping[str, Any]], files: Mapping[str, str], safeguards: Mapping[str, str]) -> Exempted:
    """Return the new and changed files of the policy set `files`, with an exception for each proposal of calls that
    need no further question. `safeguards`: texts of the server's safeguards by id.
    """
    changed, copies, left_out = dict(files), dict[str, str](), list[tuple[Mapping[str, Any], str]]()
    for proposal in proposals:
        condition = _condition(proposal)
        unknown = [id for id in proposal["policies"] if id not in safeguards and _file_of(changed, id) is None]
        if unknown or condition is None or not proposal["is_closed"]:
            why = f"no file has the policy {unknown[0]!a}" if unknown else "Cedar cannot compare a value of the call"
            open_why = "the schema of the tool permits unlisted arguments; state `additionalProperties: false`"
            left_out.append((proposal, why if unknown or condition is None else open_why))
            continue
        for id in proposal["policies"]:
            if id in safeguards:
                copies[id] = _with_exception(copies.get(id, safeguards[id]), id, condition)
            else:
                name = _file_of(changed, id)
                assert name is not None
                changed[name] = _with_exception(changed[name], id, condition)
    if copies:
        changed[FILE] = changed.get(FILE, "") + "".join(_renamed(text, id) for id, text in sorted(copies.items()))
        lines = [f'{json.dumps(id)} = "replaced by {id}-agreed, with fewer questions"\n' for id in sorted(copies)]
        changed[LEFT_OUT] = changed.get(LEFT_OUT, "[leave_out]\n") + "".join(lines)
    return Exempted({name: text for name, text in changed.items() if files.get(name) != text}, left_out)


def _condition(proposal: Mapping[str, Any]) -> str | None:
    """Return the `unless` clause in Cedar with the approvals in a comment; None if Cedar cannot compare a value."""
    parts = [
        f"principal == Agent::{json.dumps(proposal['agent_id'])}",
        f"resource == Tool::{json.dumps(proposal['tool'])}",
    ]
    for name, value in proposal["named"].items():
        literal = _literal(value)
        if literal is None or (place := _place(name)) is None:
            return None
        parts += [f"context.arguments has {place[0]}", f"context.arguments{place[1]} == {literal}"]
    for name, amount in proposal["amounts"].items():
        kind = proposal["types"][name]
        if (place := _place(name)) is None or kind not in ("integer", "number"):
            return None
        argument = f"context.arguments{place[1]}"
        if kind == "integer" and "." not in amount:
            compared = [f"{argument} >= 0", f"{argument} <= {amount}"]
        elif kind == "number":
            most = amount if "." in amount else f"{amount}.0"
            compared = [
                f'{argument}.greaterThanOrEqual(decimal("0.0"))',
                f'{argument}.lessThanOrEqual(decimal("{most}"))',
            ]
        else:
            return None
        parts += [f"context.arguments has {place[0]}", *compared]
    for name in proposal["others"]:
        if (place := _place(name)) is None:
            return None
        parts.append(f"!(context.arguments has {place[0]})")
    basis = ", ".join(proposal["approvals"][:20])
    return f"unless {{\n  // {proposal['occasions']} occasions: {basis}\n  " + " &&\n  ".join(parts) + "\n}"


def _place(name: str) -> tuple[str, str] | None:
    """Return the two forms of an argument's name in Cedar: after `has`, and after `context.arguments`; None for
    a name that Cedar cannot express.
    """
    if _NAME.fullmatch(name) and name not in _RESERVED:
        return name, f".{name}"
    if not (name.isascii() and name.isprintable()):
        return None
    return json.dumps(name), f"[{json.dumps(name)}]"


def _literal(value: object) -> str | None:
    """Return a value as a Cedar literal; None for a value that Cedar cannot compare exactly."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and abs(value) < 1 << 62:
        return str(value)
    if isinstance(value, str) and value.isprintable():
        return json.dumps(value, ensure_ascii=False)
    return None


def _with_exception(text: str, id: str, condition: str) -> str:
    for start, end in _statements(text):
        if _says_id(text[start:end], id):
            return f"{text[: end - 1].rstrip()} {condition};{text[end:]}"
    return text


def _file_of(files: Mapping[str, str], id: str) -> str | None:
    for name, text in files.items():
        if name.endswith(".cedar") and any(_says_id(text[start:end], id) for start, end in _statements(text)):
            return name
    return None


def _renamed(text: str, id: str) -> str:
    return _ID.sub(lambda _: f"@id({json.dumps(id + '-agreed')})", text, count=1)


def _says_id(statement: str, id: str) -> bool:
    bare = re.sub(r'//[^\n]*|("(?:[^"\\]|\\.)*")', lambda match: match[1] or "", statement)
    return any(json.loads(match[1]) == id for match in _ID.finditer(bare))


def _statements(text: str) -> Iterator[tuple[int, int]]:
    """Yield the start and the end of each policy in a text; the end is behind the semicolon."""
    start = 0
    for piece in _PIECE.finditer(text):
        if piece[0] == ";":
            yield start, piece.end()
            start = piece.end()
