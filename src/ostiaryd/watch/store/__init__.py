"""Stored data of the detectors: one module per noun, SQL only."""

from ostiaryd.watch.store import findings, snapshots, threats

__all__ = ["findings", "snapshots", "threats"]
