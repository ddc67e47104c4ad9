"""All operations of the program, in the order in which surfaces list them."""

from __future__ import annotations

from memoturn_core import branches, databases, durability, health
from memoturn_core.access import minting
from memoturn_core.code import execute
from memoturn_core.documents import documents
from memoturn_core.episodes import (
    bulk,
    checkpoints,
    completion,
    episodes,
    handoff,
    listing,
    relationships,
    steps,
    tags,
    timeline,
)
from memoturn_core.episodes import query as experience
from memoturn_core.episodes.patterns import analysis, effectiveness, evaluation, feedback, playbook, recommend
from memoturn_core.episodes.patterns import search as pattern_search
from memoturn_core.kv import store as kv
from memoturn_core.memory import ingest, language, merging, recall, records, sessions, transcript
from memoturn_core.operations import DECLARED, Operation
from memoturn_core.portability import backups
from memoturn_core.portability import records as portability
from memoturn_core.sql import query
from memoturn_core.vectors import collections as vectors

_MODULES = (
    *(recall, ingest, records, transcript, sessions, language),
    *(query, documents, kv, vectors),
    *(episodes, steps, completion, listing, bulk),
    *(timeline, tags, relationships, checkpoints, handoff),
    *(analysis, pattern_search),
    *(recommend, feedback, playbook, effectiveness, evaluation),
    experience,
    *(portability, backups),
    *(branches, merging, durability, databases, minting, health),
    execute,
)

OPERATIONS: dict[str, Operation] = {
    name: operation
    for module in _MODULES
    for name, operation in DECLARED.items()
    if operation.handler.__module__ == module.__name__
}
