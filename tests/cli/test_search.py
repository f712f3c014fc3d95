"""`ostiary search` and a set that only watches, from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.cli import Commands, run
from harness.server import Server
from ostiary.cli.session import PAGE


@pytest.fixture(scope="module")
def who(server: Server, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An agent that may read at a resource with tools."""
    ostiary, folder = Commands(server.folder), tmp_path_factory.mktemp("search")
    catalogue = folder / "tools.json"
    tools = [
        {"name": name, "inputSchema": {"type": "object"}, "annotations": {"readOnlyHint": name != "write"}}
        for name in ("read", "list", "write")
    ]
    catalogue.write_text(json.dumps({"tools": tools}))
    ostiary.json("resource", "create", "shelf", "--uri", "https://shelf.example/mcp")
    ostiary.json("resource", "catalogue", "shelf", catalogue)
    made = ostiary.json(
        "agent",
        "create",
        "seeker",
        "--owner",
        "ada",
        "--purpose",
        "tests",
        "--scope",
        "shelf:read",
        "--generate-key",
        folder / "seeker.json",
    )
    return str(made["agent_id"])


def test_subjects_resources_and_actions_are_searched(ostiary: Commands, who: str) -> None:
    found = ostiary.json("search", "subject", "agent", "call", "tool:shelf/read")
    assert {"type": "agent", "id": who} in found["results"]
    found = ostiary.json("search", "resource", "agent:seeker", "call", "tool")
    assert [one["id"] for one in found["results"]] == ["shelf/list", "shelf/read"]
    assert found["more"] is False
    found = ostiary.json("search", "action", "agent:seeker", "tool:shelf/read")
    assert found["results"] == [{"name": "call"}]


def test_a_search_is_limited_and_reports_whether_more_results_exist(ostiary: Commands, who: str) -> None:
    found = ostiary.json("search", "resource", "agent:seeker", "call", "tool", "--limit", "1")
    assert ([one["id"] for one in found["results"]], found["more"]) == (["shelf/list"], True)
    found = ostiary.json("search", "resource", "agent:seeker", "call", "tool", "--limit", PAGE + 1)
    assert len(found["results"]) == 2


def test_a_search_without_json_prints_results_or_that_there_are_no_matches(server: Server, who: str) -> None:
    here = ("--data-dir", server.folder, "search")
    assert run(*here, "resource", "agent:seeker", "call", "tool").out.split() == ["tool:shelf/list", "tool:shelf/read"]
    assert run(*here, "action", "agent:seeker", "tool:shelf/read").out.split() == ["call"]
    assert (
        "the first 1 results; --limit shows more"
        in run(*here, "resource", "agent:seeker", "call", "tool", "--limit", 1).err
    )
    assert "no matches (" in run(*here, "resource", "agent:seeker", "delegate", "tool").out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("subject", "unicorn", "call", "tool:shelf/read"), "know no type 'unicorn'"),
        (("subject", "agent", "cal", "tool:shelf/read"), "did you mean `call`?"),
        (("subject", "agent", "call", "tool:shelf/reed"), "did you mean `read`?"),
        (("subject", "agent", "call", "tool:shelv/read"), "did you mean `shelf`?"),
        (("resource", "agent:seekr", "call", "tool"), "did you mean `seeker`?"),
        (("action", "agent:seekr", "tool:shelf/read"), "did you mean `seeker`?"),
    ],
)
def test_an_unknown_name_is_an_error_with_the_nearest_name(
    server: Server, who: str, words: tuple[str, ...], said: str
) -> None:
    ran = run("--data-dir", server.folder, "search", *words)
    assert ran.code != 0
    assert said in ran.err


def test_a_result_depends_on_arguments_that_are_not_given(ostiary: Commands, server: Server, tmp_path: Path) -> None:
    catalogue, details = tmp_path / "tools.json", tmp_path / "bounds.json"
    schema = {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]}
    catalogue.write_text(
        json.dumps({"tools": [{"name": "open", "inputSchema": schema, "annotations": {"readOnlyHint": True}}]})
    )
    uri = "https://cabinet.example/mcp"
    ostiary.json("resource", "create", "cabinet", "--uri", uri)
    ostiary.json("resource", "catalogue", "cabinet", catalogue)
    made = ostiary.json(
        "agent",
        "create",
        "opener",
        "--owner",
        "ada",
        "--purpose",
        "tests",
        "--scope",
        "cabinet:read",
        "--generate-key",
        tmp_path / "opener.json",
    )
    opener = made["agent_id"]
    found = ostiary.json("search", "subject", "agent", "call", "tool:cabinet/open")
    assert found["results"] == [{"type": "agent", "id": opener}]
    bound = {"type": "tool", "locations": [uri], "arguments": {"path": {"prefix": "/srv/"}}}
    details.write_text(json.dumps([bound]))
    task = ostiary.json("task", "start", "--agent", "opener", "--purpose", "Read the cabinet", "--bounds", details)[
        "task_id"
    ]
    context = tmp_path / "context.json"
    context.write_text(json.dumps({"task": task}))
    asked = ("search", "subject", "agent", "call", "tool:cabinet/open", "--context", context)
    assert ostiary.json(*asked)["results"] == [
        {"type": "agent", "id": opener, "context": {"depends_on": ["arguments.path"]}}
    ]
    assert f"agent:{opener} (may, depending on `path`)" in run("--data-dir", server.folder, *asked).out
    for path, results in (("/srv/a", [{"type": "agent", "id": opener}]), ("/etc/a", [])):
        context.write_text(json.dumps({"task": task, "arguments": {"path": path}}))
        assert ostiary.json(*asked)["results"] == results


@pytest.mark.parametrize("words", [("agent", "tool:shelf/read"), ("agent:", "tool:x/y"), (":seeker", "tool:x/y")])
def test_an_entity_that_is_not_type_and_id_is_refused(server: Server, words: tuple[str, str]) -> None:
    ran = run("--data-dir", server.folder, "search", "action", *words)
    assert ran.code == 2
    assert "is not TYPE:ID" in ran.err


def test_the_context_is_read_from_a_file(ostiary: Commands, who: str, tmp_path: Path) -> None:
    context = tmp_path / "context.json"
    context.write_text('{"task": "tk_nobodys"}')
    found = ostiary.json("search", "resource", "agent:seeker", "call", "tool", "--context", context)
    assert found["results"] == []


def test_a_policy_set_in_watch_mode_records_its_verdict_without_effect(
    ostiary: Commands, who: str, tmp_path: Path
) -> None:
    (tmp_path / "a.cedar").write_text('@id("never") forbid (principal, action, resource);')
    active = next(one["hash"] for one in ostiary.json("policy", "list") if one["active"])
    made = ostiary.json("policy", "put", tmp_path, "--watch")
    assert made["active"] is False
    rows = {one["hash"]: one for one in ostiary.json("policy", "list")}
    assert (rows[made["hash"]]["watching"], rows[active]["active"], rows[active]["watching"]) == (True, True, False)
    question = tmp_path / "question.json"
    question.write_text(
        json.dumps(
            {
                "subject": {"type": "agent", "id": "seeker"},
                "action": {"name": "call"},
                "resource": {"type": "tool", "id": "shelf/read"},
            }
        )
    )
    assert ostiary.json("decide", question)["decision"] is True
    [entry] = [one for one in ostiary.json("audit", "search", "--agent", who) if one["action"] == "decide"][:1]
    assert entry["detail"]["candidate"] == {
        "policy": made["hash"],
        "verdict": "deny",
        "policies": ["never"],
        "because": "forbidden_by_policy",
    }
    assert ostiary.json("policy", "unwatch") == {"hash": made["hash"]}


def test_a_search_beyond_one_page_returns_all_results(ostiary: Commands, who: str, tmp_path: Path) -> None:
    catalogue, each = tmp_path / "tools.json", PAGE // 2 + 5
    tools = [{"name": f"t{n:04}", "inputSchema": {"type": "object"}} for n in range(each)]
    catalogue.write_text(json.dumps({"tools": tools}))
    for resource in ("long", "longer"):
        ostiary.json("resource", "create", resource, "--uri", f"https://{resource}.example/mcp")
        ostiary.json("resource", "catalogue", resource, catalogue)
    ostiary.json("agent", "allow", "seeker", "long:write", "longer:write")
    found = ostiary.json("search", "resource", "agent:seeker", "call", "tool", "--limit", PAGE + 3)
    assert (len(found["results"]), found["more"]) == (PAGE + 3, True)
    assert len({one["id"] for one in found["results"]}) == PAGE + 3
    found = ostiary.json("search", "resource", "agent:seeker", "call", "tool", "--limit", 10 * PAGE)
    assert (len(found["results"]), found["more"]) == (2 * each + 2, False)
