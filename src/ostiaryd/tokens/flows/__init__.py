"""Operations on tokens and on the keys that sign them: one function per verb."""

from ostiaryd.tokens.flows.authorization import forget
from ostiaryd.tokens.flows.backchannel import forget_requests, note_poll, redeem, store_backchannel_request
from ostiaryd.tokens.flows.consents import end_client, find_consent, withdraw
from ostiaryd.tokens.flows.devices import NewDevice, find_device, note_device_poll, redeem_device, request_device
from ostiaryd.tokens.flows.exchange import Exchange, exchange
from ostiaryd.tokens.flows.grants import Granted, Reused, TokenRequest, end_reused, redeem_code, refresh
from ostiaryd.tokens.flows.introspect import (
    Asker,
    asker_by_assertion,
    asker_by_client,
    asker_by_secret,
    asker_by_token,
    introspect,
    revoke,
)
from ostiaryd.tokens.flows.issue import Grant, issue
from ostiaryd.tokens.flows.keys import forget_keys, rotate_key
from ostiaryd.tokens.flows.logout import close_session, deliver_logouts, follow_sessions
from ostiaryd.tokens.flows.mint import Issued
from ostiaryd.tokens.flows.suspension import suspend_person
from ostiaryd.tokens.flows.userinfo import read_userinfo
from ostiaryd.tokens.store.backchannel import settle_backchannel
from ostiaryd.tokens.store.consents import end_all_consents, list_consents, page_consents

__all__ = [
    "Asker",
    "Exchange",
    "Grant",
    "Granted",
    "Issued",
    "NewDevice",
    "Reused",
    "TokenRequest",
    "asker_by_assertion",
    "asker_by_client",
    "asker_by_secret",
    "asker_by_token",
    "close_session",
    "deliver_logouts",
    "end_all_consents",
    "end_client",
    "end_reused",
    "exchange",
    "find_consent",
    "find_device",
    "follow_sessions",
    "forget",
    "forget_keys",
    "forget_requests",
    "introspect",
    "issue",
    "list_consents",
    "note_device_poll",
    "note_poll",
    "page_consents",
    "read_userinfo",
    "redeem",
    "redeem_code",
    "redeem_device",
    "refresh",
    "request_device",
    "revoke",
    "rotate_key",
    "settle_backchannel",
    "store_backchannel_request",
    "suspend_person",
    "withdraw",
]
