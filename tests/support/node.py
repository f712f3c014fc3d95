"""The folder of the Node.js clients, and servers in Node.js."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness.patience import PATIENCE_S
from ostiary.protocol import jose

NODE = Path(__file__).parents[1] / "node"


@contextmanager
def serving_provider(script: str, options: dict[str, Any], *, alg: str = "ES256") -> Iterator[list[str]]:
    """Run a provider of the folder `NODE` until the block ends. Return the words of the line in which the provider
    prints its port. `alg`: the algorithm of its signing key.
    """
    signing = {**jose.generate(alg).jwk(), "use": "sig", "alg": alg}
    process = subprocess.Popen(
        ["node", NODE / script, json.dumps(options)],
        env={"PATH": os.environ["PATH"], "SIGNING_KEY": json.dumps(signing), "NODE_ENV": "production"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        line = next((line.split() for line in process.stdout if line[:1].isdecimal()), None)
        assert line, process.stderr.read()
        yield line
    finally:
        process.communicate(timeout=PATIENCE_S)
