"""Compare the Rego engine with OPA's own cases: `make peers CORPORA=DIR`.

DIR holds a copy of open-policy-agent/opa, whose cases are YAML, or of open-policy-agent/swift-opa, which has the same
cases as JSON. Each case runs in a confined process with the limits of the server. An error where OPA has an answer is
counted as refused; another answer than OPA's is different, and makes the command fail.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from importlib import metadata
from importlib.resources import files as package_files
from pathlib import Path
from typing import Any

import yaml
from rich.progress import track

from ostiary.protocol.errors import Unavailable
from ostiaryd.ground.process.confined import Confined
from ostiaryd.policy.flows.external_pdp import GO, RESERVED

LAYOUTS = (
    ("opa", "v1/test/cases/testdata/v1", "yaml"),
    ("swift-opa", "ComplianceSuite/Tests/RegoComplianceTests/TestData/v1", "json"),
)
"""Name of the repository, folder of the cases in it, their suffix."""
AMENDED = {
    "reachable_paths/cycle_1022_3": [
        {
            "x": [
                ["one", "five", "seven", "eight", "three"],
                ["one", "five", "six", "nine"],
                ["one", "five", "six", "seven", "eight", "three"],
                ["one", "two", "four", "three"],
            ]
        }
    ]
}
"""Results of cases that OPA has corrected since some copies of them were made, by note."""
CASE_S = 5.0
AGREE, REFUSED, DIFFERENT = "agree", "refused", "different"
REFUSED_AT_UPLOAD = "refused at upload"
MAX_SHOWN = 40
Case = dict[str, Any]


class Comparison:
    """Counts by folder and result, and the cases that do not agree in words."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        self.shown: dict[str, list[str]] = {REFUSED: [], DIFFERENT: []}

    def total(self, result: str) -> int:
        return sum(number for (_, found), number in self.counts.items() if found == result)

    def __str__(self) -> str:
        folders = sorted({folder for folder, _ in self.counts})
        columns = (AGREE, REFUSED, DIFFERENT, REFUSED_AT_UPLOAD)
        rows = [["folder", *columns]]
        rows += [[folder, *(str(self.counts[folder, column]) for column in columns)] for folder in folders]
        widths = [len(column) + 3 for column in columns]
        table = [f"{row[0]:40}" + "".join(map(str.rjust, row[1:], widths)) for row in rows]
        for result, words in self.shown.items():
            table += [f"{result}: {line}" for line in words[:MAX_SHOWN]]
        agree, refused, different, at_upload = map(self.total, columns)
        number = agree + refused + different
        table.append(
            f"{number:,} cases: {agree:,} agree ({100 * agree / max(number, 1):.1f} %), {refused} refused,"
            f" {different} different; {at_upload} use built-ins that are refused at upload"
        )
        return "\n".join(table)


def find(corpora: Path) -> tuple[Path, str] | None:
    """The folder of the cases and their suffix, or None without a copy of one of the repositories."""
    for repository, folder, suffix in LAYOUTS:
        if (found := corpora / repository / folder).is_dir():
            return found, suffix
    return None


def read_cases(folder: Path, suffix: str) -> Iterator[tuple[str, Case]]:
    """Yield the folder and content of each case."""
    for path in sorted(folder.rglob(f"*.{suffix}")):
        text = path.read_text("utf-8")
        for case in _read(text, suffix).get("cases") or ():
            yield path.relative_to(folder).parts[0], case


def _read(text: str, suffix: str) -> Any:
    if suffix == "json":
        return json.loads(text)
    return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def compare(folder: Path, suffix: str) -> Comparison:
    """Evaluate each case."""
    comparison = Comparison()
    with closing(Confined("tests.conformance.rego_case:answer", reserved=RESERVED, environ=GO)) as engine:
        ask = partial(engine.ask, within_s=CASE_S)
        for name, case in track([*read_cases(folder, suffix)], description="OPA's cases"):
            try:
                answer = json.loads(ask(_encode_case(case)))
            except Unavailable as error:
                answer = {"error": error.message, "refused": []}
            result, words = judge(case, answer)
            comparison.counts[name, result] += 1
            if answer["refused"]:
                comparison.counts[name, REFUSED_AT_UPLOAD] += 1
            if result != AGREE:
                comparison.shown[result].append(f"{case['note']}: {words}")
    return comparison


def _encode_case(case: Case) -> bytes:
    given = {"modules": case.get("modules") or [], "data": case.get("data") or {}, "query": case["query"]}
    if "input_term" in case:  # a term of Rego, which JSON may not have
        given["query"] += f" with input as {case['input_term']}"
    elif "input" in case:
        given["input"] = case["input"]
    return json.dumps(given, ensure_ascii=False).encode()


def judge(case: Case, answer: dict[str, Any]) -> tuple[str, str]:
    """Return the result of a case, and words for what is wrong."""
    fails = "want_error" in case or "want_error_code" in case
    if (error := answer.get("error")) is not None:
        code = case.get("want_error_code", "")
        return (AGREE, "") if fails and code in error else (REFUSED, error.splitlines()[0][:200])
    if fails:
        return DIFFERENT, f"{answer['results']}, and OPA fails"
    wanted = [case.get("want_result") or []]
    if case["note"] in AMENDED:
        wanted.append(AMENDED[case["note"]])
    results = [_without_generated(found, case) for found in answer["results"]]
    if any(_comparable(results, case) == _comparable(want, case) for want in wanted):
        return AGREE, ""
    return DIFFERENT, f"{str(results)[:200]}, and OPA: {str(wanted[0])[:200]}"


def _without_generated(bindings: dict[str, Any], case: Case) -> dict[str, Any]:
    if not case.get("ignore_generated_vars"):
        return bindings
    return {name: value for name, value in bindings.items() if not name.startswith(("$", "__"))}


def _comparable(results: list[dict[str, Any]], case: Case) -> list[str]:
    """Results in one order; with `sort_bindings` also the arrays that are bound, as OPA's own runner sorts them."""
    if case.get("sort_bindings"):
        results = [
            {name: sorted(value, key=_text) if isinstance(value, list) else value for name, value in found.items()}
            for found in results
        ]
    return sorted(map(_text, results))


def _text(value: object) -> str:
    return json.dumps(_number(value), sort_keys=True)


def _number(value: Any) -> Any:
    """The value with 3.0 as 3, which is the same number."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [_number(item) for item in value]
    if isinstance(value, dict):
        return {name: _number(item) for name, item in value.items()}
    return value


def main(corpora: str) -> int:
    """Print the counts; 1 if anything is different."""
    found = find(Path(corpora)) if corpora else None
    if found is None:
        names = " or ".join(repository for repository, _, _ in LAYOUTS)
        print(f"not run: OPA's cases; fetch the repository {names} and say CORPORA=DIR, the folder that holds it")
        return 0
    print(f"opa-golib-python-bindings {metadata.version('opa-golib-python-bindings')}, OPA {opa_version()}")
    comparison = compare(*found)
    print(comparison)
    return int(comparison.total(DIFFERENT) > 0)


def opa_version() -> str:
    """The version of OPA in the build information of the shared library."""
    library = (package_files("opa_bindings") / "libopabridge.so").read_bytes()
    found = re.search(rb"open-policy-agent/opa\tv([0-9.]+)", library)
    assert found is not None
    return found[1].decode()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
