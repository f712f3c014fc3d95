"""Profiles: the form of a kind of certificates, and the names that their holders may have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta
from msgspec.structs import replace

from ostiary.protocol.decoding import convert
from ostiary.protocol.errors import Forbidden, Invalid, NotFound
from ostiaryd.certs.model.keys import KEY_TYPES
from ostiaryd.certs.model.names import CertificateName, check_pattern, is_allowed, parse_name

Usage = Literal["client", "server", "email", "code"]
HolderKind = Literal["agent", "person", "server"]
LONGEST_S = 398 * 86_400
SHORTEST_S = 60
MAX_PROFILES = 100


class ForeignName(Forbidden):
    """The profile or the authority does not allow the name for the holder."""

    code = "foreign_name"


class Profile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A kind of certificates.

    `names` are patterns (`ostiaryd.certs.model.names`), in which `{name}` is replaced by the name of the holder, and
    `{trust_domain}` by the trust domain of the server. A request without names gets the `default_names`.
    """

    name: str = ""
    holders: tuple[HolderKind, ...] = ("agent",)
    lifetime_s: Annotated[int, Meta(ge=SHORTEST_S, le=LONGEST_S)] = 3600
    """Maximum lifetime in seconds, and the lifetime if a request states none."""
    key_types: tuple[str, ...] = KEY_TYPES
    usages: tuple[Usage, ...] = ("client", "server")
    names: tuple[str, ...] = ()
    default_names: tuple[str, ...] = ()
    wildcards: bool = False
    """true if names such as `dns:*.example.com` can be certified"""
    max_names: Annotated[int, Meta(ge=1, le=100)] = 20


AGENT_NAME = "uri:spiffe://{trust_domain}/agent/{name}"
SERVER_NAME = "uri:spiffe://{trust_domain}/{name}"
BUILT_IN = (
    Profile(name="agent", names=(AGENT_NAME,), default_names=(AGENT_NAME,)),
    Profile(
        name="server",
        holders=("agent", "person", "server"),
        lifetime_s=86_400,
        usages=("server",),
        names=("dns:*", "ip:*"),
        wildcards=True,
    ),
    Profile(
        name="listener",
        holders=("server",),
        lifetime_s=86_400,
        names=("dns:*", "ip:*", SERVER_NAME),
    ),
)
"""Profiles of a server without a file of profiles. The server's own TLS certificate (`listener`) is an
X509-SVID. The profile `server` allows any DNS name and any IP address; policies decide which of them an agent
or a person may have.
"""


def parse_profiles(document: Mapping[str, Any]) -> dict[str, Profile]:
    """Return the built-in profiles, and the profiles of a TOML document with a table `[profile.NAME]` for each.

    A profile with the name of a built-in profile replaces it. Raises Invalid.
    """
    if unknown := set(document) - {"profile"}:
        raise Invalid(f"profiles: unknown key {min(unknown)[:64]!a}", hint="write tables [profile.NAME]")
    tables = document.get("profile", {})
    if not isinstance(tables, dict) or len(tables) > MAX_PROFILES:
        raise Invalid(f"profiles: `profile` is not a table of at most {MAX_PROFILES} profiles")
    profiles = {profile.name: profile for profile in BUILT_IN}
    for name, table in tables.items():
        try:
            profiles[name] = _check(replace(convert(table, Profile), name=name))
        except msgspec.ValidationError as error:
            raise Invalid(f"profile `{name[:64]}`: {error}") from None
        except Invalid as error:
            raise Invalid(f"profile `{name[:64]}`: {error.message}", hint=error.hint) from None
    return profiles


def _check(profile: Profile) -> Profile:
    if unknown := set(profile.key_types) - set(KEY_TYPES):
        raise Invalid(f"there is no key type {min(unknown)[:32]!a}", hint=f"use one of {', '.join(KEY_TYPES)}")
    for members in ("holders", "key_types", "usages", "names"):
        if not getattr(profile, members):
            raise Invalid(f"`{members}` is empty")
    for pattern in profile.names:
        check_pattern(fill(pattern, name="name", trust_domain="trust-domain"))
    for name in profile.default_names:
        parse_name(fill(name, name="name", trust_domain="trust-domain"))
    return profile


def find_profile(profiles: Mapping[str, Profile], name: str) -> Profile:
    """Return a profile by its name. Raises NotFound."""
    if name not in profiles:
        raise NotFound(f"there is no profile {name[:64]!a}", hint=f"profiles: {', '.join(sorted(profiles))}")
    return profiles[name]


def fill(pattern: str, *, name: str, trust_domain: str) -> str:
    """Return a pattern with the name of the holder and the trust domain filled in."""
    return pattern.replace("{name}", name).replace("{trust_domain}", trust_domain)


def choose_names(
    profile: Profile, requested: Sequence[CertificateName], *, holder: str, trust_domain: str
) -> tuple[CertificateName, ...]:
    """Return the names of a certificate for a holder: the requested names, or the default names of the profile.

    Raises ForeignName for a name that the profile does not allow, and Invalid if there are no names or too many.
    """
    if not requested:
        requested = [parse_name(fill(name, name=holder, trust_domain=trust_domain)) for name in profile.default_names]
    if not requested:
        raise Invalid(
            f"the profile `{profile.name}` needs a name", hint="name at least one, such as dns:api.example.com"
        )
    if len(requested) > profile.max_names:
        raise Invalid(
            f"there are {len(requested)} names; `{profile.name}` allows at most {profile.max_names}",
            hint="request fewer names, or set `max_names` of the profile in the file `certificate_profiles`",
        )
    patterns = [fill(pattern, name=holder, trust_domain=trust_domain) for pattern in profile.names]
    for name in requested:
        if not is_allowed(name, patterns):
            raise ForeignName(
                f"the profile `{profile.name}` does not allow {str(name)[:200]!a} to `{holder}`",
                hint=f"allowed: {' '.join(patterns)[:300]}",
            )
        if name.is_wildcard and not profile.wildcards:
            raise ForeignName(f"the profile `{profile.name}` allows no wildcards")
    return tuple(dict.fromkeys(requested))


def choose_lifetime(profile: Profile, requested_s: int | None) -> int:
    """Return the lifetime of a certificate in seconds: the requested one, or that of the profile. Raises Invalid."""
    if requested_s is None:
        return profile.lifetime_s
    if not SHORTEST_S <= requested_s <= profile.lifetime_s:
        raise Invalid(f"the lifetime must be {SHORTEST_S} to {profile.lifetime_s} seconds in `{profile.name}`")
    return requested_s
