"""Flags of the commands about episodes and what is learnt from them. Imports typer alone.

Called by `episode`, `pattern` and `evaluation`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer


class TaskType(StrEnum):
    """As `memoturn_schemas.episodes` has them, like the others here."""

    CODE_GENERATION = "code_generation"
    DEBUGGING = "debugging"
    REFACTORING = "refactoring"
    TESTING = "testing"
    ANALYSIS = "analysis"
    DOCUMENTATION = "documentation"
    OTHER = "other"


class Complexity(StrEnum):
    SIMPLE = "simple"
    MODERATE = "moderate"
    COMPLEX = "complex"


class Outcome(StrEnum):
    SUCCESS = "success"
    PARTIAL_SUCCESS = "partial_success"
    FAILURE = "failure"
    ABSTAINED = "abstained"


class State(StrEnum):
    SUCCESS = "success"
    PARTIAL_SUCCESS = "partial_success"
    FAILURE = "failure"
    ABSTAINED = "abstained"
    OPEN = "open"


class PatternKind(StrEnum):
    TOOL_SEQUENCE = "tool_sequence"
    DECISION_POINT = "decision_point"
    ERROR_RECOVERY = "error_recovery"
    CONTEXT_PATTERN = "context_pattern"
    ANTI_PATTERN = "anti_pattern"


class Preset(StrEnum):
    RESTRICTIVE = "restrictive"
    DEFAULT = "default"
    PERMISSIVE = "permissive"


class Applied(StrEnum):
    HELPED = "helped"
    NO_EFFECT = "no_effect"
    HINDERED = "hindered"
    PENDING = "pending"


EpisodeId = Annotated[str, typer.Argument(metavar="EPISODE", help="The episode's id.")]
Task = Annotated[str, typer.Argument(metavar="TASK", help="What is to be done, in plain words.")]
OfTaskType = Annotated[TaskType | None, typer.Option("--task-type", help="What kind of work it is.")]
Domain = Annotated[str | None, typer.Option("--domain", metavar="NAME", help="The field of the work, e.g. web-api.")]
Language = Annotated[str | None, typer.Option("--language", metavar="NAME", help="The programming language.")]
Framework = Annotated[str | None, typer.Option("--framework", metavar="NAME", help="The framework.")]
Tags = Annotated[list[str] | None, typer.Option("--tag", metavar="TAG", help="A label; may be given several times.")]
Session = Annotated[str | None, typer.Option("--session", metavar="ID", help="The conversation it belongs to.")]
Since = Annotated[str | None, typer.Option("--since", metavar="TIME", help="Only those that began then or later.")]
Until = Annotated[str | None, typer.Option("--until", metavar="TIME", help="Only those that began before.")]
OfKind = Annotated[PatternKind | None, typer.Option("--kind", help="Only patterns of this kind.")]
AtMost = Annotated[int | None, typer.Option("--limit", metavar="COUNT", help="How many at most.")]
