"""Hooks of schemathesis: each request gets an access token and a DPoP proof; path parameters often name real objects.

Runs in the environment `.openapi`. `OSTIARY_OPENAPI` names a JSON file: `credentials` by role, `names` of real objects,
and the `issuer`.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import requests
import schemathesis

from ostiary import Agent, ambient
from ostiary.protocol import dpop

SETTINGS = json.loads(Path(os.environ["OSTIARY_OPENAPI"]).read_text())
ISSUER: str = SETTINGS["issuer"]
ROLES = (
    (r"/feed/", "guard"),
    (r"/v1/(traces|logs)$", "agent"),
    (r"/api/v1/ssf/", "receiver"),
    (r"/api/v1/approvals/(answers$|[^/]+/(approve|deny)$)", "person"),
    (r"/api/v1/incidents/[^/]+/", "person"),
    (r"", "administrator"),
)
"""Path patterns and the role that calls them; the first that matches counts."""
SCOPES = {"guard": "ostiary:feed", "person": "ostiary:approve", "receiver": "ostiary:ssf.read ostiary:ssf.manage"}


class Principal:
    """A caller: its token for the API of the server, and its key."""

    def __init__(self, role: str) -> None:
        with Agent.from_credential(SETTINGS["credentials"][role], url=ISSUER) as agent:
            answer = agent.token(resource=f"{ISSUER}/api/v1", scope=SCOPES.get(role))
            self.token = str(answer["access_token"])
            self.key = agent._client.credential.key
        self.nonce: str | None = None


class Proofs(requests.auth.AuthBase):
    """Signs each request as the principal of its path."""

    def __init__(self) -> None:
        self.principals: dict[str, Principal] = {}

    def principal(self, path: str) -> Principal:
        role = next(role for pattern, role in ROLES if re.match(pattern, path))
        if role not in self.principals:
            self.principals[role] = Principal(role)
        return self.principals[role]

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        assert request.url is not None
        uri = request.url.partition("#")[0].partition("?")[0]
        principal = self.principal(uri.removeprefix(ISSUER))
        request.headers["Authorization"] = f"DPoP {principal.token}"
        request.headers["DPoP"] = dpop.make_proof(
            principal.key,
            method=str(request.method),
            uri=uri,
            now=ambient.now(),
            jti=os.urandom(16).hex(),
            nonce=principal.nonce,
            access_token=principal.token,
        )
        return request


PROOFS = Proofs()
schemathesis.auth.set_from_requests(PROOFS)


@schemathesis.hook
def after_call(context: Any, case: Any, response: Any) -> None:
    """Keep the nonce that the server asks for."""
    if nonce := response.headers.get("dpop-nonce"):
        PROOFS.principal(case.formatted_path).nonce = nonce[0] if isinstance(nonce, list) else nonce


@schemathesis.hook
def map_path_parameters(context: Any, path_parameters: Any) -> Any:
    """Name real objects in place of most generated path parameters."""
    if not path_parameters:
        return path_parameters
    kind = context.operation.path.split("/")[3:4]
    for name, value in path_parameters.items():
        real = SETTINGS["names"].get(f"{kind[0]}.{name}" if kind else "") or SETTINGS["names"].get(name)
        if real is not None and len(str(value)) % 3:
            path_parameters[name] = real
    return path_parameters


@schemathesis.serializer("application/secevent+jwt", "application/x-protobuf", "application/ocsp-request")
def send_bytes(context: Any, value: Any) -> bytes:
    """Encode a generated body of a format that is neither JSON nor a form."""
    return value.encode() if isinstance(value, str) else json.dumps(value).encode()


schemathesis.serializer.alias("application/x-amz-json-1.1", "application/json")
