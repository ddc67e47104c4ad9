"""A plain model of what the contract says on supersession, duplicates, revival, expiry, sessions and turns."""

from __future__ import annotations

import hashlib
import itertools
import json
from dataclasses import dataclass, field
from typing import Any


def id_of(memory: dict[str, Any]) -> str:
    content = json.dumps(memory.get("content"), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    identity = "\0".join([memory["type"], memory.get("topic_key") or "", content])
    return "mem_" + hashlib.sha256(identity.encode()).hexdigest()[:32]


@dataclass
class Kept:
    """A memory that has a row. `order` is the order in which rows were made."""

    id: str
    order: int
    type: str
    topic_key: str | None
    summary: str
    content: Any
    keywords: str
    session_id: str | None
    source: str | None
    created_at: int
    expires_at: int | None
    embedding: list[float] | None
    superseded_at: int | None = None
    superseded_by: str | None = None

    def expired(self, now: int) -> bool:
        return self.expires_at is not None and self.expires_at <= now

    def shares_a_word_with(self, query: str) -> bool:
        stored = f"{self.summary} {self.keywords}".replace("\0", " ").replace(",", " ").split()
        return bool(set(stored) & set(query.split()))


@dataclass
class Model:
    """The contract, sections 1 and 3, in as few words as it takes. Times in milliseconds."""

    exists: bool = False
    txid: int = 0
    kept: dict[str, Kept] = field(default_factory=dict)
    sessions: dict[str, list[int]] = field(default_factory=dict)
    """Id to `[created_at, last_active_at]`, in the order in which they were listed first."""
    turns: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    dimension: int | None = None
    orders: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def ingest(self, batch: list[dict[str, Any]], now: int) -> list[dict[str, Any]]:
        self.exists = self.exists or bool(batch)
        before = dict(self.sessions)
        results = [self._assert(memory, now) for memory in batch]
        for memory, result in zip(batch, results, strict=True):
            if memory.get("session_id") is not None:
                self._touch(memory["session_id"], now, active=result["status"] != "duplicate")
        if any(result["status"] != "duplicate" for result in results) or self.sessions.keys() != before.keys():
            self.txid += 1
        return results

    def _assert(self, memory: dict[str, Any], now: int) -> dict[str, Any]:
        id_ = id_of(memory)
        known = self.kept.get(id_)
        if known is not None and known.superseded_at is not None:
            result = {"id": id_, "status": "revived", "superseded": self._supersede(known, now)}
            known.superseded_at = known.superseded_by = None
            return result
        if known is not None and not known.expired(now):
            return {"id": id_, "status": "duplicate", "superseded": []}
        ttl = memory.get("ttl")
        new = Kept(
            id=id_,
            order=next(self.orders),
            type=memory["type"],
            topic_key=memory.get("topic_key") or None,
            summary=memory["summary"],
            content=memory.get("content"),
            keywords=memory.get("keywords") or "",
            session_id=memory.get("session_id"),
            source=known.source if known else memory.get("source"),
            created_at=now,
            expires_at=now + 1_000 * (86_400 if ttl is None else ttl) if memory["type"] == "task" else None,
            embedding=memory.get("embedding"),
        )
        result = {"id": id_, "status": "revived" if known else "created", "superseded": self._supersede(new, now)}
        if not self.accepts(new.embedding):
            new.embedding = None
            result["embedding"] = "skipped_dimension"
        self.kept[id_] = new
        return result

    def _supersede(self, by: Kept, now: int) -> list[str]:
        replaced = [
            memory
            for memory in self.kept.values()
            if by.topic_key is not None
            and (memory.type, memory.topic_key, memory.superseded_at) == (by.type, by.topic_key, None)
        ]
        for memory in replaced:
            memory.superseded_at, memory.superseded_by = now, by.id
        return [memory.id for memory in replaced]

    def accepts(self, embedding: list[float] | None) -> bool:
        if embedding is not None and self.dimension is None:
            self.dimension = len(embedding)
        return embedding is None or len(embedding) == self.dimension

    def _touch(self, session: str, now: int, *, active: bool) -> None:
        known = self.sessions.setdefault(session, [now, now])
        if active:
            known[1] = now

    def append(self, session: str, content: str, embedding: list[float] | None, now: int) -> dict[str, Any]:
        self.exists = True
        self.txid += 1
        accepted = self.accepts(embedding)
        turns = self.turns.setdefault(session, [])
        turns.append(
            {
                "session_id": session,
                "seq": len(turns) + 1,
                "role": "user",
                "content": content,
                "created_at": now,
                "embedding": embedding if accepted else None,
            }
        )
        self._touch(session, now, active=True)
        answer: dict[str, Any] = {"seq": len(turns), "txid": self.txid}
        return answer if accepted else {**answer, "embedding": "skipped_dimension"}

    def end(self, session: str, *, turns: bool) -> None:
        gone = [memory.id for memory in self.kept.values() if memory.type == "task" and memory.session_id == session]
        changed = bool(gone) or session in self.sessions or (turns and session in self.turns)
        for id_ in gone:
            del self.kept[id_]
        self.sessions.pop(session, None)
        if turns:
            self.turns.pop(session, None)
        self.txid += changed

    def forget(self, id_: str, now: int) -> bool:
        if id_ not in self.kept or self.kept[id_].expired(now):
            return False
        del self.kept[id_]
        self.txid += 1
        return True

    def listing(self, now: int) -> list[dict[str, Any]]:
        listed = [
            {
                "id": session,
                "created_at": created_at,
                "last_active_at": last_active_at,
                "turns": len(self.turns.get(session, [])),
                "tasks": sum(
                    memory.type == "task" and memory.session_id == session and not memory.expired(now)
                    for memory in self.kept.values()
                ),
            }
            for session, (created_at, last_active_at) in self.sessions.items()
        ]
        return sorted(listed, key=lambda entry: entry["last_active_at"])[::-1]

    def chain(self, of: Kept) -> list[dict[str, Any]]:
        generations = [
            memory
            for memory in self.kept.values()
            if memory is of or (of.topic_key and (memory.type, memory.topic_key) == (of.type, of.topic_key))
        ]
        return [
            {name: getattr(memory, name) for name in ("id", "summary", "created_at", "superseded_at")}
            for memory in sorted(generations, key=lambda memory: (memory.created_at, memory.order))
        ]


CORE = (
    "id", "type", "topic_key", "summary", "content", "keywords", "session_id", "source", "created_at", "superseded_by"
)  # fmt: skip


def core(memory: Kept) -> dict[str, Any]:
    return {name: getattr(memory, name) for name in CORE}
