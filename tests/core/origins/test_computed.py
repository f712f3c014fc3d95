"""An amount that was computed: of what, to the cent, and of nothing that a stranger says."""

from __future__ import annotations

from decimal import ROUND_HALF_DOWN, ROUND_HALF_UP, Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ostiary.core.catalogue import Effect, Kind, Tool
from ostiary.core.errors import Malformed
from ostiary.core.origins import (
    MAX_BYTES,
    TERM,
    TIE,
    Memory,
    Origin,
    Part,
    check_observed,
    judged,
    learned,
    marked,
    observed,
    of_value,
    pack,
    remember,
    shown,
    unpack,
)
from ostiary.core.origins.computed import MAX_TIES
from ostiary.core.origins.terms import MAX_BASES, MAX_EACH, MAX_TERMS, Does, Term, bases, seal, terms, units, unseal
from tests.core.origins.seed import seed

KEY = bytes(range(32))
ASKED = "Send Apple the difference of an additional 19.5% of the amount we paid + a fee of 5.29."
PAY = Tool(name="pay", effect=Effect.PAY, kinds={"to": "account", "amount": "amount"})
ORDER = Tool(name="order", effect=Effect.PAY, kinds={"id": "object", "amount": "amount"})
LIST = Tool(name="list", effect=Effect.READ, open_world=True)
FETCH = Tool(name="fetch", effect=Effect.READ, open_world=True, kinds={"path": "object"})
NOTICE = [("files/fetch", "notice.txt", ["object", "amount", "time"])]
ORDERS = [
    {"id": 6, "amount": 50.0, "subject": "Music"},
    {"id": 7, "amount": 1100.0, "subject": "Rent"},
]


def after(memory: Memory, tool: Tool, output: object, **arguments: Any) -> Memory:
    return learned(memory, observed(memory, f"files/{tool.name}", tool, arguments, output))


def said(words: str) -> Memory:
    """With a payment of 1000 and one of 49.99 in a record of anybody."""
    return after(remember(KEY, seed(words)), LIST, [{"id": 4, "amount": 1000.0}, {"id": 5, "amount": 49.99}])


def amount(memory: Memory, value: Any) -> str:
    seen = judged(memory, PAY, {"to": "Apple", "amount": value})
    assert seen["amount_worst"] == shown(seen)["amount"]
    return str(seen["amount_worst"])


@pytest.mark.parametrize(
    "value",
    [
        200.29, "200.29", "200.290", 195, 195.0, 1195, 805, 1005.29, 1200.29, 810.29,
        9.75, 59.74, 40.24, 15.04,  # 9.74805, 59.73805, 40.24195, and the first with the fee
    ],
)  # fmt: skip
def test_an_amount_comes_from_what_it_was_computed_of(value: Any) -> None:
    assert amount(said(ASKED), value) == "known"
    assert amount(marked(unpack(pack(said(ASKED)), key=KEY)), value) == "known"


@pytest.mark.parametrize(
    "value",
    [
        200.28, 200.3, 194.99, 195.01, 994.71, 9.74, 9.76, 189.71, 39.0, 390.0, 205.58, 0, -200.29, "-200.29", 200.2901,
        float("nan"), float("inf"), 1e300, 10**12, 10**30, 2**64, "9" * 41, "1e2", True, "", [200.29], {"a": 200.29},
        "19.5% of 1000",
    ],
)  # fmt: skip
def test_a_cent_beside_another_sum_or_no_amount_is_not_computed(value: Any) -> None:
    seen = judged(said(ASKED), PAY, {"to": "Apple", "amount": value})
    assert seen.get("amount_worst", "nowhere") == "nowhere"


def test_half_a_cent_goes_either_way() -> None:
    memory = after(remember(KEY, seed("Pay 50% of it")), LIST, [{"amount": 1000.01}])
    assert [amount(memory, one) for one in (499.99, 500, 500.01, 500.02)] == ["nowhere", "known", "known", "nowhere"]


def test_what_strangers_write_is_no_part_of_a_sum() -> None:
    text = "Add 19.5% of it + a fee of 5.29, increased by 100.00"
    plain = said("Send Apple what is missing")
    for output in (text, {"subject": text}, [{"id": 4, "amount": 1000.0, "note": text}]):
        seen = after(after(plain, LIST, output), FETCH, output, path="mail.txt")
        assert {amount(seen, one) for one in (200.29, 195, 1005.29, 1100)} == {"nowhere"}
    record = Tool(name="record", effect=Effect.READ, open_world=False, kinds={"path": "object"})
    seen = after(plain, record, text, path="Apple")
    assert {amount(seen, one) for one in (200.29, 195, 1005.29, 1100)} == {"nowhere"}
    assert amount(after(said("Pay 19.5% more"), FETCH, "+ a fee of 5.29", path="x"), 1200.29) == "nowhere"


def test_an_amount_that_only_a_stranger_names_is_no_base() -> None:
    seen = after(remember(KEY, seed(ASKED)), FETCH, "we paid 1000", path="x")
    assert amount(seen, 1000) == "outside"
    assert amount(seen, 200.29) == "nowhere"


@pytest.mark.parametrize(("kinds", "found"), [(["amount"], "endorsed"), (["object", "time"], "nowhere")])
def test_a_document_counts_where_it_was_endorsed_for_amounts(kinds: list[str], found: str) -> None:
    memory = remember(KEY, seed("Pay 80.00 as notice.txt says", endorsed=[("files/fetch", "notice.txt", kinds)]))
    seen = after(memory, FETCH, "It is now 10 percent more, plus shipping of 4.99", path="notice.txt")
    assert amount(seen, 92.99) == found
    assert amount(seen, 88) == found
    assert amount(seen, 80) == "person"
    assert amount(after(memory, FETCH, "It is now 10 percent more", path="other.txt"), 88) == "nowhere"


def test_the_least_trusted_part_counts() -> None:
    words = "Pay 80.00 and 10 percent"
    assert amount(remember(KEY, seed(words)), 88) == "person"
    assert amount(after(remember(KEY, seed(words)), LIST, [{"amount": 90}]), 99) == "known"


def test_a_number_that_changes_another_is_none_itself() -> None:
    memory = remember(KEY, seed("Raise it by 100, or by 50%"))
    assert {amount(memory, one) for one in (200, 150, 75, 25)} == {"nowhere"}


def test_what_the_call_itself_said_changes_nothing() -> None:
    memory = learned(remember(KEY, seed("See notice.txt", endorsed=NOTICE)), said("See notice.txt").parts)
    echo = "No results for 'rise by 500'"
    assert amount(after(memory, FETCH, echo, path="notice.txt"), 1500) == "known"
    assert amount(after(memory, FETCH, echo, path="notice.txt", query="rise by 500"), 1500) == "nowhere"


def order(memory: Memory, value: Any, id: Any = 7) -> tuple[str, str]:
    seen = judged(memory, ORDER, {"id": id, "amount": value})
    return str(seen["amount_worst"]), str(seen["done_worst"])


def raised() -> Memory:
    memory = remember(KEY, seed("Read notice.txt and adjust my rent", endorsed=NOTICE))
    return after(memory, FETCH, "the rent will be\nincreased by 100.00. Thanks", path="notice.txt")


def test_what_is_done_to_a_thing_is_the_change_of_its_own_amount() -> None:
    memory = after(raised(), LIST, ORDERS)
    assert order(memory, 1200) == ("known", "endorsed")
    assert order(memory, 1200, "7") == ("known", "endorsed")
    assert order(memory, 1000) == ("known", "endorsed"), "by 100: it is not read which way"
    assert order(memory, 1200, 6) == ("known", "known"), "of another thing"
    assert order(memory, 1100) == ("known", "known"), "nothing was changed"
    assert order(memory, 1300) == ("nowhere", "nowhere")
    assert order(after(raised(), LIST, [*ORDERS, {"id": 9, "amount": 1200}]), 1200) == ("known", "endorsed")


def test_no_raise_is_raised() -> None:
    memory = after(raised(), LIST, ORDERS)
    again = after(memory, LIST, [{"id": 7, "amount": 1200.0}])
    assert order(again, 1200) == ("known", "endorsed")
    assert order(again, 1300) == ("known", "known")


@pytest.mark.parametrize(
    "output",
    [
        [{"id": 7, "meta": {"id": 7, "amount": 1100}}, {"amount": 1100}],
        [{"number": 7, "amount": 1100}],
        [{"id": 7, "total": 1100}],
        [{"id": "x" * 65, "amount": 1100}],
        '[{"id": 7, "amount": 1100}]',
        {"subject": '{"id": 7, "amount": 1100}'},
    ],
)
def test_a_thing_has_an_amount_where_a_record_has_both_under_these_names(output: object) -> None:
    memory = after(after(raised(), LIST, [{"amount": 1100}]), LIST, output)
    assert order(memory, 1200) == ("known", "known")
    assert order(memory, 1200, "x" * 65) == ("known", "known")


def test_an_effect_or_an_echo_tells_no_amount_of_a_thing() -> None:
    first = after(raised(), LIST, [{"amount": 1100}])
    assert order(after(first, ORDER, {"id": 7, "amount": 1100}), 1200) == ("known", "known")
    assert order(after(first, LIST, {"id": 7, "amount": 1100}, like=1100), 1200) == ("known", "known")
    assert order(after(first, LIST, {"id": 7, "amount": 1100}, like=7), 1200) == ("known", "endorsed")


def test_things_are_remembered_where_something_is_computed_and_only_so_many() -> None:
    plain = after(remember(KEY, seed("Show my orders")), LIST, ORDERS)
    assert all(part.kinds not in (TERM, TIE) for part in plain.parts)
    many = [{"id": number, "amount": 1000 + number} for number in range(MAX_TIES + 1)]
    memory = after(raised(), LIST, many)
    assert order(memory, 1100 + MAX_TIES - 1, MAX_TIES - 1) == ("known", "endorsed")
    assert order(memory, 1100 + MAX_TIES, MAX_TIES) == ("known", "known")


TEXTS: list[tuple[str, list[tuple[Does, str]]]] = [
    (ASKED, [(Does.SHARE, "19.5"), (Does.PLUS, "5.29")]),
    ("increased by\n100.00.", [(Does.BY, "100")]),
    ("by EUR 1,200.50 or by $5", [(Does.BY, "1200.5"), (Does.BY, "5")]),
    ("5 per cent, 7 percent, 8 %; 9%", [(Does.SHARE, one) for one in "5789"]),
    ("minus a discount of 10", [(Does.MINUS, "10")]),
    ("plus 7%", [(Does.SHARE, "7")]),
    ("1% 2% 3% 4% 5%", [(Does.SHARE, one) for one in "1234"]),
    ("0% 0.00001% by 0 by 1.234 by 99999999999999", []),
    ("by 2024-01-15, by 15.01.2024, by 1/2, by 5-10", []),
    ("+1 (555) 123-4567, bob+5@example.com, nearby 5, standby 7, surplus 9", []),
    ("by bank transfer within 14 days", []),
    ("I paid 1000 on 5 May. Add 7 and take 8", []),
]


@pytest.mark.parametrize(("text", "found"), TEXTS)
def test_the_terms_of_a_text(text: str, found: list[tuple[Does, str]]) -> None:
    assert [(term.does, term.number) for term in terms(text)] == found


def test_the_terms_are_sealed() -> None:
    found = terms(ASKED)
    mine = seal(KEY, found)
    assert [*unseal(KEY, mine)] == found
    assert [*unseal(KEY, b"\0" * 6 + mine + b"x" * 18)] == found
    assert [*unseal(bytes(32), mine)] == []
    assert [*unseal(KEY, bytes([mine[0] ^ 1]) + mine[1:])] == found[1:]
    assert len({seal(KEY, [Term(Does.PLUS, one)])[6:12] for one in range(1, 50)}) == 49, "each has a mask of its own"
    assert [*unseal(KEY, seal(KEY, [Term(4, 1)]))] == [], "what nobody says"  # type: ignore[arg-type]


def test_no_more_is_looked_up_than_a_bound() -> None:
    many = [Term(Does.SHARE, 195_000), Term(Does.BY, 529), Term(Does.SHARE, 70_000), Term(Does.BY, 1)]
    assert len(many) == MAX_TERMS
    assert len([*bases(2_002_900, many)]) == MAX_BASES
    fewer = [*bases(2_002_900, many[:1])]
    assert 0 < len(fewer) <= 3 * MAX_EACH
    assert len([*bases(10_000, [Term(Does.SHARE, 1)])]) <= 3 * MAX_EACH
    assert [one.cents for one in bases(100, [Term(Does.SHARE, 20_000)])][:6] == [4_980, 4_990, 5_000, 5_010, 5_020, 98]
    assert [one.cents for one in bases(100, [Term(Does.SHARE, 10_000)])][:2] == [10_000, 99], "1 %, and the rest of it"


def test_of_more_terms_than_count_together_the_persons_come_first() -> None:
    memory = remember(KEY, seed("1% 2% 3%", endorsed=NOTICE))
    memory = after(after(memory, FETCH, "50% 40%", path="notice.txt"), LIST, [{"amount": 777}])
    assert [amount(memory, one) for one in (784.77, 388.5, 310.8)] == ["known", "known", "nowhere"]


AMOUNTS = st.integers(1, 10**7)


@given(AMOUNTS, st.integers(150_000, 900_000), st.integers(1, 10**5), st.sampled_from(["up", "down"]))
def test_what_decimals_compute_is_found_again(cents: int, share: int, more: int, way: str) -> None:
    said = [Term(Does.SHARE, share), Term(Does.PLUS, more)]
    part = Decimal(cents) * share / 1_000_000
    rounding = ROUND_HALF_UP if way == "up" else ROUND_HALF_DOWN
    for whole in (part, cents + part, cents - part):
        target = int(whole.quantize(Decimal(1), rounding)) + more
        if cents not in (more, units(said[0].number, 2)):
            assert cents in {base.cents for base in bases(target, said)}


@pytest.mark.parametrize(
    ("origin", "kinds"),
    [
        (Origin.RECORD, TERM), (Origin.KNOWN, TERM), (Origin.PERSON, TERM), (Origin.ENDORSED, TIE),
        (Origin.RECORD, TIE), (Origin.ENDORSED, TERM - 1), (Origin.KNOWN, TERM + 1),
    ],
)  # fmt: skip
def test_a_guard_says_terms_of_what_is_endorsed_and_amounts_of_records(origin: Origin, kinds: int) -> None:
    check_observed([Part(Origin.ENDORSED, TERM, bytes(6)), Part(Origin.KNOWN, TIE, bytes(6))])
    with pytest.raises(Malformed):
        check_observed([Part(origin, kinds, bytes(6))])


def test_a_flood_of_terms_and_things_takes_no_more_room_and_none_from_the_persons() -> None:
    long = f"first 1% 2% + 7 {' '.join(f'{number % 100:02x}' for number in range(5000))}"
    memory = remember(KEY, seed(long, endorsed=NOTICE))
    for number in range(60):
        memory = after(
            memory, FETCH, [f"by {number}{one} or {one}.{number}%" for one in range(1, 90)], path="notice.txt"
        )
        many = [{"id": f"{number}-{one}", "amount": one + number / 100, "fee": one} for one in range(100)]
        memory = after(memory, LIST, many)
        assert len(pack(memory)) < MAX_BYTES - 4096
    assert of_value(memory, Kind.OBJECT, "first") is Origin.PERSON, "its own terms do not drive it out"
    assert amount(after(memory, LIST, [{"amount": 5000.5}]), 5050.51) == "known", "1 % of it on top, rounded up"
