"""Safeguards and role policies of the server, which are added to every policy set. A set can leave out a safeguard or a
role policy by its name, with a reason.

The added policies are stored with the set, as files under `LAYER` and `ROLES_LAYER`, which are names that an upload
cannot have. A set therefore decides the same after an update of the server that changes safeguards or role policies.
"""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Collection, Mapping
from importlib import resources
from typing import Annotated

import msgspec
from msgspec import Meta

from ostiary.authorization.cedar import ir
from ostiary.protocol.decoding import convert
from ostiary.protocol.errors import Invalid, Malformed
from ostiary.protocol.nearest import nearest_hint
from ostiaryd.policy.model.files import POLICIES, SAFEGUARDS, of_kind
from ostiaryd.policy.model.lower import lower

LAYER = "@safeguards/"
ROLES_LAYER = "@roles/"
EVERY_PERSON = "role-person"
"""The role policy that no set can leave out. A stored set without it was made before the server had role policies."""
MAX_TEXT = 64 << 10
"""Maximum number of characters of a file `*.safeguards.toml`."""


class _LeaveOut(msgspec.Struct, forbid_unknown_fields=True):
    """A file `*.safeguards.toml`: the names of the safeguards and roles that the set leaves out, each with the
    reason.
    """

    leave_out: dict[str, Annotated[str, Meta(min_length=1, max_length=400)]] = {}


@functools.cache
def safeguards() -> dict[str, str]:
    """Return the texts of the safeguards by id: Cedar policies of the server that are part of each policy set that does
    not leave them out. The result is cached, because a confined process cannot open files.
    """
    return _read_folder("safeguards")


@functools.cache
def roles() -> dict[str, str]:
    """Return the texts of the role policies of the server by id. The result is cached, because a confined process
    cannot open files.
    """
    return _read_folder("roles")


def _read_folder(name: str) -> dict[str, str]:
    folder = resources.files("ostiaryd.policy") / name
    texts = [file for file in folder.iterdir() if file.name.endswith(POLICIES)]
    return {file.name.removesuffix(POLICIES): file.read_text("utf-8") for file in sorted(texts, key=lambda f: f.name)}


@functools.cache
def role_rules() -> dict[str, ir.PolicyIR]:
    """Return the role policies of the server by id, in compiled form (IR)."""
    return {id: lower(text).policies[0] for id, text in roles().items()}


@functools.cache
def safeguard_rules() -> dict[str, ir.PolicyIR]:
    """Return the safeguards by id, as IR."""
    return {id: lower(text).policies[0] for id, text in safeguards().items()}


@functools.cache
def earlier_rules() -> dict[str, list[ir.PolicyIR]]:
    """Return the safeguards of earlier versions of the server by id, in compiled form (IR); one id can have several
    versions.
    """
    folder = resources.files("ostiaryd.policy") / "safeguards" / "earlier"
    rules: dict[str, list[ir.PolicyIR]] = {}
    for file in folder.iterdir():
        for policy in lower(file.read_text("utf-8")).policies:
            rules.setdefault(policy.id, []).append(policy)
    return rules


def is_safeguard(policy: ir.PolicyIR) -> bool:
    """Return whether a policy is an unchanged copy of a safeguard of the server, in its present or an earlier
    version.
    """
    return policy == safeguard_rules().get(policy.id) or policy in earlier_rules().get(policy.id, ())


def is_copy(policy: ir.PolicyIR) -> bool:
    """Return whether a policy is an unchanged copy of a safeguard (present or earlier) or of a role policy of the
    server.
    """
    return is_safeguard(policy) or policy == role_rules().get(policy.id)


def read_left_out(files: Mapping[str, str]) -> dict[str, str]:
    """Return the ids of the server's safeguards and role policies that the files of a set leave out, each with the
    reason. Raises Malformed for a file that is not TOML of this form, Invalid for a wrong or repeated name, and for a
    missing reason.
    """
    reasons: dict[str, str] = {}
    names = {*safeguards(), *roles()} - {EVERY_PERSON}
    for name, text in of_kind(files, SAFEGUARDS):
        if len(text) > MAX_TEXT:
            raise Invalid(f"{name} has {len(text)} characters", hint=f"use at most {MAX_TEXT} characters")
        try:
            left_out = convert(tomllib.loads(text), _LeaveOut).leave_out
        except (ValueError, OverflowError) as error:
            raise Malformed(f"{name}: {str(error)[:400]}") from None
        except RecursionError:
            raise Malformed(f"{name}: nested too deeply") from None
        for id, reason in left_out.items():
            if id not in names:
                raise Invalid(
                    f"{name}: no safeguard or role policy that may be left out has the id {id[:200]!a}",
                    hint=nearest_hint(id, names),
                )
            if id in reasons:
                raise Invalid(f"{name}: {id!a} is left out twice", hint="name the policy in one file only")
            if not reason.strip():
                raise Invalid(f"{name}: {id!a} is left out without a reason", hint=f'write the reason: {id} = "REASON"')
            reasons[id] = reason
    return reasons


def extend(files: Mapping[str, str], left_out: Collection[str]) -> dict[str, str]:
    """Return the files of a policy set with the texts of the server's safeguards and role policies added, except those
    with an id in `left_out`.
    """
    kept = {
        prefix + id + POLICIES: text
        for prefix, texts in ((LAYER, safeguards()), (ROLES_LAYER, roles()))
        for id, text in texts.items()
        if id not in left_out
    }
    return {**own_files(files), **kept}


def own_files(files: Mapping[str, str]) -> dict[str, str]:
    """Return the files of a policy set without the server's safeguards and role policies, which `extend` adds."""
    return {name: text for name, text in files.items() if not name.startswith((LAYER, ROLES_LAYER))}


def safeguards_in(files: Mapping[str, str]) -> dict[str, str]:
    """Return the texts, by id, of the server's safeguards among the files of an extended policy set."""
    return {
        name.removeprefix(LAYER).removesuffix(POLICIES): text
        for name, text in sorted(files.items())
        if name.startswith(LAYER)
    }


def role_layer(files: Mapping[str, str]) -> list[str]:
    """Return the ids of the server's role policies among the files of an extended policy set."""
    return [
        name.removeprefix(ROLES_LAYER).removesuffix(POLICIES) for name in sorted(files) if name.startswith(ROLES_LAYER)
    ]
