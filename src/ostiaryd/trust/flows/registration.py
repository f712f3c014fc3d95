"""Dynamic client registration (RFC 7591) and its management (RFC 7592).

A registration gives no access: a person has to agree to the client, and policies decide. A client gets a secret only if
it asks for a method with a secret. A client that no person agreed to is deleted after a day; a client that waits for
approval, after a week.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import msgspec

from ostiary.protocol import jose
from ostiary.protocol.errors import Conflict, Invalid, NotFound, Unauthenticated
from ostiaryd.ground.config import Config, read_statement_issuers
from ostiaryd.ground.database import Reader
from ostiaryd.ground.process.ids import new_secret
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import Act, act
from ostiaryd.registry import flows as registry
from ostiaryd.trust import store
from ostiaryd.trust.flows.certificates import put_certificates
from ostiaryd.trust.flows.documents import check_client_urls
from ostiaryd.trust.flows.oauth_clients import check_room, make_client_secret
from ostiaryd.trust.model import SECOND, name_claimed
from ostiaryd.trust.model.certificates import SELF_SIGNED, InvalidCertificate, read_jwk_certificates
from ostiaryd.trust.model.clients import (
    UNDERSTOOD,
    ClientKind,
    ClientMetadata,
    ClientState,
    InvalidClientMetadata,
    InvalidSoftwareStatement,
    OAuthClient,
    UnapprovedSoftwareStatement,
    parse_metadata,
)

DAY = 86_400 * SECOND
UNUSED_DAYS, PENDING_DAYS = 1, 7
AT_ONCE = 100
MAX_REGISTRATION_TOKENS = 100
MAX_USES = 1000
LONGEST_LIFETIME_S = 90 * 86_400
MAX_STATEMENT = 8 << 10
_OURS = ("registration_access_token", "registration_client_uri", "client_id_issued_at", "client_secret_expires_at")
"""Members of a registration that the server sets."""
_STATEMENT_TYPES = (None, "jwt", "software-statement+jwt")


class InvalidRegistrationToken(Unauthenticated):
    """The initial or registration access token is missing, unknown, used up or expired (RFC 6750 section 3.1)."""

    code = "invalid_token"


@dataclass(frozen=True, slots=True)
class Registration:
    """A registered client, and its registration access token, which the server shows only once."""

    client: OAuthClient
    access_token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class RegistrationToken:
    """A new initial access token, which is shown once; `expires_at` in microseconds."""

    id: str
    token: str = field(repr=False)
    expires_at: int
    uses: int


def register_client(
    act: Act, unverified: Mapping[str, Any], *, unverified_token: str | None, network: str, config: Config
) -> Registration:
    """Register a client, and return it with its registration access token (RFC 7591 section 3).

    1. Check the initial access token and the software statement, if they were sent. 2. Check that the setting
    `client_registration` admits the client. 3. Check its metadata. 4. Check the number of unused clients. With an
    initial access token or a software statement, or if the setting is `open`, the client is active at once; otherwise
    it waits for approval.

    Raises InvalidRegistrationToken, InvalidSoftwareStatement or UnapprovedSoftwareStatement at step 1,
    InvalidRegistrationToken at step 2, InvalidClientMetadata or InvalidRedirectUri at step 3, and Unavailable at step
    4.
    """
    name = unverified.get("client_name")
    registry.fill_entry(act, object="", name=name[:100] if isinstance(name, str) else "")
    is_vouched = False
    if unverified_token is not None:
        if (id := store.clients.use_registration_token(act.tx, _digest(unverified_token))) is None:
            raise InvalidRegistrationToken(
                "the initial access token is unknown, used up or expired", hint="create a token: ostiary client invite"
            )
        registry.fill_entry(act, object="", token=id)
        is_vouched = True
    members = dict(unverified)
    if (statement := members.pop("software_statement", None)) is not None:
        members |= _verify_statement(statement, now=act.now, config=config)
        is_vouched = True
    if config.client_registration == "closed" and not is_vouched:
        hint = "ask an administrator for an initial access token: ostiary client invite"
        raise InvalidRegistrationToken(
            "this server does not accept registrations of clients without an initial access token", hint=hint
        )
    metadata = _parse(members, statement, config=config)
    check_room(act, network)
    is_active = is_vouched or config.client_registration == "open"
    id = act.new_id("cl")
    token = jose.b64u(new_secret(act.tx.random))
    client = OAuthClient(
        client_id=id,
        handle=id,
        kind=ClientKind.DYNAMIC,
        state=ClientState.ACTIVE if is_active else ClientState.PENDING,
        metadata=metadata,
        digest=metadata.digest(),
        created_at=act.now,
        changed_at=act.now,
        network=network,
        access_digest=_digest(token),
    )
    registry.fill_entry(act, object=id, state=client.state.value, redirect_uris=list(metadata.redirect_uris))
    store.clients.put(act.tx, client)
    _put_certificates(act, client)
    return Registration(client, token)


def _put_certificates(act: Act, client: OAuthClient) -> None:
    """Store the self-signed certificates of a client, so that listeners accept them. Raises InvalidClientMetadata for
    unusable certificates.
    """
    is_self_signed = client.metadata.token_endpoint_auth_method == SELF_SIGNED
    certificates = read_jwk_certificates(client.metadata.jwks) if is_self_signed else ()
    try:
        put_certificates(act, client.client_id, certificates)
    except (InvalidCertificate, Conflict) as refusal:
        raise InvalidClientMetadata(refusal.message, hint=refusal.hint) from None


def _parse(members: Mapping[str, Any], statement: str | None, *, config: Config) -> ClientMetadata:
    """Return the metadata of a dynamic client, with its verified software statement. Raises Invalid for unacceptable
    metadata.

    If the client states no authentication method, the method becomes `private_key_jwt` for a client with keys, and
    otherwise `none`.
    """
    has_keys = members.get("jwks") is not None or members.get("jwks_uri") is not None
    if members.get("token_endpoint_auth_method") is None:
        members = {**members, "token_endpoint_auth_method": "private_key_jwt" if has_keys else "none"}
    metadata = parse_metadata(members)
    try:
        check_client_urls(metadata, config=config)
    except Invalid as refusal:
        raise InvalidClientMetadata(refusal.message, hint=refusal.hint) from None
    return msgspec.structs.replace(metadata, software_statement=statement or "")


def _verify_statement(unverified_statement: object, *, now: int, config: Config) -> dict[str, Any]:
    """Verify a software statement, and return the client metadata in it (RFC 7591 section 2.3), which take precedence
    over the metadata of the request. Raises InvalidSoftwareStatement if it is not valid, UnapprovedSoftwareStatement if
    its issuer is not trusted.
    """
    issuers = read_statement_issuers(config.software_statements)
    try:
        if not isinstance(unverified_statement, str):
            raise jose.InvalidToken("the software statement is not a string")
        unverified_jws = jose.parse_jws(unverified_statement, max_bytes=MAX_STATEMENT)
        issuer = jose.parse_claims(unverified_jws.payload).get("iss")
        if not isinstance(issuer, str) or issuer not in issuers:
            raise UnapprovedSoftwareStatement("the issuer of the software statement is not trusted")
        keys = jose.JwkSet.parse(issuers[issuer])
        claims = jose.verify_jwt(
            unverified_statement, key_for=keys.key_for, typ=_STATEMENT_TYPES, now=now, required=("iss",)
        )
    except (jose.InvalidToken, jose.InvalidKey) as error:
        raise InvalidSoftwareStatement(f"the software statement: {error.message}") from None
    return {name: value for name, value in claims.items() if name in UNDERSTOOD}


def authenticate_registration(reader: Reader, client_id: str, unverified_token: str | None) -> OAuthClient:
    """Return the client with this id if the registration access token belongs to it (RFC 7592 section 3).

    The refusal is the same for a wrong token and for an unknown client. Raises InvalidRegistrationToken otherwise.
    """
    client = store.clients.get_oauth_client(reader, client_id)
    digest = (client and client.access_digest) or _digest("")
    if not hmac.compare_digest(digest, _digest(unverified_token or "")) or not unverified_token or client is None:
        raise InvalidRegistrationToken("the registration access token is not valid for this client")
    return client


def change_registration(
    act: Act, client_id: str, unverified: Mapping[str, Any], *, unverified_token: str | None, config: Config
) -> OAuthClient:
    """Replace the metadata of a registered client, and return the client (RFC 7592 section 2.2). Omitted members are
    deleted.

    Unless the setting `client_registration` is `open` or the request has a software statement, an active client whose
    new metadata the earlier approval does not cover waits for approval again. Raises InvalidRegistrationToken if the
    registration access token is not that of the client, InvalidSoftwareStatement or UnapprovedSoftwareStatement for the
    statement, InvalidClientMetadata or InvalidRedirectUri for metadata that are not valid.
    """
    act.entry.object = name_claimed(client_id)
    client = authenticate_registration(act.tx, client_id, unverified_token)
    if unverified.get("client_id") != client_id:
        raise InvalidClientMetadata(
            "`client_id` differs from that of the registration",
            hint="send the `client_id` of the registration (RFC 7592 section 2.2)",
        )
    for name in _OURS:
        if name in unverified:
            raise InvalidClientMetadata(
                f"`{name}` cannot be changed", hint=f"leave `{name}` out (RFC 7592 section 2.2)"
            )
    members = dict(unverified)
    # a client may repeat its present secret
    if (secret := members.pop("client_secret", None)) is not None:
        present = make_client_secret(act.tx.keys, client) if client.has_secret else ""
        if not hmac.compare_digest(present.encode(), str(secret).encode()):
            raise InvalidClientMetadata(
                "`client_secret` is not the present secret of the client", hint="leave `client_secret` out"
            )
    is_vouched = (statement := members.pop("software_statement", None)) is not None
    if is_vouched:
        members |= _verify_statement(statement, now=act.now, config=config)
    metadata = _parse(members, statement, config=config)
    state = client.state
    is_approved = config.client_registration == "open" or is_vouched or not metadata.needs_approval(client.metadata)
    if state is ClientState.ACTIVE and not is_approved:
        state = ClientState.PENDING
    changed = msgspec.structs.replace(
        client, metadata=metadata, digest=metadata.digest(), state=state, changed_at=act.now
    )
    registry.fill_entry(act, object=client_id, name=metadata.client_name, redirect_uris=list(metadata.redirect_uris))
    store.clients.put(act.tx, changed)
    _put_certificates(act, changed)
    return changed


def delete_client(act: Act, client: OAuthClient) -> None:
    """Delete a document or dynamic client. The caller must end the consents to the client."""
    registry.fill_entry(act, object=client.handle, client=client.client_id, name=client.metadata.client_name)
    put_certificates(act, client.client_id, ())
    store.clients.delete(act.tx, client.client_id)


def find_client(reader: Reader, handle: str) -> OAuthClient:
    """Return the client with the record id `handle`, which is not its client id if it has a metadata document. Raises
    NotFound if there is none.
    """
    if (client := store.clients.by_handle(reader, handle)) is None:
        raise NotFound("client not found", hint="list the clients: ostiary client list")
    return client


def approve_client(act: Act, handle: str) -> OAuthClient:
    """Approve a client that waits for approval, or resume a stopped client, and return it. Raises NotFound for an
    unknown client, Conflict if it is active already.
    """
    client = find_client(act.tx, handle)
    registry.fill_entry(act, object=handle, client=client.client_id, name=client.metadata.client_name)
    if client.state is ClientState.ACTIVE:
        raise Conflict(f"the client {handle} is active already", code="wrong_state")
    return _set_state(act, client, ClientState.ACTIVE)


def stop_client(act: Act, handle: str) -> OAuthClient:
    """Stop a client and return it: it gets no further codes and tokens. The caller must end the consents to the client.

    Raises NotFound for an unknown client, Conflict if it is stopped already.
    """
    client = find_client(act.tx, handle)
    registry.fill_entry(act, object=handle, client=client.client_id, name=client.metadata.client_name)
    if client.state is ClientState.STOPPED:
        raise Conflict(f"the client {handle} is stopped already", code="wrong_state")
    return _set_state(act, client, ClientState.STOPPED)


def _set_state(act: Act, client: OAuthClient, state: ClientState) -> OAuthClient:
    used_at = client.used_at or act.now  # counts as used, because a person decided about the client
    changed = msgspec.structs.replace(client, state=state, changed_at=act.now, used_at=used_at)
    store.clients.put(act.tx, changed)
    return changed


def create_registration_token(act: Act, *, lifetime_s: int, uses: int) -> RegistrationToken:
    """Create and return an initial access token (RFC 7591 section 3) for at most `uses` registrations. Raises Invalid
    for a lifetime or a number of uses out of range, Conflict if there are too many tokens.
    """
    if not 60 <= lifetime_s <= LONGEST_LIFETIME_S:
        raise Invalid(f"an initial access token must be valid for 60 to {LONGEST_LIFETIME_S} seconds")
    if not 1 <= uses <= MAX_USES:
        raise Invalid(f"an initial access token can be used for 1 to {MAX_USES} registrations")
    if store.clients.count_registration_tokens(act.tx) >= MAX_REGISTRATION_TOKENS:
        raise Conflict(
            f"there are {MAX_REGISTRATION_TOKENS} initial access tokens, the maximum",
            hint="wait until a token expires or is used up",
            code="too_many_tokens",
        )
    made = RegistrationToken(
        act.new_id("rt"), jose.b64u(new_secret(act.tx.random)), expires_at=act.now + lifetime_s * SECOND, uses=uses
    )
    registry.fill_entry(act, object=made.id, seconds=lifetime_s, uses=uses)
    store.clients.add_registration_token(act.tx, _digest(made.token), id=made.id, expires_at=made.expires_at, uses=uses)
    return made


async def expire_clients(world: World) -> int:
    """Delete clients without a consent after a day (after a week if they wait for approval), in small batches; return
    their number.
    """
    total = 0
    while ids := _unused(world.db.read(), now=world.now()):

        def expire(act: Act, ids: list[str] = ids) -> None:
            act.entry.detail = {"count": len(ids)}
            for client_id in ids:
                put_certificates(act, client_id, ())
                store.clients.delete(act.tx, client_id)

        await act(world, "client.expire", expire)
        total += len(ids)
    return total


def _unused(reader: Reader, *, now: int) -> list[str]:
    return store.clients.unused(
        reader, before=now - UNUSED_DAYS * DAY, pending_before=now - PENDING_DAYS * DAY, limit=AT_ONCE
    )


def _digest(token: str) -> str:
    return sha256(token.encode()).hexdigest()
