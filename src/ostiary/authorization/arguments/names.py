"""Names that a person, or a parser that ignores case, may confuse."""

from __future__ import annotations

import unicodedata

_LOOKALIKES = str.maketrans(
    {
        "а": "a",
        "в": "b",
        "с": "c",
        "ԁ": "d",
        "е": "e",
        "һ": "h",
        "і": "i",
        "ј": "j",
        "к": "k",
        "м": "m",
        "н": "h",
        "о": "o",
        "р": "p",
        "ԛ": "q",
        "ѕ": "s",
        "т": "t",
        "у": "y",
        "ѵ": "v",
        "ԝ": "w",
        "х": "x",
        "ӏ": "l",
        "α": "a",
        "β": "b",
        "ε": "e",
        "η": "n",
        "ι": "i",
        "κ": "k",
        "μ": "u",
        "ν": "v",
        "ο": "o",
        "ρ": "p",
        "τ": "t",
        "υ": "u",
        "χ": "x",
        "ω": "w",
        "γ": "y",
        "օ": "o",
        "ս": "u",
        "ո": "n",
        "հ": "h",
        "ց": "g",
        "զ": "q",
        "ɑ": "a",
        "ɡ": "g",
        "ɩ": "i",
        "ı": "i",
        "ᴀ": "a",
        "ʙ": "b",
        "ᴄ": "c",
        "ᴇ": "e",
        "ɪ": "i",
        "ᴏ": "o",
        "ꜱ": "s",
        "0": "o",
        "1": "l",
    }
)
"""characters that look like a Latin letter, each with this letter (after UTS 39, section 4)"""


def skeleton(name: str) -> str:
    """Return a form that is equal for all names that look alike: only letters and digits, without case, width and
    accents, and with each similar letter of another alphabet (and `0` and `1`) replaced by a Latin letter.
    """
    folded = name.casefold()
    if not name.isascii():
        folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", name).casefold())
    folded = folded.translate(_LOOKALIKES)
    return folded if folded.isalnum() else "".join(filter(str.isalnum, folded))
