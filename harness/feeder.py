"""The server's side of the feed in a test: signed messages, right or wrong as the test states them, and tokens."""

from __future__ import annotations

from typing import Any

import msgspec

from harness.clock import Clock
from ostiary.authorization.cedar import ir
from ostiary.authorization.claims import ACCESS_TYP, AccessClaims, Confirmation
from ostiary.decision.feed import Fact, KeysFact, Message, PolicyFact, ResourceFact, render_message
from ostiary.guard.feed import Feed
from ostiary.protocol import dpop, jose

ISSUER = "https://ostiary.example.org"
URI = "https://files.example.org/mcp"
RESOURCE_ID = "rs_00000000000000000000000000000001"
AGENT = "ag_00000000000000000000000000000001"
TASK = "tk_00000000000000000000000000000001"
STREAM = "a-stream-of-this-test"
TOOLS = (
    '{"resource":"files","tools":['
    '{"name":"read_file","effect":"read","arguments":{"type":"object","properties":{"path":{"type":"string"}}}},'
    '{"name":"write_file","effect":"write"}]}'
)
PERMIT_ALL = ir.PolicySetIR((ir.PolicyIR(id="all", effect="permit"),))
SECOND = 1_000_000


class Feeder:
    """A sender of feed messages to one guard. The keys are made once for all tests."""

    feed_key = jose.generate("EdDSA")
    token_key = jose.generate("ES256")
    agent_key = jose.generate("ES256")

    def __init__(self, clock: Clock, *, feed: Feed | None = None, max_age: float = 5.0, max_skew: float = 2.0) -> None:
        self.clock = clock
        self.seq = self._threw = 0
        self._is_open = False
        self.feed = feed or Feed(
            resource_id=RESOURCE_ID,
            now=clock,
            tick=clock,
            max_age=round(max_age * SECOND),
            max_skew=round(max_skew * SECOND),
        )
        self.begin()

    def begin(self) -> None:
        """Connect the guard anew."""
        self._is_open = False
        self.feed.begin(STREAM, issuer=ISSUER, keys=jose.JwkSet((self.feed_key.public,)))

    def facts(self) -> list[Fact]:
        """Return the facts that a snapshot must have."""
        return [
            ResourceFact(
                resource_id=RESOURCE_ID, name="files", uri=URI, mode="enforce", segment="default", catalogue=TOOLS
            ),
            PolicyFact("hash-of-the-set", ir.render(PERMIT_ALL).decode()),
            KeysFact([dict(self.token_key.public.jwk)], [dict(self.feed_key.public.jwk)]),
        ]

    def message(self, *facts: Fact, **changed: Any) -> Message:
        """Return the message that the guard expects next, with the members in `changed` replaced."""
        right = Message(iss=ISSUER, prev=self.seq, seq=self.seq, at=self.clock(), facts=list(facts))
        if not self._is_open:
            right = msgspec.structs.replace(right, aud=RESOURCE_ID, stream=STREAM)
        return msgspec.structs.replace(right, **changed)

    def line(self, message: Message) -> bytes:
        return render_message(self.feed_key, message).rstrip(b"\n")

    def say(self, *facts: Fact, **changed: Any) -> None:
        """Send the next message to the guard."""
        message = self.message(*facts, **changed)
        self.feed.accept(self.line(message))
        self.said(message)

    def said(self, message: Message) -> None:
        """Record that the guard received the message."""
        self.seq, self._is_open = message.seq, True

    def snapshot(self, *more: Fact, **changed: Any) -> None:
        self.say(*self.facts(), *more, snapshot=True, **changed)

    def claims(self, **changed: Any) -> AccessClaims:
        now = self.clock() // SECOND
        right = AccessClaims(
            iss=ISSUER,
            sub=AGENT,
            client_id=AGENT,
            aud=URI,
            exp=now + 300,
            iat=now,
            jti="tok_1",
            scope="files:read",
            task=TASK,
            cnf=Confirmation(jkt=self.agent_key.public.thumbprint),
            owner="pe_1",
            segment="default",
        )
        return msgspec.structs.replace(right, **changed)

    def token(self, **changed: Any) -> str:
        return jose.sign_jwt(self.token_key, typ=ACCESS_TYP, claims=self.claims(**changed))

    def proof(self, token: str, *, nonce: str | None, key: jose.PrivateKey | None = None, **changed: Any) -> str:
        """Return a DPoP proof for a POST request to the resource."""
        self._threw += 1
        right: dict[str, Any] = {"method": "POST", "uri": URI, "now": self.clock(), "jti": f"proof-{self._threw}"}
        return dpop.make_proof(key or self.agent_key, nonce=nonce, access_token=token, **{**right, **changed})
