"""The installed script `memoturn` in processes of their own: commands that end, and nodes. Used by the CLI's tests."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SCRIPT = str(Path(sys.executable).with_name("memoturn"))
NOBODY_LISTENS = "http://127.0.0.1:1"
TIMEOUT_S = 60
MANY = 1_001
"""Memories, more than one batch holds."""


@dataclass(frozen=True)
class Done:
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert self.code == 0, self.err
        assert self.out.endswith("\n")
        assert self.out.count("\n") == 1, "one compact document on one line"
        return json.loads(self.out)


@dataclass(frozen=True)
class Shell:
    """Runs `memoturn` with a data directory of its own."""

    home: Path

    def environment(self, **more: str) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MEMOTURN_", "COLUMNS"))}
        return {**inherited, "MEMOTURN_DATA_DIR": str(self.home), "MEMOTURN_LISTEN": "127.0.0.1:0", **more}

    def __call__(self, *arguments: str, stdin: bytes = b"", **variables: str) -> Done:
        done = subprocess.run(
            [SCRIPT, *arguments],
            input=stdin,
            capture_output=True,
            env=self.environment(**variables),
            timeout=TIMEOUT_S,
        )
        return Done(done.returncode, done.stdout.decode(), done.stderr.decode())

    def together(self, *commands: tuple[str, ...]) -> list[Done]:
        """Commands that do not wait for each other."""
        with ThreadPoolExecutor(max_workers=3) as pool:
            return list(pool.map(lambda command: self(*command), commands))

    def on_a_terminal(self, *arguments: str, columns: int = 80) -> Done:
        """Run it with stdout on a terminal; what it writes there is read to the end."""
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        process = subprocess.Popen(
            [SCRIPT, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=theirs,
            stderr=subprocess.PIPE,
            env=self.environment(TERM="xterm-256color"),
        )
        os.close(theirs)
        shown = bytearray()
        try:
            while chunk := os.read(ours, 65_536):
                shown += chunk
        except OSError as error:  # how Linux says that the terminal's other side is closed
            if error.errno != errno.EIO:
                raise
        os.close(ours)
        _, said = process.communicate(timeout=TIMEOUT_S)
        return Done(process.returncode, shown.decode().replace("\r\n", "\n"), said.decode())


@dataclass(frozen=True)
class RunningNode:
    process: subprocess.Popen[bytes]
    url: str
    shell: Shell
    ids: tuple[str, ...] = ()
    """Of the memories that it was given before it started."""


def start_node(shell: Shell, *flags: str, **variables: str) -> RunningNode:
    """`memoturn serve`, once it has said where it listens."""
    process = subprocess.Popen(
        [SCRIPT, "serve", *flags],
        stderr=subprocess.PIPE,
        env=shell.environment(**variables),
        stdin=subprocess.DEVNULL,
    )
    assert process.stderr is not None
    for line in process.stderr:
        found = re.match(rb"memoturn: listening on (http://\S+)", line)
        if found:
            threading.Thread(target=process.stderr.read, daemon=True).start()
            return RunningNode(process, found[1].decode(), shell)
    raise AssertionError("the node ended before it listened")


def stop_node(node: RunningNode) -> int:
    node.process.send_signal(signal.SIGINT)
    code = node.process.wait(TIMEOUT_S)
    assert node.process.stderr is not None
    node.process.stderr.close()
    return code


def as_error(done: Done) -> str:
    """What a failed command said: nothing on stdout, no traceback, one line and perhaps hints."""
    assert done.out == ""
    assert "Traceback" not in done.err
    first, *hints = done.err.splitlines()
    assert first.startswith("memoturn: ")
    assert all(hint.startswith("hint: ") for hint in hints)
    return done.err
