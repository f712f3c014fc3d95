"""Authentication of clients with their own keys: inline, or at a `jwks_uri` whose keys may rotate or be invalid."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.clock import Clock
from ostiary.protocol import jose
from ostiary.protocol.errors import Refused
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import act
from ostiaryd.trust import flows
from ostiaryd.trust.flows import AuthenticatedClient
from ostiaryd.trust.flows.documents import KEYS_FRESH, KEYS_SOON, ClientKeys
from ostiaryd.trust.model import ASSERTION_TYP, SECOND, Credentials, InvalidClient
from ostiaryd.trust.model.clients import InvalidClientMetadata, parse_client_keys
from tests.support.api_fixtures import reconfigured, sign
from tests.support.client_site import ClientSite, serving_clients


@pytest.fixture
def site(tmp_path: Path) -> Iterator[ClientSite]:
    with serving_clients(tmp_path) as site:
        yield site


@pytest.fixture
def local(world: World, site: ClientSite) -> World:
    return reconfigured(world, public_url="http://127.0.0.1:8700", ca_file=site.ca_file, client_assertions="strict")


class Application:
    """A client with a metadata document, and a key that it publishes."""

    def __init__(self, world: World, site: ClientSite) -> None:
        self.world, self.site, self.key, self.count = world, site, jose.generate("ES256", kid="1"), 0
        self.publish(self.key)
        self.client_id = site.put_client(jwks_uri=f"{site.origin}/jwks", token_endpoint_auth_method="private_key_jwt")

    def publish(self, *keys: jose.PrivateKey) -> None:
        self.site.put("/jwks", {"keys": [dict(key.public.jwk) for key in keys]})

    def assertion(
        self, *, key: jose.PrivateKey | None = None, typ: str = ASSERTION_TYP, has_kid: bool = True, **claims: Any
    ) -> str:
        self.count += 1
        now = self.world.now() // SECOND
        good = {"iss": self.client_id, "sub": self.client_id, "aud": self.world.config.issuer, "iat": now}
        good |= {"exp": now + 60, "jti": str(self.count)}
        if not has_kid:
            return sign(key or self.key, {"typ": typ, "kid": None}, good | claims)
        return jose.sign_jwt(key or self.key, typ=typ, claims=good | claims)

    async def authenticate(self, assertion: str | None, **more: Any) -> AuthenticatedClient:
        """Find the keys of the client, and check the assertion, as the token endpoint does."""
        given = Credentials(assertion, **{"client_id": self.client_id} | more)
        keys = await flows.find_client_keys(self.world, self.client_id, given)

        def run(act: Any) -> AuthenticatedClient:
            proved = flows.authenticate_oauth_client(act, given, keys, config=self.world.config)
            flows.spend(act, proved.assertion)
            return proved

        return await act(self.world, "test", run)


@pytest.fixture
def application(local: World, site: ClientSite) -> Application:
    return Application(local, site)


async def test_an_assertion_by_a_published_key_authenticates_the_client_once(application: Application) -> None:
    assertion = application.assertion()
    proved = await application.authenticate(assertion)
    assert (proved.client.client_id, proved.jkt) == (application.client_id, application.key.public.thumbprint)
    with pytest.raises(InvalidClient, match="before"):
        await application.authenticate(assertion)
    assert application.site.requested.count("/jwks") == 1


async def test_each_assertion_is_verified_once(application: Application) -> None:
    await application.authenticate(application.assertion())
    [kept] = application.world.get_singleton(ClientKeys)._known.values()
    [key] = kept.keys
    native, verified = key._verify, list[bytes]()

    def verify(signature: bytes, text: bytes) -> None:
        verified.append(text)
        native(signature, text)

    object.__setattr__(key, "_verify", verify)
    assertion, spoiled = application.assertion(), application.assertion(key=jose.generate("ES256", kid="1"))
    await application.authenticate(assertion)
    with pytest.raises(InvalidClient, match="signature"):
        await application.authenticate(spoiled)
    assert [text.decode() for text in verified] == [one.rpartition(".")[0] for one in (assertion, spoiled)]
    with pytest.raises(InvalidClient, match="before"):
        await application.authenticate(assertion)
    assert len(verified) == 3, "a result serves once"


WRONG_CLAIMS: list[dict[str, Any]] = [
    {"aud": "https://evil.example"},
    {"aud": ["http://127.0.0.1:8700", "https://evil.example"]},
    {"sub": "ag_0123456789abcdef0123456789abcdef"},
    {"iss": "https://evil.example/client.json"},
    {"iss": "https://127.0.0.1/x", "sub": "https://127.0.0.1/x"},
    {"exp": 1},
    {"jti": ""},
]


async def test_an_assertion_that_is_not_for_this_server_and_client_is_refused(application: Application) -> None:
    for claims in WRONG_CLAIMS:
        with pytest.raises(InvalidClient):
            await application.authenticate(application.assertion(**claims))


async def test_a_client_with_keys_cannot_authenticate_without_a_valid_assertion(application: Application) -> None:
    for more in ({}, {"unverified_secret": "secret"}):
        with pytest.raises(InvalidClient):
            await application.authenticate(None, **more)
    for wrong in (application.assertion(key=jose.generate("ES256", kid="1")), application.assertion(typ="at+jwt")):
        with pytest.raises(InvalidClient):
            await application.authenticate(wrong)


async def test_rotated_keys_of_a_client_are_fetched_again_at_most_once_a_minute(
    application: Application, clock: Clock
) -> None:
    await application.authenticate(application.assertion())
    new = jose.generate("ES256", kid="2")
    application.publish(new)
    with pytest.raises(InvalidClient):
        await application.authenticate(application.assertion(key=new))
    assert application.site.requested.count("/jwks") == 1
    clock.advance(us=KEYS_SOON)
    await application.authenticate(application.assertion(key=new))
    with pytest.raises(InvalidClient):
        await application.authenticate(application.assertion())  # the old key is gone
    clock.advance(us=KEYS_FRESH)
    await application.authenticate(application.assertion(key=new))
    assert application.site.requested.count("/jwks") == 3


@pytest.mark.parametrize("has_kid", [True, False])
async def test_a_new_key_under_the_kid_of_the_earlier_one_is_fetched_after_a_minute(
    application: Application, clock: Clock, has_kid: bool
) -> None:
    await application.authenticate(application.assertion(has_kid=has_kid))
    new = jose.generate("ES256", kid="1")
    application.publish(new)
    clock.advance(us=KEYS_SOON - 1)
    with pytest.raises(InvalidClient):
        await application.authenticate(application.assertion(key=new, has_kid=has_kid))
    clock.advance(us=1)
    await application.authenticate(application.assertion(key=new, has_kid=has_kid))
    assert application.site.requested.count("/jwks") == 2


OTHERS: list[Any] = [
    {"kty": "AKP", "alg": "ML-DSA-44", "kid": "new", "pub": "AAAA"},
    {"kty": "OKP", "crv": "X25519", "kid": "exchange", "x": "A" * 43},
    {"kty": "EC", "crv": "P-521", "kid": "large", "x": "AAAA", "y": "AAAA"},
    dict(jose.generate("ES256", kid="encryption").public.jwk) | {"alg": "ECDH-ES", "use": "enc"},
    dict(jose.generate("ES256", kid="operations").public.jwk) | {"key_ops": ["deriveKey"]},
]
"""Keys that this server cannot use, as clients publish them beside the key of their assertions."""


async def test_keys_that_this_server_cannot_use_are_ignored_in_a_key_set(application: Application) -> None:
    application.site.put("/jwks", {"keys": [*OTHERS, dict(application.key.public.jwk)]})
    await application.authenticate(application.assertion())
    assert len(parse_client_keys({"keys": [*OTHERS, dict(application.key.public.jwk)]})) == 1
    with pytest.raises(InvalidClientMetadata, match="none of EC, OKP, RSA"):
        parse_client_keys({"keys": OTHERS})
    with pytest.raises(InvalidClientMetadata, match="private key"):
        parse_client_keys({"keys": [OTHERS[0] | {"priv": "AAAA"}, dict(application.key.public.jwk)]})
    with pytest.raises(InvalidClientMetadata, match="private key"):
        parse_client_keys({"keys": [*OTHERS, jose.generate("ES256").jwk(), dict(application.key.public.jwk)]})


LIES: list[tuple[Any, int]] = [
    ({"keys": []}, 200),
    ({"keys": [{"kty": "oct", "k": "AAAA"}]}, 200),
    ({"keys": [jose.generate("ES256").jwk()]}, 200),
    ({"keys": [dict(jose.generate("ES256", kid="1").public.jwk)] * 2}, 200),
    ({"keys": [dict(jose.generate("ES256").public.jwk)] * 11}, 200),
    ([], 200),
    (b"{", 200),
    (b" " * (64 << 10) + b"{}", 200),
    ({"keys": [dict(jose.generate("ES256", kid="1").public.jwk)]}, 302),
]


async def test_an_invalid_key_set_authenticates_no_client(application: Application) -> None:
    for body, status in LIES:
        application.site.put("/jwks", body, status=status, location=f"{application.site.origin}/other")
        with pytest.raises(Refused):
            await application.authenticate(application.assertion())
    assert "/other" not in application.site.requested
