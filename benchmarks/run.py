"""The time that `ostiary run` adds to an MCP call over stdio: `python -m benchmarks.run`.

The same lines to the same server, once over its bare pipe and once with the guard in front: a call that is allowed and
on record, one that is denied, and a message that is not decided. Both ways take turns, so that whatever else the
machine does falls on both; the median of the round trips, how much is added, and the processor time of the guard.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO, Any

from harness.live_server import ServerFixture
from harness.server import running
from harness.stdio_proxy import TOOLS, call

COUNT, WARM = 3000, 200
LIMIT_MS = 1.0
ECHO = """
import sys
for line in sys.stdin.buffer:
    id = line[line.index(b'"id": ') + 6 :].partition(b",")[0]
    sys.stdout.buffer.write(b'{"jsonrpc": "2.0", "id": ' + id + b', "result": {"content": []}}\\n')
    sys.stdout.buffer.flush()
"""


def start(*front: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*front, sys.executable, "-c", ECHO], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    )


def trip(process: subprocess.Popen[bytes], line: bytes) -> float:
    """Milliseconds until the answer."""
    assert process.stdin is not None
    out: IO[bytes] | None = process.stdout
    assert out is not None
    started = time.perf_counter()
    process.stdin.write(line)
    answer = out.readline()
    took = (time.perf_counter() - started) * 1000
    assert answer.startswith(b"{")
    return took


def cpu_ms(pid: int) -> float:
    """Processor time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * 10.0


def compare(name: str, bare: subprocess.Popen[bytes], guarded: subprocess.Popen[bytes], value: dict[str, Any]) -> float:
    """The median that is added; printed."""
    line = json.dumps(value).encode() + b"\n"
    for process in (bare, guarded):
        for _ in range(WARM):
            trip(process, line)
    before = cpu_ms(guarded.pid)
    direct, through = list[float](), list[float]()
    for _ in range(COUNT):
        direct.append(trip(bare, line))
        through.append(trip(guarded, line))
    spent = (cpu_ms(guarded.pid) - before) / COUNT
    low, high = statistics.median(direct), statistics.median(through)
    print(
        f"  {name:<28} bare {low:7.3f} ms   guarded {high:7.3f} ms   added {high - low:7.3f} ms   cpu {spent:6.3f} ms"
    )
    return high - low


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, running(Path(folder) / "data") as server:
        live_server = ServerFixture(server, Path(folder))
        uri = "http://localhost/stdio/bench/files"
        resource, guard = live_server.resource(uri, TOOLS)
        _, agent = live_server.agent(f"{resource}:read")
        plan = Path(folder) / "plan.json"
        given = {"server": "files", "agent": str(agent), "guard": str(guard), "uri": uri, "url": server.url}
        plan.write_text(json.dumps(given | {"spool": f"{folder}/spool", "mode": f"{folder}/mode"}))
        with start() as bare, start(sys.executable, "-m", "ostiary.run", str(plan), "--") as guarded:
            added = compare(
                "a call, allowed, on record", bare, guarded, call(1, "read_file", path="/srv/reports/q3.txt")
            )
            compare("a call, denied", bare, guarded, call(1, "write_file", path="/srv/reports/q3.txt"))
            compare("no call", bare, guarded, {"jsonrpc": "2.0", "id": 1, "method": "ping"})
            for process in (bare, guarded):
                assert process.stdin is not None
                process.stdin.close()
        live_server.admin.close()
        print(f"  {'added at the median, limit':<28} {added:.3f} of {LIMIT_MS} ms")


if __name__ == "__main__":
    main()
