"""Reads of the ledger for other packages, and the writes that other packages may do within their own acts.

Each function of the store has a name here that is unique in the package.
"""

from ostiaryd.ledger.store import (
    TOPIC,
    Replayed,
    count_actions,
    count_outcomes,
    forget_evidence,
    forget_used_evidence,
    has_tree,
    put_replayed,
    renew_history,
    use_evidence,
)
from ostiaryd.ledger.store import bodies as list_entry_bodies
from ostiaryd.ledger.store import body as get_entry_body
from ostiaryd.ledger.store import count_acts as count_acts_of_agent
from ostiaryd.ledger.store import end_of_page as find_page_end
from ostiaryd.ledger.store import evidence as get_evidence
from ostiaryd.ledger.store import first_since as find_first_since
from ostiaryd.ledger.store import hash_reader as get_tree_rows
from ostiaryd.ledger.store import head as get_head
from ostiaryd.ledger.store import last_use as get_last_use
from ostiaryd.ledger.store import log_key as get_log_key
from ostiaryd.ledger.store import losses as list_losses
from ostiaryd.ledger.store import place_of as count_entries_before
from ostiaryd.ledger.store import replayed as list_replayed
from ostiaryd.ledger.store import search as search_entries
from ostiaryd.ledger.store import with_facts as list_entries_with_facts

__all__ = [
    "TOPIC",
    "Replayed",
    "count_actions",
    "count_acts_of_agent",
    "count_entries_before",
    "count_outcomes",
    "find_first_since",
    "find_page_end",
    "forget_evidence",
    "forget_used_evidence",
    "get_entry_body",
    "get_evidence",
    "get_head",
    "get_last_use",
    "get_log_key",
    "get_tree_rows",
    "has_tree",
    "list_entries_with_facts",
    "list_entry_bodies",
    "list_losses",
    "list_replayed",
    "put_replayed",
    "renew_history",
    "search_entries",
    "use_evidence",
]
