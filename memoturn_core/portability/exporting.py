"""A state as lines of JSON, one a record: what a person reads, and `importing` takes.

    {"kind": "header", "format": 1}
    {"kind": "memory", "id": "mem_…", "type": "fact", …}
    …
    {"kind": "end", "records": 1234}

The lines depend on nothing but the content: what is exported, imported into an empty database and exported again
is the same, byte for byte. A file without its last line was cut off. Called by `records` and `images`.
"""

from __future__ import annotations

from collections.abc import Iterator

import apsw
import orjson

from memoturn_core.portability.catalogue import KINDS
from memoturn_core.portability.kinds import Kind, Record
from memoturn_core.portability.tables import USER_KINDS

FORMAT = 1
HEADER, END = "header", "end"
ALL_KINDS: tuple[Kind, ...] = (*KINDS, *USER_KINDS)


def line(record: Record) -> bytes:
    return orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)


def lines(connection: apsw.Connection) -> Iterator[bytes]:
    """Everything that the state holds, which the connection must be reading all the while."""
    yield line({"kind": HEADER, "format": FORMAT})
    count = 0
    for kind in ALL_KINDS:
        for record in kind.records(connection):
            yield line({"kind": kind.name, **record})
            count += 1
    yield line({"kind": END, "records": count})
