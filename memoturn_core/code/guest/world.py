"""The world as a snippet sees it: an interpreter whose clock, randomness and output come from outside, and no more.

Importing this changes the interpreter that it is imported into, so only `run` does, in the sandbox. Without it a
snippet that asks for the time or opens a file would still get nowhere: whatever would leave the sandbox stops the
interpreter. Here that becomes an exception that says what is the matter.
"""

from __future__ import annotations

import builtins
import hashlib
import io
import linecache
import os
import sys
import time
from collections.abc import Callable
from typing import Any, NoReturn

import wit_world  # type: ignore[import-not-found]

from memoturn_core.code.guest.check import refused_module
from memoturn_core.code.guest.library import LATER, MODULES

_AT_ONCE = 256
_REFUSED_EVENTS = ("open", "os.", "shutil.", "socket.", "subprocess.", "ctypes.", "_thread.", "signal.", "sqlite3.")


class Channel(io.TextIOBase):
    """stdout or stderr: gives what is written to the outside line by line, and at first at once."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._line = ""
        self._at_once = _AT_ONCE

    encoding = "utf-8"

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        self._line += text
        if "\n" in text or self._at_once > 0 or len(self._line) > 1_024:
            self._at_once -= 1
            self.flush()
        return len(text)

    def flush(self) -> None:
        line, self._line = self._line, ""
        if line:
            wit_world.write(self._number, line.encode("utf-8", "backslashreplace").decode())


class _Entropy:
    """What `os.urandom` gives: SHA-256 of the run's seed and a counter."""

    seed = b""
    count = 0

    def take(self, size: int) -> bytes:
        taken = bytearray()
        while len(taken) < size:
            self.count += 1
            taken += hashlib.sha256(self.seed + self.count.to_bytes(8)).digest()
        return bytes(taken[:size])


def _refuse(event: str, _: Any) -> None:
    """The interpreter asks this before it goes to the operating system, itself too when it shows a faulty line."""
    if event.startswith(_REFUSED_EVENTS):
        raise PermissionError(f"{event} is not available in the sandbox")


def _denied(what: str) -> Callable[..., NoReturn]:
    def deny(*_: Any, **__: Any) -> NoReturn:
        raise PermissionError(f"{what} not available in the sandbox")

    return deny


def _wall() -> float:
    return _now()[0]


def _steady() -> float:
    return _now()[1]


def _now() -> tuple[float, float]:
    """What the outside says; while the component is built, when modules note the time, there is no outside."""
    wall, steady = wit_world.clock() if _entropy.seed else (0.0, 0.0)
    return wall, steady


def _nanoseconds(clock: Callable[[], float]) -> Callable[[], int]:
    return lambda: int(clock() * 1e9)


def _gmtime(seconds: float | None = None) -> time.struct_time:
    return _real_gmtime(_wall() if seconds is None else seconds)


def _asctime(moment: Any = None) -> str:
    return _real_asctime(_gmtime() if moment is None else moment)


def _ctime(seconds: float | None = None) -> str:
    return _asctime(_gmtime(seconds))


def _strftime(form: str, moment: Any = None) -> str:
    return _real_strftime(form, _gmtime() if moment is None else moment)


def _sleep(seconds: float) -> None:
    if seconds < 0:
        raise ValueError("sleep length must be non-negative")
    wit_world.pause(float(seconds))


def _import(name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0) -> Any:
    if globals is not None and globals.get("__name__") == "__main__" and refused_module(name) is not None:
        raise PermissionError(f"{name} is not available in the sandbox")
    return _real_import(name, globals, locals, fromlist, level)


def begin(seed: bytes) -> None:
    """Of each run the first: its own randomness, empty channels, and from here on nothing of the operating system."""
    import random  # noqa: TID251 - the snippet's

    _entropy.seed = seed
    random.seed(_entropy.take(32))
    sys.stdout, sys.stderr, sys.stdin = Channel(1), Channel(2), io.StringIO()
    sys.addaudithook(_refuse)


def _replace(members: dict[Any, dict[str, Any]]) -> None:
    for module, replaced in members.items():
        for name, member in replaced.items():
            setattr(module, name, member)


# Once, when the component is built; the state after that is what every run begins with.
_entropy = _Entropy()
_real_import = builtins.__import__
_real_gmtime, _real_asctime, _real_strftime = time.gmtime, time.asctime, time.strftime
_clocks = {
    "time": _wall,
    **dict.fromkeys(("monotonic", "perf_counter", "process_time", "thread_time"), _steady),
}
_replace(
    {
        os: {"urandom": _entropy.take, "stat": _denied("files are"), "lstat": _denied("files are")},
        time: {
            **_clocks,
            **{f"{name}_ns": _nanoseconds(clock) for name, clock in _clocks.items()},
            "sleep": _sleep,
            "gmtime": _gmtime,
            "localtime": _gmtime,
            "asctime": _asctime,
            "ctime": _ctime,
            "strftime": _strftime,
        },
    }
)
sys.modules["_datetime"] = None  # type: ignore[assignment] # it has a clock of its own; that in Python asks `time`
for _name in (*MODULES, *LATER):
    _real_import(_name)
_replace(
    {
        builtins: {
            "__import__": _import,
            "open": _denied("files are"),
            "input": _denied("stdin is"),
            "breakpoint": _denied("a debugger is"),
            "exit": sys.exit,
            "quit": sys.exit,
        },
        **{
            module: dict.fromkeys(("open", "open_code", "FileIO"), _denied("files are"))
            for module in (io, sys.modules["_io"])
        },
        # What tracebacks show is what `run` has put there.
        linecache: {"updatecache": lambda *_, **__: [], "checkcache": lambda *_, **__: None},
        sys: {"path": [], "meta_path": [], "path_hooks": []},
    }
)
sys.path_importer_cache.clear()
