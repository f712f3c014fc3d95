"""The kind of a value by its form, for an argument whose kind is not declared.

    `time`       a date, a time or a duration, and nothing else
    `text`       prose: sentences in words, in which each identifier is judged separately
    `address`    a mail address or a link
    `account`    a number with at least six digits
    `object`     anything else: a name, an identifier, a path, a few words

An attacker who plants a value chooses its form, so only prose counts as a value that identifies nothing. Prose has at
least MIN_PROSE ordinary words; at least half of them are in lower case, and at most a third of all tokens have other
forms.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice

from ostiary.authorization.catalogue import Kind
from ostiary.provenance.origins.links import links
from ostiary.provenance.origins.moments import is_moment
from ostiary.provenance.origins.words import compact

MIN_PROSE = 6
"""minimum number of words of prose; a title, a name or a command has fewer"""
MAX_IDENTIFIERS = 64
"""maximum number of identifiers of one text that are judged separately"""
MIN_DIGITS = 7
"""minimum number of digits of a number in prose that is an identifier: telephone, account and card numbers;
amounts and years have fewer
"""
MIN_MIXED = 5
"""minimum length in characters of a token of letters and digits that is an identifier: `INV-2291`, not `10am`,
`3rd`, `Q3`
"""
_PLAIN = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]")
"""characters of scripts without spaces between words; two characters count as a word"""
_EDGES = "\"'`´‘’‚“”„«»()[]{}<>,;:.!?…¡¿*。，、；！？（）「」–—-"
_NUMBERS = re.compile(r"(?<![\w.,])\+?\d[\d ()./-]{4,30}\d(?!\w)")
_MARKED = re.compile(r"[_\\=<>|$^~{}#@]|://|\w/.*/")


def kind_of(text: str) -> Kind:
    """Return the kind of a value that is not prose, by its form: a time, an address, an account or, for any other form,
    an object.
    """
    if is_moment(text):
        return Kind.TIME
    if ("@" in text or "://" in text) and links(text):
        return Kind.ADDRESS
    return Kind.ACCOUNT if compact(text) and not any(one.isspace() for one in text.strip()) else Kind.OBJECT


def is_prose(text: str) -> bool:
    """Return whether a text is prose; False if uncertain."""
    tokens = [token for run in text.split() if (token := run.strip(_EDGES))]
    plain = [token for token in tokens if _PLAIN.fullmatch(token)]
    words = sum(max(1, len(_UNSPACED.findall(token)) // 2) for token in plain)
    lower = sum(token == token.lower() for token in plain)
    return words >= MIN_PROSE and 3 * len(plain) >= 2 * len(tokens) and 2 * lower >= len(plain)


def identifiers(text: str) -> Iterator[str]:
    """Yield the tokens of a text that look like identifiers, except links and mail addresses. If there are more
    than MAX_IDENTIFIERS, yield as the last one the entire text, whose origin is nowhere.
    """
    tokens = dict.fromkeys(_identifiers(text))
    yield from islice(tokens, MAX_IDENTIFIERS)
    if len(tokens) > MAX_IDENTIFIERS:
        yield text


def _identifiers(text: str) -> Iterator[str]:
    for match in _NUMBERS.finditer(text):
        if sum(map(str.isdigit, match[0])) >= MIN_DIGITS and not is_moment(match[0]):
            yield match[0]
    for run in text.split():
        token = run.strip(_EDGES)
        if not token or token.isalpha() or is_moment(token):
            continue
        digits = sum(map(str.isdigit, token))
        letters = sum(map(str.isalpha, token))
        is_mixed = digits and letters and len(token) >= MIN_MIXED
        if (is_mixed or digits >= MIN_DIGITS or _MARKED.search(token)) and not links(token):
            yield token
