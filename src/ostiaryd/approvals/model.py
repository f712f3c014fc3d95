"""An approval request, and its states.

    open --enough approvals--> approved --the call--> spent
      |--denial--> denied                |--date, revoke--> lapsed
      |--date--> expired
      |--requester--> cancelled

An approval is spent by its one call, or lapses at its end, or when the agent or the task of the request ends. Only a
person may answer, authenticated by a key, who is accountable for the agent or named by the asking policy, and who is
not in the chain of the request.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from enum import StrEnum
from typing import Any, NamedTuple, NewType

import msgspec
from msgspec.structs import replace

from ostiary.authorization.catalogue import GRAVE, Kind, Tool
from ostiary.decision import approval
from ostiary.decision.access import Needs
from ostiary.decision.access.facts import ReadyTool
from ostiary.protocol.errors import Conflict, Forbidden, Invalid
from ostiary.provenance.extent import Extent, counterpart_of, split_arguments
from ostiary.provenance.origins.judging import value_at
from ostiary.provenance.origins.memory import UNTRUSTED
from ostiary.provenance.origins.words import decimal
from ostiaryd.registry.model import AgentId, Caller, PersonId, check_text
from ostiaryd.tasks.model import Task

ApprovalId = NewType("ApprovalId", str)
MAX_REASON = 500
MAX_STATED = 256
"""Maximum length of a value that a person must state, in characters without spaces."""
OBJECT = Kind.OBJECT
STATED = (Kind.ACCOUNT, Kind.ADDRESS, Kind.PRINCIPAL, OBJECT, Kind.AMOUNT)
"""Kinds of arguments whose value a person can be asked to state, in the order of preference."""
MAX_OPEN_OF_AGENT = 20
MAX_OPEN_OF_TASK = 5
MAX_DENIED_OF_TOOL = 2
"""Number of denied approval requests about a tool in one task from which further ones are refused, because many similar
requests tire a person.
"""
MAX_SPENT_OF_CALL = 3
"""Maximum number of approvals of exactly one call that are spent and have not expired. A further repetition is refused
without a question, because an agent that repeats a call without an end would tire a person.
"""
MAX_ASKED = 60
"""Maximum number of approval requests of one agent in an hour, whether answered or not."""
MAX_USES = 20
"""Maximum number of further calls that an approval covers, and of calls for each line of a plan."""
HOUR = 3_600_000_000
BLANK = "\u115f\u1160\u2800\u3164\uffa0"
"""Characters that count as letters but are invisible."""
PLAN = "plan"
"""Kind of an approval request about the probable calls of a task."""
ELEVATE = "elevate"
"""Kind of an approval request that asks for an elevation: more scopes for a limited time."""
REQUEST_ACTIONS = ("approval.ask", "elevation.request")
"""The actions of the ledger whose entries record a new approval request; notifications follow these entries."""


class ApprovalState(StrEnum):
    """The state of an approval request. `spent`: the approval was used; `lapsed`: the approval ended unused."""

    OPEN = "open"
    APPROVED = "approved"
    DENIED = "denied"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    SPENT = "spent"
    LAPSED = "lapsed"


class Says(StrEnum):
    """The content of an answer: a person approves or denies the request."""

    APPROVE = "approve"
    DENY = "deny"


class Why(msgspec.Struct, frozen=True, omit_defaults=True):
    """The reason for which one policy asks for approval: its id, and the message that the policy states."""

    policy: str
    message: str = ""
    approvers: tuple[str, ...] = ()
    """Names of the approvers; empty for the persons accountable for the agent."""


class ApprovalLink(msgspec.Struct, frozen=True):
    """An agent in the delegation chain of the request, and the task under which the agent acts."""

    agent: str
    task: str


class Line(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A line of a plan request: similar calls, of one tool with one counterpart, that the person approves together.
    `arguments`: their recipients and objects; `extent`: the limits within which the approval covers a call.
    """

    resource: str
    tool: str
    effect: str
    arguments: dict[str, Any]
    extent: Extent
    times: int
    """Number of similar calls of the agent that were approved in earlier tasks."""


class About(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The content of an approval request: the values of the call to which an approval is bound, and information for the
    person who answers. The content does not change, except that an answer can lower the limits (`narrow`).

    `hidden`: names of arguments that are shown to no person; `outgoing`: names of arguments whose text leaves the
    system; `foreign`: links and addresses in such text that come neither from the person nor from a record; `origins`:
    for each argument, the origin of its value, such as the person or untrusted content; `chain`: the agents through
    which the task was delegated, the nearest first.
    """

    resource: str = ""
    tool: str = ""
    arguments: dict[str, Any] = {}
    hidden: list[str] = []
    outgoing: list[str] = []
    origins: dict[str, str] = {}
    foreign: dict[str, list[str]] = {}
    warnings: list[str] = []
    """Warnings from the context that a person must see (`ostiary.provenance.extent`)."""
    effect: str = ""
    is_dangerous: bool = False
    """True if no value of the call comes from the person or from a record: all come from untrusted content or were
    chosen by the agent.
    """
    must_state: str = ""
    """Name or dotted path of the argument whose value a person must state in order to approve (`choose_stated`); empty
    for none.
    """
    extent: Extent | None = None
    """The further calls to which an approval may extend; None for none."""
    counterpart: str = ""
    """Digest of the effect and the counterpart of the call (`Extent.counterpart`): a denial ends the covers of similar
    calls. Empty if no argument identifies a recipient or an object.
    """
    varies_times: bool = False
    """True if an approval that covers further calls covers other times too."""
    uses: int = MAX_USES
    """Maximum number of further calls that an approval covers, and of calls for each line of a plan."""
    lines: list[Line] = []
    """The lines of a plan; empty for other requests."""
    policy: str = ""
    reasons: list[Why] = []
    chain: list[ApprovalLink] = []
    person: str | None = None
    """The person on whose behalf the agent acts; None for none."""
    sole: str | None = None
    """Id of the only person who may approve; None if every approver may."""

    @property
    def covers_task(self) -> bool:
        """Return whether an approval covers similar calls of the task if the person does not choose: true if the
        request allows that, unless the call pays, destroys or administers.
        """
        return self.extent is not None and self.effect not in GRAVE

    @property
    def max_spent(self) -> int:
        """Return the number of used, unexpired approvals of the same call from which a further request for an approval
        is refused: 1 for a call that pays, destroys or administers and for a request that is not about a call, because
        a repetition may be a mistaken retry; more for other calls.
        """
        return MAX_SPENT_OF_CALL if self.effect and self.effect not in GRAVE else 1

    @property
    def stated(self) -> str | float | None:
        """Return the value of the argument that a person must state to approve; None if there is no such argument."""
        return find_stated(self.arguments, self.must_state) if self.must_state else None

    @property
    def policies(self) -> list[str]:
        """Return the names of the policies that ask for approval."""
        return [why.policy for why in self.reasons]


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """An approval request with its state. `digest` is the digest of the exact call to which an approval is bound.
    `ends_at` is the time until which persons can answer, `until` the time until which the approval can be used. Times
    are in microseconds.
    """

    approval_id: ApprovalId
    kind: str
    agent: AgentId
    task: str
    digest: str
    needs: Needs
    state: ApprovalState
    about: About
    times: int
    """Number of times that the agent sent this request. A repeated request waits for the same answer."""
    asked_at: int
    last_at: int
    ends_at: int
    answered_at: int | None = None
    until: int | None = None
    is_held: bool = False
    """True if the approval was given and has not been ended early. Its agent or its task may have ended
    nevertheless.
    """
    spent_at: int | None = None
    spent_for: str | None = None

    def state_at(self, now: int) -> ApprovalState:
        """Return the state at `now` (microseconds). The stored state does not change when time passes: an open request
        is expired from `ends_at` on, and an unused approval is lapsed from `until` on.
        """
        if self.state is ApprovalState.OPEN and now >= self.ends_at:
            return ApprovalState.EXPIRED
        if self.state is not ApprovalState.APPROVED:
            return self.state
        if self.spent_at is not None:
            return ApprovalState.SPENT
        return (
            ApprovalState.APPROVED
            if self.is_held and self.until is not None and now < self.until
            else ApprovalState.LAPSED
        )

    @property
    def tool(self) -> str:
        """Return the subject of the request: for a call, resource and tool, such as `bank/pay`; for an elevation,
        `elevate/` and the scopes; for a backchannel request, its kind, and the person for whom the agent wants to act;
        for a plan, the empty text.
        """
        return f"{self.about.resource}/{self.about.tool}" if self.about.tool else ""

    @property
    def requesters(self) -> frozenset[str]:
        """Return the ids of all agents in the delegation chain of the request."""
        return frozenset((self.agent, *(link.agent for link in self.about.chain)))


class Narrowing(msgspec.Struct, frozen=True, kw_only=True):
    """The parts of a request that a person leaves out of an approval.

    `strike`: numbers, from 1, of the lines of a plan that are not approved. `uses`: maximum number of further similar
    calls, for a plan per line. `at_most`: by argument, the maximum amount of further similar calls; for an elevation,
    `minutes`.
    """

    strike: frozenset[int] = frozenset()
    uses: int | None = None
    at_most: Mapping[str, str] = {}


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of one person to an approval request."""

    person: PersonId
    says: Says
    reason: str
    jkt: str | None
    at: int
    covers: bool = False
    """True if the approval extends to similar calls."""


class Cover(msgspec.Struct, frozen=True, kw_only=True):
    """The extension of an approval to similar calls of the task, which then need no approval of their own. `line`: the
    number of the line of a plan, 0 if the request is not a plan; `extent`: the limits within which a call is similar.
    """

    approval_id: str
    line: int
    extent: Extent
    is_planned: bool


class AskedCall(NamedTuple):
    """A call that needs an approval: its task, the name of its resource, and its tool. `arguments`: those whose values
    a person may see; `secrets`: the others, with digests of their values.
    """

    task: Task
    resource: str
    ready: ReadyTool
    arguments: dict[str, Any]
    secrets: dict[str, str]

    @property
    def counterpart(self) -> str:
        """Return the digest of the call's effect and counterpart (its recipients and objects), which is equal for
        similar calls of the task; empty if no argument identifies a recipient or an object.
        """
        split = split_arguments(self.ready.tool, self.arguments)
        return (
            ""
            if split is None
            else counterpart_of(
                self.ready.tool,
                split,
                agent=self.task.agent,
                task=self.task.task_id,
                resource=self.resource,
                secrets=self.secrets,
            )
        )

    def digest(self, policies: Iterable[str], needs: Needs) -> str:
        """Return the digest of the exact call and of the policies that ask, to which an approval is bound. `needs`:
        approval by one `person` or `two`. Raises Malformed for arguments without a canonical JSON form.
        """
        return approval.binding(
            agent=self.task.agent,
            task=self.task.task_id,
            resource=self.resource,
            tool=self.ready.tool.name,
            arguments=self.arguments,
            secrets=self.secrets,
            presentation=self.ready.presentation,
            policies=policies,
            needs=needs,
        )


def check_may_answer(question: Question, caller: Caller) -> PersonId:
    """Return the id of the calling person. Raises Forbidden if the caller is an agent in the delegation chain of the
    request (`own_chain`), not a person (`no_person`), or not the only person whom the request names (`another_person`).
    Whether the person is responsible for the agent is not checked here.
    """
    if caller.id in question.requesters:
        raise Forbidden(
            "an agent in the delegation chain cannot approve its own request",
            hint="a person must answer",
            code="own_chain",
        )
    if caller.kind != "person":
        raise Forbidden(
            "only a person can answer an approval request",
            hint="use the key of a person: ostiary person add-key NAME --generate-key FILE",
            code="no_person",
        )
    if question.about.sole not in (None, caller.id):
        message = "only the person whom the approval request names may answer it"
        raise Forbidden(message, hint="let that person answer", code="another_person")
    return PersonId(caller.id)


def check_open(question: Question, *, now: int) -> None:
    """Check that an approval request is open at `now` (microseconds): neither settled nor expired. Raises Conflict
    otherwise.
    """
    if (state := question.state_at(now)) is not ApprovalState.OPEN:
        raise Conflict(
            f"the approval request is already {state}",
            hint=f"show the approval: ostiary approvals show {question.approval_id}",
            code="question_settled",
        )


def check_alone(question: Question) -> None:
    """Check that an approval request may be approved together with others. Raises Forbidden for a dangerous call: all
    its values come from untrusted content or were chosen by the agent.
    """
    if question.about.is_dangerous:
        raise Forbidden(
            "all values of this call come from untrusted content or from the agent; it cannot be approved "
            "together with others",
            hint="check the values, then approve the request alone",
            code="approve_alone",
        )


def choose_stated(tool: Tool, arguments: Mapping[str, Any], origins: Mapping[str, str]) -> tuple[bool, str]:
    """Return whether a call is dangerous (all its values come from untrusted content or were chosen by the agent), and
    the name or path of the argument whose value a person must state in order to approve the call; empty if there is
    none.

    A dangerous call that pays, destroys or administers needs a stated value: that of its first recipient, or else of
    its first object, or else of its first amount, if the value is a number or a short text (`find_stated`). An argument
    that the catalogue does not declare is considered last, because an agent could add an argument with a value that is
    easy to state.
    """
    kinds = tool.argument_kinds
    trusts = {origin for path, origin in origins.items() if kinds.get(path) not in (Kind.TEXT, Kind.TIME)}
    if not trusts or not trusts <= UNTRUSTED:
        return False, ""
    if tool.effect not in GRAVE:
        return True, ""
    paths = [path for path in origins if kinds.get(path, OBJECT) in STATED and find_stated(arguments, path) is not None]
    return True, min(paths, key=lambda path: (path not in kinds, STATED.index(kinds.get(path, OBJECT))), default="")


def find_stated(arguments: Mapping[str, Any], path: str) -> str | float | None:
    """Return the value in `arguments` at a name or dotted path, if a person can be asked to state it; otherwise None.

    The value is a number, or a text of at most MAX_STATED characters besides spaces, or a list or an object with one of
    these as its only element. A text with an invisible character is accepted too, so that such a character does not
    remove the need to state the value.
    """
    value = value_at(arguments, path)
    while isinstance(value, list | dict) and len(value) == 1:
        (value,) = value.values() if isinstance(value, dict) else value
    if isinstance(value, str):
        return value if 0 < len(_bare(value)) <= MAX_STATED else None
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def check_stated(question: Question, value: str | None) -> None:
    """Check that `value`, which the approving person stated, equals the value of the argument `must_state`, if the
    request has one. Raises Forbidden for a missing (`value_needed`) or a different value (`value_differs`).
    """
    name, argument = question.about.must_state, question.about.stated
    if argument is None:
        return
    if value is None:
        raise Forbidden(
            f"state the value of `{name}` to approve this call",
            hint="take the value from a source that you trust, not from the agent",
            code="value_needed",
        )
    if not is_stated(value, argument):
        raise Forbidden(
            f"the value of `{name}` in the call differs from the stated value",
            hint="check the value; if your value is right, deny the request",
            code="value_differs",
        )


def is_stated(value: str, argument: str | float) -> bool:
    """Return whether `value`, which a person stated, equals the argument of the call. In a text, spaces and case are
    ignored, but similar-looking letters are different (also the Kelvin sign and K). In a number, digits may be grouped,
    as in 1,000.
    """
    value = _bare(value)
    if isinstance(argument, str):
        argument = _bare(argument)
        return value.lower() == argument.lower() and value.upper() == argument.upper()
    number = decimal(value)
    return number is not None and (float(number) if isinstance(argument, float) else Decimal(number)) == argument


def _bare(text: str) -> str:
    return "".join(text.split())


def find_limits(question: Question) -> dict[str, str]:
    """Return, by name, the limits of the request that a person can lower in an answer: for an elevation, the minutes;
    otherwise the amounts up to which an approval covers similar calls.
    """
    if question.kind == ELEVATE:
        return {"minutes": str(question.about.arguments["minutes"])}
    return {} if question.about.extent is None else question.about.extent.amounts


def narrow(question: Question, narrowing: Narrowing, *, covers: bool) -> Question:
    """Return the approval request with its limits lowered as the answer states. Raises Invalid for a limit that the
    answer would raise, and for a limit or line that the request does not have.

    `covers`: the approval extends to similar calls. Struck lines are checked but stay in the request, so that the other
    lines keep their numbers.
    """
    about, limits = question.about, find_limits(question)
    if not narrowing.strike <= set(range(1, len(about.lines) + 1)):
        raise Invalid(
            f"`strike` must contain only numbers of lines, from 1 to {len(about.lines)}",
            hint=f"show the approval: ostiary approvals show {question.approval_id}",
        )
    if about.lines and len(narrowing.strike) == len(about.lines):
        raise Invalid("all lines are in `strike`", hint="deny the request")
    if narrowing.uses is not None:
        if not covers and not about.lines:
            raise Invalid(
                "`uses` is set, but the approval covers only one call",
                hint="leave out `uses`, or set `covers` to `task`",
            )
        if not 1 <= narrowing.uses <= about.uses:
            raise Invalid(f"`uses` must be 1 to {about.uses}", hint="answer with the requested number or less")
        about = replace(about, uses=narrowing.uses)
    for name, value in narrowing.at_most.items():
        if name not in limits or not (covers or question.kind == ELEVATE):
            hint = (
                "`at_most` of the approval request lists the limits; "
                "for a limit of further calls, also set `covers` to `task`"
            )
            raise Invalid(f"this approval has no limit `{name[:64]}`", hint=hint)
        least = 1 if question.kind == ELEVATE else 0
        if not least <= Decimal(value) <= Decimal(limits[name]) or (least and not value.isdecimal()):
            raise Invalid(
                f"`{name}` must be {'a whole number from 1' if least else '0'} to {limits[name]}",
                hint="answer with the requested limit or less",
            )
    if question.kind == ELEVATE:
        minutes = {name: int(value) for name, value in narrowing.at_most.items()}
        about = replace(about, arguments=about.arguments | minutes)
    elif about.extent is not None:
        about = replace(about, extent=replace(about.extent, amounts=limits | dict(narrowing.at_most)))
    return replace(question, about=about)


def check_reason(text: str) -> str:
    """Return the reason that a person gave for an answer. Raises Invalid for a reason that is empty, too long or not
    plain text.
    """
    return check_text(text, of="reason", limit=MAX_REASON)


def state_after(question: Question, before: list[Answer], answer: Answer) -> ApprovalState:
    """Return the state of an approval request after `answer`, which follows the answers `before`. One denial settles
    the request as denied. If two approvals are needed, two different persons must give them.
    """
    if answer.says is Says.DENY:
        return ApprovalState.DENIED
    people = {one.person for one in before if one.says is Says.APPROVE} | {answer.person}
    return ApprovalState.APPROVED if len(people) >= (2 if question.needs == "two" else 1) else ApprovalState.OPEN
