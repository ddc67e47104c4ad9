"""Leases between owners in one process: a model of who may own what, and the file lock's own corners."""

from __future__ import annotations

import fcntl
import json
import resource
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from memoturn_schemas.errors import Unavailable
from memoturn_storage.ambient import ManualAmbient
from memoturn_storage.leases.file import FileLeases
from memoturn_storage.leases.lease import Leases, OwnedElsewhere
from memoturn_storage.leases.memory import LeaseRegistry, MemoryLeases

WAIT = 30
DATABASE = "ab" * 16

OWNERS = st.sampled_from(["first", "second", "third"])
DATABASES = st.sampled_from(["aa" * 16, "aa" * 15 + "bb", "cc" * 16])


class SeveralOwners(RuleBasedStateMachine):
    """Any leases against the plainest account of them: who took what, and until when it is theirs."""

    ttl_s: float | None = None

    def __init__(self) -> None:
        super().__init__()
        self.ambient = ManualAmbient()
        self.leases: dict[str, Leases] = {name: self.opened(name) for name in ("first", "second", "third")}
        self.taken: dict[str, tuple[str, float]] = {}

    def opened(self, owner: str) -> Leases:
        raise NotImplementedError

    def holder(self, database: str) -> str | None:
        owner, until = self.taken.get(database, (None, 0.0))
        return owner if self.ambient.monotonic() < until else None

    def fresh(self) -> float:
        return float("inf") if self.ttl_s is None else self.ambient.monotonic() + self.ttl_s

    @rule(owner=OWNERS, database=DATABASES)
    def acquire(self, owner: str, database: str) -> None:
        holder = self.holder(database)
        if holder not in (None, owner):
            with pytest.raises(OwnedElsewhere) as refused:
                self.leases[owner].acquire(database)
            assert refused.value.address == holder
            return
        if holder is None:
            self.taken[database] = (owner, self.fresh())
        lease = self.leases[owner].acquire(database)
        assert lease.database == database
        assert lease.deadline == (None if self.ttl_s is None else self.taken[database][1])

    @rule(owner=OWNERS, database=DATABASES)
    def release(self, owner: str, database: str) -> None:
        self.leases[owner].release(database)
        if self.holder(database) == owner:
            del self.taken[database]

    @rule(owner=OWNERS)
    def close_and_come_back(self, owner: str) -> None:
        self.leases[owner].close()
        self.taken = {database: taken for database, taken in self.taken.items() if taken[0] != owner}
        self.leases[owner] = self.opened(owner)

    @invariant()
    def everybody_knows_what_is_theirs_and_whose_the_rest_is(self) -> None:
        for database in ("aa" * 16, "aa" * 15 + "bb", "cc" * 16):
            holder = self.holder(database)
            for owner, leases in self.leases.items():
                assert leases.held(database) == (holder == owner)
                assert leases.owner(database) == (None if holder == owner else holder)


class OwnersInMemory(SeveralOwners):
    ttl_s = 10.0

    def __init__(self) -> None:
        self.registry = LeaseRegistry()
        super().__init__()

    def opened(self, owner: str) -> Leases:
        return MemoryLeases(self.registry, owner, self.ambient, self.ttl_s)

    @rule(owner=OWNERS)
    def renew(self, owner: str) -> None:
        leases = self.leases[owner]
        assert isinstance(leases, MemoryLeases)
        leases.renew()
        for database in list(self.taken):
            if self.holder(database) == owner:
                self.taken[database] = (owner, self.fresh())

    @rule(seconds=st.sampled_from([0.5, 3.0, 9.999, 10.0]))
    def time_goes_by(self, seconds: float) -> None:
        self.ambient.advance(seconds=seconds)


class OwnersInMemoryForEver(OwnersInMemory):
    ttl_s = None


class OwnersOfFiles(SeveralOwners):
    def __init__(self) -> None:
        self.directory = tempfile.TemporaryDirectory()
        super().__init__()

    def opened(self, owner: str) -> Leases:
        return FileLeases(Path(self.directory.name), owner)

    def teardown(self) -> None:
        for leases in self.leases.values():
            leases.close()
        self.directory.cleanup()


for machine in (OwnersInMemory, OwnersInMemoryForEver, OwnersOfFiles):
    machine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)

TestOwnersInMemory = OwnersInMemory.TestCase
TestOwnersInMemoryForEver = OwnersInMemoryForEver.TestCase
TestOwnersOfFiles = OwnersOfFiles.TestCase


# --- files ---------------------------------------------------------------------------------------


def lease_file(directory: Path) -> Path:
    return directory / DATABASE[:2] / DATABASE / "lease"


def test_what_a_dead_owner_left_in_the_file_is_nobodys_address(tmp_path: Path) -> None:
    lease_file(tmp_path).parent.mkdir(parents=True)
    lease_file(tmp_path).write_text(json.dumps({"address": "/of/the/dead" * 50, "pid": 1}) + "\n")
    assert FileLeases(tmp_path, "watcher").owner(DATABASE) is None
    with_it, without_it = FileLeases(tmp_path, "taker"), FileLeases(tmp_path, "loser")
    with_it.acquire(DATABASE)
    with pytest.raises(OwnedElsewhere) as refused:
        without_it.acquire(DATABASE)
    assert refused.value.address == without_it.owner(DATABASE) == "taker"
    assert json.loads(lease_file(tmp_path).read_text())["address"] == "taker", "nothing of the longer line is left"
    with_it.close()


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[]", b"3", b"{}", b'{"address": 3}', b'{"address": "/a'])
def test_an_owner_whose_line_cannot_be_read_is_an_owner_without_an_address(tmp_path: Path, content: bytes) -> None:
    lease_file(tmp_path).parent.mkdir(parents=True)
    lease_file(tmp_path).write_bytes(content)
    leases = FileLeases(tmp_path, "loser")
    with lease_file(tmp_path).open("rb") as owner:
        fcntl.flock(owner, fcntl.LOCK_EX)
        assert leases.owner(DATABASE) == ""
        with pytest.raises(OwnedElsewhere) as refused:
            leases.acquire(DATABASE)
        assert refused.value.address == ""
    leases.acquire(DATABASE)
    leases.close()


def test_whoever_only_looks_never_makes_an_acquire_fail_nor_is_taken_for_an_owner(tmp_path: Path) -> None:
    owner = FileLeases(tmp_path, "owner")
    owner.acquire(DATABASE)
    enough = threading.Event()
    seen: set[str | None] = set()

    def look(leases: FileLeases) -> None:
        while not enough.is_set():
            seen.add(leases.owner(DATABASE))

    watchers = [threading.Thread(target=look, args=(FileLeases(tmp_path, f"watcher {n}"),)) for n in range(3)]
    for watcher in watchers:
        watcher.start()
    try:
        for _ in range(500):
            owner.release(DATABASE)
            owner.acquire(DATABASE)
    finally:
        enough.set()
        for watcher in watchers:
            watcher.join(WAIT)
        owner.close()
    assert seen <= {None, "owner"}


def test_nobody_is_sent_to_an_owner_who_had_given_up_before_they_asked(tmp_path: Path) -> None:
    gone = -1
    finished = threading.Event()
    late: list[tuple[str, int]] = []

    def ask(leases: FileLeases) -> None:
        while not finished.is_set():
            before = gone
            address = leases.owner(DATABASE)
            if address is not None and (address == "" or int(address) <= before):
                late.append((address, before))

    asking = [threading.Thread(target=ask, args=(FileLeases(tmp_path, f"asks {n}"),)) for n in range(3)]
    for thread in asking:
        thread.start()
    try:
        for number in range(500):
            successor = FileLeases(tmp_path, str(number))
            successor.acquire(DATABASE)
            successor.release(DATABASE)
            gone = number
    finally:
        finished.set()
        for thread in asking:
            thread.join(WAIT)
    assert late == []


def test_of_many_threads_with_leases_of_their_own_one_gets_it(tmp_path: Path) -> None:
    rivals = [FileLeases(tmp_path, str(number)) for number in range(8)]
    together = threading.Barrier(len(rivals))
    won: list[str] = []
    lost: list[str] = []

    def compete(name: str, leases: FileLeases) -> None:
        together.wait(WAIT)
        try:
            leases.acquire(DATABASE)
            won.append(name)
        except OwnedElsewhere as refusal:
            lost.append(refusal.address)

    for _ in range(40):
        won.clear()
        lost.clear()
        threads = [threading.Thread(target=compete, args=(str(n), leases)) for n, leases in enumerate(rivals)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT)
        [winner] = won
        assert lost == [winner] * 7
        rivals[int(winner)].release(DATABASE)


def test_threads_that_share_leases_are_never_sent_to_themselves(tmp_path: Path) -> None:
    leases = FileLeases(tmp_path, "us")

    def use() -> None:
        for _ in range(500):
            assert leases.acquire(DATABASE).deadline is None
            assert leases.owner(DATABASE) is None
            leases.release(DATABASE)

    with ThreadPoolExecutor(4) as threads:
        for use_of_one in [threads.submit(use) for _ in range(4)]:
            use_of_one.result(WAIT)
    assert not leases.held(DATABASE)
    others = FileLeases(tmp_path, "others")
    others.acquire(DATABASE)
    others.close()


def test_only_a_lease_that_is_held_takes_a_descriptor(tmp_path: Path) -> None:
    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = descriptors()
    ours, others = FileLeases(tmp_path, "ours"), FileLeases(tmp_path, "others")
    for number in range(20):
        ours.acquire(f"{number:032x}")
        with pytest.raises(OwnedElsewhere):
            others.acquire(f"{number:032x}")
        others.owner(f"{number:032x}")
        others.owner(f"{number + 100:032x}")
    assert descriptors() == before + 20
    ours.release(f"{3:032x}")
    assert descriptors() == before + 19
    ours.close()
    assert descriptors() == before


def test_asking_for_the_owner_makes_nothing(tmp_path: Path) -> None:
    assert FileLeases(tmp_path / "databases", "watcher").owner(DATABASE) is None
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_takes_no_address_gives_no_lease(tmp_path: Path) -> None:
    leases, others = FileLeases(tmp_path, "leases"), FileLeases(tmp_path, "others")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3, hard))
    try:
        with pytest.raises(Unavailable, match="lease") as refused:
            leases.acquire(DATABASE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not isinstance(refused.value, OwnedElsewhere)
    assert str(tmp_path) not in str(refused.value)
    assert not leases.held(DATABASE)
    assert others.owner(DATABASE) is None
    others.acquire(DATABASE)
    others.close()


def test_a_directory_that_cannot_be_used_is_an_error_that_names_no_path(tmp_path: Path) -> None:
    (tmp_path / "databases").write_text("a file")
    leases = FileLeases(tmp_path / "databases", "leases")
    for call in (leases.acquire, leases.owner):
        with pytest.raises(Unavailable) as refused:
            call(DATABASE)
        assert str(tmp_path) not in str(refused.value)
