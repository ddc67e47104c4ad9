"""Every statement of the contract that holds today has a test that is named after its number."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]

STATEMENTS = [
    *range(1, 7),  # 0: cross-cutting
    *range(7, 27),  # 1: ingest, get and forget
    *range(27, 50),  # 2: recall, ask, extract
    *range(50, 55),  # 3: sessions and transcript
    *range(55, 64),  # 4: documents
    *range(64, 68),  # 5: KV
    *range(68, 70),  # 6: vectors
    *range(70, 81),  # 7: SQL
    *range(81, 92),  # 8: branches
    *range(92, 106),  # 9: databases and durability
    *range(106, 112),  # 10: garbage and retention
    *range(127, 140),  # 12: access
    *range(140, 146),  # 13: limits
    *range(191, 195),  # 19: OpenAPI
]
LATER = {
    111: "there are no policies that cap superseded memories yet",
    144: "there is no TypeScript client yet",
}
_NAME = re.compile(r"^\s*(?:async )?def test_items?_(\d+)(?:_(and|to)_(\d+))?_\D", re.MULTILINE)


def named() -> set[int]:
    """The numbers in the names of all tests: `test_item_7_…`, `test_items_126_and_139_…`, `test_item_76_to_78_…`."""
    numbers: set[int] = set()
    for file in TESTS.rglob("test_*.py"):
        for first, joint, last in _NAME.findall(file.read_text(encoding="utf-8")):
            numbers |= {int(first), int(last or first)}
            if joint == "to":
                numbers |= set(range(int(first), int(last)))
    return numbers


def test_every_statement_has_a_test_or_a_reason_why_not_yet():
    assert sorted(set(STATEMENTS) - LATER.keys() - named()) == []


def test_what_has_a_test_is_not_put_off():
    assert sorted(LATER.keys() & named()) == []
