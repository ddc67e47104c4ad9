"""The script `memoturn` for tests that run many commands: the same program, its imports done once and not each time.

A process imports the program and waits. For each command it forks a child that takes over the caller's standard
streams, environment and directory, and runs `main` as the script does. `install` puts a `memoturn` on a path that
hands its command over; `serve`, `mcp` and whatever else has to be a process of its own is run by the real script.
Run as `python -m warm_cli SOCKET`.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

SCRIPT = Path(sys.executable).with_name("memoturn")
_OWN_PROCESSES = ("serve", "mcp")

_CLIENT = """#!{python} -IS
import json, os, socket, sys
if sys.argv[1:2] and sys.argv[1] in {own}:
    os.execv({script!r}, [{script!r}, *sys.argv[1:]])
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
socket.send_fds(server, [b"!"], [0, 1, 2])
server.sendall(json.dumps([sys.argv[1:], dict(os.environ), os.getcwd()]).encode())
server.shutdown(socket.SHUT_WR)
sys.exit(int(server.recv(16) or b"70"))
"""


@cache
def install() -> Path:
    """The directory in which `memoturn` is; once for each process of the tests."""
    directory = Path(tempfile.mkdtemp(prefix="memoturn-cli-"))
    address = str(directory / "socket")
    waiting = subprocess.Popen(
        [sys.executable, "-m", "warm_cli", address],
        cwd=Path(__file__).parent,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
    )
    assert waiting.stdout is not None
    assert waiting.stdout.readline() == b"ready\n"
    atexit.register(waiting.kill)
    client = directory / "memoturn"
    client.write_text(
        _CLIENT.format(python=sys.executable, own=_OWN_PROCESSES, script=str(SCRIPT), address=address),
        encoding="utf-8",
    )
    client.chmod(0o755)
    return directory


def _wait(address: str) -> None:
    import memoturn_mcp.cli.reach
    import memoturn_mcp.cli.tables
    import memoturn_mcp.opening  # noqa: F401 - what takes longest to import
    from memoturn_mcp.cli.main import main

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen()
    print("ready", flush=True)
    while True:
        caller, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            _run(caller, main)
        caller.close()


def _run(caller: socket.socket, main: Any) -> None:
    """In the child: run one command as the script would, say its exit code, and end."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _, streams, _, _ = socket.recv_fds(caller, 1, 3)
    said = b"".join(iter(lambda: caller.recv(65_536), b""))
    arguments, environment, directory = json.loads(said)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(directory)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [str(SCRIPT), *arguments]
    sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w"), os.fdopen(2, "w", buffering=1)
    code: Any = 0
    try:
        main()
    except SystemExit as end:
        code = end.code
        if isinstance(code, str):
            print(code, file=sys.stderr)
            code = 1
    except BaseException:  # noqa: BLE001 - as an interpreter ends
        sys.excepthook(*sys.exc_info())
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    caller.sendall(b"%d" % (code or 0))
    os._exit(0)


if __name__ == "__main__":
    _wait(sys.argv[1])
