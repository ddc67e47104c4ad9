"""CPython as a WebAssembly component under Wasmtime: from the compiled guest to one run in a fresh instance.

What keeps a snippet in is here. The component imports three functions and nothing else, so there is no file,
socket, variable or process that it could ask for. Its memory is capped, its instructions are counted (fuel), and at
the deadline the engine's epoch is advanced, which stops it wherever it is. Only the worker process, the build
and the benchmark import this, and with it Wasmtime.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from wasmtime import Config, Engine, Store, WasmtimeError
from wasmtime.component import Component, Linker

from memoturn_core.code.limits import ANSWER_BYTES, OUTPUT_BYTES
from memoturn_storage.ambient import SystemAmbient

_FUEL_A_SECOND = 40_000_000_000
"""Instructions; three times what the fastest loops manage, as the deadline is what should end them."""
_ENDINGS = {
    "wasm trap: interrupt": "timeout",
    "all fuel consumed": "timeout",
    "call stack exhausted": "too_deep",
    "`unreachable` instruction": "aborted",
}
"""By what a trap's message has in it."""
_GIVING_UP = ("libc.so!abort", "!fatal_error", "std::panicking")
"""Functions by which the interpreter ends itself; it would tell why, and stumbles over that being a system call."""
_STUB = re.compile(
    r"backtrace:\n +0: +0x[0-9a-f]+ - <unknown>!<wasm function \d+>\n.*`unreachable` instruction", re.DOTALL
)
"""A trap in what stands in a system call's place: the only functions of the guest without a name and a module's."""

Write = Callable[[bytes, bool], None]
"""Takes what a snippet prints, and whether that is on stderr."""


@dataclass(frozen=True, slots=True)
class Job:
    """One run: the snippet, its input as JSON, the seed of its randomness, and its limits."""

    code: str
    input: str
    seed: bytes
    seconds: float
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run ended, `answer` being what the interpreter said where the kind is `answered`.

    The others are `timeout`, `too_deep`, `aborted`, `system_call`, `flood` and `failed`.
    """

    kind: str
    answer: str
    milliseconds: float


def make_engine() -> Engine:
    """The engine by which the guest is compiled and loaded; both must be configured the same."""
    config = Config()
    config.consume_fuel = True
    config.epoch_interruption = True
    return Engine(config)


class _Flood(Exception):
    """More was printed than a run may."""


class _TimeIsUp(Exception):
    """It would sleep beyond its deadline."""


class Interpreter:
    """The compiled guest, ready to be run; by one thread."""

    def __init__(self, compiled: Path) -> None:
        """Load it, in some 15 ms. Starts a thread of its own, which ends with the process."""
        self._engine = make_engine()
        self._component = Component.deserialize_file(self._engine, str(compiled))
        self._linker = Linker(self._engine)
        with self._linker.root() as root:
            root.add_func("write", self._written)
            root.add_func("clock", self._clock)
            root.add_func("pause", self._pause)
        self._ambient = SystemAmbient()
        self._deadline: float | None = None
        self._changed = threading.Condition()
        self._never = threading.Event()
        self._left = 0
        self._write: Write = _nowhere
        threading.Thread(target=self._watch, name="deadline", daemon=True).start()

    def run(self, job: Job, write: Write) -> Ending:
        """Run a snippet in an instance of its own, of which nothing is left afterwards."""
        self._write, self._left = write, OUTPUT_BYTES
        started = self._ambient.monotonic()
        store = Store(self._engine)
        try:
            store.set_limits(memory_size=job.memory_bytes, table_elements=100_000, instances=40, tables=10, memories=5)
            store.set_fuel(round(job.seconds * _FUEL_A_SECOND))
            store.set_epoch_deadline(1)
            self._until(started + job.seconds)
            kind, answer = self._call(store, job)
        finally:
            self._until(None)
            store.close()
        return Ending(kind, answer, round((self._ambient.monotonic() - started) * 1_000, 3))

    def _call(self, store: Store, job: Job) -> tuple[str, str]:
        try:
            instance = self._linker.instantiate(store, self._component)
            function = instance.get_func(store, "run")
            if function is None:
                return "failed", ""
            answer = function(store, job.code, job.input, job.seed)
            if not isinstance(answer, str) or len(answer.encode()) > ANSWER_BYTES:
                return "flood", ""
            return "answered", answer
        except _Flood:
            return "flood", ""
        except _TimeIsUp:
            return "timeout", ""
        except WasmtimeError as error:
            return _ending(str(error)), ""
        except Exception:  # noqa: BLE001 - what a host function makes of arguments that no honest caller has
            return "failed", ""

    def _written(self, _: object, channel: int, text: str) -> None:
        written = text.encode()
        self._left -= len(written)
        if self._left < 0:
            raise _Flood
        self._write(written, channel == 2)

    def _clock(self, _: object) -> tuple[float, float]:
        return self._ambient.now_ms() / 1_000, self._ambient.monotonic()

    def _pause(self, _: object, seconds: float) -> None:
        """Sleep; what would go on beyond the deadline ends the run there."""
        left = (self._deadline or 0.0) - self._ambient.monotonic()
        self._never.wait(max(0.0, min(seconds, left)))
        if not seconds < left:
            raise _TimeIsUp

    def _until(self, deadline: float | None) -> None:
        with self._changed:
            self._deadline = deadline
            self._changed.notify()

    def _watch(self) -> None:
        """Stop the run whose deadline has come."""
        with self._changed:
            while True:
                left = None if self._deadline is None else self._deadline - self._ambient.monotonic()
                if left is not None and left <= 0:
                    self._engine.increment_epoch()
                    self._deadline = left = None
                self._changed.wait(left)


def _ending(trap: str) -> str:
    if _STUB.search(trap) and not any(name in trap for name in _GIVING_UP):
        return "system_call"
    return next((kind for part, kind in _ENDINGS.items() if part in trap), "failed")


def _nowhere(_: bytes, __: bool) -> None:
    raise _Flood
