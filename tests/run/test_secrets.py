"""`ostiary run --secret`: values that a command gets, and that nothing else shows."""

from __future__ import annotations

import json
import os
import sys
from hashlib import sha256
from typing import Any

import pytest

from ostiary.agent import Secret
from ostiary.cli.usage import Usage
from ostiary.run.secrets import CommandSecrets, SecretVariable, parse_variables, read_secrets
from tests.run.stdio_agent import StdioAgent

VALUE = "run-c4n4ry " + "é" * 20_000
PROGRAM = """import hashlib, json, os
read = [open(os.environ["FILE"], encoding="utf-8").read() for _ in range(2)]
print(json.dumps([hashlib.sha256(text.encode()).hexdigest() for text in (os.environ["KEY"], *read)]))"""


def test_a_command_gets_its_secrets_and_no_file_or_message_shows_them(stdio_agent: StdioAgent) -> None:
    folder = f"secret/agents/{stdio_agent.name}"
    value = stdio_agent.folder / "value.json"
    value.write_text(json.dumps({"key": VALUE, "user": "bot"}), "utf-8")
    stdio_agent.ostiary("secret", "put", f"{folder}/shop", "--source", str(value))
    value.unlink()
    options = ("--secret", f"KEY={folder}/shop#key", "--secret-fd", f"FILE={folder}/shop#key")
    ran = stdio_agent.run((), *options, command=["sh", "-c", f"{sys.executable} -c '{PROGRAM}' > out", "{mcp_config}"])
    assert ran.code == 0, ran.err
    assert json.loads((stdio_agent.folder / "out").read_text()) == [sha256(VALUE.encode()).hexdigest()] * 3
    assert f"KEY is {folder}/shop, not hidden from the agent" in ran.err
    written = [one for one in stdio_agent.server.folder.rglob("*") if one.is_file() and not one.is_symlink()]
    assert not [one for one in written if b"run-c4n4ry" in one.read_bytes()]
    assert "run-c4n4ry" not in ran.err
    refused = stdio_agent.run((), "--secret", "KEY=secret/agents/other/x", command=["touch", "started", "{mcp_config}"])
    assert (refused.code, (stdio_agent.folder / "started").exists()) == (1, False)
    assert "permission denied" in refused.err
    missing = stdio_agent.run((), "--secret", f"KEY={folder}/none", command=["touch", "started", "{mcp_config}"])
    assert (missing.code, "no secret is stored" in missing.err) == (1, True)


def test_an_option_for_a_secret_names_a_variable_a_path_and_a_member() -> None:
    assert parse_variables(["A=secret/x", "B_1=kv/y#z"], ["C=secret/x#"]) == [
        SecretVariable("A", "secret/x", "", False),
        SecretVariable("B_1", "kv/y", "z", False),
        SecretVariable("C", "secret/x", "", True),
    ]
    for words, descriptors in (
        (["A"], []),
        (["A="], []),
        (["A=#x"], []),
        (["=secret/x"], []),
        (["1A=secret/x"], []),
        (["A-B=secret/x"], []),
        (["A=secret/x", "A=secret/y"], []),
        (["A=secret/x"], ["A=secret/x"]),
    ):
        with pytest.raises(Usage):
            parse_variables(words, descriptors)
    with pytest.raises(Usage, match="the variable OSTIARY_URL is reserved"):
        parse_variables(["OSTIARY_URL=secret/x"], [])


def test_a_member_of_a_secret_is_a_text_and_must_be_named_if_there_are_several() -> None:
    def read(data: dict[str, Any], member: str = "") -> CommandSecrets:
        variables = [SecretVariable("A", "secret/x", member, False)]
        return read_secrets(variables, lambda path: Secret(path, data))

    assert read({"k": "c4n4ry"}).variables == {"A": "c4n4ry"}
    assert "c4n4ry" not in repr(read({"k": "c4n4ry"}))
    assert read({"k": "v", "l": "w"}, "l").variables == {"A": "w"}
    for data, member, fault in (
        ({"k": "c4n4ry", "l": "w"}, "", "has 2 members"),
        ({}, "", "has 0 members"),
        ({"k": 1}, "", "the member 'k' of secret/x is not a text"),
        ({"k": "c4n4ry\0"}, "k", "the member 'k' of secret/x is not a text"),
        ({"k": "c4n4ry"}, "l", "has no member 'l'"),
    ):
        with pytest.raises(Usage) as refusal:
            read(data, member)
        assert fault in refusal.value.message
        assert "c4n4ry" not in refusal.value.message + (refusal.value.hint or "")
    given = read_secrets([SecretVariable("A", "secret/x", "", True)], lambda path: Secret(path, {"k": "v"}))
    [descriptor] = given.descriptors
    assert os.pread(descriptor, 10, 0) == b"v"
    given.close()
    with pytest.raises(OSError, match="descriptor"):
        os.fstat(descriptor)
