"""Builds the guest: CPython and our few files to a component, that to machine code, and into the data directory.

Run as `python -m memoturn_core.code.build DIRECTORY`, which takes half a minute of CPU time and half a gigabyte; a
process of its own, so that neither is the node's. Of several at once one builds and the others find it done. Once
begun it goes on without whoever started it. Started by `sandbox`.
"""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from wasmtime.component import Component

from memoturn_core.code.children import environment
from memoturn_core.code.guest_file import GuestFile, sources
from memoturn_core.code.interpreter import make_engine

_SCRATCH = "build-"
_APP = "snippets"
_PACKAGE = "memoturn_core/code/guest"
_COMPONENTIZE = "import sys; from componentize_py import script; sys.exit(script())"


def build(directory: Path) -> None:
    """Have the guest that fits this program in `directory`.

    Raises:
        CalledProcessError: the component cannot be built; its output says why. OSError: the directory is unusable.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        guest = GuestFile.fitting(directory)
        if guest.is_intact():
            return
        for left in directory.glob(f"{_SCRATCH}*"):
            shutil.rmtree(left)  # by a build that was killed
        with tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=directory) as scratch:
            component = _component(Path(scratch))
            guest.write(bytes(Component.from_file(make_engine(), str(component)).serialize()))


def _component(scratch: Path) -> Path:
    package = scratch / "src" / _PACKAGE
    package.mkdir(parents=True)
    for name, content in sources().items():
        (package / name).write_bytes(content)
    for above in list(package.parents)[:2]:
        (above / "__init__.py").touch()
    app = f"from {_PACKAGE.replace('/', '.')}.run import WitWorld\n"
    (scratch / "src" / f"{_APP}.py").write_text(app)
    made = scratch / "guest.wasm"
    (scratch / "lib/python/site-packages").mkdir(parents=True)
    options = ["-q", "-d", str(package), "-w", "sandbox", "componentize", "--stub-wasi", "-p", str(scratch / "src")]
    subprocess.run(
        [sys.executable, "-c", _COMPONENTIZE, *options, _APP, "-o", str(made)],
        check=True,
        stdin=subprocess.DEVNULL,
        # The virtual environment is an empty one: nothing that is installed here gets into the guest.
        env=environment() | {"VIRTUAL_ENV": str(scratch), "PATH": ""},
    )
    return made


if __name__ == "__main__":
    build(Path(sys.argv[1]))
