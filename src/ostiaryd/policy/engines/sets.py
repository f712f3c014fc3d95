"""Policy sets, loaded in a confined process: parsed, validated, compiled, tested.

    Upload -> Parsed         the set was accepted; the server restores the set from the answer
    Upload -> Needs(program) the set is not all Cedar: the server compiles the program, and sends the upload again
    Upload -> Needs(asked)   its tests need verdicts: the server gets them, and sends the upload with all verdicts

The process stores nothing between uploads.
"""

from __future__ import annotations

import msgspec

from ostiary.authorization.cedar import ir
from ostiary.decision.access.remote_policies import RemoteVerdict
from ostiary.protocol.decoding import msgpack_decoder
from ostiary.protocol.errors import Refused
from ostiaryd.ground.process.confined import parser
from ostiaryd.policy.model import Loaded, Program, Ready, decode_actions, encode_actions, load, restore
from ostiaryd.policy.model.load import base_schema
from ostiaryd.policy.model.safeguards import earlier_rules, extend, read_left_out, role_rules, safeguards

base_schema()  # first, while files can still be opened
safeguards()
earlier_rules()
role_rules()


class Upload(msgspec.Struct, frozen=True):
    """A message to the confined process: the files of a policy set to load. `has_engine`: policies in Rego or OPA are
    allowed. `is_checked`: the server has already compiled these policies. `verdicts`: their verdicts on the questions
    of the set's tests, as far as the server has obtained them.
    """

    files: dict[str, str]
    has_engine: bool
    is_checked: bool = False
    verdicts: list[tuple[bytes, RemoteVerdict]] = []


class Parsed(msgspec.Struct, frozen=True, tag="parsed"):
    """An accepted policy set."""

    hash: str
    rules: bytes
    actions: str
    tests: int
    left_out: list[str]
    """Safeguards of the server that the set leaves out."""

    def restore(self, own: dict[str, str]) -> Loaded:
        """Return the loaded set; `own`: the files of the upload. Call this in a thread, because a large set takes up to
        a second.
        """
        files = extend(own, self.left_out)
        rules, actions = ir.parse(self.rules), decode_actions(self.actions)
        ready: Ready = restore(self.hash, files, rules, actions)
        return Loaded(self.hash, files, rules, actions, ready, self.tests)


class Needs(msgspec.Struct, frozen=True, tag="needs"):
    """The answer of the confined process if the server must act before it sends the upload again: compile the policies
    in Rego or OPA (`program`) if `is_checked` is false, otherwise obtain their verdicts on `questions`.
    """

    program: Program
    is_checked: bool
    questions: list[bytes] = msgspec.field(default_factory=list, name="asked")


class _Unchecked(Exception):
    """Raised while a set is loaded, if its program must be compiled before the loading can continue."""


class _Rehearsal:
    """A stand-in for the remote policies while a set is loaded in several passes: returns known verdicts, and collects
    the questions without a verdict.
    """

    def __init__(self, upload: Upload) -> None:
        self._is_checked, self._known = upload.is_checked, dict(upload.verdicts)
        self.program: Program | None = None
        self.asked: dict[bytes, None] = {}

    def check(self, program: Program) -> None:
        self.program = program
        if not self._is_checked:
            raise _Unchecked

    def ask(self, program: Program, question: bytes) -> RemoteVerdict:
        if question not in self._known:
            self.asked[question] = None
        return self._known.get(question, ())


encode_upload = msgspec.msgpack.Encoder().encode
_decode_upload = msgpack_decoder(Upload)
_encode_answer = msgspec.msgpack.Encoder().encode
decode_answer = msgpack_decoder(Parsed | Needs)


@parser
def answer(body: bytes) -> bytes:
    """Return the encoded answer to an encoded upload of a policy set: the accepted set, or the necessary work of the
    server (`Needs`). Raises Malformed or Invalid for a set that is not accepted.
    """
    upload = _decode_upload(body)
    engine = _Rehearsal(upload)
    try:
        left_out = list(read_left_out(upload.files))
        loaded = load(extend(upload.files, left_out), engine if upload.has_engine else None)
    except _Unchecked:
        assert engine.program is not None
        return _encode_answer(Needs(engine.program, is_checked=False))
    except Refused:
        if not engine.asked:  # if a verdict was missing, a test may have failed for that reason alone
            raise
    if engine.asked:
        assert engine.program is not None
        return _encode_answer(Needs(engine.program, is_checked=True, questions=list(engine.asked)))
    return _encode_answer(
        Parsed(loaded.hash, ir.render(loaded.ir), encode_actions(loaded.actions), loaded.tests, left_out)
    )
