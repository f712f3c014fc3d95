"""Conversion of the arguments of a tool to typed Cedar values, by the tool's JSON Schema (2020-12).

    integer -> long     number -> decimal     array -> set     object -> record     null -> absent

A value that Cedar cannot represent (a number beyond 64 bits or four decimal places, deep nesting) becomes an Unusable.
A policy that reads an Unusable fails, because it would judge another value than the tool receives; other policies are
not affected. If the schema states no type, the value determines it: `5` is a long, `5.5` a decimal.

Checked keywords: type, enum, const, properties, required, additionalProperties, items, prefixItems, the bounds of
numbers and lengths, allOf, anyOf, oneOf, and `$ref` within the schema. Other keywords are left to the tool. In
particular, `pattern` is not checked, because a foreign schema could then choose a regular expression that a guard runs.
Defaults are not inserted.
"""

from ostiary.authorization.arguments.plain import MAX_DEPTH, BadArguments, Unrepresentable, plain, plain_record
from ostiary.authorization.arguments.schema import MAX_SCHEMA_DEPTH, MAX_SCHEMA_NODES, MAX_STEPS, Arguments

__all__ = [
    "MAX_DEPTH",
    "MAX_SCHEMA_DEPTH",
    "MAX_SCHEMA_NODES",
    "MAX_STEPS",
    "Arguments",
    "BadArguments",
    "Unrepresentable",
    "plain",
    "plain_record",
]
