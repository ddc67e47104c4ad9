"""The tokens that were revoked one by one: a set of their ids that all processes and machines share.

It is one object, replaced by compare-and-swap, from which every change removes what has expired by itself.
Whoever revokes knows it at once; others look at most every `FRESH_S` seconds, while requests come, and
no request is answered from what was heard longer than `STALE_S` ago as long as the store answers. While
it does not, what was heard last stays: a store that is down stops no reads and writes, and nothing can
be revoked. A process that never heard anything lets no token in. Called by `authority`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
import structlog

from memoturn_schemas.errors import Internal, Unavailable
from memoturn_storage.ambient import Ambient, new_uuid
from memoturn_storage.objects.store import ObjectMissing, ObjectStore, PreconditionFailed, StoreUnavailable

log = structlog.get_logger("memoturn")

KEY = "v1/_node/revoked.json"
FRESH_S = 2.0
STALE_S = 4.0

_PATIENCE_S = 2.0
_RACES_AT_MOST = 32

WaitFor = Callable[[Callable[[], Any]], Awaitable[Any]]
Ids = dict[str, int]
"""The ids of tokens, with the Unix second in which each expires."""


class Revocations:
    """Belongs to one event loop; `wait_for` runs what may wait for the store."""

    def __init__(self, store: ObjectStore, ambient: Ambient, wait_for: WaitFor) -> None:
        self._store = store
        self._ambient = ambient
        self._wait_for = wait_for
        self._revoked: Ids = {}
        self._heard_at: float | None = None
        self._asking: asyncio.Future[None] | None = None

    async def require(self) -> None:
        """Have the set be recent enough to judge a token by.

        Raises:
            Unavailable: nothing was ever heard of it.
        """
        age = None if self._heard_at is None else self._ambient.monotonic() - self._heard_at
        if age is not None and age < FRESH_S:
            return
        if self._asking is None:
            self._asking = asyncio.ensure_future(self._ask())
        if age is None or age >= STALE_S:
            await asyncio.shield(self._asking)
        if self._heard_at is None:
            raise Unavailable("which tokens were revoked cannot be found out; try again")

    def __contains__(self, jti: str | None) -> bool:
        return jti in self._revoked

    async def add(self, jti: str, expires_at: int) -> None:
        """Revoke a token for good.

        Raises:
            StoreUnavailable: it may be revoked or not; asking again makes sure.
        """
        self._revoked |= await self._wait_for(lambda: self._put(jti, expires_at))

    async def _ask(self) -> None:
        try:
            async with asyncio.timeout(_PATIENCE_S):
                heard = await self._wait_for(lambda: self._read()[0])
            # Nothing is ever taken back, and a look that began before one was revoked here must not undo it.
            now_s = self._ambient.now_ms() // 1_000
            self._revoked = _living(self._revoked | heard, now_s)
            self._heard_at = self._ambient.monotonic()
        except (StoreUnavailable, Internal, TimeoutError) as error:
            log.warning("revoked tokens cannot be read", error=repr(error))
            if self._heard_at is not None:
                self._heard_at = self._ambient.monotonic()
        finally:
            self._asking = None

    def _read(self) -> tuple[Ids, str | None]:
        try:
            stored = self._store.get(KEY)
        except ObjectMissing:
            return {}, None
        try:
            revoked = orjson.loads(stored.data)["revoked"]
            return {str(jti): int(expires_at) for jti, expires_at in revoked.items()}, stored.version
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise Internal(f"the object {KEY} is damaged: {error!r}") from error

    def _put(self, jti: str, expires_at: int) -> Ids:
        for _ in range(_RACES_AT_MOST):
            revoked, version = self._read()
            if jti in revoked:
                return revoked  # also where our own write landed and its answer was lost
            revoked = _living(revoked, self._ambient.now_ms() // 1_000) | {jti: expires_at}
            data = orjson.dumps({"write_id": new_uuid(self._ambient), "revoked": revoked})
            try:
                if version is None:
                    self._store.put_if_absent(KEY, data)
                else:
                    self._store.put_if_match(KEY, data, version)
            except PreconditionFailed:
                continue
            return revoked
        raise Unavailable("the token could not be revoked, for many were at once; try again")


def _living(revoked: Ids, now_s: int) -> Ids:
    # Longer than any leeway: an id that is forgotten too soon is a token that comes back.
    return {jti: expires_at for jti, expires_at in revoked.items() if expires_at + 60 > now_s}
