"""All operations of the program, in the order in which surfaces list them."""

from __future__ import annotations

from memoturn_core import health
from memoturn_core.memory import ingest, language, recall, records, sessions, transcript
from memoturn_core.operations import OPERATIONS

# Importing a module declares its operations.
DECLARED_BY = (ingest, recall, records, transcript, sessions, language, health)

__all__ = ["DECLARED_BY", "OPERATIONS"]
