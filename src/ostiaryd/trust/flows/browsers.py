"""Known browsers: browsers in which a person has signed in before. In a known browser, failed logins by other people do
not delay the person.

After a login, the browser keeps a signed cookie. Failed logins for that person in that browser are counted in a
separate throttle slot, and the slots of the name and of the network, which anyone can fill, do not apply. The limit of
the separate slot is not higher, so a stolen cookie does not allow more guesses.
"""

from __future__ import annotations

import hmac

import msgspec

from ostiary.protocol.decoding import json_decoder
from ostiary.protocol.jose import b64u
from ostiaryd.ground.crypto.keyring import Keyring
from ostiaryd.ground.http.edge import Call, Headers
from ostiaryd.trust.flows.sessions import one_cookie, open_cookie, seal_cookie, set_cookie
from ostiaryd.trust.model import SECOND
from ostiaryd.trust.model.sessions import BROWSER_COOKIE

LIFETIME_S = 180 * 86_400
MAX_PERSONS = 4
"""Maximum number of persons in the cookie of a browser. The cookie keeps the persons who signed in most recently."""
_PURPOSE = "known browser"


class KnownBrowser(msgspec.Struct, frozen=True):
    """The content of the browser cookie: a random value, and for the digest of each person the time of the last login,
    in seconds since the epoch.
    """

    nonce: str
    persons: dict[str, int]


_encode = msgspec.json.Encoder().encode
_decode = json_decoder(KnownBrowser)


def name_browser(call: Call, person: str | None) -> str:
    """Return the name of the throttle slot of this browser and person; empty if the person has not signed in with this
    browser within `LIFETIME_S`.
    """
    browser = _read(call)
    if person is None or browser is None:
        return ""
    signed_in_at = browser.persons.get(_digest(call.world.keys, browser.nonce, person), 0)
    is_known = 0 <= call.world.now() // SECOND - signed_in_at < LIFETIME_S
    return f"{browser.nonce} {person}" if is_known else ""


def browser_headers(call: Call, person: str) -> Headers:
    """Return the header that sets the browser cookie for a person who has just signed in."""
    keys, now = call.world.keys, call.world.now() // SECOND
    browser = _read(call) or KnownBrowser(b64u(call.world.random(16)), {})
    others = {one: at for one, at in browser.persons.items() if now - at < LIFETIME_S}
    persons = others | {_digest(keys, browser.nonce, person): now}
    last = dict(sorted(persons.items(), key=lambda one: -one[1])[:MAX_PERSONS])
    sealed = seal_cookie(keys, _PURPOSE, _encode(KnownBrowser(browser.nonce, last)))
    return [set_cookie(BROWSER_COOKIE, sealed, max_age_s=LIFETIME_S)]


def _read(call: Call) -> KnownBrowser | None:
    content = open_cookie(call.world.keys, _PURPOSE, one_cookie(call, BROWSER_COOKIE))
    return None if content is None else _decode(content)


def _digest(keys: Keyring, nonce: str, person: str) -> str:
    """Return the digest of a person in one cookie. The digest depends on a secret of the server, so a reader of the
    cookie cannot tell who signed in.
    """
    return b64u(hmac.digest(keys.derive(_PURPOSE), f"{nonce} {person}".encode(), "sha256")[:12])
