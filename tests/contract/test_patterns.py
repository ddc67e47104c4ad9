"""Patterns through REST: learnt from episodes, listed, searched, shown with their evidence, and let go of."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from contract.bad_input import refused, where
from contract.branches import fork, rewind
from contract.live_node import Live, Memory, serve
from memoturn_core.episodes.patterns.strength import lower_bound

TOOLSETS = "all"
SUCCESS = {"type": "success", "verdict": "It works again"}
FAILURE = {"type": "failure", "reason": "It does not start"}
DAY = 24 * 3_600


def step(tool: str, error: str | None = None, action: str = "do it") -> dict[str, Any]:
    result = {"type": "success"} if error is None else {"type": "error", "message": error}
    return {"tool": tool, "action": action, "result": result}


RECOVERED = [step("pytest", "No module named x1"), step("pip"), step("pytest")]


class Patterns:
    """The patterns of a profile by their routes."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self.http = memory.http
        self.path = f"{memory.path}/patterns"

    def lived(self, *steps: dict[str, Any], outcome: dict[str, Any] = SUCCESS, **more: Any) -> dict[str, Any]:
        """An episode from beginning to end; what completion answered."""
        path = f"{self.memory.path}/episodes"
        made = right(self.http.post(path, json={"task_description": "Repair it", **more}), 201)
        for each in steps:
            right(self.http.post(f"{path}/{made['episode_id']}/steps", json=each), 201)
        return right(self.http.post(f"{path}/{made['episode_id']}/complete", json={"outcome": outcome}))

    def imported(self, *episodes: dict[str, Any]) -> list[str]:
        body = {"episodes": [{"task_description": "Repair it", "outcome": SUCCESS, **each} for each in episodes]}
        ids: list[str] = right(self.http.post(f"{self.memory.path}/episodes/bulk", json=body), 201)["episode_ids"]
        return ids

    def delete(self, episode: str) -> None:
        assert self.http.delete(f"{self.memory.path}/episodes/{episode}").status_code in (200, 204)

    def analysis(self, **query: Any) -> dict[str, Any]:
        return right(self.http.get(self.path, params=query))

    def search(self, **body: Any) -> dict[str, Any]:
        return right(self.http.post(f"{self.path}/search", json=body))

    def get(self, pattern_id: str, **query: Any) -> httpx.Response:
        return self.http.get(f"{self.path}/{pattern_id}", params=query)

    def decay(self, **body: Any) -> dict[str, Any]:
        return right(self.http.post(f"{self.path}/decay", json=body))

    def found(self, text: str, **body: Any) -> dict[str, Any]:
        """The one promoted pattern that says so."""
        [pattern] = [each for each in self.search(query=text, limit=1_000, **body)["patterns"] if each["text"] == text]
        return pattern


@pytest.fixture
def patterns(memory: Memory) -> Patterns:
    return Patterns(memory)


def right(response: httpx.Response, status: int = 200) -> dict[str, Any]:
    assert response.status_code == status, response.text[:500]
    body: dict[str, Any] = response.json()
    return body


def texts(entries: list[dict[str, Any]]) -> list[str]:
    return [each["text"] for each in entries]


# --- learning ------------------------------------------------------------------------------------


def test_a_repeated_tool_sequence_raises_the_count_of_one_pattern(patterns: Patterns) -> None:
    first = patterns.lived(step("grep"), step("edit"))
    assert first["pattern_ids"] == []
    for count in (2, 3, 4):
        again = patterns.lived(step("grep"), step("edit"))
        pattern = patterns.found("grep → edit")
        assert pattern["occurrences"] == pattern["successes"] == count
        assert pattern["pattern_id"] in again["pattern_ids"]
        assert pattern["pattern_id"].replace("pat_", "heu_") in again["heuristic_ids"]
        assert pattern["strength"] == pytest.approx(float(lower_bound(count, count)))


def test_the_learning_of_an_episode_counts_for_its_reward(patterns: Patterns) -> None:
    before = patterns.lived(step("grep"), step("edit"))["reward"]["terms"]["learning"]
    after = patterns.lived(step("grep"), step("edit"))["reward"]["terms"]["learning"]
    assert "patterns" not in {term["name"] for term in before if term["value"]}
    assert after != before


def test_completing_again_learns_nothing_twice(patterns: Patterns) -> None:
    patterns.lived(*RECOVERED)
    answer = patterns.lived(*RECOVERED)
    path = f"{patterns.memory.path}/episodes/{answer['episode_id']}/complete"
    assert right(patterns.http.post(path, json={"outcome": SUCCESS}))["pattern_ids"] == answer["pattern_ids"]
    assert patterns.found("pip → pytest")["occurrences"] == 2


def test_a_recovery_and_an_error_of_a_failure_count_from_the_first_episode(patterns: Patterns) -> None:
    patterns.lived(*RECOVERED)
    patterns.lived(step("make", "target 3 is missing in /a/b"), outcome=FAILURE)
    recovery = patterns.found("pytest failed: No module named x<n>; what helped: pip → pytest")
    assert (recovery["kind"], recovery["goes_with"], recovery["occurrences"]) == ("error_recovery", "success", 1)
    anti = patterns.found("make failed: target <n> is missing in <path>")
    assert (anti["kind"], anti["goes_with"], anti["failures"]) == ("anti_pattern", "failure", 1)
    assert recovery["strength"] == anti["strength"] == pytest.approx(float(lower_bound(1, 1)))


def test_a_context_says_with_what_it_goes_more_often(patterns: Patterns) -> None:
    for outcome in (SUCCESS, FAILURE, FAILURE):
        patterns.lived(outcome=outcome, language="cobol")
    pattern = patterns.found("language: cobol")
    assert (pattern["goes_with"], pattern["successes"], pattern["failures"]) == ("failure", 1, 2)
    assert pattern["strength"] == pytest.approx(float(lower_bound(2, 3)))
    assert pattern["tools"] == []


def test_what_is_learnt_is_learnt_by_domain(patterns: Patterns) -> None:
    for domain in ("web", "web", "cli"):
        patterns.lived(step("grep"), step("edit"), domain=domain)
    assert patterns.found("grep → edit")["domain"] == "web"
    assert patterns.search(domain="cli")["patterns"] == []


def test_a_bulk_of_episodes_is_learnt_from_and_old_evidence_is_weak(patterns: Patterns, live: Live) -> None:
    now = live.ambient.now_ms()
    year_ago = now - 365 * DAY * 1_000
    both = [step("grep"), step("edit")]
    patterns.imported(
        *({"steps": both, "domain": "new"} for _ in range(3)),
        *({"steps": both, "domain": "old", "start_time": year_ago, "end_time": year_ago} for _ in range(3)),
    )
    new, old = (patterns.found("grep → edit", domain=domain) for domain in ("new", "old"))
    assert new["occurrences"] == old["occurrences"] == 3
    assert 0 < old["strength"] < 0.01 < new["strength"]
    assert old["last_seen"] == year_ago


# --- deletion, history ---------------------------------------------------------------------------


def test_deleting_an_episode_removes_its_evidence_and_what_nothing_else_speaks_for(patterns: Patterns) -> None:
    first, second = (patterns.lived(*RECOVERED)["episode_id"] for _ in range(2))
    ids = {each["pattern_id"] for each in patterns.search(limit=1_000)["patterns"]}
    pattern = patterns.found("pip → pytest")
    evidence = right(patterns.get(pattern["pattern_id"]))["evidence"]
    assert {each["episode_id"] for each in evidence} == {first, second}

    patterns.delete(first)
    left = right(patterns.get(pattern["pattern_id"]))
    assert (left["pattern"]["occurrences"], left["pattern"]["promoted"], left["heuristic"]) == (1, False, None)
    assert [each["episode_id"] for each in left["evidence"]] == [second]
    assert {each["kind"] for each in patterns.search(limit=1_000)["patterns"]} == {"error_recovery"}

    patterns.delete(second)
    assert {patterns.get(each).status_code for each in ids} == {404}
    empty = patterns.analysis()
    assert (empty["patterns"], empty["candidates"], empty["episodes"]) == (0, 0, 0)
    assert "nothing is learnt yet" in empty["explanation"]


def test_patterns_fork_rewind_and_are_read_as_of(patterns: Patterns, memory: Memory) -> None:
    for _ in range(2):
        patterns.lived(step("grep"), step("edit"))
    then = memory.txid
    aside = Patterns(fork(memory, "aside"))
    patterns.lived(step("grep"), step("edit"))
    assert patterns.found("grep → edit")["occurrences"] == 3
    assert patterns.found("grep → edit", as_of=then)["occurrences"] == 2
    pattern_id = patterns.found("grep → edit")["pattern_id"]
    assert right(patterns.get(pattern_id, as_of=then))["pattern"]["occurrences"] == 2
    assert patterns.analysis(as_of=then)["episodes"] == 2
    assert aside.found("grep → edit")["occurrences"] == 2
    rewind(memory, then)
    assert patterns.found("grep → edit")["occurrences"] == 2
    patterns.lived(step("grep"), step("edit"))
    assert patterns.found("grep → edit")["occurrences"] == 3


def test_what_was_learnt_is_there_after_a_restart(tmp_path) -> None:
    with serve(tmp_path) as live:
        memory = live.memory()
        patterns = Patterns(memory)
        for outcome in (SUCCESS, SUCCESS, FAILURE):
            patterns.lived(*RECOVERED, outcome=outcome, language="python")
        patterns.search()
        patterns.lived(*RECOVERED)
        before, ambient = (patterns.analysis(limit=1_000), patterns.search(limit=1_000)), live.ambient
    with serve(tmp_path, ambient=ambient) as live:
        patterns = Patterns(Memory(live.http, memory.namespace, memory.profile))
        assert (patterns.analysis(limit=1_000), patterns.search(limit=1_000)) == before


# --- the overview --------------------------------------------------------------------------------


def test_the_overview_counts_by_kind_and_domain_and_lists_the_strongest(patterns: Patterns, live: Live) -> None:
    for _ in range(3):
        patterns.lived(step("grep"), step("edit"), step("pytest"), domain="web", task_type="debugging")
    live.ambient.advance(seconds=1)
    for outcome in (SUCCESS, FAILURE):
        patterns.lived(step("make"), step("ship"), domain="ops", task_type="other", outcome=outcome)
    patterns.lived(step("solo"), step("once"))
    seen = patterns.analysis()
    assert seen["episodes"] == 6
    assert {each["name"]: each["patterns"] for each in seen["by_kind"]} == {"tool_sequence": 4, "context_pattern": 2}
    assert {each["name"]: each["patterns"] for each in seen["by_domain"]} == {"web": 4, "ops": 2}
    assert seen["patterns"] == 6
    assert seen["candidates"] == 2
    strongest = texts(seen["strongest"])
    assert strongest[:2] == ["grep → edit → pytest", "task type: debugging"]
    assert "grep → edit" not in strongest
    assert texts(seen["newest"])[:3] == ["make → ship", "task type: other", "grep → edit → pytest"]
    assert seen["decaying"] == []
    assert seen["explanation"] is None
    [first, *_] = seen["heuristics"]
    assert (first["condition"], first["action"]) == ("for debugging in web", "use grep, then edit, then pytest")
    assert first["confidence"] == seen["strongest"][0]["strength"]
    ops = patterns.analysis(domain="ops", kind="tool_sequence")
    assert (texts(ops["strongest"]), ops["patterns"]) == (["make → ship"], 1)
    assert patterns.analysis(task_type="debugging")["patterns"] == 4
    assert patterns.analysis(min_strength=0.4)["patterns"] == 4
    nothing = patterns.analysis(min_strength=0.99)
    assert nothing["strongest"] == []
    assert nothing["explanation"] == "the filters leave none of the 6 promoted patterns"


def test_what_was_not_seen_for_a_half_life_is_fading(tmp_path) -> None:
    with serve(tmp_path) as live:
        patterns = Patterns(live.memory())
        for _ in range(2):
            patterns.lived(step("grep"), step("edit"))
        before = patterns.found("grep → edit")["strength"]
        live.ambient.advance(seconds=31 * DAY)
        for _ in range(2):
            patterns.lived(step("make"), step("ship"), domain="ops")
        fading = patterns.analysis(kind="tool_sequence")["decaying"]
        assert texts(fading) == ["grep → edit"]
        assert fading[0]["undecayed"] == pytest.approx(before)
        assert 0 < fading[0]["strength"] < before


# --- search --------------------------------------------------------------------------------------


def test_search_finds_by_words_of_tools_errors_and_domains(patterns: Patterns) -> None:
    patterns.lived(*RECOVERED, domain="web-api")
    patterns.lived(step("docker_build", "no space left on device /dev/sda1"), outcome=FAILURE, domain="ops")
    for _ in range(3):
        patterns.lived(step("docker_build"), step("docker_push"), domain="ops")
    assert patterns.search(query="missing modules")["patterns"][0]["kind"] == "error_recovery"
    assert patterns.search(query="the device has no space left")["patterns"][0]["kind"] == "anti_pattern"
    pushed = patterns.search(query="docker push")["patterns"]
    assert pushed[0]["text"] == "docker_build → docker_push"
    assert pushed[0]["relevance"] == pytest.approx(1.0)
    assert pushed[0]["score"] == pytest.approx(1 + 0.25 * pushed[0]["strength"])
    assert [each["score"] for each in pushed] == sorted((each["score"] for each in pushed), reverse=True)
    nothing = patterns.search(query="kubernetes quokka")
    assert nothing["patterns"] == []
    assert "kubernetes, quokka" in nothing["explanation"]
    assert patterns.search(query="docker push", domain="web-api")["patterns"] == []
    assert patterns.search(query="??")["explanation"] == "the query has no word to look for"


def test_of_equal_matches_the_stronger_comes_first_and_no_strength_makes_up_for_words(patterns: Patterns) -> None:
    for _ in range(2):
        patterns.lived(step("alpha"), step("beta"), domain="few")
    for _ in range(9):
        patterns.lived(step("alpha"), step("beta"), domain="many")
        patterns.lived(step("alpha"), step("gamma"), domain="many")
    found = patterns.search(query="alpha beta", kind="tool_sequence")["patterns"]
    assert [(each["text"], each["domain"]) for each in found] == [
        ("alpha → beta", "many"),
        ("alpha → beta", "few"),
        ("alpha → gamma", "many"),
    ]


@pytest.mark.parametrize(
    ("lived", "said"), [(0, "no episode of this profile is completed"), (1, "what was seen in 1 completed")]
)
def test_an_empty_search_says_why(patterns: Patterns, lived: int, said: str) -> None:
    for _ in range(lived):
        patterns.lived(step("grep"), step("edit"))
    assert said in patterns.search(query="grep")["explanation"]
    assert said in patterns.analysis()["explanation"]


# --- decay ---------------------------------------------------------------------------------------


def test_decay_lists_what_is_weak_and_deletes_it_only_when_told_to(patterns: Patterns) -> None:
    for outcome in (SUCCESS, FAILURE, FAILURE):
        patterns.lived(step("weak"), step("course"), outcome=outcome, domain="w")
    for _ in range(3):
        patterns.lived(step("good"), step("course"), domain="g")
    before = patterns.analysis(limit=1_000)
    assert [each["action"] for each in before["heuristics"]] == ["use good, then course"]
    listed = patterns.decay(below=0.3, kind="tool_sequence")
    assert (listed["count"], listed["deleted"], texts(listed["patterns"])) == (1, False, ["weak → course"])
    assert patterns.analysis(limit=1_000) == before
    gone = patterns.decay(below=0.3, kind="tool_sequence", dry_run=False)
    assert (gone["count"], gone["deleted"], texts(gone["patterns"])) == (1, True, ["weak → course"])
    assert patterns.get(listed["patterns"][0]["pattern_id"]).status_code == 404
    assert patterns.analysis()["patterns"] == before["patterns"] - 1
    assert patterns.decay(below=0.3, kind="tool_sequence", dry_run=False)["count"] == 0
    answer = patterns.lived(step("weak"), step("course"), domain="w")
    assert listed["patterns"][0]["pattern_id"] not in answer["pattern_ids"]


# --- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"kind": "habit"}, "kind"),
        ({"limit": "many"}, "limit"),
        ({"min_strength": 2}, "min_strength"),
        ({"query": 3}, "query"),
        ({"query": "x" * 10_001}, "query"),
        ({"domain": ""}, "domain"),
        ({"words": "grep"}, "words"),
    ],
)
def test_a_search_names_the_field_that_is_wrong(patterns: Patterns, body: dict[str, Any], field: str) -> None:
    refused(patterns.http.post(f"{patterns.path}/search", json=body), field)
    assert not patterns.memory.exists


@pytest.mark.parametrize("body", [{}, {"below": -1}, {"below": "weak"}, {"below": 1.1}])
def test_a_decay_names_the_field_that_is_wrong(patterns: Patterns, body: dict[str, Any]) -> None:
    refused(patterns.http.post(f"{patterns.path}/decay", json=body), "below")


def test_a_pattern_that_is_not_known_is_not_found_and_an_id_that_is_none_is_refused(patterns: Patterns, mcp) -> None:
    patterns.lived()
    nobody = f"pat_{'0' * 32}"
    response = patterns.get(nobody)
    assert (response.status_code, response.json()["code"]) == (404, "not_found")
    refused(patterns.get("pat_1"), "pattern_id")
    refused(patterns.http.get(patterns.path, params={"min_strength": "much"}), "min_strength")
    result = mcp.call("get_pattern", pattern_id=nobody, **where(patterns.memory))
    assert result["structuredContent"]["result"] == {"found": False}


@pytest.mark.parametrize("operation", ["get", "decay"])
def test_a_profile_that_does_not_exist_stays_so(patterns: Patterns, operation: str) -> None:
    if operation == "get":
        response = patterns.get(f"pat_{'0' * 32}")
    else:
        response = patterns.http.post(f"{patterns.path}/decay", json={"below": 0.5, "dry_run": False})
    assert (response.status_code, response.json()["code"]) == (404, "database_not_found")
    assert not patterns.memory.exists
