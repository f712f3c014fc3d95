"""Each kind of damage is planted in an export; the report must state exactly this kind at this place."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ostiary.audit import Kind, Report, render_files, verify_folder
from ostiary.audit.evidence import MAX_FINDINGS
from ostiary.protocol.errors import Malformed
from ostiary.protocol.tiles import MAX_ENTRY_BYTES, render_bundle
from tests.audit.export import Log, edit_bundle, flip, make_log, write_bundles

LOG = make_log(700)
E = list(LOG.entries)
LARGE = make_log(65_536 + 300)  # three rows of tiles
B0, B1, EDGE = "tile/entries/000", "tile/entries/001", "tile/entries/002.p/188"
T0, T1, T_EDGE, T_ABOVE = "tile/0/000", "tile/0/001", "tile/0/002.p/188", "tile/1/000.p/2"

Place = tuple[Kind, int | None, str | None, int]


def entry(kind: Kind, index: int, count: int = 1) -> Place:
    return kind, index, None, count


def file(kind: Kind, path: str, index: int | None = None) -> Place:
    return kind, index, path, 1


def places(report: Report) -> list[Place]:
    return [(finding.kind, finding.index, finding.path, finding.count) for finding in report.findings]


def audit(folder: Path, log: Log = LOG, *, seen: bytes | None = None) -> list[Place]:
    report = verify_folder(folder, key=log.key.vkey, earlier_note=seen)
    assert report.complete
    assert report.ok is not bool(report.findings)
    return places(report)


@pytest.mark.parametrize("size", [0, 1, 2, 255, 256, 257, 511, 512, 513, 700])
def test_an_undamaged_export_is_verified_against_every_earlier_checkpoint(size: int, tmp_path: Path) -> None:
    log = make_log(size)
    log.export(tmp_path)
    for earlier in {0, 1, 255, 256, 257, size // 2, size - 1, size}:
        if 0 <= earlier <= size:
            report = verify_folder(tmp_path, key=log.key.vkey, earlier_note=log.note(earlier))
            assert report.ok, report
            assert report.checkpoint is not None
            assert report.checkpoint.size == size


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return LARGE.export(tmp_path_factory.mktemp("large"))


@pytest.mark.parametrize("size", [65_535, 65_536, 65_537, len(LARGE.entries)])
def test_exports_with_and_without_a_third_row_of_tiles_are_verified(size: int, tmp_path: Path) -> None:
    log = Log(LARGE.private, LARGE.entries[:size])
    report = verify_folder(log.export(tmp_path), key=log.key.vkey, earlier_note=log.note(min(size, 65_536)))
    assert report.ok, report


def test_progress_is_reported_for_each_bundle_up_to_the_end(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    verify_folder(LOG.export(tmp_path), progress=lambda done, total: told.append((done, total)))
    assert told == [(256, 700), (512, 700), (700, 700)]


# Entries


@pytest.mark.parametrize(
    ("index", "path", "at"), [(0, B0, 3), (255, B0, -3), (256, B1, 3), (511, B1, -3), (512, EDGE, 3), (699, EDGE, -3)]
)
def test_a_flipped_byte_in_a_bundle_is_reported_as_its_altered_entry(
    index: int, path: str, at: int, tmp_path: Path
) -> None:
    flip(LOG.export(tmp_path) / path, at)
    assert audit(tmp_path) == [entry(Kind.ALTERED, index)]


def test_a_flipped_byte_is_reported_without_a_key_and_without_an_earlier_checkpoint(tmp_path: Path) -> None:
    flip(LOG.export(tmp_path) / B1, 3)
    assert places(verify_folder(tmp_path)) == [entry(Kind.ALTERED, 256)]


def test_altered_entries_are_reported_separately_and_adjacent_ones_together(tmp_path: Path) -> None:
    write_bundles(LOG.export(tmp_path), [*E[:7], b"x", b"y", *E[9:600], b"z", *E[601:]])
    assert audit(tmp_path) == [entry(Kind.ALTERED, 7, 2), entry(Kind.ALTERED, 600)]


@pytest.mark.parametrize("index", [0, 7, 255, 256, 511, 512])
def test_an_entry_dropped_from_its_bundle_is_reported(index: int, tmp_path: Path) -> None:
    path, width = (EDGE, 188) if index >= 512 else (f"tile/entries/00{index >> 8}", 256)
    edit_bundle(LOG.export(tmp_path), path, lambda e: e[: index % 256] + e[index % 256 + 1 :], width=width)
    assert audit(tmp_path) == [entry(Kind.DROPPED, index)]


@pytest.mark.parametrize(("index", "count"), [(0, 1), (7, 1), (255, 2), (300, 100), (699, 1), (698, 2), (100, 590)])
def test_dropped_entries_are_reported_although_all_later_entries_move_up(
    index: int, count: int, tmp_path: Path
) -> None:
    write_bundles(LOG.export(tmp_path), E[:index] + E[index + count :])
    assert audit(tmp_path) == [entry(Kind.DROPPED, index, count)]


@pytest.mark.parametrize("index", [0, 7, 255, 256, 511])
def test_an_entry_inserted_into_a_bundle_is_reported(index: int, tmp_path: Path) -> None:
    path = f"tile/entries/00{index >> 8}"
    edit_bundle(LOG.export(tmp_path), path, lambda e: [*e[: index % 256], b"x", *e[index % 256 :]])
    assert audit(tmp_path) == [entry(Kind.INSERTED, index)]


def test_inserted_entries_are_reported_although_all_later_entries_move_down(tmp_path: Path) -> None:
    write_bundles(LOG.export(tmp_path), [*E[:7], b"x", b"y", *E[7:]])
    assert audit(tmp_path) == [entry(Kind.INSERTED, 7, 2)]


def test_an_entry_appended_after_the_last_entry_is_reported(tmp_path: Path) -> None:
    edit_bundle(LOG.export(tmp_path), EDGE, lambda e: [*e, b"x"], width=188)
    assert audit(tmp_path) == [entry(Kind.INSERTED, 700)]


@pytest.mark.parametrize(("a", "b"), [(0, 1), (7, 8), (7, 9), (255, 256), (7, 500), (0, 699)])
def test_two_exchanged_entries_are_both_reported(a: int, b: int, tmp_path: Path) -> None:
    entries = E.copy()
    entries[a], entries[b] = entries[b], entries[a]
    write_bundles(LOG.export(tmp_path), entries)
    report = verify_folder(tmp_path, key=LOG.key.vkey)
    assert places(report) == [entry(Kind.REORDERED, a), entry(Kind.REORDERED, b)]
    assert report.findings[0].message == f"the entry was moved: it is now entry {b}"


def test_a_moved_entry_is_reported_with_its_new_position(tmp_path: Path) -> None:
    write_bundles(LOG.export(tmp_path), [*E[:7], *E[8:400], E[7], *E[400:]])
    report = verify_folder(tmp_path, key=LOG.key.vkey)
    assert places(report) == [entry(Kind.REORDERED, 7)]
    assert report.findings[0].message == "the entry was moved: it is now before entry 400"


def test_each_entry_of_a_reversed_sequence_except_its_middle_is_reported_as_reordered(tmp_path: Path) -> None:
    edit_bundle(LOG.export(tmp_path), B0, lambda e: [*e[:10], *e[20:9:-1], *e[21:]])
    assert audit(tmp_path) == [entry(Kind.REORDERED, i) for i in range(10, 21) if i != 15]


def test_an_entry_moved_over_another_entry_is_reported_as_reordered_and_the_other_as_dropped(tmp_path: Path) -> None:
    write_bundles(LOG.export(tmp_path), [*E[:7], E[300], *E[8:300], b"x", *E[301:]])
    assert audit(tmp_path) == [
        entry(Kind.DROPPED, 7),
        entry(Kind.REORDERED, 300),
        entry(Kind.INSERTED, 300),
    ]


def test_damage_in_several_bundles_is_reported_separately(tmp_path: Path) -> None:
    write_bundles(LOG.export(tmp_path), [*E[:7], *E[8:300], b"x", *E[301:500], E[501], E[500], *E[502:]])
    assert audit(tmp_path) == [
        entry(Kind.DROPPED, 7),
        entry(Kind.ALTERED, 300),
        entry(Kind.REORDERED, 500),
        entry(Kind.REORDERED, 501),
    ]


def test_damage_before_and_after_a_missing_bundle_is_reported(tmp_path: Path) -> None:
    edit_bundle(LOG.export(tmp_path), B0, lambda e: e[:-2])
    (tmp_path / B1).unlink()
    flip(tmp_path / EDGE, 3)
    assert audit(tmp_path) == [entry(Kind.DROPPED, 254, 2), entry(Kind.ALTERED, 512), file(Kind.MISSING, B1)]


def test_a_missing_bundle_after_a_dropped_entry_hides_one_more_entry(tmp_path: Path) -> None:
    write_bundles(LOG.export(tmp_path), E[:7] + E[8:])
    (tmp_path / B1).unlink()
    assert audit(tmp_path) == [entry(Kind.DROPPED, 7), entry(Kind.DROPPED, 512), file(Kind.MISSING, B1)]


def test_entries_shifted_between_bundles_are_reported_although_each_entry_is_intact(tmp_path: Path) -> None:
    LOG.export(tmp_path)
    edit_bundle(tmp_path, B0, lambda e: e[:-1])
    edit_bundle(tmp_path, B1, lambda e: [E[255], *e])
    assert audit(tmp_path) == [file(Kind.MALFORMED, B0, 0), file(Kind.MALFORMED, B1, 256)]


def test_a_flipped_length_is_reported_at_the_entry_with_the_length(tmp_path: Path) -> None:
    data = (LOG.export(tmp_path) / B1).read_bytes()
    at = len(render_bundle(E[256:300]))
    (tmp_path / B1).write_bytes(data[:at] + b"\xff" + data[at + 1 :])
    assert audit(tmp_path) == [file(Kind.MALFORMED, B1, 300)]


@given(st.data())
def test_any_single_edit_of_the_entries_is_reported_at_its_place(data: st.DataObject) -> None:
    log = make_log(data.draw(st.sampled_from([1, 2, 40, 256, 257, 600])))
    entries, index = list(log.entries), data.draw(st.integers(0, len(log.entries) - 1))
    kind = data.draw(st.sampled_from([Kind.ALTERED, Kind.DROPPED, Kind.INSERTED]))
    count = data.draw(st.integers(1, min(200, len(entries) - index)))
    new = [b"new %d" % i for i in range(count)]
    entries[index : index if kind is Kind.INSERTED else index + count] = [] if kind is Kind.DROPPED else new
    with TemporaryDirectory() as folder:
        write_bundles(log.export(Path(folder)), entries)
        assert audit(Path(folder), log) == [entry(kind, index, count)]


# Tiles


@pytest.mark.parametrize(
    ("path", "at", "index"), [(T0, 0, 0), (T1, 32 * 44, 300), (T_EDGE, 32 * 187 + 31, 699), (T_ABOVE, 40, 256)]
)
def test_a_flipped_byte_in_a_tile_is_reported_with_its_tile(path: str, at: int, index: int, tmp_path: Path) -> None:
    flip(LOG.export(tmp_path) / path, at)
    assert audit(tmp_path) == [file(Kind.TILE, path, index)]


@pytest.mark.parametrize(
    ("path", "at", "index"),
    [
        ("tile/0/255", 0, 255 * 256),
        ("tile/1/000", 32 * 255, 255 * 256),
        ("tile/1/001.p/1", 31, 65_536),
        ("tile/2/000.p/1", 0, 0),
        ("tile/0/257.p/44", 32, 65_536 + 257),
    ],
)
def test_a_flipped_byte_in_a_tile_of_any_row_is_reported_with_its_tile(
    path: str, at: int, index: int, large: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(large, tmp_path / "copy"))
    flip(folder / path, at)
    assert audit(folder, LARGE) == [file(Kind.TILE, path, index)]


def test_a_damaged_tile_is_reported_although_the_tile_above_is_missing(large: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(large, tmp_path / "copy"))
    flip(folder / "tile/1/000", 0)
    (folder / "tile/2/000.p/1").unlink()
    assert audit(folder, LARGE) == [file(Kind.MISSING, "tile/2/000.p/1"), file(Kind.TILE, "tile/1/000", 0)]


def test_damage_of_a_tile_and_of_an_entry_elsewhere_are_reported_separately(tmp_path: Path) -> None:
    flip(LOG.export(tmp_path) / T0, 0)
    flip(tmp_path / B1, 3)
    assert audit(tmp_path) == [entry(Kind.ALTERED, 256), file(Kind.TILE, T0, 0)]


def test_the_tile_above_exposes_an_entry_that_was_altered_together_with_its_tile(tmp_path: Path) -> None:
    LOG.export(tmp_path)
    for path, data in render_files([*E[:300], b"x", *E[301:]]):
        if path in (B1, T1):
            (tmp_path / path).write_bytes(data)
    assert audit(tmp_path) == [entry(Kind.ALTERED, 256, 256)]


def test_the_third_row_exposes_an_entry_that_was_altered_together_with_two_rows_of_tiles(
    large: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(large, tmp_path / "copy"))
    for path, data in render_files([*LARGE.entries[:300], b"x", *LARGE.entries[301:]]):
        if path in (B1, T1, "tile/1/000"):
            (folder / path).write_bytes(data)
    assert audit(folder, LARGE) == [entry(Kind.ALTERED, 0, 65_536)]


def test_an_altered_entry_is_reported_although_the_tile_above_is_missing(tmp_path: Path) -> None:
    flip(LOG.export(tmp_path) / B1, 3)
    (tmp_path / T_ABOVE).unlink()
    assert audit(tmp_path) == [entry(Kind.ALTERED, 256), file(Kind.MISSING, T_ABOVE)]


# The checkpoint


def test_a_log_that_was_rewritten_with_all_its_tiles_does_not_have_the_signed_root(tmp_path: Path) -> None:
    LOG.export(tmp_path, entries=[*E[:7], b"x", *E[8:]])
    assert audit(tmp_path) == [file(Kind.ROOT, "checkpoint")]


def test_a_checkpoint_of_another_key_is_refused(tmp_path: Path) -> None:
    forger = make_log(700, seed=b"forger")
    LOG.export(tmp_path, note=forger.note())
    assert audit(tmp_path) == [file(Kind.SIGNATURE, "checkpoint")]


def test_an_export_with_a_forged_key_verifies_only_if_no_key_is_given(tmp_path: Path) -> None:
    forger = make_log(700, seed=b"forger", salt=".forged")
    forger.export(tmp_path)
    report = verify_folder(tmp_path)
    assert report.ok
    assert report.trust.startswith("the verdict trusts the key in the export")
    assert report.trust.endswith("--key KEY")
    assert audit(tmp_path) == [file(Kind.SIGNATURE, "checkpoint")]
    assert verify_folder(tmp_path, key=LOG.key.vkey).trust == "the verdict trusts the key of `--key`"


def test_an_earlier_checkpoint_exposes_an_export_with_a_forged_key(tmp_path: Path) -> None:
    forger = make_log(700, seed=b"forger", salt=".forged")
    report = verify_folder(forger.export(tmp_path), earlier_note=LOG.note(300))
    assert [finding.kind for finding in report.findings] == [Kind.SIGNATURE, Kind.FORK]


@pytest.mark.parametrize(("old", "new"), [(b"\n700\n", b"\n699\n"), (b"ostiary\n", b"ostiarx\n")])
def test_an_edited_checkpoint_is_refused(old: bytes, new: bytes, tmp_path: Path) -> None:
    LOG.export(tmp_path, note=LOG.note().replace(old, new, 1))
    assert file(Kind.SIGNATURE, "checkpoint") in audit(tmp_path)


def test_a_checkpoint_of_another_log_with_the_same_key_does_not_have_the_root(tmp_path: Path) -> None:
    LOG.export(tmp_path, note=make_log(700, salt=".other").note())
    assert audit(tmp_path) == [file(Kind.ROOT, "checkpoint")]


def test_several_keys_can_be_given_and_each_may_sign_a_checkpoint(tmp_path: Path) -> None:
    newer = make_log(700, seed=b"newer")
    newer.export(tmp_path)
    report = verify_folder(tmp_path, key=f"{LOG.key.vkey}\n{newer.key.vkey}\n", earlier_note=LOG.note(300))
    assert report.ok


@pytest.mark.parametrize("key", ["", "nonsense", f"{LOG.key.vkey}\n{LOG.key.vkey[1:]}"])
def test_a_malformed_key_of_the_caller_is_an_error(key: str, tmp_path: Path) -> None:
    LOG.export(tmp_path)
    with pytest.raises(Malformed):
        verify_folder(tmp_path, key=key)


# A checkpoint seen earlier


def test_a_log_shorter_than_the_earlier_checkpoint_is_a_rollback(tmp_path: Path) -> None:
    shorter = Log(LOG.private, LOG.entries[:300])
    shorter.export(tmp_path)
    assert audit(tmp_path, seen=LOG.note(300)) == []
    assert audit(tmp_path, seen=LOG.note(301)) == [file(Kind.ROLLBACK, "checkpoint")]


@pytest.mark.parametrize(
    ("seen", "found"), [(7, []), (8, [Kind.FORK]), (256, [Kind.FORK]), (699, [Kind.FORK]), (700, [Kind.FORK])]
)
def test_a_log_with_another_history_than_the_earlier_checkpoint_is_a_fork(
    seen: int, found: list[Kind], tmp_path: Path
) -> None:
    forked = Log(LOG.private, (*E[:7], E[7].replace(b"test", b"state"), *E[8:], E[-1]))
    forked.export(tmp_path)
    assert [kind for kind, *_ in audit(tmp_path, seen=LOG.note(seen))] == found


def test_an_earlier_checkpoint_that_the_log_did_not_sign_is_reported(tmp_path: Path) -> None:
    LOG.export(tmp_path)
    assert audit(tmp_path, seen=make_log(300, seed=b"forger").note()) == [
        file(Kind.SIGNATURE, "the earlier checkpoint")
    ]
    assert audit(tmp_path, seen=b"nonsense") == [file(Kind.MALFORMED, "the earlier checkpoint")]


# Files


@pytest.mark.parametrize("path", [B0, EDGE, T0, T_EDGE, T_ABOVE, "checkpoint"])
def test_a_missing_file_is_reported(path: str, tmp_path: Path) -> None:
    (LOG.export(tmp_path) / path).unlink()
    assert audit(tmp_path) == [file(Kind.MISSING, path)]


def test_a_missing_key_file_is_reported_unless_a_key_is_given(tmp_path: Path) -> None:
    (LOG.export(tmp_path) / "key").unlink()
    assert places(verify_folder(tmp_path)) == [file(Kind.MISSING, "key"), file(Kind.SIGNATURE, "checkpoint")]
    assert audit(tmp_path) == []


def test_a_missing_bundle_and_its_tile_are_reported_and_the_tile_above_still_gives_the_root(tmp_path: Path) -> None:
    LOG.export(tmp_path)
    (tmp_path / B0).unlink()
    (tmp_path / T0).unlink()
    assert audit(tmp_path) == [file(Kind.MISSING, B0), file(Kind.MISSING, T0)]


def test_an_empty_or_missing_folder_is_not_a_verified_log(tmp_path: Path) -> None:
    assert places(verify_folder(tmp_path)) == [file(Kind.MISSING, "key"), file(Kind.MISSING, "checkpoint")]
    assert places(verify_folder(tmp_path / "nowhere"))[1] == file(Kind.MISSING, "checkpoint")


@pytest.mark.parametrize("path", ["key", "checkpoint", T0, T_ABOVE])
def test_a_malformed_file_is_reported(path: str, tmp_path: Path) -> None:
    (LOG.export(tmp_path) / path).write_bytes(b"\xffnonsense")
    assert file(Kind.MALFORMED, path) in places(verify_folder(tmp_path))


@pytest.mark.parametrize(
    ("path", "limit"),
    [(B0, 256 * (2 + MAX_ENTRY_BYTES)), (T0, 8192), (T_ABOVE, 64), ("checkpoint", 1 << 18), ("key", 1 << 14)],
)
def test_a_file_over_its_size_limit_is_reported_and_not_read(path: str, limit: int, tmp_path: Path) -> None:
    LOG.export(tmp_path)
    for size in (limit + 1, 1 << 40):  # no process can read 1 TiB of zeros
        with (tmp_path / path).open("r+b") as large:
            large.truncate(size)
        found = places(verify_folder(tmp_path))
        assert [place for place in found if place[2] == path] == [file(Kind.OVERSIZE, path)]
    with (tmp_path / path).open("r+b") as large:
        large.truncate(limit)
    assert file(Kind.OVERSIZE, path) not in places(verify_folder(tmp_path))


def test_entries_of_the_largest_size_are_verified(tmp_path: Path) -> None:
    log = Log(
        LOG.private,
        tuple(entry[:-1] + b',"object":"%s"}' % (b"x" * (MAX_ENTRY_BYTES - len(entry) - 12)) for entry in E[:2]),
    )
    log.export(tmp_path)
    assert {len(entry) for entry in log.entries} == {MAX_ENTRY_BYTES}
    assert audit(tmp_path, log) == []


def link_file(folder: Path) -> str:
    (folder / "elsewhere").write_bytes((folder / T0).read_bytes())
    (folder / T0).unlink()
    (folder / T0).symlink_to(folder / "elsewhere")
    return T0


def link_folder(folder: Path) -> str:
    flip(folder / B0, 3)
    (folder / "tile" / "entries").rename(folder / "tile" / "moved")
    (folder / "tile" / "entries").symlink_to(folder / "tile" / "moved")
    return "tile/entries"


def link_checkpoint(folder: Path) -> str:
    (folder / "checkpoint").rename(folder / "elsewhere")
    (folder / "checkpoint").symlink_to("elsewhere")
    return "checkpoint"


def pipe(folder: Path) -> str:
    (folder / B0).unlink()
    os.mkfifo(folder / B0)
    return B0


@pytest.mark.parametrize("plant", [link_file, link_folder, link_checkpoint, pipe])
def test_symbolic_links_and_special_files_are_reported_and_not_followed(
    plant: Callable[[Path], str], tmp_path: Path
) -> None:
    LOG.export(tmp_path)
    path = plant(tmp_path)
    found = audit(tmp_path)
    assert file(Kind.SYMLINK, path) in found
    assert found.count(file(Kind.SYMLINK, path)) == 1
    assert {kind for kind, *_ in found} <= {Kind.SYMLINK, Kind.BEYOND}


@pytest.mark.parametrize(
    "path", ["tile/entries/003", "tile/0/003.p/1", "tile/1/000.p/3", "tile/2/000.p/1", EDGE[:-3] + "189", "notes.txt"]
)
def test_a_file_beyond_the_log_is_reported(path: str, tmp_path: Path) -> None:
    LOG.export(tmp_path)
    (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / path).write_bytes(b"x")
    assert audit(tmp_path) == [file(Kind.BEYOND, path)]


def test_partial_tiles_of_an_earlier_size_of_the_log_are_accepted(tmp_path: Path) -> None:
    Log(LOG.private, LOG.entries[:300]).export(tmp_path)
    LOG.export(tmp_path)
    assert (tmp_path / "tile/0/001.p/44").exists()
    assert audit(tmp_path) == []


def test_an_older_checkpoint_leaves_files_that_are_reported_as_beyond_it(tmp_path: Path) -> None:
    Log(LOG.private, LOG.entries[:300]).export(tmp_path)
    LOG.export(tmp_path, note=LOG.note(300))
    assert {kind for kind, *_ in audit(tmp_path)} == {Kind.BEYOND}


@given(st.data())
def test_a_flip_of_any_bit_of_an_export_is_reported(data: st.DataObject) -> None:
    with TemporaryDirectory() as folder:
        LOG.export(Path(folder))
        place = data.draw(st.sampled_from(sorted(path for path in Path(folder).rglob("*") if path.is_file())))
        content = bytearray(place.read_bytes())
        content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        place.write_bytes(content)
        assert not verify_folder(Path(folder)).ok


# Limits


def test_the_verification_of_a_forged_checkpoint_of_an_immense_log_stops_early(tmp_path: Path) -> None:
    LOG.export(tmp_path, note=LOG.note().replace(b"\n700\n", b"\n9223372036854775807\n"))
    report = verify_folder(tmp_path, key=LOG.key.vkey)
    assert not report.ok
    assert not report.complete
    assert len(report.findings) == MAX_FINDINGS
    assert report.findings[0].kind == Kind.SIGNATURE


@pytest.mark.parametrize(("count", "complete"), [(MAX_FINDINGS, True), (MAX_FINDINGS + 1, False)])
def test_a_report_has_at_most_the_maximum_number_of_findings(count: int, complete: bool, tmp_path: Path) -> None:
    LOG.export(tmp_path)
    for i in range(count):
        (tmp_path / f"surplus{i}").touch()
    report = verify_folder(tmp_path, key=LOG.key.vkey)
    assert (len(report.findings), report.complete, report.ok) == (MAX_FINDINGS, complete, False)


def test_the_verification_of_a_log_with_all_entries_replaced_stops_early(large: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(large, tmp_path / "copy"))
    write_bundles(folder, [b"x%d" % i for i in range(len(LARGE.entries))])
    report = verify_folder(folder, key=LARGE.key.vkey)
    assert not report.complete
    assert report.findings[0].kind == Kind.ALTERED
    assert report.findings[0].index == 0
