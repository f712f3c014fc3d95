"""The command line as a process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.live_server import ServerFixture
from harness.patience import PATIENCE_S
from harness.prepared import PreparedServer


@pytest.fixture(scope="module")
def live_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerFixture]:
    """A server whose configuration allows webhooks to this machine."""
    folder = tmp_path_factory.mktemp("live_server")
    (folder / "ostiary.toml").write_text('private_hosts = "127.0.0.1"\n')
    with (
        PreparedServer(folder / "server", "--config", str(folder / "ostiary.toml")) as server,
        ServerFixture(server, folder) as made,
    ):
        yield made


def ostiary(live_server: ServerFixture, *words: str) -> Any:
    command = [str(Path(sys.executable).parent / "ostiary"), "--json", *words]
    environment = os.environ | {"OSTIARY_DATA_DIR": str(live_server.server.folder)}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    assert run.returncode in (0, 5), run.stderr
    return json.loads(run.stdout)
