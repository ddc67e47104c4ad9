"""Measures of one ranked list against the set that answers the question, and their means.

`recall` is the share of the evidence that is among the first k, averaged over the questions: a question whose two
pieces of evidence are at 3 and 30 scores 0.5 at 10. (`hit`, printed beside it, is the share of questions of which any
evidence is among the first k; it is larger, and is what `examples/chat_history.py` prints.) Questions without evidence
do not count.
"""

from __future__ import annotations

import math
from collections.abc import Sequence, Set
from dataclasses import dataclass

DEPTH = 20
"""How many are recalled for a question."""


@dataclass(frozen=True, slots=True)
class Measures:
    """Of one question, or the means over many; each from 0 to 1."""

    recall_5: float
    recall_10: float
    recall_20: float
    hit_10: float
    mrr: float
    """One by the rank of the first piece of evidence, 0 where there is none among those recalled."""
    ndcg_10: float
    """The discounted gain of the first 10 by the best that there could be."""


def measure(ranked: Sequence[str], evidence: Set[str]) -> Measures:
    """`ranked` has the ids that were found, best first; `evidence` those that were to be, one at least."""
    found = [id_ in evidence for id_ in ranked]
    first = next((rank for rank, is_evidence in enumerate(found, start=1) if is_evidence), None)
    gain = sum(discount(rank) for rank, is_evidence in enumerate(found[:10], start=1) if is_evidence)
    best = sum(discount(rank) for rank in range(1, min(10, len(evidence)) + 1))
    return Measures(
        recall_5=sum(found[:5]) / len(evidence),
        recall_10=sum(found[:10]) / len(evidence),
        recall_20=sum(found[:20]) / len(evidence),
        hit_10=float(any(found[:10])),
        mrr=0.0 if first is None else 1 / first,
        ndcg_10=gain / best,
    )


def discount(rank: int) -> float:
    return 1 / math.log2(rank + 1)


def mean(measures: Sequence[Measures]) -> Measures:
    """Of one question at least."""
    return Measures(*(sum(getattr(each, name) for each in measures) / len(measures) for name in Measures.__slots__))
