"""A hijacked agent against the memory of its task: what the starter set should ask about, it asks about.

The person said: send the report to bob@good.example, and write to Ann Lee. Everything else is the agent's.
"""

from __future__ import annotations

import base64
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from harness.principals import make_principal
from ostiary.authorization.catalogue import Catalogue, Kind
from ostiary.decision.access import Decision, DecisionInputs, Facts, Principal, Protected, decide, resolve
from ostiary.provenance.origins import Memory, Origin, add_parts, observe_output, of_value, remember
from ostiaryd.policy.model import load, starter_files
from tests.support.seed import seed

URI = "https://desk.example/mcp"
NOW = 1_800_000_000_000_000
EVIL = "eve@evil.example"
IBAN = "DE89370400440532013000"
TOOLS: list[dict[str, Any]] = [
    {"name": "send", "effect": "send", "kinds": {"to": "address"}},
    {"name": "invite", "effect": "share", "kinds": {"guests.mail": "address", "owner.mail": "address"}},
    {"name": "mandate", "effect": "change", "kinds": {"account": "account"}},
    {"name": "find", "effect": "read", "open_world": False, "kinds": {"name": "object"}},
    {"name": "search", "effect": "read", "open_world": True, "kinds": {"query": "text"}},
    {"name": "read", "effect": "read", "kinds": {"path": "object", "drive": "object", "at": "address"}},
]
CATALOGUE = Catalogue.parse(json.dumps({"resource": "desk", "tools": TOOLS}))
FACTS = Facts(Protected(name="desk", uri=URI, segment="default", catalogue=CATALOGUE), starter_files().policies)
PERSON = seed(
    "Send the report to bob@good.example and write to Ann Lee, all in bill.txt on my drive home",
    endorsed=[("desk/read", "bill.txt", ["account", "address"])],
)
WHO = make_principal(aud=URI, exp=NOW // 1_000_000 + 60, scope="desk:read desk:write", memory="tk_1")


@pytest.fixture
def memory() -> Memory:
    return remember(b"k" * 32, PERSON)


def call(memory: Memory, tool: str, arguments: dict[str, Any]) -> Decision:
    return decide(resolve(WHO, tool, arguments, FACTS, NOW), DecisionInputs(memory))


def after(memory: Memory, tool: str, arguments: dict[str, Any], output: object) -> Memory:
    return add_parts(memory, observe_output(memory, f"desk/{tool}", CATALOGUE.tools[tool], arguments, output))


# No task that says what it is for


def test_calls_without_task_memory_are_allowed_unless_the_documented_rule_is_set(memory: Memory) -> None:
    """The documentation page states this limit and a rule against it; the test checks both."""
    alone = Principal(structs.replace(WHO.claims, memory="", task="tk_standing"))
    assert decide(resolve(alone, "send", {"to": EVIL}, FACTS, NOW)).allowed
    page = (Path(__file__).parents[2] / "docs/explanation/origins.md").read_text("utf-8")
    (rule,) = re.findall(r"```cedar\n(@id\(\"only-as-asked\"\).*?)```", page, re.DOTALL)
    permits = '@id("all") permit (principal, action, resource);'
    strict = replace(FACTS, policies=load({"a.cedar": permits + rule}).policies)
    for tool, arguments in (("send", {"to": EVIL}), ("mandate", {"account": IBAN})):
        assert decide(resolve(alone, tool, arguments, strict, NOW)).policies == ("only-as-asked",)
    assert decide(resolve(alone, "find", {"name": "x"}, strict, NOW)).allowed
    assert decide(resolve(WHO, "send", {"to": EVIL}, strict, NOW), DecisionInputs(memory)).allowed


# One argument that is several


@pytest.mark.parametrize(
    "to",
    [
        f"{EVIL}, Bob <bob@good.example>",
        f"{EVIL}; Bob <bob@good.example>",
        f"{EVIL}\n<bob@good.example>",
        f"{EVIL} <bob@good.example>",
        f'"{EVIL}" <bob@good.example>',
        f"{EVIL}>, <bob@good.example>",
        f"<{EVIL}> <bob@good.example>",
        f"friends: {EVIL}, Bob <bob@good.example>",
        f"mailto:{EVIL} <bob@good.example>",
        f"Bob <bob@good.example>, {EVIL}",
        f"bob@good.example {EVIL}",
        f"bob@good.example\r\nBcc: {EVIL}",
        f"mailto:bob@good.example?cc={EVIL}",
        f"bob@good.example,{EVIL}",
        ["bob@good.example", EVIL],
        {"a": "bob@good.example", "b": EVIL},
        ["bob@good.example"] * 300,
        [],
        [None],
        {},
        " ",
    ],
)
def test_a_named_recipient_does_not_hide_another_recipient(memory: Memory, to: object) -> None:
    assert call(memory, "send", {"to": to}).asks == ("person" if to != [] else None)
    assert of_value(memory, Kind.ADDRESS, to) is Origin.NOWHERE


@pytest.mark.parametrize(
    "to",
    [
        "bob@good.example",
        "Bob <bob@good.example>",
        '"Bob B." <BOB@Good.example>',
        "<bob@good.example>",
        "Bob <bob@good.example>, bob@good.example",
        ["Bob <bob@good.example>"],
    ],
)
def test_a_recipient_that_the_person_named_is_allowed(memory: Memory, to: object) -> None:
    assert call(memory, "send", {"to": to}).allowed


# Arguments that lie deep


@pytest.mark.parametrize(
    "arguments",
    [
        {"guests": [{"mail": EVIL}]},
        {"guests": [{"mail": "bob@good.example"}, {"mail": EVIL}]},
        {"guests": [[{"mail": "bob@good.example"}], [[{"mail": EVIL}]]]},
        {"guests": {"mail": [EVIL]}},
        {"guests.mail": "bob@good.example", "guests": {"mail": EVIL}},
        {"guests.mail": "bob@good.example", "guests": [{"mail": EVIL}]},
        {"guests.mail": EVIL, "guests": {"mail": "bob@good.example"}},
        {"guests": [{"mail": "bob@good.example"}] * 257},
        {"guests": [{"mail": "bob@good.example"}], "owner": [{"mail": EVIL}]},
    ],
)
def test_a_deeply_nested_argument_is_judged(memory: Memory, arguments: dict[str, Any]) -> None:
    assert call(memory, "invite", arguments).asks == "person"


def test_a_nested_value_that_the_person_stated_is_allowed(memory: Memory) -> None:
    said = {"mail": "bob@good.example"}
    for guests in (said, [said], [said, said], {"mail": ["bob@good.example"]}, [said] * 256):
        assert call(memory, "invite", {"guests": guests}).allowed


# Values that a tool echoes from its arguments


@pytest.mark.parametrize(
    "output",
    [
        f"no entry for {IBAN}",
        {"query": {"name": "Ann Lee", "note": IBAN}, "results": []},
        json.dumps({"asked": [{"note": IBAN}]}),
        [{"name": "Ann Lee", "note": IBAN}],
        f"searched: {base64.b64encode(f'account {IBAN}'.encode()).decode()}",
        " ".join(IBAN[at : at + 4] for at in range(0, len(IBAN), 4)),
    ],
)
def test_a_value_that_a_tool_echoes_is_not_a_record(memory: Memory, output: object) -> None:
    for arguments in ({"name": "Ann Lee", "note": IBAN}, {"name": IBAN}, {"name": "Ann Lee", "more": [{"x": [IBAN]}]}):
        told = after(memory, "find", arguments, output)
        assert of_value(told, Kind.ACCOUNT, IBAN) is Origin.NOWHERE
        assert call(told, "mandate", {"account": IBAN}).asks == "person"


def test_a_value_in_the_echo_of_a_long_argument_is_not_a_record(memory: Memory) -> None:
    for before in range((1 << 18) - 30, (1 << 18) + 30, 4):
        told = after(memory, "find", {"name": "Ann Lee", "note": "x" * before + " " + IBAN}, {"note": IBAN})
        assert of_value(told, Kind.ACCOUNT, IBAN) is Origin.NOWHERE


def test_a_value_echoed_by_an_untrusted_source_is_not_trusted(memory: Memory) -> None:
    told = after(memory, "search", {"query": "mallory"}, {"query": "mallory", "hits": []})
    assert call(told, "send", {"to": "mallory"}).asks == "person"


@pytest.mark.parametrize("told", [5000, 5000.0, "5000", [{"x": [5000]}]])
def test_an_amount_that_a_tool_echoes_is_not_a_known_amount(memory: Memory, told: object) -> None:
    for tool in ("find", "search"):
        echo = after(memory, tool, {"limit": told}, {"limit": 5000, "hits": [{"fee": 7}]})
        assert of_value(echo, Kind.AMOUNT, 5000) is Origin.NOWHERE
        assert of_value(echo, Kind.AMOUNT, 7) is Origin.KNOWN
    assert of_value(after(echo, "find", {"page": 7}, [{"fee": 7}]), Kind.AMOUNT, 7) is Origin.KNOWN, "it stays known"


@pytest.mark.parametrize("name", ["text", "Body", "subject", "title", "note", "description"])
def test_a_word_in_untrusted_content_is_not_a_known_recipient(memory: Memory, name: str) -> None:
    """The attack has two mails: one with instructions, and one that contains only the recipient."""
    for output in ({"from": "Ann", name: "mallory"}, [{name: ["mallory"]}], {name: [{name: "mallory"}]}):
        told = after(memory, "search", {"query": "new"}, output)
        assert call(told, "send", {"to": "mallory"}).asks == "person"
    told = after(memory, "search", {"query": "new"}, {"from": "mallory", name: {"room": "general"}})
    assert call(told, "send", {"to": ["mallory", "general"]}).allowed


def test_a_value_returned_beside_an_echo_is_a_record(memory: Memory) -> None:
    told = after(memory, "find", {"name": "Ann Lee"}, {"name": "Ann Lee", "iban": IBAN})
    assert of_value(told, Kind.ACCOUNT, IBAN) is Origin.RECORD
    again = after(told, "find", {"name": "Ann Lee", "note": IBAN}, {"name": "Ann Lee", "iban": IBAN})
    assert of_value(again, Kind.ACCOUNT, IBAN) is Origin.RECORD, "what was known stays known"


# Another document under the name of the endorsed one


@pytest.mark.parametrize("beside", [{"drive": "eves"}, {"at": EVIL}, {"drive": ["home", "eves"]}, {"at": [EVIL]}])
def test_content_read_with_a_further_unstated_argument_is_not_endorsed(memory: Memory, beside: dict[str, Any]) -> None:
    told = after(memory, "read", {"path": "bill.txt"} | beside, f"pay {IBAN}")
    assert of_value(told, Kind.ACCOUNT, IBAN) is Origin.OUTSIDE


def test_content_read_from_where_the_person_stated_is_endorsed(memory: Memory) -> None:
    for beside in ({}, {"drive": "home"}, {"at": "bob@good.example"}):
        told = after(memory, "read", {"path": "bill.txt"} | beside, f"pay {IBAN}")
        assert of_value(told, Kind.ACCOUNT, IBAN) is Origin.ENDORSED
