"""The store in a directory: among processes, killed at any moment, and on a disk that refuses."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from memoturn_schemas.errors import Unavailable
from memoturn_storage.ambient import ManualAmbient, SystemAmbient
from memoturn_storage.objects.file import FileStore
from memoturn_storage.objects.store import ObjectMissing, PreconditionFailed, StoreUnavailable
from objects import kill_points
from objects.writers import WRITERS, create_many, in_processes, in_threads, increment_counter, lines

MINUTE_MS = 60_000


def test_of_sixteen_processes_that_create_one_object_one_is_the_first(tmp_path: Path) -> None:
    rounds = 20
    won = in_processes(create_many, tmp_path, rounds)
    assert sorted(number for rounds_won in won for number in rounds_won) == list(range(rounds))
    store = FileStore(tmp_path, SystemAmbient())
    for name, rounds_won in enumerate(won):
        assert {store.get(f"race/{number}").data for number in rounds_won} <= {b"%d" % name}


def test_sixteen_processes_that_replace_one_object_lose_no_change(tmp_path: Path) -> None:
    times = 12
    store = FileStore(tmp_path, SystemAmbient())
    store.put("counter/lines", b"")
    in_processes(increment_counter, tmp_path, times)
    written = lines(store, "counter/lines")
    assert sorted(written) == sorted(f"{name}-{number}" for name in range(WRITERS) for number in range(times))
    assert temporary(tmp_path) == []


def test_a_process_killed_at_any_step_of_a_write_leaves_the_old_state_or_the_new_one(tmp_path: Path) -> None:
    command = [sys.executable, kill_points.__file__, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    steps = dict(re.findall(r"^(.+): (\d+)$", done.stdout, re.MULTILINE))
    assert set(steps) == set(kill_points.WRITES)
    assert all(int(count) >= 4 for count in steps.values()), steps


KILLED = """
import hashlib, itertools, os, sys
from pathlib import Path
from memoturn_storage.ambient import SystemAmbient
from memoturn_storage.objects.file import FileStore

store = FileStore(Path(sys.argv[1]), SystemAmbient())
for number in itertools.count(int(sys.argv[2])):
    content = b"%d " % number * 20_000
    content += hashlib.sha256(content).digest()
    store.put(f"segments/{number % 7}", content)
    store.put_if_absent(f"created/{number}", content)
    store.put_if_match("manifest", content, store.get("manifest").version)
    print(number, flush=True)
"""


def test_a_process_killed_while_it_writes_leaves_no_torn_object_and_loses_nothing_that_was_written(
    tmp_path: Path,
) -> None:
    store = FileStore(tmp_path, SystemAmbient())
    store.put("manifest", whole(b"begin"))
    start = 0
    for lines_before in (1, 2, 5, 9, 14, 20):
        command = [sys.executable, "-c", KILLED, str(tmp_path), str(start)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            last = [int(process.stdout.readline()) for _ in range(lines_before)][-1]
            process.send_signal(signal.SIGKILL)
            last = max([last, *(int(line) for line in process.stdout if line.endswith("\n"))])
        found = {info.key: store.get(info.key).data for info in store.list("")}
        for key, data in found.items():
            assert data[-32:] == hashlib.sha256(data[:-32]).digest(), f"{key} is torn"
        assert {f"created/{number}" for number in range(start, last + 1)} <= set(found)
        assert int(found["manifest"].split()[0]) in (last, last + 1)
        store.put_if_match("manifest", whole(b"next"), store.get("manifest").version)
        start = last + 2


def test_temporary_files_of_killed_processes_are_swept_when_they_are_old(tmp_path: Path) -> None:
    ambient = SystemAmbient()
    FileStore(tmp_path, ambient)
    for name, age_minutes in (("old", 30), ("young", 2)):
        stray = tmp_path / ".store/temporary" / name
        stray.write_bytes(b"torn")
        os.utime(stray, ns=(0, (ambient.now_ms() - age_minutes * MINUTE_MS) * 1_000_000))
    store = FileStore(tmp_path, ambient)
    assert temporary(tmp_path) == ["young"]
    assert list(store.list("")) == []


def test_a_write_whose_temporary_file_was_swept_says_so_and_changes_nothing(tmp_path: Path) -> None:
    store = FileStore(tmp_path, SystemAmbient(), sync=False)
    version = store.put_if_absent("a", b"1")
    for write in (
        lambda: store.put("a", b"2"),
        lambda: store.put_if_absent("b/c", b"2"),
        lambda: store.put_if_match("a", b"2", version),
    ):
        with swept(tmp_path), pytest.raises(StoreUnavailable):
            write()
    assert [(info.key, store.get(info.key).data) for info in store.list("")] == [("a", b"1")]


def test_directories_that_deletes_have_emptied_are_gone(tmp_path: Path) -> None:
    store = FileStore(tmp_path, SystemAmbient())
    store.put("v1/a/b/c", b"1")
    store.put("v1/a/d", b"1")
    store.delete("v1/a/b/c")
    assert not (tmp_path / "v1/a/b").exists() and (tmp_path / "v1/a/d").exists()
    store.delete("v1/a/d")
    assert [path.name for path in tmp_path.iterdir()] == [".store"]


def test_writes_land_while_deletes_take_their_directories_away(tmp_path: Path) -> None:
    store = FileStore(tmp_path, SystemAmbient(), sync=False)

    def work(name: str) -> None:
        for number in range(60):
            key = f"v1/deep/er/{name}"
            store.put_if_absent(key, b"%d" % number)
            assert store.get(key).data == b"%d" % number
            store.put(key, b"again")
            assert key in [info.key for info in store.list("v1/")]
            store.delete(key)

    in_threads(work)
    assert list(store.list("")) == []


def test_a_listing_names_every_object_that_is_there_however_often_others_are_replaced(tmp_path: Path) -> None:
    store = FileStore(tmp_path, SystemAmbient(), sync=False)
    keys = [f"manifests/{number:04}" for number in range(700)]
    for key in keys:
        store.put(key, b"0")
    stop = threading.Event()

    def replace() -> None:
        number = 0
        while not stop.is_set():
            store.put(keys[number * 31 % len(keys)], b"1")
            store.put(f"manifests/other-{number % 50}", b"1")
            store.delete(f"manifests/other-{(number + 25) % 50}")
            number += 1

    writers = [threading.Thread(target=replace) for _ in range(2)]
    for writer in writers:
        writer.start()
    try:
        for _ in range(25):
            assert [info.key for info in store.list("manifests/") if "other" not in info.key] == keys
    finally:
        stop.set()
        for writer in writers:
            writer.join()


def test_a_forked_child_does_not_keep_a_lock_that_its_parent_held(tmp_path: Path) -> None:
    program = f"""
import os, signal, sys
from pathlib import Path
from memoturn_storage.ambient import SystemAmbient
from memoturn_storage.objects.file import FileStore

store = FileStore(Path({str(tmp_path)!r}), SystemAmbient())
children = []
def fork(event, _):
    if event == "os.rename" and not children:
        children.append(os.fork())
        if children == [0]:
            signal.pause()
sys.addaudithook(fork)
store.put("a", b"1")
signal.alarm(20)
store.put("a", b"2")
os.kill(children[0], signal.SIGKILL)
os.waitpid(children[0], 0)
print(store.get("a").data)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.returncode) == ("b'2'\n", 0), done.stderr


@pytest.mark.parametrize(
    ("write", "key"),
    [
        (lambda store, key: store.put(key, b"x" * 100_000), "a"),
        (lambda store, key: store.put_if_absent(key, b"x" * 100_000), "v1/b"),
        (lambda store, key: store.put_if_match(key, b"x" * 100_000, store.get(key).version), "a"),
    ],
)
def test_a_disk_that_takes_no_more_is_an_error_that_says_so(
    tmp_path: Path, write: Callable[[FileStore, str], Any], key: str
) -> None:
    store = FileStore(tmp_path, SystemAmbient())
    store.put("a", b"1")
    with file_size_limit(50_000), pytest.raises(StoreUnavailable, match="larger than a file") as failed:
        write(store, key)
    assert isinstance(failed.value, Unavailable)
    assert str(tmp_path) not in str(failed.value)
    assert [(info.key, info.size) for info in store.list("")] == [("a", 1)]
    assert temporary(tmp_path) == []
    store.put("a", b"2")


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EROFS, "the file system is read-only"),
        (errno.EACCES, "permissions forbid"),
        (errno.EIO, "the disk failed"),
    ],
)
def test_each_way_in_which_a_disk_fails_has_its_message_at_each_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, reason: str
) -> None:
    store = FileStore(tmp_path, SystemAmbient())
    version = store.put_if_absent("a", b"1")

    def fail(*_: Any, **__: Any) -> Any:
        raise OSError(number, os.strerror(number), str(tmp_path))

    for broken in ("memoturn_storage.objects.file._flush_data", "os.fsync", "fcntl.flock", "pathlib.Path.open"):
        with monkeypatch.context() as patch:
            patch.setattr(broken, fail)
            with pytest.raises(StoreUnavailable, match=reason) as failed:
                store.put_if_match("a", b"1", version)
            assert str(tmp_path) not in str(failed.value)
    assert store.get("a").data == b"1"
    assert temporary(tmp_path) == []


def test_a_key_that_is_the_directory_of_another_is_refused(tmp_path: Path) -> None:
    store = FileStore(tmp_path, SystemAmbient())
    store.put("a/b", b"1")
    with pytest.raises(ValueError, match="directory of another"):
        store.put("a", b"2")
    with pytest.raises(ValueError, match="directory of another"):
        store.put("a/b/c", b"2")
    for key in ("a", "a/b/c"):
        store.delete(key)
        with pytest.raises(ObjectMissing):
            store.get(key)
        with pytest.raises(PreconditionFailed):
            store.put_if_match(key, b"2", "version")
    assert store.get("a/b").data == b"1"


def test_a_directory_that_is_a_file_is_an_error_without_its_path(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises((StoreUnavailable, ValueError)) as failed:
        FileStore(tmp_path / "file/store", ManualAmbient())
    assert str(tmp_path) not in str(failed.value)


def whole(content: bytes) -> bytes:
    return content + hashlib.sha256(content).digest()


def temporary(directory: Path) -> list[str]:
    return [path.name for path in (directory / ".store/temporary").iterdir()]


@contextmanager
def swept(directory: Path) -> Iterator[None]:
    """Take each temporary file away as soon as it is written."""
    real = Path.unlink
    opened = Path.open

    class Vanishing:
        def __init__(self, path: Path) -> None:
            self.path = path
            self.file = opened(path, "xb")

        def __enter__(self) -> Any:
            return self.file

        def __exit__(self, *_: object) -> None:
            self.file.close()
            real(self.path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "open", lambda path, mode: Vanishing(path))
        yield


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """The operating system refuses to let any file of this process grow over `size` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
