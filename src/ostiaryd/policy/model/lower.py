"""Translation of Cedar text to the intermediate representation (IR) of policies.

cedarpy converts the text to Cedar's JSON policy format (docs.cedarpolicy.com, "JSON policy format"), and this module
translates the nodes of this format. The whole language is supported. Text that Cedar refuses is refused, and so are
templates without a link, which decide nothing, and nodes that a later version of Cedar may add. A call of an extension
function with the wrong number of arguments is valid text; its evaluation fails, as in Cedar.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Any, TypeAlias

import cedarpy
import msgspec

from ostiary.authorization.cedar import ir
from ostiary.authorization.cedar.values import Uid
from ostiary.protocol.errors import Invalid, Malformed
from ostiaryd.policy.model.cedar_growth import growth

MAX_GROWTH = 40_000  # cedarpy takes about a second for such a text

_END_OR_QUOTED = re.compile(r'"(?:\\.|[^"\\])*"|//[^\n]*|;')
_BLANK = re.compile(r"(?:\s|//[^\n]*)*")
"""The end of a policy, or a string or comment that may contain its mark; and the space before a policy."""

_Json: TypeAlias = dict[str, Any]


class NotModelled(Invalid):
    """A policy is valid Cedar, but uses a feature of Cedar that this server does not support. The message names the
    feature.
    """

    code = "policy_not_modelled"


def lower(text: str) -> ir.PolicySetIR:
    """Return the policies in a Cedar text in the server's intermediate representation (IR), from which they are
    compiled. Raises Malformed if the text is not Cedar, NotModelled if it uses a feature of Cedar that this server does
    not support, Invalid if it is beyond a limit.
    """
    if growth(text) > MAX_GROWTH:
        raise Invalid(
            "the policies become too long when Cedar expands them",
            hint="apply `has a.b` and `is .. in ..` to a plain attribute, not to a longer expression",
        )
    try:
        return lower_json(msgspec.json.decode(cedarpy.policies_to_json_str(text)))
    except ValueError as error:
        raise Malformed(f"not Cedar, in the policy that begins in line {_line_of_error(text)}: {error}") from error
    except RecursionError:
        raise Invalid(f"an expression is nested deeper than {ir.MAX_DEPTH}", hint="divide the expression") from None


def _line_of_error(text: str) -> int:
    """Return the line in which the first policy begins that is not Cedar. Cedar's parser states no position."""
    begin = 0
    for token in _END_OR_QUOTED.finditer(text):
        if token[0] != ";":
            continue
        try:
            cedarpy.policies_to_json_str(text[begin : token.end()])
        except ValueError:
            break
        begin = token.end()
    blank = _BLANK.match(text, begin)
    return 1 + text.count("\n", 0, blank.end() if blank else begin)


def lower_json(policy_set: _Json) -> ir.PolicySetIR:
    """Return the policies of a policy set in Cedar's JSON format as intermediate representation (IR). The id of a
    policy is its `@id` if no other policy has or can have that name, otherwise the id that Cedar gave it. Raises
    NotModelled for an unsupported feature, Invalid for text beyond a limit.
    """
    for template_id in policy_set["templates"]:
        raise NotModelled(
            f"the template {template_id} is not linked to entities",
            hint="write a policy without `?principal` and `?resource`",
        )
    bodies: dict[str, _Json] = policy_set["staticPolicies"]
    wished = Counter(_annotations(body).get("id") for body in bodies.values())
    policies = []
    for id_, body in bodies.items():
        name = _annotations(body).get("id")
        is_free = name and wished[name] == 1 and (name == id_ or name not in bodies)
        policies.append(_policy(name if name and is_free else id_, body))
    lowered = ir.PolicySetIR(tuple(policies))
    ir.check(lowered)
    return lowered


def _annotations(body: _Json) -> dict[str, str]:
    """Return the annotations of a policy by name; the value of an annotation without a value is empty."""
    return {name: value or "" for name, value in body.get("annotations", {}).items()}


def _policy(id_: str, body: _Json) -> ir.PolicyIR:
    return ir.PolicyIR(
        id=id_,
        effect=body["effect"],
        principal=_scope(body["principal"]),
        action=_scope(body["action"]),
        resource=_scope(body["resource"]),
        conditions=tuple(_clause(clause) for clause in body["conditions"]),
        annotations=_annotations(body),
    )


def _scope(scope: _Json) -> ir.Scope:
    match scope:
        case {"op": "All"}:
            return ir.Scope()
        case {"op": "==", "entity": entity}:
            return ir.Scope(equals=_uid(entity))
        case {"op": "in", "entity": entity}:
            return ir.Scope(within=(_uid(entity),))
        case {"op": "in", "entities": entities}:
            return ir.Scope(within=tuple(map(_uid, entities)))
        case {"op": "is", "entity_type": kind, "in": {"entity": entity}}:
            return ir.Scope(type=kind, within=(_uid(entity),))
        case {"op": "is", "entity_type": kind}:
            return ir.Scope(type=kind)
    raise NotModelled(f"the scope operator {scope.get('op')!a} of Cedar is not supported")


def _clause(clause: _Json) -> ir.Expr:
    match clause:
        case {"kind": "when", "body": body}:
            return _expression(body)
        case {"kind": "unless", "body": body}:
            return ir.Unary("not", _expression(body))
    raise NotModelled(f"the clause {clause.get('kind')!a} of Cedar is not supported")


_UNARY: dict[str, ir.UnaryOp] = {"!": "not", "neg": "neg", "isEmpty": "is_empty"}
_BINARY: dict[str, ir.BinaryOp] = {
    "&&": "and",
    "||": "or",
    "==": "eq",
    "!=": "not_eq",
    "<": "less",
    "<=": "less_eq",
    ">": "greater",
    ">=": "greater_eq",
    "+": "add",
    "-": "sub",
    "*": "mul",
    "in": "in",
    "contains": "contains",
    "containsAll": "contains_all",
    "containsAny": "contains_any",
    "getTag": "get_tag",
    "hasTag": "has_tag",
}
_UNARY_CALLS: dict[str, ir.UnaryOp] = {
    "decimal": "decimal",
    "ip": "ip",
    "datetime": "datetime",
    "duration": "duration",
    "isIpv4": "is_ipv4",
    "isIpv6": "is_ipv6",
    "isLoopback": "is_loopback",
    "isMulticast": "is_multicast",
    "toDate": "to_date",
    "toTime": "to_time",
    "toMilliseconds": "to_milliseconds",
    "toSeconds": "to_seconds",
    "toMinutes": "to_minutes",
    "toHours": "to_hours",
    "toDays": "to_days",
}
_BINARY_CALLS: dict[str, ir.BinaryOp] = {
    "isInRange": "is_in_range",
    "offset": "offset",
    "durationSince": "duration_since",
    "lessThan": "decimal_less_than",
    "lessThanOrEqual": "decimal_less_eq",
    "greaterThan": "decimal_greater",
    "greaterThanOrEqual": "decimal_greater_eq",
}


def _expression(node: _Json) -> ir.Expr:
    """Return the expression of a node. The node has exactly one member, whose name is the kind of the expression.
    Raises NotModelled for an unknown kind.
    """
    [(name, body)] = node.items()
    if name in _UNARY:
        return ir.Unary(_UNARY[name], _expression(body["arg"]))
    if name in _BINARY:
        return ir.Binary(_BINARY[name], _expression(body["left"]), _expression(body["right"]))
    match name:
        case "Value" if isinstance(body, dict):
            return ir.EntityLit(_uid(body["__entity"]))
        case "Value":
            return ir.Lit(body)
        case "Var":
            return ir.Var(body)
        case ".":
            return ir.Get(_expression(body["left"]), body["attr"])
        case "has":
            return ir.Has(_expression(body["left"]), body["attr"])
        case "like":
            return ir.Like(_expression(body["left"]), _pieces(body["pattern"]))
        case "is":
            within = _expression(body["in"]) if "in" in body else None
            return ir.Is(_expression(body["left"]), body["entity_type"], within)
        case "if-then-else":
            return ir.If(_expression(body["if"]), _expression(body["then"]), _expression(body["else"]))
        case "Set":
            return ir.Set(tuple(map(_expression, body)))
        case "Record":
            return ir.Record(tuple((field, _expression(value)) for field, value in body.items()))
    return _call(name, tuple(map(_expression, body)))


def _call(function: str, args: tuple[ir.Expr, ...]) -> ir.Expr:
    """Return the expression that calls an extension function. Raises NotModelled for an unknown function."""
    if function not in _UNARY_CALLS and function not in _BINARY_CALLS:
        raise NotModelled(f"the expression {function!a} of Cedar is not supported")
    match args:
        case (arg,) if function in _UNARY_CALLS:
            return ir.Unary(_UNARY_CALLS[function], arg)
        case (left, right) if function in _BINARY_CALLS:
            return ir.Binary(_BINARY_CALLS[function], left, right)
    return ir.ArityError(function, 1 if function in _UNARY_CALLS else 2, args)


def _pieces(pattern: list[Any]) -> tuple[str, ...]:
    pieces = [""]
    for element in pattern:
        if element == "Wildcard":
            pieces.append("")
        else:
            pieces[-1] += element["Literal"]
    return tuple(pieces)


def _uid(uid: _Json) -> Uid:
    return Uid(uid["type"], uid["id"])
