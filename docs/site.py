"""Build the documentation site: `python -m docs.site [OUT]`, called by `make docs`.

OUT (default `build/site`) holds one folder per version, `versions.json` for the version menu, and an `index.html` that
leads to the newest version. A build replaces the folder of the present version and keeps the others, so a release is
published by copying OUT to a web server. A broken link or anchor fails the build. The site needs no network.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

DOCS = Path(__file__).parent
ROOT = DOCS.parent
INSTALLED = Path(sys.prefix).parent
"""The checkout whose environments `make` has made; a copy of the tree uses them too."""
ZENSICAL = INSTALLED / ".site" / "bin" / "zensical"
MERMAID = INSTALLED / "docs" / "mermaid" / "node_modules" / "@mermaid-js" / "tiny" / "dist" / "mermaid.tiny.js"


def version() -> str:
    """Read the version of the project from pyproject.toml."""
    return str(tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"])


def build(out: Path) -> Path:
    """Build the present version under `out` and return its folder. Raises CalledProcessError for a broken link."""
    target = out / version()
    with tempfile.TemporaryDirectory() as scratch:
        stage = Path(scratch)
        shutil.copytree(DOCS, stage / "docs", ignore=shutil.ignore_patterns("*.py", "*.toml", "mermaid", "__pycache__"))
        (stage / "docs" / "assets").mkdir(exist_ok=True)
        shutil.copyfile(MERMAID, stage / "docs" / "assets" / "mermaid.js")
        settings = (DOCS / "zensical.toml").read_text("utf-8")
        (stage / "zensical.toml").write_text(f'{settings}\n[project.extra.version]\nprovider = "mike"\n', "utf-8")
        subprocess.run([ZENSICAL, "build", "--clean", "--strict"], cwd=stage, check=True, stdout=subprocess.DEVNULL)
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(stage / "site", target)
    _publish(out)
    return target


def _publish(out: Path) -> None:
    """List the versions under `out`, the newest first, and lead visitors to the newest."""
    names = [folder.name for folder in out.iterdir() if (folder / "index.html").is_file()]
    names.sort(key=lambda name: [int(part) if part.isdigit() else -1 for part in name.split(".")], reverse=True)
    menu = [{"version": name, "title": name, "aliases": ["latest"] if name == names[0] else []} for name in names]
    (out / "versions.json").write_text(json.dumps(menu, indent=1) + "\n", "utf-8")
    page = f'<!doctype html><title>Ostiary</title><meta http-equiv="refresh" content="0; url={names[0]}/index.html">\n'
    (out / "index.html").write_text(page, "utf-8")


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "build" / "site"
    folder.mkdir(parents=True, exist_ok=True)
    print(build(folder))
