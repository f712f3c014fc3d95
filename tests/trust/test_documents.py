"""Clients identified by the URL of a metadata document: which documents are fetched, accepted and stored."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.clock import Clock
from harness.patience import PATIENCE_S
from harness.registry_fixtures import newest_entry
from ostiary.protocol import jose
from ostiary.protocol.errors import Invalid, Unavailable
from ostiaryd.ground.config import load_config
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import act
from ostiaryd.trust import flows
from ostiaryd.trust.flows import documents
from ostiaryd.trust.model import InvalidClient
from ostiaryd.trust.model.clients import (
    LONGEST_FRESH_S,
    MAX_DOCUMENT,
    SHORTEST_FRESH_S,
    USUAL_FRESH_S,
    ClientKind,
    ClientMetadata,
    InvalidClientMetadata,
    check_document_id,
    fresh_s,
    parse_document,
)
from tests.support.api_fixtures import reconfigured
from tests.support.client_site import ClientSite, document, serving_clients

CLIENT = "https://app.example/client.json"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[ClientSite]:
    with serving_clients(tmp_path) as site:
        yield site


@pytest.fixture
def local(world: World, site: ClientSite) -> World:
    """A server on loopback, which may fetch from loopback."""
    return reconfigured(world, public_url="http://127.0.0.1:8700", ca_file=site.ca_file)


async def test_a_metadata_document_creates_a_client_that_is_then_stored(local: World, site: ClientSite) -> None:
    client_id = site.put_client()
    client = await flows.resolve_client(local, client_id, network="198.51.100.0")
    assert (client.client_id, client.kind, client.name, client.host) == (
        client_id,
        ClientKind.DOCUMENT,
        "Example",
        "127.0.0.1",
    )
    assert client.is_public
    assert client.handle.startswith("cl_")
    assert client.has_redirect_uri(f"{site.origin}/callback")
    entry = newest_entry(local)
    assert (entry.action, entry.object, (entry.detail or {})["client"]) == ("client.discover", client.handle, client_id)
    assert flows.get_oauth_client(local.db.read(), client_id) == client
    assert await flows.resolve_client(local, client_id) == client
    assert site.requested == ["/client.json"]


@pytest.mark.parametrize(
    "client_id",
    [
        "http://app.example/client.json",
        "https://app.example",
        "https://app.example/",
        "https://app.example/client.json#",
        "https://app.example/client.json#x",
        "https://user@app.example/client.json",
        "https://user:pw@app.example/client.json",
        "https://app.example/a/../client.json",
        "https://app.example/./client.json",
        "https://app.example/%2e%2E/client.json",
        "https://app.example/client.json/..",
        "https://APP.example/client.json",
        "https://app.example:443/client.json",
        "https://app.example/%63lient.json",
        "https://app.example\\@evil.example/client.json",
        "https://app.example/client json",
        "https://bücher.example/client.json",
        "https://app.example;sandbox/client.json",
        "https://app.example,evil.example/client.json",
        "https://127.1/client.json",
        "https://",
        "https:///client.json",
        "HTTPS://app.example/client.json",
        "https://app.example/" + "a" * 1000,
    ],
)
def test_an_invalid_url_of_a_metadata_document_is_refused_as_a_client_id(client_id: str) -> None:
    with pytest.raises(InvalidClientMetadata):
        check_document_id(client_id)


@pytest.mark.parametrize(
    "client_id",
    ["https://app.example/c", "https://app.example:8443/client.json?v=1", "https://app.example/a..b/.well-known/c"],
)
def test_a_valid_url_of_a_metadata_document_is_accepted_as_a_client_id(client_id: str) -> None:
    assert check_document_id(client_id) == client_id


@pytest.mark.parametrize(
    "changes",
    [
        {"client_id": "https://other.example/client.json"},
        {"client_id": ...},
        {"client_id": "ag_0123456789abcdef0123456789abcdef"},
        {"client_secret": "s"},
        {"client_secret_expires_at": 0},
        {"token_endpoint_auth_method": "client_secret_basic"},
        {"token_endpoint_auth_method": "client_secret_post"},
        {"token_endpoint_auth_method": "client_secret_jwt"},
        {"token_endpoint_auth_method": "private_key_jwt"},
        {"token_endpoint_auth_method": "tls_client_auth"},
        {"redirect_uris": ...},
        {"redirect_uris": []},
        {"redirect_uris": "https://app.example/callback"},
        {"redirect_uris": ["http://app.example/callback"]},
        {"redirect_uris": ["https://app.example/callback#x"]},
        {"redirect_uris": ["javascript:alert(1)"]},
        {"grant_types": ["implicit"], "response_types": ["token"]},
        {"grant_types": ["client_credentials"]},
        {"response_types": ["id_token", "code id_token"]},
        {"client_name": "Example\u202egnp"},
        {"client_name": "x" * 101},
        {"client_name": ["Example"]},
        {"jwks": {"keys": []}},
        {"jwks": {"keys": [{"kty": "oct", "k": "AAAA"}]}},
        {"jwks": {"keys": [jose.generate("ES256").jwk()]}},
        {"jwks": {"keys": [dict(jose.generate("ES256").public.jwk)]}, "jwks_uri": "https://app.example/jwks"},
        {"jwks_uri": "https://127.0.0.2/jwks"},
        {"jwks_uri": "https://10.0.0.1/jwks"},
        {"jwks_uri": "https://169.254.169.254/latest"},
        {"jwks_uri": "https://[::ffff:10.0.0.1]/jwks"},
        {"jwks_uri": "https://2130706433/jwks"},
        {"jwks_uri": "file:///etc/passwd"},
        {"jwks_uri": "https://user@app.example/jwks"},
        {"backchannel_logout_uri": "https://192.168.0.1/logout"},
        {"backchannel_logout_uri": "http://app.example/logout"},
        {"logo_uri": "javascript:alert(1)"},
        {"client_uri": "data:text/html,x"},
        {"policy_uri": "http://app.example/policy"},
        {"tos_uri": "//app.example"},
        {"application_type": "desktop"},
    ],
)
def test_a_metadata_document_with_an_invalid_or_unsupported_member_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        parse(**changes)


def parse(media_type: str = "application/json", **changes: Any) -> ClientMetadata:
    """The metadata of a document that is right but for these members."""
    body = {name: value for name, value in (document(CLIENT) | changes).items() if value is not ...}
    metadata = parse_document(json.dumps(body).encode(), media_type=media_type, client_id=CLIENT)
    documents.check_client_urls(metadata, config=load_config(data_dir="/tmp", public_url="http://127.0.0.1:8700"))
    return metadata


async def test_a_refused_document_leaves_an_entry_and_is_not_stored(local: World, site: ClientSite) -> None:
    client_id = site.put_client(client_id="https://other.example/client.json")
    with pytest.raises(InvalidClient):
        await flows.resolve_client(local, client_id)
    assert flows.get_oauth_client(local.db.read(), client_id) is None
    entry = newest_entry(local)
    assert (entry.action, entry.outcome, entry.object) == ("client.discover", "refused", client_id)
    site.put_client()
    assert await flows.resolve_client(local, client_id)


@pytest.mark.parametrize("status", [201, 302, 308, 404, 429, 500, 503])
async def test_a_document_is_accepted_only_with_status_200_and_no_redirect_is_followed(
    local: World, site: ClientSite, status: int
) -> None:
    other = site.put_client("/other.json")
    client_id = site.put_client(status=status, headers={"location": other})
    is_brief = status >= 429
    with pytest.raises(Unavailable if is_brief else InvalidClient, match=str(status)) as refused:
        await flows.resolve_client(local, client_id)
    assert refused.value.code == ("document_unavailable" if is_brief else "invalid_client")
    assert site.requested == ["/client.json"]
    assert flows.get_oauth_client(local.db.read(), client_id) is None


@pytest.mark.parametrize(
    ("media_type", "is_accepted"),
    [
        ("application/json", True),
        ("application/oauth-client+json", True),
        ("text/html", False),
        ("text/json", False),
        ("application/+json", False),
        ("", False),
    ],
)
def test_a_document_is_accepted_only_with_a_json_media_type(media_type: str, is_accepted: bool) -> None:
    if is_accepted:
        assert parse(media_type)
        return
    with pytest.raises(InvalidClientMetadata):
        parse(media_type)


@pytest.mark.parametrize("body", [b"", b"[]", b'"x"', b"{", b'{"client_id":"a","client_id":"b"}', b"\xff{}"])
def test_a_document_that_is_not_a_json_object_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidClientMetadata):
        parse_document(body, media_type="application/json", client_id="a")


async def test_a_document_has_at_most_5_kilobytes(local: World, site: ClientSite) -> None:
    client_id = site.put_client(padding="")
    body = site.pages["/client.json"].body
    site.put("/client.json", body[:-2] + b" " * (MAX_DOCUMENT - len(body)) + body[-2:])
    assert len(site.pages["/client.json"].body) == MAX_DOCUMENT
    assert await flows.resolve_client(local, client_id)
    other = site.put_client("/other.json", padding="")
    body = site.pages["/other.json"].body
    site.put("/other.json", body[:-2] + b" " * (MAX_DOCUMENT - len(body) + 1) + body[-2:])
    with pytest.raises(Unavailable):
        await flows.resolve_client(local, other)


async def test_a_server_off_loopback_fetches_nothing_from_loopback(world: World, site: ClientSite) -> None:
    public = reconfigured(world, ca_file=site.ca_file, private_hosts="127.0.0.1 localhost")
    for origin in (site.origin, site.origin.replace("127.0.0.1", "localhost")):
        with pytest.raises((InvalidClient, Unavailable)):
            await flows.resolve_client(public, f"{origin}/client.json")
    assert site.requested == []


@pytest.mark.parametrize("host", ["10.0.0.1", "169.254.169.254", "127.1"])
async def test_a_server_on_loopback_fetches_nothing_from_other_networks(local: World, host: str) -> None:
    with pytest.raises((InvalidClient, Unavailable)):
        await flows.resolve_client(local, f"https://{host}/client.json")


async def test_a_certificate_of_an_unknown_authority_is_refused(world: World, site: ClientSite) -> None:
    with pytest.raises(Unavailable):
        await flows.resolve_client(reconfigured(world, public_url="http://localhost:8700"), site.put_client())


@pytest.mark.parametrize(
    ("cache_control", "seconds"),
    [
        ("", USUAL_FRESH_S),
        ("public", USUAL_FRESH_S),
        ("max-age=600", 600),
        ("public, Max-Age=600", 600),
        ("max-age=0", SHORTEST_FRESH_S),
        (f"max-age={SHORTEST_FRESH_S + 1}", SHORTEST_FRESH_S + 1),
        (f"max-age={LONGEST_FRESH_S + 1}", LONGEST_FRESH_S),
        ("max-age=99999999999999", LONGEST_FRESH_S),
        ("no-store", SHORTEST_FRESH_S),
        ("max-age=600, no-cache", SHORTEST_FRESH_S),
    ],
)
def test_the_cache_lifetime_of_a_document_follows_its_headers_within_bounds(cache_control: str, seconds: int) -> None:
    assert fresh_s(cache_control) == seconds


async def test_a_document_is_fetched_again_when_it_is_no_longer_fresh(
    local: World, site: ClientSite, clock: Clock
) -> None:
    client_id = site.put_client(headers={"cache_control": "max-age=600"})
    first = await flows.resolve_client(local, client_id)
    clock.advance(599)
    await flows.resolve_client(local, client_id)
    assert len(site.requested) == 1
    clock.advance(1)
    entry = newest_entry(local)
    again = await flows.resolve_client(local, client_id)
    assert len(site.requested) == 2
    assert again.digest == first.digest
    assert newest_entry(local) == entry, "nothing changed, so nothing is recorded"


@pytest.mark.parametrize(
    ("changes", "is_identity"),
    [
        ({"client_name": "Example 2"}, True),
        ({"redirect_uris": ["https://evil.example/callback"]}, True),
        ({"jwks": {"keys": [dict(jose.generate("ES256").public.jwk)]}, "token_endpoint_auth_method": ...}, True),
        ({"jwks_uri": "https://app.example/jwks", "token_endpoint_auth_method": "private_key_jwt"}, True),
        ({"contacts": ["ann@example.org"]}, False),
        ({"unknown_member": 1}, False),
    ],
)
def test_the_digest_of_a_document_changes_only_with_members_that_identify_the_client(
    changes: dict[str, Any], is_identity: bool
) -> None:
    assert (parse(**changes).digest() != parse().digest()) is is_identity


async def test_a_document_that_changes_after_consent_has_another_digest(
    local: World, site: ClientSite, clock: Clock
) -> None:
    client_id = site.put_client()
    first = await flows.resolve_client(local, client_id)
    site.put_client(redirect_uris=["https://evil.example/callback"])
    clock.advance(USUAL_FRESH_S)
    changed = await flows.resolve_client(local, client_id)
    assert (changed.digest != first.digest, changed.handle) == (True, first.handle)
    assert not changed.has_redirect_uri(f"{site.origin}/callback")
    assert newest_entry(local).action == "client.change"


async def test_a_document_that_became_invalid_is_refused_although_it_was_valid_before(
    local: World, site: ClientSite, clock: Clock
) -> None:
    client_id = site.put_client()
    await flows.resolve_client(local, client_id)
    site.put_client(redirect_uris=["http://evil.example"])
    clock.advance(USUAL_FRESH_S)
    with pytest.raises(InvalidClient):
        await flows.resolve_client(local, client_id)


def test_a_client_with_keys_and_no_method_authenticates_with_them() -> None:
    jwks = {"keys": [dict(jose.generate("ES256").public.jwk)]}
    assert parse(jwks=jwks, token_endpoint_auth_method=...).token_endpoint_auth_method == "private_key_jwt"


async def test_concurrent_requests_for_one_document_share_a_fetch(local: World, site: ClientSite) -> None:
    client_id = site.put_client()
    clients = await asyncio.gather(*(flows.resolve_client(local, client_id) for _ in range(5)))
    assert len({client.handle for client in clients}) == 1
    assert site.requested == ["/client.json"]


async def test_slow_sites_of_one_network_do_not_delay_the_clients_of_another(local: World) -> None:
    fetches, answers = documents.Fetches(local), asyncio.Event()
    begun: asyncio.Queue[str] = asyncio.Queue()

    async def share(name: str, network: str) -> None:
        async def fetch() -> None:
            begun.put_nowait(name)
            await answers.wait()

        await fetches.share(f"https://{name}.example/c", network=network, fetch=fetch)

    slow = [asyncio.create_task(share(f"slow{number}", "192.0.2.0")) for number in range(20)]
    for _ in range(documents.MAX_AT_ONCE_OF_NETWORK):
        assert (await begun.get()).startswith("slow")
    other = asyncio.create_task(share("other", "198.51.100.0"))
    assert await begun.get() == "other"
    assert begun.empty(), "the other fetches of the first network wait"
    answers.set()
    await asyncio.gather(*slow, other)
    assert begun.qsize() == 20 - documents.MAX_AT_ONCE_OF_NETWORK


async def test_a_fetch_that_waits_for_slow_sites_of_its_network_delays_no_other_network(local: World) -> None:
    fetches, answers = documents.Fetches(local), asyncio.Event()
    fetched = list[str]()

    async def slow() -> None:
        await answers.wait()

    async def share(network: str) -> None:
        async def fetch() -> None:
            fetched.append(network)

        await fetches.share("https://app.example/c", network=network, fetch=fetch)

    busy = [
        asyncio.create_task(fetches.share(f"https://slow{number}.example/c", network="192.0.2.0", fetch=slow))
        for number in range(documents.MAX_AT_ONCE_OF_NETWORK)
    ]
    waiting = asyncio.create_task(share("192.0.2.0"))
    await asyncio.sleep(0)
    await asyncio.wait_for(share("198.51.100.0"), PATIENCE_S)
    assert fetched == ["198.51.100.0"]
    assert not waiting.done()
    answers.set()
    await asyncio.gather(*busy, waiting)


async def test_the_number_of_fetches_from_a_host_is_limited_across_all_its_ports(local: World) -> None:
    fetches = documents.Fetches(local)

    async def fetch() -> None:
        return None

    burst = documents.FetchBuckets.burst // documents.COST
    for number in range(burst):
        await fetches.share(f"https://victim.example:{8000 + number}/c", network=f"net {number}", fetch=fetch)
    with pytest.raises(Unavailable, match="too many"):
        await fetches.share("https://victim.example:9000/c", network="another", fetch=fetch)


async def test_a_network_causes_a_limited_number_of_fetches(local: World, clock: Clock) -> None:
    burst = documents.FetchBuckets.burst // documents.COST

    async def ask(number: int, network: str) -> str:
        try:
            await flows.resolve_client(local, f"https://[fd00::{number:x}]/c", network=network)
        except (InvalidClient, Unavailable) as refusal:
            return refusal.code
        return ""

    codes = [await ask(number, "192.0.2.0") for number in range(1, burst + 2)]
    assert codes.count("too_many_lookups") == 1
    assert codes[-1] == "too_many_lookups"
    assert await ask(1, "198.51.100.0") != "too_many_lookups"
    clock.advance(documents.COST)
    assert await ask(99, "192.0.2.0") != "too_many_lookups"


async def test_unused_clients_are_bounded_for_each_network(
    local: World, site: ClientSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ostiaryd.trust.flows.oauth_clients.MAX_UNUSED_OF_NETWORK", 2)
    ids = [site.put_client(f"/{number}") for number in range(3)]
    for client_id in ids[:2]:
        await flows.resolve_client(local, client_id, network="192.0.2.0")
    with pytest.raises(Unavailable) as refused:
        await flows.resolve_client(local, ids[2], network="192.0.2.0")
    assert refused.value.code == "too_many_clients"
    assert await flows.resolve_client(local, ids[2], network="198.51.100.0")


@pytest.mark.parametrize(("policy", "code"), [("closed", "invalid_client"), ("approval", "invalid_client")])
async def test_a_client_with_a_document_waits_for_approval_or_is_refused_according_to_the_setting(
    world: World, site: ClientSite, policy: str, code: str
) -> None:
    local = reconfigured(world, public_url="http://127.0.0.1:8700", ca_file=site.ca_file, client_documents=policy)
    client_id = site.put_client()
    with pytest.raises(InvalidClient):
        await flows.resolve_client(local, client_id)
    known = flows.get_oauth_client(local.db.read(), client_id)
    assert (known is None) is (policy == "closed")
    assert (site.requested == []) is (policy == "closed")


async def test_a_document_that_changes_what_was_approved_waits_for_approval_again(
    world: World, site: ClientSite, clock: Clock
) -> None:
    local = reconfigured(world, public_url="http://127.0.0.1:8700", ca_file=site.ca_file, client_documents="approval")
    client_id = site.put_client()
    with pytest.raises(InvalidClient):
        await flows.resolve_client(local, client_id)
    client = flows.get_oauth_client(local.db.read(), client_id)
    assert client is not None
    await act(local, "test.approve", lambda act: flows.approve_client(act, client.handle))
    site.put_client(contacts=["ann@example.org"])
    clock.advance(USUAL_FRESH_S)
    assert await flows.resolve_client(local, client_id)
    site.put_client(redirect_uris=["https://evil.example/callback"])
    clock.advance(USUAL_FRESH_S)
    for _ in range(2):
        with pytest.raises(InvalidClient, match="waits for approval"):
            await flows.resolve_client(local, client_id)


async def test_an_unknown_client_id_that_is_not_a_url_is_refused(local: World) -> None:
    for client_id in ("ag_0123456789abcdef0123456789abcdef", "cl_0123456789abcdef0123456789abcdef", "", "x"):
        with pytest.raises(InvalidClient):
            await flows.resolve_client(local, client_id)
