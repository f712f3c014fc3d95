"""Remote policies: Rego, evaluated in a confined process, and policies of an OPA server, evaluated by its API (`POST
/v1/data/PATH`).

An act never waits for the network. The request is evaluated once before its act, to find the questions for remote
policies; they are asked, and the act uses the verdicts (`ask_ahead`). A question that first appears during the act,
because some fact has changed, has no verdict, and its policies fail. An act that does more than evaluate cannot be
evaluated before. If such an act needs a verdict, it is undone, the question is asked, and the act runs again
(`act_with_answers`).
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from decimal import Decimal, InvalidOperation
from functools import partial
from importlib.util import find_spec
from queue import LifoQueue
from typing import TypeVar

import msgspec

from ostiary.decision.access import PolicyResult, RemoteAnswers, fail_all
from ostiary.decision.access.remote_policies import MAX_SAID, RemoteVerdict
from ostiary.protocol.decoding import json_decoder
from ostiary.protocol.errors import Invalid, Malformed, Refused, Unavailable
from ostiaryd.ground.database import Reader
from ostiaryd.ground.http.edge import Call
from ostiaryd.ground.outbound.fetch import Fetcher
from ostiaryd.ground.process.confined import Confined
from ostiaryd.ground.world import World
from ostiaryd.policy import flows
from ostiaryd.policy.flows.evaluator import Evaluator
from ostiaryd.policy.flows.external_retry import RemotePoliciesNeeded, Retry
from ostiaryd.policy.model import Program, Ready

T = TypeVar("T")
log = logging.getLogger("ostiary")
COMPILE_S = 5.0
POOL = 3
"""Number of processes that evaluate Rego. A slow evaluation occupies one process until its time limit ends it."""
RESERVED = 4 << 30
"""Address space that Go's runtime reserves and does not use, in bytes."""
GO = {"GOMAXPROCS": "2", "GOMEMLIMIT": "384MiB"}
"""Environment of Go's runtime: few threads, since their stacks count as memory, and garbage collection before
the limit.
"""
ALL_S = 2.0
"""Time limit for all Rego evaluations of one request, in seconds."""
MAX_RETRIES = 3
"""Maximum number of runs of an act with verdicts: a token exchange needs verdicts twice, and the active set may change
in between.
"""
_encode = msgspec.json.Encoder().encode
_decode_said = json_decoder(tuple[PolicyResult, ...])
_decode_error = json_decoder(dict[str, str])
_NOT_COMPILED = b"null"
"""Answer of the process to a question whose program it has not compiled, or has replaced by later programs."""


class _Document(msgspec.Struct):
    """The response of OPA. A response without `result` means that the document is undefined."""

    result: msgspec.Raw = msgspec.Raw()


class _Policy(msgspec.Struct):
    permit: bool | None = None
    forbid: bool | tuple[str, ...] | None = None


_decode_document = json_decoder(_Document)
_decode_policy = json_decoder(bool | _Policy)


_ROUND = "round the number, or send it as a string"


def _exact(text: str) -> float:
    number = float(text)
    try:
        is_exact = Decimal(repr(number)) == Decimal(text)
    except InvalidOperation:  # the exponent has more than 18 digits
        is_exact = False
    if not is_exact:
        raise Malformed(f"a 64-bit float cannot represent the number {text[:40]} exactly", hint=_ROUND)
    return number


_LONG_NUMBER = re.compile(rb"[0-9][0-9.]{15}|[eE][+-]?[0-9]{3}")
"""Pattern of numbers that a 64-bit float may change; shorter numbers are always exact."""


class _Rego:
    """A confined process that evaluates Rego, and compiles the programs that it lacks. Only one thread at a time may
    use it.
    """

    def __init__(self) -> None:
        self.confined = Confined("ostiaryd.policy.engines.rego:answer", reserved=RESERVED, environ=GO)

    def ask(self, program: Program, body: bytes, *, within_s: float) -> bytes:
        """Return the answer of the confined OPA process to the request `body`, an encoded question about the policies
        of `program`. Raises Invalid for a program that does not compile, Unavailable if the process fails.
        """
        answer = self.confined.ask(body, within_s=within_s)
        if answer == _NOT_COMPILED:
            self.load(program)
            answer = self.confined.ask(body, within_s=within_s)
        return answer

    def load(self, program: Program) -> None:
        """Compile the Rego policies of a program in the process. Raises Invalid for a program that does not compile,
        Unavailable if the process fails.
        """
        error = _decode_error(self.confined.ask(_encode({"program": program}), within_s=COMPILE_S)).get("error")
        if error is not None:
            lines = (line.strip("\t ^") for line in error[:MAX_SAID].splitlines())
            raise Invalid(f"the Rego of the set does not compile: {'; '.join(filter(None, lines))}")

    def warm(self, program: Program) -> None:
        """Compile a program before its first question arrives, so that this question is not delayed. Raises nothing:
        the first question reports a failure.
        """
        with suppress(Refused):
            self.load(program)


class Engines:
    """The processes (for Rego) and the connection (to an OPA server) by which this server evaluates remote policies:
    the policies of a set that are not Cedar.
    """

    def __init__(self, world: World) -> None:
        config = world.config
        self._limit_s = config.rego_ms / 1000
        self._all = [_Rego() for _ in range(POOL)]
        self._free: LifoQueue[_Rego] = LifoQueue()
        for one in self._all:
            self._free.put(one)
        self._threads = ThreadPoolExecutor(POOL, thread_name_prefix="rego")
        self._opa = Fetcher(config.opa_url) if config.opa_url else None
        self._closed = False

    async def check(self, program: Program) -> None:
        """Check that this server is configured and able to evaluate the Rego and OPA policies of a program. Raises
        Invalid otherwise.
        """
        if program.remote and self._opa is None:
            raise Invalid(
                "the policy set asks a remote OPA server, and none is configured",
                hint="set `opa_url` in the configuration of this server",
            )
        if not program.policies:
            return
        if find_spec("opa_bindings") is None:
            raise Invalid(
                "the policy set has policies in Rego, and OPA's library is not installed on this server",
                hint='pip install "ostiary[server,rego]"; see docs/reference/policies.md',
            )
        try:
            await asyncio.gather(*(self._with_one(lambda rego: rego.load(program)) for _ in self._all))
        except Unavailable as error:
            raise Invalid(f"the Rego of the set cannot be compiled: {error.message}", hint=error.hint) from None

    async def ask(self, program: Program, questions: Iterable[bytes]) -> dict[bytes, RemoteVerdict]:
        """Return the verdicts of all Rego and OPA policies of the program on each question. Raises nothing: a policy
        that fails has an error as its verdict.
        """
        pending = list(questions)
        local = await self._ask_rego(program, pending)
        remote = await asyncio.gather(*(self._ask_opa(program, question) for question in pending))
        return {question: mine + theirs for question, mine, theirs in zip(pending, local, remote, strict=True)}

    async def close(self) -> None:
        """Close all engines. Questions that they evaluate or that wait fail."""
        self._closed = True
        for one in self._all:
            await asyncio.to_thread(one.confined.close)
        self._threads.shutdown(wait=False)  # a cancelled question would end its request without a decision
        if self._opa is not None:
            await self._opa.close()

    async def _with_one(self, work: Callable[[_Rego], T]) -> T:
        """Run `work` on a free process, and return its result. The process that was used last is preferred, because its
        caches are filled. Raises Unavailable after `close`.
        """
        if self._closed:
            raise Unavailable("the process is closed", code="engine_failed")
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._do, work)

    def _do(self, work: Callable[[_Rego], T]) -> T:
        one = self._free.get()
        try:
            return work(one)
        finally:
            self._free.put(one)

    async def _ask_rego(self, program: Program, questions: list[bytes]) -> list[RemoteVerdict]:
        if not program.policies:
            return [()] * len(questions)
        until = asyncio.get_running_loop().time() + ALL_S
        return [await self._ask_one(program, question, until=until) for question in questions]

    async def _ask_one(self, program: Program, question: bytes, *, until: float) -> RemoteVerdict:
        names = dict.fromkeys(program.policies, False)
        if asyncio.get_running_loop().time() > until:
            return fail_all(names, f"the time limit of {ALL_S:g} s is used up")
        body = b'{"hash":"%b","question":%b}' % (program.hash.encode(), question)
        try:
            return await self._with_one(lambda rego: _decode_said(rego.ask(program, body, within_s=self._limit_s)))
        except Refused as error:
            if not self._closed:
                self._threads.submit(self._do, lambda rego: rego.warm(program))
            return fail_all(names, error.message)
        except msgspec.DecodeError:
            return fail_all(names, "no answer")

    async def _ask_opa(self, program: Program, question: bytes) -> RemoteVerdict:
        return tuple([await self._ask_document(policy, path, question) for policy, path in program.remote.items()])

    async def _ask_document(self, policy: str, path: str, question: bytes) -> PolicyResult:
        if self._opa is None:
            return PolicyResult(policy, error="no OPA is configured")
        try:
            body = b'{"input":%b}' % question
            answer = await self._opa.post(f"/v1/data/{path}", body, within_s=self._limit_s)
            document = _decode_document(answer)
            if not document.result:
                return PolicyResult(policy, error="the document is undefined")
            return _policy_result(policy, _decode_policy(document.result))
        except Unavailable as error:
            return PolicyResult(policy, error=error.message)
        except msgspec.DecodeError:
            return PolicyResult(policy, error="the document is not a decision")


def _policy_result(policy: str, document: bool | _Policy) -> PolicyResult:
    if isinstance(document, bool):
        return PolicyResult(policy, permits=document)
    if document.permit is None and document.forbid is None:
        return PolicyResult(policy, error="the document has neither `permit` nor `forbid`")
    forbid = document.forbid or ()
    messages = ("",) if forbid is True else tuple(message[:MAX_SAID] for message in forbid[:16])
    return PolicyResult(policy, bool(document.permit), messages)


class Latest:
    """The active policy set as this process knows it: the set of its latest decision. With it, a request is prepared
    without a read of the database.

    If another process activates another set, this process learns it from its next decision. That decision is denied if
    it needs a verdict of a Rego or OPA policy.
    """

    def __init__(self, world: World) -> None:
        self._ready: Ready | None = None

    def drop_if_replaced(self, hash: str) -> None:
        """Forget the stored set, if `hash` (of the set that made the latest decision) is the hash of another set."""
        if self._ready is not None and self._ready.policies.hash != hash:
            self._ready = None

    def get(self, reader: Callable[[], Reader]) -> Ready:
        """Return the stored set; if there is none, read the active set from the database and store it."""
        if self._ready is None:
            self._ready = flows.active_set(reader())
        return self._ready


async def check_at_start(world: World) -> None:
    """Log an error if this server cannot run the Rego or OPA policies of the active set, for example after an
    upgrade.
    """
    hash = await world.db.scan(flows.active_hash)
    try:
        ready = await world.db.scan(flows.active_set)
        if ready.program is not None:
            await world.get_singleton(Engines).check(ready.program)
    except Refused as error:
        why = f"the active policy set {hash} cannot run, and its enforced policies deny what they decide"
        hint = "repair the cause, or start with --starter-policies and put another set"
        log.error("%s: %s; %s", why, error.message, hint)


def check_numbers(body: bytes) -> None:
    """Check that a 64-bit float can represent each number in the body exactly, because OPA would otherwise get a
    changed number. Raises Malformed otherwise.
    """
    if _LONG_NUMBER.search(body):
        try:
            json.loads(body, parse_float=_exact)
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise Malformed(f"the body is not JSON: {error}") from None
        except ValueError:  # Python parses no integer of more than 4,300 digits
            raise Malformed("a number of the request has too many digits", hint=_ROUND) from None
        except RecursionError:
            raise Malformed("the JSON text is nested too deeply") from None


async def ask_ahead(
    call: Call, evaluate: Callable[[Evaluator], object], *, check: Callable[[bytes], None] = check_numbers
) -> RemoteAnswers | None:
    """Return the verdicts of Rego and OPA policies that an evaluation needs, before the act that decides; None if the
    active set has only Cedar policies.

    First `check` checks the numbers of the body, then the caller is authenticated, then `evaluate` evaluates the
    request, so that the questions for these policies become known.
    """
    world = call.world
    ready = world.get_singleton(Latest).get(world.db.read)
    if ready.program is None:
        return None
    check(call.body)
    await call.prove_first()
    remote = RemoteAnswers(ready.policies, now := world.now())
    evaluate(Evaluator(world.db.read(), ready.policies, now=now, remote=remote, keys=world.keys))
    return await _answer(world, ready, remote)


async def ask_ahead_scanning(call: Call, evaluate: Callable[[Reader, RemoteAnswers], object]) -> RemoteAnswers | None:
    """Return the verdicts of remote policies, as `ask_ahead` does, for an evaluation that may scan the
    database. The caller must be authenticated already.
    """
    world = call.world
    ready = await world.db.scan(flows.active_set)
    if ready.program is None:
        return None
    check_numbers(call.body)
    remote = RemoteAnswers(ready.policies, world.now())
    await world.db.scan(lambda reader: evaluate(reader, remote))
    return await _answer(world, ready, remote)


async def act_with_answers(world: World, run: Callable[[Retry | None], Awaitable[T]]) -> T:
    """Run an act whose policies may be in Rego or OPA. If a verdict of such a policy is missing, obtain it and run the
    act again, up to MAX_RETRIES times.
    """
    retry: Retry | None = None
    for left in reversed(range(MAX_RETRIES)):
        try:
            return await run(retry)
        except RemotePoliciesNeeded as needed:
            ready = await world.db.scan(partial(flows.ready_set, hash=needed.remote.policies.hash))
            retry = Retry(await _answer(world, ready, needed.remote), is_last=left == 0)
    return await run(retry)


async def why_no_token(call: Call, ready: Ready) -> str:
    """Return the reason for which the policy set would deny the caller a new token for the administration API; empty if
    it would not deny it.
    """
    world, remote = call.world, RemoteAnswers(ready.policies, call.world.now())

    def why(remote: RemoteAnswers) -> str:
        return flows.why_no_token(world.db.read(), ready.policies, call.caller, uri=world.config.api, remote=remote)

    reason = why(remote)
    return reason if ready.program is None else why(await _answer(world, ready, remote))


async def ask_remote_policies(world: World, ready: Ready, question: bytes) -> RemoteVerdict:
    """Return the verdicts of the Rego and OPA policies of a set on an encoded question from a guard."""
    assert ready.program is not None
    return (await world.get_singleton(Engines).ask(ready.program, [question]))[question]


async def _answer(world: World, ready: Ready, remote: RemoteAnswers) -> RemoteAnswers:
    """Ask the remote policies of the set the questions that have no verdict; return all verdicts."""
    assert ready.program is not None
    verdicts = await world.get_singleton(Engines).ask(ready.program, remote.missing)
    return RemoteAnswers(ready.policies, remote.at, remote.verdicts | verdicts)


def note_latest(world: World, *hashes: str) -> None:
    """Let this process forget the policy set of its latest decision if one of `hashes` is the hash of another set.
    `hashes`: the sets that have just decided or become active.
    """
    for hash in hashes:
        world.get_singleton(Latest).drop_if_replaced(hash)
