"""Requests to the providers of connected accounts: metadata, codes, refreshes, revocation (RFC 6749, 8414, 7009).

All requests use the SSRF-safe fetcher and follow no redirect. A refresh runs as a task of its own, so that the new
refresh token is stored even if the client disconnects.
"""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any
from urllib.parse import quote_plus, urlencode

import msgspec

from ostiary.protocol import canonical, jose
from ostiary.protocol.decoding import convert
from ostiary.protocol.errors import Invalid, Malformed, Refused, Unavailable
from ostiaryd.ground.database import Tx
from ostiaryd.ground.http.edge import Call
from ostiaryd.ground.http.html import page_url
from ostiaryd.ground.outbound.fetch import check_named, send_request
from ostiaryd.ground.process.ids import new_id
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import act
from ostiaryd.secrets import store
from ostiaryd.secrets.flows import account_tokens, connected_accounts, leases
from ostiaryd.secrets.flows.seal import Sealed, check_open
from ostiaryd.secrets.model.connected_account import (
    AGAIN,
    MAX_ANSWER,
    OAUTH_MOUNT,
    SEND_S,
    AccessToken,
    AccountProvider,
    ConnectAttempt,
    ConnectedAccount,
    NotConnected,
    ProviderDown,
    ServerMetadata,
    TokenAnswer,
    check_metadata,
    metadata_urls,
    parse_token_answer,
)
from ostiaryd.secrets.model.lease import STUCK_ATTEMPTS, Lease
from ostiaryd.secrets.model.request import SECOND, Answer
from ostiaryd.secrets.wire_leases import postpone
from ostiaryd.trust.model import ASSERTION_TYPE

log = logging.getLogger("ostiary")
FETCH_S = 10
MAX_METADATA = 256 << 10
ASSERTION_S = 60
WAIT_S = 30
"""Seconds for which a request waits for a refresh that another request has started."""
POLL_S = 0.1
STORE_DELAYS_S = (0.2, 1, 2, 5, 10)
REVOKED_AT_ONCE, RUNNING = 100, 8
OVERLAP = 600 * SECOND
"""Microseconds before the previous search from which persons who left are searched again, because other servers may
have committed meanwhile.
"""


class AccountRefreshes:
    """The running refreshes of accounts (`locks`: one refresh at a time for each account), and the running revocations
    at providers. Used only on the event loop.
    """

    def __init__(self, _: World) -> None:
        self.locks: dict[str, asyncio.Lock] = {}
        self.running: set[asyncio.Task[object]] = set()
        self.revoking: asyncio.Task[None] | None = None
        self.since = 0

    def lock(self, account_id: str) -> asyncio.Lock:
        """Return the lock of an account."""
        if len(self.locks) > 1000:
            self.locks = {id: lock for id, lock in self.locks.items() if lock.locked()}
        return self.locks.setdefault(account_id, asyncio.Lock())

    async def close(self) -> None:
        """Wait for the running refreshes, whose results must be stored, and cancel the revocations, which run again
        later.
        """
        if self.revoking is not None:
            self.revoking.cancel()
        await asyncio.gather(*self.running, *filter(None, [self.revoking]), return_exceptions=True)


def callback_uri(world: World, provider: AccountProvider) -> str:
    """Return the redirect URI of this server at a provider."""
    return f"{page_url(world.config)}/accounts/{provider.name}/callback"


async def fetch_metadata(world: World, issuer: str) -> ServerMetadata:
    """Fetch and return the metadata of an authorization server. Raises Invalid if it publishes no valid metadata, or
    its address is private and not permitted; Unavailable if it cannot be reached.
    """
    check_named(issuer, of="the issuer", private=world.config.private)
    answers = []
    for url in metadata_urls(issuer):
        answer = await send_request(
            "GET",
            url,
            headers={"accept": "application/json"},
            within_s=FETCH_S,
            max_bytes=MAX_METADATA,
            private=world.config.private,
        )
        answers.append(answer.status)
        if answer.status == 200:
            try:
                parsed = canonical.parse(answer.body, max_bytes=MAX_METADATA)
                return check_metadata(convert(parsed, ServerMetadata), issuer=issuer)
            except (Malformed, msgspec.ValidationError) as error:
                raise Invalid(
                    f"the metadata that {url} publishes are malformed: {str(error)[:200]}",
                    hint="check the issuer, or state the endpoints of the provider",
                ) from None
    raise Invalid(
        f"the provider has no metadata: the provider answers {' and '.join(map(str, answers))}",
        hint="state the endpoints of the provider",
    )


async def redeem_code(world: World, provider: AccountProvider, attempt: ConnectAttempt, code: str) -> TokenAnswer:
    """Exchange the code of an authorization response for tokens (RFC 6749 section 4.1.3); return the token response.
    Raises AccountRefused if the provider refuses or its response is not acceptable, and ProviderDown if it fails or
    cannot be reached.
    """
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": callback_uri(world, provider),
        "code_verifier": attempt.verifier,
    }
    return await _ask(world, provider, form)


async def _ask(world: World, provider: AccountProvider, form: dict[str, str]) -> TokenAnswer:
    """Send a token request, and return the token response. Raises AccountRefused if the provider refuses, ProviderDown
    if it cannot be reached, and Sealed while the secrets are sealed.
    """
    status, body = await _post(world, provider, provider.token_endpoint, form)
    return parse_token_answer(provider, status, body)


async def _post(world: World, provider: AccountProvider, url: str, form: dict[str, str]) -> tuple[int, bytes]:
    """Send a form with the client authentication of this server (RFC 6749 section 2.3, RFC 7523); return the status and
    the body of the response. Raises ProviderDown if the provider cannot be reached, Sealed while the secrets are
    sealed, and Conflict if the stored client secret cannot be decrypted.
    """
    headers = {"content-type": "application/x-www-form-urlencoded", "accept": "application/json"}
    match provider.authentication:
        case "client_secret_basic":
            pair = f"{quote_plus(provider.client_id)}:{quote_plus(_secret(world, provider))}"
            headers["authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
        case "client_secret_post":
            form = form | {"client_id": provider.client_id, "client_secret": _secret(world, provider)}
        case "private_key_jwt":
            form = form | {
                "client_id": provider.client_id,
                "client_assertion_type": ASSERTION_TYPE,
                "client_assertion": _assertion(world, provider),
            }
        case "none":
            form = form | {"client_id": provider.client_id}
    try:
        answer = await send_request(
            "POST",
            url,
            body=urlencode(form).encode(),
            headers=headers,
            within_s=FETCH_S,
            max_bytes=MAX_ANSWER,
            private=world.config.private,
        )
    except (Unavailable, Invalid) as error:
        raise ProviderDown(f"{provider.label}: {error.message}", hint=error.hint or "try again later") from None
    return answer.status, answer.body


def _secret(world: World, provider: AccountProvider) -> str:
    return connected_accounts.open_client_secret(world.db.read(), provider, keys=world.keys)


def _assertion(world: World, provider: AccountProvider) -> str:
    """Return a client assertion, signed with a key that this server publishes at `/jwks`."""
    now = world.now()
    claims = {
        "iss": provider.client_id,
        "sub": provider.client_id,
        "aud": provider.issuer or provider.token_endpoint,
        "jti": new_id("ca", now=now, random=world.random),
        "iat": now // SECOND,
        "exp": now // SECOND + ASSERTION_S,
    }
    signer = world.keys.signer("token", provider.signing_alg)
    return jose.sign_jwt(signer, typ="client-authentication+jwt", claims=claims)


# --- access tokens


async def issue_token(call: Call, issue: account_tokens.IssueToken) -> Answer:
    """Fetch the access token of a lease, and return the response of the Vault API with the token. If Refused is raised,
    the lease has ended.
    """
    lease, token = await _fetch_token(call, issue)
    return account_tokens.show_token(lease, token, now=call.world.now())


async def issue_access_token(call: Call, issue: account_tokens.IssueToken) -> AccessToken:
    """Fetch and return the access token of a lease. If Refused is raised, the lease has ended."""
    return (await _fetch_token(call, issue))[1]


async def _fetch_token(call: Call, issue: account_tokens.IssueToken) -> tuple[Lease, AccessToken]:
    refreshes = call.world.get_singleton(AccountRefreshes)
    task = asyncio.create_task(_issue(call.world, issue, request_id=call.request_id))
    refreshes.running.add(task)
    task.add_done_callback(refreshes.running.discard)
    outcome = await asyncio.shield(task)
    if outcome.refusal is not None:
        raise outcome.refusal
    assert outcome.token is not None  # an outcome without a refusal has a token
    return outcome.lease, outcome.token


async def _issue(world: World, issue: account_tokens.IssueToken, *, request_id: str) -> account_tokens.Outcome:
    lock = world.get_singleton(AccountRefreshes).lock(issue.account.account_id)
    try:
        async with asyncio.timeout(WAIT_S):
            await lock.acquire()
    except TimeoutError:
        return await _fail(world, issue, None, _busy(issue))
    try:
        return await _issue_alone(world, issue, request_id=request_id)
    finally:
        lock.release()


async def _issue_alone(world: World, issue: account_tokens.IssueToken, *, request_id: str) -> account_tokens.Outcome:
    refresh: account_tokens.Refresh | None = None
    try:
        claimed = await _claim(world, issue)
        if not isinstance(claimed, account_tokens.Refresh):
            use = partial(account_tokens.use_token, issue=issue, token=claimed)
            return await act(world, "account.issue", use, request=request_id)
        refresh = claimed
        answer = await _refresh(world, issue, refresh)
    except Refused as refusal:
        return await _fail(world, issue, refresh, refusal)
    outcome = await _store_answer(world, issue, refresh, answer, request_id=request_id)
    if outcome.is_unused:
        await revoke_unused(world, issue.provider, answer)
    return outcome


async def _store_answer(
    world: World,
    issue: account_tokens.IssueToken,
    refresh: account_tokens.Refresh,
    answer: TokenAnswer,
    *,
    request_id: str,
) -> account_tokens.Outcome:
    """Store the provider's response to a refresh, with several attempts; return the outcome. Raises Unavailable if no
    attempt succeeds.
    """
    end = partial(account_tokens.end_refresh, issue=issue, refresh=refresh, answer=answer)
    for delay in STORE_DELAYS_S:
        try:
            return await act(world, "account.refresh", end, request=request_id)
        except Unavailable as refusal:  # the new refresh token is stored nowhere else, so each failure is retried
            log.warning("the new refresh token of %s is not stored yet: %s", issue.account.account_id, refusal.message)
            await asyncio.sleep(delay)
    return await act(world, "account.refresh", end, request=request_id)


async def _claim(world: World, issue: account_tokens.IssueToken) -> account_tokens.Refresh | AccessToken:
    """Claim the refresh of an account and return it; or return the shared access token, if another refresh has brought
    a new one meanwhile. Raises ProviderDown if another refresh takes too long, NotConnected if the account is not
    connected any more, and Sealed while the secrets are sealed.
    """

    def claim(tx: Tx) -> account_tokens.Refresh | AccessToken | None:
        return account_tokens.find_shared(tx, issue) or account_tokens.claim_refresh(tx, issue)

    for _ in range(round(WAIT_S / POLL_S)):
        if (claimed := await world.writer.submit(claim)) is not None:
            return claimed
        await asyncio.sleep(POLL_S)
    raise _busy(issue)


async def _refresh(world: World, issue: account_tokens.IssueToken, refresh: account_tokens.Refresh) -> TokenAnswer:
    """Send a refresh request (RFC 6749 section 6), and return the token response. Raises AccountRefused if the provider
    refuses, ProviderDown if it cannot be reached or the claim has expired, and Sealed while the secrets are sealed.
    """
    form = {"grant_type": "refresh_token", "refresh_token": refresh.refresh_token}
    if issue.scopes != issue.account.scopes:
        form["scope"] = issue.provider.separator.join(sorted(issue.scopes))
    if world.now() > refresh.began_at + SEND_S * SECOND:  # another server may have claimed the account
        raise _busy(issue)
    return await _ask(world, issue.provider, form)


def _busy(issue: account_tokens.IssueToken) -> ProviderDown:
    return ProviderDown(f"a refresh at {issue.provider.label} takes too long", hint="try again", code="busy")


async def _fail(
    world: World, issue: account_tokens.IssueToken, refresh: account_tokens.Refresh | None, refusal: Refused
) -> account_tokens.Outcome:
    """End the lease of an access token that could not be fetched, and return the outcome with `refusal`."""
    fail = partial(account_tokens.fail_refresh, issue=issue, refresh=refresh, refusal=refusal)
    await act(world, "account.break" if refusal.code == "grant_ended" else "account.refresh_fail", fail)
    if refusal.code == "grant_ended":
        refusal = NotConnected(refusal.message, hint=AGAIN, code="connection_broken")
    return account_tokens.Outcome(issue.lease, refusal=refusal)


# --- revocation


async def end_due(world: World) -> None:
    """Start the revocation of the tokens whose leases or accounts have ended, unless such a revocation is running."""
    refreshes = world.get_singleton(AccountRefreshes)
    if refreshes.revoking is None or refreshes.revoking.done():
        refreshes.revoking = asyncio.create_task(_end_due(world))


async def _end_due(world: World) -> None:
    refreshes, now = world.get_singleton(AccountRefreshes), world.now()
    try:
        for provider in await world.db.scan(connected_accounts.list_removed):
            if connected_accounts.may_end_removed(world.db.read(), provider):
                await act(world, "account.remove_provider", partial(connected_accounts.end_removed, provider=provider))
        since = refreshes.since
        departed = await world.db.scan(lambda reader: connected_accounts.find_departed(reader, since=since))
        if departed:
            await act(world, "account.end", partial(connected_accounts.end_departed, accounts=departed))
        refreshes.since = max(now - OVERLAP, 0)
        due = await world.db.scan(lambda reader: store.leases.due(reader, OAUTH_MOUNT, now=now, limit=REVOKED_AT_ONCE))
        await _in_turns([partial(_revoke_token, world, lease) for lease in due])
        accounts = await world.db.scan(
            lambda reader: store.connected_accounts.due(reader, now=now, limit=REVOKED_AT_ONCE)
        )
        await _in_turns([partial(_revoke_account, world, account) for account in accounts])
    except Sealed:
        return  # the tokens are encrypted, too: they are revoked after an unseal
    except Exception:
        log.exception("revoking tokens of connected accounts failed")


async def _in_turns(works: Sequence[Callable[[], Coroutine[Any, Any, None]]]) -> None:
    """Run these functions in parallel, at most `RUNNING` at the same time. Raises the first error after all
    have ended.
    """
    places = asyncio.Semaphore(RUNNING)

    async def run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        async with places:
            await work()

    ended = await asyncio.gather(*(run(work) for work in works), return_exceptions=True)
    for error in ended:
        if isinstance(error, BaseException):
            raise error


async def _revoke_token(world: World, lease: Lease) -> None:
    """Revoke the access token of an ended lease, if the provider can revoke single tokens, and delete the token."""
    check_open(world.db.read())
    [*claimed] = await world.writer.submit(lambda tx: leases.claim_leases(tx, [lease]))
    if not claimed:
        return
    reader = world.db.read()
    provider = store.connected_accounts.provider(reader, lease.database)
    text = account_tokens.open_token(reader, lease.lease_id, keys=world.keys, now=world.now())
    try:
        if provider is not None and provider.revokes_each and text is not None:
            await _revoke(world, provider, text, hint="access_token")
    except Refused as refusal:
        await postpone(world, [(lease, refusal.message)], action="account.stuck")
        return
    await act(world, "account.revoke_token", partial(leases.end_leases, removed=claimed))


async def _revoke_account(world: World, account: ConnectedAccount) -> None:
    """Revoke the refresh token of an account that is ending, and delete the account."""
    text = await world.writer.submit(lambda tx: connected_accounts.claim_end(tx, account))
    provider = store.connected_accounts.provider(world.db.read(), account.provider)
    if text is None or provider is None:
        return
    try:
        if provider.revocation_endpoint:
            await _revoke(world, provider, text, hint="refresh_token")
    except Refused as refusal:
        why = refusal.message
        await world.writer.submit(lambda tx: connected_accounts.postpone_end(tx, account, why))
        if account.attempts + 1 == STUCK_ATTEMPTS:
            await act(world, "account.stuck", partial(connected_accounts.tell_stuck, account=account, why=why))
        return
    is_revoked = bool(provider.revocation_endpoint)
    await act(
        world, "account.delete", partial(connected_accounts.delete_account, account=account, is_revoked=is_revoked)
    )


async def revoke_unused(world: World, provider: AccountProvider, answer: TokenAnswer) -> None:
    """Revoke the tokens in `answer`, which no connected account uses. If the provider does not answer, the tokens stay
    valid.
    """
    for token, hint in ((answer.refresh_token, "refresh_token"), (answer.access_token, "access_token")):
        try:
            if token:
                await _revoke(world, provider, token, hint=hint)
        except Refused as refusal:
            log.warning("a token of a refused connection at %s is not revoked: %s", provider.name, refusal.message)


async def _revoke(world: World, provider: AccountProvider, token: str, *, hint: str) -> None:
    """Revoke a token at the provider (RFC 7009 section 2), if the provider supports revocation. `hint`: the type of the
    token. Raises ProviderDown if the provider cannot be reached or answers with an error, Sealed while the secrets are
    sealed.
    """
    if not provider.revocation_endpoint:
        return
    form = {"token": token, "token_type_hint": hint}
    status, _ = await _post(world, provider, provider.revocation_endpoint, form)
    if status != 200:
        raise ProviderDown(f"{provider.label} answers {status} to a revocation")
