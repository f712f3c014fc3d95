"""OPA as a library: a thin binding of the shared library in `opa-golib-python-bindings`.

Input, data and results cross as JSON text. The package's own Python classes would decode and encode them, and change
numbers that Python's floats cannot hold. Built-ins that fail are errors (OPA's strict mode); modules are Rego v1.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import msgspec
from opa_bindings import _native

from ostiary.protocol.decoding import json_decoder

_library = _native.load()


class OpaError(Exception):
    """Raised if OPA (the Open Policy Agent library) refuses a module, data or a query, or if an evaluation fails. The
    message may contain values of the input.
    """


class _Error(msgspec.Struct):
    code: str
    message: str = ""


class _Expression(msgspec.Struct):
    value: msgspec.Raw


class Result(msgspec.Struct):
    """A result of a query, as JSON: the values of the query's expressions (`expressions`), and of its variables by name
    (`bindings`).
    """

    expressions: list[_Expression] = []
    bindings: dict[str, msgspec.Raw] = {}


class _Envelope(msgspec.Struct):
    result: msgspec.Raw = msgspec.Raw(b"null")
    error: _Error | None = None


_decode = json_decoder(_Envelope)
_decode_results = json_decoder(list[Result] | None)


class Opa:
    """An instance of OPA with modules and data, which answers queries. Use an instance in one thread at a time,
    and call `close` at the end.
    """

    def __init__(self) -> None:
        self._handle = _library.OpaNew()

    def add_module(self, name: str, text: str) -> None:
        """Add a Rego module. Raises OpaError if the text is not Rego."""
        self._call(_library.OpaAddPolicy, name.encode(), text.encode())

    def add_data(self, text: bytes) -> None:
        """Merge a JSON object (as text) into OPA's `data`. Raises OpaError for any other text."""
        self._call(_library.OpaAddData, b"", text)

    def query(self, query: str, input: bytes = b"") -> list[Result]:
        """Return the results of a Rego query; an empty list means that the query is undefined or false. `input` is a
        JSON text; empty means no input.

        Raises OpaError for modules that do not compile, and for evaluations that fail.
        """
        return _decode_results(self._call(_library.OpaEvalQuery, query.encode(), input, 0, 0)) or []

    def close(self) -> None:
        """Release the library's handle."""
        _library.OpaDestroy(self._handle)

    def _call(self, function: Callable[..., Any], *arguments: bytes | int) -> msgspec.Raw:
        if any(isinstance(argument, bytes) and b"\0" in argument for argument in arguments):
            raise OpaError("the text has a NUL character")  # C would end the text at the NUL character
        pointer = function(self._handle, *arguments)
        if not pointer:
            raise OpaError("the library is out of memory")
        try:
            envelope = _decode(ctypes.string_at(pointer))
        except msgspec.DecodeError as error:
            raise OpaError(f"the result cannot be read: {error}") from None
        finally:
            _library.OpaFreeString(pointer)
        if envelope.error is not None:
            raise OpaError(f"{envelope.error.code}: {envelope.error.message}")
        return envelope.result
