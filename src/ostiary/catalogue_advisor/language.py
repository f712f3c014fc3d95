"""Tables of general English: stems, effects of verbs, related nouns.

The tables are small, and no catalogue or benchmark was used to write them. The results only propose a catalogue or a
plan: a person or an owner decides. A tool with an unknown verb is treated as a tool with an effect, and its owner is
asked.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from ostiary.authorization.catalogue.tool import Effect

MAX_WORD = 64
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")


def vocabulary(words: str) -> frozenset[str]:
    """Return the set of the words in `words`, which are separated by white space."""
    return frozenset(words.split())


_VERBS: dict[Effect, str] = {
    Effect.READ: """analyse analyze ask browse calculate check compare compute confirm convert count describe determine
        display download estimate evaluate examine explain explore extract fetch filter find get identify
        inspect know learn list load look lookup measure monitor navigate observe open parse peek ping
        predict preview print query rank read recall recommend report resolve retrieve review scan search
        see select show sort stat summarise summarize track translate validate verify view visit watch""",
    Effect.CHANGE: """accept add adjust amend append approve archive arrange assign attach begin book build change close
        comment complete compose configure copy correct create customise customize decline decrease draft
        duplicate edit enter extend fill finish fix follow format generate import increase init insert join
        label leave like log make mark merge modify move mute open organise organize pause pin plan prepare
        put raise rate record reduce register reject rename reopen reorder replace replicate reschedule
        reserve resize restore resume rotate save schedule set sign snooze star start stop store subscribe
        switch sync tag toggle transform turn unarchive unfollow unpin update upgrade upload vote write""",
    Effect.SEND: """alert announce answer broadcast call contact deliver dial dispatch email fax forward inform mail
        message notify post publish push remind reply respond send submit tell text transmit tweet write""",
    Effect.SHARE: "collaborate delegate expose invite lend share",
    Effect.PAY: """bid buy charge checkout deposit donate fund order pay purchase refund reimburse remit rent repay
        sell settle spend tip trade transfer wire withdraw""",
    Effect.DESTROY: """cancel clean clear delete destroy discard drop empty erase forget kill overwrite purge remove
        revert rollback shred terminate trash truncate uninstall unsubscribe wipe""",
    Effect.ADMINISTER: """authorize authorise ban block deactivate demote deny deploy disable enable execute exec grant
        impersonate install kick promote reboot reset restart revoke run shutdown suspend unban unblock""",
}
_C, _S = Effect.CHANGE, Effect.SEND
_ALSO: dict[str, tuple[Effect, ...]] = {
    "write": (_S, _C),
    "open": (Effect.READ, _C),
    "book": (_C, Effect.PAY),
    "reserve": (_C, Effect.PAY),
    "post": (_S, _C),
    "add": (_C, Effect.SHARE),
    "order": (Effect.PAY, _C),
    "subscribe": (_C, Effect.PAY),
    "upload": (_C, _S),
    "invite": (Effect.SHARE, _S, _C),
    "share": (Effect.SHARE, _S, _C),
    "submit": (_S, _C),
    "leave": (_C, _S),
    "close": (_C, Effect.DESTROY),
    "schedule": (_C, _S),
    "replace": (_C, Effect.DESTROY),
    "cancel": (Effect.DESTROY, _C),
    "remove": (Effect.DESTROY, _C),
    "move": (_C, Effect.DESTROY),
    "send": (_S, Effect.SHARE),
    "run": (Effect.ADMINISTER, _C),
    "reset": (Effect.ADMINISTER, _C),
    "rent": (Effect.PAY, _C),
    "publish": (_S, Effect.SHARE),
}
"""Effects of verbs that have several effects, the most usual effect first."""
VERBS: Mapping[str, tuple[Effect, ...]] = {
    verb: _ALSO.get(verb, (effect,)) for effect, verbs in _VERBS.items() for verb in verbs.split()
}
NOUNS_TOO = vocabulary(
    """answer book bid block call change charge check comment copy deposit draft drop email estimate fax filter
    fund import label like list log look mail mark measure message order pin plan post print purchase query rank
    rate read record refund rent reply report reserve review run scan schedule search set share sign sort star
    start stop store tag text tip track trade transfer tweet update upload view visit vote watch wire"""
)
"""Verbs that are also nouns: after a word such as `the` or `my` the word is a noun."""

_GROUPS = (
    "money payment fund cash transaction transfer bill invoice refund rent fee salary deposit dollar euro pound price",
    "mail email inbox letter correspondence newsletter",
    "message chat dm conversation thread channel post",
    "file document doc folder directory attachment report spreadsheet note paper page text pdf",
    "event meeting appointment visit calendar call lunch dinner breakfast reminder session agenda",
    "booking reservation stay visit trip ticket table room seat flight",
    "user member person people participant attendee guest employee colleague friend contact customer team",
    "product item order cart basket purchase goods article",
    "repository repo project branch commit issue pull request code",
    "account profile login setting preference address phone",
    "task todo reminder job assignment",
    "password credential key secret token pin",
    "link url website web site page webpage homepage",
    "picture photo image video media",
    "review rating comment feedback",
)
GROUPS: Mapping[str, frozenset[int]] = {
    noun: frozenset(number for number, group in enumerate(_GROUPS) if noun in group.split())
    for group in _GROUPS
    for noun in group.split()
}
"""The groups of each noun. Nouns of one group name related things (`kinship`); a text argument whose name ends with
such a noun identifies a thing.
"""
PAST = vocabulary("sent paid bought made wrote written sold")
SUBJECTS = vocabulary("i we they he she it who")
ADVERBS = vocabulary("usually always often already just also sometimes never normally regularly")
MONEY = vocabulary("""money payment fund transaction refund invoice bill salary cash transfer""")
POWER = vocabulary("""password permission role credential privilege policy firewall mfa 2fa token key webhook""")
PEOPLE = vocabulary("""user member participant attendee guest person people collaborator""")

THINGS = vocabulary(
    """answer bid bill book call change charge comment copy deposit draft email estimate fax file fund label mail
    message order pin plan post purchase rank rate record refund rent report review score star tag text tip track trade
    transfer view wire"""
)
"""Verbs that count as nouns in the name of a tool, unless the name has no other verb: `mail_delete`, `order_list`."""

_PHRASES = [
    (re.compile(rf"\b(?:{phrase})\b", re.IGNORECASE), verb)
    for phrase, verb in (
        (r"let (?:\w+ ){1,3}know", "notify"),
        (r"get(?:ting)? rid of", "delete"),
        (r"call(?:ing)? off", "cancel"),
        (r"throw(?:ing)? (?:away|out)", "delete"),
        (r"drop (?:\w+ ){0,2}a (?:line|note)", "send mail message"),
        (r"giv(?:e|ing) (?:\w+ ){1,3}access", "share"),
        (r"send(?:ing)? back", "change"),
        (r"jot(?:ting)? down", "write"),
        (r"not(?:e|ing) down", "write"),
        (r"set(?:ting)? up", "create"),
        (r"sign(?:ing)? (?:\w+ )?up", "register"),
        (r"look(?:ing)? (?:up|at|for|into)", "search"),
        (r"pay(?:ing)? back", "repay"),
        (r"get back to", "reply"),
        (r"reach(?:ing)? out to", "contact"),
        (r"pass(?:ing)? (?:\w+ )?on", "forward"),
        (r"hand(?:ing)? over", "share"),
        (r"tell (?:me|us)", "describe"),
        (r"show (?:me|us)", "show"),
        (r"tak(?:e|ing) (?:\w+ ){0,2}off", "remove"),
    )
]
"""Patterns of phrasal verbs, each with the single verb that replaces the phrase."""

DETERMINERS = vocabulary(
    """a an the my our your his her its their this that these those some any all each every no last first next new
    latest recent same other in of from at on with by for about as per regarding one two three"""
)
CONJUNCTIONS = vocabulary("and or then")
NEGATIONS = vocabulary("""don not never without dont avoid neither nor""")
STOP = vocabulary(
    """a an the my our your his her its their this that these those some any all each every no i me we us you he
    she it they them to of in from at on with by for about as per and or then if is are was were be been do does
    did have has had can could will would should may might must please so but not what which who whom when where
    why how there here just also too very more most"""
)


def parts(text: str) -> list[str]:
    """Return the words of a name (`sendMail`, `send_mail`, `HTTPGet`) or of a text, in lower case."""
    return [word.lower()[:MAX_WORD] for word in _WORD.findall(text)]


def stems(word: str) -> Iterator[str]:
    """Yield the possible base forms of `word`; the first is `word`."""
    yield word
    for ending, instead in (("ies", "y"), ("ied", "y"), ("es", ""), ("s", ""), ("ed", ""), ("ed", "e"), ("ing", "")):
        if word.endswith(ending) and len(word) - len(ending) >= 2:
            stem = word.removesuffix(ending) + instead
            yield stem
            if ending in ("ed", "ing") and len(stem) > 2 and stem[-1] == stem[-2]:
                yield stem[:-1]
    if word.endswith("ing") and len(word) > 5:
        yield word[:-3] + "e"
    yield from _IRREGULAR.get(word, ())


_IRREGULAR: dict[str, tuple[str, ...]] = {
    "sent": ("send",),
    "paid": ("pay",),
    "bought": ("buy",),
    "made": ("make",),
    "wrote": ("write",),
    "written": ("write",),
    "payment": ("pay",),
    "deletion": ("delete",),
    "removal": ("remove",),
    "cancellation": ("cancel",),
    "creation": ("create",),
    "sold": ("sell",),
    "people": ("person",),
}


def verb(word: str) -> str | None:
    """Return the verb in VERBS of which `word` is a form; None if there is none."""
    return next((stem for stem in stems(word) if stem in VERBS), None)


def verbs_of(name: Sequence[str]) -> list[str]:
    """Return the verbs of a name: the verb that it begins with, or any verb if it begins with a noun (`mail_delete`,
    `calendar_list_events`), and verbs after `and`. Forms such as `closed` and `orders` do not count.
    """
    verbs = [verb(word) if verb(word) == word else None for word in name]
    strong = [one if one not in THINGS else None for one in verbs]
    kept = strong if any(strong) else verbs
    led = [one for at, one in enumerate(kept) if one and (at == 0 or name[at - 1] in CONJUNCTIONS)]
    return led or [one for one in kept if one]


def replace_phrasal_verbs(text: str) -> str:
    """Replace phrasal verbs by single verbs."""
    for phrase, instead in _PHRASES:
        text = phrase.sub(instead, text)
    return text


def states_fact(word: str, of: str, before: Sequence[str]) -> bool:
    """Return whether `word`, a form of the verb `of`, states a fact instead of a request (`they sent`, `Bob
    posts`, `I usually pay`). `before`: the words before `word`.
    """
    is_past = word != of and (word.endswith("ed") or word in PAST)
    if is_past:
        return not {"be", "get"} & {*before}
    if word == of + "s" or word == of + "es":
        return True
    subject = before[-1:] if not before[-1:] or before[-1] not in ADVERBS else before[-2:-1]
    return bool(subject) and subject[0] in SUBJECTS


def noun(word: str) -> str:
    """Return the form under which a noun is compared: a stem in `GROUPS`, or else the word without a final `s`."""
    return next(
        (stem for stem in stems(word) if stem in GROUPS), word[:-1] if word.endswith("s") and len(word) > 3 else word
    )


def nouns(words: Iterable[str]) -> frozenset[str]:
    """Return the words that carry meaning, in the singular: all words except numbers and words such as `the`."""
    return frozenset(noun(word) for word in words if word not in STOP and not word.isdigit())


def kinship(some: frozenset[str], others: frozenset[str]) -> int:
    """Return how closely two sets of nouns are related: 2 if they share a noun, 1 if a noun of each set is in the same
    group, else 0.
    """
    if some & others:
        return 2
    groups = frozenset[int]().union(*(GROUPS.get(one, frozenset()) for one in others))
    return 1 if any(GROUPS.get(one, frozenset()) & groups for one in some) else 0


def effects_of(word: str, about: frozenset[str]) -> tuple[Effect, ...]:
    """Return the possible effects of a verb on the things `about`, the most usual effect first."""
    usual = VERBS[word]
    if usual[0] in (Effect.SEND, Effect.CHANGE) and about & MONEY and word not in ("post", "upload", "email", "write"):
        return (Effect.PAY, *usual)
    if usual[0] in (Effect.CHANGE, Effect.DESTROY) and about & POWER:
        return (Effect.ADMINISTER, *usual)
    if usual[0] is Effect.CHANGE and word in ("add", "assign", "join") and about & PEOPLE:
        return (Effect.SHARE, *usual)
    return usual
