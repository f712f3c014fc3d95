"""A case of OPA's, in a confined process: modules, data, query and input in, results or an error out, all JSON."""

from __future__ import annotations

from contextlib import closing

import msgspec

from ostiaryd.policy.engines.opa import Opa, OpaError
from ostiaryd.policy.engines.rego import parse_module, refused_builtins


class _Case(msgspec.Struct):
    modules: list[str]
    query: str
    data: msgspec.Raw = msgspec.Raw(b"{}")
    input: msgspec.Raw = msgspec.Raw()


_decode = msgspec.json.Decoder(_Case).decode
_encode = msgspec.json.Encoder().encode


def answer(body: bytes) -> bytes:
    """Evaluate a case as the engine does. `refused`: the built-ins in its modules that an upload may not have."""
    case = _decode(body)
    refused: set[str] = set()
    with closing(Opa()) as opa:
        try:
            for number, text in enumerate(case.modules):
                opa.add_module(f"test-{number}.rego", text)
                refused |= refused_builtins(parse_module(f"test-{number}.rego", text))
            opa.add_data(bytes(case.data))
            results = opa.query(case.query, bytes(case.input))
        except OpaError as error:
            return _encode({"error": str(error), "refused": sorted(refused)})
    return _encode({"results": [found.bindings for found in results], "refused": sorted(refused)})
