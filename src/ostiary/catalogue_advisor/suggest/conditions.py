"""The narrowest condition (`ostiary.authorization.bounds`) that all recorded values of an argument fulfil.

| seen | condition |
| --- | --- |
| one value | `eq` |
| numbers | `min` and `max` |
| paths or URLs below one folder | `prefix`, or from three on with one ending `glob` |
| up to 8 texts | `one_of` |
| more texts, or long ones | `max_length` |
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from ostiary.authorization.bounds import Condition, InvalidDetails
from ostiary.authorization.bounds.conditions import MAX_GLOB, MAX_TEXT

MAX_ONE_OF = 8
MIN_GLOB = 3
MAX_ENDING = 8


def infer(values: Sequence[object]) -> tuple[Condition | None, str]:
    """Return the narrowest condition that all values fulfil, and the reason in words; None instead of a
    condition if there is no useful one. `values` have the form that `ostiary.guard.argument_summary` records.
    """
    kinds = {_kind(value) for value in values}
    if len(kinds) != 1:
        return None, f"is of several kinds: {', '.join(sorted(kinds))}"
    match kinds.pop():
        case "boolean":
            flags = {value for value in values if isinstance(value, bool)}
            return (Condition(eq=flags.pop()), "is always the same") if len(flags) == 1 else (None, "is any flag")
        case "number":
            return _number(values)
        case "string":
            return _text(values)
        case kind:
            return None, f"is of the kind {kind}, for which there is no condition"


def _kind(value: object) -> str:
    match value:
        case bool():
            return "boolean"
        case int() | float():
            return "number"
        case str():
            return "string"
        case {"type": "string", "length": int()}:
            return "string"
        case {"type": str() as kind}:
            return "number out of range" if kind == "number" else kind
        case _:
            return "null"


def _number(values: Sequence[Any]) -> tuple[Condition | None, str]:
    low, high = min(values), max(values)
    if low == high and float(low).is_integer():
        return Condition(eq=int(low)), f"is always {int(low)}"
    try:
        return Condition(min=_spell(low), max=_spell(high)), f"is from {low} to {high}"
    except InvalidDetails:
        return None, f"is from {low} to {high}, with more digits than a condition may have"


def _spell(number: int | float) -> int | str:
    return int(number) if float(number).is_integer() else format(Decimal(repr(number)), "f")


def _text(values: Sequence[Any]) -> tuple[Condition | None, str]:
    longest = max(len(value) if isinstance(value, str) else value["length"] for value in values)
    if not all(isinstance(value, str) for value in values):
        return Condition(
            max_length=longest
        ), f"is a text of at most {longest} characters, not recorded where long or secret"
    texts = sorted(set(values))
    if len(texts) == 1:
        return Condition(eq=texts[0]), f"is always {texts[0]!a}"
    if all("/" in text for text in texts) and (place := _place(texts)) is not None:
        return place
    if len(texts) <= MAX_ONE_OF:
        return Condition(one_of=tuple(texts)), f"is one of {len(texts)} texts"
    return Condition(max_length=longest), f"is one of {len(texts)} texts of at most {longest} characters"


def _place(texts: Sequence[str]) -> tuple[Condition, str] | None:
    """Return a `prefix` or `glob` for the folder that contains all paths; None if they share no folder below
    the root.
    """
    first, last = texts[0], texts[-1]
    same = next((n for n, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    folder = first[: first.rfind("/", 0, same) + 1]
    if not folder.strip("/") or folder.endswith("://"):
        return None
    endings = {text[text.rfind(".") :] if "." in text[len(folder) :] else "" for text in texts}
    ending = endings.pop() if len(endings) == 1 else ""
    is_one_kind = len(texts) >= MIN_GLOB and 1 < len(ending) <= MAX_ENDING and "/" not in ending
    try:
        if is_one_kind and not {"*", "?"} & set(folder + ending) and len(folder) + len(ending) < MAX_GLOB:
            condition = Condition(glob=f"{folder}*{ending}")
        else:
            condition = Condition(prefix=folder[:MAX_TEXT])
    except InvalidDetails:  # the prefix would end within the host of a URL
        return None
    if not all(condition.holds(text) for text in texts):
        return None
    that_end = f" that end in {ending!a}" if condition.glob else ""
    return condition, f"is one of {len(texts)} places below {folder!a}{that_end}"
