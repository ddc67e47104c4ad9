"""The manifest as a value: its bytes, what it refuses to read, and what it says of a history."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import hypothesis.strategies as st
import orjson
import pytest
from hypothesis import given

from memoturn_schemas.errors import Conflict, Internal, Unavailable
from memoturn_storage.manifest import (
    BranchRef,
    Manifest,
    Parent,
    Position,
    Segment,
    Snapshot,
    segment_key,
    snapshot_key,
)
from unit.histories import MAIN, UUID, manifest

KEY = MAIN.manifest_key
CHECKSUMS = st.integers(1 << 63, (1 << 64) - 1)
TIMES = st.integers(0, 1 << 52)
NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    """Any manifest, with a contiguous history or none."""
    ends = sorted(draw(st.sets(st.integers(1, 1 << 40), max_size=8)))
    snapshots = [end for number, end in enumerate(ends) if number == 0 or draw(st.booleans())]
    return manifest(
        epoch=draw(st.integers(0, 9)),
        head_txid=ends[-1] if ends else 0,
        lineage=draw(NAMES),
        write_id=draw(NAMES),
        created_at=draw(TIMES),
        parent=draw(st.none() | st.builds(Parent, NAMES, st.integers(0, 9))),
        snapshots=tuple(
            Snapshot(end, snapshot_key(UUID, end, 1, "n"), draw(TIMES), draw(TIMES), draw(CHECKSUMS))
            for end in snapshots
        ),
        segments=tuple(
            Segment(low, high, segment_key(UUID, 1, low, high, 1, "n"), draw(TIMES), 1, draw(TIMES), draw(CHECKSUMS))
            for low, high in pairwise(ends)
        ),
        checkpoints=draw(st.dictionaries(NAMES, st.integers(0, 1 << 40), max_size=3)),
        ttl_at=draw(st.none() | TIMES),
        deleted_at=draw(st.none() | TIMES),
        collected_at=draw(st.none() | TIMES),
    )


@given(manifests())
def test_a_manifest_comes_back_from_its_bytes_as_it_was(before: Manifest) -> None:
    assert Manifest.decode(before.encode(), KEY) == before


@given(manifests())
def test_checksums_survive_readers_that_keep_53_bits_of_a_number(before: Manifest) -> None:
    def is_exact(value: Any) -> bool:
        if isinstance(value, dict):
            return all(map(is_exact, value.values()))
        if isinstance(value, list):
            return all(map(is_exact, value))
        return not isinstance(value, int) or abs(value) <= 1 << 53

    assert is_exact(orjson.loads(before.encode()))


def sample() -> Manifest:
    return manifest(
        head_txid=9,
        snapshots=(Snapshot(1, snapshot_key(UUID, 1, 1, "n"), 10, 1000, 1 << 63),),
        segments=(Segment(1, 9, segment_key(UUID, 0, 2, 9, 1, "n"), 20, 0, 9000, 1 << 63),),
        checkpoints={"named": 4},
    )


@given(st.integers(0, len(sample().encode()) - 1))
def test_a_truncated_manifest_is_damaged_and_named(length: int) -> None:
    with pytest.raises(Internal, match=KEY):
        Manifest.decode(sample().encode()[:length], KEY)


@given(st.data())
def test_a_manifest_in_which_something_is_of_another_kind_is_damaged_and_named(data: st.DataObject) -> None:
    body = orjson.loads(sample().encode())
    at = body
    while True:  # walk down to some field, or into one of its entries
        name = data.draw(st.sampled_from(sorted(at))) if isinstance(at, dict) else 0
        if isinstance(at[name], dict | list) and at[name] and data.draw(st.booleans()):
            at = at[name]
            continue
        break
    allowed = {"lineage", "write_id", "ttl_at", "parent", "deleted_at", "collected_at", "format"}
    if name in allowed:
        return
    at[name] = data.draw(st.sampled_from([[1], "zz", -1, 1.5, True, {"a": []}]))
    with pytest.raises(Internal, match=KEY):
        Manifest.decode(orjson.dumps(body), KEY)


@pytest.mark.parametrize("data", [b"", b"null", b"[]", b"7", b'"text"', b"{}", b"\xff\xfe", b'{"format": 1}'])
def test_what_is_no_manifest_is_damaged(data: bytes) -> None:
    with pytest.raises(Internal, match=KEY):
        Manifest.decode(data, KEY)


def test_a_manifest_in_the_place_of_another_is_damaged() -> None:
    with pytest.raises(Internal, match="is that of"):
        Manifest.decode(sample().encode(), BranchRef(UUID, "other").manifest_key)


def test_a_manifest_that_names_objects_of_another_database_is_damaged() -> None:
    foreign = sample().encode().replace(b"/ltx/", b"/branches/")
    with pytest.raises(Internal, match="no object of its database"):
        Manifest.decode(foreign, KEY)


def test_a_manifest_whose_head_no_object_ends_at_is_damaged() -> None:
    with pytest.raises(Internal, match="head is 8"):
        Manifest.decode(sample().encode().replace(b'"head_txid": 9', b'"head_txid": 8'), KEY)


def test_a_newer_format_is_refused_and_says_what_helps() -> None:
    with pytest.raises(Unavailable, match="format 2, this program knows 1; upgrade"):
        Manifest.decode(sample().encode().replace(b'"format": 1', b'"format": 2'), KEY)


# --- histories -----------------------------------------------------------------------------------


def history(snapshots: list[int], segments: list[tuple[int, int]]) -> Manifest:
    """A history whose state after each transaction has the checksum of its number, committed at it."""
    return manifest(
        head_txid=max([*snapshots, *(high for _, high in segments)], default=0),
        snapshots=tuple(Snapshot(txid, f"snapshot {txid}", 1, txid, txid) for txid in snapshots),
        segments=tuple(Segment(low, high, f"segment {low}", 1, 0, high, high) for low, high in segments),
    )


def test_a_plan_begins_at_the_newest_snapshot_that_is_not_later_and_reads_no_more_than_needed() -> None:
    whole = history([1, 10], [(1, 4), (4, 10), (10, 12), (12, 20)])
    assert [segment.min for segment in whole.plan(9).segments] == [1, 4]
    assert whole.plan(10).segments == ()
    assert [segment.min for segment in whole.plan(12).segments] == [10]
    assert [segment.min for segment in whole.plan(13).segments] == [10, 12]


def test_what_is_above_the_head_below_the_history_or_in_a_gap_of_it_has_no_plan() -> None:
    gapped = history([3, 10], [(3, 5), (10, 12)])
    for outside in (1, 2, 6, 9, 13):
        with pytest.raises(Conflict, match=str(outside)):
            gapped.plan(outside)
    for inside in (3, 4, 5, 10, 11, 12):
        assert gapped.plan(inside).txid == inside
    with pytest.raises(Conflict):
        manifest().plan(0)


def test_a_cut_in_the_middle_of_an_object_covers_the_part_below_it() -> None:
    cut = history([1, 10], [(1, 10), (10, 20)]).with_checkpoint("early", 5).with_checkpoint("late", 18)
    cut = cut.cut(Position(15, 1500, 77))
    assert (cut.head_txid, cut.head) == (15, Position(15, 1500, 77))
    assert [(segment.min, segment.max) for segment in cut.segments] == [(1, 10), (10, 15)]
    assert cut.checkpoints == {"early": 5}
    assert cut.cut(Position(10, 10, 10)).keys() == {"snapshot 1", "snapshot 10", "segment 1"}


def test_only_what_continues_at_the_head_is_appended() -> None:
    whole = history([1], [(1, 5)])
    for low in (3, 4, 6):
        with pytest.raises(Internal, match="does not continue"):
            whole.appended(Segment(low, 9, "next", 1, 0, 9, 9), epoch=1, lineage="l")
    assert whole.appended(Segment(5, 9, "next", 1, 0, 9, 9), epoch=2, lineage="l").head_txid == 9
    with pytest.raises(Internal, match="does not lie above"):
        whole.rebased(Snapshot(5, "snapshot", 1, 5, 5), epoch=1, lineage="l")
