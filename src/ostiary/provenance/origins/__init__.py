"""Origins: the sources of the values of a task, as policies see them.

memory = remember(key, Seed("pay the bill in bill.txt", own=[..], endorsed=[("files/read_file", "bill.txt", [..])]))
parts = observed(memory, "files/read_file", tool, {"path": "bill.txt"}, output)      the output of a tool
memory = learned(memory, parts)
judge_origins(memory, tool, {"recipient": "DE89..", "amount": 120})       {"origin": {"recipient": "endorsed", ..}, ..}
"""

from ostiary.provenance.origins.judging import (
    POINTS,
    foreign,
    is_effect,
    is_settled,
    judge_origins,
    judged_plan,
    lent_to,
    needs_origins,
    of_value,
    shown,
)
from ostiary.provenance.origins.labels import CARRIES, REVEALS, UNREQUESTED_READ, goes_out, outgoing
from ostiary.provenance.origins.memory import (
    ALL_KINDS,
    FOUND,
    KEY_BYTES,
    KINDS,
    LABEL_ROOM,
    LINK,
    MAX_BYTES,
    MAX_PARTS,
    RETIRED,
    SLOT,
    Document,
    Memory,
    Origin,
    Part,
    check_observed,
    kinds_of,
    learned,
    marked,
    pack,
    remember,
    unpack,
)
from ostiary.provenance.origins.observing import observed

__all__ = [
    "ALL_KINDS",
    "CARRIES",
    "FOUND",
    "KEY_BYTES",
    "KINDS",
    "LABEL_ROOM",
    "LINK",
    "MAX_BYTES",
    "MAX_PARTS",
    "POINTS",
    "RETIRED",
    "REVEALS",
    "SLOT",
    "UNREQUESTED_READ",
    "Document",
    "Memory",
    "Origin",
    "Part",
    "check_observed",
    "foreign",
    "goes_out",
    "is_effect",
    "is_settled",
    "judge_origins",
    "judged_plan",
    "kinds_of",
    "learned",
    "lent_to",
    "marked",
    "needs_origins",
    "observed",
    "of_value",
    "outgoing",
    "pack",
    "remember",
    "shown",
    "unpack",
]
