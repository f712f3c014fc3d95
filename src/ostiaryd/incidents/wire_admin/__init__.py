"""Incidents, the kill switch and recent activity for administrators: JSON under /api/v1. Times are seconds since the
epoch.
"""

from ostiaryd.incidents.wire_admin import activity, incidents, kills, overview

ROUTES = incidents.ROUTES + kills.ROUTES + activity.ROUTES + overview.ROUTES
