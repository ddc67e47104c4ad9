"""What a call costs through each surface, with real processes on loopback.

    python -m benchmarks.surfaces [--json FILE]

A recall in a profile of 1 000 memories over REST (one client and sixteen), over MCP streamable HTTP and
over stdio; the bound is a request that does nothing on the same connection: `/health`, or MCP's `ping`.
Also the time from starting `memoturn-mcp` to its first answer, bounded by starting the interpreter and
importing the MCP library.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client

from benchmarks.measure import Row, Texts, percentile, table, timed

PROFILE = "/v1/memory/bench/one"
ADDRESS = {"namespace": "bench", "profile": "one"}
STDIO = [sys.executable, "-m", "memoturn_mcp"]


@contextmanager
def node(directory: Path) -> Iterator[str]:
    """A served node; gives its URL."""
    environment = {**os.environ, "MEMOTURN_DATA_DIR": str(directory), "MEMOTURN_LISTEN": "127.0.0.1:0"}
    command = [sys.executable, "-c", "from memoturn_mcp.cli.main import main; main()", "serve"]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if "listening on" in line:
                yield line.split("listening on ")[1].split()[0]
                break
    finally:
        process.terminate()
        process.wait()
        process.stderr.close()


async def rest(url: str, texts: Texts) -> list[Row]:
    questions = [{"query": texts.words(6)} for _ in range(64)]
    with httpx.Client(base_url=url) as plain:
        async with httpx.AsyncClient(base_url=url) as client:
            batch = [{"type": "event", "summary": (text := texts.sentence()), "content": text} for _ in range(1_000)]
            (await client.post(f"{PROFILE}/memories", json={"memories": batch})).raise_for_status()

            async def recall(index: int) -> None:
                (await client.post(f"{PROFILE}/recall", json=questions[index % 64])).raise_for_status()

            one = await timed("rest_recall_1k", 500, recall, lambda _: plain.get("/health"))
            return [one, await crowd(client, recall, 16, 2_000)]


async def crowd(client: httpx.AsyncClient, call: Any, width: int, total: int) -> Row:
    """`total` calls from `width` clients at once; the bound is the same crowd asking for `/health`."""

    async def run(call: Any) -> tuple[list[float], float]:
        times: list[float] = []
        queue = iter(range(total))

        async def one() -> None:
            for index in queue:
                started = time.perf_counter()
                await call(index)
                times.append(time.perf_counter() - started)

        started = time.perf_counter()
        await asyncio.gather(*(one() for _ in range(width)))
        return times, time.perf_counter() - started

    times, seconds = await run(call)
    bounds, bound_seconds = await run(lambda _: client.get("/health"))
    print(f"16 clients in one process: {total / seconds:.0f} recalls/s; {total / bound_seconds:.0f} /health/s")
    return Row(
        "rest_recall_1k_x16",
        round(percentile(times, 0.5) * 1e6, 1),
        round(percentile(times, 0.99) * 1e6, 1),
        round(percentile(bounds, 0.5) * 1e6, 1),
        total,
    )


async def mcp(row: str, client: Client, texts: Texts) -> Row:
    questions = [texts.words(6) for _ in range(64)]

    async def recall(index: int) -> None:
        result = await client.call_tool("memory_recall", {**ADDRESS, "query": questions[index % 64]})
        assert not result.is_error

    times = await timed(row, 300, recall, None)

    async def nothing(_: int) -> None:
        await client.call_tool("health_check", {})

    bound = await timed(row, 300, nothing, None)
    return Row(row, times.p50_us, times.p99_us, bound.p50_us, 300)


async def start(directory: Path) -> Row:
    """From starting the process to the answer of its first `tools/list`."""

    async def first_answer(_: int) -> None:
        parameters = StdioServerParameters(
            command=STDIO[0], args=STDIO[1:], env={**os.environ, "MEMOTURN_DATA_DIR": str(directory)}
        )
        async with Client(stdio_client(parameters)) as client:
            await client.list_tools()

    def imports(_: int) -> None:
        subprocess.run([sys.executable, "-c", "import mcp.server.lowlevel"], check=True)

    return await timed("start_stdio", 5, first_answer, imports)


async def measure(directory: Path) -> list[Row]:
    texts = Texts(seed=11)
    with node(directory) as url:
        rows = await rest(url, texts)
        async with Client(f"{url}/mcp") as client:
            rows.append(await mcp("mcp_http_recall_1k", client, texts))
    parameters = StdioServerParameters(
        command=STDIO[0], args=STDIO[1:], env={**os.environ, "MEMOTURN_DATA_DIR": str(directory)}
    )
    async with Client(stdio_client(parameters)) as client:
        rows.append(await mcp("mcp_stdio_recall_1k", client, texts))
    rows.append(await start(directory))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows as JSON")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        rows = asyncio.run(measure(Path(directory)))
    print(table(rows))
    if arguments.json:
        arguments.json.write_text(json.dumps([row.as_json() for row in rows], indent=2) + "\n")


if __name__ == "__main__":
    main()
