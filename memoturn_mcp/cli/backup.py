"""`memoturn backup ...`: copies of databases that restore exactly, and that a person can read. Called by `main`.

What is in a backup's directory, and whether it is sound, is known to `memoturn_core.portability.archive`. A
database's file comes from, and goes to, whoever has it open, while others go on writing.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from shutil import rmtree
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer

from memoturn_mcp.cli.flags import AsOf, Format, Reach, Yes, as_moment, on_a_branch, on_a_node
from memoturn_mcp.cli.single import agree
from memoturn_schemas.errors import AlreadyExists, Internal, InvalidRequest, MemoturnError, NotFound, Unavailable

if TYPE_CHECKING:
    from memoturn_core.operations import Reply
    from memoturn_core.portability.archive import Manifest
    from memoturn_mcp.cli.reach import Ask

app = typer.Typer(
    help="Copy databases to files, check the copies, and restore them.", no_args_is_help=True, rich_markup_mode=None
)

_PART_BYTES = 4 << 20

Directory = Annotated[
    str | None,
    typer.Option("--dir", metavar="DIR", help="Where backups lie; by default backups in the data directory."),
]
Names = Annotated[list[str] | None, typer.Argument(metavar="NAME...", help="Backups, by name or directory.")]


@app.command()
@on_a_branch
def create(
    reach: Reach,
    output: Format | None,
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAMESPACE/PROFILE...", help="What to back up, instead of the one that the flags say."),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Back up every database.")] = False,
    to: Annotated[
        str | None,
        typer.Option("--to", metavar="DIR", help="Where to put it; by default backups in the data directory."),
    ] = None,
    as_of: AsOf = None,
) -> None:
    """Back up a profile, several or all, while others go on writing to them."""
    from memoturn_core.operations import Reply
    from memoturn_mcp.cli.output import show

    if everything and names:
        raise InvalidRequest("--all: leave it out where you name what to back up")
    if (everything or names) and (reach.db or reach.namespace or reach.profile):
        raise InvalidRequest("NAME: leave it and --all out with --db, --namespace and --profile, or these")
    moment = {} if as_of is None else {"as_of": as_moment("--as-of", as_of)}
    directory = _directory(reach, to)
    wanted = [_reaching(reach, name) for name in (_databases(reach) if everything else names or ())]
    made = []
    for one in wanted or [reach]:
        try:
            made.append(_create(one, directory, moment))
        except MemoturnError as error:
            if made:
                error.add_note(f"{len(made)} were backed up before: {', '.join(each['name'] for each in made)}")
            raise
    show("backup_create", Reply({"backups": made}), output)


@app.command("list")
@on_a_node
def list_(reach: Reach, output: Format | None, directory: Directory = None) -> None:
    """List backups, newest first, by what their manifests say; `verify` looks into them."""
    from memoturn_core.operations import Reply
    from memoturn_core.portability.archive import Manifest
    from memoturn_mcp.cli.output import show

    found = []
    where = _directory(reach, directory)
    for path in sorted(where.iterdir()) if where.is_dir() else ():
        if path.is_dir() and not path.name.startswith("."):
            try:
                found.append(_told(path.name, Manifest.read(path)))
            except InvalidRequest as error:
                found.append({"name": path.name, "damaged": str(error)})
    found.sort(key=lambda each: -each.get("created_at", 0))
    show("backup_list", Reply({"backups": found}), output)


@app.command()
@on_a_node
def verify(
    reach: Reach,
    output: Format | None,
    names: Names = None,
    everything: Annotated[bool, typer.Option("--all", help="Verify every backup.")] = False,
    directory: Directory = None,
) -> None:
    """Check backups: checksums of all files, the soundness of the database in each, and its counts."""
    from memoturn_core.operations import Reply
    from memoturn_core.portability import archive
    from memoturn_mcp.cli.output import show

    if everything == bool(names):
        raise InvalidRequest("NAME: give the backups to verify, or --all")
    where = _directory(reach, directory)
    if everything:
        names = [path.name for path in sorted(where.iterdir()) if path.is_dir() and not path.name.startswith(".")]
    verified = []
    for name in names or ():
        path = _found(where, name)
        with _about(path):
            verified.append(_told(path.name, archive.verify(path)))
    show("backup_verify", Reply({"backups": verified}), output)


@app.command()
@on_a_node
def restore(
    reach: Reach,
    output: Format | None,
    name: Annotated[str, typer.Argument(metavar="NAME", help="A backup, by name or directory.")],
    into: Annotated[
        str | None,
        typer.Option("--into", metavar="NAMESPACE/PROFILE", help="What to restore it into; where it comes from, else."),
    ] = None,
    replace_: Annotated[
        bool, typer.Option("--replace", help="Replace what is there. It can be rewound to afterwards.")
    ] = False,
    directory: Directory = None,
    yes: Yes = False,
) -> None:
    """Verify a backup and have a profile hold what it holds: all of it, or nothing is changed."""
    from memoturn_core.operations import Reply
    from memoturn_core.portability import archive
    from memoturn_mcp.cli.output import show
    from memoturn_mcp.cli.reach import run

    path = _found(_directory(reach, directory), name)
    with _about(path):
        manifest = archive.verify(path)
    target = manifest.database if into is None else into
    one = _reaching(reach, target, manifest.branch if into is None else None)
    if replace_:
        agree(yes, f"Replace everything in {target} by {path.name}?")
    sha256 = manifest.sha256[archive.DATABASE]
    with _about(path), (path / archive.DATABASE).open("rb") as file:
        try:
            reply = run(one, lambda ask: _restore(ask, file, sha256, replace_))
        except AlreadyExists as error:
            error.add_note("--replace puts the backup in its place; --into names another profile")
            raise
    if reply.value["rows"] != manifest.rows:
        raise Internal(f"{target} holds other rows than {path.name}; it can be rewound")
    value = {"name": path.name, "into": target, "txid": reply.txid, "rows": reply.value["rows"]}
    show("backup_restore", Reply(value, reply.txid), output)


# --- through operations --------------------------------------------------------------------------


def _create(reach: Reach, directory: Path, moment: dict[str, Any]) -> dict[str, Any]:
    from memoturn_core.portability import archive
    from memoturn_mcp.cli.reach import addressed, run, settings_of
    from memoturn_storage.ambient import SystemAmbient

    ambient = SystemAmbient()
    address = addressed(reach, settings_of(url=reach.url, data_dir=reach.data_dir))
    temporary = directory / f".{ambient.token(6).hex()}.tmp"
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary.mkdir(mode=0o700)
        with os.fdopen(os.open(temporary / archive.DATABASE, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
            reply = run(reach, lambda ask: _fetch(ask, moment, file))
        now_ms = ambient.now_ms()
        manifest = archive.complete(temporary, address.database or "", address.branch, reply.txid or 0, now_ms)
        path = directory / _name(manifest)
        if path.exists():
            raise AlreadyExists(f"{path.name}: there is such a backup already")
        temporary.rename(path)
    except OSError as error:
        raise Unavailable(f"--to: the backup cannot be written: {error.strerror}") from None
    finally:
        rmtree(temporary, ignore_errors=True)
    return _told(path.name, manifest)


async def _fetch(ask: Ask, moment: dict[str, Any], file: BinaryIO) -> Reply:
    arguments = moment
    while True:
        reply = await ask("backup_database", arguments)
        file.write(base64.b64decode(reply.value["data"]))
        if "next_cursor" not in reply.value:
            return reply
        arguments = {"cursor": reply.value["next_cursor"]}


async def _restore(ask: Ask, file: BinaryIO, sha256: str, replacing: bool) -> Reply:
    arguments: dict[str, Any] = {}
    part = file.read(_PART_BYTES)
    while True:
        arguments["data"] = base64.b64encode(part).decode()
        part = file.read(_PART_BYTES)
        if not part:
            return await ask("restore_database", arguments | {"sha256": sha256, "replace": replacing})
        reply = await ask("restore_database", arguments)
        arguments = {"cursor": reply.value["next_cursor"]}


def _databases(reach: Reach) -> list[str]:
    """The names of all there are."""
    from memoturn_core.operations import Reply
    from memoturn_mcp.cli.reach import run

    async def listed(ask: Ask) -> Reply:
        names: list[str] = []
        arguments: dict[str, Any] = {}
        while True:
            reply = await ask("list_databases", arguments)
            names += [each["name"] for each in reply.value["databases"]]
            if "next_cursor" not in reply.value:
                return Reply({"names": names})
            arguments = {"cursor": reply.value["next_cursor"]}

    names: list[str] = run(reach, listed).value["names"]
    if not names:
        raise NotFound("there are no databases to back up")
    return names


# --- names ---------------------------------------------------------------------------------------


def _reaching(reach: Reach, name: str, branch: str | None = None) -> Reach:
    """The reach of what a person calls `namespace/profile`, and the program `namespace--profile`; or a database."""
    branch = reach.branch if branch is None else branch
    for separator in ("/", "--"):
        namespace, found, profile = name.partition(separator)
        if found:
            return replace(reach, db=None, namespace=namespace, profile=profile, branch=branch)
    return replace(reach, db=name, namespace=None, profile=None, branch=branch)


def _directory(reach: Reach, given: str | None) -> Path:
    from memoturn_mcp.cli.reach import settings_of

    if given is not None:
        return Path(given)
    # Backups of a node elsewhere lie on this machine too.
    return settings_of(data_dir=reach.data_dir).data_dir / "backups"


def _found(directory: Path, name: str) -> Path:
    for path in (directory / name, Path(name)):
        if path.is_dir():
            return path.absolute()
    missing = NotFound(f"there is no backup {name}")
    missing.add_note("`memoturn backup list` shows the backups")
    raise missing


def _name(manifest: Manifest) -> str:
    at = datetime.fromtimestamp(manifest.created_at / 1_000, UTC).strftime("%Y%m%dT%H%M%S")
    branch = "" if manifest.branch == "main" else f"@{manifest.branch}"
    return f"{manifest.database}{branch}.{at}Z.{manifest.txid}"


def _told(name: str, manifest: Manifest) -> dict[str, Any]:
    return {
        "name": name,
        "database": manifest.database,
        "branch": manifest.branch,
        "txid": manifest.txid,
        "created_at": manifest.created_at,
        "bytes": manifest.size,
        "records": manifest.records,
        "rows": dict(manifest.rows),
    }


@contextmanager
def _about(path: Path) -> Iterator[None]:
    """Say of a damaged backup which one it is."""
    try:
        yield
    except InvalidRequest as error:
        raise InvalidRequest(f"{path.name}: {error}") from None
