"""The reference program for LTX files reads what we write, and we read what it writes."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from formats.captured import Captured, captured
from memoturn_storage.formats.checksums import PageChecksums
from memoturn_storage.formats.ltx import LtxCorrupt, LtxFile, apply_to_image, decode, encode

GOLDEN = Path(__file__).parents[1] / "formats"


@pytest.fixture(scope="session")
def ltx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reference command, built from its published source."""
    directory = tmp_path_factory.mktemp("go")
    subprocess.run(
        ["go", "install", "github.com/superfly/ltx/cmd/ltx@latest"],
        env={**os.environ, "GOBIN": str(directory)},
        check=True,
        timeout=600,
    )
    return directory / "ltx"


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Captured]:
    """A snapshot and the transactions after it: growth, a shrinking VACUUM, growth again over a restarted log."""
    with captured(tmp_path) as database:
        many = "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 200)"
        for sql in (
            f"{many} INSERT INTO items (value) SELECT randomblob(300) FROM n",
            "INSERT INTO words (value) SELECT 'word ' || id FROM items",
            "DELETE FROM items WHERE id % 10",
            "VACUUM",
            "PRAGMA wal_checkpoint(TRUNCATE)",
            f"{many} INSERT INTO items (value) SELECT zeroblob(700) FROM n",
        ):
            database.connection.execute(sql).fetchall()
            database.capture()
        assert len({file.commit for file in database.files}) > 3
        yield database


def run(*command: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=60, check=False)


def written(directory: Path, files: list[LtxFile]) -> list[Path]:
    paths = [directory / f"{file.min_txid:016x}-{file.max_txid:016x}.ltx" for file in files]
    for path, file in zip(paths, files, strict=True):
        path.write_bytes(encode(file))
    return paths


def test_it_verifies_our_files(ltx: Path, database: Captured, tmp_path: Path) -> None:
    paths = written(tmp_path, database.files)
    verified = run(ltx, "verify", *paths)
    assert (verified.returncode, verified.stdout) == (0, "ok\n")
    rows = [line.split("\t") for line in run(ltx, "list", "-tsv", *paths).stdout.splitlines()[1:]]
    assert [(int(row[0], 16), int(row[1], 16), int(row[2]), int(row[3])) for row in rows] == [
        (file.min_txid, file.max_txid, file.commit, len(file.pages)) for file in database.files
    ]
    assert [(int(row[4], 16), int(row[5], 16)) for row in rows] == [
        (file.pre_apply, file.post_apply) for file in database.files
    ]


def test_it_verifies_our_golden_files_and_each_file_of_a_segment(ltx: Path, tmp_path: Path) -> None:
    paths = [GOLDEN / "snapshot-v3.ltx", GOLDEN / "delta-v3.ltx"]
    segment = (GOLDEN / "segment-v3.ltx").read_bytes()
    offset = 0
    while offset < len(segment):
        _, end = decode(segment, offset)
        paths.append(tmp_path / f"{offset}.ltx")
        paths[-1].write_bytes(segment[offset:end])
        offset = end
    assert len(paths) == 7
    verified = run(ltx, "verify", *paths)
    assert (verified.returncode, verified.stdout) == (0, "ok\n")
    whole = run(ltx, "verify", GOLDEN / "segment-v3.ltx")
    assert "unexpected data after trailer" in whole.stdout, "a segment has to be cut into its files first"


def test_applying_our_files_with_it_makes_the_database_byte_for_byte(
    ltx: Path, database: Captured, tmp_path: Path
) -> None:
    target = tmp_path / "restored.db"
    ours = bytearray()
    for path, file in zip(written(tmp_path, database.files), database.files, strict=True):
        applied = run(ltx, "apply", "-db", target, path)
        assert applied.returncode == 0, applied.stdout
        apply_to_image(ours, file)
        assert target.read_bytes() == ours
        assert int(run(ltx, "checksum", target).stdout, 16) == file.post_apply
    assert ours == database.image == database.checkpointed(tmp_path)


def test_it_refuses_what_we_refuse(ltx: Path, database: Captured, tmp_path: Path) -> None:
    file = database.files[2]
    encoded = encode(file)
    damaged = []
    for position in (0, 9, 20, 41, 101, 105, len(encoded) - 40, len(encoded) - 12, len(encoded) - 1):
        flipped = bytearray(encoded)
        flipped[position] ^= 0x40
        damaged.append(bytes(flipped))
    damaged += [encoded[:length] for length in (0, 50, 100, 500, len(encoded) - 1)]
    for number, content in enumerate(damaged):
        path = tmp_path / f"damaged-{number}.ltx"
        path.write_bytes(content)
        assert run(ltx, "verify", path).returncode == 1
        with pytest.raises(LtxCorrupt):
            decode(content)
    first, _, third, *_ = written(tmp_path, database.files)
    skipped = run(ltx, "apply", "-db", tmp_path / "skipped.db", first, third)
    assert skipped.returncode == 1
    assert "pre-apply checksum mismatch" in skipped.stdout


def test_we_read_a_snapshot_that_it_wrote(ltx: Path, database: Captured, tmp_path: Path) -> None:
    source, target = tmp_path / "source.db", tmp_path / "theirs.ltx"
    source.write_bytes(database.image)
    encoded = run(ltx, "encode-db", "-o", target, source)
    assert encoded.returncode == 0, encoded.stdout
    snapshot, end = decode(target.read_bytes())
    assert end == target.stat().st_size
    restored = bytearray()
    apply_to_image(restored, snapshot)
    assert restored == database.image
    assert snapshot.post_apply == PageChecksums.of_image(restored, 1024).rolling
