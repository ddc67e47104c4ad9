"""The patterns of a profile with what they rest on, kept in memory beside their rows.

Made of the file's rows in one go, and kept in step by each completion and each word of feedback (`evidence`); when an
episode is deleted it is let go of, and read again by whoever asks next. What is counted is in arrays with a row for
each pattern. Weights are kept as they stood at one moment: all of them fade alike, so that the strengths of any
other moment are one multiplication away. Called by everything that reads patterns.
"""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import compress
from typing import Any, Literal, NamedTuple, get_args

import apsw
import numpy as np
from numpy.typing import NDArray

from memoturn_core.episodes.patterns.pattern import Pattern, PatternRow, Standing
from memoturn_core.episodes.patterns.strength import Floats, faded, lower_bound, of_feedback
from memoturn_core.vectors.budget import Budget
from memoturn_schemas.episodes import Applied, OutcomeType, TaskType
from memoturn_schemas.patterns import PatternKind
from memoturn_storage.handle import Snapshot

_BUDGET_BYTES = 128 << 20
_PATTERN_BYTES, _EPISODE_BYTES = 1_900, 250
"""Of memory, about, where patterns were searched: measured, Python 3.11."""

_SUCCEEDED: frozenset[OutcomeType] = frozenset({"success", "partial_success"})
_TASK_TYPES: tuple[TaskType, ...] = get_args(TaskType)
_TASK_TYPE = {task_type: number for number, task_type in enumerate(_TASK_TYPES)}

_ROWIDS = np.dtype("<i4")
"""How an episode's evidence holds the rowids of its patterns."""

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]


class Seen(NamedTuple):
    """An episode that was learnt from; `at` is when it ended."""

    task_type: TaskType
    outcome: OutcomeType
    at: int

    @property
    def won(self) -> bool:
        return self.outcome in _SUCCEEDED

    @property
    def lost(self) -> bool:
        return self.outcome == "failure"


def patterns_of(
    snapshot: Snapshot,
    *,
    domain: str | None = None,
    kinds: Collection[PatternKind] | None = None,
    task_type: TaskType | None = None,
) -> list[Pattern]:
    """What is promoted, in the order in which it was entered; of a task type, what was seen in such tasks at all."""
    found = PatternIndex.of(snapshot).all_promoted(task_type)
    if domain is not None:
        found = [each for each in found if each.domain == domain]
    if kinds is not None:
        found = [each for each in found if each.kind in kinds]
    return list(found)


def patterns_of_episodes(snapshot: Snapshot, episodes: Iterable[int]) -> dict[int, list[Pattern]]:
    """By the rowids of those episodes that were learnt from, what is promoted of what they have."""
    known = PatternIndex.of(snapshot)
    rows: Any = snapshot.connection.execute(
        "SELECT episode, patterns FROM __memoturn_pattern_evidence WHERE episode IN carray(?)",
        (apsw.carray(array("q", [-1, *episodes])),),
    )
    return {episode: [each for each in known.of_rowids(unpacked(held)) if each.promoted] for episode, held in rows}


def unpacked(rowids: bytes) -> list[int]:
    found: list[int] = np.frombuffer(rowids, _ROWIDS).tolist()
    return found


def packed(rowids: Sequence[int]) -> bytes:
    return np.array(rowids, _ROWIDS).tobytes()


class PatternIndex:
    """What `Snapshot.cached` has: the patterns, or nothing where they are to be read anew."""

    budget = Budget(_BUDGET_BYTES)
    """Of all profiles of a process together."""

    def __init__(self) -> None:
        self.used = 0
        self._known: Known | None = None  # any thread may take it away

    @classmethod
    def of(cls, snapshot: Snapshot) -> Known:
        """With strengths as of now."""
        index: PatternIndex = snapshot.cached(cls, lambda _: cls())
        index.used = cls.budget.now()
        known, now = index._known, snapshot.ambient.now_ms()
        if known is None:
            known = index._known = Known(snapshot.connection, now)
            cls.budget.make_room(index)
        known.weigh(now)
        return known

    # --- kept in step ----------------------------------------------------------------------------

    def learn(
        self, episode: int, seen: Seen, patterns: Sequence[int], made: Sequence[PatternRow], earlier: Mapping[int, int]
    ) -> None:
        """An episode has these patterns; those of `made` are new, and `earlier` has which one had them before."""
        known = self._known
        if known is not None:
            known.learn(episode, seen, patterns, made, earlier)

    def judge(self, feedback: Mapping[int, Sequence[tuple[Applied, int]]]) -> None:
        """All that is said of these patterns, and when."""
        known = self._known
        if known is not None:
            for rowid, said in feedback.items():
                known.judge(rowid, said)

    # --- within the budget -----------------------------------------------------------------------

    @property
    def nbytes(self) -> int:
        known = self._known
        return 0 if known is None else known.nbytes

    @property
    def complete(self) -> bool:
        return self._known is not None

    def let_go(self) -> None:
        self._known = None


_OCCURRENCES, _SUCCESSES, _FAILURES, _FIRST, _LAST, _TYPES = range(6)
"""The columns of what is counted; from the last on there is one for each task type."""
_WON, _LOST, _ALL, _SAID_FOR, _SAID = range(5)
"""The columns of the weights: of episodes that succeeded, that failed, of all; of feedback for it, of all of it."""


class Known:
    """All patterns of one state. A pattern's place is that in the order in which they were entered."""

    def __init__(self, connection: apsw.Connection, now: int) -> None:
        rows: Any = connection.execute(
            "SELECT rowid, id, kind, domain, body, needs, created_at FROM __memoturn_patterns ORDER BY rowid"
        ).fetchall()
        evidence: Any = connection.execute(
            "SELECT episode, patterns, task_type, outcome, seen_at FROM __memoturn_pattern_evidence ORDER BY episode"
        ).fetchall()
        self.seen: dict[int, Seen] = {episode: Seen(*seen) for episode, _, *seen in evidence}
        """The episodes that were learnt from, by rowid."""
        self._since = now
        self._as_of: int | None = None
        self._strengths: list[float] = []
        self._promoted: list[bool] | None = None
        self._all_promoted: list[Pattern] | None = None
        self._patterns: list[Pattern] = []
        self._of_rowid: dict[int, Pattern] = {}
        self._of_id: dict[bytes, Pattern] = {}
        self._feedback: dict[int, Counter[Applied]] = {}
        self._counts: Ints = np.zeros((0, _TYPES + len(_TASK_TYPES)), np.int64)
        self._weights: Floats = np.zeros((0, 5))
        self._needs: Ints = np.zeros(0, np.int64)
        self._anti: Flags = np.zeros(0, np.bool_)
        self._context: Flags = np.zeros(0, np.bool_)
        self._enter(rows)
        self._count(evidence)
        self._hear(connection)

    def _enter(self, rows: Sequence[PatternRow]) -> None:
        for place, row in enumerate(rows, start=len(self._patterns)):
            pattern = Pattern(self, place, row)
            self._patterns.append(pattern)
            self._of_rowid[pattern.rowid] = self._of_id[pattern.id] = pattern
        missing = len(self._patterns) - len(self._needs)
        if missing > 0:
            room = missing + len(self._needs) // 2
            for name in ("_counts", "_weights", "_needs", "_anti", "_context"):
                held = getattr(self, name)
                setattr(self, name, np.concatenate([held, np.zeros((room, *held.shape[1:]), held.dtype)]))
        new = slice(len(self._patterns) - len(rows), len(self._patterns))
        self._needs[new] = [needs for *_, needs, _ in rows]
        self._anti[new] = [pattern.kind == "anti_pattern" for pattern in self._patterns[new]]
        self._context[new] = [pattern.kind == "context_pattern" for pattern in self._patterns[new]]

    def _count(self, evidence: Sequence[tuple[Any, ...]]) -> None:
        """What `_add` would come to for each episode, for all at once."""
        count = len(self._patterns)
        held = np.frombuffer(b"".join(patterns for _, patterns, *_ in evidence), _ROWIDS)
        which = np.repeat(np.arange(len(evidence)), [len(patterns) // _ROWIDS.itemsize for _, patterns, *_ in evidence])
        places = np.searchsorted(np.fromiter(self._of_rowid, np.int64, count), held)
        order = np.argsort(places, kind="stable")
        places, which = places[order], which[order]
        # Of each pattern, where its episodes are in those of all; what comes later is beside.
        self._starts = np.searchsorted(places, np.arange(count + 1))
        self._episodes = np.fromiter(self.seen, np.int64, len(self.seen))[which]
        self._later: defaultdict[int, list[int]] = defaultdict(list)
        if not len(held):
            return
        seen = self.seen.values()
        won = np.fromiter((each.won for each in seen), np.bool_)[which]
        lost = np.fromiter((each.lost for each in seen), np.bool_)[which]
        at = np.fromiter((each.at for each in seen), np.int64)[which]
        types = np.fromiter((_TASK_TYPE[each.task_type] for each in seen), np.int64)[which]
        weights = faded(self._since - at.astype(np.float64))
        counts, sums = self._counts[:count], self._weights[:count]
        for number, column, which_of in ((_OCCURRENCES, _ALL, None), (_SUCCESSES, _WON, won), (_FAILURES, _LOST, lost)):
            some = places if which_of is None else places[which_of]
            counts[:, number] = np.bincount(some, minlength=count)
            sums[:, column] = np.bincount(some, weights if which_of is None else weights[which_of], count)
        counts[:, _FIRST] = np.minimum.reduceat(at, self._starts[:-1])
        counts[:, _LAST] = np.maximum.reduceat(at, self._starts[:-1])
        together = places * len(_TASK_TYPES) + types
        counts[:, _TYPES:] = np.bincount(together, minlength=count * len(_TASK_TYPES)).reshape(count, -1)

    def _hear(self, connection: apsw.Connection) -> None:
        said: defaultdict[int, list[tuple[Applied, int]]] = defaultdict(list)
        rows: Any = connection.execute("SELECT pattern, outcome, said_at FROM __memoturn_pattern_feedback")
        for rowid, outcome, said_at in rows:
            said[rowid].append((outcome, said_at))
        for rowid, each in said.items():
            self.judge(rowid, each)

    @property
    def nbytes(self) -> int:
        episodes = len(self._episodes) + sum(map(len, self._later.values()))
        return _PATTERN_BYTES * len(self._patterns) + _EPISODE_BYTES * len(self.seen) + 8 * episodes

    # --- reading ---------------------------------------------------------------------------------

    def all_promoted(self, task_type: TaskType | None = None) -> list[Pattern]:
        """In the order in which they were entered; of a task type, what was seen in such tasks at all."""
        found = self._patterns
        if task_type is not None:
            seen = self._counts[: len(found), _TYPES + _TASK_TYPE[task_type]] > 0
            return list(compress(found, (seen & np.array(self._are_promoted(), np.bool_)).tolist()))
        if self._all_promoted is None:
            self._all_promoted = list(compress(found, self._are_promoted()))
        return self._all_promoted

    def of_rowids(self, rowids: Iterable[int]) -> list[Pattern]:
        return [self._of_rowid[rowid] for rowid in rowids]

    def of_id(self, id_: bytes) -> Pattern | None:
        return self._of_id.get(id_)

    def weigh(self, now: int) -> None:
        """Have the strengths be those of this time."""
        if self._as_of != now:
            self._strengths = self._strengths_when(float(faded(now - self._since)))
            self._as_of = now

    # As a `Ledger`:

    def strength(self, place: int) -> float:
        return self._strengths[place]

    def undecayed(self, place: int) -> float:
        """What the strength would be if nothing had faded."""
        standing = self.standing(place)
        trials = [of_feedback(outcome, 0) for outcome in self.feedback(place).elements()]
        won = (standing.failures if self._fails(place) else standing.successes) + sum(trial.won for trial in trials)
        return float(lower_bound(won, standing.occurrences + sum(trial.weight for trial in trials)))

    def promoted(self, place: int) -> bool:
        return self._are_promoted()[place]

    def goes_with(self, place: int) -> Literal["success", "failure"]:
        return "failure" if self._fails(place) else "success"

    def occurrences(self, place: int) -> int:
        return int(self._counts[place, _OCCURRENCES])

    def last_seen(self, place: int) -> int:
        return int(self._counts[place, _LAST])

    def standing(self, place: int) -> Standing:
        occurrences, successes, failures, first, last, *types = self._counts[place].tolist()
        task_types = {each: count for each, count in zip(_TASK_TYPES, types, strict=True) if count}
        return Standing(occurrences, successes, failures, first, last, task_types)

    def feedback(self, place: int) -> Counter[Applied]:
        return self._feedback.get(place, Counter())

    def episodes(self, place: int) -> list[int]:
        earlier: list[int] = []
        if place + 1 < len(self._starts):
            earlier = self._episodes[self._starts[place] : self._starts[place + 1]].tolist()
        return earlier + self._later.get(place, [])

    def _are_promoted(self) -> list[bool]:
        """By place."""
        if self._promoted is None:
            counts = self._counts[: len(self._patterns)]
            enough = counts[:, _OCCURRENCES] >= self._needs[: len(counts)]
            found: list[bool] = (enough & ((counts[:, _FAILURES] > 0) | ~self._anti[: len(counts)])).tolist()
            self._promoted = found
        return self._promoted

    def _fails(self, place: int) -> bool:
        counts = self._counts[place]
        return bool(self._anti[place] or (self._context[place] and counts[_FAILURES] > counts[_SUCCESSES]))

    def _strengths_when(self, fading: float) -> list[float]:
        count = len(self._patterns)
        counts, weights = self._counts[:count], self._weights[:count] * fading
        fails = self._anti[:count] | (self._context[:count] & (counts[:, _FAILURES] > counts[:, _SUCCESSES]))
        won = np.where(fails, weights[:, _LOST], weights[:, _WON]) + weights[:, _SAID_FOR]
        found: list[float] = lower_bound(won, weights[:, _ALL] + weights[:, _SAID]).tolist()
        return found

    # --- kept in step ----------------------------------------------------------------------------

    def learn(
        self, episode: int, seen: Seen, patterns: Sequence[int], made: Sequence[PatternRow], earlier: Mapping[int, int]
    ) -> None:
        self._enter(made)
        self.seen[episode] = seen
        for rowid, first in earlier.items():
            self._add([rowid], first)
        self._add(patterns, episode)
        self._as_of = self._promoted = self._all_promoted = None

    def judge(self, rowid: int, said: Sequence[tuple[Applied, int]]) -> None:
        place = self._of_rowid[rowid].place
        self._feedback[place] = Counter(outcome for outcome, _ in said)
        trials = [of_feedback(*each) for each in said]
        weights = [float(faded(self._since - trial.at)) for trial in trials]
        self._weights[place, _SAID_FOR] = sum(trial.won * w for trial, w in zip(trials, weights, strict=True))
        self._weights[place, _SAID] = sum(trial.weight * w for trial, w in zip(trials, weights, strict=True))
        self._as_of = None

    def _add(self, rowids: Sequence[int], episode: int) -> None:
        """One more episode that has these patterns, each named once."""
        seen = self.seen[episode]
        places = np.array([self._of_rowid[rowid].place for rowid in rowids], np.int64)
        counts = self._counts[places]
        new = counts[:, _OCCURRENCES] == 0
        counts[:, _FIRST] = np.where(new, seen.at, np.minimum(counts[:, _FIRST], seen.at))
        counts[:, _LAST] = np.where(new, seen.at, np.maximum(counts[:, _LAST], seen.at))
        counts[:, [_OCCURRENCES, _TYPES + _TASK_TYPE[seen.task_type]]] += 1
        weight = float(faded(self._since - seen.at))
        self._weights[places, _ALL] += weight
        if seen.won or seen.lost:
            counts[:, _SUCCESSES if seen.won else _FAILURES] += 1
            self._weights[places, _WON if seen.won else _LOST] += weight
        self._counts[places] = counts
        for place in places.tolist():
            self._later[place].append(episode)
