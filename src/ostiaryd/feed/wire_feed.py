"""The feed under /feed/v1: JSON lines of signed messages to guards, and reports and acknowledgements from guards.

A guard authenticates with the key of its resource: the guard gets a token (client_credentials, private_key_jwt, DPoP)
with the scope `ostiary:feed` for the API of this server.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from functools import partial
from typing import Annotated, Any, TypedDict

import msgspec
from msgspec import Meta

from ostiary.decision import approval, asking
from ostiary.decision.access.remote_policies import MAX_QUESTION, RemoteVerdict
from ostiary.decision.feed import HEARTBEAT_HEADER, MAX_STOPS, MAX_STOPS_BYTES, SCOPE
from ostiary.decision.recall import (
    MAX_RECALL,
    Counterparts,
    Happened,
    HistoryVersion,
    Recall,
    Recalled,
    parse_recall,
)
from ostiary.decision.report import Report
from ostiary.decision.slices import Draw, Drawn, GiveBack, GivenBack, Settled
from ostiary.protocol import canonical
from ostiary.protocol.errors import Invalid, Refused
from ostiary.protocol.jose import unb64u
from ostiary.protocol.secret_forms import MAX_SEARCHED, SecretSent
from ostiary.protocol.signed import SignedAnswer, digest, render_answer
from ostiary.provenance import history
from ostiaryd.approvals import flows as approvals
from ostiaryd.feed import flows
from ostiaryd.feed.flows import Streams, take_report
from ostiaryd.ground.database.pin import Head
from ostiaryd.ground.database.writer import isolated
from ostiaryd.ground.http.edge import NO_STORE, Call, Reply, reply
from ostiaryd.ground.http.routes import NOT_FOUND, Content, EmptyBody, Query, Route
from ostiaryd.ledger import flows as ledger
from ostiaryd.policy.flows.external_pdp import ask_remote_policies
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Resource

MAX_ASK = MAX_QUESTION + 1024
MAX_DEPTH = 64
log = logging.getLogger("ostiary")


class Applied(msgspec.Struct, forbid_unknown_fields=True):
    """An acknowledgement: all changes up to `seq` have been in force at the guard for `ago` microseconds.

    `late` is the age of the guard's oldest unreported record in microseconds; `filled` is the fill level of its spool
    in per cent.
    """

    stream: Annotated[str, Meta(max_length=64)]
    seq: Annotated[int, Meta(ge=0)]
    ago: Annotated[int, Meta(ge=0, le=60_000_000)]
    late: Annotated[int, Meta(ge=0, le=1 << 53)] = 0
    filled: Annotated[int, Meta(ge=0, le=1 << 53)] = 0


class FeedKeySet(TypedDict):
    """A JWK Set (RFC 7517 section 5)."""

    keys: list[dict[str, Any]]


class ReplayedBody(TypedDict):
    """`replayed`: the number of stops that were carried out. `unverified`: the number of messages of the lost part of
    the history that no known key has signed.
    """

    replayed: int
    unverified: int


class NextRecord(TypedDict):
    """The number of the record in the guard's spool that the server expects next."""

    next: int


async def jwks(call: Call) -> Reply:
    """Return the public keys that sign the feed."""
    return reply({"keys": [key.jwk for key in call.world.keys.public("feed").values()]})


async def stream(call: Call) -> Reply:
    """Stream the signed messages of the feed, one per line, without end.

    The stream continues after the change `after` if the guard also sends a signed ledger head of the present history of
    the database; otherwise it begins with a snapshot. If the database lacks that head, the server enters recovery. A
    header states the interval of the heartbeats in milliseconds. Raises InRecovery if the guard sends a signed head
    while the server is in recovery.
    """
    resource = registry.find_resource(call.world.db.read(), call.caller.id)
    id, after = call.query_one("stream") or "", call.query_one("after")
    if not 16 <= len(id) <= 64 or not id.isascii():
        raise Invalid("`stream` must have 16 to 64 ASCII characters", hint="send a new random id for each stream")
    if after is not None and not (after.isascii() and after.isdigit() and len(after) < 19):
        raise Invalid("`after` must be a number of up to 18 digits", hint="send the `seq` of the last message")
    head = _signed_head(call, resource)
    if head is not None:
        await ledger.examine_head(call.world, head, source=f"a guard of {resource.name}")
    has_gap = head is None or head.history != ledger.present_history(call.world.db.read())
    lines = call.world.get_singleton(Streams).follow(resource, id, None if after is None or has_gap else int(after))
    beat = (HEARTBEAT_HEADER.encode(), str(call.world.config.feed_heartbeat_ms).encode())
    headers = [NO_STORE, (b"x-accel-buffering", b"no"), beat]
    return Reply(200, lines, media_type="application/jose-lines", headers=headers)


def _signed_head(call: Call, resource: Resource) -> Head | None:
    """Return the ledger head that the guard sends. Return None if the guard sends none or this log has not signed the
    head, since only a signed head is evidence of a loss.
    """
    unverified = call.query_one("head")
    if unverified is None:
        return None
    try:
        return ledger.read_head(unb64u(unverified), reader=call.world.db.read(), keys=call.world.keys)
    except Refused as refusal:
        log.warning("a guard of %s sent a ledger head that this log has not signed: %s", resource.name, refusal.message)
        return None


class Stops(msgspec.Struct, forbid_unknown_fields=True):
    """Signed messages of the feed with stops, which a guard has kept."""

    messages: Annotated[list[Annotated[str, Meta(max_length=MAX_STOPS_BYTES)]], Meta(max_length=MAX_STOPS)]


async def stops(call: Call) -> Reply:
    """Replay the stops that a guard has kept and that the database has lost.

    `replayed` is the number of stops that were carried out; `unverified` is the number of messages of the lost part of
    the history that no known key has signed.
    """
    body = call.json(Stops)
    done = await flows.replay_messages(
        call.world,
        [line.encode() for line in body.messages],
        resource_id=call.caller.id,
        source=f"a guard of {call.caller.name}",
    )
    return reply({"replayed": done.replayed, "unverified": done.unverified}, headers=[NO_STORE])


async def report(call: Call) -> Reply:
    """Accept the records of a guard; `next` is the number of the record that the server expects next.

    A repeated report changes nothing.
    """
    body = call.json(Report)
    following = await registry.act_as(
        call, "feed.report", lambda act: take_report(act, body, resource_id=call.caller.id)
    )
    return reply({"next": following}, headers=[NO_STORE])


async def applied(call: Call) -> Reply:
    """Acknowledge that all changes up to `seq` are in force at a guard."""
    body = call.json(Applied)
    streams = call.world.get_singleton(Streams)
    streams.note_applied(call.caller.id, body.stream, body.seq, ago=body.ago)
    streams.note_records(body.stream, late=body.late, filled=body.filled)
    return reply({}, headers=[NO_STORE])


async def draw(call: Call) -> Reply:
    """Draw units of budgets for a call.

    For each budget, `total` is the number of units that the guard has now, `left` the number that remains for other
    guards.
    """
    body = call.json(Draw)
    drawn = await registry.act_as(call, "budget.draw", lambda act: flows.draw(act, body, resource_id=call.caller.id))
    return reply(drawn, headers=[NO_STORE])


async def give_back(call: Call) -> Reply:
    """Give back unused units of budgets; `closed` lists the budgets of which the guard has no units left."""
    body = call.json(GiveBack)
    back = await registry.act_as(
        call, "budget.give_back", lambda act: flows.give_back(act, body, resource_id=call.caller.id)
    )
    return reply(back, headers=[NO_STORE])


async def settle(call: Call) -> Reply:
    """Close a spool whose records are all reported, and return its unused units to their budgets."""
    body = call.json(Settled)
    await registry.act_as(
        call,
        "budget.settle",
        lambda act: flows.settle(act, body.spool, last_record=body.last_record, resource_id=call.caller.id),
    )
    return reply({}, headers=[NO_STORE])


async def ask(call: Call) -> Reply:
    """Evaluate, for one call, the policies that the guard cannot run.

    The signed answer is valid only for this request.
    """
    call.expect("application/json")
    world, resource_id = call.world, call.caller.id
    canonical.parse(call.body, max_bytes=MAX_ASK, max_depth=MAX_DEPTH)  # no member twice
    request, question = asking.parse_ask(call.body)
    verdict: RemoteVerdict = ()
    with suppress(Refused):  # the act below raises the same refusal, and records it
        reader = world.db.read()
        ready = flows.check_ask(reader, request, question, resource_id=resource_id, now=world.now())
        verdict = await ask_remote_policies(world, ready, bytes(request.question))
    await registry.act_as(
        call, "policy.ask", lambda act: flows.note_asked(act, request, question, verdict, resource_id=resource_id)
    )
    return _signed(call, asking.RemotePolicyAnswer(**_to(call), results=verdict))


async def ask_person(call: Call) -> Reply:
    """Request a person's approval of one call, or spend an approval. The signed answer is valid only for this call."""
    call.expect("application/json")
    world, resource_id = call.world, call.caller.id
    canonical.parse(call.body, max_bytes=approval.MAX_ASKED, max_depth=MAX_DEPTH)  # no member twice
    request = approval.parse_ask(call.body)
    id, is_spent = await registry.act_as(
        call,
        "approval.ask",
        lambda act: approvals.ask_about_call(act, request, resource_id=resource_id, config=world.config),
    )
    return _signed(call, approval.ApprovalAnswer(**_to(call), approval=id, state="spent" if is_spent else "open"))


class Paced(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a request to count a call: the token under which the call is made. The agent, or another agent in its
    chain, is throttled.
    """

    token: Annotated[str, Meta(max_length=256)]


async def pace(call: Call) -> Reply:
    """Count one call of a throttled agent; refuse the call if it exceeds the agent's limit."""
    body, id = call.json(Paced), call.caller.id
    await call.world.writer.submit(isolated(lambda tx: flows.count_call(tx, body.token, resource_id=id)))
    return reply({}, headers=[NO_STORE])


class SearchedText(msgspec.Struct, forbid_unknown_fields=True):
    """The token of a call, and the texts in the call's arguments, which the server searches for secrets."""

    token: Annotated[str, Meta(max_length=256)]
    text: Annotated[str, Meta(max_length=MAX_SEARCHED)]


async def find_secret(call: Call) -> Reply:
    """Refuse a text that contains a secret which an egress proxy used for an agent in the chain of the token."""
    body, world, resource_id = call.json(SearchedText), call.world, call.caller.id
    search = partial(
        flows.search_text, token=body.token, text=body.text, resource_id=resource_id, keys=world.keys, now=world.now()
    )
    try:
        await world.db.scan(search)
    except SecretSent as refusal:
        refuse = partial(flows.refuse_secret, token=body.token, refusal=refusal, resource_id=resource_id)
        await registry.act_as(call, "secret.find", refuse)
    return reply({}, headers=[NO_STORE])


async def memory(call: Call) -> Reply:
    """Add the results of a tool to the task's memory as hashed words, or read the memory.

    The response contains the memory unless the guard has its newest version. A request with `past` instead reads the
    history of allowed calls, or adds a call to the history.
    """
    call.expect("application/json")
    world, resource_id = call.world, call.caller.id
    canonical.parse(call.body, max_bytes=MAX_RECALL, max_depth=MAX_DEPTH)  # no member twice
    query = parse_recall(call.body)
    if query.past is not None:
        return await _past(call, query, query.past)
    if query.parts:
        remembered = await registry.act_as(
            call, "task.observe", lambda act: flows.add_outputs(act, query, resource_id=resource_id)
        )
    else:
        remembered = flows.recall(world.db.read(), query, resource_id=resource_id, keys=world.keys, now=world.now())
    is_known = remembered.seq == query.seq + bool(query.parts)
    body = None if is_known else remembered.body
    return _signed(call, Recalled(**_to(call), seq=remembered.seq, key=remembered.memory.key, body=body))


async def _past(call: Call, query: Recall, version: HistoryVersion) -> Reply:
    """Read the history of the task and agent, or add a call to the history, and return the history."""
    world, resource_id, is_taken = call.world, call.caller.id, True
    if query.next is None and not query.made:
        prior = flows.past(world.db.read(), query, resource_id=resource_id, keys=world.keys, now=world.now())
    else:
        telling = isolated(lambda tx: flows.happen(tx, query, resource_id=resource_id))
        prior, is_taken = await world.writer.submit(telling)
    met = _counterparts(prior, version=version.met)
    happened = Happened(history.pack_history(prior.task), history.pack_history(prior.recent), prior.day, is_taken, met)
    return _signed(call, Recalled(**_to(call), seq=prior.seq, key=prior.key, past=happened))


def _to(call: Call) -> dict[str, Any]:
    """Return the claims that bind a signed answer to this request: the issuer, the guard, and the digest of the
    request's body.
    """
    return {"iss": call.world.config.issuer, "aud": call.caller.id, "question_digest": digest(call.body)}


def _signed(call: Call, answer: SignedAnswer) -> Reply:
    signed = render_answer(call.world.get_singleton(Streams).key, answer)
    return Reply(200, signed, media_type="application/jwt", headers=[NO_STORE])


def _counterparts(prior: history.PriorHistory, *, version: int) -> Counterparts | None:
    """Return the key and the packed list of the owner's counterparts. The list is None if the guard already has this
    version; the result is None if no policy reads counterparts.
    """
    if prior.met is None:
        return None
    body = (
        None
        if prior.met.counterparts.seq == version
        else history.counterparts.pack_counterparts(prior.met.counterparts)
    )
    return Counterparts(prior.met.key, body)


JWT = Content(media_types=("application/jwt",))
STREAM_QUERY = (
    Query("stream", "Random id of the stream, chosen by the guard: 16 to 64 ASCII characters.", is_required=True),
    Query("head", "The signed checkpoint that the guard received last (base64url)."),
    Query("after", "The `seq` of the last message that the guard received.", int),
)

ROUTES = (
    Route("GET", "/feed/v1/jwks", jwks, "", answers={200: FeedKeySet}),
    Route(
        "GET",
        "/feed/v1/stream",
        stream,
        SCOPE,
        errors=(NOT_FOUND,),
        streams=True,
        answers={200: Content(media_types=("application/jose-lines",))},
        query=STREAM_QUERY,
    ),
    Route("POST", "/feed/v1/stops", stops, SCOPE, reports=True, body=Stops, answers={200: ReplayedBody}),
    Route(
        "POST", "/feed/v1/report", report, SCOPE, reports=True, body=Report, is_large=True, answers={200: NextRecord}
    ),
    Route("POST", "/feed/v1/applied", applied, SCOPE, body=Applied, stops=True, answers={200: EmptyBody}),
    Route(
        "POST",
        "/feed/v1/ask",
        ask,
        SCOPE,
        grants=True,
        is_large=True,
        body=asking.RemotePolicyRequest,
        answers={200: JWT},
    ),
    Route(
        "POST",
        "/feed/v1/approval",
        ask_person,
        SCOPE,
        grants=True,
        is_large=True,
        body=approval.ApprovalRequest,
        answers={200: JWT},
    ),
    Route("POST", "/feed/v1/pace", pace, SCOPE, body=Paced, answers={200: EmptyBody}),
    Route(
        "POST", "/feed/v1/find-secret", find_secret, SCOPE, is_large=True, body=SearchedText, answers={200: EmptyBody}
    ),
    Route("POST", "/feed/v1/memory", memory, SCOPE, is_large=True, body=Recall, answers={200: JWT}),
    Route("POST", "/feed/v1/draw", draw, SCOPE, body=Draw, grants=True, answers={200: Drawn}),
    Route("POST", "/feed/v1/give-back", give_back, SCOPE, reports=True, body=GiveBack, answers={200: GivenBack}),
    Route("POST", "/feed/v1/settle", settle, SCOPE, reports=True, body=Settled, answers={200: EmptyBody}),
)
