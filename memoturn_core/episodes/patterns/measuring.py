"""Numbers with the cases they were measured from, or the reason why they are not known. Pure.

Called by `playbook`, `effectiveness` and `evaluation`.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, median

from memoturn_schemas.recommendations import Bin, Calibration, Measured

DIGITS = 6
COMPARABLE = 5
"""Cases on either side from which on two shares are compared."""
CALIBRATED = 10
"""Cases from which on a calibration says something."""
_BINS = 10


def mean_of(values: Sequence[float], reason: str) -> Measured:
    """`reason` is why there are no values."""
    return _measured(fmean(values) if values else None, len(values), reason)


def median_of(values: Sequence[float], least: int, reason: str = "") -> Measured:
    """Of `least` values or more."""
    known = float(median(values)) if len(values) >= least else None
    return _measured(known, len(values), reason or f"fewer than {least} cases")


def share(won: int, cases: int, reason: str) -> Measured:
    """`reason` is why there are no cases."""
    return _measured(won / cases if cases else None, cases, reason)


def difference(one: tuple[int, int], other: tuple[int, int]) -> Measured:
    """Of two shares, each as what was won and of how many cases; `cases` are those of both."""
    (won, cases), (others_won, other_cases) = one, other
    known = won / cases - others_won / other_cases if min(cases, other_cases) >= COMPARABLE else None
    return _measured(known, cases + other_cases, f"fewer than {COMPARABLE} completed episodes on one side")


def calibration(cases: Sequence[tuple[float, bool]]) -> Calibration:
    """How far strengths (0...1) were right about what helped; each case is a strength and whether it did."""
    count = len(cases)
    if count < CALIBRATED:
        return Calibration(
            cases=count, brier=None, base_rate=None, brier_of_base_rate=None, bins=None,
            reason=f"{count} of the {CALIBRATED} cases that it takes: patterns with feedback that is not pending",
        )  # fmt: skip
    base = fmean(helped for _, helped in cases)
    filled: list[list[tuple[float, bool]]] = [[] for _ in range(_BINS)]
    for strength, helped in cases:
        filled[min(_BINS - 1, int(strength * _BINS))].append((strength, helped))
    return Calibration(
        cases=count,
        brier=round(fmean((strength - helped) ** 2 for strength, helped in cases), DIGITS),
        base_rate=round(base, DIGITS),
        brier_of_base_rate=round(base * (1 - base), DIGITS),
        bins=[_bin(number, of_bin) for number, of_bin in enumerate(filled)],
        reason=None,
    )


def _bin(number: int, cases: Sequence[tuple[float, bool]]) -> Bin:
    return Bin(
        from_strength=number / _BINS,
        to_strength=(number + 1) / _BINS,
        cases=len(cases),
        mean_strength=round(fmean(strength for strength, _ in cases), DIGITS) if cases else None,
        helped=round(fmean(helped for _, helped in cases), DIGITS) if cases else None,
    )


def _measured(value: float | None, cases: int, reason: str) -> Measured:
    return Measured(
        value=None if value is None else round(value, DIGITS), cases=cases, reason=reason if value is None else None
    )
