"""What an episode costs over REST, with a served node.

    python -m benchmarks.episodes_served [--json FILE]

A write is acknowledged when it is on disk, and in the rows `_durable` when the object store (a directory) has it. The
bound is `/health` on the same connection, or two files that are written and synced.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from pydantic_core import from_json

from benchmarks.episodes import STEPS, Work, begun
from benchmarks.measure import Row, table, timed
from benchmarks.surfaces import Connection, node

_PATH = "/v1/memory/bench/one/episodes"


async def served(directory: Path, n: int) -> list[Row]:
    """A served node, one call after another."""
    work = Work(seed=23)
    with node(directory) as url:
        connection = await Connection.open(url)
        found = await _lives(connection, work, n, "", {}, partial(connection.send, "GET", "/health"))
        headers = {"Memoturn-Durability": "durable"}
        found += await _lives(connection, work, n, "_durable", headers, partial(_put_twice, directory))
        connection.close()
    return found


async def _put_twice(directory: Path) -> None:
    """A segment and a manifest, of an episode's usual size."""
    for name in ("segment", "manifest"):
        with (directory / name).open("wb") as file:
            file.write(os.urandom(4_000))
            os.fsync(file.fileno())


async def _lives(
    connection: Connection,
    work: Work,
    n: int,
    suffix: str,
    headers: Mapping[str, str],
    bound: Callable[[], Awaitable[object]],
) -> list[Row]:
    wholes = [work.episode(STEPS) for _ in range(n + max(1, n // 10))]
    ids = [""] * len(wholes)

    async def create(index: int) -> None:
        answer = await connection.send("POST", _PATH, begun(wholes[index]), headers)
        ids[index] = from_json(answer)["episode_id"]

    async def step(index: int) -> None:
        await connection.send("POST", f"{_PATH}/{ids[index]}/steps", wholes[index]["steps"][0], headers)

    async def complete(index: int) -> None:
        outcome = wholes[index]["outcome"]
        await connection.send("POST", f"{_PATH}/{ids[index]}/complete", {"outcome": outcome}, headers)

    bound_us = (await timed("", n, lambda _: bound(), None)).p50_us
    found = [
        await timed(f"rest_episode_create{suffix}", n, create, None),
        await timed(f"rest_episode_step{suffix}", n, step, None),
    ]
    for id_, whole in zip(ids, wholes, strict=True):
        for each in whole["steps"][1:]:
            await connection.send("POST", f"{_PATH}/{id_}/steps", each)
    found.append(await timed(f"rest_episode_complete{suffix}", n, complete, None))
    return [replace(row, bound_us=bound_us) for row in found]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows as JSON")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        measured = asyncio.run(served(Path(directory), 300))
    print(table(measured))
    if arguments.json:
        arguments.json.write_text(json.dumps([row.as_json() for row in measured], indent=2) + "\n")


if __name__ == "__main__":
    main()
