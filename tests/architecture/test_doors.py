"""Every room is built alike: `wire* > flows > store > model` (see docs/explanation/architecture.md)."""

from __future__ import annotations

import tomllib

import grimp
import pytest

from tests.support.sources import ROOT, door, room, sources

RANK = {"model": 0, "store": 1, "flows": 2, "wire": 3}
PLUG_INS = {"attestors", "backends", "engines", "detectors", "exporters", "assessors"}
WITHOUT_DOORS = {
    "ground",
    "app",
    "serve",
    "recover",
    "demo",
}  # not rooms: below all, or above all


@pytest.fixture(scope="module")
def imports() -> list[tuple[str, str]]:
    """(importer, imported) over the modules that are behind a door."""
    graph = grimp.build_graph("ostiaryd", cache_dir=None)
    return [
        (importer, imported)
        for importer in graph.modules
        for imported in graph.find_modules_directly_imported_by(importer)
        if door(importer) in RANK and door(imported) in RANK
    ]


def test_every_module_of_a_room_is_behind_a_door() -> None:
    homeless = [
        source.path
        for source in sources("src/ostiaryd")
        if room(source.module) not in {"", *WITHOUT_DOORS} and door(source.module) not in {"", *RANK, *PLUG_INS}
    ]
    assert not homeless, "a room has the doors wire*, flows, store and model"


def test_a_door_imports_only_doors_at_or_below_it_in_whatever_room(imports: list[tuple[str, str]]) -> None:
    upward = [pair for pair in imports if RANK[door(pair[0])] < RANK[door(pair[1])]]
    assert not upward


def test_a_wire_does_not_speak_through_the_wire_of_another_room(imports: list[tuple[str, str]]) -> None:
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


def test_a_model_stands_on_the_core_and_on_models_alone() -> None:
    graph = grimp.build_graph("ostiaryd", cache_dir=None)
    pure = {f"ostiaryd.ground.{name}" for name in ("process.ids", "outbound.database_driver", "crypto.keyed_hash")}
    impure = [
        (importer, imported)
        for importer in graph.modules
        if door(importer) == "model"
        for imported in graph.find_modules_directly_imported_by(importer)
        if door(imported) != "model" and imported not in pure
    ]
    assert not impure
