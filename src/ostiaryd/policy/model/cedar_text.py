"""Checks of Cedar text before the native parser reads the text: limits on its size, and on all forms for which the
parser recurses.

Cedar's parser recurses, and a stack overflow ends the process. With a stack of 8 MiB, it overflows at about 640 nested
brackets, or at 1,300 operators in a row. The scanner of this module reads strings and comments as Cedar does.
"""

from __future__ import annotations

import re

from ostiary.protocol.errors import Invalid, Malformed

MAX_FILE_BYTES = 1 << 20
MAX_POLICIES = 5000
MAX_BRACKETS = 64
MAX_OPERATORS = 600
"""maximum number of operators in one policy; an opening bracket counts as an operator"""
MAX_SCHEMA_BYTES = 64 << 10
MAX_SCHEMA_WORDS = 4000
MAX_SCHEMA_PARENTS = 500

_TOKEN = re.compile(
    r"""(?P<skip> //[^\n\r]* | "(?:\\.|[^"\\])*")
      | (?P<quote> ")
      | (?P<open> [(\[{<]) | (?P<close> [)\]}>])
      | (?P<end> ;)
      | (?P<operator> &&|\|\||==|!=|[-+*.!]|\b(?:if|then|else|in|has|like|is|when|unless)\b)
      | (?P<word> [A-Za-z_]\w*)""",
    re.VERBOSE | re.ASCII,
)


def check_policies(name: str, text: str) -> int:
    """Check the size, the nesting and the number of operators of the policies in a Cedar file, before Cedar parses it.
    Return the number of semicolons, which is an upper limit for the number of policies. `name`: the name of the file,
    for errors. Raises Malformed for a string without an end, Invalid for text beyond a limit.
    """
    _check_size(name, text, MAX_FILE_BYTES)
    depth = operators = policies = 0
    for token in _TOKEN.finditer(text):
        kind = token.lastgroup
        if kind == "end":
            operators, policies = 0, policies + 1
        elif kind == "close":
            depth -= token[0] != ">"
        elif kind == "open" or kind == "operator":
            depth += kind == "open" and token[0] != "<"
            operators += 1
            if depth > MAX_BRACKETS:
                raise Invalid(f"{_at(name, text, token)}: brackets are nested deeper than {MAX_BRACKETS}")
            if operators > MAX_OPERATORS:
                raise Invalid(
                    f"{_at(name, text, token)}: the policy has more than {MAX_OPERATORS} operators",
                    hint="divide the policy into several policies",
                )
        elif kind == "quote":
            raise Malformed(f"{_at(name, text, token)}: a string does not end")
    return policies


def check_schema(name: str, text: str) -> list[str]:
    """Check the size and the nesting of a Cedar schema, before Cedar parses it; return its identifiers and operators in
    the order of the text. `name`: the name of the file, for errors. Raises Malformed for a string without an end,
    Invalid for text beyond a limit.
    """
    _check_size(name, text, MAX_SCHEMA_BYTES)
    words: list[str] = []
    depth = 0
    for token in _TOKEN.finditer(text):
        kind = token.lastgroup
        if kind == "word" or kind == "operator":
            words.append(token[0])
        elif kind == "close":
            depth -= 1
        elif kind == "open":
            depth += 1
            if depth > MAX_BRACKETS:
                raise Invalid(f"{_at(name, text, token)}: brackets are nested deeper than {MAX_BRACKETS}")
        elif kind == "quote":
            raise Malformed(f"{_at(name, text, token)}: a string does not end")
    if len(words) > MAX_SCHEMA_WORDS or words.count("in") > MAX_SCHEMA_PARENTS:
        limits = f"{MAX_SCHEMA_WORDS} words, {MAX_SCHEMA_PARENTS} times `in`"
        raise Invalid(f"{name}: the schema is too large", hint=f"use at most {limits} in the schema")
    return words


def _check_size(name: str, text: str, limit: int) -> None:
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise Malformed(f"{name}: the text has a lone surrogate") from None
    if size > limit:
        raise Invalid(f"{name} has {size} bytes", hint=f"use at most {limit} bytes")


def _at(name: str, text: str, token: re.Match[str]) -> str:
    before = text[: token.start()]
    return f"{name}:{before.count(chr(10)) + 1}:{token.start() - before.rfind(chr(10))}"
