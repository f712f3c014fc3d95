"""What happened before: in a task with all tasks of its tree, and in an agent's recent past. Facts for policies.

    history = after(history, done_of(key, plan_of("mail/send", tool, classes), arguments))    a call that is let through
    Before(key, history, recent, ..).seen(done, arguments)                                    what policies see of it

A history is kept call by call, and is the same in whatever order the calls are told. It is bounded: one that is full
says so, and then nobody relies on it, for neither what is in it nor what is not would be sure. What a task created is
different: what has no room there was not created.

Values (recipients, identifiers of what was created) are eight bytes of BLAKE2s under the key of the task's memory.

Beyond tasks it is remembered whom the agents of an owner have dealt with, since when and how often (`counterparts`).
"""

from ostiary.provenance.history.before import Before, Met, in_passing, told
from ostiary.provenance.history.calls import Plan, created_by, done_of, is_created, plan_of, recipients_of
from ostiary.provenance.history.counterparts import MAX_COUNTERPARTS, MAX_MET, NOBODY, Counterpart, Counterparts, met
from ostiary.provenance.history.kept import (
    EFFECTS,
    MAX_CLASS_BYTES,
    MAX_CREATED,
    MAX_HISTORY,
    MAX_RECIPIENTS,
    MAX_TOOL_BYTES,
    MAX_TOOLS,
    NOTHING,
    Done,
    History,
    Value,
    after,
    created,
    is_news,
    joined,
    pack,
    unpack,
)

__all__ = [
    "EFFECTS",
    "MAX_CLASS_BYTES",
    "MAX_COUNTERPARTS",
    "MAX_CREATED",
    "MAX_HISTORY",
    "MAX_MET",
    "MAX_RECIPIENTS",
    "MAX_TOOLS",
    "MAX_TOOL_BYTES",
    "NOBODY",
    "NOTHING",
    "Before",
    "Counterpart",
    "Counterparts",
    "Done",
    "History",
    "Met",
    "Plan",
    "Value",
    "after",
    "created",
    "created_by",
    "done_of",
    "in_passing",
    "is_created",
    "is_news",
    "joined",
    "met",
    "pack",
    "plan_of",
    "recipients_of",
    "told",
    "unpack",
]
