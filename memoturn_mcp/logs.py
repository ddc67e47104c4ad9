"""Where log lines go and what they look like. Called by the entry points, once.

They go to stderr; in a log file each is a JSON object with `event`, `level` and `timestamp`, which `memoturn logs`
reads.
"""

from __future__ import annotations

import json as json_text
import logging
import sys
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path

import structlog

from memoturn_schemas.errors import InvalidRequest

FILE_BYTES = 10 << 20
FILES_BEFORE = 4
"""Beside the log file: `FILE.1`, which it followed, to `FILE.4`."""


def configure_logging(level: str, *, json: bool, file: Path | None = None) -> None:
    """Send every log line to stderr, for stdout belongs to the protocol or to the command's output, and to `file`.

    Raises:
        InvalidRequest: the file cannot be written.
    """
    threshold = getattr(logging, level.upper())
    logging.basicConfig(stream=sys.stderr, level=max(threshold, logging.WARNING), format="%(name)s: %(message)s")
    renderer = structlog.processors.JSONRenderer() if json else structlog.dev.ConsoleRenderer(colors=False)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.format_exc_info,
            *([] if file is None else [_into(file)]),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def _into(file: Path) -> structlog.typing.Processor:
    """Has the file get our events, by the processor, and what libraries log."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handler = RotatingFileHandler(file, maxBytes=FILE_BYTES, backupCount=FILES_BEFORE, encoding="utf-8")
    except OSError as error:
        raise InvalidRequest(f"MEMOTURN_LOG_FILE: {file} cannot be written: {error.strerror}") from None
    handler.setFormatter(_Lines())
    logging.getLogger().addHandler(handler)
    render = structlog.processors.JSONRenderer()

    def write(
        logger: structlog.typing.WrappedLogger, name: str, event: structlog.typing.EventDict
    ) -> structlog.typing.EventDict:
        handler.handle(logging.makeLogRecord({"name": _OURS, "msg": render(logger, name, dict(event))}))
        return event

    return write


_OURS = "memoturn.events"
"""The name of records whose message is the line."""


class _Lines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        if record.name == _OURS:
            return str(record.msg)
        event = {
            "logger": record.name,
            "event": record.getMessage(),
            "level": record.levelname.lower(),
            "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat().replace("+00:00", "Z"),
        }
        if record.exc_info:
            event["exception"] = self.formatException(record.exc_info)
        return json_text.dumps(event)
