"""`python -m benchmarks.contain.compiled`: print the policies of a new server, safeguards included, as guards get them.

The environment of the suites has no compiler of policies: `starter` runs this in the main environment.
"""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from pathlib import Path

from ostiary.authorization.cedar import ir

PYTHON = Path(sys.prefix).parent / ".venv" / "bin" / "python"


@cache
def starter() -> ir.PolicySetIR:
    """Return the policies of a new server of this checkout."""
    command: list[str | Path] = [PYTHON, "-m", "benchmarks.contain.compiled"]
    return ir.parse(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


if __name__ == "__main__":
    from ostiaryd.policy.model.load import starter_files as load_starter

    sys.stdout.buffer.write(ir.render(load_starter().ir))
