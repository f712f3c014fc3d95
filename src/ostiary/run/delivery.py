"""Delivery of the guarded configuration: how a command finds the configuration of its MCP servers, and how it gets the
guarded copy instead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from ostiary.cli.files import parse_json
from ostiary.cli.usage import Usage
from ostiary.run.configs import Config, find_config, parse_config, read_config

OPTION = "--mcp-config"
PLACE = "{mcp_config}"
KNOWN = {"claude": (OPTION, "--strict-mcp-config")}
"""Known programs, each with the option for configuration files, of which it accepts several, and the option that makes
the program ignore all other configurations.
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
    if named is not None and command[named] != PLACE:
        if not command[named].lstrip().startswith("{"):
            return read_config(Path(command[named]))
        of = f"the value of {OPTION}"
        return parse_config(parse_json(command[named], of=of, hint="correct the JSON"), of=of)
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
    repeated, has no value, or is written with `=`, or if a program of KNOWN gets several values.
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
    after = command[places[0] + 2 : places[0] + 3]
    if Path(command[0]).name in KNOWN and after and not after[0].startswith("-"):
        raise Usage(f"{OPTION} has more than one value", hint=f"put the servers into one file: {OPTION} FILE -p PROMPT")
    return places[0] + 1


def delivery(command: Sequence[str], *, config_env: str | None) -> Delivery:
    """Return the Delivery for the command: a function that takes the path of the guarded copy of the configuration, and
    returns the words of the command and the environment variables that make the command read the copy. Raises Usage for
    a command whose configuration cannot be replaced.
    """
    named, options = _after_option(command), KNOWN.get(Path(command[0]).name)
    if config_env is not None and (not config_env or "=" in config_env):
        raise Usage(f"{config_env!a} is not the name of a variable", hint="write --config-env MCP_CONFIG")
    if not has_config(command, config_env=config_env):
        raise Usage(
            f"the option or variable by which {command[0]} finds its MCP servers is not known",
            hint=f"write {PLACE} in the command in place of the configuration file, or name its variable with "
            f"--config-env NAME",
        )

    def deliver(copy: Path) -> tuple[list[str], dict[str, str]]:
        words = [word.replace(PLACE, str(copy)) for word in command]
        if named is not None:
            words[named] = str(copy)
        if options is not None:
            option, only = options  # a word `only` of the command can be a text after `--`, and then is no option
            words[1:1] = [*([option, str(copy)] if named is None else []), only]
        return words, {} if config_env is None else {config_env: str(copy)}

    return deliver
