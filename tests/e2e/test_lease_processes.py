"""Leases between real processes: one owner at any time, and a killed one is replaced at once.

The processes write into one journal, with O_APPEND, what they are about to do and what they did; the
journal is judged afterwards.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from memoturn_storage.leases.file import FileLeases
from memoturn_storage.leases.lease import OwnedElsewhere

WAIT = 30
DATABASES = ["a" * 32, "b" * 32, "c" * 32]
PROCESSES = 4
KILLS = 25

CONTENDER = """
import os, random, sys
from pathlib import Path
from memoturn_storage.leases.file import FileLeases
from memoturn_storage.leases.lease import OwnedElsewhere

journal = os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND)
me = str(os.getpid())
leases = FileLeases(Path(sys.argv[1]), me)

def note(*words):
    os.write(journal, (" ".join((me, *words)) + "\\n").encode())

print("ready", flush=True)
while True:
    database = random.choice(sys.argv[3:])
    if leases.held(database):
        note("releases", database)
        leases.release(database)
        note("released", database)
    else:
        note("tries", database)
        try:
            leases.acquire(database)
            note("acquired", database)
        except OwnedElsewhere as refusal:
            note("saw", database, refusal.address)
"""

OWNER = """
import os, sys
from pathlib import Path
from memoturn_storage.leases.file import FileLeases

leases = FileLeases(Path(sys.argv[1]), "the owner")
for database in sys.argv[3:]:
    leases.acquire(database)
if sys.argv[2] == "and forks":
    if os.fork() == 0:
        sys.stdin.read()
        os._exit(0)
    leases.close()
print("ready", flush=True)
sys.stdin.read()
"""


@contextmanager
def running(script: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", script, *map(str, arguments)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def judge(journal: list[str]) -> Counter[str]:
    """Raise at the first line that breaks a rule; gives how often each thing happened."""
    owners: dict[str, str] = {}
    leaving: set[tuple[str, str]] = set()
    doomed: set[str] = set()
    may_hold: dict[str, set[str]] = {database: set() for database in DATABASES}
    asking: dict[tuple[str, str], set[str]] = {}
    counts: Counter[str] = Counter()
    for number, line in enumerate(journal):
        who, what, *details = line.split(" ")
        counts[what] += 1
        if what == "doomed":
            doomed.add(who)
        elif what == "dead":
            for holders in may_hold.values():
                holders.discard(who)
            asking = {key: seen for key, seen in asking.items() if key[0] != who}
        elif what == "tries":
            [database] = details
            may_hold[database].add(who)
            asking[who, database] = set(may_hold[database])
            for (_, wanted), seen in asking.items():
                if wanted == database:
                    seen.add(who)
        elif what == "acquired":
            [database] = details
            before = owners.get(database)
            assert before is None or before in doomed or (before, database) in leaving, f"{number}: two own {database}"
            owners[database] = who
            leaving.discard((who, database))
            del asking[who, database]
        elif what == "saw":
            database, address = details
            assert address != who and address in asking.pop((who, database)), f"{number}: {who} was sent to {address}"
            may_hold[database].discard(who)
        elif what == "releases":
            [database] = details
            assert owners[database] == who, f"{number}: {who} thought it owned {database}"
            leaving.add((who, database))
        elif what == "released":
            [database] = details
            may_hold[database].discard(who)
            if owners.get(database) == who and (who, database) in leaving:
                del owners[database]
            leaving.discard((who, database))
    return counts


def test_there_is_one_owner_at_any_time_while_processes_are_killed_and_others_take_over(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    path.touch()
    journal = os.open(path, os.O_WRONLY | os.O_APPEND)
    me = str(os.getpid())
    leases = FileLeases(tmp_path, me)

    def note(*words: str) -> None:
        os.write(journal, (" ".join(words) + "\n").encode())

    def acquire_and_release(database: str) -> None:
        while True:
            note(me, "tries", database)
            try:
                leases.acquire(database)
            except OwnedElsewhere as refusal:
                note(me, "saw", database, refusal.address)
                os.sched_yield()
            else:
                break
        note(me, "acquired", database)
        note(me, "releases", database)
        leases.release(database)
        note(me, "released", database)

    def start() -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", CONTENDER, str(tmp_path), str(path), *DATABASES]
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        return process

    def kill(process: subprocess.Popen[bytes]) -> None:
        note(str(process.pid), "doomed")
        process.kill()
        assert process.wait(WAIT) == -signal.SIGKILL
        note(str(process.pid), "dead")
        assert process.stdout is not None
        process.stdout.close()

    processes = [start() for _ in range(PROCESSES)]
    try:
        for _ in range(KILLS):
            for database in DATABASES:
                acquire_and_release(database)
            kill(processes.pop(random.randrange(PROCESSES)))
            processes.append(start())
    finally:
        for process in processes:
            kill(process)
    for database in DATABASES:
        leases.acquire(database)
    leases.close()
    os.close(journal)
    counts = judge(path.read_text().splitlines())
    assert counts["dead"] == KILLS + PROCESSES
    assert counts["acquired"] > 1_000 and counts["saw"] > 1_000


def test_what_a_killed_process_owned_is_free_as_soon_as_it_is_dead(tmp_path: Path) -> None:
    leases = FileLeases(tmp_path, "successor")
    with running(OWNER, tmp_path, "alone", *DATABASES) as owner:
        for database in DATABASES:
            assert leases.owner(database) == "the owner"
        os.kill(owner.pid, signal.SIGSTOP)
        with pytest.raises(OwnedElsewhere):
            leases.acquire(DATABASES[0])
        owner.kill()
        assert owner.wait(WAIT) == -signal.SIGKILL
        for database in DATABASES:
            assert leases.owner(database) is None
            leases.acquire(database)
    leases.close()


def test_a_process_that_was_started_while_a_lease_was_held_does_not_keep_it(tmp_path: Path) -> None:
    leases, successor = FileLeases(tmp_path, "parent"), FileLeases(tmp_path, "successor")
    leases.acquire(DATABASES[0])
    with running(OWNER, tmp_path / "elsewhere", "alone"):
        leases.close()
        successor.acquire(DATABASES[0])
    successor.close()


def test_a_fork_of_the_owner_does_not_keep_what_the_owner_released(tmp_path: Path) -> None:
    leases = FileLeases(tmp_path, "successor")
    with running(OWNER, tmp_path, "and forks", *DATABASES):
        for database in DATABASES:
            leases.acquire(database)
    leases.close()
