"""Foresight: the verdicts that are possible while some arguments of a call are unknown. `foresee` follows the rules of
`decide` in three-valued logic (true, false, unknown).

An argument is unknown if the tool's schema lists it and the caller did not give it. Everything that depends on an
unknown argument is unknown as well: its origin, and the history, which includes the call itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ostiary.authorization.arguments import Arguments, BadArguments
from ostiary.authorization.bounds import ToolDetail
from ostiary.authorization.bounds.details import ABSENT, argument_at
from ostiary.authorization.cedar.extensions import Datetime, Decimal
from ostiary.authorization.cedar.partial import PartialRecord, Unknown
from ostiary.decision.access.decide import check_liveness, check_restrictions
from ostiary.decision.access.facts import ReadyTool
from ostiary.decision.access.inputs import ResolvedCall
from ostiary.decision.access.policies import CALL, HISTORY, RISK, Foresight
from ostiary.decision.access.risk_context import risk_context
from ostiary.provenance.origins import CARRIES, REVEALS, UNREQUESTED_READ, needs_origins

NEVER = Foresight(False, False)
ALWAYS = Foresight(True, True)
_KINDS: dict[object, type] = {
    "string": str,
    "boolean": bool,
    "integer": int,
    "number": Decimal,
    "array": frozenset,
    "object": dict,
}
_COMBINED = frozenset({"$ref", "allOf", "anyOf", "oneOf"})
_ORIGINS = (
    "origin_worst",
    "origin_best",
    "amount_worst",
    "object_worst",
    "recipient_worst",
    "done_worst",
    "links_worst",
)
_FLAGS = (
    "described",
    "followed",
    "from_named",
    "mentioned",
    "only_address",
    "planned",
    "over_plan",
    "read_outside",
    "substituted",
)


def unknown_arguments(ready: ReadyTool, arguments: Mapping[str, object] | None) -> frozenset[str]:
    """Return the names of the unknown inputs of a call with these arguments: `arguments.NAME` for each argument that
    the schema lists and the caller did not give. The name `arguments` is added if there may be further arguments: if
    `arguments` is None and the schema permits unlisted arguments, or if the schema combines schemas (such as `allOf`).
    """
    schema = ready.tool.arguments
    missing = {f"arguments.{name}" for name in schema.get("properties", {}) if name not in (arguments or {})}
    is_open = arguments is None and schema.get("additionalProperties", True) is not False
    if is_open or not _COMBINED.isdisjoint(schema):
        missing.add("arguments")
    return frozenset(missing)


def foresee(call: ResolvedCall, unknown: frozenset[str], *, has_memory: bool) -> Foresight:
    """Return the verdicts that `decide` can reach for the call, over all values of the `unknown` inputs. Raises
    nothing.

    `has_memory`: whether the memory of the task is available.
    """
    principal, arguments, facts, now, ready = call.principal, call.arguments, call.facts, call.now, call.ready
    policies, resource = facts.policies, facts.resource
    if check_liveness(principal, facts, now) is not None or principal.claims.aud != resource.uri:
        return NEVER
    if facts.restrictions and check_restrictions(principal, facts, ready, now) is not None:
        return NEVER
    if resource.mode == "watch":
        return ALWAYS
    if ready is None or ready.scope not in principal.scopes:
        return NEVER
    details = principal.bounds(call.tool, ready.classes)
    bounds = _within_bounds(details, ready, arguments) if principal.details else ALWAYS
    if not bounds.may:
        return NEVER
    try:
        typed = _typed(ready, arguments, unknown)
    except BadArguments:
        return NEVER
    context: dict[str, object] = {**principal.context, "arguments": typed, "now": Datetime(now // 1000)}
    if principal.claims.memory and (needs_origins(ready.tool, arguments) or ready.tool.open_world):
        if not has_memory:
            return NEVER
        context |= {name: Unknown(*unknown, kind=str, optional=True) for name in _ORIGINS}
        context |= {name: Unknown(*unknown, kind=bool, optional=True) for name in (*_FLAGS, UNREQUESTED_READ)}
        context |= {name: Unknown(*unknown, kind=frozenset, optional=True) for name in (CARRIES, REVEALS)}
        context["origin"] = PartialRecord({}, Unknown(*unknown, kind=str, optional=True))
    if policies.reads_risk:
        agents = (principal.claims.client_id, *principal.behind)
        context[RISK] = risk_context(facts.risks, agents=agents, tasks=principal.tasks, now=now, call=0)
    if policies.reads_history:
        context[HISTORY] = Unknown(*unknown)
    entities, _ = principal.entity_overlay(facts.entities)
    links = (principal.entity.uid, *principal.links)
    foresight = policies.foresee(links, CALL, ready.uid, PartialRecord(context), entities)
    if not foresight.may:
        return NEVER
    must = foresight.must and bounds.must
    return ALWAYS if must else Foresight(True, False, foresight.inputs | bounds.inputs or unknown)


def _within_bounds(details: tuple[ToolDetail, ...], ready: ReadyTool, arguments: Mapping[str, object]) -> Foresight:
    """Return the possible results (`may`, `must`) of the check whether a detail of the token permits the call."""
    foresights = [_within(detail, ready, arguments) for detail in details]
    if any(one.must for one in foresights):
        return ALWAYS
    open_ = [one for one in foresights if one.may]
    return Foresight(True, False, frozenset().union(*(one.inputs for one in open_))) if open_ else NEVER


def _within(detail: ToolDetail, ready: ReadyTool, arguments: Mapping[str, object]) -> Foresight:
    inputs = set[str]()
    schema = ready.tool.arguments
    for path, condition in detail.arguments.items():
        name = path.partition(".")[0]
        value = argument_at(arguments, path)
        if value is not ABSENT:
            if condition.failure(value) is not None:
                return NEVER
        elif name in arguments:
            return NEVER
        elif name in schema.get("properties", {}) or schema.get("additionalProperties", True) is not False:
            inputs.add(f"arguments.{name}")
        else:
            return NEVER
    return Foresight(True, not inputs, frozenset(inputs))


def _typed(ready: ReadyTool, arguments: Mapping[str, object], unknown: frozenset[str]) -> PartialRecord:
    """Return the arguments as policies see them. Raises BadArguments for a known argument that the schema refuses. Each
    unknown argument is optional, also if the schema requires it: policies do not see a null argument.
    """
    schema = ready.tool.arguments
    properties: Mapping[str, Any] = schema.get("properties", {})
    is_closed = schema.get("additionalProperties", True) is False
    rest = None if is_closed else Unknown("arguments", optional=True)
    if not _COMBINED.isdisjoint(schema):
        # the type of a value is not known
        given_ones = {name: Unknown("arguments", optional=True) for name in arguments}
        others = {name: Unknown(f"arguments.{name}", optional=True) for name in properties if name not in arguments}
        return PartialRecord(given_ones | others, rest)
    typed = Arguments({**schema, "required": [], "minProperties": 0}).type_(arguments)
    members: dict[str, object] = dict(typed)
    for name, inner in properties.items():
        if name not in arguments:
            members[name] = Unknown(f"arguments.{name}", kind=_kind(inner), optional=True)
    return PartialRecord(members, rest)


def _kind(schema: object) -> type | None:
    """Return the Python type of all values that a schema accepts; None if there may be several types."""
    if not isinstance(schema, Mapping) or not _COMBINED.isdisjoint(schema) or not isinstance(schema.get("type"), str):
        return None
    return _KINDS.get(schema["type"])
