"""What `memoturn doctor` looks at: each check measures one thing and says what to do where it is wrong.

Nothing is taken for granted. What does not exist is not made, and the files of databases are only read,
as bytes. `examine` runs all checks. Called by `doctor`.
"""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from memoturn_core.address import NODE
from memoturn_core.code.guest_file import GuestFile, missing
from memoturn_core.door import RemoteDoor
from memoturn_core.providers.http import Endpoint
from memoturn_core.registry import OPERATIONS
from memoturn_core.tables import SCHEMA
from memoturn_mcp.cli.finding import Finding, Status
from memoturn_mcp.cli.object_checks import object_store, processes
from memoturn_mcp.cli.reach import settings_of
from memoturn_mcp.cli.tables import count, size
from memoturn_mcp.settings import PREFIX, Settings, is_loopback
from memoturn_schemas.errors import MemoturnError
from memoturn_storage.ambient import SystemAmbient
from memoturn_storage.connection import open_memory
from memoturn_storage.descriptors import DESCRIPTORS_PER_HANDLE, handle_capacity, raise_descriptor_limit
from memoturn_storage.errors import translate

FILES_CHECKED = 20
_LARGEST_FILE = 64 * 1024 * 1024
_LITTLE_SPACE = 1024**3
_NO_SPACE = 64 * 1024**2
_ANSWERS_WITHIN_S = 3.0
_CLOCK_SLACK_MS = 60_000


@dataclass(frozen=True, slots=True)
class _File:
    """A database's file, as it was when it was looked at."""

    name: str
    path: Path
    modified: float


def examine(data_dir: str | None) -> Iterator[Finding]:
    """All checks, in the order in which one failure explains the next."""
    try:
        settings = settings_of(data_dir=data_dir)
    except MemoturnError as error:
        advice = "set it right or unset it; what depends on the configuration was not checked"
        yield Finding("configuration", "problem", str(error), advice)
        yield sqlite()
        yield clock([])
        return
    yield configuration(settings)
    yield data_directory(settings.data_dir)
    yield processes(settings.data_dir)
    yield object_store(settings.object_store, settings.data_dir)
    yield from _databases(settings)
    yield sqlite()
    yield descriptors(settings.limits.hot_cap)
    yield provider("embedding", settings.providers.embedding, "recall works by words and topics alone")
    yield provider("language model", settings.providers.language, "extracting and asking are not available")
    yield sandbox(settings)
    yield listening(settings.host, settings.port)
    if settings.url is not None:
        yield remote(settings.url, settings.token)


def configuration(settings: Settings) -> Finding:
    names = sorted(name for name in os.environ if name.startswith(PREFIX))
    found = f"set: {', '.join(names)}" if names else f"no {PREFIX}* variable is set; all defaults"
    if not is_loopback(settings.host):
        return Finding(
            "configuration",
            "warning",
            f"{found}; the node listens on {settings.host} and asks nobody for a token",
            "keep it behind a proxy that checks access, or set MEMOTURN_LISTEN to 127.0.0.1:8787",
        )
    return Finding("configuration", "ok", found)


def data_directory(directory: Path) -> Finding:
    """Whether files can be made and linked there, as new databases are, and how much space is left."""
    name = "data directory"
    if not _exists(directory):
        above = next(parent for parent in directory.parents if _exists(parent))
        if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
            return Finding(
                name, "problem", f"{directory} does not exist and cannot be made in {above}", "set MEMOTURN_DATA_DIR"
            )
        return _with_space(name, f"{directory} does not exist yet; the first memory makes it", above)
    if not directory.is_dir():
        return Finding(name, "problem", f"{directory} is not a directory", "set MEMOTURN_DATA_DIR to one")
    try:
        with tempfile.TemporaryDirectory(prefix=".doctor-", dir=directory) as scratch:
            first = Path(scratch) / "first"
            first.write_bytes(b"memoturn")
            os.link(first, Path(scratch) / "second")
    except OSError as error:
        advice = "give this user the right to write there, on a file system with hard links, or set MEMOTURN_DATA_DIR"
        return Finding(name, "problem", f"{directory} cannot be written: {error.strerror}", advice)
    return _with_space(name, f"{directory} can be written", directory)


def _with_space(name: str, found: str, directory: Path) -> Finding:
    free = shutil.disk_usage(directory).free
    status: Status = "problem" if free < _NO_SPACE else "warning" if free < _LITTLE_SPACE else "ok"
    advice = None if status == "ok" else "make room, or move the memories and set MEMOTURN_DATA_DIR"
    return Finding(name, status, f"{found}; {size(free)} free", advice)


def _databases(settings: Settings) -> Iterator[Finding]:
    """The catalogue, the files of the databases that it names, and the clock that dated them."""
    # Opening a node would make the catalogue, so it is looked for first, by its file's name.
    if not _exists(settings.data_dir / "catalog.db"):
        yield Finding("catalogue", "ok", "none yet; the first memory makes it")
        yield clock([])
        return
    try:
        entries = _entries(settings)
    except MemoturnError as error:
        advice = "see that this user may read and write the directory; if the file is damaged, restore a backup"
        yield Finding("catalogue", "problem", str(error), advice)
        yield clock([])
        return
    yield Finding("catalogue", "ok", f"opens; {count(len(entries), 'database')}")
    files = [file for name, _, path in entries if (file := _looked_at(name, path)) is not None]
    yield integrity(files)
    yield clock([created_at for _, created_at, _ in entries])


def _entries(settings: Settings) -> list[tuple[str, int, Path]]:
    """Name, time of creation and file of every database."""
    from memoturn_mcp.opening import open_node
    from memoturn_storage.local import LocalFiles
    from memoturn_storage.manifest import BranchRef

    node = open_node(replace(settings, limits=replace(settings.limits, threads=0)), create=False)
    try:
        return [
            (entry.name, entry.created_at, LocalFiles(settings.data_dir / "databases", BranchRef(entry.uuid)).database)
            for entry in node.catalog.with_prefix("")
        ]
    finally:
        asyncio.run(node.close())


def _looked_at(name: str, path: Path) -> _File | None:
    try:
        return _File(name, path, path.stat().st_mtime)
    except FileNotFoundError:  # nothing was ever written to it
        return None
    except OSError:
        return _File(name, path, 0.0)


def integrity(files: list[_File]) -> Finding:
    """SQLite's quick_check of the files that were changed last, on copies of them in memory."""
    name = "database files"
    newest = sorted(files, key=lambda file: file.modified, reverse=True)[:FILES_CHECKED]
    sound = 0
    left_out: list[str] = []
    broken: list[str] = []
    for file in newest:
        try:
            image = _image(file.path)
            if isinstance(image, str):
                left_out.append(f"{file.name} ({image})")
                continue
            fault = _quick_check(image)
        except OSError as error:
            fault = f"cannot be read: {error.strerror}"
        if fault is None:
            sound += 1
        else:
            broken.append(f"{file.name} in {file.path}: {fault}")
    found = f"{sound} of {len(files)} checked and sound" if files else "none yet"
    if len(newest) < len(files):
        found += f", from the {len(newest)} that were changed last"
    if left_out:
        found += f"; not checked: {', '.join(left_out)}"
    if broken:
        advice = "remove the file and what lies beside it: the next use restores it, as does `memoturn storage restore`"
        return Finding(name, "problem", f"{found}; {'; '.join(broken)}", advice)
    return Finding(name, "ok", found)


def _image(path: Path) -> bytes | str:
    """The file's bytes, or why they alone do not tell whether the database is sound."""
    wal = path.with_name(f"{path.name}-wal")
    before = path.stat()
    if before.st_size > _LARGEST_FILE:
        return f"{size(before.st_size)} is too large for it"
    image = path.read_bytes()
    after = path.stat()
    # The newest pages are in the WAL, and a checkpoint may be copying them at this moment.
    if wal.exists() and wal.stat().st_size > 0:
        return "in use"
    return image if (before.st_mtime_ns, before.st_size) == (after.st_mtime_ns, after.st_size) else "in use"


def _quick_check(image: bytes) -> str | None:
    """What is wrong with the database, None where nothing is."""
    try:
        connection = open_memory(image)
        try:
            rows: list[Any] = connection.execute("PRAGMA quick_check(1)").fetchall()
            if rows == [("ok",)]:
                SCHEMA.version_of(connection)
                return None
            return f"the database file is corrupt ({rows[0][0]})"
        finally:
            connection.close()
    except Exception as error:  # noqa: BLE001 - whatever SQLite raises here is the finding
        return str(translate(error))


def sqlite() -> Finding:
    """The library's version, and whether it has what every profile's file needs."""
    try:
        connection = SCHEMA.empty()
        try:
            row: Any = connection.execute("SELECT sqlite_version()").fetchone()
            connection.execute("CREATE VIRTUAL TABLE temp.words USING fts5(word)")
            connection.execute("INSERT INTO temp.words VALUES ('found')")
            found: Any = connection.execute("SELECT count(*) FROM temp.words WHERE words MATCH 'found'").fetchone()
            jsonb: Any = connection.execute("SELECT typeof(jsonb('{}'))").fetchone()
        finally:
            connection.close()
    except Exception as error:  # noqa: BLE001 - a library without these raises an error of its own
        return Finding("SQLite", "problem", f"lacks FTS5 or JSONB: {error}", "install apsw from a binary wheel")
    if found != (1,) or jsonb != ("blob",):
        return Finding("SQLite", "problem", f"{row[0]}: FTS5 or JSONB do not work", "install apsw from a binary wheel")
    return Finding("SQLite", "ok", f"{row[0]} with FTS5 and JSONB")


def descriptors(hot_cap: int) -> Finding:
    """How many databases this user's processes can hold open."""
    raise_descriptor_limit()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    capacity = handle_capacity(hot_cap)
    limits = f"{_limit(soft)} file descriptors (hard limit {_limit(hard)})"
    if capacity < hot_cap:
        return Finding(
            "open files",
            "warning",
            f"{limits} hold {capacity} databases open at once, not the {hot_cap} of MEMOTURN_HOT_CAP",
            f"raise the hard limit by {(hot_cap - capacity) * DESCRIPTORS_PER_HANDLE} (`ulimit -Hn`, LimitNOFILE=),"
            " or lower MEMOTURN_HOT_CAP",
        )
    return Finding("open files", "ok", f"{limits} hold the {hot_cap} databases of MEMOTURN_HOT_CAP")


def clock(created: list[int]) -> Finding:
    """Whether the clock stands after what is known to lie in the past; `created` in Unix milliseconds."""
    now = SystemAmbient().now_ms()
    installed = int(Path(__file__).stat().st_mtime * 1_000)
    found = _time(now)
    advice = "set the clock, for example by NTP: memories carry its time and tasks expire by it"
    if installed > now + _CLOCK_SLACK_MS:
        return Finding("clock", "problem", f"{found} is before {_time(installed)}, when this was installed", advice)
    newest = max(created, default=now)
    if newest > now + _CLOCK_SLACK_MS:
        return Finding("clock", "problem", f"{found} is before {_time(newest)}, when the newest database began", advice)
    return Finding("clock", "ok", found)


def provider(name: str, endpoint: Endpoint | None, without: str) -> Finding:
    """What is configured; nothing is sent to it, for that may cost money."""
    if endpoint is None:
        return Finding(name, "ok", f"none configured: {without}")
    if endpoint.provider == "local":
        return Finding(name, "ok", f"{endpoint.model}, in this process")
    return Finding(name, "ok", f"{endpoint.model} by {endpoint.provider} at {endpoint.base_url}; not contacted")


def sandbox(settings: Settings) -> Finding:
    """Whether snippets can be run here: what that needs is installed, built, tested, and as it was written."""
    name = "sandbox"
    if settings.code == "off":
        return Finding(name, "ok", "MEMOTURN_CODE is off: no snippet is run")
    command = missing()
    if command is not None:
        return Finding(name, "ok", f"not installed: no snippet is run; `{command}` installs it")
    guest = GuestFile.fitting(settings.data_dir / "sandbox")
    try:
        if not guest.is_tested():
            return Finding(name, "ok", "not prepared yet: that takes half a minute when the first snippet comes")
        if not guest.is_intact():
            advice = "see who else can write there; the next snippet has it built anew"
            return Finding(name, "warning", "its interpreter is not as it was written, and is not used", advice)
    except OSError as error:
        advice = "give this user the right to read and write it, or remove it"
        return Finding(name, "problem", f"{guest.directory} cannot be read: {error.strerror}", advice)
    return Finding(name, "ok", "built, and has refused on this machine all that it must")


def listening(host: str, port: int) -> Finding:
    """Who answers where a node of this configuration would listen."""
    name = "node"
    if port == 0:
        return Finding(name, "ok", "MEMOTURN_LISTEN leaves the port to the system, so none can be looked for")
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - these are asked by another name
    place = f"[{reachable}]:{port}" if ":" in reachable else f"{reachable}:{port}"
    try:
        socket.create_connection((reachable, port), timeout=_ANSWERS_WITHIN_S).close()
    except ConnectionRefusedError:
        return Finding(name, "ok", f"nothing answers on {place}; `memoturn serve` would start a node there")
    except OSError as error:
        return Finding(name, "warning", f"{place} cannot be reached: {error}", "set MEMOTURN_LISTEN right")
    health = asyncio.run(_health(f"http://{place}", None))
    if isinstance(health, str):
        advice = "stop it, or set MEMOTURN_LISTEN to another port"
        return Finding(name, "warning", f"another program answers on {place}", advice)
    return Finding(name, "ok", _running(health, place))


def remote(url: str, token: str | None) -> Finding:
    """Whether the node answers to which MEMOTURN_URL sends the memories."""
    health = asyncio.run(_health(url, token))
    if isinstance(health, str):
        advice = "start the node, or set MEMOTURN_URL right; unset it to use this machine's memories"
        return Finding("MEMOTURN_URL", "problem", health, advice)
    return Finding("MEMOTURN_URL", "ok", _running(health, url))


async def _health(url: str, token: str | None) -> dict[str, Any] | str:
    """What a node says about itself, or why there is none."""
    door = RemoteDoor(url, token)
    try:
        async with asyncio.timeout(_ANSWERS_WITHIN_S):
            reply = await door.call(OPERATIONS["health_check"], NODE, {})
        return {"version": reply.value["version"], "sqlite_version": reply.value["sqlite_version"]}
    except TimeoutError:
        return f"what listens at {url} does not answer within {_ANSWERS_WITHIN_S:g} s"
    except MemoturnError as error:
        return str(error)
    except (KeyError, TypeError):
        return f"what answers at {url} is no Memoturn node"
    finally:
        await door.close()


def _running(health: dict[str, Any], place: str) -> str:
    return f"Memoturn {health['version']} with SQLite {health['sqlite_version']} answers at {place}"


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # it lies where this user may not look
        return False


def _limit(value: int) -> str:
    return "unlimited" if value == resource.RLIM_INFINITY else str(value)


def _time(ms: int) -> str:
    return f"{datetime.fromtimestamp(ms / 1_000, UTC):%Y-%m-%d %H:%M:%S} UTC"
