"""What went well in an episode, what did not, and what it teaches, by rules over its steps.

Each line names what was found: tools, steps, errors, recoveries, the bottleneck. The specific goes before the
generic, and where nothing was found, nothing is said.

Pure. Called by the modules that complete an episode.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, islice

from memoturn_core.episodes.experience import Experience, failed, succeeded
from memoturn_core.episodes.recoveries import recoveries_of
from memoturn_core.episodes.salience import decision
from memoturn_core.episodes.wording import count, error, line, numbers, quoted, recovered, remedy, seconds, tools
from memoturn_schemas.episodes import Reflection, Step

EACH = 5
_NAMED = 3
"""Of artifacts, parts and signals that an outcome names, how many a line repeats."""
_RUN = 3
"""Steps from which a run of success is worth a line."""


def reflect(experience: Experience) -> Reflection:
    """At most five successes, improvements and insights each; all are empty where nothing is known."""
    return Reflection(
        successes=_first(_successes(experience)),
        improvements=_first(_improvements(experience)),
        insights=_first(_insights(experience)),
    )


def _first(lines: Iterable[str]) -> list[str]:
    return list(islice(dict.fromkeys(lines), EACH))


def _successes(experience: Experience) -> Iterator[str]:
    for recovery in islice(experience.recoveries, 2):
        step = recovery.failed
        yield (
            f"Recovered from the failure of {quoted(step['tool'])} at step {step['step_number']} "
            f"(“{error(step)}”) with {tools(remedy(recovery))}."
        )
    longest = max(experience.runs, key=len, default=[])
    if len(longest) >= _RUN:
        first, last = longest[0]["step_number"], longest[-1]["step_number"]
        yield f"Steps {first} to {last} went without a failure: {tools(longest)}."
    made = experience.outcome.get("artifacts") or experience.outcome.get("completed") or []
    if made:
        yield f"Done: {_names(made)}."
    settled = len(experience.settled)
    if settled and not experience.failures:
        yield f"{'The one step' if settled == 1 else f'All {settled} steps'} with a known result succeeded."


def _improvements(experience: Experience) -> Iterator[str]:
    for tries in sorted(_repeated(experience.steps), key=len, reverse=True)[:1]:
        yield (
            f"{quoted(tries[0]['tool'])} was tried {len(tries)} times in a row with the same error "
            f"(“{error(tries[0])}”, {numbers(tries)}): change something after the first."
        )
    made_good = recoveries_of(experience)
    unrecovered = _by_error(step for step in experience.failures if step["step_number"] not in made_good)
    for (tool, said), steps in sorted(unrecovered.items(), key=lambda item: -len(item[1]))[:2]:
        yield f"{quoted(tool)} failed with “{said}” ({numbers(steps)}) and was not recovered from."
    bottleneck = _bottleneck(experience)
    if bottleneck is not None:
        yield bottleneck
    if experience.outcome["type"] == "failure":
        why = experience.outcome["reason"].strip() or (experience.outcome.get("error_details") or "")
        if why.strip():
            yield f"It ended in failure: {line(why, 200)}"
    missed = experience.outcome.get("failed") or []
    if missed:
        yield f"Not done: {_names(missed)}."
    pending = [step for step in experience.steps if step["result"] is None]
    if pending:
        yield f"How {numbers(pending)} went is not known: {count(len(pending), 'result')} missing."
    if experience.failures:
        yield f"{len(experience.failures)} of {count(len(experience.settled), 'step')} with a known result failed."


def _insights(experience: Experience) -> Iterator[str]:
    for recovery in islice(experience.recoveries, 2):
        yield f"{recovered(recovery)}."
    for step in islice(filter(succeeded, experience.decisions), 1):
        yield f"A choice that worked, at step {step['step_number']}: {line(decision(step), 150)}"
    signals = experience.outcome.get("infeasibility_signals") or []
    if signals:
        yield f"Signs that it could not be done: {_names(signals)}."
    known = Counter(step["tool"] for step in experience.settled)
    bad = Counter(step["tool"] for step in experience.failures)
    often = [(failures, tool) for tool, failures in bad.items() if 2 * failures >= known[tool] >= 2]
    if often:
        failures, tool = max(often)
        yield f"{quoted(tool)} failed in {failures} of {known[tool]} steps: check what it needs before it is used."
    for tool, uses in known.most_common(1):
        if uses >= 2 and not bad[tool]:
            yield f"{quoted(tool)} was relied on most, and worked in all of its {uses} steps."


def _bottleneck(experience: Experience) -> str | None:
    """The step that took the most of the known latency, where there is something to compare it with."""
    timed = [(step["latency_ms"], step) for step in experience.steps if step["latency_ms"] is not None]
    total = sum(latency for latency, _ in timed)
    if len(timed) < 2 or total == 0:
        return None
    most, step = max(timed, key=lambda pair: pair[0])
    if 10 * most < 4 * total:  # not worth a line; in integers, for a latency may be of any size
        return None
    return (
        f"Step {step['step_number']} ({quoted(step['tool'])}) was the bottleneck: {seconds(most)} "
        f"of the {seconds(total)} that {len(timed)} steps took."
    )


def _repeated(steps: Sequence[Step]) -> Iterator[list[Step]]:
    """Runs of three failures or more of one tool with one error."""
    for key, group in groupby(steps, lambda step: (step["tool"], error(step)) if failed(step) else None):
        run = list(group)
        if key is not None and len(run) >= 3:
            yield run


def _by_error(steps: Iterable[Step]) -> dict[tuple[str, str], list[Step]]:
    grouped: dict[tuple[str, str], list[Step]] = defaultdict(list)
    for step in steps:
        grouped[step["tool"], error(step)].append(step)
    return grouped


def _names(names: Sequence[str]) -> str:
    shown = ", ".join(line(name, 60) for name in names[:_NAMED])
    return shown if len(names) <= _NAMED else f"{shown} and {len(names) - _NAMED} more"
