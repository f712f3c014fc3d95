"""Policies that read the history of a task: a real server, and real guards of two resources."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from harness.live_server import ServerFixture
from harness.patience import eventually
from ostiary.guard import Denied, Guard, Verified
from ostiary.protocol.errors import Unavailable
from ostiary.provenance.history import MAX_TOOLS
from tests.e2e.spender import show

STARTER = (files("ostiaryd.policy") / "starter" / "starter.cedar").read_text("utf-8")
RULES = """
@id("nothing-leaves") forbid (principal is Agent, action == Action::"call", resource is Tool)
when { resource.effect == "send" && context.history.read_classes.contains("personal") };
@id("five-recipients") forbid (principal is Agent, action == Action::"call", resource is Tool)
when { resource.effect == "send" && context.history.recipients + context.history.new_recipients > 5 };
@id("own-only") forbid (principal is Agent, action == Action::"call", resource is Tool)
when { resource.effect == "destroy" } unless { context.history.created.contains("id") };
@id("ask-after-outside") @ask("person") forbid (principal is Agent, action == Action::"call", resource is Tool)
when { resource.effect == "administer" && context.history.outside };
@id("twice-a-day") forbid (principal is Agent, action == Action::"call", resource is Tool)
when { resource.effect == "share" && context.history.recent.counts.share >= 2 };
"""
CRM: list[dict[str, Any]] = [
    {"name": "read_customer", "effect": "read", "data_classes": ["personal"], "open_world": False},
    {"name": "read_price", "effect": "read", "open_world": False},
    {"name": "browse", "effect": "read"},
    {"name": "create", "effect": "write", "open_world": False, "creates": {"id": "output.id"}},
    {"name": "save", "effect": "write", "open_world": False, "creates": {"id": "arguments.id"}},
    {"name": "delete", "effect": "destroy", "scope": "write", "open_world": False},
    {"name": "set_role", "effect": "administer", "scope": "write", "open_world": False},
    {"name": "share", "effect": "share", "scope": "write", "open_world": False},
    *({"name": f"read_{number}", "effect": "read", "open_world": False} for number in range(MAX_TOOLS)),
]
MAIL: list[dict[str, Any]] = [{"name": "send", "effect": "send", "kinds": {"to": "address"}}]


class Office:
    """A CRM and a mail server, each with its guards, and agents that use both."""

    def __init__(self, live_server: ServerFixture) -> None:
        self.live_server = live_server
        self.uris = {kind: f"https://{live_server.name(kind)}.example/mcp" for kind in ("crm", "mail")}
        self.crm, self.crm_key = live_server.resource(self.uris["crm"], CRM)
        self.mail, self.mail_key = live_server.resource(self.uris["mail"], MAIL)
        self.agents: dict[str, Path] = {}
        self.put(RULES)

    def put(self, rules: str) -> None:
        self.live_server.api("POST", "/policies", {"files": {"a.cedar": STARTER + rules}})

    def agent(self) -> str:
        name, key = self.live_server.agent(f"{self.crm}:read", f"{self.crm}:write", f"{self.mail}:write")
        self.agents[name] = key
        return name

    def task(self, agent: str, **more: Any) -> str:
        return str(self.live_server.api("POST", "/tasks", {"agent": agent, "purpose": "p", **more})["task_id"])

    @contextmanager
    def desk(self, folder: Path) -> Iterator[Desk]:
        with (
            Guard(self.crm_key, spool_dir=folder / "crm") as crm,
            Guard(self.mail_key, spool_dir=folder / "mail") as mail,
        ):
            yield Desk(self, crm, mail)


class Desk:
    """A guard of each resource."""

    def __init__(self, office: Office, crm: Guard, mail: Guard) -> None:
        self.office, self.crm, self.mail = office, crm, mail
        self._shown: dict[tuple[str, str, str], Verified] = {}

    def wait(self, *, relies: bool = True) -> None:
        """Wait until both guards have the policies."""
        for guard in (self.crm, self.mail):
            eventually(lambda guard=guard: guard.feed.current().facts.policies.relies_on_history is relies)  # type: ignore[misc]

    def do(self, agent: str, task: str, tool: str, output: object = None, **arguments: Any) -> str:
        """Make a call. Return an empty string if it is allowed, otherwise the policy or the code of the denial."""
        kind = "mail" if tool == "send" else "crm"
        guard, uri = getattr(self, kind), self.office.uris[kind]
        who = self._shown.get((agent, task, kind)) or show(guard, self.office.agents[agent], uri, task)
        self._shown[agent, task, kind] = who
        try:
            with guard.call(who, tool, arguments) as call:
                guard.observe(call, output)
        except Denied as denied:
            return denied.decision.policies[0] if denied.decision.policies else denied.code
        except Unavailable as refusal:
            return refusal.code
        return ""


@pytest.fixture
def office(live_server: ServerFixture) -> Office:
    return Office(live_server)


@pytest.fixture
def desk(office: Office, tmp_path: Path) -> Iterator[Desk]:
    with office.desk(tmp_path) as desk:
        desk.wait()
        yield desk


def test_data_read_in_a_task_tree_at_one_server_is_not_sent_at_another(office: Office, desk: Desk) -> None:
    one, two = office.agent(), office.agent()
    whole, beside = office.task(one), office.task(one)
    part = office.task(two, parent=whole)
    assert desk.do(one, whole, "send", to="ann") == ""
    assert desk.do(two, part, "read_customer") == ""
    assert desk.do(one, whole, "send", to="ann") == "nothing-leaves"
    assert desk.do(two, part, "send", to="ann") == "nothing-leaves"
    assert desk.do(one, beside, "send", to="ann") == ""


def test_concurrent_guards_do_not_allow_a_sixth_recipient(office: Office, desk: Desk, tmp_path: Path) -> None:
    """Of three guards of one server, each with a copy of its own, that are called from many threads."""
    agent = office.agent()
    task = office.task(agent)
    with ExitStack() as stack:
        desks = [desk, *(stack.enter_context(office.desk(tmp_path / name)) for name in ("b", "c"))]
        for one in desks:
            one.wait()
            assert one.do(agent, task, "send", to="first") == ""
        with ThreadPoolExecutor(9) as threads:
            found = list(threads.map(lambda n: desks[n % 3].do(agent, task, "send", to=f"name-{n}"), range(18)))
    assert found.count("") <= 4
    assert set(found) <= {"", "five-recipients", "budget_unavailable"}
    assert sum(desk.do(agent, task, "send", to=f"late-{n}") == "" for n in range(5)) + found.count("") == 4
    assert desk.do(agent, task, "send", to="first") == ""


def test_a_task_can_delete_only_objects_that_the_task_created(office: Office, desk: Desk) -> None:
    agent = office.agent()
    task, other = office.task(agent), office.task(agent)
    assert desk.do(agent, task, "delete", id="24") == "own-only"
    assert desk.do(agent, task, "create", {"id": 24, "title": "13"}, title="13") == ""
    assert desk.do(agent, task, "delete", id="13") == "own-only"
    assert desk.do(agent, task, "delete", id="24") == ""
    assert desk.do(agent, other, "delete", id="24") == "own-only"


@pytest.mark.parametrize("ok", [False, True])
def test_a_failed_call_does_not_record_a_created_object(office: Office, desk: Desk, ok: bool) -> None:
    """An existing file cannot be created: without this rule, the task could delete the file."""
    agent = office.agent()
    task = office.task(agent)
    assert desk.do(agent, task, "delete", id="theirs") == "own-only"
    who = show(desk.crm, office.agents[agent], office.uris["crm"], task)
    with desk.crm.call(who, "save", {"id": "theirs"}) as call:
        call.result(ok=ok)
        desk.crm.observe(call, {"error": "it is there already"})
    assert desk.do(agent, task, "delete", id="theirs") == ("" if ok else "own-only")


def test_an_administrative_call_after_untrusted_content_needs_an_approval(office: Office, desk: Desk) -> None:
    agent = office.agent()
    task = office.task(agent)
    assert desk.do(agent, task, "set_role") == ""
    assert desk.do(agent, task, "browse") == ""
    assert desk.do(agent, task, "set_role") == "ask-after-outside"


def test_a_new_guard_knows_the_history_of_the_task_and_recent_calls_of_all_tasks(
    office: Office, desk: Desk, tmp_path: Path
) -> None:
    agent = office.agent()
    task = office.task(agent)
    assert desk.do(agent, task, "read_customer") == ""
    for _ in range(2):
        assert desk.do(agent, office.task(agent), "share") == ""
    with office.desk(tmp_path / "new") as new:
        new.wait()
        assert new.do(agent, task, "send", to="ann") == "nothing-leaves"
        assert new.do(agent, office.task(agent), "share") == "twice-a-day"
        other = office.agent()
        assert new.do(other, office.task(other), "share") == ""


def test_guards_know_the_recipients_of_all_agents_of_the_owner(office: Office, desk: Desk, tmp_path: Path) -> None:
    rule = """@id("stranger") forbid (principal is Agent, action == Action::"call", resource is Tool)
        when { resource.effect == "send" && context.history.counterparts.unknown > 0 && context.history.outside };"""
    office.put(rule)
    for guard in (desk.crm, desk.mail):
        eventually(lambda guard=guard: guard.feed.current().facts.policies.reads_counterparts)  # type: ignore[misc]
    agent = office.agent()
    assert desk.do(agent, office.task(agent), "send", to="ann") == ""
    task = office.task(agent)
    assert desk.do(agent, task, "browse") == ""
    assert desk.do(agent, task, "send", to="eve") == "stranger"
    assert desk.do(agent, task, "send", to="ANN") == ""
    with office.desk(tmp_path / "new") as new:
        eventually(lambda: new.mail.feed.current().facts.policies.reads_counterparts)
        task = office.task(agent)
        assert new.do(agent, task, "browse") == ""
        assert new.do(agent, task, "send", to="eve") == "stranger"
        assert new.do(agent, task, "send", to="ann") == "", "in another task, and at another guard"
        other = office.agent()
        task = office.task(other)
        assert new.do(other, task, "browse") == ""
        assert new.do(other, task, "send", to="ann") == "stranger", "it is another owner's"


def test_a_call_whose_policy_reads_a_full_history_is_denied(office: Office, desk: Desk) -> None:
    agent = office.agent()
    task = office.task(agent)
    for number in range(MAX_TOOLS):
        assert desk.do(agent, task, f"read_{number}") == ""
    assert desk.do(agent, task, "read_price") == ""
    assert desk.do(agent, task, "send", to="ann") == "history_full"


def test_a_guard_without_the_server_denies_calls_that_add_to_or_read_the_history(office: Office, desk: Desk) -> None:
    agent = office.agent()
    task = office.task(agent)
    assert desk.do(agent, task, "read_price") == ""
    assert desk.do(agent, task, "send", to="ann") == ""
    for guard in (desk.crm, desk.mail):
        guard._link.memories._rpc._url = "http://127.0.0.1:1"
    assert desk.do(agent, task, "read_price") == ""
    assert desk.do(agent, task, "read_customer") == "memory_unavailable"
    assert desk.do(agent, task, "send", to="ann") == "memory_unavailable"
    office.put('@mode("watch")' + RULES.split('@id("five')[0])
    desk.wait(relies=False)
    assert desk.do(agent, task, "send", to="ann") == "", "who only watches denies nothing"


def test_a_policy_in_watch_mode_records_the_denial(office: Office, desk: Desk) -> None:
    office.put('@mode("watch")' + RULES.split('@id("five')[0])
    desk.wait(relies=False)
    agent = office.agent()
    task = office.task(agent)
    assert desk.do(agent, task, "read_customer") == ""
    assert desk.do(agent, task, "send", to="ann") == ""

    def watched() -> Any:
        return office.live_server.entries(action="tool.call", resource=office.uris["mail"])

    [entry] = eventually(watched)
    assert entry["detail"]["watched"] == ["nothing-leaves"]
    assert entry["detail"]["origins"]["history"]["read_classes"] == ["personal"]
