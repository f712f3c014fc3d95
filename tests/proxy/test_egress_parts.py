"""Parts of the egress proxy: masks, placeholders, destinations, and heads that are read strictly."""

from __future__ import annotations

import base64
import gzip
import hashlib
import html
import json
import quopri
import re
import time
import zlib
from collections.abc import Callable
from inspect import signature
from itertools import pairwise
from random import Random
from string import ascii_letters, digits
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.egress import masked_frame
from ostiary import ambient
from ostiary.cli.egress import add_destination
from ostiary.protocol.destination import (
    MAX_SECRET,
    MIN_SECRET,
    Destination,
    Place,
    check_secret,
    parse_host,
    parse_origin,
)
from ostiary.protocol.errors import Invalid
from ostiary.protocol.secret_forms import Reading, forms_of, readings_of
from ostiary.proxy.connections import CHUNK, MAX_HEAD
from ostiary.proxy.egress import masking
from ostiary.proxy.egress.frames import MAX_WAITING, FrameContent, FrameReader, MaskedFrames
from ostiary.proxy.egress.inflating import MAX_INFLATED, InflatedBody
from ostiary.proxy.egress.injection import OutgoingRequest, divide_begun, fill_body
from ostiary.proxy.egress.masking import MAX_ESCAPE, MAX_SHOWN, MaskedStream, Masks, ObservedStream, SearchedStream
from ostiary.proxy.egress.secrets import KEPT_S, SecretSource
from ostiary.proxy.egress.strictness import (
    Authority,
    check_answer_head,
    check_framing,
    check_head,
    normalize_path,
    parse_authority,
)
from ostiary.proxy.entrance import Rejected
from ostiary.run.gate import InjectedSecret, Injection
from tests.support.sources import ROOT

VALUE = 'sk-"c4n4ry/+<4711>'
NUMBERS = ("%{:02X}", "%{:02x}", "\\u{:04x}", "\\u{:04X}", "\\x{:02x}", "&#{};", "&#x{:x};", "&#x{:X};")


def written(number: str, kept: str = "") -> str:
    """The value with numbers in place of the characters that are not kept."""
    return "".join(one if one in kept else number.format(ord(one)) for one in VALUE)


FORMS = {
    VALUE,
    quote(VALUE, safe=""),
    quote(VALUE),
    quote_plus(VALUE),
    "".join(f"%{byte:02x}" for byte in VALUE.encode()),
    VALUE.encode().hex(),
    json.dumps(VALUE)[1:-1],
    html.escape(VALUE),
    base64.b64encode(VALUE.encode()).decode(),
    base64.urlsafe_b64encode(VALUE.encode()).decode(),
    VALUE.upper(),
    VALUE.encode().hex(" "),
    VALUE.encode().hex(":").upper(),
    VALUE.encode().hex("-").upper(),
    ", ".join(f"0x{byte:02x}" for byte in VALUE.encode()),
    json.dumps([*VALUE.encode()])[1:-1],
    json.dumps([*VALUE.encode()], separators=(",", ":"))[1:-1],
    *(written(number) for number in NUMBERS),
    *(written(number, kept=ascii_letters + digits) for number in NUMBERS),
    written("\\u{:04X}", kept=ascii_letters + digits + "/+"),
}


SLASHED = "user:?>?>~~?"
BASIC = base64.b64encode(SLASHED.encode()).decode()


@pytest.mark.parametrize(
    "form",
    [
        quote(BASIC, safe=""),
        BASIC.replace("/", "\\/"),
        BASIC.replace("/", "\\u002F").replace("+", "\\u002B"),
        BASIC.replace("/", "&#x2F;"),
    ],
)
def test_base64_is_masked_as_urls_json_and_html_write_it(form: str) -> None:
    assert form != BASIC
    assert masks(SLASHED).mask(form.encode()) == b"*" * len(form)


def masks(*values: str) -> Masks:
    made = Masks()
    for value in values:
        made.add(value)
    return made


@pytest.mark.parametrize("form", sorted(FORMS))
def test_each_form_of_a_value_becomes_asterisks_of_its_length(form: str) -> None:
    text = f"before {form} behind".encode()
    masked = masks(VALUE).mask(text)
    assert len(masked) == len(text)
    assert form.rstrip("=").encode() not in masked
    assert masks(VALUE).mask(b"before behind") == b"before behind"


@pytest.mark.parametrize("before", range(4))
@pytest.mark.parametrize("behind", range(4))
def test_base64_is_masked_at_each_alignment(before: int, behind: int) -> None:
    encoded = base64.b64encode(b"a" * before + VALUE.encode() + b"b" * behind)
    shown = base64.b64decode(masks(VALUE).mask(encoded).replace(b"*", b"A"))
    kept = sum(one == two for one, two in zip(shown[before:], VALUE.encode(), strict=False))
    assert kept <= 2
    assert masks(VALUE).find(encoded)


@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
@pytest.mark.parametrize("before", range(3))
@pytest.mark.parametrize("between", range(3))
def test_base64_of_base64_is_masked(before: int, between: int, encode: Callable[[bytes], bytes]) -> None:
    inner = b"#" * between + encode(b"#" * before + VALUE.encode() + b"#")
    shown = base64.b64decode(masks(VALUE).mask(base64.b64encode(inner + b"#")).replace(b"*", b"A"))
    assert sum(one == two for one, two in zip(shown, inner, strict=False)) <= between + 8


def test_a_value_that_consists_of_repetitions_is_masked_in_few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    spans, span = list[tuple[int, int]](), Reading.span

    def counted(reading: Reading, start: int, end: int) -> tuple[int, int]:
        spans.append((start, end))
        return span(reading, start, end)

    monkeypatch.setattr(Reading, "span", counted)
    text = b"b" + b"a" * CHUNK + b"b"
    for value in ("a" * MAX_SECRET, "a" * MIN_SECRET):
        assert masks(value).mask(text) == b"b" + b"*" * CHUNK + b"b"
    assert len(spans) < 20
    assert masks("key-4711").mask(b"key-4711<i>key-4711</i>") == b"*" * 8 + b"<i>" + b"*" * 8 + b"</i>"


@given(
    parts=st.lists(st.sampled_from(["sk-", VALUE, VALUE[:7], VALUE[:-1], "x", "abab", "ababab", "\n"]), max_size=8),
    cuts=st.lists(st.integers(0, 120), max_size=12),
    shows=st.integers(0, 2**12),
)
def test_a_stream_is_masked_at_any_division_into_parts(parts: list[str], cuts: list[int], shows: int) -> None:
    text, made = "".join(parts).encode(), masks(VALUE, "abababab")
    stream, sent, start = MaskedStream(made), b"", 0
    early = False
    for number, end in enumerate([*sorted({min(cut, len(text)) for cut in cuts}), len(text)]):
        sent += stream.feed(text[start:end])
        start = end
        if shows >> number & 1:
            shown = stream.show()
            assert len(shown.strip(b"*")) <= MAX_SHOWN
            early |= bool(shown)
            sent += shown
    sent += stream.end()
    assert len(sent) == len(text)
    assert not any(form in sent for form in made.forms)
    if not early:
        assert sent == made.mask(text)


LETTERS = "ab"
"""few letters, so that values overlap, and one begins within another"""
values = st.text(LETTERS, min_size=MIN_SECRET, max_size=24) | st.text(LETTERS, min_size=200, max_size=300)


LINE_ENDS = (b"\n", b"\r\n", b"\\n", b"\\r\\n")
OTHERS = bytes({*range(256)} - {*b"%\\&<="})
"""bytes that begin no escape and no tag"""


def in_lines(text: bytes, width: int, end: bytes) -> bytes:
    """A text in lines of `width` characters."""
    return end.join(text[at : at + width] for at in range(0, len(text), width))


@st.composite
def streams(draw: st.DrawFn) -> tuple[list[bytes], list[tuple[int, str]]]:
    """Parts of a stream with forms of values in it, and the values, each with the number of parts before its use."""
    used = draw(st.lists(values | st.just(VALUE), min_size=1, max_size=4, unique=True))
    forms = [form for value in used for form in sorted(forms_of(value))]
    others = st.lists(st.sampled_from(OTHERS), max_size=3).map(bytes)
    pieces = st.sampled_from(forms) | st.sampled_from(forms).flatmap(
        lambda form: st.integers(1, len(form)).map(lambda size: form[:size])
    )
    pieces |= st.tuples(pieces, st.integers(1, 76), st.sampled_from(LINE_ENDS[:2])).map(lambda one: in_lines(*one))
    text = b"".join(draw(st.lists(pieces | others | st.text(LETTERS, max_size=9).map(str.encode), max_size=6)))
    cuts = draw(st.lists(st.integers(0, len(text)), max_size=12))
    parts = [text[start:end] for start, end in pairwise([0, *sorted(cuts), len(text)])]
    return parts, [(draw(st.integers(0, len(parts) - 1)), value) for value in used]


def occurrences(text: bytes, value: str) -> list[tuple[int, int]]:
    """Start and end of each form of a value in the visible characters of a text, in small letters."""
    places = [at for at, byte in enumerate(text) if 0x20 < byte < 0x7F]
    folded = bytes(text[at] for at in places).lower()
    return [
        (places[start], places[start + len(form) - 1] + 1)
        for form in forms_of(value)
        for start in _starts(folded, form)
    ]


def _starts(text: bytes, form: bytes) -> list[int]:
    return [start for start in range(len(text)) if text.startswith(form, start)]


@given(made=streams())
def test_a_stream_is_masked_for_every_value_that_is_used_before_or_during_the_stream(
    made: tuple[list[bytes], list[tuple[int, str]]],
) -> None:
    parts, used = made
    text, known = b"".join(parts), Masks()
    stream, sent, sent_before = MaskedStream(known), b"", dict[str, int]()
    for number, part in enumerate(parts):
        for begins, value in used:
            if begins == number:
                known.add(value)
                sent_before[value] = len(sent)
        sent += stream.feed(part)
    sent += stream.end()
    hidden = {
        at
        for _, value in used
        for start, end in occurrences(text, value)
        for at in range(max(start, sent_before[value]), end)
        if 0x20 < text[at] < 0x7F
    }
    assert len(sent) == len(text)
    assert all(sent[at : at + 1] == b"*" for at in hidden)
    shown = {at for at in range(len(text)) if sent[at] != text[at]}
    assert shown <= {at for _, value in used for start, end in occurrences(text, value) for at in range(start, end)}, (
        "nothing else is masked"
    )


@pytest.mark.parametrize("end", LINE_ENDS)
@pytest.mark.parametrize("width", [7, 39, 76])
@pytest.mark.parametrize(
    "encode", [base64.b64encode, base64.urlsafe_b64encode, bytes.hex], ids=lambda one: one.__name__
)
def test_a_value_in_lines_of_base64_is_masked_however_the_stream_is_cut(
    end: bytes, width: int, encode: Callable[[bytes], bytes | str]
) -> None:
    encoded = encode(b"honest" * 8 + VALUE.encode() * 3 + b"honest" * 9)
    text = b'"' + in_lines(encoded if isinstance(encoded, bytes) else encoded.encode(), width, end) + b'"'
    whole = masks(VALUE).mask(text)
    assert whole.count(b"*") >= len(encode(VALUE.encode() * 3))
    masked = whole[whole.index(b"*") : whole.rindex(b"*")].replace(end, b"")
    assert set(masked) == set(b"*"), "all three are masked"
    for cut in range(len(text)):
        stream = MaskedStream(masks(VALUE))
        sent = stream.feed(text[:cut]) + stream.feed(text[cut:]) + stream.end()
        shown = [at for at in range(len(text)) if sent[at] != whole[at]]
        assert len(shown) <= (MAX_SHOWN if text[:cut].endswith((b"\r", b"\n")) else 0)
    stream = MaskedStream(masks(VALUE))
    sent = b"".join([*(stream.feed(bytes([byte])) for byte in text), stream.end()])
    assert sum(one != other for one, other in zip(sent, whole, strict=True)) <= MAX_SHOWN


def test_lines_of_base64_without_a_value_stay_as_they_are() -> None:
    text = in_lines(base64.b64encode(bytes(999)), 76, b"\r\n")
    assert masks(VALUE).mask(text) == text


ESCAPES = (*NUMBERS, "\\{:03o}", "\\u{{{:x}}}", "\\x{{{:x}}}", "\\U{:08X}", "%u{:04x}", "&#{:07};", "&#X{:X};")
DIVIDERS = (
    "\n",
    "\\n",
    "\\r\\n",
    " ",
    "\u200b",
    "\\\n",
    "&#10;",
    "%0A",
    "&shy;",
    "\\u200b",
    "<br/>",
    '</b><b class="k">',
    "\x1b[0m\x1b[1;31m",
    "\x1b(B\x1b[m",
    "\x1b[?25l\x1b[38:5:1m",
)
TOKEN = "sk-c4n4ry/+47:11~"


def write_characters(value: str, chance: Random) -> list[str]:
    """The written characters of a value: some are escaped, and some are followed by a divider."""
    escapes, divider = chance.sample(ESCAPES, 3), chance.choice(DIVIDERS)
    written = [chance.choice([one, one, *(number.format(ord(one)) for number in escapes)]) for one in value]
    return [one + chance.choice(["", "", divider]) for one in written[:-1]] + written[-1:]


@given(chance=st.randoms(), cuts=st.lists(st.integers(0, 300), max_size=5), shows=st.integers(0, 63))
def test_a_value_is_masked_whichever_characters_are_escaped_and_however_it_is_divided(
    chance: Random, cuts: list[int], shows: int
) -> None:
    written = [one.encode() for one in write_characters(TOKEN, chance)]
    text = b"(key " + b"".join(written) + b")"
    stream, sent = MaskedStream(masks(TOKEN)), b""
    for number, (start, end) in enumerate(pairwise([0, *sorted({min(cut, len(text)) for cut in cuts}), len(text)])):
        sent += stream.feed(text[start:end])
        sent += stream.show() if shows >> number & 1 else b""
    sent += stream.end()
    masked = masks(TOKEN).mask(text)
    assert (len(sent), len(masked)) == (len(text), len(text))
    assert (sent[:5], sent[-1:]) == (text[:5], b")")
    shown = len(b"".join(written[:MAX_SHOWN])) if cuts else 0
    rest = sent[5 + shown : -1].replace(b"\r", b"").replace(b"\n", b"")
    assert rest == b"*" * len(rest), "the first characters may pass in a pause, or before white space"


def in_json(text: str) -> str:
    return json.dumps(text)[1:-1]


@pytest.mark.parametrize("value", ['p4%caf\\mno&qr"<stu;=v0', "p4%4142\\x41bcd&amp;<i>ef", "\\u0041%%%\\\\&&&&lt;gt"])
@pytest.mark.parametrize("encode", [str, html.escape, in_json, lambda text: quote(text, safe="")])
@pytest.mark.parametrize("again", [str, html.escape, in_json])
def test_a_value_that_looks_like_escapes_is_masked(
    value: str, encode: Callable[[str], str], again: Callable[[str], str]
) -> None:
    written = again(encode(value)).encode()
    masked = masks(value).mask(b'{"a": "' + written + b'"}')
    assert masked == b'{"a": "' + b"*" * len(written) + b'"}'


@pytest.mark.parametrize("number", ESCAPES)
def test_an_escape_that_parts_of_a_stream_divide_is_masked(number: str) -> None:
    text = "".join(one if at % 2 else number.format(ord(one)) for at, one in enumerate(TOKEN)).encode()
    made = masks(TOKEN)
    for cut in range(len(text)):
        stream = MaskedStream(made)
        assert stream.feed(text[:cut]) + stream.feed(text[cut:]) + stream.end() == b"*" * len(text), text[:cut]


@pytest.mark.parametrize("width", [12, 76])
def test_a_value_of_a_mail_is_masked_over_soft_line_breaks(width: int) -> None:
    value = "me:c2VjcmV0=dG9v=bG9uZw=="
    sent = quopri.encodestring(b"x" * 62 + value.encode() + b"y" * 62)
    assert b"=\n" in sent
    masked = masks(value).mask(sent)
    assert quopri.decodestring(masked.replace(b"*=\n", b"*").replace(b"*\n", b"*")).strip(b"xy*\n=") == b""


@pytest.mark.parametrize("end", ["=\n", "=\r\n"])
@pytest.mark.parametrize("value", ["me:c2VjcmV0=dG9vbG9uZw==x", "me:c2VjcmV0xdG9vbG9uZwxxx"])
def test_a_value_of_a_mail_is_masked_however_the_stream_is_cut(value: str, end: str) -> None:
    written = [one.replace("=", "=3D").encode() for one in value]
    text = b"".join([*written[:20], end.encode(), *written[20:]])
    for cut in range(len(text)):
        stream = MaskedStream(masks(value))
        sent = stream.feed(text[:cut]) + stream.feed(text[cut:]) + stream.end()
        assert sent.translate(None, b"\r\n") == b"*" * len(text.translate(None, b"\r\n")), text[:cut]


def test_a_value_in_the_header_of_a_mail_is_masked_however_the_stream_is_cut() -> None:
    text = b"ghp=5FAb3dE6gH9jK2"
    for cut in range(len(text)):
        stream = MaskedStream(masks("ghp_Ab3dE6gH9jK2"))
        sent = stream.feed(text[:cut]) + stream.feed(text[cut:]) + stream.end()
        assert sent == b"*" * len(text), text[:cut]


def test_a_value_of_a_mail_in_html_is_masked() -> None:
    begin, end = b'<b class=3D"k">', b"</b>"
    sent = quopri.encodestring('<b class="k">x</b>'.replace("x", '</b><b class="k">'.join(TOKEN)).encode())
    assert b"=\n" in sent
    masked = masks(TOKEN).mask(sent)
    assert masked.removeprefix(begin).removesuffix(end).replace(b"\n", b"").strip(b"*") == b""


def test_a_page_of_html_is_unchanged_outside_of_the_masked_value() -> None:
    page = f'<p class="a">100% &amp; more: <b>{html.escape(VALUE)}</b> x=41&y=\\n</p>'
    masked = masks(VALUE).mask(page.encode()).decode()
    assert masked == page.replace(html.escape(VALUE), "*" * len(html.escape(VALUE)))


def test_a_download_is_searched_and_only_escapes_in_binary_data_are_not_resolved() -> None:
    download = Random(1).randbytes(20_000)
    made, escaped = masks(TOKEN), "".join(f"\\u{ord(one):04x}" for one in TOKEN).encode()
    assert made.mask(download) == download
    assert made.mask(download + TOKEN.encode() + download) == download + b"*" * len(TOKEN) + download
    assert len([*readings_of(download)]) == 1
    page = "<p>\u043a\u043b\u044e\u0447</p>\n".encode() * 100
    assert made.mask(page + escaped + page) == page + b"*" * len(escaped) + page, "a page in other letters is a text"


def test_a_masked_stream_holds_back_a_bounded_number_of_bytes() -> None:
    made = masks(VALUE)
    stream, sent = MaskedStream(made), 0
    assert stream.feed(VALUE.encode()) + stream.show() == b"*" * len(VALUE), "a whole value waits for nothing"
    for _ in range(50):
        sent += len(stream.feed(VALUE[:9].encode() + b" " * 10_000))
        assert len(stream._raw) <= MAX_ESCAPE * made.longest
    assert sent + len(stream.end()) == 50 * 10_009


def test_many_values_of_one_host_are_searched_in_one_pass() -> None:
    def search(made: Masks) -> float:
        begun = time.process_time()
        for _ in range(20):
            assert b"*" not in made.mask(text)
        return time.process_time() - begun

    text = b'{"key": "key-00-0000-xxxx", "other": [1, 2, 3]}\n' * 200
    values = [f"key-00-0000-{hashlib.sha256(bytes([number])).hexdigest()}" for number in range(200)]
    few, many = masks(values[0]), masks(*values)
    cost_of_few, cost_of_many = (min(search(made) for _ in range(5)) for made in (few, many))
    assert cost_of_many < 10 * cost_of_few, "one by one, 200 times"


def test_headers_of_a_response_stay_separate_if_a_value_continues_in_the_next_line() -> None:
    encoded = base64.b64encode(b"honest" * 9 + VALUE.encode())
    assert masks(VALUE).mask(in_lines(encoded, 76, b"\n")).index(b"\n") == 76


@given(made=streams())
def test_a_stream_of_the_program_is_searched_for_values_used_before_or_during_the_stream(
    made: tuple[list[bytes], list[tuple[int, str]]],
) -> None:
    parts, used = made
    text, known = b"".join(parts), Masks()
    stream, size, is_found = SearchedStream(known), 0, False
    for number, part in enumerate(parts):
        for begins, value in used:
            if begins == number:
                known.add(value)
        size += len(part)
        is_found = stream.find(part) or is_found
        ended = {
            value
            for begins, value in used
            if begins <= number
            for _, end in occurrences(text[:size], value)
            if end > len(b"".join(parts[:begins]))
        }
        assert is_found or not ended
        assert not is_found or any(occurrences(text[:size], value) for _, value in used)


def test_a_longer_value_that_a_run_uses_later_is_found_and_masked_in_open_streams() -> None:
    short, long, known = "s" * MIN_SECRET, '"<' * (MAX_SECRET // 2), Masks()
    text = html.escape(long).encode()
    known.add(short)
    search, stream = SearchedStream(known), MaskedStream(known)
    parts = [text[at : at + 7] for at in range(0, len(text), 7)]
    late = len(parts) - 3
    assert not any(map(search.find, parts[:late]))
    sent = b"".join(map(stream.feed, parts[:late]))
    known.add(long)
    assert max(map(search.find, parts[late:]))
    rest = b"".join(map(stream.feed, parts[late:])) + stream.end()
    assert rest == b"*" * (len(text) - len(sent))


@given(
    payloads=st.lists(st.binary(max_size=9) | st.just(b"x" * 70_000) | st.just(b"y" * 126), max_size=5),
    cuts=st.lists(st.integers(0, 200), max_size=9),
)
def test_payloads_of_frames_are_read_however_the_stream_is_cut(payloads: list[bytes], cuts: list[int]) -> None:
    frames = b"".join(masked_frame(one, key=bytes([at, 2, 3, 250])) for at, one in enumerate(payloads))
    ends = [*sorted({min(cut, len(frames)) for cut in cuts}), len(frames)]
    parts = [frames[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    reader = FrameReader()
    read = [data for part in parts for content, data in reader.feed(part) if content is FrameContent.MESSAGE]
    assert b"".join(read) == b"".join(payloads)


@pytest.mark.parametrize(
    ("is_masked", "frame", "fault"),
    [
        (True, b"\xc1\x80" + bytes(4), "a frame uses an extension"),
        (True, b"\x81\x01" + bytes(4), "a frame of the client has no mask"),
        (False, b"\x81\x80", "a frame of the server has a mask"),
    ],
)
def test_the_refusal_of_a_frame_names_the_fault(is_masked: bool, frame: bytes, fault: str) -> None:
    with pytest.raises(Rejected) as refusal:
        list(FrameReader(is_masked=is_masked).feed(frame))
    assert refusal.value.message == fault


def test_a_value_is_found_in_frames_that_divide_it() -> None:
    reader, search = FrameReader(), SearchedStream(masks(VALUE))
    ping = b"\x89" + masked_frame(VALUE[:9].encode())[1:]
    parts = [masked_frame(part.encode()) for part in ("a", VALUE[:5], VALUE[5:], "b" * 999)]
    read = [part for sent in (*parts[:2], ping, *parts[2:]) for part in reader.feed(sent)]
    assert [data for content, data in read if content is FrameContent.CONTROL] == [VALUE[:9].encode()]
    messages = [data for content, data in read if content is FrameContent.MESSAGE]
    assert [search.find(data) for data in messages][:3] == [False, False, True]


def frame(payload: bytes, first: int = 0x81) -> bytes:
    """A frame as a server sends it."""
    masked = masked_frame(payload, bytes(4))
    size = len(masked) - len(payload) - 4
    return bytes([first, masked[1] & 0x7F]) + masked[2:size] + payload


@given(
    cuts=st.lists(st.integers(0, len(VALUE)), max_size=4),
    ends=st.lists(st.integers(0, 400), max_size=9),
    pings=st.lists(st.sampled_from([b"", b"ping", VALUE.encode(), b"x" * 126]), max_size=3),
)
def test_a_value_is_masked_in_frames_of_a_server_that_divide_it(
    cuts: list[int], ends: list[int], pings: list[bytes]
) -> None:
    at = [0, *sorted(cuts), len(VALUE)]
    texts = [b"<", *(VALUE[start:end].encode() for start, end in pairwise(at)), b">"]
    controls = [*pings, *(b"" for _ in texts)]
    sent = b"".join(frame(text, 1) + frame(ping, 0x89) for text, ping in zip(texts, controls, strict=False))
    stops = [*sorted({min(end, len(sent)) for end in ends}), len(sent)]
    stream, passed = MaskedFrames(masks(VALUE), ""), b""
    for start, end in zip([0, *stops], stops, strict=False):
        passed += stream.feed(sent[start:end])
    passed += stream.end()
    parts = list(FrameReader(is_masked=False).feed(passed))
    read = {one: b"".join(data for content, data in parts if content is one) for one in FrameContent}
    assert len(passed) == len(sent)
    assert read[FrameContent.MESSAGE] == b"<" + b"*" * len(VALUE) + b">"
    assert read[FrameContent.CONTROL] == b"".join(pings[: len(texts)]).replace(VALUE.encode(), b"*" * len(VALUE))
    assert read[FrameContent.HEAD] == b"".join(
        data for content, data in FrameReader(is_masked=False).feed(sent) if content is FrameContent.HEAD
    )


def test_frames_of_a_server_are_held_back_in_order_until_a_pause() -> None:
    stream = MaskedFrames(masks(VALUE), "")
    assert stream.feed(frame(b"yes")) == frame(b"yes")[:-1]
    assert (stream.feed(frame(b"ping", 0x89)), stream.is_waiting) == (b"", True)
    assert (stream.show(), stream.is_waiting) == (b"s" + frame(b"ping", 0x89), False)
    for wrong in (masked_frame(b"x"), frame(b"x", 0xC1)):
        with pytest.raises(Rejected):
            stream.feed(wrong)


def test_messages_of_a_server_do_not_wait_for_the_next_control_frame() -> None:
    stream, message = MaskedFrames(masks(VALUE), "elsewhere"), frame(b"x" * 999)
    passed = stream.feed(frame(b"ping " + VALUE[:5].encode(), 0x89) + message * 9)
    assert passed.count(message) == 8  # a message may wait for the next one


def test_the_rest_of_a_value_that_control_frames_divide_is_masked() -> None:
    stream, parts = MaskedFrames(masks(VALUE), ""), (VALUE[:7].encode(), VALUE[7:].encode())
    sent = b"".join(stream.feed(frame(part, 0x89)) for part in parts) + stream.end()
    assert sent == frame(parts[0], 0x89) + frame(b"*" * len(parts[1]), 0x89)


def test_at_most_the_maximum_number_of_control_frames_waits_for_a_message() -> None:
    stream, pings = MaskedFrames(masks(VALUE), ""), MAX_WAITING // 2
    stream.feed(frame(VALUE[:5].encode()))
    assert stream.feed(b"\x89\0" * pings) == b""
    with pytest.raises(Rejected, match="wait for a message"):
        stream.feed(b"\x89\0")
    assert MaskedFrames(masks(VALUE), "").feed(b"\x89\0" * 2 * pings) == b"\x89\0" * 2 * pings


@pytest.mark.parametrize("compress", [gzip.compress, zlib.compress])
def test_a_compressed_body_is_searched_and_another_coding_is_refused(compress: Callable[[bytes], bytes]) -> None:
    def inflated(body: bytes, coding: bytes = b"gzip", *, size: int = 7) -> bytes:
        reader = InflatedBody([(b"Content-Encoding", coding)])
        parts = (body[at : at + size] for at in range(0, len(body), size))
        return b"".join(piece for part in parts for piece in reader.feed(part))

    body = compress(b"x" * 200_000) + compress(VALUE.encode())
    for size in (1, 7, len(body)):
        assert inflated(body, size=size) == b"x" * 200_000 + VALUE.encode()
    assert inflated(body[:-9], size=99).startswith(b"x" * 200_000), "a server reads the beginning of a body, too"
    assert inflated(body, b"Identity") == inflated(body, b"") == body
    for coding, sent in ((b"br", body), (b"gzip, gzip", body), (b"gzip", b"text"), (b"gzip", body + b"text")):
        with pytest.raises(Rejected) as refused:
            inflated(sent, coding)
        assert refused.value.code == "compressed_request"
    reader = InflatedBody([(b"Content-Encoding", b"gzip")])
    for part in (b"text", gzip.compress(b"another")):
        with pytest.raises(Rejected, match="the content coding that its header states"):
            list(reader.feed(part))
    limit = compress(bytes(MAX_INFLATED - 1))
    assert len(inflated(limit + compress(b"x"), size=CHUNK)) == MAX_INFLATED
    with pytest.raises(Rejected, match="over 64 MiB"):
        inflated(limit + compress(b"xx"), size=CHUNK)


def test_a_masked_stream_holds_back_only_the_possible_beginning_of_a_value() -> None:
    stream = MaskedStream(masks(VALUE))
    assert stream.feed(b"data: 1\n\n") == b"data: 1\n\n"
    assert (stream.feed(b"yes"), stream.is_waiting) == (b"ye", True)
    assert (stream.show(), stream.show(), stream.is_waiting) == (b"s", b"", False)
    assert stream.feed(VALUE[1:].encode() + b".") == b"*" * (len(VALUE) - 1) + b"."
    assert stream.feed(VALUE[: MAX_SHOWN + 1].encode()) == b""
    assert stream.show() == b""


@pytest.mark.parametrize("numbered", ["<>&", "<>&'=", "<>&'\"", "<>&'\"+`"])
def test_strings_of_json_are_masked_as_other_languages_write_them(numbered: str) -> None:
    value = "a+b/c='<d>&`\"e"
    for number in ("\\u{:04x}", "\\u{:04X}"):
        text = "".join(number.format(ord(one)) if one in numbered else one for one in value)
        assert masks(value).find((text if '"' in numbered else text.replace('"', '\\"')).encode()), text


@pytest.mark.parametrize(
    "text",
    [
        "a+b/c=&#39;&lt;d&gt;&amp;`&#34;e",
        "a&#43;b/c=&#39;&lt;d&gt;&amp;`&#34;e",
        "a+b&#x2F;c&#x3D;&#39;&lt;d&gt;&amp;&#x60;&quot;e",
        "a+b/c=&apos;&lt;d&gt;&amp;`&quot;e",
        "a+b/c=&#039;&lt;d&gt;&amp;`&quot;e",
        "a%2Bb%2Fc%3D'%3Cd%3E%26%60%22e",
        "a+b/c='%3Cd%3E&%60%22e",
    ],
)
def test_text_of_html_and_urls_is_masked_as_other_languages_write_it(text: str) -> None:
    assert masks("a+b/c='<d>&`\"e").find(text.encode())


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_a_value_in_utf_16_is_masked(encoding: str) -> None:
    assert masks(VALUE).mask(VALUE.encode(encoding)).strip(b"\0") == b"*" * (2 * len(VALUE) - 1)


@pytest.mark.parametrize("length", range(1, len(VALUE)))
def test_a_server_of_another_host_cannot_confirm_a_guess_of_the_beginning_of_a_value(length: int) -> None:
    made = Masks()
    made.add(VALUE, "api.example")
    seen = []
    for guess in (VALUE[:length], "#" * length):
        stream = MaskedStream(made, "evil.example")
        seen.append([len(stream.feed(f"data: {guess}".encode())), stream.is_waiting, len(stream.show())])
    assert seen[0] == seen[1]
    stream = MaskedStream(made, "evil.example")
    sent = stream.feed(VALUE[:length].encode()) + stream.feed(VALUE[length:].encode()) + stream.end()
    assert sent == b"*" * len(VALUE)


def request(**changed: Any) -> OutgoingRequest:
    values: dict[str, Any] = {"method": "POST", "path": b"/x", "query": b"", "headers": [], "body": None}
    return OutgoingRequest(**(values | changed))


def secret_of(name: str) -> str:
    return {"shop": VALUE}[name]


def destination(place: str = "placeholder", field: str = "", template: str = "{secret}") -> Destination:
    return Destination(name="shop", origin="https://a.example", place=Place(place), field=field, template=template)


def test_each_field_of_a_secret_has_an_option_of_the_command_and_a_row_of_the_page() -> None:
    places = [place.value for place in Place if place is not Place.PLACEHOLDER]
    assert set(places) <= signature(add_destination).parameters.keys()
    page = (ROOT / "docs/how-to/egress.md").read_text("utf-8")
    assert re.findall(r"^\| `--(\w+) ", page, re.MULTILINE) == places


def test_placeholders_are_replaced_by_values_encoded_for_their_place() -> None:
    basic = b"Basic " + base64.b64encode(b"me:OSTIARY:shop")
    headers = [(b"X-Key", b"a OSTIARY:shop b"), (b"Authorization", basic), (b"Content-Type", b"application/json")]
    sent = request(headers=headers, query=b"k=OSTIARY%3Ashop&l=OSTIARY:shop", body=b'{"k": "OSTIARY:shop"}')
    assert sent.placeholders == {"shop": Place.HEADER}
    filled = sent.with_secrets([destination()], secret_of)
    assert filled.headers[0] == (b"X-Key", f"a {VALUE} b".encode())
    assert filled.headers[1][1] == b"Basic " + base64.b64encode(f"me:{VALUE}".encode())
    assert filled.query == f"k={quote(VALUE, safe='')}&l={quote(VALUE, safe='')}".encode()
    assert json.loads(filled.body or b"") == {"k": VALUE}
    form = request(
        headers=[(b"content-type", b"application/x-www-form-urlencoded; charset=utf-8")], body=b"k=OSTIARY%3ashop"
    )
    assert form.with_secrets([], secret_of).body == f"k={quote_plus(VALUE)}".encode()
    assert fill_body(b"<OSTIARY:shop>", b"text/plain", secret_of) == f"<{VALUE}>".encode()
    with pytest.raises(Rejected) as refusal:
        _ = request(path=b"/botOSTIARY:shop/send").placeholders
    assert refusal.value.code == "placeholder_in_path"


def test_a_destination_replaces_the_field_that_the_program_has_set() -> None:
    headers = [(b"authorization", b"mine"), (b"Content-Type", b"application/json")]
    sent = request(headers=headers, query=b"key=mine&a=1&k%65y=too", body=b'{"a": 1, "key": "mine"}')
    in_header = sent.with_secrets([destination("header", "Authorization", "Bearer {secret}")], secret_of)
    assert in_header.headers == [headers[1], (b"Authorization", f"Bearer {VALUE}".encode())]
    in_base64 = sent.with_secrets([destination("header", "Authorization", "Basic {base64}")], secret_of)
    assert in_base64.headers[-1][1] == b"Basic " + base64.b64encode(VALUE.encode())
    in_query = sent.with_secrets([destination("query", "key")], secret_of)
    assert in_query.query == f"a=1&key={quote(VALUE, safe='')}".encode()
    in_body = sent.with_secrets([destination("body", "key")], secret_of)
    assert json.loads(in_body.body or b"") == {"a": 1, "key": VALUE}
    for body in (None, b"[]", b"{", b"text", b'{"a":' * 100_000):
        with pytest.raises(Rejected) as refusal:
            sent._replace(body=body).with_secrets([destination("body", "key")], secret_of)
        assert (refusal.value.status, refusal.value.code) == (415, "no_place_for_secret")


def test_an_expired_value_is_masked_for_an_hour_and_then_forgotten() -> None:
    now = ambient.now() // 1_000_000
    ends = {"kept": now - KEPT_S + 600, "forgotten": now - KEPT_S - 600, "endless": 0}

    class Server:
        def list_destinations(self) -> list[Destination]:
            return []

        def use_secret(self, injection: Injection) -> InjectedSecret:
            name = injection.destination
            return InjectedSecret(f"sk-{name}-4711", ends.get(name, now))

    source = SecretSource(Server())
    for name in (*ends, "next"):
        assert source.secret(Injection(name, "GET", "api.example", "/", "")) == f"sk-{name}-4711"
    assert [name for name in (*ends, "next") if source.masks.find(f"<sk-{name}-4711>".encode())] == [
        "kept",
        "endless",
        "next",
    ]


def test_the_other_values_are_masked_while_an_expired_one_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Masks()
    made.add("sk-expired-4711", expires_at=1)
    made.add(VALUE)
    add, calls = masking._Windows.add, 0

    def add_and_search(windows: masking._Windows, form: bytes, first: int) -> None:
        nonlocal calls
        calls += 1
        assert made.find(VALUE.encode()), "as another thread finds it"
        add(windows, form, first)

    monkeypatch.setattr(masking._Windows, "add", add_and_search)
    made.forget(2)
    assert calls == len(made.forms) > 0
    assert (made.find(VALUE.encode()), made.find(b"sk-expired-4711")) == (True, False)


def test_a_path_is_normalized_to_one_form() -> None:
    assert normalize_path(b"/%61%2D%5f/%2f%C3%a4%7E%2e%25%3a") == b"/a-_/%2F%C3%A4~.%25%3A"
    for wrong in (b"/%", b"/%4", b"/%4g", b"/%%41"):
        with pytest.raises(Rejected) as refusal:
            normalize_path(wrong)
        assert (refusal.value.status, refusal.value.code) == (400, "invalid_path")


@pytest.mark.parametrize("cut", range(1, 17))
def test_the_beginning_of_a_placeholder_waits_for_the_rest(cut: int) -> None:
    text = b"a OSTIARY%3Ashop "
    whole, begun = divide_begun(text[:cut])
    rest, last = divide_begun(begun + text[cut:])
    assert (whole + rest, last) == (text, b"")
    assert b"OSTIARY%3Ashop" in rest


def test_a_destination_states_one_origin_and_one_place() -> None:
    destination("header", "Authorization", "Bearer {secret}").check()
    destination().check()
    for wrong in (
        destination("header"),
        destination("header", "Host"),
        destination("header", "Content-Length"),
        destination("header", "a b"),
        destination("header", "A", "none"),
        destination("header", "A", "{secret}" * 2),
        destination("header", "A", "{secret}\r\nX: y"),
        destination("header", "A", "{secret} "),
        destination("header", "A", "é{secret}"),
        destination(field="A"),
        destination(template="x {secret}"),
        destination("query", "q", "x" * 249 + "{secret}"),
    ):
        with pytest.raises(Invalid):
            wrong.check()
    destination("query", "q", "x" * 248 + "{secret}").check()


def test_origins_and_hosts_are_normalized_to_one_form() -> None:
    assert parse_origin("HTTPS://API.Example.:443/") == "https://api.example"
    assert parse_origin("https://[2001:DB8::1]:8443") == "https://[2001:db8::1]:8443"
    assert parse_origin("http://127.0.0.1:8080") == "http://127.0.0.1:8080"
    for wrong in (
        "http://api.example",
        "ftp://a.example",
        "https://",
        "https://a.example/x",
        "https://a.example?x",
        "https://me@a.example",
        "https://a.example:0x1",
        "https://2130706433",
        "https://127.1",
        "https://0x7f.1",
        "https://[::1%eth0]",
        "https://é.example",
        "https://a..example",
        "https://-a.example",
        "https://a.example:99999",
    ):
        with pytest.raises(Invalid):
            parse_origin(wrong)
    assert parse_host("A.Example.") == "a.example"


@pytest.mark.parametrize(
    ("check", "why"),
    [
        (destination("query").check, "`field` is empty for the place `query`"),
        (destination(field="A").check, "`field` must be empty for the place `placeholder`"),
        (destination("header", "Host").check, "`field` must not be Host, which"),
        (lambda: parse_origin("https://é.example"), "the origin is not in ASCII"),
        (lambda: parse_origin("https://a.example/x"), "the origin must not have a path"),
        (lambda: parse_origin("https://a.example#x"), "a fragment"),
        (lambda: parse_origin("ftp://a.example"), "the scheme of the origin must be https"),
        (lambda: parse_origin("a.example"), "the scheme of the origin must be https"),
        (lambda: parse_origin("localhost:8443"), "the scheme of the origin must be https"),
        (lambda: parse_origin("https://a.example/\u00e9"), "the origin must not have a path"),
        (lambda: parse_origin("https://"), "the host '' is not a name"),
        (lambda: parse_origin("https://*.a.example"), r"the host '\*\.a\.example' is not a name"),
        (lambda: parse_host("\u00e9.example"), "the host is not in ASCII"),
    ],
)
def test_each_fault_of_a_destination_has_an_error_of_its_own(check: Callable[[], object], why: str) -> None:
    with pytest.raises(Invalid, match=why):
        check()


def test_a_secret_can_be_put_into_a_request_and_removed_again() -> None:
    for good in ("x" * MIN_SECRET, "x" * MAX_SECRET, VALUE):
        assert check_secret(good) == good
    for wrong in (
        "x" * (MIN_SECRET - 1),
        "x" * (MAX_SECRET + 1),
        "12345678\r\nX: y",
        "1234567\n",
        " 12345678",
        "1234567é",
        12345678,
        None,
    ):
        with pytest.raises(Invalid) as refusal:
            check_secret(wrong)
        assert "1234567" not in refusal.value.message + refusal.value.hint


def head(*lines: str, first: str = "GET / HTTP/1.1") -> bytes:
    return "\r\n".join([first, *lines, "", ""]).encode("latin-1")


def test_an_ambiguous_request_head_is_refused() -> None:
    room = MAX_HEAD - len(head("Host: a", "X: "))
    check_head(head("Host: a", "Content-Length: 1", "X: y"))
    check_head(head("Host: a", "X: " + "y" * room))
    chunked = "Transfer-Encoding: chunked"
    for wrong in (
        head("Host: a", "Content-Length: 1", chunked),
        head("Host: a", "Content-Length: 1", "content-length: 1"),
        head("Host: a", "host: b"),
        head("Host: a", "X: y", " z"),
        head("Host: a", "\tX: y"),
        head("Host: a\nX: y"),
        head("Host: a\rX: y"),
        head("Host: a\0"),
        head("Host: a", first="GET  / HTTP/1.1"),
        head("Host: a", first="GET / HTTP/1.1 "),
        head("Host: a", first="GET / HTTP/2.0"),
        head("Host: a", first="GET /a b HTTP/1.1"),
        head("Host: a", first="GET /é HTTP/1.1"),
        head(chunked, first="POST / HTTP/1.0"),
        head("Host: a", chunked, chunked),
        head("Host: a", "X: " + "y" * (room + 1)),
    ):
        with pytest.raises(Rejected):
            check_head(wrong)
    check_framing([(b"transfer-encoding", b"Chunked"), (b"content-length", b"12")])
    for name, value in (
        (b"transfer-encoding", b"gzip, chunked"),
        (b"transfer-encoding", b"xchunked"),
        (b"content-length", b"+1"),
        (b"content-length", b"1, 1"),
        (b"content-length", b"0x1"),
        (b"content-length", b""),
    ):
        with pytest.raises(Rejected):
            check_framing([(name, value)])


@pytest.mark.parametrize("end", [b"\r\n", b"\n"])
@pytest.mark.parametrize("fold", [b" ", b"\t"])
def test_a_response_with_a_header_on_two_lines_is_refused(end: bytes, fold: bytes) -> None:
    begun = b"HTTP/1.1 200 OK" + end + b"X-Key: half"
    check_answer_head(begun + end + fold + b"other half")  # not complete yet
    check_answer_head(begun + end + end + fold + b"a body")
    with pytest.raises(Rejected) as refusal:
        check_answer_head(begun + end + fold + b"other half" + end + end)
    assert (refusal.value.status, refusal.value.code) == (502, "upstream_failed")


def test_an_authority_is_a_host_and_a_port() -> None:
    assert parse_authority("A.example:443", default_port=None) == Authority("a.example", 443)
    assert parse_authority("[::1]", default_port=80) == Authority("::1", 80)
    for wrong in ("a", "a:0", "a:65536", "a:", "me@a:1", "a/b:1", "a:1:2", ":1", "127.1:443", "a b:1", ""):
        with pytest.raises(Rejected):
            parse_authority(wrong, default_port=None)


@pytest.mark.parametrize(
    "value",
    ["eve@dark.example", "DE89 3704 0044 0532 0130 00", "MT84 MALT 0110 0001 2345 MTLC AST0 01S", "渋谷区1-2"],
)
def test_a_value_that_is_divided_between_parts_of_a_response_is_observed_as_a_whole(value: str) -> None:
    answer = f"Please pay to {value} today".encode()
    for place in range(1, len(answer)):
        observed = ObservedStream(Masks())
        texts = [observed.feed(answer[:place]), observed.feed(answer[place:])]
        assert any(value in text for text in texts), answer[:place]


@pytest.mark.parametrize("value", [VALUE, "".join(f"{number:04}" for number in range(MAX_SECRET // 4))])
def test_the_end_of_a_secret_that_is_divided_between_parts_of_a_response_is_not_observed(value: str) -> None:
    masks = Masks()
    masks.add(value)
    for place in range(1, len(value), 1 + len(value) // 40):
        observed = ObservedStream(masks)
        observed.feed(value[:place].encode())
        assert value[place:] not in observed.feed(value[place:].encode())


def test_each_line_of_a_stream_is_observed_once() -> None:
    observed = ObservedStream(Masks())
    assert [observed.feed(part) for part in (b"data: one\n", b"data: two\n", b"da", b"ta: three\n")] == [
        "data: one\n",
        "data: two\n",
        "da",
        "data: three\n",
    ]
