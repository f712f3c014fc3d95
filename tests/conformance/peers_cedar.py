"""Compare the Cedar engine with Cedar's own integration tests: `make peers CORPORA=DIR`.

DIR holds a copy of the repository cedar-policy/cedar-integration-tests. Every request of its handwritten tests and of
its generated corpus is decided by the policies as `lower` and `compile_set` make them. Compared are the decision, the
determining policies and the policies that failed; of each policy set, whether it validates.
"""

from __future__ import annotations

import json
import sys
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cedarpy
from rich.progress import track

from ostiary.authorization.cedar import ir, values
from ostiary.authorization.cedar.compile import Compiled, compile_set
from ostiary.authorization.cedar.values import Entity, Uid
from ostiary.protocol.errors import Refused
from ostiaryd.policy.model.lower import lower

REPOSITORY = "cedar-integration-tests"
HANDWRITTEN, GENERATED = "handwritten", "generated"
MAX_SHOWN = 20
"""differences that are printed"""


class Comparison:
    """Counts by kind of test, and the first differences in words."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        self.shown: list[str] = []

    def count(self, kind: str, result: str, number: int = 1) -> None:
        self.counts[kind, result] += number

    def differ(self, kind: str, result: str, words: str, number: int = 1) -> None:
        """Count something that must not be; `words` say what."""
        self.count(kind, result, number)
        if len(self.shown) < MAX_SHOWN:
            self.shown.append(f"{kind}: {words}")

    @property
    def failed(self) -> bool:
        return bool(self.shown)

    def __str__(self) -> str:
        lines = [f"{number:>8,}  {kind}: {result}" for (kind, result), number in sorted(self.counts.items())]
        return "\n".join([*lines, *self.shown])


def compare(repository: Path, *, every: int = 1) -> Comparison:
    """Run one of `every` policy sets of a copy of the repository."""
    comparison = Comparison()
    sets = [*handwritten(repository), *generated(repository)][::every]
    for kind, name, test, read in track(sets, description=f"{REPOSITORY}, policy sets"):
        compare_set(comparison, kind, name, test, read)
    return comparison


Read = Callable[[str], str]
"""the text of a file of the repository that a test names"""
Test = tuple[str, str, dict[str, Any], Read]
"""kind, name, the test itself, and how to read what it names"""


def handwritten(repository: Path) -> Iterator[Test]:
    for path in sorted(repository.glob("tests/*/*.json")):
        read = lambda name: (repository / name).read_text("utf-8")  # noqa: E731
        yield HANDWRITTEN, str(path.relative_to(repository)), json.loads(path.read_text("utf-8")), read


def generated(repository: Path) -> Iterator[Test]:
    """The tests in the archive, which is read once."""
    with tarfile.open(repository / "corpus-tests.tar.gz") as archive:
        texts = {
            member.name.removeprefix("./"): file.read().decode()
            for member in archive
            if (file := archive.extractfile(member)) is not None
        }
    for name in sorted(texts):
        if name.endswith(".json") and not name.endswith(".entities.json"):
            yield GENERATED, name, json.loads(texts[name]), texts.__getitem__


def compare_set(comparison: Comparison, kind: str, name: str, test: dict[str, Any], read: Read) -> None:
    """Compare one policy set: its validation, then each of its requests."""
    comparison.count(kind, "policy sets")
    for result in ("different", "refused", "validation different"):
        comparison.count(kind, result, 0)
    requests = test["requests"]
    comparison.count(kind, "requests", len(requests))
    text, schema = read(test["policies"]), cedarpy.Schema.from_str(read(test["schema"]))
    validates = cedarpy.validate_policies(text, schema).validation_passed
    if validates is test["shouldValidate"]:
        comparison.count(kind, "validation equal")
    else:
        comparison.differ(kind, "validation different", f"{name}: validates: {validates}")
    try:
        compiled = compile_set(ir.parse(ir.render(lowered := lower(text))))
        store = read_entities(read(test["entities"]), schema)
    except Refused as error:
        comparison.differ(kind, "refused", f"{name}: {type(error).__name__}: {error}", len(requests))
        return
    names = {policy.id: f"policy{index}" for index, policy in enumerate(lowered.policies)}
    for request in requests:
        compare_request(comparison, kind, name, request, compiled, store, names)


def read_entities(text: str, schema: cedarpy.Schema) -> dict[Uid, Entity]:
    """Read entities as Cedar reads them with the schema, which types what the file leaves implicit."""
    return values.parse_entities(json.loads(str(cedarpy.Entities.from_json_str(text, schema=schema))))


def compare_request(
    comparison: Comparison,
    kind: str,
    name: str,
    request: dict[str, Any],
    compiled: Compiled,
    store: dict[Uid, Entity],
    names: dict[str, str],
) -> None:
    principal, action, resource = (values.parse_uid(request[part]) for part in ("principal", "action", "resource"))
    where = f"{name}, {request['description']}"
    try:
        context = values.parse_record(request["context"])
    except Refused as error:
        comparison.differ(kind, "refused", f"{where}: {error}")
        return
    verdict = compiled.decide(principal, action, resource, context, store)
    ours = (
        "allow" if verdict.allowed else "deny",
        sorted(names[policy] for policy in verdict.reasons),
        sorted(names[policy] for policy, _ in verdict.errors),
    )
    theirs = (request["decision"].lower(), sorted(request["reason"]), sorted(request["errors"]))
    if ours == theirs:
        comparison.count(kind, "equal")
        comparison.count(kind, f"equal: {ours[0]}{', with errors' if ours[2] else ''}")
    else:
        comparison.differ(kind, "different", f"{where}: {ours}, and Cedar: {theirs}")


def main(corpora: str) -> int:
    """Print the counts; 1 if anything is different or refused."""
    repository = Path(corpora) / REPOSITORY
    if not corpora or not repository.is_dir():
        print(f"not run: {REPOSITORY}; fetch the repository and say CORPORA=DIR, the folder that holds it")
        return 0
    comparison = compare(repository)
    print(comparison)
    return int(comparison.failed)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
