"""A plug-in of pytest for moto's tests of Secrets Manager: they use the server of `PEER_URL` with the key of `AWS_*`.

The tests would mock AWS inside of their process. moto has a mode for a server, in which its decorator gives clients
an endpoint; what is added here is one region for all clients, an empty store before each test, and signed requests of
the tests that use a client of Flask, with two names of members in the answers that only moto has. The plug-in is
loaded outside of this project's packages.
"""

from __future__ import annotations

import json
import os
from functools import cache
from importlib import import_module
from typing import Any

boto3: Any = import_module("boto3")
requests: Any = import_module("requests")
settings: Any = import_module("moto.settings")
server: Any = import_module("moto.server")
auth: Any = import_module("botocore.auth")
awsrequest: Any = import_module("botocore.awsrequest")
default_user_config: Any = import_module("moto.core.config").default_user_config
ServerModeMockAWS: Any = import_module("moto.core.models").ServerModeMockAWS

URL, REGION = os.environ["PEER_URL"], os.environ["AWS_DEFAULT_REGION"]
Session: Any = boto3.Session
connect = Session.client


def _connect_in_region(session: Any, service: str, region_name: str = "", **options: Any) -> Any:
    client = connect(session, service, REGION, **options)
    client.meta.events.register("before-sign", _make_unique)
    return client


def _make_unique(request: Any, **signing: Any) -> None:
    """Make the signature differ from that of an equal request in the same second, which would count as a repetition."""
    request.headers["X-Unique"] = os.urandom(8).hex()


@cache
def _client() -> Any:
    return _connect_in_region(Session(), "secretsmanager", endpoint_url=URL)


def _empty(mock: Any) -> None:
    client = _client()
    for page in client.get_paginator("list_secrets").paginate(IncludePlannedDeletion=True):
        for secret in page["SecretList"]:
            client.delete_secret(SecretId=secret["Name"], ForceDeleteWithoutRecovery=True)


class _SignedClient:
    """The client of Flask that the tests use, with a signature and over HTTP."""

    def __init__(self) -> None:
        self.test_client = lambda: self

    def post(self, path: str, *, json: Any = None, data: Any = None, headers: Any = None) -> Any:
        prepared = requests.Request("POST", f"{URL}{path}", json=json, data=data, headers=headers).prepare()
        prepared.headers["Content-Type"] = "application/x-amz-json-1.1"
        request = awsrequest.AWSRequest("POST", prepared.url, dict(prepared.headers), prepared.body)
        _make_unique(request)
        auth.SigV4Auth(Session().get_credentials(), "secretsmanager", REGION).add_auth(request)
        answer = requests.post(prepared.url, data=prepared.body, headers=dict(request.headers))
        answer.data = _rename(answer.content)
        return answer


def _rename(content: bytes) -> bytes:
    """Add the names that moto has for members of AWS's API model, and that the tests read."""
    try:
        body = json.loads(content)
    except ValueError:
        return content
    for name, theirs in (("Message", "message"), ("VersionIdsToStages", "SecretVersionsToStages")):
        if name in body:
            body.setdefault(theirs, body[name])
    return json.dumps(body).encode()


def pytest_runtest_setup(item: Any) -> None:
    """Let the tests of `test_server` run, which skip themselves in the mode for a server."""
    settings.TEST_SERVER_MODE = "test_server.py" not in item.nodeid


def _make_client(service: str) -> _SignedClient:
    return _SignedClient()


default_user_config["core"]["mock_credentials"] = False
server.create_backend_app = _make_client
if "PEER_IS_MOTO" not in os.environ:
    Session.client = _connect_in_region
    ServerModeMockAWS.reset = _empty
