"""Canonical JSON against RFC 8785 and on each of its own limits."""

from __future__ import annotations

import json
import struct
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ostiary.protocol import canonical
from ostiary.protocol.errors import Malformed
from ostiary.protocol.jose import b64u

# RFC 8785 appendix B: the bits of a double, and how it is spelled
NUMBERS = [
    ("0000000000000000", "0"),
    ("8000000000000000", "0"),
    ("0000000000000001", "5e-324"),
    ("8000000000000001", "-5e-324"),
    ("7fefffffffffffff", "1.7976931348623157e+308"),
    ("ffefffffffffffff", "-1.7976931348623157e+308"),
    ("4340000000000000", "9007199254740992"),
    ("c340000000000000", "-9007199254740992"),
    ("4430000000000000", "295147905179352830000"),
    ("44b52d02c7e14af5", "9.999999999999997e+22"),
    ("44b52d02c7e14af6", "1e+23"),
    ("44b52d02c7e14af7", "1.0000000000000001e+23"),
    ("444b1ae4d6e2ef4e", "999999999999999700000"),
    ("444b1ae4d6e2ef4f", "999999999999999900000"),
    ("444b1ae4d6e2ef50", "1e+21"),
    ("3eb0c6f7a0b5ed8c", "9.999999999999997e-7"),
    ("3eb0c6f7a0b5ed8d", "0.000001"),
    ("41b3de4355555553", "333333333.3333332"),
    ("41b3de4355555554", "333333333.33333325"),
    ("41b3de4355555555", "333333333.3333333"),
    ("41b3de4355555556", "333333333.3333334"),
    ("41b3de4355555557", "333333333.33333343"),
    ("becbf647612f3696", "-0.0000033333333333333333"),
    ("43143ff3c1cb0959", "1424953923781206.2"),
]

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-canonical.MAX_INT, canonical.MAX_INT) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)


@pytest.mark.parametrize(("bits", "text"), NUMBERS)
def test_numbers_are_spelled_as_in_rfc_8785(bits: str, text: str) -> None:
    (number,) = struct.unpack(">d", bytes.fromhex(bits))
    assert canonical.encode([number], floats=True) == f"[{text}]".encode()


def test_members_are_sorted_as_in_rfc_8785_section_3_2_3() -> None:
    value = {"\u20ac": 1, "\r": 2, "\ufb33": 3, "1": 4, "\U0001f600": 5, "\x80": 6, "\u00f6": 7}
    assert (
        canonical.encode(value).decode() == '{"\\r":2,"1":4,"\x80":6,"\u00f6":7,"\u20ac":1,"\U0001f600":5,"\ufb33":3}'
    )


def test_strings_are_escaped_as_in_rfc_8785_section_3_2_2() -> None:
    value = '\u20ac$\x0f\nA\'B"\\\\"/\x7f\x08\t\x0c\x1f'
    assert canonical.encode(value).decode() == '"\u20ac$\\u000f\\nA\'B\\"\\\\\\\\\\"/\x7f\\b\\t\\f\\u001f"'


def test_strings_are_not_normalised() -> None:
    assert canonical.encode("\u00e9") != canonical.encode("e\u0301")


def test_equal_numbers_have_one_encoding() -> None:
    assert canonical.encode({"n": 1.0}) == canonical.encode({"n": 1}) == b'{"n":1}'
    assert canonical.digest([-0.0]) == canonical.digest([0])


def test_a_fraction_is_refused_unless_floats_are_enabled() -> None:
    assert canonical.encode({"b": 0.5, "a": (1, 2)}, floats=True) == b'{"a":[1,2],"b":0.5}'
    with pytest.raises(Malformed, match="not an integer"):
        canonical.encode({"b": 0.5})
    with pytest.raises(Malformed, match="not an integer"):
        canonical.digest([1e300])


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_a_number_that_is_not_finite_is_refused(number: float) -> None:
    for floats in (True, False):
        with pytest.raises(Malformed):
            canonical.encode([number], floats=floats)


@pytest.mark.parametrize("limit", [canonical.MAX_INT, -canonical.MAX_INT])
def test_an_integer_beyond_the_limit_of_2_to_the_53_is_refused(limit: int) -> None:
    beyond = limit + (1 if limit > 0 else -1)
    assert canonical.encode(limit) == str(limit).encode()
    with pytest.raises(Malformed, match="2\\^53"):
        canonical.encode([beyond])


def test_integers_of_up_to_4300_digits_are_encoded_in_full_if_floats_are_enabled() -> None:
    for number in (2**53, -(2**64), 2**64 + 1, 10**4299):
        assert canonical.encode([number], floats=True) == f"[{number}]".encode()
    with pytest.raises(Malformed, match="4,300 digits"):
        canonical.encode([10**4300], floats=True)


def nested(levels: int) -> object:
    value: object = 1
    for level in range(levels):
        value = [value] if level % 2 else {"a": value}
    return value


def test_a_value_nested_beyond_the_maximum_depth_is_refused() -> None:
    for levels in (canonical.MAX_DEPTH - 1, canonical.MAX_DEPTH):
        assert canonical.parse(canonical.encode(nested(levels))) == nested(levels)
    too_deep = json.dumps(nested(canonical.MAX_DEPTH + 1))
    with pytest.raises(Malformed, match="deep"):
        canonical.encode(nested(canonical.MAX_DEPTH + 1))
    with pytest.raises(Malformed, match="deep"):
        canonical.parse(too_deep)
    with pytest.raises(Malformed, match="deep"):
        canonical.parse("[" * 100_000 + "]" * 100_000)


def test_a_text_beyond_the_maximum_size_is_refused() -> None:
    assert canonical.parse(b'"abc"', max_bytes=5) == "abc"
    assert canonical.parse(b'"ab"', max_bytes=5) == "ab"
    with pytest.raises(Malformed, match="longer"):
        canonical.parse(b'"abcd"', max_bytes=5)


@pytest.mark.parametrize("value", [b"bytes", {1: 2}, {1, 2}, object(), {"a": [b""]}, {None: 1}])
def test_encoding_a_value_without_a_json_form_is_refused(value: object) -> None:
    with pytest.raises(Malformed):
        canonical.encode(value)


@pytest.mark.parametrize("value", ["\ud800", {"\udc00": 1}, {"a": ["\ud800"]}, [0.5, "\ud800"], {"\udc00\u00e9": 0.5}])
def test_a_lone_surrogate_is_refused(value: object) -> None:
    with pytest.raises(Malformed, match="surrogate"):
        canonical.encode(value, floats=True)
    with pytest.raises(Malformed, match="surrogate"):
        canonical.parse('"\ud800"')


@pytest.mark.parametrize(
    "text",
    [
        '{"a":1,"a":2}',
        '{"a":1,"a" :2}',
        '{"a":1,"a"\n\t:2}',
        '{"a":1,"\\u0061":2}',
        '{"x":{"a":1,"a":1}}',
        '[{"a":1},{"a":":","a":2}]',
        '{"a":":foo","a":1}',
        '{"a\\\\":1,"a\\\\":2}',
        '{"":1,"":2}',
        '{"a":"\\":","a":0}',
        '{"a":[],"b":"x:y","a":[]}',
    ],
)
def test_a_repeated_member_is_refused(text: str) -> None:
    with pytest.raises(Malformed, match="same member twice"):
        canonical.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        '{"a":{"a":1}}',
        '[{"a":1},{"a":1}]',
        '{"a":":foo","b":"x\\":","c\\":":1,"d:":":"}',
        '{"a" : 1 , "A":2}',
        '{"iss":"https://a.example","\\\\":":\\\\"}',
    ],
)
def test_objects_without_a_repeated_member_are_parsed(text: str) -> None:
    assert canonical.parse(text) == json.loads(text)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"NaN",
        b"-Infinity",
        b"1e999",
        b"1" * 5000,
        b"\xff",
        b'"\\ud800"',
        b"1 2",
        b"\xef\xbb\xbf1",
        b"'a'",
        b"01",
        b"{a:1}",
        b"[1,]",
        b"/**/1",
        b'"\t"',
    ],
)
def test_parsing_text_that_is_not_json_is_refused(text: bytes) -> None:
    with pytest.raises(Malformed):
        canonical.parse(text)


def test_a_digest_is_computed_over_the_canonical_bytes() -> None:
    assert canonical.digest({"b": 1, "a": 2}) == b64u(sha256(b'{"a":2,"b":1}').digest())


@given(json_values)
def test_parsing_an_encoded_value_returns_the_value(value: object) -> None:
    assert canonical.parse(canonical.encode(value)) == value


@given(st.dictionaries(st.text(max_size=3), st.integers(0, 9), max_size=6), st.randoms())
def test_the_order_of_members_does_not_change_the_encoding(members: dict[str, int], random) -> None:  # type: ignore[no-untyped-def]
    shuffled = list(members.items())
    random.shuffle(shuffled)
    encoded = canonical.encode(dict(shuffled))
    assert encoded == canonical.encode(members)
    assert list(json.loads(encoded)) == sorted(members, key=lambda name: name.encode("utf-16-be"))


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_an_encoded_float_parses_to_the_same_float(number: float) -> None:
    assert float(canonical.encode(number, floats=True)) == number


@given(st.binary(max_size=60) | st.text(alphabet='{}[]":,\\ au0061é\n', max_size=40))
def test_parsing_anything_raises_nothing_but_malformed(data: bytes | str) -> None:
    try:
        value = canonical.parse(data)
    except Malformed:
        return
    assert json.loads(data) == value


@given(st.lists(st.tuples(st.text('a":\\ :', max_size=3), st.text('a":\\ :', max_size=3)), max_size=4), st.booleans())
def test_repeated_members_are_detected_among_any_quotes_colons_and_escapes(
    pairs: list[tuple[str, str]], spaced: bool
) -> None:
    colon = " : " if spaced else ":"
    text = "{" + ",".join(f"{json.dumps(name)}{colon}{json.dumps(value)}" for name, value in pairs) + "}"
    if len(dict(pairs)) == len(pairs):
        assert canonical.parse(text) == dict(pairs)
    else:
        with pytest.raises(Malformed, match="same member twice"):
            canonical.parse(text)
