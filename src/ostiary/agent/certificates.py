"""Certificates of an agent: the agent generates the key, the server certifies the key, and both are stored in a folder.

A folder has the files `key.pem` (0600), `cert.pem` (the certificate and its chain), `bundle.pem` (the roots to trust)
and `tls.pem` (0600; key, certificate and chain). These files are links into the folder `current`, itself a link to the
newest version. A new version is written completely and synchronised before `current` is changed, so that a reader never
sees an incomplete version.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import ssl
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from ostiary.protocol.certificate import KeyType
from ostiary.protocol.errors import Invalid, Unavailable, check_list

SECOND = 1_000_000
RENEWAL = 2 / 3
"""fraction of the lifetime of a certificate after which it is renewed"""
JITTER = 1 / 10
"""maximum fraction of the lifetime by which a renewal is randomly delayed, so that renewals do not coincide"""
KEPT_VERSIONS = 2
_VERSION = re.compile(r"v\d+-[a-z0-9_]{8}")
"""The name of the folder of a version: its time, and the random part of `tempfile.mkdtemp`."""
FILES = {"key.pem": 0o600, "cert.pem": 0o644, "bundle.pem": 0o644, "tls.pem": 0o600}
_CURRENT, _FACTS = "current", "certificate.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentCertificate:
    """A certificate with its private key, both in PEM. Times are in microseconds since the epoch."""

    serial: str
    profile: str
    names: tuple[str, ...]
    key_type: str
    task: str | None
    certificate: str
    chain: str
    bundle: str
    key: str = field(repr=False)
    not_before: int
    not_after: int

    def renew_at(self, random: Callable[[int], bytes]) -> int:
        """Return the time of renewal in microseconds: two thirds of the lifetime after the start, plus a random part
        of at most a tenth of the lifetime.
        """
        life = self.not_after - self.not_before
        part = int.from_bytes(random(4), "big") / (1 << 32)
        return self.not_before + round(life * (RENEWAL + JITTER * part))

    def ssl_context(self, *, server: bool = False) -> ssl.SSLContext:
        """Return a TLS context that presents the certificate and trusts only the roots in the bundle. `server`: true
        for the server side of connections.

        The context of a client verifies the names of servers; the context of a server requires a certificate of
        clients.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_verify_locations(cadata=self.bundle)
        if server:
            context.verify_mode = ssl.CERT_REQUIRED
        with tempfile.NamedTemporaryFile("w", prefix="ostiary-", suffix=".pem") as file:  # 0600; ssl reads files only
            file.write(self.key + self.certificate + self.chain)
            file.flush()
            context.load_cert_chain(file.name)
        return context

    def save(self, folder: Path) -> None:
        """Write the certificate, its chain and its private key into a folder, in place of the previous files. Raises
        Invalid for a folder with other files of these names.
        """
        prepare_folder(folder)
        with _opened_folder(folder) as descriptor:
            fcntl.flock(descriptor, fcntl.LOCK_EX)  # two processes that write at once replace each other's links
            self._write_version(folder)

    def _write_version(self, folder: Path) -> None:
        version = Path(tempfile.mkdtemp(prefix=f"v{self.not_before // SECOND}-", dir=folder))
        try:
            self._write_files(version)
        except OSError:  # for example, no space is left
            shutil.rmtree(version, ignore_errors=True)
            raise
        _link(folder / _CURRENT, version.name)
        for name in (*FILES, _FACTS):
            if not (folder / name).is_symlink():
                _link(folder / name, f"{_CURRENT}/{name}")
        _sync_folder(folder)
        _remove_old(folder, kept=version.name)

    def _write_files(self, version: Path) -> None:
        version.chmod(0o755)
        leaf = self.certificate + self.chain
        contents = {"key.pem": self.key, "cert.pem": leaf, "bundle.pem": self.bundle, "tls.pem": self.key + leaf}
        for name, mode in FILES.items():
            _write(version / name, contents[name], mode)
        facts: dict[str, object] = {"serial": self.serial, "profile": self.profile, "names": self.names}
        facts |= {"key_type": self.key_type, "task": self.task}
        times = {"not_before": self.not_before, "not_after": self.not_after}
        _write(version / _FACTS, msgspec.json.encode(facts | times).decode(), 0o644)
        _sync_folder(version)


def prepare_folder(folder: Path) -> None:
    """Make the folder of a certificate if it does not exist, and check that a certificate can be written into it.

    Raises Invalid for a folder that cannot be written, and for one with another file or link under the name of a file
    that would be written: a key of another authority may have no other copy.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o755)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise Invalid(f"{folder} cannot be written", hint="change its permissions, or name another folder")
    for name in (_CURRENT, *FILES, _FACTS):
        path = folder / name
        if not path.is_symlink():
            is_own = not path.exists()
        else:
            target = path.readlink()
            is_own = bool(_VERSION.fullmatch(str(target))) if name == _CURRENT else target == Path(_CURRENT, name)
        if not is_own:
            raise Invalid(
                f"{path} does not belong to an earlier certificate", hint="move this file, or name another folder"
            )


def load_certificate(folder: Path) -> AgentCertificate | None:
    """Return the certificate of a folder; None if the folder has none. Raises Invalid for a damaged certificate."""
    version = folder / _CURRENT
    try:
        facts = msgspec.json.decode((version / _FACTS).read_bytes())
        leaf, *above = x509.load_pem_x509_certificates((version / "cert.pem").read_bytes())
        return AgentCertificate(
            serial=facts["serial"],
            profile=facts["profile"],
            names=tuple(facts["names"]),
            key_type=facts["key_type"],
            task=facts["task"],
            certificate=leaf.public_bytes(Encoding.PEM).decode(),
            chain="".join(one.public_bytes(Encoding.PEM).decode() for one in above),
            bundle=(version / "bundle.pem").read_text("ascii"),
            key=(version / "key.pem").read_text("ascii"),
            not_before=facts["not_before"],
            not_after=facts["not_after"],
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, msgspec.MsgspecError) as error:
        raise Invalid(
            f"the certificate in {folder} is damaged: {error}",
            hint="remove the link `current` in the folder, and issue a new certificate",
        ) from None


@contextmanager
def renewal_lock(folder: Path) -> Iterator[None]:
    """Hold the lock with which one process at a time renews the certificate of a folder. The lock ends with the
    process. Raises Unavailable if another process holds the lock.
    """
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Unavailable(
                f"another process is renewing the certificate in {folder}", hint="wait until that process has ended"
            ) from None
        yield


class NewKey:
    """A new key for a certificate: P-256, P-384, Ed25519 or RSA."""

    def __init__(self, key_type: str = "P-256") -> None:
        self._key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey
        match key_type:
            case "P-256":
                self._key = ec.generate_private_key(ec.SECP256R1())
            case "P-384":
                self._key = ec.generate_private_key(ec.SECP384R1())
            case "Ed25519":
                self._key = ed25519.Ed25519PrivateKey.generate()
            case "RSA-2048" | "RSA-3072" | "RSA-4096":
                self._key = rsa.generate_private_key(65537, int(key_type.removeprefix("RSA-")))
            case _:
                raise Invalid(
                    f"`key_type` {key_type[:32]!a} is not supported",
                    hint=f"use one of {', '.join(get_args(KeyType))}",
                )

    @property
    def pem(self) -> str:
        """Return the private key in PEM (PKCS #8, not encrypted)."""
        return self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()

    def request(self) -> str:
        """Return a certificate signing request that proves possession of the key; the names are sent separately."""
        digest = None if isinstance(self._key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
        request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(self._key, digest)
        return request.public_bytes(Encoding.PEM).decode()


def read_issued(answer: dict[str, Any], key: NewKey) -> AgentCertificate:
    """Return the certificate from `answer`, the server's response to a request for a certificate, together with its
    private key `key`.
    """
    return AgentCertificate(
        serial=answer["serial"],
        profile=answer["profile"],
        names=tuple(answer["names"]),
        key_type=answer["key_type"],
        task=answer["task"],
        certificate=answer["certificate"],
        chain=answer["chain"],
        bundle=answer["bundle"],
        key=key.pem,
        not_before=answer["not_before"] * SECOND,
        not_after=answer["not_after"] * SECOND,
    )


def request_body(
    key: NewKey, *, profile: str, names: Iterable[str], task: str | None, lifetime: int | None, replaces: str | None
) -> dict[str, Any]:
    """Return the JSON body of a request for a certificate. `lifetime` is in seconds; `replaces` is the serial number of
    an earlier certificate.
    """
    body: dict[str, Any] = {"csr": key.request(), "profile": profile, "names": check_list("names", names)}
    optional = {"task": task, "lifetime": lifetime, "replaces": replaces}
    return body | {name: value for name, value in optional.items() if value is not None}


def _write(path: Path, text: str, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _link(path: Path, target: str) -> None:
    """Make `path` a link to `target`; an existing link is replaced atomically."""
    partial = path.with_name(f".{path.name}.partial")
    partial.unlink(missing_ok=True)
    partial.symlink_to(target)
    partial.rename(path)


@contextmanager
def _opened_folder(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    with _opened_folder(folder) as descriptor:
        os.fsync(descriptor)


def _remove_old(folder: Path, *, kept: str) -> None:
    """Remove all versions except `kept` and the newest ones, because a reader may be opening files of the previous
    version.
    """
    versions = sorted(
        (one for one in folder.iterdir() if one.is_dir() and not one.is_symlink() and _VERSION.fullmatch(one.name)),
        key=lambda one: one.stat().st_mtime_ns,
    )
    for version in versions[:-KEPT_VERSIONS]:
        if version.name != kept:
            shutil.rmtree(version)
