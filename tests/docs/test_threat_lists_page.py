"""docs/how-to/threat-lists.md names each form of a list, and has a row for each kind of value."""

from __future__ import annotations

import re
from typing import get_args

from ostiary.cli import threats as command
from ostiary.provenance.noticing.threats import _WORDS, Kind
from ostiaryd.watch.model.threats import Form
from tests.support.sources import ROOT

PAGE = (ROOT / "docs/how-to/threat-lists.md").read_text("utf-8")


def test_the_command_and_the_page_list_each_form_of_a_threat_list() -> None:
    assert get_args(command.Form) == get_args(Form)
    assert re.findall(r"^- \*.+\* \(`--form (\w+)`", PAGE, re.MULTILINE) == list(get_args(Form))


def test_the_page_has_a_row_for_each_kind_of_value() -> None:
    rows = re.findall(r"^\| (?!value |---)[^|]+ \| [^|]+ \|$", PAGE, re.MULTILINE)
    assert len(rows) == len(get_args(Kind)) == len(_WORDS)
