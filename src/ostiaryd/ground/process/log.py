"""Log lines: one line of limited length for each message, regardless of the text that a caller put into it.

As text, a line is `2026-01-31T12:00:00.123Z WARNING ostiary message`. As JSON, a line is an object with the members
`time`, `level`, `logger` and `message`, and `traceback` for an exception.
"""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Literal, TextIO

Format = Literal["text", "json"]

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
"""Replacements for characters that begin a line, move the cursor or hide text, including bidirectional overrides and
surrogates.
"""
_CONTROLS |= {number: f"\\u{number:04x}" for number in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))}
_CONTROLS |= {number: f"\\u{number:04x}" for number in range(0xD800, 0xE000)}


def escape(text: str, *, most: int = MAX_MESSAGE) -> str:
    """Return the first `most` characters of `text` as one line, with control characters escaped."""
    cut = text if len(text) <= most else f"{text[:most]}... ({len(text)} characters)"
    return cut.translate(_CONTROLS)


class LineFormatter(logging.Formatter):
    """Formats log records as text. Escapes messages and indents each line of a traceback, so that a caller cannot forge
    a line of the log.
    """

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Return the record as one line, with its control characters escaped."""
        record.message = escape(record.message)
        return super().formatMessage(record)

    def formatException(self, ei: object) -> str:
        """Return the end of the traceback, each line indented and escaped."""
        text = super().formatException(ei)  # type: ignore[arg-type]  # as `logging` hands it on
        lines = text[-MAX_TRACEBACK:].split("\n")
        return "\n".join(INDENT + escape(line) for line in lines)

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        """Return the time in UTC, with milliseconds (RFC 3339)."""
        return _time_of(record)


class JsonFormatter(logging.Formatter):
    """Formats each log record as a JSON object in one line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the JSON of a record: ASCII only, so that it contains no line end."""
        line = {"time": _time_of(record), "level": record.levelname, "logger": record.name}
        line["message"] = escape(record.getMessage())
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)[-MAX_TRACEBACK:]
        return json.dumps(line)


def _time_of(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def log_to(stream: TextIO, form: Format = "text") -> None:
    """Send every log record of the process to `stream`, as lines of text or of JSON."""
    handler = logging.StreamHandler(stream)
    text = LineFormatter("%(asctime)s %(levelname)s %(name)s %(message)s")
    handler.setFormatter(JsonFormatter() if form == "json" else text)
    logging.basicConfig(level=logging.INFO, handlers=[handler])
