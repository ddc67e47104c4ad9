"""Nodes as processes of their own, which tests kill, and clients that judge what they answer.

Each node is `memoturn serve`, forked from a process that has imported the program and done nothing else, so that
a start costs no imports and a loop of kills is short. A node's stderr is a pipe of the test's: its end is how one
knows that the process is gone. Used by the tests beside it, through the fixture `launch`.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import apsw
import httpx

from contract.live_node import Memory, assert_envelope
from memoturn_storage.ambient import SystemAmbient
from memoturn_storage.connection import open_memory
from memoturn_storage.manifest import BranchRef
from memoturn_storage.manifests import Manifests
from memoturn_storage.objects.store import ObjectStore
from memoturn_storage.restore import Restorer

WAIT = 30
"""Seconds after which something that should have happened counts as hung."""

KILLS = int(os.environ.get("MEMOTURN_TEST_KILLS", "10"))
"""Kills in each loop."""

DURABLE = {"Memoturn-Durability": "durable"}

_FORKS = """
import gc, json, os, signal, sys
import uvicorn.lifespan.on, uvicorn.loops.auto, uvicorn.protocols.http.auto, uvicorn.protocols.websockets.auto
import memoturn_core.registry, memoturn_mcp.app, memoturn_mcp.cli.main, memoturn_mcp.serving
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
gc.freeze()
while order := sys.stdin.readline():
    arguments, environment, stderr = json.loads(order)
    child = os.fork()
    if child == 0:
        os.dup2(os.open(stderr, os.O_WRONLY), 2)
        os.dup2(os.open(os.devnull, os.O_RDWR), 0)
        os.dup2(0, 1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.environ.clear()
        os.environ.update(environment)
        sys.argv = ["memoturn", *arguments]
        memoturn_mcp.cli.main.main()
    print(child, flush=True)
"""


class Node:
    """A running `memoturn serve`; `said` is its stderr so far."""

    def __init__(self, pid: int, home: Path, stderr: Path) -> None:
        self.pid = pid
        self.home = home
        self.said: list[str] = []
        self._urls: SimpleQueue[str | None] = SimpleQueue()
        self._reader = threading.Thread(target=self._listen, args=(stderr,))
        self._reader.start()
        url = self._urls.get(timeout=WAIT)
        assert url is not None, "".join(self.said)
        hooks: Any = {"response": [self._judge]}
        self.http = httpx.Client(base_url=url, trust_env=False, timeout=WAIT, event_hooks=hooks)

    def memory(self, profile: str, namespace: str = "acme") -> Memory:
        return Memory(self.http, namespace, profile)

    def metrics(self) -> dict[str, float]:
        """Every number at `/metrics` that has no labels, without the prefix of its name."""
        lines = self.http.get("/metrics").text.splitlines()
        pairs = [line.removeprefix("memoturn_").split() for line in lines if line[0] != "#" and "{" not in line]
        return {name: float(value) for name, value in pairs}

    def unshipped(self) -> float:
        return self.metrics()["unshipped_transactions"]

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """As a supervisor does it: what is left to ship is shipped first."""
        self._end(signal.SIGTERM)

    def _end(self, number: int) -> None:
        if self._reader.is_alive():
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)
        self._reader.join(WAIT)
        assert not self._reader.is_alive(), "the process does not end"
        self.http.close()

    def _listen(self, stderr: Path) -> None:
        with stderr.open() as lines:
            for line in lines:
                self.said.append(line)
                if found := re.match(r"memoturn: listening on (http://\S+)", line):
                    self._urls.put(found[1])
        self._urls.put(None)

    def _judge(self, response: httpx.Response) -> None:
        if response.status_code >= 400:
            response.read()
            assert_envelope(response)
            assert str(self.home.parent) not in response.text, "a path of the host"


@dataclass
class Launcher:
    """Starts nodes; whatever still runs when the test ends is killed."""

    forks: subprocess.Popen[str]
    directory: Path
    running: list[Node] = field(default_factory=list)
    _count: int = 0

    def __call__(self, home: Path, store: str | None = None, **variables: str) -> Node:
        """A node on a data directory, by variables without their prefix, once it listens.

        Raises:
            AssertionError: it ended at once; the message is what it said.
        """
        self._count += 1
        stderr = self.directory / f"stderr-{self._count}"
        os.mkfifo(stderr)
        settings = {"DATA_DIR": str(home), "LISTEN": "127.0.0.1:0", "LOG_LEVEL": "error", **variables}
        if store is not None:
            settings["OBJECT_STORE"] = store
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MEMOTURN_")}
        environment |= {f"MEMOTURN_{name}": value for name, value in settings.items()}
        assert self.forks.stdin is not None and self.forks.stdout is not None
        self.forks.stdin.write(json.dumps([["serve"], environment, str(stderr)]) + "\n")
        self.forks.stdin.flush()
        node = Node(int(self.forks.stdout.readline()), home, stderr)
        self.running.append(node)
        return node

    def kill_all(self) -> None:
        for node in self.running:
            node.kill()
        self.running.clear()


@contextmanager
def forking(prefix: tuple[str, ...] = ()) -> Iterator[subprocess.Popen[str]]:
    """The process from which nodes are forked; `prefix` is what it is run by."""
    command = [*prefix, sys.executable, "-c", _FORKS]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


# --- waiting -------------------------------------------------------------------------------------


def wait_until(holds: Callable[[], bool], what: str) -> None:
    """Ask until it holds; what another process does cannot be waited for in another way."""
    deadline = time.monotonic() + WAIT
    pause = threading.Event()
    while not holds():
        assert time.monotonic() < deadline, f"still not so: {what}"
        pause.wait(0.01)


# --- what is there -------------------------------------------------------------------------------


def summaries(memory: Memory, **options: Any) -> set[str]:
    """Every memory that has the word `note`."""
    return {hit["summary"] for hit in memory.found(query="note", k=1_000, **options)}


def turns(memory: Memory, session: str = "s") -> list[tuple[int, str]]:
    """A transcript: sequence numbers and contents."""
    response = memory.http.get(f"{memory.database}/memory/{session}/turns", params={"last": 1_000})
    assert response.status_code == 200, response.text
    return [(turn["seq"], turn["content"]) for turn in response.json()["turns"]]


def sync(memory: Memory) -> httpx.Response:
    return memory.http.post(f"{memory.database}/sync")


def act(memory: Memory, what: str, branch: str = "main", **body: Any) -> httpx.Response:
    """`checkpoint`, `rewind` or `promote` a branch."""
    return memory.http.post(f"{memory.database}/branches/{branch}/{what}", json=body)


def fork(memory: Memory, name: str, **body: Any) -> httpx.Response:
    return memory.http.post(f"{memory.database}/branches", json={"name": name, **body})


def uuid_of(store: ObjectStore, memory: Memory) -> str:
    entry = json.loads(store.get(f"v1/_catalog/names/{memory.namespace}--{memory.profile}").data)
    uuid: str = entry["uuid"]
    return uuid


def shipped(store: ObjectStore, ref: BranchRef) -> int:
    """The head in the object store; 0 where there is none."""
    held = Manifests(store, SystemAmbient()).read(ref)
    return 0 if held is None else held.manifest.head_txid


@contextmanager
def restored(store: ObjectStore, ref: BranchRef) -> Iterator[apsw.Connection]:
    """The branch's newest state as the object store alone has it, every checksum verified, and whole."""
    held = Manifests(store, SystemAmbient()).require(ref)
    connection = open_memory(bytes(Restorer(store).image(held.manifest)))
    try:
        assert_whole(connection)
        assert connection.execute("SELECT txid FROM __memoturn_txid").get == held.manifest.head_txid
        yield connection
    finally:
        connection.close()


def assert_whole(connection: apsw.Connection) -> None:
    """SQLite and FTS5 find nothing wrong, and no transcript has a gap or a number twice."""
    assert connection.execute("PRAGMA integrity_check").get == "ok"
    for table in ("__memoturn_memories_fts", "__memoturn_turns_fts"):
        connection.execute(f"INSERT INTO {table} ({table}, rank) VALUES ('integrity-check', 1)")


def contents(connection: apsw.Connection) -> Mapping[str, list[Any]]:
    """Every row of every table that a user would miss."""
    return {
        "memories": connection.execute("SELECT * FROM __memoturn_memories ORDER BY rowid").fetchall(),
        "turns": connection.execute("SELECT * FROM __memoturn_turns ORDER BY rowid").fetchall(),
        "txid": connection.execute("SELECT txid FROM __memoturn_txid").fetchall(),
    }
