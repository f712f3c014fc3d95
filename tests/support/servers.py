"""A running server that the tests of a module share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness.live_server import ServerFixture
from harness.server import running


@pytest.fixture(scope="module")
def live_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerFixture]:
    """A server that all tests of a module share; each makes its own agents and resources."""
    folder = tmp_path_factory.mktemp("live_server")
    with running(folder / "server") as server, ServerFixture(server, folder) as made:
        yield made
