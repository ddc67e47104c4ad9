"""The documents say what happens: every console block in them is run, and its output compared.

`$ ` begins a command, `> ` continues it; what follows is its output, in which `...` stands for anything.
Commands run in one directory with a node of their own; its address replaces the documented one.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from warm_cli import install

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
STORIES = [document for document in DOCUMENTS if "```console" in document.read_text(encoding="utf-8")]
ADDRESS = "127.0.0.1:8787"


def console_steps(text: str) -> Iterator[tuple[str, str]]:
    """Each command of the console blocks, and its documented output."""
    for block in re.findall(r"```console\n(.*?)```", text, re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            lines = part.splitlines()
            end = next((index for index, line in enumerate(lines[1:], 1) if not line.startswith("> ")), len(lines))
            command = "\n".join([lines[0], *(line[2:] for line in lines[1:end])])
            yield command, "\n".join(lines[end:])


def matches(documented: str, actual: str) -> bool:
    pattern = ".*".join(re.escape(part) for part in documented.split("..."))
    return re.fullmatch(pattern, actual.strip(), re.DOTALL) is not None


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of a shell with the commands on its path, and a node at `NODE`."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MEMOTURN_")}
    environment = inherited | {
        "PATH": os.pathsep.join([str(install()), str(Path(sys.executable).parent), os.environ["PATH"]]),
        "MEMOTURN_DATA_DIR": str(tmp_path / "shell"),
    }
    node = subprocess.Popen(
        ["memoturn", "serve", "--listen", "127.0.0.1:0", "--data-dir", str(tmp_path / "node")],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert node.stderr is not None
    line = next(line for line in node.stderr if "listening on" in line)
    try:
        yield environment | {"NODE": line.split("http://")[1].split()[0]}
    finally:
        node.terminate()
        node.wait()
        node.stderr.close()


@pytest.mark.parametrize("document", STORIES, ids=lambda path: path.name)
def test_every_console_block_does_what_it_says(document, shell):
    for command, documented in console_steps(document.read_text(encoding="utf-8")):
        done = subprocess.run(
            ["bash", "-c", command.replace(ADDRESS, shell["NODE"])],
            cwd=ROOT,
            env=shell,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert matches(documented, done.stdout), f"$ {command}\n{done.stdout}{done.stderr}"


def test_the_readme_has_the_commands_and_the_entry_that_the_repository_has():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert (ROOT / "mcp.json").read_text(encoding="utf-8").strip() in readme
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert {"run", "test"} <= set(targets)
    assert "make run" in readme
    assert "make test" in readme


def test_every_link_between_documents_leads_somewhere():
    for document in [*DOCUMENTS, ROOT / "ARCHITECTURE.md", ROOT / "CONTRIBUTING.md", ROOT / "storage" / "README.md"]:
        for target in re.findall(r"\]\((?!http)([^)#]+)", document.read_text(encoding="utf-8")):
            assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_every_tool_is_listed_with_its_toolset():
    from memoturn_core.registry import OPERATIONS

    text = (ROOT / "docs" / "surfaces.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (`.*) \|$", text, re.MULTILINE)
    listed = {(toolset, tool) for toolset, tools in rows for tool in re.findall(r"`(\w+)`", tools)}
    assert listed == {(operation.toolset, operation.name) for operation in OPERATIONS.values()}


def test_every_setting_is_documented():
    from memoturn_mcp import variables

    text = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert {name for name in variables.VARIABLES if f"`{name}`" not in text} == set()


def test_documented_defaults_are_the_defaults():
    from memoturn_mcp.settings import Settings

    text = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    documented = dict(re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", text, re.MULTILINE))
    assert len(documented) > 15
    for variable, default in documented.items():
        assert Settings.from_environment({variable: default}) == Settings.from_environment({}), variable
