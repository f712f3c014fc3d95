"""The chapter about an agent that an attacker controls: detection, quarantine, explanation, release."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from functools import partial

from rich.markup import escape

from ostiary.agent import AsyncAgent
from ostiary.demo.provider import providing
from ostiary.demo.stage import Stage
from ostiary.demo.telling import add_names, attempt, chapter, draw, find_refusal, note, run, say, shell
from ostiary.protocol.errors import Unavailable

REFUSED_CALLS = 14
"""Number of refused calls within seconds that raises a finding."""
STEPS = ("watch.find", "incident.open", "agent.quarantine", "incident.release", "agent.release", "watch.judge")
LOOKS, LOOK_S = 100, 0.2


async def notice_and_stop(stage: Stage, *, person: str) -> None:
    """Run the chapter of the demo about detection; `person` is the name of the file with the key of the agents'
    owner.
    """
    chapter("An agent behaves unusually: detected, stopped, explained, released")
    await _until(lambda: bool(stage.ostiary("watch", "status")["phase"] == "working"))
    _register(stage)
    async with stage.client("scout") as files, stage.client("scout", uri=stage.vault_uri) as vault:
        await attempt(stage, "scout", files, "read_file", path="reports/q3.txt")
        note(f"An attacker controls it: at the vault it tries {REFUSED_CALLS} calls outside its scopes.")
        for _ in range(REFUSED_CALLS):
            await find_refusal(vault, "delete_file", path="keys.txt")
        await _until(lambda: _risk(stage) > 0)
        say(f"the risk of the scout has risen from 0 to [yellow]{_risk(stage)}[/] of 100 points")
        note("Then it calls the decoy.")
        await find_refusal(vault, "export_keys")
        while (refusal := await find_refusal(files, "list_files")) is None:
            pass
        say(f"scout [red]denied[/]: {escape(add_names(stage, refusal.message))}")
    await _show_how_fast(stage)
    [incident] = [one for one in stage.ostiary("incident", "list") if one["agent"] == "scout"]
    id = incident["incident_id"]
    stage.names[id] = "of the scout"
    draw(stage, "incident", "list")
    draw(stage, "incident", "show", id, wraps=True)
    note("Neither the agent's owner nor an administrator can release the agent; another person reviews the finding.")
    why = ("--reason", "the scout was tested", "--as")
    own = ("incident", "release", id, *why, str(stage.folder / person))
    shell(stage, *own)
    stage.output_of(*own, expect=1)
    say("[red]refused[/]: ada owns this agent")
    bob = str(stage.folder / "bob.json")
    run(stage, "person", "create", "bob", "--email", "bob@example.org", "--generate-key", bob)
    run(stage, "incident", "release", id, *why, bob)
    async with stage.client("scout") as files:
        await attempt(stage, "scout", files, "read_file", path="reports/q3.txt")
    note("Each of these steps has an entry in the ledger:")
    for action in STEPS:
        draw(stage, "audit", "search", "--action", action, "--limit", "1", wraps=True)
    await _hear_from_outside(stage)


async def _hear_from_outside(stage: Stage) -> None:
    """Push the signal of a trusted identity provider: the reader's key is compromised."""
    note("Now an identity provider reports that the reader's key is compromised.")
    with providing() as provider:
        trusted = run(stage, "signal", "trust", provider.issuer, "--agents")
        reader = stage.ostiary("agent", "show", "reader")["agent_id"]
        pushed = (trusted["endpoint_url"], trusted["authorization_header"])
        status = await asyncio.to_thread(partial(provider.push_signal, *pushed, audience=stage.url, agent=reader))
        state = stage.ostiary("agent", "show", "reader")["state"]
        say(f"the signal is accepted with {status}, and the reader is {state}")


def _register(stage: Stage) -> None:
    """Register a second tool server with its own guard, and an agent that may read at both servers."""
    options = ("--uri", stage.vault_uri, "--catalogue", str(stage.folder / "vault.catalogue.json"))
    catalogue = json.loads((stage.folder / "catalogue.json").read_text()) | {"resource": "vault"}
    (stage.folder / "vault.catalogue.json").write_text(json.dumps(catalogue))
    run(stage, "resource", "create", "vault", *options, "--generate-key", str(stage.folder / "vault.json"))
    agent_options = ("--owner", "ada", "--scope", "files:read vault:read", "--purpose", "scout of reports")
    agent = run(stage, "agent", "create", "scout", *agent_options, "--generate-key", str(stage.folder / "scout.json"))
    stage.names[agent["agent_id"]] = "scout"
    stage.start_tools("vault")


async def _show_how_fast(stage: Stage) -> None:
    """Print the time until each guard denied, counted from the finding that quarantined the agent."""
    [did] = stage.ostiary("audit", "search", "--action", "incident.act", "--limit", "1")
    query = {"seq": did["detail"]["seq"], "since": did["at"], "wait_ms": 5000}
    async with AsyncAgent.from_credential(stage.data / "admin.json", url=stage.url) as admin:
        resource = f"{await admin.issuer()}/api/v1"
        answer = await admin.request("GET", f"{stage.url}/api/v1/feeds", resource=resource, params=query)
    for guard in answer.json()["guards"]:
        say(f"the guard of `{guard['guard']}` denied [bold]{guard['ms']:.1f} ms[/] after the finding")


def _risk(stage: Stage) -> int:
    """Return the present risk score of the scout, in points."""
    return next((one["risk"] for one in stage.ostiary("activity", "--once")["doubted"] if one["agent"] == "scout"), 0)


async def _until(is_so: Callable[[], bool]) -> None:
    """Wait until `is_so()` returns True. Raises Unavailable if it does not within LOOKS attempts."""

    def wait() -> None:
        for _ in range(LOOKS):
            if is_so():
                return
            time.sleep(LOOK_S)
        raise Unavailable("an expected event did not happen")

    await asyncio.to_thread(wait)
