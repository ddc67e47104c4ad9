"""How a command gets to the memories: flags over the environment, a door, an address, an operation.

`run` opens a door once for all that a command has to ask; `run_beside` is for what no operation does, and
works on the object store itself. Called by the commands.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import structlog

from memoturn_core.address import NODE, Address
from memoturn_core.caller import LOCAL
from memoturn_core.door import Door, RemoteDoor
from memoturn_core.operations import Operation, Reply, Target
from memoturn_core.registry import OPERATIONS
from memoturn_mcp.cli.flags import Reach as Reach
from memoturn_mcp.settings import DEFAULT_NAME, Settings
from memoturn_schemas.errors import (
    BranchNotFound,
    DatabaseNotFound,
    InvalidRequest,
    MemoturnError,
    Unauthorized,
    Unavailable,
)

if TYPE_CHECKING:
    from memoturn_core.node import Node

Ask = Callable[[str, Mapping[str, Any]], Awaitable[Reply]]
"""Runs an operation, by its name, with these arguments."""

_VARIABLES = {"--url": "MEMOTURN_URL", "--data-dir": "MEMOTURN_DATA_DIR", "--listen": "MEMOTURN_LISTEN"}
_NAMED_PROFILES = 10
_NODE_IS_DOWN = (
    "is the node running? `memoturn serve` starts one; without --url and MEMOTURN_URL the memories are those of"
    " this machine"
)


def settings_of(
    *,
    url: str | None = None,
    data_dir: str | None = None,
    listen: str | None = None,
) -> Settings:
    """The environment's settings; flags win. A data directory that is asked for wins over MEMOTURN_URL.

    Raises:
        InvalidRequest: names the flag or the variable.
    """
    flags = {"--url": url, "--data-dir": data_dir, "--listen": listen}
    if url is not None and data_dir is not None:
        raise InvalidRequest("--url and --data-dir: give one of them, for the memories are in one place")
    environ = dict(os.environ)
    if data_dir is not None:
        environ.pop("MEMOTURN_URL", None)
    given = {_VARIABLES[flag]: flag for flag, value in flags.items() if value is not None}
    for variable, flag in given.items():
        if not flags[flag]:
            raise InvalidRequest(f"{flag}: must not be empty")
        environ[variable] = flags[flag] or ""
    try:
        return Settings.from_environment(environ)
    except InvalidRequest as error:
        variable, _, rule = str(error).partition(":")
        if variable in given:
            raise InvalidRequest(f"{given[variable]}:{rule}") from None
        error.add_note("set it right or unset it; `memoturn doctor` checks the whole environment")
        raise


def addressed(reach: Reach, settings: Settings) -> Address:
    """The branch that a command is about.

    Raises:
        InvalidRequest: a name is not one, or two flags each name a database or a branch.
    """
    if reach.db is not None:
        others = {"--namespace": reach.namespace, "--profile": reach.profile}
        if "@" in reach.db:
            others["--branch"] = reach.branch
        for flag, value in others.items():
            if value is not None:
                raise InvalidRequest(f"{flag}: leave it out with --db {reach.db}, which says what is meant")
        return Address.of_database(reach.db, reach.branch)
    namespace = reach.namespace if reach.namespace is not None else settings.namespace or DEFAULT_NAME
    profile = reach.profile if reach.profile is not None else settings.profile or DEFAULT_NAME
    return Address.of_profile(namespace, profile, reach.branch)


def run(reach: Reach, work: Callable[[Ask], Awaitable[Reply]], *, mints: bool = False) -> Reply:
    """Do `work` through a door that is open as long as it lasts; `mints` where it is about tokens.

    Raises:
        MemoturnError: with hints as its notes where more is known than its kind says.
    """
    settings = settings_of(url=reach.url, data_dir=reach.data_dir)
    one = addressed(reach, settings)

    from memoturn_mcp.opening import local_door, open_authority, open_node  # take longest to import

    _configure_logging(settings)

    def opened() -> Door:
        if settings.url is not None:
            return RemoteDoor(settings.url, settings.token, settings.platform_key)
        # One command is one caller: the engine needs no threads.
        alone = replace(settings, limits=replace(settings.limits, threads=0))
        signs = mints and settings.access is not None
        node = open_node(alone, create=signs)
        authority = open_authority(node, settings) if signs else None
        return local_door(node, settings, caller=replace(LOCAL, authority=authority))

    async def main() -> Reply:
        door = opened()

        async def ask(name: str, arguments: Mapping[str, Any]) -> Reply:
            operation = OPERATIONS[name]
            try:
                return await door.call(operation, _part(one, operation), arguments)
            except Unauthorized as error:
                if operation.control:
                    error.add_note("MEMOTURN_PLATFORM_KEY holds the key that opens the node's control plane")
                raise

        try:
            return await work(ask)
        except (DatabaseNotFound, BranchNotFound) as error:
            if one.may_create:
                await _name_profiles(error, door, one)
            elif isinstance(error, DatabaseNotFound):
                error.add_note("`memoturn db list` shows the databases, `memoturn db create` makes one")
            raise
        except Unavailable as error:
            if settings.url is not None:
                error.add_note(_NODE_IS_DOWN if error.__cause__ is not None else "the node may take it in a moment")
            raise
        finally:
            await door.close()

    return asyncio.run(main())


def _part(address: Address, operation: Operation) -> Address:
    """As much of the address as the operation is about."""
    if operation.target is Target.NODE:
        return NODE
    return Address.of_namespace(address.namespace or "") if operation.target is Target.NAMESPACE else address


def run_beside(reach: Reach, work: Callable[[Node, Address], Reply]) -> Reply:
    """Do `work` on this machine's object store itself, beside every node that may be using it.

    The node that is handed over owns nothing: whoever asks it for a branch only by its manifest takes no lease.

    Raises:
        InvalidRequest: the memories are those of a node elsewhere.
    """
    settings = settings_of(url=reach.url, data_dir=reach.data_dir)
    if settings.url is not None:
        flag = "MEMOTURN_URL" if reach.url is None else "--url"
        raise InvalidRequest(
            f"{flag}: this reads the object store itself, which no node hands out; leave it out, and say with"
            " MEMOTURN_OBJECT_STORE or --data-dir where the objects are"
        )
    address = addressed(reach, settings)

    from memoturn_mcp.opening import open_node

    _configure_logging(settings)
    node = open_node(settings, create=False)
    try:
        return work(node, address)
    finally:
        asyncio.run(node.close())


async def _name_profiles(error: MemoturnError, door: Door, address: Address) -> None:
    """Note on the error which profiles there are, unless that is not the trouble or cannot be had."""
    namespace, profile = Address.of_namespace(address.namespace or ""), (address.database or "").partition("--")[2]
    try:
        reply = await door.call(OPERATIONS["memory_profiles_list"], namespace, {})
    except MemoturnError:
        return
    names = [entry["profile"] for entry in reply.value["profiles"]]
    if profile in names:
        return
    if not names:
        error.add_note(f"namespace {namespace.namespace} has no profiles yet; `memoturn memory ingest` makes one")
        return
    listed = ", ".join(names[:_NAMED_PROFILES])
    more = len(names) - _NAMED_PROFILES
    error.add_note(
        f"profiles in namespace {namespace.namespace}: {listed}{f' and {more} more' if more > 0 else ''};"
        " `memoturn memory ingest` makes new ones"
    )


def _configure_logging(settings: Settings) -> None:
    """Warnings as single lines on stderr; the full log where MEMOTURN_LOG_LEVEL asks for it."""
    if os.environ.get("MEMOTURN_LOG_LEVEL"):
        from memoturn_mcp.logs import configure_logging

        configure_logging(settings.log_level, json=False)
        return
    structlog.configure(
        processors=[_as_line],
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def _as_line(_: Any, level: str, event: structlog.typing.EventDict) -> str:
    message = str(event.pop("event"))
    if message in ("operation failed", "operation refused"):
        raise structlog.DropEvent  # the command itself says so
    details = ", ".join(f"{name} {value}" for name, value in event.items() if name != "exc_info")
    return f"memoturn: {level}: {message}{f' ({details})' if details else ''}"
