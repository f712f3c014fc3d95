"""Programs that use the Workload API: this interpreter, and programs of go-spiffe where Debian has it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.patience import PATIENCE_S
from tests.support.sources import ROOT

EXECUTABLE = str(Path(sys.executable).resolve())
GO_SOURCES = Path("/usr/share/gocode/src/github.com/spiffe/go-spiffe/v2")
needs_go = pytest.mark.skipif(
    shutil.which("go") is None or not GO_SOURCES.exists(),
    reason="Debian's golang-go and golang-github-spiffe-go-spiffe-dev are not installed",
)


def build_go(source: Path, program: Path) -> Callable[..., str]:
    """Build a program of go-spiffe; return a function that runs it with arguments and returns what it printed."""
    environment = os.environ | {
        "GO111MODULE": "off",
        "GOPATH": "/usr/share/gocode",
        "GOCACHE": str(ROOT / ".go/cache"),  # the first build takes minutes
    }
    subprocess.run(["go", "build", "-o", program, source], env=environment, check=True, timeout=PATIENCE_S)
    return lambda *arguments: (
        subprocess.run([program, *arguments], capture_output=True, text=True, check=True, timeout=PATIENCE_S).stdout
    )
