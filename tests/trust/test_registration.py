"""Dynamic registration of clients (RFC 7591, RFC 7592): which clients are admitted, stored and deleted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.clock import Clock
from harness.registry_fixtures import new_jwk, newest_entry
from ostiary.protocol import jose
from ostiary.protocol.errors import Conflict, Invalid, NotFound, Refused, Unavailable
from ostiaryd.ground.http.pages import Page
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import act
from ostiaryd.ledger.store import search_entries
from ostiaryd.trust import flows
from ostiaryd.trust.flows.registration import (
    LONGEST_LIFETIME_S,
    MAX_USES,
    PENDING_DAYS,
    UNUSED_DAYS,
    InvalidRegistrationToken,
    Registration,
)
from ostiaryd.trust.model import InvalidClient
from ostiaryd.trust.model.clients import (
    DEVICE_CODE,
    MAX_REDIRECT_URIS,
    ClientState,
    InvalidClientMetadata,
    InvalidRedirectUri,
    InvalidSoftwareStatement,
    UnapprovedSoftwareStatement,
)
from tests.support.api_fixtures import reconfigured

BODY = {"client_name": "Example", "redirect_uris": ["http://localhost:3000/callback"]}
DAY = 86_400


async def register(
    world: World, token: str | None = None, *, network: str = "192.0.2.0", **members: Any
) -> Registration:
    def run(act: Any) -> Registration:
        return flows.register_client(act, BODY | members, unverified_token=token, network=network, config=world.config)

    return await act(world, "client.register", run)


async def change(world: World, made: Registration, *, token: str | None = None, **members: Any) -> Any:
    body = BODY | {"client_id": made.client.client_id} | members

    def run(act: Any) -> Any:
        return flows.change_registration(
            act, made.client.client_id, body, unverified_token=token or made.access_token, config=world.config
        )

    return await act(world, "client.change", run)


async def test_a_client_registers_itself_as_a_public_client(world: World) -> None:
    made = await register(world)
    client = made.client
    assert (client.client_id[:3], client.state, client.is_public) == ("cl_", ClientState.ACTIVE, True)
    assert client.metadata.application_type == "native"
    assert await flows.resolve_client(world, client.client_id) == client
    entry = newest_entry(world)
    assert (entry.action, entry.object, (entry.detail or {})["name"]) == (
        "client.register",
        client.client_id,
        "Example",
    )
    assert made.access_token not in repr(made)
    assert made.access_token not in json.dumps(entry.detail)


async def test_a_client_that_states_no_method_becomes_a_public_client(world: World) -> None:
    made = await register(world, token_endpoint_auth_method=None)
    assert made.client.is_public
    assert not made.client.has_secret


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
async def test_a_client_that_asks_for_a_secret_keeps_its_method(world: World, method: str) -> None:
    made = await register(world, token_endpoint_auth_method=method)
    assert made.client.metadata.token_endpoint_auth_method == method
    assert made.client.has_secret


async def test_response_types_that_are_not_supported_are_left_out(world: World) -> None:
    made = await register(world, response_types=["code", "id_token", "code id_token"])
    assert made.client.metadata.response_types == ("code",)
    with pytest.raises(InvalidClientMetadata):
        await register(world, response_types=["id_token", "code id_token"])


async def test_grants_that_are_for_registered_agents_alone_are_left_out(world: World) -> None:
    made = await register(world, grant_types=["authorization_code", "refresh_token", "client_credentials", "password"])
    assert made.client.metadata.grant_types == ("authorization_code", "refresh_token")
    with pytest.raises(InvalidClientMetadata):
        await register(world, grant_types=["client_credentials"])


async def test_invalid_metadata_are_refused_with_the_error_code_of_the_rfc(world: World) -> None:
    cases: list[tuple[dict[str, Any], type[Invalid]]] = [
        ({"redirect_uris": ["javascript:alert(1)"]}, InvalidRedirectUri),
        ({"redirect_uris": ["http://app.example/callback"]}, InvalidRedirectUri),
        ({"redirect_uris": ["https://app.example/callback#x"]}, InvalidRedirectUri),
        ({"redirect_uris": []}, InvalidRedirectUri),
        ({"redirect_uris": ["com.example.app:/callback"], "application_type": "web"}, InvalidRedirectUri),
        ({"redirect_uris": "http://localhost/callback"}, InvalidClientMetadata),
        ({"response_types": ["token"]}, InvalidClientMetadata),
        ({"token_endpoint_auth_method": "private_key_jwt"}, InvalidClientMetadata),
        ({"token_endpoint_auth_method": "tls_client_auth"}, InvalidClientMetadata),
        ({"jwks_uri": "https://10.0.0.1/jwks"}, InvalidClientMetadata),
        ({"jwks_uri": "http://app.example/jwks"}, InvalidClientMetadata),
        ({"backchannel_logout_uri": "https://[::1]/logout"}, InvalidClientMetadata),
        ({"logo_uri": "javascript:alert(1)"}, InvalidClientMetadata),
        ({"client_name": "a\u200bb"}, InvalidClientMetadata),
        ({"client_name": 1}, InvalidClientMetadata),
        ({"id_token_signed_response_alg": "none"}, InvalidClientMetadata),
        ({"id_token_signed_response_alg": "HS256"}, InvalidClientMetadata),
        ({"subject_type": "pairwise"}, InvalidClientMetadata),
        ({"subject_type": ["public"]}, InvalidClientMetadata),
        ({"sector_identifier_uri": "https://app.example/sector.json"}, InvalidClientMetadata),
        ({"id_token_encrypted_response_alg": "RSA-OAEP"}, InvalidClientMetadata),
        ({"userinfo_signed_response_alg": "RS256"}, InvalidClientMetadata),
        ({"userinfo_encrypted_response_alg": "ECDH-ES"}, InvalidClientMetadata),
        ({"authorization_signed_response_alg": "PS256"}, InvalidClientMetadata),
        ({"introspection_signed_response_alg": "ES256"}, InvalidClientMetadata),
        ({"backchannel_token_delivery_mode": "ping"}, InvalidClientMetadata),
        ({"jwks": {"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}}, InvalidClientMetadata),
        ({"jwks": {"keys": [new_jwk(), {"kty": "oct", "k": "c2VjcmV0"}]}}, InvalidClientMetadata),
        ({"software_statement": 1}, InvalidSoftwareStatement),
        ({"software_statement": "a.b.c"}, InvalidSoftwareStatement),
    ]
    for number, (members, kind) in enumerate(cases, 1):
        with pytest.raises(kind):
            await register(world, **members)
        assert len(search_entries(world.db.read(), {"outcome": "refused"}, limit=100)) == number, members
    assert flows.page_clients(world.db.read(), Page(10, "")) == []


async def test_metadata_that_request_the_default_behaviour_are_accepted(world: World) -> None:
    made = await register(
        world, subject_type="public", backchannel_token_delivery_mode="poll", sector_identifier_uri=None
    )
    assert made.client.state is ClientState.ACTIVE


async def test_a_registered_client_waits_for_approval_if_the_setting_requires_approval(world: World) -> None:
    strict = reconfigured(world, client_registration="approval")
    made = await register(strict)
    with pytest.raises(InvalidClient, match="approval"):
        await flows.resolve_client(strict, made.client.client_id)
    await act(world, "client.approve", lambda act: flows.approve_client(act, made.client.handle))
    assert await flows.resolve_client(strict, made.client.client_id)
    with pytest.raises(Conflict, match=f"the client {made.client.handle} is active already"):
        await act(world, "client.approve", lambda act: flows.approve_client(act, made.client.handle))
    same = await change(strict, made, contacts=["ann@example.org"])
    assert same.state is ClientState.ACTIVE
    other = await change(strict, made, redirect_uris=["http://localhost/other"])
    assert (other.state, other.digest != made.client.digest) == (ClientState.PENDING, True)


@pytest.mark.parametrize(
    ("wider", "narrower"),
    [
        ({"grant_types": ["authorization_code", DEVICE_CODE]}, {}),
        ({"grant_types": ["authorization_code", "refresh_token"]}, {}),
        ({"post_logout_redirect_uris": ["http://localhost/bye"]}, {}),
        ({}, {"dpop_bound_access_tokens": True}),
        ({}, {"require_pushed_authorization_requests": True}),
        ({}, {"tls_client_certificate_bound_access_tokens": True}),
    ],
)
async def test_an_approved_client_that_may_do_more_after_a_change_waits_for_approval_again(
    world: World, wider: dict[str, Any], narrower: dict[str, Any]
) -> None:
    strict = reconfigured(world, client_registration="approval")
    made = await register(strict)
    await act(world, "client.approve", lambda act: flows.approve_client(act, made.client.handle))
    assert (await change(strict, made, **narrower)).state is ClientState.ACTIVE
    again = await change(strict, made, **wider)
    assert (again.state, again.digest) == (ClientState.PENDING, made.client.digest)


async def test_a_stopped_client_is_refused_until_a_person_approves_it(world: World) -> None:
    made = await register(world)
    await act(world, "client.stop", lambda act: flows.stop_client(act, made.client.handle))
    with pytest.raises(InvalidClient, match="stopped"):
        await flows.resolve_client(world, made.client.client_id)
    with pytest.raises(Conflict, match=f"the client {made.client.handle} is stopped already"):
        await act(world, "client.stop", lambda act: flows.stop_client(act, made.client.handle))
    with pytest.raises(NotFound, match="client not found"):
        await act(world, "client.stop", lambda act: flows.stop_client(act, "cl_unknown"))
    changed = await change(world, made, redirect_uris=["http://localhost/other"])
    assert changed.state is ClientState.STOPPED
    await act(world, "client.approve", lambda act: flows.approve_client(act, made.client.handle))
    assert await flows.resolve_client(world, made.client.client_id)


URIS = [f"https://app.example/{number}" for number in range(MAX_REDIRECT_URIS + 1)]
KEY = dict(jose.generate("ES256").public.jwk)
CERTIFICATE_KEY = {"token_endpoint_auth_method": "self_signed_tls_client_auth"}


async def test_a_member_of_the_metadata_is_refused_with_its_fault(world: World) -> None:
    limits: dict[str, Any] = {
        "redirect_uris": URIS[1:],
        "contacts": ["a" * 256] * MAX_REDIRECT_URIS,
        "software_id": "a" * 256,
    }
    await register(world, **limits)
    cases: list[tuple[dict[str, Any], str]] = [
        ({"redirect_uris": URIS}, f"`redirect_uris` must have at most {MAX_REDIRECT_URIS} URIs"),
        (
            {"post_logout_redirect_uris": URIS},
            f"`post_logout_redirect_uris` must have at most {MAX_REDIRECT_URIS} URIs",
        ),
        ({"contacts": ["a"] * (MAX_REDIRECT_URIS + 1)}, f"`contacts` must have at most {MAX_REDIRECT_URIS} values"),
        ({"default_acr_values": ["a"] * (MAX_REDIRECT_URIS + 1)}, "`default_acr_values` must have at most"),
        ({"contacts": ["\n"]}, "the `contacts` must have 1 to 256 characters"),
        ({"software_id": "a" * 257}, "the `software_id` must have 1 to 256 characters"),
        ({"software_version": "\n"}, "the `software_version` must have 1 to 256 characters"),
        (CERTIFICATE_KEY | {"jwks": {"keys": [KEY | {"x5c": ["AAAA"]}]}}, "`x5c` contains no certificate in DER"),
        (CERTIFICATE_KEY | {"jwks": {"keys": [KEY | {"x5c": ["!"]}]}}, "`x5c` contains no certificate in DER"),
    ]
    for members, message in cases:
        with pytest.raises(Refused) as refused:
            await register(world, **members)
        assert refused.value.message.startswith(message), members


async def test_closed_registration_accepts_only_a_valid_initial_access_token(world: World, clock: Clock) -> None:
    closed = reconfigured(world, client_registration="closed")
    with pytest.raises(InvalidRegistrationToken):
        await register(closed)
    token = await invite(world, uses=2, lifetime_s=60)
    for _ in range(2):
        assert (await register(closed, token)).client.state is ClientState.ACTIVE
    with pytest.raises(InvalidRegistrationToken):
        await register(closed, token)
    late = await invite(world, lifetime_s=60)
    clock.advance(us=60_000_000 - 1)
    await register(closed, late)
    late = await invite(world, lifetime_s=60)
    clock.advance(60)
    for wrong in (late, "wrong", ""):
        with pytest.raises(InvalidRegistrationToken):
            await register(world, wrong)


async def invite(world: World, *, uses: int = 1, lifetime_s: int = 3600) -> str:
    made = await act(
        world, "client.invite", lambda act: flows.create_registration_token(act, lifetime_s=lifetime_s, uses=uses)
    )
    assert made.token not in repr(made)
    return made.token


async def test_a_refused_registration_does_not_spend_its_initial_access_token(world: World) -> None:
    token = await invite(world)
    with pytest.raises(InvalidRedirectUri):
        await register(world, token, redirect_uris=["ftp://x"])
    assert await register(world, token)


async def test_the_lifetime_and_uses_of_an_initial_access_token_are_limited(world: World) -> None:
    assert await invite(world, lifetime_s=LONGEST_LIFETIME_S, uses=MAX_USES)
    cases: list[tuple[int, int]] = [(59, 1), (LONGEST_LIFETIME_S + 1, 1), (60, 0), (60, MAX_USES + 1)]
    for lifetime_s, uses in cases:
        with pytest.raises(Invalid):
            await invite(world, lifetime_s=lifetime_s, uses=uses)


async def test_a_software_statement_of_a_trusted_issuer_overrides_the_request(world: World, tmp_path: Path) -> None:
    key, other = jose.generate("ES256"), jose.generate("ES256")
    file = tmp_path / "issuers.json"
    file.write_text(json.dumps({"https://vendor.example": {"keys": [dict(key.public.jwk)]}}))
    closed = reconfigured(world, client_registration="closed", software_statements=str(file))
    claims = {"iss": "https://vendor.example", "client_name": "Vendor", "software_id": "v1"}
    now = world.now() // 1_000_000

    def statement(signer: jose.PrivateKey = key, **changes: Any) -> str:
        return jose.sign_jwt(signer, typ="JWT", claims=claims | changes)

    sent = statement()
    made = await register(closed, software_statement=sent)
    assert (made.client.name, made.client.metadata.software_id) == ("Vendor", "v1")
    assert made.client.metadata.software_statement == sent, "it is returned unmodified (RFC 7591 section 3.2.1)"
    assert made.client.state is ClientState.ACTIVE
    for wrong in (statement(other), statement(exp=now - 1), statement()[:-8] + "A" * 8):
        with pytest.raises(InvalidSoftwareStatement):
            await register(closed, software_statement=wrong)
    with pytest.raises(UnapprovedSoftwareStatement):
        await register(closed, software_statement=statement(iss="https://evil.example"))
    with pytest.raises(InvalidRedirectUri):
        await register(closed, software_statement=statement(redirect_uris=["http://evil.example"]))
    with pytest.raises(InvalidClientMetadata):
        await register(closed, software_statement=statement(subject_type="pairwise"))


async def test_a_registration_is_read_and_changed_only_with_its_own_token(world: World) -> None:
    made, other = await register(world), await register(world)
    reader = world.db.read()
    assert flows.authenticate_registration(reader, made.client.client_id, made.access_token) == made.client
    for token in (other.access_token, "", None, made.access_token + "x"):
        with pytest.raises(InvalidRegistrationToken):
            flows.authenticate_registration(reader, made.client.client_id, token)
    with pytest.raises(InvalidRegistrationToken):
        await change(world, made, token=other.access_token)
    changed = await change(world, made, client_name="Example 2")
    assert (changed.name, changed.digest != made.client.digest) == ("Example 2", True)


async def test_an_invalid_change_of_a_registration_is_refused_and_nothing_changes(world: World) -> None:
    made = await register(world)
    cases: list[dict[str, Any]] = [
        {"client_id": "cl_0123456789abcdef0123456789abcdef"},
        {"client_id": None},
        {"registration_access_token": "x"},
        {"registration_client_uri": "https://x.example"},
        {"client_id_issued_at": 1},
        {"client_secret_expires_at": 0},
        {"client_secret": "x"},
        {"redirect_uris": ["http://evil.example"]},
    ]
    for members in cases:
        with pytest.raises(Invalid):
            await change(world, made, **members)
        assert flows.get_oauth_client(world.db.read(), made.client.client_id) == made.client, members


async def test_a_deleted_client_and_its_registration_token_are_refused(world: World) -> None:
    made = await register(world)
    await act(world, "client.delete", lambda act: flows.delete_client(act, made.client))
    with pytest.raises(InvalidRegistrationToken):
        flows.authenticate_registration(world.db.read(), made.client.client_id, made.access_token)
    with pytest.raises(InvalidClient):
        await flows.resolve_client(world, made.client.client_id)


async def test_unused_registrations_expire_and_used_ones_stay(world: World, clock: Clock) -> None:
    unused, used = await register(world), await register(world)
    waiting = await register(reconfigured(world, client_registration="approval"))
    await act(world, "consent", lambda act: flows.note_client_use(act.tx, used.client.client_id))
    clock.advance(us=UNUSED_DAYS * DAY * 1_000_000 - 1)
    assert await flows.expire_clients(world) == 0
    clock.advance(us=1)
    assert await flows.expire_clients(world) == 1
    assert (newest_entry(world).action, newest_entry(world).detail) == ("client.expire", {"count": 1})
    assert flows.get_oauth_client(world.db.read(), unused.client.client_id) is None
    clock.advance((PENDING_DAYS - UNUSED_DAYS) * DAY)
    assert await flows.expire_clients(world) == 1
    assert flows.get_oauth_client(world.db.read(), waiting.client.client_id) is None
    assert flows.get_oauth_client(world.db.read(), used.client.client_id) is not None


async def test_the_number_of_unused_registrations_is_limited_for_a_network_and_in_total(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ostiaryd.trust.flows.oauth_clients.MAX_UNUSED_OF_NETWORK", 2)
    monkeypatch.setattr("ostiaryd.trust.flows.oauth_clients.MAX_UNUSED", 3)
    first = await register(world)
    await register(world)
    with pytest.raises(Unavailable):
        await register(world)
    await register(world, network="198.51.100.0")
    with pytest.raises(Unavailable):
        await register(world, network="203.0.113.0")
    await act(world, "consent", lambda act: flows.note_client_use(act.tx, first.client.client_id))
    assert await register(world, network="203.0.113.0")
