"""Vectors in collections: upsert, search, delete, list. Contract section 6, items 68 and 69."""

from __future__ import annotations

from memoturn_core.operations import Reply, Rest, Scope, Target, operation
from memoturn_core.profiles import Profile
from memoturn_core.vectors import rows
from memoturn_core.vectors.vector import as_vector
from memoturn_schemas.vectors import (
    VectorCollectionsRequest,
    VectorCollectionsResponse,
    VectorDeleteRequest,
    VectorDeleteResponse,
    VectorSearchRequest,
    VectorSearchResponse,
    VectorUpsertRequest,
    VectorUpsertResponse,
)


@operation(
    name="vector_upsert",
    title="Keep vectors",
    target=Target.DATABASE,
    scope=Scope.WRITE,
    toolset="vectors",
    request=VectorUpsertRequest,
    response=VectorUpsertResponse,
    rest=Rest("POST", "/vectors/{collection}", in_profile=True),
    destructive=True,
    idempotent=True,
)
async def upsert(profile: Profile, request: VectorUpsertRequest) -> Reply:
    """Keep a vector under an id, or many at once; call it to search by nearness with embeddings of your own.

    An id that is there gets the new vector. All vectors of a collection have one dimension, that of the first.
    """
    given = [(field, id_, as_vector(embedding)) for field, id_, embedding in request.items()]
    done = await profile.write(
        lambda transaction: rows.put(transaction, request.collection, given), long=request.vectors is not None
    )
    return Reply(VectorUpsertResponse(txid=done.txid), done.txid)


@operation(
    name="vector_search",
    title="Search vectors",
    target=Target.DATABASE,
    scope=Scope.READ,
    toolset="vectors",
    request=VectorSearchRequest,
    response=VectorSearchResponse,
    rest=Rest("POST", "/vectors/{collection}/search", in_profile=True),
    read_only=True,
    idempotent=True,
)
async def search(profile: Profile, request: VectorSearchRequest) -> Reply:
    """Find the ids whose vectors are nearest by cosine; call it with an embedding like those that were kept."""
    vector = as_vector(request.vector)
    while True:
        # Not a long read: that would build the index beside the one that stays, and again with each search.
        found = await profile.read(lambda snapshot: rows.near(snapshot, request.collection, vector, request.k))
        if found.value is not None:
            return Reply(VectorSearchResponse(hits=found.value), found.txid)


@operation(
    name="vector_delete",
    title="Delete a vector",
    target=Target.DATABASE,
    scope=Scope.WRITE,
    toolset="vectors",
    request=VectorDeleteRequest,
    response=VectorDeleteResponse,
    rest=Rest("DELETE", "/vectors/{collection}/{id}", status=204, in_profile=True),
    destructive=True,
    idempotent=True,
)
async def delete(profile: Profile, request: VectorDeleteRequest) -> Reply:
    """Delete the vector under an id; call it when what it stood for is gone. A collection goes with its last one."""
    done = await profile.write(
        lambda transaction: rows.delete(transaction, request.collection, request.id), create=False
    )
    return Reply(VectorDeleteResponse(deleted=done.value), done.txid)


@operation(
    name="vector_collections",
    title="List vector collections",
    target=Target.DATABASE,
    scope=Scope.READ,
    toolset="vectors",
    request=VectorCollectionsRequest,
    response=VectorCollectionsResponse,
    rest=Rest("GET", "/vectors", in_profile=True),
    read_only=True,
    idempotent=True,
)
async def listing(profile: Profile, _request: VectorCollectionsRequest) -> Reply:
    """List the collections of vectors with their dimensions and sizes; call it to see what there is."""
    found = await profile.read(rows.collections, long=True)
    return Reply(VectorCollectionsResponse(collections=found.value), found.txid)
