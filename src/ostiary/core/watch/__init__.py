"""What behaviour is noticed by, at guards and at the server: events, findings, and the risk that they raise."""

from ostiary.core.watch.event import Event
from ostiary.core.watch.finding import MAX_SAYS, Noticed
from ostiary.core.watch.risk import CALM, HALF_LIFE, MOST, Risk

__all__ = ["CALM", "HALF_LIFE", "MAX_SAYS", "MOST", "Event", "Noticed", "Risk"]
