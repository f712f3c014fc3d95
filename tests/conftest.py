"""Fixtures for every room. Whatever asks for `config`, `database_url` or `world` runs on SQLite and on PostgreSQL.

Where PostgreSQL does not start, those tests fail; they are not skipped.

The server is imported when a fixture needs it: tests of the SDK must not.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import httpx2
import pytest
from hypothesis import settings

from harness.clock import Clock, SeededRandom
from harness.patience import PATIENCE_S

if TYPE_CHECKING:
    from ostiaryd.ground.config import Config
    from ostiaryd.ground.world import World
    from tests.support.kept_children import KeptChildren
    from tests.support.world import Kind, Postgres, Template

settings.register_profile("ostiary", deadline=None, derandomize=True, max_examples=60)
settings.register_profile("deep", deadline=None, max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ostiary"))


os.environ["SSL_CERT_FILE"] = str(Path(__file__).parent / "support" / "authority.pem")
"""A file with one authority, which has signed nothing. Each client of HTTP reads it; the authorities of a system take
four times as long.
"""

for function in (httpx2.Client.__init__, httpx2.AsyncClient.__init__, httpx2.get, httpx2.post, httpx2.put):
    assert function.__kwdefaults__ is not None
    function.__kwdefaults__["timeout"] = PATIENCE_S  # a client that states no limit would give up after 5 s

gc.disable()  # until all is collected: what collection makes, stays


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the tests that take up to a minute each, so that no worker has one of them left at the end."""
    longest = ("frameworks", "faults", "demo")
    items.sort(key=lambda item: item.path.parent.name not in longest)


def pytest_collection_finish() -> None:
    """Keep all that was collected out of the sight of the garbage collector, which then has little to search."""
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)
    gc.enable()


def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """After the last test of a folder, release the parsed sources if its tests have read them."""
    reader = sys.modules.get("tests.support.sources")
    if reader is not None and (nextitem is None or nextitem.path.parent != item.path.parent):
        reader.drop_sources()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def dice(request: pytest.FixtureRequest) -> SeededRandom:
    return SeededRandom(request.node.name)


@pytest.fixture(scope="session")
def postgres_server(testrun_uid: str, worker_id: str) -> Iterator[Postgres]:
    """A real PostgreSQL, shared by the workers of this run."""
    from tests.support.world import postgres

    with postgres(testrun_uid, worker_id) as server:
        yield server


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest) -> Kind:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def database_url(database: Kind, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database."""
    if database == "sqlite":
        yield f"sqlite:///{tmp_path / 'empty.db'}"
        return
    server: Postgres = request.getfixturevalue("postgres_server")
    name = server.create()
    yield server.url(name)
    server.drop(name)


@pytest.fixture(scope="session")
def template(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[Kind], Template]]:
    """The template of a kind of database, made when it is first asked for."""
    from tests.support.world import Template

    made: dict[Kind, Template] = {}

    def get(kind: Kind) -> Template:
        if kind not in made:
            server = request.getfixturevalue("postgres_server") if kind == "postgres" else None
            made[kind] = Template(tmp_path_factory.mktemp(kind), server)
        return made[kind]

    yield get
    for each in made.values():
        each.close()


@pytest.fixture
def data_folder() -> Iterator[Path | None]:
    """A folder in memory, where no commit waits for a disk; None stands for the disk.

    Tests that kill, cut and fill have a fixture of this name that returns None.
    """
    from tests.support.world import memory_folder

    with memory_folder() as folder:
        yield folder


@pytest.fixture(scope="session")
def children_of_worker() -> Iterator[KeptChildren]:
    from tests.support.kept_children import KeptChildren

    children = KeptChildren()
    yield children
    children.close()


@pytest.fixture
def kept_children(children_of_worker: KeptChildren, monkeypatch: pytest.MonkeyPatch) -> KeptChildren:
    """The confined processes of earlier tests, which serve this one. A test of their start and end has a parameter of
    this name that is None.
    """
    from ostiaryd.ground.process.confined import Confined

    monkeypatch.setattr(Confined, "_launch", lambda parent: children_of_worker.launch(parent))
    monkeypatch.setattr(Confined, "close", lambda parent: children_of_worker.take(parent))
    return children_of_worker


@pytest.fixture
def config(
    database: Kind,
    template: Callable[[Kind], Template],
    data_folder: Path | None,
    tmp_path: Path,
    kept_children: KeptChildren | None,
) -> Iterator[Config]:
    """A server that was started once: its tables and keys are there."""
    with template(database).copy((data_folder or tmp_path) / "data") as config:
        yield config


@pytest.fixture
async def world(config: Config, clock: Clock, dice: SeededRandom) -> AsyncIterator[World]:
    """The world of such a server, opened with the hand-wound clock and the seeded dice."""
    from ostiaryd.ground.world import open_world

    async with open_world(config, now=clock, random=dice) as world:
        yield world
