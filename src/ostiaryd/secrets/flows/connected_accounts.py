"""Operations on connected accounts: providers, connections, refreshes, and access tokens under leases.

The refresh token of an account is changed by one refresh at a time, which holds a claim. A refresh writes the new
refresh token and the access token of the lease in one act. Under the claim it has data keys for both, so that an answer
is stored also if the secrets were sealed meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from msgspec.structs import replace

from ostiary.protocol.errors import Conflict, Forbidden, Invalid, NotFound, Refused
from ostiaryd.ground.crypto.keyring import Keyring
from ostiaryd.ground.database import Reader, Tx
from ostiaryd.ground.http.pages import Page
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import AgentId, Holding, HoldingId
from ostiaryd.secrets.flows.leases import MAX_LEASES, abandon_lease, revoke_leases
from ostiaryd.secrets.flows.seal import Sealed, check_open, make_data_key, open_value, seal_value
from ostiaryd.secrets.model import sealing
from ostiaryd.secrets.model.connected_account import (
    AGAIN,
    CLAIM_S,
    FRESH_S,
    MAX_PROVIDERS,
    MAX_SECRET,
    MOUNT,
    AccessToken,
    AccountProvider,
    AccountRefused,
    AccountState,
    ConnectedAccount,
    NotConnected,
    TokenAnswer,
    check_provider,
    check_token_answer,
    choose_scopes,
)
from ostiaryd.secrets.model.lease import (
    KIND,
    LONGEST_TTL,
    MAX_ERROR,
    TAKEOVER_S,
    Lease,
    LeaseState,
    LeaseStatements,
    next_try,
)
from ostiaryd.secrets.model.request import SECOND, Answer
from ostiaryd.secrets.model.sealing import DataKey, Envelope, Place
from ostiaryd.secrets.model.token import KIND as TOKEN_KIND
from ostiaryd.secrets.store import connected_accounts as store
from ostiaryd.secrets.store import leases as lease_store
from ostiaryd.tokens import flows as consents

ENDED_AT_ONCE = 1000
ROLE_PREFIX = f"{MOUNT}/"
"""The column `role` of a lease of a token is this prefix and the provider; the role of a database has no slash."""


# --- providers


def add_provider(act: Act, provider: AccountProvider, *, client_secret: str) -> AccountProvider:
    """Let persons connect accounts at a provider. Raises Invalid, Conflict, Sealed."""
    _note_provider(act, provider)
    check_provider(provider)
    if store.provider(act.tx, provider.name) is not None:
        raise Conflict(
            "there is an account provider of that name", hint=f"ostiary account-provider show {provider.name}"
        )
    if len(store.providers(act.tx)) >= MAX_PROVIDERS:
        raise Conflict(f"there are {MAX_PROVIDERS} account providers", hint="remove one first")
    store.insert_provider(act.tx, provider, _seal_secret(act, provider.name, client_secret) if client_secret else None)
    return provider


def change_provider(
    act: Act,
    name: str,
    *,
    client_secret: str = "",
    scopes: tuple[str, ...] | None = None,
    roles: tuple[str, ...] | None = None,
) -> AccountProvider:
    """Change settings of a provider; accounts keep at most the scopes that stay. Raises NotFound, Invalid, Sealed."""
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
            raise Invalid(f"`{provider.authentication}` has no client secret")
        store.set_secret(act.tx, name, _seal_secret(act, name, client_secret))
    store.update_provider(act.tx, changed)
    return changed


def remove_provider(act: Act, name: str) -> None:
    """Remove a provider: its accounts end, and the provider is deleted once their tokens are revoked. Raises
    NotFound.
    """
    provider = find_provider(act.tx, name)
    _note_provider(act, provider)
    store.remove_provider(act.tx, name)
    end_removed(act, provider)


def end_removed(act: Act, provider: AccountProvider) -> None:
    """End accounts of a removed provider; delete the provider if it has none."""
    _note_provider(act, provider)
    accounts = store.of_provider(act.tx, provider.name, limit=ENDED_AT_ONCE)
    for account in accounts:
        if account.state is not AccountState.ENDING:
            _end(act, account, why="the provider was removed")
    if not accounts and not lease_store.of_role(act.tx, ROLE_PREFIX + provider.name, limit=1):
        store.delete_provider(act.tx, provider.name)


def may_end_removed(reader: Reader, provider: AccountProvider) -> bool:
    """Return whether `end_removed` would change something now."""
    accounts = store.of_provider(reader, provider.name, limit=ENDED_AT_ONCE)
    if accounts:
        return any(account.state is not AccountState.ENDING for account in accounts)
    return not lease_store.of_role(reader, ROLE_PREFIX + provider.name, limit=1)


def find_provider(reader: Reader, name: str) -> AccountProvider:
    """Return a provider that is not being removed. Raises NotFound."""
    provider = store.provider(reader, name)
    if provider is None or provider.removed_at is not None:
        raise NotFound(f"there is no account provider {name[:64]!a}", hint="ostiary account-provider list")
    return provider


def get_provider(reader: Reader, name: str) -> AccountProvider | None:
    """Return a provider, also during its removal; None if there is none."""
    return store.provider(reader, name)


def list_providers(reader: Reader) -> list[AccountProvider]:
    """Return the providers by name."""
    return [provider for provider in store.providers(reader) if provider.removed_at is None]


def list_removed(reader: Reader) -> list[AccountProvider]:
    """Return the providers that are being removed."""
    return store.providers(reader, is_removed=True)


def open_client_secret(reader: Reader, name: str, *, keys: Keyring) -> str:
    """Return the client secret of a provider. Raises Sealed, Conflict; Invalid if the provider has none."""
    envelope = store.client_secret(reader, name)
    if envelope is None:
        raise Invalid("the provider has no client secret")
    return open_value(reader, envelope, _secret_place(name), keys=keys).decode()


def _seal_secret(act: Act, name: str, client_secret: str) -> Envelope:
    if len(client_secret) > MAX_SECRET or not client_secret.isascii() or not client_secret.isprintable():
        raise Invalid(f"the client secret is not printable ASCII of at most {MAX_SECRET} characters")
    return seal_value(act.tx, client_secret.encode(), _secret_place(name))


def _secret_place(name: str) -> Place:
    return MOUNT, f"config/{name}", 1


def _refresh_place(account_id: str) -> Place:
    return MOUNT, f"refresh/{account_id}", 1


def _shared_place(account_id: str) -> Place:
    return MOUNT, f"shared/{account_id}", 1


def _token_place(lease_id: str) -> Place:
    return MOUNT, lease_id, 1


def _note_provider(act: Act, provider: AccountProvider) -> None:
    registry.note(
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
    """Check that a person may connect an account, and use one. Raises AccountRefused."""
    if not may_connect(reader, provider, person):
        raise AccountRefused(
            f"accounts at {provider.label} are for people with another role",
            hint=f"one of: {', '.join(provider.roles)}",
            code="role_required",
        )


def may_connect(reader: Reader, provider: AccountProvider, person: str) -> bool:
    """Return whether a person may connect an account at a provider."""
    return not provider.roles or bool(registry.list_person_roles(reader, person) & frozenset(provider.roles))


def begin_connection(act: Act, name: str, person: str, scopes: frozenset[str]) -> AccountProvider:
    """Record that a person consents to the connection of an account with these scopes, and goes to the provider.

    Raises NotFound, AccountRefused, Invalid, Conflict, Sealed.
    """
    provider = find_provider(act.tx, name)
    registry.note(act, object=name, scopes=sorted(scopes))
    check_open(act.tx)
    act.check_granting()
    check_may_connect(act.tx, provider, person)
    if not scopes <= frozenset(provider.scopes) or (provider.scopes and not scopes):
        raise Invalid("choose some of the scopes of the page", code="no_scope")
    check_free(act.tx, provider, person)
    return provider


def check_free(reader: Reader, provider: AccountProvider, person: str) -> None:
    """Check that a person has no connection at a provider that is in force or ending. Raises Conflict, Sealed."""
    check_open(reader)
    present = store.find(reader, person, provider.name)
    if present is not None and present.state is AccountState.ACTIVE:
        raise Conflict("an account is connected already", hint="disconnect the account first")
    if present is not None and present.state is AccountState.ENDING:
        raise Conflict("the earlier connection is still being ended at the provider", hint="try again in a minute")


def connect_account(
    act: Act, provider: AccountProvider, person: str, answer: TokenAnswer, *, requested: frozenset[str]
) -> ConnectedAccount:
    """Connect an account of a person, in the place of a broken connection. Raises AccountRefused, Conflict, Sealed."""
    registry.note(act, object=provider.name, scopes=sorted(requested))
    act.check_granting()
    provider = find_provider(act.tx, provider.name)
    check_may_connect(act.tx, provider, person)
    check_free(act.tx, provider, person)
    token = check_token_answer(provider, answer, requested=requested, now=act.now)
    if not answer.refresh_token:
        raise AccountRefused(
            f"{provider.label} gave no refresh token",
            hint="request the scope `offline_access`, or turn on expiring tokens in the settings at the provider",
            code="no_refresh_token",
        )
    if (broken := store.find(act.tx, person, provider.name)) is not None:
        store.delete(act.tx, broken.account_id)
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
    registry.note(act, object=account.account_id, provider=provider.name, scopes=sorted(account.scopes))
    store.insert(
        act.tx,
        account,
        refresh_token=seal_value(act.tx, answer.refresh_token.encode(), _refresh_place(account.account_id)),
        token=seal_value(act.tx, token.text.encode(), _shared_place(account.account_id)),
    )
    return account


def end_account(act: Act, account_id: str, *, person: str | None = None, is_forgotten: bool = False) -> None:
    """End a connection: its access tokens end now, and its refresh token is revoked at the provider.

    `person`: only if it is theirs. `is_forgotten` deletes the account although the provider has not revoked its token.
    Raises NotFound.
    """
    act.entry.object = account_id[:200]
    account = store.get(act.tx, account_id)
    if account is None or person not in (None, account.person):
        raise NotFound("the connected account does not exist", hint="ostiary connected-account list")
    _end(act, account, why="disconnected")
    if is_forgotten:
        registry.note(act, object=account_id, forgotten=True)
        store.delete(act.tx, account_id)


def end_own_account(act: Act, name: str, person: str) -> None:
    """End the connection of a person at a provider. Raises NotFound."""
    act.entry.object = name[:64]
    account = store.find(act.tx, person, name)
    if account is None:
        raise NotFound("the connected account does not exist", hint="see the page of connected accounts")
    _end(act, account, why="disconnected by the person")


def end_departed(act: Act, accounts: Sequence[ConnectedAccount]) -> None:
    """End the connections of persons who have left."""
    for account in accounts:
        _end(act, account, why="the person left")
    registry.note(act, object="connected accounts", accounts=[account.account_id for account in accounts[:100]])


def _end(act: Act, account: ConnectedAccount, *, why: str) -> None:
    _note_account(act, account, why=why)
    if account.state is not AccountState.ENDING:
        store.set_state(act.tx, account.account_id, AccountState.ENDING)
    else:
        store.postpone(act.tx, account.account_id, attempts=account.attempts, due_at=act.now, error=account.error)
    end_leases_of(act, account, why=why)


def end_leases_of(act: Act, account: ConnectedAccount, *, why: str) -> None:
    """End the leases of all access tokens of an account."""
    after = ""
    while ids := store.leases_of(act.tx, account.account_id, after=after, limit=ENDED_AT_ONCE):
        leases = [lease for id in ids if (lease := lease_store.get(act.tx, id)) is not None]
        revoke_leases(act, [lease for lease in leases if lease.state is not LeaseState.REVOKING], why=why)
        after = ids[-1]


def page_accounts(reader: Reader, page: Page, *, person: str | None = None) -> list[ConnectedAccount]:
    """Return a page of the connected accounts, of one person if given."""
    return store.page(reader, page, person=person)


def list_accounts(reader: Reader, person: str) -> list[ConnectedAccount]:
    """Return the connected accounts of a person."""
    return store.of_person(reader, person)


def _note_account(act: Act, account: ConnectedAccount, **more: Any) -> None:
    act.entry.person = act.entry.person or account.person
    registry.note(act, object=account.account_id, provider=account.provider, **more)


# --- access tokens


class IssueToken(NamedTuple):
    """The access token that is to be fetched for a lease."""

    lease: Lease
    provider: AccountProvider
    account: ConnectedAccount
    scopes: frozenset[str]

    def __repr__(self) -> str:
        """Return the lease alone."""
        return f"IssueToken({self.lease.lease_id})"


def find_scopes(act: Act, name: str, requested: frozenset[str]) -> frozenset[str]:
    """Return the scopes of a token for the person of the entry. Raises NotFound, NotConnected, Invalid."""
    provider, account = _find_account(act, name)
    return choose_scopes(account, provider, requested)


def find_scopes_of_lease(act: Act, lease_id: str) -> frozenset[str]:
    """Return the scopes of the token of a lease; none if the lease is unknown."""
    token = store.token(act.tx, lease_id)
    return frozenset() if token is None else token.scopes


def _find_account(act: Act, name: str) -> tuple[AccountProvider, ConnectedAccount]:
    provider, person = find_provider(act.tx, name), act.entry.person
    if person is None:
        raise NotConnected(
            "the task is not on behalf of a person", hint="declare the task with `on_behalf_of`", code="no_person"
        )
    account = store.find(act.tx, person, name)
    if account is None or account.state is AccountState.ENDING:
        raise NotConnected(f"the person has connected no account at {provider.label}", hint=AGAIN)
    if account.state is AccountState.BROKEN:
        raise NotConnected(f"{provider.label} has ended the connection", hint=AGAIN, code="connection_broken")
    return provider, account


def begin_token(act: Act, name: str, requested: frozenset[str]) -> IssueToken | tuple[Lease, AccessToken]:
    """Write the lease of an access token for the caller, whom the entry names.

    Return the token if agents share the present one and it is fresh, else the token to fetch. Raises NotFound,
    NotConnected, AccountRefused, Forbidden, Invalid, Conflict, Sealed.
    """
    act.check_granting()
    check_open(act.tx)
    provider, account = _find_account(act, name)
    scopes = choose_scopes(account, provider, requested)
    check_may_connect(act.tx, provider, account.person)
    _check_trusted(act, account.person)
    lease = _new_lease(act, provider)
    registry.note(
        act, object=f"{MOUNT}/creds/{name}", lease=lease.lease_id, account=account.account_id, scopes=sorted(scopes)
    )
    store.insert_token(act.tx, lease.lease_id, account.account_id, scopes, expires_at=lease.max_at)
    if not provider.shares_tokens or account.token_expires_at < act.now + FRESH_S * SECOND:
        return IssueToken(lease, provider, account, scopes)
    text = open_value(
        act.tx, store.shared_token(act.tx, account.account_id), _shared_place(account.account_id), keys=act.tx.keys
    )
    token = AccessToken(text.decode(), scopes, account.token_expires_at)
    return _confirm(act, lease, token), token


def show_token(lease: Lease, token: AccessToken, *, now: int) -> Answer:
    """Return the answer of the Vault API with an access token."""
    return Answer(
        data={
            "access_token": token.text,
            "token_type": "Bearer",
            "scopes": sorted(token.scopes),
            "provider": lease.database,
            "person": lease.username,
            "expires_at": lease.expires_at // SECOND,
        },
        lease_id=lease.lease_id,
        lease_s=max(0, lease.expires_at - now) // SECOND,
    )


def _check_trusted(act: Act, person: str) -> None:
    """Check that the task began with an agent for which the person is accountable, or to which the person consented.
    Raises Forbidden.
    """
    first = act.entry.actors[-1] if act.entry.actors else act.entry.agent
    assert first is not None  # the caller was authenticated in this act
    agent = registry.find_agent(act.tx, first)
    if registry.answers_for(act.tx, person, agent):
        return
    granted = consents.list_consents(act.tx, person)
    if any(one.agent == first and one.is_live(act.now) for one in granted):
        return
    raise Forbidden(
        "the person neither is accountable for the agent nor has consented to it",
        hint="the person consents at the first sign-in of the agent's application",
        code="no_consent",
    )


def _new_lease(act: Act, provider: AccountProvider) -> Lease:
    agent, task, token = act.entry.agent, act.entry.task, act.entry.token
    assert agent is not None  # the caller was authenticated in this act
    assert task is not None
    assert token is not None
    if lease_store.count_of_agent(act.tx, agent, limit=MAX_LEASES) >= MAX_LEASES:
        raise Conflict(f"the agent has {MAX_LEASES} leases", hint="revoke some", code="too_many_leases")
    login = registry.get_holding(act.tx, token)
    assert login is not None
    has_token = login.kind == TOKEN_KIND
    max_at = min(act.now + LONGEST_TTL, login.expires_at) if has_token else act.now + LONGEST_TTL
    lease = Lease(
        lease_id=f"{MOUNT}/creds/{provider.name}/{act.tx.random(16).hex()}",
        holding=act.new_id("le"),
        agent=agent,
        task=task,
        database=provider.name,
        role=ROLE_PREFIX + provider.name,
        username=act.entry.person or "",
        statements=LeaseStatements(),
        state=LeaseState.CREATING,
        issued_at=act.now,
        renewed_at=None,
        expires_at=max_at,
        max_at=max_at,
        due_at=act.now + TAKEOVER_S * SECOND,
    )
    registry.add_holding(
        act,
        Holding(
            id=HoldingId(lease.holding),
            kind=KIND,
            agent=AgentId(agent),
            task=task,
            parent=login.id if has_token else None,
            client_jkt=login.client_jkt or login.jkt,
            expires_at=max_at,
        ),
    )
    lease_store.insert(act.tx, lease)
    return lease


def _confirm(act: Act, lease: Lease, token: AccessToken) -> Lease:
    """Make the lease of a token live, whose end is at most that of the token."""
    end = min(lease.max_at, token.expires_at)
    lease_store.confirm_until(act.tx, lease.lease_id, expires_at=end)
    return replace(lease, state=LeaseState.LIVE, expires_at=end, max_at=end)


# --- refreshes


class Refresh(NamedTuple):
    """A claimed refresh: the present refresh token, its number, and keys for the new tokens."""

    refresh_token: str
    rotation: int
    began_at: int
    refresh_key: DataKey
    shared_key: DataKey
    token_key: DataKey

    def __repr__(self) -> str:
        """Return the number alone: the token is secret."""
        return f"Refresh({self.rotation})"


def claim_refresh(tx: Tx, issue: IssueToken) -> Refresh | None:
    """Claim the refresh of an account; None if another process has. Raises Sealed, NotConnected."""
    check_open(tx)
    id = issue.account.account_id
    account = store.get(tx, id)
    if account is None or account.state is not AccountState.ACTIVE:
        raise NotConnected("the connection has ended meanwhile", hint=AGAIN)
    if not store.claim(tx, id, until=tx.now + CLAIM_S * SECOND):
        return None
    return Refresh(
        open_value(tx, store.refresh_token(tx, id), _refresh_place(id), keys=tx.keys).decode(),
        account.rotation,
        tx.now,
        make_data_key(tx, _refresh_place(id)),
        make_data_key(tx, _shared_place(id)),
        make_data_key(tx, _token_place(issue.lease.lease_id)),
    )


def find_shared(tx: Tx, issue: IssueToken) -> AccessToken | None:
    """Return the token that agents share, if it has been refreshed meanwhile. Raises Sealed, NotConnected."""
    account = store.get(tx, issue.account.account_id)
    if account is None or account.state is not AccountState.ACTIVE:
        raise NotConnected("the connection has ended meanwhile", hint=AGAIN)
    if not issue.provider.shares_tokens or account.token_expires_at < tx.now + FRESH_S * SECOND:
        return None
    place = _shared_place(account.account_id)
    text = open_value(tx, store.shared_token(tx, account.account_id), place, keys=tx.keys)
    return AccessToken(text.decode(), issue.scopes, account.token_expires_at)


class Outcome(NamedTuple):
    """The lease and the token of a finished refresh, or the refusal."""

    lease: Lease
    token: AccessToken | None = None
    refusal: Refused | None = None


def end_refresh(act: Act, issue: IssueToken, refresh: Refresh, answer: TokenAnswer) -> Outcome:
    """Store the answer of a refresh. The new refresh token is stored in any case.

    An unused access token is stored too, and is revoked at the provider: its lease has ended, or the answer is
    not acceptable.
    """
    tx, id, lease = act.tx, issue.account.account_id, issue.lease
    act.entry.agent, act.entry.task = lease.agent, lease.task
    _note_account(act, issue.account, lease=lease.lease_id, rotated=bool(answer.refresh_token))
    new_token = answer.refresh_token or refresh.refresh_token
    if not store.rotate(tx, id, _seal(tx, refresh.refresh_key, new_token), rotation=refresh.rotation):
        return _refuse(act, issue, NotConnected("the connection has changed meanwhile", hint="try again"))
    store.note_refresh(tx, id)
    try:
        token = check_token_answer(issue.provider, answer, requested=issue.scopes, now=act.now)
    except AccountRefused as refusal:
        _keep(act, issue, refresh, AccessToken(answer.access_token, frozenset(), lease.max_at))
        return _refuse(act, issue, refusal)
    _keep(act, issue, refresh, token)
    if issue.provider.shares_tokens:
        store.share_token(tx, id, _seal(tx, refresh.shared_key, token.text), expires_at=token.expires_at)
    return use_token(act, issue, token)


def use_token(act: Act, issue: IssueToken, token: AccessToken) -> Outcome:
    """Make the lease of a token live, unless lease or account have ended meanwhile, or the secrets were sealed."""
    act.entry.agent, act.entry.task = issue.lease.agent, issue.lease.task
    _note_account(act, issue.account, lease=issue.lease.lease_id, scopes=sorted(token.scopes))
    account, lease = store.get(act.tx, issue.account.account_id), lease_store.get(act.tx, issue.lease.lease_id)
    holding = registry.get_holding(act.tx, issue.lease.holding)
    is_live = lease is not None and lease.state is LeaseState.CREATING and holding is not None
    if not is_live or holding is None or not holding.is_live(act.now):
        ended = Conflict("the lease ended while its token was fetched", hint="request again", code="lease_ended")
        return _refuse(act, issue, ended)
    if account is None or account.state is not AccountState.ACTIVE:
        return _refuse(act, issue, NotConnected("the connection has ended meanwhile", hint=AGAIN))
    try:
        check_open(act.tx)
    except Sealed as refusal:
        return _refuse(act, issue, refusal)
    return Outcome(_confirm(act, issue.lease, token), token)


def fail_refresh(act: Act, issue: IssueToken, refresh: Refresh | None, refusal: Refused) -> None:
    """Record that a lease got no token. If the provider has ended the connection, the account is broken."""
    id, is_ended = issue.account.account_id, refusal.code == "grant_ended"
    abandon_lease(act, issue.lease, refusal.message)
    _note_account(act, issue.account, lease=issue.lease.lease_id, why=refusal.message[:MAX_ERROR])
    account = store.get(act.tx, id)
    if refresh is None or account is None:
        return
    store.release(act.tx, id, rotation=refresh.rotation)
    if is_ended and account.state is AccountState.ACTIVE and account.rotation == refresh.rotation:
        store.set_state(act.tx, id, AccountState.BROKEN, error=refusal.message[:MAX_ERROR])


def _refuse(act: Act, issue: IssueToken, refusal: Refused) -> Outcome:
    abandon_lease(act, issue.lease, refusal.message)
    return Outcome(issue.lease, refusal=refusal)


def _keep(act: Act, issue: IssueToken, refresh: Refresh, token: AccessToken) -> None:
    """Store the access token of a lease, by which it is revoked; agents share the present one of some providers."""
    if not issue.provider.shares_tokens:
        secret = _seal(act.tx, refresh.token_key, token.text)
        store.set_token(act.tx, issue.lease.lease_id, secret, expires_at=token.expires_at)


def _seal(tx: Tx, data_key: DataKey, text: str) -> Envelope:
    """Return the envelope of a token, under the newest wrapping key unless the secrets are sealed."""
    try:
        return seal_value(tx, text.encode(), data_key.place)
    except Sealed:
        return sealing.seal_under(data_key, text.encode(), random=tx.random)


# --- revocation at the provider


def open_token(reader: Reader, lease_id: str, *, keys: Keyring, now: int) -> str | None:
    """Return the access token of a lease that is to be revoked; None if it has expired, or agents share it. Raises
    Sealed.
    """
    token = store.token(reader, lease_id)
    if token is None or token.secret is None or token.expires_at <= now:
        return None
    return open_value(reader, token.secret, _token_place(lease_id), keys=keys).decode()


def find_departed(reader: Reader, *, since: int) -> list[ConnectedAccount]:
    """Return accounts of persons who have left since a time."""
    return store.of_departed(reader, since=since, limit=ENDED_AT_ONCE)


def find_due(reader: Reader, *, now: int, limit: int) -> list[ConnectedAccount]:
    """Return accounts whose refresh token is to be revoked now."""
    return store.due(reader, now=now, limit=limit)


def claim_end(tx: Tx, account: ConnectedAccount) -> str | None:
    """Return the refresh token of an account that is ending, claimed for a while; None if another process has it.
    Raises Sealed, Conflict.
    """
    if not store.claim_end(tx, account.account_id, until=tx.now + TAKEOVER_S * SECOND):
        return None
    id = account.account_id
    return open_value(tx, store.refresh_token(tx, id), _refresh_place(id), keys=tx.keys).decode()


def delete_account(act: Act, account: ConnectedAccount, *, is_revoked: bool) -> None:
    """Delete an account whose refresh token was revoked, or whose provider revokes none."""
    _note_account(act, account, revoked=is_revoked)
    if store.get(act.tx, account.account_id) is not None:
        store.delete(act.tx, account.account_id)


def postpone_end(tx: Tx, account: ConnectedAccount, why: str) -> None:
    """Plan another attempt of a revocation that failed."""
    attempts = account.attempts + 1
    due_at = next_try(attempts, now=tx.now)
    store.postpone(tx, account.account_id, attempts=attempts, due_at=due_at, error=why[:MAX_ERROR])


def tell_stuck(act: Act, account: ConnectedAccount, why: str) -> None:
    """Record that the refresh token of an account could not be revoked."""
    _note_account(act, account, why=why[:MAX_ERROR])
