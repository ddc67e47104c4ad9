"""What a memory must meet before it is ranked, by name, so that recall can say which filter kept one out.

Called by `recall` and `explanation`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import apsw

from memoturn_schemas.memory import FilterName, RecallRequest


@dataclass(frozen=True, slots=True)
class Filters:
    """Conditions in SQL over the alias `m`, with their parameters."""

    conditions: dict[FilterName, tuple[str, tuple[Any, ...]]]

    @classmethod
    def of(cls, request: RecallRequest, now_ms: int) -> Self:
        conditions: dict[FilterName, tuple[str, tuple[Any, ...]]] = {
            "expired": ("(m.expires_at IS NULL OR m.expires_at > ?)", (now_ms,))
        }
        if not request.include_superseded:
            conditions["superseded"] = ("m.superseded_at IS NULL", ())
        if request.types is not None:
            conditions["types"] = (f"m.type IN ({','.join('?' * len(request.types))})", tuple(request.types))
        compared: tuple[tuple[FilterName, str, Any], ...] = (
            ("session_id", "m.session_id = ?", request.session_id),
            ("source", "m.source = ?", request.source),
            ("since", "m.created_at >= ?", request.since),
            ("until", "m.created_at < ?", request.until),
        )
        conditions |= {name: (sql, (value,)) for name, sql, value in compared if value is not None}
        return cls(conditions)

    @property
    def sql(self) -> str:
        return " AND ".join(sql for sql, _ in self.conditions.values())

    @property
    def parameters(self) -> tuple[Any, ...]:
        return tuple(value for _, values in self.conditions.values() for value in values)

    @property
    def first_failed(self) -> str:
        """An expression for the name of the first filter that a row fails, or NULL; takes the same parameters."""
        cases = " ".join(f"WHEN ({sql}) IS NOT TRUE THEN '{name}'" for name, (sql, _) in self.conditions.items())
        return f"CASE {cases} END"

    def failed(self, connection: apsw.Connection, rowid: int) -> list[FilterName]:
        """All that a row fails."""
        passed = ", ".join(f"({sql}) IS TRUE" for sql, _ in self.conditions.values())
        row: Any = connection.execute(
            f"SELECT {passed} FROM __memoturn_memories AS m WHERE m.rowid = ?", (*self.parameters, rowid)
        ).fetchone()
        return [name for name, passes in zip(self.conditions, row, strict=True) if not passes]
