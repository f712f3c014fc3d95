from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.feed.house import House
from tests.server import running


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A server that all tests of a module share; each makes its own agents and resources."""
    folder = tmp_path_factory.mktemp("house")
    with running(folder / "server") as server:
        made = House(server, folder)
        yield made
        made.admin.close()
