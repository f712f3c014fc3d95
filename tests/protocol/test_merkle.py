"""The tree of eight leaves that the implementations of RFC 6962 share (transparency-dev/merkle, testonly/constants.go),
and one defined by the recursion of RFC 9162 section 2.1.1, word for word."""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ostiary.protocol.errors import Invalid
from ostiary.protocol.merkle import (
    EMPTY_ROOT,
    MAX_SIZE,
    Frontier,
    ProofFailed,
    TileHash,
    inclusion_proof,
    leaf_hash,
    node_hash,
    tree_root,
    verify_inclusion,
)

LEAVES = [
    bytes.fromhex(entry)
    for entry in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
NODES = [
    [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "0298d122906dcfc10892cb53a73992fc5b9f493ea4c9badb27b791b4127a7fe7",
        "07506a85fd9dd2f120eb694f86011e5bb4662e5c415a62917033d4a9624487e7",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "4271a26be0d8a84f0bd54c8c302e7cb3a3b5d1fa6780a40bcce2873477dab658",
        "b08693ec2e721597130641e8211e7eedccb4c26413963eee6c1e2ed16ffb1a5f",
        "46f6ffadd3d06a09ff3c5860d2755c8b9819db7df44251788c7d8e3180de8eb1",
    ],
    [
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
    ],
    [
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ],
    ["5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"],
]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
# testdata/inclusion of the same repository; each hash is named by its place in NODES
INCLUSION = [
    (0, 1, []),
    (0, 8, [(0, 1), (1, 1), (2, 1)]),
    (5, 8, [(0, 4), (1, 3), (2, 0)]),
    (2, 3, [(1, 0)]),
    (1, 5, [(0, 0), (1, 1), (0, 4)]),
]


def reference(level: int, index: int) -> bytes:
    return bytes.fromhex(NODES[level][index])


def test_hashes_equal_those_of_the_reference_tree() -> None:
    assert [leaf_hash(entry).hex() for entry in LEAVES] == NODES[0]
    for below, above in pairwise(NODES):
        pairs = zip(below[::2], below[1::2], strict=True)
        assert [node_hash(bytes.fromhex(a), bytes.fromhex(b)).hex() for a, b in pairs] == above


def test_roots_equal_those_of_the_reference_tree_at_every_size() -> None:
    frontier = Frontier()
    roots = [frontier.root().hex()]
    for entry in LEAVES:
        frontier.append(leaf_hash(entry))
        roots.append(frontier.root().hex())
    assert roots == ROOTS
    assert [tree_root(size, reference).hex() for size in range(9)] == ROOTS
    assert EMPTY_ROOT.hex() == ROOTS[0]


@pytest.mark.parametrize(("index", "size", "proof"), INCLUSION)
def test_inclusion_proofs_equal_those_of_the_reference_tree_and_verify(
    index: int, size: int, proof: list[tuple[int, int]]
) -> None:
    expected = [reference(*place) for place in proof]
    assert inclusion_proof(index, size, reference) == expected
    root = bytes.fromhex(ROOTS[size])
    verify_inclusion(leaf_hash(LEAVES[index]), index=index, size=size, proof=expected, root=root)


# A tree by definition

LIMIT = 300


def entry(index: int) -> bytes:
    return b"entry %d" % index


@cache
def by_definition(start: int, end: int) -> bytes:
    """MTH(D[start:end]); RFC 9162 section 2.1.1."""
    if start == end:
        return EMPTY_ROOT
    if end - start == 1:
        return leaf_hash(entry(start))
    split = 1
    while split * 2 < end - start:
        split *= 2
    return node_hash(by_definition(start, start + split), by_definition(start + split, end))


def hash_at(level: int, index: int) -> bytes:
    return by_definition(index << level, index + 1 << level)


def test_roots_equal_the_definition_of_rfc_9162_at_every_size() -> None:
    frontier = Frontier()
    for size in range(LIMIT):
        assert frontier.root() == tree_root(size, hash_at) == by_definition(0, size)
        assert frontier.peaks == Frontier.read(size, hash_at).peaks
        frontier.append(leaf_hash(entry(size)))


def test_inclusion_proofs_verify_at_every_size() -> None:
    for size in range(1, LIMIT):
        every = size in (1, 2, 7, 128, 255, 256, 257)
        for index in range(size) if every else {0, size // 3, size // 2, size - 1}:
            proof = inclusion_proof(index, size, hash_at)
            verify_inclusion(hash_at(0, index), index=index, size=size, proof=proof, root=by_definition(0, size))


@given(st.data())
def test_an_inclusion_proof_with_any_changed_part_is_refused(data: st.DataObject) -> None:
    size = data.draw(st.integers(2, LIMIT))
    index = data.draw(st.integers(0, size - 1))
    leaf, root, proof = hash_at(0, index), by_definition(0, size), inclusion_proof(index, size, hash_at)
    at = data.draw(st.integers(0, len(proof) - 1))
    other = data.draw(st.integers(0, size - 1).filter(lambda i: i != index))
    good: dict[str, Any] = {"index": index, "size": size, "proof": proof, "root": root}
    changes: list[dict[str, Any]] = [
        {"proof": [*proof, root]},
        {"proof": proof[:-1]},
        {"proof": [*proof[:at], proof[at][::-1], *proof[at + 1 :]]},
        {"index": other},
        {"index": size},
        {"index": -1},
        {"root": by_definition(0, size - 1)},
    ]
    for change in changes:
        with pytest.raises(ProofFailed):
            verify_inclusion(leaf, **{**good, **change})
    with pytest.raises(ProofFailed):
        verify_inclusion(hash_at(0, other), index=index, size=size, proof=proof, root=root)


def test_an_empty_leaf_hash_is_not_included() -> None:
    with pytest.raises(ProofFailed):
        verify_inclusion(b"", index=0, size=1, proof=[], root=b"")


@given(st.integers(0, 600), st.lists(st.integers(0, 300), max_size=6))
def test_appending_in_batches_equals_appending_one_by_one(start: int, batches: list[int]) -> None:
    together = Frontier.read(start, hash_at)
    apart = Frontier(start, together.peaks)
    for batch in batches:
        leaves = [hash_at(0, i) for i in range(together.size, together.size + batch)]
        completed = [done for leaf in leaves for done in apart.append(leaf)]
        assert together.extend(leaves) == completed
    assert (together.size, together.peaks) == (apart.size, apart.peaks)


def test_a_frontier_returns_each_completed_tile_hash_once() -> None:
    frontier = Frontier(65_280, [leaf_hash(bytes([i])) for i in range(8)])
    frontier.peaks[:] = Frontier.read(65_280, hash_at).peaks
    completed = frontier.extend(hash_at(0, i) for i in range(65_280, 65_537))
    assert completed == [TileHash(1, 255, hash_at(8, 255)), TileHash(2, 0, hash_at(16, 0))]


@pytest.mark.parametrize(("size", "peaks"), [(-1, 0), (0, 1), (1, 0), (3, 1), (3, 3), (MAX_SIZE + 1, 1)])
def test_a_frontier_with_a_wrong_number_or_form_of_peaks_is_refused(size: int, peaks: int) -> None:
    with pytest.raises(Invalid):
        Frontier(size, [EMPTY_ROOT] * peaks)
    with pytest.raises(Invalid):
        Frontier(1, [b"short"])


@pytest.mark.parametrize(("index", "size"), [(0, 0), (1, 1), (256, 256), (-1, 4), (0, MAX_SIZE + 1)])
def test_an_inclusion_proof_for_an_index_outside_the_tree_is_refused(index: int, size: int) -> None:
    with pytest.raises(Invalid):
        inclusion_proof(index, size, hash_at)


def test_a_proof_in_the_largest_tree_reads_fewer_than_130_hashes() -> None:
    asked: list[tuple[int, int]] = []

    def counting(level: int, index: int) -> bytes:
        asked.append((level, index))
        return EMPTY_ROOT

    assert len(inclusion_proof(12_345, MAX_SIZE, counting)) == 63
    assert len(asked) < 130
