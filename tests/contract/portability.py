"""Export, import, backup and restore by their routes, what a profile is given before, and a process killed at it."""

from __future__ import annotations

import base64
import hashlib
import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx

from contract.live_node import Live, Memory
from e2e.raw_server import Said
from memoturn_core.portability import images
from memoturn_storage.handle import Snapshot
from memoturn_storage.manifest import BranchRef

PART = 1 << 20
Records = list[dict[str, Any]]


# --- by the routes -------------------------------------------------------------------------------


def exported(memory: Memory, **query: Any) -> Records:
    """All pages, without the header and the end."""
    records: Records = []
    txids = set()
    while True:
        response = memory.http.get(f"{memory.path}/export", params=query)
        assert response.status_code == 200, response.text
        page = response.json()
        records += page["records"]
        txids.add(page["txid"])
        if "next_cursor" not in page:
            break
        query = {"cursor": page["next_cursor"]}
    assert len(txids) == 1
    assert records[0] == {"kind": "header", "format": 1}
    assert records[-1] == {"kind": "end", "records": len(records) - 2}
    return records[1:-1]


def import_(memory: Memory, records: Any) -> Any:
    response = memory.http.post(f"{memory.path}/import", json={"records": records})
    assert response.status_code == 200, response.text
    return response.json()


def take_all(memory: Memory, records: Records, size: int = 100) -> None:
    for start in range(0, len(records), size):
        answer = import_(memory, records[start : start + size])
        assert answer["refused"] == []


def backed_up(memory: Memory, **query: Any) -> tuple[bytes, int]:
    """The file, and the transaction that it is of."""
    data = b""
    while True:
        response = memory.http.get(f"{memory.path}/backup", params=query)
        assert response.status_code == 200, response.text
        part = response.json()
        data += base64.b64decode(part["data"])
        if "next_cursor" not in part:
            assert len(data) == part["size"]
            return data, part["txid"]
        query = {"cursor": part["next_cursor"]}


def restore(memory: Memory, data: bytes, part: int = PART, **more: Any) -> Any:
    body: dict[str, Any] = {}
    for start in itertools.count(0, part):
        body["data"] = base64.b64encode(data[start : start + part]).decode()
        if start + part >= len(data):
            body |= {"sha256": hashlib.sha256(data).hexdigest(), **more}
            return memory.http.post(f"{memory.path}/restore", json=body)
        body = {"cursor": memory.http.post(f"{memory.path}/restore", json=body).json()["next_cursor"]}
    raise AssertionError


def sql(memory: Memory, *statements: str) -> Any:
    response = memory.http.post(f"{memory.path}/sql", json={"stmts": [{"q": each} for each in statements]})
    assert response.status_code == 200, response.text
    return [result["rows"] for result in response.json()["results"]]


def in_file(live: Live, memory: Memory, work: Any) -> Any:
    """Run `work` on the profile's snapshot."""
    entry = live.node.catalog.known(f"{memory.namespace}--{memory.profile}")
    assert entry is not None
    return live.node.engine.read(BranchRef(entry.uuid), work).result().value


def digests(live: Live, memory: Memory) -> dict[str, str]:
    """A checksum of each table."""
    return in_file(live, memory, lambda snapshot: images.digests(snapshot.connection))


def assert_sound(live: Live, memory: Memory) -> None:
    def check(snapshot: Snapshot) -> None:
        assert snapshot.connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        for index in ("memories", "turns", "episodes"):
            name = f"__memoturn_{index}_fts"
            snapshot.connection.execute(f"INSERT INTO {name} ({name}, rank) VALUES ('integrity-check', 1)")

    in_file(live, memory, check)


def assert_refused(response: httpx.Response) -> None:
    assert (response.status_code, response.json()["code"]) == (400, "invalid_request"), response.text


# --- what is there before ------------------------------------------------------------------------


def act(memory: Memory, method: str, path: str, body: Any) -> None:
    """Do it; what the profile refuses is not what these tests are about."""
    given = {"content": body} if isinstance(body, bytes) else {} if body is None else {"json": body}
    assert memory.http.request(method, memory.path + path, **given).status_code < 500


def whole_episodes(memory: Memory) -> None:
    """Episodes with everything that is learnt from them."""
    for number in range(4):
        made = memory.http.post(
            f"{memory.path}/episodes",
            json={
                "task_description": f"fix the parser {number}",
                "task_type": "debugging",
                "domain": "parsers",
                "tags": ["ci"],
            },
        )
        assert made.status_code == 201, made.text
        path = f"{memory.path}/episodes/{made.json()['episode_id']}"
        for step, tool in enumerate(("read", "edit", "test", "edit", "test"), start=1):
            result = {"type": "error", "message": "it failed"} if step == 3 else {"type": "success", "output": "ok"}
            body = {"tool": tool, "action": f"{tool} it", "parameters": {"n": 1e22}, "result": result}
            assert memory.http.post(f"{path}/steps", json=body).status_code == 201
        ended = memory.http.post(f"{path}/complete", json={"outcome": {"type": "success", "verdict": "it works"}})
        assert ended.status_code == 200, ended.text


# --- kill -9 -------------------------------------------------------------------------------------

WORKER = """
import asyncio, base64, hashlib, json, sys
from pathlib import Path
from memoturn_core.address import Address
from memoturn_core.caller import LOCAL
from memoturn_core.invoke import invoke
from memoturn_core.node import Node
from memoturn_core.registry import OPERATIONS
from memoturn_mcp.logs import configure_logging

configure_logging("error", json=False)
directory, what, given = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])

async def main():
    node = Node.open(directory)
    address = Address.of_profile("acme", "killed")
    async def ask(name, **arguments):
        return (await invoke(node, OPERATIONS[name], address, arguments, LOCAL)).value
    print("ready", flush=True)
    if what == "import":
        lines = given.read_bytes().splitlines()
        for start in range(0, len(lines), 40):
            await ask("import_records", records=[json.loads(line) for line in lines[start : start + 40]])
            print(start, flush=True)
    else:
        for number in range(1_000):
            data = (given / str(number % 2)).read_bytes()
            digest = hashlib.sha256(data).hexdigest()
            await ask("restore_database", data=base64.b64encode(data).decode(), sha256=digest, replace=True)
            print(number, flush=True)

asyncio.run(main())
"""


def killed(directory: Path, what: str, given: Path, lines: int) -> list[str]:
    """What the process said before it was killed, a moment after it had said so many lines."""
    command = [sys.executable, "-c", WORKER, str(directory), what, str(given)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        said = Said(process)
        assert said.lines(1) == ["ready\n"]
        return said.lines(lines) + said.until_killed()
