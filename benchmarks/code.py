"""What running a snippet costs, beside the bound: the same guest instantiated and run by bare Wasmtime in this process.

    python -m benchmarks.code [--directory DIRECTORY]

DIRECTORY has the guest or gets it, which takes half a minute. `cold` is a worker process from its start to the end of
its first run; `warm` runs on one that waits; the bounds are interleaved with them. Times are in milliseconds.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.measure import percentile
from memoturn_core.code.build import build
from memoturn_core.code.guest_file import GuestFile
from memoturn_core.code.interpreter import Interpreter, Job
from memoturn_core.code.limits import PRESETS
from memoturn_core.code.sandbox import Sandbox
from memoturn_core.code.worker import Worker
from memoturn_storage.ambient import SystemAmbient

SNIPPETS = {
    "1 + 1": "1 + 1",
    "a loop of 100 000": "total = 0\nfor i in range(100_000):\n    total += i * i\ntotal",
    "a JSON of 2 000 objects": "import json\nlen(json.dumps([{'a': i} for i in range(2_000)]))",
    "100 lines printed": "for i in range(100):\n    print(i)",
}
LIMITS = PRESETS["default"]


def job(code: str) -> Job:
    return Job(code, "null", b"seed", LIMITS.seconds, LIMITS.memory_bytes)


def as_dict(code: str) -> dict[str, object]:
    return {
        "code": code,
        "input": "null",
        "seed": b"seed".hex(),
        "seconds": LIMITS.seconds,
        "memory_bytes": LIMITS.memory_bytes,
    }


def took(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return (time.perf_counter() - started) * 1_000


def row(name: str, times: list[float], bounds: list[float]) -> None:
    p50, p99, bound = percentile(times, 0.5), percentile(times, 0.99), percentile(bounds, 0.5)
    print(f"{name:32} {p50:8.2f} {p99:8.2f} {bound:8.2f} {p50 / bound:7.2f} {len(times):5}", flush=True)


async def warm(directory: Path, interpreter: Interpreter) -> None:
    sandbox = Sandbox(directory, SystemAmbient())
    try:
        started = time.perf_counter()
        await sandbox.run("1", None, LIMITS)
        print(f"{'ready, self-test included':32} {(time.perf_counter() - started) * 1_000:8.2f}")
        for name, code in SNIPPETS.items():
            times, bounds = [], []
            for _ in range(200):
                started = time.perf_counter()
                await sandbox.run(code, None, LIMITS)
                times.append((time.perf_counter() - started) * 1_000)
                bounds.append(took(lambda code=code: interpreter.run(job(code), lambda *_: None)))  # type: ignore[misc]
            row(f"warm: {name}", times, bounds)
    finally:
        await sandbox.aclose()


def cold(compiled: Path) -> None:
    def first() -> None:
        worker = Worker(compiled)
        worker.run(as_dict("1 + 1"))
        worker.close()

    def bare() -> None:
        Interpreter(compiled).run(job("1 + 1"), lambda *_: None)

    times, bounds = [], []
    for _ in range(20):
        times.append(took(first))
        bounds.append(took(bare))
    row("cold: 1 + 1", times, bounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--directory", type=Path, default=Path(".cache/sandbox"))
    directory = parser.parse_args().directory.absolute()
    build(directory)
    compiled = GuestFile.fitting(directory).compiled
    print(f"{'':32} {'p50':>8} {'p99':>8} {'bound':>8} {'ratio':>7} {'n':>5}")
    cold(compiled)
    asyncio.run(warm(directory, Interpreter(compiled)))


if __name__ == "__main__":
    main()
