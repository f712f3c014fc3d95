"""Generation of a Python function from a policy of the IR.

The generated text contains only names that this module chooses: operators, variables, and `k0, k1, ..` for constants,
which are passed as arguments. No text of a policy, not even the name of an attribute, is part of the generated text.
Nothing needs to be escaped, and policies of the same form share one code object, which saves compilation.

    def make(k0, k1):
        def policy(p, a, r, c, E):
            return eq(p.attrs[k0], k1)
        return policy
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable
from typing import Literal, TypeAlias

from ostiary.authorization.cedar import extensions, ir, operators
from ostiary.authorization.cedar.extensions import Datetime, Decimal, Duration, EvaluationError, Ip
from ostiary.authorization.cedar.values import Entities, Entity, Record, Uid, key, make_set

Function: TypeAlias = Callable[[Entity, Entity, Entity, Record, Entities], bool]
Kind: TypeAlias = Literal["bool", "long", "string", "entity", "set", "record", "decimal", "ip", "datetime", "duration"]
Code: TypeAlias = tuple[str, Kind | None]
"""(Python expression, Cedar type of its value); None if the type is not certain."""

SPLIT = 24
"""Maximum levels of an expression in one Python function, because Python refuses 200 nested parentheses."""

_OPERATORS: dict[str, tuple[Callable[..., object], Kind | None]] = {
    "neg": (operators.negate, "long"),
    "is_empty": (operators.is_empty, "bool"),
    "decimal": (extensions.decimal, "decimal"),
    "ip": (extensions.ip, "ip"),
    "datetime": (extensions.datetime, "datetime"),
    "duration": (extensions.duration, "duration"),
    "eq": (operators.equal, "bool"),
    "less": (operators.less, "bool"),
    "less_eq": (operators.less_eq, "bool"),
    "greater": (operators.greater, "bool"),
    "greater_eq": (operators.greater_eq, "bool"),
    "add": (operators.add, "long"),
    "sub": (operators.sub, "long"),
    "mul": (operators.mul, "long"),
    "contains_all": (operators.contains_all, "bool"),
    "contains_any": (operators.contains_any, "bool"),
    "offset": (extensions.offset, "datetime"),
    "duration_since": (extensions.duration_since, "duration"),
    "to_date": (operators.METHODS["to_date"], "datetime"),
    "to_time": (operators.METHODS["to_time"], "duration"),
    **{
        f"to_{unit}": (operators.METHODS[f"to_{unit}"], "long")
        for unit in ("milliseconds", "seconds", "minutes", "hours", "days")
    },
    **{
        name: (operators.METHODS[name], "bool")
        for name in (
            "decimal_less_than",
            "decimal_less_eq",
            "decimal_greater",
            "decimal_greater_eq",
            "is_ipv4",
            "is_ipv6",
            "is_loopback",
            "is_multicast",
            "is_in_range",
        )
    },
}
_NAMESPACE: dict[str, object] = {
    "__builtins__": {},
    "boolean": operators.boolean,
    "key": key,
    "contains": operators.contains,
    "make_set": make_set,
    "attribute": operators.attribute,
    "has": operators.has,
    "is_type": operators.is_type,
    "like": operators.like,
    "is_in": operators.is_in,
    "get_tag": operators.get_tag,
    "has_tag": operators.has_tag,
    "arity_error": operators.arity_error,
    **{name: function for name, (function, _) in _OPERATORS.items()},
}
_KINDS: dict[type, Kind] = {
    bool: "bool",
    int: "long",
    str: "string",
    Uid: "entity",
    frozenset: "set",
    dict: "record",
    Decimal: "decimal",
    Ip: "ip",
    Datetime: "datetime",
    Duration: "duration",
}
_ENTITIES = {"principal": "p", "action": "a", "resource": "r"}


@functools.lru_cache(maxsize=4096)
def _maker(source: str) -> Callable[..., Function]:
    names: dict[str, object] = {}
    exec(compile(source, "<policy>", "exec"), _NAMESPACE, names)
    return names["make"]  # type: ignore[return-value]


def generate(conditions: Iterable[ir.Expr], scope: Iterable[tuple[str, ir.Scope]]) -> Function:
    """Return a function that returns true if all of `scope` and then all of `conditions` hold. The function
    raises the errors of Cedar's operators.
    """
    source, constants = write(conditions, scope)
    return _maker(source)(*constants)


def write(conditions: Iterable[ir.Expr], scope: Iterable[tuple[str, ir.Scope]]) -> tuple[str, list[object]]:
    """Return the Python text of the function that makes a policy's function, and the constants that are its
    arguments.
    """
    writer = _Writer()
    tests = [test for name, constraint in scope for test in writer.scope(_ENTITIES[name], constraint)]
    tests += [writer.boolean(condition, 0) for condition in conditions]
    functions = [*writer.functions, ("policy", " and ".join(tests) or "True")]
    body = "".join(f"    def {name}(p, a, r, c, E):\n        return {code}\n" for name, code in functions)
    return f"def make({', '.join(writer.names)}):\n{body}    return policy\n", writer.constants


class _Writer:
    """Writer of the code of one policy. It collects constants, and extra functions for deeply nested parts."""

    def __init__(self) -> None:
        self.constants: list[object] = []
        self.functions: list[tuple[str, str]] = []

    @property
    def names(self) -> list[str]:
        return [f"k{index}" for index in range(len(self.constants))]

    def constant(self, value: object) -> str:
        self.constants.append(value)
        return f"k{len(self.constants) - 1}"

    def scope(self, entity: str, constraint: ir.Scope) -> Iterable[str]:
        if constraint.equals is not None:
            yield f"{entity}.uid == {self.constant(constraint.equals)}"
        if constraint.type is not None:
            yield f"{entity}.uid.type == {self.constant(constraint.type)}"
        if constraint.within is not None:
            yield f"not {entity}.lineage.isdisjoint({self.constant(frozenset(constraint.within))})"

    def boolean(self, node: ir.Expr, depth: int) -> str:
        code, kind = self.expression(node, depth)
        return code if kind == "bool" else f"boolean({code})"

    def value(self, node: ir.Expr, depth: int) -> str:
        return self.expression(node, depth)[0]

    def expression(self, node: ir.Expr, depth: int) -> Code:
        if depth == SPLIT:
            code, kind = self.expression(node, 0)
            name = f"f{len(self.functions)}"
            self.functions.append((name, code))
            return f"{name}(p, a, r, c, E)", kind
        is_constant, value = _fold(node)
        if is_constant:
            return self.constant(value), _KINDS[type(value)]
        return self._compound(node, depth + 1)

    def _compound(self, node: ir.Expr, depth: int) -> Code:
        match node:
            case ir.Var("context"):
                return "c", "record"
            case ir.Var():
                return f"{_ENTITIES[node.name]}.uid", "entity"
            case ir.Unary("not"):
                return f"(not {self.boolean(node.arg, depth)})", "bool"
            case ir.Unary():
                return f"{node.op}({self.value(node.arg, depth)})", _OPERATORS[node.op][1]
            case ir.Binary():
                return self._binary(node, depth)
            case ir.Get(ir.Var("context"), attr):
                return f"c[{self.constant(attr)}]", None
            case ir.Get(ir.Var(name), attr):
                return f"{_ENTITIES[name]}.attrs[{self.constant(attr)}]", None
            case ir.Get():
                return f"attribute({self.value(node.base, depth)}, {self.constant(node.attr)}, E)", None
            case ir.Has(ir.Var("context"), attr):
                return f"({self.constant(attr)} in c)", "bool"
            case ir.Has(ir.Var(name), attr):
                return f"({self.constant(attr)} in {_ENTITIES[name]}.attrs)", "bool"
            case ir.Has():
                return f"has({self.value(node.base, depth)}, {self.constant(node.attr)}, E)", "bool"
            case ir.Like():
                return f"like({self.value(node.base, depth)}, {self.constant(node.pieces)})", "bool"
            case ir.Is():
                return self._is(node, depth), "bool"
            case ir.If():
                return self._if(node, depth)
            case ir.Set():
                return f"make_set(({''.join(f'{self.value(item, depth)}, ' for item in node.elements)}))", "set"
            case ir.Record():
                items = (f"{self.constant(name)}: {self.value(item, depth)}" for name, item in node.fields)
                return f"{{{', '.join(items)}}}", "record"
            case ir.ArityError():
                args = "".join(f"{self.value(arg, depth)}, " for arg in node.args)
                return f"arity_error({self.constant(node.function)}, {self.constant(node.expected)}, ({args}))", None
        raise AssertionError(f"unreachable: {node}")

    def _binary(self, node: ir.Binary, depth: int) -> Code:
        match node.op:
            case "and" | "or":
                parts = list(map(self.boolean, _chain(node), itertools.repeat(depth)))
                return f"({f' {node.op} '.join(parts)})", "bool"
            case "not_eq":
                return f"(not {self._equal(node, depth)})", "bool"
            case "eq":
                return self._equal(node, depth), "bool"
            case "in":
                return self._in(node.left, node.right, depth), "bool"
            case "contains":
                container, element = self.value(node.left, depth), self._key(node.right, depth)
                is_set = isinstance(_fold(node.left)[1], frozenset)  # a constant: it cannot fail before the element
                return f"({element} in {container})" if is_set else f"contains({container}, {element})", "bool"
        left, right = self.value(node.left, depth), self.value(node.right, depth)
        match node.op:
            case "get_tag":
                return f"get_tag({left}, {right}, E)", None
            case "has_tag":
                return f"has_tag({left}, {right}, E)", "bool"
        return f"{node.op}({left}, {right})", _OPERATORS[node.op][1]

    def _equal(self, node: ir.Binary, depth: int) -> str:
        """Return code for an equality. Python's own `==` is used only if the type of one operand is known and is not
        bool, long or record, because `==` confuses `1` and `true`.
        """
        (left, left_kind), (right, right_kind) = self.expression(node.left, depth), self.expression(node.right, depth)
        if {left_kind, right_kind}.isdisjoint({"string", "entity", "set", "decimal", "ip", "datetime", "duration"}):
            return f"eq({left}, {right})"
        return f"({left} == {right})"

    def _is(self, node: ir.Is, depth: int) -> str:
        if isinstance(node.base, ir.Var) and node.base.name != "context":
            test = f"({_ENTITIES[node.base.name]}.uid.type == {self.constant(node.type)})"
            return test if node.within is None else f"({test} and {self._in(node.base, node.within, depth)})"
        base, kind = self.value(node.base, depth), self.constant(node.type)
        if node.within is None:
            return f"is_type({base}, {kind})"
        # Write the code of the base once, into a variable: written twice, nested code would double at each level.
        return f"(is_type(t{depth} := {base}, {kind}) and is_in(t{depth}, {self.value(node.within, depth)}, E))"

    def _in(self, descendant: ir.Expr, ancestor: ir.Expr, depth: int) -> str:
        """Return code for `descendant in ancestor`. For a variable and a constant entity, the code needs no
        type check.
        """
        constant = _fold(ancestor)[1]
        if isinstance(descendant, ir.Var) and descendant.name != "context" and isinstance(constant, Uid):
            return f"({self.constant(constant)} in {_ENTITIES[descendant.name]}.lineage)"
        return f"is_in({self.value(descendant, depth)}, {self.value(ancestor, depth)}, E)"

    def _key(self, element: ir.Expr, depth: int) -> str:
        is_constant, value = _fold(element)
        if is_constant:
            return self.constant(key(value))
        code, kind = self.expression(element, depth)
        return f"key({code})" if kind in (None, "bool", "record") else code

    def _if(self, node: ir.If, depth: int) -> Code:
        then, then_kind = self.expression(node.then, depth)
        otherwise, other_kind = self.expression(node.otherwise, depth)
        code = f"({then} if {self.boolean(node.test, depth)} else {otherwise})"
        return code, then_kind if then_kind == other_kind else None


def _chain(node: ir.Binary) -> list[ir.Expr]:
    """Return the parts of `a && b && c` (or of `||`) as a list, for any nesting, because Python limits nested
    parentheses.
    """
    parts: list[ir.Expr] = []
    open_: list[ir.Expr] = [node]
    while open_:
        part = open_.pop()
        if isinstance(part, ir.Binary) and part.op == node.op:
            open_ += (part.right, part.left)
        else:
            parts.append(part)
    return parts


def _fold(node: ir.Expr) -> tuple[bool, object]:
    """Return (True, the value) for an expression without variables: literals, and sets, records and extension values of
    literals. Return (False, None) for all others.

    A constructor call that fails is not folded, so that it fails only when Cedar evaluates it.
    """
    match node:
        case ir.Lit():
            return True, node.value
        case ir.EntityLit():
            return True, node.uid
        case ir.Set():
            folded = [_fold(element) for element in node.elements]
            if all(is_constant for is_constant, _ in folded):
                return True, make_set(value for _, value in folded)
        case ir.Record():
            fields = {name: _fold(field) for name, field in node.fields}
            if all(is_constant for is_constant, _ in fields.values()):
                return True, {name: value for name, (_, value) in fields.items()}
        case ir.Unary("decimal" | "ip" | "datetime" | "duration", ir.Lit(text)):
            try:
                return True, _OPERATORS[node.op][0](text)
            except EvaluationError:
                return False, None
    return False, None
