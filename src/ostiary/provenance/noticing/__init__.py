"""Detection of unusual behaviour at guards and at the server: events, findings, and the risk score that they raise.

At a guard, for each call of a task before it runs:

    event = Event(.., **traced(session, memory, tool, arguments, context)._asdict())
    noticed = notice(profile, session, event)                              the findings about the call
    session = extend_session(session, memory, tool, arguments, output)     after it has returned

At the server, for each allowed call: `profile = learn(profile, event)`.
"""

from ostiary.provenance.noticing.event import Event
from ostiary.provenance.noticing.finding import MAX_SAYS, Noticed
from ostiary.provenance.noticing.noticing import notice, total_points
from ostiary.provenance.noticing.profile import MAX_PROFILE, NEW, Profile, learn, pack, unpack
from ostiary.provenance.noticing.risk import CALM, HALF_LIFE, MOST, Risk
from ostiary.provenance.noticing.session import BEGUN, Session, extend_session
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
    "extend_session",
    "learn",
    "notice",
    "pack",
    "total_points",
    "traced",
    "unpack",
]
