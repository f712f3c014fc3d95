"""The tree is written in plain technical English. Departures are counted per package, and only shrink."""

from __future__ import annotations

import ast

import pytest

from tests.architecture.language import (
    OPENING,
    RULES,
    TABLE,
    allowances,
    banned,
    counts,
    paragraphs,
    prose,
    render,
)

TABLED = allowances(TABLE.read_text("utf-8"))


@pytest.mark.parametrize("rule", RULES)
def test_no_package_departs_from_a_wording_rule_more_often_than_the_table_allows(rule: str) -> None:
    present = {name: row[rule] for name, row in counts().items() if rule in row}
    allowed = {name: row[rule] for name, row in TABLED.items() if rule in row}
    more = {name: count for name, count in present.items() if count > allowed.get(name, 0)}
    assert not more, f"{RULES[rule]}: `python -m tests.architecture.language {' '.join(more)}` prints the places"
    assert present == allowed, "fewer than the table allows: `python -m tests.architecture.language --renew`"


def test_the_table_is_written_as_the_program_writes_it() -> None:
    assert TABLE.read_text("utf-8") == render(dict(sorted(TABLED.items())))


def test_a_conflict_in_the_table_keeps_the_larger_counts() -> None:
    text = (
        '<<<<<<< ours\n"a" = { names = 2, openings = 1 }\n=======\n"a" = { names = 1, openings = 3 }\n>>>>>>> theirs\n'
    )
    assert allowances(text) == {"a": {"names": 2, "openings": 3}}


@pytest.mark.parametrize(
    "opening",
    [
        "What a token says.",
        "Whether the token is live.",
        "Who may pass.",
        "By which a call is known.",
        "Those that are registered.",
        "One that is served.",
        "One statement of the draft.",
        "One suggestion, with its evidence.",
        "The one that counts.",
        "All that waits.",
        "Nobody else.",
        "There is no such key.",
        "In whose name it is.",
        "Its name.",
    ],
)
def test_a_docstring_that_opens_with_a_pronoun_or_a_question_word_is_an_offence(opening: str) -> None:
    assert OPENING.match(opening)


@pytest.mark.parametrize(
    "opening",
    [
        "The head of the tree.",
        "An agent's live restrictions.",
        "One entry per guard.",
        "Every route, with its scope.",
        "All agents of an owner.",
        "Return the budgets in force for `task`.",
        "In-memory store of sessions.",
        "True if the token is live.",
        "Forwarded requests.",
        "Items of a page.",
        "Notify the guards.",
        "Two tables.",
    ],
)
def test_a_docstring_that_opens_with_a_noun_phrase_or_a_verb_is_fine(opening: str) -> None:
    assert not OPENING.match(opening)


@pytest.mark.parametrize(
    "text",
    [
        "nobody is here to say yes",
        "A playbook stops agents while nobody's looking.",
        "The command carries out what is decided, or no more.",
        "The owner is told of the change.",
        "A token that ends by itself cuts nothing.",
        "Lists of what is evil.",
        "Each alert tells all that waits.",
        "What is not taken is tried again.",
        "Where no policy reads it, it is not made.",
        "Restrictions of one that is put on another of its kind combine.",
        "How far those who call are doubted.",
        "A room imports only rooms below it, and every room is in the list.",
    ],
)
def test_a_phrase_of_the_old_dialect_is_an_offence(text: str) -> None:
    assert list(banned(text))


@pytest.mark.parametrize(
    "text",
    [
        "No more than 8 alarms are open at the same time.",
        "What does a guard do when the feed is stale?",
        "The file has no room for another record.",
        "Return the agents that hold a lease.",
        "Normal expiry does not close open connections.",
        "The outbox retries failed deliveries.",
    ],
)
def test_plain_sentences_are_fine(text: str) -> None:
    assert not list(banned(text))


@pytest.mark.parametrize(
    ("code", "is_prose"),
    [
        ('WORDS = vocabulary("i we they he she it")', False),
        ('WORDS = vocabulary("Tell him, and her.")', True),
        ('message("i we they he she it")', True),
    ],
)
def test_a_list_of_words_is_data_and_a_sentence_is_not(code: str, is_prose: bool) -> None:
    assert any(list(banned(text)) for _, text in prose(tuple(ast.walk(ast.parse(code))), code)) is is_prose


def test_code_on_a_page_is_not_read_as_prose() -> None:
    page = "# Title\n\nRead `nobody` here.\n\n```\nnobody is told\n```\nAnd\nthis.\n"
    assert list(paragraphs(page)) == [(1, "# Title"), (3, "Read `code` here."), (8, "And this.")]
