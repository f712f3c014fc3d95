"""The person's words in other words: sentences by templates of general English, values in other formats and places."""

from __future__ import annotations

import random
import re
from collections.abc import Collection
from datetime import date

REQUEST = (
    "Could you please {do}?",
    "I would like you to {do}.",
    "It would be great if you could {do}.",
    "I was wondering whether you could {do}.",
    "When you have a moment, {do}.",
    "Would you mind helping me: {do}.",
    "What I need is this: {do}.",
    "Someone has to {do}, and I hope that you can.",
    "Next on my list is to {do}.",
    "{do}, that is all I ask for.",
    "I never get round to it, so you should {do}.",
    "{do}, thanks!",
)
"""for a sentence that begins with what is to be done"""
_OPENING = re.compile(
    r"(?:(?:please|kindly)\s+|(?:can|could|would|will) you\s+(?:please\s+)?|i (?:want|need) you to\s+)", re.IGNORECASE
)
_SENTENCE = re.compile(r"(?<=\D[.!?])\s+(?=[A-Z])")
_CONDITION = re.compile(r"(?P<when>(?:If|When|Once|After|Before)\b[^,.]{3,120}), (?P<do>[^.]+)\.")
_DATE = re.compile(r"(?<![\w-])(\d{4})-(\d\d)-(\d\d)(?![\w-])")
_CLOCK = re.compile(r"(?<![\d:])(\d\d):(\d\d)(?![\d:])")
_AMOUNT = re.compile(r"(?<![\w.,/:-])(\d{1,6})(\.\d\d)?(?![\w,/:%-]|\.\d)")
_ACCOUNT = re.compile(r"\b[A-Z]{2}\d{2}[A-Z0-9]{10,30}\b")
_PLACE = re.compile(r"\b[A-Z]{2}\d{2}[A-Z0-9]{10,30}\b|[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
_MOVED = 0.5
"""of the values that can stand elsewhere, how many do"""
MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)


def reworded(text: str, draw: random.Random, verbs: Collection[str]) -> str:
    """Return the text with its requests in other templates; `verbs`: words with which a request may begin."""
    return " ".join(_sentence(one, draw, verbs) for one in _SENTENCE.split(text))


def _sentence(sentence: str, draw: random.Random, verbs: Collection[str]) -> str:
    if found := _CONDITION.fullmatch(sentence):
        do, when = found["do"], found["when"]
        return f"{do[0].upper()}{do[1:]} {when[0].lower()}{when[1:]}."
    rest = _OPENING.sub("", sentence, count=1) if _OPENING.match(sentence) else sentence
    first = rest.partition(" ")[0]
    if first.lower() not in verbs or rest[-1:] not in (".", "?", "!") or ":" in rest:  # behind a colon stand values
        return sentence
    do = f"{first.lower()}{rest[len(first) : -1]}"
    made = draw.choice(REQUEST).format(do=do)
    return made[0].upper() + made[1:]


def reformatted(text: str, draw: random.Random, literal: str) -> str:
    """Return the text with its dates, times, amounts and accounts in other formats, some of them at its end.

    `literal`: the texts that calls of the task carry; a number in one of them (of a house, of a file) is no amount.
    """
    text = _DATE.sub(lambda found: _other_date(date(*map(int, found.groups())), draw), text)
    text = _CLOCK.sub(lambda found: _other_clock(int(found[1]), found[2], draw), text)
    text = _AMOUNT.sub(
        lambda found: found[0] if found[0] in literal else _other_amount(found[1], found[2] or "", draw), text
    )
    moved = [value for value in dict.fromkeys(_PLACE.findall(text)) if draw.random() < _MOVED]
    for number, value in enumerate(moved, 1):
        text = text.replace(value, f"({number})")
    if moved:
        text += "\n\n" + "\n".join(f"({number}) {value}" for number, value in enumerate(moved, 1))
    return _ACCOUNT.sub(lambda found: _grouped(found[0]) if draw.random() < 0.5 else found[0], text)


def _other_date(day: date, draw: random.Random) -> str:
    month = MONTHS[day.month - 1]
    return draw.choice((f"{day.day} {month} {day.year}", f"{month} {day.day}, {day.year}", f"{day.year}/{day:%m/%d}"))


def _other_clock(hour: int, minute: str, draw: random.Random) -> str:
    half = "am" if hour < 12 else "pm"
    return draw.choice((f"{hour % 12 or 12}:{minute} {half}", f"{hour}h{minute}", f"{hour}:{minute}"))


def _other_amount(whole: str, cents: str, draw: random.Random) -> str:
    """With a separator of thousands, or with cents; years and what is as short as a count stay."""
    if len(whole) < 3 or (not cents and len(whole) == 4 and whole[:2] in ("19", "20")):
        return whole + cents
    return draw.choice((f"{int(whole):,}{cents}", f"{whole}{cents or '.00'}", f"{int(whole):,}{cents or '.00'}"))


def _grouped(account: str) -> str:
    return " ".join(account[at : at + 4] for at in range(0, len(account), 4))
