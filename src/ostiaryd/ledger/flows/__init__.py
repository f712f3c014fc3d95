"""Acts and their entries, the comparisons of the ledger with its pin and its indexes, and queries of other packages."""

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
    declare_loss,
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
from ostiaryd.ledger.flows.indexes import check_indexes
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
    "check_indexes",
    "declare_loss",
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
