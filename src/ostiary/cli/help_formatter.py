"""The printing of help: the lines of a paragraph are joined, and wrap where the terminal ends."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cyclopts import App
    from cyclopts.help import HelpPanel
    from rich.console import Console, ConsoleOptions


class HelpFormatter:
    """The formatter of Cyclopts for help texts, without the line breaks of docstrings. Examples, which are indented,
    keep their lines.

    Cyclopts' module is loaded only when help is printed. `root` returns the application.
    """

    def __init__(self, root: Callable[[], App]) -> None:
        self._root = root

    def __call__(self, console: Console, options: ConsoleOptions, panel: HelpPanel) -> None:
        """Print a panel of parameters or commands."""
        from cyclopts.help.formatters import DefaultFormatter

        for entry in panel.entries:
            _join(entry.description)
        DefaultFormatter()(console, options, panel)

    def render_usage(self, console: Console, options: ConsoleOptions, usage: Any) -> None:
        """Print the line `Usage:`."""
        from cyclopts.help.formatters import DefaultFormatter

        if hasattr(usage, "plain"):
            usage.plain = name_arguments(self._root(), usage.plain)
        DefaultFormatter().render_usage(console, options, usage)

    def render_description(self, console: Console, options: ConsoleOptions, description: Any) -> None:
        """Print the description of a command."""
        _join(description)
        console.print(description)


def name_arguments(app: App, usage: str) -> str:
    """Return a usage line such as `ostiary team deputy NAME [ARGS]` with the names of the optional arguments, such as
    `[DEPUTY]`, in place of `[ARGS]`.
    """
    if "[ARGS" not in usage:
        return usage
    command: Any = app
    for word in usage.removeprefix("Usage:").split()[1:]:
        if word in command:
            command = command[word]
    optional = [one for one in command.assemble_argument_collection() if one.index is not None and not one.required]
    names = [
        f"[{one.names[0].lstrip('-').upper()}{'...' if one.is_var_positional() else ''}]"
        for one in optional
        if one.parse
    ]
    return re.sub(r"\[ARGS(\.\.\.)?\]", " ".join(names), usage)


def _join(description: Any) -> None:
    """Join the lines of each paragraph of a description."""
    from rich.text import Text

    text = getattr(description, "primary_renderable", None)
    if isinstance(text, Text):
        description.primary_renderable = Text(re.sub(r"(?<=\S)\n(?=\S)", " ", text.plain), end=text.end)
