"""Operations on access tokens of connected accounts: leases, and refreshes.

Only one refresh at a time, which has the claim, changes the refresh token of an account. The refresh stores the new
refresh token and the access token of the lease in one transaction. With the claim, the refresh gets data keys for both
tokens, so that the provider's response can be stored even if the secrets were sealed meanwhile.
"""

from __future__ import annotations

from typing import NamedTuple

from msgspec.structs import replace

from ostiary.protocol.errors import Conflict, Forbidden, Refused
from ostiaryd.ground.crypto.keyring import Keyring
from ostiaryd.ground.database import Reader, Tx
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows as registry
from ostiaryd.secrets import store
from ostiaryd.secrets.flows.connected_accounts import (
    check_may_connect,
    find_provider,
    note_account,
    refresh_place,
    shared_place,
)
from ostiaryd.secrets.flows.leases import abandon_lease, add_lease
from ostiaryd.secrets.flows.seal import Sealed, check_open, make_data_key, open_value, seal_value
from ostiaryd.secrets.model import sealing
from ostiaryd.secrets.model.connected_account import (
    AGAIN,
    CLAIM_S,
    FRESH_S,
    OAUTH_MOUNT,
    REUSE_S,
    AccessToken,
    AccountProvider,
    AccountRefused,
    AccountState,
    ConnectedAccount,
    NotConnected,
    TokenAnswer,
    check_token_answer,
    choose_scopes,
)
from ostiaryd.secrets.model.lease import LONGEST_TTL, MAX_ERROR, Lease, LeaseState, LeaseStatements
from ostiaryd.secrets.model.request import SECOND, Answer
from ostiaryd.secrets.model.sealing import DataKey, Envelope, Place
from ostiaryd.tokens import flows as tokens


class IssueToken(NamedTuple):
    """An access token that must be fetched from the provider: the lease that it is for, the provider and the
    account.
    """

    lease: Lease
    provider: AccountProvider
    account: ConnectedAccount
    scopes: frozenset[str]

    def __repr__(self) -> str:
        """Return a text with only the lease."""
        return f"IssueToken({self.lease.lease_id})"


def find_scopes(act: Act, name: str, requested: frozenset[str]) -> frozenset[str]:
    """Return the scopes of a new access token at the provider `name`, for the person on whose behalf the caller's task
    is. `requested`: the scopes that the request states; empty: all scopes to which the person consented and that the
    provider still has. Raises NotFound for an unknown provider; NotConnected if the task is for no person, or the
    person has no connected account there; Invalid for a scope without the person's consent.
    """
    provider, account = _find_account(act, name)
    return choose_scopes(account, provider, requested)


def find_scopes_of_lease(act: Act, lease_id: str) -> frozenset[str]:
    """Return the scopes of the access token of a lease; empty if the lease is unknown."""
    token = store.connected_accounts.token(act.tx, lease_id)
    return frozenset() if token is None else token.scopes


def _find_account(act: Act, name: str) -> tuple[AccountProvider, ConnectedAccount]:
    provider, person = find_provider(act.tx, name), act.entry.person
    if person is None:
        raise NotConnected(
            "the task has no person on whose behalf the agent acts",
            hint="declare a task with `on_behalf_of`",
            code="no_person",
        )
    account = store.connected_accounts.find(act.tx, person, name)
    if account is None or account.state is AccountState.ENDING:
        raise NotConnected(f"the person has connected no account at {provider.label}", hint=AGAIN)
    if account.state is AccountState.BROKEN:
        raise NotConnected(f"{provider.label} has ended the connection", hint=AGAIN, code="connection_broken")
    return provider, account


def begin_token(act: Act, name: str, requested: frozenset[str]) -> IssueToken | tuple[Lease, AccessToken]:
    """Store the lease of an access token for the caller that the act's ledger entry names.

    If the provider has one access token that all agents share, and it is valid for at least `FRESH_S` seconds, return
    the lease and this token. Otherwise return the token to fetch. Raises NotFound for an unknown provider; NotConnected
    if the task is for no person or the person has no connected account; AccountRefused if the person's roles do not
    permit accounts there; Forbidden if the person is not accountable for the agent and gave no consent; Invalid for a
    scope without consent; Conflict for too many leases; Sealed if the secrets are sealed.
    """
    act.check_granting()
    check_open(act.tx)
    provider, account, scopes = _find_permitted(act, name, requested)
    lease = add_lease(
        act,
        OAUTH_MOUNT,
        database=name,
        role=name,
        username=account.person,
        statements=LeaseStatements(),
        default_ttl=LONGEST_TTL,
        max_ttl=LONGEST_TTL,
    )
    registry.fill_entry(
        act,
        object=f"{OAUTH_MOUNT}/creds/{name}",
        lease=lease.lease_id,
        account=account.account_id,
        scopes=sorted(scopes),
    )
    store.connected_accounts.insert_token(act.tx, lease.lease_id, account.account_id, scopes, expires_at=lease.max_at)
    if not provider.shares_tokens or account.token_expires_at < act.now + FRESH_S * SECOND:
        return IssueToken(lease, provider, account, scopes)
    token = _open_shared(act.tx, account, scopes)
    return _confirm(act, lease, token), token


def use_account(act: Act, name: str, requested: frozenset[str]) -> AccessToken | IssueToken:
    """Return an access token for one request of the agent that the act's ledger entry names, or the token to fetch.

    The token belongs to a live lease of the agent's task with the same scopes; if there is none, to a new lease. Raises
    the errors of `begin_token`.
    """
    check_open(act.tx)
    provider, account, scopes = _find_permitted(act, name, requested)
    agent, task = act.entry.agent, act.entry.task
    assert agent is not None  # the caller was authenticated in this act
    assert task is not None
    until = act.now + REUSE_S * SECOND
    lease_id = store.connected_accounts.find_leased(
        act.tx, account.account_id, scopes, agent=agent, task=task, until=until
    )
    lease = None if lease_id is None else store.leases.get(act.tx, lease_id)
    holding = None if lease is None else registry.get_holding(act.tx, lease.holding)
    if lease is None or holding is None or not holding.is_live(act.now):
        begun = begin_token(act, name, requested)
        return begun if isinstance(begun, IssueToken) else begun[1]
    registry.fill_entry(
        act,
        object=f"{OAUTH_MOUNT}/creds/{name}",
        lease=lease.lease_id,
        account=account.account_id,
        scopes=sorted(scopes),
    )
    if provider.shares_tokens:
        return _open_shared(act.tx, account, scopes)
    text = open_token(act.tx, lease.lease_id, keys=act.tx.keys, now=act.now)
    assert text is not None  # a live lease has its token
    return AccessToken(text, scopes, lease.expires_at)


def _find_permitted(
    act: Act, name: str, requested: frozenset[str]
) -> tuple[AccountProvider, ConnectedAccount, frozenset[str]]:
    """Return the provider, the account and the scopes of an access token that the caller may get. Raises NotFound for
    an unknown provider, NotConnected if the person has no account there, Invalid for scopes outside the consent, and
    Forbidden or AccountRefused if the person may not use the account.
    """
    provider, account = _find_account(act, name)
    scopes = choose_scopes(account, provider, requested)
    check_may_connect(act.tx, provider, account.person)
    _check_trusted(act, account.person)
    return provider, account, scopes


def _open_shared(tx: Tx, account: ConnectedAccount, scopes: frozenset[str]) -> AccessToken:
    """Return the account's access token that all agents share, decrypted. Raises Sealed if the secrets are sealed."""
    place = shared_place(account.account_id)
    text = open_value(tx, store.connected_accounts.shared_token(tx, account.account_id), place, keys=tx.keys)
    return AccessToken(text.decode(), scopes, account.token_expires_at)


def show_token(lease: Lease, token: AccessToken, *, now: int) -> Answer:
    """Return the response of the Vault API that contains an access token and its lease."""
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
    """Check that the task began with an agent for which `person` is accountable, or to which `person` has given
    consent. Raises Forbidden otherwise.
    """
    first = act.entry.actors[-1] if act.entry.actors else act.entry.agent
    assert first is not None  # the caller was authenticated in this act
    agent = registry.find_agent(act.tx, first)
    if registry.answers_for(act.tx, person, agent):
        return
    granted = tokens.list_consents(act.tx, person)
    if any(one.agent == first and one.is_live(act.now) for one in granted):
        return
    raise Forbidden(
        "the person is not accountable for the agent, and has given the agent no consent",
        hint="the person gives consent at the first sign-in of the agent's application",
        code="no_consent",
    )


def _confirm(act: Act, lease: Lease, token: AccessToken) -> Lease:
    """Mark the lease of a token as live, and return the lease. The lease ends at the latest when the token expires."""
    end = min(lease.max_at, token.expires_at)
    store.leases.confirm_until(act.tx, lease.lease_id, expires_at=end)
    return replace(lease, state=LeaseState.LIVE, expires_at=end, max_at=end)


# --- refreshes


class Refresh(NamedTuple):
    """A claimed refresh of an account: the present refresh token, its number (`rotation`), and data keys for the new
    tokens. `began_at`: the time of the claim in microseconds.
    """

    refresh_token: str
    rotation: int
    began_at: int
    refresh_key: DataKey
    shared_key: DataKey
    token_key: DataKey

    def __repr__(self) -> str:
        """Return a text with only the number, because the token is secret."""
        return f"Refresh({self.rotation})"


def claim_refresh(tx: Tx, issue: IssueToken) -> Refresh | None:
    """Claim the refresh of an account for this process, because a refresh token works only once; return None if another
    process has the claim. Raises Sealed if the secrets are sealed; NotConnected if the account is not active.
    """
    check_open(tx)
    id = issue.account.account_id
    account = store.connected_accounts.get(tx, id)
    if account is None or account.state is not AccountState.ACTIVE:
        raise NotConnected("the connection has ended meanwhile", hint=AGAIN)
    if not store.connected_accounts.claim(tx, id, until=tx.now + CLAIM_S * SECOND):
        return None
    return Refresh(
        open_value(tx, store.connected_accounts.refresh_token(tx, id), refresh_place(id), keys=tx.keys).decode(),
        account.rotation,
        tx.now,
        make_data_key(tx, refresh_place(id)),
        make_data_key(tx, shared_place(id)),
        make_data_key(tx, _token_place(issue.lease.lease_id)),
    )


def find_shared(tx: Tx, issue: IssueToken) -> AccessToken | None:
    """Return the account's access token that agents share, if the provider shares tokens and the token is valid for at
    least `FRESH_S` seconds; otherwise None. Raises Sealed if the secrets are sealed; NotConnected if the account is not
    active.
    """
    account = store.connected_accounts.get(tx, issue.account.account_id)
    if account is None or account.state is not AccountState.ACTIVE:
        raise NotConnected("the connection has ended meanwhile", hint=AGAIN)
    if not issue.provider.shares_tokens or account.token_expires_at < tx.now + FRESH_S * SECOND:
        return None
    return _open_shared(tx, account, issue.scopes)


class Outcome(NamedTuple):
    """The result of a refresh: the lease with its access token, or the refusal.

    `is_unused`: the new tokens belong to no account, so they must be revoked at the provider.
    """

    lease: Lease
    token: AccessToken | None = None
    refusal: Refused | None = None
    is_unused: bool = False


def end_refresh(act: Act, issue: IssueToken, refresh: Refresh, answer: TokenAnswer) -> Outcome:
    """Store the provider's response to a refresh; return the outcome.

    The new refresh token is stored if the connection has not changed since the claim. Unless agents share tokens, the
    access token is stored with its lease, so that it can be revoked at the provider. This holds even if the token is
    not usable, because the lease has ended or the response is not acceptable.
    """
    tx, id, lease = act.tx, issue.account.account_id, issue.lease
    act.entry.agent, act.entry.task = lease.agent, lease.task
    note_account(act, issue.account, lease=lease.lease_id, rotated=bool(answer.refresh_token))
    new_token = answer.refresh_token or refresh.refresh_token
    if not store.connected_accounts.rotate(
        tx, id, _seal(tx, refresh.refresh_key, new_token), rotation=refresh.rotation
    ):
        has_other = store.connected_accounts.find(tx, issue.account.person, issue.account.provider) is not None
        if has_other:  # the revocation of the new refresh token might end that connection too
            _keep(act, issue, refresh, AccessToken(answer.access_token, frozenset(), lease.max_at))
        changed = NotConnected("the connection has changed meanwhile", hint="try again")
        return _refuse(act, issue, changed)._replace(is_unused=not has_other)
    store.connected_accounts.note_refresh(tx, id)
    try:
        token = check_token_answer(issue.provider, answer, requested=issue.scopes, now=act.now)
    except AccountRefused as refusal:
        _keep(act, issue, refresh, AccessToken(answer.access_token, frozenset(), lease.max_at))
        return _refuse(act, issue, refusal)
    _keep(act, issue, refresh, token)
    if issue.provider.shares_tokens:
        store.connected_accounts.share_token(
            tx, id, _seal(tx, refresh.shared_key, token.text), expires_at=token.expires_at
        )
    return use_token(act, issue, token)


def use_token(act: Act, issue: IssueToken, token: AccessToken) -> Outcome:
    """Mark the lease of a fetched or shared token as live, and return the outcome. The outcome contains a refusal,
    which is not raised, if the lease or the account has ended, if the agent or its task was stopped, or if the secrets
    were sealed.
    """
    act.entry.agent, act.entry.task = issue.lease.agent, issue.lease.task
    note_account(act, issue.account, lease=issue.lease.lease_id, scopes=sorted(token.scopes))
    account, lease = (
        store.connected_accounts.get(act.tx, issue.account.account_id),
        store.leases.get(act.tx, issue.lease.lease_id),
    )
    holding = registry.get_holding(act.tx, issue.lease.holding)
    is_live = lease is not None and lease.state is LeaseState.CREATING and holding is not None
    if not is_live or holding is None or not holding.is_live(act.now):
        ended = Conflict(
            "the lease ended while its token was fetched", hint="request a new access token", code="lease_ended"
        )
        return _refuse(act, issue, ended)
    if account is None or account.state is not AccountState.ACTIVE:
        return _refuse(act, issue, NotConnected("the connection has ended meanwhile", hint=AGAIN))
    try:
        check_open(act.tx)
        registry.check_holder(act.tx, issue.lease.holding, now=act.now)
    except Refused as refusal:
        return _refuse(act, issue, refusal)
    return Outcome(_confirm(act, issue.lease, token), token)


def fail_refresh(act: Act, issue: IssueToken, refresh: Refresh | None, refusal: Refused) -> None:
    """Record that no token was fetched for a lease, because of `refusal`. If the provider has ended the connection
    (code `grant_ended`), the account becomes broken. `refresh`: the claimed refresh; None if the claim failed.
    """
    id, is_ended = issue.account.account_id, refusal.code == "grant_ended"
    abandon_lease(act, issue.lease, refusal.message)
    note_account(act, issue.account, lease=issue.lease.lease_id, why=refusal.message[:MAX_ERROR])
    account = store.connected_accounts.get(act.tx, id)
    if refresh is None or account is None:
        return
    store.connected_accounts.release(act.tx, id, rotation=refresh.rotation)
    if is_ended and account.state is AccountState.ACTIVE and account.rotation == refresh.rotation:
        store.connected_accounts.set_state(act.tx, id, AccountState.BROKEN, error=refusal.message[:MAX_ERROR])


def _refuse(act: Act, issue: IssueToken, refusal: Refused) -> Outcome:
    abandon_lease(act, issue.lease, refusal.message)
    return Outcome(issue.lease, refusal=refusal)


def _keep(act: Act, issue: IssueToken, refresh: Refresh, token: AccessToken) -> None:
    """Store the access token of a lease, so that the token can be revoked later. A token that agents share is not
    stored with a lease.
    """
    if not issue.provider.shares_tokens:
        secret = _seal(act.tx, refresh.token_key, token.text)
        store.connected_accounts.set_token(act.tx, issue.lease.lease_id, secret, expires_at=token.expires_at)


def _seal(tx: Tx, data_key: DataKey, text: str) -> Envelope:
    """Encrypt a token with a data key under the newest wrapping key; while the secrets are sealed, with `data_key`."""
    try:
        return seal_value(tx, text.encode(), data_key.place)
    except Sealed:
        return sealing.seal_under(data_key, text.encode(), random=tx.random)


def _token_place(lease_id: str) -> Place:
    return OAUTH_MOUNT, lease_id, 1


def open_token(reader: Reader, lease_id: str, *, keys: Keyring, now: int) -> str | None:
    """Return the access token of a lease, decrypted; None if the lease has no stored token, because agents share the
    token or it was never fetched, or if the token has expired. Raises Sealed if the secrets are sealed.
    """
    token = store.connected_accounts.token(reader, lease_id)
    if token is None or token.secret is None or token.expires_at <= now:
        return None
    return open_value(reader, token.secret, _token_place(lease_id), keys=keys).decode()
