"""The tail of a branch: what is committed on this machine and not yet in the object store.

The write-ahead log is the spool. A commit only notes how far the log reaches now; the frames stay in it,
and so outlive the process, until they are shipped, for the log is folded back into the file only when
nothing of it is unshipped. `seal` reads the oldest of them, encodes each transaction as an LTX file, and
hands out the next object to ship; `landed` is told when the object store has it.

The engine's thread calls `begin`, `note`, `wait` and `folded`; whoever holds the branch's lock calls
`seal`, `landed`, `fail_waiting` and `restart`.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from memoturn_schemas.errors import MemoturnError
from memoturn_storage.formats.checksums import PageChecksums, lock_page
from memoturn_storage.formats.ltx import LtxFile, apply_to_image, encode
from memoturn_storage.formats.wal import HEADER, WalCommit, WalCorrupt, commits, frame_offset, read_header
from memoturn_storage.manifest import Position

SEAL_BYTES = 1 << 20
"""Of pages, in one segment, before encoding; at least one transaction is in it whatever its size."""


class NotInTheLog(Exception):
    """The log does not hold the transactions that were noted: another program has written to the file."""


@dataclass(frozen=True, slots=True)
class Commit:
    """A transaction in the log: its frames end before `end_frame` and begin where the one before it ends."""

    txid: int
    end_frame: int
    at: int


@dataclass(frozen=True, slots=True)
class Backlog:
    """How much is committed and not shipped; `oldest_at` in Unix milliseconds, None where nothing is."""

    commits: int
    log_bytes: int
    oldest_at: int | None


@dataclass(frozen=True, slots=True)
class Sealed:
    """What goes into the object store next: a snapshot where history begins, and the transactions above `min`."""

    min: int
    end: Position
    transactions: bytes
    """LTX files, one a transaction; none where the snapshot is everything."""
    snapshot: bytes | None = None
    snapshot_end: Position | None = None
    end_frame: int = 0


@dataclass(frozen=True, slots=True)
class _Waiting:
    txid: int
    future: Future[Any]
    result: Any


class Tail:
    """The tail of one open branch.

    Args:
        wal: the log's path.
        shipped: the last transaction that the object store has; None where it has nothing.
    """

    def __init__(self, wal: Path, page_size: int, shipped: Position | None) -> None:
        self._wal = wal
        self._expected = None if shipped is None else shipped.checksum
        self._page_size = page_size
        self._lock = threading.Lock()
        self._commits: deque[Commit] = deque()
        self._waiting: deque[_Waiting] = deque()
        self._checksums: PageChecksums | None = None
        self._first_image: bytes | None = None
        self._sealed: Sealed | None = None
        self._start_frame = 0
        self._end_frame = 0
        self._salts: bytes | None = None  # of the log since the first commit in it was noted
        self._last_at = 0 if shipped is None else shipped.at
        self.shipped = 0 if shipped is None else shipped.txid
        self.broken = False
        """Whether the log and the object store do not join, so that only a snapshot can go on."""

    # --- the engine's thread ---------------------------------------------------------------------

    @property
    def begun(self) -> bool:
        return self._checksums is not None

    def begin(self, image: bytes, start_frame: int = 0) -> None:
        """To be called before the first `note` with the state that the object store has, from the file.

        A file that holds another state was changed behind our back, and its log does not join.
        """
        self._checksums = PageChecksums.of_image(image, self._page_size)
        self._start_frame = self._end_frame = start_frame
        if self._expected is None:
            self._first_image = image
        elif self._checksums.rolling != self._expected:
            self.broken = True

    def note(self, txid: int, end_frame: int, now_ms: int) -> None:
        """A transaction was committed and is in the log up to `end_frame`."""
        with self._lock:
            if end_frame <= self._end_frame:
                # Somebody has folded the log, perhaps with writes of his own in it, and it was begun anew.
                self.broken = True
            if self._salts is None:
                self._salts = self._current_salts()
            # Time in a history never goes back, whatever the clock does.
            self._last_at = max(self._last_at, now_ms)
            self._commits.append(Commit(txid, end_frame, self._last_at))
            self._end_frame = end_frame

    def wait(self, txid: int, future: Future[Any], result: Any) -> bool:
        """Resolve the future with `result` once `txid` is in the object store; False where it is there already."""
        with self._lock:
            if txid <= self.shipped and not self.broken:
                return False
            self._waiting.append(_Waiting(txid, future, result))
            return True

    def folded(self, frames: int) -> None:
        """The log, of so many frames, was folded back into the file and is empty.

        One of another length than was noted held what somebody else has written, or held it before.
        """
        with self._lock:
            self.broken = self.broken or (self.begun and frames != self._end_frame)
            self._start_frame = self._end_frame = 0
            self._salts = None

    # --- any thread ------------------------------------------------------------------------------

    @property
    def clean(self) -> bool:
        """Whether the object store has everything."""
        return not self._commits and not self.broken

    @property
    def commits(self) -> int:
        return len(self._commits)

    @property
    def log_bytes(self) -> int:
        """What the log holds for it."""
        return (self._end_frame - self._start_frame) * self._page_size if self._commits else 0

    @property
    def oldest_at(self) -> int | None:
        """When the oldest unshipped transaction was committed, Unix milliseconds."""
        with self._lock:
            return self._commits[0].at if self._commits else None

    @property
    def backlog(self) -> Backlog:
        return Backlog(self.commits, self.log_bytes, self.oldest_at)

    @property
    def awaited(self) -> bool:
        return bool(self._waiting)

    # --- under the branch's lock -----------------------------------------------------------------

    def seal(self) -> Sealed | None:
        """The next object to ship; the same one until it has landed. None: there is nothing.

        Raises:
            NotInTheLog: nothing but `restart` helps.
        """
        if self._sealed is None and self._commits:
            with self._lock:
                taken = self._next_commits()
            frames = self._read(taken)
            try:
                self._sealed = self._encode(taken, frames)
            except BaseException:
                self.broken = True  # the sums have moved on with what was not encoded
                raise
        return self._sealed

    def landed(self, sealed: Sealed) -> None:
        """The object store has it: those who wait for it hear so."""
        with self._lock:
            while self._commits and self._commits[0].txid <= sealed.end.txid:
                self._commits.popleft()
            # A log that was folded meanwhile has begun anew; then there is nothing left of the old one.
            self._start_frame = sealed.end_frame if self._commits else self._end_frame
            self.shipped = sealed.end.txid
            self._sealed = None
            heard = []
            while self._waiting and self._waiting[0].txid <= self.shipped:
                heard.append(self._waiting.popleft())
        for waiting in heard:
            waiting.future.set_result(waiting.result)

    def fail_waiting(self, error: MemoturnError) -> None:
        """Those who wait hear that it is not known when, or whether, the object store will have it."""
        with self._lock:
            failed, self._waiting = self._waiting, deque()
        for waiting in failed:
            waiting.future.set_exception(error)

    def restart(self, image: bytes, txid: int, end_frame: int, now_ms: int) -> None:
        """Go on from a snapshot of the whole state, `txid`, with no job of the branch running meanwhile."""
        with self._lock:
            self._end_frame = end_frame
            self._salts = self._current_salts()
            self._last_at = max(self._last_at, now_ms)
            self._commits = deque([Commit(txid, self._end_frame, self._last_at)])
            self._checksums = PageChecksums.of_image(image, self._page_size)
            self._first_image = None
            end = Position(txid, self._last_at, self._checksums.rolling)
            self._sealed = Sealed(txid, end, b"", encode(snapshot_file(image, self._page_size, end)), end, end_frame)
            self.broken = False

    def _next_commits(self) -> list[Commit]:
        pages = SEAL_BYTES // self._page_size
        last = self._start_frame + pages
        count = sum(1 for commit in self._commits if commit.end_frame <= last)
        return list(islice(self._commits, max(1, count)))

    def _encode(self, taken: list[Commit], found: list[WalCommit]) -> Sealed:
        assert self._checksums is not None  # noqa: S101 - `begin` comes before every `note`
        files: list[bytes] = []
        snapshot: bytes | None = None
        snapshot_end: Position | None = None
        before = self.shipped
        for commit, frames in zip(taken, found, strict=True):
            pre_apply = self._checksums.rolling
            self._checksums.apply(frames.pages, frames.commit)
            end = Position(commit.txid, commit.at, self._checksums.rolling)
            file = LtxFile(
                page_size=self._page_size,
                commit=frames.commit,
                min_txid=commit.txid,
                max_txid=commit.txid,
                timestamp_ms=commit.at,
                pre_apply=pre_apply,
                post_apply=end.checksum,
                pages=frames.pages,
            )
            if self._first_image is not None:
                image = bytearray(self._first_image)
                self._first_image = None
                apply_to_image(image, file)
                snapshot = encode(snapshot_file(bytes(image), self._page_size, end))
                snapshot_end, before = end, commit.txid
            else:
                files.append(encode(file))
        return Sealed(before, end, b"".join(files), snapshot, snapshot_end, taken[-1].end_frame)

    def _read(self, taken: list[Commit]) -> list[WalCommit]:
        """The frames of these commits, as the codec gives them."""
        try:
            descriptor = os.open(self._wal, os.O_RDONLY)
            try:
                header = read_header(os.pread(descriptor, HEADER, 0))
                if header.salts != self._salts:
                    raise WalCorrupt("the log was begun anew by somebody else")
                start = frame_offset(self._start_frame, self._page_size)
                size = frame_offset(taken[-1].end_frame, self._page_size) - start
                found = commits(os.pread(descriptor, size, start), header, self._start_frame, verify=False)
            finally:
                os.close(descriptor)
        except (FileNotFoundError, WalCorrupt) as error:
            self.broken = True
            raise NotInTheLog(str(error)) from error
        if [commit.end_frame for commit in found] != [commit.end_frame for commit in taken]:
            self.broken = True
            raise NotInTheLog("the log holds other transactions than were noted")
        return found

    def _current_salts(self) -> bytes | None:
        try:
            with self._wal.open("rb") as log:
                return read_header(log.read(HEADER)).salts
        except (FileNotFoundError, WalCorrupt):
            return None


def snapshot_file(image: bytes | bytearray, page_size: int, end: Position) -> LtxFile:
    """A whole state as an LTX file."""
    pages = {
        number: bytes(image[start : start + page_size])
        for number, start in enumerate(range(0, len(image), page_size), 1)
        if number != lock_page(page_size)
    }
    return LtxFile(
        page_size=page_size,
        commit=len(image) // page_size,
        min_txid=1,
        max_txid=end.txid,
        timestamp_ms=end.at,
        pre_apply=0,
        post_apply=end.checksum,
        pages=pages,
    )
