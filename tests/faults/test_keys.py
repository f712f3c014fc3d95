"""A rotation of the key that signs tokens, of which a guard behind a partition has not heard yet."""

from __future__ import annotations

from contextlib import ExitStack, closing
from pathlib import Path

import httpx2
import pytest

from harness.live_server import ServerFixture, free_socket, serving
from harness.patience import PATIENCE_S, eventually
from harness.prepared import PreparedServer
from harness.tcp_proxy import Proxy
from ostiary.agent import Agent
from ostiary.asgi import GuardASGI
from ostiary.caller import Caller
from ostiary.guard import Guard, KeyUnheard
from ostiary.protocol import jose
from tests.faults.tally import Tally
from tests.guard.asgi_fixtures import app, error


def test_a_guard_with_a_delayed_feed_does_not_call_a_token_of_a_new_key_invalid(
    tmp_path: Path, tally: Tally, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ostiary.caller.UNHEARD_RETRIES", 3)
    with PreparedServer(tmp_path / "data") as server, ServerFixture(server, tmp_path) as live_server:
        check_a_rotation_that_the_guard_has_not_heard_of(live_server, tmp_path, tally)


def check_a_rotation_that_the_guard_has_not_heard_of(live_server: ServerFixture, folder: Path, tally: Tally) -> None:
    sock, port = free_socket()
    base = f"http://127.0.0.1:{port}"
    uri = f"{base}/files/a"
    name, credential = live_server.resource(uri)
    _, key = live_server.agent(f"{name}:read")
    answers = list[str]()
    with ExitStack() as stack:
        proxy = stack.enter_context(closing(Proxy(live_server.server.url)))
        partitioned = f"http://127.0.0.1:{proxy.port}"
        guard = Guard(credential, url=partitioned, spool_dir=folder / "spool", max_age=2 * PATIENCE_S)
        stack.enter_context(closing(guard.start(wait=PATIENCE_S)))
        guarded = GuardASGI(app, guard, tool={"POST /files/{path}": "read_file"}, origin=base)
        stack.enter_context(serving(guarded, sock))
        agent = stack.enter_context(Agent.from_credential(key))
        assert agent.request("POST", uri, resource=uri).status_code == 200

        proxy.stalls = True
        live_server.api("POST", "/keys/rotate", {"use": "token", "alg": "ES256"})
        later = stack.enter_context(Agent.from_credential(key))
        caller = Caller(guard, later, uri=uri)
        with pytest.raises(KeyUnheard):
            caller.enter()
        token = later.token(resource=uri)["access_token"]
        for _ in range(3):
            response = httpx2.post(uri, headers={"authorization": f"DPoP {token}", "dpop": "none"})
            assert response.headers["retry-after"] == "1"
            answers.append(f"{response.status_code} {response.json()['error']} {error(response)}")
        tally(
            "a guard whose feed is behind calls no token of a new key invalid",
            broken=len(answers) - answers.count("503 key_unheard temporarily_unavailable"),
            of=len(answers),
        )

        proxy.stalls = False
        eventually(lambda: later.request("POST", uri, resource=uri).status_code == 200)
        assert caller.enter().principal.claims.scope == f"{name}:read"
        claims = jose.parse_claims(jose.parse_jws(token).payload)
        forged = jose.sign_jwt(jose.generate("ES256"), typ="at+jwt", claims=claims)
        eventually(lambda: httpx2.post(uri, headers={"authorization": f"DPoP {forged}"}).status_code == 401)
