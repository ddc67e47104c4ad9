"""query_memory: what is found of what was tried, in which order, in which shape, and why there may be nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from contract import embedding_server as provider
from contract.bad_input import refused
from contract.branches import fork, rewind
from contract.live_node import Live, Memory, RawMcp, event, serve
from memoturn_core.memory.text import stems
from memoturn_core.providers.embedding import VoyageEmbedder
from memoturn_core.providers.http import Endpoint
from memoturn_storage.ambient import ManualAmbient

TOOLSETS = "all"
DAY = 86_400_000
SUCCESS = {"type": "success", "verdict": "Works", "artifacts": ["a.py"]}
FAILURE = {"type": "failure", "reason": "Gave up"}
DEFAULT = {
    *("episode_id", "task_type", "task_description", "context", "start_time", "outcome", "reward", "summary"),
    *("score", "breakdown"),
}


@dataclass
class Experience:
    """The episodes of a profile."""

    memory: Memory

    def kept(self, *episodes: dict[str, Any]) -> list[str]:
        ids: list[str] = []
        for start in range(0, len(episodes), 100):
            body = {"episodes": episodes[start : start + 100]}
            response = self.memory.http.post(f"{self.memory.path}/episodes/bulk", json=body)
            assert response.status_code == 201, response.text
            ids += response.json()["episode_ids"]
        return ids

    def ask(self, query: str, **more: Any) -> httpx.Response:
        return self.memory.http.post(f"{self.memory.path}/episodes/query", json={"query": query, **more})

    def answer(self, query: str, **more: Any) -> dict[str, Any]:
        response = self.ask(query, **more)
        assert response.status_code == 200, response.text
        found: dict[str, Any] = response.json()
        for hit in found["episodes"]:
            if "score" in hit and "breakdown" in hit:
                assert hit["score"] == pytest.approx(sum(hit["breakdown"].values()), abs=1e-6)
        return found

    def found(self, query: str, **more: Any) -> list[str]:
        """The descriptions."""
        return [hit["task_description"] for hit in self.answer(query, **more)["episodes"]]

    def why(self, query: str, **more: Any) -> dict[str, Any]:
        answer = self.answer(query, **more)
        assert (answer["episodes"], answer["patterns"], answer["insights"]) == ([], [], [])
        explanation: dict[str, Any] = answer["explanation"]
        assert explanation["text"]
        return explanation

    def on(self, memory: Memory) -> Experience:
        return Experience(memory)


@pytest.fixture
def experience(memory: Memory) -> Experience:
    return Experience(memory)


def tried(task: str, **more: Any) -> dict[str, Any]:
    return {"task_description": task, **more}


def step(tool: str, action: str = "do it", **more: Any) -> dict[str, Any]:
    return {"tool": tool, "action": action, "result": {"type": "success", "output": "ok"}, **more}


# --- what comes first ----------------------------------------------------------------------------


def test_a_year_old_exact_match_comes_before_fresh_well_rewarded_noise(experience, live):
    now = live.ambient.now_ms()
    task = "Fix the flaky websocket reconnect test in the gateway"
    words = ["Fix the flaky test", "Gateway reconnect", "Fix the websocket", "The gateway test", "Fix the reconnect"]
    noise = [
        tried(f"{words[n % 5]} of module {n}", task_type="debugging", start_time=now - 1_000, end_time=now,
              steps=[step("grep", "websocket gateway"), step("edit", "flaky test fix")], outcome=SUCCESS)
        for n in range(60)
    ]  # fmt: skip
    old = tried(task, start_time=now - 365 * DAY, end_time=now - 364 * DAY, outcome=FAILURE)
    experience.kept(old, *noise)
    first, second, *_ = experience.answer(task)["episodes"]
    assert (first["task_description"], first["outcome"]["type"]) == (task, "failure")
    assert first["breakdown"].get("recency", 0) < second["breakdown"]["recency"]
    assert first["reward"]["total"] < second["reward"]["total"]


def test_of_two_that_match_alike_the_fresh_one_comes_first_and_of_two_as_old_the_better_rewarded(experience, live):
    now = live.ambient.now_ms()
    fresh, old = (now - DAY, now - 200 * DAY)
    experience.kept(
        tried("Rotate the signing keys", start_time=fresh, end_time=fresh + 1, outcome=FAILURE, metadata={"n": 1}),
        tried("Rotate the signing keys", start_time=old, end_time=old + 1, outcome=FAILURE, metadata={"n": 2}),
        tried("Rotate the signing keys", start_time=old, end_time=old + 1, outcome=SUCCESS, metadata={"n": 3}),
    )
    hits = experience.answer("rotate signing keys", fields=["metadata.n", "reward.total"])["episodes"]
    assert [hit["metadata"]["n"] for hit in hits] == [1, 3, 2]


def test_what_the_query_says_of_domain_and_type_speaks_for_an_episode_and_keeps_out_none(experience):
    experience.kept(
        tried("Upload of large files is slow", domain="desktop", task_type="other"),
        tried("Upload of large files is slow", domain="web-api", task_type="debugging"),
        tried("Upload of large files is slow", domain="mobile", task_type="other"),
    )
    hits = experience.answer("debug the web api: upload of large files")["episodes"]
    assert hits[0]["context"]["domain"] == "web-api"
    assert len(hits) == 3
    assert {"domain", "task_type"} <= set(hits[0]["breakdown"])
    assert not {"domain", "task_type"} & set(hits[1]["breakdown"])


def test_of_nearly_the_same_one_is_given_before_another_that_is_different(experience):
    same = [tried(f"Migrate the orders table to partitions, part {n}") for n in range(6)]
    experience.kept(*same, tried("Rename a column of the orders table"))
    assert "Rename a column of the orders table" in experience.found("orders table", limit=2)
    hits = experience.answer("orders table", limit=7)["episodes"]
    assert hits[-1]["breakdown"]["diversity"] < 0
    scores = [hit["score"] for hit in hits]
    assert scores == sorted(scores, reverse=True)


def test_what_stands_beside_an_episode_in_its_session_speaks_for_it(experience):
    experience.kept(
        tried("Set up the billing sandbox", session_id="s"),
        tried("Then charge a card there", session_id="s"),
        tried("Charge a card"),
    )
    found = experience.found("charge a card in the billing sandbox")
    assert found.index("Then charge a card there") < found.index("Charge a card")


def test_an_episode_is_found_while_it_is_open_and_by_what_was_done_once_it_is_over(experience, memory):
    created = memory.http.post(f"{memory.path}/episodes", json=tried("Speed up the nightly job", tags=["etl-jobs"]))
    path = f"{memory.path}/episodes/{created.json()['episode_id']}"
    assert experience.found("nightly") == experience.found("etl") == ["Speed up the nightly job"]
    assert experience.answer("nightly")["episodes"][0]["outcome"] is None
    assert experience.why("pyspy flamegraph")["reason"] == "no_match"
    memory.http.post(f"{path}/steps", json=step("pyspy", "record a flamegraph"))
    assert memory.http.post(f"{path}/complete", json={"outcome": SUCCESS}).status_code == 200
    assert experience.found("pyspy flamegraph") == experience.found("etl") == ["Speed up the nightly job"]
    assert memory.http.delete(path).status_code == 200
    assert experience.why("pyspy nightly")["reason"] == "nothing_stored"


# --- in which shape ------------------------------------------------------------------------------


def test_an_answer_is_short_unless_fields_ask_for_more(experience, memory):
    [id_] = experience.kept(
        tried("Add a cache", domain="cli", language="go", metadata={"a": {"b": 1, "c": 2}}, outcome=SUCCESS)
    )
    [hit] = experience.answer("cache")["episodes"]
    assert set(hit) == DEFAULT
    assert (hit["episode_id"], hit["context"], set(hit["reward"])) == (id_, {"domain": "cli"}, {"total"})
    assert hit["outcome"] == {"type": "success"}
    assert set(hit["summary"]) == {"text", "key_steps"}
    whole = memory.http.get(f"{memory.path}/episodes/{id_}").json()["episode"]
    [hit] = experience.answer("cache", fields=list(whole))["episodes"]
    assert hit == whole
    fields = ["metadata.a.b", "metadata.none", "context.language", "context", "outcome.reason", "reward.base"]
    [hit] = experience.answer("cache", fields=fields)["episodes"]
    assert hit == {
        "metadata": {"a": {"b": 1}}, "context": whole["context"], "outcome": {},
        "reward": {"base": whole["reward"]["base"]},
    }  # fmt: skip


def test_of_an_open_episode_what_completion_writes_is_null(experience):
    experience.kept(tried("Add a cache"))
    [hit] = experience.answer("cache", fields=["reward.total", "summary.text", "outcome.type"])["episodes"]
    assert hit == {"reward": None, "summary": None, "outcome": None}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "query"),
        ({"query": "  "}, "query"),
        ({"query": "a" * 10_001}, "query"),
        ({"query": "a", "fields": ["task_type", "steps"]}, "fields[1]"),
        ({"query": "a", "fields": ["reward.totals"]}, "fields[0]"),
        ({"query": "a", "fields": []}, "fields"),
        ({"query": "a", "include": []}, "include"),
        ({"query": "a", "include": ["heuristics"]}, "include[0]"),
        ({"query": "a", "sort": "age"}, "sort"),
        ({"query": "a", "tags": ["x"]}, "tags[0]"),
        ({"query": "a", "outcome": "lost"}, "outcome"),
        ({"query": "a", "embedding": []}, "embedding"),
        ({"query": "a", "domains": ["cli"]}, "domains"),
    ],
)
def test_bad_input_is_refused_by_the_name_of_the_field(memory, body, field):
    response = memory.http.post(f"{memory.path}/episodes/query", json=body)
    refused(response, field)
    if field.startswith("fields["):
        assert "reward.total" in response.json()["error"]
    assert not memory.exists


def test_patterns_and_insights_are_those_of_what_was_found(experience):
    steps = [step("grep"), step("edit"), step("pytest", result={"type": "error", "message": "boom"}), step("pytest")]
    ids = experience.kept(
        *(tried(f"Repair login number {n}", steps=steps, outcome=SUCCESS) for n in range(3)),
        tried("Paint the shed", steps=[step("brush"), step("roller")], outcome=SUCCESS),
    )
    answer = experience.answer("repair the login")
    assert answer["patterns"]
    strengths = [pattern["strength"] for pattern in answer["patterns"]]
    assert strengths == sorted(strengths, reverse=True)
    for pattern in answer["patterns"]:
        assert set(pattern["episode_ids"]) <= set(ids[:3])
        assert pattern["occurrences"] >= len(pattern["episode_ids"]) > 0
        shown = experience.memory.http.get(f"{experience.memory.path}/patterns/{pattern['pattern_id']}")
        assert shown.status_code in (200, 404)
    texts = [insight["text"] for insight in answer["insights"]]
    assert texts
    assert len(texts) == len({text.lower() for text in texts})
    for insight in answer["insights"]:
        assert set(insight["episode_ids"]) <= set(ids[:3])
    only = experience.answer("repair the login", include=["patterns"])
    assert (only["episodes"], only["insights"], only["patterns"]) == ([], [], answer["patterns"])
    assert "explanation" not in only


# --- filters, orders, and nothing ----------------------------------------------------------------


def test_filters_restrict_only_where_they_are_given_and_before_ranking(experience, live):
    now = live.ambient.now_ms()
    many = [tried("Deploy the site", domain="ops", start_time=now, end_time=now, outcome=SUCCESS) for _ in range(40)]
    experience.kept(
        *many,
        tried("Deploy once", domain="web", task_type="testing", tags=["aa", "bb"], start_time=now - 9 * DAY),
        tried("Deploy twice", domain="web", tags=["aa"], start_time=now - 8 * DAY, outcome=FAILURE),
    )
    assert len(experience.found("deploy", limit=100)) == 42
    asked: list[tuple[dict[str, Any], set[str]]] = [
        ({"domain": "web"}, {"Deploy once", "Deploy twice"}),
        ({"task_type": "testing"}, {"Deploy once"}),
        ({"tags": ["aa"]}, {"Deploy once", "Deploy twice"}),
        ({"tags": ["aa", "bb"]}, {"Deploy once"}),
        ({"outcome": "failure"}, {"Deploy twice"}),
        ({"outcome": "open"}, {"Deploy once"}),
        ({"until": now - 8 * DAY}, {"Deploy once"}),
        ({"since": now - 8 * DAY, "until": now - 1}, {"Deploy twice"}),
        ({"domain": "web", "outcome": "failure"}, {"Deploy twice"}),
    ]
    for filters, expected in asked:
        assert set(experience.found("deploy the site", limit=3, **filters)) == expected, filters


def test_what_is_found_is_ordered_by_time_or_by_reward_where_that_is_asked_for(experience, live):
    now = live.ambient.now_ms()
    outcomes: list[Any] = [FAILURE, SUCCESS, None, {"type": "partial_success", "verdict": "Half"}]
    experience.kept(
        *(tried(f"Deploy {n}", start_time=now - (n * 7 % 4) * DAY, **({} if made is None else {"outcome": made}))
          for n, made in enumerate(outcomes)),
        tried("Paint the shed", start_time=now),
    )  # fmt: skip
    fields = ["start_time", "reward.total"]
    recent = experience.answer("deploy", sort="recency", fields=fields)["episodes"]
    times = [hit["start_time"] for hit in recent]
    assert times == sorted(times, reverse=True)
    assert len(times) == 4
    rewards = [hit["reward"] for hit in experience.answer("deploy", sort="reward", fields=fields)["episodes"]]
    assert rewards[-1] is None
    totals = [reward["total"] for reward in rewards[:-1]]
    assert totals == sorted(totals, reverse=True)
    assert experience.answer("deploy", sort="recency", limit=1, fields=fields)["episodes"] == recent[:1]


def test_nothing_is_explained(experience, memory):
    nothing = {"reason": "nothing_stored", "stored": 0, "matching": 0, "words": ["charge", "card"], "left_out": {}}
    unknown = experience.ask("charge a card")
    assert (unknown.status_code, unknown.json()["txid"]) == (200, 0)
    assert not memory.exists
    memory.keep(event("Charge a card"))
    for _ in range(2):
        explained = experience.why("charge a card")
        assert {key: explained[key] for key in nothing} == nothing
    experience.kept(
        tried("Charge a card", domain="web", tags=["aa"], outcome=SUCCESS),
        tried("Charge a battery", domain="cli", tags=["bb"]),
        tried("Paint the shed", domain="web"),
    )
    explained = experience.why("zebra")
    assert (explained["reason"], explained["stored"], explained["matching"]) == ("no_match", 3, 0)
    explained = experience.why("charge", domain="web", tags=["bb"])
    assert (explained["reason"], explained["stored"], explained["matching"]) == ("filters", 3, 2)
    assert explained["left_out"] == {"domain": 1, "tags": 1}
    explained = experience.why("charge", task_type="testing", outcome="failure", domain="web")
    assert explained["left_out"] == {"task_type": 2, "outcome": 2, "domain": 1}
    assert experience.why("zebra", domain="web")["reason"] == "no_match"
    assert "explanation" not in experience.answer("charge")


# --- the past, branches, agents ------------------------------------------------------------------


def test_the_past_and_branches_have_episodes_of_their_own(experience, memory):
    experience.kept(tried("Charge a card"))
    other = experience.on(fork(memory, "try"))
    experience.kept(tried("Charge a battery"))
    other.kept(tried("Charge a phone"))
    assert set(experience.found("charge")) == {"Charge a card", "Charge a battery"}
    assert set(other.found("charge")) == {"Charge a card", "Charge a phone"}
    assert experience.found("charge", as_of=1) == ["Charge a card"]
    rewind(memory, 1)
    assert experience.found("charge") == ["Charge a card"]
    experience.kept(tried("Charge a lamp"))
    assert set(experience.found("charge")) == {"Charge a card", "Charge a lamp"}


def test_agents_get_the_same(experience, memory, mcp: RawMcp):
    experience.kept(tried("Charge a card", outcome=SUCCESS))
    told = mcp.call("query_memory", namespace=memory.namespace, profile=memory.profile, query="charge a card")
    answer = experience.answer("charge a card")
    assert told["structuredContent"]["result"]["episodes"] == answer["episodes"]


# --- vectors -------------------------------------------------------------------------------------

_CONCEPTS = [{"sign", "login", "authent"}, {"slow", "latenc", "perform"}, {"broken", "fail", "crash"}]


def concepts(_model: str, text: str) -> list[float]:
    """A vector in which words that mean the same have the same place."""
    said = stems(text)
    return [1.0 * sum(stem in concept for stem in said) for concept in _CONCEPTS] + [0.1, 0.1, 0.1]


@pytest.fixture
def embeddings(monkeypatch: pytest.MonkeyPatch) -> Iterator[provider.Embeddings]:
    monkeypatch.setattr(provider, "vector", concepts)
    with provider.embedding_server() as running:
        yield running


def embedding_node(directory: Path, embeddings: provider.Embeddings) -> Any:
    endpoint = Endpoint("acme", embeddings.url, "ant", budget_s=10.0)
    return serve(directory, embedder=VoyageEmbedder(endpoint, ManualAmbient()))


TASKS = [tried("Users cannot sign in"), tried("Reports take too long, latency"), tried("The importer has a crash")]


def test_a_paraphrase_is_found_with_an_embedder_and_a_keyword_without(experience, tmp_path, embeddings):
    experience.kept(*TASKS)
    assert experience.found("sign") == ["Users cannot sign in"]
    assert experience.why("authentication performance")["reason"] == "no_match"
    with embedding_node(tmp_path, embeddings) as live:
        embedding = Experience(Memory(live.http, "acme", "alice"))
        embedding.kept(*TASKS)
        hits = embedding.answer("authentication")["episodes"]
        assert hits[0]["task_description"] == "Users cannot sign in"
        assert hits[0]["breakdown"]["vector"] > 0
        assert embedding.found("performance")[0] == "Reports take too long, latency"
        assert embedding.why("performance", domain="web")["left_out"] == {"domain": 3}


def test_an_embedder_that_fails_costs_an_episode_nothing_but_its_vector_and_that_only_for_a_while(tmp_path, embeddings):
    with embedding_node(tmp_path, embeddings) as live:
        experience = Experience(Memory(live.http, "acme", "alice"))
        embeddings.failing = {"document", "query"}
        experience.kept(*TASKS)
        answer = experience.answer("sign")
        assert answer["degraded"] == ["vector"]
        assert [hit["task_description"] for hit in answer["episodes"]] == ["Users cannot sign in"]
        embeddings.failing = set()
        for _ in range(2_000):
            if len(experience.found("authentication")) == 3:
                break
        assert experience.found("authentication")[0] == "Users cannot sign in"
        assert sorted(text for batch in embeddings.batches for text in batch) == sorted(
            each["task_description"] for each in TASKS
        )


def test_vectors_of_clients_are_compared_where_their_dimension_is_the_profiles(experience):
    experience.kept(
        tried("Red", embedding=[1.0, 0.0]), tried("Green", embedding=[0.0, 1.0]), tried("Grey"),
    )  # fmt: skip
    assert experience.found("unsaid", embedding=[0.1, 0.9]) == ["Green", "Red"]
    answer = experience.answer("grey", embedding=[1.0, 0.0, 0.0])
    assert answer["degraded"] == ["vector"]
    assert [hit["task_description"] for hit in answer["episodes"]] == ["Grey"]


def test_what_is_alike_by_its_vector_is_not_given_together(experience):
    near = [tried(f"Painted {word}", embedding=[1.0, 0.01 * n]) for n, word in enumerate(["red", "green", "blue"])]
    experience.kept(*near, tried("Painted black", embedding=[0.0, 1.0]))
    assert "Painted black" in experience.found("painted", limit=2)


def test_a_reader_finds_nothing_of_another_profile(live: Live):
    one, other = Experience(live.memory()), Experience(live.memory())
    one.kept(tried("Charge a card"))
    assert other.why("charge")["reason"] == "nothing_stored"
