"""Restrictions of an agent, as its caller gets them from a guard in front of a server."""

from __future__ import annotations

import httpx2

from harness.feeder import AGENT, SECOND, Feeder
from ostiary.asgi import GuardASGI
from ostiary.authorization.assurance import ACRS, INSUFFICIENT, TWO_KEYS
from ostiary.decision.feed import RestrictionFact
from ostiary.guard import Guard
from tests.guard.asgi_fixtures import ORIGIN, app, error, signed


async def get(guard: Guard, feeder: Feeder, **token: object) -> httpx2.Response:
    served = GuardASGI(app, guard, tool={"GET /files/{path*}": "read_file", "PUT /files/{path}": "write_file"})
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(served), base_url=ORIGIN) as http:
        return await http.get("/files/a", headers=signed(guard, feeder, "GET", "/files/a", **token))


async def test_a_step_up_restriction_challenges_for_a_stronger_and_newer_authentication(
    guard: Guard, feeder: Feeder
) -> None:
    feeder.clock.advance(us=SECOND - feeder.clock() % SECOND)
    since = feeder.clock()
    feeder.say(RestrictionFact(AGENT, "step_up", 1, since, since + 3600 * SECOND))
    feeder.clock.advance(3)
    feeder.say()
    denied = await get(guard, feeder, acr="urn:ostiary:acr:key", auth_time=feeder.clock() // SECOND)
    challenge = denied.headers["www-authenticate"]
    assert (denied.status_code, error(denied)) == (401, INSUFFICIENT)
    assert f'acr_values="{" ".join(ACRS[ACRS.index(TWO_KEYS) :])}"' in challenge
    assert 'max_age="3"' in challenge
    assert (await get(guard, feeder, acr=TWO_KEYS, auth_time=since // SECOND - 1)).status_code == 401
    assert (await get(guard, feeder, acr=TWO_KEYS, auth_time=since // SECOND)).status_code == 200


async def test_a_throttled_call_that_cannot_be_counted_gets_503(guard: Guard, feeder: Feeder) -> None:
    now = feeder.clock()
    feeder.say(RestrictionFact(AGENT, "throttle", 9, now, now + 3600 * SECOND))
    refused = await get(guard, feeder)
    assert (refused.status_code, refused.json()["error"]) == (503, "pace_unavailable")
