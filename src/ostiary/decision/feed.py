"""The feed of a guard: a stream of lines, each a signed message. A message contains facts, each of which is complete in
itself.

A message is a compact JWS of type `ostiary-feed+jwt`, signed with the server's feed key. It describes the changes from
the number `prev` to the number `seq` in the server's history, and states the server time (`at`):

    opening   for one guard (`aud`) and one connection (`stream`, a random number of the guard): a snapshot, which
              replaces the guard's facts, or, for a guard at `prev`, the facts since then
    step      for every guard, signed once; without facts it only shows that the server is alive
    private   for the guards of one resource (`aud`), right after the step that announces it in `private`

Because of `stream`, an attacker cannot replay a stream; because of `prev` and `private`, the attacker cannot reorder or
omit messages; because of `at`, a delayed message does not count as fresh.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from ostiary.decision.access.restrictions import RestrictionKind
from ostiary.decision.access.stops import What
from ostiary.protocol import canonical
from ostiary.protocol.checkpoint import parse_checkpoint
from ostiary.protocol.decoding import convert
from ostiary.protocol.errors import Malformed
from ostiary.protocol.jose import InvalidToken, JwkSet, PrivateKey, sign_jwt, unb64u, verify_jws
from ostiary.protocol.note import parse_note
from ostiary.provenance.noticing.risk import MOST, SCALE

TYP = "ostiary-feed+jwt"
SCOPE = "ostiary:feed"
MAX_LINE_BYTES = 64 << 20
"""Maximum size of a line: enough for a snapshot with policies, catalogue, and a few hundred thousand exceptions."""
MAX_DEPTH = 256  # policies nest
MAX_EXEMPT = 1000
"""Maximum number of agents whose bearer tokens the guards of one resource accept."""
MAX_LEARNED = 1024
"""Maximum number of learned arguments of one resource."""
MAX_STOPS = 1000
"""Maximum number of messages with stops that a guard delivers at once."""
MAX_STOPS_BYTES = 768 << 10
"""Maximum size in bytes of the messages with stops that a guard delivers at once, below the server's default limit of a
request.
"""
HEARTBEAT_HEADER = "ostiary-heartbeat-ms"
"""Header of the response with the stream: the interval of its heartbeats, in milliseconds."""
HEAD_BYTES = 4064
"""Number of bytes for the checkpoint in the file in which a guard keeps it; the SHA-256 of these bytes follows."""

Id = Annotated[str, Meta(min_length=1, max_length=256)]
Micros = Annotated[int, Meta(ge=0, le=1 << 53)]


class _Fact(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag_field="kind"):
    pass


class AgentFact(_Fact, frozen=True, tag="agent"):
    """A fact about an agent: its tokens with an epoch lower than `epoch` are revoked; if `state` is not active, all its
    tokens are revoked. `until`: see `TaskFact`.
    """

    agent: Id
    state: Id
    epoch: Annotated[int, Meta(ge=0)]
    until: Micros


class TaskFact(_Fact, frozen=True, tag="task"):
    """The end of a task. After the time `until` (microseconds), all tokens of the task have expired, and the fact may
    be deleted.
    """

    task: Id
    until: Micros


class TokenFact(_Fact, frozen=True, tag="token"):
    """A feed fact: one token, named by its `jti`, is revoked."""

    jti: Id
    until: Micros


class KeyFact(_Fact, frozen=True, tag="key"):
    """A feed fact: all tokens that are bound to a key are revoked. The key is named by its thumbprint."""

    jkt: Id
    until: Micros


class RiskFact(_Fact, frozen=True, tag="risk"):
    """The risk score of the agent or the task `subject`: `millis` thousandths of a point at the time `at`
    (microseconds).
    """

    subject: Id
    millis: Annotated[int, Meta(ge=0, le=MOST * SCALE)]
    at: Micros


class RestrictionFact(_Fact, frozen=True, tag="hold"):
    """A restriction of an agent: see `ostiary.decision.access.Restriction`. If the time `until` has passed, the
    restriction was lifted or has expired.
    """

    agent: Id
    hold: RestrictionKind
    limit: Annotated[int, Meta(ge=0, le=1 << 53)]
    since: Micros
    until: Micros


class SecretUseFact(_Fact, frozen=True, tag="secret_use"):
    """An egress proxy has put a secret into requests of an agent. Before the time `until` (microseconds), the server
    searches the arguments of the agent's calls for the secret.
    """

    agent: Id
    until: Micros


class ThreatFact(_Fact, frozen=True, tag="threats"):
    """The present content of a threat list (`ostiary.provenance.noticing.threats`): its marks (hashed indicators),
    concatenated. If `marks` is empty, the list was removed.
    """

    id: Id
    name: Id
    points: Annotated[int, Meta(ge=1, le=MOST)]
    marks: str
    """marks, in base64url"""
    networks: Annotated[list[tuple[int, int]], Meta(max_length=256)] = []


class StopFact(_Fact, frozen=True, tag="stop"):
    """A stop of the kill switch, or its end (`is_lifted`): of all tokens that contain the name `value` of the kind
    `stop_kind`, such as a model or an owner.
    """

    stop_kind: What = msgspec.field(name="what")
    value: Annotated[str, Meta(max_length=1024)]
    is_lifted: bool = False


class ProfileFact(_Fact, frozen=True, tag="profile"):
    """The usual behaviour of an agent at the guard's own resource: `ostiary.provenance.noticing.Profile`, packed, in
    base64url.
    """

    agent: Id
    profile: Annotated[str, Meta(max_length=1024)]


class ResourceFact(_Fact, frozen=True, tag="resource", kw_only=True):
    """The present state of the guard's own resource. `catalogue` is its JSON text."""

    resource_id: Id
    name: Id
    uri: Id
    mode: Literal["enforce", "watch"]
    segment: Id
    catalogue: str | None = None
    exempt: Annotated[list[Id], Meta(max_length=MAX_EXEMPT)] = []
    """agents whose bearer tokens the guard accepts"""
    exempt_classes: list[Literal["document", "dynamic"]] = []
    """classes of registration whose bearer tokens the guard accepts"""
    learned: Annotated[list[tuple[Id, Id]], Meta(max_length=MAX_LEARNED)] = []
    """arguments (tool, path) whose values are keys of records: `ostiary.provenance.sources`"""


class PolicyFact(_Fact, frozen=True, tag="policy"):
    """The active policies as JSON of `cedar.ir`, and the hash by which decisions and tokens name them.

    `entities` are the entities of the set, in Cedar's JSON; empty if there are none. `remote` are the remote policies,
    with whether each only watches.
    """

    hash: str
    policies: str
    entities: str = ""
    remote: dict[str, bool] = msgspec.field(default_factory=dict, name="elsewhere")


class KeysFact(_Fact, frozen=True, tag="keys"):
    """JWK Sets: the keys of access tokens, and the keys of this feed."""

    token: list[dict[str, str]]
    feed: list[dict[str, str]]


Fact = (
    AgentFact
    | TaskFact
    | TokenFact
    | KeyFact
    | RiskFact
    | RestrictionFact
    | SecretUseFact
    | StopFact
    | ThreatFact
    | ProfileFact
    | ResourceFact
    | PolicyFact
    | KeysFact
)


class Message(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    iss: str
    prev: Annotated[int, Meta(ge=0)]
    seq: Annotated[int, Meta(ge=0)]
    at: Micros
    facts: list[Fact] = []
    private: list[str] = []
    """ids of resources whose guards get a `private` message directly after this message"""
    aud: str = ""
    stream: str = ""
    snapshot: bool = False
    head: Annotated[str, Meta(max_length=4096)] = ""
    """signed checkpoint of the ledger at the time of the message, with which a guard detects that the server lost
    entries
    """


def render_message(key: PrivateKey, message: Message) -> bytes:
    """Return a message as a line of the stream."""
    return sign_jwt(key, typ=TYP, claims=message).encode() + b"\n"


def parse_message(unverified_line: bytes, *, keys: JwkSet) -> Message:
    """Return the message in a line, after verifying that one of `keys` signed it. The caller must check that the
    message is fresh and continues the stream. Raises InvalidToken for an invalid signature, Malformed for a malformed
    message.
    """
    try:
        unverified_token = unverified_line.removesuffix(b"\n").decode("ascii")
    except UnicodeDecodeError:
        raise InvalidToken("a line of the feed is not ASCII") from None
    payload = verify_jws(unverified_token, key_for=keys.key_for, typ=(TYP,), max_bytes=MAX_LINE_BYTES).payload
    value = canonical.parse(payload, max_bytes=MAX_LINE_BYTES, max_depth=MAX_DEPTH)
    try:
        return convert(value, Message)
    except msgspec.ValidationError as error:
        raise Malformed(f"a message of the feed: {error}") from None


def stops_in(message: Message) -> dict[tuple[str, str], Fact]:
    """Return the facts of a message that stop an agent, task, token, key or kill-switch subject, or that lift such a
    stop, by (kind of fact, subject).
    """
    stops: dict[tuple[str, str], Fact] = {}
    for fact in message.facts:
        match fact:
            case AgentFact():
                stops["agent", fact.agent] = fact
            case TaskFact():
                stops["task", fact.task] = fact
            case TokenFact():
                stops["token", fact.jti] = fact
            case KeyFact():
                stops["key", fact.jkt] = fact
            case StopFact():
                stops["stop", f"{fact.stop_kind} {fact.value}"] = fact
    return stops


def announced_keys(message: Message) -> JwkSet | None:
    """Return the keys of the feed after a rotation, from the message that announces it; None for any other message.

    The old key has signed the message, so a server that lost the new key can verify signatures of the new key. Raises
    Malformed for a malformed message.
    """
    if message.snapshot:
        return None
    return next((JwkSet.parse({"keys": fact.feed}) for fact in message.facts if isinstance(fact, KeysFact)), None)


def unverified_message(line: bytes) -> Message:
    """Return the message of a line without verifying its signature, for lines that were verified before they were
    stored. Raises Malformed for other text.
    """
    parts = line.removesuffix(b"\n").split(b".")
    if len(parts) != 3:
        raise Malformed("the feed message does not have three parts, separated by periods")
    value = canonical.parse(unb64u(parts[1].decode("ascii", "replace")), max_bytes=MAX_LINE_BYTES, max_depth=MAX_DEPTH)
    try:
        return convert(value, Message)
    except msgspec.ValidationError as error:
        raise Malformed(f"a message of the feed: {error}") from None


def unverified_place(note: str) -> tuple[str, int]:
    """Return (id of the history, number of entries) in a checkpoint without verifying its signature; ("", 0) if `note`
    is empty.

    No verification is necessary for a checkpoint in a feed message, because the message was signed. Raises Malformed
    for another text.
    """
    if not note:
        return "", 0
    checkpoint = parse_checkpoint(parse_note(note.encode()).text)
    return checkpoint.history, checkpoint.size
