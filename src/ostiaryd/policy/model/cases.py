"""Tests of a policy set, `*.test.toml`: questions with the verdicts that its owner expects."""

from __future__ import annotations

import tomllib
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from ostiary.authorization.cedar.extensions import Datetime
from ostiary.authorization.cedar.values import Entity, Overlay, Record, Uid, entity
from ostiary.authorization.claims import MAX_LINKS, Link
from ostiary.decision.access import CALL, RISK, Judgement, Policies, RemoteSource
from ostiary.decision.access.chain import agent_of, chain_of
from ostiary.decision.access.facts import resource_entity
from ostiary.decision.access.policies import Because
from ostiary.decision.access.policy_kinds import RESPONSES
from ostiary.protocol.decoding import convert
from ostiary.protocol.errors import Invalid, Malformed
from ostiary.provenance.history import NOTHING, history_context
from ostiaryd.policy.model.playbooks import Playbooks, is_said
from ostiaryd.policy.model.questions import (
    REGISTERED,
    EvaluationRequest,
    Thing,
    Unanswerable,
    Verb,
    context_of,
    entity_of,
    record,
)

MAX_CASES = 2000
MAX_DEPTH = 32
NOON = datetime.fromisoformat("2026-01-01T12:00:00+00:00")
"""Time of a test case that states no time."""


class Case(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    name: Annotated[str, Meta(min_length=1, max_length=200)]
    subject: Thing
    action: Verb | str
    resource: Thing
    context: dict[str, Any] = {}
    behind: Annotated[list[Thing], Meta(max_length=MAX_LINKS)] = []
    """The agents in the delegation chain of the principal, the nearest first."""
    now: datetime = NOON
    expect: Literal["allow", "deny", "ask"]
    """Expected verdict. `ask` is a denial that an approval would turn into a permit."""
    policies: list[str] | None = None
    """Names of exactly the policies that must decide the case; None if this is not checked."""

    def run(self, policies: Policies, playbooks: Playbooks, elsewhere: RemoteSource | None = None) -> str:
        """Run the test case, and return in words how the verdict, or the deciding policies, differ from the expected;
        empty if they do not differ. `elsewhere` returns verdicts of Rego and OPA policies. Raises Unanswerable for a
        type or value that policies cannot represent.
        """
        judgement = self._ask_playbooks(playbooks) if self._verb.name in RESPONSES else self._ask(policies, elsewhere)
        verdict = "allow" if judgement.allowed else "ask" if judgement.because == "approval_needed" else "deny"
        result = f"{verdict} ({judgement.because})" if judgement.because else verdict
        errors = "".join(f"; `{policy}`: {message}" for policy, message in judgement.errors)
        if verdict != self.expect:
            return f"expected {self.expect}, got {result} by {_list(judgement.policies)}{errors}"
        if self.policies is not None and sorted(self.policies) != sorted(judgement.policies):
            return f"expected {result} by {_list(self.policies)}, got it by {_list(judgement.policies)}{errors}"
        return ""

    def _ask(self, policies: Policies, elsewhere: RemoteSource | None) -> Judgement:
        verb = self._verb
        times = {name: _instant(value) for name, value in self.context.items() if isinstance(value, datetime)}
        others = {name: value for name, value in self.context.items() if name not in times}
        question = EvaluationRequest(self.subject, verb, self.resource, others)
        principal, resource = _stand_in(self.subject, policies), _stand_in(self.resource, policies)
        action = Uid("Action", verb.name)
        context = context_of(question, now={**times, "now": _instant(self.now)})
        chain = chain_of([*map(_link, self.behind)], holder=principal.uid.id)
        if principal.uid.type == "Agent":
            context = chain.context | context
            context[RISK] = _completed(_RISK, context.get(RISK, {}))
            if action == CALL:
                context = _CALL | {"subject": principal.uid.id} | context
                context["history"] = _completed(_HISTORY, context.get("history", {}))
            elif action.id == "issue_token":
                context = _ISSUE | _PROVED | {"subject": principal.uid.id} | context
            elif action.id == "delegate":
                context = _ISSUE | {"subject": principal.uid.id, "depth": 1} | context
            elif action.id == "issue_certificate":
                context = _CERTIFICATE | {"subject": principal.uid.id} | context
            elif action.id == "elevate":
                more = {"minutes": 30, "break_glass": False}
                context = _ISSUE | {"subject": principal.uid.id, **more} | context
        entities = Overlay.of(policies.known, *chain.behind, principal, resource)
        return policies.judge(
            principal.uid, action, resource.uid, context, entities, elsewhere, behind=[one.uid for one in chain.behind]
        )

    @property
    def _verb(self) -> Verb:
        return Verb(self.action) if isinstance(self.action, str) else self.action

    def _ask_playbooks(self, playbooks: Playbooks) -> Judgement:
        """Return the judgement of the playbooks on one response. Facts that the case leaves out have neutral values."""
        agent = agent_of(_link(self.subject, member="subject"))
        stated = record(self.context)
        context = {**_RESPONSE, "now": _instant(self.now)} | stated
        context["risk"] = _completed(_RISK, stated.get("risk"))
        verdict = playbooks.decide(self._verb.name, agent.uid, context, Overlay.of(playbooks.known, agent))
        is_allowed = is_said(verdict)
        because: Because = "" if is_allowed else "policy_error" if verdict.errors else "no_permit"
        return Judgement(is_allowed, because, verdict.reasons, verdict.errors)


def _instant(time: datetime) -> Datetime:
    return Datetime(round(time.timestamp() * 1000))


class _File(msgspec.Struct, forbid_unknown_fields=True):
    case: Annotated[list[Case], Meta(max_length=MAX_CASES)] = []


_ISSUE: Record = {"task": "", "scopes": frozenset[object]()}
_CERTIFICATE: Record = {
    "task": "",
    "profile": "agent",
    "names": frozenset[object](),
    "key_type": "P-256",
    "lifetime": 3600,
}
_PROVED: Record = {"acr": "", "amr": frozenset[object]()}
_CALL: Record = {**_ISSUE, **_PROVED, "arguments": {}}
_TOOL: Record = {"effect": "read", "data_classes": frozenset[object](), "open_world": True, "confirmed": False}


_RESPONSE: Record = {
    "task": "",
    "detector": "",
    "points": 0,
    "findings": 1,
    "detectors": frozenset[object](),
    "kind": "assistant",
}
_PAST = history_context(NOTHING)
_HISTORY: Record = {
    **_PAST,
    "recipients": 0,
    "new_recipients": 0,
    "created": frozenset[object](),
    "recent": _PAST,
    "counterparts": {"unknown": 0, "age_days": 0, "uses": 0},
}


_RISK: Record = {"score": 0, "agent": 0, "task": 0, "chain": 0, "call": 0}


def _completed(whole: Record, stated: object) -> Record:
    """Return the record `whole` with the values that the case states; its other values are neutral defaults."""
    values = stated if isinstance(stated, dict) else {}
    return {
        name: _completed(value, values.get(name)) if isinstance(value, dict) else values.get(name, value)
        for name, value in whole.items()
    }


def parse_cases(name: str, text: str) -> list[Case]:
    """Return the test cases in the text of a TOML file; `name`: the name of the file, for errors. Raises Malformed for
    any other text.
    """
    try:
        return convert(tomllib.loads(text), _File).case
    # errors of TOML syntax, of types, or of numbers with thousands of digits
    except (ValueError, OverflowError) as error:
        raise Malformed(f"{name}: {str(error)[:400]}") from None
    except RecursionError:
        raise Malformed(f"{name}: nested too deeply") from None


def run_cases(
    name: str, cases: list[Case], policies: Policies, playbooks: Playbooks, elsewhere: RemoteSource | None = None
) -> None:
    """Run all test cases of the file `name`. Raises Invalid (`policy_test_failed`) for a failed case; the message names
    the first failed case and the number of further failed cases.
    """
    failed = [(case, wrong) for case in cases if (wrong := _run(case, policies, playbooks, elsewhere))]
    if failed:
        case, wrong = failed[0]
        more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        raise Invalid(f"{name}: test `{case.name}`: {wrong}{more}", code="policy_test_failed")


def _run(case: Case, policies: Policies, playbooks: Playbooks, elsewhere: RemoteSource | None) -> str:
    try:
        return case.run(policies, playbooks, elsewhere)
    except Invalid as error:
        return error.message
    except (ValueError, OverflowError):
        return "a number or a time is out of range"


def _stand_in(thing: Thing, policies: Policies) -> Entity:
    """Return the entity that a case names. For a registered type, the properties of the case replace the facts
    of the registry.
    """
    kind = REGISTERED.get(thing.type)
    if kind is None:
        return entity_of(thing, policies.entities)
    properties = record(thing.properties)
    segment = str(properties.pop("segment", "default"))
    if kind == "Agent":
        return agent_of(_link(thing))
    if kind == "Resource":
        return resource_entity(thing.id, uri=str(properties.pop("uri", "")), segment=segment)
    server, _, name = thing.id.partition("/")
    resource = resource_entity(server, uri="", segment=segment)
    attrs = {**_TOOL, "name": name, "resource": resource.uid, "segment": resource.attrs["segment"]}
    attrs["scope"] = f"{server}:{'read' if properties.get('effect', 'read') == 'read' else 'write'}"
    return entity(Uid("Tool", thing.id), attrs | properties, resource.lineage)


def _link(thing: Thing, *, member: str = "behind") -> Link:
    """Return an agent with the properties of a case. `member`: the member of the case that names the agent."""
    if REGISTERED.get(thing.type) != "Agent":
        raise Unanswerable(f"`{member}` names {thing.type[:70]}::{thing.id[:70]!a}, which is not an agent")
    properties = {"owner": "", "segment": "default", "model": "", "risk_tier": "medium"}
    properties |= {name: str(value) for name, value in record(thing.properties).items() if name in properties}
    return Link(thing.id, 0, "", **properties)


def _list(policies: tuple[str, ...] | list[str]) -> str:
    return ", ".join(f"`{policy}`" for policy in sorted(policies)) or "no policy"
