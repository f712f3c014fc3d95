"""`kill -9` of a real server while refresh tokens rotate and codes are redeemed: nothing is lost or valid twice."""

from __future__ import annotations

import random
import time
from functools import partial
from pathlib import Path

import pytest

from harness.live_server import ServerFixture
from harness.prepared import PreparedServer
from ostiaryd.tokens.model.grants import SECOND
from ostiaryd.tokens.model.refresh import GRACE
from tests.faults.application import Application, killed
from tests.faults.tally import Tally

KILLS = 3


@pytest.mark.slow
def test_refresh_tokens_and_codes_survive_a_kill_and_are_valid_once(
    server: PreparedServer, tmp_path: Path, seed: int, tally: Tally
) -> None:
    dice = random.Random(f"grants {seed}")
    lost = forked = reused = twice = 0
    with ServerFixture(server, tmp_path) as live_server:
        app = Application(server, live_server)
        for _ in range(KILLS):
            token = str(app.redeem(app.code()).json()["refresh_token"])
            began = time.monotonic()
            first, again = killed(server, partial(app.refresh, token), dice), app.refresh(token)
            is_late = time.monotonic() - began >= GRACE / SECOND  # then the repetition may be a reuse
            lost += again.status_code != 200 and not is_late
            if again.status_code == 200:
                latest = str(again.json()["refresh_token"])
                forked += first is not None and first.json()["refresh_token"] != latest
                newest = str(app.refresh(latest).json()["refresh_token"])
                killed(server, partial(app.refresh, token), dice)
                reused += app.refresh(token).status_code == 200
                reused += app.refresh(newest).status_code == 200

            code = app.code()
            redeemed, repeated = killed(server, partial(app.redeem, code), dice), app.redeem(code)
            answers = [one for one in (redeemed, repeated) if one is not None and one.status_code == 200]
            twice += len(answers) > 1
            if redeemed in answers:  # the client has used its code twice, which ends what it gave
                twice += app.refresh(answers[0].json()["refresh_token"]).status_code == 200
        app.browser.__exit__()
    tally("a refresh whose server is killed is answered after the restart", broken=lost, of=KILLS)
    tally("a refresh whose server is killed leaves one current token", broken=forked, of=KILLS)
    tally("the reuse of a refresh token ends its grant, though the server is killed", broken=reused, of=2 * KILLS)
    tally("a code gives tokens once, though the server is killed", broken=twice, of=2 * KILLS)
