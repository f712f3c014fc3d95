"""Stored state of the detectors.

A snapshot is written in several small transactions. Its pieces get a new generation number, beside the pieces of the
earlier generation. The new pieces become valid when the last transaction writes the snapshot itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ostiaryd.ground.database import Reader, Tx, sql
from ostiaryd.watch.model import Piece, Progress

_PROGRESS = sql("select told, told_by, generation, snapshot from watcher where id = 1")
_TOLD = sql("update watcher set told = :told, told_by = :by where id = 1")
_PIECES = sql(
    """select key, body from watched as piece
       where key > :after and generation = (
           select max(generation) from watched as version
           where version.key = piece.key and version.generation <= :generation
       ) order by key limit :limit"""
)
_PUT = sql(
    """insert into watched (key, generation, body) values (:key, :generation, :body)
       on conflict (key, generation) do update set body = excluded.body"""
)
_SUPERSEDED = sql(
    """delete from watched where key = :key and generation < (
           select max(generation) from watched as version where version.key = :key and version.generation < :generation
       )"""
)
_UNFINISHED = sql("delete from watched where generation > :generation")
_FORGET = sql("delete from watched where key = :key")
_FINISH = sql("update watcher set generation = :generation, snapshot = :snapshot where id = 1")


def progress(reader: Reader) -> Progress:
    """Return the stored progress of the detectors."""
    row = reader.one(_PROGRESS)
    assert row is not None  # the row exists: its migration inserts it
    reported, by, generation, snapshot = row
    return Progress(reported, by, generation, None if snapshot is None else bytes(snapshot))


def put_told(tx: Tx, number: int, detector: str) -> None:
    """Store the progress: all findings about entries below `number` are stored, and about the entry `number` the
    findings of the detectors up to `detector` in alphabetical order.
    """
    tx.run(_TOLD, told=number, by=detector)


def pieces(reader: Reader, generation: int, *, after: str, limit: int) -> list[Piece]:
    """Return at most `limit` pieces of the valid snapshot with this generation number, ordered by key, beginning after
    the key `after`. A piece that has not changed lately has an earlier generation number.
    """
    rows = reader.all(_PIECES, generation=generation, after=after, limit=limit)
    return [Piece(key, bytes(body)) for key, body in rows]


def put_pieces(tx: Tx, generation: int, pieces: Iterable[Piece]) -> None:
    """Store pieces of an unfinished snapshot. Of each piece's earlier versions, only the newest is kept; that version
    stays valid until the snapshot is finished.
    """
    for key, body in pieces:
        tx.run(_SUPERSEDED, key=key, generation=generation)
        tx.run(_PUT, key=key, generation=generation, body=body)


def finish(tx: Tx, generation: int, snapshot: bytes, gone: Sequence[str]) -> None:
    """Make the snapshot with this generation number valid in place of the earlier snapshot, and delete the pieces with
    the keys `gone`.
    """
    tx.run(_FINISH, generation=generation, snapshot=snapshot)
    tx.many(_FORGET, [(key,) for key in gone])


def drop_unfinished(tx: Tx, generation: int) -> None:
    """Delete the pieces of a snapshot that was not finished: those with a generation above `generation`."""
    tx.run(_UNFINISHED, generation=generation)
