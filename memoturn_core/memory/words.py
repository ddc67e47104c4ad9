"""The words of memories and of turns: an index of each table, kept in memory beside the full-text index in the file.

The file's index says where a word occurs, and is all that is kept there; what is here can be made from it at any time,
and what all indexes of a process hold is bounded by `WordIndex.budget`. Called by `rows` and `turns`, which change
rows, and by `recall` and `turns`, which search.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import apsw

from memoturn_core.memory.lexicon import Lexicon, occurrences
from memoturn_core.memory.text import ENDING, Term, asks, stems
from memoturn_core.vectors.budget import Budget
from memoturn_storage.handle import Snapshot, Transaction

_BUDGET_BYTES = 128 << 20


class WordIndex:
    """The words of one table's rows. Subclasses name the table, its full-text index, the index's words and columns."""

    table: ClassVar[str]
    index: ClassVar[str]
    vocabulary: ClassVar[str]
    columns: ClassVar[Sequence[str]]
    """The first is what the row says."""
    budget: ClassVar[Budget] = Budget(_BUDGET_BYTES)

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
        lexicon = index._lexicon or index._read(snapshot.connection)
        missing = lexicon.missing([stem for term in terms for stem in term])
        if missing:
            for stem, rowids in zip(missing, occurrences(snapshot.connection, cls.vocabulary, missing), strict=True):
                lexicon.learn(stem, rowids)
            cls.budget.make_room(index)
        return lexicon

    def _read(self, connection: apsw.Connection) -> Lexicon:
        length = " + ".join(f"octet_length({column})" for column in self.columns)
        ending = f"substr(CAST({self.columns[0]} AS BLOB), -{ENDING})"
        rows: list[Any] = connection.execute(
            f"SELECT rowid, session_id, {length}, {ending} FROM {self.table} ORDER BY rowid"
        ).fetchall()
        self._lexicon = lexicon = Lexicon([(*row, asks(last)) for *row, last in rows])
        self.budget.make_room(self)
        return lexicon

    # --- kept in step ----------------------------------------------------------------------------

    @classmethod
    def insert(cls, transaction: Transaction, rowid: int, session: str | None, texts: Sequence[str]) -> None:
        """Enter the words of a row, one text for each of the columns."""
        transaction.connection.execute(
            f"INSERT INTO {cls.index} (rowid, {', '.join(cls.columns)}) VALUES (?{', ?' * len(texts)})",
            (rowid, *texts),
        )
        transaction.maintain(cls, lambda index: index._insert(rowid, session, texts))

    @classmethod
    def delete(cls, transaction: Transaction, rowid: int, texts: Sequence[str]) -> None:
        """Take them out again; the texts are those that were entered."""
        transaction.connection.execute(
            f"INSERT INTO {cls.index} ({cls.index}, rowid, {', '.join(cls.columns)})"
            f" VALUES ('delete', ?{', ?' * len(texts)})",
            (rowid, *texts),
        )
        transaction.maintain(cls, lambda index: index._remove(rowid))

    def _insert(self, rowid: int, session: str | None, texts: Sequence[str]) -> None:
        lexicon = self._lexicon
        if lexicon is None:
            return
        encoded = [text.encode() for text in texts]
        found = [stem for text in texts for stem in stems(text)]
        if not lexicon.append(rowid, session, sum(map(len, encoded)), asks(encoded[0][-ENDING:]), found):
            self._lexicon = None

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


class TurnWords(WordIndex):
    table = "__memoturn_turns"
    index = "__memoturn_turns_fts"
    vocabulary = "__memoturn_turns_words"
    columns = ("content",)
