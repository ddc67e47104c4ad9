"""Replies of the data plane and the control plane for people, as `tables` shows those of the memories.

Called by `tables`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from memoturn_mcp.cli.tables import age, count, plain, size, table

_LISTED_IDS = 50
"""Ids of inserted documents that are listed; more are only counted."""


def _page(listed: RenderableType, value: Mapping[str, Any]) -> RenderableType:
    if "next_cursor" not in value:
        return listed
    return Group(listed, plain(f"there are more: --cursor {value['next_cursor']}", "dim"))


def _database(value: Mapping[str, Any], now: int) -> RenderableType:
    expires = f"; it goes away {age(value['ttl_at'], now)}" if "ttl_at" in value else ""
    durable = "; each write waits for object storage" if value["durability"] == "durable" else ""
    return plain(f"{value['name']} is created{durable}{expires}")


def _databases(value: Mapping[str, Any], now: int) -> RenderableType:
    if not value["databases"]:
        return plain("no databases")
    made = table("database", "durability", "created", "expires")
    for each in value["databases"]:
        expires = age(each["ttl_at"], now) if "ttl_at" in each else ""
        made.add_row(
            plain(each["name"]), plain(each["durability"]), plain(age(each["created_at"], now)), plain(expires)
        )
    return _page(made, value)


def _usage(value: Mapping[str, Any], now: int) -> RenderableType:
    since = "" if value["counted_since"] is None else f" since {age(value['counted_since'], now)}"
    fields = {
        "database": f"{value['name']}@{value['branch']}",
        "created": age(value["created_at"], now),
        "expires": age(value["ttl_at"], now) if "ttl_at" in value else None,
        "durability": value["durability"],
        "transactions": value["txid"],
        "size": size(value["size"]),
        "reads": None if value["reads"] is None else f"{value['reads']}{since}",
        "writes": f"{value['writes']}{since}",
        "branches": value["branches"],
        "shipped": None if value["shipped_txid"] is None else f"up to transaction {value['shipped_txid']}",
        "stored": None if value["bytes_stored"] is None else size(value["bytes_stored"]),
    }
    grid = Table.grid(padding=(0, 2))
    for name, text in fields.items():
        if text is not None:
            grid.add_row(Text(name, "bold"), plain(text))
    held = table("holds", "rows", "size")
    for kind, rows in value["rows"].items():
        held.add_row(plain(kind), plain(rows), plain(size(value["bytes"][kind])))
    unknown = [plain(f"{name} is not known: {reason}", "yellow") for name, reason in value["unknown"].items()]
    return Group(grid, plain(""), held, *unknown)


def _results(value: Mapping[str, Any], _: int) -> RenderableType:
    shown: list[RenderableType] = []
    for result in value["results"]:
        if result["columns"]:
            made = table(*(plain(column).plain for column in result["columns"]))
            for row in result["rows"]:
                made.add_row(*(_cell(cell) for cell in row))
            shown += [made, plain(count(len(result["rows"]), "row"), "dim")]
        else:
            shown.append(plain(f"{count(result['rows_affected'], 'row')} changed"))
    return Group(*shown)


def _cell(value: Any) -> Text:
    if value is None:
        return Text("null", "dim")
    return plain(value if isinstance(value, str) else json.dumps(value))


def _value(value: Mapping[str, Any], _: int) -> RenderableType:
    try:
        return plain(value["value"].decode())
    except UnicodeDecodeError:
        return plain(f"{count(len(value['value']), 'byte')}, no text; --raw writes them, -o FILE keeps them", "yellow")


def _keys(value: Mapping[str, Any], _: int) -> RenderableType:
    if not value["keys"]:
        return plain("no keys")
    return _page(plain("\n".join(json.dumps(key, ensure_ascii=False)[1:-1] for key in value["keys"])), value)


def _inserted(value: Mapping[str, Any], _: int) -> RenderableType:
    ids = value["ids"]
    listed = ids if len(ids) <= _LISTED_IDS else ()
    return plain("\n".join([*listed, f"{count(len(ids), 'document')} kept"]))


def _documents(value: Mapping[str, Any], _: int) -> RenderableType:
    lines = [json.dumps(document, ensure_ascii=False) for document in value["docs"]]
    return plain("\n".join(lines) or "nothing found")


def _collections(value: Mapping[str, Any], _: int) -> RenderableType:
    if not value["collections"]:
        return plain("no collections")
    made = table("collection", "documents", "indexes")
    for each in value["collections"]:
        made.add_row(plain(each["name"]), plain(each["documents"]), plain(" ".join(each["indexes"])))
    return made


def _hits(value: Mapping[str, Any], _: int) -> RenderableType:
    if not value["hits"]:
        return plain("nothing found")
    made = table("id", "distance")
    for hit in value["hits"]:
        made.add_row(plain(hit["id"]), plain(f"{hit['distance']:.4f}"))
    return made


def _vector_collections(value: Mapping[str, Any], _: int) -> RenderableType:
    if not value["collections"]:
        return plain("no collections")
    made = table("collection", "dimension", "vectors")
    for each in value["collections"]:
        made.add_row(plain(each["name"]), plain(each["dimension"]), plain(each["count"]))
    return made


def _token(value: Mapping[str, Any], _: int) -> RenderableType:
    seconds = count(value["expires_in"], "second")
    return plain(f"{value['token']}\n\nscope {value['scope']}, for {seconds}; to revoke it: {value['jti']}")


def _said(text: str) -> Callable[[Mapping[str, Any], int], RenderableType]:
    return lambda value, _: plain(text.format_map(value))


TABLES: dict[str, Callable[[Mapping[str, Any], int], RenderableType]] = {
    "provision_database": _database,
    "list_databases": _databases,
    "db_delete": _said("deleted"),
    "db_usage": _usage,
    "query": _results,
    "kv_put": _said("kept"),
    "kv_get": _value,
    "kv_delete": _said("deleted"),
    "kv_list": _keys,
    "docs_insert": _inserted,
    "docs_find": _documents,
    "docs_update": lambda value, _: plain(f"{count(value['modified'], 'document')} changed"),
    "docs_delete": lambda value, _: plain(f"{count(value['deleted'], 'document')} deleted"),
    "docs_index": _said("{indexed} is indexed"),
    "docs_collections": _collections,
    "vector_upsert": _said("kept"),
    "vector_search": _hits,
    "vector_delete": lambda value, _: plain("deleted" if value["deleted"] else "there is no such vector"),
    "vector_collections": _vector_collections,
    "token_create": _token,
    "token_create_ns": _token,
    "token_revoke": _said("revoked"),
}
