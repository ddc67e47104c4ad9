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
from memoturn_storage.lookups import Lookups

_BUDGET_BYTES = 128 << 20
_PATTERN_BYTES, _EPISODE_BYTES = 1_900, 250
"""Of memory, about, where patterns were searched: measured, Python 3.11."""

_SUCCEEDED: frozenset[OutcomeType] = frozenset({"success", "partial_success"})
_TASK_TYPES: tuple[TaskType, ...] = get_args(TaskType)
_TASK_TYPE = {task_type: number for number, task_type in enumerate(_TASK_TYPES)}

_KINDS: tuple[PatternKind, ...] = get_args(PatternKind)
_KIND = {kind: number for number, kind in enumerate(_KINDS)}

_ROWIDS = np.dtype("<i4")
"""How an episode's evidence holds the rowids of its patterns."""
_NOBODY = -1

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


def strongest_in(snapshot: Snapshot, episodes: Iterable[int], count: int) -> list[tuple[Pattern, set[int]]]:
    """The strongest of what is promoted of what these episodes have, each with those of them that have it.

    Of equally strong ones those come first that more of the episodes have, and then the older.
    """
    known = PatternIndex.of(snapshot)
    held = {episode: known.places(rowids) for episode, rowids in evidence_of(snapshot.connection, episodes)}
    places, times = np.unique(np.concatenate([known.places(()), *held.values()]), return_counts=True)
    promoted = known.are_promoted[places]
    places, times = places[promoted], times[promoted]
    first = places[np.lexsort((places, -times, -known.strengths[places]))[:count]]
    having = {episode: set(of_episode.tolist()) for episode, of_episode in held.items()}
    return [
        (known.pattern(place), {episode for episode, of_episode in having.items() if place in of_episode})
        for place in first.tolist()
    ]


def evidence_of(connection: apsw.Connection, episodes: Iterable[int]) -> list[tuple[int, Ints]]:
    """Those of the episodes that were learnt from, with the rowids of all patterns that they have."""
    rows: Any = connection.execute(
        "SELECT episode, patterns FROM __memoturn_pattern_evidence WHERE episode IN carray(?)",
        (apsw.carray(array("q", [_NOBODY, *episodes])),),
    )
    return [(episode, np.frombuffer(held, _ROWIDS).astype(np.int64)) for episode, held in rows]


def unpacked(rowids: bytes) -> list[int]:
    found: list[int] = np.frombuffer(rowids, _ROWIDS).tolist()
    return found


def packed(rowids: Sequence[int]) -> bytes:
    return np.array(rowids, _ROWIDS).tobytes()


class PatternIndex:
    """What `Snapshot.cached` has: the patterns, or nothing where they are to be read anew."""

    budget = Budget(_BUDGET_BYTES)
    """Of all profiles of a process together."""
    lookups = Lookups()

    def __init__(self) -> None:
        self.used = 0
        self._known: Known | None = None  # any thread may take it away

    @classmethod
    def of(cls, snapshot: Snapshot) -> Known:
        """With strengths as of now."""
        index: PatternIndex = snapshot.cached(cls, lambda _: cls())
        index.used = cls.budget.now()
        known, now = index._known, snapshot.ambient.now_ms()
        cls.lookups.note(known is not None)
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


_TIMES = np.iinfo(np.int64)
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
        self._since = self._now = now
        self._rows: list[PatternRow] = []
        self._patterns: dict[int, Pattern] = {}
        """By place; those that somebody asked for."""
        self._of_id: dict[bytes, int] = {}
        self._feedback: dict[int, Counter[Applied]] = {}
        self._domains: dict[str, int] = {}
        self._rowid: Ints = np.zeros(0, np.int64)
        self._domain: Ints = np.zeros(0, np.int64)
        self._kind: Ints = np.zeros(0, np.int64)
        self._needs: Ints = np.zeros(0, np.int64)
        self._counts: Ints = np.zeros((0, _TYPES + len(_TASK_TYPES)), np.int64, order="F")  # read by columns
        self._weights: Floats = np.zeros((0, 5), order="F")
        # Worked out when they are asked for, and until something changes:
        self._strengths: Floats | None = None
        self._are_promoted: Flags | None = None
        self._are_failing: Flags | None = None
        self._all_promoted: list[Pattern] | None = None
        self._enter(rows)
        self._count(evidence)
        self._hear(connection)

    def _enter(self, rows: Sequence[PatternRow]) -> None:
        if not rows:
            return
        new = slice(len(self._rows), len(self._rows) + len(rows))
        self._rows += rows
        missing = len(self._rows) - len(self._needs)
        if missing > 0:
            room = missing + len(self._needs) // 2
            for name in ("_rowid", "_domain", "_kind", "_needs", "_counts", "_weights"):
                held = getattr(self, name)
                setattr(self, name, np.concatenate([held, np.zeros((room, *held.shape[1:]), held.dtype, "F")]))
        rowids, ids, kinds, domains, _, needs, _ = zip(*rows, strict=True)
        self._of_id.update(zip(ids, range(new.start, new.stop), strict=True))
        self._rowid[new], self._needs[new] = rowids, needs
        self._kind[new] = [_KIND[kind] for kind in kinds]
        self._domain[new] = [self._domains.setdefault(domain, len(self._domains)) for domain in domains]
        self._counts[new, _FIRST], self._counts[new, _LAST] = _TIMES.max, _TIMES.min

    def _count(self, evidence: Sequence[tuple[Any, ...]]) -> None:
        """What `_add` would come to for each episode, for all at once."""
        count = len(self._rows)
        held = np.frombuffer(b"".join(patterns for _, patterns, *_ in evidence), _ROWIDS)
        which = np.repeat(np.arange(len(evidence)), [len(patterns) // _ROWIDS.itemsize for _, patterns, *_ in evidence])
        places = self.places(held)
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
        return _PATTERN_BYTES * len(self._rows) + _EPISODE_BYTES * len(self.seen) + 8 * episodes

    # --- reading ---------------------------------------------------------------------------------

    def all_promoted(self, task_type: TaskType | None = None) -> list[Pattern]:
        """In the order in which they were entered; of a task type, what was seen in such tasks at all."""
        if task_type is not None:
            return self._at(self.are_promoted & self.seen_in(task_type))
        if self._all_promoted is None:
            self._all_promoted = self._at(self.are_promoted)
        return self._all_promoted

    def of_rowids(self, rowids: Iterable[int]) -> list[Pattern]:
        return [self.pattern(place) for place in self.places(list(rowids)).tolist()]

    def of_id(self, id_: bytes) -> Pattern | None:
        place = self._of_id.get(id_)
        return None if place is None else self.pattern(place)

    def pattern(self, place: int) -> Pattern:
        found = self._patterns.get(place)
        if found is None:
            found = self._patterns[place] = Pattern(self, place, self._rows[place])
        return found

    def places(self, rowids: Any) -> Ints:
        """Of patterns that are here."""
        return self._rowid[: len(self._rows)].searchsorted(np.asarray(rowids, np.int64))

    def weigh(self, now: int) -> None:
        """Have the strengths be those of this time."""
        if self._now != now:
            self._now, self._strengths = now, None

    # By place:

    @property
    def strengths(self) -> Floats:
        if self._strengths is None:
            self._strengths = self._strengths_when(float(faded(self._now - self._since)))
        return self._strengths

    @property
    def are_promoted(self) -> Flags:
        if self._are_promoted is None:
            counts = self._counts[: len(self._rows)]
            enough = counts[:, _OCCURRENCES] >= self._needs[: len(counts)]
            self._are_promoted = enough & ((counts[:, _FAILURES] > 0) | ~self.of_kinds(["anti_pattern"]))
        return self._are_promoted

    @property
    def are_failing(self) -> Flags:
        """Which go with failure."""
        if self._are_failing is None:
            counts = self._counts[: len(self._rows)]
            more = counts[:, _FAILURES] > counts[:, _SUCCESSES]
            self._are_failing = self.of_kinds(["anti_pattern"]) | (self.of_kinds(["context_pattern"]) & more)
        return self._are_failing

    def of_kinds(self, kinds: Iterable[PatternKind]) -> Flags:
        wanted = np.zeros(len(_KINDS), np.bool_)
        wanted[[_KIND[kind] for kind in kinds]] = True
        return wanted[self._kind[: len(self._rows)]]

    def of_domain(self, domain: str | None) -> Flags:
        return np.asarray(self._domain[: len(self._rows)] == self._domains.get(domain or "", _NOBODY))

    def seen_in(self, task_type: TaskType) -> Flags:
        return np.asarray(self._counts[: len(self._rows), _TYPES + _TASK_TYPE[task_type]] > 0)

    # As a `Ledger`:

    def strength(self, place: int) -> float:
        return float(self.strengths[place])

    def undecayed(self, place: int) -> float:
        """What the strength would be if nothing had faded."""
        standing = self.standing(place)
        trials = [of_feedback(outcome, 0) for outcome in self.feedback(place).elements()]
        won = (standing.failures if self.are_failing[place] else standing.successes) + sum(
            trial.won for trial in trials
        )
        return float(lower_bound(won, standing.occurrences + sum(trial.weight for trial in trials)))

    def promoted(self, place: int) -> bool:
        return bool(self.are_promoted[place])

    def goes_with(self, place: int) -> Literal["success", "failure"]:
        return "failure" if self.are_failing[place] else "success"

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

    def _at(self, places: Flags) -> list[Pattern]:
        return [self.pattern(place) for place in np.flatnonzero(places).tolist()]

    def _strengths_when(self, fading: float) -> Floats:
        weights = self._weights[: len(self._rows)]
        won = np.where(self.are_failing, weights[:, _LOST], weights[:, _WON]) + weights[:, _SAID_FOR]
        return lower_bound(won * fading, (weights[:, _ALL] + weights[:, _SAID]) * fading)

    # --- kept in step ----------------------------------------------------------------------------

    def learn(
        self, episode: int, seen: Seen, patterns: Sequence[int], made: Sequence[PatternRow], earlier: Mapping[int, int]
    ) -> None:
        self._enter(made)
        self.seen[episode] = seen
        self._add([*earlier, *patterns], [*earlier.values(), *[episode] * len(patterns)])
        self._strengths = self._are_promoted = self._are_failing = self._all_promoted = None

    def judge(self, rowid: int, said: Sequence[tuple[Applied, int]]) -> None:
        place = int(self.places(rowid))
        self._feedback[place] = Counter(outcome for outcome, _ in said)
        trials = [of_feedback(*each) for each in said]
        weights = [float(faded(self._since - trial.at)) for trial in trials]
        self._weights[place, _SAID_FOR] = sum(trial.won * w for trial, w in zip(trials, weights, strict=True))
        self._weights[place, _SAID] = sum(trial.weight * w for trial, w in zip(trials, weights, strict=True))
        self._strengths = None

    def _add(self, rowids: Sequence[int], episodes: Sequence[int]) -> None:
        """Pairs of a pattern and one more episode that has it."""
        seen, places = [self.seen[episode] for episode in episodes], self.places(rowids)
        at = np.array([each.at for each in seen], np.int64)
        won = np.array([each.won for each in seen], np.bool_)
        lost = np.array([each.lost for each in seen], np.bool_)
        types = np.array([_TYPES + _TASK_TYPE[each.task_type] for each in seen], np.int64)
        np.minimum.at(self._counts[:, _FIRST], places, at)
        np.maximum.at(self._counts[:, _LAST], places, at)
        for column, more in ((_OCCURRENCES, 1), (_SUCCESSES, won), (_FAILURES, lost)):
            np.add.at(self._counts[:, column], places, more)
        np.add.at(self._counts, (places, types), 1)
        weights = faded(self._since - at.astype(np.float64))
        for column, more in ((_ALL, weights), (_WON, weights * won), (_LOST, weights * lost)):
            np.add.at(self._weights[:, column], places, more)
        for place, episode in zip(places.tolist(), episodes, strict=True):
            self._later[place].append(episode)
