"""A running server that the tests of a module share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness.live_server import ServerFixture, own_server


@pytest.fixture(scope="module")
def live_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerFixture]:
    """A server that all tests of a module share; each makes its own agents and resources."""
    with own_server(tmp_path_factory.mktemp("live_server")) as made:
        yield made
