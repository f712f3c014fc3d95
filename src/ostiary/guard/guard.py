"""The guard: enforcement inside a tool server. What it needs to decide is in memory, kept current by the server's feed.

    guard = Guard("files.guard.json", spool_dir="/var/spool/files")
    who = guard.verify(authorization=.., proof=.., method="POST", uri="https://files.example/mcp")
    with guard.call(who, "read_file", {"path": "/srv/reports/q3.txt"}) as call:
        text = read(..)
        call.result(bytes=len(text), records=1)

It fails closed: with a feed that is stale, broken or not there, with a clock that is off, with a spool that cannot be
written, and with any error of its own, every call is refused. Nothing but `Refused` is ever raised.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from ostiary import ambient
from ostiary.authorization import budget
from ostiary.decision import access
from ostiary.decision.feed import ResourceFact
from ostiary.guard.asking import Asking
from ostiary.guard.call import Call, Verified, call_record, shorten, undecided_record
from ostiary.guard.closed import closed
from ostiary.guard.connections import Connection, Connections
from ostiary.guard.feed import Feed
from ostiary.guard.learnt import Learnt, Missing
from ostiary.guard.link import Link
from ostiary.guard.listing import Listing, Says
from ostiary.guard.memories import Telling, Watched
from ostiary.guard.networks import BearerNetworks
from ostiary.guard.observing import finish, observe
from ostiary.guard.pace import Paced
from ostiary.guard.person import wanted
from ostiary.guard.proofs import NonceNeeded, Proofs, access_token
from ostiary.guard.purse import Purse
from ostiary.guard.seen import seen
from ostiary.guard.sessions import Sessions
from ostiary.guard.sources import Sources
from ostiary.guard.spool import DEFAULT_LIMIT, new_spool
from ostiary.guard.tokens import Tokens, check_bearer
from ostiary.keys import Credential, load_key
from ostiary.protocol.errors import Invalid, Malformed, Refused, Unavailable
from ostiary.protocol.jose import InvalidToken
from ostiary.provenance.origins import is_settled, needs_origins

log = logging.getLogger("ostiary.guard")

MAX_STEPS = 8
"""How often a call asks the server, mostly once for each thing that it must know, else to draw a budget."""
SECOND = 1_000_000


class Guard:
    """Thread-safe. Start it once in each process; times are seconds."""

    def __init__(
        self,
        credential: Credential | Path | str,
        *,
        spool_dir: Path | str,
        url: str | None = None,
        max_age: float = 5.0,
        max_skew: float = 2.0,
        spool_limit: int = DEFAULT_LIMIT,
        record_arguments: bool = False,
        learn: bool = False,
        notices: bool = True,
        now: Callable[[], int] = ambient.now,
        tick: Callable[[], int] = ambient.tick,
        random: Callable[[int], bytes] = ambient.random,
    ) -> None:
        """`credential`: what `ostiary resource create --generate-key` wrote. `url`: the server's, if not its issuer's.

        `max_age`: how old the feed may be. `max_skew`: how far the server's clock may be off. `learn`: record in mode
        `watch` what the arguments are like (`ostiary.guard.seen`). `notices`: see what is odd about a call before it is
        decided. Raises Invalid, SpoolFailed.
        """
        if not isinstance(credential, Credential):
            credential = load_key(credential)
        if not credential.client_id.startswith("rs_"):
            hint = "ostiary resource create NAME --uri U --generate-key F"
            raise Invalid(f"`{credential.client_id}` is no resource", hint=hint)
        folder = Path(spool_dir) / credential.client_id
        self._spool = new_spool(folder, random=random, boot=ambient.boot(), limit=spool_limit)
        self.feed = Feed(
            resource_id=credential.client_id, now=now, tick=tick, kept=folder / "clock", boot=ambient.boot(),
            stops=folder, max_age=round(max_age * SECOND), max_skew=round(max_skew * SECOND),
        )  # fmt: skip
        self._now, self._record_arguments, self._learns = self.feed.clock, record_arguments, learn
        self.connections = Connections()
        self.feed.listeners.append(self.connections.look)
        self._tokens = Tokens(now=self._now, leeway=round(max_skew * SECOND))
        self._proofs = Proofs(secret=random(32), now=self._now)
        self._purse, self.listing = Purse(tick=tick), Listing()
        self._sessions = Sessions() if notices else None
        self._sources = Sources()
        self._networks = BearerNetworks() if notices else None
        self._link = Link(
            credential, url=url, feed=self.feed, spool=self._spool, spool_dir=folder, purse=self._purse,
            now=now, tick=tick, random=random,
        )  # fmt: skip

    def start(self, *, wait: float = 5.0) -> Guard:
        """Connect; waits at most so long for the first snapshot, without which every call is refused."""
        self._link.start()
        if not self._link.is_current.wait(wait):
            log.warning("no snapshot yet, every call is refused: %s", self._link.trouble)
        return self

    def close(self) -> None:
        """Report what is left and end; from now on every call is refused."""
        self.feed.doubt("the guard is closed")
        self._purse.close()
        self._link.stop()
        self._spool.close(keep=self._link.drawer.has_drawn)
        self.feed.clock.keep()

    def __enter__(self) -> Guard:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def resource(self) -> ResourceFact:
        """The resource that is guarded, as the server describes it. Raises FeedStale."""
        return self.feed.current().resource

    def verify(self, *, authorization: str | None, proof: str | None, method: str, uri: str) -> Verified:
        """Verify who is calling, by the values of the only `Authorization` and `DPoP` headers.

        A bearer token is accepted only from agents that are exempt at this resource.

        `uri` is what the request asks for under the resource's public name, never what `Host` says. Raises
        Unauthenticated (code `no_credentials`), InvalidToken, InvalidProof, NonceNeeded, Unavailable.
        """
        with closed():
            scheme, token = access_token(authorization)
            present = self.feed.current()
            principal = self._tokens.principal(token, present, issuer=self.feed.issuer)
            if scheme == "bearer":
                check_bearer(principal.claims, exempt=present.exempt)
                proof = nonce = None
            elif principal.jkt is None:
                raise InvalidToken("the token is not bound to a key", hint="ask for it with a DPoP proof")
            elif proof is None:
                raise NonceNeeded(self._proofs.nonce())
            else:
                nonce = self._proofs.check(proof, method=method, uri=uri, access_token=token, jkt=principal.jkt)
            who = Verified(principal, nonce, proof=proof or "")
            self.check_alive(who)
            return who

    def check_alive(self, who: Verified) -> None:
        """For what takes long: whether the token is alive still. Raises InvalidToken, Unavailable."""
        with closed():
            if (reason := access.dead(who.principal, self.feed.current().facts, self._now())) is not None:
                raise InvalidToken(reason.message, hint=reason.hint)

    def serving(self, who: Verified) -> AbstractAsyncContextManager[Connection]:
        """Around what is served: cancelled as soon as what `who` rests on has died. Raises InvalidToken, FeedStale."""
        return self.connections.open(who, lambda: self.feed.current().facts)

    def decide(self, who: Verified, tool: str, arguments: Mapping[str, Any], says: Says = None) -> Call:
        """Decide, pay and record, in this order; the answer may be no. The server is asked for what must be known and
        is not at hand (`learnt.Missing`). `says`: what the very tool that is to run says of itself. Raises Unavailable.
        """
        with closed():
            learnt = Learnt(says)
            try:
                for _ in range(MAX_STEPS):
                    made = self._decide(who, tool, arguments, learnt)
                    if isinstance(made, Call):
                        return made
                    learnt.learn(made, self._link, who.principal, tool)
            finally:
                learnt.release(self._link)
            raise Unavailable("others took what was drawn", hint="try again", code="budget_unavailable")

    async def decide_async(self, who: Verified, tool: str, arguments: Mapping[str, Any], says: Says = None) -> Call:
        """As `decide`; where the server must be asked, a thread waits for it."""
        with closed():
            learnt = Learnt(says)
            try:
                for _ in range(MAX_STEPS):
                    made = self._decide(who, tool, arguments, learnt)
                    if isinstance(made, Call):
                        return made
                    await learnt.learn_async(made, self._link, who.principal, tool)
            finally:
                learnt.release(self._link)
            raise Unavailable("others took what was drawn", hint="try again", code="budget_unavailable")

    def _decide(self, who: Verified, tool: str, arguments: Mapping[str, Any], learnt: Learnt) -> Call | Missing:
        """The call as it is decided now, or what must be asked first."""
        left, asked, heard, now = learnt.left, learnt.asked, learnt.heard, self._now()
        facts = self.feed.current().facts
        principal, at, ready = who.principal, now, facts.resource.tools.get(tool)
        approved = () if heard is None else heard.approved
        remembers = bool(principal.claims.memory)
        memory = self._link.memories.of(principal) if remembers else None
        recalls = remembers and not learnt.recalled and ready is not None and needs_origins(ready.tool, arguments)
        if recalls and memory is None:
            return None
        session = None if self._sessions is None else self._sessions.of(principal.claims.memory)
        past = None
        if facts.policies.reads_history and ready is not None and not learnt.is_blind:
            learnt.relies = facts.policies.relies_on_history
            before = learnt.before or self._link.memories.before(principal)
            if before is None:
                return Telling(None)
            past = access.past_of(before, ready, arguments)
        if asked is None and not facts.policies.elsewhere:
            decision = access.decide(
                principal, tool=tool, arguments=arguments, facts=facts, now=now, memory=memory, approved=approved,
                past=past, session=session,
            )  # fmt: skip
        else:
            asked = asked or Asking(facts.policies, now)
            found = asked.decide(principal, tool, arguments, facts, now, memory, approved, past, session)
            if found is None:
                return None if recalls else asked
            decision, at = found, asked.at
        noticed = decision.noticed if self._networks is None else (*decision.noticed, *self._networks.notice(who))
        decision = self.listing.check(decision, ready, facts, learnt.says)
        if recalls and decision.beside is not None and not is_settled(decision.beside):
            return None
        if facts.holds and not learnt.is_paced:
            if isinstance(paced := self._link.pace.check(decision, principal, facts, now=now), Paced):
                return paced
            decision = paced
        if past is not None and (telling := learnt.telling(decision, past, now=now)) is not None:
            return telling
        if decision.asks and not decision.allowed and heard is None:
            return wanted(principal, tool, arguments, decision, facts, memory)
        if heard is not None:
            decision = heard.told(decision)
        costs, ahead = dict[str, int](), dict[str, budget.Volume]()
        if ready is not None and decision.verdict and (prices := principal.prices(ready.uid.id, ready.classes)):
            try:
                costs, ahead = budget.costs(prices, arguments, now=now), budget.volumes(prices, now=now)
                if left:
                    self._purse.check(costs, principal.claims.budgets, left, now=now)
            except (budget.BadAmount, budget.Exhausted) as refusal:
                decision, costs, ahead = access.refuse(facts, refusal), {}, {}
        made = partial(
            call_record, principal, tool, arguments, resource=facts.resource, asked=asked, approved=approved,
            noticed=noticed, network=who.network, proof=who.proof, now=at,
        )  # fmt: skip
        try:
            record = made(decision=decision, spent=costs)
        except Malformed as refusal:  # the ledger cannot name the arguments
            decision, costs, ahead = access.refuse(facts, refusal), {}, {}
            record = made(decision=decision, spent=costs)
        watched = None if ready is None else Watched(principal, ready, arguments)
        if decision.allowed and watched is not None and memory is not None:
            record = self._sources.added(record, watched, memory)
        if self._record_arguments:
            record = msgspec.structs.replace(record, arguments=shorten(arguments))
        elif self._learns and facts.resource.mode == "watch":
            record = msgspec.structs.replace(record, arguments=seen(arguments, ready.tool.kinds if ready else {}))
        is_spent = decision.allowed and heard is not None and heard.number
        then = partial(self._link.asker.unheard.drop, heard.number) if heard is not None and is_spent else None
        keep = partial(self._spool.append, record, then=then)
        if (number := keep() if not costs else self._purse.pay(costs, keep, ahead=ahead)) is None:
            return costs
        self._link.note()
        call = Call(decision, number, ahead=ahead, enforces=facts.resource.mode == "enforce")
        if ready is not None:
            call.missing_scope = "" if ready.scope in principal.scopes else ready.scope
            is_watched = remembers or (past is not None and bool(ready.tool.creates))
            call.classes, call.watched = ready.classes, watched if is_watched else None
        return call

    def undecided(
        self, who: Verified | None, agent: str, tool: str, arguments: Mapping[str, Any], why: Refused, *, passes: bool
    ) -> Call:
        """Record a call that could not be decided, and whether it happens all the same, as it may in mode `watch`.

        `agent`: who it is believed to be, where nobody has shown a token. Raises Unavailable.
        """
        with closed():
            principal = None if who is None else who.principal
            record = undecided_record(principal, agent, tool, arguments, why, passes=passes, now=self._now())
            if self._learns and passes:
                record = msgspec.structs.replace(record, arguments=seen(arguments, {}))
            number = self._spool.append(record)
            self._link.note()
            return Call(access.Decision(passes, False, "", (access.Reason(why.code, why.message, why.hint),)), number)

    def observe(self, call: Call, output: object) -> None:
        """Let the task of a call remember what it returned (JSON, or a text), before that is handed out. Where the task
        remembers nothing, this does nothing. Raises Withheld where it cannot be remembered: it must not be handed out.

        Of a call that has failed (`call.result(ok=False)`) nothing was created.
        """
        observe(call, output, memories=self._link.memories, sessions=self._sessions, sources=self._sources)

    async def observe_async(self, call: Call, output: object) -> None:
        """As `observe`; where something is to be remembered, a thread waits for it."""
        if call.watched is not None:
            await asyncio.to_thread(self.observe, call, output)

    @contextmanager
    def call(self, who: Verified, tool: str, arguments: Mapping[str, Any]) -> Iterator[Call]:
        """Around the tool: decides and records before, records how it went after. Raises Denied, Unavailable."""
        call = self.decide(who, tool, arguments)
        call.check()
        try:
            yield call
        except BaseException:
            call.ok = False
            raise
        finally:
            self.finish(call)

    def finish(self, call: Call) -> None:
        """Record how a call went that was let through. It has happened: what cannot be recorded is logged."""
        if finish(call, spool=self._spool, purse=self._purse, now=self._now()):
            self._link.note()
