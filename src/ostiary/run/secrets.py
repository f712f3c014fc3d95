"""Secrets of a command that `ostiary run` starts: in its environment, or in a descriptor that it inherits.

The value of a secret is in no file on disk, and in no argument of the command. The process itself can read the value:
an agent that prints its environment shows its secrets to the language model.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ostiary.agent import Secret
from ostiary.cli.usage import Usage

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")


class SecretVariable(NamedTuple):
    """A variable in which the command gets a secret. `path`: path of the secret; `member`: name of the member of its
    value, or an empty text for the only member. `in_descriptor`: true if the variable contains the path of a file in
    memory with the secret, instead of the secret itself.
    """

    name: str
    path: str
    member: str
    in_descriptor: bool


class CommandSecrets(NamedTuple):
    """The environment variables with the secrets of a command, and the file descriptors that the command inherits."""

    variables: dict[str, str]
    descriptors: Sequence[int]

    def __repr__(self) -> str:
        """Return the names of the variables without their values, which are secret."""
        return f"CommandSecrets({', '.join(self.variables)})"

    def close(self) -> None:
        """Close the descriptors in this process; those of the command stay open."""
        for descriptor in self.descriptors:
            os.close(descriptor)


def parse_variables(words: Sequence[str], in_descriptor: Sequence[str]) -> list[SecretVariable]:
    """Return the variables of the options `--secret` and `--secret-fd`: NAME=PATH or NAME=PATH#MEMBER. Raises Usage for
    an option of another form, for a repeated NAME or a NAME that begins with `OSTIARY_`, and for `--secret-fd` on a
    system without files in memory.
    """
    variables: list[SecretVariable] = []
    for word, is_descriptor in [*((word, False) for word in words), *((word, True) for word in in_descriptor)]:
        name, _, place = word.partition("=")
        path, _, member = place.partition("#")
        if not (_NAME.fullmatch(name) and path):
            raise Usage(f"{word!r} does not name a variable and a secret", hint="API_KEY=secret/shared/shop#api_key")
        if name.startswith("OSTIARY_"):
            raise Usage(f"the variable {name} is reserved for Ostiary", hint="choose a name without OSTIARY_")
        if name in {one.name for one in variables}:
            raise Usage(f"the variable {name} is named twice", hint="give each variable one secret")
        variables.append(SecretVariable(name, path, member, is_descriptor))
    if in_descriptor and not hasattr(os, "memfd_create"):
        raise Usage(
            "this operating system does not support files in memory (memfd)", hint="use --secret instead of --secret-fd"
        )
    return variables


def read_secrets(variables: Sequence[SecretVariable], read: Callable[[str], Secret]) -> CommandSecrets:
    """Read each secret once with `read`, and return the variables and the descriptors for the command. The caller
    closes the descriptors.

    Raises Usage if a variable names no member although the secret has several or none, or if the member is missing, is
    not a text, or contains NUL. Raises the errors of `read`.
    """
    secrets = {path: read(path) for path in dict.fromkeys(one.path for one in variables)}
    values = {one: _value_of(secrets[one.path], one) for one in variables}
    values_by_name: dict[str, str] = {}
    descriptors: list[int] = []
    for variable, value in values.items():
        if variable.in_descriptor:
            descriptors.append(_in_memory(variable.name, value))
            value = f"/dev/fd/{descriptors[-1]}"
        values_by_name[variable.name] = value
    return CommandSecrets(values_by_name, descriptors)


def _value_of(secret: Secret, variable: SecretVariable) -> str:
    if not variable.member and len(secret.data) != 1:
        members = ", ".join(sorted(secret.data))
        raise Usage(
            f"{variable.path} has {len(secret.data)} members, and {variable.name} names none",
            hint=f"{variable.name}={variable.path}#MEMBER: {members}",
        )
    member = variable.member or next(iter(secret.data))
    if member not in secret.data:
        raise Usage(
            f"{variable.path} has no member {member!r}", hint=f"show the members: ostiary secret get {variable.path}"
        )
    value = secret.data[member]
    if not isinstance(value, str) or "\0" in value:
        raise Usage(
            f"the member {member!r} of {variable.path} is not a text without null characters, so {variable.name} "
            "cannot hold it",
            hint=f"name another member: {variable.name}={variable.path}#MEMBER",
        )
    return value


def _in_memory(name: str, value: str) -> int:
    """Return the descriptor of a file in memory with the value, from which the command can read repeatedly."""
    descriptor = os.memfd_create(name)
    with os.fdopen(os.dup(descriptor), "wb") as file:
        file.write(value.encode())
    return descriptor
