"""The intermediate representation of Cedar policies, which guards receive in place of Cedar text.

Expressions are arrays in JSON, `["binary","eq",["get",["var","principal"],"team"],["lit","blue"]]`, and correspond to
the nodes of Cedar's own JSON policy format, so that lowering only renames. Parsing is strict (unknown fields, names and
tags are refused), with limits on bytes, depth and number of policies.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal, TypeAlias

import msgspec

from ostiary.authorization.cedar.values import LONG_MAX, LONG_MIN, Uid, is_type_name
from ostiary.protocol.decoding import json_decoder
from ostiary.protocol.errors import Invalid, Malformed

MAX_BYTES = 32 * 1024 * 1024
MAX_POLICIES = 100_000
MAX_DEPTH = 101
"""Maximum levels of an expression: the 100 levels that cedarpy accepts, and the `not` of an `unless` around them."""

VarName: TypeAlias = Literal["principal", "action", "resource", "context"]
UnaryOp: TypeAlias = Literal[
    "not",
    "neg",
    "is_empty",
    "decimal",
    "ip",
    "datetime",
    "duration",
    "is_ipv4",
    "is_ipv6",
    "is_loopback",
    "is_multicast",
    "to_date",
    "to_time",
    "to_milliseconds",
    "to_seconds",
    "to_minutes",
    "to_hours",
    "to_days",
]
BinaryOp: TypeAlias = Literal[
    "and",
    "or",
    "eq",
    "not_eq",
    "less",
    "less_eq",
    "greater",
    "greater_eq",
    "add",
    "sub",
    "mul",
    "in",
    "contains",
    "contains_all",
    "contains_any",
    "get_tag",
    "has_tag",
    "is_in_range",
    "offset",
    "duration_since",
    "decimal_less_than",
    "decimal_less_eq",
    "decimal_greater",
    "decimal_greater_eq",
]
Long: TypeAlias = Annotated[int, msgspec.Meta(ge=LONG_MIN, le=LONG_MAX)]


class _Node(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag_field="node"):
    pass


class Var(_Node, frozen=True, tag="var"):
    name: VarName


class Lit(_Node, frozen=True, tag="lit"):
    value: bool | Long | str


class EntityLit(_Node, frozen=True, tag="entity"):
    uid: Uid


class Unary(_Node, frozen=True, tag="unary"):
    op: UnaryOp
    arg: Expr


class Binary(_Node, frozen=True, tag="binary"):
    op: BinaryOp
    left: Expr
    right: Expr


class Get(_Node, frozen=True, tag="get"):
    base: Expr
    attr: str


class Has(_Node, frozen=True, tag="has"):
    """The expression `base has attr`. Cedar itself expands `has a.b` to `base has a && base.a has b`."""

    base: Expr
    attr: str


class Like(_Node, frozen=True, tag="like"):
    """The expression `base like "ab*c"`. `pieces` are the literal texts between the wildcards, here `("ab",
    "c")`; a single piece means no wildcard.
    """

    base: Expr
    pieces: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]


class Is(_Node, frozen=True, tag="is"):
    """The expression `base is type` or, unless `within` is None, `base is type in within`."""

    base: Expr
    type: str
    within: Expr | None


class If(_Node, frozen=True, tag="if"):
    test: Expr
    then: Expr
    otherwise: Expr


class Set(_Node, frozen=True, tag="set"):
    elements: tuple[Expr, ...]


class Record(_Node, frozen=True, tag="record"):
    fields: tuple[tuple[str, Expr], ...]


class ArityError(_Node, frozen=True, tag="arity_error"):
    """A call of an extension function with a number of arguments other than `expected`.

    Evaluation evaluates the arguments in order, then fails.
    """

    function: str
    expected: int
    args: tuple[Expr, ...]


Expr: TypeAlias = Var | Lit | EntityLit | Unary | Binary | Get | Has | Like | Is | If | Set | Record | ArityError


class Scope(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """The scope of a policy on its principal, action or resource. The scope matches if all members that are not None
    match. `within` is Cedar's `in`: one of these entities, or a descendant of one; an empty `within` never matches.
    """

    equals: Uid | None = None
    type: str | None = None
    within: tuple[Uid, ...] | None = None


class PolicyIR(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A policy. `conditions` are its clauses in order (`unless e` is `not e`); all must be true."""

    id: str
    effect: Literal["permit", "forbid"]
    principal: Scope = Scope()
    action: Scope = Scope()
    resource: Scope = Scope()
    conditions: tuple[Expr, ...] = ()
    annotations: dict[str, str] = {}


class PolicySetIR(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    policies: tuple[PolicyIR, ...]
    version: Literal[1] = 1


_encoder = msgspec.json.Encoder(order="deterministic")
_decode = json_decoder(PolicySetIR)


def render(policies: PolicySetIR) -> bytes:
    """Return the JSON of a policy set. The same set always has the same bytes, so that a digest identifies the set."""
    return _encoder.encode(policies)


def parse(data: bytes) -> PolicySetIR:
    """Return the policy set in a JSON text. Raises Malformed for another format, Invalid beyond the limits."""
    if len(data) > MAX_BYTES:
        raise Invalid(f"a policy set is larger than {MAX_BYTES} bytes")
    try:
        policies = _decode(data)
    except msgspec.DecodeError as error:
        raise Malformed("the document is not a policy set") from error
    check(policies)
    return policies


def check(policies: PolicySetIR) -> None:
    """Check the limits that the types do not express. Raises Invalid for policies beyond a limit, and for two policies
    with one id.
    """
    if len(policies.policies) > MAX_POLICIES:
        raise Invalid(f"a policy set has more than {MAX_POLICIES} policies")
    if len({policy.id for policy in policies.policies}) != len(policies.policies):
        raise Invalid("two policies have the same id")
    for policy in policies.policies:
        for scope in (policy.principal, policy.action, policy.resource):
            types = [name.type for name in (scope.equals, *(scope.within or ())) if name is not None]
            types += [scope.type] if scope.type is not None else []
            if not all(map(is_type_name, types)):
                raise Invalid(f"policy {policy.id}: its scope has a type that is no Cedar type name")
        for condition in policy.conditions:
            _check_expression(condition, policy.id)


def _check_expression(root: Expr, policy_id: str) -> None:
    """Check the depth of an expression, its type names, and that names in a record are distinct. Raises Invalid if the
    check fails. The function does not recurse, so that a deep expression cannot exhaust Python's stack.
    """
    open_ = [(root, 1)]
    while open_:
        node, depth = open_.pop()
        if depth > MAX_DEPTH:
            raise Invalid(f"policy {policy_id}: an expression is nested deeper than {MAX_DEPTH}")
        if (isinstance(node, EntityLit) and not is_type_name(node.uid.type)) or (
            isinstance(node, Is) and not is_type_name(node.type)
        ):
            raise Invalid(f"policy {policy_id}: an expression has a type that is no Cedar type name")
        if isinstance(node, Record) and len(dict(node.fields)) != len(node.fields):
            raise Invalid(f"policy {policy_id}: a record has the same name twice")
        if isinstance(node, ArityError) and len(node.args) == node.expected:
            raise Invalid(
                f"policy {policy_id}: an `arity_error` has {node.expected} arguments, which is the expected number"
            )
        open_.extend((child, depth + 1) for child in children(node))


def reads_context(policies: PolicySetIR, name: str) -> bool:
    """Return whether a policy reads the attribute `name` of the context, or the context as a whole."""
    open_ = [condition for policy in policies.policies for condition in policy.conditions]
    while open_:
        match open_.pop():
            case Get(Var("context"), attr) | Has(Var("context"), attr):
                if attr == name:
                    return True
            case Var("context"):
                return True
            case other:
                open_ += children(other)
    return False


def reads_within(policies: PolicySetIR, name: str, inner: str) -> bool:
    """Return whether a policy reads `context.name.inner`, or all of `context` or of `context.name` as a whole."""
    open_ = [condition for policy in policies.policies for condition in policy.conditions]
    while open_:
        match open_.pop():
            case Get(Get(Var("context"), outer), attr) | Has(Get(Var("context"), outer), attr):
                if (outer, attr) == (name, inner):
                    return True
            case Get(Var("context"), attr):
                if attr == name:
                    return True
            case Has(Var("context"), _):
                pass
            case Var("context"):
                return True
            case other:
                open_ += children(other)
    return False


def reads(policy: PolicyIR, name: VarName) -> bool:
    """Return whether the conditions of a policy read the variable `name`."""
    open_ = list(policy.conditions)
    while open_:
        node = open_.pop()
        if node == Var(name):
            return True
        open_ += children(node)
    return False


def children(node: Expr) -> Iterator[Expr]:
    """Yield the direct subexpressions of an expression."""
    match node:
        case Unary():
            yield node.arg
        case Binary():
            yield node.left
            yield node.right
        case Get() | Has() | Like():
            yield node.base
        case Is():
            yield node.base
            if node.within is not None:
                yield node.within
        case If():
            yield node.test
            yield node.then
            yield node.otherwise
        case Set():
            yield from node.elements
        case Record():
            for _, child in node.fields:
                yield child
        case ArityError():
            yield from node.args
