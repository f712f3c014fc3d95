"""Entries of the ledger, and the budget of entries for refusals."""

from ostiaryd.ledger.model.entry import (
    MAX_ROWS,
    MESSAGE_LIMIT,
    USES,
    WORD_LIMIT,
    Entry,
    Reason,
    Result,
    classes_of,
    decode_entry,
    encode_entry,
    is_standing,
    reason,
    spread_rows,
    subject_of,
)

__all__ = [
    "MAX_ROWS",
    "MESSAGE_LIMIT",
    "USES",
    "WORD_LIMIT",
    "Entry",
    "Reason",
    "Result",
    "classes_of",
    "decode_entry",
    "encode_entry",
    "is_standing",
    "reason",
    "spread_rows",
    "subject_of",
]
