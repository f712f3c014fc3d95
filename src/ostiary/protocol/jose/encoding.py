"""base64url without padding: RFC 7515 section 2, in its canonical form only."""

from __future__ import annotations

import binascii

from ostiary.protocol.errors import Malformed

_TO_URL = bytes.maketrans(b"+/", b"-_")
_FROM_URL = bytes.maketrans(b"-_+/=", b"+/!!!")
_PADDING = (b"", b"===", b"==", b"=")
_LAST = (b"", b"", b"AQgw", b"AEIMQUYcgkosw048")
"""Permitted last letters of a base64url text, which have no surplus bits, by its length modulo 4."""


def b64u(data: bytes) -> str:
    """Encode bytes as base64url without padding (RFC 7515 section 2)."""
    return binascii.b2a_base64(data, newline=False).translate(_TO_URL, b"=").decode()


def unb64u(text: str | bytes) -> bytes:
    """Return the bytes that base64url `text` encodes. Raises Malformed, also for text that `b64u` would not produce."""
    try:
        plain = (text.encode("ascii") if isinstance(text, str) else text).translate(_FROM_URL)
        beyond = len(plain) % 4
        data = binascii.a2b_base64(plain + _PADDING[beyond], strict_mode=True)
    except ValueError:  # also binascii.Error and UnicodeEncodeError
        raise Malformed("not base64url") from None
    if beyond and plain[-1] not in _LAST[beyond]:  # the decoder ignores stray bits in the last letter
        raise Malformed("not base64url in its canonical spelling: no padding, no white space, no stray bits")
    return data
