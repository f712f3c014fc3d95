"""Faults that the differential run must find. Each fault replaces one text in one module of our engine."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fault:
    name: str
    module: str  # under ostiary.authorization.cedar, or "lower"
    find: str  # occurs once
    replace: str


FAULTS = (
    Fault("less takes equals", "operators", "return left < right\n", "return left <= right\n"),
    Fault("less or equal does not", "operators", "return left <= right\n", "return left < right\n"),
    Fault("greater is not turned round", "operators", "return less(right, left)", "return less(left, right)"),
    Fault("moments are not ordered", "operators", "return left.ms < right.ms", "return left.ms <= right.ms"),
    Fault(
        "a long is one bit wider",
        "operators",
        "if LONG_MIN <= value <= LONG_MAX:",
        "if LONG_MIN <= value <= LONG_MAX + 1:",
    ),
    Fault(
        "the least long is refused",
        "operators",
        "if LONG_MIN <= value <= LONG_MAX:",
        "if LONG_MIN < value <= LONG_MAX:",
    ),
    Fault(
        "true counts as 1",
        "operators",
        "if type(left) is not type(right):\n        extensions.check_usable(left, right)\n        return False",
        "if False:\n        return False",
    ),
    Fault("records are compared as Python does", "operators", "return key(left) == key(right)", "return left == right"),
    Fault(
        "true and 1 are one element",
        "values",
        "if value is True:\n        return _TRUE",
        "if value is True:\n        return 1",
    ),
    Fault(
        "a record is the set of its fields",
        "values",
        "return (frozenset((name, key(item)) for name, item in value.items()),)",
        "return frozenset(value)",
    ),
    Fault(
        "the second side of && is not checked",
        "generate",
        'return code if kind == "bool" else f"boolean({code})"',
        "return code",
    ),
    Fault(
        "a condition may be anything",
        "operators",
        'if value is True or value is False:\n        return value\n    _wrong("a condition", value)',
        "return bool(value)",
    ),
    Fault("|| is &&", "generate", "f' {node.op} '.join(parts)", "' and '.join(parts)"),
    Fault(
        "a chain is turned round", "generate", "open_ += (part.right, part.left)", "open_ += (part.left, part.right)"
    ),
    Fault(
        "the branches of if are exchanged",
        "generate",
        'f"({then} if {self.boolean',
        'f"({otherwise} if not {self.boolean',
    ),
    Fault(
        "a bad constant is an error at once",
        "generate",
        "except EvaluationError:\n                return False, None",
        "except ZeroDivisionError:\n                return False, None",
    ),
    Fault(
        "== trusts one side to be a string",
        "generate",
        'isdisjoint({"string", "entity"',
        'isdisjoint({"long", "string", "entity"',
    ),
    Fault(
        "in does not look into the set",
        "operators",
        'raise EvaluationError("the operator `in` accepts a set only if all its elements are entities")',
        "pass",
    ),
    Fault(
        "in looks at itself alone",
        "operators",
        "return descendant in ancestors if entity is None else not entity.lineage.isdisjoint(ancestors)",
        "return descendant in ancestors",
    ),
    Fault(
        "an entity is not in itself",
        "values",
        "return Entity(uid, attrs, frozenset((uid, *ancestors)), tags)",
        "return Entity(uid, attrs, frozenset(ancestors), tags)",
    ),
    Fault(
        "parents count, grandparents do not",
        "values",
        "frozenset(ups).union(*(closed[up] for up in ups))",
        "frozenset(ups)",
    ),
    Fault("is forgets its in", "generate", "and is_in(t{depth}, {self.value(node.within, depth)}, E))", ")"),
    Fault(
        "is looks at the last part of the type",
        "operators",
        "return base.type == name",
        'return base.type.split("::")[-1] == name.split("::")[-1]',
    ),
    Fault(
        "has fails on what is missing",
        "operators",
        "return entity is not None and name in entity.attrs",
        "if entity is None:\n            raise EvaluationError('none')\n        return name in entity.attrs",
    ),
    Fault(
        "a missing attribute is false",
        "compile",
        "except (EvaluationError, KeyError) as error:",
        "except KeyError:\n                pass\n            except EvaluationError as error:",
    ),
    Fault("like forgets that the ends may overlap", "operators", "if position > end or not", "if not"),
    Fault(
        "like looks for its pieces anywhere",
        "operators",
        "at = text.find(piece, position, end)",
        "at = text.find(piece)",
    ),
    Fault(
        "an escaped star is a wildcard",
        "lower",
        'if element == "Wildcard":',
        'if element == "Wildcard" or element["Literal"] == "*":',
    ),
    Fault(
        "containsAll is turned round",
        "operators",
        '_as_set("containsAll", left) >= _as_set',
        '_as_set("containsAll", left) <= _as_set',
    ),
    Fault(
        "containsAny wants all",
        "operators",
        'return not _as_set("containsAny", left).isdisjoint(',
        'return _as_set("containsAny", left).issuperset(',
    ),
    Fault(
        "hasTag sees attributes",
        "operators",
        "return entity is not None and name in entity.tags",
        "return entity is not None and name in entity.attrs",
    ),
    Fault("five digits behind the point", "extensions", r"\.([0-9]{1,4})", r"\.([0-9]{1,5})"),
    Fault(
        "the fraction of a negative decimal is added",
        "extensions",
        "Decimal(_i64(-units if sign else units",
        "Decimal(_i64(units - 2 * int(whole) * 10_000 if sign else units",
    ),
    Fault(
        "decimals may end in a line break",
        "extensions",
        '_DECIMAL.fullmatch(_string(text, "decimal"))',
        '_DECIMAL.match(_string(text, "decimal"))',
    ),
    Fault("a range holds its host bits loosely", "extensions", " and inner.prefix >= outer.prefix", ""),
    Fault("IPv4 is in IPv6", "extensions", "inner.bits == outer.bits and ", ""),
    Fault("loopback is one address", "extensions", "32: Ip(32, 127 << 24, 8)", "32: Ip(32, (127 << 24) + 1, 32)"),
    Fault("multicast is one bit too wide", "extensions", "Ip(32, 224 << 24, 4)", "Ip(32, 224 << 24, 3)"),
    Fault("a prefix may begin with zero", "extensions", "0|[1-9][0-9]{0,2}", "[0-9]{1,3}"),
    Fault(
        "every fourth year is a leap year",
        "extensions",
        "year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)",
        "year % 4 == 0",
    ),
    Fault("offsets are added", "extensions", "return Datetime(local - offset)", "return Datetime(local + offset)"),
    Fault("a minute may have 61 seconds", "extensions", "second > 59", "second > 60"),
    Fault("the zone may be 24 hours away", "extensions", "offset_hour > 23", "offset_hour > 24"),
    Fault(
        "units are rounded down",
        "extensions",
        "return length.ms // unit if length.ms >= 0 else -(-length.ms // unit)",
        "return length.ms // unit",
    ),
    Fault("the date is cut towards zero", "extensions", "moment.ms - moment.ms % _DAY", "int(moment.ms / _DAY) * _DAY"),
    Fault(
        "the empty duration is none at all",
        "extensions",
        "if match is None or not any(match.groups()[1:]):",
        "if match is None:",
    ),
    Fault(
        "durations are not bounded",
        "extensions",
        'Duration(_i64(-ms if sign else ms, "duration"))',
        "Duration(-ms if sign else ms)",
    ),
    Fault("unless is when", "lower", 'return ir.Unary("not", _expression(body))', "return _expression(body)"),
    Fault(
        "is in takes the type alone",
        "lower",
        "ir.Scope(type=kind, within=(_uid(entity),))",
        "ir.Scope(type=kind)",
    ),
    Fault(
        "namespaces are lost",
        "lower",
        'return Uid(uid["type"], uid["id"])',
        'return Uid(uid["type"].rpartition("::")[2], uid["id"])',
    ),
    Fault(
        "a forbid does not override", "compile", "allowed = bool(permits) and not forbids", "allowed = bool(permits)"
    ),
    Fault(
        "permits are given as reasons of a denial",
        "compile",
        "reasons = forbids or permits",
        "reasons = permits or forbids",
    ),
    Fault("action groups are not looked up", "compile", "if len(action.lineage) == 1:", "if True:"),
    Fault(
        "a policy is counted once for each group",
        "compile",
        "return list({policy.id: policy for policy in candidates}.values())",
        "return candidates",
    ),
    Fault(
        "== in a scope takes descendants",
        "compile",
        'table = side.within if part == "within" else side.exact',
        'table = side.exact if part == "type" else side.within',
    ),
    Fault(
        "the index forgets the rest of the scope",
        "compile",
        "return (name, part, key), list(scope.items())",
        "return (name, part, key), []",
    ),
    Fault(
        "a deep part loses its operands",
        "generate",
        "self.functions.append((name, code))",
        "self.functions.append((name, 'True'))",
    ),
    Fault(
        "constants are shared by shape",
        "generate",
        "return _maker(source)(*constants)",
        "return _NAMESPACE.setdefault(source, _maker(source)(*constants))",
    ),
)
