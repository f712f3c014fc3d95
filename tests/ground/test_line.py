"""The queue before the writer: stops overtake, clients take turns, and the order of each client is kept."""

from __future__ import annotations

from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from ostiaryd.ground.database.line import Client, FairQueue, Lane, Line

CLIENTS = st.tuples(st.sampled_from(["a", "b", "c"]), st.sampled_from(["", "x", "y"]))


def drained(queue: FairQueue[tuple[Client, int]]) -> list[tuple[Client, int]]:
    found = []
    while (item := queue.pop()) is not None:
        found.append(item)
    return found


@given(st.lists(CLIENTS, max_size=60))
def test_a_fair_queue_loses_no_item_and_keeps_the_order_of_each_client(clients: list[Client]) -> None:
    queue = FairQueue[tuple[Client, int]]()
    for number, client in enumerate(clients):
        queue.push(client, (client, number))
    assert len(queue) == len(clients)
    found = drained(queue)
    assert sorted(found, key=lambda item: item[1]) == list(zip(clients, range(len(clients)), strict=True))
    orders = defaultdict(list)
    for client, number in found:
        orders[client].append(number)
    assert all(order == sorted(order) for order in orders.values())
    assert len(queue) == 0
    assert queue.pop() is None


@given(st.lists(CLIENTS, min_size=1, max_size=60))
def test_each_waiting_share_is_served_once_before_another_share_is_served_twice(clients: list[Client]) -> None:
    queue = FairQueue[str]()
    left: dict[str, int] = defaultdict(int)
    for share, name in clients:
        queue.push((share, name), share)
        left[share] += 1
    served: set[str] = set()
    while (popped := queue.pop()) is not None:
        share = popped
        if share in served:
            assert not {other for other in left if other not in served}, "every share that waits had its turn"
            served.clear()
        served.add(share)
        left[share] -= 1
        if not left[share]:
            del left[share]


def test_a_thousand_jobs_of_one_client_delay_another_by_one() -> None:
    queue = FairQueue[str]()
    for _ in range(1000):
        queue.push(("net", "greedy"), "greedy")
    queue.push(("net", "other"), "other")
    queue.push(("elsewhere", ""), "elsewhere")
    assert [queue.pop() for _ in range(4)] == ["greedy", "elsewhere", "other", "greedy"]


@given(st.lists(st.tuples(CLIENTS, st.booleans()), max_size=60))
def test_a_removal_removes_exactly_the_items_that_match(items: list[tuple[Client, bool]]) -> None:
    queue = FairQueue[tuple[int, bool]]()
    for number, (client, goes) in enumerate(items):
        queue.push(client, (number, goes))
    removed = queue.remove(lambda item: item[1])
    assert sorted(removed) == [(number, True) for number, (_, goes) in enumerate(items) if goes]
    assert len(queue) == len(items) - len(removed)
    left = []
    while (item := queue.pop()) is not None:
        left.append(item)
    assert sorted(left) == [(number, False) for number, (_, goes) in enumerate(items) if not goes]


def test_the_first_item_of_a_client_is_its_oldest_item() -> None:
    queue = FairQueue[int]()
    assert queue.first(("a", "")) is None
    queue.push(("a", ""), 1)
    queue.push(("a", ""), 2)
    assert (queue.first(("a", "")), queue.first(("a", "x")), queue.first(("b", ""))) == (1, None, None)
    queue.pop()
    assert queue.first(("a", "")) == 2
    queue.pop()
    assert queue.first(("a", "")) is None


def test_the_oldest_item_of_the_largest_share_is_popped() -> None:
    queue = FairQueue[int]()
    for number, client in enumerate([("a", ""), ("b", "x"), ("b", "y"), ("b", "x"), ("c", "")]):
        queue.push(client, number)
    assert [queue.pop_of_largest() for _ in range(2)] == [1, 2]
    assert sorted(filter(None, (queue.pop() for _ in range(3)))) == [3, 4]
    assert queue.pop_of_largest() is None


def test_stops_overtake_ordinary_items_and_can_be_popped_alone() -> None:
    line = Line[str]()
    line.push(Lane.ORDINARY, ("a", ""), "grant")
    line.push(Lane.STOP, ("b", ""), "revoke")
    line.push(Lane.STOP, ("b", ""), "kill")
    assert len(line) == 3
    assert line.has(Lane.STOP)
    assert [line.pop(Lane.STOP) for _ in range(3)] == ["revoke", "kill", None]
    assert (line.has(Lane.STOP), line.has(Lane.ORDINARY)) == (False, True)
    assert line.pop() == "grant"
    assert line.pop() is None
    assert not line.has(Lane.ORDINARY)


def test_a_removal_calls_its_condition_once_for_each_item() -> None:
    queue: FairQueue[int] = FairQueue()
    for number in range(6):
        queue.push(("share", "name"), number)
    asked: list[int] = []

    def is_old(number: int) -> bool:
        asked.append(number)
        return len(asked) > 3  # time passes while items are looked at

    assert queue.remove(is_old) == [3, 4, 5]
    assert asked == [0, 1, 2, 3, 4, 5]
    assert [queue.pop() for _ in range(4)] == [0, 1, 2, None]
