"""What-if: its permission, its range of entries, and the check of its ticket when the set is put."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from ostiary.protocol.errors import Conflict, Forbidden, Invalid
from ostiaryd.ledger import flows as ledger
from ostiaryd.ledger.flows import Act
from ostiaryd.policy.model import check_files, digest, open_ticket, ticket_key
from ostiaryd.registry.flows import fill_entry
from ostiaryd.registry.model import DECIDE, Caller


class Span(NamedTuple):
    """A range of entries: from the index `first` up to, but not including, `stop`."""

    first: int
    stop: int


def begin_whatif(act: Act, files: Mapping[str, str], *, since: int, until: int | None, by: Caller) -> Span:
    """Record the what-if in the entry; return the range of ledger entries to replay. Raises Forbidden for an agent
    without the scope, Malformed or Invalid for unusable files, Invalid for an empty period.

    A caller could learn values of arguments by specially written policy sets. An agent therefore needs the scope of the
    decision point besides the scope to read; for a person, role policies have decided already.
    """
    if not (by.kind == "person" or by.is_admin or DECIDE in by.scopes):
        raise Forbidden(f"what-if needs the scope `{DECIDE}` too", hint="request a token with this scope")
    check_files(files)
    fill_entry(act, object=digest(files), since=since, until=until)
    if until is not None and until <= since:
        raise Invalid("`until` is not after `since`")
    size = ledger.get_head(act.tx)[0].size
    first, stop = (size if at is None else ledger.find_first_since(act.tx, at) for at in (since, until))
    return Span(size if first is None else first, size if stop is None else stop)


class Gate(NamedTuple):
    """A condition for putting a set: the what-if report whose ticket is given must show at most `max_changes` changed
    verdicts. The ticket is not verified yet.
    """

    unverified_ticket: str
    max_changes: int


def check_gate(act: Act, gate: Gate, *, hash: str, by: Caller | None) -> None:
    """Check that a ticket permits the switch to the set `hash`. Raises Invalid for the ticket of another set, Conflict
    for too many changes.

    A decision that could not be replayed counts as a change.
    """
    caller = "" if by is None else by.id
    key = ticket_key(act.tx.keys.secret("nonce"))
    ticket = open_ticket(gate.unverified_ticket, key=key, caller=caller, now=act.now)
    fill_entry(
        act, object=hash, changed=ticket.changed, not_known=ticket.not_known, entries=[ticket.first, ticket.stop]
    )
    if ticket.policy != hash:
        raise Invalid("the ticket is for another set", hint="run the what-if for this set", code="foreign_ticket")
    if ticket.changed + ticket.not_known > gate.max_changes:
        also = f", and {ticket.not_known} could not be replayed" if ticket.not_known else ""
        raise Conflict(
            f"{ticket.changed} recorded verdicts would change{also}; at most {gate.max_changes} may",
            hint="nothing was changed; to activate the set, allow more with --max-changes",
            code="would_change",
        )
