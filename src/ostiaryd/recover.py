"""`ostiary recover`: ends the recovery of a database that has lost a part of its history.

Runs on the server's machine: access to the data folder is the authority, since an administrator may have been revoked
in the lost part. The server may run meanwhile. Since the lost part is not known in full, nothing that was issued before
remains valid. Every token, declared task, open question, approval, consent, session, and everything that may be used
once ends: setup links, recovery codes, join tokens, initial access tokens, unused ACME keys, assertions and proofs.
Agents that the operator does not confirm are suspended, epochs are raised, and the keys that sign tokens and the
history are new.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from ostiary.decision.feed import HEAD_BYTES, announced_keys, unverified_message
from ostiary.protocol.errors import Conflict, Invalid, NotFound, Refused
from ostiary.protocol.receipt import parse_receipt
from ostiaryd.approvals import flows as approvals
from ostiaryd.certs.flows.acme import revoke_unused_keys
from ostiaryd.feed.flows import Delivered, replay_messages
from ostiaryd.ground.config import Config, load_config
from ostiaryd.ground.database import Reader
from ostiaryd.ground.database.pin import Head, InRecovery
from ostiaryd.ground.database.server_keys import load_keys, replace_keys
from ostiaryd.ground.world import World, open_world
from ostiaryd.ledger import flows as ledger
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import ADMIN, AgentId, AgentState, Verb
from ostiaryd.secrets.flows.connected_accounts import break_all_accounts
from ostiaryd.tasks import flows as tasks
from ostiaryd.tasks.model import TaskState
from ostiaryd.tokens.flows import end_all_consents
from ostiaryd.trust.flows import end_all_logins

EPOCH_STEP = 1_000_000
"""Number by which epochs are raised, which is higher than any epoch in the lost part can be."""
WHY = "recovery from a lost history"
MAX_NOTE_FILE = 1 << 20
BATCH = 500
"""Number of messages from a spool folder that one act handles."""
SHOWN = 500
"""Number of active agents, and of replayed stops, that the report names. The report has the number of all."""


def recover(
    *,
    from_: Annotated[list[Path] | None, Parameter(name="--from")] = None,
    evidence: list[Path] | None = None,
    lost: Annotated[bool, Parameter(negative=())] = False,
    confirm: list[str] | None = None,
    confirm_all: int | None = None,
    database: str | None = None,
    config: Path | None = None,
    session: Annotated[Any, Parameter(parse=False)],
) -> None:
    """End the recovery of a database that lost a part of its history.

    Without options the command shows the missing part of the history.

    Args:
        from_: Spool folder of a guard; replay the stops in it, such as suspensions. May be repeated.
        evidence: Checkpoint, receipt or `audit export` folder of this server; compare it with the database. May be
            repeated.
        lost: Enter recovery although nothing shows the loss, because you know that the database is an older copy.
        confirm: Agent that stays active; may be repeated. All others are suspended, and the recovery ends.
        confirm_all: Number of the active agents, which the command shows. All stay active, and the recovery ends.
        database: sqlite:///PATH or postgresql://USER@HOST/NAME; by default, a file in the data folder.
        config: TOML file; docs/reference/configuration.md lists the keys.
    """
    data_dir = str(session.data_dir) if session.data_dir is not None else None
    loaded = load_config(config, data_dir=data_dir, database=database)
    if confirm and confirm_all is not None:
        raise Invalid("`--confirm` and `--confirm-all` exclude each other", code="usage")
    report = asyncio.run(
        _recover(loaded, from_ or [], evidence or [], lost=lost, confirm=confirm, confirm_all=confirm_all)
    )
    print(json.dumps(report) if session.as_json else "\n".join(report_lines(report)), flush=True)


async def _recover(
    config: Config,
    spools: list[Path],
    evidence: list[Path],
    *,
    lost: bool,
    confirm: list[str] | None,
    confirm_all: int | None,
) -> dict[str, Any]:
    async with open_world(config, create=False) as world:
        await ledger.check_history(world)
        unverified = 0
        for path in evidence:
            await examine_file(world, path)
        if lost:
            await ledger.declare_loss(world)
        for folder in spools:
            unverified += (await replay_spool(world, folder)).unverified
        if confirm is not None or confirm_all is not None:
            await ledger.act(world, "history.recover", lambda act: end_recovery(act, confirm, confirm_all))
            load_keys(world.keys, world.db.read())
            await ledger.check_history(world)
        report = await world.db.scan(lambda reader: describe(world, reader))
        return {**report, "unverified": unverified}


async def examine_file(world: World, path: Path) -> None:
    """Compare the signed checkpoints in a file or in the files of a folder (each at most `MAX_NOTE_FILE` bytes) with
    the database. If the database lacks entries that a checkpoint proves, the server enters recovery.

    Raises Invalid if no file contains a checkpoint or a receipt that this server's ledger has signed.
    """
    count = 0
    for file in _small_files(path):
        for note in _notes(file.read_bytes()):
            with suppress(Refused):
                head = ledger.read_head(note, reader=world.db.read(), keys=world.keys)
                count += 1
                await ledger.examine_head(world, head, source=f"the file {file.name}")
    if not count:
        raise Invalid(
            f"{path} contains no checkpoint that this server's ledger has signed",
            hint="name a folder of `ostiary audit export FOLDER`, or a file of it",
        )


def _small_files(path: Path) -> list[Path]:
    paths = [path] if path.is_file() else sorted(path.rglob("*"))
    return [file for file in paths if file.is_file() and file.stat().st_size <= MAX_NOTE_FILE]


def _notes(content: bytes) -> Iterator[bytes]:
    """Yield the parts of a file that may be a signed checkpoint: the file itself, or the checkpoint of a receipt."""
    yield content
    with suppress(Refused):
        yield parse_receipt(content).note


async def replay_spool(world: World, folder: Path) -> Delivered:
    """Compare the checkpoints in a guard's spool folder with the database, and apply the stops in the folder (such as
    suspensions) that the database has lost. Return the number of applied stops, and of messages of the lost part whose
    signature cannot be verified. Raises NotFound for a folder with neither stops nor checkpoints of a guard.
    """
    replayed = unverified = count = 0
    files = _stop_files(folder)
    announcing = [line for file in files if file.suffix == ".stops" for line in _announcements(file)]
    for file in files:
        content, resource_id = file.read_bytes(), file.parent.name
        source = f"the spool of {resource_id}"
        count += 1
        for head in _newest_heads(world, _notes_of_guard(file.suffix, content)):
            with suppress(InRecovery):
                await ledger.examine_head(world, head, source=source)
        if file.suffix == ".head":
            continue
        lines = content.splitlines()
        for start in range(0, len(lines), BATCH):
            batch = lines[start : start + BATCH]
            done = await replay_messages(world, announcing + batch, resource_id=resource_id, source=source)
            replayed, unverified = replayed + done.replayed, unverified + done.unverified
    if not count:
        raise NotFound(
            f"{folder} contains no files of a guard (`*.stops` or `*.head`)",
            hint="name the folder in the setting `spool_dir` of a guard",
        )
    return Delivered(replayed, unverified)


def _notes_of_guard(suffix: str, content: bytes) -> Iterator[bytes]:
    """Yield the checkpoints in a file of a guard: the content of a `.head` file, or those of stored messages."""
    if suffix == ".head":
        yield content[:HEAD_BYTES].rstrip(b"\0")
        return
    for line in content.splitlines():
        with suppress(Refused):
            yield unverified_message(line).head.encode()


def _newest_heads(world: World, unverified_notes: Iterable[bytes]) -> Iterable[Head]:
    """Return the largest head of each history among the checkpoints that this log has signed."""
    newest: dict[str, Head] = {}
    for note in dict.fromkeys(unverified_notes):
        with suppress(Refused):
            head = ledger.read_head(note, reader=world.db.read(), keys=world.keys)
            newest[head.history] = max(head, newest.get(head.history, head), key=lambda one: one.size)
    return newest.values()


def _announcements(file: Path) -> Iterator[bytes]:
    """Yield the messages in a file that announce new keys of the feed, because the database may have lost
    these keys.
    """
    for line in file.read_bytes().splitlines():
        with suppress(Refused):
            if announced_keys(unverified_message(line)) is not None:
                yield line


def _stop_files(folder: Path) -> list[Path]:
    """Return the files in which guards store stops: below the `spool_dir` of guards, or below the folder of one
    resource in it.
    """
    paths = {*folder.iterdir(), *folder.glob("*/*")}
    return sorted(file for file in paths if file.suffix in (".head", ".stops") and file.is_file())


def end_recovery(act: Act, confirm: list[str] | None, confirm_all: int | None) -> str:
    """End the recovery: begin a new history of the ledger, and return its id. All tokens, tasks, open approval
    requests, consents and sessions from before are no longer valid.

    Agents that are not confirmed are suspended: `confirm` has the names of the confirmed agents; `confirm_all`, the
    number of active agents, confirms all. Raises NotFound for an unknown agent, Conflict if there is no recovery, if a
    confirmed agent is not active, if `confirm_all` is wrong, or if no confirmed agent is an administrator.
    """
    lost = ledger.list_losses(act.tx)
    if not lost:
        raise Conflict(
            "this server is not in recovery", hint="nothing to do: no part of the history is known to be missing"
        )
    active = registry.list_active_agents(act.tx)
    confirmed = _confirmed(act, active, confirm, confirm_all)
    suspended = [name for id, name in active if id not in confirmed]
    ended = registry.end_all_holdings(act.tx, why=WHY)
    ended += tasks.end_all_tasks(act.tx, TaskState.CANCELLED)
    ended += approvals.cancel_all_questions(act.tx)
    ended += end_all_consents(act.tx, why=WHY)
    ended += end_all_logins(act)
    ended += break_all_accounts(act)
    ended += revoke_unused_keys(act)
    for name in suspended:
        registry.set_agent_state(act, name, Verb.SUSPEND, why=WHY)
    registry.raise_epochs(act.tx, step=EPOCH_STEP)
    replace_keys(act.tx, act.tx.keys.root, use="token")
    history = ledger.renew_history(act.tx)
    act.entry.object = history
    act.entry.detail = {
        "lost": [ledger.describe_loss(loss) for loss in lost[:10]],
        "replayed": len(ledger.list_replayed(act.tx)),
        "confirmed": len(confirmed),
        "suspended": suspended[:100],
        "ended": ended,
    }
    return history


def _confirmed(
    act: Act, active: list[tuple[AgentId, str]], confirm: list[str] | None, confirm_all: int | None
) -> set[AgentId]:
    """Return the agents that stay active after the recovery. Raises NotFound for an unknown agent, Conflict for an
    agent that is not active, for a wrong number in `confirm_all`, or if no administrator is confirmed.
    """
    if confirm_all is not None:
        if confirm_all != len(active):
            raise Conflict(
                f"{len(active)} agents are active, but `--confirm-all` is {confirm_all}",
                hint="list the agents: ostiary agent list",
            )
        confirmed = {id for id, _ in active}
    else:
        agents = [registry.find_agent(act.tx, name) for name in confirm or ()]
        if stopped := [agent.name for agent in agents if agent.state is not AgentState.ACTIVE]:
            raise Conflict(
                f"the confirmed agent `{stopped[0]}` is not active",
                hint="confirm active agents only; resume others after the recovery",
            )
        confirmed = {agent.agent_id for agent in agents}
    if not any(ADMIN in registry.find_agent(act.tx, id).scopes for id in confirmed):
        raise Conflict(
            "no administrator is confirmed, so agents could not be resumed",
            hint="confirm an administrator with --confirm NAME",
        )
    return confirmed


def describe(world: World, reader: Reader) -> dict[str, Any]:
    """Return a description of the recovery: the parts of the history that are known to be missing, and at most `SHOWN`
    each of the replayed stops and of the active agents, with the number of all.
    """
    replayed, active = ledger.list_replayed(reader), registry.list_active_agents(reader)
    return {
        "recovery": bool(ledger.list_losses(reader)),
        "history": ledger.present_history(reader),
        "entries": ledger.get_head(reader)[0].size,
        "lost": [{**ledger.describe_loss(loss), "history": loss.head.history} for loss in ledger.list_losses(reader)],
        "replayed": [stop._asdict() for stop in replayed[:SHOWN]],
        "replayed_count": len(replayed),
        "active": [name for _, name in active[:SHOWN]],
        "active_count": len(active),
    }


def report_lines(report: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of text that `ostiary recover` prints for a `report`: the result of `describe`, with the number
    of `unverified` messages.
    """
    if not report["recovery"]:
        yield f"no recovery: history {report['history']}, {report['entries']} entries, nothing is known to be missing"
    for loss in report["lost"]:
        yield f"missing: entries {loss['from']} (or earlier) to {loss['to'] - 1}, which {loss['source']} has seen"
    for stop in report["replayed"]:
        yield f"replayed: {stop['kind']} {stop['subject']}, known from {stop['source']}"
    if rest := report["replayed_count"] - len(report["replayed"]):
        yield f"replayed: {rest} more stop{'' if rest == 1 else 's'}"
    if report["unverified"]:
        yield f"not replayed: {report['unverified']} messages that were signed with a key of the feed which is lost too"
    if report["recovery"]:
        yield "policies, catalogues, modes, persons, keys and client secrets are as the database has them: look at each"
        count, named = report["active_count"], report["active"][:50]
        more = f" and {count - len(named)} more (ostiary agent list)" if count > len(named) else ""
        yield f"{count} agent{' is' if count == 1 else 's are'} active: {', '.join(named)}{more}"
        yield "confirm each that may go on: --confirm NAME; or all: --confirm-all NUMBER; others are suspended"
