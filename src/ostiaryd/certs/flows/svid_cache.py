"""Cache of X509-SVIDs, one for each agent with a workload that requested an X509-SVID; and the subscriptions by which
streams learn of changes.

The key of an X509-SVID exists only in memory: after a restart of the server, each agent gets a new key. All workloads
of an agent on one server get the same X509-SVID from the cache.
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
from ostiaryd.certs import store
from ostiaryd.certs.flows.bundles import TOPIC
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
from ostiaryd.registry.flows.feed import FEED_TOPIC
from ostiaryd.registry.model import AgentId
from ostiaryd.tasks.model import standing_id

SECOND = 1_000_000
BEAT_S = 1.0
"""Seconds between two reads of the commits of other servers while a stream is open."""
SPREAD = 256


@dataclass(slots=True, eq=False)
class Subscription:
    """A subscription of a stream to changes that concern its agents. A change sets `is_due`, which wakes the stream."""

    agents: frozenset[str] = frozenset()
    is_due: asyncio.Event = field(default_factory=asyncio.Event)


class _Delta(msgspec.Struct):
    """A change of the feed, decoded with only the members that concern workloads."""

    kind: str
    agent: str = ""
    jti: str = ""
    task: str = ""


_decode = json_decoder(_Delta)


class SvidCache:
    """The X509-SVIDs of this server process by agent, and the streams that receive them. Used only on the event
    loop.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._kept: dict[str, tuple[KeptSvid, int]] = {}
        """X509-SVIDs by agent, each with the time of its renewal (microseconds)"""
        self._newest: dict[str, Certificate] = {}
        """newest X509-SVIDs by agent; an X509-SVID whose renewal was refused stays in this table"""
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._subscriptions: set[Subscription] = set()
        self._position = outbox.highest_number(world.db.read())
        self._beating: asyncio.TimerHandle | None = None
        world.writer.listeners.append(self._on_commit)

    async def get(self, workload: Workload) -> tuple[KeptSvid, int]:
        """Return the X509-SVID of a workload's agent, and the time (microseconds) at which the caller must call this
        method again.

        If a renewal fails because the server cannot write, the present X509-SVID is returned until it expires.
        Otherwise raises the error of the renewal: Forbidden or Conflict if the server refuses the agent a certificate,
        Unavailable if the server cannot write.
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
        """Count a refused renewal of an agent's newest X509-SVID, unless the X509-SVID has expired."""
        newest, now = self._newest.get(agent), self._world.now()
        if newest is not None and now < newest.not_after:
            with suppress(Unavailable):
                await self._world.writer.submit(
                    lambda tx: store.certificates.count_failed_renewal(tx, newest.serial, holder=agent)
                )

    async def _issue(self, workload: Workload) -> KeptSvid:
        world = self._world

        def issue(act: Act) -> KeptSvid:
            return issue_x509_svid(act, workload, config=world.config)

        return await act_with_answers(world, lambda retry: act(world, "cert.issue", issue, again=retry))

    def _is_live(self, kept: KeptSvid) -> bool:
        reader, now = self._world.db.read(), self._world.now()
        return is_live(reader, find_certificate(reader, kept.certificate.serial, now=now), now=now)

    def _spread(self, least: int, most: int) -> int:
        """Return a random time between `least` and `most`, so that renewals of many agents do not coincide."""
        return least + (most - least) * self._world.random(1)[0] // SPREAD

    @contextmanager
    def subscribe(self) -> Iterator[Subscription]:
        """Yield a subscription to changes. Its event `is_due` is set when one of its agents, a workload, a bundle or a
        stop of the kill switch changes.
        """
        subscription = Subscription()
        self._subscriptions.add(subscription)
        if self._beating is None:
            self._beat()
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)

    def prune(self) -> None:
        """Delete the X509-SVIDs that are due for renewal and that no stream uses."""
        now, used = self._world.now(), {agent for one in self._subscriptions for agent in one.agents}
        for agent in [agent for agent, kept in self._kept.items() if agent not in used and kept[1] <= now]:
            del self._kept[agent]
            if not self._locks[agent].locked():
                del self._locks[agent]
        self._newest = {agent: one for agent, one in self._newest.items() if now < one.not_after}

    def _beat(self) -> None:
        self._beating = None
        if self._subscriptions:
            with suppress(DatabaseUnavailable):  # the next read of the commits tries again
                self._follow()
            self._beating = asyncio.get_running_loop().call_later(BEAT_S, self._beat)

    def _on_commit(self, topics: set[str]) -> None:
        if self._subscriptions and (self._world.pin.is_lost or topics & {TOPIC, FEED_TOPIC}):
            with suppress(DatabaseUnavailable):
                self._follow()

    def _follow(self) -> None:
        """Wake the streams that are concerned by commits since the last call, of this server or another."""
        reader = self._world.db.read()
        head, before = outbox.highest_number(reader), self._position
        if head == before and not self._world.pin.is_lost:
            return
        self._position = head
        concerned = set[AgentId | str]()
        is_missed = (
            head < before or self._world.pin.is_lost or bool(outbox.messages_after(reader, TOPIC, before, count=1))
        )
        while not is_missed and (rows := outbox.messages_after(reader, FEED_TOPIC, before)):
            before = rows[-1][0]
            for _, _, body in rows:
                delta = _decode(body)
                is_missed |= delta.kind == "stop"
                concerned |= {delta.agent, delta.jti, delta.task} - {""}
        for one in self._subscriptions:
            if is_missed or any(not concerned.isdisjoint(self._names(agent)) for agent in one.agents):
                one.is_due.set()

    def _names(self, agent: str) -> set[str]:
        """Return the ids by which a change can refer to the workloads of an agent."""
        kept = self._kept.get(agent)
        certificate = set() if kept is None else {holding_id(kept[0].certificate.serial)}
        return {agent, standing_id(AgentId(agent)), *certificate}
