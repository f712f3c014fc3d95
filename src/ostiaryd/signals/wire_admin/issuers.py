"""Trusted issuers of signals, and the links of their `sub`s to persons, for administrators."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from contextlib import suppress
from hashlib import sha256
from typing import Any, Literal, NotRequired, TypedDict

import msgspec

from ostiary.protocol import canonical
from ostiary.protocol.errors import Invalid, Malformed, Refused, Unavailable
from ostiaryd.ground.http.edge import Call, Reply, reply
from ostiaryd.ground.http.pages import reply_page, reply_short_list
from ostiaryd.ground.http.routes import PAGE, EmptyBody, PageBody, Route
from ostiaryd.ground.outbound.fetch import Answer, check_named, send_request
from ostiaryd.ground.outbound.jwks import FETCH_S, fetch_keys
from ostiaryd.ground.process.ids import new_id
from ostiaryd.ground.world import World
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import ADMIN, READ
from ostiaryd.signals import store
from ostiaryd.signals.flows import issuers
from ostiaryd.signals.model.issuers import EVENTS, Issuer, IssuerId, check_domains, discovery_url
from ostiaryd.signals.model.sets import MAX_WORD, POLL, PUSH, SECOND
from ostiaryd.signals.model.streams import MAX_HEADER

METHODS = {"push": PUSH, "poll": POLL}
WORDS = {uri: word for word, uri in METHODS.items()}


class NewIssuer(msgspec.Struct, forbid_unknown_fields=True):
    """An issuer to trust. `authorization` is the Authorization header (`Bearer ...`) with which this server creates the
    stream at the issuer. Without `authorization`, an operator of the issuer creates the stream. `endpoint`: the URL to
    poll, if the stream exists already. `domains`: the issuer may speak for persons whose mail address is in one of
    these. `agents`: the issuer may also speak for agents of this server.
    """

    issuer: str
    method: Literal["push", "poll"] = "push"
    audience: str = ""
    domains: tuple[str, ...] = ()
    agents: bool = False
    authorization: str = ""
    jwks_uri: str = ""
    endpoint: str = ""


class IssuerBody(TypedDict):
    """A trusted issuer of signals and the state of its stream. `heard` and `heard_at`: the number of valid tokens, and
    the time of the last one. For a stream by push, only the response to the creation contains `endpoint_url` and
    `authorization_header`, the secret that the issuer must send.
    """

    issuer_id: str
    issuer: str
    audience: str
    method: str
    domains: Sequence[str]
    agents: bool
    heard: int
    heard_at: float | None
    verified_at: float | None
    trouble: str | None
    endpoint_url: NotRequired[str]
    authorization_header: NotRequired[str]


class DistrustedBody(TypedDict):
    """The result of the removal of an issuer. `stream_ended`: whether the issuer has ended its stream to this
    server.
    """

    stream_ended: bool


class LinkBody(TypedDict):
    """A `sub` of the issuer and the person linked to it."""

    sub: str
    person: str


async def trust(call: Call) -> Reply:
    """Trust the signals of an issuer. For a stream by push, the response contains the secret that the issuer must send.

    The server fetches the issuer's metadata (SSF 7.2) if the request contains no `jwks_uri`, creates a stream at the
    issuer if the request contains `authorization` and no `endpoint`, and fetches the issuer's keys.
    """
    new, world = call.json(NewIssuer), call.world
    check_named(new.issuer, of="the issuer", private=world.config.private)
    if "?" in new.issuer:
        raise Invalid("`issuer` must not have a query", hint="write an issuer as https://idp.example.org")
    if len(new.authorization) > MAX_HEADER or not (new.authorization.isascii() and new.authorization.isprintable()):
        raise Invalid(f"`authorization` must have at most {MAX_HEADER} characters, all printable ASCII")
    if new.jwks_uri and new.authorization and not new.endpoint:
        raise Invalid(
            "with `jwks_uri`, this server cannot create a stream, because it does not read the issuer's metadata",
            hint="omit `jwks_uri`; or create the stream at the issuer, and "
            + ("set `endpoint`" if new.method == "poll" else "omit `authorization`"),
        )
    metadata = {} if new.jwks_uri else await _metadata(world, new.issuer)
    id = IssuerId(new_id("is", now=world.now(), random=world.random))
    secret = "Bearer " + base64.urlsafe_b64encode(world.random(32)).decode().rstrip("=")
    stream = await _make_stream(world, new, metadata, id, secret) if new.authorization and not new.endpoint else {}
    made = Issuer(
        issuer_id=id,
        issuer=new.issuer,
        audience=_audience(new, stream, default=world.config.issuer),
        jwks_uri=_url(
            world,
            new.jwks_uri or metadata.get("jwks_uri"),
            of="`jwks_uri`",
            source="the request and in the metadata of the issuer",
        ),
        method=METHODS[new.method],
        endpoint=_url(
            world,
            new.endpoint or stream.get("endpoint_url"),
            of="the poll endpoint",
            may_lack=new.method == "push",
            source="the request and in the stream of the issuer",
        ),
        secret_digest=sha256(secret.encode()).digest() if new.method == "push" else None,
        sealed=None,
        domains=check_domains(new.domains),
        names_agents=new.agents,
        critical=tuple(one for one in _list(metadata.get("critical_subject_members")) if one.isidentifier())[:32],
        stream=str(stream.get("stream_id", ""))[:MAX_WORD],
        configuration_endpoint=_url(
            world, metadata.get("configuration_endpoint"), of="`configuration_endpoint`", may_lack=True
        ),
        verification_endpoint=_url(
            world, metadata.get("verification_endpoint"), of="`verification_endpoint`", may_lack=True
        ),
        created_at=world.now(),
    )
    await fetch_keys(made.jwks_uri, private=world.config.private)
    made = await registry.act_as(call, "issuer.trust", lambda act: issuers.trust(act, made, new.authorization))
    shown = {"endpoint_url": _endpoint(world, id), "authorization_header": secret} if new.method == "push" else {}
    return reply({**_render(made), **shown}, status=201)


async def list_issuers(call: Call) -> Reply:
    """List the trusted issuers and the state of their streams."""
    return await reply_short_list(
        call,
        "issuers",
        store.issuers.issuers,
        lambda _, one: _render(one),
        cursor=lambda one: one.issuer_id,
    )


async def distrust(call: Call) -> Reply:
    """Remove an issuer, and end the stream at the issuer if possible.

    Agents that the issuer's signals stopped stay stopped.
    """
    gone = await registry.act_as(call, "issuer.distrust", lambda act: issuers.distrust(act, call.params["id"]))
    is_ended = False
    if gone.stream and gone.configuration_endpoint and gone.sealed is not None:
        with suppress(Refused):  # the issuer is removed already, whatever its answer is
            query = f"{gone.configuration_endpoint}?stream_id={gone.stream}"
            is_ended = (await _ask(call.world, "DELETE", query, gone)).status == 204
    return reply({"stream_ended": is_ended})


async def verify(call: Call) -> Reply:
    """Request a verification event from the issuer (SSF 8.1.4). When the event arrives, `verified_at` changes."""
    state = call.world.random(16).hex()
    issuer = await registry.act_as(
        call, "issuer.verify", lambda act: issuers.ask_verification(act, call.params["id"], state)
    )
    body = {"stream_id": issuer.stream, "state": state}
    answer = await _ask(call.world, "POST", issuer.verification_endpoint, issuer, body)
    if answer.status != 204:
        raise Unavailable(
            f"{issuer.issuer} answers the request for a verification event with {answer.status} instead of 204",
            hint="try again; after 401 or 403 the issuer does not accept the authorization",
        )
    return reply({})


class Link(msgspec.Struct, forbid_unknown_fields=True):
    sub: str
    person: str = ""


async def link(call: Call) -> Reply:
    """Link a `sub` of an issuer to a person, so that signals about this `sub` concern the person."""
    body = call.json(Link)
    person = await registry.act_as(
        call, "issuer.link", lambda act: issuers.link(act, call.params["id"], body.sub, body.person)
    )
    return reply({"sub": body.sub, "person": person})


async def unlink(call: Call) -> Reply:
    """Remove the link between a `sub` of an issuer and a person."""
    body = call.json(Link)
    await registry.act_as(call, "issuer.unlink", lambda act: issuers.unlink(act, call.params["id"], body.sub))
    return reply({})


async def list_links(call: Call) -> Reply:
    """List the `sub`s of an issuer that are linked to persons."""
    issuer = issuers.find(call.world.db.read(), call.params["id"])
    return await reply_page(
        call,
        "links",
        lambda reader, page: store.issuers.links(reader, issuer.issuer_id, after=page.after, limit=page.limit),
        lambda _, link: {"sub": link[0], "person": link[1]},
        cursor=lambda link: link[0],
    )


async def _metadata(world: World, issuer: str) -> dict[str, Any]:
    """Return the transmitter metadata of the issuer (SSF 7.2). Raises Unavailable if the issuer cannot be reached or
    answers with an error, Invalid for malformed metadata, or metadata of another issuer.
    """
    answer = await send_request(
        "GET",
        discovery_url(issuer),
        headers={"accept": "application/json"},
        within_s=FETCH_S,
        private=world.config.private,
    )
    if answer.status != 200:
        raise Unavailable(
            f"the issuer answers the request for its metadata (ssf-configuration) with {answer.status} instead of 200",
            hint="name the URL of the issuer's keys with --jwks-uri",
        )
    metadata = _object(answer)
    if not isinstance(named := metadata.get("issuer"), str):
        raise Invalid("the metadata of the issuer (ssf-configuration) lack a text `issuer`")
    if named != issuer:
        raise Invalid(
            f"the metadata (ssf-configuration) name the issuer {named[:200]!a}, not {issuer!a}",
            hint="write the issuer exactly as its metadata does",
        )
    return metadata


async def _make_stream(
    world: World, new: NewIssuer, metadata: dict[str, Any], id: IssuerId, secret: str
) -> dict[str, Any]:
    """Create a stream to this server at the issuer; return the issuer's response (SSF 8.1.1.1), with `endpoint_url` of
    its member `delivery`. Raises Unavailable if the issuer cannot be reached or creates no stream, Invalid for another
    response.
    """
    delivery = {"method": METHODS[new.method]}
    if new.method == "push":
        delivery |= {"endpoint_url": _endpoint(world, id), "authorization_header": secret}
    url = _url(world, metadata.get("configuration_endpoint"), of="`configuration_endpoint`")
    body = {"delivery": delivery, "events_requested": list(EVENTS), "description": f"Ostiary, {world.config.issuer}"}
    answer = await send_request(
        "POST",
        url,
        body=canonical.encode(body),
        headers=_headers(new.authorization),
        within_s=FETCH_S,
        private=world.config.private,
    )
    if answer.status != 201:
        raise Unavailable(
            f"the issuer answers the request for a stream with {answer.status} instead of 201",
            hint="after 401 or 403 the issuer does not accept the authorization",
        )
    made = _object(answer)
    if not isinstance(named := made.get("iss"), str):
        raise Invalid("the stream that the issuer created lacks a text `iss`")
    if named != new.issuer:
        raise Invalid(f"the stream that the issuer created names the issuer {named[:200]!a} (`iss`)")
    stream_delivery = made.get("delivery")
    return {**made, "endpoint_url": stream_delivery.get("endpoint_url") if isinstance(stream_delivery, dict) else None}


async def _ask(world: World, method: str, url: str, issuer: Issuer, body: Any = None) -> Answer:
    """Send a request with this server's authorization to the issuer; return the response. Raises Unavailable if the
    issuer cannot be reached.
    """
    authorization = issuers.open_authorization(issuer, world.keys)
    sent = b"" if body is None else canonical.encode(body)
    return await send_request(
        method, url, body=sent, headers=_headers(authorization), within_s=FETCH_S, private=world.config.private
    )


def _headers(authorization: str) -> dict[str, str]:
    return {"authorization": authorization, "content-type": "application/json", "accept": "application/json"}


def _object(answer: Answer) -> dict[str, Any]:
    try:
        content = canonical.parse(answer.body)
    except Malformed as error:
        raise Unavailable(f"the response of the issuer is not JSON: {error.message}") from None
    if not isinstance(content, dict):
        raise Unavailable("the response of the issuer is not a JSON object")
    return content


def _audience(new: NewIssuer, stream: dict[str, Any], *, default: str) -> str:
    """Return the audience that the issuer's tokens for this server have: the requested audience if the stream has it,
    the only audience of the stream, or `default` if the stream has none. Raises Invalid if the stream has other
    audiences, or several and none is requested, or for an audience of the wrong length.
    """
    has = [stream["aud"]] if isinstance(stream.get("aud"), str) else _list(stream.get("aud"))
    if new.audience and has and new.audience not in has:
        raise Invalid(
            f"the issuer's stream is for {' '.join(has)[:200]}, not for the requested `audience`",
            hint="choose one of these audiences with --audience",
        )
    if not new.audience and len(has) > 1:
        raise Invalid(
            f"the issuer's stream is for several audiences: {' '.join(has)[:200]}",
            hint="choose one of these audiences with --audience",
        )
    audience = new.audience or (has[0] if has else default)
    if not 0 < len(audience) <= MAX_WORD:
        raise Invalid(f"`audience` must have 1 to {MAX_WORD} characters")
    return audience


def _url(
    world: World, value: object, *, of: str, may_lack: bool = False, source: str = "the metadata of the issuer"
) -> str:
    """Return the URL `value` after checking it. `source`: the objects that should contain the URL, for the error."""
    if value is None:
        if may_lack:
            return ""
        raise Invalid(f"{of} is missing in {source}")
    if not isinstance(value, str):
        raise Invalid(f"{of} of the issuer is not a text")
    return check_named(value, of=of, private=world.config.private)


def _list(value: object) -> list[str]:
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []


def _endpoint(world: World, id: IssuerId) -> str:
    return f"{world.config.api}/signals/{id}"


def _render(issuer: Issuer) -> IssuerBody:
    return {
        "issuer_id": issuer.issuer_id,
        "issuer": issuer.issuer,
        "audience": issuer.audience,
        "method": WORDS[issuer.method],
        "domains": issuer.domains,
        "agents": issuer.names_agents,
        "heard": issuer.received,
        "heard_at": issuer.received_at and issuer.received_at / SECOND,
        "verified_at": issuer.verified_at and issuer.verified_at / SECOND,
        "trouble": issuer.trouble,
    }


ROUTES = (
    Route("POST", "/api/v1/issuers", trust, ADMIN, body=NewIssuer, answers={201: IssuerBody}),
    Route("GET", "/api/v1/issuers", list_issuers, READ, answers={200: PageBody("issuers", IssuerBody)}, query=PAGE),
    Route("DELETE", "/api/v1/issuers/{id}", distrust, ADMIN, stops=True, answers={200: DistrustedBody}),
    Route("POST", "/api/v1/issuers/{id}/verify", verify, ADMIN, answers={200: EmptyBody}),
    Route(
        "GET", "/api/v1/issuers/{id}/links", list_links, ADMIN, answers={200: PageBody("links", LinkBody)}, query=PAGE
    ),
    Route("POST", "/api/v1/issuers/{id}/links", link, ADMIN, body=Link, answers={200: LinkBody}),
    Route("POST", "/api/v1/issuers/{id}/unlink", unlink, ADMIN, body=Link, answers={200: EmptyBody}),
)
