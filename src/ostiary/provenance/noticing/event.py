"""An event as detectors see it: a call at a guard before the call runs, or an entry of the ledger."""

from __future__ import annotations

import msgspec

from ostiary.provenance.noticing.finding import Noticed


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """The facts of an event that detectors read; times in microseconds. An unknown fact is empty. Arguments are
    described, never quoted.
    """

    at: int
    late: int = 0
    """time between the event and its report, if the guard could not report the event at once"""
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
    """id of the tool, such as `files/read_file`"""
    effect: str = ""
    canary: bool = False
    """true if the catalogue declares the tool a decoy"""
    classes: tuple[str, ...] = ()
    """data classes that the tool handles"""
    origins: tuple[tuple[str, str], ...] = ()
    """origins of the arguments: (argument, origin), in order"""
    worst: str = ""
    """the least trusted origin of recipients, objects and secrets"""
    links: str = ""
    """the least trusted origin of the links and mail addresses in outgoing text"""
    is_mixed: bool = False
    """true if at least one value of the call comes from the person: from the words, from the person's own record, or
    from an endorsed document
    """
    values_in_text: int = msgspec.field(default=0, name="together")
    """number of values of the call that one untrusted text contains and no trusted source has; of several
    texts, the highest number
    """
    is_named: bool = False
    """true if the untrusted text counted in `values_in_text` is from a document that the person named"""
    signs: tuple[str, ...] = ()
    """signs in the flow of data into the call; their names are the keys of
    `ostiary.provenance.noticing.noticing.SIGNS`
    """
    shape: str = ""
    """names of the arguments with descriptions of their values, shortened"""
    reasons: tuple[str, ...] = ()
    """codes of the reasons of a denial"""
    is_asked: bool = False
    """true if a person is asked about the call, or the call uses the approval of a person"""
    bytes: int = 0
    records: int = 0
    key: str = ""
    """thumbprint of the key that proved the caller's identity"""
    network: str = ""
    """network that contains the caller's address; the address itself is not stored"""
    place: tuple[float, float] | None = None
    """(latitude, longitude) of `network` in degrees; None if the setting `places` does not have the network"""
    threat: tuple[str, int] | None = None
    """name and points of a threat list that contains the caller's address, or an indicator from the arguments"""
    actors: tuple[str, ...] = ()
    """agents behind the caller in its delegation chain"""
    reporter: str = ""
    """the resource whose guard reported the event; empty: the server observed it"""
    model: str = ""
    noticed: tuple[Noticed, ...] = ()
    """findings of the guard's detectors"""
    number: int = -1
    """number of the event's ledger entry; -1: none"""
