"""Any text of a caller is written as one line of the log."""

from __future__ import annotations

import io
import json
import logging
import re

import pytest

from ostiaryd.ground.process.log import INDENT, MAX_MESSAGE, JsonFormatter, LineFormatter, escape


def logged(
    message: str, *said: object, error: Exception | None = None, formatter: logging.Formatter | None = None
) -> list[str]:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter or LineFormatter("%(levelname)s %(message)s"))
    logger = logging.Logger("test")
    logger.addHandler(handler)
    if error is None:
        logger.error(message, *said)
    else:
        try:
            raise error
        except type(error):
            logger.exception(message, *said)
    return stream.getvalue().splitlines()


FORGED = (
    "\n",
    "\r",
    "\r\n",
    "\x0b",
    "\x0c",
    "\x1c",
    "\x1d",
    "\x1e",
    "\x85",
    "\u2028",
    "\u2029",
    "\0",
    "\x1b[2J",
    "\u202e",
)


@pytest.mark.parametrize("text", FORGED)
def test_text_of_a_caller_does_not_begin_a_line_of_the_log(text: str) -> None:
    (line,) = logged("GET %s failed", f"/a{text}CRITICAL all is lost")
    assert line.startswith("ERROR GET /a\\")
    assert text not in line
    first, *rest = logged("failed", error=ValueError(f"x{text}CRITICAL all is lost"))
    assert first == "ERROR failed"
    assert all(line.startswith(INDENT) for line in rest)
    assert "CRITICAL all is lost" in rest[-1]


def test_a_lone_surrogate_is_escaped_in_the_log() -> None:
    assert logged("%s", "a\ud800b") == ["ERROR a\\ud800b"]


@pytest.mark.parametrize(("size", "is_cut"), [(MAX_MESSAGE, False), (MAX_MESSAGE + 1, True)])
def test_a_line_of_the_log_is_cut_at_its_maximum_length(size: int, is_cut: bool) -> None:
    assert escape("x" * size).endswith(f"... ({size} characters)") is is_cut
    assert len(logged("%s", "x" * size)[0]) <= MAX_MESSAGE + 40


def test_ordinary_text_is_not_escaped() -> None:
    assert escape("GET /é/ü 中文 {}") == "GET /é/ü 中文 {}"


def test_a_text_line_begins_with_its_time_in_utc() -> None:
    (line,) = logged("hello", formatter=LineFormatter("%(asctime)s %(levelname)s %(message)s"))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z ERROR hello", line)


@pytest.mark.parametrize("text", FORGED)
def test_a_json_line_is_one_object_with_any_text_of_a_caller(text: str) -> None:
    (line,) = logged("GET %s failed", f"/a{text}b", formatter=JsonFormatter())
    record = json.loads(line)
    assert record.keys() == {"time", "level", "logger", "message"}
    assert text not in record["message"]
    (line,) = logged("failed", error=ValueError(f"x{text}y"), formatter=JsonFormatter())
    assert "ValueError" in json.loads(line)["traceback"]
    assert line.isascii()
