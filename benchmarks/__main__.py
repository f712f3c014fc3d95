"""`make bench`: every benchmark in this folder, each in a process of its own, or those that are named.

A benchmark is a module that prints what it measured; it exits with an error when a count is not what it must be.
What begins with a hyphen, and all after it, is said to the benchmarks: `contain --suite banking`.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent


def main(arguments: list[str]) -> int:
    first = next((at for at, word in enumerate(arguments) if word.startswith("-")), len(arguments))
    names, options = arguments[:first], arguments[first:]
    packages = [path.parent for path in FOLDER.glob("*/__main__.py")]
    known = sorted(path.stem for path in (*FOLDER.glob("[a-z]*.py"), *packages))
    if unknown := sorted(set(names) - set(known)):
        print(f"no benchmark {', '.join(unknown)}; there are {', '.join(known)}", file=sys.stderr)
        return 2
    failed = []
    for name in names or known:
        print(f"\n== {name}", flush=True)
        if subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *options], check=False).returncode != 0:
            failed.append(name)
    if failed:
        print(f"\nfailed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
