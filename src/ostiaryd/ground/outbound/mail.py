"""Mail through the operator's mail server (RFC 5321): one message, one recipient, bounded in time.

    smtps://HOST[:465]    TLS from the first byte on (RFC 8314)
    smtp://HOST[:587]     STARTTLS (RFC 3207), required except on this machine

The certificate must be valid for HOST, so that no other party reads the message or the password.
"""

from __future__ import annotations

import asyncio
from email.message import EmailMessage
from urllib.parse import urlsplit

import aiosmtplib

from ostiary.protocol.errors import Unavailable

_HERE = frozenset({"127.0.0.1", "localhost", "::1"})


async def send_mail(message: EmailMessage, *, server: str, user: str, password: str, name: str, within_s: float) -> int:
    """Send a mail, and return 250, or the reply code (RFC 5321 section 4.2) with which the server refused the message,
    the recipient or another command.

    `name` is the name of this server in the greeting. Raises Unavailable if the server cannot be reached or takes
    longer than `within_s` seconds, with a message that contains nothing of the server's replies.
    """
    parts = urlsplit(server)
    is_tls = parts.scheme == "smtps"
    try:
        async with asyncio.timeout(within_s):
            await aiosmtplib.send(
                message,
                hostname=parts.hostname,
                port=parts.port or (465 if is_tls else 587),
                use_tls=is_tls,
                start_tls=False if is_tls else None if parts.hostname in _HERE else True,
                username=user or None,
                password=password or None,
                local_hostname=name,
                timeout=within_s,
            )
    except aiosmtplib.SMTPRecipientsRefused as error:
        return error.recipients[0].code
    except aiosmtplib.SMTPResponseException as error:
        return error.code
    except (TimeoutError, aiosmtplib.SMTPTimeoutError):
        raise Unavailable(f"the mail server took longer than {within_s:g} s") from None
    except (aiosmtplib.SMTPException, OSError, ValueError) as error:
        raise Unavailable(f"the mail server cannot be reached: {type(error).__name__}") from None
    return 250
