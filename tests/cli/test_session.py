"""Shared parts of commands: the token file, prefixes of ids, a server that is silent, and completion."""

from __future__ import annotations

import errno
import inspect
import json
import os
import socket
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import pytest

from harness.cli import Commands, environment, run
from harness.patience import PATIENCE_S
from harness.server import Server
from ostiary import cli
from ostiary.cli import app, completion, session
from ostiary.cli.completion import complete
from ostiary.cli.ids import LISTS, IdList
from tests.cli.command_tree import LEAVES


def tokens_of(folder: Path) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = json.loads((folder / "admin.json.tokens").read_text())["tokens"]
    return rows


def issued(ostiary: Commands) -> int:
    return len(ostiary.json("audit", "search", "--action", "token.issue", "--resource", "ostiary", "--limit", 10_000))


def register(ostiary: Commands, name: str, *more: object) -> str:
    made = ostiary.json("agent", "create", name, "--owner", "ada", "--purpose", "Tests of the ledger", *more)
    return str(made["agent_id"])


def test_commands_use_one_token_and_the_file_is_closed_to_others(ostiary: Commands) -> None:
    ostiary.json("agent", "list")
    before = issued(ostiary)
    for _ in range(3):
        ostiary.json("agent", "list")
    assert issued(ostiary) == before
    file = ostiary.folder / "admin.json.tokens"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert not [name for name in os.listdir(file.parent) if name.startswith("admin.json.tokens") and name != file.name]


def test_a_token_of_another_key_and_an_expired_token_are_not_used(ostiary: Commands) -> None:
    ostiary.json("agent", "list")
    file = ostiary.folder / "admin.json.tokens"
    [row] = tokens_of(ostiary.folder)
    owner = {name: row[name] for name in ("jkt", "url", "client_id")}
    for changed in ({"jkt": "x"}, {"renew_at": 0}, {"url": "http://elsewhere"}, {"client_id": "ag_other"}):
        file.write_text(json.dumps({"tokens": [row | changed]}))
        ostiary.json("agent", "list")
        rows = tokens_of(ostiary.folder)
        [own] = [one for one in rows if owner.items() <= one.items()]
        assert own["answer"] != row["answer"]
        assert all(one["renew_at"] for one in rows), "expired tokens are removed"
        assert len(rows) == (1 if "renew_at" in changed else 2), "tokens of others are kept"


@pytest.mark.parametrize("damage", ["open", "damaged", "nested", "pipe", "link", "directory"])
def test_a_token_file_that_is_open_damaged_or_a_link_is_ignored(ostiary: Commands, damage: str, tmp_path: Path) -> None:
    ostiary.json("agent", "list")
    file = ostiary.folder / "admin.json.tokens"
    rows = file.read_text()
    file.unlink()
    match damage:
        case "open":
            file.write_text(rows)
            file.chmod(0o644)
        case "damaged":
            file.write_text('{"tokens": [{}]}')
            file.chmod(0o600)
        case "nested":
            file.write_text(rows.replace('"answer":{', '"answer":{"deep":' + "[" * 10_000 + "]" * 10_000 + ","))
            file.chmod(0o600)
        case "pipe":
            os.mkfifo(file, 0o600)
        case "link":
            (tmp_path / "stolen").write_text(rows)
            (tmp_path / "stolen").chmod(0o600)
            file.symlink_to(tmp_path / "stolen")
        case "directory":
            file.mkdir()
    assert ostiary.json("agent", "list")
    if damage == "directory":
        file.rmdir()
    else:
        assert stat.S_IMODE(file.lstat().st_mode) == 0o600
        assert not file.is_symlink()
    if damage == "link":
        assert (tmp_path / "stolen").read_text() == rows


def test_a_failed_write_of_the_token_file_is_not_an_error_and_leaves_no_file(
    ostiary: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    (ostiary.folder / "admin.json.tokens").unlink(missing_ok=True)
    for error in (OSError(errno.ENOSPC, "no space left on device"), KeyboardInterrupt()):
        with monkeypatch.context() as patched:
            patched.setattr("os.replace", Mock(side_effect=error))
            assert ostiary("agent", "list").code == (0 if isinstance(error, OSError) else 130)
        assert not list(ostiary.folder.glob("admin.json.tokens*"))


def test_a_stored_token_is_replaced_after_the_agent_gets_a_scope(ostiary: Commands, name: str, tmp_path: Path) -> None:
    key = tmp_path / "key.json"
    ostiary.json("agent", "create", name, "--owner", "ada", "--purpose", "tests", "--generate-key", key)
    own = {"OSTIARY_URL": json.loads((ostiary.folder / "server.json").read_text())["url"]}
    with environment(**own, OSTIARY_CREDENTIAL=str(key)):
        assert run("agent", "list").code == 1
        assert Path(f"{key}.tokens").exists()
        ostiary.json("agent", "allow", name, "ostiary:read")
        assert run("agent", "list", "--json").json


def test_a_denied_request_is_sent_once_if_a_new_token_would_not_help(
    ostiary: Commands, name: str, tmp_path: Path
) -> None:
    key = tmp_path / "key.json"
    made = ("agent", "create", name, "--owner", "ada", "--purpose", "tests", "--generate-key", key)
    ostiary.json(*made, "--scope", "ostiary:read")
    own = {"OSTIARY_URL": json.loads((ostiary.folder / "server.json").read_text())["url"]}
    with environment(**own, OSTIARY_CREDENTIAL=str(key)):
        assert run("agent", "list").code == 0
        assert "you may not suspend" in run("agent", "suspend", name).err
    entries = ostiary.json("audit", "search", "--action", "agent.suspend", "--agent", name)
    assert [entry["outcome"] for entry in entries] == ["refused"]


def test_a_stored_token_does_not_hide_that_its_agent_is_suspended(ostiary: Commands, name: str, tmp_path: Path) -> None:
    key = tmp_path / "key.json"
    made = ("agent", "create", name, "--owner", "ada", "--purpose", "tests", "--generate-key", key)
    ostiary.json(*made, "--scope", "ostiary:read")
    own = {"OSTIARY_URL": json.loads((ostiary.folder / "server.json").read_text())["url"]}
    with environment(**own, OSTIARY_CREDENTIAL=str(key)):
        assert run("agent", "list").code == 0
        stored = Path(f"{key}.tokens").read_text()
        assert "access_token" in stored
        ostiary.json("agent", "suspend", name)
        for _ in range(2):
            ran = run("agent", "list")
            assert (ran.code, "the agent is suspended" in ran.err) == (1, True), ran.err
            assert json.loads(Path(f"{key}.tokens").read_text()) == {"tokens": []}
        ostiary.json("agent", "resume", name)
        Path(f"{key}.tokens").write_text(stored)
        assert run("agent", "list").code == 0, "a revoked token is replaced"
        assert json.loads(Path(f"{key}.tokens").read_text()) != json.loads(stored)
    refused = ostiary.json("audit", "search", "--agent", name, "--action", "token.issue", "--outcome", "refused")
    assert 1 <= len(refused) <= 3


def test_a_prefix_of_an_id_is_accepted_in_place_of_the_id(ostiary: Commands, name: str, tmp_path: Path) -> None:
    id = register(ostiary, name, "--generate-key", tmp_path / "key.json")
    shown = ostiary.json("agent", "show", id)
    assert ostiary.json("agent", "show", id[:20]) == shown
    task = ostiary.json("task", "start", "--agent", id[:20], "--purpose", "p")["task_id"]
    assert ostiary.json("task", "show", task[:20])["task_id"] == task
    assert ostiary.json("audit", "search", "--task", task[:20])[0]["object"] == task
    assert ostiary.json("audit", "search", "--agent", id[:20]) == ostiary.json("audit", "search", "--agent", id)
    assert ostiary.json("revoke", "task", task[:20])["guards"] == []
    owner = ostiary.json("person", "show", "ada")["person_id"]
    assert ostiary.json("person", "show", owner[:20])["name"] == "ada"
    assert ostiary.json("agent", "suspend", id[:20])["state"] == "suspended"


def test_a_prefix_is_accepted_for_each_id_that_a_table_shortens(ostiary: Commands, name: str, tmp_path: Path) -> None:
    id = register(ostiary, name, "--generate-key", tmp_path / "key.json")
    ostiary.json("agent", "allow-bearer", name, "--resource", "ostiary")
    secret = ostiary.json("agent", "create-secret", name)["secret_id"]
    shown = ostiary("agent", "show", name).out
    assert f"secrets\t{secret} until 2" in shown
    assert "bearer\tostiary since 2" in shown
    assert ostiary("agent", "revoke-secret", id[:20], secret[:20]).code == 0
    assert ostiary.json("agent", "show", name)["secrets"] == []
    kid = ostiary.json("acme", "key", "create", "--agent", name)["kid"]
    assert ostiary.json("acme", "key", "revoke", kid[:20])["kid"] == kid
    ostiary("ca", "init")
    root = next(one["authority_id"] for one in ostiary.json("ca", "show") if one["kind"] == "root")
    assert "no id begins" not in ostiary("ca", "revoke", root[:20]).err, "a root is refused for another reason"
    for words in ("client show cl_0000", "connected-account revoke ca_0000", "person end-sessions ada se_0000"):
        ran = ostiary(*words.split())
        assert (ran.code, f"no id begins with `{words[-7:]}`" in ran.err) == (2, True), ran.err


def test_an_ambiguous_prefix_is_refused_with_the_candidates(ostiary: Commands, name: str) -> None:
    first, second = register(ostiary, f"{name}-1"), register(ostiary, f"{name}-2")
    common = first[: next(n for n, (a, b) in enumerate(zip(first, second, strict=True)) if a != b)]
    assert len(common) >= 8, "made within the same minute"
    ran = ostiary("agent", "suspend", common)
    assert ran.code == 2
    assert f"{first} {name}-1" in ran.err
    assert f"{second} {name}-2" in ran.err
    assert ostiary.json("agent", "show", first)["state"] == "pending"
    none = ostiary("agent", "show", "ag_ffffffff")
    assert (none.code, "no id begins with `ag_ffffffff`" in none.err) == (2, True)


def test_an_unauthorized_prefix_lookup_does_not_disclose_ids_or_names(
    ostiary: Commands, name: str, tmp_path: Path
) -> None:
    key = tmp_path / "key.json"
    ostiary.json("agent", "create", name, "--owner", "ada", "--purpose", "tests", "--generate-key", key)
    other = register(ostiary, f"{name}-2")
    own = {"OSTIARY_URL": json.loads((ostiary.folder / "server.json").read_text())["url"]}
    with environment(**own, OSTIARY_CREDENTIAL=str(key)):
        ran = run("agent", "show", other[:20])
    assert ran.code == 1
    assert f"{name}-2" not in ran.err
    assert other not in ran.err


@pytest.mark.parametrize("kind", ["fi", "in", "is", "st", "wh"])
def test_a_name_with_the_prefix_of_another_id_kind_is_treated_as_a_name(ostiary: Commands, kind: str) -> None:
    """The registry refuses names that begin like the id of a named kind, such as `ag_2024`, but accepts `in_2024`."""
    name = f"{kind}_2024"
    id = register(ostiary, name, "--segment", name)
    assert ostiary.json("agent", "show", name)["agent_id"] == id
    assert ostiary.json("kill", "segment", name, "--reason", "test")["guards"] == []
    assert ostiary.json("kill", "lift", "segment", name, "--reason", "test")
    assert ostiary.json("agent", "suspend", name)["agent_id"] == id
    words = {"fi": "watch explain", "in": "incident show", "is": "signal distrust", "wh": "webhook remove"}
    if kind in words:
        ran = ostiary(*words[kind].split(), f"{kind}_ffff")
        assert f"no id begins with `{kind}_ffff`" in ran.err


def test_a_purpose_that_looks_like_an_id_prefix_is_kept(ostiary: Commands, name: str, tmp_path: Path) -> None:
    register(ostiary, name, "--generate-key", tmp_path / "key.json")
    task = ostiary.json("task", "start", "--agent", name, "--purpose", "ag_0000")
    assert task["purpose"] == "ag_0000"


@pytest.fixture
def silent() -> Iterator[str]:
    """A server that accepts connections, and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        held: list[socket.socket] = []

        def accept() -> None:
            while True:
                try:
                    held.append(listener.accept()[0])
                except OSError:
                    return

        thread = threading.Thread(target=accept)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        for one in held:
            one.close()
        thread.join(PATIENCE_S)


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_a_server_that_hangs_is_reported_while_the_command_waits(
    silent: str, server: Server, monkeypatch: pytest.MonkeyPatch, form: tuple[str, ...]
) -> None:
    monkeypatch.setattr(session, "SILENCE_S", 0.05)
    monkeypatch.setattr("ostiary.agent.blocking.TIMEOUT_S", 2.0)
    limits = dict.fromkeys(("connect", "read", "write", "pool"), 2.0)
    monkeypatch.setattr("ostiary.client.drive.TIMEOUT", {"timeout": limits})
    with environment(OSTIARY_URL=silent, OSTIARY_CREDENTIAL=str(server.folder / "admin.json")):
        ran = run("agent", "list", *form)
    assert ran.code == 3
    message = f"the server at {silent} has not answered for"
    assert ran.err.count(message) == 1
    if form:
        assert message in json.loads(ran.err.splitlines()[0])["warning"]


@pytest.mark.parametrize(
    ("words", "candidates"),
    [
        (["ag"], ["agent"]),
        (["agent", "sus"], ["suspend"]),
        (["agent", "create", "x", "--ki"], ["--kind"]),
        (["agent", "create", "x", "--kind", "a"], ["assistant", "autonomous"]),
        (["agent", "list", "--state", "q"], ["quarantined"]),
        (["kill", "e"], ["everything"]),
        (["completion", ""], ["bash", "fish", "zsh"]),
        (["--json", "agent", "jo"], ["join-token"]),
        (["policy", "put", ""], []),
        (["agent", "create", "x", "--purpose", "--k"], []),
    ],
)
def test_words_options_and_choices_are_completed(words: list[str], candidates: list[str]) -> None:
    with environment(OSTIARY_URL=None, OSTIARY_DATA_DIR=None):
        assert complete(app, words) == candidates


def test_completion_of_names_uses_the_server_and_is_empty_without_an_answer(
    ostiary: Commands, name: str, silent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(ostiary, name)
    place = ["--data-dir", str(ostiary.folder)]
    assert complete(app, [*place, "agent", "suspend", name, ""]) == [], "the command has one argument"
    assert complete(app, [*place, "agent", "suspend", name[:12]]) == [name]
    assert complete(app, [*place, "audit", "search", "--agent", name[:12]]) == [name]
    for words in (("kill", "agent"), ("kill", "lift", "agent"), ("revoke", "agent"), ("enforce",)):
        assert complete(app, [*place, *words, name[:12]]) == [name]
    for words in (("kill", "owner"), ("revoke", "owner"), ("agent", "list", "--owner"), ("role", "grant")):
        assert "ada" in complete(app, [*place, *words, "a"])
    assert "ada" in complete(app, [*place, "agent", "create", "x", "--deputy", "a"])
    monkeypatch.setattr(completion, "MAX_NAMES", 1)
    assert complete(app, [*place, "agent", "show", name]) == [name], "the newest of many agents"
    monkeypatch.setattr(completion, "WAIT_S", 0.2)
    with environment(OSTIARY_URL=silent, OSTIARY_CREDENTIAL=str(ostiary.folder / "admin.json")):
        assert complete(app, ["agent", "suspend", ""]) == []


def test_each_argument_that_names_an_object_has_a_list_for_completion() -> None:
    named, parameters = set(), set()
    for words, command in LEAVES.items():
        assert callable(command.default_command)
        for name, parameter in inspect.signature(command.default_command).parameters.items():
            parameters.add(name)
            if name in ("name", "id") and parameter.kind is parameter.POSITIONAL_ONLY:
                named.add(words[0])
    by_word = {"kill", "revoke"}  # the argument before it says which
    assert named == completion._GROUPS.keys() | by_word | {"client"}, "an id of a client may be a URL"
    assert {name for listed in LISTS.values() for name in listed.parameters} <= parameters
    groups = [*completion._GROUPS.values()]
    assert [kind for kind, listed in LISTS.items() if not listed.parameters and listed not in groups] == []


@pytest.mark.parametrize(
    ("parameter", "path", "last", "listed"),
    [
        ("name", ("agent", "show"), "", LISTS["ag"]),
        ("name", ("agent", "create"), "", None),
        ("name", ("agent", "workload", "add"), "", LISTS["ag"]),
        ("name", ("team", "add"), "", LISTS["te"]),
        ("name", ("threats", "add"), "", None),
        ("id", ("task", "show"), "", LISTS["tk"]),
        ("id", ("person", "end-sessions"), "ada", None),
        ("name", ("kill",), "agent", LISTS["ag"]),
        ("name", ("kill",), "model", None),
        ("member", ("team", "create"), "", LISTS["pe"]),
        ("member", ("secret", "rotate"), "", None),
        ("purpose", ("task", "start"), "", None),
    ],
)
def test_an_argument_is_completed_from_the_list_of_its_objects(
    parameter: str, path: tuple[str, ...], last: str, listed: IdList | None
) -> None:
    assert completion._list_of(parameter, path, last) == listed


def test_names_of_threat_lists_are_completed(ostiary: Commands, name: str, tmp_path: Path) -> None:
    (tmp_path / "list").write_text("bad.example\n")
    ostiary.json("threats", "add", name, "--file", tmp_path / "list", "--form", "plain")
    place = ["--data-dir", str(ostiary.folder)]
    assert complete(app, [*place, "threats", "remove", name[:6]]) == [name]
    assert complete(app, [*place, "login-provider", "show", "x"]) == []


def test_global_options_are_completed_and_accepted_after_other_words() -> None:
    parameters = inspect.signature(cli._launch).parameters.values()
    options = {f"--{one.name.replace('_', '-')}" for one in parameters if one.kind is one.KEYWORD_ONLY}
    assert options | {"--help"} == set(completion._EVERYWHERE)
    for option in options:
        words = [option, "folder"] if option == "--data-dir" else [option]
        assert cli._everywhere_first(["agent", "list", *words]) == [*words, "agent", "list"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_has_a_script(shell: str) -> None:
    out = run("completion", shell).out
    assert "ostiary complete" in out
    assert out.endswith("\n")


def test_bash_completes_with_the_script(tmp_path: Path) -> None:
    import subprocess
    import sys

    script = tmp_path / "script"
    script.write_text(
        run("completion", "bash").out + "COMP_WORDS=(ostiary agent sus); COMP_CWORD=2; _ostiary; echo ${COMPREPLY[@]}\n"
    )
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(["bash", script], capture_output=True, text=True, check=True, env={"PATH": path})
    assert done.stdout.strip() == "suspend"


def test_bash_does_not_expand_completion_candidates(tmp_path: Path) -> None:
    import subprocess

    candidates = ["a$(touch pwned)", "a`touch pwned`", "a b", "a*"]
    fake = tmp_path / "ostiary"
    fake.write_text("#!/bin/sh\n" + "".join(f"printf '%s\\n' '{one}'\n" for one in candidates))
    fake.chmod(0o755)
    script = tmp_path / "script"
    call = "COMP_WORDS=(ostiary agent show a); COMP_CWORD=3; _ostiary; printf '%s\\n' \"${COMPREPLY[@]}\"\n"
    script.write_text(run("completion", "bash").out + call)
    path = f"{tmp_path}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", script], capture_output=True, text=True, check=True, env={"PATH": path}, cwd=tmp_path
    )
    assert done.stdout.splitlines() == candidates
    assert not (tmp_path / "pwned").exists()
    fake.write_text("#!/bin/sh\necho\n")
    script.write_text(script.read_text() + "echo ${#COMPREPLY[@]}\n")
    done = subprocess.run(
        ["bash", script], capture_output=True, text=True, check=True, env={"PATH": path}, cwd=tmp_path
    )
    assert done.stdout.splitlines()[-1] == "0", "without candidates bash completes file names"


def test_a_name_that_a_shell_would_interpret_is_not_a_completion_candidate(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    names = ["good", "$(reboot)", "`id`", "a;b", "a b", "a\nb", "\x1b[2J", "\u202ea", "--help", "~", "*"]
    answer = {"agents": [{"name": name} for name in names]}
    monkeypatch.setattr(session.Session, "api", lambda *_, **__: answer)
    with environment(OSTIARY_URL=None, OSTIARY_DATA_DIR=str(tmp_path)):
        assert complete(app, ["agent", "show", ""]) == ["good"]
