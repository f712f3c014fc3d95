"""The words of a text: the units that are compared as a whole, each in a normal form.

A word is a link, a mail address, a number or an account number with its grouping, or a run of other characters between
white space, quotes, brackets, commas and similar signs: `12` is no word of `512`, nor `bob` of `bob@example.com`. Case
and Unicode's canonical forms make no difference (UAX 15). Letters that only look alike are different letters, and an
invisible character makes a different word.

A source is read leniently (`*bob*.` has the word `bob`). An argument is read exactly, because the tool receives the
exact value.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from itertools import combinations, islice

from ostiary.provenance.origins.links import MAIL, link, mail

_CLOSED = r"\s\"'`´‘’‚“”„«»<>()\[\]{},;|=!?…¡¿。，、；：！？（）「」"
_BETWEEN = re.compile(f"[{_CLOSED}]+")
_CLOSED_ASCII = {code: " " for code in range(128) if _BETWEEN.match(chr(code))}
_ALNUM = re.compile(r"[^\W_]")
_ALNUMS = re.compile(r"[^\W_]+")
_LINK = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s\"'`<>|{}\\^“”„«»]+")
_SIGILS = "#№@$€£¥₹"
_MARKS = "*_~"
_BARE = "-–—&/+·•:."
"""characters that have no meaning as a separate word"""
_SPACE = "    "
_GROUPED = re.compile(
    rf"""(?<![\w.,/-])(?:
      (?P<iban>[A-Z]{{2}}\d{{2}}(?:[{_SPACE}-]?[A-Z0-9]{{4}}){{2,7}}(?:[{_SPACE}-]?[A-Z0-9]{{1,4}})?)
    | \d{{4}}(?:[{_SPACE}-]\d{{4}}){{2,}}(?:[{_SPACE}-]\d{{1,4}})?             # cards
    | \(?\d{{3}}\)?[{_SPACE}-]\d{{3}}[{_SPACE}-]\d{{4}}                        # telephone numbers
    | \+\d{{1,3}}[{_SPACE}(.-][\d{_SPACE}().-]{{5,20}}\d
    | \d{{1,3}}(?:[{_SPACE}]\d{{3}})+(?:[.,]\d{{1,2}})?                        # amounts
    )(?![\w]|[{_SPACE}.,-]\d)""",
    re.VERBOSE,
)
_MAYBE_GROUPED = re.compile(rf"[\d)][{_SPACE}-](?=[(A-Z\d])|\+\d|\)\d")
_PLAIN_MAIL = re.compile(
    r"[A-Za-z0-9][A-Za-z0-9_+-]*(?:\.[A-Za-z0-9_+-]+)*@(?:[A-Za-z0-9][A-Za-z0-9-]*\.)+[A-Za-z]{2,}"
)
_ALONE = re.compile(r"[A-Za-z]+(?:[._-][A-Za-z]+)*(?:_\d+)?|\w+(?:\.\w+)*@(?:[A-Za-z0-9]+\.)+[A-Za-z]{2,}", re.ASCII)
"""a name such as `www.shop-two.example` or `room_7`, or a common mail address; without a hyphen after a digit, so that
no part of the text is grouped
"""
_UNJOINED = re.compile(r"\s*(?:[(\"']*+[A-Za-z0-9]++[.,;:!?)\"']*+(?:\s++|\Z))*+", re.ASCII)
"""words of letters and digits, with nothing around them that is a part of a word"""
_DECIMAL = re.compile(r"\d{1,12}\.\d{1,12}", re.ASCII)
"""a decimal number, which counts as a single word"""
_NORMAL = re.compile(r"[1-9][0-9]*(?:\.[0-9]*[1-9])?")
"""a number in the form in which `decimal` returns it"""
_NUMBER = re.compile(r"[+-]?\d[\d.,’']*\d%?|[+-]?\d%")
_PRICE = re.compile(r"([^\W\d_]{1,3}[$€£¥]|[^\W\d_]{2,3})?(\d[\d.,’']*[.,]\d\d)([^\W\d_]{2,3})?")
"""a number with two decimal places and the name of a currency without a space between (`EUR412.60`, `1.200,50TL`)"""
_FORMS = (
    (re.compile(r"\d+(?:\.\d+)?"), ""),
    (re.compile(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?"), ","),
    (re.compile(r"\d{1,3}(?:['’]\d{3})+(?:\.\d+)?"), "'’"),
    (re.compile(r"\d{1,3}(?:\.\d{3})+,\d+|\d{1,3}(?:\.\d{3}){2,}"), "."),
    (re.compile(r"\d+,(?:\d{1,2}|\d{4,})"), ""),
)
"""forms of numbers, each with the characters that group its digits; `1.200` is 1.2"""
_DOMAIN = re.compile(r"((?:www\.)?[^\W_][\w-]*(?:\.[\w-]+)*\.[^\W\d_]{2,})(/.*)", re.DOTALL)
UNSPACED = re.compile(r"[぀-ヿ㐀-䶿一-鿿豈-﫿]")
"""a character of a script without spaces between words"""
_PARTS = re.compile(f"{UNSPACED.pattern}|[^{UNSPACED.pattern[1:-1]}]+")
_CASELESS = "\u0590-\u1c7f"
"""letters of scripts without capital letters, such as Hebrew, Arabic, Hindi and Thai"""
_BESIDE_LETTERS = re.compile(rf"(?<=[{_CASELESS}])[:#№-]*(?=[0-9])|(?<=[0-9])[:-]*(?=[{_CASELESS}])")
"""the place between a number and such a letter, and signs there"""
_NUMBERED = re.compile(r"((?:n|no|nr|nro|num|núm)[.°º]+)([0-9]{1,12})[.:]*", re.IGNORECASE)
"""a number after an abbreviation of the word `number` (`No.12`, `n°12`)"""
_IN_WORD = re.compile(r"(?<!\S)(?![1-9][0-9]*(?!\S))(?:[^\W\d]*[^\w\s]{0,2}0*(\d{1,6})|(\d{1,6})-?[^\W\d_]{1,3})(?!\S)")
"""a word with one short number: `item-9`, `UA731`, `0013`, `31st`"""
_HOST = re.compile(r"(?:[a-z0-9][a-z0-9-]{0,62}\.)+[a-z]{2,63}")
_LOCAL = re.compile(r"[a-z0-9][a-z0-9._+-]{1,62}")
MAX_NUMBER, MAX_SHORT = 40, 6
MAX_IN_WORDS = 128
"""maximum number of stored numbers inside the words of one text"""
MAX_WORD = 256
"""maximum length in characters of an identifier that is split into parts"""


PARTICLES = frozenset(
    re.findall(
        r"\w+",
        "a|an|and|are|as|at|be|been|but|by|can|could|did|do|does|for|from|had|has|have|he|her|his|how|i|if|in|"
        "into|is|it|its|might|must|my|no|not|of|on|or|our|please|she|should|so|than|that|the|their|them|then|"
        "these|they|this|to|those|was|we|were|what|when|where|which|who|with|would|you|your",
    )
)
"""words that many English sentences have, whatever they are about"""


_THOUSANDS = re.compile(r"[1-9]\d{0,2}\.\d{3}", re.ASCII)
_INFLECTED = re.compile(r"[^\W\d_]{5,}")
MIN_STEM, MAX_ENDING = 4, 2


_RUN_ON = re.compile(r"(?<=[a-z0-9])\.(?=([A-Z][a-z]{2,})\s)")
"""a dot between two words, of which the second begins with a capital letter"""


def separate_sentences(text: str) -> str:
    """Return a text with a space before each sentence that follows a full stop without a space: `go to
    shop.example.Then pay`. A sentence begins with a capital letter and a word that many sentences have.
    """
    return _RUN_ON.sub(lambda dot: ". " if is_particle(dot[1]) else ".", text)


def thousands(word: str) -> str:
    """Return the digits of a number such as `1.200`, whose dot groups its digits in many languages; empty for any other
    word.
    """
    return word.replace(".", "") if _THOUSANDS.fullmatch(word) else ""


def list_stems(word: str) -> list[str]:
    """Return the beginnings of a word that may be its stem, marked so that none equals a word of a text; empty for a
    short word. The first one, without MAX_ENDING letters, is stored.
    """
    if not _INFLECTED.fullmatch(word) or UNSPACED.match(word):
        return []
    shortest = max(MIN_STEM, len(word) - MAX_ENDING)
    return [f"\x1e{word[:end]}" for end in range(shortest, len(word) + 1)]


def is_particle(text: str) -> bool:
    """Return whether a text is a common English word such as `the` or `please`, which sentences have whatever their
    subject. If a stranger gives a thing such a name, the words of the person do not name this thing.
    """
    return text.lower() in PARTICLES


def has_short_numbers(text: str) -> bool:
    """Return whether a text consists of short numbers, in digits or numerals of any script, and signs between them:
    `20`, `11/20`, `#11-20`, `二十`. Quantities are short: they have at most MAX_SHORT digits.
    """
    numbers = _ALNUMS.findall(text)
    return bool(numbers) and all(number.isnumeric() and len(number) <= MAX_SHORT for number in numbers)


def count_alnum(text: str) -> int:
    """Return the number of letters and digits of a text."""
    return sum(map(len, _ALNUMS.findall(text)))


def is_alone(text: str) -> bool:
    """Return whether a text is a single word whose only other spellings differ in case."""
    return (text.isalnum() and text.isascii()) or _ALONE.fullmatch(text) is not None


def is_mail(text: str) -> bool:
    """Return whether a text is one mail address in its common form, and nothing else."""
    return _PLAIN_MAIL.fullmatch(text) is not None


def words(text: str, *, is_source: bool) -> list[str]:
    """Return the words of a text, in order and in normal form. `is_source`: true for a text in which values are
    searched, so that punctuation beside a word does not count; false for a value that is searched.
    """
    is_ascii = text.isascii()
    if not is_ascii:
        text = unicodedata.normalize("NFC", text)
    elif text.isalnum() or (" " not in text and is_alone(text)):
        return [text.lower()]
    elif text[:1].isdigit() and _DECIMAL.fullmatch(text):
        return [text]
    runs = text.split()
    bare = "".join(runs)
    if not bare.isalpha() and _MAYBE_GROUPED.search(text):
        runs = _GROUPED.sub(_joined, text).split()
    elif is_ascii and bare.isalnum():
        return text.lower().split()
    elif is_source and is_ascii and _UNJOINED.fullmatch(text):
        return _ALNUMS.findall(text.lower())
    pieces: list[str] = []
    for run in runs:
        if not (is_ascii or run.isascii()):
            pieces += _pieces(run, is_source=is_source)
        elif run.isalnum() or ("@" in run and _PLAIN_MAIL.fullmatch(run)):
            pieces.append(run.lower())
        elif run[0].isdigit() and _DECIMAL.fullmatch(run):
            pieces.append(run)
        elif run == "%" and pieces and pieces[-1][-1:].isdigit():
            pieces[-1] += run
        elif is_source and (word := run.rstrip(".,;:!?)\"'").lstrip("(\"'")).isalnum():
            pieces.append(word.lower())
        else:
            pieces += _pieces(run, is_source=is_source)
    if not is_source and len(pieces) > 1:
        pieces = [word.rstrip(".:") for word in pieces]
    return [word for word in pieces if word not in _BARE]


def _joined(match: re.Match[str]) -> str:
    text = match[0]
    if match["iban"]:
        groups = re.split(f"[{_SPACE}-]", text)
        for count in range(len(groups), 1, -1):
            if _is_iban("".join(groups[:count])):
                return " ".join(("".join(groups[:count]), *groups[count:]))
        while len(groups) > 3 and groups[-1].isalpha():
            rest = groups.pop()
            text = text[: text.rindex(rest)] + "\0" + rest
        text, _, rest = text.partition("\0")
        return re.sub(f"[{_SPACE}-]", "", text) + (" " + rest.replace("\0", " ") if rest else "")
    return re.sub(rf"[{_SPACE}()]|(?<=\d)-|(?<=\d)\.(?=\d{{3,4}}\b)", "", text)


def _is_iban(text: str) -> bool:
    """Return whether the check digits of an account number are correct (ISO 13616-1)."""
    turned = text[4:] + text[:4]
    return len(text) >= 15 and int("".join(str(int(one, 36)) for one in turned)) % 97 == 1


def _pieces(run: str, *, is_source: bool) -> list[str]:
    """Return the words of a run: a part of a text that contains no white space."""
    if is_alone(run):
        return [run.lower()]
    pieces: list[str] = []
    end = 0
    for pattern, spell in ((_LINK, link), (MAIL, mail)) if "://" in run else ((MAIL, mail),) if "@" in run else ():
        for match in pattern.finditer(run):
            if match.start() >= end:
                pieces += _plain(run[end : match.start()], is_source=is_source)
                pieces.append(spell(match[0]))
                end = match.end()
    return pieces + _plain(run[end:], is_source=is_source)


def _plain(run: str, *, is_source: bool) -> list[str]:
    whole = run.strip("\"'()[]{}<>;|=!?,").lstrip(_SIGILS).rstrip("€$£¥₹")
    number = whole.rstrip(".,:") if is_source else whole
    if _NUMBER.fullmatch(number) and decimal(number) is not None:
        return [number]
    if (price := _PRICE.fullmatch(number)) is not None and decimal(price[2]) is not None:
        return [word.lower() for word in price.groups() if word]
    pieces: list[str] = []
    for part in run.translate(_CLOSED_ASCII).split() if run.isascii() else _BETWEEN.split(run):
        if part.isalnum() and part.isascii():
            pieces.append(part.lower())
            continue
        word = _strip(part, is_source=is_source)
        if "/" in word and (domain := _DOMAIN.fullmatch(word)) is not None:
            word = domain[1].lower() + domain[2].rstrip("/")  # of a link, too, the path keeps its case
        elif word:
            word = word.lower()
        if (numbered := _NUMBERED.fullmatch(word)) is not None:
            pieces += [numbered[1].rstrip(".°º"), numbered[2]]
        elif not word.isascii() and UNSPACED.search(word):
            for one in _PARTS.findall(word):
                is_character = UNSPACED.match(one) is not None
                pieces += [one] if is_character else _plain(one.lstrip(":").rstrip(":-"), is_source=is_source)
        elif word and (not is_source or _ALNUM.search(word)):
            pieces += [word] if word.isascii() else _BESIDE_LETTERS.split(word)
    return pieces


def _strip(part: str, *, is_source: bool) -> str:
    if is_source:
        is_home = part.startswith("~/")
        part = "~" * is_home + part.strip(_MARKS).rstrip(".:")
    part = part.lstrip(_SIGILS) or part
    return part.rstrip("/") or part


def decimal(text: str) -> str | None:
    """Return a number with any grouping in plain digits, such as `-1200.5`; None for other text and for an
    ambiguous number.
    """
    if len(text) <= MAX_NUMBER and _NORMAL.fullmatch(text):
        return text
    text = text.strip().lstrip(_SIGILS).rstrip("€$£¥₹%").strip()
    sign = "-" if text.startswith("-") else ""
    text = text.lstrip("+-") if text[:1] in "+-" and text[1:2].isdigit() else text
    if len(text) > MAX_NUMBER or not text.isascii():
        text = text.replace("’", "'")
        if len(text) > MAX_NUMBER or not text.isascii():
            return None
    for form, groups in _FORMS:
        if form.fullmatch(text):
            for mark in groups:
                text = text.replace(mark, "")
            whole, _, rest = text.replace(",", ".").partition(".")
            whole, rest = whole.lstrip("0") or "0", rest.rstrip("0")
            digits = f"{whole}.{rest}" if rest else whole
            return digits if digits == "0" else sign + digits
    return None


def numbers_in_words(spoken: Iterable[str]) -> list[str]:
    """Return the numbers of at most six digits inside the words of a text (9 of `item-9`, 731 of `UA731`, 13 of
    `0013`), each once and at most `MAX_IN_WORDS`, in the form that `mark_in_word` returns.
    """
    numbers = dict.fromkeys(int(number or other) for number, other in _IN_WORD.findall(" ".join(spoken)))
    return [mark_in_word(number) for number in islice(numbers, MAX_IN_WORDS)]


def mark_in_word(number: int) -> str:
    """Return the form in which a number inside a word is stored. Never equal to a word of a text."""
    return f"\x1d{number}"


_AMOUNT = re.compile(r"[+-]?(?:0|[1-9]\d*)(?:\.\d{1,2})?")
"""digits without a leading zero, perhaps with a sign before them, and at most two decimal places after a dot: the only
form of an amount that all tools read alike
"""


def read_amount(text: str) -> str | None:
    """Return the number of an amount that a tool receives as text; None if two tools could read different
    amounts (`1,200`, `1.200`, `0100`, `100%`, `1e2`).
    """
    text = text.strip().lstrip("@$€£¥₹").rstrip("€$£¥₹").strip()
    return decimal(text) if _AMOUNT.fullmatch(text) else None


def compact(word: str) -> str:
    """Return an account number without its grouping; empty for other text."""
    bare = re.sub(r"[\s./-]", "", word).casefold()
    return bare if bare.isalnum() and sum(map(str.isdigit, bare)) >= 6 else ""


MAX_APART, MAX_STEPS = 4, 6
"""maximum number of parts of one identifier; maximum number of steps of a link's path that are examined"""
_SEPARATORS = tuple(map(re.compile, ("/", "@", "#", ":", r"\.", "[/#]", "[/#:@]")))
_APART = re.compile(r"[/@#:.]")


def join_parts(parts: Iterable[str]) -> str:
    """Return the form in which the parts of an identifier are stored together. It never equals a word of a text
    or a single part.
    """
    return "\x1f" + "\x1f".join(part.strip().lstrip(_SIGILS).lower() for part in parts)


def split_identifier(word: str) -> Iterator[str]:
    """Yield the ways to split a word into the parts of an identifier, each in the form of `join_parts`."""
    if len(word) > MAX_WORD or not _APART.search(word):
        return
    _, scheme, rest = word.partition("://")
    if scheme:
        steps = [step for step in re.split("[/?#]", rest)[1:] if step][:MAX_STEPS]
        for count in range(2, min(len(steps), MAX_APART) + 1):
            yield from map(join_parts, combinations(steps, count))
        return
    for separator in _SEPARATORS:
        parts = separator.split(word.strip("/"))
        if 1 < len(parts) <= MAX_APART and all(parts):
            yield join_parts(parts)


def list_domains(word: str) -> Iterator[str]:
    """Yield the domains of a word: the host of a mail address or a link, and each domain above a host, but no top-level
    domain.
    """
    place = word.partition("://")[2] or word
    host = re.split("[/?#:]", place, maxsplit=1)[0].rpartition("@")[2]
    if len(word) > MAX_WORD or not _HOST.fullmatch(host):
        return
    if host != word:
        yield host
    while (host := host.partition(".")[2]).count("."):
        yield host


def short_name(word: str) -> str:
    """Return the name in a short address (`info@`); empty for any other word."""
    name = word[:-1]
    return name if word.endswith("@") and _LOCAL.fullmatch(name) else ""
