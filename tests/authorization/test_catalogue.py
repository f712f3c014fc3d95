from __future__ import annotations

import json
import re
from importlib.resources import files
from typing import Any

import pytest
from msgspec.structs import replace

from ostiary.authorization.catalogue import MAX_SCHEMA_BYTES, MAX_TOOLS, Catalogue, Effect, Kind, Tool
from ostiary.catalogue_advisor.language import VERBS
from ostiary.catalogue_advisor.reading import RANK
from ostiary.cli.catalogue import MEANINGS
from ostiary.protocol.errors import Invalid, Malformed
from ostiary.provenance.extent import WARNINGS
from ostiary.provenance.origins import Origin
from ostiary.provenance.origins.memory import UNTRUSTED
from ostiaryd.approvals.flows import wording as request
from ostiaryd.tokens.model import wording as consent
from tests.support.sources import ROOT


def parse(*tools: dict[str, Any], resource: str = "files") -> Catalogue:
    return Catalogue.parse(json.dumps({"resource": resource, "tools": tools}))


@pytest.mark.parametrize(
    ("tool", "scope"),
    [
        ({"name": "a", "effect": "read"}, "files:read"),
        ({"name": "a", "effect": "write"}, "files:write"),
        ({"name": "a", "effect": "send"}, "files:write"),
        ({"name": "a", "effect": "pay"}, "files:write"),
        ({"name": "a", "effect": "administer"}, "files:administer"),
        ({"name": "a", "effect": "read", "scope": "search"}, "files:search"),
    ],
)
def test_the_scope_of_a_tool_follows_from_its_effect_unless_it_is_stated(tool: dict[str, Any], scope: str) -> None:
    catalogue = parse(tool)
    assert catalogue.scope(catalogue.tools["a"]) == scope
    assert catalogue.scopes == {scope}


def test_a_rendered_catalogue_parses_to_the_same_catalogue() -> None:
    tool = {
        "name": "pay.invoice",
        "effect": "pay",
        "scope": "pay",
        "data_classes": ["financial"],
        "open_world": False,
        "arguments": {"properties": {"amount": {"type": "number", "minimum": 0.5}}},
        "kinds": {"amount": "amount"},
    }
    catalogue = parse(tool, {"name": "list", "effect": "read"})
    again = Catalogue.parse(json.dumps(catalogue.render()))
    assert again.tools == catalogue.tools
    assert again.digest == catalogue.digest


def test_the_digest_depends_on_the_tools_and_not_on_their_order() -> None:
    first, second = {"name": "a", "effect": "read"}, {"name": "b", "effect": "write"}
    assert parse(first, second).digest == parse(second, first).digest
    assert parse(first, second).digest != parse(first, second | {"effect": "read"}).digest
    assert parse(first, second).digest != parse(first).digest


@pytest.mark.parametrize("name", ["a" * 128, "_a", "files/read", "read-file.v2", "READ"])
def test_names_that_mcp_servers_use_are_accepted(name: str) -> None:
    assert name in parse({"name": name, "effect": "read"}).tools


@pytest.mark.parametrize("name", ["", "a" * 129, "-a", "a b", "ä", "a\n", 'a"b', "a\u202eb", "/a"])
def test_malformed_tool_names_are_refused(name: str) -> None:
    with pytest.raises(Malformed):
        parse({"name": name, "effect": "read"})


@pytest.mark.parametrize(
    "tool",
    [
        {"name": "a"},
        {"effect": "read"},
        {"name": "a", "effect": "look"},
        {"name": "a", "effect": "read", "scope": "a:b"},
        {"name": "a", "effect": "read", "scope": ""},
        {"name": "a", "effect": "read", "data_classes": ["x"] * 33},
        {"name": "a", "effect": "read", "data_classes": ["X"]},
        {"name": "a", "effect": "read", "unknown": 1},
        {"name": "a", "effect": "read", "arguments": []},
    ],
)
def test_a_malformed_tool_is_refused(tool: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        parse(tool)


def test_two_tools_of_one_name_are_refused() -> None:
    with pytest.raises(Invalid, match="two tools `a`"):
        parse({"name": "a", "effect": "read"}, {"name": "a", "effect": "write"})


def test_a_member_given_twice_is_refused() -> None:
    with pytest.raises(Malformed, match="twice"):
        Catalogue.parse('{"resource": "files", "tools": [{"name": "a", "effect": "read", "effect": "write"}]}')


@pytest.mark.parametrize("resource", ["", "Files", "a/b", "-a", "a" * 64, "files\n"])
def test_an_invalid_resource_name_is_refused(resource: str) -> None:
    with pytest.raises(Invalid):
        parse({"name": "a", "effect": "read"}, resource=resource)


def test_a_catalogue_has_at_most_a_thousand_tools() -> None:
    tools = [{"name": f"t{number}", "effect": "read"} for number in range(MAX_TOOLS + 1)]
    assert len(parse(*tools[:-1]).tools) == MAX_TOOLS
    with pytest.raises(Malformed):
        parse(*tools)


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        schema = {"items": schema}
    return schema


def test_a_schema_is_bounded_in_depth_and_in_size() -> None:
    deep, deeper = nested(25), nested(26)  # and `properties`, and what holds them
    parse({"name": "a", "effect": "read", "arguments": {"properties": {"x": deep}}})
    with pytest.raises(Invalid, match="tool `a`"):
        parse({"name": "a", "effect": "read", "arguments": {"properties": {"x": deeper}}})
    room = MAX_SCHEMA_BYTES - len('{"title":""}')
    parse({"name": "a", "effect": "read", "arguments": {"title": "x" * room}})
    with pytest.raises(Invalid, match=f"has {MAX_SCHEMA_BYTES + 1} bytes"):
        parse({"name": "a", "effect": "read", "arguments": {"title": "x" * (room + 1)}})


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ({"type": "array"}, 'the type "object"'),
        ({"properties": {"a": {"type": "text"}}}, "unknown `type`"),
        ({"properties": {"a": {"$ref": "https://elsewhere.example/schema"}}}, "must be `#`"),
        ({"properties": {"a": {"$ref": "#/$defs/nothing"}}}, "nowhere"),
        ({"properties": {"a": {"minimum": "1"}}}, "minimum"),
        ({"properties": {"a": {"multipleOf": 0}}}, "multipleOf"),
        ({"properties": {"a": {"maxLength": -1}}}, "maxLength"),
        ({"properties": {"a": {"anyOf": {}}}}, "anyOf"),
        ({"properties": []}, "properties"),
        ({"required": "path"}, "required"),
        ({"properties": {"a": 1}}, "a schema must be"),
    ],
)
def test_an_unsupported_schema_is_refused_with_the_name_of_its_tool(schema: dict[str, Any], why: str) -> None:
    with pytest.raises(Invalid, match=f"tool `pay`.*{why}"):
        parse({"name": "pay", "effect": "pay", "arguments": schema})


def mcp(**tool: Any) -> Tool:
    return Catalogue.from_mcp("files", {"tools": [{"name": "a", "inputSchema": {"type": "object"}} | tool]}).tools["a"]


@pytest.mark.parametrize(
    ("annotations", "effect", "open_world"),
    [
        (None, Effect.DESTROY, True),
        ({}, Effect.DESTROY, True),
        ({"readOnlyHint": True}, Effect.READ, True),
        ({"readOnlyHint": True, "openWorldHint": False}, Effect.READ, False),
        ({"destructiveHint": False}, Effect.WRITE, True),
        ({"destructiveHint": True, "openWorldHint": False}, Effect.DESTROY, False),
        ({"readOnlyHint": True, "destructiveHint": True}, Effect.READ, True),  # MCP: it counts only where not read-only
    ],
)
def test_annotations_of_an_mcp_tool_set_its_effect_and_missing_ones_mean_destroy(
    annotations: dict[str, bool] | None, effect: Effect, open_world: bool
) -> None:
    tool = mcp(annotations=annotations)
    assert (tool.effect, tool.open_world) == (effect, open_world)


def test_other_members_of_an_mcp_tool_are_ignored() -> None:
    tool = mcp(title="A", description="d", outputSchema={}, icons=[], _meta={"x": 1}, annotations={"title": "t"})
    assert tool.arguments == {"type": "object"}


@pytest.mark.parametrize(
    "result", [None, [], {}, {"tools": {}}, {"tools": [{}]}, {"tools": [{"name": "a", "inputSchema": []}]}]
)
def test_a_malformed_mcp_tool_list_is_refused(result: object) -> None:
    with pytest.raises(Malformed):
        Catalogue.from_mcp("files", result)


def test_an_mcp_tool_with_an_unsupported_name_is_refused_with_that_name() -> None:
    with pytest.raises(Malformed, match="the name of the tool 'Tool With Spaces' is not supported") as refusal:
        Catalogue.from_mcp("files", {"tools": [{"name": "a"}, {"name": "Tool With Spaces"}]})
    assert "rename the tool" in refusal.value.hint


def test_argument_kinds_are_a_closed_list_and_older_names_map_to_new_kinds() -> None:
    kinds = {
        "to": "recipient",
        "link": "url",
        "file": "path",
        "run": "command",
        "pin": "secret",
        "x.y": "account",
        "z": "none",
    }
    tool = parse({"name": "a", "effect": "send", "kinds": kinds}).tools["a"]
    assert tool.kinds == kinds
    assert tool.argument_kinds == {
        "to": Kind.ADDRESS,
        "link": Kind.ADDRESS,
        "file": Kind.OBJECT,
        "run": Kind.TEXT,
        "pin": Kind.SECRET,
        "x.y": Kind.ACCOUNT,
    }
    assert {*Kind} == {"principal", "account", "address", "object", "secret", "amount", "time", "text"}


@pytest.mark.parametrize(
    ("said", "is_outside"),
    [
        ({}, True),
        ({"open_world": False}, False),
        ({"open_world": False, "outside": True}, True),
        ({"open_world": True, "outside": False}, False),
    ],
)
def test_an_open_world_tool_is_an_untrusted_source_unless_outside_is_false(
    said: dict[str, bool], is_outside: bool
) -> None:
    tool = parse({"name": "a", "effect": "read"} | said).tools["a"]
    assert tool.is_outside is is_outside
    assert (
        parse(json.loads(json.dumps(parse({"name": "a", "effect": "read"} | said).render()))["tools"][0]).tools["a"]
        == tool
    )


@pytest.mark.parametrize("kinds", [{"to": "address"}, {"to.mail": "address"}, {"to": "recipient"}])
def test_an_argument_with_a_kind_is_refused_as_a_presentation_argument(kinds: dict[str, str]) -> None:
    tool = {"name": "a", "effect": "send", "kinds": kinds}
    assert parse(tool | {"presentation": ["too"]}).tools["a"].presentation == ("too",)
    with pytest.raises(Invalid, match="`to` is in `presentation`"):
        parse(tool | {"presentation": ["to"]})


def test_optional_members_that_are_not_set_are_not_rendered() -> None:
    assert parse({"name": "a", "effect": "read"}).render() == {
        "resource": "files",
        "tools": [{"name": "a", "effect": "read"}],
    }


def test_a_tool_that_is_listed_again_keeps_its_previous_statements() -> None:
    before = parse({"name": "a", "effect": "send", "kinds": {"to": "address"}, "outside": False})
    anew = Catalogue.from_mcp("files", {"tools": [{"name": "a"}, {"name": "b"}]}).after(before)
    assert (anew.tools["a"].kinds, anew.tools["a"].outside) == ({"to": "address"}, False)
    assert (anew.tools["b"].kinds, anew.tools["b"].is_outside) == ({}, True)
    decoy = parse({"name": "a", "effect": "read", "canary": True})
    assert Catalogue.from_mcp("files", {"tools": [{"name": "a"}]}).after(decoy).tools["a"].canary is True
    assert parse({"name": "a", "effect": "read", "canary": False}).after(decoy).tools["a"].canary is False
    said = parse({"name": "a", "effect": "send", "kinds": {"to": "none"}, "outside": True}).after(before)
    assert (said.tools["a"].argument_kinds, said.tools["a"].outside) == ({}, True)


@pytest.mark.parametrize(
    ("before", "now", "scope"),
    [
        ({"effect": "send", "scope": "mail"}, {"effect": "send"}, "mail"),
        ({"effect": "send", "scope": "mail"}, {"effect": "destroy"}, "mail"),
        ({"effect": "read", "scope": "administer"}, {"effect": "read"}, "administer"),
        ({"effect": "destroy", "scope": "administer"}, {"effect": "read"}, "administer"),
        ({"effect": "send", "scope": "mail"}, {"effect": "send", "scope": "write"}, "write"),
        ({"effect": "read", "scope": "search"}, {"effect": "write"}, "write"),
        ({"effect": "read", "scope": "read"}, {"effect": "administer"}, "administer"),
        ({"effect": "write", "scope": "mail"}, {"effect": "administer"}, "administer"),
        ({"effect": "administer"}, {"effect": "write"}, "write"),
    ],
)
def test_a_stated_scope_stays_until_the_effect_requires_a_more_powerful_one(
    before: dict[str, Any], now: dict[str, Any], scope: str
) -> None:
    after = parse({"name": "a", "definition": "B" * 43} | now).after(
        parse({"name": "a", "definition": "A" * 43} | before)
    )
    assert after.tools["a"].scope_class == scope


def test_a_confirmation_is_kept_while_the_definition_is_unchanged() -> None:
    listing = {"tools": [{"name": "a", "description": "one"}, {"name": "b"}]}
    listed = Catalogue.from_mcp("files", listing)
    owned = [replace(tool, effect=Effect.READ, outside=False, confirmed=True) for tool in listed.tools.values()]
    before = Catalogue.of("files", owned)
    assert Catalogue.parse(json.dumps(before.render())) == before
    assert Catalogue.from_mcp("files", listing).after(before) == before
    changed = {"tools": [{"name": "a", "description": "two"}, {"name": "b"}]}
    after = Catalogue.from_mcp("files", changed).after(before)
    assert [bool(after.tools[name].confirmed) for name in "ab"] == [False, True]
    assert after.tools["a"].effect is Effect.DESTROY
    revoked = Catalogue.of("files", [replace(tool, confirmed=False) for tool in owned])
    assert not any(tool.confirmed for tool in revoked.after(before).tools.values())


def test_a_tool_without_a_definition_is_confirmed_only_by_its_own_statement() -> None:
    confirmed = parse({"name": "a", "effect": "send", "confirmed": True})
    assert confirmed.after(parse({"name": "a", "effect": "send"})).tools["a"].confirmed is True
    assert not parse({"name": "a", "effect": "read"}).after(confirmed).tools["a"].confirmed


def test_each_effect_kind_origin_and_warning_has_a_displayed_text() -> None:
    assert {*Effect, *Kind} == {*MEANINGS} - {"yes", "no", "none", "unsure"}
    assert {*Effect} == {*request.EFFECTS} == {*consent.EFFECTS} == {*RANK}
    assert {*Effect} - {Effect.WRITE} == {effects[0] for effects in VERBS.values()}
    assert {origin.name.lower() for origin in Origin} == {*request.ORIGINS}
    console = (ROOT / "console/src/parts/origins.ts").read_text("utf-8")
    assert dict(re.findall(r'^  (\w+): "(.+)",$', console, re.M)) == request.ORIGINS
    assert set(re.findall(r'"(\w+)"', console.partition("UNTRUSTED")[2])) == UNTRUSTED
    assert {*WARNINGS} == {*request.WARNINGS}


def test_the_cedar_schema_declares_the_count_of_each_effect() -> None:
    schema = (files("ostiaryd.policy") / "base.cedarschema").read_text("utf-8")
    counts = re.findall(r"counts: \{(.+?)\}", schema)
    assert [re.findall(r"(\w+): Long", members) for members in counts] == [list(Effect)] * 2
    assert f"// {', '.join(Effect)}\n" in schema
