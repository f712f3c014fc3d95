from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from ostiary.protocol.checkpoint import Checkpoint, open_checkpoint, parse_checkpoint, parse_count, sign_checkpoint
from ostiary.protocol.errors import Malformed
from ostiary.protocol.merkle import EMPTY_ROOT, MAX_SIZE, leaf_hash
from ostiary.protocol.note import NoteKey, Unsigned, parse_vkey

# What the checksum database of Go answered on 2024-09-23, and the key that the go command has for it
GO_KEY = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8"
GO_ORIGIN = "go.sum database tree"
GO_NOTE = """go.sum database tree
30055305
mXfgRcJ0bG0j3CPdKwgGWtUzBUbX67saZGRmFuJGGsM=

— sum.golang.org Az3grpgEild5qw7+5dtV13Kf1C2Xurm8q4fhdxvcsDHnqNTaxL2AFjBY+2TyGKevucFcAAlWFJJYle3EJlDCrQ+y3A8=
""".encode()
ROOT = leaf_hash(b"")
TEXT = f"log.example\n1\n{base64.b64encode(ROOT).decode()}\n"


def test_a_checkpoint_of_the_go_checksum_database_is_opened() -> None:
    checkpoint = open_checkpoint(GO_NOTE, [parse_vkey(GO_KEY)], origin=GO_ORIGIN)
    assert (checkpoint.origin, checkpoint.size) == (GO_ORIGIN, 30_055_305)
    assert checkpoint.root.hex() == "9977e045c2746c6d23dc23dd2b08065ad5330546d7ebbb1a64646616e2461ac3"
    assert checkpoint.text.encode() == GO_NOTE.partition(b"\n\n")[0] + b"\n"


def test_the_example_of_the_specification_is_read() -> None:
    text = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
    assert parse_checkpoint(text).size == 20_852_163
    assert parse_checkpoint(text).text == text


def test_a_checkpoint_of_a_larger_log_than_was_signed_is_refused() -> None:
    with pytest.raises(Unsigned):
        open_checkpoint(GO_NOTE.replace(b"30055305", b"30055306"), [parse_vkey(GO_KEY)], origin=GO_ORIGIN)


def test_a_genuine_checkpoint_of_another_log_is_refused() -> None:
    with pytest.raises(Unsigned):
        open_checkpoint(GO_NOTE, [parse_vkey(GO_KEY)], origin="go.sum database tree 2")


def test_a_signed_checkpoint_can_be_opened_and_an_invalid_one_is_not_signed() -> None:
    private = Ed25519PrivateKey.from_private_bytes(bytes(32))
    key = NoteKey("log.example", private.public_key().public_bytes_raw())
    for checkpoint in (Checkpoint("log.example", 1, ROOT), Checkpoint("log.example", 0, EMPTY_ROOT, ("more",))):
        note = sign_checkpoint(checkpoint, key=key, sign=private.sign)
        assert open_checkpoint(note, [key], origin="log.example") == checkpoint
    for unfit in (
        Checkpoint("log\nexample", 1, ROOT),
        Checkpoint("log.example", 1, ROOT, ("",)),
        Checkpoint("log.example", 1, ROOT[:-1]),
        Checkpoint("log.example", -1, ROOT),
        Checkpoint("log.example", MAX_SIZE + 1, ROOT),
        Checkpoint("log.example", 0, ROOT),
        Checkpoint("", 1, ROOT),
        Checkpoint("log.example", 1, ROOT, ("one\ntwo",)),
        Checkpoint("log\texample", 1, ROOT),
    ):
        with pytest.raises(Malformed):
            sign_checkpoint(unfit, key=key, sign=private.sign)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n\n\n",
        TEXT[:-1],
        "log.example\n1\n",
        TEXT + "\n",
        TEXT + "\nmore\n",
        "\n" + TEXT,
        TEXT.replace("\n1\n", "\n01\n"),
        TEXT.replace("\n1\n", "\n+1\n"),
        TEXT.replace("\n1\n", "\n-1\n"),
        TEXT.replace("\n1\n", "\n1 \n"),
        TEXT.replace("\n1\n", "\n0x1\n"),
        TEXT.replace("\n1\n", "\n1_0\n"),
        TEXT.replace("\n1\n", "\n\u0661\n"),
        TEXT.replace("\n1\n", "\n\n"),
        TEXT.replace("\n1\n", "\n0\n"),  # the root is not that of the empty tree
        TEXT.replace("=\n", "\n"),
        TEXT.replace("=\n", "==\n"),
        f"log.example\n1\n{base64.b64encode(ROOT[:-1]).decode()}\n",
        f"log.example\n1\n{base64.b64encode(ROOT + b'.').decode()}\n",
        f"log.example\n1\n{base64.urlsafe_b64encode(bytes([255]) * 32).decode()}\n",
    ],
)
def test_a_malformed_checkpoint_is_refused(text: str) -> None:
    with pytest.raises(Malformed):
        parse_checkpoint(text)


def test_extension_lines_are_kept() -> None:
    assert parse_checkpoint(TEXT + "one\ntwo\n").extensions == ("one", "two")


def test_a_count_above_the_maximum_size_is_refused() -> None:
    assert parse_count(str(MAX_SIZE)) == MAX_SIZE
    for text in (str(MAX_SIZE + 1), "9" * 5000):
        with pytest.raises(Malformed, match=f"9.* is more than {MAX_SIZE}, the maximum"):
            parse_count(text)


@given(st.integers(0, MAX_SIZE))
def test_a_count_with_a_leading_zero_is_refused(count: int) -> None:
    assert parse_count(str(count)) == count
    with pytest.raises(Malformed):
        parse_count(f"0{count}")
