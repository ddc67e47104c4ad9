"""The key-value store: put, get, delete, list. Contract section 5, items 64 to 67."""

from __future__ import annotations

from memoturn_core.kv import rows
from memoturn_core.kv.cache import KvCache
from memoturn_core.operations import Reply, Rest, Scope, Target, operation
from memoturn_core.profiles import Profile
from memoturn_schemas.errors import NotFound, RequestTimeout
from memoturn_schemas.kv import (
    KvDeleteResponse,
    KvGetRequest,
    KvGetResponse,
    KvKeyRequest,
    KvListRequest,
    KvListResponse,
    KvPutRequest,
    KvPutResponse,
    cursor_after,
    key_of,
)
from memoturn_storage.handle import Transaction

_LARGE = 1 << 20
"""Bytes of a value that take some 10 ms to write."""

_KEYS = "/kv/{ns}"
_KEY = "/kv/{ns}/{key}"


@operation(
    name="kv_put",
    title="Put a value",
    target=Target.DATABASE,
    scope=Scope.WRITE,
    toolset="kv",
    default_tool=True,
    request=KvPutRequest,
    response=KvPutResponse,
    rest=Rest("PUT", _KEY, in_profile=True, raw_body="value"),
    destructive=True,
    idempotent=True,
)
async def put(profile: Profile, request: KvPutRequest) -> Reply:
    """Keep a value under an exact key, replacing what is there; call it for state to read back by that key."""

    def work(transaction: Transaction) -> None:
        if transaction.hurried:
            raise RequestTimeout("a large value is written where fewer wait for it")
        expires_at = None if request.ttl is None else transaction.ambient.now_ms() + 1_000 * request.ttl
        rows.put(transaction, request.ns, request.key, request.value, expires_at)

    done = await profile.write(work, long=len(request.value) > _LARGE)
    return Reply(KvPutResponse(txid=done.txid), done.txid)


@operation(
    name="kv_get",
    title="Get a value",
    target=Target.DATABASE,
    scope=Scope.READ,
    toolset="kv",
    default_tool=True,
    request=KvGetRequest,
    response=KvGetResponse,
    rest=Rest("GET", _KEY, in_profile=True, raw_reply="value"),
    read_only=True,
    idempotent=True,
    missing={"found": False},
)
async def get(profile: Profile, request: KvGetRequest) -> Reply:
    """Read the value under an exact key; call it to read back what kv_put kept."""
    ns, key = request.ns, request.key
    found = profile.peek(KvCache, lambda cache: cache.find(ns, key))
    if found is None:
        found = await profile.read(lambda snapshot: rows.find(snapshot, ns, key))
    else:
        KvCache.lookups.note(True)
    value = found.value.value_at(profile.node.ambient.now_ms())
    if value is None:
        raise NotFound("there is no such key, or it has expired")
    return Reply(KvGetResponse(value=value), found.txid)


@operation(
    name="kv_delete",
    title="Delete a key",
    target=Target.DATABASE,
    scope=Scope.WRITE,
    toolset="kv",
    request=KvKeyRequest,
    response=KvDeleteResponse,
    rest=Rest("DELETE", _KEY, status=204, in_profile=True),
    destructive=True,
    idempotent=True,
)
async def delete(profile: Profile, request: KvKeyRequest) -> Reply:
    """Delete a key and its value, if it is there; call it when they are not needed any more."""
    done = await profile.write(lambda transaction: rows.delete(transaction, request.ns, request.key), create=False)
    return Reply(KvDeleteResponse(deleted=True), done.txid)


@operation(
    name="kv_list",
    title="List keys",
    target=Target.DATABASE,
    scope=Scope.READ,
    toolset="kv",
    request=KvListRequest,
    response=KvListResponse,
    rest=Rest("GET", _KEYS, in_profile=True),
    read_only=True,
    idempotent=True,
)
async def listing(profile: Profile, request: KvListRequest) -> Reply:
    """List keys in order, all or those with a prefix; call it to find out what was kept."""
    after = None if request.cursor is None else key_of(request.cursor)
    found = await profile.read(
        lambda snapshot: rows.keys(snapshot, request.ns, request.prefix, after, request.limit + 1), long=True
    )
    keys = found.value[: request.limit]
    page = KvListResponse(keys=keys)
    if len(found.value) > len(keys):
        page["next_cursor"] = cursor_after(keys[-1])
    return Reply(page, found.txid)
