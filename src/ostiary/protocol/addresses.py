"""Addresses of mail and of mail servers, as a person configures them."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from ostiary.protocol.errors import Invalid

_ADDRESS = re.compile(r"[a-zA-Z0-9.!#$%&'*+/=?^_{|}~-]{1,64}@(?=.{1,253}\Z)[a-zA-Z0-9-]{1,63}(\.[a-zA-Z0-9-]{1,63})*")


def check_address(address: str, *, name: str) -> str:
    """Return a mail address, after the check that it has the form that every mail server accepts: no quotes, no
    comments, ASCII. `name`: name of the address in the error. Raises Invalid for any other address.
    """
    if not _ADDRESS.fullmatch(address):
        raise Invalid(f"{name} must be a mail address such as ada@example.org")
    return address


def check_server(url: str) -> None:
    """Check that the URL of a mail server has a scheme, a host and perhaps a port, and nothing else. Raises Invalid
    otherwise.
    """
    try:
        parts = urlsplit(url)
        is_wrong = parts.port == 0 or not parts.hostname
    except ValueError:
        is_wrong = True
    if is_wrong or parts.scheme not in ("smtp", "smtps") or url != f"{parts.scheme}://{parts.netloc}" or "@" in url:
        raise Invalid(
            "`mail_server` must be smtp://HOST[:PORT] or smtps://HOST[:PORT]",
            hint="leave out everything else; user and password have settings of their own",
        )
