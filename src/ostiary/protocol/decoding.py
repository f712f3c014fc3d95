"""Decoders by type: the one place where msgspec builds the type information of structs.

msgspec publishes the information of a type on the type itself before the information is complete. A second thread that
uses the type at that moment reads null pointers, and the process ends with SIGSEGV (`docs/upstream/`). Here one lock is
held while the information is built, and no type is used before its information is complete. Modules usually create
their decoders at import; a type that is first used later, in any thread, is safe too. A test refuses every other use
of typed decoders.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar, overload

import msgspec

T = TypeVar("T")
_building = threading.Lock()


@overload
def json_decoder(kind: type[T]) -> Callable[[bytes | str], T]: ...
@overload
def json_decoder(kind: Any) -> Callable[[bytes | str], Any]: ...
def json_decoder(kind: Any) -> Callable[[bytes | str], Any]:
    """Return the function that decodes JSON to the type `kind`, or raises msgspec.DecodeError, also for text that is
    nested too deeply or not UTF-8, and for half of a surrogate pair.

    Of a member that occurs twice, the decoder takes the last value. Members that a struct does not have are skipped:
    their syntax is checked, but not their UTF-8 or the range of their numbers. `canonical.parse` checks all of these;
    a server parses the body of a request with it, too.
    """
    return _decoder(msgspec.json.Decoder, kind)


@overload
def msgpack_decoder(kind: type[T]) -> Callable[[bytes], T]: ...
@overload
def msgpack_decoder(kind: Any) -> Callable[[bytes], Any]: ...
def msgpack_decoder(kind: Any) -> Callable[[bytes], Any]:
    """Return the function that decodes MessagePack to the type `kind`, or raises msgspec.DecodeError, also for data
    that is nested too deeply, and for text that is not UTF-8.
    """
    return _decoder(msgspec.msgpack.Decoder, kind)


@overload
def convert(value: object, kind: type[T], *, strict: bool = True) -> T: ...
@overload
def convert(value: object, kind: Any, *, strict: bool = True) -> Any: ...
def convert(value: object, kind: Any, *, strict: bool = True) -> Any:
    """Return a decoded JSON value converted to the type `kind`. If `strict` is false, strings such as `"5"` are
    converted to numbers and booleans too. Raises msgspec.ValidationError for a value of another type.
    """
    _decoder(msgspec.msgpack.Decoder, kind)  # builds the type information; MessagePack has decoders for every type
    return msgspec.convert(value, kind, strict=strict)


@cache
def _decoder(of: Any, kind: Any) -> Callable[[Any], Any]:
    with _building:
        decode: Callable[[Any], Any] = of(kind).decode

    def decode_text(text: Any) -> Any:
        try:
            return decode(text)
        # msgspec raises errors of Python for strings that are not UTF-8 and for deep nesting
        except UnicodeError:
            raise msgspec.DecodeError("the text is not valid UTF-8") from None
        except RecursionError:
            raise msgspec.DecodeError("the text is nested too deeply") from None

    return decode_text
