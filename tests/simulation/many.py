"""Many runs side by side, in processes of their own."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator

from simulation.model import Violation
from simulation.steps import MEMORY, run

_CHUNK = 20


def replay(seed: int) -> str:
    return f"PYTHONPATH=tests python -m simulation --seed {seed}"


def failures(seeds: Iterable[int], prepare: Callable[[], None] | None = None) -> Iterator[tuple[int, str]]:
    """The seeds that break a promise, in order, with their traces; `prepare` runs first in each process."""
    # Whoever stops early leaves runs unfinished, whose files go with the directory.
    with (
        tempfile.TemporaryDirectory(prefix="memoturn-simulation-", dir=MEMORY, ignore_cleanup_errors=True) as files,
        multiprocessing.get_context("spawn").Pool(os.cpu_count(), _begin, (files, prepare)) as pool,
    ):
        for seed, violation in pool.imap(_outcome, seeds, _CHUNK):
            if violation is not None:
                yield seed, violation


def _begin(files: str, prepare: Callable[[], None] | None) -> None:
    tempfile.tempdir = files
    if prepare is not None:
        prepare()


def _outcome(seed: int) -> tuple[int, str | None]:
    try:
        run(seed)
    except Violation as violation:
        return seed, str(violation)
    return seed, None
