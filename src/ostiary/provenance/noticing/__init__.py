"""What behaviour is noticed by, at guards and at the server: events, findings, and the risk that they raise.

At a guard, of each call of a task before it runs:

    event = Event(.., **traced(session, memory, tool, arguments, beside)._asdict())
    noticed = notice(profile, session, event)                       what is odd about it
    session = told(session, memory, tool, arguments, output)        once it has returned

and at the server, of each call that was let through: `profile = learn(profile, event)`.
"""

from ostiary.provenance.noticing.event import Event
from ostiary.provenance.noticing.finding import MAX_SAYS, Noticed
from ostiary.provenance.noticing.noticing import doubt, notice
from ostiary.provenance.noticing.profile import MAX_PROFILE, NEW, Profile, learn, pack, unpack
from ostiary.provenance.noticing.risk import CALM, HALF_LIFE, MOST, Risk
from ostiary.provenance.noticing.session import BEGUN, Session, told
from ostiary.provenance.noticing.traced import Traced, traced

__all__ = [
    "BEGUN",
    "CALM",
    "HALF_LIFE",
    "MAX_PROFILE",
    "MAX_SAYS",
    "MOST",
    "NEW",
    "Event",
    "Noticed",
    "Profile",
    "Risk",
    "Session",
    "Traced",
    "doubt",
    "learn",
    "notice",
    "pack",
    "told",
    "traced",
    "unpack",
]
