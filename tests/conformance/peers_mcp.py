"""Compare what the MCP conformance suite finds of a bare server and of the same behind a guard: `make peers`.

Both revisions whose requirements the suite has, all scenarios, those that are not scored among them.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from harness.live_server import ServerFixture
from harness.server import running
from tests.conformance.everything import everything
from tests.conformance.mcp_suite import REVISIONS, compare, listing


def main() -> int:
    catalogue = asyncio.run(listing(everything()))
    differ = 0
    for revision in REVISIONS:
        with TemporaryDirectory() as folder, running(Path(folder, "server")) as server:
            live_server = ServerFixture(server, Path(folder))
            bare, guarded, agent = compare(live_server, catalogue, Path(folder), revision)
            state = live_server.api("GET", f"/agents/{agent}")["state"]
            findings = live_server.api("GET", "/findings")["findings"]
            live_server.admin.close()
        checks = [status for found in guarded.values() for _, status, _ in found]
        print(
            f"MCP {revision}: {len(bare)} scenarios, {len(checks)} checks, {checks.count('SUCCESS')} passed, "
            f"{checks.count('FAILURE')} failed behind the guard; the agent is {state}, {len(findings)} findings"
        )
        for name in sorted({*bare, *guarded}):
            for one, other in zip(bare.get(name, []), guarded.get(name, []), strict=True):
                if one[:2] != other[:2]:
                    differ += 1
                    print(f"  {name}: {one[0]} {one[1]} bare, {other[1]} guarded: {other[2][:300]}")
        for finding in findings:
            print(f"  finding of {finding['detector']}, {finding['points']} points: {finding['says']}")
        differ += (state != "active") + len(findings)
    return min(differ, 1)


if __name__ == "__main__":
    sys.exit(main())
