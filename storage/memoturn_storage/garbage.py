"""The collector's marks: since when each object of a database has been found unneeded.

One JSON object a database, `garbage.json`, replaced by compare-and-swap. To lose it loses nothing but time: what
is unneeded is marked anew. So marks that cannot be read count as none. Called by `memoturn_storage.collector`,
and by who links objects that another branch named (`memoturn_storage.branching`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import orjson
import structlog

from memoturn_storage.objects.store import ObjectMissing, ObjectStore, PreconditionFailed

log = structlog.get_logger("memoturn")


@dataclass(frozen=True, slots=True)
class Marks:
    """`since` in Unix milliseconds by key; `version` None where there are none yet."""

    key: str
    since: Mapping[str, int]
    version: str | None


class Garbage:
    """The marks of every database in an object store."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def read(self, uuid: str) -> Marks:
        key = f"v1/{uuid}/garbage.json"
        try:
            stored = self._store.get(key)
        except ObjectMissing:
            return Marks(key, {}, None)
        try:
            since = {str(name): int(at) for name, at in orjson.loads(stored.data).items()}
        except (ValueError, TypeError, AttributeError) as error:
            log.warning("the collector's marks are damaged and made anew", object=key, error=str(error))
            since = {}
        return Marks(key, since, stored.version)

    def replace(self, marks: Marks, since: Mapping[str, int]) -> bool:
        """Write new marks in place of those that were read; False where somebody else, or a lost try of ours, did."""
        if since == marks.since:
            return True
        if not since:
            self._store.delete(marks.key)  # at worst with marks of a racing pass, which are made again
            return True
        data = orjson.dumps(since, option=orjson.OPT_SORT_KEYS)
        try:
            if marks.version is None:
                self._store.put_if_absent(marks.key, data)
            else:
                self._store.put_if_match(marks.key, data, marks.version)
        except PreconditionFailed:
            return False
        return True

    def unmark(self, uuid: str, keys: set[str]) -> None:
        """Take the marks off objects that have just been linked again."""
        marks = self.read(uuid)
        while keys & marks.since.keys():
            if self.replace(marks, {key: at for key, at in marks.since.items() if key not in keys}):
                return
            marks = self.read(uuid)
