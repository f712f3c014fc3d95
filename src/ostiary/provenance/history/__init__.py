"""Histories of calls, as facts for policies: the history of a task tree, and the recent history of an agent.

    history = after(history, done_of(key, plan_of("mail/send", tool, classes), arguments))    an allowed call
    Before(key, history, recent, ..).context(done, arguments)                                 its `context.history`

Calls are added one at a time, in any order with the same result. Histories are bounded. A full history has `is_full`:
neither presence nor absence of a fact in it is certain, so a call is denied if enforced policies rely on the history.
Created things do not fill a history: a thing for which there is no space counts as not created by the task.

Values (recipients, identifiers of created objects) are stored as eight bytes of BLAKE2s with the key of the task's
memory.

For all tasks of an owner's agents, `counterparts` stores the recipients, with first use, last use and number of uses.
"""

from ostiary.provenance.history.calls import Plan, created_by, done_of, list_created, plan_of, recipients_of
from ostiary.provenance.history.counterparts import (
    MAX_COUNTERPARTS,
    MAX_MET,
    NOBODY,
    Counterpart,
    Counterparts,
    record_recipients,
)
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
    pack_history,
    unpack_history,
)
from ostiary.provenance.history.prior import Met, PriorHistory, history_context, in_passing

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
    "Counterpart",
    "Counterparts",
    "Done",
    "History",
    "Met",
    "Plan",
    "PriorHistory",
    "Value",
    "after",
    "created",
    "created_by",
    "done_of",
    "history_context",
    "in_passing",
    "is_news",
    "joined",
    "list_created",
    "pack_history",
    "plan_of",
    "recipients_of",
    "record_recipients",
    "unpack_history",
]
