"""Forms of a secret, and readings of the text that a program sends."""

from __future__ import annotations

import base64
import html
import json
import textwrap
from urllib.parse import quote

import pytest

from ostiary.protocol.secret_forms import (
    MAX_SEARCHED,
    SecretSent,
    check_searchable,
    forms_of,
    texts_in,
    texts_of,
)

VALUE = 'sk-"c4n4ry/+<4711>&~'
RAW = VALUE.encode()
WRAPPED = "\n".join(textwrap.wrap(base64.b64encode(b"before " + RAW * 2).decode(), 7))
LEAKS = {
    "unchanged": VALUE,
    "reversed": VALUE[::-1],
    "percent": quote(VALUE, safe=""),
    "some letters in percent": "".join(f"%{ord(one):02x}" if at % 3 else one for at, one in enumerate(VALUE)),
    "some letters in percent, twice": quote(
        "".join(f"%{byte:02X}" if byte % 3 else chr(byte) for byte in RAW), safe=""
    ),
    "hexadecimal": RAW.hex(" ", 2),
    "base64 in lines": WRAPPED,
    "base64 of UTF-16": base64.b64encode(VALUE.encode("utf-16-le")).decode(),
    "base32": base64.b32encode(b"xy" + RAW).decode(),
    "base32 in small letters": base64.b32encode(RAW).decode().lower(),
    "JSON": json.dumps(VALUE),
    "some letters in JSON": "".join(f"\\u{ord(one):04x}" if at % 2 else one for at, one in enumerate("sk-" + VALUE)),
    "escapes of C": "".join(f"\\x{byte:02x}" for byte in RAW),
    "HTML": html.escape(VALUE),
    "octal numbers": "".join(f"\\{byte:03o}" for byte in RAW),
    "letters in escaped tags": json.dumps("".join(f"<b>{html.escape(one)}</b>" for one in VALUE)).replace(
        "<", "\\u003c"
    ),
    "letters in tags": "".join(f"<b>{html.escape(one)}</b>" for one in VALUE),
    "some letters in HTML": "".join(f"&#{ord(one)};" if at % 2 else one for at, one in enumerate(VALUE)),
    "spaces": " ".join(VALUE),
    "lines": "\r\n".join(VALUE),
    "accents": "\u0301".join(VALUE),
    "code points of JavaScript": "".join(f"\\u{{{byte:x}}}" for byte in RAW),
    "code points of Python": "".join(f"\\U{byte:08x}" for byte in RAW),
    "invisible letters": "\u200b".join(VALUE),
    "wide letters": "".join(chr(ord(one) + 0xFEE0) for one in VALUE),
    "UTF-16": "\0".join(VALUE),
}


def is_found(text: str) -> bool:
    return any(form in reading for reading in texts_of(text.encode()) for form in forms_of(VALUE))


@pytest.mark.parametrize("leak", LEAKS)
def test_a_secret_is_detected_in_each_encoding(leak: str) -> None:
    assert is_found(f"key={LEAKS[leak]}.")
    assert not is_found(f"key={LEAKS[leak][:9]}.")


def test_a_brace_after_a_decoded_escape_is_kept() -> None:
    value = "abcdef}gh"
    sent = value.replace("f", "\\u0066").encode()
    assert any(form in reading for reading in texts_of(sent) for form in forms_of(value))


@pytest.mark.parametrize(
    "text", [VALUE[:-1], VALUE[1:], VALUE.replace("n", "m"), "", "%", "\\", "&#;", "\\u00", "\ud7ff"]
)
def test_text_without_the_whole_secret_is_not_detected_as_the_secret(text: str) -> None:
    assert not is_found(text)


def test_searched_text_contains_values_in_order_and_then_names() -> None:
    arguments = {"a": ["x", {"b": 12345678, "c": None}], "d": {"e": ("\0y\0", 1.5)}, "\ud800": "z\ud800"}
    values, names = ["x", "12345678", "y", "1.5", "z?"], {"a", "b", "c", "d", "e", "?"}
    texts = texts_in(arguments).split("\n")
    assert (texts[: len(values)], set(texts[len(values) :])) == (values, names)
    assert is_found(texts_in({"a": VALUE[:7], "b": [VALUE[7:]]})), "halves beside each other"
    assert is_found(texts_in({"a": [*VALUE], "b": 1})), "single letters"
    assert is_found(texts_in({"a": [*RAW], "b": "x"})), "the numbers of its bytes"
    assert not is_found(texts_in({"a": VALUE[:7], "x": "y", "b": VALUE[7:]}))
    nested: dict[str, object] = {"x": VALUE}
    for _ in range(5000):
        nested = {"x": nested}
    assert is_found(texts_in(nested))


def test_a_text_beyond_the_maximum_searched_size_is_refused() -> None:
    assert len(check_searchable("é" * (MAX_SEARCHED // 2))) == MAX_SEARCHED
    with pytest.raises(SecretSent) as refused:
        check_searchable("é" * (MAX_SEARCHED // 2) + "x")
    assert refused.value.code == "too_long_to_search"
