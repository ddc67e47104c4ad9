"""What `memoturn doctor` looks at of what processes and nodes share: sockets, and the object store.

The object store gets a probe, which is removed at once; what does not exist is not made. Called by `checks`.
"""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path
from urllib.parse import unquote

from memoturn_mcp.cli.finding import Finding
from memoturn_mcp.cli.printable import one_line
from memoturn_mcp.opening import open_objects
from memoturn_schemas.errors import InvalidRequest, MemoturnError
from memoturn_storage.ambient import SystemAmbient
from memoturn_storage.objects.store import ObjectStore, PreconditionFailed

_PROBES = "v1/_node/doctor/"
_PROBE_CALLS = 7
_LONGEST_CAUSE = 300


def processes(directory: Path) -> Finding:
    """Whether the processes on the data directory can reach each other, and how many there are now."""
    name = "processes"
    run = directory / "run"
    try:
        found = run.lstat()
    except OSError:  # also where this user may not look, which `data_directory` has said
        return Finding(name, "ok", "no other has used the data directory yet")
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        advice = f"stop what uses the data directory and remove {run}, or run everything as one user"
        return Finding(name, "problem", f"{run} must be a directory of this user's, closed to all others", advice)
    listening = sum(_listens(path) for path in run.glob("*.sock"))
    count = f"{listening} use" if listening > 1 else "one uses" if listening else "none uses"
    return Finding(name, "ok", f"{count} the data directory now")


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except BlockingIOError:  # it is busy
            return True
        except OSError:  # it was killed, or is just ending
            return False
    return True


def object_store(url: str | None, directory: Path) -> Finding:
    """Whether the object store keeps, hands out and removes an object, and refuses what is conditional."""
    name = "object store"
    place = url or (directory / "objects").as_uri()
    if place.startswith("file://") and not _exists(Path(unquote(place.removeprefix("file://")))):
        return Finding(name, "ok", f"{place} does not exist yet; the first memory makes it")
    ambient = SystemAmbient()
    try:
        store = open_objects(place, ambient)
        try:
            began_at = ambient.monotonic()
            fault = _probe(store, f"{_PROBES}{ambient.token(8).hex()}")
            each_ms = (ambient.monotonic() - began_at) / _PROBE_CALLS * 1_000
        finally:
            store.close()
    except InvalidRequest as error:
        return Finding(name, "problem", str(error), "set MEMOTURN_OBJECT_STORE right")
    except MemoturnError as error:
        cause = "" if error.__cause__ is None else f" ({one_line(str(error.__cause__))[:_LONGEST_CAUSE]})"
        advice = "see that it runs, that the bucket exists and that the credentials may read, write and delete there"
        return Finding(name, "problem", f"{place}: {error}{cause}", advice)
    if fault is not None:
        return Finding(name, "problem", f"{place}: {fault}", "use a store that keeps the conditions of S3's PutObject")
    return Finding(name, "ok", f"{place} keeps and removes objects; {each_ms:.1f} ms a call")


def _probe(store: ObjectStore, key: str) -> str | None:
    """What is wrong with the store, None where nothing is. Leaves nothing there."""
    try:
        store.put(key, b"first")
        version = store.get(key).version
        try:
            store.put_if_absent(key, b"second")
            return "it overwrites an object where it should refuse to, so that two nodes could lose each other's writes"
        except PreconditionFailed:
            pass
        store.put_if_match(key, b"third", version)
        try:
            store.put_if_match(key, b"fourth", version)
            return "it overwrites a changed object where it should refuse to, so that two nodes could lose writes"
        except PreconditionFailed:
            pass
        if store.get(key).data != b"third":
            return "it hands out an older state of an object than was written"
    finally:
        store.delete(key)
    return None


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # it lies where this user may not look
        return False
