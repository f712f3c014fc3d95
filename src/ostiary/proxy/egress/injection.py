"""Secrets in requests: the places of placeholders, and the replacement of placeholders by secrets.

A secret is put into the field that its destination names, and replaces each placeholder `OSTIARY:NAME` of the
destination NAME. The secret is encoded as its place requires, so that a secret cannot end a header, a parameter or a
member.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, assert_never
from urllib.parse import quote, quote_plus, unquote_plus

from ostiary.protocol.destination import Destination, Place
from ostiary.proxy.entrance import Headers, Rejected

_NAME = rb"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
PLACEHOLDER = re.compile(rb"OSTIARY(?::|%3[Aa])(" + _NAME + rb")")
SHORTEST_PLACEHOLDER = len("OSTIARY%3Ax")
"""number of bytes after which a placeholder is recognised, at most"""
_BEGUN = re.compile(rb"(?:O|OS|OST|OSTI|OSTIA|OSTIAR|OSTIARY(?:%3?|(?::|%3[Aa])[a-z0-9-]{0,63})?)\Z")
"""the end of a part of a stream that may be the beginning of a placeholder"""
FORM = b"application/x-www-form-urlencoded"


class OutgoingRequest(NamedTuple):
    """A request of the wrapped process. `body`: None if the request has no body, or if its body is streamed."""

    method: str
    path: bytes
    query: bytes
    headers: Headers
    """headers of the request; their names have the spelling of the program"""
    body: bytes | None
    streams: bool = False

    def with_secrets(self, destinations: Sequence[Destination], secret_of: Callable[[str], str]) -> OutgoingRequest:
        """Return the request with the secrets of `destinations`: in place of placeholders, and in the field of each
        destination. `secret_of`: function that returns the secret of a destination by its name. All destinations belong
        to the server of the request. Raises Rejected if a destination sets a member of a body that is neither a JSON
        object nor a form.
        """
        filled = self._replace(
            headers=[(name, _fill_header(name, value, secret_of)) for name, value in self.headers],
            query=_fill(self.query, lambda name: quote(secret_of(name), safe="")),
            body=None if self.body is None else fill_body(self.body, self.media_type, secret_of),
        )
        return filled.with_fields(destinations, secret_of)

    def with_fields(self, destinations: Sequence[Destination], secret_of: Callable[[str], str]) -> OutgoingRequest:
        """Return the request with the secrets in the fields that the destinations name. Raises Rejected if the
        body has no place for a field.
        """
        kind, headers, query, body = self.media_type, self.headers, self.query, self.body
        for one in destinations:
            rendered = "" if one.place is Place.PLACEHOLDER else one.render(secret_of(one.name))
            match one.place:
                case Place.HEADER:
                    field = one.field.encode()
                    others = [(name, value) for name, value in headers if name.lower() != field.lower()]
                    headers = [*others, (field, rendered.encode())]
                case Place.QUERY:
                    query = _set_parameter(query, one.field, rendered)
                case Place.BODY:
                    body = _set_member(body, kind, one.field, rendered)
                case Place.PLACEHOLDER:
                    pass
                case _:
                    assert_never(one.place)
        return self._replace(headers=headers, query=query, body=body)

    @property
    def media_type(self) -> bytes:
        """Return the media type of the body, in lower case and without parameters."""
        value = next((value for name, value in self.headers if name.lower() == b"content-type"), b"")
        return value.partition(b";")[0].strip().lower()

    @property
    def placeholders(self) -> dict[str, Place]:
        """Return the name in each placeholder of headers, query and body, with the place of the placeholder. Raises
        Rejected for a placeholder in the path.
        """
        if PLACEHOLDER.search(self.path):
            raise Rejected(
                400,
                "placeholder_in_path",
                "a placeholder is replaced in a header, in the query or in the body, never in the path",
                hint="send the placeholder in a header",
            )
        places = dict.fromkeys(names_in(self.body or b""), Place.BODY)
        places |= dict.fromkeys(names_in(self.query), Place.QUERY)
        for name, value in self.headers:
            places |= dict.fromkeys(names_in(_read_basic(name, value) or value), Place.HEADER)
        return places


def names_in(data: bytes) -> Iterable[str]:
    """Return the names in all placeholders of `data`."""
    return (name.decode() for name in PLACEHOLDER.findall(data))


def fill_body(body: bytes, media_type: bytes, secret_of: Callable[[str], str]) -> bytes:
    """Return a body with secrets in place of placeholders."""
    return _fill(body, lambda name: _encode_for(media_type, secret_of(name)))


def _encode_for(media_type: bytes, secret: str) -> str:
    """Return a secret, encoded as part of one value in a body of this media type."""
    if media_type == FORM:
        return quote_plus(secret)
    is_json = media_type == b"application/json" or media_type.endswith(b"+json")
    return json.dumps(secret)[1:-1] if is_json else secret


def divide_begun(data: bytes) -> tuple[bytes, bytes]:
    """Return (complete part, rest) of `data`. The rest is empty, or the first characters of a placeholder at the end of
    `data`, which may continue in the next part of the stream.
    """
    match = _BEGUN.search(data, max(len(data) - 80, 0))
    return (data, b"") if match is None else (data[: match.start()], data[match.start() :])


def _fill(data: bytes, value_of: Callable[[str], str]) -> bytes:
    return PLACEHOLDER.sub(lambda match: value_of(match[1].decode()).encode(), data)


def _fill_header(name: bytes, value: bytes, secret_of: Callable[[str], str]) -> bytes:
    basic = _read_basic(name, value)
    if basic is None:
        return _fill(value, secret_of)
    filled = _fill(basic, secret_of)
    return value if filled == basic else b"Basic " + base64.b64encode(filled)


def _read_basic(name: bytes, value: bytes) -> bytes | None:
    """Return `user:password` of an `Authorization` header with the scheme `Basic` (RFC 7617); None for another
    header.
    """
    scheme, _, encoded = value.partition(b" ")
    if name.lower() != b"authorization" or scheme.lower() != b"basic":
        return None
    try:
        return base64.b64decode(encoded.strip(), validate=True)
    except binascii.Error:
        return None


def _set_parameter(query: bytes, field: str, value: str) -> bytes:
    kept = [one for one in query.split(b"&") if one and unquote_plus(one.partition(b"=")[0].decode("latin-1")) != field]
    return b"&".join([*kept, f"{quote(field, safe='')}={quote(value, safe='')}".encode()])


def _set_member(body: bytes | None, media_type: bytes, field: str, value: str) -> bytes:
    if media_type == FORM and body is not None:
        return _set_parameter(body, field, value)
    try:
        members = json.loads(body or b"")
    except (ValueError, RecursionError):
        members = None
    if not isinstance(members, dict) or not (media_type == b"application/json" or media_type.endswith(b"+json")):
        raise Rejected(
            415,
            "no_place_for_secret",
            f"the destination puts the secret into the member {field[:64]!a} of the body, which is neither a JSON "
            f"object nor a form",
            hint="send a JSON object with its content type and a Content-Length",
        )
    return json.dumps(members | {field: value}).encode()
