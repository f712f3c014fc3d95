"""AWS Secrets Manager, by its JSON API with Signature Version 4."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec

from ostiary.protocol.errors import Conflict, Invalid
from ostiaryd.ground.outbound.fetch import Answer
from ostiaryd.secrets.backends.remote import Remote
from ostiaryd.secrets.model import aws
from ostiaryd.secrets.model.backend import (
    MAX_NAMES,
    BackendConfig,
    BackendFailed,
    BackendValue,
    DeletionScheduled,
    check_names,
    check_value,
    parse_answer,
)
from ostiaryd.secrets.model.keyvalue import CURRENT
from ostiaryd.secrets.model.request import NothingStored
from ostiaryd.secrets.model.sigv4 import SERVICE, sign_request

MEDIA_TYPE = "application/x-amz-json-1.1"
MAX_PAGES = 100
_TYPE = re.compile(r"(?:.*#)?([A-Za-z]{1,64})")


class AwsBackend:
    """A client of AWS Secrets Manager for one account in one region. The path of a secret in this back end is the
    secret's name at AWS.
    """

    def __init__(
        self,
        config: BackendConfig,
        credentials: Mapping[str, str],
        remote: Remote,
        now: Callable[[], int],
        random: Callable[[int], bytes],
    ) -> None:
        self._region, self._credentials, self._remote = config.region, credentials, remote
        self._now, self._random = now, random

    async def read(self, path: str) -> BackendValue:
        """Return the value of the secret whose name is `path`. Raises NothingStored if there is no such secret,
        BackendFailed if AWS fails or its response is about another secret or version, Invalid if `path` is not a valid
        name.
        """
        answer = await self._ask("GetSecretValue", {"SecretId": aws.check_name(path)})
        if answer.get("Name") != path:
            raise BackendFailed("the response of the back end is about another secret")
        stages = answer.get("VersionStages")
        if not isinstance(stages, list) or CURRENT not in stages:
            raise BackendFailed("the response of the back end is about another version of the secret")
        text, binary = answer.get("SecretString"), answer.get("SecretBinary")
        if isinstance(text, str) and (members := _members(text)) is not None:
            return check_value(members)
        try:
            return check_value(aws.read_value(_text(text), _text(binary)))
        except (Conflict, Invalid):
            raise BackendFailed(
                "the response of the back end must have `SecretString`, or `SecretBinary` in base64"
            ) from None

    async def list_names(self, folder: str) -> list[str]:
        """Return the names directly in a folder: for each secret whose name begins with `folder`, the next segment of
        the name, with a slash if further segments follow. Raises BackendFailed if AWS fails, or lists too many secrets.
        """
        names: set[str] = set()
        body: dict[str, Any] = {"MaxResults": 100}
        if folder:
            body["Filters"] = [{"Key": "name", "Values": [folder]}]
        for _ in range(MAX_PAGES):
            answer = await self._ask("ListSecrets", body)
            secrets, token = answer.get("SecretList"), answer.get("NextToken")
            if not isinstance(secrets, list):
                raise BackendFailed("the response of the back end has no list of secrets")
            for secret in secrets:
                name = secret.get("Name") if isinstance(secret, dict) else None
                if not isinstance(name, str):
                    raise BackendFailed("the response of the back end lists a secret without a name")
                if name.startswith(folder) and (below := name.removeprefix(folder)):
                    head, slash, _ = below.partition("/")
                    names.add(head + slash)
            if not token:
                return check_names(list(names), folder)
            body["NextToken"] = token
        raise BackendFailed(f"the back end lists more than {MAX_NAMES} secrets")

    async def write(self, path: str, data: Mapping[str, Any], present: BackendValue | None) -> None:
        """Create the secret if `present` is None, otherwise replace its value, whether or not the value is still
        `present`. Raises Conflict if a secret to create exists already, BackendFailed if AWS fails, Invalid if `path`
        is not a valid name.
        """
        body = {"ClientRequestToken": self._random(16).hex(), **aws.render_value(msgspec.json.encode(data))}
        if present is None:
            await self._ask("CreateSecret", {"Name": aws.check_name(path), **body})
        else:
            await self._ask("PutSecretValue", {"SecretId": aws.check_name(path), **body})

    async def _ask(self, action: str, body: Mapping[str, Any]) -> dict[str, Any]:
        content = msgspec.json.encode(body)
        headers = sign_request(
            content,
            target=f"{SERVICE}.{action}",
            media_type=MEDIA_TYPE,
            host=urlsplit(self._remote.address).netloc,
            region=self._region,
            key_id=self._credentials["access_key_id"],
            secret=self._credentials["secret_access_key"],
            now=self._now(),
        )
        answer = await self._remote.send("POST", "/", headers=headers, body=content)
        if answer.status != 200:
            raise _failure(answer)
        return parse_answer(answer.body)


def _failure(answer: Answer) -> NothingStored | Conflict | BackendFailed:
    named = parse_answer(answer.body).get("__type") if 400 <= answer.status < 500 else None
    match = _TYPE.fullmatch(named) if isinstance(named, str) else None
    if match is None:
        return BackendFailed(f"the back end answers {answer.status}", hint="see the log of the back end")
    if match[1] == "ResourceNotFoundException":
        return NothingStored("no value is stored at this path")
    if match[1] == "InvalidRequestException":
        return DeletionScheduled(
            "the secret is scheduled for deletion at the back end", hint="restore the secret at the back end"
        )
    if match[1] == "ResourceExistsException":
        return Conflict("the value at the back end has changed since it was read", hint="synchronise the secrets again")
    return BackendFailed(f"the back end answers {match[1]}", hint="check the credentials and the log of the back end")


def _members(text: str) -> dict[str, Any] | None:
    """Return the members if `text` is a JSON object; None otherwise."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
