"""What we do about what has happened, for administrators: JSON under /api/v1. Times are seconds since the epoch."""

from ostiaryd.respond.wire_admin import activity, incidents, issuers, kills, streams, webhooks

ROUTES = webhooks.ROUTES + incidents.ROUTES + kills.ROUTES + activity.ROUTES + issuers.ROUTES + streams.ROUTES
FOR_PEOPLE = incidents.FOR_PEOPLE
"""Wires that ask for no scope and that people with a key may call."""
