"""Setup links: with a setup link a person registers the first passkey or password, or a new one after losing all of
them.

A link has 256 random bits, can be used once, and expires. The server stores its SHA-256. A new link replaces the
earlier link of the person.
"""

from __future__ import annotations

from hashlib import sha256
from typing import NamedTuple

from ostiary.protocol.errors import Invalid, NotFound
from ostiary.protocol.jose import b64u
from ostiaryd.ground.config import Config
from ostiaryd.ground.database import Reader
from ostiaryd.ground.http.html import page_url
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows as registry
from ostiaryd.trust import store
from ostiaryd.trust.model import SECOND

HOUR = 3600 * SECOND
DEFAULT_HOURS, MOST_HOURS = 24, 168


class SetupLink(NamedTuple):
    """A new setup link, which is shown once; `expires_at` in microseconds."""

    url: str
    person: str
    expires_at: int


def create_setup_link(act: Act, id_or_name: str, *, config: Config, hours: int = DEFAULT_HOURS) -> SetupLink:
    """Create and return a link with which a person (id or name) sets up a login, valid for `hours`. Raises NotFound for
    an unknown person, Conflict for a person who may not sign in, Invalid for an unusable lifetime.
    """
    person = registry.active_person(act, id_or_name)
    registry.fill_entry(act, object=person.person_id, name=person.name, hours=hours)
    if not 1 <= hours <= MOST_HOURS:
        raise Invalid(f"`hours` must be 1 to {MOST_HOURS}")
    code = b64u(act.tx.random(32))
    expires_at = act.now + hours * HOUR
    store.people.add_setup_link(act.tx, _digest(code), person=person.person_id, expires_at=expires_at)
    return SetupLink(f"{page_url(config)}/setup?code={code}", person.person_id, expires_at)


def find_setup_link(reader: Reader, unverified_code: str, *, now: int) -> str:
    """Return the id of the person to whom an unused, unexpired setup link belongs. Raises NotFound for any other
    link.
    """
    person = store.people.find_setup_link(reader, _digest(unverified_code), now=now)
    if person is None:
        raise NotFound(
            "the setup link is incomplete, was used before, was replaced by a newer one, or has expired",
            hint="open the whole link, or ask an administrator for a new one: `ostiary person invite NAME`",
            code="setup_link_ended",
        )
    return person


def use_setup_link(act: Act, unverified_code: str) -> str:
    """Delete a setup link, so that it cannot be used again, and return the id of its person. Raises NotFound if the
    link is unknown, was used or replaced, or has expired.
    """
    person = find_setup_link(act.tx, unverified_code, now=act.now)
    store.people.drop_setup_links(act.tx, person)
    return person


def _digest(code: str) -> bytes:
    return sha256(code.encode("utf-8", "surrogatepass")).digest()
