"""All operations of the program, in the order in which surfaces list them."""

from __future__ import annotations

from memoturn_core import branches, durability, health
from memoturn_core.memory import ingest, language, recall, records, sessions, transcript
from memoturn_core.operations import DECLARED, Operation

_MODULES = (recall, ingest, records, transcript, sessions, language, branches, durability, health)

OPERATIONS: dict[str, Operation] = {
    name: operation
    for module in _MODULES
    for name, operation in DECLARED.items()
    if operation.handler.__module__ == module.__name__
}
