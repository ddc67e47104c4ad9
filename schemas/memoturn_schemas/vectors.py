"""Vectors in collections on the wire. Source: contract section 6."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator
from typing_extensions import TypedDict

from memoturn_schemas.common import Count, Embedding, RequestModel
from memoturn_schemas.names import CollectionName

BATCH_LIMIT = 1_000
ID_BYTES = 1_024

_SMALLEST = 2.0**-150
"""What float32 rounds to zero, and whatever is smaller."""


def _check_id(value: str) -> str:
    if not value:
        raise ValueError("must not be empty")
    if len(value.encode()) > ID_BYTES:
        raise ValueError(f"must be at most {ID_BYTES} bytes of UTF-8")
    return value


def _check_direction(values: list[float]) -> list[float]:
    if not any(abs(value) > _SMALLEST for value in values):
        raise ValueError("must not be all zeros, which have no direction")
    return values


VectorId = Annotated[
    str, AfterValidator(_check_id), Field(description=f"Any text up to {ID_BYTES} bytes.", min_length=1)
]
Direction = Annotated[Embedding, AfterValidator(_check_direction)]
"""An embedding that is not zero."""


class VectorItem(RequestModel):
    id: VectorId
    embedding: Direction
    """The vector."""


class VectorUpsertRequest(RequestModel):
    """One vector by `id` and `embedding`, or `vectors`."""

    collection: CollectionName
    id: VectorId | None = None
    """Any text up to 1 024 bytes; a vector that has it already is replaced."""
    embedding: Direction | None = None
    """The vector, not all zeros."""
    vectors: Annotated[list[VectorItem], Field(min_length=1, max_length=BATCH_LIMIT)] | None = None
    """Up to 1 000 vectors instead of one; all are kept or none."""

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        if self.vectors is not None:
            if self.id is not None or self.embedding is not None:
                raise ValueError("vectors: is given beside id or embedding; give one of both")
        elif self.id is None:
            raise ValueError("id: is required, with an embedding, unless vectors are given")
        elif self.embedding is None:
            raise ValueError("embedding: is required beside id")
        return self

    def items(self) -> Iterator[tuple[str, str, list[float]]]:
        """Each embedding, after the field that holds it and its id."""
        for number, item in enumerate(self.vectors or ()):
            yield f"vectors[{number}].embedding", item.id, item.embedding
        if self.id is not None and self.embedding is not None:
            yield "embedding", self.id, self.embedding


class VectorUpsertResponse(TypedDict):
    txid: int


class VectorSearchRequest(RequestModel):
    collection: CollectionName
    vector: Direction
    """What to look near to, not all zeros."""
    k: Count = 10
    """How many hits at most; clamped to 1...1 000."""


class VectorHit(TypedDict):
    id: str
    distance: float
    """1 less the cosine: 0 for the same direction, 2 for the opposite one."""


class VectorSearchResponse(TypedDict):
    """Nearest first."""

    hits: list[VectorHit]


class VectorDeleteRequest(RequestModel):
    collection: CollectionName
    id: VectorId


class VectorDeleteResponse(TypedDict):
    deleted: bool


class VectorCollectionsRequest(RequestModel):
    """Nothing."""


class VectorCollection(TypedDict):
    name: str
    dimension: int
    count: int


class VectorCollectionsResponse(TypedDict):
    """By name."""

    collections: list[VectorCollection]
