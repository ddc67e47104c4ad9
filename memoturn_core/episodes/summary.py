"""An episode in a few words, and the steps that tell it: the first, failures, decisions, the last.

Pure. Called by the modules that complete an episode, and by `handoff`.
"""

from __future__ import annotations

from itertools import chain, zip_longest

from memoturn_core.episodes.experience import Experience, decides, failed
from memoturn_core.episodes.salience import decision
from memoturn_core.episodes.wording import count, error, line, quoted, seconds, words
from memoturn_schemas.episodes import Outcome, Step, Summary

KEY_STEPS = 10
WORDS = 200


def summarise(experience: Experience) -> Summary:
    """What was to be done, how it ended and how it went, in at most 200 words (as white space parts them)."""
    return _summary(experience, _ending(experience.outcome))


def summarise_open(experience: Experience) -> Summary:
    """The same of an episode that has not ended, whatever its outcome says."""
    return _summary(experience, "Not completed.")


def _summary(experience: Experience, ending: str) -> Summary:
    context = experience.context
    language = " with ".join(name for name in (context["language"], context["framework"]) if name)
    kind = "task" if experience.task_type == "other" else experience.task_type.replace("_", " ")
    where = (
        f"{kind[:1].upper()}{kind[1:]} in {line(context['domain'], 60)}{f' ({line(language, 80)})' if language else ''}"
    )
    key = _key_steps(experience)
    parts = [f"{where}: {_sentence(words(experience.description, 40, 300))}", ending]
    if experience.steps:
        parts.append(_course(experience))
        parts.append("; ".join(_told(step) for step in key) + ".")
    text = words(" ".join(parts), WORDS, 4_000)
    return Summary(text=text, key_steps=[step["step_number"] for step in key])


def _key_steps(experience: Experience) -> list[Step]:
    """In their order, at most 10: the first and the last, and of failures and decisions by turns."""
    steps = experience.steps
    between = chain.from_iterable(zip_longest(experience.failures, experience.decisions))
    candidates = chain(steps[:1], steps[-1:], (step for step in between if step is not None))
    chosen = list({step["step_number"]: step for step in candidates}.values())[:KEY_STEPS]
    return sorted(chosen, key=lambda step: step["step_number"])


def _told(step: Step) -> str:
    """One step: its number, its tool, and its error, its decision, or else what was done."""
    head = f"{step['step_number']} {quoted(words(step['tool'], 3, 40))}"
    if failed(step):
        return f"{head} failed: {words(error(step), 8, 80)}"
    said = words(decision(step) if decides(step) else step["action"], 8, 80)
    pending = " (no result)" if step["result"] is None else ""
    return f"{head} {said}{pending}" if said else f"{head}{pending}"


def _course(experience: Experience) -> str:
    parts = [count(len(experience.steps), "step")]
    if experience.failures:
        parts.append(f"{len(experience.failures)} failed")
    if experience.recoveries:
        parts.append(f"{len(experience.recoveries)} recovered")
    pending = len(experience.steps) - len(experience.settled)
    if pending:
        parts.append(f"{pending} without a result")
    return f"{', '.join(parts)}, in {seconds(1_000 * experience.seconds)}:"


def _ending(outcome: Outcome) -> str:
    if outcome["type"] == "success":
        return f"Succeeded: {_said(outcome['verdict'])}"
    if outcome["type"] == "partial_success":
        missed = words(", ".join(outcome["failed"]), 20, 150)
        return f"Partly succeeded: {_said(outcome['verdict'])}" + (f" Not done: {_sentence(missed)}" if missed else "")
    if outcome["type"] == "failure":
        return f"Failed: {_said(outcome['reason'])}"
    return f"Given up after {count(outcome['stopped_at_step'], 'step')}: {_said(outcome['reason'])}"


def _said(text: str) -> str:
    return _sentence(words(text, 30, 250) or "nobody said more")


def _sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?", "…")) else f"{text}."
