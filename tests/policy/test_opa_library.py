"""The binding of OPA's library: what it refuses itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from ostiaryd.policy.engines.opa import Opa, OpaError


@pytest.fixture
def opa() -> Iterator[Opa]:
    with closing(Opa()) as opa:
        yield opa


def test_a_nul_character_is_refused(opa: Opa) -> None:
    with pytest.raises(OpaError, match="NUL"):
        opa.add_module("a.rego", "package p\nv := 1\n\0v := 2")
    with pytest.raises(OpaError, match="NUL"):
        opa.add_module("a\0b.rego", "package p\nv := 1")
    with pytest.raises(OpaError, match="NUL"):
        opa.add_data(b'{"x": 1}\0')
    with pytest.raises(OpaError, match="NUL"):
        opa.query("1\0 == 2")
    with pytest.raises(OpaError, match="NUL"):
        opa.query("input", b"1\0")


@pytest.mark.parametrize("input", [b"[", b"\xff", b"1 2", b'{"a": 01}'])
def test_invalid_json_is_an_error(opa: Opa, input: bytes) -> None:
    with pytest.raises(OpaError):
        opa.query("input", input)
    with pytest.raises(OpaError):
        opa.add_data(input)


def test_an_undefined_document_or_a_missing_input_gives_no_result(opa: Opa) -> None:
    assert opa.query("data.nothing") == []
    assert opa.query("input") == []
    [found] = opa.query("input", b"null")
    assert bytes(found.expressions[0].value) == b"null"


def test_an_engine_does_not_see_modules_or_data_of_another_engine(opa: Opa) -> None:
    opa.add_module("a.rego", "package p\nv := 1")
    opa.add_data(b'{"x": 1}')
    with closing(Opa()) as other:
        assert other.query("data") != []
        assert bytes(other.query("data")[0].expressions[0].value) == b"{}"
