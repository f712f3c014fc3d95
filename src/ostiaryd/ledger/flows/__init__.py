"""Acts and their entries, the comparison of the ledger with its pin, and the queries for other packages."""

from ostiaryd.ledger.flows import queries
from ostiaryd.ledger.flows.acts import (
    DAY,
    IN_RECOVERY,
    PIN,
    Act,
    Refusals,
    act,
    check_after_loss,
    check_history,
    describe_loss,
    examine_head,
    examine_history,
    follow_recovery,
    forget_facts,
    keep_checkpoint,
    lose_history,
    loss_in_words,
    present_history,
    read_head,
    record_refusal,
    recorded,
    summarise_refusals,
    sync_pin,
)
from ostiaryd.ledger.flows.queries import *

__all__ = [
    "DAY",
    "IN_RECOVERY",
    "PIN",
    "Act",
    "Refusals",
    "act",
    "check_after_loss",
    "check_history",
    "describe_loss",
    "examine_head",
    "examine_history",
    "follow_recovery",
    "forget_facts",
    "keep_checkpoint",
    "lose_history",
    "loss_in_words",
    "present_history",
    "read_head",
    "record_refusal",
    "recorded",
    "summarise_refusals",
    "sync_pin",
]
__all__ += queries.__all__
