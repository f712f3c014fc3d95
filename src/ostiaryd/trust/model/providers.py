"""Identity providers by which people log in: OpenID Connect (Core 1.0, Discovery 1.0) and SAML 2.0, and their presets.

A provider is trusted only for the accounts under its own issuer. An account is linked to a person by issuer and
subject, never by an e-mail address. The claims of a provider have an effect only through its configuration: rules map
groups to roles and teams, and lists of accepted values map `acr` and `amr` to levels.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit

import msgspec

from ostiary.authorization.assurance import PERSON_MFA, PERSON_PHR
from ostiary.protocol.errors import Forbidden, Invalid
from ostiaryd.registry.model import check_name
from ostiaryd.registry.model.names import ID_PREFIXES

MAX_PROVIDERS = 20
MAX_RULES = 200
MAX_GROUPS = 1000
"""Maximum number of a person's groups that the server reads. If there are more, the groups count as not stated."""
MAX_WORD = 255
MAX_CERTIFICATES = 4
MAX_SECRET = 1024
NO_NAME = "person"
"""Name of a new person for whom the provider states no name."""
_GUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"

ClientMethod = Literal["client_secret_basic", "client_secret_post", "private_key_jwt", "none"]


class ProviderRefused(Forbidden):
    """The server does not accept the identity provider's response, or the person may not log in."""

    code = "login_refused"


class GroupRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A rule of a provider: members of `group` get `role` or join `team`. Exactly one of the two is set."""

    group: str
    role: str = ""
    team: str = ""


class OidcSettings(msgspec.Struct, frozen=True, tag="oidc", tag_field="protocol"):
    """The registration of this server at an OpenID provider.

    `reauthenticate` is the value of `prompt` that makes the provider ask the person again.
    """

    client_id: str
    authentication: ClientMethod
    scopes: tuple[str, ...]
    reads_userinfo: bool
    required_claims: dict[str, str]
    reauthenticate: str = "login"


class SamlSettings(msgspec.Struct, frozen=True, tag="saml", tag_field="protocol"):
    """The settings of a SAML identity provider: the URL for login requests, and the PEM certificates whose keys may
    sign its assertions.
    """

    sso_url: str
    certificates: tuple[str, ...]
    required_claims: dict[str, str]


class ProtocolFacts(NamedTuple):
    """The parts of a protocol that its routes share: the names of the routes below `/login`, and whether the provider's
    response is a POST from another site.
    """

    login: str
    callback: str
    posts_response: bool


Protocol = Literal["oidc", "saml"]
PROTOCOLS: Mapping[Protocol, ProtocolFacts] = {
    "oidc": ProtocolFacts("with", "callback", posts_response=False),
    "saml": ProtocolFacts("saml", "saml", posts_response=True),
}


class Provider(msgspec.Struct, frozen=True, kw_only=True):
    """An identity provider. `issuer` is its OpenID issuer or SAML entity id; times in microseconds.

    `mfa` and `phishing_resistant` list the values of `acr` and `amr` (SAML: of `AuthnContextClassRef`) that count as
    two factors and as phishing resistant. `accounts` determines whether a person without an account gets one at the
    first login.
    """

    provider_id: str
    name: str
    label: str
    preset: str
    issuer: str
    settings: OidcSettings | SamlSettings
    accounts: Literal["create", "refuse"]
    group_claim: str
    rules: tuple[GroupRule, ...]
    mfa: tuple[str, ...]
    phishing_resistant: tuple[str, ...]
    created_at: int
    sealed: bytes | None = None
    """The client secret, encrypted with a key derived from the root key; None without a secret."""

    @property
    def protocol(self) -> Protocol:
        """Return the protocol of the provider."""
        match self.settings:
            case OidcSettings():
                return "oidc"
            case SamlSettings():
                return "saml"

    @property
    def login_path(self) -> str:
        """Return the path of this server at which a login by the provider begins."""
        return f"/login/{PROTOCOLS[self.protocol].login}/{self.name}"

    @property
    def callback_path(self) -> str:
        """Return the path of this server to which the provider sends its response."""
        return f"/login/{PROTOCOLS[self.protocol].callback}/{self.name}"

    @property
    def posts_response(self) -> bool:
        """Return whether the response is a POST from another site, with which a browser sends no cookies with
        `SameSite=Lax`.
        """
        return PROTOCOLS[self.protocol].posts_response


class PresetDefaults(NamedTuple):
    """The defaults of a preset. `issuer` is a pattern of the issuers for which the preset can be used; `example` is
    such an issuer. `group_claim` is the claim with the groups of a person, empty if the provider states no groups.
    `reads_userinfo`: whether logins also read the userinfo endpoint, for claims that the ID token lacks.
    `reauthenticate` is the value of `prompt` that makes the provider ask the person again.
    """

    label: str
    issuer: str
    example: str
    scopes: tuple[str, ...]
    group_claim: str
    reads_userinfo: bool
    reauthenticate: str = "login"
    needs_claim: str = ""
    """Name of a claim that the configuration must require, because otherwise every account of the provider could log
    in; empty for none.
    """


STANDARD_SCOPES = ("openid", "profile", "email")
PRESETS: Mapping[str, PresetDefaults] = {
    "": PresetDefaults("", r".+", "https://idp.example.org", STANDARD_SCOPES, "groups", reads_userinfo=True),
    "entra": PresetDefaults(
        "Microsoft",
        rf"https://login\.microsoftonline\.(?:com|us)/{_GUID}/v2\.0",
        "https://login.microsoftonline.com/<tenant id>/v2.0",
        STANDARD_SCOPES,
        "groups",
        reads_userinfo=False,
    ),
    "okta": PresetDefaults(
        "Okta",
        r"https://[a-z0-9-]+(?:\.[a-z0-9-]+)*\.(?:okta|oktapreview|okta-emea)\.com(?:/oauth2/[A-Za-z0-9]+)?",
        "https://acme.okta.com",
        (*STANDARD_SCOPES, "groups"),
        "groups",
        reads_userinfo=True,
    ),
    "google": PresetDefaults(
        "Google",
        r"https://accounts\.google\.com",
        "https://accounts.google.com",
        STANDARD_SCOPES,
        "",
        reads_userinfo=False,
        reauthenticate="select_account",
        needs_claim="hd",
    ),
    "keycloak": PresetDefaults(
        "Keycloak",
        r"https?://[^/?#]+(?:/auth)?/realms/[^/?#]+",
        "https://sso.example.org/realms/acme",
        STANDARD_SCOPES,
        "groups",
        reads_userinfo=True,
    ),
}
"""Presets by name. Entra: the issuer `common` is not accepted, because it would admit every tenant, and `email`
is not verified there. Google: without `hd`, every Google account would be accepted, and the provider states no
groups.
"""


class Identity(NamedTuple):
    """A person as a provider describes them, after all checks.

    `email` is set only if the provider states that it is verified; `groups` is None if the provider states no groups.
    `acr` and `amr` are the values that the provider states. `authenticated_at` is in microseconds, None if not stated.
    """

    issuer: str
    sub: str
    name: str
    email: str | None
    groups: tuple[str, ...] | None
    acr: str
    amr: tuple[str, ...]
    authenticated_at: int | None


class Granted(NamedTuple):
    """The roles and teams, by name, that the rules of a provider give to a person because of the person's groups."""

    roles: frozenset[str]
    teams: frozenset[str]


def check_issuer(preset: str, issuer: str) -> None:
    """Check that the preset exists, and that the issuer matches the pattern of the preset. Raises Invalid otherwise."""
    if preset not in PRESETS:
        raise Invalid(
            f"`preset` {preset[:64]!a} is not known",
            hint=f"use one of {', '.join(filter(None, PRESETS))}, or no preset",
        )
    defaults = PRESETS[preset]
    if not re.fullmatch(defaults.issuer, issuer):
        raise Invalid(
            f"the issuer does not have the form of the preset `{preset}`",
            hint=f"such as {defaults.example}; for another issuer, leave out the preset",
        )
    if urlsplit(issuer).query:
        raise Invalid("the issuer URL must not have a query", hint=f"give an issuer such as {defaults.example}")


def check_provider(provider: Provider) -> Provider:
    """Return a provider after checking the limits of its configuration and the settings that its preset demands. Raises
    Invalid if a limit or a setting is wrong.
    """
    check_name(provider.name, of="name of the provider")
    if not 0 < len(provider.label) <= 40 or not provider.label.isprintable():
        raise Invalid("the label of a button must have 1 to 40 printable characters")
    if len(provider.rules) > MAX_RULES:
        raise Invalid(f"a provider must have at most {MAX_RULES} rules")
    for rule in provider.rules:
        if bool(rule.role) == bool(rule.team):
            raise Invalid(f"the rule for the group {rule.group[:64]!a} must name either a role or a team")
        _check_word(rule.group, of="a group")
        check_name(rule.role or rule.team, of="role or team of a rule")
    if provider.rules and not provider.group_claim:
        raise Invalid(
            "the provider has rules, but no claim (`group_claim`) that contains the groups of a person",
            hint="name the claim: --group-claim groups",
        )
    if provider.group_claim:
        _check_word(provider.group_claim, of="the claim of groups")
    for value in (*provider.mfa, *provider.phishing_resistant):
        _check_word(value, of="an accepted value of `acr` or `amr`")
    claims = provider.settings.required_claims
    for name, value in claims.items():
        _check_word(name, of="a required claim")
        _check_word(value, of="the value of a required claim")
    needed = PRESETS[provider.preset].needs_claim
    if needed and needed not in claims:
        raise Invalid(
            f"require the claim `{needed}`; with the preset `{provider.preset}`, every account could log in otherwise",
            hint=f"--require {needed}=VALUE, with the value that only accounts of the company have",
        )
    if isinstance(provider.settings, SamlSettings):
        _check_word(provider.issuer, of="the entity id")
        if not 0 < len(provider.settings.certificates) <= MAX_CERTIFICATES:
            raise Invalid(f"a SAML identity provider must have 1 to {MAX_CERTIFICATES} signing certificates")
    if isinstance(provider.settings, OidcSettings):
        _check_word(provider.settings.client_id, of="the client id")
        if "openid" not in provider.settings.scopes:
            raise Invalid("the scopes lack `openid`", hint="OpenID Connect Core 3.1.2.1 requires it")
        for scope in provider.settings.scopes:
            _check_word(scope, of="a scope")
    return provider


def _check_word(value: str, *, of: str) -> None:
    if not 0 < len(value) <= MAX_WORD or not value.isprintable():
        raise Invalid(f"{of} must have 1 to {MAX_WORD} printable characters")


def read_claim(claims: Mapping[str, Any], path: str) -> Any:
    """Return a claim by its path: a name, or several names with dots between them for nested objects
    (`realm_access.roles`). None if there is no such claim.
    """
    if path in claims:
        return claims[path]
    value: Any = claims
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def read_group_claim(claims: Mapping[str, Any], path: str) -> tuple[str, ...] | None:
    """Return the groups in a claim; None if the provider does not state them.

    If a person has too many groups, Entra leaves them out and states only their location (`_claim_names`): the result
    is then None. For more than `MAX_GROUPS` groups, the result is None too.
    """
    value = read_claim(claims, path) if path else None
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, (list, tuple)) or len(value) > MAX_GROUPS:
        return None
    return tuple(one for one in value if isinstance(one, str) and 0 < len(one) <= MAX_WORD)


def apply_rules(rules: tuple[GroupRule, ...], groups: tuple[str, ...]) -> Granted:
    """Return the roles and teams that the rules give to a member of these groups. Names of groups must
    match exactly.
    """
    mine = [rule for rule in rules if rule.group in groups]
    return Granted(frozenset(r.role for r in mine if r.role), frozenset(r.team for r in mine if r.team))


def check_required(provider: Provider, claims: Mapping[str, Any]) -> None:
    """Check that each required claim has the required value, or is a list that contains the value. Raises
    ProviderRefused if not.
    """
    for name, required in provider.settings.required_claims.items():
        value = read_claim(claims, name)
        if required not in (value if isinstance(value, (list, tuple)) else [value]):
            raise ProviderRefused(
                f"your account does not have the required value of the claim `{name}`",
                hint="log in with the account of your organisation",
                code="account_not_accepted",
            )


def suggest_name(*candidates: Any) -> str:
    """Return a name for a new person from the first candidate that can be turned into a name: `Ann.Smith@example.org`
    gives `ann.smith`.
    """
    for candidate in candidates:
        if isinstance(candidate, str):
            text = re.sub(r"[^a-z0-9._-]+", "-", candidate.partition("@")[0].lower())[:40].strip("._-")
            if text and not text.startswith(ID_PREFIXES):
                return text
    return NO_NAME


def assurance_of(provider: Provider, identity: Identity) -> tuple[str, tuple[str, ...]]:
    """Return the level and the methods of a login, as the provider's configuration translates the provider's `acr` and
    `amr`. The level is empty if none of these values is in `mfa` or `phishing_resistant`: the login is a single factor.
    """
    amr = tuple(one for one in identity.amr if one in provider.mfa or one in provider.phishing_resistant)
    stated = {identity.acr, *amr}
    if not stated.isdisjoint(provider.phishing_resistant):
        return PERSON_PHR, amr
    return ("" if stated.isdisjoint(provider.mfa) else PERSON_MFA), amr
