"""The HTTP API of HashiCorp Vault under /v1, to the extent that docs/reference/conformance.md states.

    auth/jwt/login, auth/approle/login          log an agent in: a Vault token
    auth/token/..                               child tokens and roles; lookup, renewal and revocation of a token
    auth/MOUNT/..                               login methods that agents enabled
    sys/health, sys/init, sys/leader, sys/seal-status   without authentication
    sys/seal, sys/unseal                        seal and unseal all secrets
    sys/wrapping/..                             wrap, unwrap, lookup, rewrap; the header X-Vault-Wrap-TTL
    sys/mounts/.., sys/auth/.., sys/remount     secret engines and login methods that agents enable
    sys/policy/.., sys/policies/acl/..          Vault policies, which limit tokens
    sys/internal/ui/mounts, sys/capabilities-self, sys/capabilities
    sys/tools/random, sys/tools/hash            random bytes and hashes
    sys/leases/..                               lookup, renew, revoke
    cubbyhole/..                                private values of the token
    MOUNT/..                                    the engine of the mount

PUT and POST are the same operation, and so are LIST and `GET ?list=true`. A refusal has the form
`{"errors": [..]}`.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple, TypedDict

import msgspec

from ostiary.protocol import canonical
from ostiary.protocol.dpop import InvalidProof, UseNonce
from ostiary.protocol.errors import (
    Conflict,
    Forbidden,
    Invalid,
    Malformed,
    NotFound,
    Refused,
    Unauthenticated,
    Unavailable,
)
from ostiaryd.certs.flows.status import MALFORMED
from ostiaryd.certs.model.revocation import OCSP_REQUEST, OCSP_RESPONSE, decode_ocsp_path
from ostiaryd.ground.http.edge import (
    MAX_DEPTH,
    NO_STORE,
    SMALL_BODY,
    Call,
    Failed,
    MethodNotAllowed,
    Reply,
    TooLarge,
    reply,
)
from ostiaryd.ground.http.forms import parse_form
from ostiaryd.ground.http.routes import Content, Query, Route, RouteProtocol
from ostiaryd.ground.outbound.database_driver import DatabaseDown
from ostiaryd.ledger.flows import Act, act, record_refusal
from ostiaryd.policy.flows.external_pdp import act_with_answers
from ostiaryd.secrets import flows
from ostiaryd.secrets.engines import (
    approle,
    cert,
    cubbyhole,
    jwt,
    kubernetes,
    lease,
    login_methods,
    mounts,
    policies,
    token,
    transit,
)
from ostiaryd.secrets.flows.account_tokens import IssueToken
from ostiaryd.secrets.flows.callers import CUBBYHOLE
from ostiaryd.secrets.flows.engine import MOUNTS
from ostiaryd.secrets.flows.key_generation import KeyGenerator, KeyNeeded
from ostiaryd.secrets.flows.mounts import PASSWORD_METHODS
from ostiaryd.secrets.flows.pki_issuers import IssuerNotFound
from ostiaryd.secrets.flows.pki_status import (
    MountOcspResponder,
    PublicResource,
    find_ocsp_mount,
    find_resource,
    render_members,
    render_resource,
)
from ostiaryd.secrets.model.acl import AclRequest
from ostiaryd.secrets.model.aws_account import CreateCredentials, RotateAwsRoot
from ostiaryd.secrets.model.backend import BackendFailed
from ostiaryd.secrets.model.connected_account import ProviderDown
from ostiaryd.secrets.model.mount import AUTH, RESERVED, Mount
from ostiaryd.secrets.model.request import (
    ENTRY_ACTIONS,
    SECOND,
    Answer,
    NothingStored,
    SecretAction,
    UnsupportedOperation,
    VaultMethod,
    VaultRequest,
    check_path,
    parse_duration,
    parse_texts,
    render_time,
    split_path,
)
from ostiaryd.secrets.model.sealing import decode_key
from ostiaryd.secrets.model.token import LONGEST_S, TOKEN_PREFIX, TokenOptions
from ostiaryd.secrets.model.transit_keys import BackupRefused
from ostiaryd.secrets.wire_account_tokens import issue_token
from ostiaryd.secrets.wire_aws_accounts import create_credentials, rotate_root
from ostiaryd.secrets.wire_backends import forget_values
from ostiaryd.secrets.wire_leases import carry_out
from ostiaryd.secrets.wire_role_logins import (
    JwtLogin,
    log_in_by_certificate,
    log_in_by_jwt,
    log_in_by_service_account,
)
from ostiaryd.trust import flows as trust
from ostiaryd.trust.model import AccessRefused, NonceNeeded, challenge

MAX_CAPABILITY_PATHS = 20
DEFAULT_WRAP_S = 300
VERSION = "1.15.0"
"""The version of the Vault API that the server reports."""
_TRUE = frozenset({"1", "t", "T", "true", "TRUE", "True"})
_FALSE = frozenset({"", "0", "f", "F", "false", "FALSE", "False"})
MERGE_PATCH = "application/merge-patch+json"
_NULL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
"""A null character in JSON, written as an escape whose backslash is not itself escaped."""


class VaultErrors(TypedDict):
    """An error response of the Vault API."""

    errors: list[str]


class VaultEnvelope(TypedDict):
    """The envelope of a response of the Vault API."""

    request_id: str
    lease_id: str
    renewable: bool
    lease_duration: int
    data: Any
    wrap_info: Any
    warnings: list[str] | None
    auth: Any


STATUS: tuple[tuple[type[Refused], int], ...] = (
    (TooLarge, 413),
    (Failed, 500),
    (IssuerNotFound, 500),
    (BackupRefused, 500),
    (UseNonce, 401),
    (InvalidProof, 401),
    (DatabaseDown, 502),
    (ProviderDown, 502),
    (BackendFailed, 502),
    (Unavailable, 503),
    (NotFound, 404),
    (MethodNotAllowed, 405),
    (UnsupportedOperation, 405),
    (Forbidden, 403),
    (Unauthenticated, 403),
    (AccessRefused, 403),
    (Malformed, 400),
    (Invalid, 400),
    (Conflict, 400),
    (Refused, 400),
)


def render(refusal: Refused) -> Reply:
    """Return the response to a refusal in the format of Vault: the kind of the refusal determines the status; message
    and hint are in `errors`, which is empty if the path has no value.

    Vault has no DPoP proofs; a refused proof has the status of RFC 9449.
    """
    status = next(status for kind, status in STATUS if isinstance(refusal, kind))
    messages = [] if type(refusal) is NothingStored and refusal.code == "nothing_stored" else [refusal.message]
    if messages and refusal.hint:
        messages.append(refusal.hint)
    return reply({"errors": messages}, status=status, headers=[NO_STORE])


VAULT = RouteProtocol("Vault", render, VaultErrors, refuses_methods=True)


class _SecretLogin(msgspec.Struct):
    role_id: str
    secret_id: str


class _Renewal(msgspec.Struct):
    increment: int | str | None = None


class _UnsealKey(msgspec.Struct):
    key: str = ""
    reset: bool = False


class _WrappingToken(msgspec.Struct):
    token: str = ""


class _Paths(msgspec.Struct):
    paths: list[str] | str = []
    path: list[str] | str = []


class _TokenAndPaths(msgspec.Struct):
    token: str = ""
    accessor: str = ""


async def answer_vault(call: Call) -> Reply:
    """Answer a request of the Vault API.

    The path below `/v1/` is that of HashiCorp Vault: `secret/data/PATH`, `transit/encrypt/KEY`, `auth/jwt/login`.
    """
    path = call.params["path"]
    try:
        return await _answer(call, path)
    except Refused as refusal:
        if isinstance(refusal, (UseNonce, InvalidProof)):
            call.answer_headers += challenge(refusal, resource=call.world.config.api)
        if not refusal.is_challenge and not isinstance(refusal, Unavailable) and not refusal.is_recorded:
            await record_refusal(
                call.world, "vault.request", refusal, object=path, request=call.request_id, network=call.network
            )
        raise


async def _answer(call: Call, path: str) -> Reply:
    method, is_fixed = _method_of(call), path.startswith(_FIXED)
    is_ours = path.partition("/")[0] in MOUNTS
    may_be_open = not is_ours and (is_fixed or method is VaultMethod.READ or "/ocsp" in path)
    if may_be_open and (answer_open := _find_open(call, method, path)) is not None:
        return await answer_open()
    request = _read_request(call, method)
    if is_fixed and (system := _find_system(method, path)) is not None:

        def run_system(act: Act, caller: flows.VaultCaller) -> Answer:
            _authorize_vault(call, request, act, caller)
            system.check(call, path, act, caller)
            return system.run(call, request, act, caller)

        answer = await _act(call, system.entry_action, run_system)
        if path == "sys/seal":
            forget_values(call.world)
        return _envelope(call, answer)
    login_method = _enabled_method(call, path) if is_fixed else None
    try:
        answer = await _run_operation(call, request, login_method)
    except KeyNeeded as need:
        key = await call.world.get_singleton(KeyGenerator).generate(need.key_type, need.agent)
        answer = await _run_operation(call, msgspec.structs.replace(request, private_key=key), login_method)
    match answer.upstream:
        case None:
            return _envelope(call, answer)
        case IssueToken() as issue:
            return _envelope(call, await issue_token(call, issue))
        case CreateCredentials() as create:
            return _envelope(call, await create_credentials(call, create))
        case RotateAwsRoot(holding):
            return _envelope(call, await rotate_root(call, holding))
        case upstream:
            return _envelope(call, await carry_out(call, upstream))


_FIXED = ("auth/", "sys/")
"""The beginnings of the paths of the server itself."""


def _read_request(call: Call, method: VaultMethod) -> VaultRequest:
    """Return the request of a call. Raises Malformed or Invalid for a path, a body or a header that is not valid."""
    _check_headers(call)
    path = check_path(call.params["path"])
    return VaultRequest(method=method, path=path, body=_body_of(call), query=_query_of(call))


def _find_open(call: Call, method: VaultMethod, path: str) -> Callable[[], Awaitable[Reply]] | None:
    """Return the function that answers a request that needs no token; None if the path needs a token. Raises
    UnsupportedOperation for another method, Malformed for a malformed path.
    """
    if path in _OPEN:
        _require(method, VaultMethod.READ)
        return partial(_show_open, call, path)
    if "/ocsp" in path and (responder := find_ocsp_mount(call.world.db.read(), path)) is not None:
        mount, rest = responder
        _require(method, VaultMethod.READ if rest else VaultMethod.WRITE)
        return partial(_answer_ocsp, call, mount, rest)
    if (login := _LOGINS.get(path)) is not None:
        _require(method, VaultMethod.WRITE)
        return partial(_log_in, call, login)
    if path == "sys/unseal":
        _require(method, VaultMethod.WRITE)
        return partial(_unseal, call)
    if path in _WRAPPINGS:
        _require(method, VaultMethod.WRITE, VaultMethod.READ)
        return partial(_use_wrapping, call)
    login_method = _enabled_method(call, path) if path.endswith("/login") else None
    if login_method is not None and path == f"{login_method.path}/login":
        _require(method, VaultMethod.WRITE)
        return partial(_log_in_at, call, login_method)
    if method is VaultMethod.READ and (public := find_resource(call.world.db.read(), path)) is not None:
        return partial(_show_resource, call, public)
    return None


async def _show_open(call: Call, path: str) -> Reply:
    body = _OPEN[path](call)
    is_sealed_health = path == "sys/health" and body["sealed"]
    return reply(body, status=503 if is_sealed_health else 200, headers=[NO_STORE])


async def _show_resource(call: Call, public: PublicResource) -> Reply:
    _check_headers(call)
    if public.name == "json":
        return _envelope(call, Answer(data=render_members(call.world.db.read(), public.issuer)))
    content, media_type = await render_resource(call.world, public)
    return Reply(200, content, media_type, [NO_STORE])


async def _answer_ocsp(call: Call, mount: str, rest: str) -> Reply:
    """Answer an OCSP request about a certificate of a mount; the request is in the body or in the path (RFC 6960
    appendix A.1).
    """
    if rest:
        request = decode_ocsp_path(rest)
    elif call.method == "POST":
        call.expect(OCSP_REQUEST)
        request = call.body
    else:
        raise UnsupportedOperation("unsupported operation")
    try:
        answer = call.world.get_singleton(MountOcspResponder).answer_at(mount, request)
    except Malformed as refusal:
        answer = MALFORMED
        with suppress(Refused):
            await record_refusal(
                call.world, "cert.status", refusal, object=mount, request=call.request_id, network=call.network
            )
    return Reply(200, answer, OCSP_RESPONSE, [NO_STORE])


async def _run_operation(call: Call, request: VaultRequest, login_method: Mount | None) -> Answer:
    """Run the operation of a request as one act of the authenticated caller, and return the response. Raises KeyNeeded
    if a key must be generated first.
    """
    try:
        mount, unbound, enabled = _find(call, request, login_method)
    except Refused as refusal:
        if _find_reason(request.path) is None:
            await _act(call, "vault.request", partial(_refuse, call, request, refusal))
        raise

    def run_operation(act: Act, caller: flows.VaultCaller) -> Answer:
        operation = unbound.bind(caller) if isinstance(unbound, flows.CallerOperation) else unbound
        flows.check_enabled(act.tx, enabled)
        _authorize_vault(call, request, act, caller, operation.exists)
        act.entry.object = f"{mount}/{operation.path}"
        act.entry.detail = {"operation": operation.name}
        flows.authorize_operation(act, caller, mount, operation, config=call.world.config)
        return operation.run(act)

    return await _act(call, _entry_action(unbound), run_operation)


def _refuse(call: Call, request: VaultRequest, refusal: Refused, act: Act, caller: flows.VaultCaller) -> Answer:
    """Refuse a request that is no operation, after the authentication of its caller. A caller whom the policies permit
    nothing at the path gets the response of a path that exists, and does not learn which mounts exist.
    """
    _authorize_vault(call, request, act, caller)
    mount, path = split_path(request.path)
    if mount != "sys" and (isinstance(refusal, NothingStored) or mounts.is_hidden(act, caller, request.path)):
        action = _ACTIONS[request.method]
        flows.authorize(act, caller, mount, path, action, request.method.value, config=call.world.config)
    raise refusal


def _find(
    call: Call, request: VaultRequest, method: Mount | None
) -> tuple[str, flows.Operation | flows.CallerOperation, Mount | None]:
    """Return the mount's path, the operation of a request, and the record of the mount (None for a fixed mount). Raises
    UnsupportedOperation or NothingStored for an unsupported operation or path, Malformed or Invalid for a wrong body.
    """
    path = request.path
    kind, _, rest = path.partition("/")
    if kind not in RESERVED:
        return flows.find_operation(call.world.db.read, request)
    if path.startswith(lease.PREFIX):
        return *lease.find_operation(call.world.db.read(), request), None
    second = rest.partition("/")[0]
    if kind == "sys" and second in ("mounts", "auth", "remount"):
        return *mounts.find_operation(request), None
    if kind == "sys" and second in ("policy", "policies"):
        return *policies.find_operation(request), None
    if kind == CUBBYHOLE:
        return CUBBYHOLE, cubbyhole.find_operation(request), None
    if path.startswith(transit.TOOLS):
        return "sys", transit.find_tool(request), None
    if kind == "auth" and second == "token":
        return "auth", token.find_operation(rest.partition("/")[2].removesuffix("/"), request, _issuer(call)), None
    if method is not None:
        below = check_path(path)[len(method.path) + 1 :].removesuffix("/")
        if method.type == "approle":
            return "auth", approle.find_operation(method.path, below, request), method
        roles, private = ROLE_LOGINS[method.type].roles, call.world.config.private
        return "auth", login_methods.find_operation(roles, method.path, below, request, private=private), method
    hint = _find_reason(path) or "see the page on conformance"
    raise NothingStored("unsupported path", hint=hint, code="unsupported_path")


_ABSENT = {
    "identity": "the registry of agents has the place of the identity engine: see `ostiary agent list`",
    "sys/audit": "there are no audit devices, because the ledger records each request: see `ostiary audit`",
    "sys/namespaces": "namespaces are not supported",
    "sys/plugins": "there are no plugins",
    "sys/quotas": "the configuration of the server limits requests",
    "sys/rotate": "an administrator rotates the keys: ostiary secret rotate-keys",
    **{
        f"auth/{method}": "agents have no passwords: log in at auth/approle or auth/jwt; persons sign in at the console"
        for method in PASSWORD_METHODS
    },
}
"""The parts of the Vault API that the server does not have, each with the reason or the replacement."""


def _find_reason(path: str) -> str | None:
    """Return why the server does not have a part of the Vault API; None for any other path."""
    return next((why for start, why in _ABSENT.items() if f"{path}/".startswith(f"{start}/")), None)


def _enabled_method(call: Call, path: str) -> Mount | None:
    if not path.startswith(AUTH) or path.startswith("auth/token/"):
        return None
    return flows.find_method(call.world.db.read(), check_path(path))


def _entry_action(unbound: flows.Operation | flows.CallerOperation) -> str:
    return ENTRY_ACTIONS[unbound.action]


def _authorize_vault(
    call: Call,
    request: VaultRequest,
    act: Act,
    caller: flows.VaultCaller,
    exists: Callable[[Act], bool] | None = None,
) -> None:
    """Check that the Vault policies of the caller's token permit a request. Raises Forbidden if they do not, Malformed
    for a malformed request.
    """
    if not flows.lists_of(caller):
        return
    path, capability = _place_of(request.method, request.path), _CAPABILITIES[request.method]
    if request.method is VaultMethod.WRITE and exists is not None and not exists(act):
        capability = "create"
    parameters = {name: value for name, value in request.query.items() if name != "list"}
    acl_request = AclRequest(path, capability, {**parameters, **request.body}, _wrap_seconds(call) or 0)
    flows.authorize_request(act, caller, acl_request)


def _place_of(method: VaultMethod, path: str) -> str:
    """Return the path by which Vault policies decide: with a slash at its end for a list, and without for others."""
    path = path.removesuffix("/")
    return f"{path}/" if method is VaultMethod.LIST else path


def _issuer(call: Call) -> token.IssueChild:
    """Return a function that issues a child token for this request and returns the response with the token."""

    def issue(act: Act, caller: flows.VaultCaller, options: TokenOptions, seconds: int, networks: list[str]) -> Answer:
        address, config = call.origin, call.world.config
        login = flows.create_child(
            act, caller, options, seconds=seconds, address=address, networks=networks, config=config
        )
        return _logged_in(call, login)

    return issue


async def _act(call: Call, action: str, run: Callable[[Act, flows.VaultCaller], Answer]) -> Answer:
    """Run an operation of the authenticated caller as one act; return the response. If policies must be evaluated
    outside the act, the act runs again with their results.
    """
    credentials, seconds = _credentials_of(call), _wrap_seconds(call)

    def flow(act: Act) -> Answer:
        act.entry.object = call.params["path"]
        caller = flows.authenticate(act, credentials, config=call.world.config)
        if call.params["path"] not in _WHILE_SEALED:
            flows.check_open(act.tx)
        answer = run(act, caller)
        return answer if seconds is None or answer.status != 200 else _wrap(call, act, caller, answer, seconds)

    answer = await act_with_answers(
        call.world,
        lambda again: act(call.world, action, flow, request=call.request_id, again=again, network=call.network),
    )
    call.is_proven = True
    return answer


# --- the request


def _check_headers(call: Call) -> None:
    """Check that the request has no unsupported header that would change the meaning of the request. Raises Invalid
    otherwise.
    """
    if (namespace := call.header(b"x-vault-namespace")) and namespace.strip("/") not in ("", "root"):
        raise Invalid("namespaces are not supported", hint="leave out X-Vault-Namespace", code="no_namespaces")
    if call.params["path"] in _UNWRAPPED:
        _check_unwrapped(call)


def _check_unwrapped(call: Call) -> None:
    """Check that the request does not ask for response wrapping, since its response cannot be wrapped. Raises Invalid
    otherwise.
    """
    if call.header(b"x-vault-wrap-ttl"):
        raise Invalid(
            "the response to this request cannot be wrapped", hint="leave out X-Vault-Wrap-TTL", code="no_wrapping"
        )


def _wrap_seconds(call: Call) -> int | None:
    """Return the lifetime in seconds that the request's wrapping header states; None if the request has no such header.
    Raises Invalid for a malformed header, or a lifetime out of range.
    """
    text = call.header(b"x-vault-wrap-ttl")
    if not text:
        return None
    seconds = parse_duration(text, field="X-Vault-Wrap-TTL") // SECOND
    if not 1 <= seconds <= LONGEST_S:
        raise Invalid(f"`X-Vault-Wrap-TTL` must be 1 to {LONGEST_S} seconds")
    return seconds


def _method_of(call: Call) -> VaultMethod:
    match call.method:
        case "GET" | "HEAD":
            return VaultMethod.LIST if _is_list(call) else VaultMethod.READ
        case "LIST":
            return VaultMethod.LIST
        case "PATCH":
            call.expect(MERGE_PATCH)
            return VaultMethod.PATCH
        case "DELETE":
            return VaultMethod.DELETE
    return VaultMethod.WRITE


def _is_list(call: Call) -> bool:
    """Return whether a GET lists: its parameter `list` is one of the texts that stand for true in Vault. Raises
    Malformed for another text.
    """
    text = _query_of(call).get("list", "")
    if text not in (*_TRUE, *_FALSE):
        raise Malformed("the query parameter `list` must be true or false")
    return text in _TRUE


def _body_of(call: Call) -> dict[str, Any]:
    """Return the members of the request's body. As in Vault, the body is JSON, whatever content type the request
    states. Raises Malformed if the body is not a JSON object, or has a null character.
    """
    if not call.body or call.method in ("GET", "HEAD", "LIST"):
        return {}
    if _NULL.search(call.body):
        raise Malformed("the body contains a null character")
    body = canonical.parse(call.body, max_bytes=SMALL_BODY, max_depth=MAX_DEPTH)
    if body is None:  # Vault's command line sends `null` for a write without members
        return {}
    if not isinstance(body, dict):
        raise Malformed("the body is not a JSON object")
    return body


def _query_of(call: Call) -> dict[str, str]:
    if not call.query:
        return {}
    parsed = parse_form(call.query.encode("latin-1"))
    if repeated := [name for name, values in parsed.items() if len(values) > 1]:
        raise Malformed(f"the query parameter {repeated[0][:64]!a} was sent more than once")
    return {name: values[0] for name, values in parsed.items()}


def _request_of(call: Call) -> trust.Request:
    unverified_proof = call.header(b"dpop", twice=InvalidProof)
    return trust.Request(call.method, call.uri, call.header(b"authorization"), unverified_proof, call.certificate)


def _credentials_of(call: Call) -> flows.VaultCredentials:
    if unverified_token := call.header(b"x-vault-token"):
        return flows.VaultCredentials(unverified_token, None, call.origin)
    request = _request_of(call)
    scheme, _, value = (request.authorization or "").partition(" ")
    if scheme.lower() == "bearer" and value.strip().startswith(TOKEN_PREFIX):
        return flows.VaultCredentials(value.strip(), None, call.origin)
    return flows.VaultCredentials("", request, call.origin)


def _require(method: VaultMethod, *methods: VaultMethod) -> None:
    if method not in methods:
        raise UnsupportedOperation("unsupported operation")


# --- the answer


def _envelope(call: Call, answer: Answer) -> Reply:
    if answer.status == 204:
        return Reply(204, headers=[NO_STORE])
    return reply(_render(call, answer), status=answer.status, headers=[NO_STORE])


def _render(call: Call, answer: Answer) -> VaultEnvelope:
    return {
        "request_id": call.request_id,
        "lease_id": answer.lease_id,
        "renewable": answer.is_renewable,
        "lease_duration": answer.lease_s,
        "data": answer.data,
        "wrap_info": answer.wrap_info,
        "warnings": None,
        "auth": answer.auth,
    }


# --- wrapping


def _wrap(call: Call, act: Act, caller: flows.VaultCaller, answer: Answer, seconds: int) -> Answer:
    """Wrap a response, and return the response that contains the wrapping token. Raises Invalid for a response that
    comes from another system.
    """
    if answer.upstream is not None:
        raise Invalid(
            "a response that comes from another system cannot be wrapped",
            hint="leave out X-Vault-Wrap-TTL",
            code="no_wrapping",
        )
    path, config = call.params["path"], call.world.config
    content = msgspec.json.encode(_render(call, answer))
    wrapping = flows.wrap_answer(act, caller, content, path=path, seconds=seconds, config=config)
    return _show_wrapping(wrapping, "" if answer.auth is None else answer.auth["accessor"])


def _show_wrapping(wrapping: flows.Wrapping, wrapped_accessor: str = "") -> Answer:
    """Return the response with a wrapping token. `wrapped_accessor`: the accessor of a token that is wrapped."""
    record = wrapping.record
    return Answer(
        wrap_info={
            "token": wrapping.text,
            "accessor": record.accessor,
            "ttl": record.seconds,
            "creation_time": render_time(record.created_at),
            "creation_path": record.path,
            "wrapped_accessor": wrapped_accessor,
        }
    )


def _wrap_body(call: Call, request: VaultRequest, act: Act, caller: flows.VaultCaller) -> Answer:
    """Wrap the body of the request, for the time in the wrapping header, or for five minutes; return the response with
    the wrapping token.
    """
    answer = Answer(data=dict(request.body))
    return answer if _wrap_seconds(call) else _wrap(call, act, caller, answer, DEFAULT_WRAP_S)


async def _use_wrapping(call: Call) -> Reply:
    """Unwrap the answer of a wrapping token, look the token up, or replace it. The wrapping token is the token of the
    request, or `token` in the body.

    The wrapping token authenticates the request. If the request has another token, that token is verified as well.
    """
    request = _read_request(call, _method_of(call))
    credentials, verb = _credentials_of(call), request.path.rpartition("/")[2]
    named = request.read_body(_WrappingToken).token
    unverified_token = named or credentials.unverified_token
    if not unverified_token:
        raise flows.WrappingRefused("missing wrapping token", hint="send the wrapping token as X-Vault-Token")

    def run(act: Act) -> bytes | Answer:
        act.entry.object = request.path
        if named and verb != "lookup" and credentials.unverified_token:
            if credentials.unverified_token == named:
                raise flows.WrappingRefused("the wrapping token was sent twice", hint="leave `token` out of the body")
            flows.authenticate(act, credentials, config=call.world.config)
        match verb:
            case "unwrap":
                return flows.unwrap_answer(act, unverified_token)
            case "rewrap":
                return _show_wrapping(flows.rewrap_answer(act, unverified_token))
        record = flows.find_wrapping(act, unverified_token)
        return Answer(
            data={
                "creation_path": record.path,
                "creation_time": render_time(record.created_at),
                "creation_ttl": record.seconds,
            }
        )

    action = {"unwrap": "vault.unwrap", "rewrap": "vault.wrap", "lookup": "vault.lookup"}[verb]
    answer = await act(call.world, action, run, request=call.request_id, network=call.network)
    return Reply(200, answer, headers=[NO_STORE]) if isinstance(answer, bytes) else _envelope(call, answer)


# --- auth


async def _log_in(call: Call, login: Callable[[Call, VaultRequest], Awaitable[Answer]]) -> Reply:
    return _envelope(call, await login(call, _read_request(call, VaultMethod.WRITE)))


async def _log_in_at(call: Call, method: Mount) -> Reply:
    """Log an agent in at a login method that an agent has enabled."""
    request = _read_request(call, VaultMethod.WRITE)
    _check_unwrapped(call)
    if method.type == "approle":
        return _envelope(call, await _login_by_secret_id(call, request, method))
    return _envelope(call, _logged_in(call, await ROLE_LOGINS[method.type].log_in(call, request, method)))


async def _login_by_token(call: Call, request: VaultRequest) -> Answer:
    body = request.read_body(JwtLogin)
    plain = _request_of(call)
    scheme = "Bearer" if plain.unverified_proof is None else "DPoP"
    presented = msgspec.structs.replace(plain, authorization=f"{scheme} {body.jwt}")
    config, address = call.world.config, call.origin
    login = await act(
        call.world,
        "vault.login",
        lambda act: flows.login_by_token(act, presented, role=body.role, address=address, config=config),
        request=call.request_id,
        network=call.network,
    )
    return _logged_in(call, login)


async def _login_by_secret(call: Call, request: VaultRequest) -> Answer:
    body = request.read_body(_SecretLogin)
    config, address = call.world.config, call.origin
    login = await act(
        call.world,
        "vault.login",
        lambda act: flows.login_by_secret(act, body.role_id, body.secret_id, address=address, config=config),
        request=call.request_id,
        network=call.network,
    )
    return _logged_in(call, login)


def _logged_in(call: Call, login: flows.Login) -> Answer:
    return Answer(auth=token.auth_of(login.token, text=login.text, agent=login.agent, task=login.task))


async def _login_by_secret_id(call: Call, request: VaultRequest, method: Mount) -> Answer:
    body = request.read_body(_SecretLogin)
    config, address = call.world.config, call.origin
    login = await act(
        call.world,
        "vault.login",
        lambda act: flows.login_by_secret_id(act, method, body.role_id, body.secret_id, address=address, config=config),
        request=call.request_id,
        network=call.network,
    )
    return _logged_in(call, login)


class _RoleMethod(NamedTuple):
    """A type of login methods that agents enable: its configuration and roles, and the login at one of its roles."""

    roles: login_methods.LoginMethod
    log_in: Callable[[Call, VaultRequest, Mount], Awaitable[flows.Login]]


ROLE_LOGINS = {
    "cert": _RoleMethod(cert.METHOD, log_in_by_certificate),
    "jwt": _RoleMethod(jwt.METHOD, log_in_by_jwt),
    "kubernetes": _RoleMethod(kubernetes.METHOD, log_in_by_service_account),
}
"""The login methods of `ROLE_METHODS`, by their type."""


def _lookup_self(call: Call, request: VaultRequest, act: Act, caller: flows.VaultCaller) -> Answer:
    text = _credentials_of(call).unverified_token
    if caller.token is not None:
        return Answer(data=token.render_token(caller.token, text=text, caller=caller, now=act.now))
    data: dict[str, object] = {
        "accessor": "",
        "display_name": caller.agent.name,
        "entity_id": "",
        "explicit_max_ttl": 0,
        "id": text,
        "meta": {"role": caller.agent.name, "task": caller.task.task_id},
        "num_uses": 0,
        "orphan": True,
        "path": "auth/token/login",
        "policies": token.names_of(None),
        "renewable": False,
        "type": "service",
    }
    return Answer(data=data)


def _renew_self(call: Call, request: VaultRequest, act: Act, caller: flows.VaultCaller) -> Answer:
    increment = request.read_body(_Renewal).increment
    # 0 stands for the default lifetime, as in Vault
    seconds = parse_duration(increment or 0, field="increment") // SECOND or None
    text = _credentials_of(call).unverified_token
    renewed = flows.renew_token(act, flows.token_of(caller), seconds)
    return Answer(auth=token.render_auth(renewed, text=text, caller=caller))


def _revoke_self(call: Call, request: VaultRequest, act: Act, caller: flows.VaultCaller) -> Answer:
    flows.revoke_token(act, flows.token_of(caller))
    return Answer(status=204)


_LOGINS = {"auth/jwt/login": _login_by_token, "auth/approle/login": _login_by_secret}


# --- sys


def _show_health(call: Call) -> dict[str, object]:
    """Return whether the server can return secrets now, in the format of `sys/health`."""
    return {
        "initialized": True,
        "sealed": flows.read_status(call.world.db.read()).is_sealed,
        "standby": False,
        "performance_standby": False,
        "replication_performance_mode": "disabled",
        "replication_dr_mode": "disabled",
        "server_time_utc": call.world.now() // SECOND,
        "version": VERSION,
        "cluster_name": call.world.config.trust_domain,
        "cluster_id": "",
    }


def _show_seal(call: Call) -> dict[str, object]:
    """Return the state of the seal in the format of Vault. One key unseals the secrets."""
    return {
        "type": "ostiary",
        "initialized": True,
        "sealed": flows.read_status(call.world.db.read()).is_sealed,
        "t": 1,
        "n": 1,
        "progress": 0,
        "nonce": "",
        "version": VERSION,
        "migration": False,
        "recovery_seal": True,
        "storage_type": "database",
        "cluster_name": call.world.config.trust_domain,
    }


def _show_leader(call: Call) -> dict[str, object]:
    """Return that there is no high availability, in the form of a Vault without it."""
    return {"ha_enabled": False, "is_self": False, "leader_address": "", "leader_cluster_address": ""}


def _show_init(call: Call) -> dict[str, object]:
    """Return that the server is initialized, because the server creates its keys at its start."""
    return {"initialized": True}


_OPEN: dict[str, Callable[[Call], dict[str, object]]] = {
    "sys/health": _show_health,
    "sys/init": _show_init,
    "sys/leader": _show_leader,
    "sys/seal-status": _show_seal,
}
"""Paths that need no authentication, with the functions that answer them."""


async def _unseal(call: Call) -> Reply:
    """Unseal the secrets with the unseal key, which authenticates the request; return the response of
    `sys/seal-status`. A `reset` changes nothing, because one key unseals the secrets.
    """
    body = _read_request(call, VaultMethod.WRITE).read_body(_UnsealKey)
    if not (body.key or body.reset):
        raise Malformed("`key` is missing", hint="send the text in the file of the unseal key")
    if not body.reset and flows.read_status(call.world.db.read()).is_sealed:
        unverified_key = decode_key(body.key, field="key")
        await act(
            call.world,
            "vault.unseal",
            lambda act: flows.unseal_secrets(act, unverified_key),
            request=call.request_id,
            network=call.network,
        )
    return reply(_show_seal(call), headers=[NO_STORE])


def _seal(call: Call, request: VaultRequest, act: Act, caller: flows.VaultCaller) -> Answer:
    """Seal the secrets for the unseal key that an administrator has set; return the response."""
    flows.seal_secrets(act, None)
    return Answer(status=204)


def _check_seal(call: Call, path: str, act: Act, caller: flows.VaultCaller) -> None:
    flows.authorize(act, caller, "sys", "seal", SecretAction.SEAL, "seal", config=call.world.config)


def _show_mount(call: Call, request: VaultRequest, act: Act, caller: flows.VaultCaller) -> Answer:
    """Return the mount that serves a path. Vault's command line reads the version of a key-value store from the
    response.
    """
    mount = _find_mount(call, request.path, act, caller)
    return Answer(data={**mounts.render_mount(mount), "path": f"{mount.path}/"})


def _find_mount(call: Call, path: str, act: Act, caller: flows.VaultCaller) -> Mount:
    """Return the mount that serves a path below `sys/internal/ui/mounts/`. Raises Forbidden if the caller may not reach
    the mount, or there is none.
    """
    path = path.removeprefix(_MOUNT_OF).strip("/")
    for mount in mounts.list_reachable(act, caller, is_auth=False):
        if f"{path}/".startswith(f"{mount.path}/"):
            return mount
    raise Forbidden(f"preflight capability check returned 403, no mount {path.partition('/')[0][:64]!a}")


def _list_mounts(call: Call, request: VaultRequest, act: Act, caller: flows.VaultCaller) -> Answer:
    """Return the secret engines that the caller may reach."""
    return Answer(data=mounts.render_mounts(mounts.list_reachable(act, caller, is_auth=False)))


def _show_mounts(call: Call, request: VaultRequest, act: Act, caller: flows.VaultCaller) -> Answer:
    """Return the mounts that the caller may reach, in the form that the web interface of Vault requests."""
    secret, auth = (mounts.list_reachable(act, caller, is_auth=is_auth) for is_auth in (False, True))
    return Answer(data={"secret": mounts.render_mounts(secret), "auth": mounts.render_mounts(auth)})


def _show_capabilities(call: Call, request: VaultRequest, act: Act, caller: flows.VaultCaller) -> Answer:
    body = request.read_body(_Paths)
    stated = body.paths or body.path
    paths = parse_texts(stated, field="paths") if isinstance(stated, str) else stated
    if not 0 < len(paths) <= MAX_CAPABILITY_PATHS:
        raise Invalid(f"`paths` must have 1 to {MAX_CAPABILITY_PATHS} members")
    by_path = {path: _capabilities(call, act, caller, path) for path in paths}
    return Answer(data={**by_path, "capabilities": by_path[paths[0]]})


def _show_capabilities_of_token(call: Call, request: VaultRequest, act: Act, caller: flows.VaultCaller) -> Answer:
    """Return the capabilities, at the requested paths, of another token of the caller's agent."""
    body = request.read_body(_TokenAndPaths)
    is_accessor = request.path.endswith("-accessor")
    unverified = body.accessor if is_accessor else body.token
    return _show_capabilities(call, request, act, flows.find_token(act, caller, unverified, is_accessor=is_accessor))


_ACTIONS = {
    VaultMethod.READ: SecretAction.READ,
    VaultMethod.LIST: SecretAction.LIST,
    VaultMethod.DELETE: SecretAction.DELETE,
    VaultMethod.PATCH: SecretAction.WRITE,
    VaultMethod.WRITE: SecretAction.WRITE,
}
_CAPABILITIES = {
    VaultMethod.READ: "read",
    VaultMethod.LIST: "list",
    VaultMethod.DELETE: "delete",
    VaultMethod.PATCH: "patch",
    VaultMethod.WRITE: "update",
}


def _capabilities(call: Call, act: Act, caller: flows.VaultCaller, path: str) -> list[str]:
    """Return the capabilities of the caller at a path, by deciding each possible request. Conditions of policies on
    parameters are ignored.
    """
    allowed: set[str] = set()
    for method in _CAPABILITIES:
        with suppress(Malformed, Invalid, NotFound, UnsupportedOperation):
            check_path(path)
            allowed |= _capabilities_of(call, act, caller, method, path)
    return sorted(allowed) or ["deny"]


def _capabilities_of(call: Call, act: Act, caller: flows.VaultCaller, method: VaultMethod, path: str) -> frozenset[str]:
    """Return the capabilities that permit the caller to use a method at a path; none if the caller may not. Raises
    UnsupportedOperation, NotFound, Malformed, Invalid if nothing has the method at this path.
    """
    capability = _CAPABILITIES[method]
    needed = frozenset({capability})
    if _find_open(call, method, path) is not None:
        return needed
    if (system := _find_system(method, path)) is not None:
        is_permitted = flows.passes(partial(system.check, call, path, act, caller))
    elif method is VaultMethod.WRITE and path in lease.OWN:
        is_permitted = True  # the lease in the body decides
    else:
        mount, unbound = _find_with_any_body(call, method, path)
        operation = unbound.bind(caller) if isinstance(unbound, flows.CallerOperation) else unbound
        if method is VaultMethod.WRITE and operation.exists is not None:
            needed |= {"create"}
        is_permitted = flows.may_carry_out(act, caller, mount, operation, config=call.world.config)
    place = _place_of(method, path)
    granted = flows.find_capabilities(act, caller, place)
    if not is_permitted or granted.isdisjoint(needed) or (flows.needs_sudo(place) and "sudo" not in granted):
        return frozenset()
    return granted & (needed | {"sudo"} if flows.needs_sudo(place) else needed)


def _find_with_any_body(
    call: Call, method: VaultMethod, path: str
) -> tuple[str, flows.Operation | flows.CallerOperation]:
    """Return the mount and the operation of a request whose body is not known. Raises as `_find`."""
    login_method = _enabled_method(call, path)
    for body in _BODIES:
        with suppress(Malformed, Invalid):
            return _find(call, VaultRequest(method=method, path=path, body=body, query={}), login_method)[:2]
    return _find(call, VaultRequest(method=method, path=path, body={}, query={}), login_method)[:2]


_MEMBERS = {
    "access_key": "A" * 16,
    "backup": "",
    "connection_url": "postgresql://localhost/",
    "creation_statements": ["select 1"],
    "credential_type": "iam_user",
    "data": {},
    "db_name": "name",
    "jwks_url": "https://localhost/",
    "kubernetes_host": "https://localhost/",
    "lease": 1,
    "lease_max": 1,
    "min_available_version": 1,
    "policy_arns": ["arn:aws:iam::aws:policy/ReadOnlyAccess"],
    "role_id": "name",
    "rotation_period": 86_400,
    "secret_key": "A" * 16,
    "type": "kv",
    "username": "name",
    "versions": [1],
}
_BODIES: tuple[dict[str, Any], ...] = ({}, _MEMBERS, {"secret_id": "name"})
"""Bodies of which at least one is valid for each operation of the API, so that policies decide about the operation."""


class _System(NamedTuple):
    """A request of a token about the token itself or the server. Besides Vault policies, only `check` decides, which
    gets call, path, act and caller, and raises Forbidden for a request that is not permitted.
    """

    methods: tuple[VaultMethod, ...]
    entry_action: str
    run: Callable[[Call, VaultRequest, Act, flows.VaultCaller], Answer]
    check: Callable[[Call, str, Act, flows.VaultCaller], object]


def _permit_every_token(call: Call, path: str, act: Act, caller: flows.VaultCaller) -> None:
    """Permit a request whose answer contains only facts about its token, or mounts that the token can reach."""


_MOUNT_OF = "sys/internal/ui/mounts/"
_SYSTEM = {
    "auth/token/lookup-self": _System(
        (VaultMethod.READ, VaultMethod.WRITE), "vault.lookup", _lookup_self, _permit_every_token
    ),
    "auth/token/renew-self": _System((VaultMethod.WRITE,), "vault.renew", _renew_self, _permit_every_token),
    "auth/token/revoke-self": _System((VaultMethod.WRITE,), "vault.revoke", _revoke_self, _permit_every_token),
    "sys/seal": _System((VaultMethod.WRITE,), "vault.seal", _seal, _check_seal),
    "sys/wrapping/wrap": _System((VaultMethod.WRITE,), "vault.wrap", _wrap_body, _permit_every_token),
    "sys/mounts": _System((VaultMethod.READ,), "vault.lookup", _list_mounts, _permit_every_token),
    "sys/internal/ui/mounts": _System((VaultMethod.READ,), "vault.lookup", _show_mounts, _permit_every_token),
    "sys/capabilities": _System((VaultMethod.WRITE,), "vault.lookup", _show_capabilities_of_token, _permit_every_token),
    "sys/capabilities-accessor": _System(
        (VaultMethod.WRITE,), "vault.lookup", _show_capabilities_of_token, _permit_every_token
    ),
    "sys/capabilities-self": _System((VaultMethod.WRITE,), "vault.lookup", _show_capabilities, _permit_every_token),
    _MOUNT_OF: _System((VaultMethod.READ,), "vault.lookup", _show_mount, _find_mount),
}


def _find_system(method: VaultMethod, path: str) -> _System | None:
    """Return the handling of a request about the token or the server; None for another path. Raises
    UnsupportedOperation for another method.
    """
    system = _SYSTEM.get(_MOUNT_OF if path.startswith(_MOUNT_OF) else path)
    if system is not None:
        _require(method, *system.methods)
    return system


_WRAPPINGS = frozenset({"sys/wrapping/unwrap", "sys/wrapping/lookup", "sys/wrapping/rewrap"})
"""Paths at which a wrapping token authenticates the request."""
_UNWRAPPED = frozenset({*_LOGINS, *_WRAPPINGS, "sys/unseal", "sys/seal"})
"""Paths whose responses are never wrapped."""
_WHILE_SEALED = frozenset({"auth/token/revoke-self", "sys/seal"})
"""Paths that work while the secrets are sealed, because they stop access."""
_ANSWERS = {200: VaultEnvelope, 202: VaultEnvelope, 204: None}
_ERRORS: tuple[Refused, ...] = (
    flows.Sealed("the secrets are sealed"),
    flows.TokenRefused("permission denied", hint="log in again"),
    NothingStored("nothing is stored"),
    UnsupportedOperation("unsupported operation"),
    NonceNeeded("AAAAAAAAAAA"),
    InvalidProof("the DPoP proof is not valid"),
    Invalid("check-and-set parameter did not match the current version"),
    BackupRefused("plaintext backup is disallowed on the policy"),
)
_BODY = Content(dict[str, Any], ("application/json",), {"data": {"password": "example"}}, is_required=False)


def _route(method: str, **more: Any) -> Route:
    return Route(method, "/v1/{path:path}", answer_vault, "", protocol=VAULT, answers=_ANSWERS, errors=_ERRORS, **more)


ROUTES = (
    _route("GET", query=(Query("list", "`true` lists a folder, as the method LIST does."),)),
    _route("LIST"),
    _route("POST", body=_BODY),
    _route("PUT", body=_BODY),
    _route("PATCH", body=Content(dict[str, Any], (MERGE_PATCH,), {"data": {"password": "example"}}, is_required=False)),
    _route("DELETE"),
)
