"""Compilation of a JSON Schema into functions that check arguments and convert them to Cedar values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ostiary.authorization.arguments import typers
from ostiary.authorization.arguments.checks import as_list, length_checks, members, number_checks
from ostiary.authorization.arguments.names import skeleton
from ostiary.authorization.arguments.plain import MAX_DEPTH, BadArguments, Unrepresentable, to_set
from ostiary.authorization.arguments.typers import Fuel, Typer, spend
from ostiary.authorization.cedar.extensions import Unusable
from ostiary.authorization.cedar.values import Record, Value
from ostiary.protocol.errors import Invalid

MAX_SCHEMA_DEPTH = 32
MAX_SCHEMA_NODES = 4096
MAX_STEPS = 20_000
"""Maximum number of values that are checked in one call. It limits the cost of `anyOf` within `anyOf`."""

_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "boolean": (bool,),
    "integer": (int, float),
    "number": (int, float),
    "array": (list, tuple),
    "object": (dict,),
    "null": (),
}
_OWN = frozenset(
    {
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
    }
)


class Arguments:
    """The compiled JSON Schema of a tool's arguments. `type_` checks arguments, and converts them to a Cedar record."""

    __slots__ = ("_typer",)

    def __init__(self, schema: Mapping[str, Any]) -> None:
        """Compile a JSON Schema. Raises Invalid for a schema that is malformed, too large or too deep."""
        self._typer = _Compiler(schema).compile(schema, 0)

    def type_(self, arguments: Mapping[str, object]) -> Record:
        """Return the arguments of a call as a Cedar record. Raises BadArguments if they do not match the schema."""
        record = self._typer(arguments, MAX_DEPTH, [MAX_STEPS])
        if type(record) is not dict:
            raise BadArguments("list is not a JSON object")
        return record


class _Compiler:
    """Compiler of one schema. `$ref` is resolved at first use, so that schemas may be recursive."""

    def __init__(self, root: object) -> None:
        self._root = root
        self._refs: dict[str, Typer] = {}
        self._nodes = 0

    def compile(self, schema: object, depth: int) -> Typer:
        self._nodes += 1
        if depth > MAX_SCHEMA_DEPTH:
            raise Invalid(f"a schema is nested deeper than {MAX_SCHEMA_DEPTH} levels")
        if self._nodes > MAX_SCHEMA_NODES:
            raise Invalid(f"a schema has more than {MAX_SCHEMA_NODES} parts")
        if schema is True:
            return typers.as_it_comes
        if schema is False:
            return typers.never
        if not isinstance(schema, Mapping):
            raise Invalid("a schema must be an object, true or false")
        parts = [self._own(schema, depth)] if not _OWN.isdisjoint(schema) else []
        if "$ref" in schema:
            parts.append(self._ref(schema["$ref"], depth))
        for word in ("allOf", "anyOf", "oneOf"):
            if word in schema:
                branches = [self.compile(branch, depth + 1) for branch in as_list(schema[word], word)]
                parts += branches if word == "allOf" else [typers.choice(branches, exactly_one=word == "oneOf")]
        if not parts:
            return typers.as_it_comes
        return parts[0] if len(parts) == 1 else typers.every(parts)

    def _ref(self, ref: object, depth: int) -> Typer:
        if type(ref) is not str or not (ref == "#" or ref.startswith("#/")):
            raise Invalid(
                "a `$ref` must be `#` or begin with `#/`, which means the schema itself",
                hint='copy the schema to which `$ref` refers to "$defs", and refer to the copy',
            )
        if ref not in self._refs:
            self._refs[ref] = typers.never  # replaced below, after the target is compiled
            target: object = self._root
            for step in ref[2:].split("/") if ref != "#" else ():
                step = step.replace("~1", "/").replace("~0", "~")
                if not isinstance(target, Mapping) or step not in target:
                    raise Invalid(f"`$ref` {ref[:100]!a} leads nowhere")
                target = target[step]
            self._refs[ref] = self.compile(target, depth + 1)
        refs = self._refs

        def follow(value: Any, depth: int, fuel: Fuel) -> Value:
            spend(fuel, 1, depth)
            return refs[ref](value, depth - 1, fuel)

        return follow

    def _own(self, schema: Mapping[str, Any], depth: int) -> Typer:
        """Return the typer for the keywords in the schema itself: it checks the type of a value, then converts
        the value.
        """
        named = schema.get("type", list(_TYPES))
        types = [named] if isinstance(named, str) else as_list(named, "type")
        if not all(isinstance(name, str) and name in _TYPES for name in types):
            raise Invalid(
                f"a schema has an unknown `type`: {str(named)[:64]!a}", hint=f"use one of {', '.join(_TYPES)}"
            )
        convert: dict[type, Typer] = {}
        for name in types:
            # without a stated type, `5` stays an integer: the typer `number` would make it a decimal
            if "type" in schema or name != "number":
                convert |= dict.fromkeys(_TYPES[name], self._of_type(name, schema, depth))
        if "type" not in schema:
            convert[float] = typers.checked(typers.number, number_checks(schema))
        wrong = "is not " + " or ".join(f"{'an' if name[0] in 'aeiou' else 'a'} {name}" for name in types)
        one_of = members(schema)
        if one_of is not None:
            return typers.listed(convert, wrong, one_of)
        if len(convert) == 1:
            [(only, typer)] = convert.items()
            return typers.exactly(only, typer, wrong)
        return typers.either(convert, wrong)

    def _of_type(self, name: str, schema: Mapping[str, Any], depth: int) -> Typer:
        match name:
            case "string":
                return typers.checked(typers.as_it_is, length_checks(schema, "minLength", "maxLength", "characters"))
            case "integer":
                return typers.checked(typers.integer, number_checks(schema))
            case "number":
                return typers.checked(typers.number, number_checks(schema))
            case "array":
                return self._array(schema, depth)
            case "object":
                return self._object(schema, depth)
            case _:
                return typers.as_it_is

    def _array(self, schema: Mapping[str, Any], depth: int) -> Typer:
        checks = length_checks(schema, "minItems", "maxItems", "elements")
        first = [self.compile(item, depth + 1) for item in as_list(schema.get("prefixItems", []), "prefixItems")]
        rest = self.compile(schema.get("items", True), depth + 1)
        count = len(first)

        def array(value: Any, depth: int, fuel: Fuel) -> Value:
            spend(fuel, len(value), depth)
            for check in checks:
                check(value)
            pairs = zip([*first[: len(value)], *[rest] * (len(value) - count)], value, strict=True)
            return to_set([typer(item, depth - 1, fuel) for typer, item in pairs if item is not None])

        return array

    def _object(self, schema: Mapping[str, Any], depth: int) -> Typer:
        properties = schema.get("properties", {})
        required = tuple(as_list(schema.get("required", []), "required"))
        if not isinstance(properties, Mapping):
            raise Invalid("`properties` of a schema must be an object")
        if not all(isinstance(name, str) for name in required):
            raise Invalid("`required` of a schema must be a list of names")
        named = {name: self.compile(inner, depth + 1) for name, inner in properties.items()}
        other = self.compile(schema.get("additionalProperties", True), depth + 1)
        checks = length_checks(schema, "minProperties", "maxProperties", "members")
        find = named.get
        listed = {skeleton(name): name for name in named}

        def unlisted(name: str) -> Typer:
            """Return the function that converts a member that the schema does not list. Raises BadArguments for a name
            that looks like a listed name: a tool that ignores case or width would read it as the listed name.
            """
            if (like := listed.get(skeleton(name))) is not None:
                raise BadArguments(f"has a name that looks like `{like[:64]}`, which the schema lists")
            return other

        def record(value: Any, depth: int, fuel: Fuel) -> Value:
            spend(fuel, len(value), depth)
            for check in checks:
                check(value)
            for name in required:
                if name not in value:
                    raise BadArguments("is missing", where=name[:64])
            made: Record = {}
            name = ""
            try:
                for name, item in value.items():
                    if item is None:
                        continue
                    try:
                        made[name] = (find(name) or unlisted(name))(item, depth - 1, fuel)
                    except Unrepresentable as error:
                        made[name] = Unusable(error.problem, item)
            except BadArguments as error:
                raise error.inside(str(name)) from None
            return made

        return record
