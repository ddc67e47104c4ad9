"""The functions of SQL that a user may call, what a call may cost, and those that are kept from running away.

SQLite looks at the clock between the rounds of its machine, never inside a function: what a single call
can take must be bounded by what goes into it. Most functions are linear in their arguments, which
`bounds` keeps small. The others are fenced here, or not allowed. Called by `guard`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import apsw

from memoturn_core.sql.bounds import VALUE_BYTES
from memoturn_schemas.errors import InvalidRequest

_CORE = """
    abs changes char coalesce concat concat_ws format glob hex if ifnull iif instr last_insert_rowid length like
    likelihood likely lower ltrim max min nullif octet_length printf quote random randomblob replace round rtrim sign
    sqlite_version substr substring subtype trim typeof unhex unicode unistr unistr_quote unlikely upper zeroblob
"""
_DATES = "current_date current_time current_timestamp date datetime julianday strftime time timediff unixepoch"
_MATHS = """
    acos acosh asin asinh atan atan2 atanh ceil ceiling cos cosh degrees exp floor ln log log10 log2 mod pi pow power
    radians sin sinh sqrt tan tanh trunc
"""
_AGGREGATES = "avg count group_concat string_agg sum total"
_WINDOWS = "cume_dist dense_rank first_value lag last_value lead nth_value ntile percent_rank rank row_number"
# json_patch takes the product of its arguments' sizes; median and its like sort in a way that can be made quadratic.
_JSON = """
    -> ->> json json_array json_array_insert json_array_length json_error_position json_extract json_group_array
    json_group_object json_insert json_object json_pretty json_quote json_remove json_replace json_set json_type
    json_valid jsonb jsonb_array jsonb_array_insert jsonb_extract jsonb_group_array jsonb_group_object jsonb_insert
    jsonb_object jsonb_remove jsonb_replace jsonb_set
"""

ALLOWED = frozenset(f"{_CORE} {_DATES} {_MATHS} {_AGGREGATES} {_WINDOWS} {_JSON}".split())

OF_SCHEMA_CHANGES = ("sqlite_rename_", "sqlite_drop_", "sqlite_add_", "sqlite_find_", "sqlite_fail")
"""What the functions begin with that SQLite itself uses for ALTER TABLE and lets nobody else use."""

_PATHS = "extract insert remove replace set array_insert"
WEIGHT = {"like": 32, "glob": 32} | {f"{kind}_{name}": 16 for kind in ("json", "jsonb") for name in _PATHS.split()}
"""What a call counts where it is not 1."""

WEIGHT_LIMIT = 512
"""Of all calls that a statement has in its text, views and triggers included: they may run without a pause."""
HURRIED_WEIGHT_LIMIT = 64
"""Where others wait for the statement."""

_PRODUCTS = {
    ("instr", 2): 1 << 32,
    ("replace", 3): 1 << 32,
    ("ltrim", 2): 1 << 24,
    ("rtrim", 2): 1 << 24,
    ("trim", 2): 1 << 24,
    ("unhex", 2): 1 << 24,
}
"""Functions whose time grows with the product of their first two arguments' sizes, and that product's limit."""


def fence(connection: apsw.Connection) -> None:
    """Replace on this connection the functions whose time grows with a product by those that refuse a large one.

    What they compute stays SQLite's own; so do the indexes that were made with them.
    """
    builtin = _Builtin()
    for (name, count), limit in _PRODUCTS.items():
        fenced = builtin.fenced(name, count, limit)
        connection.create_scalar_function(name, fenced, count, deterministic=True, flags=apsw.SQLITE_INNOCUOUS)


class _Builtin:
    """SQLite's functions as they are, on a connection that is made when the first is called."""

    def __init__(self) -> None:
        self._connection: apsw.Connection | None = None

    def fenced(self, name: str, count: int, limit: int) -> Callable[..., Any]:
        sql = f"SELECT {name}({', '.join('?' * count)})"

        def call(*arguments: Any) -> Any:
            first, second = (len(value) if isinstance(value, str | bytes) else 1 for value in arguments[:2])
            if first * second > limit:
                raise InvalidRequest(f"{name}: arguments of {first} and {second} characters are too large together")
            if self._connection is None:
                self._connection = apsw.Connection(":memory:")
                self._connection.limit(apsw.SQLITE_LIMIT_LENGTH, VALUE_BYTES)
            return self._connection.execute(sql, arguments).get

        return call
