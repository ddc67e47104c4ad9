"""What stands out in an episode: decisions, runs of steps that succeeded, recoveries.

Pure. Called by the modules that complete an episode.
"""

from __future__ import annotations

from memoturn_core.episodes.experience import Experience
from memoturn_core.episodes.wording import distinct_runs, line, quoted, recovered
from memoturn_schemas.episodes import Salient, Step

DECISIONS, RUNS, RECOVERIES = 10, 5, 10
RUN_TOOLS = 20
_DECISION_CHARACTERS = 200


def salient(experience: Experience) -> Salient:
    """The first 10 decisions, the longest 5 runs and the first 10 recoveries; nothing is named twice.

    A run names its tools without repetitions in a row, at most 20.
    """
    longest = sorted(experience.runs, key=len, reverse=True)
    runs = dict.fromkeys(tuple(distinct_runs(run)[:RUN_TOOLS]) for run in longest)
    decisions = dict.fromkeys(decision(step) for step in experience.decisions)
    recoveries = dict.fromkeys(recovered(recovery) for recovery in experience.recoveries)
    return Salient(
        decisions=list(decisions)[:DECISIONS],
        tool_runs=[list(run) for run in runs][:RUNS],
        recoveries=list(recoveries)[:RECOVERIES],
    )


def decision(step: Step) -> str:
    """What was decided: as `metadata.decision` says it, or else the action."""
    said = step["metadata"].get("decision")
    text = said if isinstance(said, str) and said.strip() else step["action"]
    return line(text, _DECISION_CHARACTERS) or f"a choice made with {quoted(step['tool'])}"
