"""The tables of signals, issuers and streams."""

from ostiaryd.signals.store import (
    issuers,
    signals,
    streams,
)

__all__ = [
    "issuers",
    "signals",
    "streams",
]
