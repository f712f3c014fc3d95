"""Batches of certificates: one decision and one entry for each request, one commit for all."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from harness.registry_fixtures import ADMIN, agent_caller, register_agent
from ostiary.protocol.certificate import load_pem_certificates
from ostiary.protocol.errors import Invalid, Malformed
from ostiaryd.certs import wire_admin
from ostiaryd.certs.store import certificates
from ostiaryd.ground.http.edge import Call
from ostiaryd.ground.http.pages import Page
from ostiaryd.ground.world import World
from ostiaryd.ledger import flows as ledger
from ostiaryd.ledger.model import Entry, decode_entry
from ostiaryd.ledger.model.sampling import FULL_OF_CALLER
from ostiaryd.registry.model import Caller
from tests.support.certificate_fixtures import csr_builder, new_key, read


def order(**more: Any) -> dict[str, Any]:
    csr = csr_builder().sign(new_key(), hashes.SHA256())
    return {"csr": csr.public_bytes(Encoding.PEM).decode(), **more}


async def post(world: World, requests: list[dict[str, Any]], *, by: Caller = ADMIN) -> list[dict[str, Any]]:
    body = json.dumps({"requests": requests}).encode()
    headers = [(b"content-type", b"application/json")]
    call = Call(world, "POST", "/api/v1/certificates/batch", {}, "", headers, body, "rq_1", by)
    answer = await wire_admin.issue_batch(call)
    assert isinstance(answer.body, bytes)
    answers: list[dict[str, Any]] = json.loads(answer.body)["answers"]
    return answers


def entries(world: World) -> list[Entry]:
    """The entries of certificates, the oldest first."""
    rows = ledger.search_entries(world.db.read(), {}, limit=20)
    every = [decode_entry(body) for _, body in reversed(rows)]
    return [one for one in every if one.action.startswith("cert.")]


async def test_each_request_of_a_batch_is_decided_and_recorded_separately(world: World) -> None:
    agent = await register_agent(world)
    caller = agent_caller(agent)
    answers = await post(
        world,
        [
            order(),
            order(agent="nobody"),
            order(names=["dns:bank.example"]),
            order() | {"csr": "no request"},
            order(lifetime=60),
            order(names=["no name"]),
        ],
        by=caller,
    )
    assert [one.get("error", {}).get("error", "") for one in answers] == [
        "",
        "not_found",
        "foreign_name",
        "malformed",
        "",
        "invalid",
    ]
    first, last = answers[0]["certificate"], answers[4]["certificate"]
    assert {first["holder_id"], last["holder_id"]} == {agent.agent_id}
    assert last["not_after"] < first["not_after"]
    stored = certificates.page(world.db.read(), Page(10, ""))
    assert {one.serial for one in stored} == {first["serial"], last["serial"]}
    batch, *each = entries(world)
    assert (batch.action, batch.outcome, batch.detail) == ("cert.issue_batch", "ok", {"issued": 2, "refused": 4})
    assert [one.outcome for one in each] == ["ok", "refused", "refused", "refused", "ok", "refused"]
    assert all((one.action, one.agent, one.token) == ("cert.issue", agent.agent_id, "tok_1") for one in each)
    assert [one.object for one in each if one.outcome == "ok"] == [first["serial"], last["serial"]]
    read(stored[0].der).verify_directly_issued_by(load_pem_certificates(first["chain"])[0])


@pytest.mark.parametrize(("count", "is_taken"), [(0, False), (1, True), (100, True), (101, False)])
async def test_a_batch_has_1_to_100_requests(world: World, count: int, is_taken: bool) -> None:
    agent = await register_agent(world)
    requests = [order(lifetime=60)] * count
    if is_taken:
        assert len(await post(world, requests, by=agent_caller(agent))) == count
        return
    with pytest.raises((Invalid, Malformed)):
        await post(world, requests, by=agent_caller(agent))
    assert certificates.page(world.db.read(), Page(10, "")) == []


async def test_entries_of_refused_requests_in_batches_are_limited_per_caller(world: World) -> None:
    caller = agent_caller(await register_agent(world))
    before = ledger.get_head(world.db.read())[0].size
    for _ in range(8):
        await post(world, [{"csr": "no request"}] * 100, by=caller)
    left = ledger.get_head(world.db.read())[0].size - before
    assert left == FULL_OF_CALLER + 8, "the first refusals of a minute, and an entry for each batch"


async def test_a_refused_renewal_in_a_batch_counts(world: World) -> None:
    agent = await register_agent(world)
    caller = agent_caller(agent)
    [issued] = await post(world, [order()], by=caller)
    serial = issued["certificate"]["serial"]
    await post(world, [order(replaces=serial, names=["dns:bank.example"]), order(replaces=serial)], by=caller)
    assert [one.action for one in entries(world)[-2:]] == ["cert.renew", "cert.renew"]
    assert certificates.count_certificates(world.db.read(), now=world.now()) == ({"agent": 2}, 1)
