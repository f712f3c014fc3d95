"""The playbooks of docs/how-to/incidents.md load, and decide as the page says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

from benchmarks.detect import streams
from ostiary.cli.kill import StopKind
from ostiary.decision.access.policy_kinds import RESPONSES
from ostiary.decision.access.stops import What
from ostiaryd.ground.config import Config
from ostiaryd.incidents.flows import acting
from ostiaryd.incidents.flows.blast import MAX_ENTRIES
from ostiaryd.incidents.model.incidents import ALERT_EVERY, HALTS, ISOLATES, NEXT, SECOND, STOPS, Verb
from ostiaryd.policy.model import load
from ostiaryd.policy.model.playbooks import Proposal
from ostiaryd.policy.model.safeguards import safeguards

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/how-to/incidents.md").read_text("utf-8")
CONSOLE = (ROOT / "console/src/pages/incidents.tsx").read_text("utf-8")


def _blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


def test_the_playbooks_on_the_page_load_with_their_test() -> None:
    [policies], [tests] = _blocks("cedar"), _blocks("toml")
    loaded = load({"a.cedar": policies, "a.test.toml": tests})
    assert (loaded.count, loaded.tests) == (4, 1)


def test_the_responses_and_numbers_on_the_page_are_those_of_the_code() -> None:
    assert re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE) == list(RESPONSES)
    proposal = Proposal(response="throttle", policies=())
    assert (proposal.minutes, proposal.calls) == (60, 10)
    config = Config(data_dir="")
    assert (config.respond_percent, config.halt_percent) == (10, 5)
    assert {"freeze", "quarantine", "revoke"} == HALTS
    assert {"narrow"} == ISOLATES - HALTS
    assert {"freeze"} == HALTS - STOPS
    assert (ALERT_EVERY // SECOND, MAX_ENTRIES) == (600, 1000)
    points = re.findall(r"context\.risk\.score >= (\d+)", "".join(safeguards().values()))
    said = r"open an incident at (\d+) points, let the agent only read at (\d+), and quarantine it at (\d+)"
    assert re.findall(said, " ".join(PAGE.split())) == [tuple(points)]
    assert points[:2] == [str(streams.TOLD), str(streams.NARROWED)]


def test_each_response_has_an_act_and_each_decision_has_a_button_in_the_console() -> None:
    assert acting.RESPONSE_ACTS.keys() == set(RESPONSES) - {"alert"}
    assert acting.RESTARTS.keys() == STOPS
    assert list(NEXT) == list(Verb)
    assert re.findall(r"^  (\w+): \{ text: ", CONSOLE, re.MULTILINE) == list(Verb)


def test_the_command_and_the_page_have_each_kind_of_stop() -> None:
    kinds = {"agent", *get_args(What)}
    assert set(get_args(StopKind)) == kinds
    assert set(re.findall(r"^ostiary kill (\w+)", PAGE, re.MULTILINE)) == kinds | {"list", "lift"}
