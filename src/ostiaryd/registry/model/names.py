"""The form of a name, an e-mail address and a purpose.

Names are ASCII, so that no two different names look the same. Each error names the character that is not allowed.
"""

from __future__ import annotations

import re
import unicodedata

from ostiary.protocol.errors import Invalid

NAME_LIMIT = 63
TEXT_LIMIT = 1000
EMAIL_LIMIT = 254
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
ID_PREFIXES = ("ag_", "ap_", "lp_", "pe_", "pp_", "rs_", "te_", "tk_", "tok_")
_ATOM, _LABEL = r"[!#$%&'*+/=?^_`{|}~A-Za-z0-9-]+", r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_EMAIL = re.compile(rf"(?=.{{1,64}}@){_ATOM}(?:\.{_ATOM})*@{_LABEL}(?:\.{_LABEL})*")


def check_name(unverified_name: str, *, of: str = "name") -> str:
    """Return a name after checking that it cannot be mistaken for an id or another name. `of` is the kind of name in
    errors. Raises Invalid for any other name.
    """
    name = unverified_name
    if _NAME.fullmatch(name):
        if name.startswith(ID_PREFIXES):
            raise Invalid(f"the {of} `{name}` begins with the prefix of an id", hint="remove the part before the `_`")
        return name
    if not name:
        raise Invalid(f"the {of} is empty")
    if len(name) > NAME_LIMIT:
        raise Invalid(f"the {of} has {len(name)} characters, at most {NAME_LIMIT} are allowed")
    wrong = next((c for c in name if not re.match(r"[a-z0-9._-]", c)), name[0])
    hint = "use a-z, 0-9, `.`, `_` and `-`, beginning with a letter or digit"
    raise Invalid(f"the {of} contains {_describe(wrong)}", hint=hint)


def check_text(text: str, *, of: str, limit: int = TEXT_LIMIT) -> str:
    """Return a text for people after checking it: 1 to `limit` characters, not only spaces, and no invisible or control
    characters except line breaks and tabs. `of` names the text in errors. Raises Invalid for any other text.
    """
    if not 1 <= len(text) <= limit or text.isspace():
        raise Invalid(f"the {of} must have 1 to {limit} characters")
    if text.isprintable():  # most texts are; a printable character is of none of the categories below
        return text
    for character in text:
        if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp") and character not in "\n\t":
            raise Invalid(f"the {of} contains {_describe(character)}", hint="remove the invisible character")
    return text


def check_email(address: str) -> str:
    """Return an e-mail address after checking its form (RFC 5321 section 4.1.2, ASCII, unquoted). Raises Invalid for
    any other text.
    """
    if len(address) > EMAIL_LIMIT or not _EMAIL.fullmatch(address):
        raise Invalid("the e-mail address is not valid", hint="write the address as name@example.org")
    return address


def _describe(character: str) -> str:
    name = unicodedata.name(character, "unnamed")
    shown = f" `{character}`" if character.isascii() and character.isprintable() else ""
    return f"the character{shown} U+{ord(character):04X} ({name.lower()})"
