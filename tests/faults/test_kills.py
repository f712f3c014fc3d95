"""`kill -9` of a real server in the middle of acts of an operator and of a person: rotations of keys and authorities,
seal and unseal, withdrawal of a consent. What was acknowledged is in force after the restart, and what was not is done
once by a repetition.
"""

from __future__ import annotations

import json
import random
import subprocess
from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from harness.live_server import ServerFixture
from harness.patience import eventually
from harness.prepared import PreparedServer
from harness.server import COMMAND
from ostiary.protocol.jose import b64u
from tests.faults.application import Application, killed
from tests.faults.tally import Tally

KILLS = 2
SECRET: dict[str, Any] = {"path": "secret/mail", "data": {"value": "correct horse"}}


class Operator:
    """An administrator whose requests are interrupted by the end of the server."""

    def __init__(self, server: PreparedServer, live_server: ServerFixture, dice: random.Random) -> None:
        self.server, self.live_server, self.dice = server, live_server, dice

    @cached_property
    def application(self) -> Application:
        """Return a client to which a person consents."""
        return Application(self.server, self.live_server)

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        admin = self.live_server.admin
        return admin.request(method, f"{self.server.url}/api/v1{path}", resource=f"{admin.issuer}/api/v1", json=body)

    def interrupt(self, path: str, body: Any = None) -> Any:
        """Send a request, kill the server meanwhile, and start it again. Return the body of the answer; None if the
        answer was lost.
        """
        answer = killed(self.server, partial(self.ask, "POST", path, body), self.dice)
        return None if answer is None or answer.status_code >= 400 else answer.json()

    def read(self, path: str) -> Any:
        return self.live_server.api("GET", path)


def check_rotation_of_a_signing_key(operator: Operator, _: Path) -> bool:
    use, alg = operator.dice.choice([("token", "ES256"), ("feed", "EdDSA")])
    rotated = operator.interrupt("/keys/rotate", {"use": use, "alg": alg})
    keys = [key["kid"] for key in operator.server.ostiary("keys", "list")]
    again = operator.live_server.api("POST", "/keys/rotate", {"use": use, "alg": alg})["kid"]
    return (rotated is None or rotated["kid"] in keys) and again not in keys


def check_rotation_of_an_authority(operator: Operator, _: Path) -> bool:
    kind = operator.dice.choice(["root", "intermediate"])
    made = operator.interrupt("/authorities/rotate", {"kind": kind})
    known = operator.read("/authorities")["authorities"]
    active = [one for one in known if one["kind"] == "intermediate" and one["state"] == "active"]
    is_known = made is None or made["authority_id"] in [one["authority_id"] for one in known]
    return is_known and len(active) == 1


def check_seal(operator: Operator, _: Path) -> bool:
    key = X25519PrivateKey.generate()
    public, private = b64u(key.public_key().public_bytes_raw()), b64u(key.private_bytes_raw())
    sealed = operator.interrupt("/secrets/seal", {"unseal_public_key": public})
    if operator.read("/secrets/seal")["sealed"] is False:
        if sealed is not None:
            return False
        operator.live_server.api("POST", "/secrets/seal", {"unseal_public_key": public})
    if operator.ask("POST", "/secrets/get", {"path": SECRET["path"]}).status_code != 503:
        return False
    unsealed = operator.interrupt("/secrets/unseal", {"unseal_key": private})
    if operator.read("/secrets/seal")["sealed"] is True:
        if unsealed is not None:
            return False
        operator.live_server.api("POST", "/secrets/unseal", {"unseal_key": private})
    return bool(operator.live_server.api("POST", "/secrets/get", {"path": SECRET["path"]})["data"] == SECRET["data"])


def check_rotation_of_wrapping_keys(operator: Operator, _: Path) -> bool:
    operator.interrupt("/secrets/rotate-keys")
    operator.live_server.api("POST", "/secrets/rotate-keys")
    return bool(operator.live_server.api("POST", "/secrets/get", {"path": SECRET["path"]})["data"] == SECRET["data"])


def check_withdrawal_of_a_consent(operator: Operator, _: Path) -> bool:
    app = operator.application
    token = str(app.redeem(app.code()).json()["refresh_token"])
    [consent] = [one for one in operator.read("/consents")["consents"] if one["client_id"] == app.credential.client_id]
    revoke = f"/consents/{consent['consent_id']}/revoke"
    done = operator.interrupt(revoke)
    has_ended = app.refresh(token).status_code != 200
    if not has_ended and done is None:
        operator.live_server.api("POST", revoke)
        has_ended = app.refresh(token).status_code != 200
    return has_ended


CHECKS: tuple[Callable[[Operator, Path], bool], ...] = (
    check_rotation_of_a_signing_key,
    check_rotation_of_an_authority,
    check_seal,
    check_rotation_of_wrapping_keys,
    check_withdrawal_of_a_consent,
)


@pytest.mark.slow
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_an_act_is_in_force_or_can_be_repeated_after_a_kill_of_the_server(
    server: PreparedServer, tmp_path: Path, check: Callable[[Operator, Path], bool], rounds: int, tally: Tally
) -> None:
    dice, broken = random.Random(f"kills {check.__name__} {rounds}"), 0
    with ServerFixture(server, tmp_path) as live_server:
        live_server.api("POST", "/secrets/put", SECRET)
        live_server.api("POST", "/authorities", {})
        operator = Operator(server, live_server, dice)
        for _ in range(KILLS * rounds):
            broken += not check(operator, tmp_path)
        if "application" in vars(operator):
            operator.application.browser.__exit__()

        def failing() -> list[Any]:
            """Return the failing lines of `ostiary doctor`. After a kill, the detectors start again."""
            run = subprocess.run(
                [COMMAND, "--data-dir", server.folder, "--json", "doctor"], capture_output=True, check=False
            )
            return [line for line in json.loads(run.stdout) if line["state"] == "fail"]

        eventually(lambda: not any("starting" in line["saw"] for line in failing()))
        assert failing() == []
    words = check.__name__.removeprefix("check_").replace("_", " ")
    tally(f"{words}: in force or repeated after a kill of the server", broken=broken, of=KILLS * rounds)
