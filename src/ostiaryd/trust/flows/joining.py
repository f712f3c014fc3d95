"""Join tokens: a join token is a secret with which a workload registers the first key of its agent, once.

The server shows the token once, and stores only its SHA-256.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from hashlib import sha256

from ostiary.protocol import jose
from ostiary.protocol.errors import Conflict, Invalid, Unauthenticated
from ostiaryd.ground.process.ids import new_secret
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Agent, AgentKey, AgentState
from ostiaryd.trust import store
from ostiaryd.trust.model import AHEAD, ENROL_TYP, LONGEST_ASSERTION, SECOND

DEFAULT_LIFETIME_S = 3600
LONGEST_LIFETIME_S = 86_400


class InvalidJoin(Unauthenticated):
    """The join token is unknown, used, replaced or expired. The error does not say which of these."""

    code = "invalid_join_token"


@dataclass(frozen=True, slots=True)
class JoinToken:
    """A new join token, which is shown once; `agent` is an id, `expires_at` in microseconds."""

    agent: str
    secret: str = field(repr=False)
    expires_at: int


def create_join_token(act: Act, id_or_name: str, *, lifetime_s: int = DEFAULT_LIFETIME_S) -> JoinToken:
    """Create a join token for a pending agent (id or name), and return it. Earlier unused tokens of the agent are
    deleted.

    Raises NotFound for an unknown agent; Invalid if the lifetime is not 1 second to 24 hours; Conflict if the agent is
    not pending.
    """
    agent = registry.find_agent(act.tx, id_or_name)
    registry.fill_entry(act, object=agent.agent_id, owner=agent.owner, name=agent.name, seconds=lifetime_s)
    if not 1 <= lifetime_s <= LONGEST_LIFETIME_S:
        raise Invalid(f"a join token must be valid for 1 to {LONGEST_LIFETIME_S} seconds")
    _check_pending(agent)
    secret = jose.b64u(new_secret(act.tx.random))
    expires_at = act.now + lifetime_s * SECOND
    store.join_tokens.drop_join_tokens(act.tx, agent.agent_id)
    store.join_tokens.add_join_token(act.tx, _digest(secret), agent=agent.agent_id, expires_at=expires_at)
    return JoinToken(agent.agent_id, secret, expires_at)


def enrol(act: Act, unverified_secret: str, jwk: object, *, unverified_proof: str, issuer: str) -> AgentKey:
    """Redeem a join token: register the key `jwk`, activate the agent, and return the registered key.

    Raises InvalidJoin for the join token, InvalidKey for the key; Conflict if the agent is not pending or the key is
    taken; InvalidToken if the proof does not show that the caller has the private key.
    """
    key = jose.parse_public_jwk(jwk)
    _check_proof(unverified_proof, key, unverified_secret, issuer=issuer, now=act.now)
    agent = store.join_tokens.use_join_token(act.tx, _digest(unverified_secret))
    if agent is None:
        raise InvalidJoin(
            "the join token is unknown, was used, or has expired",
            hint="create another join token: ostiary agent join-token NAME",
        )
    act.entry.agent = agent
    _check_pending(registry.find_agent(act.tx, agent))
    return registry.add_key(act, agent, dict(key.jwk))


def _check_pending(agent: Agent) -> None:
    if agent.state is not AgentState.PENDING:
        raise Conflict(
            f"the agent `{agent.name}` is {agent.state}, not pending",
            hint=f"a join token registers the first key; add another key: ostiary key add {agent.name}",
        )


def _check_proof(unverified_proof: str, key: jose.PublicKey, secret: str, *, issuer: str, now: int) -> None:
    """Check the proof of a join request. Raises InvalidToken if it is not valid.

    The proof is a JWT of type `enrol+jwt`, signed with the new key, for this server, valid for at most five minutes.
    Its claim `jth` is the SHA-256 of the join token.
    """
    claims = jose.verify_jwt(
        unverified_proof,
        key_for=lambda _: key,
        typ=(ENROL_TYP,),
        now=now,
        audience=issuer,
        required=("aud", "iat", "exp", "jth"),
        leeway=AHEAD,
    )
    begins, ends = jose.numeric_date(claims, "iat"), jose.numeric_date(claims, "exp")
    if ends > begins + LONGEST_ASSERTION:
        raise jose.InvalidToken("the lifetime of the proof is more than five minutes")
    if now >= ends:  # the leeway is for a clock that is ahead; an expired proof is refused without leeway
        raise jose.InvalidToken("the proof has expired")
    jth = claims["jth"]
    if not isinstance(jth, str) or not hmac.compare_digest(jth.encode(), jose.b64u(_digest(secret)).encode()):
        raise jose.InvalidToken("the proof is for another join token (`jth`)")


def _digest(secret: str) -> bytes:
    return sha256(secret.encode()).digest()
