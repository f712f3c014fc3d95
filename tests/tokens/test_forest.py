"""Random trees of tasks and exchanges, against an oracle that knows nothing but what was asked of whom.

The oracle is slow and simple: a grant is the set of calls that it allows, out of all the calls that there are; whatever
is under something has at most its calls, lives at most as long and came through the same agents; a revoke kills what it
names and all that rests on that. What tokens allow is what a guard decides, one that heard of everything as it
happened and one that connected afterwards.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.clock import Clock, SeededRandom
from harness.patience import PATIENCE_S
from harness.registry_fixtures import SECOND, is_live, run_act
from ostiary.authorization.bounds import parse_details
from ostiary.authorization.catalogue import Catalogue
from ostiary.authorization.claims import actors, parse_access
from ostiary.decision import access
from ostiary.guard.knowledge import Knowledge
from ostiary.protocol.errors import Refused
from ostiaryd.feed import store as feeds
from ostiaryd.feed.flows.snapshot import snapshot
from ostiaryd.feed.model import parse_delta, plain_fact
from ostiaryd.ground.config import Config
from ostiaryd.ground.outbound import outbox
from ostiaryd.ground.world import World, open_world
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import TokenDelta, Verb
from ostiaryd.registry.store import resources
from ostiaryd.tasks import flows as tasks
from ostiaryd.tasks.model import TaskSpec, standing_id
from tests.support.api_fixtures import FILES, Client, claims_of, oauth_app, register
from tests.support.delegation_fixtures import ACCESS, EXCHANGE, MAIL, uri

Call = tuple[str, str, str]
TOOLS = {(FILES, "read_file"): "files:read", (FILES, "write_file"): "files:write", (MAIL, "send"): "mail:send"}
SCOPES = sorted(TOOLS.values())
CALLS: frozenset[Call] = frozenset((*tool, path) for tool in TOOLS for path in ("/etc/x", "/srv/b", "/srv/a/x"))
SIZE = 4
"""agents of an example"""


@dataclass(frozen=True)
class Member:
    """An agent as it is registered."""

    scopes: frozenset[str]
    depth: int
    owner: int
    is_far: bool


@dataclass(frozen=True)
class Ask:
    """A request, by numbers that are taken modulo the number of objects."""

    kind: str
    agent: int
    under: int
    target: int
    scopes: frozenset[str] | None
    bounds: tuple[frozenset[str], frozenset[str] | None, str | None] | None
    seconds: int


def some(dice: Random, of: list[str]) -> frozenset[str]:
    return frozenset(dice.sample(of, dice.randint(1, len(of))))


def member(dice: Random) -> Member:
    """Return an agent that mostly accepts delegated work, because errors show only in deep trees."""
    return Member(
        scopes=frozenset(SCOPES) if dice.random() < 0.7 else some(dice, SCOPES),
        depth=dice.choice([3, 3, 3, 2, 1, 0]),
        owner=dice.randrange(2),
        is_far=dice.random() < 0.1,
    )


def ask(dice: Random) -> Ask:
    limits = some(dice, [FILES, MAIL]), None if dice.random() < 0.5 else some(dice, [tool for _, tool in TOOLS])
    return Ask(
        kind=dice.choices(["task", "grant", "hand", "seize", "wait"], [5, 5, 8, 1, 0.5])[0],
        agent=dice.randrange(SIZE),
        under=dice.randrange(1000),
        target=dice.randrange(1000),
        scopes=some(dice, SCOPES) if dice.random() < 0.2 else None,
        bounds=(*limits, dice.choice([None, "/", "/srv/", "/srv/a/"])) if dice.random() < 0.2 else None,
        seconds=dice.randint(1, 60),
    )


ENDINGS = ("task", "end", "agent", "suspend", "token", "key", "owner", "scopes")


@dataclass
class Thing:
    """A task or a token that was given: what it may allow at most, and on what it rests."""

    id: str
    agent: int
    calls: frozenset[Call]
    until: int
    line: tuple[int, ...]
    """The agents of the delegation chain, the agent of the task or token first."""
    rests: list[Thing]
    person: int | None
    task: Thing | None = None
    """of a token"""
    aud: str = ""
    raw: str = ""
    names: set[tuple[str, object]] = field(default_factory=set)

    def roots(self) -> Iterator[tuple[str, object]]:
        """Yield the names whose end ends this task or token, with those of all that it rests on."""
        yield from self.names
        for thing in self.rests:
            yield from thing.roots()


class Oracle:
    """The upper bounds of access, worked out the slow way."""

    def __init__(self, cast: list[Member]) -> None:
        self.cast = cast

    def having(self, scopes: frozenset[str] | None) -> frozenset[Call]:
        return CALLS if scopes is None else frozenset(call for call in CALLS if TOOLS[call[:2]] in scopes)

    def within(self, bounds: tuple[frozenset[str], frozenset[str] | None, str | None] | None) -> frozenset[Call]:
        if bounds is None:
            return CALLS
        locations, tools, prefix = bounds
        return frozenset(
            (at, tool, path)
            for at, tool, path in CALLS
            if at in locations and (tools is None or tool in tools) and path.startswith(prefix or "")
        )

    def calls(self, ask: Ask, agent: int, under: Thing | None, aud: str = "") -> frozenset[Call]:
        here = frozenset(call for call in CALLS if call[0] == aud) if aud in (FILES, MAIL) else CALLS
        above = CALLS if under is None else under.calls
        return above & here & self.having(self.cast[agent].scopes) & self.having(ask.scopes) & self.within(ask.bounds)

    def check_line(self, line: tuple[int, ...]) -> None:
        """Check that no agent occurs twice except in a row, that there is one segment, and the depth of each agent."""
        once = [agent for agent, _ in itertools.groupby(line)]
        assert len(once) == len(set(once)), f"a loop: {line}"
        assert len({self.cast[agent].is_far for agent in once}) == 1, "two segments"
        for distance, agent in enumerate(once):
            assert distance <= self.cast[agent].depth, f"too deep: {line}"


class Play:
    """An example: agents and owners of its own, in a world that all examples share."""

    def __init__(self, world: World, clock: Clock, number: int, cast: list[Member]) -> None:
        self.world, self.clock, self.cast, self.oracle = world, clock, cast, Oracle(cast)
        self.names = [f"n{number}-{place}" for place in range(SIZE)]
        self.owners = [f"o{number}-{place}" for place in range(2)]
        self.clients: list[Client] = []
        self.tasks: list[Thing] = []
        self.tokens: list[Thing] = []
        self.persons: list[str] = []

    async def enter(self) -> None:
        for owner in self.owners:
            made = await run_act(self.world, partial(registry.create_person, name=owner))
            self.persons.append(made.person_id)
        for name, member in zip(self.names, self.cast, strict=True):
            agent, key = await register(
                self.world,
                name=name,
                scopes=tuple(member.scopes),
                owner=self.owners[member.owner],
                segment="far" if member.is_far else "default",
                max_depth=member.depth,
            )
            self.clients.append(Client(oauth_app(self.world), self.world, agent.agent_id, key))

    async def play(self, ask: Ask) -> None:
        match ask.kind:
            case "wait":
                self.clock.advance(ask.seconds)
            case "task":
                await self.start(ask)
            case "grant":
                await self.grant(ask)
            case _ if self.tokens:
                await self.swap(ask)

    async def start(self, ask: Ask) -> None:
        """Start a task, under another task or under none."""
        above = None if not self.tasks or ask.under % 3 == 0 else self.tasks[ask.under % len(self.tasks)]
        person = self.cast[ask.agent].owner if above is None and ask.target % 2 else None
        said: dict[str, Any] = {
            "agent": self.names[ask.agent],
            "purpose": "p",
            "ttl_s": ask.seconds * 20,
            "bounds": details(ask),
            "scopes": None if ask.scopes is None else sorted(ask.scopes),
            "on_behalf_of": None if person is None else self.owners[person],
            "parent": None if above is None else above.id,
        }
        rests = [] if above is None else [above]
        try:
            task = await run_act(self.world, partial(tasks.start, spec=TaskSpec(**said)))
        except Refused:
            return
        thing = Thing(
            task.task_id,
            ask.agent,
            self.oracle.calls(ask, ask.agent, above),
            min([self.clock.now + ask.seconds * 20 * SECOND, *(one.until for one in rests)]),
            (ask.agent, *(above.line if above else ())),
            rests,
            above.person if above else person,
        )
        thing.names = {("task", thing.id), ("agent", ask.agent)}
        thing.names |= {("person", thing.person)} if thing.person is not None else set()
        self.oracle.check_line(thing.line)
        assert task.expires_at is not None
        assert task.expires_at <= thing.until
        self.tasks.append(thing)

    async def grant(self, ask: Ask) -> None:
        """Request a token for an own task or for the standing task."""
        own = [task for task in self.tasks if task.agent == ask.agent]
        task = own[ask.under % len(own)] if own and ask.under % 4 else self.standing(ask.agent)
        aud = self.aud(ask.target)
        answer = await self.request(ask.agent, task=task.id, resource=aud, **self.form(ask))
        if answer is not None:
            self.got(answer, ask, ask.agent, [task], task, task.line, aud)

    async def swap(self, ask: Ask) -> None:
        """Exchange a token, as the agent that the token is for or as any other agent."""
        subject, agent = self.tokens[ask.under % len(self.tokens)], ask.agent
        if ask.kind == "hand" and (handed := [token for token in self.tokens if token.aud in map(uri, self.names)]):
            subject = handed[-1 - ask.under % min(len(handed), 3)]
            agent = self.names.index(subject.aud.rpartition("/")[2])
        aud = self.aud(ask.target) if agent != subject.agent else subject.aud
        answer = await self.request(
            agent,
            grant_type=EXCHANGE,
            subject_token=subject.raw,
            subject_token_type=ACCESS,
            resource=aud,
            **self.form(ask),
        )
        if answer is None:
            return
        assert agent == subject.agent or subject.aud == uri(self.names[agent]), "it was for somebody else"
        assert subject.task is not None
        line = subject.line if agent == subject.agent else (agent, *subject.line)
        self.got(answer, ask, agent, [subject], subject.task, line, aud)

    def got(
        self, raw: str, ask: Ask, agent: int, rests: list[Thing], task: Thing, line: tuple[int, ...], aud: str
    ) -> None:
        claims = parse_access(claims_of(raw))
        key = self.clients[agent].key.public.thumbprint
        [under] = rests
        thing = Thing(
            claims.jti,
            agent,
            self.oracle.calls(ask, agent, under, aud),
            under.until,
            line,
            rests,
            under.person,
            task,
            aud,
            raw,
            {("token", claims.jti), ("agent", agent), ("key", agent)},
        )
        self.oracle.check_line(line)
        assert self.clock.now < claims.exp * SECOND <= thing.until
        thing.until = claims.exp * SECOND
        assert (claims.aud, claims.client_id, claims.task) == (aud, self.clients[agent].id, task.id)
        assert claims.cnf is not None
        assert claims.cnf.jkt == key
        came = [self.clients[one].id for one in dict.fromkeys(line)]
        who = [*actors(claims), claims.sub]
        assert who == (came if under.person is None else [*came, self.persons[under.person]])
        self.tokens.append(thing)
        assert self.decided(thing, self.late()) == self.expected(thing)

    def standing(self, agent: int) -> Thing:
        return Thing(
            standing_id(self.clients[agent].id),  # type: ignore[arg-type]
            agent,
            self.oracle.having(self.cast[agent].scopes),
            1 << 62,
            (agent,),
            [],
            None,
            names={("agent", agent)},
        )

    def aud(self, target: int) -> str:
        """Resources as often as agents."""
        return [FILES, MAIL, *map(uri, self.names), FILES, FILES][target % (SIZE + 4)]

    def form(self, ask: Ask) -> dict[str, str]:
        form = {} if ask.scopes is None else {"scope": " ".join(sorted(ask.scopes))}
        return form if ask.bounds is None else form | {"authorization_details": json.dumps(detail(ask))}

    async def request(self, agent: int, **form: Any) -> str | None:
        answer = await self.clients[agent].ask(**form)
        if answer.error == "use_dpop_nonce":
            answer = await self.clients[agent].ask(**form)
        return None if answer.status != 200 else str(answer.json["access_token"])

    # ------------------------------------------------------------------------------------------------- what is decided

    def expected(self, token: Thing) -> frozenset[Call]:
        """Of a token that lives."""
        is_at_home = token.aud in (FILES, MAIL) and not self.cast[token.agent].is_far
        return token.calls if is_at_home else frozenset()

    def decided(self, token: Thing, knowledge: dict[str, Knowledge]) -> frozenset[Call]:
        """The calls that guards allow, of all that there are."""
        principal = access.Principal(parse_access(claims_of(token.raw)))
        return frozenset(
            call
            for call in CALLS
            if access.decide(
                access.resolve(
                    principal, call[1], {"path": call[2]}, knowledge[call[0]].present().facts, self.clock.now
                )
            ).allowed
        )

    def late(self) -> dict[str, Knowledge]:
        """The facts of guards that connect now."""
        reader, knowledge = self.world.db.read(), {}
        for at in (FILES, MAIL):
            knowledge[at] = Knowledge()
            resource = resources.get_resource_by_uri(reader, at)
            assert resource is not None
            for fact in snapshot(reader, self.world.keys, resource, now=self.clock.now):
                knowledge[at].learn(fact)
        return knowledge

    def hear(self, knowledge: dict[str, Knowledge], after: int) -> None:
        """The facts of guards that were connected before."""
        reader = self.world.db.read()
        for _, at, body in outbox.messages_after(reader, "feed", after):
            delta = parse_delta(body)
            audience = feeds.audience(reader, delta.jti) if isinstance(delta, TokenDelta) else None
            for uri_, known in knowledge.items():
                if audience in (None, uri_):
                    known.learn(plain_fact(delta, at=at))  # type: ignore[arg-type]

    # ---------------------------------------------------------------------------------------------------- what is ended

    async def end(self, kind: str, which: int) -> tuple[set[tuple[str, object]], set[tuple[str, object]]]:
        """End an object; return the roots whose tokens end, and the roots whose tasks end."""
        place = which % SIZE
        name, agents = self.names[place], {("agent", place)}
        match kind:
            case "task" | "end" if self.tasks:
                id = self.tasks[which % len(self.tasks)].id
                if kind == "task":
                    await run_act(self.world, lambda a: tasks.revoke(a, tasks.RevokedKind.TASK, id))
                elif tasks.find_task(self.world.db.read(), id).is_live(self.clock.now):
                    await run_act(self.world, lambda a: tasks.end(a, id))
                else:
                    return set(), set()
                return {("task", id)}, {("task", id)}
            case "token" if self.tokens:
                id = self.tokens[which % len(self.tokens)].id
                await run_act(self.world, lambda a: tasks.revoke(a, tasks.RevokedKind.TOKEN, id))
                return {("token", id)}, set()
            case "key":
                jkt = self.clients[place].key.public.thumbprint
                await run_act(self.world, lambda a: tasks.revoke(a, tasks.RevokedKind.KEY, jkt))
                return {("key", place)}, set()
            case "owner":
                await run_act(self.world, lambda a: tasks.revoke(a, tasks.RevokedKind.OWNER, self.owners[place % 2]))
                gone = {("agent", i) for i, member in enumerate(self.cast) if member.owner == place % 2}
                return {*gone, ("person", place % 2)}, {*gone, ("person", place % 2)}
            case "suspend":
                await run_act(self.world, lambda a: registry.set_agent_state(a, name, Verb.SUSPEND))
                return set(agents), set()
            case "scopes":
                await run_act(self.world, lambda a: registry.set_scopes(a, name, []))
                return set(agents), set()
            case _:
                await run_act(self.world, lambda a: tasks.revoke(a, tasks.RevokedKind.AGENT, name))
                return set(agents), set(agents)

    def check(self, early: dict[str, Knowledge], dead: set[Any], marked: set[Any]) -> None:
        """Tasks, holdings and decisions are as the oracle says."""
        reader, now, late = self.world.db.read(), self.clock.now, self.late()
        for task in self.tasks:
            is_over = not marked.isdisjoint(task.roots()) or now >= task.until
            assert tasks.find_task(reader, task.id).is_live(now) is not is_over
        for token in self.tokens:
            is_dead = not dead.isdisjoint(token.roots()) or now >= token.until
            assert is_live(self.world, token.id) is not is_dead
            wanted = frozenset() if is_dead else self.expected(token)
            assert self.decided(token, early) == wanted
            assert self.decided(token, late) == wanted


def detail(ask: Ask) -> list[dict[str, Any]]:
    if ask.bounds is None:
        return []
    locations, tools, prefix = ask.bounds
    one: dict[str, Any] = {"type": "tool", "locations": sorted(locations)}
    one |= {} if tools is None else {"actions": sorted(tools)}
    return [one if prefix is None else one | {"arguments": {"path": {"prefix": prefix}}}]


def details(ask: Ask) -> Any:
    return parse_details(detail(ask))


async def furnish(world: World) -> None:
    """The two resources, with catalogues that say which scope each tool needs."""
    await register(world)
    await run_act(world, lambda a: registry.create_resource(a, name="mail", uri=MAIL))
    arguments = {"properties": {"path": {"type": "string"}}}
    for name, at in (("files", FILES), ("mail", MAIL)):
        listed = [
            {"name": tool, "effect": "write", "scope": scope.partition(":")[2], "arguments": arguments}
            for (where, tool), scope in TOOLS.items()
            if where == at
        ]
        catalogue = Catalogue.parse(json.dumps({"resource": name, "tools": listed}))
        await run_act(world, lambda a, n=name, c=catalogue: registry.set_catalogue(a, n, c))  # type: ignore[misc]


@pytest.mark.slow
def test_delegated_tasks_and_tokens_never_widen_and_an_end_ends_exactly_the_dependent_ones(config: Config) -> None:
    clock, numbers, seen = Clock(), itertools.count(), Counter[str]()
    assert settings.default is not None
    examples = settings.default.max_examples // (1 if config.database_url.startswith("sqlite") else 3)

    async def run() -> None:
        async with open_world(config, now=clock, random=SeededRandom("forest")) as world:
            await furnish(world)
            await asyncio.to_thread(check, world, asyncio.get_running_loop())

    @settings(max_examples=examples, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
    @given(dice=st.randoms(use_true_random=True), steps=st.integers(10, 60), ending=st.sampled_from(ENDINGS))
    def check(world: World, loop: asyncio.AbstractEventLoop, dice: Random, steps: int, ending: str) -> None:
        asyncio.run_coroutine_threadsafe(example(world, dice, steps, ending), loop).result(PATIENCE_S)

    async def example(world: World, dice: Random, steps: int, ending: str) -> None:
        play = Play(world, clock, next(numbers), [member(dice) for _ in range(SIZE)])
        await play.enter()
        for _ in range(steps):
            await play.play(ask(dice))
        play.check(play.late(), set(), set())
        early, after = play.late(), outbox.highest_number(world.db.read())
        dead, marked = await play.end(ending, dice.randrange(1000))
        play.hear(early, after)
        play.check(early, dead, marked)
        seen["tasks under tasks"] += sum(len(task.line) > 1 for task in play.tasks)
        seen["tokens"] += len(play.tokens)
        seen["exchanged"] += sum(token.rests[0].aud != "" for token in play.tokens)
        seen["through three"] += sum(len(set(token.line)) >= 3 for token in play.tokens)
        seen["killed below"] += sum(
            not dead.isdisjoint(token.roots()) and dead.isdisjoint(token.names) for token in play.tokens
        )

    asyncio.run(run())
    assert seen["tokens"] > 6 * examples, seen
    assert seen["exchanged"] > 1.5 * examples, seen
    assert seen["tasks under tasks"] > 1.5 * examples, seen
    assert seen["through three"] > examples / 6, seen
    assert seen["killed below"] > examples / 6, seen


async def test_a_delegation_chain_of_three_agents_allows_exactly_the_delegated_calls(
    world: World, clock: Clock
) -> None:
    await furnish(world)
    full = Member(scopes=frozenset(SCOPES), depth=3, owner=0, is_far=False)
    play = Play(world, clock, 0, [full] * SIZE)
    await play.enter()
    plain = Ask("task", 0, 0, 0, None, None, 60)
    at_files, to_third = 0, 2 + 2  # as `aud` reads them
    in_srv = (frozenset([FILES, MAIL]), None, "/srv/")
    in_a = (frozenset([FILES]), frozenset(["read_file"]), "/srv/a/")
    await play.start(replace(plain, bounds=in_srv))
    await play.start(replace(plain, agent=1, under=1, scopes=frozenset(["files:read", "files:write"])))
    await play.grant(replace(plain, under=1, target=at_files))
    await play.grant(replace(plain, agent=1, under=1, target=at_files))
    await play.grant(replace(plain, agent=1, under=1, target=to_third))
    await play.swap(replace(plain, kind="hand", target=at_files, bounds=in_a))
    first, second, handed, third = play.tokens
    assert (handed.aud, third.line) == (uri(play.names[2]), (2, 1, 0))
    here = {(FILES, tool, path) for tool in ("read_file", "write_file") for path in ("/srv/b", "/srv/a/x")}
    assert play.decided(first, play.late()) == here
    assert play.decided(second, play.late()) == here
    assert play.decided(handed, play.late()) == set()
    assert play.decided(third, play.late()) == {(FILES, "read_file", "/srv/a/x")}
    await run_act(world, lambda a: tasks.revoke(a, tasks.RevokedKind.TASK, play.tasks[1].id))
    assert [is_live(world, token.id) for token in play.tokens] == [True, False, False, False]
    assert [len(play.decided(token, play.late())) for token in play.tokens] == [4, 0, 0, 0]
