"""Policies of HashiCorp Vault in HCL, and their translation to Cedar ("Policies", "Policy syntax").

The policies of a token are merged, because only the most specific path of all of them applies to a request. This path
is the resource of the request in Cedar: each path is translated to a Cedar policy that permits the path's capabilities
on the resource. An action is a capability. The context of a request:

    action    the capability that the request needs
    wrap      the seconds of response wrapping, or 0
    given     the names of the parameters
    names     the names of the parameters in lower case
    values    the values of the parameters as text, by the name in lower case
    is_check  whether the rule's conditions on parameters and wrapping are ignored, as for `sys/capabilities`
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import NamedTuple

import msgspec

from ostiary.authorization.cedar import ir
from ostiary.authorization.cedar.compile import compile_set
from ostiary.authorization.cedar.values import Record, Uid
from ostiary.protocol import canonical
from ostiary.protocol.errors import Invalid, Malformed
from ostiaryd.secrets.model.hcl import Block, Value, parse_hcl
from ostiaryd.secrets.model.request import SECOND, parse_duration

MAX_RULES = 128
"""Maximum number of paths in one Vault policy."""
MAX_MERGED = 256
"""Maximum number of different paths in all Vault policies of one token."""
MAX_VALUES = 4096
"""Maximum number of parameters and their values in all policies of one token."""
MAX_PATTERN = 512
MAX_PARAMETERS = 64
MAX_PARAMETER_VALUES = 64
CAPABILITIES = frozenset({"create", "delete", "list", "patch", "read", "sudo", "update"})
DENY = "deny"
_OLD = {
    "deny": ("deny",),
    "read": ("read", "list"),
    "write": ("create", "read", "update", "delete", "list"),
    "sudo": ("create", "read", "update", "delete", "list", "sudo"),
}
_MEMBERS = frozenset(
    {
        "allowed_parameters",
        "capabilities",
        "comment",
        "denied_parameters",
        "max_wrapping_ttl",
        "min_wrapping_ttl",
        "policy",
        "required_parameters",
    }
)
_TEMPLATE = re.compile(r"\{\{([^{}]*)\}\}")
TEMPLATES = ("identity.entity.id", "identity.entity.name")
"""The templates that a path may contain: the id and the name of the agent."""

Parameters = Mapping[str, tuple[str, ...]]
"""The values that a rule allows or denies, by the name of the parameter in lower case (`*`: every parameter). Values
are as `render_value` writes them. An empty tuple stands for every value.
"""


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """The rule for a path, merged from one or more Vault policies. If a policy denies the path, `capabilities` contains
    only `deny`. `allowed`: the only parameters that a request may have, with their permitted values (empty: any
    parameter); `denied`: the parameters or values that it must not have; `required`: the parameters that it must have.
    `min_wrap_s`, `max_wrap_s`: limits of the requested wrapping time in seconds (0: no limit); a request without
    wrapping fails each of them.
    """

    path: str
    capabilities: frozenset[str]
    allowed: Parameters = {}
    denied: Parameters = {}
    required: tuple[str, ...] = ()
    min_wrap_s: int = 0
    max_wrap_s: int = 0

    @property
    def is_segmented(self) -> bool:
        """Return whether the path has a segment `+`, which stands for any one segment."""
        return self.path == "+" or "/+" in self.path or self.path.startswith("+/")

    @property
    def is_glob(self) -> bool:
        """Return whether the path ends with `*`, which stands for any text."""
        return self.path.endswith("*")

    @property
    def is_exact(self) -> bool:
        """Return whether the path of the rule has no wildcard, so that it matches one path only."""
        return not self.is_segmented and not self.is_glob

    @property
    def rank(self) -> tuple[int, bool, int, int, str]:
        """Return the rank of this rule's path. If the paths of two rules with wildcards match a request, the rule with
        the higher rank applies.
        """
        literal = self.path.removesuffix("*")
        first = self.path.index("+") if self.is_segmented else len(literal)
        wildcards = literal.split("/").count("+") if self.is_segmented else 0
        return first, not self.is_glob, -wildcards, len(literal), literal

    def matches(self, path: str) -> bool:
        """Return whether the path of the rule matches the path of a request. Only for a rule whose path has a wildcard
        (see `is_exact`).
        """
        literal = self.path.removesuffix("*")
        if not self.is_segmented:
            return path.startswith(literal)
        pattern = literal.split("/")
        segments = path.split("/", len(pattern) - 1 if self.is_glob else -1)
        if self.is_glob:
            segments[-1] = segments[-1][: len(pattern[-1])]
        return len(segments) == len(pattern) and all(
            one in ("+", segment) for one, segment in zip(pattern, segments, strict=True)
        )

    def meets(self, path: str) -> bool:
        """Return whether the path of the rule can match `path` or a path below it."""
        pattern, segments = self.path.removesuffix("*").split("/"), path.split("/")
        if self.is_glob and len(pattern) <= len(segments):
            place = len(pattern) - 1
            segments[place] = segments[place][: len(pattern[place])]
        elif len(pattern) < len(segments):
            return False
        return all(one in ("+", segment) for one, segment in zip(pattern, segments, strict=False))


def parse_policy(text: str, *, identity: Mapping[str, str] | None = None) -> list[Rule]:
    """Return the rules of a Vault policy in HCL or JSON. `identity`: the values of templates such as
    `{{identity.entity.name}}`; None leaves the templates in the paths.

    Raises Malformed if the text is no policy, Invalid for a rule that is not valid and for too many paths; the message
    names the line or the path.
    """
    rules: dict[str, Rule] = {}
    count = 0
    for block in parse_hcl(text):
        if block.key == "name" and not block.labels:
            continue
        if block.key != "path":
            raise Malformed(f"line {block.line}: invalid key {block.key[:64]!a}", hint="use `path` or `name`")
        count += 1
        if count > MAX_RULES:
            raise Invalid(f"a policy may have at most {MAX_RULES} paths", hint="use wildcards, or several policies")
        rule = _parse_rule(block, identity)
        rules[rule.path] = _merge(rules[rule.path], rule) if rule.path in rules else rule
    return list(rules.values())


def _parse_rule(block: Block, identity: Mapping[str, str] | None) -> Rule:
    if len(block.labels) != 1 or not isinstance(block.value, dict):
        raise Malformed(f'line {block.line}: a path is written `path "PATH" {{ .. }}`')
    shown, members = block.labels[0], block.value
    place = f"path {shown[:MAX_PATTERN]!a}"
    path = _fold(_fill_templates(shown, identity, place).removeprefix("/"))
    if len(path) > MAX_PATTERN or not path.isprintable():
        raise Invalid(f"{place}: a path must have at most {MAX_PATTERN} characters, all printable")
    if "+*" in path:
        raise Invalid(f"{place}: invalid use of wildcards ('+*' is forbidden)")
    if unknown := sorted(members.keys() - _MEMBERS):
        raise Invalid(f"{place}: invalid key {unknown[0][:64]!a}", hint=f"use {', '.join(sorted(_MEMBERS))}")
    wraps = {name: _parse_wrap(members.get(name), place, name) for name in ("min_wrapping_ttl", "max_wrapping_ttl")}
    if 0 < wraps["max_wrapping_ttl"] < wraps["min_wrapping_ttl"]:
        raise Invalid(f"{place}: max_wrapping_ttl cannot be less than min_wrapping_ttl")
    return Rule(
        path=path,
        capabilities=_parse_capabilities(members, place),
        allowed=_parse_parameters(members.get("allowed_parameters"), place, "allowed_parameters"),
        denied=_parse_parameters(members.get("denied_parameters"), place, "denied_parameters"),
        required=tuple(one.lower() for one in _texts(members, "required_parameters", place)),
        min_wrap_s=wraps["min_wrapping_ttl"],
        max_wrap_s=wraps["max_wrapping_ttl"],
    )


def _fold(path: str) -> str:
    """Return a path in the form in which paths are compared: names of Vault policies in lower case."""
    return path.lower() if path.startswith(("sys/policy/", "sys/policies/acl/")) else path


def _fill_templates(path: str, identity: Mapping[str, str] | None, place: str) -> str:
    def fill(match: re.Match[str]) -> str:
        name = match[1].strip()
        if name not in TEMPLATES:
            raise Invalid(f"{place}: unknown template {name[:64]!a}", hint=f"use {' or '.join(TEMPLATES)}")
        return match[0] if identity is None else identity[name]

    filled = _TEMPLATE.sub(fill, path)
    if identity is None and "{{" in _TEMPLATE.sub("", path):
        raise Invalid(f"{place}: a template has no end `}}}}`")
    return filled


def is_templated(text: str) -> bool:
    """Return whether the text of a policy may contain a template. Escapes in HCL can write the braces of a template."""
    return "{{" in text or "\\" in text


def _parse_capabilities(members: Mapping[str, Value], place: str) -> frozenset[str]:
    """Return the capabilities of a path; only `deny` if `deny` is one of them."""
    capabilities = _texts(members, "capabilities", place)
    if old := members.get("policy"):
        if not isinstance(old, str) or old not in _OLD:
            raise Invalid(f"{place}: invalid policy {str(old)[:64]!a}", hint=f"use {', '.join(_OLD)}")
        capabilities = [*([] if old == DENY else capabilities), *_OLD[old]]
    for one in capabilities:
        if one not in CAPABILITIES and one != DENY:
            hint = f"use {', '.join(sorted((*CAPABILITIES, DENY)))}"
            raise Invalid(f"{place}: invalid capability {one[:64]!a}", hint=hint)
    return frozenset({DENY} if DENY in capabilities else capabilities)


def _texts(members: Mapping[str, Value], member: str, place: str) -> list[str]:
    value = members.get(member, [])
    elements = [value] if isinstance(value, str) else value
    if not isinstance(elements, list) or len(elements) > MAX_PARAMETERS:
        raise Invalid(f"{place}: `{member}` must be a list of at most {MAX_PARAMETERS} texts")
    if not all(isinstance(one, str) for one in elements):
        raise Invalid(f"{place}: `{member}` must be a list of texts")
    return [str(one) for one in elements]


def _parse_parameters(value: Value | None, place: str, member: str) -> dict[str, tuple[str, ...]]:
    if value is None:
        return {}
    if not isinstance(value, dict) or len(value) > MAX_PARAMETERS:
        raise Invalid(f"{place}: `{member}` must be an object with at most {MAX_PARAMETERS} members")
    parameters = {}
    for name, values in value.items():
        if not isinstance(values, list) or len(values) > MAX_PARAMETER_VALUES:
            raise Invalid(
                f"{place}: each parameter in `{member}` must have a list of at most {MAX_PARAMETER_VALUES} values"
            )
        parameters[name.lower()] = tuple(render_value(one) for one in values)
    return parameters


def _parse_wrap(value: Value | None, place: str, member: str) -> int:
    try:
        return 0 if value is None else parse_duration(value, field=member) // SECOND
    except Invalid as refusal:
        raise Invalid(f"{place}: {refusal.message}", hint=refusal.hint) from None


def render_value(value: object) -> str:
    """Return the value of a parameter as text for comparisons. A value that is a text gets a colon at its beginning, so
    that the text `1` never equals the number 1.
    """
    if isinstance(value, str):
        return f":{value}"
    return canonical.encode(value, floats=True).decode()


def _merge(one: Rule, other: Rule) -> Rule:
    """Combine two rules for one path: `deny` outweighs all capabilities, other capabilities and values are united, and
    the shorter wrapping time applies.
    """
    if DENY in one.capabilities | other.capabilities:
        return Rule(path=one.path, capabilities=frozenset({DENY}))
    return Rule(
        path=one.path,
        capabilities=one.capabilities | other.capabilities,
        allowed=_join(one.allowed, other.allowed),
        denied=_join(one.denied, other.denied),
        required=tuple(dict.fromkeys((*one.required, *other.required))),
        min_wrap_s=min(filter(None, (one.min_wrap_s, other.min_wrap_s)), default=0),
        max_wrap_s=min(filter(None, (one.max_wrap_s, other.max_wrap_s)), default=0),
    )


def _join(one: Parameters, other: Parameters) -> Parameters:
    joined = dict(one)
    for name, values in other.items():
        present = joined.get(name)
        joined[name] = values if present is None else (*values, *present) if values and present else ()
    return joined


# --- decisions


class AclRequest(NamedTuple):
    """A request as Vault policies see it: the path below `/v1/`, the capability that it needs, and its parameters.
    `wrap_s`: the requested wrapping time in seconds; 0: none. `is_check`: the question is only whether the capability
    is permitted, regardless of parameters and wrapping.
    """

    path: str
    capability: str
    parameters: Mapping[str, object] = {}
    wrap_s: int = 0
    is_check: bool = False


class AccessList:
    """The compiled Vault policies of a token. The object never changes, so threads may share it."""

    def __init__(self, policies: Iterable[Sequence[Rule]]) -> None:
        """Merge and compile the rules of all policies of a token. Raises Invalid if the policies together have too many
        paths or values.
        """
        merged: dict[str, Rule] = {}
        for rules in policies:
            for rule in rules:
                merged[rule.path] = _merge(merged[rule.path], rule) if rule.path in merged else rule
        if len(merged) > MAX_MERGED:
            raise Invalid(f"the policies of a token must have at most {MAX_MERGED} paths together")
        parameters = [
            values for rule in merged.values() for one in (rule.allowed, rule.denied) for values in one.values()
        ]
        if sum(len(values) or 1 for values in parameters) > MAX_VALUES:
            raise Invalid(f"the policies of a token must have at most {MAX_VALUES} parameters and values together")
        self._exact = frozenset(rule.path for rule in merged.values() if rule.is_exact)
        wild = [rule for rule in merged.values() if not rule.is_exact]
        self._wild = sorted(wild, key=lambda rule: rule.rank, reverse=True)
        self._permitting = tuple(rule for rule in merged.values() if rule.capabilities - {DENY})
        self._compiled = compile_set(ir.PolicySetIR(tuple(map(_translate, self._permitting))))

    def permits(self, request: AclRequest) -> bool:
        """Return whether the policies permit a request. Raises Malformed if two of its parameters differ only in
        case.
        """
        context = _context_of(request)
        path = self._find_path(request.path, is_list=request.capability == "list" or request.is_check)
        return path is not None and self._is_permitted(path, request.capability, context)

    def find_capabilities(self, path: str) -> frozenset[str]:
        """Return the capabilities that the policies permit on a path, regardless of parameters; empty if no rule
        applies or the path is denied.
        """
        rule_path = self._find_path(path, is_list=True)
        if rule_path is None:
            return frozenset()
        requests = [AclRequest(path, one, is_check=True) for one in CAPABILITIES]
        return frozenset(
            one.capability for one in requests if self._is_permitted(rule_path, one.capability, _context_of(one))
        )

    def reaches(self, path: str) -> bool:
        """Return whether the policies may permit a capability at a path, or at any path below it."""
        return any(rule.meets(path) for rule in self._permitting)

    def _find_path(self, path: str, *, is_list: bool) -> str | None:
        """Return the path of the rule that applies to a request for `path`; None if no rule applies. A list is looked
        up with a slash at its end, and then without the slash.
        """
        path = _fold(path)
        paths = dict.fromkeys((path, path.removesuffix("/"))) if is_list else (path,)
        exact = (one for one in paths if one in self._exact)
        wild = (rule.path for one in paths for rule in self._wild if rule.matches(one))
        return next(chain(exact, wild), None)

    def _is_permitted(self, path: str, capability: str, context: Record) -> bool:
        action, resource = Uid("Action", capability), Uid("VaultPath", path)
        return self._compiled.decide(Uid("Agent", ""), action, resource, context, {}).allowed


def _translate(rule: Rule) -> ir.PolicyIR:
    return ir.PolicyIR(
        id=rule.path,
        effect="permit",
        action=ir.Scope(within=tuple(Uid("Action", one) for one in sorted(rule.capabilities))),
        resource=ir.Scope(equals=Uid("VaultPath", rule.path)),
        conditions=tuple(_conditions(rule)),
    )


def _context(name: str) -> ir.Expr:
    return ir.Get(ir.Var("context"), name)


def _texts_of(texts: Iterable[str]) -> ir.Expr:
    return ir.Set(tuple(ir.Lit(one) for one in texts))


def _conditions(rule: Rule) -> list[ir.Expr]:
    """Return the conditions of a rule on response wrapping and on parameters. A check of capabilities ignores these
    conditions.
    """
    conditions: list[ir.Expr] = []
    wrap = _context("wrap")
    if rule.max_wrap_s or rule.min_wrap_s:
        conditions.append(ir.Binary("greater", wrap, ir.Lit(0)))
        conditions.append(ir.Binary("greater_eq", wrap, ir.Lit(rule.min_wrap_s)))
    if rule.max_wrap_s:
        conditions.append(ir.Binary("less_eq", wrap, ir.Lit(rule.max_wrap_s)))
    names = _context("names")
    checks: list[ir.Expr] = []
    if rule.required:
        checks.append(ir.Binary("contains_all", _context("given"), _texts_of(rule.required)))
    if "*" in rule.denied:
        checks.append(ir.Unary("is_empty", names))
    for name, values in rule.denied.items():
        checks.append(ir.Unary("not", _has_value(name, values)))
    if rule.allowed and "*" not in rule.allowed:
        checks.append(ir.Binary("contains_all", _texts_of(rule.allowed), names))
    for name, values in rule.allowed.items():
        if values and name != "*":
            checks.append(ir.Binary("or", ir.Unary("not", _has(name)), _has_value(name, values)))
    without_parameters = ir.Binary(
        "or", ir.Binary("eq", _context("action"), ir.Lit("list")), ir.Binary("eq", _context("action"), ir.Lit("delete"))
    )
    conditions += [ir.Binary("or", without_parameters, check) for check in checks]
    return [ir.Binary("or", _context("is_check"), one) for one in conditions]


def _has(name: str) -> ir.Expr:
    return ir.Has(_context("values"), name)


def _has_value(name: str, values: Sequence[str]) -> ir.Expr:
    """Return the condition that the parameter `name` has one of these values."""
    if not values:
        return _has(name)
    globs = {one: pieces for one in values if (pieces := _glob_pieces(one)) is not None}
    plain = [one for one in values if one not in globs]
    value = ir.Get(_context("values"), name)
    tests: list[ir.Expr] = [ir.Binary("contains", _texts_of(plain), value)] if plain else []
    tests += [ir.Like(value, pieces) for pieces in globs.values()]
    return ir.Binary("and", _has(name), _any_of(tests))


def _any_of(tests: Sequence[ir.Expr]) -> ir.Expr:
    """Return the condition that at least one of the tests holds, with as little nesting as possible."""
    if len(tests) == 1:
        return tests[0]
    middle = len(tests) // 2
    return ir.Binary("or", _any_of(tests[:middle]), _any_of(tests[middle:]))


def _glob_pieces(value: str) -> tuple[str, ...] | None:
    """Return the texts between the wildcards `*` at the beginning and at the end of a value; None if the value has no
    wildcard or is only `*`.
    """
    text = value.removeprefix(":")
    if len(text) < 2 or not value.startswith(":") or not (text.startswith("*") or text.endswith("*")):
        return None
    start = (":",) if text.startswith("*") else ()
    end = ("",) if text.endswith("*") else ()
    inner = text.removeprefix("*").removesuffix("*")
    return (*start, inner if start else f":{inner}", *end)


def _context_of(request: AclRequest) -> Record:
    """Return the context in which a request is decided. Raises Malformed if two parameters differ only in case."""
    values: Record = {name.lower(): render_value(value) for name, value in request.parameters.items()}
    if len(values) != len(request.parameters):
        raise Malformed("two parameters differ only in upper and lower case")
    return {
        "action": request.capability,
        "wrap": request.wrap_s,
        "given": frozenset(request.parameters),
        "names": frozenset(values),
        "values": values,
        "is_check": request.is_check,
    }
