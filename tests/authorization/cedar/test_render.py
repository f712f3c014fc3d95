"""A context is the same after rendering and parsing."""

from __future__ import annotations

import pytest

from ostiary.authorization.cedar.extensions import Datetime
from ostiary.authorization.cedar.render import render_record
from ostiary.authorization.cedar.values import parse_record
from ostiary.protocol.errors import Invalid

YEAR_1, YEAR_9999 = -62_135_596_800_000, 253_402_300_799_999


@pytest.mark.parametrize("ms", [0, -1, 1, 1_800_000_000_123, YEAR_1, YEAR_9999])
def test_a_rendered_datetime_parses_to_the_same_datetime(ms: int) -> None:
    assert parse_record(render_record({"at": Datetime(ms)})) == {"at": Datetime(ms)}


@pytest.mark.parametrize("ms", [YEAR_1 - 1, YEAR_9999 + 1])
def test_a_datetime_outside_years_1_to_9999_is_refused(ms: int) -> None:
    with pytest.raises(Invalid, match="years"):
        render_record({"at": Datetime(ms)})


def test_a_datetime_is_rendered_in_the_json_form_of_cedar() -> None:
    assert render_record({"at": Datetime(1_728_992_100_123)}) == {
        "at": {"__extn": {"fn": "datetime", "arg": "2024-10-15T11:35:00.123Z"}}
    }
