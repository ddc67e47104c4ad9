"""Documents on the wire: JSON objects in collections. Source: contract section 4."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, Field
from typing_extensions import TypedDict

from memoturn_schemas.common import Count, RequestModel, check_json
from memoturn_schemas.moment import Moment
from memoturn_schemas.names import CollectionName

INTEGER_MIN, INTEGER_MAX = -(2**63), 2**63 - 1
BATCH_LIMIT = 1_000
ID_BYTES = 1_024


def check_value(value: Any) -> Any:
    """As `check_json`, and refuse integers that SQLite would round."""
    check_json(value)
    items = [value]
    for item in items:
        if isinstance(item, dict):
            items.extend(item.values())
        elif isinstance(item, list):
            items.extend(item)
        elif isinstance(item, int) and not INTEGER_MIN <= item <= INTEGER_MAX:
            raise ValueError(f"must not hold integers beyond 64 bits{_place(value, item)}")
    return value


def _place(value: Any, wanted: int) -> str:
    """Where the integer is, as ` (at a.b[0])`."""
    places = [("", value)]
    for place, item in places:
        if item is wanted:
            break
        if isinstance(item, dict):
            places.extend((f"{place}.{key}" if place else key, below) for key, below in item.items())
        elif isinstance(item, list):
            places.extend((f"{place}[{index}]", below) for index, below in enumerate(item))
    return f" (at {place})" if place else ""


def _check_document(document: dict[str, Any]) -> dict[str, Any]:
    check_value(document)
    if "_id" in document:
        id_ = document["_id"]
        if not isinstance(id_, str):
            raise ValueError("must have a string as _id, or none")
        if len(id_.encode()) > ID_BYTES:
            raise ValueError(f"must have an _id of at most {ID_BYTES} bytes of UTF-8")
    return document


Document = Annotated[dict[str, Any], AfterValidator(_check_document)]
Filter = Annotated[dict[str, Any], AfterValidator(check_value)]


class InsertRequest(RequestModel):
    collection: CollectionName
    docs: Annotated[list[Document], Field(max_length=BATCH_LIMIT)]
    """JSON objects, at most 1 000; all are kept or none. Without a string `_id` they get one."""


class InsertResponse(TypedDict):
    """In the order of the request."""

    ids: list[str]
    txid: int


class FindRequest(RequestModel):
    collection: CollectionName
    filter: Filter = Field(default_factory=dict)
    """{path: value} or {path: {operator: value}}, paths as a.b.0. Operators: $eq $ne $gt $gte $lt $lte $in $nin
    $exists $not; on top $and $or $not. All match if left out."""
    sort: Annotated[dict[str, Any], AfterValidator(check_value)] = Field(default_factory=dict)
    """{path: 1 or -1}, in order of importance; the order of insertion if left out."""
    limit: Count = 100
    """How many documents at most; clamped to 1...1 000."""
    skip: Annotated[int, Field(ge=0, le=INTEGER_MAX)] = 0
    """How many to leave out first."""
    as_of: Moment | None = None
    """The collection as it stood at this moment."""


class FindResponse(TypedDict):
    docs: list[dict[str, Any]]
    txid: int


class UpdateRequest(RequestModel):
    collection: CollectionName
    filter: Filter
    """Which documents, as in docs_find; {} is all."""
    update: Annotated[dict[str, Any], AfterValidator(check_value)]
    """{operator: {path: value}}. Operators: $set $unset $inc $push."""
    multi: bool = False
    """All that match, instead of the one that was inserted first."""


class UpdateResponse(TypedDict):
    """`modified` counts documents that are now different."""

    modified: int
    txid: int


class DeleteRequest(RequestModel):
    collection: CollectionName
    filter: Filter
    """Which documents, as in docs_find; {} is all."""
    multi: bool = False
    """All that match, instead of the one that was inserted first."""


class DeleteResponse(TypedDict):
    deleted: int
    txid: int


class IndexRequest(RequestModel):
    collection: CollectionName
    path: Annotated[str, AfterValidator(check_json)]
    """What filters ask for, as a.b.0."""


class IndexResponse(TypedDict):
    indexed: str


class CollectionsRequest(RequestModel):
    """Nothing."""


class CollectionEntry(TypedDict):
    name: str
    documents: int
    indexes: list[str]
    """Paths."""


class CollectionsResponse(TypedDict):
    """By name."""

    collections: list[CollectionEntry]
    txid: int
