"""The error of a command line that cannot be carried out."""

from __future__ import annotations

from ostiary.protocol.errors import Invalid


class Usage(Invalid):
    """A command line that asks for something impossible."""

    code = "usage"
