"""Sessions of people: their proofs, and the assurance that follows from the proofs.

A proof has a source: the password, the authenticator app, a passkey, or an identity provider. A proof shows one or more
factors: knowledge, possession, or the provider's statement. Two proofs of one source, or of one factor, count once.

    single   one factor
    mfa      two factors from independent sources, or one source that shows two factors
    phr      mfa, with a passkey among its proofs, which a look-alike site cannot relay

The age of a level is the age of the oldest proof that the level needs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from typing import Literal, NamedTuple
from urllib.parse import urlencode

import msgspec

from ostiary.authorization.assurance import (
    PERSON_LEVELS,
    PERSON_MFA,
    PERSON_PHR,
    PERSON_SINGLE,
    meets,
    parse_acr_values,
    parse_max_age,
)
from ostiaryd.trust.model import SECOND

SESSION_COOKIE = "__Host-ostiary-session"
LOGIN_COOKIE = "__Host-ostiary-login"
"""Name of the login cookie, for a browser without a session. The cookie binds forms to the browser, and contains the
proofs so far.
"""
BROWSER_COOKIE = "__Host-ostiary-browser"
"""Name of the browser cookie, which names persons who signed in with this browser. The cookie stays after a logout."""
MAX_BROWSER = 128
MAX_SESSIONS = 20
"""Maximum number of sessions of one person; if another begins, the least recently used session ends."""
RETURN_PATHS = ("/authorize", "/device", "/account", "/consents", "/accounts", "/logout", "/console")
"""Paths to which a login may lead (`return_to`)."""
_CONSOLE_PATH = re.compile(r"/console(/(?!\.)(?:[A-Za-z0-9._~:@-]|%(?!2[ef]|5c|00)[0-9a-f]{2})+)+", re.IGNORECASE)
"""Pattern of paths in the console to which a login may lead. No segment begins with a dot or contains an encoded dot,
slash, backslash or null.
"""
MAX_RETURN = 4096
MAX_HINT = 254

_BROWSERS = (
    ("Edg", "Edge"),
    ("OPR/", "Opera"),
    ("Firefox/", "Firefox"),
    ("Chrome/", "Chrome"),
    ("CriOS/", "Chrome"),
    ("Safari/", "Safari"),
)
_SYSTEMS = (
    ("Android", "Android"),
    ("iPhone", "iPhone"),
    ("iPad", "iPad"),
    ("Windows", "Windows"),
    ("Mac OS", "macOS"),
    ("Linux", "Linux"),
)
"""Text in the header `User-Agent`, and the name of the system for which it stands. The most specific text comes first,
because most browsers also name other systems.
"""


class ProofFacts(NamedTuple):
    """The strength of a proof by a login method: the factors, the names in `amr` (RFC 8176), and whether the proof
    resists phishing, because a look-alike site cannot relay it.
    """

    factors: frozenset[str]
    amr: tuple[str, ...] = ()
    resists_phishing: bool = False


Method = Literal["password", "totp", "recovery", "passkey", "federated"]
METHODS: dict[Method, ProofFacts] = {
    "password": ProofFacts(frozenset({"knowledge"}), ("pwd",)),
    "totp": ProofFacts(frozenset({"possession"}), ("otp",)),
    "recovery": ProofFacts(frozenset({"possession"}), ("otp",)),  # a look-up secret (NIST SP 800-63B section 3.1.2)
    # user verification is required, so that a passkey shows two factors
    "passkey": ProofFacts(frozenset({"possession", "inherence"}), ("pop", "user"), resists_phishing=True),
    "federated": ProofFacts(frozenset({"provider"})),
}
"""Login methods of people. The level of assurance of a session follows from this table."""


class Proof(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A proof of a person, given at `at` (microseconds).

    `source` distinguishes proofs of the same method: it is the id of a passkey, or the issuer of a provider. `acr` and
    `amr` describe the login at a trusted provider; `acr` is translated to a level of this server, and empty for a
    single factor.
    """

    method: Method
    at: int
    source: str = ""
    acr: str = ""
    amr: tuple[str, ...] = ()


class Demand(msgspec.Struct, frozen=True, kw_only=True):
    """The requirements of a login: accepted levels of assurance, maximum age of its proofs in seconds, and the path to
    which the login leads (`return_to`).

    `is_new`: the person must authenticate again even if there is a session (`prompt=login`).
    """

    return_to: str
    acr_values: tuple[str, ...] = ()
    max_age: int | None = None
    is_new: bool = False
    login_hint: str = ""

    def fields(self) -> dict[str, str]:
        """Return the requirements of this login as query parameters of `/login`."""
        named = {
            "return_to": self.return_to,
            "acr_values": " ".join(self.acr_values),
            "max_age": "" if self.max_age is None else str(self.max_age),
            "prompt": "login" if self.is_new else "",
            "login_hint": self.login_hint,
        }
        return {name: value for name, value in named.items() if value}

    @property
    def login_path(self) -> str:
        """Return the path of the login page with these requirements."""
        return f"/login?{urlencode(self.fields())}"


class Assurance(msgspec.Struct, frozen=True):
    """A level (`acr`), its methods (`amr`, RFC 8176), and the time of the oldest proof that the level needs, in
    microseconds.
    """

    acr: str
    amr: tuple[str, ...]
    authenticated_at: int


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """The session of a person in one browser. Times are in microseconds. `expires_at` is the end of the session, which
    further use does not postpone.
    """

    id: str
    person: str
    proofs: tuple[Proof, ...]
    network: str
    browser: str
    created_at: int
    used_at: int
    expires_at: int

    @property
    def assurance(self) -> Assurance:
        """Return the highest level that the proofs reach together, regardless of their age, with methods and time."""
        return assess(self.proofs)

    @property
    def acr(self) -> str:
        """Return the highest level that the proofs reach together, regardless of their age."""
        return self.assurance.acr

    @property
    def amr(self) -> tuple[str, ...]:
        """Return the methods of the level `acr`."""
        return self.assurance.amr

    @property
    def authenticated_at(self) -> int:
        """Return the time of the oldest proof that the level `acr` needs, in microseconds."""
        return self.assurance.authenticated_at

    @property
    def provider(self) -> str:
        """Return the issuer of the identity provider by which the person signed in; "" for a local account."""
        return next((proof.source for proof in self.proofs if proof.method == "federated"), "")

    def meet(
        self, *, now: int, acr_values: Collection[str] = (), max_age: int | None = None, since: int = 0
    ) -> Assurance | None:
        """Return the assurance of those proofs that are recent enough, if it reaches one of the levels `acr_values`;
        otherwise None.

        Proofs count if they are at most `max_age` seconds old and not older than `since` (microseconds).
        """
        fresh = fresh_proofs(self.proofs, now=now, max_age=max_age, since=since)
        if not fresh:
            return None
        assurance = assess(fresh)
        return assurance if meets(assurance.acr, acr_values) else None


def fresh_proofs(proofs: Sequence[Proof], *, now: int, max_age: int | None, since: int = 0) -> tuple[Proof, ...]:
    """Return the proofs that are at most `max_age` seconds old (any age for None) and not older than `since`
    (microseconds).
    """
    oldest = since if max_age is None else max(since, now - max_age * SECOND)
    return tuple(proof for proof in proofs if proof.at >= oldest)


def add_proof(proofs: Sequence[Proof], new: Proof) -> tuple[Proof, ...]:
    """Return the proofs with one added. The new proof replaces a proof of the same method and source."""
    return (*(one for one in proofs if (one.method, one.source) != (new.method, new.source)), new)


def ways_to_meet(
    methods: Collection[Method], fresh: Sequence[Proof], acr_values: Collection[str], *, now: int
) -> frozenset[Method]:
    """Return the methods of a person of which each alone, together with the fresh proofs, reaches one of the demanded
    levels.

    If there are none, but the password and a second method together reach a level, return the password. Otherwise
    return an empty set.
    """
    missing = [method for method in methods if method not in {proof.method for proof in fresh}]

    def reaches(*added: Method) -> bool:
        proofs = [*fresh, *(Proof(method=method, at=now) for method in added)]
        return meets(assess(proofs).acr, acr_values)

    if alone := frozenset(method for method in missing if reaches(method)):
        return alone
    has_pair = "password" in missing and any(reaches("password", second) for second in missing)
    return frozenset({"password"} if has_pair else ())


def assess(proofs: Sequence[Proof]) -> Assurance:
    """Return the highest level that the proofs reach together, computed from the newest proofs that reach it. `proofs`
    must not be empty.
    """
    newest = sorted(proofs, key=lambda proof: -proof.at)
    reached = {PERSON_SINGLE: newest[:1]}
    for count in range(1, len(newest) + 1):
        used = newest[:count]
        level = _level(used)
        for reachable in PERSON_LEVELS[: PERSON_LEVELS.index(level) + 1]:
            reached.setdefault(reachable, used)
    acr = max(reached, key=PERSON_LEVELS.index)
    used = reached[acr]
    amr = {name for proof in used for name in (*METHODS[proof.method].amr, *proof.amr)}
    if acr != PERSON_SINGLE:
        amr.add("mfa")
    return Assurance(acr, tuple(sorted(amr)), min(proof.at for proof in used))


def _level(proofs: Sequence[Proof]) -> str:
    """Return the level that these proofs reach together."""
    if any(METHODS[proof.method].resists_phishing or proof.acr == PERSON_PHR for proof in proofs):
        return PERSON_PHR
    sources = {(proof.method if proof.method != "federated" else proof.source) for proof in proofs}
    factors = {factor for proof in proofs for factor in METHODS[proof.method].factors}
    if any(proof.acr == PERSON_MFA for proof in proofs) or min(len(sources), len(factors)) > 1:
        return PERSON_MFA
    return PERSON_SINGLE


def parse_demand(get: Callable[[str], str | None]) -> Demand:
    """Return the requirements in the parameters of `/login`. Raises Invalid for malformed parameters."""
    max_age = get("max_age")
    return Demand(
        return_to=parse_return(get("return_to")),
        acr_values=parse_acr_values(get("acr_values") or ""),
        max_age=parse_max_age(max_age) if max_age else None,
        is_new="login" in (get("prompt") or "").split(),
        login_hint=(get("login_hint") or "")[:MAX_HINT],
    )


def parse_return(unverified: str | None, *, otherwise: str = "/account") -> str:
    """Return a path and query to which a login may lead: a page of the console, or a path of `RETURN_PATHS`. For any
    other value, return `otherwise`.
    """
    text = unverified or ""
    path, _, query = text.partition("?")
    is_plain = len(text) <= MAX_RETURN and all("!" <= char <= "~" and char not in "\\#" for char in query)
    is_page = path in RETURN_PATHS or _CONSOLE_PATH.fullmatch(path) is not None
    return text if is_page and is_plain else otherwise


def parse_cookies(headers: Sequence[bytes]) -> dict[str, list[str]]:
    """Return the values of every cookie by its name, in the order of the header (RFC 6265 section 4.2).

    Only spaces and tabs are removed around a cookie. Other whitespace stays a part of the name, because browsers do not
    apply the rules of `__Host-` to a name that begins with whitespace.
    """
    cookies: dict[str, list[str]] = {}
    for header in headers:
        for pair in header.decode("latin-1").split(";"):
            name, _, value = pair.strip(" \t").partition("=")
            cookies.setdefault(name, []).append(value)
    return cookies


def describe_browser(unverified_agent: str | None) -> str:
    """Return a short description of a browser for lists, such as `Firefox on Windows`; for an unknown browser,
    its printable ASCII text, truncated.
    """
    text = "".join(char for char in unverified_agent or "" if " " <= char <= "~")
    browser = next((name for mark, name in _BROWSERS if mark in text), "")
    system = next((name for mark, name in _SYSTEMS if mark in text), "")
    return f"{browser} on {system}" if browser and system else text[:MAX_BROWSER]
