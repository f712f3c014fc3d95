"""Generated Cedar expressions with decimal, ipaddr, datetime and duration, and with operators on values of a wrong
type.
"""

from __future__ import annotations

from harness.cedar_differential.maker import (
    CONSTRUCTORS,
    DECIMAL_METHODS,
    TYPES,
    Maker,
    Production,
    construct,
    quoted,
)
from harness.cedar_differential.vocabulary import TEXTS

# --- extension types --------------------------------------------------------------------------------------------------


def _constructor(kind: str) -> Production:
    """Return a production of constructor calls. The argument is a literal, which is known when the policy is compiled,
    or a text of the request.
    """
    function, texts = CONSTRUCTORS[kind]

    def production(make: Maker, depth: int) -> str:
        if make.chance(0.5):
            return f"{function}({quoted(TEXTS[texts](make.random))})"
        return f"{function}({make.make('string', depth) if make.chance(0.03) else make.path(texts)})"

    return production


def _parses(kind: str) -> Production:
    """Return a production of conditions that result in an error if the constructor does not accept a text, and
    otherwise in true or false.
    """
    function, texts = CONSTRUCTORS[kind]

    def production(make: Maker, depth: int) -> str:
        spelled = quoted(TEXTS[texts](make.random))
        other = quoted(TEXTS[texts](make.random)) if make.chance(0.7) else spelled
        return (
            f"(if {function}({spelled}) == {function}({other}) then true else {make.random.choice(('true', 'false'))})"
        )

    return production


for _kind, (_function, _) in CONSTRUCTORS.items():
    construct(f"{_function}()", _kind)(_constructor(_kind))
    construct(f"{_function}() of odd text", "bool")(_parses(_kind))


def _method(method: str, receiver: str, *arguments: str) -> Production:
    def production(make: Maker, depth: int) -> str:
        return f"{make.make(receiver, depth)}.{method}({', '.join(make.make(kind, depth) for kind in arguments)})"

    return production


for _name in DECIMAL_METHODS:
    construct(_name, "bool")(_method(_name, "decimal", "decimal"))
for _name in ("isIpv4", "isIpv6", "isLoopback", "isMulticast"):
    construct(_name, "bool")(_method(_name, "ip"))
construct("isInRange", "bool")(_method("isInRange", "ip", "ip"))
construct("offset", "datetime")(_method("offset", "datetime", "duration"))
construct("durationSince", "duration")(_method("durationSince", "datetime", "datetime"))
construct("toDate", "datetime")(_method("toDate", "datetime"))
construct("toTime", "duration")(_method("toTime", "datetime"))
for _name in ("toMilliseconds", "toSeconds", "toMinutes", "toHours", "toDays"):
    construct(_name, "long")(_method(_name, "duration"))


@construct("exact moments", "bool")
def _moments(make: Maker, depth: int) -> str:
    """Return a condition on time arithmetic to the millisecond, just before and after midnight and the epoch."""
    choose = make.random.choice
    ms = choose((0, 86_400_000, -86_400_000)) + choose((-1, 0, 1, 999, 1000, 59_999, 3_600_000))
    moment = f'datetime("1970-01-01").offset(duration("{ms}ms"))'
    day = choose(("1970-01-01", "1969-12-31", "1969-12-30", "1970-01-02"))

    def whole(unit: int) -> str:
        """Return the number of whole units, rounded down or up at random: an engine that rounds towards zero agrees
        with one of the two.
        """
        return f"({choose((ms // unit, -(-ms // unit)))})"

    return choose(
        (
            f'({moment}.toTime() == duration("{choose((ms % 86_400_000, abs(ms), 0))}ms"))',
            f"({moment}.toDate() == {moment})",
            f'({moment}.toDate() == datetime("{day}"))',
            f'({moment}.toDate() == datetime("{day}"))',
            f'({moment}.durationSince(datetime("1970-01-01")).toSeconds() == {whole(1000)})',
            f'(duration("{ms}ms").toMinutes() == {whole(60_000)})',
            f'(duration("{ms}ms").toHours() == {whole(3_600_000)})',
            f'(duration("{ms}ms").toDays() == {whole(86_400_000)})',
        )
    )


@construct("time zones", "bool")
def _zones(make: Maker, depth: int) -> str:
    """Return a comparison of a moment in a time zone with a shifted moment, with a right or a wrong sign. A zone with
    too large an offset is an error.
    """
    choose = make.random.choice
    sign, hours, minutes = choose("+-"), choose(("00", "01", "12", "23", "24")), choose(("00", "30", "59", "60"))
    there = f'datetime("2024-03-01T00:00:00{sign}{hours}{minutes}")'
    shift = f'duration("{choose(("-", ""))}{hours}h{minutes}m")'
    return f'({there} == datetime("2024-03-01").offset({shift}))'


@construct("special addresses", "bool")
def _special(make: Maker, depth: int) -> str:
    """Return a test of an address or network at a limit of the loopback or multicast ranges."""
    method, texts = make.random.choice(
        (
            (
                "isLoopback",
                (
                    "126.255.255.255",
                    "127.0.0.0",
                    "127.255.255.255",
                    "128.0.0.0",
                    "127.0.0.0/8",
                    "127.0.0.0/7",
                    "::1",
                    "::",
                    "::2",
                    "::1/127",
                    "::ffff:7f00:1",
                ),
            ),
            (
                "isMulticast",
                ("223.255.255.255", "224.0.0.0", "239.255.255.255", "240.0.0.0", "224.0.0.0/4", "224.0.0.0/3"),
            ),
            ("isMulticast", ("feff::", "ff00::", "ffff::1", "ff00::/8", "ff00::/7", "fe00::")),
        )
    )
    return f'ip("{make.random.choice(texts)}").{method}()'


@construct("address ranges", "bool")
def _ranges(make: Maker, depth: int) -> str:
    """Return an `isInRange` test of two networks, of which one contains the other or almost does; sometimes one is IPv4
    and the other IPv6.
    """
    high, prefix = make.random.randrange(4), make.random.choice((0, 22, 23, 24, 25, 32))
    low, longer = make.random.choice((high, high ^ 1, high ^ 2)), prefix + make.random.choice((-1, 0, 0, 1, 7))
    form = make.random.choice(("0.0.{}.0/{}", "0.0.{}.0/{}", "::{}00/{}"))
    inner = make.random.choice((form, form, "0.0.{}.0/{}", "::{}00/{}")).format(low, max(0, min(longer, 32)))
    return f'ip("{inner}").isInRange(ip("{form.format(high, prefix)}"))'


@construct("wrong type", "bool")
def _wrong_type(make: Maker, depth: int) -> str:
    """Return an operator on values of a wrong type, sometimes in a part of the expression that is not evaluated."""
    left, right = make.leaf(make.random.choice(TYPES)), make.leaf(make.random.choice(TYPES))
    wrong = (
        make.random.choice(
            (
                "({l} < {r})",
                "({l} <= {r})",
                "({l} > {r})",
                "({l} + {r} == 1)",
                "(-{l} == {r})",
                "(!{l})",
                "({l} && {r})",
                "({l} || {r})",
                "(if {l} then true else false)",
                '({l} like "*")',
                "({l} in {r})",
                "({l} is User)",
                "({l} has n)",
                "({l}.n == {r})",
                "{l}.hasTag({r})",
                "({l}.getTag({r}) == 1)",
                "{l}.contains({r})",
                "{l}.containsAll({r})",
                "{l}.containsAny({r})",
                "{l}.isEmpty()",
                "{l}.lessThan({r})",
                "{l}.isInRange({r})",
                "{l}.isIpv4()",
                "({l}.toTime() == {r})",
                "({l}.offset({r}) == {l})",
                "({l}.durationSince({r}) == {l})",
                "(ip({l}) == {r})",
                "(decimal({l}) == {r})",
                "(datetime({l}) == {r})",
                "(duration({l}) == {r})",
                "(ip() == {l})",
                "(decimal({l}, {r}) == {l})",
                "{l}.isInRange()",
                "{l}.lessThan({l}, {r})",
                "{l}.isIpv6({r})",
            )
        )
        .replace("{l}", left)
        .replace("{r}", right)
    )
    return make.random.choice(
        (f"{wrong}", f"(false && {wrong})", f"(true || {wrong})", f"(if true then true else {wrong})")
    )
