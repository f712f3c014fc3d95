"""The comparison with OPA's cases, on a few cases in the layouts of both repositories."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conformance.peers_rego import LAYOUTS, main

MODULE = "package test\np := input.x + data.y\nq contains 3.0\nr := time.now_ns()\ns := 1 / 0\nt := [2, 1]\n"
AGREES: list[dict[str, Any]] = [
    {"query": "data.test.p = x", "input": {"x": 1}, "data": {"y": 2}, "want_result": [{"x": 3}]},
    {"query": "data.test.p = x", "input_term": "{`x`: 1,}", "data": {"y": 2}, "want_result": [{"x": 3}]},
    {"query": "data.test.p = x", "data": {"y": 2}},
    {"query": "data.test.p = x", "input": None, "want_result": []},
    {"query": "data.test.q = x", "want_result": [{"x": [3]}]},
    {"query": "data.test.t = x", "want_result": [{"x": [1, 2]}], "sort_bindings": True},
    {"query": "data.test.s = x", "want_error_code": "eval_builtin_error", "strict_error": True},
    {"query": "data.test.nothing(", "want_error": "wrong"},
    {"query": "y = 1; data.test.q = x", "want_result": [{"x": [3], "y": 1}]},
]
DIFFERS: list[dict[str, Any]] = [
    {"query": "data.test.t = x", "want_result": [{"x": [1, 2]}]},
    {"query": "data.test.t = x", "want_result": []},
    {"query": "data.test.t = x", "want_error": "wrong"},
    {"query": "data.test.none = x", "want_result": [{"x": 1}]},
    {"query": "data.test.q = x", "want_result": [{"x": ["3"]}]},
]
REFUSED: list[dict[str, Any]] = [
    {"query": "data.test.s = x", "want_result": []},
    {"query": "data.test.s = x", "want_error_code": "eval_conflict_error"},
]


def write(corpora: Path, suffix: str, cases: list[dict[str, Any]]) -> None:
    for repository, folder, its_suffix in LAYOUTS:
        if its_suffix == suffix:
            (found := corpora / repository / folder / "some").mkdir(parents=True)
            numbered = [{"note": f"some/{n}", "modules": [MODULE], **case} for n, case in enumerate(cases)]
            text = {"json": json.dumps, "yaml": yaml.safe_dump}[suffix]({"cases": numbered})
            (found / f"test.{suffix}").write_text(text)


@pytest.mark.parametrize("suffix", ["json", "yaml"])
def test_results_are_counted_by_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str], suffix: str) -> None:
    write(tmp_path, suffix, [*AGREES, *REFUSED])
    assert main(str(tmp_path)) == 0
    said = capsys.readouterr().out
    assert f"\nsome {len(AGREES):>43}{len(REFUSED):>10}{0:>12}{len(AGREES + REFUSED):>20}\n" in said
    assert f"{len(AGREES + REFUSED)} cases: {len(AGREES)} agree (81.8 %), {len(REFUSED)} refused, 0 different" in said
    assert "refused: some/9: eval_error: test-0.rego:5: eval_builtin_error: div: divide by zero" in said


@pytest.mark.parametrize("case", range(len(DIFFERS)))
def test_a_difference_fails_the_comparison(tmp_path: Path, capsys: pytest.CaptureFixture[str], case: int) -> None:
    write(tmp_path, "json", [DIFFERS[case]])
    assert main(str(tmp_path)) == 1
    assert "1 cases: 0 agree (0.0 %), 0 refused, 1 different" in capsys.readouterr().out


def test_a_comparison_without_a_copy_of_the_cases_states_that_it_was_not_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for corpora in ("", str(tmp_path), str(tmp_path / "nowhere")):
        assert main(corpora) == 0
        assert capsys.readouterr().out.startswith("not run: OPA's cases")
