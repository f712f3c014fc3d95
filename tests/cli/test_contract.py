"""The interface for scripts: each command, its words, the members of its JSON."""

from __future__ import annotations

import json
import re
import shlex
import stat
import time
from pathlib import Path

import httpx2
import pytest

from harness.cli import Commands, environment, run
from harness.server import Server
from ostiary.agent import Agent
from ostiary.protocol import jose
from tests.cli.cli_fixtures import TOOLS

ELSEWHERE = ("--resource", "https://elsewhere.example.org")
"""A resource that is not registered."""


def register(ostiary: Commands, name: str, *more: object) -> str:
    """An agent of ada's; its id."""
    who = ("--owner", "ada", "--purpose", "tests", "--undeclared")
    agent: str = ostiary.json("agent", "create", name, *who, *more)["agent_id"]
    return agent


def private_jwk(path: Path, *, without: tuple[str, ...] = ()) -> Path:
    """A key file as other programs write them: nothing but the JWK."""
    jwk = jose.generate("ES256").jwk()
    path.write_text(json.dumps({name: value for name, value in jwk.items() if name not in without}))
    path.chmod(0o600)
    return path


def test_the_first_start_writes_a_private_administrator_credential(server: Server) -> None:
    admin = server.folder / "admin.json"
    assert stat.S_IMODE(admin.stat().st_mode) == 0o600
    with Agent.from_credential(admin, url=server.url) as agent:
        assert agent.token(scope="ostiary:admin")["token_type"] == "DPoP"


def test_environment_variables_name_the_server_and_the_credential(server: Server) -> None:
    named = {"OSTIARY_URL": server.url, "OSTIARY_CREDENTIAL": str(server.folder / "admin.json")}
    with environment(**named, OSTIARY_DATA_DIR="/nowhere"):
        assert run("agent", "list", "--json").json
    with environment(OSTIARY_URL=None, OSTIARY_CREDENTIAL=None, OSTIARY_DATA_DIR=str(server.folder)):
        assert run("agent", "list", "--json").json


def test_data_dir_and_json_are_accepted_at_each_position(server: Server) -> None:
    folder = server.folder
    for words in (
        ("--data-dir", folder, "--json", "person", "list"),
        ("person", "--json", "--data-dir", folder, "list"),
        ("person", "list", f"--data-dir={folder}", "--json"),
    ):
        assert "ada" in {owner["name"] for owner in run(*words).json}


def test_persons_and_teams_are_created_changed_listed_and_shown(ostiary: Commands, name: str) -> None:
    created = ostiary.json("person", "create", name, "--email", "x@example.org", "--deputy", "ada")
    assert (created["name"], created["deputy"]) == (name, "ada")
    assert ostiary.json("person", "deputy", name)["deputy"] is None
    team = ostiary.json("team", "create", f"{name}-t", "--member", "ada", "--member", name)
    assert team["members"] == sorted(["ada", name])
    assert ostiary.json("team", "remove", f"{name}-t", name)["members"] == ["ada"]
    assert ostiary.json("team", "add", f"{name}-t", name)["members"] == sorted(["ada", name])
    assert ostiary.json("team", "deputy", f"{name}-t", "ada")["deputy"] == "ada"
    assert f"{name}-t" in {one["name"] for one in ostiary.json("team", "list")}
    assert f"owner {name} has left" in ostiary("revoke", "owner", name).out
    assert ostiary.json("person", "show", name)["state"] != "active"
    assert ostiary.json("person", "return", name)["state"] == "active"


def test_command_names_of_earlier_versions_work_and_state_the_current_names(ostiary: Commands, name: str) -> None:
    created = ostiary("owner", "create", name, "--email", "x@example.org", "--json")
    assert (created.json["name"], json.loads(created.err)) == (name, {"note": "`owner` is now `person`"})
    suspended = ostiary("person", "suspend", name, "--why=--why", "--json")
    assert (suspended.json["state"], json.loads(suspended.err)) == ("suspended", {"note": "`--why` is now `--reason`"})
    assert ostiary("owner", "list").err.splitlines()[0] == "`owner` is now `person`"


def test_an_invitation_and_the_login_of_a_person_are_shown(ostiary: Commands, name: str) -> None:
    ostiary.json("person", "create", name, "--email", "i@example.org")
    ran = ostiary("person", "invite", name, "--hours", 2)
    assert ran.code == 0, ran.err
    assert "/setup?code=" in ran.out
    made = ostiary.json("person", "invite", name, "--hours", 2)
    assert 7100 < made["expires_at"] - time.time() <= 7200
    assert ostiary("person", "login", name).code == 0
    assert ostiary("person", "sessions", name).out.strip() == f"`{name}` is not signed in anywhere"


def test_budgets_of_tasks_and_daily_budgets_of_agents_are_set_and_shown(
    ostiary: Commands, name: str, tmp_path: Path
) -> None:
    register(ostiary, name, "--scope", "bank:write", "--generate-key", tmp_path / "key.json")
    limits = tmp_path / "limits.json"
    pay = {"kind": "amount", "limit": "250.00", "tools": ["bank/pay"], "argument": "amount"}
    limits.write_text(json.dumps([pay]))
    task = ostiary.json("task", "start", "--agent", name, "--purpose", "pay", "--budget", limits)
    assert [(one["limit"], one["left"]) for one in task["budgets"]] == [(pay, "250.00")]
    assert ostiary.json("task", "show", task["task_id"])["budgets"] == task["budgets"]
    assert ostiary.json("agent", "budget", name) == []
    [daily] = ostiary.json("agent", "budget", name, "--limits", limits)
    assert (daily["limit"], daily["daily"], daily["spent"]) == (pay, True, "0.00")
    assert ostiary.json("agent", "budget", name) == [daily]
    answer = ostiary.json(
        "token", "--agent", name, "--key", tmp_path / "key.json", "--task", task["task_id"], *ELSEWHERE
    )
    assert answer["budgets"] == [task["budgets"][0], daily]
    limits.write_text("[]")
    assert ostiary.json("agent", "budget", name, "--limits", limits) == []


def test_a_task_is_started_with_a_heartbeat_and_end_with_last(ostiary: Commands, name: str, tmp_path: Path) -> None:
    register(ostiary, name, "--scope", "a:read", "--generate-key", tmp_path / "key.json")
    started = ("task", "start", "--agent", name, "--purpose", "hold")
    assert "heartbeat" not in ostiary.json(*started)
    held = ostiary.json(*started, "--heartbeat", 60, "--end-with-last")
    assert (held["heartbeat"], held["end_with_last"], held["holders"]) == (60, True, [])
    shown = ostiary.json("task", "show", held["task_id"])
    assert (shown["heartbeat"], shown["end_with_last"], shown["holders"]) == (60, True, [])
    assert ostiary.json(*started, "--heartbeat", 60).get("end_with_last", False) is False
    for wrong in (("--heartbeat", 0), ("--heartbeat", 86_401), ("--end-with-last",)):
        ran = ostiary(*started, *wrong)
        assert ran.code != 0, wrong
        assert "heartbeat" in ran.err


def test_an_agent_with_a_key_gets_a_token_and_an_agent_without_a_key_is_pending(
    ostiary: Commands, name: str, tmp_path: Path
) -> None:
    key = tmp_path / "key.json"
    asked = ("--scope", "a:read b:read", "--scope", "c:write", "--generate-key", key)
    agent = ostiary.json("agent", "create", name, "--owner", "ada", "--purpose", "tests", "--undeclared", *asked)
    assert agent["agent_id"] == agent["client_id"]
    assert agent["spiffe_id"] == f"spiffe://localhost/agent/{name}"
    assert agent["scopes"] == ["a:read", "b:read", "c:write"]
    assert agent["state"] == "active"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    token = ostiary.json("token", "--agent", name, "--key", key, *ELSEWHERE, "--scope", "a:read b:read")
    assert token["token_type"] == "DPoP"
    assert token["access_token"].count(".") == 2
    assert token["scope"] == "a:read b:read"
    assert 0 < token["expires_in"] <= 300
    other = ostiary.json("agent", "create", f"{name}-2", "--owner", "ada", "--purpose", "tests")
    assert other["state"] == "pending"


@pytest.mark.parametrize("without", [(), ("kid",), ("kid", "alg", "use")])
def test_a_token_is_issued_for_a_private_jwk_of_another_program(
    ostiary: Commands, name: str, tmp_path: Path, without: tuple[str, ...]
) -> None:
    key = private_jwk(tmp_path / "key.jwk", without=without)
    public = tmp_path / "public.jwk"
    public.write_text(json.dumps({k: v for k, v in json.loads(key.read_text()).items() if k != "d"}))
    agent = register(ostiary, name, "--scope", "a:read", "--scope", "b:read", "--jwk", public)
    asked = ("--resource", "https://files.example.org", "--scope", "a:read")
    assert ostiary.json("token", "--agent", name, "--key", key, *asked)["scope"] == "a:read"
    with environment(OSTIARY_URL=json.loads((ostiary.folder / "server.json").read_text())["url"]):
        assert run("token", "--agent", agent, "--key", key, *asked, "--json").json["scope"] == "a:read"
        by_name = run("token", "--agent", name, "--key", key, *asked)
    assert by_name.code == 2
    assert "cannot be looked up without an administrator's credential" in by_name.err
    assert "--agent ag_.." in by_name.err


def test_a_credential_file_is_sufficient_to_get_a_token(ostiary: Commands, name: str, tmp_path: Path) -> None:
    key, bare = tmp_path / "key.json", private_jwk(tmp_path / "bare.jwk", without=())
    agent = register(ostiary, name, "--scope", "a:read", "--generate-key", key)
    asked = ("token", "--agent", agent, "--resource", "https://files.example.org", "--scope", "a:read", "--json")
    with environment(OSTIARY_URL=None, OSTIARY_DATA_DIR=None):
        assert run(*asked, "--key", key).json["scope"] == "a:read"
        nowhere = run(*asked, "--key", bare)
    assert (nowhere.code, "no server is named" in nowhere.err) == (2, True)
    with environment(OSTIARY_URL="http://127.0.0.1:1"):  # what is said counts more than what the credential says
        assert run(*asked, "--key", key).code == 3


def test_only_the_public_part_of_a_private_jwk_is_registered(ostiary: Commands, name: str, tmp_path: Path) -> None:
    key = private_jwk(tmp_path / "key.jwk")
    register(ostiary, name, "--jwk", key)
    [registered] = ostiary.json("agent", "show", name)["keys"]
    assert "d" not in registered["jwk"]
    assert json.loads(key.read_text())["d"] not in json.dumps(ostiary.json("audit", "search", "--limit", "10"))


def test_the_key_of_another_agent_is_refused_and_a_readable_key_file_is_reported(
    ostiary: Commands, name: str, tmp_path: Path
) -> None:
    register(ostiary, name, "--generate-key", tmp_path / "a.json")
    other = register(ostiary, f"{name}-2", "--generate-key", tmp_path / "b.json")
    refused = ostiary("token", "--agent", other, "--key", tmp_path / "a.json")
    assert (refused.code, "belongs to the agent ag_" in refused.err) == (2, True)
    (tmp_path / "b.json").chmod(0o644)
    warned = ostiary("token", "--agent", other, "--key", tmp_path / "b.json", *ELSEWHERE)
    assert (warned.code, "is open to other users" in warned.err) == (0, True)


def test_commands_change_the_state_of_an_agent(ostiary: Commands, name: str, tmp_path: Path) -> None:
    register(ostiary, name, "--generate-key", tmp_path / "key.json")
    for verb, state in (
        ("suspend", "suspended"),
        ("resume", "active"),
        ("quarantine", "quarantined"),
        ("release", "active"),
        ("decommission", "decommissioned"),
    ):
        assert ostiary.json("agent", verb, name, "--reason", "a test")["state"] == state
    assert name in {agent["name"] for agent in ostiary.json("agent", "list", "--owner", "ada")}


def test_scopes_of_an_agent_are_added_and_removed(ostiary: Commands, name: str) -> None:
    agent = register(ostiary, name, "--scope", "a:read")
    assert ostiary.json("agent", "allow", name, "b:read", "c:read d:read", "--undeclared")["scopes"] == [
        "a:read",
        "b:read",
        "c:read",
        "d:read",
    ]
    undeclared = ostiary("agent", "allow", agent, "x:read")
    assert (undeclared.code, "--undeclared" in undeclared.err) == (1, True)
    again = ostiary.json("agent", "allow", agent, "b:read", "--undeclared")
    assert again["scopes"] == ["a:read", "b:read", "c:read", "d:read"]
    assert ostiary.json("agent", "disallow", name, "b:read", "x:read")["scopes"] == ["a:read", "c:read", "d:read"]
    assert ostiary("agent", "allow", name).code == 2
    said = ostiary("agent", "allow", name, "a:read", "e:read", "--undeclared").out.splitlines()
    assert said[-1] == f"undo: ostiary agent disallow {name} e:read"
    disallowed = ostiary("agent", "disallow", name, "e:read", "d:raed")
    said = disallowed.out.splitlines()
    assert disallowed.err.strip() == f"`{name}` did not have the scope `d:raed`; did you mean `d:read`?"
    assert said[-1] == f"undo: ostiary agent allow {name} e:read --undeclared"
    assert ostiary(*said[-1].split()[2:]).code == 0  # no resource declares it, and the agent had it


def test_an_agent_is_transferred_to_another_owner(ostiary: Commands, name: str) -> None:
    ostiary.json("person", "create", f"{name}-o", "--email", "x@example.org")
    register(ostiary, name)
    assert ostiary.json("agent", "transfer", name, "--owner", f"{name}-o", "--deputy", "ada")["owner"] == f"{name}-o"


def test_a_workload_enrols_with_a_join_token_once(ostiary: Commands, name: str, tmp_path: Path) -> None:
    agent = register(ostiary, name)
    token = ostiary.json("agent", "join-token", name, "--ttl", 60)["join_token"]
    key = tmp_path / "key.json"
    with environment(OSTIARY_URL=json.loads((ostiary.folder / "server.json").read_text())["url"]):
        enrolled = run("agent", "enrol", f"--join-token={token}", "--generate-key", key, "--json").json
        again = run("agent", "enrol", f"--join-token={token}", "--generate-key", tmp_path / "again.json")
    assert enrolled["agent_id"] == agent
    assert ostiary.json("token", "--agent", agent, "--key", key, *ELSEWHERE)["token_type"] == "DPoP"
    assert (again.code, again.err.partition(":")[0]) == (1, "invalid_join_token")
    assert not (tmp_path / "again.json").exists()


def test_keys_of_an_agent_are_added_rotated_and_revoked(ostiary: Commands, name: str, tmp_path: Path) -> None:
    register(ostiary, name, "--generate-key", tmp_path / "1.json")
    added = ostiary.json("key", "add", name, "--generate-key", tmp_path / "2.json")
    assert len(ostiary.json("key", "list", name)) == 2
    assert ostiary("key", "revoke", name, added["kid"]).code == 0
    rotated = ostiary.json("key", "rotate", name, "--generate-key", tmp_path / "3.json", "--overlap", 0)
    alive = [key["kid"] for key in ostiary.json("key", "list", name) if key["revoked_at"] is None]
    assert alive == [rotated["kid"]]
    assert ostiary("token", "--agent", name, "--key", tmp_path / "1.json", *ELSEWHERE).code == 1
    assert ostiary("token", "--agent", name, "--key", tmp_path / "3.json", *ELSEWHERE).code == 0


def test_server_keys_rotate_with_overlap(ostiary: Commands) -> None:
    before = {(key["use"], key["kid"]) for key in ostiary.json("keys", "list")}
    rotated = ostiary.json("keys", "rotate", "--use", "token", "--alg", "ES256")
    after = {(key["use"], key["kid"]) for key in ostiary.json("keys", "list")}
    assert after - before == {("token", rotated["kid"])}
    assert before < after
    assert {use for use, _ in after} == {"token", "feed", "ledger"}


def test_the_client_secrets_of_a_resource_are_created_shown_and_revoked(ostiary: Commands, name: str) -> None:
    ostiary.json("resource", "create", name, "--uri", f"https://{name}.example.org")
    made = ostiary.json("resource", "create-secret", name, "--days", 1)
    [listed] = ostiary.json("resource", "show", name)["secrets"]
    assert (listed["secret_id"], listed["expires_at"]) == (made["secret_id"], made["expires_at"])
    shown = ostiary("resource", "show", name)
    assert made["secret_id"] in shown.out
    assert made["client_secret"] not in shown.out
    assert ostiary.json("resource", "revoke-secret", name, made["secret_id"][:20])["secrets"] == []
    assert made["secret_id"] not in ostiary("resource", "show", name).out


def test_the_catalogue_the_mode_and_the_key_of_a_resource_are_set(ostiary: Commands, name: str, tmp_path: Path) -> None:
    catalogue = tmp_path / "catalogue.json"
    catalogue.write_text(json.dumps(TOOLS))
    key = tmp_path / "guard.json"
    uri = f"https://{name}.example.org"
    made = ostiary.json("resource", "create", name, "--uri", uri, "--catalogue", catalogue, "--generate-key", key)
    assert (made["uri"], made["mode"], made["catalogue_version"]) == (uri, "enforce", 1)
    assert json.loads(key.read_text())["client_id"] == made["resource_id"]
    assert len(ostiary.json("resource", "show", name)["catalogue"]["tools"]) == 2
    assert "TOOL\tEFFECT\tKINDS OF ARGUMENTS\tDESCRIPTION" in ostiary("resource", "show", name).out.splitlines()
    catalogue.write_text(json.dumps({"tools": TOOLS["tools"][:1]}))
    assert ostiary.json("resource", "catalogue", name, catalogue)["catalogue_version"] == 2
    assert ostiary.json("resource", "mode", name, "watch")["mode"] == "watch"
    assert ostiary.json("resource", "mode", name, "enforce")["mode"] == "enforce"  # else everybody may call its tools
    assert ostiary.json("resource", "key", name, "--generate-key", tmp_path / "2.json")["kid"] != made["kid"]
    assert name in {one["name"] for one in ostiary.json("resource", "list")}


def test_a_task_is_started_renewed_listed_and_ended(ostiary: Commands, name: str, tmp_path: Path) -> None:
    uri = f"https://{name}.example.org"
    ostiary.json("resource", "create", name, "--uri", uri)
    bounds = tmp_path / "bounds.json"
    bounds.write_text(json.dumps([{"type": "tool", "locations": [uri], "actions": ["read_file"]}]))
    key = tmp_path / "key.json"
    register(ostiary, name, "--scope", f"{name}:read {name}:write", "--generate-key", key)
    asked = ("--agent", name, "--purpose", "a test", "--bounds", bounds, "--scope", f"{name}:read", "--ttl", 60)
    task = ostiary.json("task", "start", *asked)
    assert (task["agent"], task["state"], task["scopes"]) == (name, "live", [f"{name}:read"])
    assert task["expires_at"] - task["created_at"] == 60
    assert ostiary.json("task", "renew", task["task_id"], "--ttl", 600)["expires_at"] > task["expires_at"]
    token = ostiary.json("token", "--agent", name, "--key", key, "--resource", uri, "--task", task["task_id"])
    assert token["scope"] == f"{name}:read"
    assert [one["task_id"] for one in ostiary.json("task", "list", "--agent", name)] == [task["task_id"]]
    assert ostiary.json("task", "end", task["task_id"])["state"] == "done"
    assert ostiary.json("task", "show", task["task_id"])["ended_at"] is not None


def test_a_task_stores_the_words_and_endorsements_of_the_person(ostiary: Commands, name: str, tmp_path: Path) -> None:
    catalogue = tmp_path / "tools.json"
    catalogue.write_text(json.dumps({"resource": name, "tools": [{"name": "read_file", "effect": "read"}]}))
    ostiary.json("resource", "create", name, "--uri", f"https://{name}.example.org", "--catalogue", catalogue)
    register(ostiary, name, "--scope", f"{name}:read", "--generate-key", tmp_path / "key.json")
    asked = ("--agent", name, "--purpose", "a test", "--words", "Pay bill.txt as it says", "--own", "mail=a@b.example")
    endorsed = ("--endorse", f"{name}/read_file:bill.txt:account,amount", "--endorse", f"{name}/read_file:a:b")
    intent = ostiary.json("task", "start", *asked, *endorsed)["intent"]
    assert (intent["words"], intent["own"]) == ("Pay bill.txt as it says", {"mail": "a@b.example"})
    assert [(one["value"], one["kinds"]) for one in intent["endorsed"]] == [
        ("bill.txt", ["account", "amount"]),
        ("a:b", ["principal", "account", "address", "object", "amount", "time"]),
    ]
    assert intent["said_by"] == "administrator"
    for wrong in (("--own", "mail"), ("--endorse", "read_file"), ("--own", "a=1", "--own", "a=2")):
        assert ostiary("task", "start", *asked, *wrong).code == 2
    assert ostiary("task", "start", *asked[:4], "--own", "a=1").code == 2
    assert ostiary.json("agent", "show", name)["speaks"] is False
    assert ostiary.json("agent", "allow-words", name)["speaks"] is True
    words = {line["name"]: line for line in json.loads(ostiary("doctor", "--json").out)}["words"]
    assert (words["state"], f"`{name}`" in words["saw"]) == ("weak", True)
    assert ostiary.json("agent", "forbid-words", name)["speaks"] is False


def test_a_task_is_drafted_from_a_catalogue_that_was_read_from_a_server(
    ostiary: Commands, name: str, tmp_path: Path
) -> None:
    argument = {"type": "string"}
    tools = [
        {"name": "read_file", "inputSchema": {"properties": {"path": argument}}},
        {"name": "pay_invoice", "inputSchema": {"properties": {"iban": argument, "amount": argument}}},
        {"name": "delete_file", "inputSchema": {"properties": {"path": argument}}},
    ]
    listed, catalogue, drafted = tmp_path / "listed.json", tmp_path / "catalogue.json", tmp_path / "draft.json"
    listed.write_text(json.dumps({"jsonrpc": "2.0", "id": 1, "result": {"tools": tools}}))
    uri = f"https://{name}.example.org"
    ostiary.json("resource", "create", name, "--uri", uri)
    shown = ostiary.json("resource", "read", listed, "--name", name, "--write", catalogue)
    assert {line["tool"]: line["value"] for line in shown["lines"] if line["member"] == "effect"} == {
        "read_file": "read",
        "pay_invoice": "pay",
        "delete_file": "destroy",
    }
    assert ostiary.json("resource", "show", name)["catalogue"] is None, "nothing is in force yet"
    assert ostiary("resource", "read", listed, "--name", name, "--write", catalogue).code == 2, "nothing is overwritten"
    ostiary.json("resource", "catalogue", name, catalogue)
    register(ostiary, name, "--scope", f"{name}:read {name}:write", "--generate-key", tmp_path / "key.json")
    asked = ("Pay the bill in bill.txt, up to 50 euros", "--agent", name, "--own", "mail=a@b.example")
    made = ostiary.json("task", "draft", *asked, "--write", drafted)
    assert made == json.loads(drafted.read_text())
    assert ostiary.json("task", "draft", *asked, "--catalogue", catalogue) == made
    without = (*asked[:1], *asked[3:])
    assert ostiary.json("task", "draft", *without, "--catalogue", catalogue) == made, "the agent has every scope of it"
    assert ostiary("task", "draft", *without).code == 2
    (tmp_path / "empty.json").write_text(json.dumps({"resource": name, "tools": []}))
    refused = ostiary("task", "draft", *without, "--catalogue", tmp_path / "empty.json")
    assert (refused.code, f"the catalogue of {name} has no tools" in refused.err) == (2, True)
    verdicts = {line["what"]: line["verdict"] for line in made["lines"]}
    assert verdicts[f"{name}/pay_invoice"] == "planned"
    assert verdicts[f"{name}/delete_file"] == "not planned"
    assert ostiary.json("task", "list", "--agent", name) == [], "nothing has started"
    start = ("task", "start", "--agent", name, "--purpose", "a bill", "--draft", drafted)
    task = ostiary.json(*start)
    assert (task.get("bounds", []), made["bounds"], made["budget"]) == ([], [], []), "words deny nothing"
    assert task["intent"]["endorsed"] == made["intent"]["endorsed"]
    assert task["intent"]["plan"] == made["intent"]["plan"] == [{"tool": f"{name}/pay_invoice", "most": "50"}]
    assert ostiary(*start, "--words", "more").code == 2
    assert ostiary("task", "start", "--agent", name, "--purpose", "p", "--draft", listed).code == 2
    assert ostiary("task", "draft", *asked, "--catalogue", listed).code == 2
    twice = ostiary("task", "draft", *asked, "--catalogue", catalogue, "--catalogue", catalogue)
    assert (twice.code, f"another catalogue of `{name}`" in " ".join(twice.err.split())) == (2, True), twice.err
    assert [one["kinds"] for one in made["intent"]["endorsed"]] == [["amount"]]
    assert ostiary.json("task", "draft", *asked, "--ask-payee") == made
    trusting = ostiary.json("task", "draft", *asked, "--no-ask-payee")["intent"]["endorsed"]
    assert "account" in trusting[0]["kinds"]
    other = tmp_path / "other.json"
    other.write_text(json.dumps({"resource": "other", "tools": []}))
    assert ostiary("task", "draft", *asked, "--catalogue", other).code == 2


def test_changes_of_a_tool_list_are_shown_and_accepted(ostiary: Commands, name: str, tmp_path: Path) -> None:
    tool = {"name": "read_file", "description": "Reads.", "inputSchema": {"properties": {"path": {"type": "string"}}}}
    was, now, catalogue = tmp_path / "was.json", tmp_path / "now.json", tmp_path / "catalogue.json"
    was.write_text(json.dumps({"tools": [tool]}))
    now.write_text(json.dumps({"tools": [tool | {"description": "Deletes \x1b[2J."}, {"name": "other"}]}))
    ostiary.json("resource", "create", name, "--uri", f"https://{name}.example.org")
    assert ostiary("resource", "diff", name, was).code == 2, "nothing was approved yet"
    ostiary.json("resource", "read", was, "--name", name, "--write", catalogue)
    first = ostiary.json("resource", "catalogue", name, catalogue)["catalogue_hash"]
    assert ostiary.json("resource", "diff", name, was) == []
    changes = ostiary.json("resource", "diff", name, now)
    assert [(change["tool"], change["verdict"], change["what"]) for change in changes] == [
        ("other", "new", "effect"),
        ("read_file", "changed", "description"),
        ("read_file", "changed", "effect"),
    ]
    assert "\x1b" not in ostiary("resource", "diff", name, now).out
    assert ostiary("resource", "accept", name, now, "--tool", "nothing").code != 0
    ostiary.json("resource", "accept", name, now, "--tool", "read_file")
    assert [change["tool"] for change in ostiary.json("resource", "diff", name, now)] == ["other"]
    [taken] = ostiary.json("resource", "show", name)["catalogue"]["tools"]
    assert (taken["effect"], taken["description"]) == ("destroy", "Deletes \ufffd[2J.")
    second = ostiary.json("resource", "accept", name, now)["catalogue_hash"]
    assert second != first
    assert ostiary.json("resource", "diff", name, now) == []


def test_the_tree_of_tasks_is_printed(ostiary: Commands, name: str, tmp_path: Path) -> None:
    for agent in ("top", "mid", "low"):
        register(ostiary, f"{name}-{agent}", "--generate-key", tmp_path / f"{agent}.json")
    made: list[str] = []

    def start(agent: str, purpose: str, *, under: int | None = None) -> None:
        parent = () if under is None else ("--parent", made[under])
        task = ostiary.json("task", "start", "--agent", f"{name}-{agent}", "--purpose", purpose, *parent)
        made.append(task["task_id"])

    start("top", "the whole")
    start("mid", "[red]a part[/]", under=0)
    start("low", "a part of it", under=1)
    start("mid", "another", under=0)
    ostiary.json("task", "end", made[1])
    lines = ostiary("task", "tree", made[0]).out.splitlines()
    drawn = [re.sub(r" \d{4}-\S+ \S+Z", " T", line) for line in lines]
    assert drawn == [
        f"{made[0]}  {name}-top  (live, until T)  the whole",
        f"├── {made[1]}  {name}-mid  (done, ended T)  [red]a part[/]",
        f"│   └── {made[2]}  {name}-low  (cancelled, ended T)  a part of it",
        f"└── {made[3]}  {name}-mid  (live, until T)  another",
    ]
    assert [task["task_id"] for task in ostiary.json("task", "tree", made[0])["tasks"]] == [
        made[0],
        made[1],
        made[3],
        made[2],
    ]


def test_a_revocation_reports_the_number_of_ended_objects(ostiary: Commands, name: str, tmp_path: Path) -> None:
    register(ostiary, name, "--generate-key", tmp_path / "key.json")
    ostiary.json("token", "--agent", name, "--key", tmp_path / "key.json", *ELSEWHERE)
    task = ostiary.json("task", "start", "--agent", name, "--purpose", "a test")["task_id"]
    assert ostiary.json("revoke", "task", task)["revoked"] == {"task": 1}
    kid = ostiary.json("key", "list", name)[0]["kid"]
    assert ostiary.json("revoke", "key", kid)["revoked"] == {"token": 1}
    assert ostiary.json("revoke", "agent", name)["committed_at"] > 0
    [entry] = ostiary.json("audit", "search", "--action", "token.issue", "--agent", name)
    assert ostiary.json("revoke", "token", entry["token"])["revoked"] == {}
    assert "no guard is connected" in ostiary("revoke", "agent", name).out
    assert ostiary.json("feed", "list") == []


def test_commands_that_stop_an_agent_report_its_state_and_the_undo_command(ostiary: Commands, name: str) -> None:
    register(ostiary, name)
    undo = {"suspended": f"ostiary agent resume {name}", "quarantined": f"ostiary agent release {name}"}
    assert ostiary.json("agent", "suspend", name)["undo"] == undo["suspended"]
    assert ostiary.json("agent", "show", name)["undo"] == undo["suspended"]
    said = ostiary("revoke", "agent", name)
    assert f"agent {name} is suspended" in said.out
    assert said.out.splitlines()[-1] == f"undo: {undo['suspended']}"
    revoked = ostiary.json("revoke", "agent", name)
    assert (revoked["state"], revoked["undo"]) == ("suspended", undo["suspended"])
    assert ostiary.json("agent", "quarantine", name)["undo"] == undo["quarantined"]
    assert ostiary.json("revoke", "agent", name)["undo"] == undo["quarantined"]
    assert ostiary.json("agent", "decommission", name)["undo"] == ""
    said = ostiary("revoke", "agent", name)
    assert f"agent {name} is decommissioned" in said.out
    assert "cannot be resumed" in said.out.splitlines()[-1]


def test_undo_commands_restore_the_state(ostiary: Commands, name: str, tmp_path: Path) -> None:
    register(ostiary, name, "--generate-key", tmp_path / "key.json")
    undo = ostiary.json("revoke", "agent", name)["undo"]
    assert ostiary.json(*undo.split()[1:])["state"] == "active"
    assert ostiary.json("agent", "show", name)["undo"] == ""
    ostiary.json("person", "create", f"{name}-owner", "--email", "o@example.org")
    left = ostiary.json("revoke", "owner", f"{name}-owner")
    assert left["state"] == "left"
    assert ostiary.json(*left["undo"].split()[1:])["state"] == "active"
    said = ostiary("revoke", "owner", f"{name}-owner").out.splitlines()
    assert said[-2:] == [
        f"undo: ostiary person return {name}-owner",
        "agents that were suspended with their owner: ostiary agent resume NAME",
    ]
    killed = ostiary.json("kill", "segment", f"{name}-segment", "--reason", "a test")
    assert [one["name"] for one in ostiary.json("kill", "list")] == [f"{name}-segment"]
    assert ostiary(*killed["undo"].split()[1:]).code == 0
    assert ostiary.json("kill", "list") == []
    spaced = ostiary.json("kill", "model", "a b", "--reason", "a test")["undo"]
    assert ostiary(*shlex.split(spaced)[1:]).code == 0
    stopped = ostiary.json("kill", "agent", name, "--reason", "a test")
    awaits = f"ostiary incident release {stopped['incident']} --as PERSON.json --reason WHY"
    assert stopped["undo"] == ostiary.json("agent", "show", name)["undo"] == awaits
    judith = tmp_path / "judith.json"
    ostiary.json("person", "create", f"{name}-judith", "--email", "j@example.org", "--generate-key", judith)
    assert ostiary(*awaits.replace("PERSON.json", str(judith)).split()[1:]).code == 0
    assert ostiary.json("agent", "show", name)["state"] == "active"


def test_an_existing_person_without_a_key_is_refused_with_the_add_key_command(
    ostiary: Commands, name: str, tmp_path: Path
) -> None:
    ostiary.json("person", "create", name, "--email", "o@example.org")
    key = tmp_path / "person.json"
    refused = ostiary("person", "create", name, "--generate-key", key)
    advice = f"ostiary person add-key {name} --generate-key FILE"
    assert (refused.code, advice in refused.err, key.exists()) == (1, True, False)
    assert ostiary(*advice.replace("FILE", str(key)).split()[1:]).code == 0


def test_a_truncated_list_states_the_total(ostiary: Commands, name: str, tmp_path: Path) -> None:
    for number in range(3):
        register(ostiary, f"{name}-{number}")
    total = len(ostiary.json("agent", "list"))
    cut = ostiary("agent", "list", "--limit", total - 1)
    assert (cut.code, cut.err.strip()) == (0, f"{total - 1} of {total}; --limit {total} shows all")
    assert ostiary("agent", "list", "--limit", total).err == ""
    as_json = ostiary("--json", "agent", "list", "--limit", 1)
    assert (len(json.loads(as_json.out)), as_json.err.strip()) == (
        1,
        json.dumps({"note": f"1 of {total}; --limit {total} shows all"}),
    )
    entries = len(ostiary.json("audit", "search", "--limit", 100_000))
    of_all = f"2 of {entries}; --limit {entries} shows all"
    assert ostiary("audit", "search", "--limit", 2).err.strip() == of_all
    receipts = ostiary("audit", "search", "--limit", 2, "--receipts", tmp_path / "receipts.json")
    assert (receipts.code, receipts.out.partition(": ")[2].strip()) == (0, "2 of at least 3; --limit shows more")
    none = ostiary("agent", "list", "--limit", 0)
    assert (none.code, "`--limit` must be 1 or more" in none.err) == (2, True)


def test_policy_sets_are_uploaded_tested_listed_shown_and_reverted(ostiary: Commands, tmp_path: Path) -> None:
    [starter] = [one for one in ostiary.json("policy", "list") if one["active"]]
    folder = tmp_path / "set"
    assert "starter.cedar" in ostiary.json("policy", "export", folder)["files"]
    (folder / "more.cedar").write_text('@id("extra")\nforbid (principal, action, resource) when { false };\n')
    tested = ostiary.json("policy", "test", folder)
    assert ostiary.json("policy", "show")["hash"] == starter["hash"]
    assert ostiary.json("policy", "put", folder)["hash"] == tested["hash"]
    assert ostiary.json("policy", "show", tested["hash"])["files"].keys() > {"more.cedar"}
    assert "extra" in ostiary("policy", "show").out
    assert ostiary.json("policy", "activate", starter["hash"][:12])["active"], "as ostiary doctor shows the hash"
    assert ostiary.json("policy", "show", tested["hash"][:12])["hash"] == tested["hash"]
    unknown = ostiary("policy", "show", "zzzzzz")
    assert (unknown.code, "there is no policy set 'zzzzzz'" in unknown.err) == (1, True)
    (folder / "my.safeguards.toml").write_text('[leave_out]\nno-foreign-links = "a test"\n')
    shown = ostiary("policy", "put", folder)
    assert (shown.code, "--yes" in shown.err) == (2, True)
    assert shown.out.splitlines()[:2] == ["+ extra  forbid", "- no-foreign-links  forbid, safeguard"]
    assert ostiary("--json", "policy", "put", folder).code == 2
    assert ostiary.json("policy", "show")["hash"] == starter["hash"]
    put = ostiary("policy", "put", folder, "--yes")
    assert put.out.splitlines()[-1] == f"undo: ostiary policy activate {starter['hash']}"
    back = ostiary("policy", "activate", starter["hash"])
    assert back.out.splitlines()[:2] == ["+ no-foreign-links  forbid, safeguard", "- extra  forbid"]
    without = back.out.splitlines()[-1].removeprefix("undo: ostiary policy activate ")
    assert ostiary("policy", "activate", without).code == 2
    (folder / "my.safeguards.toml").unlink()
    (folder / "more.cedar").write_text("permit (")
    broken = ostiary("policy", "put", folder)
    assert (broken.code, "more.cedar" in broken.err) == (1, True)


def test_decide_exits_with_4_on_a_denial_and_prints_the_reason(ostiary: Commands, name: str, tmp_path: Path) -> None:
    catalogue, question = tmp_path / "catalogue.json", tmp_path / "question.json"
    catalogue.write_text(json.dumps(TOOLS))
    ostiary.json("resource", "create", name, "--uri", f"https://{name}.example.org", "--catalogue", catalogue)
    agent = register(ostiary, name, "--generate-key", tmp_path / "key.json")
    asked = {"subject": {"type": "agent", "id": agent}, "action": {"name": "call"}}
    question.write_text(json.dumps(asked | {"resource": {"type": "tool", "id": f"{name}/write_file"}}))
    denied = ostiary("decide", question, "--json")
    assert denied.code == 4
    said = json.loads(denied.out)
    assert said["decision"] is False
    [reason] = said["context"]["reasons"]
    assert reason["code"] == "outside_task"
    assert reason["message"] in ostiary("decide", question).out
    words = reason["hint"].split()
    assert words[:3] == ["ostiary", "agent", "allow"]
    assert ostiary(*words[1:]).code == 0
    assert ostiary.json("decide", question)["decision"] is True


def test_a_gateway_requests_decisions_with_its_api_key(server: Server, ostiary: Commands) -> None:
    made = ostiary.json("pep", "create", "gateway", "--network", "127.0.0.0/8", "--days", "30")
    far = ostiary.json("pep", "create", "far", "--network", "192.0.2.1")
    question = {"subject": {"type": "user", "id": "u"}, "action": {"name": "r"}, "resource": {"type": "x", "id": "y"}}

    def ask(key: str, path: str = "/access/v1/evaluation") -> int:
        headers = {"authorization": f"Bearer {key}"}
        return httpx2.post(f"{server.url}{path}", json=question, headers=headers).status_code

    assert (ask(made["key"]), ask(far["key"]), ask(made["key"], "/api/v1/decide")) == (200, 401, 401)
    rotated = ostiary.json("pep", "rotate", "gateway", "--overlap", "0")
    assert (ask(made["key"]), ask(rotated["key"])) == (401, 200)
    shown = ostiary.json("pep", "list")
    assert [(one["name"], len(one["keys"])) for one in shown] == [("far", 1), ("gateway", 1)], "the older key ended"
    assert rotated["key"] not in json.dumps(shown)
    assert "gateway" in run("--data-dir", server.folder, "audit", "search", "--action", "decide", "--limit", "5").out
    for name in ("gateway", "far"):
        assert ostiary.json("pep", "revoke", name)["revoked_at"] is not None
    assert ask(rotated["key"]) == 401


def test_a_scope_is_allowed_and_forbidden_by_its_alias(ostiary: Commands) -> None:
    register(ostiary, "receiver", "--scope", "ssf.read", "--scope", "ssf.manage")
    both = ["ostiary:ssf.manage", "ostiary:ssf.read"]
    assert ostiary.json("agent", "show", "receiver")["scopes"] == both
    assert ostiary.json("agent", "disallow", "receiver", "ssf.manage")["scopes"] == ["ostiary:ssf.read"]
    assert ostiary.json("agent", "allow", "receiver", "ssf.manage")["scopes"] == both
