"""Issuers and streams of Shared Signals for administrators: JSON under /api/v1. Times are seconds since the epoch."""

from ostiaryd.signals.wire_admin import issuers, streams

ROUTES = issuers.ROUTES + streams.ROUTES
