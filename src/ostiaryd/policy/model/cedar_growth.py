"""An estimate of how much Cedar text grows when Cedar expands the text before evaluation.

Cedar expands `base has a.b.c` to three copies of `base`, and `base is T in g` to two. Nested forms multiply the copies,
so that one line of text can occupy the parser for hours. This module counts the copies from the tokens, before the
parser reads the text.
"""

from __future__ import annotations

import re

_TOKEN = re.compile(
    r"""//[^\n\r]* | (?P<string>"(?:\\.|[^"\\])*")
      | (?P<has>\bhas\b\s*(?P<path>[A-Za-z_]\w*(?:\s*\.\s*[A-Za-z_]\w*)*)?)
      | (?P<is>\bis\b)
      | (?P<open>[(\[{]) | (?P<close>[)\]}])
      | (?P<end>&&|\|\||[=!<>]=|[<>,:;]|\b(?:in|like|if|then|else)\b)
      | (?P<other>\w+|[^\s\w])""",
    re.VERBOSE | re.ASCII | re.DOTALL,
)


def growth(text: str) -> int:
    """Return an upper limit for the number of tokens by which a Cedar text grows when Cedar expands its short forms,
    such as `has a.b`. The time is linear in the length of the text.
    """
    tokens, total = 0, 0
    groups: list[tuple[int, int]] = []  # for each open bracket: the values of `before` and `operand` outside of it
    before, operand = 0, 0
    for token in _TOKEN.finditer(text):
        kind = token.lastgroup
        if kind is None:
            continue
        tokens += 1
        match kind:
            case "has":
                operand = operand * (1 + (token["path"] or "").count(".")) + 1
            case "is":
                operand = operand * 2 + 1
            case "open":
                groups.append((before, operand + 1))
                before, operand = 0, 0
            case "close" if groups:
                inside = before + operand + 1
                before, operand = groups.pop()
                operand += inside
            case "end":
                before, operand = before + operand + 1, 0
            case _:
                operand += 1
    total = before + operand + sum(outer + inner for outer, inner in groups)
    return total - tokens
