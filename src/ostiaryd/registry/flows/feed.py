"""Notifies guards of changes."""

from __future__ import annotations

import msgspec

from ostiaryd.ground.outbound import outbox
from ostiaryd.ledger.flows import Act

FEED_TOPIC = "feed"
_encode = msgspec.json.Encoder().encode


def queue_for_guards(act: Act, delta: msgspec.Struct) -> None:
    """Queue a change for the feed to all guards. The feed sends the change after the commit of this act."""
    outbox.emit(act.tx, FEED_TOPIC, _encode(delta))
