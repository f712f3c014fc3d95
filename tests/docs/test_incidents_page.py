"""The playbooks of docs/how-to/incidents.md load, and decide as the page says."""

from __future__ import annotations

import re
from pathlib import Path

from ostiary.decision.access.policy_kinds import RESPONSES
from ostiaryd.ground.config import Config
from ostiaryd.incidents.flows.blast import MAX_ENTRIES
from ostiaryd.incidents.model.incidents import ALERT_EVERY, HALTS, SECOND
from ostiaryd.policy.model import load
from ostiaryd.policy.model.playbooks import Proposal
from ostiaryd.policy.model.safeguards import safeguards

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "incidents.md").read_text("utf-8")


def _blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


def test_the_playbooks_on_the_page_load_with_their_test() -> None:
    [policies], [tests] = _blocks("cedar"), _blocks("toml")
    loaded = load({"a.cedar": policies, "a.test.toml": tests})
    assert (loaded.count, loaded.tests) == (4, 1)


def test_every_response_and_every_number_on_the_page_is_the_one_of_the_code() -> None:
    assert re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE) == list(RESPONSES)
    proposal = Proposal(response="throttle", policies=())
    assert (proposal.minutes, proposal.calls) == (60, 10)
    config = Config(data_dir="")
    assert (config.respond_percent, config.halt_percent) == (10, 5)
    assert frozenset(RESPONSES[-3:]) == HALTS
    assert (ALERT_EVERY // SECOND, MAX_ENTRIES) == (600, 1000)
    points = re.findall(r"context\.risk\.score >= (\d+)", "".join(safeguards().values()))
    said = r"open an incident at (\d+) points, let the agent only read at (\d+), and quarantine it\s+at (\d+)"
    assert re.findall(said, PAGE) == [tuple(points)]
