"""A call at a guard: its caller, its decision, and its record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from msgspec.structs import replace

from ostiary.authorization.assurance import INSUFFICIENT
from ostiary.authorization.budget import Volume
from ostiary.decision import access, report
from ostiary.guard.memories import Watched
from ostiary.protocol import canonical
from ostiary.protocol.canonical import MAX_INT
from ostiary.protocol.errors import Forbidden, Refused
from ostiary.protocol.signed import digest
from ostiary.provenance.noticing import MAX_SAYS, Noticed

MAX_REASON = 500
MAX_TOOL = 128
MAX_CLASS = 64
MAX_NAMED = 16
"""maximum number of policies in the record of a decision, so that the spool can hold every record"""


class Denied(Forbidden):
    """The call is denied; code, message and hint are those of the first reason.

    `missing_scope`: the scope that the tool needs and the token lacks; empty if the denial has another reason.
    """

    def __init__(self, decision: access.Decision, *, missing_scope: str = "") -> None:
        first = decision.reasons[0] if decision.reasons else access.Reason("denied", "the call is denied")
        super().__init__(first.message, hint=first.hint, code=first.code)
        self.decision, self.missing_scope = decision, missing_scope
        self.step_up = first if first.code == INSUFFICIENT else None
        """the demand for a stronger or newer authentication (RFC 9470), if nothing else is missing; otherwise None"""
        self.approval = decision.approval
        """id of the requested approval; once a person has approved, an equal call passes once"""


class Withheld(Forbidden):
    """The tool has run, but its result must not reach the agent: the result is too large, has an undeclared data class,
    or cannot be stored. The message says that the call has run, so that a model does not repeat a payment.

    `is_certain`: whether the result belongs to this call; otherwise, the call may still be running.
    """

    code = "volume_exceeded"

    def __init__(self, reason: str, *, hint: str = "", code: str | None = None, is_certain: bool = True) -> None:
        run = "has run" if is_certain else "may have run"
        super().__init__(f"the call {run}, but its result is withheld: {reason}", hint=hint, code=code)

    @classmethod
    def because_of(cls, refusal: Refused, *, is_certain: bool = True) -> Withheld:
        """Return a refusal of the result of a call as Withheld. The hint is replaced, because "try again" would repeat
        the call.
        """
        if isinstance(refusal, Withheld):
            return refusal
        hint = "do not repeat a call that changes something"
        return cls(refusal.message, hint=hint, code=refusal.code, is_certain=is_certain)


@dataclass(frozen=True, slots=True)
class Verified:
    """The caller of a request. The guard has verified the token, that the token is neither expired nor revoked, and the
    DPoP proof, unless the token may be used without one.
    """

    principal: access.Principal
    next_nonce: str | None = None
    """the value of `DPoP-Nonce` to send back"""
    network: str = ""
    """the IP network from which the request came; empty if unknown"""
    proof: str = field(default="", repr=False)
    """the DPoP proof that the client sent with the request"""


@dataclass(slots=True)
class Call:
    """A decided call, allowed or denied. `number`: the number of its record in the spool, the folder of records for the
    server.
    """

    decision: access.Decision
    number: int
    missing_scope: str = ""
    ok: bool = True
    enforces: bool = True
    classes: frozenset[str] = frozenset()
    """data classes that the tool of the call handles"""
    ahead: dict[str, Volume] = field(default_factory=dict)
    """volume limit of each account that was charged in advance with the maximum that one call may return"""
    watched: Watched | None = None
    """the facts with which the output is added to the task's memory; None: the task has no memory"""
    _size: dict[str, Any] = field(default_factory=dict)

    def result(
        self, *, ok: bool = True, bytes: int | None = None, records: int | None = None, data_class: str = ""
    ) -> None:
        """State the facts of the result for the record and the budgets: success (`ok`), size in bytes, number of
        records, and data class. Call this before the result is returned to the agent.

        Raises Withheld if the resource enforces and the result must not be returned: the result is larger than one call
        may return, or has a data class that the catalogue does not state for the tool.
        """
        self.ok, self._size = ok, {"bytes": bytes, "records": records, "data_class": data_class[:MAX_CLASS]}
        try:
            if self.enforces:
                self._check_size()
        except Withheld:
            self.ok = False
            raise

    def _check_size(self) -> None:
        data_class = str(self._size["data_class"])
        if data_class and self.classes and data_class not in self.classes:
            raise Withheld(
                f"the tool returned data of the class {data_class[:64]!a}, but the catalogue states only"
                f" {' '.join(sorted(self.classes))}"[:MAX_REASON],
                hint="the owner of the tool states the data class in the catalogue",
                code="undeclared_class",
            )
        for volume in self.ahead.values():
            if (volume.returned(**self._size) or 0) > volume.per_call:
                raise Withheld(
                    f"the result has more than {volume.per_call} {volume.meter.counted}", hint="ask for less"
                )

    @property
    def most_bytes(self) -> int | None:
        """The maximum number of bytes that the call may return, for callers that stream the result; None: no limit."""
        limits = [volume.per_call for volume in self.ahead.values() if volume.unit == "bytes" and self.enforces]
        return min(limits, default=None)

    def unused(self, ahead: Mapping[str, Volume]) -> dict[str, int]:
        """Return, by account in `ahead`, the units that were charged in advance and that the result did not use; empty
        if the result was not stated. In watch mode a value is negative if the result was larger than the charge.
        """
        least = 0 if self.enforces else -MAX_INT
        rest = {account: max(least, _rest(volume, self._size)) for account, volume in ahead.items()}
        return {account: units for account, units in rest.items() if units}

    def check(self) -> None:
        """Raise Denied with the reasons unless the call is allowed. A resource in watch mode allows every call that was
        decided.
        """
        if not self.decision.allowed:
            raise Denied(self.decision, missing_scope=self.missing_scope)


def _rest(volume: Volume, size: Mapping[str, Any]) -> int:
    returned = volume.returned(**size) if size else None
    return 0 if returned is None else volume.per_call - returned


def call_record(
    call: access.ResolvedCall,
    decision: access.Decision,
    *,
    spent: dict[str, int],
    remote: access.RemoteAnswers | None = None,
    approved: tuple[str, ...] = (),
    noticed: Sequence[Noticed] = (),
    network: str = "",
    proof: str = "",
) -> report.CallRecord:
    """Return the record to store before the tool runs. `spent`: the units that the call takes from budgets, by account;
    `approved`: ids of the policies that require an approval, for which this call has spent one. Raises Malformed for an
    allowed call whose arguments have no canonical JSON form, and so no digest.
    """
    principal, ready = call.principal, call.ready
    claims = principal.claims
    digest = _digest(call.arguments, decision)
    return report.CallRecord(
        at=call.now if remote is None else remote.at,
        token=claims.jti,
        agent=claims.client_id,
        task=claims.task,
        actors=list(principal.behind),
        tool=call.tool[:MAX_TOOL],
        outcome="allow" if decision.allowed else "deny",
        verdict="allow" if decision.verdict else "deny",
        digest=digest,
        reasons=[
            report.RecordedReason(reason.code, reason.message[:MAX_REASON]) for reason in decision.reasons[:MAX_NAMED]
        ],
        data_classes=[] if ready is None else ready.class_names,
        policy=decision.policy_hash,
        policies=list(decision.policies[:MAX_NAMED]),
        watched=list(decision.watched[:MAX_NAMED]),
        spent=spent,
        errors=[(policy, message[:MAX_REASON]) for policy, message in decision.errors[:MAX_NAMED]],
        approval=decision.approval,
        network=network,
        facts=_facts(call, decision, approved) if digest and decision.arguments is not None else None,
        remote=None if remote is None else _remote_record(remote),
        noticed=[replace(one, says=one.says[:MAX_SAYS]) for one in noticed[:MAX_NAMED]],
        proof=proof,
    )


def _remote_record(remote: access.RemoteAnswers) -> report.RemoteRecord | None:
    """Return the record of remote policies: the digest of the question, and the result of each policy. None if no
    remote policy was asked.
    """
    for question, verdict in remote.verdicts.items():
        return report.RemoteRecord(question=digest(question), results={one.policy: _word(one) for one in verdict})
    return None


def _word(result: access.PolicyResult) -> Literal["permit", "forbid", "neither", "error"]:
    return "error" if result.error else "forbid" if result.forbids else "permit" if result.permits else "neither"


def _facts(call: access.ResolvedCall, decision: access.Decision, approved: tuple[str, ...]) -> report.CallFacts:
    """Return the facts of the call that the policies evaluated, for the record."""
    assert decision.arguments is not None
    assert call.ready is not None
    principal, resource = call.principal, call.facts.resource
    claims = principal.claims
    kept = access.arguments_to_record(decision.arguments, call.ready.secrets)
    return report.CallFacts(
        owner=claims.owner,
        segment=claims.segment,
        model=claims.model,
        risk_tier=claims.risk_tier,
        resource_segment=resource.segment,
        catalogue=resource.catalogue_hash,
        context=principal.recorded,
        call_context=decision.call_context or {},
        arguments=kept.arguments,
        hidden=kept.hidden,
        approved=list(approved),
    )


def undecided_record(
    principal: access.Principal | None,
    agent: str,
    tool: str,
    arguments: Mapping[str, Any],
    why: Refused,
    *,
    passes: bool,
    now: int,
) -> report.UndecidedRecord:
    """Return the record of a call that could not be decided because of `why`. `passes`: whether the tool runs, as in
    watch mode. If the arguments have no digest, the record has none.
    """
    claims = principal.claims if principal is not None else None
    try:
        digest = _digest_arguments(arguments)
    except Refused:
        digest = ""
    return report.UndecidedRecord(
        at=now,
        token=claims.jti if claims is not None else "",
        agent=claims.client_id if claims is not None else agent,
        tool=tool[:MAX_TOOL],
        outcome="allow" if passes else "deny",
        digest=digest,
        reasons=[report.RecordedReason(why.code[:MAX_CLASS], why.message[:MAX_REASON])],
    )


def _digest(arguments: Mapping[str, Any], decision: access.Decision) -> str:
    try:
        return _digest_arguments(arguments)
    except Refused:
        if decision.allowed:
            raise  # a call that the ledger cannot identify must not run
        return ""


def _digest_arguments(arguments: Mapping[str, Any]) -> str:
    return canonical.digest(dict(arguments), floats=True, max_depth=canonical.MAX_ARGUMENTS_DEPTH)


def shorten(arguments: Mapping[str, Any], secrets: frozenset[str] | None) -> dict[str, Any]:
    """Return at most 64 arguments for the record: integers up to 2^53-1, other numbers and booleans unchanged, strings
    cut to 100 characters, and `...` in place of any other value and of each argument in `secrets` (None: all
    arguments).
    """
    return {
        name[:64]: "..." if secrets is None or name in secrets else _short(value)
        for name, value in list(arguments.items())[:64]
    }


def _short(value: object) -> object:
    match value:
        case bool() | float():
            return value
        case int() if -canonical.MAX_INT <= value <= canonical.MAX_INT:
            return value
        case str():
            return value[:100]
        case _:
            return "..."
