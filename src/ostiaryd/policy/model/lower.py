"""Cedar text to the policy IR: cedarpy parses, this renames its nodes (`cedarpy.pst`) to those of `ostiary.core.cedar`.

The whole language is modelled. Refused are: text that Cedar refuses, templates that nothing links (they decide
nothing), and nodes that a later Cedar may add.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping

import cedarpy
from cedarpy import pst

from ostiary.core.cedar import ir
from ostiary.core.cedar.values import Uid
from ostiary.core.errors import Invalid, Malformed
from ostiaryd.policy.model.growth import growth

MAX_GROWTH = 40_000  # about a second of cedarpy's time


class NotModelled(Invalid):
    """The policy is good Cedar, and uses something that the IR does not have. The message names it."""

    code = "policy_not_modelled"


def lower(text: str) -> ir.PolicySetIR:
    """The IR of a Cedar policy file. Raises Malformed (not Cedar), NotModelled, Invalid (a bound)."""
    if growth(text) > MAX_GROWTH:
        raise Invalid(
            "the policies become too long when Cedar writes them out",
            hint="ask `has a.b` and `is .. in ..` of a plain attribute, not of a longer expression",
        )
    try:
        nodes = cedarpy.policies_to_pst(text)
    except ValueError as error:
        raise Malformed(f"not Cedar: {error}") from error
    return lower_nodes(nodes)


def lower_nodes(nodes: pst.PolicySet) -> ir.PolicySetIR:
    """The IR of a parsed policy set, with its templates linked. Raises NotModelled or Invalid.

    A policy goes by its `@id` where no other policy has or could have that name, otherwise by Cedar's own id for it.
    """
    linked = {link.template_id for link in nodes.template_links}
    for template_id in nodes.templates:
        if template_id not in linked:
            raise NotModelled(f"template {template_id} is not linked to anything", hint="link it, or write a policy")
    bodies = [(id_, body, _NO_SLOTS) for id_, body in nodes.static_policies.items()]
    bodies += [(link.new_id, nodes.templates[link.template_id], link.values) for link in nodes.template_links]
    wished = Counter(body.annotations.get("id") for _, body, _ in bodies)
    taken = {id_ for id_, _, _ in bodies}
    policies = []
    for id_, body, slots in bodies:
        name = body.annotations.get("id")
        is_free = name and wished[name] == 1 and (name == id_ or name not in taken)
        policies.append(_policy(name if name and is_free else id_, body, slots))
    lowered = ir.PolicySetIR(tuple(policies))
    ir.check(lowered)
    return lowered


_NO_SLOTS: Mapping[pst.SlotName, pst.EntityUid] = {}


def _policy(id_: str, body: pst.Template, slots: Mapping[pst.SlotName, pst.EntityUid]) -> ir.PolicyIR:
    return ir.PolicyIR(
        id=id_,
        effect=body.effect,
        principal=_scope(body.principal, slots),
        action=_action(body.action),
        resource=_scope(body.resource, slots),
        conditions=tuple(_clause(clause) for clause in body.clauses),
        annotations=dict(body.annotations),
    )


def _scope(scope: pst.PrincipalOrResourceConstraint, slots: Mapping[pst.SlotName, pst.EntityUid]) -> ir.Scope:
    def named(entity: pst.EntityOrSlot) -> Uid:
        return _uid(slots[entity.name] if isinstance(entity, pst.Slot) else entity)

    match scope:
        case pst.ScopeAny():
            return ir.Scope()
        case pst.ScopeEq(entity):
            return ir.Scope(equals=named(entity))
        case pst.ScopeIn(entity):
            return ir.Scope(within=(named(entity),))
        case pst.ScopeIs(kind):
            return ir.Scope(type=str(kind))
        case pst.ScopeIsIn(kind, entity):
            return ir.Scope(type=str(kind), within=(named(entity),))
    raise NotModelled(f"the scope {type(scope).__name__}")


def _action(scope: pst.ActionConstraint) -> ir.Scope:
    match scope:
        case pst.ScopeAny():
            return ir.Scope()
        case pst.ActionEq(entity):
            return ir.Scope(equals=_uid(entity))
        case pst.ActionIn(entities):
            return ir.Scope(within=tuple(_uid(entity) for entity in entities))
    raise NotModelled(f"the scope {type(scope).__name__}")


def _clause(clause: pst.Clause) -> ir.Expr:
    match clause:
        case pst.When(expr):
            return _expression(expr)
        case pst.Unless(expr):
            return ir.Unary("not", _expression(expr))
    raise NotModelled(f"the clause {type(clause).__name__}")


def _expression(node: pst.Expr) -> ir.Expr:
    match node:
        case pst.Var(name):
            return ir.Var(name)
        case pst.BoolLit(value) | pst.LongLit(value) | pst.StringLit(value):
            return ir.Lit(value)
        case pst.EntityLit(value):
            return ir.EntityLit(_uid(value))
        case pst.UnaryOp(op, arg):
            return ir.Unary(op, _expression(arg))
        case pst.BinaryOp(op, left, right):
            return ir.Binary(op, _expression(left), _expression(right))
        case pst.GetAttr(base, attr):
            return ir.Get(_expression(base), attr)
        case pst.HasAttr(base, attrs):
            return _has(_expression(base), attrs)
        case pst.Like(base, pattern):
            return ir.Like(_expression(base), _pieces(pattern))
        case pst.Is(base, kind, within):
            return ir.Is(_expression(base), str(kind), None if within is None else _expression(within))
        case pst.IfThenElse(test, then, otherwise):
            return ir.If(_expression(test), _expression(then), _expression(otherwise))
        case pst.Set(elements):
            return ir.Set(tuple(_expression(element) for element in elements))
        case pst.Record(fields):
            return ir.Record(tuple((name, _expression(field)) for name, field in fields.items()))
    raise NotModelled(f"the expression {type(node).__name__}")


def _has(base: ir.Expr, path: tuple[str, ...]) -> ir.Expr:
    found: ir.Expr = ir.Has(base, path[0])
    for outer, inner in itertools.pairwise(path):
        base = ir.Get(base, outer)
        found = ir.Binary("and", found, ir.Has(base, inner))
    return found


def _pieces(pattern: tuple[pst.PatternElem, ...]) -> tuple[str, ...]:
    pieces = [""]
    for element in pattern:
        if isinstance(element, pst.Wildcard):
            pieces.append("")
        else:
            pieces[-1] += element.value
    return tuple(pieces)


def _uid(uid: pst.EntityUid) -> Uid:
    return Uid(str(uid.type), uid.id)
