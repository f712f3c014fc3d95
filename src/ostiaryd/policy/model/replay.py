"""Replay: the decision of a policy set on an earlier request, from the facts that were stored with that request.

The result is exact, or the replay fails. It fails if a policy reads an argument that was not stored, or if a catalogue
was deleted.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import TypeVar

import msgspec

from ostiary.authorization.catalogue import Catalogue
from ostiary.authorization.cedar import ir
from ostiary.authorization.cedar.values import Entities, Entity, Overlay, Record, Uid, parse_record, parse_value
from ostiary.decision.access import CALL, RISK, Facts, Judgement, Policies, Protected
from ostiary.decision.access.chain import ALONE, agent_entity, read_chain
from ostiary.decision.access.facts import resource_entity, secret_entity
from ostiary.decision.access.recorded import ANYTHING
from ostiary.decision.access.remote_policies import RemoteVerdict
from ostiary.protocol.errors import Refused
from ostiaryd.policy.model.facts import AgentSeen, Posed, ResourceSeen, SecretSeen, Seen, ToolSeen
from ostiaryd.policy.model.questions import EvaluationRequest, context_of, entity_of, time_context

K = TypeVar("K")
V = TypeVar("V")
MAX_CONTEXTS, MAX_RESOURCES = 4096, 256
"""maximum number of contexts, and of resources, in the caches of a replay"""
_decode = msgspec.json.Decoder().decode


class Unreplayable(Refused):
    """Raised if a recorded decision cannot be replayed under another policy set: a fact that the set needs was not
    stored or cannot be read, or an enforced policy of the set is not Cedar.
    """

    code = "unreplayable"


class Lacking(Exception):
    """Raised if a replay needs the text of the catalogue with this digest, which the caller has not loaded yet. Load
    the text, then replay again.
    """

    def __init__(self, digest: str) -> None:
        super().__init__(digest)
        self.digest = digest


class Replay:
    """Replays recorded decisions with one policy set. `catalogue` returns the text of a catalogue by its digest, None
    if the text is not stored, or raises Lacking if the text must be loaded first.
    """

    def __init__(self, policies: Policies, rules: ir.PolicySetIR, *, catalogue: Callable[[str], str | None]) -> None:
        self._policies, self._reads, self._catalogue = policies, argument_names(rules), catalogue
        self._reads_agents, self._names = reads_agents(rules), attribute_names(rules)
        self._resources: dict[tuple[str, str, str, str], Facts] = {}
        self._contexts: dict[bytes, Record] = {}

    def judge(self, posed: Posed, *, at: int) -> Judgement:
        """Return the judgement of the policy set on a recorded question, which was decided at `at` (microseconds).
        Raises Unreplayable if a fact was not stored, Lacking if a catalogue must be loaded first.
        """
        try:
            if posed.question is not None:
                return self._question(posed, posed.question, at)
            if isinstance(posed.principal, AgentSeen) and isinstance(posed.resource, ToolSeen):
                return self._call(posed, posed.principal, posed.resource, at)
            return self._plain(posed, at)
        except Unreplayable:
            raise
        except (Refused, msgspec.DecodeError, RecursionError) as error:
            raise Unreplayable("the stored facts of the decision cannot be parsed") from error

    def _call(self, posed: Posed, agent: AgentSeen, tool: ToolSeen, at: int) -> Judgement:
        """Return the judgement on a call of a tool, with the same context that `ostiary.decision.access.decide`
        builds.
        """
        facts, principal = self._facts(tool), self._agent(agent)
        ready = facts.resource.tools.get(tool.tool)
        if ready is None:
            raise Unreplayable("the catalogue does not have the tool")
        kept = self._context(posed.context)
        if kept.get("actors") and "chain" not in kept:
            raise Unreplayable("the agents of the delegation chain were not stored")
        if self._policies.relies_on_history and "history" not in kept:
            raise Unreplayable("the history was not stored")
        self._check_risk(kept)
        context = {**ALONE.context, **kept, "arguments": self._arguments(posed), **time_context(at)}
        return self._ask(facts.entities, principal, CALL, ready.uid, context, read_chain(context), posed.approved)

    def _check_risk(self, kept: Record) -> None:
        """Check that the risk was stored if the policies depend on it. Raises Unreplayable otherwise."""
        if self._policies.relies_on_risk and RISK not in kept:
            raise Unreplayable("the risk score was not stored")

    def _arguments(self, posed: Posed) -> Record:
        """Return the stored arguments of a call. A hidden argument has an empty value, which no policy reads. Raises
        Unreplayable if a policy reads an argument that was not stored.
        """
        kept, reads = posed.arguments, self._reads
        if (kept is None or posed.hidden) and (reads is None or (reads if kept is None else reads & {*posed.hidden})):
            raise Unreplayable("a policy reads an argument that was not stored")
        arguments: Record = dict.fromkeys(posed.hidden, "")
        for name, value in (kept or {}).items():
            arguments[name] = value if type(value) is str else parse_value(value)
        return arguments

    def _plain(self, posed: Posed, at: int) -> Judgement:
        principal, resource = self._entity(posed.principal), self._entity(posed.resource)
        kept = self._context(posed.context)
        self._check_risk(kept)
        context = {**kept, **time_context(at)}
        entities = Overlay.of(self._policies.known, resource)
        return self._ask(entities, principal, Uid("Action", posed.action), resource.uid, context, read_chain(context))

    def _question(self, posed: Posed, question: EvaluationRequest, at: int) -> Judgement:
        """Return the judgement on an AuthZEN request. Registered entities have their stored attributes; other entities
        have the properties that the caller stated.
        """
        if posed.hidden and (self._names is None or ANYTHING in posed.hidden or self._names & {*posed.hidden}):
            raise Unreplayable("a policy reads a part of the request that was not stored")
        stated = self._policies.entities
        principal = entity_of(question.subject, stated) if posed.principal is None else self._entity(posed.principal)
        resource = entity_of(question.resource, stated) if posed.resource is None else self._entity(posed.resource)
        chain = self._context(posed.context) if posed.context else {}
        if isinstance(posed.principal, AgentSeen):
            self._check_risk(chain)
        context, entities = (
            context_of(question, now=time_context(at)) | chain,
            Overlay.of(self._policies.known, resource),
        )
        return self._ask(
            entities, principal, Uid("Action", question.action.name), resource.uid, context, read_chain(chain)
        )

    def _ask(
        self,
        entities: Entities,
        principal: Entity,
        action: Uid,
        resource: Uid,
        context: Record,
        agents: tuple[Entity, ...],
        approved: Container[str] = (),
    ) -> Judgement:
        """Return the judgement on a request of the principal and of the agents in its delegation chain, `agents`."""
        return self._policies.judge(
            principal.uid,
            action,
            resource,
            context,
            Overlay.of(entities, *agents, principal),
            self._elsewhere,
            approved,
            behind=[one.uid for one in agents],
        )

    def _elsewhere(self, _: bytes) -> RemoteVerdict:
        """Return no verdicts if all remote policies are in watch mode. Raises Unreplayable if one of them is
        enforced.
        """
        if all(self._policies.remote.values()):
            return ()
        raise Unreplayable("an enforced policy is in Rego or OPA, and such policies are not replayed")

    def _entity(self, recorded: Seen | None) -> Entity:
        match recorded:
            case AgentSeen():
                return self._agent(recorded)
            case ResourceSeen(name="", uri=uri):
                return resource_entity("", uri=uri, segment="")
            case ResourceSeen():
                protected = self._facts(recorded).resource
                return protected.entities[protected.uid]
            case SecretSeen(mount=mount, path=path, agent=agent):
                return secret_entity(mount, path, agent=agent)
            case ToolSeen():
                protected = self._facts(recorded).resource
                if (ready := protected.tools.get(recorded.tool)) is not None:
                    return protected.entities[ready.uid]
        raise Unreplayable("the subject or the resource was not stored")

    def _agent(self, recorded: AgentSeen) -> Entity:
        if recorded.model is None and self._reads_agents:
            raise Unreplayable("the attributes of the agent were not stored")
        return agent_entity(
            recorded.id,
            owner=recorded.owner,
            segment=recorded.segment,
            model=recorded.model or "",
            risk_tier=recorded.risk_tier or "",
        )

    def _facts(self, recorded: ResourceSeen | ToolSeen) -> Facts:
        key = (recorded.name, recorded.uri, recorded.segment, recorded.catalogue)
        facts = self._resources.get(key)
        if facts is None:
            text = self._catalogue(recorded.catalogue) if recorded.catalogue else None
            if text is None and recorded.catalogue:
                raise Unreplayable("the catalogue of the resource was not stored")
            protected = Protected(
                name=recorded.name,
                uri=recorded.uri,
                segment=recorded.segment,
                catalogue=None if text is None else Catalogue.parse(text),
                catalogue_hash=recorded.catalogue,
            )
            facts = Facts(protected, self._policies)
            _remember(self._resources, key, facts, most=MAX_RESOURCES)
        return facts

    def _context(self, text: msgspec.Raw) -> Record:
        """Return the context in a JSON text. The result is cached, because calls with the same token have the same
        context.
        """
        key = bytes(text)
        record = self._contexts.get(key)
        if record is None:
            record = parse_record(_decode(key))
            _remember(self._contexts, key, record, most=MAX_CONTEXTS)
        return record


def argument_names(rules: ir.PolicySetIR) -> frozenset[str] | None:
    """Return the names of the arguments of calls that the policies read; None if a policy can read any argument,
    because it uses all arguments or the whole context.
    """
    names: set[str] = set()
    open_ = [condition for policy in rules.policies for condition in policy.conditions]
    while open_:
        match open_.pop():
            case ir.Get(ir.Get(ir.Var("context"), "arguments"), name):
                names.add(name)
            case ir.Has(ir.Get(ir.Var("context"), "arguments"), name):
                names.add(name)
            case ir.Get(ir.Var("context"), "arguments") | ir.Var("context"):
                return None
            case ir.Get(ir.Var("context"), _) | ir.Has(ir.Var("context"), _):
                pass
            case other:
                open_ += ir.children(other)
    return frozenset(names)


def attribute_names(rules: ir.PolicySetIR) -> frozenset[str] | None:
    """Return the names of all attributes that the policies read; None if a policy uses the whole context."""
    names: set[str] = set()
    open_ = [condition for policy in rules.policies for condition in policy.conditions]
    while open_:
        match open_.pop():
            case ir.Get(ir.Var("context"), name) | ir.Has(ir.Var("context"), name):
                names.add(name)
            case ir.Var("context"):
                return None
            case ir.Get(base, name) | ir.Has(base, name):
                names.add(name)
                open_.append(base)
            case other:
                open_ += ir.children(other)
    return frozenset(names)


def reads_agents(rules: ir.PolicySetIR) -> bool:
    """Return whether a condition of a policy reads an attribute `model` or `risk_tier`."""
    open_ = [condition for policy in rules.policies for condition in policy.conditions]
    while open_:
        match open_.pop():
            case ir.Get(_, "model" | "risk_tier") | ir.Has(_, "model" | "risk_tier"):
                return True
            case other:
                open_ += ir.children(other)
    return False


def _remember(table: dict[K, V], key: K, value: V, *, most: int) -> None:
    if len(table) >= most:
        del table[next(iter(table))]
    table[key] = value
