"""All operations of the program, in the order in which surfaces list them."""

from __future__ import annotations

from memoturn_core import branches, databases, durability, health
from memoturn_core.access import minting
from memoturn_core.documents import documents
from memoturn_core.kv import store as kv
from memoturn_core.memory import ingest, language, merging, recall, records, sessions, transcript
from memoturn_core.operations import DECLARED, Operation
from memoturn_core.sql import query
from memoturn_core.vectors import collections as vectors

_MODULES = (
    *(recall, ingest, records, transcript, sessions, language),
    *(query, documents, kv, vectors),
    *(branches, merging, durability, databases, minting, health),
)

OPERATIONS: dict[str, Operation] = {
    name: operation
    for module in _MODULES
    for name, operation in DECLARED.items()
    if operation.handler.__module__ == module.__name__
}
