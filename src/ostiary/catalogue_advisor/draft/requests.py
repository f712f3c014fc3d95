"""Requests in a person's words, found with tables of general English: calls with effects, documents, caps. The
running time is linear in the number of words.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import zip_longest

from ostiary.authorization.catalogue import Effect
from ostiary.catalogue_advisor.language import (
    DETERMINERS,
    NEGATIONS,
    NOUNS_TOO,
    VERBS,
    effects_of,
    nouns,
    parts,
    replace_phrasal_verbs,
    states_fact,
    verb,
)
from ostiary.provenance.intent import MAX_VALUE
from ostiary.provenance.origins.words import decimal

MAX_NUMBER = 12
"""maximum number of characters of a number that states a cap"""
_CLAUSE = re.compile(r"[!?;\n]+|[.,](?=\s|$)|\b(?:and|then|but|or|after that)\b", re.IGNORECASE)
_SENTENCE = re.compile(r"([!?\n]+|\.(?=\s|$))")
_FILE = re.compile(r"[\w~./-]*[\w-]\.(?:[a-z][a-z0-9]{1,4}|[A-Z][A-Z0-9]{1,4})")
_URL = re.compile(r"(?:https?://|www\.)\S+", re.IGNORECASE)
_CODE = re.compile(r"(?=\S*\d)[^\W\d_]\w*(?:[-_.]\w+)+")
"""the name of a thing that contains a number, such as a branch or a ticket (`fix-412`)"""
_QUOTED = re.compile(r"(?<!\w)'([^'\n]{3,120})'(?!\w)|\"([^\"\n]{3,120})\"")
_FROM = re.compile(r"\b(?:in|from|per|see|following|on|at|by|file|document|note|page|letter)\s?\W?$", re.IGNORECASE)
_BEFORE = 40
"""number of characters before a quoted name in which a word such as `file` is searched"""
_AROUND = "()[]{}<>'\",;:!?."
_CAP = re.compile(
    r"\b(?:up to|at most|(?:no|not) more than|max(?:imum)?(?: of)?|not exceed(?:ing)?|less than|below|under|limit of"
    r"|budget of)\s+(?:[A-Z]{3}\s)?[$€£¥]?\s?(?P<number>\d(?:[\d.,'’]*\d)?)\s?(?P<what>[\w$€£¥]{0,20})",
    re.IGNORECASE,
)
_CURRENCIES = frozenset(
    ["buck", "cent", "chf", "crown", "dollar", "eur", "euro", "franc", "gbp", "jpy", "pound", "usd", "yen"]
)
_DELEGATES = re.compile(
    r"\b(?:do|follow|complete|perform|execute|handle|take care of|carry out|finish|work (?:through|on))\b[^.!?\n]{0,60}"
    r"\b(?:says?|tasks?|instructions?|steps?|todos?|to-dos?|actions?|asks?|asked|list(?:ed)?|requests?|told|what)\b",
    re.IGNORECASE,
)
_QUESTION = re.compile(
    r"\s*(?:what|how|when|who|whom|whose|which|where|why|did|does|do (?:i|you|we|they)|is|are|was|were|has|have|am)\b",
    re.IGNORECASE,
)
_CONDITION = re.compile(
    r"\s*(?:what|when|where)\s+(?!(?:did|does|do|is|are|was|were|has|have|had|am|can|could|will|would|should)\b)",
    re.IGNORECASE,
)
"""the beginning of a clause that is no question: `when you have time`, `what I need is this`"""
_MAIN = re.compile(
    r"[,:]\s+(?P<polite>(?:(?:please|kindly|(?:can|could|will|would) you)\s+)*)(?P<verb>\w+)", re.IGNORECASE
)
_WANTS = re.compile(r"\b(?:want|need|would like|please|let's|should)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Call:
    """The request of one clause: its verb, the possible effects of the verb, and the nouns of the clause (`about`)."""

    verb: str
    effects: tuple[Effect, ...]
    about: frozenset[str]
    whole: frozenset[str]
    """all nouns of the sentence"""


def calls(words: str) -> Iterator[Call]:
    """Yield the requests of the clauses. Quoted text, names of documents and names with a number are not read as
    requests.
    """
    sentences = _SENTENCE.split(replace_phrasal_verbs(_unnamed(words)))
    for sentence, end in zip_longest(sentences[::2], sentences[1::2], fillvalue=""):
        request = _main_clause(sentence, is_question="?" in end)
        wants = bool(_WANTS.search(request))
        clauses = [(clause, list(_verbs(clause))) for clause in map(parts, _CLAUSE.split(request))]
        if not wants and not any(verbs for _, verbs in clauses):
            continue  # a clause without a request: its nouns do not matter
        whole = nouns(parts(sentence))
        is_question = bool(_QUESTION.match(request))
        for clause, verbs in clauses:
            about = nouns(clause)
            for one in verbs:
                if is_question and VERBS[one] != (Effect.READ,):
                    continue
                things = about - {one}
                yield Call(one, effects_of(one, things or whole), things, whole)
            if wants and not verbs and not is_question:
                yield Call("make", (Effect.CHANGE,), about, whole)


def _main_clause(sentence: str, *, is_question: bool) -> str:
    """Return the main clause of a sentence that begins with a condition, if the main clause begins with a verb (`When
    you have time, send it`, or in a question `.., could you send it`); otherwise return the sentence.
    """
    if _CONDITION.match(sentence):
        for main in _MAIN.finditer(sentence):
            word = main["verb"].lower()
            if verb(word) == word and (main["polite"] or not is_question):
                return sentence[main.start("verb") :]
    return sentence


def _unnamed(words: str) -> str:
    plain = _QUOTED.sub(" ", words)
    return re.sub(r"\S+", lambda token: _read_as(token[0], token[0].strip(_AROUND)), plain)


def _read_as(token: str, name: str) -> str:
    """Return `file` in place of the name of a document, and only the words that are no verbs of a name with a number;
    with the punctuation that followed the name. Any other token is unchanged.
    """
    end = token[len(token.rstrip(_AROUND)) :]
    if _is_document(name):
        return "file" + end
    if _CODE.fullmatch(name):
        return " ".join(word for word in parts(name) if verb(word) is None) + end
    return token


def _is_document(name: str) -> bool:
    return len(name) <= MAX_VALUE and (_URL.fullmatch(name) or _FILE.fullmatch(name)) is not None


def _verbs(words: Sequence[str]) -> Iterator[str]:
    """Yield the verbs of a request: words in the position of a verb that are not negated."""
    for at, word in enumerate(words):
        verb_stem = verb(word)
        if verb_stem is None:
            continue
        before = {*words[max(0, at - 3) : at]}
        if verb_stem in NOUNS_TOO and at and words[at - 1] in DETERMINERS:
            continue
        if NEGATIONS & before or states_fact(word, verb_stem, words[max(0, at - 2) : at]):
            continue
        yield verb_stem


@dataclass(frozen=True, slots=True)
class Cap:
    """A cap such as `at most 50 euros`: the number, and the nouns that are counted; no nouns for an amount of money."""

    number: Decimal
    counted: frozenset[str]


def caps(words: str) -> Iterator[Cap]:
    """Yield each upper limit with a number that the text states, such as `up to 1.250,00 euros`. If the grouping of the
    number is unknown, its first digits are the limit, which is never higher than the number.
    """
    for match in _CAP.finditer(words):
        number = decimal(match["number"]) or re.split(r"\D", match["number"])[0]
        if len(number) <= MAX_NUMBER:
            yield Cap(Decimal(number), nouns(parts(match["what"])) - _CURRENCIES)


def delegates(words: str) -> bool:
    """Return whether the words refer to instructions in a document: `do what the note says`, not `do the following`."""
    match = _DELEGATES.search(words)
    return match is not None and "following" not in match[0].lower()


def documents(words: str) -> Iterator[tuple[str, bool]]:
    """Yield the documents that words name: (the name as written, whether it is a URL)."""
    for token in words.split():
        name = token.strip(_AROUND)
        if len(name) <= MAX_VALUE and _URL.fullmatch(name):
            yield name, True
        elif len(name) <= MAX_VALUE and _FILE.fullmatch(name):
            yield name, False
    for match in _QUOTED.finditer(words):
        if _FROM.search(words[max(0, match.start() - _BEFORE) : match.start()]):
            yield (match[1] or match[2]), False
