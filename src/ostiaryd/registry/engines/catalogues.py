"""Parses uploaded catalogues in a confined process, which has loaded the JSON schemas of tools before."""

from __future__ import annotations

import msgspec

from ostiary.protocol import canonical
from ostiary.protocol.decoding import json_decoder
from ostiaryd.ground.process.confined import parser
from ostiaryd.registry.model import parse_catalogue


class Upload(msgspec.Struct, frozen=True):
    """An uploaded catalogue (the tools of a resource) as JSON, the name of its resource, and all data classes that the
    catalogue may name.
    """

    resource: str
    unverified: msgspec.Raw
    classes: tuple[str, ...]


encode_upload = msgspec.json.Encoder().encode
_decode = json_decoder(Upload)


@parser
def answer(body: bytes) -> bytes:
    """Return the uploaded catalogue in Ostiary's own format, as canonical JSON. Raises Malformed for JSON that is no
    catalogue, Invalid for a tool that is not valid.
    """
    upload = _decode(body)
    unverified = msgspec.json.decode(upload.unverified)
    catalogue = parse_catalogue(upload.resource, unverified, classes=upload.classes)
    return canonical.encode(catalogue.render(), floats=True, max_depth=2 * canonical.MAX_DEPTH)
