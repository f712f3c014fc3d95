from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ostiary.protocol.checkpoint import Checkpoint, sign_checkpoint
from ostiary.protocol.errors import Invalid, Malformed
from ostiary.protocol.merkle import HASH_BYTES, Frontier, ProofFailed, leaf_hash, node_hash
from ostiary.protocol.note import NoteKey, Unsigned, encode_base64
from ostiary.protocol.receipt import MAX_RECEIPT_BYTES, Receipt, make_receipt, parse_receipt, verify_receipt

PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(32))
KEY = NoteKey("log.example", PRIVATE.public_key().public_bytes_raw())
ENTRIES = [b"zero", b"one", b"two"]
HASHES = [leaf_hash(entry) for entry in ENTRIES]


def note() -> bytes:
    frontier = Frontier()
    frontier.extend(HASHES)
    return sign_checkpoint(Checkpoint("log.example", 3, frontier.root()), key=KEY, sign=PRIVATE.sign)


def hash_at(level: int, index: int) -> bytes:
    return HASHES[index] if level == 0 else node_hash(HASHES[0], HASHES[1])


def receipt(index: int = 1) -> bytes:
    return make_receipt(index, size=3, note=note(), hash_at=hash_at).render()


def test_a_receipt_has_the_format_of_the_specification() -> None:
    siblings = f"{encode_base64(HASHES[0])}\n{encode_base64(HASHES[2])}"
    assert receipt().decode() == f"c2sp.org/tlog-proof@v1\nindex 1\n{siblings}\n\n{note().decode()}"


@pytest.mark.parametrize("index", [0, 1, 2])
def test_a_receipt_proves_its_entry(index: int) -> None:
    proved, checkpoint = verify_receipt(receipt(index), entry=ENTRIES[index], keys=[KEY], origin="log.example")
    assert (proved, checkpoint.size) == (index, 3)


def test_a_receipt_does_not_prove_another_entry_or_index() -> None:
    with pytest.raises(ProofFailed):
        verify_receipt(receipt(), entry=b"two", keys=[KEY], origin="log.example")
    for index in (b"index 0", b"index 2", b"index 3"):
        moved = receipt().replace(b"index 1", index)
        with pytest.raises(ProofFailed):
            verify_receipt(moved, entry=b"one", keys=[KEY], origin="log.example")


def test_a_receipt_signed_by_another_key_or_for_another_origin_is_refused() -> None:
    other = NoteKey("log.example", Ed25519PrivateKey.from_private_bytes(b"." * 32).public_key().public_bytes_raw())
    with pytest.raises(Unsigned):
        verify_receipt(receipt(), entry=b"one", keys=[other], origin="log.example")
    with pytest.raises(Unsigned):
        verify_receipt(receipt(), entry=b"one", keys=[KEY], origin="other.example")


def test_an_entry_outside_of_the_log_has_no_receipt() -> None:
    with pytest.raises(Invalid):
        receipt(3)


@pytest.mark.parametrize("extra", [None, b"", b"anything"])
def test_a_receipt_keeps_extra_data(extra: bytes | None) -> None:
    carried = Receipt(1, (HASHES[0], HASHES[2]), note(), extra)
    assert parse_receipt(carried.render()) == carried


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"c2sp.org/tlog-proof@v1\n\n",
        b"c2sp.org/tlog-proof@v2\nindex 0\n\nx",
        b"c2sp.org/tlog-proof@v1\nextra !!notbase64!!\nindex 0\n\nx",
        b"c2sp.org/tlog-proof@v1\nextra YQ==\n\nx",
        b"c2sp.org/tlog-proof@v1\nindex 0\nextra YQ==\n\nx",
        b"c2sp.org/tlog-proof@v1\nindex notanumber\n\nx",
        b"c2sp.org/tlog-proof@v1\nindex -5\n\nx",
        b"c2sp.org/tlog-proof@v1\nindex 00\n\nx",
        b"c2sp.org/tlog-proof@v1\nindex 0\n!!notbase64!!\n\nx",
        b"c2sp.org/tlog-proof@v1\r\nindex 0\r\n\r\nx",
        b"c2sp.org/tlog-proof@v1\nindex 0\n" + encode_base64(bytes(HASH_BYTES + 1)).encode() + b"\n\nx",
        b"c2sp.org/tlog-proof@v1\nindex 0\n" + encode_base64(bytes(HASH_BYTES - 1)).encode() + b"\n\nx",
        b"c2sp.org/tlog-proof@v1\nindex 0\n\xc3\xa9\n\nx",
    ],
)
def test_a_malformed_receipt_is_refused(data: bytes) -> None:
    with pytest.raises(Malformed):
        parse_receipt(data)


def test_a_receipt_beyond_the_maximum_size_is_refused() -> None:
    head = b"c2sp.org/tlog-proof@v1\nindex 0\n\n"
    assert parse_receipt(head.ljust(MAX_RECEIPT_BYTES, b"x")).index == 0
    with pytest.raises(Malformed):
        parse_receipt(head.ljust(MAX_RECEIPT_BYTES + 1, b"x"))
