"""Clients that are identified by the URL of a metadata document, and the keys that clients publish (`jwks_uri`).

Implements draft-ietf-oauth-client-id-metadata-document-01: redirects are not followed, errors are not cached, cache
headers are followed within limits, and an address that is not public is refused. The only exception is loopback, for a
server that is itself on loopback. The setting `private_hosts` does not apply, because anyone can name a URL in an
authorization request.

The number of fetches is limited for each network that causes fetches and for each host that is fetched from. Concurrent
requests for one document share a fetch.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn, TypeVar
from urllib.parse import urlsplit
from weakref import WeakValueDictionary

import msgspec

from ostiary.protocol import canonical, jose
from ostiary.protocol.errors import Invalid, Malformed, Unavailable
from ostiaryd.ground.config import Config
from ostiaryd.ground.crypto.signatures import Signed
from ostiaryd.ground.http.buckets import Buckets
from ostiaryd.ground.outbound.fetch import check_named, send_request
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import Act, act
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import is_agent_id
from ostiaryd.trust import store
from ostiaryd.trust.flows.oauth_clients import check_room, check_usable
from ostiaryd.trust.model import SECOND, Credentials, InvalidClient, name_claimed, parse_assertion, public_key
from ostiaryd.trust.model.clients import (
    LOOPBACK,
    MAX_DOCUMENT,
    ClientKind,
    ClientMetadata,
    ClientState,
    InvalidClientMetadata,
    OAuthClient,
    check_document_id,
    fresh_s,
    is_document_id,
    parse_client_keys,
    parse_document,
)
from ostiaryd.trust.store.clients import agent_keys

T = TypeVar("T")
FETCH_S = 5
MAX_JWKS = 64 << 10
MAX_AT_ONCE, MAX_AT_ONCE_OF_NETWORK = 16, 4
"""Maximum number of concurrent fetches, in total and for each network. The second limit keeps slow servers of the
clients of one network from delaying the clients of other networks.
"""
MAX_KNOWN_KEYS = 10_000
"""Maximum number of clients whose keys are in memory."""
KEYS_FRESH = 3600 * SECOND
KEYS_SOON = 60 * SECOND
"""Minimum time between two fetches of the keys of a client because a signature is by no stored key, in
microseconds.
"""
COST = 3


class FetchBuckets(Buckets):
    """Rate limit of fetches, for each network that causes fetches and for each host: 20 at once, then one
    in 3 seconds.
    """

    burst, per_second = 20 * COST, 1


class Fetches:
    """Running fetches for clients: at most one for each URL, `MAX_AT_ONCE_OF_NETWORK` for each network, and
    `MAX_AT_ONCE` in total; further fetches wait. Use it only on the event loop.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._room = asyncio.Semaphore(MAX_AT_ONCE)
        self._rooms: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()
        self._waiting: dict[tuple[str, str], asyncio.Task[Any]] = {}
        """Tasks by network and URL. A task that waits for the limit of its network must not delay other networks."""
        self._under_way: dict[str, asyncio.Future[Any]] = {}

    async def share(self, url: str, *, network: str, fetch: Callable[[], Awaitable[T]]) -> T:
        """Run `fetch` and return its result. If a fetch of the same URL is running, or waits for the same network, wait
        for that fetch and return its result instead.

        `network`: the network whose request causes the fetch. Raises Unavailable if the network or the host has reached
        its limit.
        """
        shared = self._under_way.get(url) or self._waiting.get((network, url))
        if shared is None:
            self._take(network, urlsplit(url).hostname or "")
            task = shared = self._waiting[network, url] = asyncio.ensure_future(self._run(url, network, fetch))
            task.add_done_callback(lambda _: self._waiting.pop((network, url), None))
        result: T = await asyncio.shield(shared)
        return result

    async def _run(self, url: str, network: str, fetch: Callable[[], Awaitable[T]]) -> T:
        room = self._rooms.setdefault(network, asyncio.Semaphore(MAX_AT_ONCE_OF_NETWORK))
        async with room, self._room:
            if (running := self._under_way.get(url)) is None:
                running = self._under_way[url] = asyncio.ensure_future(fetch())
                running.add_done_callback(lambda _: self._under_way.pop(url, None))
            result: T = await running
            return result

    def _take(self, network: str, host: str) -> None:
        buckets = [self._world.get_singleton(FetchBuckets).of(sender) for sender in (f"from {network}", f"at {host}")]
        if not all(bucket.has(COST) for bucket in buckets):
            raise Unavailable(
                "too many documents and keys of clients were fetched for this network or from this host",
                hint="try again in a minute",
                code="too_many_lookups",
            )
        for bucket in buckets:
            bucket.take(COST)


async def resolve_client(
    world: World, client_id: str, *, network: str = "", request_id: str | None = None
) -> OAuthClient:
    """Return the active client with this client id. If the id is the URL of a metadata document, and the stored
    metadata are missing or no longer fresh, fetch the document.

    Call this function outside of a transaction. `network` is the network of the caller. Raises InvalidClient for a
    client that is unknown, waits for approval or is stopped, and for a document that is not valid; Unavailable if the
    document cannot be fetched.
    """
    client = store.clients.get_oauth_client(world.db.read(), client_id)
    if not is_document_id(client_id) or (client is not None and client.state is ClientState.STOPPED):
        return check_usable(client)
    if client is not None and client.fresh_until is not None and world.now() < client.fresh_until:
        return check_usable(client)
    if client is None and world.config.client_documents == "closed":
        raise InvalidClient("this server does not accept clients with metadata documents", hint="register the client")
    action = "client.discover" if client is None else "client.change"
    try:
        check_document_id(client_id)
        metadata, seconds = await world.get_singleton(Fetches).share(
            client_id, network=network, fetch=lambda: _fetch_document(world, client_id)
        )
    except Invalid as refusal:
        return await act(world, action, partial(_refuse, client_id, refusal), request=request_id, network=network)
    until = world.now() + seconds * SECOND
    if client is not None and client.metadata == metadata:
        await world.writer.submit(lambda tx: store.clients.set_fresh(tx, client_id, until=until))
        return check_usable(msgspec.structs.replace(client, fresh_until=until))

    def keep(act: Act) -> OAuthClient:
        return keep_document(act, client_id, metadata, fresh_until=until, network=network, config=world.config)

    return check_usable(await act(world, action, keep, request=request_id, network=network))


def _refuse(client_id: str, refusal: Invalid, act: Act) -> NoReturn:
    """Raise the refusal of a metadata document as InvalidClient, so that the entry of `act` records it."""
    act.entry.object = name_claimed(client_id)
    raise InvalidClient(refusal.message, hint=refusal.hint)


def keep_document(
    act: Act, client_id: str, metadata: ClientMetadata, *, fresh_until: int, network: str, config: Config
) -> OAuthClient:
    """Store the metadata of a fetched document, and return the client. `fresh_until` is in microseconds.

    Unless the setting `client_documents` is `open`, a new client waits for approval, and so does an active client whose
    new metadata the earlier approval does not cover. Raises Unavailable if too many clients wait for their first
    consent.
    """
    digest = metadata.digest()
    before = store.clients.get_oauth_client(act.tx, client_id)
    if before is None:
        state = ClientState.ACTIVE if config.client_documents == "open" else ClientState.PENDING
        before = OAuthClient(
            client_id=client_id,
            handle=act.new_id("cl"),
            kind=ClientKind.DOCUMENT,
            state=state,
            metadata=metadata,
            digest=digest,
            created_at=act.now,
            changed_at=act.now,
            network=network,
        )
        check_room(act, network)
    state = before.state
    is_approved = config.client_documents == "open" or not metadata.needs_approval(before.metadata)
    if state is ClientState.ACTIVE and not is_approved:
        state = ClientState.PENDING
    client = msgspec.structs.replace(
        before, metadata=metadata, digest=digest, state=state, changed_at=act.now, fresh_until=fresh_until
    )
    registry.fill_entry(act, object=client.handle, client=client_id, name=metadata.client_name, digest=client.digest)
    store.clients.put(act.tx, client)
    return client


async def _fetch_document(world: World, url: str) -> tuple[ClientMetadata, int]:
    """Return the metadata at a URL, and the number of seconds for which they are fresh. Raises Invalid if there is no
    valid document, and Unavailable if a later fetch may succeed.
    """
    try:
        answer = await send_request(
            "GET",
            url,
            headers={"accept": "application/json"},
            within_s=FETCH_S,
            max_bytes=MAX_DOCUMENT,
            private=_own_hosts(world.config),
            ca_file=world.config.ca_file,
        )
    except Unavailable as failure:
        raise Unavailable(f"the metadata document: {failure.message}", code="document_unavailable") from None
    shown = f"the metadata document: its server answers {answer.status} instead of 200"
    if answer.status >= 500 or answer.status in (408, 429):
        raise Unavailable(shown, hint="try again in a minute", code="document_unavailable")
    if answer.status != 200:
        raise InvalidClientMetadata(shown, hint="serve the document at the client id itself, without a redirect")
    metadata = parse_document(answer.body, media_type=answer.media_type, client_id=url)
    check_client_urls(metadata, config=world.config)
    return metadata, fresh_s(answer.cache_control)


def check_client_urls(metadata: ClientMetadata, *, config: Config) -> None:
    """Check the URLs of a client to which this server sends requests. Raises Invalid for a URL that the server must not
    call.

    `logo_uri` and the other URLs of pages for people are not checked, because the server never fetches them.
    """
    for name in ("jwks_uri", "backchannel_logout_uri"):
        if url := getattr(metadata, name):
            check_named(url, of=f"`{name}`", private=_own_hosts(config))


def private_hosts_of(client: OAuthClient | None, *, config: Config) -> frozenset[str]:
    """Return the hosts with private addresses to which the server may send requests for a client.

    For an agent, whose URLs an administrator sets, the setting `private_hosts` applies. For every other client, whose
    URLs a stranger sets, only loopback can be allowed.
    """
    is_agent = client is not None and client.kind is ClientKind.AGENT
    return config.private if is_agent else _own_hosts(config)


def _own_hosts(config: Config) -> frozenset[str]:
    """Return the loopback hosts if the public URL of the server is on loopback; otherwise none."""
    return LOOPBACK if urlsplit(config.public_url).hostname in LOOPBACK else frozenset()


@dataclass(frozen=True, slots=True)
class _FetchedKeys:
    url: str
    keys: tuple[jose.PublicKey, ...]
    at: int


class ClientKeys:
    """Cache of the keys that clients publish at `jwks_uri`. Keys are fetched again after an hour, and at most once a
    minute if no stored key made the signature of a request: the client may have a new key, also under the `kid` of
    the earlier one or without a `kid`.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._known: OrderedDict[str, _FetchedKeys] = OrderedDict()

    async def get(self, client: OAuthClient, unverified_jws: jose.Jws, *, network: str) -> tuple[jose.PublicKey, ...]:
        """Return the keys of a client with a `jwks_uri`, for the verification of a JWS; fetch them if the stored keys
        are too old. Raises Invalid for an unusable key set, Unavailable if the keys cannot be fetched.
        """
        url, now = client.metadata.jwks_uri, self._world.now()
        kept = self._known.get(client.client_id)
        if kept is not None and kept.url == url:
            is_known = any(self._is_signed_by(key, unverified_jws) for key in kept.keys)
            if now < kept.at + (KEYS_FRESH if is_known else KEYS_SOON):
                return kept.keys
        keys = await self._world.get_singleton(Fetches).share(url, network=network, fetch=lambda: self._fetch(url))
        self._known[client.client_id] = _FetchedKeys(url, keys, now)
        self._known.move_to_end(client.client_id)
        if len(self._known) > MAX_KNOWN_KEYS:
            self._known.popitem(last=False)
        return keys

    def _is_signed_by(self, key: jose.PublicKey, unverified_jws: jose.Jws) -> bool:
        """Return whether a key made the signature of a JWS, and cache the result for the act."""
        header = unverified_jws.header
        if header.get("kid") not in (None, key.kid, key.thumbprint) or not key.accepts(header["alg"]):
            return False
        signed = Signed(key, unverified_jws.signature, unverified_jws.signing_input)
        error = signed.verify()
        self._world.keys.signatures.add(signed, error)
        return error is None

    async def _fetch(self, url: str) -> tuple[jose.PublicKey, ...]:
        config = self._world.config
        answer = await send_request(
            "GET",
            url,
            headers={"accept": "application/jwk-set+json, application/json"},
            within_s=FETCH_S,
            max_bytes=MAX_JWKS,
            private=_own_hosts(config),
            ca_file=config.ca_file,
        )
        if answer.status != 200:
            raise Unavailable(f"the keys of the client: their server answers {answer.status} instead of 200")
        try:
            return parse_client_keys(canonical.parse(answer.body, max_bytes=MAX_JWKS))
        except Malformed as error:
            raise Unavailable(f"the keys of the client: {error.message}") from None


async def find_client_keys(
    world: World, client_id: str, credentials: Credentials, *, network: str = "", request_id: str | None = None
) -> tuple[jose.PublicKey, ...] | None:
    """Return the published keys of the client with this (claimed) id, as `authenticate_oauth_client` needs them.

    Return None for a public client, and for an agent, whose keys the transaction reads. The keys at a `jwks_uri` are
    returned only if the request has an assertion. Call this function outside of a transaction: it may fetch a metadata
    document or a `jwks_uri`. Raises InvalidClient for an unknown client or unusable keys, Unavailable if a fetch fails.
    """
    if is_agent_id(client_id):
        return None
    client = await resolve_client(world, client_id, network=network, request_id=request_id)
    if client.is_public:
        return None
    if client.metadata.jwks is not None:
        return parse_client_keys(client.metadata.jwks)
    if credentials.unverified_assertion is None:
        return ()
    try:
        return await world.get_singleton(ClientKeys).get(client, parse_assertion(credentials), network=network)
    except Invalid as refusal:
        raise InvalidClient(refusal.message, hint=refusal.hint) from None


async def find_request_keys(
    world: World, client: OAuthClient, unverified_jws: jose.Jws, *, network: str
) -> tuple[jose.PublicKey, ...]:
    """Return the keys with which a client may have signed a request object; empty if the client has none. May fetch a
    `jwks_uri`. Raises InvalidClient for unusable keys, Unavailable if the fetch fails.
    """
    if client.kind is ClientKind.AGENT:
        rows = agent_keys(world.db.read(), client.client_id, now=world.now())
        return tuple(public_key(jwk) for jwk, _ in rows)
    if client.metadata.jwks is not None:
        return parse_client_keys(client.metadata.jwks)
    if not client.metadata.jwks_uri:
        return ()
    try:
        return await world.get_singleton(ClientKeys).get(client, unverified_jws, network=network)
    except Invalid as refusal:
        raise InvalidClient(refusal.message, hint=refusal.hint) from None
