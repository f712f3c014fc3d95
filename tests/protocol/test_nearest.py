from __future__ import annotations

from ostiary.protocol.nearest import MAX_COMPARED, MAX_LISTED, nearest, nearest_hint

NAMES = ["files:read", "files:write", "bank:pay"]


def test_the_most_similar_name_is_found() -> None:
    assert nearest("files:raed", NAMES) == "files:read"
    assert nearest("Files:Write", NAMES) == "files:write"
    assert nearest_hint("file:write", NAMES) == "did you mean `files:write`?"


def test_without_a_similar_name_the_known_ones_are_listed() -> None:
    assert nearest("zzz", NAMES) is None
    assert nearest_hint("zzz", NAMES) == "known: bank:pay, files:read, files:write"
    many = [f"n{index}" for index in range(MAX_LISTED + 2)]
    assert nearest_hint("zzz", many).endswith(" and 2 more")
    assert nearest_hint("zzz", []) == ""


def test_no_similar_name_is_found_for_a_very_long_name() -> None:
    assert nearest("x" * 1_000_000, (f"name{index}" for index in range(10 * MAX_COMPARED))) is None
