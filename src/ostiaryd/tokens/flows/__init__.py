"""What happens to tokens and to the keys that sign them: one function per verb."""

from ostiaryd.tokens.flows.introspect import Asker, asker_by_assertion, asker_by_token, introspect, revoke
from ostiaryd.tokens.flows.issue import Grant, Issued, issue
from ostiaryd.tokens.flows.keys import forget_keys, rotate_key

__all__ = [
    "Asker",
    "Grant",
    "Issued",
    "asker_by_assertion",
    "asker_by_token",
    "forget_keys",
    "introspect",
    "issue",
    "revoke",
    "rotate_key",
]
