"""A bank whose agent also sends mail, for approvals that cover several calls."""

from __future__ import annotations

import json
from typing import Any

import pytest

from harness.registry_fixtures import create_holding, run_act
from ostiary.authorization.catalogue import Catalogue
from ostiary.provenance.intent import Intent
from ostiary.provenance.origins import observe_output
from ostiaryd.registry import flows as registry
from ostiaryd.tasks import flows as tasks
from ostiaryd.tasks.model import TaskSpec
from tests.support.approval_fixtures import URI, Bank
from tests.support.payment_fixtures import SCHEMA, TOOLS
from tests.support.policy_fixtures import put

CEDAR = """
@id("call") permit (principal is Agent, action == Action::"call", resource);
@id("whom") @ask("person") @covers("counterpart") @reason("nobody named this recipient")
forbid (principal, action == Action::"call", resource);
@id("what") @ask("person") @reason("private text")
forbid (principal, action == Action::"call", resource);
@id("both") @ask("two") @covers("counterpart")
forbid (principal, action == Action::"call", resource);
"""


SEND: dict[str, Any] = {
    "name": "send",
    "effect": "send",
    "arguments": {
        "type": "object",
        "properties": {
            "to": {"type": "string"},
            "body": {"type": "string"},
            "at": {"type": "string"},
            "copies": {"type": "integer"},
            "limit": {"type": "number"},
            "pin": {"type": "string"},
            "urgent": {"type": "boolean"},
        },
    },
    "kinds": {"to": "address", "body": "text", "at": "time", "limit": "amount", "pin": "secret"},
}


READ: dict[str, Any] = {"name": "read", "effect": "read", "outside": True}


ANN = {"to": "ann@else.example", "body": "hello"}


WHOM: dict[str, Any] = {"tool": "send", "policies": ["whom"], "token": "tok_m"}


@pytest.fixture
async def mail(bank: Bank) -> Bank:
    """The bank sends messages too; `tok_m` is of a task for which a person has said something."""
    catalogue = Catalogue.parse(json.dumps({"resource": "bank", "tools": [*TOOLS, SEND, READ]}))
    await run_act(bank.world, lambda a: registry.set_catalogue(a, "bank", catalogue))
    bank.policy = await put(bank.world, {"a.cedar": CEDAR, "a.cedarschema": SCHEMA})
    bank.task = await run_act(
        bank.world,
        lambda a: tasks.start(a, TaskSpec(agent="bot", purpose="mail", intent=Intent(words="Tell them hello"))),
    )
    await create_holding(bank.world, bank.agent, "tok_m", audience=URI, task=bank.task.task_id, seconds=3600)
    return bank


async def reads(mail: Bank, text: object) -> None:
    """Add untrusted content with this text to the memory of the task."""
    memory = tasks.read_memory(mail.world.db.read(), mail.task, mail.world.keys).memory
    tool = Catalogue.parse(json.dumps({"resource": "bank", "tools": [READ]})).tools["read"]
    parts = observe_output(memory, "bank/read", tool, {}, text)
    await run_act(mail.world, lambda a: tasks.add_output(a, mail.task, parts))
