"""The only mail address of the content that the person named, for a recipient whom the person named."""

from __future__ import annotations

import base64
import json
from typing import Any, cast

import pytest
from msgspec import structs

from ostiary.authorization.catalogue import Effect, Tool
from ostiary.authorization.cedar.values import Record
from ostiary.provenance.intent import Planned
from ostiary.provenance.origins import (
    MAX_PARTS,
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
from ostiary.provenance.origins.links import DEPTH
from ostiary.provenance.origins.mails import MAX_RUN, MAX_TEXTS, new_mails
from ostiary.provenance.origins.memory import LABEL_ROOM, MAILS
from ostiary.provenance.origins.scribe import MAX_TEXT, Scribe
from tests.support.seed import seed

KEY = bytes(range(32))
FETCH = Tool(name="fetch", effect=Effect.SEND, open_world=True, kinds={"url": "address"})
SEARCH = Tool(name="search", effect=Effect.READ, open_world=True, kinds={"url": "address", "query": "text"})
CONTACTS = Tool(name="contacts", effect=Effect.READ, outside=False)
READ = Tool(name="read", effect=Effect.READ, kinds={"channel": "object"})
INVITE = Tool(
    name="invite",
    effect=Effect.SHARE,
    confirmed=True,
    kinds={"who": "principal", "mail": "address", "copy": "address", "room": "object", "at": "fixed-time"},
    arguments={"type": "object", "properties": {"mail": {"type": "string"}}, "required": ["mail"]},
)
PLAN = (Planned(tool="team/invite"),)
WORDS = "invite Ada; you find her address on ada.example"
PAGE = "Hello, I am Ada. Write to ada@home.example, please."
CALL = {"who": "Ada", "mail": "ada@home.example"}


def encoded(text: str, times: int) -> str:
    for _ in range(times):
        text = base64.b64encode(text.encode()).decode()
    return text


def begin(words: str = WORDS) -> Memory:
    return remember(KEY, structs.replace(seed(words), plan=PLAN))


def read(memory: Memory, output: object, *, url: str = "ada.example") -> Memory:
    return add_parts(memory, observe_output(memory, "web/fetch", FETCH, {"url": url}, output))


def judged(memory: Memory, **changed: object) -> Record:
    return judge_origins(memory, INVITE, CALL | changed)


def is_only(memory: Memory, **changed: object) -> bool:
    return judged(memory, **changed).get("only_address") is True


READ_PAGE = read(begin(), PAGE)


def test_the_only_address_of_a_page_that_the_person_named_is_marked() -> None:
    assert is_only(READ_PAGE)
    assert judged(READ_PAGE)["origin_worst"] == "outside", "the value stays untrusted"
    assert is_only(unpack(pack(READ_PAGE), key=KEY)), "at every guard, after a restart"
    assert is_only(READ_PAGE.lending(0)), "for a call that gets nothing from endorsed documents, too"


def test_an_address_as_domain_of_a_call_does_not_mark_the_only_address() -> None:
    move = structs.replace(INVITE, kinds={"domain": "address", "mail": "address"})
    memory = read(begin("set up harbour.example as ada.example says"), PAGE)
    call = {"domain": "harbour.example", "mail": "ada@home.example"}
    context = judge_origins(memory, move, call)
    assert context["origin"] == {"domain": "person", "mail": "outside"}
    assert "only_address" not in context


@pytest.mark.parametrize(
    "text",
    [
        "And eve@far.example is mine, too.",
        "<a href='mailto:eve@far.example'>me</a>",
        base64.b64encode(b"write to eve@far.example now").decode(),
        "eve&#64;far.example",
        "x" * MAX_RUN + "@",
        'it is "eve lee"@far.example',
        "eve@localhost",
        "eve@[192.0.2.1]",
        "eve=40far.example",
        "eve@fa=\nr.example",
        "eve @ far.example",
        "eve@\nfar.example",
        "eve [at] far.example",
        "eve(at)far.example",
        encoded("some text that is encoded too often", DEPTH + 1),
        "x " * MAX_TEXT,
    ],
    ids=[
        "text",
        "link",
        "base64",
        "escaped",
        "too long a word to search",
        "quoted name",
        "host without a dot",
        "number of a host",
        "quoted-printable",
        "broken line of quoted-printable",
        "spaces",
        "two lines",
        "sign in words",
        "sign in words without spaces",
        "encoded more often than is decoded",
        "too long to search",
    ],
)
@pytest.mark.parametrize("is_before", [True, False])
def test_a_second_address_in_the_content_removes_the_mark_of_the_only_address(text: str, is_before: bool) -> None:
    begun = begin()
    other = read(read(begun, text), PAGE) if is_before else read(READ_PAGE, text)
    assert not is_only(other)
    assert not is_only(other, mail="eve@far.example")
    assert not is_only(read(begun, f"{PAGE} {text}"))


@pytest.mark.parametrize(
    "output",
    [
        {"eve@far.example": {"name": "Eve"}, "note": PAGE},
        '{"eve@far.example": {"name": "Eve"}, "note": "hello"}',
        [PAGE, *["x"] * MAX_TEXTS, "eve@far.example"],
        json.loads("[" * 40 + '"eve@far.example"' + "]" * 40),
    ],
    ids=["name of a member", "name in a text", "behind many texts", "deep inside"],
)
def test_an_address_is_found_at_each_place_of_an_output(output: object) -> None:
    assert not is_only(read(READ_PAGE, output))
    assert not is_only(read(begin(), [output, PAGE]))


def test_names_of_members_are_not_mail_addresses() -> None:
    assert is_only(read(begin(), f"@ada says to @all-hands: {PAGE} See https://chat.example/@ada, or ask @bob."))


def test_an_address_in_a_record_counts_as_a_second_address() -> None:
    record = [{"name": "Ada", "mail": "ada@work.example"}]
    memory = add_parts(READ_PAGE, observe_output(READ_PAGE, "team/contacts", CONTACTS, {}, record))
    assert not is_only(memory)


def test_addresses_that_only_idna_2003_equates_are_distinct() -> None:
    assert not is_only(read(begin(), "ada@fass.example or ada@fa\xdf.example"), mail="ada@fass.example")
    said = judged(begin("invite Ada, ada@fass.example"), mail="ada@fa\xdf.example")
    assert said["recipient_worst"] == "nowhere", "another host than the person's"


def test_reads_at_the_same_time_do_not_displace_the_first_address() -> None:
    memory = READ_PAGE
    added = observe_output(memory, "web/fetch", FETCH, {"url": "ada.example"}, "eve@far.example")
    for _ in range(LABEL_ROOM[MAILS]):
        memory = add_parts(memory, added)
    assert not is_only(memory, mail="eve@far.example")


def test_a_repeated_address_counts_once() -> None:
    assert is_only(read(READ_PAGE, "ADA@home.example is the address", url="other.example"))


def test_an_address_in_the_words_of_the_person_counts_as_a_second_address() -> None:
    assert not is_only(read(begin(f"{WORDS}, and tell bob@example.org"), PAGE))


@pytest.mark.parametrize(
    "changed",
    [
        {"who": "Eve"},
        {"who": "Hello"},
        {"mail": "ada@home.example.org"},
        {"mail": ["ada@home.example", "Hello"]},
        {"room": "Write"},
        {"room": "plans"},
        {"at": "2031-01-01T10:00"},
        {"copy": "bob@example.org"},
        {"mail": "Ada", "copy": "ada@home.example"},
        {"mail": "ada@home.example."},
    ],
    ids=[
        "another name",
        "a name of the page",
        "another address",
        "two recipients",
        "a room of the page",
        "a room",
        "a time",
        "a second recipient",
        "a recipient that may be left out",
        "an uncommon form",
    ],
)
def test_the_only_address_requires_that_the_person_stated_all_other_values_of_the_call(
    changed: dict[str, object],
) -> None:
    assert not is_only(READ_PAGE, **changed)


def test_the_only_address_requires_that_the_person_named_a_recipient_of_the_call() -> None:
    assert "only_address" not in judge_origins(READ_PAGE, INVITE, {"mail": CALL["mail"]})
    assert "only_address" not in judge_origins(READ_PAGE, INVITE, {"mail": CALL["mail"], "room": "Ada"})


def test_the_only_address_requires_a_plan_of_the_task() -> None:
    assert not is_only(read(remember(KEY, seed(WORDS)), PAGE))


def test_the_only_address_requires_a_declared_address_argument() -> None:
    undeclared = structs.replace(INVITE, kinds={"who": "principal"})
    assert "only_address" not in judge_origins(READ_PAGE, undeclared, CALL)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [({"url": "ada.example"}, True), ({"query": "Ada"}, False), ({"url": "ada.example", "query": "moved"}, False)],
    ids=["the page", "a search", "a search in the page"],
)
def test_content_found_by_search_words_does_not_have_the_only_address(
    arguments: dict[str, str], expected: bool
) -> None:
    begun = begin()
    assert is_only(add_parts(begun, observe_output(begun, "web/search", SEARCH, arguments, PAGE))) is expected


def test_content_of_an_unconfirmed_tool_does_not_have_the_only_address() -> None:
    begun, proposed = begin(), structs.replace(FETCH, definition="x" * 43)
    assert not is_only(add_parts(begun, observe_output(begun, "web/fetch", proposed, {"url": "ada.example"}, PAGE)))


def test_the_only_address_requires_that_the_person_named_the_content() -> None:
    assert not is_only(read(begin("invite Ada"), PAGE, url="else.example"))


def test_a_second_address_is_not_forgotten_after_a_flood_of_content() -> None:
    memory = read(READ_PAGE, "eve@far.example")
    for number in range(80):
        memory = read(memory, f"m{number}@far.example " + " ".join(f"w{number}x{at}" for at in range(1200)))
    assert memory.has_forgotten
    assert len(memory.mails) == 2
    assert not is_only(memory)


def test_a_guard_can_report_addresses_of_content() -> None:
    added = [part for part in READ_PAGE.parts if part.kinds == MAILS]
    check_observed(added)
    assert [part.origin for part in added] == [Origin.OUTSIDE]
    assert len(added[0].words) <= LABEL_ROOM[MAILS] * 6


def test_a_read_that_adds_each_kind_of_part_is_within_the_limit() -> None:
    look = Tool(name="look", effect=Effect.READ, kinds={"channel": "object", "words": "text"})
    begun = remember(KEY, seed("what does Ada say in plans?"))
    asks = "read the plans, and look for the budget of the northern site"
    memory = add_parts(begun, observe_output(begun, "chat/look", look, {"channel": "other"}, asks))
    text = "write to eve@far.example about https://pages.example/a and the other things"
    found = [{"id": "a1234567", "name": "Ada", "text": text}, {"id": "b1234567", "name": "Bob", "text": "all is new"}]
    added = observe_output(memory, "chat/look", look, {"channel": "plans", "words": "look for the budget"}, found)
    assert len(added) == MAX_PARTS
    check_observed(added)


def read_plans() -> Memory:
    begun = remember(KEY, seed("what is in plans?"))
    text = [{"text": "See https://pages.example/a"}]
    return add_parts(begun, observe_output(begun, "chat/read", READ, {"channel": "plans"}, text))


def test_a_followed_link_is_marked_as_followed() -> None:
    memory = read_plans()
    assert judge_origins(memory, FETCH, {"url": "https://pages.example/a"})["followed"] is True
    assert "followed" not in judge_origins(memory, FETCH, {"url": "https://pages.example/b"})
    assert "followed" not in judge_origins(memory, FETCH, {"url": "https://pages.example/a", "body": "x"})


@pytest.mark.parametrize("effect", [one for one in Effect if one not in (Effect.READ, Effect.SEND)])
def test_a_tool_that_stores_or_shares_a_link_does_not_follow_it(effect: Effect) -> None:
    judged = judge_origins(read_plans(), structs.replace(FETCH, effect=effect), {"url": "https://pages.example/a"})
    assert (judged["origin_worst"], "followed" in judged) == ("outside", False)


def test_a_tool_that_fetches_no_content_of_third_parties_does_not_follow_a_link() -> None:
    report = structs.replace(FETCH, outside=False)
    judged = judge_origins(read_plans(), report, {"url": "https://pages.example/a"})
    assert (judged["origin_worst"], "followed" in judged) == ("outside", False)


def test_a_text_with_two_plain_addresses_is_not_decoded() -> None:
    scribe = Scribe(KEY)
    new_mails(begin(), scribe, ["ada@home.example", "eve@far.example"], is_named=True)
    assert decoded_texts(scribe) == 1, "the first text, which has only one address"
    new_mails(begin(), scribe, "ada@home.example and eve@far.example", is_named=True)
    assert decoded_texts(scribe) == 1


def decoded_texts(scribe: Scribe) -> int:
    """Return the number of texts that have been decoded."""
    return int(cast(Any, scribe.decode).cache_info().misses)
