"""Workloads, the trust bundle and federated trust domains: the acts, their entries and their refusals."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from harness.clock import Clock
from harness.registry_fixtures import newest_entry, register_agent, run_act
from ostiary.protocol.errors import Conflict, Invalid, NotFound, Refused, Unavailable
from ostiaryd.certs import wire_trust_domains
from ostiaryd.certs.flows import bundles, trust_domains, workloads
from ostiaryd.certs.flows.bundles import AHEAD, KEPT, ROTATE, own_bundle, publish_due, svid_signer
from ostiaryd.certs.model.bundle import render_bundle
from ostiaryd.certs.model.trust_domain import MAX_TRUST_DOMAINS, BackwardBundle, OwnAuthority, TrustDomain
from ostiaryd.certs.model.workload import MAX_OF_AGENT, Selectors, Workload, WorkloadFacts
from ostiaryd.certs.store import bundles as bundle_store
from ostiaryd.certs.store import trust_domains as trust_domain_store
from ostiaryd.ground.http.pages import Page
from ostiaryd.ground.world import World
from ostiaryd.ledger import store as ledger
from ostiaryd.ledger.model import Entry, decode_entry
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Verb
from tests.certs.svid_fixtures import document, jwt_jwk, root, x509_jwk
from tests.support.pem import certificate

OTHER = "other.example"
FACTS = WorkloadFacts(1000, 100, "/usr/bin/app", "", "app.service", "/system.slice/app.service", "")


async def add(world: World, agent: str = "bot", **selectors: Any) -> Workload:
    wanted = Selectors(**selectors)
    return await run_act(world, lambda a: workloads.add_workload(a, agent, wanted, config=world.config), "workload.add")


def entries(world: World, action: str) -> list[Entry]:
    return [decode_entry(body) for _, body in ledger.search_entries(world.db.read(), {"action": action}, limit=100)]


def match(world: World, facts: WorkloadFacts = FACTS) -> list[str]:
    return [one.agent for one in workloads.match_process(world.db.read(), facts, with_digest=True)]


# ---------------------------------------------------------------------------------------- Workloads


async def test_a_workload_is_added_with_an_entry_listed_matched_and_removed(world: World) -> None:
    agent = await register_agent(world)
    made = await add(world, uid=1000, path="/usr/bin/app")
    entry = newest_entry(world)
    assert (entry.action, entry.object, entry.owner) == ("workload.add", agent.agent_id, agent.owner)
    assert entry.detail is not None
    assert entry.detail["selectors"] == {"uid": 1000, "path": "/usr/bin/app"}
    assert f"workload {made.workload_id}" in entry.rows, "the ledger holds the digest of the row"
    assert match(world) == [agent.agent_id]
    assert match(world, FACTS._replace(uid=1001)) == []
    assert workloads.list_workloads(world.db.read(), Page(10, ""), agent="bot") == [made]
    assert workloads.list_workloads(world.db.read(), Page(10, made.workload_id)) == []
    await run_act(world, lambda a: workloads.remove_workload(a, made.workload_id), "workload.remove")
    assert match(world) == []
    with pytest.raises(NotFound):
        await run_act(world, lambda a: workloads.remove_workload(a, made.workload_id))


@pytest.mark.parametrize(
    ("agent", "selectors", "kind", "code"),
    [
        ("nobody", {"uid": 1}, NotFound, "not_found"),
        ("bot", {"gid": 1}, Invalid, "too_broad"),
        ("bot", {"path": "relative"}, Invalid, "invalid"),
        ("bot", {"uid": 1000, "path": "/usr/bin/app"}, Conflict, "workload_exists"),
        ("ended", {"uid": 1}, Conflict, "wrong_state"),
    ],
)
async def test_refused_workloads_change_nothing(
    world: World, agent: str, selectors: dict[str, Any], kind: type[Refused], code: str
) -> None:
    await register_agent(world)
    ended = await register_agent(world, "ended")
    await run_act(world, lambda a: registry.set_agent_state(a, ended.agent_id, Verb.DECOMMISSION))
    await add(world, uid=1000, path="/usr/bin/app")
    with pytest.raises(kind) as refused:
        await add(world, agent, **selectors)
    assert refused.value.code == code
    assert (newest_entry(world).outcome, newest_entry(world).action) == ("refused", "workload.add")
    assert len(workloads.list_workloads(world.db.read(), Page(10, ""))) == 1


async def test_a_user_selector_alone_belongs_to_one_agent(world: World) -> None:
    for name in ("bot", "other", "third"):
        await register_agent(world, name)
    await add(world, "bot", uid=1000)
    await add(world, "bot", uid=1000, path="/usr/bin/app")
    for selectors in ({"uid": 1000}, {"uid": 1000, "gid": 5}, {"uid": 1000, "path": "/usr/bin/other"}):
        with pytest.raises(Conflict) as refused:
            await add(world, "other", **selectors)
        assert refused.value.code == "user_taken"
    await add(world, "other", uid=1001, path="/usr/bin/one")
    with pytest.raises(Conflict, match="is for the user 1001 too"):
        await add(world, "third", uid=1001)
    await add(world, "third", uid=1001, path="/usr/bin/two")


async def test_the_number_of_workloads_is_limited(world: World) -> None:
    await register_agent(world)
    for number in range(MAX_OF_AGENT):
        await add(world, uid=number)
    with pytest.raises(Conflict) as refused:
        await add(world, uid=MAX_OF_AGENT)
    assert refused.value.code == "too_many_workloads"


# ---------------------------------------------------------------------------------------- The bundle


async def test_there_is_no_bundle_before_the_first_workload(world: World) -> None:
    await publish_due(world)
    with pytest.raises(Unavailable):
        own_bundle(world.db.read(), world.config)
    assert not bundle_store.svid_keys(world.db.read())


async def test_a_signing_key_is_published_before_its_first_use_and_after_its_last(world: World, clock: Clock) -> None:
    await register_agent(world)
    await add(world, uid=1)

    def published() -> list[str]:
        return [one.kid for one in own_bundle(world.db.read(), world.config).jwt]

    async def signer() -> str:
        return (await run_act(world, svid_signer)).public.kid

    [first] = published()
    sequences = [own_bundle(world.db.read(), world.config).sequence]
    clock.advance(us=ROTATE - 1)
    await publish_due(world)
    assert published() == [first]
    clock.advance(us=1)
    await publish_due(world)
    _, second = published()
    sequences.append(own_bundle(world.db.read(), world.config).sequence)
    clock.advance(us=AHEAD - 1)
    assert await signer() == first, "others have not fetched the next key yet"
    clock.advance(us=1)
    assert await signer() == second
    clock.advance(us=KEPT - 1)
    await publish_due(world)
    assert published() == [first, second]
    clock.advance(us=1)
    await publish_due(world)
    assert published() == [second]
    sequences.append(own_bundle(world.db.read(), world.config).sequence)
    assert sequences == sorted(set(sequences), key=lambda one: one or 0)
    assert len(entries(world, "bundle.publish")) == 2, "a bundle that is the same is not published again"
    assert not bundles.is_due(world.db.read(), world.keys, world.config, now=world.now())


# ---------------------------------------------------------------------------------------- Federation


class Publisher:
    """A bundle endpoint over TLS on loopback."""

    def __init__(self) -> None:
        self.url = ""
        self.status, self.body, self.location = 200, document(x509_jwk(root()), jwt_jwk(), spiffe_sequence=7), ""
        self.requests: list[str] = []


@pytest.fixture
def publisher(world: World, tmp_path: Path) -> Iterator[Publisher]:
    made = Publisher()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            made.requests.append(self.path)
            is_moved = self.path == "/moved"
            self.send_response(302 if is_moved else made.status)
            if is_moved:
                self.send_header("location", made.location)
            self.end_headers()
            self.wfile.write(b"" if is_moved else made.body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    context, authority = certificate(tmp_path, "localhost")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    made.url = f"https://localhost:{server.server_port}/bundle"
    changed = msgspec.structs.replace(world.config, private_hosts="localhost", ca_file=str(authority))
    object.__setattr__(world, "config", changed)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield made
    server.shutdown()
    server.server_close()
    thread.join()


async def federate(world: World, url: str) -> TrustDomain:
    return await run_act(
        world, lambda a: trust_domains.add_trust_domain(a, OTHER, url, config=world.config), "federation.add"
    )


def domain(world: World) -> TrustDomain:
    return trust_domains.find_trust_domain(world.db.read(), OTHER)


async def test_a_bundle_is_fetched_again_after_its_refresh_hint(
    world: World, clock: Clock, publisher: Publisher
) -> None:
    publisher.body = document(jwt_jwk(), spiffe_sequence=7, spiffe_refresh_hint=60)
    await federate(world, publisher.url)
    await wire_trust_domains.refresh_due(world)
    fetched = domain(world)
    assert (fetched.sequence, len(fetched.bundle.jwt), fetched.failed, fetched.refreshed_at) == (7, 1, "", clock())
    clock.advance(59)
    await wire_trust_domains.refresh_due(world)
    assert len(publisher.requests) == 1
    clock.advance(1)
    await wire_trust_domains.refresh_due(world)
    assert (len(publisher.requests), domain(world).refreshed_at) == (2, clock())
    assert len(entries(world, "federation.refresh")) == 1, "it was the same"
    publisher.body = document(spiffe_sequence=(1 << 64) - 1)
    clock.advance(60)
    await wire_trust_domains.refresh_due(world)
    assert (domain(world).sequence, domain(world).bundle.jwt) == ((1 << 64) - 1, ())


@pytest.mark.parametrize("sequence", [6, 7])
async def test_a_bundle_whose_sequence_number_does_not_rise_is_refused_with_an_entry(
    world: World, clock: Clock, publisher: Publisher, sequence: int
) -> None:
    await federate(world, publisher.url)
    await wire_trust_domains.refresh_due(world)
    before = domain(world)
    publisher.body = document(jwt_jwk("RS256"), spiffe_sequence=sequence)
    clock.advance(300)
    await wire_trust_domains.refresh_due(world)
    after = domain(world)
    assert (after.content, after.sequence, after.refreshed_at) == (before.content, 7, before.refreshed_at)
    assert f"the sequence number {sequence}" in after.failed
    entry = newest_entry(world)
    assert (entry.action, entry.outcome, entry.reasons[0].code) == (
        "federation.refresh",
        "refused",
        BackwardBundle.code,
    )


def certify_again(der: bytes) -> bytes:
    """Return another certificate of the key of a root."""
    first = x509.load_der_x509_certificate(der)
    builder = x509.CertificateBuilder(issuer_name=first.issuer, subject_name=first.subject).serial_number(1)
    key = first.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    builder = builder.public_key(key).not_valid_before(first.not_valid_before_utc)
    builder = builder.not_valid_after(first.not_valid_after_utc)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    return builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256()).public_bytes(Encoding.DER)


@pytest.mark.parametrize("kind", ["x509", "x509 in another certificate", "jwt"])
async def test_a_bundle_with_a_key_of_this_server_is_refused_with_an_entry(
    world: World, clock: Clock, publisher: Publisher, kind: str
) -> None:
    """The endpoint is this server, or the other trust domain copies its bundle."""
    await federate(world, publisher.url)
    await wire_trust_domains.refresh_due(world)
    before = domain(world)
    own = own_bundle(world.db.read(), world.config)
    copied = own._replace(x509=()) if kind == "jwt" else own._replace(jwt=())
    if kind == "x509 in another certificate":
        copied = copied._replace(x509=tuple(map(certify_again, own.x509)))
    publisher.body = render_bundle(copied._replace(sequence=1 << 60))
    clock.advance(300)
    await wire_trust_domains.refresh_due(world)
    after = domain(world)
    assert (after.content, after.refreshed_at) == (before.content, before.refreshed_at)
    assert "a key of this server's own trust domain" in after.failed
    entry = newest_entry(world)
    assert (entry.action, entry.outcome, entry.reasons[0].code) == (
        "federation.refresh",
        "refused",
        OwnAuthority.code,
    )


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (500, b"", "answers 500"),
        (404, b"", "answers 404"),
        (200, b"not JSON", "not JSON"),
        (200, b'{"keys": 1}', "array `keys`"),
        (200, b'{"keys": [], "spiffe_sequence": -1}', "64 bits"),
        (200, b" " * (257 << 10), "more than"),
    ],
)
async def test_an_unusable_bundle_leaves_the_last_bundle_in_use(
    world: World, clock: Clock, publisher: Publisher, status: int, body: bytes, words: str
) -> None:
    await federate(world, publisher.url)
    await wire_trust_domains.refresh_due(world)
    before = domain(world)
    publisher.status, publisher.body = status, body
    clock.advance(300)
    await wire_trust_domains.refresh_due(world)
    assert domain(world).content == before.content
    assert words in domain(world).failed
    requests = len(publisher.requests)
    clock.advance(299)
    await wire_trust_domains.refresh_due(world)
    assert len(publisher.requests) == requests, "it is tried again at the next interval, not at once"


async def test_redirects_of_a_bundle_endpoint_are_checked_and_followed_for_one_fetch(
    world: World, publisher: Publisher
) -> None:
    moved = publisher.url.replace("/bundle", "/moved")
    publisher.location = "/bundle"
    await federate(world, moved)
    await wire_trust_domains.refresh_due(world)
    assert publisher.requests == ["/moved", "/bundle"]
    assert (domain(world).sequence, domain(world).bundle_url) == (7, moved)
    for location, words in (
        (publisher.url.replace("https", "http"), "must be https"),
        ("https://169.254.169.254/bundle", "not public"),
        ("https://127.0.0.1/bundle", "not public"),
        ("/moved", "answers 302"),
        ("https://[x", "not lead to a valid URL"),
    ):
        publisher.location = location
        await wire_trust_domains.refresh(world, domain(world))
        assert words in domain(world).failed, location
        assert domain(world).sequence == 7


async def test_a_url_that_cannot_be_a_bundle_endpoint_is_refused(world: World) -> None:
    cases: list[str] = [
        "http://other.example/bundle",
        "https://user@other.example/b",
        "https://127.0.0.1/b",
        "ftp://x",
        "https://[::1]/",
    ]
    for url in cases:
        with pytest.raises((Invalid, Unavailable)):
            await wire_trust_domains.fetch_bundle(world, url)


async def test_refused_trust_domains_change_nothing(world: World) -> None:
    await federate(world, "https://other.example/bundle")
    for name, code in (
        (OTHER, "trust_domain_exists"),
        ("example.org", "invalid"),
        ("Other", "invalid"),
        ("", "invalid"),
    ):
        with pytest.raises(Refused) as refused:
            await run_act(
                world,
                lambda a, n=name: trust_domains.add_trust_domain(a, n, "https://x.example/", config=world.config),  # type: ignore[misc]
            )
        assert refused.value.code == code, name
    for number in range(MAX_TRUST_DOMAINS - 1):
        await run_act(
            world,
            lambda a, n=number: trust_domains.add_trust_domain(a, f"td-{n}", "https://x.example/", config=world.config),  # type: ignore[misc]
        )
    with pytest.raises(Conflict, match="trust domains"):
        await run_act(
            world, lambda a: trust_domains.add_trust_domain(a, "more", "https://x.example/", config=world.config)
        )
    for act in (trust_domains.allow_agent, trust_domains.disallow_agent):
        with pytest.raises(NotFound):
            await run_act(world, lambda a, act=act: act(a, "nowhere", "bot"))  # type: ignore[misc]
    await register_agent(world)
    with pytest.raises(NotFound, match="does not trust"):
        await run_act(world, lambda a: trust_domains.disallow_agent(a, OTHER, "bot"))


async def test_a_removed_trust_domain_is_trusted_by_no_agent_when_added_again(world: World) -> None:
    agent = await register_agent(world)
    await federate(world, "https://other.example/bundle")
    await run_act(world, lambda a: trust_domains.allow_agent(a, OTHER, "bot"))
    assert trust_domain_store.agents(world.db.read(), OTHER) == [agent.agent_id]
    assert trust_domains.trusted_bundles(world.db.read(), [agent.agent_id]) == {}, "no bundle was fetched yet"
    await run_act(world, lambda a: trust_domains.remove_trust_domain(a, OTHER))
    await federate(world, "https://other.example/bundle")
    assert trust_domain_store.agents(world.db.read(), OTHER) == []


async def test_outdated_bundles_are_reported(world: World, clock: Clock, publisher: Publisher) -> None:
    await federate(world, publisher.url)
    assert trust_domains.troubles(world.db.read(), now=world.now()) == []
    publisher.status = 500
    await wire_trust_domains.refresh_due(world)
    assert trust_domains.troubles(world.db.read(), now=world.now()) == [
        f"`{OTHER}`: the bundle endpoint answers 500 instead of 200"
    ]
    publisher.status = 200
    clock.advance(300)
    await wire_trust_domains.refresh_due(world)
    assert trust_domains.troubles(world.db.read(), now=world.now()) == []
    clock.advance(us=trust_domains.OLD + 1)
    assert len(trust_domains.troubles(world.db.read(), now=world.now())) == 1
