"""The doctor: a list of experiments that run now, on the running server, with its real parts.

An experiment returns its observation, or raises `Refused` with the defect. One run of the doctor leaves one entry, and
one message to guards, which ends a task that never existed.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, TypedDict
from urllib.parse import urlsplit

from ostiary.protocol import jose
from ostiary.protocol.checkpoint import open_checkpoint
from ostiary.protocol.errors import Conflict, Refused
from ostiary.protocol.merkle import leaf_hash, tree_root
from ostiary.protocol.tiles import hashes_from
from ostiaryd.approvals import flows as approvals
from ostiaryd.certs.flows import check_hsm, list_trust_domains, trust_domains
from ostiaryd.feed.flows import Guards, Streams, find_missing_guards, send_test
from ostiaryd.feed.flows.missing import MissingGuard
from ostiaryd.ground.crypto.keyring import USES, Keyring
from ostiaryd.ground.database import Reader
from ostiaryd.ground.database.server_keys import load_keys
from ostiaryd.ground.http.edge import Call, Reply, reply
from ostiaryd.ground.http.routes import Query, Route
from ostiaryd.ground.http.tls import expiry
from ostiaryd.ground.rounds import Rounds
from ostiaryd.ground.world import World
from ostiaryd.incidents.flows import disk, incidents, pages, state
from ostiaryd.ledger import flows as ledger
from ostiaryd.notifications import flows as notifications
from ostiaryd.policy import flows as policy
from ostiaryd.policy.model import load
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import READ, Caller
from ostiaryd.secrets import flows as secrets
from ostiaryd.signals.flows import issuers
from ostiaryd.trust import flows as trust
from ostiaryd.watch import flows as watch
from ostiaryd.watch.flows import threats
from ostiaryd.watch.flows.certificates import examine_certificates

NEWEST = 10_000
"""Number of the newest entries whose bytes are hashed again. The tree of hashes above all entries is
always recomputed.
"""
MAX_LAG_S = 2.0
"""Maximum time in which a connected guard must apply a change, in seconds."""
ENDS_SOON_S = 14 * 86_400
"""Time before its end at which a certificate must be renewed, in seconds."""
MAX_ACTS = 1000
"""Maximum number of acts that may wait for the writer."""
SECOND = 1_000_000
_SEE_LOG = "the log of the server may have the cause"
_RENEW = "for the TLS certificate, replace the file of `tls_cert`; for an authority, see: ostiary ca show"


class Unprotected(Refused):
    """An experiment of `ostiary doctor` found a part of the server that works, but with less protection than is
    possible. The state of the experiment is then `weak`.
    """

    code = "unprotected"


@dataclass(frozen=True, slots=True)
class Line:
    """The result of one experiment. `state` is ok, weak (less protection than possible) or fail; `saw` is the
    observation, or the problem; `ms` is the duration in milliseconds.
    """

    name: str
    state: str
    saw: str
    hint: str
    ms: float


class DoctorBody(TypedDict):
    """The results, one for each experiment, in the order of the experiments."""

    lines: list[Line]


async def doctor(call: Call) -> Reply:
    """Run every experiment (check of a part of the server), in order.

    With `deep`, experiments that usually read a part of the ledger and the database read all of it.
    """
    is_deep = call.query_one("deep") == "true"
    return reply({"lines": await examine(call.world, caller=call.caller, request=call.request_id, is_deep=is_deep)})


async def examine(world: World, *, caller: Caller, request: str | None = None, is_deep: bool = False) -> list[Line]:
    """Run the experiments in order, and return one result for each. `caller` and `request` (its id) appear in the
    ledger entry of the run.
    """
    visit = _Visit(world, caller, request)
    lines = [await _perform("record", visit.record), await _perform("guards", visit.guards)]
    for name, usual in EXPERIMENTS:
        experiment = DEEP.get(name, usual) if is_deep else usual
        lines.append(await _perform(name, lambda experiment=experiment: experiment(world)))  # type: ignore[misc]
    return lines


async def _perform(name: str, experiment: Callable[[], Awaitable[str]]) -> Line:
    started = time.perf_counter()
    state, hint = "ok", ""
    try:
        saw = await experiment()
    except Refused as refusal:
        state = "weak" if isinstance(refusal, Unprotected) else "fail"
        saw, hint = refusal.message_with_detail, refusal.hint or _SEE_LOG
    except Exception as error:  # noqa: BLE001 because a doctor reports whatever breaks
        state, saw, hint = "fail", f"{type(error).__name__}: {error}"[:300], _SEE_LOG
    return Line(name, state, saw, hint, round((time.perf_counter() - started) * 1000, 2))


@dataclass(slots=True)
class _Visit:
    """The act of one run of the doctor. It sends guards a message without effect, whose delay is measured."""

    world: World
    caller: Caller
    request: str | None
    committed: tuple[int, int] | None = None
    """Number of the message in the feed, and the time at which it was durable; None before."""

    async def record(self) -> str:
        def visit(act: ledger.Act) -> int:
            registry.record_caller(act, self.caller)
            return send_test(act)

        started = time.perf_counter()
        seq = await ledger.act(self.world, "server.doctor", visit, request=self.request)
        self.committed = seq, self.world.now()
        return f"an act and its entry were durable after {(time.perf_counter() - started) * 1000:.1f} ms"

    async def guards(self) -> str:
        if self.committed is None:
            raise Conflict("no change was sent to the guards, because the experiment `record` failed")
        seq, since = self.committed
        guards = await self.world.get_singleton(Guards).settled(seq, within_s=MAX_LAG_S)
        applied = [(guard.resource, guard.applied_at(seq)) for guard in guards]
        if lagging := sorted({name for name, at in applied if at is None}):
            names, count = ", ".join(lagging), len(applied)
            raise Conflict(
                f"a change was not in force within {MAX_LAG_S:.0f} s at {names}; connected guards: {count}",
                hint="guards with an old feed deny every call: restart them, or check the network",
            )
        lags = ", ".join(f"{name} {max(0, at - since) / 1000:.1f} ms" for name, at in sorted(applied) if at is not None)
        summary = f"a change was in force at {lags}" if lags else "no guard is connected"
        if gone := await self.world.db.scan(lambda reader: find_missing_guards(reader, guards, now=self.world.now())):
            raise Unprotected(
                f"{summary}; not connected: {', '.join(map(_say_missing, gone[:3]))}",
                hint="start the guard, if it should run",
            )
        return summary


def _say_missing(guard: MissingGuard) -> str:
    at = datetime.fromtimestamp(guard.reported_at // SECOND, UTC)
    return f"{guard.resource} (its last report is of {at:%Y-%m-%d %H:%M:%SZ})"


def _reading(read: Callable[[World, Reader], str]) -> Callable[[World], Awaitable[str]]:
    """Return an experiment that runs `read` in a reader thread on one snapshot, because it reads many rows."""
    return lambda world: world.db.scan(lambda reader: read(world, reader))


async def _detectors(world: World) -> str:
    kept = world.get_singleton(watch.Watch)
    try:
        return await kept.examine()
    except Conflict as refusal:
        if kept.state.phase == watch.OFF:
            raise Unprotected(refusal.message, hint=refusal.hint) from None
        raise


async def _root_key(world: World) -> str:
    if world.keys.root.source != "file":
        return f"the root key comes from the {world.keys.root.source}"
    path = world.config.folder / "root.key"
    if path.stat().st_mode & 0o077:
        raise Conflict(f"{path} is open to other users", hint=f"chmod 600 {path}")
    raise Unprotected(
        f"the root key {path} is stored beside the data that the key encrypts",
        hint="set OSTIARY_ROOT_KEY from a secret store",
    )


async def _data_folder(world: World) -> str:
    folder = world.config.folder
    if folder.stat().st_mode & 0o077:
        raise Conflict(f"{folder} is accessible to other users", hint=f"chmod 700 {folder}")
    return f"{folder} is closed to others"


async def _hsm(world: World) -> str:
    """Sign with each key of an authority in the HSM, and return the observation."""
    if (hsm := world.keys.hsm) is None:
        return "no HSM is configured: the keys of the certificate authorities are in the database, encrypted"
    count = await world.db.scan(lambda reader: check_hsm(reader, hsm, keys=world.keys))
    return f"the token `{hsm.token}` answers, and signed with {count} keys of authorities"


def _certificates(world: World, reader: Reader) -> str:
    """Return the observation on certificates: neglected ones, and certificates of the server itself that end soon."""
    figures, now, days = examine_certificates(reader, world), world.now(), world.config.certificate_warning_days
    wrong = [one.name for one in figures.own if one.ends_soon(now=now, days=days)]
    if ended := [one.name for one in figures.own if one.not_after <= now]:
        raise Conflict(f"expired: {'; '.join(ended)}", hint=_RENEW)
    if wrong:
        raise Unprotected(f"expires soon: {'; '.join(wrong)}", hint=_RENEW)
    if figures.neglected:
        words = f"certificates that end soon or cannot be renewed: {figures.neglected}"
        raise Unprotected(words, hint="list the findings: ostiary watch findings")
    return f"certificates in force: {figures.in_force.total()}, none neglected"


async def _public_url(world: World) -> str:
    """Check that tokens and proofs are sent over TLS, with a certificate that has not expired. Raises Conflict
    otherwise.
    """
    url = urlsplit(world.config.public_url)
    if world.config.tls_cert:
        check_certificate(Path(world.config.tls_cert), world.now())
    if url.scheme == "https":
        return f"clients use {world.config.public_url}"
    if url.hostname not in ("127.0.0.1", "localhost", "::1"):
        raise Conflict(
            f"{world.config.public_url} is neither https nor on this machine",
            hint="put a proxy with TLS in front of the server",
        )
    return f"{world.config.public_url} is reachable from this machine only"


def check_certificate(path: Path, now: int) -> None:
    """Check that the certificate in a file is readable and does not end soon; the start of its validity is not checked.

    Raises Conflict if it has ended at `now` (microseconds) or cannot be read, Unprotected if it ends within
    `ENDS_SOON_S`.
    """
    hint = "replace the file with the new certificate: the server loads it automatically"
    try:
        ends = expiry(path)
    except (OSError, ValueError) as error:
        raise Conflict(f"the certificate in {path} cannot be read: {error}", hint=hint) from None
    left_s = ends.timestamp() - now / SECOND
    if left_s <= 0:
        raise Conflict(f"the certificate in {path} ended on {ends:%Y-%m-%d}", hint=hint)
    if left_s < ENDS_SOON_S:
        raise Unprotected(f"the certificate in {path} ends on {ends:%Y-%m-%d}", hint=hint)


def _keys(world: World, reader: Reader) -> str:
    """Decrypt every stored key again, sign with the active keys, and verify with the published JWKS."""
    fresh = Keyring(world.keys.root)
    load_keys(fresh, reader)
    signed = 0
    for use, algs in USES.items():
        for alg in algs:
            key = fresh.signer(use, alg)
            token = jose.sign_jwt(key, typ="doctor+jwt", claims={"use": use})
            jose.verify_jws(token, key_for=lambda h, use=use: world.keys.find(use, str(h["kid"])), typ=("doctor+jwt",))  # type: ignore[misc]
            signed += 1
    return f"{signed} keys opened, signed and verified"


def _clients(world: World, reader: Reader) -> str:
    if names := trust.list_exempt_names(reader):
        words = f"tokens of {_join_names(names)} need no key: a stolen token can be used"
        if holders := trust.secret_holders(reader):
            words += f"; {_join_names(holders)} authenticates with a client secret"
        raise Unprotected(words, hint="end an exemption: ostiary agent forbid-bearer NAME --resource RESOURCE")
    return "every token of an agent is bound to its key"


def _peps(world: World, reader: Reader) -> str:
    ending, unused, count = trust.examine_peps(reader, now=world.now())
    if ending:
        raise Unprotected(
            f"API keys of {_join_names(ending)} end within 14 days", hint="issue new keys: ostiary pep rotate NAME"
        )
    if unused:
        raise Unprotected(
            f"API keys of {_join_names(unused)} were not used in a week",
            hint="revoke unused PEPs: ostiary pep revoke NAME",
        )
    return f"gateways with API keys: {count}; no key ends within 14 days" if count else "no gateway has an API key"


def _secrets(world: World, reader: Reader) -> str:
    """Decrypt the keys of the secret store again, unless the secrets are sealed."""
    status = secrets.read_status(reader)
    if status.is_sealed:
        words = "the secrets are sealed: no value can be read or written"
        raise Unprotected(words, hint="open the seal: ostiary secret unseal --key-file FILE")
    opened = secrets.examine_keys(reader, world.keys)
    return f"wrapping keys opened: {opened}" if opened else "no secret is stored"


def _words(world: World, reader: Reader) -> str:
    """Report the agents that may state the words of their persons, because a manipulated agent could
    state any words.
    """
    if names := registry.list_speakers(reader):
        words = f"the agents {_join_names(names)} may state what their person said, for which there is no proof"
        raise Unprotected(words, hint="withdraw the permission: ostiary agent forbid-words NAME")
    return "no agent may state what its person said: only persons and administrators may"


def _join_names(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


async def _replay_memory(world: World) -> str:
    if not await trust.are_proofs_durable(world):
        raise Conflict(
            "a used DPoP proof is not stored on the disk",
            hint="after a restart the server would accept the proof again: see the log of the server",
        )
    return "a used DPoP proof is refused also after a restart"


def _ledger(world: World, reader: Reader) -> str:
    """Check that the head is signed and follows from the stored hashes, and that the newest entries hash to their
    leaves. Raises Conflict otherwise.
    """
    frontier, note = ledger.get_head(reader)
    key = ledger.get_log_key(reader, world.keys)
    checkpoint = open_checkpoint(note.encode(), [key], origin=key.name)
    rows = ledger.get_hash_reader(reader)
    root = tree_root(frontier.size, hashes_from(rows))
    if (checkpoint.size, checkpoint.root) != (frontier.size, root):
        raise Conflict(
            "the stored hashes do not lead to the signed checkpoint", hint="verify the ledger: ostiary audit verify"
        )
    start = max(0, frontier.size - NEWEST)
    for offset, body in enumerate(ledger.list_entry_bodies(reader, start, NEWEST)):
        if leaf_hash(body) != rows(0, start + offset, 1)[0]:
            raise Conflict(
                f"the stored entry {start + offset} does not match its hash",
                hint="verify the ledger: ostiary audit verify",
            )
    return f"checkpoint of {checkpoint.size} entries verified, the newest {frontier.size - start} hashed again"


def _policy(world: World, reader: Reader) -> str:
    """Check that the active set follows from its files, and passes its own tests. Raises Conflict if not, Unprotected
    if the set leaves out safeguards.
    """
    active = policy.active_policies(reader)
    _, files = policy.show_set(reader, active.hash)
    loaded = load(files)
    if loaded.hash != active.hash:
        raise Conflict(
            f"the files of policy set {active.hash} differ from the files that were put",
            hint="put the set again: ostiary policy put FOLDER",
        )
    if left_out := policy.plan_activation(reader, active.hash).left_out:
        raise Unprotected(
            f"safeguards of the server that do not apply: {', '.join(left_out)}",
            hint="to apply a safeguard again, remove its name from the `*.safeguards.toml` of the set",
        )
    return f"{loaded.tests} tests of the active set {active.hash[:12]} passed"


def _elevations(world: World, reader: Reader) -> str:
    if broken := approvals.broken_glass(reader, now=world.now()):
        raise Unprotected(
            "; ".join(broken), hint="list and end elevations: ostiary elevation list; ostiary task end TASK"
        )
    return "no emergency access is in use"


def _webhooks(world: World, reader: Reader) -> str:
    hint = "look at the receiver: ostiary webhook list"
    if wrong := notifications.describe_problems(reader, now=world.now()):
        raise Conflict("; ".join(wrong[:3]), hint=hint)
    count, lost = notifications.describe_lost(reader)
    if lost:
        raise Unprotected("; ".join(lost[:3]), hint=hint)
    return f"webhooks with all events received: {count}" if count else "no webhook is configured: ostiary webhook add"


def _trust_domains(world: World, reader: Reader) -> str:
    if old := trust_domains.troubles(reader, now=world.now()):
        raise Unprotected(f"old trust bundles: {'; '.join(old[:3])}", hint="show the errors: ostiary trust-domain list")
    count = len(list_trust_domains(reader))
    return f"trust domains with a fresh bundle: {count}" if count else "no other trust domain is federated"


def _threats(world: World, reader: Reader) -> str:
    count, old = threats.describe_problems(reader, now=world.now())
    if old:
        raise Unprotected(f"old threat lists: {'; '.join(old[:3])}", hint="show the errors: ostiary threats list")
    return f"fresh threat lists: {count}" if count else "no threat list: ostiary threats add"


async def _queues(world: World) -> str:
    """Check that the queues in memory and at guards are short. Raises Conflict for a queue that is too long. Webhooks
    and signal streams have separate lines.
    """
    acts, streams = world.writer.waiting, world.get_singleton(Streams)
    if acts >= MAX_ACTS:
        raise Conflict(
            f"acts waiting to be written: {acts}",
            hint="the database is slow: check its disk and the load of its machine",
        )
    if problems := streams.troubles():
        raise Conflict(
            "; ".join(problems[:3]),
            hint="a guard with a full spool denies every call: read the logs of the guard and the server",
        )
    return f"acts waiting to be written: {acts}; connected guards that deliver their records: {len(streams.connected)}"


async def _loops(world: World) -> str:
    return world.get_singleton(Rounds).examine()


EXPERIMENTS: tuple[tuple[str, Callable[[World], Awaitable[str]]], ...] = (
    ("root key", _root_key),
    ("server keys", _reading(_keys)),
    ("data folder", _data_folder),
    ("public URL", _public_url),
    ("certificates", _reading(_certificates)),
    ("HSM", _hsm),
    ("server time", _reading(trust.examine_clock)),
    ("clients", _reading(_clients)),
    ("API keys", _reading(_peps)),
    ("words", _reading(_words)),
    ("secrets", _reading(_secrets)),
    ("replay memory", _replay_memory),
    ("ledger", _reading(_ledger)),
    ("history", _reading(ledger.examine_history)),
    ("state", state.describe_state),
    ("pages", pages.describe_pages),
    ("policy", _reading(_policy)),
    ("elevations", _reading(_elevations)),
    ("incidents", _reading(lambda _, reader: incidents.examine(reader))),
    ("webhooks", _reading(_webhooks)),
    ("threat lists", _reading(_threats)),
    ("trust domains", _reading(_trust_domains)),
    ("detectors", _detectors),
    ("signals", _reading(lambda world, reader: issuers.examine(reader, now=world.now()))),
    ("queues", _queues),
    ("loops", _loops),
    ("disk", disk.examine_disk),
)


async def _ledger_deeply(world: World) -> str:
    """Check the ledger as usual, then compare the values that searches use with the entries."""
    return f"{await _reading(_ledger)(world)}; {await ledger.check_indexes(world)}"


DEEP = {"ledger": _ledger_deeply, "state": state.check_deeply, "pages": pages.check_pages_deeply}
"""Experiments that read the whole ledger and database. Each replaces the experiment with the same name."""

ROUTES = (
    Route(
        "GET",
        "/api/v1/doctor",
        doctor,
        READ,
        answers={200: DoctorBody},
        query=(Query("deep", "`true` also reads the whole ledger and database.", Literal["true", "false"]),),
    ),
)
