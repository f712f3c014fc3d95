"""One act of an agent as detectors see it: a call at a guard before it runs, or an entry of the ledger."""

from __future__ import annotations

import msgspec

from ostiary.provenance.noticing.finding import Noticed


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Times in microseconds. What nobody knows is empty; no values of arguments, only what they are like."""

    at: int
    late: int = 0
    """how long before that it happened, where a guard could not tell sooner"""
    action: str
    """as the ledger has it: `tool.call`, `token.issue`, ..."""
    outcome: str
    """`ok`, `allow`, `deny`, `refused` or `error`"""
    agent: str = ""
    task: str = ""
    owner: str = ""
    resource: str = ""
    """its URI"""
    tool: str = ""
    """`files/read_file`"""
    effect: str = ""
    canary: bool = False
    """whether the tool is a decoy, by its catalogue"""
    classes: tuple[str, ...] = ()
    """data classes that the tool handles"""
    origins: tuple[tuple[str, str], ...] = ()
    """where arguments came from: (argument, origin), in order"""
    worst: str = ""
    """the least trusted origin of those that say whom and what, and of secrets"""
    links: str = ""
    """the least trusted origin of the links and mail addresses in outgoing text"""
    is_mixed: bool = False
    """whether at least one value of the call is the person's own or of a document that they named"""
    together: int = 0
    """how many values that the person did not say stand together in one text of strangers"""
    is_named: bool = False
    """whether that text is of a document that the person named"""
    signs: tuple[str, ...] = ()
    """what the decision found out about the flow of data in the call, by the names of
    `ostiary.provenance.noticing.noticing`
    """
    shape: str = ""
    """which arguments there are and what each is like, shortened"""
    reasons: tuple[str, ...] = ()
    """codes of why not"""
    bytes: int = 0
    records: int = 0
    key: str = ""
    """thumbprint of the key that proved it"""
    network: str = ""
    """where it came from: the network of the address, never the address"""
    place: tuple[float, float] | None = None
    """latitude and longitude of that network, where configuration says it"""
    threat: tuple[str, int] | None = None
    """name and points of the threat list that knows where it came from, or what it names"""
    actors: tuple[str, ...] = ()
    """agents through which it came"""
    reporter: str = ""
    """the guard's resource that says so; empty: the server saw it itself"""
    model: str = ""
    noticed: tuple[Noticed, ...] = ()
    """what its guard has noticed about it"""
    number: int = -1
    """its entry in the ledger, where it has one"""
