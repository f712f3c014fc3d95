"""The policies of a set that are not Cedar: Rego modules with their data, and documents of a remote OPA server.

The package `ostiary.NAME` is the policy NAME. Its rule `permit` must be true or false; its rule `forbid` must be true,
false, or a set of messages. A policy has at least one of these rules. Each rule must have a value for every request
(`default permit := false`); a policy without a value fails. With `mode := "watch"`, the verdict of a policy is only
recorded. Other packages are libraries.

A file `NAME.opa.toml` names a document of a remote OPA server, which has the same two members, or is a boolean. A
verdict may depend only on the request and the data, so the engine refuses clocks, random numbers, the network and the
environment.
"""

from __future__ import annotations

import re
import tomllib
from collections import defaultdict
from collections.abc import Mapping
from typing import Annotated, Literal, Protocol

import msgspec
from msgspec import Meta

from ostiary.decision.access.remote_policies import RemoteVerdict
from ostiary.protocol import canonical
from ostiary.protocol.decoding import convert
from ostiary.protocol.errors import Invalid, Malformed
from ostiaryd.policy.model.files import DATA, OPA, REGO, of_kind

MAX_POLICIES = 64
MAX_DATA = 1 << 20

_QUIET = re.compile(r'"(?:\\.|[^"\\\n])*"|`[^`]*`|\#[^\n]*')
_PACKAGE = re.compile(r"^[ \t]*package[ \t]+(\S+)[ \t]*$", re.MULTILINE)
_POLICY = re.compile(r"ostiary\.([a-z][a-z0-9_]{0,62})")
_DATA_NAME = re.compile(r"(?:[A-Za-z0-9_.-]+/)*([a-z][a-z0-9_]{0,62})")
_NAME_RULE = "NAME begins with a lower-case letter, and has at most 63 lower-case letters, digits and `_`"
_MODE = re.compile(r'^mode[ \t]*:=[ \t]*"(\w*)"[ \t]*$', re.MULTILINE)
_PATH = r"^[A-Za-z0-9_-]{1,63}(/[A-Za-z0-9_-]{1,63}){0,15}\Z"


class Program(msgspec.Struct, frozen=True):
    """The policies of a set that are in Rego or at an OPA server. `hash`: the hash of the set; `data`: the data files
    by name, as JSON texts; `policies`: the names of the Rego policies; `remote`: the policies at an OPA server by name,
    each with its path there; `watching`: all these policies, each with true if it is in watch mode.
    """

    hash: str
    modules: dict[str, str]
    data: dict[str, str]
    policies: tuple[str, ...]
    remote: dict[str, str]
    watching: dict[str, bool]


class Engine(Protocol):
    """The interface by which a set's policies in Rego or at an OPA server are evaluated."""

    def check(self, program: Program) -> None:
        """Check that the engine can evaluate the policies of a program. Raises Invalid if it cannot, Unavailable if the
        engine fails.
        """

    def ask(self, program: Program, question: bytes) -> RemoteVerdict:
        """Return the verdicts of the program's policies on a question, which is encoded as JSON. A policy that fails
        has an error as its verdict. Raises nothing.
        """


class _Remote(msgspec.Struct, forbid_unknown_fields=True):
    path: Annotated[str, Meta(pattern=_PATH)]
    mode: Literal["enforce", "watch"] = "enforce"


def read_program(hash: str, files: Mapping[str, str]) -> Program | None:
    """Return the policies in Rego or at an OPA server in the files of a set with this hash; None if all policies are
    Cedar. Raises Malformed for a file that cannot be read, Invalid for a name or a number of policies that is not
    allowed.
    """
    modules = dict(of_kind(files, REGO))
    watching = _packages(modules)
    policies = tuple(watching)
    remote: dict[str, str] = {}
    for name, text in of_kind(files, OPA):
        policy, remote_policy = name.removesuffix(OPA).rpartition("/")[2], _remote(name, text)
        if policy in watching:
            raise Invalid(f"{name}: there is another policy `{policy}`")
        remote[policy], watching[policy] = remote_policy.path, remote_policy.mode == "watch"
    data = {_data_name(name): _data(name, text) for name, text in of_kind(files, DATA)}
    if not watching:
        if modules:
            raise Invalid(
                f"{next(iter(modules))}: the Rego modules of the set contain no policy",
                hint="name the package of a policy `ostiary.NAME`",
            )
        for name, _ in of_kind(files, DATA):
            raise Invalid(
                f"{name}: no Rego policy and no policy of an OPA server in the set reads the data",
                hint="remove the file, or add a module with the package `ostiary.NAME`",
            )
        return None
    if len(watching) > MAX_POLICIES:
        raise Invalid(
            f"the set has {len(watching)} policies outside of Cedar", hint=f"use at most {MAX_POLICIES} policies"
        )
    return Program(hash, modules, data, policies, remote, watching)


def check_data_names(files: Mapping[str, str]) -> None:
    """Check that no two files of a new set define the same `data.NAME`. Raises Invalid if two do.

    Stored sets are not checked again: if two files define the same name, the last file applies.
    """
    file_of: dict[str, str] = {}
    for name, _ in of_kind(files, DATA):
        if (other := file_of.setdefault(_data_name(name), name)) != name:
            raise Invalid(f"{name}: {other} is `data.{_data_name(name)}` already", hint="rename one of the two files")


def _packages(modules: Mapping[str, str]) -> dict[str, bool]:
    """Return the names of the policies in Rego modules, each with True if it is in watch mode. The engine compares this
    result with that of OPA's parser. Raises Malformed for a module without one `package`, Invalid for a wrong name or
    `mode`.
    """
    modes: dict[str, list[str]] = defaultdict(list)
    for name, text in modules.items():
        package = _PACKAGE.findall(_without_strings(name, text))
        if len(package) != 1:
            raise Malformed(
                f"{name}: the module has {len(package)} lines `package NAME`",
                hint="begin the module with one such line",
            )
        if package[0] == "ostiary_answers" or package[0].startswith("ostiary_answers."):
            raise Invalid(f"{name}: the package `ostiary_answers` is reserved for the server")
        if (match := _POLICY.fullmatch(package[0])) is not None:
            modes[match[1]] += _MODE.findall(text)
        elif package[0] == "ostiary" or package[0].startswith("ostiary."):
            raise Invalid(
                f"{name}: the package `{package[0][:100]}` does not name a policy",
                hint=f"name the package `ostiary.NAME`; {_NAME_RULE}",
            )
    for policy, found_modes in modes.items():
        hint = 'write mode := "watch" once, or leave it out'
        if len(found_modes) > 1:
            raise Invalid(f"the package ostiary.{policy} sets `mode` more than once", hint=hint)
        if not {"watch", "enforce"}.issuperset(found_modes):
            raise Invalid(f"the package ostiary.{policy} sets `mode` to neither watch nor enforce", hint=hint)
    return {policy: modes[policy] == ["watch"] for policy in sorted(modes)}


def _without_strings(name: str, text: str) -> str:
    """Return the text of a Rego module without its strings and comments. Raises Malformed for characters that OPA would
    change.
    """
    if "\0" in text:
        raise Malformed(f"{name}: the module has a NUL character")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Malformed(f"{name}: the module has a lone surrogate") from None
    return _QUIET.sub(lambda match: "" if match[0].startswith("#") else '""', text)


def _remote(name: str, text: str) -> _Remote:
    try:
        return convert(tomllib.loads(text), _Remote)
    except (ValueError, OverflowError, RecursionError) as error:
        raise Malformed(f"{name}: {str(error)[:400]}") from None


def _data_name(name: str) -> str:
    match = _DATA_NAME.fullmatch(name.removesuffix(DATA))
    if match is None:
        hint = f"NAME{DATA} is `data.NAME` in Rego; {_NAME_RULE}"
        raise Invalid(f"{name}: the name of the data file is not a lower-case word of Rego", hint=hint)
    if match[1].startswith("ostiary"):
        raise Invalid(
            f"{name}: names that begin with `ostiary` are reserved for the server", hint="choose another name"
        )
    return match[1]


def _data(name: str, text: str) -> str:
    """Return the text of a data file if it is JSON. The text is returned unchanged, because conversion to Python floats
    would change numbers. Raises Malformed for other text.
    """
    try:
        canonical.parse(text, max_bytes=MAX_DATA)
    except Malformed as error:
        raise Malformed(f"{name}: {error.message}") from None
    return text
