"""AuthZEN evaluations that require an approval."""

from __future__ import annotations

from typing import Any

from tests.support.approval_fixtures import PAY, Bank

EVALUATION, REQUESTS = "/access/v1/evaluation", "/access/v1/requests"


Json = dict[str, Any]


def question(bank: Bank, arguments: Json = PAY, **context: Any) -> Json:
    return {
        "subject": {"type": "Agent", "id": bank.agent.agent_id},
        "action": {"name": "call"},
        "resource": {"type": "Tool", "id": "bank/pay"},
        "context": {"arguments": arguments, "task": bank.task.task_id, **context},
    }


async def evaluate(bank: Bank, asked: Json) -> Json:
    status, answer, _ = await bank.http("POST", EVALUATION, asked)
    assert status == 200
    return dict(answer)
