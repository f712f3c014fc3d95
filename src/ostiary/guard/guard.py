"""The guard: enforcement inside a tool server. The inputs of a decision are in memory, kept current by the server's
feed.

    guard = Guard("files.guard.json", spool_dir="/var/spool/files")
    caller = guard.verify(authorization=.., proof=.., method="POST", uri="https://files.example/mcp")
    with guard.call(caller, "read_file", {"path": "/srv/reports/q3.txt"}) as call:
        text = read(..)
        call.result(bytes=len(text), records=1)

The guard fails closed: with a stale, broken or missing feed, a wrong clock, a spool that cannot be written, or any
internal error, the guard refuses every call. A guard raises only `Refused` and its subclasses.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, contextmanager
from pathlib import Path
from typing import Any

import httpx2
import msgspec

from ostiary import ambient
from ostiary.authorization.claims import check_certificate
from ostiary.decision import access
from ostiary.decision.feed import ResourceFact
from ostiary.guard.argument_summary import learn_arguments
from ostiary.guard.budgets import BudgetCache
from ostiary.guard.call import Call, Verified, undecided_record
from ostiary.guard.closed import fail_closed
from ostiary.guard.connections import Connection, Connections
from ostiary.guard.decision import CallDecider
from ostiary.guard.drivers import Waits, run, run_async
from ostiary.guard.feed import Feed
from ostiary.guard.link import Link
from ostiary.guard.listing import Listing, Says
from ostiary.guard.networks import BearerNetworks
from ostiary.guard.observing import finish, observe
from ostiary.guard.proofs import NonceNeeded, Proofs, access_token
from ostiary.guard.secret_search import have_used_secrets
from ostiary.guard.server_rpc import RpcRefused
from ostiary.guard.sessions import Sessions
from ostiary.guard.sources import Sources
from ostiary.guard.spool import DEFAULT_LIMIT, new_spool
from ostiary.guard.tokens import Tokens, check_bearer
from ostiary.keys import Credential, load_key
from ostiary.protocol.client_certificate import ClientCertificate
from ostiary.protocol.errors import Invalid, Refused, Unavailable
from ostiary.protocol.jose import InvalidToken

log = logging.getLogger("ostiary.guard")

SECOND = 1_000_000


class Guard:
    """An enforcement point in a tool server. Thread-safe. Start one guard per process; times are in seconds."""

    def __init__(
        self,
        credential: Credential | Path | str,
        *,
        spool_dir: Path | str,
        url: str | None = None,
        max_age: float = 5.0,
        max_skew: float = 2.0,
        spool_limit: int = DEFAULT_LIMIT,
        record_arguments: bool = False,
        learn: bool = False,
        notices: bool = True,
        now: Callable[[], int] = ambient.now,
        tick: Callable[[], int] = ambient.tick,
        random: Callable[[int], bytes] = ambient.random,
    ) -> None:
        """Create a guard. Raises Invalid for the credential of anything but a resource, SpoolFailed if the spool cannot
        be used.

        `credential`: the file of `ostiary resource create --generate-key`. `spool_dir`: the folder for records that the
        server does not have yet. `url`: address of the server, if it differs from the issuer. `max_age`: maximum age of
        the feed, in seconds; more than the server's `feed_heartbeat_ms`, else the guard denies every call. `max_skew`:
        maximum difference between the server's clock and this machine's clock, in seconds. `spool_limit`: maximum size
        of the spool in bytes; a guard with a full spool denies. `record_arguments`: record the arguments of each call,
        texts cut to 100 characters, except arguments of the kind `secret`. `learn`: record a summary of the arguments
        in watch mode, for `ostiary suggest`. `notices`: run detectors on each call before it is decided.
        """
        if not isinstance(credential, Credential):
            credential = load_key(credential)
        if not credential.client_id.startswith("rs_"):
            hint = "register the resource: ostiary resource create NAME --uri URI --generate-key FILE"
            raise Invalid(
                f"a guard needs the credential of a resource, and `{credential.client_id}` is not a resource", hint=hint
            )
        folder = Path(spool_dir) / credential.client_id
        self._spool = new_spool(folder, random=random, boot=ambient.boot(), limit=spool_limit)
        self.feed = Feed(
            resource_id=credential.client_id,
            now=now,
            tick=tick,
            kept=folder / "clock",
            boot=ambient.boot(),
            stops=folder,
            max_age=round(max_age * SECOND),
            max_skew=round(max_skew * SECOND),
        )
        self._now, self._learns = self.feed.clock, learn
        self.connections = Connections()
        self.feed.listeners.append(self.connections.cut_revoked)
        self._tokens = Tokens(now=self._now, leeway=round(max_skew * SECOND))
        self._proofs = Proofs(secret=random(32), now=self._now)
        self._budgets, self.listing = BudgetCache(tick=tick), Listing()
        self._sessions = Sessions() if notices else None
        self._sources = Sources()
        self._link = Link(
            credential,
            url=url,
            feed=self.feed,
            spool=self._spool,
            spool_dir=folder,
            budgets=self._budgets,
            now=now,
            tick=tick,
            random=random,
        )
        self._decider = CallDecider(
            self.feed,
            self._link,
            self._spool,
            self._budgets,
            self.listing,
            self._sources,
            self._sessions,
            BearerNetworks() if notices else None,
            records_arguments=record_arguments,
            learns=learn,
        )

    def start(self, *, wait: float = 5.0) -> Guard:
        """Connect to the server, and wait at most `wait` seconds for the first snapshot. Before the first snapshot,
        every call is refused. Return this guard.
        """
        self._link.start()
        if not self._link.is_current.wait(wait):
            log.warning("no snapshot yet, every call is refused: %s", self._link.trouble)
        return self

    def close(self) -> None:
        """Deliver the remaining records to the server, and disconnect. The guard then refuses every call."""
        self.feed.distrust("the guard is closed")
        self._budgets.close()
        self._link.stop()
        self._spool.close(keep=self._link.budget_client.has_drawn)
        self.feed.clock.save()

    def __enter__(self) -> Guard:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def resource(self) -> ResourceFact:
        """Return the guarded resource, as the server describes it. Raises FeedStale if the guard's copy of the server's
        data is too old.
        """
        return self.feed.current().resource

    def verify(
        self,
        *,
        authorization: str | None,
        proof: str | None,
        method: str,
        uri: str,
        certificate: ClientCertificate | None = None,
    ) -> Verified:
        """Verify the access token and its proof, and return the caller. `authorization` and `proof`: the values of the
        headers `Authorization` and `DPoP`, each of which must occur once; `certificate`: the certificate that the
        client has shown in the TLS handshake (RFC 8705 section 3).

        A bearer token that is bound to no certificate is accepted only from agents and classes of clients that are
        exempt at this resource.

        `uri`: the URI of the request with the public host name of the resource, not the host of the `Host` header.
        Raises Unauthenticated (code `no_credentials`) without a token; InvalidToken for a token that is not valid here;
        NonceNeeded for a missing proof or a proof without a recent nonce, InvalidProof for any other proof that is not
        valid; Unavailable if the feed is too old; KeyUnheard (an Unavailable) for a token that is newer than the feed,
        by a key that the feed has not announced yet.
        """
        with fail_closed():
            scheme, token = access_token(authorization)
            heard_at = self.feed.heard_at  # before the facts, which may include later messages but no earlier ones
            present = self.feed.current()
            principal = self._tokens.principal(token, present, issuer=self.feed.issuer, heard_at=heard_at)
            if principal.claims.cnf is not None:
                check_certificate(principal.claims.cnf, certificate)
            if scheme == "bearer":
                check_bearer(principal.claims, exempt=present.exempt)
                proof = nonce = None
            elif principal.jkt is None:
                raise InvalidToken(
                    "`Authorization: DPoP` was sent with a token that is not bound to a key",
                    hint="request a token with a DPoP proof",
                )
            elif proof is None:
                raise NonceNeeded(self._proofs.nonce())
            else:
                nonce = self._proofs.check(proof, method=method, uri=uri, access_token=token, jkt=principal.jkt)
            caller = Verified(principal, nonce, proof=proof or "")
            self.check_alive(caller)
            return caller

    def check_alive(self, caller: Verified) -> None:
        """Check during a long call that the token of `caller` is still valid: not expired, revoked or stopped. Raises
        InvalidToken if not, Unavailable if the feed is too old to tell.
        """
        with fail_closed():
            if (reason := access.check_liveness(caller.principal, self.feed.current().facts, self._now())) is not None:
                raise InvalidToken(reason.message, hint=reason.hint)

    def serving(self, caller: Verified) -> AbstractAsyncContextManager[Connection]:
        """Return a context in which the request of `caller` is served. The block of the context is cancelled if the
        token is revoked. Raises InvalidToken if the token is not valid any more, FeedStale if the feed is too old to
        tell.
        """
        return self.connections.open(caller, lambda: self.feed.current().facts)

    def decide(self, caller: Verified, tool: str, arguments: Mapping[str, Any], says: Says = None) -> Call:
        """Decide a call, charge its budgets, record the call and return it; the call may be denied. Blocks while the
        server must be asked.

        `says`: function that returns the present definition of the tool; None: the definition in the last `tools/list`
        counts. Raises Unavailable if the feed is too old, the server does not give a needed answer, or the record
        cannot be stored.
        """
        with fail_closed():
            made = self._decider.decide(caller, tool, arguments, says)
            return made if isinstance(made, Call) else run(made)

    async def decide_async(self, caller: Verified, tool: str, arguments: Mapping[str, Any], says: Says = None) -> Call:
        """Decide a call, charge its budgets, record and return it, without blocking the event loop. See `decide`."""
        with fail_closed():
            made = self._decider.decide(caller, tool, arguments, says)
            return made if isinstance(made, Call) else await run_async(made)

    def decide_in_steps(
        self, caller: Verified, tool: str, arguments: Mapping[str, Any], says: Says = None
    ) -> Waits[Call]:
        """Decide a call (`decide`) in steps: yield each wait for the server to a driver (`ostiary.guard.drivers`)."""
        with fail_closed():
            made = self._decider.decide(caller, tool, arguments, says)
            return made if isinstance(made, Call) else (yield from made)

    def have_used_secrets(self, agents: Iterable[str]) -> bool:
        """Return whether calls of these agents must be searched for secrets that a proxy has used for them, by the last
        facts, even if these are too old to decide by. False without facts.
        """
        facts = self.feed.last_facts
        return facts is not None and have_used_secrets(facts, agents, now=self._now())

    def undecided(
        self,
        caller: Verified | None,
        agent: str,
        tool: str,
        arguments: Mapping[str, Any],
        why: Refused,
        *,
        passes: bool,
    ) -> Call:
        """Record a call that could not be decided because of the error `why`, and return the recorded call. `passes`:
        true if the tool runs nevertheless, as in watch mode. `agent`: name of the supposed caller, if there is no
        token. Raises Unavailable if the record cannot be stored.
        """
        with fail_closed():
            principal = None if caller is None else caller.principal
            record = undecided_record(principal, agent, tool, arguments, why, passes=passes, now=self._now())
            if self._learns and passes and (facts := self.feed.last_facts) is not None:
                ready = facts.resource.tools.get(tool)
                record = msgspec.structs.replace(record, arguments=learn_arguments(arguments, ready))
            number = self._spool.append(record)
            self._link.wake_reporter()
            return Call(access.Decision(passes, False, "", (access.Reason(why.code, why.message, why.hint),)), number)

    def observe(self, call: Call, output: object) -> None:
        """Add the output of a call, as a JSON value or as text, to the memory of the call's task, and record the
        objects that the call created. Call this before the output is returned to the agent.

        Nothing is added if the task has no memory, and no objects are recorded for a failed call
        (`call.result(ok=False)`). Raises Withheld if the resource enforces and the memory cannot store the output. The
        output must not be returned then.
        """
        observe(call, output, memories=self._link.memories, sessions=self._sessions, sources=self._sources)

    async def observe_async(self, call: Call, output: object) -> None:
        """Add the output of a call to the memory of its task (`observe`), without blocking the event loop."""
        if call.watched is not None:
            await asyncio.to_thread(self.observe, call, output)

    @contextmanager
    def call(self, caller: Verified, tool: str, arguments: Mapping[str, Any]) -> Iterator[Call]:
        """Decide and record a call, yield it to the block, which runs the tool, and record the outcome after the block.
        Raises Denied if the call is denied, and Unavailable if the call cannot be decided or recorded.
        """
        call = self.decide(caller, tool, arguments)
        call.check()
        try:
            yield call
        except BaseException:
            call.ok = False
            raise
        finally:
            self.finish(call)

    def request(self, method: str, path: str, body: object = None, *, within: float = 5.0) -> bytes:
        """Send a request to the path `/feed/v1/{path}` of the server with the key of this guard, and return the body
        of the answer. Blocks for at most `within` seconds. Raises Forbidden with the server's message, Unavailable if
        the server does not answer.
        """
        rpc = self._link.rpc
        content = b"" if body is None else msgspec.json.encode(body)
        try:
            return rpc.submit(lambda until: rpc.request(method, path, content, until), within).result(within)
        except RpcRefused as refused:
            raise refused.own or Unavailable(refused.message, hint=refused.hint) from None
        except (httpx2.HTTPError, OSError) as error:
            raise Unavailable(f"the server does not answer: {type(error).__name__}", hint="try again") from None

    def finish(self, call: Call) -> None:
        """Record the outcome of an allowed call. The tool has already run; therefore a failure to record is only
        logged.
        """
        if finish(call, spool=self._spool, budgets=self._budgets, now=self._now()):
            self._link.wake_reporter()
