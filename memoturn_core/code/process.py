"""The worker process: takes jobs from its stdin one after the other, and tells on its stdout how they end.

It is started with an empty environment in a session of its own, confines itself before it takes the first job, and
ends when its stdin does, that is with the process that started it, even in the middle of a run. Run as
`python -m memoturn_core.code.process GUEST`; started by `worker`.
"""

from __future__ import annotations

import json
import os
import resource
import select
import sys
import threading
from pathlib import Path

from memoturn_core.code import frames
from memoturn_core.code.interpreter import Interpreter, Job
from memoturn_core.code.limits import PRESETS

_IN, _OUT = 0, 1
_BESIDE_GUEST = 512 << 20
"""Of data in this process, beside the guest's memory: the loaded code, and what is printed on its way through."""
_ADDRESSES = 16 << 30
"""Far more than is used: Wasmtime reserves 4 GiB for each memory, so that accesses need no checks."""


def main() -> None:
    os.chdir("/")
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    interpreter = Interpreter(Path(sys.argv[1]))
    _send(frames.READY, json.dumps(_confine()).encode())
    while (frame := frames.read(_take)) is not None:
        job = _job(frame[1])
        _limit_cpu(job.seconds)
        ending = interpreter.run(job, _printed)
        told = {"kind": ending.kind, "answer": ending.answer, "milliseconds": ending.milliseconds}
        _send(frames.ENDED, json.dumps(told).encode())


def _job(payload: bytes) -> Job:
    said = json.loads(payload)
    return Job(said["code"], said["input"], bytes.fromhex(said["seed"]), said["seconds"], said["memory_bytes"])


def _confine() -> dict[str, int]:
    """Give up what is not needed any more, for good; which limits hold now."""
    most = max(preset.memory_bytes for preset in PRESETS.values())
    wanted = {
        "CORE": 0,
        "FSIZE": 0,
        "NOFILE": 16,
        "NPROC": 0,  # threads count, too, and all of them run by now
        "DATA": most + _BESIDE_GUEST,
        "AS": _ADDRESSES,
    }
    for name, value in wanted.items():
        kind = getattr(resource, f"RLIMIT_{name}", None)
        if kind is None:
            continue
        try:
            resource.setrlimit(kind, (value, value))
        except (OSError, ValueError):
            continue  # not every system has each of them; what holds is what is told
    return {name: resource.getrlimit(getattr(resource, f"RLIMIT_{name}"))[0] for name in wanted}


def _limit_cpu(seconds: float) -> None:
    """Have the kernel end this process should it use more than a run may and a little."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    allowed, most = int(used.ru_utime + used.ru_stime + seconds) + 2, resource.getrlimit(resource.RLIMIT_CPU)[1]
    if most == resource.RLIM_INFINITY or allowed < most:
        resource.setrlimit(resource.RLIMIT_CPU, (allowed, most))


def _end_with_parent() -> None:
    watched = select.poll()
    watched.register(_IN, 0)  # nothing but its end
    watched.poll()
    os._exit(0)


def _printed(text: bytes, on_stderr: bool) -> None:
    _send(frames.STDERR if on_stderr else frames.STDOUT, text)


def _send(kind: bytes, payload: bytes) -> None:
    left = memoryview(frames.pack(kind, payload))
    while left:
        left = left[os.write(_OUT, left) :]


def _take(size: int) -> bytes:
    taken = bytearray()
    while len(taken) < size and (piece := os.read(_IN, size - len(taken))):
        taken += piece
    return bytes(taken)


if __name__ == "__main__":
    main()
