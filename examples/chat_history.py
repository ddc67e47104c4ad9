"""Give an agent the memory of a long conversation, then ask it questions.

    python examples/chat_history.py [FILE] [--show N]

FILE is a conversation in LoCoMo's layout (`session_1`, `session_1_date_time`, ..., `qa` with evidence);
without one a small conversation beside this file is used. Starts `memoturn-mcp` as an MCP client would,
ingests every turn as a memory and as transcript, recalls for every question, and prints what was found,
how well and how fast. Exits with an error where the small conversation is not answered fully.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client

OWN = Path(__file__).parent / "data" / "conversation.json"
DEPTH = 10


@dataclass(frozen=True, slots=True)
class Turn:
    id: str
    session: str
    date: str
    speaker: str
    text: str

    def memory(self) -> dict[str, Any]:
        return {
            "type": "event",
            "summary": f"{self.speaker}: {self.text}",
            "content": {"turn": self.id, "date": self.date, "text": self.text},
            "keywords": self.date,
            "session_id": self.session,
            "source": self.speaker,
        }


@dataclass
class Report:
    ranks: list[int | None] = field(default_factory=list)
    ingest_ms: list[float] = field(default_factory=list)
    append_ms: list[float] = field(default_factory=list)
    recall_ms: list[float] = field(default_factory=list)

    def recall_at(self, k: int) -> float:
        return sum(rank is not None and rank <= k for rank in self.ranks) / len(self.ranks)

    def mean_reciprocal_rank(self) -> float:
        return sum(1 / rank for rank in self.ranks if rank is not None) / len(self.ranks)


def turns_of(conversation: dict[str, Any]) -> Iterator[Turn]:
    for number in range(1, 1 + sum(re.fullmatch(r"session_\d+", key) is not None for key in conversation)):
        session = f"session_{number}"
        for turn in conversation.get(session, []):
            text = " ".join(part for part in (turn["text"], turn.get("blip_caption")) if part)
            yield Turn(turn["dia_id"], session, conversation[f"{session}_date_time"], turn["speaker"], text)


def questions_of(conversation: dict[str, Any]) -> Iterator[tuple[str, str, set[str]]]:
    """Question, answer, and the ids of the turns that hold it; questions without evidence are left out."""
    for each in conversation["qa"]:
        evidence = set(re.findall(r"D\d+:\d+", " ".join(each.get("evidence") or [])))
        if evidence:
            yield each["question"], str(each.get("answer", "")), evidence


async def call(client: Client, times: list[float], tool: str, **arguments: Any) -> Any:
    started = time.perf_counter()
    answer = await client.call_tool(tool, arguments)
    times.append((time.perf_counter() - started) * 1e3)
    if answer.is_error or answer.structured_content is None:
        raise RuntimeError(f"{tool}: {answer.content}")
    return answer.structured_content["result"]


async def run(conversation: dict[str, Any], directory: str, show: int) -> Report:
    report = Report()
    turns = list(turns_of(conversation))
    server = StdioServerParameters(
        command=sys.executable,
        args=["-m", "memoturn_mcp"],
        env={**os.environ, "MEMOTURN_DATA_DIR": directory, "MEMOTURN_NAMESPACE": "example", "MEMOTURN_PROFILE": "chat"},
    )
    async with Client(stdio_client(server)) as client:
        for start in range(0, len(turns), 100):
            memories = [turn.memory() for turn in turns[start : start + 100]]
            await call(client, report.ingest_ms, "memory_ingest", memories=memories)
        for turn in turns:
            arguments = {"session": turn.session, "role": turn.speaker, "content": turn.text}
            await call(client, report.append_ms, "memory_append", **arguments)
        for question, answer, evidence in questions_of(conversation):
            found = await call(
                client, report.recall_ms, "memory_recall", query=question, k=DEPTH, response_format="detailed"
            )
            ids = [memory["content"]["turn"] for memory in found["memories"]]
            rank = next((position for position, id_ in enumerate(ids, start=1) if id_ in evidence), None)
            report.ranks.append(rank)
            if len(report.ranks) <= show:
                first = found["memories"][0]["summary"] if ids else "nothing"
                print(f"Q: {question}\n   expected: {answer}\n   recalled: {first}\n   evidence at rank: {rank}\n")
    return report


def median_and_worst(times: list[float]) -> str:
    ordered = sorted(times)
    return f"p50 {ordered[len(ordered) // 2]:.1f} ms, p99 {ordered[int(len(ordered) * 0.99)]:.1f} ms"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", type=Path, default=OWN)
    parser.add_argument("--show", type=int, default=5, metavar="N", help="questions to print in full")
    arguments = parser.parse_args()
    conversation = json.loads(arguments.file.read_text(encoding="utf-8"))
    # A file of the data set holds the conversation itself or wraps it.
    conversation = {**conversation, **conversation.get("conversation", {})}
    with tempfile.TemporaryDirectory() as directory:
        report = asyncio.run(run(conversation, directory, arguments.show))
    print(f"{len(report.append_ms)} turns, {len(report.ranks)} questions with evidence")
    print(f"evidence among the first 5: {report.recall_at(5):.3f}, the first 10: {report.recall_at(10):.3f}")
    print(f"mean reciprocal rank: {report.mean_reciprocal_rank():.3f}")
    print(f"ingest, 100 memories a call: {median_and_worst(report.ingest_ms)}")
    print(f"append, a turn a call:       {median_and_worst(report.append_ms)}")
    print(f"recall of {DEPTH}:                {median_and_worst(report.recall_ms)}")
    if arguments.file == OWN and report.recall_at(5) < 1:
        raise SystemExit("a question of the small conversation was not answered")


if __name__ == "__main__":
    main()
