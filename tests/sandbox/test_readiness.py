"""The sandbox gets itself ready, and where it does not hold, nothing is run and nothing offered."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from memoturn_core.code import guest_file, sandbox, selftest
from memoturn_core.code.guest_file import GuestFile
from memoturn_core.code.limits import PRESETS
from memoturn_core.code.sandbox import Sandbox
from memoturn_core.code.selftest import Attempt
from memoturn_mcp.opening import open_node
from memoturn_mcp.settings import Settings
from memoturn_schemas.errors import InvalidRequest, Unavailable, Unconfigured
from memoturn_storage.ambient import SystemAmbient

LIMITS = PRESETS["restrictive"]


def used(directory: Path, use: Callable[[Sandbox], Coroutine[Any, Any, Any]]) -> Any:
    async def main() -> Any:
        made = Sandbox(directory, SystemAmbient())
        try:
            return await use(made)
        finally:
            await made.aclose()

    return asyncio.run(main())


@pytest.fixture
def copy(guest: Path, tmp_path: Path) -> Path:
    """A directory with a guest that nobody has tested."""
    directory = tmp_path / "sandbox"
    shutil.copytree(guest, directory)
    stamp = GuestFile.fitting(directory).stamp
    stamp.write_text(json.dumps({**json.loads(stamp.read_text()), "tested": []}))
    return directory


def test_it_is_offered_once_it_was_tested_and_from_then_on(copy):
    async def use(made: Sandbox) -> tuple[bool, bool]:
        before = made.offered()
        await made.run("1", None, LIMITS)
        return before, made.offered()

    assert used(copy, use) == (False, True)
    assert used(copy, lambda made: asyncio.to_thread(made.offered)) is True
    assert len(json.loads(GuestFile.fitting(copy).stamp.read_text())["tested"]) == len(selftest.ATTEMPTS)


def test_where_one_denial_does_not_hold_nothing_is_run_or_offered(copy, monkeypatch):
    breach = Attempt("it cannot count", "got = 1", ("error permission",))
    monkeypatch.setattr(selftest, "ATTEMPTS", (*selftest.ATTEMPTS, breach))

    async def use(made: Sandbox) -> list[str]:
        said = []
        for _ in range(2):
            with pytest.raises(Unconfigured) as refused:
                await made.run("1", None, LIMITS)
            said.append(str(refused.value))
        assert not made.offered()
        assert made.worker_pids() == []
        return said

    said = used(copy, use)
    assert said == ["the sandbox failed its self-test on this machine and is not used: it cannot count: success 1"] * 2


@pytest.mark.parametrize("damage", ["changed", "cut", "open to others", "without its checksum"])
def test_machine_code_that_is_not_as_it_was_written_is_not_loaded(copy, damage, monkeypatch):
    fitting = GuestFile.fitting(copy)
    assert fitting.is_intact()
    if damage == "changed":
        with fitting.compiled.open("r+b") as file:
            file.seek(1_000_000)
            file.write(b"\xcc" * 16)
    elif damage == "cut":
        with fitting.compiled.open("r+b") as file:
            file.truncate(1_000_000)
    elif damage == "open to others":
        fitting.compiled.chmod(0o644)
    else:
        fitting.stamp.write_text("{")
    assert not fitting.is_intact()
    built = []

    async def no_build(directory: Path) -> None:
        built.append(directory)

    monkeypatch.setattr(sandbox, "_build", no_build)

    async def use(made: Sandbox) -> None:
        with pytest.raises(Unavailable):
            await made.run("1", None, LIMITS)
        assert made.worker_pids() == []

    used(copy, use)
    assert built == [copy]


def test_while_it_is_prepared_a_request_is_told_to_come_back(tmp_path, monkeypatch):
    async def long(_: Path) -> None:
        await asyncio.sleep(3_600)

    monkeypatch.setattr(sandbox, "_build", long)
    monkeypatch.setattr(sandbox, "_PREPARED_WITHIN_S", 0.05)

    async def use(made: Sandbox) -> None:
        assert not made.offered()
        for _ in range(2):
            with pytest.raises(Unavailable, match="is being prepared"):
                await made.run("1", None, LIMITS)

    used(tmp_path, use)


def test_without_its_parts_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(guest_file, "PARTS", ("wasmtime_that_is_not_there",))

    async def use(made: Sandbox) -> None:
        assert not made.offered()
        with pytest.raises(Unconfigured, match=r"memoturn\[code\]"):
            await made.run("1", None, LIMITS)

    used(tmp_path, use)
    assert list(tmp_path.iterdir()) == []


def test_the_setting_says_whether_there_is_one(tmp_path):
    def made(value: str | None) -> Sandbox | None:
        environment = {"MEMOTURN_DATA_DIR": str(tmp_path)} | ({} if value is None else {"MEMOTURN_CODE": value})
        node = open_node(Settings.from_environment(environment))
        asyncio.run(node.close())
        return node.sandbox

    assert made("off") is None
    assert made(None) is not None
    assert made("on") is not None
    with pytest.raises(InvalidRequest, match="MEMOTURN_CODE: must be one of off, auto, on"):
        made("yes")
    assert not (tmp_path / "sandbox").exists()


def test_one_that_should_be_ready_from_the_start_begins_when_tools_are_listed(copy):
    async def main() -> None:
        made = Sandbox(copy, SystemAmbient(), from_start=True)
        try:
            async with asyncio.timeout(20):
                while not made.offered():  # noqa: ASYNC110 - as clients do, who list tools now and then
                    await asyncio.sleep(0.02)
        finally:
            await made.aclose()

    asyncio.run(main())
