"""The guard: enforcement of the server's decisions inside the program that serves the tools."""

from ostiary.guard.call import Call, Denied, Verified, Withheld
from ostiary.guard.denial_text import data_for_developer, text_for_model
from ostiary.guard.feed import Feed
from ostiary.guard.guard import Guard
from ostiary.guard.knowledge import FeedBroken, FeedStale, KeyUnheard
from ostiary.guard.proofs import NonceNeeded
from ostiary.guard.spool import SpoolFailed

__all__ = [
    "Call",
    "Denied",
    "Feed",
    "FeedBroken",
    "FeedStale",
    "Guard",
    "KeyUnheard",
    "NonceNeeded",
    "SpoolFailed",
    "Verified",
    "Withheld",
    "data_for_developer",
    "text_for_model",
]
