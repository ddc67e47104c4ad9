"""A thousand courses of events, and whether the simulation would notice if the engine were wrong."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from itertools import islice
from typing import Any

import pytest

from memoturn_storage import handle, restore, waking
from memoturn_storage.branch import Branch
from memoturn_storage.handle import Result
from memoturn_storage.manifest import Manifest
from memoturn_storage.manifests import Held, Manifests
from memoturn_storage.objects.store import PreconditionFailed
from simulation.many import failures, replay
from simulation.steps import run

SEEDS = 1_000


def test_no_course_of_events_breaks_a_promise() -> None:
    for seed, violation in failures(range(SEEDS)):
        pytest.fail(f"{violation}\nreplay: {replay(seed)}", pytrace=False)


@pytest.mark.parametrize("seed", range(12))
def test_a_seed_is_one_course_of_events(seed: int) -> None:
    assert run(seed) == run(seed)


# --- with a broken engine ------------------------------------------------------------------------


def no_fence() -> None:
    def require_ours(_branch: Branch, _manifest: Manifest) -> None: ...

    Branch.require_ours = require_ours  # type: ignore[method-assign]


def acknowledged_before_the_store_has_it() -> None:
    def resolve(_handle: handle.Handle, job: Any, result: Result[Any]) -> None:
        future: Future[Result[Any]] = job.future
        future.set_result(result)

    handle.Handle._resolve = resolve  # type: ignore[method-assign]


def a_lost_race_taken_for_won() -> None:
    def update(self: Manifests, at: Any, change: Callable[[Manifest], Manifest]) -> Held:
        held = at if isinstance(at, Held) else self.require(at)
        wanted = change(held.manifest)
        try:
            return Held(wanted, self._store.put_if_match(wanted.ref.manifest_key, wanted.encode(), held.version))
        except PreconditionFailed:
            return Held(wanted, held.version)

    Manifests.update = update  # type: ignore[method-assign]


def unshipped_commits_forgotten() -> None:
    def hand_over(_spooled: object, _unshipped: int, branch: Branch) -> None:
        assert branch.handle is not None
        branch.handle.fold()

    waking._Spooled.hand_over = hand_over  # type: ignore[method-assign]


def cut_objects_read_whole() -> None:
    read = restore._transactions

    def transactions(segment: Any, data: bytes) -> Any:
        segment_of_all = segment.__class__(**{**_fields(segment), "max": 1 << 40})
        return read(segment_of_all, data)

    def image(self: restore.Restorer, manifest: Manifest, txid: int | None = None) -> bytearray:
        wanted = manifest.head_txid if txid is None else txid
        plan = manifest.plan(wanted)
        found = restore._snapshot_image(plan.snapshot, self._read(plan.snapshot.key))
        for segment in plan.segments:
            for file in transactions(segment, self._read(segment.key)):
                if plan.snapshot.txid < file.max_txid <= wanted:
                    restore.apply_to_image(found, file)
        return found

    restore.Restorer.image = image  # type: ignore[method-assign]


def _fields(entry: Any) -> dict[str, Any]:
    return {name: getattr(entry, name) for name in entry.__slots__}


@pytest.mark.parametrize(
    "broken",
    [
        no_fence,
        acknowledged_before_the_store_has_it,
        a_lost_race_taken_for_won,
        unshipped_commits_forgotten,
        cut_objects_read_whole,
    ],
)
def test_a_broken_engine_is_found_out(broken: Callable[[], None]) -> None:
    found = list(islice(failures(range(200), broken), 1))
    assert found, "200 runs saw nothing wrong"
