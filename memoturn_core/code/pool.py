"""The worker processes of a node: a few are kept for the next run, more are started when they are needed.

A run has a worker to itself. One that died or overran is gone, and the next run starts another. Used by `sandbox` on
its event loop; the work is done on threads of the pool's own, one for each run.
"""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from memoturn_core.code.limits import AT_ONCE, IDLE_S, IDLE_WORKERS
from memoturn_core.code.worker import Ended, Worker
from memoturn_storage.ambient import SystemAmbient


class _Turn:
    """One run: what has to be killed so that it ends."""

    worker: Worker | None = None
    abandoned = False


class Pool:
    def __init__(self, compiled: Path) -> None:
        self._compiled = compiled
        self._ambient = SystemAmbient()
        self._threads = ThreadPoolExecutor(AT_ONCE, "memoturn-code")
        self._lock = threading.Lock()
        self._idle: list[Worker] = []
        self._turns: set[_Turn] = set()
        self._closed = False

    async def run(self, job: dict[str, Any]) -> Ended:
        """Run a job, an `interpreter.Job` as a dictionary. Cancelled, it ends the job's process.

        Raises:
            WorkerFailed: no process could be started for it.
        """
        turn = _Turn()
        try:
            return await asyncio.wrap_future(self._threads.submit(self._run, turn, job))
        finally:
            self._abandon(turn)

    def workers(self, *, busy: bool = False) -> list[Worker]:
        """Those there are, or only those that run something."""
        with self._lock:
            running = [turn.worker for turn in self._turns if turn.worker is not None]
            return running if busy else running + self._idle

    async def aclose(self) -> None:
        """End all processes."""
        with self._lock:
            self._closed = True
            turns, idle = list(self._turns), self._idle
            self._idle = []
        for turn in turns:
            self._abandon(turn)
        for worker in idle:
            worker.close()
        await asyncio.to_thread(self._threads.shutdown, cancel_futures=True)

    def _run(self, turn: _Turn, job: dict[str, Any]) -> Ended:
        with self._lock:
            self._turns.add(turn)
        worker: Worker | None = None
        try:
            worker = self._take() or Worker(self._compiled)
            with self._lock:
                turn.worker = worker
                if turn.abandoned or self._closed:
                    worker.kill()
            ended = worker.run(job)
        finally:
            with self._lock:
                self._turns.discard(turn)
                turn.worker = None
            if worker is not None:
                self._give_back(worker)
        return ended

    def _abandon(self, turn: _Turn) -> None:
        with self._lock:
            turn.abandoned = True
            if turn.worker is not None:
                turn.worker.kill()

    def _take(self) -> Worker | None:
        """The worker that was used last; those that were not for long are let go."""
        now = self._ambient.monotonic()
        with self._lock:
            idle, self._idle = self._idle, []
            fresh = [worker for worker in idle if worker.lives and now - worker.idle_since < IDLE_S]
            taken = fresh.pop() if fresh else None
            self._idle = fresh
        for worker in idle:
            if worker is not taken and worker not in fresh:
                worker.close()
        return taken

    def _give_back(self, worker: Worker) -> None:
        worker.idle_since = self._ambient.monotonic()
        with self._lock:
            kept = worker.lives and not self._closed and len(self._idle) < IDLE_WORKERS
            if kept:
                self._idle.append(worker)
        if not kept:
            worker.close()
