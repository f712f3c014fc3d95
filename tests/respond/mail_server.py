"""A real mail server on loopback (aiosmtpd), which answers as a test wants, and keeps what it was sent."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from functools import partial
from pathlib import Path
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


class MailServer:
    def __init__(self) -> None:
        self.port = 0
        self.heard: list[EmailMessage] = []
        self.to: list[list[str]] = []
        self.was_tls: list[bool] = []
        self.logins: list[tuple[bytes, bytes]] = []
        self.recipient_answers: list[str] = []
        """what the next recipients are answered; after them 250"""
        self.silence = asyncio.Event()
        self.silence.set()
        """cleared: it never answers a message"""

    async def handle_RCPT(self, server: SMTP, session: Session, envelope: Envelope, to: str, options: list[str]) -> str:
        if self.recipient_answers and not (answer := self.recipient_answers.pop(0)).startswith("250"):
            return answer
        envelope.rcpt_tos.append(to)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        await self.silence.wait()
        assert isinstance(envelope.content, bytes)
        message = message_from_bytes(envelope.content, policy=default)
        assert isinstance(message, EmailMessage)
        self.heard.append(message)
        self.to.append(envelope.rcpt_tos)
        self.was_tls.append(session.ssl is not None)
        return "250 taken"

    def login(self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any) -> AuthResult:
        assert isinstance(data, LoginPassword)
        self.logins.append((data.login, data.password))
        return AuthResult(success=data.password == b"s3cret", handled=False)


@asynccontextmanager
async def mail_server(
    *, tls: ssl.SSLContext | None = None, is_tls_first: bool = False, asks: bool = False
) -> AsyncIterator[MailServer]:
    """`tls`: it offers STARTTLS, or `is_tls_first`; `asks`: for a password."""
    made = MailServer()
    protocol = partial(
        SMTP, made, hostname="mail.test", tls_context=None if is_tls_first else tls, auth_required=asks,
        authenticator=made.login, auth_require_tls=not is_tls_first, enable_SMTPUTF8=True,
    )  # fmt: skip
    server = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", 0, ssl=tls if is_tls_first else None)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        made.silence.set()
        server.close()


def certificate(folder: Path, name: str) -> tuple[ssl.SSLContext, Path]:
    """A server's context for a certificate of `name` that is its own authority, and where that is."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    names: list[x509.GeneralName] = [x509.DNSName(name)]
    if name == "localhost":
        names.append(x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / f"{name}.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM) + private)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context, path
