"""The rows of episodes: one that is created, goes on and ends, and what is asked of ten thousand of them.

Called by `engine`: in process, and through `invoke` but for `_engine`, which is what is below it. The bound of a write
is what it leaves, written with plain apsw into a copy of the file in one transaction: the row, its words and tags; a
step; the row again, its other words, and the evidence. That of a search is a full-text query, and the rows found.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any, cast

import apsw
from pydantic_core import from_json

from benchmarks.measure import VOCABULARY, Row, Texts, timed
from memoturn_core.episodes import episodes, steps
from memoturn_core.episodes.completion import complete as complete_row
from memoturn_core.episodes.reward import Typical
from memoturn_core.episodes.rows import EpisodeRow, as_text, parse_episode_id, steps_of, steps_range
from memoturn_schemas.episodes import CreateEpisodeRequest, NewStep, Outcome
from memoturn_storage.connection import open_database
from memoturn_storage.handle import Transaction
from memoturn_storage.local import LocalFiles
from memoturn_storage.manifest import BranchRef

if TYPE_CHECKING:
    from benchmarks.engine import Bench

EPISODES = 10_000
QUICK_COPIES = 5
"""How often each episode is there where time is short: most of a corpus's time goes into judging it."""
STEPS = 20
"""Of the episodes that are completed one by one."""
TYPICAL = Typical(60.0, 12.0)

_DOMAINS = "web-api payments mobile infra search data-pipeline auth billing".split()
_LANGUAGES = ("python", "typescript", "go", None)
_TOOLS = (
    "grep read_file edit_file run_tests bash git_diff git_commit lint type_check build deploy sql_query http_get"
    " profile docs_search ask_user"
).split()
_ERRORS = (
    "AssertionError: expected 0 but got {0} in /src/{1}/handler_{0}.py",
    "ModuleNotFoundError: No module named '{1}'",
    "TimeoutError: no answer from http://10.0.0.1:{0}/{1} after 30 s",
    'UniqueViolation: duplicate key value {0} violates unique constraint "{1}_pkey"',
    "error TS2345: Argument of type '{1}' is not assignable at line {0}",
)
_TYPES = ("code_generation", "debugging", "refactoring", "testing", "analysis", "documentation")


class Work:
    """A reproducible stream of episodes of 120 families: of a family are the domain, the type and mostly the tools."""

    def __init__(self, seed: int) -> None:
        self._chance = chance = random.Random(seed)
        self._texts = Texts(seed)
        self._phrases = [self._texts.words(8) for _ in range(2_000)]
        self._families: list[dict[str, Any]] = [
            {
                "domain": chance.choice(_DOMAINS),
                "task_type": chance.choice(_TYPES),
                "language": chance.choice(_LANGUAGES),
                "tags": [f"team-{chance.randrange(12)}", f"{chance.choice(VOCABULARY)}-service"],
                "about": self._texts.words(4),
                "tools": chance.choices(_TOOLS, k=STEPS),
            }
            for _ in range(120)
        ]

    def query(self) -> str:
        return f"{self._chance.choice(self._families)['about']} {self._texts.words(3)}"

    def episode(self, length: int | None = None) -> dict[str, Any]:
        """A whole one, of 5 to 20 steps."""
        chance = self._chance
        family = chance.choice(self._families)
        length = chance.randint(5, STEPS) if length is None else length
        verdict, artifacts = chance.choice(self._phrases), ["src/a.py", "tests/test_a.py"]
        succeeded = {"type": "success", "verdict": verdict, "artifacts": artifacts}
        return {
            **{name: family[name] for name in ("domain", "task_type", "language", "tags")},
            "task_description": f"{family['about']} {self._texts.words(10)}",
            "steps": [self._step(family["tools"][place]) for place in range(length)],
            "outcome": succeeded if chance.random() < 0.8 else {"type": "failure", "reason": verdict},
        }

    def _step(self, tool: str) -> dict[str, Any]:
        chance = self._chance
        phrase, other, number = chance.choice(self._phrases), chance.choice(self._phrases), chance.randrange(9_000)
        result = {"type": "success", "output": f"{phrase} {other}"}
        if chance.random() < 0.1:
            result = {"type": "error", "message": chance.choice(_ERRORS).format(number, phrase.split()[0])}
        return {
            "tool": chance.choice(_TOOLS) if chance.random() < 0.15 else tool,
            "action": f"{'chose' if chance.random() < 0.05 else 'looked at'} {other}",
            "parameters": {"path": f"src/{phrase.split()[0]}/{number}.py", "limit": number},
            "result": result,
            "latency_ms": number,
        }


def begun(whole: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in whole.items() if name not in ("steps", "outcome")}


# --- in process ----------------------------------------------------------------------------------


async def rows(bench: Bench, *, quick: bool) -> list[Row]:
    n = 100 if quick else 1_000
    measured = []
    for label, there in (("1k", EPISODES // 10), ("10k", EPISODES)):
        asked = Asked(bench, f"episodes-{label}")
        await _fill(bench, asked.profile, asked.work, there, QUICK_COPIES if quick else 1)
        asked.look()
        measured.append(await asked.query(f"query_memory_{label}", n))
    measured += [await asked.recommend("recommend_10k", n), await asked.playbook("playbook_10k", n)]
    return [*measured, *await Lives(bench, asked.profile, asked.work, n).rows()]


def _ref(bench: Bench, profile: str) -> BranchRef:
    entry = bench.node.catalog.known(f"bench--{profile}")
    if entry is None:
        raise LookupError(profile)
    return BranchRef(entry.uuid)


async def _fill(bench: Bench, profile: str, work: Work, count: int, copies: int) -> None:
    """`count` episodes, of which each is there so many times."""
    made = count // copies
    for _ in range(made // 100):
        await bench.call("bulk_episodes", profile, {"episodes": [work.episode() for _ in range(100)]})

    def copy(transaction: Transaction) -> None:
        for number in range(1, copies):
            transaction.connection.execute(_COPY, {"more": number * made, "made": made}).fetchall()
        transaction.rewrite()

    bench.node.engine.write(_ref(bench, profile), copy).result()


_COPY = """
INSERT INTO __memoturn_episodes
  SELECT rowid + :more, randomblob(16), task_type, domain, session_id, started_at, ended_at, step_count, outcome,
    reward, quality, source, description, words, body FROM __memoturn_episodes WHERE rowid <= :made;
INSERT INTO __memoturn_episode_steps
  SELECT rowid + (:more << 20), size, body FROM __memoturn_episode_steps WHERE rowid < (:made + 1) << 20;
INSERT INTO __memoturn_episode_tags
  SELECT tag, episode + :more FROM __memoturn_episode_tags WHERE episode <= :made;
INSERT INTO __memoturn_episodes_fts (rowid, description, words)
  SELECT rowid, description, words FROM __memoturn_episodes WHERE rowid > :more;
INSERT INTO __memoturn_pattern_evidence
  SELECT episode + :more, task_type, outcome, seen_at, patterns, x'' FROM __memoturn_pattern_evidence
  WHERE episode <= :made;
"""


class Asked:
    """What is asked of a profile, and the least that has to be read of its file for it."""

    def __init__(self, bench: Bench, profile: str) -> None:
        self.bench = bench
        self.profile = profile
        self.work = Work(seed=17)

    def look(self) -> None:
        """At what is there now."""
        self._queries = [self.work.query() for _ in range(64)]
        files = LocalFiles(self.bench.directory / "databases", _ref(self.bench, self.profile))
        self._raw = open_database(files.database)

    async def query(self, row: str, n: int) -> Row:
        async def operation(index: int) -> None:
            await self.bench.call("query_memory", self.profile, {"query": self._queries[index % 64]})

        return await timed(row, n, operation, lambda index: self._rows(self._found(index, 30)[:10]))

    async def recommend(self, row: str, n: int) -> Row:
        async def operation(index: int) -> None:
            task = {"task_description": self._queries[index % 64]}
            await self.bench.call("recommend_patterns", self.profile, task)

        def bound(index: int) -> None:
            found = self._found(index, 20)
            self._raw.execute(f"SELECT patterns FROM __memoturn_pattern_evidence WHERE {_among(found)}").fetchall()
            self._rows(found[:10])

        return await timed(row, n, operation, bound)

    async def playbook(self, row: str, n: int) -> Row:
        async def operation(index: int) -> None:
            task = {"task_description": self._queries[index % 64]}
            await self.bench.call("recommend_playbook", self.profile, task)

        def bound(index: int) -> None:
            found = self._found(index, 30)
            self._raw.execute(f"SELECT patterns FROM __memoturn_pattern_evidence WHERE {_among(found)}").fetchall()
            self._rows(found)
            for rowid in found[:8]:
                steps_of(self._raw, rowid)

        return await timed(row, n, operation, bound)

    def _found(self, index: int, count: int) -> list[int]:
        words = " OR ".join(f'"{word}"' for word in self._queries[index % 64].split())
        found: list[Any] = self._raw.execute(
            "SELECT rowid FROM __memoturn_episodes_fts WHERE __memoturn_episodes_fts MATCH ? ORDER BY rank LIMIT ?",
            (words, count),
        ).fetchall()
        return [rowid for (rowid,) in found]

    def _rows(self, rowids: Sequence[int]) -> None:
        for (body,) in self._raw.execute(f"SELECT body FROM __memoturn_episodes WHERE {_among(rowids, 'rowid')}"):
            from_json(str(body))


def _among(rowids: Sequence[int], column: str = "episode") -> str:
    return f"{column} IN ({','.join(map(str, rowids))})"


class Lives:
    """Episodes from beginning to end through `invoke`, and for each a twin that only the engine is told of."""

    def __init__(self, bench: Bench, profile: str, work: Work, n: int) -> None:
        self._bench, self._profile, self._n = bench, profile, n
        self._ref = _ref(bench, profile)
        self._wholes = [work.episode(STEPS) for _ in range(n + max(1, n // 10))]
        self._ids = [""] * len(self._wholes)
        self._twins = [
            episodes.prepare(CreateEpisodeRequest.model_validate(begun(each)), bench.node.ambient)
            for each in self._wholes
        ]

    async def rows(self) -> list[Row]:
        return [*await self._created(), *await self._stepped(), *await self._completed()]

    async def _created(self) -> list[Row]:
        raw = Raw(self._bench, self._profile)

        async def create(index: int) -> None:
            answer = await self._bench.call("create_episode", self._profile, begun(self._wholes[index]))
            self._ids[index] = answer["episode_id"]

        async def keep(index: int) -> None:
            self._engine(lambda transaction: episodes.keep(transaction, self._twins[index], None, None, given=False))

        def bound(index: int) -> None:
            raw.create(self._twins[index])

        through = await timed("episode_create", self._n, create, bound)
        return [through, replace(await timed("episode_create_engine", self._n, keep, None), bound_us=through.bound_us)]

    async def _stepped(self) -> list[Row]:
        """Of each episode its eleventh step is timed."""
        timed_step = STEPS // 2
        prepared = [
            [steps.prepare(NewStep.model_validate(step), self._bench.node.ambient.now_ms()) for step in whole["steps"]]
            for whole in self._wholes
        ]

        def add(keys: Sequence[bytes], places: range) -> None:
            for key, of_episode in zip(keys, prepared, strict=True):
                for place in places:
                    self._engine(partial(steps.add, key=key, step=of_episode[place]))

        both = [[parse_episode_id(id_) for id_ in self._ids], [row.id for row in self._twins]]
        for keys in both:
            add(keys, range(timed_step))
        raw = Raw(self._bench, self._profile)

        async def through(index: int) -> None:
            step = self._wholes[index]["steps"][timed_step]
            await self._bench.call("add_step", self._profile, {"episode_id": self._ids[index], **step})

        async def below(index: int) -> None:
            self._engine(partial(steps.add, key=self._twins[index].id, step=prepared[index][timed_step]))

        def bound(index: int) -> None:
            raw.add(self._twins[index].id, prepared[index][timed_step].body)

        row = await timed("episode_step", self._n, through, bound)
        measured = [row, replace(await timed("episode_step_engine", self._n, below, None), bound_us=row.bound_us)]
        for keys in both:
            add(keys, range(timed_step + 1, STEPS))
        return measured

    async def _completed(self) -> list[Row]:
        """The twins first: what that leaves in the file, the bound writes."""
        raw = Raw(self._bench, self._profile)
        before = [EpisodeRow.one(raw.connection, row.episode_id) for row in self._twins]

        async def below(index: int) -> None:
            outcome = cast("Outcome", self._wholes[index]["outcome"])

            def work(transaction: Transaction) -> None:
                row = EpisodeRow.one(transaction.connection, self._twins[index].episode_id)
                lived = steps_of(transaction.connection, row.rowid)
                complete_row(transaction, row, lived, outcome, transaction.ambient.now_ms(), TYPICAL)

            self._engine(work)

        async def through(index: int) -> None:
            ending = {"episode_id": self._ids[index], "outcome": self._wholes[index]["outcome"]}
            await self._bench.call("complete_episode", self._profile, ending)

        row = await timed("episode_complete_engine", self._n, below, None)
        now = Raw(self._bench, self._profile).connection
        after = [EpisodeRow.one(now, row.episode_id) for row in self._twins]
        learnt: list[Any] = [
            now.execute("SELECT patterns, candidates FROM __memoturn_pattern_evidence WHERE episode = ?", (each.rowid,))
            .fetchone()
            for each in after
        ]  # fmt: skip
        completed = await timed(
            "episode_complete", self._n, through, lambda index: raw.complete(before[index], after[index], learnt[index])
        )
        return [completed, replace(row, bound_us=completed.bound_us)]

    def _engine(self, work: Callable[[Transaction], object]) -> None:
        self._bench.node.engine.write(self._ref, work).result()


class Raw:
    """A copy of the profile's file, written with plain apsw."""

    _copies = count()

    def __init__(self, bench: Bench, profile: str) -> None:
        original = open_database(LocalFiles(bench.directory / "databases", _ref(bench, profile)).database)
        path = bench.directory / f"{profile}-bound-{next(self._copies)}.db"
        path.write_bytes(original.serialize("main"))
        original.close()
        self.connection = open_database(path)

    def create(self, row: EpisodeRow) -> None:
        with self._transaction() as execute:
            execute(
                "INSERT INTO __memoturn_episodes (id, task_type, domain, description, words, started_at, body)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                (row.id, row.task_type, row.domain, row.description, row.words, row.started_at, as_text(row.body)),
            )
            rowid = self.connection.last_insert_rowid()
            self._enter(rowid, row.description, row.words)
            for tag in row.tags:
                execute("INSERT INTO __memoturn_episode_tags VALUES (?, ?)", (tag, rowid))

    def add(self, key: bytes, body: str) -> None:
        with self._transaction() as execute:
            rowid: Any = execute("SELECT rowid FROM __memoturn_episodes WHERE id = ?", (key,)).get
            last: Any = execute(
                "SELECT max(rowid) FROM __memoturn_episode_steps WHERE rowid BETWEEN ? AND ?", steps_range(rowid)
            ).get
            execute("INSERT INTO __memoturn_episode_steps VALUES (?, ?, ?)", (last + 1, len(body), body))

    def complete(self, before: EpisodeRow, after: EpisodeRow, learnt: tuple[bytes, bytes]) -> None:
        patterns, candidates = learnt
        with self._transaction() as execute:
            execute("SELECT * FROM __memoturn_episodes WHERE id = ?", (before.id,)).fetchall()
            steps_of(self.connection, before.rowid)
            execute(
                "UPDATE __memoturn_episodes SET words = ?, ended_at = 1, step_count = ?, outcome = ?, reward = ?,"
                " quality = ?, body = ? WHERE rowid = ?",
                (
                    after.words, after.step_count, after.outcome, after.reward, after.quality, as_text(after.body),
                    before.rowid,
                ),
            )  # fmt: skip
            self._take_out(before.rowid, before.description, before.words)
            self._enter(before.rowid, after.description, after.words)
            execute(
                "INSERT INTO __memoturn_pattern_evidence VALUES (?, ?, ?, 1, ?, ?)",
                (before.rowid, after.task_type, after.outcome, patterns, candidates),
            )
            for start in range(0, len(candidates), 16):
                execute(
                    "INSERT OR REPLACE INTO __memoturn_pattern_candidates VALUES (?, ?)",
                    (candidates[start : start + 16], before.rowid),
                )

    @contextmanager
    def _transaction(self) -> Iterator[Callable[..., apsw.Cursor]]:
        execute = self.connection.execute
        execute("BEGIN IMMEDIATE")
        yield execute
        execute("UPDATE __memoturn_txid SET txid = txid + 1")
        execute("COMMIT")

    def _enter(self, rowid: int, *texts: str) -> None:
        self.connection.execute(
            "INSERT INTO __memoturn_episodes_fts (rowid, description, words) VALUES (?, ?, ?)", (rowid, *texts)
        )

    def _take_out(self, rowid: int, *texts: str) -> None:
        self.connection.execute(
            "INSERT INTO __memoturn_episodes_fts (__memoturn_episodes_fts, rowid, description, words)"
            " VALUES ('delete', ?, ?, ?)",
            (rowid, *texts),
        )
