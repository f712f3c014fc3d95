"""What we do about what has happened, for administrators: JSON under /api/v1. Times are seconds since the epoch."""

from ostiaryd.respond.wire_admin import webhooks

ROUTES = webhooks.ROUTES
