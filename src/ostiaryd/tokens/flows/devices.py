"""Device authorization (RFC 8628): a device shows a user code, and a person consents in a browser on another device."""

from __future__ import annotations

from typing import NamedTuple

from msgspec.structs import replace

from ostiary.protocol.errors import Forbidden, NotFound, Unavailable
from ostiary.protocol.jose import b64u
from ostiaryd.ground.config import Config
from ostiaryd.ground.database import Reader, Tx
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows as registry
from ostiaryd.tokens import store
from ostiaryd.tokens.flows.authorization import digest_of, make_offer
from ostiaryd.tokens.flows.grants import Granted, TokenRequest, redeem_approved
from ostiaryd.tokens.flows.mint import Sender, identify
from ostiaryd.tokens.model import SECOND, ExpiredToken, Form, InvalidGrant, Pending, SlowDown
from ostiaryd.tokens.model.authorization import parse_device_request
from ostiaryd.tokens.model.device import DEVICE_INTERVAL_S, DEVICE_S, Device, make_user_code, read_user_code
from ostiaryd.trust.model.clients import DEVICE_CODE

MAX_DEVICES = 1000
"""Maximum number of device requests of one client that have not expired."""
SLOWER_S = 5


class NewDevice(NamedTuple):
    """The device code and user code of a new device request. The server stores only a digest of the device code and
    cannot show it again.
    """

    device_code: str
    user_code: str


def request_device(act: Act, form: Form, sender: Sender, *, config: Config) -> NewDevice:
    """Store a device authorization request of a client, and return its two codes (RFC 8628 section 3.1).

    Raises InvalidClient or UnauthorizedClient for the client, InvalidProof or NonceNeeded for its proof,
    InvalidRequest, InvalidScope, InvalidTarget or InvalidDetails for a parameter, and Unavailable if the client has
    `MAX_DEVICES` live requests.
    """
    proofs = identify(act, sender, config=config, path="/device_authorization", grant_type=DEVICE_CODE)
    client = proofs.client
    registry.fill_entry(act, object=client.client_id)
    request = parse_device_request(form, client, classes=config.classes)
    make_offer(act.tx, request, client, now=act.now, config=config)
    if store.devices.count(act.tx, client_id=client.client_id, now=act.now) >= MAX_DEVICES:
        raise Unavailable(f"{MAX_DEVICES} device requests of this client are waiting", hint="try again later")
    made = NewDevice(b64u(act.tx.random(32)), make_user_code(act.tx.random))
    store.devices.put(
        act.tx,
        Device(
            device=digest_of(made.device_code),
            user_code=made.user_code,
            client_id=client.client_id,
            request=replace(request, jkt=proofs.possession.jkt or ""),
            interval_s=DEVICE_INTERVAL_S,
            expires_at=act.now + DEVICE_S * SECOND,
        ),
    )
    return made


def find_device(reader: Reader, unverified_code: str, *, now: int) -> Device:
    """Return the unanswered device request with the user code that a person typed. Raises NotFound if there is none."""
    code = read_user_code(unverified_code)
    device = store.devices.by_user_code(reader, code) if code else None
    if device is None or now >= device.expires_at or device.answered_at is not None:
        raise NotFound(
            "this code is not valid, has expired, or was answered before",
            hint="compare the code with the display of the device, or start again on the device",
        )
    return device


def redeem_device(act: Act, token_request: TokenRequest, *, config: Config) -> Granted:
    """Redeem a device code that the person has approved, and return the tokens (RFC 8628 section 3.4).

    Raises Pending before the person's answer, or SlowDown if the device polls too often; ExpiredToken if the device
    code expired without an answer, Forbidden (`access_denied`) if the person denied, and the errors of `redeem_code`.
    """
    proofs = identify(act, token_request.sender, config=config, grant_type=DEVICE_CODE)
    device = store.devices.get(act.tx, digest_of(token_request.secret))
    if device is None or device.client_id != proofs.client.client_id:
        hint = "request a new device code"
        raise InvalidGrant("the device code is not valid, or was issued to another client", hint=hint)
    if device.answered_at is None:
        if act.now >= device.expires_at:
            raise ExpiredToken("the device code has expired", hint="request a new device code")
        if act.now - device.polled_at < device.interval_s * SECOND:
            hint = f"from now on, wait {SLOWER_S} s longer between two polls"
            raise SlowDown(f"the device polls too often: poll at most once in {device.interval_s} s", hint=hint)
        raise Pending("the person has not answered yet")
    if device.code is None:
        raise Forbidden("the person denied the request", code="access_denied")
    return redeem_approved(act, token_request, device.code, proofs, config=config)


def note_device_poll(tx: Tx, device_code: str, *, slower: bool) -> None:
    """Record that the device polled now. If `slower`, increase the minimum interval between polls by 5 seconds (RFC
    8628 section 3.5).
    """
    store.devices.note_poll(tx, digest_of(device_code), more_s=SLOWER_S if slower else 0)
