"""Prints of a secret that a proxy has put into a request: keyed hashes by which the server recognises the secret in a
text without storing the secret.

A print has, for each form of the secret (`ostiary.protocol.secret_forms`), the length, the hash, and the hashes of the
windows at the first places. A text is searched at every STRIDE-th place, because the windows at as many neighbouring
places of a form are known. If a window matches, the whole form is compared. So a text matches only if it has a whole
form, and the beginning that all tokens of one kind share does not match.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from functools import lru_cache
from hashlib import blake2b
from itertools import chain

import msgspec

from ostiary.protocol.decoding import msgpack_decoder
from ostiary.protocol.destination import MIN_SECRET
from ostiary.protocol.secret_forms import forms_of, texts_of

WINDOW = MIN_SECRET
"""Length of a window in bytes. Each form of a secret is at least as long."""
STRIDE = 16
"""Maximum distance between two places of a text that are searched, in bytes. For a short secret the distance is
smaller.
"""
_HASH, _DIGEST = 6, 16
"""Length of the hash of a window, and of the hash of a form or a secret, in bytes."""


class _FormPrint(msgspec.Struct, frozen=True, array_like=True):
    length: int
    digest: bytes
    windows: bytes


_encode, _decode = msgspec.msgpack.Encoder().encode, msgpack_decoder(tuple[_FormPrint, ...])
_Windows = Mapping[bytes, list[tuple[int, _FormPrint]]]
"""Forms by the hash of a window, each with the place of the window in the form."""


def digest_of(secret: str, key: bytes) -> bytes:
    """Return the digest under which a secret is stored."""
    return _hash(secret.encode(), key, _DIGEST)


def make_prints(secret: str, key: bytes) -> bytes:
    """Return the prints of a secret: keyed hashes of parts of its forms (plain, hexadecimal, base64 ...), by which
    `find_secret` finds it. The secret must have at least `WINDOW` bytes.
    """
    forms = sorted(forms_of(secret))
    stride = min(STRIDE, min(map(len, forms)) - WINDOW + 1)
    return _encode(
        [
            _FormPrint(
                len(form),
                _hash(form, key, _DIGEST),
                b"".join(_hash(form[at : at + WINDOW], key, _HASH) for at in range(stride)),
            )
            for form in forms
        ]
    )


def find_secret(text: bytes, prints: Iterable[bytes], key: bytes) -> bool:
    """Return whether the text, as it is or decoded, contains one of the secrets from which `make_prints` made these
    prints with the key `key`.
    """
    stride, tables, hashes = _parse_all(tuple(prints))
    return bool(hashes) and any(_search(one, tables, hashes, stride, key) for one in texts_of(text))


def _search(text: bytes, tables: Iterable[_Windows], hashes: Set[bytes], stride: int, key: bytes) -> bool:
    for at in range(0, len(text) - WINDOW + 1, stride):
        if (window := _hash(text[at : at + WINDOW], key, _HASH)) not in hashes:
            continue
        for place, form in chain.from_iterable(windows.get(window, ()) for windows in tables):
            start = at - place
            if start >= 0 and _hash(text[start : start + form.length], key, _DIGEST) == form.digest:
                return True
    return False


@lru_cache(maxsize=8)
def _parse_all(prints: tuple[bytes, ...]) -> tuple[int, list[_Windows], Set[bytes]]:
    """Return the distance between the places to search, the windows of each secret, and the hashes of all windows. With
    the last, each place needs one lookup for any number of secrets.
    """
    parsed = [_parse(one) for one in prints]
    stride = min((stride for stride, _ in parsed), default=STRIDE)
    tables = [windows for _, windows in parsed]
    return stride, tables, frozenset[bytes]().union(*tables)


@lru_cache(maxsize=1024)
def _parse(prints: bytes) -> tuple[int, _Windows]:
    """Return the number of windows of each form that the prints contain, and the windows."""
    forms = _decode(prints)
    windows: dict[bytes, list[tuple[int, _FormPrint]]] = {}
    for form in forms:
        for place in range(len(form.windows) // _HASH):
            windows.setdefault(form.windows[place * _HASH :][:_HASH], []).append((place, form))
    return len(forms[0].windows) // _HASH, windows


def _hash(data: bytes, key: bytes, size: int) -> bytes:
    return blake2b(data, digest_size=size, key=key).digest()
