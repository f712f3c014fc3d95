"""A receiver of webhooks on this machine, and a server that may send requests to it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import msgspec
import pytest

from ostiaryd.ground.world import World
from tests.support.api_fixtures import client
from tests.support.webhook_receiver import Receiver, receiving

__all__ = ["client"]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as made:
        yield made


@pytest.fixture
def world(world: World) -> World:
    """A server whose operator opens this machine for webhooks."""
    return dataclasses.replace(world, config=msgspec.structs.replace(world.config, private_hosts="127.0.0.1"))
