"""The ACME server: RFC 8555 with external account binding, IP identifiers (RFC 8738), renewal information (RFC 9773).

    GET   /acme/directory               POST  /acme/new-account       POST  /acme/account/{id}
    GET   /acme/new-nonce               POST  /acme/key-change        POST  /acme/account/{id}/orders
    GET   /acme/renewal-info/{id}       POST  /acme/new-order         POST  /acme/order/{id}
    POST  /acme/revoke-cert             POST  /acme/order/{id}/finalize    POST  /acme/order/{id}/certificate
    POST  /acme/authorization/{id}      POST  /acme/authorization/{id}/{type}

Every POST is a JWS with a nonce of this server and the exact URL of the request. The server verifies the signature
before the act, and marks the nonce as used within the act, even if the act then refuses the request. A request that
only reads writes no ledger entry, unless the request is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from typing import Any, Literal, NotRequired, TypedDict, TypeVar

import msgspec

from ostiary.protocol import canonical
from ostiary.protocol.decoding import convert
from ostiary.protocol.errors import Invalid, Malformed, Refused, Unavailable
from ostiary.protocol.jose import unb64u
from ostiaryd.certs import store
from ostiaryd.certs.flows import acme
from ostiaryd.certs.flows.authorities import encode_pem
from ostiaryd.certs.flows.revoking import is_live
from ostiaryd.certs.model.acme import (
    KINDS,
    MEDIA_TYPE,
    NONCE_LIFETIME,
    REASONS,
    AcmeAccount,
    AcmeRefused,
    Authorization,
    AuthorizationStatus,
    BadAlgorithm,
    Order,
    Problem,
    Unauthorized,
    check_nonce,
    make_nonce,
    parse_identifiers,
    parse_instant,
    parse_jws,
    parse_key,
    poll_after_s,
    render_instant,
    renewal_window,
)
from ostiaryd.certs.model.certificate import RevocationReason
from ostiaryd.certs.model.keys import BadKey
from ostiaryd.certs.model.names import CertificateName
from ostiaryd.certs.model.requests import parse_csr
from ostiaryd.certs.wire_acme_validation import Validations
from ostiaryd.ground.config import Config
from ostiaryd.ground.database import Reader, Tx
from ostiaryd.ground.database.writer import isolated
from ostiaryd.ground.http.edge import NO_STORE, SMALL_BODY, Call, Reply, TooLarge, reply, status_of
from ostiaryd.ground.http.routes import Content, Query, Route, RouteProtocol
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import Act, act
from ostiaryd.trust.model import DIGEST_BYTES, Spend

T = TypeVar("T")
ORDERS_AT_ONCE = 100
PROBLEM = "application/problem+json"
PEM = "application/pem-certificate-chain"
POLL_S = 1
"""Seconds after which a client should poll a challenge that the server is validating."""
_NONCE = "acme nonce"
"""Purpose for which the secret that protects nonces is derived from the keyring."""


# --- bodies


class JwsBody(TypedDict):
    """A JWS in its flattened form (RFC 7515 section 7.2.2)."""

    protected: str
    payload: str
    signature: str


class SubproblemBody(TypedDict):
    """A problem that concerns one identifier of an order."""

    type: str
    detail: str
    identifier: dict[str, str]


class ProblemBody(TypedDict):
    """A problem document (RFC 7807, RFC 8555 section 6.7)."""

    type: str
    detail: str
    status: NotRequired[int]
    subproblems: NotRequired[list[SubproblemBody]]
    algorithms: NotRequired[list[str]]


class IdentifierBody(TypedDict):
    """An identifier: a DNS name or an IP address for which a certificate is requested."""

    type: Literal["dns", "ip"]
    value: str


class AccountBody(TypedDict):
    """An account (RFC 8555 section 7.1.2)."""

    status: str
    contact: list[str]
    orders: str


class OrdersBody(TypedDict):
    """The URLs of an account's orders."""

    orders: list[str]


class OrderBody(TypedDict):
    """An order (RFC 8555 section 7.1.3)."""

    status: str
    expires: str
    identifiers: list[IdentifierBody]
    authorizations: list[str]
    finalize: str
    notAfter: NotRequired[str]
    certificate: NotRequired[str]
    error: NotRequired[ProblemBody]
    replaces: NotRequired[str]


class ChallengeBody(TypedDict):
    """A challenge (RFC 8555 section 7.1.5)."""

    type: str
    url: str
    status: str
    token: str
    validated: NotRequired[str]
    error: NotRequired[ProblemBody]


class AuthorizationBody(TypedDict):
    """An authorization (RFC 8555 section 7.1.4)."""

    identifier: IdentifierBody
    status: str
    expires: str
    challenges: list[ChallengeBody]
    wildcard: NotRequired[bool]


class RenewalBody(TypedDict):
    """The window in which a client should renew a certificate (RFC 9773 section 4.2)."""

    suggestedWindow: dict[str, str]


class _NewAccount(msgspec.Struct):
    contact: list[str] = []
    onlyReturnExisting: bool = False
    externalAccountBinding: Any = None


class _AccountChange(msgspec.Struct):
    contact: list[str] | None = None
    status: str | None = None


class _Identifier(msgspec.Struct):
    type: str
    value: str


class _NewOrder(msgspec.Struct):
    identifiers: list[_Identifier]
    notBefore: str | None = None
    notAfter: str | None = None
    replaces: str | None = None


class _Finalize(msgspec.Struct):
    csr: str


class _Status(msgspec.Struct):
    status: str


class _KeyChange(msgspec.Struct):
    account: str
    oldKey: dict[str, Any]


class _Revocation(msgspec.Struct):
    certificate: str
    reason: int = 0


# --- signed requests


async def _verify(call: Call, *, brings_key: bool | None = False) -> acme.SignedRequest:
    """Verify the signature of a request, and return the request. Its nonce is not marked as used yet. Raises
    AcmeRefused if the JWS, its URL, its nonce, its account or its signature is wrong.

    `brings_key`: True if the JWS must contain the key (`jwk`), False if the JWS must name an account (`kid`), None if
    both are allowed.
    """
    world, config = call.world, call.world.config
    secret = world.keys.derive(_NONCE)
    call.answer_headers += _nonce_headers(world)
    try:
        call.expect(MEDIA_TYPE)
        if len(call.body) > (most := min(config.max_request_bytes, SMALL_BODY)):
            raise TooLarge(f"the request body is over {most} bytes")
        jws = parse_jws(call.parse_json())
        if jws.url != call.uri + (f"?{call.query}" if call.query else ""):
            raise Unauthorized("the `url` of the JWS is not the URL of the request")
        if brings_key is not None and brings_key is bool(jws.kid):
            raise AcmeRefused("malformed", f"this request needs {'`jwk`' if brings_key else '`kid`'} in its JWS")
        account = ""
        jwk: object = jws.jwk
        if jws.kid:
            account = jws.kid.removeprefix(_url(config, "account/"))
            stored = store.acme.get_account(world.db.read(), account) if account != jws.kid else None
            if stored is None:
                raise AcmeRefused("accountDoesNotExist", "the `kid` of the JWS is not an account of this server")
            jwk = stored.jwk
        key = jws.verify(jwk)
        ends = check_nonce(secret, jws.nonce, now=world.now())
        digest = sha256(b"acme nonce " + jws.nonce.encode()).digest()[:DIGEST_BYTES]
        return acme.SignedRequest(key, account, Spend(digest, ends, ends - NONCE_LIFETIME), jws.payload)
    except Refused as refusal:
        if not (refusal.is_challenge or isinstance(refusal, Unavailable)):
            await _leave(call, refusal)
        raise


async def _leave(call: Call, refusal: Refused) -> None:
    """Write the ledger entry of a request that was refused before its act."""

    def refuse(act: Act) -> None:
        act.entry.detail = {"path": call.path[:256]}
        raise refusal

    with suppress(Refused):
        await act(call.world, "acme.request", refuse, request=call.request_id, network=call.network)


async def _act(call: Call, request: acme.SignedRequest, action: str, flow: Callable[[Act, AcmeAccount], T]) -> T:
    """Run `flow` as an act of an account, and return its result. The act first marks the nonce as used, and checks that
    the account may act.
    """
    return await act(
        call.world,
        action,
        lambda act: flow(act, acme.begin(act, request)),
        request=call.request_id,
        network=call.network,
    )


async def _act_of_key(call: Call, request: acme.SignedRequest, action: str, flow: Callable[[Act], T]) -> T:
    """Run `flow` as an act for a request that contains its key, and return its result. The act first marks the nonce as
    used.
    """

    def run(act: Act) -> T:
        acme.spend_nonce(act.tx, request)
        return flow(act)

    return await act(call.world, action, run, request=call.request_id, network=call.network)


async def _read(call: Call, request: acme.SignedRequest, read: Callable[[Reader, AcmeAccount], T]) -> T:
    """Return the result of `read` for a request that only reads (POST-as-GET). The request marks the nonce as used, and
    changes nothing else. Raises AcmeRefused if the payload is not empty, or the account may not act.
    """

    def run(tx: Tx) -> T:
        return read(tx, acme.authorize(tx, request))

    try:
        if request.payload:
            raise AcmeRefused("malformed", "a request that only reads (POST-as-GET) must have an empty payload")
        return await call.world.writer.submit(isolated(run))
    except AcmeRefused as refusal:
        await _leave(call, refusal)
        raise


def _payload(request: acme.SignedRequest, kind: type[T]) -> T:
    """Return the JSON object of a request; unknown members are ignored. Raises AcmeRefused for another payload."""
    try:
        return convert(canonical.parse(request.payload, max_depth=8), kind)
    except (msgspec.ValidationError, Malformed) as error:
        raise AcmeRefused("malformed", f"the payload is malformed: {error}") from None


def _url(config: Config, path: str) -> str:
    return f"{config.public_url}/acme/{path}"


# --- directory and nonces


async def show_directory(call: Call) -> Reply:
    """Return the URLs of the ACME server (RFC 8555 section 7.1.1)."""
    config = call.world.config
    names = {
        "newNonce": "new-nonce",
        "newAccount": "new-account",
        "newOrder": "new-order",
        "revokeCert": "revoke-cert",
        "keyChange": "key-change",
        "renewalInfo": "renewal-info",
    }
    meta: dict[str, object] = {"externalAccountRequired": True, "website": config.public_url}
    if config.acme_caa_domains:
        meta["caaIdentities"] = config.acme_caa_domains.lower().split()
    return reply({**{name: _url(config, path) for name, path in names.items()}, "meta": meta})


async def new_nonce(call: Call) -> Reply:
    """Return a nonce in the header `Replay-Nonce` (RFC 8555 section 7.2)."""
    return Reply(200 if call.method == "HEAD" else 204, headers=[*_nonce_headers(call.world), NO_STORE])


def _nonce_headers(world: World) -> list[tuple[bytes, bytes]]:
    """Return the headers of every response to a request with a JWS: a new nonce, and a link to the directory."""
    nonce = make_nonce(world.keys.derive(_NONCE), now=world.now(), random=world.random(8))
    return [(b"replay-nonce", nonce.encode()), (b"link", f'<{_url(world.config, "directory")}>;rel="index"'.encode())]


# --- accounts


async def new_account(call: Call) -> Reply:
    """Return the account of a key; if the key has none, create an account (RFC 8555 section 7.3).

    A new account needs an external account binding with a MAC key from `ostiary acme key create`.
    """
    request = await _verify(call, brings_key=True)

    def create(act: Act) -> tuple[AcmeAccount, bool]:
        body = _payload(request, _NewAccount)
        new = acme.NewAccount(tuple(body.contact), body.externalAccountBinding, body.onlyReturnExisting)
        return acme.create_account(act, request.key, new, url=call.uri)

    account, is_new = await _act_of_key(call, request, "acme.create_account", create)
    config = call.world.config
    location = (b"location", _url(config, f"account/{account.account_id}").encode())
    return reply(_show_account(account, config), status=201 if is_new else 200, headers=[location])


async def change_account(call: Call) -> Reply:
    """Return an account, change its contacts, or deactivate it (RFC 8555 sections 7.3.2, 7.3.6)."""
    request = await _verify(call)
    config = call.world.config

    def change(act: Act, account: AcmeAccount) -> AcmeAccount:
        _check_own(call, account)
        body = _payload(request, _AccountChange)
        if body.status == "deactivated":
            return acme.deactivate_account(act, account)
        if body.status is not None and body.status != account.status:
            raise AcmeRefused("malformed", "the only `status` that a client may set is `deactivated`")
        return account if body.contact is None else acme.change_contacts(act, account, body.contact)

    if request.payload:
        return reply(_show_account(await _act(call, request, "acme.change_account", change), config))
    return reply(_show_account(await _read(call, request, lambda _, account: _check_own(call, account)), config))


def _check_own(call: Call, account: AcmeAccount) -> AcmeAccount:
    """Return the account if the request's path names this account. Raises Unauthorized otherwise."""
    if call.params["id"] != account.account_id:
        raise Unauthorized("the account belongs to another key")
    return account


async def list_orders(call: Call) -> Reply:
    """List the orders of an account (RFC 8555 section 7.1.2.1), in pages with `Link: rel="next"`."""
    request = await _verify(call)
    config, after = call.world.config, call.query_one("after") or ""

    def read(reader: Reader, account: AcmeAccount) -> list[str]:
        _check_own(call, account)
        return store.acme.list_orders(reader, account.account_id, after=after, limit=ORDERS_AT_ONCE)

    ids = await _read(call, request, read)
    headers = []
    if len(ids) == ORDERS_AT_ONCE:
        headers.append((b"link", f'<{call.uri}?after={ids[-1]}>;rel="next"'.encode()))
    return reply({"orders": [_url(config, f"order/{id}") for id in ids]}, headers=headers)


async def change_key(call: Call) -> Reply:
    """Replace the key of an account (RFC 8555 section 7.3.5).

    The request is signed by the old key, and contains an inner request that the new key signs.
    """
    request = await _verify(call)

    accounts_url = _url(call.world.config, "account/")

    def change(act: Act, account: AcmeAccount) -> AcmeAccount:
        inner = parse_jws(_payload(request, object), of="the inner JWS", has_nonce=False)
        if inner.kid:
            raise AcmeRefused("malformed", "the inner JWS does not contain the new key as `jwk`")
        new = inner.verify(inner.jwk)
        body = _payload(request._replace(payload=inner.payload), _KeyChange)
        if inner.url != call.uri:
            raise AcmeRefused("malformed", "`url` of the inner JWS is not the URL of the request")
        if body.account != accounts_url + account.account_id:
            raise AcmeRefused("malformed", "`account` of the inner JWS is another account")
        if parse_key(body.oldKey).thumbprint != request.key.thumbprint:
            raise AcmeRefused("malformed", "`oldKey` is not the key of the account")
        return acme.change_key(act, account, new, accounts_url=accounts_url)

    return reply(_show_account(await _act(call, request, "acme.change_key", change), call.world.config))


# --- orders


async def new_order(call: Call) -> Reply:
    """Create an order (RFC 8555 section 7.4).

    The order can name a certificate that it replaces (RFC 9773 section 5).
    """
    request = await _verify(call)

    def create(act: Act, account: AcmeAccount) -> tuple[Order, list[Authorization]]:
        body = _payload(request, _NewOrder)
        if body.notBefore is not None:
            raise AcmeRefused("malformed", "`notBefore` is not supported: certificates are valid at once")
        names = parse_identifiers([(one.type, one.value) for one in body.identifiers])
        not_after = None if body.notAfter is None else parse_instant(body.notAfter, name="notAfter")
        return acme.create_order(
            act, account, names, not_after=not_after, replaces=body.replaces, config=call.world.config
        )

    try:
        order, authorizations = await _act(call, request, "acme.order", create)
    except AcmeRefused as refusal:
        # with these codes, the renewal has not failed: the nonce was outdated, or the certificate is replaced already
        if refusal.code not in ("badNonce", "alreadyReplaced"):
            await call.world.writer.submit(lambda tx: acme.note_refused_order(tx, request.account, _replaces(request)))
        raise
    location = (b"location", _url(call.world.config, f"order/{order.order_id}").encode())
    return reply(_show_order(call, order, authorizations), status=201, headers=[location])


def _replaces(request: acme.SignedRequest) -> str | None:
    """Return the ARI identifier of the certificate that a refused order would have replaced; None if the order names
    none, or its payload is malformed.
    """
    try:
        return _payload(request, _NewOrder).replaces
    except AcmeRefused:
        return None


async def show_order(call: Call) -> Reply:
    """Return an order of the account."""
    request, id = await _verify(call), call.params["id"]
    order, authorizations = await _read(
        call, request, lambda reader, account: acme.find_order(reader, id, account=account.account_id)
    )
    return _order_reply(call, order, authorizations)


async def finalize(call: Call) -> Reply:
    """Issue the certificate of an order from a certificate signing request (RFC 8555 section 7.4)."""
    request, id = await _verify(call), call.params["id"]

    def run(act: Act, account: AcmeAccount) -> tuple[Order, list[Authorization]]:
        try:
            csr = parse_csr(unb64u(_payload(request, _Finalize).csr))
        except BadKey as refusal:
            raise AcmeRefused("badPublicKey", refusal.message, hint=refusal.hint) from None
        except (Invalid, Malformed) as refusal:
            raise AcmeRefused("badCSR", refusal.message, hint=refusal.hint) from None
        return acme.finalize(act, account, id, csr, config=call.world.config)

    try:
        order, authorizations = await _act(call, request, "cert.issue", run)
    except AcmeRefused as refusal:
        # with these codes, the renewal has not failed: the nonce was outdated, or the request came too early
        if refusal.code not in ("badNonce", "orderNotReady"):
            await call.world.writer.submit(lambda tx: acme.note_failed_renewal(tx, request.account, id))
        raise
    return _order_reply(call, order, authorizations)


async def download_certificate(call: Call) -> Reply:
    """Return the certificate of an order with its chain in PEM (RFC 8555 section 7.4.2)."""
    request, id = await _verify(call), call.params["id"]
    now = call.world.now()
    certificate, chain = await _read(
        call, request, lambda reader, account: acme.find_issued(reader, id, account=account.account_id, now=now)
    )
    return Reply(200, encode_pem((certificate.der, *chain)), PEM)


async def show_authorization(call: Call) -> Reply:
    """Return an authorization with its challenges, or deactivate the authorization (RFC 8555 sections 7.5, 7.5.2)."""
    request, id = await _verify(call), call.params["id"]
    if request.payload:

        def deactivate(act: Act, account: AcmeAccount) -> Authorization:
            if _payload(request, _Status).status != "deactivated":
                raise AcmeRefused("malformed", "the only `status` that a client may set is `deactivated`")
            return acme.deactivate_authorization(act, account, id)

        authorization = await _act(call, request, "acme.deactivate_authorization", deactivate)
    else:
        authorization = await _read(
            call, request, lambda reader, account: acme.find_authorization(reader, id, account=account.account_id)
        )
    return reply(_show_authorization(call, authorization), headers=_retry(authorization))


async def respond(call: Call) -> Reply:
    """Start the validation of a challenge, or return the present state of the challenge (RFC 8555 section 7.5.1)."""
    request, id, type = await _verify(call), call.params["id"], call.params["type"]
    if request.payload:

        def run(act: Act, account: AcmeAccount) -> Authorization:
            if not isinstance(_payload(request, object), dict):
                raise AcmeRefused("malformed", "the payload of a response to a challenge must be a JSON object")
            return acme.respond(act, account, id, type)

        authorization = await _act(call, request, "acme.respond", run)
        call.world.get_singleton(Validations).changed.set()
    else:
        authorization = await _read(
            call, request, lambda reader, account: acme.find_authorization(reader, id, account=account.account_id)
        )
    shown = [one for one in _show_authorization(call, authorization)["challenges"] if one["type"] == type]
    if not shown:
        raise AcmeRefused("malformed", "challenge not found", status=404)
    up = (b"link", f'<{_url(call.world.config, f"authorization/{id}")}>;rel="up"'.encode())
    return reply(shown[0], headers=[up, *_retry(authorization)])


async def revoke_certificate(call: Call) -> Reply:
    """Revoke a certificate (RFC 8555 section 7.6).

    One of these keys must sign the request: the key of the account that ordered the certificate, the key of an account
    that has proved control of all names of the certificate, or the certificate's own key.
    """
    request = await _verify(call, brings_key=None)

    def parse() -> tuple[bytes, RevocationReason]:
        body = _payload(request, _Revocation)
        try:
            der = unb64u(body.certificate)
        except Malformed as error:
            raise AcmeRefused("malformed", f"`certificate` is {error.message}") from None
        if body.reason not in REASONS:
            raise AcmeRefused("badRevocationReason", f"the reason is not one of {', '.join(map(str, REASONS))}")
        return der, REASONS[body.reason]

    if request.account:
        await _act(call, request, "cert.revoke", lambda act, account: acme.revoke_by_account(act, account, *parse()))
    else:
        await _act_of_key(call, request, "cert.revoke", lambda act: acme.revoke_by_key(act, request.key, *parse()))
    return Reply(200)


async def show_renewal(call: Call) -> Reply:
    """Return the window in which a certificate should be renewed (RFC 9773 section 4)."""
    now = call.world.now()
    reader = call.world.db.read()
    certificate = acme.find_by_id(reader, call.params["id"], now=now)
    start, end = renewal_window(
        not_before=certificate.not_before,
        not_after=certificate.not_after,
        is_ended=not is_live(reader, certificate, now=now),
        now=now,
    )
    after = poll_after_s(not_before=certificate.not_before, not_after=certificate.not_after)
    window = {"start": render_instant(start), "end": render_instant(end)}
    return reply({"suggestedWindow": window}, headers=[(b"retry-after", str(after).encode())])


# --- rendering


def _show_account(account: AcmeAccount, config: Config) -> AccountBody:
    orders = _url(config, f"account/{account.account_id}/orders")
    return {"status": account.status, "contact": list(account.contacts), "orders": orders}


def _order_reply(call: Call, order: Order, authorizations: list[Authorization]) -> Reply:
    location = (b"location", _url(call.world.config, f"order/{order.order_id}").encode())
    waits = order.status == "pending" and any(one.status is AuthorizationStatus.PROCESSING for one in authorizations)
    headers = [location, *([(b"retry-after", str(POLL_S).encode())] if waits else [])]
    return reply(_show_order(call, order, authorizations), headers=headers)


def _show_order(call: Call, order: Order, authorizations: list[Authorization]) -> OrderBody:
    config = call.world.config
    url = _url(config, f"order/{order.order_id}")
    shown: OrderBody = {
        "status": order.status_at(call.world.now()),
        "expires": render_instant(order.expires_at),
        "identifiers": [{"type": name.kind.value, "value": name.value} for name in order.identifiers],  # type: ignore[typeddict-item]
        "authorizations": [_url(config, f"authorization/{one.authorization_id}") for one in authorizations],
        "finalize": f"{url}/finalize",
    }
    if order.not_after is not None:
        shown["notAfter"] = render_instant(order.not_after)
    if order.serial is not None:
        shown["certificate"] = f"{url}/certificate"
    if order.problem is not None:
        shown["error"] = _show_problem(order.problem)
    if order.replaces is not None:
        shown["replaces"] = order.replaces
    return shown


def _show_authorization(call: Call, authorization: Authorization) -> AuthorizationBody:
    """Return the body of an authorization: with all challenges while the authorization is pending, afterwards only with
    the challenge that the client started.
    """
    url = _url(call.world.config, f"authorization/{authorization.authorization_id}")
    status = authorization.status_at(call.world.now())
    types = (
        (authorization.challenge,) if authorization.challenge and status != "pending" else authorization.challenge_types
    )
    shown: AuthorizationBody = {
        "identifier": _show_identifier(authorization.identifier),
        "status": status,
        "expires": render_instant(authorization.expires_at),
        "challenges": [_show_challenge(authorization, type, url=f"{url}/{type}") for type in types],
    }
    if authorization.identifier.is_wildcard:
        shown["wildcard"] = True
    return shown


def _show_identifier(name: CertificateName) -> IdentifierBody:
    return {"type": name.kind.value, "value": name.value.removeprefix("*.")}  # type: ignore[typeddict-item]


def _show_challenge(authorization: Authorization, type: str, *, url: str) -> ChallengeBody:
    is_chosen = type == authorization.challenge
    status = authorization.status if is_chosen and authorization.validated_at is None else "pending"
    shown: ChallengeBody = {
        "type": type,
        "url": url,
        "status": "valid" if is_chosen and authorization.validated_at is not None else status,
        "token": authorization.token,
    }
    if is_chosen and authorization.validated_at is not None:
        shown["validated"] = render_instant(authorization.validated_at)
    if is_chosen and authorization.problem is not None:
        shown["error"] = _show_problem(authorization.problem)
    return shown


def _show_problem(problem: Problem) -> ProblemBody:
    return {"type": KINDS + problem.kind, "detail": problem.detail}


def _retry(authorization: Authorization) -> list[tuple[bytes, bytes]]:
    is_processing = authorization.status is AuthorizationStatus.PROCESSING
    return [(b"retry-after", str(POLL_S).encode())] if is_processing else []


def render(refusal: Refused) -> Reply:
    """Return a refusal as a problem document (RFC 8555 section 6.7). Errors of the server itself have the type
    `serverInternal`.
    """
    if isinstance(refusal, AcmeRefused):
        kind, status = refusal.code, refusal.status
    else:
        status = status_of(refusal)
        kind = "serverInternal" if status >= 500 else "unauthorized" if status in (401, 403) else "malformed"
    detail = f"{refusal.message}; {refusal.hint}" if refusal.hint else refusal.message
    body: ProblemBody = {"type": KINDS + kind, "detail": detail, "status": status}
    headers = [NO_STORE]
    if isinstance(refusal, BadAlgorithm):
        body["algorithms"] = refusal.algorithms
    if isinstance(refusal, AcmeRefused):
        if refusal.subproblems:
            body["subproblems"] = [
                {
                    "type": KINDS + one.code,
                    "detail": one.message,
                    "identifier": {"type": one.type, "value": one.value},
                }
                for one in refusal.subproblems
            ]
        if refusal.location:
            headers.append((b"location", refusal.location.encode()))
        if refusal.after_s:
            headers.append((b"retry-after", str(refusal.after_s).encode()))
    return Reply(status, msgspec.json.encode(body), PROBLEM, headers)


ACME = RouteProtocol("ACME", render, ProblemBody, refuses_methods=True)
_JWS = Content(JwsBody, (MEDIA_TYPE,))
_PEM = Content(media_types=(PEM,))


def _post(path: str, wire: Any, answers: dict[int, Any], **more: Any) -> Route:
    errors = (
        TooLarge("the request body is over 65536 bytes", hint="send a smaller body"),
        AcmeRefused("badNonce", "the nonce was used before"),
        Unauthorized("the account is deactivated", status=401),
        Unauthorized("the order belongs to another account"),
        AcmeRefused("rateLimited", "the account has 300 open orders", status=429, after_s=3600),
    )
    return Route(
        "POST",
        f"/acme/{path}",
        wire,
        "",
        protocol=ACME,
        body=_JWS,
        bounds_body=True,
        answers=answers,
        errors=errors,
        **more,
    )


ROUTES = (
    Route("GET", "/acme/directory", show_directory, "", protocol=ACME, answers={200: dict[str, Any]}),
    Route("GET", "/acme/new-nonce", new_nonce, "", protocol=ACME, answers={204: None}),
    Route("GET", "/acme/renewal-info/{id}", show_renewal, "", protocol=ACME, answers={200: RenewalBody}),
    _post("new-account", new_account, {201: AccountBody, 200: AccountBody}),
    _post("account/{id}", change_account, {200: AccountBody}),
    _post(
        "account/{id}/orders",
        list_orders,
        {200: OrdersBody},
        query=(Query("after", "The id of the last order on the previous page."),),
    ),
    _post("key-change", change_key, {200: AccountBody}),
    _post("new-order", new_order, {201: OrderBody}),
    _post("order/{id}", show_order, {200: OrderBody}),
    _post("order/{id}/finalize", finalize, {200: OrderBody}),
    _post("order/{id}/certificate", download_certificate, {200: _PEM}),
    _post("authorization/{id}", show_authorization, {200: AuthorizationBody}),
    _post("authorization/{id}/{type}", respond, {200: ChallengeBody}),
    _post("revoke-cert", revoke_certificate, {200: None}),
)
