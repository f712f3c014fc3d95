"""Policy sets for administrators: JSON under /api/v1. Times are seconds since the epoch.

Parsing, testing and compiling happen before the act, in a confined process with limits on time and memory.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Literal, NotRequired, TypedDict

import msgspec

from ostiary.protocol.errors import Conflict, Invalid, NotFound
from ostiaryd.ground.http.edge import Call, PreconditionFailed, Reply, reply
from ostiaryd.ground.http.pages import reply_page
from ostiaryd.ground.http.routes import NOT_FOUND, PAGE, Either, PageBody, Query, Route
from ostiaryd.ledger.flows import Act
from ostiaryd.policy import flows, store
from ostiaryd.policy.flows.external_pdp import note_latest, why_no_token
from ostiaryd.policy.flows.loading import load_set
from ostiaryd.policy.model import (
    EvaluationRequest,
    Loaded,
    PolicySet,
    base_schema,
    own_files,
    safeguards_in,
    warnings_about,
)
from ostiaryd.policy.model.plan import Plan
from ostiaryd.policy.wire_authzen import EvaluationResponse, evaluation
from ostiaryd.registry.flows import act_as, fill_entry
from ostiaryd.registry.model import ADMIN, DECIDE, READ

SECOND = 1_000_000
LOCKED_OUT = "under this policy set, you would get no further token for this server: {}"


Flag = Literal["true", "false"]


class NewSet(msgspec.Struct, forbid_unknown_fields=True):
    """A policy set to validate and activate: its files by name. `loses`: the ids of the safeguards of the server that
    the new set may leave out although they apply now.
    """

    files: dict[str, str]
    loses: list[str] = []


class Activation(msgspec.Struct, forbid_unknown_fields=True):
    loses: list[str] = []


class PolicySetBody(TypedDict):
    """A stored policy set."""

    hash: str
    active: bool
    policies: int
    safeguards: int
    tests: int
    created_at: int
    created_by: str | None
    notes: NotRequired[list[str]]
    watching: NotRequired[bool]


class TestedPolicySet(TypedDict):
    """The result of a dry run: the set is valid and was not stored. `plan`: the changes that its activation
    would make.
    """

    hash: str
    active: bool
    policies: int
    safeguards: int
    tests: int
    notes: NotRequired[list[str]]
    plan: NotRequired[Plan]


class ActivationPlan(TypedDict):
    """The changes that the activation of a stored set would make."""

    hash: str
    active: bool
    notes: list[str]
    plan: Plan


class PolicySetDetail(PolicySetBody):
    """A stored policy set with its files and safeguards."""

    files: dict[str, str]
    extends: Any
    left_out: list[str]


class SchemaBody(TypedDict):
    """The schema that every policy set extends, in Cedar's human-readable syntax."""

    schema: str


class UnwatchedBody(TypedDict):
    """The hash of the removed watching set."""

    hash: str | None


async def put_set(call: Call) -> Reply:
    """Validate, test and activate a policy set; with `dry_run` nothing is stored.

    With `whatif` (the ticket of a what-if), the set is refused if more than `max_changes` verdicts would change. A set
    under which the caller would be denied another token is refused without `lock_out`. A set that leaves out a
    safeguard which applies now is refused unless `loses` names the safeguard. With `If-Match: "HASH"`, the set is
    refused if another set than HASH is active. With `watch` the set is not activated: its verdicts are recorded beside
    those of the active set, and enforce nothing.
    """
    dry, locks, watches = (_flag(call, name) for name in ("dry_run", "lock_out", "watch"))
    gate, body = _gate(call), call.json(NewSet)
    loaded = await load_set(call.world, body.files)
    why = await why_no_token(call, loaded.ready)
    plan, unknown = await call.world.db.scan(
        lambda reader: (flows.plan_put(reader, loaded), flows.note_unknown_approvers(reader, loaded))
    )
    messages = warnings_about(loaded) + unknown + [LOCKED_OUT.format(why)] * bool(why)
    if dry:
        return reply(_tested(loaded) | {"notes": messages, "plan": plan})

    if watches:
        _check_watching(loaded, gate)
        kept = await act_as(call, "policy.watch", lambda act: flows.watch(act, loaded, by=call.caller))
        return reply(_render(kept, active=store.active_hash(call.world.db.read())) | {"notes": messages}, status=201)

    def put(act: Act) -> PolicySet:
        fill_entry(act, object=loaded.hash)
        _check_active(act, call)
        flows.check_plan(act, plan, loses=body.loses)
        _check_lock_out(why, locks=locks)
        return flows.put(act, loaded, by=call.caller, gate=gate)

    made = await act_as(call, "policy.put", put)
    note_latest(call.world, made.hash)
    return reply(_render(made, active=made.hash) | {"notes": messages}, status=201, headers=[_etag(made.hash)])


def _check_active(act: Act, call: Call) -> None:
    """Check the header `If-Match` against the active set (RFC 9110 section 13.1.1). Raises PreconditionFailed if the
    header names another set.
    """
    expected = call.header(b"if-match")
    active = store.active_hash(act.tx)
    if expected is not None and not {tag.strip() for tag in expected.split(",")} & {"*", f'"{active}"'}:
        raise PreconditionFailed(
            f"`If-Match` does not name the active policy set {active}",
            hint="another set may have become active: repeat the dry run, and send the hash of the active set",
        )


def _etag(hash: str) -> tuple[bytes, bytes]:
    return b"etag", f'"{hash}"'.encode()


def _check_watching(loaded: Loaded, gate: flows.Gate | None) -> None:
    """Check that the set can be a watching set. Raises Invalid otherwise."""
    if gate is not None:
        raise Invalid(
            "`whatif` cannot be combined with `watch`, which enforces nothing", hint="send only one of the two"
        )
    if loaded.ready.program is not None:
        raise Invalid(
            "a set with policies in Rego or OPA cannot be a watching set", hint='set mode := "watch" in its policies'
        )


async def unwatch(call: Call) -> Reply:
    """Remove the watching set.

    The verdicts of the watching set are recorded beside those of the active set, and enforce nothing.
    """
    return reply({"hash": await act_as(call, "policy.unwatch", flows.stop_watching)})


def _flag(call: Call, name: str) -> bool:
    value = call.query_one(name) or "false"
    if value not in ("true", "false"):
        raise Invalid(f"`{name}` must be true or false")
    return value == "true"


def _check_lock_out(why: str, *, locks: bool) -> None:
    """Check that the caller would still get tokens under the set, unless `locks` permits a lockout. `why`: why the
    caller would be denied a token; empty if the caller would get one. Raises Conflict otherwise.
    """
    if why and not locks:
        hint = "permit `issue_token` for an administrator, or confirm: --lock-out"
        raise Conflict(LOCKED_OUT.format(why), hint=hint, code="locks_out")


def _gate(call: Call) -> flows.Gate | None:
    ticket, most = call.query_one("whatif"), call.query_one("max_changes")
    if ticket is None and most is not None:
        raise Invalid(
            "`max_changes` needs `whatif`, the ticket of a what-if",
            hint="get a ticket from POST /api/v1/policies/whatif",
        )
    if most is not None and not (most.isascii() and most.isdigit() and len(most) <= 18):
        raise Invalid("`max_changes` must be a whole number from 0, of at most 18 digits")
    return None if ticket is None else flows.Gate(ticket, int(most or 0))


async def list_sets(call: Call) -> Reply:
    """List the policy sets, newest first."""
    return await reply_page(
        call,
        "policies",
        lambda reader, page: flows.list_sets(reader, after=page.after, limit=page.limit),
        lambda reader, one: (
            _render(one, active=store.active_hash(reader)) | {"watching": one.hash == store.watched(reader)}
        ),
        cursor=lambda one: one.hash,
    )


async def show_schema(call: Call) -> Reply:
    """Show the schema that every policy set extends."""
    return reply({"schema": base_schema()})


async def show_set(call: Call) -> Reply:
    """Show a policy set with its files.

    `extends` has the server's safeguards that are part of the set, `left_out` the safeguards that the set leaves out.
    """
    hash = call.params["hash"]
    summary, files, left_out, active = await call.world.db.scan(
        lambda reader: (
            *flows.show_set(reader, hash),
            flows.plan_activation(reader, hash).left_out,
            store.active_hash(reader),
        )
    )
    return reply(
        _render(summary, active=active)
        | {"files": own_files(files), "extends": safeguards_in(files), "left_out": left_out},
        headers=[_etag(summary.hash)],
    )


async def activate_set(call: Call) -> Reply:
    """Activate a stored policy set.

    `lock_out`, `loses`, `If-Match` and `dry_run` have the same meaning as for a new set.
    """
    hash, locks, dry, why, plan = call.params["hash"], _flag(call, "lock_out"), _flag(call, "dry_run"), "", None
    loses = call.json(Activation).loses if call.body else []
    with suppress(NotFound):  # the act refuses an unknown set, so that the refusal is recorded
        why = await why_no_token(call, await call.world.db.scan(lambda reader: flows.ready_set(reader, hash)))
        plan = await call.world.db.scan(lambda reader: flows.plan_activation(reader, hash))
    if dry and plan is not None:
        return reply({"hash": hash, "active": False, "notes": [LOCKED_OUT.format(why)] * bool(why), "plan": plan})

    def activate(act: Act) -> PolicySet:
        fill_entry(act, object=hash[:64])
        if plan is None:
            raise flows.no_set(
                hash
            )  # another administrator may have stored the set in the meantime: then it has no plan
        _check_active(act, call)
        flows.check_plan(act, plan, loses=loses)
        _check_lock_out(why, locks=locks)
        return flows.activate(act, hash)

    made = await act_as(call, "policy.activate", activate)
    note_latest(call.world, made.hash)
    return reply(_render(made, active=made.hash))


def _render(one: PolicySet, *, active: str) -> PolicySetBody:
    return {
        "hash": one.hash,
        "active": one.hash == active,
        "policies": one.policies,
        "safeguards": one.safeguards,
        "tests": one.tests,
        "created_at": one.created_at // SECOND,
        "created_by": one.created_by,
    }


def _tested(loaded: Loaded) -> TestedPolicySet:
    return {
        "hash": loaded.hash,
        "active": False,
        "policies": loaded.count,
        "safeguards": loaded.safeguards,
        "tests": loaded.tests,
    }


ACTIVATE_QUERY = (
    Query("dry_run", "`true` stores nothing and returns the plan.", Flag),
    Query("lock_out", "`true` permits a set under which the caller gets no other token for this server.", Flag),
)
PUT_QUERY = (
    *ACTIVATE_QUERY,
    Query("watch", "`true` lets the set decide beside the active set, without enforcement.", Flag),
    Query("whatif", "Ticket of a what-if: the set is refused if more verdicts change than `max_changes`."),
    Query("max_changes", "Maximum number of verdicts that may change; 0 by default.", int),
)

CHANGED = PreconditionFailed(
    "`If-Match` does not name the active policy set", hint="another set became active: repeat the dry run"
)

ROUTES = (
    *(
        Route(
            method,
            "/api/v1/policies",
            put_set,
            ADMIN,
            errors=(CHANGED,),
            body=NewSet,
            is_large=True,
            answers={200: TestedPolicySet, 201: PolicySetBody},
            query=PUT_QUERY,
        )
        for method in ("POST", "PUT")
    ),
    Route(
        "GET",
        "/api/v1/policies",
        list_sets,
        READ,
        errors=(NOT_FOUND,),
        answers={200: PageBody("policies", PolicySetBody)},
        query=PAGE,
    ),
    Route("DELETE", "/api/v1/policies/watching", unwatch, ADMIN, answers={200: UnwatchedBody}),
    Route("GET", "/api/v1/policies/schema", show_schema, READ, answers={200: SchemaBody}),
    Route("GET", "/api/v1/policies/{hash}", show_set, READ, answers={200: PolicySetDetail}),
    Route(
        "POST",
        "/api/v1/policies/{hash}/activate",
        activate_set,
        ADMIN,
        errors=(CHANGED,),
        body=Activation,
        answers={200: Either(PolicySetBody, ActivationPlan)},
        query=ACTIVATE_QUERY,
    ),
    Route(
        "POST",
        "/api/v1/decide",
        evaluation,
        DECIDE,
        proves_in_act=True,
        grants=True,
        is_large=True,
        body=EvaluationRequest,
        answers={200: EvaluationResponse},
    ),
)
