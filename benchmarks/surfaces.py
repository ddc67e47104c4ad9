"""What a call costs through each surface, with real processes on loopback.

    python -m benchmarks.surfaces [--json FILE]

A recall in a profile of 1 000 memories over REST (1, 16 and 64 clients, and a key beside), over MCP streamable HTTP
and over stdio; the bound is a request that does nothing on the same connection: `/health`, or MCP's `ping`.
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
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client

from benchmarks.measure import Row, Texts, percentile, table, timed

CROWDS = (1, 16, 64)
"""Connections at once."""
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


class Connection:
    """One kept-alive HTTP connection, with as little client around it as can be."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, url: str) -> Connection:
        host, port = url.removeprefix("http://").split(":")
        return cls(*await asyncio.open_connection(host, int(port)))

    async def send(
        self, method: str, path: str, body: object = None, headers: Mapping[str, str] = MappingProxyType({})
    ) -> bytes:
        """The body of the answer, whose status must say success."""
        content = b"" if body is None else json.dumps(body).encode()
        told = {"Host": "127.0.0.1", "Content-Length": len(content), **headers}
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in told.items()), "", ""]
        self._writer.write("\r\n".join(lines).encode() + content)
        answer = await self._reader.readuntil(b"\r\n\r\n")
        length = int(answer.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        received = await self._reader.readexactly(length)
        assert answer.split()[1].startswith(b"2"), received
        return received

    def close(self) -> None:
        self._writer.close()


async def rest(url: str, texts: Texts) -> list[Row]:
    questions = [{"query": texts.words(6)} for _ in range(64)]
    connections = [await Connection.open(url) for _ in range(max(CROWDS))]
    first = connections[0]
    batch = [{"type": "event", "summary": (text := texts.sentence()), "content": text} for _ in range(1_000)]
    await first.send("POST", f"{PROFILE}/memories", {"memories": batch})
    await first.send("PUT", f"{PROFILE}/kv/bench/key", "a value")

    async def nothing(connection: Connection, _: int) -> None:
        await connection.send("GET", "/health")

    async def recall(connection: Connection, index: int) -> None:
        await connection.send("POST", f"{PROFILE}/recall", questions[index % 64])

    async def get(connection: Connection, _: int) -> None:
        await connection.send("GET", f"{PROFILE}/kv/bench/key")

    async def put(connection: Connection, index: int) -> None:
        await connection.send("PUT", f"{PROFILE}/kv/bench/key-{index % 500}", "another value")

    rows = []
    for count in CROWDS:
        bounds, bound_per_second = await crowd(connections[:count], nothing, 3_000)
        for name, call in (("recall_1k", recall), ("kv_get", get), ("kv_put", put)):
            times, per_second = await crowd(connections[:count], call, 500 if count == 1 else 3_000)
            print(f"{count} connections: {per_second:.0f} {name}/s, {bound_per_second:.0f} /health/s")
            p50, p99 = (round(percentile(times, share) * 1e6, 1) for share in (0.5, 0.99))
            rows.append(Row(f"rest_{name}_x{count}", p50, p99, round(percentile(bounds, 0.5) * 1e6, 1), len(times)))
    for connection in connections:
        connection.close()
    return rows


async def crowd(
    connections: list[Connection], call: Callable[[Connection, int], Awaitable[None]], total: int
) -> tuple[list[float], float]:
    """`total` calls over all connections at once: each call's seconds, and calls a second."""
    times: list[float] = []
    queue = iter(range(total))

    async def one(connection: Connection) -> None:
        for index in queue:
            started = time.perf_counter()
            await call(connection, index)
            times.append(time.perf_counter() - started)

    started = time.perf_counter()
    await asyncio.gather(*(one(connection) for connection in connections))
    return times, total / (time.perf_counter() - started)


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
