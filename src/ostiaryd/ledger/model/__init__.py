"""What an entry of the ledger says, and the budget that refusals have in it."""

from ostiaryd.ledger.model.entry import (
    MAX_ROWS,
    MESSAGE_LIMIT,
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
)

__all__ = [
    "MAX_ROWS",
    "MESSAGE_LIMIT",
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
]
