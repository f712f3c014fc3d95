"""The comparison with Cedar's integration tests, on a small repository of the same layout."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.peers_cedar import REPOSITORY, main

REQUEST: dict[str, Any] = {
    "description": "Request 0",
    "principal": {"type": "User", "id": "ann"},
    "action": {"type": "Action", "id": "view"},
    "resource": {"type": "User", "id": "ben"},
    "context": {},
    "decision": "allow",
    "reason": ["policy1"],
    "errors": ["policy0"],
}
FILES = {
    "a.cedar": 'permit(principal, action, resource) when { ip() == 1 }; @id("x") permit(principal, action, resource);',
    "a.cedarschema": "entity User; action view appliesTo { principal: User, resource: User };",
    "a.entities.json": "[]",
}


def write(folder: Path, *, is_valid: bool = False, **changes: Any) -> None:
    """Write the same test as a handwritten one and as a generated one."""
    repository = folder / REPOSITORY
    (repository / "tests" / "some").mkdir(parents=True)
    for name, text in FILES.items():
        (repository / name).write_text(text)
    test = {
        "policies": "a.cedar",
        "entities": "a.entities.json",
        "schema": "a.cedarschema",
        "shouldValidate": is_valid,
        "requests": [REQUEST | changes],
    }
    (repository / "tests" / "some" / "1.json").write_text(json.dumps(test))
    with tarfile.open(repository / "corpus-tests.tar.gz", "w:gz") as archive:
        for name, text in (FILES | {"a.json": json.dumps(test)}).items():
            member = tarfile.TarInfo(f"./{name}")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))


def test_equal_tests_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path)
    assert main(str(tmp_path)) == 0
    said = capsys.readouterr().out
    for kind in ("handwritten", "generated"):
        for line in ("requests", "equal", "validation equal"):
            assert f"       1  {kind}: {line}\n" in said
        for line in ("different", "refused", "validation different"):
            assert f"       0  {kind}: {line}\n" in said


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"decision": "deny"}, "different"),
        ({"reason": ["policy0"]}, "different"),
        ({"errors": []}, "different"),
        ({"is_valid": True}, "validation different"),
        ({"context": {"a": None}}, "refused"),
    ],
)
def test_a_difference_or_a_refusal_is_printed_and_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], words: str
) -> None:
    write(tmp_path, **changes)
    assert main(str(tmp_path)) == 1
    said = capsys.readouterr().out
    assert f"       1  handwritten: {words}\n" in said
    assert f"       1  generated: {words}\n" in said


def test_a_comparison_without_a_copy_of_the_repository_states_that_it_was_not_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for corpora in ("", str(tmp_path), str(tmp_path / "nowhere")):
        assert main(corpora) == 0
        assert capsys.readouterr().out.startswith(f"not run: {REPOSITORY}")
