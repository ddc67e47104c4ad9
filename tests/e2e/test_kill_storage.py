"""kill -9 of nodes over an object store: on one disk, with the disk lost, in the middle of everything, and of an owner.

Whatever was acknowledged is there, as often as it was said, and whatever was not is there whole or not at all.
`MEMOTURN_TEST_KILLS` sets how often each loop kills.
"""

from __future__ import annotations

import json
import random
import shutil
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import apsw
import httpx

from contract.live_node import Memory, event
from e2e.nodes import (
    DURABLE,
    KILLS,
    WAIT,
    Launcher,
    Node,
    act,
    assert_whole,
    contents,
    fork,
    restored,
    shipped,
    summaries,
    sync,
    turns,
    uuid_of,
    wait_until,
)
from memoturn_storage.ambient import SystemAmbient
from memoturn_storage.manifest import BranchRef
from memoturn_storage.objects.file import FileStore

WRITERS = 3

ROUNDS = 10
"""Kills after which writers go on with another profile, so that one answer holds everything of each."""


@dataclass
class Written:
    """What writers have been told: `acknowledged` is a part of `sent`. `sent` may be in there once, never twice."""

    sent: set[str]
    acknowledged: set[str]
    enough: threading.Event
    goal: int = 0

    @classmethod
    def nothing(cls) -> Written:
        return cls(set(), set(), threading.Event())

    def acknowledge(self, what: str) -> None:
        self.acknowledged.add(what)
        if len(self.acknowledged) >= self.goal:
            self.enough.set()


def write_until_killed(memory: Memory, written: Written, writer: str, headers: dict[str, str]) -> None:
    """Batches of two memories, and turns where writes need not be durable, each of them told once, until the end."""
    number = 0
    while True:
        number += 1
        what = f"note {writer} {number}"
        written.sent.add(what)
        try:
            response = memory.ingest(event(what), event(f"{what} too"), headers=headers)
            assert response.status_code == 201, response.text
            if not headers:
                assert memory.append("s", "user", what).status_code == 201
        except (httpx.TransportError, RuntimeError):  # the process is gone, and its client may be closed
            return
        written.acknowledge(what)


def killed_while_writing(node: Node, memory: Memory, written: Written, round_: int, headers: dict[str, str]) -> None:
    written.goal = len(written.acknowledged) + (0, 1, 2, 5, 13, 30)[round_ % 6]
    written.enough.clear()
    if written.goal == len(written.acknowledged):
        written.enough.set()
    with ThreadPoolExecutor(WRITERS) as pool:
        writing = [pool.submit(write_until_killed, memory, written, f"{round_} {n}", headers) for n in range(WRITERS)]
        assert written.enough.wait(WAIT)
        node.kill()
        for each in writing:
            each.result(WAIT)


def require_written(memory: Memory, written: Written) -> None:
    there = summaries(memory)
    both = {what for what in written.sent if {what, f"{what} too"} <= there}
    assert both | {f"{what} too" for what in both} == there, "a batch is there in part"
    assert written.acknowledged <= both


def test_durable_writes_outlive_the_process_and_its_disk(launch: Launcher, tmp_path: Path) -> None:
    store, all_written = f"file://{tmp_path / 'store'}", defaultdict[str, Written](Written.nothing)
    for round_ in range(KILLS):
        home, profile = tmp_path / f"home-{round_}", f"alice-{round_ // ROUNDS}"
        node, written = launch(home, store), all_written[profile]
        require_written(node.memory(profile), written)
        killed_while_writing(node, node.memory(profile), written, round_, DURABLE)
        shutil.rmtree(home)
    fresh, objects = launch(tmp_path / "home", store), FileStore(tmp_path / "store", SystemAmbient())
    for profile, written in all_written.items():
        memory = fresh.memory(profile)
        require_written(memory, written)
        with restored(objects, BranchRef(uuid_of(objects, memory), "main")) as state:
            found = state.execute("SELECT summary FROM __memoturn_memories").fetchall()
            assert written.acknowledged <= {summary for (summary,) in found}


def test_what_a_killed_node_had_not_shipped_is_shipped_by_the_next_before_anybody_asks(
    launch: Launcher, tmp_path: Path
) -> None:
    home, written = tmp_path / "home", Written.nothing()
    objects = FileStore(tmp_path / "store", SystemAmbient())
    node = launch(home, f"file://{tmp_path / 'store'}")
    for round_ in range(KILLS):
        memory = node.memory(f"alice-{round_ // ROUNDS}")
        if round_ % ROUNDS == 0:
            memory.append("s", "user", "note")
            memory.keep(event("note"), event("note too"))
            written = Written({"note"}, {"note"}, threading.Event())
            uuid = uuid_of(objects, memory)
        killed_while_writing(node, memory, written, round_, {})
        here = local_state(home, uuid, tmp_path / f"copy-{round_}")
        node = launch(home, f"file://{tmp_path / 'store'}")
        [(txid,)] = here["txid"]
        ref = BranchRef(uuid, "main")
        wait_until(lambda ref=ref, txid=txid: shipped(objects, ref) >= txid, "what was left is shipped")
        with restored(objects, ref) as state:
            assert contents(state) == here
        memory = node.memory(memory.profile)
        require_written(memory, written)
        transcript = turns(memory)
        assert [seq for seq, _ in transcript] == list(range(1, len(transcript) + 1))
        said = [content for _, content in transcript]
        assert len(set(said)) == len(said)
        assert written.acknowledged <= set(said) <= written.sent


def local_state(home: Path, uuid: str, copy: Path) -> dict[str, list[object]]:
    """What the files of a process that is gone say, read from a copy, for reading changes them."""
    shutil.copytree(home / "databases" / uuid[:2] / uuid, copy)
    if not (copy / "main.db").exists():
        return {"memories": [], "turns": [], "txid": [(0,)]}
    connection = apsw.Connection(str(copy / "main.db"))
    try:
        assert_whole(connection)
        return dict(contents(connection))
    finally:
        connection.close()


# --- in the middle of everything -----------------------------------------------------------------


@dataclass(frozen=True)
class Line:
    """What a branch should hold: its memories, and what its checkpoints held."""

    notes: frozenset[str] = frozenset()
    checkpoints: tuple[tuple[str, frozenset[str]], ...] = ()

    @property
    def names(self) -> set[str]:
        return {name for name, _ in self.checkpoints}


Lines = dict[str, Line]


class Story:
    """One caller, one operation after the other, any of which a kill may interrupt."""

    def __init__(self) -> None:
        self.lines: Lines = {"main": Line()}
        self.then: Lines = self.lines
        """What is there if the operation that is under way takes effect."""
        self._random = random.Random(0)
        self._count = 0

    def run(self, node: Node) -> None:
        """Until the node is gone."""
        while True:
            self._count += 1
            call = self._next(node.memory("alice"))
            try:
                response = call()
            except (httpx.TransportError, RuntimeError):
                return
            assert response.is_success, response.text
            self.lines = self.then

    def _next(self, memory: Memory) -> Callable[[], httpx.Response]:
        """The next operation; `then` says what it does."""
        branch = self._random.choice(sorted(self.lines))
        line = self.lines[branch]
        name = f"n{self._count}"
        there = {"branch": branch}
        match self._random.choices(
            ["write", "durable", "fork", "checkpoint", "rewind", "promote", "delete"], [30, 40, 6, 12, 8, 4, 4]
        )[0]:
            case "fork" if len(self.lines) < 5:
                self.then = {**self.lines, name: replace(line, checkpoints=())}
                return lambda: fork(memory, name, **{"from": branch})
            case "checkpoint" if line.notes:
                self._become(branch, replace(line, checkpoints=(*line.checkpoints, (name, line.notes))))
                return lambda: act(memory, "checkpoint", branch, name=name)
            case "rewind" if line.checkpoints:
                position = self._random.randrange(len(line.checkpoints))
                to, notes = line.checkpoints[position]
                # Of the same state there may be several names, which all stay.
                kept = tuple(entry for entry in line.checkpoints if len(entry[1]) <= len(notes))
                self._become(branch, Line(notes, kept))
                return lambda: act(memory, "rewind", branch, to=to)
            case "promote" if branch != "main" and line.notes:
                self._become("main", line)
                return lambda: act(memory, "promote", branch)
            case "delete" if branch != "main":
                self.then = {other: kept for other, kept in self.lines.items() if other != branch}
                return lambda: memory.http.delete(f"{memory.database}/branches/{branch}")
            case how:
                notes = [event(f"note {self._count}"), event(f"note {self._count} too")]
                self._become(branch, replace(line, notes=line.notes | {note["summary"] for note in notes}))
                headers = DURABLE if how == "durable" else {}
                body = {"memories": notes}
                return lambda: memory.http.post(f"{memory.path}/memories", json=body, params=there, headers=headers)

    def _become(self, branch: str, line: Line) -> None:
        self.then = {**self.lines, branch: line}

    def found(self, memory: Memory) -> None:
        """Hold what is there against the story, which goes on from it."""
        listed = memory.http.get(f"{memory.database}/branches").json()["branches"]
        branches = {"main"} | {entry["branch"] for entry in listed}
        seen = {}
        for branch in branches:
            there = {"branch": branch}
            recall = {"query": "note", "k": 1_000}
            hits = memory.http.post(f"{memory.path}/recall", json=recall, params=there).json()["memories"]
            inspected = memory.http.get(f"{memory.database}/storage", params=there).json()
            seen[branch] = ({hit["summary"] for hit in hits}, set(inspected["checkpoints"]))
        [fitting, *_] = [lines for lines in (self.lines, self.then) if seen == _as_seen(lines)] or [None]
        assert fitting is not None, {"seen": seen, "before": _as_seen(self.lines), "after": _as_seen(self.then)}
        self.lines = self.then = fitting


def _as_seen(lines: Lines) -> dict[str, tuple[set[str], set[str]]]:
    return {branch: (set(line.notes), line.names) for branch, line in lines.items()}


def test_a_kill_in_the_middle_of_branching_and_compacting_leaves_each_operation_done_or_not_begun(
    launch: Launcher, tmp_path: Path
) -> None:
    story, moments = Story(), random.Random(1)
    objects = FileStore(tmp_path / "store", SystemAmbient())
    variables = {"MAINTENANCE_SECS": "1", "IDLE_SECS": "1", "HOT_CAP": "2", "GC_GRACE_SECS": "600"}
    for round_ in range(KILLS):
        # A disk that lived on, and one that did not: then everything was shipped when the story was held against it.
        home = tmp_path / f"home-{round_ // 2}"
        node = launch(home, f"file://{tmp_path / 'store'}", **variables)
        if round_ > 0:
            story.found(node.memory("alice"))
        else:
            node.memory("alice").keep(event("note 0"))
            story.lines = {"main": Line(frozenset({"note 0"}))}
        with killed_after(node, moments.uniform(0.02, 0.6)):
            story.run(node)
        if round_ % 2:
            node = launch(home, f"file://{tmp_path / 'store'}", **variables)
            story.found(node.memory("alice"))
            node.kill()
    memory = launch(tmp_path / "home", f"file://{tmp_path / 'store'}").memory("alice")
    story.found(memory)
    for branch, line in story.lines.items():
        with restored(objects, BranchRef(uuid_of(objects, memory), branch)) as state:
            rows = state.execute("SELECT summary FROM __memoturn_memories").fetchall()
            assert {summary for (summary,) in rows} == line.notes


@contextmanager
def killed_after(node: Node, seconds: float) -> Iterator[None]:
    timer = threading.Timer(seconds, node.kill)
    timer.start()
    try:
        yield
    finally:
        timer.join()


# --- the owner among several ---------------------------------------------------------------------


def test_when_the_owner_is_killed_the_others_go_on_and_no_turn_is_there_twice(launch: Launcher, tmp_path: Path) -> None:
    home, store = tmp_path / "home", f"file://{tmp_path / 'store'}"
    nodes = [launch(home, store) for _ in range(WRITERS)]
    nodes[0].memory("alice").keep(event("note"))
    objects = FileStore(tmp_path / "store", SystemAmbient())
    uuid = uuid_of(objects, nodes[0].memory("alice"))
    written, over = Written.nothing(), threading.Event()

    def write(place: int) -> None:
        """Turns by way of whichever node has this place now."""
        number = 0
        while not over.is_set():
            number += 1
            what = f"{place} {number}"
            written.sent.add(what)
            try:
                response = nodes[place].memory("alice").append("s", "user", what)
            except (httpx.TransportError, RuntimeError):
                continue
            # Whether a turn was appended by an owner that was lost meanwhile is not known, and it is not tried again.
            assert response.status_code in (201, 503), response.text
            if response.status_code == 201:
                written.acknowledge(what)

    with ThreadPoolExecutor(WRITERS) as pool:
        writing = [pool.submit(write, place) for place in range(WRITERS)]
        try:
            for _ in range(KILLS):
                goal = len(written.acknowledged) + 10
                wait_until(lambda goal=goal: len(written.acknowledged) >= goal, "writes go on")
                owner = json.loads((home / "databases" / uuid[:2] / uuid / "lease").read_text())["pid"]
                place = next(place for place, node in enumerate(nodes) if node.pid == owner)
                nodes[place].kill()
                nodes[place] = launch(home, store)
        finally:
            over.set()
        for each in writing:
            each.result(WAIT)
    transcripts = [turns(node.memory("alice")) for node in nodes]
    assert transcripts[0] == transcripts[1] == transcripts[2]
    assert sync(nodes[0].memory("alice")).status_code == 200
    with restored(objects, BranchRef(uuid, "main")) as state:
        transcript = state.execute("SELECT seq, content FROM __memoturn_turns ORDER BY seq").fetchall()
    assert transcript[-len(transcripts[0]) :] == transcripts[0]
    said = [content for _, content in transcript]
    assert [seq for seq, _ in transcript] == list(range(1, len(said) + 1))
    assert len(set(said)) == len(said)
    assert written.acknowledged <= set(said) <= written.sent
