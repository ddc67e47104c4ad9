"""Extraction by rules, beside the observations that LoCoMo makes of its conversations.

    python -m benchmarks.extraction DIRECTORY [--show COUNT]

DIRECTORY holds LoCoMo's conversations as `{number}.json`. Each session is extracted by itself, with the speakers' names
as roles. An observation is a statement about a session, with the turns it is made of.

covered     share of the observations of which a proposal of their session has at least `COVERED` of the content words:
            stems without stopwords and without the two speakers' names.
precision   share of the proposals that are made from a turn of which the session has an observation.
turns       share of those turns of which something is proposed.
per 100     proposals per 100 turns.

Beside the rules stand every sentence in the first person and every turn as it is: the latter's precision is what taking
turns at random has, and what it covers is what can be covered by words. `--show` prints proposals and where from.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.retrieval.corpora import TURN
from memoturn_core.memory.extraction.rules import statements
from memoturn_core.memory.text import STOPWORDS, stems
from memoturn_core.providers.language import Turn

COVERED = 0.5

Proposals = list[tuple[int, str]]
"""Place of the turn, and what is proposed."""

_SENTENCE = re.compile(r"[^.!?]+[.!?]*")
_FIRST_PERSON = re.compile(r"\b(?:I|I'm|I've|me|my|we|we're|our|us)\b", re.IGNORECASE)
_STOP_STEMS = frozenset(stem for word in STOPWORDS for stem in stems(word))


@dataclass(frozen=True, slots=True)
class Session:
    ids: Sequence[str]
    turns: Sequence[Turn]
    observations: Sequence[tuple[frozenset[str], frozenset[str]]]
    """Content words, and the ids of turns."""
    names: frozenset[str]


def by_rules(turns: Sequence[Turn]) -> Proposals:
    return [(found.turn, found.proposal.summary) for found in statements(turns)]


def by_first_person(turns: Sequence[Turn]) -> Proposals:
    return [
        (place, sentence)
        for place, turn in enumerate(turns)
        for sentence in _SENTENCE.findall(turn.content)
        if _FIRST_PERSON.search(sentence)
    ]


def by_turn(turns: Sequence[Turn]) -> Proposals:
    return [(place, turn.content) for place, turn in enumerate(turns)]


def sessions(data: dict[str, Any]) -> list[Session]:
    names = frozenset(stem for name in (data["speaker_a"], data["speaker_b"]) for stem in stems(name))
    found = []
    for key in (key for key in data if re.fullmatch(r"session_\d+", key)):
        observations = [
            (content_words(text, names), frozenset(f"D{session}:{turn}" for session, turn in TURN.findall(str(turns))))
            for of_speaker in data.get(f"{key}_observation", {}).values()
            for text, turns in of_speaker
        ]
        ids = [turn["dia_id"] for turn in data[key]]
        turns = [Turn(turn["speaker"], turn["text"]) for turn in data[key]]
        found.append(Session(ids, turns, observations, names))
    return found


def content_words(text: str, names: frozenset[str]) -> frozenset[str]:
    return frozenset(stems(text)) - _STOP_STEMS - names


def measured(given: Sequence[Session], extract: Callable[[Sequence[Turn]], Proposals]) -> str:
    """The cells of a row."""
    covered = observed = proposed = right = turns = told = evident = 0
    for session in given:
        proposals = extract(session.turns)
        evidence = frozenset(turn for _, turns in session.observations for turn in turns) & set(session.ids)
        said = [content_words(text, session.names) for _, text in proposals]
        of = [session.ids[place] for place, _ in proposals]
        covered += sum(
            any(len(wanted & words) >= COVERED * len(wanted) for words in said) for wanted, _ in session.observations
        )
        observed += len(session.observations)
        proposed += len(proposals)
        right += sum(turn in evidence for turn in of)
        told += len(evidence.intersection(of))
        evident += len(evidence)
        turns += len(session.turns)
    shares = (covered / observed, right / max(1, proposed), told / evident)
    return " | ".join([*(f"{share:.3f}" for share in shares), f"{100 * proposed / turns:.0f}"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--show", type=int, default=0, metavar="COUNT")
    options = parser.parse_args()
    loaded = {
        path.stem: sessions(json.loads(path.read_text())) for path in sorted(options.directory.glob("[0-9]*.json"))
    }
    every = [session for of_conversation in loaded.values() for session in of_conversation]
    print("| | covered | precision | turns | per 100 |\n| --- | --- | --- | --- | --- |")
    print(f"| **rules** | {measured(every, by_rules)} |")
    print(f"| every sentence in the first person | {measured(every, by_first_person)} |")
    print(f"| every turn | {measured(every, by_turn)} |")
    for name, of_conversation in loaded.items():
        print(f"| rules, conversation {name} | {measured(of_conversation, by_rules)} |")
    shown = (
        f"{'+' if any(session.ids[each.turn] in turns for _, turns in session.observations) else '-'}"
        f" {each.proposal.type:<11} {each.proposal.topic_key or '':<30} {each.proposal.summary}"
        for session in every
        for each in statements(session.turns)
    )
    print("\n".join(islice(shown, options.show)))


if __name__ == "__main__":
    main()
