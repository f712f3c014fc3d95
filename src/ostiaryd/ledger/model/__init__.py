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
    subject_of,
)
from ostiaryd.ledger.model.indexed import Indexed, data_classes, differing_columns, indexed_words, read_entry, subjects

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
    "data_classes",
    "decode_entry",
    "differing_columns",
    "encode_entry",
    "indexed_words",
    "is_standing",
    "read_entry",
    "reason",
    "spread_rows",
    "subject_of",
    "subjects",
]
