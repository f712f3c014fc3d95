"""The server's private keys: sealed under a root key at rest, opened in memory, rotated with overlap.

A key has a use (`token`, `ledger`, `feed`, `nonce`) and a state: `active` signs, `retired` only verifies. Of each use
and algorithm exactly one is active. Sealing is AES-256-GCM with the key's id, use and algorithm as associated data, so
a sealed key cannot be moved to another row.
"""

from __future__ import annotations

import base64
import hmac
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ostiary.authorization.claims import AccessClaims
from ostiary.protocol import canonical, jose
from ostiary.protocol.dpop import hash_token
from ostiary.protocol.errors import Conflict, Invalid, NotFound, Unavailable
from ostiaryd.ground.crypto.hsm import Hsm
from ostiaryd.ground.crypto.signatures import Signatures

USES: dict[str, tuple[str, ...]] = {"token": ("ES256", "RS256", "EdDSA"), "ledger": ("EdDSA",), "feed": ("EdDSA",)}
SECRET_ALG = "secret"  # the `alg` of rows that hold raw bytes instead of a JWK


class Verified:
    """A cache of the claims of verified access tokens, each with the `kid` of its key, by the digest of the token.

    Holds the tokens that were added or read last, so that most repeated tokens need no second verification.
    """

    MOST = 8192
    __slots__ = ("_new", "_old")

    def __init__(self) -> None:
        self._new, self._old = dict[str, tuple[str, AccessClaims]](), dict[str, tuple[str, AccessClaims]]()

    def add(self, token: str, kid: str, claims: AccessClaims) -> None:
        """Add the claims of a verified token."""
        self._keep(hash_token(token), (kid, claims))

    def get(self, unverified_token: str) -> tuple[str, AccessClaims] | None:
        """Return the `kid` and the claims of a token, if the cache has it."""
        if len(unverified_token) > jose.MAX_TOKEN_BYTES or not unverified_token.isascii():
            return None
        digest = hash_token(unverified_token)
        if (entry := self._new.get(digest)) is None and (entry := self._old.get(digest)) is not None:
            self._keep(digest, entry)
        return entry

    def _keep(self, digest: str, entry: tuple[str, AccessClaims]) -> None:
        if len(self._new) >= self.MOST:
            self._new, self._old = {}, self._new
        self._new[digest] = entry


class RootKey:
    """The key that encrypts all other keys. `source` says where it came from, for `doctor`."""

    def __init__(self, key: bytes, *, source: str) -> None:
        if len(key) != 32:
            hint = "restore it from a backup; only for a new server: `openssl rand -base64 32` makes one"
            raise Invalid(f"the root key has {len(key)} bytes, not 32", hint=hint)
        self._aead = AESGCM(key)
        self.source = source

    def seal(self, plain: bytes, *, context: bytes, random: Callable[[int], bytes]) -> bytes:
        """Return `plain`, encrypted and bound to `context`."""
        nonce = random(12)
        return nonce + self._aead.encrypt(nonce, plain, context)

    def open(self, sealed: bytes, *, context: bytes) -> bytes:
        """Return the plain text. Raises Conflict if another root key or another context was used."""
        try:
            return self._aead.decrypt(sealed[:12], sealed[12:], context)
        except InvalidTag:
            raise Conflict(
                "a server key does not open under this root key",
                hint="restore the root key that this database was made with",
            ) from None


def load_root_key(folder: Path, *, random: Callable[[int], bytes], create: bool) -> RootKey:
    """Load `OSTIARY_ROOT_KEY` (base64) if set, otherwise `root.key` in the data folder (0600).

    `create`: make a missing `root.key`, which is right only if nothing is encrypted yet. Raises Conflict, Invalid,
    Unavailable.
    """
    if (text := os.environ.get("OSTIARY_ROOT_KEY")) is not None:
        return RootKey(_decode(text, of="OSTIARY_ROOT_KEY"), source="environment")
    path = folder / "root.key"
    try:
        if not path.exists():
            if not create:
                raise Conflict(
                    f"the root key {path} is missing, and the server's keys in the database are sealed with it",
                    hint="restore root.key from a backup, or set OSTIARY_ROOT_KEY; a new key would open nothing",
                )
            _write_durably(path, base64.b64encode(random(32)) + b"\n")
        if path.stat().st_mode & 0o077:
            raise Conflict(f"{path} is readable by other users", hint=f"chmod 600 {path}")
        return RootKey(_decode(path.read_bytes(), of=path), source="file")
    except OSError as error:
        raise Unavailable(f"cannot read or write the root key {path}: {error.strerror}") from None


def _write_durably(path: Path, content: bytes) -> None:
    """Write a file so that after a power failure it is complete on the disk, or missing."""
    partial = path.with_name(f"{path.name}.partial")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.rename(partial, path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def old_root_key() -> RootKey | None:
    """Return the previous root key in `OSTIARY_ROOT_KEY_OLD` (base64), which is being replaced; None if it is
    not set.
    """
    text = os.environ.get("OSTIARY_ROOT_KEY_OLD")
    return None if text is None else RootKey(_decode(text, of="OSTIARY_ROOT_KEY_OLD"), source="environment")


def _decode(text: str | bytes, *, of: str | Path) -> bytes:
    try:
        return base64.b64decode(text.strip(), validate=True)
    except ValueError:
        raise Invalid(f"the root key in {of} is not base64", hint="restore it from a backup") from None


class Keyring:
    """The opened keys, and the HSM whose keys are never opened. Every stored key verifies.

    Call `open` again after a rotation.
    """

    def __init__(self, root: RootKey, *, hsm: Hsm | None = None) -> None:
        self.root, self.hsm = root, hsm
        self.verified = Verified()
        self.signatures = Signatures()
        self._active: dict[tuple[str, str], jose.PrivateKey] = {}
        self._public: dict[str, dict[str, jose.PublicKey]] = {}
        self._secrets: dict[str, bytes] = {}
        self._derived: dict[str, bytes] = {}

    def open(self, rows: Iterable[Sequence[Any]]) -> None:
        """Replace the keys by those of `rows`: kid, use, alg, state, encrypted key. Raises Conflict under
        another root key.
        """
        active: dict[tuple[str, str], jose.PrivateKey] = {}
        public: dict[str, dict[str, jose.PublicKey]] = {use: {} for use in USES}
        secrets: dict[str, bytes] = {}
        for kid, use, alg, state, sealed in rows:
            plain = self.root.open(bytes(sealed), context=seal_context(kid, use, alg))
            if alg == SECRET_ALG:
                if state == "active":
                    secrets[use] = plain
                continue
            key = jose.parse_private_jwk(canonical.parse(plain, max_bytes=1 << 16), is_sound=True)  # it was sealed
            public[use][kid] = key.public
            if state == "active":
                active[use, alg] = key
        self._active, self._public, self._secrets, self._derived = active, public, secrets, {}

    @property
    def is_loaded(self) -> bool:
        """Return whether every use has a key that signs."""
        return all((use, alg) in self._active for use, algs in USES.items() for alg in algs)

    def refuse_tokens(self) -> None:
        """Refuse every token until the keys are read again."""
        self._public["token"] = {}

    @property
    def refuses_tokens(self) -> bool:
        """Return whether every token is refused until the keys are read again."""
        return not self._public["token"]

    def signer(self, use: str, alg: str = "EdDSA") -> jose.PrivateKey:
        """Return the key that signs for this use."""
        return self._active[use, alg]

    def public(self, use: str) -> dict[str, jose.PublicKey]:
        """Return every key of this use that may still verify, by kid."""
        return self._public[use]

    def find(self, use: str, kid: str) -> jose.PublicKey:
        """Return a key that may still verify. Raises NotFound."""
        try:
            return self._public[use][kid]
        except KeyError:
            raise NotFound("no such key", code="unknown_kid") from None

    def secret(self, use: str) -> bytes:
        """Return 32 secret bytes for this use."""
        return self._secrets[use]

    def derive(self, purpose: str) -> bytes:
        """Return 32 secret bytes for a purpose; they stay the same when the root key changes."""
        if purpose not in self._derived:
            self._derived[purpose] = hmac.digest(self.secret("nonce"), b"ostiary " + purpose.encode(), "sha256")
        return self._derived[purpose]


def seal_context(kid: str, use: str, alg: str) -> bytes:
    """Return the associated data that binds a sealed key to its row."""
    return f"ostiary server key|{kid}|{use}|{alg}".encode()
