"""Entries of the ledger, their indexed values, and the budget of entries for refusals."""

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
    subjects_of,
)
from ostiaryd.ledger.model.indexed import Indexed, differing_columns, indexed_words, is_cut, read_entry

__all__ = [
    "MAX_ROWS",
    "MESSAGE_LIMIT",
    "USES",
    "WORD_LIMIT",
    "Entry",
    "Indexed",
    "Reason",
    "Result",
    "classes_of",
    "decode_entry",
    "differing_columns",
    "encode_entry",
    "indexed_words",
    "is_cut",
    "is_standing",
    "read_entry",
    "reason",
    "spread_rows",
    "subjects_of",
]
