"""A thousand courses of events, and whether the simulation would notice if the engine were wrong."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from itertools import islice
from typing import Any

import pytest

from memoturn_storage.branch import Branch
from memoturn_storage.branching import Branching
from memoturn_storage.handle import Handle, Result
from memoturn_storage.local import LocalFiles
from memoturn_storage.manifest import MAIN, BranchRef, Manifest
from memoturn_storage.manifests import Held, Manifests
from memoturn_storage.objects.store import PreconditionFailed
from memoturn_storage.waking import Waker
from simulation.many import failures, replay
from simulation.steps import run

SEEDS = 300


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
    def resolve(_handle: Handle, job: Any, result: Result[Any]) -> None:
        future: Future[Result[Any]] = job.future
        future.set_result(result)

    Handle._resolve = resolve  # type: ignore[method-assign]


def a_lost_race_taken_for_won() -> None:
    def update(self: Manifests, at: Any, change: Callable[[Manifest], Manifest]) -> Held:
        held = at if isinstance(at, Held) else self.require(at)
        wanted = change(held.manifest)
        try:
            return Held(wanted, self._store.put_if_match(wanted.ref.manifest_key, wanted.encode(), held.version))
        except PreconditionFailed:
            return Held(wanted, held.version)

    Manifests.update = update  # type: ignore[method-assign]


def local_files_never_kept() -> None:
    def open_local(_waker: Waker, _ref: BranchRef, files: LocalFiles, _held: Held | None) -> None:
        files.discard()

    Waker._open_local = open_local  # type: ignore[method-assign,assignment]


def a_fork_that_does_not_ship_first() -> None:
    def shipped_manifest(self: Branching, ref: BranchRef) -> Manifest:
        return self._manifests.require(ref).manifest

    Branching.shipped_manifest = shipped_manifest  # type: ignore[method-assign]


def a_collector_that_sees_main_alone() -> None:
    branches = Manifests.branches

    def main_alone(self: Manifests, uuid: str) -> list[Held]:
        return [held for held in branches(self, uuid) if held.manifest.branch == MAIN]

    Manifests.branches = main_alone  # type: ignore[method-assign]


@pytest.mark.parametrize(
    "broken",
    [
        no_fence,
        acknowledged_before_the_store_has_it,
        a_lost_race_taken_for_won,
        local_files_never_kept,
        a_fork_that_does_not_ship_first,
        a_collector_that_sees_main_alone,
    ],
)
def test_a_broken_engine_is_found_out(broken: Callable[[], None]) -> None:
    found = list(islice(failures(range(200), broken), 1))
    assert found, "200 runs saw nothing wrong"
