"""Log lines: one line for each message, whatever a caller put into it, and a bounded length."""

from __future__ import annotations

import logging
from typing import TextIO

MAX_MESSAGE = 2000
MAX_TRACEBACK = 20_000
INDENT = "    | "
_CONTROLS = {number: f"\\x{number:02x}" for number in (*range(32), *range(127, 160))} | {
    0x2028: "\\u2028",
    0x2029: "\\u2029",
    10: "\\n",
    13: "\\r",
    9: "\\t",
}
"""What would begin a line, move the cursor or hide text; bidirectional overrides and surrogates are escaped as well."""
_CONTROLS |= {number: f"\\u{number:04x}" for number in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))}
_CONTROLS |= {number: f"\\u{number:04x}" for number in range(0xD800, 0xE000)}


def escape(text: str, *, most: int = MAX_MESSAGE) -> str:
    """Return `text` as one line of at most `most` characters before escaping."""
    cut = text if len(text) <= most else f"{text[:most]}... ({len(text)} characters)"
    return cut.translate(_CONTROLS)


class LineFormatter(logging.Formatter):
    """Escape messages, and indent each line of a traceback, so that no line of a log is a caller's."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = escape(record.message)
        return super().formatMessage(record)

    def formatException(self, ei: object) -> str:
        text = super().formatException(ei)  # type: ignore[arg-type]  # as `logging` hands it on
        lines = text[-MAX_TRACEBACK:].split("\n")
        return "\n".join(INDENT + escape(line) for line in lines)


def log_to(stream: TextIO) -> None:
    """Send every log record of the process to `stream`, as lines."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(LineFormatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
