"""Rules about the text of the program that linters do not have."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from tests.support.sources import ROOT, Source, calls, door, files, room, sources

LINES = 500
"""Review a longer file: does it hold several ideas? Length alone is no reason to split a file."""
LONGER: dict[str, str] = {
    "src/ostiary/openapi.py": "an HTTP operation as a tool, from its description to the arguments of a request",
    "src/ostiary/asgi.py": "one request at a guard, from its credentials to the last byte of its answer",
    "src/ostiaryd/ground/http/edge.py": "a request and a reply as values, with the endpoint between them",
    "src/ostiaryd/ground/http/protocol.py": "one connection, from its first byte to its last answer",
    "src/ostiaryd/app.py": "every route and every background loop of the server in one list",
    "src/ostiaryd/approvals/model.py": "one approval request: its content, and the rules for an answer",
    "src/ostiaryd/certs/flows/acme.py": "the life of an ACME order, from its account to its certificate",
    "src/ostiaryd/certs/model/acme.py": "the objects of RFC 8555 and the forms of their messages",
    "src/ostiaryd/certs/wire_acme.py": "the resources of RFC 8555, which share one form of a request",
    "src/ostiaryd/ground/http/grpc.py": "one gRPC connection, from its preface to its last frame",
    "src/ostiaryd/ground/config.py": "every setting of the server in one list",
    "src/ostiaryd/ground/database/writer.py": "one batch of acts, from the line to the answers",
    "src/ostiaryd/tokens/flows/grants.py": "one grant, from its authorization code to its last refresh token",
    "src/ostiaryd/trust/model/clients.py": "one client: the members of its metadata, each with its check",
    "src/ostiaryd/secrets/wire_aws.py": "the actions of AWS Secrets Manager, which share one form of a request",
    "src/ostiaryd/secrets/engines/pki.py": "the requests to a mount of certificates, which share one form of answer",
    "src/ostiaryd/secrets/engines/transit.py": "the uses of transit keys, which share one form of an item",
    "src/ostiaryd/secrets/wire_vault.py": "the requests of the Vault API, which share one form of answer and refusal",
    "src/ostiary/proxy/egress/server.py": "one conversation with a program, from its request to its answer",
    "src/ostiary/catalogue_advisor/reading.py": "one proposal for one tool; its rules share their words and schemas",
    "src/ostiary/provenance/origins/memory.py": "one stored form: its bits, its parts, and the rooms that bound them",
    "src/ostiary/provenance/origins/judging.py": "what policies see of one call; its lookups by kind share their rules",
}
"""Path: why it is one file all the same."""
COMPOSED = {
    "src/ostiaryd/ground/database/transaction.py:_savepoint_statements": "a number that the transaction counts",
    "src/ostiaryd/ledger/store/tree.py:_count_statement": "conditions from a closed table, chosen by their names",
    "src/ostiaryd/registry/store/agents.py:_count_statement": "conditions from a closed table, chosen by their names",
    "src/ostiaryd/registry/store/agents.py:_list_statement": "conditions from a closed table, chosen by their names",
    "src/ostiaryd/registry/store/agent_table.py:_row_statement": "conditions from a closed table, by their names",
    "src/ostiaryd/registry/store/agent_table.py:_statements": "conditions from a closed table, chosen by their names",
    "src/ostiaryd/ledger/store/tree.py:_search": "conditions from a closed table, chosen by their names",
}
"""Function that composes a statement: why it is safe."""
_SQL = re.compile(
    r"\s*(select\s.+\sfrom|insert\s+into|update\s+\w+\s+set|delete\s+from|create\s+(table|index))\s", re.I | re.S
)
_MACHINE = re.compile(r"(?<![\w}])/(work|root|home)/|\b(TODO|FIXME|XXX)\b")


ALIASES = {("numpy", "np"), ("collections.abc.Set", "AbstractSet")}
"""Second names that the whole field uses: a module, or a member of a module, and its alias."""


def test_only_stores_contain_sql() -> None:
    elsewhere = [
        f"{source.path}:{node.lineno}"
        for source in sources("src")
        if room(source.module) != "ground" and door(source.module) != "store"
        for node in _plain_strings(source.tree)
        if _SQL.match(str(node.value))
    ]
    assert not elsewhere


def test_sql_statements_are_module_constants_except_the_listed_composed_ones() -> None:
    later = {
        f"{source.path}:{function.name}"
        for source in sources("src/ostiaryd")
        for function in ast.walk(source.tree)
        if isinstance(function, ast.FunctionDef) and any(calls(function, "sql"))
    }
    assert later - COMPOSED.keys() == set(), "a statement is a constant of its module; values are parameters"
    assert COMPOSED.keys() - later == set(), "no longer composed"


def test_only_the_decoding_module_builds_msgspec_types() -> None:
    elsewhere = [
        f"{source.path}: {ast.unparse(node)}"
        for source in sources("src")
        if source.module != "ostiary.protocol.decoding"
        for node in ast.walk(source.tree)
        if _builds_types(node)
    ]
    assert not elsewhere, "use ostiary.protocol.decoding: msgspec crashes where threads first use a type at once"


def test_an_import_does_not_rename_the_imported_object() -> None:
    renamed = [
        f"{source.path}:{node.lineno}: {name} as {alias}"
        for source in sources("src")
        for node, name, alias in _aliases(source.tree)
        if (name, alias) not in ALIASES and not _names_its_package(name, alias)
    ]
    assert not renamed, "give the thing a name that fits everywhere, or import its module"


def test_no_suppress_call_suppresses_all_exceptions() -> None:
    blind = [
        f"{source.path}:{call.lineno}"
        for source in sources("src")
        for call in calls(source.tree, "suppress")
        if {"Exception", "BaseException"} & {getattr(argument, "id", "") for argument in call.args}
    ]
    assert not blind


def test_each_file_over_the_line_limit_is_listed_with_a_reason() -> None:
    long = {source.path for source in sources("src") if source.text.count("\n") > LINES}
    assert long - LONGER.keys() == set(), (
        f"past {LINES} lines: does the file hold several ideas? If not, say here why it is one"
    )
    assert LONGER.keys() - long == set(), "no longer long"


@pytest.mark.parametrize("folder", ["src", "tests", "docs", "requirements", ".ci"])
def test_no_file_contains_a_machine_path_or_an_open_todo(folder: str) -> None:
    found = [
        f"{name}:{number}: {line.strip()}"
        for name in files()
        if name.startswith(f"{folder}/") and name != "tests/architecture/test_sources.py"
        for number, line in enumerate((ROOT / name).read_text("utf-8", errors="replace").splitlines(), 1)
        if _MACHINE.search(line)
    ]
    assert not found


def test_every_test_contains_an_assertion() -> None:
    idle = [
        f"{source.path}:{function.lineno} {function.name}"
        for source in sources("tests")
        for function in _tests(source)
        if not any(_can_fail(node) for node in ast.walk(function))
    ]
    assert not idle


def _aliases(tree: ast.Module) -> Iterator[tuple[ast.stmt, str, str]]:
    """Yield each import with a second name: the statement, the full name, and the alias."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            prefix = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
            yield from ((node, prefix + name.name, name.asname) for name in node.names if name.asname)


def _names_its_package(name: str, alias: str) -> bool:
    """Return whether a layer of a package is imported under the name of the package, because every package has layers
    of these names: `tasks.flows` as `tasks`, and in the list of all routes `tasks.wire_admin` as `tasks_admin`.
    """
    _, package, layer = [*name.split("."), "", ""][:3]
    return (layer, alias) in {("flows", package), (layer, f"{package}_{layer.removeprefix('wire_')}")}


def _builds_types(node: ast.AST) -> bool:
    """A typed decoder, a conversion to a type, or an import of msgspec's functions by their bare names."""
    if isinstance(node, ast.ImportFrom):
        return node.module in ("msgspec.json", "msgspec.msgpack") or (
            node.module == "msgspec" and any(name.name in ("convert", "json", "msgpack") for name in node.names)
        )
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
        return False
    match ast.unparse(node.func).split("."):
        case ["msgspec", "convert"]:
            return True
        case ["msgspec", _, "Decoder"]:
            return bool(node.args or node.keywords)
        case ["msgspec", _, "decode"]:
            return len(node.args) > 1 or any(word.arg != "strict" for word in node.keywords)
    return False


def _plain_strings(tree: ast.Module) -> Iterator[ast.Constant]:
    """String literals that are not docstrings."""
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            yield node


def _tests(source: Source) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(source.tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name.startswith("test_"):
            yield node


def _can_fail(node: ast.AST) -> bool:
    """An `assert`, `pytest.raises`, or a function that is called a check, of the program or of the tests."""
    if isinstance(node, ast.Assert):
        return True
    if not isinstance(node, ast.Call):
        return False
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    return name.lstrip("_").startswith(
        ("raises", "check", "verify", "assert", "refuses", "expect", "tally", "eventually")
    )
