"""Taking records into a database: each is added whole, is there already, or is refused with the reason.

What is there is never changed, so that a file may be imported again, or where an import stopped: what was taken is
found unchanged. Foreign keys and triggers of users do not act meanwhile, for they did when the rows were made.
Called by `records`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import apsw
import orjson

from memoturn_core.portability.exporting import ALL_KINDS, END, FORMAT, HEADER
from memoturn_core.portability.kinds import Kind, Record, reason_of
from memoturn_core.portability.values import Refused
from memoturn_core.sql.guard import Guard
from memoturn_schemas.errors import InvalidRequest
from memoturn_storage.handle import Transaction

_KINDS = {kind.name: kind for kind in ALL_KINDS}
_SWITCHES = (apsw.SQLITE_DBCONFIG_ENABLE_FKEY, apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of records."""

    taken: Counter[str] = field(default_factory=Counter)
    """By kind, like the next."""
    unchanged: Counter[str] = field(default_factory=Counter)
    refused: list[tuple[int, str, str]] = field(default_factory=list)
    """Place in the request, kind and reason."""


def check_header(record: Record) -> None:
    """Raises `InvalidRequest` for a format that is not ours."""
    if record.get("format") != FORMAT:
        raise InvalidRequest(f"format: {record.get('format')!r} is not one that this program knows; it knows {FORMAT}")


def take(transaction: Transaction, records: Sequence[Any]) -> Outcome:
    """Take what can be taken, in this order.

    Raises:
        InvalidRequest: a header is of another format; nothing is taken.
    """
    connection, outcome = transaction.connection, Outcome()
    with quiet(connection):
        for place, record in enumerate(records):
            told = record.get("kind") if isinstance(record, dict) else None
            if told == HEADER:
                check_header(record)
                continue
            if told == END:
                continue
            kind = _KINDS.get(told) if isinstance(told, str) else None
            if kind is None:
                known = ", ".join(_KINDS)
                reason = f"kind: should be one of {known}" if isinstance(record, dict) else "should be an object"
                outcome.refused.append((place, told if isinstance(told, str) else "", reason))
                continue
            content = {name: value for name, value in record.items() if name != "kind"}
            try:
                taken = _take(transaction, kind, content)
            except Refused as refused:
                outcome.refused.append((place, kind.name, str(refused)))
            else:
                (outcome.taken if taken else outcome.unchanged)[kind.name] += 1
    if outcome.taken:
        transaction.rewrite()
    return outcome


def _take(transaction: Transaction, kind: Kind, record: Record) -> bool:
    """Whether it was not there before."""
    connection = transaction.connection
    connection.execute("SAVEPOINT record")
    try:
        there = kind.find(connection, record)
        if there is None:
            kind.take(transaction, record)
        elif not _same(there, record):
            raise Refused(f"another {kind.name} is there in its place")
    except (Refused, apsw.ConstraintError, apsw.MismatchError, apsw.TooBigError) as error:
        connection.execute("ROLLBACK TO record")
        if isinstance(error, Refused):
            raise
        raise Refused(reason_of(error)) from None
    finally:
        if connection.in_transaction:
            connection.execute("RELEASE record")
    return there is None


def _same(one: Record, other: Record) -> bool:
    def spelt(record: Record) -> bytes:
        held = {name: value for name, value in record.items() if value not in (None, [])}
        return orjson.dumps(held, option=orjson.OPT_SORT_KEYS)

    return spelt(one) == spelt(other)


@contextmanager
def quiet(connection: apsw.Connection) -> Iterator[None]:
    """Whether users' triggers and foreign keys act: not in this block."""
    Guard.of(connection)  # which turns them on when it first comes
    before = [connection.config(switch, -1) for switch in _SWITCHES]
    try:
        for switch in _SWITCHES:
            connection.config(switch, 0)
        yield
    finally:
        for switch, value in zip(_SWITCHES, before, strict=True):
            connection.config(switch, value)
