"""The TLS certificate of the server itself, from its own authority (`--tls auto`). The server renews it after two
thirds of its lifetime, and after a rotation of the authority.

The files are in the data folder. When the files change, the listeners read them again. The key file is encrypted with a
secret of the keyring. `ca.pem` contains the roots that clients must trust.
"""

from __future__ import annotations

import logging
import os
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from ostiary.protocol.certificate import load_pem_certificates
from ostiary.protocol.errors import Malformed, Refused
from ostiary.protocol.jose import b64u
from ostiaryd.certs import store
from ostiaryd.certs.flows.authorities import encode_pem
from ostiaryd.certs.flows.issuing import SERVER, issue
from ostiaryd.certs.flows.revoking import find_presented, is_live
from ostiaryd.certs.model.authority import AuthorityKind
from ostiaryd.certs.model.certificate import CertificateRequest, IssuedCertificate
from ostiaryd.certs.model.keys import generate_key
from ostiaryd.certs.model.names import CertificateName, NameKind, make_name, parse_name
from ostiaryd.ground.config import Config
from ostiaryd.ground.crypto.keyring import Keyring
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import Act, act

log = logging.getLogger("ostiary")
PROFILE = "listener"


class TlsFiles(NamedTuple):
    """Paths of three files: the certificate of the server with its chain, its key, and the roots that clients must
    trust.
    """

    certificate: Path
    key: Path
    roots: Path


def tls_files(config: Config) -> TlsFiles:
    """Return the paths of the files of `--tls auto`."""
    return TlsFiles(config.folder / "tls.pem", config.folder / "tls.key", config.folder / "ca.pem")


def tls_password(keys: Keyring) -> str:
    """Return the password of the key file, which is derived from the keyring."""
    return b64u(keys.derive("TLS key of the server"))


def server_names(config: Config) -> tuple[CertificateName, ...]:
    """Return the names of this server: the hosts of its URLs, its listening addresses, and its SPIFFE ID. A server on
    a loopback address is also named `localhost`, because browsers offer passkeys to a host with a name only.
    """
    listeners = [urlsplit(f"//{address}").hostname for address in (config.listen, config.mtls_listen) if address]
    hosts = [urlsplit(url).hostname for url in (config.public_url, config.mtls_url) if url]
    names = [_name(host) for host in (*hosts, *listeners) if host and not _is_any(host)]
    if any(name.kind is NameKind.IP and ip_address(name.value).is_loopback for name in names):
        names.append(make_name(NameKind.DNS, "localhost"))
    return tuple(dict.fromkeys((*names, parse_name(f"uri:spiffe://{config.trust_domain}/{SERVER}"))))


def _name(host: str) -> CertificateName:
    try:
        return make_name(NameKind.IP, str(ip_address(host)))
    except ValueError:
        return make_name(NameKind.DNS, host)


def _is_any(host: str) -> bool:
    """Return whether a host is the address of all interfaces (0.0.0.0 or ::), which clients cannot use as an
    address.
    """
    return host in ("0.0.0.0", "::")


async def renew_tls(world: World) -> bool:
    """Write the roots that clients must trust into their file. Issue a certificate for the server's listeners if the
    server has none, if the certificate is revoked or of a replaced authority, if at most a third of its lifetime is
    left, or if the names of the server changed.

    Return whether a certificate was issued. Without `--tls auto`, do nothing.
    """
    if world.config.tls != "auto":
        return False
    files, names, now = tls_files(world.config), server_names(world.config), world.now()
    if not world.pin.is_lost:  # the database may lack the root of the certificate in the files
        _write_roots(world, files)
    if _is_kept(world, files, now=now) and not _is_due(files, names, now=now, password=tls_password(world.keys)):
        return False
    key = generate_key("P-256")
    public_key = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    def run(act: Act) -> IssuedCertificate:
        request = CertificateRequest(profile=PROFILE, public_key=public_key, names=names)
        return issue(act, request, config=world.config)

    issued = await act(world, "cert.issue", run)
    password = BestAvailableEncryption(tls_password(world.keys).encode())
    _write_roots(world, files)
    _replace(files.key, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, password), mode=0o600)
    _replace(files.certificate, encode_pem((issued.certificate.der, *issued.chain)), mode=0o644)
    return True


async def renew_tls_at_start(world: World) -> None:
    """Renew the certificate of the server's listeners before they open (`renew_tls`).

    A refusal, for example in recovery or on a full disk, does not prevent the start if the files have a certificate:
    the background loop tries again. Raises Refused if the files have none.
    """
    try:
        await renew_tls(world)
    except Refused as refusal:
        if _read_certificate(tls_files(world.config), tls_password(world.keys)) is None:
            raise
        log.error("the TLS certificate of the server is not renewed yet: %s", refusal.message)


def _read_certificate(files: TlsFiles, password: str) -> x509.Certificate | None:
    """Return the certificate in the files; None if there is none, or if the key in the files is not its key."""
    try:
        certificate = x509.load_pem_x509_certificates(files.certificate.read_bytes())[0]
        key = load_pem_private_key(files.key.read_bytes(), password.encode())
    except (OSError, ValueError, IndexError):
        return None
    return certificate if key.public_key() == certificate.public_key() else None


def _write_roots(world: World, files: TlsFiles) -> None:
    """Write the roots that clients must trust, unless the file contains them already or there is none yet."""
    roots = encode_pem(store.authorities.trust_bundle(world.db.read()))
    if roots and (not files.roots.exists() or files.roots.read_bytes() != roots):
        _replace(files.roots, roots, mode=0o644)


def _is_kept(world: World, files: TlsFiles, *, now: int) -> bool:
    """Return whether the certificate in the files is in force, and the active intermediate of this server issued it."""
    try:
        presented = load_pem_certificates(files.certificate.read_text())[0]
    except (OSError, ValueError, Malformed):
        return False
    reader = world.db.read()
    certificate = find_presented(reader, presented.public_bytes(Encoding.DER), now=now)
    if certificate is None or not is_live(reader, certificate, now=now):
        return False
    active = store.authorities.active(reader, AuthorityKind.INTERMEDIATE)
    return active is None or certificate.authority == active.authority_id


def _is_due(files: TlsFiles, names: tuple[CertificateName, ...], *, now: int, password: str) -> bool:
    """Return whether a new certificate is necessary: the files are missing or unusable, the certificate has other
    names, or at most a third of its lifetime is left.
    """
    if (certificate := _read_certificate(files, password)) is None:
        return True
    try:
        alternatives = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return True
    begins, ends = certificate.not_valid_before_utc.timestamp(), certificate.not_valid_after_utc.timestamp()
    has_names = {str(one.value) for one in alternatives} == {name.value for name in names}
    is_aged = now / 1_000_000 >= begins + (ends - begins) * 2 / 3
    return is_aged or not has_names


def _replace(path: Path, content: bytes, *, mode: int) -> None:
    """Write a file atomically: a reader sees either the old or the new content."""
    partial = path.with_suffix(".partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(file.fileno(), mode)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
