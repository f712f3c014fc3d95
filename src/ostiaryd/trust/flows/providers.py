"""Identity providers: add, change and remove providers, link accounts, and admit a person whom a provider has
authenticated.
"""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from ostiary.protocol.errors import Conflict, Invalid, NotFound
from ostiaryd.ground.crypto.keyring import Keyring
from ostiaryd.ground.database import Reader
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Person, check_email, check_not_stopped
from ostiaryd.trust import store
from ostiaryd.trust.flows.sessions import end_sessions_of_provider
from ostiaryd.trust.model import Spend
from ostiaryd.trust.model.providers import (
    MAX_PROVIDERS,
    MAX_SECRET,
    MAX_WORD,
    Identity,
    Provider,
    ProviderRefused,
    apply_rules,
    check_provider,
)

_PURPOSE = "client secrets of login providers"


def add_provider(act: Act, provider: Provider, *, client_secret: str) -> Provider:
    """Register and return a login provider, at which persons can log in. Raises Invalid for unusable settings, Conflict
    for a taken name or issuer, and for too many providers.
    """
    _note(act, provider)
    check_provider(provider)
    hint = "ostiary login-provider list"
    if store.providers.find(act.tx, provider.name) is not None:
        raise Conflict(f"a login provider with the name `{provider.name}` exists", hint=hint, code="provider_exists")
    if (other := store.providers.by_issuer(act.tx, provider.issuer)) is not None:
        message = f"the login provider `{other.name}` has the same issuer"
        raise Conflict(message, hint=hint, code="provider_exists")
    if len(store.providers.providers(act.tx)) >= MAX_PROVIDERS:
        raise Conflict(f"there are {MAX_PROVIDERS} login providers, the maximum", hint="remove a provider first")
    provider = _seal(act, provider, client_secret)
    store.providers.insert(act.tx, provider)
    return provider


def change_provider(act: Act, name: str, changes: dict[str, Any], *, client_secret: str = "") -> Provider:
    """Change settings of a provider and return it. Name, issuer and protocol cannot change. An empty `client_secret`
    leaves the secret unchanged. Raises NotFound for an unknown provider, Invalid for unusable settings.
    """
    provider = check_provider(replace(find_provider(act.tx, name), **changes))
    _note(act, provider)
    if client_secret:
        provider = _seal(act, provider, client_secret)
    store.providers.update(act.tx, provider)
    return provider


def remove_provider(act: Act, name: str) -> Provider:
    """Remove and return a login provider. End the sessions that began with a login by the provider, and the roles that
    its rules gave; memberships in teams stay. Raises NotFound for an unknown provider.
    """
    provider = find_provider(act.tx, name)
    _note(act, provider)
    registry.end_roles_of_source(act, provider.provider_id)
    end_sessions_of_provider(act, provider.issuer)
    store.providers.delete(act.tx, provider.provider_id)
    return provider


def find_provider(reader: Reader, name: str) -> Provider:
    """Return a provider by name or id. Raises NotFound if there is none."""
    if (provider := store.providers.find(reader, name)) is None:
        raise NotFound(f"there is no login provider {name[:64]!a}", hint="`ostiary login-provider list` shows all")
    return provider


def link_account(act: Act, name: str, sub: str, person: str) -> Person:
    """Link an account at a provider (by its subject) to a person (id or name), and return the person. An earlier link
    of the account is replaced. If the earlier link led to another person, the sessions that the other person began by
    the provider end. Raises NotFound for an unknown provider or person, Invalid for a malformed subject.
    """
    provider, linked = find_provider(act.tx, name), registry.find_person(act.tx, person)
    registry.fill_entry(act, object=linked.person_id, name=linked.name, issuer=provider.issuer, sub=sub[:MAX_WORD])
    _check_sub(sub)
    if (before := store.providers.linked(act.tx, provider.issuer, sub)) not in (None, linked.person_id):
        end_sessions_of_provider(act, provider.issuer, person=before)
    store.providers.link(act.tx, provider.issuer, sub, linked.person_id)
    return linked


def unlink_account(act: Act, name: str, sub: str) -> None:
    """Remove the link of an account at a provider, and end the sessions that the linked person began by that provider.
    Raises NotFound for an unknown provider, and if no person is linked.
    """
    provider = find_provider(act.tx, name)
    registry.fill_entry(act, object=provider.provider_id, issuer=provider.issuer, sub=sub[:MAX_WORD])
    if (person := store.providers.linked(act.tx, provider.issuer, sub)) is not None:
        end_sessions_of_provider(act, provider.issuer, person=person)
    if not store.providers.unlink(act.tx, provider.issuer, sub):
        raise NotFound(
            "no person is linked to this `sub`",
            hint=f"list the linked accounts: ostiary login-provider accounts {provider.name}",
        )


def open_client_secret(provider: Provider, keys: Keyring) -> str:
    """Return the decrypted client secret of a provider, whose `sealed` must not be None. Raises Conflict if another
    root key encrypted the secret.
    """
    assert provider.sealed is not None
    return keys.open_value(provider.sealed, purpose=_PURPOSE, context=_context(provider)).decode()


def spend_answer(act: Act, answer: Spend) -> bool:
    """Mark the response of a provider as used until its expiry. Return false if it has expired or was used before."""
    return act.now < answer.until and store.proofs.spend(act.tx, answer)


def admit(act: Act, provider_id: str, identity: Identity) -> Person:
    """Return the person whom a provider has authenticated; at the first login the person is created.

    1. The link of issuer and subject determines the person; an e-mail address is never used. 2. Without a link, an
    account is created if the provider's setting allows it. 3. The person must be active and not stopped. 4. Roles and
    teams are set from the groups by the current rules; if the provider states no groups, the rules give no role and no
    team. Raises ProviderRefused for a person who has no account or is not active, Forbidden for a person whom the kill
    switch stops, NotFound for a provider that was removed meanwhile.
    """
    provider = find_provider(act.tx, provider_id)
    registry.fill_entry(act, object=provider.provider_id, provider=provider.name, sub=identity.sub)
    linked = store.providers.linked(act.tx, identity.issuer, identity.sub)
    if linked is None and provider.accounts == "refuse":
        raise ProviderRefused(
            "you have no account on this server",
            hint="ask an administrator, who finds your account in the ledger: ostiary audit search",
            code="no_account",
        )
    person = _create(act, identity) if linked is None else registry.find_person(act.tx, linked)
    act.entry.person = person.person_id
    if not person.is_active:
        word = "is suspended" if person.absence_code == "person_suspended" else "has ended"
        raise ProviderRefused(f"your account {word}", hint="ask an administrator", code=person.absence_code)
    check_not_stopped(registry.list_stops(act.tx), [("owner", person.person_id)])
    _follow_groups(act, provider, person, identity)
    return person


def _create(act: Act, identity: Identity) -> Person:
    name = identity.name
    if registry.get_owner(act.tx, name) is not None:
        name = f"{name[:50]}-{act.tx.random(4).hex()}"
    email = None
    if identity.email is not None:
        try:
            email = check_email(identity.email)
        except Invalid:
            email = None  # the server does not need the e-mail address
    object, detail = act.entry.object, act.entry.detail
    person = registry.create_person(act, name=name, email=email)
    act.entry.object, act.entry.detail = object, {**(detail or {}), "created": person.person_id, "name": name}
    store.providers.link(act.tx, identity.issuer, identity.sub, person.person_id)
    return person


def _follow_groups(act: Act, provider: Provider, person: Person, identity: Identity) -> None:
    """Give a person the roles and teams of their groups by the rules of the provider, and end roles that its rules no
    longer give. Groups that the provider does not state count as none.

    A team does not record which rule added a member, so a member stays when a rule is removed.
    """
    granted = apply_rules(provider.rules, identity.groups or ())
    registry.set_roles_of_source(act, person.person_id, granted.roles, source=provider.provider_id)
    for name in sorted({rule.team for rule in provider.rules if rule.team}):
        registry.set_membership(act, name, person.person_id, is_member=name in granted.teams)
    registry.fill_entry(
        act,
        object=provider.provider_id,
        roles=sorted(granted.roles),
        teams=sorted(granted.teams),
        groups="unknown" if provider.rules and identity.groups is None else "",
    )


def _seal(act: Act, provider: Provider, client_secret: str) -> Provider:
    if not client_secret:
        return provider
    if len(client_secret) > MAX_SECRET or not client_secret.isascii() or not client_secret.isprintable():
        raise Invalid(f"the client secret must have at most {MAX_SECRET} characters, all printable ASCII")
    key = act.tx.keys.value_key(_PURPOSE)
    sealed = key.seal(client_secret.encode(), context=_context(provider), random=act.tx.random)
    return replace(provider, sealed=sealed)


def _context(provider: Provider) -> bytes:
    return f"login provider|{provider.provider_id}".encode()


def _check_sub(sub: str) -> None:
    if not 0 < len(sub) <= MAX_WORD or not sub.isprintable():
        raise Invalid(f"`sub` must have 1 to {MAX_WORD} printable characters")


def _note(act: Act, provider: Provider) -> None:
    registry.fill_entry(
        act,
        object=provider.provider_id,
        name=provider.name,
        issuer=provider.issuer,
        accounts=provider.accounts,
        rules=[f"{rule.group[:64]} -> {rule.role or rule.team}" for rule in provider.rules[:32]],
        mfa=list(provider.mfa[:16]),
        phishing_resistant=list(provider.phishing_resistant[:16]),
    )
