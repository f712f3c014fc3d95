"""Approval of one call: its digest, and how a guard requests and spends the approval.

An approval is for exactly one call: agent, task, resource, tool, validated arguments, policies that require the
approval, and number of approvers. One digest (`binding`) of their canonical JSON identifies the call. The order of
members and the spelling of a number do not change the digest; every other difference does: a null differs from an
absent member, and no string is normalised. Arguments that the catalogue lists as `presentation` are omitted. For a
secret argument, the digest contains only the argument's own digest, and no person sees the argument.

The guard sends a request for each call that needs an approval. The server opens an approval request, returns its state,
or spends the approval. The server's answer (`ostiary.protocol.signed`, type `ostiary-approval+jwt`) lets only this call
pass.
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
"""maximum size of a request in bytes, with the whole outgoing text, because a person would not read a longer request"""
MAX_POLICIES = 64

Name = Annotated[str, Meta(min_length=1, max_length=256)]
Digest = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{43}\Z")]


class ApprovalRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A guard's request for an approval. `arguments`: the arguments that may be shown; `secrets`: digests of all other
    arguments, by name.
    """

    call: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{22}\Z")]
    """random number with which the guard identifies the call"""
    token: Id
    """`jti` of the token of the call"""
    policy: Annotated[str, Meta(min_length=1, max_length=64)]
    """hash of the policy set that decided"""
    policies: Annotated[list[Name], Meta(min_length=1, max_length=MAX_POLICIES)]
    """ids of the policies that require the approval"""
    tool: Name
    arguments: Annotated[dict[str, Any], Meta(max_length=256)]
    secrets: Annotated[dict[Name, Digest], Meta(max_length=256)] = {}
    origins: Annotated[dict[Name, Name], Meta(max_length=256)] = {}
    """origins of the arguments by name; empty if the guard does not know the origins"""
    foreign: Annotated[dict[Name, Annotated[list[Name], Meta(max_length=32)]], Meta(max_length=64)] = {}
    """links and mail addresses in outgoing text, by argument, that come neither from the person nor from the
    person's records
    """
    warnings: Annotated[list[Name], Meta(max_length=64)] = []
    """further warnings for the person (`ostiary.provenance.extent`): `mentioned`, `carries:personal`"""
    approval: Annotated[str, Meta(max_length=64)] = ""
    """id of the approval that the agent names; empty: any approval of this call"""


class ApprovalAnswer(signed.SignedAnswer, frozen=True, kw_only=True, forbid_unknown_fields=True):
    TYP, MAX_BYTES = "ostiary-approval+jwt", 8 << 10

    approval: str
    state: Literal["open", "spent"]
    """`open`: no person has answered yet; `spent`: this call has spent the approval, and may pass"""


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
    """Return the digest that identifies the call to which an approval is bound. `resource`: name of the resource.
    Raises Malformed for arguments without a canonical JSON form.
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


def divide_arguments(
    arguments: Mapping[str, Any], secrets: frozenset[str] | None, *, task: str
) -> tuple[dict[str, Any], dict[str, str]]:
    """Divide the arguments of a call, and return (arguments that may be shown, digests of the secret arguments), both
    by name. `secrets`: names of the secret arguments; None: all are secret. Raises Malformed for a secret argument that
    has no canonical JSON, and so no digest.

    Each digest includes the id of the task, so digests of two tasks cannot be compared.
    """
    hidden = arguments.keys() if secrets is None else secrets
    shown = {name: value for name, value in arguments.items() if name not in hidden}
    return shown, {
        name: canonical.digest([task, name, arguments[name]], floats=True) for name in arguments.keys() & hidden
    }


def render_ask(ask: ApprovalRequest) -> bytes:
    """Return the request as JSON. Raises Malformed for arguments without a canonical JSON form, and for more than
    MAX_ASKED bytes.
    """
    body = canonical.encode(msgspec.to_builtins(ask), floats=True)
    _check_length(body)
    return body


def check_arguments(arguments: Mapping[str, Any]) -> None:
    """Check that the arguments have at most MAX_ASKED bytes as JSON, so that a person can read them. Raises Malformed
    otherwise.
    """
    _check_length(canonical.encode(dict(arguments), floats=True))


def _check_length(body: bytes) -> None:
    if len(body) > MAX_ASKED:
        problem = f"the question for a person has {len(body)} bytes; the limit is {MAX_ASKED}"
        raise Malformed(problem, hint="send shorter arguments", code="too_long_to_ask")


def parse_ask(body: bytes) -> ApprovalRequest:
    """Return the request in a JSON body. Raises Malformed for any other body."""
    try:
        return json_decoder(ApprovalRequest)(body)
    except msgspec.DecodeError as error:
        raise Malformed(f"the body is not a request for an approval: {error}") from None
