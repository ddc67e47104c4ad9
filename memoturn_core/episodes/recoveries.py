"""Which failures of an episode were made good, and how: also those that were only tried again and failed again.

Pure. Called by the modules that tell of an episode.
"""

from __future__ import annotations

from memoturn_core.episodes.experience import Experience, Recovery, failed
from memoturn_schemas.episodes import Step


def recoveries_of(experience: Experience) -> dict[int, Recovery]:
    """By the number of each failed step that was made good.

    The recovery from a failure is that from all failures of the tool in a row before it.
    """
    found = {recovery.failed["step_number"]: recovery for recovery in experience.recoveries}
    after: Step | None = None
    for step in reversed(experience.steps):
        if after is not None and failed(step) and failed(after) and after["tool"] == step["tool"]:
            recovery = found.get(after["step_number"])
            if recovery is not None:
                found[step["step_number"]] = recovery
        after = step
    return found
