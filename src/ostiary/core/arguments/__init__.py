"""The arguments of a tool as typed Cedar values, by the tool's JSON Schema (2020-12).

    integer -> long     number -> decimal     array -> set     object -> record     null -> absent

A number that does not fit its type (64 bits; four decimal places) is refused, since a policy would judge another number
than the tool gets. Where the schema is silent, the value speaks: `5` is a long, `5.5` a decimal.

Judged: type, enum, const, properties, required, additionalProperties, items, prefixItems, the bounds of numbers and
lengths, allOf, anyOf, oneOf, and `$ref` within the schema. Other keywords are the tool's own business: `pattern` above
all, since a schema from elsewhere would choose a regular expression that a guard runs. A default is not filled in.
"""

from ostiary.core.arguments.plain import MAX_DEPTH, BadArguments, plain
from ostiary.core.arguments.schema import MAX_SCHEMA_DEPTH, MAX_SCHEMA_NODES, MAX_STEPS, Arguments

__all__ = ["MAX_DEPTH", "MAX_SCHEMA_DEPTH", "MAX_SCHEMA_NODES", "MAX_STEPS", "Arguments", "BadArguments", "plain"]
