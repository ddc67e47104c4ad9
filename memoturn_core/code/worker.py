"""One worker process, as the one that started it has it: a job goes in, its ending comes out.

Everything here blocks; called by `pool` on its threads, but for `kill`, which any thread may call.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from memoturn_core.code import frames
from memoturn_core.code.children import command, environment
from memoturn_core.code.limits import ANSWER_BYTES, OUTPUT_BYTES
from memoturn_storage.ambient import SystemAmbient

_READY_WITHIN_S = 20.0
_GRACE_S = 1.0
"""After a job's time, in which the worker itself says that it was up."""
_MOST_BYTES = 2 * OUTPUT_BYTES + 8 * ANSWER_BYTES
"""That an honest worker sends for a job."""


@dataclass(frozen=True, slots=True)
class Ended:
    """What came of a job: `kind` and `answer` as of `interpreter.Ending`, or `died` or `overran`."""

    kind: str
    answer: str
    stdout: str
    stderr: str
    milliseconds: float
    exit_status: int | None = None
    """Of a worker that died."""


class WorkerFailed(Exception):
    """A worker could not be started."""


class Worker:
    """A process that runs one job at a time. Of no use any more once a job ended with `died` or `overran`."""

    def __init__(self, compiled: Path) -> None:
        """Start it, in some 0.3 s.

        Raises:
            WorkerFailed: it did not get ready.
        """
        self._ambient = SystemAmbient()
        self._process = subprocess.Popen(
            command("memoturn_core.code.process", str(compiled)),
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment(),
            start_new_session=True,
        )
        self._in, self._out = _pipe(self._process.stdin), _pipe(self._process.stdout)
        self._frames = frames.Unpacked()
        self.idle_since = 0.0
        ready = self._came(self._ambient.monotonic() + _READY_WITHIN_S)
        if ready is None:
            self.kill()
            raise WorkerFailed("a worker process did not get ready")
        self.limits: dict[str, int] = json.loads(ready[0][1])
        """Of the kernel's, which hold for it."""

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def lives(self) -> bool:
        return self._process.poll() is None

    def run(self, job: dict[str, Any]) -> Ended:
        """Run a job, an `interpreter.Job` as a dictionary; the worker is killed if it goes on beyond its time."""
        started = self._ambient.monotonic()
        deadline = started + job["seconds"] + _GRACE_S
        printed: dict[bytes, bytearray] = {frames.STDOUT: bytearray(), frames.STDERR: bytearray()}
        kind, answer, milliseconds = "overran", "", None
        received = 0
        try:
            self._in.write(frames.pack(frames.JOB, json.dumps(job).encode()))
            while kind == "overran" and received < _MOST_BYTES and (came := self._came(deadline)) is not None:
                for name, payload in came:
                    received += len(payload)
                    if name in printed:
                        printed[name] += payload
                    else:
                        said = json.loads(payload)
                        kind, answer, milliseconds = said["kind"], said["answer"], said["milliseconds"]
        except OSError:
            pass  # it has died, as is found below
        status = None
        if kind == "overran":
            # What ended by itself has closed its pipe and may take a moment to be gone.
            status = self._ended(0.2 if self._ambient.monotonic() < deadline else 0.0)
            kind = "overran" if status is None else "died"
            self.kill()
        if milliseconds is None:
            milliseconds = round((self._ambient.monotonic() - started) * 1_000, 3)
        stdout, stderr = (bytes(text).decode(errors="replace") for text in printed.values())
        return Ended(kind, answer, stdout, stderr, milliseconds, status)

    def kill(self) -> None:
        """End it and whatever it may have started, now; may be called again."""
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def close(self) -> None:
        """Kill it and let its pipes go; by the thread that runs its jobs, when it runs none."""
        self.kill()
        self._in.close()
        self._out.close()

    def _ended(self, within_s: float) -> int | None:
        try:
            return self._process.wait(within_s)
        except subprocess.TimeoutExpired:
            return None

    def _came(self, deadline: float) -> list[frames.Frame] | None:
        """What comes next, at least one frame, or None where nothing more comes until the deadline."""
        poll = select.poll()
        poll.register(self._out, select.POLLIN)
        while (left := deadline - self._ambient.monotonic()) > 0:
            if not poll.poll(left * 1_000):
                continue
            piece = self._out.read(1 << 16)
            if not piece:
                return None
            came = self._frames.feed(piece)
            if came:
                return came
        return None


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None  # noqa: S101 - as both were asked for
    return pipe
