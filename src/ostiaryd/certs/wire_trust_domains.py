"""Federation with other trust domains: the bundle endpoint, the loop that fetches their bundles, and the admin API.

A bundle endpoint proves its host name with a certificate of an authority that this machine trusts (`https_web`: SPIFFE
Federation, 5.2.1), or its SPIFFE ID with a certificate that the latest bundle of its trust domain verifies
(`https_spiffe`: 5.2.2). A redirect is followed for one fetch only, and its target must prove the same identity. An
administrator sets the URL. The URL must have a public address, unless `private_hosts` in the configuration names the
host. The server's own endpoint supports both profiles, `https_spiffe` only with `--tls auto`.
"""

from __future__ import annotations

import asyncio
from typing import Any, TypedDict

import msgspec

from ostiary.protocol.errors import Invalid, NotFound, Refused, Unavailable
from ostiaryd.certs import store
from ostiaryd.certs.flows import trust_domains
from ostiaryd.certs.flows.bundles import find_own_bundle
from ostiaryd.certs.model.bundle import MAX_BUNDLE, TrustBundle, parse_bundle, render_bundle
from ostiaryd.certs.model.spiffe_id import parse_spiffe_id
from ostiaryd.certs.model.trust_domain import SECOND, TrustDomain, is_new
from ostiaryd.certs.model.x509_svid import check_x509_svid
from ostiaryd.ground.database import Reader
from ostiaryd.ground.http.edge import NO_STORE, Call, Reply, reply
from ostiaryd.ground.http.pages import reply_short_list
from ostiaryd.ground.http.routes import NOT_FOUND, PAGE, EmptyBody, PageBody, Route
from ostiaryd.ground.outbound.fetch import REDIRECTS, PeerTrust, check_named, follow, send_request
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import act
from ostiaryd.registry.flows import act_as, find_agent
from ostiaryd.registry.model import ADMIN, READ

FETCH_S = 10
MAX_REDIRECTS = 3


class NewTrustDomain(msgspec.Struct, forbid_unknown_fields=True):
    """A trust domain to federate with: its name, and the URL at which it publishes its bundle."""

    name: str
    bundle_url: str
    endpoint_spiffe_id: str = ""
    """SPIFFE ID that the server at `bundle_url` must prove (`https_spiffe`). If empty, the server must prove its host
    name (`https_web`).
    """
    bundle: dict[str, Any] | None = None
    """First bundle in the SPIFFE bundle format. Required if the endpoint has a SPIFFE ID in the same trust domain."""


class TrustDomainBody(TypedDict):
    """A federated trust domain and the state of its bundle. `agents`: the agents whose workloads trust the trust
    domain.
    """

    name: str
    bundle_url: str
    endpoint_spiffe_id: str
    sequence: str | None
    authorities: int
    jwt_keys: int
    agents: list[str]
    refreshed_at: int | None
    failed: str


class BundleBody(TypedDict):
    """A trust bundle in the SPIFFE bundle format."""

    keys: list[dict[str, Any]]
    spiffe_sequence: int
    spiffe_refresh_hint: int


async def show_own_bundle(call: Call) -> Reply:
    """Return the trust bundle of this trust domain (SPIFFE Federation, 5.2.1.3)."""
    if (bundle := find_own_bundle(call.world.db.read(), call.world.config)) is None:
        raise NotFound(
            "the trust domain has no bundle yet", hint="register a workload: ostiary agent workload add NAME --uid UID"
        )
    return Reply(200, render_bundle(bundle), headers=[NO_STORE])


async def add_trust_domain(call: Call) -> Reply:
    """Add a trust domain, and fetch its bundle.

    The workloads of an agent trust the trust domain only after an administrator has allowed this for the agent.
    """
    new, world = call.json(NewTrustDomain), call.world
    _check_url(world, new.bundle_url)
    bundle = None if new.bundle is None else parse_bundle(msgspec.json.encode(new.bundle))
    made = await act_as(
        call,
        "federation.add",
        lambda act: trust_domains.add_trust_domain(
            act,
            new.name,
            new.bundle_url,
            endpoint_spiffe_id=new.endpoint_spiffe_id,
            bundle=bundle,
            config=world.config,
        ),
    )
    await refresh(world, made)
    return reply(_show(world.db.read(), made.name), status=201)


async def list_trust_domains(call: Call) -> Reply:
    """List the federated trust domains and the state of their bundles."""
    return await reply_short_list(
        call,
        "trust_domains",
        store.trust_domains.list_trust_domains,
        lambda reader, one: _show(reader, one.name),
        cursor=lambda one: one.name,
    )


async def show_trust_domain(call: Call) -> Reply:
    """Show a federated trust domain, the state of its bundle, and the agents that trust it."""
    return reply(_show(call.world.db.read(), call.params["name"]))


async def refresh_trust_domain(call: Call) -> Reply:
    """Fetch the bundle of a trust domain now. If the fetch fails, the response says why in `failed`."""
    await refresh(call.world, trust_domains.find_trust_domain(call.world.db.read(), call.params["name"]))
    return await show_trust_domain(call)


async def remove_trust_domain(call: Call) -> Reply:
    """End the federation with a trust domain. Workloads lose its bundle at once."""
    await act_as(call, "federation.remove", lambda act: trust_domains.remove_trust_domain(act, call.params["name"]))
    return reply({})


async def allow_agent(call: Call) -> Reply:
    """Let the workloads of an agent trust a trust domain."""
    name, agent = call.params["name"], call.params["agent"]
    await act_as(call, "federation.allow", lambda act: trust_domains.allow_agent(act, name, agent))
    return await show_trust_domain(call)


async def disallow_agent(call: Call) -> Reply:
    """Withdraw the trust of an agent's workloads in a trust domain."""
    name, agent = call.params["name"], call.params["agent"]
    await act_as(call, "federation.disallow", lambda act: trust_domains.disallow_agent(act, name, agent))
    return await show_trust_domain(call)


async def refresh_due(world: World) -> None:
    """Fetch all bundles that are due, in parallel."""
    due = await world.db.scan(lambda reader: trust_domains.list_due_domains(reader, now=world.now()))
    await asyncio.gather(*(refresh(world, domain) for domain in due))


async def refresh(world: World, domain: TrustDomain) -> None:
    """Fetch the bundle of a trust domain, unless another process has the claim. If the fetch fails, record the reason
    with the trust domain.
    """
    if not await world.writer.submit(lambda tx: trust_domains.claim_refresh(tx, domain)):
        return
    config = world.config
    try:
        bundle = await fetch_bundle(world, domain.bundle_url, domain.endpoint_spiffe_id)
        if _has_changed(world, domain, bundle):
            await act(
                world,
                "federation.refresh",
                lambda act: trust_domains.take_bundle(act, domain.name, bundle, config=config),
            )
        else:
            await world.writer.submit(lambda tx: trust_domains.keep_bundle(tx, domain.name, bundle))
    except Refused as refusal:
        why = refusal.message
        await world.writer.submit(lambda tx: trust_domains.fail_refresh(tx, domain.name, why))


def _has_changed(world: World, domain: TrustDomain, bundle: TrustBundle) -> bool:
    """Return whether an act is needed: the fetched bundle differs from the stored bundle, or must be refused."""
    present = trust_domains.find_trust_domain(world.db.read(), domain.name)
    try:
        return is_new(present, bundle)
    except Refused:
        return True


async def fetch_bundle(world: World, url: str, endpoint_spiffe_id: str = "") -> TrustBundle:
    """Return the bundle at a URL. A redirect to another valid URL is followed. Raises Unavailable if the endpoint
    fails, Malformed or Invalid for a document that is not a bundle.
    """
    config, peer = world.config, None
    if endpoint_spiffe_id:
        endpoint = parse_spiffe_id(endpoint_spiffe_id)
        roots = trust_domains.find_endpoint_roots(world.db.read(), endpoint, config)
        peer = PeerTrust(roots, lambda der: check_x509_svid(der, endpoint))
    for _ in range(1 + MAX_REDIRECTS):
        answer = await send_request(
            "GET",
            _check_url(world, url),
            headers={"accept": "application/json"},
            within_s=FETCH_S,
            max_bytes=MAX_BUNDLE,
            private=config.private,
            ca_file=config.ca_file,
            peer=peer,
        )
        if answer.status not in REDIRECTS:
            break
        url = follow(url, answer.location)
    if answer.status != 200:
        raise Unavailable(f"the bundle endpoint answers {answer.status} instead of 200")
    return parse_bundle(answer.body)


def _check_url(world: World, url: str) -> str:
    """Return the URL of a bundle endpoint if the URL is valid (5.2.1.1). Raises Invalid otherwise."""
    if not url.startswith("https://"):
        raise Invalid(f"the URL of a bundle endpoint must be https, not {url[:200]!a}", hint="https://HOST/PATH")
    return check_named(url, of="the URL of the bundle endpoint", private=world.config.private)


def _show(reader: Reader, name: str) -> TrustDomainBody:
    domain = trust_domains.find_trust_domain(reader, name)
    return {
        "name": domain.name,
        "bundle_url": domain.bundle_url,
        "endpoint_spiffe_id": domain.endpoint_spiffe_id,
        "sequence": None if domain.sequence is None else str(domain.sequence),
        "authorities": len(domain.bundle.x509),
        "jwt_keys": len(domain.bundle.jwt),
        "agents": [find_agent(reader, id).name for id in store.trust_domains.agents(reader, name)],
        "refreshed_at": None if domain.refreshed_at is None else domain.refreshed_at // SECOND,
        "failed": domain.failed,
    }


ROUTES = (
    Route(
        "GET",
        "/spiffe/bundle",
        show_own_bundle,
        "",
        errors=(NOT_FOUND,),
        answers={200: BundleBody},
        is_cross_origin=True,
    ),
    Route(
        "POST", "/api/v1/trust-domains", add_trust_domain, ADMIN, body=NewTrustDomain, answers={201: TrustDomainBody}
    ),
    Route(
        "GET",
        "/api/v1/trust-domains",
        list_trust_domains,
        READ,
        answers={200: PageBody("trust_domains", TrustDomainBody)},
        query=PAGE,
    ),
    Route("GET", "/api/v1/trust-domains/{name}", show_trust_domain, READ, answers={200: TrustDomainBody}),
    Route("DELETE", "/api/v1/trust-domains/{name}", remove_trust_domain, ADMIN, stops=True, answers={200: EmptyBody}),
    Route("POST", "/api/v1/trust-domains/{name}/refresh", refresh_trust_domain, ADMIN, answers={200: TrustDomainBody}),
    Route("PUT", "/api/v1/trust-domains/{name}/agents/{agent}", allow_agent, ADMIN, answers={200: TrustDomainBody}),
    Route(
        "DELETE",
        "/api/v1/trust-domains/{name}/agents/{agent}",
        disallow_agent,
        ADMIN,
        stops=True,
        answers={200: TrustDomainBody},
    ),
)
