"""Identifiers are known by shape and checksum, each on both sides, and honest texts have none."""

from __future__ import annotations

import base64
import random
import string

import pytest

from ostiary.provenance.origins.identifiers import MAX_FOUND, identifiers

RANDOM = "Zx9kQ2mP7vL4nR8tB3wY6cD1"
MRZ = "P<UTOERIKSSON<<ANNA<MARIA<<<<<<<<<<<<<<<<<<<\nL898902C36UTO7408122F1204159ZE184226B<<<<<10"


def kinds(text: str) -> set[str]:
    return {kind for kind, _ in identifiers(text)}


@pytest.mark.parametrize(
    ("kind", "right", "wrong"),
    [
        ("card", "4111 1111 1111 1111", "4111 1111 1111 1112"),
        ("card", "378282246310005", "378282246310006"),
        ("card", "5555-5555-5555-4444", "1234-5678-9012-3452"),
        ("iban", "DE89 3704 0044 0532 0130 00", "DE88 3704 0044 0532 0130 00"),
        ("card", "4111.1111.1111.1111", "4111.1111.1111.1112"),
        ("card", "4111_1111_1111_1111", "4111_1111.1111_1111"),
        ("card", "3782 / 822463 / 10005", "3782 / 822463 / 10006"),
        ("card", "4111\u20131111\u20131111\u20131111", "4111\n1111\n1111\n1111"),
        ("iban", "DE89.3704.0044.0532.0130.00", "DE88.3704.0044.0532.0130.00"),
        ("national_id", "078\u201305\u20131120", "078 05 1120"),
        ("iban", "gb82west12345698765432", "gb82west1234569876543"),
        ("key", "-----BEGIN OPENSSH PRIVATE KEY-----", "-----BEGIN PUBLIC KEY-----"),
        ("key", "eyJhbGciOiJub25lIn0x.eyJzdWIiOiIxIn0.", "eyJ.a.b"),
        ("key", "AKIAIOSFODNN7EXAMPLE", "AKIAIOSFODNN7EXAMPL"),
        ("key", "ghp_16C7e42F292c6912E7710c838347Ae178B4a", "ghp_this_is_the_name_of_a_function"),
        ("key", RANDOM, "AVeryLongNameOfAClassInJava8"),
        ("passport", MRZ, MRZ.replace("740812", "740813")),
        ("national_id", "123-45-6789", "000-45-6789"),
        ("national_id", "12345678Z", "12345678A"),
        ("national_id", "RSSMRA85T10A562S", "RSSMRA85T10A562T"),
        ("national_id", "131052-308T", "131052-308U"),
        ("national_id", "529.982.247-25", "529.982.247-26"),
        ("national_id", "811218-9876", "811218-9877"),
        ("national_id", "11010519491231002X", "110105194912310021"),
        ("national_id", "2 55 08 14 168 025 38", "2 55 08 14 168 025 39"),
        ("national_id", "44051401359", "44051401358"),
    ],
)
def test_an_identifier_is_recognised_by_its_shape_and_checksum(kind: str, right: str, wrong: str) -> None:
    assert kinds(f"It is {right}, as I said.") == {kind}
    assert kinds(f"It is {wrong}, as I said.") == set()
    encoded = base64.b64encode(f"it is {right} !".encode()).decode()
    assert kind in kinds(encoded), "whoever reads it may decode it"


@pytest.mark.parametrize(
    "text",
    [
        "commit 3f786850e387550fdab836ed7e6dc881de23001b",
        "id 550e8400-e29b-41d4-a716-446655440000",
        "see https://docs.example.com/d/1A2b3C4d5E6f7G8h9I0jKlMnOpQr",
        "order 2023-10-15-0000123, phone +44 20 7946 0958, on 2026-11-28 at 10:30",
        base64.b64encode(b"Hello Bob, this is nothing but a greeting in base64").decode(),
        "The quick brown fox jumps over the lazy dog. Total: 1,234.56 EUR (invoice 20261128)",
        "kebab-case-names-of-things-that-are-long and snake_case_names_of_things_too",
    ],
)
def test_an_ordinary_text_has_no_identifier(text: str) -> None:
    assert kinds(text) == set()


def test_random_keys_are_found_up_to_a_maximum_number() -> None:
    dice = random.Random(5)
    keys = ["".join(dice.choices(string.ascii_letters + string.digits, k=32)) for _ in range(200)]
    assert sum(kinds(f"use {key} now") == {"key"} for key in keys) >= 195
    assert len(list(identifiers(" ".join(keys)))) == MAX_FOUND
