"""Reports of a guard: numbered records of the calls that it decided, or could not decide, and the results of the calls
that it allowed.
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
"""maximum number of records in one report"""

Id = Annotated[str, Meta(min_length=1, max_length=256)]
Name = Annotated[str, Meta(max_length=256)]
Names = Annotated[list[Name], Meta(max_length=256)]
Micros = Annotated[int, Meta(ge=0, le=1 << 53)]
Network = Annotated[
    str, Meta(pattern=r"^(([0-9]{1,3}\.){3}0/24|([0-9a-f]{1,4}(:[0-9a-f]{1,4}){0,2})?::/48)?\Z", max_length=19)
]
"""the form of a network (`protocol.network`), never an address"""
Count = Annotated[int, Meta(ge=0, le=1 << 53)]
Rest = Annotated[int, Meta(ge=-(1 << 53), le=1 << 53)]
SpoolId = Annotated[str, Meta(pattern=r"^[0-9a-f]{32}\Z")]


class RecordedReason(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    code: Annotated[str, Meta(max_length=64)]
    message: Annotated[str, Meta(max_length=500)] = ""


class CallFacts(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """The facts that the policies evaluated, except those in the record itself. Record and facts are sufficient to
    replay the decision with other policies.

    `context`: the context in Cedar's JSON, without arguments and time; `arguments`: the arguments in the form of
    `access.recorded`.
    """

    owner: Name
    segment: Name
    resource_segment: Name
    catalogue: Annotated[str, Meta(max_length=64)]
    """digest of the catalogue of the resource with which the call was decided"""
    model: Name | None = None
    risk_tier: Name | None = None
    context: dict[str, Any] | msgspec.Raw
    """the context in Cedar's JSON, which the guard has as bytes"""
    call_context: dict[str, Any] = msgspec.field(default_factory=dict, name="beside")
    """members of the context that were computed for this call, such as `origin`; they contain no value of an
    argument
    """
    arguments: dict[str, Any] | None = None
    hidden: Names = []
    approved: Names = []
    """ids of the policies that require an approval, for which the call has spent one"""


class RemoteRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The results of remote policies: the digest of the question, and the result of each policy. The ledger entry with
    which the server recorded its answer has the same digest.
    """

    question: Annotated[str, Meta(max_length=64)]
    results: Annotated[dict[Name, Literal["permit", "forbid", "neither", "error"]], Meta(max_length=64)] = (
        msgspec.field(name="said")
    )


class CallRecord(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    omit_defaults=True,
    forbid_unknown_fields=True,
    tag_field="kind",
    tag="call",
):
    """The record of a decided call. `token`: `jti` of the token; `outcome`: the enforced result; `verdict`: the result
    of the rules, which differs from `outcome` only in mode `watch`.
    """

    at: Micros
    token: Id
    agent: Id
    task: Name = ""
    actors: Names = []
    tool: Annotated[str, Meta(max_length=256)]
    outcome: Literal["allow", "deny"]
    verdict: Literal["allow", "deny"]
    digest: Annotated[str, Meta(max_length=64)] = ""
    """digest of the arguments: `canonical.digest`"""
    arguments: dict[str, Any] | None = None
    """shortened or summarized arguments; None unless the guard is configured to record arguments"""
    reasons: Annotated[list[RecordedReason], Meta(max_length=64)] = []
    data_classes: Annotated[list[Name], Meta(max_length=2 * MAX_CLASSES)] = []
    """data classes of the tool"""
    policy: Name = ""
    policies: Names = []
    watched: Names = []
    spent: Annotated[dict[Name, Count], Meta(max_length=64)] = {}
    """units that the call was charged, by account"""
    errors: Annotated[list[tuple[Name, Annotated[str, Meta(max_length=500)]]], Meta(max_length=64)] = []
    facts: CallFacts | None = None
    remote: RemoteRecord | None = msgspec.field(default=None, name="elsewhere")
    approval: Name = ""
    """id of the approval that was requested or spent; empty if there is none"""
    network: Network = ""
    """the network of the caller"""
    noticed: Annotated[list[Noticed], Meta(max_length=16)] = []
    """findings of the guard's detectors about the call"""
    proof: Annotated[str, Meta(max_length=MAX_PROOF_BYTES)] = ""
    """the DPoP proof that the agent sent with the call. The server quarantines an agent because of a guard's report
    only if the report contains this proof.
    """
    sources: Annotated[list[Source], Meta(max_length=MAX_SOURCES)] = []
    """fields of records from which values of the call came; each is reported once per task"""


class UndecidedRecord(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    omit_defaults=True,
    forbid_unknown_fields=True,
    tag_field="kind",
    tag="undecided",
):
    """A call that could not be decided, with the error. `outcome`: `allow` if the call ran nevertheless, in
    mode `watch`.
    """

    at: Micros
    tool: Annotated[str, Meta(max_length=256)]
    outcome: Literal["allow", "deny"]
    token: Name = ""
    """`jti` of the token; empty if the request had no valid token"""
    agent: Name = ""
    """name or id of the agent that the guard supposes to be the caller, without a proof"""
    digest: Annotated[str, Meta(max_length=64)] = ""
    arguments: dict[str, Any] | None = None
    reasons: Annotated[list[RecordedReason], Meta(max_length=64)] = []


class ResultRecord(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    omit_defaults=True,
    forbid_unknown_fields=True,
    tag_field="kind",
    tag="result",
):
    """The result of an allowed call. `call`: the number of the call's record in the same spool."""

    at: Micros
    call: Annotated[int, Meta(ge=1)]
    status: Literal["ok", "error"]
    bytes: Count | None = None
    records: Count | None = None
    data_class: Annotated[str, Meta(max_length=64)] = ""
    """the data class of the result"""
    unused: Annotated[dict[Name, Rest], Meta(max_length=64)] = {}
    """unused units of the charge, by account; negative if the call returned more than it was charged"""


class Report(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Records of one spool with the numbers `first`, `first` + 1, and so on."""

    spool: SpoolId
    first: Annotated[int, Meta(ge=1, le=1 << 53)]
    records: Annotated[list[CallRecord | UndecidedRecord | ResultRecord], Meta(min_length=1, max_length=MAX_RECORDS)]
