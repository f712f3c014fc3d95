"""The examples of docs/reference/policies.md work."""

from __future__ import annotations

import re
from importlib.resources import files as files_of
from pathlib import Path

import pytest

from ostiary.decision.access import CALL
from ostiary.decision.access.policy_kinds import RESPONSES
from ostiary.protocol.errors import Invalid
from ostiaryd.policy.flows.search import MAX_EXAMINED, MAX_RESULTS, NOTED
from ostiaryd.policy.model import cases, cedar_text, entities, files, load, safeguards, starter_files
from ostiaryd.policy.model.safeguards import read_left_out
from ostiaryd.policy.wire_authzen import MAX_EVALUATIONS
from ostiaryd.policy.wire_search import DEFAULT_RESULTS

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "policies.md"


def blocks(language: str) -> list[str]:
    found = re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    assert found
    return found


def shown() -> dict[str, str]:
    return {
        "payments.cedar": blocks("cedar")[0],
        "payments.cedarschema": blocks("cedarschema")[0],
        "payments.test.toml": blocks("toml")[0],
    }


def test_the_set_on_the_page_loads_and_its_tests_pass() -> None:
    loaded = load(shown())
    assert (len(loaded.ir.policies), loaded.tests) == (4, 2)


def test_a_test_case_of_the_page_with_a_larger_amount_fails() -> None:
    turned = shown()["payments.test.toml"].replace("99.99", "100.0")
    with pytest.raises(Invalid, match="an agent can pay a small amount"):
        load(shown() | {"payments.test.toml": turned})


def test_the_schema_on_the_page_loads() -> None:
    policy = "permit (principal is user, action, resource is record);"
    loaded = load({"a.cedar": policy, "a.cedarschema": blocks("cedarschema")[1]})
    asked = {
        "call",
        "issue_token",
        "issue_certificate",
        "hold_certificate",
        "delegate",
        "elevate",
        "delete",
        "use_api",
        "answer",
        "consent",
        "read_account_token",
        "read_secret",
        "write_secret",
        "list_secrets",
        "delete_secret",
        "use_secret_key",
        "export_secret_key",
        "use_secret",
        "seal_secrets",
    }
    assert {action.id for action in loaded.actions} == asked | set(RESPONSES)


def test_the_page_names_every_attribute_of_every_entity_and_every_member_of_a_context() -> None:
    words = set(re.findall(r"`([a-z_]+)`", PAGE.read_text("utf-8")))
    schema = (files_of("ostiaryd.policy") / "base.cedarschema").read_text("utf-8")
    declared = set(re.findall(r"^\s+(\w+)\??: (?!\[|\{)", schema, re.MULTILINE))
    assert declared - {"principal", "resource", "context"} <= words
    assert CALL in starter_files().actions


def test_the_entities_on_the_page_load() -> None:
    policy = "permit (principal is user, action, resource is record);"
    files = {"a.cedar": policy, "a.cedarschema": blocks("cedarschema")[1], "a.entities.json": blocks("json")[0]}
    assert load(files).ready.ids == {"user": ("bob",), "record": ("record-1",)}


def test_the_search_limits_on_the_page_equal_the_limits_in_the_code() -> None:
    page = PAGE.read_text("utf-8")
    said = page[page.index("## Searching") : page.index("## Limits")]
    numbers = [int(number) for number in re.findall(r"\d+", said) if number not in ("1", "0")]
    assert numbers == [DEFAULT_RESULTS, MAX_RESULTS, MAX_EXAMINED, NOTED]


def test_the_limits_on_the_page_equal_the_limits_in_the_code() -> None:
    page = PAGE.read_text("utf-8")
    limits = page[page.index("## Limits") :]
    numbers = [int(number) for number in re.findall(r"\d+", limits)]
    assert numbers == [
        files.MAX_FILES,
        cedar_text.MAX_POLICIES,
        cedar_text.MAX_FILE_BYTES >> 20,
        cedar_text.MAX_SCHEMA_BYTES >> 10,
        cedar_text.MAX_BRACKETS,
        cedar_text.MAX_OPERATORS,
        cases.MAX_CASES,
        entities.MAX_ENTITIES,
        entities.MAX_ANCESTORS,
    ]
    assert f"up to {MAX_EVALUATIONS} evaluations" in " ".join(page.split())


def test_the_page_lists_every_safeguard_and_its_example_of_a_left_out_safeguard_is_valid() -> None:
    page = PAGE.read_text("utf-8")
    section = page[page.index("## Safeguards") : page.index("## Three ways")]
    listed = re.findall(r"^\| (`.+?`) \|", section, re.MULTILINE)
    assert {name for row in listed for name in re.findall(r"`([a-z-]+)`", row)} == set(safeguards())
    assert list(read_left_out({"payments.safeguards.toml": blocks("toml")[1]})) == ["no-foreign-links"]
