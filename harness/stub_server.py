"""A stdio server that implements only the parts of MCP that a test needs, writes every received byte to a file, and can
misbehave.

Usage: stub_server.py HEARD
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from typing import Any


def say(value: Any) -> None:
    sys.stdout.buffer.write(json.dumps(value).encode() + b"\n")
    sys.stdout.buffer.flush()


def answer(message: dict[str, Any]) -> None:
    if "id" not in message or "method" not in message:
        return
    params = message.get("params", {})
    arguments = params.get("arguments", {}) if isinstance(params, dict) else {}
    result: dict[str, Any] = {"content": [{"type": "text", "text": json.dumps(arguments)}]}
    match params.get("name") if message["method"] == "tools/call" else message["method"]:
        case "die":
            os._exit(7)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "silent":
            return
        case "slow":
            time.sleep(arguments["seconds"])
        case "large":
            result["content"][0]["text"] = "x" * arguments["size"]
        case "fail":
            result["isError"] = True
        case "refuse":
            say({"jsonrpc": "2.0", "id": message["id"], "error": {"code": -32602, "message": "no"}})
            return
        case "ask":
            say({"jsonrpc": "2.0", "id": "from-the-server", "method": "sampling/createMessage", "params": {}})
        case "endless":
            while True:
                sys.stdout.buffer.write(b"x" * (1 << 20))
        case "ping" if params.get("updates"):
            say({"jsonrpc": "2.0", "method": "notifications/resources/updated", "params": {"uri": "file:///a"}})
        case "tools/list":
            result = {"tools": [{"name": "read_file"}, {"name": "brand_new"}]}
    say({"jsonrpc": "2.0", "id": message["id"], "result": result})


with open(sys.argv[1], "ab", buffering=0) as heard:
    while line := sys.stdin.buffer.readline():
        heard.write(line)
        try:
            said = json.loads(line)
        except ValueError:
            continue
        if isinstance(said, list):
            for one in said:
                answer(one)
        else:
            answer(said)
    heard.write(b"[end]")
