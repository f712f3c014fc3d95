"""Telemetry of agents: reduces records of OpenTelemetry to a few kinds of acts, and counts the acts.

Telemetry is the agent's own report, and every ledger entry about telemetry shows this: its action begins with
`telemetry.`, its reporter is the agent, and its tools have names that no tool of a resource can have (`~/read_file`).

    tool    execute_tool, or tools/call of MCP
    model   chat, text_completion, generate_content, embeddings
    agent   invoke_agent, create_agent, invoke_workflow
    mcp     any other method of MCP
    http    a request that is none of these
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import msgspec

from ostiaryd.watch.model.otlp import Record

PREFIX = "telemetry."
FLOOD = "telemetry.flood"
OWN = "~/"
"""Prefix of the names of tools in an agent's own telemetry."""
MAX_EVENTS = 32
"""Maximum number of different kinds of acts in one export. Records of further kinds are rejected."""
_MODEL = frozenset({"chat", "text_completion", "generate_content", "embeddings"})
_AGENT = frozenset({"invoke_agent", "create_agent", "invoke_workflow"})
_WHERE = ("url.full", "server.address", "network.peer.address", "mcp.resource.uri")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./:@-]{0,63}")
_MOST_TOKENS = 1 << 40

Look = Callable[[str], tuple[str, int] | None]
"""A function that returns the name and the points of the threat list that contains a host or an indicator in the text;
None if no list contains one.
"""


class Activity(msgspec.Struct, frozen=True):
    """A kind of act that an agent's telemetry describes, such as calls of one tool."""

    action: str
    tool: str
    model: str
    outcome: str
    threat: tuple[str, int] | None


class Done(msgspec.Struct):
    """The acts of one kind in an export: their number, the time of the last act in microseconds, and the tokens that
    the model consumed.
    """

    count: int = 0
    at: int = 0
    tokens: int = 0


def count_activities(records: Sequence[Record], look: Look) -> tuple[dict[Activity, Done], int]:
    """Count the telemetry records of each kind of act; return the counts, and the number of rejected records.

    Records of further kinds after the first `MAX_EVENTS` kinds are rejected.
    """
    counts: dict[Activity, Done] = {}
    rejected = 0
    for record in records:
        activity = _activity(record, look)
        if activity is None:
            continue
        done = counts.get(activity)
        if done is None:
            if len(counts) == MAX_EVENTS:
                rejected += 1
                continue
            done = counts[activity] = Done()
        done.count += 1
        done.at = max(done.at, record.at)
        done.tokens += _tokens(record, "input") + _tokens(record, "output")
    return counts, rejected


def _activity(record: Record, look: Look) -> Activity | None:
    """Return the kind of act that a record describes; None for work inside the agent."""
    attributes = record.attributes
    operation, method = attributes.get("gen_ai.operation.name"), attributes.get("mcp.method.name")
    where = " ".join(str(attributes[name]) for name in _WHERE if name in attributes)
    if operation == "execute_tool" or method == "tools/call":
        kind = "tool"
    elif operation in _MODEL:
        kind = "model"
    elif operation in _AGENT:
        kind = "agent"
    elif method is not None:
        kind = "mcp"
    elif where:
        kind = "http"
    else:
        return None
    tool = _name(attributes.get("gen_ai.tool.name")) if kind == "tool" else ""
    model = _name(attributes.get("gen_ai.response.model") or attributes.get("gen_ai.request.model"))
    outcome = "error" if record.is_error or "error.type" in attributes else "ok"
    return Activity(PREFIX + kind, OWN + tool if tool else "", model, outcome, look(where) if where else None)


def _name(value: object) -> str:
    """Return the value if it is a well-formed name, otherwise an empty text: any other text could contain content."""
    return value if isinstance(value, str) and _NAME.fullmatch(value) else ""


def _tokens(record: Record, which: str) -> int:
    value = record.attributes.get(f"gen_ai.usage.{which}_tokens")
    return value if isinstance(value, int) and 0 <= value <= _MOST_TOKENS else 0
