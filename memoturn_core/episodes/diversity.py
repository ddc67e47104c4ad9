"""Which of several good answers to give together: by maximal marginal relevance (Carbonell and Goldstein, 1998).

Each next answer is the one with the most of LAMBDA times its score, less (1 - LAMBDA) times how much it is like the one
already given that it is most like. Here both are divided by LAMBDA, and likeness is measured in scores of the best
answer, so that what diversity takes away is an addend of the score. Pure; called by `choice`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set

import numpy as np
import numpy.typing as npt

from memoturn_core.vectors.vector import Vector, unit

LAMBDA = 0.7

Likeness = Callable[[int], npt.NDArray[np.float64]]
"""Of one answer to each, from 0 to 1."""


def by_vectors(vectors: Vector) -> Likeness:
    """The cosine, where it is above 0; a zero vector is like none."""
    units = np.nan_to_num(unit(vectors)).astype(np.float64)
    return lambda place: np.clip(units @ units[place], 0.0, 1.0)


def by_words(words: Sequence[Set[str]]) -> Likeness:
    """The share of the words of both that both have."""
    counts = np.array([len(each) for each in words], np.float64)

    def likeness(place: int) -> npt.NDArray[np.float64]:
        these = words[place]
        both = np.array([len(these & those) for those in words], np.float64)
        return np.asarray(both / np.maximum(counts + counts[place] - both, 1.0))

    return likeness


def diversified(scores: Sequence[float], likeness: Likeness, count: int) -> list[tuple[int, float]]:
    """The places of the answers to give, in their order, each with what is added to its score (0 or less).

    Args:
        scores: descending.
    """
    if not scores:
        return []
    left = np.array(scores, np.float64)
    price = (1 - LAMBDA) / LAMBDA * max(0.0, scores[0])
    taken_off = np.zeros(len(scores))
    chosen: list[tuple[int, float]] = []
    while len(chosen) < min(count, len(scores)):
        place = int(np.argmax(left - taken_off))  # of equal ones the first, which had the higher score
        chosen.append((place, -float(taken_off[place])))
        left[place] = -np.inf
        np.maximum(taken_off, price * likeness(place), out=taken_off)
    return chosen
