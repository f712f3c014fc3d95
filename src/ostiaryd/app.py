"""The whole server: the list of every route with its scope, and the list of every background loop."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Sequence
from contextlib import aclosing, suppress
from dataclasses import replace
from functools import partial
from hashlib import sha256
from importlib import metadata
from typing import Any

import msgspec
from starlette import routing
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match

from ostiary.authorization.assurance import KEY
from ostiary.protocol.errors import Forbidden, Malformed, Refused, Unavailable
from ostiaryd import doctor, metrics, openapi
from ostiaryd.approvals import flows as approvals
from ostiaryd.approvals import wire_admin as approvals_admin
from ostiaryd.approvals import wire_ciba, wire_elevation, wire_requests
from ostiaryd.certs import flows as certs
from ostiaryd.certs import (
    wire_acme,
    wire_acme_keys,
    wire_acme_validation,
    wire_authorities,
    wire_trust_domains,
    wire_workloads,
)
from ostiaryd.certs import wire_admin as certs_admin
from ostiaryd.certs import wire_public as certs_public
from ostiaryd.certs.flows import bundles
from ostiaryd.console import wire_assets, wire_session
from ostiaryd.feed import flows as feed
from ostiaryd.feed import wire_admin as feed_admin
from ostiaryd.feed import wire_feed
from ostiaryd.feed.flows.guards import BEAT_S
from ostiaryd.ground.database import Reader
from ostiaryd.ground.database.line import SERVER, Lane, Priority, priority
from ostiaryd.ground.http import health, html
from ostiaryd.ground.http.admission import (
    admit_essential,
    check_admission,
    is_refused,
    queue_stop_unproven,
    queue_unproven,
)
from ostiaryd.ground.http.edge import (
    Call,
    Endpoint,
    Failed,
    MethodNotAllowed,
    Preflight,
    Reply,
    Wire,
    render_admin,
    request_id_of,
)
from ostiaryd.ground.http.forms import parse_form
from ostiaryd.ground.http.router import SegmentRouter
from ostiaryd.ground.http.routes import ADMIN_API, NOT_FOUND, Route
from ostiaryd.ground.outbound import outbox
from ostiaryd.ground.rounds import LoopUse, Rounds
from ostiaryd.ground.world import World
from ostiaryd.incidents import wire_admin as incidents_admin
from ostiaryd.incidents.flows import disk, pages, respond, state
from ostiaryd.ledger import flows as ledger
from ostiaryd.ledger import wire_admin as ledger_admin
from ostiaryd.ledger import wire_tlog
from ostiaryd.ledger.flows import Act, act
from ostiaryd.notifications import wire_admin as notifications_admin
from ostiaryd.notifications import wire_links, wire_push, wire_webhooks
from ostiaryd.policy import flows as policy
from ostiaryd.policy import wire_admin as policy_admin
from ostiaryd.policy import wire_authzen, wire_events, wire_roles, wire_search, wire_tasks, wire_whatif
from ostiaryd.policy.model.roles import RouteFacts
from ostiaryd.registry import flows as registry
from ostiaryd.registry import wire_admin as registry_admin
from ostiaryd.registry.model import ADMIN, APPROVE, READ, Caller
from ostiaryd.secrets import flows as secrets
from ostiaryd.secrets import (
    wire_access_keys,
    wire_account_pages,
    wire_account_tokens,
    wire_aws,
    wire_aws_accounts,
    wire_backends,
    wire_connected_accounts,
    wire_egress,
    wire_leases,
    wire_rotations,
    wire_sync,
    wire_vault,
)
from ostiaryd.secrets import wire_admin as secrets_admin
from ostiaryd.secrets.flows import access_keys, deletions, rotations
from ostiaryd.signals import wire_admin as signals_admin
from ostiaryd.signals import wire_signals, wire_signals_poll, wire_ssf, wire_ssf_poll, wire_ssf_push
from ostiaryd.signals.flows import reception, signals
from ostiaryd.tasks import flows as tasks
from ostiaryd.tasks import wire_admin as tasks_admin
from ostiaryd.tasks import wire_budgets, wire_holding
from ostiaryd.tokens import flows as tokens
from ostiaryd.tokens import wire_admin as tokens_admin
from ostiaryd.tokens import (
    wire_authorize,
    wire_consents,
    wire_device,
    wire_errors,
    wire_logout,
    wire_metadata,
    wire_oauth,
    wire_persons,
    wire_registration,
    wire_userinfo,
)
from ostiaryd.tokens import wire_clients as tokens_clients
from ostiaryd.trust import flows as trust
from ostiaryd.trust import (
    wire_access,
    wire_account,
    wire_certificates,
    wire_clients,
    wire_clock,
    wire_login,
    wire_oidc_login,
    wire_people,
    wire_peps,
    wire_providers,
    wire_saml_login,
)
from ostiaryd.trust import wire_admin as trust_admin
from ostiaryd.watch import flows as watch
from ostiaryd.watch import wire_admin as watch_admin
from ostiaryd.watch import wire_otlp, wire_threats
from ostiaryd.watch.flows import certificates

log = logging.getLogger("ostiary")
KEEP_MESSAGES = 3_600_000_000  # microseconds
QUIET_GARBAGE = 10_000
"""Number of new objects from which `collect_garbage` runs while the event loop is quiet; under load the limit is
`serve.GARBAGE`.
"""
QUIET_SHARE = 0.25
"""Maximum share of the time that the event loop may use to count as quiet. During a flood there are moments without a
waiting request, but thousands of new connections, whose objects take 0.2 s to search.
"""

Gate = Callable[[Call], Awaitable[Caller | None]]


class OpenApi:
    """The OpenAPI document of this server as bytes, and its entity tag (ETag). Both are generated at the
    first request.
    """

    def __init__(self, world: World) -> None:
        document = openapi.describe_routes(ROUTES, world.config, version=metadata.version("ostiary"))
        self.body = msgspec.json.encode(document)
        self.etag = f'"{sha256(self.body).hexdigest()}"'.encode()


async def show_openapi(call: Call) -> Reply:
    """Return the OpenAPI 3.1 document of this server.

    If `If-None-Match` has the entity tag (ETag) of the present document, or is `*`, the response is 304.
    """
    document = call.world.get_singleton(OpenApi)
    headers = [(b"etag", document.etag), (b"cache-control", b"public, max-age=300")]
    tags = {tag.strip().removeprefix("W/") for tag in (call.header(b"if-none-match") or "").split(",")}
    if tags & {"*", document.etag.decode()}:
        return Reply(304, headers=headers)
    return Reply(200, document.body, headers=headers)


CIBA_ROUTES = tuple(
    replace(
        route,
        wire=wire_errors.challenges_clients(route.wire),
        protocol=wire_errors.OAUTH,
        errors=(*wire_oauth.GRANT_ERRORS, *route.errors),
    )
    for route in wire_ciba.ROUTES
)
"""The OAuth routes of the package `approvals`, with the OAuth protocol. Wire modules do not import from other packages,
so the OAuth protocol is added here.
"""
ROUTES: tuple[Route, ...] = (
    Route("GET", "/openapi.json", show_openapi, "", answers={200: dict[str, Any], 304: None}),
    *wire_oauth.ROUTES,
    *wire_authorize.ROUTES,
    *wire_device.ROUTES,
    *wire_userinfo.ROUTES,
    *wire_logout.ROUTES,
    *wire_consents.ROUTES,
    *wire_persons.ROUTES,
    *wire_authzen.ROUTES,
    *wire_search.ROUTES,
    *wire_metadata.ROUTES,
    *registry_admin.ROUTES,
    *trust_admin.ROUTES,
    *wire_certificates.ROUTES,
    *wire_clients.ROUTES,
    *wire_clock.ROUTES,
    *wire_peps.ROUTES,
    *wire_people.ROUTES,
    *wire_login.ROUTES,
    *wire_providers.ROUTES,
    *wire_oidc_login.ROUTES,
    *wire_saml_login.ROUTES,
    *wire_account.ROUTES,
    *html.ROUTES,
    *wire_tasks.ROUTES,
    *tasks_admin.ROUTES,
    *wire_budgets.ROUTES,
    *wire_holding.ROUTES,
    *certs_admin.ROUTES,
    *wire_authorities.ROUTES,
    *certs_public.ROUTES,
    *wire_workloads.ROUTES,
    *wire_trust_domains.ROUTES,
    *policy_admin.ROUTES,
    *wire_roles.ROUTES,
    *wire_events.ROUTES,
    *wire_whatif.ROUTES,
    *tokens_admin.ROUTES,
    *tokens_clients.ROUTES,
    *wire_registration.ROUTES,
    *wire_acme.ROUTES,
    *wire_acme_keys.ROUTES,
    *approvals_admin.ROUTES,
    *wire_requests.ROUTES,
    *wire_elevation.ROUTES,
    *CIBA_ROUTES,
    *ledger_admin.ROUTES,
    *wire_tlog.ROUTES,
    *wire_feed.ROUTES,
    *feed_admin.ROUTES,
    *notifications_admin.ROUTES,
    *wire_push.ROUTES,
    *wire_links.ROUTES,
    *incidents_admin.ROUTES,
    *signals_admin.ROUTES,
    *wire_ssf.ROUTES,
    *wire_ssf_poll.ROUTES,
    *wire_signals.ROUTES,
    *wire_threats.ROUTES,
    *watch_admin.ROUTES,
    *metrics.ROUTES,
    *wire_otlp.ROUTES,
    *doctor.ROUTES,
    *health.ROUTES,
    *wire_session.session_routes(lambda: [facts_of(route) for route in ROUTES]),
    *wire_assets.ROUTES,
    *wire_leases.ROUTES,
    *wire_backends.ROUTES,
    *wire_sync.ROUTES,
    *wire_rotations.ROUTES,
    *secrets_admin.ROUTES,
    *wire_egress.ROUTES,
    *wire_access_keys.ROUTES,
    *wire_connected_accounts.ROUTES,
    *wire_account_pages.ROUTES,
    *wire_aws.ROUTES,
    *wire_vault.ROUTES,  # after `/v1/traces` and `/v1/logs`, because these routes match every path below /v1
)
"""Every route of the server. If several match a request, the first one responds."""


class Application(Starlette):
    """The ASGI application. For most requests, `Protocol`, the server's HTTP/1.1 implementation, finds the endpoint by
    `router` and answers without ASGI. Only the other requests, for example to an unknown path, pass through this
    application.
    """

    router: SegmentRouter


STATUS_ROUTES = certs_public.ROUTES
"""Routes of the listener without TLS (`status_listen`)."""


def build_app(world: World, served: Sequence[Route] = ROUTES) -> Application:
    """Return the ASGI application that serves the routes `served` with the database, keys and configuration of `world`.
    Raises Invalid for a certificate profile or a rotation command in the configuration that is not valid.
    """
    certs.load_profiles(world.config.certificate_profiles)
    rotations.load_commands(world.config.rotation_commands)
    routes = [routing.Route(route.path, _endpoint(world, route), methods=[route.method]) for route in served]
    methods: dict[str, set[str]] = {}
    for route in served:
        if route.is_cross_origin:
            methods.setdefault(route.path, set()).add(route.method)
    routes += [routing.Route(path, Preflight(those), methods=["OPTIONS"]) for path, those in methods.items()]
    router = SegmentRouter(routes)

    show_error = html.page_renderer(world.config)
    forms = {route.path: route.protocol.render for route in served if route.protocol.refuses_methods}

    async def failed(request: Request, error: Exception) -> Response:
        """Return the response 500 for an error outside of an endpoint, or while a response is sent; uvicorn logs the
        error.
        """
        id, answer = request_id_of(request.headers.raw, world), render_admin(Failed())
        log.error("%s %s failed (%s)", request.method, request.url.path, id)
        return Response(answer.body, 500, {"x-request-id": id}, answer.media_type)

    async def nothing_here(request: Request, error: Exception) -> Response:
        """Return the response 404 for a path without a route, or 405 for a method that the path does not have, with its
        methods in `Allow` (RFC 9110 section 15.5.6).

        A 405 has the error format of the route's protocol (such as OAuth), if that protocol has a format for a 405.
        Every other response is a page for a browser, and has the error format of the administration API for other
        clients.
        """
        compared = router.list_routes(request.scope["path"])
        ways = [route for route in compared if route.matches(request.scope)[0] != Match.NONE]
        allowed = sorted({method for route in ways for method in route.methods or ()} - {"OPTIONS"})
        headers = {"x-request-id": request_id_of(request.headers.raw, world)}
        usual = show_error if html.accepts_html(request.headers.getlist("accept")) else render_admin
        if allowed:
            headers["allow"] = ", ".join(allowed)
            refusal = MethodNotAllowed(f"{request.method} is not allowed at this path")
            answer = forms.get(ways[0].path, usual)(refusal)
        else:
            answer = usual(NOT_FOUND)
        named = {name.decode(): value.decode() for name, value in answer.headers or []}
        return Response(answer.body, answer.status, named | headers, answer.media_type)

    handlers = {404: nothing_here, 405: nothing_here, Exception: failed}
    app = Application(exception_handlers=handlers)
    app.router = router
    return app


def _endpoint(world: World, route: Route) -> Endpoint:
    """Return the endpoint of a route, with its gate, the lane of its jobs, and its limits."""
    scope, wire, facts = route.scope, route.wire, facts_of(route)
    is_change = route.method != "GET"
    if route.protocol is ADMIN_API and not route.stops and (is_change or route.path.startswith("/api/v1/")):
        wire = _checking_query(wire, frozenset(one.name for one in route.query), is_change=is_change)
    is_admitted = route.stops or route.reports or route.method == "GET" or scope in (ADMIN, READ, APPROVE)
    check: Gate | None = None
    gate: Gate | None
    if route.is_large:
        check = _queueing(
            _checking(facts, allows_pep=route.allows_peps), is_admitted=is_admitted, reports=route.reports
        )
    if route.streams and scope in (ADMIN, READ):
        wire = _rechecking(wire, facts)
    if route.proves_in_act:
        wire = _proving(wire, facts, allows_pep=route.allows_peps, is_reporter=not route.stops)
        gate = _checking(facts) if route.stops else None
    elif route.verifies_ahead:
        gate, wire = _verifying(facts), _in_one_act(wire)
    elif scope:
        gate, wire = _gate(facts, allows_pep=route.allows_peps), _answering(wire, facts)
    else:
        gate = None
    wants = Lane.STOP if route.stops else Lane.ORDINARY
    gate = _queueing(gate, is_admitted=is_admitted, wants=wants, reports=route.reports, grants=route.grants)
    return Endpoint(
        world,
        wire,
        render=html.page_renderer(world.config) if route.protocol is html.PAGES else route.protocol.render,
        gate=gate,
        streams=route.streams,
        check=check,
        proves=bool(scope) or route.method != "GET",
        is_refused=None if is_admitted else is_refused,
        stops=route.stops,
        bounds_body=route.bounds_body,
        parses_body=route.protocol.parses_bodies,
        is_cross_origin=route.is_cross_origin,
    )


def facts_of(route: Route) -> RouteFacts:
    """Return the attributes of a route that role policies read."""
    return RouteFacts(route.method, route.path, route.scope, route.stops, route.allows_people, route.area)


def _checking_query(wire: Wire, parameters: frozenset[str], *, is_change: bool) -> Wire:
    """Return a wire function that first refuses a query parameter that is none of `parameters`. Otherwise a misspelt
    `dry_run` would make the change, and a misspelt filter would list everything. A route that stops something ignores
    such a parameter, because it must always stop.
    """
    if parameters:
        hint = f"use one of {', '.join(sorted(parameters))}"
    else:
        hint = "send the members in the body" if is_change else "send the request without query parameters"
    effect = ", so nothing was changed" if is_change else ""

    def check(call: Call) -> Awaitable[Reply]:
        if call.query and (unknown := parse_form(call.query.encode("latin-1")).keys() - parameters):
            raise Malformed(f"the query parameter {min(unknown)[:64]!a} is unknown{effect}", hint=hint)
        return wire(call)

    return check


def _checking(route: RouteFacts, *, allows_pep: bool = False) -> Gate:
    """Return a check of the caller that does not mark the DPoP proof as used: after a large body, the gate marks the
    proof; otherwise, the act of the route does.
    """

    async def check(call: Call) -> None:
        try:
            call.caller = wire_access.check_access(call, allows_pep=allows_pep)
            call.caller = _authorize(call, call.caller, route, call.world.db.read())
        except Refused as refusal:
            if not (refusal.is_challenge or isinstance(refusal, Unavailable)):
                await _record(call, refusal)
            raise

    return check


def _queueing(
    gate: Gate | Callable[[Call], Awaitable[None]] | None,
    *,
    is_admitted: bool,
    wants: Lane = Lane.ORDINARY,
    reports: bool = False,
    grants: bool = False,
) -> Gate:
    """Return a gate that first determines the lane and the client of the request's jobs in the writer's line.

    Unless `is_admitted`, a client with a waiting job is refused while the line is crowded (`check_admission`). With
    `grants`, the gate then checks the wall clock: after a jump that no person has confirmed, it raises ClockJumped.
    """

    async def queue(call: Call) -> Caller | None:
        if gate is None and wants is Lane.STOP:
            queue_stop_unproven(call)
        else:
            queue_unproven(call, wants=wants, reports=reports)
        writer, is_essential = call.world.writer, False
        if call.path == "/token" and (writer.is_full or writer.is_crowded):
            is_essential = admit_essential(call, lambda id: registry.is_privileged(call.world.db.read(), id))
        if writer.is_crowded and not (is_admitted or is_essential):
            await check_admission(call)
        if grants:
            call.world.now.check_confirmed()
        return None if gate is None else await gate(call)

    return queue


def _gate(route: RouteFacts, *, allows_pep: bool = False) -> Callable[[Call], Awaitable[Caller]]:
    """Return the gate of a route, which authenticates and authorizes the caller, and records a refusal."""

    async def gate(call: Call) -> Caller:
        try:
            # entries of refusals name this caller from here on
            caller = call.caller = await wire_access.authenticate_access(call, allows_pep=allows_pep)
            caller = _authorize(call, caller, route, call.world.db.read())
        except Refused as refusal:
            # a challenge and Unavailable are not recorded, because the credentials were not checked
            if not (refusal.is_challenge or isinstance(refusal, Unavailable)):
                await _record(call, refusal)
            raise
        call.check_again = partial(_check_again, call, route)
        return caller

    return gate


def _check_again(call: Call, route: RouteFacts, act: Act) -> None:
    """Check, on the state of an act, that the caller was not stopped or restricted since the gate or an earlier act has
    authenticated the caller. Raises the refusals of `_check_still`; the entry then names the caller.
    """
    try:
        _check_still(call, route, act.tx)
    except Refused:
        registry.record_caller(act, call.caller)
        raise


def _check_still(call: Call, route: RouteFacts, reader: Reader) -> None:
    """Check that the caller may still use a route. Raises the refusals of the gate, and Forbidden if the caller has
    fewer scopes than before.
    """
    caller = _authorize(call, wire_access.find_caller_again(call, reader), route, reader)
    if not call.caller.scopes <= caller.scopes:
        raise Forbidden(
            "the rights of the caller were restricted while the request waited", hint="send the request again"
        )


def _verifying(route: RouteFacts) -> Gate:
    """Return the gate of a route whose act authenticates and authorizes the caller. The gate verifies the signatures of
    the credentials, and records a refusal.
    """

    def prove(call: Call, verified: trust.VerifiedCredentials | None, act: Act) -> Caller:
        return _authorize(call, wire_access.authenticate_in_act(call, act, verified=verified), route, act.tx)

    async def gate(call: Call) -> None:
        try:
            verified = wire_access.verify_ahead(call)
        except Refused as refusal:
            if not (refusal.is_challenge or isinstance(refusal, Unavailable)):
                await _record(call, refusal)
            raise
        call.proving, call.check_again = partial(prove, call, verified), partial(_check_again, call, route)

    return gate


def _authorize(call: Call, caller: Caller, route: RouteFacts, reader: Reader) -> Caller:
    """Check that an authenticated caller may use a route, and return the caller with the scopes that apply. Role
    policies decide for a person, the scopes of the token for any other caller. Raises InsufficientScope if the token
    lacks the scope, Forbidden if the policies do not permit.
    """
    if caller.kind == "person":
        return policy.authorize_person(reader, caller, route, now=call.world.now(), acr=caller.acr or KEY)
    wire_access.require_scope(call, caller, route.scope)
    return caller


def _proving(wire: Wire, route: RouteFacts, *, allows_pep: bool = False, is_reporter: bool = False) -> Wire:
    """Return the wire function for a route that authenticates its caller inside its act.

    `is_reporter`: the caller asks about other parties, so its entries name the caller as reporter.
    """
    answer, gate = _in_one_act(wire), _gate(route, allows_pep=allows_pep)

    def prove(call: Call, act: Act) -> Caller:
        act.entry.network = call.network or None  # stays in the entry if the caller fails to authenticate
        caller = wire_access.authenticate_in_act(call, act, allows_pep=allows_pep)
        if is_reporter:
            act.entry.network = None
            act.entry.reporter, act.entry.token = caller.id, caller.token
        return _authorize(call, caller, route, act.tx)

    async def run(call: Call) -> Reply:
        call.proving, call.gate, call.check_again = partial(prove, call), gate, partial(_check_again, call, route)
        return await answer(call)

    return run


def _in_one_act(wire: Wire) -> Wire:
    """Return the wire function for a route whose act authenticates the caller.

    A refusal before the act is recorded, and is shown only to an authenticated caller.
    """

    async def run(call: Call) -> Reply:
        try:
            answer = await wire(call)
        except Refused as refusal:
            if call.proving is not None and not isinstance(refusal, Unavailable):
                await _leave(call, refusal)
            raise
        if call.proving is not None:
            raise RuntimeError(f"the caller of {call.path} was not authenticated")
        return answer

    return run


def _answering(wire: Wire, route: RouteFacts) -> Wire:
    """Return the wire function of a route whose response shows something, which checks the caller again before it
    responds: a search in a thread, or a request to another system, may have taken long. After an act, the caller is not
    checked again: the act itself has checked the caller, and may have ended the caller's access.
    """

    async def run(call: Call) -> Reply:
        answer = await wire(call)
        if not call.has_acted:
            try:
                _check_still(call, route, call.world.db.read())
            except Refused as refusal:
                await _record(call, refusal)
                raise
        return answer

    return run


def _rechecking(wire: Wire, route: RouteFacts) -> Wire:
    """Return the wire function of a stream. If the caller has lost the right to use the route, the stream ends before
    its next part.
    """

    async def run(call: Call) -> Reply:
        answer = await wire(call)
        streamed = answer.body
        if isinstance(streamed, bytes):
            return answer
        return msgspec.structs.replace(answer, body=_recheck(call, route, streamed))

    return run


async def _recheck(call: Call, route: RouteFacts, body: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    async with aclosing(body):
        async for part in body:
            try:
                _check_still(call, route, call.world.db.read())
            except Refused as refusal:
                await _record(call, refusal)
                raise
            yield part


async def _record(call: Call, refusal: Refused) -> None:
    """Record in the ledger that the gate of a route refused a request."""
    with suppress(Refused):
        await _leave(call, refusal)


async def _leave(call: Call, refusal: Refused) -> None:
    refuse = partial(_refuse, call, refusal)
    await act(call.world, "api.call", refuse, request=call.request_id, network=call.network)


def _refuse(call: Call, refusal: Refused, act: Act) -> None:
    act.entry.detail = {"method": call.method, "path": call.path[:256]}
    caller = call.caller if call.proving is None else call.prove(act)
    if caller is not None:
        registry.record_caller(act, caller)
    raise refusal


def _every(
    seconds: float, work: Callable[[World], Awaitable[Any]], *, lane: Lane = Lane.ORDINARY
) -> Callable[[World], Coroutine[Any, Any, None]]:
    """Return a loop that runs `work` every `seconds`, the first time after `seconds`. Its name is MODULE.WORK.
    If `work` fails, the failure is logged and the loop continues. The jobs of `work` wait in `lane`.
    """
    name = f"{work.__module__.removeprefix('ostiaryd.')}.{work.__name__}"

    async def loop(world: World) -> None:
        priority.set(Priority(SERVER.client, lane=lane))
        rounds = world.get_singleton(Rounds)
        rounds.record_round(name, every_s=seconds)
        while True:
            await asyncio.sleep(seconds)
            try:
                await work(world)
            except Exception as error:
                # without a traceback: the message states the defect, and a round may fail every second
                if isinstance(error, Unavailable):
                    log.warning("the loop `%s` failed a round: %s", name, error)
                else:
                    log.exception("the loop `%s` failed a round", name)
                rounds.record_round(name, every_s=seconds, error=error)
            else:
                rounds.record_round(name, every_s=seconds)

    loop.__name__ = name
    return loop


async def forget_messages(world: World) -> None:
    """Delete stored messages to guards and to streams of trust bundles that are older than `KEEP_MESSAGES`. By then
    connected guards and streams have received the messages; a guard that connects later gets their content in a
    snapshot.
    """
    for topic in ("feed", bundles.TOPIC):
        await world.writer.submit(lambda tx, topic=topic: outbox.prune(tx, topic, before=tx.now - KEEP_MESSAGES))  # type: ignore[misc]


async def watch_and_respond(world: World) -> None:
    """Run the process of the detectors. The transaction that stores a finding also carries out the playbooks' responses
    to it, ahead of ordinary requests.
    """
    await watch.watch(world, then=respond.responder(world.config))


async def move_log(world: World) -> None:
    """Move committed pages from SQLite's write-ahead log to the database file (a checkpoint of SQLite), so that no
    commit has to wait for this.
    """
    await world.writer.move_log()


async def collect_garbage(world: World) -> None:
    """Search recently created objects for reference cycles if there are more than `QUIET_GARBAGE` of them and the event
    loop is quiet. Under load, the search would delay every request.
    """
    is_quiet = world.get_singleton(LoopUse).take_share() <= QUIET_SHARE and not world.writer.waiting
    if is_quiet and gc.get_count()[0] > QUIET_GARBAGE:
        gc.collect(1)


LOOPS = (
    _every(1, collect_garbage),
    _every(1, disk.watch_disk, lane=Lane.STOP),
    _every(1, move_log),
    watch_and_respond,
    _every(health.BEAT_S, health.check_writer, lane=Lane.STOP),
    _every(1, feed.follow_history, lane=Lane.STOP),
    _every(60, ledger.sync_pin),
    _every(10, ledger.keep_checkpoint),
    _every(60, ledger.fill_indexes),
    _every(1, trust.watch_clock, lane=Lane.STOP),
    _every(BEAT_S, feed.share_guards, lane=Lane.STOP),
    _every(1, registry.expire_due, lane=Lane.STOP),
    _every(1, tasks.expire_due, lane=Lane.STOP),
    _every(1, approvals.expire_due),
    _every(1, wire_webhooks.deliver_due),
    _every(1, wire_push.push_due),
    _every(600, registry.forget_restrictions),
    _every(600, registry.forget_used_secrets),
    _every(1, signals.make_signals),
    _every(1, wire_ssf_push.push_due),
    _every(30, signals.send_lower_levels),
    _every(600, signals.delete_old_signals),
    _every(0.02, wire_acme_validation.keep_validating),
    _every(600, wire_acme_validation.forget_orders),
    _every(1, wire_signals_poll.poll_due, lane=Lane.STOP),
    _every(1, reception.continue_effects, lane=Lane.STOP),
    _every(600, reception.forget_received),
    _every(10, wire_threats.refresh_due),
    _every(30, trust.prune),
    _every(60, trust.expire_clients),
    _every(60, tasks.forget_days),
    _every(60, tasks.prune_ended),
    _every(600, tasks.forget_histories),
    _every(60, tokens.forget_keys),
    _every(60, tokens.forget_requests),
    _every(60, tokens.forget),
    _every(1, tokens.follow_sessions),
    _every(1, tokens.deliver_logouts),
    _every(60, forget_messages),
    _every(1, bundles.publish_due),
    _every(5, wire_trust_domains.refresh_due),
    _every(1, state.check_state),
    _every(10, pages.check_pages),
    _every(3600, feed.forget_profiles),
    _every(60, ledger.forget_facts),
    _every(60, watch.forget_evidence),
    _every(600, watch.forget_risks),
    _every(10, ledger.summarise_refusals),
    _every(60, approvals.forget),
    _every(10, certs.forget),
    _every(1, certs.end_below_revoked),
    _every(60, secrets.forget_tokens),
    _every(60, secrets.forget_certificates),
    _every(600, access_keys.forget_access_keys),
    _every(60, deletions.delete_due),
    _every(1, wire_leases.revoke_due),
    _every(1, wire_leases.rotate_due),
    _every(1, wire_aws_accounts.revoke_due),
    _every(1, wire_aws_accounts.rotate_due),
    _every(1, wire_account_tokens.end_due),
    _every(1, wire_rotations.rotate_due),
    _every(10, wire_rotations.rotate_due_keys),
    _every(60, secrets.forget_wrapped),
    _every(60, secrets.forget_private_values),
    _every(1, wire_backends.forget_sealed),
    _every(5, secrets.renew_envelopes),
    _every(10, certs.renew_tls),
    _every(60, certificates.warn_of_certificates),
    _every(10, certs.keep_authorities),
)
"""The background loops of the server."""
