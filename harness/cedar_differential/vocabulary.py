"""The vocabulary of generated policies and requests: types, attributes, and spellings of values that sit on limits."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

LONGS = (0, 1, 2, 3, -1, -2, 7, 100, 2**31, -(2**31), 2**53 + 1, 2**62, 2**63 - 1, 2**63 - 2, -(2**63), -(2**63) + 1)
STRINGS = (
    "",
    "a",
    "b",
    "ab",
    "abc",
    "abcab",
    "aab",
    "a*b",
    "*",
    "**",
    "a\\*b",
    "naïve café",
    "nai\u0308ve",
    "日本語",
    "🙂x",
    "line\nbreak",
    'quote"',
    "back\\slash",
    "tab\t",
    "nul\0",
    "'",
    "x" * 40,
)

# Attributes of every entity and of the context, with their types. `text` types hold what a constructor may be fed with.
SCHEMA: dict[str, object] = {
    "n": "long",
    "m": "long",
    "s": "string",
    "t": "string",
    "b": "bool",
    "e": "entity",
    "ns": "set",
    "ss": "set",
    "es": "entities",
    "xs": "set",
    "none": "set",
    "d": "decimal",
    "ip": "ip",
    "at": "datetime",
    "span": "duration",
    "d_text": "decimal text",
    "ip_text": "ip text",
    "at_text": "datetime text",
    "span_text": "duration text",
    "two words": "long",
    "if": "bool",
    "ünï-cödé": "string",
    "": "long",
    "principal": "long",
    "__entit": "bool",
    "r": {
        "n": "long",
        "s": "string",
        "a-b": "long",
        "deep": {"b": "bool", "e": "entity", "deep": {"n": "long", "xs": "set"}},
    },
}


def paths(schema: dict[str, object], *, derefs: int) -> list[tuple[tuple[str, ...], str]]:
    """Return every path of attributes with the type of its value. A path follows at most `derefs` references to
    entities.
    """
    found: list[tuple[tuple[str, ...], str]] = []
    for name, kind in schema.items():
        if isinstance(kind, dict):
            found.append(((name,), "record"))
            found += [((name, *rest), end) for rest, end in paths(kind, derefs=derefs)]
        else:
            found.append(((name,), str(kind)))
            if kind == "entity" and derefs:
                found += [((name, *rest), end) for rest, end in paths(SCHEMA, derefs=derefs - 1)]
    return found


PATHS: dict[str, list[tuple[str, ...]]] = {}
for _path, _kind in paths(SCHEMA, derefs=1):
    PATHS.setdefault(_kind, []).append(_path)

DAY = 86_400_000


def decimal_text(random: Random) -> str:
    edges = (
        "922337203685477.5807",
        "-922337203685477.5808",
        "922337203685477.5808",
        "-922337203685477.5809",
        "922337203685478.0",
        "0.0",
        "-0.0",
        "00.10",
        "1.",
        ".5",
        "1",
        "1.23456",
        "+1.0",
        " 1.0",
        "1.0\n",
        "1.-5",
        "-1.5",
        "１.０",
        "0" * 30 + "1.5",
        "9" * 30 + ".0",
        "1.0000",
        "1e3.0",
        "--1.0",
        "-.5",
        "0.00010",
    )
    number = f"{random.randrange(-3, 4)}.{random.choice(('0', '5', '25', '50', '001', '0000', '9999'))}"
    return _or_edge(random, number, edges)


def ip_text(random: Random) -> str:
    edges = (
        "127.0.0.1",
        "127.255.0.0/8",
        "127.0.0.0/7",
        "::1",
        "::1/127",
        "224.0.0.1",
        "224.0.0.0/3",
        "239.255.255.255/4",
        "240.0.0.0",
        "ff00::/8",
        "ff00::/7",
        "fe00::",
        "0.0.0.0/0",
        "::/0",
        "10.0.0.0/33",
        "::/129",
        "10.0.0.01",
        "10.0.0.0/08",
        "10.0.0",
        "10.0.0.0.0",
        "256.0.0.1",
        "::ffff:127.0.0.1",
        "1:2:3:4:5:6:7:8",
        "1:2:3:4:5:6:7::",
        "1:2:3:4:5:6:7:8:9",
        "1::2::3",
        "12345::",
        "::1%lo",
        "/8",
        "10.0.0.0/",
        "10.0.0.0/8/8",
        "10.0.0.0/ 8",
        "",
        "ABCD::ef01",
        "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128",
        "10.0.0.0/+8",
        "::/00",
        "0:0:0:0:0:0:0:1",
        ":",
        ":::",
        "1:2:3:4:5:6:7:8::",
        "::1:2:3:4:5:6:7:8",
        "10.0.0.0/032",
        "::10.0.0.1",
        "1::",
        "::0001",
        "::00001",
        "0001:0002:0003:0004:0005:0006:0007:0008/128",
        "00001:0002:0003:0004:0005:0006:0007:0008/128",
    )
    if random.random() < 0.6:
        address = f"10.{random.choice((0, 1, 128))}.{random.choice((0, 3, 255))}.{random.choice((0, 1, 255))}"
        prefix = random.choice(("", "/8", "/9", "/16", "/24", "/31", "/32"))
    else:
        address = random.choice(("2001:db8::", "2001:db8::1", "2001:db8:0:1::", "2001:db9::", "::1", "ff02::1"))
        prefix = random.choice(("", "/16", "/31", "/32", "/64", "/127", "/128"))
    return _or_edge(random, address + prefix, edges)


def datetime_text(random: Random) -> str:
    edges = (
        "0000-01-01",
        "0000-02-29",
        "0000-12-31",
        "0001-01-01",
        "9999-12-31T23:59:59.999Z",
        "9999-12-31T23:59:59.999-2359",
        "0000-01-01T00:00:00+2359",
        "2024-02-29",
        "2023-02-29",
        "1900-02-29",
        "2000-02-29",
        "2024-02-30",
        "2024-13-01",
        "2024-00-01",
        "2024-01-00",
        "2024-04-31",
        "2024-01-01T24:00:00Z",
        "2024-01-01T23:60:00Z",
        "2024-01-01T23:59:60Z",
        "2024-01-01T00:00:00",
        "2024-01-01T00:00:00.5Z",
        "2024-01-01T00:00:00.5000Z",
        "2024-1-1",
        "2024-01-01t00:00:00Z",
        "2024-01-01T00:00:00z",
        "2024-01-01T00:00:00+2400",
        "2024-01-01T00:00:00+0060",
        "2024-01-01T00:00:00+01:00",
        "2024-01-01T00:00Z",
        "2024-01-01 00:00:00Z",
        "-2024-01-01",
        "+2024-01-01",
        "24-01-01",
        "2024-01-01\n",
        "",
        "２024-01-01",
        "2024-01-01T",
        "2024-01-01Z",
        "2024-01-01T00:00:00.000",
        "2024-01-01T00:00:00.000+0000Z",
        "1969-12-31T23:59:59.999Z",
        "1970-01-01T00:00:00-0001",
        "2024-12-31T23:59:60.000Z",
        "2100-02-29",
        "2100-03-01",
    )
    text = f"{random.choice(('1969', '1970', '2024', '2025'))}-{random.choice(('01-01', '02-28', '03-01', '12-31'))}"
    if random.random() < 0.7:
        text += f"T{random.choice(('00:00:00', '12:34:56', '23:59:59'))}{random.choice(('', '.000', '.001', '.999'))}"
        text += random.choice(("Z", "Z", "+0000", "-0000", "+0130", "-2359", "+2359"))
    return _or_edge(random, text, edges)


def duration_text(random: Random) -> str:
    edges = (
        "9223372036854775807ms",
        "9223372036854775808ms",
        "-9223372036854775808ms",
        "-9223372036854775809ms",
        "106751991167d7h12m55s807ms",
        "106751991167d7h12m55s808ms",
        "-106751991167d7h12m55s808ms",
        "106751991168d",
        "",
        "-",
        "5",
        "ms",
        "1h1d",
        "1m1h",
        "1d1d",
        "1.5h",
        " 1h",
        "1h ",
        "+1h",
        "--1h",
        "-0ms",
        "1H",
        "1h\n",
        "１h",
        "0" * 30 + "1ms",
        "9" * 30 + "s",
        "18446744073709551616ms",
        "1ms1s",
        "1d2h3m4s5ms",
        "5m5ms",
        "1d-2h",
        "1w",
    )
    parts = [f"{random.choice((0, 1, 2, 25, 59, 61, 90, 1000))}{unit}" for unit in ("d", "h", "m", "s", "ms")]
    text = "".join(part for part in parts if random.random() < 0.4) or "1s"
    return _or_edge(random, random.choice(("", "", "-")) + text, edges)


def _or_edge(random: Random, usual: str, edges: tuple[str, ...]) -> str:
    """Return a usual value in most cases, sometimes a value at a limit, and rarely a usual value with one changed
    character.
    """
    dice = random.random()
    if dice < 0.72:
        return usual
    if dice < 0.92:
        return random.choice(edges)
    at = random.randrange(len(usual))
    return usual[:at] + random.choice(("", "0", "1", "9", "-", ".", ":", "/", "Z", "d", "T", " ")) + usual[at + 1 :]


TEXTS: dict[str, Callable[[Random], str]] = {
    "decimal text": decimal_text,
    "ip text": ip_text,
    "datetime text": datetime_text,
    "duration text": duration_text,
}
