"""LTX files: what was written is read, what was changed on the way is refused, and golden bytes stay as they are."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from formats.make_ltx import contents, history, page
from memoturn_storage.formats import checksums, ltx
from memoturn_storage.formats.checksums import CHECKSUM_FLAG, PageChecksums, lock_page, page_checksum
from memoturn_storage.formats.ltx import LtxCorrupt, LtxFile, apply_to_image, decode, decode_sequence, encode

# --- any transactions ----------------------------------------------------------------------------


@st.composite
def contents_of_pages(draw: st.DrawFn, page_size: int) -> bytes:
    """Pages that are empty, that compress, and that do not."""
    seed = draw(st.binary(max_size=12))
    kind = draw(st.sampled_from(("zeros", "repeated", "random")))
    if kind == "random":
        return hashlib.shake_128(seed).digest(page_size)
    return bytes(page_size) if kind == "zeros" else ((seed or b"a") * page_size)[:page_size]


@st.composite
def chains(draw: st.DrawFn) -> list[LtxFile]:
    """A snapshot and transactions that grow, shrink and empty the database."""
    page_size = draw(st.sampled_from((512, 1024, 65536)))
    followed = PageChecksums(page_size)
    files: list[LtxFile] = []
    txid = 0
    for _ in range(draw(st.integers(1, 5))):
        commit = draw(st.integers(0, 12))
        numbers = range(1, commit + 1)
        written = numbers if txid == 0 else sorted(draw(st.sets(st.sampled_from(numbers)))) if commit else []
        pages = {pgno: draw(contents_of_pages(page_size)) for pgno in written}
        min_txid = txid + 1
        txid = min_txid + draw(st.integers(0, 3))
        before = followed.rolling if files else 0
        followed.apply(pages, commit)
        wal = (draw(st.integers(1, 1 << 62)), draw(st.integers(0, 1 << 62)), draw(st.integers(0, (1 << 32) - 1)), 0)
        made_at = draw(st.integers(-1, 1 << 60))
        files.append(LtxFile(page_size, commit, min_txid, txid, made_at, before, followed.rolling, pages, *wal))
    return files


@settings(max_examples=150, deadline=None)
@given(files=chains(), before=st.binary(max_size=9))
def test_what_is_written_is_read_also_from_within_other_bytes(files: list[LtxFile], before: bytes) -> None:
    for file in files:
        encoded = encode(file)
        assert decode(encoded) == (file, len(encoded))
        assert list(decode(encoded)[0].pages) == sorted(file.pages)
        surrounded = memoryview(before + encoded + b"LTX1 and more")
        assert decode(surrounded, len(before)) == (file, len(before) + len(encoded))
    assert list(decode_sequence(b"".join(map(encode, files)))) == files


@settings(max_examples=150, deadline=None)
@given(files=chains())
def test_the_rolling_checksum_is_that_of_the_image_after_each_transaction(files: list[LtxFile]) -> None:
    image = bytearray()
    followed = PageChecksums(files[0].page_size)
    for file in files:
        apply_to_image(image, file)
        followed.apply(file.pages, file.commit)
        counted = PageChecksums.of_image(image, file.page_size)
        assert len(image) == file.commit * file.page_size
        assert all(image[(n - 1) * file.page_size : n * file.page_size] == page for n, page in file.pages.items())
        assert counted.rolling == followed.rolling == file.post_apply
        assert counted.commit == followed.commit == file.commit


@settings(max_examples=50, deadline=None)
@given(files=chains(), old=st.integers(0, 20))
def test_a_snapshot_replaces_whatever_image_was_there(files: list[LtxFile], old: int) -> None:
    fresh, reused = bytearray(), bytearray(b"?" * old * files[0].page_size)
    apply_to_image(fresh, files[0])
    apply_to_image(reused, files[0])
    assert fresh == reused


# --- damage --------------------------------------------------------------------------------------


def test_every_flipped_bit_is_refused_or_changes_nothing() -> None:
    # LZ4 can say the same in several ways, and the file checksum is one of what is said: the bits of
    # the match length in the last token of a block, for one, mean nothing.
    for file in history()[:2]:
        encoded = encode(file)
        compressed = positions_of_blocks(encoded)
        assert len(compressed) < len(encoded) - 100
        for bit in range(len(encoded) * 8):
            flipped = bytearray(encoded)
            flipped[bit // 8] ^= 1 << bit % 8
            try:
                read = decode(bytes(flipped))
            except LtxCorrupt:
                continue
            assert bit // 8 in compressed
            assert read == (file, len(encoded))


def positions_of_blocks(encoded: bytes) -> set[int]:
    """Where the compressed pages lie, without their headers."""
    positions: set[int] = set()
    at = 100
    while encoded[at : at + 6] != bytes(6):
        size = int.from_bytes(encoded[at + 6 : at + 10], "big")
        positions.update(range(at + 10, at + 10 + size))
        at += 10 + size
    return positions


def test_every_truncation_is_refused() -> None:
    for file in history():
        encoded = encode(file)
        for length in range(len(encoded)):
            with pytest.raises(LtxCorrupt, match=r"byte \d+"):
                decode(encoded[:length])


def test_every_truncation_of_a_segment_gives_only_its_whole_files() -> None:
    files = history()[1:4]
    encoded = b"".join(map(encode, files))
    ends = [decode(encoded)[1]]
    while len(ends) < len(files):
        ends.append(decode(encoded, ends[-1])[1])
    for length in range(len(encoded)):
        read: list[LtxFile] = []
        try:
            for file in decode_sequence(encoded[:length]):
                read.append(file)
        except LtxCorrupt:
            assert length not in ends
        else:
            assert length in ends, "who knows the segment's last transaction must compare it"
        assert read == files[: sum(end <= length for end in ends)]


@settings(max_examples=300, deadline=None)
@given(data=st.binary(max_size=300))
def test_bytes_of_any_kind_are_refused_as_corrupt(data: bytes) -> None:
    for garbage in (data, b"LTX1" + data, encode(history()[0])[:120] + data):
        with pytest.raises(LtxCorrupt):
            decode(garbage)


def test_a_segment_with_a_gap_a_repetition_or_another_state_is_refused() -> None:
    first, second, third = history()[1:4]
    other_state = replace(second, pre_apply=second.pre_apply ^ 1)
    other_size = LtxFile(1024, 0, 3, 3, 0, first.post_apply, CHECKSUM_FLAG, {})
    for following in (third, first, other_state, other_size):
        read = decode_sequence(encode(first) + encode(following))
        assert next(read) == first
        with pytest.raises(LtxCorrupt, match="does not follow"):
            next(read)


# --- what the format does not allow --------------------------------------------------------------

SNAPSHOT, DELTA, *_ = history()
NOT_ALLOWED = {
    "no first transaction": replace(DELTA, min_txid=0),
    "transactions out of order": replace(DELTA, min_txid=4),
    "a page size that is no power of two": replace(DELTA, page_size=1000),
    "a page size of zero": replace(DELTA, page_size=0),
    "a page beyond the end": replace(DELTA, commit=4),
    "a page of another size": replace(DELTA, page_size=1024),
    "pages out of order": replace(DELTA, pages={3: page(2, 3), 1: page(2, 1)}),
    "page 0": replace(DELTA, pages={0: page(2, 1)}),
    "the lock page": replace(DELTA, pages={lock_page(512): page(2, 1)}, commit=lock_page(512)),
    "no pre-apply checksum": replace(DELTA, pre_apply=0),
    "no post-apply checksum": replace(DELTA, post_apply=0),
    "an empty database with a checksum": replace(DELTA, commit=0, pages={}),
    "WAL salts without an offset": replace(DELTA, wal_offset=0),
    "a negative WAL size": replace(DELTA, wal_size=-1),
    "a snapshot with a page missing": replace(SNAPSHOT, pages={1: page(1, 1), 2: page(1, 2)}),
    "a snapshot of something before": replace(SNAPSHOT, pre_apply=CHECKSUM_FLAG | 1),
    "a snapshot with another checksum": replace(SNAPSHOT, post_apply=SNAPSHOT.post_apply ^ 1),
}


@pytest.mark.parametrize("name", NOT_ALLOWED)
def test_a_file_that_the_format_does_not_allow_is_neither_written_nor_read(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = NOT_ALLOWED[name]
    with pytest.raises(ValueError):
        encode(file)
    with monkeypatch.context() as unchecked:
        unchecked.setattr(ltx, "_fault", lambda _: None)
        encoded = encode(file)
    with pytest.raises(LtxCorrupt):
        decode(encoded)


def test_an_index_that_says_something_else_than_the_pages_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    true_index = ltx._index
    with monkeypatch.context() as lying:
        lying.setattr(ltx, "_index", lambda numbers: true_index([*numbers[:-1], numbers[-1] + 1]))
        encoded = encode(DELTA)
    with pytest.raises(LtxCorrupt, match="the index does not agree"):
        decode(encoded)


def test_header_flags_and_page_flags_of_other_writers_are_refused_by_name() -> None:
    encoded = bytearray(encode(DELTA))
    encoded[7] = 2
    with pytest.raises(LtxCorrupt, match="byte 4: header flags 0x2"):
        decode(bytes(encoded))
    encoded[7], encoded[105] = 0, 0
    with pytest.raises(LtxCorrupt, match="byte 100: page 1 with flags 0x0"):
        decode(bytes(encoded))


# --- checksums -----------------------------------------------------------------------------------


def test_the_lock_page_counts_for_nothing_and_is_left_out_of_snapshots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checksums, "_PENDING_BYTE", 4 * 512)
    assert lock_page(512) == 5
    image = b"".join(page(1, pgno) for pgno in range(1, 8))
    counted = PageChecksums.of_image(image, 512)
    pages = {pgno: page(1, pgno) for pgno in (1, 2, 3, 4, 6, 7)}
    assert counted.rolling == PageChecksums.of_image(image[:2048] + bytes(512) + image[2560:], 512).rolling
    counted.apply({5: page(2, 5)}, 7)
    snapshot = LtxFile(512, 7, 1, 1, 0, 0, counted.rolling, pages)
    restored = bytearray(b"?" * 99)
    apply_to_image(restored, decode(encode(snapshot))[0])
    assert restored[:2048] == image[:2048]
    assert restored[2560:] == image[2560:]
    with pytest.raises(ValueError, match="lock page"):
        encode(replace(snapshot, pages={pgno: page(1, pgno) for pgno in range(1, 8)}))
    grown = PageChecksums(512)
    grown.apply(pages, 7)
    assert grown.rolling == counted.rolling
    for commit in (5, 4, 5, 6):
        counted.apply({}, commit)
        apply_to_image(restored, LtxFile(512, commit, 2, 2, 0, 0, 0, {}))
        assert counted.rolling == PageChecksums.of_image(restored, 512).rolling


def test_checksums_are_refused_pages_outside_the_database_and_stay_as_they_were() -> None:
    counted = PageChecksums.of_image(page(1, 1) + page(1, 2), 512)
    before = counted.rolling
    for pages, commit in (({1: b"", 2: page(2, 2)}, 2), ({1: page(2, 1), 4: page(2, 4)}, 3), ({0: page(2, 0)}, 3)):
        with pytest.raises(ValueError):
            counted.apply(pages, commit)
        assert (counted.rolling, counted.commit) == (before, 2)
    with pytest.raises(ValueError):
        PageChecksums.of_image(bytes(700), 512)


def test_the_checksum_of_a_page_is_what_the_reference_program_says() -> None:
    # `ltx checksum` of a file of one page of zeros, but for the page size in its header.
    image = bytes(16) + b"\x02" + bytes(495)
    assert page_checksum(1, image) == PageChecksums.of_image(image, 512).rolling == 0xDD6917C1D43A1E38
    assert PageChecksums(512).rolling == CHECKSUM_FLAG


# --- golden files --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", contents())
def test_a_golden_file_holds_what_it_was_made_of_and_would_be_made_again(name: str) -> None:
    golden = Path(__file__).with_name(name).read_bytes()
    files = contents()[name]
    assert list(decode_sequence(golden)) == files
    assert b"".join(map(encode, files)) == golden
