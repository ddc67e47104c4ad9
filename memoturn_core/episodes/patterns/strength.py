"""How strong a pattern is: the lower bound of its share of success, over evidence that fades. Pure.

The bound is Wilson's at 95 % (z = 1.96), so that one success is worth less than nine of ten. Each piece of evidence
weighs half after 30 days, a quarter after 60. An episode with the pattern is one trial, for it or against it. So is
feedback: `helped` is a trial for it, `hindered` one against it, and `no_effect` half a trial against it, which lowers
every pattern and raises none. `pending` is no evidence. Of anti-patterns it is the share of failure; feedback is about
the warning, so that `helped` strengthens them too. Called by `known` and by the tests' models.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from memoturn_schemas.episodes import Applied

Floats = NDArray[np.float64]

Z = 1.96
_TINY = np.finfo(np.float64).tiny
HALF_LIFE_MS = 30 * 24 * 3_600_000

_SAID: dict[Applied, tuple[float, float]] = {
    "helped": (1.0, 1.0),
    "no_effect": (0.5, 0.0),
    "hindered": (1.0, 0.0),
    "pending": (0.0, 0.0),
}
"""What a word of feedback weighs, and how much of that is for the pattern."""


class Trial(NamedTuple):
    """A piece of evidence: when, how much it counted then, and how much of that was for the pattern (0...weight)."""

    at: int
    weight: float
    won: float


def of_episode(at: int, won: bool) -> Trial:
    return Trial(at, 1.0, float(won))


def of_feedback(outcome: Applied, said_at: int) -> Trial:
    weight, won = _SAID[outcome]
    return Trial(said_at, weight, won)


def strength(trials: Iterable[Trial], now: int) -> float:
    """0...1, and 0 without evidence. What lies in the future counts as of now."""
    won = weight = 0.0
    for trial in trials:
        fading = float(faded(max(0, now - trial.at)))
        won += fading * trial.won
        weight += fading * trial.weight
    return float(lower_bound(won, weight))


def faded(age_ms: Any) -> Any:
    """What is left of a weight; ages may be an array, and negative ones give more than 1."""
    return np.exp2(np.asarray(age_ms, np.float64) * (-1.0 / HALF_LIFE_MS))


def lower_bound(won: Any, trials: Any) -> Floats:
    """Wilson's lower bound of a share, of numbers or arrays of them, which need not be whole."""
    won, trials = np.asarray(won, np.float64), np.asarray(trials, np.float64)
    lost = np.maximum(trials - won, 0.0)
    square = Z * Z
    variance = won * lost / np.maximum(trials, _TINY)
    bound = (won + square / 2 - Z * np.sqrt(variance + square / 4)) / (trials + square)
    return np.asarray(np.clip(bound, 0.0, 1.0) * (won > 0))
