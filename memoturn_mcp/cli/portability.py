"""`memoturn export` and `memoturn import`: everything that a profile holds, as lines of JSON. Called by `main`.

Both go page by page through operations, here or at a node, and hold no more than a page in memory.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer

from memoturn_mcp.cli.flags import AsOf, Format, Reach, as_moment, on_a_branch
from memoturn_schemas.errors import AlreadyExists, InvalidRequest, MemoturnError, Unavailable

if TYPE_CHECKING:
    from memoturn_core.operations import Reply
    from memoturn_mcp.cli.reach import Ask

_BATCH = 500
_BATCH_BYTES = 1 << 20
"""Of lines in one transaction: few, for others wait for it."""


@on_a_branch
def export(
    reach: Reach,
    output: Format | None,
    out: Annotated[
        str | None, typer.Option("-o", "--out", metavar="FILE", help="Write to this file instead of stdout.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace FILE if it exists.")] = False,
    as_of: AsOf = None,
) -> None:
    """Write everything that a profile holds as JSON Lines, of one moment, to read or to import elsewhere."""
    from memoturn_mcp.cli.output import BROKEN_PIPE, show, show_txid
    from memoturn_mcp.cli.reach import run

    if out is None and output is not None:
        raise InvalidRequest("--format: leave it out without --out, for stdout is the export")
    moment = {} if as_of is None else {"as_of": as_moment("--as-of", as_of)}
    if out is None:
        try:
            # Not through stdout's own buffer: with PYTHONUNBUFFERED it has none and may write but a part.
            with open(sys.stdout.fileno(), "wb", closefd=False) as file:
                show_txid(run(reach, lambda ask: _export(ask, moment, file)))
        except BrokenPipeError:
            raise SystemExit(BROKEN_PIPE) from None
        return
    target = Path(out)
    temporary = target.with_name(f".{target.name}.tmp")
    if target.exists() and not force:
        refused = AlreadyExists(f"--out: {out} exists")
        refused.add_note("--force replaces it")
        raise refused
    try:
        temporary.unlink(missing_ok=True)
        temporary.touch(mode=0o600)  # nobody but the owner may read memories
        with temporary.open("wb") as file:
            reply = run(reach, lambda ask: _export(ask, moment, file))
        temporary.replace(target)
    except OSError as error:
        raise Unavailable(f"--out: {out} cannot be written: {error.strerror}") from None
    finally:
        temporary.unlink(missing_ok=True)
    show("export", reply, output)


async def _export(ask: Ask, moment: Mapping[str, Any], file: BinaryIO) -> Reply:
    import orjson

    from memoturn_core.operations import Reply

    arguments, records = dict(moment), 0
    while True:
        reply = await ask("export_records", arguments)
        for record in reply.value["records"]:
            file.write(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE))
        records += len(reply.value["records"])
        if "next_cursor" not in reply.value:
            return Reply({"records": records - 2, "bytes": file.tell() if file.seekable() else None}, reply.txid)
        arguments = {"cursor": reply.value["next_cursor"]}


@on_a_branch
def import_(
    reach: Reach,
    output: Format | None,
    file: Annotated[str, typer.Argument(metavar="FILE", help="An export; - is stdin.")],
) -> None:
    """Add what an export holds to a profile; what is there already stays as it is.

    Ends with code 1 where a line was refused, or where the file was cut off. To go on after an interruption,
    or once refused lines are right, import the same file again.
    """
    from memoturn_mcp.cli.output import show
    from memoturn_mcp.cli.reach import run

    try:
        with sys.stdin.buffer if file == "-" else Path(file).open("rb") as lines:
            reply = run(reach, lambda ask: _import(ask, lines))
    except OSError as error:
        raise InvalidRequest(f"FILE: cannot read {file}: {error.strerror}") from None
    show("import", reply, output)
    if reply.value["refused"] or not reply.value["complete"]:
        raise typer.Exit(1)


async def _import(ask: Ask, lines: BinaryIO) -> Reply:
    from memoturn_core.operations import Reply

    imported: Counter[str] = Counter()
    unchanged: Counter[str] = Counter()
    refused: list[dict[str, Any]] = []
    reading = _Reading(lines, refused)
    txid = None
    for batch in reading.batches():
        try:
            reply = await ask("import_records", {"records": [record for _, record in batch]})
        except MemoturnError as error:
            error.add_note(f"everything before line {batch[0][0]} is imported; the same command goes on from there")
            raise
        txid = reply.txid
        imported.update(reply.value["imported"])
        unchanged.update(reply.value["unchanged"])
        for each in reply.value["refused"]:
            refused.append({"line": batch[each["index"]][0], "kind": each["kind"], "reason": each["reason"]})
    refused.sort(key=lambda each: each["line"])
    value = {
        "imported": dict(imported),
        "unchanged": dict(unchanged),
        "refused": refused,
        "complete": reading.complete,
    }
    return Reply(value, txid)


class _Reading:
    """The lines of an export, in batches; those that are no JSON are refused at once."""

    def __init__(self, lines: BinaryIO, refused: list[dict[str, Any]]) -> None:
        self._lines = lines
        self._refused = refused
        self.complete = False
        """Whether the last line was there."""

    def batches(self) -> Iterator[list[tuple[int, Any]]]:
        """Records with the numbers of their lines."""
        batch: list[tuple[int, Any]] = []
        size = 0
        for number, line in enumerate(self._lines, start=1):
            if number == 1:
                self._check_header(line)
                continue
            record = self._record(number, line)
            if record is None:
                continue
            if batch and (len(batch) == _BATCH or size + len(line) > _BATCH_BYTES):
                yield batch
                batch, size = [], 0
            batch.append((number, record))
            size += len(line)
        if batch:
            yield batch

    def _record(self, number: int, line: bytes) -> Any:
        import orjson

        if not line.strip():
            return None
        try:
            record = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            self._refused.append({"line": number, "kind": "", "reason": f"is not valid JSON: {error}"})
            return None
        if isinstance(record, dict) and record.get("kind") == "end":
            self.complete = True
            return None
        return record

    def _check_header(self, line: bytes) -> None:
        import orjson

        from memoturn_core.portability.importing import check_header

        try:
            record = orjson.loads(line)
        except orjson.JSONDecodeError:
            record = None
        if not isinstance(record, dict) or record.get("kind") != "header":
            raise InvalidRequest('FILE: is no export: its first line should be {"kind": "header", "format": 1}')
        check_header(record)
