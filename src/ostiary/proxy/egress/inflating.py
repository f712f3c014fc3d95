"""Bodies that the program compresses (RFC 9110 section 8.4), decompressed for the search for secrets.

Codings are `gzip` and `deflate`. A body in another coding, or in several, cannot be searched.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from ostiary.proxy.connections import CHUNK
from ostiary.proxy.entrance import Headers, Rejected

MAX_INFLATED = 64 << 20
"""maximum number of bytes to which a body is decompressed"""
_ANY = 32 + zlib.MAX_WBITS
"""the format of zlib or of gzip, by the first bytes"""
_CODINGS = {b"gzip", b"x-gzip", b"deflate"}


class Unsearchable(Rejected):
    """The body of a request cannot be decompressed."""


class InflatedBody:
    """The body of a request, decompressed part by part if it has a content coding (`is_compressed`)."""

    def __init__(self, headers: Headers) -> None:
        """Read the coding in the headers of a request."""
        stated = [value.strip().lower() for name, value in headers if name.lower() == b"content-encoding"]
        codings = [coding for coding in stated if coding not in (b"", b"identity")]
        self.is_compressed = bool(codings)
        self._inflater = zlib.decompressobj(_ANY) if codings else None
        self._left = MAX_INFLATED
        self._refusal: Unsearchable | None = None
        if len(codings) > 1 or not _CODINGS.issuperset(codings):
            self._refusal = _unsearchable("the body has another content coding than gzip or deflate")

    def feed(self, part: bytes) -> Iterator[bytes]:
        """Yield the decompressed content of `part`, the next part of the body, in pieces of at most CHUNK bytes. Raises
        Unsearchable if the body cannot be decompressed; then every later call raises it too.
        """
        if self._inflater is None:
            yield part
            return
        piece = b""
        while self._refusal is None and (part or len(piece) == CHUNK):
            if self._inflater.eof:
                self._inflater = zlib.decompressobj(_ANY)
            try:
                piece = self._inflater.decompress(part, CHUNK)
            except zlib.error:
                self._refusal = _unsearchable("the body does not have the content coding that its header states")
                break
            part = self._inflater.unconsumed_tail or self._inflater.unused_data
            self._left -= len(piece)
            if self._left < 0:
                self._refusal = _unsearchable(f"the decompressed body has over {MAX_INFLATED >> 20} MiB")
                break
            yield piece
        if self._refusal is not None:
            raise self._refusal


def _unsearchable(why: str) -> Unsearchable:
    return Unsearchable(
        415,
        "compressed_request",
        f"{why}, so the body cannot be searched for secrets",
        hint="send the body uncompressed",
    )
