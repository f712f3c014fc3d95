"""Operations on threat lists: add, refresh, remove. Guards receive each change in the feed; the detectors' process
learns of it from the ledger.
"""

from __future__ import annotations

from functools import partial
from urllib.parse import urlsplit

import msgspec
from msgspec.structs import asdict

from ostiary.protocol.errors import Conflict, Invalid, NotFound, Refused
from ostiary.provenance.noticing import MOST
from ostiaryd.ground.config import Config
from ostiaryd.ground.database import Reader, Tx
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import ThreatDelta, check_name
from ostiaryd.watch import store
from ostiaryd.watch.engines.lists import MAX_MARKS, Listed
from ostiaryd.watch.model.threats import Form, ListId, ThreatSource

MAX_LISTS = 16
SECOND = 1_000_000
EVERY = 3600 * SECOND
AGAIN = 600 * SECOND
"""Minimum time between two fetches of a list, in microseconds: each changed list is sent to every guard."""
OLD = 86_400 * SECOND
"""Age of the last successful fetch from which `doctor` reports a list, in microseconds."""


class ListChange(msgspec.Struct, frozen=True):
    """The change that a fetched threat list would make: the number of values in the fetched list (`count`), only in the
    fetched list (`new`) and only in the stored list (`gone`), and of items that the server cannot check (`skipped`).
    `failed`: the reason for which the server would not accept the list; the numbers are then None.
    """

    count: int | None = None
    new: int | None = None
    gone: int | None = None
    skipped: int | None = None
    failed: str | None = None


def add(act: Act, *, name: str, url: str, form: Form, points: int) -> ThreatSource:
    """Store and return a new threat list, still without values; its first fetch is due now. `points`: the risk points
    of a match. Raises Invalid for a name or points that are not valid, Conflict if the name is taken (`name_taken`) or
    the limit is reached (`too_many_lists`).
    """
    registry.fill_entry(act, object=check_name(name), points=points)
    if not 1 <= points <= MOST:
        raise Invalid(f"`points` must be 1 to {MOST}")
    if store.threats.by_name(act.tx, name) is not None:
        raise Conflict(
            f"a threat list with the name `{name}` exists",
            hint="list the threat lists: ostiary threats list",
            code="name_taken",
        )
    if len(store.threats.sources(act.tx)) >= MAX_LISTS:
        raise Conflict(
            f"there are already {MAX_LISTS} threat lists, the maximum",
            hint="remove a list: ostiary threats remove NAME",
            code="too_many_lists",
        )
    made = ThreatSource(
        list_id=ListId(act.new_id("tl")),
        name=name,
        url=url,
        form=form,
        points=points,
        created_at=act.now,
        due_at=act.now,
    )
    store.threats.insert(act.tx, made)
    return made


def remove(act: Act, name: str) -> None:
    """Remove a threat list. Raises NotFound for an unknown list."""
    source = find(act.tx, name)
    registry.fill_entry(act, object=source.name)
    store.threats.delete(act.tx, source.list_id)
    registry.queue_for_guards(act, ThreatDelta(source.list_id))


def find(reader: Reader, name: str) -> ThreatSource:
    """Return a threat list by name. Raises NotFound if there is none."""
    if (source := store.threats.by_name(reader, name)) is None:
        raise NotFound(f"there is no threat list {name[:70]!a}", hint="list the threat lists: ostiary threats list")
    return source


def claim_fetch(tx: Tx, source: ThreatSource) -> bool:
    """Reserve the fetch of a list for this process, if the fetch is due and not reserved by another process. Return
    whether the fetch was reserved.
    """
    return store.threats.claim(tx, source.list_id, until=tx.now + AGAIN)


def is_other(reader: Reader, source: ThreatSource, listed: Listed) -> bool:
    """Return whether the values of the fetched list `listed` differ from the stored values."""
    loaded = store.threats.get_threat_list(reader, source.list_id)
    return loaded is None or loaded.marks != listed.marks


def examine_list(act: Act, name: str, listed: Listed | Refused | None) -> ListChange:
    """Record and return the change that a fetched list would make, or why the fetch failed (`listed` is then the
    error). The stored list is not changed.

    Raises NotFound for an unknown list, and Conflict (`no_url`) for a list that was added as text (`listed` is None).
    """
    source = find(act.tx, name)
    registry.fill_entry(act, object=source.name)
    if listed is None or not source.url:
        raise Conflict("the list was added as text and has no URL", hint="add the list again by a URL", code="no_url")
    if isinstance(listed, Refused):
        change = ListChange(failed=listed.message[:200])
    else:
        change = _compare(act.tx, source, listed)
        try:
            _check_room(act.tx, source, listed)
        except Invalid as refusal:
            change = ListChange(failed=refusal.message)
    registry.fill_entry(
        act, object=source.name, **{name: value for name, value in asdict(change).items() if value is not None}
    )
    return change


def accept_list(act: Act, source: ThreatSource, listed: Listed) -> None:
    """Replace the values of a threat list by those of the fetched list `listed`, and notify guards. Raises NotFound if
    the list was removed during the fetch, Invalid if all lists together would have more than `MAX_MARKS` values.
    """
    change = _compare(act.tx, find(act.tx, source.name), listed)
    registry.fill_entry(
        act, object=source.name, count=change.count, new=change.new, gone=change.gone, skipped=change.skipped
    )
    _check_room(act.tx, source, listed)
    store.threats.fill(act.tx, source.list_id, listed.marks, listed.networks)
    store_list(act.tx, source, listed)
    registry.queue_for_guards(act, ThreatDelta(source.list_id))


def _compare(reader: Reader, source: ThreatSource, listed: Listed) -> ListChange:
    loaded = store.threats.get_threat_list(reader, source.list_id)
    before = frozenset[bytes]() if loaded is None else loaded.marks
    return ListChange(len(listed.marks), len(listed.marks - before), len(before - listed.marks), listed.skipped)


def _check_room(reader: Reader, source: ThreatSource, listed: Listed) -> None:
    """Check that all threat lists together do not exceed `MAX_MARKS` values if `source` gets the content `listed`.
    Raises Invalid otherwise.
    """
    if store.threats.count(reader, but=source.list_id) + len(listed.marks) > MAX_MARKS:
        raise Invalid(
            f"with this content, all threat lists together would have more than {MAX_MARKS} values",
            hint="remove a list: ostiary threats remove NAME",
            code="too_many_marks",
        )


def store_list(tx: Tx, source: ThreatSource, listed: Listed) -> None:
    """Record a successful fetch of a list; its values are stored elsewhere. The next fetch is due in an hour, or when
    the first item of the list expires if that is earlier, but not within ten minutes.
    """
    ends = tx.now + EVERY if listed.until is None else min(tx.now + EVERY, max(listed.until, tx.now + AGAIN))
    store.threats.refresh(tx, source.list_id, due_at=ends, skipped=listed.skipped)


def record_failed_fetch(tx: Tx, source: ThreatSource, why: str) -> None:
    """Record the reason `why` a fetch failed. The stored values do not change."""
    store.threats.fail(tx, source.list_id, why[:200])


def own_hosts(config: Config) -> frozenset[str]:
    """Return the hosts of this server, which are left out of every threat list so that a list cannot stop access to the
    server.
    """
    return frozenset({config.trust_domain, urlsplit(config.public_url).hostname or ""})


def describe_problems(reader: Reader, *, now: int) -> tuple[int, list[str]]:
    """Return the number of threat lists, and for each outdated list (without a successful fetch for `OLD`) a text with
    its name and the reason.
    """
    sources = store.threats.sources(reader)
    is_old = partial(_is_old, now=now)
    return len(sources), [f"`{one.name}`: {one.failed or 'not fetched yet'}" for one in filter(is_old, sources)]


def _is_old(source: ThreatSource, *, now: int) -> bool:
    """Return whether a list with a URL is outdated: its last successful fetch is older than `OLD`, or no fetch
    succeeded.
    """
    is_empty = bool(source.failed) and not source.refreshed_at
    return bool(source.url) and (is_empty or now - (source.refreshed_at or source.created_at) > OLD)
