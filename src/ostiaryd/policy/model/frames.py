"""The messages between the server and the what-if process (`ostiaryd.policy.engines.whatif`), and their encoding."""

from __future__ import annotations

import msgspec

from ostiary.authorization.cedar import ir
from ostiary.protocol.decoding import msgpack_decoder
from ostiaryd.policy.model.files import encode_actions
from ostiaryd.policy.model.load import Loaded
from ostiaryd.policy.model.whatif import By, Report, Row


class Candidate(msgspec.Struct, frozen=True, tag="candidate"):
    """The first message to the what-if process: the candidate policy set, in the form that guards get, with its
    actions. The process answers with an empty `Answer`.
    """

    hash: str
    rules: str
    actions: str
    entities: str
    elsewhere: dict[str, bool]
    by: By


class Rows(msgspec.Struct, frozen=True, tag="rows"):
    """A message to the what-if process: a page of ledger entries whose decisions the process replays."""

    rows: list[Row]


class CatalogueText(msgspec.Struct, frozen=True, tag="found"):
    """A message to the what-if process: the text of the catalogue that its last answer requested by `lacks`; None if
    the text is not stored.
    """

    digest: str
    text: str | None


class Ended(msgspec.Struct, frozen=True, tag="ended"):
    """The last message to the what-if process: all entries were sent. The process answers with its report."""


Request = Candidate | Rows | CatalogueText | Ended


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """The response of the what-if process to a message. `lacks`: the digest of a catalogue whose text the process needs
    before it continues with the page; empty for none. `report`: the report, only in the response to `Ended`.
    """

    lacks: str = ""
    report: Report | None = None


def candidate_of(loaded: Loaded, by: By) -> Candidate:
    """Return the message that sends a policy set to the what-if process. `by`: the member of the changed verdicts by
    which the report groups them.
    """
    rules = ir.render(loaded.ir).decode()
    ready = loaded.ready
    return Candidate(loaded.hash, rules, encode_actions(loaded.actions), ready.entities, ready.policies.remote, by)


encode_request = msgspec.msgpack.Encoder().encode
decode_request = msgpack_decoder(Request)
encode_answer = msgspec.msgpack.Encoder().encode
decode_answer = msgpack_decoder(Answer)
