"""Runs know nothing of each other, and nothing that one does takes the others or the node with it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from contract.live_node import Live, event
from memoturn_core.code.limits import AT_ONCE, IDLE_WORKERS, PRESETS, WAITING
from memoturn_core.code.sandbox import Sandbox
from memoturn_storage.ambient import SystemAmbient
from sandbox.snippets import Snippets, hidden, kind

HANG_S = 20.0
"""After which something hangs rather than takes its time."""


def workers(live: Live, *, busy: bool = False) -> list[int]:
    """The processes of the node's workers."""
    assert live.node.sandbox is not None
    return live.node.sandbox.worker_pids(busy=busy)


def until(happened) -> None:
    deadline = time.monotonic() + HANG_S
    while not happened():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("before", "after", "output"),
    [
        ("left = 1", "'left' in globals()", False),
        ("import math; math.pi = 3", "import math; math.pi > 3.1", True),
        (hidden("import builtins; builtins.len = lambda _: 7"), "len('ab')", 2),
        (hidden("import sys; sys.modules['json'].loads = None"), "input_data", None),
        (hidden("import sys; sys.modules['memoturn_core.code.guest.check'].violation = lambda _: None"), "1", 1),
        ("import sys; sys.setrecursionlimit(50)", "import sys; sys.getrecursionlimit() > 50", True),
        ("import random; random.seed(1); random.random = lambda: 4", "import random; random.random() < 1", True),
        ("import sys; sys.stdout = None; raise SystemExit(1)", "print('hi')", None),
    ],
)
def test_a_run_leaves_nothing_to_the_next(snippets: Snippets, before, after, output):
    snippets.run(before)
    assert snippets.output(after) == output


def test_the_static_check_holds_again_after_a_run_that_removed_it(snippets: Snippets):
    snippets.run(hidden("import sys; sys.modules['memoturn_core.code.guest.run'].violation = lambda _: None"))
    assert kind(snippets.run("import os")) == "security_violation file_system"


def test_each_run_has_randomness_of_its_own(snippets: Snippets):
    code = "import random, uuid\n[random.random(), str(uuid.uuid4())]"
    seen = [snippets.output(code) for _ in range(20)]
    assert len({number for number, _ in seen}) == len({identifier for _, identifier in seen}) == 20


def test_of_many_at_once_so_many_run_and_the_others_wait(live: Live, snippets: Snippets):
    told = snippets.at_once(["import time\ntime.sleep(0.3)\n42"] * 25, preset="permissive")
    assert [each["output"] for each in told] == [42] * 25
    assert len(workers(live)) <= IDLE_WORKERS


def test_beyond_those_who_may_wait_a_request_is_refused_and_told_to_come_back(snippets: Snippets):
    asked = AT_ONCE + WAITING + 8
    with ThreadPoolExecutor(asked) as threads:
        responses = list(threads.map(lambda _: snippets.post("import time\ntime.sleep(1)\n42"), range(asked)))
    refused = [response for response in responses if response.status_code != 200]
    assert refused
    assert {(each.status_code, each.json()["code"]) for each in refused} == {(429, "overloaded")}
    assert all(each.headers["Retry-After"].isdecimal() for each in refused)
    assert all(each.json()["output"] == 42 for each in responses if each.status_code == 200)


def test_the_node_answers_others_while_snippets_rage(live: Live, snippets: Snippets):
    memory = live.memory()
    memory.keep(event("met Ana in Lisbon"))
    bombs = ["while True: pass", "a = [1]\nwhile True: a += a", "3 ** (10 ** 9)", "while True: print('x' * 99)"]
    with ThreadPoolExecutor(5) as threads:
        raging = [threads.submit(snippets.run, bomb) for bomb in [*bombs, bombs[0]]]
        answered = 0
        while not all(each.done() for each in raging):
            assert memory.found(query="Lisbon")
            answered += 1
        kinds = [kind(each.result()) for each in raging]
    assert answered > 20
    assert set(kinds) <= {"timeout", "error resource"}


def test_a_worker_that_is_killed_costs_its_own_run_and_no_other(live: Live, snippets: Snippets):
    snippets.output("1")
    with ThreadPoolExecutor(2) as threads:
        doomed = threads.submit(snippets.run, "import time\nprint('begun', flush=True)\ntime.sleep(30)\n1")
        until(lambda: workers(live, busy=True))
        [victim] = workers(live, busy=True)
        spared = threads.submit(snippets.run, "import time\ntime.sleep(0.5)\n2")
        os.kill(victim, signal.SIGKILL)
        told = doomed.result(HANG_S)
        assert kind(told) == "error unknown"
        assert "died" in told["message"]
        assert spared.result(HANG_S)["output"] == 2
    assert snippets.output("3") == 3
    assert victim not in workers(live)


def test_a_run_whose_sender_went_away_is_ended(guest: Path):
    async def main() -> None:
        sandbox = Sandbox(guest, SystemAmbient())
        try:
            await sandbox.run("1", None, PRESETS["default"])
            for seconds in (0.01, 0.1, 1):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(seconds):
                        await sandbox.run("import time\ntime.sleep(60)", None, PRESETS["permissive"])
                async with asyncio.timeout(HANG_S):
                    while sandbox.worker_pids(busy=True):  # noqa: ASYNC110 - nobody tells
                        await asyncio.sleep(0.01)
            assert await sandbox.run("1", None, PRESETS["default"])
        finally:
            await sandbox.aclose()
        assert sandbox.worker_pids() == []

    asyncio.run(main())


PARENT = """
import asyncio, sys
from pathlib import Path
from memoturn_core.code.limits import PRESETS
from memoturn_core.code.sandbox import Sandbox
from memoturn_storage.ambient import SystemAmbient

async def main():
    sandbox = Sandbox(Path(sys.argv[1]), SystemAmbient())
    await sandbox.run("1", None, PRESETS["default"])
    running = asyncio.create_task(sandbox.run("while True: pass", None, PRESETS["permissive"]))
    while not sandbox.worker_pids(busy=True):
        await asyncio.sleep(0.01)
    print(*sandbox.worker_pids(), flush=True)
    await running

asyncio.run(main())
"""


def test_no_worker_outlives_the_process_that_started_it(guest: Path):
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(guest)], stdout=subprocess.PIPE, text=True)
    with parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert pids
        parent.kill()
    until(lambda: not any(lives(pid) for pid in pids))


def lives(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def test_a_worker_has_nothing_of_the_nodes_environment_and_is_confined(live: Live, snippets: Snippets, monkeypatch):
    snippets.output("1")
    for pid in workers(live):
        variables = Path(f"/proc/{pid}/environ").read_bytes()
        assert [each.split(b"=")[0] for each in variables.split(b"\0") if each] == [b"PYTHONPATH"]
        assert os.getpgid(pid) == pid
        limits = Path(f"/proc/{pid}/limits").read_text()
        for name in ("Max file size", "Max core file size"):
            assert next(line for line in limits.splitlines() if line.startswith(name)).split()[-3:-1] == ["0", "0"]
        opened = [str(each.readlink()) for each in Path(f"/proc/{pid}/fd").iterdir()]
        assert not [each for each in opened if each.startswith("socket:") or str(live.node.directory) in each]
