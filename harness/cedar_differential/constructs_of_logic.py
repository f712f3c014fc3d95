"""Generated Cedar expressions with literals, booleans, equality, order, arithmetic and strings."""

from __future__ import annotations

from harness.cedar_differential.maker import (
    TYPES,
    Maker,
    Production,
    construct,
    escaped,
    literal_long,
    quoted,
)
from harness.cedar_differential.vocabulary import LONGS, STRINGS

# --- literals and variables -------------------------------------------------------------------------------------------


@construct("literal", "bool")
def _literal(make: Maker, depth: int) -> str:
    kind = make.random.choice(("bool", "bool", "long", "string", "entity", "set", "record"))
    if kind == "bool":
        return make.random.choice(("true", "false"))
    left = make.leaf(kind)
    return f"({left} == {make.same_again(kind, left, 0)})"


@construct("string escapes", "bool")
def _string_escapes(make: Maker, depth: int) -> str:
    text = make.random.choice(STRINGS)
    spelled = "".join(f"\\u{{{ord(char):x}}}" if make.chance(0.5) else escaped(char) for char in text)
    other = make.random.choice((quoted(text), quoted(make.random.choice(STRINGS)), make.path("string")))
    return f'("{spelled}" == {other})'


@construct("variable", "entity")
def _variable(make: Maker, depth: int) -> str:
    return make.random.choice(("principal", "action", "resource"))


@construct("context as a value", "bool")
def _context(make: Maker, depth: int) -> str:
    return make.random.choice(
        (
            "(context == context)",
            "({k: context}.k == context)",
            "[context].contains(context)",
            "(context == {})",
            "[context].contains(principal)",
        )
    )


# --- booleans ---------------------------------------------------------------------------------------------------------


@construct("!", "bool")
def _not(make: Maker, depth: int) -> str:
    return f"(!{make.make('bool', depth)})"


@construct("&&", "bool")
def _and(make: Maker, depth: int) -> str:
    return f"({make.make('bool', depth)} && {_second(make, depth)})"


@construct("||", "bool")
def _or(make: Maker, depth: int) -> str:
    return f"({make.make('bool', depth)} || {_second(make, depth)})"


def _second(make: Maker, depth: int) -> str:
    """Return the second operand of `&&` or `||`, sometimes of a wrong type: this is an error only if the operand is
    evaluated.
    """
    return make.make(make.random.choice(("long", "string", "record")) if make.chance(0.15) else "bool", depth)


@construct("chain", "bool")
def _chain(make: Maker, depth: int) -> str:
    """Return a chain of up to 89 operands, longer than the depth of parentheses that a naive translation could nest."""
    operator, usual = make.random.choice((("&&", "true"), ("||", "false")))
    parts = [make.leaf("bool") if make.chance(0.1) else usual for _ in range(make.random.randrange(3, 90))]
    return f"({f' {operator} '.join(parts)})"


@construct("deep nesting", "bool")
def _deep(make: Maker, depth: int) -> str:
    text = make.leaf("bool")
    for _ in range(make.random.randrange(20, 80)):
        text = make.random.choice(
            (f"!({text})", f"(true && {text})", f"(if {text} then {text[:0] or 'true'} else false)")
        )
    return text


@construct("if", "bool")
def _if(make: Maker, depth: int) -> str:
    return f"(if {make.make('bool', depth)} then {_second(make, depth)} else {_second(make, depth)})"


@construct("if giving a value", "long")
def _if_value(make: Maker, depth: int) -> str:
    return f"(if {make.make('bool', depth)} then {make.make('long', depth)} else {make.make('long', depth)})"


@construct("if giving a string", "string")
def _if_string(make: Maker, depth: int) -> str:
    return f"(if {make.make('bool', depth)} then {make.make('string', depth)} else {make.make('string', depth)})"


# --- equality and order -----------------------------------------------------------------------------------------------


def _equality(operator: str) -> Production:
    def production(make: Maker, depth: int) -> str:
        kind = make.random.choice(TYPES)
        left = make.make(kind, depth)
        return f"({left} {operator} {make.same_again(kind, left, depth)})"

    return production


construct("==", "bool")(_equality("=="))
construct("!=", "bool")(_equality("!="))


@construct("== across types", "bool")
def _equal_across(make: Maker, depth: int) -> str:
    left, right = make.random.choice(TYPES), make.random.choice(TYPES)
    return f"({make.leaf(left)} {make.random.choice(('==', '!='))} {make.leaf(right)})"


@construct("1 is not true", "bool")
def _one_and_true(make: Maker, depth: int) -> str:
    one, true = make.random.choice(
        (("1", "true"), ("0", "false"), ("{k: 1}", "{k: true}"), ("[0]", "[false]"), ("1", "1"))
    )
    forms = (
        "({} == {})",
        "([{}] == [{}])",
        "[{}].contains({})",
        "({{a: {}}} == {{a: {}}})",
        "([[{}]] != [[{}]])",
        "[{}].containsAny([{}, 7])",
        "[{}, 5].containsAll([{}])",
        "[{{a: {}}}].contains({{a: {}}})",
    )
    return make.random.choice(forms).format(one, true)


def _order(operator: str) -> Production:
    def production(make: Maker, depth: int) -> str:
        kind = make.random.choice(("long", "long", "datetime", "duration"))
        other = make.random.choice(("decimal", "string", "datetime", "duration")) if make.chance(0.04) else kind
        left = make.make(kind, depth)
        right = left if make.chance(0.15) else make.make(other, depth)
        return f"({left} {operator} {right})"

    return production


for _operator in ("<", "<=", ">", ">="):
    construct(_operator, "bool")(_order(_operator))


# --- arithmetic -------------------------------------------------------------------------------------------------------


def _arithmetic(operator: str) -> Production:
    def production(make: Maker, depth: int) -> str:
        return f"({make.make('long', depth)} {operator} {make.make('long', depth)})"

    return production


for _operator in ("+", "-", "*"):
    construct(_operator, "long")(_arithmetic(_operator))


@construct("unary -", "long")
def _negate(make: Maker, depth: int) -> str:
    return f"(-{make.make('long', depth)})"


@construct("overflow", "bool")
def _overflow(make: Maker, depth: int) -> str:
    big, small = make.random.choice(LONGS[-4:]), make.random.choice((0, 1, -1, 2, 3))
    operation = make.random.choice(("({} + {})", "({} - {})", "({} * {})", "(-(({}) + ({})))", "(-({}) - {})"))
    text = operation.format(f"({big})", f"({small})")
    return f"({text} {make.random.choice(('==', '<', '>', '!='))} {literal_long(make.random)})"


# --- strings ----------------------------------------------------------------------------------------------------------


@construct("like", "bool")
def _like(make: Maker, depth: int) -> str:
    text = make.random.choice(STRINGS)
    subject = make.make("string", depth) if make.chance(0.3) else quoted(text)
    return f'({subject} like "{_pattern(make, text)}")'


@construct("like, attribute", "bool")
def _like_attribute(make: Maker, depth: int) -> str:
    return f'({make.path("string")} like "{_pattern(make, make.random.choice(STRINGS))}")'


@construct("like, few letters", "bool")
def _like_few(make: Maker, depth: int) -> str:
    """Return a `like` test of a text over two letters with a pattern of its pieces, which overlap, repeat, or are in
    the wrong order.
    """
    text = "".join(make.random.choices("ab", k=make.random.randrange(1, 7)))
    starts = [make.random.randrange(len(text)) for _ in range(make.random.randrange(3))]
    middle = [text[start : start + make.random.randrange(1, 3)] for start in starts]
    first, last = text[: make.random.randrange(3)], text[len(text) - make.random.randrange(3) :]
    return f'({quoted(text)} like "{"*".join((first, *middle, last))}")'


def _pattern(make: Maker, text: str) -> str:
    """Return the text as a pattern in which some parts are replaced by wildcards, so that the pattern often matches.
    Stars of the text are escaped.
    """
    pattern, position = "", 0
    while position < len(text):
        if make.chance(0.3):
            pattern += "*"
            position += make.random.randrange(4)
            continue
        char = make.random.choice("ab*") if make.chance(0.06) else text[position]
        pattern += "\\*" if char == "*" else escaped(char)
        position += 1
    return pattern + make.random.choice(("", "", "*", "**"))
