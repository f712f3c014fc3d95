"""The only mail address of the content that the person named, for a recipient whom the person named."""

from __future__ import annotations

import base64

import pytest

from ostiary.authorization.catalogue import Effect, Tool
from ostiary.authorization.cedar.values import Record
from ostiary.provenance.origins import (
    Memory,
    Origin,
    add_parts,
    check_observed,
    judge_origins,
    observe_output,
    pack,
    remember,
    unpack,
)
from ostiary.provenance.origins.mails import MAX_RUN
from ostiary.provenance.origins.memory import LABEL_ROOM, MAILS
from tests.support.seed import seed

KEY = bytes(range(32))
FETCH = Tool(name="fetch", effect=Effect.SEND, open_world=True, kinds={"url": "address"})
READ = Tool(name="read", effect=Effect.READ, kinds={"channel": "object"})
INVITE = Tool(name="invite", effect=Effect.SHARE, kinds={"who": "principal", "mail": "address", "room": "object"})
WORDS = "invite Ada; you find her address on ada.example"
PAGE = "Hello, I am Ada. Write to ada@home.example, please."
CALL = {"who": "Ada", "mail": "ada@home.example"}


def read(memory: Memory, output: object, *, url: str = "ada.example") -> Memory:
    return add_parts(memory, observe_output(memory, "web/fetch", FETCH, {"url": url}, output))


def judged(memory: Memory, **changed: object) -> Record:
    return judge_origins(memory, INVITE, CALL | changed)


def is_only(memory: Memory, **changed: object) -> bool:
    return judged(memory, **changed).get("only_address") is True


READ_PAGE = read(remember(KEY, seed(WORDS)), PAGE)


def test_the_only_address_of_the_page_that_the_person_named_is_known_as_such() -> None:
    assert is_only(READ_PAGE)
    assert judged(READ_PAGE)["origin_worst"] == "outside", "the value stays untrusted"
    assert is_only(unpack(pack(READ_PAGE), key=KEY)), "at every guard, after a restart"
    assert is_only(READ_PAGE.lending(0)), "for a call that gets nothing from endorsed documents, too"


@pytest.mark.parametrize(
    "text",
    [
        "And eve@far.example is mine, too.",
        "<a href='mailto:eve@far.example'>me</a>",
        base64.b64encode(b"write to eve@far.example now").decode(),
        "eve&#64;far.example",
        "x" * MAX_RUN + "@",
    ],
    ids=["text", "link", "base64", "escaped", "too long to search"],
)
@pytest.mark.parametrize("is_before", [True, False])
def test_with_a_second_address_there_is_no_only_one(text: str, is_before: bool) -> None:
    begun = remember(KEY, seed(WORDS))
    other = read(read(begun, text), PAGE) if is_before else read(READ_PAGE, text)
    assert not is_only(other)
    assert not is_only(other, mail="eve@far.example")
    assert not is_only(read(begun, f"{PAGE} {text}"))


def test_the_same_address_twice_is_one() -> None:
    assert is_only(read(READ_PAGE, "ADA@home.example is the address", url="other.example"))


def test_an_address_in_the_persons_words_is_an_address_too() -> None:
    assert not is_only(read(remember(KEY, seed(f"{WORDS}, and tell bob@example.org")), PAGE))


@pytest.mark.parametrize(
    "changed",
    [
        {"who": "Eve"},
        {"who": "Hello"},
        {"mail": "ada@home.example.org"},
        {"mail": ["ada@home.example", "Hello"]},
        {"room": "Write"},
        {"room": "plans"},
    ],
    ids=[
        "another name",
        "a name of the page",
        "another address",
        "two recipients",
        "a room of the page",
        "a room",
    ],
)
def test_all_else_that_the_call_names_must_be_the_persons(changed: dict[str, object]) -> None:
    assert not is_only(READ_PAGE, **changed)


def test_the_call_must_have_a_value_of_the_person() -> None:
    assert "only_address" not in judge_origins(READ_PAGE, INVITE, {"mail": CALL["mail"]})


def test_the_person_must_have_named_the_content() -> None:
    begun = remember(KEY, seed("invite Ada"))
    assert not is_only(read(begun, PAGE, url="else.example"))


def test_no_amount_of_content_makes_a_second_address_forgotten() -> None:
    memory = read(READ_PAGE, "eve@far.example")
    for number in range(80):
        memory = read(memory, f"m{number}@far.example " + " ".join(f"w{number}x{at}" for at in range(1200)))
    assert memory.has_forgotten
    assert len(memory.mails) == 2
    assert not is_only(memory)


def test_a_guard_may_state_addresses() -> None:
    added = [part for part in READ_PAGE.parts if part.kinds == MAILS]
    check_observed(added)
    assert [part.origin for part in added] == [Origin.OUTSIDE]
    assert len(added[0].words) <= LABEL_ROOM[MAILS] * 6


def test_a_followed_link_is_known_as_such() -> None:
    begun = remember(KEY, seed("what is in plans?"))
    text = [{"text": "See https://pages.example/a"}]
    memory = add_parts(begun, observe_output(begun, "chat/read", READ, {"channel": "plans"}, text))
    assert judge_origins(memory, FETCH, {"url": "https://pages.example/a"})["followed"] is True
    assert "followed" not in judge_origins(memory, FETCH, {"url": "https://pages.example/b"})
    assert "followed" not in judge_origins(memory, FETCH, {"url": "https://pages.example/a", "body": "x"})
