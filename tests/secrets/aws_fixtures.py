"""An agent with an access key of the API of AWS Secrets Manager, its client `boto3`, and signed requests."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import boto3
import httpx2
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.client import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from tests.secrets.vault_fixtures import VaultStage

REGION = "us-east-1"
JSON = "application/x-amz-json-1.1"


class AwsStage:
    """An agent with an access key, and its client."""

    def __init__(self, vault: VaultStage, network: str = "127.0.0.0/8") -> None:
        self.vault = vault
        self.key = vault.live_server.server.ostiary("aws-key", "create", vault.name, "--network", network)
        self.client = self.connect(self.key["access_key_id"], self.key["secret_access_key"])
        self.unchecked = self.connect(
            self.key["access_key_id"], self.key["secret_access_key"], parameter_validation=False
        )
        """a client that also sends requests that botocore would refuse, and the same request twice in a second"""
        self.unchecked.meta.events.register("before-sign", _make_unique)
        self.name = f"{vault.folder}/db"

    def connect(self, key_id: str, secret: str, region: str = REGION, *, parameter_validation: bool = True) -> Any:
        return boto3.client(
            "secretsmanager",
            endpoint_url=self.key["endpoint"],
            region_name=region,
            aws_access_key_id=key_id,
            aws_secret_access_key=secret,
            config=Config(retries={"max_attempts": 0}, parameter_validation=parameter_validation),
        )

    def sign(
        self, action: str, body: dict[str, Any], *, at: datetime | None = None, more: Sequence[tuple[str, str]] = ()
    ) -> AWSRequest:
        """A signed request with more headers, as botocore makes it; at another time if that is given."""
        headers = {"content-type": JSON, "x-amz-target": f"secretsmanager.{action}"}
        request = AWSRequest("POST", f"{self.key['endpoint']}/", data=json.dumps(body), headers=headers)
        for name, value in more:
            request.headers.add_header(name, value)
        credentials = Credentials(self.key["access_key_id"], self.key["secret_access_key"])
        signer = SigV4Auth(credentials, "secretsmanager", REGION)
        request.context["timestamp"] = (at or datetime.now(UTC)).strftime("%Y%m%dT%H%M%SZ")
        signer._modify_request_before_signing(request)
        text = signer.string_to_sign(request, signer.canonical_request(request))
        signer._inject_signature_to_request(request, signer.signature(text, request))
        return request


def _make_unique(request: AWSRequest, **_: Any) -> None:
    request.headers["x-unique"] = os.urandom(8).hex()


def post(request: AWSRequest, **changed: Any) -> httpx2.Response:
    """Send a request. `changed`: headers that the request has in place of its own."""
    kept = [(name, value) for name, value in request.headers.items() if name.lower() not in changed]
    headers = [(name.encode(), value.encode()) for name, value in (*kept, *changed.items())]
    return httpx2.post(request.url, content=request.data, headers=headers)


def refused(kind: str, use: Callable[..., Any], **arguments: Any) -> str:
    with pytest.raises(ClientError) as error:
        use(**arguments)
    assert error.value.response["Error"]["Code"] == kind, error.value
    return str(error.value.response["Error"]["Message"])
