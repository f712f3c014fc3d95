"""What a guard reports: numbered records of the calls that it decided, or could not decide, and how those that it let
through went.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from ostiary.authorization.classes import MAX_CLASSES
from ostiary.protocol.dpop import MAX_PROOF_BYTES
from ostiary.provenance.noticing import Noticed
from ostiary.provenance.sources import MAX_SOURCES, Source

MAX_RECORDS = 512
"""in one report"""

Id = Annotated[str, Meta(min_length=1, max_length=256)]
Name = Annotated[str, Meta(max_length=256)]
Names = Annotated[list[Name], Meta(max_length=256)]
Micros = Annotated[int, Meta(ge=0, le=1 << 53)]
Network = Annotated[
    str, Meta(pattern=r"^(([0-9]{1,3}\.){3}0/24|([0-9a-f]{1,4}(:[0-9a-f]{1,4}){0,2})?::/48)?\Z", max_length=19)
]
"""as `core.network` has it: nothing that could be an address"""
Count = Annotated[int, Meta(ge=0, le=1 << 53)]
Rest = Annotated[int, Meta(ge=-(1 << 53), le=1 << 53)]
SpoolId = Annotated[str, Meta(pattern=r"^[0-9a-f]{32}\Z")]


class Reason(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    code: Annotated[str, Meta(max_length=64)]
    message: Annotated[str, Meta(max_length=500)] = ""


class CallFacts(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What the policies were asked, beside what the record says already: enough to ask others the same.

    `context` is in Cedar's JSON, without arguments and time; `arguments` as `access.recorded` keeps them.
    """

    owner: Name
    segment: Name
    resource_segment: Name
    catalogue: Annotated[str, Meta(max_length=64)]
    """digest of the catalogue"""
    model: Name | None = None
    risk_tier: Name | None = None
    context: dict[str, Any] | msgspec.Raw
    """a guard has it in bytes"""
    beside: dict[str, Any] = {}
    """what the context had for this call alone: `origin` and the like, never a value"""
    arguments: dict[str, Any] | None = None
    hidden: Names = []
    approved: Names = []
    """policies that asked, and were told yes"""


class Elsewhere(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the server was asked for policies that no guard can run: the digest of the question, what each of them said.

    The server's own entry has the same digest.
    """

    question: Annotated[str, Meta(max_length=64)]
    said: Annotated[dict[Name, Literal["permit", "forbid", "neither", "error"]], Meta(max_length=64)]


class CallRecord(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    omit_defaults=True,
    forbid_unknown_fields=True,
    tag_field="kind",
    tag="call",
):
    """A decision. `token` is the token's `jti`; `outcome` is what was enforced, `verdict` what the rules say."""

    at: Micros
    token: Id
    agent: Id
    task: Name = ""
    actors: Names = []
    tool: Annotated[str, Meta(max_length=256)]
    outcome: Literal["allow", "deny"]
    verdict: Literal["allow", "deny"]
    digest: Annotated[str, Meta(max_length=64)] = ""
    """of the arguments: `canonical.digest`"""
    arguments: dict[str, Any] | None = None
    """redacted, if the guard was told to record them"""
    reasons: Annotated[list[Reason], Meta(max_length=64)] = []
    data_classes: Annotated[list[Name], Meta(max_length=2 * MAX_CLASSES)] = []
    """that the tool handles"""
    policy: Name = ""
    policies: Names = []
    watched: Names = []
    spent: Annotated[dict[Name, Count], Meta(max_length=64)] = {}
    """what the call took from which account"""
    errors: Annotated[list[tuple[Name, Annotated[str, Meta(max_length=500)]]], Meta(max_length=64)] = []
    facts: CallFacts | None = None
    elsewhere: Elsewhere | None = None
    approval: Name = ""
    """which one was asked for, or spent by it"""
    network: Network = ""
    """where the caller was"""
    noticed: Annotated[list[Noticed], Meta(max_length=16)] = []
    """what is odd about it"""
    proof: Annotated[str, Meta(max_length=MAX_PROOF_BYTES)] = ""
    """the DPoP proof that the agent sent with the call: without it the server isolates nobody on this guard's word"""
    sources: Annotated[list[Source], Meta(max_length=MAX_SOURCES)] = []
    """fields of records that values of the call came from, each reported once a task"""


class UndecidedRecord(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    omit_defaults=True,
    forbid_unknown_fields=True,
    tag_field="kind",
    tag="undecided",
):
    """A call that nobody could decide, and why. `outcome`: `allow` where it happened all the same, in mode `watch`."""

    at: Micros
    tool: Annotated[str, Meta(max_length=256)]
    outcome: Literal["allow", "deny"]
    token: Name = ""
    """the token's `jti`, if there was one"""
    agent: Name = ""
    """who the guard believes that it was"""
    digest: Annotated[str, Meta(max_length=64)] = ""
    arguments: dict[str, Any] | None = None
    reasons: Annotated[list[Reason], Meta(max_length=64)] = []


class ResultRecord(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    omit_defaults=True,
    forbid_unknown_fields=True,
    tag_field="kind",
    tag="result",
):
    """How the call with the number `call` of the same spool went."""

    at: Micros
    call: Annotated[int, Meta(ge=1)]
    status: Literal["ok", "error"]
    bytes: Count | None = None
    records: Count | None = None
    data_class: Annotated[str, Meta(max_length=64)] = ""
    """which class it turned out to be"""
    unused: Annotated[dict[Name, Rest], Meta(max_length=64)] = {}
    """what of that which the call took ahead comes back, by account; below zero: it returned more"""


class Report(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Records of one spool with the numbers `first`, `first` + 1, and so on."""

    spool: SpoolId
    first: Annotated[int, Meta(ge=1, le=1 << 53)]
    records: Annotated[list[CallRecord | UndecidedRecord | ResultRecord], Meta(min_length=1, max_length=MAX_RECORDS)]
