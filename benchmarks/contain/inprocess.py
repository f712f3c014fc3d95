"""Ostiary as a product without a server: the decision code of a guard, with the policies of a new server.

What a guard and a server do for one task is done here in the same order with the same functions: the draft from the
words, the memory of origins, the history, the decision, the question as a person is shown it, the yes that is good for
one call, the budget. One process decides some thousands of calls a second, so that sweeps over many worlds end.
`test_inprocess.py` compares its rows with those of a real server.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Any

from benchmarks.contain import rules
from benchmarks.contain.products import FOREIGN, Opened, Question, Verdict
from benchmarks.contain.suites import Call, Output, Person, Tool
from ostiary.authorization import budget
from ostiary.authorization.catalogue import GRAVE, Catalogue, Kind
from ostiary.authorization.cedar import ir
from ostiary.authorization.claims import AccessClaims
from ostiary.catalogue_advisor.draft import draft
from ostiary.decision import approval
from ostiary.decision.access import DecisionInputs, Facts, Policies, Principal, Protected, decide, past_of, resolve
from ostiary.decision.access.decide import Decision
from ostiary.protocol.errors import Refused
from ostiary.provenance.extent import Extent, digest_outside, extent_of, is_mentioned, warnings_of
from ostiary.provenance.history import NOTHING, History, PriorHistory, after, created, created_by, in_passing
from ostiary.provenance.intent import parse_intent
from ostiary.provenance.origins import (
    Memory,
    add_parts,
    is_effect,
    list_foreign_links,
    observe_output,
    origins_by_argument,
    remember,
    with_marks,
)
from ostiaryd.approvals.model import MAX_DENIED_OF_TOOL, MAX_USES, About, choose_stated

URI = "https://tools.example/mcp"
KEY = bytes(32)
SECOND = 1_000_000
NOW, END = 1_800_000_000, 2_000_000_000
"""seconds: one moment for all calls"""
NAME = "ostiary"


@dataclass(slots=True)
class Session:
    principal: Principal
    memory: Memory
    history: History = NOTHING
    recent: History = NOTHING
    left: dict[str, int] = field(default_factory=dict)
    """units of each budget"""
    refused: set[str] = field(default_factory=set)
    """digests of the calls that the person denied"""
    spent: Counter[str] = field(default_factory=Counter)
    """number of spent approvals by the digest of the call"""
    asked: tuple[Call, str, tuple[str, ...], Extent | None] | None = None
    """the call that a person is asked about, what the answer is bound to, which policies ask, what a yes covers"""
    covers: list[tuple[Extent, int]] = field(default_factory=list)
    """extent of each approval, and the number of calls that are left"""
    denied: Counter[str] = field(default_factory=Counter)
    """denied questions by tool"""


class InProcess:
    name: str
    thefts: Sequence[str] = FOREIGN

    def __init__(self, catalogue: Catalogue, policies: ir.PolicySetIR, *, without: str = "") -> None:
        """`policies`: the active set; `without`: the rule that is left out, as `rules` has them."""
        self.name = f"without {without}" if without else NAME
        self._catalogue, self._without = catalogue, without
        kept = tuple(one for one in policies.policies if one.id != without)
        resource = Protected(name=catalogue.resource, uri=URI, segment="default", catalogue=catalogue)
        self._facts = Facts(resource, Policies("in process", ir.PolicySetIR(kept)))
        self._scopes, self._count = sorted(catalogue.scopes), 0
        self._learns, self._recent = False, dict[str, History]()

    def open(self, agent: str, purpose: str, tools: Sequence[Tool], person: Person) -> Opened:
        self._count += 1
        drafted, memory = self._begun(purpose, person)
        limits = budget.parse_limits(drafted["budget"])
        budgets = [budget.Budget(f"bu_{number}", limit) for number, limit in enumerate(limits)]
        task = f"tk_{self._count}"
        claims = AccessClaims(
            iss="https://ostiary.example",
            sub=agent,
            client_id=agent,
            aud=URI,
            iat=NOW,
            exp=END,
            jti="tok_1",
            scope=" ".join(self._scopes),
            task=task,
            memory="" if self._without == rules.INTENT else task,
            authorization_details=drafted["bounds"],
            segment="default",
            budgets=budgets,
        )
        left = {one.id: one.limit.units for one in budgets}
        return Opened(Session(Principal(claims), memory, recent=self._recent.get(agent, NOTHING), left=left))

    @cache  # noqa: B019 because a product lives as long as its sessions
    def _begun(self, purpose: str, person: Person) -> tuple[dict[str, Any], Memory]:
        """Return the draft of a task and its first memory, which are the same in each session of the task."""
        own = {name: value for name, value in asdict(person).items() if value}
        drafted = draft(
            purpose, [(URI, self._catalogue)], scopes=self._scopes, own=own, may_name_recipient=False
        ).render()
        if self._without == rules.ENDORSED:
            drafted["intent"] |= {"endorsed": []}
        return drafted, with_marks(remember(KEY, parse_intent(drafted["intent"])))

    def decide(self, session: Session, call: Call) -> Verdict:
        principal = session.principal
        decision = self._decide(session, principal, call, ())
        if decision.allowed:
            return self._passed(session, principal, call, self._why(call, decision))
        code = decision.reasons[0].code
        if not decision.asks or self._without == rules.ASKING:
            return Verdict(False, code, why=self._why(call, decision))
        return self._question(session, principal, call, decision, code)

    def answer(self, session: Session, question: Question, *, yes: bool) -> Verdict:
        assert session.asked is not None
        assert session.principal is not None
        call, digest, policies, extent = session.asked
        if not yes:
            session.refused.add(digest)
            session.denied[call.tool] += 1
            return Verdict(False, "approval_denied")
        session.spent[digest] += 1
        if extent is not None and self._facts.resource.tools[call.tool].tool.effect not in GRAVE:
            session.covers.append((extent, MAX_USES))
        decision = self._decide(session, session.principal, call, policies)
        if decision.allowed:
            return self._passed(session, session.principal, call, self._why(call, decision))
        return Verdict(False, decision.reasons[0].code, why=self._why(call, decision))

    def observe(self, session: Session, call: Call, output: Output) -> None:
        ready = self._facts.resource.tools[call.tool]
        value = output.error or (output.text if output.data is None else output.data)
        if session.principal is not None and session.principal.claims.memory:
            parts = observe_output(session.memory, ready.uid.id, ready.tool, call.arguments, value, ready.classes)
            session.memory = add_parts(session.memory, parts)
        if not output.error:
            made = created_by(KEY, ready.uid.id, ready.tool, call.arguments, value)
            session.history = created(session.history, made) if made else session.history

    def close(self, session: Session) -> None:
        if self._learns and session.principal is not None:
            self._recent[session.principal.claims.client_id] = session.recent

    @contextmanager
    def learning(self, *, keep: bool = False) -> Iterator[None]:
        before, self._learns = dict(self._recent), True
        try:
            yield
        finally:
            self._learns = False
            if not keep:
                self._recent = before

    def stolen(self, how: str, session: Any, other: Any) -> Any:
        if how not in FOREIGN:
            raise KeyError(how)  # there are no credentials here
        return other

    def _decide(self, session: Session, principal: Principal, call: Call, approved: Sequence[str]) -> Decision:
        resolved, past = resolve(principal, call.tool, call.arguments, self._facts, NOW * SECOND), None
        if resolved.reads_history and resolved.ready is not None:
            before = PriorHistory(KEY, session.history, session.recent, 0, NOW * SECOND // budget.DAY_US)
            past = past_of(before, resolved.ready, call.arguments)
        memory = session.memory if principal.claims.memory else None
        return decide(resolved, DecisionInputs(memory, past, approved=approved))

    def _passed(self, session: Session, principal: Principal, call: Call, why: str) -> Verdict:
        """The call is allowed: it is paid and becomes a part of the history."""
        ready = self._facts.resource.tools[call.tool]
        try:
            costs = budget.costs(principal.prices(ready.uid.id, ready.classes), call.arguments, now=NOW * SECOND)
        except Refused as refusal:
            return Verdict(False, refusal.code)
        if any(session.left[account] < units for account, units in costs.items()):
            return Verdict(False, budget.Exhausted.code)
        for account, units in costs.items():
            session.left[account] -= units
        if self._facts.policies.reads_history:
            done = past_of(PriorHistory(KEY, session.history, session.recent, 0, 0), ready, call.arguments).done
            session.history, session.recent = after(session.history, done), after(session.recent, in_passing(done))
        return Verdict(True, why=why if is_effect(ready.tool) else "")

    def _why(self, call: Call, decision: Decision) -> str:
        """Effect, kinds and origins of the call, and what decided, without a name or a value."""
        ready = self._facts.resource.tools.get(call.tool)
        if ready is None:
            return decision.reasons[0].code
        tool, beside = ready.tool, dict(decision.call_context or {})
        origins, found = origins_by_argument(decision.call_context), list[str]()
        for path, origin in sorted(origins.items()):
            kind = tool.kinds.get(path, "?")
            found.append(f"{kind}:{origin}")
        facts = " ".join(f"{name}={_brief(value)}" for name, value in sorted(beside.items()) if name != "origin")
        what = ",".join(decision.policies) if not decision.allowed else ""
        code = decision.reasons[0].code if decision.reasons else ""
        state = "confirmed" if tool.confirmed else "unconfirmed"
        return " ".join(filter(None, (code, what, tool.effect.value, state, "+".join(sorted(found)), facts)))

    def _extent(self, session: Session, principal: Principal, call: Call, decision: Decision) -> Extent | None:
        """Return the extent of a call, as the server makes it from what a guard asks."""
        if not principal.claims.memory or not self._facts.policies.covers.issuperset(decision.policies):
            return None
        ready, task = self._facts.resource.tools[call.tool], principal.claims.task
        arguments, hidden = approval.divide_arguments(call.arguments, ready.secrets, task=task)
        return extent_of(
            ready.tool,
            arguments,
            agent=principal.claims.client_id,
            task=task,
            resource=self._facts.resource.name,
            secrets=hidden,
            policies=decision.policies,
            foreign=list_foreign_links(session.memory, ready.tool, arguments),
            warnings=warnings_of(decision.call_context),
            outside=digest_outside(session.memory),
        )

    def _use_cover(self, session: Session, principal: Principal, call: Call, decision: Decision) -> bool:
        """Return whether a yes to another call covers this one, and use that yes once."""
        if not session.covers or (extent := self._extent(session, principal, call, decision)) is None:
            return False
        mentioned = is_mentioned(session.memory, self._facts.resource.tools[call.tool].tool, call.arguments)
        for at, (given, left) in enumerate(session.covers):
            if left and extent.is_within(given, mentioned=mentioned):
                session.covers[at] = given, left - 1
                return True
        return False

    def _question(self, session: Session, principal: Principal, call: Call, decision: Decision, code: str) -> Verdict:
        """As the server shows it to the person who answers. A call that was answered already is not asked about."""
        ready, task = self._facts.resource.tools[call.tool], principal.claims.task
        try:
            arguments, hidden = approval.divide_arguments(call.arguments, ready.secrets, task=task)
            digest = approval.binding(
                agent=principal.claims.client_id,
                task=task,
                resource=self._facts.resource.name,
                tool=call.tool,
                arguments=arguments,
                secrets=hidden,
                presentation=ready.presentation,
                policies=decision.policies,
                needs=decision.asks or "",
            )
            approval.check_arguments(arguments)
        except Refused as refusal:
            return Verdict(False, refusal.code)
        if digest in session.refused:
            return Verdict(False, "approval_denied")
        if session.spent[digest] >= About(effect=ready.tool.effect.value).max_spent:
            return Verdict(False, "approval_spent")
        if self._use_cover(session, principal, call, decision):
            covered = self._decide(session, principal, call, decision.policies)
            return self._passed(session, principal, call, self._why(call, covered))
        if session.denied[call.tool] >= MAX_DENIED_OF_TOOL:
            return Verdict(False, "approval_denied", why=self._why(call, decision))
        session.asked = call, digest, decision.policies, self._extent(session, principal, call, decision)
        shows: Mapping[str, Any] = {
            "arguments": arguments,
            "hidden": sorted(hidden),
            "outgoing": sorted(
                {path.partition(".")[0] for path, kind in ready.tool.argument_kinds.items() if kind is Kind.TEXT}
                & arguments.keys()
            ),
            "foreign": list_foreign_links(session.memory, ready.tool, arguments) if principal.claims.memory else {},
            "origins": origins_by_argument(decision.call_context),
            "warnings": warnings_of(decision.call_context),
            "reasons": [{"policy": name} for name in decision.policies],
            "must_state": choose_stated(ready.tool, arguments, origins_by_argument(decision.call_context))[1],
        }
        question = Question(digest, Call(call.tool, arguments), shows)
        return Verdict(False, code, question, self._why(call, decision))


def _brief(value: object) -> str:
    return "+".join(sorted(map(str, value))) if isinstance(value, Set) else str(value)
