"""Learning from an episode that has ended, and forgetting what a deleted one taught.

    unknown    --an episode has it-->          candidate  (or a pattern at once: `Candidate.needs`)
    candidate  --another episode has it-->     pattern    with both as its evidence
    pattern    --another episode has it-->     pattern    with one more; never a twin, for ids are of what is seen
    pattern    --its last episode is deleted--> unknown

The evidence of an episode is one row, of which `patterns` are rowids (4 bytes each, little-endian) and `candidates`
the ids (16 bytes each) that only this episode had when it was learnt: a completion writes that row and what is new,
however much is known. Which episodes a pattern has is read from all rows at once (`known`). Called by the
modules that complete and delete episodes, and by `feedback` and `analysis`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import apsw

from memoturn_core.episodes.experience import Experience
from memoturn_core.episodes.patterns.extraction import Candidate, candidates, longest
from memoturn_core.episodes.patterns.heuristics import heuristic_id, instructs
from memoturn_core.episodes.patterns.known import PatternIndex, Seen, packed, unpacked
from memoturn_core.episodes.patterns.pattern import PatternRow, format_pattern_id
from memoturn_core.memory.identity import canonical_json
from memoturn_core.memory.rows import bound
from memoturn_schemas.episodes import Applied
from memoturn_storage.handle import Transaction

_ID_BYTES = 16


@dataclass(frozen=True, slots=True)
class Learnt:
    """What was found in an episode that is promoted now, and the heuristics that follow from that."""

    pattern_ids: list[str]
    heuristic_ids: list[str]


def learn(transaction: Transaction, rowid: int, experience: Experience) -> Learnt:
    """Keep what the episode has of patterns; an episode that was learnt before is learnt anew.

    What is answered is promoted: of tool sequences the longest (`extraction.longest`), and anti-patterns only where
    the episode failed.
    """
    connection, now = transaction.connection, transaction.ambient.now_ms()
    if connection.execute("SELECT 1 FROM __memoturn_pattern_evidence WHERE episode = ?", (rowid,)).get:
        forget(transaction, rowid)
    found = candidates(experience)
    known = _look_up(connection, "rowid", "__memoturn_patterns", found)
    unknown = [id_ for id_ in found if id_ not in known]
    earlier = _look_up(connection, "episode", "__memoturn_pattern_candidates", unknown)
    promoted = [found[id_] for id_ in unknown if id_ in earlier or found[id_].needs == 1]
    alone = [id_ for id_ in unknown if id_ not in earlier and found[id_].needs > 1]

    made = _make(connection, promoted, experience.context["domain"], now)
    first = {row.rowid: earlier[row.id] for row in made if row.id in earlier}
    _promote(connection, earlier, first)
    seen = Seen(experience.task_type, experience.outcome["type"], min(experience.ended_at, now))
    patterns = [*known.values(), *(row.rowid for row in made)]
    if alone:
        connection.execute(
            "INSERT INTO __memoturn_pattern_candidates (id, episode) SELECT value, ? FROM carray(?)",
            (rowid, apsw.carray(tuple(alone))),
        )
    connection.execute(
        "INSERT INTO __memoturn_pattern_evidence (episode, task_type, outcome, seen_at, patterns, candidates)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        (rowid, *seen, packed(patterns), b"".join(alone)),
    )
    transaction.maintain(PatternIndex, lambda index: index.learn(rowid, seen, patterns, made, first))
    return _learnt(experience, [*map(found.__getitem__, known), *promoted])


def forget(transaction: Transaction, rowid: int) -> None:
    """Remove an episode's evidence, and the patterns, with their feedback, that no evidence is left of."""
    connection = transaction.connection
    row: Any = connection.execute(
        "SELECT patterns, candidates FROM __memoturn_pattern_evidence WHERE episode = ?", (rowid,)
    ).fetchone()
    if row is None:
        return
    patterns, ids = row
    connection.execute("DELETE FROM __memoturn_pattern_evidence WHERE episode = ?", (rowid,))
    if ids:
        alone = tuple(ids[start : start + _ID_BYTES] for start in range(0, len(ids), _ID_BYTES))
        connection.execute(
            "DELETE FROM __memoturn_pattern_candidates WHERE id IN carray(?) AND episode = ?",
            (apsw.carray(alone), rowid),
        )
    _remove(connection, _without_evidence(connection, unpacked(patterns)))
    transaction.maintain(PatternIndex, PatternIndex.let_go)


def drop(transaction: Transaction, patterns: Iterable[int]) -> None:
    """Delete patterns with their evidence and feedback: they are unknown from then on, whatever episode had them."""
    dropped = set(patterns)
    if not dropped:
        return
    connection = transaction.connection
    rows: Any = connection.execute("SELECT episode, patterns FROM __memoturn_pattern_evidence").fetchall()
    for episode, held in rows:
        kept = [each for each in unpacked(held) if each not in dropped]
        if len(packed(kept)) < len(held):
            connection.execute(
                "UPDATE __memoturn_pattern_evidence SET patterns = ? WHERE episode = ?", (packed(kept), episode)
            )
    _remove(connection, dropped)
    transaction.maintain(PatternIndex, PatternIndex.let_go)


def judged(transaction: Transaction, patterns: Iterable[int]) -> None:
    """Whoever changes feedback calls this afterwards, with the rowids of the patterns that it was about."""
    said: dict[int, list[tuple[Applied, int]]] = {rowid: [] for rowid in patterns}
    if not said:
        return
    rows: Any = transaction.connection.execute(
        "SELECT pattern, outcome, said_at FROM __memoturn_pattern_feedback WHERE pattern IN carray(?)", (bound(said),)
    )
    for rowid, outcome, said_at in rows:
        said[rowid].append((outcome, said_at))
    transaction.maintain(PatternIndex, lambda index: index.judge(said))


def _look_up(connection: apsw.Connection, column: str, table: str, ids: Iterable[bytes]) -> dict[bytes, int]:
    """The column of those that are there."""
    wanted = tuple(ids)
    if not wanted:
        return {}
    rows: Any = connection.execute(
        f"SELECT id, known.{column} FROM carray(?) CROSS JOIN {table} AS known ON id = value", (apsw.carray(wanted),)
    )
    return dict(rows)


def _make(connection: apsw.Connection, promoted: Sequence[Candidate], domain: str, now: int) -> list[PatternRow]:
    """Enter new patterns, under the next rowids."""
    if not promoted:
        return []
    last: Any = connection.execute("SELECT coalesce(max(rowid), 0) FROM __memoturn_patterns").get
    made = [
        PatternRow(rowid, each.id, each.kind, domain, canonical_json(each.body), each.needs, now)
        for rowid, each in enumerate(promoted, start=last + 1)
    ]
    connection.executemany(
        "INSERT INTO __memoturn_patterns (rowid, id, kind, domain, body, needs, created_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        made,
    )
    return made


def _promote(connection: apsw.Connection, candidates: Mapping[bytes, int], first: Mapping[int, int]) -> None:
    """What were candidates are evidence, as patterns, of the episodes that had them first."""
    if not candidates:
        return
    connection.execute(
        "DELETE FROM __memoturn_pattern_candidates WHERE id IN carray(?)", (apsw.carray(tuple(candidates)),)
    )
    of_episode: dict[int, list[int]] = defaultdict(list)
    for pattern, episode in first.items():
        of_episode[episode].append(pattern)
    connection.executemany(
        "UPDATE __memoturn_pattern_evidence SET patterns = CAST(patterns || ? AS BLOB) WHERE episode = ?",
        [(packed(patterns), episode) for episode, patterns in of_episode.items()],
    )


def _without_evidence(connection: apsw.Connection, patterns: Iterable[int]) -> set[int]:
    """Those that no episode has; mostly the newest ones show soon that there are none."""
    left = set(patterns)
    rows: Any = connection.execute("SELECT patterns FROM __memoturn_pattern_evidence ORDER BY episode DESC")
    for (held,) in rows:
        if not left:
            break
        left.difference_update(unpacked(held))
    return left


def _remove(connection: apsw.Connection, patterns: set[int]) -> None:
    if patterns:
        connection.execute("DELETE FROM __memoturn_pattern_feedback WHERE pattern IN carray(?)", (bound(patterns),))
        connection.execute("DELETE FROM __memoturn_patterns WHERE rowid IN carray(?)", (bound(patterns),))


def _learnt(experience: Experience, promoted: Iterable[Candidate]) -> Learnt:
    outcome = experience.outcome["type"]
    counted = [each for each in promoted if each.kind != "anti_pattern" or outcome == "failure"]
    sequences = longest(each.body["tools"] for each in counted if each.kind == "tool_sequence")
    told = [each for each in counted if each.kind != "tool_sequence" or tuple(each.body["tools"]) in sequences]
    return Learnt(
        [format_pattern_id(each.id) for each in told],
        [heuristic_id(each.id) for each in told if instructs(each.kind, outcome)],
    )
