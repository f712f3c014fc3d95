"""The egress proxy of a run: the variables by which programs use the proxy, and the protection of its keys from the
command.

A command that runs as the same user as the proxy can read the keys of the proxy on disk, so the secrets are not hidden
from it. If `ostiary run` runs as root, the command can run as another user. Otherwise, run the proxy separately with
`ostiary egress serve`, which reads its key from a descriptor and closes it.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import ssl
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ostiary.cli.usage import Usage
from ostiary.run.configs import EGRESS, Server

PROXY_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")
CA_VARIABLES = (
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "NODE_EXTRA_CA_CERTS",
    "GIT_SSL_CAINFO",
    "AWS_CA_BUNDLE",
    "PIP_CERT",
    "CARGO_HTTP_CAINFO",
    "DENO_CERT",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
)
_EMPTIED = ("NO_PROXY", "no_proxy", "ALL_PROXY", "all_proxy")
NOT_HIDDEN = "not hidden from the agent"
_PR_SET_DUMPABLE = 4
EGRESS_SERVER = Server(EGRESS, EGRESS, {"type": EGRESS})


@dataclass(frozen=True)
class EgressOptions:
    """Options of the egress proxy.

    Args:
        egress: Send the requests of COMMAND through a proxy that decides them, and that puts secrets into requests to
            the destinations of `ostiary egress add`. The requests that COMMAND makes do not contain these secrets. Only
            with `--user` are the keys of the proxy hidden from COMMAND too.
        user: As root: the user that COMMAND runs as. This user must not be able to read the keys of the proxy;
            otherwise a warning says so.
        allow_private: Host whose private addresses COMMAND may reach through the proxy; may be given several times.
        upstream_ca: File of certificate authorities (PEM) that the proxy trusts for servers, besides the system's.
    """

    egress: bool = False
    user: str | None = None
    allow_private: tuple[str, ...] = ()
    upstream_ca: Path | None = None

    def check(self) -> None:
        """Check that no other option is given without `--egress`. Raises Usage otherwise."""
        if not self.egress and (self.user or self.allow_private or self.upstream_ca):
            raise Usage("--user, --allow-private and --upstream-ca are options of --egress", hint="add --egress")


class CommandUser(NamedTuple):
    """The operating-system user as which the command of `ostiary run` runs."""

    name: str
    uid: int
    gid: int
    home: str

    @property
    def variables(self) -> dict[str, str]:
        """Return the variables of the user's environment."""
        return {"HOME": self.home, "USER": self.name, "LOGNAME": self.name}


def find_user(name: str) -> CommandUser:
    """Return the user that the command runs as. Raises Usage unless this process is root and the user is
    unprivileged.
    """
    if os.geteuid() != 0:
        raise Usage("only root can run the command as another user", hint="leave out --user")
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        raise Usage(f"there is no user {name!a}", hint="name an unprivileged user") from None
    if entry.pw_uid == 0:
        raise Usage("--user is root, who reads every key", hint="name an unprivileged user")
    return CommandUser(name, entry.pw_uid, entry.pw_gid, entry.pw_dir)


def explain_visibility(user: CommandUser | None, files: Iterable[Path]) -> str:
    """Return the reason why the command can read the keys of the proxy; an empty text if the command
    cannot read them. `user`: None if the command runs as the user of the proxy. `files`: the files with the keys.
    """
    if user is None:
        return "the command runs as the same user as the proxy"
    for file in files:
        status = file.stat()
        if status.st_uid == user.uid or status.st_mode & 0o077:
            return f"{user.name} can read {file}"
    return ""


def forbid_dumps() -> bool:
    """Forbid core dumps of this process, and reading of its memory by other processes of its user. Return
    whether the system supports this (Linux only).
    """
    if not sys.platform.startswith("linux"):
        return False
    code: int = ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    return code == 0


def egress_variables(url: str, ca_file: Path) -> dict[str, str]:
    """Return the environment variables by which programs use the proxy for all hosts, and trust the certificate
    authority of the proxy.
    """
    return {
        **dict.fromkeys(PROXY_VARIABLES, url),
        **dict.fromkeys(CA_VARIABLES, str(ca_file)),
        **dict.fromkeys(_EMPTIED, ""),
        "NODE_USE_ENV_PROXY": "1",
    }


def upstream_tls(ca_file: Path | None) -> ssl.SSLContext:
    """Return the TLS context that verifies upstream servers, with the authorities of the system and of the file (None:
    of the system alone). Raises Usage if the file cannot be read, or is not in PEM.
    """
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    try:
        if ca_file is not None:
            context.load_verify_locations(ca_file)
    except (OSError, ssl.SSLError) as error:
        raise Usage(f"cannot read the authorities {ca_file}: {error}", hint="name a file in PEM") from None
    return context
