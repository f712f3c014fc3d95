"""The language rules hold in the whole tree, and recognize their offences."""

from __future__ import annotations

import ast

import pytest

from tests.architecture.language import (
    CLAUSE,
    MORE_PARAMETERS,
    OPENING,
    PUZZLE,
    REPEATED,
    RULES,
    UNNAMED,
    _has_many_parameters,
    _idle_strings,
    _promises_another_result,
    _prose_of,
    banned,
    offences,
    paragraphs,
    prose,
)
from tests.support.sources import sources


@pytest.mark.parametrize("rule", RULES)
def test_no_text_of_the_tree_breaks_a_language_rule(rule: str) -> None:
    places = [f"{offence.place}: {offence.words}" for offence in offences() if offence.rule == rule]
    assert not places, f"{RULES[rule]}: `python -m tests.architecture.language` prints all places"


def test_each_module_in_the_table_of_exceptions_has_a_function_with_many_parameters() -> None:
    longer = {
        source.module
        for source in sources("src")
        for node in ast.walk(source.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and _has_many_parameters(node)
    }
    assert MORE_PARAMETERS.keys() <= longer


@pytest.mark.parametrize(
    ("code", "lines"),
    [
        ('"""A module."""\nA = 1\n"""What A is."""\nB: int = 2\n"""What B is."""\n', []),
        ('class A:\n    """A class."""\n    b: int\n    """A field."""\n', []),
        ('"""A module."""\nimport re\n"""A constant that was here."""\n', [3]),
        ('def f():\n    """A function."""\n    g()\n    """Leftover."""\n', [4]),
        ('def f():\n    """A function."""\n    """Leftover."""\n', [3]),
        ('if a:\n    """Leftover."""\n', [2]),
    ],
)
def test_a_string_that_documents_nothing_is_an_offence(code: str, lines: list[int]) -> None:
    assert [line for line, _ in _idle_strings(ast.walk(ast.parse(code)))] == lines


@pytest.mark.parametrize(
    ("signature", "docstring", "is_offence"),
    [
        ("-> None", "Return whether a file may be read. Raises Invalid.", True),
        ("-> bool", "Return whether a file may be read.", False),
        ("-> None", "Return the unspent units to the task above.", False),
        ("-> list[str]", "Yield the words of a text.", True),
        ("-> Iterator[str]", "Yield the words of a text.", False),
    ],
)
def test_a_docstring_that_promises_another_result_is_an_offence(
    signature: str, docstring: str, is_offence: bool
) -> None:
    [function] = ast.parse(f'def f() {signature}:\n    """{docstring}"""\n').body
    assert isinstance(function, ast.FunctionDef)
    assert _promises_another_result(function) is is_offence


@pytest.mark.parametrize(
    ("text", "is_clause"),
    [
        ("Return what the agent may reach.", True),
        ("Keep What is new.", True),
        ("Run a what-if over the ledger.", False),
        ("Follow `do what the note says`.", False),
        ('Read the signed element ("see what is signed").', False),
    ],
)
def test_a_clause_with_the_pronoun_what_is_an_offence_outside_code_and_quotations(text: str, is_clause: bool) -> None:
    assert bool(CLAUSE.search(_prose_of(text))) is is_clause


@pytest.mark.parametrize(
    ("text", "is_unnamed"),
    [
        ("It ends with the task.", True),
        ("- Its tokens end.", True),
        ("A guard stops. They deny.", True),
        ("The guard denies, and its tokens end.", False),
        ("Italics are fine. Items too.", False),
    ],
)
def test_a_sentence_of_a_page_that_begins_with_a_pronoun_is_an_offence(text: str, is_unnamed: bool) -> None:
    assert bool(UNNAMED.search(text)) is is_unnamed


@pytest.mark.parametrize(
    ("name", "is_puzzle"),
    [
        ("test_who_leaves_has_no_role", True),
        ("test_an_approval_needs_a_yes", True),
        ("test_so_many_are_allowed", True),
        ("test_a_person_who_leaves_has_no_role", False),
        ("test_offers_are_bounded", False),
    ],
)
def test_a_name_of_a_test_without_a_subject_is_an_offence(name: str, is_puzzle: bool) -> None:
    assert bool(PUZZLE.match(name)) is is_puzzle


@pytest.mark.parametrize(("text", "repeats"), [("and and a", True), ("the\n    the", True), ("that this", False)])
def test_a_word_twice_in_a_row_is_an_offence(text: str, repeats: bool) -> None:
    assert bool(REPEATED.search(text)) is repeats


@pytest.mark.parametrize(
    ("signature", "is_long"),
    [
        ("self, a, b, c, d, e, f, g, h", False),
        ("a, b, c, d, e, f, g, h, i", True),
        ("cls, a, /, b, c, d, e, f, g, *, h, i, j, k, l", False),
        ("a, /, b, c, d, e, f, g, *, h, i, j, k, l, m", True),
        ("*args, **rest", False),
    ],
)
def test_a_function_with_many_parameters_is_an_offence(signature: str, is_long: bool) -> None:
    [function] = ast.parse(f"def f({signature}): ...").body
    assert isinstance(function, ast.FunctionDef)
    assert _has_many_parameters(function) is is_long


@pytest.mark.parametrize(
    "opening",
    [
        "What a token says.",
        "Raises NotFound.",
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
def test_a_word_list_is_not_read_as_prose_and_a_sentence_is(code: str, is_prose: bool) -> None:
    assert any(list(banned(text)) for _, text in prose(tuple(ast.walk(ast.parse(code))), code)) is is_prose


def test_code_on_a_page_is_not_read_as_prose() -> None:
    page = "# Title\n\nRead `nobody` here.\n\n```\nnobody is told\n```\nAnd\nthis.\n"
    assert list(paragraphs(page)) == [(1, "# Title"), (3, "Read `code` here."), (8, "And this.")]
