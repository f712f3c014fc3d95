"""A server with too little address space does not start."""

from __future__ import annotations

import resource
import subprocess
from pathlib import Path

import pytest

from harness.patience import PATIENCE_S
from harness.server import COMMAND, running
from ostiaryd.ground.process.limits import LEAST_BYTES


def limited(size: int) -> tuple[str | Path, ...]:
    """The command of a program whose address space is limited to `size` bytes."""
    return ("prlimit", f"--as={size}", COMMAND)


@pytest.mark.parametrize("size", [850_000_000, LEAST_BYTES - resource.getpagesize()])
def test_a_server_with_too_little_address_space_is_refused_and_creates_nothing(tmp_path: Path, size: int) -> None:
    folder = tmp_path / "data"
    command = [*limited(size), "serve", "--data-dir", folder, "--listen", "127.0.0.1:0"]
    refused = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert refused.returncode > 0, "it did not end by a signal"
    assert f"the address space of this process is limited to {size >> 20} MiB" in refused.stderr
    assert "MemoryMax" in refused.stderr
    assert not folder.exists()


def test_a_server_with_the_minimum_address_space_starts(tmp_path: Path) -> None:
    with running(tmp_path / "data", command=limited(LEAST_BYTES)) as server:
        assert server.url
