"""A parser of uploads: refusals come back whole, limits end it, the next upload is parsed."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from harness.patience import PATIENCE_S, eventually
from ostiary.protocol.errors import Invalid, Malformed, Unavailable
from ostiaryd.ground.process import confined
from ostiaryd.ground.process.confined import Confined, Exceeded, Parser, TooCostly, parser


def _eat(body: bytes) -> bytes:
    match body:
        case b"memory":
            return bytes(confined.MEMORY)
        case b"refuse":
            raise Malformed("not so", hint="otherwise", code="odd")
        case b"break":
            raise OverflowError("a secret")
    return body


eat = parser(_eat)
TARGET = f"{__name__}:eat"


async def test_the_error_of_a_parser_states_the_cause() -> None:
    here = Parser(TARGET, of="the upload")
    try:
        assert await here.parse(b"as it is") == b"as it is"
        with pytest.raises(Malformed) as refused:
            await here.parse(b"refuse")
        assert (refused.value.message, refused.value.hint, refused.value.code) == ("not so", "otherwise", "odd")
        with pytest.raises(Invalid) as broken:
            await here.parse(b"break")
        assert (broken.value.code, "OverflowError" in broken.value.message) == ("unparsable", True)
        assert "secret" not in broken.value.message
        with pytest.raises(TooCostly, match=f"more than {confined.MEMORY >> 20} MB of memory"):
            await here.parse(b"memory")
        assert await here.parse(b"again") == b"again"
    finally:
        await here.close()


async def test_a_parser_refuses_uploads_beyond_its_maximum_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confined, "MAX_UPLOADS", 3)
    here = Parser(TARGET, of="the upload")
    try:
        some = [asyncio.ensure_future(here.parse(b"%d" % number)) for number in range(4)]
        answers = await asyncio.gather(*some, return_exceptions=True)
        assert answers[:3] == [b"0", b"1", b"2"]
        assert isinstance(answers[3], Unavailable)
        assert await here.parse(b"later") == b"later"
    finally:
        await here.close()


def spin(body: bytes) -> bytes:
    """Use processor time without end."""
    while True:
        pass


async def test_an_upload_is_bounded_by_processor_time() -> None:
    child = Confined(f"{__name__}:spin", cpu_s=1)
    try:
        with pytest.raises(Exceeded, match="more than 1 s of processor time"):
            await asyncio.to_thread(partial(child.ask, b"x", within_s=PATIENCE_S))
    finally:
        await asyncio.to_thread(child.close)


def idle(body: bytes) -> bytes:
    """Use no processor time."""
    time.sleep(1.5)
    return body


async def test_wall_time_does_not_count_as_processor_time() -> None:
    child = Confined(f"{__name__}:idle", cpu_s=1)
    try:
        for _ in range(2):
            assert await asyncio.to_thread(partial(child.ask, b"x", within_s=PATIENCE_S)) == b"x"
    finally:
        await asyncio.to_thread(child.close)


def work(body: bytes) -> bytes:
    """Use some processor time."""
    until = time.process_time() + 0.7
    while time.process_time() < until:
        pass
    return body


async def test_each_upload_has_its_own_processor_time() -> None:
    child = Confined(f"{__name__}:work", cpu_s=1)
    try:
        children = set()
        for _ in range(4):
            assert await asyncio.to_thread(partial(child.ask, b"x", within_s=PATIENCE_S)) == b"x"
            children.add(child._child)
        assert len(children) == 1
    finally:
        await asyncio.to_thread(child.close)


def never(body: bytes) -> bytes:
    """Give no answer."""
    time.sleep(10 * PATIENCE_S)
    return body


@pytest.mark.parametrize("is_starting", [False, True])
def test_a_process_is_closed_while_it_starts_or_works_on_a_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_starting: bool
) -> None:
    (tmp_path / "slow_to_import.py").write_text(f"import time\ntime.sleep({10 * PATIENCE_S})\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(confined, "START_S", 10 * PATIENCE_S)
    child = Confined("slow_to_import:answer" if is_starting else f"{__name__}:never")
    refused: list[Exception] = []

    def ask() -> None:
        try:
            child.ask(b"x", within_s=10 * PATIENCE_S)
        except Unavailable as error:
            refused.append(error)

    if not is_starting:
        child.ask(b"", within_s=PATIENCE_S)
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    eventually(child._mutex.locked)
    process = eventually(lambda: child._child)
    closing_it = threading.Thread(target=child.close, daemon=True)
    closing_it.start()
    closing_it.join(PATIENCE_S)
    asking.join(PATIENCE_S)
    assert [thread.is_alive() for thread in (closing_it, asking)] == [False, False]
    assert process.returncode == -signal.SIGKILL
    assert len(refused) == 1
    with pytest.raises(Unavailable, match="the process is closed"):
        child.ask(b"x", within_s=PATIENCE_S)


def fill(body: bytes) -> bytes:
    """Write to as many megabytes as the body says."""
    return b"%d" % len(bytearray(int(body) << 20))


def test_reserved_address_space_does_not_count_as_memory() -> None:
    with closing(Confined(f"{__name__}:fill", memory=256 << 20, reserved=4 << 30)) as child:
        assert child.ask(b"128", within_s=PATIENCE_S) == b"%d" % (128 << 20)
        with pytest.raises(Exceeded, match="the process needs more than 256 MB of memory"):
            child.ask(b"300", within_s=PATIENCE_S)


def variables(body: bytes) -> bytes:
    """Return the names of the environment."""
    return " ".join(sorted(os.environ)).encode()


def test_a_child_process_has_only_the_environment_that_its_owner_sets() -> None:
    for environ, names in (({}, b""), ({"GOMAXPROCS": "2"}, b"GOMAXPROCS")):
        with closing(Confined(f"{__name__}:variables", environ=environ | {"LC_CTYPE": "C.UTF-8"})) as child:
            assert child.ask(b"x", within_s=PATIENCE_S).replace(b"LC_CTYPE", b"").strip() == names
