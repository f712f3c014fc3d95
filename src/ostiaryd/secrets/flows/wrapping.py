"""Response wrapping: an answer is stored sealed, and a wrapping token opens it once.

A wrapped answer is a holding below the caller's token: it ends with the token, the task, the agent and the agent's key.
A wrapping token is not bound to an address, because it is made for use on another machine.
"""

from __future__ import annotations

from typing import NamedTuple

from ostiary.protocol.errors import Invalid
from ostiaryd.ground.config import Config
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Holding, HoldingId, Root
from ostiaryd.secrets import store
from ostiaryd.secrets.flows.callers import VaultCaller, token_digest
from ostiaryd.secrets.flows.seal import open_value, seal_value
from ostiaryd.secrets.model.request import SECOND
from ostiaryd.secrets.model.sealing import Place
from ostiaryd.secrets.model.token import TOKEN_PREFIX, render_token
from ostiaryd.secrets.store.wrapping import WrappedAnswer

KIND = "wrapped_answer"
"""Kind under which wrapped answers are stored as holdings."""
MAX_WRAPPED = 1000
"""Maximum number of wrapped answers of one agent at the same time."""
MAX_CONTENT = 256 << 10
"""Maximum number of bytes of a wrapped answer."""
FORGOTTEN_AT_ONCE = 1000


class WrappingRefused(Invalid):
    """The wrapping token is unknown, was used before, has expired or was revoked."""

    code = "wrapping_refused"


class Wrapping(NamedTuple):
    """A new wrapping token, and the stored response of the Vault API (`record`) that the token opens once. The server
    shows the token (`text`) only once.
    """

    text: str
    record: WrappedAnswer

    def __repr__(self) -> str:
        """Return a text with only the accessor of the token, because the token is secret."""
        return f"Wrapping({self.record.accessor})"


def wrap_answer(act: Act, caller: VaultCaller, content: bytes, *, path: str, seconds: int, config: Config) -> Wrapping:
    """Store `content`, the response to a request, for `seconds`, and return the wrapping token that opens it once. The
    stored response ends at the latest with the token of the caller.

    `path`: the path of the wrapped request. Raises Sealed if the secrets are sealed; Invalid if the answer is too long
    or the agent has too many wrapped answers.
    """
    act.check_granting()
    if len(content) > MAX_CONTENT:
        raise Invalid(
            f"the answer has more than {MAX_CONTENT} bytes, which is the limit of a wrapped answer",
            hint="request less data",
            code="too_large",
        )
    agent = caller.agent.agent_id
    if store.wrapping.count(act.tx, agent, limit=MAX_WRAPPED) >= MAX_WRAPPED:
        raise Invalid(
            f"the agent has {MAX_WRAPPED} wrapped answers, which is the limit",
            hint="unwrap some answers, or use shorter times",
        )
    above = registry.get_holding(act.tx, caller.holding)
    assert above is not None  # the caller was authenticated in this act
    holding = Holding(
        id=HoldingId(act.new_id("wr")),
        kind=KIND,
        agent=agent,
        task=caller.task.task_id,
        parent=above.id,
        client_jkt=above.client_jkt,
        audience=config.api,
        expires_at=min(act.now + seconds * SECOND, above.expires_at),
    )
    registry.add_holding(act, holding)
    wrapping = _store(act, content, holding=holding, path=path)
    act.entry.detail = {**(act.entry.detail or {}), "wrapped": wrapping.record.accessor}
    return wrapping


def unwrap_answer(act: Act, unverified_token: str) -> bytes:
    """Return a wrapped answer, and delete it, so that the wrapping token works only once. Raises WrappingRefused if the
    wrapping token is unknown, used or expired, and Sealed while the secrets are sealed.
    """
    digest, wrapped = _find(act, unverified_token)
    content = open_value(act.tx, wrapped.envelope, _place(digest), keys=act.tx.keys)
    store.wrapping.delete(act.tx, digest)
    registry.fill_entry(act, object=wrapped.path, wrapped=wrapped.accessor)
    registry.end_holdings(act, Root.HOLDING, wrapped.holding, why="unwrapped")
    return content


def rewrap_answer(act: Act, unverified_token: str) -> Wrapping:
    """Return a new wrapping token for a wrapped answer, with the same expiry; the old token ends. Raises
    WrappingRefused if the old token is unknown, used or expired, and Sealed while the secrets are sealed.
    """
    digest, wrapped = _find(act, unverified_token)
    content = open_value(act.tx, wrapped.envelope, _place(digest), keys=act.tx.keys)
    store.wrapping.delete(act.tx, digest)
    holding = registry.get_holding(act.tx, wrapped.holding)
    assert holding is not None  # it is live
    again = _store(act, content, holding=holding, path=wrapped.path)
    registry.fill_entry(act, object=wrapped.path, wrapped=again.record.accessor, replaced=wrapped.accessor)
    return again


def find_wrapping(act: Act, unverified_token: str) -> WrappedAnswer:
    """Return the record of a wrapped answer, without deleting it. Raises WrappingRefused if the wrapping token is
    unknown, used or expired.
    """
    _, wrapped = _find(act, unverified_token)
    registry.fill_entry(act, object=wrapped.path, wrapped=wrapped.accessor)
    return wrapped


def _store(act: Act, content: bytes, *, holding: Holding, path: str) -> Wrapping:
    text = render_token(act.tx.random(32))
    digest = token_digest(act.tx.keys, text)
    record = WrappedAnswer(
        holding=holding.id,
        accessor=act.tx.random(16).hex(),
        agent=holding.agent,
        path=path,
        seconds=(holding.expires_at - act.now) // SECOND,
        created_at=act.now,
        expires_at=holding.expires_at,
        envelope=seal_value(act.tx, content, _place(digest)),
    )
    store.wrapping.insert(act.tx, digest, record)
    return Wrapping(text, record)


def _find(act: Act, unverified_token: str) -> tuple[bytes, WrappedAnswer]:
    digest = token_digest(act.tx.keys, unverified_token)
    is_token = unverified_token.startswith(TOKEN_PREFIX) and unverified_token.isascii()
    wrapped = store.wrapping.get(act.tx, digest) if is_token else None
    if wrapped is None:
        raise WrappingRefused(
            "wrapping token is not valid or does not exist", hint="the wrapping token may have been used already"
        )
    act.entry.agent, act.entry.token = wrapped.agent, wrapped.holding
    holding = registry.get_holding(act.tx, wrapped.holding)
    if holding is None or not holding.is_live(act.now):
        raise WrappingRefused("wrapping token is not valid or does not exist", hint="the wrapped answer has ended")
    registry.active_agent(act.tx, wrapped.agent, now=act.now)
    return digest, wrapped


def _place(digest: bytes) -> Place:
    return "sys/wrapping", digest.hex(), 1


async def forget_wrapped(world: World) -> None:
    """Delete wrapped answers that have expired, at most `FORGOTTEN_AT_ONCE` in one call."""
    await world.writer.submit(lambda tx: store.wrapping.prune(tx, limit=FORGOTTEN_AT_ONCE))
