"""docs/how-to/alerts.md lists the forms and the default events of webhooks as the code has them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

from ostiary.cli import webhooks as command
from ostiaryd.notifications.model.alerts import _TITLES
from ostiaryd.notifications.model.webhooks import DEFAULT_ACTIONS, Form

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "alerts.md").read_text("utf-8")


def test_the_page_lists_the_default_events_with_their_titles() -> None:
    listed = re.findall(r"^\| `([a-z_]+\.[a-z_.]+)` \| (.+) \|$", PAGE, re.M)
    assert listed == [(action, _TITLES[action]) for action in DEFAULT_ACTIONS]


def test_the_page_and_the_command_have_every_form() -> None:
    forms = get_args(Form)
    assert get_args(command.Form) == forms
    assert re.findall(r"^\| `([a-z]+)` \| ", PAGE, re.M) == [form for form in forms if form != "signed"]
