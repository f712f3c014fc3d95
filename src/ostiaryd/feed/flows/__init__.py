"""Operations on the feed: the streams to guards, the reports of guards, and the wait until guards acknowledge a
change.
"""

from ostiaryd.feed.flows.asking import check_ask, count_call, note_asked, refuse_secret, search_text
from ostiaryd.feed.flows.behaviour import describe_behaviour
from ostiaryd.feed.flows.guards import Guard, Guards, send_test, share_guards
from ostiaryd.feed.flows.memory import add_outputs, happen, past, recall
from ostiaryd.feed.flows.missing import find_missing_guards
from ostiaryd.feed.flows.profiles import forget_profiles
from ostiaryd.feed.flows.replay import Delivered, follow_history, replay_messages
from ostiaryd.feed.flows.report import take_report
from ostiaryd.feed.flows.slices import draw, give_back, settle
from ostiaryd.feed.flows.sources import argument_sources
from ostiaryd.feed.flows.streams import Streams

__all__ = [
    "Delivered",
    "Guard",
    "Guards",
    "Streams",
    "add_outputs",
    "argument_sources",
    "check_ask",
    "count_call",
    "describe_behaviour",
    "draw",
    "find_missing_guards",
    "follow_history",
    "forget_profiles",
    "give_back",
    "happen",
    "note_asked",
    "past",
    "recall",
    "refuse_secret",
    "replay_messages",
    "search_text",
    "send_test",
    "settle",
    "share_guards",
    "take_report",
]
