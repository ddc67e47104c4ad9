"""`memoturn episode`, `pattern` and `eval` as a shell sees them: on this machine's files and through a node."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from contract.live_node import Live, serve
from memoturn_core.code import sandbox
from memoturn_core.code.limits import Limits
from memoturn_core.code.sandbox import Sandbox
from memoturn_mcp.cli import evaluation
from memoturn_schemas.errors import Unavailable
from memoturn_storage.ambient import SystemAmbient
from sandbox.built import built_guest
from surfaces.in_process import InProcess
from surfaces.shell import Done, as_error

HOSTILE = "\x1b[2J[red]\x07\u202e\x9b31m"
ACTS = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
NO_TEXT = os.fsdecode(b"caf\xe9")
NO_EPISODE = "00000000-0000-0000-0000-000000000000"
NO_PATTERN = f"pat_{'0' * 32}"
NO_RECOMMENDATION = f"rec_{'0' * 32}"
PREPARED = "the sandbox is being prepared"


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with serve(tmp_path_factory.mktemp("node")) as node:
        yield node


@dataclass(frozen=True)
class Told:
    """Runs commands that succeed, in one format, and says what they printed; `facts` in JSON."""

    run: InProcess
    where: tuple[str, ...]
    format: str

    def __call__(self, *arguments: str, says: tuple[str, ...] = (), stdin: bytes | None = None) -> str:
        done = self.run(*arguments, *self.where, "--format", self.format, stdin=stdin)
        assert done.code == 0, (arguments, done.err)
        if self.format == "human":
            assert not ACTS.search(done.out), (arguments, done.out)
        else:
            assert isinstance(yaml.safe_load(done.out), dict), (arguments, done.out)
        assert [words for words in says if words not in done.out] == [], (arguments, done.out)
        return done.out

    def facts(self, *arguments: str) -> Any:
        return self.run(*arguments, *self.where).json


@pytest.fixture(params=[("here", "human"), ("at a node", "yaml")], ids=" ".join)
def tell(request: pytest.FixtureRequest, here: InProcess, live: Live) -> Told:
    where, form = request.param
    return Told(here, () if where == "here" else ("--url", live.url, "-p", form), form)


def named(kind: str, text: str) -> str:
    """The first id of a kind in what a command printed."""
    pattern = r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b" if kind == "episode" else rf"\b{kind}_[0-9a-f]+\b"
    found = re.search(pattern, text)
    assert found is not None, text
    return found[0]


def test_a_task_is_told_step_by_step_handed_over_and_learnt_from(tell: Told, tmp_path: Path) -> None:
    context = ("--task-type", "debugging", "--domain", "web-api", "--language", "python", "--framework", "pytest")
    more = ("--complexity", "complex", "--tag", "login", "--tag", "clock", "--session", "s1", "--source", "ada")
    past = ("--start", "2020-01-31T09:30Z", "--metadata", '{"test_coverage": 85}')
    made = tell("episode", "create", f"Fix the login test {HOSTILE}", *context, *more, *past)
    first = named("episode", made)

    measured = ("--latency", "30", "--tokens", "7", "--parameters", '{"k": 1}', "--metadata", '{"decision": true}')
    tell("episode", "log-step", first, "pytest", f"run {HOSTILE}", "--error", f"AssertionError {HOSTILE}", *measured)
    tell("ep", "log-step", first, "edit", "freeze the clock", "--success", f"ok {HOSTILE}", says=("2",))
    again = tell("ep", "log-step", first, "edit", "freeze the clock", "--success", f"ok {HOSTILE}", "--number", "2")
    assert "duplicate" in again or "there already" in again
    tell("ep", "log-step", first, "wait", "for the build", "--timeout")
    tell("ep", "log-step", first, "ask", "somebody")
    tell("ep", "log-step", first, "pytest", "run all", "--success", "12 passed", "--number", "9", says=("9", "5"))
    kept = tell.facts("ep", "view", first)["steps"]
    assert [step["step_number"] for step in kept] == [1, 2, 3, 4, 9]
    assert [None if step["result"] is None else step["result"]["type"] for step in kept] == [
        *("error", "success", "timeout", None, "success")
    ]
    assert (kept[0]["latency_ms"], kept[0]["tokens_used"], kept[0]["parameters"]) == (30, 7, {"k": 1})

    tell("ep", "tag", first, "--add", "urgent", "--remove", "clock", says=("login", "urgent"))
    mark = named("cp", tell("ep", "checkpoint", first, f"half way {HOSTILE}"))
    tell("ep", "timeline", first, says=("start", "failure", "recovery", mark))
    cursor = tell.facts("ep", "timeline", first, "--limit", "2")["next_cursor"]
    tell("ep", "timeline", first, "--limit", "2", "--cursor", cursor, says=("edit",))
    tell("ep", "timeline", first, "--limit", "2", says=(cursor,))
    tell("ep", "handoff", first, "--checkpoint", mark, says=("pack_", "wait"))

    done = tell("ep", "complete", first, "success", f"stable {HOSTILE}", "--artifact", "test_login.py", says=("edit",))
    assert "learning" in done
    tell("ep", "view", first, says=("login", "urgent", "web-api", "s1", "ada", "success", "freeze the clock", mark))
    tell("ep", "view", first, "--as-of", "2", says=("login",))
    only = ("--domain", "web-api", "--task-type", "debugging", "--tag", "login", "--tag", "urgent")
    when = ("--since", "2020-01-31", "--until", "2020-02-02T00:00Z", "--outcome", "success")
    tell("ep", "list", *only, *when, "--session", "s1", "--limit", "1", says=(first, "success", "debugging"))
    tell("ep", "search", "a login test that fails", *only, *when, "--limit", "1", says=(first, "success"))
    assert first not in tell("ep", "list", "--outcome", "open")
    assert first not in tell("ep", "search", "zebra")

    pack = tmp_path / "pack.json"
    pack.write_text(tell.run("ep", "handoff", first, *tell.where).out)
    second = named("episode", tell("ep", "resume", "--file", str(pack), "--session", "s2", "--source", "bob"))
    whole = tell.facts("ep", "view", second)["episode"]
    assert (whole["session_id"], whole["source"], whole["context"]["domain"]) == ("s2", "bob", "web-api")
    inner = json.dumps(json.loads(pack.read_text())["pack"]).encode()
    assert named("episode", tell("ep", "resume", "--file", "-", stdin=b"\xef\xbb\xbf" + inner)) == second

    steps = (("pytest", "run", "--error", "AssertionError"), ("edit", "the clock", "--success", "ok"))
    for step in steps:
        tell("ep", "log-step", second, *step)
    tell("ep", "complete", second, "failure", "no idea", "--details", "still red", says=("no idea",))
    for outcome in (
        ("partial_success", "some", "--completed", "a", "--failed", "b"),
        ("abstained", "cannot", "--stopped-at-step", "1", "--signal", "no access", "--end", "2100-01-01"),
    ):
        third = named("episode", tell("ep", "create", "write the manual"))
        tell("ep", "complete", third, *outcome, says=(outcome[1],))
    learnt_from(tell, first)
    tell("ep", "delete", third, "--yes", says=("delete",))
    assert tell.run("ep", "view", third, *tell.where).code == 3


def learnt_from(tell: Told, episode: str) -> None:
    """The patterns of the story, what they recommend, and what becomes of that."""
    task = ("mend the login test", "--domain", "web-api", "--task-type", "debugging")
    alike = ("--language", "python", "--framework", "pytest", "--tag", "login")
    tell("pattern", "list", says=("pytest", "tool_sequence", "error_recovery"))
    only = ("--kind", "error_recovery", "--domain", "web-api", "--task-type", "debugging", "--min-strength", "0.1")
    pattern = named("pat", tell("pat", "list", "pytest", *only, "--limit", "1", says=("web-api",)))
    assert "pat_" not in tell("pat", "list", "zebra")
    tell("pat", "view", pattern, "--limit", "1", says=("pytest", "0.2", episode))
    tell("pat", "analyze", says=("heuristics", "web-api", "tool_sequence"))
    tell("pat", "analyze", *only, "--limit", "1", says=(pattern,))
    offered = tell("pat", "recommend", *task, *alike, "--limit", "3", "--episode", episode, says=(pattern,))
    recommendation = named("rec", offered)
    tell("pat", "feedback", recommendation, pattern, "helped", "--step", "2", "--episode", episode, says=(pattern,))
    applied = tell.facts("ep", "view", episode)["episode"]["applied_patterns"]
    assert applied == [{"pattern_id": pattern, "applied_at_step": 2, "outcome": "helped"}]
    tell(
        "pat",
        "playbook",
        *task,
        *alike,
        says=("edit", "freeze the clock", "not" if tell.format == "human" else "cases"),
    )
    tell("pat", "effectiveness", "--domain", "web-api", "--limit", "9", says=(pattern,))
    tell("eval", "stats", says=("success", "web-api"))
    tell("ev", "stats", "--domain", "web-api", says=("failure",))
    tell("ev", "calibration", says=("1 of the 10 cases",))
    count = tell.facts("pat", "decay", "--below", "1")["count"]
    tell("pat", "decay", "--below", "1", "--kind", "error_recovery", "--domain", "web-api", says=(pattern,))
    assert tell.facts("pat", "decay", "--below", "1")["count"] == count, "nothing was deleted"
    tell("pat", "decay", "--below", "1", "--delete", "--yes", says=(pattern,))
    tell("pat", "decay", "--below", "1")
    assert tell.facts("pat", "list")["patterns"] == []


# --- what is refused -----------------------------------------------------------------------------


def test_what_is_wrong_is_named_and_nothing_is_made(here: InProcess, tmp_path: Path) -> None:
    (tmp_path / "pack").write_text('{"pack": {}}')
    for command, says in (
        (("episode", "create", " "), "task_description: must not be blank"),
        (("episode", "create", "x" * 10_001), "task_description: must be at most 10000 bytes"),
        (("episode", "create", "x", "--tag", "a"), "tags[0]: "),
        (("episode", "create", "x", "--domain", ""), "domain: "),
        (("episode", "create", "x", "--metadata", "{"), "--metadata: is not valid JSON"),
        (("episode", "create", "x", "--metadata", "[1]"), "metadata: should be"),
        (("episode", "create", "x", "--start", "yesterday"), "--start: should be like 2026-01-31"),
        (("episode", "log-step", "x", "t", "a"), "episode_id: "),
        (("episode", "log-step", NO_EPISODE, "t", "a", "--number", "0"), "step_number: "),
        (("episode", "log-step", NO_EPISODE, "t", "a", "--latency", "-1"), "latency_ms: "),
        (("episode", "log-step", NO_EPISODE, "t", "a", "--parameters", "1"), "parameters: "),
        (
            ("episode", "log-step", NO_EPISODE, "t", "a", "--success", "x", "--timeout"),
            "--success, --error and --timeout",
        ),
        (
            ("episode", "complete", NO_EPISODE, "success", "x", "--signal", "y"),
            "outcome.infeasibility_signals: unknown field",
        ),
        (("episode", "complete", NO_EPISODE, "abstained", "x"), "outcome.stopped_at_step: is required"),
        (("episode", "list", "--since", "20260131"), "--since: should be like"),
        (("episode", "tag", NO_EPISODE), "add or remove: must name a tag"),
        (("episode", "handoff", NO_EPISODE, "--checkpoint", "x"), "checkpoint_id: "),
        (("episode", "resume", "--file", str(tmp_path / "none")), "--file: cannot read"),
        (("episode", "resume", "--file", str(tmp_path / "pack")), "pack.version: is required"),
        (("pattern", "view", "x"), "pattern_id: "),
        (("pattern", "list", "--min-strength", "2"), "min_strength: "),
        (("pattern", "recommend", " "), "task_description: "),
        (("pattern", "recommend", "x", "--limit", "51"), "limit: "),
        (("pattern", "feedback", "x", NO_PATTERN, "helped"), "recommendation_id: "),
        (("pattern", "feedback", NO_RECOMMENDATION, "x", "helped"), "feedback[0].pattern_id: "),
        (("pattern", "decay", "--below", "-1"), "below: "),
        (("eval", "code"), "CODE: give it, or --file"),
        (("eval", "code", "1", "--file", "-"), "CODE: leave it out with --file"),
        (("eval", "code", "1", "--input", "{"), "--input: is not valid JSON"),
        (("eval", "code", ""), "code: "),
    ):
        refused = here(*command, MEMOTURN_CODE="off")
        assert (refused.code, says in as_error(refused)) == (2, True), (command, refused.err)
    assert not here.home.exists()


@pytest.mark.parametrize(
    "command",
    [
        ("episode", "create"),
        ("episode", "create", "x", "--task-type", "cooking"),
        ("episode", "create", "x", "--complexity", "hard"),
        ("episode", "log-step", "x", "y"),
        ("episode", "log-step", "x", "y", "z", "--number", "one"),
        ("episode", "complete", "x", "done", "y"),
        ("episode", "list", "--outcome", "maybe"),
        ("episode", "resume"),
        ("pattern", "list", "--kind", "habit"),
        ("pattern", "feedback", "x", "y", "loved"),
        ("pattern", "decay"),
        ("eval", "code", "1", "--preset", "unbounded"),
    ],
)
def test_words_that_a_command_does_not_take_are_usage(here: InProcess, command: tuple[str, ...]) -> None:
    refused = here(*command)
    assert (refused.code, refused.out) == (2, "")
    assert "Usage: memoturn" in refused.err
    assert not here.home.exists()


def test_bytes_that_are_no_text_are_refused_wherever_they_stand(here: InProcess) -> None:
    for command, where in (
        (("episode", "create", NO_TEXT), "task_description"),
        (("episode", "create", "x", "--tag", "ab", "--tag", NO_TEXT), "tags[1]"),
        (("episode", "create", "x", "--metadata", f'{{"a": "{NO_TEXT}"}}'), "--metadata"),
        (("episode", "log-step", NO_EPISODE, "t", "a", "--error", NO_TEXT), "result.message"),
        (("episode", "complete", NO_EPISODE, "success", "x", "--artifact", NO_TEXT), "outcome.artifacts[0]"),
        (("episode", "view", NO_TEXT), "episode_id"),
        (("episode", "list", "--tag", NO_TEXT), "tags[0]"),
        (("episode", "search", NO_TEXT), "query"),
        (("episode", "tag", NO_EPISODE, "--add", NO_TEXT), "add[0]"),
        (("pattern", "feedback", NO_RECOMMENDATION, NO_TEXT, "helped"), "feedback[0].pattern_id"),
        (("eval", "code", NO_TEXT), "code"),
        (("eval", "code", "1", "--input", f'"{NO_TEXT}"'), "--input"),
    ):
        refused = here(*command, MEMOTURN_CODE="off")
        assert refused.code == 2, command
        assert as_error(refused).startswith(f"memoturn: {where}: is not valid UTF-8"), command
    assert here("eval", "code", "--file", "-", stdin=b"caf\xe9").code == 2
    assert not here.home.exists()


def test_what_is_not_there_and_what_is_over_has_an_exit_code_of_its_own(here: InProcess) -> None:
    assert here("episode", "list").code == 3, "there is no profile yet"
    made = here("episode", "create", "x").json["episode_id"]
    for command in (
        ("episode", "view", NO_EPISODE),
        ("episode", "log-step", NO_EPISODE, "t", "a"),
        ("episode", "delete", NO_EPISODE),
        ("episode", "handoff", made, "--checkpoint", f"cp_{'0' * 16}"),
    ):
        missing = here(*command)
        assert (missing.code, "`memoturn episode list`" in as_error(missing)) == (3, True), command
    missing = here("pattern", "view", NO_PATTERN)
    assert (missing.code, "`memoturn pattern list`" in as_error(missing)) == (3, True)
    assert here("pattern", "feedback", NO_RECOMMENDATION, NO_PATTERN, "helped").code == 3
    here("episode", "log-step", made, "t", "a")
    assert here("episode", "log-step", made, "t", "b", "--number", "1").code == 4
    here("episode", "complete", made, "success", "x")
    for command in (
        ("episode", "complete", made, "success", "y"),
        ("episode", "log-step", made, "t", "c"),
        ("episode", "checkpoint", made),
    ):
        assert here(*command).code == 4, command


# --- code ----------------------------------------------------------------------------------------


def test_a_snippet_is_run_on_this_machine(here: InProcess, tmp_path: Path) -> None:
    here.home.mkdir()
    (here.home / "sandbox").symlink_to(built_guest())
    done = here("eval", "code", "print('\x1b[2J')\nsum(input_data)", "--input", "[1, 2]", "--preset", "restrictive")
    assert (done.json["output"], done.json["stdout"], done.err) == (3, "\x1b[2J\n", "")
    shown = here("eval", "code", "--file", "-", "--format", "human", stdin=b"print('\x1b[2J')\n1 / 0")
    assert (shown.code, shown.out.splitlines()[0]) == (1, r"\x1b[2J")
    assert "ZeroDivisionError: division by zero (line 2)" in shown.out


class Preparing(Sandbox):
    """A node's sandbox that refuses the first requests as one does that is being prepared, or is broken."""

    def __init__(self, refusals: list[Unavailable]) -> None:
        super().__init__(Path("nowhere"), SystemAmbient())
        self.refusals = refusals

    async def run(self, code: str, given: Any, limits: Limits) -> Any:
        if self.refusals:
            raise self.refusals.pop()
        return {"type": "success", "output": given, "stdout": "", "stderr": "", "execution_time_ms": 1.0}


@pytest.fixture
def code(here: InProcess, live: Live, monkeypatch: pytest.MonkeyPatch) -> Any:
    def run(refusals: list[Unavailable], *flags: str) -> Done:
        monkeypatch.setattr(live.node, "sandbox", Preparing(refusals))
        return here("eval", "code", "input_data", "--input", '{"a": 1}', "--url", live.url, *flags)

    monkeypatch.setattr(evaluation, "_ASK_AGAIN_S", 0.01)
    return run


def test_a_snippet_waits_until_the_node_has_its_sandbox_and_says_so_once(code: Any) -> None:
    done = code([Unavailable("wait", retry_after_s=30) for _ in range(3)], "--format", "yaml")
    assert (done.code, yaml.safe_load(done.out)["output"]) == (0, {"a": 1})
    assert len(done.err.splitlines()) == 1
    assert done.err.startswith(PREPARED)
    assert code([]).err == ""


def test_it_does_not_wait_for_ever_or_for_what_does_not_come(code: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = code([Unavailable("it is broken")])
    assert (broken.code, broken.err.splitlines()[0]) == (6, "memoturn: it is broken")
    monkeypatch.setattr(evaluation, "_PREPARED_WITHIN_S", 0.0)
    late = code([Unavailable("it is being prepared", retry_after_s=30)] * 2)
    assert (late.code, late.err.splitlines()[0]) == (6, "memoturn: it is being prepared")


def test_on_this_machine_it_says_at_once_that_the_sandbox_is_to_be_prepared(
    here: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def no_build(_: Path) -> None:
        raise Unavailable("no compiler today")

    monkeypatch.setattr(sandbox, "_build", no_build)
    done = here("eval", "code", "1")
    assert (done.code, done.out) == (6, "")
    assert done.err.startswith(PREPARED)
    assert "memoturn: no compiler today" in done.err
    off = here("eval", "code", "1", MEMOTURN_CODE="off")
    assert (off.code, "MEMOTURN_CODE" in as_error(off)) == (6, True)
