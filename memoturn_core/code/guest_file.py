"""The compiled guest in the data directory: which one fits this program, and whether it is as it was written.

`sandbox/guest-<key>.cwasm` is machine code, of which only what this program wrote may be loaded, so its checksum is
kept beside it in `guest-<key>.json`, which is written last. The key stands for everything that the code depends on.
Used by `build`, which writes both, and by `sandbox`.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from memoturn_core.code import guest

_FORMAT = 1
"""Of these files and of how the guest is compiled (`interpreter.make_engine`)."""
PARTS = ("wasmtime", "componentize-py")
SOURCES = Path(guest.__file__).parent


def missing() -> str | None:
    """What has to be run before a guest can be built and loaded, None where everything is installed."""
    installed = all(find_spec(name.replace("-", "_")) is not None for name in PARTS)
    return None if installed else "pip install 'memoturn[code]'"


def sources() -> dict[str, bytes]:
    """The guest's own files by name."""
    return {path.name: path.read_bytes() for path in sorted(SOURCES.iterdir()) if path.suffix in (".py", ".wit")}


@dataclass(frozen=True, slots=True)
class GuestFile:
    """The guest of one key in a directory; whether it is there is asked of its methods."""

    directory: Path
    key: str

    @classmethod
    def fitting(cls, directory: Path) -> GuestFile:
        """The one for this program, these versions and this machine. The parts must be installed."""
        parts = [f"{name} {version(name)}" for name in PARTS]
        kept = hashlib.sha256(repr((_FORMAT, parts, sys.platform, platform.machine(), sources())).encode())
        return cls(directory, kept.hexdigest()[:16])

    @property
    def compiled(self) -> Path:
        return self.directory / f"guest-{self.key}.cwasm"

    @property
    def stamp(self) -> Path:
        return self.directory / f"guest-{self.key}.json"

    def is_intact(self) -> bool:
        """Whether it is this user's, closed to others, and byte for byte what was written; takes some 50 ms."""
        try:
            said = self._said()
            status = self.compiled.stat()
            if status.st_uid != os.getuid() or status.st_mode & 0o077:
                return False
            with self.compiled.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest() == said.get("sha256")
        except FileNotFoundError:
            return False

    def is_tested(self) -> bool:
        """Whether a process has seen it refuse everything that it must refuse."""
        try:
            return bool(self._said().get("tested")) and self.compiled.exists()
        except FileNotFoundError:
            return False

    def write(self, compiled: bytes) -> None:
        """Keep a guest that was just compiled. A crash leaves it whole or not at all."""
        _write(self.compiled, compiled)
        self._say({"sha256": hashlib.sha256(compiled).hexdigest(), "tested": []})
        for path in self.directory.glob("guest-*"):
            if path not in (self.compiled, self.stamp):
                path.unlink(missing_ok=True)

    def mark_tested(self, denials: list[str]) -> None:
        """Write down which denials were tried and held."""
        self._say({**self._said(), "tested": denials})

    def _said(self) -> dict[str, object]:
        try:
            said = json.loads(self.stamp.read_bytes())
        except ValueError:
            return {}
        return said if isinstance(said, dict) else {}

    def _say(self, said: dict[str, object]) -> None:
        _write(self.stamp, json.dumps(said, indent=1).encode())


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_name(f"tmp-{os.getpid()}-{path.name}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)
    temporary.replace(path)
