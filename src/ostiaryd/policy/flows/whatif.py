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
    """A range of ledger entries: from the index `first` up to, but not including, `stop`."""

    first: int
    stop: int


def begin_whatif(act: Act, files: Mapping[str, str], *, since: int, until: int | None, by: Caller) -> Span:
    """Record in the ledger entry that a caller replays recorded decisions under the policy set in `files` (a what-if);
    return the range of entries to replay, between the times `since` and `until` (microseconds; None: until now). Raises
    Forbidden for an agent that has neither the scope `DECIDE` nor `ostiary:admin`, Malformed or Invalid for unusable
    files, Invalid for an empty period.

    A caller could learn values of arguments by specially written policy sets. An agent therefore needs the scope
    `DECIDE` besides the scope to read; for a person, role policies have decided already.
    """
    if not (by.kind == "person" or by.is_admin or DECIDE in by.scopes):
        raise Forbidden(
            f"a what-if needs the scope `{DECIDE}` besides the scope to read", hint="request a token with both scopes"
        )
    check_files(files)
    fill_entry(act, object=digest(files), since=since, until=until)
    if until is not None and until <= since:
        raise Invalid("`until` is not after `since`")
    size = ledger.get_head(act.tx)[0].size
    first, stop = (size if at is None else ledger.find_first_since(act.tx, at) for at in (since, until))
    return Span(size if first is None else first, size if stop is None else stop)


class Gate(NamedTuple):
    """A condition for the activation of a set: in the what-if whose ticket is given, at most `max_changes` verdicts may
    have changed. The ticket is not verified yet.
    """

    unverified_ticket: str
    max_changes: int


def check_gate(act: Act, gate: Gate, *, hash: str, by: Caller | None) -> None:
    """Check that the ticket of a what-if permits the activation of the set `hash` by the caller `by`. Raises Invalid
    for a ticket of another set or caller and for an expired one, Conflict if more than `max_changes` verdicts would
    change.

    A decision that could not be replayed counts as a change.
    """
    caller = "" if by is None else by.id
    key = ticket_key(act.tx.keys.secret("nonce"))
    ticket = open_ticket(gate.unverified_ticket, key=key, caller=caller, now=act.now)
    fill_entry(
        act, object=hash, changed=ticket.changed, not_known=ticket.not_known, entries=[ticket.first, ticket.stop]
    )
    if ticket.policy != hash:
        raise Invalid(
            "the ticket in `whatif` is for another policy set",
            hint="run a what-if for this set, and send its ticket",
            code="foreign_ticket",
        )
    if ticket.changed + ticket.not_known > gate.max_changes:
        also = f", and {ticket.not_known} could not be replayed" if ticket.not_known else ""
        raise Conflict(
            f"{ticket.changed} recorded verdicts would change{also}; at most {gate.max_changes} may",
            hint="nothing was changed; to activate the set, allow more changes with --max-changes (`max_changes`)",
            code="would_change",
        )
