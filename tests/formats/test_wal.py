"""The WAL of a real SQLite: its commits, and they alone, make the file that a checkpoint makes."""

from __future__ import annotations

import struct
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from formats.captured import Captured, captured, checkpointed, frames_of
from memoturn_storage.connection import PAGE_SIZE
from memoturn_storage.formats.checksums import PageChecksums
from memoturn_storage.formats.ltx import apply_to_image, decode_sequence, encode
from memoturn_storage.formats.wal import HEADER, WalCorrupt, commits, frame_offset, read_header

# --- against SQLite ------------------------------------------------------------------------------

TEXT = "'w' || (abs(random()) % 50) || ' ' || hex(randomblob(4))"
INSERT = f"""
  WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {{rows}})
  INSERT INTO items (value) SELECT randomblob({{size}}) FROM n;
  INSERT INTO words (value) SELECT {TEXT} FROM items ORDER BY id DESC LIMIT {{rows}};
"""
few = st.builds(INSERT.format, rows=st.integers(1, 4), size=st.sampled_from((1, 100, 5000)))
many = st.builds(INSERT.format, rows=st.integers(50, 300), size=st.sampled_from((10, 300)))
delete = st.builds("DELETE FROM items WHERE id % {} = 0".format, st.integers(1, 4))
other = st.sampled_from(
    (
        "INSERT INTO words (words) VALUES ('optimize')",
        "CREATE TABLE IF NOT EXISTS more (value); INSERT INTO more VALUES (zeroblob(9000))",
        "DROP TABLE IF EXISTS more",
        "UPDATE items SET value = randomblob(length(value) * 3 / 2) WHERE id % 3 = 0",
    )
)
change = st.one_of(few, many, delete, other)
undone = st.builds("SAVEPOINT s; {}; ROLLBACK TO s; RELEASE s".format, change)
transaction = st.builds(
    lambda steps: f"BEGIN IMMEDIATE; {'; '.join(steps)}; COMMIT",
    st.lists(st.one_of(change, undone), min_size=1, max_size=4),
)
rolled_back = st.builds("BEGIN IMMEDIATE; {}; ROLLBACK".format, change)
checkpoint = st.sampled_from(("PASSIVE", "RESTART", "TRUNCATE")).map("PRAGMA wal_checkpoint({})".format)
step = st.one_of(change, transaction, transaction, rolled_back, st.just("VACUUM"), checkpoint)


@settings(max_examples=40, deadline=None)
@given(steps=st.lists(step, min_size=1, max_size=10), cache_pages=st.sampled_from((5, 2000)))
def test_the_commits_of_a_log_make_the_file_that_a_checkpoint_makes(steps: list[str], cache_pages: int) -> None:
    with TemporaryDirectory() as name, captured(Path(name)) as database:
        database.connection.execute(f"PRAGMA cache_size={cache_pages}")
        states = []
        for sql in steps:
            database.connection.execute(sql).fetchall()
            database.capture()
            states.append(database.checkpointed(Path(name)))
            assert database.image == states[-1]
            assert database.checksums.rolling == PageChecksums.of_image(states[-1], PAGE_SIZE).rolling
        restored = bytearray()
        for file in decode_sequence(b"".join(map(encode, database.files))):
            apply_to_image(restored, file)
            assert PageChecksums.of_image(restored, PAGE_SIZE).rolling == file.post_apply
        assert restored == database.image == states[-1]


def test_pages_that_spilled_before_the_commit_are_not_read_until_it(tmp_path: Path) -> None:
    with captured(tmp_path) as database:
        before = bytes(database.image)
        database.connection.execute("PRAGMA cache_size=5; BEGIN IMMEDIATE;" + INSERT.format(rows=300, size=300))
        spilled = database.log
        assert len(spilled) > 50 * PAGE_SIZE
        header = read_header(spilled)
        assert commits(spilled[HEADER:], header) == []
        with pytest.raises(WalCorrupt, match=f"byte {HEADER}"):
            commits(spilled[HEADER:], header, verify=False)
        assert checkpointed(tmp_path, before, spilled) == before
        # What a rolled back transaction spilled stays in the file, behind what is committed next.
        database.connection.execute("ROLLBACK; INSERT INTO items (value) VALUES ('after')")
        assert len(database.log) == len(spilled)
        (commit,) = database.capture()
        assert commits(database.log[HEADER:], read_header(database.log)) == [commit]
        assert database.image == database.checkpointed(tmp_path)


def test_frames_of_a_log_before_its_restart_are_not_read(tmp_path: Path) -> None:
    with captured(tmp_path) as database:
        database.connection.execute(INSERT.format(rows=40, size=300))
        database.capture()
        first = database.log
        database.connection.execute(
            "PRAGMA wal_checkpoint(RESTART); INSERT INTO items (value) VALUES ('after')"
        ).fetchall()
        (commit,) = database.capture()
        second = database.log
        header = read_header(second)
        assert len(second) == len(first)
        assert header.salts != read_header(first).salts
        assert header.sequence == read_header(first).sequence + 1
        assert commits(second[HEADER:], header) == [commit]
        assert database.image == database.checkpointed(tmp_path)
        with pytest.raises(WalCorrupt, match=f"byte {frame_offset(commit.end_frame, PAGE_SIZE)}"):
            commits(second[HEADER:], header, verify=False)
        with pytest.raises(WalCorrupt):
            commits(first[HEADER:], header, verify=False)


def test_a_shrinking_vacuum_leaves_no_page_beyond_the_end(tmp_path: Path) -> None:
    with captured(tmp_path) as database:
        database.connection.execute(INSERT.format(rows=300, size=300))
        database.connection.execute("DELETE FROM items")
        database.capture()
        pages_before = database.checksums.commit
        database.connection.execute("VACUUM")
        (vacuum,) = database.capture()
        assert vacuum.commit < pages_before / 2
        assert max(vacuum.pages) <= vacuum.commit
        assert database.image == database.checkpointed(tmp_path)


# --- damage --------------------------------------------------------------------------------------


def three_commits(directory: Path) -> tuple[Captured, bytes, bytes]:
    """A database, its file before the log, and the log of three small commits."""
    database = Captured(directory)
    before = bytes(database.image)
    for _ in range(3):
        database.connection.execute("INSERT INTO items (value) VALUES (randomblob(700))")
    log = database.log
    database.connection.close()
    return database, before, log


def test_every_truncation_keeps_the_commits_before_it(tmp_path: Path) -> None:
    _, before, log = three_commits(tmp_path)
    header = read_header(log)
    whole = commits(log[HEADER:], header)
    assert len(whole) == 3
    ends = [frame_offset(commit.end_frame, PAGE_SIZE) for commit in whole]
    for length in range(HEADER, len(log)):
        kept = sum(end <= length for end in ends)
        assert commits(memoryview(log)[HEADER:length], header) == whole[:kept]
        if length not in (HEADER, *ends):
            with pytest.raises(WalCorrupt):
                commits(log[HEADER:length], header, verify=False)
    for length in range(HEADER):
        with pytest.raises(WalCorrupt, match=f"byte {length}"):
            read_header(log[:length])
    for length in range(HEADER, len(log), 331):
        image = bytearray(before)
        for commit in commits(log[HEADER:length], header):
            restore(image, commit.pages, commit.commit)
        assert image == checkpointed(tmp_path, before, log[:length]), "SQLite recovers the same"


def test_every_flipped_byte_ends_the_log_before_its_transaction(tmp_path: Path) -> None:
    _, before, log = three_commits(tmp_path)
    header = read_header(log)
    whole = commits(log[HEADER:], header)
    for position in range(HEADER, len(log)):
        torn = bytearray(log)
        torn[position] ^= 1 << position % 8
        kept = [commit for commit in whole if frame_offset(commit.end_frame, PAGE_SIZE) <= position]
        assert commits(bytes(torn[HEADER:]), header) == kept
        if position % 397 == 0:
            image = bytearray(before)
            for commit in kept:
                restore(image, commit.pages, commit.commit)
            assert image == checkpointed(tmp_path, before, bytes(torn)), "SQLite recovers the same"
    for position in range(HEADER):
        torn = bytearray(log[:HEADER])
        torn[position] ^= 1 << position % 8
        with pytest.raises(WalCorrupt, match=r"byte \d+"):
            read_header(bytes(torn))


def restore(image: bytearray, pages: dict[int, bytes], commit: int) -> None:
    image[:] = image[: commit * PAGE_SIZE].ljust(commit * PAGE_SIZE, b"\0")
    for pgno, page in pages.items():
        image[(pgno - 1) * PAGE_SIZE : pgno * PAGE_SIZE] = page


def test_a_chain_is_verified_from_any_commit_on_and_only_with_the_checksum_before_it(tmp_path: Path) -> None:
    _, _, log = three_commits(tmp_path)
    header = read_header(log)
    whole = commits(log[HEADER:], header)
    for done in range(1, 4):
        start = whole[done - 1].end_frame
        frames = log[frame_offset(start, PAGE_SIZE) :]
        assert commits(frames, header, start, previous_checksum=whole[done - 1].checksum) == whole[done:]
        assert commits(frames, header, start, verify=False) == whole[done:]
        with pytest.raises(ValueError):
            commits(frames, header, start)
        if done < 3:
            assert commits(frames, header, start, previous_checksum=whole[done].checksum) == []


def test_no_frames_hold_no_commits(tmp_path: Path) -> None:
    _, _, log = three_commits(tmp_path)
    for verify in (True, False):
        assert commits(b"", read_header(log), verify=verify) == []


# --- the checksum --------------------------------------------------------------------------------


def summed(data: bytes, order: str, sums: tuple[int, int]) -> tuple[int, int]:
    """The checksum of https://sqlite.org/fileformat2.html#checksum_algorithm, word by word."""
    first, second = sums
    for a, b in struct.iter_unpack(f"{order}II", data):
        first = (first + a + second) & 0xFFFFFFFF
        second = (second + b + first) & 0xFFFFFFFF
    return first, second


def test_a_log_with_big_endian_checksums_is_read_as_sqlite_reads_it(tmp_path: Path) -> None:
    _, before, log = three_commits(tmp_path)
    little = read_header(log)
    start = struct.pack(">I", 0x377F0683) + log[4:24]
    sums = summed(start, ">", (0, 0))
    rewritten = start + struct.pack(">II", *sums)
    for frame in frames_of(log):
        sums = summed(frame[:8] + frame[24:], ">", sums)
        rewritten += frame[:16] + struct.pack(">II", *sums) + frame[24:]
    big = read_header(rewritten)
    assert (little.big_endian, big.big_endian, big.salts) == (False, True, little.salts)
    read = commits(rewritten[HEADER:], big)
    assert [commit.pages for commit in read] == [commit.pages for commit in commits(log[HEADER:], little)]
    assert len(read) == 3
    assert checkpointed(tmp_path, before, rewritten) == checkpointed(tmp_path, before, log) != before


@settings(max_examples=100, deadline=None)
@given(
    page_size=st.sampled_from((512, 1024, 65536)),
    order=st.sampled_from("<>"),
    seeds=st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=4),
    salts=st.binary(min_size=8, max_size=8),
)
def test_the_checksum_of_all_frames_at_once_is_the_one_of_word_by_word(
    page_size: int, order: str, seeds: list[bytes], salts: bytes
) -> None:
    start = struct.pack(">IIII", 0x377F0682 + (order == ">"), 3007000, page_size, 7) + salts
    sums = summed(start, order, (0, 0))
    log = start + struct.pack(">II", *sums)
    header = read_header(log)
    frames = b""
    for number, seed in enumerate(seeds):
        content = (seed * page_size)[:page_size]
        named = struct.pack(">II", number + 1, len(seeds))
        sums = summed(named + content, order, sums)
        frames += named + salts + struct.pack(">II", *sums) + content
    assert [commit.end_frame for commit in commits(frames, header)] == list(range(1, len(seeds) + 1))


@pytest.mark.parametrize(
    ("at", "value", "message"),
    [
        (0, 0x377F0684, "byte 0: not a WAL"),
        (4, 3007001, "byte 4: WAL version 3007001"),
        (8, 1000, "byte 8: a page size"),
    ],
)
def test_a_header_of_another_format_is_refused_by_name(at: int, value: int, message: str) -> None:
    fields = {0: 0x377F0682, 4: 3007000, 8: 1024} | {at: value}
    start = struct.pack(">III", *fields.values()) + bytes(12)
    with pytest.raises(WalCorrupt, match=message):
        read_header(start + struct.pack(">II", *summed(start, "<", (0, 0))))
