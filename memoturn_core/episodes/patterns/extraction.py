"""What an episode has of patterns: candidates with ids that are the same wherever the same is seen. Pure.

    kind             what it is                                                     counts from
    tool_sequence    2 to 5 tools in a row, over the steps whose result is known    the second episode
    decision_point   a step that decides: its tool and its action's normal form     the second episode
    error_recovery   a tool, its error's class, and the tools that remedied it      the first
    context_pattern  the task type, the language, the framework, a tag              the second episode
    anti_pattern     a tool and its error's class, not remedied where one failed    the first that failed
                     2 to 5 tools in a row, of which the last did not succeed       the second episode, if one failed

All of them are learnt by domain. Who counts from the second episode on is called a candidate before
(`evidence`). Which way a pattern goes, towards success or failure, is not said here: its evidence tells.
Called by `evidence`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from memoturn_core.episodes.experience import Experience, error_class
from memoturn_schemas.patterns import Facet, PatternKind

SHORTEST, LONGEST = 2, 5
"""Tools of a sequence."""

_ID_BYTES, _TOGETHER_BYTES = 16, 4
_ACTION_READ, _ACTION_CHARACTERS = 1_000, 200
_PARTICULAR = re.compile(r"[\d/\\]")
"""What differs from one time to the next: numbers, ids, paths, addresses."""


class Candidate(NamedTuple):
    """What an episode has of one pattern; `body` is what a row of it holds."""

    id: bytes
    kind: PatternKind
    body: dict[str, Any]

    @property
    def needs(self) -> int:
        """From how many episodes on it counts."""
        return 1 if "error" in self.body else 2


def candidates(experience: Experience) -> dict[bytes, Candidate]:
    """By id, each once however often the episode has it, in the order of the table above."""
    domain = experience.context["domain"]
    found: dict[bytes, Candidate] = {}
    for each in (
        _sequences(experience, domain),
        _decisions(experience, domain),
        _recoveries(experience, domain),
        _context(experience, domain),
        _errors(experience, domain),
        _failing_sequences(experience, domain),
    ):
        found.update(each)
    return found


def longest(sequences: Iterable[Sequence[str]]) -> set[tuple[str, ...]]:
    """Without those that another of them begins or ends with that is longer by one tool."""
    given = {tuple(each) for each in sequences}
    return given.difference([each[1:] for each in given], [each[:-1] for each in given])


# --- the kinds -----------------------------------------------------------------------------------

_Found = Iterable[tuple[bytes, Candidate]]


def _sequences(experience: Experience, domain: str) -> _Found:
    """The ids of all that begin with the same two tools begin alike, and so lie together in an index."""
    tools = [step["tool"] for step in experience.settled]
    written = [_written(tool) for tool in tools]
    base = _digest_of(_base("tool_sequence", domain))
    for start in range(len(tools) - SHORTEST + 1):
        state = base.copy()
        state.update(written[start])
        together = b""
        for end in range(start + 1, min(start + LONGEST, len(tools))):
            state.update(written[end])
            id_ = together + state.digest()[len(together) :]
            together = together or id_[:_TOGETHER_BYTES]
            yield id_, Candidate(id_, "tool_sequence", {"tools": tools[start : end + 1]})


def _failing_sequences(experience: Experience, domain: str) -> _Found:
    settled = experience.settled
    for end, step in enumerate(settled):
        if step["result"] is None or step["result"]["type"] == "success":
            continue
        for length in range(SHORTEST, min(LONGEST, end + 1) + 1):
            tools = [each["tool"] for each in settled[end + 1 - length : end + 1]]
            yield _candidate("anti_pattern", domain, ["sequence", *tools], {"tools": tools})


def _decisions(experience: Experience, domain: str) -> _Found:
    for step in experience.decisions:
        action = normal_form(step["action"])
        yield _candidate("decision_point", domain, [step["tool"], action], {"tools": [step["tool"]], "action": action})


def _recoveries(experience: Experience, domain: str) -> _Found:
    for recovery in experience.recoveries:
        tool, error = recovery.failed["tool"], error_class(recovery.failed)
        remedy = [step["tool"] for step in recovery.remedy]
        body = {"tools": remedy, "failed_tool": tool, "error": error}
        yield _candidate("error_recovery", domain, [tool, error, *remedy], body)


def _errors(experience: Experience, domain: str) -> _Found:
    """Where the episode failed, the errors that were not remedied; elsewhere all of them, for they speak against it."""
    remedied: set[int] = set()
    if experience.outcome["type"] == "failure":
        remedied = {recovery.failed["step_number"] for recovery in experience.recoveries}
    for step in experience.failures:
        if step["step_number"] not in remedied:
            tool, error = step["tool"], error_class(step)
            body = {"tools": [tool], "failed_tool": tool, "error": error}
            yield _candidate("anti_pattern", domain, ["error", tool, error], body)


def _context(experience: Experience, domain: str) -> _Found:
    context = experience.context
    facets: list[tuple[Facet, str | None]] = [
        ("task_type", experience.task_type),
        ("language", context["language"]),
        ("framework", context["framework"]),
        *(("tag", tag) for tag in context["tags"]),
    ]
    for facet, value in facets:
        if value is not None:
            yield _candidate("context_pattern", domain, [facet, value], {"facet": facet, "value": value})


# --- normal forms and ids ------------------------------------------------------------------------


def normal_form(action: str) -> str:
    """An action without what differs from one time to the next."""
    words = action[:_ACTION_READ].casefold().split()
    return " ".join("…" if _PARTICULAR.search(word) else word for word in words)[:_ACTION_CHARACTERS].strip()


def _candidate(kind: PatternKind, domain: str, parts: list[str], body: dict[str, Any]) -> tuple[bytes, Candidate]:
    id_ = _digest_of(_base(kind, domain) + b"".join(map(_written, parts))).digest()
    return id_, Candidate(id_, kind, body)


def _base(kind: PatternKind, domain: str) -> bytes:
    return _written(kind) + _written(domain)


def _written(text: str) -> bytes:
    """With its length before it, so that no two lists of texts are written alike."""
    encoded = text.encode()
    return b"%d:%b" % (len(encoded), encoded)


def _digest_of(key: bytes) -> hashlib.blake2b:
    return hashlib.blake2b(key, digest_size=_ID_BYTES)
