"""Operations of the ACME server: MAC keys, accounts, orders, authorizations, certificates (RFC 8555, RFC 9773)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from cryptography import x509

from ostiary.protocol import jose
from ostiary.protocol.errors import Conflict, Forbidden, Invalid, NotFound, Refused
from ostiary.protocol.jose import b64u
from ostiaryd.certs import store
from ostiaryd.certs.flows.authorities import chain_of, find_authority
from ostiaryd.certs.flows.issuing import check_issue, issue, load_profiles
from ostiaryd.certs.flows.revoking import find_certificate, find_presented, revoke
from ostiaryd.certs.model.acme import (
    DAY,
    MAX_PENDING,
    ORDER_LIFETIME,
    SECOND,
    AccountStatus,
    AcmeAccount,
    AcmeKey,
    AcmeRefused,
    Authorization,
    AuthorizationStatus,
    Order,
    OrderStatus,
    Problem,
    Unauthorized,
    binding_kid,
    certificate_id_of,
    check_binding,
    check_contacts,
    check_requested_names,
    parse_certificate_id,
)
from ostiaryd.certs.model.certificate import Certificate, CertificateRequest, RevocationReason, serial_text
from ostiaryd.certs.model.keys import BadKey, check_public_key, encode_public_key
from ostiaryd.certs.model.names import CertificateName, check_pattern, is_allowed
from ostiaryd.certs.model.profiles import find_profile
from ostiaryd.certs.model.requests import CertificateSigningRequest
from ostiaryd.ground.config import Config
from ostiaryd.ground.database import Reader, Tx
from ostiaryd.ground.process.ids import new_secret
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import is_person_id
from ostiaryd.trust import flows as trust
from ostiaryd.trust.model import Spend

DEFAULT_PROFILE = "server"
DEFAULT_KEY_DAYS = 30
MAX_KEY_DAYS = 366
MAX_PATTERNS = 20
MAX_UNUSED_KEYS = 100
"""Maximum number of unused MAC keys of one holder: keys that are not revoked or expired and have created no account."""
_PURPOSE = "acme key"


@dataclass(frozen=True, slots=True)
class NewAcmeKey:
    """A new MAC key for an ACME client, with its secret. The server shows the secret only once."""

    key: AcmeKey
    name: str
    mac_key: str = field(repr=False)


class SignedRequest(NamedTuple):
    """An ACME request whose signature is verified. `account` is the id of the account whose key signed the request;
    empty if the request itself contains the key (`jwk`).
    """

    key: jose.PublicKey
    account: str
    nonce: Spend
    payload: bytes


class NewAccount(NamedTuple):
    """The members of a request for a new ACME account. `is_lookup`: the client asks only for the existing account of
    its key (`onlyReturnExisting`).
    """

    contacts: tuple[str, ...]
    binding: object
    is_lookup: bool


# --- MAC keys of external account bindings


def create_key(
    act: Act,
    *,
    agent: str | None,
    person: str | None,
    profile: str = DEFAULT_PROFILE,
    names: Sequence[str] = (),
    days: int = DEFAULT_KEY_DAYS,
    config: Config,
) -> NewAcmeKey:
    """Create a MAC key, with which a client can create one ACME account for an agent or a person; return the key with
    its secret.

    `agent`, `person`: name or id, exactly one of them. `profile` is the profile of the account's certificates. `names`
    are patterns such as `dns:*.example.com`; the account can order only names that match a pattern, and policies can
    limit the names further. `days`: the number of days within which the key can create the account.

    Raises Invalid for both holders or none, a malformed pattern, too many patterns, or other `days` than 1 to 366;
    NotFound for an unknown holder or profile; Forbidden if the agent is not active, or the profile is not for agents or
    not for persons; Conflict if the holder has too many unused keys.
    """
    if (agent is None) is (person is None):
        raise Invalid("a MAC key must be for one agent or for one person", hint="name either the agent or the person")
    if agent is not None:
        active = registry.active_agent(act.tx, agent, now=act.now)
        holder, name, owner = str(active.agent_id), active.name, str(active.owner)
    else:
        someone = registry.active_person(act, person or "")
        holder, name, owner = str(someone.person_id), someone.name, str(someone.person_id)
    registry.fill_entry(
        act, object=holder, owner=owner, name=name, days=days, names=[one[:100] for one in names[:MAX_PATTERNS]]
    )
    found_profile = find_profile(load_profiles(config.certificate_profiles), profile)
    kind = "agent" if person is None else "person"
    if kind not in found_profile.holders:
        hint = f"add `{kind}` to its `holders` in the file `certificate_profiles`"
        raise Forbidden(
            f"the profile `{profile}` is not for holders of the kind {kind}", hint=hint, code="wrong_profile"
        )
    if len(names) > MAX_PATTERNS:
        raise Invalid(f"`names` has {len(names)} patterns; at most {MAX_PATTERNS} are allowed")
    if not 1 <= days <= MAX_KEY_DAYS:
        raise Invalid(f"`days` must be 1 to {MAX_KEY_DAYS}")
    if store.acme.count_unused_keys(act.tx, holder, now=act.now) >= MAX_UNUSED_KEYS:
        raise Conflict(
            f"`{name}` has {MAX_UNUSED_KEYS} unused keys, the maximum",
            hint="revoke a key: ostiary acme key revoke KID",
            code="too_many_keys",
        )
    kid, secret = act.new_id("ak"), new_secret(act.tx.random)
    key = AcmeKey(
        kid=kid,
        holder=holder,
        profile=profile,
        names=tuple(map(check_pattern, names)),
        sealed=act.tx.keys.value_key(_PURPOSE).seal(secret, context=_context(kid, holder), random=act.tx.random),
        created_at=act.now,
        expires_at=act.now + days * DAY,
        account=None,
        revoked_at=None,
    )
    store.acme.add_key(act.tx, key)
    registry.fill_entry(act, object=holder, kid=kid)
    return NewAcmeKey(key, name, b64u(secret))


def revoke_key(act: Act, kid: str) -> AcmeKey:
    """Revoke a MAC key, and deactivate the ACME account that was created with it. Raises NotFound for an unknown key,
    Conflict for a revoked key.
    """
    key = find_key(act.tx, kid)
    registry.fill_entry(act, object=key.holder, kid=key.kid, account=key.account)
    if key.revoked_at is not None:
        raise Conflict("the MAC key is revoked already", code="revoked")
    store.acme.revoke_key(act.tx, key.kid)
    if key.account is not None and (account := store.acme.get_account(act.tx, key.account)) is not None:
        store.acme.change_account(act.tx, replace(account, status=AccountStatus.DEACTIVATED))
    return replace(key, revoked_at=act.now)


def revoke_unused_keys(act: Act) -> int:
    """Revoke every MAC key that has created no account; return the number of keys.

    Called after the database lost its newest entries: the lost entries may have used or revoked each of these keys.
    """
    unused = store.acme.unused_keys(act.tx)
    for kid in unused:
        store.acme.revoke_key(act.tx, kid)
    return len(unused)


def find_key(reader: Reader, kid: str) -> AcmeKey:
    """Return a MAC key by its id. Raises NotFound if there is none."""
    if (key := store.acme.get_key(reader, kid)) is None:
        raise NotFound("ACME key not found", hint="list the keys with `ostiary acme key list`")
    return key


# --- accounts


def create_account(act: Act, key: jose.PublicKey, new: NewAccount, *, url: str) -> tuple[AcmeAccount, bool]:
    """Return the account of a key, and whether the account is new. If the key has no account, create the account.

    `url` is the URL of the new-account resource, which the external account binding must name. Raises AcmeRefused if a
    lookup finds no account, if the external account binding is missing or wrong, if its MAC key is unknown, used,
    revoked or expired, if a contact is invalid, or if the account or its holder may not act.
    """
    if (account := store.acme.get_account_of_key(act.tx, key.thumbprint)) is not None:
        _note(act, account)
        _check_usable(act.tx, account, now=act.now)
        return account, False
    act.entry.key = key.thumbprint
    if new.is_lookup:
        raise AcmeRefused("accountDoesNotExist", "the key has no account")
    if new.binding is None:
        hint = "create a MAC key with `ostiary acme key create`"
        raise AcmeRefused(
            "externalAccountRequired", "an account needs an external account binding", status=403, hint=hint
        )
    mac = store.acme.get_key(act.tx, kid := binding_kid(new.binding))
    if mac is None:
        raise Unauthorized(f"the key {kid[:64]!a} of the external account binding is unknown")
    secret = act.tx.keys.value_key(_PURPOSE).open(mac.sealed, context=_context(mac.kid, mac.holder))
    check_binding(new.binding, url=url, jwk=key.bare_jwk, mac_key=secret)
    account = AcmeAccount(
        account_id=act.new_id("ac"),
        jkt=key.thumbprint,
        jwk=key.bare_jwk,
        holder=mac.holder,
        kid=mac.kid,
        contacts=check_contacts(new.contacts),
        status=AccountStatus.VALID,
        created_at=act.now,
    )
    _note(act, account)
    registry.fill_entry(act, object=account.account_id, holder=account.holder)
    check_holder(act.tx, mac.holder, now=act.now)
    if mac.revoked_at is not None or act.now >= mac.expires_at or mac.account is not None:
        state = "revoked" if mac.revoked_at is not None else "used" if mac.account is not None else "expired"
        raise Unauthorized(f"the key of the external account binding is {state}")
    store.acme.use_key(act.tx, mac.kid, account=account.account_id)
    store.acme.add_account(act.tx, account)
    return account, True


def authorize(tx: Tx, request: SignedRequest) -> AcmeAccount:
    """Mark the nonce of an account's request as used, check that the account and its holder may act, and return the
    account. Raises AcmeRefused if the nonce was used before, the key of the account has changed, or the account or its
    holder may not act.
    """
    spend_nonce(tx, request)
    account = store.acme.get_account(tx, request.account)
    if account is None or account.jkt != request.key.thumbprint:
        raise Unauthorized("the key of the account has changed")
    _check_usable(tx, account, now=tx.now)
    return account


def begin(act: Act, request: SignedRequest) -> AcmeAccount:
    """Authorize a request inside an act (`authorize`), and write the account and its holder into the act's ledger
    entry; return the account. Raises AcmeRefused as `authorize` does.
    """
    if (account := store.acme.get_account(act.tx, request.account)) is not None:
        _note(act, account)
    return authorize(act.tx, request)


def change_contacts(act: Act, account: AcmeAccount, contacts: Sequence[str]) -> AcmeAccount:
    """Replace the contacts of an account; return the account. Raises AcmeRefused for more contacts than allowed, or a
    contact that is not a `mailto:` URL with one address.
    """
    changed = replace(account, contacts=check_contacts(contacts))
    store.acme.change_account(act.tx, changed)
    return changed


def deactivate_account(act: Act, account: AcmeAccount) -> AcmeAccount:
    """Deactivate an account permanently; return the account. The certificates of the account stay valid."""
    changed = replace(account, status=AccountStatus.DEACTIVATED)
    store.acme.change_account(act.tx, changed)
    return changed


def change_key(act: Act, account: AcmeAccount, new: jose.PublicKey, *, accounts_url: str) -> AcmeAccount:
    """Replace the key of an account; return the account. If the new key already has an account, raises AcmeRefused with
    status 409 and the URL of that account.
    """
    act.entry.key = new.thumbprint
    if (other := store.acme.get_account_of_key(act.tx, new.thumbprint)) is not None:
        role = "present key of the account" if other.account_id == account.account_id else "key of another account"
        raise AcmeRefused(
            "malformed", f"the new key is the {role}", status=409, location=accounts_url + other.account_id
        )
    store.acme.change_account_key(act.tx, account.account_id, jkt=new.thumbprint, jwk=new.bare_jwk)
    return replace(account, jkt=new.thumbprint, jwk=new.bare_jwk)


def spend_nonce(tx: Tx, request: SignedRequest) -> None:
    """Mark the nonce of a request as used, even if the request is refused later. Raises AcmeRefused if the nonce was
    used before.
    """
    if not trust.is_first_use(tx, request.nonce):
        raise AcmeRefused("badNonce", "the nonce was used before", hint="use the nonce of the last response")


def check_holder(tx: Tx, holder: str, *, now: int) -> None:
    """Check that an account's holder, an agent or a person, may act. Raises AcmeRefused (`unauthorized`) otherwise."""
    try:
        if not is_person_id(holder):
            registry.active_agent(tx, holder, now=now)
            return
        person = registry.find_person(tx, holder)
        if not person.is_active:
            raise Forbidden(f"the person `{person.name}` {person.absence}")
        registry.check_person_not_stopped(tx, person.person_id)
    except (Forbidden, NotFound) as refusal:
        raise Unauthorized(refusal.message, hint=refusal.hint) from None


def _check_usable(tx: Tx, account: AcmeAccount, *, now: int) -> None:
    if account.status is not AccountStatus.VALID:
        raise Unauthorized(f"the account is {account.status}", status=401)
    check_holder(tx, account.holder, now=now)


def _note(act: Act, account: AcmeAccount) -> None:
    """Write the account and its holder into the act's ledger entry."""
    act.entry.key = account.jkt
    if is_person_id(account.holder):
        act.entry.person = account.holder
    else:
        act.entry.agent = account.holder
        agent = registry.get_agent(act.tx, account.holder)
        act.entry.owner = None if agent is None else agent.owner
    registry.fill_entry(act, object=account.account_id)


# --- orders and authorizations


def create_order(
    act: Act,
    account: AcmeAccount,
    identifiers: Sequence[CertificateName],
    *,
    not_after: int | None,
    replaces: str | None,
    config: Config,
) -> tuple[Order, list[Authorization]]:
    """Create an order, with an authorization for each identifier; return both.

    `not_after`: the end of the certificate that the client requests, in microseconds. `replaces`: the ARI identifier
    (RFC 9773) of the certificate to replace. Raises AcmeRefused if the account has too many open orders, may not have
    one of the names, requests an end in the past, or may not replace the certificate.
    """
    registry.fill_entry(act, object=account.account_id, names=[one.value for one in identifiers], replaces=replaces)
    if store.acme.count_open_orders(act.tx, account.account_id, now=act.now) >= MAX_PENDING:
        raise AcmeRefused(
            "rateLimited",
            f"the account has {MAX_PENDING} open orders",
            status=429,
            hint="finalize the open orders, or wait until they expire",
            after_s=3600,
        )
    if not_after is not None and not_after <= act.now:
        raise AcmeRefused("malformed", "`notAfter` is in the past")
    _check_names(act, account, identifiers, not_after=not_after, config=config)
    if replaces is not None:
        _check_replaces(act.tx, account, identifiers, replaces, now=act.now)
    order = Order(
        order_id=act.new_id("ao"),
        account=account.account_id,
        status=OrderStatus.PENDING,
        identifiers=tuple(identifiers),
        not_after=not_after,
        replaces=replaces,
        created_at=act.now,
        expires_at=act.now + ORDER_LIFETIME,
    )
    authorizations = [
        Authorization(
            authorization_id=act.new_id("az"),
            order=order.order_id,
            account=account.account_id,
            identifier=identifier,
            status=AuthorizationStatus.PENDING,
            expires_at=order.expires_at,
            token=b64u(act.tx.random(32)),
            challenge="",
            problem=None,
            validated_at=None,
            attempts=0,
            due_at=0,
        )
        for identifier in identifiers
    ]
    store.acme.add_order(act.tx, order, authorizations)
    registry.fill_entry(act, object=order.order_id)
    return order, authorizations


def find_order(reader: Reader, id: str, *, account: str) -> tuple[Order, list[Authorization]]:
    """Return an order of the ACME account `account`, with the order's authorizations. Raises AcmeRefused if the order
    is unknown or belongs to another account.
    """
    return _find_order(reader, id, account=account), store.acme.list_authorizations(reader, id)


def _find_order(reader: Reader, id: str, *, account: str) -> Order:
    order = store.acme.get_order(reader, id)
    if order is None:
        raise AcmeRefused("malformed", "order not found", status=404)
    if order.account != account:
        raise Unauthorized("the order belongs to another account")
    return order


def find_authorization(reader: Reader, id: str, *, account: str) -> Authorization:
    """Return an authorization of an account. Raises AcmeRefused if the authorization is unknown or belongs to another
    account.
    """
    authorization = store.acme.get_authorization(reader, id)
    if authorization is None:
        raise AcmeRefused("malformed", "authorization not found", status=404)
    if authorization.account != account:
        raise Unauthorized("the authorization belongs to another account")
    return authorization


def respond(act: Act, account: AcmeAccount, id: str, type: str) -> Authorization:
    """Start a challenge: mark the authorization's validation by the challenge type `type` as due, and return the
    authorization. A challenge that the client started before is returned unchanged. Raises AcmeRefused if the
    authorization has no challenge of this type, is not pending, or has another chosen challenge.
    """
    authorization = find_authorization(act.tx, id, account=account.account_id)
    registry.fill_entry(act, object=authorization.authorization_id, name=authorization.identifier.value, challenge=type)
    if type not in authorization.challenge_types:
        raise AcmeRefused("malformed", "challenge not found", status=404)
    if authorization.challenge == type and authorization.status is not AuthorizationStatus.DEACTIVATED:
        return authorization
    if (status := authorization.status_at(act.now)) != "pending":
        raise AcmeRefused("malformed", f"the authorization is {status}, not pending")
    if authorization.challenge:
        raise AcmeRefused("malformed", f"the client has chosen the challenge {authorization.challenge} before")
    chosen = replace(authorization, status=AuthorizationStatus.PROCESSING, challenge=type, attempts=0, due_at=act.now)
    store.acme.change_authorization(act.tx, chosen)
    return chosen


def deactivate_authorization(act: Act, account: AcmeAccount, id: str) -> Authorization:
    """Deactivate an authorization, and return it. If the order of the authorization is open, the order becomes invalid.
    Raises AcmeRefused if the authorization is neither pending nor valid.
    """
    authorization = find_authorization(act.tx, id, account=account.account_id)
    registry.fill_entry(act, object=authorization.authorization_id, name=authorization.identifier.value)
    if authorization.status_at(act.now) not in ("pending", "valid"):
        raise AcmeRefused(
            "malformed", f"the authorization is {authorization.status_at(act.now)}, neither pending nor valid"
        )
    given_up = replace(authorization, status=AuthorizationStatus.DEACTIVATED)
    store.acme.change_authorization(act.tx, given_up)
    _follow(act, given_up, Problem("unauthorized", "an authorization was deactivated"))
    return given_up


def settle(act: Act, authorization: Authorization, refusal: AcmeRefused | None) -> None:
    """Record the result of a validation, and update the order.

    The authorization becomes valid if `refusal` is None and the account may act, otherwise invalid. Raises AcmeRefused,
    without a change, if the authorization does not wait for a validation any more.
    """
    present = store.acme.get_authorization(act.tx, authorization.authorization_id)
    account = store.acme.get_account(act.tx, authorization.account)
    assert account is not None, "accounts are never deleted"
    _note(act, account)
    registry.fill_entry(
        act,
        object=authorization.authorization_id,
        name=authorization.identifier.value,
        challenge=authorization.challenge,
    )
    if present is None or present.status is not AuthorizationStatus.PROCESSING or present.expires_at <= act.now:
        raise AcmeRefused("malformed", "the authorization is not waiting for a validation")
    if refusal is None:
        try:
            _check_usable(act.tx, account, now=act.now)
        except AcmeRefused as error:
            refusal = error
    if refusal is None:
        done = replace(present, status=AuthorizationStatus.VALID, validated_at=act.now)
    else:
        registry.fill_entry(act, object=authorization.authorization_id, problem=refusal.code)
        done = replace(present, status=AuthorizationStatus.INVALID, problem=Problem(refusal.code, refusal.message))
    store.acme.change_authorization(act.tx, done)
    _follow(act, done, done.problem)
    if refusal is not None:
        note_failed_renewal(act.tx, account.account_id, done.order)


def note_failed_renewal(tx: Tx, account_id: str, order_id: str) -> None:
    """Count a failed renewal of the certificate that this order of the account replaces. Do nothing if the order
    replaces no certificate, or belongs to another account.
    """
    order, account = store.acme.get_order(tx, order_id), store.acme.get_account(tx, account_id)
    if order is None or account is None or order.account != account_id:
        return
    if order.replaces is not None:
        serial = serial_text(parse_certificate_id(order.replaces)[1])
        store.certificates.count_failed_renewal(tx, serial, holder=account.holder)


def note_refused_order(tx: Tx, account_id: str, replaces: str | None) -> None:
    """Count a failed renewal of the certificate that a refused order would have replaced. Do nothing if another account
    ordered this certificate. `replaces`: the ARI identifier of the certificate; None: the order replaces none.
    """
    account = store.acme.get_account(tx, account_id)
    if account is None or replaces is None:
        return
    try:
        certificate = find_by_id(tx, replaces, now=tx.now)
    except AcmeRefused:
        return
    if store.acme.has_order(tx, account_id, certificate.serial):
        store.certificates.count_failed_renewal(tx, certificate.serial, holder=account.holder)


def _follow(act: Act, authorization: Authorization, problem: Problem | None) -> None:
    """Update the order after one of its authorizations has changed: ready if all are valid, invalid if one failed."""
    order = store.acme.get_order(act.tx, authorization.order)
    if order is None or order.status not in (OrderStatus.PENDING, OrderStatus.READY):
        return
    if authorization.status is AuthorizationStatus.VALID:
        others = store.acme.list_authorizations(act.tx, order.order_id)
        if order.status is OrderStatus.PENDING and all(one.status is AuthorizationStatus.VALID for one in others):
            store.acme.change_order(act.tx, replace(order, status=OrderStatus.READY))
    else:
        store.acme.change_order(act.tx, replace(order, status=OrderStatus.INVALID, problem=problem))


def _check_names(
    act: Act, account: AcmeAccount, names: Sequence[CertificateName], *, not_after: int | None, config: Config
) -> None:
    """Check that the holder of an account may get a certificate for these names.

    The names must match the patterns of the account's MAC key, and the profile and the policies must permit the names
    for at least one key type of the profile. Raises AcmeRefused (`rejectedIdentifier`) otherwise.
    """
    key = find_key(act.tx, account.kid)
    profile = find_profile(load_profiles(config.certificate_profiles), key.profile)
    agent, person = _holder_of(account)
    if key.names and (foreign := [name for name in names if not is_allowed(name, key.names)]):
        hint = f"allowed: {' '.join(key.names)[:300]}"
        raise AcmeRefused(
            "rejectedIdentifier",
            f"the account may not order a certificate for {foreign[0].value!a}",
            status=403,
            hint=hint,
        )
    refusal: Refused | None = None
    # the order does not name the certificate's key, so each key type of the profile is tried
    for key_type in profile.key_types:
        try:
            check_issue(
                act,
                profile=key.profile,
                names=tuple(names),
                agent=agent,
                person=person,
                key_type=key_type,
                lifetime_s=_lifetime_s(not_after, now=act.now),
                config=config,
            )
        except (Forbidden, Invalid) as error:
            refusal = error
        else:
            return
    assert refusal is not None, "a profile has key types"
    raise AcmeRefused("rejectedIdentifier", refusal.message, status=403, hint=refusal.hint)


def _holder_of(account: AcmeAccount) -> tuple[str | None, str | None]:
    """Return the holder of an account as (agent id, None) or (None, person id)."""
    return (None, account.holder) if is_person_id(account.holder) else (account.holder, None)


def _lifetime_s(not_after: int | None, *, now: int) -> int | None:
    """Return the lifetime in seconds from `now` to the end that an order requests; None if the order requests
    no end.
    """
    return None if not_after is None else (not_after - now) // SECOND


def _check_replaces(
    tx: Tx, account: AcmeAccount, identifiers: Sequence[CertificateName], replaces: str, *, now: int
) -> None:
    """Check that an order may replace the certificate `replaces` (RFC 9773 section 5). Raises AcmeRefused otherwise."""
    certificate = find_by_id(tx, replaces, now=now)
    if not store.acme.has_order(tx, account.account_id, certificate.serial):
        raise Unauthorized("the certificate to replace belongs to another account")
    if not set(certificate.names) & set(identifiers):
        raise AcmeRefused("malformed", "the certificate to replace has none of the names of the order")
    if store.acme.is_replaced(tx, replaces):
        raise AcmeRefused("alreadyReplaced", "another order has already replaced the certificate", status=409)


# --- certificates


def finalize(
    act: Act, account: AcmeAccount, id: str, csr: CertificateSigningRequest, *, config: Config
) -> tuple[Order, list[Authorization]]:
    """Issue the certificate of a ready order for the key in `csr`; return the order with its authorizations. If the
    request is refused, the order stays ready. Raises AcmeRefused if the order is not ready, or if the certificate
    signing request or its key is refused.
    """
    order, authorizations = find_order(act.tx, id, account=account.account_id)
    registry.fill_entry(act, object=order.order_id, account=account.account_id)
    if order.status_at(act.now) != "ready":
        raise AcmeRefused("orderNotReady", f"the order is {order.status_at(act.now)}", status=403)
    if any(one.status_at(act.now) != "valid" for one in authorizations):
        raise AcmeRefused("orderNotReady", "an authorization of the order is not valid", status=403)
    check_requested_names(order, csr.names)
    if is_account_key(act.tx, csr.public_key):
        raise AcmeRefused("badCSR", "the key of the certificate is the key of an account", hint="generate another key")
    key = find_key(act.tx, account.kid)
    agent, person = _holder_of(account)
    replaced = None if order.replaces is None else serial_text(parse_certificate_id(order.replaces)[1])
    certificate_request = CertificateRequest(
        profile=key.profile,
        public_key=csr.public_key,
        names=order.identifiers,
        agent=agent,
        person=person,
        lifetime_s=_lifetime_s(order.not_after, now=act.now),
        replaces=replaced,
        has_subject=False,
    )
    try:
        issued = issue(act, certificate_request, config=config).certificate
    except BadKey as refusal:
        raise AcmeRefused("badPublicKey", refusal.message, hint=refusal.hint) from None
    except (Conflict, Invalid) as refusal:
        raise AcmeRefused("badCSR", refusal.message, hint=refusal.hint) from None
    except (Forbidden, NotFound) as refusal:
        raise Unauthorized(refusal.message, hint=refusal.hint) from None
    registry.fill_entry(act, object=issued.serial, order=order.order_id, account=account.account_id)
    done = replace(order, status=OrderStatus.VALID, serial=issued.serial, expires_at=issued.not_after)
    store.acme.change_order(act.tx, done)
    return done, authorizations


def is_account_key(reader: Reader, public_key: bytes) -> bool:
    """Return whether a public key (SubjectPublicKeyInfo in DER) is the key of an ACME account."""
    return store.acme.get_account_of_key(reader, check_public_key(public_key).jkt) is not None


def find_issued(reader: Reader, order_id: str, *, account: str, now: int) -> tuple[Certificate, tuple[bytes, ...]]:
    """Return the certificate of an order, and the certificates of its chain in DER without the root. Raises AcmeRefused
    if the order is unknown or of another account, or its certificate is not yet issued or expired more than a day ago.
    """
    order = _find_order(reader, order_id, account=account)
    if order.serial is None:
        raise AcmeRefused("malformed", "the order has no certificate", status=404)
    try:
        certificate = find_certificate(reader, order.serial, now=now)
    except NotFound:
        raise AcmeRefused("malformed", "the certificate has expired", status=404) from None
    return certificate, chain_of(reader, find_authority(reader, certificate.authority))


def find_by_id(reader: Reader, certificate_id: str, *, now: int) -> Certificate:
    """Return a certificate by its ARI identifier (RFC 9773). Raises AcmeRefused if the identifier is malformed, this
    server did not issue the certificate, or the certificate expired more than a day ago.
    """
    _, serial = parse_certificate_id(certificate_id)
    try:
        certificate = find_certificate(reader, serial_text(serial), now=now)
    except (NotFound, Invalid):
        certificate = None
    if certificate is None or certificate_id != certificate_id_of(certificate.der):
        raise AcmeRefused("malformed", "certificate not found", status=404)
    return certificate


def revoke_by_account(act: Act, account: AcmeAccount, der: bytes, reason: RevocationReason) -> None:
    """Revoke a certificate at the request of the account that ordered the certificate, or of an account that has proved
    control of all names of the certificate.

    Only the account that ordered the certificate can state the reason `keyCompromise`, since this reason blocks the
    certificate's key permanently. Raises AcmeRefused for any other account, for this reason from another account, and
    for an unknown or revoked certificate.
    """
    certificate = _find_presented(act, der)
    is_own = store.acme.has_order(act.tx, account.account_id, certificate.serial)
    if not is_own and reason is RevocationReason.KEY_COMPROMISE:
        hint = "sign the request with the key of the certificate"
        message = "only the account that ordered the certificate can state the reason `keyCompromise`"
        raise AcmeRefused("badRevocationReason", message, hint=hint)
    if not is_own and not all(
        store.acme.is_proved(act.tx, account.account_id, name, now=act.now) for name in certificate.names
    ):
        raise Unauthorized("the account has not proved control of all names of the certificate")
    _revoke(act, certificate, reason)


def revoke_by_key(act: Act, key: jose.PublicKey, der: bytes, reason: RevocationReason) -> None:
    """Revoke a certificate at the request of the holder of its private key, which signed the request. Raises
    AcmeRefused if another key signed the request, or the certificate is unknown or revoked.
    """
    act.entry.key = key.thumbprint
    certificate = _find_presented(act, der)
    own = x509.load_der_x509_certificate(certificate.der).public_key()
    if check_public_key(encode_public_key(own)).jkt != key.thumbprint:  # type: ignore[arg-type]
        raise Unauthorized("the request is not signed with the key of the certificate")
    _revoke(act, certificate, reason)


def _find_presented(act: Act, der: bytes) -> Certificate:
    certificate = find_presented(act.tx, der, now=act.now)
    if certificate is None:
        message = "this server has not issued the certificate, or the certificate expired more than a day ago"
        raise AcmeRefused("malformed", message, status=404)
    registry.fill_entry(act, object=certificate.serial)
    return certificate


def _revoke(act: Act, certificate: Certificate, reason: RevocationReason) -> None:
    try:
        revoke(act, certificate.serial, reason)
    except Conflict as refusal:
        raise AcmeRefused("alreadyRevoked", refusal.message) from None


def _context(kid: str, holder: str) -> bytes:
    return f"acme key|{kid}|{holder}".encode()
