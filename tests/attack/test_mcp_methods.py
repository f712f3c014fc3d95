"""Methods of MCP beside `tools/call`: their URIs, names and values are judged like the arguments of a tool."""

from __future__ import annotations

import itertools
import re
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from ostiary.authorization.catalogue import METHODS, Catalogue, Effect, listing_of
from ostiary.authorization.catalogue.offers import MAX_OFFER, MAX_VARIABLES, Offers, Variable
from ostiary.catalogue_advisor.reading import propose_catalogue
from ostiary.guard.mcp import is_free, map_request
from ostiary.protocol.errors import Malformed
from tests.attack.link_calls import LINK, LINKS, call, is_asked

LISTED: dict[str, Any] = {
    "resources": [{"uri": "file:///handbook.md", "name": "handbook"}, {"uri": "memo:today", "name": "today"}],
    "resourceTemplates": [
        {"uriTemplate": "file:///shared/{file}", "name": "shared"},
        {"uriTemplate": "db://orders/{id}/lines{?page}", "name": "lines"},
        {"uriTemplate": "file:///all/{+path}", "name": "all"},
    ],
    "prompts": [{"name": "summarise", "arguments": [{"name": "file"}]}],
    "capabilities": {"resources": {"subscribe": True}, "prompts": {}, "completions": {}, "tasks": {}},
}
TOOLS: Catalogue = propose_catalogue("desk", LISTED).catalogue
URIS: dict[str, Any] = {
    "resources/read": lambda uri: {"uri": uri},
    "resources/subscribe": lambda uri: {"uri": uri},
    "subscriptions/listen": lambda uri: {"notifications": {"resourceSubscriptions": [uri]}},
}


@pytest.mark.parametrize("method", list(URIS))
@pytest.mark.parametrize(
    ("uri", "asks"),
    [
        ("file:///handbook.md", False),
        ("memo:today", False),
        ("file:///etc/passwd", True),
        ("file:///handbook.md/../../etc/passwd", True),
        ("FILE:///handbook.md", True),
        (LINK, True),
        ("file:///shared/report.txt", False),
        ("file:///shared/passwd", True),
        ("file:///shared/..%2F..%2Fetc", True),
        ("file:///shared/a/report.txt", True),
        ("file:///all/report.txt", False),
        ("file:///all/../etc/passwd", True),
        ("file:///all/https://evil.example/report.txt", True),
        ("db://orders/100/lines", False),
        ("db://orders/4711/lines", True),
        ("db://orders/100/lines?page=2&to=evil.example", True),
        ("file:///report.txt.evil.example", True),
    ],
)
def test_a_uri_that_neither_the_server_lists_nor_the_person_stated_needs_approval(
    method: str, uri: str, asks: bool
) -> None:
    assert is_asked(TOOLS, method, URIS[method](uri)) is asks


def test_completions_of_listed_templates_need_no_approval() -> None:
    """A text that is typed so far comes from nowhere, so only links in it are judged."""

    def complete(uri: str) -> dict[str, Any]:
        return {"ref": {"type": "ref/resource", "uri": uri}, "argument": {"name": "file", "value": "re"}}

    for template in LISTED["resourceTemplates"]:
        assert not is_asked(TOOLS, "completion/complete", complete(template["uriTemplate"]))
    assert is_asked(TOOLS, "completion/complete", complete("file:///{file}"))
    assert is_asked(TOOLS, "completion/complete", complete(LINK))


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("prompts/get", lambda link: {"name": "summarise", "arguments": {"file": link}}),
        ("prompts/get", lambda link: {"name": "summarise", "arguments": {link: "report.txt"}}),
        ("prompts/get", lambda link: {"name": link}),
        ("prompts/get", lambda link: {"name": "summarise", "inputResponses": {"a": {"content": {"b": [link]}}}}),
        ("completion/complete", lambda link: {"ref": {"name": "a"}, "argument": {"name": "file", "value": link}}),
        ("completion/complete", lambda link: {"ref": {}, "argument": {}, "context": {"arguments": {"file": link}}}),
        ("tasks/get", lambda link: {"taskId": link}),
        ("tasks/cancel", lambda link: {"taskId": link}),
        ("subscriptions/listen", lambda link: {"notifications": {"toolsListChanged": True, "more": [link]}}),
    ],
)
def test_a_foreign_link_in_any_method_needs_approval(method: str, arguments: Any, link: str) -> None:
    assert is_asked(TOOLS, method, arguments(link))


def test_methods_other_than_task_changes_are_reads_with_read_scopes() -> None:
    effects = {name: TOOLS.tools[name].effect for name in METHODS}
    assert {name for name, effect in effects.items() if effect is not Effect.READ} == {"tasks/update", "tasks/cancel"}
    assert {TOOLS.scope(TOOLS.tools[name]) for name, effect in effects.items() if effect is Effect.READ} == {
        "desk:read"
    }
    assert all(tool.is_outside for tool in TOOLS.tools.values()), "others may have written what they return"
    assert not is_asked(TOOLS, "prompts/get", {"name": "summarise", "arguments": {"file": "minutes of May"}})


def test_a_tool_with_the_name_of_a_method_is_denied() -> None:
    tool, arguments = map_request("tools/call", {"name": "resources/read", "arguments": {"uri": "file:///handbook.md"}})
    assert [reason.code for reason in call(TOOLS, tool, dict(arguments)).reasons] == ["unknown_tool"]


@pytest.mark.parametrize(
    ("filters", "is_it"),
    [
        ({}, True),
        ({"toolsListChanged": True, "promptsListChanged": True, "resourcesListChanged": False}, True),
        ({"resourceSubscriptions": []}, True),
        ({"resourceSubscriptions": None}, True),
        ({"resourceSubscriptions": ["file:///handbook.md"]}, False),
        ({"somethingElse": True}, False),
        (None, False),
        ([], False),
    ],
)
def test_subscriptions_to_list_changes_alone_need_no_decision(filters: Any, is_it: bool) -> None:
    assert is_free("subscriptions/listen", {"notifications": filters}) is is_it
    assert not is_free("subscriptions/listen", None)


PIECE = st.text("ab/?#&%.:{}", max_size=6)


@given(st.lists(PIECE, min_size=1, max_size=4), st.lists(st.text("ab/?#&%.:", max_size=4), min_size=3, max_size=3))
@example(["a/", ".b", ""], ["b:", "a", ""])
def test_literals_and_variables_of_a_template_make_up_the_whole_value(pieces: list[str], values: list[str]) -> None:
    """Whatever the template, nothing of a value is lost: literals and variables together are the value."""
    assume(not any(re.search(r"\{[^{}]*\}", piece) for piece in pieces))
    template = "{x}".join(pieces)
    value = "".join(itertools.chain(*zip(pieces, [*values[: len(pieces) - 1], ""], strict=True)))
    found = Offers([template]).variables(value)
    if found:
        literals = [*pieces]
        assert all("{" not in one and "}" not in one for one in literals)
        assert not any(set(one.value) & set("/?#&") for one in found if "%" not in value)
        if "%" not in value:
            rebuilt = literals[0] + "".join(
                one.value + literal for one, literal in zip(found, literals[1:], strict=True)
            )
            assert rebuilt == value


def test_templates_have_limits_on_variables_and_length() -> None:
    widest = "-".join(["{a}"] * MAX_VARIABLES)
    value = "-".join("b" * MAX_VARIABLES)
    assert Offers([widest]).variables(value) == [Variable("b", is_simple=True)] * MAX_VARIABLES
    assert Offers([f"{widest}-{{a}}"]).variables(f"{value}-b") is None
    for separator in "/?#&":
        assert Offers(["db://{a}"]).variables(f"db://b{separator}c") is None, "a simple variable has no separator"
    assert Offers(["db://{+a}"]).variables("db://b/c") == [Variable("b/c", is_simple=False)]
    assert Offers(["{a}{b}"]).variables("b") is None, "nobody can tell where one ends"
    assert [Offers([one]).variables("b") for one in ("{}", "{+}", "{ }")] == [None] * 3, "no expression without a name"
    assert Offers(["x{a}"]).variables("x" + "b" * (MAX_OFFER - 1)) is not None
    assert Offers(["x{a}"]).variables("x" + "b" * MAX_OFFER) is None
    hostile = Offers(["-".join(["{a}"] * MAX_VARIABLES) + "!"] * 1000)
    assert hostile.variables("-" * MAX_OFFER) is None, "in no time"


def test_the_pages_of_list_methods_are_merged_into_one_listing() -> None:
    pages = [
        {"jsonrpc": "2.0", "id": 1, "result": {"tools": [{"name": "a"}], "nextCursor": "2"}},
        {"jsonrpc": "2.0", "id": 2, "result": {"tools": [{"name": "b"}]}},
        {"resources": [{"uri": "memo:a"}]},
        {"capabilities": {"prompts": {}}},
    ]
    listing = listing_of(pages)
    assert [tool["name"] for tool in listing["tools"]] == ["a", "b"]
    assert set(Catalogue.from_mcp("desk", pages).tools) == {
        "a",
        "b",
        "resources/read",
        "resources/subscribe",
        "subscriptions/listen",
        "completion/complete",
        "prompts/get",
    }


@pytest.mark.parametrize(
    "said", [[], {}, [{}], [{"tools": []}, 5], {"resources": 5}, {"resources": [{}]}, {"prompts": [{"name": ""}]}]
)
def test_a_malformed_listing_is_refused(said: Any) -> None:
    with pytest.raises(Malformed):
        Catalogue.from_mcp("desk", said)
