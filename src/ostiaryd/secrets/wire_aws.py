"""The JSON API of AWS Secrets Manager at /aws. Each request is signed with Signature Version 4.

The secret NAME is the value at `secret/NAME` of the Vault API, with the same policies, versions and ledger entries. An
unsupported action or member is refused with an error of the AWS API.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from os.path import commonprefix
from typing import Annotated, Any, Literal, NamedTuple, TypedDict, TypeVar
from urllib.parse import quote, urlsplit

import msgspec
from msgspec import Meta
from msgspec.structs import replace

from ostiary.protocol import canonical
from ostiary.protocol.decoding import convert
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
from ostiaryd.ground.http.edge import (
    MAX_DEPTH,
    NO_STORE,
    SMALL_BODY,
    Call,
    Failed,
    MethodNotAllowed,
    Reply,
    TooLarge,
    Wire,
)
from ostiaryd.ground.http.routes import Content, Route, RouteProtocol
from ostiaryd.ledger.flows import Act, act, record_refusal
from ostiaryd.policy.flows.external_pdp import act_with_answers
from ostiaryd.secrets import flows, store
from ostiaryd.secrets.flows import access_keys, deletions, keyvalue, rotations, secret_pages
from ostiaryd.secrets.flows.backends import find_backend
from ostiaryd.secrets.flows.version_tokens import set_token
from ostiaryd.secrets.model import aws
from ostiaryd.secrets.model.backend import BACKEND_MOUNT
from ostiaryd.secrets.model.keyvalue import (
    CURRENT,
    MAX_STAGES,
    Secret,
    StagesExceeded,
    check_custom,
    stages_of,
)
from ostiaryd.secrets.model.request import ENTRY_ACTIONS, SECOND, NothingStored, SecretAction, check_path, split_path
from ostiaryd.secrets.model.sigv4 import (
    RequestRepeated,
    SignatureIncomplete,
    SignatureMissing,
    SignatureRefused,
    read_request,
)
from ostiaryd.secrets.model.upstream import ReadBackend
from ostiaryd.secrets.store.rotations import Rotation
from ostiaryd.secrets.wire_backends import read_value
from ostiaryd.secrets.wire_rotations import send_due_call

T = TypeVar("T")
MOUNT = "secret"
TARGET = "secretsmanager."
_TARGET = re.compile(r"secretsmanager\.[A-Za-z]{1,40}")
MEDIA_TYPE = "application/x-amz-json-1.1"
DEFAULT_PAGE, LONGEST_PAGE = 100, 100
MOST_AT_ONCE = 20


class UnknownAction(Invalid):
    """The API of AWS Secrets Manager has no such action, or this server does not support the action."""

    code = "unknown_action"


class UnsupportedFeature(Invalid):
    """The action needs a feature of AWS that this server does not have, such as replicas."""

    code = "unsupported_feature"


AwsError = TypedDict("AwsError", {"__type": str, "Message": str})  # in a class, `__type` would be a private name
"""The error answer of the AWS API."""


TYPES: tuple[tuple[type[Refused], str, int], ...] = (
    (SignatureMissing, "MissingAuthenticationTokenException", 400),
    (SignatureIncomplete, "IncompleteSignatureException", 400),
    (RequestRepeated, "ThrottlingException", 400),
    (SignatureRefused, "InvalidSignatureException", 400),
    (flows.TokenRefused, "UnrecognizedClientException", 400),
    (Forbidden, "AccessDeniedException", 400),
    (Unauthenticated, "MissingAuthenticationTokenException", 400),
    (NotFound, "ResourceNotFoundException", 400),
    (UnknownAction, "UnknownOperationException", 400),
    (MethodNotAllowed, "UnknownOperationException", 405),
    (aws.SecretExists, "ResourceExistsException", 400),
    (UnsupportedFeature, "InvalidRequestException", 400),
    (Conflict, "InvalidRequestException", 400),
    (TooLarge, "InvalidParameterException", 400),
    (StagesExceeded, "LimitExceededException", 400),
    (aws.WrongCursor, "InvalidNextTokenException", 400),
    (Invalid, "InvalidParameterException", 400),
    (Malformed, "SerializationException", 400),
    (Failed, "InternalServiceError", 500),
    (Unavailable, "ServiceUnavailableException", 503),
    (Refused, "InvalidRequestException", 400),
)


def render(refusal: Refused) -> Reply:
    """Return a refusal in the format of AWS: the type of the error, and its message."""
    kind, status = next((name, status) for one, name, status in TYPES if isinstance(refusal, one))
    message, hint = refusal.message, refusal.hint
    if hint:  # some messages are sentences of AWS
        message += f" {hint[0].upper()}{hint[1:]}." if message.endswith(".") else f"; {hint}"
    return _json({"__type": kind, "Message": message}, status=status, headers=[(b"x-amzn-errortype", kind.encode())])


def _json(body: Any, *, status: int = 200, headers: list[tuple[bytes, bytes]] | None = None) -> Reply:
    return Reply(status, msgspec.json.encode(body), media_type=MEDIA_TYPE, headers=[NO_STORE, *(headers or [])])


AWS = RouteProtocol("AWS", render, AwsError, refuses_methods=True)


class _Place(NamedTuple):
    """The scope of the ARNs of a request, and the source of random bytes."""

    scope: aws.ArnScope
    random: Callable[[int], bytes]


class _RotationRequest(NamedTuple):
    """A rotation that must follow the act: the path of the secret, and the answer."""

    path: str
    answer: dict[str, Any]


class _Tag(msgspec.Struct):
    Key: Annotated[str, Meta(min_length=1, max_length=aws.MAX_TAG_KEY)]
    Value: Annotated[str, Meta(max_length=aws.MAX_TAG_VALUE)] = ""


class _Filter(msgspec.Struct):
    Key: str = ""
    Values: Annotated[list[Annotated[str, Meta(max_length=aws.MAX_FILTER_VALUE)]], Meta(max_length=10)] = []


_Stage = Annotated[str, Meta(min_length=1, max_length=256)]


class _Body(msgspec.Struct, kw_only=True):
    """The members of all supported actions. `_MEMBERS` has those of each action."""

    SecretId: str | None = None
    Name: str | None = None
    ClientRequestToken: str | None = None
    Description: Annotated[str, Meta(max_length=aws.MAX_DESCRIPTION)] | None = None
    SecretString: str | None = None
    SecretBinary: str | None = None
    Tags: Annotated[list[_Tag], Meta(max_length=aws.MAX_TAGS)] | None = None
    TagKeys: Annotated[list[str], Meta(max_length=aws.MAX_TAGS)] | None = None
    VersionId: str | None = None
    VersionStage: _Stage | None = None
    VersionStages: Annotated[list[_Stage], Meta(min_length=1, max_length=MAX_STAGES)] | None = None
    RemoveFromVersionId: str | None = None
    MoveToVersionId: str | None = None
    RecoveryWindowInDays: int | None = None
    ForceDeleteWithoutRecovery: bool = False
    MaxResults: Annotated[int, Meta(ge=1, le=LONGEST_PAGE)] | None = None
    NextToken: str | None = None
    Filters: Annotated[list[_Filter], Meta(max_length=10)] | None = None
    IncludeDeprecated: bool = False
    IncludePlannedDeletion: bool = False
    KmsKeyId: str | None = None
    RotationLambdaARN: str | None = None
    RotationRules: aws.RotationRules | None = None
    RotateImmediately: bool = True
    SortOrder: Literal["asc", "desc"] = "asc"
    SortBy: Literal["created-date", "last-accessed-date", "last-changed-date", "name"] = "created-date"
    ForceOverwriteReplicaSecret: bool = False
    SecretIdList: Annotated[list[str], Meta(min_length=1, max_length=MOST_AT_ONCE)] | None = None

    @property
    def has_value(self) -> bool:
        """Return whether the body has a value of a secret."""
        return self.SecretString is not None or self.SecretBinary is not None

    def __repr__(self) -> str:
        """Return a text without members of the body, which are secret."""
        return "_Body()"


class _Action(NamedTuple):
    """An action: its name in policies, its name in ledger entries, and its flow, which gets act, name, body and
    place.
    """

    kind: SecretAction
    operation: str
    run: Callable[[Act, str, _Body, _Place], dict[str, Any] | _RotationRequest]


async def answer_aws(call: Call) -> Reply:
    """Answer a request of AWS Secrets Manager.

    The header `X-Amz-Target` names the action, such as `secretsmanager.GetSecretValue`.
    """
    call.answer_headers.append((b"x-amzn-requestid", call.request_id.encode("latin-1")))
    try:
        return _json(await _answer(call))
    except Refused as refusal:
        if not refusal.is_challenge and not isinstance(refusal, Unavailable) and not refusal.is_recorded:
            target = call.header(b"x-amz-target") or ""
            target = target if _TARGET.fullmatch(target) else ""
            await record_refusal(
                call.world, "vault.request", refusal, object=target, request=call.request_id, network=call.network
            )
        raise


async def answer_aws_with_slash(call: Call) -> Reply:
    """Answer a request of AWS Secrets Manager at the path with a slash at its end, which some SDKs use."""
    return await answer_aws(call)


async def _answer(call: Call) -> dict[str, Any]:
    name = (call.header(b"x-amz-target") or "").removeprefix(TARGET)
    if name not in NAMES:
        raise UnknownAction(
            f"the action {name[:64]!a} is not supported",
            hint="see the supported actions in docs/reference/conformance.md",
        )
    body = canonical.parse(call.body or b"{}", max_bytes=SMALL_BODY, max_depth=MAX_DEPTH)
    if name == "GetRandomPassword":
        options = _convert(body, aws.PasswordOptions)
        await _act(call, "vault.use", is_change=False, run=lambda act, caller: _note_random(act))
        return {"RandomPassword": aws.make_password(options, random=call.world.random)}
    if not isinstance(body, dict):
        raise Malformed("the body is not a JSON object", hint="send the parameters of the action as a JSON object")
    if name in _UNSUPPORTED:
        body = {member: value for member, value in body.items() if member == "SecretId"}
    if unknown := set(body) - _MEMBERS.get(name, {"SecretId"}):
        raise Invalid(
            f"the member {min(unknown)[:64]!a} is not supported for {name}",
            hint="see the supported members in docs/reference/conformance.md",
        )
    read = _convert(body, _Body)
    if name == "BatchGetSecretValue":
        return await _get_values(call, read)
    if name == "ListSecrets":
        return await _list_secrets(call, read)
    secret_id = read.Name if name == "CreateSecret" else read.SecretId
    is_forced = name == "DeleteSecret" and read.ForceDeleteWithoutRecovery
    return await _one(call, _DELETE_ALL if is_forced else _ACTIONS[name], secret_id, read)


def _convert(body: object, kind: type[T]) -> T:
    """Return a body as a value of the type `kind`. Raises Invalid, whose message names the member and the limit, and no
    value.
    """
    try:
        return convert(body, kind)
    except msgspec.ValidationError as error:
        raise Invalid(str(error)) from None


def _note_random(act: Act) -> None:
    act.entry.object = "random"


async def _one(call: Call, action: _Action, secret_id: str | None, body: _Body) -> dict[str, Any]:
    """Run an action on one secret in one act, decided as the same request to the Vault API would be."""
    place = _Place(_scope(call), call.world.random)

    def run(act: Act, caller: flows.VaultCaller) -> dict[str, Any] | ReadBackend | _RotationRequest:
        if secret_id is None and action is _UNSUPPORTED["ValidateResourcePolicy"]:  # its SecretId is optional
            raise _no_policy("PATH")
        if secret_id is None:
            raise Invalid("`Name` (for CreateSecret) or `SecretId` is missing")
        path = _check_name(aws.check_name(secret_id) if body.Name is not None else place.scope.read_id(secret_id))
        if path.endswith("/"):
            raise Invalid("the name of a secret must not end with a slash")
        head, rest = split_path(path)
        mount, below = (head, rest) if head == BACKEND_MOUNT else (MOUNT, path)
        act.entry.object = f"{mount}/{below}"
        act.entry.detail = {"operation": action.operation, "api": "aws"}
        config = call.world.config
        flows.authorize(act, caller, mount, below, action.kind, action.operation, config=config)
        if mount == MOUNT:
            return action.run(act, path, body, place)
        if action is not _READ_VALUE or body.VersionId is not None or body.VersionStage not in (None, CURRENT):
            raise Invalid(
                "this API reads only the present value of a secret of a back end",
                hint="use GetSecretValue without VersionId and VersionStage, or change the secret at the back end",
            )
        name, below = split_path(below)
        find_backend(act.tx, name)
        return ReadBackend(name, below, caller.holding)

    is_change = action.kind in (SecretAction.WRITE, SecretAction.DELETE)
    answer: dict[str, Any] | ReadBackend | _RotationRequest
    answer = await _act(call, ENTRY_ACTIONS[action.kind], is_change=is_change, run=run)
    if isinstance(answer, ReadBackend):
        return await _read_backend(call, answer, place)
    return await _rotate_now(call, answer) if isinstance(answer, _RotationRequest) else answer


def _scope(call: Call) -> aws.ArnScope:
    return aws.ArnScope(call.world.config.aws_region, call.world.config.aws_account)


def _check_name(name: str) -> str:
    """Return a name of a secret that is also a path of the Vault API. Raises Invalid otherwise."""
    try:
        return check_path(name)
    except Malformed as error:
        raise Invalid(error.message) from None


async def _rotate_now(call: Call, rotation: _RotationRequest) -> dict[str, Any]:
    """Send the new value to the service of a secret; return the answer. If the call is running already, its new value
    gets the requested version. Raises Conflict if the service does not accept the value.
    """
    try:
        await send_due_call(call.world, rotation.path)
    except Refused as refusal:
        failed = Conflict(
            f"the secret was not rotated: {refusal.message}", hint="the present value stays, and the server tries again"
        )
        failed.is_recorded = True  # by the act `rotation.fail`
        raise failed from None
    return rotation.answer


async def _read_backend(call: Call, upstream: ReadBackend, place: _Place) -> dict[str, Any]:
    """Return the present value of a secret in a back end. Its version is a keyed hash of the value."""
    value, name = await read_value(call, upstream), f"{BACKEND_MOUNT}/{upstream.name}/{upstream.path}"
    return {
        "ARN": place.scope.make_arn(name),
        "Name": name,
        "VersionId": hmac.digest(call.world.keys.derive("backend version"), value.json, "sha256").hex()[:32],
        **aws.render_value(msgspec.json.encode(value.data)),
        "VersionStages": [CURRENT],
    }


async def _act(call: Call, action: str, *, is_change: bool, run: Callable[[Act, flows.VaultCaller], Any]) -> Any:
    """Run an act of the agent that signed the request; if remote policies are needed, run it again with their
    verdicts.
    """
    config, now = call.world.config, call.world.now()
    public = urlsplit(call.uri)
    signed = read_request(
        call.headers,
        call.body,
        path=quote(public.path, safe="/-_.~"),
        query=call.query,
        host=public.netloc,
        region=config.aws_region,
        now=now,
    )

    def flow(act: Act) -> Any:
        caller = access_keys.authenticate_signed(act, signed, address=call.origin, is_change=is_change, config=config)
        return run(act, caller)

    return await act_with_answers(
        call.world,
        lambda again: act(call.world, action, flow, request=call.request_id, again=again, network=call.network),
    )


# --- one secret


def _find(act: Act, name: str, *, may_be_deleted: bool = False) -> Secret:
    """Return a secret. Raises NothingStored if there is none, and SecretState if the secret is scheduled for
    deletion.
    """
    secret = store.keyvalue.get(act.tx, MOUNT, name)
    if secret is None or _is_purged(secret, act.now):
        raise NothingStored("Secrets Manager can't find the specified secret.")
    if aws.deletion_time(secret.custom) is not None and not may_be_deleted:
        raise aws.SecretState(
            "You can't perform this operation on the secret because it was marked for deletion.",
            hint="restore the secret",
        )
    return secret


def _is_purged(secret: Secret, now: int) -> bool:
    at = aws.deletion_time(secret.custom)
    return at is not None and at <= now


def _create(act: Act, name: str, body: _Body, place: _Place) -> dict[str, Any]:
    value = aws.read_value(body.SecretString, body.SecretBinary) if body.has_value else None
    token = aws.check_token(body.ClientRequestToken, random=place.random)
    present = store.keyvalue.get(act.tx, MOUNT, name)
    if present is not None and _is_purged(present, act.now):
        keyvalue.delete_secret(act, MOUNT, name)
        present = None
    if present is not None:
        if aws.deletion_time(present.custom) is not None:
            raise aws.SecretState(
                "You can't create this secret because a secret with this name is already scheduled for deletion.",
                hint="restore the secret, or delete it without recovery",
            )
        if value is None or _number_of_token(present, token) != 1:
            raise aws.SecretExists(f"The operation failed because the secret {name} already exists.")
        _check_same(act, name, 1, value, token, place)
        return _arn_name_and_version(name, present, 1, place)
    if value is None:
        secret = Secret(created_at=act.now, updated_at=act.now)
        keyvalue.set_metadata(act, MOUNT, name, secret)
        _describe(act, name, secret, body)
        return _arn_and_name(name, place)
    secret, number = _put(act, name, value, token, stages=(CURRENT,))
    return _arn_name_and_version(name, _describe(act, name, secret, body), number, place)


def _put_value(act: Act, name: str, body: _Body, place: _Place) -> dict[str, Any]:
    value = aws.read_value(body.SecretString, body.SecretBinary)
    token = aws.check_token(body.ClientRequestToken, random=place.random)
    secret = _find(act, name)
    number = _number_of_token(secret, token)
    if number is None:
        secret, number = _put(act, name, value, token, stages=body.VersionStages or (CURRENT,))
    else:
        _check_same(act, name, number, value, token, place)
    requested, stages = body.VersionStages or [], _stages(secret, number)
    named = [label for label in dict.fromkeys(requested) if label in stages]
    return {
        **_arn_name_and_version(name, secret, number, place),
        "VersionStages": named + [label for label in stages if label not in named],
    }


def _update(act: Act, name: str, body: _Body, place: _Place) -> dict[str, Any]:
    secret = _find(act, name)
    if not body.has_value:
        _describe(act, name, secret, body)
        return _arn_and_name(name, place)
    answer = _put_value(act, name, replace(body, VersionStages=None), place)
    _describe(act, name, _find(act, name), body)
    del answer["VersionStages"]
    return answer


def _put(act: Act, name: str, value: Mapping[str, Any], token: str, *, stages: Sequence[str]) -> tuple[Secret, int]:
    """Store a value as a new version with its token and staging labels. Return the secret and the number of the
    version.
    """
    secret, version = keyvalue.put_value(act, MOUNT, name, value, stages=stages)
    return set_token(act, MOUNT, name, secret, version.version, token), version.version


def _move_stage(act: Act, name: str, body: _Body, place: _Place) -> dict[str, Any]:
    """Move a staging label from one version to another, or remove the label from its version."""
    secret, label = _find(act, name), body.VersionStage
    if label is None:
        raise Invalid("`VersionStage` is missing")
    source, target = (
        None if version_id is None else _find_version(act, name, secret, version_id)
        for version_id in (body.RemoveFromVersionId, body.MoveToVersionId)
    )
    holder = stages_of(secret).get(label)
    if source is None and holder not in (None, target):
        present = aws.version_id(secret.custom, name, holder or 0)
        raise Invalid(
            f"The parameter RemoveFromVersionId can't be empty. Staging label {label} is currently attached to version "
            f"{present}, so you must explicitly reference that version in RemoveFromVersionId."
        )
    if source not in (None, holder):
        raise Invalid(f"the staging label {label} is not attached to version {body.RemoveFromVersionId}")
    if target is None and label == CURRENT:
        raise Invalid(
            f"You can only move staging label {CURRENT} to a different secret version. It can't be completely removed."
        )
    if target is None and source is None:
        raise Invalid(
            "`MoveToVersionId` and `RemoveFromVersionId` are missing", hint="send at least one of the two members"
        )
    keyvalue.move_stage(act, MOUNT, name, secret, label, target)
    return _arn_and_name(name, place)


def _describe(act: Act, name: str, secret: Secret, body: _Body) -> Secret:
    if body.KmsKeyId not in (None, "", aws.DEFAULT_KEY):
        raise Invalid(
            "`KmsKeyId` is not supported, because the server encrypts values with its own keys",
            hint=f"leave out the member, or send {aws.DEFAULT_KEY}",
        )
    custom = aws.check_tags([(tag.Key, tag.Value) for tag in body.Tags or ()], secret.custom)
    if body.Description is not None:
        custom[aws.DESCRIPTION] = body.Description
    if custom == secret.custom:
        return secret
    secret = replace(secret, custom=check_custom(custom))
    keyvalue.set_metadata(act, MOUNT, name, secret)
    return secret


def _number_of_token(secret: Secret, token: str) -> int | None:
    tokens = (aws.token_version(key) for key, value in secret.custom.items() if value == token)
    return next((number for number in tokens if number is not None), None)


def _check_same(act: Act, name: str, number: int, value: Mapping[str, Any], token: str, place: _Place) -> None:
    """Check that the version `number`, which an earlier request with `token` stored, has the value `value`. Raises
    SecretExists otherwise.
    """
    present = keyvalue.read_value(act, MOUNT, name, number)[2]
    if present is None or msgspec.json.decode(present) != value:
        arn = place.scope.make_arn(name)
        raise aws.SecretExists(
            f"You can't use ClientRequestToken {token} because that value is already in use for a version of secret "
            f"{arn}."
        )


def _arn_and_name(name: str, place: _Place) -> dict[str, Any]:
    return {"ARN": place.scope.make_arn(name), "Name": name}


def _arn_name_and_version(name: str, secret: Secret, number: int, place: _Place) -> dict[str, Any]:
    return {**_arn_and_name(name, place), "VersionId": aws.version_id(secret.custom, name, number)}


def _stages(secret: Secret, number: int) -> list[str]:
    return [label for label, labelled in stages_of(secret).items() if labelled == number]


def _get_value(act: Act, name: str, body: _Body, place: _Place) -> dict[str, Any]:
    secret = _find(act, name)
    number = _find_number(act, name, secret, body)
    secret, version, value = keyvalue.read_value(act, MOUNT, name, number)
    if value is None:
        raise _value_not_found(body)
    return {
        **_arn_name_and_version(name, secret, number, place),
        **aws.render_value(value),
        "VersionStages": _stages(secret, number),
        "CreatedDate": version.created_at / SECOND,
    }


def _find_number(act: Act, name: str, secret: Secret, body: _Body) -> int:
    """Return the number of the requested version. Raises NothingStored if the secret has no such version; Conflict if
    the request names a version, and a stage that this version does not have.
    """
    if body.VersionId is None:
        number = stages_of(secret).get(body.VersionStage or CURRENT)
    else:
        number = _number_of_id(act, name, secret, body.VersionId)
        if body.VersionStage is not None and number and body.VersionStage not in _stages(secret, number):
            raise Conflict("You provided a VersionStage that is not associated to the provided VersionId.")
    if number is None:
        raise _value_not_found(body)
    return number


def _number_of_id(act: Act, name: str, secret: Secret, version_id: str) -> int | None:
    numbers = store.keyvalue.version_numbers(act.tx, MOUNT, name)
    return next((one for one in numbers if aws.version_id(secret.custom, name, one) == version_id), None)


def _find_version(act: Act, name: str, secret: Secret, version_id: str) -> int:
    """Return the number of a version that has a value. Raises NothingStored if there is none."""
    number = _number_of_id(act, name, secret, version_id)
    version = None if number is None else store.keyvalue.version(act.tx, MOUNT, name, number)
    if version is None or version.is_destroyed or version.is_deleted(act.now):
        raise NothingStored(f"Secrets Manager can't find the specified secret version: {version_id[:64]}")
    return version.version


def _value_not_found(body: _Body) -> NothingStored:
    sought = f"staging label: {body.VersionStage or CURRENT}" if body.VersionId is None else ""
    sought = sought or f"VersionId: {body.VersionId}"
    return NothingStored(f"Secrets Manager can't find the specified secret value for {sought}")


def _show(act: Act, name: str, body: _Body, place: _Place) -> dict[str, Any]:
    act.entry.object = f"{MOUNT}/{name}"
    secret = _find(act, name, may_be_deleted=True)
    stages = _version_stages(name, secret)
    return _summary(act, name, secret, place.scope) | ({"VersionIdsToStages": stages} if stages else {})


def _version_stages(name: str, secret: Secret) -> dict[str, list[str]]:
    """Return the stages by the id of their version."""
    numbers = sorted(set(stages_of(secret).values()))
    return {aws.version_id(secret.custom, name, number): _stages(secret, number) for number in numbers}


def _summary(act: Act, name: str, secret: Secret, scope: aws.ArnScope) -> dict[str, Any]:
    custom = secret.custom
    tags = {key.removeprefix(aws.TAG): value for key, value in custom.items() if key.startswith(aws.TAG)}
    shown: dict[str, Any] = {
        "ARN": scope.make_arn(name),
        "Name": name,
        "CreatedDate": secret.created_at / SECOND,
        "LastChangedDate": secret.updated_at / SECOND,
    }
    if tags:
        shown["Tags"] = [{"Key": key, "Value": value} for key, value in tags.items()]
    if secret.read_at is not None:
        shown["LastAccessedDate"] = secret.read_at // aws.DAY * aws.DAY // SECOND
    if (rotation := store.rotations.get_rotation(act.tx, f"{MOUNT}/{name}")) is not None:
        shown |= _summarize_rotation(rotation)
    if aws.DESCRIPTION in custom:
        shown["Description"] = custom[aws.DESCRIPTION]
    if (at := aws.deletion_time(custom)) is not None:
        shown["DeletedDate"] = at / SECOND
    return shown


def _summarize_rotation(rotation: Rotation) -> dict[str, Any]:
    config = rotation.config
    rules = aws.render_rules(config.period, config.expression, config.window)
    shown = {"RotationEnabled": not rotation.is_cancelled, "RotationRules": rules}
    if rotation.rotated_at is not None:
        shown["LastRotatedDate"] = rotation.rotated_at / SECOND
    if rotation.retire_at is not None and rotation.rotated_at is not None:
        shown["NextRotationDate"] = config.next_time(rotation.rotated_at) / SECOND
    elif not rotation.is_cancelled:
        shown["NextRotationDate"] = rotation.due_at / SECOND
    return shown


def _list_versions(act: Act, name: str, body: _Body, place: _Place) -> dict[str, Any]:
    secret, most = _find(act, name, may_be_deleted=True), body.MaxResults or DEFAULT_PAGE
    key, of = act.tx.keys.derive("aws page"), f"{act.entry.agent} {name}"
    after = 0 if body.NextToken is None else int(aws.open_cursor(body.NextToken, key=key, of=of))
    listed = [
        one
        for one in store.keyvalue.versions(act.tx, MOUNT, name)
        if one.version > after and (body.IncludeDeprecated or _stages(secret, one.version))
    ]
    versions = [
        {
            "VersionId": aws.version_id(secret.custom, name, one.version),
            "VersionStages": _stages(secret, one.version),
            "CreatedDate": one.created_at / SECOND,
        }
        for one in listed[:most]
    ]
    answer = {**_arn_and_name(name, place), "Versions": versions}
    if len(listed) > most:
        last = str(listed[most - 1].version).encode()
        answer["NextToken"] = aws.seal_cursor(last, key=key, of=of, nonce=place.random(12))
    return answer


def _delete(act: Act, name: str, body: _Body, place: _Place) -> dict[str, Any]:
    arn = _arn_and_name(name, place)
    days = aws.DEFAULT_WINDOW if body.RecoveryWindowInDays is None else body.RecoveryWindowInDays
    if not aws.SHORTEST_WINDOW <= days <= aws.LONGEST_WINDOW:
        raise Invalid(
            f"The RecoveryWindowInDays value must be between {aws.SHORTEST_WINDOW} and {aws.LONGEST_WINDOW} days "
            "(inclusive)."
        )
    if body.ForceDeleteWithoutRecovery:
        if body.RecoveryWindowInDays is not None:
            raise Invalid("You can't use ForceDeleteWithoutRecovery in conjunction with RecoveryWindowInDays.")
        keyvalue.delete_secret(act, MOUNT, name)
        return {**arn, "DeletionDate": act.now / SECOND}
    secret, at = _find(act, name), act.now + days * aws.DAY
    deletions.schedule_deletion(act, name, secret, due_at=at)
    return {**arn, "DeletionDate": at / SECOND}


def _restore(act: Act, name: str, body: _Body, place: _Place) -> dict[str, Any]:
    secret = _find(act, name, may_be_deleted=True)
    if aws.deletion_time(secret.custom) is not None:
        deletions.cancel_deletion(act, name, secret)
    return _arn_and_name(name, place)


def _tag(act: Act, name: str, body: _Body, place: _Place) -> dict[str, Any]:
    _describe(act, name, _find(act, name), _Body(Tags=body.Tags))
    return {}


def _untag(act: Act, name: str, body: _Body, place: _Place) -> dict[str, Any]:
    secret = _find(act, name)
    gone = {f"{aws.TAG}{key}" for key in body.TagKeys or ()}
    custom = {key: value for key, value in secret.custom.items() if key not in gone}
    keyvalue.set_metadata(act, MOUNT, name, replace(secret, custom=custom))
    return {}


def _show_policy(act: Act, name: str, body: _Body, place: _Place) -> dict[str, Any]:
    """Return that a secret has no policy of its own: policies of Cedar decide. Terraform asks for each secret."""
    _find(act, name, may_be_deleted=True)
    return _arn_and_name(name, place)


def _list_policies(act: Act, name: str, body: _Body, place: _Place) -> dict[str, Any]:
    _find(act, name, may_be_deleted=True)
    return {"ResourcePolicies": []}


def _refuse_policy(act: Act, name: str, body: _Body, place: _Place) -> dict[str, Any]:
    _find(act, name)
    raise _no_policy(name)


def _no_policy(name: str) -> UnsupportedFeature:
    return UnsupportedFeature(
        "a secret has no resource policy, because the policies of the server decide",
        hint=f"write a Cedar policy for the path {MOUNT}/{name}",
    )


def _refuse_replica(act: Act, name: str, body: _Body, place: _Place) -> dict[str, Any]:
    _find(act, name)
    raise UnsupportedFeature(
        f"the server has the region {place.scope.region} alone, and replicates nothing",
        hint="use this region and leave out replicas",
    )


# --- rotation


def _rotate(act: Act, name: str, body: _Body, place: _Place) -> dict[str, Any] | _RotationRequest:
    """Rotate a secret by the service that an administrator has set, now or on a new schedule. The token of the request
    becomes the id of the new version.
    """
    token = aws.check_token(body.ClientRequestToken, random=place.random)
    schedule = None if body.RotationRules is None else aws.read_rules(body.RotationRules)
    secret, path = _find(act, name), f"{MOUNT}/{name}"
    if body.RotationLambdaARN:
        raise Invalid(
            "`RotationLambdaARN` is not supported, because the server calls no function of AWS Lambda",
            hint="leave out the member; an administrator sets the service: "
            "ostiary secret rotation put PATH --member MEMBER --period SECONDS",
        )
    rotation = store.rotations.get_rotation(act.tx, path)
    if rotation is None:
        raise Conflict(
            "No Lambda rotation function ARN is associated with this secret.",
            hint="an administrator sets the service that rotates the secret: "
            "ostiary secret rotation put PATH --member MEMBER --period SECONDS",
        )
    if (number := _number_of_token(secret, token)) is not None:
        return _arn_name_and_version(name, secret, number, place)
    if schedule is not None or (rotation.is_cancelled and not body.RotateImmediately):
        rotations.schedule_rotation(act, path, schedule)
    if not body.RotateImmediately:
        return _arn_and_name(name, place)
    rotations.request_rotation(act, path, token=token)
    return _RotationRequest(path, {**_arn_and_name(name, place), "VersionId": token})


def _cancel_rotation(act: Act, name: str, body: _Body, place: _Place) -> dict[str, Any]:
    """Cancel the schedule of a rotation. Its service stays set, so that RotateSecret begins the schedule again."""
    _find(act, name)
    path = f"{MOUNT}/{name}"
    if store.rotations.get_rotation(act.tx, path) is None:
        raise Conflict("the secret has no rotation that could be cancelled", hint="see DescribeSecret")
    rotations.cancel_rotation(act, path)
    return _arn_and_name(name, place)


_READ_VALUE = _Action(SecretAction.READ, "read", _get_value)
_DELETE_ALL = _Action(SecretAction.DELETE, "metadata", _delete)
"""The deletion without recovery, which is the deletion of `metadata/PATH` in the Vault API."""
_REFUSE_POLICY = _Action(SecretAction.WRITE, "metadata", _refuse_policy)
_REFUSE_REPLICA = _Action(SecretAction.WRITE, "metadata", _refuse_replica)
_UNSUPPORTED = {
    "AssociateCrossAccountReplica": _REFUSE_REPLICA,
    "DisassociateCrossAccountReplica": _REFUSE_REPLICA,
    "PutResourcePolicy": _REFUSE_POLICY,
    "RemoveRegionsFromReplication": _REFUSE_REPLICA,
    "ReplicateSecretToRegions": _REFUSE_REPLICA,
    "StopReplicationToReplica": _REFUSE_REPLICA,
    "ValidateResourcePolicy": _REFUSE_POLICY,
}
"""The actions that are refused, after the decision about the secret; their other members are not read."""
_ACTIONS = {
    **_UNSUPPORTED,
    "CancelRotateSecret": _Action(SecretAction.DELETE, "cancel-rotation", _cancel_rotation),
    "CreateSecret": _Action(SecretAction.WRITE, "write", _create),
    "DeleteResourcePolicy": _Action(SecretAction.WRITE, "metadata", _show_policy),
    "DeleteSecret": _Action(SecretAction.DELETE, "schedule-deletion", _delete),
    "DescribeSecret": _Action(SecretAction.READ, "metadata", _show),
    "GetResourcePolicy": _Action(SecretAction.READ, "metadata", _show_policy),
    "GetSecretValue": _READ_VALUE,
    "ListResourcePolicies": _Action(SecretAction.READ, "metadata", _list_policies),
    "ListSecretVersionIds": _Action(SecretAction.READ, "metadata", _list_versions),
    "PutSecretValue": _Action(SecretAction.WRITE, "write", _put_value),
    "RestoreSecret": _Action(SecretAction.WRITE, "undelete", _restore),
    "RotateSecret": _Action(SecretAction.WRITE, "rotate", _rotate),
    "TagResource": _Action(SecretAction.WRITE, "metadata", _tag),
    "UntagResource": _Action(SecretAction.WRITE, "metadata", _untag),
    "UpdateSecret": _Action(SecretAction.WRITE, "write", _update),
    "UpdateSecretVersionStage": _Action(SecretAction.WRITE, "stage", _move_stage),
}
NAMES = frozenset({*_ACTIONS, "BatchGetSecretValue", "GetRandomPassword", "ListSecrets"})
"""The actions of the API."""
_MEMBERS: dict[str, set[str]] = {
    name: set(members.split())
    for name, members in {
        "BatchGetSecretValue": "SecretIdList Filters MaxResults NextToken",
        "CreateSecret": "Name ClientRequestToken Description KmsKeyId SecretBinary SecretString Tags "
        "ForceOverwriteReplicaSecret",
        "DeleteSecret": "SecretId RecoveryWindowInDays ForceDeleteWithoutRecovery",
        "GetSecretValue": "SecretId VersionId VersionStage",
        "ListResourcePolicies": "SecretId MaxResults NextToken",
        "ListSecretVersionIds": "SecretId MaxResults NextToken IncludeDeprecated",
        "ListSecrets": "IncludePlannedDeletion MaxResults NextToken Filters SortOrder SortBy",
        "PutSecretValue": "SecretId ClientRequestToken SecretBinary SecretString VersionStages",
        "RotateSecret": "SecretId ClientRequestToken RotationLambdaARN RotationRules RotateImmediately",
        "TagResource": "SecretId Tags",
        "UntagResource": "SecretId TagKeys",
        "UpdateSecret": "SecretId ClientRequestToken Description KmsKeyId SecretBinary SecretString",
        "UpdateSecretVersionStage": "SecretId VersionStage RemoveFromVersionId MoveToVersionId",
    }.items()
}
"""The members of the actions that have more than `SecretId`."""


# --- several secrets


async def _get_values(call: Call, body: _Body) -> dict[str, Any]:
    """Return several values, each read in a separate act. A refused read becomes an item of `Errors`."""
    if (body.SecretIdList is None) == (body.Filters is None):
        raise Invalid("Either 'SecretIdList' or 'Filters' must be provided, but not both.")
    if body.Filters is None and body.MaxResults is not None:
        raise Invalid("'Filters' not specified. 'Filters' must also be specified when 'MaxResults' is provided.")
    if (body.MaxResults or 0) > MOST_AT_ONCE:
        raise Invalid(f"`MaxResults` of BatchGetSecretValue must be at most {MOST_AT_ONCE}")
    rest, secret_ids = {}, body.SecretIdList
    if secret_ids is None:
        listed = await _list_secrets(call, replace(body, MaxResults=body.MaxResults or MOST_AT_ONCE))
        secret_ids = [one["Name"] for one in listed.pop("SecretList")]
        rest = listed
    values: list[dict[str, Any]] = []
    errors: list[dict[str, str]] = []
    for secret_id in secret_ids:
        try:
            values.append(await _one(call, _READ_VALUE, secret_id, _Body()))
        except (SignatureRefused, flows.TokenRefused, Unavailable):
            raise
        except Refused as refusal:
            kind = next(name for one, name, _ in TYPES if isinstance(refusal, one))
            errors.append({"SecretId": secret_id, "ErrorCode": kind, "Message": refusal.message})
    return {"SecretValues": values, "Errors": errors, **rest}


async def _list_secrets(call: Call, body: _Body) -> dict[str, Any]:
    """List the secrets that have a value of each filter. The decision is that for a list of the folder that their names
    have in common, and of each folder below.
    """
    filters = body.Filters or []
    for one in filters:
        if one.Key not in aws.FILTERS:
            wrong = f"Invalid filter key: {one.Key[:40]!a} is not one of {' '.join(aws.FILTERS)}"
            raise Invalid(wrong if one.Key else "Invalid filter key")
        if not one.Values:
            raise Invalid(f"Invalid filter values for key: {one.Key}", hint="send at least one value in `Values`")
    by_words = [len(aws.split_words(value)) for one in filters if one.Key in aws.BY_WORDS for value in one.Values]
    if max(by_words, default=0) > aws.MAX_FILTER_WORDS or sum(by_words) > aws.MAX_SEARCH_WORDS:
        raise Invalid(
            f"a value of the filter all or description may have at most {aws.MAX_FILTER_WORDS} words, and all these "
            f"values together {aws.MAX_SEARCH_WORDS}"
        )
    names = next((one.Values for one in filters if one.Key == "name"), [])
    for value in filter(lambda name: name.removeprefix("!"), names):
        _check_name(value.removeprefix("!"))
    folder = "" if any(value.startswith("!") for value in names) else commonprefix(names)  # noqa: RUF071 by letters
    decided = folder if folder.endswith("/") else f"{folder.rpartition('/')[0]}/".removeprefix("/")
    scope, sought = _scope(call), [(one.Key, one.Values) for one in filters]
    most, list_page = body.MaxResults or DEFAULT_PAGE, secret_pages.page_by_name
    if (column := _TIMES.get(body.SortBy)) is not None:
        list_page = partial(secret_pages.page_by_time, column=column)
    cursor_key = call.world.keys.derive("aws page")

    def run(act: Act, caller: flows.VaultCaller) -> dict[str, Any]:
        act.entry.object = f"{MOUNT}/{decided}"
        act.entry.detail = {"operation": "list", "api": "aws"}
        flows.authorize(act, caller, MOUNT, decided, SecretAction.LIST, "list", config=call.world.config)
        of, token = f"{caller.agent.agent_id} {body.SortBy} {body.SortOrder}", body.NextToken
        after = None if token is None else aws.open_cursor(token, key=cursor_key, of=of)
        is_descending = body.SortOrder == "desc"
        page = list_page(act.tx, MOUNT, folder, after=after, limit=most, is_descending=is_descending)
        shown: list[dict[str, Any]] = []
        permitted = {decided: True}
        for name in page.paths:
            below = name[: name.rfind("/") + 1]
            if below not in permitted:
                permitted[below] = flows.is_permitted(
                    act, caller, MOUNT, below, SecretAction.LIST, "list", config=call.world.config
                )
            if not permitted[below]:
                continue
            secret = store.keyvalue.get(act.tx, MOUNT, name)
            if secret is None or _is_purged(secret, act.now):
                continue
            if not aws.matches_filters(sought, name, secret.custom, region=scope.region):
                continue
            if body.IncludePlannedDeletion or aws.deletion_time(secret.custom) is None:
                stages = _version_stages(name, secret)
                listed = {"SecretVersionsToStages": stages} if stages else {}
                shown.append(_summary(act, name, secret, scope) | listed)
        if page.place is None:
            return {"SecretList": shown}
        cursor = aws.seal_cursor(page.place, key=cursor_key, of=of, nonce=call.world.random(12))
        return {"SecretList": shown, "NextToken": cursor}

    answer: dict[str, Any] = await _act(call, ENTRY_ACTIONS[SecretAction.LIST], is_change=False, run=run)
    return answer


_TIMES = {"created-date": "created_at", "last-changed-date": "updated_at", "last-accessed-date": "read_at"}
"""The time of a secret by which `SortBy` of ListSecrets sorts."""
_BODY = Content(dict[str, Any], (MEDIA_TYPE,), {"SecretId": "agents/writer/db"})
_ERRORS: tuple[Refused, ...] = (
    SignatureRefused("the signature was not made with this access key's secret key"),
    NothingStored("Secrets Manager can't find the specified secret."),
    UnknownAction("the action is not supported"),
)


def _route(path: str, wire: Wire) -> Route:
    return Route(
        "POST",
        path,
        wire,
        "",
        protocol=AWS,
        body=_BODY,
        answers={200: Content(dict[str, Any], (MEDIA_TYPE,))},
        errors=_ERRORS,
    )


ROUTES = (_route("/aws", answer_aws), _route("/aws/", answer_aws_with_slash))
