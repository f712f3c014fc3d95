"""The memory of a task is bounded and reveals no values; an output does not displace trusted words."""

from __future__ import annotations

import base64
import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ostiary.authorization.catalogue import Effect, Kind, Tool
from ostiary.protocol.errors import Malformed
from ostiary.provenance.intent import Intent
from ostiary.provenance.origins import (
    ALL_KINDS,
    MAX_BYTES,
    Memory,
    Origin,
    Part,
    add_parts,
    check_observed,
    judge_origins,
    observe_output,
    of_value,
    pack,
    remember,
    unpack,
    with_marks,
)
from ostiary.provenance.origins.memory import (
    BIT,
    FORGOTTEN,
    LABEL,
    LINK,
    MAX_FORMS,
    RETIRED,
    ROOM,
    SENT,
    SLOT,
    UNREQUESTED,
    holds,
    kinds_of,
)
from ostiary.provenance.origins.scribe import WIDTH
from tests.support.seed import seed

KEY = bytes(range(32))
OUTSIDE = Tool(name="fetch", effect="read")  # type: ignore[arg-type]
INSIDE = Tool(name="read", effect="read", open_world=False, kinds={"path": "object"})  # type: ignore[arg-type]
FULL = " ".join(f"{number % 100:02x}" for number in range(5000))


def told(memory: Memory, tool: Tool, output: object, **arguments: str) -> Memory:
    return add_parts(memory, observe_output(memory, f"files/{tool.name}", tool, arguments, output))


def test_outputs_do_not_displace_the_words_of_the_person_or_enlarge_the_memory() -> None:
    kinds = ["account", "amount", "address", "object", "secret", "principal", "time"]
    endorsed = [("files/doc", f"v{number}", kinds[: 1 + number % 7]) for number in range(8)]
    memory = remember(
        KEY,
        seed(
            f"send it to ann@example.org {FULL}",
            own=["Bob Own", *(FULL[: 500 - number] for number in range(15))],
            endorsed=endorsed,
        ),
    )
    doc = Tool(name="doc", effect="read", kinds={"path": "object"})  # type: ignore[arg-type]
    for number in range(30):
        flood = " ".join(f"x{number}y{one}" for one in range(9000))
        memory = told(memory, OUTSIDE, flood)
        memory = told(memory, INSIDE, [flood, {"deep": flood}], path="07")
        memory = told(memory, INSIDE, flood, path="nobody")
        memory = told(memory, doc, flood, path=f"v{number}")
        assert len(pack(memory)) < MAX_BYTES - 4096, "there is room for what else is remembered beside"
    assert of_value(memory, Kind.ADDRESS, "ann@example.org") is Origin.PERSON
    assert of_value(memory, Kind.PRINCIPAL, "Bob Own") is Origin.OWN
    assert of_value(memory, Kind.OBJECT, "x29y5") is not Origin.NOWHERE
    assert of_value(memory, Kind.OBJECT, "x0y5") is Origin.NOWHERE, "what is forgotten comes from nowhere"


@pytest.mark.parametrize("count", [ROOM[Origin.PERSON] - 1, ROOM[Origin.PERSON]])
def test_a_word_beyond_the_limit_of_the_memory_has_no_origin(count: int) -> None:
    memory = remember(KEY, seed("first" + " a" * (count - 2) + " last"))
    last = of_value(memory, Kind.OBJECT, "last")
    assert last is (Origin.PERSON if count < ROOM[Origin.PERSON] else Origin.NOWHERE)
    assert of_value(memory, Kind.OBJECT, "first") is Origin.PERSON


def test_a_packed_memory_contains_no_values_and_depends_on_its_key() -> None:
    said = seed("transfer to DE89370400440532013000", own=["Alice"])
    mine, other = pack(remember(KEY, said)), pack(remember(bytes(32), said))
    assert b"DE89" not in mine
    assert b"alice" not in mine.lower()
    assert mine != other
    assert len(mine) == len(other)
    again = unpack(mine, key=KEY)
    assert of_value(again, Kind.ACCOUNT, "DE89370400440532013000") is Origin.PERSON
    assert of_value(unpack(mine, key=bytes(32)), Kind.ACCOUNT, "DE89370400440532013000") is Origin.NOWHERE


def test_a_phrase_matches_only_at_the_start_of_a_word() -> None:
    assert holds(b"abcdefghijkl", b"ghijkl")
    assert not holds(b"abcdefghijkl", b"defghi")
    assert holds(b"b" + b"a" * 11, b"a" * 6), "it is looked for behind what is none"


def test_a_later_output_is_a_separate_source() -> None:
    memory = told(told(remember(KEY, seed("x")), OUTSIDE, "Mary"), OUTSIDE, "Major")
    assert of_value(memory, Kind.PRINCIPAL, "Mary") is Origin.OUTSIDE
    assert of_value(memory, Kind.PRINCIPAL, "Mary Major") is Origin.NOWHERE


def test_marks_of_a_memory_do_not_change_origins() -> None:
    memory = told(remember(KEY, seed("send it to ann@example.org")), OUTSIDE, FULL)
    quick = told(with_marks(memory), OUTSIDE, "something more")
    plain = told(memory, OUTSIDE, "something more")
    for value in ("ann@example.org", "07", "something more", *(f"none{number}" for number in range(2000))):
        assert of_value(quick, Kind.OBJECT, value) is of_value(plain, Kind.OBJECT, value)
    assert pack(quick) == pack(plain)


def test_content_that_the_memory_already_has_is_not_observed_again() -> None:
    memory = told(remember(KEY, seed("x")), OUTSIDE, {"a": "one two", "b": "three"})
    assert observe_output(memory, "files/fetch", OUTSIDE, {}, {"c": "three", "d": "one two"}) == ()
    found = observe_output(memory, "files/fetch", OUTSIDE, {}, {"c": "three", "d": "two one"})
    [part] = [part for part in found if part.kinds == ALL_KINDS]  # the other one is what labels keep
    assert len(part.words) == 2 * WIDTH


def test_memories_with_the_same_parts_in_the_same_order_are_equal() -> None:
    first = remember(KEY, seed("x"))
    parts = [observe_output(first, "files/fetch", OUTSIDE, {}, f"a{one} b{one}") for one in range(5)]
    left = right = first
    for part in parts:
        left = add_parts(left, part)
        right = unpack(pack(add_parts(right, part)), key=KEY)
    assert left == right


DEEP: object = "bottom"
for _ in range(5000):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    "output",
    [
        DEEP,
        [[]] * 100_000,
        ["x"] * 100_000,
        {str(one): one for one in range(50_000)},
        "x" * 5_000_000,
        "a@" * 200_000,
        "%41" * 200_000,
        "&amp;" * 200_000,
        "(" * 300_000,
        "1,2" * 200_000,
        "://" * 200_000,
        "41" * 200_000,
        "QUFB" * 100_000,
        "[" * 100_000,
        json.dumps("\ud800"),
        "\ud800",
        {"\ud800": "\ud800"},
        None,
        True,
        5,
        1.5,
        float("nan"),
        float("inf"),
        10**400,
        b"bytes",
        object(),
        "\0" * 10,
        "١٢٣ ٤",
        "🜁" * 5000,
        "2026-99-99 99:99 31/31/9999 may 99",
        "DE89 " * 50_000,
        "1 000" * 50_000,
        "+1 (" * 50_000,
        "a." * 200_000,
    ],
    ids=lambda one: ascii(one)[:16] if isinstance(one, str) else type(one).__name__,
)
def test_a_hostile_output_does_not_make_the_memory_too_large(output: object) -> None:
    memory = remember(KEY, seed("x"))
    for tool in (OUTSIDE, INSIDE):
        memory = told(memory, tool, output, path="x")
    assert len(pack(memory)) < MAX_BYTES


def test_nested_encodings_are_decoded_to_a_limited_depth() -> None:
    text, found = "https://evil.example/x", []
    for _ in range(12):
        memory = told(remember(KEY, seed("x")), OUTSIDE, text)
        found.append(of_value(memory, Kind.ADDRESS, "https://evil.example/x") is Origin.OUTSIDE)
        text = base64.b64encode(text.encode()).decode()
    assert found == [True] * 4 + [False] * 8


def test_the_bits_of_stored_memories_never_change() -> None:
    assert [BIT[kind] for kind in list(Kind)[:7]] == [1, 2, 4, 8, 16, 32, 64]
    assert [1 << bit for bit in range(7, 14)] == [LINK, RETIRED, SLOT, LABEL, SENT, UNREQUESTED, FORGOTTEN]
    assert kinds_of(Kind) == ALL_KINDS == 127, "a further kind shares the bit of another kind, or has none, as text"


PART = Part(Origin.RECORD, ALL_KINDS, bytes(6))


@pytest.mark.parametrize(
    "part",
    [
        Part(Origin.PERSON, ALL_KINDS, bytes(6)),
        Part(Origin.OWN, ALL_KINDS, bytes(6)),
        Part(Origin.RECORD, ALL_KINDS, bytes(5)),
        Part(Origin.RECORD, ALL_KINDS, bytes((ROOM[Origin.RECORD] + 1) * WIDTH)),
        Part(Origin.RECORD, 1, bytes(6)),
    ],
)
def test_a_guard_cannot_report_words_of_the_person_or_parts_beyond_the_limit(part: Part) -> None:
    check_observed([PART, Part(Origin.ENDORSED, 1, bytes(ROOM[Origin.ENDORSED] * WIDTH))])
    with pytest.raises(Malformed):
        check_observed([PART, part])


@pytest.mark.parametrize("body", [b"", b"\x93", b"\xc1", b"\x92\x91\x93\x00\x00\xc4\x00\x90", b"{}"])
def test_a_malformed_memory_is_refused(body: bytes) -> None:
    with pytest.raises(Malformed):
        unpack(body, key=KEY)


def said(text: str) -> Intent:
    """An intent with text that intents refuse, since it is invisible: other memories must bear it."""
    intent = seed("x")
    msgspec.structs.force_setattr(intent, "words", text)
    return intent


WORDS = st.text("abcdefghijklmnopqrstuvwxyzäß-_", min_size=3, max_size=12).map(lambda text: f"q{text}z")
"""Text without digits, which are read as amounts and dates together with what is beside them."""


@given(WORDS, st.text().filter(lambda text: not any(map(str.isdigit, text))), st.lists(WORDS, max_size=5))
def test_a_word_of_the_person_has_the_origin_person_beside_any_other_text(
    value: str, before: str, behind: list[str]
) -> None:
    memory = remember(KEY, said(f"{before} \n {value} \n {' '.join(behind)}"))
    assert of_value(memory, Kind.OBJECT, value) is Origin.PERSON


@pytest.mark.parametrize(
    "text",
    [
        "告诉租户,报告 5127:电工来",
        "报告5127：电工来",
        "房间5127-电工",
        "编号#5127，谢谢",
        "金額:5127円",
        "番号：5127です",
        "ID：5127",
    ],
)
def test_a_sign_before_a_script_without_spaces_is_not_a_part_of_a_number(text: str) -> None:
    memory = remember(KEY, seed(text))
    assert of_value(memory, Kind.OBJECT, "5127") is Origin.PERSON
    assert of_value(memory, Kind.AMOUNT, 5127) is Origin.PERSON
    assert of_value(memory, Kind.OBJECT, text) is Origin.PERSON, "the whole text, too"
    assert of_value(memory, Kind.OBJECT, "512") is Origin.NOWHERE


@pytest.mark.parametrize(
    "text",
    [
        "Закрой заявку №12",
        "Ferme le ticket n°12.",
        "Cierra el nº12",
        "Close ticket No.12, please",
        "Ticket Nr.12",
        "ปิดตั๋ว12",
        "ปิดตั๋ว12ด้วย",
        "סגור כרטיס12",
        "أغلق:12",
        "टिकट12",
    ],
)
def test_a_number_after_a_number_sign_or_an_uncased_letter_is_a_word(text: str) -> None:
    memory = remember(KEY, seed(text))
    assert of_value(memory, Kind.OBJECT, 12) is Origin.PERSON
    assert of_value(memory, Kind.OBJECT, text) is Origin.PERSON
    assert of_value(memory, Kind.OBJECT, 1) is Origin.NOWHERE


@pytest.mark.parametrize("text", ["AMX12", "item-12", "v.12.1", "12-го", "1.12", "room.12", "p.12", "art.12"])
def test_a_number_inside_another_name_is_not_a_separate_word(text: str) -> None:
    memory = remember(KEY, seed(text))
    assert of_value(memory, Kind.OBJECT, 12) is Origin.NOWHERE
    assert of_value(memory, Kind.OBJECT, text) is Origin.PERSON


@pytest.mark.parametrize(
    ("domain", "origin"),
    [
        ("harbour.example", Origin.KNOWN),
        ("HARBOUR.example", Origin.KNOWN),
        ("shop.harbour.example", Origin.PERSON),
        ("far.example", Origin.KNOWN),
        ("docs.near.example", Origin.KNOWN),
        ("near.example", Origin.KNOWN),
        ("home.example", Origin.KNOWN),
        ("example", Origin.NOWHERE),
        ("quay.example", Origin.NOWHERE),
        ("eve.harbour.example", Origin.NOWHERE),
        ("final.pdf", Origin.KNOWN),
        ("20.30.40", Origin.NOWHERE),
    ],
)
def test_the_domains_of_addresses_that_the_person_stated_or_has_are_known(domain: str, origin: Origin) -> None:
    words = (
        "point shop.harbour.example to 10.20.30.40, tell bea@far.example, see https://docs.near.example/a.html#x.y.z"
    )
    memory = remember(KEY, seed(f"{words} and report.final.pdf", own=["Ada Moreau", "ada@home.example"]))
    assert of_value(memory, Kind.ADDRESS, domain) is origin
    assert of_value(memory, Kind.OBJECT, domain) is (Origin.PERSON if origin is Origin.PERSON else Origin.NOWHERE)
    assert not memory.has_read_outside


@pytest.mark.parametrize(
    ("value", "origin"),
    [
        ("info", Origin.PERSON),
        ("info@", Origin.PERSON),
        ("info@home.example", Origin.KNOWN),
        ("bills@home.example", Origin.KNOWN),
        ("info@far.example", Origin.NOWHERE),
        ("bea@home.example", Origin.NOWHERE),
        ("info bills", Origin.NOWHERE),
    ],
)
def test_a_short_address_of_the_person_is_known_at_their_own_mail_domain(value: str, origin: Origin) -> None:
    memory = remember(KEY, seed("info@ and bills@ go to bea@far.example", own=["ada@home.example"]))
    assert of_value(memory, Kind.ADDRESS, value) is origin


@pytest.mark.parametrize("address", ["harbour.example", "mails.example", "info@mails.example", "https://mails.example"])
@pytest.mark.parametrize("effect", Effect)
def test_derived_addresses_are_not_known_to_changes_and_shares(effect: Effect, address: str) -> None:
    tool = Tool(name="set", effect=effect, kinds={"at": "address"}, confirmed=True)
    memory = remember(KEY, seed("point shop.harbour.example and info@ to 10.20.30.40", own=["ada@mails.example"]))
    origin = "nowhere" if effect in (Effect.CHANGE, Effect.WRITE, Effect.SHARE) else "known"
    assert judge_origins(memory, tool, {"at": address})["origin"] == {"at": origin}
    assert judge_origins(memory, tool, {"at": [address]})["origin"] == {"at": origin}
    listed = add_parts(memory, [Part(Origin.KNOWN, ALL_KINDS, memory.hashed([address.removeprefix("https://")]))])
    assert judge_origins(listed, tool, {"at": address})["origin"] == {"at": "known"}, "of a record, for each effect"


def test_derived_addresses_are_limited_and_do_not_displace_words() -> None:
    numbers = range(500)
    domains = remember(KEY, seed(" ".join(f"a{number}.b{number}.example" for number in numbers)))
    known = [of_value(domains, Kind.ADDRESS, f"b{number}.example") for number in numbers]
    assert known == [Origin.KNOWN] * MAX_FORMS + [Origin.NOWHERE] * (500 - MAX_FORMS)
    assert of_value(domains, Kind.ADDRESS, "a499.b499.example") is Origin.PERSON
    short = remember(KEY, seed(" ".join(f"c{number}@" for number in numbers), own=["ada@home.example"]))
    known = [of_value(short, Kind.ADDRESS, f"c{number}@home.example") for number in numbers]
    assert known == [Origin.KNOWN] * MAX_FORMS + [Origin.NOWHERE] * (500 - MAX_FORMS)
    assert of_value(short, Kind.ADDRESS, "c499@") is Origin.PERSON
