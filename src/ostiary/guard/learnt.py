"""What the server says while one call is decided, step by step: each step asks for one thing that is missing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from ostiary.decision import access
from ostiary.guard.asking import Asking
from ostiary.guard.link import Link
from ostiary.guard.listing import Says
from ostiary.guard.memories import Telling
from ostiary.guard.pace import Paced
from ostiary.guard.person import Heard, Wanted
from ostiary.protocol.errors import Unavailable
from ostiary.provenance.history import Before

Missing = Asking | Wanted | Telling | Paced | dict[str, int] | None
"""What must be asked first: policies that are not ours to run, a person, what happened before, whether it is one too
many, what it costs where that cannot be paid; None: what else its task remembers.
"""


@dataclass(slots=True)
class Learnt:
    """What the server has just said while a call is decided: of which budgets there is how much too little left, what
    policies say that it runs, and what came of asking a person. `says`: what the tool says of itself.
    """

    says: Says = None
    left: Mapping[str, int] = field(default_factory=dict)
    asked: Asking | None = None
    heard: Heard | None = None
    recalled: bool = False
    """whether it has said what else the task remembers"""
    before: Before | None = None
    """what happened before, of which it has said that nothing has happened since"""
    has_told: bool = False
    """whether it has taken the call in after that: then it stands on that, whatever happens meanwhile"""
    relies: bool = True
    """whether policies that are enforced look at what happened before"""
    is_blind: bool = False
    """whether what happened before is not to be had, and only policies that watch would look at it"""

    is_paced: bool = False
    """whether it has been counted for those of its agents that are held to a pace"""

    def learn(self, missing: Missing, link: Link, principal: access.Principal, tool: str) -> None:
        """Ask for it. Raises Unavailable."""
        token = principal.claims.jti
        match missing:
            case None:
                link.memories.recall(principal)
                self.recalled = True
            case Asking():
                link.asker.ask(missing, token)
                self.asked = missing
            case Wanted():
                self.heard = link.asker.ask_person(missing)
            case Telling():
                with self._unless_it_watches():
                    self._hear(missing, link.memories.happen(principal, tool, missing))
            case Paced():
                self.is_paced = link.pace.count(missing, token)
            case _:
                self.left = link.drawer.draw(token, missing)

    async def learn_async(self, missing: Missing, link: Link, principal: access.Principal, tool: str) -> None:
        """The same; a thread waits for it."""
        token = principal.claims.jti
        match missing:
            case None:
                await link.memories.recall_async(principal)
                self.recalled = True
            case Asking():
                await link.asker.ask_async(missing, token)
                self.asked = missing
            case Wanted():
                self.heard = await link.asker.ask_person_async(missing)
            case Telling():
                with self._unless_it_watches():
                    self._hear(missing, await link.memories.happen_async(principal, tool, missing))
            case Paced():
                self.is_paced = await asyncio.to_thread(link.pace.count, missing, token)
            case _:
                self.left = await asyncio.to_thread(link.drawer.draw, token, missing)

    def release(self, link: Link) -> None:
        """Keep a yes that was spent for the call, and did not let it pass, for the same call made again."""
        if self.heard is not None and self.heard.number:
            link.asker.unheard.release(self.heard.number)

    def telling(self, decision: access.Decision, past: access.Past, *, now: int) -> Telling | None:
        """What it must say before that decision stands: that this is the next call, or that nothing else happened."""
        if self.has_told:
            return None
        done = past.done if decision.allowed and past.before.is_news(past.done, now=now) else None
        has_looked = decision.beside is not None and access.HISTORY in decision.beside
        if done is not None or (has_looked and self.before is not past.before):
            return Telling(past.before, done, past.met)
        return None

    def _hear(self, telling: Telling, is_taken: bool) -> None:
        """Return whether it was as we said; if not, the call is decided anew on what has happened."""
        if is_taken:
            self.before, self.has_told = telling.before, telling.done is not None
        else:
            self.before = self.asked = None

    @contextmanager
    def _unless_it_watches(self) -> Iterator[None]:
        """What is not to be had denies, unless only policies that watch would look at it."""
        try:
            yield
        except Unavailable:
            if self.relies:
                raise
            self.is_blind = True
