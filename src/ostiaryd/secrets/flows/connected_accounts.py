"""Connected accounts: the providers, the connections of persons, and the revocation of refresh tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace

from ostiary.protocol.errors import Conflict, Invalid, NotFound
from ostiaryd.ground.crypto.keyring import Keyring
from ostiaryd.ground.database import Reader, Tx
from ostiaryd.ground.http.pages import Page
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows as registry
from ostiaryd.secrets import store
from ostiaryd.secrets.flows.leases import revoke_leases
from ostiaryd.secrets.flows.seal import check_open, open_value, seal_value
from ostiaryd.secrets.model.connected_account import (
    MAX_PROVIDERS,
    MAX_SECRET,
    OAUTH_MOUNT,
    AccountProvider,
    AccountRefused,
    AccountState,
    ConnectedAccount,
    TokenAnswer,
    check_provider,
    check_token_answer,
)
from ostiaryd.secrets.model.lease import (
    MAX_ERROR,
    TAKEOVER_S,
    LeaseState,
    next_try,
)
from ostiaryd.secrets.model.request import SECOND
from ostiaryd.secrets.model.sealing import Envelope, Place

ENDED_AT_ONCE = 1000
MAX_SHOWN_AGENTS = 20


# --- providers


def add_provider(act: Act, provider: AccountProvider, *, client_secret: str) -> AccountProvider:
    """Add a provider at which persons can connect accounts; return it. Raises Invalid for invalid settings, Conflict
    for a name that is taken, or too many providers, and Sealed while the secrets are sealed.
    """
    _note_provider(act, provider)
    check_provider(provider)
    if store.connected_accounts.provider(act.tx, provider.name) is not None:
        raise Conflict(
            "an account provider of this name exists already",
            hint=f"see `ostiary account-provider show {provider.name}`",
        )
    if len(store.connected_accounts.providers(act.tx)) >= MAX_PROVIDERS:
        raise Conflict(
            f"the server has {MAX_PROVIDERS} account providers, which is the limit", hint="remove a provider first"
        )
    store.connected_accounts.insert_provider(
        act.tx, provider, _seal_secret(act, provider.name, client_secret) if client_secret else None
    )
    return provider


def change_provider(
    act: Act,
    name: str,
    *,
    client_secret: str = "",
    scopes: tuple[str, ...] | None = None,
    roles: tuple[str, ...] | None = None,
) -> AccountProvider:
    """Change settings of a provider, and return it. None, or an empty `client_secret`, leaves a setting unchanged. A
    connected account keeps only the scopes that the provider still has. Raises NotFound for an unknown provider,
    Invalid for invalid settings, and Sealed while the secrets are sealed.
    """
    provider = find_provider(act.tx, name)
    changed = replace(
        provider,
        scopes=provider.scopes if scopes is None else scopes,
        roles=provider.roles if roles is None else roles,
    )
    _note_provider(act, changed)
    check_provider(changed)
    if client_secret:
        if not provider.authentication.startswith("client_secret"):
            raise Invalid(f"a provider with the authentication `{provider.authentication}` cannot have a client secret")
        store.connected_accounts.set_secret(act.tx, name, _seal_secret(act, name, client_secret))
    store.connected_accounts.update_provider(act.tx, changed)
    return changed


def remove_provider(act: Act, name: str) -> None:
    """Mark a provider as removed. Its connected accounts end; when their tokens are revoked, the provider is deleted.
    Raises NotFound if there is none.
    """
    provider = find_provider(act.tx, name)
    _note_provider(act, provider)
    store.connected_accounts.remove_provider(act.tx, name)
    end_removed(act, provider)


def end_removed(act: Act, provider: AccountProvider) -> None:
    """End at most `ENDED_AT_ONCE` connected accounts of a removed provider. If the provider has neither accounts nor
    leases, delete the provider instead.
    """
    _note_provider(act, provider)
    accounts = store.connected_accounts.of_provider(act.tx, provider.name, limit=ENDED_AT_ONCE)
    for account in accounts:
        if account.state is not AccountState.ENDING:
            _end(act, account, why="the provider was removed")
    if not accounts and not store.leases.of_role(act.tx, OAUTH_MOUNT, provider.name, limit=1):
        store.connected_accounts.delete_provider(act.tx, provider.name)


def may_end_removed(reader: Reader, provider: AccountProvider) -> bool:
    """Return whether `end_removed` would change something now: the provider has an account that is not ending, or
    neither accounts nor leases.
    """
    accounts = store.connected_accounts.of_provider(reader, provider.name, limit=ENDED_AT_ONCE)
    if accounts:
        return any(account.state is not AccountState.ENDING for account in accounts)
    return not store.leases.of_role(reader, OAUTH_MOUNT, provider.name, limit=1)


def find_provider(reader: Reader, name: str) -> AccountProvider:
    """Return a provider that is not marked as removed. Raises NotFound if there is none."""
    provider = store.connected_accounts.provider(reader, name)
    if provider is None or provider.removed_at is not None:
        raise NotFound(
            f"account provider {name[:64]!a} not found", hint="list the providers with `ostiary account-provider list`"
        )
    return provider


def list_providers(reader: Reader) -> list[AccountProvider]:
    """Return the providers, sorted by name."""
    return [provider for provider in store.connected_accounts.providers(reader) if provider.removed_at is None]


def list_removed(reader: Reader) -> list[AccountProvider]:
    """Return the providers that are marked as removed and not deleted yet."""
    return store.connected_accounts.providers(reader, is_removed=True)


def open_client_secret(reader: Reader, provider: AccountProvider, *, keys: Keyring) -> str:
    """Return the decrypted client secret of a provider.

    Raises Sealed if the secrets are sealed; Conflict if the provider was removed or added again meanwhile; Invalid if
    the provider has no client secret.
    """
    _check_same(store.connected_accounts.provider(reader, provider.name), provider)
    envelope = store.connected_accounts.client_secret(reader, provider.name)
    if envelope is None:
        raise Invalid("the provider has no client secret")
    return open_value(reader, envelope, _secret_place(provider.name), keys=keys).decode()


def _check_same(present: AccountProvider | None, provider: AccountProvider) -> None:
    """Check that `present`, the stored provider, is the same as `provider` and was not removed and added again under
    this name. Raises Conflict otherwise.
    """
    if present is None or present.added_at != provider.added_at:
        raise Conflict("the provider was removed meanwhile", hint="begin again on the page of connected accounts")


def _seal_secret(act: Act, name: str, client_secret: str) -> Envelope:
    if len(client_secret) > MAX_SECRET or not client_secret.isascii() or not client_secret.isprintable():
        raise Invalid(f"`client_secret` must be printable ASCII of at most {MAX_SECRET} characters")
    return seal_value(act.tx, client_secret.encode(), _secret_place(name))


def _secret_place(name: str) -> Place:
    return OAUTH_MOUNT, f"config/{name}", 1


def refresh_place(account_id: str) -> Place:
    """Return the place of an account's refresh token: associated data of its encryption, so that its ciphertext cannot
    be decrypted as the token of another account.
    """
    return OAUTH_MOUNT, f"refresh/{account_id}", 1


def shared_place(account_id: str) -> Place:
    """Return the place of an account's shared access token: associated data of its encryption, so that its ciphertext
    cannot be decrypted as the token of another account.
    """
    return OAUTH_MOUNT, f"shared/{account_id}", 1


def _note_provider(act: Act, provider: AccountProvider) -> None:
    registry.fill_entry(
        act,
        object=provider.name,
        issuer=provider.issuer,
        token_endpoint=provider.token_endpoint,
        client_id=provider.client_id,
        scopes=list(provider.scopes[:32]),
        roles=list(provider.roles),
    )


# --- connections


def check_may_connect(reader: Reader, provider: AccountProvider, person: str) -> None:
    """Check that the person has one of the roles that may connect and use accounts at this provider. Raises
    AccountRefused otherwise.
    """
    if not may_connect(reader, provider, person):
        raise AccountRefused(
            f"the roles of the person do not permit accounts at {provider.label}",
            hint=f"the person needs one of the roles {', '.join(provider.roles)}",
            code="role_required",
        )


def may_connect(reader: Reader, provider: AccountProvider, person: str) -> bool:
    """Return whether a person has one of the roles that may connect accounts at a provider; a provider without roles
    permits every person.
    """
    return not provider.roles or bool(registry.list_person_roles(reader, person) & frozenset(provider.roles))


def begin_connection(act: Act, name: str, person: str, scopes: frozenset[str]) -> AccountProvider:
    """Record that a person begins to connect an account with these scopes; return the provider, to which the caller
    redirects the person.

    Raises NotFound for an unknown provider; AccountRefused if the person may not connect an account there; Invalid for
    no scope, or a scope that the provider does not offer; Conflict if the person has connected an account there; Sealed
    if the secrets are sealed.
    """
    provider = find_provider(act.tx, name)
    registry.fill_entry(act, object=name, scopes=sorted(scopes))
    check_open(act.tx)
    act.check_granting()
    check_may_connect(act.tx, provider, person)
    if unoffered := scopes - frozenset(provider.scopes):
        raise Invalid(
            f"{provider.label} does not offer the scope {min(unoffered)[:64]!a}",
            hint="choose scopes from the list on the page",
            code="no_scope",
        )
    if provider.scopes and not scopes:
        raise Invalid("choose at least one scope on the page", code="no_scope")
    check_free(act.tx, provider, person)
    return provider


def check_free(reader: Reader, provider: AccountProvider, person: str) -> None:
    """Check that a person may begin a new connection at a provider: the person's present connection there, if any, is
    broken. Raises Conflict if the connection is active or is still being ended, and Sealed while the secrets are
    sealed.
    """
    check_open(reader)
    present = store.connected_accounts.find(reader, person, provider.name)
    if present is not None and present.state is AccountState.ACTIVE:
        raise Conflict("an account is connected already", hint="disconnect the account first")
    if present is not None and present.state is AccountState.ENDING:
        raise Conflict("the earlier connection is still being ended at the provider", hint="try again in a minute")


def connect_account(
    act: Act, provider: AccountProvider, person: str, answer: TokenAnswer, *, requested: frozenset[str]
) -> ConnectedAccount:
    """Connect an account of a person at a provider, or replace a broken connection; return the account.

    `answer`: the provider's token response; `requested`: the requested scopes. Raises NotFound if the provider was
    removed meanwhile; Conflict if it was removed and added again, or the person has connected an account there;
    AccountRefused if the person may not connect an account or the response is not acceptable; Sealed if the secrets are
    sealed.
    """
    registry.fill_entry(act, object=provider.name, scopes=sorted(requested))
    act.check_granting()
    present = find_provider(act.tx, provider.name)
    _check_same(present, provider)
    provider = present  # the scopes and roles of the provider may have changed
    check_may_connect(act.tx, provider, person)
    check_free(act.tx, provider, person)
    token = check_token_answer(provider, answer, requested=requested, now=act.now)
    if not answer.refresh_token:
        raise AccountRefused(
            f"the response of {provider.label} has no refresh token",
            hint="request the scope `offline_access`, or turn on expiring tokens in the settings at the provider",
            code="no_refresh_token",
        )
    if (broken := store.connected_accounts.find(act.tx, person, provider.name)) is not None:
        end_leases_of(act, broken, why="the account was connected again")
        store.connected_accounts.delete(act.tx, broken.account_id)
    account = ConnectedAccount(
        account_id=act.new_id("ca"),
        provider=provider.name,
        person=person,
        scopes=token.scopes,
        state=AccountState.ACTIVE,
        token_expires_at=token.expires_at,
        rotation=0,
        connected_at=act.now,
        refreshed_at=act.now,
    )
    registry.fill_entry(act, object=account.account_id, provider=provider.name, scopes=sorted(account.scopes))
    store.connected_accounts.insert(
        act.tx,
        account,
        refresh_token=seal_value(act.tx, answer.refresh_token.encode(), refresh_place(account.account_id)),
        token=seal_value(act.tx, token.text.encode(), shared_place(account.account_id)),
    )
    return account


def end_account(act: Act, account_id: str, *, person: str | None = None, is_forgotten: bool = False) -> None:
    """End a connection: its access tokens end now, and its refresh token is then revoked at the provider.

    `person`: end the connection only if it belongs to this person; None: any person. `is_forgotten`: delete the account
    even if the provider has not revoked its token. Raises NotFound if there is no such account, or it belongs to
    another person.
    """
    act.entry.object = account_id[:200]
    account = store.connected_accounts.get(act.tx, account_id)
    if account is None or person not in (None, account.person):
        raise NotFound("connected account not found", hint="list the accounts with `ostiary connected-account list`")
    _end(act, account, why="disconnected")
    if is_forgotten:
        registry.fill_entry(act, object=account_id, forgotten=True)
        store.connected_accounts.delete(act.tx, account_id)


def end_own_account(act: Act, name: str, person: str) -> None:
    """End the connection of a person at the provider `name`. Raises NotFound if there is none."""
    act.entry.object = name[:64]
    account = store.connected_accounts.find(act.tx, person, name)
    if account is None:
        raise NotFound("connected account not found", hint="list your accounts at `/accounts` of this server")
    _end(act, account, why="disconnected by the person")


def end_departed(act: Act, accounts: Sequence[ConnectedAccount]) -> None:
    """End the connected accounts of persons who have left."""
    for account in accounts:
        _end(act, account, why="the person left")
    registry.fill_entry(act, object="connected accounts", accounts=[account.account_id for account in accounts[:100]])


def _end(act: Act, account: ConnectedAccount, *, why: str) -> None:
    note_account(act, account, why=why)
    if account.state is not AccountState.ENDING:
        store.connected_accounts.set_state(act.tx, account.account_id, AccountState.ENDING)
    else:
        store.connected_accounts.postpone(
            act.tx, account.account_id, attempts=account.attempts, due_at=act.now, error=account.error
        )
    end_leases_of(act, account, why=why)


def end_leases_of(act: Act, account: ConnectedAccount, *, why: str) -> None:
    """End the leases of all access tokens of an account, with the reason `why`."""
    after = ""
    while ids := store.connected_accounts.leases_of(act.tx, account.account_id, after=after, limit=ENDED_AT_ONCE):
        leases = [lease for id in ids if (lease := store.leases.get(act.tx, id)) is not None]
        revoke_leases(act, [lease for lease in leases if lease.state is not LeaseState.REVOKING], why=why)
        after = ids[-1]


def break_all_accounts(act: Act) -> int:
    """Mark every active connection as broken after the database lost a part of its history, because connections may
    have ended in the lost part. Return the number of connections that were marked.
    """
    count, page = 0, Page(ENDED_AT_ONCE, "")
    while accounts := store.connected_accounts.page(act.tx, page):
        for account in accounts:
            if account.state is AccountState.ACTIVE:
                why = "the server lost a part of its history"
                store.connected_accounts.set_state(act.tx, account.account_id, AccountState.BROKEN, error=why)
                count += 1
        page = Page(ENDED_AT_ONCE, accounts[-1].account_id)
    return count


def list_using_agents(reader: Reader, account: ConnectedAccount) -> list[str]:
    """Return the names of the agents that have an access token of an account now, sorted, at most 20."""
    ids = store.connected_accounts.agents_of(reader, account.account_id, limit=MAX_SHOWN_AGENTS)
    return sorted(agent.name for id in ids if (agent := registry.get_agent(reader, id)) is not None)


def note_account(act: Act, account: ConnectedAccount, **more: Any) -> None:
    """Write a connected account and its person into the entry of the act."""
    act.entry.person = act.entry.person or account.person
    registry.fill_entry(act, object=account.account_id, provider=account.provider, **more)


# --- revocation at the provider


def find_departed(reader: Reader, *, since: int) -> list[ConnectedAccount]:
    """Return at most `ENDED_AT_ONCE` connected accounts, not yet ending, of persons who have left since `since`
    (microseconds).
    """
    return store.connected_accounts.of_departed(reader, since=since, limit=ENDED_AT_ONCE)


def claim_end(tx: Tx, account: ConnectedAccount) -> str | None:
    """Claim the revocation of an account's refresh token for this process, and return the token. Return None if no
    revocation is due, or another process has the claim. Raises Sealed while the secrets are sealed, Conflict if the
    stored token cannot be decrypted.
    """
    if not store.connected_accounts.claim_end(tx, account.account_id, until=tx.now + TAKEOVER_S * SECOND):
        return None
    id = account.account_id
    return open_value(tx, store.connected_accounts.refresh_token(tx, id), refresh_place(id), keys=tx.keys).decode()


def delete_account(act: Act, account: ConnectedAccount, *, is_revoked: bool) -> None:
    """Delete an account whose refresh token is revoked, or (`is_revoked` false) cannot be revoked at the provider."""
    note_account(act, account, revoked=is_revoked)
    if store.connected_accounts.get(act.tx, account.account_id) is not None:
        store.connected_accounts.delete(act.tx, account.account_id)


def postpone_end(tx: Tx, account: ConnectedAccount, why: str) -> None:
    """Record that a revocation failed because of `why`, and schedule the next attempt."""
    attempts = account.attempts + 1
    due_at = next_try(attempts, now=tx.now)
    store.connected_accounts.postpone(tx, account.account_id, attempts=attempts, due_at=due_at, error=why[:MAX_ERROR])


def tell_stuck(act: Act, account: ConnectedAccount, why: str) -> None:
    """Write into the act's ledger entry that the refresh token of an account could not be revoked because of `why`."""
    note_account(act, account, why=why[:MAX_ERROR])
