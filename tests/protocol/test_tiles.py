from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ostiary.protocol.errors import Invalid, Malformed
from ostiary.protocol.merkle import (
    EMPTY_ROOT,
    MAX_SIZE,
    Frontier,
    inclusion_proof,
    leaf_hash,
    tree_root,
    verify_inclusion,
)
from ostiary.protocol.tiles import (
    MAX_ENTRY_BYTES,
    Bundle,
    Tile,
    bundles_of,
    hashes_from,
    parse_bundle,
    parse_path,
    parse_tile,
    render_bundle,
    split_bundle,
    tile_width,
    tiles_of,
)


@pytest.mark.parametrize(
    ("file", "path"),
    [
        (Tile(0, 1_234_067), "tile/0/x001/x234/067"),  # the example of the specification
        (Tile(0, 0), "tile/0/000"),
        (Tile(63, 999, 255), "tile/63/999.p/255"),
        (Tile(1, 1000, 1), "tile/1/x001/000.p/1"),
        (Tile(0, MAX_SIZE), "tile/0/x009/x223/x372/x036/x854/x775/807"),
        (Bundle(0), "tile/entries/000"),
        (Bundle(1_234_067, 17), "tile/entries/x001/x234/067.p/17"),
    ],
)
def test_the_path_of_each_tile_and_bundle_is_as_specified(file: Tile | Bundle, path: str) -> None:
    assert file.path == path
    assert parse_path(path) == file


@pytest.mark.parametrize(
    "path",
    [
        "tile/0/0",
        "tile/0/0000",
        "tile/0/x000/001",
        "tile/0/001/001",
        "tile/0/x001",
        "tile/00/000",
        "tile/01/000",
        "tile/64/000",
        "tile/-1/000",
        "tile/0/000.p/0",
        "tile/0/000.p/01",
        "tile/0/000.p/256",
        "tile/0/000.p/257",
        "tile/0/000.p/",
        "tile/0/000/",
        "/tile/0/000",
        "tile/entries/../000",
        "tile/data/000",
        "tile/0/\u0660\u0660\u0660",
        "tile/0/000\n",
        "tile/0/x009/x223/x372/x036/x854/x775/808",
        "tile/0/" + "x999/" * 2000 + "999",
        "",
    ],
)
def test_a_malformed_tile_path_is_refused(path: str) -> None:
    with pytest.raises(Malformed):
        parse_path(path)


@given(st.integers(0, MAX_SIZE), st.integers(1, 256), st.integers(0, 63))
def test_each_tile_and_bundle_path_parses_to_the_same_tile_or_bundle(index: int, width: int, level: int) -> None:
    assert parse_path(Tile(level, index, width).path) == Tile(level, index, width)
    assert parse_path(Bundle(index, width).path) == Bundle(index, width)


def test_tiles_of_70000_entries_equal_those_of_the_specification() -> None:
    tiles = list(tiles_of(70_000))
    assert tiles[:273] == [Tile(0, n) for n in range(273)]
    assert tiles[273:] == [Tile(0, 273, 112), Tile(1, 0), Tile(1, 1, 17), Tile(2, 0, 1)]


@pytest.mark.parametrize(
    ("size", "tiles", "bundles"),
    [
        (0, [], []),
        (1, [Tile(0, 0, 1)], [Bundle(0, 1)]),
        (255, [Tile(0, 0, 255)], [Bundle(0, 255)]),
        (256, [Tile(0, 0), Tile(1, 0, 1)], [Bundle(0)]),
        (257, [Tile(0, 0), Tile(0, 1, 1), Tile(1, 0, 1)], [Bundle(0), Bundle(1, 1)]),
    ],
)
def test_tiles_and_bundles_are_correct_for_sizes_around_one_tile_width(
    size: int, tiles: list[Tile], bundles: list[Bundle]
) -> None:
    assert list(tiles_of(size)) == tiles
    assert list(bundles_of(size)) == bundles


@pytest.mark.parametrize(("size", "above"), [(65_535, [255]), (65_536, [256, 1]), (65_537, [256, 1])])
def test_upper_tiles_are_correct_for_sizes_around_a_full_tile_of_level_1(size: int, above: list[int]) -> None:
    assert [tile.width for tile in tiles_of(size) if tile.level] == above
    assert tile_width(1, 1, size) == tile_width(2, 1, size) == 0


@given(st.integers(1, 700), st.data())
def test_inclusion_proofs_verify_from_stored_tile_levels_alone(size: int, data: st.DataObject) -> None:
    frontier = Frontier()
    rows: list[list[bytes]] = [[leaf_hash(b"%d" % i) for i in range(size)], [], []]
    for level, position, hash_ in frontier.extend(rows[0]):
        assert len(rows[level]) == position
        rows[level].append(hash_)
    hash_at = hashes_from(lambda level, start, count: rows[level][start : start + count])
    assert tree_root(size, hash_at) == frontier.root()
    index = data.draw(st.integers(0, size - 1))
    proof = inclusion_proof(index, size, hash_at)
    verify_inclusion(rows[0][index], index=index, size=size, proof=proof, root=frontier.root())


def test_a_node_that_is_not_complete_is_refused() -> None:
    hash_at = hashes_from(lambda level, start, count: [EMPTY_ROOT] * 3)
    with pytest.raises(Invalid):
        hash_at(2, 0)


def test_a_tile_with_another_size_than_its_width_is_refused() -> None:
    assert parse_tile(EMPTY_ROOT * 3, 3) == [EMPTY_ROOT] * 3
    for size in (95, 97, 64, 128, 0):
        with pytest.raises(Malformed):
            parse_tile(bytes(size), 3)


def test_each_entry_in_a_bundle_has_a_two_byte_big_endian_length_prefix() -> None:
    assert render_bundle([b"", b"ab", b"c" * 258]) == b"\0\0" + b"\0\2ab" + b"\1\2" + b"c" * 258


@given(st.lists(st.binary(max_size=40), max_size=20))
def test_a_rendered_bundle_parses_to_the_same_entries(entries: list[bytes]) -> None:
    assert parse_bundle(render_bundle(entries), len(entries)) == entries


def test_the_largest_entry_fits_and_one_byte_more_does_not() -> None:
    largest = bytes(MAX_ENTRY_BYTES)
    assert parse_bundle(render_bundle([largest]), 1) == [largest]
    with pytest.raises(Invalid):
        render_bundle([largest + b"."])


@pytest.mark.parametrize("data", [b"\0", b"\0\1", b"\0\2a", b"\0\1ab", b"\0\1a\0", b"\xff\xff" + bytes(65_534)])
def test_a_truncated_or_trailing_bundle_is_refused(data: bytes) -> None:
    with pytest.raises(Malformed):
        list(split_bundle(data))
    with pytest.raises(Malformed):
        parse_bundle(data, 2)


@pytest.mark.parametrize("width", [1, 3])
def test_a_bundle_of_another_width_is_refused(width: int) -> None:
    with pytest.raises(Malformed):
        parse_bundle(render_bundle([b"a", b"b"]), width)
