"""The arguments of a tool as typed Cedar values, by the tool's JSON Schema (2020-12).

    integer -> long     number -> decimal     array -> set     object -> record     null -> absent

A value that Cedar cannot hold (a number beyond 64 bits or four decimal places, deep nesting) stands as an Unusable: a
policy that reads it fails, since it would judge another value than the tool gets; no other policy is concerned. Where
the schema is silent, the value speaks: `5` is a long, `5.5` a decimal.

Judged: type, enum, const, properties, required, additionalProperties, items, prefixItems, the bounds of numbers and
lengths, allOf, anyOf, oneOf, and `$ref` within the schema. Other keywords are the tool's own business: `pattern` above
all, since a schema from elsewhere would choose a regular expression that a guard runs. A default is not filled in.
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
