"""SQL on the wire: a batch of statements and what each of them answered. Source: contract section 7.

Values are null, integers of 64 bits, finite reals and text; a blob is `{"$base64": "…"}` both ways.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, WithJsonSchema
from typing_extensions import TypedDict

from memoturn_schemas.common import RequestModel, check_json

STATEMENTS = 10_000
"""In one request at most."""
TEXT_BYTES = 4 << 20
"""Of one statement at most."""


def _check_params(value: Any) -> Any:
    if value is not None and not isinstance(value, list | dict):
        raise ValueError("should be a list, or an object of names")
    return check_json(value)


Params = Annotated[
    Any,
    AfterValidator(_check_params),
    WithJsonSchema({"anyOf": [{"type": "array", "items": {}}, {"type": "object"}, {"type": "null"}]}),
]


class Statement(RequestModel):
    q: Annotated[str, Field(max_length=TEXT_BYTES)]
    """SQL over the profile's own tables."""
    params: Params = None
    """A list for `?`, or an object for `:name`. A blob is {"$base64": "…"}; other lists and objects become JSON."""


class QueryRequest(RequestModel):
    stmts: Annotated[list[Statement], Field(min_length=1, max_length=STATEMENTS)]
    """Run in order, as one transaction: all of them take effect, or none."""
    txn: Literal[True] = True
    """A batch is always one transaction."""


class QueryResult(TypedDict):
    """A statement that returns no rows has no columns either; one that returns rows has `rows_affected` 0."""

    columns: list[str]
    rows: list[list[Any]]
    rows_affected: int


class QueryResponse(TypedDict):
    """One result a statement of the request; of a `q` with several statements, that of the last."""

    results: list[QueryResult]
    txid: int
