"""Refused requests, as a developer meets them."""

from __future__ import annotations

import traceback

from ostiary.protocol.errors import Forbidden


def test_a_traceback_shows_the_hint_and_the_message_does_not_contain_it() -> None:
    with_hint = Forbidden("the agent lacks the scope files:write", hint="ostiary agent allow writer files:write")
    shown = "".join(traceback.format_exception(with_hint)).splitlines()
    assert shown[-1] == "hint: ostiary agent allow writer files:write"
    assert str(with_hint) == "the agent lacks the scope files:write"
    assert len(traceback.format_exception(Forbidden("no hint"))) == 1
