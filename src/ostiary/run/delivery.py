"""Delivery of the guarded configuration: how a command finds the configuration of its MCP servers, and how it gets the
guarded copy instead.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from ostiary.cli.usage import Usage
from ostiary.run.configs import Config, find_config, parse_config, read_config

OPTION = "--mcp-config"
PLACE = "{mcp_config}"
KNOWN = {"claude": (OPTION, "--strict-mcp-config")}
"""Known programs, each with the option for a configuration file and the option that makes the program ignore all other
configurations.
"""

Delivery = Callable[[Path], tuple[list[str], dict[str, str]]]
"""A function that takes the path of the copy, and returns the words of the command and its additional environment."""


def source_of(command: Sequence[str], *, config: Path | None, config_in_variable: str | None) -> Config:
    """Return the configuration that the command would use without a guard: the file `config`, else the value of the
    command's `--mcp-config`, else the file with the path `config_in_variable` (the value of the environment variable
    that `--config-env` names), else the configuration of this folder, else that of the user. Raises Usage if there is
    none, or if the text is no configuration.
    """
    if config is not None:
        return read_config(config)
    named = _after_option(command)
    if named is not None and command[named].lstrip().startswith("{"):
        try:
            return parse_config(json.loads(command[named]), of=f"the value of {OPTION}")
        except ValueError as error:
            raise Usage(f"the value of {OPTION} is not JSON: {error}") from None
    if named is not None and command[named] != PLACE:
        return read_config(Path(command[named]))
    if config_in_variable:
        return read_config(Path(config_in_variable))
    config_text, where = find_config(Path.cwd(), Path.home())
    return parse_config(config_text, of=where)


def has_config(command: Sequence[str], *, config_env: str | None) -> bool:
    """Return whether the command gets a configuration of MCP servers: by the option `--mcp-config`, by the placeholder
    `{mcp_config}`, by the variable `config_env`, or because the program is one of KNOWN.
    """
    named = _after_option(command) is not None or any(PLACE in word for word in command)
    return named or config_env is not None or Path(command[0]).name in KNOWN


def _after_option(command: Sequence[str]) -> int | None:
    """Return the index of the value of `--mcp-config`; None without this option. Raises Usage if the option is
    repeated, has no value, or is written with `=`.
    """
    if any(word.startswith(f"{OPTION}=") for word in command):
        raise Usage(f"`{OPTION}` is written with `=`", hint=f"write `{OPTION} FILE`, with a space")
    places = [number for number, word in enumerate(command) if word == OPTION]
    if len(places) > 1:
        raise Usage(f"{OPTION} is given more than once", hint="put the servers into one file")
    if not places:
        return None
    if places[0] + 1 == len(command):
        raise Usage(f"{OPTION} has no value", hint=f"{OPTION} FILE")
    return places[0] + 1


def delivery(command: Sequence[str], *, config_env: str | None) -> Delivery:
    """Return the Delivery for the command: a function that takes the path of the guarded copy of the configuration, and
    returns the words of the command and the environment variables that make the command read the copy. Raises Usage for
    a command whose configuration cannot be replaced.
    """
    named = _after_option(command)
    if any(PLACE in word for word in command):
        return lambda copy: ([word.replace(PLACE, str(copy)) for word in command], {})
    if named is not None:
        return lambda copy: ([*command[:named], str(copy), *command[named + 1 :]], {})
    if config_env is not None:
        if not config_env or "=" in config_env:
            raise Usage(f"{config_env!a} is not the name of a variable", hint="write --config-env MCP_CONFIG")
        return lambda copy: ([*command], {config_env: str(copy)})
    if (option := KNOWN.get(Path(command[0]).name)) is not None:
        return lambda copy: ([*command, option[0], str(copy), *option[1:]], {})
    raise Usage(
        f"the option or variable by which {command[0]} finds its MCP servers is not known",
        hint=f"write {PLACE} in the command in place of the configuration file, or name its variable with "
        f"--config-env NAME",
    )
