"""What ranking by words needs of a table's rows, in memory: which rows have a word how often, and who stands next.

A `Lexicon` mirrors the rows in places that ascend with their rowids; a row that is removed leaves its place dead. The
rows are read at the first search, and where each word occurs when that word is first asked for; from then on each
commit keeps it in step. Called by `memoturn_core.memory.words`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import apsw
import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Places = npt.NDArray[np.intp]
Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

_FEWEST = 16
_FEW_DEAD = 64
_POSTING_BYTES = 300
"""What a word takes beside its occurrences, about."""
_POSTINGS_AT_MOST = 32 << 20
"""Bytes of postings that one lexicon keeps; then it begins anew with those that are asked for next."""

NOBODY = -1


class Posting:
    """Where a word occurs: places, ascending, and how often there."""

    __slots__ = ("_counts", "_places", "_size")

    def __init__(self, places: Places, counts: Ints) -> None:
        self._places = places
        self._counts = counts
        self._size = len(places)

    @property
    def nbytes(self) -> int:
        return self._places.nbytes + self._counts.nbytes + _POSTING_BYTES

    @property
    def places(self) -> Places:
        return self._places[: self._size]

    @property
    def counts(self) -> Ints:
        return self._counts[: self._size]

    def put(self, place: int, count: int) -> None:
        """How often the word occurs at a place from now on, which may be not at all."""
        size = self._size
        at = int(self.places.searchsorted(place))
        there = at < size and self._places[at] == place
        if there and count:
            self._counts[at] = count
        elif there:
            self._places[at : size - 1] = self._places[at + 1 : size]
            self._counts[at : size - 1] = self._counts[at + 1 : size]
            self._size -= 1
        elif count:
            if size == len(self._places):
                self._places = np.resize(self._places, max(_FEWEST, 2 * size))
                self._counts = np.resize(self._counts, max(_FEWEST, 2 * size))
            self._places[at + 1 : size + 1] = self._places[at:size]
            self._counts[at + 1 : size + 1] = self._counts[at:size]
            self._places[at], self._counts[at] = place, count
            self._size += 1

    def cut(self, end: int) -> None:
        """Forget the places from `end` on."""
        while self._size and self._places[self._size - 1] >= end:
            self._size -= 1


class Lexicon:
    """Rows as `(rowid, session or None, length, whether it asks)`, in the order of their rowids.

    Args:
        unit: as how many occurrences one counts where it counts most.
    """

    def __init__(self, rows: Sequence[Any], unit: int = 1) -> None:
        self.unit = unit
        rowids, sessions, lengths, asking = zip(*rows, strict=True) if rows else ((), (), (), ())
        self.count = len(rows)
        """Places."""
        self.alive_count = self.count
        self._sessions: dict[str, int] = {}
        numbers = [
            NOBODY if session is None else self._sessions.setdefault(session, len(self._sessions))
            for session in sessions
        ]
        self._rowids: Ints = np.array(rowids, np.int64)
        self._alive: Flags = np.ones(self.count, np.bool_)
        self._asking: Flags = np.array(asking, np.bool_)
        self._lengths: Floats = np.array(lengths, np.float64)
        self._total_length = float(self._lengths.sum())
        self._session: Ints = np.array(numbers, np.int64)
        self._before: Ints = np.full(self.count, NOBODY, np.int64)
        self._after: Ints = np.full(self.count, NOBODY, np.int64)
        together = np.argsort(self._session, kind="stable")
        same = (self._session[together[1:]] == self._session[together[:-1]]) & (self._session[together[1:]] != NOBODY)
        self._before[together[1:][same]] = together[:-1][same]
        self._after[together[:-1][same]] = together[1:][same]
        self._last = dict(zip(numbers, range(self.count), strict=True))
        self._postings: dict[str, Posting] = {}
        self._postings_bytes = 0

    # --- rows ------------------------------------------------------------------------------------

    @property
    def rowids(self) -> Ints:
        return self._rowids[: self.count]

    @property
    def alive(self) -> Flags:
        return self._alive[: self.count]

    @property
    def asking(self) -> Flags:
        return self._asking[: self.count]

    @property
    def relative_lengths(self) -> Floats:
        """Of the average row's."""
        return self._lengths[: self.count] * (self.alive_count / max(self._total_length, 1.0))

    @property
    def session(self) -> Ints:
        """A number for each session, or `NOBODY`."""
        return self._session[: self.count]

    @property
    def session_count(self) -> int:
        return len(self._sessions)

    @property
    def before(self) -> Ints:
        """The place of the row before this one in its session, or `NOBODY`."""
        return self._before[: self.count]

    @property
    def after(self) -> Ints:
        return self._after[: self.count]

    def places(self, rowids: Sequence[int] | Ints) -> Places:
        """Of rows that are here."""
        return self.rowids.searchsorted(np.asarray(rowids, np.int64))

    # --- words -----------------------------------------------------------------------------------

    def missing(self, stems: Sequence[str]) -> list[str]:
        """Those whose postings have yet to be learnt."""
        if self._postings_bytes > _POSTINGS_AT_MOST:
            self._postings.clear()
            self._postings_bytes = 0
        return [stem for stem in stems if stem not in self._postings]

    def learn(self, stem: str, rowids: Ints) -> None:
        """Where a word occurs, a rowid for each time, ascending."""
        distinct, counts = np.unique(rowids, return_counts=True)
        posting = self._postings[stem] = Posting(self.places(distinct), counts.astype(np.int64))
        self._postings_bytes += posting.nbytes

    def posting(self, stem: str) -> Posting:
        """Of a word that is not missing."""
        return self._postings[stem]

    # --- kept in step ----------------------------------------------------------------------------

    @property
    def nbytes(self) -> int:
        rows = len(self._rowids) * (5 * 8 + 2)
        return rows + _POSTING_BYTES * len(self._sessions) + self._postings_bytes

    @property
    def wasteful(self) -> bool:
        return self.count - self.alive_count > max(self.alive_count, _FEW_DEAD)

    def append(self, rowid: int, session: str | None, length: int, asks: bool, stems: Sequence[str]) -> bool:
        """A new row; False where it belongs between those that are here, and there is no place."""
        if self.count and rowid <= self._rowids[self.count - 1]:
            return False
        self._put(rowid, session, length, asks)
        self._occur(self.count - 1, {}, Counter(stems))
        return True

    def replace(self, rowid: int, length: int, asks: bool, before: Sequence[str], after: Sequence[str]) -> None:
        """A row says something else, in the same session; the words are all that it had and all that it has."""
        place = self._living(rowid)
        if place is None:
            return
        self._total_length += length - self._lengths[place]
        self._lengths[place] = length
        self._asking[place] = asks
        self._occur(place, Counter(before), Counter(after))

    def remove(self, rowid: int) -> None:
        place = self._living(rowid)
        if place is None:
            return
        self._alive[place] = False
        self.alive_count -= 1
        self._total_length -= self._lengths[place]
        before, after = int(self._before[place]), int(self._after[place])
        if before != NOBODY:
            self._after[before] = after
        if after != NOBODY:
            self._before[after] = before
        elif self._session[place] != NOBODY:
            self._last[int(self._session[place])] = before
        # The file gives the next row the rowid after the highest that is left, and that has to be above all here.
        if place == self.count - 1:
            while self.count and not self._alive[self.count - 1]:
                self.count -= 1
            for posting in self._postings.values():
                posting.cut(self.count)

    def _occur(self, place: int, before: Mapping[str, int], after: Mapping[str, int]) -> None:
        """How often a row had words, and has; kept for those that were asked for, and read of others when they are."""
        for stem in self._postings.keys() & (before.keys() | after.keys()):
            times = after.get(stem, 0)
            if times != before.get(stem, 0):
                posting = self._postings[stem]
                self._postings_bytes -= posting.nbytes
                posting.put(place, times)
                self._postings_bytes += posting.nbytes

    def _living(self, rowid: int) -> int | None:
        """The place of a row, or None where there is no such row."""
        place = int(self.rowids.searchsorted(rowid))
        return place if place < self.count and self._rowids[place] == rowid and self._alive[place] else None

    def _put(self, rowid: int, session: str | None, length: int, asks: bool) -> None:
        place = self.count
        if place == len(self._rowids):
            self._grow(max(_FEWEST, 2 * place))
        self._rowids[place] = rowid
        self._alive[place] = True
        self._asking[place] = asks
        self._lengths[place] = length
        self._session[place] = self._before[place] = self._after[place] = NOBODY
        if session is not None:
            number = self._sessions.setdefault(session, len(self._sessions))
            before = self._last.get(number, NOBODY)
            self._session[place], self._before[place] = number, before
            if before != NOBODY:
                self._after[before] = place
            self._last[number] = place
        self.count += 1
        self.alive_count += 1
        self._total_length += length

    def _grow(self, capacity: int) -> None:
        for name in ("_rowids", "_alive", "_asking", "_lengths", "_session", "_before", "_after"):
            setattr(self, name, np.resize(getattr(self, name), capacity))


def occurrences(
    connection: apsw.Connection, vocabulary: str, stems: Sequence[str], weights: Mapping[str, int] | None = None
) -> list[Ints]:
    """For each word the rowids at which a full-text index has it, ascending.

    Args:
        weights: by columns, how many times each time counts that a word is there; once where they are not given.
    """
    each = "doc"
    if weights and set(weights.values()) != {1}:
        cases = [f"WHEN '{column}' THEN doc" + " || ',' || doc" * (weight - 1) for column, weight in weights.items()]
        each = f"CASE col {' '.join(cases)} END"
    found = [
        connection.execute(f"SELECT group_concat({each}) FROM {vocabulary} WHERE term = ?", (stem,)).get
        for stem in stems
    ]
    return [np.fromstring(str(rowids or ""), np.int64, sep=",") for rowids in found]
