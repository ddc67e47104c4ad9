"""Export of everything that a database holds: of one moment, forgetting nothing, and imported the same elsewhere."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contract.branches import checkpoint
from contract.live_node import Live, Memory, event, fact, task
from contract.portability import (
    Records,
    act,
    assert_refused,
    assert_sound,
    backed_up,
    digests,
    exported,
    import_,
    restore,
    take_all,
    whole_episodes,
)
from memoturn_core.portability.catalogue import DERIVED, KINDS
from memoturn_core.portability.kinds import Rows
from memoturn_core.tables import SCHEMA

# --- content of every kind -----------------------------------------------------------------------

WORDS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=8)
NAMES = st.sampled_from(["a", "b", "c-1"])
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.just(2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS | st.just("$json"), inner, max_size=3),
    max_leaves=6,
)
EMBEDDING = st.lists(st.floats(-4, 4, width=32), min_size=2, max_size=2)
LITERALS = st.sampled_from(
    ["NULL", "1", "1.0", "-9e999", "9e999", "0.1", "'text'", "x'00ff'", "CAST(x'ff41' AS TEXT)", "9223372036854775807"]
)


@st.composite
def acts(draw: Any) -> tuple[str, str, Any]:
    """A request to a profile: method, path and body."""
    kind = draw(st.sampled_from(["memory", "turn", "kv", "document", "index", "vector", "sql", "episode", "forget"]))
    session = draw(NAMES)
    match kind:
        case "memory":
            made = draw(st.sampled_from([event, task]))(draw(WORDS), content=draw(JSON), session_id=session)
            if draw(st.booleans()):
                made = fact(draw(NAMES), draw(WORDS), content=draw(JSON), source=draw(NAMES))
            if draw(st.booleans()) and made["type"] != "task":
                made["embedding"] = draw(EMBEDDING)
            return "POST", "/memories", {"memories": [made]}
        case "turn":
            vector = {"embedding": draw(EMBEDDING)} if draw(st.booleans()) else {}
            return "POST", f"/sessions/{session}/turns", {"role": "user", "content": draw(WORDS), **vector}
        case "kv":
            return "PUT", f"/kv/{session}/{draw(NAMES)}", draw(st.binary(max_size=6))
        case "document":
            return "POST", f"/docs/{session}/insert", {"docs": [{"x": draw(JSON)}]}
        case "index":
            return "POST", f"/docs/{session}/indexes", {"path": draw(st.sampled_from(["x", "x.y", "z"]))}
        case "vector":
            return "POST", f"/vectors/{session}", {"id": draw(WORDS), "embedding": draw(EMBEDDING)}
        case "sql":
            values = f"({draw(LITERALS)}, {draw(LITERALS)})"
            shape = draw(
                st.sampled_from(
                    ["(a, b)", "(a INTEGER PRIMARY KEY AUTOINCREMENT, b)", "(a, b, PRIMARY KEY (b)) WITHOUT ROWID"]
                )
            )
            made = f'CREATE TABLE IF NOT EXISTS "{session} x" {shape}'
            return "POST", "/sql", {"stmts": [{"q": made}, {"q": f'INSERT INTO "{session} x" VALUES {values}'}]}
        case "episode":
            return (
                "POST",
                "/episodes",
                {"task_description": draw(WORDS), "task_type": "testing", "metadata": {"m": draw(JSON)}},
            )
    return "DELETE", f"/sessions/{session}", None


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(st.lists(acts(), min_size=1, max_size=12), st.integers(1, 9))
def test_what_is_exported_and_imported_is_exported_the_same(live: Live, done: list[Any], size: int) -> None:
    memory, other, again = live.memory(), live.memory(), live.memory()
    for each in done:
        act(memory, *each)
    if not memory.exists:
        return
    records = exported(memory)
    take_all(other, records, size)
    if not records:
        return
    assert json.dumps(exported(other)) == json.dumps(records)
    assert_sound(live, other)
    for query in ("a", "text", *(each["summary"] for each in records if each["kind"] == "memory")):
        ours, theirs = (each.recall(query=query).json() for each in (memory, other))
        assert [hit["id"] for hit in ours["memories"]] == [hit["id"] for hit in theirs["memories"]]
    # Again changes nothing.
    txid = other.txid
    for start in range(0, len(records), size):
        answer = import_(other, records[start : start + size])
        assert (answer["imported"], answer["refused"]) == ({}, [])
    assert other.txid == txid
    # And so does the file.
    data, _ = backed_up(memory)
    assert restore(again, data).status_code == 200
    assert digests(live, again) == digests(live, memory)
    assert_sound(live, again)


def test_episodes_and_what_was_learnt_from_them_come_along(live: Live) -> None:
    memory, other = live.memory(), live.memory()
    whole_episodes(memory)
    ids = [each["id"] for each in exported(memory) if each["kind"] == "episode"]
    linked = memory.http.post(
        f"{memory.path}/episodes/{ids[0]}/relationships", json={"add": [{"target": ids[1], "type": "follows"}]}
    )
    assert linked.status_code == 200, linked.text
    offered = memory.http.post(f"{memory.path}/patterns/recommend", json={"task_description": "fix the parser again"})
    assert offered.status_code in (200, 201), offered.text
    offer = offered.json()
    pattern = next(each for each in exported(memory) if each["kind"] == "recommendation")["body"]["offers"][0]
    said = memory.http.post(
        f"{memory.path}/patterns/feedback",
        json={
            "recommendation_id": offer["recommendation_id"],
            "feedback": [{"pattern_id": pattern["pattern_id"], "outcome": "helped"}],
        },
    )
    assert said.status_code in (200, 201), said.text
    records = exported(memory)
    counts = Counter(each["kind"] for each in records)
    assert counts["episode"] == 4
    assert counts["step"] == 20
    assert counts["link"] == 1
    assert counts["pattern"] > 0
    assert counts["evidence"] == 4
    assert counts["recommendation"] == counts["feedback"] == 1
    assert "$json" not in json.dumps(records)
    # What comes before has other rowids there.
    whole_episodes(other)
    take_all(other, records, 7)
    for id_ in ids:
        ours, theirs = (each.http.get(f"{each.path}/episodes/{id_}").json() for each in (memory, other))
        assert ours == theirs
    assert len([each for each in exported(other) if each["kind"] == "episode"]) == 8
    assert_sound(live, other)


def test_no_table_is_forgotten() -> None:
    connection = SCHEMA.empty()
    found: Any = connection.execute("SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'table'")
    tables = {name for (name,) in found if name.startswith("__memoturn_")}
    told = {kind.table for kind in KINDS if isinstance(kind, Rows)} | {"__memoturn_collections"}
    assert tables == told | DERIVED
    assert not [kind.name for kind in KINDS if isinstance(kind, Rows) and "kind" in kind.fields]
    connection.close()


# --- one state -----------------------------------------------------------------------------------


def test_an_export_is_of_one_moment_whatever_is_written_between_its_pages(live: Live) -> None:
    memory = live.memory()
    for number in range(5):
        act(memory, "PUT", f"/kv/n/{number}", bytes([number, 255]) * 200_000)
    checkpoint(memory, "five")
    first = memory.http.get(f"{memory.path}/export").json()
    act(memory, "PUT", "/kv/n/2", b"changed")
    memory.keep(event("came later"))
    rest = exported_from(memory, first)
    assert [each["key"] for each in rest if each["kind"] == "kv"] == list("01234")
    assert all("$base64" in each["value"] for each in rest if each["kind"] == "kv")
    assert first["txid"] == 5
    assert (
        exported(memory, as_of="five") == [each for each in rest if each["kind"] == "kv"] == exported(memory, as_of=5)
    )
    assert Counter(each["kind"] for each in exported(memory)) == {"kv": 5, "memory": 1}


def exported_from(memory: Memory, page: Any) -> Records:
    records = page["records"]
    while "next_cursor" in page:
        page = memory.http.get(f"{memory.path}/export", params={"cursor": page["next_cursor"]}).json()
        records += page["records"]
    return records


def test_a_cursor_is_for_its_database_alone_and_ends(live: Live) -> None:
    memory, other = live.memory(), live.memory()
    for number in range(5):
        act(memory, "PUT", f"/kv/n/{number}", bytes([number]) * 400_000)
    other.keep(event("here"))
    cursor = memory.http.get(f"{memory.path}/export").json()["next_cursor"]
    copies = live.node.directory / "copies"
    assert [path.stat().st_mode & 0o777 for path in copies.glob("*")] == [0o600]
    for who, wrong in ((other, cursor), (memory, f"{'0' * 32}.1.0")):
        refusal = who.http.get(f"{who.path}/export", params={"cursor": wrong})
        assert (refusal.status_code, refusal.json()["code"]) == (409, "conflict")
    for wrong in ({"cursor": "../x"}, {"cursor": cursor, "as_of": "1"}):
        assert_refused(memory.http.get(f"{memory.path}/export", params=wrong))
    assert memory.http.get(f"{memory.path}/export", params={"cursor": cursor}).status_code == 200
    live.ambient.advance(seconds=3_700)
    exported(other)
    assert memory.http.get(f"{memory.path}/export", params={"cursor": cursor}).status_code == 409
    assert list(copies.glob("*")) == []
