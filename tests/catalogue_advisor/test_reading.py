"""Proposed catalogues from the listing of a server: no description lowers the effect that hints and names imply."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from ostiary.authorization.catalogue import Catalogue, Effect, Tool
from ostiary.catalogue_advisor.reading import MAX_KINDS, RANK, Reading, propose_catalogue, text_arguments
from ostiary.protocol.errors import Invalid, Malformed
from ostiary.provenance.origins import is_effect
from ostiary.provenance.origins.judging import reaches_out
from tests.catalogue_advisor.tool_listing import listed


def reading(*tools: dict[str, Any]) -> Reading:
    return propose_catalogue("there", {"tools": tools})


def tool(name: str, **more: Any) -> Tool:
    return reading(listed(name, **more)).catalogue.tools[name]


@pytest.mark.parametrize(
    ("name", "effect"),
    [
        ("list_invoices", "read"),
        ("getWeather", "read"),
        ("search-orders", "read"),
        ("records.lookup", "read"),
        ("send_letter", "send"),
        ("letter_send", "send"),
        ("HTTPPost", "send"),
        ("delete_row", "destroy"),
        ("row_delete", "destroy"),
        ("read_and_delete", "destroy"),
        ("transfer_funds", "pay"),
        ("send_funds", "pay"),
        ("buy_ticket", "pay"),
        ("update_row", "change"),
        ("create_ticket", "change"),
        ("rename", "change"),
        ("share_folder", "share"),
        ("add_member_to_group", "share"),
        ("invite_guest", "share"),
        ("grant_role", "administer"),
        ("reset_password", "administer"),
        ("change_permissions", "administer"),
        ("calendar_list_events", "read"),
        ("mail_search", "read"),
        ("mail_delete", "destroy"),
        ("order_list", "read"),
        ("tracker_close_issue", "change"),
        ("search_delete_all", "destroy"),
        ("list_closed_issues", "read"),
        ("list_or_wipe", "destroy"),
        ("shop_checkout", "pay"),
        ("lights_turn_on", "change"),
        ("mail_user", "send"),
        ("frobnicate", "change"),
        ("x", "change"),
        ("_", "change"),
        ("1", "change"),
    ],
)
def test_the_effect_of_a_tool_without_hints_follows_its_name_and_defaults_to_change(name: str, effect: str) -> None:
    assert tool(name).effect == effect


@pytest.mark.parametrize(
    ("name", "hints", "effect"),
    [
        ("frobnicate", {"readOnlyHint": True}, "read"),
        ("delete_row", {"readOnlyHint": True}, "read"),
        ("pay_bill", {"readOnlyHint": True}, "read"),
        ("delete_row", {"readOnlyHint": True, "destructiveHint": True}, "read"),
        ("list_rows", {"readOnlyHint": False}, "change"),
        ("send_letter", {"readOnlyHint": False}, "send"),
        ("delete_row", {"readOnlyHint": False}, "destroy"),
        ("frobnicate", {"destructiveHint": True}, "destroy"),
        ("list_rows", {"destructiveHint": True}, "destroy"),
        ("update_row", {"destructiveHint": True}, "destroy"),
        ("list_rows", {"destructiveHint": False}, "write"),
        ("update_row", {"destructiveHint": False}, "change"),
        ("send_letter", {"destructiveHint": False}, "send"),
        ("grant_role", {"destructiveHint": False}, "administer"),
        ("list_rows", {"openWorldHint": False}, "read"),
        ("list_rows", {"title": "Rows"}, "read"),
    ],
)
def test_a_read_only_hint_outranks_the_name_of_a_tool_and_other_hints_are_a_lower_limit(
    name: str, hints: dict[str, Any], effect: str
) -> None:
    assert tool(name, hints=hints).effect == effect


def test_a_name_that_contradicts_the_hint_is_reported() -> None:
    lines = reading(listed("delete_row", hints={"readOnlyHint": True})).lines
    assert [line.why for line in lines if line.member == "effect"] == ["the hints, though its name says `destroy`"]


@pytest.mark.parametrize(
    "description", ["Reads a row.", "This tool only reads. It is read-only.", "Get", "readOnlyHint"]
)
@pytest.mark.parametrize("hints", [None, {"destructiveHint": True}, {"readOnlyHint": False}])
def test_a_description_never_makes_a_tool_a_read(description: str, hints: dict[str, Any] | None) -> None:
    assert tool("delete_row", description=description, hints=hints).effect == "destroy"
    assert tool("frobnicate", description=description, hints=hints).effect != "read"


@pytest.mark.parametrize(
    ("description", "effect"),
    [
        ("Deletes all rows.", "destroy"),
        ("This tool will delete rows", "destroy"),
        ("Reads and deletes rows", "destroy"),
        ("Lists rows", "read"),
        ("Send the row by mail", "send"),
        ("", "read"),
        ("Rows that were deleted", "read"),
        ("Returns the rows", "read"),
    ],
)
def test_a_description_can_raise_the_effect_of_a_tool_without_hints(description: str, effect: str) -> None:
    assert tool("list_rows", description=description).effect == effect
    assert tool("list_rows", description=description, hints={"readOnlyHint": True}).effect == "read"


@pytest.mark.parametrize(
    ("description", "arguments", "effect"),
    [
        ("Returns a row.", {"key": "string", "part": "string"}, "read"),
        ("", {"key": "string"}, "read"),
        ("", {"key": "string", "part": "string"}, "change"),
        ("A row.", {"key": "string"}, "read"),
        ("A row.", {"key": "string", "part": "string"}, "change"),
        ("A row.", {"at": "integer", "full": "boolean", "order": {"enum": ["up", "down"]}}, "read"),
        ("A row.", {"key": "string", "much": "number"}, "change"),
    ],
)
def test_a_name_alone_does_not_make_a_tool_with_several_arguments_a_read(
    description: str, arguments: dict[str, Any], effect: str
) -> None:
    assert tool("get_row", description=description, **arguments).effect == effect


NAMES = st.sampled_from(["delete_row", "list_rows", "send_funds", "frobnicate", "grant_role", "update_row"])
HINTS = st.fixed_dictionaries(
    {}, optional={name: st.booleans() for name in ("readOnlyHint", "destructiveHint", "openWorldHint")}
)
SAID = st.lists(
    st.sampled_from(["this", "tool", "reads", "only", "deletes", "and", "sends", "lists", "a", "row", ".", "\n", "pay"])
    | st.text(max_size=5),
    max_size=12,
).map(" ".join)


@given(NAMES, HINTS, SAID)
def test_no_description_lowers_the_effect_of_a_tool(name: str, hints: dict[str, Any], said: str) -> None:
    try:
        with_it, without = tool(name, description=said, hints=hints), tool(name, hints=hints)
    except Malformed:
        return  # a text that is none
    assert RANK[with_it.effect] >= RANK[without.effect]
    assert with_it.open_world == without.open_world
    assert with_it.is_outside
    if hints.get("readOnlyHint") is True:
        assert with_it.effect is Effect.READ
    elif hints.get("readOnlyHint") is False or "destructiveHint" in hints:
        assert with_it.effect is not Effect.READ


def test_a_read_from_an_address_in_an_open_world_is_a_send() -> None:
    assert tool("fetch_page", url="string").effect == "send"
    assert tool("fetch_page", where={"type": "string", "format": "uri"}).effect == "send"
    hinted = tool("fetch_page", url="string", hints={"readOnlyHint": True})
    assert (hinted.effect, is_effect(hinted)) == ("read", True)
    closed = tool("fetch_page", url="string", hints={"openWorldHint": False})
    assert (closed.effect, is_effect(closed)) == ("read", False)
    whom = tool("search_letters", email="string", hints={"readOnlyHint": True})
    assert (whom.effect, whom.kinds) == ("read", {"email": "principal"})


@pytest.mark.parametrize(
    ("said", "effect"),
    [
        ("Lists things.\n\nArgs:\n    domain: The domain (e.g. 'light', 'lock')\n    limit: At most", "read"),
        ('Lists things.\n\n- `domain` (string): one of `light`, "lock"', "read"),
        ("Lists things.\n\nArgs:\n    domain: The domain (e.g. 'light', 'lock.example')", "send"),
        ("Lists things.\n\nArgs:\n    domain: The domain (e.g. 'light', 'localhost')", "send"),
        ("Lists things.\n\nArgs:\n    domain: The domain, not 'light'", "send"),
        ("Lists things.\n\nArgs:\n    other: such as 'light', 'lock'", "send"),
        ("Lists things of a domain such as 'light', 'lock'", "send"),
    ],
)
def test_examples_without_the_form_of_a_host_rule_out_a_host_argument(said: str, effect: str) -> None:
    assert tool("list_things", description=said, domain="string", other="string").effect == effect


def test_examples_in_the_description_of_an_argument_determine_its_kind() -> None:
    domain = {"type": "string", "description": "The domain, such as 'light' or 'lock'"}
    assert tool("turn_on", domain=domain).kinds == {}
    assert tool("list_things", domain=domain, site="string").kinds == {"site": "address"}
    assert tool("list_things", channel=domain | {"description": "'news' or 'talk'"}).kinds == {"channel": "principal"}


@pytest.mark.parametrize(
    ("argument", "effect"),
    [
        ("savePath", "write"),
        ("output_file", "write"),
        ("dest_folder", "write"),
        ("output_dir", "write"),
        ("saveTo", "write"),
        ("save_as", "write"),
        ("to", "read"),
        ("local_path", "read"),
        ("outputFormat", "read"),
        ("output_id", "read"),
        ("path", "read"),
        ("filename", "read"),
        ("saved", "read"),
        ("destination", "read"),
    ],
)
def test_a_read_that_stores_its_result_at_a_path_in_an_argument_is_a_write(argument: str, effect: str) -> None:
    assert tool("get_scan", description="Gets a scan.", **{argument: "string"}).effect.value == effect
    nested = {"type": "object", "properties": {argument: {"type": "string"}}}
    assert tool("get_scan", description="Gets a scan.", options=nested).effect.value == effect
    assert tool("get_scan", hints={"readOnlyHint": True}, **{argument: "string"}).effect is Effect.READ


@pytest.mark.parametrize(
    ("argument", "described", "kinds"),
    [
        ("savePath", "", {"savePath": "address"}),
        ("filename", "Save the scan to a file instead of returning it.", {"filename": "address"}),
        ("target_file", "File to write the result to. By default, none.", {"target_file": "address"}),
        ("filename", "The scan to read. Nothing is saved or written.", {"filename": "object"}),
        ("filename", "The scan. It can save time.", {"filename": "object"}),
        ("label", "The label to save the scan under.", {}),
    ],
)
def test_the_file_in_which_a_read_stores_its_result_is_an_address(
    argument: str, described: str, kinds: dict[str, str]
) -> None:
    schema = {argument: {"type": "string", "description": described}}
    for hints in ({"readOnlyHint": True}, {"readOnlyHint": True, "openWorldHint": True}):
        hinted = tool("get_scan", hints=hints, **schema)
        assert (hinted.effect, hinted.kinds) == ("read", kinds)
        is_stored = "address" in kinds.values()
        assert reaches_out(hinted, {argument: "/etc/profile"}) == is_stored
        assert not reaches_out(hinted, {})
        assert not reaches_out(hinted, {argument: ""})
    if argument == "filename":
        said = tool("get_scan", description="Gets a scan.", **schema)
        assert (said.effect, said.kinds) == ("read", kinds), "a file that may be left out makes no other call a write"


@pytest.mark.parametrize(
    ("name", "argument", "effect"),
    [
        ("download_images", "localPath", "write"),
        ("download_sheet", "target_path", "write"),
        ("download_images", "path", "read"),
        ("download_images", "local", "read"),
        ("get_images", "localPath", "read"),
    ],
)
def test_a_download_to_a_local_path_is_a_write(name: str, argument: str, effect: str) -> None:
    assert tool(name, description="Gets images.", **{argument: "string"}).effect.value == effect


def test_a_replied_to_message_and_a_reference_are_objects() -> None:
    send = tool("send_letter", inReplyTo="string", reply_to="string", reference="string")
    assert send.kinds == {"inReplyTo": "object", "reply_to": "address", "reference": "object"}


def test_only_a_hint_makes_a_tool_closed_world() -> None:
    assert tool("get_local_file", description="Never leaves this machine. Closed world.").open_world
    assert not tool("get_file", hints={"openWorldHint": False}).open_world


@pytest.mark.parametrize("hints", [None, {"openWorldHint": False}, {"openWorldHint": True}, {"readOnlyHint": True}])
def test_neither_a_hint_nor_a_name_makes_content_trusted(hints: dict[str, Any] | None) -> None:
    for name in ("get_balance", "get_letters"):
        read_ = tool(name, hints=hints)
        assert read_.is_outside
        assert not replace(read_, outside=False).is_outside
    by_hand = Tool(name="get_balance", effect=Effect.READ, open_world=False)
    assert not by_hand.is_outside, "the owner's own statement"


def test_the_kinds_of_arguments_follow_their_names_and_formats() -> None:
    send = tool(
        "send_letter",
        to="string",
        cc={"type": "array", "items": {"type": "string"}},
        body="string",
        sent_at="string",
        urgent="boolean",
        style={"enum": ["a", "b"]},
        userName="string",
        file_id="integer",
        number="integer",
        when={"type": "string", "format": "date-time"},
        who={"type": "string", "format": "email"},
        apiToken="string",
        remark={"anyOf": [{"type": "string"}, {"type": "null"}]},
        count="integer",
    )
    assert send.kinds == {
        "to": "address",
        "cc": "address",
        "body": "text",
        "sent_at": "time",
        "userName": "principal",
        "file_id": "object",
        "when": "time",
        "who": "address",
        "apiToken": "secret",
        "remark": "text",
    }


def test_an_argument_without_evidence_of_its_kind_has_no_kind() -> None:
    made = tool(
        "book_room",
        lodge={"type": "string", "description": "The name of the lodge."},
        story={"type": "string", "description": "The text to send. Also a lodge."},
        essay={"type": "string", "contentMediaType": "text/markdown"},
        strip={"contentMediaType": "image/png"},
        much="number",
        many="integer",
    )
    assert made.kinds == {"story": "text", "essay": "text", "much": "amount"}
    assert tool("find_room", lodge="string").kinds == {}


def test_a_number_or_a_read_key_is_an_object_if_another_tool_returns_it() -> None:
    rows = {"type": "array", "items": {"$ref": "#/$defs/row"}}
    row = {"type": "object", "properties": {"id": {"type": "integer"}, "slot": {"type": ["integer", "null"]}}}
    source = listed("list_rows") | {"outputSchema": {"properties": {"rows": rows}, "$defs": {"row": row}}}
    kinds = {
        name: found.kinds
        for name, found in reading(
            source,
            listed("move_row", rowId="integer", slot="integer", steps="integer"),
            listed("get_row", description="Gets a row.", slot="string", steps="integer"),
        ).catalogue.tools.items()
    }
    assert kinds == {
        "list_rows": {},
        "move_row": {"rowId": "object", "slot": "object"},
        "get_row": {"slot": "object"},
    }
    alone = reading(listed("move_row", slot="integer")).catalogue.tools["move_row"]
    assert alone.kinds == {}


def test_references_in_a_schema_are_resolved() -> None:
    schema = {
        "properties": {"guest": {"$ref": "#/$defs/guest"}, "level": {"anyOf": [{"enum": ["a"]}, {"type": "null"}]}},
        "$defs": {"guest": {"properties": {"email": {"type": "string"}}, "type": "object"}},
    }
    made = reading({"name": "invite_guest", "inputSchema": schema}).catalogue.tools["invite_guest"]
    assert made.kinds == {"guest.email": "address"}
    assert text_arguments(made.arguments) == ["guest.email"]


def test_a_tool_with_an_amount_and_an_account_is_a_payment_and_its_recipient_is_an_account() -> None:
    pays = tool("submit_form", account="string", amount="number")
    assert (pays.effect, pays.kinds) == ("pay", {"account": "account", "amount": "amount"})
    assert tool("send_money", recipient="string", amount="number").kinds["recipient"] == "account"
    assert tool("send_letter", recipient="string").kinds["recipient"] == "address"


@pytest.mark.parametrize(
    ("required", "effect"),
    [
        (["account", "amount"], "pay"),
        (["account", "order"], "pay"),
        (None, "pay"),
        ([], "pay"),
        (["amount"], "send"),
        (["account"], "send"),
        (["order"], "send"),
    ],
)
def test_an_optional_amount_or_account_does_not_make_a_tool_a_payment(required: object, effect: str) -> None:
    order = {"type": "object", "properties": {"value": {"type": "number"}}, "required": ["value"]}
    properties = {"account": {"type": "string"}, "amount": {"type": "number"}, "order": order}
    if required != ["account", "order"]:
        del properties["order"]
    schema = {"type": "object", "properties": properties} | ({} if required is None else {"required": required})
    found = reading({"name": "submit_form", "inputSchema": schema})
    assert found.catalogue.tools["submit_form"].effect == effect


@pytest.mark.parametrize("name", ["code", "hs_code", "postalCode", "command", "script"])
def test_a_code_or_a_command_is_not_a_text_for_a_person(name: str) -> None:
    assert tool("enter_item", **{name: "string", "note": "string"}).kinds.get(name) != "text"


@pytest.mark.parametrize("said", ["CREATE TABLE SQL statement", "The shell command, as text"])
def test_a_text_in_a_machine_language_is_not_a_text_for_a_person(said: str) -> None:
    described = {"type": "string", "description": said}
    made = tool("create_table", query=described, statement=described, note=described)
    assert made.kinds == {"note": "text"}
    assert tool("create_table", query={"type": "string", "description": "A statement"}).kinds == {"query": "text"}


@pytest.mark.parametrize("name", ["truncateFirst", "overwrite", "purge_old", "clearBefore"])
def test_a_switch_that_makes_a_change_destructive_is_an_object(name: str) -> None:
    switch = {"type": "boolean", "default": False}
    assert tool("import_rows", **{name: switch, "notify": switch, "overwritten": switch}).kinds == {name: "object"}
    assert tool("list_rows", **{name: switch}).kinds == {}


def test_nested_arguments_are_named_by_their_path() -> None:
    item = {"type": "object", "properties": {"email": {"type": "string"}}}
    deep: dict[str, Any] = {"type": "object", "properties": {"url": {"type": "string"}}}
    for _ in range(10):
        deep = {"type": "object", "properties": {"in": deep}}
    kinds = tool("invite_all", guests={"type": "array", "items": item}, host=item, deep=deep, **{"a.b": "string"}).kinds
    assert kinds == {"guests.email": "address", "host.email": "address"}


def test_a_nullable_argument_has_the_kind_of_its_other_type() -> None:
    null = {"type": "null"}
    item = {"type": "object", "properties": {"email": {"type": "string"}}}
    kinds = tool(
        "send_letter",
        cc={"anyOf": [{"type": "array", "items": {"type": "string"}}, null]},
        host={"oneOf": [null, item]},
        guests={"anyOf": [null, {"type": "array", "items": item}]},
        bcc={"anyOf": [null, {"type": "array"}]},
    ).kinds
    assert kinds == {"cc": "address", "host.email": "address", "guests.email": "address", "bcc": "address"}


def test_a_proposal_has_a_maximum_number_of_kinds_and_a_reason_for_each_line() -> None:
    arguments: dict[str, Any] = {f"to_{number}_email": "string" for number in range(MAX_KINDS + 1)}
    many = reading(listed("send_all", **arguments))
    assert len(many.catalogue.tools["send_all"].kinds) == MAX_KINDS
    assert all(line.why and line.value for line in many.lines)
    assert Catalogue.parse(json.dumps(many.catalogue.render())).digest == many.catalogue.digest


def test_tool_names_that_look_alike_are_reported() -> None:
    lines = reading(
        listed("send_mail"), listed("sendMail"), listed("send_rnail"), listed("send_maiI"), listed("other")
    ).lines
    assert {line.tool for line in lines if line.member == "name"} == {"send_mail", "send_rnail", "send_maiI"}


@pytest.mark.parametrize("name", ["sеnd", "send\u202eliam", "send\u200b", "a" * 129, "", "send mail", "\x1b[2J"])
def test_tool_names_with_invisible_or_invalid_characters_are_refused(name: str) -> None:
    with pytest.raises(Malformed):
        reading(listed(name))


@pytest.mark.parametrize(
    "hostile",
    [
        {"name": "a", "inputSchema": {"properties": {"x": {"type": {"y": 1}}}}},
        {"name": "a", "inputSchema": {"properties": []}},
        {"name": "a", "inputSchema": {"properties": {"x": {"anyOf": 1}}}},
        {"name": "a", "description": 1},
        {"name": "a", "description": "\ud800"},
        {"name": "a", "annotations": {"readOnlyHint": "yes"}},
        {"name": "a", "outputSchema": {"x": float("nan")}},
    ],
)
def test_a_malformed_tool_definition_is_refused(hostile: dict[str, Any]) -> None:
    with pytest.raises((Malformed, Invalid)):
        reading(hostile)


def test_a_schema_nested_too_deep_is_refused_and_a_long_description_is_cut() -> None:
    deep: dict[str, Any] = {}
    for _ in range(100):
        deep = {"properties": {"x": deep}}
    with pytest.raises((Malformed, Invalid)):
        reading({"name": "a", "inputSchema": deep})
    described = tool("a", description="\u202ereads " * 100_000)
    assert len(described.description) == 2048
    assert "\u202e" not in described.description


def test_two_tools_with_one_name_are_refused() -> None:
    with pytest.raises(Invalid):
        reading(listed("a"), listed("a"))
