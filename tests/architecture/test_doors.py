"""Every package has the same layers: `wire* > flows > store > model` (see docs/explanation/architecture.md)."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from graphlib import TopologicalSorter

import grimp
import pytest

from tests.support.sources import ROOT, door, room, sources

RANK = {"model": 0, "store": 1, "flows": 2, "wire": 3}
MUTUAL = {
    ("ostiaryd.ground.database.postgres", "ostiaryd.ground.database.postgres_server"): "a connection and its server",
    ("ostiary.provenance.origins.mails", "ostiary.provenance.origins.memory"): "a memory and its mails",
}
"""Import that makes a circle, for a type only: why the two modules know each other."""
PLUG_INS = {"attestors", "backends", "engines", "detectors", "exporters", "assessors"}
WITHOUT_DOORS = {
    "ground",
    "app",
    "serve",
    "recover",
    "demo",
}  # not rooms: below all, or above all


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    """The imports of both packages, also those for types and those in functions."""
    return grimp.build_graph("ostiary", "ostiaryd", cache_dir=None)


@pytest.fixture(scope="module")
def imports(graph: grimp.ImportGraph) -> list[tuple[str, str]]:
    """(importer, imported) over the modules that are behind a door."""
    return [
        (importer, imported)
        for importer in graph.modules
        for imported in graph.find_modules_directly_imported_by(importer)
        if door(importer) in RANK and door(imported) in RANK
    ]


def test_every_module_of_a_package_belongs_to_a_layer() -> None:
    homeless = [
        source.path
        for source in sources("src/ostiaryd")
        if room(source.module) not in {"", *WITHOUT_DOORS} and door(source.module) not in {"", *RANK, *PLUG_INS}
    ]
    assert not homeless, "a package has the layers wire*, flows, store and model"


def test_a_layer_imports_only_the_same_or_lower_layers_of_any_package(imports: list[tuple[str, str]]) -> None:
    upward = [pair for pair in imports if RANK[door(pair[0])] < RANK[door(pair[1])]]
    assert not upward


def test_modules_do_not_import_each_other_in_a_cycle_even_for_types(graph: grimp.ImportGraph) -> None:
    imports = {name: set(graph.find_modules_directly_imported_by(name)) for name in graph.modules}
    for importer, imported in MUTUAL:
        imports[importer].remove(imported)
    assert list(TopologicalSorter(imports).static_order())  # CycleError names the modules of a circle


def test_a_wire_module_does_not_import_a_wire_module_of_another_package(imports: list[tuple[str, str]]) -> None:
    crossing = [
        (importer, imported)
        for importer, imported in imports
        if door(importer) == door(imported) == "wire" and room(importer) != room(imported)
    ]
    assert not crossing


def test_every_store_is_protected_from_other_packages() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    protected = {
        (module, *contract["allowed_importers"])
        for contract in contracts
        if contract["id"].startswith("store-")
        for module in contract["protected_modules"]
    }
    packages = {room(source.module) for source in sources("src/ostiaryd") if door(source.module) == "store"}
    assert protected == {(f"ostiaryd.{package}.store", f"ostiaryd.{package}") for package in packages}


def test_no_flow_function_only_forwards_its_arguments_to_the_store() -> None:
    idle = [
        f"{source.path}:{function.lineno} {function.name}"
        for source in sources("src/ostiaryd")
        if door(source.module) in ("wire", "flows")
        for function in source.tree.body
        if isinstance(function, ast.FunctionDef) and _only_passes_on(function)
    ]
    assert not idle, "call the store; for other packages, name the function of the store in `flows/__init__.py`"


def test_a_model_imports_only_the_core_and_other_models(graph: grimp.ImportGraph) -> None:
    pure = {f"ostiaryd.ground.{name}" for name in ("process.ids", "outbound.database_driver", "crypto.keyed_hash")}
    impure = [
        (importer, imported)
        for importer in graph.modules
        if door(importer) == "model"
        for imported in graph.find_modules_directly_imported_by(importer)
        if room(imported) and door(imported) != "model" and imported not in pure
    ]
    assert not impure


def _only_passes_on(function: ast.FunctionDef) -> bool:
    """Return whether a function is one call of the store with its own parameters, or the transaction of its act."""
    match [one for one in function.body if not (isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant))]:
        case [ast.Return(value=ast.Call() as call) | ast.Expr(value=ast.Call() as call)]:
            own = {argument.arg for argument in _parameters(function.args)} | {"act.tx"}
            passed = [*call.args, *(word.value for word in call.keywords)]
            return ast.unparse(call.func).startswith("store.") and {ast.unparse(one) for one in passed} <= own
    return False


def _parameters(arguments: ast.arguments) -> Iterator[ast.arg]:
    yield from (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)
