"""X509-SVIDs in memory, one for each agent whose workloads asked for one, and the changes that streams must hear of.

The key of an X509-SVID is in memory alone: after a restart each agent gets a new one. All workloads of an agent on one
server have the same X509-SVID, so that a process that asks again and again costs nothing.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import msgspec

from ostiary.protocol.decoding import json_decoder
from ostiary.protocol.errors import Refused, Unavailable
from ostiaryd.certs.flows.bundles import TOPIC
from ostiaryd.certs.flows.renewals import note_failed_renewal
from ostiaryd.certs.flows.revoking import find_certificate, is_live
from ostiaryd.certs.flows.svids import KeptSvid, issue_x509_svid
from ostiaryd.certs.model import Certificate, holding_id
from ostiaryd.certs.model.workload import Workload
from ostiaryd.ground.database import DatabaseUnavailable
from ostiaryd.ground.database.pin import InRecovery
from ostiaryd.ground.outbound import outbox
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import Act, act
from ostiaryd.policy.flows.external_pdp import act_with_answers
from ostiaryd.registry.flows.feed import TOPIC as FEED
from ostiaryd.registry.model import AgentId
from ostiaryd.tasks.model import standing_id

SECOND = 1_000_000
BEAT_S = 1.0
"""Interval at which commits of other servers are read while a stream is open."""
SPREAD = 256


@dataclass(slots=True, eq=False)
class Subscription:
    """A stream that waits for changes of its agents."""

    agents: frozenset[str] = frozenset()
    is_due: asyncio.Event = field(default_factory=asyncio.Event)


class _Delta(msgspec.Struct):
    """A message to guards, as far as workloads are concerned."""

    kind: str
    agent: str = ""
    jti: str = ""
    task: str = ""


_decode = json_decoder(_Delta)


class SvidCache:
    """The X509-SVIDs of this process and the streams that they go to. Lives on the event loop."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._kept: dict[str, tuple[KeptSvid, int]] = {}
        """X509-SVID of an agent, and when to renew it (microseconds)"""
        self._newest: dict[str, Certificate] = {}
        """X509-SVID of an agent that was issued last, also after a refused renewal"""
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._subscriptions: set[Subscription] = set()
        self._position = outbox.head(world.db.read())
        self._beating: asyncio.TimerHandle | None = None
        world.writer.listeners.append(self._on_commit)

    async def get(self, workload: Workload) -> tuple[KeptSvid, int]:
        """Return the X509-SVID of the agent of a workload, and when to ask again (microseconds).

        A renewal that fails because the server cannot write leaves the present X509-SVID in its place until its end.
        Raises Forbidden, Conflict, Unavailable.
        """
        agent = workload.agent
        async with self._locks[agent]:
            world = self._world
            if world.pin.is_lost:
                raise InRecovery
            kept = self._kept.get(agent)
            is_valid = kept is not None and self._is_live(kept[0])
            if kept is not None and is_valid and world.now() < kept[1]:
                return kept
            try:
                issued = await self._issue(workload)
            except Unavailable:
                if kept is None or not is_valid:
                    raise
                return kept[0], world.now() + self._spread(10 * SECOND, 20 * SECOND)
            except Refused:
                self._kept.pop(agent, None)
                await self._count_failure(agent)
                raise
            life = issued.certificate.not_after - world.now()
            self._newest[agent] = issued.certificate
            kept = self._kept[agent] = issued, world.now() + self._spread(life // 2, life * 2 // 3)
            return kept

    async def _count_failure(self, agent: str) -> None:
        """Count a refused renewal of the newest X509-SVID of an agent, while it is in force."""
        newest, now = self._newest.get(agent), self._world.now()
        if newest is not None and now < newest.not_after:
            with suppress(Unavailable):
                await self._world.writer.submit(lambda tx: note_failed_renewal(tx, newest.serial, by=agent))

    async def _issue(self, workload: Workload) -> KeptSvid:
        world = self._world

        def issue(act: Act) -> KeptSvid:
            return issue_x509_svid(act, workload, config=world.config)

        return await act_with_answers(world, lambda retry: act(world, "cert.issue", issue, again=retry))

    def _is_live(self, kept: KeptSvid) -> bool:
        reader, now = self._world.db.read(), self._world.now()
        return is_live(reader, find_certificate(reader, kept.certificate.serial, now=now), now=now)

    def _spread(self, least: int, most: int) -> int:
        """Return a time between the two, so that not all are renewed at once."""
        return least + (most - least) * self._world.random(1)[0] // SPREAD

    @contextmanager
    def subscribe(self) -> Iterator[Subscription]:
        """Give a subscription, which is due when its agents, the workloads or a bundle change."""
        subscription = Subscription()
        self._subscriptions.add(subscription)
        if self._beating is None:
            self._beat()
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)

    def prune(self) -> None:
        """Forget X509-SVIDs that no stream has and that are due for renewal."""
        now, used = self._world.now(), {agent for one in self._subscriptions for agent in one.agents}
        for agent in [agent for agent, kept in self._kept.items() if agent not in used and kept[1] <= now]:
            del self._kept[agent]
            if not self._locks[agent].locked():
                del self._locks[agent]
        self._newest = {agent: one for agent, one in self._newest.items() if now < one.not_after}

    def _beat(self) -> None:
        self._beating = None
        if self._subscriptions:
            with suppress(DatabaseUnavailable):  # the next beat tries again
                self._follow()
            self._beating = asyncio.get_running_loop().call_later(BEAT_S, self._beat)

    def _on_commit(self, topics: set[str]) -> None:
        if self._subscriptions and (self._world.pin.is_lost or topics & {TOPIC, FEED}):
            with suppress(DatabaseUnavailable):
                self._follow()

    def _follow(self) -> None:
        """Wake the streams concerned by commits since the last call, of this process or another."""
        reader = self._world.db.read()
        head, before = outbox.head(reader), self._position
        if head == before and not self._world.pin.is_lost:
            return
        self._position = head
        concerned = set[AgentId | str]()
        is_missed = head < before or self._world.pin.is_lost or bool(outbox.after(reader, TOPIC, before, count=1))
        while not is_missed and (rows := outbox.after(reader, FEED, before)):
            before = rows[-1][0]
            for _, _, body in rows:
                delta = _decode(body)
                is_missed |= delta.kind == "stop"
                concerned |= {delta.agent, delta.jti, delta.task} - {""}
        for one in self._subscriptions:
            if is_missed or any(not concerned.isdisjoint(self._names(agent)) for agent in one.agents):
                one.is_due.set()

    def _names(self, agent: str) -> set[str]:
        """Return the ids under which a message may concern the workloads of an agent."""
        kept = self._kept.get(agent)
        certificate = set() if kept is None else {holding_id(kept[0].certificate.serial)}
        return {agent, standing_id(AgentId(agent)), *certificate}
