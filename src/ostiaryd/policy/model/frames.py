"""The messages to and from the what-if process (`ostiaryd.policy.engines.whatif`), as bytes."""

from __future__ import annotations

import msgspec

from ostiary.authorization.cedar import ir
from ostiary.protocol.decoding import msgpack_decoder
from ostiaryd.policy.model.files import encode_actions
from ostiaryd.policy.model.load import Loaded
from ostiaryd.policy.model.whatif import By, Report, Row


class Candidate(msgspec.Struct, frozen=True, tag="candidate"):
    """The candidate set, in the form for guards, with its actions. Its answer is empty."""

    hash: str
    rules: str
    actions: str
    entities: str
    elsewhere: dict[str, bool]
    by: By


class Rows(msgspec.Struct, frozen=True, tag="rows"):
    """Entries to compare."""

    rows: list[Row]


class CatalogueText(msgspec.Struct, frozen=True, tag="found"):
    """The text of the catalogue that the comparison lacked; None: the text was not stored."""

    digest: str
    text: str | None


class Ended(msgspec.Struct, frozen=True, tag="ended"):
    """The end of the rows."""


Request = Candidate | Rows | CatalogueText | Ended


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """The answer of the process. `lacks`: the digest of a catalogue that the comparison needs; `report`: the
    report, at the end.
    """

    lacks: str = ""
    report: Report | None = None


def candidate_of(loaded: Loaded, by: By) -> Candidate:
    """Return the candidate set for the what-if process."""
    rules = ir.render(loaded.ir).decode()
    ready = loaded.ready
    return Candidate(loaded.hash, rules, encode_actions(loaded.actions), ready.entities, ready.policies.remote, by)


encode_request = msgspec.msgpack.Encoder().encode
decode_request = msgpack_decoder(Request)
encode_answer = msgspec.msgpack.Encoder().encode
decode_answer = msgpack_decoder(Answer)
