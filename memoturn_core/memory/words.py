"""The words of memories, turns and episodes: an index of each table, kept in memory beside the full-text index in the
file.

The file's index says where a word occurs, and is all that is kept there; what is here can be made from it at any time,
and what all indexes of a process hold is bounded by `WordIndex.budget`. Called by `rows`, `turns` and
`memoturn_core.episodes`, which change rows, and by `recall`, `turns` and `memoturn_core.episodes.query`, which search.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import apsw

from memoturn_core.memory.lexicon import Lexicon, occurrences
from memoturn_core.memory.text import ENDING, Term, asks, stems
from memoturn_core.vectors.budget import Budget
from memoturn_storage.handle import Snapshot, Transaction
from memoturn_storage.lookups import Lookups

_BUDGET_BYTES = 128 << 20


class WordIndex:
    """The words of one table's rows. Subclasses name the table, its full-text index, the index's words and columns."""

    table: ClassVar[str]
    index: ClassVar[str]
    vocabulary: ClassVar[str]
    columns: ClassVar[Sequence[str]]
    """The first is what the row says."""
    weights: ClassVar[Sequence[int]]
    """Of the columns: as how many occurrences of a word one there counts."""
    may_ask: ClassVar[bool] = True
    """Whether a row that ends as a question does asks what others answer."""
    budget: ClassVar[Budget] = Budget(_BUDGET_BYTES)
    lookups: ClassVar[Lookups] = Lookups()
    """By searches; a hit had all rows and the postings of all words in memory."""

    def __init__(self) -> None:
        self.used = 0
        # Any thread may take it away, so that whoever works with it takes it from here once. Without it there is
        # nothing to be kept in step, and the next search reads the rows anew.
        self._lexicon: Lexicon | None = None

    @classmethod
    def of(cls, snapshot: Snapshot, terms: Sequence[Term]) -> Lexicon:
        """The rows of this state, with the postings of these words."""
        index: WordIndex = snapshot.cached(cls, lambda _: cls())
        index.used = cls.budget.now()
        known = index._lexicon
        lexicon = known or index._read(snapshot.connection)
        missing = lexicon.missing([stem for term in terms for stem in term])
        cls.lookups.note(known is not None and not missing)
        if missing:
            weights = dict(zip(cls.columns, cls.weights, strict=True))
            found = occurrences(snapshot.connection, cls.vocabulary, missing, weights)
            for stem, rowids in zip(missing, found, strict=True):
                lexicon.learn(stem, rowids)
            cls.budget.make_room(index)
        return lexicon

    def _read(self, connection: apsw.Connection) -> Lexicon:
        weighed = zip(self.columns, self.weights, strict=True)
        length = " + ".join(f"{weight} * octet_length({column})" for column, weight in weighed)
        ending = f"substr(CAST({self.columns[0]} AS BLOB), -{ENDING})"
        rows: list[Any] = connection.execute(
            f"SELECT rowid, session_id, {length}, {ending} FROM {self.table} ORDER BY rowid"
        ).fetchall()
        self._lexicon = lexicon = Lexicon([(*row, self._asks(last)) for *row, last in rows], max(self.weights))
        self.budget.make_room(self)
        return lexicon

    # --- kept in step ----------------------------------------------------------------------------

    @classmethod
    def insert(cls, transaction: Transaction, rowid: int, session: str | None, texts: Sequence[str]) -> None:
        """Enter the words of a row, one text for each of the columns."""
        cls._enter(transaction, rowid, texts)
        transaction.maintain(cls, lambda index: index._insert(rowid, session, texts))

    @classmethod
    def replace(cls, transaction: Transaction, rowid: int, before: Sequence[str], after: Sequence[str]) -> None:
        """Of a row that stays, in its session; `before` are the texts that were entered."""
        cls._take_out(transaction, rowid, before)
        cls._enter(transaction, rowid, after)
        transaction.maintain(cls, lambda index: index._replace(rowid, before, after))

    @classmethod
    def delete(cls, transaction: Transaction, rowid: int, texts: Sequence[str]) -> None:
        """Take them out again; the texts are those that were entered."""
        cls._take_out(transaction, rowid, texts)
        transaction.maintain(cls, lambda index: index._remove(rowid))

    @classmethod
    def _enter(cls, transaction: Transaction, rowid: int, texts: Sequence[str]) -> None:
        transaction.connection.execute(
            f"INSERT INTO {cls.index} (rowid, {', '.join(cls.columns)}) VALUES (?{', ?' * len(texts)})",
            (rowid, *texts),
        )

    @classmethod
    def _take_out(cls, transaction: Transaction, rowid: int, texts: Sequence[str]) -> None:
        transaction.connection.execute(
            f"INSERT INTO {cls.index} ({cls.index}, rowid, {', '.join(cls.columns)})"
            f" VALUES ('delete', ?{', ?' * len(texts)})",
            (rowid, *texts),
        )

    def _insert(self, rowid: int, session: str | None, texts: Sequence[str]) -> None:
        lexicon = self._lexicon
        if lexicon is not None and not lexicon.append(rowid, session, *self._shape(texts), self._stems(texts)):
            self._lexicon = None

    def _replace(self, rowid: int, before: Sequence[str], after: Sequence[str]) -> None:
        lexicon = self._lexicon
        if lexicon is not None:
            lexicon.replace(rowid, *self._shape(after), self._stems(before), self._stems(after))

    def _shape(self, texts: Sequence[str]) -> tuple[int, bool]:
        """How long a row is, and whether it asks."""
        encoded = [text.encode() for text in texts]
        length = sum(weight * len(text) for weight, text in zip(self.weights, encoded, strict=True))
        return length, self._asks(encoded[0][-ENDING:])

    def _stems(self, texts: Sequence[str]) -> list[str]:
        """Each as often as it counts."""
        return [stem for weight, text in zip(self.weights, texts, strict=True) for stem in weight * stems(text)]

    def _asks(self, ending: bytes) -> bool:
        return self.may_ask and asks(ending)

    def _remove(self, rowid: int) -> None:
        lexicon = self._lexicon
        if lexicon is None:
            return
        lexicon.remove(rowid)
        if lexicon.wasteful:
            self._lexicon = None

    # --- within the budget -----------------------------------------------------------------------

    @property
    def nbytes(self) -> int:
        lexicon = self._lexicon
        return 0 if lexicon is None else lexicon.nbytes

    @property
    def complete(self) -> bool:
        return self._lexicon is not None

    def let_go(self) -> None:
        self._lexicon = None


class MemoryWords(WordIndex):
    table = "__memoturn_memories"
    index = "__memoturn_memories_fts"
    vocabulary = "__memoturn_memories_words"
    columns = ("summary", "keywords")
    weights = (1, 1)


class TurnWords(WordIndex):
    table = "__memoturn_turns"
    index = "__memoturn_turns_fts"
    vocabulary = "__memoturn_turns_words"
    columns = ("content",)
    weights = (1,)


class EpisodeWords(WordIndex):
    table = "__memoturn_episodes"
    index = "__memoturn_episodes_fts"
    vocabulary = "__memoturn_episodes_words"
    columns = ("description", "words")
    weights = (4, 1)
    may_ask = False
