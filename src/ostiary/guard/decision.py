"""The decision on one call at a guard: a generator that yields the requests to the server, and is sent the answers.

The guard has its facts in memory, so most calls need no request. The drivers (`ostiary.guard.drivers`) block a thread,
or suspend a task, while the server answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, assert_never

from msgspec.structs import replace

from ostiary.authorization import budget
from ostiary.decision import access
from ostiary.decision.access import Decision, DecisionInputs, History, RemoteAnswers, RemotePolicies, Steps, TaskMemory
from ostiary.decision.report import CallRecord
from ostiary.guard.approvals import Approval, ApprovalOutcome, approval_of
from ostiary.guard.argument_summary import learn_arguments
from ostiary.guard.budgets import BudgetCache, BudgetDraw
from ostiary.guard.call import Call, Verified, call_record, shorten
from ostiary.guard.drivers import Waits, Work, answer_needs
from ostiary.guard.feed import Feed
from ostiary.guard.link import Link
from ostiary.guard.listing import Listing, Says
from ostiary.guard.memories import HistoryClaim, Watched
from ostiary.guard.networks import BearerNetworks
from ostiary.guard.rate import RateCheck
from ostiary.guard.secret_search import SecretSearch, may_have_secret, search_of, search_secrets
from ostiary.guard.sessions import Sessions
from ostiary.guard.sources import Sources
from ostiary.guard.spool import Spool
from ostiary.protocol.errors import Malformed, Unavailable
from ostiary.provenance.history import PriorHistory
from ostiary.provenance.noticing import Noticed
from ostiary.provenance.origins import Memory, is_settled

MAX_STEPS = 8
"""Maximum number of requests to the server for one call. Usually there is at most one of each kind; further requests
are repeated draws of budgets or repeated history claims.
"""

Need = TaskMemory | History | HistoryClaim | RemotePolicies | SecretSearch | RateCheck | Approval | BudgetDraw


@dataclass(slots=True)
class _Inputs:
    """The server's answers to the needs of one call."""

    says: Says = None
    """Function that returns the definition of the tool in the running tool server; None: the definition in the last
    `tools/list` counts.
    """
    memory: Memory | None = None
    is_memory_fresh: bool = False
    """True if the server has sent the memory of the task."""
    prior: PriorHistory | None = None
    is_prior_current: bool = False
    """True if the server has confirmed that no call was added to the history since the version `prior`."""
    has_claimed: bool = False
    """True if the server has accepted the call as the next call of the history: then the decision is final."""
    relies_on_history: bool = True
    """True if enforced policies read the history."""
    has_no_history: bool = False
    """True if the history is unavailable and only policies in mode `watch` would read it."""
    remote: RemoteAnswers | None = None
    is_searched: bool = False
    """True if the server has searched the arguments for secrets."""
    secret_sent: access.Reason | None = None
    """Reason for a denial, if the arguments have a secret."""
    is_counted: bool = False
    """True if the server has counted the call, and no throttled agent has exceeded its rate."""
    approval: ApprovalOutcome | None = None
    left: Mapping[str, int] | None = None
    """Remaining units of each account that has too few for the call, after a draw; None: nothing was drawn."""

    def ask(self, need: Need) -> Steps[None]:
        """Yield `need` to the driver, and store the driver's answer in the member of this object to which the kind of
        the need belongs. Raises Unavailable if the driver got no answer.
        """
        match need:
            case TaskMemory():
                self.memory = yield need
                self.is_memory_fresh = True
            case History() | HistoryClaim():
                try:
                    self._note_history(need, (yield need))
                except Unavailable:
                    if self.relies_on_history:
                        raise
                    self.has_no_history = True
            case RemotePolicies():
                self.remote = RemoteAnswers(need.policies, need.at, {need.question: (yield need)})
            case SecretSearch():
                self.secret_sent = yield need
                self.is_searched = True
            case RateCheck():
                self.is_counted = yield need
            case Approval():
                self.approval = yield need
            case BudgetDraw():
                self.left = yield need
            case _:
                assert_never(need)

    def _note_history(self, need: History | HistoryClaim, answer: Any) -> None:
        if isinstance(need, History):
            self.prior, self.is_prior_current = answer, False
        elif answer:
            self.prior, self.is_prior_current, self.has_claimed = need.prior, True, need.done is not None
        else:  # the history has changed: decide again with the new history
            self.prior, self.is_prior_current, self.remote = None, False, None

    def claim(self, decision: Decision, past: access.CallHistory, *, now: int) -> HistoryClaim | None:
        """Return the claim that the server must accept before the decision is final: that the call is the next call of
        the history, or only that the history has not changed. None if no claim is necessary.
        """
        if self.has_claimed:
            return None
        done = past.done if decision.allowed and past.prior.is_news(past.done, now=now) else None
        has_looked = decision.call_context is not None and access.HISTORY in decision.call_context
        if done is not None or (has_looked and not self.is_prior_current):
            return HistoryClaim(past.prior, done, past.met)
        return None


class _Decided(NamedTuple):
    """A decision on a call, with the server's answers that were used for it."""

    decision: Decision
    noticed: tuple[Noticed, ...]
    memory: Memory | None
    past: access.CallHistory | None
    remote: RemoteAnswers | None


@dataclass(frozen=True, slots=True)
class CallDecider:
    """Decides, pays for and records the calls of one guard."""

    feed: Feed
    link: Link
    spool: Spool
    budgets: BudgetCache
    listing: Listing
    sources: Sources
    sessions: Sessions | None
    """The sessions of tasks for detectors; None: the guard does not look for unusual calls."""
    networks: BearerNetworks | None
    records_arguments: bool
    learns: bool

    def decide(
        self, caller: Verified, tool: str, arguments: Mapping[str, Any], says: Says = None
    ) -> Call | Waits[Call]:
        """Decide, pay for and record a call, and return it; the call may be denied. If the decision needs an answer of
        the server, return a generator instead, which yields each wait for the server, and returns the call.

        After each answer the call is decided again with the present facts, so a token that was revoked meanwhile leads
        to a denial. The rules are those of `access.decide` (1 to 11), then in this order:

        12. Definition. The tool's definition is unchanged since its owner approved it.
        13. Fresh memory. If a newer memory could change the origins of the arguments, the server has sent its memory.
        14. Secrets. If a proxy has used secrets for an agent in the chain, the server finds none in the arguments.
        15. Rate. The call is within the rates of throttled agents; the server counts it.
        16. Claim. If the call is added to the history, or a policy has read the history, the server confirms that the
            history has not changed meanwhile.
        17. Approval. If only an approval is missing, the server spends one, or asks a person.
        18. Budget. The budgets of the task pay for the call.
        19. Record. The record is in the spool before the tool runs.

        The method and the generator raise Unavailable if the feed is too old, the server does not give a needed answer,
        or the record cannot be stored.
        """
        inputs = _Inputs(says)
        outcome = self._attempt(caller, tool, arguments, inputs)
        if isinstance(outcome, Call):
            return outcome
        steps = self._steps(caller, tool, arguments, inputs, outcome)
        return answer_needs(steps, lambda need: self._answer(need, caller, tool))

    def _steps(
        self, caller: Verified, tool: str, arguments: Mapping[str, Any], inputs: _Inputs, need: Need
    ) -> Steps[Call]:
        try:
            for _ in range(MAX_STEPS):
                yield from inputs.ask(need)
                outcome = self._attempt(caller, tool, arguments, inputs)
                if isinstance(outcome, Call):
                    return outcome
                need = outcome
        finally:
            # An approval was spent. If the call has not passed, an equal call can use the approval later.
            if inputs.approval is not None and inputs.approval.number:
                self.link.rpc.pending.release(inputs.approval.number)
        raise Unavailable("other calls have spent the drawn budget", hint="try again", code="budget_unavailable")

    def _attempt(self, caller: Verified, tool: str, arguments: Mapping[str, Any], inputs: _Inputs) -> Call | Need:
        """Apply the rules to the present facts. Return the recorded call, or the need that must be answered first."""
        call = access.resolve(caller.principal, tool, arguments, self.feed.current().facts, self.feed.clock())
        decided = self._decide(caller, call, inputs)
        return self._settle(caller, call, decided, inputs) if isinstance(decided, _Decided) else decided

    def _answer(self, need: Need, caller: Verified, tool: str) -> Waits[Any]:
        """Request from the server the input that a decision needs. Raises Unavailable if the server does not answer."""
        link, principal, token = self.link, caller.principal, caller.principal.claims.jti
        match need:
            case TaskMemory():
                return link.memories.recall(principal)
            case History():
                return link.memories.history(principal, tool)
            case HistoryClaim():
                return link.memories.claim(principal, tool, need)
            case RemotePolicies():
                return link.rpc.ask_policies(need, token)
            case SecretSearch():
                return search_secrets(link.rpc, need, token)
            case RateCheck():
                return link.rate.count(need, token)
            case Approval():
                return link.rpc.ask_person(need)
            case BudgetDraw():
                return _work(partial(link.budget_client.draw, token, need.costs))

    def _decide(self, caller: Verified, call: access.ResolvedCall, inputs: _Inputs) -> _Decided | Need:
        """Apply rules 1 to 17. Return the decision, or the need that must be answered first."""
        principal, facts, now = call.principal, call.facts, call.now
        memories, approval = self.link.memories, inputs.approval
        memory, past = memories.of(principal) if principal.claims.memory else None, None
        if memory is None:
            memory = inputs.memory
        may_recall = not inputs.is_memory_fresh and call.reads_memory
        if may_recall and memory is None:  # 7
            return TaskMemory()
        if call.reads_history and not inputs.has_no_history:  # 9
            assert call.ready is not None
            inputs.relies_on_history = facts.policies.relies_on_history
            prior = inputs.prior or memories.history_copy(principal)
            if prior is None:
                return History()
            past = access.past_of(prior, call.ready, call.arguments)
        session = None if self.sessions is None else self.sessions.of(principal.claims.memory)
        approved = () if approval is None else approval.approved
        remote = inputs.remote
        if remote is None and facts.policies.remote:
            remote = RemoteAnswers(facts.policies, now)
        decision_inputs = DecisionInputs(memory, past, session, approved, remote)
        if inputs.remote is None:
            decision = access.decide(call, decision_inputs)  # 1 to 11
        else:
            decision = self._decide_again(call, inputs.remote, decision_inputs)
        if remote is not None and remote.missing and not remote.verdicts:  # 10
            return TaskMemory() if may_recall else RemotePolicies(remote.policies, next(iter(remote.missing)), now)
        noticed = decision.noticed if self.networks is None else (*decision.noticed, *self.networks.notice(caller))
        decision = self.listing.check(decision, call.ready, facts, inputs.says)  # 12
        if may_recall and decision.call_context is not None:  # 13
            assert memory is not None
            assert call.ready is not None
            if not is_settled(decision.call_context, memory, call.ready.tool, call.arguments):
                return TaskMemory()
        if facts.secret_uses and (decision.allowed or decision.asks) and may_have_secret(call):  # 14
            if not inputs.is_searched:
                return search_of(call)
            if inputs.secret_sent is not None:
                decision = Decision(False, False, decision.policy_hash, (inputs.secret_sent,))
        if facts.restrictions and not inputs.is_counted:  # 15
            checked = self.link.rate.check(call, decision)
            if isinstance(checked, RateCheck):
                return checked
            decision = checked
        if past is not None and (claim := inputs.claim(decision, past, now=now)) is not None:  # 16
            return claim
        if approval is not None:  # 17
            decision = approval.explain(decision)
        elif decision.asks and not decision.allowed:
            return approval_of(call, decision, memory)
        return _Decided(decision, noticed, memory, past, remote)

    @staticmethod
    def _decide_again(call: access.ResolvedCall, remote: RemoteAnswers, inputs: DecisionInputs) -> Decision:
        """Return the decision by rules 1 to 11 with the verdicts of remote policies. Policies are evaluated at the
        time of the question to the remote policies; revocation and expiry are checked at the present time.
        """
        if (reason := access.check_liveness(call.principal, call.facts, call.now)) is not None:
            return Decision(False, False, call.facts.policies.hash, (reason,))
        return access.decide(replace(call, now=remote.at), inputs)

    def _settle(self, caller: Verified, call: access.ResolvedCall, decided: _Decided, inputs: _Inputs) -> Call | Need:
        """Apply rules 18 and 19. Return the recorded call, or the need that must be answered first."""
        principal, facts, ready, now = call.principal, call.facts, call.ready, call.now
        decision, approval = decided.decision, inputs.approval
        costs: dict[str, int] = {}
        ahead: dict[str, budget.Volume] = {}
        if ready is not None and decision.verdict and (prices := principal.prices(ready.uid.id, ready.classes)):  # 18
            try:
                costs, ahead = budget.costs(prices, call.arguments, now=now), budget.volumes(prices, now=now)
                if inputs.left:
                    self.budgets.check(costs, principal.claims.budgets, inputs.left, now=now)
            except (budget.BadAmount, budget.Exhausted) as refusal:
                decision, costs, ahead = access.refuse(facts, refusal), {}, {}

        def make_record(decision: Decision, *, spent: dict[str, int]) -> CallRecord:
            return call_record(
                call,
                decision,
                spent=spent,
                remote=decided.remote,
                approved=() if approval is None else approval.approved,
                noticed=decided.noticed,
                network=caller.network,
                proof=caller.proof,
            )

        try:
            record = make_record(decision, spent=costs)
        except Malformed as refusal:  # the arguments have no digest, so the ledger cannot identify them
            decision, costs, ahead = access.refuse(facts, refusal), {}, {}
            record = make_record(decision, spent=costs)
        watched = None if ready is None else Watched(principal, ready, call.arguments)
        if decision.allowed and watched is not None and decided.memory is not None:
            record = self.sources.added(record, watched, decided.memory)
        if facts.secret_uses and may_have_secret(call) and not (inputs.is_searched and decision.allowed):
            pass  # do not record the arguments: they could contain a secret
        elif self.records_arguments:
            record = replace(record, arguments=shorten(call.arguments, frozenset() if ready is None else ready.secrets))
        elif self.learns and facts.resource.mode == "watch":
            record = replace(record, arguments=learn_arguments(call.arguments, ready))
        then = None
        if decision.allowed and approval is not None and approval.number:
            then = partial(self.link.rpc.pending.drop, approval.number)
        append = partial(self.spool.append, record, then=then)
        if (number := append() if not costs else self.budgets.pay(costs, append, ahead=ahead)) is None:  # 19
            return BudgetDraw(costs)
        self.link.wake_reporter()
        made = Call(decision, number, ahead=ahead, enforces=facts.resource.mode == "enforce")
        if ready is not None:
            made.missing_scope = "" if ready.scope in principal.scopes else ready.scope
            has_memory = bool(principal.claims.memory) or (decided.past is not None and bool(ready.tool.creates))
            made.classes, made.watched = ready.classes, watched if has_memory else None
        return made


def _work(function: Any) -> Waits[Any]:
    return (yield Work(function))
