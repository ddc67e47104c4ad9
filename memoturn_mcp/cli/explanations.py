"""What recall says of itself with `--explain`, as lines for people. Pure functions, called by `tables`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

_MISSING = {
    "no_embedder": "this node has no embedder",
    "no_query": "there was no text to embed",
    "embedder_failed": "the embedder failed",
    "other_space": "the query's vector is of another dimension or model than the memories'",
    "none_stored": "no memory has one to compare",
}
_BY_REQUEST = "request"


def of_hit(explanation: Mapping[str, Any]) -> str:
    """Where it was found, what made its score, and by which words."""
    ranks = ", ".join(f"{channel} {_rank(found)}" for channel, found in explanation["channels"].items())
    parts = ", ".join(f"{name} {value:+.4f}" for name, value in explanation["contributions"].items())
    words = ", ".join(
        f"{term['word']}{' (nearby)' if term.get('nearby') else ''} {term['score']:.4f}"
        for term in explanation["terms"]
    )
    return "\n".join(
        line for line in (f"found by: {ranks}", f"score: {parts}", f"words: {words}" if words else "") if line
    )


def _rank(found: Mapping[str, Any]) -> str:
    return f"#{found['rank']}" + (f" (cosine {found['cosine']:.3f})" if "cosine" in found else "")


def of_recall(explained: Mapping[str, Any], age: Callable[[int], str]) -> list[str]:
    """What was looked up and filtered, and what became of the memory that was asked about.

    `age` puts a time in Unix milliseconds into words.
    """
    left_out = f"; left out: {' '.join(explained['left_out'])}" if explained["left_out"] else ""
    removed = ", ".join(f"{count} by {name}" for name, count in explained["removed"].items())
    lines = [
        f"looked up: {' '.join(explained['words']) or 'no words'}{left_out}",
        f"vectors: {_vector(explained['vector'])}",
        f"candidates: {explained['candidates']}" + (f", filtered out: {removed}" if removed else ""),
    ]
    if "memory" in explained:
        lines.append(f"the memory: {_outcome(explained['memory'], age)}")
    return lines


def _vector(vector: Mapping[str, Any]) -> str:
    if "missing" in vector:
        return f"none, {_MISSING[vector['missing']]}"
    return "as given" if vector["by"] == _BY_REQUEST else f"by {vector['by']}"


def _outcome(memory: Mapping[str, Any], age: Callable[[int], str]) -> str:
    also = f"; also kept out by {', '.join(memory['filters'])}" if memory.get("filters") else ""
    match memory["outcome"]:
        case "found":
            return f"found, as #{memory['rank']}"
        case "beyond_k" if "rank" in memory:
            return f"matches, but only as #{memory['rank']} (score {memory['score']:.4f})\n" + of_hit(
                memory["explanation"]
            )
        case "beyond_k":
            return "matches, but too many others rank before it"
        case "superseded":
            return f"superseded {age(memory['superseded_at'])} by {memory['superseded_by'] or 'another'}{also}"
        case "expired":
            return f"expired {age(memory['expires_at'])}{also}"
        case "filtered":
            return f"kept out by {', '.join(memory['filters'])}"
        case "not_matching":
            return f"has no word of the query{_distance(memory)}"
        case _:
            return "there is no such memory"


def _distance(memory: Mapping[str, Any]) -> str:
    if "cosine" in memory:
        return f", and is not near: cosine {memory['cosine']:.3f}, the last that counts {memory['least_cosine']:.3f}"
    return ", and no vector to compare" if memory.get("embedded") is False else ""
