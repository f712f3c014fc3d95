"""Data classes: their spelling, which are known, and that bounds hold a call to them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ostiary.authorization import bounds
from ostiary.authorization.bounds import InvalidDetails, ToolDetail
from ostiary.authorization.catalogue import Catalogue
from ostiary.authorization.classes import STANDARD, check_known, is_class
from ostiary.protocol.errors import Invalid

URI = "https://files.example/mcp"
CALL: dict[str, Any] = {"resource_uri": URI, "tool": "read", "arguments": {}}


@pytest.mark.parametrize("name", [*STANDARD, "a", "0", "trade-secret", "eu.gdpr_9", "x" * 63])
def test_a_data_class_name_is_a_lower_case_ascii_word(name: str) -> None:
    assert is_class(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "Health",
        "HEALTH",
        " health",
        "health ",
        "health\n",
        "he\u0430lth",
        "heal\u200bth",
        "\uff48ealth",
        "health\0",
        "-health",
        "x" * 64,
        "a b",
    ],
)
def test_a_name_that_is_not_a_lower_case_ascii_word_is_refused(name: str) -> None:
    assert not is_class(name)
    with pytest.raises(InvalidDetails, match="is not spelled like a data class"):
        ToolDetail(locations=(URI,), datatypes=(name,))


def test_an_unknown_data_class_is_refused_with_a_list_of_the_known_classes() -> None:
    check_known(["health", "secret"], STANDARD)
    with pytest.raises(Invalid, match="'healt' is not a configured data class") as refusal:
        check_known(["health", "healt"], STANDARD)
    assert refusal.value.hint == "use one of public, internal, confidential, personal, health, payment, secret"
    detail = {"type": "tool", "locations": [URI], "datatypes": ["trade"]}
    assert bounds.parse_details([detail]) == bounds.parse_details([detail], classes=(*STANDARD, "trade"))
    with pytest.raises(InvalidDetails, match="'trade' is not a configured data class"):
        bounds.parse_details([detail], classes=STANDARD)


@pytest.mark.parametrize(
    ("datatypes", "classes", "permitted"),
    [
        (None, [], True),
        (None, ["secret"], True),
        (["health"], [], False),
        (["health"], ["health"], True),
        (["health"], ["health", "public"], False),
        (["health", "public"], ["health"], True),
        (["health", "public"], ["health", "public"], True),
        (["health", "public"], ["secret"], False),
    ],
)
def test_a_tool_is_permitted_if_all_its_data_classes_are_permitted(
    datatypes: list[str] | None, classes: list[str], permitted: bool
) -> None:
    details = [ToolDetail(locations=(URI,), datatypes=None if datatypes is None else tuple(datatypes))]
    assert bounds.permits(details, **CALL, classes=frozenset(classes)) is permitted
    assert (bounds.explain(details, **CALL, classes=frozenset(classes)) == "") is permitted


def test_a_denial_names_the_data_classes_of_the_tool_and_of_the_task() -> None:
    details = [ToolDetail(locations=(URI,), datatypes=("public", "internal"))]
    assert bounds.explain(details, **CALL, classes=frozenset(["health", "public"])) == (
        "`read` handles health public, and the task is limited to public internal"
    )
    assert "`read` has none in its catalogue" in bounds.explain(details, **CALL)


def test_the_data_classes_of_two_details_do_not_combine() -> None:
    details = [ToolDetail(locations=(URI,), datatypes=("public",)), ToolDetail(locations=(URI,), datatypes=("health",))]
    assert not bounds.permits(details, **CALL, classes=frozenset(["public", "health"]))


names = st.lists(st.sampled_from(STANDARD), min_size=1, max_size=4)


@given(st.none() | names, names, st.frozensets(st.sampled_from(STANDARD)))
def test_limiting_a_detail_to_data_classes_only_narrows_the_detail(
    before: list[str] | None, classes: list[str], handled: frozenset[str]
) -> None:
    outer = ToolDetail(locations=(URI,), datatypes=None if before is None else tuple(before))
    inner = outer.limited_to(classes)
    if inner is None:
        assert not set(before or ()) & set(classes)
        return
    assert bounds.is_within([inner], [outer])
    assert inner.admits(handled) is (outer.admits(handled) and bool(handled) and handled <= set(classes))


# --- catalogues ------------------------------------------------------------------------------------------------------

READ: dict[str, Any] = {"name": "read", "effect": "read"}


def catalogue(*tools: dict[str, Any], **more: Any) -> Catalogue:
    return Catalogue.parse(json.dumps({"resource": "files", "tools": list(tools), **more}))


@pytest.mark.parametrize(
    ("resource", "tool", "handled"),
    [
        (None, None, []),
        (None, ["health"], ["health"]),
        (["personal"], None, ["personal"]),
        (["personal"], [], ["personal"]),
        (["personal"], ["health"], ["health", "personal"]),
        ([], ["health"], ["health"]),
    ],
)
def test_a_tool_has_the_data_classes_of_its_resource_and_its_own(
    resource: list[str] | None, tool: list[str] | None, handled: list[str]
) -> None:
    own = {} if tool is None else {"data_classes": tool}
    made = catalogue(READ | own, **({} if resource is None else {"data_classes": resource}))
    assert sorted(made.classes(made.tools["read"])) == handled
    assert Catalogue.parse(json.dumps(made.render())) == made


def test_a_tool_that_is_listed_again_keeps_its_data_classes() -> None:
    before = catalogue(
        READ | {"data_classes": ["health"]}, {"name": "old", "effect": "read"}, data_classes=["personal"]
    )
    listed = Catalogue.from_mcp("files", {"tools": [{"name": "read"}, {"name": "new"}]}).after(before)
    assert listed.classes(listed.tools["read"]) == {"health", "personal"}
    assert listed.classes(listed.tools["new"]) == {"personal"}
    assert "old" not in listed.tools


def test_an_empty_list_removes_the_data_classes_of_a_tool_and_a_resource() -> None:
    before = catalogue(READ | {"data_classes": ["health"]}, data_classes=["personal"])
    bare = catalogue(READ | {"data_classes": []}, data_classes=[]).after(before)
    assert bare.classes(bare.tools["read"]) == frozenset()
    again = catalogue(READ).after(bare)
    assert again.classes(again.tools["read"]) == frozenset()


@pytest.mark.parametrize("place", ["tool", "resource"])
def test_a_catalogue_with_an_unknown_data_class_is_refused(place: str) -> None:
    made = catalogue(READ | {"data_classes": ["trade"]}) if place == "tool" else catalogue(READ, data_classes=["trade"])
    made.check_classes([*STANDARD, "trade"])
    with pytest.raises(Invalid, match="'trade' is not a configured data class"):
        made.check_classes(STANDARD)
