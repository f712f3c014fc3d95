"""The product without a server decides as the one with a server, on a suite of our own and on a real one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.contain import compiled, owner
from benchmarks.contain.columns import Plan, Row, recorded
from benchmarks.contain.doorkeeper import doorkeeper
from benchmarks.contain.inprocess import InProcess
from benchmarks.contain.products import Product
from ostiaryd.approvals.model import MAX_SPENT_OF_CALL, MAX_USES
from tests.support.toys import STEAL, Toy


def rows(product: Product) -> list[Row]:
    plan = Plan(Toy())
    found = (*plan.honest(product), *plan.attacked(product), *plan.attacked(product, planting=recorded, tired=True))
    return [replace(row, product="", why=()) for row in found]


@pytest.fixture(params=[False, True], ids=["unconfirmed", "confirmed"])
def both(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Product, Product]]:
    catalogue = owner.confirmed(Toy()) if request.param else owner.reading(Toy())
    with doorkeeper(catalogue, tmp_path) as served:
        yield InProcess(catalogue, compiled.starter()), served


@pytest.mark.slow
def test_the_in_process_product_and_the_server_give_the_same_results(both: tuple[Product, Product]) -> None:
    inside, served = both
    assert rows(inside) == rows(served)


def test_a_denied_call_is_not_asked_again_and_an_approval_covers_the_same_call() -> None:
    product = InProcess(owner.reading(Toy()), compiled.starter())
    session = product.open("a", Toy.tasks[1].purpose, Toy.tools, Toy.person).session
    asked = product.decide(session, STEAL)
    assert asked.question is not None
    assert product.answer(session, asked.question, yes=False).code == "approval_denied"
    assert product.decide(session, STEAL).code == "approval_denied"
    session = product.open("a", Toy.tasks[1].purpose, Toy.tools, Toy.person).session
    asked = product.decide(session, STEAL)
    assert asked.question is not None
    assert product.answer(session, asked.question, yes=True).allowed
    assert [product.decide(session, STEAL).allowed for _ in range(MAX_USES)] == [True] * MAX_USES
    for _ in range(MAX_SPENT_OF_CALL - 1):
        asked = product.decide(session, STEAL)
        assert asked.question is not None
        session.covers.clear()
        assert product.answer(session, asked.question, yes=True).allowed
        session.covers.clear()
    assert product.decide(session, STEAL).code == "approval_spent"
