"""A stored context comes back as it was."""

from __future__ import annotations

import pytest

from ostiary.authorization.cedar.extensions import Datetime
from ostiary.authorization.cedar.render import render_record
from ostiary.authorization.cedar.values import parse_record
from ostiary.protocol.errors import Invalid

YEAR_1, YEAR_9999 = -62_135_596_800_000, 253_402_300_799_999


@pytest.mark.parametrize("ms", [0, -1, 1, 1_800_000_000_123, YEAR_1, YEAR_9999])
def test_a_time_comes_back(ms: int) -> None:
    assert parse_record(render_record({"at": Datetime(ms)})) == {"at": Datetime(ms)}


@pytest.mark.parametrize("ms", [YEAR_1 - 1, YEAR_9999 + 1])
def test_a_time_of_no_calendar_is_not_kept(ms: int) -> None:
    with pytest.raises(Invalid, match="years"):
        render_record({"at": Datetime(ms)})


def test_it_is_written_as_cedar_writes_it() -> None:
    assert render_record({"at": Datetime(1_728_992_100_123)}) == {
        "at": {"__extn": {"fn": "datetime", "arg": "2024-10-15T11:35:00.123Z"}}
    }
