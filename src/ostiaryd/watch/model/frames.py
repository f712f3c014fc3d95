"""The messages (frames) between the server and the process of the detectors."""

from __future__ import annotations

import msgspec

from ostiary.protocol.decoding import msgpack_decoder
from ostiaryd.watch.model.sighting import Piece, Sighting


class Orders(msgspec.Struct, frozen=True):
    database: str
    budget: float
    """Share of tasks in which statistical detectors may restrict an agent by mistake."""
    snapshot_s: float
    places: str = ""
    """Path of the file with the places of networks; empty for none."""


class Standby(msgspec.Struct, frozen=True, tag="standby"):
    """Message to the server: the process waits, because another process runs the detectors of this database. When that
    process ends, this process takes over.
    """


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """Message to the server: the process has loaded its state, and starts to read at the entry with the index
    `position`.
    """

    position: int


class Findings(msgspec.Struct, frozen=True, tag="told"):
    """Message to the server: new sightings (anomalies), which the server stores as findings."""

    sightings: list[Sighting]


class Examined(msgspec.Struct, frozen=True, tag="seen"):
    """Message to the server: the detectors have examined all entries below `position`, and all findings about these
    entries were sent. `agents`: number of known agents.
    """

    position: int
    agents: int
    failing: dict[str, str]
    """Name of each detector that failed, with the error."""
    narrowing: dict[str, float]
    """State of the budget of statistical detectors: see `Narrowing.status`."""


class Pieces(msgspec.Struct, frozen=True, tag="pieces"):
    """Message to the server: a part of a snapshot of the detectors' state. After the server has stored the part, it
    requests the next part.
    """

    pieces: list[Piece]


class Saved(msgspec.Struct, frozen=True, tag="saved"):
    """Message to the server: the end of a snapshot of the detectors' state, sent after its pieces: the snapshot itself,
    and the keys of stored pieces to delete.
    """

    snapshot: bytes
    gone: list[str]


Frame = Standby | Ready | Findings | Examined | Pieces | Saved
_encoder = msgspec.msgpack.Encoder()
_decode = msgpack_decoder(Frame)


def encode(frame: Frame) -> bytes:
    """Return a message (frame) as bytes for the pipe."""
    return _encoder.encode(frame)


def decode(body: bytes) -> Frame:
    """Return the message (frame) that `body` encodes. Raises ValueError for other bytes."""
    frame: Frame = _decode(body)
    return frame
