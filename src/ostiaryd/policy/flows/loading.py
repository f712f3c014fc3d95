"""Loads an uploaded policy set: a confined process parses and tests the set, and the server evaluates its Rego
and OPA policies for the tests.
"""

from __future__ import annotations

import asyncio

from ostiary.decision.access.remote_policies import RemoteVerdict
from ostiary.protocol.errors import Invalid
from ostiaryd.ground.process.confined import Parser
from ostiaryd.ground.world import World
from ostiaryd.policy.engines.sets import Parsed, Upload, decode_answer, encode_upload
from ostiaryd.policy.flows.external_pdp import Engines
from ostiaryd.policy.model import Loaded, check_files

TARGET = "ostiaryd.policy.engines.sets:answer"
TESTS_S = 60.0
"""Time limit for loading a set with its tests, in seconds."""


class SetParser(Parser):
    """The confined process in which this server parses and tests policy sets that callers send."""

    def __init__(self, _: World) -> None:
        super().__init__(TARGET, of="the policy set")


async def load_set(world: World, files: dict[str, str], *, has_engine: bool = True) -> Loaded:
    """Return the policy set in `files`, validated, tested and ready to decide. If `has_engine` is false, a set with
    policies in Rego or OPA is refused.

    Raises Malformed or Invalid for a set that is not valid, Invalid (`policy_test_failed`) for a test that fails,
    Invalid (`too_costly`) for tests that take longer than `TESTS_S`, and Unavailable if no process can examine the set.
    """
    check_files(files)
    parser, engines = world.get_singleton(SetParser), world.get_singleton(Engines)
    upload = Upload(files, has_engine)
    try:
        async with asyncio.timeout(TESTS_S):
            while not isinstance(answer := decode_answer(await parser.parse(encode_upload(upload))), Parsed):
                if not answer.is_checked:
                    await engines.check(answer.program)
                verdicts: list[tuple[bytes, RemoteVerdict]] = [*upload.verdicts]
                for question in answer.questions:
                    verdicts.append((question, (await engines.ask(answer.program, [question]))[question]))
                upload = Upload(files, has_engine, is_checked=True, verdicts=verdicts)
    except TimeoutError:
        raise Invalid(
            f"the tests of the policy set take longer than {TESTS_S:g} s", hint="use fewer tests", code="too_costly"
        ) from None
    return await asyncio.to_thread(answer.restore, files)
