"""Certificate profiles: the form of the certificates of one kind, and the names that the certificates may have."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta
from msgspec.structs import replace

from ostiary.protocol.decoding import convert
from ostiary.protocol.errors import Forbidden, Invalid, NotFound
from ostiaryd.certs.model.keys import KEY_TYPES
from ostiaryd.certs.model.names import CertificateName, check_pattern, check_uris, is_allowed, parse_name

Usage = Literal["client", "server", "email", "code"]
HolderKind = Literal["agent", "person", "server"]
LONGEST_S = 398 * 86_400
SHORTEST_S = 60
MAX_PROFILES = 100


class ForeignName(Forbidden):
    """The profile or the authority does not allow this name for this holder."""

    code = "foreign_name"


class Profile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A certificate profile.

    `names` are patterns (`ostiaryd.certs.model.names`). In a pattern, `{name}` stands for the name of the holder, and
    `{trust_domain}` for the trust domain of the server. If a request has no names, the certificate gets the
    `default_names`.
    """

    name: str = ""
    holders: tuple[HolderKind, ...] = ("agent",)
    lifetime_s: Annotated[int, Meta(ge=SHORTEST_S, le=LONGEST_S)] = 3600
    """Maximum lifetime in seconds, and the lifetime of a certificate whose request states no lifetime."""
    key_types: tuple[str, ...] = KEY_TYPES
    usages: tuple[Usage, ...] = ("client", "server")
    names: tuple[str, ...] = ()
    default_names: tuple[str, ...] = ()
    wildcards: bool = False
    """true if wildcard names such as `dns:*.example.com` can be certified"""
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
"""The profiles of a server whose configuration names no file of profiles. The profile `listener` is for the server's
own TLS certificate, which is an X509-SVID. The profile `server` allows any DNS name and any IP address; policies decide
which of these names an agent or a person may have.
"""


def parse_profiles(document: Mapping[str, Any]) -> dict[str, Profile]:
    """Return the profiles by name: the built-in profiles, and those in a TOML document with a table `[profile.NAME]`
    for each.

    A profile in the document replaces a built-in profile of the same name. Raises Invalid for other TOML, and for an
    invalid profile.
    """
    if unknown := set(document) - {"profile"}:
        raise Invalid(f"profiles: unknown key {min(unknown)[:64]!a}", hint="write tables [profile.NAME]")
    tables = document.get("profile", {})
    if not isinstance(tables, dict):
        raise Invalid("profiles: `profile` is not a table", hint="write tables [profile.NAME]")
    if len(tables) > MAX_PROFILES:
        raise Invalid(f"profiles: there are {len(tables)} profiles; the limit is {MAX_PROFILES}")
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
        raise Invalid(f"the key type {min(unknown)[:32]!a} is unknown", hint=f"use one of {', '.join(KEY_TYPES)}")
    for members in ("holders", "key_types", "usages", "names"):
        if not getattr(profile, members):
            raise Invalid(f"`{members}` is empty")
    for pattern in profile.names:
        check_pattern(fill(pattern, name="name", trust_domain="trust-domain"))
    if profile.default_names:
        try:
            choose_names(profile, (), holder="name", trust_domain="trust-domain")
        except (Invalid, ForeignName) as error:
            raise Invalid(f"`default_names`: {error.message}", hint=error.hint) from None
    return profile


def _default_names(profile: Profile, *, holder: str, trust_domain: str) -> list[CertificateName]:
    return [parse_name(fill(name, name=holder, trust_domain=trust_domain)) for name in profile.default_names]


def find_profile(profiles: Mapping[str, Profile], name: str) -> Profile:
    """Return a profile by its name. Raises NotFound if there is none."""
    if name not in profiles:
        raise NotFound(
            f"the certificate profile {name[:64]!a} is unknown", hint=f"use one of {', '.join(sorted(profiles))}"
        )
    return profiles[name]


def fill(pattern: str, *, name: str, trust_domain: str) -> str:
    """Return a pattern in which the name of the holder and the trust domain have replaced `{name}` and
    `{trust_domain}`.
    """
    return pattern.replace("{name}", name).replace("{trust_domain}", trust_domain)


@lru_cache(maxsize=4096)
def choose_names(
    profile: Profile, requested: tuple[CertificateName, ...], *, holder: str, trust_domain: str
) -> tuple[CertificateName, ...]:
    """Return the names of a certificate for a holder: the requested names; if there are none, the default names of the
    profile.

    Cached, since an agent mostly requests the same names again. Raises ForeignName for a name that the profile does not
    allow; Invalid if there are no names or too many, or another URI beside a SPIFFE ID.
    """
    if not requested:
        requested = tuple(_default_names(profile, holder=holder, trust_domain=trust_domain))
    if not requested:
        raise Invalid(
            f"the profile `{profile.name}` needs a name", hint="request at least one name, such as dns:api.example.com"
        )
    if len(requested) > profile.max_names:
        raise Invalid(
            f"the request has {len(requested)} names; `{profile.name}` allows at most {profile.max_names}",
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
            raise ForeignName(f"the profile `{profile.name}` does not allow wildcard names")
    check_uris(requested)
    return tuple(dict.fromkeys(requested))


def choose_lifetime(profile: Profile, requested_s: int | None) -> int:
    """Return the lifetime of a certificate in seconds: the requested lifetime, or the lifetime of the profile. Raises
    Invalid for a lifetime beyond the limits of the profile.
    """
    if requested_s is None:
        return profile.lifetime_s
    if not SHORTEST_S <= requested_s <= profile.lifetime_s:
        raise Invalid(f"the lifetime must be {SHORTEST_S} to {profile.lifetime_s} seconds in `{profile.name}`")
    return requested_s
