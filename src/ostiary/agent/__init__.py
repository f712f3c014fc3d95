"""An agent's identity in three lines:

    with Agent.from_credential("planner.json") as agent:
        with agent.task("summarise the third quarter", scopes=["files:read"]) as task:
            report = task.get("https://files.example/reports/q3.txt")

Tokens are requested, stored and renewed when they are needed. At the end of its block, a task ends as `done`; if the
block raises, it ends as `failed`. `AsyncAgent` is the same for `await` and `async with`. `agent.auth(...)` adds tokens
and proofs to the requests of any other client of httpx2, such as the client inside an MCP client.
"""

from ostiary.agent.asynchronous import AsyncAgent, AsyncTask
from ostiary.agent.blocking import Agent, Task
from ostiary.agent.identity import AccountToken, Approval, ApprovalNeeded, Secret, ServerRefused

__all__ = [
    "AccountToken",
    "Agent",
    "Approval",
    "ApprovalNeeded",
    "AsyncAgent",
    "AsyncTask",
    "Secret",
    "ServerRefused",
    "Task",
]
