"""Every recipe of docs/how-to/cookbook.md works, and its tests fail without its policy."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ostiary.protocol.errors import Invalid
from ostiaryd.policy.model import load, starter_files

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "cookbook.md").read_text("utf-8")
STARTER = {name: text for name, text in starter_files().files.items() if name.endswith(".cedar")}
"""With the safeguards, without its tests, which ask for things that some recipes forbid."""
RECIPES = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE))


def recipe(title: str) -> dict[str, str]:
    kinds = {"cedar": "recipe.cedar", "cedarschema": "recipe.cedarschema", "toml": "recipe.test.toml"}
    return {
        kinds[kind]: text
        for kind, text in re.findall(r"^```(\w+)\n(.*?)^```", RECIPES[title], re.DOTALL | re.MULTILINE)
    }


@pytest.mark.parametrize("title", RECIPES)
def test_a_recipe_loads_with_the_starter_set_and_its_tests_pass(title: str) -> None:
    files = recipe(title)
    loaded = load(STARTER | files)
    assert loaded.tests == files["recipe.test.toml"].count("[[case]]")


@pytest.mark.parametrize("title", RECIPES)
def test_the_tests_of_a_recipe_fail_without_its_policy(title: str) -> None:
    files = recipe(title)
    policies = re.findall(r'@id\("([^"]+)"\)', files["recipe.cedar"])
    assert len(policies) == 1
    if '@mode("watch")' in files["recipe.cedar"]:
        changed = {"recipe.cedar": files["recipe.cedar"].replace('@mode("watch")', "")}
    else:
        changed = {"recipe.cedar": "// nothing"}
    with pytest.raises(Invalid):
        load(STARTER | files | changed)
