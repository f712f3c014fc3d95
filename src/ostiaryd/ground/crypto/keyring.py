"""The server's private keys: stored encrypted under a root key, decrypted in memory, and replaced with an overlap.

A key has a use (`token`, `ledger`, `feed`, `nonce`) and a state: `active` signs, `retired` only verifies. For each use
and algorithm, exactly one key is active. Keys are encrypted by AES-256-GCM with id, use and algorithm as associated
data, so an encrypted key is useless in another row.
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
from ostiaryd.ground.crypto.keyed_hash import KeyedHash
from ostiaryd.ground.crypto.signatures import Signatures

USES: dict[str, tuple[str, ...]] = {"token": ("ES256", "RS256", "EdDSA"), "ledger": ("EdDSA",), "feed": ("EdDSA",)}
SECRET_ALG = "secret"  # value of `alg` in rows that contain secret bytes instead of a JWK


class Verified:
    """A cache of verified access tokens: for the digest of a token, its claims and the `kid` of its key.

    The cache keeps the tokens that were added or used most recently, so that most repeated tokens are not verified
    again.
    """

    MOST = 8192
    __slots__ = ("_new", "_old")

    def __init__(self) -> None:
        self._new, self._old = dict[str, tuple[str, AccessClaims]](), dict[str, tuple[str, AccessClaims]]()

    def add(self, token: str, kid: str, claims: AccessClaims) -> None:
        """Add the claims of a token whose signature was verified with the key `kid`."""
        self._keep(hash_token(token), (kid, claims))

    def get(self, unverified_token: str) -> tuple[str, AccessClaims] | None:
        """Return the `kid` and the claims of a token if the cache contains the token; otherwise None. The caller checks
        whether the key with this `kid` and the token are still valid.
        """
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
    """An AES key that encrypts stored keys (the root key), or the stored values of one purpose (`Keyring.value_key`).
    `source` describes where the key was loaded from.
    """

    def __init__(self, key: bytes, *, source: str) -> None:
        if len(key) != 32:
            hint = "restore the root key from a backup; for a new server, `openssl rand -base64 32` generates a key"
            raise Invalid(f"the root key has {len(key)} bytes instead of 32", hint=hint)
        self._aead = AESGCM(key)
        self.source = source

    def seal(self, plain: bytes, *, context: bytes, random: Callable[[int], bytes]) -> bytes:
        """Return `plain` encrypted with this key. `context` must be the same at decryption."""
        nonce = random(12)
        return nonce + self._aead.encrypt(nonce, plain, context)

    def open(self, sealed: bytes, *, context: bytes) -> bytes:
        """Return the decrypted bytes. Raises Conflict if they were encrypted with another key or another `context`."""
        try:
            return self._aead.decrypt(sealed[:12], sealed[12:], context)
        except InvalidTag:
            raise Conflict(
                "the root key cannot decrypt a stored key or secret",
                hint="restore the root key that belongs to this database",
            ) from None


def load_root_key(folder: Path, *, random: Callable[[int], bytes], create: bool) -> RootKey:
    """Load `OSTIARY_ROOT_KEY` (base64) if set, otherwise `root.key` in the data folder (0600).

    `create`: if `root.key` is missing, create it. Use this only if nothing is encrypted yet. Raises Conflict for a file
    that is missing without `create` or that other users can read, Invalid for a value that is not 32 bytes in base64,
    Unavailable if the file cannot be read or written.
    """
    if (text := os.environ.get("OSTIARY_ROOT_KEY")) is not None:
        return RootKey(_decode(text, of="OSTIARY_ROOT_KEY"), source="environment")
    path = folder / "root.key"
    try:
        if not path.exists():
            if not create:
                raise Conflict(
                    f"the root key {path} is missing, but the keys in the database are encrypted with it",
                    hint="restore root.key from a backup, or set OSTIARY_ROOT_KEY; a new root key could not "
                    "decrypt the stored keys",
                )
            _write_durably(path, base64.b64encode(random(32)) + b"\n")
        if path.stat().st_mode & 0o077:
            raise Conflict(f"{path} is open to other users", hint=f"chmod 600 {path}")
        return RootKey(_decode(path.read_bytes(), of=path), source="file")
    except OSError as error:
        raise Unavailable(f"cannot read or write the root key {path}: {error.strerror}") from None


def _write_durably(path: Path, content: bytes) -> None:
    """Write a file so that, after a power failure, the disk contains either the complete file or no file."""
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
    """Return the root key that is being replaced, from `OSTIARY_ROOT_KEY_OLD` (base64); None if the variable is not
    set.
    """
    text = os.environ.get("OSTIARY_ROOT_KEY_OLD")
    return None if text is None else RootKey(_decode(text, of="OSTIARY_ROOT_KEY_OLD"), source="environment")


def _decode(text: str | bytes, *, of: str | Path) -> bytes:
    try:
        return base64.b64decode(text.strip(), validate=True)
    except ValueError:
        raise Invalid(f"the root key in {of} is not base64", hint="restore the root key from a backup") from None


class Keyring:
    """The decrypted keys of the server, and the HSM. All stored keys can verify; only active keys sign.

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
        self._hashes: dict[str, KeyedHash] = {}

    def open(self, rows: Iterable[Sequence[Any]]) -> None:
        """Replace all keys by the decrypted keys of `rows`. Each row is kid, use, alg, state, encrypted key. Raises
        Conflict if another root key encrypted them.
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
        self._active, self._public, self._secrets, self._derived, self._hashes = active, public, secrets, {}, {}

    @property
    def is_loaded(self) -> bool:
        """Return whether there is an active key for every use."""
        return all((use, alg) in self._active for use, algs in USES.items() for alg in algs)

    def refuse_tokens(self) -> None:
        """Refuse every access token until `open` is called again."""
        self._public["token"] = {}

    @property
    def refuses_tokens(self) -> bool:
        """Return whether every access token is refused until `open` is called again."""
        return not self._public["token"]

    def signer(self, use: str, alg: str = "EdDSA") -> jose.PrivateKey:
        """Return the active key for this use and algorithm."""
        return self._active[use, alg]

    def public(self, use: str) -> dict[str, jose.PublicKey]:
        """Return all public keys for this use, such as `token`, active and retired, by kid. The keys for `token` are
        left out while every access token is refused.
        """
        return self._public[use]

    def find(self, use: str, kid: str) -> jose.PublicKey:
        """Return the public key for this use with this kid, active or retired. Raises NotFound, also for a key for
        `token` while every access token is refused.
        """
        try:
            return self._public[use][kid]
        except KeyError:
            raise NotFound("this server has no key with this `kid`", code="unknown_kid") from None

    def secret(self, use: str) -> bytes:
        """Return the 32 bytes of the server's secret for the use `use`, such as `nonce`."""
        return self._secrets[use]

    def derive(self, purpose: str) -> bytes:
        """Return 32 secret bytes for a purpose, derived from the server's secret for the use `nonce`. The bytes do not
        change when the root key is replaced.
        """
        if purpose not in self._derived:
            self._derived[purpose] = hmac.digest(self.secret("nonce"), b"ostiary " + purpose.encode(), "sha256")
        return self._derived[purpose]

    def value_key(self, purpose: str) -> RootKey:
        """Return the key that encrypts the values of a purpose, for example client secrets of login providers. The key
        does not change when the root key is replaced.
        """
        return RootKey(self.derive(purpose), source="derived")

    def open_value(self, sealed: bytes, *, purpose: str, context: bytes) -> bytes:
        """Return a value that `value_key` of this purpose encrypted. A value of an earlier version, which the root key
        itself encrypted, is opened with the root key. Raises Conflict if neither key encrypted the value.
        """
        try:
            return self.value_key(purpose).open(sealed, context=context)
        except Conflict:
            return self.root.open(sealed, context=context)

    def keyed_hash(self, purpose: str) -> KeyedHash:
        """Return the HMAC with SHA-256 under the key that `derive` returns for this purpose."""
        if purpose not in self._hashes:
            self._hashes[purpose] = KeyedHash(self.derive(purpose))
        return self._hashes[purpose]


def seal_context(kid: str, use: str, alg: str) -> bytes:
    """Return the associated data with which a key is encrypted, so that it can be decrypted only in its row."""
    return f"ostiary server key|{kid}|{use}|{alg}".encode()
