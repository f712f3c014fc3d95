"""Threat lists at the server: fetched from where an administrator said, kept as they were where that fails."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import msgspec
import pytest

from harness.clock import Clock, SeededRandom
from harness.patience import PATIENCE_S, eventually_async
from ostiary.decision.feed import ThreatFact
from ostiary.protocol.errors import Conflict, Invalid, NotFound, Refused
from ostiary.provenance.noticing import Event
from ostiary.provenance.noticing.threats import ThreatList, find_list, indicator
from ostiaryd import doctor
from ostiaryd.feed.flows.snapshot import threat_fact, threat_facts
from ostiaryd.ground.outbound import outbox
from ostiaryd.ground.world import World, open_world
from ostiaryd.ledger import store as log
from ostiaryd.ledger.flows import act
from ostiaryd.ledger.model import Entry, decode_entry
from ostiaryd.registry.model import ThreatDelta
from ostiaryd.watch import wire_threats
from ostiaryd.watch.engines.lists import MAX_LIST_BYTES, MAX_MARKS, Listed
from ostiaryd.watch.flows import threats as flows
from ostiaryd.watch.flows.fact_cache import FactCache
from ostiaryd.watch.model.batch import Batch
from ostiaryd.watch.model.detector import detectors, zeros
from ostiaryd.watch.model.threats import ThreatSource
from ostiaryd.watch.store import threats as store
from tests.support.role_fixtures import administrator, ask, person


class Publisher:
    """A publisher of a threat list on loopback."""

    def __init__(self) -> None:
        self.url = self.silent_url = ""
        self.status, self.body = 200, b"evil.example\n45.83.64.0/22\n"
        self.headers: dict[str, str] = {}
        self.asked = 0
        self.silence = threading.Event()
        """until it is set, a path that begins with `/silent` has no answer"""


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    made = Publisher()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            made.asked += 1
            if self.path.startswith("/silent"):
                made.silence.wait()
            self.send_response(made.status)
            for name, value in made.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(made.body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.url, made.silent_url = (f"http://127.0.0.1:{server.server_port}/{path}" for path in ("list", "silent"))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield made
    made.silence.set()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def here(world: World) -> World:
    """Return a world whose configuration permits lists on this machine."""
    object.__setattr__(world, "config", msgspec.structs.replace(world.config, private_hosts="127.0.0.1"))
    return world


async def add(world: World, name: str = "evil", url: str = "", points: int = 60) -> ThreatSource:
    return await act(world, "threats.add", lambda act: flows.add(act, name=name, url=url, form="plain", points=points))


def now_of(world: World, name: str = "evil") -> ThreatSource:
    return flows.find(world.db.read(), name)


def entries(world: World, action: str) -> list[Entry]:
    return [decode_entry(body) for _, body in log.search_entries(world.db.read(), {"action": action}, limit=100)]


def told(world: World) -> list[ThreatDelta]:
    """The lists that guards received."""
    bodies = [body for _, _, body in outbox.messages_after(world.db.read(), "feed", 0)]
    return [msgspec.json.decode(body, type=ThreatDelta) for body in bodies if b'"threats"' in body]


# ---------------------------------------------------------------------------------------- Fetching


async def test_a_list_is_fetched_at_its_interval_and_guards_receive_its_changes(
    here: World, clock: Clock, publisher: Publisher
) -> None:
    await add(here, url=publisher.url)
    await wire_threats.refresh_due(here)
    assert (now_of(here).count, now_of(here).failed, now_of(here).refreshed_at) == (2, "", clock())
    assert find_list("https://evil.example/", store.load(here.db.read())) is not None
    clock.advance(us=flows.EVERY - 1)
    await wire_threats.refresh_due(here)
    assert publisher.asked == 1
    clock.advance(us=1)
    await wire_threats.refresh_due(here)
    assert (publisher.asked, len(told(here)), len(entries(here, "threats.refresh"))) == (2, 1, 1), "nothing has changed"
    publisher.body += b"more.example\n"
    clock.advance(us=flows.EVERY)
    await wire_threats.refresh_due(here)
    assert (now_of(here).count, len(told(here))) == (3, 2)
    last = entries(here, "threats.refresh")[0]
    assert last.detail is not None
    assert (last.detail["count"], last.detail["new"]) == (3, 1)
    assert "evil.example" not in str(entries(here, "threats.refresh")), "what is on a list is not on the ledger"


async def test_a_test_of_a_list_states_what_a_fetch_would_change_and_leaves_the_list(
    here: World, clock: Clock, publisher: Publisher
) -> None:
    root = await administrator(here)
    await add(here, url=publisher.url)
    await wire_threats.refresh_due(here)
    publisher.body = b"evil.example\nmore.example\nworse.example\n!!\n"
    clock.advance(1)
    before = (now_of(here), told(here), store.load(here.db.read()))
    path = "/api/v1/threat-lists/evil/test"
    answer = await ask(root, "POST", path)
    expected = {"name": "evil", "count": 3, "new": 2, "gone": 1, "skipped": 1, "failed": None}
    assert (answer.status, answer.json) == (200, expected)
    publisher.status = 503
    failed = (await ask(root, "POST", path)).json
    assert (failed["count"], failed["failed"]) == (None, "the remote server answers 503")
    publisher.status, publisher.body = 200, b"\xff"
    assert "not UTF-8" in (await ask(root, "POST", path)).json["failed"]
    assert (now_of(here), told(here), store.load(here.db.read())) == before
    assert [one.detail for one in entries(here, "threats.test")][2] == {"count": 3, "new": 2, "gone": 1, "skipped": 1}

    await act(here, "threats.add", lambda act: flows.add(act, name="own", url="", form="plain", points=1))
    assert ((await ask(root, "POST", "/api/v1/threat-lists/own/test")).error) == "no_url"
    assert (await ask(root, "POST", "/api/v1/threat-lists/none/test")).status == 404
    assert [one.outcome for one in entries(here, "threats.test")[:2]] == ["refused"] * 2
    operator, viewer = await person(here, "opa", "operator"), await person(here, "vic", "viewer")
    assert (await ask(operator, "POST", path)).status == 200
    asked = publisher.asked
    assert ((await ask(viewer, "POST", path)).error, publisher.asked) == ("role_required", asked)


async def test_a_test_of_a_list_reports_that_all_lists_together_would_be_too_long(world: World) -> None:
    await add(world, url="https://lists.example/a")
    full = await add(world, "full", url="https://lists.example/b")
    await act(world, "threats.refresh", lambda act: flows.accept_list(act, full, many(MAX_MARKS - 2)))
    for count, failed in (
        (2, None),
        (3, f"with this content, all threat lists together would have more than {MAX_MARKS} values"),
    ):
        listed = many(count, MAX_MARKS)
        change = await act(world, "threats.test", partial(flows.examine_list, name="evil", listed=listed))
        assert change.failed == failed


@pytest.mark.parametrize("database", ["sqlite"])  # the list is refused before the database has it
@pytest.mark.parametrize(
    ("status", "body", "why"),
    [
        (500, b"evil.example", "the remote server answers 500"),
        (302, b"evil.example", "the remote server answers 302"),
        (200, b"<html>", "contains no value that can be checked"),
        (200, b"", "no value that can be checked"),
        (200, b"#" * (MAX_LIST_BYTES + 1), "more than"),
        (200, b"\xff", "not UTF-8"),
    ],
)
async def test_a_failed_fetch_leaves_the_list_unchanged_and_is_retried(
    here: World, clock: Clock, publisher: Publisher, status: int, body: bytes, why: str
) -> None:
    await add(here, url=publisher.url)
    await wire_threats.refresh_due(here)
    publisher.status, publisher.body, publisher.headers = status, body, {"location": publisher.url}
    clock.advance(us=flows.EVERY)
    await wire_threats.refresh_due(here)
    assert publisher.asked == 2
    assert why in now_of(here).failed
    assert now_of(here).count == 2
    assert len(told(here)) == 1
    publisher.status, publisher.body = 200, b"other.example"
    clock.advance(us=flows.AGAIN - 1)
    await wire_threats.refresh_due(here)
    assert publisher.asked == 2, "not before its time"
    clock.advance(us=1)
    await wire_threats.refresh_due(here)
    assert (now_of(here).count, now_of(here).failed) == (1, "")


async def test_a_list_is_not_accepted_if_the_process_that_reads_the_list_dies(
    here: World, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A list is read in a separate process, so a list that ends this process does not end the server."""
    publisher.body = "exampl\u00e9.org\nhttps://\u00e9a.example/x?y\neve@post.example\n2a0e:b107::/32".encode(
        "utf-8-sig"
    )
    await add(here, url=publisher.url)
    await wire_threats.refresh_due(here)
    assert (now_of(here).count, now_of(here).failed) == (4, "")
    monkeypatch.setattr(wire_threats, "READER", "operator:index")  # which dies of it
    await add(here, "fatal", url=publisher.url)
    await wire_threats.refresh_due(here)
    assert (now_of(here, "fatal").count, now_of(here, "fatal").failed) == (0, "no answer")


async def test_a_list_at_a_private_address_is_not_fetched(world: World, publisher: Publisher) -> None:
    """SSRF: neither an address nor a name of this machine or its network, unless the operator names the host."""
    await add(world, url=publisher.url.replace("http:", "https:"))
    await add(world, "meta", url="https://169.254.169.254/latest")
    await add(world, "name", url="https://localhost:1/")
    await wire_threats.refresh_due(world)
    assert publisher.asked == 0
    for name in ("evil", "meta", "name"):
        assert "not public" in now_of(world, name).failed


async def test_a_fetch_from_a_silent_publisher_fails_after_the_time_limit(
    here: World, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire_threats, "FETCH_S", 0.5)
    await add(here, "silent", url=publisher.silent_url)
    await wire_threats.refresh_due(here)
    assert now_of(here, "silent").failed == "the remote server took longer than 0.5 s"


async def test_a_silent_publisher_does_not_delay_another_list(
    here: World, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire_threats, "FETCH_S", PATIENCE_S)
    for name, url in (
        ("a-silent", publisher.silent_url),
        ("b-quick", publisher.url),
        ("c-silent", publisher.silent_url),
    ):
        await add(here, name, url=url)
    refresh = asyncio.create_task(wire_threats.refresh_due(here))
    await eventually_async(lambda: now_of(here, "b-quick").count == 2)
    assert not refresh.done()
    silent = [now_of(here, name) for name in ("a-silent", "c-silent")]
    assert [(one.count, one.failed) for one in silent] == [(0, "")] * 2
    publisher.silence.set()
    await refresh
    assert [now_of(here, one.name).count for one in silent] == [2, 2]


async def test_concurrent_fetches_of_a_list_contact_the_publisher_once(
    here: World, publisher: Publisher, clock: Clock, dice: SeededRandom
) -> None:
    source = await add(here, url=publisher.url)
    async with open_world(here.config, now=clock, random=dice) as other:
        await asyncio.gather(*(wire_threats.fetch(world, source) for world in (here, other, here, other)))
    assert publisher.asked == 1
    assert now_of(here).count == 2


async def test_a_list_is_fetched_again_when_its_first_value_expires(world: World, clock: Clock) -> None:
    source = await add(world)
    mark, _ = indicator("domain", "evil.example")

    async def due(until: int | None) -> int:
        listed = Listed(frozenset({mark}), frozenset(), 0, until)
        await world.writer.submit(lambda tx: flows.store_list(tx, source, listed))
        return now_of(world).due_at - clock()

    assert await due(None) == flows.EVERY
    assert await due(clock() + 2 * flows.EVERY) == flows.EVERY
    assert await due(clock() + 600 * flows.SECOND) == 600 * flows.SECOND
    assert await due(clock() + 1) == flows.AGAIN, "however soon something ends"


# ---------------------------------------------------------------------------------------- Limits


def many(count: int, at: int = 0) -> Listed:
    return Listed(frozenset((at + number).to_bytes(8, "big") for number in range(count)), frozenset(), 0)


async def test_all_lists_together_have_a_maximum_number_of_values(world: World) -> None:
    one, two = await add(world, "one"), await add(world, "two")
    await act(world, "threats.refresh", lambda act: flows.accept_list(act, one, many(MAX_MARKS - 2)))
    await act(world, "threats.refresh", lambda act: flows.accept_list(act, two, many(2, at=MAX_MARKS)))
    with pytest.raises(Invalid, match="together"):
        await act(world, "threats.refresh", lambda act: flows.accept_list(act, two, many(3, at=MAX_MARKS)))
    assert now_of(world, "two").count == 2
    await act(world, "threats.refresh", lambda act: flows.accept_list(act, one, many(MAX_MARKS - 3)))


async def test_names_points_and_the_number_of_lists_are_limited(world: World) -> None:
    for number in range(flows.MAX_LISTS):
        await add(world, f"list-{number}")
    with pytest.raises(Conflict, match="16 threat lists"):
        await add(world, "one-more")
    with pytest.raises(Conflict, match="`list-0`"):
        await add(world, "list-0")
    for wrong in (0, 101):
        with pytest.raises(Invalid):
            await add(world, "points", points=wrong)
    with pytest.raises(Invalid):
        await add(world, "No Name")


async def test_a_removed_list_is_no_longer_sent_to_guards(world: World) -> None:
    source = await add(world)
    await act(world, "threats.refresh", lambda act: flows.accept_list(act, source, many(2)))
    fact = threat_fact(world.db.read(), source.list_id)
    assert threat_facts(world.db.read()) == [fact]
    assert (fact.name, fact.points, len(fact.marks)) == ("evil", 60, 22)
    version = store.version(world.db.read())
    await act(world, "threats.remove", lambda act: flows.remove(act, "evil"))
    assert threat_fact(world.db.read(), source.list_id) == ThreatFact(source.list_id, source.list_id, 1, "")
    assert threat_facts(world.db.read()) == []
    assert [delta.list for delta in told(world)] == [source.list_id, source.list_id], "filled, and gone"
    assert store.version(world.db.read()) > version
    with pytest.raises(NotFound):
        await act(world, "threats.remove", lambda act: flows.remove(act, "evil"))
    with pytest.raises(NotFound):  # it was fetched meanwhile
        await act(world, "threats.refresh", lambda act: flows.accept_list(act, source, many(2)))


async def test_the_doctor_names_an_old_list(here: World, clock: Clock, publisher: Publisher) -> None:
    async def examined() -> str:
        try:
            return await dict(doctor.EXPERIMENTS)["threat lists"](here)
        except Refused as refusal:
            return f"{refusal.code}: {refusal.message}"

    assert await examined() == "no threat list: ostiary threats add"
    await add(here, "handed-in")
    await add(here, url=publisher.url)
    publisher.status = 503
    await wire_threats.refresh_due(here)
    assert await examined() == "unprotected: old threat lists: `evil`: the remote server answers 503", (
        "it never was fetched"
    )
    publisher.status = 200
    clock.advance(us=flows.AGAIN)
    await wire_threats.refresh_due(here)
    publisher.status = 503
    clock.advance(us=flows.OLD)
    await wire_threats.refresh_due(here)
    assert await examined() == "fresh threat lists: 2"
    clock.advance(us=1)
    assert await examined() == "unprotected: old threat lists: `evil`: the remote server answers 503"


# ---------------------------------------------------------------------------------------- Networks


async def test_an_event_from_a_network_on_a_list_is_a_finding(world: World) -> None:
    seen = FactCache(world.db.read())
    assert seen.threat("45.83.65.0/24") is None
    source = await add(world, points=70)
    mark, network = indicator("address", "45.83.64.0/22")
    assert network is not None
    listed = Listed(frozenset({mark}), frozenset({network}), 0)
    await act(world, "threats.refresh", lambda act: flows.accept_list(act, source, listed))
    seen.forget("threats.refresh", "evil")
    assert seen.threat("45.83.65.0/24") == ("evil", 70)
    assert seen.threat("45.83.68.0/24") is None

    detector = detectors()["threat_list"]
    events = [
        Event(
            at=1,
            action="token.issue",
            outcome="ok",
            agent="ag_1",
            network="45.83.65.0/24",
            threat=("evil", 70),
            number=1,
        ),
        Event(at=2, action="token.issue", outcome="ok", agent="ag_1", network="45.83.68.0/24", number=2),
    ]
    (found,) = detector.notice(Batch(events, [1, 1], [1, 1]), zeros(detector, agents=2, peers=2))
    assert (found.row, found.points, found.score) == (0, 70, 2 * detector.THRESHOLD)
    assert found.says == "acted from a network on the threat list `evil`"


def test_a_guard_keeps_a_list_as_the_feed_states_the_list() -> None:
    from ostiary.guard.knowledge import Knowledge
    from ostiary.protocol.jose import b64u

    mark, network = indicator("address", "45.83.64.0/22")
    assert network is not None
    knowledge = Knowledge()
    knowledge.learn(ThreatFact("tl_1", "evil", 60, b64u(mark), [network]))
    assert knowledge.threats == {"tl_1": ThreatList("evil", 60, frozenset({mark}), frozenset({network}))}
    with pytest.raises(Invalid):
        knowledge.learn(ThreatFact("tl_1", "evil", 60, b64u(mark + b"x")))
    knowledge.learn(ThreatFact("tl_1", "tl_1", 1, ""))
    assert knowledge.threats == {}
