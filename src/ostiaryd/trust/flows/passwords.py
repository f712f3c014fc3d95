"""Passwords: Argon2id (RFC 9106) as PHC strings, with a secret of the server, computed in a bounded number of threads.

For an unknown name a hash is computed too, so neither the response nor its duration reveals which names exist. The work
that unauthenticated callers cause is limited: `THREADS` hashes at a time, `MAX_WAITING` in total, `MAX_OF_NETWORK` from
one network. Logins from known browsers have `MAX_KNOWN` further places.
"""

from __future__ import annotations

import asyncio
import os
import unicodedata
from base64 import b64encode
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from cryptography.exceptions import InvalidKey
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from ostiary.protocol.errors import Invalid, Unavailable
from ostiaryd.ground.http.edge import Call
from ostiaryd.ground.world import World

T = TypeVar("T")
ITERATIONS, LANES, MEMORY_KIB, HASH_BYTES, SALT_BYTES = 2, 1, 19 << 10, 32, 16
"""The parameters that OWASP recommends for Argon2id: 19 MiB and two passes."""
THREADS = max(1, min(4, (os.cpu_count() or 1) // 2))
MAX_WAITING = 64
MAX_OF_NETWORK = 8
MAX_KNOWN = 16
SHORTEST, LONGEST = 12, 256
"""Minimum and maximum length of a password, in characters."""


class TooManyLogins(Unavailable):
    """Too many passwords wait to be checked."""

    code = "too_many_logins"


class PasswordHashing:
    """The threads that compute the password hashes of this server. `computed` is the number of hashes that were
    computed so far.
    """

    def __init__(self, world: World) -> None:
        self._secret = world.keys.derive("password")
        self._random = world.random
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="password")
        self._waiting: Counter[str] = Counter()
        salt, hash = (b64encode(world.random(size)).rstrip(b"=").decode() for size in (SALT_BYTES, HASH_BYTES))
        self._unknown = f"{_parameters()}{salt}${hash}"  # of no password
        self.computed = 0

    async def hash(self, password: str, *, network: str) -> str:
        """Return the PHC string of a new password. Raises TooManyLogins if too many passwords wait."""
        salt = self._random(SALT_BYTES)
        return await self._run(network, lambda: self._derive(password, salt))

    async def verify(self, unverified_password: str, hash: str | None, *, network: str, browser: str = "") -> bool:
        """Return whether the password matches `hash`. If `hash` is None, compute a hash anyway and return false. Raises
        TooManyLogins if too many passwords wait.

        `browser`: the throttle slot of a known browser of the person; otherwise empty.
        """
        is_right = await self._run(network, lambda: self._is_right(unverified_password, hash or self._unknown), browser)
        return is_right and hash is not None

    async def renew(self, password: str, hash: str, *, network: str) -> str | None:
        """Return a new PHC string of a password that `hash` matches, if `hash` has other parameters than new hashes
        have; otherwise None. Return None also if too many passwords wait: a later login can renew the hash.
        """
        if hash.startswith(_parameters()):
            return None
        try:
            return await self.hash(password, network=network)
        except TooManyLogins:
            return None

    async def close(self) -> None:
        """Stop the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _run(self, network: str, work: Callable[[], T], browser: str = "") -> T:
        most, sender = (MAX_WAITING + MAX_KNOWN, browser) if browser else (MAX_WAITING, network)
        if self._waiting.total() >= most or self._waiting[sender] >= MAX_OF_NETWORK:
            raise TooManyLogins("too many passwords are being checked", hint="try again in a few seconds")
        self._waiting[sender] += 1
        try:
            self.computed += 1
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        finally:
            self._waiting[sender] -= 1
            self._waiting += Counter()  # remove networks whose count is 0

    def _derive(self, password: str, salt: bytes) -> str:
        return self._argon(salt).derive_phc_encoded(_normal(password))

    def _argon(self, salt: bytes) -> Argon2id:
        return Argon2id(
            salt=salt,
            length=HASH_BYTES,
            iterations=ITERATIONS,
            lanes=LANES,
            memory_cost=MEMORY_KIB,
            secret=self._secret,
        )

    def _is_right(self, unverified_password: str, hash: str) -> bool:
        try:
            Argon2id.verify_phc_encoded(_normal(unverified_password), hash, self._secret)
        except InvalidKey:
            return False
        return True


def check_password(password: str, repeated: str, *, name: str) -> None:
    """Check a new password of a person named `name`.

    Raises Invalid if the password is too short, too long or easy to guess, or if `repeated` differs from the password.
    """
    length = len(unicodedata.normalize("NFKC", password))
    if not SHORTEST <= length <= LONGEST:
        raise Invalid(
            f"a password must have {SHORTEST} to {LONGEST} characters",
            hint="several words in a row are easy to remember",
        )
    if len(set(password)) < 5:
        raise Invalid("the password repeats a few characters", hint="use several words")
    if len(name) > 2 and len(password.casefold().replace(name.casefold(), "")) < SHORTEST:
        raise Invalid(
            f"without your name, the password has fewer than {SHORTEST} characters",
            hint="use several words that are not your name",
        )
    if password != repeated:
        raise Invalid("the two passwords differ", hint="type the same password twice")


def password_hashing(call: Call) -> PasswordHashing:
    """Return the password hashing threads of this server."""
    return call.world.get_singleton(PasswordHashing)


def _parameters() -> str:
    """Return the beginning of each new PHC string."""
    return f"$argon2id$v=19$m={MEMORY_KIB},t={ITERATIONS},p={LANES}$"


def _normal(password: str) -> bytes:
    """Return the bytes of a password after normalisation to NFKC (NIST SP 800-63B section 3.1.1.2), so that equal
    characters give equal bytes on every keyboard.
    """
    return unicodedata.normalize("NFKC", password[: LONGEST * 4]).encode("utf-8", "surrogatepass")
