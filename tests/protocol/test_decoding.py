"""Decoders by type: threads that use a type for the first time at the same moment."""

from __future__ import annotations

import subprocess
import sys
from typing import Annotated, Any

import msgspec
import pytest

from ostiary.protocol import canonical
from ostiary.protocol.decoding import convert, json_decoder, msgpack_decoder
from ostiary.protocol.errors import Malformed

PROGRAM = """
import sys, threading, types
from ostiary.protocol.decoding import convert, json_decoder, msgpack_decoder

SOURCE = '''
import dataclasses, msgspec, typing

class Inner(msgspec.Struct):
    number: "int"

@dataclasses.dataclass
class Data:
    inner: "Inner"

class Typed(typing.TypedDict):
    inner: "Inner"

class Outer(msgspec.Struct):
    inner: "Inner"
    data: "Data"
    typed: "Typed"
'''
VALUE = {"inner": {"number": 1}, "data": {"inner": {"number": 2}}, "typed": {"inner": {"number": 3}}}
import msgspec
USES = [
    lambda kind: json_decoder(kind)(msgspec.json.encode(VALUE)),
    lambda kind: msgpack_decoder(kind)(msgspec.msgpack.encode(VALUE)),
    lambda kind: convert(VALUE, kind),
]
sys.setswitchinterval(1e-6)
for number in range(int(sys.argv[1])):
    module = sys.modules["fresh"] = types.ModuleType("fresh")
    exec(SOURCE, module.__dict__)
    barrier = threading.Barrier(2 * len(USES))
    results = []
    def use(how):
        barrier.wait()
        results.append(how(module.Outer))
    threads = [threading.Thread(target=use, args=(how,)) for how in USES * 2]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    assert len(results) == 6 and all(one == results[0] for one in results), results
"""
ROUNDS = 500
"""msgspec alone crashed within 100."""


class Point(msgspec.Struct):
    x: int


def test_several_threads_can_use_a_type_for_the_first_time_concurrently() -> None:
    run = subprocess.run([sys.executable, "-c", PROGRAM, str(ROUNDS)], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")


def test_json_messagepack_and_converted_values_have_the_requested_type() -> None:
    assert json_decoder(Point)(b'{"x":1}') == msgpack_decoder(Point)(b"\x81\xa1x\x01") == convert({"x": 1}, Point)
    assert json_decoder(int | str)(b'"a"') == "a"
    assert convert({"x": "1"}, Point, strict=False) == Point(1)


@pytest.mark.parametrize("count", [1, 2])
def test_a_value_at_the_limit_of_an_annotated_type_is_accepted(count: int) -> None:
    assert convert([1] * count, Annotated[list[int], msgspec.Meta(max_length=2)]) == [1] * count


def test_values_that_do_not_match_the_type_or_its_limits_are_refused() -> None:
    with pytest.raises(msgspec.ValidationError):
        convert([1] * 3, Annotated[list[int], msgspec.Meta(max_length=2)])
    with pytest.raises(msgspec.ValidationError):
        convert({"x": "1"}, Point)
    with pytest.raises(msgspec.DecodeError):
        json_decoder(Point)(b'{"x":')
    with pytest.raises(msgspec.DecodeError):
        msgpack_decoder(Point)(b"\xc1")


def test_text_that_is_not_utf8_is_refused_as_any_other_malformed_text() -> None:
    with pytest.raises(msgspec.DecodeError, match="not valid UTF-8"):
        json_decoder(dict[str, str])(b'{"x":"\xff"}')
    with pytest.raises(msgspec.DecodeError, match="not valid UTF-8"):
        msgpack_decoder(dict[str, str])(b"\x81\xa1x\xa1\xff")
    with pytest.raises(msgspec.DecodeError, match="not valid UTF-8"):
        json_decoder(dict[str, str])('{"x":"\ud800"}')


@pytest.mark.parametrize("kind", [Any, Point, dict[str, Any]])
def test_text_that_is_nested_too_deeply_is_refused_as_any_other_malformed_text(kind: Any) -> None:
    with pytest.raises(msgspec.DecodeError, match="nested too deeply"):
        json_decoder(kind)(b'{"x":1,"y":' + b"[" * 100_000 + b"]" * 100_000 + b"}")
    with pytest.raises(msgspec.DecodeError, match="nested too deeply"):
        msgpack_decoder(kind)(b"\x82\xa1x\x01\xa1y" + b"\x91" * 100_000 + b"\x01")


@pytest.mark.parametrize("half", ["\\ud800", "\\udc00", "\\ud800abcdef", "\\ud800\\u0041"])
def test_half_of_a_surrogate_pair_is_refused_also_in_a_skipped_member(half: str) -> None:
    assert json_decoder(Point)('{"x":1,"y":"\\ud83d\\ude00"}') == Point(1)
    for text in (f'{{"x":1,"y":"{half}"}}', f'{{"x":1,"{half}":1}}'):
        with pytest.raises(msgspec.DecodeError):
            json_decoder(Point)(text)


def test_a_skipped_member_is_checked_by_canonical_parse_alone() -> None:
    for member in (b'"y":"\xff"', b'"\xff":1', b'"y":1e999', b'"x":1'):
        text = b'{"x":1,' + member + b"}"
        assert json_decoder(Point)(text) == Point(1)
        with pytest.raises(Malformed):
            canonical.parse(text)
