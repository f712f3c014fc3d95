"""Partial evaluation: the possible outcomes of policies for a request with unknown parts.

Evaluation over the IR in three-valued logic. It returns all outcomes that any completion of the request has, and
possibly more, because two unknown values are never compared with each other. An outcome that is not returned is
impossible.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, NoReturn

from ostiary.authorization.cedar import extensions, ir, operators
from ostiary.authorization.cedar.extensions import Decimal, EvaluationError, Ip, Unreadable
from ostiary.authorization.cedar.values import Entities, Entity, Record, Uid, key, make_set

NONE: frozenset[str] = frozenset()


class Undetermined(Exception):
    """Raised inside the partial evaluation if an operator needs a value that is unknown."""


class Unknown:
    """An unknown value of a request.

    `inputs`: names of the inputs on which the value depends; `kind`: the type of the value, None if the type is not
    known; `optional`: true if the value may be absent.
    """

    __slots__ = ("inputs", "kind", "optional")

    def __init__(self, *inputs: str, kind: type | None = None, optional: bool = False) -> None:
        self.inputs, self.kind, self.optional = frozenset(inputs), kind, optional

    def __eq__(self, other: object) -> bool:
        raise Undetermined

    def __hash__(self) -> int:
        raise Undetermined


class PartialRecord(dict[str, object]):
    """A record with unknown members. `rest` stands for all members that the record does not name; None if there
    are none.
    """

    def __init__(self, members: Mapping[str, object], rest: Unknown | None = None) -> None:
        super().__init__(members)
        self.rest = rest

    @property
    def inputs(self) -> frozenset[str]:
        """Return the inputs on which the unknown members depend."""
        parts = [one for one in (*self.values(), self.rest) if isinstance(one, Unknown | PartialRecord)]
        return NONE.union(*(one.inputs for one in parts))

    @property
    def may_be_unusable(self) -> bool:
        """Return whether a member may be a value that Cedar cannot represent, so that comparing the
        whole record fails.
        """
        parts = [one for one in (*self.values(), self.rest) if isinstance(one, Unknown | PartialRecord)]
        return any(one.may_be_unusable if isinstance(one, PartialRecord) else one.kind not in _HELD for one in parts)

    def __eq__(self, other: object) -> bool:
        raise Undetermined

    def __hash__(self) -> int:  # type: ignore[override]
        raise Undetermined


class Result(NamedTuple):
    """The outcomes of an expression over all completions of a request, which are all choices of its unknown values: a
    known `value`, or `unknown` if completions may differ. `may_fail`: true if evaluation may fail in a completion;
    `fails`: true if evaluation fails in every completion. `inputs`: the inputs on which the outcome depends.
    """

    value: object = None
    unknown: bool = False
    kind: type | None = None
    may_fail: bool = False
    fails: bool = False
    inputs: frozenset[str] = NONE

    @property
    def may_hold(self) -> bool:
        """Return whether the value may be true in at least one completion of the request."""
        return not self.fails and (self.unknown or self.value is True)

    @property
    def must_hold(self) -> bool:
        """Return whether the value is certainly true in every completion of the request."""
        return not (self.unknown or self.may_fail or self.fails) and self.value is True


class Request(NamedTuple):
    principal: Entity
    action: Entity
    resource: Entity
    context: PartialRecord
    entities: Entities


_HELD = frozenset({str, bool, Uid})
"""types of which Cedar can represent every value; a value of another type may be Unusable, so that each policy
that reads it fails
"""
_FAILS = Result(may_fail=True, fails=True)


def evaluate_policy(policy: ir.PolicyIR, request: Request) -> Result:
    """Return the possible outcomes of a policy: true, false or failure."""
    scopes = ((policy.principal, request.principal), (policy.action, request.action))
    if not all(_in_scope(scope, entity) for scope, entity in (*scopes, (policy.resource, request.resource))):
        return Result(False)
    result = Result(True)
    for condition in policy.conditions:
        result = _and(result, lambda: _boolean(condition, request))  # noqa: B023
    return result


def _in_scope(scope: ir.Scope, entity: Entity) -> bool:
    return (
        (scope.equals is None or scope.equals == entity.uid)
        and (scope.type is None or scope.type == entity.uid.type)
        and (scope.within is None or not entity.lineage.isdisjoint(scope.within))
    )


def _certain(value: object) -> Result:
    return Result(value, kind=type(value))


def _unknown(*operands: Result, kind: type | None, may_fail: bool, inputs: frozenset[str] = NONE) -> Result:
    """Return an unknown result that depends on the inputs of its operands."""
    may_fail = may_fail or any(one.may_fail for one in operands)
    return Result(None, True, kind, may_fail, inputs=inputs.union(*(one.inputs for one in operands)))


def _boolean(node: ir.Expr, request: Request) -> Result:
    """Return the outcomes of a condition. A value that is not a bool is a failure."""
    result = _evaluate(node, request)
    if result.fails or result.kind is bool:
        return result
    if result.unknown and result.kind is None:
        return result._replace(kind=bool, may_fail=True)
    return _FAILS._replace(inputs=result.inputs)


def _and(left: Result, right: Callable[[], Result], *, stops_at: bool = False) -> Result:
    """Return the outcomes of `&&`; with `stops_at=True`, of `||`."""
    if left.fails or (not left.unknown and left.value is stops_at):
        return left
    then = right()
    may_fail, inputs = left.may_fail or then.may_fail, left.inputs | then.inputs
    if not left.unknown:
        return then._replace(may_fail=may_fail, inputs=inputs)
    if then.fails or (not then.unknown and then.value is stops_at):
        return Result(stops_at, False, bool, may_fail, inputs=inputs)
    return Result(None, True, bool, may_fail, inputs=inputs)


def _if(node: ir.If, request: Request) -> Result:
    test = _boolean(node.test, request)
    if test.fails:
        return test
    if not test.unknown:
        branch = _evaluate(node.then if test.value else node.otherwise, request)
        return branch._replace(may_fail=test.may_fail or branch.may_fail, inputs=test.inputs | branch.inputs)
    then, other = _evaluate(node.then, request), _evaluate(node.otherwise, request)
    inputs = test.inputs | then.inputs | other.inputs
    if then.fails and other.fails:
        return _FAILS._replace(inputs=inputs)
    if then.fails or other.fails:
        return (other if then.fails else then)._replace(may_fail=True, inputs=inputs)
    may_fail = test.may_fail or then.may_fail or other.may_fail or _may_be_unusable(then.value, other.value)
    if not (then.unknown or other.unknown) and _is_same(then.value, other.value):
        return then._replace(may_fail=may_fail, inputs=inputs)
    return Result(None, True, then.kind if then.kind is other.kind else None, may_fail, inputs=inputs)


def _is_same(left: object, right: object) -> bool:
    try:
        return operators.equal(left, right)
    except (Undetermined, Unreadable):
        return False


def _may_be_unusable(*values: object) -> bool:
    return any(isinstance(value, PartialRecord) and value.may_be_unusable for value in values)


def _evaluate(node: ir.Expr, request: Request) -> Result:
    match node:
        case ir.Lit(value):
            return _certain(value)
        case ir.EntityLit(uid):
            return _certain(uid)
        case ir.Var("context"):
            return _certain(request.context)
        case ir.Var(name):
            return _certain(getattr(request, name).uid)
        case ir.Unary("not", arg):
            result = _boolean(arg, request)
            return result if result.unknown or result.fails else result._replace(value=not result.value)
        case ir.Binary("and" | "or", left, right):
            return _and(_boolean(left, request), lambda: _boolean(right, request), stops_at=node.op == "or")
        case ir.If():
            return _if(node, request)
        case ir.Get(base, attr):
            return _attribute(_evaluate(base, request), attr, request)
        case ir.Has(base, attr):
            return _has(_evaluate(base, request), attr, request)
    return _apply(node, [_evaluate(child, request) for child in ir.children(node)], request)


def _attribute(base: Result, attr: str, request: Request) -> Result:
    if base.fails:
        return base
    if base.unknown:
        return _unknown(base, kind=None, may_fail=True)
    if isinstance(base.value, PartialRecord):
        member = base.value.get(attr, base.value.rest)
        if isinstance(member, Unknown):
            may_fail = member.optional or member.kind not in _HELD
            return _unknown(base, kind=member.kind, may_fail=may_fail, inputs=member.inputs)
        outcome = _FAILS if member is None else _certain(member)
    else:
        outcome = _try(lambda: operators.attribute(base.value, attr, request.entities))
        if isinstance(outcome.value, Unknown):
            return _unknown(base, kind=outcome.value.kind, may_fail=False, inputs=outcome.value.inputs)
    return outcome._replace(may_fail=outcome.may_fail or base.may_fail, inputs=outcome.inputs | base.inputs)


def _has(base: Result, attr: str, request: Request) -> Result:
    if base.fails:
        return base
    if base.unknown:
        return _unknown(base, kind=bool, may_fail=True)
    if isinstance(base.value, PartialRecord):
        member = base.value.get(attr, base.value.rest)
        if isinstance(member, Unknown) and member.optional:
            return _unknown(base, kind=bool, may_fail=False, inputs=member.inputs)
        outcome = _certain(member is not None)
    else:
        outcome = _try(lambda: operators.has(base.value, attr, request.entities))
    return outcome._replace(may_fail=outcome.may_fail or base.may_fail, inputs=outcome.inputs | base.inputs)


_SURE: dict[str, tuple[type, ...]] = {
    "contains": (frozenset,),
    "contains_all": (frozenset, frozenset),
    "contains_any": (frozenset, frozenset),
    "is_empty": (frozenset,),
    "less": (int, int),
    "less_eq": (int, int),
    "greater": (int, int),
    "greater_eq": (int, int),
    "in": (Uid, Uid),
    "is_ipv4": (Ip,),
    "is_ipv6": (Ip,),
    "is_loopback": (Ip,),
    "is_multicast": (Ip,),
    "is_in_range": (Ip, Ip),
    "decimal_less_than": (Decimal, Decimal),
    "decimal_less_eq": (Decimal, Decimal),
    "decimal_greater": (Decimal, Decimal),
    "decimal_greater_eq": (Decimal, Decimal),
    "eq": (),
    "not_eq": (),
}
"""Operators that return a bool and do not fail on operands of these types. All other operators may fail."""
_BOOLEAN = frozenset({*_SURE, "has_tag"})


def _apply(node: ir.Expr, operands: list[Result], request: Request) -> Result:
    """Return the outcomes of an operator that evaluates all its operands: its value if all operands are known,
    otherwise unknown.
    """
    if any(one.fails for one in operands):
        return _FAILS._replace(inputs=NONE.union(*(one.inputs for one in operands)))
    values = [one.value for one in operands]
    if not any(one.unknown for one in operands):
        try:
            outcome = _try(lambda: _operate(node, values, request.entities))
        except Undetermined:
            parts = NONE.union(*(value.inputs for value in values if isinstance(value, PartialRecord)))
            may_fail = _may_fail(node, operands) or _may_be_unusable(*values)
            return _unknown(*operands, kind=_kind(node), may_fail=may_fail, inputs=parts)
        return outcome._replace(
            may_fail=outcome.may_fail or any(one.may_fail for one in operands),
            inputs=outcome.inputs.union(*(one.inputs for one in operands)),
        )
    may_fail = _may_fail(node, operands) or _may_be_unusable(*values)
    return _unknown(*operands, kind=_kind(node), may_fail=may_fail)


def _kind(node: ir.Expr) -> type | None:
    match node:
        case ir.Binary(op) | ir.Unary(op):
            return bool if op in _BOOLEAN else None
        case ir.Set():
            return frozenset
        case ir.Like() | ir.Is():
            return bool
    return None


def _may_fail(node: ir.Expr, operands: list[Result]) -> bool:
    kinds = [one.kind for one in operands]
    match node:
        case ir.Binary(op) | ir.Unary(op):
            sure = _SURE.get(op)
            return sure is None or any(kind is not due for kind, due in zip(kinds, sure, strict=False))
        case ir.Like():
            return kinds != [str]
        case ir.Set() | ir.Record():
            return False
    return True


def _operate(node: ir.Expr, values: list[object], entities: Entities) -> object:
    """Return the value of an operator. Raises EvaluationError or KeyError, and Undetermined if the operator
    needs an unknown value.
    """
    for value in values:
        if isinstance(value, PartialRecord) and not isinstance(node, ir.Set | ir.Record):
            raise Undetermined
    match node:
        case ir.Set():
            return make_set(values)
        case ir.Record(fields):
            made: Record = dict(zip((name for name, _ in fields), values, strict=True))  # type: ignore[arg-type]
            return PartialRecord(made) if any(isinstance(value, PartialRecord) for value in values) else made
        case ir.Like(_, pieces):
            return operators.like(values[0], pieces)
        case ir.Is(_, kind, within):
            is_type = operators.is_type(values[0], kind)
            return is_type and (within is None or operators.is_in(values[0], values[1], entities))
        case ir.ArityError(function, expected):
            operators.arity_error(function, expected, tuple(values))
        case ir.Binary("not_eq"):
            return not operators.equal(*values)
        case ir.Binary("in"):
            return operators.is_in(values[0], values[1], entities)
        case ir.Binary("contains", _, _):
            return operators.contains(values[0], key(values[1]))
        case ir.Binary("get_tag"):
            return operators.get_tag(values[0], values[1], entities)
        case ir.Binary("has_tag"):
            return operators.has_tag(values[0], values[1], entities)
        case ir.Binary(op) | ir.Unary(op):
            return FUNCTIONS[op](*values)
    _unreachable(node)


def _unreachable(node: ir.Expr) -> NoReturn:
    raise AssertionError(f"unreachable: {node}")


FUNCTIONS: dict[str, Callable[..., object]] = {
    "neg": operators.negate,
    "is_empty": operators.is_empty,
    "decimal": extensions.decimal,
    "ip": extensions.ip,
    "datetime": extensions.datetime,
    "duration": extensions.duration,
    "eq": operators.equal,
    "less": operators.less,
    "less_eq": operators.less_eq,
    "greater": operators.greater,
    "greater_eq": operators.greater_eq,
    "add": operators.add,
    "sub": operators.sub,
    "mul": operators.mul,
    "contains_all": operators.contains_all,
    "contains_any": operators.contains_any,
    "offset": extensions.offset,
    "duration_since": extensions.duration_since,
    **operators.METHODS,
}


def _try(operate: Callable[[], object]) -> Result:
    try:
        return _certain(operate())
    except (EvaluationError, KeyError):
        return _FAILS
