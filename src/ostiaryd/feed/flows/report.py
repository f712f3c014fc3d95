"""Reports of guards: each record becomes exactly one entry, and an entry names each range of missing records."""

from __future__ import annotations

from collections import Counter, defaultdict
from functools import lru_cache

from ostiary.decision.report import CallRecord, Report, ResultRecord
from ostiary.protocol.errors import Forbidden
from ostiary.provenance.noticing import Event
from ostiaryd.feed import store
from ostiaryd.feed.flows.profiles import learn_calls
from ostiaryd.feed.flows.sources import ObservedSource, learn_sources
from ostiaryd.feed.model import ReportEntries, Reporter, event_of, question_of, tell_call, tell_result, tell_undecided
from ostiaryd.ledger.flows import Act
from ostiaryd.policy import flows as policy
from ostiaryd.registry import flows as registry
from ostiaryd.tasks import flows as tasks


def take_report(act: Act, report: Report, *, resource_id: str) -> int:
    """Write the ledger entries of a guard's report; return the number of the record that the server expects next.

    Records that the server already has are skipped, so a guard may send a report again. Raises NotFound if the resource
    is unknown; Forbidden if the spool (the guard's numbered records) belongs to another resource.
    """
    resource = registry.find_resource(act.tx, resource_id)
    spool = store.spool(act.tx, report.spool)
    if spool is not None and spool[0] != resource_id:
        raise Forbidden("the spool belongs to another resource", hint="give each resource a `spool_dir` of its own")
    expected = 1 if spool is None else spool[1]
    entries = ReportEntries(
        Reporter(resource_id=resource_id, name=resource.name, uri=resource.uri, spool=report.spool), act.now
    )
    if report.first > expected:
        entries.gap(expected, report.first - 1)
        tasks.report_lost(act.tx, report.spool)
    spent: Counter[str] = Counter()
    unused: Counter[str] = Counter()
    done: defaultdict[str, list[Event]] = defaultdict(list)
    sources: list[ObservedSource] = []
    owner = lru_cache(maxsize=None)(lambda agent: _owner(act, agent))
    for number, record in enumerate(report.records, report.first):
        if number < expected:
            continue
        if isinstance(record, ResultRecord):
            unused.update(record.unused)
            tell_result(entries, number, record)
            continue
        holding = registry.get_holding(act.tx, record.token)
        owned = owner(holding.agent) if holding is not None else None
        if not isinstance(record, CallRecord):
            tell_undecided(entries, number, record, holding, owner=owned)
            continue
        spent.update(record.spent)
        tell_call(entries, number, record, holding, owner=owned)
        if holding is None or number not in entries.calls:
            continue
        policy.keep_facts(act, entries.calls[number], [question_of(entries, record, holding)], at=record.at)
        done[holding.agent].append(event_of(entries, number, record))
        if record.outcome == "allow":
            sources += [ObservedSource(record.tool, one, holding.agent, holding.task or "") for one in record.sources]
    following = max(expected, report.first + len(report.records))
    store.save_spool(act.tx, report.spool, resource_id=resource_id, next=following)
    tasks.report_spent(act.tx, report.spool, spent, unused)
    learn_calls(act, resource_id, done)
    learn_sources(act, resource, sources)
    act.further_entries = entries.entries
    act.entry.resource = resource.uri
    act.entry.detail = {"spool": report.spool, "first": report.first, "records": len(report.records)}
    return following


def _owner(act: Act, agent: str) -> str | None:
    agent_row = registry.get_agent(act.tx, agent)
    return None if agent_row is None else agent_row.owner
