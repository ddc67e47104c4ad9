"""`memoturn health` and `memoturn monitor`: what a node that runs says about itself.

Asked is the node at --url, or the one that listens where this configuration has it listen. Called by `main`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import count as counting
from typing import TYPE_CHECKING, Annotated, Any

import typer

from memoturn_mcp.cli.flags import Format, Reach, on_a_terminal, on_a_url
from memoturn_schemas.errors import InvalidRequest, Unavailable

if TYPE_CHECKING:
    from memoturn_core.operations import Reply
    from memoturn_mcp.cli.reach import Ask

Sample = dict[str, Any]
"""An answer of `get_metrics`."""
Show = Callable[[Sample, Sample | None], None]
"""Shows a sample; also takes the one before it."""


@on_a_url
def health(reach: Reach, output: Format | None) -> None:
    """Ask a node whether it works as it should; the exit code is 1 where it does not."""
    from memoturn_mcp.cli.output import show

    reply = _of_a_node(reach, lambda ask: ask("health_check", {}))
    show("health_check", reply, output)
    if reply.value["status"] != "ok":
        raise SystemExit(1)


@on_a_url
def monitor(
    reach: Reach,
    output: Format | None,
    interval: Annotated[float, typer.Option("--interval", metavar="SECONDS", min=0.1, help="Between two looks.")] = 2.0,
    count: Annotated[
        int | None, typer.Option("--count", metavar="COUNT", min=1, help="How many looks; until Ctrl-C by default.")
    ] = None,
) -> None:
    """Show what a node measures about itself, again and again: a table on a terminal, lines elsewhere."""

    async def watch(ask: Ask) -> Reply:
        earlier: Sample | None = None
        with _screen(output) as show:
            for number in counting(1):
                reply = await ask("get_metrics", {})
                sample = dict(reply.value)
                show(sample, earlier)
                if number == count:
                    break
                earlier = sample
                await asyncio.sleep(interval)
        return reply

    _of_a_node(reach, watch)


@contextmanager
def _screen(output: Format | None) -> Iterator[Show]:
    from memoturn_mcp.cli.output import as_data, write
    from memoturn_mcp.cli.tables_of_node import line, monitored

    if output in (Format.JSON, Format.YAML):
        head = "---\n" if output is Format.YAML else ""
        yield lambda sample, _: write(head + as_data(sample, output), "utf-8")
    elif not on_a_terminal():
        yield lambda sample, earlier: write(line(sample, earlier) + "\n")
    else:
        from rich.live import Live

        with Live(auto_refresh=False) as live:
            yield lambda sample, earlier: live.update(monitored(sample, earlier), refresh=True)


def _of_a_node(reach: Reach, work: Callable[[Ask], Awaitable[Reply]]) -> Reply:
    from memoturn_mcp.cli.reach import run, settings_of
    from memoturn_mcp.settings import Settings

    def listening(settings: Settings) -> str:
        if settings.port == 0:
            raise InvalidRequest("--url: say which node, for MEMOTURN_LISTEN leaves the port to the system")
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)  # noqa: S104
        return f"http://[{host}]:{settings.port}" if ":" in host else f"http://{host}:{settings.port}"

    settings = settings_of(url=reach.url)
    try:
        return run(replace(reach, url=settings.url or listening(settings)), work)
    except Unavailable as error:
        error.__notes__ = ["`memoturn serve` starts a node; `memoturn doctor` checks this machine without one"]
        raise
