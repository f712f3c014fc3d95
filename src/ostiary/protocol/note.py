"""Signed notes: text under one or more signatures; C2SP signed-note v1.0.0 (https://c2sp.org/signed-note).

Only signatures of type 0x01 (Ed25519) are made and verified; signatures of other types count as signatures by unknown
keys, which a verifier ignores.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from hashlib import sha256

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from ostiary.protocol.errors import Malformed, Refused

MAX_NOTE_BYTES = 1 << 18
MAX_SIGNATURES = 64  # a verifier must accept at least 16
_ED25519 = b"\x01"
_DASH = "\u2014 "
_CONTROL = re.compile("[\x00-\x09\x0b-\x1f]")


class Unsigned(Refused):
    """No trusted key signed the note, a trusted key's signature does not match, or the note is of another log."""

    code = "unsigned"


@dataclass(frozen=True, slots=True)
class NoteKey:
    """A public key that signs notes under a name. A log's name is its origin."""

    name: str
    public: bytes
    """32 bytes, RFC 8032"""

    def __post_init__(self) -> None:
        if not _is_name(self.name):
            raise Malformed("the name of a key is empty or has a space, a control character or a plus sign in it")
        if len(self.public) != 32:
            raise Malformed("an Ed25519 public key must have 32 bytes")

    @property
    def key_id(self) -> bytes:
        """Return the key id: 4 bytes by which a signature names its key. Another key can have the same key id, so only
        the signature is a proof.
        """
        return sha256(self.name.encode() + b"\n" + _ED25519 + self.public).digest()[:4]

    @property
    def vkey(self) -> str:
        """Return `<name>+<hex key id>+<base64(type || public key)>`, the form in which people exchange keys."""
        return f"{self.name}+{self.key_id.hex()}+{encode_base64(_ED25519 + self.public)}"

    def signed(self, text: bytes, signature: bytes) -> bool:
        """Return whether `signature` is this key's signature of `text`."""
        try:
            Ed25519PublicKey.from_public_bytes(self.public).verify(signature, text)
        except (InvalidSignature, ValueError):  # ValueError: the 32 bytes are no point of the curve
            return False
        return True


def parse_vkey(vkey: str) -> NoteKey:
    """Parse a verifier key (C2SP signed note), whose key id must belong to the key. Raises Malformed for any other
    text.
    """
    name, _, rest = vkey.partition("+")
    key_id, _, encoded = rest.partition("+")
    raw = decode_base64(encoded)
    if raw[:1] != _ED25519:
        raise Malformed("the key is not of type 0x01 (Ed25519)")
    key = NoteKey(name, raw[1:])
    if key.key_id.hex() != key_id:
        raise Malformed("the key id does not belong to this name and key")
    return key


@dataclass(frozen=True, slots=True)
class Signature:
    name: str
    key_id: bytes
    signature: bytes

    @property
    def line(self) -> str:
        """Return the line of the signature in the note, with its newline."""
        return f"{_DASH}{self.name} {encode_base64(self.key_id + self.signature)}\n"


@dataclass(frozen=True, slots=True)
class Note:
    """A well-formed note; its signatures are not verified yet. `text` ends with a newline."""

    text: str
    signatures: tuple[Signature, ...]

    def render(self) -> bytes:
        """Return the note in its C2SP format: the text, an empty line, and a line for each signature."""
        return f"{self.text}\n{''.join(s.line for s in self.signatures)}".encode()


def sign_note(text: str, *, key: NoteKey, sign: Callable[[bytes], bytes], others: Iterable[Signature] = ()) -> bytes:
    """Return the note with the signature by `key`, followed by the signatures `others`. Raises Malformed for a text
    that a note cannot contain, and for a note beyond a limit.

    `sign`: function that signs with the private half of `key`. The new signature is not verified here, because the
    pair was checked when the key was loaded.
    """
    if not text.endswith("\n") or _CONTROL.search(text):
        raise Malformed("the text of a note must end with a newline and must not contain other control characters")
    note = Note(text, (Signature(key.name, key.key_id, sign(text.encode())), *others))
    if len(note.signatures) > MAX_SIGNATURES:
        raise Malformed(f"a note must have at most {MAX_SIGNATURES} signatures")
    rendered = note.render()
    if len(rendered) > MAX_NOTE_BYTES:
        raise Malformed(f"a note must have at most {MAX_NOTE_BYTES} bytes")
    return rendered


def parse_note(unverified_note: bytes) -> Note:
    """Return the parts of a note; nothing is verified. Raises Malformed for text that is not a note."""
    if len(unverified_note) > MAX_NOTE_BYTES:
        raise Malformed(f"a note must have at most {MAX_NOTE_BYTES} bytes")
    try:
        whole = unverified_note.decode()
    except UnicodeDecodeError:
        raise Malformed("the note is not UTF-8") from None
    if _CONTROL.search(whole):
        raise Malformed("the note has a control character in it")
    # the last empty line divides the note: the text may contain empty lines
    text, blank, tail = whole.rpartition("\n\n")
    if not blank or not tail.endswith("\n"):
        raise Malformed("the note does not end in an empty line and lines of signatures")
    lines = tail[:-1].split("\n")
    if len(lines) > MAX_SIGNATURES:
        raise Malformed(f"a note must have at most {MAX_SIGNATURES} signatures")
    return Note(text + "\n", tuple(_parse_signature(line) for line in lines))


def open_note(unverified_note: bytes, keys: Iterable[NoteKey]) -> Note:
    """Return the note if at least one of `keys` signed it and none of their signatures fails. Raises Malformed for text
    that is not a note, Unsigned otherwise.
    """
    note = parse_note(unverified_note)
    trusted = {(key.name, key.key_id): key for key in keys}
    verified = 0
    for signature in note.signatures:
        key = trusted.get((signature.name, signature.key_id))
        if key is None:
            continue
        if not key.signed(note.text.encode(), signature.signature):
            raise Unsigned(f"the signature of {key.name} ({key.key_id.hex()}) does not match the text of the note")
        verified += 1
    if not verified:
        raise Unsigned("no trusted key signed the note")
    return note


def encode_base64(data: bytes) -> str:
    """Encode bytes as base64."""
    return base64.b64encode(data).decode()


def decode_base64(text: str) -> bytes:
    """Return the bytes of canonical base64 (RFC 4648 section 4). Raises Malformed for other text."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):  # ValueError: not ASCII
        raise Malformed("not base64") from None
    if encode_base64(data) != text:
        raise Malformed("not base64 in its canonical spelling")
    return data


def _parse_signature(line: str) -> Signature:
    name, space, encoded = line.removeprefix(_DASH).partition(" ")
    if not line.startswith(_DASH) or not space or not _is_name(name):
        raise Malformed("a signature line must consist of an em dash, the name of a key and base64")
    raw = decode_base64(encoded)
    if len(raw) <= 4:
        raise Malformed("a signature must be longer than its key id of 4 bytes")
    return Signature(name, raw[:4], raw[4:])


def _is_name(name: str) -> bool:
    return bool(name) and not any(c.isspace() or c < " " or c == "+" for c in name)
