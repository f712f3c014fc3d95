"""The error of a command line that cannot be carried out."""

from __future__ import annotations

from ostiary.protocol.errors import Invalid


class Usage(Invalid):
    """The arguments of the command are invalid."""

    code = "usage"
