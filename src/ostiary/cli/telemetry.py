"""`ostiary telemetry`: a local OpenTelemetry endpoint that adds the proof of an agent's key."""

from __future__ import annotations

import threading
from pathlib import Path

from ostiary.agent import Agent
from ostiary.cli.files import read_bytes
from ostiary.cli.output import out
from ostiary.cli.session import Here
from ostiary.keys import parse_credential
from ostiary.telemetry import PORT, relay


def telemetry(*, as_: Path, port: int = PORT, session: Here) -> None:
    """Forward an agent's OpenTelemetry to the server.

    Receives OTLP over HTTP on this machine only, and adds a proof of the agent's key to each request to the server.
    Runs until Ctrl-C.

    Args:
        as_: Credential of the agent.
        port: Port to which the agent's exporters send; for 0, the system chooses a free port.
    """
    with (
        Agent(parse_credential(read_bytes(as_), of=as_), url=session.url) as agent,
        relay(agent, port=port) as url,
    ):
        out.print(f"OTEL_EXPORTER_OTLP_ENDPOINT={url}", markup=False)
        threading.Event().wait()
