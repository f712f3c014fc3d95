"""Output for people: values as words."""

from __future__ import annotations

import pytest

from ostiary.cli.output import table


@pytest.mark.parametrize("member", ["verified_at", "at", "until"])
@pytest.mark.parametrize("at", [1795657286, 1795657286.679239])
def test_an_instant_with_or_without_a_fraction_is_printed_as_a_date(
    member: str, at: float, capsys: pytest.CaptureFixture[str]
) -> None:
    table([{member: at, "points": 1.5}], {member: "TIME", "points": "POINTS"}, empty="")
    assert capsys.readouterr().out.split() == ["TIME", "POINTS", "2026-11-26", "01:41:26Z", "1.5"]
