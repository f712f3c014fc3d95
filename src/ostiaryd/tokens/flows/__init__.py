"""Operations on tokens and on the keys that sign them: one function per verb."""

from ostiaryd.tokens.flows.backchannel import await_person, forget_requests, note_poll, redeem, settle_backchannel
from ostiaryd.tokens.flows.exchange import Exchange, exchange
from ostiaryd.tokens.flows.introspect import Asker, asker_by_assertion, asker_by_token, introspect, revoke
from ostiaryd.tokens.flows.issue import Grant, issue
from ostiaryd.tokens.flows.keys import forget_keys, rotate_key
from ostiaryd.tokens.flows.mint import Issued

__all__ = [
    "Asker",
    "Exchange",
    "Grant",
    "Issued",
    "asker_by_assertion",
    "asker_by_token",
    "await_person",
    "exchange",
    "forget_keys",
    "forget_requests",
    "introspect",
    "issue",
    "note_poll",
    "redeem",
    "revoke",
    "rotate_key",
    "settle_backchannel",
]
