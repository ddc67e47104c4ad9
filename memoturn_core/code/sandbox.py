"""The sandbox of a node: it gets itself ready when it is first needed, and runs so many snippets at once and no more.

Ready means that the guest is in the data directory, built by `build` if it was not, that it is byte for byte what was
built, and that this process has tried what it must refuse (`selftest`). Short of that nothing is run: there is no
weaker way. Made by the composition root, closed with the node; the operation `execute_code` calls `run`.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path
from typing import Any

import structlog

from memoturn_core.code.children import command, environment
from memoturn_core.code.guest_file import GuestFile, missing
from memoturn_core.code.limits import AT_ONCE, WAIT_S, WAITING, Limits
from memoturn_core.code.pool import Pool
from memoturn_core.code.results import result
from memoturn_core.code.selftest import ATTEMPTS, breaches
from memoturn_core.code.worker import WorkerFailed
from memoturn_schemas.code import ExecuteResponse
from memoturn_schemas.errors import MemoturnError, Overloaded, Unavailable, Unconfigured
from memoturn_storage.ambient import Ambient, SystemAmbient

log = structlog.get_logger("memoturn")

_PREPARED_WITHIN_S = 20.0
"""How long a request waits while the sandbox gets ready."""
_PREPARED_AFTER_S = 30
"""When to come back, where that was not enough."""
_LOOK_AGAIN_S = 0.1
_AGAIN_AFTER_S = 60.0
"""Between an attempt that failed and the next one, which a request begins."""
_NOT_PREPARED = "the sandbox could not be prepared; the node's log says why"


class Sandbox:
    """Used from one event loop."""

    def __init__(self, directory: Path, ambient: Ambient, *, from_start: bool = False) -> None:
        """Nothing is done or imported yet.

        Args:
            directory: for the compiled guest; made when it is built.
            ambient: gives each run its randomness.
            from_start: whether it should be ready before a snippet needs it.
        """
        self._from_start = from_start
        self._directory = directory
        self._ambient = ambient
        self._clock = SystemAmbient()
        self._getting_ready: asyncio.Task[Pool] | None = None
        self._begun_at = 0.0
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._waiting = 0
        self._tested = False

    def offered(self) -> bool:
        """Whether agents are told of it: what is at hand has refused all that it must, in this process or before.

        One that should be ready from the start begins with it now. A look at a small file.
        """
        if self._from_start:
            self.get_ready()
        if self._getting_ready is not None and self._getting_ready.done():
            failed = self._getting_ready.cancelled() or self._getting_ready.exception() is not None
            return not failed
        if not self._tested:
            self._tested = missing() is None and GuestFile.fitting(self._directory).is_tested()
        return self._tested

    def get_ready(self) -> None:
        """Begin with it in the background, if that is not so yet."""
        self._begun()

    def worker_pids(self, *, busy: bool = False) -> list[int]:
        """The processes there are, or only those that run something."""
        task = self._getting_ready
        if task is None or not task.done() or task.cancelled() or task.exception() is not None:
            return []
        return [worker.pid for worker in task.result().workers(busy=busy)]

    async def run(self, code: str, given: Any, limits: Limits) -> ExecuteResponse:
        """Run a snippet.

        Args:
            given: its input, as parsed JSON.

        Raises:
            Unconfigured: what it needs is not installed, or does not hold on this machine.
            Unavailable: the sandbox is not ready yet, or cannot be made so now.
            Overloaded: too many snippets run and wait.
        """
        pool = await self._ready()
        await self._slot()
        try:
            return await self._run(pool, code, given, limits)
        except WorkerFailed as error:
            raise Unavailable("no process could be started for the snippet; try again") from error
        finally:
            self._slots.release()

    async def aclose(self) -> None:
        """End what runs. A guest that is being built is built to its end, for the next process."""
        task = self._getting_ready
        if task is None:
            return
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled() and task.exception() is None:
            await task.result().aclose()

    async def _run(self, pool: Pool, code: str, given: Any, limits: Limits) -> ExecuteResponse:
        job = {
            "code": code,
            "input": json.dumps(given),
            "seed": self._ambient.token(32).hex(),
            "seconds": limits.seconds,
            "memory_bytes": limits.memory_bytes,
        }
        return result(await pool.run(job))

    async def _slot(self) -> None:
        if self._slots.locked() and self._waiting >= WAITING:
            raise Overloaded(f"{AT_ONCE} snippets run and {WAITING} wait; try again")
        self._waiting += 1
        try:
            async with asyncio.timeout(WAIT_S):
                await self._slots.acquire()
        except TimeoutError:
            raise Overloaded(f"{AT_ONCE} snippets run and none ended for {WAIT_S:g} s; try again") from None
        finally:
            self._waiting -= 1

    async def _ready(self) -> Pool:
        task = self._begun()
        done, _ = await asyncio.wait([task], timeout=_PREPARED_WITHIN_S)
        if not done:
            raise Unavailable(
                f"the sandbox is being prepared, once for this version: try again in {_PREPARED_AFTER_S} s",
                retry_after_s=_PREPARED_AFTER_S,
            )
        return task.result()

    def _begun(self) -> asyncio.Task[Pool]:
        task, now = self._getting_ready, self._clock.monotonic()
        if task is None or (_may_do_better(task) and now - self._begun_at >= _AGAIN_AFTER_S):
            task = self._getting_ready = asyncio.create_task(self._make_ready())
            task.add_done_callback(_seen)
            self._begun_at = now
        return task

    async def _make_ready(self) -> Pool:
        command = missing()
        if command is not None:
            raise Unconfigured(f"running snippets needs a sandbox that is not installed here: {command}")
        guest = GuestFile.fitting(self._directory)
        started = self._clock.monotonic()
        try:
            if not await asyncio.to_thread(guest.is_intact):
                log.info("building the sandbox's interpreter; once for this version, some half a minute")
                await _build(self._directory)
                if not await asyncio.to_thread(guest.is_intact):
                    raise Unavailable(_NOT_PREPARED)
                log.info("the sandbox's interpreter is built", seconds=round(self._clock.monotonic() - started, 1))
        except OSError as error:
            raise Unavailable(_NOT_PREPARED) from error
        pool = Pool(guest.compiled)
        try:
            await self._test(pool, guest)
        except BaseException:
            await pool.aclose()
            raise
        return pool

    async def _test(self, pool: Pool, guest: GuestFile) -> None:
        async def run(code: str, limits: Limits) -> ExecuteResponse:
            return await self._run(pool, code, None, limits)

        try:
            found = await breaches(run, pool)
        except WorkerFailed as error:
            raise Unavailable("no process could be started for the sandbox; try again") from error
        if found:
            log.error("the sandbox does not hold on this machine and is not used", breaches=found)
            raise Unconfigured(f"the sandbox failed its self-test on this machine and is not used: {found[0]}")
        if not guest.is_tested():
            await asyncio.to_thread(guest.mark_tested, [attempt.name for attempt in ATTEMPTS])


async def _build(directory: Path) -> None:
    """Have the guest built by a process of its own, which goes on if this one ends first."""
    process = _builder(directory)
    while process.poll() is None:  # noqa: ASYNC110 - a child that the event loop must not end with itself
        await asyncio.sleep(_LOOK_AGAIN_S)
    if process.returncode != 0:
        raise Unavailable(_NOT_PREPARED)


def _builder(directory: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command("memoturn_core.code.build", str(directory.absolute())),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        env=environment(),
        start_new_session=True,
    )


def _may_do_better(task: asyncio.Task[Pool]) -> bool:
    return task.done() and not task.cancelled() and isinstance(task.exception(), Unavailable)


def _seen(task: asyncio.Task[Pool]) -> None:
    """A failure nobody waits for is told in the log, and to who asks next."""
    if not task.cancelled() and isinstance(task.exception(), MemoturnError):
        log.warning("the sandbox is not ready", error=str(task.exception()))
