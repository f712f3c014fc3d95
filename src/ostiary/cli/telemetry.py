"""`ostiary telemetry`: a door for OpenTelemetry on this machine, which proves the agent's key."""

from __future__ import annotations

import threading
from pathlib import Path

from ostiary.agent import Agent
from ostiary.cli.files import read_bytes
from ostiary.cli.paper import out
from ostiary.cli.session import Here
from ostiary.keys import parse_credential
from ostiary.telemetry import PORT, relay


def telemetry(*, as_: Path, port: int = PORT, session: Here) -> None:
    """Take an agent's OpenTelemetry here, and prove its key.

    OTLP over HTTP, from this machine alone, until it is interrupted.

    Args:
        as_: Credential of the agent.
        port: Where exporters send to; 0 takes a free one.
    """
    with (
        Agent(parse_credential(read_bytes(as_), of=as_), url=session.url) as agent,
        relay(agent, port=port) as url,
    ):
        out.print(f"OTEL_EXPORTER_OTLP_ENDPOINT={url}", markup=False)
        threading.Event().wait()
