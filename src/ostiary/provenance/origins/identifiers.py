"""Secret and personal identifiers in a text, found by form and checksum: cards, accounts, keys, passports, persons.

Each kind has a published form. If other text commonly has this form, a valid checksum is required. Decoded forms of the
text are searched as well. The time is linear in the length of the text.

    card         ISO/IEC 7812: an issuer's range and length, and the Luhn digit
    iban         ISO 13616: the country's length, and the remainder 1 of 97
    key          a private key in PEM (RFC 7468), a JWT (RFC 7519), a token with the prefix of its issuer, or a run of
                 letters and digits that looks random
    passport     ICAO 9303: the machine-readable zone with its check digits
    national_id  national numbers of persons that have a checksum; for the United States, a reserved form
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import chain, pairwise

from ostiary.provenance.origins.links import Decoded, is_encoded, readings

MAX_FOUND = 64
"""maximum number of identifiers that are returned for one text"""
MIN_BITS = 4.0
"""entropy in bits per character from which a run counts as random; short runs need only 0.9 of the possible maximum"""

_GROUPED = re.compile(r"(?<![\w.-])\d(?:[ -]?\d){9,18}(?![\w-]|\.\d)")
"""digits with single spaces or hyphens between them"""
_BLOCKS = re.compile(r"(?<!\w)\d{4}((?:[^\w\n]|_){1,3})(?:\d{4}\1\d{4}\1\d{1,7}|\d{6}\1\d{4,5})(?!\w)")
"""digits in the groups of a card, with any separator between them"""
_DENSE = re.compile(r"\d(?:[ .-]?\d){5}|\d{4}[\W_]{1,3}\d{4}|\d\d[A-Za-z]\d\d[A-Za-z]\d{3}")
"""digits as near to each other as in a card, a passport or a national number; a text without them has none of these"""
_CARDS = re.compile(
    r"4\d{12}(?:\d{3}){0,2}|(?:5[1-5]\d\d|222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720)\d{12}|3[47]\d{13}"
    r"|6(?:011|5\d\d|4[4-9]\d)\d{12}|35(?:2[89]|[3-8]\d)\d{12}|3(?:0[0-5]|[68]\d)\d{11}"
)
_IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Za-z]{2}\d{2}(?:[ ._/-]?[A-Za-z0-9]){11,30}(?![A-Za-z0-9])")
_IBAN_LENGTHS = {
    country: length
    for length, countries in {
        15: "NO",
        16: "BE",
        18: "DK FO FI GL NL SD",
        19: "MK SI",
        20: "AT BA EE KZ LT LU XK MN",
        21: "CH HR LI LV",
        22: "BG BH CR DE GB GE IE ME RS VA",
        23: "AE GI IL IQ OM TL SO",
        24: "AD CZ ES MD PK RO SA SE SK TN VG",
        25: "LY PT ST",
        26: "IS TR",
        27: "BI DJ FR GR IT MC MR SM",
        28: "AL AZ BY CY DO GT HU LB PL SV NI",
        29: "BR EG PS QA UA",
        30: "JO KW MU",
        31: "MT SC",
        32: "LC",
        33: "RU",
    }.items()
    for country in countries.split()
}
_PRIVATE = re.compile(r"-----BEGIN [A-Z0-9 ]{0,32}PRIVATE KEY(?: BLOCK)?-----")
_JWT = re.compile(r"(?<![\w.-])eyJ[\w-]{10,}\.[\w-]{4,}\.[\w-]*")
_ISSUED = re.compile(r"(?<![A-Za-z0-9])(?:A(?:KI|SI)A[A-Z2-7]{16}|AIza[\w-]{35}|ya29\.[\w-]{20,})(?![A-Za-z0-9])")
"""access keys of cloud providers, in forms that no ordinary word has"""
_PREFIXED = re.compile(r"(?<![A-Za-z0-9])(?:[A-Za-z][A-Za-z0-9]{1,9}[_.-]){1,3}[A-Za-z0-9_-]{16,255}(?![A-Za-z0-9])")
"""tokens with a prefix that names the issuer or the type, such as `ghp_..` and `sk-..`"""
_RUN = re.compile(r"(?<![\w/+.:=@-])[A-Za-z0-9_+/-]{20,512}={0,2}(?![\w/+.@-])")
_HEX = re.compile(r"(?:0x)?[0-9a-fA-F-]+")
_MRZ = re.compile(
    r"(?<![A-Z0-9<])P[A-Z<][A-Z<]{42}\s+"
    r"([A-Z0-9<]{9})(\d)[A-Z<]{3}(\d{6})(\d)[MFX<](\d{6})(\d)([A-Z0-9<]{14})([\d<])(\d)"
)
_US = re.compile(r"(?<![\w-])(?!000|666|9\d\d)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?![\w-])")
_SPAIN = re.compile(r"(?<![\w-])([XYZxyz]|\d)(\d{7})-?([A-HJ-NP-TV-Za-hj-np-tv-z])(?![\w-])")
_ITALY = re.compile(r"(?<!\w)[A-Za-z]{6}\d\d[A-EHLMPR-Ta-ehlmpr-t]\d\d[A-Za-z]\d{3}[A-Za-z](?!\w)")
_FINLAND = re.compile(r"(?<![\w-])(\d{6})[-+A-FU-Y](\d{3})([0-9A-FHJ-NPR-Y])(?![\w-])")
_BRAZIL = re.compile(r"(?<![\w.-])(\d{3})\.(\d{3})\.(\d{3})-(\d{2})(?![\w-])")
_SWEDEN = re.compile(r"(?<![\w-])(?:19|20)?(\d{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01]))[-+](\d{4})(?![\w-])")
_CHINA = re.compile(r"(?<!\w)[1-9]\d{5}(?:19|20)\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])\d{3}[\dXx](?!\w)")
_FRANCE = re.compile(r"(?<![\w-])[12] ?\d\d ?(?:0[1-9]|1[0-2]) ?(?:\d\d|2[AB]) ?\d{3} ?\d{3} ?\d\d(?![\w-])")
_POLAND = re.compile(r"(?<!\w)\d\d(?:[02468][1-9]|[13579][0-2])(?:0[1-9]|[12]\d|3[01])\d{5}(?!\w)")
_DIGIT = re.compile(r"\d")
_HYPHENS = dict.fromkeys((*range(0x2010, 0x2016), 0x2212), "-")
"""dashes and the minus sign"""


def identifiers(text: str, decoded: Decoded | None = None) -> Iterator[tuple[str, str]]:
    """Yield each secret or personal identifier in a text, such as a card number, an IBAN or an access key, as (kind,
    identifier), at most MAX_FOUND.
    """
    yielded: set[tuple[str, str]] = set()
    for reading in readings(text, decoded):
        if not _DIGIT.search(reading) and "-----BEGIN" not in reading and "eyJ" not in reading:
            continue
        for one in _search(reading):
            if one not in yielded and len(yielded) < MAX_FOUND:
                yielded.add(one)
                yield one


def _search(text: str) -> Iterator[tuple[str, str]]:
    if not text.isascii():
        text = text.translate(_HYPHENS)
    is_dense = _DENSE.search(text) is not None
    for match in chain(_GROUPED.finditer(text), _BLOCKS.finditer(text)) if is_dense else ():
        digits = re.sub(r"[\W_]", "", match[0])
        if _CARDS.fullmatch(digits) and luhn(digits):
            yield "card", match[0]
    for match in _IBAN.finditer(text):
        if iban := _iban(match[0]):
            yield "iban", iban
    for kind, pattern, is_valid in (*_KEYS, *_NUMBERS) if is_dense else _KEYS:
        for match in pattern.finditer(text):
            if is_valid(match):
                yield kind, match[0]


def luhn(digits: str) -> bool:
    """Return whether the check digit of a number is correct (ISO/IEC 7812-1, annex B)."""
    doubled = (int(one) * 2 for one in digits[-2::-2])
    return (sum(map(int, digits[-1::-2])) + sum(one - 9 if one > 9 else one for one in doubled)) % 10 == 0


def _iban(text: str) -> str:
    """Return the account number (IBAN) at the beginning of a text; empty if there is none. Other text may follow."""
    bare = re.sub(r"[\W_]", "", text).upper()
    length = _IBAN_LENGTHS.get(bare[:2], 0)
    if not length or len(bare) < length:
        return ""
    bare = bare[:length]
    return bare if int("".join(str(int(one, 36)) for one in bare[4:] + bare[:4])) % 97 == 1 else ""


def _is_random(match: re.Match[str]) -> bool:
    """Return whether a run of letters and digits looks random: high entropy, and no encoded text or hexadecimal
    number.
    """
    run = match[0].rstrip("=")
    if _HEX.fullmatch(run) or is_encoded(match[0]) or not any(map(str.isupper, run)) or not any(map(str.islower, run)):
        return False
    return len(_DIGIT.findall(run)) >= 2 and _bits(run) >= min(MIN_BITS, 0.9 * math.log2(len(run)))


def _is_token(match: re.Match[str]) -> bool:
    """Return whether the part after the prefix of a token is a mix of digits and letters, not a word."""
    rest = re.split("[_.-]", match[0])[-1]
    changes = sum(one.isdigit() != two.isdigit() for one, two in pairwise(rest))
    return len(rest) >= 12 and changes >= 4 and not _HEX.fullmatch(rest)


def _bits(run: str) -> float:
    size = len(run)
    return -sum(count / size * math.log2(count / size) for count in Counter(run).values())


def _check_digit(text: str) -> int:
    """Return the check digit of ICAO 9303, part 3, section 4.9."""
    values = (0 if one == "<" else int(one, 36) for one in text)
    return sum(value * (7, 3, 1)[at % 3] for at, value in enumerate(values)) % 10


def _is_passport(match: re.Match[str]) -> bool:
    number, one, born, two, until, three, rest, four, whole = match.groups()
    all_ = f"{number}{one}{born}{two}{until}{three}{rest}{four}"
    checks = (number, one), (born, two), (until, three), (rest, four.replace("<", "0")), (all_, whole)
    return all(_check_digit(text) == int(digit) for text, digit in checks)


def _is_spanish(match: re.Match[str]) -> bool:
    number = int("XYZ".find(match[1].upper()) if match[1].isalpha() else match[1]) * 10_000_000 + int(match[2])
    return "TRWAGMYFPDXBNJZSQVHLCKE"[number % 23] == match[3].upper()


_ODD = (1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23)


def _is_italian(match: re.Match[str]) -> bool:
    text = match[0].upper()
    places = [int(one) if one.isdigit() else ord(one) - 65 for one in text[:15]]
    return sum(_ODD[one] if at % 2 == 0 else one for at, one in enumerate(places)) % 26 == ord(text[15]) - 65


def _is_finnish(match: re.Match[str]) -> bool:
    return "0123456789ABCDEFHJKLMNPRSTUVWXY"[int(match[1] + match[2]) % 31] == match[3]


def _is_brazilian(match: re.Match[str]) -> bool:
    digits = [int(one) for one in re.sub(r"\D", "", match[0])]
    checks = (sum(one * (size - at) for at, one in enumerate(digits[: size - 1])) * 10 % 11 % 10 for size in (10, 11))
    return len(set(digits)) > 1 and [*checks] == digits[9:]


def _is_chinese(match: re.Match[str]) -> bool:
    weights = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
    total = sum(int(one) * weight for one, weight in zip(match[0], weights, strict=False))
    return "10X98765432"[total % 11] == match[0][-1].upper()


def _is_french(match: re.Match[str]) -> bool:
    bare = match[0].replace(" ", "").replace("2A", "19").replace("2B", "18")
    return 97 - int(bare[:13]) % 97 == int(bare[13:])


def _is_polish(match: re.Match[str]) -> bool:
    weights = (1, 3, 7, 9, 1, 3, 7, 9, 1, 3, 1)
    return sum(int(one) * weight for one, weight in zip(match[0], weights, strict=True)) % 10 == 0


def _always(match: re.Match[str]) -> bool:
    return True


_Checked = tuple[tuple[str, re.Pattern[str], Callable[[re.Match[str]], bool]], ...]
_KEYS: _Checked = (
    ("key", _PRIVATE, _always),
    ("key", _JWT, _always),
    ("key", _ISSUED, _always),
    ("key", _PREFIXED, _is_token),
    ("key", _RUN, _is_random),
)
_NUMBERS: _Checked = (
    ("passport", _MRZ, _is_passport),
    ("national_id", _US, _always),
    ("national_id", _SPAIN, _is_spanish),
    ("national_id", _ITALY, _is_italian),
    ("national_id", _FINLAND, _is_finnish),
    ("national_id", _BRAZIL, _is_brazilian),
    ("national_id", _SWEDEN, lambda match: luhn(match[1] + match[2])),
    ("national_id", _CHINA, _is_chinese),
    ("national_id", _FRANCE, _is_french),
    ("national_id", _POLAND, _is_polish),
)
