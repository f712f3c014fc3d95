"""The output of a command that fails: one line with the error, and one with the next step.

An unexpected exception is a defect of Ostiary: it is raised again, with its traceback.
"""

from __future__ import annotations

import json
import sys
from difflib import get_close_matches
from typing import NoReturn

import httpx2
from cyclopts import CycloptsError, MissingArgumentError, UnknownCommandError, UnusedCliTokensError
from rich.markup import escape

from ostiary.agent import ServerRefused
from ostiary.cli.exit_codes import INTERRUPTED, REFUSED, UNREACHABLE, USAGE
from ostiary.cli.output import err
from ostiary.cli.usage import Usage
from ostiary.client import TokenRefused
from ostiary.client.drive import describe_unreachable
from ostiary.protocol.errors import Refused, Unavailable


def end(error: BaseException, *, as_json: bool) -> NoReturn:
    """Print the error on standard error, and exit with the exit code for its kind."""
    if isinstance(error, KeyboardInterrupt):
        sys.exit(INTERRUPTED)
    refusal = _refusal_of(error)
    if refusal is None:
        raise error
    if as_json:
        shown = {"error": refusal.code, "message": refusal.message_with_detail, "hint": refusal.hint}
        print(json.dumps(shown), file=sys.stderr)
    else:
        err.print(f"[red]{escape(refusal.code)}[/]: {escape(refusal.message_with_detail)}")
        if refusal.hint:
            err.print(f"[dim]hint:[/] {escape(refusal.hint)}")
    if isinstance(refusal, Unavailable):
        sys.exit(UNREACHABLE)
    sys.exit(REFUSED if isinstance(refusal, (ServerRefused, TokenRefused)) else USAGE)


def _refusal_of(error: BaseException) -> Refused | None:
    """Return an expected error as a refusal; None for a defect."""
    match error:
        case Refused():
            return error
        case MissingArgumentError(keyword=None, tokens_so_far=[]) if error.argument is not None:
            return Usage(f"`{error.argument.name}` is required", hint=_help_of(error))
        case UnknownCommandError(unused_tokens=[word, *_]):
            return _unknown_command(error, word)
        case UnusedCliTokensError(unused_tokens=[*words]):
            return Usage(f"unexpected arguments: {' '.join(words)}", hint=_help_of(error))
        case CycloptsError():
            return Usage(str(error), hint=_help_of(error))
        case httpx2.UnsupportedProtocol():
            return Usage(
                "the URL of the server begins with neither `https://` nor `http://`",
                hint="check OSTIARY_URL and `issuer` in the credential file",
            )
        case httpx2.RequestError():
            return describe_unreachable(error)
        case httpx2.InvalidURL():
            return Usage(
                f"the URL of the server is not a URL: {error}",
                hint="check OSTIARY_URL and `issuer` in the credential file",
            )
        case ImportError():
            cause = error.__cause__ if isinstance(error.__cause__, ImportError) else error
            if cause.name and not cause.name.startswith("ostiary"):
                return Usage(
                    f"the package `{cause.name}` is not installed",
                    hint='pip install "ostiary[server,detect,postgres,mcp]"',
                )
        case BaseExceptionGroup() if len(error.exceptions) == 1:
            return _refusal_of(error.exceptions[0])
        case UnicodeEncodeError() if "\udc80" <= error.object[error.start] <= "\udcff":  # PEP 383
            return Usage("an argument contains bytes that are not UTF-8", hint="write the argument in UTF-8")
        case OSError() if error.filename is not None:  # an error about a file that the user named
            return Usage(f"{error.filename}: {error.strerror}", hint="check the path and its permissions")
    return None


def _unknown_command(error: UnknownCommandError, word: str) -> Usage:
    """Return the error for a word that is no command; the hint names a similar command."""
    group = ("ostiary", *(error.command_chain or ()))
    names = [name for name in error.app or () if not name.startswith("-")]
    hint = " ".join((*group, *get_close_matches(word, names, n=1), "--help"))
    return Usage(f"`{' '.join(group)}` has no command `{word}`", hint=hint)


def _help_of(error: CycloptsError) -> str:
    """Return the command that shows the help of the command that failed."""
    return " ".join(("ostiary", *(error.command_chain or ()), "--help"))
