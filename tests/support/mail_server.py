"""A real mail server on loopback (aiosmtpd) that gives the answers of the test, and keeps the received messages."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from functools import partial
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session


class MailServer:
    def __init__(self) -> None:
        self.port = 0
        self.heard: list[EmailMessage] = []
        self.to: list[list[str]] = []
        self.was_tls: list[bool] = []
        self.logins: list[tuple[bytes, bytes]] = []
        self.recipient_answers: list[str] = []
        """answers to the next recipients; after them 250"""
        self.silence = asyncio.Event()
        """if cleared, the server answers no message"""
        self.silence.set()

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
    """Run a mail server. `tls`: it offers STARTTLS, or with `is_tls_first` TLS from the start; `asks`: it requires a
    password.
    """
    made = MailServer()
    protocol = partial(
        SMTP,
        made,
        hostname="mail.test",
        tls_context=None if is_tls_first else tls,
        auth_required=asks,
        authenticator=made.login,
        auth_require_tls=not is_tls_first,
        enable_SMTPUTF8=True,
    )
    server = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", 0, ssl=tls if is_tls_first else None)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        made.silence.set()
        server.close()
