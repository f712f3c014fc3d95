"""Our own product as the benchmark uses it: a real server, a real guard, a person with a key."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.contain import owner, rules
from benchmarks.contain.columns import Plan
from benchmarks.contain.doorkeeper import Doorkeeper, active_files, patient
from harness.live_server import ServerFixture
from harness.prepared import PreparedServer
from ostiary.protocol.errors import Refused, Unavailable
from tests.support.toys import STEAL, Toy

ASKING = """
@id("ask-before-sending")
@ask("person")
forbid (principal is Agent, action == Action::"call", resource == Tool::"suite/send");
"""


@pytest.fixture(scope="module")
def live_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerFixture]:
    folder = tmp_path_factory.mktemp("live_server")
    with PreparedServer(folder / "data") as server, ServerFixture(server, folder) as made:
        yield made


def test_an_approved_call_runs_and_a_denied_attack_does_not(live_server: ServerFixture, tmp_path: Path) -> None:
    files = active_files(live_server)
    live_server.api("POST", "/policies", {"files": files | {"asking.cedar": ASKING}})
    assert "ask-before-sending" in rules.forbidding(active_files(live_server))
    product, plan = Doorkeeper(live_server, tmp_path, owner.reading(Toy()), without=""), Plan(Toy())
    try:
        assert [(row.useful, row.questions) for row in plan.honest(product)] == [(True, 1), (True, 1)]
        [attacked] = plan.attacked(product)
        assert (attacked.useful, attacked.harmed, attacked.questions) == (True, False, 2)
        assert attacked.denied == ((STEAL.tool, "approval_denied"),)
        stolen = {how: [row.harmed for row in plan.stolen(product, how)] for how in product.thefts}
        assert stolen == {how: [False] for how in product.thefts}
    finally:
        product.close_all()
    entries = live_server.entries(action="approval.approve", limit=100)
    assert len(entries) == 3  # one for each greeting: nobody approved the theft


@pytest.mark.parametrize("code", ["feed_stale", "feed_broken", "memory_unavailable"])
def test_a_temporary_error_is_retried_and_any_other_error_is_a_denial(code: str) -> None:
    left = [Unavailable("later", code=code)]

    def work() -> str:
        if left:
            raise left.pop()
        return "decided"

    assert patient(work) == "decided"
    left.append(Unavailable("no", code="outside_task"))
    with pytest.raises(Refused, match="no"):
        patient(work)


def test_a_policy_set_without_one_rule_keeps_all_other_rules(live_server: ServerFixture) -> None:
    files = active_files(live_server)
    names = rules.forbidding(files)
    assert "secrets-stay" in names
    assert rules.forbidding(rules.without(files, "secrets-stay")) == [name for name in names if name != "secrets-stay"]
    body = {"files": rules.without(files, "secrets-stay"), "loses": ["secrets-stay"]}
    live_server.api("POST", "/policies", body)  # and it is still a set
    assert "secrets-stay" not in rules.forbidding(active_files(live_server))
