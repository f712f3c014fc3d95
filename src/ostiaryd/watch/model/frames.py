"""The frames between the server and the process of the detectors."""

from __future__ import annotations

import msgspec

from ostiary.protocol.decoding import msgpack_decoder
from ostiaryd.watch.model.sighting import Piece, Sighting


class Orders(msgspec.Struct, frozen=True):
    database: str
    budget: float
    """share of tasks in which statistical detectors may restrict an agent by mistake"""
    snapshot_s: float
    places: str = ""
    """file with the places of networks"""


class Standby(msgspec.Struct, frozen=True, tag="standby"):
    """Another process runs the detectors of this database; this process takes over when the other process ends."""


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """The detectors have started at entry `position`."""

    position: int


class Findings(msgspec.Struct, frozen=True, tag="told"):
    """New findings of the detectors."""

    sightings: list[Sighting]


class Examined(msgspec.Struct, frozen=True, tag="seen"):
    """All entries below `position` were examined, and their findings were sent."""

    position: int
    agents: int
    failing: dict[str, str]
    """detectors that failed, each with the error"""
    narrowing: dict[str, float]
    """see `Narrowing.status`"""


class Pieces(msgspec.Struct, frozen=True, tag="pieces"):
    """A part of a snapshot; the server requests the next part."""

    pieces: list[Piece]


class Saved(msgspec.Struct, frozen=True, tag="saved"):
    """The snapshot, sent after all of its pieces, and the keys of removed pieces."""

    snapshot: bytes
    gone: list[str]


Frame = Standby | Ready | Findings | Examined | Pieces | Saved
_encoder = msgspec.msgpack.Encoder()
_decode = msgpack_decoder(Frame)


def encode(frame: Frame) -> bytes:
    """Encode a frame."""
    return _encoder.encode(frame)


def decode(body: bytes) -> Frame:
    """Decode a frame. Raises ValueError."""
    frame: Frame = _decode(body)
    return frame
