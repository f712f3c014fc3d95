"""The SPIFFE Workload API over gRPC on a Unix socket (SPIFFE Workload API, SPIFFE Workload Endpoint).

The kernel identifies the calling process, which presents no credential. A process that matches no workload is refused
with PermissionDenied. Each refusal is recorded in the ledger, within the limit for unauthenticated callers. A stream
sends the complete state again when an SVID is renewed, or when an agent, a workload or a bundle has changed. WIT-SVIDs
are not implemented.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from ostiary.protocol.errors import Forbidden, Malformed, Refused, Unavailable
from ostiaryd.certs.flows.bundles import own_bundle
from ostiaryd.certs.flows.svid_cache import SECOND, Subscription, SvidCache
from ostiaryd.certs.flows.svids import first_refusal, issue_jwt_svid, validate_jwt_svid
from ostiaryd.certs.flows.trust_domains import trusted_bundles
from ostiaryd.certs.flows.workloads import match_process
from ostiaryd.certs.model.bundle import TrustBundle, render_jwt_keys
from ostiaryd.certs.model.spiffe_id import parse_spiffe_id
from ostiaryd.certs.model.workload import Workload, WorkloadFacts, parse_cgroup, pod_of, unit_of
from ostiaryd.certs.model.workload_api import (
    SERVICE,
    X509Svid,
    check_empty_request,
    encode_jwt_bundles,
    encode_jwt_svids,
    encode_validated,
    encode_x509_bundles,
    encode_x509_svids,
    parse_jwt_svid_request,
    parse_validate_request,
)
from ostiaryd.ground.database.line import Priority, priority
from ostiaryd.ground.http.grpc import GrpcCall, GrpcMethod, GrpcServer
from ostiaryd.ground.process.ids import new_id
from ostiaryd.ground.process.peer import PeerProcess, ProcessFacts
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import Act, act
from ostiaryd.policy.flows.external_pdp import act_with_answers
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import spiffe_id

HEADER = "workload.spiffe.io"
LONGEST_WAIT_S = 3600.0
MAX_DETAIL = 256


class Caller(NamedTuple):
    """An attested process: the workloads that it matches and whose agents are active, and the refusals of its other
    workloads.
    """

    workloads: Sequence[Workload]
    refusals: Sequence[Refused]

    @property
    def agents(self) -> list[str]:
        """Return the ids of the agents of the workloads."""
        return [workload.agent for workload in self.workloads]

    def check_identity(self) -> None:
        """Check that the process has an identity: a workload with an active agent. Otherwise raises the first of its
        refusals, or Forbidden if it matches no workload.
        """
        if not self.workloads:
            raise first_refusal(self.refusals)


def open_workload_api(world: World, path: Path) -> GrpcServer:
    """Serve the Workload API on a Unix socket at `path`. Raises Invalid for an unusable path, Unavailable if the server
    cannot listen there.
    """
    return GrpcServer(world, path, WorkloadApi(world).methods())


class WorkloadApi:
    """The methods of the Workload API. Used only on the event loop."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._svids = world.get_singleton(SvidCache)
        self._digesting = asyncio.Lock()
        self._digest_of_user = defaultdict[int, asyncio.Lock](asyncio.Lock)

    def methods(self) -> dict[str, GrpcMethod]:
        """Return the methods of the API by their path."""
        served: dict[str, GrpcMethod] = {
            "FetchX509SVID": self.fetch_x509_svid,
            "FetchX509Bundles": self.fetch_x509_bundles,
            "FetchJWTSVID": self.fetch_jwt_svid,
            "FetchJWTBundles": self.fetch_jwt_bundles,
            "ValidateJWTSVID": self.validate_jwt_svid,
        }
        return {f"/{SERVICE}/{name}": self._recording(method) for name, method in served.items()}

    async def fetch_x509_svid(self, call: GrpcCall) -> AsyncGenerator[bytes, None]:
        """Stream the X509-SVIDs of the caller with their keys, the server's own bundle, and the bundles of the
        federated trust domains that the caller trusts.
        """
        check_empty_request(call.message)

        async def read(caller: Caller) -> tuple[bytes, int | None]:
            svids, refusals, again_at = list[X509Svid](), list(caller.refusals), list[int]()
            for workload in caller.workloads:
                try:
                    kept, renew_at = await self._svids.get(workload)
                except Refused as refusal:
                    refusals.append(refusal)
                else:
                    svids.append(kept.svid)
                    again_at.append(renew_at)
            if not svids:
                raise RecordedRefusal(first_refusal(refusals))
            bundles = {domain_id(name): bundle.x509 for name, bundle in self._trusted(caller).items()}
            return encode_x509_svids(svids, self._own_bundle().x509, bundles), min(again_at)

        async for message in self._follow(call.peer, read):
            yield message

    async def fetch_x509_bundles(self, call: GrpcCall) -> AsyncGenerator[bytes, None]:
        """Stream the X.509 authorities of the trust domains that the caller trusts."""
        check_empty_request(call.message)

        async def read(caller: Caller) -> tuple[bytes, int | None]:
            return encode_x509_bundles({name: bundle.x509 for name, bundle in self._bundles(caller)}), None

        async for message in self._follow(call.peer, read):
            yield message

    async def fetch_jwt_svid(self, call: GrpcCall) -> AsyncGenerator[bytes, None]:
        """Issue JWT-SVIDs for the identities of the caller, or for the identity in the request."""
        audiences, name = parse_jwt_svid_request(call.message)
        caller = await self._attest(call.peer)
        caller.check_identity()
        requested = [one for one in caller.workloads if not name or str(self._id_of(one)) == str(parse_spiffe_id(name))]
        if not requested:
            raise Forbidden(
                f"this process does not have the SPIFFE ID {name[:200]!a}",
                hint="leave out `spiffe_id` to get the identities that the process has",
                code="no_identity",
            )
        issued, refusals = list[tuple[str, str]](), list[Refused]()
        for workload in requested:
            priority.set(Priority((workload.agent, ""), expires=True))
            try:
                issued.append(await self._issue_jwt(workload, audiences))
            except Refused as refusal:
                refusals.append(refusal)
        if not issued:
            raise RecordedRefusal(refusals[0])
        yield encode_jwt_svids(issued)

    async def fetch_jwt_bundles(self, call: GrpcCall) -> AsyncGenerator[bytes, None]:
        """Stream the keys that verify JWT-SVIDs: those of the server's own trust domain, and of each federated trust
        domain that the caller trusts. The first message is sent at once, a further one after each change.
        """
        check_empty_request(call.message)

        async def read(caller: Caller) -> tuple[bytes, int | None]:
            return encode_jwt_bundles({name: render_jwt_keys(one.jwt) for name, one in self._bundles(caller)}), None

        async for message in self._follow(call.peer, read):
            yield message

    async def validate_jwt_svid(self, call: GrpcCall) -> AsyncGenerator[bytes, None]:
        """Validate a JWT-SVID for an audience, and return its SPIFFE ID and its claims."""
        audience, unverified_token = parse_validate_request(call.message)
        caller = await self._attest(call.peer)
        caller.check_identity()
        world = self._world
        subject, claims = validate_jwt_svid(
            world.db.read(), caller.agents, unverified_token, audience, config=world.config, now=world.now()
        )
        yield encode_validated(subject, claims)

    async def _issue_jwt(self, workload: Workload, audiences: Sequence[str]) -> tuple[str, str]:
        world = self._world

        def issue(act: Act) -> tuple[str, str]:
            return issue_jwt_svid(act, workload, audiences, config=world.config)

        return await act_with_answers(world, lambda retry: act(world, "svid.issue", issue, again=retry))

    async def _follow(
        self, peer: PeerProcess, read: Callable[[Caller], Awaitable[tuple[bytes, int | None]]]
    ) -> AsyncGenerator[bytes, None]:
        """Yield the message that `read` returns, and later each changed message, until the process has no identity.

        `read` returns the message, and the time (microseconds) at which it must be read again; None: only after a
        change. The process is attested before each read, because it may run another program by then.
        """
        last = b""
        with self._svids.subscribe() as subscription:
            while True:
                subscription.is_due.clear()
                caller = await self._attest(peer)
                subscription.agents = frozenset(caller.agents)
                caller.check_identity()
                priority.set(Priority((caller.agents[0], ""), expires=True))
                message, again_at = await read(caller)
                if message != last:
                    yield message
                    last = message
                await self._wait(subscription, again_at)

    async def _wait(self, subscription: Subscription, again_at: int | None) -> None:
        wait_s = LONGEST_WAIT_S if again_at is None else max(0.0, (again_at - self._world.now()) / SECOND)
        with suppress(TimeoutError):
            async with asyncio.timeout(min(wait_s, LONGEST_WAIT_S)):
                await subscription.is_due.wait()

    async def _attest(self, peer: PeerProcess) -> Caller:
        """Return the caller: the process with the workloads that it matches. Raises PeerGone if the process has ended,
        Forbidden if it matches no workload.
        """
        reader = self._world.db.read()
        facts = _facts_of(await peer.read_facts())
        matches = match_process(reader, facts, with_digest=False)
        if any(workload.selectors.sha256 is not None for workload in matches):
            # the digest of a large file takes long: one digest is computed at a time, and the users take turns
            async with self._digest_of_user[peer.uid], self._digesting:
                facts = _facts_of(await peer.read_facts(has_digest=True))
            matches = match_process(reader, facts, with_digest=True)
        workloads, refusals = list[Workload](), list[Refused]()
        for workload in matches:
            try:
                registry.active_agent(reader, workload.agent, now=self._world.now())
                workloads.append(workload)
            except Refused as refusal:
                refusals.append(refusal)
        return Caller(workloads, refusals)

    def _own_bundle(self) -> TrustBundle:
        return own_bundle(self._world.db.read(), self._world.config)

    def _trusted(self, caller: Caller) -> Mapping[str, TrustBundle]:
        return trusted_bundles(self._world.db.read(), caller.agents)

    def _bundles(self, caller: Caller) -> list[tuple[str, TrustBundle]]:
        """Return (SPIFFE ID of the trust domain, bundle) for each bundle that the caller trusts; the server's own is
        the first.
        """
        trusted = [(domain_id(name), bundle) for name, bundle in self._trusted(caller).items()]
        return [(domain_id(self._world.config.trust_domain), self._own_bundle()), *trusted]

    def _id_of(self, workload: Workload) -> str:
        agent = registry.find_agent(self._world.db.read(), workload.agent)
        return spiffe_id(self._world.config.trust_domain, agent.name)

    def _recording(self, method: GrpcMethod) -> GrpcMethod:
        """Return a method that checks the header of section 3, calls `method`, and records each refusal in the
        ledger.
        """

        async def run(call: GrpcCall) -> AsyncGenerator[bytes, None]:
            priority.set(Priority((f"user {call.peer.uid}", ""), expires=True))
            try:
                if call.metadata.get(HEADER) != "true":
                    raise Malformed(
                        f"the metadata `{HEADER}: true` is missing", hint="use a client of the Workload API"
                    )
                async for message in method(call):
                    yield message
            except RecordedRefusal as recorded:
                raise recorded.refusal from None
            except Unavailable:
                raise
            except Refused as refusal:
                await self._leave(call, refusal)
                raise

        return run

    async def _leave(self, call: GrpcCall, refusal: Refused) -> None:
        """Write the ledger entry of a refused call."""

        def refuse(act: Act) -> None:
            act.entry.detail = {"method": call.method[:MAX_DETAIL], "uid": call.peer.uid, "pid": call.peer.pid}
            raise refusal

        id = new_id("rq", now=self._world.now(), random=self._world.random)
        with suppress(Refused):
            await act(self._world, "workload.refuse", refuse, request=id, network=f"user {call.peer.uid}")


class RecordedRefusal(Exception):
    """A refusal that is already recorded in the ledger by its own act."""

    def __init__(self, refusal: Refused) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


def domain_id(trust_domain: str) -> str:
    """Return the SPIFFE ID of a trust domain."""
    return f"spiffe://{trust_domain}"


def _facts_of(facts: ProcessFacts) -> WorkloadFacts:
    cgroup = parse_cgroup(facts.cgroups)
    return WorkloadFacts(facts.uid, facts.gid, facts.path, facts.digest, unit_of(cgroup), cgroup, pod_of(cgroup))
