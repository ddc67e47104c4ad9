"""What a check of `memoturn doctor` has found. Made by `checks` and `object_checks`, shown by `doctor`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "warning", "problem"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found; `advice` is what to do about it, where something should be done."""

    check: str
    status: Status
    found: str
    advice: str | None = None
