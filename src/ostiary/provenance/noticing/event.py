"""An act of an agent as detectors see it: a call at a guard before it runs, or an entry of the ledger."""

from __future__ import annotations

import msgspec

from ostiary.provenance.noticing.finding import Noticed


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """The facts of the event; times in microseconds. An unknown fact is empty. Arguments are
    described, never quoted.
    """

    at: int
    late: int = 0
    """time between the event and its report, if a guard could not report it sooner"""
    action: str
    """action of the ledger: `tool.call`, `token.issue`, ..."""
    outcome: str
    """`ok`, `allow`, `deny`, `refused` or `error`"""
    agent: str = ""
    task: str = ""
    owner: str = ""
    resource: str = ""
    """URI of the resource"""
    tool: str = ""
    """`files/read_file`"""
    effect: str = ""
    canary: bool = False
    """True if the catalogue says that the tool is a decoy"""
    classes: tuple[str, ...] = ()
    """data classes that the tool handles"""
    origins: tuple[tuple[str, str], ...] = ()
    """origins of the arguments: (argument, origin), in order"""
    worst: str = ""
    """the least trusted origin of recipients, objects and secrets"""
    links: str = ""
    """the least trusted origin of the links and mail addresses in outgoing text"""
    is_mixed: bool = False
    """True if at least one value of the call is the person's own or of a document that they named"""
    values_in_text: int = msgspec.field(default=0, name="together")
    """number of values of the call, other than the person's, in the one untrusted text that has most of them"""
    is_named: bool = False
    """True if that text is of a document that the person named"""
    signs: tuple[str, ...] = ()
    """signs that the decision found in the flow of data into the call, by the names of
    `ostiary.provenance.noticing.noticing`
    """
    shape: str = ""
    """names and descriptions of the arguments, shortened"""
    reasons: tuple[str, ...] = ()
    """codes of the reasons of a denial"""
    bytes: int = 0
    records: int = 0
    key: str = ""
    """thumbprint of the key that proved it"""
    network: str = ""
    """network of the caller's address, never the address"""
    place: tuple[float, float] | None = None
    """latitude and longitude of that network, where configuration says it"""
    threat: tuple[str, int] | None = None
    """name and points of a threat list that has the caller's address, or an indicator among the arguments"""
    actors: tuple[str, ...] = ()
    """agents behind the caller, in its delegation chain"""
    reporter: str = ""
    """the resource whose guard reported the event; empty: the server observed it"""
    model: str = ""
    noticed: tuple[Noticed, ...] = ()
    """oddities that the guard noticed"""
    number: int = -1
    """number of its ledger entry; -1: none"""
