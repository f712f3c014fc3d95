"""Links and mail addresses: their normal forms (RFC 3986 section 6.2, RFC 5321 section 2.4), and their encodings.

Links are read as browsers read them (WHATWG URL, section 4.4): a scheme that browsers know needs no slashes, a
backslash is a slash, and tabs and line ends within a link are ignored.

Two links are equal if they differ only in case of scheme and host, the default port, or a last slash. Another host,
path, query or fragment makes another link. A link that cannot be parsed keeps its spelling, and so equals only itself.
"""

from __future__ import annotations

import base64
import binascii
import html
import re
import unicodedata
from collections.abc import Iterable, Iterator
from itertools import chain
from urllib.parse import unquote, urlsplit

_DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443, "ftp": 21}
_END = ".,;:!?)\"'*_~…"
_SIGN = re.compile(r"[.:\\]|//")
"""a sign that each link has before its last character"""
_ESCAPED = re.compile(r"%([0-9A-Fa-f]{2})")
_HOST = r"[^\s\"'`´<>()\[\]{},;:|@/\\!?=…“”„«»]"
MAIL = re.compile(rf"[^\s\"'`´<>()\[\]{{}},;:|@\\=“”„«»]+@{_HOST}+\.{_HOST}*[^\W_]", re.IGNORECASE)
_COMMON = (
    "com|net|org|info|biz|edu|gov|mil|int|app|dev|xyz|site|online|shop|store|club|top|cloud|tech|link|live|page|website"
    "|space|world|email|news|blog|click|pro|name|mobi"
)
_FOUND = re.compile(
    rf"""(?:https?|wss?|ftp|file):[/\\]*[^\s"'`<>|{{}}^“”„«»/\\][^\s"'`<>|{{}}^“”„«»]*
    | [a-z][a-z0-9+.-]{{0,30}}://[^\s"'`<>|{{}}\\^“”„«»]*
    | mailto:[^\s"'`<>|{{}}^]+
    | (?<![\w:/\\])[/\\]{{2}}[^\s"'`<>|{{}}^/\\][^\s"'`<>|{{}}^]*
    | (?<![\w@.-])(?:www\.[\w-]|(?:\w[\w-]*\.)+(?:{_COMMON}|[a-z]{{2}}|xn--[\w-]+|[^\W\d_a-z]{{2,}})(?![\w-])
        |\d+\.\d+\.\d+\.\d+(?=[:/]))
      [^\s"'`<>|{{}}^]*""",
    re.IGNORECASE | re.VERBOSE,
)
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|x([0-9a-fA-F]{2})|([0-3][0-7]{2}))")
_SPECIAL = re.compile(r"(https?|wss?|ftp|file):[/\\]*", re.IGNORECASE)
_BROKEN = re.compile(
    r"(?:h[\t\r\n]*t[\t\r\n]*t[\t\r\n]*p[\t\r\n]*s?|w[\t\r\n]*s[\t\r\n]*s?|f[\t\r\n]*t[\t\r\n]*p)[\t\r\n]*:"
    r"[\t\r\n/\\]*[^\s\"'`<>]+",
    re.IGNORECASE,
)
"""a link with tabs or line ends inside, which browsers ignore (WHATWG URL, section 4.4)"""
_B64 = re.compile(r"(?<![A-Za-z0-9+/_-])[A-Za-z0-9+/_-]{12,}={0,2}")
_B64_LINES = re.compile(
    r"(?<![A-Za-z0-9+/_-])(?:(?!--)[A-Za-z0-9+/_-]{12,}+\r?\n[ \t]*+)++(?!--)[A-Za-z0-9+/_-]*+={0,2}"
)
"""base64 that is broken into lines, as in mails (RFC 2045, section 6.8)"""
MIN_ENCODED = 12
_HEX = re.compile(r"(?<![0-9A-Za-z])(?:0x|\\x)?((?:[0-9A-Fa-f]{2}){8,})(?![0-9A-Za-z])")
_DEFANGED = re.compile(r"[\[({]\s*(?:\.|[Dd][Oo][Tt])\s*[\])}]")
"""brackets around a dot, without the space around them: a search for `_DOT` in each text would not be linear"""
_DOT = re.compile(r"\s*[\[({]\s*(?:\.|dot)\s*[\])}]\s*", re.IGNORECASE)
_HXXP = re.compile(r"\bhxxp", re.IGNORECASE)
_EVEN = re.compile(r"(?:[\w+/-]{0,11}+[\n\r\t !-$')*,.:-@\]^`|}~]++)*+[\w+/-]{0,11}+", re.ASCII)
"""matches text without encoded parts: printable ASCII without escapes, in which no word is long enough to be encoded"""
_PLAIN = re.compile(r"https?://[a-z0-9.-]+(?:/[A-Za-z0-9._~/-]*)?")
"""a link in its normal form, except for a possible last slash"""
_BARE_MAIL = re.compile(r"[A-Za-z0-9_+-]+@(?:[A-Za-z0-9][A-Za-z0-9-]*\.)+[A-Za-z]{2,}")
"""text that is one mail address and contains nothing else"""
_PAGE = re.compile(
    r"(?:https?://)?(?:[a-z0-9-]+\.)+(?!(?:local|localhost|internal|intranet|lan|home|corp|private)\b)[a-z]{2,}"
    r"(?:/[\w./~-]*)?",
    re.ASCII,
)
_NO_BREAKS = str.maketrans("", "", "\t\r\n")
_DEVIATIONS = frozenset("ßς\u200c\u200d")
"""characters that IDNA 2003 and IDNA 2008 treat differently (UTS 46, section 2.3)"""
DEPTH = 3
MAX_READINGS = 64
MAX_UNCLEAR = 64
"""maximum number of characters that stand for a text that cannot be decoded as a whole"""
MAX_DECODED = 1 << 18
"""maximum number of characters of all readings of a text together"""


def link(text: str) -> str:
    """Return the normal form of a link that has a scheme."""
    text = text.rstrip(_END)
    if _PLAIN.fullmatch(text):
        return text.rstrip("/")
    scheme, _, rest = text.partition("://")
    scheme = scheme.lower()
    try:
        parts = urlsplit(f"{scheme}://{rest}")
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return f"{scheme}://{rest}"
    if not host or any(mark in parts.netloc for mark in "@\\%"):
        return f"{scheme}://{rest}"
    place = _host(host) if ":" not in host else f"[{host}]"
    if port is not None and port != _DEFAULT_PORTS.get(scheme):
        place += f":{port}"
    path = _ESCAPED.sub(_unescaped, parts.path).rstrip("/")
    return f"{scheme}://{place}{path}{rest[len(parts.netloc) + len(parts.path) :]}"


def mail(text: str) -> str:
    """Return the normal form of a mail address."""
    local, _, host = text.rpartition("@")
    return f"{local.lower()}@{_host(host.rstrip('.'))}"


def _host(text: str) -> str:
    """Return the normal form of a host name; an international name in ASCII (RFC 5890).

    A name with a letter that IDNA 2008 keeps and IDNA 2003 replaced (`ß` and `ss`) is left as it is: two hosts.
    """
    text = text.lower()
    if text.isascii() or not _DEVIATIONS.isdisjoint(text):
        return text
    try:
        return text.encode("idna").decode("ascii")
    except UnicodeError:
        return text


def _unescaped(match: re.Match[str]) -> str:
    one = chr(int(match[1], 16))
    return one if one.isascii() and (one.isalnum() or one in "-._~") else match[0].upper()


def links(text: str, decoded: Decoded | None = None) -> set[str]:
    """Return the links and mail addresses in a text, in normal form, including encoded ones that a reader could decode.
    If the text has more encoded parts than `decode` decodes, its first MAX_UNCLEAR characters count as a link too.
    """
    forms, is_whole = decode(text) if decoded is None else decoded[text]
    collected: set[str] = set() if is_whole else {text[:MAX_UNCLEAR]}
    for reading in forms:
        if ":" in reading and ("\n" in reading or "\t" in reading or "\r" in reading):
            for match in _BROKEN.finditer(reading):
                whole = match[0].translate(_NO_BREAKS)
                if whole != match[0]:
                    collected.add(_bare(whole))
        if not _SIGN.search(reading.rstrip(_END)):
            continue
        for run in [run for run in reading.split() if not run.isalpha()]:
            bare = run.rstrip(_END)
            if not _SIGN.search(bare):
                continue
            if _PLAIN.fullmatch(bare):
                collected.add(bare.rstrip("/"))
            elif "@" in bare and _BARE_MAIL.fullmatch(bare):
                collected.add(bare.lower())
            else:
                collected.update(_bare(match[0]) for match in _FOUND.finditer(run))
                if "@" in run:
                    collected.update(mail(match[0]) for match in MAIL.finditer(run))
    return collected


def _bare(text: str) -> str:
    """Return the normal form of a link, with or without a scheme, or of a `mailto:` address."""
    if text[:7].lower() == "mailto:":
        return mail(text[7:].partition("?")[0].rstrip(_END)) if "?" not in text else text.lower()
    if (special := _SPECIAL.match(text)) is not None:
        place, mark, rest = re.split(r"([?#])", text[special.end() :] + "?", maxsplit=1)
        return link(f"{special[1]}://{place.replace(chr(92), '/')}{(mark + rest)[:-1]}")
    if "://" in text and text[:1] not in "/\\":
        return link(text)
    return link(f"https://{text.lstrip('/' + chr(92))}")


def is_page(word: str) -> bool:
    """Return whether a word is a link to a web page: no query, no port, no numeric address, no internal host."""
    return _PAGE.fullmatch(word) is not None


def spellings(one: str) -> Iterator[str]:
    """Yield the forms of a link that count as equal in a source: the link itself and, for a link with `https`, the link
    with `http` and without a scheme.
    """
    yield one
    if one.startswith("https://"):
        yield f"http://{one[8:]}"
        yield one[8:]


def is_odd(text: str) -> bool:
    """Return whether a text may contain encoded parts, so that `decode` must be called."""
    return _EVEN.fullmatch(text) is None or "xxp" in text.lower()


def decode(text: str) -> tuple[list[str], bool]:
    """Return the text and its decoded forms, also nested: compatible letters, HTML, percent, base64, hexadecimal
    and others. The second value is false if there are more forms than MAX_READINGS or MAX_DECODED permit, or if the
    text is encoded more than DEPTH times.
    """
    if not is_odd(text):
        return [text], True
    forms = {text: None}
    decoded_once: dict[str, list[str]] = {}
    parts: dict[str, list[str]] = {}
    room, is_whole = MAX_DECODED, True
    for is_at_once in (True, False):
        collected, todo = {text}, [(text, 0)]
        while todo:
            reading, depth = todo.pop()
            if depth == DEPTH and not is_at_once:
                continue
            if reading not in parts:
                parts[reading] = _decoded_parts(reading)
                decoded_once[reading] = [decoded_kind(reading) for decoded_kind in _KINDS]
            once = decoded_once[reading]
            for decoded in chain((_decoded_at_once(reading, once),) if is_at_once else once, parts[reading]):
                if decoded in collected:
                    continue
                if depth == DEPTH:
                    is_whole = False
                    break
                collected.add(decoded)
                if decoded not in forms:
                    if len(forms) >= MAX_READINGS:
                        return [*forms], False
                    if len(decoded) > room:
                        is_whole = False
                        continue
                    room -= len(decoded)
                    forms[decoded] = None
                todo.append((decoded, depth + 1))
    return [*forms], is_whole


class Decoded(dict[str, tuple[list[str], bool]]):
    """Cache of the results of `decode` for the texts of one call or one output."""

    __slots__ = ()

    def __missing__(self, text: str) -> tuple[list[str], bool]:
        forms = self[text] = decode(text)
        return forms


def readings(text: str, decoded: Decoded | None = None) -> list[str]:
    """Return the text and all its decoded forms, which `decode` finds."""
    return (decode(text) if decoded is None else decoded[text])[0]


def _decoded_at_once(text: str, once: Iterable[str]) -> str:
    """Return the text with the encodings of all kinds decoded once, one kind after the other. So a text with a link, an
    entity and an ellipsis is encoded once, and not three times. `once`: the text with those of one kind decoded, for
    each kind.
    """
    at_once = text
    for decoded_kind, decoded in zip(_KINDS, once, strict=True):
        at_once = decoded if at_once is text else decoded_kind(at_once)
    return at_once


def _decoded_letters(text: str) -> str:
    return plainest(text) if not text.isascii() or "\xad" in text else text


def _decoded_html(text: str) -> str:
    return html.unescape(text) if "&" in text and ";" in text else text


def _decoded_percent(text: str) -> str:
    return unquote(text) if "%" in text else text


def _decoded_dots(text: str) -> str:
    if "xxp" in text.lower():
        text = _HXXP.sub("http", text)
    has_bracket = "[" in text or "(" in text or "{" in text
    return _DOT.sub(".", text) if has_bracket and _DEFANGED.search(text) else text


def _decoded_escapes(text: str) -> str:
    if "\\" in text:
        return _ESCAPE.sub(lambda m: chr(int(m[3], 8) if m[3] else int(m[1] or m[2], 16)), text)
    return text


_KINDS = (_decoded_letters, _decoded_html, _decoded_percent, _decoded_dots, _decoded_escapes)
"""decoders of encodings of a whole text, each of one kind; each returns the text itself if it has none of that kind"""


def _decoded_parts(text: str) -> list[str]:
    """Return the decoded parts of a text in base64 and in hexadecimal, as one reading with line ends between the parts;
    an empty list if there is none. So the number of parts does not matter, only their length.
    """
    parts: dict[str, None] = {}
    for match in _B64_LINES.finditer(text) if "\n" in text else ():
        parts.update(dict.fromkeys(_text(_base64("".join(match[0].split())))))
    for run in text.split():
        if len(run) >= MIN_ENCODED:
            for match in _B64.finditer(run):
                parts.update(dict.fromkeys(_text(_base64(match[0]))))
            for match in _HEX.finditer(run):
                parts.update(dict.fromkeys(_text(bytes.fromhex(match[1]))))
    return ["\n".join(parts)] if parts else []


def is_encoded(run: str) -> bool:
    """Return whether a run of letters and digits decodes from base64 to text."""
    return any(_text(_base64(run)))


def plainest(text: str) -> str:
    """Return the text with compatible letters replaced (NFKC) and invisible characters removed."""
    made = unicodedata.normalize("NFKC", text).replace("。", ".")
    return "".join(one for one in made if one.isascii() or unicodedata.category(one) not in ("Cf", "Mn"))


def _base64(text: str) -> bytes:
    bare = text.rstrip("=").replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(bare + "=" * (-len(bare) % 4), validate=True)
    except (ValueError, binascii.Error):
        return b""


def _text(decoded: bytes) -> Iterator[str]:
    """Yield the decoded bytes as text if they are at least 8 bytes of printable UTF-8."""
    if len(decoded) >= 8:
        try:
            text = decoded.decode("utf-8")
        except UnicodeDecodeError:
            return
        if all(one.isprintable() or one.isspace() for one in text):
            yield text
