"""An approval request in plain words: the call, the agent, the origin of each value, the reasons, and the calls that an
approval covers.

A text that an agent can influence is shown as JSON on one line, with invisible characters escaped, so that no value
looks like a line of the page.
"""

from __future__ import annotations

import json
import re
from decimal import Decimal
from typing import Any

from ostiaryd.approvals.model import BLANK, PLAN, About, Line, Question, is_stated

MAX_SHOWN = 200
"""Maximum number of characters of a value that are shown; `arguments` contains the whole value."""
EFFECTS = {
    "read": "read with",
    "write": "write with",
    "send": "send something with",
    "destroy": "delete something with",
    "pay": "pay with",
    "share": "give another party access with",
    "change": "change something with",
    "administer": "administer with",
}
ORIGINS = {
    "person": "the person said it",
    "own": "from the person's own record",
    "endorsed": "from a document that the person named",
    "record": "from a record of what the person asked about",
    "known": "from another record",
    "outside": "from untrusted content",
    "nowhere": "the agent chose it",
}
DANGEROUS = "DANGER: neither the person nor a record states a value of this call. Check each value, or deny."
SOURCE = "take the value from a source that you trust, not from the agent"
HELD_BACK = "(not shown: state this value to approve)"
WHOLE_WORD = 6
"""Minimum number of letters of a stated value that is hidden even inside a longer word; a shorter value is hidden only
as a whole word.
"""
WARNINGS = {
    "mentioned": "untrusted content mentions this value, too",
    "over_plan": "the amount is larger than what the person said",
    "substituted": "the person named another value here",
    "unrequested": "the task has read something that untrusted content may have requested",
    "carries": "the text carries content that the person did not name",
    "reveals": "the text reveals what the person did not give",
}


def describe_question(question: Question, *, agent: str, owner: str | None) -> list[str]:
    """Return an approval request as lines in plain words, for the person who answers. `agent`: the name of the agent;
    `owner`: the name of its owner, None for none.
    """
    about = question.about
    lines = [f"Agent {agent!a} of {owner or 'nobody'!a} {_wants(question)}."]
    lines += [DANGEROUS] if about.is_dangerous else []
    lines += [f"To approve, state `{about.must_state}`: {SOURCE}."] if about.must_state else []
    for name, value in about.arguments.items():
        lines.append(f"{name} = {visible_json(value)}{_from(about, name)}")
    lines += [f"{name} = hidden, because it is secret" for name in about.hidden]
    lines += [f"{at}. {word_line(line)}" for at, line in enumerate(about.lines, 1)]
    lines += [f"Why: {why.message or f'policy {why.policy!a} asks'}." for why in about.reasons]
    lines += [f"Careful: {_warning(one)}." for one in about.warnings]
    others = sorted({one for values in about.foreign.values() for one in values})
    lines += [
        f"Careful: the text has {visible_json(one)}, which comes neither from the person nor from a record."
        for one in others
    ]
    return [*lines, _covers(question), *(["Two people must approve."] if question.needs == "two" else [])]


def hold_back(value: Any, stated: str | float) -> Any:
    """Return `value` with HELD_BACK in place of each occurrence of `stated`, the value that a person must state. This
    includes occurrences in names, and occurrences with other spaces, punctuation or case.

    An agent could otherwise write the value into another argument, for a person to copy.
    """
    if isinstance(value, dict):
        members = dict[str, Any]()
        for name, member in value.items():
            name = hold_back(name, stated)
            while name in members:
                name += "'"
            members[name] = hold_back(member, stated)
        return members
    if isinstance(value, list | tuple):
        return [hold_back(one, stated) for one in value]
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return value
    if is_stated(str(value), stated):
        return HELD_BACK
    if not isinstance(value, str):
        return value
    return _hold_back_text(value, stated) if isinstance(stated, str) else _hold_back_number(value, stated)


def _hold_back_text(text: str, stated: str) -> str:
    letters = [re.escape(letter) for letter in stated if letter.isalnum()]
    if not letters:
        return text
    pattern = r"[\W_]*+".join(letters)
    if len(letters) < WHOLE_WORD or stated.isdecimal():
        letter = r"\d" if stated.isdecimal() else r"[^\W_]"
        pattern = f"(?<!{letter}){pattern}(?!{letter})"
    return re.sub(pattern, HELD_BACK, text, flags=re.IGNORECASE)


def _hold_back_number(text: str, stated: float) -> str:
    """Return a text in which a number is replaced by HELD_BACK, recognised by its digits in any grouping. Digits after
    the last group count as decimal places.
    """
    whole, _, decimals = f"{abs(Decimal(str(stated))):f}".partition(".")
    pattern = r"(?<!\d)(?<!\d[.,])" + r"[.,'’\s_]*+".join(whole) + r"(?:[.,]\d++)*+(?!\d)"

    def replace(match: re.Match[str]) -> str:
        further = "".join(filter(str.isdecimal, match[0]))[len(whole) :]
        return HELD_BACK if further.rstrip("0") == decimals.rstrip("0") else match[0]

    return re.sub(pattern, replace, text)


def visible_json(value: Any) -> str:
    """Return a value as JSON on one line, with invisible characters escaped, so that it cannot look like another line
    of the page.
    """
    text = json.dumps(value, ensure_ascii=False)
    text = "".join(c if c.isprintable() and c not in BLANK else ascii(c)[1:-1] for c in text)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}.. ({len(text)} characters)"


def word_line(line: Line) -> str:
    """Return a line of a plan as text."""
    arguments = [f"{name} = {visible_json(value)}" for name, value in line.arguments.items()]
    arguments += [f"{name} up to {amount}" for name, amount in line.extent.amounts.items()]
    times = "once" if line.times == 1 else f"{line.times} times"
    return f"{EFFECTS.get(line.effect, 'use')} {line.resource}/{line.tool}: {', '.join(arguments)} (approved {times})"


def _wants(question: Question) -> str:
    if question.kind == PLAN:
        return "will probably do the following in the task that begins now"
    return f"wants to {EFFECTS.get(question.about.effect, 'use')} {question.tool}"


def _from(about: About, name: str) -> str:
    origins = {about.origins[path] for path in about.origins if path == name or path.startswith(f"{name}.")}
    if name in about.outgoing:
        return " (goes out as text)"
    return f" ({'; '.join(ORIGINS.get(one, one) for one in sorted(origins))})" if origins else ""


def _warning(text: str) -> str:
    name, _, of = text.partition(":")
    return WARNINGS.get(name, name) + (f" ({of})" if of else "")


def _covers(question: Question) -> str:
    about = question.about
    if question.kind == PLAN:
        return (
            "An approval covers each line that you do not strike, until the task ends: at most "
            f"{about.uses} calls of each line, but only one call of a line that pays, destroys or administers."
        )
    if about.extent is None:
        return "An approval covers this one call."
    free = "text, times and amounts" if about.varies_times else "text and amounts"
    more = f"calls of {question.tool} that differ only in {free}, until the task ends: at most {about.uses}"
    more += "".join(f", `{name}` up to {amount}" for name, amount in about.extent.amounts.items())
    if about.covers_task:
        return f"An approval covers this call and further {more}. Choose `call` to cover this call alone."
    return f"An approval covers this one call. Choose `task` to cover further {more}."
