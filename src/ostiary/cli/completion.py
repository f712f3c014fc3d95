"""`ostiary completion`: scripts that complete commands, options, choices, and names of registered objects.

At each Tab a script runs `ostiary` with the word `complete` and the words of the command line. Each line of the answer
is a candidate; without a line, the shell completes file names. Shells insert candidates into the command line, and bash
does not quote them, so only names that no shell interprets are candidates.
"""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import httpx2
from cyclopts import App

from ostiary.cli.ids import LISTS, IdList
from ostiary.cli.session import Session
from ostiary.protocol.errors import Refused

WAIT_S = 1.0
"""Time in seconds within which the server must answer; without an answer, the shell completes no names."""
MAX_NAMES = 200
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
"""A name without characters that a shell interprets; it does not begin with a hyphen."""
SCRIPTS = {
    "bash": """_ostiary() {
    mapfile -t COMPREPLY < <(ostiary complete "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
    if [ -z "${COMPREPLY[0]}" ]; then COMPREPLY=(); fi
}
complete -o default -F _ostiary ostiary
""",
    "zsh": """#compdef ostiary
_ostiary() {
    local -a candidates
    candidates=("${(@f)$(ostiary complete "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    if [ -n "${candidates[1]}" ]; then compadd -a candidates; else _files; fi
}
compdef _ostiary ostiary
""",
    "fish": """function __ostiary
    set -l words (commandline -opc) (commandline -ct)
    set -l candidates (ostiary complete $words[2..-1] 2>/dev/null)
    if test -n "$candidates"; string join \\n $candidates; else; __fish_complete_path $words[-1]; end
end
complete -c ostiary --no-files -a '(__ostiary)'
""",
}
_GROUPS = {
    "account-provider": IdList("/account-providers", "providers", "name"),
    "agent": LISTS["ag"],
    "catalogue": LISTS["rs"],
    "egress": IdList("/secrets/destinations", "destinations", "name"),
    "enforce": LISTS["ag"],
    "incident": LISTS["in"],
    "login-provider": IdList("/login-providers", "providers", "name", "whole"),
    "pep": LISTS["pp"],
    "person": LISTS["pe"],
    "resource": LISTS["rs"],
    "role": LISTS["pe"],
    "secret": IdList("/secrets/backends", "backends", "name", "whole"),
    "task": LISTS["tk"],
    "team": LISTS["te"],
    "threats": IdList("/threat-lists", "lists", "name"),
    "trust-anchor": IdList("/trust-anchors", "anchors", "name", "whole"),
    "trust-domain": IdList("/trust-domains", "trust_domains", "name"),
}
"""List of the objects that `name` and `id` name, by the group of commands."""
_BY_WORD = {"agent": "ag", "owner": "pe", "resource": "rs", "task": "tk"}
"""Kind of object that `name` or `id` names in `ostiary kill` and `ostiary revoke`, by the argument before it."""
_EVERYWHERE = ("--data-dir", "--json", "--wide", "--help")


def completion(shell: Literal["bash", "zsh", "fish"], /) -> None:
    """Print a completion script for a shell.

    For bash, write `source <(ostiary completion bash)` into ~/.bashrc; zsh likewise. For fish, run
    `ostiary completion fish > ~/.config/fish/completions/ostiary.fish`.

    Names of agents, resources and so on are completed if the server answers within a second.

    Args:
        shell: Name of the shell.
    """
    sys.stdout.write(SCRIPTS[shell])


def complete(app: App, words: list[str]) -> list[str]:
    """Return the candidates for the last of `words`, the words of the command line without `ostiary`. Without a
    candidate, the shell completes the name of a file.
    """
    place = _Place(app)
    *before, begun = words or [""]
    for word in before:
        place.take(word)
    with _time_limit(WAIT_S):
        return sorted({one for one in place.candidates(begun) if one.startswith(begun)})


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in the main thread after `seconds`."""

    def interrupt(*_: object) -> None:
        raise TimeoutError("the server has not answered in time")

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@dataclass(slots=True)
class _Place:
    """The position in a command line: the command, the option that waits for its value, the number of arguments
    so far and the last of them.
    """

    command: App
    path: tuple[str, ...] = ()
    option: str = ""
    arguments: int = 0
    last: str = ""
    data_dir: Path | None = None

    def take(self, word: str) -> None:
        """Move the position behind `word`."""
        if self.option:
            if self.option == "--data-dir":
                self.data_dir = Path(word)
            self.option = ""
        elif word.startswith("--"):
            if "=" not in word and self._takes_value(word):
                self.option = word
        elif not self.arguments and word in self.command:
            self.command, self.path = self.command[word], (*self.path, word)
        else:
            self.arguments += 1
            self.last = word

    def candidates(self, begun: str) -> Iterator[str]:
        """Yield the words that may come next."""
        if self.option:
            yield from self._values(self._named_arguments().get(self.option), begun)
            return
        if begun.startswith("-"):
            yield from (*self._named_arguments(), *_EVERYWHERE)
            return
        if not self.arguments:
            yield from (name for name in self.command if not name.startswith("-"))
        yield from self._values(self._positional(), begun)

    def _takes_value(self, option: str) -> bool:
        argument = self._named_arguments().get(option)
        return option == "--data-dir" or (argument is not None and argument.hint is not bool)

    def _arguments(self) -> list[Any]:
        if self.command.default_command is None:
            return []
        return [one for one in self.command.assemble_argument_collection() if one.parse]

    def _named_arguments(self) -> Mapping[str, Any]:
        return {
            name: one for one in self._arguments() for name in one.names if name.startswith("--") and one.index is None
        }

    def _positional(self) -> Any:
        """Return the next positional argument; after the last, the argument that accepts several values, or None."""
        listed = [one for one in self._arguments() if one.index is not None]
        rest = [one for one in listed if one.index >= self.arguments]
        return (rest or [one for one in listed if one.is_var_positional()] or [None])[0]

    def _values(self, argument: Any, begun: str) -> Iterator[str]:
        """Yield the choices of an argument, or the names of registered objects."""
        if argument is None:
            return
        if choices := _choices(argument.hint):
            yield from choices
            return
        listed = _list_of(argument.field_info.name, self.path, self.last)
        if listed is not None:
            yield from self._names(listed, begun)

    def _names(self, listed: IdList, begun: str) -> Iterator[str]:
        session = Session(self.data_dir, as_json=True)
        try:
            query = {**listed.query, **({} if listed.order == "whole" else {"limit": MAX_NAMES})}
            if listed is LISTS["ag"] and begun:
                query["text"] = begun  # the list may be longer than `MAX_NAMES`
            for row in session.api("GET", listed.path, query=query)[listed.kind]:
                name = str(row.get("name") or row[listed.member])
                if _NAME.fullmatch(name):
                    yield name
        except (Refused, httpx2.HTTPError, OSError):
            return  # without a server there is nothing to complete
        finally:
            session.close()


def _choices(hint: Any) -> list[str]:
    """Return the words of the `Literal` types in a type, such as an optional one; an empty list for other types."""
    if get_origin(hint) is Literal:
        return [str(word) for word in get_args(hint)]
    return [word for part in get_args(hint) for word in _choices(part)]


def _list_of(parameter: str, path: tuple[str, ...], last: str) -> IdList | None:
    """Return the list of the objects that a parameter names; None if it names none that exists. `last`: the argument
    before it.
    """
    group, command = (path[0], path[-1]) if path else ("", "")
    if group in ("kill", "revoke"):
        return LISTS[_BY_WORD[last]] if last in _BY_WORD else None
    if parameter == "name" and (command == "create" or (command == "add" and group not in ("agent", "team"))):
        return None  # a new name
    if parameter == "name" or (parameter == "id" and not last):
        return _GROUPS.get(group)
    if (group, parameter) == ("secret", "member"):
        return None
    return next((listed for listed in LISTS.values() if parameter in listed.parameters), None)
