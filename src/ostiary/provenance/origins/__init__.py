"""Origins: the sources from which the values of a task come, as policies see them.

memory = remember(key, Intent(words="pay the bill in bill.txt", own=.., endorsed=(..,)))
parts = observe_output(memory, "files/read_file", tool, {"path": "bill.txt"}, output)     the output of a tool
memory = add_parts(memory, parts)
judge_origins(memory, tool, {"recipient": "DE89..", "amount": 120})       {"origin": {"recipient": "endorsed", ..}, ..}
"""

from ostiary.provenance.origins.judging import (
    CallValues,
    is_effect,
    is_settled,
    judge_origins,
    judge_plan,
    lend_documents,
    list_foreign_links,
    needs_origins,
    of_value,
    origins_by_argument,
)
from ostiary.provenance.origins.labels import CARRIES, REVEALS, UNREQUESTED_READ, goes_out, judge_outgoing
from ostiary.provenance.origins.memory import (
    ALL_KINDS,
    FOUND,
    KEY_BYTES,
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
    add_parts,
    check_observed,
    kinds_of,
    pack,
    remember,
    unpack,
    with_marks,
)
from ostiary.provenance.origins.observing import observe_output

__all__ = [
    "ALL_KINDS",
    "CARRIES",
    "FOUND",
    "KEY_BYTES",
    "LABEL_ROOM",
    "LINK",
    "MAX_BYTES",
    "MAX_PARTS",
    "RETIRED",
    "REVEALS",
    "SLOT",
    "UNREQUESTED_READ",
    "CallValues",
    "Document",
    "Memory",
    "Origin",
    "Part",
    "add_parts",
    "check_observed",
    "goes_out",
    "is_effect",
    "is_settled",
    "judge_origins",
    "judge_outgoing",
    "judge_plan",
    "kinds_of",
    "lend_documents",
    "list_foreign_links",
    "needs_origins",
    "observe_output",
    "of_value",
    "origins_by_argument",
    "pack",
    "remember",
    "unpack",
    "with_marks",
]
