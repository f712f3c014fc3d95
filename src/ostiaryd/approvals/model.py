"""A question to a person, and its states.

    open --enough approvals--> approved --the call--> spent
      |--denial--> denied                |--date, revoke--> lapsed
      |--date--> expired
      |--requester--> cancelled

An approval is spent by its one call, or lapses at its date, or with the agent or the task of the request. Only a person
may answer, authenticated by a key, who is accountable for the agent or named by the asking policy, and who is not in
the chain of the request.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from enum import StrEnum
from typing import Any, NewType

import msgspec
from msgspec.structs import replace

from ostiary.authorization.catalogue import Kind, Tool
from ostiary.decision.access import Needs
from ostiary.protocol.errors import Conflict, Forbidden, Invalid
from ostiary.provenance.extent import Extent
from ostiary.provenance.origins.judging import GRAVE, value_at
from ostiary.provenance.origins.words import decimal
from ostiaryd.registry.model import AgentId, Caller, PersonId, check_text

ApprovalId = NewType("ApprovalId", str)
MAX_REASON = 500
MAX_STATED = 256
"""maximum length of a value that a person is asked to state, without spaces"""
UNTRUSTED = frozenset({"outside", "nowhere"})
"""origins of values that come neither from the person nor from a record"""
OBJECT = Kind.OBJECT
STATED = (Kind.ACCOUNT, Kind.ADDRESS, Kind.PRINCIPAL, OBJECT, Kind.AMOUNT)
"""kinds of arguments whose value a person can be asked to state, the first choice first"""
MAX_OPEN_OF_AGENT = 20
MAX_OPEN_OF_TASK = 5
MAX_DENIED_OF_TOOL = 2
"""maximum number of denied questions about a tool in one task: repeated questions with small variations tire a
person
"""
MAX_ASKED = 60
"""maximum number of questions of one agent in an hour, however they were answered"""
MAX_USES = 20
"""maximum number of further calls that an approval covers, and of each line of a plan"""
HOUR = 3_600_000_000
BLANK = "\u115f\u1160\u2800\u3164\uffa0"
"""Invisible letters."""
PLAN = "plan"
"""the kind of a question about the probable calls of a task"""
ELEVATE = "elevate"
"""the kind of a question about an elevation"""


class State(StrEnum):
    OPEN = "open"
    APPROVED = "approved"
    DENIED = "denied"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    SPENT = "spent"
    LAPSED = "lapsed"


class Says(StrEnum):
    APPROVE = "approve"
    DENY = "deny"


class Why(msgspec.Struct, frozen=True, omit_defaults=True):
    """The reason that an asking policy gives, in the words of the policy."""

    policy: str
    message: str = ""
    approvers: tuple[str, ...] = ()
    """names of the approvers; empty: the persons accountable for the agent"""


class Link(msgspec.Struct, frozen=True):
    """An agent through which the question came, and its task."""

    agent: str
    task: str


class Line(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A line of a plan: calls of one tool with one counterpart. `arguments`: recipients, objects and amounts."""

    resource: str
    tool: str
    effect: str
    arguments: dict[str, Any]
    extent: Extent
    times: int
    """the number of similar calls of the agent that were approved in earlier tasks"""


class About(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The content of a question, fixed when it is asked: the values to which an approval is bound, and information for
    the decision. Only the extent of an approval shrinks afterwards (`narrow`).

    `hidden`: arguments that are shown to no person; `outgoing`: arguments that leave as text; `foreign`: links and
    addresses in that text that come neither from the person nor from their records; `origins`: the origins of
    arguments; `chain`: the agents through which the authority came, the nearest first.
    """

    resource: str = ""
    tool: str = ""
    arguments: dict[str, Any] = {}
    hidden: list[str] = []
    outgoing: list[str] = []
    origins: dict[str, str] = {}
    foreign: dict[str, list[str]] = {}
    warnings: list[str] = []
    """warnings from the context that a person must see (`ostiary.provenance.extent`)"""
    effect: str = ""
    is_dangerous: bool = False
    """no value of the call comes from the person or from a record: all are from untrusted content or chosen by
    the agent
    """
    must_state: str = ""
    """name or dotted path of the argument whose value a person must state in order to approve (`choose_stated`);
    empty: none
    """
    extent: Extent | None = None
    """the further calls that an approval may cover; None: no further calls"""
    uses: int = MAX_USES
    """number of further calls that an approval may cover, and of each line of a plan"""
    lines: list[Line] = []
    """the lines of a plan"""
    policy: str = ""
    reasons: list[Why] = []
    chain: list[Link] = []
    person: str | None = None
    """the person on whose behalf the agent acts"""
    sole: str | None = None
    """the only person who may approve; None: any approver"""

    @property
    def covers_task(self) -> bool:
        """Return whether an approval covers similar calls by default: not if the call pays, destroys or administers."""
        return self.extent is not None and self.effect not in GRAVE

    @property
    def stated(self) -> str | float | None:
        """Return the value that a person must state in order to approve; None if there is none."""
        return find_stated(self.arguments, self.must_state) if self.must_state else None

    @property
    def policies(self) -> list[str]:
        """Return the names of the asking policies."""
        return [why.policy for why in self.reasons]


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """A question, its digest, and its state. `digest` is the digest of the call to which an approval is bound.
    Times in microseconds; `until` is the end of the approval.
    """

    approval_id: ApprovalId
    kind: str
    agent: AgentId
    task: str
    digest: str
    needs: Needs
    state: State
    about: About
    times: int
    """the number of times the question was asked: a repeated request waits for the same answer"""
    asked_at: int
    last_at: int
    ends_at: int
    answered_at: int | None = None
    until: int | None = None
    is_held: bool = False
    """the approval has not been ended before its date"""
    spent_at: int | None = None
    spent_for: str | None = None

    def state_at(self, now: int) -> State:
        """Return the state at `now`: an approval ends at its date without an act."""
        if self.state is State.OPEN and now >= self.ends_at:
            return State.EXPIRED
        if self.state is not State.APPROVED:
            return self.state
        if self.spent_at is not None:
            return State.SPENT
        return State.APPROVED if self.is_held and self.until is not None and now < self.until else State.LAPSED

    @property
    def tool(self) -> str:
        """Return resource and tool, such as `bank/pay`; empty for a question that is not about a tool."""
        return f"{self.about.resource}/{self.about.tool}" if self.about.tool else ""

    @property
    def requesters(self) -> frozenset[str]:
        """Return all agents of the chain of the request."""
        return frozenset((self.agent, *(link.agent for link in self.about.chain)))


class Narrowing(msgspec.Struct, frozen=True, kw_only=True):
    """The parts of a request that a person leaves out of an approval.

    `strike`: lines of a plan, from 1, that are not approved. `uses`: number of further calls, and of calls of each line
    of a plan. `at_most`: largest amounts of further calls, or largest `minutes` of an elevation.
    """

    strike: frozenset[int] = frozenset()
    uses: int | None = None
    at_most: Mapping[str, str] = {}


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of one person."""

    person: PersonId
    says: Says
    reason: str
    jkt: str | None
    at: int
    covers: bool = False
    """the approval extends to similar calls"""


class Cover(msgspec.Struct, frozen=True, kw_only=True):
    """An approval that covers similar calls; `line`: its line in a plan."""

    approval_id: str
    line: int
    extent: Extent
    is_planned: bool


def check_may_answer(question: Question, caller: Caller) -> PersonId:
    """Return the person. Raises Forbidden for agents, for parties of the request, and for a person who may not
    answer.
    """
    if caller.id in question.requesters:
        raise Forbidden(
            "an agent in the delegation chain cannot approve its own request", hint="a person must", code="own_chain"
        )
    if caller.kind != "person":
        raise Forbidden(
            "only a person can answer an approval request",
            hint="ostiary person create NAME --generate-key FILE",
            code="no_person",
        )
    if question.about.sole not in (None, caller.id):
        raise Forbidden(
            "the approval request is for another person", hint="the named person must answer", code="another_person"
        )
    return PersonId(caller.id)


def check_open(question: Question, *, now: int) -> None:
    """Check that an approval request is open. Raises Conflict."""
    if (state := question.state_at(now)) is not State.OPEN:
        raise Conflict(
            f"the approval request is already {state}",
            hint=f"ostiary approvals show {question.approval_id}",
            code="question_settled",
        )


def check_alone(question: Question) -> None:
    """Check that an approval may be given together with others. Raises Forbidden for a dangerous call."""
    if question.about.is_dangerous:
        raise Forbidden(
            "untrusted content or the agent chose all values of this call, so it is not approved together with others",
            hint="check the values, then approve the request alone",
            code="approve_alone",
        )


def choose_stated(tool: Tool, arguments: Mapping[str, Any], origins: Mapping[str, str]) -> tuple[bool, str]:
    """Return whether a call is dangerous, and the argument whose value a person must state in order to approve the
    call; empty if there is none.

    A dangerous call that pays, destroys or administers needs a stated value: that of its first recipient, or else of
    its first object, or else of its first amount, if the value is a number or a short text (`find_stated`). An argument
    that the catalogue does not declare counts last: an agent could add an argument with a value that is easy to state.
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
    """Return the value at a name or dotted path that a person can be asked to state; None if there is none.

    The value is a number, or a text of at most MAX_STATED characters besides spaces, also as the only element of a list
    or an object. A text with an invisible character counts as well: such a character must not save a call from its
    question.
    """
    value = value_at(arguments, path)
    while isinstance(value, list | dict) and len(value) == 1:
        (value,) = value.values() if isinstance(value, dict) else value
    if isinstance(value, str):
        return value if 0 < len(_bare(value)) <= MAX_STATED else None
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def check_stated(question: Question, value: str | None) -> None:
    """Check that an approval states the value of the call, if the request requires that. Raises Forbidden."""
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
            f"the call has another value of `{name}`",
            hint="check the value; if it is right, deny the request",
            code="value_differs",
        )


def is_stated(value: str, argument: str | float) -> bool:
    """Return whether `value`, which a person stated, is that of the call's argument. Spaces and case do not matter
    in a text; letters that only look alike differ, also the Kelvin sign and K. A number may be written with its digits
    grouped.
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
    """Return the limits that a person can lower in an approval: amounts of further calls, or minutes of an
    elevation.
    """
    if question.kind == ELEVATE:
        return {"minutes": str(question.about.arguments["minutes"])}
    return {} if question.about.extent is None else question.about.extent.amounts


def narrow(question: Question, narrowing: Narrowing, *, covers: bool) -> Question:
    """Return the question with the limits of an approval lowered. Raises Invalid for a change that lowers nothing.

    `covers`: the approval extends to further calls. Struck lines are checked here and keep their numbers.
    """
    about, limits = question.about, find_limits(question)
    if not narrowing.strike <= set(range(1, len(about.lines) + 1)):
        raise Invalid(
            f"the lines that can be struck are 1 to {len(about.lines)}",
            hint=f"ostiary approvals show {question.approval_id}",
        )
    if about.lines and len(narrowing.strike) == len(about.lines):
        raise Invalid("all lines are struck", hint="deny the request")
    if narrowing.uses is not None:
        if not covers and not about.lines:
            raise Invalid("an approval of one call has no `uses`", hint="leave out `uses`, or set `covers` to `task`")
        if not 1 <= narrowing.uses <= about.uses:
            raise Invalid(f"`uses` is 1 to {about.uses}", hint="an answer can only narrow the request")
        about = replace(about, uses=narrowing.uses)
    for name, value in narrowing.at_most.items():
        if name not in limits or not (covers or question.kind == ELEVATE):
            hint = "`at_most` of the request has the limits; set `covers` to `task` for those of further calls"
            raise Invalid(f"this approval has no limit `{name[:64]}`", hint=hint)
        least = 1 if question.kind == ELEVATE else 0
        if not least <= Decimal(value) <= Decimal(limits[name]) or (least and not value.isdecimal()):
            raise Invalid(f"`{name}` is {least} to {limits[name]}", hint="an answer can only narrow the request")
    if question.kind == ELEVATE:
        minutes = {name: int(value) for name, value in narrowing.at_most.items()}
        about = replace(about, arguments=about.arguments | minutes)
    elif about.extent is not None:
        about = replace(about, extent=replace(about.extent, amounts=limits | dict(narrowing.at_most)))
    return replace(question, about=about)


def check_reason(text: str) -> str:
    """Check the reason of an answer, and return it. Raises Invalid."""
    return check_text(text, of="reason", limit=MAX_REASON)


def settled(question: Question, before: list[Answer], answer: Answer) -> State:
    """Return the state after an answer: one denial is enough; if two approvals are needed, two persons must
    give them.
    """
    if answer.says is Says.DENY:
        return State.DENIED
    people = {one.person for one in before if one.says is Says.APPROVE} | {answer.person}
    return State.APPROVED if len(people) >= (2 if question.needs == "two" else 1) else State.OPEN
