"""A pattern as those see it who list, search, rank or show patterns; what is counted of it is in `Known`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, Protocol

from pydantic_core import from_json

from memoturn_schemas.episodes import Applied, TaskType
from memoturn_schemas.patterns import Facet, Feedback, PatternEntry, PatternId, PatternKind

_PREFIX = "pat_"


def format_pattern_id(id_: bytes) -> PatternId:
    return f"{_PREFIX}{id_.hex()}"


def parse_pattern_id(text: PatternId) -> bytes:
    return bytes.fromhex(text.removeprefix(_PREFIX))


class PatternRow(NamedTuple):
    """As the file has it. `needs` is from how many episodes on it counts; `body` is JSON."""

    rowid: int
    id: bytes
    kind: PatternKind
    domain: str
    body: str
    needs: int
    created_at: int


class Standing(NamedTuple):
    """What evidence there is of a pattern; the first three are episodes, of which abstentions are neither."""

    occurrences: int
    successes: int
    failures: int
    first_seen: int
    last_seen: int
    task_types: Mapping[TaskType, int]


class Ledger(Protocol):
    """Where what is known of patterns is kept, by their places."""

    def strength(self, place: int) -> float: ...
    def promoted(self, place: int) -> bool: ...
    def goes_with(self, place: int) -> Literal["success", "failure"]: ...
    def occurrences(self, place: int) -> int: ...
    def last_seen(self, place: int) -> int: ...
    def standing(self, place: int) -> Standing: ...
    def feedback(self, place: int) -> Mapping[Applied, int]: ...
    def episodes(self, place: int) -> list[int]: ...


class Pattern:
    """One pattern. What it says of its evidence is of the newest state: what is wanted for longer is copied."""

    __slots__ = ("_body", "_ledger", "_text", "created_at", "domain", "id", "kind", "place", "rowid", "stems")

    def __init__(self, ledger: Ledger, place: int, row: PatternRow) -> None:
        self._ledger = ledger
        self.place = place
        self.rowid, self.id, self.kind, self.domain, self._text, _, self.created_at = row
        self._body: dict[str, Any] | None = None
        self.stems: frozenset[str] | None = None
        """Of its words, where it was searched for."""

    @property
    def pattern_id(self) -> PatternId:
        return format_pattern_id(self.id)

    @property
    def body(self) -> Mapping[str, Any]:
        """What it consists of, as `extraction` made it."""
        if self._body is None:
            self._body = from_json(self._text)
        return self._body

    @property
    def tools(self) -> list[str]:
        """Of a sequence or a remedy, in order; of a decision or an error the one tool; of a context none."""
        tools: list[str] = self.body.get("tools", [])
        return tools

    @property
    def failed_tool(self) -> str | None:
        return self.body.get("failed_tool")

    @property
    def error(self) -> str | None:
        """The class of an error."""
        return self.body.get("error")

    @property
    def text(self) -> str:
        """One line for people."""
        body, course = self.body, " → ".join(self.tools)
        match self.kind:
            case "tool_sequence":
                return course
            case "decision_point":
                return f"{course}: {body['action']}"
            case "context_pattern":
                return f"{body['facet'].replace('_', ' ')}: {body['value']}"
            case "error_recovery":
                return f"{self._failure}; what helped: {course}"
            case "anti_pattern":
                return f"{course}, which did not succeed" if self.error is None else self._failure

    @property
    def _failure(self) -> str:
        return f"{self.failed_tool} failed: {self.error or 'no message'}"

    # --- what is known of it ---------------------------------------------------------------------

    @property
    def strength(self) -> float:
        """0...1, of its going with what it `goes_with`."""
        return self._ledger.strength(self.place)

    @property
    def promoted(self) -> bool:
        """Whether it counts; `extraction` says from when on."""
        return self._ledger.promoted(self.place)

    @property
    def goes_with(self) -> Literal["success", "failure"]:
        """Of an anti-pattern failure, of a context what it was seen with more often, of others success."""
        return self._ledger.goes_with(self.place)

    @property
    def standing(self) -> Standing:
        """All that is counted; the next ones are parts of it."""
        return self._ledger.standing(self.place)

    @property
    def occurrences(self) -> int:
        return self._ledger.occurrences(self.place)

    @property
    def successes(self) -> int:
        return self.standing.successes

    @property
    def failures(self) -> int:
        return self.standing.failures

    @property
    def last_seen(self) -> int:
        return self._ledger.last_seen(self.place)

    @property
    def feedback(self) -> Mapping[Applied, int]:
        """How often what was said of it; what was not said is not there."""
        return self._ledger.feedback(self.place)

    @property
    def episodes(self) -> list[int]:
        """The rowids of all episodes that have it, as a rule in the order in which they were learnt from."""
        return self._ledger.episodes(self.place)

    def latest(self, count: int) -> list[int]:
        """The last of them, newest first."""
        return self.episodes[: -count - 1 : -1]

    def entry(self) -> PatternEntry:
        body, standing, feedback = self.body, self.standing, self.feedback
        facet: Facet | None = body.get("facet")
        return PatternEntry(
            pattern_id=self.pattern_id,
            kind=self.kind,
            domain=self.domain,
            text=self.text,
            tools=self.tools,
            failed_tool=self.failed_tool,
            error=self.error,
            action=body.get("action"),
            facet=facet,
            value=body.get("value"),
            goes_with=self.goes_with,
            strength=self.strength,
            promoted=self.promoted,
            occurrences=standing.occurrences,
            successes=standing.successes,
            failures=standing.failures,
            feedback=Feedback(
                helped=feedback.get("helped", 0),
                no_effect=feedback.get("no_effect", 0),
                hindered=feedback.get("hindered", 0),
            ),
            task_types=list(standing.task_types),
            first_seen=standing.first_seen,
            last_seen=standing.last_seen,
        )
