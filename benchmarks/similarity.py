"""What hints at similar memories are worth: `similar` of ingest beside what a reader says of the same pairs.

    python -m benchmarks.similarity DIRECTORY [--embedder]

DIRECTORY holds LoCoMo's conversations as `{number}.json`. The memories of a profile are all that the data set states of
one conversation: its observations, then its events, which mostly say again what an observation said. They are kept one
by one through the public operation. Judged by a reader are all pairs with half of their words in common, or 0.44 of
these words' weights (inverse document frequency), and all that were hinted at: whether both say the same of the same
person, be it with more or less detail. `precision` is the share of the hinted pairs that do; `recall` the share that is
hinted at of the pairs that are known to, which leaves out what has few words in common.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from memoturn_core.address import Address
from memoturn_core.caller import LOCAL
from memoturn_core.invoke import invoke
from memoturn_core.node import Node
from memoturn_core.providers.local import LocalEmbedder
from memoturn_core.registry import OPERATIONS
from memoturn_mcp.logs import configure_logging
from memoturn_storage.ambient import SystemAmbient
from memoturn_storage.connection import turn_lookaside_off
from memoturn_storage.engine import Limits
from memoturn_storage.objects.memory import MemoryStore

Pair = tuple[int, int]

SAME = {
    "26": """
        15-186 24-27 30-36 62-191 77-192 82-193 112-199 131-201 154-204 163-164 164-206 165-205 173-208
    """,
    "30": """
        0-50 0-171 3-169 27-41 30-114 30-126 31-33 31-140 50-171 51-180 60-181 64-182 82-184 86-122 98-185 100-186
        106-110 111-187 114-126 128-189 129-168 136-137 140-149 146-192 152-196 156-162 160-195
    """,
    "41": """
        0-70 0-328 3-326 4-326 7-333 10-334 16-331 18-336 20-337 24-342 61-70 61-269 61-281 61-328 68-349 70-257
        70-269 70-328 77-357 80-85 90-358 108-363 116-366 117-225 126-368 140-373 153-377 160-379 209-394 215-391
        228-395 237-238 241-397 245-400 248-401 257-328 267-407 269-328 278-410 280-298 288-411
    """,
    "42": """
        9-17 9-267 28-272 35-271 61-84 65-281 72-284 74-285 85-86 92-290 116-148 120-298 129-300 135-301 139-302
        157-312 175-315 184-232 190-320 195-323 203-321 213-329 234-331 242-335 254-341 256-337 274-329 317-326
    """,
    "43": """
        3-267 6-270 14-226 15-273 17-275 18-271 25-277 28-278 30-279 44-283 59-288 61-290 67-291 75-294 77-295 108-303
        115-305 125-307 156-315 190-326 210-330 229-335 232-333 250-338 254-280 259-341 304-323
    """,
}
"""Pairs that say the same, by the numbers of their memories."""

OTHER = {
    "26": """
        104-109 106-197 189-202
    """,
    "30": """
        0-45 2-5 12-70 17-115 18-69 31-32 33-163 39-103 45-50 45-169 45-171 69-76 99-129 115-163 120-126 126-140
        131-178 141-147
    """,
    "41": """
        7-70 7-328 51-58 52-214 59-232 61-265 68-358 70-333 70-362 70-378 86-218 152-160 153-160 153-379 189-197
        218-225 255-403 328-333 328-362 328-378 377-379 414-416
    """,
    "42": """
        29-30 32-149 32-152 32-153 46-108 46-114 47-207 54-94 54-114 54-148 58-64 73-326 94-102 106-111 108-114
        111-209 114-148 149-153 163-207 207-296 207-304 207-314 207-334 207-339 218-328 267-269 271-273 271-330
        279-294 283-286 283-304 286-304 286-334 289-295 296-304 296-320 296-334 303-318 304-320 304-334 320-334
    """,
    "43": """
        3-279 14-66 83-88 107-113 111-164 165-172 204-210 258-280 272-279 280-298
    """,
}
"""Pairs that look so and do not."""


def statements(data: dict[str, Any]) -> Iterator[str]:
    """All that is stated of a conversation: observations in their order, then events."""
    sessions = [key.removesuffix("_date_time") for key in data if key.endswith("_date_time")]
    for session in sessions:
        for observations in data.get(f"{session}_observation", {}).values():
            yield from (statement for statement, _ in observations)
    for session in sessions:
        for events in data.get(f"events_{session}", {}).values():
            if isinstance(events, list):
                yield from events


async def hints(node: Node, profile: str, texts: list[str]) -> set[Pair]:
    """Keep the texts one by one; the pairs that are hinted at, the earlier first."""
    numbers: dict[str, int] = {}
    pairs = set()
    for number, text in enumerate(texts):
        if not text.strip():
            continue
        memory = {"type": "event", "summary": text, "content": {"number": number}}
        done = await invoke(
            node, OPERATIONS["memory_ingest"], Address.of_profile("bench", profile), {"memories": [memory]}, LOCAL
        )
        [result] = done.value["results"]
        numbers[result["id"]] = number
        pairs |= {(numbers[similar], number) for similar in result.get("similar", [])}
    return pairs


def pairs_of(judged: str) -> set[Pair]:
    return {(int(first), int(second)) for first, _, second in (pair.partition("-") for pair in judged.split())}


async def main(files: Sequence[Path], *, embedder: LocalEmbedder | None) -> None:
    print("| conversation | memories | hinted | the same | precision | recall | not judged |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    total = [0] * 5
    with tempfile.TemporaryDirectory() as place:
        node = Node.open(Path(place), store=MemoryStore(SystemAmbient()), limits=Limits(threads=0), embedder=embedder)
        for path in files:
            texts = list(statements(json.loads(path.read_text(encoding="utf-8"))))
            hinted = await hints(node, path.stem, texts)
            same, other = pairs_of(SAME[path.stem]), pairs_of(OTHER[path.stem])
            unknown = sorted(hinted - same - other)
            row = [len(texts), len(hinted), len(hinted & same), len(same), len(unknown)]
            total = [sum(column) for column in zip(total, row, strict=True)]
            print(line(path.stem, row), *(f"{first}-{second}" for first, second in unknown))
        await node.close()
    print(line("all", total))


def line(name: str, row: list[int]) -> str:
    memories, hinted, right, same, unknown = row
    judged = hinted - unknown
    precision, recall = right / judged if judged else 1.0, right / same
    return f"| {name} | {memories} | {hinted} | {right} | {precision:.2f} | {recall:.2f} | {unknown} |"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--embedder", action="store_true", help="with all-MiniLM-L6-v2 in this process")
    arguments = parser.parse_args()
    turn_lookaside_off()
    configure_logging("warning", json=False)
    local = LocalEmbedder(60.0) if arguments.embedder else None
    asyncio.run(main(sorted(arguments.directory.glob("*.json")), embedder=local))
