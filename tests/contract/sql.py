"""Plain databases by their route for SQL."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest

from contract.live_node import Live
from memoturn_core.address import Address
from memoturn_core.caller import Caller
from memoturn_core.invoke import invoke
from memoturn_core.operations import Scope
from memoturn_core.registry import OPERATIONS

_numbers = itertools.count(1)


class Database:
    """A plain database of the module's node that nobody has used."""

    def __init__(self, live: Live) -> None:
        self.live = live
        self.name = f"plain{next(_numbers)}"
        self.path = f"/v1/db/{self.name}"
        live.node.catalog.create(self.name)

    def post(self, *stmts: Any, at: str = "", **headers: str) -> Any:
        """Each statement is a text, or a text with its params."""
        return self.live.http.post(
            f"{self.path}{at}/sql", json={"stmts": [_statement(given) for given in stmts]}, headers=headers
        )

    def run(self, *stmts: Any, at: str = "") -> list[dict[str, Any]]:
        """The results of a batch that is certainly right."""
        response = self.post(*stmts, at=at)
        assert response.status_code == 200, response.text
        results: list[dict[str, Any]] = response.json()["results"]
        return results

    def rows(self, *stmts: Any, at: str = "") -> list[list[Any]]:
        """Those of the last statement."""
        rows: list[list[Any]] = self.run(*stmts, at=at)[-1]["rows"]
        return rows

    @property
    def txid(self) -> int:
        return int(self.post("SELECT 1").json()["txid"])

    def read(self, text: str) -> Any:
        """The same as a caller who may only read."""
        arguments = {"stmts": [{"q": text}]}
        address = Address.of_database(self.name)
        asked = invoke(self.live.node, OPERATIONS["query"], address, arguments, Caller(Scope.READ))
        return asyncio.run(asked)  # type: ignore[arg-type]


def _statement(given: Any) -> dict[str, Any]:
    return {"q": given} if isinstance(given, str) else {"q": given[0], "params": given[1]}


@pytest.fixture
def db(live: Live) -> Database:
    return Database(live)


NOTES = "CREATE TABLE notes(id INTEGER PRIMARY KEY, body)"
