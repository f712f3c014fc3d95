"""Every table of the schema has a stated growth rule."""

from __future__ import annotations

import re
from pathlib import Path

from ostiaryd.ground.database.migrate import scripts

ADR = Path(__file__).parents[2] / "docs" / "adr" / "0046-every-table-has-a-growth-rule.md"


def test_every_table_has_a_growth_rule() -> None:
    tables = {"migration"}  # `migrate` makes it itself
    for _, _, text in scripts():
        tables |= set(re.findall(r"create table (\w+)", text))
        tables -= set(re.findall(r"drop table (\w+)", text))
        for old, new in re.findall(r"alter table (\w+) rename to (\w+)", text):
            tables = tables - {old} | {new}
    rules = re.findall(r"^\| `(\w+)` \| (.+) \|$", ADR.read_text("utf-8"), re.MULTILINE)
    assert len(rules) == len(dict(rules)), "one rule each"
    assert all(len(rule) > 5 for _, rule in rules)
    assert tables == set(dict(rules))
