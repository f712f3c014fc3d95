"""Passkeys (WebAuthn Level 3): registration, and login without typing a name. User verification is required.

In the browser, a static script calls the WebAuthn API and sends the response of the authenticator as a field of a form.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

import webauthn
from webauthn.helpers import options_to_json
from webauthn.helpers.cose import COSEAlgorithmIdentifier
from webauthn.helpers.exceptions import WebAuthnException
from webauthn.helpers.structs import (
    AuthenticatorSelectionCriteria,
    PublicKeyCredentialDescriptor,
    ResidentKeyRequirement,
    UserVerificationRequirement,
)

from ostiary.protocol import canonical
from ostiary.protocol.errors import Conflict, Malformed
from ostiary.protocol.jose import b64u, unb64u
from ostiaryd.ground.config import Config
from ostiaryd.ground.http.edge import Call
from ostiaryd.ground.http.html import page_url
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Person
from ostiaryd.trust import store
from ostiaryd.trust.flows.sessions import Login, own_origins
from ostiaryd.trust.model import Spend
from ostiaryd.trust.model.passkeys import (
    MAX_CREDENTIAL,
    MAX_PASSKEY_NAME,
    MAX_PASSKEYS,
    Passkey,
    PasskeyRefused,
    check_challenge,
    make_challenge,
)
from ostiaryd.trust.model.sessions import Proof, Session

TIMEOUT_MS = 120_000
ALGS = [
    COSEAlgorithmIdentifier.ECDSA_SHA_256,
    COSEAlgorithmIdentifier.EDDSA,
    COSEAlgorithmIdentifier.RSASSA_PKCS1_v1_5_SHA_256,
]
_UNREADABLE = (WebAuthnException, Malformed, ValueError, KeyError, TypeError, AttributeError, IndexError)
"""Errors that `webauthn` raises for a malformed response."""


def rp_id(config: Config) -> str | None:
    """Return the host name to which passkeys are bound (the RP ID); None if the host of the server is an IP address, so
    that passkeys are impossible.
    """
    host = urlsplit(page_url(config)).hostname or ""
    try:
        ip_address(host)
    except ValueError:
        return host
    return None


def creation_options(call: Call, person: Person, holder: Session | Login) -> str | None:
    """Return the options of `navigator.credentials.create` as JSON; None if passkeys are not possible. `holder`: the
    session or login cookie of the browser, to which the challenge is bound.
    """
    if (host := rp_id(call.world.config)) is None:
        return None
    registered = store.people.passkeys_of(call.world.db.read(), person.person_id)
    options = webauthn.generate_registration_options(
        rp_id=host,
        rp_name="Ostiary",
        user_id=person.person_id.encode(),
        user_name=person.name,
        challenge=_challenge(call, "create", holder),
        timeout=TIMEOUT_MS,
        authenticator_selection=AuthenticatorSelectionCriteria(
            resident_key=ResidentKeyRequirement.REQUIRED, user_verification=UserVerificationRequirement.REQUIRED
        ),
        exclude_credentials=[PublicKeyCredentialDescriptor(id=unb64u(one.id)) for one in registered],
        supported_pub_key_algs=ALGS,
    )
    return options_to_json(options)


def request_options(call: Call, holder: Session | Login, *, person: str | None = None) -> str | None:
    """Return the options of `navigator.credentials.get` as JSON; None if passkeys are not possible. `holder`: the
    session or login cookie of the browser, to which the challenge is bound.

    Without `person`, the options accept every passkey of this server, so they reveal nothing about accounts.
    """
    if (host := rp_id(call.world.config)) is None:
        return None
    registered = [] if person is None else store.people.passkeys_of(call.world.db.read(), person)
    options = webauthn.generate_authentication_options(
        rp_id=host,
        challenge=_challenge(call, "get", holder),
        timeout=TIMEOUT_MS,
        allow_credentials=[PublicKeyCredentialDescriptor(id=unb64u(one.id)) for one in registered],
        user_verification=UserVerificationRequirement.REQUIRED,
    )
    return options_to_json(options)


class NewPasskey:
    """A verified registration of a passkey. `add_passkey` stores the passkey and marks the challenge (`spend`) as
    used.
    """

    __slots__ = ("id", "public_key", "sign_count", "spend", "transports")

    def __init__(self, id: str, public_key: bytes, sign_count: int, transports: str, spend: Spend) -> None:
        self.id, self.public_key, self.sign_count = id, public_key, sign_count
        self.transports, self.spend = transports, spend


def verify_creation(call: Call, unverified: str, holder: Session | Login) -> NewPasskey:
    """Verify the response of the authenticator to a registration. Raises PasskeyRefused if it is not valid."""
    host, credential = _read(call, unverified)
    spend = _check_challenge(call, "create", holder, credential)
    try:
        verified = webauthn.verify_registration_response(
            credential=credential,
            expected_challenge=parse_challenge(credential),
            expected_rp_id=host,
            expected_origin=sorted(own_origins(call.world.config)),
            require_user_verification=True,
            supported_pub_key_algs=ALGS,
        )
    except _UNREADABLE:
        raise PasskeyRefused from None
    transports = credential["response"].get("transports")
    named = [one for one in transports if isinstance(one, str)] if isinstance(transports, list) else []
    return NewPasskey(
        b64u(verified.credential_id),
        verified.credential_public_key,
        verified.sign_count,
        " ".join(named)[:MAX_PASSKEY_NAME],
        spend,
    )


def add_passkey(act: Act, person: str, new: NewPasskey, *, name: str) -> Proof:
    """Store a new passkey of a person, and return the proof of the person that the registration gives. Raises
    PasskeyRefused if the challenge was used before, Conflict for a known passkey, and for too many passkeys.
    """
    label = "".join(char for char in name if char.isprintable()).strip()[:MAX_PASSKEY_NAME] or "Passkey"
    registry.fill_entry(act, object=person, passkey=new.id[:MAX_PASSKEY_NAME])
    if not store.proofs.spend(act.tx, new.spend):
        raise PasskeyRefused("the page was already used")
    if store.people.is_passkey(act.tx, new.id):
        raise Conflict("this passkey is registered already", code="known_passkey")
    if len(store.people.passkeys_of(act.tx, person)) >= MAX_PASSKEYS:
        raise Conflict(
            f"the account has {MAX_PASSKEYS} passkeys, the maximum",
            hint="remove a passkey first",
            code="too_many_passkeys",
        )
    store.people.add_passkey(
        act.tx, Passkey(new.id, person, label, new.public_key, new.sign_count, new.transports, act.now, None)
    )
    return Proof(method="passkey", at=act.now, source=new.id)


class UsedPasskey:
    """A verified login with a passkey. `use_passkey` records the login and marks the challenge (`spend`) as used."""

    __slots__ = ("passkey", "sign_count", "spend")

    def __init__(self, passkey: Passkey, sign_count: int, spend: Spend) -> None:
        self.passkey, self.sign_count, self.spend = passkey, sign_count, spend


def verify_request(call: Call, unverified: str, holder: Session | Login) -> UsedPasskey:
    """Verify the response of the authenticator to a login. Raises PasskeyRefused if it is not valid."""
    host, credential = _read(call, unverified)
    spend = _check_challenge(call, "get", holder, credential)
    passkey = _find_passkey(call, credential)
    try:
        verified = webauthn.verify_authentication_response(
            credential=credential,
            expected_challenge=parse_challenge(credential),
            expected_rp_id=host,
            expected_origin=sorted(own_origins(call.world.config)),
            credential_public_key=passkey.public_key,
            credential_current_sign_count=passkey.sign_count,
            require_user_verification=True,
        )
        handle = credential["response"].get("userHandle")
        if handle is not None and unb64u(handle) != passkey.person.encode():
            raise PasskeyRefused
    except _UNREADABLE:
        raise PasskeyRefused from None
    return UsedPasskey(passkey, verified.new_sign_count, spend)


def names_person(call: Call, unverified: str, person: str) -> bool:
    """Return whether the unverified response of an authenticator names a passkey of this person."""
    try:
        return _find_passkey(call, parse_response(unverified)).person == person
    except PasskeyRefused:
        return False


def _find_passkey(call: Call, credential: dict[str, Any]) -> Passkey:
    """Return the passkey that the response of an authenticator names. Raises PasskeyRefused for an unknown passkey."""
    id = credential.get("id")
    passkey = store.people.find_passkey(call.world.db.read(), id) if isinstance(id, str) else None
    if passkey is None:
        raise PasskeyRefused
    return passkey


def use_passkey(act: Act, used: UsedPasskey) -> Proof:
    """Record the use of a passkey, mark its challenge as used, and return the proof of its person. Raises
    PasskeyRefused if the passkey was removed meanwhile, if the challenge was used before, or if the counter of the
    authenticator did not increase.
    """
    present = store.people.find_passkey(act.tx, used.passkey.id)
    if present is None or present.public_key != used.passkey.public_key or not store.proofs.spend(act.tx, used.spend):
        raise PasskeyRefused
    if present.sign_count and used.sign_count <= present.sign_count:
        raise PasskeyRefused
    store.people.use_passkey(act.tx, used.passkey.id, sign_count=used.sign_count)
    return Proof(method="passkey", at=act.now, source=used.passkey.id)


def _challenge(call: Call, ceremony: Any, holder: Session | Login) -> bytes:
    world = call.world
    return make_challenge(
        world.keys.derive("challenge"), ceremony, _browser(holder), now=world.now(), random=world.random
    )


def _check_challenge(call: Call, ceremony: Any, holder: Session | Login, credential: dict[str, Any]) -> Spend:
    secret, challenge = call.world.keys.derive("challenge"), parse_challenge(credential)
    return check_challenge(secret, ceremony, _browser(holder), challenge, now=call.world.now())


def _browser(holder: Session | Login) -> str:
    return holder.id if isinstance(holder, Session) else holder.nonce


def _read(call: Call, unverified: str) -> tuple[str, dict[str, Any]]:
    """Return the host name to which passkeys are bound, and the parsed response of the authenticator. Raises
    PasskeyRefused for a malformed response, and if passkeys are not possible.
    """
    if (host := rp_id(call.world.config)) is None:
        raise PasskeyRefused
    return host, parse_response(unverified)


def parse_response(unverified: str) -> dict[str, Any]:
    """Return the response of an authenticator, parsed from JSON. Raises PasskeyRefused for a malformed response."""
    try:
        credential = canonical.parse(unverified.encode(), max_bytes=MAX_CREDENTIAL, max_depth=8)
    except (Malformed, UnicodeEncodeError):
        raise PasskeyRefused from None
    if not isinstance(credential, dict) or not isinstance(credential.get("response"), dict):
        raise PasskeyRefused
    return credential


def parse_challenge(credential: dict[str, Any]) -> bytes:
    """Return the challenge in the client data of a response. Raises PasskeyRefused for malformed client data."""
    try:
        client = canonical.parse(unb64u(credential["response"]["clientDataJSON"]), max_bytes=MAX_CREDENTIAL)
        if not isinstance(client, dict) or client.get("crossOrigin"):
            raise PasskeyRefused
        return unb64u(client["challenge"])
    except _UNREADABLE:
        raise PasskeyRefused from None
