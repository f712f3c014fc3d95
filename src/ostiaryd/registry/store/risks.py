"""Stored risk scores of agents and tasks with recent findings. The package `watch` writes them."""

from __future__ import annotations

from collections.abc import Iterable

from ostiary.provenance.noticing import CALM, Risk
from ostiaryd.ground.database import Reader, Tx, sql

_GET = sql("select millis, at from risk where subject = :subject")
_PUT = sql(
    """insert into risk (subject, millis, at) values (:subject, :millis, :at)
       on conflict (subject) do update set millis = excluded.millis, at = excluded.at"""
)
_SINCE = sql("select subject, millis, at from risk where at > :since order by at, subject")
_WORST = sql(
    """select subject, millis, at from risk where at > :since and subject >= 'ag_' and subject < 'ag`'
       order by millis desc, subject limit :limit"""
)
_FORGET = sql("delete from risk where at <= :before")


def get_risk(reader: Reader, subject: str) -> Risk:
    """Return the risk score of an agent or a task (0 without findings)."""
    row = reader.one(_GET, subject=subject)
    return CALM if row is None else Risk(*row)


def get_risks(reader: Reader, subjects: Iterable[str]) -> dict[str, Risk]:
    """Return the risk scores of agents and tasks, by their ids."""
    return {subject: get_risk(reader, subject) for subject in subjects}


def put_risk(tx: Tx, subject: str, risk: Risk) -> None:
    """Store a risk score."""
    tx.send(_PUT, subject=subject, millis=risk.millis, at=risk.at)


def list_risks(reader: Reader, since: int) -> list[tuple[str, Risk]]:
    """Return the risk scores that changed after `since` (microseconds), as (subject, score)."""
    return [(subject, Risk(millis, at)) for subject, millis, at in reader.all(_SINCE, since=since)]


def list_riskiest_agents(reader: Reader, *, since: int, limit: int) -> list[tuple[str, Risk]]:
    """Return the `limit` agents with the highest risk scores, as (agent id, score). Scores that changed at or before
    `since` (microseconds) are left out.
    """
    return [(subject, Risk(millis, at)) for subject, millis, at in reader.all(_WORST, since=since, limit=limit)]


def forget_risks(tx: Tx, *, before: int) -> int:
    """Delete the scores that last changed before `before` (microseconds); return their number."""
    return tx.run(_FORGET, before=before)
