"""The arguments of a tool as typed Cedar values, by the tool's JSON Schema (2020-12).

    integer -> long     number -> decimal     array -> set     object -> record     null -> absent

A number that does not fit its type (64 bits; four decimal places) is refused, since a policy would judge another number
than the tool gets. Where the schema is silent, the value speaks: `5` is a long, `5.5` a decimal.

Judged: type, enum, const, properties, required, additionalProperties, items, prefixItems, the bounds of numbers and
lengths, allOf, anyOf, oneOf, and `$ref` within the schema. Other keywords are the tool's own business: `pattern` above
all, since a schema from elsewhere would choose a regular expression that a guard runs. A default is not filled in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from ostiary.core.cedar.extensions import Decimal as CedarDecimal
from ostiary.core.cedar.extensions import EvaluationError, decimal
from ostiary.core.cedar.values import LONG_MAX, LONG_MIN, Record, Value, key
from ostiary.core.errors import Invalid

MAX_SCHEMA_DEPTH = 32
MAX_SCHEMA_NODES = 4096
MAX_DEPTH = 32
MAX_STEPS = 20_000
"""Values looked at in one call; bounds what `anyOf` inside `anyOf` can cost."""

Schema: TypeAlias = Mapping[str, Any] | bool
Fuel: TypeAlias = list[int]
Typer: TypeAlias = Callable[[Any, int, Fuel], Value]
"""(value, levels left, [steps left]) -> the Cedar value. Raises BadArguments."""


class BadArguments(Invalid):
    """The arguments are not what the tool's schema says. Names the place, never the value."""

    code = "bad_arguments"

    def __init__(self, what: str, *, where: str = "") -> None:
        super().__init__(f"argument `{where}` {what}" if where else f"the arguments: an argument {what}")
        self.what, self.where = what, where

    def inside(self, name: str) -> BadArguments:
        """The same, seen from the object that holds it as `name`."""
        return BadArguments(self.what, where=f"{name[:64]}.{self.where}"[:200].rstrip("."))


class Arguments:
    """A schema made ready: `type_(arguments)` is their Cedar record."""

    __slots__ = ("_typer",)

    def __init__(self, schema: Mapping[str, Any]) -> None:
        """Raises Invalid for a schema that is too large, too deep, or not one."""
        self._typer = _Compiler(schema).compile(schema, 0)

    def type_(self, arguments: Mapping[str, object]) -> Record:
        """Raises BadArguments."""
        record = self._typer(arguments, MAX_DEPTH, [MAX_STEPS])
        if type(record) is not dict:
            raise BadArguments("list is not an object")
        return record


def plain(value: object, depth: int = MAX_DEPTH) -> Value:
    """The Cedar value of a JSON value that no schema describes. Null inside of a list or an object is absent."""
    kind = type(value)
    if kind is str or kind is bool:
        return value  # type: ignore[return-value]
    if kind is int:
        return _long(value)  # type: ignore[arg-type]
    if kind is float:
        return _decimal(value)  # type: ignore[arg-type]
    if depth == 0:
        raise BadArguments("is nested too deeply")
    if kind is list or kind is tuple:
        return frozenset([key(plain(item, depth - 1)) for item in value if item is not None])  # type: ignore[attr-defined]
    if isinstance(value, dict):
        return {
            name: item if type(item) is str else plain(item, depth - 1)
            for name, item in value.items()
            if item is not None
        }
    raise BadArguments(f"is {'null' if value is None else kind.__name__}, which Cedar has no type for")


def _long(value: int) -> int:
    if LONG_MIN <= value <= LONG_MAX:
        return value
    raise BadArguments("is an integer beyond 64 bits")


def _integer(value: Any, depth: int, fuel: Fuel) -> int:
    if type(value) is float:
        if not value.is_integer():
            raise BadArguments("is not an integer")
        value = int(value)
    return _long(value)


def _number(value: Any, depth: int, fuel: Fuel) -> CedarDecimal:
    return _decimal(value)


def _decimal(value: int | float) -> CedarDecimal:
    if type(value) is int:
        return CedarDecimal(_long(value * 10_000))
    try:
        return decimal(repr(value))  # the shortest text that is this float: what the caller wrote
    except EvaluationError:
        raise BadArguments("is a number that no decimal of four places is") from None


def _plain(value: Any, depth: int, fuel: Fuel) -> Value:
    _spend(fuel, 1, depth)
    return plain(value, depth)


def _spend(fuel: Fuel, steps: int, depth: int) -> None:
    fuel[0] -= steps
    if fuel[0] < 0:
        raise BadArguments("has too many parts to be judged")
    if depth == 0:
        raise BadArguments("is nested too deeply")


_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,), "boolean": (bool,), "integer": (int, float), "number": (int, float),
    "array": (list, tuple), "object": (dict,), "null": (),
}  # fmt: skip
_OWN = frozenset(
    [
        "type",
        "enum",
        "const",
        "properties",
        "required",
        "additionalProperties",
        "items",
        "prefixItems",
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "exclusiveMaximum",
        "multipleOf",
        "minLength",
        "maxLength",
        "minItems",
        "maxItems",
        "minProperties",
        "maxProperties",
    ]
)


class _Compiler:
    """One schema on its way to closures. `$ref` is resolved when it is first followed, so that schemas may recur."""

    def __init__(self, root: Schema) -> None:
        self._root = root
        self._refs: dict[str, Typer] = {}
        self._nodes = 0

    def compile(self, schema: object, depth: int) -> Typer:
        self._nodes += 1
        if depth > MAX_SCHEMA_DEPTH or self._nodes > MAX_SCHEMA_NODES:
            limits = f"{MAX_SCHEMA_DEPTH} levels, {MAX_SCHEMA_NODES} parts"
            raise Invalid("a schema is too deep or too large", hint=limits)
        if schema is True:
            return _plain
        if schema is False:
            return _never
        if not isinstance(schema, Mapping):
            raise Invalid("a schema is an object, true or false")
        parts = [self._own(schema, depth)] if not _OWN.isdisjoint(schema) else []
        if "$ref" in schema:
            parts.append(self._ref(schema["$ref"], depth))
        for word in ("allOf", "anyOf", "oneOf"):
            if word in schema:
                branches = [self.compile(branch, depth + 1) for branch in _list(schema[word], word)]
                parts += branches if word == "allOf" else [_choice(branches, exactly_one=word == "oneOf")]
        if not parts:
            return _plain
        return parts[0] if len(parts) == 1 else _all(parts)

    def _ref(self, ref: object, depth: int) -> Typer:
        if type(ref) is not str or not (ref == "#" or ref.startswith("#/")):
            raise Invalid("a `$ref` leads outside of its schema", hint='inline it under "$defs"')
        if ref not in self._refs:
            self._refs[ref] = _never  # while it is being compiled
            target: object = self._root
            for step in ref[2:].split("/") if ref != "#" else ():
                step = step.replace("~1", "/").replace("~0", "~")
                if not isinstance(target, Mapping) or step not in target:
                    raise Invalid(f"`$ref` {ref[:100]} leads nowhere")
                target = target[step]
            self._refs[ref] = self.compile(target, depth + 1)
        refs = self._refs

        def follow(value: Any, depth: int, fuel: Fuel) -> Value:
            _spend(fuel, 1, depth)
            return refs[ref](value, depth - 1, fuel)

        return follow

    def _own(self, schema: Mapping[str, Any], depth: int) -> Typer:
        """By the type of the value: the checks of that type, then the conversion."""
        named = schema.get("type", list(_TYPES))
        types = [named] if isinstance(named, str) else _list(named, "type")
        if not all(isinstance(name, str) and name in _TYPES for name in types):
            raise Invalid("a schema has an unknown `type`")
        convert: dict[type, Typer] = {}
        for name in types:
            if "type" in schema or name != "number":  # without a type, an integer stays one
                convert |= dict.fromkeys(_TYPES[name], self._of_type(name, schema, depth))
        if "type" not in schema:
            convert[float] = _checked(_number, _number_checks(schema))
        wrong = "is not " + " or ".join(f"{'an' if name[0] in 'aeiou' else 'a'} {name}" for name in types)
        one_of = _members(schema)
        if one_of is not None:
            return _listed(convert, wrong, one_of)
        if len(convert) == 1:
            [(only, typer)] = convert.items()
            return _exactly(only, typer, wrong)
        return _either(convert, wrong)

    def _of_type(self, name: str, schema: Mapping[str, Any], depth: int) -> Typer:
        match name:
            case "string":
                return _checked(_same, _length_checks(schema, "minLength", "maxLength", "long"))
            case "integer":
                return _checked(_integer, _number_checks(schema))
            case "number":
                return _checked(_number, _number_checks(schema))
            case "array":
                return self._array(schema, depth)
            case "object":
                return self._object(schema, depth)
            case _:
                return _checked(_same, [])

    def _array(self, schema: Mapping[str, Any], depth: int) -> Typer:
        checks = _length_checks(schema, "minItems", "maxItems", "full")
        first = [self.compile(item, depth + 1) for item in _list(schema.get("prefixItems", []), "prefixItems")]
        rest = self.compile(schema.get("items", True), depth + 1)
        count = len(first)

        def array(value: Any, depth: int, fuel: Fuel) -> Value:
            _spend(fuel, len(value), depth)
            for check in checks:
                check(value)
            typers = [*first[: len(value)], *[rest] * (len(value) - count)]
            pairs = zip(typers, value, strict=True)
            return frozenset([key(typer(item, depth - 1, fuel)) for typer, item in pairs if item is not None])

        return array

    def _object(self, schema: Mapping[str, Any], depth: int) -> Typer:
        properties = schema.get("properties", {})
        required = tuple(_list(schema.get("required", []), "required"))
        if not isinstance(properties, Mapping) or not all(isinstance(name, str) for name in required):
            raise Invalid("`properties` is an object and `required` a list of names")
        typers = {name: self.compile(inner, depth + 1) for name, inner in properties.items()}
        other = self.compile(schema.get("additionalProperties", True), depth + 1)
        checks = _length_checks(schema, "minProperties", "maxProperties", "full")
        find = typers.get

        def record(value: Any, depth: int, fuel: Fuel) -> Value:
            _spend(fuel, len(value), depth)
            for check in checks:
                check(value)
            for name in required:
                if name not in value:
                    raise BadArguments("is missing", where=name[:64])
            made: Record = {}
            name = ""
            try:
                for name, item in value.items():
                    if item is not None:
                        made[name] = find(name, other)(item, depth - 1, fuel)
            except BadArguments as error:
                raise error.inside(str(name)) from None
            return made

        return record


def _never(value: Any, depth: int, fuel: Fuel) -> Value:
    raise BadArguments("is not in the schema")


def _same(value: Any, depth: int, fuel: Fuel) -> Value:
    return value  # type: ignore[no-any-return]


def _exactly(only: type, typer: Typer, wrong: str) -> Typer:
    def as_it_is(value: Any, depth: int, fuel: Fuel) -> Any:
        if type(value) is not only:
            raise BadArguments(wrong)
        return value

    def exactly(value: Any, depth: int, fuel: Fuel) -> Value:
        if type(value) is not only:
            raise BadArguments(wrong)
        return typer(value, depth, fuel)

    return as_it_is if typer is _same else exactly


def _either(by_type: dict[type, Typer], wrong: str) -> Typer:
    find = by_type.get

    def either(value: Any, depth: int, fuel: Fuel) -> Value:
        typer = find(type(value))
        if typer is None:
            raise BadArguments(wrong)
        return typer(value, depth, fuel)

    return either


def _listed(by_type: dict[type, Typer], wrong: str, is_listed: Callable[[Any], bool]) -> Typer:
    either = _either(by_type, wrong)

    def listed(value: Any, depth: int, fuel: Fuel) -> Value:
        if not is_listed(value):
            raise BadArguments("is none of the values that the schema lists")
        return either(value, depth, fuel)

    return listed


def _checked(convert: Typer, checks: list[Callable[[Any], None]]) -> Typer:
    if not checks:
        return convert

    def checked(value: Any, depth: int, fuel: Fuel) -> Value:
        for check in checks:
            check(value)
        return convert(value, depth, fuel)

    return checked


def _choice(branches: list[Typer], *, exactly_one: bool) -> Typer:
    """The value as the first branch types it; for `oneOf`, none of the others may take it."""

    def choose(value: Any, depth: int, fuel: Fuel) -> Value:
        taken: list[Value] = []
        for branch in branches:
            _spend(fuel, 1, depth)
            try:
                taken.append(branch(value, depth - 1, fuel))
            except BadArguments:
                continue
            if not exactly_one:
                break
        if not taken:
            raise BadArguments("fits none of the forms that the schema lists")
        if len(taken) > 1:
            raise BadArguments("fits more than one of the forms that the schema lists")
        return taken[0]

    return choose


def _all(parts: list[Typer]) -> Typer:
    def every(value: Any, depth: int, fuel: Fuel) -> Value:
        _spend(fuel, len(parts), depth)
        typed = parts[0](value, depth - 1, fuel)
        for part in parts[1:]:
            typed = _merge(typed, part(value, depth - 1, fuel))
        return typed

    return every


def _merge(left: Value, right: Value) -> Value:
    """Two readings of one value: whoever says `number` is right about a number."""
    if type(left) is dict and type(right) is dict:
        return {name: _merge(item, right[name]) for name, item in left.items()}
    return left if type(left) is CedarDecimal else right


def _members(schema: Mapping[str, Any]) -> Callable[[Any], bool] | None:
    if "const" in schema:
        const = schema["const"]
        return lambda value: _equal(value, const)
    if "enum" not in schema:
        return None
    listed = _list(schema["enum"], "enum")
    words = frozenset(item for item in listed if type(item) is str)
    return lambda value: value in words if type(value) is str else any(_equal(value, item) for item in listed)


def _equal(left: Any, right: Any) -> bool:
    """JSON's equality: 1 is 1.0 and is not true."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_equal, left, right))
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_equal(item, right[name]) for name, item in left.items())
    return bool(left == right)


def _number_checks(schema: Mapping[str, Any]) -> list[Callable[[Any], None]]:
    tests: dict[str, Callable[[Any, Any], bool]] = {
        "minimum": lambda value, bound: value >= bound,
        "maximum": lambda value, bound: value <= bound,
        "exclusiveMinimum": lambda value, bound: value > bound,
        "exclusiveMaximum": lambda value, bound: value < bound,
        "multipleOf": lambda value, bound: value % bound == 0,
    }
    return [_bound(word, schema[word], test) for word, test in tests.items() if word in schema]


def _bound(word: str, bound: object, test: Callable[[Any, Any], bool]) -> Callable[[Any], None]:
    if type(bound) not in (int, float) or (word == "multipleOf" and not bound > 0):  # type: ignore[operator]
        raise Invalid(f"`{word}` of a schema is not such a number")

    def check(value: Any) -> None:
        if not test(value, bound):
            raise BadArguments(f"is outside of the schema's {word}")

    return check


def _length_checks(schema: Mapping[str, Any], least: str, most: str, word: str) -> list[Callable[[Any], None]]:
    low, high = schema.get(least), schema.get(most)
    if any(bound is not None and (type(bound) is not int or bound < 0) for bound in (low, high)):
        raise Invalid(f"`{least}` and `{most}` of a schema are natural numbers")
    if low is None and high is None:
        return []
    low, high = low or 0, LONG_MAX if high is None else high

    def check(value: Any) -> None:
        if not low <= len(value) <= high:
            raise BadArguments(f"is too {word} or not {word} enough for the schema")

    return [check]


def _list(value: object, word: str) -> list[Any]:
    if not isinstance(value, list):
        raise Invalid(f"`{word}` of a schema is a list")
    return value
