"""The error for a command line that is wrong: an option, a file or a setting."""

from __future__ import annotations

from ostiary.protocol.errors import Invalid


class Usage(Invalid):
    """The command line is wrong: an option, an argument, a file or a setting."""

    code = "usage"
