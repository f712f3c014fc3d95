"""docs/how-to/alerts.md lists the forms and the default events of webhooks as the code has them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import get_args

from ostiary.cli import webhooks as command
from ostiaryd.approvals.model import REQUEST_ACTIONS
from ostiaryd.notifications.model.webhooks import TITLES, Form

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/how-to/alerts.md").read_text("utf-8")
CONSOLE = (ROOT / "console/src/pages/connections.tsx").read_text("utf-8")


def test_the_page_lists_the_default_events_with_their_titles() -> None:
    listed = re.findall(r"^\| `([a-z_]+\.[a-z_.]+)` \| (.+) \|$", PAGE, re.M)
    assert listed == list(TITLES.items())
    assert set(REQUEST_ACTIONS) <= TITLES.keys(), "each approval request alerts a person"


def test_the_page_the_command_and_the_console_list_every_alert_form() -> None:
    forms = get_args(Form)
    assert get_args(command.Form) == forms
    [offered] = re.findall(r"^const FORMS = (\[.+\]);$", CONSOLE, re.M)
    assert json.loads(offered) == list(forms)
    assert re.findall(r"^\| `([a-z]+)` \| ", PAGE, re.M) == [form for form in forms if form != "signed"]
