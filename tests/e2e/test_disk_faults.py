"""A disk that is full, read-only, or emptied while a node runs: of its own files, and of the object store.

Refusals are 503, nothing is torn, what was acknowledged stays, and a node goes on when there is room again.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from contract.live_node import Memory, event
from e2e.nodes import DURABLE, Launcher, Node, forking, restored, summaries, sync, uuid_of, wait_until
from memoturn_storage.ambient import SystemAmbient
from memoturn_storage.manifest import BranchRef
from memoturn_storage.objects.file import FileStore

WORDS = "some words more " * 100


def attempt(memory: Memory, number: int, kept: set[str], *, durable: bool = False) -> httpx.Response:
    """Write a note, which is acknowledged or refused with 503."""
    response = memory.ingest(event(f"note {number}", keywords=WORDS), headers=DURABLE if durable else {})
    assert response.status_code in (201, 503), response.text
    if response.status_code == 201:
        kept.add(f"note {number}")
    return response


def require_exactly_what_was_acknowledged(directory: Path, memory: Memory, kept: set[str]) -> None:
    """In the node and, whole, in the object store."""
    assert sync(memory).status_code == 200
    there = summaries(memory)
    assert there >= kept
    objects = FileStore(directory, SystemAmbient())
    with restored(objects, BranchRef(uuid_of(objects, memory), "main")) as state:
        assert {row for (row,) in state.execute("SELECT summary FROM __memoturn_memories")} == there


# --- no room -------------------------------------------------------------------------------------


@contextmanager
def files_at_most(node: Node, size: int) -> Iterator[None]:
    """No file of the node's may grow beyond `size`, wherever it is, as on a disk that is full."""
    resource.prlimit(node.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    try:
        yield
    finally:
        resource.prlimit(node.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="only Linux limits another process")
def test_a_write_that_has_no_room_is_refused_and_tears_nothing_wherever_it_breaks_off(
    launch: Launcher, tmp_path: Path
) -> None:
    node = launch(tmp_path / "home", f"file://{tmp_path / 'store'}")
    memory, kept = node.memory("alice"), set[str]()
    attempt(memory, 0, kept)
    for number, size in enumerate((0, 1_000, 5_000, 33_000, 40_000, 61_000, 90_001, 130_000, 200_000), 1):
        with files_at_most(node, size):
            refused = [attempt(memory, 100 * number + each, kept, durable=each % 3 == 2) for each in range(9)]
            assert size > 100_000 or 503 in {response.status_code for response in refused}
            assert summaries(memory) >= kept
            stranger = node.memory(f"stranger-{number}").ingest(event("note"))
            assert stranger.status_code == (201 if size > 100_000 else stranger.status_code)
            assert stranger.status_code in (201, 503)
        assert attempt(memory, 100 * number + 50, kept, durable=True).status_code == 201
        assert node.memory(f"stranger-{number}").ingest(event("note of a stranger")).status_code == 201
    wait_until(lambda: node.unshipped() == 0, "everything is shipped")
    require_exactly_what_was_acknowledged(tmp_path / "store", memory, kept)
    node.kill()
    again = launch(tmp_path / "home", f"file://{tmp_path / 'store'}")
    require_exactly_what_was_acknowledged(tmp_path / "store", again.memory("alice"), kept)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB, where the test may mount one."""
    directory = tmp_path / "disk"
    directory.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m,mode=700", "memoturn-test", str(directory)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("NO FULL DISK IS TESTED: the test may not mount one")
    try:
        yield directory
    finally:
        subprocess.run(["umount", "--lazy", str(directory)], check=True)


@pytest.mark.parametrize("what", ["home", "store"])
def test_a_full_disk_refuses_writes_and_serves_what_is_there_until_there_is_room(
    launch: Launcher, tmp_path: Path, small_disk: Path, what: str
) -> None:
    home, store = (small_disk / "home" if what == each else tmp_path / each for each in ("home", "store"))
    store = small_disk / "store" if what == "store" else tmp_path / "store"
    node = launch(home, f"file://{store}")
    memory, kept = node.memory("alice"), set[str]()
    attempt(memory, 0, kept, durable=True)
    filler = small_disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while file.write(b"\0" * 4_096):
                pass
        except OSError:
            pass
    for number in range(1, 30):
        attempt(memory, number, kept)
    assert attempt(memory, 30, kept, durable=True).status_code == 503
    assert node.memory("stranger").ingest(event("note")).status_code == 503
    assert summaries(memory) >= kept
    filler.unlink()
    assert attempt(memory, 31, kept, durable=True).status_code == 201
    assert node.memory("stranger").ingest(event("note")).status_code == 201
    wait_until(lambda: node.unshipped() == 0, "everything is shipped")
    require_exactly_what_was_acknowledged(store, memory, kept)
    node.kill()
    again = launch(home, f"file://{store}")
    require_exactly_what_was_acknowledged(store, again.memory("alice"), kept)


# --- no permission -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bound_by_permissions() -> Iterator[subprocess.Popen[str]]:
    """What forks nodes which permissions hold for, also where the tests run as root."""
    prefix: tuple[str, ...] = ()
    if os.geteuid() == 0:
        prefix = ("setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner", "--")
        if shutil.which("setpriv") is None or subprocess.run([*prefix, "true"], capture_output=True).returncode != 0:
            pytest.skip("PERMISSIONS ARE NOT TESTED: the tests run as root, whose rights cannot be taken away here")
    with forking(prefix) as process:
        yield process


@contextmanager
def read_only(directory: Path) -> Iterator[None]:
    modes = {path: path.stat().st_mode for path in (directory, *directory.rglob("*")) if not path.is_socket()}
    for path, mode in modes.items():
        path.chmod(mode & 0o555)
    try:
        yield
    finally:
        for path, mode in modes.items():
            if path.exists():
                path.chmod(mode)


@pytest.mark.parametrize("what", ["home", "store"])
def test_a_directory_that_becomes_read_only_refuses_what_it_must_until_it_is_not(
    bound_by_permissions: subprocess.Popen[str], tmp_path: Path, what: str
) -> None:
    launch = Launcher(bound_by_permissions, tmp_path)
    try:
        node = launch(tmp_path / "home", f"file://{tmp_path / 'store'}")
        memory, other, kept = node.memory("alice"), node.memory("other"), set[str]()
        attempt(memory, 0, kept, durable=True)
        other.keep(event("note"))
        wait_until(lambda: node.unshipped() == 0, "everything is shipped")
        with read_only(tmp_path / what):
            for number in range(1, 10):
                attempt(memory, number, kept)
            durable = attempt(memory, 10, kept, durable=True)
            assert durable.status_code == (503 if what == "store" else durable.status_code)
            assert node.memory("stranger").ingest(event("note")).status_code == 503
            assert summaries(memory) >= kept
        assert attempt(memory, 11, kept, durable=True).status_code == 201
        assert node.memory("stranger").ingest(event("note")).status_code == 201
        wait_until(lambda: node.unshipped() == 0, "everything is shipped")
        require_exactly_what_was_acknowledged(tmp_path / "store", memory, kept)
        node.kill()
        again = launch(tmp_path / "home", f"file://{tmp_path / 'store'}")
        require_exactly_what_was_acknowledged(tmp_path / "store", again.memory("alice"), kept)
    finally:
        launch.kill_all()


@pytest.mark.parametrize("what", ["home", "store"])
def test_a_node_on_a_directory_that_it_may_not_write_ends_at_once_and_says_why(
    bound_by_permissions: subprocess.Popen[str], tmp_path: Path, what: str
) -> None:
    launch = Launcher(bound_by_permissions, tmp_path)
    try:
        (tmp_path / what).mkdir()
        with read_only(tmp_path / what), pytest.raises(AssertionError) as ended:
            launch(tmp_path / "home", f"file://{tmp_path / 'store'}")
        assert "Traceback" not in str(ended.value)
        assert "memoturn: " in str(ended.value)
    finally:
        launch.kill_all()


# --- gone ----------------------------------------------------------------------------------------


def test_a_data_directory_that_is_deleted_under_a_node_costs_nothing_that_was_shipped(
    launch: Launcher, tmp_path: Path
) -> None:
    home, store = tmp_path / "home", f"file://{tmp_path / 'store'}"
    node = launch(home, store)
    memory, kept = node.memory("alice"), set[str]()
    for number in range(3):
        attempt(memory, number, kept)
    assert attempt(memory, 3, kept, durable=True).status_code == 201
    shutil.rmtree(home)
    durable = set[str]()
    for number in range(4, 10):
        assert attempt(memory, number, durable, durable=True).status_code in (201, 503)
    stranger = node.memory("stranger").ingest(event("note"), headers=DURABLE)
    assert stranger.status_code in (201, 503), stranger.text
    node.kill()
    again = launch(home, store)
    assert summaries(again.memory("alice")) >= kept | durable
    if stranger.status_code == 201:
        assert summaries(again.memory("stranger")) == {"note"}
    assert attempt(again.memory("alice"), 10, kept, durable=True).status_code == 201
    require_exactly_what_was_acknowledged(tmp_path / "store", again.memory("alice"), kept | durable)


def test_files_that_are_deleted_while_they_sleep_are_restored(launch: Launcher, tmp_path: Path) -> None:
    store = f"file://{tmp_path / 'store'}"
    node = launch(tmp_path / "home", store, HOT_CAP="1", ENGINE_THREADS="1")
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda name: node.memory(name).keep(event(f"note of {name}")), ("a", "b", "c")))
    for name in ("a", "b", "c"):
        assert sync(node.memory(name)).status_code == 200
    shutil.rmtree(tmp_path / "home" / "databases")
    for name in ("a", "b", "c", "a"):
        assert summaries(node.memory(name)) == {f"note of {name}"}
    assert node.memory("a").ingest(event("note 2"), headers=DURABLE).status_code == 201
