"""An agent's identity in three lines:

    with Agent.from_credential("planner.json") as agent:
        with agent.task("summarise the third quarter", scopes=["files:read"]) as task:
            report = task.get("https://files.example/reports/q3.txt")

Tokens are got, kept, bound and renewed as they are needed; a task is ended as done, or as failed when its block raises.
`AsyncAgent` is the same with `await` and `async with`. `agent.auth(...)` serves any other client of httpx2, such as the
one inside an MCP client.
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
