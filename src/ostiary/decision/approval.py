"""Approval of one call: its digest, and how a guard requests and spends the approval.

An approval is for exactly one call: agent, task, resource, tool, the validated arguments, the asking policies, and the
number of approvers. All of that is one digest (`binding`): canonical JSON, so the order of members and the spelling of
a number do not matter, and everything else does: a null differs from an absent member, and no string is normalised.
Arguments that the catalogue calls `presentation` are left out. Secret arguments are in it by their own digest, and no
person sees them.

The guard sends a request with each call that needs an approval. The server opens a question, returns its state, or
spends the approval; its answer (`ostiary.protocol.signed`, type `ostiary-approval+jwt`) lets that one call pass and no
other.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from ostiary.decision.report import Id
from ostiary.protocol import canonical, signed
from ostiary.protocol.decoding import json_decoder
from ostiary.protocol.errors import Malformed

MAX_ASKED = 64 << 10
"""maximum size of a question in bytes, with the whole outgoing text: a person would not read a longer one"""
MAX_POLICIES = 64

Name = Annotated[str, Meta(min_length=1, max_length=256)]
Digest = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{43}\Z")]


class ApprovalRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A request for approval. `arguments` may be shown; `secrets` has the digests of the others."""

    call: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{22}\Z")]
    """a random number of the guard"""
    token: Id
    """the token's `jti`"""
    policy: Annotated[str, Meta(min_length=1, max_length=64)]
    """the hash of the set"""
    policies: Annotated[list[Name], Meta(min_length=1, max_length=MAX_POLICIES)]
    """the asking policies"""
    tool: Name
    arguments: Annotated[dict[str, Any], Meta(max_length=256)]
    secrets: Annotated[dict[Name, Digest], Meta(max_length=256)] = {}
    origins: Annotated[dict[Name, Name], Meta(max_length=256)] = {}
    """the origins of arguments by name, as far as the guard knows"""
    foreign: Annotated[dict[Name, Annotated[list[Name], Meta(max_length=32)]], Meta(max_length=64)] = {}
    """links and mail addresses in outgoing text, by argument, that come neither from the person nor from the
    person's records
    """
    warnings: Annotated[list[Name], Meta(max_length=64)] = []
    """further warnings for the person (`ostiary.provenance.extent`): `mentioned`, `carries:personal`"""
    approval: Annotated[str, Meta(max_length=64)] = ""
    """the approval that the agent names; absent: any approval of this call"""


class ApprovalAnswer(signed.SignedAnswer, frozen=True, kw_only=True, forbid_unknown_fields=True):
    TYP, MAX_BYTES = "ostiary-approval+jwt", 8 << 10

    approval: str
    state: Literal["open", "spent"]
    """open: a person has not answered; otherwise this call may pass"""


def binding(
    *,
    agent: str,
    task: str,
    resource: str,
    tool: str,
    arguments: Mapping[str, Any],
    secrets: Mapping[str, str],
    presentation: Collection[str],
    policies: Iterable[str],
    needs: str,
) -> str:
    """Return the digest of the call to which an approval is bound. `resource` is a name. Raises Malformed for
    arguments without a digest.
    """
    shown = {name: value for name, value in arguments.items() if name not in presentation}
    value = {
        "agent": agent,
        "task": task,
        "resource": resource,
        "tool": tool,
        "arguments": shown,
        "secrets": dict(secrets),
        "policies": sorted(policies),
        "needs": needs,
    }
    return canonical.digest(value, floats=True)


def part(
    arguments: Mapping[str, Any], secrets: frozenset[str] | None, *, task: str
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the arguments that may be shown, and the digests of the secret ones (None: all are secret). Raises
    Malformed.

    The digest of a secret is bound to its task.
    """
    hidden = arguments.keys() if secrets is None else secrets
    shown = {name: value for name, value in arguments.items() if name not in hidden}
    return shown, {
        name: canonical.digest([task, name, arguments[name]], floats=True) for name in arguments.keys() & hidden
    }


def render_ask(ask: ApprovalRequest) -> bytes:
    """Encode a request. Raises Malformed for arguments without a digest, and for a request over MAX_ASKED bytes."""
    body = canonical.encode(msgspec.to_builtins(ask), floats=True)
    _check_length(body)
    return body


def check_arguments(arguments: Mapping[str, Any]) -> None:
    """Check that a person can read all arguments: at most MAX_ASKED bytes. Raises Malformed."""
    _check_length(canonical.encode(dict(arguments), floats=True))


def _check_length(body: bytes) -> None:
    if len(body) > MAX_ASKED:
        problem = f"the question for a person has {len(body)} bytes; the limit is {MAX_ASKED}"
        raise Malformed(problem, hint="send shorter arguments", code="too_long_to_ask")


def parse_ask(body: bytes) -> ApprovalRequest:
    """Parse a request from a body that is strict JSON (no member twice). Raises Malformed."""
    try:
        return json_decoder(ApprovalRequest)(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Malformed(str(error)) from None
