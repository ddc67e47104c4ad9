"""Documents: insert, find, update, delete, and indexes on paths. Contract section 4."""

from __future__ import annotations

from typing import Any

from memoturn_core.documents import paths, rows
from memoturn_core.documents.filters import compile_filter, compile_sort
from memoturn_core.documents.updates import parse_update
from memoturn_core.operations import Reply, Rest, Scope, Target, operation
from memoturn_core.profiles import Profile
from memoturn_schemas.documents import (
    CollectionsRequest,
    CollectionsResponse,
    DeleteRequest,
    DeleteResponse,
    FindRequest,
    FindResponse,
    IndexRequest,
    IndexResponse,
    InsertRequest,
    InsertResponse,
    UpdateRequest,
    UpdateResponse,
)
from memoturn_storage.handle import Snapshot, Transaction


@operation(
    name="docs_insert",
    title="Insert documents",
    target=Target.DATABASE,
    scope=Scope.WRITE,
    toolset="docs",
    request=InsertRequest,
    response=InsertResponse,
    rest=Rest("POST", "/docs/{collection}/insert", status=201, in_profile=True),
    conflicts=True,
)
async def insert(profile: Profile, request: InsertRequest) -> Reply:
    """Keep JSON documents in a collection; call it for structured records that are looked up by their fields."""

    def work(transaction: Transaction) -> list[str]:
        if not request.docs:
            return []
        collection = rows.find_or_make(transaction.connection, request.collection)
        return rows.insert(transaction, collection, request.docs)

    done = await profile.write(work, long=True)
    return Reply(InsertResponse(ids=done.value, txid=done.txid), done.txid)


@operation(
    name="docs_find",
    title="Find documents",
    target=Target.DATABASE,
    scope=Scope.READ,
    toolset="docs",
    request=FindRequest,
    response=FindResponse,
    rest=Rest("POST", "/docs/{collection}/find", in_profile=True),
    read_only=True,
    idempotent=True,
)
async def find(profile: Profile, request: FindRequest) -> Reply:
    """Find documents by their fields, sorted and paged; call it to look up what docs_insert kept."""
    condition = compile_filter(request.filter)
    order = compile_sort(request.sort)

    def work(snapshot: Snapshot) -> list[dict[str, Any]]:
        collection = rows.find(snapshot.connection, request.collection)
        if collection is None:
            return []
        return rows.select(snapshot.connection, collection, condition, order, request.limit, request.skip)

    found = await profile.read(work, as_of=request.as_of, long=True)
    return Reply(FindResponse(docs=found.value, txid=found.txid), found.txid)


@operation(
    name="docs_update",
    title="Update documents",
    target=Target.DATABASE,
    scope=Scope.WRITE,
    toolset="docs",
    request=UpdateRequest,
    response=UpdateResponse,
    rest=Rest("POST", "/docs/{collection}/update", in_profile=True),
    destructive=True,
)
async def update(profile: Profile, request: UpdateRequest) -> Reply:
    """Change fields of documents that match a filter; call it when a record has changed."""
    condition = compile_filter(request.filter)
    change = parse_update(request.update)

    def work(transaction: Transaction) -> int:
        connection = transaction.connection
        collection = rows.find(connection, request.collection)
        return 0 if collection is None else rows.update(connection, collection, condition, change, multi=request.multi)

    done = await profile.write(work, create=False, long=True)
    return Reply(UpdateResponse(modified=done.value, txid=done.txid), done.txid)


@operation(
    name="docs_delete",
    title="Delete documents",
    target=Target.DATABASE,
    scope=Scope.WRITE,
    toolset="docs",
    request=DeleteRequest,
    response=DeleteResponse,
    rest=Rest("POST", "/docs/{collection}/delete", in_profile=True),
    destructive=True,
)
async def delete(profile: Profile, request: DeleteRequest) -> Reply:
    """Delete documents that match a filter; call it when records are no longer true or wanted."""
    condition = compile_filter(request.filter)

    def work(transaction: Transaction) -> int:
        connection = transaction.connection
        collection = rows.find(connection, request.collection)
        return 0 if collection is None else rows.delete(connection, collection, condition, multi=request.multi)

    done = await profile.write(work, create=False, long=True)
    return Reply(DeleteResponse(deleted=done.value, txid=done.txid), done.txid)


@operation(
    name="docs_index",
    title="Index documents by a path",
    target=Target.DATABASE,
    scope=Scope.WRITE,
    toolset="docs",
    request=IndexRequest,
    response=IndexResponse,
    rest=Rest("POST", "/docs/{collection}/indexes", status=201, in_profile=True),
    conflicts=True,
    idempotent=True,
)
async def index(profile: Profile, request: IndexRequest) -> Reply:
    """Make filters on a path fast; call it once for a field by which a large collection is searched or sorted."""
    path = paths.parse(request.path, "path")

    def work(transaction: Transaction) -> None:
        collection = rows.find_or_make(transaction.connection, request.collection)
        rows.index(transaction.connection, collection, path)

    done = await profile.write(work, long=True)
    return Reply(IndexResponse(indexed=request.path), done.txid)


@operation(
    name="docs_collections",
    title="List collections",
    target=Target.DATABASE,
    scope=Scope.READ,
    toolset="docs",
    request=CollectionsRequest,
    response=CollectionsResponse,
    rest=Rest("GET", "/docs", in_profile=True),
    read_only=True,
    idempotent=True,
)
async def collections(profile: Profile, _request: CollectionsRequest) -> Reply:
    """List the collections of documents with their sizes and indexes; call it to see what there is."""
    found = await profile.read(lambda snapshot: rows.every(snapshot.connection), long=True)
    return Reply(CollectionsResponse(collections=found.value, txid=found.txid), found.txid)
