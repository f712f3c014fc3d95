"""The signed links of alerts: a link leads to the page of an approval request, which requires a login."""

from __future__ import annotations

from ostiaryd.ground.http.edge import Call, Reply
from ostiaryd.ground.http.html import PAGES, see_other
from ostiaryd.ground.http.routes import NOT_FOUND, Route
from ostiaryd.notifications.model.links import PURPOSE, parse_link


async def open_alert(call: Call) -> Reply:
    """Redirect to the console's page of the approval request that the link of an alert names."""
    approval = parse_link(call.params["token"], now=call.world.now(), secret=call.world.keys.derive(PURPOSE))
    return see_other(call, f"/console/approvals/{approval}")


ROUTES = (Route("GET", "/alerts/{token}", open_alert, "", protocol=PAGES, answers={303: None}, errors=(NOT_FOUND,)),)
