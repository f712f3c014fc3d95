"""The notes of Peter and Enoch are those of golang.org/x/mod/sumdb/note (note_test.go): keys, texts and signatures."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from ostiary.protocol.errors import Malformed
from ostiary.protocol.note import (
    MAX_NOTE_BYTES,
    MAX_SIGNATURES,
    NoteKey,
    Unsigned,
    decode_base64,
    encode_base64,
    open_note,
    parse_note,
    parse_vkey,
    sign_note,
)

TEXT = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
PETER = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
ENOCH = "EnochRoot+af0cfe78+ATtqJ7zOtqQtYqOo0CpvDXNlMhV3HeJDpjrASKGLWdop"
PETER_LINE = (
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)
ENOCH_LINE = (
    "— EnochRoot rwz+eBzmZa0SO3NbfRGzPCpDckykFXSdeX+MNtCOXm2/5n2tiOHp+vAF1aGrQ5ovTG01oOTGwnWLox33WWd1RvMc+QQ=\n"
)
NOTE = f"{TEXT}\n{PETER_LINE}"


def peter() -> Ed25519PrivateKey:
    """PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"""
    return Ed25519PrivateKey.from_private_bytes(decode_base64("AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz")[1:])


def test_a_verifier_key_is_the_same_after_parsing_and_rendering() -> None:
    for vkey in (PETER, ENOCH):
        assert parse_vkey(vkey).vkey == vkey
    assert parse_vkey(PETER).name == "PeterNeumann"
    assert parse_vkey(PETER).key_id.hex() == "c74f20a3"


def test_a_truncated_or_altered_verifier_key_is_refused() -> None:
    parts = {PETER[i:j] for i in range(len(PETER)) for j in range(i, len(PETER) + 1)} - {PETER}
    shifted = {PETER[:i] + chr(ord(PETER[i]) + 1) + PETER[i + 1 :] for i in range(len(PETER))}
    for mangled in parts | shifted:
        with pytest.raises(Malformed):
            parse_vkey(mangled)


@pytest.mark.parametrize(
    "vkey",
    [
        "PeterNeumann+cc469956+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TWBADKEY==",  # too long, its id is right
        "PeterNeumann+173116ae+ZRpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",  # another algorithm, its id is right
        "PeterNeumann+C74F20A3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
    ],
)
def test_a_verifier_key_of_another_length_algorithm_or_case_is_refused(vkey: str) -> None:
    with pytest.raises(Malformed):
        parse_vkey(vkey)


def test_a_signed_note_equals_that_of_the_go_implementation() -> None:
    assert sign_note(TEXT, key=parse_vkey(PETER), sign=peter().sign).decode() == NOTE


def test_a_signed_note_keeps_existing_signatures() -> None:
    others = parse_note(f"{TEXT}\n{ENOCH_LINE}".encode()).signatures
    note = sign_note(TEXT, key=parse_vkey(PETER), sign=peter().sign, others=others)
    assert note.decode() == f"{TEXT}\n{PETER_LINE}{ENOCH_LINE}"
    open_note(note, [parse_vkey(PETER), parse_vkey(ENOCH)])


@pytest.mark.parametrize("keys", [[PETER], [ENOCH], [PETER, ENOCH]])
def test_one_trusted_signature_is_sufficient_and_unknown_signatures_are_ignored(keys: list[str]) -> None:
    note = open_note(f"{TEXT}\n{PETER_LINE}{ENOCH_LINE}".encode(), map(parse_vkey, keys))
    assert note.text == TEXT
    assert [signature.name for signature in note.signatures] == ["PeterNeumann", "EnochRoot"]


def test_a_note_that_no_trusted_key_signed_is_refused() -> None:
    for keys in ([], [parse_vkey(ENOCH)]):
        with pytest.raises(Unsigned):
            open_note(NOTE.encode(), keys)


def test_a_key_with_only_the_same_name_or_only_the_same_id_does_not_verify() -> None:
    same_name = NoteKey("PeterNeumann", parse_vkey(ENOCH).public)
    with pytest.raises(Unsigned, match="no trusted key"):
        open_note(NOTE.encode(), [same_name])
    renamed = NOTE.replace("— PeterNeumann", "— CarmenSandiego")
    with pytest.raises(Unsigned, match="no trusted key"):
        open_note(renamed.encode(), [parse_vkey(PETER)])


def test_a_note_with_an_invalid_signature_of_a_trusted_key_is_refused() -> None:
    changed = NOTE.replace("cryptography", "Cryptography").encode()
    with pytest.raises(Unsigned, match="does not match the text of the note"):
        open_note(changed, [parse_vkey(PETER)])
    forged = encode_base64(parse_vkey(ENOCH).key_id + bytes(64))
    with pytest.raises(Unsigned, match="does not match the text of the note"):
        open_note(f"{NOTE}— EnochRoot {forged}\n".encode(), [parse_vkey(PETER), parse_vkey(ENOCH)])
    short = encode_base64(parse_vkey(PETER).key_id + b"short")
    with pytest.raises(Unsigned, match="does not match the text of the note"):
        open_note(f"{NOTE}— PeterNeumann {short}\n".encode(), [parse_vkey(PETER)])


@pytest.mark.parametrize("text", ["", "no newline", "a\tb\n", "a\x00b\n", "a\rb\n"])
def test_a_malformed_text_is_not_signed(text: str) -> None:
    with pytest.raises(Malformed):
        sign_note(text, key=parse_vkey(PETER), sign=peter().sign)


def test_a_note_beyond_the_maximum_signatures_or_size_is_not_signed() -> None:
    key, sign = parse_vkey(PETER), peter().sign
    other = parse_note(f"{TEXT}\n{ENOCH_LINE}".encode()).signatures
    assert parse_note(sign_note(TEXT, key=key, sign=sign, others=other * (MAX_SIGNATURES - 1)))
    with pytest.raises(Malformed, match="signatures"):
        sign_note(TEXT, key=key, sign=sign, others=other * MAX_SIGNATURES)
    room = MAX_NOTE_BYTES - len(sign_note("\n", key=key, sign=sign))
    assert parse_note(sign_note("x" * room + "\n", key=key, sign=sign))
    with pytest.raises(Malformed, match="bytes"):
        sign_note("x" * (room + 1) + "\n", key=key, sign=sign)


def test_signing_calls_the_signer_once_and_does_not_verify_the_signature() -> None:
    signed: list[bytes] = []

    def sign(text: bytes) -> bytes:
        signed.append(text)
        return bytes(64)  # no key has made this signature

    assert sign_note(TEXT, key=parse_vkey(PETER), sign=sign).decode().startswith(TEXT)
    assert signed == [TEXT.encode()]


@pytest.mark.parametrize(
    "note",
    [
        "",
        "\n",
        TEXT,
        f"{TEXT}\n",
        NOTE[:-1],
        f"{NOTE}Unexpected line.\n",
        f"{NOTE}\n",
        f"\x01{NOTE}",
        NOTE.replace("\n", "\r\n"),
        NOTE.replace("— ", "- "),
        NOTE.replace("PeterNeumann ", "Bad Name "),
        NOTE.replace("PeterNeumann ", "Bad+Name "),
        NOTE.replace("PeterNeumann ", "Bad\u2003Name "),
        NOTE.replace("PeterNeumann ", " "),
        NOTE.replace("PeterNeumann ", "PeterNeumann  "),
        NOTE.replace("nAM=", "nAN="),  # the same bytes, spelled otherwise
        NOTE.replace("nAM=", "nAM"),
        f"{TEXT}\n— PeterNeumann x08gow==\n",  # nothing behind the key id
    ],
)
def test_a_malformed_note_is_refused(note: str) -> None:
    with pytest.raises(Malformed):
        parse_note(note.encode())


def test_a_note_that_is_not_utf8_is_refused() -> None:
    with pytest.raises(Malformed):
        parse_note(b"\xff" + NOTE.encode())


def test_the_text_may_have_empty_lines() -> None:
    text = "Ognuno sta solo\n\ned è subito sera.\n"
    note = sign_note(text, key=parse_vkey(PETER), sign=peter().sign)
    assert open_note(note, [parse_vkey(PETER)]).text == text


def test_a_note_with_more_than_the_maximum_number_of_signatures_is_refused() -> None:
    assert len(parse_note((f"{TEXT}\n" + ENOCH_LINE * MAX_SIGNATURES).encode()).signatures) == MAX_SIGNATURES >= 16
    with pytest.raises(Malformed):
        parse_note((f"{TEXT}\n" + ENOCH_LINE * (MAX_SIGNATURES + 1)).encode())


def test_a_note_beyond_the_maximum_size_is_refused() -> None:
    padding = MAX_NOTE_BYTES - len(NOTE.encode())
    assert len(parse_note(b"x" * padding + NOTE.encode()).text) == padding + len(TEXT)
    with pytest.raises(Malformed):
        parse_note(b"x" * (padding + 1) + NOTE.encode())


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\nb", "a\u00a0b", "a\x01b"])
def test_a_key_name_with_a_space_plus_or_control_character_is_refused(name: str) -> None:
    with pytest.raises(Malformed):
        NoteKey(name, bytes(32))


def test_a_public_key_that_is_not_32_bytes_long_is_refused() -> None:
    for length in (31, 33):
        with pytest.raises(Malformed):
            NoteKey("name", bytes(length))


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1))
def test_any_signed_text_can_be_opened(line: str) -> None:
    note = sign_note(line + "\n", key=parse_vkey(PETER), sign=peter().sign)
    assert open_note(note, [parse_vkey(PETER)]).text == line + "\n"


@given(st.binary(max_size=300))
def test_parsing_any_bytes_raises_malformed(data: bytes) -> None:
    with pytest.raises(Malformed):
        parse_note(data + b".")
