"""The AuthZEN interoperability scenarios over HTTP: a gateway with an API key, and a client made by others (decern).

Scenarios of the OpenID AuthZEN working group: todo (single and batched decisions), and search over records. The rules
and the pairs of requests and answers are written anew from the published role tables.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from decern import Client, DecernError

from harness.patience import PATIENCE_S
from harness.prepared import PreparedServer
from harness.server import Server

SCHEMA = """
entity user = { id: String, roles?: Set<String> };
entity todo = { id: String, ownerID?: String };
entity record = { id: String, owner: String, department: String };
action can_read_user appliesTo { principal: user, resource: user };
action can_read_todos, can_create_todo, can_update_todo, can_delete_todo appliesTo { principal: user, resource: todo };
action view, edit appliesTo { principal: user, resource: record };
"""
POLICIES = """
@id("everyone-reads")
permit (principal is user, action in [Action::"can_read_user", Action::"can_read_todos"], resource);
@id("editors-create")
permit (principal is user, action == Action::"can_create_todo", resource)
when { principal has roles && principal.roles.containsAny(["admin", "editor"]) };
@id("geniuses-update")
permit (principal is user, action == Action::"can_update_todo", resource)
when { principal has roles && principal.roles.contains("evil_genius") };
@id("admins-delete")
permit (principal is user, action == Action::"can_delete_todo", resource)
when { principal has roles && principal.roles.contains("admin") };
@id("editors-own")
permit (principal is user, action in [Action::"can_update_todo", Action::"can_delete_todo"], resource)
when { principal has roles && principal.roles.contains("editor") &&
       resource has ownerID && resource.ownerID == principal.id };
@id("owners-edit") permit (principal is user, action in [Action::"view", Action::"edit"], resource is record)
when { resource.owner == principal.id };
@id("sales-view") permit (principal is user, action == Action::"view", resource is record)
when { resource.department == "Sales" };
@id("tokens") permit (principal is Agent, action == Action::"issue_token", resource);
"""
RICK, MORTY, SUMMER = "rick@the-citadel.com", "morty@the-citadel.com", "summer@the-smiths.com"
BETH, JERRY = "beth@the-smiths.com", "jerry@the-smiths.com"
ROLES = {RICK: ["admin", "evil_genius"], MORTY: ["editor"], SUMMER: ["editor"], BETH: ["viewer"], JERRY: ["viewer"]}
RECORDS = {"r1": (RICK, "Sales"), "r2": (RICK, "Legal"), "r3": (BETH, "Legal"), "r4": (MORTY, "Sales")}


class Pair(NamedTuple):
    subject: str
    action: str
    resource: dict[str, Any]
    permitted: bool


def pairs() -> Iterator[Pair]:
    """Each user, each action, on the todo of each owner."""
    for who, roles in ROLES.items():
        edits, rules = "editor" in roles, "admin" in roles
        yield Pair(who, "can_read_user", {"type": "user", "id": BETH}, True)
        yield Pair(who, "can_read_todos", {"type": "todo", "id": "todo-1"}, True)
        yield Pair(who, "can_create_todo", {"type": "todo", "id": "todo-1"}, edits or rules)
        for owner in ROLES:
            todo = {"type": "todo", "id": f"of-{owner}", "properties": {"ownerID": owner}}
            may = rules or (edits and owner == who)
            yield Pair(who, "can_update_todo", todo, may)
            yield Pair(who, "can_delete_todo", todo, may)


PAIRS = tuple(pairs())


class Gateway(NamedTuple):
    """A policy enforcement point made of the standard library: it knows of AuthZEN and of an API key, nothing else."""

    url: str
    key: str

    def post(self, path: str, body: object) -> tuple[int, Any]:
        headers = {"content-type": "application/json", "authorization": f"Bearer {self.key}"}
        request = urllib.request.Request(self.url + path, json.dumps(body).encode(), headers)
        try:
            with urllib.request.urlopen(request) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def search(self, kind: str, body: dict[str, Any]) -> list[str]:
        """All results, page by page."""
        found: list[str] = []
        page: dict[str, Any] = {"limit": 1}
        while True:
            status, answer = self.post(f"/access/v1/search/{kind}", body | {"page": page})
            assert status == 200, answer
            found += [one.get("id") or one["name"] for one in answer["results"]]
            if not (token := answer["page"]["next_token"]):
                return found
            page = {"token": token}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with PreparedServer(tmp_path_factory.mktemp("interop") / "data") as server:
        put(server, tmp_path_factory.mktemp("policies"))
        made = server.ostiary("pep", "create", "gateway", "--network", "127.0.0.1")
        yield Gateway(server.url, made["key"])


def put(server: Server, folder: Path) -> None:
    users = [{"uid": {"type": "user", "id": name}, "attrs": {"roles": roles}} for name, roles in ROLES.items()]
    records = [
        {"uid": {"type": "record", "id": id}, "attrs": {"owner": owner, "department": department}}
        for id, (owner, department) in RECORDS.items()
    ]
    (folder / "interop.cedarschema").write_text(SCHEMA)
    (folder / "interop.cedar").write_text(POLICIES)
    (folder / "interop.entities.json").write_text(json.dumps([*users, *records]))
    server.ostiary("policy", "put", str(folder), "--yes")


def test_a_third_party_client_gets_every_decision_of_the_todo_scenario(gateway: Gateway) -> None:
    client = Client(gateway.url, timeout=PATIENCE_S, token=gateway.key)
    for who, action, resource, permitted in PAIRS:
        decision = client.evaluate({"type": "user", "id": who}, action, resource)
        assert decision.allowed is permitted, (who, action, resource)
    assert {True, False} == {pair.permitted for pair in PAIRS}


def test_a_third_party_client_reads_the_error_of_an_unauthenticated_request(gateway: Gateway) -> None:
    for token, status in ((None, 401), (gateway.key[:-1] + ("A" if gateway.key[-1] != "A" else "B"), 401)):
        with pytest.raises(DecernError) as refused:
            Client(gateway.url, timeout=PATIENCE_S, token=token).evaluate(
                {"type": "user", "id": RICK}, "can_read_user", {"type": "user", "id": BETH}
            )
        assert refused.value.status_code == status
        assert isinstance(json.loads(refused.value.body), str)


@pytest.mark.parametrize("defaults", [{}, {"resource": {}, "context": {}}, {"context": {"latitude": 52.520008}}])
def test_batch_evaluations_of_the_todo_scenario_get_the_expected_decisions(
    gateway: Gateway, defaults: dict[str, Any]
) -> None:
    for who in ROLES:
        asked = [pair for pair in PAIRS if pair.subject == who]
        items = [{"action": {"name": pair.action}, "resource": pair.resource} for pair in asked]
        body = {"subject": {"type": "user", "id": who}, "evaluations": items} | defaults
        status, answer = gateway.post("/access/v1/evaluations", body)
        assert (status, [one["decision"] for one in answer["evaluations"]]) == (200, [one.permitted for one in asked])


def test_searches_of_the_record_scenario_get_the_expected_results(gateway: Gateway) -> None:
    for who in ROLES:
        for action, departments in (("view", {"Sales"}), ("edit", set[str]())):
            due = [id for id, (owner, department) in RECORDS.items() if owner == who or department in departments]
            asked = {"subject": {"type": "user", "id": who}, "action": {"name": action}, "resource": {"type": "record"}}
            assert gateway.search("resource", asked) == due
    for id, (owner, department) in RECORDS.items():
        record = {"type": "record", "id": id}
        viewers = sorted(ROLES) if department == "Sales" else [owner]
        for action, due in (("view", viewers), ("edit", [owner])):
            asked = {"subject": {"type": "user"}, "action": {"name": action}, "resource": record}
            assert sorted(gateway.search("subject", asked)) == due
        for who in ROLES:
            names = ["edit", "view"] if who == owner else ["view"] if department == "Sales" else []
            assert gateway.search("action", {"subject": {"type": "user", "id": who}, "resource": record}) == names
