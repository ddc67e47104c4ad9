"""SQLite's write-ahead log, read as the transactions that it holds (https://sqlite.org/fileformat2.html#walformat).

A WAL is a header of 32 bytes and frames: a header of 24 bytes (page number; size of the database in pages
in the last frame of a transaction, else 0; the salts; the checksum up to here) and a page. A restart keeps
the old frames in place behind the new ones: only those with the header's salts belong to it. Frames that
come after the last commit were spilled or rolled back; the next transaction writes over them. The checksum
of a frame goes on from the frame before it, so reading can begin at any frame whose predecessor is known.
Called by who captures commits; `verify` is for bytes that a crash may have torn.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from struct import Struct

import numpy as np
import numpy.typing as npt

HEADER = 32
FRAME_HEADER = 24

_HEADER = Struct(">IIII8sII")
_FRAME = Struct(">II8sII")
_MAGIC = 0x377F0682
"""The lowest bit says whether checksums are sums of big-endian words."""
_VERSION = 3007000

Words = npt.NDArray[np.uint32]
# A step takes the words a and b: first += a + second, then second += b + first. As matrices: what the row
# (first, second) is multiplied with, and what the row (a, b) is multiplied with before it is added.
_STEP = np.array([[1, 1], [1, 2]], np.uint32)
_PAIR = np.array([[1, 1], [0, 1]], np.uint32)

Checksum = tuple[int, int]


class WalCorrupt(Exception):
    """These bytes are not the WAL that they should be. The message says what is wrong and at which byte."""


@dataclass(frozen=True, slots=True)
class WalHeader:
    page_size: int
    sequence: int
    """How many times the log was restarted."""
    salts: bytes
    """8 bytes, others after each restart."""
    checksum: Checksum
    big_endian: bool
    """The byte order of the words that the checksums sum up."""


@dataclass(frozen=True, slots=True)
class WalCommit:
    """One transaction: the frames from `first_frame` to before `end_frame`, numbered from 0."""

    first_frame: int
    end_frame: int
    commit: int
    """The size of the database afterwards, in pages."""
    checksum: Checksum
    """Of its last frame: where the checksum of the next one goes on."""
    pages: dict[int, bytes] = field(repr=False)
    """By number, ascending, as the transaction left them; what lies beyond `commit` is not in it."""


def frame_offset(frame: int, page_size: int) -> int:
    """Where the frame of this number, counted from 0, begins in the file."""
    return HEADER + frame * (FRAME_HEADER + page_size)


def read_header(data: bytes | memoryview) -> WalHeader:
    """The header of a WAL file, from its first 32 bytes.

    Raises:
        WalCorrupt: it is cut off, of another format, or its checksum does not match.
    """
    if len(data) < HEADER:
        raise WalCorrupt(f"byte {len(data)}: the WAL header is cut off")
    magic, version, page_size, sequence, salts, *checksum = _HEADER.unpack_from(data)
    if magic & ~1 != _MAGIC:
        raise WalCorrupt("byte 0: not a WAL")
    big_endian = bool(magic & 1)
    if version != _VERSION:
        raise WalCorrupt(f"byte 4: WAL version {version} instead of {_VERSION}")
    if not (512 <= page_size <= 65536 and page_size & (page_size - 1) == 0):
        raise WalCorrupt(f"byte 8: a page size of {page_size} bytes")
    if _sums(data, 1, _weights(6), big_endian)[0].tolist() != checksum:
        raise WalCorrupt("byte 24: the checksum of the WAL header does not match")
    return WalHeader(page_size, sequence, salts, (checksum[0], checksum[1]), big_endian)


def commits(
    frames: bytes | memoryview,
    header: WalHeader,
    first_frame: int = 0,
    *,
    previous_checksum: Checksum | None = None,
    verify: bool = True,
) -> list[WalCommit]:
    """The transactions in the bytes `frames` of a WAL, which begin with the frame `first_frame`.

    With `verify`, salts and checksums are checked, and reading ends before the first frame that is not
    valid: what a crash has torn, what is left of a log before its restart, and frames without a commit are
    not in the result. The checksum goes on from `previous_checksum`, that of the frame before the first one
    (`WalCommit.checksum`); without one, from the header's, which is right for `first_frame` 0 alone.

    Without `verify`, the frames are ones that SQLite has just reported as committed: salts are checked,
    checksums are not.

    Raises:
        WalCorrupt: only without `verify`; a frame has foreign salts, is cut off, or is not committed.
        ValueError: `first_frame` is not 0 and there is nothing to go on from.
    """
    if verify and first_frame and previous_checksum is None:
        raise ValueError("the checksum of the frame before the first one is needed to verify what follows")
    page_size = header.page_size
    frame_size = FRAME_HEADER + page_size
    count = len(frames) // frame_size
    if verify:
        count = _count_valid(frames, count, header, previous_checksum or header.checksum)
    found = []
    begun_at = 0
    pages_at: dict[int, int] = {}
    for frame in range(count):
        start = frame * frame_size
        pgno, commit, salts, *checksum = _FRAME.unpack_from(frames, start)
        if salts != header.salts or pgno == 0:
            break
        pages_at[pgno] = start + FRAME_HEADER
        if commit:
            pages = {n: bytes(frames[at : at + page_size]) for n, at in sorted(pages_at.items()) if n <= commit}
            after = first_frame + frame + 1
            found.append(WalCommit(first_frame + begun_at, after, commit, (checksum[0], checksum[1]), pages))
            begun_at = frame + 1
            pages_at = {}
    if not verify and begun_at * frame_size != len(frames):
        at = frame_offset(first_frame + begun_at, page_size)
        raise WalCorrupt(f"byte {at}: frames that are cut off, of another log or without a commit follow")
    return found


def _count_valid(frames: bytes | memoryview, count: int, header: WalHeader, previous: Checksum) -> int:
    """How many of the frames have the checksum that goes on from the frame before them.

    SQLite's checksum is linear modulo 2^32: each word of a frame adds to it with a weight of its own, and so
    does the checksum from before. So each frame is checked against what its predecessor stores, and all
    of them at once.
    """
    words = (FRAME_HEADER + header.page_size) // 4
    stored = np.frombuffer(frames, ">u4", count * words).reshape(count, words)[:, 4:6].astype(np.uint32)
    before = np.concatenate([np.array([previous], np.uint32), stored])[:count]
    added = _sums(frames, count, _frame_weights(words), header.big_endian)
    wrong = np.flatnonzero((added + before @ _carry(words - 4) != stored).any(axis=1))
    return int(wrong[0]) if len(wrong) else count


def _sums(data: bytes | memoryview, rows: int, weights: Words, big_endian: bool) -> Words:
    """The two weighted sums of each row of words."""
    width = weights.shape[1]
    words = np.frombuffer(data, ">u4" if big_endian else "<u4", rows * width).reshape(rows, width)
    sums: Words = np.einsum("ij,kj->ik", words.astype(np.uint32, copy=False), weights)
    return sums


@lru_cache(maxsize=8)
def _frame_weights(words: int) -> Words:
    """What each word of a frame adds to the two sums; its salts and its checksum add nothing."""
    weights = _weights(words - 4)
    return np.concatenate([weights[:, :2], np.zeros((2, 4), np.uint32), weights[:, 2:]], axis=1)


def _weights(words: int) -> Words:
    pair = _PAIR
    from_last = [pair]
    for _ in range(2, words, 2):
        pair = pair @ _STEP
        from_last.append(pair)
    return np.ascontiguousarray(np.concatenate(from_last[::-1]).T)


@lru_cache(maxsize=8)
def _carry(words: int) -> Words:
    """What the two sums from before, as a row, are multiplied with when `words` more words are added."""
    carry = np.identity(2, np.uint32)
    for _ in range(0, words, 2):
        carry = carry @ _STEP
    return carry
