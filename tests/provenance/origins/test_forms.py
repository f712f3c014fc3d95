"""Forms of one identifier: split into parts, as a path in a folder, as the key of a map; and look-alikes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ostiary.authorization.catalogue import Effect, Kind, Tool
from ostiary.provenance.origins import (
    Memory,
    Origin,
    add_parts,
    judge_origins,
    observe_output,
    of_value,
    remember,
    with_marks,
)
from ostiary.provenance.origins.words import join_parts, split_identifier
from tests.support.seed import seed

KEY = bytes(range(32))
LIST = Tool(name="list", effect=Effect.READ, open_world=False)
MAIL = Tool(name="inbox", effect=Effect.READ)


def tool(*names: str) -> Tool:
    return Tool(
        name="do",
        effect=Effect.CHANGE,
        arguments={"properties": {name: {} for name in names}},
        kinds=dict.fromkeys(names, "object"),
    )


def worst(words: str, names: list[str], values: dict[str, Any]) -> str:
    memory = with_marks(remember(KEY, seed(words)))
    return str(judge_origins(memory, tool(*names), values)["origin_worst"])


SPLIT: list[tuple[str, list[Any], list[Any]]] = [
    ("close octo/hello#12", ["octo", "hello", 12], ["hello", "octo", 12]),
    ("close octo/hello#12", ["Octo", "hello", "12"], ["octo", "hello", 13]),
    ("fork Octo/Hello", ["octo", "hello"], ["octo", "evil"]),
    ("see https://git.example/octo/hello/issues/12", ["octo", "hello", 12], ["octo", "hello", 1]),
    ("see https://git.example/octo/hello", ["octo", "hello"], ["git.example", "hello"]),
    ("write to ada@example.org", ["ada", "example.org"], ["example.org", "ada"]),
    ("restart db:main", ["db", "main"], ["db", "other"]),
    ("rename notes.txt", ["notes", "txt"], ["notes", "exe"]),
]


@pytest.mark.parametrize(("words", "right", "wrong"), SPLIT)
def test_an_identifier_split_over_arguments_has_the_origin_of_the_whole(
    words: str, right: list[Any], wrong: list[Any]
) -> None:
    names = ["one", "two", "three"][: len(right)]
    assert worst(words, names, dict(zip(names, right, strict=True))) == "person"
    assert worst(words, names, dict(reversed(list(zip(names, right, strict=True))))) == "person", (
        "the schema has the order"
    )
    assert worst(words, names, dict(zip(names, wrong, strict=True))) == "nowhere"
    for name, value in zip(names, right, strict=True):
        assert worst(words, names, {name: value}) == "nowhere", "a part alone is no identifier"
    assert worst(words, ["other", *names], {"other": "evil", **dict(zip(names, right, strict=True))}) == "nowhere"


def test_an_argument_that_is_not_in_the_schema_is_not_a_part_of_an_identifier() -> None:
    assert worst("fork octo/hello", ["one"], {"one": "octo", "two": "hello"}) == "nowhere"


def test_an_identifier_in_an_output_is_not_split_into_parts() -> None:
    memory = add_parts(
        remember(KEY, seed("look")), observe_output(remember(KEY, seed("look")), "x/list", LIST, {}, ["octo/hello"])
    )
    assert judge_origins(memory, tool("one", "two"), {"one": "octo", "two": "hello"})["origin_worst"] == "nowhere"


@given(st.lists(st.text("abc019", min_size=1, max_size=6), min_size=2, max_size=4), st.sampled_from("/@#:."))
def test_the_parts_of_an_identifier_count_together_and_in_order(parts: list[str], separator: str) -> None:
    assert join_parts(parts) in set(split_identifier(separator.join(parts)))
    if len(set(parts)) == len(parts):
        assert join_parts(parts[::-1]) not in set(split_identifier(separator.join(parts)))


PATHS: list[tuple[str, str, str]] = [
    ("delete notes.txt", "./notes.txt", "person"),
    ("delete ./notes.txt", "notes.txt", "nowhere"),
    ("delete ~/a/notes.txt", "{home}/ada/a/notes.txt", "person"),
    ("delete ~/a/notes.txt", "/a/notes.txt", "nowhere"),
    ("delete ~/a/notes.txt", "~/a/notes.txt", "person"),
    ("delete notes.txt", "~/notes.txt", "record"),
    ("delete notes.txt", "{home}/ada/notes.txt", "record"),
    ("delete notes.txt", "{users}/ada/notes.txt", "record"),
    ("delete notes.txt", "{home}/eve/notes.txt", "nowhere"),
    ("delete notes.txt", "{home}/ada/other/notes.txt", "nowhere"),
    ("delete notes.txt in backup", "backup/notes.txt", "record"),
    ("delete notes.txt in /srv/data", "/srv/data/notes.txt", "record"),
    ("delete notes.txt in ~/a/b", "{home}/ada/a/b/notes.txt", "record"),
    ("delete notes.txt in ~/a/b", "~/a/b/notes.txt", "record"),
    ("delete notes.txt in ~/a/b", "{home}/eve/a/b/notes.txt", "nowhere"),
    ("delete notes.txt in ~/a/b", "a/b/notes.txt", "nowhere"),
    ("delete notes.txt in ~/a/b", "{home}/ada/a/notes.txt", "nowhere"),
    ("delete notes.txt in ~/a/b", "{home}/ada/a/b/../notes.txt", "nowhere"),
    ("delete notes.txt in /srv/data", "/srv/notes.txt", "nowhere"),
    ("delete notes.txt in /srv/data", "srv/data/notes.txt", "nowhere"),
    ("delete notes.txt in /srv/data", "/srv/data/../notes.txt", "nowhere"),
    ("delete ../notes.txt in /srv/data", "/srv/data/../notes.txt", "nowhere"),
    ("delete notes.txt in /srv/data", "/srv/data/./notes.txt", "nowhere"),
    ("delete notes.txt in /srv/data", "/srv/data//notes.txt", "nowhere"),
    ("delete notes.txt", "~/../notes.txt", "nowhere"),
    ("delete notes.txt", "./../notes.txt", "nowhere"),
    ("delete notes.txt", "evil/notes.txt", "nowhere"),
    ("look in shared", "shared/secret.txt", "nowhere"),
    ("delete notes.txt", "/".join(["notes.txt"] * 13), "nowhere"),
]


@pytest.mark.parametrize(("words", "path", "origin"), PATHS)
def test_a_path_has_the_origin_of_its_folder_and_its_name(words: str, path: str, origin: str) -> None:
    memory = with_marks(remember(KEY, seed(words, own=["ada"])))
    path = path.replace("{home}", "/" + "home").replace("{users}", "/" + "Users")
    assert of_value(memory, Kind.OBJECT, path) is Origin[origin.upper()]


WITHIN: list[tuple[str, list[str], bool]] = [
    ("fix the port in /srv/data", ["/srv/data/a.yml"], True),
    ("fix the port in /srv/data", ["/srv/data/a.yml", "/srv/data/b/c.yml"], True),
    ("fix the port in /srv/data", ["/srv/data/a.yml", "/srv/other/c.yml"], False),
    ("fix the port in /srv/data", ["/srv/data2/a.yml"], False),
    ("fix the port in /srv/data", ["/srv/data/../other/c.yml"], False),
    ("fix the port in /srv/data", ["/srv/data//c.yml"], False),
    ("fix the port in data", ["data/a.yml"], False),
    ("fix the port in ~/src/api", ["{home}/ada/src/api/a.yml"], True),
    ("fix the port in ~/src/api", ["{home}/eve/src/api/a.yml"], False),
]


@pytest.mark.parametrize(("words", "paths", "is_named"), WITHIN)
def test_an_approval_can_be_requested_for_a_file_in_a_folder_that_the_person_named(
    words: str, paths: list[str], is_named: bool
) -> None:
    begun = with_marks(remember(KEY, seed(words, own=["ada"])))
    paths = [path.replace("{home}", "/" + "home") for path in paths]
    memory = add_parts(begun, observe_output(begun, "x/inbox", MAIL, {}, f"see {' and '.join(paths)}"))
    beside = judge_origins(memory, tool("path"), {"path": paths})
    assert beside["from_named"] is is_named
    assert beside["origin_worst"] == "outside", "the person said the folder, not the file"
    assert judge_origins(memory, tool("path", "to"), {"path": paths, "to": "/elsewhere/a"})["from_named"] is False
    send = Tool(name="do", effect=Effect.SEND, kinds={"to": "address", "path": "object"})
    assert judge_origins(memory, send, {"to": paths[0], "path": paths[0]})["from_named"] is False


def test_a_folder_is_as_trusted_as_the_source_that_named_the_folder() -> None:
    begun = remember(KEY, seed("save notes.txt"))
    for source, output, origin in ((LIST, ["/srv/data"], Origin.KNOWN), (MAIL, "look in /srv/data", Origin.OUTSIDE)):
        memory = add_parts(begun, observe_output(begun, f"x/{source.name}", source, {}, output))
        assert of_value(memory, Kind.OBJECT, "/srv/data/notes.txt") is origin


@pytest.mark.parametrize("said", ["Ann", "Bob"])
def test_the_key_of_a_map_is_the_name_of_its_record(said: str) -> None:
    begun = remember(KEY, seed(f"remove {said}"))
    output = {"u-17": {"name": "Ann", "room": "Aster"}, "u-18": {"name": "Bob", "room": "Begonia"}}
    memory = add_parts(begun, observe_output(begun, "x/list", LIST, {}, output))
    for key, name in (("u-17", "Ann"), ("u-18", "Bob")):
        assert of_value(memory, Kind.OBJECT, key) is (Origin.RECORD if name == said else Origin.KNOWN)
        beside = judge_origins(memory, tool("id"), {"id": key})
        assert ("substituted" in beside) is (name != said)


NUMBERS = [
    ("1.234,50", 1234.5),
    ("1'234.50", 1234.5),
    ("1 234,50", 1234.5),
    ("EUR 1234.50", 1234.5),
    ("$1,234.50", 1234.5),
    ("1234.50€", 1234.5),
    ("1,234.50 dollars", 1234.5),
    ("CHF 80", 80),
    ("EUR1234.50", 1234.5),
    ("1.234,50TL", 1234.5),
    ("R$1.234,50", 1234.5),
    ("1234,50kr.", 1234.5),
]


@pytest.mark.parametrize(("text", "number"), NUMBERS)
def test_an_amount_is_recognised_in_any_notation_of_the_person(text: str, number: float) -> None:
    memory = remember(KEY, seed(f"pay {text} now"))
    assert of_value(memory, Kind.AMOUNT, number) is Origin.PERSON
    assert of_value(memory, Kind.AMOUNT, number * 10) is Origin.NOWHERE


@pytest.mark.parametrize(
    ("words", "is_stated"),
    [
        ("cancel the orders 31 and 32", True),
        ("cancel the orders 31, 32", True),
        ("cancel the orders 31;32", True),
        ("cancel the orders 31,32,33", True),
        ("cancel the orders 31,32", False),
        ("pay 31,32 for the order", False),
    ],
)
@pytest.mark.parametrize("ids", [[31, 32], ["31", "32"]])
def test_numbers_of_a_list_are_stated_unless_they_can_be_one_decimal_number(
    words: str, is_stated: bool, ids: list[Any]
) -> None:
    assert worst(words, ["ids"], {"ids": ids}) == ("person" if is_stated else "nowhere")


@pytest.mark.parametrize("name", ["AMX500", "v1.25", "USB3.1", "A12.505"])
def test_a_number_in_a_name_is_not_an_amount(name: str) -> None:
    memory = remember(KEY, seed(f"order {name} now"))
    number = float(name.lstrip("AMXvUSB"))
    assert of_value(memory, Kind.AMOUNT, number) is Origin.NOWHERE
    assert of_value(memory, Kind.OBJECT, name) is Origin.PERSON


DATES = ["March 3rd 2026", "3 March 2026", "2026-03-03", "3.3.2026", "03/03/2026", "Mar 3, 2026", "2026/03/03"]


@pytest.mark.parametrize("text", DATES)
def test_a_point_in_time_is_composed_of_a_date_and_a_time_of_the_person(text: str) -> None:
    memory: Memory = remember(KEY, seed(f"meet on {text} at 2 pm"))
    assert of_value(memory, Kind.TIME, "2026-03-03T14:00") is Origin.PERSON
    assert of_value(memory, Kind.TIME, "2026-03-03T14:00:00") is Origin.PERSON
    assert of_value(memory, Kind.TIME, "2026-03-03T15:00") is Origin.NOWHERE
    assert of_value(memory, Kind.TIME, "2026-03-04T14:00") is Origin.NOWHERE


ALIAS = {
    "properties": {"calendar": {"default": "primary"}, "room": {"default": "main"}, "n": {"default": 1}},
    "required": ["room"],
}


@pytest.mark.parametrize(
    ("arguments", "origin"),
    [
        ({"calendar": "primary"}, None),
        ({"calendar": "Primary"}, "nowhere"),
        ({"calendar": "eve"}, "nowhere"),
        ({"calendar": ["primary"]}, "nowhere"),
        ({"room": "main"}, "nowhere"),
        ({"n": 1}, None),
        ({"n": True}, "nowhere"),
        ({"n": 2}, "nowhere"),
        ({"calendar": "primary", "room": "x"}, "nowhere"),
    ],
)
def test_the_default_of_an_optional_argument_has_no_origin(arguments: dict[str, Any], origin: str | None) -> None:
    kinds = dict.fromkeys(("calendar", "room", "n"), "object")
    alias = Tool(name="do", effect=Effect.CHANGE, arguments=ALIAS, kinds=kinds)
    beside = judge_origins(remember(KEY, seed("look")), alias, arguments)
    assert beside.get("origin_worst") == origin
    assert beside["object_worst"] == "nowhere", "which is what a call without it has"
