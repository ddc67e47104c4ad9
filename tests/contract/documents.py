"""Collections of documents by their routes."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from contract.live_node import Memory, event


class Docs:
    """A collection of a database, by its routes."""

    def __init__(self, memory: Memory, name: str = "things") -> None:
        self.memory = memory
        self.path = f"{memory.database}/docs/{name}"

    def post(self, what: str, **body: Any) -> httpx.Response:
        return self.memory.http.post(f"{self.path}/{what}", json=body)

    def insert(self, *docs: Any) -> list[str]:
        response = self.post("insert", docs=list(docs))
        assert response.status_code == 201, response.text
        ids: list[str] = response.json()["ids"]
        return ids

    def found(self, filter_: Any = None, **more: Any) -> list[dict[str, Any]]:
        """The documents of a find that is certainly right, without their ids."""
        asked = {} if filter_ is None else {"filter": filter_}
        response = self.post("find", **asked, **more)
        assert response.status_code == 200, response.text
        assert set(response.json()) == {"docs", "txid"}
        assert response.headers["Memoturn-Txid"] == str(response.json()["txid"])
        return [{key: value for key, value in doc.items() if key != "_id"} for doc in response.json()["docs"]]

    def changed(self, what: str, **body: Any) -> int:
        response = self.post(what, **body)
        assert response.status_code == 200, response.text
        [count] = set(response.json()) - {"txid"}
        assert count == {"update": "modified", "delete": "deleted"}[what]
        return int(response.json()[count])


@pytest.fixture
def docs(memory: Memory) -> Docs:
    memory.keep(event("Makes the database"))
    return Docs(memory)


def values(found: list[dict[str, Any]], key: str = "n") -> list[Any]:
    return [doc.get(key) for doc in found]
