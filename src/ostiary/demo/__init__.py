"""`ostiary demo`: the main job, end to end, with real parts, told while it happens.

A server on a temporary SQLite file, an MCP server behind a guard, a reader and a writer with keys of their own that
call it through MCP clients. The writer is revoked in the middle of its work; the ledger is verified, then a copy of it
is falsified.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from ostiary.core.errors import Unavailable


def demo(*, exit: Annotated[bool, Parameter(negative="", help="End instead of leaving the server up")] = False) -> None:
    """Start everything on a temporary folder and narrate the main job."""
    try:
        from ostiary.demo.story import tell
    except ModuleNotFoundError as missing:
        raise Unavailable(f"the demo needs `{missing.name}`", hint='pip install "ostiary[server,mcp]"') from None
    with tempfile.TemporaryDirectory(prefix="ostiary-demo-") as folder:
        try:
            asyncio.run(tell(Path(folder), stay=not exit))
        except KeyboardInterrupt:
            sys.exit(0)
