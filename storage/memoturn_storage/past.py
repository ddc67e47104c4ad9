"""Reading the past: work over the state that a branch had at a moment of its history, without rewinding it.

The state is restored from the object store into memory, and the last few are kept, so that an agent who
asks several questions about one moment restores it once. Called by `memoturn_core.profiles`.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from memoturn_storage.ambient import Ambient
from memoturn_storage.branching import Branching, Moment
from memoturn_storage.connection import open_memory
from memoturn_storage.engine import Engine
from memoturn_storage.handle import Result, Snapshot
from memoturn_storage.lookups import Lookups
from memoturn_storage.manifest import BranchRef
from memoturn_storage.schema import Schema

T = TypeVar("T")

_KEPT_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class _State:
    image: bytes
    at: int
    """When its last transaction was committed, Unix milliseconds."""


class _Then:
    """An ambient whose wall clock stands at a moment of the past, so that nothing had expired since."""

    def __init__(self, ambient: Ambient, at_ms: int) -> None:
        self._ambient = ambient
        self._at_ms = at_ms

    def now_ms(self) -> int:
        return self._at_ms

    def monotonic(self) -> float:
        return self._ambient.monotonic()

    def token(self, size: int) -> bytes:
        return self._ambient.token(size)

    def boot(self) -> str:
        return self._ambient.boot()


class Past:
    """The past states of the branches that this node owns."""

    def __init__(self, engine: Engine, branching: Branching, schema: Schema, ambient: Ambient) -> None:
        self._engine = engine
        self._branching = branching
        self._schema = schema
        self._ambient = ambient
        self._lock = threading.Lock()
        self._states: OrderedDict[tuple[str, str, int], _State] = OrderedDict()
        self.lookups = Lookups()

    @property
    def held(self) -> int:
        """Bytes of the states that are kept."""
        with self._lock:
            return sum(len(state.image) for state in self._states.values())

    def read(self, ref: BranchRef, moment: Moment, work: Callable[[Snapshot], T]) -> Result[T]:
        """Run `work` on the state at `moment`; the result's txid is that of the state.

        Raises:
            BranchNotFound: there is no such checkpoint.
            Conflict: the moment is not in the history.
            Damaged, StoreUnavailable.
        """
        manifest = self._branching.shipped_manifest(ref)
        txid = self._branching.resolve(manifest, moment)
        # Also of a state that is kept: retention may have taken it out of the history since.
        manifest.plan(txid)
        key = (ref.uuid, manifest.lineage, txid)
        state = self._kept(key)
        self.lookups.note(state is not None)
        if state is None:
            at = self._engine.restorer.position(manifest, txid).at
            state = _State(bytes(self._engine.restorer.image(manifest, txid)), at)
            self._keep(key, state)
        connection = open_memory(state.image)
        try:
            self._schema.migrate(connection)
            at_ms = state.at if moment.at_ms is None else moment.at_ms
            return Result(work(Snapshot(connection, txid, _Then(self._ambient, at_ms), {})), txid)
        finally:
            connection.close()

    def _kept(self, key: tuple[str, str, int]) -> _State | None:
        with self._lock:
            state = self._states.get(key)
            if state is not None:
                self._states.move_to_end(key)
            return state

    def _keep(self, key: tuple[str, str, int], state: _State) -> None:
        with self._lock:
            self._states[key] = state
            while len(self._states) > 1 and sum(len(kept.image) for kept in self._states.values()) > _KEPT_BYTES:
                self._states.popitem(last=False)
